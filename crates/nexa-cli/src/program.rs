//! From files to a module and its input.
//!
//! A program and what it imports are read below one folder, the one of the program's `nexa.toml` or, without one, of the
//! program itself: an import cannot reach what lies outside.

use std::path::{Path, PathBuf};

use nexa_vm::module::{Entry, Module};
use serde_json::{Map, Value};

use crate::args::InputArgs;
use crate::failure::Failure;

/// The most bytes of an input that is read from a file.
const INPUT_BYTES_MAX: u64 = nexa_types::limits::INPUT_BYTES_MAX as u64;

/// The folder below which a program's files lie, and the program's path within it.
pub fn project_of(file: &Path) -> Result<(PathBuf, String), Failure> {
    let whole = file.canonicalize().map_err(|error| {
        Failure::error(format!("cannot read {}: {error}", file.display())).hint("check the path of the program")
    })?;
    let own = whole.parent().unwrap_or(Path::new("/"));
    let folder = own.ancestors().find(|folder| folder.join("nexa.toml").is_file()).unwrap_or(own);
    let within = whole.strip_prefix(folder).expect("an ancestor of a path is a prefix of it");
    Ok((folder.to_path_buf(), within.to_string_lossy().into_owned()))
}

/// The entry of a module with this name.
pub fn entry<'a>(module: &'a Module, name: &str) -> Result<&'a Entry, Failure> {
    module.entries.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<&str> = module.entries.iter().map(|entry| entry.name.as_str()).collect();
        Failure::error(format!("the program has no flow or agent `{name}`"))
            .hint(format!("name one with --entry: {}", known.join(", ")))
    })
}

/// The arguments of an entry as a JSON object by parameter name.
///
/// A value that is no object of the parameters' names is the value of the only parameter.
pub fn arguments(entry: &Entry, input: &InputArgs) -> Result<String, Failure> {
    let names: Vec<&str> = entry.params.iter().map(|param| param.name.as_str()).collect();
    let value = match (&input.input, &input.input_file) {
        (None, None) => return Ok("{}".to_owned()),
        (Some(text), _) => serde_json::from_str(text).map_err(|error| {
            Failure::usage(format!("--input is not JSON: {error}"))
                .hint("a text needs quotes of its own: --input '\"…\"'")
        })?,
        (None, Some(file)) => Value::String(read_input(file)?),
    };
    if let Value::Object(fields) = &value
        && fields.keys().all(|key| names.contains(&key.as_str()))
    {
        return Ok(value.to_string());
    }
    let first = match (names.as_slice(), &input.input_file) {
        ([only], _) => only,
        ([first, ..], Some(_)) => first,
        ([], _) => return Err(Failure::usage(format!("`{}` takes no input", entry.name))),
        _ => {
            return Err(Failure::usage(format!("`{}` has several parameters", entry.name))
                .hint(format!("give --input an object with {}", names.join(", "))));
        }
    };
    Ok(Value::Object(Map::from_iter([((*first).to_owned(), value)])).to_string())
}

fn read_input(file: &Path) -> Result<String, Failure> {
    let cannot = |why: String| Failure::error(format!("cannot read {}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| cannot(error.to_string()))?.len();
    if length > INPUT_BYTES_MAX {
        return Err(cannot(format!("it has {length} bytes, more than the {INPUT_BYTES_MAX} that an input may have")));
    }
    std::fs::read_to_string(file).map_err(|error| cannot(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexa_vm::module::EntryParam;

    fn entry_with(names: &[&str]) -> Entry {
        Entry {
            name: "main".into(),
            is_agent: false,
            function: 0,
            params: names.iter().map(|name| EntryParam { name: (*name).into(), ty: 0, default: None }).collect(),
            result: 0,
            budget: nexa_types::Budget::default(),
        }
    }

    fn with_input(names: &[&str], text: &str) -> Result<String, String> {
        let input = InputArgs { input: Some(text.into()), input_file: None };
        arguments(&entry_with(names), &input).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_value_goes_to_the_only_parameter_and_an_object_to_all() {
        assert_eq!(with_input(&["text"], "\"hi\"").as_deref(), Ok("{\"text\":\"hi\"}"));
        assert_eq!(with_input(&["text"], "{\"text\":\"hi\"}").as_deref(), Ok("{\"text\":\"hi\"}"));
        assert_eq!(with_input(&["record"], "{\"x\":1}").as_deref(), Ok("{\"record\":{\"x\":1}}"));
        assert_eq!(with_input(&["a", "b"], "{\"a\":1,\"b\":2}").as_deref(), Ok("{\"a\":1,\"b\":2}"));
        assert!(with_input(&["a", "b"], "1").is_err());
        assert!(with_input(&[], "1").is_err());
        assert!(with_input(&["a"], "hi").is_err());
    }
}

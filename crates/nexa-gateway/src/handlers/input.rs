//! The entry of a program that a request means, and its input as arguments.

use nexa_proto::refusal::{Refusal, Violation};
use nexa_types::{Payload, Reason};
use nexa_vm::module::{Entry, Module};
use nexa_vm::value::{Dict, Key, Value};
use nexa_vm::{codec, json};

use super::programs::is_option;

/// The entry with this name, or, without a name, `main`, or the only flow, or the only entry.
pub(super) fn entry<'m>(module: &'m Module, name: &str) -> Result<&'m Entry, Refusal> {
    let listed = || {
        let names: Vec<_> = module.entries.iter().map(|entry| format!("`{}`", entry.name)).collect();
        if names.is_empty() {
            "the program has no flow and no agent".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        }
    };
    if !name.is_empty() {
        let found = module.entries.iter().find(|entry| entry.name == name);
        return found.ok_or_else(|| {
            Refusal::field("entry", format!("the program has no flow or agent `{name}`")).hint(listed())
        });
    }
    let only = |wanted: &dyn Fn(&&Entry) -> bool| {
        let mut matching = module.entries.iter().filter(wanted);
        matching.next().filter(|_| matching.next().is_none())
    };
    only(&|entry| entry.name == "main")
        .or_else(|| only(&|entry| !entry.is_agent))
        .or_else(|| only(&|_| true))
        .ok_or_else(|| Refusal::field("entry", "does not say which flow or agent to start").hint(listed()))
}

/// The arguments of an entry from a JSON object by parameter name: an encoded list, checked and with defaults filled in.
pub(super) fn arguments(module: &Module, entry: &Entry, text: &str) -> Result<Payload, Refusal> {
    let given = if text.trim().is_empty() { Dict::default() } else { object(text)? };
    let mut wrong = Vec::new();
    for (key, _) in given.entries() {
        let known = matches!(key, Key::Str(name) if entry.params.iter().any(|param| param.name == **name));
        if !known {
            let names: Vec<_> = entry.params.iter().map(|param| format!("`{}`", param.name)).collect();
            wrong.push(violation(&key_text(key), &format!("`{}` takes {}", entry.name, all_of(&names))));
        }
    }
    let mut values = Vec::with_capacity(entry.params.len());
    for param in &entry.params {
        let given = given.entries().iter().find(|(key, _)| matches!(key, Key::Str(name) if **name == *param.name));
        match (given, &param.default) {
            (Some((_, value)), _) => match json::validate(module, param.ty, value) {
                Ok(value) => values.push(value),
                Err(violations) => {
                    for found in violations {
                        let path = found.path.strip_prefix('$').unwrap_or(&found.path).to_owned();
                        let told = format!("expected {}, found {}", found.expected, found.found);
                        wrong.push(violation(&format!("{}{path}", param.name), &told));
                    }
                }
            },
            (None, Some(default)) => values.push(codec::decode_bytes(default).map_err(|error| {
                let message = format!("the default of `{}` cannot be read: {error}", param.name);
                Refusal::new(Reason::ProgramInvalid, message)
            })?),
            (None, None) if is_option(module, param.ty) => values.push(Value::None),
            (None, None) => wrong.push(violation(&param.name, "is missing")),
        }
    }
    if let Some(first) = wrong.first() {
        let message = format!("the input does not fit `{}`: {}: {}", entry.name, first.field, first.description);
        let mut refusal = Refusal::new(Reason::InvalidArgument, message);
        refusal.violations = wrong;
        return Err(refusal);
    }
    codec::try_encode(&Value::List(values.into())).map_err(|error| Refusal::field("input_json", error.to_string()))
}

fn object(text: &str) -> Result<Dict, Refusal> {
    match json::from_json(text) {
        Ok(Value::Dict(dict)) => Ok(dict.as_ref().clone()),
        Ok(_) => Err(Refusal::field("input_json", "is not a JSON object by parameter name")),
        Err(error) => Err(Refusal::field("input_json", error.to_string())),
    }
}

/// A JSON text as an encoded dynamic value; empty is `null`.
pub(super) fn dynamic(field: &str, text: &str) -> Result<Payload, Refusal> {
    let text = if text.trim().is_empty() { "null" } else { text };
    let value = json::from_json(text).map_err(|error| Refusal::field(field, error.to_string()))?;
    codec::try_encode(&value).map_err(|error| Refusal::field(field, error.to_string()))
}

fn violation(path: &str, description: &str) -> Violation {
    Violation { field: format!("input_json.{path}"), description: description.to_owned() }
}

fn key_text(key: &Key) -> String {
    match key {
        Key::Str(name) => name.to_string(),
        Key::Int(number) => number.to_string(),
        Key::Bool(flag) => flag.to_string(),
    }
}

fn all_of(names: &[String]) -> String {
    if names.is_empty() { "no parameters".to_owned() } else { names.join(", ") }
}

//! The programs under `examples/`: each compiles without a finding, is deterministic, and does what it says.

mod running;

use std::path::{Path, PathBuf};

use nexa_lang::diagnostic::Colour;
use nexa_lang::{CompileResult, FileLoader, LoadError, compile};
use nexa_vm::value::Value;
use running::{Desk, both_ways, str};

struct Folder(PathBuf);

impl FileLoader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        std::fs::read(self.0.join(path)).map_err(|_| LoadError::NotFound)
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn compiled(path: &str) -> CompileResult {
    let result = compile(path, &Folder(examples()));
    assert!(result.diagnostics.is_empty(), "{path}:\n{}", result.render(Colour::Off));
    result
}

fn desk(path: &str) -> Desk {
    Desk::module(compiled(path).module.expect("no finding, so a module"))
}

/// The programs below a folder, as paths from `examples`.
fn programs(folder: &Path, found: &mut Vec<String>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            programs(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "nx") {
            let path = entry.strip_prefix(examples()).expect("below examples");
            found.push(path.to_str().expect("a plain name").to_owned());
        }
    }
}

#[test]
fn every_example_compiles_without_a_finding_and_always_to_the_same_bytes() {
    let mut found = Vec::new();
    programs(&examples(), &mut found);
    assert!(found.len() >= 5, "{found:?}");
    for path in found {
        let bytes = compiled(&path).module.expect("a module").encode();
        assert_eq!(compiled(&path).module.expect("a module").encode(), bytes, "{path}");
        nexa_vm::Program::load(&bytes).unwrap_or_else(|error| panic!("{path}: {error:?}"));
    }
}

#[test]
fn hello_counts_words_without_a_model() {
    let (value, desk) = both_ways(|| desk("hello/hello.nx"), "main", &[str("you")]);
    assert_eq!(value, r#""you: 7 different words, the longest is `agent`""#);
    assert_eq!(desk.logs, ["hello, you"]);
}

#[test]
fn review_forks_three_reviewers_and_merges_one_verdict() {
    let make = || {
        desk("review/review.nx")
            .script("Clarity", &["Clear."])
            .script("Risk", &["fail:timeout"])
            .script("Style", &["Dry."])
            .script("Chief", &[r#"{"title":"T","summary":"S","points":["p"],"score":7}"#])
    };
    let (value, desk) = both_ways(make, "main", &[str("Some text.")]);
    assert_eq!(value, r#"{"title":"T","summary":"S","points":["p"],"score":7}"#);
    assert_eq!(desk.children, ["Clarity", "Risk", "Style", "Chief"]);
    let (_, sections) = desk.inputs.last().expect("the chief was asked");
    assert!(sections.contains("clarity") && sections.contains("failed: timeout"), "{sections}");
    assert!(desk.requests.iter().all(|request| request.stream));
}

#[test]
fn approval_sends_only_what_a_person_agreed_to() {
    let make =
        |approved| move || desk("approval/approval.nx").script("Draft", &["Dear you."]).decide(approved, "Ada", "");
    let (value, desk) = both_ways(make(true), "main", &[str("Hello?")]);
    assert_eq!((value.as_str(), desk.clock), ("\"Ada sent it\"", 2_000));
    assert_eq!(desk.emitted, ["outbox: \"Dear you.\""]);
    assert_eq!(desk.inputs[0].1, r#"{"letter":"Hello?","tone":"friendly"}"#);
    let (value, desk) = both_ways(make(false), "main", &[str("Hello?")]);
    assert_eq!(value, "\"Ada did not send it: \"");
    assert!(desk.emitted.is_empty());
}

#[test]
fn batch_labels_fifty_items_in_order() {
    let items: Vec<Value> = (0..51).map(|number| str(&format!("item {number}"))).collect();
    let items = Value::List(items.into());
    let mut whole = desk("batch/batch.nx").script("Label", &[" thing "]);
    let value = whole.run("main", std::slice::from_ref(&items));
    assert!(
        value.starts_with(r#"["item 0: thing","item 1: thing","#) && value.ends_with(r#""item 50: thing"]"#),
        "{value}"
    );
    assert_eq!(whole.calls, vec!["Label"; 51]);
}

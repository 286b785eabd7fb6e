//! Bad input and faults, seen from outside: the exit code, a text that says what to do, no panic, and nothing broken
//! for whoever comes next.

mod audit;
mod data;
mod disk;
mod endpoint;
mod input;
mod signals;
mod weights;

use std::path::Path;

use nexa_tests::{Desk, Finished};

/// One agent that asks once, and asks again soon if that may help.
const ASKER: &str = "\
agent Asker(question: str) {
    prompt: \"Answer.\"
    max_tokens: 20, stream: true, timeout: 20s, retry: { max: 2, backoff: 10ms, factor: 1.0 }
}
flow main(number: int) -> str { return Asker.run(\"#{number}\") }
";

/// As a script answers it.
const ANSWER: &str = "script Asker => \"forty two, as far as anybody knows\"\n";

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A command that must fail so, and say all of this.
#[track_caller]
fn fails(finished: Finished, exit: i32, says: &[&str]) -> String {
    let (code, err) = finished.bad();
    assert_eq!(code, exit, "{err}");
    assert!(!err.contains("panicked"), "{err}");
    for part in says {
        assert!(err.contains(part), "it does not say “{part}”:\n{err}");
    }
    err
}

/// `nexa run` of the asker.
fn asks<'a>(program: &'a Path, number: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run", text(program), "--input", number];
    args.extend(more);
    args
}

/// The next run on the same data is a good one.
#[track_caller]
fn goes_on(desk: &Desk) {
    let program = desk.write("asker.nx", ASKER);
    let script = desk.write("answer.script", ANSWER);
    let said = desk.run(&asks(&program, "42", &["--new", "--script", text(&script)])).good();
    assert_eq!(said, "forty two, as far as anybody knows\n");
}

//! What people type and write wrongly.

use std::path::Path;

use nexa_tests::Desk;

use crate::{ASKER, asks, fails, goes_on, text};

/// `nexa check` finds the same; its diagnostics are its result, so they are on standard output.
#[track_caller]
fn check_finds(desk: &Desk, program: &Path, shown: &[&str]) {
    let finished = desk.run(&["check", text(program)]);
    for part in shown {
        assert!(finished.out.contains(part), "it does not say “{part}”:\n{}", finished.out);
    }
    fails(finished, 1, &[]);
}

#[test]
fn a_program_that_cannot_be_read_is_shown_with_its_line() {
    let desk = Desk::new();
    let program = desk.write("broken.nx", "flow main(n: int) -> int {\n    let x = 1 +\n    return n\n}\n");
    let shown = ["error[E0201]", "broken.nx:3:5", "return n", "expected an expression"];
    fails(desk.run(&["run", text(&program), "--input", "1"]), 1, &shown);
    check_finds(&desk, &program, &shown);
    goes_on(&desk);
}

#[test]
fn a_program_with_a_wrong_type_is_shown_with_its_line() {
    let desk = Desk::new();
    let program = desk.write("wrong.nx", "flow main(n: int) -> str {\n    return n + 1\n}\n");
    let shown = ["error[E0301]", "wrong.nx:2:12", "= help:"];
    fails(desk.run(&["run", text(&program), "--input", "1"]), 1, &shown);
    check_finds(&desk, &program, &shown);
    goes_on(&desk);
}

#[test]
fn bytes_that_are_no_text_are_an_error_and_no_panic() {
    let desk = Desk::new();
    let program = desk.path("bytes.nx");
    std::fs::write(&program, [0xFF, 0x00, 0x80, b'f', b'l', b'o', b'w']).expect("the desk can be written to");
    check_finds(&desk, &program, &["bytes.nx"]);
    fails(desk.run(&["run", text(&program)]), 1, &["bytes.nx"]);
}

#[test]
fn a_missing_file_is_named() {
    let desk = Desk::new();
    fails(desk.run(&["run", "nowhere.nx"]), 1, &["cannot read nowhere.nx", "help: check the path"]);
    let program = desk.write("asker.nx", ASKER);
    fails(desk.run(&["run", text(&program), "--input-file", "nowhere.txt"]), 1, &["cannot read nowhere.txt"]);
    fails(desk.run(&asks(&program, "1", &["--script", "nowhere.script"])), 1, &["nowhere.script"]);
    goes_on(&desk);
}

#[test]
fn an_input_that_is_no_json_says_how_to_quote_it() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    fails(desk.run(&asks(&program, "forty two", &[])), 2, &["--input is not JSON", "help:", "quotes"]);
    goes_on(&desk);
}

#[test]
fn an_input_of_the_wrong_type_names_the_parameter() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let err =
        fails(desk.run(&asks(&program, "\"x\"", &[])), 1, &["number", "expected a whole number", "the text \"x\""]);
    assert_eq!(err.matches("expected a whole number").count(), 1, "it is said once:\n{err}");
    fails(desk.run(&["run", text(&program)]), 1, &["number", "is missing"]);
    fails(desk.run(&["run", text(&program), "--entry", "other"]), 1, &["no flow or agent `other`", "main, Asker"]);
    goes_on(&desk);
}

#[test]
fn a_script_with_an_error_names_line_and_column() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let script = desk.write("wrong.script", "script Asker => \"yes\"\nscript Other = \"no\"\n");
    let says = ["wrong.script: line 2, column 14", "`=>`"];
    fails(desk.run(&asks(&program, "1", &["--script", text(&script)])), 1, &says);
    goes_on(&desk);
}

#[test]
fn an_agent_without_a_rule_is_told_which_rule_to_add() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let script = desk.write("other.script", "script Other => \"no\"\n");
    let says = ["unscripted_call", "no rule for `Asker`; add `script Asker => …`"];
    fails(desk.run(&asks(&program, "1", &["--script", text(&script)])), 3, &says);
    goes_on(&desk);
}

#[test]
fn an_unknown_provider_is_refused_once_with_the_known_ones() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let model = ["--model", "nobody/large", "--endpoint", "acme=http://127.0.0.1:1/v1"];
    let says = ["refused", "no provider `nobody` is configured", "acme, local"];
    let err = fails(desk.run(&asks(&program, "1", &model)), 3, &says);
    assert!(!err.contains("#2"), "what is refused is not tried again:\n{err}");
    let wrong = ["--model", "acme/x", "--endpoint", "acme"];
    fails(desk.run(&asks(&program, "1", &wrong)), 2, &["PROVIDER=URL", "help:"]);
    goes_on(&desk);
}

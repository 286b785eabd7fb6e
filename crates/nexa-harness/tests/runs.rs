//! What the harness itself promises: runs end, modes agree, nodes refuse tests.

use std::collections::BTreeMap;

use nexa_harness::{Pace, Suite};
use nexa_lang::{compile, compile_tests};
use nexa_types::{Outcome, RunCode};
use nexa_vm::vm::Program;

fn files(text: &str) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([("main.nx".to_owned(), text.as_bytes().to_vec())])
}

fn suite(text: &str) -> Suite {
    Suite::load("main.nx", &files(text)).unwrap_or_else(|result| panic!("{}", result.render(Default::default())))
}

fn failure_of(text: &str) -> (RunCode, String) {
    let suite = suite(text);
    let test = suite.tests().next().expect("a test");
    match suite.run(test, Pace::Full).outcome {
        Outcome::Err(failure) => (failure.code, failure.message),
        Outcome::Ok(_) => panic!("it passed"),
    }
}

#[test]
fn a_test_that_would_run_for_ever_is_ended_and_told() {
    let (code, message) = failure_of("test \"x\" { while (true) { sleep(1h) } }");
    assert_eq!(code, RunCode::Timeout);
    assert!(message.contains("steps and seems not to end"), "{message}");
}

#[test]
fn a_test_that_waits_for_what_never_comes_says_who_waits() {
    let (code, message) = failure_of("flow f() -> int { return receive() } test \"x\" { assert f() == 1 }");
    assert_eq!(code, RunCode::Timeout);
    assert!(
        message.contains("nothing more will happen") && message.contains("`test \"x\"` waits (message)"),
        "{message}"
    );
}

#[test]
fn a_node_refuses_a_test_build_and_a_program_has_no_tests_in_it() {
    // A test may make functions, agents and questions of its own.
    let text = "flow main() -> int { return 1 }
        agent A { prompt: \"x\" }
        test \"x\" {
            let b = A.clone(name: \"B\")
            script B => \"b\"
            assert main() == 1 and [1].map(fn(n) => n + 1) == [2] and (\"q\" >> b) == \"b\"
            semantic_if \"it is short\" against \"q\" { print(1) } else { print(2) }
            let _ = \"q\" |>> [A, (fn(s) => s)]
            assert calls() == [\"B\"]
        }";
    let tested = compile_tests("main.nx", &files(text)).module.expect("it compiles");
    let refused = Program::load(&tested.encode()).expect_err("a node loads no tests");
    assert!(format!("{refused:?}").contains("test build"), "{refused:?}");
    let plain = compile("main.nx", &files(text)).module.expect("it compiles");
    let without = compile("main.nx", &files("flow main() -> int { return 1 }\n        agent A { prompt: \"x\" }"))
        .module
        .expect("it compiles");
    assert_eq!(plain.encode(), without.encode(), "tests leave no trace in a program");
}

#[test]
fn only_tests_ask_the_harness() {
    let text = "flow main() -> int { return 1 } test \"x\" { assert calls() == [] }";
    let mut module = compile_tests("main.nx", &files(text)).module.expect("it compiles");
    for function in &mut module.functions {
        function.test = false;
    }
    let refused = Program::for_tests(module).expect_err("the verifier looks");
    assert_eq!((refused.code, refused.what.as_str()), ("E1003", "only a test asks a test harness"));
}

#[test]
fn tests_of_imported_files_run_where_they_stand() {
    let mut files = files("use \"lib.nx\"\ntest \"mine\" { assert one() == 1 }");
    files.insert("lib.nx".to_owned(), b"flow one() -> int { return 1 } test \"theirs\" { assert false }".to_vec());
    let suite = Suite::load("main.nx", &files).unwrap_or_else(|result| panic!("{}", result.render(Default::default())));
    assert_eq!(suite.tests().map(|test| test.name.as_str()).collect::<Vec<_>>(), ["mine"]);
}

#[test]
fn the_order_of_what_happens_does_not_depend_on_slices() {
    // Births and messages of one burst of computing, which full slices hand out at once and single ones piece by piece.
    let text = r##"
        agent A { prompt: "x" }
        agent B { prompt: "x" }
        flow relay() -> str { let s: str = receive(); return A.run(s) }
        flow other() -> str { return B.run("b") }
        test "x" {
            script A => "a"
            script B => "b"
            let h = spawn relay()
            pass "m" to h
            let g = spawn other()
            assert "#{await h}#{await g}" == "ab" and calls() == ["B", "A"]
        }
    "##;
    let suite = suite(text);
    let run = suite.prove(suite.tests().next().expect("a test")).unwrap_or_else(|differs| panic!("{}", differs.what));
    assert!(matches!(run.outcome, Outcome::Ok(_)), "{:?}\n{}", run.outcome, run.told());
}

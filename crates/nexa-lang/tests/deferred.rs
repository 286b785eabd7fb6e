//! `defer`: what is deferred runs last to first on every way out of its block.

mod running;

use expect_test::{Expect, expect};
use nexa_lang::compile_text;
use nexa_lang::diagnostic::Colour;
use nexa_vm::value::Value;
use running::{Desk, both_ways, str};

const PROGRAM: &str = r##"
flow ways(how: str) -> str {
    print("start")
    defer print("first")
    let n = 1
    defer { for each i, x in ["x"] { print("second #{n} #{i}#{x}") } }
    n = 2
    defer print("third")
    if (how == "return") { return "returned #{n}" }
    if (how == "fail") { fail("as asked") }
    n = 3
    return "end"
}
flow caught() -> str {
    try {
        defer print("cleaned")
        fail("inside")
    } catch (e) {
        print("caught #{e.message}")
    }
    return "went on"
}
flow loops() -> list[int] {
    let seen: list[int] = []
    for each x in range(0, 6) {
        defer { seen += [x * 10] }
        try {
            defer { seen += [x] }
            if (x == 1) { continue }
            if (x == 4) { break }
        } catch (e) {
            seen += [-1]
        }
        seen += [100 + x]
    }
    return seen
}
flow replaced() -> str {
    try {
        defer print("outer")
        defer fail("from the defer", code: "refused")
        fail("first")
    } catch (e) {
        return "#{e.code}: #{e.message}"
    }
}
flow kept() -> int {
    let n = 1
    defer { n = 5; print("n is #{n}") }
    return n
}
fn pure(xs: list[int]) -> int {
    let total = 0
    defer { total = 0 }
    for each x in xs { total += x }
    return total
}
flow uses_pure() -> int { return pure([1, 2]) }
"##;

fn run(entry: &str, args: &[Value]) -> String {
    let (value, desk) = both_ways(|| Desk::program(PROGRAM), entry, args);
    format!("{value} after {:?}", desk.logs)
}

#[test]
fn it_runs_last_to_first_at_the_end_at_a_return_and_on_an_error() {
    expect![[r#""end" after ["start", "third", "second 3 0x", "first"]"#]].assert_eq(&run("ways", &[str("")]));
    expect![[r#""returned 2" after ["start", "third", "second 2 0x", "first"]"#]]
        .assert_eq(&run("ways", &[str("return")]));
    expect![[r#"failed: as asked after ["start", "third", "second 2 0x", "first"]"#]]
        .assert_eq(&run("ways", &[str("fail")]));
}

#[test]
fn it_runs_before_the_handler_that_catches_the_error() {
    expect![[r#""went on" after ["cleaned", "caught inside"]"#]].assert_eq(&run("caught", &[]));
}

#[test]
fn it_runs_at_each_round_of_a_loop_however_the_round_ends() {
    expect!["[0,100,0,1,10,2,102,20,3,103,30,4,40] after []"].assert_eq(&run("loops", &[]));
}

#[test]
fn an_error_of_its_own_takes_the_place_of_the_first_and_the_others_run_all_the_same() {
    expect![[r#""refused: from the defer" after ["outer"]"#]].assert_eq(&run("replaced", &[]));
}

#[test]
fn the_result_is_decided_before_it_runs() {
    expect![[r#"1 after ["n is 5"]"#]].assert_eq(&run("kept", &[]));
    expect!["3 after []"].assert_eq(&run("uses_pure", &[]));
}

/// The findings of a program, as people see them.
fn says(program: &str, expected: Expect) {
    expected.assert_eq(&compile_text("main.nx", program).render(Colour::Off));
}

#[test]
fn what_is_deferred_cannot_leave_what_is_left_already() {
    says(
        "flow main(xs: list[int]) -> int {\n    for each x in xs {\n        defer { break }\n        defer { return x }\n        defer { defer print(x) }\n    }\n    let n = if (xs.len() > 1) { defer print(1); 2 } else { 3 }\n    return n\n    defer print(n)\n}",
        expect![[r#"
            error[E0201]: `break` stands outside of a loop
             --> main.nx:3:17
              |
            3 |         defer { break }
              |                 ^^^^^

            error[E0201]: `return` stands inside of a `defer`
             --> main.nx:4:9
              |
            4 |         defer { return x }
              |         ^^^^^^^^^^^^^^^^^^
              |
              = help: what is deferred runs when the result is decided already

            error[E0507]: this is never reached
             --> main.nx:9:5
              |
            8 |     return n
              |     -------- the block ends here
            9 |     defer print(n)
              |     ^^^^^^^^^^^^^^
              |
              = help: remove it, or move it before the statement that ends the block"#]],
    );
}

#[test]
fn a_function_that_grows_too_long_by_it_is_refused() {
    let defers = "    defer print(1)\n".repeat(100);
    let returns = "    if (n == 1) { return 2 }\n".repeat(400);
    let program = format!("flow main(n: int) -> int {{\n{defers}{returns}    return 3\n}}");
    let codes: Vec<&str> =
        compile_text("main.nx", &program).diagnostics.iter().map(|finding| finding.code.name()).collect();
    assert_eq!(codes, ["E1006"]);
}

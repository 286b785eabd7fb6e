//! Decorators, and types of one name in two files.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod running;

use std::collections::BTreeMap;

use expect_test::expect;
use nexa_lang::diagnostic::Colour;
use nexa_lang::{compile, compile_text};
use nexa_vm::value::Value;
use running::Desk;

fn codes(program: &str) -> Vec<&'static str> {
    compile_text("main.nx", program).diagnostics.iter().map(|finding| finding.code.name()).collect()
}

#[test]
fn what_is_deprecated_is_told_where_it_is_used() {
    let program = r#"
@deprecated("use `new`")
flow old(n: int) -> int { return if (n < 1) 0 else old(n - 1) }
@deprecated("")
agent A { prompt: "x" }
@deprecated("gone soon")
enum E { a, b(n: int) }
flow main(n: int, q: str, e: E) -> any {
    let x = old(n)
    let f = q |>> [A, A]
    print([a, b(x)])
    return (e, f, q >> A)
}"#;
    let result = compile_text("main.nx", program);
    expect![[r#"
        warning[W0213]: this is deprecated: gone soon
         --> main.nx:8:30
          |
        8 | flow main(n: int, q: str, e: E) -> any {
          |                              ^

        warning[W0213]: this is deprecated: use `new`
         --> main.nx:9:13
          |
        9 |     let x = old(n)
          |             ^^^

        warning[W0213]: this is deprecated
          --> main.nx:10:20
           |
        10 |     let f = q |>> [A, A]
           |                    ^

        warning[W0213]: this is deprecated
          --> main.nx:10:23
           |
        10 |     let f = q |>> [A, A]
           |                       ^

        warning[W0213]: this is deprecated: gone soon
          --> main.nx:11:12
           |
        11 |     print([a, b(x)])
           |            ^

        warning[W0213]: this is deprecated: gone soon
          --> main.nx:11:15
           |
        11 |     print([a, b(x)])
           |               ^

        warning[W0213]: this is deprecated
          --> main.nx:12:24
           |
        12 |     return (e, f, q >> A)
           |                        ^"#]]
    .assert_eq(&result.render(Colour::Off));
}

#[test]
fn what_is_allowed_stays_quiet_in_its_declaration() {
    let flow = "flow f(n) -> str { let unused = n; return \"\" }";
    assert_eq!(codes(flow), ["W0318", "W0212"]);
    assert_eq!(codes(&format!("@allow(W0212)\n{flow}")), ["W0318"]);
    assert_eq!(codes(&format!("@allow(W0212, W0318)\n{flow}")), [""; 0]);
    assert_eq!(codes(&format!("@allow(W0212)\n@allow(W0318)\n{flow}")), [""; 0]);
    assert_eq!(codes(&format!("@allow(W0212)\nflow g() {{ }}\n{flow}")), ["W0318", "W0212"]);
    let budget = "agent A { prompt: \"x\", budget: { tokens: 2_000 } }";
    assert_eq!(codes(budget), ["W0604"]);
    assert_eq!(codes(&format!("@allow(W0604)\n{budget}")), [""; 0]);
}

#[test]
fn decorators_are_checked() {
    for (decorator, expected) in [
        ("@id(\"briefer\")", vec![]),
        ("@id(\"a b\")", vec!["E0403"]),
        ("@id(\"a/b\")", vec!["E0403"]),
        ("@id(\"\")", vec!["E0403"]),
        ("@id(briefer)", vec!["E0304"]),
        ("@id", vec!["E0304"]),
        ("@id(\"a\", \"b\")", vec!["E0304"]),
        ("@id(\"a\")\n@id(\"b\")", vec!["E0402"]),
        ("@deprecated", vec!["E0304"]),
        ("@deprecated(\"#{1}\")", vec!["E0304"]),
        ("@allow", vec!["E0304"]),
        ("@allow(W0605)", vec!["E0208"]),
        ("@allow(\"W0604\")", vec!["E0208"]),
        ("@allow(E0605)", vec!["E0403"]),
        ("@depracated(\"x\")", vec!["E0401"]),
    ] {
        assert_eq!(codes(&format!("{decorator}\nflow f() {{ }}")), expected, "{decorator}");
    }
    assert_eq!(codes("@id(\"x\")\nflow f() { }\n@id(\"x\")\nflow g() { }"), ["E0207"]);
}

#[test]
fn types_of_one_name_in_two_files_are_two_types() {
    let other = r#"
enum Verdict { accept, later(days: int) }
struct Cursor { page: int }
flow other() -> Verdict { return later(3) }
flow first() -> Cursor { return Cursor { page: 1 } }"#;
    let main = r#"use "other.nx" as o
enum Verdict { accept, later(days: int) }
struct Cursor { page: int }
flow main(n: int) -> any {
    let theirs: list[any] = [o.other(), o.first(), Cursor { page: 2 }, Verdict.later(4)]
    let value = theirs[n]
    return match value {
        c: o.Cursor => "their cursor #{c.page}"
        c: Cursor => "my cursor #{c.page}"
        Verdict.later(days) => "mine, #{days} days"
        o.Verdict.later(days) => "theirs, #{days} days"
        _ => "else"
    }
}
flow mixed(n: int) -> any {
    let both: list[Verdict | o.Verdict] = [Verdict.accept, o.Verdict.accept, Verdict.later(1), o.other()]
    let value = both[n]
    return match value { _: Verdict => "mine", _: o.Verdict => "theirs" }
}"#;
    let files = BTreeMap::from([
        ("main.nx".to_owned(), main.as_bytes().to_vec()),
        ("other.nx".to_owned(), other.as_bytes().to_vec()),
    ]);
    let result = compile("main.nx", &files);
    assert!(result.diagnostics.is_empty(), "{}", result.render(Colour::Off));
    let module = result.module.unwrap();
    let run = |entry: &str, n| Desk::module(module.clone()).run(entry, &[Value::Int(n)]);
    let main: Vec<String> = (0..4).map(|n| run("main", n)).collect();
    assert_eq!(main, ["\"theirs, 3 days\"", "\"their cursor 1\"", "\"my cursor 2\"", "\"mine, 4 days\""]);
    let mixed: Vec<String> = (0..4).map(|n| run("mixed", n)).collect();
    assert_eq!(mixed, ["\"mine\"", "\"theirs\"", "\"mine\"", "\"theirs\""]);
}

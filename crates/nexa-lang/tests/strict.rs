//! `--strict`: a value of any type where a type is asked for is an error, and a program that has none compiles to the same
//! module as without.

use std::collections::BTreeMap;

use expect_test::expect;
use nexa_lang::diagnostic::Colour;
use nexa_lang::{CompileResult, Options, compile_with};

fn compiled(program: &str, is_strict: bool) -> CompileResult {
    let files = BTreeMap::from([("main.nx".to_owned(), program.as_bytes().to_vec())]);
    compile_with("main.nx", &files, &Options { is_strict, ..Options::default() })
}

/// The codes of the errors of `--strict`, of a program that is good without.
fn strictly(program: &str) -> Vec<&'static str> {
    let loose = compiled(program, false);
    assert!(!loose.has_errors(), "{program}\n{}", loose.render(Colour::Off));
    let strict = compiled(program, true);
    assert_eq!(strict.module.is_none(), strict.has_errors());
    strict.diagnostics.iter().filter(|found| found.is_error()).map(|found| found.code.name()).collect()
}

#[test]
fn any_where_a_type_is_asked_for_is_an_error() {
    let note =
        "protocol Note { title: str }\nagent A(note: Note) { prompt: \"a\" }\nflow take(n: int) -> int { return n }\n";
    for (statement, code) in [
        ("let n: int = v; print(n)", "E0301"),
        ("let n = 1; n = v; print(n)", "E0310"),
        ("let xs: list[int] = list_of(v); print(xs)", "E0301"),
        ("print(take(v))", "E0301"),
        ("print(v >> take)", "E0501"),
        ("print(A.run(v))", "E0301"),
        ("let note = Note { title: v }; print(note)", "E0301"),
        ("let xs: list[str] = [v]; print(xs)", "E0308"),
        ("print([1, 2][v])", "E0301"),
        ("if (v) { print(1) }", "E0301"),
        ("print(not v)", "E0301"),
        ("print(true and v)", "E0301"),
        ("print(v + 1)", "E0301"),
        ("print(v > 1)", "E0301"),
        ("print(-v)", "E0301"),
        ("print(text.upper(v))", "E0301"),
        ("for each x in v { print(x) }", "E0301"),
        ("let (a, b) = v; print([a, b])", "E0301"),
        ("sleep(v)", "E0301"),
    ] {
        let program =
            format!("{note}flow list_of(v: any) -> list[any] {{ return [v] }}\nflow main(v: any) {{ {statement} }}");
        assert_eq!(strictly(&program), [code], "{statement}");
    }
    assert_eq!(strictly("flow main(v: any) -> str { return v }"), ["E0301"]);
    assert_eq!(strictly("flow main(v) -> any { return v }"), ["W0318"]);
}

#[test]
fn what_asks_for_no_type_takes_any_and_a_match_gives_it_one() {
    for body in [
        "print(v)",
        "print(\"#{v}\")",
        "print(v == 1)",
        "print(v.title)",
        "print(v[0])",
        "let x: any = v; print(x)",
        "let xs: list[any] = [v]; print(xs)",
        "let xs: list[float] = [1, 2]; print(xs)",
        "print(match v { n: int => n + 1, _ => 0 })",
        "let n: int = receive(timeout: 1s); print(n)",
    ] {
        assert_eq!(strictly(&format!("flow main(v: any) {{ {body} }}")), [""; 0], "{body}");
    }
}

#[test]
fn the_message_says_what_is_asked_for_and_how_to_get_there() {
    let program = "flow main(text: str) -> int {\n    let n: int = json.parse(text)\n    return n\n}";
    expect![[r#"
        error[E0301]: the value is `any`, but `int` is written
         --> main.nx:2:18
          |
        2 |     let n: int = json.parse(text)
          |            ---   ^^^^^^^^^^^^^^^^ this is `any`
          |            |
          |            `int` is asked for here
          |
          = note: `--strict` asks for types that are known before the program runs
          = help: ask what it is: `match x { n: int => …, _ => … }`"#]]
    .assert_eq(&compiled(program, true).render(Colour::Off));
}

#[test]
fn a_module_does_not_depend_on_how_strictly_it_was_checked() {
    let program = "agent A(x: str) { prompt: \"a\" }\nflow main(x: str) -> str { return x >> A }";
    let module = |is_strict| compiled(program, is_strict).module.expect("the program is good").encode();
    assert_eq!(module(true), module(false));
}

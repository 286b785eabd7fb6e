//! `match`: every form of pattern, what it binds, what it leaves out, and what is never reached.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod running;

use expect_test::{Expect, expect};
use nexa_lang::compile_text;
use nexa_lang::diagnostic::Colour;
use nexa_vm::value::Value;
use running::{Desk, both_ways, str};

const TYPES: &str = r#"
enum Verdict { accept, reject(reason: str), hold(days: int, note: str?) }
enum Other { accept, later }
protocol Brief { title: str, score: float? }
protocol Note { text: str }
struct Cursor { page: int, done: bool }
"#;

fn says(program: &str, expected: Expect) {
    expected.assert_eq(&compile_text("main.nx", program).render(Colour::Off));
}

/// The codes of a flow that matches its argument `v`.
fn codes(ty: &str, arms: &str) -> Vec<&'static str> {
    let program = format!("{TYPES}\nflow f(v: {ty}) -> any {{ return match v {{ {arms} }} }}");
    compile_text("main.nx", &program).diagnostics.iter().map(|finding| finding.code.name()).collect()
}

/// Runs a match of an argument that is written as JSON and checked against a type.
fn matched(ty: &str, arms: &str, values: &[&str]) -> Vec<String> {
    let program = format!(
        "{TYPES}\nflow main(text: str) -> any {{ let v: {ty} = json.parse(text); return match v {{ {arms} }} }}"
    );
    values.iter().map(|value| both_ways(|| Desk::program(&program), "main", &[str(value)]).0).collect()
}

#[test]
fn a_pattern_with_a_type_takes_the_values_of_it() {
    let arms = "n: int => \"int #{n + 1}\", s: str => \"str #{s.upper()}\", xs: list[int] => \"list #{xs.len()}\", \
        b: Brief => \"brief #{b.title}\", m: dict[str, int] => \"dict #{m.len()}\", none => \"none\", _ => \"else\"";
    assert_eq!(
        matched(
            "any",
            arms,
            &["4", "\"a\"", "[1, 2]", "[\"x\"]", "{\"title\": \"T\"}", "{\"k\": 1}", "null", "2.5", "true"]
        ),
        [
            "\"int 5\"",
            "\"str A\"",
            "\"list 2\"",
            "\"else\"",
            "\"brief T\"",
            "\"dict 1\"",
            "\"none\"",
            "\"else\"",
            "\"else\""
        ]
    );
}

#[test]
fn a_union_is_narrowed_arm_by_arm() {
    let arms = "n: int => n + 1, s: str => s.len(), x => if (x) 1 else 0";
    assert_eq!(matched("int | str | bool", arms, &["4", "\"four\"", "true"]), ["5", "4", "1"]);
    assert_eq!(codes("int | str | bool", arms), [""; 0]);
    // What an enum and a text have in common is told apart by what is there.
    let arms = "accept => 1, reject(why) => why.len(), hold(days, _) => days, s: str => 0 - s.len()";
    let program = format!(
        "{TYPES}\nflow main(n: int) -> int {{\n\
         let all: list[Verdict | str] = [accept, \"accept\", reject(\"late\"), hold(7), \"x\"]\n\
         let v = all[n]\n    return match v {{ {arms} }}\n}}"
    );
    let run = |n| both_ways(|| Desk::program(&program), "main", &[Value::Int(n)]).0;
    assert_eq!((0..5).map(run).collect::<Vec<_>>(), ["1", "-6", "4", "7", "-1"]);
}

#[test]
fn a_number_of_a_union_is_what_it_is() {
    let program = "flow main(n: int) -> str {\n    let all: list[int | float] = [2, 2.0]\n    let v = all[n]\n\
        return match v { i: int => \"int #{i}\", x: float => \"float #{x}\" }\n}\n\
        flow checked(text: str) -> str {\n    let v: int | float = json.parse(text)\n\
        return match v { i: int => \"int #{i}\", x: float => \"float #{x}\" }\n}";
    let run = |entry: &str, value: Value| both_ways(|| Desk::program(program), entry, &[value]).0;
    assert_eq!(run("main", Value::Int(0)), "\"int 2\"");
    assert_eq!(run("main", Value::Int(1)), "\"float 2.0\"");
    assert_eq!(run("checked", str("2.0")), "\"float 2.0\"");
    assert_eq!(run("checked", str("2")), "\"int 2\"");
}

#[test]
fn lists_tuples_and_records_are_taken_apart() {
    let arms = "[] => \"none\", [one] => \"one #{one}\", [1, b] => \"from 1 to #{b}\", [a, _, [c]] => \"#{a} #{c}\", _ => \"many\"";
    assert_eq!(
        matched("any", arms, &["[]", "[7]", "[1, 2]", "[2, 2]", "[1, 2, [3]]", "[1, 2, 3]", "5"]),
        ["\"none\"", "\"one 7\"", "\"from 1 to 2\"", "\"many\"", "\"1 3\"", "\"many\"", "\"many\""]
    );
    let arms = "[] => 0, [a] => a, [a, b] => a * b, _ => 0 - 1";
    assert_eq!(matched("list[int]", arms, &["[]", "[7]", "[3, 5]", "[1, 2, 3]"]), ["0", "7", "15", "-1"]);
    let arms = "(0, s) => s, (n: int, s) => \"#{n}#{s}\"";
    assert_eq!(matched("(int, str)", arms, &["[0, \"a\"]", "[2, \"b\"]"]), ["\"a\"", "\"2b\""]);
    let arms = "{ kind: \"a\", value } => \"a #{value}\", { kind: \"b\", inner: { deep: [x, _] } } => \"b #{x}\", _ => \"else\"";
    assert_eq!(
        matched(
            "any",
            arms,
            &[
                "{\"kind\": \"a\", \"value\": 1, \"more\": 2}",
                "{\"kind\": \"b\", \"inner\": {\"deep\": [4, 5]}}",
                "{\"kind\": \"b\"}",
                "[1]",
                "null",
            ]
        ),
        ["\"a 1\"", "\"b 4\"", "\"else\"", "\"else\"", "\"else\""]
    );
    let arms = "{ title, score: none } => title, { title: \"x\", score: s } => \"x #{s}\", { score: s } => \"#{s}\"";
    assert_eq!(
        matched(
            "Brief",
            arms,
            &["{\"title\": \"t\"}", "{\"title\": \"x\", \"score\": 1}", "{\"title\": \"y\", \"score\": 2.5}"]
        ),
        ["\"t\"", "\"x 1.0\"", "\"2.5\""]
    );
}

#[test]
fn records_of_a_union_are_told_apart_by_their_fields() {
    let arms = "{ title } => title, { text } => text, s: str => s";
    assert_eq!(
        matched("Brief | Note | str", arms, &["{\"title\": \"t\"}", "{\"text\": \"n\"}", "\"s\""]),
        ["\"t\"", "\"n\"", "\"s\""]
    );
    assert_eq!(codes("Brief | Note | str", arms), [""; 0]);
    assert_eq!(codes("Brief | Note | str", "{ title } => title, s: str => s"), ["E0315"]);
    assert_eq!(codes("Brief | Note", "{ titel } => titel"), ["E0301"]);
    assert_eq!(codes("Brief | str", "{ titel } => titel, s: str => s"), ["E0305"]);
}

#[test]
fn optional_values_are_narrowed_by_none_and_by_type() {
    assert_eq!(matched("int?", "none => 0, n => n + 1", &["null", "4"]), ["0", "5"]);
    assert_eq!(matched("int?", "n: int => n + 1, none => 0", &["null", "4"]), ["0", "5"]);
    assert_eq!(matched("bool?", "true => 1, false => 2, none => 3", &["true", "false", "null"]), ["1", "2", "3"]);
    assert_eq!(
        matched("Brief?", "{ title } => title, none => \"-\"", &["{\"title\": \"t\"}", "null"]),
        ["\"t\"", "\"-\""]
    );
    assert_eq!(codes("int?", "n: int => n"), ["E0315"]);
    assert_eq!(codes("(int | str)?", "none => 0, n: int => n, s => s.len()"), [""; 0]);
    assert_eq!(
        codes("Verdict?", "accept => 1, none => 0, x => match x { reject(_) => 2, hold(_, _) => 3, accept => 4 }"),
        [""; 0]
    );
}

#[test]
fn cases_inside_of_cases_are_counted() {
    let type_of = "Result[Verdict, Error]";
    assert_eq!(codes(type_of, "ok(accept) => 1, ok(reject(_)) => 2, ok(hold(_, _)) => 3, err(_) => 4"), [""; 0]);
    assert_eq!(codes(type_of, "ok(accept) => 1, ok(reject(\"x\")) => 2, ok(hold(_, _)) => 3, err(_) => 4"), ["E0315"]);
    assert_eq!(codes("(bool, bool)", "(true, _) => 1, (_, true) => 2, (false, false) => 3"), [""; 0]);
    assert_eq!(codes("(bool, bool)", "(true, _) => 1, (_, true) => 2"), ["E0315"]);
    assert_eq!(codes("(bool, bool)", "(true, _) => 1, (false, _) => 2, (_, true) => 3"), ["W0316"]);
    assert_eq!(codes("Cursor", "{ done: true, page } => page, { done: false } => 0"), [""; 0]);
    assert_eq!(codes("Cursor", "{ done: true, page } => page, { page: 1 } => 0"), ["E0315"]);
    says(
        "flow f(v: Result[(bool, int?), Error]) -> int {\n    return match v {\n        ok((true, _)) => 1\n        ok((false, none)) => 2\n        err(_) => 3\n    }\n}",
        expect![[r#"
            error[E0315]: this `match` leaves out `ok(_(false, _))`
             --> main.nx:2:12
              |
            2 |     return match v {
              |            ^^^^^
              |
              = help: add an arm for each, or `_ => …` for all that is left"#]],
    );
}

#[test]
fn what_a_match_leaves_out_and_never_reaches() {
    assert_eq!(codes("Verdict", "accept => 1, reject(_) => 2"), ["E0315"]);
    assert_eq!(codes("Verdict", "accept => 1, reject(_) => 2, hold(_, _) if (1 > 2) => 3"), ["E0315"]);
    assert_eq!(codes("int | str", "n: int => n"), ["E0315"]);
    assert_eq!(codes("int", "1 => 1, 2 => 2"), ["E0315"]);
    assert_eq!(codes("any", "n: int => n"), ["E0315"]);
    assert_eq!(codes("list[int]", "[] => 1, [_] => 2"), ["E0315"]);
    assert_eq!(codes("int | str", "n: int => n, _: str => 2, _ => 3"), ["W0316"]);
    assert_eq!(codes("int | str", "n: int => n, m: int => m, _: str => 2"), ["W0316"]);
    assert_eq!(codes("Verdict", "accept => 1, accept => 2, _ => 3"), ["W0316"]);
    assert_eq!(codes("int", "n: float => n, _ => 2"), ["W0316"]);
    assert_eq!(codes("any", "_: any => 1, _ => 2"), ["W0316"]);
}

#[test]
fn patterns_that_cannot_fit_are_refused() {
    assert_eq!(codes("int", "s: str => s, _ => 2"), ["E0301"]);
    assert_eq!(codes("int | bool", "\"x\" => 1, _ => 2"), ["E0301"]);
    assert_eq!(codes("int | bool", "[a] => a, _ => 2"), ["E0301"]);
    assert_eq!(codes("int", "none => 1, _ => 2"), ["E0301"]);
    assert_eq!(codes("int | fn(int) -> int", "f: fn(int) -> int => 1, _ => 2"), ["E0301"]);
    assert_eq!(codes("any", "f: fn(int) -> int => 1, _ => 2"), ["E0301"]);
    assert_eq!(codes("any", "x: Missing => 1, _ => 2"), ["E0302"]);
    assert_eq!(codes("Verdict", "reject(_, _) => 1, _ => 2"), ["E0304"]);
    assert_eq!(codes("Verdict", "rejct(_) => 1, _ => 2"), ["E0305"]);
    assert_eq!(codes("Verdict", "Other.accept => 1, _ => 2"), ["E0301"]);
    assert_eq!(codes("Verdict", "Verdict.accept => 1, _ => 2"), [""; 0]);
    assert_eq!(codes("Verdict", "Nothing.accept => 1, _ => 2"), ["E0302"]);
    assert_eq!(codes("Verdict | Other", "accept => 1, _ => 2"), ["E0208"]);
    assert_eq!(
        codes("Verdict | Other", "Verdict.accept => 1, Other.accept => 2, later => 3, reject(_) => 4, hold(_, _) => 5"),
        [""; 0]
    );
    assert_eq!(codes("Verdict | Other", "Verdict.accept => 1, later => 3, reject(_) => 4, hold(_, _) => 5"), ["E0315"]);
}

#[test]
fn cases_and_results_of_any_value() {
    let arms = "Verdict.accept => 1, reject(why) => why.len(), _ => 0";
    assert_eq!(
        matched("any", arms, &["\"accept\"", "{\"tag\": \"reject\", \"reason\": \"late\"}", "\"x\"", "1"]),
        ["1", "4", "0", "0"]
    );
    let program = "flow main(n: int) -> any {\n    let xs: list[any] = [ok(5), try fail(\"no\"), 5]\n    let x = xs[n]\n    return match x { ok(v) => v, err(e) => 0, _ => 1 }\n}";
    let run = |n| both_ways(|| Desk::program(program), "main", &[Value::Int(n)]).0;
    assert_eq!((0..3).map(run).collect::<Vec<_>>(), ["5", "0", "1"]);
}

#[test]
fn a_union_is_used_only_after_it_is_narrowed() {
    for (expression, expected) in [
        ("v.len()", "E0312"),
        ("v.title", "E0312"),
        ("v[0]", "E0312"),
        ("v + 1", "E0312"),
        ("v < 1", "E0312"),
        ("if (v) 1 else 2", "E0312"),
        ("takes(v)", "E0312"),
        ("v |> takes", "E0501"),
    ] {
        let program =
            format!("flow takes(n: int) -> int {{ return n }}\nflow f(v: int | str) -> any {{ return {expression} }}");
        let result = compile_text("main.nx", &program);
        let found: Vec<&str> = result.diagnostics.iter().map(|finding| finding.code.name()).collect();
        assert_eq!(found, [expected], "{expression}: {}", result.render(Colour::Off));
    }
    assert_eq!(
        compile_text("main.nx", "flow f(v: int | str) -> bool { return v == 1 or v == \"x\" }").diagnostics.len(),
        0
    );
}

#[test]
fn a_match_of_many_arms_is_judged_in_little_time() {
    // Each arm names two of thirty flags, so that taking the columns apart doubles the rows.
    let flags: Vec<String> = (0..30).map(|flag| format!("f{flag}: bool")).collect();
    let arms: Vec<String> =
        (0..29).map(|flag| format!("{{ f{flag}: true, f{}: false }} => {flag}", flag + 1)).collect();
    let program = format!(
        "protocol P {{ {} }}\nflow f(p: P) -> int {{ return match p {{ {} }} }}",
        flags.join(", "),
        arms.join(", ")
    );
    let result = compile_text("main.nx", &program);
    let codes: Vec<&str> = result.diagnostics.iter().map(|finding| finding.code.name()).collect();
    assert_eq!(codes, ["E0315"]);
}

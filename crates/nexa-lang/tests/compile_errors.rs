//! What the checker says about programs that are wrong: one mistake, one error, and what to do.

mod running;

use expect_test::{Expect, expect};
use nexa_lang::compile_text;
use nexa_lang::diagnostic::Colour;
use running::with_common;

/// The findings of a program, as people see them.
fn says(program: &str, expected: Expect) {
    expected.assert_eq(&compile_text("main.nx", program).render(Colour::Off));
}

/// The codes of the findings of a program that uses the shared file.
fn codes(program: &str) -> Vec<&'static str> {
    let result = with_common(program);
    // Most of these programs use nothing of the shared file.
    let findings = result.diagnostics.iter().filter(|finding| !finding.message.starts_with("nothing of this file"));
    findings.map(|finding| finding.code.name()).collect()
}

/// The codes of the findings of the statements of a flow.
fn in_flow(statements: &str) -> Vec<&'static str> {
    codes(&flow(statements))
}

fn flow(statements: &str) -> String {
    format!(
        "protocol Brief {{ title: str, score: float? }}\nflow f(q: str, n: int, xs: list[str]) -> any {{\n{statements}\n}}"
    )
}

#[test]
fn a_type_conflict_points_at_both_sides() {
    says(
        "flow main(n: int) -> str {\n    let x: str = n\n    return y\n}",
        expect![[r##"
        error[E0301]: the value is `int`, but `str` is written
         --> main.nx:2:18
          |
        2 |     let x: str = n
          |            ---   ^ this is `int`
          |            |
          |            `str` is asked for here
          |
          = help: put it into a text: `"#{…}"`, or use `str(…)`

        error[E0208]: there is no `y` here
         --> main.nx:3:12
          |
        3 |     return y
          |            ^"##]],
    );
}

#[test]
fn a_stage_that_takes_another_type_shows_its_parameter() {
    let program = "protocol Brief { title: str }\nagent Sum(numbers: list[int]) -> int { prompt: \"Add.\" }\n\
        flow main(b: Brief) -> int {\n    return b >> Sum\n}";
    says(
        program,
        expect![[r#"
        error[E0501]: `Sum` takes `list[int]`, but is given `Brief`
         --> main.nx:4:12
          |
        2 | agent Sum(numbers: list[int]) -> int { prompt: "Add." }
          |           ------- `list[int]` is asked for here
        3 | flow main(b: Brief) -> int {
        4 |     return b >> Sum
          |            ^ this is `Brief`"#]],
    );
}

#[test]
fn a_result_says_how_to_get_at_its_value() {
    let program = "agent A { prompt: \"x\" }\nflow main(q: str) -> str {\n    let r = fork [A.run(q), A.run(q)]\n    return r[0]\n}";
    says(
        program,
        expect![[r#"
        error[E0301]: this returns `Result[str]`, but the result is `str`
         --> main.nx:4:12
          |
        2 | flow main(q: str) -> str {
          |                      --- `str` is asked for here
        3 |     let r = fork [A.run(q), A.run(q)]
        4 |     return r[0]
          |            ^^^^ this is `Result[str]`
          |
          = help: `?` raises the error, and `otherwise …` gives another value instead"#]],
    );
}

#[test]
fn a_mistyped_property_finds_the_one_that_was_meant() {
    says(
        "agent A(t: str) -> int {\n    promt: \"x\"\n    temperature: 3.0\n    model: \"small\"\n}",
        expect![[r#"
            error[E0401]: an agent has no property `promt`
             --> main.nx:2:5
              |
            2 |     promt: "x"
              |     ^^^^^
              |
              = note: an agent has `role`, `skills`, `prompt`, `model`, `temperature`, `top_p`, `max_tokens`, `seed`, `stop`, `budget`, `schedule`, `timeout`, `retry`, `repair`, `stream`, `planner`, `fallback`, `cache`, `memory`, `max_tool_calls`, `tool_choice` and `validate`
              = help: did you mean `prompt`?

            error[E0403]: `temperature` is 3, and may be from 0 to 2
             --> main.nx:3:18
              |
            3 |     temperature: 3.0
              |                  ^^^

            error[E0405]: `small` is no model's name: it has no `/`
             --> main.nx:4:12
              |
            4 |     model: "small"
              |            ^^^^^^^
              |
              = help: write `provider/name`, such as "local/small""#]],
    );
}

#[test]
fn a_wrong_call_shows_what_is_declared() {
    let program = "agent Briefer(notes: str, audience: str = \"team\") { prompt: \"For #{audience}.\" }\n\
        flow main(q: str) -> str {\n    return q >> Briefer(audiense: \"board\")\n}\n\
        flow other() -> str {\n    return Briefer(audience: \"board\")\n}";
    says(
        program,
        expect![[r#"
        error[E0304]: `Briefer` has no parameter `audiense`
         --> main.nx:3:25
          |
        3 |     return q >> Briefer(audiense: "board")
          |                         ^^^^^^^^
          |
          = help: did you mean `audience`?

        error[E0304]: `Briefer` needs `notes` too
         --> main.nx:6:12
          |
        1 | agent Briefer(notes: str, audience: str = "team") { prompt: "For #{audience}." }
          |               ----- its parameters are declared here
        ...
        6 |     return Briefer(audience: "board")
          |            ^^^^^^^^^^^^^^^^^^^^^^^^^^"#]],
    );
}

#[test]
fn an_import_points_into_its_own_file() {
    let result = with_common("flow main(q: str) -> str { return q >> M }");
    expect![[r#"
        error[E0501]: `M` takes `list[str]`, but is given `str`
         --> main.nx:2:35
          |
        2 | flow main(q: str) -> str { return q >> M }
          |                                   ^ this is `str`
          |
         ::: common.nx:5:9
          |
        5 | agent M(parts: list[str]) { prompt: "Combine the parts." }
          |         ----- `list[str]` is asked for here"#]]
    .assert_eq(&result.render(Colour::Off));
}

#[test]
fn a_missing_return_and_an_open_match_say_what_is_left_out() {
    let program = "flow main(q: str) -> int {\n    match approve(q) {\n        approved(by, _) => print(by)\n    }\n}";
    says(
        program,
        expect![[r#"
            error[E0315]: this `match` leaves out `denied`
             --> main.nx:2:5
              |
            2 |     match approve(q) {
              |     ^^^^^
              |
              = help: add an arm for each, or `_ => …` for all that is left

            warning[W0606]: this approval may wait for ever
             --> main.nx:2:11
              |
            2 |     match approve(q) {
              |           ^^^^^^^^^^
              |
              = help: say how long: `approve(…, timeout: 1h)`

            error[E0322]: `main` can end without returning `int`
             --> main.nx:5:1
              |
            1 | flow main(q: str) -> int {
              |                      --- a value is promised here
            ...
            5 | }
              | ^ this end is reached without a value
              |
              = help: add `return …` at the end, or in the branch that lacks it"#]],
    );
}

#[test]
fn a_broken_declaration_does_not_hide_or_multiply_other_mistakes() {
    let program = "flow broken(q: str -> str {\n    return q\n}\nflow main(q: str) -> int {\n    return q\n}";
    says(
        program,
        expect![[r#"
        error[E0201]: expected `,` or `)`, found `->`
         --> main.nx:1:20
          |
        1 | flow broken(q: str -> str {
          |                    ^^ expected `,` or `)`

        error[E0301]: this returns `str`, but the result is `int`
         --> main.nx:5:12
          |
        4 | flow main(q: str) -> int {
          |                      --- `int` is asked for here
        5 |     return q
          |            ^ this is `str`
          |
          = help: `int(…)` reads a number from a text"#]],
    );
}

#[test]
fn a_merge_says_what_it_cannot_do() {
    let program = "flow main(q: str, n: int) -> any {\n    return fork [a: q, b: n] merge concat(min_ok: 2)\n}
flow other(n: int) -> any {\n    return fork [n, n + 1, 1.5]\n        merge weighted_average(weights: [1, 2])\n}
flow more(n: int) -> any {\n    return fork [n, n] merge weighted_averag(wieghts: [1, 2])\n}
flow option(n: int) -> any {\n    return fork [n, n] merge all(minok: 2)\n}";
    says(
        program,
        expect![[r#"
            error[E0502]: `concat` joins texts or lists, and this branch gives `int`
             --> main.nx:2:27
              |
            2 |     return fork [a: q, b: n] merge concat(min_ok: 2)
              |                           ^        ------ they are merged here
              |
              = help: `merge all` gives a list of the values, and `merge vote` the most frequent one

            error[E0506]: there are 3 branches and 2 weights
             --> main.nx:6:41
              |
            6 |         merge weighted_average(weights: [1, 2])
              |                                         ^^^^^^
              |
              = help: give each branch one weight, in their order

            error[E0208]: there is no strategy `weighted_averag`
             --> main.nx:9:30
              |
            9 |     return fork [n, n] merge weighted_averag(wieghts: [1, 2])
              |                              ^^^^^^^^^^^^^^^
              |
              = note: the strategies are `first`, `all`, `concat`, `vote`, `best_of`, `weighted_average` and `consensus`
              = help: did you mean `weighted_average`?

            error[E0304]: `merge all` has no option `minok`
              --> main.nx:12:34
               |
            12 |     return fork [n, n] merge all(minok: 2)
               |                                  ^^^^^
               |
               = note: its options: `min_ok` and `timeout`
               = help: did you mean `min_ok`?"#]],
    );
}

#[test]
fn every_mistake_has_its_code() {
    let mut wrong = Vec::new();
    for (statements, expected) in [
        ("return q", vec![]),
        ("let x = 1; return q", vec!["W0212"]),
        ("return y", vec!["E0208"]),
        ("let a: int = q; return a", vec!["E0301"]),
        ("let a: list[strr] = xs; return a", vec!["E0302"]),
        ("let a: list[str, int] = xs; return a", vec!["E0303"]),
        ("return A.run()", vec!["E0304"]),
        ("return A.run(q, q)", vec!["E0304"]),
        ("return A.run(input: q, input: q)", vec!["E0304"]),
        ("return A.run(other: q)", vec!["E0304"]),
        ("return q.lenn()", vec!["E0305"]),
        ("return Brief { titel: q }", vec!["E0305"]),
        ("return Brief { score: 1.0 }", vec!["E0301"]),
        ("return Brief { title: q }.tite", vec!["E0305"]),
        ("if (n) { return q } else { return q }", vec!["E0306"]),
        ("return q + n", vec!["E0307"]),
        ("let l = [1, \"a\"]; return l", vec!["E0308"]),
        ("return [1, \"a\"]", vec![]),
        ("return { [xs]: 1 }", vec!["E0309"]),
        ("let a = 1; a = q; return a", vec!["E0310"]),
        ("return n?", vec!["E0314"]),
        ("return match try A.run(q) { ok(v) => v }", vec!["E0315"]),
        ("return match n { 1 => 2 }", vec!["E0315"]),
        ("return match n { _ => 1, 2 => 3 }", vec!["W0316"]),
        ("try A.run(q); return q", vec!["W0319"]),
        ("let s = 0; let r = fork [n, fn() => { s = 1 }]; return r", vec!["E0321"]),
        ("if (n > 1) { return q }", vec![]),
        ("return q; return n", vec!["E0507"]),
        ("while (true) { let _ = A.run(q) }", vec!["E0601"]),
        ("return n >> M", vec!["E0501"]),
        ("return q >> n", vec!["E0503"]),
        ("return q >> Brief", vec!["E0208"]),
        ("A >> B; return q", vec!["E0504"]),
        ("return q |>> [A]", vec!["E0505"]),
        ("return q &>> M", vec!["E0508"]),
        ("return q |>> [a: A, B]", vec!["E0511"]),
        ("return q |>> [a: A, a: B]", vec!["E0511"]),
        ("return q |>> [A, B] merge vote", vec![]),
        ("return fork [n, n] merge concat", vec!["E0502"]),
        ("return fork [q, xs] merge concat", vec!["E0502"]),
        ("return fork [q, xs] merge all", vec![]),
        ("return fork [q, q] merge weighted_average", vec!["E0502"]),
        ("return fork [n, 1.5] merge weighted_average(weights: [1])", vec!["E0506"]),
        ("return fork [n, 1.5] merge weighted_average(weights: [1, -1])", vec!["E0403"]),
        ("return fork [n, 1.5] merge weighted_average(weights: [0, 0.0])", vec!["E0403"]),
        ("return fork [n, 1.5] merge weighted_average(weights: xs)", vec!["E0404"]),
        ("return q |>> [A, B] merge vot", vec!["E0208"]),
        ("return q |>> [A, B] merge vote(2)", vec!["E0304"]),
        ("return q |>> [A, B] merge vote(sep: q)", vec!["E0304"]),
        ("return q |>> [A, B] merge vote(min_ok: 1, min_ok: 2)", vec!["E0304"]),
        ("return q |>> [A, B] merge vote(min_ok: 3)", vec!["E0403"]),
        ("return q |>> [A, B] merge all(min_ok: n)", vec!["E0208"]),
        ("return q |>> [A, B] merge vote(tie: \"latest\")", vec!["E0403"]),
        ("return q |>> [A, B] merge concat(sep: 1)", vec!["E0301"]),
        ("return q |>> [A, B] merge best_of(by: fn(v) => v)", vec!["E0301"]),
        ("return q |>> [A, B] merge best_of(by: fn(v, w) => 1.0)", vec!["E0301"]),
        ("return q |>> [A, B] merge best_of(by: fn(v: int) => 1.0)", vec!["E0501"]),
        ("let s = 0; return q |>> [A, B] merge best_of(by: fn(v) => { s = 1; return 1.0 })", vec!["E0321"]),
        ("let r: int = fork [n, n] merge all; return r", vec!["E0301"]),
        ("return q |>> [A] merge vote", vec!["E0505"]),
        ("return true && false", vec!["E0510"]),
        ("return true || false", vec!["E0510"]),
        ("return q || A", vec!["E0503"]),
        ("return q || [A]", vec!["E0505"]),
        ("return q || [A, 5]", vec!["E0503"]),
        ("return q || [A, B] merge all", vec!["E0508"]),
        ("return q |>> [A, B] merge first(min_ok: 3)", vec!["E0403"]),
        ("return q |>> [A, B] merge first(timeout: 5)", vec!["E0301"]),
        ("return q |>> [A, B] merge vote(timeout: 1s, timeout: 2s)", vec!["E0304"]),
        ("return q ?> { it == \"x\" => A }", vec!["E0509"]),
        ("return \"#{A}\"", vec!["E0301"]),
        ("return fail(\"x\", code: \"timeoutt\")", vec!["E0403"]),
        ("break; return q", vec!["E0201"]),
        ("return std.shell.run(\"ls\")", vec!["E0904"]),
    ] {
        let found = in_flow(statements);
        if found != expected {
            wrong.push(format!(
                "{statements}: {found:?} instead of {expected:?}\n{}",
                with_common(&flow(statements)).render(Colour::Off)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_this_release_does_not_have_is_refused_by_name() {
    for (declaration, name) in [
        ("tool t(q: str) -> str { source: builtin(\"x\"), schedule: {} }", "the property `schedule` of a tool"),
        ("agent A uses std.http(hosts: []) { prompt: \"x\" }", "`uses std.http`"),
        ("agent A { prompt: \"x\", context: \"x\" }", "the property `context`"),
    ] {
        let result = compile_text("main.nx", declaration);
        let messages: Vec<&str> = result.diagnostics.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(messages, [format!("{name} is not available in this release")], "{declaration}");
    }
}

#[test]
fn declarations_are_checked() {
    for (program, expected) in [
        ("flow f() { }\nflow f() { }", vec!["E0207"]),
        ("protocol P { a: int, a: int }", vec!["E0207"]),
        ("flow f(a: int, a: int) -> int { return a }", vec!["E0207"]),
        ("flow f(a) -> any { return a }", vec!["W0318"]),
        ("flow f(a: int = 1, b: int) -> int { return a + b }", vec!["E0304"]),
        ("flow f(a: int = 1 + 1) -> int { return a }", vec!["E0404"]),
        ("flow f(a: int = \"x\") -> int { return a }", vec!["E0301"]),
        ("flow f(n: int) { return f(n) }", vec!["E0313"]),
        ("flow f(n: int) -> int { if (n > 1) { return 1 } }", vec!["E0322"]),
        ("use \"gone.nx\"", vec!["E0206"]),
        ("agent A { prompt: \"x\", promt: \"y\" }", vec!["E0401"]),
        ("agent A { prompt: \"x\", prompt: \"y\" }", vec!["E0402"]),
        ("agent A { temperature: 2.5 }", vec!["E0403"]),
        ("agent A { max_tokens: 0 }", vec!["E0403"]),
        ("agent A { retry: { max: 99 } }", vec!["E0403"]),
        ("agent A { retry: { maxx: 1 } }", vec!["E0401"]),
        ("agent A { temperature: 1.0 + 1.0 }", vec!["E0404"]),
        ("agent A { model: \"small\" }", vec!["E0405"]),
        ("agent A { model: [\"a/b\", \"c\"] }", vec!["E0405"]),
        ("agent A(t: str) { prompt: \"see #{x}\" }", vec!["E0406"]),
        ("agent A(t: str) { prompt: \"see #{t.upper()} #{range(0, 2)}\" }", vec![]),
        ("protocol P { a: int } agent A -> str implements P { prompt: \"x\" }", vec!["E0407"]),
        ("agent A(f: fn(int) -> int) { prompt: \"x\" }", vec!["E0416"]),
        ("agent A { timeout: 30 }", vec!["E0902"]),
        ("agent A { budget: { tokens: 1_000_000, cost: 0.5, time: 1m, calls: 3, steps: 2 } }", vec![]),
    ] {
        let result = compile_text("main.nx", program);
        let found: Vec<&str> = result.diagnostics.iter().map(|finding| finding.code.name()).collect();
        assert_eq!(found, expected, "{program}\n{}", result.render(Colour::Off));
        assert_eq!(result.module.is_some(), !result.has_errors());
    }
}

#[test]
fn a_file_to_run_needs_a_main() {
    let codes = |text: &str| {
        compile_text("main.nx", text)
            .with_main()
            .diagnostics
            .iter()
            .map(|finding| finding.code.name())
            .collect::<Vec<_>>()
    };
    assert_eq!(codes("agent A { prompt: \"x\" }"), ["E0414"]);
    assert_eq!(codes("flow main() { }"), Vec::<&str>::new());
}

//! What a program may ask of models, and what is said of it before it runs.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod running;

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use nexa_lang::diagnostic::Colour;
use nexa_lang::{Amounts, Bounds, Costs, Options, Price, Prices, compile_text, compile_with_costs};
use nexa_types::UsdMicro;
use nexa_vm::value::Value;
use proptest::prelude::*;
use running::{Desk, str};

const AGENTS: &str = "agent A { prompt: \"x\", retry: { max: 0 }, repair: 0 }\n\
    agent B -> int { prompt: \"y\", retry: { max: 1, backoff: 0ms }, repair: 1 }\n";

fn with_prices(prices: &Prices) -> Options {
    Options { prices: prices.clone(), ..Options::default() }
}

fn costs(program: &str, prices: &Prices) -> Costs {
    let files = BTreeMap::from([("main.nx".to_owned(), program.as_bytes().to_vec())]);
    let (result, costs) = compile_with_costs("main.nx", &files, &with_prices(prices));
    costs.unwrap_or_else(|| panic!("{program}\n{}", result.render(Colour::Off)))
}

fn bounds(statements: &str) -> Bounds {
    let program = format!("{AGENTS}flow main(q: str, n: int) -> any {{ {statements} }}");
    let costs = costs(&program, &Prices::new());
    costs.entries.into_iter().find(|(name, _)| name == "main").unwrap().1
}

/// The bounds of the requests of some statements, as `least..most`, or why there is no most.
fn requests(statements: &str) -> String {
    let Bounds { least, most } = bounds(statements);
    match most {
        Ok(most) => format!("{}..{}", least.requests, most.requests),
        Err(unknown) => format!("{}.. {}", least.requests, unknown.why),
    }
}

fn codes(program: &str) -> Vec<&'static str> {
    compile_text("main.nx", program).diagnostics.iter().map(|finding| finding.code.name()).collect()
}

fn says(program: &str, expected: Expect) {
    expected.assert_eq(&compile_text("main.nx", program).render(Colour::Off));
}

#[test]
fn an_agent_asks_once_at_least_and_as_often_as_it_repairs_and_retries_at_most() {
    let program = "agent A -> int { prompt: \"x\", model: [\"p/one\", \"p/two\"], max_tokens: 100, repair: 3, retry: { max: 4 } }";
    let million = |dollars: u64| UsdMicro(dollars * 1_000_000);
    let prices = Prices::from([
        ("p/one".to_owned(), Price { input: million(1), output: million(10), window: Some(1_000) }),
        ("p/two".to_owned(), Price { input: million(2), output: million(5), window: Some(3_000) }),
    ]);
    let costs = costs(program, &prices);
    let Bounds { least, most } = &costs.agents[0].1;
    // The cheapest answer is one of the second model: 100 tokens at 5 dollars a million.
    assert_eq!(*least, Amounts { requests: 1, tokens: 100, cost: Some(UsdMicro(500)) });
    // (window + max_tokens) × models × (1 + repair) × (1 + retries); the second model costs 6,000 + 500 a request.
    let requests = 2 * 4 * 5;
    let most = most.as_ref().unwrap();
    assert_eq!(*most, Amounts { requests, tokens: 3_100 * requests, cost: Some(UsdMicro(6_500 * requests)) });
    let unpriced = self::costs(program, &Prices::new());
    assert_eq!(unpriced.agents[0].1.most.as_ref().unwrap().cost, None);
}

#[test]
fn a_model_without_a_price_of_its_own_has_that_of_its_provider() {
    let price = |dollars: u64| Price { input: UsdMicro(0), output: UsdMicro(dollars * 1_000_000), window: None };
    let prices = Prices::from([
        (String::new(), price(1)),
        ("acme/".to_owned(), price(10)),
        ("acme/large".to_owned(), price(100)),
    ]);
    let cost = |model: &str| {
        let program = format!("agent A {{ prompt: \"x\", max_tokens: 100{model} }}");
        costs(&program, &prices).agents[0].1.least.cost
    };
    assert_eq!(cost(""), Some(UsdMicro(100)));
    assert_eq!(cost(", model: \"acme/small\""), Some(UsdMicro(1_000)));
    assert_eq!(cost(", model: \"acme/large\""), Some(UsdMicro(10_000)));
    assert_eq!(cost(", model: \"other/small\""), None);
}

#[test]
fn bounds_follow_what_a_flow_does() {
    // A asks once; B asks once at least and four times at most.
    for (statements, expected) in [
        ("return q", "0..0"),
        ("return q >> A >> B", "2..5"),
        ("let p = A >> B; return q >> p", "0..5"),
        ("return if (n > 1) A.run(q) else B.run(q)", "1..4"),
        ("if (n > 1) { A.run(q) }; return q", "0..1"),
        ("if (n > 1) { return A.run(q) }; return B.run(q)", "1..5"),
        ("if (n > 1) { fail(\"no\") }; return B.run(q)", "1..4"),
        ("return fork [A.run(q), B.run(q), q]", "2..5"),
        ("return q |>> [A, B] merge all", "2..5"),
        ("return q |>> [A, B] merge first", "1..5"),
        ("return q || [A, B]", "0..5"),
        ("return q |>> [A, B, A] merge first(min_ok: 2)", "2..6"),
        ("return fork [A.run(q), B.run(q), q] merge first", "0..5"),
        ("return q |>> [A, B] merge all(timeout: 1s)", "0..5"),
        ("loop (max: 3) { A.run(q) } until (n > 2); return q", "1..3"),
        ("loop (max: 3) { if (n > 1) { break }; A.run(q) } until (n > 2); return q", "0..3"),
        ("for each x in [1, 2, 3] { print(x); A.run(q) }; return q", "3..3"),
        ("for each x in range(0, 5) { print(x); A.run(q) }; return q", "5..5"),
        ("for each x in range(0, 5) { if (x > n) { break }; A.run(q) }; return q", "0..5"),
        (
            "for each x in range(0, n) { print(x); A.run(q) }; return q",
            "0.. how many elements there are depends on the input",
        ),
        ("return [q, q].map(fn(x) => A.run(x))", "0..2"),
        ("let f = fn(x: str) => B.run(x); return [f(q), f(q)]", "0..8"),
        ("return A.run(q) otherwise B.run(q)", "1..5"),
        ("return \"#{n / 0}\" otherwise A.run(q)", "0..1"),
        ("try { B.run(q); A.run(q) } catch (e) { print(e); A.run(q) }; return q", "2..6"),
        ("try { if (n > 1) { fail(\"x\") }; A.run(q) } catch (e) { print(e) }; return q", "0..1"),
        ("let r = try A.run(q); return r.is_ok()", "1..1"),
        ("defer A.run(q); if (n > 1) { return q }; return B.run(q)", "1..5"),
        ("return n > 1 and A.run(q) == \"x\"", "0..1"),
        ("let s = snapshot(); A.run(q); if (s.tries < 3) { restore(s) }; return q", "1..17"),
    ] {
        assert_eq!(requests(statements), expected, "{statements}");
    }
}

#[test]
fn tools_and_conditions_in_words_are_turns_of_their_own() {
    let program = "tool find(q: str) -> str { source: mcp(\"docs\", name: \"find\"), risk: \"low\", effect: \"read\" }\n\
        agent H uses find { prompt: \"x\", retry: { max: 0 }, repair: 0, max_tool_calls: 4 }\n\
        agent C requires \"it is polite\" ensures \"it is short\" { prompt: \"x\", retry: { max: 0 }, repair: 1 }\n\
        flow main(q: str) -> any { return try C.run(q) }";
    let costs = costs(program, &Prices::new());
    let most = |place: usize| costs.agents[place].1.most.clone().unwrap().requests;
    // A request and one after each call of a tool; each question may be asked three times until it is answered, and
    // twice more when the model is away.
    assert_eq!((most(0), most(1)), (5, 5 + 2 + 2 * 5));
    let main = &costs.entries.iter().find(|(name, _)| name == "main").unwrap().1;
    assert_eq!(main.least.requests, 0, "a condition may keep the agent from asking");
}

#[test]
fn several_runs_count_with_their_judge() {
    let agent = |planner: &str| {
        format!(
            "protocol C {{ best: int }}\n\
             agent J -> C {{ prompt: \"x\", retry: {{ max: 0 }}, repair: 1 }}\n\
             agent A {{ prompt: \"x\", retry: {{ max: 1 }}, fallback: B, budget: {{ calls: 20 }}, planner: {planner} }}\n\
             agent B {{ prompt: \"x\", retry: {{ max: 0 }}, repair: 0 }}\n\
             flow main(q: str) -> str {{ return A.run(q) }}"
        )
    };
    let bounds = |planner: &str| {
        let costs = costs(&agent(planner), &Prices::new());
        let of = |name: &str| costs.entries.iter().find(|(known, _)| known == name).unwrap().1.clone();
        assert_eq!(of("main"), of("A"), "{planner}");
        (of("A").least.requests, of("A").most.unwrap().requests)
    };
    // Two tries of three turns, and whoever stands in.
    assert_eq!(bounds("\"react\""), (1, 7));
    assert_eq!(bounds("best_of_n(n: 2, judge: J)"), (3, 2 * 7 + 2));
    assert_eq!(bounds("best_of_n(n: 2)"), (3, 2 * 7 + 5));
    // The budget is that of all runs and their judge.
    assert_eq!(bounds("best_of_n(n: 4, judge: J)"), (5, 20));
}

#[test]
fn an_earlier_answer_may_save_every_request_and_sets_tokens_aside_all_the_same() {
    let bounds = |cache: &str| {
        let program = format!(
            "agent A {{ prompt: \"x\", max_tokens: 9, retry: {{ max: 0 }}, repair: 0, cache: \"{cache}\" }}\n\
             flow main(q: str) -> str {{ return q >> A >> A }}"
        );
        let main = costs(&program, &Prices::new()).entries[0].1.clone();
        (main.least.requests, main.least.tokens, main.most.unwrap().requests)
    };
    assert_eq!(bounds("off"), (2, 9, 2));
    assert_eq!(bounds("exact"), (0, 9, 2));
}

#[test]
fn flows_that_are_called_count_and_recursion_without_models_is_nothing() {
    let program = format!(
        "{AGENTS}flow twice(q: str) -> str {{ A.run(q); return A.run(q) }}\n\
         flow down(n: int) -> int {{ return if (n < 1) 0 else down(n - 1) }}\n\
         flow main(q: str) -> str {{ down(4); return twice(q) >> twice }}"
    );
    let costs = costs(&program, &Prices::new());
    let of = |name: &str| costs.entries.iter().find(|(known, _)| known == name).unwrap().1.clone();
    assert_eq!((of("main").least.requests, of("main").most.unwrap().requests), (4, 4));
    assert_eq!(of("down").most, Ok(Amounts { requests: 0, tokens: 0, cost: Some(UsdMicro(0)) }));
}

#[test]
fn a_budget_bounds_what_nothing_else_does() {
    let program = format!(
        "{AGENTS}flow main(n: int) -> int budget {{ calls: 7 }} {{\n let i = 0\n while (i < n) {{ i += 1; A.run(\"q\") }}\n return i\n}}"
    );
    let most = costs(&program, &Prices::new()).entries[0].1.most.clone().unwrap();
    assert_eq!((most.requests, most.tokens), (7, 7 * 7_024));
}

#[test]
fn loops_that_ask_models_need_a_bound() {
    let flow = |head: &str, body: &str| {
        format!("{AGENTS}flow g(q: str) -> str {{ return A.run(q) }}\nflow f(q: str, n: int) {head} {{ {body} }}")
    };
    let cases = [
        ("while (n > 1) { A.run(q) }", vec!["E0601"]),
        ("while (n > 1) { g(q) }", vec!["E0601"]),
        ("while (A.run(q) != \"x\") { print(q) }", vec!["E0601"]),
        ("while (n > 1) { q |>> [A, B] }", vec!["E0601"]),
        ("let h = fn(x: str) => g(x); while (n > 1) { h(q) }", vec!["E0601"]),
        ("let h = fn(x: str) => { while (n > 1) { g(x) }; return x }; h(q)", vec!["E0601"]),
        ("while (n > 1) { print(q) }", vec![]),
        ("while (n > 1) { loop (max: 2) { print(q) } until (n > 1) }", vec![]),
        ("loop { print(q) } until (n > 1)", vec!["E0601"]),
        ("loop { A.run(q) } until (n > 1)", vec!["E0601"]),
        ("loop (max: n) { A.run(q) } until (n > 1)", vec![]),
        ("for each x in range(0, n) { print(x); A.run(q) }", vec![]),
    ];
    for (body, expected) in &cases {
        let found: Vec<&str> = codes(&flow("", body)).into_iter().filter(|code| *code != "W0319").collect();
        assert_eq!(&found, expected, "{body}");
        let found: Vec<&str> =
            codes(&flow("budget { calls: 9 }", body)).into_iter().filter(|code| *code != "W0319").collect();
        assert!(found.is_empty(), "{body}: {found:?}");
    }
    says(
        "agent A { prompt: \"x\" }\nflow f(n: int) {\n    while (n > 1) {\n        A.run(\"q\")\n    }\n}",
        expect![[r#"
            error[E0601]: this loop asks a model and nothing bounds it
             --> main.nx:3:5
              |
            3 |     while (n > 1) {
              |     ^^^^^
              |
              = help: give the flow a `budget { calls: … }`, or use `loop (max: 10) { … }` or `for each x in range(0, n)`"#]],
    );
}

#[test]
fn agents_that_lead_back_to_themselves_need_a_budget() {
    says(
        "agent A { prompt: \"x\" }\nflow odd(q: str) -> str { return even(A.run(q)) }\nflow even(q: str) -> str { return odd(q) }",
        expect![[r#"
            error[E0602]: `odd` calls itself by way of `even` and runs agents, and nothing bounds how often
             --> main.nx:2:6
              |
            2 | flow odd(q: str) -> str { return even(A.run(q)) }
              |      ^^^
              |
              = help: give it a `budget { calls: … }`, or write a `loop (max: …)` instead"#]],
    );
    let recursive =
        |head: &str, call: &str| format!("{AGENTS}flow f(q: str) -> str {head} {{ let a = A.run(q); return {call} }}");
    assert_eq!(codes(&recursive("", "f(a)")), ["E0602"]);
    assert_eq!(codes(&recursive("", "(fn(x: str) => f(x))(a)")), ["E0602"]);
    assert_eq!(codes(&recursive("", "a >> f")), ["E0602"]);
    assert_eq!(codes(&recursive("", "a")), [""; 0]);
    assert_eq!(
        codes(&format!("{AGENTS}flow f(n: int) -> int {{ return if (n < 2) n else f(n - 1) + f(n - 2) }}")),
        [""; 0]
    );
}

#[test]
fn a_budget_that_lets_no_request_be_sent_is_an_error() {
    says(
        "agent A { prompt: \"x\", max_tokens: 800 }\nflow main(q: str) -> str budget { tokens: 500 } {\n    return A.run(q)\n}",
        expect![[r#"
            error[E0603]: `main` has 500 tokens, and one of its requests reserves 800 for its answer
             --> main.nx:2:33
              |
            2 | flow main(q: str) -> str budget { tokens: 500 } {
              |                                 ^^^^^^^^^^^^^^^
              |
              = help: allow more tokens, or give the agent a smaller `max_tokens`"#]],
    );
    assert_eq!(codes("agent A { prompt: \"x\", budget: { tokens: 1000 } }"), ["E0603"]);
    // It may be that the agent is not asked.
    let perhaps = "agent A { prompt: \"x\" }\nflow main(n: int) -> str budget { tokens: 500 } { return if (n > 1) A.run(\"q\") else \"\" }";
    assert_eq!(codes(perhaps), ["W0604"]);
    let dear = "agent A { prompt: \"x\", model: \"p/m\", max_tokens: 1000, budget: { cost: 0.001 } }";
    assert_eq!(codes(dear), [""; 0], "without a price nothing is said of costs");
    let price = Price { input: UsdMicro(1), output: UsdMicro(2_000_000), window: None };
    let files = BTreeMap::from([("main.nx".to_owned(), dear.as_bytes().to_vec())]);
    let (result, costs) =
        compile_with_costs("main.nx", &files, &with_prices(&Prices::from([("p/m".to_owned(), price)])));
    assert_eq!(result.diagnostics[0].message, "`A` has $0.001, and one of its requests reserves $0.002 for its answer");
    assert_eq!(costs, None);
}

#[test]
fn a_bound_above_the_budget_is_a_warning() {
    says(
        "agent A { prompt: \"x\", retry: { max: 0 }, repair: 0 }\nflow main(q: str) -> str budget { tokens: 10_000 } {\n    return q >> A >> A\n}",
        expect![[r#"
            warning[W0604]: `main` may use up to 14048 tokens, and its budget is 10000
             --> main.nx:2:33
              |
            2 | flow main(q: str) -> str budget { tokens: 10_000 } {
              |                                 ^^^^^^^^^^^^^^^^^^
              |
              = help: the budget stops it there; write `@allow(W0604)` above the declaration if that is what you want"#]],
    );
    let unknown = "agent A { prompt: \"x\" }\nflow main(xs: list[str]) budget { tokens: 10_000 } {\n    for each x in xs { A.run(x) }\n}";
    says(
        unknown,
        expect![[r#"
            warning[W0604]: how much `main` may use is not known: how many elements there are depends on the input
             --> main.nx:2:33
              |
            2 | flow main(xs: list[str]) budget { tokens: 10_000 } {
              |                                 ^^^^^^^^^^^^^^^^^^
            3 |     for each x in xs { A.run(x) }
              |     - this decides it
              |
              = help: the budget stops it there; write `@allow(W0604)` above the declaration if that is what you want"#]],
    );
}

#[test]
fn a_child_that_is_allowed_more_than_its_parent_is_an_error() {
    let program = "agent A { prompt: \"x\", budget: { calls: 5 } }\nflow inner(q: str) -> str { return A.run(q) }\nflow main(q: str) -> str budget { calls: 2 } {\n    return inner(q)\n}";
    says(
        program,
        expect![[r#"
            error[E0605]: `A` is allowed 5 requests, more than the 2 that `main` allows
             --> main.nx:2:36
              |
            2 | flow inner(q: str) -> str { return A.run(q) }
              |                                    ^
            3 | flow main(q: str) -> str budget { calls: 2 } {
              |                                 ------------ it has no more than this
              |
              = help: lower the budget of `A`, or raise that of `main`"#]],
    );
    for (child, parent) in [
        ("tokens: 30_000", "tokens: 20_000"),
        ("cost: 0.5", "cost: 0.25"),
        ("time: 2m", "time: 1m"),
        ("steps: 3", "steps: 2"),
    ] {
        let program = |child: &str, parent: &str, call: &str| {
            format!(
                "agent A {{ prompt: \"x\", retry: {{ max: 0 }}, repair: 0, budget: {{ {child} }} }}\nflow main(q: str) -> any budget {{ {parent} }} {{ return {call} }}"
            )
        };
        for call in ["A.run(q)", "q >> A", "q |>> [A, A]", "fork [A.run(\"#{q}\"), q]", "(fn(x: str) => A.run(x))(q)"] {
            assert_eq!(codes(&program(child, parent, call)), ["E0605"], "{child} {parent} {call}");
            assert_eq!(codes(&program(parent, child, call)), [""; 0], "{parent} {child} {call}");
        }
    }
}

/// Statements of a flow that changes `r` and reads `n`.
fn statements() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => Just("r = A.run(r)"),
        4 => Just("r = \"#{B.run(r)}\""),
        1 => Just("if (n > 2) { return r }"),
        1 => Just("if (n == 1) { fail(\"no\") }"),
        1 => Just("r = A.run(r) otherwise \"z\""),
        1 => Just("r = \"#{B.run(r)}\" fallback A.run(r)"),
        1 => Just("r = \"#{fork [A.run(r), B.run(r)].len()}\""),
        1 => Just("r = \"#{(r |>> [B, A, twice]).len()}\""),
        1 => Just("r = \"#{r |>> [B, A, twice] merge first}\""),
        1 => Just("r = \"#{fork [A.run(r), B.run(r), \"m\" >> A] merge first(min_ok: 2)}\""),
        1 => Just("r = r >> A >> twice"),
        1 => Just("r = twice(r)"),
        1 => Just("r = \"#{[1, 2].map(fn(x) => \"#{x}#{A.run(\"m\")}\").len()}\""),
        1 => Just("r = match n { 0 => A.run(r), 1 => r, _ => \"#{B.run(r)}\" }"),
        1 => Just("r = \"#{(try B.run(r)).is_ok()}\""),
        1 => Just("r = if (n > 0 and A.run(r) == \"x\") r else twice(r)"),
    ]
    .prop_map(str::to_owned);
    let block = leaf.prop_recursive(3, 16, 3, |inner| {
        let some = || prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| parts.join("; "));
        prop_oneof![
            (some(), some()).prop_map(|(a, b)| format!("if (n > 1) {{ {a} }} else {{ {b} }}")),
            some().prop_map(|a| format!("loop (max: 3) {{ {a} }} until (n > 1)")),
            some().prop_map(|a| format!("loop (max: 2) {{ {a}; if (n == 0) {{ break }} }} until (n > 3)")),
            some().prop_map(|a| format!("for each x in [1, 2] {{ if (x > n) {{ continue }}; {a} }}")),
            some().prop_map(|a| format!("for each x in range(0, n) {{ print(x); {a} }}")),
            (some(), some()).prop_map(|(a, b)| format!("try {{ {a} }} catch (e) {{ print(e); {b} }}")),
            (some(), some()).prop_map(|(a, b)| format!(
                "{{ defer {{ {} }}; {b} }}",
                a.replace("return r", "print(r)").replace("fail(\"no\")", "print(r)")
            )),
        ]
    });
    prop::collection::vec(block, 1..4).prop_map(|parts| parts.join("\n    "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 10_000, ..ProptestConfig::default() })]

    /// CB-1 and CB-2.
    #[test]
    fn a_run_stays_within_its_bounds(
        body in statements(),
        n in 0i64..4,
        a in prop::collection::vec(prop_oneof![3 => Just("x"), 1 => Just("fail:refused"), 1 => Just("fail:unavailable")], 40),
        b in prop::collection::vec(prop_oneof![3 => Just("7"), 1 => Just("seven"), 1 => Just("fail:timeout"), 1 => Just("fail:refused")], 40),
    ) {
        let program = format!(
            "{AGENTS}flow twice(q: str) -> str {{ return q >> A >> A }}\nflow main(q: str, n: int) -> str {{\n    let r = q\n    {body}\n    return r\n}}"
        );
        let result = compile_text("main.nx", &program);
        // A flow that certainly returns before its end is refused, and tells nothing here.
        prop_assume!(!result.has_errors());
        let costs = costs(&program, &Prices::new());
        let Bounds { least, most } = &costs.entries.iter().find(|(name, _)| name == "main").unwrap().1;
        let mut desk = Desk::program(&program).script("A", &a).script("B", &b);
        let outcome = desk.run("main", &[str("q"), Value::Int(n)]);
        let asked = desk.requests.len() as u64;
        if let Ok(most) = most {
            prop_assert!(asked <= most.requests, "{asked} requests, at most {}\n{program}", most.requests);
        }
        if outcome.starts_with('"') {
            prop_assert!(asked >= least.requests, "{asked} requests, at least {}\n{program}", least.requests);
        }
    }
}

//! The conformance programs of the language that this release can run, each in one go and instruction by instruction
//! through snapshots. Their numbers are the specification's.

mod running;

use nexa_vm::value::Value;
use running::{Desk, both_ways, str};

#[test]
fn c01_no_stage_is_lost() {
    let make = || {
        Desk::common("flow main(s: str) -> str { return s >> A >> B >> C }")
            .script("A", &["a"])
            .script("B", &["b"])
            .script("C", &["c"])
    };
    let (value, desk) = both_ways(make, "main", &[str("q")]);
    assert_eq!(value, "\"c\"");
    assert_eq!(
        desk.inputs,
        [("A", "q"), ("B", "a"), ("C", "b")].map(|(agent, input)| (agent.to_owned(), input.to_owned()))
    );
}

#[test]
fn c02_the_merging_agent_runs_once() {
    let make = || {
        Desk::common("flow main(t: str) -> str { return t |>> [A, B] &>> M }")
            .script("A", &["slow"])
            .script("B", &["quick"])
            .script("M", &["both"])
    };
    let (value, desk) = both_ways(make, "main", &[str("q")]);
    assert_eq!(value, "\"both\"");
    assert_eq!(desk.inputs.last(), Some(&("M".to_owned(), r#"["slow","quick"]"#.to_owned())));
    assert_eq!(desk.calls, ["A", "B", "M"]);
    assert_eq!(desk.children, ["A", "B", "M"], "an agent is a child itself");
}

#[test]
fn c03_a_failed_branch_is_an_err_value_and_not_text() {
    let make = || {
        Desk::common(
            r##"flow main(q: str) -> str {
                let r = q |>> [A, C]
                return match r[1] { ok(v) => v, err(e) => "#{r[0]?}/#{e.code}" }
            }"##,
        )
        .script("A", &["42"])
        .script("C", &["fail:unavailable"])
    };
    assert_eq!(both_ways(make, "main", &[str("q")]).0, "\"42/unavailable\"");
}

#[test]
fn c04_coalesce_and_branch_are_different_operators() {
    let make = || {
        Desk::common(
            r#"flow name(s: str?) -> str { return s ?? "anon" }
               flow route(n: int) -> str { return n ?> it > 5 => A : B }"#,
        )
        .script("A", &["big"])
        .script("B", &["small"])
    };
    assert_eq!(both_ways(make, "name", &[Value::None]).0, "\"anon\"");
    assert_eq!(both_ways(make, "name", &[str("Ada")]).0, "\"Ada\"");
    let (value, desk) = both_ways(make, "route", &[Value::Int(9)]);
    assert_eq!((value.as_str(), desk.inputs[0].1.as_str()), ("\"big\"", "9"));
    assert_eq!(both_ways(make, "route", &[Value::Int(2)]).0, "\"small\"");
}

#[test]
fn c06_vote_by_majority_with_a_tie_and_with_too_few() {
    let program = r#"
        flow main(q: str) -> str { return fork [A.run(q), B.run(q), C.run(q)] merge vote(min_ok: 2) }
        flow all() -> any { return [main("1"), main("2"), (try main("3")).code()] }
    "#;
    let make = || {
        Desk::common(program)
            .script("A", &["Tea", "a", "x"])
            .script("B", &["tea ", "b", "fail:refused"])
            .script("C", &["milk", "c", "fail:refused"])
    };
    let (value, desk) = both_ways(make, "all", &[]);
    assert_eq!(value, r#"["Tea","a","merge_failed"]"#);
    assert_eq!(desk.calls, ["A", "B", "C", "A", "B", "C", "A", "B", "C"]);
}

#[test]
fn c08_one_repair_and_then_a_clear_error() {
    let program = r#"
        protocol Score { value: int, why: str }
        agent Rater -> Score { prompt: "Rate it.", repair: 1 }
        flow main(t: str) -> int { return Rater.run(t).value }
        flow code(t: str) -> str? { return (try main(t)).code() }
    "#;
    let make = || Desk::common(program).script("Rater", &["seven", r#"{ "value": 7, "why": "clear" }"#, "x", "y"]);
    let (value, desk) = both_ways(make, "main", &[str("a")]);
    assert_eq!(value, "7");
    let repair = &desk.requests[1].messages;
    assert_eq!(repair.len(), 4);
    assert_eq!(
        (repair[2].text.as_str(), repair[2].source),
        ("seven", nexa_event::effect::Source::Answer(nexa_types::Seq(1)))
    );
    assert_eq!(repair[3].source, nexa_event::effect::Source::Derived);
    assert!(repair[0].text.contains(r#""required":["value","why"]"#), "{}", repair[0].text);
    let make = || Desk::common(program).script("Rater", &["x", "y"]);
    assert_eq!(both_ways(make, "code", &[str("b")]).0, "\"output_invalid\"");
}

/// A replies `a`, B `b`, M `m`.
fn table(expression: &str) -> (String, Vec<String>) {
    let make = || {
        Desk::common(&format!("flow main() -> any {{ return {expression} }}"))
            .script("A", &["a"])
            .script("B", &["b"])
            .script("M", &["m"])
    };
    let (value, desk) = both_ways(make, "main", &[]);
    let calls = desk.inputs.iter().map(|(agent, input)| format!("{agent}({input})")).collect();
    (value, calls)
}

#[test]
fn c13_to_c17_the_operators_do_what_the_table_says() {
    assert_eq!(table(r#""q" >> A >> B"#), ("\"b\"".into(), vec!["A(q)".into(), "B(a)".into()]));
    assert_eq!(table(r#""q" |> text.upper"#), ("\"Q\"".into(), vec![]));
    let both = vec!["A(q)".to_owned(), "B(q)".to_owned()];
    assert_eq!(table(r#""q" |>> [A, B]"#), (r#"[{"ok":"a"},{"ok":"b"}]"#.into(), both.clone()));
    assert_eq!(table(r#""q" |>> [x: A, y: B]"#), (r#"{"x":{"ok":"a"},"y":{"ok":"b"}}"#.into(), both.clone()));
    let merged: Vec<String> = both.iter().cloned().chain([r#"M(["a","b"])"#.to_owned()]).collect();
    assert_eq!(table(r#""q" |>> [A, B] &>> M"#), ("\"m\"".into(), merged.clone()));
    assert_eq!(table(r#""q" >> ([A, B] &>> M)"#), ("\"m\"".into(), merged.clone()));
    assert_eq!(table(r#""q" |>> [x: A, y: B] &>> M"#), ("\"m\"".into(), merged));
}

#[test]
fn c18_a_list_merges_as_it_is_and_a_failed_branch_fails_the_merge() {
    assert_eq!(table(r#"["x", "y"] &>> M"#), ("\"m\"".into(), vec![r#"M(["x","y"])"#.into()]));
    let make = || {
        Desk::common("flow main() -> str { return \"q\" |>> [A, C] &>> M }")
            .script("A", &["a"])
            .script("C", &["fail:refused"])
    };
    let (value, desk) = both_ways(make, "main", &[]);
    assert!(value.starts_with("merge_failed"), "{value}");
    assert_eq!(desk.calls, ["A", "C"]);
}

#[test]
fn c20_branches_run_one_stage() {
    assert_eq!(table(r#""q" ?> true => A : B"#), ("\"a\"".into(), vec!["A(q)".into()]));
    assert_eq!(table(r#""q" ?> false => A : B"#), ("\"b\"".into(), vec!["B(q)".into()]));
}

#[test]
fn c22_coalescing_looks_only_at_none() {
    assert_eq!(table(r#"none ?? "d""#).0, "\"d\"");
    assert_eq!(table(r#""v" ?? fail("no")"#).0, "\"v\"");
    assert_eq!(table("0 ?? 1").0, "0");
}

#[test]
fn c31_a_chain_is_a_value() {
    let make = || {
        Desk::common(r#"flow main() -> str { let p = A >> B; return "q" >> p }"#)
            .script("A", &["a"])
            .script("B", &["b"])
    };
    let (value, desk) = both_ways(make, "main", &[]);
    assert_eq!((value.as_str(), desk.calls.len()), ("\"b\"", 2));
}

#[test]
fn c32_another_worker_and_then_a_substitute() {
    let program = r#"flow main(q: str) -> str { return C.run(q) fallback B.run(q) otherwise "none" }"#;
    let make = || Desk::common(program).script("C", &["fail:unavailable"]).script("B", &["b"]);
    assert_eq!(both_ways(make, "main", &[str("q")]).0, "\"b\"");
    let make = || Desk::common(program).script("C", &["fail:unavailable"]).script("B", &["fail:contract_violated"]);
    assert_eq!(both_ways(make, "main", &[str("q")]).0, "\"none\"");
    let make = || Desk::common(program).script("C", &["fail:denied"]).script("B", &["b"]);
    let (value, desk) = both_ways(make, "main", &[str("q")]);
    assert_eq!(
        (value.as_str(), desk.calls),
        ("\"none\"", vec!["C".to_owned()]),
        "`fallback` does not hide every error"
    );
}

#[test]
fn c33_models_are_tried_in_order_and_transient_errors_again() {
    let program = r#"agent D { model: ["a/one", "b/two"] } flow main() -> str { return D.run("x") }"#;
    let make = || Desk::program(program).script("D", &["fail:refused", "fine"]);
    let (value, desk) = both_ways(make, "main", &[]);
    let models: Vec<&str> = desk.requests.iter().map(|request| request.model.as_str()).collect();
    assert_eq!((value.as_str(), models), ("\"fine\"", vec!["a/one", "b/two"]));
    let program = r#"agent D { prompt: "p" } flow main() -> str { return D.run("x") }"#;
    let make = || Desk::program(program).script("D", &["fail:unavailable", "fail:unavailable", "fine"]);
    let (value, desk) = both_ways(make, "main", &[]);
    assert_eq!((value.as_str(), desk.clock), ("\"fine\"", 1_500));
    let make = || Desk::program(program).script("D", &["fail:unavailable"]);
    let (value, desk) = both_ways(make, "main", &[]);
    assert_eq!((value.as_str(), desk.calls.len()), ("unavailable: as scripted", 3));
}

#[test]
fn c36_unwrapping_raises_what_is_there() {
    let program = r#"
        flow absent(x: str?) -> str { return x? }
        flow caught(x: str?) -> str? { return (try x?).code() }
        flow failed() -> str { let r = try fail("no", code: "denied"); return r? }
    "#;
    let make = || Desk::program(program);
    assert!(both_ways(make, "absent", &[Value::None]).0.starts_with("none_value"));
    assert_eq!(both_ways(make, "caught", &[Value::None]).0, "\"none_value\"");
    assert!(both_ways(make, "failed", &[]).0.starts_with("denied: no"));
}

/// Three branches, each an agent that answers once: an int, or an error.
fn merged(clause: &str, ty: &str, answers: [&str; 3]) -> String {
    let agent = |name: &str| format!("agent {name} -> {ty} {{ retry: {{ max: 0 }}, repair: 0 }}\n");
    let agents: String = ["X", "Y", "Z"].map(agent).concat();
    let forms = [
        format!("{agents}flow main(q: str) -> any {{ return q |>> [X, Y, Z] merge {clause} }}"),
        format!("{agents}flow main(q: str) -> any {{ return q |>> [x: X, y: Y, z: Z] merge {clause} }}"),
        format!("{agents}flow main(q: str) -> any {{ return fork [X.run(q), Y.run(q), q >> Z] merge {clause} }}"),
    ];
    let mut values = forms.iter().map(|program| {
        let script = |desk: Desk, (agent, answer): (&str, &str)| desk.script(agent, &[answer]);
        let make = || ["X", "Y", "Z"].into_iter().zip(answers).fold(Desk::program(program), script);
        let value = both_ways(make, "main", &[str("q")]).0;
        // The value, or the code of the failure.
        value.split_once(": ").map_or(value.clone(), |(code, _)| code.to_owned())
    });
    let first = values.next().expect("there is a first form");
    assert!(values.all(|value| value == first), "every way to write the fork merges alike");
    first
}

#[test]
fn c25_to_c29_the_strategies_do_what_the_table_says() {
    let all_ok = ["4", "2", "4"];
    let one_failed = ["4", "fail:timeout", "4"];
    let all_failed = ["fail:timeout", "fail:refused", "fail:unavailable"];
    let others = ["1", "2", "3"];
    let mut wrong = Vec::new();
    for (number, clause, ty, answers, expected) in [
        ("C25", "all", "int", all_ok, "[4,2,4]"),
        ("C25", "all", "int", one_failed, "merge_failed"),
        ("C25", "all(min_ok: 2)", "int", one_failed, "[4,4]"),
        ("C25", "all", "int", all_failed, "merge_failed"),
        ("C25", "all(min_ok: 1)", "int", all_failed, "merge_failed"),
        ("C26", "concat", "str", all_ok, r#""4\n\n2\n\n4""#),
        ("C26", "concat", "str", one_failed, "merge_failed"),
        ("C26", "concat", "str", all_failed, "merge_failed"),
        ("C26", r#"concat(sep: "-", min_ok: 2)"#, "str", one_failed, r#""4-4""#),
        ("C26", "concat", "list[int]", ["[1, 2]", "[]", "[3]"], "[1,2,3]"),
        ("C27", "vote", "int", all_ok, "4"),
        ("C27", "vote", "int", others, "1"),
        ("C27", r#"vote(tie: "earliest")"#, "int", others, "1"),
        ("C27", r#"vote(tie: "error")"#, "int", others, "merge_failed"),
        ("C27", r#"vote(tie: "error")"#, "int", ["1", "2", "2"], "2"),
        ("C27", "vote", "int", one_failed, "4"),
        ("C27", "vote", "int", ["4", "fail:timeout", "fail:timeout"], "merge_failed"),
        ("C27", "vote", "int", all_failed, "merge_failed"),
        ("C27", "vote", "str", ["a  Cup", " b ", "A cup\n"], r#""a  Cup""#),
        ("C27", "vote", "list[int]", ["[1]", "[2, 3]", "[2, 3]"], "[2,3]"),
        ("C28", "best_of(by: fn(v) => 0.0 - v)", "int", all_ok, "2"),
        ("C28", "best_of(by: fn(v) => 0.0 - v)", "int", one_failed, "4"),
        ("C28", "best_of(by: fn(v) => 0.0 - v)", "int", all_failed, "merge_failed"),
        ("C28", "best_of(by: fn(v) => 0.0 - v, min_ok: 3)", "int", one_failed, "merge_failed"),
        ("C28", "best_of(by: fn(v) => v.len())", "str", ["aa", "bbb", "ccc"], r#""bbb""#),
        ("C29", "weighted_average(weights: [1, 1, 2])", "int", all_ok, "3.5"),
        ("C29", "weighted_average(weights: [1, 1, 2])", "int", one_failed, "merge_failed"),
        ("C29", "weighted_average(weights: [1, 1, 2], min_ok: 2)", "int", one_failed, "4.0"),
        ("C29", "weighted_average", "float", ["1.5", "2.5", "2"], "2.0"),
        ("C29", "weighted_average(weights: [0, 1, 0], min_ok: 2)", "int", one_failed, "merge_failed"),
        ("C29", "weighted_average(weights: [1, 1, 2])", "int", all_failed, "merge_failed"),
    ] {
        let found = merged(clause, ty, answers);
        if found != expected {
            wrong.push(format!("{number} `{clause}` of {answers:?} gives {found} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_failed_merge_carries_every_branchs_error() {
    let program = r##"
        agent Bad -> int { repair: 0 }
        flow merged(q: str) -> str { return fork [A.run(q), C.run(q), q >> C] merge concat(min_ok: 2) }
        flow main(q: str) -> any {
            return match try merged(q) { ok(v) => v, err(e) => [e.code, e.message, e.data[0].code, e.data[1].message] }
        }
    "##;
    let make = || Desk::common(program).script("A", &["a"]).script("C", &["fail:refused", "fail:unavailable"]);
    assert_eq!(
        both_ways(make, "main", &[str("q")]).0,
        r#"["merge_failed","2 of 3 branches failed, and at least 2 must succeed","refused","as scripted"]"#
    );
}

#[test]
fn the_function_of_best_of_is_the_programs_own() {
    // It may capture, be a flow, fail, and give no number.
    let make = |by: &str| {
        let program = format!(
            "flow score(v: str) -> float {{ return float(v) }}
             flow main(bias: float) -> str {{ return \"q\" |>> [A, B, M2] merge best_of(by: {by}) }}
             agent M2 {{ prompt: \"x\" }}"
        );
        move || Desk::common(&program).script("A", &["1"]).script("B", &["3"]).script("M2", &["2"])
    };
    let run = |by: &str| both_ways(make(by), "main", &[Value::Float(2.0)]).0;
    assert_eq!(run("score"), "\"3\"");
    assert_eq!(run("fn(v) => 0.0 - math.abs(float(v) - bias)"), "\"2\"");
    assert_eq!(run("fn(v) => { let n = float(v); return n - n }"), "\"1\"", "a tie goes to the earliest");
    assert!(run("fn(v) => float(\"x\")").starts_with("parse_failed"));
}

#[test]
fn c36_what_is_deferred_runs_last_to_first_with_an_error() {
    let program = r#"
        flow main() -> str {
            defer print("1")
            defer print("2")
            defer print("3")
            return fail("no", code: "denied")
        }
    "#;
    let (value, desk) = both_ways(|| Desk::program(program), "main", &[]);
    assert_eq!(value, "denied: no");
    assert_eq!(desk.logs, ["3", "2", "1"]);
}

#[test]
fn c38_loops_walk_in_order_and_ints_overflow() {
    let program = r##"
        flow main() -> list[str] {
            let out: list[str] = []
            for each x in ["a", "b", "c"] { if (x == "b") { continue }; out += [x] }
            for each i, x in ["d", "e", "f"] { if (i == 2) { break }; out += ["#{i}#{x}"] }
            for (k, v) in { "z": 1, "a": 2 } { out += ["#{k}#{v}"] }
            return out
        }
        flow large(n: int) -> int { return n + 1 }
    "##;
    let make = || Desk::program(program);
    assert_eq!(both_ways(make, "main", &[]).0, r#"["a","c","0d","1e","z1","a2"]"#);
    assert!(both_ways(make, "large", &[Value::Int(i64::MAX)]).0.starts_with("overflow"));
}

#[test]
fn c40_a_loop_has_a_bound_and_says_when_it_is_reached() {
    let codes = |text: &str| -> Vec<&str> {
        nexa_lang::compile_text("main.nx", text).diagnostics.iter().map(|finding| finding.code.name()).collect()
    };
    assert_eq!(codes("flow main(n: int) { loop { n += 1 } until (n > 3) }"), ["E0601"]);
    let program = "flow main(n: int) -> int { loop (max: 3) { n += 1 } until (n > 3); return n }";
    let make = || Desk::program(program);
    assert_eq!(both_ways(make, "main", &[Value::Int(1)]).0, "4");
    assert!(both_ways(make, "main", &[Value::Int(0)]).0.starts_with("loop_limit"));
}

#[test]
fn c47_any_is_checked_lists_are_of_one_type_and_lambdas_walk_them() {
    let program = r##"
        flow number(text: str) -> int { let n: int = json.parse(text); return n }
        flow pipeline(xs: list[int]) -> list[str] {
            return xs.filter(fn(x) => x % 2 == 0).sort_by(fn(x) => 0 - x).map(fn(x) => "n#{x}")
        }
    "##;
    let make = || Desk::program(program);
    assert!(both_ways(make, "number", &[str("\"x\"")]).0.starts_with("type_mismatch"));
    let xs = Value::List([3, 4, 2, 8].map(Value::Int).to_vec().into());
    assert_eq!(both_ways(make, "pipeline", &[xs]).0, r#"["n8","n4","n2"]"#);
    let mixed = nexa_lang::compile_text("main.nx", "flow main() -> any { let xs = [1, \"a\"]; return xs }");
    assert_eq!(mixed.diagnostics.iter().map(|finding| finding.code.name()).collect::<Vec<_>>(), ["E0308"]);
}

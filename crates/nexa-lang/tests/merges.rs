//! What the strategies of `merge` make of results, whichever way the fork is written. The programs that explain them
//! stand in `docs/language/forks.md`; this is the whole table.

mod running;

use running::{Desk, both_ways, str};

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
fn the_strategies_do_what_the_table_says() {
    let all_ok = ["4", "2", "4"];
    let one_failed = ["4", "fail:timeout", "4"];
    let all_failed = ["fail:timeout", "fail:refused", "fail:unavailable"];
    let others = ["1", "2", "3"];
    let mut wrong = Vec::new();
    for (number, clause, ty, answers, expected) in [
        ("C24", "first", "int", all_ok, "4"),
        ("C24", "first", "int", one_failed, "4"),
        ("C24", "first", "int", ["fail:timeout", "fail:refused", "2"], "2"),
        ("C24", "first", "int", all_failed, "merge_failed"),
        ("C24", "first(min_ok: 2)", "int", one_failed, "4"),
        ("C24", "first(min_ok: 3)", "int", one_failed, "merge_failed"),
        ("C24", "first(min_ok: 2, timeout: 1s)", "int", others, "1"),
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

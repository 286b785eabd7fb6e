//! Task graphs of programs: which nodes there are, what they are called, and which wait for which.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use expect_test::{Expect, expect};
use nexa_lang::compile_text;
use nexa_vm::module::Module;

const COMMON: &str = r#"
agent A { prompt: "a" }
agent B { prompt: "b" }
agent C { prompt: "c" }
agent M(parts: list[str]) { prompt: "m" }
tool find(q: str) -> list[str] { source: mcp("docs", name: "find"), risk: "low", effect: "read" }
"#;

fn module(text: &str) -> Module {
    let result = compile_text("main.nx", &format!("{COMMON}{text}"));
    assert!(!result.has_errors(), "{}", result.render(nexa_lang::diagnostic::Colour::Off));
    result.module.unwrap()
}

/// The graph of an entry: a line for each node, and which nodes it waits for.
fn graph(module: &Module, entry: &str) -> String {
    let entry = module.entries.iter().find(|known| known.name == entry).unwrap();
    let tasks = module.tasks(entry);
    let line = |task: &nexa_vm::module::tasks::Task| {
        let deps: Vec<&str> = task.deps.iter().map(|dep| tasks[*dep as usize].id.as_str()).collect();
        let rounds = match task.rounds {
            Some(1) => String::new(),
            Some(rounds) => format!(" x{rounds}"),
            None => " x?".to_owned(),
        };
        let after = if deps.is_empty() { String::new() } else { format!(" <- {}", deps.join(", ")) };
        format!("{:9} {}{rounds} {}ms{after}\n", task.kind.as_str(), task.id, task.estimate())
    };
    tasks.iter().map(line).collect()
}

fn check(text: &str, expected: &Expect) {
    expected.assert_eq(&graph(&module(text), "main"));
}

#[test]
fn stages_follow_each_other() {
    check(
        "flow main(s: str) -> str { return s >> A >> B >> A }",
        &expect![[r#"
        agent     main/A 2000ms
        agent     main/B 2000ms <- main/A
        agent     main/A#2 2000ms <- main/B
    "#]],
    );
}

#[test]
fn branches_start_from_a_fork_and_end_in_a_merge() {
    check(
        "flow main(t: str) -> str { return t |>> [A, B] &>> M }",
        &expect![[r#"
        fork      main/fork#1 0ms
        agent     main/A 2000ms <- main/fork#1
        agent     main/B 2000ms <- main/fork#1
        merge     main/merge#1 0ms <- main/A, main/B
        agent     main/M 2000ms <- main/merge#1
    "#]],
    );
}

#[test]
fn both_ways_of_a_condition_are_there() {
    check(
        r#"flow main(n: int) -> str {
            let first = if (n > 3) { A.run("x") } else if (n > 2) { B.run("x") } else { "none" }
            return n ?> it > 5 => A : C
        }"#,
        &expect![[r#"
            condition main/condition#1 0ms
            agent     main/A 2000ms <- main/condition#1
            agent     main/B 2000ms <- main/condition#1
            condition main/condition#2 0ms <- main/A, main/B
            agent     main/A#2 2000ms <- main/condition#2
            agent     main/C 2000ms <- main/condition#2
        "#]],
    );
}

#[test]
fn a_question_is_where_ways_part() {
    check(
        r#"flow main(t: str) -> str {
            semantic_if "asks for money back" against t { return A.run(t) } else { return B.run(t) }
        }"#,
        &expect![[r#"
            condition main/condition#1 2000ms
            agent     main/A 2000ms <- main/condition#1
            agent     main/B 2000ms <- main/condition#1
        "#]],
    );
}

#[test]
fn what_a_loop_does_is_there_once() {
    check(
        r#"flow main(t: str) -> str budget { calls: 20 } {
            let d = t
            loop (max: 4) { d = A.run(d) } until ("finished" against d)
            for each x in ["a", "b", "c"] { d = B.run(x) }
            while (d.len() < 3) { d = C.run(d) }
            return d
        }"#,
        &expect![[r#"
            agent     main/A x4 8000ms
            condition main/condition#1 x4 8000ms <- main/A
            condition main/condition#2 x3 0ms <- main/condition#1
            agent     main/B x3 6000ms <- main/condition#2
            condition main/condition#3 x? 0ms <- main/B
            agent     main/C x? 2000ms <- main/condition#3
        "#]],
    );
}

#[test]
fn arithmetic_is_one_opaque_node() {
    check(
        "flow main(n: int) -> int { let i = 0; while (i < n) { i += 2; if (i == 7) { i += 1 } }; return i * 2 }",
        &expect![[r#"
            transform main/transform#1 2000ms
        "#]],
    );
    check(
        r#"flow main(n: int) -> str {
            let i = 0
            while (i < n) { i += 2; if (i == 7) { break } }
            for each x in [1, 2] { i += x }
            return A.run(str(i))
        }"#,
        &expect![[r#"
            transform main/transform#1 0ms
            agent     main/A 2000ms <- main/transform#1
        "#]],
    );
}

#[test]
fn flows_are_expanded_where_they_are_called() {
    check(
        r#"
        fn twice(n: int) -> int => n * 2
        flow gather(q: str) -> list[str] uses find { return find(q) }
        flow both(q: str) -> str { let r = q |>> [A, B]; return r[0]? }
        flow main(q: str) -> str uses find {
            let n = twice(2)
            let one = gather(q); let two = gather(one.join("\n"))
            return both(two.join("")) >> C
        }"#,
        &expect![[r#"
            transform main/transform#1 0ms
            tool      main/gather/find 2000ms <- main/transform#1
            transform main/transform#2 0ms <- main/gather/find
            tool      main/gather#2/find 2000ms <- main/transform#2
            transform main/transform#3 0ms <- main/gather#2/find
            fork      main/both/fork#1 0ms <- main/transform#3
            agent     main/both/A 2000ms <- main/both/fork#1
            agent     main/both/B 2000ms <- main/both/fork#1
            transform main/both 0ms <- main/both/A, main/both/B
            agent     main/C 2000ms <- main/both
        "#]],
    );
}

#[test]
fn a_flow_that_leads_back_to_itself_is_one_node() {
    check(
        r#"flow around(q: str, n: int) -> str uses find { let r = find(q); return around(r.join(" "), n - 1) }
        flow main(q: str) -> str uses find { return around(q, 3) >> B }"#,
        &expect![[r#"
            tool      main/around/find 2000ms
            transform main/around/transform#1 0ms <- main/around/find
            transform main/around/around 2000ms <- main/around/transform#1
            agent     main/B 2000ms <- main/around/around
        "#]],
    );
}

#[test]
fn a_flow_with_a_budget_is_an_agent_that_takes_as_long_as_its_longest_way() {
    check(
        r#"agent Slow { prompt: "s", schedule: { estimate: 9s, cpu: 0.5, llm: 2 } }
        flow part(q: str) -> str budget { calls: 9 } { let r = q |>> [A, Slow]; return r[1]? >> B }
        flow told(q: str) -> str schedule { estimate: 3s } { return q >> A >> B >> C }
        flow main(q: str) -> str { return q >> part >> told }"#,
        &expect![[r#"
            agent     main/part 11000ms
            agent     main/told 3000ms <- main/part
        "#]],
    );
}

#[test]
fn children_run_beside_what_follows_until_they_are_awaited() {
    check(
        r#"flow main(q: str) -> str {
            let h = spawn A(q)
            let b = B.run(q)
            let a = await h
            return C.run(a + b)
        }"#,
        &expect![[r#"
            agent     main/A 2000ms
            agent     main/B 2000ms
            agent     main/C 2000ms <- main/A, main/B
        "#]],
    );
}

#[test]
fn children_that_are_awaited_in_a_loop_come_before_what_follows() {
    check(
        r#"flow main(xs: list[str]) -> str {
            let hs: list[handle[str]] = []
            for each x in xs { hs += [spawn A(x)] }
            let all: list[str] = []
            for each h in hs { all += [await h] }
            return B.run(all.join(""))
        }"#,
        &expect![[r#"
            condition main/condition#1 x? 0ms
            agent     main/A x? 2000ms <- main/condition#1
            transform main/transform#1 0ms <- main/A
            agent     main/B 2000ms <- main/transform#1
        "#]],
    );
}

#[test]
fn closures_are_followed_to_where_they_were_made() {
    check(
        r#"flow main(xs: list[str]) -> str {
            let ask = fn(x: str) => A.run(x)
            let p = B >> C
            let all = xs.map(fn(x) => ask(x))
            return all.join("") >> p
        }"#,
        &expect![[r#"
            condition main/condition#1 x? 0ms
            agent     main/A x? 2000ms <- main/condition#1
            transform main/transform#1 x? 0ms <- main/A
            transform main/transform#2 0ms <- main/transform#1
            agent     main/B 2000ms <- main/transform#2
            agent     main/C 2000ms <- main/B
        "#]],
    );
}

#[test]
fn what_stands_in_comes_after_what_it_stands_in_for() {
    check(
        r#"flow main(q: str) -> str { return A.run(q) fallback B.run(q) otherwise "none" }"#,
        &expect![[r#"
            agent     main/A 2000ms
            condition main/condition#1 0ms <- main/A
            agent     main/B 2000ms <- main/condition#1
        "#]],
    );
    check(
        r#"flow main(q: str) -> str { try { return A.run(q) } catch (e) { return B.run(e.code) } }"#,
        &expect![[r#"
            agent     main/A 2000ms
            condition main/condition#1 0ms <- main/A
            agent     main/B 2000ms <- main/condition#1
        "#]],
    );
}

#[test]
fn names_can_be_pinned() {
    check(
        r#"@id("writer") agent Author { prompt: "x" }
        @id("entry") flow main(q: str) -> str { return q >> Author >> Author }"#,
        &expect![[r#"
            agent     entry/writer 2000ms
            agent     entry/writer#2 2000ms <- entry/writer
        "#]],
    );
}

#[test]
fn an_agent_as_an_entry_is_one_node() {
    expect![[r#"
        agent     A 2000ms
    "#]]
    .assert_eq(&graph(&module("flow main(q: str) -> str { return q }"), "A"));
}

#[test]
fn ids_depend_on_no_line() {
    let (a, b) = (
        "flow main(s: str) -> str { return s >> A >> B }",
        "// a comment\n\nflow main(s: str) -> str {\n    return s\n        >> A\n        >> B\n}",
    );
    assert_eq!(graph(&module(a), "main"), graph(&module(b), "main"));
    assert_eq!(module(a).hash(), module(b).hash());
}

#[test]
fn an_inserted_stage_is_one_node_more() {
    let before = graph(&module("flow main(t: str) -> str { return t |>> [A, B] &>> M }"), "main");
    let after = graph(&module("flow main(t: str) -> str { return t |>> [A, B] &>> M >> C }"), "main");
    assert!(after.starts_with(&before), "{after}");
    assert_eq!(after.lines().count(), before.lines().count() + 1);
}

//! `x || [A, B]`: what goes on beside the program, and ends with the workload.

use std::fmt::Write;

use nexa_event::fact::AgentEvent;
use nexa_types::limits::DETACHED_MAX;
use nexa_types::{Budget, RunCode, Timestamp};
use proptest::prelude::*;

use crate::town::{Town, Turn, always, errors, shown};

const TWO: &str = "
    agent A { prompt: \"P\", retry: { max: 0 } }
    agent B { prompt: \"P\", retry: { max: 0 } }
";

fn two(rest: &str) -> String {
    format!("{TWO}{rest}")
}

fn scripted(text: &str, a: Turn, b: Turn) -> Town {
    Town::of(text).script("A", &[a]).script("B", &[b])
}

#[test]
fn the_flow_goes_on_at_once_and_the_workload_ends_with_the_last_branch() {
    let text = two("flow main() -> str { let x = \"q\" || [A, B]; emit(time.now()); return x }");
    let (result, town) = always(|| scripted(&text, Turn::Says("a", 20), Turn::Says("b", 10)));
    assert_eq!((result.as_str(), town.now.0), ("\"q\"", 20));
    assert_eq!(town.emitted, ["0"]);
    assert_eq!(town.asks, [("A".to_owned(), "q".to_owned()), ("B".to_owned(), "q".to_owned())]);
    expect_test::expect![[r#"
        0 spawned main
        0 started on n1 epoch 1
        0 children_spawned #1 A, B
        0 emitted #3 main
        0 concluded ok
        10 child_ended #1.1 ok, used 1 tokens in 1 calls
        20 child_ended #1.0 ok, used 1 tokens in 1 calls
        20 ended ok, used 2 tokens in 2 calls
    "#]]
    .assert_eq(&town.story("main"));
}

#[test]
fn branches_of_another_agent_belong_to_the_root() {
    let text = two("
        flow inner(q: str) -> str { return q || [A, B] }
        flow main() -> str { let r = fork [inner(\"x\"), inner(\"y\")]; return \"#{r[0]?}#{r[1]?}\" }");
    let (result, town) = always(|| scripted(&text, Turn::Says("a", 20), Turn::Fails(RunCode::Refused, 10)));
    assert_eq!((result.as_str(), town.now.0), ("\"xy\"", 20));
    expect_test::expect![[r#"
        0 spawned main
        0 started on n1 epoch 1
        0 children_spawned #1 inner, inner
        0 adopted A, B
        0 children_spawned #4503599627370496 A, B
        0 child_ended #1.0 ok
        0 adopted A, B
        0 children_spawned #4503599627370497 A, B
        0 child_ended #1.1 ok
        0 concluded ok
        10 child_ended #4503599627370496.1 refused, used 1 tokens in 1 calls
        10 detached_failed B refused
        10 child_ended #4503599627370497.1 refused, used 1 tokens in 1 calls
        10 detached_failed B refused
        20 child_ended #4503599627370496.0 ok, used 1 tokens in 1 calls
        20 child_ended #4503599627370497.0 ok, used 1 tokens in 1 calls
        20 ended ok, used 4 tokens in 4 calls
    "#]]
    .assert_eq(&town.story("main"));
    expect_test::expect![[r#"
        0 spawned inner
        0 started on n1 epoch 1
        0 detached #1 A, B
        0 ended ok
    "#]]
    .assert_eq(&town.story("inner"));
    assert_eq!(town.spend().calls, 4, "the workload pays for them");
}

#[test]
fn a_failure_is_an_event_of_the_root_and_nothing_else() {
    let text = two("flow main() -> str { let x = \"q\" || [A, B]; sleep(1s); return x }");
    let (result, town) = always(|| scripted(&text, Turn::Fails(RunCode::Refused, 20), Turn::Says("b", 10)));
    assert_eq!((result.as_str(), town.now.0), ("\"q\"", 1_000));
    assert_eq!(failures(&town), ["A refused"]);
}

#[test]
fn a_program_that_fails_waits_for_them_too() {
    let text = two("flow main() -> str { let x = \"q\" || [A, B]; return fail(x) }");
    let (result, town) = always(|| scripted(&text, Turn::Says("a", 20), Turn::Says("b", 10)));
    assert_eq!((result.as_str(), town.now.0), ("failed: q", 20));
    assert!(town.ends()["A"].starts_with('"'));
}

#[test]
fn the_deadline_of_the_workload_ends_them_and_the_result_stays() {
    let text = two("flow main() -> str { return \"q\" || [A, B] }");
    let make = || {
        let town = Town::budgeted(&text, Budget::default(), Some(Timestamp(15)));
        town.script("A", &[Turn::Says("a", 20)]).script("B", &[Turn::Says("b", 10)])
    };
    let (result, town) = always(make);
    assert_eq!((result.as_str(), town.now.0), ("\"q\"", 15));
    assert_eq!(failures(&town), ["A timeout"]);
    assert!(town.ends()["B"].starts_with('"'));
}

#[test]
fn a_cancelled_workload_takes_them_along() {
    let text = two("flow main() -> str { return \"q\" || [A, B] }");
    let (result, town) = always(|| scripted(&text, Turn::Says("a", 20), Turn::Says("b", 10)).cancelled_at(15));
    assert_eq!((result.as_str(), town.now.0), ("cancelled: ann said so", 15));
}

#[test]
fn nobody_detaches_more_than_the_workload_allows() {
    let text = "
        flow late(n: int) -> int { sleep(1h); return n }
        flow main() -> int {
            let i = 0
            while (i < COUNT) { i || [late, late]; i += 1 }
            return i
        }";
    let count = DETACHED_MAX / 2 + 1;
    let text = text.replace("COUNT", &count.to_string());
    let mut town = Town::of(&text);
    assert_eq!(shown(&town.run()), count.to_string());
    assert_eq!(failures(&town), ["late failed", "late failed"]);
}

#[test]
fn branches_that_detach_further_ones_end_where_the_line_is_too_long() {
    let text = "
        flow again(n: int) -> int { emit(n); return n + 1 || [again, once] }
        flow once(n: int) -> int { return n }
        flow main() -> int { return 1 || [again, once] }";
    // A circle without a model is nobody's bill; it ends by its depth.
    assert_eq!(errors(text), [""; 0]);
    let mut town = Town::of(text);
    assert_eq!(shown(&town.run()), "1");
    let failed = failures(&town);
    assert_eq!(failed, ["again stack_overflow"]);
}

/// The failures that were recorded, by the names of the branches.
fn failures(town: &Town) -> Vec<String> {
    let failed = |(event, _): &(AgentEvent, Timestamp)| match event {
        AgentEvent::DetachedFailed { name, failure, .. } => Some(format!("{name} {}", failure.code)),
        _ => None,
    };
    town.stream("main").iter().filter_map(failed).collect()
}

/// What a flow does: waits, detaches branches, ends.
#[derive(Debug, Clone)]
struct Part {
    sleeps: u64,
    branches: Vec<(u64, bool)>,
    is_inner: bool,
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let branches = prop::collection::vec((0..9u64, any::<bool>()), 2..4);
    let part = (0..5u64, branches, any::<bool>());
    let part = part.prop_map(|(sleeps, branches, is_inner)| Part { sleeps, branches, is_inner });
    prop::collection::vec(part, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The model: each branch begins when it was detached, and its end is its own. The workload ends with the last.
    #[test]
    fn a_workload_ends_with_the_last_of_all_that_it_does(parts in parts(), dice in 1..u64::MAX) {
        let (mut text, mut main) = (String::new(), String::new());
        let (mut now, mut last, mut failed) = (0, 0, Vec::new());
        for (number, Part { sleeps, branches, is_inner }) in parts.iter().enumerate() {
            now += 10 * sleeps;
            let mut names = Vec::new();
            for (branch, (tens, is_ok)) in branches.iter().enumerate() {
                let name = format!("b{number}_{branch}");
                let end = if *is_ok { "return q" } else { "return fail(q, code: \"refused\")" };
                writeln!(text, "flow {name}(q: str) -> str {{ sleep({}ms); {end} }}", 10 * tens).expect("room");
                last = last.max(now + 10 * tens);
                failed.extend((!is_ok).then(|| format!("{name} refused")));
                names.push(name);
            }
            let fork = format!("\"{number}\" || [{}]", names.join(", "));
            writeln!(main, "sleep({}ms)", 10 * sleeps).expect("room");
            if *is_inner {
                writeln!(text, "flow f{number}() -> str {{ return {fork} }}").expect("room");
                writeln!(main, "emit(fork [f{number}(), 0])").expect("room");
            } else {
                writeln!(main, "emit({fork})").expect("room");
            }
        }
        writeln!(text, "flow main() -> int {{\n{main}return time.now()\n}}").expect("room");
        failed.sort();
        let ways = [
            Town::of(&text),
            Town::of(&text).stepping(),
            Town::of(&text).forgetful(),
            Town::of(&text).forgetful().stepping().shuffled(dice),
            Town::of(&text).shuffled(dice),
        ];
        for mut town in ways {
            prop_assert_eq!(shown(&town.run()), now.to_string(), "{}", text);
            prop_assert_eq!(town.now.0, now.max(last), "{}", text);
            let mut found = failures(&town);
            found.sort();
            prop_assert_eq!(&found, &failed, "{}", text);
        }
    }
}

#[test]
fn what_a_call_with_a_budget_detaches_counts_for_its_budget() {
    let text = two("
        flow greedy(q: str) -> str { for each n in range(0, 99) { print(n); A.run(q) }; return q }
        flow many(q: str) -> str budget { calls: 10 } {
            for each n in range(0, 9) { print(n); q || [greedy, greedy] }
            return B.run(q)
        }
        flow middle(q: str) -> str budget { calls: 15 } { return many(many(many(q))) }
        flow main() -> str { let r = fork [middle(\"x\"), middle(\"y\")]; return r[0]? + r[1]? }");
    let make = || scripted(&text, Turn::Says("a", 20), Turn::Says("b", 10));
    for mut town in [make(), make().forgetful(), make().stepping().shuffled(7_919)] {
        assert_eq!(shown(&town.run()), "\"bb\"");
        // 4 + 2 of the first ten are handed over, 2 + 2 of the eight that are left after it and B, 0 of the three then.
        assert_eq!(town.spend().calls, 2 * (6 + 1 + 4 + 1 + 1), "of 15 for each");
    }
}

//! `merge first` and `merge …(timeout: d)`, held against a model that knows only when each branch would end, and how.

use std::collections::BTreeMap;
use std::fmt::Write;

use nexa_event::fact::AgentEvent;
use nexa_types::{AgentId, Outcome};
use proptest::prelude::*;

use crate::town::{Town, Turn, always, shown};

/// A branch: how long it takes, whether it ends ok, and whether a child of its own does the waiting.
#[derive(Debug, Clone, Copy)]
struct Branch {
    millis: u64,
    is_ok: bool,
    is_deep: bool,
}

/// A fork of these that gives how its merge ended, and when.
fn program(branches: &[Branch], merge: &str) -> String {
    let mut text = String::from("flow waits(d: duration) -> int { sleep(d); return 1 }\n");
    for (number, Branch { millis, is_ok, is_deep }) in branches.iter().enumerate() {
        let wait = if *is_deep {
            format!("let _ = fork [waits({millis}ms), waits(0ms)]")
        } else {
            format!("sleep({millis}ms)")
        };
        let end = if *is_ok { format!("return {number}") } else { "fail(\"no\", code: \"refused\")".to_owned() };
        writeln!(text, "flow b{number}() -> int {{ {wait}; {end} }}").expect("a text takes all");
    }
    let calls: Vec<String> = (0..branches.len()).map(|number| format!("b{number}()")).collect();
    write!(
        text,
        "flow main() -> str {{\n let r = try fork [{}] merge {merge}\n \
         return match r {{ ok(v) => \"#{{v}} at #{{time.now()}}\", err(e) => \"#{{e.code}} at #{{time.now()}}\" }}\n}}",
        calls.join(", ")
    )
    .expect("a text takes all");
    text
}

/// When each branch ends and whether ok, in that order.
fn ends(branches: &[Branch], timeout: Option<u64>) -> Vec<(u64, usize, bool)> {
    let mut ends: Vec<(u64, usize, bool)> = branches
        .iter()
        .enumerate()
        .map(|(number, branch)| match timeout {
            Some(timeout) if timeout < branch.millis => (timeout, number, false),
            _ => (branch.millis, number, branch.is_ok),
        })
        .collect();
    ends.sort_unstable();
    ends
}

/// What `merge first` gives: as soon as so many are ok the first of them, or as soon as so many cannot be any more.
fn first_of(branches: &[Branch], wanted: usize, timeout: Option<u64>) -> String {
    let (mut ok, mut left) = (Vec::new(), branches.len());
    for (at, number, is_ok) in ends(branches, timeout) {
        left -= 1;
        ok.extend(is_ok.then_some(number));
        if ok.len() == wanted {
            return format!("{} at {at}", ok[0]);
        }
        if ok.len() + left < wanted {
            return format!("merge_failed at {at}");
        }
    }
    unreachable!("one of both is so at the last")
}

/// What `merge all(min_ok: n)` gives: it waits for everybody.
fn all_of(branches: &[Branch], wanted: usize, timeout: Option<u64>) -> String {
    let mut ends = ends(branches, timeout);
    let last = ends.iter().map(|end| end.0).max().unwrap_or_default();
    ends.sort_by_key(|end| end.1);
    let ok: Vec<String> = ends.iter().filter(|end| end.2).map(|end| end.1.to_string()).collect();
    if ok.len() < wanted {
        return format!("merge_failed at {last}");
    }
    format!("[{}] at {last}", ok.join(","))
}

fn clause(strategy: &str, wanted: usize, timeout: Option<u64>) -> String {
    let timeout = timeout.map(|timeout| format!(", timeout: {timeout}ms")).unwrap_or_default();
    format!("{strategy}(min_ok: {wanted}{timeout})")
}

/// Branches that end at different times, in any order.
fn in_any_order() -> impl Strategy<Value = Vec<Branch>> {
    let orders = (2..6usize).prop_flat_map(|count| Just((1..=count as u64).collect::<Vec<_>>()).prop_shuffle());
    let kinds = prop::collection::vec((any::<bool>(), any::<bool>()), 5);
    (orders, kinds).prop_map(|(order, kinds)| {
        let branch = |(place, (is_ok, is_deep))| Branch { millis: 10 * place, is_ok, is_deep };
        order.into_iter().zip(kinds).map(branch).collect()
    })
}

/// Between two moments at which branches end.
fn any_timeout() -> impl Strategy<Value = Option<u64>> {
    prop::option::of((0..6u64).prop_map(|tens| 10 * tens + 5))
}

/// Every way to run it: in one go, slice by slice, as after a crash at every append, in another order.
fn every_way(text: &str) -> Vec<Town> {
    let ways = [
        Town::of(text),
        Town::of(text).stepping(),
        Town::of(text).forgetful(),
        Town::of(text).forgetful().stepping().shuffled(7_919),
        Town::of(text).shuffled(104_729),
    ];
    ways.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_merge_is_what_the_model_says_whichever_branch_ends_when(
        branches in in_any_order(),
        wanted in 1..6usize,
        timeout in any_timeout(),
        is_first in any::<bool>(),
    ) {
        let wanted = wanted.min(branches.len());
        let strategy = if is_first { "first" } else { "all" };
        let text = program(&branches, &clause(strategy, wanted, timeout));
        let expected = if is_first { first_of(&branches, wanted, timeout) } else { all_of(&branches, wanted, timeout) };
        for mut town in every_way(&text) {
            prop_assert_eq!(shown(&town.run()), format!("{expected:?}"), "{}", text);
        }
    }

    /// Several may end in the same moment. Then the order counts in which the parent recorded their ends.
    #[test]
    fn of_branches_that_end_together_the_first_recorded_counts(
        branches in prop::collection::vec((0..3u64, any::<bool>()), 2..7),
        wanted in 1..6usize,
        dice in 1..u64::MAX,
    ) {
        let branch = |(tens, is_ok): &(u64, bool)| Branch { millis: 10 * tens, is_ok: *is_ok, is_deep: false };
        let branches: Vec<Branch> = branches.iter().map(branch).collect();
        let wanted = wanted.min(branches.len());
        let text = program(&branches, &clause("first", wanted, None));
        let mut town = Town::of(&text).shuffled(dice);
        let result = shown(&town.run());

        let (mut ok, mut open) = (Vec::new(), (0..branches.len() as u32).collect::<Vec<_>>());
        let mut cancelled: Vec<AgentId> = Vec::new();
        let mut agents: BTreeMap<u32, AgentId> = BTreeMap::new();
        let mut decided = None;
        for (event, at) in town.stream("main") {
            match event {
                AgentEvent::ChildrenSpawned { children, .. } => {
                    agents = (0..).zip(children.iter().map(|child| child.agent)).collect();
                }
                AgentEvent::ChildEnded { branch, outcome, .. } if decided.is_none() => {
                    open.retain(|other| other != branch);
                    ok.extend(matches!(outcome, Outcome::Ok(_)).then_some(*branch));
                    if ok.len() == wanted || ok.len() + open.len() < wanted {
                        decided = Some(at.0);
                    }
                }
                AgentEvent::ChildrenCancelled { children } => cancelled.extend(children),
                _ => {}
            }
        }
        let at = decided.expect("it was decided");
        let expected = if ok.len() == wanted { format!("{} at {at}", ok[0]) } else { format!("merge_failed at {at}") };
        prop_assert_eq!(result, format!("{expected:?}"), "{}", text);
        let expected: Vec<AgentId> = open.iter().map(|branch| agents[branch]).collect();
        prop_assert_eq!(cancelled, expected, "all that were still running are told to end, each once");
    }
}

const TWO: &str = "
    agent Quick { prompt: \"P\", retry: { max: 0 } }
    agent Slow { prompt: \"P\", retry: { max: 0 } }
    flow main() -> str {
        let word = \"q\" |>> [Slow, Quick] merge first
        sleep(5ms)
        return word
    }";

#[test]
fn the_others_are_ended_at_once_and_the_program_goes_on() {
    let (result, town) = always(|| {
        let town = Town::of(TWO).script("Slow", &[Turn::Says("slow", 1_000)]);
        town.script("Quick", &[Turn::Says("quick", 10)])
    });
    assert_eq!((result.as_str(), town.now.0), ("\"quick\"", 15));
    expect_test::expect![[r#"
        0 spawned main
        0 started on n1 epoch 1
        0 children_spawned #1 Slow, Quick
        10 child_ended #1.1 ok, used 1 tokens in 1 calls
        10 children_cancelled 1
        10 timer_set #2 due 15
        10 child_ended #1.0 cancelled, used 1042 tokens in 1 calls
        15 timer_fired #2
        15 ended ok, used 1043 tokens in 2 calls
    "#]]
    .assert_eq(&town.story("main"));
    assert_eq!(town.ends()["Slow"], "cancelled: enough of the branches beside it have ended");
}

#[test]
fn a_cancelled_agent_ends_the_branches_that_it_waits_for() {
    let make = || {
        let town = Town::of(TWO).script("Slow", &[Turn::Says("slow", 1_000)]).cancelled_at(5);
        town.script("Quick", &[Turn::Says("quick", 10)])
    };
    let (result, town) = always(make);
    assert_eq!((result.as_str(), town.now.0), ("cancelled: ann said so", 5));
}

#[test]
fn what_a_first_left_behind_is_billed_while_its_parent_lives() {
    let town = |text| {
        let town = Town::of(text).script("Slow", &[Turn::Says("slow", 1_000)]);
        town.script("Quick", &[Turn::Says("quick", 10)])
    };
    let mut spent = town(TWO);
    spent.run();
    // One request was answered, and the other was given up and may have cost what it had reserved.
    assert_eq!(spent.spend().calls, 2);
}

#[test]
fn a_scope_that_is_over_ends_a_first_too() {
    let text = "
        flow late(n: int) -> int { sleep(1h); return n }
        flow main() -> str {
            try (timeout: 20ms) { let _ = fork [late(1), late(2)] merge first } catch (e) { return e.code }
            return \"no\"
        }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!((result.as_str(), town.now.0), ("\"timeout\"", 20));
}

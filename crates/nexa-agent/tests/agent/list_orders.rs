//! In what order the items of a list start, and which of them start together.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use nexa_agent::coordinator::{turns, validate};
use nexa_event::fact::{AgentEvent, ItemSchedule, ListItem, OnFailure};
use nexa_sched::{AgentScheduleInfo, TaskGraph, upward_ranks};
use nexa_types::limits::BRANCHES_MAX;
use nexa_types::{Budget, Millis, Outcome, RunCode};
use proptest::prelude::*;

use crate::desk::{Desk, bill, tokens};
use crate::lists::{any_list, failed, item, ok, outcome, started, told_plainly};
use crate::program::Act;

fn schedule(item: &mut ListItem) -> &mut ItemSchedule {
    item.schedule.get_or_insert_default()
}

fn lasting(id: &str, after: &[u32], millis: u64) -> ListItem {
    let mut item = item(id, after);
    schedule(&mut item).estimate = Some(Millis(millis));
    item
}

fn in_gang(gang: &str, mut item: ListItem) -> ListItem {
    schedule(&mut item).gang = Some(gang.to_owned());
    item
}

fn with_priority(priority: u8, mut item: ListItem) -> ListItem {
    schedule(&mut item).priority = Some(priority);
    item
}

/// A list whose items start by the turns that a submission gives them.
fn by_rank(items: Vec<ListItem>, on_failure: OnFailure, budget: Budget) -> Desk {
    let turns = turns(&items, |priority| priority);
    Desk::list_in_turn(&[vec![Act::Argument]], items, on_failure, budget, Some(turns))
}

/// Ids in the order of their turns.
fn in_turn(items: &[ListItem], level: impl Fn(u8) -> u8) -> String {
    let mut ids: Vec<(u32, &str)> =
        turns(items, level).into_iter().zip(items.iter().map(|item| item.id.as_str())).collect();
    ids.sort_unstable();
    ids.into_iter().map(|(_, id)| id).collect::<Vec<_>>().join(" ")
}

#[test]
fn who_is_farthest_from_the_end_is_first_and_a_higher_level_before_that() {
    let items = vec![
        lasting("short", &[], 10),
        lasting("head", &[], 10),
        lasting("tail", &[1], 500),
        lasting("long", &[], 400),
        with_priority(200, lasting("urgent", &[], 1)),
        with_priority(130, lasting("hardly", &[], 1)),
        item("usual", &[]),
    ];
    assert_eq!(in_turn(&items, |priority| priority), "urgent hardly usual head tail long short");
    assert_eq!(in_turn(&items, |priority| priority / 64), "urgent usual head tail long short hardly");
    assert_eq!(in_turn(&items, |_| 0), "usual head tail long short urgent hardly");
}

#[test]
fn a_list_starts_by_turn_if_it_has_turns_and_as_submitted_if_not() {
    let items = || vec![lasting("a", &[], 1), lasting("b", &[], 3), lasting("c", &[], 2)];
    let mut desk = Desk::list(items(), OnFailure::FailFast, Budget::default());
    assert_eq!(started(desk.starts()), [vec!["a", "b", "c"]]);
    let mut desk = by_rank(items(), OnFailure::FailFast, Budget::default());
    assert_eq!(started(desk.starts()), [vec!["b", "c", "a"]]);
    let root = desk.root;
    desk.freeze(root);
    for (branch, text) in [(0, "B"), (2, "A"), (1, "C")] {
        desk.child_ends(1, branch, ok(text), bill(1, 1));
    }
    assert_eq!(outcome(&desk), "a: A, b: B, c: C");
}

#[test]
fn a_long_list_starts_the_most_urgent_in_its_first_batch() {
    let items: Vec<ListItem> = (0..600).map(|n| lasting(&format!("i{n}"), &[], n)).collect();
    let mut desk = by_rank(items, OnFailure::FailFast, Budget::default());
    desk.starts().computes();
    let started = started(&desk);
    assert_eq!(started.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
    assert_eq!((started[0][0], started[0][255], started[2][87]), ("i599", "i344", "i0"));
}

#[test]
fn turns_that_do_not_fit_the_list_fail_it_and_nothing_else() {
    for wrong in [vec![], vec![0], vec![0, 1, 2]] {
        let items = vec![item("a", &[]), item("b", &[])];
        let functions = [vec![Act::Argument]];
        let mut desk = Desk::list_in_turn(&functions, items, OnFailure::FailFast, Budget::default(), Some(wrong));
        desk.starts();
        let Some(Outcome::Err(failure)) = desk.outcome() else { panic!("it failed") };
        assert_eq!(failure.code, RunCode::Failed);
        assert!(failure.message.contains("2 agents and"), "{}", failure.message);
    }
    let items = vec![item("a", &[]), item("b", &[])];
    let functions = [vec![Act::Argument]];
    let turns = Some(vec![u32::MAX, u32::MAX]);
    let mut desk = Desk::list_in_turn(&functions, items, OnFailure::FailFast, Budget::default(), turns);
    assert_eq!(started(desk.starts()), [vec!["a", "b"]], "equal turns are in order of submission");
}

#[test]
fn a_gang_starts_with_one_effect_when_all_of_it_may() {
    let items = vec![
        item("a", &[]),
        in_gang("g", item("first", &[0])),
        item("b", &[]),
        in_gang("g", item("second", &[2])),
        in_gang("g", item("third", &[])),
    ];
    let mut desk = by_rank(items, OnFailure::FailFast, Budget::default());
    desk.starts().child_ends(1, 0, ok("A"), bill(1, 1));
    assert_eq!(started(&desk), [vec!["a", "b"]], "the third could start, and the first, but not the second");
    desk.child_ends(1, 1, ok("B"), bill(1, 1));
    assert_eq!(started(&desk), [vec!["a", "b"], vec!["first", "second", "third"]]);
}

#[test]
fn a_gang_is_not_divided_between_two_batches() {
    let mut items: Vec<ListItem> = (0..200).map(|n| lasting(&format!("i{n}"), &[], 1_000)).collect();
    items.extend((0..100).map(|n| in_gang("g", lasting(&format!("g{n}"), &[], 500))));
    items.extend((0..100).map(|n| lasting(&format!("j{n}"), &[], 100)));
    let mut desk = by_rank(items, OnFailure::FailFast, tokens(400_000));
    desk.starts().computes();
    assert_eq!(started(&desk).iter().map(Vec::len).collect::<Vec<_>>(), [200, 200]);
    assert!(started(&desk)[1][..100].iter().all(|id| id.starts_with('g')));
}

#[test]
fn what_keeps_one_of_a_gang_from_starting_keeps_all_of_it() {
    let long = |bytes: usize| ok(&"x".repeat(bytes));
    let items = || {
        let mut items: Vec<ListItem> = ["a", "b", "c"].into_iter().map(|id| item(id, &[])).collect();
        items.extend([
            in_gang("g", item("sum", &[0, 1, 2])),
            in_gang("g", item("beside", &[0])),
            in_gang("g", item("alone", &[])),
            item("after", &[4]),
        ]);
        items
    };
    let ends = |on_failure, bytes: [usize; 3]| {
        let mut desk = by_rank(items(), on_failure, Budget::default());
        desk.starts();
        for (branch, bytes) in (0..).zip(bytes) {
            desk.child_ends(1, branch, long(bytes), bill(1, 1)).computes();
        }
        let last = started(&desk).len() as u64;
        if on_failure == OnFailure::Continue {
            desk.child_ends(last, 0, ok("A"), bill(1, 1));
        }
        let (ran, ended) = (started(&desk).concat().join(" "), desk.outcome().expect("it has ended"));
        desk.root();
        (ran, ended)
    };
    // Three results that fit together into no value of one of them.
    let (ran, ended) = ends(OnFailure::Continue, [6 << 20; 3]);
    assert_eq!((ran.as_str(), ended.is_ok()), ("a b c after", true));
    let (ran, ended) = ends(OnFailure::SkipDependents, [6 << 20; 3]);
    let Outcome::Err(failure) = ended else { panic!("it failed") };
    assert_eq!(ran, "a b c");
    expect!["agent `sum` failed, and 1 that comes after it was left out (its data of 12584101 bytes is left out)"]
        .assert_eq(&failure.message);
    // What each of them gets would fit, and all of it not into one record.
    let (ran, ended) = ends(OnFailure::FailFast, [9 << 20, 1, 1]);
    let Outcome::Err(failure) = ended else { panic!("it failed") };
    assert_eq!(ran, "a b c");
    let causes: Vec<&str> =
        std::iter::successors(Some(&failure), |at| at.cause.as_deref()).map(|at| at.message.as_str()).collect();
    assert!(causes.iter().any(|cause| cause.contains("more than the 16777216 that can start at once")), "{causes:?}");
}

#[test]
fn with_one_of_a_gang_all_of_it_is_left_out() {
    let items = vec![
        item("a", &[]),
        in_gang("g", item("x", &[0])),
        in_gang("g", item("y", &[])),
        item("after", &[2]),
        item("free", &[]),
    ];
    let mut desk = by_rank(items, OnFailure::SkipDependents, Budget::default());
    desk.starts().child_ends(1, 0, failed(), bill(1, 1));
    assert_eq!(outcome(&desk), "runs");
    desk.child_ends(1, 1, ok("F"), bill(1, 1));
    assert_eq!(started(&desk), [vec!["a", "free"]]);
    expect![[
        r#"refused: agent `a` failed, and 3 that come after failed ones were left out [a: err Str("refused"), free: F]"#
    ]]
    .assert_eq(&outcome(&desk));
}

#[test]
fn a_gang_that_can_never_start_is_refused_with_the_reason() {
    let told = |items: &[ListItem]| validate(items).expect_err("it is refused").to_string();
    let mut text = String::new();
    text += &format!("{}\n", told(&[in_gang("g", item("a", &[])), in_gang("g", item("b", &[0]))]));
    let through = [in_gang("g", item("a", &[1])), item("b", &[2]), item("c", &[3]), in_gang("g", item("d", &[]))];
    text += &format!("{}\n", told(&through));
    let crossed = [
        in_gang("g", item("a", &[2])),
        in_gang("g", item("b", &[])),
        in_gang("h", item("c", &[])),
        in_gang("h", item("d", &[1])),
    ];
    text += &format!("{}\n", told(&crossed));
    let many: Vec<ListItem> = (0..=BRANCHES_MAX).map(|n| in_gang("g", item(&format!("i{n}"), &[]))).collect();
    text += &format!("{}\n", told(&many));
    assert_eq!(validate(&many[1..]), Ok(()));
    let mut long = many[..5].to_vec();
    for item in &mut long {
        item.input = nexa_vm::codec::encode(&nexa_vm::value::Value::Str("x".repeat(1 << 20).into()));
    }
    text += &format!("{}\n", told(&long));
    expect![[r#"
        the members of gang `g` can never start together: b → a = b (`→` waits for, `=` starts together with); take one of them out of its gang
        the members of gang `g` can never start together: a → b → c → d = a (`→` waits for, `=` starts together with); take one of them out of its gang
        the members of gang `g` can never start together: a → c = d → b = a (`→` waits for, `=` starts together with); take one of them out of its gang
        gang `g` has 257 members, more than the 256 that can start together; make several of it
        the inputs of gang `g` have 5242905 bytes together, more than the 4194304 that can start together; make several of it, or hand less to each
    "#]]
    .assert_eq(&text);
}

/// The same list as a scheduler's graph.
fn graph(items: &[ListItem]) -> TaskGraph {
    let agents = items.iter().map(|item| {
        let schedule = item.schedule.clone().unwrap_or_default();
        let dependencies = item.after.iter().map(|after| items[*after as usize].id.clone()).collect();
        let usual = AgentScheduleInfo::new(item.id.as_str());
        let estimated_duration = schedule.estimate.unwrap_or(usual.estimated_duration);
        AgentScheduleInfo { dependencies, estimated_duration, gang: schedule.gang, ..usual }
    });
    TaskGraph::new(agents.collect()).expect("it is a graph")
}

/// Lists whose items say how long they take and how urgent they are, some of them in gangs that can start.
fn any_scheduled_list(gangs: bool) -> impl Strategy<Value = Vec<ListItem>> {
    let said = (any::<Option<u8>>(), proptest::option::of(0u64..1_000), proptest::option::weighted(0.4, 0u8..3));
    (any_list(), prop::collection::vec(said, 12)).prop_map(move |(mut items, said)| {
        for index in 0..items.len() {
            let (priority, estimate, gang) = said[index];
            let estimate = estimate.map(Millis);
            let before = items[index].schedule.insert(ItemSchedule { priority, estimate, ..ItemSchedule::default() });
            before.gang = gang.filter(|_| gangs).map(|gang| format!("g{gang}"));
            if validate(&items).is_err() {
                schedule(&mut items[index]).gang = None;
            }
        }
        items
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn turns_are_by_level_and_by_the_ranks_of_the_scheduler(items in any_scheduled_list(false)) {
        let graph = graph(&items);
        let ranks = upward_ranks(&graph, |task| graph.agents()[task as usize].estimated_duration, |_, _| Millis(0));
        let turns = turns(&items, |priority| priority / 64);
        let priority = |index: usize| items[index].schedule.as_ref().and_then(|said| said.priority).unwrap_or(128) / 64;
        for a in 0..items.len() {
            for b in 0..items.len() {
                let key = |index: usize| (std::cmp::Reverse(priority(index)), std::cmp::Reverse(ranks[index]), index);
                prop_assert_eq!(turns[a] < turns[b], key(a) < key(b));
            }
        }
        let all: BTreeSet<u32> = turns.into_iter().collect();
        prop_assert_eq!(all, (0..items.len() as u32).collect::<BTreeSet<_>>(), "each has a turn of its own");
    }

    /// What the scheduler's graph refuses the list refuses, and the other way round.
    #[test]
    fn a_list_and_a_graph_agree_on_which_gangs_can_start(
        items in any_list(),
        gangs in prop::collection::vec(proptest::option::weighted(0.6, 0u8..3), 12),
    ) {
        let mut items = items;
        for (item, gang) in items.iter_mut().zip(&gangs) {
            schedule(item).gang = gang.map(|gang| format!("g{gang}"));
        }
        let agents = items.iter().map(|item| AgentScheduleInfo {
            dependencies: item.after.iter().map(|after| items[*after as usize].id.clone()).collect(),
            gang: item.schedule.as_ref().and_then(|schedule| schedule.gang.clone()),
            ..AgentScheduleInfo::new(item.id.as_str())
        });
        prop_assert_eq!(validate(&items).is_ok(), TaskGraph::new(agents.collect()).is_ok());
    }

    #[test]
    fn a_gang_starts_whole_or_not_at_all_and_the_list_ends(
        items in any_scheduled_list(true),
        on_failure in prop::sample::select(vec![OnFailure::FailFast, OnFailure::SkipDependents, OnFailure::Continue]),
        choices in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.2)), 12),
    ) {
        let mut desk = by_rank(items.clone(), on_failure, tokens(1_000));
        let root = desk.root;
        desk.starts();
        let mut ended = BTreeMap::new();
        for (pick, fails) in choices {
            if desk.root().agent.end().is_some() {
                break;
            }
            let mut running = Vec::new();
            for (event, _) in &desk.root().stream {
                if let AgentEvent::ChildrenSpawned { seq, children, .. } = event {
                    running.extend((0..).zip(children).map(|(branch, child)| (seq.0, branch, child.spec.name.clone())));
                }
            }
            running.retain(|(_, _, name)| !ended.contains_key(name));
            prop_assert!(!running.is_empty(), "nothing runs and it has not ended");
            let (seq, branch, name) = pick.get(&running).clone();
            desk.child_ends(seq, branch, if fails { failed() } else { ok(&name) }, bill(1, 1));
            ended.insert(name, fails);
            desk.freeze(root);
        }
        prop_assert!(desk.root().agent.end().is_some());
        prop_assert_eq!(outcome(&desk), told_plainly(&items, on_failure, &ended));
        let batches = started(&desk);
        let batch: BTreeMap<&str, usize> =
            batches.iter().enumerate().flat_map(|(n, ids)| ids.iter().map(move |id| (*id, n))).collect();
        prop_assert_eq!(batch.len(), batches.concat().len(), "an item was started twice");
        let mut of_gang: BTreeMap<&str, BTreeSet<Option<usize>>> = BTreeMap::new();
        for item in &items {
            if let Some(gang) = item.schedule.as_ref().and_then(|schedule| schedule.gang.as_deref()) {
                of_gang.entry(gang).or_default().insert(batch.get(item.id.as_str()).copied());
            }
        }
        prop_assert!(of_gang.values().all(|batches| batches.len() == 1), "{of_gang:?}");
    }
}

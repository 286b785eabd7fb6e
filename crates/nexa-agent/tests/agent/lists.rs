//! Submitted lists of agents.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use expect_test::expect;
use nexa_agent::coordinator::validate;
use nexa_agent::{
    Agent, BIRTHS_PER_STEP_MAX, ENDINGS_PER_APPEND_MAX, FAILURE_DATA_BYTES_MAX, Input, STEP_BYTES_MAX, Step,
    snapshot_is_due,
};
use nexa_event::fact::{self, AgentEvent, ListItem, OnFailure, Spawned};
use nexa_types::limits::{LIST_AGENTS_MAX, SLICE_FUEL};
use nexa_types::{AgentId, Budget, Epoch, Failure, InputId, NodeId, Outcome, Payload, RunCode, Spend, Tokens};
use nexa_vm::codec;
use nexa_vm::value::{Key, Value};
use nexa_vm::vm::Program;
use proptest::prelude::*;

use crate::desk::{Desk, NOON, bill, spawned, tokens};

pub(crate) fn item(id: &str, after: &[u32]) -> ListItem {
    let input = codec::encode(&Value::Str(format!("for {id}").into()));
    ListItem {
        id: id.to_owned(),
        entry: 0,
        input,
        after: after.to_vec(),
        budget: Budget::default(),
        timeout: None,
        schedule: None,
    }
}

fn value(text: &str) -> Payload {
    codec::encode(&Value::Str(text.into()))
}

pub(crate) fn ok(text: &str) -> Outcome {
    Outcome::Ok(value(text))
}

pub(crate) fn failed() -> Outcome {
    Outcome::Err(Failure::new(RunCode::Refused, "not that"))
}

/// `a: text, b: err(refused)`, or the failure and what it carries.
pub(crate) fn outcome(desk: &Desk) -> String {
    match desk.root().agent.end().map(|end| &end.outcome) {
        None => "runs".to_owned(),
        Some(Outcome::Ok(payload)) => dict(payload),
        Some(Outcome::Err(failure)) => {
            let data = failure.data.as_ref().map(dict).unwrap_or_default();
            format!("{}: {} [{data}]", failure.code, failure.message)
        }
    }
}

fn dict(payload: &Payload) -> String {
    let Ok(Value::Dict(dict)) = codec::decode(payload) else { panic!("a dict") };
    let one = |(key, value): &(Key, Value)| {
        let Key::Str(key) = key else { panic!("an id") };
        match value {
            Value::Str(text) => format!("{key}: {text}"),
            Value::Err(error) => match &**error {
                Value::Record(error) => format!("{key}: err {:?}", error.values[0]),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    };
    dict.entries().iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Names of the items that each effect started.
pub(crate) fn started(desk: &Desk) -> Vec<Vec<&str>> {
    let events = desk.root().stream.iter().filter_map(|(event, _)| match event {
        AgentEvent::ChildrenSpawned { children, .. } => Some(children),
        _ => None,
    });
    events.map(|children| children.iter().map(|child| child.spec.name.as_str()).collect()).collect()
}

#[test]
fn what_depends_on_others_starts_when_they_have_succeeded() {
    let items = vec![item("a", &[]), item("b", &[]), item("c", &[0, 1]), item("d", &[2])];
    let mut desk = Desk::list(items, OnFailure::FailFast, Budget::default());
    desk.starts().child_ends(1, 1, ok("B"), bill(1, 1)).child_ends(1, 0, ok("A"), bill(1, 1));
    desk.child_ends(2, 0, ok("C"), bill(1, 1)).child_ends(3, 0, ok("D"), bill(1, 1));
    assert_eq!(started(&desk), [vec!["a", "b"], vec!["c"], vec!["d"]]);
    desk.expect(expect![[r#"
        started on n1 epoch 1
        children_spawned #1 a, b
        child_ended #1.1 ok, used 2 tokens in 1 calls
        child_ended #1.0 ok, used 2 tokens in 1 calls
        children_spawned #2 c
        child_ended #2.0 ok, used 2 tokens in 1 calls
        children_spawned #3 d
        child_ended #3.0 ok, used 2 tokens in 1 calls
        ended ok, used 8 tokens in 4 calls
        => succeeded
    "#]]);
    assert_eq!(outcome(&desk), "a: A, b: B, c: C, d: D");
}

#[test]
fn an_item_gets_its_input_and_the_results_that_it_waited_for() {
    let mut desk = Desk::list(vec![item("a", &[]), item("b", &[0])], OnFailure::FailFast, Budget::default());
    desk.starts().child_ends(1, 0, ok("A"), Spend::default());
    let nexa_event::fact::Program::Function { args, .. } = &desk.seats[&desk.child(2, 0)].agent.spawned().program
    else {
        panic!("a function")
    };
    let Ok(Value::List(args)) = codec::decode(args) else { panic!("a list") };
    let Value::Record(record) = &args[0] else { panic!("a record") };
    assert_eq!((record.shape.fields.join(" "), args.len()), ("input results".to_owned(), 1));
    assert_eq!(record.values[0], Value::Str("for b".into()));
    assert_eq!(dict(&codec::encode(&record.values[1])), "a: A");
}

#[test]
fn fail_fast_cancels_what_runs_and_keeps_what_was_done() {
    let items = vec![item("a", &[]), item("b", &[]), item("c", &[]), item("d", &[1])];
    let mut desk = Desk::list(items, OnFailure::FailFast, Budget::default());
    desk.starts().child_ends(1, 0, ok("A"), bill(1, 1)).child_ends(1, 1, failed(), bill(1, 1));
    desk.expect(expect![[r#"
        started on n1 epoch 1
        children_spawned #1 a, b, c
        child_ended #1.0 ok, used 2 tokens in 1 calls
        child_ended #1.1 refused, used 2 tokens in 1 calls
        children_cancelled 1
        ended refused, used 4 tokens in 2 calls
          posts a cancel to a child
        => failed
    "#]]);
    expect![[r#"refused: agent `b` failed [a: A, b: err Str("refused")]"#]].assert_eq(&outcome(&desk));
}

#[test]
fn skip_dependents_leaves_out_what_comes_after_and_runs_the_rest() {
    let items = vec![item("a", &[]), item("b", &[0]), item("c", &[1]), item("d", &[])];
    let mut desk = Desk::list(items, OnFailure::SkipDependents, Budget::default());
    desk.starts().child_ends(1, 0, failed(), bill(1, 1));
    assert_eq!(outcome(&desk), "runs");
    desk.child_ends(1, 1, ok("D"), bill(1, 1));
    assert_eq!(started(&desk), [vec!["a", "d"]]);
    expect![[
        r#"refused: agent `a` failed, and 2 that come after failed ones were left out [a: err Str("refused"), d: D]"#
    ]]
    .assert_eq(&outcome(&desk));
}

#[test]
fn continue_hands_the_failure_on_and_succeeds() {
    let items = vec![item("a", &[]), item("b", &[0])];
    let mut desk = Desk::list(items, OnFailure::Continue, Budget::default());
    desk.starts().child_ends(1, 0, failed(), bill(1, 1)).child_ends(2, 0, ok("B"), bill(1, 1));
    expect![[r#"a: err Str("refused"), b: B"#]].assert_eq(&outcome(&desk));
}

#[test]
fn a_long_list_starts_in_batches_and_all_get_an_equal_share() {
    let items: Vec<ListItem> = (0..600).map(|n| item(&format!("i{n}"), &[])).collect();
    let mut desk = Desk::list(items, OnFailure::FailFast, tokens(600_000));
    desk.starts();
    assert_eq!((desk.seats.len(), desk.root().more), (1 + BIRTHS_PER_STEP_MAX, true), "one append bears no more");
    desk.computes();
    assert_eq!(started(&desk).iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
    let mut children = desk.seats.values().filter(|seat| seat.agent.spawned().parent.is_some());
    assert!(children.all(|child| child.agent.spawned().budget.tokens == Some(Tokens(1_000))));
}

#[test]
fn a_list_over_a_long_result_starts_in_several_short_steps() {
    let mut items = vec![item("long", &[])];
    items.extend((0..100).map(|n| item(&format!("i{n}"), &[0])));
    let mut desk = Desk::list(items, OnFailure::FailFast, Budget::default());
    desk.starts().child_ends(1, 0, ok(&"x".repeat(200 << 10)), bill(1, 1));
    let mut steps = vec![desk.seats.len()];
    while desk.root().more {
        desk.go_on();
        steps.push(desk.seats.len());
    }
    assert_eq!(desk.seats.len(), 102);
    let born: Vec<usize> = steps.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(born.len() > 2 && born.iter().all(|born| 2 * born * (200 << 10) <= 3 * STEP_BYTES_MAX), "{born:?}");
}

#[test]
fn results_that_a_failure_cannot_carry_are_left_out_and_it_says_so() {
    let mut desk = Desk::list(vec![item("a", &[]), item("b", &[])], OnFailure::FailFast, Budget::default());
    desk.starts().child_ends(1, 0, ok(&"x".repeat(FAILURE_DATA_BYTES_MAX)), bill(1, 1));
    desk.child_ends(1, 1, failed(), bill(1, 1));
    let Some(Outcome::Err(failure)) = desk.outcome() else { panic!("it failed") };
    assert_eq!((failure.code, failure.data), (RunCode::Refused, None));
    assert_eq!(failure.message, "agent `b` failed (its data of 1048650 bytes is left out)");
}

#[test]
fn an_item_that_cannot_start_has_failed_and_the_policy_decides_about_the_others() {
    // Three results that fit together into no value.
    let items = || {
        let mut items: Vec<ListItem> = ["a", "b", "c"].into_iter().map(|id| item(id, &[])).collect();
        items.extend([item("sum", &[0, 1, 2]), item("after", &[3]), item("beside", &[0])]);
        items
    };
    let long = || ok(&"x".repeat(6 << 20));
    let ends = |on_failure| {
        let mut desk = Desk::list(items(), on_failure, Budget::default());
        desk.starts();
        for branch in 0..3 {
            desk.child_ends(1, branch, long(), bill(1, 1)).computes();
        }
        let last = started(&desk).len() as u64;
        desk.child_ends(2, 0, ok("B"), bill(1, 1));
        if last > 2 {
            desk.child_ends(last, 0, ok("A"), bill(1, 1));
        }
        (started(&desk).concat().join(" "), desk.outcome().expect("it has ended"))
    };
    let (ran, outcome) = ends(OnFailure::Continue);
    assert_eq!((ran.as_str(), outcome.is_ok()), ("a b c beside after", true));
    let (ran, outcome) = ends(OnFailure::SkipDependents);
    let Outcome::Err(failure) = outcome else { panic!("it failed") };
    assert_eq!(ran, "a b c beside");
    expect!["agent `sum` failed, and 1 that comes after it was left out (its data of 12583380 bytes is left out)"]
        .assert_eq(&failure.message);
    expect!["the results that agent `sum` comes after have 18874655 bytes together with its input, more than the 16777216 of one value: have them give less, or sum them up in several steps"]
        .assert_eq(&failure.cause.expect("it has a cause").message);
}

#[test]
fn results_that_no_value_can_carry_are_left_out_the_longest_first_and_the_list_succeeds() {
    let items: Vec<ListItem> = (0..5).map(|n| item(&format!("i{n}"), &[])).collect();
    let mut desk = Desk::list(items, OnFailure::FailFast, Budget::default());
    desk.starts();
    for (branch, mib) in [4, 5, 2, 5, 4].into_iter().enumerate() {
        desk.child_ends(1, branch as u32, ok(&"x".repeat(mib << 20)), bill(1, 1));
    }
    let Some(Outcome::Ok(payload)) = desk.outcome() else { panic!("it succeeded") };
    let Ok(Value::Dict(results)) = codec::decode(&payload) else { panic!("a dict") };
    let kept: Vec<bool> = results.entries().iter().map(|(_, value)| matches!(value, Value::Str(_))).collect();
    assert_eq!(kept, [true, true, true, false, true]);
    let Value::Err(error) = &results.entries()[3].1 else { panic!("an error") };
    let Value::Record(error) = &**error else { panic!("a record") };
    expect![[r#"Str("its result of 5242886 bytes is left out, as the results of all agents are longer together than 16777216 bytes; ask for the agent itself")"#]]
        .assert_eq(&format!("{:?}", error.values[1]));
}

#[test]
fn ten_thousand_results_that_no_value_can_carry_do_not_fail_the_list() {
    let mut list = Long::list(LIST_AGENTS_MAX, |_| Vec::new());
    list.run(&ok(&"x".repeat(2_000)));
    let Some(Outcome::Ok(payload)) = list.agent.end().map(|end| &end.outcome) else { panic!("it succeeded") };
    let Ok(Value::Dict(results)) = codec::decode(payload) else { panic!("a dict") };
    let left_out = results.entries().iter().filter(|(_, value)| matches!(value, Value::Err(_))).count();
    assert!((1..LIST_AGENTS_MAX).contains(&left_out), "{left_out}");
    assert!(payload.len() > 14 << 20, "no more is left out than must be: {}", payload.len());
}

#[test]
fn endings_that_wait_together_go_into_one_append_and_replay_as_they_were() {
    let mut list = Long::list(1_000, |n| if n < 900 { Vec::new() } else { (0..900).collect() });
    list.run(&ok("A"));
    assert!(list.agent.end().is_some_and(|end| end.outcome.is_ok()));
    // Four to bear them, sixteen for their endings, with the first of which the last ones are born.
    assert!(list.appends.len() < 4 + 1_000 / ENDINGS_PER_APPEND_MAX + 3, "{:?}", list.appends);
    assert!(list.appends.iter().all(|step| step.births.len() < 2 * BIRTHS_PER_STEP_MAX));
    list.replays();
}

/// What is stored for one ending does not grow with the list: neither in the log nor, on the whole, as snapshots.
#[test]
fn the_bytes_of_all_snapshots_grow_with_the_log_and_not_with_its_square() {
    let ratio = |count: usize| {
        let mut list = Long::list(count, |_| Vec::new());
        list.one_by_one = true;
        list.run(&ok(&"x".repeat(500)));
        list.replays();
        list.snapshot_bytes as f64 / list.log.len() as f64
    };
    let (few, many) = (ratio(1_000), ratio(8_000));
    assert!(many < 2.0 * few.max(1_024.0), "{few} bytes of snapshots an event, then {many}");
}

/// A long list without the lives of its children: each ends as it is told to, the oldest first.
struct Long {
    first: Spawned,
    agent: Agent,
    program: Arc<Program>,
    log: Vec<AgentEvent>,
    appends: Vec<Step>,
    /// One ending at a time, as when the store answers at once.
    one_by_one: bool,
    snapshot_bytes: usize,
}

impl Long {
    fn list(count: usize, after: impl Fn(u32) -> Vec<u32>) -> Self {
        let program = crate::program::program(&[vec![crate::program::Act::Argument]]);
        let items = (0..count as u32).map(|n| item(&format!("i{n}"), &after(n))).collect();
        let module = program.hash();
        let first = spawned(fact::Program::List { module, items, on_failure: OnFailure::FailFast, turns: None });
        let id = AgentId::root(first.workload);
        let agent = Agent::born(id, &first, Arc::clone(&program)).expect("the module is its own");
        let (log, appends) = (Vec::new(), Vec::new());
        Self { first, agent, program, log, appends, one_by_one: false, snapshot_bytes: 0 }
    }

    fn run(&mut self, outcome: &Outcome) {
        let mut waiting: VecDeque<fact::Input> = VecDeque::new();
        let mut last = (1, 0);
        let node = NodeId::new("n1").expect("a good name");
        let mut input = Input::Start { node, epoch: Epoch(1) };
        while self.agent.end().is_none() {
            let mut step = self.agent.step(input, NOON, SLICE_FUEL);
            while !self.one_by_one
                && let Some(next) = waiting.pop_front_if(|next| step.takes_in(next))
            {
                step = step.and(self.agent.step(ending(next), NOON, SLICE_FUEL));
            }
            self.log.extend(step.facts.iter().cloned());
            for (_, born) in &step.births {
                let parent = born.parent.expect("a child has a parent");
                let (seq, branch, outcome) = (parent.seq, parent.branch, outcome.clone());
                let (spend, handed_over) = (bill(1, 1), None);
                waiting.push_back(fact::Input::ChildEnded { seq, branch, outcome, spend, handed_over });
            }
            if snapshot_is_due(self.agent.version().0 - last.0, last.1) {
                last = (self.agent.version().0, self.agent.snapshot().len());
                self.snapshot_bytes += last.1;
            }
            let next = if step.more { None } else { waiting.pop_front() };
            input = next.map_or(Input::Continue, ending);
            self.appends.push(step);
        }
    }

    fn replays(&self) {
        let mut twin = Agent::born(self.agent.id(), &self.first, Arc::clone(&self.program)).expect("as before");
        self.log.iter().for_each(|event| twin.replay(event, NOON).expect("AG-3: a replay decides the same"));
        assert_eq!(twin.snapshot(), self.agent.snapshot(), "AG-3: a replay gives the same state");
    }
}

fn ending(input: fact::Input) -> Input {
    let fact::Input::ChildEnded { seq, branch, .. } = &input else { panic!("an ending") };
    Input::Inbox(InputId::child_ended(AgentId::child(AgentId::root(crate::desk::workload()), *seq, *branch)), input)
}

#[test]
fn later_items_get_their_share_of_what_the_first_ones_left() {
    let mut desk = Desk::list(vec![item("a", &[]), item("b", &[0])], OnFailure::FailFast, tokens(100));
    desk.starts();
    let share = |desk: &Desk, seq| desk.seats[&desk.child(seq, 0)].agent.spawned().budget.tokens;
    assert_eq!(share(&desk, 1), Some(Tokens(50)));
    desk.child_ends(1, 0, ok("A"), bill(5, 5));
    assert_eq!(share(&desk, 2), Some(Tokens(90)));
}

#[test]
fn a_list_goes_on_after_a_takeover_in_the_middle() {
    let items = vec![item("a", &[]), item("b", &[0]), item("c", &[1])];
    let mut desk = Desk::list(items, OnFailure::FailFast, Budget::default());
    let root = desk.root;
    desk.starts().taken_over().child_ends(1, 0, ok("A"), bill(1, 1));
    desk.freeze(root);
    desk.taken_over();
    desk.run_to_the_end();
    expect!["succeeded"].assert_eq(&desk.root().agent.state().to_string());
}

#[test]
fn a_list_that_cannot_be_run_is_refused_with_the_reason() {
    let told = |items: &[ListItem]| validate(items).expect_err("it is refused").to_string();
    let mut text = String::new();
    text += &format!("{}\n", told(&[]));
    text += &format!("{}\n", told(&[item("a", &[]), item("a", &[])]));
    text += &format!("{}\n", told(&[item("a", &[7])]));
    text += &format!("{}\n", told(&[item("a", &[0])]));
    text +=
        &format!("{}\n", told(&[item("x", &[1]), item("a", &[2]), item("b", &[3]), item("c", &[1]), item("d", &[])]));
    let mut damaged = item("a", &[]);
    damaged.input = Payload::new([0xff, 0x00].as_slice());
    text += &format!("{}\n", told(&[damaged]));
    text += &format!("{}\n", told(&vec![item("a", &[]); LIST_AGENTS_MAX + 1]));
    expect![[r#"
        the list has no agents
        two agents of the list are called `a`; give each an id of its own
        agent `a` comes after number 7, but the list has only 1 agents
        agents wait for each other: a → a
        agents wait for each other: a → b → c → a
        the input of agent `a` cannot be read
        the list has 10001 agents, more than the 10000 that are allowed; submit several lists
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_chain_as_long_as_a_list_may_be_needs_no_stack() {
    let items: Vec<ListItem> = (0..LIST_AGENTS_MAX as u32)
        .map(|n| item(&format!("i{n}"), &n.checked_sub(1).into_iter().collect::<Vec<_>>()))
        .collect();
    assert_eq!(validate(&items), Ok(()));
    let mut looped = items;
    looped[0].after = vec![LIST_AGENTS_MAX as u32 - 1];
    assert!(validate(&looped).is_err());
}

pub(crate) fn any_list() -> impl Strategy<Value = Vec<ListItem>> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12).prop_map(|after| {
        let items = after.iter().enumerate().map(|(n, after)| {
            // An item may come after any earlier one, so there is no cycle.
            let after: Vec<u32> = after.iter().filter(|_| n > 0).map(|index| index.index(n.max(1)) as u32).collect();
            item(&format!("i{n}"), &after)
        });
        items.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_ends_in_whatever_order_each_item_starts_after_its_dependencies_and_the_list_ends(
        items in any_list(),
        on_failure in prop::sample::select(vec![OnFailure::FailFast, OnFailure::SkipDependents, OnFailure::Continue]),
        choices in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.2)), 12),
    ) {
        let mut desk = Desk::list(items.clone(), on_failure, tokens(1_000));
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
            for (_, _, name) in &running {
                let item = items.iter().find(|item| item.id == *name).expect("only items are started");
                for after in &item.after {
                    let before: Option<&bool> = ended.get(&items[*after as usize].id);
                    prop_assert!(before.is_some_and(|fails| !fails || on_failure == OnFailure::Continue));
                }
            }
            running.retain(|(_, _, name)| !ended.contains_key(name));
            prop_assert!(!running.is_empty(), "nothing runs and it has not ended");
            let (seq, branch, name) = pick.get(&running).clone();
            desk.child_ends(seq, branch, if fails { failed() } else { ok(&name) }, bill(1, 1));
            ended.insert(name, fails);
        }
        prop_assert!(desk.root().agent.end().is_some());
        prop_assert_eq!(outcome(&desk), told_plainly(&items, on_failure, &ended));
        let started = started(&desk).concat();
        let distinct: BTreeSet<&str> = started.iter().copied().collect();
        prop_assert_eq!(started.len(), distinct.len(), "an item was started twice");
    }
}

/// What a list ends with, said from the end: who ended, and whether badly.
pub(crate) fn told_plainly(items: &[ListItem], on_failure: OnFailure, ended: &BTreeMap<String, bool>) -> String {
    let entry = |item: &ListItem| {
        let fails = ended.get(&item.id)?;
        Some(if *fails { format!("{}: err Str(\"refused\")", item.id) } else { format!("{0}: {0}", item.id) })
    };
    let dict = items.iter().filter_map(entry).collect::<Vec<_>>().join(", ");
    let failed = items.iter().find(|item| ended.get(&item.id) == Some(&true));
    let tail = |left_out| match left_out {
        0 => String::new(),
        1 => ", and 1 that comes after it was left out".to_owned(),
        count => format!(", and {count} that come after failed ones were left out"),
    };
    match (failed, on_failure) {
        (None, _) | (_, OnFailure::Continue) => dict,
        (Some(item), OnFailure::FailFast) => format!("refused: agent `{}` failed [{dict}]", item.id),
        (Some(item), OnFailure::SkipDependents) => {
            format!("refused: agent `{}` failed{} [{dict}]", item.id, tail(items.len() - ended.len()))
        }
    }
}

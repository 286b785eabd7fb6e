//! Agents that move between nodes while they live.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nexa_event::fact::AgentEvent;
use nexa_ports::store::{Place, Rows, StoreError};
use nexa_runtime::fence::Fence;
use nexa_runtime::{Given, ReleaseError, Released};
use nexa_types::*;
use nexa_vm::module::Module;
use nexa_vm::value::Value;
use proptest::prelude::*;

use support::cluster::{Switch, Town, name};
use support::model::FakeModel;
use support::store::{Doubt, Way};
use support::{Desk, program, soon, until};

const BUSY: &str = r##"
tool pay(what: str) -> str { source: builtin("sink.pay"), risk: "low", effect: "write" }
agent Clerk { prompt: "Say it." }

flow helper(n: int) -> int uses pay {
    let got: int = receive()
    let paid = pay("help #{n}")
    return got + n
}

flow main(q: str) -> str uses pay {
    let draft = q >> Clerk
    let receipt = pay("first #{draft}")
    let child = spawn helper(1)
    pass 41 to child
    let sum = await child
    let decision = approve("Go on?")
    sleep(10ms)
    let both = q |>> [Clerk, Clerk]
    let again = pay("second #{sum}")
    return "#{draft} #{receipt} #{sum} #{again}"
}
"##;

fn compiled(text: &str) -> Module {
    let result = nexa_lang::compile_text("test.nx", text);
    let shown: Vec<String> = result.diagnostics.iter().map(|diagnostic| format!("{diagnostic:?}")).collect();
    result.module.unwrap_or_else(|| panic!("{shown:#?}"))
}

fn root(workload: WorkloadId) -> AgentId {
    AgentId::root(workload)
}

fn question() -> Vec<Value> {
    vec![Value::Str("tea".into())]
}

fn starts(events: &[AgentEvent]) -> usize {
    events.iter().filter(|event| matches!(event, AgentEvent::EffectStarted { .. })).count()
}

/// A workload on n1 whose only call is in flight.
async fn asking(town: &Town) -> (WorkloadId, AgentId) {
    town.desk.model.hold(true);
    let workload = town.run_on("n1", 1, &program::calls(2), Vec::new()).await;
    soon("the call", town.desk.model.was_asked(1)).await;
    (workload, root(workload))
}

#[tokio::test]
async fn an_agent_moves_at_every_step_and_its_story_stays_the_same() {
    let module = compiled(BUSY);
    let calm = Town::new(FakeModel::echo(2));
    let _calm_node = calm.start("n1").await;
    let workload = calm.run_on("n1", 1, &module, question()).await;
    let outcome = tokio::select! {
        outcome = calm.desk.outcome(workload) => outcome,
        _ = calm.approves(workload) => unreachable!(),
    };
    assert!(outcome.is_ok(), "{outcome:?}");
    let (stories, facts) = (calm.stories(workload).await, calm.desk.events(root(workload)).await.len() as u64);
    assert!(facts > 20, "{stories:#?}");
    let calls = calm.sink.calls();
    assert_eq!(calls.len(), 3);

    for version in 1..=facts {
        let town = Town::new(FakeModel::echo(2));
        for node in ["n1", "n2"] {
            let way = Way::to(&town.desk.store, None);
            way.yields.store(true, Ordering::SeqCst);
            town.start_on(node, way).await;
        }
        let workload = town.run_on("n1", 1, &module, question()).await;
        let moves = async {
            let mut head = town.desk.store.head();
            while town.desk.store.row(root(workload)).await.unwrap().unwrap().version < Version(version) {
                head.changed().await.unwrap();
            }
            town.migrates(root(workload), "n2").await;
            town.desk.outcome(workload).await
        };
        let moved = tokio::select! {
            outcome = moves => outcome,
            _ = town.approves(workload) => unreachable!(),
        };
        assert_eq!(moved, outcome, "moved at {version}");
        assert_eq!(town.stories(workload).await, stories, "moved at {version}");
        assert_eq!(town.sink.calls(), calls, "moved at {version}");
        assert!(town.desk.model.asked().values().all(|attempts| attempts == &[1]), "moved at {version}");
    }
}

#[tokio::test]
async fn a_call_in_flight_is_made_once_and_its_answer_follows_the_agent() {
    let town = Town::new(FakeModel::echo(1));
    let (n1, n2) = (town.start("n1").await, town.start("n2").await);
    let (workload, agent) = asking(&town).await;
    let carrier = town.migrates(agent, "n2").await.unwrap().unwrap();
    assert_eq!((carrier.node.as_str(), carrier.attempt), ("n1", 1));
    let hears = |events: &[AgentEvent]| matches!(events.last(), Some(AgentEvent::TakenOver { carried: Some(_), .. }));
    let mut head = town.desk.store.head();
    while !hears(&town.desk.events(agent).await) {
        soon("the takeover", head.changed()).await.unwrap();
    }
    assert_eq!((n1.load().carried, n1.load().agents, n2.load().agents), (1, 0, 1));
    town.desk.model.hold(false);
    assert_eq!(town.desk.text(workload).await, "<<0>>");
    until("the answer to be forgotten", || n1.load().carried == 0).await;
    assert!(town.desk.model.asked().values().all(|attempts| attempts == &[1]));
    assert_eq!((n1.stats().model_calls, n2.stats().model_calls), (1, 1), "the next one is asked by the new owner");
    assert_eq!(n1.stats().reissued_model_calls + n2.stats().reissued_model_calls, 0);
    let told = town.desk.events(agent).await;
    assert_eq!(starts(&told), 2);
}

#[tokio::test]
async fn an_answer_finds_an_agent_that_has_moved_twice_and_one_that_is_back() {
    for way in [["n2", "n3"], ["n2", "n1"]] {
        let town = Town::new(FakeModel::echo(1));
        let n1 = town.start("n1").await;
        town.start("n2").await;
        town.start("n3").await;
        let (workload, agent) = asking(&town).await;
        for to in way {
            let carrier = town.migrates(agent, to).await.unwrap().unwrap();
            assert_eq!(carrier.node.as_str(), "n1", "it carries it all the way");
        }
        town.desk.model.hold(false);
        assert_eq!(town.desk.text(workload).await, "<<0>>");
        until("the answer to be forgotten", || n1.load().carried == 0).await;
        assert!(town.desk.model.asked().values().all(|attempts| attempts == &[1]));
        assert_eq!(town.owner(agent).await, Some(name(way[1])));
    }
}

#[tokio::test]
async fn what_a_carrier_that_is_gone_had_in_flight_is_asked_again_and_counted() {
    let town = Town::new(FakeModel::echo(1));
    let n1 = town.start("n1").await;
    let n2 = town.start("n2").await;
    let (workload, agent) = asking(&town).await;
    town.migrates(agent, "n2").await.unwrap().unwrap();
    until("it to be there", || n2.load().live == 1).await;
    drop(n1);
    town.kill("n1");
    until("its calls to be gone", || town.desk.model.tokens.lock().unwrap()[0].is_cancelled()).await;
    n2.gone(&name("n1"));
    soon("the second call", town.desk.model.was_asked(2)).await;
    town.desk.model.hold(false);
    assert_eq!(town.desk.text(workload).await, "<<0>>");
    let mut attempts: Vec<Vec<u32>> = town.desk.model.asked().into_values().collect();
    attempts.sort();
    assert_eq!(attempts, [vec![1], vec![1, 2]]);
    assert_eq!(n2.stats().reissued_model_calls, 1);
}

#[tokio::test]
async fn a_call_of_a_tool_whose_carrier_is_gone_is_not_made_again() {
    let module = compiled(
        "tool pay(what: str) -> str { source: builtin(\"sink.pay\"), risk: \"low\", effect: \"write\" }\n\
         flow main() -> str uses pay { return pay(\"once\") }",
    );
    let town = Town::new(FakeModel::echo(1));
    let (n1, n2) = (town.start("n1").await, town.start("n2").await);
    town.sink.hold(true);
    let workload = town.run_on("n1", 1, &module, Vec::new()).await;
    town.sink.was_called(1).await;
    town.migrates(root(workload), "n2").await.unwrap().unwrap();
    drop(n1);
    town.kill("n1");
    n2.gone(&name("n1"));
    assert_eq!(town.desk.failure(workload).await.code, RunCode::OutcomeUnknown);
    assert_eq!(town.sink.calls().into_values().collect::<Vec<_>>(), [[1]]);
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_given_up() {
    let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
    let (n1, n2) = (town.start("n1").await, town.start("n2").await);
    let (workload, agent) = asking(&town).await;
    town.net.cut.store(true, Ordering::SeqCst);
    town.migrates(agent, "n2").await.unwrap().unwrap();
    until("it to be there", || n2.stats().appends == 1).await;
    town.desk.model.hold(false);
    until("the answer to be kept", || n1.load().results_unrecorded == 1).await;
    let clock = town.desk.sim.clone().unwrap();
    let time = async {
        loop {
            clock.advance(Millis(1_000));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        text = town.desk.text(workload) => assert_eq!(text, "<<0>>"),
        () = time => {}
    }
    assert_eq!(n2.stats().reissued_model_calls, 1);
    clock.advance(Millis(60_000));
    until("the answer to be given up", || n1.load().carried == 0 && n1.load().results_unrecorded == 0).await;
}

#[tokio::test]
async fn whoever_takes_over_from_a_target_that_died_asks_again() {
    let town = Town::new(FakeModel::echo(2));
    let (_n1, n2) = (town.start("n1").await, town.start("n2").await);
    let n3 = town.start("n3").await;
    let (workload, agent) = asking(&town).await;
    town.net.cut.store(true, Ordering::SeqCst);
    town.migrates(agent, "n2").await.unwrap().unwrap();
    until("it to be there", || n2.stats().appends == 1).await;
    drop(n2);
    town.kill("n2");
    town.place(agent, &name("n3")).await;
    soon("the second call", town.desk.model.was_asked(2)).await;
    town.desk.model.hold(false);
    assert_eq!(town.desk.text(workload).await, "<<0>>");
    assert_eq!(n3.stats().reissued_model_calls, 1);
}

/// The answer of the first call is as good as that of a second, if it comes first.
#[tokio::test]
async fn a_carried_answer_reaches_an_owner_that_was_not_told_of_it() {
    let town = Town::new(FakeModel::echo(1));
    let n1 = town.start("n1").await;
    let n2 = town.start("n2").await;
    let (workload, agent) = asking(&town).await;
    let released = n1.release(agent, &name("n2")).await.unwrap();
    town.desk.model.hold(false);
    until("the answer", || n1.load().results_unrecorded == 1).await;
    n2.adopt(vec![Given { agent, epoch: released.epoch, carrier: None, trace: None }]).await.unwrap();
    assert_eq!(town.desk.text(workload).await, "<<0>>");
    until("the answer to be forgotten", || n1.load().carried == 0).await;
}

#[tokio::test]
async fn children_beyond_the_room_are_placed_elsewhere_and_report_back() {
    let town = Town::new(FakeModel::echo(4));
    for node in ["n1", "n2", "n3"] {
        town.start(node).await;
    }
    town.net.room.store(1, Ordering::SeqCst);
    let workload = town.run_on("n1", 1, &program::fork(6), Vec::new()).await;
    let text = tokio::select! {
        text = town.desk.text(workload) => text,
        _ = town.leads() => unreachable!(),
    };
    assert!(text.starts_with("<[\"<branch 0>\"") && text.ends_with("\"<branch 5>\"]>"), "{text}");
    let rows = town.desk.store.rows(Rows::Workload(workload), None, 10).await.unwrap();
    let elsewhere = rows.iter().filter(|row| row.node != Some(name("n1"))).count();
    assert!(elsewhere > 0 && rows.iter().all(|row| row.node.is_some()));
    assert!(town.net.wakes.load(Ordering::SeqCst) > 0, "the parent is told across nodes");
}

#[tokio::test]
async fn a_hint_for_an_agent_that_has_left_follows_it() {
    let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
    let (n1, _n2) = (town.start("n1").await, town.start("n2").await);
    let workload = town.run_on("n1", 1, &program::approval(), Vec::new()).await;
    town.desk.reaches(root(workload), AgentState::Waiting(Waiting::Approval)).await;
    town.migrates(root(workload), "n2").await.unwrap();
    town.desk.approve_in_silence(workload, root(workload), Seq(1)).await;
    n1.wake(root(workload)).unwrap();
    assert!(town.desk.outcome(workload).await.is_ok(), "no time passes, so no sweep has found it");
}

/// Releases an agent with a call in flight while the store has doubts; gives what came of it, and the agent's last word.
async fn in_doubt(doubts: &[Doubt]) -> (Result<Released, ReleaseError>, Vec<AgentEvent>) {
    let town = Town::new(FakeModel::echo(1));
    let way = Way::to(&town.desk.store, None);
    let (n1, n2) = (town.start_on("n1", way.clone()).await, town.start("n2").await);
    let (workload, agent) = asking(&town).await;
    way.doubts.lock().unwrap().extend(doubts);
    let released = soon("the release", n1.release(agent, &name("n2"))).await;
    if let Ok(Released { epoch, carrier, .. }) = released.clone() {
        town.tell(&name("n2"), Given { agent, epoch, carrier, trace: None }).await;
    }
    town.desk.model.hold(false);
    assert_eq!(town.desk.text(workload).await, "<<0>>");
    assert!(town.desk.model.asked().values().all(|attempts| attempts == &[1]), "{doubts:?}");
    assert_eq!(n1.stats().quarantined + n2.stats().quarantined, 0);
    (released, town.desk.events(agent).await)
}

fn owners(events: &[AgentEvent]) -> Vec<(&str, u64)> {
    let owner = |event| match event {
        &AgentEvent::Started { ref node, epoch } | &AgentEvent::TakenOver { ref node, epoch, .. } => {
            Some((node.as_str(), epoch.0))
        }
        _ => None,
    };
    events.iter().filter_map(owner).collect()
}

#[tokio::test]
async fn an_agent_whose_row_is_not_changed_stays_and_goes_on() {
    let (released, events) = in_doubt(&[Doubt::Refused]).await;
    assert!(matches!(released, Err(ReleaseError::Store(StoreError::Unavailable { .. }))), "{released:?}");
    assert_eq!(owners(&events), [("n1", 1)]);
}

#[tokio::test]
async fn an_agent_of_which_the_store_did_not_say_that_it_left_has_left() {
    for doubts in [&[Doubt::Lost][..], &[Doubt::Lost, Doubt::Refused, Doubt::Unsaid]] {
        let (released, events) = in_doubt(doubts).await;
        assert_eq!(released.map(|released| released.epoch), Ok(Epoch(2)));
        assert_eq!(owners(&events), [("n1", 1), ("n2", 2)]);
    }
}

#[tokio::test]
async fn an_agent_of_which_the_store_did_not_say_that_it_stays_is_claimed_back() {
    for doubts in [&[Doubt::Unsaid][..], &[Doubt::Unsaid, Doubt::Refused, Doubt::Lost]] {
        let (released, events) = in_doubt(doubts).await;
        assert!(matches!(released, Err(ReleaseError::Store(StoreError::Ambiguous { .. }))), "{released:?}");
        assert_eq!(owners(&events), [("n1", 1), ("n1", 2)]);
    }
}

#[tokio::test]
async fn a_cancel_before_between_and_after_a_migration_is_carried_out() {
    for when in 0..3 {
        let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
        let way = Way::to(&town.desk.store, None);
        let (n1, n2) = (town.start_on("n1", way.clone()).await, town.start("n2").await);
        let (workload, agent) = asking(&town).await;
        let cancels =
            async || town.desk.store.cancel(workload, "a test wants it".into(), town.desk.stamp()).await.unwrap();
        if when == 0 {
            cancels().await;
        }
        way.holds_placing.send_replace(true);
        let (node, to) = (n1.clone(), name("n2"));
        let leaving = tokio::spawn(async move { node.release(agent, &to).await });
        way.placings.subscribe().wait_for(|placings| *placings == 1).await.unwrap();
        if when == 1 {
            cancels().await;
        }
        way.holds_placing.send_replace(false);
        let Released { epoch, carrier, .. } = soon("the release", leaving).await.unwrap().unwrap();
        assert!(carrier.is_some());
        if when == 2 {
            cancels().await;
        }
        n2.adopt(vec![Given { agent, epoch, carrier, trace: None }]).await.unwrap();
        assert_eq!(town.desk.failure(workload).await.code, RunCode::Cancelled, "{when}");
        until("the call to be cancelled", || town.desk.model.tokens.lock().unwrap()[0].is_cancelled()).await;
        until("it to be forgotten", || n1.load().carried == 0).await;
        assert_eq!((n1.load().agents, n1.stats().quarantined, n2.stats().quarantined), (0, 0, 0));
    }
}

/// As after a SIGSTOP that was longer than the lease.
#[tokio::test]
async fn a_node_that_has_lost_an_agent_neither_records_nor_sends_for_it() {
    let town = Town::new(FakeModel::echo(1));
    let n1 = town.start("n1").await;
    let (workload, agent) = asking(&town).await;
    // Its calls are its own: those of the other node go to another endpoint.
    let other = FakeModel::echo(1);
    let ports = nexa_runtime::Ports { model: other.clone(), ..town.ports("n2", town.desk.store.clone()) };
    town.start_with(Town::config("n2"), ports).await;
    town.place(agent, &name("n2")).await;
    assert_eq!(town.desk.text(workload).await, "<<0>>");
    let before = town.desk.events(agent).await;
    town.desk.model.hold(false);
    until("the first to let go", || n1.load().live == 0 && n1.load().agents == 0).await;
    assert_eq!(town.desk.events(agent).await, before);
    assert_eq!(town.desk.model.asked_count(), 1, "nothing was sent by the first any more");
    let mut attempts: Vec<Vec<u32>> = other.asked().into_values().collect();
    attempts.sort();
    assert_eq!(attempts, [[1], [2]]);
}

#[tokio::test]
async fn a_node_that_may_not_send_waits_with_its_ticket_until_it_may() {
    let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
    let fence = Arc::new(Switch::default());
    let n1 = town.start_fenced("n1", fence.clone()).await;
    let workload = town.run_on("n1", 1, &program::one_call(), Vec::new()).await;
    town.desk.reaches(root(workload), AgentState::Waiting(Waiting::Model)).await;
    let clock = town.desk.sim.clone().unwrap();
    for _ in 0..10 {
        clock.advance(Millis(500));
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(town.desk.model.asked_count(), 0);
    let refused = n1.release(root(workload), &name("n2")).await;
    assert!(matches!(refused, Err(ReleaseError::Busy { .. })), "its start is recorded, and was not sent: {refused:?}");
    fence.allow();
    clock.advance(Millis(500));
    assert_eq!(town.desk.text(workload).await, "<hello>");
    assert_eq!(starts(&town.desk.events(root(workload)).await), 1, "by the same ticket");
    assert_eq!(town.desk.model.asked().into_values().collect::<Vec<_>>(), [[1]]);
}

/// As while nobody keeps leases: only what the store has just said counts, and it was slow the first time.
struct Fresh(AtomicUsize);

impl Fence for Fresh {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn may_send(&self, asked: Option<Timestamp>) -> bool {
        asked.is_some() && self.0.fetch_add(1, Ordering::SeqCst) > 0
    }
}

#[tokio::test]
async fn without_a_lease_a_ticket_that_came_late_is_confirmed_by_the_store_or_void() {
    for is_lost in [false, true] {
        let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
        let n1 = town.start_fenced("n1", Arc::new(Fresh(AtomicUsize::new(0)))).await;
        let workload = town.run_on("n1", 1, &program::one_call(), Vec::new()).await;
        let agent = root(workload);
        town.desk.reaches(agent, AgentState::Waiting(Waiting::Model)).await;
        until("it to wait", || n1.stats().steps > 0 && n1.load().calls_in_flight == 0).await;
        if is_lost {
            let row = town.desk.store.row(agent).await.unwrap().unwrap();
            let place = Place { agent, from: row.epoch, node: name("n2") };
            town.desk.store.place(vec![place]).await.unwrap()[0].unwrap();
        }
        let clock = town.desk.sim.clone().unwrap();
        clock.advance(Millis(500));
        if is_lost {
            until("it to let go", || n1.load().live == 0).await;
            assert_eq!(town.desk.model.asked_count(), 0);
        } else {
            assert_eq!(town.desk.text(workload).await, "<hello>");
            assert_eq!(starts(&town.desk.events(agent).await), 1, "by the same ticket");
        }
    }
}

#[tokio::test]
async fn what_is_given_late_or_twice_changes_nothing_and_another_runs_right_is_not_taken() {
    let town = Town::new(FakeModel::echo(1));
    let (n1, n2) = (town.start("n1").await, town.start("n2").await);
    let (workload, agent) = asking(&town).await;
    let Released { epoch, carrier, .. } = n1.release(agent, &name("n2")).await.unwrap();
    for _ in 0..2 {
        n1.adopt(vec![Given { agent, epoch: Epoch(1), carrier: None, trace: None }]).await.unwrap();
        n2.adopt(vec![Given { agent, epoch: Epoch(1), carrier: None, trace: None }]).await.unwrap();
        n2.adopt(vec![Given { agent, epoch, carrier: carrier.clone(), trace: None }]).await.unwrap();
    }
    // Placed on the same name under an epoch that this run was not told of, as if for a later run.
    let other = town.submit(2, &program::one_call(), Vec::new()).await;
    let place = Place { agent: root(other), from: Epoch(0), node: name("n2") };
    town.desk.store.place(vec![place]).await.unwrap()[0].unwrap();
    n2.wake(root(other)).unwrap();
    town.desk.model.hold(false);
    assert_eq!(town.desk.text(workload).await, "<<0>>");
    until("the answer to be forgotten", || n1.load().carried == 0).await;
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    assert_eq!(town.desk.state(root(other)).await, AgentState::Placed);
    assert_eq!((n1.owned(None, 10), n2.owned(None, 10)), (vec![], vec![]));
    n2.adopt(vec![Given { agent: root(other), epoch: Epoch(1), carrier: None, trace: None }]).await.unwrap();
    assert_eq!(town.desk.text(other).await, "<hello>");
}

#[tokio::test]
async fn a_node_takes_over_what_its_earlier_run_has_left_and_nothing_else() {
    let town = Town::new(FakeModel::echo(2));
    let (n1, n2) = (town.start("n1").await, town.start("n2").await);
    town.desk.model.hold(true);
    let mine = town.run_on("n1", 1, &program::calls(2), Vec::new()).await;
    let other = town.run_on("n2", 2, &program::one_call(), Vec::new()).await;
    soon("the calls", town.desk.model.was_asked(2)).await;
    drop(n1);
    town.kill("n1");
    let again = town.start("n1").await;
    soon("the call that was lost", town.desk.model.was_asked(3)).await;
    assert_eq!((again.owned(None, 10), n2.owned(None, 10)), (vec![root(mine)], vec![root(other)]));
    town.desk.model.hold(false);
    assert_eq!((town.desk.text(mine).await, town.desk.text(other).await), ("<<0>>".into(), "<hello>".into()));
    assert_eq!(n2.stats().reissued_model_calls, 0);
}

#[tokio::test]
async fn a_node_that_drains_offers_what_it_carries_before_it_stops() {
    let town = Town::new(FakeModel::echo(1));
    let (n1, _n2) = (town.start("n1").await, town.start("n2").await);
    let (workload, agent) = asking(&town).await;
    town.migrates(agent, "n2").await.unwrap();
    let node = n1.clone();
    let draining = tokio::spawn(async move { node.drain(std::time::Duration::from_secs(20)).await });
    until("it to drain", || n1.load().is_draining).await;
    town.desk.model.hold(false);
    soon("the drain", draining).await.unwrap();
    assert_eq!(town.desk.text(workload).await, "<<0>>");
    assert!(town.desk.model.asked().values().all(|attempts| attempts == &[1]));
}

/// What was deferred runs on after a cancel, also elsewhere; and a call that it made is not made again.
#[tokio::test]
async fn a_call_in_the_cleaning_up_of_a_cancelled_agent_is_made_once() {
    let module = compiled(
        "tool pay(what: str) -> str { source: builtin(\"sink.pay\"), risk: \"low\", effect: \"write\" }\n\
         flow main() -> str uses pay { defer { pay(\"back\") }\n return receive() }",
    );
    for carried in [true, false] {
        let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
        let (n1, n2) = (town.start("n1").await, town.start("n2").await);
        town.sink.hold(true);
        let workload = town.run_on("n1", 1, &module, Vec::new()).await;
        let agent = root(workload);
        town.desk.reaches(agent, AgentState::Waiting(Waiting::Message)).await;
        town.desk.cancel(&n1, workload).await;
        town.sink.was_called(1).await;
        if carried {
            assert!(town.migrates(agent, "n2").await.unwrap().is_some());
        } else {
            town.place(agent, &name("n2")).await;
        }
        until("it to be there", || n2.load().live == 1 || n2.load().steps > 0).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        town.sink.hold(false);
        assert_eq!(town.desk.failure(workload).await.code, RunCode::Cancelled);
        assert_eq!(town.sink.calls().into_values().collect::<Vec<_>>(), [[1]], "carried: {carried}");
        let lost = town.desk.events(agent).await.iter().any(|event| matches!(event, AgentEvent::EffectLost { .. }));
        assert_eq!(lost, !carried);
    }
}

/// The right under which it cleans up stands in no fact but those of what it starts.
#[tokio::test]
async fn the_question_of_a_cancelled_agent_survives_its_node() {
    let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
    let module = compiled("flow main() -> str { defer { approve(\"really?\") }\n return receive() }");
    let n1 = town.start("n1").await;
    let n2 = town.start("n2").await;
    let workload = town.run_on("n1", 1, &module, Vec::new()).await;
    let agent = root(workload);
    town.desk.reaches(agent, AgentState::Waiting(Waiting::Message)).await;
    town.desk.cancel(&n1, workload).await;
    town.desk.reaches(agent, AgentState::Waiting(Waiting::Approval)).await;
    drop(n1);
    town.kill("n1");
    town.place(agent, &name("n2")).await;
    town.desk.approve(&n2, workload, agent, Seq(2)).await;
    assert_eq!(town.desk.failure(workload).await.code, RunCode::Cancelled);
    assert_eq!((n2.stats().faults, n2.stats().quarantined), (0, 0));
}

fn threaded(threads: usize) -> tokio::runtime::Runtime {
    use tokio::runtime::Builder;
    let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.worker_threads(threads).enable_all().build().unwrap()
}

fn any_moves() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, 0..40u8), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wherever_agents_move_everything_ends_once(
        moves in any_moves(),
        lossy in any::<bool>(),
        room in 0..3usize,
        threads in 1..4usize,
    ) {
        threaded(threads).block_on(wander(moves, lossy, room));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_is_wrongly_taken_for_gone_repeats_nothing(
        moves in any_moves(),
        kills in any::<bool>(),
        threads in 1..4usize,
    ) {
        threaded(threads).block_on(accuse(moves, kills));
    }
}

/// The same while agents are given to others behind the backs of their owners, and one node dies.
async fn accuse(moves: Vec<(prop::sample::Index, u8, u8)>, kills: bool) {
    let town = Town::new(FakeModel::echo(2));
    let names = ["n1", "n2", "n3"];
    for node in names {
        let way = Way::to(&town.desk.store, None);
        way.yields.store(true, Ordering::SeqCst);
        town.start_on(node, way).await;
    }
    town.net.lossy.store(true, Ordering::SeqCst);
    let workload = town.run_on("n1", 1, &compiled(BUSY), question()).await;
    let wandering = async {
        for (nth, (which, to, turns)) in moves.into_iter().enumerate() {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            let rows = town.desk.store.rows(Rows::Workload(workload), None, 100).await.unwrap();
            let row = which.get(&rows);
            if kills && nth == 7 {
                town.kill("n2");
                town.net.names().iter().filter_map(|node| town.net.node(node)).for_each(|node| node.gone(&name("n2")));
            } else if row.state.is_terminal() || town.net.node(&name(names[usize::from(to)])).is_none() {
            } else if nth % 2 == 0 {
                let _ = soon("a migration", town.migrate(row.agent, names[usize::from(to)])).await;
            } else {
                let place = Place { agent: row.agent, from: row.epoch, node: name(names[usize::from(to)]) };
                if let Ok(epoch) = town.desk.store.place(vec![place.clone()]).await.unwrap()[0] {
                    town.tell(&place.node, Given { agent: row.agent, epoch, carrier: None, trace: None }).await;
                }
            }
        }
        town.desk.outcome(workload).await
    };
    let outcome = tokio::select! {
        outcome = wandering => outcome,
        _ = town.approves(workload) => unreachable!(),
        _ = town.leads() => unreachable!(),
    };
    if let Outcome::Err(failure) = &outcome {
        let codes: Vec<RunCode> = std::iter::successors(Some(failure), |failure| failure.cause.as_deref())
            .map(|failure| failure.code)
            .collect();
        assert!(codes.contains(&RunCode::OutcomeUnknown), "{failure:?}");
    }
    let calls = town.sink.calls();
    assert!(calls.len() <= 3 && calls.values().all(|attempts| attempts == &[1]), "{calls:?}");
    for (key, mut attempts) in town.desk.model.asked() {
        // What one node sends last, and another first, may come in any order; each is sent once.
        attempts.sort_unstable();
        assert!(attempts.windows(2).all(|pair| pair[0] < pair[1]), "{key}: {attempts:?}");
    }
    let nodes: Vec<_> = town.net.names().iter().filter_map(|node| town.net.node(node)).collect();
    assert!(nodes.iter().all(|node| node.stats().quarantined + node.stats().faults == 0));
}

/// A workload with children, messages, tools and questions, whose agents move all the time.
async fn wander(moves: Vec<(prop::sample::Index, u8, u8)>, lossy: bool, room: usize) {
    let town = Town::new(FakeModel::echo(2));
    let mut nodes = Vec::new();
    for node in ["n1", "n2", "n3"] {
        let way = Way::to(&town.desk.store, None);
        way.yields.store(true, Ordering::SeqCst);
        nodes.push(town.start_on(node, way).await);
    }
    town.net.lossy.store(lossy, Ordering::SeqCst);
    town.net.room.store(room, Ordering::SeqCst);
    let workload = town.run_on("n1", 1, &compiled(BUSY), question()).await;
    let wandering = async {
        for (which, to, turns) in moves {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            let rows = town.desk.store.rows(Rows::Workload(workload), None, 100).await.unwrap();
            let agent = which.get(&rows).agent;
            let _ = soon("a migration", town.migrate(agent, ["n1", "n2", "n3"][usize::from(to)])).await;
        }
        town.desk.outcome(workload).await
    };
    let outcome = tokio::select! {
        outcome = wandering => outcome,
        _ = town.approves(workload) => unreachable!(),
        _ = town.leads() => unreachable!(),
    };
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(town.sink.calls().into_values().collect::<Vec<_>>(), [[1], [1], [1]]);
    assert!(town.desk.model.asked().values().all(|attempts| attempts == &[1]), "{:?}", town.desk.model.asked());
    town.net.lossy.store(false, Ordering::SeqCst);
    until("all to be quiet", || nodes.iter().all(|node| node.load().live == 0 && node.load().carried == 0)).await;
    assert!(nodes.iter().all(|node| node.stats().quarantined + node.stats().faults == 0));
    for row in town.desk.store.rows(Rows::Workload(workload), None, 100).await.unwrap() {
        assert!(row.state == AgentState::Succeeded, "{row:?}");
    }
}

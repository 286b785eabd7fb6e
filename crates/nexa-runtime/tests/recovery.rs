//! Agents that come back: after a takeover, a quarantine, a damaged snapshot, a lost hint, a clock that stood still.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nexa_event::fact::Input;
use nexa_ports::clock::Clock;
use nexa_ports::model::ModelError;
use nexa_ports::store::{Post, Posted};
use nexa_runtime::Node;
use nexa_types::*;
use nexa_vm::codec;
use nexa_vm::value::Value;

use support::clock::{Counting, Halting};
use support::model::FakeModel;
use support::store::Way;
use support::{Desk, config, program, soon, until};

fn root(workload: WorkloadId) -> AgentId {
    AgentId::root(workload)
}

/// A workload whose first call was in flight when its node was lost.
async fn lost_in_flight(desk: &Desk, calls: u32) -> WorkloadId {
    desk.model.hold(true);
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::calls(calls)).await;
    desk.model.was_asked(1).await;
    drop(node);
    workload
}

#[tokio::test]
async fn a_quarantined_agent_that_was_taken_over_can_be_cancelled() {
    let desk = Desk::new(FakeModel::echo(1));
    let workload = lost_in_flight(&desk, 3).await;
    let way = Way::to(&desk.store, None);
    way.panics.store(2, Ordering::SeqCst);
    let node = Node::start(config("n1"), desk.ports(way.clone())).await.unwrap();
    desk.reaches(root(workload), AgentState::Quarantined).await;
    until("it to leave", || node.stats().live_agents == 0).await;
    desk.cancel(&node, workload).await;
    assert_eq!(desk.failure(workload).await.code, RunCode::Cancelled);
}

#[tokio::test]
async fn nobody_runs_before_all_are_taken_over() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let workload = lost_in_flight(&desk, 2).await;
    let clock = desk.sim.clone().unwrap();
    let way = Way::to(&desk.store, None);
    way.holds_placing.send_replace(true);
    let starting = tokio::spawn(Node::start(config("n1"), desk.ports(way.clone())));
    way.placings.subscribe().wait_for(|placings| *placings == 1).await.unwrap();
    // The takeover takes longer than a sweep would wait.
    for _ in 0..200 {
        clock.advance(Millis(100));
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.model.asked_count(), 1, "nothing is sent under a right that is about to be raised");
    way.holds_placing.send_replace(false);
    let node = soon("the start", starting).await.unwrap().unwrap();
    desk.model.hold(false);
    assert_eq!(desk.text(workload).await, "<<0>>");
    assert_eq!(node.stats().quarantined, 0);
    let mut attempts: Vec<Vec<u32>> = desk.model.asked().into_values().collect();
    attempts.sort();
    assert_eq!(attempts, [vec![1], vec![1, 2]], "what was in flight was sent again, as a second attempt");
}

/// The calls of a node that stops are cancelled, which is nothing that its agents may hear of.
#[tokio::test]
async fn a_stop_in_the_middle_of_an_append_cancels_no_agent() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let (node, way) = desk.start_mortal(None).await;
    let workload = desk.run(&node, 1, &program::calls(2)).await;
    desk.model.was_asked(1).await;
    // It takes a message, which its next request will end with, while its call is in flight, and the store takes its time.
    way.holds_appends.send_replace(true);
    let message = Input::Message { from: "ada".into(), value: codec::encode(&Value::Str("go on".into())) };
    let post = Post { to: root(workload), id: InputId::from_bytes([9; 16]), input: message, trace: None };
    assert!(matches!(desk.store.post(post, desk.stamp()).await.unwrap(), Posted::Accepted { .. }));
    node.wake(root(workload)).unwrap();
    soon("the append", way.held_appends.subscribe().wait_for(|held| *held == 1)).await.unwrap();
    drop(node);
    until("the call to be cancelled", || desk.model.tokens.lock().unwrap()[0].is_cancelled()).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    way.holds_appends.send_replace(false);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.recorded_answers().await, [], "nobody has answered");
    desk.model.hold(false);
    let _node = desk.start(config("n1")).await;
    assert_eq!(desk.text(workload).await, "<go on>");
}

#[tokio::test]
async fn a_cancel_in_the_middle_of_a_takeover_is_carried_out() {
    let desk = Desk::new(FakeModel::echo(1));
    let workload = lost_in_flight(&desk, 2).await;
    drop(desk.start(config("n1")).await);
    let way = Way::to(&desk.store, None);
    way.holds_placing.send_replace(true);
    let starting = tokio::spawn(Node::start(config("n1"), desk.ports(way.clone())));
    way.placings.subscribe().wait_for(|placings| *placings == 1).await.unwrap();
    desk.store.cancel(workload, "a test wants it".into(), desk.stamp()).await.unwrap();
    way.holds_placing.send_replace(false);
    let _node = soon("the start", starting).await.unwrap().unwrap();
    assert_eq!(desk.failure(workload).await.code, RunCode::Cancelled);
}

#[tokio::test]
async fn a_paused_agent_goes_on_although_the_clock_stood_still() {
    let clock = Halting::new();
    let desk = Desk { clock: clock.clone(), ..Desk::new(FakeModel::echo(1)) };
    desk.model.hold(true);
    let (node, way) = desk.start_mortal(None).await;
    let workload = desk.run(&node, 1, &program::calls(4)).await;
    desk.model.was_asked(1).await;
    way.away.store(true, Ordering::SeqCst);
    desk.model.hold(false);
    way.refused.subscribe().wait_for(|refused| *refused >= 1).await.unwrap();
    clock.halt(Duration::from_millis(300));
    way.away.store(false, Ordering::SeqCst);
    assert_eq!(desk.text(workload).await, "<<<<0>>>>");
}

#[tokio::test]
async fn a_paused_lane_opens_although_the_clock_stood_still() {
    let clock = Halting::new();
    let answers = AtomicU64::new(0);
    let halting = clock.clone();
    let model = FakeModel::with(1, move |prompt| {
        if answers.fetch_add(1, Ordering::SeqCst) > 0 {
            return Ok(prompt.to_owned());
        }
        halting.halt(Duration::from_millis(300));
        Err(ModelError { retry_after: Some(Millis(20)), ..ModelError::new(RunCode::RateLimited, "slow down") })
    });
    let desk = Desk { clock, ..Desk::new(model) };
    desk.model.hold(true);
    let node = desk.start(config("n1")).await;
    desk.run(&node, 1, &program::one_call()).await;
    desk.model.was_asked(1).await;
    let second = desk.run(&node, 2, &program::one_call()).await;
    until("the second to wait", || node.stats().model_calls_waiting == 1).await;
    desk.model.hold(false);
    assert_eq!(desk.text(second).await, "hello");
}

#[tokio::test]
async fn a_damaged_snapshot_costs_a_replay_only() {
    let desk = Desk::new(FakeModel::echo(1));
    let workload = lost_in_flight(&desk, 3).await;
    desk.model.hold(false);
    let way = Way::to(&desk.store, None);
    way.damages_snapshots.store(true, Ordering::SeqCst);
    let node = Node::start(config("n1"), desk.ports(way)).await.unwrap();
    assert_eq!(desk.text(workload).await, "<<<0>>>");
    assert_eq!(node.stats().quarantined, 0);
}

#[tokio::test]
async fn an_answer_that_was_posted_in_time_beats_the_expiry() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::approval_within(5_000)).await;
    desk.reaches(root(workload), AgentState::Waiting(Waiting::Approval)).await;
    until("its timer", || node.stats().timers == 1).await;
    desk.approve_in_silence(workload, root(workload), Seq(1)).await;
    desk.sim.clone().unwrap().advance(Millis(5_000));
    let outcome = desk.outcome(workload).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn a_question_that_nobody_answers_expires() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::approval_within(5_000)).await;
    desk.reaches(root(workload), AgentState::Waiting(Waiting::Approval)).await;
    until("its timer", || node.stats().timers == 1).await;
    desk.sim.clone().unwrap().advance(Millis(5_000));
    assert_eq!(desk.failure(workload).await.code, RunCode::ApprovalTimeout);
}

#[tokio::test]
async fn a_cancel_whose_hint_got_lost_reaches_an_agent_that_computes() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(nexa_runtime::NodeConfig { sweep_every: Millis(20), ..config("n1") }).await;
    let workload = desk.run(&node, 1, &program::spin()).await;
    desk.reaches(root(workload), AgentState::Running).await;
    desk.store.cancel(workload, "a test wants it".into(), desk.stamp()).await.unwrap();
    assert_eq!(desk.failure(workload).await.code, RunCode::Cancelled);
}

/// Looks all the time, and notes the longest time in which it could not.
fn longest_gap() -> Arc<AtomicU64> {
    let gap = Arc::new(AtomicU64::new(0));
    let noted = gap.clone();
    tokio::spawn(async move {
        while Arc::strong_count(&noted) > 1 {
            let before = Instant::now();
            tokio::task::yield_now().await;
            noted.fetch_max(u64::try_from(before.elapsed().as_micros()).unwrap(), Ordering::SeqCst);
        }
    });
    gap
}

#[tokio::test]
async fn a_long_replay_lets_others_run() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let node = desk.start(config("n1")).await;
    desk.run(&node, 1, &program::counts_and_asks(8_000_000)).await;
    let began = Instant::now();
    desk.model.was_asked(1).await;
    let computing = began.elapsed();
    drop(node);
    let gap = longest_gap();
    let _node = desk.start(config("n1")).await;
    desk.model.was_asked(2).await;
    let gap = Duration::from_micros(gap.load(Ordering::SeqCst));
    assert!(gap < computing / 3, "others waited for {gap:?} while {computing:?} of computing was repeated");
}

#[tokio::test]
async fn an_agent_that_asks_for_a_full_lane_again_and_again_waits_once() {
    let mut desk = Desk::with_still_clock(FakeModel::echo(1));
    let clock = Counting::on(desk.clock.clone());
    desk.clock = clock.clone() as Arc<dyn Clock>;
    desk.model.hold(true);
    let limits = nexa_runtime::NodeConfig { model_reservations_max: 1, ..config("n1") };
    let node = desk.start(limits).await;
    let mut workloads = BTreeMap::new();
    for number in 1..=3 {
        workloads.insert(number, desk.run(&node, number, &program::one_call()).await);
        let agent = root(workloads[&number]);
        desk.reaches(agent, AgentState::Waiting(Waiting::Model)).await;
    }
    until("one to fly and one to wait", || node.stats().model_calls_waiting == 1).await;
    let before = clock.waiting();
    for _ in 0..100 {
        for workload in workloads.values() {
            node.wake(root(*workload)).unwrap();
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    let after = clock.waiting();
    assert!(after <= before + 2, "{before} waits became {after}");
    desk.model.hold(false);
    let done = async {
        for workload in workloads.values() {
            assert_eq!(desk.text(*workload).await, "<hello>");
        }
    };
    let time = async {
        loop {
            desk.sim.as_ref().unwrap().advance(Millis(100));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = done => {}
        () = time => {}
    }
}

#[tokio::test]
async fn a_node_whose_service_was_given_up_says_so() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let (node, way) = desk.start_mortal(None).await;
    assert!(!node.stats().has_failed);
    way.rows_panic.store(true, Ordering::SeqCst);
    let clock = desk.sim.clone().unwrap();
    let time = async {
        loop {
            clock.advance(Millis(500));
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        () = soon("the failure", node.failed()) => {}
        () = time => {}
    }
    assert!(node.stats().has_failed);
}

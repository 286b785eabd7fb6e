//! Agents on a node whose world does not behave: crashes at every append, a store that is away or forgets to answer,
//! owners that come and go, code that panics.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::sync::atomic::Ordering;

use nexa_event::fact::AgentEvent;
use nexa_ports::store::{Place, StoreError};
use nexa_runtime::Node;
use nexa_types::*;
use nexa_vm::module::Module;

use support::job::Job;
use support::model::FakeModel;
use support::store::{Death, Way};
use support::{Desk, config, program, soon, until};

fn root(workload: WorkloadId) -> AgentId {
    AgentId::root(workload)
}

fn job(module: Module) -> Job {
    Job { module, args: Vec::new(), model: Box::new(|| FakeModel::echo(2)) }
}

#[tokio::test]
async fn a_chain_goes_on_after_a_death_at_any_append() {
    job(program::calls(6)).survives_a_death_at_any_append().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_fork_goes_on_after_a_death_at_any_append() {
    job(program::fork(3)).survives_a_death_at_any_append().await;
}

#[tokio::test]
async fn deaths_in_a_row_lose_nothing() {
    let module = program::calls(30);
    let (outcome, _) = job(module.clone()).undisturbed().await;
    let desk = Desk::new(FakeModel::echo(2));
    let workload = desk.submit(1, &module).await;
    for life in 0..6 {
        let death = if life % 2 == 0 { Death::After(2) } else { Death::Before(2) };
        let (node, way) = desk.start_mortal(Some(death)).await;
        soon("death", way.died()).await;
        drop(node);
    }
    let _last = desk.start(config("n1")).await;
    assert_eq!(desk.outcome(workload).await, outcome);
}

#[tokio::test]
async fn an_agent_with_another_owner_stops_here_and_changes_nothing() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::calls(3)).await;
    desk.model.was_asked(1).await;
    let place = Place { agent: root(workload), from: Epoch(1), node: NodeId::new("n2").unwrap() };
    desk.store.place(vec![place]).await.unwrap()[0].unwrap();
    let before = desk.events(root(workload)).await;
    desk.model.hold(false);
    until("the old owner to let go", || node.stats().live_agents == 0).await;
    assert_eq!(desk.events(root(workload)).await, before);
    assert_eq!(node.stats().model_calls_in_flight, 0);
}

#[tokio::test]
async fn a_second_node_of_the_same_name_takes_over_and_the_first_stops() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let first = desk.start(config("n1")).await;
    let workload = desk.run(&first, 1, &program::calls(3)).await;
    desk.model.was_asked(1).await;
    let second = desk.start(config("n1")).await;
    first.wake(root(workload)).unwrap();
    desk.model.hold(false);
    assert_eq!(desk.text(workload).await, "<<<0>>>");
    until("both to be empty", || first.stats().live_agents + second.stats().live_agents == 0).await;
    assert_eq!(first.stats().quarantined + second.stats().quarantined, 0);
    assert_eq!(desk.model.asked_count(), 4, "the call that was in flight was sent again, once");
}

#[tokio::test]
async fn a_replaced_node_does_not_take_up_the_right_of_its_successor() {
    let desk = Desk::new(FakeModel::echo(1));
    let first = desk.start(config("n1")).await;
    let workload = desk.run(&first, 1, &program::approval()).await;
    desk.reaches(root(workload), AgentState::Waiting(Waiting::Approval)).await;
    let second = desk.start(config("n1")).await;
    first.wake(root(workload)).unwrap();
    desk.approve(&first, workload, root(workload), Seq(1)).await;
    until("the first to let go", || first.stats().live_agents == 0).await;
    first.wake(root(workload)).unwrap();
    until("the first to let go again", || first.stats().live_agents == 0).await;
    assert_eq!(desk.state(root(workload)).await, AgentState::Waiting(Waiting::Approval));
    second.wake(root(workload)).unwrap();
    assert!(desk.outcome(workload).await.is_ok());
}

async fn paused(desk: &Desk) -> (Node, std::sync::Arc<Way>, WorkloadId) {
    desk.model.hold(true);
    let (node, way) = desk.start_mortal(None).await;
    let workload = desk.run(&node, 1, &program::calls(4)).await;
    desk.model.was_asked(1).await;
    way.away.store(true, Ordering::SeqCst);
    desk.model.hold(false);
    way.refused.subscribe().wait_for(|refused| *refused >= 2).await.unwrap();
    (node, way, workload)
}

#[tokio::test]
async fn while_the_store_is_away_agents_pause_and_then_go_on() {
    let desk = Desk::new(FakeModel::echo(1));
    let (node, way, workload) = soon("the pause", paused(&desk)).await;
    assert_eq!(desk.model.asked_count(), 1, "nothing is sent without a record");
    assert_eq!(node.stats().results_unrecorded, 1, "the answer is kept");
    way.away.store(false, Ordering::SeqCst);
    assert_eq!(desk.text(workload).await, "<<<<0>>>>");
    assert_eq!(desk.model.asked_count(), 4);
    assert_eq!(node.stats().faults, 0);
}

#[tokio::test]
async fn a_store_that_is_away_at_the_first_reading_is_waited_for() {
    let desk = Desk::new(FakeModel::echo(1));
    let (node, way) = desk.start_mortal(None).await;
    way.away.store(true, Ordering::SeqCst);
    let workload = desk.run(&node, 1, &program::one_call()).await;
    way.refused.subscribe().wait_for(|refused| *refused >= 3).await.unwrap();
    way.away.store(false, Ordering::SeqCst);
    assert_eq!(desk.text(workload).await, "<hello>");
}

#[tokio::test]
async fn a_lost_answer_of_the_store_repeats_nothing() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    desk.model.hold(true);
    let workload = desk.run(&node, 1, &program::calls(3)).await;
    desk.model.was_asked(1).await;
    desk.memory.lose_next_answer();
    desk.model.hold(false);
    assert_eq!(desk.text(workload).await, "<<<0>>>");
    assert_eq!(desk.model.asked_count(), 3);
    let starts = desk.events(root(workload)).await;
    assert_eq!(starts.iter().filter(|event| matches!(event, AgentEvent::EffectStarted { .. })).count(), 3);
}

#[tokio::test]
async fn a_full_disk_pauses_too() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    desk.model.hold(true);
    let workload = desk.run(&node, 1, &program::calls(2)).await;
    desk.model.was_asked(1).await;
    desk.memory.fail_next(StoreError::DiskFull);
    desk.model.hold(false);
    assert_eq!(desk.text(workload).await, "<<0>>");
    assert_eq!(desk.model.asked_count(), 2);
}

#[tokio::test]
async fn one_panic_restarts_an_agent_and_buys_nothing_twice() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let (node, way) = desk.start_mortal(None).await;
    let workload = desk.run(&node, 1, &program::calls(3)).await;
    desk.model.was_asked(1).await;
    way.panics.store(1, Ordering::SeqCst);
    desk.model.hold(false);
    assert_eq!(desk.text(workload).await, "<<<0>>>");
    assert_eq!((node.stats().panics, node.stats().restarts, node.stats().quarantined), (1, 1, 0));
    assert_eq!(desk.model.asked_count(), 3, "the answer in hand has survived the panic");
}

#[tokio::test]
async fn the_second_panic_quarantines_an_agent_and_others_go_on() {
    let desk = Desk::new(FakeModel::echo(1));
    let (node, way) = desk.start_mortal(None).await;
    way.panics.store(2, Ordering::SeqCst);
    let poisoned = desk.run(&node, 1, &program::one_call()).await;
    desk.reaches(root(poisoned), AgentState::Quarantined).await;
    let events = desk.events(root(poisoned)).await;
    assert!(matches!(events.last(), Some(AgentEvent::Quarantined { reason }) if reason.contains("a test wants it")));
    until("it to leave", || node.stats().live_agents == 0).await;
    assert_eq!((node.stats().panics, node.stats().quarantined), (2, 1));
    let healthy = desk.run(&node, 2, &program::one_call()).await;
    assert_eq!(desk.text(healthy).await, "<hello>");
    node.wake(root(poisoned)).unwrap();
    until("it to leave again", || node.stats().live_agents == 0).await;
    assert_eq!(desk.state(root(poisoned)).await, AgentState::Quarantined, "nobody runs it");
    desk.cancel(&node, poisoned).await;
    assert_eq!(desk.failure(poisoned).await.code, RunCode::Cancelled, "but it can be cancelled");
}

#[tokio::test]
async fn a_cancel_that_came_while_the_node_was_down_is_heard_at_its_start() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::fork(3)).await;
    desk.model.was_asked(1).await;
    drop(node);
    desk.store.cancel(workload, "a test wants it".into(), desk.stamp()).await.unwrap();
    let asked = desk.model.asked_count();
    let node = desk.start(config("n1")).await;
    assert_eq!(desk.failure(workload).await.code, RunCode::Cancelled);
    until("every agent to leave", || node.stats().live_agents == 0).await;
    assert_eq!(desk.model.asked_count(), asked, "nothing is sent after an acknowledged cancel");
    for row in desk.store.rows(nexa_ports::store::Rows::Workload(workload), None, 10).await.unwrap() {
        assert_eq!(row.state, AgentState::Cancelled);
    }
}

#[tokio::test]
async fn a_program_that_nobody_put_quarantines_its_agent_after_some_tries() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.submit_program("n1", 1, ModuleHash::from_bytes([9; 32]), 0, Vec::new()).await;
    node.wake(root(workload)).unwrap();
    let clock = desk.sim.clone().unwrap();
    until("quarantine", || {
        clock.advance(Millis(10));
        node.stats().quarantined == 1
    })
    .await;
    desk.reaches(root(workload), AgentState::Quarantined).await;
    let events = desk.events(root(workload)).await;
    let Some(AgentEvent::Quarantined { reason }) = events.last() else { panic!("{events:?}") };
    assert!(reason.contains("there is no program m-0909"), "{reason}");
    assert_eq!((node.stats().faults, node.stats().restarts, node.stats().panics), (6, 5, 0));
}

#[tokio::test]
async fn facts_that_an_agent_cannot_have_written_quarantine_it() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    desk.model.hold(true);
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::calls(3)).await;
    desk.model.was_asked(1).await;
    let row = desk.store.row(root(workload)).await.unwrap().unwrap();
    let value = Payload::new(vec![1, 0]);
    let strange = AgentEvent::Emitted { seq: Seq(1), channel: "main".into(), value };
    desk.write_as_owner(&row, strange).await;
    desk.model.hold(false);
    let clock = desk.sim.clone().unwrap();
    until("quarantine", || {
        clock.advance(Millis(10));
        node.stats().quarantined == 1
    })
    .await;
    desk.reaches(root(workload), AgentState::Quarantined).await;
    let events = desk.events(root(workload)).await;
    let Some(AgentEvent::Quarantined { reason }) = events.last() else { panic!("{events:?}") };
    assert!(reason.contains("the log has"), "{reason}");
    assert_eq!(desk.model.asked_count(), 1, "nothing was sent on doubtful ground");
}

#[tokio::test]
async fn a_long_history_is_read_from_its_snapshot() {
    let module = program::calls(120);
    let (outcome, appends) = job(module.clone()).undisturbed().await;
    let desk = Desk::new(FakeModel::echo(2));
    let (node, way) = desk.start_mortal(Some(Death::After(appends - 20))).await;
    let workload = desk.run(&node, 1, &module).await;
    soon("death", way.died()).await;
    drop(node);
    let (version, _) = desk.store.snapshot(root(workload)).await.unwrap().expect("more than 256 events");
    assert!(version.0 >= 256, "{version}");
    let _node = desk.start(config("n1")).await;
    assert_eq!(desk.outcome(workload).await, outcome);
}

#[tokio::test]
async fn a_dropped_node_leaves_nothing_running() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let (node, way) = desk.start_mortal(None).await;
    let workload = desk.run(&node, 1, &program::fork(5)).await;
    desk.run(&node, 2, &program::spin()).await;
    desk.run(&node, 3, &program::sleeper(60_000)).await;
    desk.model.was_asked(1).await;
    desk.reaches(root(workload), AgentState::Waiting(Waiting::Children)).await;
    drop(node);
    until("everything to end", || std::sync::Arc::strong_count(&way) == 1).await;
    until("the call to end", || std::sync::Arc::strong_count(&desk.model) == 1).await;
}

#[test]
fn panics_unwind_in_the_profile_that_these_tests_run_in() {
    let caught = std::panic::catch_unwind(|| panic!("a test wants it"));
    assert!(caught.is_err(), "supervision needs unwinding; see the profiles in the workspace's Cargo.toml");
}

#[tokio::test]
async fn a_damaged_snapshot_costs_a_replay_and_nothing_else() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let (node, way) = desk.start_mortal(None).await;
    let workload = desk.run(&node, 1, &program::calls(3)).await;
    desk.model.was_asked(1).await;
    drop(node);
    drop(way);
    let version = desk.store.row(root(workload)).await.unwrap().unwrap().version;
    desk.store.put_snapshot(root(workload), version, b"NXA1 nonsense".to_vec()).await.unwrap();
    desk.model.hold(false);
    let _node = desk.start(config("n1")).await;
    assert_eq!(desk.text(workload).await, "<<<0>>>");
}

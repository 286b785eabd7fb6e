//! Agents on a node whose world behaves.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use nexa_ports::model::ModelError;
use nexa_runtime::{Live, LiveKind, NodeConfig, ProgramError};
use nexa_types::*;

use support::model::FakeModel;
use support::{Desk, config, program, soon, until};

fn root(workload: WorkloadId) -> AgentId {
    AgentId::root(workload)
}

#[tokio::test]
async fn an_agent_runs_to_its_end_in_two_appends() {
    let desk = Desk::new(FakeModel::echo(4));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::one_call()).await;
    assert_eq!(desk.text(workload).await, "<hello>");
    let events: Vec<String> = desk.events(root(workload)).await.iter().map(nexa_agent::describe).collect();
    assert_eq!(events.len(), 6, "{events:#?}");
    assert_eq!(desk.state(root(workload)).await, AgentState::Succeeded);
    until("the agent to leave memory", || node.stats().live_agents == 0).await;
    let stats = node.stats();
    assert_eq!((stats.model_calls, stats.reissued_model_calls, stats.appends), (1, 0, 2));
}

#[tokio::test]
async fn a_chain_of_calls_takes_one_append_a_call() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::calls(20)).await;
    assert_eq!(desk.text(workload).await, format!("{}0{}", "<".repeat(20), ">".repeat(20)));
    until("the last act", || node.stats().live_agents == 0).await;
    assert_eq!(node.stats().appends, 21, "done(k), intent(k + 1) and started(k + 1) share an append");
}

#[tokio::test]
async fn a_fork_runs_its_branches_as_agents_and_merges_what_they_say() {
    let desk = Desk::new(FakeModel::echo(2));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::fork(3)).await;
    assert_eq!(desk.text(workload).await, r#"<["<branch 0>","<branch 1>","<branch 2>"]>"#);
    let rows = desk.store.rows(nexa_ports::store::Rows::Workload(workload), None, 10).await.unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.state == AgentState::Succeeded));
    desk.asks_are_in_order();
}

#[tokio::test]
async fn with_one_slot_many_agents_take_turns_and_none_is_lost() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::fork(40)).await;
    assert!(desk.text(workload).await.contains("<branch 39>"));
    assert_eq!(node.stats().model_calls, 41);
}

#[tokio::test]
async fn few_seats_are_enough_for_many_agents() {
    let desk = Desk::new(FakeModel::echo(4));
    let node = desk.start(NodeConfig { live_agents_max: 2, loading_agents_max: 1, ..config("n1") }).await;
    let first = desk.run(&node, 1, &program::fork(20)).await;
    let second = desk.run(&node, 2, &program::fork(20)).await;
    assert!(desk.text(first).await.contains("<branch 19>"));
    assert!(desk.text(second).await.contains("<branch 19>"));
    assert_eq!(node.stats().model_calls, 42);
    assert_eq!(node.stats().reissued_model_calls, 0);
}

#[tokio::test]
async fn a_failing_model_is_the_agents_failure() {
    let model = FakeModel::with(1, |_| Err(ModelError::new(RunCode::Refused, "not this")));
    let desk = Desk::new(model);
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::one_call()).await;
    let failure = desk.failure(workload).await;
    assert_eq!((failure.code, failure.message.as_str()), (RunCode::Refused, "not this"));
    assert_eq!(desk.state(root(workload)).await, AgentState::Failed);
}

#[tokio::test]
async fn a_model_that_panics_fails_one_agent_and_not_the_node() {
    let model = FakeModel::with(1, |prompt| if prompt == "hello" { panic!("bug") } else { Ok("fine".into()) });
    let desk = Desk::new(model);
    let node = desk.start(config("n1")).await;
    let first = desk.run(&node, 1, &program::one_call()).await;
    assert_eq!(desk.failure(first).await.code, RunCode::Unavailable);
    let second = desk.run(&node, 2, &program::calls(1)).await;
    assert_eq!(desk.text(second).await, "fine");
    assert_eq!((node.stats().adapter_panics, node.stats().panics), (1, 0));
}

#[tokio::test]
async fn pieces_of_an_answer_and_log_lines_reach_who_listens() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.submit(1, &program::one_call()).await;
    let mut live = node.live().subscribe(workload);
    node.wake(root(workload)).unwrap();
    let mut text = String::new();
    while text != "<hello>" {
        let Some(Live::Piece(piece)) = soon("a piece", live.next()).await else { panic!("nothing was lost") };
        assert_eq!((piece.kind, piece.seq, piece.attempt), (LiveKind::Text, Seq(1), 1));
        assert_eq!((&*piece.name, piece.offset), ("main", text.len() as u64));
        text.push_str(&piece.text);
    }
    let workload = desk.submit(2, &program::sleeper(1_000)).await;
    let mut live = node.live().subscribe(workload);
    node.wake(root(workload)).unwrap();
    let Some(Live::Piece(piece)) = soon("a line", live.next()).await else { panic!("nothing was lost") };
    assert_eq!((piece.kind, &*piece.text), (LiveKind::Log, "going to sleep"));
}

#[tokio::test]
async fn a_sleeping_agent_leaves_memory_and_comes_back_when_it_is_due() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::sleeper(60_000)).await;
    desk.reaches(root(workload), AgentState::Waiting(Waiting::Timer)).await;
    let clock = desk.sim.clone().unwrap();
    until("dormancy", || {
        clock.advance(Millis(100));
        node.stats().live_agents == 0
    })
    .await;
    assert_eq!((node.stats().dormant_agents, node.stats().timers), (1, 1));
    assert!(desk.store.snapshot(root(workload)).await.unwrap().is_some(), "it left with a snapshot");
    clock.advance(Millis(60_000));
    assert_eq!(desk.text(workload).await, "awake");
    until("nobody to be left", || node.stats().live_agents == 0).await;
    assert_eq!((node.stats().dormant_agents, node.stats().timers), (0, 0));
}

/// C44: an agent that waits for a person needs no memory of its own.
#[tokio::test]
async fn an_answered_approval_wakes_its_agent_also_from_dormancy() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::approval()).await;
    desk.reaches(root(workload), AgentState::Waiting(Waiting::Approval)).await;
    let clock = desk.sim.clone().unwrap();
    until("dormancy", || {
        clock.advance(Millis(100));
        node.stats().live_agents == 0
    })
    .await;
    desk.approve(&node, workload, root(workload), Seq(1)).await;
    assert!(desk.outcome(workload).await.is_ok());
}

#[tokio::test]
async fn a_lost_hint_is_made_good_by_the_sweep() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.submit(1, &program::one_call()).await;
    let clock = desk.sim.clone().unwrap();
    until("the sweep", || {
        clock.advance(Millis(50));
        node.stats().steps > 0
    })
    .await;
    assert_eq!(desk.text(workload).await, "<hello>");
}

#[tokio::test]
async fn a_lost_hint_for_an_agent_in_memory_is_made_good_by_the_sweep_too() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let (limits, clock) = (config("n1"), desk.sim.clone().unwrap());
    assert!(limits.sweep_every < limits.idle_before_dormant, "or it would have left memory by then");
    let (sweep_every, node) = (limits.sweep_every, desk.start(limits).await);
    let workload = desk.run(&node, 1, &program::approval()).await;
    until("it to have nothing to do", || node.stats().idle_agents == 1).await;
    desk.approve_in_silence(workload, root(workload), Seq(1)).await;
    clock.advance(sweep_every);
    assert!(desk.outcome(workload).await.is_ok());
}

#[tokio::test]
async fn a_cancel_reaches_the_call_in_flight_and_ends_the_agent() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::fork(3)).await;
    desk.model.was_asked(1).await;
    desk.cancel(&node, workload).await;
    assert_eq!(desk.failure(workload).await.code, RunCode::Cancelled);
    until("every agent to leave", || node.stats().live_agents == 0).await;
    for row in desk.store.rows(nexa_ports::store::Rows::Workload(workload), None, 10).await.unwrap() {
        assert_eq!(row.state, AgentState::Cancelled);
    }
    assert!(desk.model.tokens.lock().unwrap().iter().all(|token| token.is_cancelled()));
    let stats = node.stats();
    assert_eq!((stats.model_calls_in_flight, stats.model_calls_waiting, stats.results_unrecorded), (0, 0, 0));
}

#[tokio::test]
async fn a_cancel_interrupts_an_endless_loop_and_others_have_their_turns_meanwhile() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let endless = desk.run(&node, 1, &program::spin()).await;
    let other = desk.run(&node, 2, &program::calls(3)).await;
    assert_eq!(desk.text(other).await, "<<<0>>>");
    desk.cancel(&node, endless).await;
    assert_eq!(desk.failure(endless).await.code, RunCode::Cancelled);
}

#[tokio::test]
async fn two_nodes_in_one_process_do_not_disturb_each_other() {
    let (here, there) = (Desk::new(FakeModel::echo(2)), Desk::new(FakeModel::echo(2)));
    let (first, second) = (here.start(config("n1")).await, there.start(config("n1")).await);
    let one = here.run(&first, 1, &program::fork(5)).await;
    let two = there.run(&second, 1, &program::fork(5)).await;
    assert_eq!(one, two, "even the ids are the same");
    assert_eq!(here.text(one).await, there.text(two).await);
    drop(first);
    let more = there.run(&second, 2, &program::calls(2)).await;
    assert_eq!(there.text(more).await, "<<0>>");
    assert_eq!((here.model.asked_count(), there.model.asked_count()), (6, 8));
}

#[tokio::test]
async fn a_drained_node_records_what_is_in_flight_and_begins_nothing_new() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::calls(3)).await;
    desk.model.was_asked(1).await;
    let draining = tokio::spawn({
        let node = node.clone();
        async move { node.drain(Duration::from_secs(10)).await }
    });
    desk.model.hold(false);
    soon("the drain", draining).await.unwrap();
    assert_eq!(desk.model.asked_count(), 1);
    assert_eq!(desk.recorded_answers().await.len(), 1);
    assert!(desk.store.snapshot(root(workload)).await.unwrap().is_some());
    drop(node);
    let _next = desk.start(config("n1")).await;
    assert_eq!(desk.text(workload).await, "<<<0>>>");
    assert_eq!(desk.model.asked_count(), 3, "nothing was asked twice");
}

#[tokio::test]
async fn a_program_is_loaded_once_and_an_unknown_one_says_so() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let missing = ModuleHash::from_bytes([9; 32]);
    let error = node.program(&TenantId::local(), missing).await.unwrap_err();
    assert_eq!(error, ProgramError::Unknown { module: missing });
    let module = program::one_call();
    desk.submit(1, &module).await;
    let facts = desk.store.scan(None, GlobalSeq(0), 100).await.unwrap().len();
    desk.submit(2, &module).await;
    let again = desk.store.scan(None, GlobalSeq(0), 100).await.unwrap().len();
    assert_eq!(again - facts, 2, "putting the same program again adds nothing: a submission and a birth");
    let known = node.program(&TenantId::local(), module.hash()).await.unwrap();
    assert!(Arc::ptr_eq(&known, &node.program(&TenantId::local(), module.hash()).await.unwrap()));
}

#[tokio::test]
async fn a_node_with_no_room_refuses_a_hint_and_finds_the_agent_later() {
    let desk = Desk::new(FakeModel::echo(1));
    desk.model.hold(true);
    let tight = NodeConfig { live_agents_max: 1, waiting_agents_max: 1, sweep_every: Millis(10), ..config("n1") };
    let node = desk.start(tight).await;
    let module = program::one_call();
    let first = desk.run(&node, 1, &module).await;
    desk.model.was_asked(1).await;
    let second = desk.submit(2, &module).await;
    let third = desk.submit(3, &module).await;
    let _ = (node.wake(root(second)), node.wake(root(third)));
    assert!(node.wake(root(second)).is_err() || node.wake(root(third)).is_err(), "one waits, the other is refused");
    desk.model.hold(false);
    for workload in [first, second, third] {
        assert_eq!(desk.text(workload).await, "<hello>");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_agents_on_few_seats_and_many_threads_all_end() {
    let desk = Desk::new(FakeModel::echo(3));
    let tight = NodeConfig { live_agents_max: 12, loading_agents_max: 4, slice_fuel: Some(20), ..config("n1") };
    let node = desk.start(tight).await;
    let (fork, chain) = (program::fork(7), program::calls(5));
    let mut workloads = Vec::new();
    for number in 0..40 {
        workloads.push(desk.run(&node, number, if number % 2 == 0 { &fork } else { &chain }).await);
    }
    for workload in workloads {
        assert!(!desk.text(workload).await.is_empty());
    }
    let stats = node.stats();
    assert_eq!((stats.model_calls, stats.reissued_model_calls, stats.panics, stats.faults), (20 * 8 + 20 * 5, 0, 0, 0));
}

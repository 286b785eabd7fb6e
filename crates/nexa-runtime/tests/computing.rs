//! Agents that compute for long, beside others and under limits of memory.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use nexa_ports::clock::{Clock, SystemClock};
use nexa_runtime::{MemoryPressure, NodeConfig};
use nexa_types::limits::SLICE_FUEL;
use nexa_types::*;

use support::model::FakeModel;
use support::{Desk, config, program, soon, until};

fn root(workload: WorkloadId) -> AgentId {
    AgentId::root(workload)
}

fn one_thread() -> NodeConfig {
    NodeConfig { compute_threads: 1, ..config("n1") }
}

#[tokio::test]
async fn many_that_compute_for_ever_keep_nobody_from_a_model_and_hear_a_cancel() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(one_thread()).await;
    let mut endless = Vec::new();
    for number in 1..=60 {
        endless.push(desk.run(&node, number, &program::spin()).await);
    }
    until("nearly all to queue up", || node.stats().compute_waiting >= 50).await;
    let waits = desk.run(&node, 100, &program::calls(5)).await;
    assert_eq!(desk.text(waits).await, "<<<<<0>>>>>");
    until("some rounds of turns", || node.stats().compute_slices > 200).await;
    assert_eq!((node.stats().panics, node.stats().faults), (0, 0));
    for workload in &endless {
        desk.cancel(&node, *workload).await;
    }
    for workload in &endless {
        assert_eq!(desk.failure(*workload).await.code, RunCode::Cancelled);
    }
    until("all to leave", || node.stats().live_agents == 0).await;
    assert_eq!(node.stats().compute_waiting, 0);
}

#[tokio::test]
async fn what_is_computed_in_slices_leaves_the_same_facts_as_what_is_computed_at_once() {
    let (mut streams, mut slices) = (Vec::new(), Vec::new());
    for slice_fuel in [u64::MAX, 10_000, 100] {
        let desk = Desk::with_still_clock(FakeModel::echo(1));
        let node = desk.start(NodeConfig { slice_fuel: Some(slice_fuel), ..config("n1") }).await;
        let workload = desk.run(&node, 1, &program::counts_and_asks(20_000)).await;
        assert_eq!(desk.text(workload).await, "<x>");
        until("the last act", || node.stats().live_agents == 0).await;
        slices.push(node.stats().compute_slices);
        streams.push(desk.events(root(workload)).await);
    }
    assert!(slices[0] == 1 && slices[1] > 5 && slices[2] > 500, "{slices:?}");
    assert_eq!(streams[0], streams[1]);
    assert_eq!(streams[0], streams[2]);
}

#[tokio::test]
async fn what_needs_a_second_slice_is_recorded_with_its_input() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(config("n1")).await;
    let workload = desk.run(&node, 1, &program::counts_and_asks(1_500)).await;
    assert_eq!(desk.text(workload).await, "<x>");
    until("the last act", || node.stats().live_agents == 0).await;
    let stats = node.stats();
    assert_eq!((stats.appends, stats.compute_slices), (2, 1));
}

#[tokio::test]
async fn a_drain_ends_although_agents_compute_for_ever_and_they_go_on_elsewhere() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(one_thread()).await;
    let mut counting = Vec::new();
    for number in 1..=10 {
        counting.push(desk.run(&node, number, &program::counts_and_asks(400_000)).await);
    }
    let endless = desk.run(&node, 99, &program::spin()).await;
    until("all to compute", || node.stats().compute_waiting >= 6).await;
    soon("the drain", node.drain(Duration::from_secs(15))).await;
    assert_eq!(node.stats().live_agents, 0, "nobody was left behind");
    drop(node);
    let next = desk.start(config("n1")).await;
    for workload in counting {
        assert_eq!(desk.text(workload).await, "<x>");
    }
    desk.cancel(&next, endless).await;
    assert_eq!(desk.failure(endless).await.code, RunCode::Cancelled);
}

/// Panics a few times on threads that compute.
struct Brittle(SystemClock, AtomicU64);

impl Clock for Brittle {
    fn now(&self) -> Timestamp {
        let computes = std::thread::current().name().is_some_and(|name| name.starts_with("nexa-compute"));
        if computes && self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("a test wants it");
        }
        self.0.now()
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        self.0.wait_until(due)
    }
}

#[tokio::test]
async fn a_panic_while_computing_costs_an_incarnation_and_a_second_one_the_agent_and_never_a_thread() {
    let brittle = Arc::new(Brittle(SystemClock::default(), AtomicU64::new(1)));
    let mut desk = Desk::new(FakeModel::echo(1));
    desk.clock = brittle.clone();
    // However fast it goes, there are several slices: the first takes the time of its input, and does not ask the clock.
    let node = desk.start(NodeConfig { slice_fuel: Some(SLICE_FUEL), ..one_thread() }).await;
    let workload = desk.run(&node, 1, &program::counts_and_asks(50_000)).await;
    assert_eq!(desk.text(workload).await, "<x>");
    assert_eq!((node.stats().panics, node.stats().restarts, node.stats().quarantined), (1, 1, 0));
    brittle.1.store(2, Ordering::SeqCst);
    let unlucky = desk.run(&node, 2, &program::counts_and_asks(50_000)).await;
    desk.reaches(root(unlucky), AgentState::Quarantined).await;
    assert_eq!((node.stats().panics, node.stats().quarantined), (3, 1));
    let other = desk.run(&node, 3, &program::counts_and_asks(50_000)).await;
    assert_eq!(desk.text(other).await, "<x>");
}

#[tokio::test]
async fn a_node_over_its_memory_sends_idle_agents_to_sleep_before_their_time_and_still_works() {
    let desk = Desk::with_still_clock(FakeModel::echo(4));
    let node = desk.start(NodeConfig { memory_max: Some(1), ..config("n1") }).await;
    let mut asking = Vec::new();
    for number in 1..=40 {
        let workload = desk.run(&node, number, &program::approval()).await;
        asking.push(workload);
    }
    let working = desk.run(&node, 100, &program::calls(3)).await;
    assert_eq!(desk.text(working).await, "<<<0>>>");
    for workload in &asking {
        desk.reaches(root(*workload), AgentState::Waiting(Waiting::Approval)).await;
    }
    until("dormancy", || node.stats().live_agents == 0).await;
    let stats = node.stats();
    assert_eq!((stats.memory_pressure, stats.dormant_agents), (MemoryPressure::Full, 40));
    for workload in asking {
        desk.approve(&node, workload, root(workload), Seq(1)).await;
        assert!(desk.outcome(workload).await.is_ok());
    }
}

#[tokio::test]
async fn a_node_within_its_memory_leaves_idle_agents_alone_and_tells_how_it_is() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let node = desk.start(NodeConfig { memory_max: Some(u64::MAX), ..config("n1") }).await;
    let workload = desk.run(&node, 1, &program::approval()).await;
    desk.reaches(root(workload), AgentState::Waiting(Waiting::Approval)).await;
    until("idleness", || node.stats().idle_agents == 1).await;
    let stats = node.stats();
    assert_eq!((stats.live_agents, stats.memory_pressure), (1, MemoryPressure::Calm));
    assert_eq!(stats.resident_bytes.is_some(), cfg!(target_os = "linux"));
    assert_eq!(stats.memory_max, Some(u64::MAX));
}

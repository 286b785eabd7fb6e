//! How many agents are at work at the same time.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::time::Duration;

use nexa_runtime::NodeConfig;
use nexa_sched::{LoadBalanceStrategy, SchedulerConfig};
use nexa_types::*;

use support::model::FakeModel;
use support::{Desk, config, program, soon, until};

fn at_most(max_concurrent_agents: usize) -> NodeConfig {
    let scheduler = SchedulerConfig { max_concurrent_agents, ..SchedulerConfig::default() };
    NodeConfig { scheduler, ..config("n1") }
}

#[tokio::test]
async fn no_more_begin_than_may_be_at_work_and_each_that_ends_lets_the_next_one_begin() {
    let desk = Desk::new(FakeModel::echo(100));
    desk.model.hold(true);
    let node = desk.start(at_most(3)).await;
    let mut workloads = Vec::new();
    for number in 1..=10 {
        workloads.push(desk.run(&node, number, &program::one_call()).await);
    }
    until("all but three to wait", || node.stats().agents_held_back == 7).await;
    desk.model.was_asked(3).await;
    assert_eq!((node.stats().agents_at_work, node.stats().model_calls), (3, 3));
    desk.model.hold(false);
    for workload in workloads {
        assert_eq!(desk.text(workload).await, "<hello>");
    }
    until("the last act", || node.stats().live_agents == 0).await;
    assert_eq!((node.stats().agents_at_work, node.stats().agents_held_back), (0, 0));
}

#[tokio::test]
async fn parents_do_not_stand_in_the_way_of_their_children() {
    for max in [1, 2] {
        let desk = Desk::new(FakeModel::echo(100));
        let node = desk.start(at_most(max)).await;
        let mut workloads = Vec::new();
        for number in 1..=5 {
            workloads.push(desk.run(&node, number, &program::fork(20)).await);
        }
        for workload in workloads {
            assert!(desk.text(workload).await.contains("<branch 19>"));
        }
        until("the last act", || node.stats().live_agents == 0).await;
        assert_eq!((node.stats().agents_at_work, node.stats().agents_held_back), (0, 0));
    }
}

#[tokio::test]
async fn who_waits_to_begin_leaves_memory_comes_when_it_may_and_hears_a_cancel() {
    let desk = Desk::new(FakeModel::echo(100));
    desk.model.hold(true);
    let tight = NodeConfig { idle_before_dormant: Millis(1), sweep_every: Millis(5), ..at_most(1) };
    let node = desk.start(tight).await;
    let first = desk.run(&node, 1, &program::one_call()).await;
    desk.model.was_asked(1).await;
    let (second, third) =
        (desk.run(&node, 2, &program::one_call()).await, desk.run(&node, 3, &program::one_call()).await);
    until("both to leave memory", || node.stats().live_agents == 1 && node.stats().agents_held_back == 2).await;
    desk.cancel(&node, second).await;
    assert_eq!(desk.failure(second).await.code, RunCode::Cancelled);
    assert_eq!(node.stats().model_calls, 1, "it was never begun");
    desk.model.hold(false);
    assert_eq!(desk.text(first).await, "<hello>");
    assert_eq!(desk.text(third).await, "<hello>");
}

#[tokio::test]
async fn after_a_restart_those_that_were_at_work_go_on_and_nobody_begins_beside_them() {
    let desk = Desk::new(FakeModel::echo(100));
    desk.model.hold(true);
    let node = desk.start(at_most(2)).await;
    let mut workloads = Vec::new();
    for number in 1..=6 {
        workloads.push(desk.run(&node, number, &program::one_call()).await);
    }
    until("the others to wait", || node.stats().agents_held_back == 4).await;
    desk.model.was_asked(2).await;
    drop(node);
    let node = desk.start(at_most(2)).await;
    until("the others to wait", || node.stats().agents_held_back == 4).await;
    desk.model.was_asked(4).await;
    assert_eq!((node.stats().agents_at_work, node.stats().model_calls), (2, 2));
    desk.model.hold(false);
    for workload in workloads {
        assert_eq!(desk.text(workload).await, "<hello>");
    }
    soon("the drain", node.drain(Duration::from_secs(15))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_strategy_brings_all_to_their_ends_in_slices_of_any_length() {
    for load_balance_strategy in [
        LoadBalanceStrategy::RoundRobin,
        LoadBalanceStrategy::LeastLoaded,
        LoadBalanceStrategy::WeightedFair,
        LoadBalanceStrategy::PriorityBased,
        LoadBalanceStrategy::Adaptive,
    ] {
        let scheduler = SchedulerConfig { load_balance_strategy, max_concurrent_agents: 5, ..Default::default() };
        for slice_fuel in [Some(200), None] {
            let desk = Desk::new(FakeModel::echo(100));
            let node = desk.start(NodeConfig { scheduler: scheduler.clone(), slice_fuel, ..config("n1") }).await;
            let mut workloads = Vec::new();
            for number in 1..=12 {
                workloads.push(desk.run(&node, number, &program::counts_and_asks(3_000 * u32::from(number))).await);
            }
            for workload in workloads {
                assert_eq!(desk.text(workload).await, "<x>", "{load_balance_strategy:?}");
            }
            assert_eq!((node.stats().panics, node.stats().faults), (0, 0));
        }
    }
}

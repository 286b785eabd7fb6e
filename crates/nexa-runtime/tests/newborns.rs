//! Agents that come into memory from what is known of their birth, while the world goes on.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::sync::atomic::Ordering;

use nexa_ports::store::Place;
use nexa_types::*;

use support::model::FakeModel;
use support::{Desk, program, until};

fn root(workload: WorkloadId) -> AgentId {
    AgentId::root(workload)
}

#[tokio::test]
async fn what_was_born_here_begins_without_a_question_to_the_store() {
    let desk = Desk::new(FakeModel::echo(2));
    let (node, way) = desk.start_mortal(None).await;
    // So that the program is there.
    let first = desk.run(&node, 1, &program::one_call()).await;
    assert_eq!(desk.text(first).await, "<hello>");
    until("the first to leave", || node.stats().live_agents == 0).await;
    let (questions, appends) = (way.questions.load(Ordering::SeqCst), node.stats().appends);

    let second = desk.submit(2, &program::one_call()).await;
    node.wake_newborn(desk.newborn(second).await).unwrap();
    assert_eq!(desk.text(second).await, "<hello>");
    until("the second to leave", || node.stats().live_agents == 0).await;
    assert_eq!(way.questions.load(Ordering::SeqCst), questions);
    assert_eq!(node.stats().appends, appends + 2);
}

#[tokio::test]
async fn one_whose_workload_was_cancelled_since_then_ends_cancelled() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(support::config("n1")).await;
    let workload = desk.submit(1, &program::calls(3)).await;
    let newborn = desk.newborn(workload).await;
    desk.store.cancel(workload, "a test wants it".into(), desk.stamp()).await.unwrap();
    node.wake_newborn(newborn).unwrap();
    desk.reaches(root(workload), AgentState::Cancelled).await;
    assert_eq!(desk.model.asked_count(), 0);
}

#[tokio::test]
async fn one_that_was_given_to_another_node_since_then_is_let_go() {
    let desk = Desk::new(FakeModel::echo(1));
    let node = desk.start(support::config("n1")).await;
    let workload = desk.submit(1, &program::calls(3)).await;
    let newborn = desk.newborn(workload).await;
    let place = Place { agent: root(workload), from: Epoch(1), node: NodeId::new("n2").unwrap() };
    desk.store.place(vec![place]).await.unwrap()[0].unwrap();
    node.wake_newborn(newborn).unwrap();
    until("it to let go", || node.stats().live_agents == 0).await;
    assert_eq!((desk.events(root(workload)).await.len(), desk.model.asked_count()), (1, 0));
}

#[tokio::test]
async fn one_that_was_called_before_is_read_and_runs_once() {
    let desk = Desk::new(FakeModel::echo(1));
    let (node, way) = desk.start_mortal(None).await;
    let workload = desk.submit(1, &program::calls(3)).await;
    let newborn = desk.newborn(workload).await;
    let questions = way.questions.load(Ordering::SeqCst);
    node.wake(root(workload)).unwrap();
    node.wake_newborn(newborn).unwrap();
    assert_eq!(desk.text(workload).await, "<<<0>>>");
    assert!(way.questions.load(Ordering::SeqCst) > questions, "its inbox may have had something");
    assert_eq!(desk.model.asked_count(), 3);
}

#[tokio::test]
async fn one_that_fails_before_its_first_append_is_read_by_the_next_incarnation() {
    let desk = Desk::new(FakeModel::echo(1));
    let (node, way) = desk.start_mortal(None).await;
    let workload = desk.submit(1, &program::calls(2)).await;
    way.panics.store(1, Ordering::SeqCst);
    node.wake_newborn(desk.newborn(workload).await).unwrap();
    assert_eq!(desk.text(workload).await, "<<0>>");
    assert_eq!(node.stats().quarantined, 0);
}

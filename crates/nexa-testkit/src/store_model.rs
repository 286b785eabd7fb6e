//! Random calls that any store must answer as the store in memory does, and leave the same behind.
//!
//! [`calls`] makes them; [`begin`], [`same_answers`] and [`same_state`] compare.

use nexa_event::envelope::Fact;
use nexa_event::fact::{Input, WorkloadEvent};
use nexa_ports::store::{Append, Birth, Place, Post, RowChange, Rows};
use nexa_types::{
    AgentId, AgentState, Epoch, GlobalSeq, InputId, NodeId, Outcome, Payload, Seq, Spend, StreamId, Timestamp, Version,
    Waiting,
};
use proptest::prelude::*;

use crate::store_contract::{AnyStore, birth, emitted, owned, stamp, submission, trace, workload};

const WORKLOADS: u8 = 2;
/// Agents of one workload: the root and its children.
const AGENTS: u8 = 4;

/// One call, whose epochs and versions follow from what the model has when it is made.
#[derive(Debug, Clone)]
pub struct Call(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Submit(u8),
    Append(Vec<Plan>),
    Post(Who, u8),
    Cancel(u8),
    Place(Vec<(Who, bool)>),
}

type Who = (u8, u8);

#[derive(Debug, Clone)]
struct Plan {
    who: Who,
    epoch_off: bool,
    version_off: bool,
    facts: u8,
    state: Option<(u8, Option<u8>)>,
    takes: Vec<u8>,
    posts: Vec<(Who, u8)>,
    births: Vec<(Who, bool)>,
    ends_workload: bool,
}

fn who() -> impl Strategy<Value = Who> {
    (0..WORKLOADS, 0..AGENTS)
}

fn plan() -> impl Strategy<Value = Plan> {
    let rare = || prop::bool::weighted(0.1);
    (
        (who(), rare(), rare(), 0..3u8),
        prop::option::of((0..7u8, prop::option::of(0..9u8))),
        prop::collection::vec(0..5u8, 0..3),
        prop::collection::vec((who(), 0..5u8), 0..3),
        prop::collection::vec((who(), any::<bool>()), 0..3),
        rare(),
    )
        .prop_map(|((who, epoch_off, version_off, facts), state, takes, posts, births, ends_workload)| Plan {
            who,
            epoch_off,
            version_off,
            facts,
            state,
            takes,
            posts,
            births,
            ends_workload,
        })
}

fn call() -> impl Strategy<Value = Kind> {
    prop_oneof![
        1 => (0..WORKLOADS).prop_map(Kind::Submit),
        8 => prop::collection::vec(plan(), 1..4).prop_map(Kind::Append),
        2 => (who(), 0..5u8).prop_map(|(who, id)| Kind::Post(who, id)),
        1 => (0..WORKLOADS).prop_map(Kind::Cancel),
        1 => prop::collection::vec((who(), prop::bool::weighted(0.3)), 1..3).prop_map(Kind::Place),
    ]
}

/// Up to so many calls.
pub fn calls(max: usize) -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec(call().prop_map(Call), 1..max)
}

/// Submits the workloads that the calls are about to both.
///
/// # Panics
/// If they answer differently.
pub async fn begin(store: &AnyStore, model: &AnyStore) {
    for number in 0..WORKLOADS {
        same_answers(store, model, &Call(Kind::Submit(number))).await;
    }
}

fn agent((number, index): Who) -> AgentId {
    let root = AgentId::root(workload(number));
    if index == 0 { root } else { AgentId::child(root, Seq(1), u32::from(index)) }
}

fn post(to: AgentId, number: u8) -> Post {
    let input = Input::Message { from: "somebody".into(), value: Payload::new(vec![number]) };
    // One of the ids is the cancel's own.
    let id = if number == 0 { InputId::cancel(to) } else { InputId::from_bytes([number; 16]) };
    Post { to, id, input, trace: trace(number) }
}

fn state(number: u8) -> AgentState {
    match number {
        0 => AgentState::Succeeded,
        1 => AgentState::Quarantined,
        2 => AgentState::Waiting(Waiting::Model),
        3 => AgentState::Waiting(Waiting::Timer),
        _ => AgentState::Running,
    }
}

/// An append as planned, for the epoch and version that the model has now.
async fn append(plan: &Plan, model: &AnyStore) -> Append {
    let id = agent(plan.who);
    let row = model.row(id).await.expect("row");
    let (epoch, version) = row.map_or((1, 0), |row| (row.epoch.0, row.version.0));
    let node = |placed: bool| placed.then(|| NodeId::new("n1").expect("a good name"));
    let ended =
        Fact::Workload(WorkloadEvent::Ended { outcome: Outcome::Ok(Payload::new(vec![1])), spend: Spend::default() });
    Append {
        row: plan
            .state
            .map(|(number, due)| RowChange { state: state(number), due: due.map(|due| Timestamp(u64::from(due))) }),
        takes: plan.takes.iter().map(|number| post(id, *number).id).collect(),
        posts: plan.posts.iter().map(|(to, number)| post(agent(*to), *number)).collect(),
        births: plan
            .births
            .iter()
            .map(|(child, placed)| Birth { node: node(*placed), ..birth(workload(child.0), agent(*child)) })
            .collect(),
        also: plan.ends_workload.then(|| (StreamId::Workload(workload(plan.who.0)), vec![ended])),
        ..owned(
            id,
            epoch + u64::from(plan.epoch_off),
            version + u64::from(plan.version_off),
            (0..plan.facts).map(|number| emitted(u64::from(number))).collect(),
        )
    }
}

/// Makes a call to both.
///
/// # Panics
/// If they answer differently.
pub async fn same_answers(store: &AnyStore, model: &AnyStore, call: &Call) {
    match &call.0 {
        Kind::Submit(number) => {
            let batch = vec![submission(workload(*number))];
            assert_eq!(store.append(batch.clone()).await, model.append(batch).await);
        }
        Kind::Append(plans) => {
            let mut batch = Vec::new();
            for plan in plans {
                batch.push(append(plan, model).await);
            }
            assert_eq!(store.append(batch.clone()).await, model.append(batch).await);
        }
        Kind::Post(who, number) => {
            let post = post(agent(*who), *number);
            assert_eq!(store.post(post.clone(), stamp(3)).await, model.post(post, stamp(3)).await);
        }
        Kind::Cancel(number) => {
            let workload = workload(*number);
            let reason = || "enough".to_owned();
            assert_eq!(
                store.cancel(workload, reason(), stamp(4)).await,
                model.cancel(workload, reason(), stamp(4)).await
            );
        }
        Kind::Place(wishes) => {
            let mut batch = Vec::new();
            for (who, off) in wishes {
                let current = model.row(agent(*who)).await.expect("row").map_or(0, |row| row.epoch.0);
                let node = NodeId::new("n2").expect("a good name");
                batch.push(Place { agent: agent(*who), from: Epoch(current + u64::from(*off)), node });
            }
            assert_eq!(store.place(batch.clone()).await, model.place(batch).await);
        }
    }
}

/// Compares all that both keep.
///
/// # Panics
/// If it is not the same.
pub async fn same_state(store: &AnyStore, model: &AnyStore) {
    let all = usize::MAX;
    assert_eq!(store.scan(None, GlobalSeq(0), all).await, model.scan(None, GlobalSeq(0), all).await);
    assert_eq!(*store.head().borrow(), *model.head().borrow());
    for which in [Rows::Live, Rows::Unplaced, Rows::Due(Timestamp(4))] {
        assert_eq!(store.rows(which.clone(), None, all).await, model.rows(which, None, all).await);
    }
    for number in 0..WORKLOADS {
        let which = Rows::Workload(workload(number));
        assert_eq!(store.rows(which.clone(), None, all).await, model.rows(which, None, all).await);
        let one = Some(workload(number));
        assert_eq!(store.scan(one, GlobalSeq(1), all).await, model.scan(one, GlobalSeq(1), all).await);
        let stream = StreamId::Workload(workload(number));
        assert_eq!(
            store.read(stream.clone(), Version(0), all).await,
            model.read(stream.clone(), Version(0), all).await
        );
        for index in 0..AGENTS {
            let id = agent((number, index));
            assert_eq!(store.row(id).await, model.row(id).await);
            assert_eq!(store.inbox(id, all).await, model.inbox(id, all).await);
            for after in [0, 1, 3] {
                let (stream, after) = (StreamId::Agent(id), Version(after));
                assert_eq!(store.read(stream.clone(), after, 2).await, model.read(stream, after, 2).await);
            }
        }
    }
}

//! Workloads, agents, facts and appends that mean nothing in particular.

use nexa_event::asks::Asks;
use nexa_event::envelope::{Fact, TraceContext};
use nexa_event::fact::{AgentEvent, Input, Program, Spawned, WorkloadEvent};
use nexa_ports::store::{Append, Birth, Guard, Post, RowChange, Stamp};
use nexa_types::{
    AgentId, AgentState, Budget, Epoch, InputId, ModuleHash, NodeId, Payload, PrincipalId, RequestId, Seq, StreamId,
    TenantId, Timestamp, Version, WorkloadId,
};

/// A stamp with a moment and nothing special.
pub fn stamp(at: u64) -> Stamp {
    Stamp { at: Timestamp(at), tenant: TenantId::local(), principal: PrincipalId::local(), trace: None }
}

/// A workload of its own for each number.
pub fn workload(number: u8) -> WorkloadId {
    WorkloadId::of(&TenantId::local(), RequestId::from_bytes([number; 16]))
}

/// The first fact of an agent that runs nothing in particular.
pub fn spawned(workload: WorkloadId, name: &str) -> Fact {
    Fact::Agent(AgentEvent::Spawned(Spawned {
        workload,
        name: name.to_owned(),
        parent: None,
        program: Program::Function {
            module: ModuleHash::from_bytes([7; 32]),
            entry: 0,
            args: Payload::new(vec![0x80]),
        },
        budget: Budget::default(),
        deadline: None,
        seed: 1,
        depth: 0,
        priority: 100,
        asks: None,
    }))
}

/// A fact that says nothing but its number.
pub fn emitted(seq: u64) -> Fact {
    Fact::Agent(AgentEvent::Emitted { seq: Seq(seq), channel: "main".into(), value: Payload::new(vec![0xf6]) })
}

pub(super) fn submitted(root: AgentId) -> Fact {
    Fact::Workload(WorkloadEvent::Submitted {
        request: RequestId::from_bytes([1; 16]),
        request_hash: [2; 32],
        name: "test".into(),
        root,
        budget: Budget::default(),
        priority: 100,
    })
}

pub(super) fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("test names are good")
}

/// The birth of an agent on node `n1`.
pub fn birth(workload: WorkloadId, agent: AgentId) -> Birth {
    Birth { agent, workload, node: Some(node("n1")), priority: 100, first: spawned(workload, "agent") }
}

/// The birth of an agent on node `n1` that asks for this.
pub(super) fn asking(workload: WorkloadId, agent: AgentId, asks: Option<Asks>) -> Birth {
    let Fact::Agent(AgentEvent::Spawned(first)) = spawned(workload, "agent") else { unreachable!("it is just that") };
    let first = Fact::Agent(AgentEvent::Spawned(Spawned { asks, ..first }));
    Birth { first, ..birth(workload, agent) }
}

/// An append that submits a workload with its root agent, born on node `n1`.
pub fn submission(workload: WorkloadId) -> Append {
    let root = AgentId::root(workload);
    Append { births: vec![birth(workload, root)], ..plain(StreamId::Workload(workload), 0, vec![submitted(root)]) }
}

pub(super) fn plain(stream: StreamId, expected: u64, facts: Vec<Fact>) -> Append {
    Append {
        stream,
        guard: Guard::Version,
        expected: Version(expected),
        stamp: stamp(1),
        facts,
        row: None,
        takes: vec![],
        posts: vec![],
        births: vec![],
        also: None,
    }
}

/// An append by the owner of an agent.
pub fn owned(agent: AgentId, epoch: u64, expected: u64, facts: Vec<Fact>) -> Append {
    Append { guard: Guard::Owner(Epoch(epoch)), ..plain(StreamId::Agent(agent), expected, facts) }
}

pub(super) fn row(state: AgentState) -> Option<RowChange> {
    Some(RowChange { state, due: None })
}

/// Where every other one comes from.
pub(crate) fn trace(number: u8) -> Option<TraceContext> {
    (number % 2 == 1).then_some(TraceContext { trace: [number; 16], span: [number; 8] })
}

pub(super) fn message(to: AgentId, number: u8) -> Post {
    let input = Input::Message { from: "somebody".into(), value: Payload::new(vec![number]) };
    Post { to, id: InputId::from_bytes([number; 16]), input, trace: trace(number) }
}

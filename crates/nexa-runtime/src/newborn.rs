//! What is known of an agent at its birth, so that the node that bore it need not read it back.
//!
//! A birth is one fact and one row, and whoever had them stored knows both. With them the agent comes into memory without a
//! question to the store. It rests on nothing that could have changed: what it appends first is refused if its row is another
//! by then, as after a cancel or a move, and then everything is read. Only who is called for the first time comes so: if somebody
//! else has called it before, there may be something in its inbox, and it is read like any other.

use nexa_event::envelope::{Fact, TraceContext};
use nexa_event::fact::{AgentEvent, Spawned};
use nexa_ports::store::{AgentRow, Birth, Stamp};
use nexa_types::{AgentId, AgentState, Epoch, Version};

/// The epoch of an agent that is born with an owner.
pub(crate) const AT_BIRTH: Epoch = Epoch(1);

/// An agent that was born with an owner, as it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Newborn {
    pub(crate) row: AgentRow,
    pub(crate) spawned: Spawned,
    pub(crate) trace: Option<TraceContext>,
}

impl Newborn {
    /// What a birth in an append with this stamp leaves in the store. `None` for one without an owner.
    pub fn of(birth: &Birth, stamp: &Stamp) -> Option<Self> {
        let Birth { agent, workload, node: Some(node), priority, first: Fact::Agent(AgentEvent::Spawned(spawned)) } =
            birth
        else {
            return None;
        };
        let row = AgentRow {
            agent: *agent,
            workload: *workload,
            tenant: stamp.tenant.clone(),
            principal: stamp.principal.clone(),
            node: Some(node.clone()),
            epoch: AT_BIRTH,
            version: Version(1),
            state: AgentState::Placed,
            due: None,
            cancelled: false,
            priority: *priority,
            asks: spawned.asks.clone(),
        };
        Some(Self { row, spawned: spawned.clone(), trace: stamp.trace })
    }

    /// Who it is.
    pub fn agent(&self) -> AgentId {
        self.row.agent
    }
}

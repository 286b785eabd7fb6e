//! Which right to an agent this node holds, so that it never takes up one that was given to somebody else.
//!
//! The row names a node, and a node that was restarted has the same name as the process that it replaces. That one may
//! still run, cut off from nothing but its agents: it must not find the new epoch in a row and believe it to be its
//! own. So a node knows each epoch that it was given, and an agent born here needs no entry: it starts under epoch 1.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nexa_ports::store::AgentRow;
use nexa_types::{AgentId, Epoch};

/// The epoch of an agent that is born with an owner.
const AT_BIRTH: Epoch = Epoch(1);

#[derive(Default)]
pub(crate) struct Ownership {
    given: Mutex<HashMap<AgentId, Epoch>>,
}

impl Ownership {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Epoch>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has given this node the agent under this epoch.
    pub(crate) fn given(&self, agent: AgentId, epoch: Epoch) {
        if epoch != AT_BIRTH {
            self.lock().insert(agent, epoch);
        }
    }

    /// The agent has ended, or somebody else has it.
    pub(crate) fn forget(&self, agent: AgentId) {
        self.lock().remove(&agent);
    }

    /// Whether the row's epoch is the one that this node was given, or that one raised by a cancel.
    pub(crate) fn covers(&self, row: &AgentRow) -> bool {
        let given = self.lock().get(&row.agent).copied().unwrap_or(AT_BIRTH);
        row.epoch == given || (row.cancelled && row.epoch == given.next())
    }
}

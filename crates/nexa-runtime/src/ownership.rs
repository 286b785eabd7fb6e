//! Which right to an agent this node holds, so that it never takes up one that was given to somebody else.
//!
//! The row names a node, and a node that was restarted has the same name as the process that it replaces. That one may
//! still run, cut off from nothing but its agents: it must not find the new epoch in a row and believe it to be its
//! own. So a node knows each epoch that it was given.
//!
//! Of a node alone, an agent that was born here needs no entry: it starts under epoch 1. Beside others a leader places
//! agents under epoch 1 too, so there every right has its entry, and the table is also the list of what the node owns.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nexa_ports::store::AgentRow;
use nexa_types::{AgentId, Epoch};

/// The epoch of an agent that is born with an owner.
const AT_BIRTH: Epoch = Epoch(1);

pub(crate) struct Ownership {
    given: Mutex<BTreeMap<AgentId, Epoch>>,
    /// Whether there are other nodes.
    others: bool,
}

impl Ownership {
    pub(crate) fn new(others: bool) -> Self {
        Self { given: Mutex::default(), others }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, Epoch>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has given this node the agent under this epoch. False if it has one as late already.
    pub(crate) fn given(&self, agent: AgentId, epoch: Epoch) -> bool {
        let mut given = self.lock();
        let is_news = given.get(&agent).is_none_or(|known| *known < epoch);
        if is_news && (self.others || epoch != AT_BIRTH) {
            given.insert(agent, epoch);
        }
        is_news
    }

    /// An agent was born on this node.
    pub(crate) fn born(&self, agent: AgentId) {
        self.given(agent, AT_BIRTH);
    }

    /// The agent has ended, or somebody else has it by a right as late as this one or later.
    pub(crate) fn forget(&self, agent: AgentId, epoch: Epoch) {
        let mut given = self.lock();
        if given.get(&agent).is_some_and(|known| *known <= epoch) {
            given.remove(&agent);
        }
    }

    /// The right that this node was given, as far as it knows.
    pub(crate) fn epoch(&self, agent: AgentId) -> Option<Epoch> {
        self.lock().get(&agent).copied().or((!self.others).then_some(AT_BIRTH))
    }

    /// Whether the row's epoch is the one that this node was given, or that one raised by a cancel.
    pub(crate) fn covers(&self, row: &AgentRow) -> bool {
        self.epoch(row.agent).is_some_and(|given| row.epoch == given || (row.cancelled && row.epoch == given.next()))
    }

    /// Agents with an entry after this one, by id.
    pub(crate) fn list(&self, after: Option<AgentId>, limit: usize) -> Vec<AgentId> {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.lock().range((first, Bound::Unbounded)).take(limit).map(|(agent, _)| *agent).collect()
    }

    /// How many agents have an entry.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

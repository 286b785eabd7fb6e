//! Which right to an agent this node holds, so that it never takes up one that was given to somebody else.
//!
//! The row names a node, and a node that was restarted has the same name as the process that it replaces. That one may
//! still run, cut off from nothing but its agents: it must not find the new epoch in a row and believe it to be its
//! own. So a node knows each epoch that it was given.
//!
//! Of a node alone, an agent that was born here needs no entry: it starts under epoch 1. Beside others a leader places
//! agents under epoch 1 too, so there every right has its entry, and the table is also the list of what the node owns.
//!
//! With a right comes what goes on for the agent elsewhere, and with its loss that is handed over or let go. Both are done in
//! one with the change of the right ([`Ownership::take`], [`Ownership::lose`], [`Ownership::still`]), so that nobody runs an
//! agent between the two, and what is done about a right that is over does not meet the next one. What is done so takes other
//! tables of the node, and never asks this one: so it wakes nobody.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nexa_ports::store::AgentRow;
use nexa_types::{AgentId, Epoch};

use crate::newborn::AT_BIRTH;

pub(crate) struct Ownership {
    rights: Mutex<Rights>,
}

impl Ownership {
    pub(crate) fn new(others: bool) -> Self {
        Self { rights: Mutex::new(Rights::new(others)) }
    }

    fn lock(&self) -> MutexGuard<'_, Rights> {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has given this node the agent under this epoch. False if it has one as late already.
    pub(crate) fn given(&self, agent: AgentId, epoch: Epoch) -> bool {
        self.take(agent, epoch, || ())
    }

    /// The same, and what is to be done before anybody acts by that right.
    pub(crate) fn take(&self, agent: AgentId, epoch: Epoch, before: impl FnOnce()) -> bool {
        let mut rights = self.lock();
        let is_news = rights.given(agent, epoch);
        if is_news {
            before();
        }
        is_news
    }

    /// An agent was born on this node.
    pub(crate) fn born(&self, agent: AgentId) {
        self.given(agent, AT_BIRTH);
    }

    /// The agent has ended, or somebody else has it by a right as late as this one or later.
    pub(crate) fn forget(&self, agent: AgentId, epoch: Epoch) {
        self.lose(agent, epoch, || ());
    }

    /// The same, and what is to be done then: not if there is a later right.
    pub(crate) fn lose<T>(&self, agent: AgentId, epoch: Epoch, then: impl FnOnce() -> T) -> Option<T> {
        let mut rights = self.lock();
        rights.lost(agent, epoch).then(then)
    }

    /// Does something while no right changes.
    pub(crate) fn still<T>(&self, act: impl FnOnce() -> T) -> T {
        let _rights = self.lock();
        act()
    }

    /// Does something if there is a right to this agent, while it does not change.
    pub(crate) fn holding<T>(&self, agent: AgentId, act: impl FnOnce() -> T) -> Option<T> {
        let rights = self.lock();
        rights.has_entry(agent).then(act)
    }

    /// The right that this node was given, as far as it knows.
    pub(crate) fn epoch(&self, agent: AgentId) -> Option<Epoch> {
        self.lock().epoch(agent)
    }

    /// Whether the row's epoch is the one that this node was given, or that one raised by a cancel.
    pub(crate) fn covers(&self, row: &AgentRow) -> bool {
        self.lock().covers(row.agent, row.epoch, row.cancelled)
    }

    /// Agents with an entry after this one, by id.
    pub(crate) fn list(&self, after: Option<AgentId>, limit: usize) -> Vec<AgentId> {
        self.lock().list(after, limit)
    }

    /// How many agents have an entry.
    pub(crate) fn len(&self) -> usize {
        self.lock().given.len()
    }
}

/// The table itself: what a node does with the rights that it is given, without a lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rights {
    given: BTreeMap<AgentId, Epoch>,
    /// Whether there are other nodes.
    others: bool,
}

impl Rights {
    /// None yet.
    #[must_use]
    pub fn new(others: bool) -> Self {
        Self { given: BTreeMap::new(), others }
    }

    /// The store has given this node the agent under this epoch. False if it has one as late already.
    pub fn given(&mut self, agent: AgentId, epoch: Epoch) -> bool {
        let is_news = self.given.get(&agent).is_none_or(|known| *known < epoch);
        if is_news && (self.others || epoch != AT_BIRTH) {
            self.given.insert(agent, epoch);
        }
        is_news
    }

    /// Somebody else has the agent by a right as late as this one or later, or nobody has it any more. False if this node was
    /// given a later one meanwhile.
    pub fn lost(&mut self, agent: AgentId, epoch: Epoch) -> bool {
        if self.given.get(&agent).is_some_and(|known| *known <= epoch) {
            self.given.remove(&agent);
        }
        !self.has_entry(agent)
    }

    fn has_entry(&self, agent: AgentId) -> bool {
        self.given.contains_key(&agent)
    }

    /// The right that this node was given, as far as it knows.
    #[must_use]
    pub fn epoch(&self, agent: AgentId) -> Option<Epoch> {
        self.given.get(&agent).copied().or((!self.others).then_some(AT_BIRTH))
    }

    /// Whether an agent's row that says this epoch is under the right that this node was given.
    #[must_use]
    pub fn covers(&self, agent: AgentId, row: Epoch, is_cancelled: bool) -> bool {
        self.epoch(agent).is_some_and(|given| given.covers(row, is_cancelled))
    }

    fn list(&self, after: Option<AgentId>, limit: usize) -> Vec<AgentId> {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.given.range((first, Bound::Unbounded)).take(limit).map(|(agent, _)| *agent).collect()
    }
}

//! Who computes next, by the strategy of the node. Pure: the same pushes, pops and settlements give the same order.
//!
//! | strategy | who is next | how long somebody waits at most |
//! |---|---|---|
//! | adaptive | the tenant furthest behind its share; in it the highest priority, 1 more worth [`PRIORITY_STEP`] | one slice of each other tenant, by weight, for each that came before it or, by its priority, up to 25.5 s after |
//! | round-robin | whoever came first | one slice of each that came before it |
//! | least-loaded | whoever has computed least since it came into memory | [`LONGEST_WAIT_EVERY`] slices for each that came before it |
//! | weighted-fair | the tenant furthest behind its share, and in it the agent furthest behind its own | of each other tenant what its weight gives it meanwhile; and so of each agent of its own |
//! | priority | the highest priority, whatever the tenant | [`LONGEST_WAIT_EVERY`] slices for each that came before it |
//!
//! Two of them would let somebody wait for ever while others keep coming; so one turn in [`LONGEST_WAIT_EVERY`] is that of
//! whoever has waited longest.
//!
//! Bound: an agent has at most one place here.

use std::collections::{BTreeMap, HashMap};

use nexa_sched::LoadBalanceStrategy;
use nexa_types::{AgentId, TenantId, Timestamp};

#[cfg(doc)]
use crate::fair::PRIORITY_STEP;
use crate::fair::{FairQueue, Rank};

/// Of so many turns one is that of whoever has waited longest, under the strategies that know neither time nor shares.
pub(crate) const LONGEST_WAIT_EVERY: u64 = 16;

/// Weights of agents are counted in parts of 1.
const WEIGHT_PARTS: f64 = 100.0;
/// The most that an agent may weigh, in these parts. The least is one part; so the heaviest has ten thousand slices for
/// one of the lightest.
const WEIGHT_PARTS_MAX: f64 = 10_000.0;

/// An agent's weight, as its schedule has it, in the parts that are counted here.
pub(crate) fn parts(weight: f64) -> u32 {
    // A weight that is no number is taken for the least.
    (weight * WEIGHT_PARTS).round().clamp(1.0, WEIGHT_PARTS_MAX).max(1.0) as u32
}

/// On whose account something computes.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    pub(crate) agent: AgentId,
    pub(crate) tenant: TenantId,
    /// The tenant's weight.
    pub(crate) tenant_weight: u32,
    /// The agent's own, see [`parts`].
    pub(crate) weight: u32,
    pub(crate) priority: u8,
    /// Fuel that the agent has used since it came into memory.
    pub(crate) computed: u64,
}

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Turn<T> {
    pub(crate) agent: AgentId,
    pub(crate) tenant: TenantId,
    /// The fuel that it was pushed with.
    pub(crate) fuel: u64,
    pub(crate) item: T,
}

struct Place {
    tenant: TenantId,
    rank: Rank,
}

struct Entry<T> {
    agent: AgentId,
    tenant: TenantId,
    tenant_weight: u32,
    weight: u32,
    rank: Rank,
    fuel: u64,
    item: T,
}

/// Who waits, in order.
pub(crate) struct Line<T> {
    strategy: LoadBalanceStrategy,
    order: Order<T>,
    places: HashMap<AgentId, Place>,
    tickets: u64,
}

impl<T> Line<T> {
    pub(crate) fn new(strategy: LoadBalanceStrategy) -> Self {
        let order = match strategy {
            LoadBalanceStrategy::Adaptive => Order::Tenants(FairQueue::default()),
            LoadBalanceStrategy::WeightedFair => Order::Agents(Nested::default()),
            LoadBalanceStrategy::RoundRobin | LoadBalanceStrategy::LeastLoaded | LoadBalanceStrategy::PriorityBased => {
                Order::Sorted(Sorted::default())
            }
        };
        Self { strategy, order, places: HashMap::new(), tickets: 0 }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Queues a slice; the ticket withdraws it. What the same agent had here before is given back.
    pub(crate) fn push(&mut self, share: Share, now: Timestamp, fuel: u64, item: T) -> (u64, Option<T>) {
        let Share { agent, tenant, tenant_weight, weight, priority, computed } = share;
        let earlier = self.take_out(agent).map(|entry| entry.item);
        self.tickets += 1;
        let ticket = self.tickets;
        let rank = match self.strategy {
            LoadBalanceStrategy::Adaptive => Rank::new(now, priority, ticket),
            LoadBalanceStrategy::RoundRobin | LoadBalanceStrategy::WeightedFair => Rank::by(0, ticket),
            LoadBalanceStrategy::LeastLoaded => Rank::by(computed, ticket),
            LoadBalanceStrategy::PriorityBased => Rank::by(u64::from(u8::MAX - priority), ticket),
        };
        self.insert(Entry { agent, tenant, tenant_weight, weight, rank, fuel, item });
        (ticket, earlier)
    }

    fn insert(&mut self, entry: Entry<T>) {
        self.places.insert(entry.agent, Place { tenant: entry.tenant.clone(), rank: entry.rank });
        match &mut self.order {
            Order::Tenants(queue) => {
                queue.push(&entry.tenant.clone(), entry.tenant_weight, entry.rank, entry.fuel, entry);
            }
            Order::Agents(nested) => nested.insert(entry),
            Order::Sorted(sorted) => sorted.insert(entry),
        }
    }

    /// Whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Turn<T>> {
        let entry = match &mut self.order {
            Order::Tenants(queue) => queue.pop()?.1,
            Order::Agents(nested) => nested.pop()?,
            Order::Sorted(sorted) => sorted.pop()?,
        };
        let Entry { agent, tenant, fuel, item, .. } = entry;
        self.places.remove(&agent);
        Some(Turn { agent, tenant, fuel, item })
    }

    /// A slice used this of the fuel that it was pushed with.
    pub(crate) fn settle(&mut self, tenant: &TenantId, agent: AgentId, fuel: u64, used: u64) {
        match &mut self.order {
            Order::Tenants(queue) => queue.settle(tenant, fuel, used),
            Order::Agents(nested) => nested.settle(tenant, agent, fuel, used),
            Order::Sorted(_) => {}
        }
    }

    fn take_out(&mut self, agent: AgentId) -> Option<Entry<T>> {
        let Place { tenant, rank } = self.places.remove(&agent)?;
        match &mut self.order {
            Order::Tenants(queue) => queue.remove(&tenant, rank),
            Order::Agents(nested) => nested.remove(&tenant, agent, rank),
            Order::Sorted(sorted) => sorted.remove(rank),
        }
    }

    /// Gives a place up, if the ticket is still that of the agent.
    pub(crate) fn withdraw(&mut self, agent: AgentId, ticket: u64) -> Option<T> {
        let is_mine = self.places.get(&agent).is_some_and(|place| place.rank.ticket() == ticket);
        if is_mine { self.take_out(agent).map(|entry| entry.item) } else { None }
    }

    /// Gives an agent the place that is best for one that comes now, if that is an earlier one: it has something to hear,
    /// perhaps that it is cancelled, and hears it between two slices. Whoever has waited longer stays before it.
    pub(crate) fn hurry(&mut self, agent: AgentId, now: Timestamp) {
        let Some(place) = self.places.get(&agent) else { return };
        let best = match (self.strategy, &mut self.order) {
            (_, Order::Agents(nested)) => return nested.hurry(&place.tenant, agent),
            (LoadBalanceStrategy::Adaptive, _) => Rank::new(now, u8::MAX, place.rank.ticket()),
            (_, _) => Rank::by(0, place.rank.ticket()),
        };
        if best < place.rank
            && let Some(entry) = self.take_out(agent)
        {
            self.insert(Entry { rank: best, ..entry });
        }
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self::new(LoadBalanceStrategy::default())
    }
}

enum Order<T> {
    /// Fair over tenants, by rank within one.
    Tenants(FairQueue<TenantId, Entry<T>>),
    /// Fair over tenants, and within one over agents.
    Agents(Nested<T>),
    /// By rank alone.
    Sorted(Sorted<T>),
}

/// A fair queue over tenants, and in each one over its agents.
struct Nested<T> {
    /// For each agent that waits a turn of its tenant.
    tenants: FairQueue<TenantId, ()>,
    agents: BTreeMap<TenantId, FairQueue<AgentId, Entry<T>>>,
}

impl<T> Default for Nested<T> {
    fn default() -> Self {
        Self { tenants: FairQueue::default(), agents: BTreeMap::new() }
    }
}

impl<T> Nested<T> {
    fn insert(&mut self, entry: Entry<T>) {
        self.tenants.push(&entry.tenant, entry.tenant_weight, entry.rank, entry.fuel, ());
        let agents = self.agents.entry(entry.tenant.clone()).or_default();
        agents.push(&entry.agent.clone(), entry.weight, entry.rank, entry.fuel, entry);
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        let tenant = self.tenants.peek()?.0.clone();
        let (_, entry) = self.agents.get_mut(&tenant)?.pop()?;
        // The turn of this agent and of no other, so that each that waits goes on having one.
        self.tenants.take(&tenant, entry.rank);
        self.tidy();
        Some(entry)
    }

    fn remove(&mut self, tenant: &TenantId, agent: AgentId, rank: Rank) -> Option<Entry<T>> {
        let entry = self.agents.get_mut(tenant)?.remove(&agent, rank)?;
        self.tenants.remove(tenant, rank);
        self.tidy();
        Some(entry)
    }

    fn settle(&mut self, tenant: &TenantId, agent: AgentId, fuel: u64, used: u64) {
        self.tenants.settle(tenant, fuel, used);
        if let Some(agents) = self.agents.get_mut(tenant) {
            agents.settle(&agent, fuel, used);
        }
    }

    fn hurry(&mut self, tenant: &TenantId, agent: AgentId) {
        if let Some(agents) = self.agents.get_mut(tenant) {
            agents.hurry(&agent);
        }
    }

    /// Forgets tenants of which nobody waits, once there are many.
    fn tidy(&mut self) {
        if self.agents.len() > 2 * self.tenants.len() + 64 {
            self.agents.retain(|_, agents| agents.len() > 0);
        }
    }
}

/// By rank, and now and then whoever has waited longest.
struct Sorted<T> {
    entries: BTreeMap<Rank, Entry<T>>,
    /// The same by when they came.
    came: BTreeMap<u64, Rank>,
    turns: u64,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), came: BTreeMap::new(), turns: 0 }
    }
}

impl<T> Sorted<T> {
    fn insert(&mut self, entry: Entry<T>) {
        self.came.insert(entry.rank.ticket(), entry.rank);
        self.entries.insert(entry.rank, entry);
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        let first = *self.entries.first_key_value()?.0;
        self.turns = self.turns.wrapping_add(1);
        let longest = self.came.first_key_value().map(|(_, rank)| *rank);
        let next = longest.filter(|_| self.turns.is_multiple_of(LONGEST_WAIT_EVERY)).unwrap_or(first);
        self.remove(next)
    }

    fn remove(&mut self, rank: Rank) -> Option<Entry<T>> {
        let entry = self.entries.remove(&rank)?;
        self.came.remove(&rank.ticket());
        Some(entry)
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;

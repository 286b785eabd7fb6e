//! Which agents may begin: at most so many are at work at the same time, and the others wait for their turn.
//!
//! An agent is *at work* while it computes or waits for a model or a tool. One that waits for other agents, a message, a
//! person or a timer is not; so nobody who is at work waits for somebody who may not begin, and a parent never stands in
//! the way of its own children. Whoever has begun goes on whenever it can, without asking again. So more than the limit
//! are at work while those who had waited go on, and then nobody begins.
//!
//! Holds:
//!   BG-1  nobody begins while as many as the limit are at work
//!   BG-2  whoever stops working lets the next one begin: by fair shares over tenants, by priority within one, and in
//!         the order in which they came
//!
//! Bound: `waiting_max` wait here, each once. A further one does not begin either; the sweep finds it later.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nexa_types::{AgentId, AgentState, TenantId, Timestamp, Waiting};

use crate::fair::{FairQueue, Rank};

/// Whether an agent in this state is at work.
pub(crate) fn is_work(state: AgentState) -> bool {
    match state {
        AgentState::Running | AgentState::Waiting(Waiting::Model | Waiting::Tool) => true,
        AgentState::Waiting(Waiting::Approval | Waiting::Timer | Waiting::Children | Waiting::Message)
        | AgentState::Pending
        | AgentState::Ready
        | AgentState::Placed
        | AgentState::Quarantined
        | AgentState::Succeeded
        | AgentState::Failed
        | AgentState::Cancelled => false,
    }
}

/// Who wants to begin.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) agent: AgentId,
    pub(crate) tenant: TenantId,
    pub(crate) tenant_weight: u32,
    pub(crate) priority: u8,
}

#[derive(Default)]
struct State {
    at_work: HashSet<AgentId>,
    queue: FairQueue<TenantId, AgentId>,
    places: HashMap<AgentId, (TenantId, Rank)>,
    tickets: u64,
}

/// Who is at work, and who waits to be.
pub(crate) struct Beginning {
    state: Mutex<State>,
    at_work_max: usize,
    waiting_max: usize,
}

impl Beginning {
    pub(crate) fn new(at_work_max: usize, waiting_max: usize) -> Self {
        Self { state: Mutex::default(), at_work_max: at_work_max.max(1), waiting_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an agent may begin now; from then on it is at work. Otherwise it waits, and is named by [`Self::stops`]
    /// once it may.
    pub(crate) fn begins(&self, wish: &Wish, now: Timestamp) -> bool {
        let mut state = self.lock();
        if state.at_work.contains(&wish.agent) {
            return true;
        }
        if !state.places.contains_key(&wish.agent) {
            // With room nobody waits, so nobody is overtaken.
            if state.at_work.len() < self.at_work_max {
                state.at_work.insert(wish.agent);
                return true;
            }
            if state.places.len() < self.waiting_max {
                state.tickets += 1;
                let rank = Rank::new(now, wish.priority, state.tickets);
                state.queue.push(&wish.tenant, wish.tenant_weight, rank, 1, wish.agent);
                state.places.insert(wish.agent, (wish.tenant.clone(), rank));
            }
        }
        false
    }

    /// An agent that has begun goes on with its work.
    pub(crate) fn goes_on(&self, agent: AgentId) {
        let mut state = self.lock();
        state.give_up_waiting(agent);
        state.at_work.insert(agent);
    }

    /// An agent has stopped working, or is not this node's any more; gives those who may begin now. They count as at work.
    pub(crate) fn stops(&self, agent: AgentId) -> Vec<AgentId> {
        let mut state = self.lock();
        state.give_up_waiting(agent);
        state.at_work.remove(&agent);
        let mut next = Vec::new();
        while state.at_work.len() < self.at_work_max
            && let Some((_, agent)) = state.queue.pop()
        {
            state.places.remove(&agent);
            state.at_work.insert(agent);
            next.push(agent);
        }
        next
    }

    /// Whether an agent waits here.
    pub(crate) fn waits(&self, agent: AgentId) -> bool {
        self.lock().places.contains_key(&agent)
    }

    /// How many are at work, and how many wait to begin.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.at_work.len(), state.places.len())
    }
}

impl State {
    fn give_up_waiting(&mut self, agent: AgentId) {
        if let Some((tenant, rank)) = self.places.remove(&agent) {
            self.queue.remove(&tenant, rank);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn agent(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    fn wish(n: u8, tenant: &str, priority: u8) -> Wish {
        Wish { agent: agent(n), tenant: TenantId::new(tenant).unwrap(), tenant_weight: 1, priority }
    }

    #[test]
    fn who_waits_begins_by_tenant_by_priority_and_in_order() {
        let table = Beginning::new(1, 10);
        assert!(table.begins(&wish(0, "ants", 100), Timestamp(0)));
        let waiting = [(1, "ants", 100), (2, "ants", 100), (3, "ants", 200), (4, "bees", 0), (5, "bees", 0)];
        for (n, tenant, priority) in waiting {
            assert!(!table.begins(&wish(n, tenant, priority), Timestamp(0)));
        }
        let mut order = Vec::new();
        let mut last = agent(0);
        while let Some(next) = table.stops(last).pop() {
            assert!(table.begins(&wish(next.as_bytes()[0], "ants", 0), Timestamp(0)), "it was named");
            order.push(next.as_bytes()[0]);
            last = next;
        }
        assert_eq!(order, [3, 4, 1, 5, 2]);
        assert_eq!(table.counts(), (0, 0));
    }

    #[test]
    fn whoever_goes_on_does_not_ask_and_keeps_others_from_beginning() {
        let table = Beginning::new(1, 10);
        assert!(table.begins(&wish(0, "ants", 100), Timestamp(0)));
        assert!(table.stops(agent(0)).is_empty(), "it waits for its child");
        assert!(table.begins(&wish(1, "ants", 100), Timestamp(0)), "the child");
        table.goes_on(agent(0));
        assert!(!table.begins(&wish(2, "ants", 100), Timestamp(0)));
        assert!(table.stops(agent(1)).is_empty());
        assert_eq!(table.stops(agent(0)), [agent(2)]);
    }

    #[test]
    fn who_is_one_too_many_does_not_begin_and_may_ask_again() {
        let table = Beginning::new(1, 1);
        assert!(table.begins(&wish(0, "ants", 100), Timestamp(0)));
        assert!(!table.begins(&wish(1, "ants", 100), Timestamp(0)));
        assert!(!table.begins(&wish(2, "ants", 100), Timestamp(0)));
        assert_eq!((table.waits(agent(1)), table.waits(agent(2)), table.counts()), (true, false, (1, 1)));
        assert_eq!(table.stops(agent(0)), [agent(1)]);
        assert!(table.stops(agent(1)).is_empty());
        assert!(table.begins(&wish(2, "ants", 100), Timestamp(0)));
    }

    proptest! {
        #[test]
        fn nobody_begins_above_the_limit_and_nobody_waits_below_it(
            max in 1usize..5,
            steps in proptest::collection::vec((0u8..4, 0u8..20), 1..300),
        ) {
            let table = Beginning::new(max, 8);
            // Those who have begun, and of them those at work.
            let (mut begun, mut at_work) = (BTreeSet::new(), BTreeSet::new());
            for (now, (what, n)) in steps.into_iter().enumerate() {
                match what {
                    0 | 1 if !begun.contains(&n) => {
                        let before = at_work.len();
                        if table.begins(&wish(n, if n % 2 == 0 { "ants" } else { "bees" }, n), Timestamp(now as u64)) {
                            prop_assert!(before < max);
                            begun.insert(n);
                            at_work.insert(n);
                        }
                    }
                    2 if begun.contains(&n) => {
                        table.goes_on(agent(n));
                        at_work.insert(n);
                    }
                    _ => {
                        at_work.remove(&n);
                        for next in table.stops(agent(n)) {
                            prop_assert!(at_work.len() < max);
                            let next = next.as_bytes()[0];
                            prop_assert!(begun.insert(next) && at_work.insert(next));
                        }
                    }
                }
                let (working, waiting) = table.counts();
                prop_assert_eq!(working, at_work.len());
                prop_assert!(waiting == 0 || working >= max, "{waiting} wait beside {working}");
            }
        }
    }
}

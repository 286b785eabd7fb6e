//! Whose turn it is among flows that share something scarce: processor time, or the budget of a model's provider.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996, §2). Every flow has a place in
//! virtual time; the one that is furthest behind is next, and what it is given moves it on by cost ÷ weight. A flow that
//! comes back after a while starts at the present: it has saved nothing up. Within a flow, [`Rank`] decides.
//!
//! Holds:
//!   FQ-1  two flows that both always wait get shares in proportion to their weights, up to one item of each
//!   FQ-2  an item waits for a bounded number of others: those before it in its flow, and of every other flow what its
//!         weight gives it meanwhile
//!
//! Pure; the caller bounds how much waits. Every operation takes O(log n).

use std::collections::BTreeMap;

use nexa_types::{Millis, Timestamp};

/// Virtual time that one unit of cost takes at weight 1. Costs are divided by weights of up to this without loss of much.
const UNIT: u128 = 1 << 32;
/// Flows in which nothing waits and that have had more than their share so far. Above it they are forgotten, and start at
/// the present when they come back.
const REMEMBERED_MAX: usize = 1 << 16;
/// How much later one level less of priority is. So a low priority waits longer, and never for ever.
pub(crate) const PRIORITY_STEP: Millis = Millis(100);

/// A place within a flow: the earlier comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    due: u64,
    ticket: u64,
}

impl Rank {
    /// The place of something of this priority (255 is the most urgent) that has come now. Tickets grow, so that equals
    /// keep the order in which they came.
    pub(crate) fn new(now: Timestamp, priority: u8, ticket: u64) -> Self {
        let late = PRIORITY_STEP.0 * u64::from(u8::MAX - priority);
        Self { due: now.0.saturating_add(late), ticket }
    }

    /// A place that nothing but a number decides, and the ticket among equals.
    pub(crate) fn by(number: u64, ticket: u64) -> Self {
        Self { due: number, ticket }
    }

    /// In which order it came.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }
}

struct Waiting<T> {
    cost: u64,
    item: T,
}

struct Flow<T> {
    weight: u32,
    /// Where its next item starts in virtual time.
    start: u128,
    /// How far that is before its turn, because it was hurried; made up for with the item.
    ahead: u128,
    waiting: BTreeMap<Rank, Waiting<T>>,
}

/// Items of several flows that wait for their turn.
pub(crate) struct FairQueue<F, T> {
    flows: BTreeMap<F, Flow<T>>,
    /// The flows in which something waits, the one that is furthest behind first.
    next: BTreeMap<(u128, F), ()>,
    /// The start of what was taken last: the present.
    now: u128,
    len: usize,
}

impl<F: Ord + Clone, T> Default for FairQueue<F, T> {
    fn default() -> Self {
        Self { flows: BTreeMap::new(), next: BTreeMap::new(), now: 0, len: 0 }
    }
}

impl<F: Ord + Clone, T> FairQueue<F, T> {
    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts an item at its place. `weight` counts from now on for its flow; 0 is taken for 1.
    pub(crate) fn push(&mut self, flow: &F, weight: u32, rank: Rank, cost: u64, item: T) {
        let now = self.now;
        let entry =
            self.flows.entry(flow.clone()).or_insert(Flow { weight, start: now, ahead: 0, waiting: BTreeMap::new() });
        entry.weight = weight.max(1);
        if entry.waiting.is_empty() {
            entry.start = entry.start.max(now);
            self.next.insert((entry.start, flow.clone()), ());
        }
        if entry.waiting.insert(rank, Waiting { cost, item }).is_none() {
            self.len += 1;
        }
    }

    /// From now on this counts for a flow, if there is one; 0 is taken for 1. Where it stands is where it stood.
    pub(crate) fn weigh(&mut self, name: &F, weight: u32) {
        self.flows.get_mut(name).into_iter().for_each(|flow| flow.weight = weight.max(1));
    }

    /// Whose turn it is, and what it costs.
    pub(crate) fn peek(&self) -> Option<(&F, u64, &T)> {
        let ((_, flow), ()) = self.next.first_key_value()?;
        let (_, first) = self.flows.get(flow)?.waiting.first_key_value()?;
        Some((flow, first.cost, &first.item))
    }

    /// Takes what [`Self::peek`] shows; its flow moves on.
    pub(crate) fn pop(&mut self) -> Option<(F, T)> {
        let name = self.next.first_key_value()?.0.1.clone();
        let (first, _) = self.flows.get(&name)?.waiting.first_key_value()?;
        let item = self.take(&name, *first)?;
        Some((name, item))
    }

    /// Takes an item of the flow whose turn it is, not always the first of it; the flow moves on.
    pub(crate) fn take(&mut self, name: &F, rank: Rank) -> Option<T> {
        let flow = self.flows.get_mut(name)?;
        let taken = flow.waiting.remove(&rank)?;
        self.len -= 1;
        self.next.remove(&(flow.start, name.clone()));
        self.now = self.now.max(flow.start);
        flow.start += std::mem::take(&mut flow.ahead) + u128::from(taken.cost) * UNIT / u128::from(flow.weight);
        if !flow.waiting.is_empty() {
            self.next.insert((flow.start, name.clone()), ());
        }
        self.tidy();
        Some(taken.item)
    }

    /// Takes an item out of its place, without its flow moving on.
    pub(crate) fn remove(&mut self, name: &F, rank: Rank) -> Option<T> {
        let flow = self.flows.get_mut(name)?;
        let gone = flow.waiting.remove(&rank)?;
        self.len -= 1;
        if flow.waiting.is_empty() {
            self.next.remove(&(flow.start, name.clone()));
            flow.start += std::mem::take(&mut flow.ahead);
        }
        self.tidy();
        Some(gone.item)
    }

    /// Makes it the turn of a flow in which something waits, as if it had had no more than its share so far. What it has
    /// had counts again after its next item.
    pub(crate) fn hurry(&mut self, name: &F) {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(name) else { return };
        if flow.start > now && self.next.remove(&(flow.start, name.clone())).is_some() {
            flow.ahead += flow.start - now;
            flow.start = now;
            self.next.insert((now, name.clone()), ());
        }
    }

    /// Something of a flow cost this instead of what it was taken to cost; the flow moves on or back by the difference.
    /// Back even before the present: it was moved on too far, and what it is given back is its own. Only once nothing of
    /// it waits is that lost, as for every flow that comes back after a while.
    pub(crate) fn settle(&mut self, name: &F, taken: u64, real: u64) {
        let Some(flow) = self.flows.get_mut(name) else { return };
        let by = |cost: u64| u128::from(cost) * UNIT / u128::from(flow.weight);
        let start = (flow.start + by(real)).saturating_sub(by(taken));
        if !flow.waiting.is_empty() {
            self.next.remove(&(flow.start, name.clone()));
            self.next.insert((start, name.clone()), ());
        }
        flow.start = start;
    }

    /// Forgets flows that have nothing waiting and nothing to make up for, once there are more of them than of others.
    fn tidy(&mut self) {
        let idle = self.flows.len() - self.next.len();
        if idle > self.next.len() + 64 {
            let (now, is_too_much) = (self.now, idle > REMEMBERED_MAX);
            self.flows.retain(|_, flow| !flow.waiting.is_empty() || (flow.start > now && !is_too_much));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rank(ticket: u64) -> Rank {
        Rank::new(Timestamp(0), 100, ticket)
    }

    fn taken(queue: &mut FairQueue<u8, u64>, count: usize) -> Vec<u8> {
        (0..count).map_while(|_| queue.pop()).map(|(flow, _)| flow).collect()
    }

    #[test]
    fn a_flow_with_much_waiting_does_not_keep_others_from_their_turn() {
        let mut queue = FairQueue::default();
        for ticket in 0..1_000 {
            queue.push(&1, 1, rank(ticket), 10, ticket);
        }
        assert_eq!(taken(&mut queue, 100), [1; 100]);
        queue.push(&2, 1, rank(2_000), 10, 0);
        assert!(taken(&mut queue, 2).contains(&2));
    }

    #[test]
    fn a_flow_that_was_away_has_saved_nothing_up() {
        let mut queue = FairQueue::default();
        for ticket in 0..100 {
            queue.push(&1, 1, rank(ticket), 10, ticket);
        }
        taken(&mut queue, 50);
        for ticket in 0..50 {
            queue.push(&2, 1, rank(ticket), 10, ticket);
        }
        let turns = taken(&mut queue, 40);
        let of_the_first = turns.iter().filter(|flow| **flow == 1).count();
        assert!((19..=21).contains(&of_the_first), "{turns:?}");
    }

    #[test]
    fn a_low_priority_waits_longer_and_not_for_ever() {
        let mut queue = FairQueue::default();
        queue.push(&1, 1, Rank::new(Timestamp(0), 100, 0), 1, 'l');
        queue.push(&1, 1, Rank::new(Timestamp(9_999), 200, 1), 1, 'h');
        queue.push(&1, 1, Rank::new(Timestamp(10_001), 200, 2), 1, 'h');
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
        assert_eq!(order, "hlh");
    }

    #[test]
    fn what_cost_more_than_was_thought_is_made_up_for() {
        let mut queue = FairQueue::default();
        for ticket in 0..20 {
            queue.push(&1, 1, rank(ticket), 10, ticket);
            queue.push(&2, 1, rank(ticket), 10, ticket);
        }
        assert_eq!(taken(&mut queue, 1), [1]);
        queue.settle(&1, 10, 50);
        assert_eq!(taken(&mut queue, 6), [2, 2, 2, 2, 2, 1]);
    }

    proptest! {
        #[test]
        fn flows_that_always_wait_get_shares_by_weight(
            weights in proptest::collection::vec(1u32..8, 2..6),
            costs in proptest::collection::vec(1u64..1_000, 64),
            turns in 50usize..400,
        ) {
            let mut queue = FairQueue::default();
            let mut ticket = 0;
            let mut push = |queue: &mut FairQueue<usize, u64>, flow: usize| {
                let cost = costs[(ticket as usize) % costs.len()];
                queue.push(&flow, weights[flow], rank(ticket), cost, cost);
                ticket += 1;
            };
            for flow in 0..weights.len() {
                push(&mut queue, flow);
                push(&mut queue, flow);
            }
            let mut got = vec![0u64; weights.len()];
            for _ in 0..turns {
                let (flow, cost) = queue.pop().expect("every flow has something waiting");
                got[flow] += cost;
                push(&mut queue, flow);
            }
            // Goyal et al., theorem 1: what two flows got, each by its weight, differs by at most one item of each.
            for a in 0..weights.len() {
                for b in 0..weights.len() {
                    let share = |flow: usize| got[flow] as f64 / f64::from(weights[flow]);
                    let slack = 1_000.0 / f64::from(weights[a]) + 1_000.0 / f64::from(weights[b]);
                    prop_assert!((share(a) - share(b)).abs() <= slack, "{got:?} at {weights:?}");
                }
            }
        }

        /// What a call costs is known when it is over, and others had their turns meanwhile.
        #[test]
        fn shares_are_of_what_things_really_cost(
            weights in proptest::collection::vec(1u32..4, 2..6),
            costs in proptest::collection::vec(1u64..1_000, 64),
            under_way in 1usize..40,
        ) {
            let mut queue = FairQueue::default();
            let mut ticket = 0;
            // Each is taken to cost the most that it may.
            let mut push = |queue: &mut FairQueue<usize, u64>, flow: usize| {
                let real = costs[(ticket as usize) % costs.len()];
                queue.push(&flow, weights[flow], rank(ticket), 1_000, real);
                ticket += 1;
            };
            (0..weights.len()).for_each(|flow| push(&mut queue, flow));
            let (mut got, mut open) = (vec![0u64; weights.len()], std::collections::VecDeque::new());
            for _ in 0..2_000 {
                let (flow, real) = queue.pop().expect("every flow has something waiting");
                got[flow] += real;
                push(&mut queue, flow);
                open.push_back((flow, real));
                if open.len() > under_way && let Some((flow, real)) = open.pop_front() {
                    queue.settle(&flow, 1_000, real);
                }
            }
            // As for one item of each, and what is not settled yet.
            let unsettled = 1_000.0 * (1 + under_way) as f64;
            for a in 0..weights.len() {
                for b in 0..weights.len() {
                    let share = |flow: usize| got[flow] as f64 / f64::from(weights[flow]);
                    let slack = (1_000.0 + unsettled) / f64::from(weights[a].min(weights[b])) + 1_000.0;
                    prop_assert!((share(a) - share(b)).abs() <= slack, "{got:?} at {weights:?}");
                }
            }
        }

        #[test]
        fn nothing_is_lost_or_given_twice(steps in proptest::collection::vec((0u8..4, 0u8..3, 0u64..64), 1..200)) {
            let mut queue = FairQueue::default();
            let mut there = std::collections::BTreeSet::new();
            for (what, flow, ticket) in steps {
                match what {
                    0 | 1 => {
                        queue.push(&flow, 1, rank(ticket), ticket, (flow, ticket));
                        there.insert((flow, ticket));
                    }
                    2 => {
                        let gone = queue.remove(&flow, rank(ticket));
                        prop_assert_eq!(gone.is_some(), there.remove(&(flow, ticket)));
                    }
                    _ => {
                        let shown = queue.peek().map(|(_, _, item)| *item);
                        let next = queue.pop().map(|(_, item)| item);
                        prop_assert_eq!(shown, next);
                        prop_assert!(next.is_none_or(|item| there.remove(&item)));
                        prop_assert!(next.is_some() || there.is_empty());
                    }
                }
                prop_assert_eq!(queue.len(), there.len());
            }
        }
    }
}

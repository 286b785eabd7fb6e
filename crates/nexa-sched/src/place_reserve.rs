//! Room for a gang, held on several nodes at once without waiting and without leaks.
//!
//! ```text
//! attempt                                   nodes, in ascending order
//! reserve 2 ─► yes ─► reserve 5 ─► yes ─► reserve 7 ─► yes ─► confirm 2, 5, 7 ─► held
//!                                              └─ no, or no answer in time ─► release 2, 5, 7: given up
//! ```
//!
//! [`Reservations`] is a node's side, [`GangAttempt`] that of whoever wants the room. Both are step machines: they are told
//! the time, and messages may be lost, late or doubled between them.
//!
//! Holds, here and in the tests:
//!   RV-1  what is held on a node never exceeds its capacity
//!   RV-2  every hold ends by itself: a reserved one after its span, a confirmed one too unless it is confirmed again. So
//!         nothing is lost with whoever held it
//!   RV-3  nobody waits while holding: what is refused gives back everything at once
//!   RV-4  a gang is held on all of its nodes or gives up all of them
//!
//! Why nobody starves of each other: nodes are asked one at a time and in ascending order. Of several attempts that are in
//! each other's way, take the refusal at the highest node: whoever holds that node was refused nowhere above it, and so not
//! at all. Some attempt always succeeds.
//!
//! Spans count from when a node hears of them, by its own clock; an attempt counts from before it asked. So clocks need not
//! agree. Not here: sending, asking again after giving up (with a new [`HoldId`], and a pause that is not the same for all).

use std::collections::{BTreeMap, BTreeSet};

use nexa_types::Millis;

use crate::Resources;

/// How many holds a node keeps at a time. More are refused.
pub const HOLDS_MAX: usize = 10_000;

/// The longest a hold lasts without being confirmed again. A longer span is taken for this.
pub const HOLD_SPAN_MAX: Millis = Millis(60_000);

/// One attempt of one gang. Each attempt has an id of its own, so that what is late of an earlier one is known as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId {
    /// Whose it is.
    pub gang: u64,
    /// Which attempt.
    pub attempt: u32,
}

/// Why a node refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// Others hold what is asked for.
    #[error("the node has no room left; try another node, or later")]
    NoRoom,
    /// It keeps too many holds.
    #[error("the node keeps {HOLDS_MAX} holds, which is all it may; try another node, or later")]
    TooManyHolds,
    /// The same attempt holds something else there.
    #[error("this attempt already holds something else on the node; begin a new attempt")]
    Mismatch,
    /// There is no such hold any more.
    #[error("the hold has ended; begin a new attempt")]
    Ended,
}

#[derive(Debug, Clone)]
struct Hold {
    resources: Resources,
    until: Millis,
    is_confirmed: bool,
}

/// What is held on one node.
#[derive(Debug, Clone)]
pub struct Reservations {
    capacity: Resources,
    held: Resources,
    holds: BTreeMap<HoldId, Hold>,
    /// Reserved ones first, as they end.
    ends: BTreeSet<(bool, Millis, HoldId)>,
}

impl Reservations {
    /// A node with nothing held.
    #[must_use]
    pub fn new(capacity: Resources) -> Self {
        Self { capacity, held: Resources::default(), holds: BTreeMap::new(), ends: BTreeSet::new() }
    }

    /// Holds something for `span`. Asking for the same again is no second hold and does not prolong it.
    ///
    /// # Errors
    /// [`ReserveError`] if there is no room, now; nothing is queued.
    pub fn reserve(&mut self, id: HoldId, resources: Resources, span: Millis, now: Millis) -> Result<(), ReserveError> {
        self.drop_reserved(now);
        if let Some(hold) = self.holds.get(&id) {
            return if hold.resources == resources { Ok(()) } else { Err(ReserveError::Mismatch) };
        }
        if self.holds.len() >= HOLDS_MAX {
            return Err(ReserveError::TooManyHolds);
        }
        if !resources.fits(&self.capacity.minus(&self.held)) {
            return Err(ReserveError::NoRoom);
        }
        let until = now + span.min(HOLD_SPAN_MAX);
        self.held = self.held.plus(&resources);
        self.holds.insert(id, Hold { resources, until, is_confirmed: false });
        self.ends.insert((false, until, id));
        Ok(())
    }

    /// Makes a reserved hold a confirmed one, or prolongs a confirmed one: from now on it lasts for `span`.
    ///
    /// # Errors
    /// [`ReserveError::Ended`] if it is no longer there.
    pub fn confirm(&mut self, id: HoldId, span: Millis, now: Millis) -> Result<(), ReserveError> {
        self.drop_reserved(now);
        let hold = self.holds.get_mut(&id).filter(|hold| hold.until > now).ok_or(ReserveError::Ended)?;
        self.ends.remove(&(hold.is_confirmed, hold.until, id));
        hold.is_confirmed = true;
        hold.until = now + span.min(HOLD_SPAN_MAX);
        self.ends.insert((true, hold.until, id));
        Ok(())
    }

    /// Ends a hold; nothing if there is none.
    pub fn release(&mut self, id: HoldId) {
        if let Some(hold) = self.holds.remove(&id) {
            self.ends.remove(&(hold.is_confirmed, hold.until, id));
            self.held = self.held.minus(&hold.resources);
        }
    }

    /// Ends what has lasted its time. Gives the confirmed ones among those: whatever runs in them must stop, now. Their room
    /// is not given away before this was called, so call it at [`next_end`](Self::next_end) at the latest.
    #[must_use = "what ran in these must stop"]
    pub fn expire(&mut self, now: Millis) -> Vec<HoldId> {
        self.drop_reserved(now);
        let mut stopped = Vec::new();
        while let Some((_, _, id)) = self.ends.first().copied().filter(|(_, until, _)| *until <= now) {
            stopped.push(id);
            self.release(id);
        }
        stopped
    }

    /// What is not held.
    #[must_use]
    pub fn free(&mut self, now: Millis) -> Resources {
        self.drop_reserved(now);
        self.capacity.minus(&self.held)
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[must_use]
    pub fn next_end(&self) -> Option<Millis> {
        let confirmed = self.ends.range((true, Millis(0), HoldId { gang: 0, attempt: 0 })..).next();
        self.ends.first().into_iter().chain(confirmed).map(|(_, until, _)| *until).min()
    }

    /// How many holds there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.holds.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// Ends reserved holds that have lasted their time. Nothing runs in those.
    fn drop_reserved(&mut self, now: Millis) {
        while let Some((false, until, id)) = self.ends.first().copied()
            && until <= now
        {
            self.release(id);
        }
    }

    /// Whether a hold is there and confirmed.
    #[must_use]
    pub fn is_confirmed(&self, id: HoldId) -> bool {
        self.holds.get(&id).is_some_and(|hold| hold.is_confirmed)
    }
}

/// What an attempt wants said to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GangStep {
    /// To which node.
    pub node: u32,
    /// What.
    pub ask: GangAsk,
}

/// What is said to a node; each is the method of [`Reservations`] of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GangAsk {
    /// Hold this for so long. Wants an answer.
    Reserve {
        /// What all members on this node need together.
        resources: Resources,
        /// For how long.
        span: Millis,
    },
    /// Go on holding for so long. Wants an answer.
    Confirm {
        /// For how long.
        span: Millis,
        /// Which round of confirming: an answer counts for its own.
        round: u32,
    },
    /// Let go. Whether it arrives does not matter, the hold ends by itself.
    Release,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GangState {
    /// Nodes are asked, one at a time.
    Reserving,
    /// All have reserved, not all have confirmed.
    Confirming,
    /// The gang may start. It must be [renewed](GangAttempt::renew) in time.
    Held,
    /// Nothing is held, or soon will not be.
    GivenUp {
        /// The node that refused; none if time was up.
        at: Option<u32>,
    },
}

/// One try to hold room on several nodes.
#[derive(Debug, Clone)]
pub struct GangAttempt {
    id: HoldId,
    span: Millis,
    /// In ascending order of nodes.
    asks: Vec<(u32, Resources)>,
    /// Which of them have given the answer that is waited for.
    answered: Vec<bool>,
    state: GangState,
    /// When the earliest of what is held may end.
    until: Millis,
    /// The round of confirming, and when it began.
    round: (u32, Millis),
}

impl GangAttempt {
    /// An attempt to hold, for each member, its `resources` on its node: `places` is what
    /// [`place_gang`](crate::place_gang) gave. All of it must be held within `span`, and each confirmation lasts as long. A
    /// gang without members is held at once.
    #[must_use]
    pub fn new(
        id: HoldId,
        places: &[u32],
        resources: &[Resources],
        span: Millis,
        now: Millis,
    ) -> (Self, Option<GangStep>) {
        let mut on_node: BTreeMap<u32, Resources> = BTreeMap::new();
        for (node, needs) in places.iter().zip(resources) {
            let sum = on_node.entry(*node).or_default();
            *sum = sum.plus(needs);
        }
        let span = span.min(HOLD_SPAN_MAX);
        let asks: Vec<(u32, Resources)> = on_node.into_iter().collect();
        let state = if asks.is_empty() { GangState::Held } else { GangState::Reserving };
        let attempt =
            Self { id, span, answered: vec![false; asks.len()], asks, state, until: now + span, round: (0, now) };
        let first = (!attempt.asks.is_empty()).then(|| attempt.reserve(0));
        (attempt, first)
    }

    /// How far it is.
    #[must_use]
    pub fn state(&self) -> GangState {
        self.state
    }

    /// By which id nodes know it.
    #[must_use]
    pub fn id(&self) -> HoldId {
        self.id
    }

    /// The nodes it needs, in ascending order.
    pub fn nodes(&self) -> impl Iterator<Item = u32> + '_ {
        self.asks.iter().map(|(node, _)| *node)
    }

    /// When it gives up unless all nodes have answered; nothing of the gang may run after it.
    #[must_use]
    pub fn until(&self) -> Millis {
        self.until
    }

    /// A node's answer to what it was asked. What is late or doubled changes nothing.
    pub fn answer(&mut self, node: u32, ask: &GangAsk, answer: Result<(), ReserveError>, now: Millis) -> Vec<GangStep> {
        let given_up = self.tick(now);
        let is_awaited = match (self.state, ask) {
            (GangState::Reserving, GangAsk::Reserve { .. }) => true,
            (GangState::Confirming | GangState::Held, GangAsk::Confirm { round, .. }) => *round == self.round.0,
            _ => false,
        };
        let Ok(at) = self.asks.binary_search_by_key(&node, |(node, _)| *node) else { return given_up };
        if !is_awaited || self.answered[at] {
            return given_up;
        }
        if answer.is_err() {
            return self.give_up(Some(node));
        }
        self.answered[at] = true;
        if !self.answered.iter().all(|answered| *answered) {
            // The next is asked only now; confirmations were all asked for at once.
            let next =
                (self.state == GangState::Reserving).then(|| self.answered.iter().position(|answered| !answered));
            return next.flatten().map(|at| self.reserve(at)).into_iter().collect();
        }
        if self.state == GangState::Reserving {
            self.state = GangState::Confirming;
            return self.confirm(now);
        }
        self.state = GangState::Held;
        self.until = self.round.1 + self.span;
        Vec::new()
    }

    /// Asks all nodes to hold on, if the gang is held. Until all have answered, [`until`](Self::until) stays.
    pub fn renew(&mut self, now: Millis) -> Vec<GangStep> {
        let given_up = self.tick(now);
        if self.state == GangState::Held { self.confirm(now) } else { given_up }
    }

    /// Gives up if time is up.
    pub fn tick(&mut self, now: Millis) -> Vec<GangStep> {
        let is_over = now >= self.until && !matches!(self.state, GangState::GivenUp { .. });
        if is_over && !self.asks.is_empty() { self.give_up(None) } else { Vec::new() }
    }

    /// Lets go of everything: the gang has ended, or is no longer wanted.
    pub fn release(&mut self) -> Vec<GangStep> {
        if matches!(self.state, GangState::GivenUp { .. }) { Vec::new() } else { self.give_up(None) }
    }

    fn reserve(&self, at: usize) -> GangStep {
        let (node, resources) = self.asks[at];
        GangStep { node, ask: GangAsk::Reserve { resources, span: self.span } }
    }

    fn confirm(&mut self, now: Millis) -> Vec<GangStep> {
        self.round = (self.round.0.wrapping_add(1), now);
        self.answered.fill(false);
        let ask = GangAsk::Confirm { span: self.span, round: self.round.0 };
        self.asks.iter().map(|(node, _)| GangStep { node: *node, ask }).collect()
    }

    /// Releases every node that was asked for anything, also one that has not answered: its answer may be on its way.
    fn give_up(&mut self, at: Option<u32>) -> Vec<GangStep> {
        let asked = match self.state {
            GangState::Reserving => self.answered.iter().filter(|answered| **answered).count() + 1,
            _ => self.asks.len(),
        };
        self.state = GangState::GivenUp { at };
        self.asks.iter().take(asked).map(|(node, _)| GangStep { node: *node, ask: GangAsk::Release }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Resources = Resources { cpu_milli: 4_000, memory_bytes: 4, llm_slots: 4 };
    const ONE: Resources = Resources { cpu_milli: 1_000, memory_bytes: 1, llm_slots: 1 };
    const SPAN: Millis = Millis(100);

    fn id(gang: u64) -> HoldId {
        HoldId { gang, attempt: 0 }
    }

    #[test]
    fn a_hold_ends_by_itself_reserved_or_confirmed() {
        let mut node = Reservations::new(NODE);
        for gang in 0..4 {
            assert_eq!(node.reserve(id(gang), ONE, SPAN, Millis(gang)), Ok(()));
        }
        assert_eq!(node.reserve(id(9), ONE, SPAN, Millis(99)), Err(ReserveError::NoRoom));
        assert_eq!(node.confirm(id(1), SPAN, Millis(50)), Ok(()));
        assert_eq!(node.expire(Millis(103)), []);
        assert_eq!((node.len(), node.next_end(), node.free(Millis(103))), (1, Some(Millis(150)), NODE.minus(&ONE)));
        assert_eq!(node.confirm(id(0), SPAN, Millis(103)), Err(ReserveError::Ended));
        assert_eq!(node.free(Millis(150)), NODE.minus(&ONE), "it may still run");
        assert_eq!(node.confirm(id(1), SPAN, Millis(150)), Err(ReserveError::Ended));
        assert_eq!(node.expire(Millis(150)), [id(1)], "whatever runs in it must stop");
        assert_eq!((node.free(Millis(150)), node.next_end()), (NODE, None));
    }

    #[test]
    fn the_same_twice_is_held_once_and_something_else_is_refused() {
        let mut node = Reservations::new(NODE);
        assert_eq!(node.reserve(id(1), ONE, SPAN, Millis(0)), Ok(()));
        assert_eq!(node.reserve(id(1), ONE, SPAN, Millis(60)), Ok(()));
        assert_eq!(node.reserve(id(1), NODE, SPAN, Millis(60)), Err(ReserveError::Mismatch));
        assert_eq!((node.free(Millis(60)), node.next_end()), (NODE.minus(&ONE), Some(Millis(100))));
        node.release(id(1));
        node.release(id(1));
        assert_eq!(node.free(Millis(60)), NODE);
        assert_eq!(node.reserve(id(2), ONE, Millis(u64::MAX), Millis(0)), Ok(()));
        assert_eq!(node.next_end(), Some(HOLD_SPAN_MAX));
    }

    #[test]
    fn a_node_keeps_no_more_holds_than_it_may() {
        let mut node = Reservations::new(Resources::default());
        for gang in 0..HOLDS_MAX as u64 {
            assert_eq!(node.reserve(id(gang), Resources::default(), SPAN, Millis(0)), Ok(()));
        }
        let one_more =
            |node: &mut Reservations, now| node.reserve(id(u64::MAX), Resources::default(), SPAN, Millis(now));
        assert_eq!(one_more(&mut node, 99), Err(ReserveError::TooManyHolds));
        assert_eq!(one_more(&mut node, 100), Ok(()));
    }

    #[test]
    fn an_attempt_asks_in_ascending_order_and_starts_when_all_have_confirmed() {
        let (mut attempt, first) = GangAttempt::new(id(1), &[7, 2, 7], &[ONE; 3], SPAN, Millis(0));
        let reserve = |node, resources| GangStep { node, ask: GangAsk::Reserve { resources, span: SPAN } };
        assert_eq!(first, Some(reserve(2, ONE)));
        let second = reserve(7, ONE.plus(&ONE));
        assert_eq!(attempt.answer(2, &reserve(2, ONE).ask, Ok(()), Millis(10)), [second]);
        assert_eq!(attempt.answer(2, &reserve(2, ONE).ask, Ok(()), Millis(11)), [], "doubled");
        let ask = GangAsk::Confirm { span: SPAN, round: 1 };
        assert_eq!(attempt.answer(7, &second.ask, Ok(()), Millis(20)).len(), 2);
        assert_eq!(attempt.answer(7, &ask, Ok(()), Millis(30)), []);
        assert_eq!(attempt.state(), GangState::Confirming);
        assert_eq!(attempt.answer(2, &ask, Ok(()), Millis(30)), []);
        assert_eq!((attempt.state(), attempt.until()), (GangState::Held, Millis(120)));
        assert_eq!(attempt.renew(Millis(60)).len(), 2);
        assert_eq!(attempt.answer(2, &GangAsk::Confirm { span: SPAN, round: 2 }, Ok(()), Millis(70)), []);
        assert_eq!(attempt.answer(7, &ask, Ok(()), Millis(70)), [], "of the round before");
        assert_eq!(attempt.until(), Millis(120));
        assert_eq!(attempt.tick(Millis(120)).len(), 2);
        assert_eq!(attempt.state(), GangState::GivenUp { at: None });
    }

    #[test]
    fn what_is_refused_gives_back_what_it_has_and_what_it_asked_for() {
        let (mut attempt, _) = GangAttempt::new(id(1), &[1, 2, 3, 4], &[ONE; 4], SPAN, Millis(0));
        let ask = GangAsk::Reserve { resources: ONE, span: SPAN };
        for node in [1, 2] {
            assert_eq!(attempt.answer(node, &ask, Ok(()), Millis(1)).len(), 1);
        }
        let released = attempt.answer(3, &ask, Err(ReserveError::NoRoom), Millis(2));
        assert_eq!(released.iter().map(|step| step.node).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(released.iter().all(|step| step.ask == GangAsk::Release));
        assert_eq!(attempt.state(), GangState::GivenUp { at: Some(3) });
        assert_eq!(attempt.answer(3, &ask, Ok(()), Millis(3)), []);
    }
}

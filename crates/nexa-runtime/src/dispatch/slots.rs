//! Who may send now, who waits, and what is on its way. Pure: times come in as arguments, and who is to be told goes out.
//!
//! Holds:
//!   MD-1  calls in flight in a lane never exceed the lane's slots
//!   MD-2  a slot is granted in order of priority, then of asking; nobody overtakes a waiting one of equal priority
//!   MD-3  an effect is sent at most once per key and attempt
//!   MD-4  a finished effect is kept until its agent has recorded it, and at most `held_results_max` are kept:
//!         at the bound no further slot is granted until some are recorded

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use nexa_event::fact::EffectResult;
use nexa_types::{AgentId, EffectKey, Seq, Spend, Timestamp};
use tokio_util::sync::CancellationToken;

/// Limits of the dispatcher.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelLimits {
    pub(crate) reservations_max: usize,
    pub(crate) held_results_max: usize,
}

/// What became of a wish for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserve {
    /// A slot is held for the agent, who may send.
    Granted,
    /// The agent is in the waiting list and is nudged when a slot is held for it.
    Waiting,
    /// The waiting list is full.
    Full,
}

/// An effect that has ended and is not recorded yet.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) key: EffectKey,
    pub(crate) seq: Seq,
    pub(crate) attempt: u32,
    pub(crate) result: EffectResult,
    pub(crate) spend: Spend,
}

/// How busy the dispatcher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModelLoad {
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
    pub(crate) held: usize,
}

struct Flight {
    attempt: u32,
    cancel: CancellationToken,
    abandoned: bool,
    finished: Option<Finished>,
}

#[derive(Default)]
struct Lane {
    slots: usize,
    /// Calls in flight and slots held for agents.
    busy: usize,
    paused_until: Option<Timestamp>,
    waiting: BTreeMap<Place, AgentId>,
}

/// A place in a waiting list: by priority, then by ticket.
type Place = (Reverse<u8>, u64);

/// Where an agent stands with its one wish.
enum Wish {
    Waiting { lane: String, place: Place },
    Granted { lane: String },
}

/// The table of a dispatcher.
pub(super) struct Slots {
    limits: ModelLimits,
    lanes: BTreeMap<String, Lane>,
    wishes: HashMap<AgentId, Wish>,
    flights: BTreeMap<(AgentId, EffectKey), Flight>,
    held: usize,
    tickets: u64,
}

impl Slots {
    pub(super) fn new(limits: ModelLimits) -> Self {
        let (lanes, wishes, flights) = (BTreeMap::new(), HashMap::new(), BTreeMap::new());
        Self { limits, lanes, wishes, flights, held: 0, tickets: 0 }
    }

    /// Wants a slot of a lane. Asking again while waiting or holding changes nothing. Also gives who else has got one.
    pub(super) fn reserve(
        &mut self,
        agent: AgentId,
        name: String,
        slots: usize,
        priority: u8,
        now: Timestamp,
    ) -> (Reserve, Vec<AgentId>) {
        match self.wishes.get(&agent) {
            Some(Wish::Granted { lane }) if *lane == name => return (Reserve::Granted, Vec::new()),
            Some(Wish::Waiting { lane, .. }) if *lane == name => return (Reserve::Waiting, Vec::new()),
            Some(_) | None => {}
        }
        // A slot of another lane that it gives up for this one is somebody else's now.
        let mut granted = self.withdraw(agent, now);
        self.tickets += 1;
        let place = (Reverse(priority), self.tickets);
        let lane = self.lanes.entry(name.clone()).or_default();
        lane.slots = slots;
        if lane.waiting.len() >= self.limits.reservations_max {
            return (Reserve::Full, granted);
        }
        lane.waiting.insert(place, agent);
        self.wishes.insert(agent, Wish::Waiting { lane: name.clone(), place });
        granted.extend(self.grant(&name, now));
        let before = granted.len();
        granted.retain(|other| *other != agent);
        (if granted.len() < before { Reserve::Granted } else { Reserve::Waiting }, granted)
    }

    /// Whether a slot is held for the agent.
    #[cfg(test)]
    pub(super) fn holds_slot(&self, agent: AgentId) -> bool {
        matches!(self.wishes.get(&agent), Some(Wish::Granted { .. }))
    }

    /// Gives up the agent's wish, granted or waiting.
    pub(super) fn withdraw(&mut self, agent: AgentId, now: Timestamp) -> Vec<AgentId> {
        if !self.wishes.contains_key(&agent) {
            return Vec::new();
        }
        self.give_back(agent);
        self.grant_all(now)
    }

    /// Uses the slot that is held for the agent; gives its lane, and who has got a slot because an unrecorded end of an
    /// earlier attempt gave way. `None` if no slot is held, or if this attempt was sent before.
    pub(super) fn take_off(
        &mut self,
        agent: AgentId,
        key: EffectKey,
        attempt: u32,
        cancel: CancellationToken,
        now: Timestamp,
    ) -> Option<(String, Vec<AgentId>)> {
        if self.flights.get(&(agent, key)).is_some_and(|flight| flight.attempt >= attempt) {
            return None;
        }
        let Some(Wish::Granted { lane }) = self.wishes.get(&agent) else { return None };
        let lane = lane.clone();
        self.wishes.remove(&agent);
        let flight = Flight { attempt, cancel, abandoned: false, finished: None };
        if self.flights.insert((agent, key), flight).is_some_and(|earlier| earlier.finished.is_some()) {
            self.held -= 1;
            return Some((lane, self.grant_all(now)));
        }
        Some((lane, Vec::new()))
    }

    /// A call has ended: its slot is free, the lane may have to pause. Whether anybody wants the result, and who is
    /// next.
    pub(super) fn land(
        &mut self,
        name: &str,
        agent: AgentId,
        finished: Finished,
        paused_until: Option<Timestamp>,
        now: Timestamp,
    ) -> (bool, Vec<AgentId>) {
        if let Some(lane) = self.lanes.get_mut(name) {
            lane.busy -= 1;
            lane.paused_until = lane.paused_until.max(paused_until);
        }
        let place = (agent, finished.key);
        let is_wanted = match self.flights.get_mut(&place) {
            // A later attempt has taken its place.
            Some(flight) if flight.attempt != finished.attempt => false,
            Some(flight) if !flight.abandoned => {
                flight.finished = Some(finished);
                self.held += 1;
                true
            }
            _ => {
                self.flights.remove(&place);
                false
            }
        };
        (is_wanted, self.grant_all(now))
    }

    /// Whether an effect is in flight, or finished and not recorded.
    pub(super) fn carries(&self, agent: AgentId, key: EffectKey) -> bool {
        self.flights.get(&(agent, key)).is_some_and(|flight| !flight.abandoned)
    }

    /// The effects of an agent that have ended and are not recorded.
    pub(super) fn finished(&self, agent: AgentId) -> impl Iterator<Item = &Finished> {
        self.flights_of(agent).filter_map(|(_, flight)| flight.finished.as_ref())
    }

    /// Whether any effect of the agent is in flight or waits to be recorded.
    pub(super) fn is_in_flight_for(&self, agent: AgentId) -> bool {
        self.flights_of(agent).any(|(_, flight)| !flight.abandoned)
    }

    /// Whether the agent waits for a slot or holds one.
    pub(super) fn has_wish(&self, agent: AgentId) -> bool {
        self.wishes.contains_key(&agent)
    }

    /// The end of an effect is recorded; it is forgotten here.
    pub(super) fn settle(&mut self, agent: AgentId, key: EffectKey, now: Timestamp) -> Vec<AgentId> {
        if self.flights.get(&(agent, key)).is_none_or(|flight| flight.finished.is_none()) {
            return Vec::new();
        }
        self.flights.remove(&(agent, key));
        self.held -= 1;
        self.grant_all(now)
    }

    /// Nobody wants the result of an effect any more: cancels the call and forgets it.
    pub(super) fn abandon(&mut self, agent: AgentId, key: EffectKey, now: Timestamp) -> Vec<AgentId> {
        if let Some(flight) = self.flights.get_mut(&(agent, key)) {
            flight.abandoned = true;
            flight.cancel.cancel();
        }
        self.settle(agent, key, now)
    }

    /// Abandons and withdraws whatever an agent has here.
    pub(super) fn forget(&mut self, agent: AgentId, now: Timestamp) -> Vec<AgentId> {
        let keys: Vec<EffectKey> = self.flights_of(agent).map(|(key, _)| *key).collect();
        let mut granted: Vec<AgentId> = keys.into_iter().flat_map(|key| self.abandon(agent, key, now)).collect();
        granted.extend(self.withdraw(agent, now));
        granted
    }

    pub(super) fn load(&self) -> ModelLoad {
        ModelLoad {
            in_flight: self.flights.values().filter(|flight| flight.finished.is_none()).count(),
            waiting: self.lanes.values().map(|lane| lane.waiting.len()).sum(),
            held: self.held,
        }
    }

    /// Hands free slots of all lanes to those who wait.
    pub(super) fn grant_all(&mut self, now: Timestamp) -> Vec<AgentId> {
        let waited_for = self.lanes.iter().filter(|(_, lane)| !lane.waiting.is_empty());
        let names: Vec<String> = waited_for.map(|(name, _)| name.clone()).collect();
        names.iter().flat_map(|name| self.grant(name, now)).collect()
    }

    fn grant(&mut self, name: &str, now: Timestamp) -> Vec<AgentId> {
        let Some(lane) = self.lanes.get_mut(name) else { return Vec::new() };
        if self.held >= self.limits.held_results_max || lane.paused_until.is_some_and(|until| until > now) {
            return Vec::new();
        }
        lane.paused_until = None;
        let mut granted = Vec::new();
        while lane.busy < lane.slots
            && let Some((_, agent)) = lane.waiting.pop_first()
        {
            lane.busy += 1;
            self.wishes.insert(agent, Wish::Granted { lane: name.to_owned() });
            granted.push(agent);
        }
        granted
    }

    fn give_back(&mut self, agent: AgentId) {
        match self.wishes.remove(&agent) {
            Some(Wish::Waiting { lane, place }) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.waiting.remove(&place);
                }
            }
            Some(Wish::Granted { lane }) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.busy -= 1;
                }
            }
            None => {}
        }
    }

    fn flights_of(&self, agent: AgentId) -> impl Iterator<Item = (&EffectKey, &Flight)> {
        let first = (agent, EffectKey::from_bytes([0; 32]));
        let last = (agent, EffectKey::from_bytes([0xFF; 32]));
        self.flights.range(first..=last).map(|((_, key), flight)| (key, flight))
    }
}

#[cfg(test)]
mod tests {
    use nexa_types::{Failure, RunCode};
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Move {
        Reserve { agent: u8, lane: u8, priority: u8 },
        Withdraw(u8),
        Send(u8),
        Land { nth: usize, pause: bool },
        Settle(u8),
        Abandon(u8),
        Forget(u8),
        Wait,
    }

    fn moves() -> impl Strategy<Value = Move> {
        let agent = 0u8..8;
        prop_oneof![
            4 => (agent.clone(), 0u8..2, 0u8..3)
                .prop_map(|(agent, lane, priority)| Move::Reserve { agent, lane, priority }),
            1 => agent.clone().prop_map(Move::Withdraw),
            4 => agent.clone().prop_map(Move::Send),
            3 => (0usize..8, proptest::bool::weighted(0.2)).prop_map(|(nth, pause)| Move::Land { nth, pause }),
            3 => agent.clone().prop_map(Move::Settle),
            1 => agent.clone().prop_map(Move::Abandon),
            1 => agent.prop_map(Move::Forget),
            1 => Just(Move::Wait),
        ]
    }

    fn id(agent: u8) -> AgentId {
        AgentId::from_bytes([agent; 16])
    }

    fn key(agent: u8) -> EffectKey {
        EffectKey::from_bytes([agent; 32])
    }

    /// Found by the property below.
    #[test]
    fn a_slot_given_up_for_another_lane_goes_to_who_waits_for_it() {
        let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 3 });
        let now = Timestamp(0);
        assert_eq!(slots.reserve(id(1), "a".into(), 1, 0, now), (Reserve::Granted, vec![]));
        assert_eq!(slots.reserve(id(2), "a".into(), 1, 0, now), (Reserve::Waiting, vec![]));
        assert_eq!(slots.reserve(id(1), "b".into(), 1, 0, now), (Reserve::Granted, vec![id(2)]));
        assert!(slots.holds_slot(id(1)) && slots.holds_slot(id(2)));
    }

    /// Found by the property below.
    #[test]
    fn a_second_attempt_makes_room_for_another_result() {
        let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 1 });
        let (now, cancel) = (Timestamp(0), CancellationToken::new());
        slots.reserve(id(1), "a".into(), 2, 0, now);
        slots.take_off(id(1), key(1), 1, cancel.clone(), now);
        slots.reserve(id(1), "a".into(), 2, 0, now);
        let result = EffectResult::Failed(Failure::new(RunCode::Failed, "x"));
        let finished = Finished { key: key(1), seq: Seq(1), attempt: 1, result, spend: Spend::default() };
        slots.land("a", id(1), finished, None, now);
        assert_eq!(slots.reserve(id(2), "a".into(), 2, 0, now), (Reserve::Waiting, vec![]), "a result is unrecorded");
        assert_eq!(slots.take_off(id(1), key(1), 2, cancel, now), Some(("a".into(), vec![id(2)])));
    }

    proptest! {
        #[test]
        fn slots_are_never_overbooked_and_nobody_is_forgotten(moves in prop::collection::vec(moves(), 1..200)) {
            const SLOTS: usize = 2;
            let limits = ModelLimits { reservations_max: 4, held_results_max: 3 };
            let mut slots = Slots::new(limits);
            let mut now = Timestamp(0);
            let mut flying: Vec<(u8, u32, String)> = Vec::new();
            let mut attempts = [0u32; 8];
            for step in moves {
                match step {
                    Move::Reserve { agent, lane, priority } => {
                        slots.reserve(id(agent), format!("lane {lane}"), SLOTS, priority, now);
                    }
                    Move::Withdraw(agent) => drop(slots.withdraw(id(agent), now)),
                    Move::Send(agent) => {
                        let attempt = attempts[usize::from(agent)] + 1;
                        let held = slots.holds_slot(id(agent));
                        let lane = slots.take_off(id(agent), key(agent), attempt, CancellationToken::new(), now);
                        prop_assert_eq!(lane.is_some(), held, "a held slot can be used, another not");
                        if let Some((lane, _)) = lane {
                            attempts[usize::from(agent)] = attempt;
                            flying.push((agent, attempt, lane));
                            let again = slots.take_off(id(agent), key(agent), attempt, CancellationToken::new(), now);
                            prop_assert!(again.is_none(), "MD-3");
                        }
                    }
                    Move::Land { nth, pause } if nth < flying.len() => {
                        let (agent, attempt, lane) = flying.swap_remove(nth);
                        let result = EffectResult::Failed(Failure::new(RunCode::Failed, "x"));
                        let finished = Finished { key: key(agent), seq: Seq(1), attempt, result, spend: Spend::default() };
                        let paused_until = pause.then(|| Timestamp(now.0 + 5));
                        slots.land(&lane, id(agent), finished, paused_until, now);
                    }
                    Move::Land { .. } => {}
                    Move::Settle(agent) => drop(slots.settle(id(agent), key(agent), now)),
                    Move::Abandon(agent) => drop(slots.abandon(id(agent), key(agent), now)),
                    Move::Forget(agent) => {
                        slots.forget(id(agent), now);
                        prop_assert!(!slots.has_wish(id(agent)) && !slots.is_in_flight_for(id(agent)));
                    }
                    Move::Wait => {
                        now = Timestamp(now.0 + 3);
                        slots.grant_all(now);
                    }
                }
                for (name, lane) in &slots.lanes {
                    let in_lane = flying.iter().filter(|(_, _, lane)| lane == name).count();
                    let granted = |wish: &&Wish| matches!(wish, Wish::Granted { lane } if lane == name);
                    let holding = slots.wishes.values().filter(granted).count();
                    prop_assert_eq!(lane.busy, in_lane + holding, "every busy slot is somebody's");
                    prop_assert!(lane.busy <= SLOTS, "MD-1");
                    prop_assert!(lane.waiting.len() <= limits.reservations_max);
                    let is_open = lane.paused_until.is_none_or(|until| until <= now) && slots.held < limits.held_results_max;
                    prop_assert!(!is_open || lane.busy == SLOTS || lane.waiting.is_empty(), "nobody waits beside a free slot");
                }
                let finished = slots.flights.values().filter(|flight| flight.finished.is_some()).count();
                prop_assert_eq!(slots.held, finished);
            }
        }
    }
}

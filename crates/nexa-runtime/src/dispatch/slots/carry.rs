//! Effects whose agents have moved, on both sides: those that this node goes on with for agents that left
//! ([`Route::Carried`]), and those that other nodes go on with for agents that came ([`Route::Awaited`]).
//!
//! An answer that is carried is offered again and again, later and later, until its agent's node says that it has it
//! recorded, or nobody can want it any more. An answer that is awaited counts like one of this node's own once it is
//! here; what does not come in time is given up, and the ledger's rules decide.
//!
//! Bounds: answers that are not recorded count against `held_results_max` on both nodes. A carried one above it stops
//! new calls here, as any other does; an awaited one above it is not taken, and is offered again.

use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, EffectKey, Millis, NodeId, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Finished, Flight, Slots};

/// How long after its deadline an answer is still awaited, and still offered: the clocks of nodes differ, and a result
/// that was there in time may need several offers.
pub(crate) const CARRY_GRACE: Millis = Millis(10_000);
/// Between the first two offers of an answer; doubles with each further one.
pub(crate) const OFFER_EVERY: Millis = Millis(250);
/// The longest time between two offers.
pub(crate) const OFFER_EVERY_MAX: Millis = Millis(4_000);
/// Answers that are offered in one go.
const OFFERS_AT_ONCE_MAX: usize = 256;

/// Where an effect was sent, and where its agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Both here.
    Own,
    /// Sent by that node; its agent is here.
    Awaited(NodeId),
    /// Sent here; its agent has gone to that node. And how often its answer was offered.
    Carried(NodeId, u32),
}

/// What is in flight for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) key: EffectKey,
    pub(crate) attempt: u32,
    /// Nobody waits for the answer after this.
    pub(crate) deadline: Timestamp,
    /// Who sent it, if not this node.
    pub(crate) by: Option<NodeId>,
}

/// An answer that is to be offered.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) agent: AgentId,
    /// Where its agent went when it left here.
    pub(crate) to: NodeId,
    pub(crate) finished: Finished,
    /// Offers before this one.
    pub(crate) offered: u32,
}

/// What is to be done about effects of agents that have moved.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) offers: Vec<Offer>,
    /// Agents whose awaited answer did not come.
    pub(crate) given_up: Vec<AgentId>,
    /// Who has got a slot because answers were given up.
    pub(crate) granted: Vec<AgentId>,
}

type Place = (AgentId, EffectKey);

impl Slots {
    /// An agent goes to another node, and what it waits for, if that was sent, goes on here or where it was sent: gives
    /// that. Nothing else is kept for it: what it does not wait for is over. And who has got a slot because the agent's wish
    /// and its results are gone.
    pub(in crate::dispatch) fn hand_over(
        &mut self,
        agent: AgentId,
        to: &NodeId,
        now: Timestamp,
    ) -> (Option<Sent>, Vec<AgentId>) {
        let held = self.held_for(agent);
        let (was_full, mut sent) = (self.is_full(), None);
        for place in self.places_of(agent) {
            let Some(flight) = self.flights.get_mut(&place) else { continue };
            let (attempt, deadline, ended) = (flight.attempt, flight.deadline, flight.finished.is_some());
            let by = match &flight.route {
                // It stays with whoever it went to then, until that is answered.
                Route::Carried(..) => continue,
                Route::Own if held != Some(place) || planted(Bug::CarriedDropped) => {
                    flight.abandoned = true;
                    flight.cancel.cancel();
                    if ended {
                        self.drop_flight(place);
                    }
                    continue;
                }
                Route::Own => {
                    flight.route = Route::Carried(to.clone(), 0);
                    self.carried += 1;
                    self.watch(place, ended.then_some(now));
                    None
                }
                // Its answer, if it is here already, is still with whoever sent it.
                Route::Awaited(by) => {
                    let by = by.clone();
                    self.drop_flight(place);
                    Some(by)
                }
            };
            if held == Some(place) {
                sent = Some(Sent { key: place.1, attempt, deadline, by });
            }
        }
        let mut granted = self.withdraw(agent, now);
        if was_full && !self.is_full() {
            granted.extend(self.serve_all(now));
        }
        (sent, granted)
    }

    /// An agent has come, and whoever gave it says what it has in flight. What went on here for it is its own again. What an
    /// earlier stay here has left to wait for, and is not said, goes on nowhere that anybody knows of.
    pub(in crate::dispatch) fn take_up(&mut self, agent: AgentId, sent: Option<Sent>) {
        for place in self.places_of(agent) {
            let Some(flight) = self.flights.get_mut(&place) else { continue };
            match flight.route {
                Route::Carried(..) => {
                    flight.route = Route::Own;
                    self.carried -= 1;
                    self.watch(place, None);
                }
                Route::Awaited(_) if flight.finished.is_none() => drop(self.drop_flight(place)),
                // An answer is as good as any, whoever knows of it.
                Route::Awaited(_) | Route::Own => {}
            }
        }
        if let Some(Sent { key, attempt, deadline, by }) = sent {
            let (place, turn) = ((agent, key), self.next_turn());
            // A later sending of the same counts for more than one that goes on here and has not ended.
            let is_older = |flight: &Flight| flight.attempt < attempt && flight.finished.is_none();
            if by.is_some() && self.flights.get(&place).is_some_and(is_older) {
                self.drop_flight(place).iter().for_each(|flight| flight.cancel.cancel());
            }
            match (self.flights.get_mut(&place), by) {
                (Some(flight), _) => flight.turn = turn,
                (None, Some(by)) => {
                    self.flights.insert(place, Flight::awaited(attempt, deadline, by, turn));
                    self.watch(place, Some(deadline.after(CARRY_GRACE)));
                }
                // It ended here too long ago.
                (None, None) => {}
            }
        }
    }

    /// Of what is in flight for an agent that is here, what it waits for: the last that was sent, or is said to be.
    fn held_for(&self, agent: AgentId) -> Option<Place> {
        let flights = self.flights_of(agent).filter(|(_, flight)| flight.turn > 0);
        let (key, last) = flights.max_by_key(|(_, flight)| flight.turn)?;
        last.is_wanted_here().then_some((agent, *key))
    }

    fn places_of(&self, agent: AgentId) -> Vec<Place> {
        self.flights_of(agent).map(|(key, _)| (agent, *key)).collect()
    }

    /// Who goes on with an effect of an agent: `Some(None)` is this node.
    pub(in crate::dispatch) fn carrier(&self, agent: AgentId, key: EffectKey) -> Option<Option<NodeId>> {
        let flight = self.flights.get(&(agent, key)).filter(|flight| flight.is_wanted_here())?;
        Some(match &flight.route {
            Route::Awaited(by) => Some(by.clone()),
            Route::Own | Route::Carried(..) => None,
        })
    }

    /// An answer has come from the node that carries it. Whether the agent should look: it says what the answer is worth,
    /// also of one that nobody here awaits, so that its carrier learns of it.
    pub(in crate::dispatch) fn is_offered(&mut self, from: &NodeId, agent: AgentId, finished: Finished) -> bool {
        let place = (agent, finished.key);
        if self.is_full() {
            return false;
        }
        let attempt = finished.attempt;
        let flight =
            self.flights.entry(place).or_insert_with(|| Flight::awaited(attempt, Timestamp(0), from.clone(), 0));
        if !matches!(flight.route, Route::Awaited(_)) || flight.finished.is_some() {
            return false;
        }
        flight.finished = Some(finished);
        self.held += 1;
        self.watch(place, None);
        true
    }

    /// Forgets an answer that was offered, and tells nobody: it is offered again, and awaited if it was. Whether there was one.
    pub(in crate::dispatch) fn turn_away(&mut self, agent: AgentId, key: EffectKey) -> bool {
        let place = (agent, key);
        let Some(flight) = self.flights.get_mut(&place) else { return false };
        if !matches!(flight.route, Route::Awaited(_)) || flight.finished.is_none() {
            return false;
        }
        if flight.turn == 0 {
            self.drop_flight(place);
        } else {
            flight.finished = None;
            let over = flight.deadline.after(CARRY_GRACE);
            self.held -= 1;
            self.watch(place, Some(over));
        }
        true
    }

    /// The agent's new node has the answer of a carried effect, or does not want it. Gives who has got a slot by that.
    pub(in crate::dispatch) fn is_recorded(&mut self, agent: AgentId, key: EffectKey, now: Timestamp) -> Vec<AgentId> {
        let place = (agent, key);
        let Some(flight) = self.flights.get_mut(&place) else { return Vec::new() };
        if !matches!(flight.route, Route::Carried(..)) {
            return Vec::new();
        }
        if flight.finished.is_some() {
            return self.give_up(place, now);
        }
        // Removed when the call has ended.
        flight.cancel.cancel();
        flight.abandoned = true;
        Vec::new()
    }

    /// A node is gone: nothing that it carried is awaited any more. Gives whose that was.
    pub(in crate::dispatch) fn carrier_is_gone(&mut self, node: &NodeId) -> Vec<AgentId> {
        let is_lost = |flight: &Flight| flight.route == Route::Awaited(node.clone()) && flight.finished.is_none();
        let lost: Vec<Place> =
            self.flights.iter().filter(|(_, flight)| is_lost(flight)).map(|(place, _)| *place).collect();
        lost.iter().for_each(|place| drop(self.drop_flight(*place)));
        lost.into_iter().map(|(agent, _)| agent).collect()
    }

    /// When [`Self::round`] has something to do.
    pub(in crate::dispatch) fn round_due(&self) -> Option<Timestamp> {
        self.watched.first().map(|(due, _)| *due)
    }

    /// What is due by now.
    pub(in crate::dispatch) fn round(&mut self, now: Timestamp) -> Round {
        let mut round = Round::default();
        while round.offers.len() < OFFERS_AT_ONCE_MAX
            && let Some((due, place)) = self.watched.first().copied()
            && due <= now
        {
            self.watch(place, None);
            let Some(flight) = self.flights.get_mut(&place) else { continue };
            let over = flight.deadline.after(CARRY_GRACE) <= now;
            match (&mut flight.route, &flight.finished) {
                (Route::Carried(to, offered), Some(finished)) if !over => {
                    let offer = Offer { agent: place.0, to: to.clone(), finished: finished.clone(), offered: *offered };
                    let pause = Millis(OFFER_EVERY.0.saturating_mul(1 << (*offered).min(16)).min(OFFER_EVERY_MAX.0));
                    *offered += 1;
                    round.offers.push(offer);
                    self.watch(place, Some(now.after(pause)));
                }
                (Route::Carried(..), Some(_)) => round.granted.extend(self.give_up(place, now)),
                (Route::Awaited(_), None) => {
                    self.drop_flight(place);
                    round.given_up.push(place.0);
                }
                _ => {}
            }
        }
        round
    }

    /// The node that an agent went to has it by now: what was offered to it before was left aside there.
    pub(in crate::dispatch) fn has_arrived(&mut self, agent: AgentId, now: Timestamp) {
        for place in self.places_of(agent) {
            if let Some(flight) = self.flights.get_mut(&place)
                && let Route::Carried(_, offered) = &mut flight.route
                && flight.finished.is_some()
            {
                *offered = 0;
                self.watch(place, Some(now));
            }
        }
    }

    /// The agent of a carried effect has moved on to another node.
    pub(in crate::dispatch) fn redirect(&mut self, agent: AgentId, key: EffectKey, node: NodeId) {
        if let Some(flight) = self.flights.get_mut(&(agent, key))
            && let Route::Carried(to, _) = &mut flight.route
        {
            *to = node;
        }
    }

    fn give_up(&mut self, place: Place, now: Timestamp) -> Vec<AgentId> {
        let was_full = self.is_full();
        self.drop_flight(place);
        if was_full { self.serve_all(now) } else { Vec::new() }
    }

    /// Takes a flight out of all tables; whether a result of it was kept. A call that is under way goes on.
    pub(super) fn drop_flight(&mut self, place: Place) -> Option<Flight> {
        self.watch(place, None);
        let flight = self.flights.remove(&place)?;
        self.held -= usize::from(flight.finished.is_some());
        self.carried -= usize::from(matches!(flight.route, Route::Carried(..)));
        Some(flight)
    }

    /// Looks at a flight at this time, or not at all.
    pub(super) fn watch(&mut self, place: Place, due: Option<Timestamp>) {
        let Some(flight) = self.flights.get_mut(&place) else { return };
        if let Some(before) = std::mem::replace(&mut flight.due, due) {
            self.watched.remove(&(before, place));
        }
        due.map(|due| self.watched.insert((due, place)));
    }
}

impl Flight {
    fn awaited(attempt: u32, deadline: Timestamp, by: NodeId, turn: u64) -> Self {
        let (cancel, route) = (CancellationToken::new(), Route::Awaited(by));
        Self { attempt, deadline, cancel, abandoned: false, finished: None, route, due: None, turn }
    }

    /// Whether its agent is here and waits for it.
    pub(super) fn is_wanted_here(&self) -> bool {
        !self.abandoned && !matches!(self.route, Route::Carried(..))
    }
}

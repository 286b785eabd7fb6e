//! Who may send now, who waits, and what is on its way: the table of all lanes. Pure: times come in as arguments, and who
//! is to be told goes out.
//!
//! Holds:
//!   MD-1  calls in flight in a lane never exceed its concurrency, nor what is begun its budgets (BU-1)
//!   MD-2  tenants that wait in a lane get shares of its tokens by their weights (FQ-1); within a tenant the order is by
//!         priority and time (`Rank`), and whoever has the turn is overtaken by nobody; so all have their turn (FQ-2)
//!   MD-3  an effect is sent at most once per key and attempt
//!   MD-4  a finished effect is kept until its agent has recorded it, and at most `held_results_max` are kept:
//!         at the bound no further slot is granted until some are recorded
//!
//! What goes on for agents that have moved from node to node is in [`carry`].
//!
//! A change looks at its own lane only, and takes O(log n) of those who wait there and for each who gets through.

pub(crate) mod carry;
#[cfg(feature = "model")]
pub mod flights;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use nexa_event::fact::EffectResult;
use nexa_sched::ProviderBudget;
use nexa_sched::lease::{HolderId, HolderInput, Notice, Report, WaitingTenants};
use nexa_types::{AgentId, EffectKey, NodeId, Seq, Spend, Timestamp};
use tokio_util::sync::CancellationToken;

use self::carry::Route;
use super::lane::{Ending, Lane, LaneKind, Pass, Wanted};
use super::leased::Leased;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ModelLoad {
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
    pub(crate) held: usize,
    /// Effects that go on, or whose answers are kept, for agents that have left.
    pub(crate) carried: usize,
    pub(crate) lanes_paused: usize,
    pub(crate) breakers_open: usize,
}

struct Flight {
    attempt: u32,
    deadline: Timestamp,
    cancel: CancellationToken,
    abandoned: bool,
    finished: Option<Finished>,
    route: Route,
    /// When it is looked at again, as it stands in `watched`.
    due: Option<Timestamp>,
    /// Grows with each sending and each word of who gave the agent: an agent waits for one thing at a time, and of its
    /// flights that is the last one. 0 is an answer that nobody here has asked for.
    turn: u64,
}

/// Where an agent stands with its one wish.
enum Wish {
    Waiting { lane: String },
    Granted { lane: String, pass: Pass },
}

struct Row {
    lane: Lane,
    /// Whether this node has only a slice of what it allows.
    is_leased: bool,
    /// When it is looked at again, as it stands in `dues`.
    due: Option<Timestamp>,
}

/// The table of a dispatcher.
pub(super) struct Slots {
    limits: ModelLimits,
    leased: Option<Leased>,
    /// Whether a slice has become far too small.
    is_hungry: bool,
    lanes: BTreeMap<String, Row>,
    dues: BTreeSet<(Timestamp, String)>,
    wishes: HashMap<AgentId, Wish>,
    flights: BTreeMap<(AgentId, EffectKey), Flight>,
    /// When flights of agents that have moved are to be looked at.
    watched: BTreeSet<(Timestamp, (AgentId, EffectKey))>,
    /// How many are carried.
    carried: usize,
    /// Awaited effects that have ended for their agents here: whom to tell.
    recorded: Vec<(NodeId, AgentId, EffectKey)>,
    in_flight: usize,
    waiting: usize,
    held: usize,
    tickets: u64,
    turns: u64,
}

impl Slots {
    pub(super) fn new(limits: ModelLimits) -> Self {
        Self {
            limits,
            leased: None,
            is_hungry: false,
            lanes: BTreeMap::new(),
            dues: BTreeSet::new(),
            wishes: HashMap::new(),
            flights: BTreeMap::new(),
            watched: BTreeSet::new(),
            carried: 0,
            recorded: Vec::new(),
            in_flight: 0,
            waiting: 0,
            held: 0,
            tickets: 0,
            turns: 0,
        }
    }

    /// Wants a slot of a lane. Asking again while waiting or holding changes nothing. Also gives who else has got one.
    pub(super) fn reserve(
        &mut self,
        name: String,
        kind: LaneKind,
        wanted: Wanted,
        now: Timestamp,
    ) -> (Reserve, Vec<AgentId>) {
        let agent = wanted.agent;
        match self.wishes.get(&agent) {
            Some(Wish::Granted { lane, .. }) if *lane == name => return (Reserve::Granted, Vec::new()),
            Some(Wish::Waiting { lane }) if *lane == name => return (Reserve::Waiting, Vec::new()),
            Some(_) | None => {}
        }
        // A slot of another lane that it gives up for this one is somebody else's now.
        let mut granted = self.withdraw(agent, now);
        let row = self.lanes.entry(name.clone()).or_insert_with(|| {
            let mut lane = Lane::new(&name, kind, now);
            let is_leased = kind.has_breaker && self.leased.as_ref().is_some_and(|leased| leased.has(&name));
            if is_leased {
                lane.lease();
            }
            Row { lane, is_leased, due: None }
        });
        row.lane.adapt(kind.limits, now);
        if row.lane.len() >= self.limits.reservations_max {
            return (Reserve::Full, granted);
        }
        self.tickets += 1;
        row.lane.enter(wanted, self.tickets, now);
        self.waiting += 1;
        self.wishes.insert(agent, Wish::Waiting { lane: name.clone() });
        granted.extend(self.serve(&name, now));
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
        let Some(wish) = self.wishes.remove(&agent) else { return Vec::new() };
        let (Wish::Waiting { lane: name } | Wish::Granted { lane: name, .. }) = &wish;
        let name = name.clone();
        if let Some(Row { lane, is_leased, .. }) = self.lanes.get_mut(&name) {
            match wish {
                Wish::Waiting { .. } => {
                    lane.leave(agent, now);
                    self.waiting -= 1;
                }
                Wish::Granted { pass, .. } => {
                    lane.ended(pass, Ending::NotSent, self.leased.as_mut().filter(|_| *is_leased), now);
                }
            }
        }
        self.serve(&name, now)
    }

    /// Uses the slot that is held for the agent; gives its lane and pass, and who has got a slot because an unrecorded
    /// end of an earlier attempt gave way. `None` if no slot is held, or if this attempt was sent before.
    pub(super) fn take_off(
        &mut self,
        agent: AgentId,
        key: EffectKey,
        attempt: u32,
        (cancel, deadline): (CancellationToken, Timestamp),
        now: Timestamp,
    ) -> Option<(String, Pass, Vec<AgentId>)> {
        if self.flights.get(&(agent, key)).is_some_and(|flight| flight.attempt >= attempt) || !self.is_granted(agent) {
            return None;
        }
        let Some(Wish::Granted { lane, mut pass }) = self.wishes.remove(&agent) else { return None };
        self.in_flight += 1;
        let was_full = self.is_full();
        self.drop_flight((agent, key));
        let (abandoned, finished, route, due) = (false, None, Route::Own, None);
        let turn = self.next_turn();
        self.flights.insert((agent, key), Flight { attempt, deadline, cancel, abandoned, finished, route, due, turn });
        let mut granted = if was_full && !self.is_full() { self.serve_all(now) } else { Vec::new() };
        if let Some(row) = self.lanes.get(&lane).filter(|row| row.is_leased) {
            row.lane.sends(&mut pass, self.leased.as_mut(), now);
            // By what is sent now it is known when the next one may be.
            granted.extend(self.serve(&lane, now));
        }
        Some((lane, pass, granted))
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn is_granted(&self, agent: AgentId) -> bool {
        matches!(self.wishes.get(&agent), Some(Wish::Granted { .. }))
    }

    /// A call has ended: its slot is free. Whether anybody wants the result, and who is next.
    pub(super) fn land(
        &mut self,
        name: &str,
        pass: Pass,
        ending: Ending,
        agent: AgentId,
        finished: Finished,
        now: Timestamp,
    ) -> (bool, Vec<AgentId>) {
        self.in_flight -= 1;
        if let Some(Row { lane, is_leased, .. }) = self.lanes.get_mut(name) {
            lane.ended(pass, ending, self.leased.as_mut().filter(|_| *is_leased), now);
        }
        let place = (agent, finished.key);
        let is_wanted = match self.flights.get_mut(&place) {
            // A later attempt has taken its place.
            Some(flight) if flight.attempt != finished.attempt => false,
            Some(flight) if !flight.abandoned => {
                flight.finished = Some(finished);
                self.held += 1;
                let is_here = flight.is_wanted_here();
                if !is_here {
                    self.watch(place, Some(now));
                }
                is_here
            }
            _ => {
                self.drop_flight(place);
                false
            }
        };
        (is_wanted, self.serve(name, now))
    }

    /// Whether an effect is in flight, or finished and not recorded.
    pub(super) fn carries(&self, agent: AgentId, key: EffectKey) -> bool {
        self.flights.get(&(agent, key)).is_some_and(Flight::is_wanted_here)
    }

    /// The effects of an agent that have ended and are not recorded.
    pub(super) fn finished(&self, agent: AgentId) -> impl Iterator<Item = &Finished> {
        self.flights_of(agent)
            .filter(|(_, flight)| flight.is_wanted_here())
            .filter_map(|(_, flight)| flight.finished.as_ref())
    }

    /// Whether any effect of the agent is in flight or waits to be recorded.
    pub(super) fn is_in_flight_for(&self, agent: AgentId) -> bool {
        self.flights_of(agent).any(|(_, flight)| flight.is_wanted_here())
    }

    /// Whether the agent waits for a slot or holds one.
    pub(super) fn has_wish(&self, agent: AgentId) -> bool {
        self.wishes.contains_key(&agent)
    }

    /// The end of an effect is recorded; it is forgotten here.
    pub(super) fn settle(&mut self, agent: AgentId, key: EffectKey, now: Timestamp) -> Vec<AgentId> {
        let ended = |flight: &&Flight| flight.finished.is_some() && !matches!(flight.route, Route::Carried(..));
        if self.flights.get(&(agent, key)).filter(ended).is_none() {
            return Vec::new();
        }
        self.forget_flight(agent, key, now)
    }

    /// One result less may be kept. Only at the bound does that let anybody through.
    fn forget_flight(&mut self, agent: AgentId, key: EffectKey, now: Timestamp) -> Vec<AgentId> {
        let was_full = self.is_full();
        if let Some(Flight { route: Route::Awaited(carrier), .. }) = self.drop_flight((agent, key)) {
            self.recorded.push((carrier, agent, key));
        }
        if was_full && !self.is_full() { self.serve_all(now) } else { Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.held >= self.limits.held_results_max
    }

    /// Nobody wants the result of an effect any more: cancels the call and forgets it.
    pub(super) fn abandon(&mut self, agent: AgentId, key: EffectKey, now: Timestamp) -> Vec<AgentId> {
        let Some(flight) = self.flights.get_mut(&(agent, key)) else { return Vec::new() };
        match flight.route {
            Route::Carried(..) => return Vec::new(),
            Route::Awaited(_) => return self.forget_flight(agent, key, now),
            Route::Own => {}
        }
        flight.abandoned = true;
        flight.cancel.cancel();
        self.settle(agent, key, now)
    }

    /// Abandons and withdraws whatever an agent has here. What it awaits from another node is left to whoever has the
    /// agent next, so nobody is told.
    pub(super) fn forget(&mut self, agent: AgentId, now: Timestamp) -> Vec<AgentId> {
        let told = self.recorded.len();
        let keys: Vec<EffectKey> = self.flights_of(agent).map(|(key, _)| *key).collect();
        let mut granted: Vec<AgentId> = keys.into_iter().flat_map(|key| self.abandon(agent, key, now)).collect();
        self.recorded.truncate(told);
        granted.extend(self.withdraw(agent, now));
        granted
    }

    /// Whom to tell since the last time that the end of an effect, which they carried, is recorded.
    pub(super) fn take_recorded(&mut self) -> Vec<(NodeId, AgentId, EffectKey)> {
        std::mem::take(&mut self.recorded)
    }

    /// Looks at the lanes only, of which there are few.
    pub(super) fn load(&self, now: Timestamp) -> ModelLoad {
        let count = |is: &dyn Fn(&Lane) -> bool| self.lanes.values().filter(|row| is(&row.lane)).count();
        ModelLoad {
            in_flight: self.in_flight,
            waiting: self.waiting,
            held: self.held,
            carried: self.carried,
            lanes_paused: count(&|lane| lane.is_paused(now)),
            breakers_open: count(&Lane::is_broken),
        }
    }

    /// How many effects are carried for agents that have left.
    pub(super) fn carried(&self) -> usize {
        self.carried
    }

    /// Goes by slices of these from now on, before anybody has asked.
    pub(super) fn lease(&mut self, budgets: &[ProviderBudget]) {
        self.leased = (!budgets.is_empty()).then(|| Leased::new(budgets));
    }

    /// This run of the node begins to hold slices.
    pub(super) fn begins(&mut self, run: HolderId, now: Timestamp) -> Vec<AgentId> {
        self.leased.iter_mut().for_each(|leased| leased.begins(run.clone()));
        self.serve_all(now)
    }

    /// The run holds no slices any more.
    pub(super) fn lease_ends(&mut self, now: Timestamp) {
        self.leased.iter_mut().for_each(|leased| leased.step(HolderInput::LeaseEnded, now));
    }

    /// A slice has changed.
    pub(super) fn told(&mut self, notice: Notice, now: Timestamp) -> Vec<AgentId> {
        let lane = notice.provider.clone();
        self.leased.iter_mut().for_each(|leased| leased.step(HolderInput::Notice(notice.clone()), now));
        self.serve(&lane, now)
    }

    /// What of the tenants in a lane waits on other nodes.
    pub(super) fn elsewhere(&mut self, lane: &str, tenants: &WaitingTenants, now: Timestamp) {
        self.lanes.get_mut(lane).into_iter().for_each(|row| row.lane.elsewhere(tenants, now));
    }

    /// Whether a slice has become far too small since this was last asked.
    pub(super) fn take_hungry(&mut self) -> bool {
        std::mem::take(&mut self.is_hungry)
    }

    /// What the leader should know, and which tenants wait in which lane. Nothing without a lease.
    pub(super) fn report(&mut self, now: Timestamp) -> Option<(Report, Vec<(String, WaitingTenants)>)> {
        let leased = self.leased.as_mut()?;
        let mut tenants = Vec::new();
        for (name, row) in &mut self.lanes {
            if let Some((backlog, waiting)) = row.lane.asks(now) {
                leased.step(HolderInput::Waiting { provider: name.clone(), backlog }, now);
                tenants.push((name.clone(), waiting));
            }
        }
        Some((leased.report(now)?, tenants))
    }

    /// When somebody may get through without anything else happening.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.dues.first().map(|(due, _)| *due)
    }

    /// Lets through whoever may go by now.
    pub(super) fn ring(&mut self, now: Timestamp) -> Vec<AgentId> {
        let mut granted = Vec::new();
        while let Some((due, name)) = self.dues.first().cloned()
            && due <= now
        {
            granted.extend(self.serve(&name, now));
        }
        granted
    }

    fn serve_all(&mut self, now: Timestamp) -> Vec<AgentId> {
        let names: Vec<String> = self.lanes.keys().cloned().collect();
        names.iter().flat_map(|name| self.serve(name, now)).collect()
    }

    /// Lets through whoever may go now in a lane, and notes when to look again.
    fn serve(&mut self, name: &str, now: Timestamp) -> Vec<AgentId> {
        let is_full = self.is_full();
        let Some(row) = self.lanes.get_mut(name) else { return Vec::new() };
        let mut leased = self.leased.as_mut().filter(|_| row.is_leased);
        if let Some(leased) = &leased {
            row.lane.resize(leased, now);
        }
        let mut granted = Vec::new();
        while !is_full && let Some((agent, pass)) = row.lane.next(leased.as_deref_mut(), now) {
            self.waiting -= 1;
            self.wishes.insert(agent, Wish::Granted { lane: name.to_owned(), pass });
            granted.push(agent);
        }
        self.is_hungry |= row.lane.is_hungry();
        // At the bound of results it is their recording that lets somebody through, and not the time.
        let due = if is_full { None } else { row.lane.due(now) };
        let before = std::mem::replace(&mut row.due, due);
        if before != due {
            before.map(|before| self.dues.remove(&(before, name.to_owned())));
            due.map(|due| self.dues.insert((due, name.to_owned())));
        }
        granted
    }

    fn flights_of(&self, agent: AgentId) -> impl Iterator<Item = (&EffectKey, &Flight)> {
        let first = (agent, EffectKey::from_bytes([0; 32]));
        let last = (agent, EffectKey::from_bytes([0xFF; 32]));
        self.flights.range(first..=last).map(|((_, key), flight)| (key, flight))
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;

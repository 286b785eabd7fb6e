//! An agent goes from process to process while it lives, and the answer of a call that it has in flight follows it.

use nexa_ports::neighbours::Carried;
use nexa_ports::store::{AgentRow, Place};
use nexa_runtime::flights::Op;
use nexa_runtime::{Address, Given};
use nexa_types::{AgentState, EffectKey, Epoch, NodeId, PrincipalId, TenantId, Version, WorkloadId};

use super::mind::{NOW, agent};
use super::world::{PROCESSES, Seat, World, node};
use super::{Bounds, Plant};
use crate::frozen::Frozen;

/// How often a process offers what it carries, at most.
const OFFERS_MAX: u8 = 3;

/// What processes say to each other.
#[derive(Debug, Clone)]
pub(super) enum Letter {
    /// That an agent has moved, and which run of its carrier goes on for it.
    Moved { from: usize, to: usize, given: Given, run: u64 },
    /// The answer of a call that was carried.
    Answer { from: usize, to: usize, answer: Carried },
    /// That it is recorded.
    Recorded { to: usize, key: EffectKey },
}

fn index(of: &NodeId) -> Option<usize> {
    (0..PROCESSES).find(|process| node(*process) == *of)
}

impl World {
    /// Whether the owner may be told to give the agent away: not with a step that the store has not confirmed, nor with a start
    /// whose effect was not sent.
    pub(super) fn may_release(&self, bounds: &Bounds, process: usize) -> bool {
        let has_right = self.processes[process].rights.epoch(agent()).is_some();
        let may_part = match &self.processes[process].seat {
            Seat::Empty => true,
            Seat::Idle(mind) => mind.lost.is_none(),
            _ => false,
        };
        self.moves < bounds.moves && self.epoch.0 < bounds.epochs && has_right && may_part && !self.has_ended()
    }

    /// The row is changed, unless it is not this process's any more.
    pub(super) fn give_away(&mut self, process: usize, to: usize) {
        let has_ended = self.has_ended();
        let rights = &mut self.processes[process].rights;
        let Some(from) = rights.epoch(agent()) else { return };
        match (Place { agent: agent(), from, node: node(to) }).judge(self.epoch, has_ended) {
            Ok(epoch) => {
                (self.epoch, self.owner) = (epoch, to);
                self.processes[process].seat = Seat::Parted(to, epoch);
            }
            Err(current) => drop(rights.lost(agent(), current)),
        }
    }

    /// It is the other's: forgets it but for what is in flight, and says so.
    pub(super) fn part(&mut self, process: usize, to: usize, epoch: Epoch, plant: Option<Plant>) {
        if !self.processes[process].rights.lost(agent(), Epoch(epoch.0 - 1)) {
            // It was taken from there and given to this one again, with all that it has in flight.
            return;
        }
        let carrier = self.processes[process].flights.apply(Op::HandOver(node(to)), NOW).carrier;
        let carrier = carrier.filter(|_| plant != Some(Plant::NoCarrier));
        self.processes[process].offered = 0;
        let by = carrier.as_ref().and_then(|carrier| index(&carrier.node));
        let run = by.map_or(0, |by| self.listed(process, by));
        self.say(Letter::Moved {
            from: process,
            to,
            given: Given { agent: agent(), epoch, carrier, trace: None },
            run,
        });
    }

    /// The run of a process that another's list of members has.
    fn listed(&self, process: usize, of: usize) -> u64 {
        self.processes[process].mourns.get(&of).copied().unwrap_or(self.processes[of].run)
    }

    /// Whether a process knows that a run of another is over; as `Members::is_over`.
    fn knows_over(&self, process: usize, of: usize, run: u64) -> bool {
        let has_heard = !self.processes[process].mourns.contains_key(&of);
        has_heard && (self.processes[of].run != run || !self.processes[of].is_up)
    }

    fn say(&mut self, letter: Letter) {
        let letter = Frozen::new(letter);
        let at = self.letters.partition_point(|other| *other < letter);
        self.letters.insert(at, letter);
    }

    pub(super) fn tell_recorded(&mut self, recorded: Vec<(NodeId, EffectKey)>) {
        for (carrier, key) in recorded {
            self.seen.insert("followed");
            if let Some(to) = index(&carrier) {
                self.say(Letter::Recorded { to, key });
            }
        }
    }

    /// Whether an answer is offered: one at a time, and only so often.
    pub(super) fn may_offer(&self, process: usize) -> bool {
        let it = &self.processes[process];
        let is_under_way = |letter: &Frozen<Letter>| !matches!(&**letter, Letter::Moved { .. });
        let is_due = it.is_up && it.flights.has_offers() && it.flights.due().is_some();
        is_due && it.offered < OFFERS_MAX && !self.letters.iter().any(is_under_way)
    }

    pub(super) fn offer(&mut self, process: usize, plant: Option<Plant>) {
        let Some(due) = self.processes[process].flights.due() else { return };
        let row = self.row();
        self.processes[process].offered += 1;
        for (before, answer, offered) in self.processes[process].flights.apply(Op::Round, due).offers {
            let row = (offered > 0).then_some(&row);
            let flights = &mut self.processes[process].flights;
            let Address::Node(to) = Address::of(row, &before, &node(process)) else {
                flights.apply(Op::Recorded(answer.key), due);
                continue;
            };
            if to != before {
                flights.apply(Op::Redirect(answer.key, to.clone()), due);
            }
            if plant == Some(Plant::OfferOnce) {
                flights.apply(Op::Recorded(answer.key), due);
            }
            if let Some(to) = index(&to) {
                self.say(Letter::Answer { from: process, to, answer });
            }
        }
    }

    fn row(&self) -> AgentRow {
        AgentRow {
            agent: agent(),
            workload: WorkloadId::from_bytes([1; 16]),
            tenant: TenantId::local(),
            principal: PrincipalId::local(),
            node: Some(node(self.owner)),
            epoch: self.epoch,
            version: Version(self.log.len() as u64 + 1),
            state: if self.has_ended() { AgentState::Succeeded } else { AgentState::Running },
            due: None,
            cancelled: false,
            priority: 100,
            asks: None,
        }
    }

    /// A letter arrives. Who is not there gets none.
    pub(super) fn bring(&mut self, letter: &Letter, plant: Option<Plant>) {
        let row = self.row();
        match letter {
            Letter::Moved { from, to, given, run } if self.processes[*to].is_up => {
                // As `nexa-cluster`'s `orders::take_up`.
                let is_over = |by: usize| self.knows_over(*to, by, *run) && plant != Some(Plant::AwaitTheDead);
                let carrier = given.carrier.clone();
                let carrier = carrier.filter(|carrier| !index(&carrier.node).is_some_and(is_over));
                let process = &mut self.processes[*to];
                if given.is_meant_by(&row, &node(*to)) && process.rights.given(agent(), given.epoch) {
                    process.flights.apply(Op::TakeUp(carrier), NOW);
                    if matches!(process.seat, Seat::Idle(_) | Seat::Reading(_)) {
                        process.seat = Seat::Empty;
                    }
                }
                if self.processes[*from].is_up {
                    self.processes[*from].flights.apply(Op::HasArrived, NOW);
                    self.processes[*from].offered = 0;
                }
            }
            Letter::Answer { from, to, answer } if self.processes[*to].is_up => {
                let process = &mut self.processes[*to];
                if process.rights.epoch(agent()).is_some() {
                    process.flights.apply(Op::Offered(node(*from), answer.clone()), NOW);
                }
            }
            Letter::Recorded { to, key } if self.processes[*to].is_up => {
                self.processes[*to].flights.apply(Op::Recorded(*key), NOW);
            }
            Letter::Moved { .. } | Letter::Answer { .. } | Letter::Recorded { .. } => {}
        }
    }
}

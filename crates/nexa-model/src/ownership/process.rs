//! A process of a node, and what it does with the agent: reads it, records that it takes it over and starts its effect, sends it.

use nexa_member::leader::{Leader, Limits};
use nexa_member::taken::Taken;
use nexa_ports::membership::Standing;
use nexa_ports::store::AppendError;
use nexa_runtime::Rights;
use nexa_runtime::fence::may_send;
use nexa_runtime::resume::{After, Doubt, after_doubt, is_outrun, is_unsent};
use nexa_types::{Epoch, Generation, Timestamp, Version};

use super::world::{AGENT, Body, Fact, World, node};
use super::{Plant, STEP};
use crate::frozen::Frozen;

/// An agent in memory: under which right it acts, and how long its stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) epoch: Epoch,
    pub(super) version: Version,
}

/// How far a process is with the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seat {
    /// Not in memory.
    Empty,
    /// Nor will it be by the right that it has: the row is another's.
    Away,
    /// Its row was read, and had this epoch.
    Reading(Epoch),
    /// It is in memory, and what is next has to be recorded.
    Ready { at: Held },
    /// The store is asked, since then.
    Asking { at: Held, asked: Timestamp, confirms: bool },
    /// Nobody knows what the store did.
    Doubt { at: Held, asked: Timestamp, confirms: bool },
    /// The start is accepted, and the effect is sent next.
    Ticket { at: Held, asked: Option<Timestamp> },
    /// It was started and not sent, and may be asked about from then on.
    Unsent { at: Held, until: Timestamp },
    /// It was sent.
    Sent { at: Held },
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    ReadRow,
    ReadLog(Epoch),
    Record(Held),
    LookWhether(Held, Timestamp, bool),
    Send(Held, Option<Timestamp>),
    Confirm(Held),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) name: usize,
    pub(super) generation: Generation,
    pub(super) is_up: bool,
    pub(super) is_paused: bool,
    pub(super) is_cut: bool,
    /// Which list of members it has seen.
    pub(super) knows: u64,
    /// Until when its lease counts, as far as it knows.
    pub(super) valid_until: Timestamp,
    pub(super) leader: Frozen<Leader>,
    pub(super) taken: Taken,
    pub(super) rights: Rights,
    pub(super) seat: Seat,
    /// It was given a new right while it waited for the store.
    is_outdated: bool,
}

impl Process {
    pub(super) fn new(name: usize, generation: Generation, valid_until: Timestamp) -> Self {
        Self {
            name,
            generation,
            is_up: true,
            is_paused: false,
            is_cut: false,
            knows: 0,
            valid_until,
            leader: Frozen::new(Leader::new(Limits::default())),
            taken: Taken::default(),
            rights: Rights::new(true),
            seat: Seat::Empty,
            is_outdated: false,
        }
    }

    pub(super) fn is_awake(&self) -> bool {
        self.is_up && !self.is_paused
    }

    /// It dies, or ends because its lease is over. What it has sent is under way all the same.
    pub(super) fn end(&mut self) {
        let Self { name, generation, .. } = *self;
        *self = Self { is_up: false, ..Self::new(name, generation, Timestamp(0)) };
    }

    /// A new right has come: what is in memory is wrong.
    pub(super) fn outdate(&mut self) {
        match self.seat {
            Seat::Asking { .. } | Seat::Ticket { .. } => self.is_outdated = true,
            _ => self.seat = Seat::Empty,
        }
    }

    fn sits(&mut self, seat: Seat) {
        let waits = matches!(seat, Seat::Asking { .. } | Seat::Ticket { .. });
        self.seat = if waits || !std::mem::take(&mut self.is_outdated) { seat } else { Seat::Empty };
    }

    fn may_send(&self, asked: Option<Timestamp>, now: Timestamp, plant: Option<Plant>) -> bool {
        let standing = Standing::Member { generation: self.generation, valid_until: self.valid_until };
        plant == Some(Plant::LeaseFence) || may_send(standing, asked, now)
    }
}

fn under(fact: &Fact) -> Epoch {
    match fact {
        Fact::TakenOver(epoch) | Fact::Started(epoch) => *epoch,
    }
}

/// What an owner under a right records first.
fn facts(at: Held, confirms: bool) -> Vec<Fact> {
    if confirms { Vec::new() } else { vec![Fact::TakenOver(at.epoch), Fact::Started(at.epoch)] }
}

impl World {
    /// What a process does next with the agent, if anything.
    pub(super) fn next_of(&self, process: usize, plant: Option<Plant>) -> Option<Next> {
        let process = &self.processes[process];
        match process.seat {
            Seat::Empty => {
                let has_right = process.rights.epoch(AGENT).is_some();
                let has_row = plant == Some(Plant::AnyRow) && self.store.owner == Some(process.name);
                (has_right || has_row).then_some(Next::ReadRow)
            }
            Seat::Reading(row) => Some(Next::ReadLog(row)),
            Seat::Ready { at } => Some(Next::Record(at)),
            Seat::Doubt { at, asked, confirms } => Some(Next::LookWhether(at, asked, confirms)),
            Seat::Ticket { at, asked } => Some(Next::Send(at, asked)),
            Seat::Unsent { at, .. } if process.may_send(None, self.now, plant) => Some(Next::Send(at, None)),
            Seat::Unsent { at, until } => (until <= self.now).then_some(Next::Confirm(at)),
            Seat::Away | Seat::Asking { .. } | Seat::Sent { .. } => None,
        }
    }

    pub(super) fn step_of(&mut self, process: usize, plant: Option<Plant>) {
        match self.next_of(process, plant) {
            Some(Next::ReadRow) => self.read_row(process, plant),
            Some(Next::ReadLog(row)) => self.read_log(process, row, plant),
            Some(Next::Record(at)) => {
                if plant == Some(Plant::SendFirst) {
                    self.sent(process, at.epoch);
                }
                self.ask(process, at, false);
            }
            Some(Next::Confirm(at)) => self.ask(process, at, true),
            Some(Next::LookWhether(at, asked, confirms)) => self.look(process, at, asked, confirms),
            Some(Next::Send(at, asked)) => {
                if self.processes[process].may_send(asked, self.now, plant) {
                    self.sent(process, at.epoch);
                    self.processes[process].sits(Seat::Sent { at });
                } else {
                    self.saw("held back");
                    let until = self.now.after(STEP);
                    self.processes[process].sits(Seat::Unsent { at, until });
                }
            }
            None => {}
        }
    }

    fn read_row(&mut self, index: usize, plant: Option<Plant>) {
        let row = self.row();
        let process = &mut self.processes[index];
        if row.node != Some(node(process.name)) {
            process.rights.lost(AGENT, row.epoch);
            // It may have been given anew meanwhile.
            process.seat = if process.rights.epoch(AGENT).is_some() { Seat::Away } else { Seat::Empty };
        } else if process.rights.covers(AGENT, row.epoch, row.cancelled) || plant == Some(Plant::AnyRow) {
            process.seat = Seat::Reading(row.epoch);
        } else {
            process.seat = Seat::Away;
        }
    }

    fn read_log(&mut self, index: usize, row: Epoch, plant: Option<Plant>) {
        let version = Version(self.store.log.len() as u64);
        let recorded = self.store.log.last().map_or(Epoch(0), under);
        let process = &mut self.processes[index];
        if is_outrun(row, recorded) && plant != Some(Plant::Outrun) {
            process.rights.lost(AGENT, row);
            process.seat = Seat::Empty;
        } else if row > recorded {
            process.seat = Seat::Ready { at: Held { epoch: row, version } };
        } else {
            let at = Held { epoch: recorded, version };
            // An earlier incarnation in this process may have sent it; then it knows.
            let is_under_way = false;
            let is_unsent = is_unsent(process.rights.epoch(AGENT), recorded, is_under_way);
            process.seat = if is_unsent { Seat::Unsent { at, until: Timestamp(0) } } else { Seat::Sent { at } };
        }
    }

    fn ask(&mut self, process: usize, at: Held, confirms: bool) {
        let facts = facts(at, confirms);
        self.post(process, Body::Append { epoch: at.epoch, expected: at.version, facts });
        self.processes[process].seat = Seat::Asking { at, asked: self.now, confirms };
    }

    /// The store has answered, or never will.
    pub(super) fn stored(&mut self, index: usize, answer: Option<Result<Version, AppendError>>) {
        let row = self.row();
        let process = &mut self.processes[index];
        let Seat::Asking { at, asked, confirms } = process.seat else { return };
        match answer {
            None => process.sits(Seat::Doubt { at, asked, confirms }),
            Some(Ok(version)) => process.sits(Seat::Ticket { at: Held { version, ..at }, asked: Some(asked) }),
            Some(Err(error)) => {
                process.sits(Seat::Empty);
                match After::of(&error) {
                    After::Look(_) => {
                        let owns = row.node == Some(node(process.name))
                            && process.rights.covers(AGENT, row.epoch, row.cancelled);
                        if !owns {
                            process.rights.lost(AGENT, row.epoch);
                        }
                    }
                    After::NotMine => drop(process.rights.lost(AGENT, at.epoch)),
                    After::ReadAgain | After::Fail | After::Keep => {}
                }
            }
        }
    }

    /// Looks whether what was asked for was stored after all.
    fn look(&mut self, index: usize, at: Held, asked: Timestamp, confirms: bool) {
        let wanted = facts(at, confirms);
        if wanted.is_empty() {
            return self.ask(index, at, confirms);
        }
        let known = usize::try_from(at.version.0).unwrap_or(usize::MAX);
        let found: Vec<Fact> = self.store.log.iter().skip(known).take(wanted.len()).copied().collect();
        let after = after_doubt(found.iter().map(|fact| (fact, Some(under(fact)))), &wanted, at.epoch);
        let version = Version(at.version.0 + found.len() as u64);
        match after {
            Doubt::Append => self.ask(index, at, confirms),
            Doubt::Act => self.processes[index].sits(Seat::Ticket { at: Held { version, ..at }, asked: Some(asked) }),
            Doubt::ReadAgain => self.processes[index].sits(Seat::Empty),
        }
    }
}

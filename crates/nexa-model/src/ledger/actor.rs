//! What an actor does next, in the one order: decide, reserve, record, act.

use nexa_agent::Input;
use nexa_event::fact::AgentEvent;
use nexa_ports::neighbours::Carried;
use nexa_ports::store::AppendError;
use nexa_runtime::flights::Op;
use nexa_runtime::resume::{After, Doubt, after_doubt, is_given_up, is_outrun, is_unsent};
use nexa_types::{EffectKey, Epoch, Millis, Version};

use super::Plant;
use super::mind::{Job, Made, NOW, Sending, agent};
use super::world::{Append, AppendErrorKind, Call, Kept, Mind, Recorded, Seat, World, node};
use crate::frozen::Frozen;

/// Nobody waits for an answer after so long.
const DEADLINE: Millis = Millis(60_000);

impl World {
    /// A process does what is next.
    pub(super) fn next(&mut self, index: usize, plant: Option<Plant>, has_slot: bool, is_held_back: bool) {
        let job = self.job();
        match std::mem::replace(&mut self.processes[index].seat, Seat::Empty) {
            Seat::Empty => {
                let rights = &mut self.processes[index].rights;
                if self.owner != index {
                    rights.lost(agent(), self.epoch);
                } else if rights.covers(agent(), self.epoch, false) {
                    self.processes[index].seat = Seat::Reading(self.epoch);
                }
            }
            Seat::Reading(row) => self.processes[index].seat = self.read(index, row, plant),
            Seat::Idle(mind) => self.turn(job, index, mind, plant, has_slot),
            Seat::Doubt(mind, kept) => self.look(index, mind, kept, plant),
            Seat::Answered(mind, kept, Ok(version)) => {
                self.done_recording(index, Mind { version, ..mind }, kept, is_held_back);
            }
            Seat::Answered(_, kept, Err(kind)) => self.refused(index, kept, kind),
            Seat::Leaving(to) => self.give_away(index, to),
            Seat::Parted(to, epoch) => self.part(index, to, epoch, plant),
            seat @ (Seat::Broken | Seat::Asking(..)) => self.processes[index].seat = seat,
        }
    }

    fn read(&mut self, index: usize, row: Epoch, plant: Option<Plant>) -> Seat {
        let job = self.job();
        let process = &self.processes[index];
        let Some(read) = job.read(self.events()) else {
            self.seen.insert("cannot be read");
            return Seat::Broken;
        };
        let says = job.says(&read);
        if is_outrun(row, says.epoch) && plant != Some(Plant::Outrun) {
            self.processes[index].rights.lost(agent(), row);
            return Seat::Empty;
        }
        let given = process.rights.epoch(agent());
        let is_own = |(key, _, epoch): (EffectKey, u32, Epoch)| is_unsent(given, epoch, process.flights.carries(key));
        let lost = if says.sent.is_some_and(is_own) { job.in_flight(&read) } else { None };
        let carried = says.sent.and_then(|(key, ..)| process.flights.carrier(key).cloned());
        let first = job.first_input(&read, row, &node(index), carried);
        let first = Some(Frozen::new(first));
        Seat::Idle(Mind {
            agent: read,
            version: says.version,
            first,
            wish: None,
            lost,
            more: false,
            mail: self.mail == Some(true),
        })
    }

    /// What there is to do, the most urgent first; as the actor's `next` and `take`.
    fn turn(&mut self, job: &Job, index: usize, mut mind: Mind, plant: Option<Plant>, has_slot: bool) {
        let finished = self.processes[index].flights.finished().cloned();
        let gives_up = self.gives_up(index, &mind);
        if let Some(first) = mind.first.take() {
            if matches!(*first, Input::TakeOver { .. }) {
                mind.lost = None;
            }
            self.hear(job, index, mind, (*first).clone(), None, (plant, has_slot));
        } else if let Some(Carried { key, .. }) =
            finished.as_ref().filter(|it| self.is_turned_away(job, index, &mind, it, plant))
        {
            self.processes[index].flights.apply(Op::TurnAway(*key), NOW);
            self.processes[index].seat = Seat::Idle(mind);
        } else if let Some(Carried { key, seq, attempt, result, spend, .. }) = finished {
            mind.lost.take_if(|lost| lost.seq == seq);
            let input = Input::EffectEnded { seq, attempt, result, spend };
            self.hear(job, index, mind, input, Some(key), (plant, has_slot));
        } else if self.hears_mail(&mind) {
            mind.mail = false;
            self.hear(job, index, mind, job.mail(), None, (plant, has_slot));
        } else if gives_up {
            let epoch = job.says(&mind.agent).epoch;
            mind.lost = None;
            let input = Input::TakeOver { node: node(index), epoch, carried: None };
            self.hear(job, index, mind, input, None, (plant, has_slot));
        } else if mind.more {
            self.hear(job, index, mind, Input::Continue, None, (plant, has_slot));
        } else if mind.wish.is_some() && has_slot {
            self.keep(job, index, mind, (Vec::new(), false), None, (plant, true));
        } else if let Some(lost) = mind.lost.take_if(|_| mind.wish.is_none()) {
            // By the store's word that the agent is still this node's; by the lease alone it is the same, but sooner.
            let append =
                Append { epoch: job.says(&mind.agent).epoch, expected: mind.version, facts: Vec::new(), takes: false };
            self.ask(index, mind, Kept { append, send: Some(lost), settled: None });
        } else {
            self.processes[index].seat = Seat::Idle(mind);
        }
    }

    /// Whether an answer is to what another owner has sent after this one was read.
    fn is_turned_away(&self, job: &Job, index: usize, mind: &Mind, answer: &Carried, plant: Option<Plant>) -> bool {
        let is_offered =
            self.processes[index].flights.carrier(answer.key).is_some_and(|carrier| *carrier != node(index));
        is_offered && job.is_ahead(&mind.agent, answer.seq, answer.attempt) && plant != Some(Plant::SettleUnknown)
    }

    fn hear(
        &mut self,
        job: &Job,
        index: usize,
        mind: Mind,
        input: Input,
        settled: Option<EffectKey>,
        (plant, has_slot): (Option<Plant>, bool),
    ) {
        let Made { agent, facts, wish, more, takes } = job.step(&mind.agent, input);
        self.keep(job, index, Mind { agent, wish, more, ..mind }, (facts, takes), settled, (plant, has_slot));
    }

    /// Adds the ticket if a slot is free, and asks the store. What says nothing is not stored.
    fn keep(
        &mut self,
        job: &Job,
        index: usize,
        mut mind: Mind,
        (mut facts, takes): (Vec<Frozen<AgentEvent>>, bool),
        settled: Option<EffectKey>,
        (plant, has_slot): (Option<Plant>, bool),
    ) {
        let mut send = None;
        if let Some(seq) = mind.wish.filter(|_| has_slot) {
            send = job.wish(&mind.agent);
            let Made { agent, facts: ticket, .. } = job.start_effect(&mind.agent, seq);
            facts.extend(ticket);
            (mind.agent, mind.wish) = (agent, None);
        }
        let append = Append { epoch: job.says(&mind.agent).epoch, expected: mind.version, facts, takes };
        if plant == Some(Plant::SendFirst)
            && let Some(sending) = send.take()
        {
            self.send(index, sending, append.epoch);
        }
        let kept = Kept { append, send, settled };
        if kept.append.facts.is_empty() && !takes {
            return self.done_recording(index, mind, kept, false);
        }
        self.ask(index, mind, kept);
    }

    fn ask(&mut self, index: usize, mind: Mind, kept: Kept) {
        self.requests.push((index, kept.append.clone()));
        self.processes[index].seat = Seat::Asking(mind, kept);
    }

    /// It is recorded: acts on it.
    fn done_recording(&mut self, index: usize, mut mind: Mind, kept: Kept, is_held_back: bool) {
        let Kept { append, send, settled } = kept;
        if let Some(key) = settled {
            let recorded = self.processes[index].flights.apply(Op::Settle(key), NOW).recorded;
            self.tell_recorded(recorded);
        }
        match send {
            Some(sending) if is_held_back => mind.lost = Some(sending),
            Some(sending) => self.send(index, sending, append.epoch),
            None => {}
        }
        let is_outdated = self.processes[index].rights.epoch(agent()).is_some_and(|given| given > append.epoch);
        self.processes[index].seat = if is_outdated { Seat::Empty } else { Seat::Idle(mind) };
    }

    fn send(&mut self, index: usize, sent: Sending, epoch: Epoch) {
        let is_recorded = self.events().any(|event| {
            matches!(event, AgentEvent::EffectStarted { seq, attempt, .. } if (*seq, *attempt) == (sent.seq, sent.attempt))
        });
        if !is_recorded {
            self.seen.insert("sent unrecorded");
        }
        if epoch < self.epoch && self.log.iter().any(|(_, under)| *under > epoch) {
            self.seen.insert("sent late");
        }
        let Sending { seq, key, attempt } = sent;
        let op = Op::Send(key, attempt, NOW.after(DEADLINE));
        if self.processes[index].flights.apply(op, NOW).was_sent {
            self.calls.push(Call { of: index, key, seq, attempt, became: None });
            self.calls.sort_unstable();
        }
    }

    /// Whether it hears of its message now.
    pub(super) fn hears_mail(&self, mind: &Mind) -> bool {
        mind.mail && mind.first.is_none()
    }

    /// Whether what it has in flight was sent by an owner before this one, and goes on nowhere.
    pub(super) fn gives_up(&self, index: usize, mind: &Mind) -> bool {
        let process = &self.processes[index];
        let is_over = |(key, _, epoch): (EffectKey, u32, Epoch)| {
            is_given_up(process.rights.epoch(agent()), epoch, process.flights.carries(key))
        };
        mind.first.is_none() && self.job().says(&mind.agent).sent.is_some_and(is_over)
    }

    fn refused(&mut self, index: usize, kept: Kept, kind: AppendErrorKind) {
        let (given, current) = (kept.append.epoch, self.epoch);
        let error = match kind {
            AppendErrorKind::Stale => AppendError::StaleEpoch { given, current },
            AppendErrorKind::Conflict => {
                AppendError::VersionConflict { given: kept.append.expected, current: Version(0) }
            }
        };
        if let After::Look(_) = After::of(&error) {
            let rights = &mut self.processes[index].rights;
            let owns = self.owner == index && rights.covers(agent(), current, false);
            if !owns && rights.lost(agent(), current) {
                // Whatever is in flight for it here is nobody's: it is given up, as the agent is gone for good.
                self.processes[index].flights.apply(Op::Forget, NOW);
            }
        }
    }

    /// Looks whether what was asked for was stored after all.
    fn look(&mut self, index: usize, mind: Mind, kept: Kept, plant: Option<Plant>) {
        let wanted = kept.append.facts.clone();
        if wanted.is_empty() {
            return self.ask(index, mind, kept);
        }
        let known = usize::try_from(mind.version.0 - 1).unwrap_or(usize::MAX);
        let found: Vec<Recorded> = self.log.iter().skip(known).take(wanted.len()).cloned().collect();
        let facts = found.iter().map(|(fact, under)| (fact, Some(*under)));
        let after = match after_doubt(facts, &wanted, kept.append.epoch) {
            _ if plant == Some(Plant::TrustDoubt) => Doubt::Act,
            after => after,
        };
        match after {
            Doubt::Append => self.ask(index, mind, kept),
            Doubt::Act => {
                self.seen.insert("found stored");
                let version = Version(mind.version.0 + wanted.len() as u64);
                self.done_recording(index, Mind { version, ..mind }, kept, false);
            }
            Doubt::ReadAgain => self.processes[index].seat = Seat::Empty,
        }
    }
}

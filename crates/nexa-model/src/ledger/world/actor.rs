//! What an actor does next, in the one order: decide, reserve, record, act.

use nexa_agent::Input;
use nexa_event::effect::Answer;
use nexa_event::fact::{AgentEvent, EffectResult};
use nexa_ports::store::AppendError;
use nexa_runtime::resume::{After, Doubt, after_doubt, is_outrun, is_unsent};
use nexa_types::{EffectKey, Epoch, Failure, RunCode, Spend, Version};
use nexa_vm::codec;
use nexa_vm::value::Value;

use super::super::Plant;
use super::super::mind::{Job, Made, Sending};
use super::{Append, AppendErrorKind, Call, Ending, Flight, Kept, Mind, Recorded, Seat, World, node};
use crate::frozen::Frozen;

impl World {
    /// A process does what is next.
    pub(super) fn next(&mut self, job: &Job, index: usize, plant: Option<Plant>, has_slot: bool, is_held_back: bool) {
        match std::mem::replace(&mut self.processes[index].seat, Seat::Empty) {
            Seat::Empty => {
                let rights = &mut self.processes[index].rights;
                if self.owner != index {
                    rights.lost(job.agent(), self.epoch);
                } else if rights.covers(job.agent(), self.epoch, false) {
                    self.processes[index].seat = Seat::Reading(self.epoch);
                }
            }
            Seat::Reading(row) => self.processes[index].seat = self.read(job, index, row, plant),
            Seat::Idle(mind) => self.turn(job, index, mind, plant, has_slot),
            Seat::Doubt(mind, kept) => self.look(index, mind, kept, plant),
            Seat::Answered(mind, kept, Ok(version)) => {
                self.done_recording(index, Mind { version, ..mind }, kept, is_held_back);
            }
            Seat::Answered(_, kept, Err(kind)) => self.refused(job, index, kept, kind),
            seat @ (Seat::Broken | Seat::Asking(..)) => self.processes[index].seat = seat,
        }
    }

    fn read(&mut self, job: &Job, index: usize, row: Epoch, plant: Option<Plant>) -> Seat {
        let process = &self.processes[index];
        let Some(agent) = job.read(self.events()) else {
            self.seen.insert("cannot be read");
            return Seat::Broken;
        };
        let says = job.says(&agent);
        if is_outrun(row, says.epoch) && plant != Some(Plant::Outrun) {
            self.processes[index].rights.lost(job.agent(), row);
            return Seat::Empty;
        }
        let given = process.rights.epoch(job.agent());
        let is_own =
            |(key, _, epoch): (EffectKey, u32, Epoch)| is_unsent(given, epoch, process.flights.contains_key(&key));
        let lost = if says.sent.is_some_and(is_own) { job.in_flight(&agent) } else { None };
        let first = job.first_input(&agent, row, &node(index));
        let first = Some(Frozen::new(first));
        Seat::Idle(Mind { agent, version: says.version, first, wish: None, lost, more: false })
    }

    /// What there is to do, the most urgent first; as the actor's `next` and `take`.
    fn turn(&mut self, job: &Job, index: usize, mut mind: Mind, plant: Option<Plant>, has_slot: bool) {
        let flights = &self.processes[index].flights;
        let finished = flights.values().find_map(|flight| Some((flight.sent, flight.result?)));
        if let Some(first) = mind.first.take() {
            if matches!(*first, Input::TakeOver { .. }) {
                mind.lost = None;
            }
            self.hear(job, index, mind, (*first).clone(), None, (plant, has_slot));
        } else if let Some((Sending { seq, key, attempt }, ending)) = finished {
            let result = match ending {
                Ending::Done => EffectResult::Done(Answer::Value(codec::encode(&Value::Str("paid".into())))),
                Ending::Failed => EffectResult::Failed(Failure::new(RunCode::Unavailable, "it refused")),
                Ending::Unknown => EffectResult::Unknown(Failure::new(RunCode::Unavailable, "its answer was lost")),
            };
            mind.lost.take_if(|lost| lost.seq == seq);
            let input = Input::EffectEnded { seq, attempt, result, spend: Spend::default() };
            self.hear(job, index, mind, input, Some(key), (plant, has_slot));
        } else if mind.more {
            self.hear(job, index, mind, Input::Continue, None, (plant, has_slot));
        } else if mind.wish.is_some() && has_slot {
            let facts = Vec::new();
            self.keep(job, index, mind, facts, None, (plant, true));
        } else if let Some(lost) = mind.lost.take_if(|_| mind.wish.is_none()) {
            // By the store's word that the agent is still this node's; by the lease alone it is the same, but sooner.
            let append = Append { epoch: job.says(&mind.agent).epoch, expected: mind.version, facts: Vec::new() };
            self.ask(index, mind, Kept { append, send: Some(lost), settled: None });
        } else {
            self.processes[index].seat = Seat::Idle(mind);
        }
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
        let Made { agent, facts, wish, more } = job.step(&mind.agent, input);
        self.keep(job, index, Mind { agent, wish, more, ..mind }, facts, settled, (plant, has_slot));
    }

    /// Adds the ticket if a slot is free, and asks the store. What says nothing is not stored.
    fn keep(
        &mut self,
        job: &Job,
        index: usize,
        mut mind: Mind,
        mut facts: Vec<Frozen<AgentEvent>>,
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
        let append = Append { epoch: job.says(&mind.agent).epoch, expected: mind.version, facts };
        if plant == Some(Plant::SendFirst)
            && let Some(sending) = send.take()
        {
            self.send(index, sending, append.epoch);
        }
        let kept = Kept { append, send, settled };
        if kept.append.facts.is_empty() {
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
            self.processes[index].flights.remove(&key);
        }
        match send {
            Some(sending) if is_held_back => mind.lost = Some(sending),
            Some(sending) => self.send(index, sending, append.epoch),
            None => {}
        }
        let is_outdated =
            self.processes[index].rights.epoch(Job::of(false).agent()).is_some_and(|given| given > append.epoch);
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
        let flights = &mut self.processes[index].flights;
        // MD-3: an attempt is sent once.
        if flights.get(&sent.key).is_some_and(|flight| flight.sent.attempt >= sent.attempt) {
            return;
        }
        flights.insert(sent.key, Flight { sent, result: None });
        self.calls.push(Call { of: index, key: sent.key, attempt: sent.attempt, became: None });
        self.calls.sort_unstable();
    }

    fn refused(&mut self, job: &Job, index: usize, kept: Kept, kind: AppendErrorKind) {
        let (given, current) = (kept.append.epoch, self.epoch);
        let error = match kind {
            AppendErrorKind::Stale => AppendError::StaleEpoch { given, current },
            AppendErrorKind::Conflict => {
                AppendError::VersionConflict { given: kept.append.expected, current: Version(0) }
            }
        };
        if let After::Look(_) = After::of(&error) {
            let rights = &mut self.processes[index].rights;
            let owns = self.owner == index && rights.covers(job.agent(), current, false);
            if !owns && rights.lost(job.agent(), current) {
                // Whatever is in flight for it here is nobody's: it is given up, as the agent is gone for good.
                self.processes[index].flights.clear();
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

//! The store's log, the processes with their actors, what is in flight, and the outside world that counts.

use std::collections::{BTreeMap, BTreeSet};

use nexa_agent::Input;
use nexa_event::effect::Answer;
use nexa_event::fact::{AgentEvent, EffectResult};
use nexa_ports::store::{AgentHead, AppendError, Guard, Place};
use nexa_runtime::Rights;
use nexa_runtime::flights::{Flights, Op};
use nexa_types::{EffectKey, Epoch, Failure, NodeId, RunCode, Seq, Version};
use nexa_vm::codec;
use nexa_vm::value::Value;

use super::mind::{Job, NOW, Sending, agent};
use super::moving::Letter;
use super::{Action, Bounds, Plant};
use crate::frozen::Frozen;

/// Processes.
pub(super) const PROCESSES: usize = 2;

pub(super) fn node(process: usize) -> NodeId {
    NodeId::new(["n1", "n2"][process]).expect("a good name")
}

/// A fact in the log, and under which epoch it was appended.
pub(super) type Recorded = (Frozen<AgentEvent>, Epoch);

/// What is to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Append {
    pub(super) epoch: Epoch,
    pub(super) expected: Version,
    pub(super) facts: Vec<Frozen<AgentEvent>>,
    /// Whether the message in its inbox is dealt with.
    pub(super) takes: bool,
}

/// A decided step until it is recorded and acted on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kept {
    pub(super) append: Append,
    pub(super) send: Option<Sending>,
    pub(super) settled: Option<EffectKey>,
}

/// How far an actor is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Seat {
    /// Not in memory.
    Empty,
    /// Nor can it be read.
    Broken,
    /// Its row was read.
    Reading(Epoch),
    /// Between two steps.
    Idle(Mind),
    /// It waits for the store.
    Asking(Mind, Kept),
    /// The store has answered.
    Answered(Mind, Kept, Result<Version, AppendErrorKind>),
    /// Nobody knows what the store did.
    Doubt(Mind, Kept),
    /// It has left memory, to go to that process.
    Leaving(usize),
    /// Its row says so, under that epoch.
    Parted(usize, Epoch),
}

/// What an append was refused for, as far as an actor looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum AppendErrorKind {
    Stale,
    Conflict,
}

/// An agent in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Mind {
    pub(super) agent: Frozen<Vec<u8>>,
    /// How long its stream is, as far as it knows.
    pub(super) version: Version,
    pub(super) first: Option<Frozen<Input>>,
    pub(super) wish: Option<Seq>,
    pub(super) lost: Option<Sending>,
    pub(super) more: bool,
    /// Whether there is a message in its inbox, as far as it knows.
    pub(super) mail: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Ending {
    Done,
    Failed,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) is_up: bool,
    /// Which run of it.
    pub(super) run: u64,
    pub(super) rights: Rights,
    pub(super) seat: Seat,
    pub(super) flights: Flights,
    /// Who has died and was not heard to be gone, and the run of it that is still in this one's list.
    pub(super) mourns: BTreeMap<usize, u64>,
    /// How often it has offered what it carries.
    pub(super) offered: u8,
}

impl Process {
    fn new(process: usize, is_up: bool, run: u64) -> Self {
        Self {
            is_up,
            run,
            rights: Rights::new(true),
            seat: Seat::Empty,
            flights: Flights::new(node(process), agent()),
            mourns: BTreeMap::new(),
            offered: 0,
        }
    }
}

/// A call outside: it goes on when its process is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Call {
    pub(super) of: usize,
    pub(super) key: EffectKey,
    pub(super) seq: Seq,
    pub(super) attempt: u32,
    /// What the outside world has made of it; its answer is on the way.
    pub(super) became: Option<Ending>,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub(super) owner: usize,
    pub(super) epoch: Epoch,
    pub(super) log: Vec<Recorded>,
    pub(super) processes: Vec<Process>,
    pub(super) requests: Vec<(usize, Append)>,
    pub(super) calls: Vec<Call>,
    /// How often each key was done.
    pub(super) done: BTreeMap<EffectKey, u32>,
    pub(super) letters: Vec<Frozen<Letter>>,
    /// Whether there is a message for the agent, or was.
    pub(super) mail: Option<bool>,
    pub(super) moves: u8,
    pub(super) faults: u8,
    /// Which program: whether its tool may be called twice, and whether it waits for a message.
    job: (bool, bool),
    pub(super) seen: BTreeSet<&'static str>,
}

impl World {
    /// The agent was given to the first process, and has not begun.
    pub(super) fn new(bounds: &Bounds, plant: Option<Plant>) -> Self {
        let mut processes: Vec<Process> = (0..PROCESSES).map(|process| Process::new(process, true, 0)).collect();
        processes[0].rights.given(agent(), Epoch(1));
        let receives = bounds.moves > 0;
        Self {
            owner: 0,
            epoch: Epoch(1),
            log: Vec::new(),
            processes,
            requests: Vec::new(),
            calls: Vec::new(),
            done: BTreeMap::new(),
            letters: Vec::new(),
            mail: receives.then_some(true),
            moves: 0,
            faults: 0,
            job: (bounds.is_idempotent || plant == Some(Plant::Repeat), receives),
            seen: BTreeSet::new(),
        }
    }

    pub(super) fn job(&self) -> &'static Job {
        Job::of(self.job.0, self.job.1)
    }

    pub(super) fn has(&self, what: &str) -> bool {
        self.seen.contains(what)
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &AgentEvent> {
        self.log.iter().map(|(event, _)| &**event)
    }

    pub(super) fn most_done(&self) -> u32 {
        self.done.values().copied().max().unwrap_or(0)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.events().any(|event| matches!(event, AgentEvent::Ended { .. }))
    }

    /// Whether the log says that nobody knows how the call ended.
    pub(super) fn is_unknown(&self) -> bool {
        self.events().any(|event| {
            let is_unknown = |result: &EffectResult| matches!(result, EffectResult::Unknown(_));
            matches!(event, AgentEvent::EffectLost { .. })
                || matches!(event, AgentEvent::EffectEnded { result, .. } if is_unknown(result))
        })
    }

    fn says(&self, is: fn(&EffectResult) -> bool) -> bool {
        self.events().any(|event| matches!(event, AgentEvent::EffectEnded { result, .. } if is(result)))
    }

    pub(super) fn says_failed_of_what_was_done(&self) -> bool {
        self.most_done() > 0 && self.says(|result| matches!(result, EffectResult::Failed(_)))
    }

    pub(super) fn says_done_of_what_was_not(&self) -> bool {
        self.most_done() == 0 && self.says(|result| matches!(result, EffectResult::Done(_)))
    }

    pub(super) fn has_retried_unknown(&self) -> bool {
        let is_lost = |event: &AgentEvent| match event {
            AgentEvent::EffectLost { .. } => true,
            AgentEvent::EffectEnded { result, .. } => matches!(result, EffectResult::Unknown(_)),
            _ => false,
        };
        let after = self.events().skip_while(|event| !is_lost(event));
        after.into_iter().any(|event| matches!(event, AgentEvent::EffectStarted { .. }))
    }

    pub(super) fn has_started_twice(&self) -> bool {
        let mut started = BTreeSet::new();
        self.events().any(|event| match event {
            AgentEvent::EffectStarted { seq, attempt, epoch } => !started.insert((*seq, *attempt, *epoch)),
            _ => false,
        })
    }

    /// How often its message is recorded.
    pub(super) fn received(&self) -> usize {
        self.events().filter(|event| matches!(event, AgentEvent::MessageReceived { .. })).count()
    }

    /// Whether the owner has the agent and knows it.
    fn is_held(&self) -> bool {
        let owner = &self.processes[self.owner];
        owner.is_up && owner.rights.covers(agent(), self.epoch, false)
    }

    /// Whether nobody has the agent or is about to hear of it.
    fn is_lost(&self) -> bool {
        let is_parting = |process: &Process| process.is_up && matches!(process.seat, Seat::Parted(..));
        !self.is_held() && self.letters.is_empty() && !self.processes.iter().any(is_parting)
    }

    /// Whether nothing can happen but a new placement, and the owner that is up has not brought the agent to its end.
    pub(super) fn is_stuck(&self) -> bool {
        let is_at_rest = self.requests.is_empty()
            && self.calls.is_empty()
            && self.letters.is_empty()
            && self.processes.iter().all(|process| process.mourns.is_empty())
            && (0..PROCESSES).all(|process| !self.has_next(process) && !self.may_offer(process));
        is_at_rest && self.is_held() && !self.has_ended()
    }

    /// What may happen next.
    pub(super) fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        let may_fail = self.faults < bounds.faults;
        if self.epoch.0 < bounds.epochs && !self.has_ended() && (may_fail || self.is_lost()) {
            actions.extend((0..PROCESSES).map(Action::Place));
        }
        for (index, process) in self.processes.iter().enumerate().filter(|(_, process)| process.is_up) {
            if self.has_next(index) {
                actions.push(Action::Act(index));
                if matches!(process.seat, Seat::Idle(_)) {
                    actions.push(Action::ActWithoutSlot(index));
                }
                let sends = matches!(&process.seat, Seat::Answered(_, Kept { send: Some(_), .. }, Ok(_)));
                if may_fail && sends {
                    actions.push(Action::ActHeldBack(index));
                }
            }
            if self.may_release(bounds, index) {
                actions.push(Action::Release(index));
            }
            if self.may_offer(index) {
                actions.push(Action::Offer(index));
            }
            actions.extend(process.mourns.keys().map(|gone| Action::Mourn(index, *gone)));
            if may_fail {
                actions.push(Action::Crash(index));
                let is_in_memory = !matches!(process.seat, Seat::Empty | Seat::Broken);
                if is_in_memory && !matches!(process.seat, Seat::Leaving(_) | Seat::Parted(..)) {
                    actions.push(Action::Panic(index));
                }
            }
        }
        for (index, (of, _)) in self.requests.iter().enumerate() {
            actions.push(Action::Store(index));
            if may_fail {
                actions.push(Action::Lose(index));
                if self.processes[*of].is_up {
                    actions.push(Action::StoreBlind(index));
                }
            }
        }
        for index in 0..self.letters.len() {
            actions.push(Action::Bring(index));
            if may_fail {
                actions.push(Action::Drop(index));
            }
        }
        for (index, call) in self.calls.iter().enumerate() {
            match call.became {
                None => actions.extend([Action::Do(index), Action::Refuse(index)]),
                Some(_) => {
                    actions.push(Action::Answer(index));
                    if may_fail {
                        actions.push(Action::LoseAnswer(index));
                    }
                }
            }
        }
    }

    pub(super) fn has_next(&self, process: usize) -> bool {
        let Process { is_up, rights, seat, flights, .. } = &self.processes[process];
        *is_up
            && match seat {
                Seat::Empty => rights.epoch(agent()).is_some() && !self.has_ended(),
                Seat::Idle(mind) => {
                    let has_input = mind.first.is_some() || flights.finished().is_some() || self.hears_mail(mind);
                    let has_work = mind.more || mind.wish.is_some() || mind.lost.is_some();
                    has_input || has_work || self.gives_up(process, mind)
                }
                Seat::Reading(_) | Seat::Answered(..) | Seat::Doubt(..) | Seat::Leaving(_) | Seat::Parted(..) => true,
                Seat::Broken | Seat::Asking(..) => false,
            }
    }

    /// Makes it happen.
    pub(super) fn act(&mut self, plant: Option<Plant>, action: Action) {
        match action {
            Action::Place(to) => self.place(to),
            Action::Act(process) => self.next(process, plant, true, false),
            Action::ActWithoutSlot(process) => self.next(process, plant, false, false),
            Action::ActHeldBack(process) => {
                self.faults += 1;
                self.next(process, plant, true, true);
            }
            Action::Store(index) => self.store(index, true),
            Action::StoreBlind(index) => {
                self.faults += 1;
                self.store(index, false);
            }
            Action::Lose(index) => {
                self.faults += 1;
                let (of, append) = self.requests.remove(index);
                self.unanswered(of, &append);
            }
            Action::Do(index) => {
                let call = &mut self.calls[index];
                call.became = Some(Ending::Done);
                *self.done.entry(call.key).or_default() += 1;
                self.calls.sort_unstable();
            }
            Action::Refuse(index) => {
                self.calls[index].became = Some(Ending::Failed);
                self.calls.sort_unstable();
            }
            Action::Answer(index) => {
                let call = self.calls.remove(index);
                self.answered(call, call.became);
            }
            Action::LoseAnswer(index) => {
                self.faults += 1;
                let call = self.calls.remove(index);
                self.answered(call, Some(Ending::Unknown));
            }
            Action::Panic(process) => {
                self.faults += 1;
                self.processes[process].seat = Seat::Empty;
            }
            Action::Crash(process) => {
                self.faults += 1;
                let run = self.processes[process].run;
                self.processes[process] = Process::new(process, false, run);
                for other in (0..PROCESSES).filter(|other| *other != process && plant != Some(Plant::NoMourning)) {
                    self.processes[other].mourns.entry(process).or_insert(run);
                }
            }
            Action::Release(process) => {
                self.moves += 1;
                self.processes[process].seat = Seat::Leaving((process + 1) % PROCESSES);
            }
            Action::Offer(process) => self.offer(process, plant),
            Action::Bring(index) => {
                let letter = self.letters.remove(index);
                self.bring(&letter, plant);
            }
            Action::Drop(index) => {
                self.faults += 1;
                self.letters.remove(index);
            }
            Action::Mourn(process, gone) => {
                self.processes[process].mourns.remove(&gone);
                self.processes[process].flights.apply(Op::Gone(node(gone)), NOW);
            }
        }
    }

    /// The row is changed, and the new owner is told. A dead process is started for it.
    fn place(&mut self, to: usize) {
        self.faults += u8::from(!self.is_lost());
        let wish = Place { agent: agent(), from: self.epoch, node: node(to) };
        let Ok(epoch) = wish.judge(self.epoch, false) else { return };
        (self.epoch, self.owner) = (epoch, to);
        let process = &mut self.processes[to];
        process.run += u64::from(!process.is_up);
        process.is_up = true;
        process.rights.given(agent(), epoch);
        process.flights.apply(Op::TakeUp(None), NOW);
        // What is in memory is of an earlier right. An actor that waits for the store finds that out by its answer.
        if matches!(process.seat, Seat::Idle(_) | Seat::Reading(_)) {
            process.seat = Seat::Empty;
        }
    }

    fn answered(&mut self, call: Call, ending: Option<Ending>) {
        let result = match ending {
            Some(Ending::Done) => EffectResult::Done(Answer::Value(codec::encode(&Value::Str("paid".into())))),
            Some(Ending::Failed) => EffectResult::Failed(Failure::new(RunCode::Unavailable, "it refused")),
            _ => EffectResult::Unknown(Failure::new(RunCode::Unavailable, "its answer was lost")),
        };
        if self.processes[call.of].is_up {
            self.processes[call.of].flights.apply(Op::End(call.key, call.seq, call.attempt, result), NOW);
        }
    }

    fn store(&mut self, index: usize, is_heard: bool) {
        let (of, append) = self.requests.remove(index);
        let version = Version(self.log.len() as u64 + 1);
        let head = AgentHead { epoch: self.epoch, version, has_ended: self.has_ended() };
        let answer = match Guard::Owner(append.epoch).admits(append.expected, head) {
            Ok(()) => {
                self.log.extend(append.facts.iter().map(|fact| (fact.clone(), append.epoch)));
                if append.takes {
                    self.mail = Some(false);
                }
                Ok(Version(self.log.len() as u64 + 1))
            }
            Err(AppendError::StaleEpoch { .. }) => Err(AppendErrorKind::Stale),
            Err(_) => Err(AppendErrorKind::Conflict),
        };
        if !is_heard {
            return self.unanswered(of, &append);
        }
        if let Seat::Asking(mind, kept) = &self.processes[of].seat
            && kept.append == append
        {
            self.processes[of].seat = Seat::Answered(mind.clone(), kept.clone(), answer);
        }
    }

    fn unanswered(&mut self, of: usize, append: &Append) {
        if let Seat::Asking(mind, kept) = &self.processes[of].seat
            && kept.append == *append
        {
            self.processes[of].seat = Seat::Doubt(mind.clone(), kept.clone());
        }
    }
}

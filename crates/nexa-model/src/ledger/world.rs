//! The store's log, the processes with their actors, what is in flight, and the outside world that counts.

mod actor;

use std::collections::{BTreeMap, BTreeSet};

use nexa_agent::Input;
use nexa_event::fact::{AgentEvent, EffectResult};
use nexa_ports::store::{AgentHead, AppendError, Guard, Place};
use nexa_runtime::Rights;
use nexa_types::{EffectKey, Epoch, NodeId, Seq, Version};

use super::mind::{Job, Sending};
use super::{Action, Bounds, Plant};
use crate::frozen::Frozen;

/// Processes.
const PROCESSES: usize = 2;

fn node(process: usize) -> NodeId {
    NodeId::new(["n1", "n2"][process]).expect("a good name")
}

/// A fact in the log, and under which epoch it was appended.
type Recorded = (Frozen<AgentEvent>, Epoch);

/// What is to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Append {
    epoch: Epoch,
    expected: Version,
    facts: Vec<Frozen<AgentEvent>>,
}

/// A decided step until it is recorded and acted on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kept {
    append: Append,
    send: Option<Sending>,
    settled: Option<EffectKey>,
}

/// How far an actor is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Seat {
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
}

/// What an append was refused for, as far as an actor looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum AppendErrorKind {
    Stale,
    Conflict,
}

/// An agent in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Mind {
    agent: Frozen<Vec<u8>>,
    /// How long its stream is, as far as it knows.
    version: Version,
    first: Option<Frozen<Input>>,
    wish: Option<Seq>,
    lost: Option<Sending>,
    more: bool,
}

/// What is in flight at a process, or has ended and is not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flight {
    sent: Sending,
    result: Option<Ending>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Ending {
    Done,
    Failed,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Process {
    is_up: bool,
    rights: Rights,
    seat: Seat,
    flights: BTreeMap<EffectKey, Flight>,
}

/// A call outside: it goes on when its process is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Call {
    of: usize,
    key: EffectKey,
    attempt: u32,
    /// What the outside world has made of it; its answer is on the way.
    became: Option<Ending>,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    owner: usize,
    epoch: Epoch,
    log: Vec<Recorded>,
    processes: Vec<Process>,
    requests: Vec<(usize, Append)>,
    calls: Vec<Call>,
    /// How often each key was done.
    done: BTreeMap<EffectKey, u32>,
    faults: u8,
    seen: BTreeSet<&'static str>,
}

impl World {
    /// The agent was given to the first process, and has not begun.
    pub(super) fn new() -> Self {
        let process =
            |_| Process { is_up: true, rights: Rights::new(true), seat: Seat::Empty, flights: BTreeMap::new() };
        let mut processes: Vec<Process> = (0..PROCESSES).map(process).collect();
        processes[0].rights.given(Job::of(false).agent(), Epoch(1));
        Self {
            owner: 0,
            epoch: Epoch(1),
            log: Vec::new(),
            processes,
            requests: Vec::new(),
            calls: Vec::new(),
            done: BTreeMap::new(),
            faults: 0,
            seen: BTreeSet::new(),
        }
    }

    pub(super) fn has(&self, what: &str) -> bool {
        self.seen.contains(what)
    }

    fn events(&self) -> impl Iterator<Item = &AgentEvent> {
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

    /// Whether nothing can happen but a new placement, and the owner that is up has not brought the agent to its end.
    pub(super) fn is_stuck(&self) -> bool {
        let is_at_rest =
            self.requests.is_empty() && self.calls.is_empty() && (0..PROCESSES).all(|process| !self.has_next(process));
        is_at_rest && self.processes[self.owner].is_up && !self.has_ended()
    }

    /// What may happen next.
    pub(super) fn actions(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        let may_fail = self.faults < bounds.faults;
        let owner_is_up = self.processes[self.owner].is_up;
        if self.epoch.0 < bounds.epochs && !self.has_ended() && (may_fail || !owner_is_up) {
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
            if may_fail {
                actions.push(Action::Crash(index));
                if !matches!(process.seat, Seat::Empty | Seat::Broken) {
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

    fn has_next(&self, process: usize) -> bool {
        let Process { is_up, rights, seat, flights } = &self.processes[process];
        *is_up
            && match seat {
                Seat::Empty => rights.epoch(Job::of(false).agent()).is_some() && !self.has_ended(),
                Seat::Idle(mind) => {
                    let has_ended = flights.values().any(|flight| flight.result.is_some());
                    mind.first.is_some() || has_ended || mind.more || mind.wish.is_some() || mind.lost.is_some()
                }
                Seat::Reading(_) | Seat::Answered(..) | Seat::Doubt(..) => true,
                Seat::Broken | Seat::Asking(..) => false,
            }
    }

    /// Makes it happen.
    pub(super) fn act(&mut self, bounds: &Bounds, plant: Option<Plant>, action: Action) {
        let job = Job::of(bounds.is_idempotent || plant == Some(Plant::Repeat));
        match action {
            Action::Place(to) => self.place(job, to),
            Action::Act(process) => self.next(job, process, plant, true, false),
            Action::ActWithoutSlot(process) => self.next(job, process, plant, false, false),
            Action::ActHeldBack(process) => {
                self.faults += 1;
                self.next(job, process, plant, true, true);
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
                let rights = Rights::new(true);
                self.processes[process] = Process { is_up: false, rights, seat: Seat::Empty, flights: BTreeMap::new() };
            }
        }
    }

    /// The row is changed, and the new owner is told. A dead process is started for it.
    fn place(&mut self, job: &Job, to: usize) {
        self.faults += u8::from(self.processes[self.owner].is_up);
        let wish = Place { agent: job.agent(), from: self.epoch, node: node(to) };
        let Ok(epoch) = wish.judge(self.epoch, false) else { return };
        (self.epoch, self.owner) = (epoch, to);
        let process = &mut self.processes[to];
        process.is_up = true;
        process.rights.given(job.agent(), epoch);
        // What is in memory is of an earlier right. An actor that waits for the store finds that out by its answer.
        if matches!(process.seat, Seat::Idle(_) | Seat::Reading(_)) {
            process.seat = Seat::Empty;
        }
    }

    fn answered(&mut self, call: Call, ending: Option<Ending>) {
        let flight = self.processes[call.of].flights.get_mut(&call.key);
        if let Some(flight) = flight.filter(|flight| flight.sent.attempt == call.attempt) {
            flight.result = ending;
        }
    }

    fn store(&mut self, index: usize, is_heard: bool) {
        let (of, append) = self.requests.remove(index);
        let version = Version(self.log.len() as u64 + 1);
        let head = AgentHead { epoch: self.epoch, version, has_ended: self.has_ended() };
        let answer = match Guard::Owner(append.epoch).admits(append.expected, head) {
            Ok(()) => {
                self.log.extend(append.facts.iter().map(|fact| (fact.clone(), append.epoch)));
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

//! The brain of a submitted list of agents: starts each when those it comes after have succeeded, and ends with what
//! all of them said. As pure as a VM: the same endings in the same order make the same decisions.
//!
//! It ends with a dict from item id to value, in submission order. Under [`OnFailure::Continue`] a failed item stands
//! there, and in its dependents' `results`, as `err(error)`. Otherwise a failure ends the list with that failure's
//! code, and its data is the dict of all that ended, so that no finished work is lost, as far as a failure may carry it
//! (`FAILURE_DATA_BYTES_MAX`); each item's own outcome stands in its own stream in any case. Results that are too long
//! together for one value (`VALUE_BYTES_MAX`) are left out, the longest first: each stands there as an error that says so.
//!
//! Members of a gang start with one effect, or none of them does: what keeps one of them from starting keeps all.
//!
//! An ending costs as much as the item has dependents. Whatever is counted over the whole list is counted once.
//!
//! Not here: budgets, ids and deadlines of the children (`children`).

mod list;
mod order;
mod starting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minicbor::{Decode, Encode};
use nexa_event::effect::{Answer, ChildSpec, EffectBody, EffectRequest, Join};
use nexa_event::fact::{ListItem, OnFailure};
use nexa_types::limits::BRANCHES_MAX;
use nexa_types::{Failure, Outcome, Payload, RunCode, Seq};
use nexa_vm::codec::VALUE_BYTES_MAX;
use nexa_vm::value::{Dict, Key, Record, Shape, Value};
use nexa_vm::vm::Stop;
use nexa_vm::{codec, failure};

pub use self::list::{ListError, validate};
use self::list::{dependents, distinct};
pub use self::order::turns;
use self::order::{Units, asks};

/// Arguments of the items that start together, in bytes. Further ones start with the next effect; one alone always may,
/// and so may a gang.
pub(crate) const START_BYTES_MAX: usize = 4 << 20;

/// Of a unit that cannot start, and whose items are about to end because of it.
const NEVER: u32 = u32::MAX;

/// What an error takes in the dict of results beside its text and data, and what one takes that has no data, in bytes.
const ERROR_BYTES: usize = 512;
/// What an entry of a dict takes beside its key and value, in bytes.
const ENTRY_BYTES: usize = 64;

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
enum Fate {
    #[n(0)]
    Waiting,
    #[n(1)]
    Running,
    #[n(2)]
    Ended(#[n(0)] Outcome),
    /// Something that it comes after has failed.
    #[n(3)]
    LeftOut,
}

/// The part of a coordinator that changes: what a snapshot keeps.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Progress {
    #[n(0)]
    fates: Vec<Fate>,
    /// Which items each effect started, by branch.
    #[n(1)]
    started: BTreeMap<Seq, Vec<u32>>,
    /// The number of the next effect.
    #[n(2)]
    next: Seq,
    /// Ends the list before all have ended.
    #[n(3)]
    verdict: Option<Failure>,
}

/// A list of agents on its way.
#[derive(Debug)]
pub struct Coordinator {
    items: Vec<ListItem>,
    on_failure: OnFailure,
    progress: Progress,
    // What follows from the above.
    dependents: Vec<Vec<u32>>,
    /// For how many others each item still waits.
    left: Vec<u32>,
    units: Units,
    /// Of each unit, how many items still wait for others; or [`NEVER`].
    unready: Vec<u32>,
    /// The turn of each unit: the least of its items.
    turns: Vec<u32>,
    /// The units of which all items may start, by turn.
    ready: BTreeSet<(u32, u32)>,
    waiting: usize,
    running: usize,
}

impl Coordinator {
    /// A list of which nothing has started. `turns` says which of those that may start is first, see [`turns`]; without
    /// it they start as submitted.
    ///
    /// # Errors
    /// [`ListError`] as of [`validate`], or if there are not as many turns as items.
    pub fn new(items: Vec<ListItem>, on_failure: OnFailure, turns: Option<&[u32]>) -> Result<Self, ListError> {
        validate(&items)?;
        if let Some(turns) = turns
            && turns.len() != items.len()
        {
            return Err(ListError::Turns { count: items.len(), turns: turns.len() });
        }
        let fates = vec![Fate::Waiting; items.len()];
        let progress = Progress { fates, started: BTreeMap::new(), next: Seq(1), verdict: None };
        Ok(Self::with(items, on_failure, turns, progress))
    }

    /// The list as a snapshot left it. `None` if the snapshot is not of this list.
    pub(crate) fn restore(
        items: Vec<ListItem>,
        on_failure: OnFailure,
        turns: Option<&[u32]>,
        progress: Progress,
    ) -> Option<Self> {
        validate(&items).ok()?;
        let known = |branches: &Vec<u32>| branches.iter().all(|index| (*index as usize) < items.len());
        let fits = progress.fates.len() == items.len()
            && turns.is_none_or(|turns| turns.len() == items.len())
            && progress.started.values().all(known);
        fits.then(|| Self::with(items, on_failure, turns, progress))
    }

    fn with(items: Vec<ListItem>, on_failure: OnFailure, turns: Option<&[u32]>, progress: Progress) -> Self {
        let units = Units::new(&items);
        let turn = |index: &u32| turns.map_or(*index, |turns| turns[*index as usize]);
        let mut list = Self {
            dependents: dependents(&items),
            left: Vec::new(),
            turns: units.members.iter().map(|members| members.iter().map(turn).min().unwrap_or(0)).collect(),
            unready: units.members.iter().map(|members| members.len() as u32).collect(),
            units,
            ready: BTreeSet::new(),
            waiting: 0,
            running: 0,
            items,
            on_failure,
            progress,
        };
        for index in 0..list.items.len() as u32 {
            let after = &list.items[index as usize].after;
            let left = distinct(after).into_iter().filter(|after| !list.allows(*after as usize)).count() as u32;
            list.left.push(left);
            match list.progress.fates[index as usize] {
                Fate::Waiting => {
                    list.waiting += 1;
                    if left == 0 {
                        list.is_free(index);
                    }
                }
                Fate::Running => list.running += 1,
                Fate::Ended(_) | Fate::LeftOut => {}
            }
        }
        list
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The number of its next effect.
    pub(crate) fn next(&self) -> Seq {
        self.progress.next
    }

    /// Whether those that come after an item need not wait for it any more.
    fn allows(&self, index: usize) -> bool {
        match &self.progress.fates[index] {
            Fate::Ended(outcome) => outcome.is_ok() || self.on_failure == OnFailure::Continue,
            Fate::Waiting | Fate::Running | Fate::LeftOut => false,
        }
    }

    /// How many items have not been started and may be.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting
    }

    /// Whether [`Self::run`] has something to say.
    pub fn has_work(&self) -> bool {
        self.progress.verdict.is_some() || !self.ready.is_empty() || self.waiting + self.running == 0
    }

    /// Starts what may start, at most `BRANCHES_MAX` or `START_BYTES_MAX` at a time, or ends. Out of fuel means: nothing
    /// before a child ends.
    pub fn run(&mut self) -> Stop {
        if let Some(verdict) = &self.progress.verdict {
            let mut failure = verdict.clone();
            failure.data = self.results().ok();
            return Stop::Ended(Outcome::Err(failure));
        }
        if self.ready.is_empty() {
            return if self.waiting + self.running == 0 { Stop::Ended(self.outcome()) } else { Stop::OutOfFuel };
        }
        let mut branches = Vec::new();
        let mut started = Vec::new();
        let mut bytes = 0;
        while let Some((turn, unit)) = self.ready.first().copied() {
            let members = &self.units.members[unit as usize];
            if branches.len() + members.len() > BRANCHES_MAX {
                break;
            }
            let args: Result<Vec<Payload>, Failure> = members.iter().map(|index| self.args(*index as usize)).collect();
            let args = match args {
                Ok(args) => args,
                Err(failure) => {
                    self.progress.verdict = Some(failure);
                    return self.run();
                }
            };
            bytes += args.iter().map(Payload::len).sum::<usize>();
            if bytes > START_BYTES_MAX && !branches.is_empty() {
                break;
            }
            self.ready.remove(&(turn, unit));
            for (index, args) in members.iter().zip(args) {
                let item = &self.items[*index as usize];
                let (name, budget, timeout) = (item.id.clone(), item.budget, item.timeout);
                let asks = asks(item, members.len());
                branches.push(ChildSpec { name, entry: item.entry, args, budget, timeout, asks });
                started.push(*index);
                self.progress.fates[*index as usize] = Fate::Running;
            }
        }
        self.waiting -= started.len();
        self.running += started.len();
        let seq = self.progress.next;
        self.progress.next = seq.next();
        self.progress.started.insert(seq, started);
        Stop::Effect(EffectRequest { seq, body: EffectBody::Children { branches, join: Join::None } })
    }

    /// Answers the last wish: the children run, or cannot.
    pub fn resume(&mut self, answer: Result<Answer, Failure>) {
        if let Err(failure) = answer {
            self.progress.verdict = Some(failure);
        }
    }

    /// Notes how a child ended. One that is not known, or has ended, changes nothing.
    pub fn child_ended(&mut self, seq: Seq, branch: u32, outcome: &Outcome) {
        let Some(index) = self.progress.started.get(&seq).and_then(|started| started.get(branch as usize)).copied()
        else {
            return;
        };
        if self.progress.fates[index as usize] != Fate::Running {
            return;
        }
        self.running -= 1;
        self.ended(index, outcome.clone());
    }

    /// An item has ended, and with it every one that could start now and cannot: that is its own end and nobody else's.
    fn ended(&mut self, index: u32, outcome: Outcome) {
        let mut open = vec![(index, outcome)];
        while let Some((index, outcome)) = open.pop() {
            let failure = outcome.failure().cloned();
            self.progress.fates[index as usize] = Fate::Ended(outcome);
            match (failure, self.on_failure) {
                (None, _) | (Some(_), OnFailure::Continue) => self.let_go_on(index, &mut open),
                (Some(_), OnFailure::SkipDependents) => self.leave_out_after(index),
                (Some(failure), OnFailure::FailFast) => {
                    let failure = self.failed(index as usize, &failure);
                    self.progress.verdict.get_or_insert(failure);
                }
            }
        }
    }

    /// Those that come after an item wait for one less; `open` gets those that cannot start.
    fn let_go_on(&mut self, index: u32, open: &mut Vec<(u32, Outcome)>) {
        for at in 0..self.dependents[index as usize].len() {
            let dependent = self.dependents[index as usize][at];
            let left = &mut self.left[dependent as usize];
            *left -= 1;
            let is_over = self.unready[self.units.of[dependent as usize] as usize] == NEVER;
            if *left > 0 || is_over || self.progress.fates[dependent as usize] != Fate::Waiting {
                continue;
            }
            match self.too_long(dependent as usize) {
                None => self.gather(dependent, open),
                Some(failure) => self.cannot_start(dependent, &failure, open),
            }
        }
    }

    /// What the entry of an item in a dict of results has at most, its id left out, in bytes.
    fn len(&self, index: usize) -> usize {
        match &self.progress.fates[index] {
            Fate::Ended(Outcome::Ok(payload)) => payload.len(),
            Fate::Ended(Outcome::Err(failure)) => {
                let causes = std::iter::successors(Some(failure), |at| at.cause.as_deref());
                let len = |at: &Failure| at.message.len() + at.data.as_ref().map_or(0, Payload::len) + ERROR_BYTES;
                causes.map(len).sum()
            }
            Fate::Waiting | Fate::Running | Fate::LeftOut => 0,
        }
    }

    fn leave_out_after(&mut self, index: u32) {
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            for dependent in &self.dependents[index as usize] {
                // With one of a gang all of it is left out.
                let unit = self.units.of[*dependent as usize] as usize;
                for member in &self.units.members[unit] {
                    let fate = &mut self.progress.fates[*member as usize];
                    if *fate == Fate::Waiting && self.unready[unit] != NEVER {
                        *fate = Fate::LeftOut;
                        self.waiting -= 1;
                        open.push(*member);
                    }
                }
            }
        }
    }

    /// The argument of an item: its input, or a record of its input and the results that it waited for.
    fn args(&self, index: usize) -> Result<Payload, Failure> {
        let item = &self.items[index];
        let input = self.value(&item.id, &item.input)?;
        let argument = if item.after.is_empty() {
            input
        } else {
            let results: Dict =
                distinct(&item.after).into_iter().filter_map(|after| self.result(after as usize)).collect();
            let results = Value::Dict(Arc::new(results));
            let fields = vec!["input".to_owned(), "results".to_owned()];
            let shape = Arc::new(Shape { fields, ..Shape::default() });
            Value::Record(Arc::new(Record { shape, values: vec![input, results] }))
        };
        codec::try_encode(&Value::List(Arc::new(vec![argument]))).map_err(|error| {
            Failure::new(RunCode::OutOfMemory, format!("the input of agent `{}` is too large: {error}", item.id))
        })
    }

    fn value(&self, id: &str, payload: &Payload) -> Result<Value, Failure> {
        codec::decode(payload)
            .map_err(|error| Failure::new(RunCode::ParseFailed, format!("a value of agent `{id}` is damaged: {error}")))
    }

    /// The entry of an item in the dict of results; `None` if it has not ended.
    fn result(&self, index: usize) -> Option<(Key, Value)> {
        let id = &self.items[index].id;
        let value = match &self.progress.fates[index] {
            Fate::Ended(Outcome::Ok(payload)) => match self.value(id, payload) {
                Ok(value) => value,
                Err(damage) => Value::Err(Arc::new(failure::to_value(&damage))),
            },
            Fate::Ended(Outcome::Err(error)) => Value::Err(Arc::new(failure::to_value(error))),
            Fate::Waiting | Fate::Running | Fate::LeftOut => return None,
        };
        Some((Key::Str(id.as_str().into()), value))
    }

    /// What all that have ended gave, by id.
    fn results(&self) -> Result<Payload, codec::EncodeError> {
        let left_out = self.left_out();
        let entry = |index: usize| match left_out.get(&index) {
            None => self.result(index),
            Some(len) => {
                let message = format!(
                    "its result of {len} bytes is left out, as the results of all agents are longer together than \
                     {VALUE_BYTES_MAX} bytes; ask for the agent itself"
                );
                let failure = failure::to_value(&Failure::new(RunCode::OutOfMemory, message));
                Some((Key::Str(self.items[index].id.as_str().into()), Value::Err(Arc::new(failure))))
            }
        };
        codec::try_encode(&Value::Dict(Arc::new((0..self.items.len()).filter_map(entry).collect())))
    }

    /// The results that must be left out so that the others fit into one value, and their lengths.
    fn left_out(&self) -> BTreeMap<usize, usize> {
        let of = |index: usize| self.len(index) + self.items[index].id.len() + ENTRY_BYTES;
        let mut total = ENTRY_BYTES + (0..self.items.len()).map(of).sum::<usize>();
        if total <= VALUE_BYTES_MAX {
            return BTreeMap::new();
        }
        let mut longest: Vec<(usize, usize)> = (0..self.items.len()).map(|index| (self.len(index), index)).collect();
        longest.sort_unstable();
        let mut left_out = BTreeMap::new();
        while total > VALUE_BYTES_MAX
            && let Some((len, index)) = longest.pop()
            && len > ERROR_BYTES
        {
            total -= len - ERROR_BYTES;
            left_out.insert(index, len);
        }
        left_out
    }

    /// How the list ends once everything has ended.
    fn outcome(&self) -> Outcome {
        let failed = (0..self.items.len()).find_map(|index| match &self.progress.fates[index] {
            Fate::Ended(Outcome::Err(failure)) => Some(self.failed(index, failure)),
            _ => None,
        });
        match (failed, self.results()) {
            (Some(mut failure), results) if self.on_failure != OnFailure::Continue => {
                failure.data = results.ok();
                Outcome::Err(failure)
            }
            (_, Ok(results)) => Outcome::Ok(results),
            (_, Err(error)) => {
                let message = format!("the results of all agents together are too large: {error}");
                Outcome::Err(Failure::new(RunCode::OutOfMemory, message))
            }
        }
    }

    fn failed(&self, index: usize, cause: &Failure) -> Failure {
        let left_out = self.progress.fates.iter().filter(|fate| **fate == Fate::LeftOut).count();
        let tail = match left_out {
            0 => String::new(),
            1 => ", and 1 that comes after it was left out".to_owned(),
            count => format!(", and {count} that come after failed ones were left out"),
        };
        let message = format!("agent `{}` failed{tail}", self.items[index].id);
        // Nobody cancelled the list itself.
        let code = if cause.code == RunCode::Cancelled { RunCode::Failed } else { cause.code };
        let mut failure = Failure::new(code, message);
        failure.cause = Some(Box::new(cause.clone()));
        failure
    }
}

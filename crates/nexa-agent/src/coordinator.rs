//! The brain of a submitted list of agents: starts each when those it comes after have succeeded, and ends with what
//! all of them said. As pure as a VM: the same endings in the same order make the same decisions.
//!
//! It ends with a dict from item id to value, in submission order. Under [`OnFailure::Continue`] a failed item stands
//! there, and in its dependents' `results`, as `err(error)`. Otherwise a failure ends the list with that failure's
//! code, and its data is the dict of all that ended, so that no finished work is lost, as far as a failure may carry it
//! (`FAILURE_DATA_BYTES_MAX`); each item's own outcome stands in its own stream in any case.
//!
//! Not here: budgets, ids and deadlines of the children (`children`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minicbor::{Decode, Encode};
use nexa_event::effect::{Answer, ChildSpec, EffectBody, EffectRequest, Join};
use nexa_event::fact::{ListItem, OnFailure};
use nexa_types::limits::{BRANCHES_MAX, LIST_AGENTS_MAX};
use nexa_types::{Failure, Outcome, Payload, RunCode, Seq};
use nexa_vm::value::{Dict, Key, Record, Shape, Value};
use nexa_vm::vm::Stop;
use nexa_vm::{codec, failure};

/// Arguments of the items that start together, in bytes. Further ones start with the next effect; one alone always may.
const START_BYTES_MAX: usize = 4 << 20;

/// Why a list cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It has no agents.
    #[error("the list has no agents")]
    Empty,
    /// It has too many.
    #[error("the list has {count} agents, more than the {LIST_AGENTS_MAX} that are allowed; submit several lists")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Two have one name.
    #[error("two agents of the list are called `{id}`; give each an id of its own")]
    DuplicateId {
        /// The name.
        id: String,
    },
    /// One comes after something that is not there.
    #[error("agent `{id}` comes after number {missing}, but the list has only {count} agents")]
    MissingDependency {
        /// Who.
        id: String,
        /// The index that it names.
        missing: u32,
        /// The length of the list.
        count: usize,
    },
    /// Some wait for each other.
    #[error("agents wait for each other: {path}")]
    Cycle {
        /// The ids along the cycle, the first one again at the end: `a → b → a`, each waiting for the next.
        path: String,
    },
    /// An input is no encoded value.
    #[error("the input of agent `{id}` cannot be read")]
    InputUnreadable {
        /// Whose.
        id: String,
        /// What is wrong with it.
        #[source]
        source: codec::DecodeError,
    },
}

/// Checks a list before it is accepted.
///
/// # Errors
/// [`ListError`] for a list that [`Coordinator::new`] would refuse.
pub fn validate(items: &[ListItem]) -> Result<(), ListError> {
    if items.is_empty() {
        return Err(ListError::Empty);
    }
    if items.len() > LIST_AGENTS_MAX {
        return Err(ListError::TooMany { count: items.len() });
    }
    let mut ids = BTreeSet::new();
    for item in items {
        if !ids.insert(item.id.as_str()) {
            return Err(ListError::DuplicateId { id: item.id.clone() });
        }
        if let Some(missing) = item.after.iter().find(|after| **after as usize >= items.len()) {
            let (id, count) = (item.id.clone(), items.len());
            return Err(ListError::MissingDependency { id, missing: *missing, count });
        }
        codec::decode(&item.input).map_err(|source| ListError::InputUnreadable { id: item.id.clone(), source })?;
    }
    match cycle(items) {
        Some(path) => Err(ListError::Cycle { path }),
        None => Ok(()),
    }
}

/// A cycle among items whose dependencies all exist. Without recursion: a chain may be as long as the list.
fn cycle(items: &[ListItem]) -> Option<String> {
    let mut left: Vec<usize> = items.iter().map(|item| distinct(&item.after).len()).collect();
    let dependents = dependents(items);
    let mut free: Vec<usize> = (0..items.len()).filter(|index| left[*index] == 0).collect();
    while let Some(index) = free.pop() {
        for dependent in &dependents[index] {
            left[*dependent as usize] -= 1;
            if left[*dependent as usize] == 0 {
                free.push(*dependent as usize);
            }
        }
    }
    // Whatever is left waits for something that is left, so going on from one to the next must come round.
    let mut at = left.iter().position(|left| *left > 0)?;
    let mut walk = Vec::new();
    while !walk.contains(&at) {
        walk.push(at);
        at = items[at].after.iter().map(|after| *after as usize).find(|after| left[*after] > 0)?;
    }
    let from = walk.iter().position(|seen| *seen == at)?;
    let ids = walk[from..].iter().chain([&at]).map(|index| items[*index].id.as_str());
    Some(ids.collect::<Vec<_>>().join(" → "))
}

fn distinct(after: &[u32]) -> BTreeSet<u32> {
    after.iter().copied().collect()
}

fn dependents(items: &[ListItem]) -> Vec<Vec<u32>> {
    let mut dependents = vec![Vec::new(); items.len()];
    for (index, item) in (0..).zip(items) {
        for after in distinct(&item.after) {
            dependents[after as usize].push(index);
        }
    }
    dependents
}

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
    ready: BTreeSet<u32>,
    waiting: usize,
    running: usize,
}

impl Coordinator {
    /// A list of which nothing has started.
    ///
    /// # Errors
    /// [`ListError`] as of [`validate`].
    pub fn new(items: Vec<ListItem>, on_failure: OnFailure) -> Result<Self, ListError> {
        validate(&items)?;
        let fates = vec![Fate::Waiting; items.len()];
        let progress = Progress { fates, started: BTreeMap::new(), next: Seq(1), verdict: None };
        Ok(Self::with(items, on_failure, progress))
    }

    /// The list as a snapshot left it. `None` if the snapshot is not of this list.
    pub(crate) fn restore(items: Vec<ListItem>, on_failure: OnFailure, progress: Progress) -> Option<Self> {
        validate(&items).ok()?;
        let known = |branches: &Vec<u32>| branches.iter().all(|index| (*index as usize) < items.len());
        let fits = progress.fates.len() == items.len() && progress.started.values().all(known);
        fits.then(|| Self::with(items, on_failure, progress))
    }

    fn with(items: Vec<ListItem>, on_failure: OnFailure, progress: Progress) -> Self {
        let mut list = Self {
            dependents: dependents(&items),
            left: Vec::new(),
            ready: BTreeSet::new(),
            waiting: 0,
            running: 0,
            items,
            on_failure,
            progress,
        };
        for (index, item) in (0..).zip(&list.items) {
            let left = distinct(&item.after).into_iter().filter(|after| !list.allows(*after as usize)).count() as u32;
            list.left.push(left);
            match list.progress.fates[index as usize] {
                Fate::Waiting => {
                    list.waiting += 1;
                    if left == 0 {
                        list.ready.insert(index);
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
            failure.data = codec::try_encode(&self.results()).ok();
            return Stop::Ended(Outcome::Err(failure));
        }
        if self.ready.is_empty() {
            return if self.waiting + self.running == 0 { Stop::Ended(self.outcome()) } else { Stop::OutOfFuel };
        }
        let mut branches = Vec::new();
        let mut started = Vec::new();
        let mut bytes = 0;
        while branches.len() < BRANCHES_MAX
            && let Some(index) = self.ready.first().copied()
        {
            let args = match self.args(index as usize) {
                Ok(args) => args,
                Err(failure) => {
                    self.progress.verdict = Some(failure);
                    return self.run();
                }
            };
            bytes += args.len();
            if bytes > START_BYTES_MAX && !branches.is_empty() {
                break;
            }
            self.ready.pop_first();
            let item = &self.items[index as usize];
            let (name, budget, timeout) = (item.id.clone(), item.budget, item.timeout);
            branches.push(ChildSpec { name, entry: item.entry, args, budget, timeout });
            started.push(index);
            self.progress.fates[index as usize] = Fate::Running;
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
        self.progress.fates[index as usize] = Fate::Ended(outcome.clone());
        match (outcome, self.on_failure) {
            (Outcome::Ok(_), _) | (Outcome::Err(_), OnFailure::Continue) => self.let_go_on(index),
            (Outcome::Err(_), OnFailure::SkipDependents) => self.leave_out_after(index),
            (Outcome::Err(failure), OnFailure::FailFast) => {
                let failure = self.failed(index as usize, failure);
                self.progress.verdict.get_or_insert(failure);
            }
        }
    }

    fn let_go_on(&mut self, index: u32) {
        for dependent in &self.dependents[index as usize] {
            let left = &mut self.left[*dependent as usize];
            *left -= 1;
            if *left == 0 && self.progress.fates[*dependent as usize] == Fate::Waiting {
                self.ready.insert(*dependent);
            }
        }
    }

    fn leave_out_after(&mut self, index: u32) {
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            for dependent in &self.dependents[index as usize] {
                let fate = &mut self.progress.fates[*dependent as usize];
                if *fate == Fate::Waiting {
                    *fate = Fate::LeftOut;
                    self.waiting -= 1;
                    open.push(*dependent);
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

    fn results(&self) -> Value {
        Value::Dict(Arc::new((0..self.items.len()).filter_map(|index| self.result(index)).collect()))
    }

    /// How the list ends once everything has ended.
    fn outcome(&self) -> Outcome {
        let failed = (0..self.items.len()).find_map(|index| match &self.progress.fates[index] {
            Fate::Ended(Outcome::Err(failure)) => Some(self.failed(index, failure)),
            _ => None,
        });
        let results = codec::try_encode(&self.results());
        match (failed, results) {
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

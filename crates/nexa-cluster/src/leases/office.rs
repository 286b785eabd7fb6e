//! The leader's side of slices: from an election to the last word, with what the store has of them.
//!
//! In:  who is there and who leads, what the store answered, what holders report, ticks.
//! Out: records to be read and written, notices to nodes.
//!
//! Around the machine of nexa-sched, which decides, this keeps the order that it asks for:
//!
//! - The store is told of the election first, and read afterwards; only then anything is decided.
//! - A holder has joined when it is seen in a list of members, and is gone when it was seen and is no longer in one, also if
//!   that was before the election: its lease ended when this node saw it. Whoever stands in the records and was in no list is
//!   taken for gone when a later run of its node is there, or after [`UNSEEN`]: the list may be older than the record, and a
//!   holder that is taken for gone too early would be one too many.
//! - A node's slices of a provider are one record, of all its runs of which something is outstanding, and each record has one
//!   write under way. A write whose end is not known is made again under the version that the store had before it: whether
//!   the first one got through or not, the two cannot both count.
//! - Whoever is refused says nothing more in this office, and opens none of an older epoch again.
//!
//! Bounds: [`GONE_MAX`] nodes that are remembered to be gone, further ones are as if they had not been seen; [`WRITES_MAX`]
//! writes at a time, further ones wait in line, a record once each. A node's record is as large as the
//! store takes; a node with more runs outstanding than that (thousands within two minutes) gets no slices until they are over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use minicbor::{Decode, Encode};
use nexa_sched::lease::{
    Budgets, HOLDERS_MAX, HolderId, Leader, LeaderEpoch, LeaderInput, LeaderOutput, LeaderSettings, Notice, Report,
    SliceRecord, WaitingTenants, WaitingWhere,
};
use nexa_types::{Epoch, Generation, Millis, NodeId, Timestamp, Version};

/// Nodes that are remembered to be gone, the newest run of each.
pub(crate) const GONE_MAX: usize = HOLDERS_MAX;
/// Writes that are under way at a time.
pub(crate) const WRITES_MAX: usize = 32;
/// After so long a holder that stands in the records and was never seen is taken for gone.
pub(crate) const UNSEEN: Millis = Millis(10_000);
/// What all records of slices are called.
pub(crate) const PREFIX: &str = "slice/";

/// Of whom a record is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    pub(crate) provider: String,
    pub(crate) node: NodeId,
}

impl FileId {
    /// The name of the record. A provider's name may have any characters; that of a node follows the last unescaped stroke.
    pub(crate) fn name(&self) -> String {
        let provider = self.provider.replace('%', "%25").replace('/', "%2F");
        format!("{PREFIX}{provider}/{}", self.node)
    }
}

/// What a record says.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(map)]
struct Page {
    /// All runs of the node of which something is outstanding.
    #[n(0)]
    slices: Vec<SliceRecord>,
}

/// What the store has, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) slices: Vec<SliceRecord>,
}

/// What a record of the store says; nothing for one that was taken back.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(name: String, version: Version, value: &[u8]) -> Result<Read, String> {
    if value.is_empty() {
        return Ok(Read { name, version, slices: Vec::new() });
    }
    match minicbor::decode::<Page>(value) {
        Ok(page) => Ok(Read { name, version, slices: page.slices }),
        Err(error) => Err(format!("the record `{name}`: {error}")),
    }
}

/// Why the store has not done what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Somebody else leads.
    Deposed,
    /// The record has this version.
    Changed(Version),
    /// Not done, or nobody knows.
    Failed,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Who is there and who leads.
    Members { runs: BTreeSet<HolderId>, leader: Option<(HolderId, Epoch)> },
    /// The store knows of the election, and has these records.
    Opened { epoch: Epoch, records: Result<Vec<Read>, Trouble> },
    /// A write has ended.
    Written { epoch: Epoch, file: FileId, result: Result<Version, Trouble> },
    /// By a holder.
    Heard { from: HolderId, report: Report, tenants: Vec<(String, WaitingTenants)> },
    /// About a second has passed.
    Tick,
}

/// What it wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// The store is to be told of the election, and then asked for all records; answered with [`Input::Opened`].
    Open { epoch: Epoch },
    /// To be written; answered with [`Input::Written`].
    Write { epoch: Epoch, file: FileId, expected: Version, value: Vec<u8> },
    /// To be told.
    Notice(Notice),
    /// To be told: what of its tenants waits on other nodes.
    Elsewhere(HolderId, Vec<(String, WaitingTenants)>),
}

/// The office of a node, open or not.
pub(crate) struct Office {
    me: HolderId,
    budgets: Budgets,
    settings: LeaderSettings,
    runs: BTreeSet<HolderId>,
    /// The newest run of each node that was seen and is no longer there, and when that was noticed.
    gone: BTreeMap<NodeId, (Generation, Timestamp)>,
    /// The newest epoch of this node that is over.
    over: Option<Epoch>,
    term: Term,
}

enum Term {
    /// Somebody else leads, or nobody.
    Shut,
    Opening {
        epoch: Epoch,
        /// Whether the store is being asked.
        is_asked: bool,
    },
    Open(Box<Open>),
}

struct Open {
    epoch: Epoch,
    leader: Leader,
    tenants: WaitingWhere,
    /// Who was seen since, and is not gone.
    seen: BTreeSet<HolderId>,
    /// Who stands in the records and was not seen, and since when this is so.
    unseen: BTreeMap<HolderId, Timestamp>,
    /// Versions of the records, by name, as they were read.
    versions: BTreeMap<String, Version>,
    files: BTreeMap<FileId, File>,
    /// Records that are to be written, in order, each once.
    line: VecDeque<FileId>,
    writing: usize,
    out: Vec<Output>,
}

/// One record of the store.
#[derive(Default)]
struct File {
    version: Version,
    /// What it is to say.
    slices: BTreeMap<Generation, SliceRecord>,
    /// Runs of which the leader waits for a version to be stored.
    awaited: BTreeMap<Generation, u64>,
    /// What is being written has these.
    writing: Option<BTreeMap<Generation, u64>>,
    is_in_line: bool,
}

impl File {
    fn value(&self) -> Vec<u8> {
        let outstanding = self.slices.values().filter(|record| !record.size().is_none());
        let page = Page { slices: outstanding.cloned().collect() };
        if page.slices.is_empty() {
            return Vec::new();
        }
        minicbor::to_vec(&page).expect("writing into memory does not fail")
    }
}

impl Office {
    pub(crate) fn new(me: HolderId, budgets: Budgets, settings: LeaderSettings) -> Self {
        Self { me, budgets, settings, runs: BTreeSet::new(), gone: BTreeMap::new(), over: None, term: Term::Shut }
    }

    /// Whether it decides about slices.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.term, Term::Open(_))
    }

    /// The epoch that is open, or being opened.
    fn epoch(&self) -> Option<Epoch> {
        match &self.term {
            Term::Shut => None,
            Term::Opening { epoch, .. } => Some(*epoch),
            Term::Open(open) => Some(open.epoch),
        }
    }

    /// Takes in what happened, and says what is to be done.
    pub(crate) fn step(&mut self, input: Input, now: Timestamp) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Members { runs, leader } => {
                self.notice_gone(&runs, now);
                self.runs = runs;
                self.elect(leader, &mut out);
                if let Term::Open(open) = &mut self.term {
                    open.members(&self.runs, now);
                }
            }
            Input::Opened { epoch, records } => self.opened(epoch, records, now),
            Input::Written { epoch, file, result } => {
                if let Term::Open(open) = &mut self.term
                    && open.epoch == epoch
                {
                    open.written(file, result, now);
                }
            }
            Input::Heard { from, report, tenants } => {
                if let Term::Open(open) = &mut self.term
                    && report.holder == from
                {
                    open.tenants.hear(&from, &tenants, now);
                    let elsewhere = open.tenants.elsewhere(&from, now);
                    open.step(LeaderInput::Report(report), now);
                    open.out.push(Output::Elsewhere(from, elsewhere));
                }
            }
            Input::Tick => match &mut self.term {
                Term::Shut => {}
                Term::Opening { is_asked: true, .. } => {}
                Term::Opening { epoch, is_asked } => {
                    *is_asked = true;
                    out.push(Output::Open { epoch: *epoch });
                }
                Term::Open(open) => open.tick(now),
            },
        }
        if let Term::Open(open) = &mut self.term {
            if open.leader.is_deposed() {
                self.shut();
            } else {
                open.write();
                out.append(&mut open.out);
            }
        }
        out
    }

    fn notice_gone(&mut self, runs: &BTreeSet<HolderId>, now: Timestamp) {
        for run in self.runs.difference(runs) {
            if self.gone.len() < GONE_MAX || self.gone.contains_key(&run.node) {
                self.gone.insert(run.node.clone(), (run.generation, now));
            }
        }
    }

    fn shut(&mut self) {
        self.over = self.over.max(self.epoch());
        self.term = Term::Shut;
    }

    fn elect(&mut self, leader: Option<(HolderId, Epoch)>, out: &mut Vec<Output>) {
        let mine = leader.filter(|(run, _)| *run == self.me).map(|(_, epoch)| epoch);
        if mine == self.epoch() {
            return;
        }
        self.shut();
        if let Some(epoch) = mine.filter(|epoch| self.over.is_none_or(|over| over < *epoch)) {
            self.term = Term::Opening { epoch, is_asked: true };
            out.push(Output::Open { epoch });
        }
    }

    fn opened(&mut self, epoch: Epoch, records: Result<Vec<Read>, Trouble>, now: Timestamp) {
        let Term::Opening { epoch: mine, is_asked } = &mut self.term else { return };
        if *mine != epoch {
            return;
        }
        match records {
            Ok(records) => {
                let mut open = Box::new(Open::new(epoch, self.settings, self.budgets.clone(), records, now));
                open.knows_gone(&self.gone);
                open.members(&self.runs, now);
                open.tick(now);
                self.term = Term::Open(open);
            }
            Err(Trouble::Deposed) => self.shut(),
            // The next tick asks again.
            Err(Trouble::Changed(_) | Trouble::Failed) => *is_asked = false,
        }
    }
}

impl Open {
    fn new(epoch: Epoch, settings: LeaderSettings, budgets: Budgets, read: Vec<Read>, now: Timestamp) -> Self {
        let records: Vec<SliceRecord> = read.iter().flat_map(|read| read.slices.iter().cloned()).collect();
        let mut open = Self {
            epoch,
            leader: Leader::new(LeaderEpoch(epoch.0), settings, budgets, &records, now),
            tenants: WaitingWhere::default(),
            seen: BTreeSet::new(),
            unseen: records.iter().map(|record| (record.holder(), now)).collect(),
            versions: read.iter().map(|read| (read.name.clone(), read.version)).collect(),
            files: BTreeMap::new(),
            line: VecDeque::new(),
            writing: 0,
            out: Vec::new(),
        };
        for record in records {
            let id = FileId { provider: record.provider.clone(), node: record.node.clone() };
            open.file(&id).slices.insert(record.generation, record);
        }
        open
    }

    fn file(&mut self, id: &FileId) -> &mut File {
        if !self.files.contains_key(id) {
            let version = self.versions.get(&id.name()).copied().unwrap_or_default();
            self.files.insert(id.clone(), File { version, ..File::default() });
        }
        self.files.entry(id.clone()).or_default()
    }

    /// Has the leader take something in, and notes what it wants.
    fn step(&mut self, input: LeaderInput, now: Timestamp) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.leader.step(input, now) {
                match output {
                    LeaderOutput::Notice(notice) => self.out.push(Output::Notice(notice)),
                    LeaderOutput::Record(record) => inputs.extend(self.keep(record)),
                }
            }
        }
    }

    /// A record is to be stored. Gives the answer if it is there already.
    fn keep(&mut self, record: SliceRecord) -> Option<LeaderInput> {
        let id = FileId { provider: record.provider.clone(), node: record.node.clone() };
        let file = self.file(&id);
        let (run, version) = (record.generation, record.version);
        if file.slices.get(&run) == Some(&record) {
            // Said again: it is there, or on its way.
            let is_there = !file.awaited.contains_key(&run);
            let (provider, holder) = (record.provider.clone(), record.holder());
            return is_there.then_some(LeaderInput::Recorded { provider, holder, version });
        }
        file.slices.insert(run, record);
        file.awaited.insert(run, version);
        self.queue(id);
        None
    }

    fn queue(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id)
            && !std::mem::replace(&mut file.is_in_line, true)
        {
            self.line.push_back(id);
        }
    }

    /// Writes what waits in line, as far as may be at a time.
    fn write(&mut self) {
        for _ in 0..self.line.len() {
            if self.writing >= WRITES_MAX {
                return;
            }
            let Some(id) = self.line.pop_front() else { return };
            let Some(file) = self.files.get_mut(&id) else { continue };
            if file.writing.is_some() {
                self.line.push_back(id);
                continue;
            }
            file.is_in_line = false;
            file.writing = Some(file.awaited.clone());
            self.writing += 1;
            let (epoch, expected, value) = (self.epoch, file.version, file.value());
            self.out.push(Output::Write { epoch, file: id, expected, value });
        }
    }

    fn written(&mut self, id: FileId, result: Result<Version, Trouble>, now: Timestamp) {
        let Some(file) = self.files.get_mut(&id) else { return };
        let Some(written) = file.writing.take() else { return };
        self.writing -= 1;
        match result {
            Ok(version) => {
                file.version = version;
                file.awaited.retain(|run, version| written.get(run) != Some(version));
                let (slices, awaited) = (&mut file.slices, &file.awaited);
                slices.retain(|run, record| awaited.contains_key(run) || !record.size().is_none());
                for (generation, version) in written {
                    let holder = HolderId { node: id.node.clone(), generation };
                    let provider = id.provider.clone();
                    self.step(LeaderInput::Recorded { provider, holder, version }, now);
                }
            }
            Err(Trouble::Deposed) => self.step(LeaderInput::Refused, now),
            // Another write of this office was there before after all; nobody else can have written.
            Err(Trouble::Changed(version)) => file.version = version,
            Err(Trouble::Failed) => {}
        }
    }

    /// Who stands in the records and was seen to go before.
    fn knows_gone(&mut self, gone: &BTreeMap<NodeId, (Generation, Timestamp)>) {
        let known = |run: &HolderId| gone.get(&run.node).filter(|(newest, _)| run.generation <= *newest);
        let ended: Vec<_> = self.unseen.keys().filter_map(|run| Some((run.clone(), known(run)?.1))).collect();
        for (run, at) in ended {
            self.unseen.remove(&run);
            self.step(LeaderInput::LeaseEnded(run), at);
        }
    }

    fn members(&mut self, runs: &BTreeSet<HolderId>, now: Timestamp) {
        for run in runs {
            self.unseen.remove(run);
            if self.seen.insert(run.clone()) {
                self.step(LeaderInput::Joined(run.clone()), now);
            }
        }
        let gone: Vec<HolderId> = self.seen.difference(runs).cloned().collect();
        for run in gone {
            self.seen.remove(&run);
            self.step(LeaderInput::LeaseEnded(run), now);
        }
    }

    fn tick(&mut self, now: Timestamp) {
        let is_over = |run: &HolderId, since: Timestamp| {
            now.since(since) >= UNSEEN
                || self.seen.iter().any(|seen| seen.node == run.node && seen.generation > run.generation)
        };
        let over: Vec<HolderId> =
            self.unseen.iter().filter(|(run, since)| is_over(run, **since)).map(|(run, _)| run.clone()).collect();
        for run in over {
            self.unseen.remove(&run);
            self.step(LeaderInput::LeaseEnded(run), now);
        }
        self.step(LeaderInput::Tick, now);
        // What was not stored at the first try.
        let again: Vec<FileId> = self
            .files
            .iter()
            .filter(|(_, file)| !file.awaited.is_empty() && file.writing.is_none() && !file.is_in_line)
            .map(|(id, _)| id.clone())
            .collect();
        again.into_iter().for_each(|id| self.queue(id));
    }
}

#[cfg(test)]
#[path = "office_tests.rs"]
mod tests;

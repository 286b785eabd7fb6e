//! The world between processes: the service of leases, the store, what is under way, and time.

mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use nexa_member::leader::{Facts, Input, Output};
use nexa_member::say::Load;
use nexa_ports::store::Place;
use nexa_types::{AgentId, Epoch, Generation, Millis, NodeId, Timestamp, Version};

use super::process::{Process, Seat};
use super::{Action, Bounds, MARGIN, Plant, STEP, TERM};
use crate::frozen::Frozen;

/// The agent.
pub(super) const AGENT: AgentId = AgentId::from_bytes([1; 16]);

/// The nodes' names.
pub(super) fn node(name: usize) -> NodeId {
    static NAMES: OnceLock<[NodeId; 3]> = OnceLock::new();
    let names = NAMES.get_or_init(|| ["n1", "n2", "n3"].map(|name| NodeId::new(name).expect("a good name")));
    names[name].clone()
}

/// What somebody asks of the store or of a node, or what they answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    /// A leader's wish.
    Wish(Output),
    /// Facts for the agent's stream: that a process takes it over under this epoch if it has not yet, and starts the effect.
    Append { epoch: Epoch, expected: Version, facts: Vec<Fact> },
    /// To a leader.
    Answer(Input),
    /// To whoever appended: whether it was accepted, or that nobody knows.
    Stored(Option<Result<Version, nexa_ports::store::AppendError>>),
}

/// Under way from or to a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Letter {
    pub(super) of: usize,
    pub(super) body: Frozen<Body>,
    /// Time goes on without it.
    is_late: bool,
}

/// What is recorded of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fact {
    TakenOver(Epoch),
    Started(Epoch),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) owner: Option<usize>,
    pub(super) epoch: Epoch,
    pub(super) log: Vec<Fact>,
    /// The newest leader that it was told of.
    leader: Epoch,
    /// Who recorded under which epoch, and when last.
    by: BTreeMap<Epoch, (usize, Timestamp)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lease {
    process: usize,
    renewed: Timestamp,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub(super) now: Timestamp,
    /// By node.
    leases: BTreeMap<usize, Lease>,
    leader: Option<(usize, Epoch)>,
    pub(super) revision: u64,
    elected: u64,
    pub(super) store: Store,
    pub(super) processes: Vec<Process>,
    pub(super) letters: Vec<Letter>,
    faults: u8,
    /// What has happened that properties are about.
    seen: BTreeSet<&'static str>,
}

impl World {
    /// All nodes are there, the first leads and does not know yet, and the agent has no owner.
    pub(super) fn new(bounds: &Bounds) -> Self {
        let store = Store { owner: None, epoch: Epoch(0), log: Vec::new(), leader: Epoch(0), by: BTreeMap::new() };
        let mut world = Self {
            now: Timestamp(0),
            leases: BTreeMap::new(),
            leader: None,
            revision: 0,
            elected: 0,
            store,
            processes: Vec::new(),
            letters: Vec::new(),
            faults: bounds.faults,
            seen: BTreeSet::new(),
        };
        (0..bounds.nodes).for_each(|name| world.start(name));
        world.elect(0);
        world
    }

    pub(super) fn has(&self, what: &str) -> bool {
        self.seen.contains(what)
    }

    pub(super) fn saw(&mut self, what: &'static str) {
        self.seen.insert(what);
    }

    /// Whether a second owner has sent something.
    pub(super) fn has_moved(&self) -> bool {
        let owners: BTreeSet<usize> = self.store.by.values().map(|(process, _)| *process).collect();
        let sends = |process: &usize| matches!(self.processes[*process].seat, Seat::Sent { .. });
        owners.len() > 1 && self.store.by.last_key_value().is_some_and(|(_, (process, _))| sends(process))
    }

    /// Whether all is in order, if it must be by now.
    pub(super) fn is_settled(&self, bounds: &Bounds) -> bool {
        if self.now < bounds.ends_at || !self.is_quiet(bounds, None) || self.leases.is_empty() {
            return true;
        }
        let owner = self.leases.values().map(|lease| lease.process).find(|process| self.holds(*process));
        owner.is_some_and(
            |process| matches!(self.processes[process].seat, Seat::Sent { at } if at.epoch == self.store.epoch),
        )
    }

    /// Whether a process has the agent by the row and knows it.
    fn holds(&self, process: usize) -> bool {
        let process = &self.processes[process];
        process.is_up && self.store.owner == Some(process.name) && process.rights.covers(AGENT, self.store.epoch, false)
    }

    /// Whether no other process had its node's name before.
    fn is_first_run(&self, process: usize) -> bool {
        !self.processes[..process].iter().any(|before| before.name == self.processes[process].name)
    }

    /// Whether the service counts this process for there.
    pub(super) fn is_member(&self, process: usize) -> bool {
        self.leases.values().any(|lease| lease.process == process)
    }

    fn is_calm(&self, bounds: &Bounds) -> bool {
        self.now >= bounds.calm_at
    }

    /// What may happen next.
    pub(super) fn actions(&self, bounds: &Bounds, plant: Option<Plant>, actions: &mut Vec<Action>) {
        let may_fail = !self.is_calm(bounds) && self.faults > 0;
        for (index, letter) in self.letters.iter().enumerate() {
            if index > 0 && self.letters[index - 1] == *letter {
                continue;
            }
            if self.is_deliverable(letter) {
                actions.push(Action::Deliver(index));
            }
            let is_request = !matches!(&*letter.body, Body::Answer(_) | Body::Stored(_));
            if may_fail && is_request {
                actions.push(Action::Lose(index));
                if !letter.is_late {
                    actions.push(Action::Delay(index));
                }
                if self.is_deliverable(letter) {
                    actions.push(Action::Blind(index));
                }
            }
        }
        for (index, process) in self.processes.iter().enumerate().filter(|(_, process)| process.is_up) {
            if process.is_paused {
                actions.push(Action::Resume(index));
                continue;
            }
            if self.learns(index) {
                actions.push(Action::Learn(index));
            }
            if self.has_next(index, plant) {
                actions.push(Action::Act(index));
            }
            if process.is_cut {
                actions.push(Action::Heal(index));
            } else if may_fail {
                actions.push(Action::Cut(index));
            }
            if may_fail {
                actions.extend([Action::Pause(index), Action::Crash(index)]);
            }
        }
        actions.extend((0..self.processes.len()).filter(|index| self.may_lead(*index, may_fail)).map(Action::Elect));
        let is_dead = |lease: &Lease| !self.processes[lease.process].is_up;
        actions
            .extend(self.leases.values().filter(|lease| is_dead(lease)).map(|lease| Action::EndLease(lease.process)));
        actions.extend((0..bounds.nodes).filter(|name| self.may_start(bounds, *name)).map(Action::Start));
        if self.now < bounds.ends_at && self.is_quiet(bounds, plant) {
            actions.push(Action::Tick);
        }
    }

    /// Whether time may go on: nobody has anything to do but what trouble keeps back.
    fn is_quiet(&self, bounds: &Bounds, plant: Option<Plant>) -> bool {
        let comes = self.letters.iter().any(|letter| !letter.is_late && self.is_deliverable(letter));
        let goes_on = |index| self.learns(index) || self.has_next(index, plant) || self.may_lead(index, false);
        let starts = self.is_calm(bounds) && (0..bounds.nodes).any(|name| self.may_start(bounds, name));
        !comes && !starts && !(0..self.processes.len()).any(goes_on)
    }

    fn learns(&self, process: usize) -> bool {
        let process = &self.processes[process];
        process.is_awake() && !process.is_cut && process.knows < self.revision
    }

    fn has_next(&self, process: usize, plant: Option<Plant>) -> bool {
        self.processes[process].is_awake() && self.next_of(process, plant).is_some()
    }

    /// Somebody leads as soon as nobody else does; as a fault also while somebody does.
    fn may_lead(&self, process: usize, may_fail: bool) -> bool {
        let is_there = self.is_member(process) && self.processes[process].is_awake() && !self.processes[process].is_cut;
        let is_free = self.leader.is_none_or(|(leader, _)| may_fail && leader != process);
        is_there && is_free
    }

    fn may_start(&self, bounds: &Bounds, name: usize) -> bool {
        let is_taken = |process: &Process| process.name == name && process.is_awake();
        self.processes.len() < bounds.nodes + bounds.restarts
            && !self.leases.contains_key(&name)
            && !self.processes.iter().any(is_taken)
    }

    /// Requests to the store always are; what is for a process waits while it stands still.
    fn is_deliverable(&self, letter: &Letter) -> bool {
        let to = match &*letter.body {
            Body::Answer(_) | Body::Stored(_) => Some(letter.of),
            Body::Wish(Output::Tell { generation, .. }) => self.process_of(*generation),
            Body::Wish(_) | Body::Append { .. } => None,
        };
        to.is_none_or(|to| !self.processes[to].is_up || !self.processes[to].is_paused)
    }

    fn process_of(&self, generation: Generation) -> Option<usize> {
        self.processes.iter().position(|process| process.generation == generation)
    }

    /// Makes it happen.
    pub(super) fn act(&mut self, bounds: &Bounds, plant: Option<Plant>, action: Action) {
        match action {
            Action::Tick => self.tick(bounds, plant),
            Action::Deliver(index) => {
                let letter = self.letters.remove(index);
                self.deliver(letter, plant, false);
            }
            Action::Lose(index) => {
                self.faults -= 1;
                let Letter { of, body, .. } = self.letters.remove(index);
                self.unanswered(of, &body);
            }
            Action::Delay(index) => {
                self.faults -= 1;
                self.letters[index].is_late = true;
                self.letters.sort_unstable();
            }
            Action::Blind(index) => {
                self.faults -= 1;
                let letter = self.letters.remove(index);
                self.deliver(letter, plant, true);
            }
            Action::Learn(process) => self.learn(process, plant),
            Action::Elect(process) => {
                self.faults -= u8::from(self.leader.is_some());
                self.elect(process);
            }
            Action::Act(process) => self.step_of(process, plant),
            Action::Pause(process) => {
                self.faults -= 1;
                self.processes[process].is_paused = true;
            }
            Action::Resume(process) => self.processes[process].is_paused = false,
            Action::Cut(process) => {
                self.faults -= 1;
                self.processes[process].is_cut = true;
            }
            Action::Heal(process) => self.processes[process].is_cut = false,
            Action::Crash(process) => {
                self.faults -= 1;
                self.processes[process].end();
            }
            Action::EndLease(process) => self.end_lease(process),
            Action::Start(name) => self.start(name),
        }
    }

    fn tick(&mut self, bounds: &Bounds, plant: Option<Plant>) {
        self.now = self.now.after(STEP);
        if self.is_calm(bounds) {
            self.processes.iter_mut().for_each(|process| (process.is_paused, process.is_cut) = (false, false));
            self.letters.iter_mut().for_each(|letter| letter.is_late = false);
            self.letters.sort_unstable();
        }
        for lease in self.leases.values_mut() {
            let process = &mut self.processes[lease.process];
            if process.is_awake() && !process.is_cut {
                lease.renewed = self.now;
                process.valid_until = self.now.after(Millis(TERM.0 - MARGIN.0));
            }
        }
        let term = if plant == Some(Plant::EarlyEnd) { STEP } else { TERM };
        let is_over = |lease: &&Lease| self.now >= lease.renewed.after(term);
        let over: Vec<usize> = self.leases.values().filter(is_over).map(|lease| lease.process).collect();
        over.into_iter().for_each(|process| self.end_lease(process));
        for leader in 0..self.processes.len() {
            if !self.processes[leader].is_awake() {
                continue;
            }
            for other in 0..self.processes.len() {
                if self.processes[other].is_awake() {
                    let heard = self.heartbeat(other);
                    self.lead(leader, heard, plant);
                }
            }
            self.lead(leader, Input::Tick, plant);
        }
    }

    fn heartbeat(&self, process: usize) -> Input {
        let Process { name, generation, taken, rights, .. } = &self.processes[process];
        let load = Load { agents: u64::from(rights.epoch(AGENT).is_some()), ..Load::default() };
        Input::Heard { node: node(*name), generation: *generation, load, adopted: taken.adopted() }
    }

    fn end_lease(&mut self, process: usize) {
        self.leases.retain(|_, lease| lease.process != process);
        if self.leader.is_some_and(|(leader, _)| leader == process) {
            self.leader = None;
        }
        self.revision += 1;
    }

    fn elect(&mut self, process: usize) {
        self.elected += 1;
        self.revision += 1;
        self.leader = Some((process, Epoch(self.elected)));
    }

    /// A process joins, and takes over what an earlier one of its name has left.
    fn start(&mut self, name: usize) {
        let index = self.processes.len();
        let valid_until = self.now.after(Millis(TERM.0 - MARGIN.0));
        let mut process = Process::new(name, Generation(index as u64 + 1), valid_until);
        self.leases.insert(name, Lease { process: index, renewed: self.now });
        self.revision += 1;
        if self.store.owner == Some(name) {
            let wish = Place { agent: AGENT, from: self.store.epoch, node: node(name) };
            if let Ok(epoch) = wish.judge(self.store.epoch, false) {
                self.store.epoch = epoch;
                process.rights.given(AGENT, epoch);
            }
        }
        self.processes.push(process);
    }

    fn learn(&mut self, process: usize, plant: Option<Plant>) {
        self.processes[process].knows = self.revision;
        if !self.is_member(process) {
            return self.processes[process].end();
        }
        let facts = |lease: &Lease| Facts {
            generation: self.processes[lease.process].generation,
            cpu_milli: 1_000,
            memory_bytes: 1 << 30,
            agents_max: 10,
            labels: BTreeMap::default(),
        };
        let members = self.leases.iter().map(|(name, lease)| (node(*name), facts(lease))).collect();
        let office = match self.leader {
            Some((leader, epoch)) if leader == process => Input::Elected(epoch),
            Some((_, epoch)) => Input::Deposed(epoch),
            None => Input::Deposed(Epoch(u64::MAX)),
        };
        self.lead(process, Input::Members(members), plant);
        self.lead(process, office, plant);
    }

    /// A leader steps; what it reads it is told at once.
    fn lead(&mut self, process: usize, input: Input, plant: Option<Plant>) {
        let mut leader = (*self.processes[process].leader).clone();
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in leader.step(input, self.now, 7) {
                match output {
                    Output::ReadMarks(epoch) => inputs.push_back(Input::Marks(epoch, Some(BTreeMap::new()))),
                    Output::Read { number, which, .. } => {
                        inputs.push_back(Input::Rows(number, self.rows(process, &which, plant)));
                    }
                    Output::Check { node, generation, leader, agents } => {
                        inputs.push_back(self.checked(node, generation, leader, &agents));
                    }
                    Output::StepDown { .. } if self.leader.is_some_and(|(leads, _)| leads == process) => {
                        self.leader = None;
                        self.revision += 1;
                    }
                    Output::Lead(_) | Output::Place { .. } | Output::Tell { .. } => {
                        self.post(process, Body::Wish(output))
                    }
                    Output::PutMark { .. }
                    | Output::Move { .. }
                    | Output::FailedOver { .. }
                    | Output::Kept { .. }
                    | Output::Answer(..)
                    | Output::StepDown { .. } => {}
                }
            }
        }
        self.processes[process].leader = Frozen::new(leader);
    }

    pub(super) fn post(&mut self, of: usize, body: Body) {
        let letter = Letter { of, body: Frozen::new(body), is_late: false };
        let at = self.letters.partition_point(|other| *other < letter);
        self.letters.insert(at, letter);
    }
}

//! Offices of several nodes under everything that can go wrong around them, for many seeds, in virtual time: lists of members
//! that are old, a store that fails, does it later, or does it and says that it has not, messages that get lost, come twice
//! and late, nodes that die, and leaders that do not know that they lead no more.

use std::collections::VecDeque;

use nexa_ports::dice::{Dice, SeededDice};
use nexa_sched::ProviderBudget;
use nexa_sched::lease::{Backlog, Begun, Cost, Ending, Holder, HolderInput, LeaderSettings, Meter, Sizes};

use super::*;

const REQUESTS: u64 = 240;
const AT_ONCE: u64 = 60;
const COST: Cost = Cost { input_tokens: 1, output_tokens: 1 };
/// How long a node that has lost its lease may go on without knowing.
const ZOMBIE_MAX: u64 = 4_000;
const REQUEST_MAX: u64 = 10_000;

fn budget() -> ProviderBudget {
    ProviderBudget {
        requests_per_minute: Some(REQUESTS),
        concurrency: Some(AT_ONCE),
        ..ProviderBudget::unlimited("acme/a%b")
    }
}

fn run(node: usize, generation: u64) -> HolderId {
    HolderId { node: NodeId::new(&format!("n{node}")).unwrap(), generation: Generation(generation) }
}

struct Node {
    holder: Holder,
    office: Office,
    /// Which list of members it has seen last, and whether it is stopped for good.
    seen: usize,
    /// Its lease has ended at this time.
    ended: Option<u64>,
    begun: VecDeque<(u64, Begun)>,
    is_hungry: bool,
}

enum Message {
    ToLeader(HolderId, Report),
    Notice(Notice),
    /// To the office of a run: an answer of the store.
    Answer(HolderId, Input),
    /// Something that the store does at last, and whom it answers, if anybody.
    Do(HolderId, Output, bool),
}

#[derive(Clone)]
struct List {
    runs: BTreeSet<HolderId>,
    leader: Option<(HolderId, Epoch)>,
}

struct World {
    dice: SeededDice,
    now: u64,
    has_faults: bool,
    count: u64,
    net: BTreeMap<(u64, u64), Message>,
    nodes: Vec<Node>,
    lists: Vec<List>,
    generations: u64,
    epochs: u64,
    told: Epoch,
    records: BTreeMap<String, (Version, Vec<u8>)>,
    /// When the provider got its requests of the last minute, and how many run.
    came: VecDeque<u64>,
    all: u64,
    running: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            dice: SeededDice::new(seed),
            now: 0,
            has_faults: true,
            count: 0,
            net: BTreeMap::new(),
            nodes: Vec::new(),
            lists: vec![List { runs: BTreeSet::new(), leader: None }],
            generations: 0,
            epochs: 0,
            told: Epoch(0),
            records: BTreeMap::new(),
            came: VecDeque::new(),
            all: 0,
            running: 0,
        };
        for at in 0..3 {
            let node = world.born(at);
            world.nodes.push(node);
        }
        world.elect();
        world
    }

    fn below(&self, bound: u64) -> u64 {
        self.dice.roll() % bound.max(1)
    }

    fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn born(&mut self, at: usize) -> Node {
        self.generations += 1;
        let me = run(at, self.generations);
        self.changes(|list| {
            list.runs.insert(me.clone());
        });
        // A node here begins up to 40 at once, as its slice allows.
        let settings = LeaderSettings { request_max: Millis(REQUEST_MAX), ..LeaderSettings::default() };
        let office = Office::new(me.clone(), Budgets::new(&[budget()]).unwrap(), settings);
        let (seen, is_hungry) = (0, self.chance(70));
        Node { holder: Holder::new(me), office, seen, ended: None, begun: VecDeque::new(), is_hungry }
    }

    fn changes(&mut self, change: impl FnOnce(&mut List)) {
        let mut list = self.lists.last().unwrap().clone();
        change(&mut list);
        self.lists.push(list);
    }

    fn elect(&mut self) {
        self.epochs += 1;
        let at = self.below(self.nodes.len() as u64) as usize;
        let (leader, epoch) = (self.nodes[at].holder.id().clone(), Epoch(self.epochs));
        self.changes(|list| list.leader = list.runs.contains(&leader).then_some((leader, epoch)));
    }

    fn at(&mut self, at: u64, message: Message) {
        self.count += 1;
        self.net.insert((at, self.count), message);
    }

    /// Over the network.
    fn send(&mut self, make: impl Fn() -> Message) {
        let copies = if self.has_faults { [0, 1, 1, 1, 2][self.below(5) as usize] } else { 1 };
        for _ in 0..copies {
            let delay = 1 + self.below(if self.has_faults { 3_000 } else { 50 });
            self.at(self.now + delay, make());
        }
    }

    fn act(&mut self, from: &HolderId, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Notice(notice) => self.send(|| Message::Notice(notice.clone())),
                Output::Elsewhere(..) => {}
                Output::Open { .. } | Output::Write { .. } => {
                    let fate = if self.has_faults { self.below(10) } else { 9 };
                    let later = self.now + 1 + self.below(if self.has_faults { 2_000 } else { 20 });
                    match fate {
                        // Not done, or done and not said, or done after it was given up.
                        0 => self.fails(from, &output, later),
                        1 => {
                            self.fails(from, &output, later);
                            self.at(later - 1, Message::Do(from.clone(), output, false));
                        }
                        2 => {
                            self.fails(from, &output, later);
                            let much_later = later + self.below(20_000);
                            self.at(much_later, Message::Do(from.clone(), output, false));
                        }
                        _ => self.at(later, Message::Do(from.clone(), output, true)),
                    }
                }
            }
        }
    }

    fn fails(&mut self, from: &HolderId, output: &Output, at: u64) {
        let answer = match output.clone() {
            Output::Open { epoch } => Input::Opened { epoch, records: Err(Trouble::Failed) },
            Output::Write { epoch, file, .. } => Input::Written { epoch, file, result: Err(Trouble::Failed) },
            _ => return,
        };
        self.at(at, Message::Answer(from.clone(), answer));
    }

    /// The store does it.
    fn does(&mut self, output: Output) -> Option<Input> {
        let mut lead = |epoch: Epoch| {
            let is_newest = epoch >= self.told;
            self.told = self.told.max(epoch);
            is_newest
        };
        match output {
            Output::Open { epoch } => {
                let records = if lead(epoch) {
                    let all = self.records.iter();
                    Ok(all.map(|(name, (version, value))| read(name.clone(), *version, value).unwrap()).collect())
                } else {
                    Err(Trouble::Deposed)
                };
                Some(Input::Opened { epoch, records })
            }
            Output::Write { epoch, file, expected, value } => {
                let result = if lead(epoch) {
                    let record = self.records.entry(file.name()).or_default();
                    if record.0 == expected {
                        *record = (expected.next(), value);
                        Ok(record.0)
                    } else {
                        Err(Trouble::Changed(record.0))
                    }
                } else {
                    Err(Trouble::Deposed)
                };
                Some(Input::Written { epoch, file, result })
            }
            _ => None,
        }
    }

    fn tell(&mut self, to: &HolderId, input: Input) {
        let now = Timestamp(self.now);
        if let Some(node) = self.nodes.iter_mut().find(|node| node.holder.id() == to) {
            let out = node.office.step(input, now);
            self.act(to, out);
        }
    }

    fn deliver(&mut self, message: Message) {
        let now = Timestamp(self.now);
        match message {
            Message::ToLeader(from, report) => {
                // To whomever the sender took for the leader; here it is whoever believes to lead.
                let offices: Vec<HolderId> = self
                    .nodes
                    .iter()
                    .filter(|node| node.office.is_open())
                    .map(|node| node.holder.id().clone())
                    .collect();
                for to in offices {
                    self.tell(&to, Input::Heard { from: from.clone(), report: report.clone(), tenants: Vec::new() });
                }
            }
            Message::Notice(notice) => {
                let node = self.nodes.iter_mut().find(|node| node.holder.id().node == notice.holder.node);
                node.into_iter().for_each(|node| node.holder.step(HolderInput::Notice(notice.clone()), now));
            }
            Message::Answer(to, answer) => self.tell(&to, answer),
            Message::Do(from, output, says) => {
                if let Some(answer) = self.does(output).filter(|_| says) {
                    self.at(self.now + 1, Message::Answer(from, answer));
                }
            }
        }
    }

    fn pass(&mut self, span: u64) {
        let until = self.now + span;
        while let Some(entry) = self.net.first_entry().filter(|entry| entry.key().0 <= until) {
            self.now = self.now.max(entry.key().0);
            let message = entry.remove();
            self.deliver(message);
        }
        self.now = until;
        for at in 0..self.nodes.len() {
            self.live(at);
        }
    }

    fn live(&mut self, at: usize) {
        let now = Timestamp(self.now);
        let me = self.nodes[at].holder.id().clone();
        if self.nodes[at].ended.is_some_and(|ended| self.now >= ended + ZOMBIE_MAX || self.chance(20)) {
            // Its process is gone, and another one comes. What it has begun goes on at the provider.
            let left = self.nodes[at].begun.len() as u64;
            self.running -= left;
            let node = self.born(at);
            self.nodes[at] = node;
            return;
        }
        let newest = self.lists.len() - 1;
        let node = &mut self.nodes[at];
        if !self.has_faults || self.dice.roll().is_multiple_of(3) {
            // It may miss lists, and never goes back.
            node.seen = newest.min(node.seen + 1 + (self.dice.roll() % 9) as usize);
        }
        if !self.has_faults {
            node.seen = newest;
        }
        let List { runs, leader } = self.lists[node.seen].clone();
        self.tell(&me, Input::Members { runs, leader });
        self.begin_some(at);
        if let Some(report) = self.nodes[at].holder.report(now) {
            self.send(|| Message::ToLeader(me.clone(), report.clone()));
        }
        self.tell(&me, Input::Tick);
    }

    fn begin_some(&mut self, at: usize) {
        let (provider, now) = (budget().provider, Timestamp(self.now));
        let node = &mut self.nodes[at];
        while node.begun.front().is_some_and(|(ends, _)| *ends <= self.now) {
            let (_, begun) = node.begun.pop_front().unwrap();
            node.holder.end(&provider, begun, Ending::Sent(COST), now);
            self.running -= 1;
        }
        let waiting = if node.is_hungry { 400 } else { 0 };
        for _ in 0..waiting.min(40) {
            let Ok(begun) = node.holder.begin(&provider, COST, now) else { break };
            node.begun.push_back((self.now + 1_500, begun));
            self.came.push_back(self.now);
            (self.all, self.running) = (self.all + 1, self.running + 1);
        }
        let backlog = Backlog { requests: waiting, cost: COST, largest: COST, weight: 1 };
        node.holder.step(HolderInput::Waiting { provider, backlog }, now);
        while self.came.front().is_some_and(|then| then + 60_000 <= self.now) {
            self.came.pop_front();
        }
        assert!(self.came.len() as u64 <= REQUESTS, "{} requests within a minute", self.came.len());
        assert!(self.running <= AT_ONCE, "{} requests at once", self.running);
    }

    /// LS-1 and LS-2, against what the store has.
    fn check(&mut self) {
        let records: Vec<SliceRecord> = self
            .records
            .iter()
            .flat_map(|(name, (version, value))| read(name.clone(), *version, value).unwrap().slices)
            .collect();
        let sum = records.iter().fold(Sizes::NONE, |sum, record| sum.plus(&record.size()));
        let most = Sizes::from(&budget());
        assert!(sum.fits(&most), "{sum:?} are recorded of {most:?}");
        for node in self.nodes.iter_mut().filter(|node| node.ended.is_none()) {
            for of in node.holder.report(Timestamp(self.now)).unwrap().of {
                let record = records.iter().find(|record| record.holder() == *node.holder.id());
                let size = record.map_or(Sizes::NONE, SliceRecord::size);
                assert!(of.kept.fits(&size), "{:?} kept of {size:?} recorded", of.kept);
            }
        }
    }

    fn trouble(&mut self) {
        match self.below(8) {
            0 | 1 => self.elect(),
            2 => self.changes(|list| list.leader = None),
            3 | 4 => {
                let at = self.below(3) as usize;
                self.ends(at);
            }
            _ => {
                let at = self.below(3) as usize;
                self.nodes[at].is_hungry = !self.nodes[at].is_hungry;
            }
        }
    }

    /// The lease of a run ends.
    fn ends(&mut self, at: usize) {
        if self.nodes[at].ended.is_none() {
            self.nodes[at].ended = Some(self.now);
            let me = self.nodes[at].holder.id().clone();
            self.changes(|list| {
                list.runs.remove(&me);
                list.leader = list.leader.take().filter(|(leader, _)| *leader != me);
            });
        }
    }
}

#[test]
fn budgets_hold_whatever_happens_and_are_shared_again_when_it_is_over() {
    let (mut all, mut opened) = (0, 0);
    for seed in 0..300 {
        let played = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..200 {
                let span = 100 + world.below(1_000);
                world.pass(span);
                world.check();
                if world.chance(10) {
                    world.trouble();
                }
            }
            let told = world.told.0;
            world.has_faults = false;
            if world.lists.last().unwrap().leader.is_none() {
                // Those whose lease has ended come back first.
                world.pass(ZOMBIE_MAX);
                world.pass(1_000);
                world.elect();
            }
            for _ in 0..200 {
                // Also those that have only come now.
                world.nodes.iter_mut().for_each(|node| node.is_hungry = true);
                world.pass(1_000);
                world.check();
            }
            let slices = world.nodes.iter().map(|node| node.holder.slice(&budget().provider).of(Meter::Requests));
            let slices: Vec<u64> = slices.collect();
            assert!(slices.iter().sum::<u64>() >= REQUESTS * 95 / 100, "{slices:?} of {REQUESTS}");
            assert!(slices.iter().max().unwrap() - slices.iter().min().unwrap() <= REQUESTS / 20, "{slices:?}");
            (world.all, told)
        });
        match played {
            Ok((seen, told)) => (all, opened) = (all + seen, opened + told),
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // There was something to go wrong.
    assert!(all / 300 > 500 && opened / 300 > 3, "{all} requests, {opened} offices");
}

#[test]
fn a_node_that_was_seen_to_go_before_the_election_is_gone_since_then() {
    let (me, other) = (run(1, 2), run(2, 3));
    let settings = LeaderSettings { ahead: Some(Millis(5_000)), ..LeaderSettings::default() };
    let mut office = Office::new(me.clone(), Budgets::new(&[budget()]).unwrap(), settings);
    let size = Sizes::new(REQUESTS / 2, 0, 0, AT_ONCE / 2);
    let record =
        |holder: &HolderId| SliceRecord::new(&budget().provider, holder, LeaderEpoch(1), 1, (&size, REQUESTS / 2));
    let file = |holder: &HolderId| FileId { provider: budget().provider, node: holder.node.clone() };
    let read =
        |holder: &HolderId| Read { name: file(holder).name(), version: Version(1), slices: vec![record(holder)] };
    let led = Some((other.clone(), Epoch(1)));
    office.step(Input::Members { runs: BTreeSet::from([me.clone(), other.clone()]), leader: led }, Timestamp(0));
    // The leading node goes, and nobody leads for two seconds.
    office.step(Input::Members { runs: BTreeSet::from([me.clone()]), leader: None }, Timestamp(60_000));
    let elected = Some((me.clone(), Epoch(2)));
    office.step(Input::Members { runs: BTreeSet::from([me.clone()]), leader: elected }, Timestamp(62_000));
    let mut out =
        office.step(Input::Opened { epoch: Epoch(2), records: Ok(vec![read(&me), read(&other)]) }, Timestamp(62_500));
    let mut first = None;
    for second in 63..120 {
        let theirs = out.iter().find_map(|output| match output {
            Output::Write { file, .. } if file.node == other.node => Some(second - 1),
            _ => None,
        });
        first = first.or(theirs);
        out = office.step(Input::Tick, Timestamp(second * 1_000));
    }
    assert_eq!(first, Some(71), "ten seconds after it was seen to be gone, and what one request takes to get old");
}

#[test]
fn names_of_records_tell_providers_and_nodes_apart() {
    let name =
        |provider: &str, node: &str| FileId { provider: provider.to_owned(), node: NodeId::new(node).unwrap() }.name();
    assert_eq!(name("acme", "n1"), "slice/acme/n1");
    assert_eq!(name("a/b%", "c"), "slice/a%2Fb%25/c");
    assert_ne!(name("a/b", "c"), name("a", "b/c"));
}

//! One leadership, from the election to its end.

mod marks;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use nexa_event::asks::Asks;
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, Epoch, Generation, Millis, NodeId, Timestamp};

use super::absent::Absent;
use super::balance::Balance;
use super::board::Board;
use super::hold::Hold;
use super::moves::Moves;
use super::nodes::{Mark, Nodes, Seat};
use super::queue::{Queue, Wish};
use super::reads::{Aim, Reads};
use super::told::Told;
use super::{Facts, Input, Limits, Output, PAGE, Refused, Row, Seen};
use crate::detector::REST;
use crate::say::{Adopted, Command, Held, Load};

/// Marks that wait to be written; a further one is refused.
const MARKS_MAX: usize = 256;
/// Agents of which it is remembered where they may have been placed; of a further one the patrol finds it.
const DOUBTED_MAX: usize = 65_536;
/// After something that did not work.
const RETRY_PAUSE: Millis = Millis(500);
/// A new leader places nothing for so long unless all that are not silent were heard: else the first would get everything.
const HEAR_WITHIN: Millis = Millis(500);

/// How far a leader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The store is told of the election.
    Telling,
    /// The marks are read.
    Reading,
    /// It decides.
    Working,
}

#[derive(Debug, Clone)]
struct Batch {
    number: u64,
    agents: BTreeSet<AgentId>,
    wishes: Vec<(Wish, NodeId, Generation)>,
}

/// Who is to leave its node, for which; the leader chooses if none is named.
struct Order<'a> {
    agent: AgentId,
    from: NodeId,
    to: Option<NodeId>,
    asks: Option<&'a Asks>,
    command: Option<u64>,
}

/// A mark on its way to the store.
#[derive(Debug, Clone)]
struct Marking {
    node: NodeId,
    mark: Mark,
    command: Option<u64>,
    /// Whether the store was asked.
    is_sent: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Term {
    pub(super) epoch: Epoch,
    phase: Phase,
    /// When the store is asked (again) in the first two phases; none while it is.
    ask_at: Option<Timestamp>,
    nodes: Nodes,
    queue: Queue,
    hold: Hold,
    reads: Reads,
    batch: Option<Batch>,
    /// Where agents were placed of which nobody knows whether the store has taken that in, until it answers a later try.
    doubted: BTreeMap<AgentId, BTreeSet<NodeId>>,
    /// Of each node that is asked what it lacks, the page it is asked about.
    checking: BTreeMap<NodeId, Vec<Row>>,
    absent: Absent,
    told: Told,
    /// Nodes that are gone, since when, and whether agents were found that were theirs.
    lost: BTreeMap<NodeId, (Timestamp, bool)>,
    moves: Moves,
    balance: Option<Balance>,
    balance_at: Timestamp,
    patrol_at: Timestamp,
    markings: Vec<Marking>,
    /// Answers to commands that came out of what happened meanwhile.
    answers: Vec<(u64, Result<(), Refused>)>,
    place_at: Timestamp,
    works_since: Timestamp,
    /// Since when there is work, and room, and nothing is done.
    stuck_since: Option<Timestamp>,
    numbers: u64,
}

impl Term {
    pub(super) fn new(epoch: Epoch, now: Timestamp) -> Self {
        Self {
            epoch,
            phase: if planted(Bug::PlacedBeforeTold) { Phase::Working } else { Phase::Telling },
            ask_at: Some(now),
            nodes: Nodes::default(),
            queue: Queue::default(),
            hold: Hold::new(now),
            reads: Reads::new(now),
            batch: None,
            doubted: BTreeMap::new(),
            checking: BTreeMap::new(),
            absent: Absent::default(),
            told: Told::default(),
            lost: BTreeMap::new(),
            moves: Moves::default(),
            balance: None,
            balance_at: now,
            patrol_at: now,
            markings: Vec::new(),
            answers: Vec::new(),
            place_at: now,
            works_since: now,
            stuck_since: Some(now),
            // Each leadership has numbers of its own: an answer to a question of an earlier one is to none of these.
            numbers: epoch.0 << 32,
        }
    }

    pub(super) fn is_working(&self) -> bool {
        self.phase == Phase::Working
    }

    pub(super) fn levels(&self, limits: &Limits) -> BTreeMap<NodeId, u64> {
        if !self.is_working() {
            return BTreeMap::new();
        }
        let under_way = self.batch.as_ref().map_or(0, |batch| batch.wishes.len());
        let waiting = self.queue.placeable(|asks| self.nodes.has(asks)) + under_way;
        let none = BTreeSet::new();
        self.nodes.levels(limits, waiting as u64, self.hold.nodes().unwrap_or(&none))
    }

    pub(super) fn seen(&self) -> BTreeMap<NodeId, Seen> {
        self.nodes.seen()
    }

    pub(super) fn members(&mut self, members: &BTreeMap<NodeId, Facts>, suspects: &BTreeSet<NodeId>, now: Timestamp) {
        let (gone, new) = self.nodes.members(members, suspects);
        for node in gone {
            self.forget(&node, None);
            self.lose(node, now);
        }
        for (node, generation) in new {
            // What its earlier run owned, this one takes over by itself.
            self.forget(&node, Some(generation));
            self.lost.remove(&node);
            // But for what an earlier leader placed on that run and the store took in after this one had looked.
            self.reads.begin(Aim::Check(node.clone()), now);
            self.reads.end(&Aim::Gone(node));
        }
    }

    /// A node is gone: what it has is looked for.
    fn lose(&mut self, node: NodeId, now: Timestamp) {
        self.lost.entry(node.clone()).or_insert((now, false));
        if !planted(Bug::GoneForgotten) {
            self.reads.begin(Aim::Gone(node), now);
        }
    }

    /// A run of a node is over: nobody has what it was told, and nothing of it is looked at any more.
    fn forget(&mut self, node: &NodeId, run: Option<Generation>) {
        for wish in self.told.lost(node, run) {
            self.queue.add(wish);
        }
        self.checking.remove(node);
        self.absent.forget(node);
        for aim in [Aim::Check(node.clone()), Aim::Drain(node.clone()), Aim::Balance(node.clone())] {
            self.reads.end(&aim);
        }
        if let Some(balance) = &mut self.balance {
            balance.without(node);
        }
    }

    pub(super) fn suspects(&mut self, suspects: &BTreeSet<NodeId>) {
        self.nodes.suspects(suspects);
    }

    pub(super) fn heard(&mut self, node: &NodeId, generation: Generation, load: Load, adopted: Adopted) {
        self.nodes.heard(node, generation, load, adopted, self.epoch);
    }

    /// Nodes crashed once too often.
    pub(super) fn rest(&mut self, nodes: Vec<NodeId>, now: Timestamp) {
        let mark = Mark::Resting(now.after(REST));
        for node in nodes {
            if matches!(self.nodes.mark(&node).1, Mark::Open | Mark::Resting(_)) && self.markings.len() < MARKS_MAX {
                self.markings.push(Marking { node, mark, command: None, is_sent: false });
            }
        }
    }

    pub(super) fn command(
        &mut self,
        limits: &Limits,
        number: u64,
        command: Command,
        now: Timestamp,
        dice: u64,
        out: &mut Vec<Output>,
    ) {
        let refused = match command {
            _ if !self.is_working() => Some(Refused::NotLeading),
            Command::Cordon { node, on } => self.mark(number, node, if on { Mark::Cordoned } else { Mark::Open }),
            Command::Drain { node } => self.mark(number, node, Mark::Draining),
            Command::Migrate { agent, from, to, asks } => {
                let order = Order { agent, from, to, asks: asks.as_ref(), command: Some(number) };
                self.migrate(limits, order, now, dice, out).err()
            }
            Command::Rebalance => {
                if self.balance.is_none() {
                    self.look_for_balance(limits, true, now);
                }
                self.answers.push((number, Ok(())));
                None
            }
            // It is about no agent, and does not come here: see `crate::floor`.
            Command::RaiseFormat { .. } => Some(Refused::Failed),
        };
        if let Some(why) = refused {
            out.push(Output::Answer(number, Err(why)));
        }
    }

    /// Orders an agent to leave its node.
    fn migrate(
        &mut self,
        limits: &Limits,
        order: Order<'_>,
        now: Timestamp,
        dice: u64,
        out: &mut Vec<Output>,
    ) -> Result<(), Refused> {
        let Order { agent, from, to, asks, command } = order;
        let generation = self.nodes.seats.get(&from).map(|seat| seat.facts.generation).ok_or(Refused::NoSuchNode)?;
        if self.moves.is_moving(agent) || self.moves.may_leave(limits, &from) == 0 {
            return Err(Refused::Busy);
        }
        let to = match to {
            Some(to) if !self.nodes.seats.contains_key(&to) => return Err(Refused::NoSuchNode),
            Some(to) if to == from => to,
            Some(to) if !self.nodes.seats[&to].facts.has(asks) => return Err(Refused::Lacks),
            Some(to) if self.nodes.room(limits, &to) > 0 => to,
            Some(_) => return Err(Refused::NotOpen),
            None if !self.nodes.has_other(&from, asks) => return Err(Refused::Lacks),
            None => {
                Board::new(&self.nodes, limits, Some(&from)).take(limits, asks, true, dice).ok_or(Refused::NoRoom)?.0
            }
        };
        if to == from {
            self.answers.extend(command.map(|number| (number, Ok(()))));
            return Ok(());
        }
        self.moves.begin(agent, from.clone(), command, now);
        out.push(Output::Move { leader: self.epoch, agent, from, generation, to });
        Ok(())
    }

    /// Takes in what was asked for.
    pub(super) fn answer(&mut self, limits: &Limits, input: Input, now: Timestamp, dice: u64, out: &mut Vec<Output>) {
        match input {
            // An answer to an earlier leadership of this node says nothing of this one.
            Input::Leading(epoch, _) | Input::Marks(epoch, _) if epoch != self.epoch => {}
            Input::Leading(_, true) if self.phase == Phase::Telling => {
                (self.phase, self.ask_at) = (Phase::Reading, Some(now));
            }
            Input::Leading(_, false) if self.phase == Phase::Telling => self.ask_at = Some(now.after(RETRY_PAUSE)),
            Input::Marks(_, Some(marks)) if self.phase != Phase::Telling => {
                self.nodes.set_marks(marks);
                if self.phase == Phase::Reading {
                    (self.phase, self.stuck_since) = (Phase::Working, None);
                    // What was read before, an earlier leader could still change.
                    (self.reads, self.patrol_at, self.works_since) = (Reads::new(now), now, now);
                }
            }
            Input::Marks(_, None) => self.ask_at = Some(now.after(RETRY_PAUSE)),
            Input::Rows(number, rows) => {
                if let Some((aim, rows)) = self.reads.came(number, rows, now) {
                    self.rows(limits, &aim, rows, now, dice, out);
                }
            }
            Input::Placed(number, answers) => self.placed(number, answers, now),
            Input::Told { number, done } => self.told.answered(limits, number, done, now),
            Input::Checked { node, missing } => self.checked(limits, &node, missing, now),
            Input::Marked { node, version } => self.marked(&node, version, now),
            Input::Moved { agent, done } => {
                let command = self.moves.ended(agent, done, now);
                let answer = if done { Ok(()) } else { Err(Refused::Failed) };
                self.answers.extend(command.map(|number| (number, answer)));
            }
            Input::Unplaced => self.reads.hint(now),
            _ => {}
        }
    }

    /// The store has answered a batch, or nobody knows whether it did anything.
    fn placed(&mut self, number: u64, answers: Option<Vec<Result<Epoch, Epoch>>>, now: Timestamp) {
        let Some(batch) = self.batch.take_if(|batch| batch.number == number) else { return };
        let Some(answers) = answers.filter(|answers| answers.len() == batch.wishes.len()) else {
            self.place_at = now.after(RETRY_PAUSE);
            for (wish, node, generation) in batch.wishes {
                self.nodes.not_given(&node, generation);
                // If it was placed after all, its node does not know. It may also be placed after that was looked at.
                if self.doubted.len() < DOUBTED_MAX {
                    self.doubted.entry(wish.agent).or_default().insert(node.clone());
                }
                self.queue.add(wish);
                self.reads.begin(Aim::Check(node), now);
            }
            return;
        };
        self.stuck_since = None;
        let mut by_node: BTreeMap<NodeId, (Generation, Vec<Wish>)> = BTreeMap::new();
        for ((wish, node, generation), answer) in batch.wishes.into_iter().zip(answers) {
            let is_there = self.nodes.seats.get(&node).is_some_and(|seat| seat.facts.generation == generation)
                || planted(Bug::RunForgotten);
            let doubted = self.doubted.remove(&wish.agent).unwrap_or_default();
            match answer {
                Ok(from) if is_there => {
                    by_node.entry(node).or_insert((generation, Vec::new())).1.push(Wish { from, ..wish });
                }
                // That run of the node is over, and was never told.
                Ok(from) => self.queue.add(Wish { from, ..wish }),
                Err(_) => {
                    self.nodes.not_given(&node, generation);
                    // Who it belongs to now, if to anybody, the next look tells; or an earlier try of this leader was late.
                    self.reads.hint(now);
                    for node in doubted {
                        if !self.reads.begin(Aim::Check(node.clone()), now) {
                            self.absent.put_off(&node, now);
                        }
                    }
                }
            }
        }
        for (node, (generation, agents)) in by_node {
            self.numbers += 1;
            self.told.add(self.numbers, node, generation, agents, now);
        }
    }

    fn look_for_balance(&mut self, limits: &Limits, spreads: bool, now: Timestamp) {
        self.balance = Balance::begin(&self.nodes, limits, spreads);
        for node in self.balance.iter().flat_map(Balance::wants) {
            self.reads.begin(Aim::Balance(node.clone()), now);
        }
    }

    /// Says what is to be done by now.
    pub(super) fn drive(&mut self, limits: &Limits, now: Timestamp, dice: u64, out: &mut Vec<Output>) {
        self.nodes.rested(now);
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = None;
            out.push(if self.phase == Phase::Telling {
                Output::Lead(self.epoch)
            } else {
                Output::ReadMarks(self.epoch)
            });
        }
        if self.is_working() {
            self.look_around(limits, now, dice, out);
            self.place(limits, now, dice, out);
            self.told.tell(self.epoch, now, out);
            self.read(limits, now, out);
        }
        out.extend(self.answers.drain(..).map(|(number, answer)| Output::Answer(number, answer)));
        let takes = |asks: Option<&Asks>| self.nodes.seats.keys().any(|node| self.nodes.takes(limits, node, asks));
        let is_idle = self.hold.nodes().is_none() && self.queue.asked().any(takes);
        let is_waited_for = !self.is_working() || self.batch.is_some() || is_idle;
        self.stuck_since = if is_waited_for { self.stuck_since.or(Some(now)) } else { None };
        if self.stuck_since.is_some_and(|since| now.since(since) >= limits.stuck_after) {
            out.push(Output::StepDown { why: "agents wait, there is room, and nothing was placed for too long" });
        }
    }

    /// What is due by the time: patrols, draining, balance, moves that take too long, marks.
    fn look_around(&mut self, limits: &Limits, now: Timestamp, dice: u64, out: &mut Vec<Output>) {
        if now >= self.patrol_at {
            self.patrol_at = now.after(limits.patrol_every);
            for node in self.nodes.seats.keys() {
                self.reads.begin(Aim::Check(node.clone()), now);
            }
        }
        self.absent.ask_again(now, |node| self.reads.begin(Aim::Check(node.clone()), now));
        for node in self.nodes.seats.keys() {
            let aim = Aim::Drain(node.clone());
            if self.nodes.is_left(node) {
                self.reads.begin(aim, now);
            } else {
                self.reads.end(&aim);
            }
        }
        if now >= self.balance_at {
            self.balance_at = now.after(limits.balance_every);
            if self.balance.is_none() {
                self.look_for_balance(limits, false, now);
            }
        }
        if let Some(balance) = self.balance.take_if(|balance| balance.wants().is_empty()) {
            let found = balance.decide(&self.nodes, &self.moves, limits, now);
            for (turn, (agent, from, to)) in (0u64..).zip(found) {
                // What may not leave now is found again by the next look.
                let order = Order { agent, from, to: Some(to), asks: balance.asks(agent), command: None };
                let _ = self.migrate(limits, order, now, dice.wrapping_add(turn), out);
            }
        }
        let late = self.moves.expire(limits, now);
        self.answers.extend(late.into_iter().map(|number| (number, Err(Refused::Failed))));
        let mut busy: BTreeSet<NodeId> =
            self.markings.iter().filter(|it| it.is_sent).map(|it| it.node.clone()).collect();
        for marking in self.markings.iter_mut().filter(|it| !it.is_sent) {
            if busy.insert(marking.node.clone()) {
                marking.is_sent = true;
                let (node, expected) = (marking.node.clone(), self.nodes.mark(&marking.node).0);
                out.push(Output::PutMark { leader: self.epoch, node, expected, mark: marking.mark });
            }
        }
    }

    /// The next batch, if none is under way.
    fn place(&mut self, limits: &Limits, now: Timestamp, dice: u64, out: &mut Vec<Output>) {
        self.hold.review(&mut self.queue, &self.nodes, limits, !self.lost.is_empty(), now);
        let is_awaited = |seat: &Seat| seat.load.is_none() && !seat.is_suspected;
        let waits = now.since(self.works_since) < HEAR_WITHIN && self.nodes.seats.values().any(is_awaited);
        if waits || self.batch.is_some() || now < self.place_at || self.queue.is_empty() {
            return;
        }
        let hold = &self.hold;
        let mut board = Board::new(&self.nodes, limits, None);
        hold.nodes().into_iter().for_each(|nodes| board.keep(nodes));
        // Gangs first: they need room for all of theirs at once, which those who need one place each rarely leave.
        let take_all = |turn, asks: &[Option<&Asks>]| board.take_all(asks, hold.is_for(turn));
        let mut wishes = self.queue.next_gangs(PAGE, now, take_all);
        let mut dice = dice;
        wishes.extend(self.queue.next(PAGE - wishes.len(), |turn, asks| {
            dice = dice.wrapping_add(1);
            board.take(limits, asks, hold.is_for(turn), dice)
        }));
        let wishes: Vec<_> = wishes.into_iter().map(|(wish, (node, generation))| (wish, node, generation)).collect();
        if wishes.is_empty() {
            return;
        }
        for (_, node, _) in &wishes {
            self.nodes.given(node, 1);
        }
        self.numbers += 1;
        out.push(Output::Place {
            number: self.numbers,
            leader: self.epoch,
            wishes: wishes.iter().map(|(wish, node, _)| (wish.agent, wish.from, node.clone())).collect(),
        });
        let agents = wishes.iter().map(|(wish, ..)| wish.agent).collect();
        self.batch = Some(Batch { number: self.numbers, agents, wishes });
    }

    /// The next page.
    fn read(&mut self, limits: &Limits, now: Timestamp, out: &mut Vec<Output>) {
        let has_queue_room = self.queue.len() + PAGE <= limits.queue_max;
        let hears =
            |node: &NodeId| self.nodes.seats.get(node).is_some_and(|seat| seat.load.is_some() && !seat.is_suspected);
        let (moves, checking) = (&self.moves, &self.checking);
        let is_wanted = |aim: &Aim| match aim {
            Aim::Gone(_) | Aim::Unplaced | Aim::Orphans => has_queue_room,
            Aim::Check(node) => has_queue_room && hears(node) && !checking.contains_key(node),
            Aim::Drain(node) => hears(node) && moves.may_leave(limits, node) > 0,
            Aim::Balance(_) => true,
        };
        self.reads.drive(is_wanted, &mut self.numbers, now, out);
    }
}

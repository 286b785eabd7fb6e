//! What a leader decides: who owns which agent, how many may be born where, what moves.
//!
//! In:  [`Input`]s: an election, members, heartbeats, pages of rows, answers of the store and of nodes, commands, time.
//! Out: [`Output`]s: wishes to place, orders to nodes, pages to read, records to write.
//!
//! All of it is soft: a new leader reads what is there and goes on from that. No plan is kept, none is repeated; every
//! round looks at what is, so what was lost on the way is found again by the next look.
//!
//! ```text
//! rows without owner ──────────┐
//! rows of nodes that are gone ─┼─► queue (priority, then age) ─► batch ─► store ─► told, until the node has it
//! rows that their node lacks ──┘      two choices among open nodes with room
//! ```
//!
//! Holds, here and after every step of the simulation:
//!   LE-1  nothing is placed before the store knows this leader's epoch and the records were read
//!   LE-2  nothing is placed on a node that is cordoned, draining, suspected, full, rests while another is open, has not been
//!         heard in this run, or lacks what the agent asks for; and nothing moves to one that does
//!   LE-3  an agent of a gone node is placed elsewhere only after the node is gone from the members, and only if no later run of it
//!         can have taken it over by then
//!   LE-4  a node is told only of agents that the store gave to that very run of it
//!   LE-5  by what a node said last, its agents, those on their way and those that may be born there are together never
//!         more than it takes; what happens between two heartbeats, and what an earlier leader sent, comes on top
//!   LE-6  once faults stop, every live agent that is not quarantined is owned by a node that is there and knows it,
//!         but for those that ask for what no node with room has: they wait
//!   LE-7  members of a gang that were not placed yet are placed with one batch, all that there are of it
//!
//! Not here: making any of it safe. Two leaders may decide at once; the store refuses the older (nexa-ports::leadership),
//! and an agent has one owner by its row's epoch. An agent whose node died twice under it is the runtime's to quarantine.

mod absent;
mod balance;
mod board;
mod hold;
mod moves;
mod nodes;
mod queue;
mod reads;
mod term;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use nexa_event::asks::Asks;
use nexa_sched::{Labels, LoadBalanceStrategy, RebalanceLimits};
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, Epoch, Generation, Millis, NodeId, Timestamp, Version, WorkloadId};

pub use self::nodes::Mark;
use self::term::Term;
use crate::detector::Crashes;
pub use crate::say::Refused;
use crate::say::{Adopted, Command, Held, Load};

/// Rows read, wishes placed and agents told at once.
pub const PAGE: usize = crate::say::AGENTS_MAX;

/// What a leader keeps to. What happens at each limit stands beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Which of two nodes.
    pub strategy: LoadBalanceStrategy,
    /// Agents that wait to be placed. Above it no further rows are read until some are placed.
    pub queue_max: usize,
    /// The ramp: agents that a node was given and has not taken up yet. Above it the node gets no more, so that after a
    /// failover no node wakes everybody at once.
    pub adopting_max: u64,
    /// The part of a node's memory in use, in millionths, above which it gets no more.
    pub memory_full: u64,
    /// Between two looks for agents without owner, if nobody hints at any.
    pub look_every: Millis,
    /// Between two rounds through all agents and all nodes, for whatever got lost.
    pub patrol_every: Millis,
    /// When a node that does not answer is told again.
    pub retell_after: Millis,
    /// Agents that leave one node at the same time.
    pub leaving_max: usize,
    /// After so long a move counts as failed; the next look decides anew.
    pub move_within: Millis,
    /// Between two looks whether a node must be relieved.
    pub balance_every: Millis,
    /// The part of all agents that may move for balance within a minute, in percent.
    pub moves_percent: u64,
    /// What balancing keeps to.
    pub balance: RebalanceLimits,
    /// Agents that may be born on a node beyond its even share.
    pub births_beyond: u64,
    /// A leader with work and room that gets nothing done for so long steps down.
    pub stuck_after: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            strategy: LoadBalanceStrategy::Adaptive,
            queue_max: 65_536,
            adopting_max: 2_048,
            memory_full: 900_000,
            look_every: Millis(1_000),
            patrol_every: Millis(60_000),
            retell_after: Millis(500),
            leaving_max: 32,
            move_within: Millis(10_000),
            balance_every: Millis(5_000),
            moves_percent: 5,
            balance: RebalanceLimits::default(),
            births_beyond: 64,
            stuck_after: Millis(5_000),
        }
    }
}

/// A member, as far as a leader looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Which run.
    pub generation: Generation,
    /// Processor time, in thousandths of a processor.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Agents that it takes.
    pub agents_max: u64,
    /// What may be asked of it.
    pub labels: Labels,
}

impl Facts {
    /// Whether it has what an agent asks for.
    fn has(&self, asks: Option<&Asks>) -> bool {
        asks.is_none_or(|asks| asks.is_met_by(&self.labels, self.cpu_milli, self.memory_bytes))
            || planted(Bug::AsksIgnored)
    }
}

/// A row, as far as a leader looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The agent.
    pub agent: AgentId,
    /// Its owner.
    pub node: Option<NodeId>,
    /// Its epoch.
    pub epoch: Epoch,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Whether nobody may run it. Placing would let it run, so it stays where it is until it is cancelled.
    pub is_quarantined: bool,
    /// Whether its workload was cancelled.
    pub is_cancelled: bool,
    /// Whether its workload has ended, or its own time is over, so that it is about to end.
    pub is_over: bool,
    /// Its workload.
    pub workload: WorkloadId,
    /// What it asks of its node, if anything.
    pub asks: Option<Asks>,
}

impl Row {
    /// Whether a new owner would do anything with it: run it, or carry out its cancel.
    fn may_run(&self) -> bool {
        !self.is_quarantined || self.is_cancelled
    }

    /// What counts of that: who only has to end can do so anywhere.
    fn asks(&self) -> Option<&Asks> {
        self.asks.as_ref().filter(|_| !self.is_cancelled && !self.is_over)
    }
}

/// Which rows to read; none of them has ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// Without owner.
    Unplaced,
    /// All.
    Live,
    /// Of this node.
    Of(NodeId),
    /// Of this node, of which no run is there: asked of the membership service after they were read. Else they count for not read,
    /// since they may be those of a run that this leader has not heard of.
    Left(NodeId),
}

/// What a leader is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// This node is elected.
    Elected(Epoch),
    /// Its leadership under this epoch is over, and so is every earlier one.
    Deposed(Epoch),
    /// Whether the store knows of the election under this epoch by now.
    Leading(Epoch, bool),
    /// Who is there.
    Members(BTreeMap<NodeId, Facts>),
    /// A heartbeat.
    Heard {
        /// Whose.
        node: NodeId,
        /// Of which run.
        generation: Generation,
        /// What it does.
        load: Load,
        /// What it has taken up.
        adopted: Adopted,
    },
    /// Whom this node has not heard for too long.
    Suspects(BTreeSet<NodeId>),
    /// All marks that the store has, or that they could not be read; for the leadership under this epoch.
    Marks(Epoch, Option<BTreeMap<NodeId, (Version, Mark)>>),
    /// The page that was asked for, by its number, or that it could not be read. Fewer than [`PAGE`] rows are the last.
    Rows(u64, Option<Vec<Row>>),
    /// The answers to a batch, by its number: the new epoch, or the one that the row has; or that nothing is known.
    Placed(u64, Option<Vec<Result<Epoch, Epoch>>>),
    /// A node's answer to what it was told, by the number.
    Told {
        /// Which.
        number: u64,
        /// Whether it has it.
        done: bool,
    },
    /// A node's answer to a check: what it lacks; none if it did not answer.
    Checked {
        /// Which.
        node: NodeId,
        /// What it lacks.
        missing: Option<Vec<AgentId>>,
    },
    /// What became of a mark: its version now, or none if it was not written.
    Marked {
        /// Of which node.
        node: NodeId,
        /// Its version.
        version: Option<Version>,
    },
    /// What became of a move.
    Moved {
        /// Of which agent.
        agent: AgentId,
        /// Whether it is the other node's now.
        done: bool,
    },
    /// Somebody was born without an owner.
    Unplaced,
    /// A person's wish, with a number to answer to.
    Command(u64, Command),
    /// Time has passed.
    Tick,
}

/// What a leader wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell the store of the election: [`Input::Leading`].
    Lead(Epoch),
    /// Read all marks: [`Input::Marks`].
    ReadMarks(Epoch),
    /// Read a page: [`Input::Rows`].
    Read {
        /// Its number.
        number: u64,
        /// Of which rows.
        which: Which,
        /// After this agent.
        after: Option<AgentId>,
    },
    /// Change owners: [`Input::Placed`].
    Place {
        /// The batch's number.
        number: u64,
        /// The leader's epoch.
        leader: Epoch,
        /// Agent, the epoch that its row has, and its new owner.
        wishes: Vec<(AgentId, Epoch, NodeId)>,
    },
    /// Tell a run of a node that these are its own: [`Input::Told`].
    Tell {
        /// The number; the same again when it is repeated.
        number: u64,
        /// The node.
        node: NodeId,
        /// Which run.
        generation: Generation,
        /// The leader's epoch.
        leader: Epoch,
        /// Agents with their epochs.
        agents: Vec<(AgentId, Epoch)>,
    },
    /// Ask a run of a node which of these it lacks: [`Input::Checked`].
    Check {
        /// The node.
        node: NodeId,
        /// Which run.
        generation: Generation,
        /// The leader's epoch.
        leader: Epoch,
        /// By their rows.
        agents: Vec<Held>,
    },
    /// Write what is to be done with a node: [`Input::Marked`].
    PutMark {
        /// The leader's epoch.
        leader: Epoch,
        /// The node.
        node: NodeId,
        /// The version that the record has, 0 for none.
        expected: Version,
        /// What it says from now on.
        mark: Mark,
    },
    /// Have an agent move: [`Input::Moved`].
    Move {
        /// The leader's epoch.
        leader: Epoch,
        /// The agent.
        agent: AgentId,
        /// Its owner.
        from: NodeId,
        /// Which run of that.
        generation: Generation,
        /// Where it goes.
        to: NodeId,
    },
    /// Note that every agent of a node that is gone has another owner by the store, for figures. Nothing comes of it.
    FailedOver {
        /// The node.
        node: NodeId,
        /// Since this leader found that it is gone, or that agents are of a node that is not there.
        took: Millis,
    },
    /// Agents stay on a node that is to be left: no other node has what they ask for.
    Kept {
        /// The node.
        node: NodeId,
        /// How many.
        agents: u64,
        /// What one of them asks for.
        asks: Asks,
    },
    /// The answer to a command.
    Answer(u64, Result<(), Refused>),
    /// Let somebody else lead.
    StepDown {
        /// What a person should know.
        why: &'static str,
    },
}

/// How a leader sees a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What is to be done with it.
    pub mark: Mark,
    /// Whether it is silent.
    pub is_suspected: bool,
    /// What it said last that it has to do.
    pub load: Option<Load>,
    /// Of a node that drains: whether nothing is left on it that can move.
    pub is_drained: bool,
}

/// Decides for as long as it is elected. In between it only remembers who is there.
#[derive(Debug, Clone)]
pub struct Leader {
    limits: Limits,
    members: BTreeMap<NodeId, Facts>,
    suspects: BTreeSet<NodeId>,
    heard: BTreeMap<NodeId, (Generation, Load, Adopted)>,
    crashes: Crashes,
    term: Option<Term>,
}

impl Leader {
    /// One who is not elected.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            members: BTreeMap::new(),
            suspects: BTreeSet::new(),
            heard: BTreeMap::new(),
            crashes: Crashes::default(),
            term: None,
        }
    }

    /// Takes one input and says what is to be done. `dice` are 64 random bits, anew for each.
    pub fn step(&mut self, input: Input, now: Timestamp, dice: u64) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Elected(epoch) => {
                if self.term.as_ref().is_none_or(|term| term.epoch < epoch) {
                    let mut term = Term::new(epoch, now);
                    term.members(&self.members, &self.suspects, now);
                    for (node, (generation, load, adopted)) in &self.heard {
                        term.heard(node, *generation, *load, *adopted);
                    }
                    self.term = Some(term);
                }
            }
            Input::Deposed(_) if planted(Bug::DeposedGoesOn) => {}
            Input::Deposed(over) => drop(self.term.take_if(|term| term.epoch <= over)),
            Input::Members(members) => {
                let runs = members.iter().map(|(node, facts)| (node.clone(), facts.generation)).collect();
                let has_left = |node: &NodeId, generation: Generation| {
                    self.heard.get(node).is_some_and(|(heard, load, _)| *heard == generation && load.is_draining)
                };
                let too_often = self.crashes.members(runs, has_left, now);
                self.heard.retain(|node, (generation, ..)| {
                    members.get(node).is_some_and(|facts| facts.generation == *generation)
                });
                self.suspects.retain(|node| members.contains_key(node));
                self.members = members;
                if let Some(term) = &mut self.term {
                    term.members(&self.members, &self.suspects, now);
                    term.rest(too_often, now);
                }
            }
            Input::Heard { node, generation, load, adopted } => {
                let is_there = |facts: &Facts| facts.generation == generation || planted(Bug::OldHeartbeat);
                if self.members.get(&node).is_some_and(is_there) {
                    self.heard.insert(node.clone(), (generation, load, adopted));
                    if let Some(term) = &mut self.term {
                        term.heard(&node, generation, load, adopted);
                    }
                }
            }
            Input::Suspects(suspects) => {
                self.suspects = suspects;
                if let Some(term) = &mut self.term {
                    term.suspects(&self.suspects);
                }
            }
            Input::Command(number, command) => match &mut self.term {
                Some(term) => term.command(&self.limits, number, command, now, dice, &mut out),
                None => out.push(Output::Answer(number, Err(Refused::NotLeading))),
            },
            other => {
                if let Some(term) = &mut self.term {
                    term.answer(&self.limits, other, now, dice, &mut out);
                }
            }
        }
        if let Some(term) = &mut self.term {
            term.drive(&self.limits, now, dice, &mut out);
            if matches!(out.last(), Some(Output::StepDown { .. })) {
                self.term = None;
            }
        }
        out
    }

    /// Whether it is elected; until then, time is nothing to it.
    #[must_use]
    pub fn is_elected(&self) -> bool {
        self.term.is_some()
    }

    /// Under which epoch it leads, once the store knows.
    #[must_use]
    pub fn leads(&self) -> Option<Epoch> {
        self.term.as_ref().filter(|term| term.is_working()).map(|term| term.epoch)
    }

    /// Up to how many agents of its own each node may let agents be born on itself; empty before this leader works.
    #[must_use]
    pub fn levels(&self) -> BTreeMap<NodeId, u64> {
        self.term.as_ref().map_or_else(BTreeMap::new, |term| term.levels(&self.limits))
    }

    /// How it sees the nodes; none if it does not lead.
    #[must_use]
    pub fn seen(&self) -> Option<BTreeMap<NodeId, Seen>> {
        self.term.as_ref().filter(|term| term.is_working()).map(Term::seen)
    }
}

#[cfg(any(test, feature = "planted-bugs"))]
pub mod sim;
#[cfg(test)]
mod tests;

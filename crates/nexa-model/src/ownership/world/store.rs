//! What becomes of what is asked of the store or of a node, and of what is sent outside.

use nexa_event::asks::Asks;
use nexa_member::leader::{Input, Output, Row, Which};
use nexa_member::say::Held;
use nexa_ports::leadership;
use nexa_ports::store::{AgentHead, AgentRow, AppendError, Guard, Place};
use nexa_runtime::Given;
use nexa_runtime::fence::TICKET_FRESH;
use nexa_types::{AgentId, AgentState, Epoch, Generation, NodeId, Version, WorkloadId};

use super::super::Plant;
use super::{AGENT, Body, Fact, Letter, World, node};
use crate::frozen::Frozen;

impl World {
    /// What a process reads, and hears of the service after that.
    pub(super) fn rows(&self, reader: usize, which: &Which, plant: Option<Plant>) -> Option<Vec<Row>> {
        let owner = self.store.owner.map(node);
        let is_asked_for = match which {
            Which::Unplaced => owner.is_none(),
            Which::Live => true,
            Which::Of(node) | Which::Left(node) => owner.as_ref() == Some(node),
        };
        if let Which::Left(left) = which
            && plant != Some(Plant::OldNews)
            && is_asked_for
            && (self.processes[reader].is_cut || self.leases.keys().any(|name| node(*name) == *left))
        {
            return None;
        }
        let row = Row {
            agent: AGENT,
            node: owner,
            epoch: self.store.epoch,
            priority: 100,
            is_quarantined: false,
            is_cancelled: false,
            is_over: false,
            workload: WorkloadId::from_bytes([9; 16]),
            asks: None::<Asks>,
        };
        Some(if is_asked_for { vec![row] } else { Vec::new() })
    }

    /// The agent's row as a store gives it.
    pub(in crate::ownership) fn row(&self) -> AgentRow {
        AgentRow {
            agent: AGENT,
            workload: WorkloadId::from_bytes([9; 16]),
            tenant: "t".parse().expect("a name"),
            principal: "p".parse().expect("a name"),
            node: self.store.owner.map(node),
            epoch: self.store.epoch,
            version: Version(self.store.log.len() as u64),
            state: AgentState::Running,
            due: None,
            cancelled: false,
            priority: 100,
            asks: None,
        }
    }

    pub(super) fn checked(&mut self, node: NodeId, generation: Generation, leader: Epoch, agents: &[Held]) -> Input {
        let to = self.process_of(generation).map(|index| &mut self.processes[index]);
        let Some(to) = to.filter(|process| process.is_awake()) else { return Input::Checked { node, missing: None } };
        if !to.taken.obeys(leader) {
            return Input::Deposed(leader);
        }
        let holds = |held: &&Held| to.rights.covers(held.agent, held.epoch, held.is_cancelled);
        let missing = agents.iter().filter(|held| !holds(held)).map(|held| held.agent).collect();
        Input::Checked { node, missing: Some(missing) }
    }

    /// A letter arrives. Of one that is answered blindly nobody hears what came of it.
    pub(super) fn deliver(&mut self, letter: Letter, plant: Option<Plant>, is_blind: bool) {
        let Letter { of, body, .. } = letter;
        let answer = match &*body {
            Body::Answer(input) => {
                if self.processes[of].is_up {
                    self.lead(of, input.clone(), plant);
                }
                return;
            }
            Body::Stored(answer) => return self.stored(of, answer.clone()),
            Body::Append { epoch, expected, facts } => {
                Body::Stored(Some(self.append(of, *epoch, *expected, facts, plant)))
            }
            Body::Wish(Output::Lead(epoch)) => Body::Answer(match leadership::admits(self.store.leader, *epoch) {
                Ok(()) => {
                    self.store.leader = *epoch;
                    Input::Leading(*epoch, true)
                }
                Err(_) => Input::Deposed(*epoch),
            }),
            Body::Wish(Output::Place { number, leader, wishes }) => {
                Body::Answer(self.place_as(*number, *leader, wishes, plant))
            }
            Body::Wish(Output::Tell { number, generation, leader, agents, .. }) => {
                Body::Answer(self.told(*number, *generation, *leader, agents))
            }
            Body::Wish(other) => unreachable!("nobody posts {other:?}"),
        };
        if is_blind {
            self.unanswered(of, &body);
        } else if self.processes[of].is_paused {
            self.post(of, answer);
        } else {
            self.deliver(Letter { of, body: Frozen::new(answer), is_late: false }, plant, false);
        }
    }

    /// Whoever asked hears that nobody answers.
    pub(super) fn unanswered(&mut self, of: usize, body: &Body) {
        let answer = match body {
            Body::Append { .. } => Body::Stored(None),
            Body::Wish(Output::Lead(epoch)) => Body::Answer(Input::Leading(*epoch, false)),
            Body::Wish(Output::Place { number, .. }) => Body::Answer(Input::Placed(*number, None)),
            Body::Wish(Output::Tell { number, .. }) => Body::Answer(Input::Told { number: *number, done: false }),
            Body::Wish(_) | Body::Answer(_) | Body::Stored(_) => return,
        };
        self.post(of, answer);
    }

    fn append(
        &mut self,
        by: usize,
        epoch: Epoch,
        expected: Version,
        facts: &[Fact],
        plant: Option<Plant>,
    ) -> Result<Version, AppendError> {
        let version = Version(self.store.log.len() as u64);
        let head = AgentHead { epoch: self.store.epoch, version, has_ended: false };
        let guard = Guard::Owner(if plant == Some(Plant::StoreFence) { head.epoch } else { epoch });
        if let Err(error) = guard.admits(expected, head) {
            if epoch < head.epoch {
                self.saw("refused: stale");
            }
            return Err(error);
        }
        if epoch < self.store.epoch {
            self.saw("stale record");
        }
        if self.store.by.get(&epoch).is_some_and(|(process, _)| *process != by) {
            self.saw("two of one epoch");
        }
        let started = |fact: &Fact| if let Fact::Started(epoch) = fact { Some(*epoch) } else { None };
        let latest = self.store.log.iter().filter_map(started).max();
        if facts.iter().filter_map(started).any(|epoch| latest.is_some_and(|latest| epoch < latest)) {
            self.saw("started late");
        }
        self.store.by.insert(epoch, (by, self.now));
        self.store.log.extend(facts);
        Ok(Version(self.store.log.len() as u64))
    }

    fn place_as(
        &mut self,
        number: u64,
        leader: Epoch,
        wishes: &[(AgentId, Epoch, NodeId)],
        plant: Option<Plant>,
    ) -> Input {
        if let Err(_refused) = leadership::admits(self.store.leader, leader) {
            self.saw("refused: leader");
            if plant != Some(Plant::LeaderFence) {
                return Input::Deposed(leader);
            }
        }
        let mut answers = Vec::new();
        for (agent, from, to) in wishes {
            let wish = Place { agent: *agent, from: *from, node: to.clone() };
            let answer = wish.judge(self.store.epoch, false);
            if let Ok(epoch) = answer {
                if leader < self.store.leader {
                    self.saw("earlier leader");
                }
                if let Some(lease) = self.leases.values().find(|lease| self.holds(lease.process)) {
                    let is_first = self.is_first_run(lease.process);
                    self.saw(if is_first { "taken from the living" } else { "taken from a new run" });
                }
                self.store.epoch = epoch;
                self.store.owner = (0..).find(|name| node(*name) == *to);
            }
            answers.push(answer);
        }
        self.store.leader = self.store.leader.max(leader);
        Input::Placed(number, Some(answers))
    }

    fn told(&mut self, number: u64, generation: Generation, leader: Epoch, agents: &[(AgentId, Epoch)]) -> Input {
        let row = self.row();
        let to = self.process_of(generation).map(|index| &mut self.processes[index]);
        let Some(to) = to.filter(|process| process.is_up) else { return Input::Told { number, done: false } };
        if !to.taken.obeys(leader) {
            return Input::Deposed(leader);
        }
        for (agent, epoch) in agents {
            let given = Given { agent: *agent, epoch: *epoch, carrier: None, trace: None };
            if given.is_meant_by(&row, &node(to.name)) && to.rights.given(*agent, *epoch) {
                to.outdate();
            }
        }
        to.taken.took(leader, number, agents.len() as u64);
        Input::Told { number, done: true }
    }

    /// A process sends an effect under an epoch, by an append that was asked for at this time, if by any.
    pub(in crate::ownership) fn sent(&mut self, process: usize, epoch: Epoch) {
        let accepted = self.store.by.get(&epoch).filter(|(by, _)| *by == process).map(|(_, at)| *at);
        let is_started = self.store.log.contains(&Fact::Started(epoch));
        if accepted.is_none() || !is_started {
            self.saw("sent unrecorded");
        }
        let by_lease = self.now < self.processes[process].valid_until;
        if by_lease && self.store.epoch != epoch {
            let is_first = self.is_first_run(process);
            self.saw(if is_first { "sent beside the owner" } else { "sent beside by a new run" });
        }
        if self.is_member(process) {
            return;
        }
        if accepted.is_none_or(|at| self.now.since(at) > TICKET_FRESH) {
            self.saw("sent without lease");
        } else {
            self.saw("sent by ticket");
        }
    }
}

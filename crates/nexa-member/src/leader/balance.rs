//! Which agents move so that no node has too much: pages of rows and what heartbeats say become the problem of
//! `nexa_sched::rebalance` or `spread`.
//!
//! What single agents take is not known here. So each of a node counts for an even part of what the node has in use, and
//! only those of one page are candidates; the rest counts, and stays.

use std::collections::BTreeSet;

use nexa_event::asks::Asks;
use nexa_sched::{AgentLoad, Labels, LoadBalanceStrategy, NodeLoad, NodeState, RebalanceLimits, Resources, SystemLoad};
use nexa_types::{AgentId, Millis, NodeId, Timestamp};

use super::moves::Moves;
use super::nodes::Nodes;
use super::{Limits, Row};

/// Of each node at most so many agents are counted one by one.
const COUNTED_MAX: u64 = 16_384;

/// A look at who could move, under way.
#[derive(Debug, Clone)]
pub(super) struct Balance {
    /// Whether nodes below their share are filled too, as a person asked for.
    spreads: bool,
    /// Whose pages have not come yet.
    waits_for: BTreeSet<NodeId>,
    candidates: Vec<(NodeId, AgentId, u8, Option<Asks>)>,
}

impl Balance {
    /// Begins a look, if there is a node that must be relieved, or, if `spreads`, one above and one below the mean.
    pub(super) fn begin(nodes: &Nodes, limits: &Limits, spreads: bool) -> Option<Self> {
        let loads = loads(nodes, limits);
        let (_, above) = sides(&loads);
        let is_wanted = |(node, load): &(NodeId, NodeLoad)| {
            load.state != NodeState::Draining
                && (load.pressure() > limits.balance.overload || (spreads && above.contains(node)))
        };
        let waits_for: BTreeSet<NodeId> =
            loads.iter().filter(|it| is_wanted(it)).map(|(node, _)| node.clone()).collect();
        (!waits_for.is_empty()).then_some(Self { spreads, waits_for, candidates: Vec::new() })
    }

    /// Whose pages are wanted.
    pub(super) fn wants(&self) -> &BTreeSet<NodeId> {
        &self.waits_for
    }

    /// A node is not there any more.
    pub(super) fn without(&mut self, node: &NodeId) {
        self.waits_for.remove(node);
    }

    /// A node's page has come.
    pub(super) fn page(&mut self, node: &NodeId, rows: &[Row]) {
        self.waits_for.remove(node);
        let can_move = rows.iter().filter(|row| row.node.as_ref() == Some(node) && !row.is_quarantined);
        self.candidates.extend(can_move.map(|row| (node.clone(), row.agent, row.priority, row.asks().cloned())));
    }

    /// What one of those whose pages came asks for.
    pub(super) fn asks(&self, agent: AgentId) -> Option<&Asks> {
        self.candidates.iter().find(|(_, of, ..)| *of == agent)?.3.as_ref()
    }

    /// Who moves from where to where, once all pages have come.
    pub(super) fn decide(
        &self,
        nodes: &Nodes,
        moves: &Moves,
        limits: &Limits,
        now: Timestamp,
    ) -> Vec<(AgentId, NodeId, NodeId)> {
        let named = loads(nodes, limits);
        let (below, _) = sides(&named);
        let mut load = SystemLoad { nodes: named.iter().map(|(_, load)| load.clone()).collect(), agents: Vec::new() };
        for (at, (node, of)) in named.iter().enumerate() {
            let agents = nodes.seats[node].load.map_or(0, |load| load.agents);
            let candidates = self.candidates.iter().filter(|(from, ..)| from == node);
            let known = candidates.map(|(_, agent, priority, asks)| {
                let busy = if moves.is_moving(*agent) { Some(now) } else { moves.moved_at(*agent) };
                let labels = asks.as_ref().map_or_else(Labels::new, |asks| asks.labels.clone());
                AgentLoad { labels, ..one(at, of, agents, *agent, *priority, busy) }
            });
            let before = load.agents.len();
            load.agents.extend(known);
            // Those that are known by number only count, and stay.
            let rest = agents.min(COUNTED_MAX).saturating_sub((load.agents.len() - before) as u64);
            load.agents.extend((0..rest).map(|_| one(at, of, agents, nobody(), 0, Some(now))));
        }
        let all: u64 = nodes.seats.values().filter_map(|seat| seat.load).map(|load| load.agents).sum();
        let moves_left = all.saturating_mul(limits.moves_percent).div_ceil(100).saturating_sub(moves.lately());
        let keeps_to = RebalanceLimits { moves_left, ..limits.balance };
        let now = Millis(now.0);
        let found = if self.spreads {
            let joined: Vec<u32> =
                (0u32..).zip(&named).filter(|(_, (node, _))| below.contains(node)).map(|it| it.0).collect();
            // By number: what is spread when a person asks is agents, also those that sleep.
            let by_number = RebalanceLimits { strategy: LoadBalanceStrategy::RoundRobin, ..keeps_to };
            nexa_sched::spread(&load, &joined, &by_number, now)
        } else {
            nexa_sched::rebalance(&load, &keeps_to, now)
        };
        let name = |at: u32| named[at as usize].0.clone();
        found.into_iter().map(|it| (load.agents[it.agent as usize].id, name(it.from), name(it.to))).collect()
    }
}

/// The nodes that were heard, in the order of their names.
fn loads(nodes: &Nodes, limits: &Limits) -> Vec<(NodeId, NodeLoad)> {
    let heard = nodes.seats.iter().filter(|(_, seat)| seat.load.is_some());
    heard.map(|(node, seat)| (node.clone(), nodes.load(limits, node, seat))).collect()
}

/// The open nodes that have less than their even share of agents by more than a twentieth, and all that have more.
fn sides(loads: &[(NodeId, NodeLoad)]) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let open = || loads.iter().filter(|(_, load)| load.state == NodeState::Open);
    let sum = |of: fn(&NodeLoad) -> u64| open().map(|(_, load)| u128::from(of(load))).sum::<u128>();
    let (agents, places) = (sum(|load| load.used.llm_slots), sum(|load| load.capacity.llm_slots).max(1));
    let share = |load: &NodeLoad| agents * u128::from(load.capacity.llm_slots) / places;
    let below = open().filter(|(_, load)| u128::from(load.used.llm_slots) < share(load) - share(load) / 20);
    let above = open().filter(|(_, load)| u128::from(load.used.llm_slots) > share(load));
    (below.map(|it| it.0.clone()).collect(), above.map(|it| it.0.clone()).collect())
}

fn one(at: usize, of: &NodeLoad, agents: u64, id: AgentId, priority: u8, moved: Option<Timestamp>) -> AgentLoad {
    let part = |all: u64, millionths: u64| {
        u64::try_from(u128::from(all) * u128::from(millionths) / 1_000_000 / u128::from(agents.max(1)))
            .unwrap_or(u64::MAX)
    };
    AgentLoad {
        id,
        node: at as u32,
        holds: Resources { cpu_milli: 0, memory_bytes: 0, llm_slots: 1 },
        uses: Resources {
            cpu_milli: part(of.capacity.cpu_milli, of.cpu),
            memory_bytes: part(of.capacity.memory_bytes, of.memory),
            llm_slots: of.model_calls / agents.max(1),
        },
        move_bytes: 0,
        labels: Labels::new(),
        priority,
        weight: 1_000,
        gang: None,
        moved_at: moved.map(|at| Millis(at.0)),
        talks_to: Vec::new(),
    }
}

fn nobody() -> AgentId {
    AgentId::from_slice(&[0; 16]).expect("sixteen bytes")
}

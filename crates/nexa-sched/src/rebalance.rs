//! Which agents move so that no node stays overloaded, and so that a new node is used.
//!
//! In:  the [`SystemLoad`], the limits, the time.
//! Out: [moves](ScheduleAdjustment), to be carried out all or any of them; nothing when all is well.
//!
//! [`rebalance`] first empties draining nodes, those of the highest priority first while there is room, and then relieves
//! nodes whose pressure is above `overload` until it is no longer above `relieved`. [`spread`] fills nodes that came newly.
//! Both keep to these rules, whatever the strategy:
//!
//!   RB-1  no node is filled above `relieved`, nor above its capacity, nor with what lacks its labels
//!   RB-2  a cordoned or draining node receives nothing
//!   RB-3  there are no more moves than are left of the budget, and no agent moves twice within `cool_down`
//!   RB-4  members of a gang that share a node still share one afterwards
//!   RB-5  no agent is moved to relieve a node unless that gains `margin`
//!
//! Why this ends and does not oscillate: what is relieved is above `overload`, what receives stays at or below `relieved`.
//! So a node that received is never relieved of it, each agent leaves at most once, and asking again after at most as many
//! rounds as there are agents gives nothing. Measured figures may be off by up to half of `overload - relieved` without
//! changing that; the gap between the two is the hysteresis. `cool_down` bounds what figures beyond that can do.
//!
//! # What the strategies differ in
//!
//! | strategy | who leaves an overloaded node first | where to, of the nodes that are allowed |
//! |---|---|---|
//! | `RoundRobin` | whoever came first: it looks at no figures | the next one, in turn |
//! | `LeastLoaded` | whoever relieves it most for what moving costs | where the pressure is least afterwards |
//! | `WeightedFair` | the same, times its weight: the heavier has more to gain from a free node | where the sum of weights for a core is least, so that shares are worth as much everywhere |
//! | `PriorityBased` | the lowest priority, so that the higher ones are not interrupted and have the relieved node | where [cost](crate::NodeLoad::cost) is least |
//! | `Adaptive` | whoever relieves it most for what moving costs, later the more it talks to others there | where cost is least, less what it talks to others there |
//!
//! Draining nodes and the rules above are no matter of strategy: an operator who drains a node, and a node that must not be
//! overfilled, want the same under all of them.
//!
//! Not here: carrying the moves out, and when to ask; whoever asks waits until figures have settled. What of a draining node
//! fits nowhere stays there and is not mentioned.

use std::cmp::Reverse;

use nexa_types::Millis;

use crate::load::{MILLION, SystemLoad, Weights};
use crate::rebalance_board::{Board, Unit};
use crate::{LoadBalanceStrategy, NodeState};

/// What moving an agent costs beside its bytes, in MiB that could be brought meanwhile: it stops, is written, and starts.
const MOVE_BASE_MIB: u64 = 16;

/// What rebalancing keeps to. Parts are in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebalanceLimits {
    /// A node above this pressure is relieved.
    pub overload: u64,
    /// Until it is no longer above this; no node is filled above it. At most `overload`.
    pub relieved: u64,
    /// How much less pressure there must be where an agent goes than where it was.
    pub margin: u64,
    /// How far nodes may be from the mean after spreading.
    pub tolerance: u64,
    /// How long an agent stays where it came to.
    pub cool_down: Millis,
    /// How many agents may move now; see [`SystemLoad::moves_left`]. A gang with more members on its node stays, also on a
    /// draining one, until there are as many.
    pub moves_left: u64,
    /// Who goes first, and where.
    pub strategy: LoadBalanceStrategy,
    /// What counts how much.
    pub weights: Weights,
}

impl Default for RebalanceLimits {
    fn default() -> Self {
        Self {
            overload: 800_000,
            relieved: 700_000,
            margin: 50_000,
            tolerance: 50_000,
            cool_down: Millis(60_000),
            moves_left: u64::MAX,
            strategy: LoadBalanceStrategy::default(),
            weights: Weights::default(),
        }
    }
}

/// An agent that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleAdjustment {
    /// Which, by its place in [`SystemLoad::agents`].
    pub agent: u32,
    /// From which node, by its place in [`SystemLoad::nodes`].
    pub from: u32,
    /// To which.
    pub to: u32,
    /// Why.
    pub why: MoveReason,
}

/// Why an agent moves. Pressures are in millionths and as the moves before this one leave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveReason {
    /// Its node has too much to do.
    Overloaded {
        /// The pressure on the node it leaves, before.
        from: u64,
        /// The pressure on the node it comes to, after.
        to: u64,
    },
    /// Its node is to be emptied.
    Draining,
    /// The node it comes to is new and has little to do.
    Joined {
        /// The pressure on the node it leaves, before.
        from: u64,
        /// The pressure on the node it comes to, after.
        to: u64,
    },
}

/// The moves that empty draining nodes and relieve overloaded ones; see the head of this module.
///
/// Takes O(agents · log agents + tried · nodes): of those on such nodes, what is as large as something that fits nowhere is not
/// tried. A hundred nodes with ten thousand agents take about a millisecond.
#[must_use]
pub fn rebalance(load: &SystemLoad, limits: &RebalanceLimits, now: Millis) -> Vec<ScheduleAdjustment> {
    let limits = &RebalanceLimits { relieved: limits.relieved.min(limits.overload), ..*limits };
    let mut board = Board::new(load, limits, limits.relieved);
    for seat in &mut board.seats {
        seat.is_left = seat.state == NodeState::Draining || seat.pressure() > limits.overload;
    }
    let is_left: Vec<bool> = board.seats.iter().map(|seat| seat.is_left).collect();
    if limits.moves_left == 0 || !is_left.contains(&true) {
        return Vec::new();
    }
    let mut moves = Moves { left: limits.moves_left, made: Vec::new() };
    let units = board.units(now, |node| is_left[node as usize]);
    let (mut draining, overloaded): (Vec<Unit>, Vec<Unit>) =
        units.into_iter().partition(|unit| board.seats[unit.node as usize].state == NodeState::Draining);

    draining.sort_by_key(|unit| (Reverse(unit.priority), unit.bytes, unit.first));
    for unit in draining.iter().filter(|unit| unit.may_move) {
        if !moves.allow(unit) {
            continue;
        }
        if let Some(target) = board.best_target(unit, None) {
            moves.make(&mut board, unit, target.node, MoveReason::Draining);
        }
    }

    let mut by_node: Vec<Vec<Unit>> = (0..board.seats.len()).map(|_| Vec::new()).collect();
    for unit in overloaded.into_iter().filter(|unit| unit.may_move) {
        by_node[unit.node as usize].push(unit);
    }
    let mut worst_first: Vec<usize> = (0..by_node.len()).filter(|node| !by_node[*node].is_empty()).collect();
    worst_first.sort_by_key(|node| (Reverse(board.seats[*node].pressure()), *node));
    for node in worst_first {
        relieve(&mut board, limits, node, &by_node[node], &mut moves);
    }
    moves.made
}

/// Moves units away from a node until it is no longer above `relieved`, or none of them can go.
fn relieve(board: &mut Board, limits: &RebalanceLimits, node: usize, units: &[Unit], moves: &mut Moves) {
    let mut order: Vec<(u8, Reverse<u64>, &Unit)> = units.iter().map(|unit| rank(board, limits, unit)).collect();
    order.sort_by_key(|(priority, score, unit)| (*priority, *score, unit.first));
    for (.., unit) in order {
        if moves.left == 0 || board.seats[node].excess() == crate::Resources::default() {
            return;
        }
        if relief(board, unit) == 0 || !moves.allow(unit) {
            continue;
        }
        let from = board.seats[node].pressure();
        if let Some(target) = board.best_target(unit, Some(limits.margin)) {
            moves.make(board, unit, target.node, MoveReason::Overloaded { from, to: target.pressure });
        }
    }
}

/// In which order units leave an overloaded node: by the first figure, then by the second.
fn rank<'u>(board: &mut Board, limits: &RebalanceLimits, unit: &'u Unit) -> (u8, Reverse<u64>, &'u Unit) {
    // Millionths of a node relieved, for what could be brought meanwhile in GiB.
    let move_mib = (unit.len() * MOVE_BASE_MIB).saturating_add(unit.bytes >> 20);
    let for_its_cost = relief(board, unit).saturating_mul(1_000) / move_mib;
    let (priority, score) = match limits.strategy {
        LoadBalanceStrategy::RoundRobin => (0, 0),
        LoadBalanceStrategy::LeastLoaded => (0, for_its_cost),
        LoadBalanceStrategy::WeightedFair => (0, for_its_cost.saturating_mul(unit.weight.max(1))),
        LoadBalanceStrategy::PriorityBased => (unit.priority, for_its_cost),
        LoadBalanceStrategy::Adaptive => {
            let apart = MILLION - board.talk_at_home(unit).min(MILLION) / 2;
            (0, for_its_cost.saturating_mul(apart) / MILLION)
        }
    };
    (priority, Reverse(score), unit)
}

/// How much less of the node's excess there is without the unit: over all resources, in millionths of the node.
fn relief(board: &Board, unit: &Unit) -> u64 {
    let seat = &board.seats[unit.node as usize];
    let excess = seat.excess();
    let of = |uses: u64, excess: u64, strength: u64| crate::load::part(uses.min(excess), strength);
    of(unit.uses.cpu_milli, excess.cpu_milli, seat.strength.cpu_milli)
        + of(unit.uses.memory_bytes, excess.memory_bytes, seat.strength.memory_bytes)
        + of(unit.uses.llm_slots, excess.llm_slots, seat.strength.llm_slots)
}

/// The moves made so far, and how many more there may be.
pub(crate) struct Moves {
    pub(crate) left: u64,
    pub(crate) made: Vec<ScheduleAdjustment>,
}

impl Moves {
    /// Whether all members of the unit may still move.
    pub(crate) fn allow(&self, unit: &Unit) -> bool {
        unit.len() <= self.left
    }

    /// Moves all members of a unit.
    pub(crate) fn make(&mut self, board: &mut Board, unit: &Unit, to: u32, why: MoveReason) {
        self.left -= unit.len();
        let made =
            board.members(unit).iter().map(|agent| ScheduleAdjustment { agent: *agent, from: unit.node, to, why });
        self.made.extend(made);
        board.apply(unit, to);
    }
}

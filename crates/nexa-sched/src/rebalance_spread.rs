//! Which agents move to nodes that came newly.
//!
//! In:  the [`SystemLoad`], which nodes are new, the limits, the time.
//! Out: moves to those nodes and to no others, as few as will do.
//!
//! *Balanced* is: what is spread is on each new node no less, and on each other open node no more, than the mean over all
//! open nodes, give or take `tolerance`. What is spread depends on the strategy: the number of agents for `RoundRobin`, the
//! sum of weights for a core for `WeightedFair`, and for the others what is scarcest in the whole cluster (processor, memory
//! or model requests; a second resource that is nearly as scarce is kept below `relieved`, and otherwise follows by itself
//! or at the next overload).
//!
//! The largest agents go first, so that few have to; an agent that would take its old node below the mean, or its new one
//! above it, by more than the tolerance, is left out. As long as agents are small beside the tolerance, the number of moves
//! is at most 1.2 times the least that reaches the balance, rounded up (that is tested), and mostly just the least. Where
//! agents are larger or gangs must stay together, what does not fit into the tolerance stays where it is.
//!
//! The rules of [`rebalance`](crate::rebalance()) hold here too, but for the margin: the tolerance stands for it.

use std::cmp::Reverse;

use nexa_types::Millis;

use crate::load::{MILLION, SystemLoad, share};
use crate::rebalance::{MoveReason, Moves, RebalanceLimits, ScheduleAdjustment};
use crate::rebalance_board::{Board, Seat, Unit};
use crate::{LoadBalanceStrategy, NodeState};

/// What is spread evenly.
#[derive(Clone, Copy)]
enum Measure {
    Agents,
    Weight,
    Cpu,
    Memory,
    Model,
}

impl Measure {
    /// How much a node has, and of how much.
    fn of_node(self, seat: &Seat) -> (u64, u64) {
        match self {
            // In millionths, so that the mean has a fraction.
            Self::Agents => (seat.agents.saturating_mul(MILLION), 1),
            Self::Weight => (seat.weight.saturating_mul(MILLION), seat.strength.cpu_milli),
            Self::Cpu => (seat.busy.cpu_milli, seat.strength.cpu_milli),
            Self::Memory => (seat.busy.memory_bytes, seat.strength.memory_bytes),
            Self::Model => (seat.busy.llm_slots, seat.strength.llm_slots),
        }
    }

    /// How much a unit takes along.
    fn of_unit(self, unit: &Unit) -> u64 {
        match self {
            Self::Agents => unit.len().saturating_mul(MILLION),
            Self::Weight => unit.weight.saturating_mul(MILLION),
            Self::Cpu => unit.uses.cpu_milli,
            Self::Memory => unit.uses.memory_bytes,
            Self::Model => unit.uses.llm_slots,
        }
    }
}

/// The moves that bring agents to the nodes in `joined`; see the head of this module.
///
/// Takes O(agents · (log agents + joined nodes)).
#[must_use]
pub fn spread(load: &SystemLoad, joined: &[u32], limits: &RebalanceLimits, now: Millis) -> Vec<ScheduleAdjustment> {
    let mut board = Board::new(load, limits, limits.relieved.min(limits.overload));
    let mut is_new = vec![false; board.seats.len()];
    for node in joined {
        if let Some(flag) = is_new.get_mut(*node as usize) {
            *flag = board.seats[*node as usize].state == NodeState::Open;
        }
    }
    if limits.moves_left == 0 || !is_new.contains(&true) {
        return Vec::new();
    }
    let band = Band::new(&board, limits);
    let is_open: Vec<bool> = board.seats.iter().map(|seat| seat.state == NodeState::Open).collect();
    let mut units = board.units(now, |node| is_open[node as usize] && !is_new[node as usize]);
    units.retain(|unit| unit.may_move && band.measure.of_unit(unit) > 0);
    let by_priority = limits.strategy == LoadBalanceStrategy::PriorityBased;
    units.sort_by_cached_key(|unit| {
        let each = band.measure.of_unit(unit) / unit.len();
        (Reverse(each), if by_priority { unit.priority } else { 0 }, unit.bytes, unit.first)
    });

    let joined: Vec<usize> = (0..is_new.len()).filter(|node| is_new[*node]).collect();
    let mut moves = Moves { left: limits.moves_left, made: Vec::new() };
    // What is above the band must come down, whatever the new nodes still lack; what they lack then may come from anywhere.
    for must_come_down in [true, false] {
        units.retain(|unit| {
            let source = &board.seats[unit.node as usize];
            if !moves.allow(unit) || must_come_down && !band.is_above(source) || !band.stays_above(source, unit) {
                return true;
            }
            let Some(target) = emptiest(&board, &band, &joined, unit, must_come_down) else { return true };
            let from = source.pressure();
            let to = board.pressure_with(unit, target);
            moves.make(&mut board, unit, target as u32, MoveReason::Joined { from, to });
            false
        });
    }
    moves.made
}

/// The new node with the least, among those that may take the unit.
fn emptiest(board: &Board, band: &Band, joined: &[usize], unit: &Unit, even_if_filled: bool) -> Option<usize> {
    let may_take = |node: &usize| {
        let seat = &board.seats[*node];
        (even_if_filled || band.is_below(seat))
            && band.stays_below(seat, unit)
            && board.room(unit, *node).is_some()
            && board.has_labels(unit, *node)
    };
    let filled = |node: &usize| {
        let (has, of) = band.measure.of_node(&board.seats[*node]);
        u128::from(has) * u128::from(MILLION) / u128::from(of.max(1))
    };
    joined.iter().copied().filter(may_take).min_by_key(|node| (filled(node), *node))
}

/// Between what and what all is well.
struct Band {
    measure: Measure,
    /// In millionths of what nodes have it of.
    low: u64,
    high: u64,
}

impl Band {
    fn new(board: &Board, limits: &RebalanceLimits) -> Self {
        let mean = |measure: Measure| {
            let open = board.seats.iter().filter(|seat| seat.state == NodeState::Open);
            let (has, of) = open
                .map(|seat| measure.of_node(seat))
                .fold((0u128, 0u128), |sum, node| (sum.0 + u128::from(node.0), sum.1 + u128::from(node.1)));
            u64::try_from(has * u128::from(MILLION) / of.max(1)).unwrap_or(u64::MAX)
        };
        let relative = |mean: u64, least: u64| share(mean, limits.tolerance).max(least);
        let (measure, mean, tolerance) = match limits.strategy {
            LoadBalanceStrategy::RoundRobin => {
                let mean = mean(Measure::Agents);
                // Half an agent more or less is as even as whole agents can be.
                (Measure::Agents, mean, relative(mean, MILLION * MILLION / 2))
            }
            LoadBalanceStrategy::WeightedFair => {
                let mean = mean(Measure::Weight);
                (Measure::Weight, mean, relative(mean, 0))
            }
            LoadBalanceStrategy::LeastLoaded | LoadBalanceStrategy::PriorityBased | LoadBalanceStrategy::Adaptive => {
                let scarcest = [Measure::Cpu, Measure::Memory, Measure::Model].map(|measure| (mean(measure), measure));
                let (mean, measure) =
                    scarcest.into_iter().rev().max_by_key(|(mean, _)| *mean).expect("there are three of them");
                (measure, mean, limits.tolerance)
            }
        };
        Self { measure, low: mean.saturating_sub(tolerance), high: mean.saturating_add(tolerance) }
    }

    fn is_above(&self, seat: &Seat) -> bool {
        let (has, of) = self.measure.of_node(seat);
        has > share(of, self.high)
    }

    fn is_below(&self, seat: &Seat) -> bool {
        let (has, of) = self.measure.of_node(seat);
        has < share(of, self.low)
    }

    fn stays_above(&self, seat: &Seat, unit: &Unit) -> bool {
        let (has, of) = self.measure.of_node(seat);
        has.checked_sub(self.measure.of_unit(unit)).is_some_and(|rest| rest >= share(of, self.low))
    }

    fn stays_below(&self, seat: &Seat, unit: &Unit) -> bool {
        let (has, of) = self.measure.of_node(seat);
        has.saturating_add(self.measure.of_unit(unit)) <= share(of, self.high)
    }
}

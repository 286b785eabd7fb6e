//! What runs where and when.
//!
//! ```text
//! agents with their dependencies ─► graph ─┐
//! nodes, links, settings, seed ────────────┴─► plan ─► stages, allocation, critical path, estimated time
//! nodes and agents as they are seen to do ─► rebalance, spread ─► moves
//! budgets of providers, who wants how much of them ─► lease ─► slices, one a node
//! a plan, what has ended ─► dispatch ─► what starts, and whether a new plan is due
//! nodes with what is free ─► place one, place a gang, hold room for it
//! what agents took ─► estimates
//! ```
//!
//! Pure: no clock, no dice, no I/O. The time and the seed are arguments, every loop goes over something ordered, and
//! costs are integers, so that the same question has the same answer on every node.
//!
//! Not here: who carries a plan out, and who holds the leader's office.

mod agent;
mod bound;
mod budget;
mod cluster;
mod config;
mod count;
mod dispatch;
mod estimate;
mod explain;
mod gang;
mod graph;
mod graph_error;
pub mod lease;
mod load;
mod place;
mod place_gang;
mod place_reserve;
mod plan;
mod rank;
mod rebalance;
mod rebalance_board;
mod rebalance_spread;
mod source;
mod timeline;

pub use agent::{AgentScheduleInfo, ModelNeed, Resources};
pub use budget::ProviderBudget;
pub use cluster::{Cluster, Labels, Network, NodeInfo};
pub use config::{LoadBalanceStrategy, SchedulerConfig};
pub use dispatch::{Dispatch, DispatchLimits, Learned};
pub use estimate::{DURATION_MAX, Estimates, EstimatesError, KIND_BYTES_MAX, KINDS_MAX, PRIOR};
pub use explain::{
    ALTERNATIVES_MAX, Alternative, ExplainError, Explainer, Explanation, HOLDERS_MAX, Outcome, Resource, WAITS_MAX,
    Wait, WaitReason, explain,
};
pub use graph::{DEPENDENCIES_MAX, GraphError, TASKS_MAX, TaskGraph};
pub use load::{
    AgentLoad, FETCH_FULL_BYTES, MAILBOX_AGE_FULL, MILLION, NodeLoad, NodeState, SystemLoad, TALKS_MAX, Weights,
};
pub use place::{NodeFree, place_one};
pub use place_gang::{Demand, place_gang};
pub use place_reserve::{
    GangAsk, GangAttempt, GangState, GangStep, HOLD_SPAN_MAX, HOLDS_MAX, HoldId, Reservations, ReserveError,
};
pub use plan::{KEEP_MARGIN_PERCENT, PlanError, Problem, Progress, SchedulePlan, Slot, Violation, check, plan};
pub use rank::{critical_path, downward_ranks, upward_ranks};
pub use rebalance::{MoveReason, RebalanceLimits, ScheduleAdjustment, rebalance};
pub use rebalance_spread::spread;
pub use source::{INPUT_TOKENS_EXPECTED, agents_of_entry, agents_of_list};

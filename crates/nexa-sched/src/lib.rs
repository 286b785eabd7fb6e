//! What runs where and when.
//!
//! ```text
//! agents with their dependencies ─► graph ─┐
//! nodes, links, settings, seed ────────────┴─► plan ─► stages, allocation, critical path, estimated time
//! ```
//!
//! Pure: no clock, no dice, no I/O. The time and the seed are arguments, every loop goes over something ordered, and
//! costs are integers, so that the same question has the same answer on every node.
//!
//! Not here: who carries a plan out, and who holds the leader's office.

mod agent;
mod budget;
mod cluster;
mod config;

pub use agent::{AgentScheduleInfo, ModelNeed, Resources};
pub use budget::ProviderBudget;
pub use cluster::{Cluster, Labels, Network, NodeInfo};
pub use config::{LoadBalanceStrategy, SchedulerConfig};

//! Traces of real workflows, played on modelled clusters: is a plan of `nexa-sched` better than the textbook's?
//!
//! ```text
//! DIR/*.json ─ wfformat ─► Workflow ─┬─ noise ─► estimates ─► heft, ours, spread ─► a policy ─┐
//! a seed ───── cluster ──► Cluster ──┤                                                        ├─► world ─► makespan
//!                                    └─ true durations ───────────────────────────────────────┘
//!                                    └─ bound: what no schedule can be below
//! ```
//!
//! The model of execution ([`world`]) is that of `nexa_sched::plan`: a task starts when all that it depends on has ended
//! and the results have arrived, holds what it needs for as long as it runs, and is not moved while it does. The result
//! of a task is with every other node one transfer after its end, whoever asks for it and whenever, or else sets out when it is
//! settled who asks ([`Transfers`]); links are not shared.
//! There are no gangs, no models and no faults here.
//!
//! Everything is a function of the traces and a seed: a study can be made again, to the millisecond.

mod bound;
mod chart;
mod cluster;
mod heft;
mod noise;
mod ours;
pub mod report;
mod spread;
mod study;
mod task;
mod wfformat;
mod world;

pub use bound::lower_bound;
pub use cluster::{NETWORK, cluster};
pub use heft::{Costs, Placed, heft, heft_fixed};
pub use noise::{Noise, estimates};
pub use ours::{Planner, planned_once};
pub use spread::{Spread, Turn};
pub use study::{Cell, Contender, Settings, StudyError, mean_ratio, study};
pub use task::{Need, Task, Workflow, WorkflowError};
pub use wfformat::{FILE_BYTES_MAX, FolderError, FormatError, parse, read, read_all, usual_folder};
pub use world::{Fault, Fixed, Order, Policy, Ran, Seen, Start, Status, Transfers, World, check};

#[cfg(test)]
mod tests;

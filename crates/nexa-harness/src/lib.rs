//! Runs one workload in one thread: real agents, a virtual clock, and a script in the place of models and people.
//!
//! - [`Suite`]: the tests of a program, compiled.
//! - [`Stage`]: a root agent and all its descendants. Whatever happens waits in one queue, ordered by when it is due and
//!   then by when it arrived; every stream is kept.
//! - [`script`]: what models, tools and people say, and after how long.
//! - [`Suite::prove`]: a test three times: in one go; stopped, frozen and thawed at every safepoint; and once more from
//!   its recorded streams, without anybody to ask. All three must agree.
//! - [`report`]: why a test failed, for the person who wrote it.
//!
//! Holds:
//!   HA-1  equal programs, tests and scripts make equal runs, whatever the fuel: the harness has no clock and no dice
//!   HA-2  a run ends: [`STEPS_MAX`] steps and then it is a failure that says so
//!
//! Not here: files (nexa-cli), endpoints, the node (nexa-runtime).

pub mod report;
pub mod script;
mod seen;
mod stage;
mod suite;

pub use seen::{Call, Seen};
pub use stage::{Pace, Run, STEPS_MAX, Stage};
pub use suite::{Disagreement, Suite};

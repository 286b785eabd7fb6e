//! The actors of one node: agents, supervision, dispatchers, timers. The only crate that knows ractor.
//!
//! - [`Node`]: a node from start to drain. Several fit into one process.
//! - `agent`: the actor of one agent: decide, reserve, record, apply, act.
//! - `run_queue`, `line`, `fair`, `pace`: whose program computes next, on threads of their own, and for how long.
//! - `begin`: how many are at work at the same time.
//! - `residency`, `takeover`, `ownership`: who is in memory, who must come, and who is ours at all.
//! - `moving`, [`fence`]: agents that come and go between nodes, and what a node may no longer send.
//! - [`resume`]: what a node makes of an agent that it reads, and of an append that was refused.
//! - `liveness`, `memory`: how late the runtime is and how large the process, and what is done about the latter.
//! - `dispatch`: carries out effects: models and timers.
//! - [`bounded`], [`supervise`]: actors with limits, and restarts with limits; other crates use them too.
//! - [`genai`], [`trace`]: what is seen of all that: spans and histograms, and how spans of several nodes hang together.
//! - [`programs`], [`live`]: modules by hash, and what agents say while they work.
//!
//! Holds:
//!   RT-1  nothing is sent outside before the store has accepted that it was started
//!   RT-2  an answer is forgotten only after the store has accepted it
//!   RT-3  a lost hint delays an agent until the next sweep and loses nothing
//!
//! Not here: what an agent decides (nexa-agent), how facts are stored (nexa-store), which node owns what.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

mod agent;
mod begin;
pub mod bounded;
mod config;
mod dispatch;
mod fair;
pub mod fence;
pub mod genai;
mod line;
pub mod live;
mod liveness;
mod memory;
mod moving;
mod newborn;
mod node;
mod ownership;
mod pace;
pub mod programs;
mod residency;
pub mod resume;
mod run_queue;
pub mod supervise;
mod takeover;
pub mod trace;
mod waits;

pub use agent::RECALLS_MAX;
pub use bounded::Overloaded;
pub use config::{NodeConfig, NodeLoad, NodeStats};
pub use dispatch::slices::{Slices, SlicesReport, budget_of};
#[cfg(feature = "model")]
pub use dispatch::slots::flights;
pub use live::{Live, LiveHub, LiveKind, LivePiece, LiveReceiver, LiveSaid};
pub use memory::MemoryPressure;
pub use moving::{Address, Carrier, Given, LEFT_FOR, RELEASE_WAIT, ReleaseError, Released};
pub use newborn::Newborn;
pub use node::{Node, Ports, StartError};
pub use ownership::Rights;
pub use programs::ProgramError;

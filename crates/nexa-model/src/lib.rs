//! Protocols of Nexa, checked in every state that a small cluster can come into.
//!
//! A test goes one way through a protocol, a simulation from a seed some thousands of ways; here all ways are gone, up to the
//! bounds that stand in each model: so many nodes, so many faults, so long. A property that is broken is shown with the shortest
//! way to where it breaks.
//!
//! - [`ownership`]: leases, the election, the leader's placing, rights, and the store's fence: who may act for an agent.
//! - [`ledger`]: what is done outside: intent, started, done, failed without effect, or unknown.
//!
//! What decides is the code that runs: pure steps and predicates of the other crates, called by the models as they are by their
//! actors and adapters. Each model's header says what of it is real and what is modelled. And each has planted faults
//! ([`ownership::Plant`], [`ledger::Plant`]), because a check that cannot fail shows nothing.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

pub mod check;
mod frozen;
pub mod ledger;
pub mod ownership;

pub use check::{Checked, Effort, Report, check};

//! Decisions of Nexa, played on models of the world where time costs nothing.
//!
//! - [`bugs`]: bugs that are planted to see whether they are noticed.
//! - [`cluster`]: whole clusters in one thread, on virtual time, with faults from a seed.
//! - [`workflows`]: traces of real workflows on modelled clusters, planned by `nexa-sched` and by the textbook.
//! - [`dice`]: random numbers from a seed, the same ones on every machine.
//!
//! Nothing here is part of the product: it proves things about it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

pub mod bugs;
pub mod cluster;
pub mod dice;
#[cfg(feature = "planted-bugs")]
mod lanes;
pub mod workflows;

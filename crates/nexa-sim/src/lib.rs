//! Decisions of Nexa, played on models of the world where time costs nothing.
//!
//! - [`workflows`]: traces of real workflows on modelled clusters, planned by `nexa-sched` and by the textbook.
//! - [`dice`]: random numbers from a seed, the same ones on every machine.
//!
//! Nothing here is part of the product: it proves things about it.

pub mod dice;
pub mod workflows;

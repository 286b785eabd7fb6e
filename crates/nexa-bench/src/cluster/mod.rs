//! The suite `cluster`: what nodes do together.
//!
//! - [`link`]: messages and questions between two nodes, beside what tonic does without the protocol of the links.

mod bare;
mod link;

use crate::measure::{Error, Figures};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    rounds: usize,
    /// Messages of one round.
    messages: u64,
    /// Questions of one round, at a rate and one by one.
    asks: u64,
    /// Calls of one round without a pause.
    calls: u64,
}

impl Scale {
    /// For figures.
    pub(crate) const FULL: Self = Self { rounds: 5, messages: 2_000_000, asks: 30_000, calls: 40_000 };
    /// Only to see that everything can be measured.
    pub(crate) const QUICK: Self = Self { rounds: 1, messages: 5_000, asks: 500, calls: 500 };
}

/// Runs the suite.
pub(crate) fn run(scale: Scale) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    link::run(scale, &mut figures)?;
    Ok(figures)
}

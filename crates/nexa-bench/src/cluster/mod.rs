//! The suite `cluster`: what nodes do together, and on the store that they share.
//!
//! - [`link`]: messages and questions between two nodes, beside what tonic does without the protocol of the links.
//! - [`durable`]: steps and messages on PostgreSQL, beside what the server and its disk do.
//! - [`migration`]: agents that move between two nodes while they work.
//! - [`failover`]: nodes that are killed, as processes of their own.
//! - [`report`]: a page of all of it.

mod bare;
mod durable;
mod failover;
mod link;
mod migration;
mod report;

use std::path::Path;

use nexa_testkit::postgres::Server;

use crate::core::node::block_on;
use crate::measure::{Error, Figures};

/// The parts.
const PARTS: [&str; 4] = ["link", "durable", "migration", "failover"];

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
    durable: durable::Scale,
    migration: migration::Scale,
    failover: failover::Scale,
}

impl Scale {
    /// For figures.
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        messages: 2_000_000,
        asks: 30_000,
        calls: 40_000,
        durable: durable::Scale {
            warm_up: 1,
            rounds: 5,
            syncs: 200,
            rows: 64 * 1024,
            agents: 64,
            steps: 400,
            messages: 1_024,
        },
        migration: migration::Scale { agents: 8, moves: 200 },
        failover: failover::Scale { agents: 300, kills: 30 },
    };
    /// Only to see that everything can be measured.
    pub(crate) const QUICK: Self = Self {
        rounds: 1,
        messages: 5_000,
        asks: 500,
        calls: 500,
        durable: durable::Scale { warm_up: 0, rounds: 1, syncs: 5, rows: 2_048, agents: 4, steps: 5, messages: 70 },
        migration: migration::Scale { agents: 2, moves: 4 },
        failover: failover::Scale { agents: 30, kills: 3 },
    };
}

/// Runs the suite, or one part of it.
pub(crate) fn run(scale: Scale, nexa: &Path, only: Option<&str>, report: Option<&Path>) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    let is_wanted = |part: &str| only.is_none_or(|only| only == part);
    if only.is_some_and(|only| !PARTS.contains(&only)) {
        return Err(format!("the suite has no such part; there are: {}", PARTS.join(", ")).into());
    }
    if is_wanted("link") {
        link::run(scale, &mut figures)?;
    }
    if is_wanted("durable") || is_wanted("migration") {
        let server = Server::start().ok_or("PostgreSQL is not installed; `cargo xtask setup` does it")?;
        if is_wanted("durable") {
            durable::run(scale.durable, &server, &mut figures)?;
        }
        if is_wanted("migration") {
            migration::run(scale.migration, &server, &mut figures)?;
        }
    }
    let mut kills = Vec::new();
    if is_wanted("failover") {
        let nexa = nexa.canonicalize().map_err(|error| format!("`{}` is not there: {error}", nexa.display()))?;
        kills = block_on(failover::run(scale.failover, &nexa, &mut figures))?;
    }
    if let Some(report) = report {
        report::write(report, &figures, &kills)?;
    }
    Ok(figures)
}

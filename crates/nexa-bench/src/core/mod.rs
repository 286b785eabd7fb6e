//! The suite `core`: what one node does on one disk, and what agents and starts cost.
//!
//! - `durable_steps_per_s`: 64 agents at a time on SQLite, which syncs, and a model that answers at once. A step is an
//!   outside effect requested, answered and recorded. `step_p50_ms`, `step_p99_ms`: from one request of an agent to its
//!   next, at that load.
//! - `fsync_p50_us`: the floor of the steps: 512 bytes written and synced, sampled before, between and after all else.
//! - `durable_messages_per_s`: `pass` between 64 pairs of agents, each message recorded by its receiver.
//! - `raw_insert_rows_per_s`: the floor of the messages: rows of 256 bytes in batches of 256, put by SQLite itself into
//!   the store's own table with its indices.
//! - `live_agents`: so many wait for a model with 2 KiB of history, in a process of their own.
//!   `live_agents_start_s`: from the first birth until each has recorded and sent its request. `live_agent_kib`: by how
//!   much its share of memory (PSS) grew, an agent. `total_pss_mib`: all of that process.
//! - `dormant_agent_bytes`: what an agent that lives in the store only adds to its node: a node that knows 100,000 more
//!   is so much larger.
//! - `start_to_exit_ms`, `start_peak_mib`: `nexa run` of a program without a model, on a fresh folder.
//! - `embedded_tokens_per_s`: how fast the embedded model writes; null without its weights.
//! - `local_tell_ratio`: a tell through bounded admission by a raw cast of ractor.
//!
//! Everything is on one file system, that of the folder given. What is compared is measured in turn, round by round.

pub(crate) mod disk;
mod memory;
pub(crate) mod messages;
pub(crate) mod model;
pub(crate) mod node;
mod process;
pub(crate) mod steps;
mod tell;

use std::path::{Path, PathBuf};

use self::node::Ground;
use crate::measure::{Error, Figures, Rounds};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds that do not count.
    warm_up: usize,
    rounds: usize,
    syncs: usize,
    rows: usize,
    agents: usize,
    steps: i64,
    messages: i64,
    tells: u64,
    live: usize,
    live_rounds: usize,
    dormant: usize,
    /// Starts of the binary in one round, after one that does not count.
    starts: usize,
    written: u64,
}

impl Scale {
    /// For figures.
    pub(crate) const FULL: Self = Self {
        warm_up: 1,
        rounds: 5,
        syncs: 200,
        rows: 128 * 1024,
        agents: 64,
        steps: 400,
        messages: 1_024,
        tells: 1_000_000,
        live: 10_000,
        live_rounds: 3,
        dormant: 100_000,
        starts: 5,
        written: 96,
    };
    /// Only to see that everything can be measured.
    pub(crate) const QUICK: Self = Self {
        warm_up: 0,
        rounds: 1,
        syncs: 5,
        rows: 512,
        agents: 4,
        steps: 5,
        messages: 70,
        tells: 1_000,
        live: 50,
        live_rounds: 1,
        dormant: 3_000,
        starts: 1,
        written: 32,
    };
}

/// Runs the suite. `nexa` is the binary whose starts are measured, `folder` is where everything is stored meanwhile.
pub(crate) fn run(nexa: &Path, folder: &Path, scale: Scale) -> Result<Figures, Error> {
    let nexa = nexa.canonicalize().map_err(|error| format!("`{}` is not there: {error}", nexa.display()))?;
    std::fs::create_dir_all(folder)?;
    let folder = tempfile::Builder::new().prefix("core-").tempdir_in(folder)?;
    let mut rounds = Rounds::default();
    for round in 0..scale.warm_up + scale.rounds {
        let taken = one_round(&nexa, folder.path(), scale)?;
        if round >= scale.warm_up {
            rounds.append(taken);
        }
    }
    for _ in 0..scale.live_rounds {
        memory::live_agents(&fresh(folder.path())?, scale.live, &mut rounds)?;
        rounds.note("fsync_p50_us", disk::sync_micros(folder.path(), scale.syncs)?);
    }
    memory::dormant_agents(&fresh(folder.path())?, scale.dormant, &mut rounds)?;
    let weights = process::embedded(&nexa, folder.path(), scale.written, scale.rounds, &mut rounds)?;
    rounds.note("fsync_p50_us", disk::sync_micros(folder.path(), scale.syncs)?);

    let mut figures = Figures::default();
    for key in [
        "durable_steps_per_s",
        "fsync_p50_us",
        "raw_insert_rows_per_s",
        "durable_messages_per_s",
        "step_p50_ms",
        "step_p99_ms",
        "live_agents",
        "live_agents_start_s",
        "live_agent_kib",
        "total_pss_mib",
        "dormant_agent_bytes",
        "start_to_exit_ms",
        "start_peak_mib",
    ] {
        figures.spread(key, rounds.take(key)?);
    }
    match weights {
        Ok(()) => figures.spread("embedded_tokens_per_s", rounds.take("embedded_tokens_per_s")?),
        Err(why) => figures.absent("embedded_tokens_per_s", &why),
    }
    figures.spread("local_tell_ratio", rounds.take("local_tell_ratio")?);
    let syncs_per_s = 1e6 / figures.of("fsync_p50_us");
    eprintln!(
        "\nsteps by what one sync for all {} agents allows: {:.2}; messages by raw rows: {:.2}",
        scale.agents,
        figures.of("durable_steps_per_s") / (scale.agents as f64 * syncs_per_s),
        figures.of("durable_messages_per_s") / figures.of("raw_insert_rows_per_s"),
    );
    Ok(figures)
}

/// Everything that is measured more than once, in turn.
fn one_round(nexa: &Path, folder: &Path, scale: Scale) -> Result<Rounds, Error> {
    let mut rounds = Rounds::default();
    rounds.note("fsync_p50_us", disk::sync_micros(folder, scale.syncs)?);
    rounds.note("raw_insert_rows_per_s", disk::insert_rows(&fresh(folder)?, scale.rows)?);
    let open = fresh(folder)?;
    steps::measure(async || Ground::open(&open), scale.agents, scale.steps, &mut rounds)?;
    rounds.note("fsync_p50_us", disk::sync_micros(folder, scale.syncs)?);
    let open = fresh(folder)?;
    let messages = messages::measure(async || Ground::open(&open), scale.agents, scale.messages)?;
    rounds.note("durable_messages_per_s", messages);
    rounds.note("fsync_p50_us", disk::sync_micros(folder, scale.syncs)?);
    rounds.note("local_tell_ratio", tell::ratio(scale.tells)?);
    // What came before may have driven the binary out of memory.
    process::start(nexa, &fresh(folder)?, &mut Rounds::default())?;
    for _ in 0..scale.starts {
        process::start(nexa, &fresh(folder)?, &mut rounds)?;
    }
    Ok(rounds)
}

/// An empty folder that nobody has used. It goes with the suite's own.
fn fresh(folder: &Path) -> Result<PathBuf, Error> {
    Ok(tempfile::Builder::new().prefix("data-").tempdir_in(folder)?.keep())
}

/// The parts that run in a process of their own, so that it holds nothing else: what `nexa-bench part …` is given.
pub(crate) fn part(words: &[&str]) -> Result<serde_json::Value, Error> {
    match words {
        ["live", count, folder] => memory::live_part(count.parse()?, Path::new(folder)),
        ["dormant", count, folder] => memory::dormant_part(count.parse()?, Path::new(folder)),
        ["start", command @ ..] => process::start_part(command),
        other => Err(format!("there is no part `{}`", other.join(" ")).into()),
    }
}

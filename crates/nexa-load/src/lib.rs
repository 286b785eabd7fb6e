//! Load on a node or a cluster, and what came of it: `nexa load`.
//!
//! In:  a [`run::Settings`]: how many agents of which shape, how they arrive, what the model endpoint does, whether the
//!      node is killed.
//! Out: [`figures::Figures`]: what was lost, wrong, or done twice, and how fast it went; every output is checked.
//!
//! - [`endpoint`]: the simulated model endpoint, with latency, limits and faults from a seed.
//! - [`shape`]: what is submitted, and what must come out of it.
//! - [`drive`]: the open loop that submits.
//! - [`crew`], [`node`], [`servers`], [`sample`]: the processes of nodes, of what a cluster of them needs, and what they use.
//! - [`observe`]: how the server says things stand: sweeps over its lists.
//! - [`history`]: what happened, fact by fact, for the checkers that simulations and the battery of faults use too.
//! - [`shares`]: how much of a limited key was used, and how evenly by tenants.
//! - [`run`]: all of it in order; `judge` compares.
//! - [`report`], [`chart`]: a page and a picture of what came of it.
//! - [`overload`]: another load, of more work than a node takes.
//!
//! Not here: what can be typed and printed (`nexa-cli`, `nexa`).

pub mod chart;
pub mod crew;
pub mod dice;
pub mod drive;
pub mod endpoint;
pub mod figures;
pub mod history;
pub mod node;
pub mod observe;
pub mod overload;
pub mod report;
pub mod run;
pub mod sample;
pub mod servers;
pub mod shape;
pub mod shares;

use std::path::PathBuf;

use nexa_client::ClientError;

/// Why a load could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder cannot be used.
    #[error("the folder {folder} cannot be used")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An earlier run left its data there.
    #[error("{folder} has the data of an earlier run: name another folder, or empty this one")]
    DataThere {
        /// Which.
        folder: PathBuf,
    },
    /// The endpoint cannot be started.
    #[error("the simulated endpoint cannot be started")]
    Endpoint(#[source] std::io::Error),
    /// The node's process failed.
    #[error("the node failed: {why}\n{log}")]
    Node {
        /// What happened.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// A server that the nodes need is not installed.
    #[error("{name} is not installed on this machine: {hint}")]
    Missing {
        /// Which.
        name: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A server that the nodes need failed.
    #[error("{name} failed: {why}\n{log}")]
    Server {
        /// Which.
        name: &'static str,
        /// What happened.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// The server refused, or is away.
    #[error("{doing} failed")]
    Client {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// Somebody wants it to end.
    #[error("stopped before its end")]
    Interrupted,
}

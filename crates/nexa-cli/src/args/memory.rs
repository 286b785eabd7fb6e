//! The arguments of `nexa recall` and `nexa memory`.

use clap::{Args, Subcommand, ValueEnum};

use super::ServerArgs;

pub(super) const RECALL_EXAMPLES: &str = "\
Examples:
  nexa ps WORKLOAD                                    which agents there are
  nexa recall AGENT \"when does the train leave\"
  nexa recall AGENT \"the budget\" --from workload      also what agents beside it share
  nexa recall AGENT \"the budget\" -o json | jq .text";

pub(super) const MEMORY_EXAMPLES: &str = "\
Examples:
  nexa memory stats AGENT              how much it remembers, and how much of that is stored
  nexa memory pages AGENT              its pages, in the order in which they were said
  nexa memory export AGENT -o json     every message, one JSON object a line
  nexa memory forget AGENT             what it said so far is gone for good; the log keeps its history
  nexa memory rebuild                  read the log again: pages that were lost come back";

/// `nexa recall`
#[derive(Debug, Args)]
pub struct RecallArgs {
    /// The agent, as `nexa ps WORKLOAD` lists it.
    pub agent: String,
    /// What to look for, in words.
    pub query: String,
    /// Whose messages may be found.
    #[arg(long, value_enum, default_value = "agent")]
    pub from: RecallFrom,
    /// At most so many messages, up to 200.
    #[arg(short = 'k', long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: u16,
    /// At most about so many tokens of all of them.
    #[arg(long, value_name = "TOKENS")]
    pub tokens: Option<u64>,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Whose messages may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecallFrom {
    /// The agent's own.
    Agent,
    /// Those that agents of its workload share: `memory: { scope: "workload" }`.
    Workload,
    /// Those that agents of the tenant share: `memory: { scope: "tenant" }`.
    Tenant,
}

/// `nexa memory`
#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: MemoryAction,
}

/// What to do with what an agent remembers.
#[derive(Debug, Subcommand)]
pub enum MemoryAction {
    /// Say how much an agent remembers.
    Stats(OfAgent),
    /// List the pages of an agent.
    Pages(PagesArgs),
    /// Print everything that an agent remembers, in the order in which it was said.
    Export(OfAgent),
    /// Forget for good what an agent has said so far, on every node. Its history in the log stays.
    Forget(OfAgent),
    /// Make pages again from the log, on the node that answers. For operators.
    Rebuild(RebuildArgs),
}

/// An agent, and where its server is.
#[derive(Debug, Args)]
pub struct OfAgent {
    /// The agent, as `nexa ps WORKLOAD` lists it.
    pub agent: String,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa memory pages`
#[derive(Debug, Args)]
pub struct PagesArgs {
    /// Whose.
    #[command(flatten)]
    pub of: OfAgent,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
}

/// `nexa memory rebuild`
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

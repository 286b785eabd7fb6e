//! What can be typed after `nexa load`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What `nexa help load` shows last.
pub(super) const LOAD_EXAMPLES: &str = "\
Examples:
  nexa load --agents 10000                      ten thousand agents at once, each with one model call
  nexa load --agents 10000 --kill-at 50%        the same, with kill -9 when half have ended
  nexa load --agents 10000 --nodes 3 --kill-node-at 50%
                                                three nodes on PostgreSQL and etcd, one of which is lost at half-time
  nexa load --agents 3000 --nodes 3 --rate 100 --calls 3 --rolling-restart
                                                the same, restarted one after the other while clients go on
  nexa load --agents 3000 --rate 200            200 a second, by chance; latency counts from when each was due
  nexa load --agents 5000 --shape layers        lists of a thousand agents whose results flow to others
  nexa load --agents 10000 --shape sleepers     agents that sleep, and hear messages in between
  nexa load --agents 2000 --tenants 20 --key-rpm 3000
                                                twenty tenants on one key: how much of it is used, and how evenly";

/// What kind of agents `nexa load` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoadShape {
    /// Each agent a workload of its own, which asks a model about a text.
    Independent,
    /// Lists of up to 1,000 agents in ten layers; the results of one layer flow to the next.
    Layers,
    /// Workloads of three agents, one after the other.
    Pipelines,
    /// Groups of up to 100 agents that mostly sleep, and are passed messages.
    Sleepers,
    /// Small workloads without a model, at half, once, twice and ten times the rate that the node finishes them at. Says how
    /// many are finished at each, how fast the others are refused, and what memory does: first with clients as they are,
    /// which hold back what the server would refuse, then with blunt ones. Takes --stage-s, --seed, --data and --report.
    Overload,
}

/// `nexa load`
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// How many agents.
    #[arg(long, default_value_t = 1_000)]
    pub agents: usize,
    /// How many nodes. For more than one, PostgreSQL and etcd must be installed.
    #[arg(long, default_value_t = 1)]
    pub nodes: usize,
    /// What kind of agents.
    #[arg(long, value_enum, default_value = "independent")]
    pub shape: LoadShape,
    /// Submissions a second, arriving by chance. Default: as fast as they are accepted.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Let them arrive at even distances instead.
    #[arg(long, requires = "rate")]
    pub even: bool,
    /// Give a submission up that the server has no room for, instead of trying it again. For overload.
    #[arg(long)]
    pub give_up: bool,
    /// Kill a node (SIGKILL) when this share of the work has ended: one by itself is started again, of several one is lost.
    ///
    /// A node that is too busy to tell is killed when the model has answered for that share.
    #[arg(long, value_name = "PERCENT", visible_alias = "kill-node-at")]
    pub kill_at: Option<String>,
    /// The same for whichever of several nodes leads then.
    #[arg(long, value_name = "PERCENT", conflicts_with = "kill_at")]
    pub kill_leader_at: Option<String>,
    /// Restart the nodes one after the other (SIGTERM), as an upgrade does, once a tenth of the work was accepted. Needs --nodes.
    ///
    /// Each lets its agents go, ends, is started again under its name and address, and when the others see it ready the next
    /// one follows. Meanwhile clients submit and ask at all doors; a call that fails for good counts. Let the work last: with
    /// --rate, or many --calls.
    #[arg(long, conflicts_with_all = ["kill_at", "kill_leader_at"])]
    pub rolling_restart: bool,
    /// Start nodes again with this binary in the place of this one, as for a newer release.
    #[arg(long, value_name = "FILE", requires = "rolling_restart")]
    pub restart_with: Option<PathBuf>,
    /// Where all chance comes from. The same seed gives the same texts, answers, latencies and faults.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Model calls of an independent agent, one after the other.
    #[arg(long, default_value_t = 1)]
    pub calls: u32,
    /// Bytes of text that an agent is given.
    #[arg(long, default_value_t = 2_048)]
    pub text_bytes: usize,
    /// How often a sleeper sleeps.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// How long a sleeper sleeps each time, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    pub pause_ms: u64,
    /// How long half of the model's answers take at most, in milliseconds.
    #[arg(long, default_value_t = 1_000.0)]
    pub latency_ms: f64,
    /// How far the others are above and below: the deviation of the logarithm.
    #[arg(long, default_value_t = 0.4)]
    pub latency_spread: f64,
    /// How long half of the model's answers are at most, in tokens of four bytes.
    #[arg(long, default_value_t = 32.0)]
    pub answer_tokens: f64,
    /// The share of requests that end with status 500.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub errors: f64,
    /// The share of answers whose connection ends in the middle.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub drops: f64,
    /// Requests a minute that the model's key may make, as the node knows and the endpoint enforces.
    #[arg(long, value_name = "REQUESTS")]
    pub key_rpm: Option<u64>,
    /// Tokens a minute that it may read.
    #[arg(long, value_name = "TOKENS")]
    pub key_tpm: Option<u64>,
    /// Tokens a minute that it may write.
    #[arg(long, value_name = "TOKENS")]
    pub key_otpm: Option<u64>,
    /// Spread the agents over so many tenants, which submit one after the other and share the model's key.
    #[arg(long, default_value_t = 1)]
    pub tenants: usize,
    /// Model calls that a node makes at once. Default: as many as there are agents.
    #[arg(long)]
    pub concurrency: Option<usize>,
    /// Keep settings, data and logs of everything that is started in this folder. Default: a temporary one.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Use this server instead of starting one; repeatable, for the doors of one cluster. Its default model must be at the
    /// simulated endpoint, see --port.
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "kill_at", "kill_leader_at", "rolling_restart", "concurrency", "tenants", "nodes"])]
    pub target: Vec<String>,
    /// A file that holds the token to show to the server of --target.
    #[arg(long, requires = "target")]
    pub token_file: Option<PathBuf>,
    /// Write a report to FILE.md with charts in FILE.svg, and both as one page to FILE.html.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Read the history of every workload, check it, and write it: a line of JSON for each fact and each question of a client.
    ///
    /// Without it only those are read and checked in which something may have been sent twice.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// The port of the simulated endpoint. Default: any free one.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// How long each stage of `overload` takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub stage_s: u64,
    /// Give up when nothing changes for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub patience_s: u64,
}

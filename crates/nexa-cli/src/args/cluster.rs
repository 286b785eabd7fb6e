//! What can be typed to run the nodes of a cluster, and to look after them.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ModelArgs, ServerArgs, TraceArgs};

/// What `nexa help serve` shows last.
pub(super) const SERVE_EXAMPLES: &str = "\
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
    /// The address of the gRPC door, on loopback or unix:PATH; with --tls-cert any. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7070")]
    pub listen: String,
    /// The door's certificate, and with it those between it and its authority's, as PEM; `NODE.pem` of `nexa certs` will do.
    #[arg(long, env = "NEXA_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key to it, as PEM. A secret: keep the file to its owner.
    #[arg(long, env = "NEXA_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Listen also where others can reach the door, without TLS: whoever is between reads and changes what they say, and
    /// their tokens. For networks that something else protects.
    #[arg(long, conflicts_with = "tls_cert")]
    pub listen_without_tls: bool,
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
    /// End in good order when standard input is closed: for whoever starts nodes, and may be killed.
    #[arg(long)]
    pub end_with_input: bool,
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

/// What `nexa help certs` shows last.
pub(super) const CERTS_EXAMPLES: &str = "\
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

/// `nexa formats`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FormatsArgs {
    /// What else than showing them.
    #[command(subcommand)]
    pub action: Option<FormatsAction>,
    /// Where the server is: any node of the cluster.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `nexa formats …`
#[derive(Debug, Subcommand)]
pub enum FormatsAction {
    /// Write a newer format, for good: nodes of releases that do not read it cannot come back.
    ///
    /// Every node has to read it. It is announced at once and written ten seconds later. The command waits for that; when it is
    /// ended before, the cluster goes on with it.
    Raise(RaiseArgs),
}

/// `nexa formats raise`
#[derive(Debug, Args)]
pub struct RaiseArgs {
    /// The format. Default: the newest that every node reads.
    #[arg(long, value_name = "FORMAT", value_parser = clap::value_parser!(u16).range(1..))]
    pub to: Option<u16>,
    /// End once it is announced.
    #[arg(long)]
    pub no_wait: bool,
    /// Where the server is: any node of the cluster.
    #[command(flatten)]
    pub server: ServerArgs,
}

//! `nexa audit`: evidence that the log is whole.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What `nexa help audit` shows last.
pub(super) const AUDIT_EXAMPLES: &str = "\
Examples:
  nexa audit verify --data data
  NEXA_STORE=postgres://nexa@db/nexa nexa audit verify --etcd etcd-1:2379 -o json
  nexa audit accept --data data --why 'put back the copy of Monday: the disk broke'";

/// `nexa audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What to do with the log.
    #[command(subcommand)]
    pub action: AuditAction,
}

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Read everything, and name the first thing that is not what was recorded.
    ///
    /// Checks the chain of every stream, that no position is missing, the root of the whole log at each anchor that is kept
    /// outside it, and that each stream ends where its row says. Changes nothing; nodes may run meanwhile. Ends with 1 if
    /// anything is wrong.
    Verify(LogArgs),
    /// Take the log as it is, though it is not the one that was anchored, so that nodes start on it again.
    ///
    /// For whoever has put an older copy back on purpose. What was recorded after it is given up: agents may do again what they
    /// had done. No node may run. The words of --why stay with the anchors.
    Accept {
        /// Which log.
        #[command(flatten)]
        log: LogArgs,
        /// Why, for whoever reads the anchors later.
        #[arg(long, value_name = "WORDS")]
        why: String,
    },
}

/// Which log, and where its anchors are.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// The data folder of a node by itself; its anchors are in the file beside it that is called as it and `.anchors`.
    /// Without it and without a database it is that of `nexa run`.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The database of a cluster: postgres://USER:PASSWORD@HOST/DATABASE.
    ///
    /// A password is better given by the variable, or in a file: others on this machine can read what was typed.
    #[arg(long, env = "NEXA_STORE", hide_env_values = true, value_name = "URL", conflicts_with = "store_file")]
    pub store: Option<String>,
    /// A file that holds the same.
    #[arg(long, env = "NEXA_STORE_FILE", value_name = "FILE")]
    pub store_file: Option<PathBuf>,
    /// Where etcd is, which keeps the anchors of a cluster; several endpoints with commas between them.
    #[arg(long, env = "NEXA_ETCD", value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub etcd: Vec<String>,
    /// The cluster's name. Default: nexa.
    #[arg(long, env = "NEXA_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
}

//! Who runs the agents: nodes that were started for the purpose with what they need, or servers that were there before.
//!
//! | nodes | what is started |
//! |---|---|
//! | 1 | one `nexa dev` on SQLite |
//! | more | PostgreSQL, etcd, and that many `nexa serve` with certificates of an authority made for the purpose |
//!
//! A node by itself that is killed is started again. One of several is not: its agents go on elsewhere. Nodes that are told to
//! go, one after the other, come again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future;
use tempfile::TempDir;
use tokio::process::Command;

use crate::LoadError;
use crate::endpoint::limits::KeyLimits;
use crate::node::{Member, Node, NodePlan};
use crate::servers::Servers;

/// Who runs the agents.
#[derive(Debug, Clone)]
pub enum Server {
    /// Nodes of this binary, started for the purpose; in this folder, or in a temporary one.
    Own {
        /// The binary.
        exe: PathBuf,
        /// The folder.
        folder: Option<PathBuf>,
        /// How many.
        nodes: usize,
    },
    /// Servers that run already, whose models are at the endpoint's address: doors of one cluster.
    Target {
        /// Each as `--server` takes it; at least one.
        addresses: Vec<String>,
        /// Their token, if they want one.
        token: Option<String>,
    },
}

/// What all nodes that are started have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// The URL of the endpoint.
    pub endpoint: String,
    /// Model calls at once, of each.
    pub concurrency: usize,
    /// The limits of the key.
    pub limits: KeyLimits,
    /// The tokens of the tenants.
    pub tokens: Vec<String>,
    /// How long a node of several may take to let its agents go.
    pub grace: Duration,
}

/// A node that was killed.
#[derive(Debug, Clone)]
pub struct Killed {
    /// Its name, if it was one of several.
    pub node: Option<String>,
    /// How long it took until it served again, if it was by itself.
    pub restart: Option<Duration>,
}

/// Who runs the agents, while they do.
pub struct Crew {
    nodes: Vec<Node>,
    /// Which of them was killed, and stays away.
    lost: Option<usize>,
    servers: Option<Servers>,
    addresses: Vec<String>,
    folder: Option<PathBuf>,
    /// Gone with the value, unless the data was asked to stay.
    _temporary: Option<TempDir>,
}

impl Crew {
    /// Starts what is to be started.
    ///
    /// # Errors
    /// [`LoadError`]; what was started until then is ended.
    pub async fn gather(server: &Server, common: Common, told: &dyn Fn(&str)) -> Result<Self, LoadError> {
        let (exe, folder, count) = match server {
            Server::Target { addresses, .. } => {
                told(&format!("the models of {} must be at {}", addresses.join(", "), common.endpoint));
                let addresses = addresses.clone();
                return Ok(Self {
                    nodes: Vec::new(),
                    lost: None,
                    servers: None,
                    addresses,
                    folder: None,
                    _temporary: None,
                });
            }
            Server::Own { exe, folder, nodes } => (exe, folder, *nodes),
        };
        let mut temporary = None;
        let folder = match folder {
            Some(folder) => folder.clone(),
            None => {
                let made = tempfile::Builder::new().prefix("nexa-load").tempdir();
                let made = made.map_err(|source| LoadError::Folder { folder: std::env::temp_dir(), source })?;
                temporary.insert(made).path().to_path_buf()
            }
        };
        let plan = |folder: PathBuf, member: Option<Member>| NodePlan {
            exe: exe.clone(),
            folder,
            endpoint: common.endpoint.clone(),
            // Of one node; what an endpoint takes is for all nodes of a cluster together.
            concurrency: common.concurrency.saturating_mul(count),
            limits: common.limits,
            tokens: common.tokens.clone(),
            member,
        };
        let (nodes, servers) = if count == 1 {
            (vec![plan(folder.clone(), None).start().await?], None)
        } else {
            let (members, servers) = prepare(exe, &folder, count, common.grace).await?;
            let starts = members.into_iter().map(|member| plan(folder.join(&member.name), Some(member)).start());
            (future::try_join_all(starts).await?, Some(servers))
        };
        if let Some(servers) = &servers {
            told(&format!("etcd answers at {}", servers.etcd()));
        }
        for node in &nodes {
            let (name, pid) = (node.name().unwrap_or("the node"), node.pid().unwrap_or_default());
            told(&format!(
                "{name} is process {pid} and serves at {}, from {}",
                node.address(),
                node.folder().display()
            ));
        }
        let addresses = nodes.iter().map(|node| node.address().to_owned()).collect();
        Ok(Self { nodes, lost: None, servers, addresses, folder: Some(folder), _temporary: temporary })
    }

    /// How to reach each, as `--server` takes it.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The processes of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.running().filter_map(|(_, node)| node.pid()).collect()
    }

    /// The folder with everything that was started.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The URL of the database that several nodes share, with its password.
    pub fn store(&self) -> Option<&str> {
        self.servers.as_ref().map(Servers::store)
    }

    /// How many nodes were started; 0 if they were there before.
    pub fn started(&self) -> usize {
        self.nodes.len()
    }

    /// The place of a node among those that were started.
    pub fn which(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name() == Some(name))
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(index, _)| self.lost != Some(*index))
    }

    /// Whether something has ended by itself, and what its log says then.
    pub fn have_failed(&mut self) -> Option<LoadError> {
        let lost = self.lost;
        let nodes = self.nodes.iter_mut().enumerate().filter(|(index, _)| lost != Some(*index));
        nodes.filter_map(|(_, node)| node.has_failed()).next().or_else(|| self.servers.as_mut()?.have_failed())
    }

    /// `kill -9` of one of the nodes. One by itself is started again.
    ///
    /// # Errors
    /// [`LoadError::Node`] if it cannot be killed, or does not come again.
    pub async fn kill(&mut self, which: usize) -> Result<Killed, LoadError> {
        let is_alone = self.nodes.len() == 1;
        let Some(node) = self.nodes.get_mut(which) else {
            return Err(LoadError::Node { why: "there is none to kill".to_owned(), log: String::new() });
        };
        let began = Instant::now();
        node.kill().await?;
        if is_alone {
            node.restart().await?;
            return Ok(Killed { node: None, restart: Some(began.elapsed()) });
        }
        self.lost = Some(which);
        Ok(Killed { node: self.nodes[which].name().map(str::to_owned), restart: None })
    }

    /// Starts the node again that was killed of several.
    ///
    /// # Errors
    /// [`LoadError::Node`] if it does not serve in time.
    pub async fn bring_back(&mut self) -> Result<(), LoadError> {
        if let Some(node) = self.lost.take().and_then(|lost| self.nodes.get_mut(lost)) {
            node.restart().await?;
        }
        Ok(())
    }

    /// Tells one of several nodes to go, and waits until it has; see [`Node::let_go`].
    ///
    /// # Errors
    /// [`LoadError::Node`] if it does not end well.
    pub async fn let_go(&mut self, which: usize) -> Result<(), LoadError> {
        let node = &mut self.nodes[which];
        node.let_go().await?;
        self.lost = Some(which);
        Ok(())
    }

    /// A node that is there, or was.
    pub fn node(&mut self, which: usize) -> &mut Node {
        &mut self.nodes[which]
    }

    /// Asks everybody to stop, nodes before what they need, and waits until they have.
    pub async fn stop(self) {
        future::join_all(self.nodes.into_iter().map(Node::stop)).await;
        if let Some(servers) = self.servers {
            servers.stop().await;
        }
    }
}

/// Starts what nodes of a cluster need, and says what each is told.
async fn prepare(
    exe: &Path,
    folder: &Path,
    count: usize,
    grace: Duration,
) -> Result<(Vec<Member>, Servers), LoadError> {
    let unusable = |source| LoadError::Folder { folder: folder.to_path_buf(), source };
    std::fs::create_dir_all(folder).map_err(unusable)?;
    if folder.join("postgres").exists() {
        return Err(LoadError::DataThere { folder: folder.to_path_buf() });
    }
    let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
    let certs = folder.join("pki");
    certificates(exe, &certs, &names).await?;
    let servers = Servers::start(folder, count).await?;
    let member = |name: String| Member {
        name,
        store: servers.store().to_owned(),
        etcd: servers.etcd().to_owned(),
        certs: certs.clone(),
        grace,
    };
    Ok((names.into_iter().map(member).collect(), servers))
}

/// An authority and the nodes' certificates, as anybody would make them.
async fn certificates(exe: &Path, folder: &Path, names: &[String]) -> Result<(), LoadError> {
    let failed =
        |why: String| LoadError::Node { why: format!("there are no certificates for it: {why}"), log: String::new() };
    let mut command = Command::new(exe);
    command.args(["certs", "--out"]).arg(folder).args(names).stdin(Stdio::null());
    let made = command.output().await.map_err(|error| failed(error.to_string()))?;
    match made.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&made.stderr).trim().to_owned())),
    }
}

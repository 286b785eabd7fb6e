//! A node among others: its links, its lease, the node itself, the cluster's side of it, and its door.
//!
//! In this order, because each needs the one before: links say where others reach the node, its lease says which run of it
//! this is, and only a node with a lease may take up what an earlier run has left.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nexa_cli::failure::{Exit, Failure};
use nexa_cluster::certs::Identity;
use nexa_cluster::link::{LinkConfig, TonicPeers};
use nexa_cluster::{Cluster, ClusterConfig, ClusterError, ClusterPorts, Heart, Relay};
use nexa_gateway::doors::Bound;
use nexa_gateway::fleet::{Fleet, FleetError, FormatsView, NodeLoad, NodeState, NodeView};
use nexa_gateway::mediator::Tokens;
use nexa_member::leader::{Limits, Mark};
use nexa_member::say::Refused;
use nexa_ports::audit::Anchors;
use nexa_ports::membership::{Membership, NodeCard};
use nexa_ports::model::Model;
use nexa_runtime::fence::Leased;
use nexa_runtime::{NodeConfig, Ports};
use nexa_telemetry::Probes;
use nexa_types::{AgentId, NodeId, PrincipalId};

use crate::anchoring::{Anchoring, ClusterLog};
use crate::backend::Backend;
use crate::chain;
use crate::config::Project;
use crate::remembering;
use crate::wiring::{self, Before, Porch, Wired};

/// How long calls under way have to end once the agents have left.
const GRACE: Duration = Duration::from_secs(5);
/// Threads of a node's links beside the one for control.
const LINK_THREADS: usize = 2;

/// What it takes to be one of a cluster.
pub(crate) struct Joining<'a> {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The node's name.
    pub(crate) name: NodeId,
    /// Its certificate.
    pub(crate) identity: Identity,
    /// Where it listens for other nodes.
    pub(crate) link: SocketAddr,
    /// The host that others are told in the place of the one that it listens on.
    pub(crate) advertise: Option<String>,
    /// What it says of itself.
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    /// Agents that it takes.
    pub(crate) agents_max: u64,
    /// Its lease.
    pub(crate) membership: Arc<dyn Membership>,
    /// What all nodes keep things in.
    pub(crate) backend: Backend,
    /// Where anchors of its log are kept; `None` where somebody else anchors it.
    pub(crate) anchors: Option<Arc<dyn Anchors>>,
    /// Its models.
    pub(crate) model: Arc<dyn Model>,
    /// Who may come in.
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// Its door.
    pub(crate) door: Bound,
    /// The door's threads.
    pub(crate) porch: Arc<Porch>,
    /// Everything else that is set.
    pub(crate) project: &'a Project,
}

/// A node among others, with a door before it.
pub(crate) struct Among {
    wired: Wired,
    cluster: Cluster,
    anchoring: Option<Anchoring>,
    /// Closed after the cluster.
    links: Arc<TonicPeers>,
}

/// Makes a node one of a cluster.
pub(crate) async fn join(joining: Joining<'_>) -> Result<Among, Failure> {
    let Joining { cluster, name, identity, link, advertise, labels, agents_max, .. } = &joining;
    let ports = wiring::ports(&joining.backend, joining.project, Arc::clone(&joining.model))?;
    let log = joining.anchors.as_ref().map(|anchors| ClusterLog {
        log: Arc::clone(&joining.backend.audit),
        anchors: Arc::clone(anchors),
        membership: Arc::clone(&joining.membership),
        name: cluster.clone(),
    });
    if let Some(log) = &log {
        log.check().await?;
    }
    let relay = Relay::new();
    let links = LinkConfig {
        cluster: cluster.clone(),
        node: name.clone(),
        identity: identity.clone(),
        listen: *link,
        threads: LINK_THREADS,
        clock: Arc::clone(&ports.clock),
        dice: Arc::clone(&ports.dice),
        on_undelivered: None,
    };
    let links = TonicPeers::start(links, &relay).map_err(|error| Failure::error(chain(&error)))?;
    let links = Arc::new(links);
    let config = wiring::node_config(name.clone(), joining.project)?;
    let reached = |address: String| match advertise {
        Some(host) => told_as(&address, host),
        None => address,
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let reads = joining.backend.writing.reads();
    let card = NodeCard {
        id: name.clone(),
        door: reached(joining.door.address()),
        link: reached(links.local_addr().to_string()),
        labels: labels.clone(),
        cpu_milli: cores as u64 * 1_000,
        memory_bytes: config.memory_max.unwrap_or_else(memory_of_this_machine),
        agents_max: *agents_max,
        build: BUILD.to_owned(),
        formats: (reads.oldest, reads.newest),
    };
    let membership = Arc::clone(&joining.membership);
    let generation = membership.join(card.clone()).await.map_err(|error| Failure::error(chain(&error)))?;
    let ports =
        Ports { neighbours: Arc::clone(&relay) as _, fence: Arc::new(Leased(Arc::clone(&membership))), ..ports };
    match come_in(&joining, card, relay, &links, config, &ports).await {
        Ok((cluster, node)) => {
            let seen = Arc::new(Seen(cluster.clone()));
            let of = remembering::Of { node: &joining.name, data: None, models: None };
            let remembrance = remembering::start(of, joining.project, &ports, &joining.backend.writing).await?;
            let neighbours = Some(cluster.neighbours());
            let before = Before { tokens: joining.tokens, fleet: seen, neighbours, remembrance };
            let wired = wiring::open(node, joining.backend, &ports, before, joining.door, joining.porch).await?;
            let clock = Arc::clone(&ports.clock);
            let anchoring = log.map(|log| Anchoring::of_leader(log, cluster.id().clone(), generation, clock));
            Ok(Among { wired, cluster, anchoring, links })
        }
        Err(failure) => {
            // Nobody should wait for the lease of a node that never was there.
            if let Err(error) = membership.leave().await {
                tracing::warn!(%error, "the lease of a node that did not start was not given back; it ends by itself");
            }
            Err(failure)
        }
    }
}

/// What follows once the node has a lease.
async fn come_in(
    joining: &Joining<'_>,
    card: NodeCard,
    relay: Arc<Relay>,
    links: &Arc<TonicPeers>,
    config: NodeConfig,
    ports: &Ports,
) -> Result<(Cluster, nexa_runtime::Node), Failure> {
    // Before it takes up anything.
    let agreed = nexa_cluster::formats::agree(&*joining.backend.leadership, &joining.backend.writing).await;
    agreed.map_err(|error| Failure::error(chain(&error)))?;
    let leased =
        joining.project.providers.iter().map(|(name, provider)| nexa_runtime::budget_of(name, provider.limits()));
    let config = NodeConfig { others: true, leased: leased.collect(), ..config };
    let node = wiring::start(config, ports.clone()).await?;
    let config = ClusterConfig { card, may_lead: true, limits: Limits::default(), heart: Heart::Thread };
    let cluster = ClusterPorts {
        host: Arc::new(node.clone()),
        relay,
        store: Arc::clone(&joining.backend.store),
        leadership: Arc::clone(&joining.backend.leadership),
        membership: Arc::clone(&joining.membership),
        peers: Arc::clone(links) as _,
        clock: Arc::clone(&ports.clock),
        dice: Arc::clone(&ports.dice),
        writing: joining.backend.writing.clone(),
    };
    let cluster = Cluster::start(config, cluster).await.map_err(|error| Failure::error(chain(&error)))?;
    Ok((cluster, node))
}

impl Among {
    /// How clients reach it, as `--server` takes it.
    pub(crate) fn address(&self) -> &str {
        &self.wired.address
    }

    /// Where it listens for other nodes, as `--link` takes it.
    pub(crate) fn link(&self) -> String {
        self.links.local_addr().to_string()
    }

    /// What monitors may ask; see [`Wired::probes`].
    pub(crate) fn probes(&self) -> Probes {
        let cluster = self.cluster.clone();
        let name = Some(cluster.id().to_string());
        Probes { name, cluster: Some(Box::new(move || cluster.stats())), ..self.wired.probes() }
    }

    /// Waits until the node cannot go on; gives what to tell the user.
    pub(crate) async fn failed(&self) -> Failure {
        let broken = async {
            match &self.anchoring {
                Some(anchoring) => anchoring.broken().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            failure = self.wired.failed() => failure,
            failure = broken => failure,
            unreadable = self.cluster.is_outdated() => Failure::error(unreadable.to_string()),
            () = self.cluster.over() => {
                let message = "the node's lease has ended: its agents belong to other nodes by now, and whatever it tries is \
                               refused";
                let failure = Failure { exit: Exit::LeaseLost, ..Failure::error(message) };
                failure.hint("start it again: it comes back as a new run of itself")
            }
        }
    }

    /// Takes no new work from here on, has its agents move to the others, gives its lease back, and stops: at the latest
    /// after `within`, and the time that calls under way have to end.
    pub(crate) async fn leave(self, within: Duration) {
        self.wired.close_to_work();
        if let Err(error) = self.cluster.leave(within).await {
            tracing::warn!(%error, "the lease could not be given back; it ends by itself");
        }
        if let Some(anchoring) = self.anchoring {
            anchoring.stop().await;
        }
        self.wired.stop_within(GRACE.min(within)).await;
    }

    /// Stops without moving anything, as when all nodes end together. What was in flight goes on at the next start.
    pub(crate) async fn stop(self, within: Duration) {
        self.wired.close_to_work();
        self.wired.stop_within(within).await;
        if let Err(error) = self.cluster.leave(Duration::ZERO).await {
            tracing::warn!(%error, "the lease could not be given back; it ends by itself");
        }
    }
}

/// What a node shows and by what it judges others, from the files of a folder as `nexa certs` writes them.
pub(crate) fn identity(folder: &Path, node: &NodeId) -> Result<Identity, Failure> {
    let read = |name: String| {
        let file = folder.join(name);
        std::fs::read_to_string(&file).map_err(|error| {
            Failure::error(format!("cannot read {}: {error}", file.display()))
                .hint(format!("`nexa certs --out {} {node}` makes what is missing there", folder.display()))
        })
    };
    Ok(Identity {
        certificate: read(format!("{node}.pem"))?,
        key: read(format!("{node}.key"))?,
        authority: read("ca.pem".to_owned())?,
    })
}

/// The version of this build, as nodes show it.
const BUILD: &str = match cfg!(feature = "next-format") {
    true => concat!(env!("CARGO_PKG_VERSION"), "+next"),
    false => env!("CARGO_PKG_VERSION"),
};

/// An address with another host.
fn told_as(address: &str, host: &str) -> String {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let Some((_, port)) = rest.rsplit_once(':').filter(|_| scheme != "unix" && !address.starts_with("unix:")) else {
        return address.to_owned();
    };
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    if scheme.is_empty() { format!("{host}:{port}") } else { format!("{scheme}://{host}:{port}") }
}

/// All memory of this machine, in bytes.
fn memory_of_this_machine() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

/// The cluster as operators see it through a door.
struct Seen(Cluster);

impl Seen {
    fn view(&self, seen: nexa_cluster::NodeView) -> NodeView {
        let nexa_cluster::NodeView { member, mark, load, leads, is_suspected, is_lonely } = seen;
        let NodeCard { id, door, link, labels, cpu_milli, memory_bytes, build, .. } = member.card;
        let is_empty = load.is_some_and(|load| load.agents == 0);
        let state = match mark {
            _ if is_suspected || is_lonely => NodeState::Suspected,
            Mark::Draining if is_empty => NodeState::Drained,
            Mark::Draining => NodeState::Draining,
            Mark::Cordoned => NodeState::Cordoned,
            Mark::Resting(_) => NodeState::Resting,
            Mark::Open => NodeState::Ready,
        };
        let load = load.map(|load| NodeLoad {
            agents: load.agents,
            live: load.live,
            at_work: load.at_work,
            compute_waiting: load.run_queue,
            model_calls: load.model_calls,
            // It is told as a part of what the node may use.
            resident_bytes: (u128::from(load.memory) * u128::from(memory_bytes) / 1_000_000) as u64,
            lag_ms: load.lag.0,
        });
        NodeView {
            is_self: id == *self.0.id(),
            id,
            generation: member.generation.0,
            state,
            is_leader: leads,
            door,
            link,
            build,
            labels,
            cpu_milli,
            memory_bytes,
            load,
        }
    }
}

/// What an error of the cluster is to an operator who asked about a node.
fn told(error: ClusterError, node: Option<&NodeId>) -> FleetError {
    match error {
        ClusterError::NoLeader => FleetError::NoLeader,
        ClusterError::NoAnswer => FleetError::NoAnswer,
        ClusterError::NoSuchAgent => {
            FleetError::Busy { what: "the agent has no node yet, or has just ended".to_owned() }
        }
        ClusterError::Store(error) => FleetError::Store(error),
        ClusterError::Refused(refused) => match (&refused, node) {
            (Refused::NotLeading, _) => FleetError::NoLeader,
            (Refused::NoSuchNode, Some(node)) => FleetError::NoSuchNode { node: node.clone() },
            (Refused::Busy, _) => FleetError::Busy { what: refused.to_string() },
            (
                Refused::NoSuchNode
                | Refused::NotOpen
                | Refused::NoRoom
                | Refused::Failed
                | Refused::Lacks
                | Refused::Unread { .. },
                _,
            ) => FleetError::Unfit { why: refused.to_string() },
        },
    }
}

impl Fleet for Seen {
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeView>, FleetError>> {
        async { Ok(self.0.nodes().await?.into_iter().map(|seen| self.view(seen)).collect()) }.boxed()
    }

    fn cordon<'a>(&'a self, node: &'a NodeId, undo: bool) -> BoxFuture<'a, Result<(), FleetError>> {
        async move { self.0.cordon(node.clone(), !undo).await.map_err(|error| told(error, Some(node))) }.boxed()
    }

    fn drain<'a>(&'a self, node: &'a NodeId) -> BoxFuture<'a, Result<(), FleetError>> {
        async move { self.0.drain(node.clone()).await.map_err(|error| told(error, Some(node))) }.boxed()
    }

    fn migrate(&self, agent: AgentId, to: Option<NodeId>) -> BoxFuture<'_, Result<(), FleetError>> {
        async move { self.0.migrate(agent, to.clone()).await.map_err(|error| told(error, to.as_ref())) }.boxed()
    }

    fn rebalance(&self) -> BoxFuture<'_, Result<(), FleetError>> {
        async { self.0.rebalance().await.map_err(|error| told(error, None)) }.boxed()
    }

    fn formats(&self) -> BoxFuture<'_, Result<FormatsView, FleetError>> {
        async {
            let (floor, reads) = self.0.formats().await?;
            Ok(FormatsView { floor, reads })
        }
        .boxed()
    }

    fn raise_format(&self, format: u16, by: PrincipalId) -> BoxFuture<'_, Result<(), FleetError>> {
        async move {
            self.0.raise_format(format, by).await.map_err(|error| match error {
                ClusterError::Refused(why @ Refused::Unread { .. }) => {
                    FleetError::Unread { format, why: why.to_string() }
                }
                ClusterError::Refused(why @ Refused::Failed) => FleetError::Busy { what: why.to_string() },
                error => told(error, None),
            })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_its_files_is_told_how_to_get_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = identity(folder.path(), &NodeId::new("a").expect("a name")).expect_err("none").to_string();
        assert!(refused.contains("a.pem") && refused.contains("nexa certs --out"), "{refused}");
    }

    #[test]
    fn others_are_told_the_host_that_they_reach() {
        assert_eq!(told_as("http://0.0.0.0:7070", "n1.example.org"), "http://n1.example.org:7070");
        assert_eq!(told_as("0.0.0.0:7071", "10.0.0.7"), "10.0.0.7:7071");
        assert_eq!(told_as("[::]:7071", "::1"), "[::1]:7071");
        assert_eq!(told_as("unix:/run/nexa.sock", "10.0.0.7"), "unix:/run/nexa.sock");
    }
}

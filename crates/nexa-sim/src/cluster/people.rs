//! What people do to a simulated cluster: they have a node take nothing new, or move away what it has, or leave and come back.
//! An order is given again until somebody obeys it, and taken back when its time is over, also after that if need be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nexa_cluster::{Cluster, ClusterError};
use nexa_ports::clock::Clock;
use nexa_runtime::Node;
use nexa_types::{Millis, NodeId, Timestamp};

use super::process::{VirtualClock, lock};
use super::store::Server;
use super::trace::Trace;

/// Between two tries.
const TRY_AGAIN: Millis = Millis(500);
/// For so long an answer is waited for: who was asked may be dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// How long a node may take to leave: to have its agents move, and then to stop.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// See [`LEAVE_WITHIN`].
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// The people.
#[derive(Clone)]
pub(super) struct People {
    pub(super) clock: Arc<VirtualClock>,
    pub(super) trace: Arc<Trace>,
    pub(super) server: Arc<Server>,
    /// Whom they can ask.
    pub(super) clusters: Arc<Mutex<BTreeMap<NodeId, Cluster>>>,
    /// Nodes of which something is wanted, or not taken back yet, and what: one thing at a time.
    pub(super) busy: Arc<Mutex<BTreeMap<NodeId, &'static str>>>,
}

impl People {
    /// Has a node take nothing new, or also move away what it has, until then.
    pub(super) fn shut(&self, node: NodeId, drains: bool, until: Timestamp) {
        if !self
            .want(&node, if drains { "drain, and take new work again" } else { "be cordoned, and take new work again" })
        {
            return;
        }
        let people = self.clone();
        tokio::spawn(async move {
            let mut is_shut = false;
            while !is_shut && people.clock.now() < until {
                is_shut = people.order(&node, drains, true).await;
            }
            if is_shut {
                people.server.shuts(&node, true);
                people.clock.wait_until(until).await;
            }
            people.server.shuts(&node, false);
            // Also if nobody has answered: it may have been done.
            while !people.order(&node, false, false).await {}
            lock(&people.busy).remove(&node);
        });
    }

    /// Has a node leave in good order, as one does that is told to stop; `over` tells whoever looks after its process.
    pub(super) fn leave(&self, name: NodeId, cluster: Cluster, node: Node, over: impl FnOnce() + Send + 'static) {
        if !self.want(&name, "leave") {
            return;
        }
        lock(&self.clusters).remove(&name);
        let people = self.clone();
        tokio::spawn(async move {
            let leaves = async {
                let left = cluster.leave(LEAVE_WITHIN).await.is_ok();
                node.drain(DRAIN_WITHIN).await;
                people.trace.note("left", format_args!("{name}: {left}"));
                over();
            };
            // It may be killed meanwhile, and does nothing any more.
            let _ = tokio::time::timeout(2 * (LEAVE_WITHIN + DRAIN_WITHIN), leaves).await;
            lock(&people.busy).remove(&name);
        });
    }

    /// Whether that may be wanted of it now.
    fn want(&self, node: &NodeId, what: &'static str) -> bool {
        let mut busy = lock(&self.busy);
        let is_free = !busy.contains_key(node);
        if is_free {
            busy.insert(node.clone(), what);
        }
        is_free
    }

    /// Gives an order to whoever answers; whether it was obeyed.
    async fn order(&self, node: &NodeId, drains: bool, on: bool) -> bool {
        let clusters: Vec<Cluster> = lock(&self.clusters).values().cloned().collect();
        for cluster in clusters {
            let order = async {
                match (drains, on) {
                    (true, true) => cluster.drain(node.clone()).await,
                    _ => cluster.cordon(node.clone(), on).await,
                }
            };
            let answer: Option<Result<(), ClusterError>> = tokio::time::timeout(ANSWER_WITHIN, order).await.ok();
            let is_done = matches!(answer, Some(Ok(())));
            self.trace.note("order", format_args!("{node} drains {drains} on {on}: {is_done}"));
            if is_done {
                return true;
            }
        }
        self.clock.wait_until(self.clock.now().after(TRY_AGAIN)).await;
        false
    }
}

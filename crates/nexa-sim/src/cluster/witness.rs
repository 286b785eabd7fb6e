//! A process's way to the membership service, which sees whose lease it ends.
//!
//! Checked here:
//!   MB-2  a lease is ended by others only when the process that holds it is gone

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use nexa_ports::membership::{Members, Membership, MembershipError, NodeCard, Setting, Standing};
use nexa_types::{Generation, NodeId, Timestamp};
use tokio::sync::watch;

use super::process::{Process, lock};
use super::trace::Trace;

/// The process behind each run of a node.
#[derive(Default)]
pub(super) struct Runs {
    runs: Mutex<BTreeMap<(NodeId, Generation), Arc<Process>>>,
}

/// One process's connection.
pub(super) struct Witness {
    pub(super) membership: Arc<dyn Membership>,
    pub(super) runs: Arc<Runs>,
    pub(super) process: Arc<Process>,
    pub(super) trace: Arc<Trace>,
}

impl Membership for Witness {
    fn join(&self, card: NodeCard) -> BoxFuture<'_, Result<Generation, MembershipError>> {
        Box::pin(async move {
            let node = card.id.clone();
            let generation = self.membership.join(card).await?;
            lock(&self.runs.runs).insert((node, generation), self.process.clone());
            Ok(generation)
        })
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), MembershipError>> {
        self.membership.leave()
    }

    fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.membership.members()
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.membership.standing()
    }

    fn now(&self) -> Timestamp {
        self.membership.now()
    }

    fn campaign(&self, wants: bool) {
        self.membership.campaign(wants);
    }

    fn end_lease(&self, node: NodeId, generation: Generation) -> BoxFuture<'_, Result<bool, MembershipError>> {
        let is_there = lock(&self.runs.runs).get(&(node.clone(), generation)).is_some_and(|it| !it.is_dead());
        if is_there && self.process.runs() {
            self.trace
                .violated("MB-2", format!("the lease of {node}, run {generation}, is ended, and its process is there"));
        }
        self.membership.end_lease(node, generation)
    }

    fn run_of(&self, node: NodeId) -> BoxFuture<'_, Result<Option<Generation>, MembershipError>> {
        self.membership.run_of(node)
    }

    fn setting(&self, name: String) -> BoxFuture<'_, Result<Setting, MembershipError>> {
        self.membership.setting(name)
    }

    fn put_setting(
        &self,
        name: String,
        expected: u64,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Option<u64>, MembershipError>> {
        self.membership.put_setting(name, expected, value)
    }
}

//! Nodes: list, watch, cordon, drain, rebalance; which agent is where: migrate; and in which format they write.
//!
//! Who may ask was judged before: operators only, whosesoever the agent is.

use std::time::Duration;

use futures::stream;
use nexa_proto::refusal::Refusal;
use nexa_types::{Millis, NodeId, Reason};

use super::{By, Handlers, overloaded, store_refusal};
use crate::fleet::{FleetError, FormatsView, NodeView};
use crate::mediator::{Cordon, Drain, Frames, Migrate, RaiseFormat};

/// Between two looks of a watch.
const WATCH_EVERY: Millis = Millis(1_000);
/// When to come back after a change of leader: about as long as one takes.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

impl Handlers {
    pub(super) async fn list_nodes(&self) -> Result<Vec<NodeView>, Refusal> {
        self.fleet.nodes().await.map_err(fleet_refusal)
    }

    pub(super) async fn migrate(&self, migrate: Migrate) -> Result<NodeId, Refusal> {
        let Migrate { agent, to } = migrate;
        let row = self.store.row(agent).await.map_err(store_refusal)?;
        let row = row.ok_or_else(|| Refusal::not_found("agent", agent))?;
        if row.state.is_terminal() {
            return Err(Refusal::new(Reason::AlreadyEnded, "the agent has ended").about("agent", agent));
        }
        if let Some(there) = row.node.filter(|node| to.as_ref() == Some(node)) {
            // It is as it is to be; a lost answer is asked for again like this.
            return Ok(there);
        }
        self.fleet.migrate(agent, to.clone()).await.map_err(|error| match error {
            FleetError::NoSuchAgent => Refusal::not_found("agent", agent),
            FleetError::Ended => Refusal::new(Reason::AlreadyEnded, "the agent has ended").about("agent", agent),
            error => fleet_refusal(error),
        })?;
        let now = self.store.row(agent).await.map_err(store_refusal)?.and_then(|row| row.node);
        now.or(to).ok_or_else(|| overloaded("the agent has moved, and is on its way once more"))
    }

    pub(super) async fn cordon(&self, cordon: Cordon) -> Result<(), Refusal> {
        self.fleet.cordon(&cordon.node, cordon.undo).await.map_err(fleet_refusal)
    }

    pub(super) async fn drain(&self, drain: Drain) -> Result<(), Refusal> {
        self.fleet.drain(&drain.node).await.map_err(fleet_refusal)
    }

    pub(super) async fn rebalance(&self) -> Result<(), Refusal> {
        self.fleet.rebalance().await.map_err(fleet_refusal)
    }

    pub(super) async fn list_formats(&self) -> Result<FormatsView, Refusal> {
        self.fleet.formats().await.map_err(fleet_refusal)
    }

    pub(super) async fn raise_format(&self, by: &By, raise: RaiseFormat) -> Result<(), Refusal> {
        let by = by.identity.principal.clone();
        self.fleet.raise_format(raise.format, by).await.map_err(fleet_refusal)
    }

    /// A list at once, then one whenever something has changed between two looks.
    pub(super) fn watch_nodes(&self) -> Result<Frames<Vec<NodeView>>, Refusal> {
        let permit = self.may_stream()?;
        let state = (self.clone(), None::<Vec<NodeView>>, permit);
        Ok(Frames::new(stream::try_unfold(state, |(handlers, mut last, permit)| async move {
            loop {
                if last.is_some() {
                    let next = handlers.clock.now().after(WATCH_EVERY);
                    tokio::select! {
                        biased;
                        () = handlers.closing.cancelled() => {}
                        () = handlers.clock.wait_until(next) => {}
                    }
                }
                handlers.still_open()?;
                let nodes = handlers.list_nodes().await?;
                if last.as_ref() != Some(&nodes) {
                    last = Some(nodes.clone());
                    return Ok(Some((nodes, (handlers, last, permit))));
                }
            }
        })))
    }
}

/// What a cluster's error means to a caller.
pub(super) fn fleet_refusal(error: FleetError) -> Refusal {
    let message = error.to_string();
    match error {
        FleetError::NoSuchNode { node } => Refusal::not_found("node", node).hint("`nexa nodes` lists them"),
        FleetError::NoSuchAgent => Refusal::new(Reason::NotFound, message),
        FleetError::Ended => Refusal::new(Reason::AlreadyEnded, message),
        FleetError::Alone => Refusal::new(Reason::NoNode, message).hint("start more of them: see docs/cluster.md"),
        FleetError::Unfit { .. } => {
            Refusal::new(Reason::NoNode, message).hint("`nexa nodes` says how the others stand")
        }
        FleetError::NoLeader => Refusal::new(Reason::NoLeader, message)
            .hint("one is elected within seconds: ask again")
            .after(COME_BACK_AFTER),
        FleetError::NoAnswer => Refusal::new(Reason::DeadlineExceeded, message)
            .hint("look with `nexa nodes` and `nexa ps` whether it was, before asking again"),
        FleetError::Busy { .. } => overloaded(message),
        FleetError::Unread { .. } => Refusal::new(Reason::Unread, message)
            .hint("upgrade that node, or take it away, and ask again; `nexa formats` says what each reads"),
        FleetError::Store(error) => store_refusal(error),
    }
}

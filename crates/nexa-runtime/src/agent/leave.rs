//! Out of memory: for want of something to do, for room, at the node's end, or to another node. Snapshots are taken here.

use nexa_agent::snapshot_is_due;
use tracing::{debug, warn};

use super::{AgentActor, Body, Loaded};
use crate::bounded::{Fault, Then};

impl AgentActor {
    /// Nothing to do: waits in memory, or leaves it.
    pub(super) async fn rest(&self, body: &mut Body, loaded: Box<Loaded>) -> Result<Then, Fault> {
        let cost = loaded.version.0 - loaded.snapshot_version.0;
        let wants_to_send = loaded.wish.is_some() || loaded.lost.is_some();
        body.loaded = Some(loaded);
        let draining = self.core.residency.is_draining();
        if draining && !self.core.models.is_in_flight_for(self.seat.agent) {
            self.core.models.withdraw(self.seat.agent);
            return self.sleep(body).await;
        }
        if !draining && !wants_to_send && !self.core.models.is_busy_for(self.seat.agent) {
            self.core.residency.idle(&self.seat, cost, self.core.clock.now());
        }
        Ok(Then::GoOn)
    }

    /// Leaves memory, unless there is something to do. What it knows stands in the store.
    pub(super) async fn sleep(&self, body: &mut Body) -> Result<Then, Fault> {
        if body.kept.is_some() || self.core.models.is_busy_for(self.seat.agent) {
            return Ok(Then::GoOn);
        }
        let Some(loaded) = &mut body.loaded else { return Ok(Then::GoOn) };
        let draining = self.core.residency.is_draining();
        let has_more = loaded.more || loaded.first.is_some() || !loaded.inbox.is_empty() || loaded.wish.is_some();
        if !draining && has_more && !loaded.held_back {
            self.look_again();
            return Ok(Then::GoOn);
        }
        self.snapshot(loaded).await;
        self.core.leads.note(self.seat.agent, body.turned);
        if draining {
            self.core.leave_now(&self.seat);
            return Ok(Then::Stop);
        }
        if self.core.leave(&self.seat) {
            debug!(agent = %self.seat.agent, "agent leaves memory");
            return Ok(Then::Stop);
        }
        self.look_again();
        Ok(Then::GoOn)
    }

    /// Leaves memory for another node: between two steps, with a snapshot, and whatever it waits for. Not with a step that
    /// the store has not confirmed, nor with a start whose effect was not sent.
    pub(super) async fn part(&self, body: &mut Body) -> Result<Then, Fault> {
        let is_unsent = body.loaded.as_ref().is_some_and(|loaded| loaded.lost.is_some());
        if body.kept.is_some() || is_unsent {
            self.core.residency.stays(&self.seat);
            self.look_again();
            return Ok(Then::GoOn);
        }
        if let Some(loaded) = &mut body.loaded {
            self.snapshot(loaded).await;
        }
        self.core.leads.note(self.seat.agent, body.turned);
        self.core.leave_now(&self.seat);
        Ok(Then::Stop)
    }

    pub(super) async fn snapshot_if_due(&self, loaded: &mut Loaded) {
        if snapshot_is_due(loaded.version.0 - loaded.snapshot_version.0, loaded.snapshot_bytes) {
            self.snapshot(loaded).await;
        }
    }

    /// Keeps a snapshot if anything has happened since the last. One that cannot be kept costs time at the next
    /// wake-up and nothing else.
    async fn snapshot(&self, loaded: &mut Loaded) {
        if loaded.version == loaded.snapshot_version || loaded.version != loaded.agent.version() {
            return;
        }
        let frozen = loaded.agent.snapshot();
        loaded.snapshot_bytes = frozen.len();
        match self.core.store.put_snapshot(self.seat.agent, loaded.version, frozen).await {
            Ok(()) => {}
            Err(error) => warn!(agent = %self.seat.agent, %error, "snapshot was not kept"),
        }
        // Also after a failure: trying at every step would cost more than a longer replay.
        loaded.snapshot_version = loaded.version;
    }
}

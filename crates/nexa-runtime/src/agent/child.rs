//! An agent as its supervisor sees it.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use ractor::{ActorCell, SpawnErr};

use super::AgentActor;
use crate::bounded::{self, Lane};
use crate::node::Core;
use crate::residency::{Seat, Told};
use crate::supervise::Child;

/// How the supervisor makes incarnations of an agent.
pub(crate) struct AgentChild {
    pub(crate) core: Arc<Core>,
    pub(crate) seat: Seat,
}

impl Child for AgentChild {
    fn spawn(&mut self, supervisor: ActorCell) -> BoxFuture<'_, Result<ActorCell, SpawnErr>> {
        Box::pin(async move {
            let actor = AgentActor { core: self.core.clone(), seat: self.seat.clone(), alarm: Mutex::default() };
            let cell = bounded::spawn(actor, &self.seat.address, Some(supervisor)).await?;
            // The first incarnation was called; the message that killed an earlier one is gone.
            let _ = self.seat.address.tell(Lane::Work, 0, Told::Look);
            Ok(cell)
        })
    }

    fn give_up(&mut self, reason: String) -> BoxFuture<'static, ()> {
        let (core, seat) = (self.core.clone(), self.seat.clone());
        Box::pin(async move { core.quarantine(seat, reason).await })
    }

    fn is_wanted(&self) -> bool {
        self.core.residency.is_seated(&self.seat)
    }
}

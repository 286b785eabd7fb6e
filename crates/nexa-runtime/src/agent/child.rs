//! An agent as its supervisor sees it.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use nexa_types::AgentId;
use ractor::{ActorCell, SpawnErr};

use super::AgentActor;
use crate::bounded::{self, Lane};
use crate::newborn::Newborn;
use crate::node::Core;
use crate::residency::{Seat, Told};
use crate::supervise::Child;

/// How the supervisor makes incarnations of an agent.
pub(crate) struct AgentChild {
    core: Arc<Core>,
    seat: Seat,
    /// For the first incarnation.
    newborn: Option<Box<Newborn>>,
}

impl AgentChild {
    /// One that is read.
    pub(crate) fn new(core: Arc<Core>, seat: Seat) -> Self {
        Self { core, seat, newborn: None }
    }

    /// One that was born here just now.
    pub(crate) fn newborn(core: Arc<Core>, seat: Seat, newborn: Newborn) -> Self {
        Self { core, seat, newborn: Some(Box::new(newborn)) }
    }

    /// Who it is.
    pub(crate) fn agent(&self) -> AgentId {
        self.seat.agent
    }
}

impl Child for AgentChild {
    fn spawn(&mut self, supervisor: ActorCell) -> BoxFuture<'_, Result<ActorCell, SpawnErr>> {
        Box::pin(async move {
            let newborn = Mutex::new(self.newborn.take());
            let (core, seat) = (self.core.clone(), self.seat.clone());
            let actor = AgentActor { core, seat, newborn, alarm: Mutex::default() };
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

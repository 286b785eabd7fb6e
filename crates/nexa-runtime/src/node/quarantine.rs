//! An agent that kept failing is not run any more.

use std::sync::Arc;

use nexa_event::envelope::Fact;
use nexa_event::fact::AgentEvent;
use nexa_ports::store::{Append, AppendError, Guard, RowChange, Stamp};
use nexa_types::{AgentState, StreamId};
use tracing::{error, warn};

use super::Core;
use crate::config::Counters;
use crate::residency::Seat;
use crate::supervise::RestartPolicy;

/// How often a quarantine is tried while the store is away.
const QUARANTINE_TRIES_MAX: usize = 20;

impl Core {
    /// Nobody runs the agent any more until a person says so; the stream says why.
    pub(crate) async fn quarantine(self: &Arc<Self>, seat: Seat, reason: String) {
        error!(agent = %seat.agent, reason, "agent is quarantined");
        Counters::count(&self.counters.quarantined);
        for tries in 1..=QUARANTINE_TRIES_MAX {
            match self.record_quarantine(&seat, &reason).await {
                Ok(()) => break,
                Err(AppendError::Store(error)) => {
                    warn!(agent = %seat.agent, %error, "quarantine is not recorded yet");
                    let pause = RestartPolicy::SERVICE.pause(tries, self.dice.roll());
                    self.clock.wait_until(self.clock.now().after(pause)).await;
                }
                // Another owner, a cancel, or the end was faster.
                Err(_) => break,
            }
        }
        self.gone(&seat);
    }

    /// Writes without bringing the agent into memory, because that may be what fails.
    async fn record_quarantine(&self, seat: &Seat, reason: &str) -> Result<(), AppendError> {
        let Some(row) = self.store.row(seat.agent).await? else { return Ok(()) };
        if row.state.is_terminal() || row.state == AgentState::Quarantined || !self.owns(&row) {
            return Ok(());
        }
        let append = Append {
            stream: StreamId::Agent(seat.agent),
            guard: Guard::Owner(row.epoch),
            expected: row.version,
            stamp: Stamp { at: self.clock.now(), tenant: row.tenant, principal: row.principal, trace: None },
            facts: vec![Fact::Agent(AgentEvent::Quarantined { reason: reason.to_owned() })],
            row: Some(RowChange { state: AgentState::Quarantined, due: None }),
            takes: Vec::new(),
            posts: Vec::new(),
            births: Vec::new(),
            also: None,
        };
        self.store.append(vec![append]).await.pop().map_or(Ok(()), |answer| answer.map(|_| ()))
    }
}

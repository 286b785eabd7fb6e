//! Looks into memories beyond the agent.

use std::time::Duration;

use nexa_event::effect::{RecallRequest, Wanted};
use nexa_ports::memories::MemoryPlace;
use nexa_ports::store::StoreError;
use nexa_ports::view::ViewError;
use nexa_types::{Millis, Payload};
use nexa_vm::recall::look_up;

use super::{AgentActor, Loaded};

/// How long one look into a memory waits for the read models; after that it pauses as if the store were away.
const MEMORY_WAIT: Duration = Duration::from_millis(500);
/// Looks into memories at a time, in the whole node. A further one waits.
pub const RECALLS_MAX: usize = 4;
/// How long it waits; after that its agent pauses as if the store were away, and asks again.
const RECALL_WAIT: Millis = Millis(2_000);

impl AgentActor {
    /// Looks into a memory, as everything left it that was stored by now: so an agent finds what it stored itself, and
    /// what was stored before it was told of.
    pub(super) async fn recall(&self, loaded: &Loaded, request: &RecallRequest) -> Result<Option<Payload>, StoreError> {
        let place = MemoryPlace::of(request.scope, loaded.tenant.clone(), loaded.workload);
        let key = match &request.what {
            Wanted::Key(key) => Some(key.clone()),
            Wanted::Best { .. } => None,
        };
        let unavailable = |detail: String| StoreError::Unavailable { detail };
        // A memory is 64 MiB at most, and ranking that takes long: few at a time, and not where other agents run.
        let turn = tokio::select! {
            biased;
            turn = self.core.recalls.clone().acquire_owned() => turn.map_err(|closed| unavailable(closed.to_string()))?,
            () = self.core.clock.wait_until(self.core.clock.now().after(RECALL_WAIT)) => {
                return Err(unavailable(format!("{RECALLS_MAX} memories are being searched already")));
            }
        };
        let seen = *self.core.store.head().borrow();
        let entries = match self.core.memories.entries(place, key, seen, MEMORY_WAIT).await {
            Ok(entries) => entries,
            Err(ViewError::Store(error)) => return Err(error),
            Err(behind) => return Err(unavailable(behind.to_string())),
        };
        let what = request.what.clone();
        let found = tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone: the turn is over when the work is.
            let _turn = turn;
            look_up(&what, entries.iter().map(|(key, value)| (key.as_str(), value)))
        });
        found.await.map_err(|error| unavailable(format!("a memory could not be searched: {error}")))
    }
}

//! Has the log tell that an agent is forgotten, as far as it has come.
//!
//! The fact goes into the stream of the agent's tenant: that of the agent is its owner's, and nothing follows its end. It names
//! the last fact of the agent's stream that counts, so it does not matter what the agent records while this is written, who
//! reads which of the two first, or how often it is told. What the tail makes of it is the same as on any other node, and when
//! the log is read again.
//!
//! What an agent says while it is being forgotten may be forgotten with the page that it is in.

use nexa_event::envelope::Fact;
use nexa_event::fact::ClusterEvent;
use nexa_event::formats::FORGETTING;
use nexa_paging::PlaceInLog;
use nexa_ports::pages::ANSWER_PAGES_MAX;
use nexa_ports::store::{Append, AppendError, Guard, Stamp, Store, StoreError};
use nexa_types::{AgentId, GlobalSeq, StreamId, TenantId, Version};
use tracing::{info, warn};

use crate::{RememberError, Remembrance, search};

/// How often it is tried while others write to the tenant's stream. Then: unavailable.
const TELL_TRIES_MAX: usize = 16;

pub(crate) async fn forget(remembrance: &Remembrance, agent: AgentId, stamp: Stamp) -> Result<usize, RememberError> {
    let outside = &remembrance.shared.outside;
    let written = outside.writing.format();
    if written < FORGETTING {
        return Err(RememberError::Unwritten { written });
    }
    let row = outside.store.row(agent).await?;
    let Some(row) = row.filter(|row| row.tenant == stamp.tenant) else { return Ok(0) };
    remembrance.caught_up().await?;
    let pages = match count(remembrance, &stamp.tenant, agent, row.version).await {
        Ok(None) => return Ok(0),
        Ok(Some(pages)) => pages,
        Err(error) => {
            warn!(%agent, %error, "pages of an agent that is to be forgotten cannot be counted");
            0
        }
    };
    let by = stamp.principal.clone();
    let position = tell(&*outside.store, agent, row.version, stamp).await?;
    info!(%agent, up_to = %row.version, %by, %position, "an agent is forgotten");
    remembrance.folded_to(position).await?;
    Ok(pages)
}

/// How many pages an agent has up to a fact of its stream; `None` if nothing is remembered of it.
async fn count(
    remembrance: &Remembrance,
    tenant: &TenantId,
    agent: AgentId,
    up_to: Version,
) -> Result<Option<usize>, RememberError> {
    let up_to = PlaceInLog::last_of(up_to).packed();
    let (mut pages, mut is_known, mut from) = (0, false, Some(Version(0)));
    while let Some(begin) = from {
        let (lines, next) = search::pages(&remembrance.shared, tenant, agent, begin, ANSWER_PAGES_MAX).await?;
        for line in lines.iter().filter(|line| line.first <= up_to) {
            is_known = true;
            pages += usize::from(line.id.is_some());
        }
        from = next;
    }
    Ok(is_known.then_some(pages))
}

/// Appends the fact to the stream of the stamp's tenant, at whatever version that has; gives its position.
async fn tell(store: &dyn Store, agent: AgentId, up_to: Version, stamp: Stamp) -> Result<GlobalSeq, RememberError> {
    let mut expected = Version(0);
    for _ in 0..TELL_TRIES_MAX {
        let append = Append {
            stream: StreamId::Cluster(stamp.tenant.clone()),
            guard: Guard::Version,
            expected,
            stamp: stamp.clone(),
            facts: vec![Fact::Cluster(ClusterEvent::AgentForgotten { agent, up_to })],
            row: None,
            takes: Vec::new(),
            posts: Vec::new(),
            births: Vec::new(),
            also: None,
        };
        match store.append(vec![append]).await.pop() {
            Some(Ok(appended)) => return Ok(appended.position),
            // Whoever is refused is told where the stream ends.
            Some(Err(AppendError::VersionConflict { current, .. })) => expected = current,
            Some(Err(AppendError::Store(error))) => return Err(error.into()),
            Some(Err(error)) => return Err(RememberError::Broken(error.to_string())),
            None => break,
        }
    }
    let detail = "the tenant's stream changes too fast; try again".to_owned();
    Err(StoreError::Unavailable { detail }.into())
}

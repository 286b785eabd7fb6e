//! In which format this node writes: the shell around [`nexa_member::floor`].
//!
//! Whoever starts looks at what is announced, once it is a member, and is refused if it does not read that. Whoever leads looks
//! every [`LOOK_EVERY`] at what all members read, and writes down what follows. The others hear with signs of life what is
//! written; until they do they write what they wrote before, which everybody reads as well.

use std::sync::Arc;

use nexa_event::codec::DecodeError;
use nexa_member::floor::Raising;
use nexa_ports::formats::{FLOOR_RECORD, Floor, Formats, Unreadable, Writing};
use nexa_ports::leadership::{LeadError, Leadership};
use nexa_ports::store::StoreError;
use nexa_types::{Epoch, Millis, Version};
use tracing::{error, info, warn};

use crate::inner::Inner;

/// Between two looks of a leader.
const LOOK_EVERY: Millis = Millis(500);

/// Why a node may not work in a cluster, for what it writes.
#[derive(Debug, thiserror::Error)]
pub enum FormatsError {
    /// It does not read it.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The store could not be asked.
    #[error("it could not be read in which format the cluster writes")]
    Store(#[from] StoreError),
    /// What the store says is no answer.
    #[error("the record `{FLOOR_RECORD}` is damaged")]
    Damaged(#[from] DecodeError),
}

/// Looks at what the cluster writes: this process writes the same from here on. To be done by a member, before it works.
///
/// # Errors
/// [`FormatsError`], above all if this process does not read it.
pub async fn agree(leadership: &dyn Leadership, writing: &Writing) -> Result<(), FormatsError> {
    if let Some((_, floor)) = kept(leadership).await? {
        writing.check(floor.announced)?;
        writing.raise(floor.written)?;
    }
    Ok(())
}

/// What the store keeps.
async fn kept(leadership: &dyn Leadership) -> Result<Option<(Version, Floor)>, FormatsError> {
    let records = leadership.records(FLOOR_RECORD.to_owned()).await?;
    let record = records.into_iter().find(|record| record.name == FLOOR_RECORD && !record.value.is_empty());
    Ok(record.map(|record| Ok::<_, DecodeError>((record.version, Floor::from_bytes(&record.value)?))).transpose()?)
}

/// What a leader knows.
struct Led {
    epoch: Epoch,
    version: Version,
    raising: Raising,
}

/// Looks after the cluster's formats while this node leads. Ends with the cluster.
pub(crate) async fn keep(inner: Arc<Inner>) {
    let mut led = None;
    loop {
        tokio::select! {
            () = inner.clock.wait_until(inner.clock.now().after(LOOK_EVERY)) => {}
            () = inner.stop.cancelled() => return,
        }
        if let Err(error) = look(&inner, &mut led).await {
            // Looked up anew next time: whether it was written is open.
            led = None;
            warn!(%error, "in which format the cluster writes could not be looked after; it stays as it is");
        }
    }
}

async fn look(inner: &Inner, led: &mut Option<Led>) -> Result<(), FormatsError> {
    let members = inner.membership.members().borrow().clone();
    let leader = members.leader.as_ref().filter(|it| it.node == inner.me && it.generation == inner.generation);
    // Levels are there once the store knows of this leader; only then nobody else changes what is read.
    let Some(epoch) = leader.map(|leader| leader.epoch).filter(|_| !inner.levels().is_empty()) else {
        *led = None;
        return Ok(());
    };
    if led.as_ref().is_none_or(|led| led.epoch != epoch) {
        let kept = kept(&*inner.leadership).await?;
        let (version, floor) = kept.unwrap_or((Version(0), Floor::of(inner.writing.format())));
        inner.hears(floor.written);
        *led = Some(Led { epoch, version, raising: Raising::new(floor, inner.clock.now()) });
    }
    let Some(Led { version, raising, .. }) = led else { return Ok(()) };
    let reads = members.nodes.values().map(|member| member.card.formats);
    let reads = reads.map(|(oldest, newest)| Formats { oldest, newest });
    let Some(floor) = raising.look(reads, inner.clock.now()) else { return Ok(()) };
    match inner.leadership.put_record(epoch, FLOOR_RECORD.to_owned(), *version, floor.to_bytes()).await {
        Ok(kept) => {
            *version = kept;
            raising.kept(floor, inner.clock.now());
            info!(announced = floor.announced, written = floor.written, "formats of what is stored have changed");
            inner.hears(floor.written);
        }
        Err(LeadError::Deposed { .. }) => *led = None,
        Err(LeadError::Store(error)) => return Err(error.into()),
        Err(error @ LeadError::Changed { .. }) => {
            warn!(%error, "somebody else has written in which format the cluster writes; it is read again");
            *led = None;
        }
    }
    Ok(())
}

impl Inner {
    /// Somebody writes this format: so does this node, or it cannot go on.
    pub(crate) fn hears(&self, format: u16) {
        let Err(unreadable) = self.writing.raise(format) else { return };
        if self.outdated.set(unreadable).is_ok() {
            error!(node = %self.me, error = %unreadable, "this node is of a release that is too old");
            self.too_old.cancel();
        }
    }
}

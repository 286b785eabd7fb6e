//! In which format this node writes: the shell around [`nexa_member::floor`].
//!
//! Whoever starts looks at what is announced, once it is a member, and is refused if it does not read that. Whoever leads writes
//! down what an operator asks for, looks every [`LOOK_EVERY`] at what all members read, and writes down what follows. The others
//! hear with signs of life what is written; until they do they write what they wrote before, which everybody reads as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_member::floor::Raising;
use nexa_member::say::Refused;
use nexa_ports::formats::{FLOOR_RECORD, Floor, Formats, Unreadable, Writing};
use nexa_ports::leadership::{LeadError, Leadership};
use nexa_ports::store::StoreError;
use nexa_types::{Epoch, Millis, NodeId, PrincipalId, Version};
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
async fn kept(leadership: &dyn Leadership) -> Result<Option<(Version, Floor)>, StoreError> {
    let records = leadership.records(FLOOR_RECORD.to_owned()).await?;
    let record = records.into_iter().find(|record| record.name == FLOOR_RECORD && !record.value.is_empty());
    let damaged = |why| StoreError::Corrupt { detail: format!("the record `{FLOOR_RECORD}`: {why}") };
    record.map(|it| Ok((it.version, Floor::from_bytes(&it.value).map_err(damaged)?))).transpose()
}

/// What a leader knows.
pub(crate) struct Led {
    epoch: Epoch,
    version: Version,
    raising: Raising,
}

/// Looks after the cluster's formats while this node leads. Ends with the cluster.
pub(crate) async fn keep(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            biased;
            () = inner.clock.wait_until(inner.clock.now().after(LOOK_EVERY)) => {}
            () = inner.stop.cancelled() => return,
        }
        if let Err(error) = look(&inner).await {
            warn!(%error, "in which format the cluster writes could not be looked after; it stays as it is");
        }
    }
}

async fn look(inner: &Inner) -> Result<(), StoreError> {
    let mut led = inner.raising.lock().await;
    let Some(Led { raising, .. }) = lead(inner, &mut led).await? else { return Ok(()) };
    if let Some(floor) = raising.look(&reads(inner), inner.clock.now()) {
        put(inner, &mut led, floor).await?;
    }
    Ok(())
}

/// An operator asks for a format. Once it is announced, whoever leads next goes on with it.
pub(crate) async fn raise(inner: &Inner, format: u16, by: &PrincipalId) -> Result<(), Refused> {
    let failed = |error: StoreError| {
        warn!(%error, format, %by, "a newer format was asked for, and could not be announced");
        Refused::Failed
    };
    let mut led = inner.raising.lock().await;
    let Led { raising, .. } = lead(inner, &mut led).await.map_err(failed)?.ok_or(Refused::NotLeading)?;
    let Some(floor) = raising.asked(format, &reads(inner))? else { return Ok(()) };
    info!(format, %by, "a newer format is asked for");
    if put(inner, &mut led, floor).await.map_err(failed)? { Ok(()) } else { Err(Refused::NotLeading) }
}

/// What is written and announced, and what each member reads.
pub(crate) async fn list(inner: &Inner) -> Result<(Floor, BTreeMap<NodeId, Formats>), StoreError> {
    let kept = kept(&*inner.leadership).await?;
    Ok((kept.map_or_else(|| Floor::of(inner.writing.format()), |(_, floor)| floor), reads(inner)))
}

/// What each member reads.
fn reads(inner: &Inner) -> BTreeMap<NodeId, Formats> {
    let members = inner.membership.members().borrow().clone();
    let reads = members.nodes.iter().map(|(node, member)| {
        let (oldest, newest) = member.card.formats;
        (node.clone(), Formats { oldest, newest })
    });
    reads.collect()
}

/// What this node knows as a leader; nothing if it does not lead.
async fn lead<'l>(inner: &Inner, led: &'l mut Option<Led>) -> Result<Option<&'l mut Led>, StoreError> {
    let leader = inner.membership.members().borrow().leader.clone();
    let leader = leader.filter(|it| it.node == inner.me && it.generation == inner.generation);
    // Levels are there once the store knows of this leader; only then nobody else changes what is read.
    let Some(epoch) = leader.map(|leader| leader.epoch).filter(|_| !inner.levels().is_empty()) else {
        *led = None;
        return Ok(None);
    };
    if led.as_ref().is_none_or(|led| led.epoch != epoch) {
        let kept = kept(&*inner.leadership).await?;
        let (version, floor) = kept.unwrap_or((Version(0), Floor::of(inner.writing.format())));
        inner.hears(floor.written);
        *led = Some(Led { epoch, version, raising: Raising::new(floor, inner.clock.now()) });
    }
    Ok(led.as_mut())
}

/// Has the store keep it; gives whether it does.
async fn put(inner: &Inner, led: &mut Option<Led>, floor: Floor) -> Result<bool, StoreError> {
    // Unless it is kept, the store is read again before anything else is done: whether it was written may be open.
    let Some(Led { epoch, version, mut raising }) = led.take() else { return Ok(false) };
    match inner.leadership.put_record(epoch, FLOOR_RECORD.to_owned(), version, floor.to_bytes()).await {
        Ok(version) => {
            raising.kept(floor, inner.clock.now());
            *led = Some(Led { epoch, version, raising });
            info!(announced = floor.announced, written = floor.written, "formats of what is stored have changed");
            inner.hears(floor.written);
            Ok(true)
        }
        Err(LeadError::Deposed { .. }) => Ok(false),
        Err(LeadError::Store(error)) => Err(error),
        Err(error @ LeadError::Changed { .. }) => {
            warn!(%error, "somebody else has written in which format the cluster writes; it is read again");
            Ok(false)
        }
    }
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

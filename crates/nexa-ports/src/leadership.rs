//! The port for what only the elected leader writes: owners of agents, and a few small records.
//!
//! Two leaders may believe to lead at the same time; the store knows the newest epoch that it was told of, and refuses
//! every older one within the same transaction. A leader tells its epoch first ([`Leadership::lead`]) and reads afterwards:
//! so what it reads, no earlier leader can change any more.
//!
//! Holds, for every adapter; the contract suite in `nexa-testkit` checks each:
//!   LD-1  after `lead(e)` was answered, nothing under an epoch below `e` changes anything
//!   LD-2  the owners that one call names are written all in one transaction, each judged alone by its row's epoch
//!   LD-3  a record's version only grows, and a write under an old version changes nothing

use futures::future::BoxFuture;
use nexa_types::{Epoch, Version};

use crate::store::{Place, StoreError};

/// Bytes of one record; a longer one is refused.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// Records of a cluster; a further one is refused.
pub const RECORDS_MAX: usize = 16_384;

/// Why a leader's write changed nothing, or may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeadError {
    /// Somebody else was elected since.
    #[error("another node leads, under epoch {current}")]
    Deposed {
        /// Its epoch.
        current: Epoch,
    },
    /// The record is not what the writer thinks.
    #[error("the record is at version {current}, not {given}")]
    Changed {
        /// The version that was given.
        given: Version,
        /// The version of the record.
        current: Version,
    },
    /// The store failed; see its text for whether anything may have been stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a value is short enough for a record; asked by every adapter before anything is written.
///
/// # Errors
/// [`StoreError::TooLarge`] if it has more than [`RECORD_BYTES_MAX`].
pub fn fits(value: &[u8]) -> Result<(), LeadError> {
    let (what, len, max) = ("a record", value.len(), RECORD_BYTES_MAX);
    if len > max { Err(StoreError::TooLarge { what, len, max }.into()) } else { Ok(()) }
}

/// Whether the word of a leader counts where one of epoch `known` was the newest so far (LD-1). Every adapter asks it within
/// the transaction that it is about.
///
/// # Errors
/// [`LeadError::Deposed`]; then nothing may be changed.
pub fn admits(known: Epoch, given: Epoch) -> Result<(), LeadError> {
    if given < known { Err(LeadError::Deposed { current: known }) } else { Ok(()) }
}

/// How a record beyond [`RECORDS_MAX`] is refused.
pub fn full() -> LeadError {
    StoreError::Unavailable { detail: format!("there are {RECORDS_MAX} records already") }.into()
}

/// A value that the leader keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name, such as `cordon/NODE`.
    pub name: String,
    /// How often it was written.
    pub version: Version,
    /// Under which leadership it was written last.
    pub epoch: Epoch,
    /// What it says; empty once it was taken back.
    pub value: Vec<u8>,
}

/// What only a leader writes. A write under a later epoch than the store was told of tells it.
pub trait Leadership: Send + Sync {
    /// Tells the store of an election. Telling the newest again is fine.
    ///
    /// # Errors
    /// [`LeadError::Deposed`] if the store knows of a later one.
    fn lead(&self, epoch: Epoch) -> BoxFuture<'_, Result<(), LeadError>>;

    /// Changes owners. One answer a wish: the new epoch, or the row's epoch if it is another than expected, or 0 if there is no
    /// such live agent.
    ///
    /// # Errors
    /// [`LeadError`]; then no owner was changed, but for an ambiguous failure of the store.
    fn place_as(
        &self,
        leader: Epoch,
        wishes: Vec<Place>,
    ) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, LeadError>>;

    /// Writes a record that still has this version, 0 for none; gives its new version.
    ///
    /// # Errors
    /// [`LeadError`].
    fn put_record(
        &self,
        leader: Epoch,
        name: String,
        expected: Version,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Version, LeadError>>;

    /// All records whose names begin so, by name; those that were taken back too. Linearizable.
    fn records(&self, prefix: String) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;
}

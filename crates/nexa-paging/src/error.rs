//! What can go wrong.

use nexa_types::{PageId, Tokens, Version};
use thiserror::Error;

use crate::config::EMBEDDING_MODEL_BYTES_MAX;
use crate::index::MESSAGES_MAX;

/// Why a configuration cannot be kept to.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ConfigError {
    /// A number of things.
    #[error("`{name}` is {value}: it may be 1 to {max}")]
    OutOfRange {
        /// The field.
        name: &'static str,
        /// What it is.
        value: usize,
        /// What it may be at most.
        max: usize,
    },
    /// The name of a model.
    #[error("`embedding_model` has {bytes} bytes: it may have {EMBEDDING_MODEL_BYTES_MAX}")]
    LongModel {
        /// How many it has.
        bytes: usize,
    },
    /// A threshold that no cosine reaches or all do.
    #[error("`similarity_threshold` is {value}: a cosine is between -1 and 1")]
    NoCosine {
        /// What it is.
        value: f32,
    },
    /// A weight.
    #[error("`{name}` is {value}: it may be 0 to {max}")]
    BadWeight {
        /// The field.
        name: &'static str,
        /// What it is.
        value: f64,
        /// What it may be at most.
        max: f64,
    },
}

/// Why something was not taken. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PagingError {
    /// Messages come in the order of the log.
    #[error("a message at {seq} came after one at {last}, and they are not the same: give messages in the log's order")]
    OutOfOrder {
        /// Where the message stands in the log.
        seq: Version,
        /// Where the last one stands.
        last: Version,
    },
    /// A page would have to leave memory whose messages are not recorded.
    #[error("no page can leave memory: the log has recorded messages only up to {recorded}")]
    NotRecorded {
        /// The last that is recorded.
        recorded: Version,
    },
    /// The index has no room.
    #[error("an agent remembers at most {MESSAGES_MAX} messages")]
    Full,
    /// There is no such page.
    #[error("there is no page {page}")]
    NoPage {
        /// The page.
        page: PageId,
    },
    /// There is no such message.
    #[error("there is no message at {seq}")]
    NoMessage {
        /// Where it should stand in the log.
        seq: Version,
    },
    /// Vectors of two models.
    #[error("a vector has {found} dimensions and those of this agent have {known}: the embedding model has changed")]
    OtherDimensions {
        /// How many it has.
        found: usize,
        /// How many the others have.
        known: usize,
    },
    /// A vector without a direction.
    #[error("a vector has no direction, a number that is none, or too many dimensions")]
    NoVector,
    /// All but one of the active pages are pinned.
    #[error("{pinned} pages are pinned, and one of the active pages has to stay free: unpin one first")]
    TooManyPins {
        /// How many are.
        pinned: usize,
    },
    /// Something was decided before something else happened.
    #[error("pages came or left since this was decided: recall again")]
    Stale,
    /// What was read is not the page that was asked for.
    #[error("what was read as {page} has other messages: the stored page is damaged, rebuild it from the log")]
    OtherContent {
        /// The page.
        page: PageId,
    },
}

/// Why no context can be assembled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AssembleError {
    /// What must be in does not fit.
    #[error("{what} alone takes {needed} tokens of {budget}: a larger budget or a shorter text is needed")]
    TooLarge {
        /// What must be in.
        what: &'static str,
        /// How much it takes, with what has to be in before it.
        needed: Tokens,
        /// How much there is.
        budget: Tokens,
    },
}

/// Why a snapshot could not be restored.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SnapshotError {
    /// Other bytes.
    #[error("the snapshot of an agent's pages cannot be read")]
    Unread(#[source] nexa_event::codec::DecodeError),
    /// Bytes that say two things.
    #[error("the snapshot of an agent's pages contradicts itself: {detail}")]
    Contradiction {
        /// In which way.
        detail: &'static str,
    },
    /// A configuration that cannot be kept to.
    #[error("the agent's paging is configured in a way that cannot be kept to")]
    Config(#[from] ConfigError),
}

//! What the store keeps of a slice, so that the next leader knows what is outstanding.

use minicbor::{Decode, Encode};
use nexa_types::NodeId;

use super::{Generation, HolderId, LeaderEpoch, Meter, NO_LIMIT, Sizes};

/// The most that a holder may use of a provider. It replaces what was recorded for the same holder and provider before.
///
/// Fields are numbered; a number is never used again, and a reader skips those that it does not know. On a meter, nothing
/// is no limit. One that is 0 on all meters says that nothing is outstanding, and may be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SliceRecord {
    /// Of which provider.
    #[n(0)]
    pub provider: String,
    /// Whose node.
    #[n(1)]
    pub node: NodeId,
    /// Which life of the node.
    #[n(2)]
    pub generation: Generation,
    /// By which leader.
    #[n(3)]
    pub epoch: LeaderEpoch,
    /// Grows within an epoch. A write with one that is not newer has been there before.
    #[n(4)]
    pub version: u64,
    /// Requests a minute.
    #[n(5)]
    pub requests: Option<u64>,
    /// Tokens read a minute.
    #[n(6)]
    pub input_tokens: Option<u64>,
    /// Tokens written a minute.
    #[n(7)]
    pub output_tokens: Option<u64>,
    /// Requests in flight at once.
    #[n(8)]
    pub concurrency: Option<u64>,
    /// Requests a minute that the holder begins them at, and has within the last minute, at most. Nothing is no limit, or
    /// that it is not known, as in a record of an earlier version.
    #[n(9)]
    pub pace: Option<u64>,
}

impl SliceRecord {
    /// Says that this is outstanding, at that pace at most.
    #[must_use]
    pub fn new(
        provider: &str,
        holder: &HolderId,
        epoch: LeaderEpoch,
        version: u64,
        (size, pace): (&Sizes, u64),
    ) -> Self {
        Self {
            provider: provider.to_owned(),
            node: holder.node.clone(),
            generation: holder.generation,
            epoch,
            version,
            requests: size.limit(Meter::Requests),
            input_tokens: size.limit(Meter::InputTokens),
            output_tokens: size.limit(Meter::OutputTokens),
            concurrency: size.limit(Meter::Concurrency),
            pace: Some(pace).filter(|pace| *pace != NO_LIMIT),
        }
    }

    /// The most that its holder begins in a minute; [`NO_LIMIT`] is no limit.
    #[must_use]
    pub fn pace(&self) -> u64 {
        self.pace.unwrap_or(NO_LIMIT)
    }

    /// Whose it is.
    #[must_use]
    pub fn holder(&self) -> HolderId {
        HolderId { node: self.node.clone(), generation: self.generation }
    }

    /// What is outstanding.
    #[must_use]
    pub fn size(&self) -> Sizes {
        Sizes::by(|meter| {
            let limit = match meter {
                Meter::Requests => self.requests,
                Meter::InputTokens => self.input_tokens,
                Meter::OutputTokens => self.output_tokens,
                Meter::Concurrency => self.concurrency,
            };
            limit.unwrap_or(NO_LIMIT)
        })
    }
}

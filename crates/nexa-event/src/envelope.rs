//! How a fact is wrapped, hashed and chained.
//!
//! Header and payload are stored apart. The chain covers the header, the payload's hash and the link before it, so
//! that a payload can be encrypted or erased later without breaking the chain:
//!
//! `link(n) = BLAKE3(link(n - 1) ‖ len(header) ‖ header ‖ BLAKE3(payload))`, with 32 zero bytes as `link(0)`.
//!
//! Stored bytes are hashed as stored and never re-encoded.

use minicbor::{Decode, Encode};
use nexa_types::{Epoch, PrincipalId, StreamId, TenantId, Timestamp, Version};

use crate::codec::{self, DecodeError};
use crate::fact::{AgentEvent, ClusterEvent, WorkloadEvent};
use crate::formats::Formats;

/// The newest format that this build writes and reads; see [`crate::formats`] for when it writes it, and what the numbers mean.
pub const FORMAT: u16 = 3;

/// Where a trace goes on: the 16 bytes of its id and the 8 of the span, as in a W3C `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TraceContext {
    /// The trace.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub trace: [u8; 16],
    /// The span that caused this.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub span: [u8; 8],
}

/// What is known about every fact.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// The format of header and payload.
    #[n(0)]
    pub format: u16,
    /// The stream.
    #[n(1)]
    pub stream: StreamId,
    /// Its place in the stream, from 1.
    #[n(2)]
    pub version: Version,
    /// When its writer decided it.
    #[n(3)]
    pub at: Timestamp,
    /// Whose data it is.
    #[n(4)]
    pub tenant: TenantId,
    /// On whose behalf.
    #[n(5)]
    pub principal: PrincipalId,
    /// The epoch of its writer; `None` for streams without an owner.
    #[n(6)]
    pub epoch: Option<Epoch>,
    /// The trace that it belongs to.
    #[n(7)]
    pub trace: Option<TraceContext>,
}

/// A fact of any stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Fact {
    /// In an agent's stream.
    #[n(0)]
    Agent(#[n(0)] AgentEvent),
    /// In a workload's stream.
    #[n(1)]
    Workload(#[n(0)] WorkloadEvent),
    /// In a tenant's cluster stream.
    #[n(2)]
    Cluster(#[n(0)] ClusterEvent),
}

/// A link of a stream's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link(pub [u8; 32]);

impl Link {
    /// What stands before the first fact of a stream.
    pub const START: Self = Self([0; 32]);

    /// The link after one more fact, from the bytes as they are stored.
    #[must_use]
    pub fn next(self, header: &[u8], payload: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&(header.len() as u64).to_le_bytes());
        hasher.update(header);
        hasher.update(blake3::hash(payload).as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

/// A fact as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encoded [`Header`].
    pub header: Vec<u8>,
    /// The encoded [`Fact`].
    pub payload: Vec<u8>,
    /// The chain up to and with this fact.
    pub link: Link,
}

/// Wraps a fact for storing, `before` being the link of the fact before it.
pub fn seal(before: Link, header: &Header, fact: &Fact) -> Sealed {
    let payload = codec::encode(fact);
    let (header, link) = chain(before, header, &payload);
    Sealed { header, payload, link }
}

/// The stored form of a header, and the link of its fact, whose payload is encoded already.
pub fn chain(before: Link, header: &Header, payload: &[u8]) -> (Vec<u8>, Link) {
    let header = codec::encode(header);
    let link = before.next(&header, payload);
    (header, link)
}

/// A fact as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What is known about it.
    pub header: Header,
    /// What happened.
    pub fact: Fact,
}

/// Unwraps stored bytes and checks that they are what was chained.
///
/// # Errors
/// [`DecodeError`] if the bytes were changed, are of a newer format, or are no fact at all.
pub fn open(before: Link, header: &[u8], payload: &[u8], link: Link) -> Result<Envelope, DecodeError> {
    open_of(Formats::THIS_BUILD, before, header, payload, link)
}

/// The same by the formats that are read.
///
/// # Errors
/// As [`open`].
pub fn open_of(
    reads: Formats,
    before: Link,
    header: &[u8],
    payload: &[u8],
    link: Link,
) -> Result<Envelope, DecodeError> {
    if before.next(header, payload) != link {
        return Err(DecodeError::ChainBroken);
    }
    read(reads, header, payload)
}

/// Unwraps stored bytes whose chain is checked elsewhere, as for a fact read from the middle of a stream.
///
/// # Errors
/// [`DecodeError`] if the bytes are of a newer format or are no fact at all.
pub fn open_unchained(header: &[u8], payload: &[u8]) -> Result<Envelope, DecodeError> {
    read(Formats::THIS_BUILD, header, payload)
}

fn read(reads: Formats, header: &[u8], payload: &[u8]) -> Result<Envelope, DecodeError> {
    let header: Header = codec::decode(header)?;
    if header.format > reads.newest {
        return Err(DecodeError::NewerFormat { found: header.format, known: reads.newest });
    }
    Ok(Envelope { header, fact: codec::decode(payload)? })
}

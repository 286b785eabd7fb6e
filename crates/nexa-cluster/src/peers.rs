//! How a node speaks to the others.
//!
//! [`Peers`] is the sending side, [`Handler`] the receiving one; one of each a node. Bodies are opaque here.
//!
//! Holds, for every implementation:
//!   PE-1  what is told to one peer in one class about one service arrives in the order in which it was told, each at
//!         most once
//!   PE-2  nothing arrives that was meant for another run of the receiver
//!   PE-3  a message that cannot be handed over is refused at once; nothing waits in line for a peer that is gone

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use nexa_types::{Generation, NodeId, Timestamp};
use tokio::sync::watch;

/// What a message is about; each has one handler on a node. Values are stable on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Service {
    /// How a node is doing.
    Heartbeat = 1,
    /// That agents have something to do.
    Hints = 2,
    /// Whose agents are whose, by the word of the leader.
    Placing = 3,
    /// Agents that move while they live, and answers that follow them.
    Moving = 4,
    /// Slices of providers' budgets.
    Leases = 5,
    /// Questions and commands of people.
    Queries = 6,
    /// Text of agents while it is written, and who wants it.
    Live = 7,
}

impl Service {
    /// The service of a number on the wire; `None` for one of a newer build.
    #[must_use]
    pub fn of(number: u16) -> Option<Self> {
        [Self::Heartbeat, Self::Hints, Self::Placing, Self::Moving, Self::Leases, Self::Queries, Self::Live]
            .into_iter()
            .find(|service| *service as u16 == number)
    }
}

/// By what a message must not be held up: each class has a way of its own.
pub use nexa_member::link::Class;

/// Why a message was not handed over for sending. It was not sent, and will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// Nobody of that name was [met](Peers::meet).
    #[error("there is no such peer")]
    Unknown,
    /// There is no link to it at the moment.
    #[error("there is no link to the peer")]
    Gone,
    /// As much waits for it as may.
    #[error("the queue to the peer is full")]
    Full,
    /// The message is longer than one may be.
    #[error("the message is too long")]
    TooLarge,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The question was not sent.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// The deadline passed, or the link broke. Whether the question was handled is open.
    #[error("the peer did not answer")]
    NoAnswer,
    /// The peer refused.
    #[error("the peer refused: {0}")]
    Refused(#[from] Refusal),
}

/// Why a peer does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// Which kind of reason.
    pub why: Why,
    /// What a person should know.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(why: Why, detail: impl Into<String>) -> Self {
        Self { why, detail: detail.into() }
    }
}

/// The kinds of reasons to refuse. Values are stable on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// The question makes no sense to this build.
    Malformed = 1,
    /// Somebody else is the one to ask: who leads, or who owns the agent, has changed.
    NotMe = 2,
    /// What it is about does not exist.
    NotFound = 3,
    /// Not now: too much to do, or not ready.
    Busy = 4,
    /// It was tried, and failed.
    Failed = 5,
}

impl Why {
    /// The reason of a number on the wire; a number of a newer build is [`Why::Failed`].
    #[must_use]
    pub fn of(number: u8) -> Self {
        [Self::Malformed, Self::NotMe, Self::NotFound, Self::Busy]
            .into_iter()
            .find(|why| *why as u8 == number)
            .unwrap_or(Self::Failed)
    }
}

/// How the links to one peer stand. A link has two halves, each dialled by its sender.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Which run of the peer answered last; `None` before any has.
    pub generation: Option<Generation>,
    /// Whether a message can be handed over now.
    pub is_up: bool,
    /// Whether the last dial was refused: nobody listens there, so the process is gone.
    pub is_refused: bool,
    /// When the peer last answered on the half that this node dialled; brought up to date a few times a second.
    pub answered_at: Option<Timestamp>,
    /// When anything last came on the half that the peer dialled; brought up to date a few times a second.
    pub received_at: Option<Timestamp>,
}

/// What has gone over the links of one class, to and from all peers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassTraffic {
    /// Messages that went out, those again that were sent again.
    pub sent: u64,
    /// Their bodies.
    pub sent_bytes: u64,
    /// Of these, messages that had gone out before on a connection that broke.
    pub resent: u64,
    /// Messages that came in and were handed over.
    pub received: u64,
    /// Their bodies.
    pub received_bytes: u64,
    /// Messages that were refused because the queue to their peer was full.
    pub full: u64,
}

/// The same, by class in the order of [`Class::ALL`].
pub type Traffic = [ClassTraffic; 4];

/// All peers that were met.
pub type LinkStates = BTreeMap<NodeId, LinkState>;

/// The sending side.
pub trait Peers: Send + Sync {
    /// Hands a message over for sending; in order for each peer, class and service. That it was handed over does not mean that it
    /// arrives.
    ///
    /// # Errors
    /// [`NotSent`], at once, if the peer is unknown, gone, or its queue is full.
    fn tell(&self, to: &NodeId, class: Class, service: Service, body: Bytes) -> Result<(), NotSent>;

    /// Asks, and waits for the answer at most so long. Dropping the future drops only the answer.
    ///
    /// # Errors
    /// [`AskError`].
    fn ask(
        &self,
        to: &NodeId,
        class: Class,
        service: Service,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>>;

    /// The peers and how their links stand.
    fn links(&self) -> watch::Receiver<Arc<LinkStates>>;

    /// Whom to be linked with, and where each listens; the rest is closed. The list names this node's own run too: by it
    /// the links know which run they speak for.
    fn meet(&self, members: &[(NodeId, Generation, String)]);

    /// What has gone over the links since they were started; nothing from links that do not count.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

/// The receiving side, one a node. Whatever arrives is handed over as it comes, so nothing here may block.
pub trait Handler: Send + Sync {
    /// A message of a peer's run.
    fn told(&self, from: &NodeId, generation: Generation, service: Service, body: Bytes);

    /// A question of a peer's run.
    fn asked(
        &self,
        from: &NodeId,
        generation: Generation,
        service: Service,
        body: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_the_wire_are_those_of_this_list() {
        let services = [1, 2, 3, 4, 5, 6, 7].map(|number| Service::of(number).map(|service| service as u16));
        assert_eq!(services, [Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(7)]);
        assert_eq!((Service::of(0), Service::of(8)), (None, None));
        assert_eq!([1, 2, 3, 4, 5, 6, 255].map(|number| Why::of(number) as u8), [1, 2, 3, 4, 5, 5, 5]);
    }
}

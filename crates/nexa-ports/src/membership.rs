//! The port to who is there, who leads, and whose word still counts: node leases and one election.
//!
//! Everything here only makes things fast; nothing here makes anything safe. That is the store's fence: whoever is
//! wrongly taken for dead, or still believes to lead, is refused there.
//!
//! Holds, for every adapter; the contract suite in `nexa-testkit` checks each:
//!   MB-1  a node's generation is greater than every one that was given under its name before
//!   MB-2  the epoch of a leader is greater than that of every leader before it
//!   MB-3  a node is in [`Members`] no longer than its lease lives, and a leader no longer than its own
//!   MB-4  [`Standing::valid_until`] is never later than the moment at which others may learn that the lease has ended
//!   MB-5  what a receiver sees is a whole list that stood at some moment; it may miss lists, and never goes back
//!   MB-6  who asks for the run of a node ([`Membership::run_of`]) hears of each that had joined before, unless its lease has ended
//!   MB-7  generations and revisions of lists are of one count: a list as late as a run has it, unless its lease has ended
//!
//! MB-4 speaks of leases that end by silence: whoever ends another's lease ([`Membership::end_lease`]) knows that there is nobody
//! left who could rely on it.
//!
//! [`local`] has the twin, which is also the membership of a cluster within one process.

pub mod local;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use minicbor::{Decode, Encode};
pub use nexa_types::Generation;
use nexa_types::{Epoch, NodeId, Timestamp};
use tokio::sync::watch;

/// Bytes of an encoded [`NodeCard`]; a longer one is refused.
pub const CARD_BYTES_MAX: usize = 4_096;
/// Bytes of the name of a shared setting; a longer one is refused.
pub const SETTING_NAME_BYTES_MAX: usize = 256;
/// Bytes of a shared setting; a longer one is refused.
pub const SETTING_BYTES_MAX: usize = 65_536;

/// What a node says of itself when it joins. Stays as it is until it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeCard {
    /// Its name.
    #[n(0)]
    pub id: NodeId,
    /// Where clients reach it, as `host:port` or a URL.
    #[n(1)]
    pub door: String,
    /// Where other nodes reach it, as `host:port`.
    #[n(2)]
    pub link: String,
    /// What may be asked of it: `zone = "eu"`.
    #[n(3)]
    pub labels: BTreeMap<String, String>,
    /// Processor time that it has, in thousandths of a processor.
    #[n(4)]
    pub cpu_milli: u64,
    /// Memory that it may use, in bytes.
    #[n(5)]
    pub memory_bytes: u64,
    /// Agents that it takes, live and dormant.
    #[n(6)]
    pub agents_max: u64,
    /// The version of its build, for people.
    #[n(7)]
    pub build: String,
    /// The oldest and the newest format of stored bytes that it reads.
    #[n(8)]
    pub formats: (u16, u16),
}

/// A node that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it says of itself.
    pub card: NodeCard,
    /// Which run of it.
    pub generation: Generation,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its name.
    pub node: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// Its right to lead.
    pub epoch: Epoch,
}

/// Who is there and who leads, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Grows with each change; 0 before the first list was read.
    pub revision: u64,
    /// The nodes by name.
    pub nodes: BTreeMap<NodeId, Member>,
    /// The elected one, if there is one.
    pub leader: Option<Leader>,
}

impl Members {
    /// Whether that run of a node, which had joined, is known to be over: this list is late enough to have it, and has it not.
    #[must_use]
    pub fn is_over(&self, node: &NodeId, run: Generation) -> bool {
        self.revision >= run.0 && self.nodes.get(node).is_none_or(|member| member.generation != run)
    }
}

/// How long this node's own lease counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not joined, or has left.
    Outside,
    /// It has a lease.
    Member {
        /// Which run it is.
        generation: Generation,
        /// Up to here nobody else can have learned that the lease has ended, by a clock that also counts while the
        /// machine sleeps; see [`Membership::now`].
        valid_until: Timestamp,
    },
    /// The lease has ended: what this run was is over. It may join again, as another one.
    Lost,
}

/// Why membership did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Nobody answered in time, so nobody knows whether it was done. It may work later.
    #[error("the membership service does not answer: {detail}")]
    Unavailable {
        /// What the adapter met.
        detail: String,
    },
    /// A live node has this name already.
    #[error(
        "another node is there under the name {node}; give each node a name of its own, or wait for its lease to end"
    )]
    NameTaken {
        /// The name.
        node: NodeId,
    },
    /// The node is not a member, or not any more.
    #[error("this node is not a member (any more): it has to join again")]
    NotAMember,
    /// What was given has more bytes than fit.
    #[error("{what} has {len} bytes, more than the {max} that fit")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The bound in bytes.
        max: usize,
    },
}

/// A card's bytes, if it is small enough. For adapters.
///
/// # Errors
/// [`MembershipError::TooLarge`].
pub fn encode_card(card: &NodeCard) -> Result<Vec<u8>, MembershipError> {
    let bytes = minicbor::to_vec(card).expect("writing to a vector cannot fail");
    fits("the description of the node", bytes.len(), CARD_BYTES_MAX)?;
    Ok(bytes)
}

/// Whether a setting is small enough. For adapters.
///
/// # Errors
/// [`MembershipError::TooLarge`].
pub fn check_setting(name: &str, value: &[u8]) -> Result<(), MembershipError> {
    fits("the name of the setting", name.len(), SETTING_NAME_BYTES_MAX)?;
    fits("the setting", value.len(), SETTING_BYTES_MAX)
}

fn fits(what: &'static str, len: usize, max: usize) -> Result<(), MembershipError> {
    if len > max { Err(MembershipError::TooLarge { what, len, max }) } else { Ok(()) }
}

/// A shared setting: the revision under which it was written, and its bytes; `None` if there is none.
pub type Setting = Option<(u64, Vec<u8>)>;

/// Node leases, the election, and a few shared settings. One value serves one node.
pub trait Membership: Send + Sync {
    /// Takes a lease, and enters this node under it. The lease is kept alive until [`leave`](Self::leave), or until it is lost.
    ///
    /// # Errors
    /// [`MembershipError`].
    fn join(&self, card: NodeCard) -> BoxFuture<'_, Result<Generation, MembershipError>>;

    /// Gives the lease back: the node is gone for everybody at once. Does nothing for one that is not a member.
    /// Where nobody hears it the node is outside all the same, and gone for the others when its lease ends.
    fn leave(&self) -> BoxFuture<'_, Result<(), MembershipError>>;

    /// Who is there and who leads.
    fn members(&self) -> watch::Receiver<Arc<Members>>;

    /// How this node stands.
    fn standing(&self) -> watch::Receiver<Standing>;

    /// The time of [`Standing::valid_until`]: counts while the machine sleeps, is compared with nothing else.
    fn now(&self) -> Timestamp;

    /// Whether this node wants to lead. Whether it does is in [`members`](Self::members): as soon as nobody else leads, one of
    /// those who want to does. To stop wanting while leading is to resign.
    fn campaign(&self, wants: bool);

    /// Ends the lease of another node's run, of which it is known that its process is gone. `false` if that run is not a
    /// member any more.
    fn end_lease(&self, node: NodeId, generation: Generation) -> BoxFuture<'_, Result<bool, MembershipError>>;

    /// Which run of a node is there, by the service's own word, asked after this call: a list may be older than that, and not say
    /// yet that a node is back. What none of its runs has touched before, nobody who is there has.
    fn run_of(&self, node: NodeId) -> BoxFuture<'_, Result<Option<Generation>, MembershipError>>;

    /// Reads a shared setting.
    fn setting(&self, name: String) -> BoxFuture<'_, Result<Setting, MembershipError>>;

    /// Writes a shared setting if it still has this revision, 0 for none; gives the new revision, or `None` if it has another.
    fn put_setting(
        &self,
        name: String,
        expected: u64,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Option<u64>, MembershipError>>;
}

//! One half of a link between two nodes: messages go one way, and what is known of them comes back.
//!
//! ```text
//! the sending node                                   the receiving node
//!   Sender ── Hello ─────────────────────────────────► Doorkeeper: whether, and Receiver: from where on
//!          ◄───────────────────────────── Welcome ──
//!          ── messages with their sequence ──────────► Receiver: new, or seen before
//!          ◄──────────────── Report: acked, granted ─
//! ```
//!
//! Who sends dials. Two nodes that talk both ways have two halves, which know nothing of each other: nothing has to be
//! decided when both dial at once, and a network that is dead in one direction shows as exactly one dead half. Each
//! [`Lane`], that is, each connection of each class, counts its messages for itself.
//!
//! Holds, over any number of broken connections; the model in `tests/link.rs` checks each:
//!   LK-1  a message is delivered at most once to one run of the receiver
//!   LK-2  messages of one lane are delivered in the order in which they were accepted
//!   LK-3  each message that was accepted is delivered, or given back as undelivered, or its sender's run has ended;
//!         a question that nobody waits for any more may also be dropped
//!   LK-4  a sender holds no more messages and bytes than its bounds say
//!   LK-5  a receiver holds no more bytes that are not handled yet than its window says
//!
//! A message that is given back may have been delivered all the same: the run that had it ended before it said so.
//! That what is sent again has its effect once is not for the link to see to, but for the inbox that it goes to.
//!
//! Not here: what becomes of an answer (who waits for it knows), and when to dial again.

mod door;
mod receiver;
mod sender;

use nexa_types::{Generation, NodeId};

pub use door::{Doorkeeper, NODES_MAX, Refused};
pub use receiver::{Attachment, Breach, Receiver, Verdict};
pub use sender::{Bounds, Frame, Full, Kind, Message, Sender, Unfit};

/// The protocol that this build speaks, oldest and newest version.
pub const PROTOCOL: (u16, u16) = (1, 1);

/// What a message costs beside its body, in bytes, wherever bytes are counted: so that empty ones are not free.
pub const MESSAGE_COST: usize = 64;

/// By what a message must not be held up. The values are those on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// What keeps the cluster together: heartbeats, placements, leases. Never behind data.
    Control = 1,
    /// What agents do.
    Work = 2,
    /// What is large and can wait.
    Bulk = 3,
    /// Questions of people.
    Reads = 4,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Control, Self::Work, Self::Bulk, Self::Reads];

    /// The class with this value on the wire.
    pub fn from_wire(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u32 == value)
    }

    /// How many connections a pair of nodes has for it, each way.
    pub const fn connections(self) -> u8 {
        match self {
            Self::Work => 2,
            Self::Control | Self::Bulk | Self::Reads => 1,
        }
    }

    /// Bytes that a receiver lets one sender have under way and unhandled, costs included.
    pub const fn window_bytes(self) -> usize {
        match self {
            Self::Control => 256 << 10,
            Self::Work | Self::Reads => 4 << 20,
            Self::Bulk => 16 << 20,
        }
    }

    /// The largest body; a longer one is refused before it is sent. Well below the window, so that one message never
    /// has to wait until nothing else is there.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Control => 64 << 10,
            Self::Work | Self::Bulk | Self::Reads => 1 << 20,
        }
    }

    /// What a sender holds at most. The next message is refused.
    pub const fn bounds(self) -> Bounds {
        match self {
            Self::Control => Bounds { messages: 4_096, bytes: 1 << 20 },
            Self::Work | Self::Reads => Bounds { messages: 65_536, bytes: 16 << 20 },
            Self::Bulk => Bounds { messages: 4_096, bytes: 32 << 20 },
        }
    }
}

/// One connection of one class: what has an order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// What for.
    pub class: Class,
    /// Which of the class's connections, from 0.
    pub connection: u8,
}

impl Lane {
    /// Every lane from one node to another.
    pub fn all() -> impl Iterator<Item = Self> {
        Class::ALL
            .into_iter()
            .flat_map(|class| (0..class.connections()).map(move |connection| Self { class, connection }))
    }

    /// The lane with these values on the wire.
    pub fn from_wire(class: u32, connection: u32) -> Option<Self> {
        let class = Class::from_wire(class)?;
        let connection = u8::try_from(connection).ok().filter(|connection| *connection < class.connections())?;
        Some(Self { class, connection })
    }
}

/// What the sender says first on a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Which cluster it belongs to.
    pub cluster: String,
    /// Who it is. Its certificate must say the same.
    pub node: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// Whom it means to talk to.
    pub to: NodeId,
    /// The oldest and the newest protocol that it speaks.
    pub protocol: (u16, u16),
    /// Which lane the connection is for.
    pub lane: Lane,
}

/// What the receiver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Who it is.
    pub node: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// The protocol to speak: the newest that both do.
    pub protocol: u16,
    /// The last message of the lane that it has had from this run of the sender; 0 for none.
    pub last: u64,
    /// Bytes that may be sent before more is granted.
    pub credit: u64,
}

/// What the receiver says of what it has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Every message up to this one has been delivered.
    pub acked: u64,
    /// Bytes that may be sent in all since the connection's welcome.
    pub granted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_its_words_on_the_wire() {
        for lane in Lane::all() {
            assert_eq!(Lane::from_wire(lane.class as u32, u32::from(lane.connection)), Some(lane));
        }
        assert_eq!(Lane::from_wire(0, 0), None);
        assert_eq!(Lane::from_wire(1, 1), None);
        assert_eq!(Lane::from_wire(5, 0), None);
        assert_eq!(Lane::from_wire(2, 256), None);
    }

    #[test]
    fn the_largest_message_fits_a_window_and_a_ring_several_times() {
        for class in Class::ALL {
            let cost = class.body_bytes_max() + MESSAGE_COST;
            assert!(cost * 3 < class.window_bytes(), "{class:?}");
            assert!(cost * 3 < class.bounds().bytes, "{class:?}");
        }
    }
}

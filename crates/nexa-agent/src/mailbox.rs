//! Messages that an agent has and has not read, and the room that is left for more.
//!
//! A parent counts its messages to a child; the child says how many of them it has read in its life. A parent that has
//! `MAILBOX_MESSAGES_MAX` unread ones out, or `UNREAD_BYTES_MAX` bytes of them, waits with the next one. Both counts
//! follow from the two streams, so they survive every crash, and a note that is sent twice says the same twice.
//!
//! The child gives its note when half of the room is read, and whenever it waits for something while its parent may be
//! waiting for room: so neither waits for the other.
//!
//! A note is decided only where the log says that the agent waited: elsewhere a replay, which hands out inputs before
//! it computes, would know of messages that were not there yet.
//!
//! Messages from outside have room of their own. What comes when it is full is recorded and not read.

use std::collections::VecDeque;

use minicbor::{Decode, Encode};
use nexa_event::fact;
use nexa_types::limits::MAILBOX_MESSAGES_MAX;
use nexa_types::{InputId, Payload};

use crate::agent::Agent;
use crate::step::Draft;

/// Bytes of unread messages of one sender, but for the last one, which always fits.
pub(crate) const UNREAD_BYTES_MAX: u64 = 16 << 20;

/// A message that was not read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Mail {
    #[n(0)]
    value: Payload,
    #[n(1)]
    is_from_outside: bool,
}

/// What the agent has to read, and what it has read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Mailbox {
    #[n(0)]
    mail: VecDeque<Mail>,
    /// How many messages of the parent have come.
    #[n(1)]
    received: u64,
    /// How many of them were read.
    #[n(2)]
    taken: u64,
    /// How many of them the parent knows to be read.
    #[n(3)]
    told: u64,
    /// Bytes of those that have come since.
    #[n(4)]
    bytes_since: u64,
    /// Of those, bytes of the ones that were read.
    #[n(5)]
    bytes_taken: u64,
    /// Messages from outside that were not read, and their bytes.
    #[n(6)]
    outside: u64,
    #[n(7)]
    outside_bytes: u64,
}

impl Mailbox {
    pub(crate) fn is_untouched(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mail.is_empty()
    }

    /// Puts a message there; false if there is no room for it.
    pub(crate) fn put(&mut self, value: &Payload, number: Option<u64>) -> bool {
        let bytes = value.len() as u64;
        let is_from_outside = number.is_none();
        match number {
            Some(number) => {
                self.received = number;
                self.bytes_since += bytes;
            }
            None if self.outside >= MAILBOX_MESSAGES_MAX as u64 || self.outside_bytes >= UNREAD_BYTES_MAX => {
                return false;
            }
            None => {
                self.outside += 1;
                self.outside_bytes += bytes;
            }
        }
        self.mail.push_back(Mail { value: value.clone(), is_from_outside });
        true
    }

    /// Takes the oldest message, and whether it is from outside.
    pub(crate) fn take(&mut self) -> Option<(Payload, bool)> {
        let Mail { value, is_from_outside } = self.mail.pop_front()?;
        let bytes = value.len() as u64;
        if is_from_outside {
            self.outside = self.outside.saturating_sub(1);
            self.outside_bytes = self.outside_bytes.saturating_sub(bytes);
        } else {
            self.taken += 1;
            self.bytes_taken += bytes;
        }
        Some((value, is_from_outside))
    }

    /// How many messages the parent is to be told were read, if it is time.
    fn note(&mut self) -> Option<u64> {
        let half = MAILBOX_MESSAGES_MAX as u64 / 2;
        let may_wait = self.received >= self.told + 2 * half || self.bytes_since >= UNREAD_BYTES_MAX;
        if self.taken == self.told || !(may_wait || self.taken >= self.told + half) {
            return None;
        }
        self.told = self.taken;
        self.bytes_since = self.bytes_since.saturating_sub(self.bytes_taken);
        self.bytes_taken = 0;
        Some(self.told)
    }

    /// Whether its counts fit its messages.
    pub(crate) fn is_sound(&self) -> bool {
        let (outside, inside): (Vec<&Mail>, Vec<&Mail>) = self.mail.iter().partition(|mail| mail.is_from_outside);
        let bytes = |mail: &[&Mail]| mail.iter().map(|mail| mail.value.len() as u64).sum::<u64>();
        self.received < u64::MAX / 2
            && self.told <= self.taken
            && self.received.checked_sub(self.taken) == Some(inside.len() as u64)
            && self.bytes_since.checked_sub(self.bytes_taken) == Some(bytes(&inside))
            && (self.outside, self.outside_bytes) == (outside.len() as u64, bytes(&outside))
    }
}

/// What a parent knows of the messages to one child.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Outgoing {
    #[n(0)]
    sent: u64,
    /// How many of them the child has read, as far as the parent knows.
    #[n(1)]
    taken: u64,
    /// The bytes of each of the others.
    #[n(2)]
    sizes: VecDeque<u64>,
}

impl Outgoing {
    pub(crate) fn is_unused(&self) -> bool {
        self.sent == 0
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    pub(crate) fn has_room(&self) -> bool {
        self.sizes.len() < MAILBOX_MESSAGES_MAX && self.sizes.iter().sum::<u64>() < UNREAD_BYTES_MAX
    }

    /// Counts one more message and gives its number.
    pub(crate) fn send(&mut self, bytes: usize) -> u64 {
        self.sent += 1;
        self.sizes.push_back(bytes as u64);
        self.sent
    }

    pub(crate) fn note(&mut self, taken: u64) {
        let read = taken.saturating_sub(self.taken).min(self.sizes.len() as u64) as usize;
        self.sizes.drain(..read);
        self.taken = self.sent - self.sizes.len() as u64;
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.sent < u64::MAX / 2
            && self.sizes.len() <= MAILBOX_MESSAGES_MAX
            && self.sent.checked_sub(self.taken) == Some(self.sizes.len() as u64)
    }
}

impl Agent {
    /// Tells the parent how many of its messages were read, if it is time. Only where the agent waits.
    pub(crate) fn tell_what_was_read(&mut self, draft: &mut Draft) {
        if let Some(parent) = self.spawned().parent
            && let Some(taken) = self.life.mailbox.note()
        {
            let input = fact::Input::Credit { seq: parent.seq, branch: parent.branch, taken };
            draft.posts.push((parent.agent, InputId::credit(self.id(), taken), input));
        }
    }
}

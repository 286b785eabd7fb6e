//! Puts a context together: system, pinned, recalled in order of time, recent; within a token budget that is never exceeded.
//!
//! What must be in comes first: the system messages and the newest message; without room for them there is no context. Then
//! what is pinned, the newest first. What is left is shared by what was recalled and what is recent: recent messages take up to
//! their share from the newest backwards, recalled ones take the rest in the order of their ranks, and what they leave goes to
//! further recent ones. Nothing is in twice, and nothing is cut: a message is in or it is not.
//!
//! Tokens are counted by whoever sends the context, with the tokenizer of the model that reads it.

use std::collections::BTreeSet;

use nexa_event::effect::Role;
use nexa_types::{Tokens, Version};

use crate::error::AssembleError;
use crate::message::MemoryMessage;
use crate::rank::Found;

/// What recent messages take of the budget before recalled ones do, in percent.
const RECENT_SHARE_PERCENT: u64 = 50;

/// What a context is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'m> {
    /// What stands first, whatever comes.
    pub system: &'m [MemoryMessage],
    /// What stays from then on, in the order of the log.
    pub pinned: &'m [MemoryMessage],
    /// What was found, the best first, with why.
    pub recalled: &'m [(Found, MemoryMessage)],
    /// The conversation as it goes on, in the order of the log.
    pub recent: &'m [MemoryMessage],
}

/// Why something is in a context.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// It stands first.
    System,
    /// Somebody pinned it.
    Pinned,
    /// It was found.
    Recalled(Found),
    /// It was said last.
    Recent,
}

/// A message of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<'m> {
    /// Why it is in.
    pub place: Place,
    /// What it says.
    pub message: &'m MemoryMessage,
}

/// A context.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembled<'m> {
    /// Its messages, as they are sent.
    pub messages: Vec<Placed<'m>>,
    /// What they take together.
    pub tokens: Tokens,
    /// Messages that found no room: pinned, recalled, recent.
    pub left_out: [usize; 3],
}

struct Room<'c> {
    left: u64,
    count: &'c dyn Fn(&MemoryMessage) -> Tokens,
}

impl Room<'_> {
    fn takes(&mut self, message: &MemoryMessage) -> bool {
        let tokens = (self.count)(message).0;
        let fits = tokens <= self.left;
        self.left -= if fits { tokens } else { 0 };
        fits
    }

    fn needs(&mut self, what: &'static str, message: &MemoryMessage, budget: Tokens) -> Result<(), AssembleError> {
        let needed = Tokens(budget.0 - self.left) + (self.count)(message);
        if self.takes(message) { Ok(()) } else { Err(AssembleError::TooLarge { what, needed, budget }) }
    }
}

/// Puts a context together within a budget. Equal parts give the same context.
///
/// # Errors
/// [`AssembleError::TooLarge`] if the system messages and the newest message do not fit.
pub fn assemble<'m>(
    parts: &Parts<'m>,
    budget: Tokens,
    count: &dyn Fn(&MemoryMessage) -> Tokens,
) -> Result<Assembled<'m>, AssembleError> {
    let mut room = Room { left: budget.0, count };
    for message in parts.system {
        room.needs("what the system says", message, budget)?;
    }
    let (before, newest) = parts.recent.split_at(parts.recent.len().saturating_sub(1));
    for message in newest {
        room.needs("the newest message, with what the system says,", message, budget)?;
    }
    let mut seen: BTreeSet<Version> = newest.iter().map(|message| message.seq).collect();

    let mut pinned: Vec<&MemoryMessage> = Vec::new();
    for message in parts.pinned.iter().rev() {
        if !seen.contains(&message.seq) && room.takes(message) {
            seen.insert(message.seq);
            pinned.push(message);
        }
    }
    pinned.reverse();

    // Recent messages are a run without gaps: the first that does not fit ends it.
    let mut share = Room { left: room.left * RECENT_SHARE_PERCENT / 100, count };
    let held = share.left;
    let mut first = before.len();
    while first > 0 && (seen.contains(&before[first - 1].seq) || share.takes(&before[first - 1])) {
        first -= 1;
    }
    room.left -= held - share.left;
    seen.extend(before[first..].iter().map(|message| message.seq));

    let mut recalled: Vec<(&Found, &MemoryMessage)> = Vec::new();
    for (found, message) in parts.recalled {
        if !seen.contains(&message.seq) && room.takes(message) {
            seen.insert(message.seq);
            recalled.push((found, message));
        }
    }
    while first > 0 && (seen.contains(&before[first - 1].seq) || room.takes(&before[first - 1])) {
        first -= 1;
        seen.insert(before[first].seq);
    }
    // The result of a call says nothing without the call, and providers refuse it.
    let recent = &parts.recent[first..];
    let orphans = recent.iter().take_while(|message| first > 0 && message.role == Role::Tool).count();
    let recent = if orphans < recent.len() { &recent[orphans..] } else { recent };

    // What is recent stands there, also if it was pinned or found.
    let in_recent: BTreeSet<Version> = recent.iter().map(|message| message.seq).collect();
    pinned.retain(|message| !in_recent.contains(&message.seq));
    recalled.retain(|(_, message)| !in_recent.contains(&message.seq));
    recalled.sort_by_key(|(_, message)| message.seq);
    let in_context: BTreeSet<Version> = pinned.iter().map(|message| message.seq).chain(in_recent).collect();
    let is_out = |message: &&MemoryMessage| {
        !in_context.contains(&message.seq) && !recalled.iter().any(|(_, other)| other.seq == message.seq)
    };
    let left_out = [
        parts.pinned.iter().filter(is_out).count(),
        parts.recalled.iter().map(|(_, message)| message).filter(is_out).count(),
        parts.recent.iter().filter(is_out).count(),
    ];
    let system = parts.system.iter().map(|message| Placed { place: Place::System, message });
    let pinned = pinned.into_iter().map(|message| Placed { place: Place::Pinned, message });
    let recalled =
        recalled.into_iter().map(|(found, message)| Placed { place: Place::Recalled(found.clone()), message });
    let recent = recent.iter().map(|message| Placed { place: Place::Recent, message });
    let messages: Vec<Placed<'m>> = system.chain(pinned).chain(recalled).chain(recent).collect();
    let tokens = messages.iter().fold(Tokens(0), |sum, placed| sum + count(placed.message));
    Ok(Assembled { messages, tokens, left_out })
}

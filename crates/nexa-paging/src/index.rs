//! The index of one agent: words and vectors of every message, active or stored, and which page it is part of.
//!
//! Messages are numbered as they come. A page and a conversation (what lies between two breaks) are runs of numbers, so all
//! three are scored from the same postings and vectors. The page that is still open counts as one: what was said a moment
//! ago is found like everything else.
//!
//! It takes about half a kilobyte a message: a vector of 384 dimensions is 384 bytes, the rest words and places.

use nexa_types::{PageId, Version};

use crate::calendar::Day;
use crate::error::PagingError;
use crate::keywords::Keywords;
use crate::message::{MemoryMessage, keyword_text};
use crate::vectors::{MessageVector, Vectors};
use crate::words::{Term, terms};

/// Messages that an agent remembers; a further one is refused.
pub const MESSAGES_MAX: usize = 1 << 20;
/// Bytes of a message whose words are looked at. The rest of a longer one, as of a tool's listing, is kept and not indexed.
pub const INDEXED_BYTES_MAX: usize = 64 << 10;

/// What the index knows of a message beside its words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub seq: Version,
    pub day: Day,
    pub tokens: u32,
    /// Numbers of its page, its conversation and its speaker.
    pub page: u32,
    pub conversation: u32,
    pub speaker: u32,
}

/// Runs of messages: pages or conversations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Units {
    /// Terms of each.
    pub lens: Vec<u32>,
    /// The number of the first message of each.
    pub firsts: Vec<u32>,
    is_open: bool,
}

impl Units {
    /// The unit that a further message becomes part of.
    fn take(&mut self, message: u32, len: u32) -> u32 {
        if !self.is_open {
            self.lens.push(0);
            self.firsts.push(message);
            self.is_open = true;
        }
        if let Some(last) = self.lens.last_mut() {
            *last += len;
        }
        self.lens.len() as u32 - 1
    }

    /// The messages of a unit, of so many in all.
    pub(crate) fn messages(&self, unit: u32, all: usize) -> std::ops::Range<u32> {
        let next = self.firsts.get(unit as usize + 1).copied().unwrap_or(all as u32);
        self.firsts[unit as usize]..next
    }
}

/// Words and vectors of everything that an agent remembers.
#[derive(Debug, Clone, Default)]
pub struct MemoryIndex {
    pub(crate) keywords: Keywords,
    pub(crate) vectors: Vectors,
    pub(crate) entries: Vec<Entry>,
    pub(crate) pages: Units,
    pub(crate) conversations: Units,
    /// Ids of sealed pages by their numbers.
    pub(crate) ids: Vec<PageId>,
    /// The terms of each speaker's name.
    pub(crate) speakers: Vec<Vec<Term>>,
}

impl MemoryIndex {
    /// How many messages it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many messages have a vector.
    #[must_use]
    pub fn embedded(&self) -> usize {
        self.vectors.have()
    }

    /// Bytes that it takes in memory, nearly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let units = (self.pages.lens.capacity() + self.conversations.lens.capacity()) * 2 * size_of::<u32>();
        let entries = self.entries.capacity() * size_of::<Entry>() + self.ids.capacity() * size_of::<PageId>();
        self.keywords.bytes() + self.vectors.bytes() + entries + units
    }

    /// The place in the log of the newest message.
    #[must_use]
    pub fn last(&self) -> Option<Version> {
        self.entries.last().map(|entry| entry.seq)
    }

    /// The number of the message at a place in the log.
    pub(crate) fn number_of(&self, seq: Version) -> Option<u32> {
        self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok().map(|number| number as u32)
    }

    /// The page of a message; `None` if that is open.
    pub(crate) fn page_of(&self, message: u32) -> Option<PageId> {
        self.ids.get(self.entries[message as usize].page as usize).copied()
    }

    /// Takes the next message, which becomes part of the open page.
    ///
    /// # Errors
    /// [`PagingError::OutOfOrder`] and [`PagingError::Full`].
    pub(crate) fn push(&mut self, message: &MemoryMessage) -> Result<(), PagingError> {
        let (seq, last) = (message.seq, self.last());
        if let Some(last) = last.filter(|last| seq <= *last) {
            return Err(PagingError::OutOfOrder { seq, last });
        }
        if self.len() >= MESSAGES_MAX {
            return Err(PagingError::Full);
        }
        let number = self.len() as u32;
        let words = message_terms(message);
        let len = words.len() as u32;
        let entry = Entry {
            seq,
            day: Day::of(message.at),
            tokens: message.tokens,
            page: self.pages.take(number, len),
            conversation: self.conversations.take(number, len),
            speaker: self.speaker(&message.speaker),
        };
        self.entries.push(entry);
        self.keywords.push(words);
        self.vectors.push();
        Ok(())
    }

    /// The open page is sealed.
    pub(crate) fn seal(&mut self, id: PageId) {
        self.pages.is_open = false;
        self.ids.push(id);
    }

    /// The conversation breaks here.
    pub(crate) fn end_conversation(&mut self) {
        self.conversations.is_open = false;
    }

    /// Whether a vector can be compared with those that are there.
    ///
    /// # Errors
    /// [`PagingError::OtherDimensions`] if it cannot.
    pub(crate) fn fits(&self, dimensions: usize) -> Result<(), PagingError> {
        match self.vectors.dimensions() {
            Some(known) if known != dimensions => Err(PagingError::OtherDimensions { found: dimensions, known }),
            _ => Ok(()),
        }
    }

    /// Gives a message its vector.
    ///
    /// # Errors
    /// [`PagingError::NoMessage`] and [`PagingError::OtherDimensions`].
    pub(crate) fn embed(&mut self, seq: Version, vector: &MessageVector) -> Result<(), PagingError> {
        let number = self.number_of(seq).ok_or(PagingError::NoMessage { seq })?;
        self.fits(vector.dimensions())?;
        self.vectors.set(number, vector);
        Ok(())
    }

    fn speaker(&mut self, name: &str) -> u32 {
        let name = terms(name);
        let known = self.speakers.iter().position(|speaker| *speaker == name);
        known.unwrap_or_else(|| {
            self.speakers.push(name);
            self.speakers.len() - 1
        }) as u32
    }
}

/// The terms of a message.
pub(crate) fn message_terms(message: &MemoryMessage) -> Vec<Term> {
    let text = keyword_text(message);
    terms(&text[..text.floor_char_boundary(INDEXED_BYTES_MAX)])
}

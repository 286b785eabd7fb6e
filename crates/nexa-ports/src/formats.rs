//! In which format a process writes, and what a cluster remembers of that: see [`nexa_event::formats`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

pub use nexa_event::formats::{Floor, Formats};

/// The name of the leader's record that keeps the [`Floor`].
pub const FLOOR_RECORD: &str = "formats/floor";

/// A cluster writes what this build does not read, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster writes format {format}, and this build reads formats {} to {}: start a release that reads {format}; \
     what was raised by `nexa formats raise` does not go back",
    reads.oldest,
    reads.newest
)]
pub struct Unreadable {
    /// What the cluster writes.
    pub format: u16,
    /// What this build reads.
    pub reads: Formats,
}

/// What this process reads, and in which format it writes. Clones are the same.
#[derive(Debug, Clone)]
pub struct Writing {
    reads: Formats,
    format: Arc<AtomicU16>,
}

impl Writing {
    /// One of several that do not know of each other yet: it writes the oldest format until it is told of another.
    #[must_use]
    pub fn oldest(reads: Formats) -> Self {
        Self { reads, format: Arc::new(AtomicU16::new(reads.oldest)) }
    }

    /// The formats that this process reads.
    #[must_use]
    pub fn reads(&self) -> Formats {
        self.reads
    }

    /// The format in which it writes now.
    #[must_use]
    pub fn format(&self) -> u16 {
        self.format.load(Ordering::Relaxed)
    }

    /// Writes this format from here on, unless it writes a newer one already.
    ///
    /// # Errors
    /// [`Unreadable`] if it does not know it; nothing changes then.
    pub fn raise(&self, format: u16) -> Result<(), Unreadable> {
        self.check(format)?;
        self.format.fetch_max(format, Ordering::Relaxed);
        Ok(())
    }

    /// Whether it knows a format.
    ///
    /// # Errors
    /// [`Unreadable`] if it does not.
    pub fn check(&self, format: u16) -> Result<(), Unreadable> {
        if self.reads.has(format) { Ok(()) } else { Err(Unreadable { format, reads: self.reads }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_only_grows_and_never_beyond_what_is_read() {
        let writing = Writing::oldest(Formats { oldest: 1, newest: 3 });
        let same = writing.clone();
        assert_eq!(writing.format(), 1);
        assert_eq!((same.raise(2), same.raise(1)), (Ok(()), Ok(())));
        assert_eq!(writing.format(), 2);
        let told = writing.raise(4).expect_err("it does not read that").to_string();
        assert!(told.contains("writes format 4") && told.contains("formats 1 to 3"), "{told}");
        assert_eq!(writing.format(), 2);
    }
}

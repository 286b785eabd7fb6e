//! How a command fails: what failed, why, what to do, and with which exit code.

use std::fmt;

/// Exit codes. Stable: scripts depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something went wrong; a program has errors.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The workload ended, but not well.
    RunFailed = 3,
    /// There is no such thing.
    NotFound = 4,
    /// The server cannot be reached, or is overloaded.
    Unavailable = 5,
    /// The deadline passed.
    Deadline = 6,
    /// The node's lease was lost: whatever it was, it is not that any more. To be started anew.
    LeaseLost = 7,
    /// The node's own store takes no more writes, since its disk has failed. To be started anew once that is sound.
    StoreFailed = 8,
    /// Somebody pressed Ctrl-C; as shells have it, 128 and the signal's number.
    Interrupted = 130,
}

/// A failure of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// With which code the process ends.
    pub exit: Exit,
    /// What failed and why. Empty if that was said already.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// Something went wrong.
    pub fn error(message: impl Into<String>) -> Self {
        Self { exit: Exit::Error, message: message.into(), hint: None }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None }
    }

    /// A failure that was already told in detail.
    pub fn told(exit: Exit) -> Self {
        Self { exit, message: String::new(), hint: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "error: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(out, "\nhelp: {hint}")?;
        }
        Ok(())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::error(error.to_string())
    }
}

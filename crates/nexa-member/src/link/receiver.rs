//! The receiving end of a lane: what is new, what has been seen, and how much more may come.

use nexa_types::Generation;
use nexa_types::planted::{Bug, planted};

use super::{MESSAGE_COST, Report};

/// One connection to a [`Receiver`]. A later one ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment(u64);

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it to who it is for.
    Deliver,
    /// It has been delivered before: forget it.
    Seen,
}

/// Why a connection has to be closed: what came breaks the protocol, or comes too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// A later connection of the same lane has been attached.
    #[error("a later connection has taken over")]
    Superseded,
    /// Messages are missing.
    #[error("message {got} came after {last}: some are missing")]
    Gap {
        /// The last one.
        last: u64,
        /// The one that came.
        got: u64,
    },
    /// More came than was granted.
    #[error("{sent} bytes came where {granted} were granted")]
    Overdrawn {
        /// Bytes that came since the welcome, costs included.
        sent: u64,
        /// Bytes that were granted since the welcome.
        granted: u64,
    },
    /// It reports what cannot be.
    #[error("message {acked} is acknowledged, and {sent} was the last that was sent")]
    AckAhead {
        /// What it says.
        acked: u64,
        /// What is possible.
        sent: u64,
    },
}

/// The receiving end of one lane of one sending node.
#[derive(Debug)]
pub struct Receiver {
    window: u64,
    generation: Generation,
    attachment: u64,
    /// The last message that was delivered.
    last: u64,
    /// Bytes that have come and are not handled, over all connections and runs of the sender.
    held: u64,
    /// Bytes that have come since the attachment.
    taken: u64,
    /// Bytes that were granted since the attachment.
    granted: u64,
}

impl Receiver {
    /// Who has not got anything, and holds at most so many bytes unhandled.
    pub fn new(window: usize) -> Self {
        Self { window: window as u64, generation: Generation(0), attachment: 0, last: 0, held: 0, taken: 0, granted: 0 }
    }

    /// A new connection of a run of the sender: the one before is over. Gives the last message that it has, and how
    /// many bytes may be sent.
    ///
    /// # Errors
    /// The generation that has been seen, if it is a later one.
    pub fn attach(&mut self, generation: Generation) -> Result<(Attachment, u64, u64), Generation> {
        if generation < self.generation {
            return Err(self.generation);
        }
        if generation > self.generation || planted(Bug::LastForgotten) {
            self.generation = generation;
            self.last = 0;
        }
        self.attachment += 1;
        self.taken = 0;
        // What earlier connections brought and nobody has handled yet still lies here.
        self.granted = self.window.saturating_sub(self.held);
        Ok((Attachment(self.attachment), self.last, self.granted))
    }

    /// Judges a message by its number and the length of its body. Whatever the verdict, its bytes are held until
    /// [`Receiver::handled`].
    ///
    /// # Errors
    /// Why the connection has to be closed.
    pub fn receive(&mut self, attachment: Attachment, seq: u64, body_len: usize) -> Result<Verdict, Breach> {
        if attachment.0 != self.attachment {
            return Err(Breach::Superseded);
        }
        if seq > self.last + 1 {
            return Err(Breach::Gap { last: self.last, got: seq });
        }
        let taken = self.taken.saturating_add(cost(body_len));
        if taken > self.granted {
            return Err(Breach::Overdrawn { sent: taken, granted: self.granted });
        }
        self.taken = taken;
        self.held += cost(body_len);
        if seq <= self.last {
            return Ok(Verdict::Seen);
        }
        self.last = seq;
        Ok(Verdict::Deliver)
    }

    /// A message has been handled, or was seen before: its bytes may come again, on whatever connection is there.
    pub fn handled(&mut self, body_len: usize) {
        let cost = cost(body_len).min(self.held);
        self.held -= cost;
        self.granted += cost;
    }

    /// What to tell the sender.
    pub fn report(&self) -> Report {
        Report { acked: self.last, granted: self.granted }
    }

    /// Bytes that are not handled, costs included.
    pub fn held_bytes(&self) -> u64 {
        self.held
    }
}

fn cost(body_len: usize) -> u64 {
    (body_len + MESSAGE_COST) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_sender_is_cut_off_and_changes_nothing() {
        let mut receiver = Receiver::new(1_000);
        let (first, last, credit) = receiver.attach(Generation(3)).expect("new");
        assert_eq!((last, credit), (0, 1_000));
        assert_eq!(receiver.receive(first, 2, 1), Err(Breach::Gap { last: 0, got: 2 }));
        assert_eq!(receiver.receive(first, 1, 937), Err(Breach::Overdrawn { sent: 1_001, granted: 1_000 }));
        assert!(matches!(receiver.receive(first, 1, usize::MAX - MESSAGE_COST), Err(Breach::Overdrawn { .. })));
        assert_eq!(receiver.receive(first, 1, 100), Ok(Verdict::Deliver));
        let (second, last, credit) = receiver.attach(Generation(3)).expect("the same run");
        assert_eq!((last, credit), (1, 1_000 - 164), "what is not handled still counts");
        assert_eq!(receiver.receive(first, 2, 1), Err(Breach::Superseded));
        assert_eq!(receiver.receive(second, 0, 0), Ok(Verdict::Seen));
        assert_eq!(receiver.receive(second, u64::MAX, 0), Err(Breach::Gap { last: 1, got: u64::MAX }));
        assert_eq!(receiver.attach(Generation(2)), Err(Generation(3)));
    }
}

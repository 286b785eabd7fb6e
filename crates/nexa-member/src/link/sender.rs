//! The sending end of a lane: what waits, what is under way, and what comes back when that cannot be delivered.

use std::collections::VecDeque;

use bytes::Bytes;
use nexa_types::planted::{Bug, planted};
use nexa_types::{Generation, Millis};

use super::{Breach, MESSAGE_COST, Report};

/// Slots of an empty ring that are kept for the next burst.
const SLOTS_KEPT: usize = 1_024;

/// What a [`Sender`] holds at most; the next message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Messages that wait or are not acknowledged.
    pub messages: usize,
    /// Their bytes, costs included.
    pub bytes: usize,
}

/// What a message wants of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To be heard.
    Tell,
    /// To be answered, up to a moment of the sender's clock.
    Ask {
        /// When nobody waits for the answer any more, in milliseconds of any clock that only goes forward.
        until: Millis,
    },
    /// Nothing any more: a question that nobody waits for. It keeps its place in the order.
    Void,
}

/// A message that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who handles it at the receiver.
    pub service: u16,
    /// What it wants.
    pub kind: Kind,
    /// What it says.
    pub body: Bytes,
}

/// A message as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To be heard.
    Tell {
        /// Who handles it.
        service: u16,
        /// What it says.
        body: Bytes,
    },
    /// To be answered under its ticket.
    Ask {
        /// Who handles it.
        service: u16,
        /// What [`Sender::accept`] gave.
        ticket: u64,
        /// How long somebody waits for the answer. Clocks differ between nodes, so a moment would say nothing.
        remaining: Millis,
        /// What it says.
        body: Bytes,
    },
    /// Only its place in the order.
    Void,
}

/// A message that was refused because the sender holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as much waits already as may: try again when some of it has been delivered")]
pub struct Full;

/// Why a connection whose receiver has answered is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Another run of the receiver answered than messages were accepted for.
    #[error("generation {answered} answered where {wanted} was wanted")]
    OtherRun {
        /// Whom messages were accepted for.
        wanted: Generation,
        /// Who answered.
        answered: Generation,
    },
    /// The receiver says that it has had what was never sent, or has not what it acknowledged.
    #[error("the receiver had messages up to {last}, where {from} to {to} is possible")]
    OtherCount {
        /// What it says.
        last: u64,
        /// The least that is possible.
        from: u64,
        /// The most that is possible.
        to: u64,
    },
}

/// The sending end of one lane to one run of a receiver.
///
/// Messages lie in one ring in the order in which they were accepted: first those that are under way, then those that
/// wait. A ticket counts what was ever accepted; a sequence counts what the receiver has seen of this run of the node,
/// which may be more, if there was a `Sender` before this one.
#[derive(Debug)]
pub struct Sender {
    peer: Generation,
    bounds: Bounds,
    ring: VecDeque<Message>,
    bytes: usize,
    /// The ticket of the ring's first message.
    ticket: u64,
    /// The sequence of the ring's first message; `None` before the first welcome says where to start.
    seq: Option<u64>,
    /// How many of the ring are under way on this connection.
    sent: usize,
    /// How many of the ring have been under way on any connection.
    sent_ever: usize,
    is_connected: bool,
    granted: u64,
    spent: u64,
    /// How many messages went out that had gone out before.
    resent: u64,
}

impl Sender {
    /// Who has not sent anything to this run of a receiver yet.
    pub fn new(peer: Generation, bounds: Bounds) -> Self {
        Self {
            peer,
            bounds,
            ring: VecDeque::new(),
            bytes: 0,
            ticket: 1,
            seq: None,
            sent: 0,
            sent_ever: 0,
            is_connected: false,
            granted: 0,
            spent: 0,
            resent: 0,
        }
    }

    /// Keeps a message until it is delivered, and gives its ticket: from 1, one more each.
    ///
    /// # Errors
    /// [`Full`]; the message was not accepted then.
    pub fn accept(&mut self, message: Message) -> Result<u64, Full> {
        let cost = cost(&message);
        let is_full = self.ring.len() >= self.bounds.messages || self.bytes + cost > self.bounds.bytes;
        if is_full && !planted(Bug::LinkUnbounded) {
            return Err(Full);
        }
        self.bytes += cost;
        self.ring.push_back(message);
        Ok(self.ticket + self.ring.len() as u64 - 1)
    }

    /// The receiver has welcomed a connection: what it has not had is sent again, from the first.
    ///
    /// # Errors
    /// [`Unfit`] if this receiver cannot be sent to; the connection is to be closed.
    pub fn welcomed(&mut self, generation: Generation, last: u64, credit: u64) -> Result<(), Unfit> {
        if generation != self.peer && !planted(Bug::OtherRunWelcomed) {
            return Err(Unfit::OtherRun { wanted: self.peer, answered: generation });
        }
        match self.seq {
            // Nothing was sent before the first welcome, so what the receiver has had came from an earlier `Sender`.
            None => self.seq = Some(last.saturating_add(1)),
            Some(seq) => {
                let (from, to) = (seq - 1, seq - 1 + self.sent_ever as u64);
                if !(from..=to).contains(&last) {
                    return Err(Unfit::OtherCount { last, from, to });
                }
                self.forget((last - from) as usize);
            }
        }
        if !planted(Bug::NotSentAgain) {
            self.sent = 0;
        }
        self.granted = credit;
        self.spent = 0;
        self.is_connected = true;
        Ok(())
    }

    /// Gives what may be sent now to `each`, in order, up to `bytes_max` with costs or the first message that reaches
    /// it. Answers with the sequence of the first one and how many there were.
    pub fn take(&mut self, bytes_max: usize, now: Millis, mut each: impl FnMut(Frame)) -> Option<(u64, usize)> {
        let first = self.seq.filter(|_| self.is_connected)? + self.sent as u64;
        let (start, mut bytes) = (self.sent, 0);
        while bytes < bytes_max {
            let Some(message) = self.ring.get_mut(self.sent) else { break };
            if matches!(message.kind, Kind::Ask { until } if until <= now) {
                self.bytes -= message.body.len();
                clear(message);
            }
            let cost = cost(message);
            if self.spent + cost as u64 > self.granted && !planted(Bug::CreditIgnored) {
                break;
            }
            let Message { service, kind, body } = message;
            each(match *kind {
                Kind::Tell => Frame::Tell { service: *service, body: body.clone() },
                Kind::Ask { until } => Frame::Ask {
                    service: *service,
                    ticket: self.ticket + self.sent as u64,
                    remaining: until - now,
                    body: body.clone(),
                },
                Kind::Void => Frame::Void,
            });
            self.spent += cost as u64;
            bytes += cost;
            self.sent += 1;
        }
        self.resent += self.sent_ever.min(self.sent).saturating_sub(start) as u64;
        self.sent_ever = self.sent_ever.max(self.sent);
        let count = self.sent - start;
        if planted(Bug::AckOnSend) {
            self.forget(count);
        }
        (count > 0).then_some((first, count))
    }

    /// The receiver has reported on this connection.
    ///
    /// # Errors
    /// [`Breach::AckAhead`] if it acknowledges what is not under way: the connection is to be closed.
    pub fn reported(&mut self, report: Report) -> Result<(), Breach> {
        let before = self.seq.map_or(0, |seq| seq - 1);
        let sent = before + self.sent as u64;
        if report.acked > sent {
            return Err(Breach::AckAhead { acked: report.acked, sent });
        }
        self.granted = self.granted.max(report.granted);
        self.forget(report.acked.saturating_sub(before) as usize);
        Ok(())
    }

    /// Nobody waits for the answer to this question any more. If it is not under way it will not be asked.
    pub fn withdraw(&mut self, ticket: u64) {
        let Some(at) = ticket.checked_sub(self.ticket).map(|at| at as usize) else { return };
        if at < self.sent {
            return;
        }
        if let Some(message) = self.ring.get_mut(at).filter(|message| matches!(message.kind, Kind::Ask { .. })) {
            self.bytes -= message.body.len();
            clear(message);
        }
    }

    /// The connection is gone. Tells wait for the next one; questions do not, for whoever asked has been told that the
    /// link broke.
    pub fn cut(&mut self) {
        self.is_connected = false;
        if !planted(Bug::NotSentAgain) {
            self.sent = 0;
        }
        for message in self.ring.iter_mut().filter(|message| matches!(message.kind, Kind::Ask { .. })) {
            self.bytes -= message.body.len();
            clear(message);
        }
    }

    /// Ends it: the receiver's run is over, or nobody wants to talk to it. Gives back what was told and is not known to
    /// be delivered, in order.
    pub fn end(self) -> Vec<Message> {
        self.ring.into_iter().filter(|message| message.kind == Kind::Tell).collect()
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// How many messages went out again, because a connection ended before they were acknowledged.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Whom it sends to.
    pub fn peer(&self) -> Generation {
        self.peer
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Bytes that it holds, costs included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops the ring's first messages: they were delivered.
    fn forget(&mut self, count: usize) {
        for message in self.ring.drain(..count) {
            self.bytes -= cost(&message);
        }
        self.ticket += count as u64;
        self.seq = self.seq.map(|seq| seq + count as u64);
        self.sent = self.sent.saturating_sub(count);
        self.sent_ever -= count;
        if self.ring.is_empty() && self.ring.capacity() > SLOTS_KEPT {
            self.ring.shrink_to(SLOTS_KEPT);
        }
    }
}

fn cost(message: &Message) -> usize {
    message.body.len() + MESSAGE_COST
}

fn clear(message: &mut Message) {
    message.kind = Kind::Void;
    message.body = Bytes::new();
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { messages: 3, bytes: 400 };

    fn tell(text: &'static str) -> Message {
        Message { service: 2, kind: Kind::Tell, body: Bytes::from_static(text.as_bytes()) }
    }

    fn ask(until: u64) -> Message {
        Message { service: 6, kind: Kind::Ask { until: Millis(until) }, body: Bytes::from_static(b"?") }
    }

    fn taken(sender: &mut Sender, now: u64) -> (Option<u64>, Vec<Frame>) {
        let mut frames = Vec::new();
        let first = sender.take(1 << 20, Millis(now), |frame| frames.push(frame)).map(|(first, _)| first);
        (first, frames)
    }

    fn sender() -> Sender {
        Sender::new(Generation(4), BOUNDS)
    }

    #[test]
    fn more_than_the_bounds_is_refused_and_nothing_is_lost() {
        let mut sender = sender();
        for ticket in 1..=3 {
            assert_eq!(sender.accept(tell("x")), Ok(ticket));
        }
        assert_eq!(sender.accept(tell("x")), Err(Full));
        assert_eq!((sender.len(), sender.bytes()), (3, 3 * (MESSAGE_COST + 1)));
        let mut sender = Sender::new(Generation(4), BOUNDS);
        let long = Message { body: Bytes::from(vec![0; 400]), ..tell("") };
        assert_eq!(sender.accept(long), Err(Full));
        assert_eq!(sender.accept(tell("x")), Ok(1));
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_under_its_number() {
        let mut sender = sender();
        for text in ["a", "b", "c"] {
            sender.accept(tell(text)).expect("room");
        }
        assert_eq!(taken(&mut sender, 0).0, None, "no connection yet");
        sender.welcomed(Generation(4), 57, 1_000).expect("fits");
        let (first, frames) = taken(&mut sender, 0);
        assert_eq!((first, frames.len()), (Some(58), 3));
        sender.reported(Report { acked: 58, granted: 1_000 }).expect("possible");
        sender.cut();
        sender.welcomed(Generation(4), 59, 1_000).expect("fits");
        let (first, frames) = taken(&mut sender, 0);
        assert_eq!((first, frames), (Some(60), vec![Frame::Tell { service: 2, body: Bytes::from_static(b"c") }]));
    }

    #[test]
    fn nothing_is_sent_beyond_what_was_granted() {
        let mut sender = sender();
        for text in ["a", "b", "c"] {
            sender.accept(tell(text)).expect("room");
        }
        sender.welcomed(Generation(4), 0, 130).expect("fits");
        assert_eq!(taken(&mut sender, 0).1.len(), 2);
        sender.reported(Report { acked: 1, granted: 194 }).expect("possible");
        assert_eq!(taken(&mut sender, 0).1.len(), 0);
        sender.reported(Report { acked: 1, granted: 195 }).expect("possible");
        assert_eq!(taken(&mut sender, 0), (Some(3), vec![Frame::Tell { service: 2, body: Bytes::from_static(b"c") }]));
    }

    #[test]
    fn a_question_goes_out_with_the_time_that_is_left_and_not_after_it() {
        let mut sender = sender();
        for until in [100, 50, 100] {
            sender.accept(ask(until)).expect("room");
        }
        sender.withdraw(3);
        sender.welcomed(Generation(4), 0, 1_000).expect("fits");
        let body = Bytes::from_static(b"?");
        let asked = Frame::Ask { service: 6, ticket: 1, remaining: Millis(40), body };
        assert_eq!(taken(&mut sender, 60), (Some(1), vec![asked, Frame::Void, Frame::Void]));
        assert_eq!(sender.bytes(), 3 * MESSAGE_COST + 1);
        // The one that is under way is not asked again.
        sender.cut();
        sender.welcomed(Generation(4), 0, 1_000).expect("fits");
        assert_eq!(taken(&mut sender, 60), (Some(1), vec![Frame::Void, Frame::Void, Frame::Void]));
        assert_eq!(sender.end(), Vec::new());
    }

    #[test]
    fn a_receiver_that_says_what_cannot_be_is_not_believed() {
        let mut sender = sender();
        sender.accept(tell("a")).expect("room");
        let other = Unfit::OtherRun { wanted: Generation(4), answered: Generation(5) };
        assert_eq!(sender.welcomed(Generation(5), 0, 1_000), Err(other));
        sender.welcomed(Generation(4), 0, 1_000).expect("fits");
        assert_eq!(sender.reported(Report { acked: 1, granted: 0 }), Err(Breach::AckAhead { acked: 1, sent: 0 }));
        assert_eq!(taken(&mut sender, 0).0, Some(1));
        sender.cut();
        assert!(matches!(sender.welcomed(Generation(4), 2, 1_000), Err(Unfit::OtherCount { last: 2, from: 0, to: 1 })));
        sender.welcomed(Generation(4), 1, 1_000).expect("fits");
        assert!(sender.is_empty());
        assert!(matches!(sender.welcomed(Generation(4), 0, 1_000), Err(Unfit::OtherCount { last: 0, from: 1, to: 1 })));
    }
}

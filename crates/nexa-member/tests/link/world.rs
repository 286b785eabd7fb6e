//! Two ends of a lane and a network that breaks, over random histories.
//!
//! Several connections are there at once: the receiver may still read from an old one, and the sender may still hear
//! from it, while a new one is being welcomed. What is on a connection arrives in order or not at all.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use nexa_member::link::{
    Attachment, Bounds, Class, Doorkeeper, Frame, Hello, Kind, Lane, Message, PROTOCOL, Receiver, Report, Sender,
    Verdict, Welcome,
};
use nexa_types::{Generation, Millis, NodeId};

/// Something that must hold does not.
macro_rules! must {
    ($holds:expr, $id:literal, $($why:tt)+) => {
        if !$holds {
            return Err(format!("{}: {}", $id, format_args!($($why)+)));
        }
    };
}

pub(crate) const BOUNDS: Bounds = Bounds { messages: 12, bytes: 2_000 };
pub(crate) const WINDOW: usize = 1_000;
pub(crate) const BODY_MAX: usize = 300;

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Tell(usize),
    Ask(usize, u64),
    Withdraw(usize),
    Send(usize),
    Carry,
    CarryOld,
    Handle,
    Report,
    Hear,
    HearOld,
    Cut,
    Dial,
    Greet,
    Answer,
    Connect,
    RestartReceiver,
    /// The same, and nobody tells the sender.
    RestartUnseen,
    RestartSender,
    ForgetSender,
    Later(u64),
}

/// A step by two numbers, the first below 100. What is common has a wide range, what ends everything a narrow one.
pub(crate) fn op((which, how): (u8, u16)) -> Op {
    let how = usize::from(how);
    let len = 8 + how % (BODY_MAX - 8);
    match which {
        0..=21 => Op::Tell(len),
        22..=27 => Op::Ask(len, 1 + how as u64 % 40),
        28 => Op::Withdraw(how % 4),
        29..=44 => Op::Send(1 + how % 900),
        45..=62 => Op::Carry,
        63 => Op::CarryOld,
        64..=74 => Op::Handle,
        75..=80 => Op::Report,
        81..=86 => Op::Hear,
        87 => Op::HearOld,
        88 => Op::Cut,
        89 => Op::Dial,
        90 => Op::Greet,
        91 => Op::Answer,
        92..=95 => Op::Connect,
        96 if how % 4 == 0 => Op::RestartReceiver,
        96 if how % 4 == 1 => Op::RestartUnseen,
        97 if how % 4 == 0 => Op::RestartSender,
        98 if how % 4 == 0 => Op::ForgetSender,
        _ => Op::Later(1 + how as u64 % 19),
    }
}

/// One connection, with what is under way on it.
struct Wire {
    hello: Hello,
    /// For which `Sender` it was dialled.
    sender: u64,
    there: VecDeque<(u64, Frame)>,
    back: VecDeque<Report>,
    welcome: Option<Welcome>,
    attachment: Option<Attachment>,
    is_taken: bool,
}

pub(crate) struct World {
    now: Millis,
    sender: Sender,
    sender_run: u64,
    /// Grows with each `Sender`.
    sender_no: u64,
    receiver_run: u64,
    door: Doorkeeper,
    receiver: Receiver,
    wires: Vec<Wire>,
    /// The wire that the sender uses.
    used: Option<usize>,
    unhandled: VecDeque<usize>,
    next: u64,
    /// What was accepted: its run of the sender, and what became of it.
    pub(crate) fates: BTreeMap<u64, Fate>,
    tickets: BTreeMap<u64, u64>,
    pub(crate) delivered: Vec<(u64, u64)>,
    /// The last sequence that each `Sender` has sent, and how many were sent more than once.
    sent_up_to: BTreeMap<u64, u64>,
    pub(crate) sent_again: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fate {
    is_ask: bool,
    until: Millis,
    pub(crate) delivered: u32,
    pub(crate) given_back: bool,
    is_dropped: bool,
    sender: u64,
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a name")
}

fn door() -> Doorkeeper {
    Doorkeeper::new("c".into(), node("b"))
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: Millis(1_000),
            sender: Sender::new(Generation(1), BOUNDS),
            sender_run: 1,
            sender_no: 1,
            receiver_run: 1,
            door: door(),
            receiver: Receiver::new(WINDOW),
            wires: Vec::new(),
            used: None,
            unhandled: VecDeque::new(),
            next: 0,
            fates: BTreeMap::new(),
            tickets: BTreeMap::new(),
            delivered: Vec::new(),
            sent_up_to: BTreeMap::new(),
            sent_again: 0,
        }
    }

    fn accept(&mut self, len: usize, kind: Kind) {
        let mut body = vec![0; len];
        body[..8].copy_from_slice(&self.next.to_le_bytes());
        if let Ok(ticket) = self.sender.accept(Message { service: 1, kind, body: Bytes::from(body) }) {
            let until = if let Kind::Ask { until } = kind { until } else { Millis(0) };
            let (is_ask, sender) = (kind != Kind::Tell, self.sender_no);
            let fate = Fate { is_ask, until, delivered: 0, given_back: false, is_dropped: false, sender };
            self.fates.insert(self.next, fate);
            self.tickets.insert(ticket, self.next);
            self.next += 1;
        }
    }

    /// The sender's connection is over. Every question that it holds is answered with that.
    fn cut(&mut self) {
        self.used = None;
        self.sender.cut();
        let sender = self.sender_no;
        self.fates
            .values_mut()
            .filter(|fate| fate.is_ask && fate.sender == sender)
            .for_each(|fate| fate.is_dropped = true);
    }

    fn new_sender(&mut self) {
        let sender = std::mem::replace(&mut self.sender, Sender::new(Generation(self.receiver_run), BOUNDS));
        for message in sender.end() {
            let id = id_of(&message.body);
            self.fates.get_mut(&id).expect("accepted").given_back = true;
        }
        let sender = self.sender_no;
        self.fates
            .values_mut()
            .filter(|fate| fate.is_ask && fate.sender == sender)
            .for_each(|fate| fate.is_dropped = true);
        self.sender_no += 1;
        self.used = None;
        self.tickets.clear();
    }

    fn restart_receiver(&mut self) {
        self.receiver_run += 1;
        self.door = door();
        self.receiver = Receiver::new(WINDOW);
        self.unhandled.clear();
        self.wires.iter_mut().for_each(|wire| {
            wire.attachment = None;
            wire.there.clear();
        });
    }

    fn deliver(&mut self, at: usize) -> Result<(), String> {
        let wire = &mut self.wires[at];
        let Some(attachment) = wire.attachment else { return Ok(()) };
        let Some((seq, frame)) = wire.there.pop_front() else { return Ok(()) };
        let body = match &frame {
            Frame::Tell { body, .. } | Frame::Ask { body, .. } => body.clone(),
            Frame::Void => Bytes::new(),
        };
        match self.receiver.receive(attachment, seq, body.len()) {
            Ok(Verdict::Seen) => {
                must!(false, "LK-1", "message {seq} was sent although the welcome said that it was there")
            }
            Ok(Verdict::Deliver) => {
                self.unhandled.push_back(body.len());
                if let Frame::Ask { ticket, remaining, .. } = &frame {
                    must!(remaining.0 > 0, "LK-3", "a question without time was asked");
                    must!(*ticket > 0, "LK-3", "a question has no ticket");
                }
                if frame != Frame::Void {
                    let id = id_of(&body);
                    self.fates.get_mut(&id).expect("accepted").delivered += 1;
                    self.delivered.push((self.receiver_run, id));
                }
            }
            Err(breach) => {
                must!(breach == nexa_member::link::Breach::Superseded, "LK-2", "{breach}");
                wire.attachment = None;
            }
        }
        Ok(())
    }

    fn hear(&mut self, at: usize) -> Result<(), String> {
        let Some(report) = self.wires[at].back.pop_front() else { return Ok(()) };
        // What an old connection still says is not listened to: its numbers may be those of another `Sender`.
        if self.used == Some(at) {
            let heard = self.sender.reported(report);
            must!(heard == Ok(()), "LK-3", "a report is refused: {heard:?}");
        }
        Ok(())
    }

    fn dial(&mut self) {
        let hello = Hello {
            cluster: "c".into(),
            node: node("a"),
            generation: Generation(self.sender_run),
            to: node("b"),
            protocol: PROTOCOL,
            lane: Lane { class: Class::Work, connection: 0 },
        };
        self.wires.push(Wire {
            hello,
            sender: self.sender_no,
            there: VecDeque::new(),
            back: VecDeque::new(),
            welcome: None,
            attachment: None,
            is_taken: false,
        });
    }

    /// The receiver hears the oldest hello that it has not answered.
    fn greet(&mut self) {
        let Some(wire) = self.wires.iter_mut().find(|wire| !wire.is_taken) else { return };
        wire.is_taken = true;
        let Ok(protocol) = self.door.admit(&wire.hello, true) else { return };
        let Ok((attachment, last, credit)) = self.receiver.attach(wire.hello.generation) else { return };
        wire.attachment = Some(attachment);
        wire.welcome =
            Some(Welcome { node: node("b"), generation: Generation(self.receiver_run), protocol, last, credit });
    }

    /// The sender hears the newest welcome of its own dials; earlier ones are over with it.
    fn answer(&mut self) -> Result<(), String> {
        let sender = self.sender_no;
        let newest = (0..self.wires.len()).rev().find(|at| self.wires[*at].sender == sender);
        let Some(at) = newest else { return Ok(()) };
        let Some(welcome) = self.wires[at].welcome.take() else { return Ok(()) };
        self.cut();
        if welcome.generation == self.sender.peer() {
            // A welcome of a connection that a later one of the same lane has ended is a welcome still.
            let welcomed = self.sender.welcomed(welcome.generation, welcome.last, welcome.credit);
            must!(welcomed == Ok(()), "LK-3", "a welcome is refused: {welcomed:?}");
            self.used = Some(at);
        } else {
            let welcomed = self.sender.welcomed(welcome.generation, welcome.last, welcome.credit);
            must!(welcomed.is_err(), "LK-1", "another run of the receiver is taken for the one that was meant");
            self.new_sender();
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), String> {
        self.dial();
        while self.wires.iter().any(|wire| !wire.is_taken) {
            self.greet();
        }
        self.answer()
    }

    fn send(&mut self, bytes: usize) {
        let Some(at) = self.used else { return };
        let mut frames = Vec::new();
        if let Some((first, count)) = self.sender.take(bytes, self.now, |frame| frames.push(frame)) {
            assert_eq!(count, frames.len());
            let sent_before = self.sent_up_to.get(&self.sender_no).copied().unwrap_or_default();
            let last = first + count as u64 - 1;
            self.sent_again += (last.min(sent_before) + 1).saturating_sub(first);
            self.sent_up_to.insert(self.sender_no, last.max(sent_before));
            self.wires[at].there.extend((first..).zip(frames));
        }
    }

    pub(crate) fn step(&mut self, op: &Op) -> Result<(), String> {
        let newest = self.wires.len().checked_sub(1);
        match *op {
            Op::Tell(len) => self.accept(len, Kind::Tell),
            Op::Ask(len, span) => self.accept(len, Kind::Ask { until: self.now + Millis(span) }),
            Op::Withdraw(back) => {
                if let Some((ticket, id)) = self.tickets.iter().rev().nth(back) {
                    self.sender.withdraw(*ticket);
                    let fate = self.fates.get_mut(id).expect("accepted");
                    fate.is_dropped |= fate.is_ask;
                }
            }
            Op::Send(bytes) => self.send(bytes),
            Op::Carry => {
                if let Some(at) = self.used {
                    self.deliver(at)?;
                }
            }
            Op::CarryOld => {
                for at in 0..self.wires.len() {
                    self.deliver(at)?;
                }
            }
            Op::Handle => {
                if let Some(len) = self.unhandled.pop_front() {
                    self.receiver.handled(len);
                }
            }
            Op::Report => {
                if let Some(wire) = self.used.map(|at| &mut self.wires[at])
                    && wire.attachment.is_some()
                {
                    wire.back.push_back(self.receiver.report());
                }
            }
            Op::Hear => {
                if let Some(at) = self.used {
                    self.hear(at)?;
                }
            }
            Op::HearOld => {
                for at in 0..self.wires.len() {
                    self.hear(at)?;
                }
            }
            Op::Cut => {
                if let Some(at) = self.used {
                    // Of what is under way, some may still arrive.
                    let kept = self.wires[at].there.len() / 2;
                    self.wires[at].there.truncate(kept);
                }
                self.cut();
            }
            Op::Dial => self.dial(),
            Op::Greet => self.greet(),
            Op::Answer => self.answer()?,
            Op::Connect => self.connect()?,
            Op::RestartReceiver => {
                self.restart_receiver();
                if newest.is_some_and(|at| at % 2 == 0) {
                    // Membership may say so before or after the connection breaks.
                    self.cut();
                }
                self.new_sender();
            }
            Op::RestartUnseen => self.restart_receiver(),
            Op::RestartSender => {
                self.sender_run += 1;
                self.new_sender();
                // A process that has ended gives nothing back.
                let over = self.sender_no;
                self.fates.values_mut().filter(|fate| fate.sender < over).for_each(|fate| fate.given_back = true);
            }
            Op::ForgetSender => self.new_sender(),
            Op::Later(span) => self.now += Millis(span),
        }
        self.check()
    }

    fn check(&self) -> Result<(), String> {
        let (len, bytes) = (self.sender.len(), self.sender.bytes());
        must!(len <= BOUNDS.messages && bytes <= BOUNDS.bytes, "LK-4", "{len} messages of {bytes} bytes are held");
        let held = self.receiver.held_bytes();
        must!(held <= WINDOW as u64, "LK-5", "{held} bytes are not handled");
        Ok(())
    }

    /// Nothing breaks any more: everything that is held gets there.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        // Once more if it finds another run of the receiver than it meant.
        for _ in 0..2 {
            self.connect()?;
            if self.used.is_some() {
                break;
            }
        }
        must!(self.used.is_some(), "LK-3", "the newest connection is not welcome");
        let at = self.used.unwrap_or_default();
        for _ in 0..4 * BOUNDS.messages {
            self.send(1 << 20);
            while !self.wires[at].there.is_empty() {
                self.deliver(at)?;
            }
            while let Some(len) = self.unhandled.pop_front() {
                self.receiver.handled(len);
            }
            let report = self.receiver.report();
            self.wires[at].back.push_back(report);
            while !self.wires[at].back.is_empty() {
                self.hear(at)?;
            }
            self.check()?;
        }
        must!(self.sender.is_empty(), "LK-3", "{} messages are left", self.sender.len());
        let (sent, held) = (self.sender.bytes(), self.receiver.held_bytes());
        must!(sent == 0 && held == 0, "LK-4", "of nothing {sent} and {held} bytes are held");
        for (id, fate) in &self.fates {
            must!(fate.delivered <= 1, "LK-1", "message {id} was delivered {} times", fate.delivered);
            let is_expired = fate.is_ask && fate.until <= self.now;
            let is_known = fate.delivered == 1 || fate.given_back || (fate.is_ask && (fate.is_dropped || is_expired));
            must!(is_known, "LK-3", "nobody knows what became of message {id}: {fate:?}");
        }
        must!(self.delivered.is_sorted(), "LK-2", "out of order: {:?}", self.delivered);
        Ok(())
    }
}

fn id_of(body: &[u8]) -> u64 {
    u64::from_le_bytes(body[..8].try_into().expect("eight bytes"))
}

//! Live text between nodes: who wants to hear which workloads, and the pieces that agents elsewhere say.
//!
//! A node says to all others which workloads somebody listens to at its doors ([`Live::Wanted`]): at once when that changes,
//! and again every [`RENEW_EVERY`] while there are any. Whoever has heard that tells it every piece that its own agents say
//! for these workloads ([`Live::Pieces`]). Nothing is said of where agents are, so an agent that moves is heard from where it
//! is, and an answer that follows it from where it was asked for.
//!
//! All of it is a courtesy: a piece may be lost, since the recorded answer follows. What is not renewed lapses after
//! [`LAPSE_AFTER`], so a lost message or a lost node leaves nothing behind.
//!
//! Bounds: a node asks for [`WANTED_MAX`] workloads, further ones are not heard from elsewhere; a message has
//! [`PIECES_MAX`] pieces or [`PIECES_BYTES`] of text.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use nexa_types::{AgentId, Generation, Millis, NodeId, Seq, Timestamp, WorkloadId};

/// Workloads that one node wants to hear. Of more, the first by id.
pub const WANTED_MAX: usize = 1_024;
/// Between two times that the same is wanted.
pub const RENEW_EVERY: Millis = Millis(2_000);
/// What was wanted so long ago, and not again, is not wanted any more.
pub const LAPSE_AFTER: Millis = Millis(6_000);
/// Between two messages about what is wanted, however often that changes.
pub const SAY_PAUSE: Millis = Millis(10);
/// Pieces in one message.
pub const PIECES_MAX: usize = 256;
/// Bytes of text in one message, but for the piece that goes beyond.
pub const PIECES_BYTES: usize = 96 << 10;

/// What nodes say to each other about live text.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Live {
    /// At the sender's doors somebody listens to these workloads, and to no others.
    #[n(0)]
    Wanted(#[n(0)] Vec<WorkloadId>),
    /// What the sender's agents say, in order for each.
    #[n(1)]
    Pieces(#[n(0)] Vec<Piece>),
}

/// A piece of what an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Piece {
    /// Of which workload.
    #[n(0)]
    pub workload: WorkloadId,
    /// Who says it.
    #[n(1)]
    pub agent: AgentId,
    /// The agent's name, as people see it.
    #[n(2)]
    pub name: String,
    /// The effect that it belongs to; of log lines the number of lines before it.
    #[n(3)]
    pub seq: Seq,
    /// The attempt of the effect, from 1; 0 for log lines.
    #[n(4)]
    pub attempt: u32,
    /// Bytes of text before it in the same attempt.
    #[n(5)]
    pub offset: u64,
    /// Whether it is a line that the program logs, and no part of a model's answer.
    #[n(6)]
    pub is_log: bool,
    /// The text.
    #[n(7)]
    pub text: String,
}

/// Parts of a list of pieces that are messages: in order, each within its bounds.
pub fn messages(pieces: Vec<Piece>) -> Vec<Live> {
    let (mut all, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        bytes += piece.text.len();
        part.push(piece);
        if part.len() == PIECES_MAX || bytes >= PIECES_BYTES {
            all.push(Live::Pieces(std::mem::take(&mut part)));
            bytes = 0;
        }
    }
    if !part.is_empty() {
        all.push(Live::Pieces(part));
    }
    all
}

/// Says to others what is wanted here, when that is due.
#[derive(Debug, Default)]
pub struct Announcer {
    said: BTreeSet<WorkloadId>,
    said_at: Option<Timestamp>,
}

impl Announcer {
    /// What is to be said now, if anything. `wanted` is what is listened to here.
    pub fn say(&mut self, wanted: impl IntoIterator<Item = WorkloadId>, now: Timestamp) -> Option<Live> {
        let wanted: BTreeSet<WorkloadId> = wanted.into_iter().collect();
        let wanted: BTreeSet<WorkloadId> = wanted.into_iter().take(WANTED_MAX).collect();
        let is_new = wanted != self.said;
        let pause = if is_new { SAY_PAUSE } else { RENEW_EVERY };
        let is_due = self.said_at.is_none_or(|at| now.since(at) >= pause);
        if !is_due || (!is_new && wanted.is_empty()) {
            return None;
        }
        self.said = wanted;
        self.said_at = Some(now);
        Some(Live::Wanted(self.said.iter().copied().collect()))
    }

    /// When to look again if nothing changes before, and if something does.
    pub fn due(&self, has_changed: bool, now: Timestamp) -> Timestamp {
        let pause = if has_changed { SAY_PAUSE } else { RENEW_EVERY };
        self.said_at.unwrap_or(now).after(pause).max(now)
    }
}

/// What other nodes want to hear.
#[derive(Debug, Default)]
pub struct Subscribers {
    by_node: BTreeMap<NodeId, Wants>,
}

#[derive(Debug)]
struct Wants {
    generation: Generation,
    until: Timestamp,
    workloads: BTreeSet<WorkloadId>,
}

impl Subscribers {
    /// A node has said what it wants; an earlier run of it wants nothing any more.
    pub fn wanted(&mut self, from: &NodeId, generation: Generation, workloads: Vec<WorkloadId>, now: Timestamp) {
        if self.by_node.get(from).is_some_and(|wants| wants.generation > generation) {
            return;
        }
        let workloads: BTreeSet<WorkloadId> = workloads.into_iter().take(WANTED_MAX).collect();
        if workloads.is_empty() {
            self.by_node.remove(from);
        } else {
            let until = now.after(LAPSE_AFTER);
            self.by_node.insert(from.clone(), Wants { generation, until, workloads });
        }
    }

    /// A node is not there any more.
    pub fn gone(&mut self, node: &NodeId) {
        self.by_node.remove(node);
    }

    /// Forgets what was not wanted again in time.
    pub fn expire(&mut self, now: Timestamp) {
        self.by_node.retain(|_, wants| wants.until > now);
    }

    /// Everything that anybody wants.
    pub fn all(&self) -> BTreeSet<WorkloadId> {
        self.by_node.values().flat_map(|wants| wants.workloads.iter().copied()).collect()
    }

    /// Who wants something of these pieces, and what, in order.
    pub fn share(&self, pieces: &[Piece]) -> Vec<(NodeId, Vec<Piece>)> {
        let share = |wants: &Wants| -> Vec<Piece> {
            pieces.iter().filter(|piece| wants.workloads.contains(&piece.workload)).cloned().collect()
        };
        let shares = self.by_node.iter().map(|(node, wants)| (node.clone(), share(wants)));
        shares.filter(|(_, pieces)| !pieces.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::say::{BYTES_MAX, read, write};

    fn workload(n: u8) -> WorkloadId {
        WorkloadId::from_bytes([n; 16])
    }

    fn node(name: &str) -> NodeId {
        name.parse().expect("a name")
    }

    fn piece(of: u8, text: String) -> Piece {
        Piece {
            workload: workload(of),
            agent: AgentId::from_bytes([7; 16]),
            name: "reader".to_owned(),
            seq: Seq(2),
            attempt: 1,
            offset: 300,
            is_log: false,
            text,
        }
    }

    fn hex(message: &Live) -> String {
        write(message).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes that other builds read. They never change: what is new is a new line.
    #[test]
    fn messages_have_the_bytes_that_they_had() {
        let id = |n: &str| n.repeat(16);
        let golden = [
            (Live::Wanted(vec![workload(1)]), format!("8200818150{}", id("01"))),
            (
                Live::Pieces(vec![piece(1, "a".to_owned())]),
                format!("820181818850{}50{}66726561646572020119012cf46161", id("01"), id("07")),
            ),
        ];
        for (message, bytes) in golden {
            assert_eq!(hex(&message), bytes);
            assert_eq!(read(&write(&message)), Ok(message));
        }
        assert!(read::<Live>(&[0xFF; 40]).is_err());
    }

    #[test]
    fn the_longest_messages_fit() {
        let all = (0..=WANTED_MAX).map(|n| WorkloadId::from_bytes((n as u128).to_be_bytes()));
        let wanted = Announcer::default().say(all, Timestamp(0)).expect("it is new");
        assert!(write(&wanted).len() <= BYTES_MAX);
        let longest = vec![piece(1, "x".repeat(64 << 10)); 5];
        let all = messages(longest.clone());
        assert!(all.iter().all(|message| write(message).len() <= BYTES_MAX), "two of them fit");
        let short = messages(vec![piece(1, "x".to_owned()); PIECES_MAX + 1]);
        assert_eq!((all.len(), short.len()), (3, 2));
        let back = all.into_iter().flat_map(|message| match message {
            Live::Pieces(pieces) => pieces,
            Live::Wanted(_) => Vec::new(),
        });
        assert!(back.eq(longest), "nothing is lost on the way");
    }

    #[test]
    fn what_is_wanted_is_said_when_it_changes_and_again_while_there_is_any() {
        let mut announcer = Announcer::default();
        let mut say = |wanted: &[u8], at: u64| {
            let said = announcer.say(wanted.iter().map(|n| workload(*n)), Timestamp(at));
            said.map(|live| match live {
                Live::Wanted(all) => all.len(),
                Live::Pieces(_) => usize::MAX,
            })
        };
        assert_eq!(say(&[], 1_000), None, "there is nothing to say");
        assert_eq!(say(&[1], 1_000), Some(1));
        assert_eq!(say(&[1, 2], 1_005), None, "too soon");
        assert_eq!(say(&[1, 2], 1_010), Some(2));
        assert_eq!(say(&[1, 2], 3_009), None);
        assert_eq!(say(&[1, 2], 3_010), Some(2));
        assert_eq!(say(&[], 3_020), Some(0), "once");
        assert_eq!(say(&[], 9_000), None);
        assert_eq!(announcer.due(true, Timestamp(3_021)), Timestamp(3_030));
        assert_eq!(announcer.due(false, Timestamp(3_021)), Timestamp(5_020));
    }

    #[test]
    fn a_node_hears_what_it_wants_until_it_wants_it_no_more_is_gone_or_is_silent() {
        let mut subscribers = Subscribers::default();
        let (a, b, now) = (node("a"), node("b"), Timestamp(1_000));
        subscribers.wanted(&a, Generation(5), vec![workload(1), workload(2)], now);
        subscribers.wanted(&b, Generation(6), vec![workload(2)], now);
        subscribers.wanted(&a, Generation(4), Vec::new(), now);
        let pieces = [piece(1, "x".to_owned()), piece(2, "y".to_owned()), piece(3, "z".to_owned())];
        let heard = |subscribers: &Subscribers| -> Vec<(String, String)> {
            let text = |pieces: Vec<Piece>| pieces.into_iter().map(|piece| piece.text).collect();
            subscribers.share(&pieces).into_iter().map(|(node, pieces)| (node.to_string(), text(pieces))).collect()
        };
        assert_eq!(heard(&subscribers), [("a".into(), "xy".into()), ("b".into(), "y".into())]);
        assert_eq!(subscribers.all().len(), 2);
        subscribers.wanted(&b, Generation(6), vec![workload(3)], Timestamp(5_000));
        assert_eq!(heard(&subscribers), [("a".into(), "xy".into()), ("b".into(), "z".into())]);
        subscribers.expire(Timestamp(7_000));
        assert_eq!(heard(&subscribers), [("b".into(), "z".into())], "a was silent for too long");
        subscribers.gone(&b);
        assert!(subscribers.all().is_empty());
        subscribers.wanted(&a, Generation(5), vec![workload(1)], now);
        subscribers.wanted(&a, Generation(5), Vec::new(), now);
        assert!(heard(&subscribers).is_empty());
    }
}

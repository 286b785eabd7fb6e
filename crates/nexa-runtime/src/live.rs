//! What agents say while they work: pieces of model answers and log lines. Never facts, never stored.
//!
//! A piece is placed by (agent, effect, attempt, offset), so that a reader can put pieces of one answer together,
//! notice a gap, and start over when a later attempt begins at offset 0.
//!
//! Bound: [`LIVE_PIECES_MAX`] pieces a workload. A slow receiver loses the oldest and is told how many.
//!
//! Where there are other nodes, somebody carries pieces between hubs ([`LiveHub::connect`]): what is listened to elsewhere
//! goes out ([`LiveHub::forward`]), and what is said elsewhere comes in ([`LiveHub::heard`]) and goes no further. At most
//! [`SAID_MAX`] pieces wait to go out; a further one is dropped.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nexa_ports::model::Chunks;
use nexa_types::{AgentId, Seq, WorkloadId};
use tokio::sync::{Notify, broadcast, mpsc};

use crate::genai::Effect;

/// Pieces of one workload that a receiver may be behind.
pub const LIVE_PIECES_MAX: usize = 1_024;
/// A longer piece is cut, in bytes.
pub const LIVE_PIECE_BYTES_MAX: usize = 64 << 10;
/// Pieces that wait to be carried to other nodes.
pub const SAID_MAX: usize = 4_096;
/// Between two looks for workloads that nobody listens to any more.
const SWEEP_EVERY_SUBSCRIPTIONS: usize = 64;

/// What a piece is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveKind {
    /// The answer of a model.
    Text,
    /// A line that the program logs.
    Log,
}

/// A piece of what an agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePiece {
    /// Who says it.
    pub agent: AgentId,
    /// The agent's name, as people see it.
    pub name: Arc<str>,
    /// The effect that it belongs to; of log lines the number of lines before it in this residency.
    pub seq: Seq,
    /// The attempt of the effect, from 1; 0 for log lines.
    pub attempt: u32,
    /// Bytes of text before it in the same attempt.
    pub offset: u64,
    /// What it is part of.
    pub kind: LiveKind,
    /// The text itself.
    pub text: Arc<str>,
}

/// What a receiver gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// A piece.
    Piece(LivePiece),
    /// This many pieces were lost, because the receiver was slow.
    Lagged(u64),
}

/// Hands pieces to whoever listens. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LiveHub {
    topics: Arc<Mutex<Topics>>,
    /// Somebody has begun to listen, or has stopped.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Topics {
    by_workload: HashMap<WorkloadId, broadcast::Sender<LivePiece>>,
    subscriptions: usize,
    /// What is listened to on other nodes.
    elsewhere: BTreeSet<WorkloadId>,
    /// Where pieces of that go.
    said: Option<mpsc::Sender<(WorkloadId, LivePiece)>>,
}

impl LiveHub {
    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to a workload from now on.
    pub fn subscribe(&self, workload: WorkloadId) -> LiveReceiver {
        let mut topics = self.lock();
        topics.subscriptions += 1;
        if topics.subscriptions.is_multiple_of(SWEEP_EVERY_SUBSCRIPTIONS) {
            topics.by_workload.retain(|_, sender| sender.receiver_count() > 0);
        }
        let sender = topics.by_workload.entry(workload).or_insert_with(|| broadcast::channel(LIVE_PIECES_MAX).0);
        let receiver = sender.subscribe();
        drop(topics);
        self.changed.notify_one();
        LiveReceiver { receiver, _leaves: Leaves(self.changed.clone()) }
    }

    /// Hands a piece that is said here to everybody who listens to the workload, here and elsewhere; to nobody is fine.
    pub fn publish(&self, workload: WorkloadId, piece: impl FnOnce() -> LivePiece) {
        let mut topics = self.lock();
        let out = topics.said.as_ref().filter(|_| topics.elsewhere.contains(&workload)).cloned();
        let is_heard = topics.by_workload.get(&workload).is_some_and(|sender| sender.receiver_count() > 0);
        if !is_heard {
            topics.by_workload.remove(&workload);
        }
        if out.is_none() && !is_heard {
            return;
        }
        let piece = piece();
        if let Some(out) = out {
            // The recorded answer follows.
            let _ = out.try_send((workload, piece.clone()));
        }
        topics.hand_over(workload, piece);
    }

    /// Hands a piece that was said on another node to everybody who listens here.
    pub fn heard(&self, workload: WorkloadId, mut piece: LivePiece) {
        if piece.text.len() > LIVE_PIECE_BYTES_MAX {
            piece.text = cut(&piece.text);
        }
        self.lock().hand_over(workload, piece);
    }

    /// What is listened to here.
    pub fn wanted(&self) -> Vec<WorkloadId> {
        let topics = self.lock();
        let heard = topics.by_workload.iter().filter(|(_, sender)| sender.receiver_count() > 0);
        heard.map(|(workload, _)| *workload).collect()
    }

    /// Waits until somebody has begun to listen here, or has stopped. Cancel-safe; for one who waits.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Pieces to be carried to other nodes come out here from now on. `None` if they do somewhere already.
    pub fn connect(&self) -> Option<LiveSaid> {
        let mut topics = self.lock();
        if topics.said.as_ref().is_some_and(|said| !said.is_closed()) {
            return None;
        }
        let (said, pieces) = mpsc::channel(SAID_MAX);
        topics.said = Some(said);
        Some(LiveSaid { pieces })
    }

    /// What is listened to on other nodes, in the place of what was said before.
    pub fn forward(&self, elsewhere: BTreeSet<WorkloadId>) {
        self.lock().elsewhere = elsewhere;
    }
}

impl Topics {
    fn hand_over(&mut self, workload: WorkloadId, piece: LivePiece) {
        if let Some(sender) = self.by_workload.get(&workload)
            && sender.send(piece).is_err()
        {
            self.by_workload.remove(&workload);
        }
    }
}

/// Where pieces for other nodes come out.
#[derive(Debug)]
pub struct LiveSaid {
    pieces: mpsc::Receiver<(WorkloadId, LivePiece)>,
}

impl LiveSaid {
    /// The next pieces, in order, at most so many; waits for the first. Once the hub is gone it waits for ever. Cancel-safe.
    pub async fn next(&mut self, limit: usize) -> Vec<(WorkloadId, LivePiece)> {
        let mut pieces = Vec::new();
        if self.pieces.recv_many(&mut pieces, limit).await == 0 {
            std::future::pending().await
        }
        pieces
    }
}

/// One listener's end.
#[derive(Debug)]
pub struct LiveReceiver {
    receiver: broadcast::Receiver<LivePiece>,
    /// Dropped after the receiver, which does not count any more then.
    _leaves: Leaves,
}

/// Says that somebody has stopped listening.
#[derive(Debug)]
struct Leaves(Arc<Notify>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl LiveReceiver {
    /// The next piece, or how many were lost. `None` once nothing can come any more. Cancel-safe.
    pub async fn next(&mut self) -> Option<Live> {
        match self.receiver.recv().await {
            Ok(piece) => Some(Live::Piece(piece)),
            Err(broadcast::error::RecvError::Lagged(lost)) => Some(Live::Lagged(lost)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Cuts a text at a character so that it has at most [`LIVE_PIECE_BYTES_MAX`] bytes.
pub(crate) fn cut(text: &str) -> Arc<str> {
    text[..text.floor_char_boundary(LIVE_PIECE_BYTES_MAX)].into()
}

/// Sends the pieces of one attempt of one effect to the hub.
pub(crate) struct LiveChunks {
    pub(crate) hub: LiveHub,
    pub(crate) workload: WorkloadId,
    pub(crate) agent: AgentId,
    pub(crate) name: Arc<str>,
    pub(crate) seq: Seq,
    pub(crate) attempt: u32,
    pub(crate) seen: Effect,
}

impl Chunks for LiveChunks {
    fn piece(&self, offset: u64, text: &str) {
        self.seen.piece(offset, text);
        self.hub.publish(self.workload, || LivePiece {
            agent: self.agent,
            name: self.name.clone(),
            seq: self.seq,
            attempt: self.attempt,
            offset,
            kind: LiveKind::Text,
            text: cut(text),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(n: u64) -> LivePiece {
        LivePiece {
            agent: AgentId::from_bytes([1; 16]),
            name: "reader".into(),
            seq: Seq(1),
            attempt: 1,
            offset: n,
            kind: LiveKind::Text,
            text: "x".into(),
        }
    }

    #[tokio::test]
    async fn a_slow_listener_loses_the_oldest_pieces_and_is_told_how_many() {
        let hub = LiveHub::default();
        let workload = WorkloadId::from_bytes([1; 16]);
        let mut slow = hub.subscribe(workload);
        let mut other = hub.subscribe(WorkloadId::from_bytes([2; 16]));
        let lost = 7;
        for n in 0..LIVE_PIECES_MAX as u64 + lost {
            hub.publish(workload, || piece(n));
        }
        assert_eq!(slow.next().await, Some(Live::Lagged(lost)));
        assert_eq!(slow.next().await, Some(Live::Piece(piece(lost))));
        drop(hub);
        assert_eq!(other.next().await, None, "nothing of another workload arrives");
    }

    #[test]
    fn a_piece_that_nobody_wants_is_not_even_made() {
        let hub = LiveHub::default();
        let workload = WorkloadId::from_bytes([1; 16]);
        hub.publish(workload, || unreachable!("nobody listens"));
        drop(hub.subscribe(workload));
        hub.publish(workload, || unreachable!("nobody listens any more"));
    }

    #[tokio::test]
    async fn what_is_listened_to_elsewhere_goes_out_and_what_is_said_elsewhere_stays_here() {
        let hub = LiveHub::default();
        let workload = WorkloadId::from_bytes([1; 16]);
        hub.forward(BTreeSet::from([workload]));
        hub.publish(workload, || unreachable!("nobody carries it"));
        let mut said = hub.connect().expect("nobody has yet");
        assert!(hub.connect().is_none());
        let mut here = hub.subscribe(workload);
        hub.publish(workload, || piece(0));
        hub.heard(workload, piece(7));
        hub.publish(WorkloadId::from_bytes([2; 16]), || unreachable!("nobody listens to this one"));
        hub.publish(workload, || piece(1));
        assert_eq!(said.next(10).await, [(workload, piece(0)), (workload, piece(1))]);
        for offset in [0, 7, 1] {
            assert_eq!(here.next().await, Some(Live::Piece(piece(offset))));
        }
        for offset in 0..2 * SAID_MAX as u64 {
            hub.publish(workload, || piece(offset));
        }
        assert_eq!(said.next(usize::MAX).await.len(), SAID_MAX, "who does not carry fast enough gets the first ones");
        hub.forward(BTreeSet::new());
        drop(here);
        hub.publish(workload, || unreachable!("nobody listens any more"));
    }

    #[tokio::test]
    async fn it_is_known_who_listens_and_when_that_changes() {
        let hub = LiveHub::default();
        let workload = WorkloadId::from_bytes([1; 16]);
        let one = hub.subscribe(workload);
        hub.changed().await;
        assert_eq!(hub.wanted(), [workload]);
        let other = hub.subscribe(workload);
        hub.changed().await;
        drop(one);
        hub.changed().await;
        assert_eq!(hub.wanted(), [workload], "there is another");
        drop(other);
        hub.changed().await;
        assert!(hub.wanted().is_empty());
    }

    #[test]
    fn a_long_piece_is_cut_between_characters() {
        let long = "é".repeat(LIVE_PIECE_BYTES_MAX);
        assert_eq!(cut(&long).len(), LIVE_PIECE_BYTES_MAX);
        assert_eq!(cut(&format!("a{long}")).len(), LIVE_PIECE_BYTES_MAX - 1);
    }
}

//! What agents say while they work: pieces of model answers and log lines. Never facts, never stored.
//!
//! A piece is placed by (agent, effect, attempt, offset), so that a reader can put pieces of one answer together,
//! notice a gap, and start over when a later attempt begins at offset 0.
//!
//! Bound: [`LIVE_PIECES_MAX`] pieces a workload. A slow receiver loses the oldest and is told how many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nexa_ports::model::Chunks;
use nexa_types::{AgentId, Seq, WorkloadId};
use tokio::sync::broadcast;

use crate::genai::Effect;

/// Pieces of one workload that a receiver may be behind.
pub const LIVE_PIECES_MAX: usize = 1_024;
/// A longer piece is cut, in bytes.
pub const LIVE_PIECE_BYTES_MAX: usize = 64 << 10;
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
}

#[derive(Debug, Default)]
struct Topics {
    by_workload: HashMap<WorkloadId, broadcast::Sender<LivePiece>>,
    subscriptions: usize,
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
        LiveReceiver { receiver: sender.subscribe() }
    }

    /// Hands a piece to everybody who listens to the workload; to nobody is fine.
    pub fn publish(&self, workload: WorkloadId, piece: impl FnOnce() -> LivePiece) {
        let mut topics = self.lock();
        if let Some(sender) = topics.by_workload.get(&workload)
            && sender.send(piece()).is_err()
        {
            topics.by_workload.remove(&workload);
        }
    }
}

/// One listener's end.
#[derive(Debug)]
pub struct LiveReceiver {
    receiver: broadcast::Receiver<LivePiece>,
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
        hub.publish(workload, || piece(0));
        hub.publish(workload, || unreachable!("nobody listens any more"));
    }

    #[test]
    fn a_long_piece_is_cut_between_characters() {
        let long = "é".repeat(LIVE_PIECE_BYTES_MAX);
        assert_eq!(cut(&long).len(), LIVE_PIECE_BYTES_MAX);
        assert_eq!(cut(&format!("a{long}")).len(), LIVE_PIECE_BYTES_MAX - 1);
    }
}

//! Watches: every fact once and in order, live text beside them.
//!
//! One task a watch reads facts from the store and pieces from the node, and puts frames into a channel of
//! [`FRAMES_BUFFERED_MAX`]. Facts wait for room; pieces that find none are dropped and counted, and the count is sent
//! before the next frame. The task ends with what it watches, with its reader, or with the door.
//!
//! Order between the two: a piece comes after the `EffectStarted` of its effect and before the `EffectEnded`. Pieces are
//! held while facts that are already recorded are read, and pieces of an effect that has ended are dropped.
//!
//! Holds, see the tests:
//!   GW-1  frames with cursors, over any cuts and resumes, are the facts of one unbroken watch: no gap, no repeat
//!   GW-2  a snapshot at a cursor is the fold of exactly the facts up to it

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, WorkloadEvent};
use nexa_ports::store::{Recorded, Store};
use nexa_proto::refusal::Refusal;
use nexa_runtime::{Live, LiveKind, LivePiece, LiveReceiver};
use nexa_types::{AgentId, AgentState, GlobalSeq, Reason, Seq, StreamId, Version, WorkloadId};
use nexa_view::{AgentView, WorkloadView};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::cursor::{self, Origin};
use crate::handlers::store_refusal;
use crate::listed;
use crate::mediator::{Frames, WatchFrom};
use crate::standing::Standings;

/// Frames that wait for a slow reader. Then: facts wait, pieces are dropped.
pub const FRAMES_BUFFERED_MAX: usize = 64;
/// Agents in one part of a snapshot.
pub const SNAPSHOT_PART_AGENTS: usize = 500;
/// Bytes of the agents in one part of a snapshot; the first part has the workload's outcome beside them.
pub const SNAPSHOT_PART_BYTES: usize = 1 << 20;
/// Facts read at once.
const BATCH: usize = 256;
/// Pieces held while facts are read. Then: the oldest goes.
const PIECES_HELD_MAX: usize = 1_024;
/// How often a watch may look into the store for long: any agent's fact wakes every watch.
const LOOK_EVERY: Duration = Duration::from_millis(4);
/// Looks that a watch which has rested has in hand. A short run is told of its end by one of them, without a wait.
const LOOKS_IN_HAND_MAX: u32 = 8;
/// A sign of life when nothing happens.
const BOOKMARK_EVERY: Duration = Duration::from_secs(15);

/// One frame of a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// How things stand.
    Snapshot(Box<SnapshotPart>),
    /// A fact.
    Event(Box<WatchedFact>),
    /// A piece of text.
    Chunk(LivePiece),
    /// Everything up to here was sent.
    Bookmark(Vec<u8>),
    /// So many pieces were dropped.
    Lagged(u64),
}

/// A part of how things stand.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotPart {
    /// The workload; in the first part only.
    pub workload: Option<WorkloadView>,
    /// Agents, parents before children.
    pub agents: Vec<AgentView>,
    /// Where the watch goes on; in the last part only.
    pub cursor: Option<Vec<u8>>,
}

/// A fact with what a reader wants to know beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchedFact {
    /// Where a watch goes on after it.
    pub cursor: Vec<u8>,
    /// The fact.
    pub recorded: Recorded,
    /// The workload that is watched.
    pub workload: WorkloadId,
    /// In whose stream it is, if it is an agent's, with the name and the state after it.
    pub agent: Option<(AgentId, String, AgentState)>,
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A workload with all of its agents.
    Workload(WorkloadId),
    /// One agent.
    Agent(AgentId, WorkloadId),
}

impl Subject {
    pub(crate) fn workload(self) -> WorkloadId {
        match self {
            Self::Workload(workload) | Self::Agent(_, workload) => workload,
        }
    }

    fn id(&self) -> &[u8] {
        match self {
            Self::Workload(workload) => workload.as_bytes(),
            Self::Agent(agent, _) => agent.as_bytes(),
        }
    }
}

/// Everything that a watch needs.
pub(crate) struct Plan {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) subject: Subject,
    pub(crate) from: WatchFrom,
    /// Pieces from before the first look into the store on; `None` if they are not wanted.
    pub(crate) live: Option<LiveReceiver>,
    /// The first fact of what is watched.
    pub(crate) first: Recorded,
    /// Ends all watches when the door closes.
    pub(crate) closing: CancellationToken,
    /// The right to be one of the watches of this door.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Starts a watch.
///
/// # Errors
/// CURSOR_INVALID, or what the store says.
pub(crate) async fn start(plan: Plan) -> Result<Frames, Refusal> {
    let origin = Origin::of_watch(plan.subject.id(), plan.first.position, plan.first.envelope.header.at);
    let head = plan.store.head();
    let silent_until = match &plan.from {
        // The head is a hint and may be behind what was just read.
        WatchFrom::Snapshot => plan.first.position.max(*head.borrow()),
        WatchFrom::Start => GlobalSeq(0),
        WatchFrom::Cursor(bytes) => {
            let position = origin.position(bytes)?;
            still_there(&*plan.store, plan.subject.workload(), position).await?;
            position
        }
    };
    let (frames, reader) = mpsc::channel(FRAMES_BUFFERED_MAX);
    let task = Watch {
        store: plan.store,
        subject: plan.subject,
        origin,
        silent_until,
        snapshot: plan.from == WatchFrom::Snapshot,
        standings: Standings::default(),
        seen: GlobalSeq(0),
        version: Version(0),
        over: false,
        held: Vec::new(),
        answered: BTreeMap::new(),
        dropped: 0,
        frames,
    };
    let after_a_bug = task.frames.clone();
    tokio::spawn(async move {
        let _permit = plan.permit;
        if let Err(error) = tokio::spawn(task.run(head, plan.live, plan.closing)).await {
            tracing::error!(%error, "a watch panicked");
            // A clean end would look like the end of what is watched.
            let bug = Refusal::new(Reason::Internal, "the watch met a bug; the log has more");
            let _ = after_a_bug.send(Err(bug)).await;
        }
    });
    Ok(Frames::new(ReceiverStream::new(reader)))
}

/// Every cursor is the position of a fact; a store that was put back to an older state has lost some.
async fn still_there(store: &dyn Store, workload: WorkloadId, position: GlobalSeq) -> Result<(), Refusal> {
    let before = GlobalSeq(position.0.saturating_sub(1));
    let found = store.scan(Some(workload), before, 1).await.map_err(store_refusal)?;
    if found.first().is_some_and(|fact| fact.position == position) {
        return Ok(());
    }
    Err(cursor::invalid("cursor", "the store has lost what the cursor stands at; watch without a cursor"))
}

/// The reader went away.
struct Gone;

enum Stop {
    Gone,
    Refused(Refusal),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

struct Watch {
    store: Arc<dyn Store>,
    subject: Subject,
    origin: Origin,
    /// Facts up to here are folded and not sent.
    silent_until: GlobalSeq,
    /// Whether a snapshot is owed.
    snapshot: bool,
    standings: Standings,
    seen: GlobalSeq,
    /// Of an agent's stream.
    version: Version,
    /// Whether what is watched has ended.
    over: bool,
    held: Vec<LivePiece>,
    /// The newest effect of each agent that has ended.
    answered: BTreeMap<AgentId, Seq>,
    dropped: u64,
    frames: mpsc::Sender<Result<Frame, Refusal>>,
}

impl Watch {
    async fn run(
        mut self,
        head: tokio::sync::watch::Receiver<GlobalSeq>,
        live: Option<LiveReceiver>,
        closing: CancellationToken,
    ) {
        let frames = self.frames.clone();
        let ended = tokio::select! {
            biased;
            () = frames.closed() => return,
            () = closing.cancelled() => Err(Stop::Refused(
                Refusal::new(Reason::Draining, "the node is stopping").hint("watch again with the newest cursor"),
            )),
            ended = self.follow(head, live) => ended,
        };
        if let Err(Stop::Refused(refusal)) = ended {
            // An error means that the reader has gone: then nobody wants to know.
            let _ = frames.send(Err(refusal)).await;
        }
    }

    async fn follow(
        &mut self,
        mut head: tokio::sync::watch::Receiver<GlobalSeq>,
        mut live: Option<LiveReceiver>,
    ) -> Result<(), Stop> {
        head.mark_unchanged();
        self.look().await?;
        self.send_snapshot().await?;
        if !self.over {
            self.bookmark().await?;
        }
        let mut next_look = rested(Instant::now());
        let mut next_bookmark = Instant::now() + BOOKMARK_EVERY;
        let mut changed = false;
        while !self.over {
            tokio::select! {
                piece = next_piece(&mut live) => {
                    self.hold(piece);
                    while let Some(piece) = next_piece(&mut live).now_or_never() {
                        self.hold(piece);
                    }
                    changed |= head.has_changed().unwrap_or(false);
                }
                news = head.changed(), if !changed => match news {
                    Ok(()) => changed = true,
                    Err(_) => return Err(Stop::Refused(
                        Refusal::new(Reason::StoreUnavailable, "the store was closed").hint("watch again later"),
                    )),
                },
                () = sleep_until(next_look), if changed => {
                    changed = false;
                    head.mark_unchanged();
                    self.look().await?;
                    next_look = look_after(next_look, Instant::now());
                }
                () = sleep_until(next_bookmark) => {
                    self.bookmark().await?;
                    next_bookmark = Instant::now() + BOOKMARK_EVERY;
                }
            }
            if !changed {
                self.let_go(|_| true);
            }
        }
        Ok(())
    }

    /// Reads and sends every fact that is there.
    ///
    /// A snapshot shows how things stand now, so what belongs to it is read beyond the end: a cancelled workload has ended
    /// before its children have. After the snapshot, the end is the last that is shown.
    async fn look(&mut self) -> Result<(), Stop> {
        loop {
            let batch = match self.subject {
                Subject::Workload(workload) => self.store.scan(Some(workload), self.seen, BATCH).await,
                Subject::Agent(agent, _) => self.store.read(StreamId::Agent(agent), self.version, BATCH).await,
            }
            .map_err(|error| Stop::Refused(store_refusal(error)))?;
            let full = batch.len() == BATCH;
            for recorded in batch {
                if recorded.position > self.silent_until {
                    if self.over {
                        return Ok(());
                    }
                    self.send_snapshot().await?;
                }
                self.take(recorded).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, recorded: Recorded) -> Result<(), Gone> {
        self.seen = recorded.position;
        self.version = recorded.envelope.header.version;
        let is_news = recorded.position > self.silent_until;
        if let (StreamId::Agent(agent), Fact::Agent(event)) =
            (&recorded.envelope.header.stream, &recorded.envelope.fact)
        {
            let agent = *agent;
            match event {
                AgentEvent::EffectEnded { seq, .. } => {
                    self.let_go(|piece| piece.agent == agent && piece.kind == LiveKind::Text && piece.seq <= *seq);
                    self.answered.insert(agent, *seq);
                }
                AgentEvent::Ended { .. } => self.let_go(|piece| piece.agent == agent),
                _ => {}
            }
        }
        self.standings.apply(&recorded);
        self.over |= self.is_end(&recorded);
        if is_news {
            let fact = self.dress(recorded);
            self.send(Frame::Event(Box::new(fact))).await?;
        }
        Ok(())
    }

    fn is_end(&self, recorded: &Recorded) -> bool {
        matches!(
            (self.subject, &recorded.envelope.fact),
            (Subject::Workload(_), Fact::Workload(WorkloadEvent::Ended { .. }))
                | (Subject::Agent(..), Fact::Agent(AgentEvent::Ended { .. }))
        )
    }

    fn dress(&self, recorded: Recorded) -> WatchedFact {
        let agent = match &recorded.envelope.header.stream {
            StreamId::Agent(agent) => {
                self.standings.agents.get(agent).map(|standing| (*agent, standing.name.clone(), standing.state))
            }
            StreamId::Workload(_) | StreamId::Cluster(_) => None,
        };
        let cursor = self.origin.cursor(recorded.position);
        WatchedFact { cursor, recorded, workload: self.subject.workload(), agent }
    }

    /// Sends the snapshot that is owed, in parts.
    async fn send_snapshot(&mut self) -> Result<(), Gone> {
        if !std::mem::take(&mut self.snapshot) {
            return Ok(());
        }
        let parts = listed::parts(self.standings.by_birth(), SNAPSHOT_PART_AGENTS, SNAPSHOT_PART_BYTES);
        let mut workload = self.standings.workload.clone();
        let last = parts.len() - 1;
        for (number, agents) in parts.into_iter().enumerate() {
            let cursor = (number == last).then(|| self.origin.cursor(self.seen));
            let part = SnapshotPart { workload: workload.take(), agents, cursor };
            self.send(Frame::Snapshot(Box::new(part))).await?;
        }
        Ok(())
    }

    /// Says how far the reader is. Before the first fact there is nothing to say.
    async fn bookmark(&mut self) -> Result<(), Gone> {
        if self.seen == GlobalSeq(0) {
            return Ok(());
        }
        let cursor = self.origin.cursor(self.seen);
        self.send(Frame::Bookmark(cursor)).await
    }

    async fn send(&mut self, frame: Frame) -> Result<(), Gone> {
        if self.dropped > 0 {
            let lagged = Frame::Lagged(std::mem::take(&mut self.dropped));
            self.frames.send(Ok(lagged)).await.map_err(|_| Gone)?;
        }
        self.frames.send(Ok(frame)).await.map_err(|_| Gone)
    }

    fn hold(&mut self, live: Live) {
        match live {
            Live::Lagged(pieces) => self.dropped += pieces,
            Live::Piece(piece) => {
                if let Subject::Agent(agent, _) = self.subject
                    && piece.agent != agent
                {
                    return;
                }
                if self.held.len() == PIECES_HELD_MAX {
                    self.held.remove(0);
                    self.dropped += 1;
                }
                self.held.push(piece);
            }
        }
    }

    /// Sends held pieces that `may_go`, in their order, as far as there is room.
    fn let_go(&mut self, may_go: impl Fn(&LivePiece) -> bool) {
        let (now, later) = std::mem::take(&mut self.held).into_iter().partition(|piece| may_go(piece));
        self.held = later;
        for piece in now {
            let is_late =
                piece.kind == LiveKind::Text && self.answered.get(&piece.agent).is_some_and(|seq| piece.seq <= *seq);
            if is_late {
                continue;
            }
            let lagged = self.dropped > 0;
            if lagged && self.frames.try_send(Ok(Frame::Lagged(self.dropped))).is_ok() {
                self.dropped = 0;
            }
            if self.dropped > 0 || self.frames.try_send(Ok(Frame::Chunk(piece))).is_err() {
                self.dropped += 1;
            }
        }
    }
}

/// When a watch that has all its looks in hand might have had its next one.
fn rested(now: Instant) -> Instant {
    now.checked_sub(LOOK_EVERY * LOOKS_IN_HAND_MAX).unwrap_or(now)
}

/// When the next look may be, after one that might have been at `due` and was over at `now`: the generic cell rate algorithm
/// (ITU-T I.371, annex A), with looks for cells.
fn look_after(due: Instant, now: Instant) -> Instant {
    due.max(rested(now)) + LOOK_EVERY
}

/// The next piece; waits for ever if none can come.
async fn next_piece(live: &mut Option<LiveReceiver>) -> Live {
    if let Some(receiver) = live {
        match receiver.next().await {
            Some(piece) => return piece,
            None => *live = None,
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The looks that are taken from `at` on until `until`, if every one is due for something.
    fn looks(due: &mut Instant, mut at: Instant, until: Instant) -> u32 {
        let mut taken = 0;
        while at <= until {
            *due = look_after(*due, at);
            taken += 1;
            at = at.max(*due);
        }
        taken
    }

    #[test]
    fn a_watch_that_has_rested_looks_at_once_and_one_that_never_rests_at_its_pace() {
        let begin = Instant::now() + Duration::from_secs(60);
        let mut due = rested(begin);
        assert_eq!(looks(&mut due, begin, begin), LOOKS_IN_HAND_MAX + 1, "all in hand, and the one that is due");
        let second = begin + LOOK_EVERY * 250;
        assert_eq!(looks(&mut due, begin + LOOK_EVERY, second), 250, "then one each time");
        let later = second + LOOK_EVERY * LOOKS_IN_HAND_MAX / 2;
        assert_eq!(looks(&mut due, later, later), LOOKS_IN_HAND_MAX / 2, "half a rest, half of them");
        let much_later = later + Duration::from_secs(60);
        assert_eq!(looks(&mut due, much_later, much_later), LOOKS_IN_HAND_MAX + 1, "never more than all");
    }
}

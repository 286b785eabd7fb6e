//! A watch that survives.
//!
//! It remembers the cursor of the last frame that had one. If the connection breaks, it opens the watch again behind that
//! cursor, so the facts that it yields are those of one unbroken watch. Live chunks in between are lost.
//!
//! A watch of the nodes has no cursor: each of its lists is whole, so it is opened again as it was opened first.
//!
//! Bound: `attempts_max` openings in a row, at each door that the client knows, that yield no frame; then the error ends the stream. A snapshot that was cut
//! between its parts starts again with its first part, the one that has the workload.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use nexa_proto::v1;
use nexa_proto::v1::cluster_service_client::ClusterServiceClient;
use nexa_proto::v1::watch_frame::Frame;
use tokio::time::sleep;
use tonic::{Status, Streaming};

use crate::doors::is_of_the_door;
use crate::way::Way;
use crate::{Client, ClientError};

/// Where a watch starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum From {
    /// With a snapshot of how things stand, then every fact after it.
    #[default]
    Snapshot,
    /// With the first fact.
    Start,
    /// With the first fact after this cursor.
    Cursor(Vec<u8>),
}

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Workload(String),
    Agent(String),
}

/// The frames of a watch. Ends after the end of what is watched, or with an error.
pub struct Watched {
    frames: Pin<Box<dyn Stream<Item = Result<Frame, ClientError>> + Send>>,
}

impl Stream for Watched {
    type Item = Result<Frame, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.frames.poll_next_unpin(context)
    }
}

type Inner = Pin<Box<dyn Stream<Item = Result<v1::WatchFrame, Status>> + Send>>;

/// How often a watch was opened in vain, and where it is opened next.
struct Tries {
    client: Client,
    /// Where it was opened last.
    door: usize,
    /// Doors that were left since the last frame or wait.
    left_doors: usize,
    /// Openings in a row that yielded no frame, each at every door.
    fruitless: u32,
}

impl Tries {
    fn new(client: Client) -> Self {
        Self { client, door: 0, left_doors: 0, fruitless: 0 }
    }

    /// Where to open it.
    fn way(&mut self) -> Way {
        let (door, way) = self.client.door();
        self.door = door;
        way
    }

    fn bore_fruit(&mut self) {
        (self.fruitless, self.left_doors) = (0, 0);
    }

    /// After a failure: whether to open it again, which this waits for if it has to.
    async fn may_go_on(&mut self, failed: &ClientError) -> bool {
        if is_of_the_door(failed) {
            self.client.turn.move_on(self.door);
            self.left_doors += 1;
            if failed.is_transient() && self.left_doors < self.client.turn.count() {
                return true;
            }
            self.left_doors = 0;
        }
        self.fruitless += 1;
        if !failed.is_transient() || self.fruitless >= self.client.patience.attempts_max {
            return false;
        }
        sleep(self.client.patience.wait(self.fruitless, failed)).await;
        true
    }
}

struct State {
    tries: Tries,
    subject: Subject,
    from: From,
    chunks: bool,
    inner: Option<Inner>,
    over: bool,
}

pub(crate) fn watch(client: Client, subject: Subject, from: From, chunks: bool) -> Watched {
    let state = State { tries: Tries::new(client), subject, from, chunks, inner: None, over: false };
    let frames = futures::stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    });
    Watched { frames: Box::pin(frames) }
}

impl State {
    async fn next(&mut self) -> Option<Result<Frame, ClientError>> {
        while !self.over {
            let failed = match self.step().await {
                Ok(Some(Some(frame))) => {
                    self.tries.bore_fruit();
                    self.remember(&frame);
                    return Some(Ok(frame));
                }
                // A kind of frame that this build does not know.
                Ok(Some(None)) => continue,
                Ok(None) => {
                    self.over = true;
                    break;
                }
                Err(status) => ClientError::from(status),
            };
            self.inner = None;
            if !self.tries.may_go_on(&failed).await {
                self.over = true;
                return Some(Err(failed));
            }
        }
        None
    }

    /// The next frame of the open watch, which is opened if there is none.
    async fn step(&mut self) -> Result<Option<Option<Frame>>, Status> {
        let inner = match &mut self.inner {
            Some(inner) => inner,
            None => {
                let opened = self.open().await?;
                self.inner.insert(opened)
            }
        };
        Ok(inner.next().await.transpose()?.map(|frame| frame.frame))
    }

    async fn open(&mut self) -> Result<Inner, Status> {
        let (cursor, from_start) = match &self.from {
            From::Snapshot => (Vec::new(), false),
            From::Start => (Vec::new(), true),
            From::Cursor(cursor) => (cursor.clone(), false),
        };
        let way = self.tries.way();
        let chunks = self.chunks;
        Ok(match &self.subject {
            Subject::Workload(id) => {
                let request = v1::WorkloadServiceWatchRequest { workload_id: id.clone(), cursor, from_start, chunks };
                let mut client =
                    crate::WorkloadServiceClient::new(way).max_decoding_message_size(nexa_proto::MESSAGE_BYTES_MAX);
                let frames = client.watch(self.tries.client.dressed(request, None)).await?.into_inner();
                Box::pin(frames.map(|frame| Ok(frame?.frame.unwrap_or_default())))
            }
            Subject::Agent(id) => {
                let request = v1::AgentServiceWatchRequest { agent_id: id.clone(), cursor, from_start, chunks };
                let mut client =
                    crate::AgentServiceClient::new(way).max_decoding_message_size(nexa_proto::MESSAGE_BYTES_MAX);
                let frames = client.watch(self.tries.client.dressed(request, None)).await?.into_inner();
                Box::pin(frames.map(|frame| Ok(frame?.frame.unwrap_or_default())))
            }
        })
    }

    fn remember(&mut self, frame: &Frame) {
        let cursor = match frame {
            Frame::Snapshot(snapshot) => &snapshot.cursor,
            Frame::Event(event) => &event.cursor,
            Frame::Bookmark(bookmark) => &bookmark.cursor,
            Frame::Chunk(_) | Frame::Lagged(_) => return,
        };
        if !cursor.is_empty() {
            self.from = From::Cursor(cursor.clone());
        }
    }
}

type Lists = Streaming<v1::ClusterServiceWatchResponse>;

/// Opens a watch of the nodes, and gives their lists.
pub(crate) async fn nodes(
    client: Client,
) -> Result<impl Stream<Item = Result<Vec<v1::Node>, ClientError>> + Send + use<>, ClientError> {
    let mut tries = Tries::new(client);
    let lists = open_nodes(&mut tries).await?;
    let state = Some((tries, lists));
    Ok(futures::stream::unfold(state, |state| async move {
        let (mut tries, mut lists) = state?;
        loop {
            let failed = match lists.message().await {
                Ok(Some(list)) => {
                    tries.bore_fruit();
                    return Some((Ok(list.nodes), Some((tries, lists))));
                }
                Ok(None) => return None,
                Err(status) => ClientError::from(status),
            };
            if !tries.may_go_on(&failed).await {
                return Some((Err(failed), None));
            }
            match open_nodes(&mut tries).await {
                Ok(opened) => lists = opened,
                Err(failed) => return Some((Err(failed), None)),
            }
        }
    }))
}

async fn open_nodes(tries: &mut Tries) -> Result<Lists, ClientError> {
    loop {
        let way = tries.way();
        let request = tries.client.dressed(v1::ClusterServiceWatchRequest {}, None);
        let mut client = ClusterServiceClient::new(way).max_decoding_message_size(nexa_proto::MESSAGE_BYTES_MAX);
        match client.watch(request).await {
            Ok(opened) => return Ok(opened.into_inner()),
            Err(status) => {
                let failed = ClientError::from(status);
                if !tries.may_go_on(&failed).await {
                    return Err(failed);
                }
            }
        }
    }
}

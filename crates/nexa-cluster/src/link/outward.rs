//! The half that this node dials: one task a lane, which connects, sends and listens until the lane is closed.
//!
//! A lane holds what [`Class::bounds`] says and refuses more. It takes messages as long as the peer may be there: from
//! the first dial on, and after a connection broke, but not after a dial that failed. Questions wait for a connection
//! only before the first dial has ended; they are at most [`ASKS_MAX`], and a connection that breaks answers all of them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hyper_util::rt::TokioIo;
use nexa_member::link::{Class, Hello, Kind, Lane, Message, PROTOCOL, Report, Sender, Unfit};
use nexa_proto::internal_v1::link_service_client::LinkServiceClient;
use nexa_proto::internal_v1::{Answer, Batch};
use nexa_types::{Generation, Millis, NodeId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use super::{
    BATCH_BYTES, CONNECT_MAX, FRAME_BYTES_MAX, HANDSHAKE_MAX, HEALTHY_AFTER, MESSAGE_BYTES_MAX, PING_EVERY, PING_WAIT,
    RETRY_MAX, RETRY_MIN, Shared, WINDOW_FACTOR, count, lock, wire,
};
use crate::peers::{AskError, NotSent, Refusal, Why};

/// Questions of one lane that wait for their answers; one more is refused.
pub(super) const ASKS_MAX: usize = 4_096;

/// A run of a peer, and the lanes to it.
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) generation: Generation,
    pub(super) address: String,
    pub(super) closed: CancellationToken,
    lanes: Vec<Arc<OutLane>>,
    /// When it was last noted to have answered, and to have sent something.
    pub(super) answered_at: AtomicU64,
}

impl Peer {
    pub(super) fn new(node: NodeId, generation: Generation, address: String) -> Self {
        let lanes = Lane::all().map(|lane| Arc::new(OutLane::new(lane, generation))).collect();
        let closed = CancellationToken::new();
        Self { node, generation, address, closed, lanes, answered_at: AtomicU64::new(0) }
    }

    /// The lane of a message: by its service if the class has several, so that order holds within a service.
    pub(super) fn lane(&self, class: Class, service: u16) -> &Arc<OutLane> {
        let connection = (service % u16::from(class.connections())) as u8;
        let is_it = |lane: &&Arc<OutLane>| lane.lane == Lane { class, connection };
        self.lanes.iter().find(is_it).expect("a peer has every lane, and the connection is one of its class")
    }

    /// Closes every lane, and gives back what was not delivered.
    pub(super) fn close(&self) -> Vec<(Class, Message)> {
        self.closed.cancel();
        self.lanes.iter().flat_map(|lane| lane.close().into_iter().map(|message| (lane.lane.class, message))).collect()
    }
}

/// How a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nobody has wanted it yet.
    Idle,
    /// The first dial is under way.
    First,
    /// Messages flow.
    Up,
    /// The connection broke, and no dial has ended since.
    Lost,
    /// The last dial failed.
    Down,
    /// The run it leads to is over, or nobody wants to talk to it.
    Closed,
}

pub(super) struct OutLane {
    pub(super) lane: Lane,
    state: Mutex<OutState>,
}

struct OutState {
    sender: Sender,
    way: Way,
    /// Which dial is the one that counts.
    dial: u64,
    /// Who sends, while there is nothing to send.
    waker: Option<Waker>,
    asked: HashMap<u64, oneshot::Sender<Result<Bytes, AskError>>>,
}

/// A question that was handed over. Dropping it is no longer to wait.
pub(super) struct Asked {
    lane: Arc<OutLane>,
    ticket: u64,
    pub(super) answer: oneshot::Receiver<Result<Bytes, AskError>>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = lock(&self.lane.state);
        if state.asked.remove(&self.ticket).is_some() {
            state.sender.withdraw(self.ticket);
        }
    }
}

impl OutLane {
    fn new(lane: Lane, generation: Generation) -> Self {
        let sender = Sender::new(generation, lane.class.bounds());
        let state = OutState { sender, way: Way::Idle, dial: 0, waker: None, asked: HashMap::new() };
        Self { lane, state: Mutex::new(state) }
    }

    /// Hands a message over. Says whether somebody has to start dialling now.
    pub(super) fn tell(&self, message: Message) -> Result<bool, NotSent> {
        let (is_first, waker) = {
            let mut state = lock(&self.state);
            let is_first = state.may_send()?;
            state.sender.accept(message).map_err(|_| NotSent::Full)?;
            if is_first {
                state.way = Way::First;
            }
            (is_first, state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(is_first)
    }

    /// The same for a question.
    pub(super) fn ask(self: &Arc<Self>, message: Message) -> Result<(bool, Asked), NotSent> {
        let (send, answer) = oneshot::channel();
        let (is_first, ticket, waker) = {
            let mut state = lock(&self.state);
            let is_first = state.may_send()?;
            if state.way == Way::Lost {
                return Err(NotSent::Gone);
            }
            if state.asked.len() >= ASKS_MAX {
                return Err(NotSent::Full);
            }
            let ticket = state.sender.accept(message).map_err(|_| NotSent::Full)?;
            state.asked.insert(ticket, send);
            if is_first {
                state.way = Way::First;
            }
            (is_first, ticket, state.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok((is_first, Asked { lane: self.clone(), ticket, answer }))
    }

    /// Wants the lane before there is anything to send. Says whether somebody has to start dialling now.
    pub(super) fn open(&self) -> bool {
        let mut state = lock(&self.state);
        let is_idle = state.way == Way::Idle;
        if is_idle {
            state.way = Way::First;
        }
        is_idle
    }

    fn close(&self) -> Vec<Message> {
        let mut state = lock(&self.state);
        state.fail(Way::Closed);
        let over = Sender::new(state.sender.peer(), self.lane.class.bounds());
        std::mem::replace(&mut state.sender, over).end()
    }
}

impl OutState {
    fn may_send(&self) -> Result<bool, NotSent> {
        match self.way {
            Way::Idle => Ok(true),
            Way::First | Way::Up | Way::Lost => Ok(false),
            Way::Down | Way::Closed => Err(NotSent::Gone),
        }
    }

    /// The connection, or the dial for one, has ended: whoever waits for an answer is told so.
    fn fail(&mut self, way: Way) {
        if self.way != Way::Closed {
            self.way = way;
        }
        self.dial += 1;
        self.sender.cut();
        for (_, answer) in self.asked.drain() {
            // Who does not wait any more does not have to be told.
            let _ = answer.send(Err(AskError::NoAnswer));
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What goes out on one connection: hello, and then all that waits, as often as somebody asks for more.
struct Outgoing {
    lane: Arc<OutLane>,
    shared: Arc<Shared>,
    dial: u64,
    hello: Option<Hello>,
}

impl Stream for Outgoing {
    type Item = Batch;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Batch>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(Batch { hello: Some(wire::hello(&hello)), ..Batch::default() }));
        }
        let mut state = lock(&self.lane.state);
        if state.dial != self.dial {
            return Poll::Ready(None);
        }
        let (mut frames, mut bytes, resent) = (Vec::new(), 0, state.sender.resent());
        let taken = state.sender.take(BATCH_BYTES, self.shared.elapsed(), |frame| {
            let frame = wire::frame(frame);
            bytes += frame.body.len();
            frames.push(frame);
        });
        match taken {
            Some((first, _)) => {
                let counts = self.shared.counts.of(self.lane.lane.class);
                count::add(&counts.sent, frames.len());
                count::add(&counts.sent_bytes, bytes);
                count::add(&counts.resent, (state.sender.resent() - resent) as usize);
                Poll::Ready(Some(Batch { first, frames, ..Batch::default() }))
            }
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("nobody listens at {0}")]
    Refused(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no {what} within {} s", after.as_secs_f32())]
    Late { what: &'static str, after: Duration },
    #[error("the peer closed it: {}", .0.message())]
    Status(Status),
    #[error("the peer closed it")]
    Closed,
    #[error("the peer breaks the protocol: {0}")]
    Breach(String),
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// Keeps one lane connected until its peer is closed.
pub(super) async fn keep(shared: Arc<Shared>, peer: Arc<Peer>, lane: Arc<OutLane>) {
    let mut retry = RETRY_MIN;
    loop {
        let start = Instant::now();
        let ended = tokio::select! {
            biased;
            () = peer.closed.cancelled() => return,
            () = shared.closed.cancelled() => return,
            ended = once(&shared, &peer, &lane) => ended,
        };
        let was_up = lock(&lane.state).way == Way::Up;
        let is_refused = matches!(ended, Ended::Refused(_));
        lock(&lane.state).fail(if was_up { Way::Lost } else { Way::Down });
        let answered = match &ended {
            Ended::Unfit(Unfit::OtherRun { answered, .. }) => Some(*answered),
            _ => None,
        };
        let (node, class, number) = (&peer.node, lane.lane.class, lane.lane.connection);
        match &ended {
            Ended::Status(status) if matches!(status.code(), Code::FailedPrecondition | Code::Unauthenticated) => {
                warn!(%node, ?class, number, reason = status.message(), "link refused by the peer");
            }
            Ended::Breach(_) => warn!(%node, ?class, number, reason = %ended, "link closed"),
            _ if was_up => info!(%node, ?class, number, reason = %ended, "link lost"),
            _ => debug!(%node, ?class, number, reason = %ended, "link not made"),
        }
        if class == Class::Control {
            shared.note(&peer, |state| {
                state.is_up = false;
                state.is_refused = is_refused;
                state.generation = answered.or(state.generation);
            });
        }
        if was_up && start.elapsed() >= HEALTHY_AFTER {
            retry = RETRY_MIN;
        }
        // Full jitter: those that lost the same peer at once do not come back at once.
        let wait = shared.dice.roll() % (retry.as_millis() as u64 + 1);
        retry = (retry * 2).min(RETRY_MAX);
        tokio::select! {
            () = peer.closed.cancelled() => return,
            () = shared.closed.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
        }
    }
}

/// One connection, from the dial to its end.
async fn once(shared: &Arc<Shared>, peer: &Arc<Peer>, lane: &Arc<OutLane>) -> Ended {
    match connected(shared, peer, lane).await {
        Ok(mut inbound) => loop {
            let batch = match inbound.message().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ended::Closed,
                Err(status) => return Ended::Status(status),
            };
            shared.answered(peer);
            if let Err(ended) = heard(lane, batch) {
                return ended;
            }
        },
        Err(ended) => ended,
    }
}

async fn connected(shared: &Arc<Shared>, peer: &Arc<Peer>, lane: &Arc<OutLane>) -> Result<Streaming<Batch>, Ended> {
    let hello = Hello {
        cluster: shared.cluster.clone(),
        node: shared.me.clone(),
        generation: shared.generation().ok_or_else(|| Ended::Connect("this node is not a member yet".to_owned()))?,
        to: peer.node.clone(),
        protocol: PROTOCOL,
        lane: lane.lane,
    };
    let channel = dial(shared, peer, lane.lane.class).await?;
    let outgoing =
        Outgoing { lane: lane.clone(), shared: shared.clone(), dial: lock(&lane.state).dial, hello: Some(hello) };
    let mut client = LinkServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let late = |_| Ended::Late { what: "welcome", after: HANDSHAKE_MAX };
    let shake = async {
        let mut inbound = client.link(outgoing).await.map_err(Ended::Status)?.into_inner();
        let first = inbound.message().await.map_err(Ended::Status)?.ok_or(Ended::Closed)?;
        Ok::<_, Ended>((inbound, first))
    };
    let (inbound, first) = timeout(HANDSHAKE_MAX, shake).await.map_err(late)??;
    let welcome = first.welcome.ok_or_else(|| Ended::Breach("no welcome came first".to_owned()))?;
    let welcome = wire::read_welcome(&welcome).map_err(Ended::Status)?;
    if welcome.node != peer.node || !(PROTOCOL.0..=PROTOCOL.1).contains(&welcome.protocol) {
        return Err(Ended::Breach(format!("{} welcomed with protocol {}", welcome.node, welcome.protocol)));
    }
    {
        let mut state = lock(&lane.state);
        if state.way == Way::Closed {
            return Err(Ended::Closed);
        }
        state.sender.welcomed(welcome.generation, welcome.last, welcome.credit)?;
        state.way = Way::Up;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
    info!(node = %peer.node, generation = %welcome.generation, lane = ?lane.lane, "link up");
    shared.answered(peer);
    if lane.lane.class == Class::Control {
        shared.note(peer, |state| {
            state.generation = Some(welcome.generation);
            state.is_up = true;
            state.is_refused = false;
        });
    }
    Ok(inbound)
}

async fn dial(shared: &Arc<Shared>, peer: &Arc<Peer>, class: Class) -> Result<Channel, Ended> {
    let window = class.window_bytes() as u32;
    let endpoint = Endpoint::from_static("https://link.nexa.internal")
        .tls_config(shared.tls.client(&peer.node))
        .map_err(|error| Ended::Connect(chain(&error)))?
        .initial_stream_window_size(window)
        .initial_connection_window_size(window * WINDOW_FACTOR)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT)
        .keep_alive_while_idle(true);
    let address = peer.address.clone();
    let refused = Arc::new(AtomicBool::new(false));
    let is_refused = refused.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (address, is_refused) = (address.clone(), is_refused.clone());
        async move {
            let mut stream = TcpStream::connect(&address).await.inspect_err(|error| {
                is_refused.store(error.kind() == std::io::ErrorKind::ConnectionRefused, Ordering::Relaxed);
            })?;
            stream.set_nodelay(true)?;
            let [a, b, c, d] = wire::PREFACE;
            stream.write_all(&[a, b, c, d, class as u8]).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    match timeout(CONNECT_MAX, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(_)) if refused.load(Ordering::Relaxed) => Err(Ended::Refused(peer.address.clone())),
        Ok(Err(error)) => Err(Ended::Connect(chain(&error))),
        Err(_) => Err(Ended::Late { what: "connection", after: CONNECT_MAX }),
    }
}

/// What an error says, and what the errors behind it say.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What the receiver says on a connection.
fn heard(lane: &OutLane, batch: Batch) -> Result<(), Ended> {
    let mut state = lock(&lane.state);
    if batch.acked > 0 || batch.granted > 0 {
        let report = Report { acked: batch.acked, granted: batch.granted };
        state.sender.reported(report).map_err(|breach| Ended::Breach(breach.to_string()))?;
    }
    for answer in batch.answers {
        if let Some(asked) = state.asked.remove(&answer.ticket) {
            let _ = asked.send(read(answer));
        }
    }
    // More may be sent now than could be before.
    if let Some(waker) = state.waker.take() {
        waker.wake();
    }
    Ok(())
}

fn read(answer: Answer) -> Result<Bytes, AskError> {
    match u8::try_from(answer.why) {
        Ok(0) => Ok(answer.body),
        Ok(why) => Err(Refusal::new(Why::of(why), answer.detail).into()),
        Err(_) => Err(Refusal::new(Why::Failed, answer.detail).into()),
    }
}

/// A message as the sender keeps it.
pub(super) fn message(service: u16, kind: Kind, body: Bytes) -> Message {
    Message { service, kind, body }
}

/// A deadline of the sender's clock.
pub(super) fn until(shared: &Shared, within: Duration) -> Kind {
    Kind::Ask { until: shared.elapsed() + Millis(u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1)) }
}

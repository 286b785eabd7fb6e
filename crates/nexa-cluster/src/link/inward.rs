//! The half that a peer dials: who is let in, what of theirs is new, and what goes back.
//!
//! Connections are taken on the control thread. The first bytes say which class one is for, and from then on it belongs to
//! the threads of that class. At most [`GREETED_MAX`] say nothing yet; more wait with the operating system.
//!
//! What comes is handed to the handler where it is read, so a handler that takes its time stops its sender, first by its
//! credit and then by the bounds of its ring; the other lanes go on. Questions are handled beside each other, at most
//! [`HANDLED_MAX`] a lane; one more is refused as [`Why::Busy`]. Answers that wait to go back are at most
//! [`ANSWERS_BYTES_MAX`] a connection; one more is refused likewise.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use nexa_member::link::{Attachment, Breach, Class, Hello, MESSAGE_COST, Receiver, Report, Verdict, Welcome};
use nexa_proto::internal_v1::link_service_server::{LinkService, LinkServiceServer};
use nexa_proto::internal_v1::{Answer, Batch, Frame};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::{
    BATCH_BYTES, FRAME_BYTES_MAX, HANDSHAKE_MAX, LinkError, MESSAGE_BYTES_MAX, PING_EVERY, PING_WAIT, Shared,
    WINDOW_FACTOR, count, lock, tls, wire,
};
use crate::peers::{Handler, Refusal, Service, Why};

/// Connections that have not said yet which class they are for.
const GREETED_MAX: usize = 256;
/// Connections of one class that wait to be served.
const WAITING_MAX: usize = 64;
/// Questions of one lane that are handled at a time.
const HANDLED_MAX: usize = 4_096;
/// Bytes of answers of one connection that wait to go back, costs included.
const ANSWERS_BYTES_MAX: usize = 16 << 20;
/// How long taking connections rests after it failed: out of file descriptors, for one.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What one lane of one peer has brought.
pub(super) struct InLane {
    receiver: Mutex<Receiver>,
    /// Held from judging messages until they are delivered: a later connection of the same lane must not overtake.
    turn: Mutex<()>,
    handled: AtomicUsize,
    connection: Mutex<CancellationToken>,
}

impl InLane {
    pub(super) fn new(class: Class) -> Self {
        Self {
            receiver: Mutex::new(Receiver::new(class.window_bytes())),
            turn: Mutex::new(()),
            handled: AtomicUsize::new(0),
            connection: Mutex::default(),
        }
    }
}

/// Serves every class on its own threads. Returns once connections are taken.
pub(super) fn serve(shared: &Arc<Shared>, listener: std::net::TcpListener) -> Result<SocketAddr, LinkError> {
    let cannot = |source| LinkError::Listen { source };
    listener.set_nonblocking(true).map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let mut doors = Vec::new();
    for class in Class::ALL {
        let (door, sockets) = mpsc::channel::<std::net::TcpStream>(WAITING_MAX);
        let window = class.window_bytes() as u32;
        let router = Server::builder()
            .tls_config(shared.tls.server())
            .map_err(|source| LinkError::Tls { source })?
            .initial_stream_window_size(window)
            .initial_connection_window_size(window * WINDOW_FACTOR)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(1)
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_WAIT))
            .add_service(
                LinkServiceServer::new(Door { shared: shared.clone(), class })
                    .max_decoding_message_size(MESSAGE_BYTES_MAX),
            );
        let closed = shared.closed.clone();
        shared.runtime(class).spawn(async move {
            let sockets = ReceiverStream::new(sockets).map(TcpStream::from_std);
            if let Err(error) = router.serve_with_incoming_shutdown(sockets, closed.cancelled()).await {
                warn!(?class, %error, "links are not served any more");
            }
        });
        doors.push(door);
    }
    shared.runtime(Class::Control).spawn(accept(shared.clone(), listener, doors));
    Ok(address)
}

async fn accept(shared: Arc<Shared>, listener: std::net::TcpListener, doors: Vec<mpsc::Sender<std::net::TcpStream>>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "cannot listen for links"),
    };
    let greeted = Arc::new(Semaphore::new(GREETED_MAX));
    let doors = Arc::new(doors);
    loop {
        let accepted = async {
            let permit = greeted.clone().acquire_owned().await.expect("nobody closes this semaphore");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shared.closed.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((socket, from)) => {
                let doors = doors.clone();
                tokio::spawn(async move {
                    match timeout(HANDSHAKE_MAX, show_in(socket, &doors)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%from, %error, "connection refused"),
                        Err(_) => debug!(%from, "connection closed: it said nothing"),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "cannot take a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn show_in(mut socket: TcpStream, doors: &[mpsc::Sender<std::net::TcpStream>]) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut preface = [0; 5];
    socket.read_exact(&mut preface).await?;
    let [magic @ .., class] = preface;
    let at = Class::ALL.iter().position(|known| *known as u8 == class).filter(|_| magic == wire::PREFACE);
    let Some(at) = at else { return Err(std::io::Error::other("it does not speak as a node does")) };
    let socket = socket.into_std()?;
    doors[at].send(socket).await.map_err(|_| std::io::Error::other("this node is closing"))
}

/// Where connections of one class come in.
struct Door {
    shared: Arc<Shared>,
    class: Class,
}

#[tonic::async_trait]
impl LinkService for Door {
    type LinkStream = Returning;

    async fn link(&self, request: Request<Streaming<Batch>>) -> Result<Response<Returning>, Status> {
        let shared = self.shared.clone();
        let (metadata, extensions, mut inbound) = request.into_parts();
        let first = timeout(HANDSHAKE_MAX, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let hello =
            first.and_then(|batch| batch.hello).ok_or_else(|| Status::invalid_argument("no hello came first"))?;
        let hello = wire::read_hello(hello)?;
        let request = Request::from_parts(metadata, extensions, ());
        let certified = tls::is_from(&request, hello.node.as_str());
        if hello.lane.class != self.class {
            return Err(Status::invalid_argument("the hello is for another class than the connection"));
        }
        let me = shared.generation().ok_or_else(|| Status::unavailable("this node is not a member yet"))?;
        let protocol = lock(&shared.door).admit(&hello, certified).map_err(|refused| {
            warn!(node = %hello.node, generation = %hello.generation, lane = ?hello.lane, %refused, "link refused");
            if certified {
                Status::failed_precondition(refused.to_string())
            } else {
                Status::unauthenticated(refused.to_string())
            }
        })?;
        let (lane, run) = shared.in_lane(&hello.node, hello.lane, me)?;
        let connection = run.child_token();
        let attached = lock(&lane.receiver).attach(hello.generation);
        let (attachment, last, credit) =
            attached.map_err(|seen| Status::failed_precondition(format!("generation {seen} has been here")))?;
        // The connection before this one is over, whether it has noticed or not.
        std::mem::replace(&mut *lock(&lane.connection), connection.clone()).cancel();
        let welcome = Welcome { node: shared.me.clone(), generation: me, protocol, last, credit };
        info!(node = %hello.node, generation = %hello.generation, lane = ?hello.lane, "link taken");
        let back = Arc::new(Back { lane, attachment, state: Mutex::default() });
        let returning = Returning { back: back.clone(), welcome: Some(welcome) };
        tokio::spawn(read(shared, hello, back, inbound, connection));
        Ok(Response::new(returning))
    }
}

/// What goes back on one connection.
struct Back {
    lane: Arc<InLane>,
    attachment: Attachment,
    state: Mutex<BackState>,
}

#[derive(Default)]
struct BackState {
    answers: VecDeque<Answer>,
    bytes: usize,
    reported: Report,
    is_over: bool,
    waker: Option<Waker>,
}

impl Back {
    fn wake(&self) {
        let waker = lock(&self.state).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn answer(&self, mut answer: Answer) {
        let waker = {
            let mut state = lock(&self.state);
            if state.bytes + cost(&answer) > ANSWERS_BYTES_MAX {
                answer = refused(answer.ticket, &Refusal::new(Why::Busy, "too many answers wait to be sent"));
            }
            state.bytes += cost(&answer);
            state.answers.push_back(answer);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn end(&self) {
        lock(&self.state).is_over = true;
        self.wake();
    }
}

fn cost(answer: &Answer) -> usize {
    answer.body.len() + answer.detail.len() + MESSAGE_COST
}

/// The stream of it: welcome, and then answers and reports, as often as somebody asks for more.
pub(super) struct Returning {
    back: Arc<Back>,
    welcome: Option<Welcome>,
}

impl Stream for Returning {
    type Item = Result<Batch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(welcome) = self.welcome.take() {
            lock(&self.back.state).reported = Report { acked: welcome.last, granted: welcome.credit };
            return Poll::Ready(Some(Ok(Batch { welcome: Some(wire::welcome(welcome)), ..Batch::default() })));
        }
        let mut state = lock(&self.back.state);
        if state.is_over {
            return Poll::Ready(None);
        }
        let report = lock(&self.back.lane.receiver).report();
        let mut batch = Batch::default();
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            let Some(answer) = state.answers.pop_front() else { break };
            bytes += cost(&answer);
            batch.answers.push(answer);
        }
        state.bytes -= bytes;
        if report != state.reported {
            (batch.acked, batch.granted) = (report.acked, report.granted);
            state.reported = report;
        } else if batch.answers.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(batch)))
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        // The peer has closed it: nothing that is still read could be answered.
        let mut state = lock(&self.back.state);
        state.is_over = true;
        state.answers.clear();
        state.bytes = 0;
    }
}

/// Reads one connection until it ends.
async fn read(
    shared: Arc<Shared>,
    hello: Hello,
    back: Arc<Back>,
    mut inbound: Streaming<Batch>,
    connection: CancellationToken,
) {
    let reason = loop {
        let batch = tokio::select! {
            biased;
            () = connection.cancelled() => break "a later one has taken over".to_owned(),
            () = shared.closed.cancelled() => break "this node is closing".to_owned(),
            batch = inbound.message() => batch,
        };
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => break "the peer closed it".to_owned(),
            Err(status) => break status.message().to_owned(),
        };
        let Some(handler) = shared.handler.upgrade() else { break "nobody is here to handle it".to_owned() };
        shared.received(&hello.node);
        if let Err(breach) = deliver(&shared, &hello, &back, &handler, batch) {
            break breach.to_string();
        }
    };
    debug!(node = %hello.node, lane = ?hello.lane, reason, "link ended");
    back.end();
}

/// Hands over what is new of a batch.
fn deliver(
    shared: &Arc<Shared>,
    hello: &Hello,
    back: &Arc<Back>,
    handler: &Arc<dyn Handler>,
    batch: Batch,
) -> Result<(), Breach> {
    let turn = lock(&back.lane.turn);
    let mut new = Vec::with_capacity(batch.frames.len());
    let mut breach = Ok(());
    {
        let mut receiver = lock(&back.lane.receiver);
        for (seq, frame) in (batch.first..).zip(batch.frames) {
            match receiver.receive(back.attachment, seq, frame.body.len()) {
                Ok(Verdict::Deliver) => new.push(frame),
                Ok(Verdict::Seen) => receiver.handled(frame.body.len()),
                Err(found) => {
                    breach = Err(found);
                    break;
                }
            }
        }
    }
    let counts = shared.counts.of(hello.lane.class);
    count::add(&counts.received, new.len());
    count::add(&counts.received_bytes, new.iter().map(|frame| frame.body.len()).sum());
    let mut has_told = false;
    for frame in new {
        let len = frame.body.len();
        let service = u16::try_from(frame.service).ok().and_then(Service::of);
        if frame.ticket > 0 {
            question(shared, hello, back, handler.clone(), service, frame);
            continue;
        }
        // Of a service of a newer build nothing is known here but that it may be ignored.
        if let Some(service) = service {
            handler.told(&hello.node, hello.generation, service, frame.body);
        }
        lock(&back.lane.receiver).handled(len);
        has_told = true;
    }
    drop(turn);
    // The report on a question goes with its answer.
    if has_told {
        back.wake();
    }
    breach
}

fn question(
    shared: &Arc<Shared>,
    hello: &Hello,
    back: &Arc<Back>,
    handler: Arc<dyn Handler>,
    service: Option<Service>,
    frame: Frame,
) {
    let Frame { body, ticket, remaining_ms, .. } = frame;
    let len = body.len();
    let place = Place::take(&back.lane, len);
    let refusal = match service {
        None => Some(Refusal::new(Why::Malformed, "this build does not know the service")),
        Some(_) if place.is_too_much => Some(Refusal::new(Why::Busy, "too many questions are handled already")),
        Some(_) => None,
    };
    let (Some(service), None) = (service, &refusal) else {
        drop(place);
        return back.answer(refused(ticket, &refusal.unwrap_or_else(|| Refusal::new(Why::Failed, ""))));
    };
    let (node, generation, class) = (hello.node.clone(), hello.generation, hello.lane.class);
    let back = back.clone();
    shared.runtime(class).spawn(async move {
        let within = Duration::from_millis(u64::from(remaining_ms));
        let answered = timeout(within, handler.asked(&node, generation, service, body)).await;
        drop(place);
        back.answer(match answered {
            Ok(Ok(body)) if body.len() > class.body_bytes_max() => {
                refused(ticket, &Refusal::new(Why::Failed, "the answer is longer than one may be"))
            }
            Ok(Ok(body)) => Answer { ticket, body, why: 0, detail: String::new() },
            Ok(Err(refusal)) => refused(ticket, &refusal),
            // Nobody waits for it any more, but what it held is free again.
            Err(_) => refused(ticket, &Refusal::new(Why::Failed, "it took too long")),
        });
    });
}

/// A question that is handled: when it is dropped, its bytes may come again.
struct Place {
    lane: Arc<InLane>,
    len: usize,
    is_too_much: bool,
}

impl Place {
    fn take(lane: &Arc<InLane>, len: usize) -> Self {
        let before = lane.handled.fetch_add(1, Ordering::Relaxed);
        Self { lane: lane.clone(), len, is_too_much: before >= HANDLED_MAX }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lane.handled.fetch_sub(1, Ordering::Relaxed);
        lock(&self.lane.receiver).handled(self.len);
    }
}

fn refused(ticket: u64, refusal: &Refusal) -> Answer {
    Answer { ticket, body: Bytes::new(), why: u32::from(refusal.why as u8), detail: refusal.detail.clone() }
}

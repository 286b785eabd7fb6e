//! Links over sockets: gRPC streams with TLS on both sides, one connection a lane, around the protocol of
//! `nexa_member::link`.
//!
//! ```text
//! Peers::tell ─► OutLane ─► Outgoing ═══ h2, TLS, TCP ═══► read ─► Handler::told
//! Peers::ask  ─►    │                                        └───► Handler::asked
//!    answers, acks, credit ◄══════════════════════════════════════ Returning
//! ```
//!
//! - Two nodes have one connection for control, two for work, one for bulk and one for reads, each way. The one for
//!   control is made at once, the others when they are first wanted.
//! - Control has a thread of its own, from the first byte of a connection on: whatever data does, heartbeats go through.
//! - What waits is sent together, up to [`BATCH_BYTES`] at a time and without waiting for more.
//! - A connection that says nothing for [`PING_EVERY`] is asked, and closed if it does not answer within [`PING_WAIT`].
//! - A body that the handler keeps keeps the buffer that it arrived in, up to a batch. Copy what is small and stays.
//!
//! Holds what `peers` says. Two services of one class may have different connections, so nothing orders one by the other.

mod count;
mod inward;
mod outward;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use nexa_member::link::{Class, Doorkeeper, Kind, Lane};
use nexa_ports::clock::Clock;
use nexa_ports::dice::Dice;
use nexa_types::{Generation, Millis, NodeId, Timestamp};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, warn};

use self::inward::InLane;
use self::outward::{OutLane, Peer};
use crate::certs::{self, CertError, Identity, check_name};
use crate::peers::{AskError, Handler, LinkState, LinkStates, NotSent, Peers, Service, Traffic};

/// How long a TCP connection with its TLS handshake may take.
pub const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long hello and welcome may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(2);
/// A silent connection is asked whether it is there as often as this.
pub const PING_EVERY: Duration = Duration::from_secs(2);
/// And closed if it has not answered after this.
pub const PING_WAIT: Duration = Duration::from_millis(1_500);
/// The longest wait before a second dial, and before any. Each wait is drawn between nothing and the limit, which
/// doubles with each dial that fails.
pub const RETRY_MIN: Duration = Duration::from_millis(250);
/// See [`RETRY_MIN`].
pub const RETRY_MAX: Duration = Duration::from_secs(5);
/// A connection that lasted so long makes the next wait a short one again.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Bytes that are sent together, with costs; the last message may go beyond.
pub const BATCH_BYTES: usize = 64 << 10;
/// Bytes of one gRPC message: a batch whose last message is the longest that there may be.
const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Bytes of one HTTP/2 frame: a batch in one, nearly always.
const FRAME_BYTES_MAX: u32 = 128 << 10;
/// What all streams of a connection may have under way, in stream windows.
const WINDOW_FACTOR: u32 = 3;
/// How seldom a peer's moments in [`LinkStates`] are brought up to date.
const FRESHNESS: Millis = Millis(200);

/// Why links cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The node's name does not fit into a certificate.
    #[error(transparent)]
    Name(#[from] CertError),
    /// The certificate is somebody else's.
    #[error("the certificate is made out to {names}, and this node is {node}", names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") })]
    NotMine {
        /// This node.
        node: NodeId,
        /// Whom it is made out to.
        names: Vec<String>,
    },
    /// The certificate, the key or the authority's certificate cannot be used.
    #[error("cannot use the node's certificate: check the files that `nexa certs` made")]
    Tls {
        /// What is wrong.
        source: tonic::transport::Error,
    },
    /// The address cannot be listened at.
    #[error("cannot listen for other nodes")]
    Listen {
        /// What is wrong.
        source: std::io::Error,
    },
    /// There is no room for threads.
    #[error("cannot start the threads of the links")]
    Threads {
        /// What is wrong.
        source: std::io::Error,
    },
}

/// A message that was accepted and is not known to have been delivered: the run that it was meant for is over, or
/// nobody is linked with it any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// Whom it was for.
    pub to: NodeId,
    /// Which run of it.
    pub generation: Generation,
    /// By what it must not be held up.
    pub class: Class,
    /// What it was about.
    pub service: Service,
    /// What it said.
    pub body: Bytes,
}

/// Who wants to hear of messages that come back. Called where links are closed, so it must not block.
pub type OnUndelivered = Box<dyn Fn(Undelivered) + Send + Sync>;

/// What links need to know.
pub struct LinkConfig {
    /// Which cluster; nodes of another one are refused.
    pub cluster: String,
    /// Who this node is.
    pub node: NodeId,
    /// Its certificate, made out to `node`.
    pub identity: Identity,
    /// Where to listen for other nodes. Port 0 is any that is free.
    pub listen: SocketAddr,
    /// Threads for everything but control; at least one.
    pub threads: usize,
    /// For the moments in [`LinkStates`].
    pub clock: Arc<dyn Clock>,
    /// For how long to wait before dialling again.
    pub dice: Arc<dyn Dice>,
    /// Who wants to hear of messages that come back.
    pub on_undelivered: Option<OnUndelivered>,
}

impl fmt::Debug for LinkConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LinkConfig").field("node", &self.node).field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// The links of one node. Dropping it closes them at once, like the end of a process.
pub struct TonicPeers {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtimes: [Option<Runtime>; 2],
}

struct Shared {
    cluster: String,
    me: NodeId,
    tls: tls::Tls,
    handler: Weak<dyn Handler>,
    clock: Arc<dyn Clock>,
    dice: Arc<dyn Dice>,
    on_undelivered: Option<OnUndelivered>,
    counts: count::Counts,
    start: Instant,
    control: Handle,
    data: Handle,
    met: RwLock<Met>,
    door: Mutex<Doorkeeper>,
    links: watch::Sender<Arc<LinkStates>>,
    closed: CancellationToken,
}

/// Whom this node knows.
#[derive(Default)]
struct Met {
    /// Which run of itself it speaks for, and what ends when that does.
    me: Option<(Generation, CancellationToken)>,
    peers: BTreeMap<NodeId, Arc<Peer>>,
    /// What others dial, by who they are: as many as have ever been let in, see [`nexa_member::link::NODES_MAX`].
    inward: BTreeMap<(NodeId, Lane), Arc<InLane>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TonicPeers {
    /// Listens, and dials whom it [meets](Peers::meet). Before that names this node's own run, nobody is let in. What comes
    /// goes to the handler, for as long as somebody else holds that.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn start(config: LinkConfig, handler: &Arc<impl Handler + 'static>) -> Result<Self, LinkError> {
        check_name(&config.node)?;
        let own = certs::look(&config.identity.certificate)?;
        if !own.is_for(config.node.as_str()) {
            return Err(LinkError::NotMine { node: config.node, names: own.names });
        }
        // Whoever has chosen another provider for this process has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let threads = |source| LinkError::Threads { source };
        let listener = std::net::TcpListener::bind(config.listen).map_err(|source| LinkError::Listen { source })?;
        let control = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nexa-control")
            .enable_all()
            .build()
            .map_err(threads)?;
        let data = Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("nexa-link")
            .enable_all()
            .build()
            .map_err(threads)?;
        let handler: Weak<dyn Handler> = Arc::downgrade(handler) as Weak<dyn Handler>;
        let shared = Arc::new(Shared {
            door: Mutex::new(Doorkeeper::new(config.cluster.clone(), config.node.clone())),
            cluster: config.cluster,
            me: config.node,
            tls: tls::Tls::new(&config.identity, HANDSHAKE_MAX),
            handler,
            clock: config.clock,
            dice: config.dice,
            on_undelivered: config.on_undelivered,
            counts: count::Counts::default(),
            start: Instant::now(),
            control: control.handle().clone(),
            data: data.handle().clone(),
            met: RwLock::default(),
            links: watch::Sender::default(),
            closed: CancellationToken::new(),
        });
        // From here on the runtimes are ended without waiting, also when this fails.
        let mut peers = Self { shared, address: config.listen, runtimes: [Some(control), Some(data)] };
        peers.address = inward::serve(&peers.shared, listener)?;
        Ok(peers)
    }

    /// Where this node listens for others.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn peer(&self, to: &NodeId) -> Result<Arc<Peer>, NotSent> {
        let met = self.shared.met();
        met.peers.get(to).cloned().ok_or(NotSent::Unknown)
    }

    /// Notes if a message was refused for want of room.
    fn counted<T>(&self, class: Class, sent: Result<T, NotSent>) -> Result<T, NotSent> {
        if matches!(sent, Err(NotSent::Full)) {
            count::add(&self.shared.counts.of(class).full, 1);
        }
        sent
    }

    fn dial(&self, peer: &Arc<Peer>, lane: &Arc<OutLane>) {
        let task = outward::keep(self.shared.clone(), peer.clone(), lane.clone());
        self.shared.runtime(lane.lane.class).spawn(task);
    }
}

impl Drop for TonicPeers {
    fn drop(&mut self) {
        self.shared.closed.cancel();
        for peer in std::mem::take(&mut self.shared.met_mut().peers).values() {
            self.shared.close(peer);
        }
        // Not waiting: this may be dropped where waiting is not allowed, and nothing is left to be done.
        self.runtimes.iter_mut().filter_map(Option::take).for_each(Runtime::shutdown_background);
    }
}

impl Peers for TonicPeers {
    fn tell(&self, to: &NodeId, class: Class, service: Service, body: Bytes) -> Result<(), NotSent> {
        if body.len() > class.body_bytes_max() {
            return Err(NotSent::TooLarge);
        }
        let peer = self.peer(to)?;
        let service = service as u16;
        let lane = peer.lane(class, service);
        if self.counted(class, lane.tell(outward::message(service, Kind::Tell, body)))? {
            self.dial(&peer, lane);
        }
        Ok(())
    }

    fn ask(
        &self,
        to: &NodeId,
        class: Class,
        service: Service,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        let to = to.clone();
        Box::pin(async move {
            if body.len() > class.body_bytes_max() {
                return Err(NotSent::TooLarge.into());
            }
            let mut asked = {
                let peer = self.peer(&to)?;
                let service = service as u16;
                let lane = peer.lane(class, service);
                let message = outward::message(service, outward::until(&self.shared, within), body);
                let (is_first, asked) = self.counted(class, lane.ask(message))?;
                if is_first {
                    self.dial(&peer, lane);
                }
                asked
            };
            match timeout(within, &mut asked.answer).await {
                Ok(Ok(answer)) => answer,
                // The lane is gone with everything that waited, or the time is up.
                Ok(Err(_)) | Err(_) => Err(AskError::NoAnswer),
            }
        })
    }

    fn links(&self) -> watch::Receiver<Arc<LinkStates>> {
        self.shared.links.subscribe()
    }

    fn traffic(&self) -> Traffic {
        self.shared.counts.read()
    }

    fn meet(&self, members: &[(NodeId, Generation, String)]) {
        let shared = &self.shared;
        let (over, new) = {
            let mut met = shared.met_mut();
            let mut over: Vec<Arc<Peer>> = Vec::new();
            let me = members.iter().find(|(node, ..)| *node == shared.me).map(|(_, generation, _)| *generation);
            if let Some(me) = me.filter(|me| met.me.as_ref().is_none_or(|(before, _)| before != me)) {
                // Another run: what was said to the one before, and by it, is over.
                if let Some((_, run)) = met.me.take() {
                    run.cancel();
                }
                met.inward.clear();
                over.extend(std::mem::take(&mut met.peers).into_values());
                met.me = Some((me, shared.closed.child_token()));
            }
            let mut peers = BTreeMap::new();
            let mut new = Vec::new();
            for (node, generation, address) in members.iter().filter(|(node, ..)| *node != shared.me) {
                if let Err(refused) = lock(&shared.door).note(node, *generation) {
                    debug!(%node, %generation, %refused, "not linked with");
                    continue;
                }
                let is_same = |peer: &Arc<Peer>| peer.generation == *generation && peer.address == *address;
                let peer = match met.peers.remove(node) {
                    Some(peer) if is_same(&peer) => peer,
                    before => {
                        over.extend(before);
                        let peer = Arc::new(Peer::new(node.clone(), *generation, address.clone()));
                        new.push(peer.clone());
                        peer
                    }
                };
                peers.insert(node.clone(), peer);
            }
            over.extend(std::mem::replace(&mut met.peers, peers).into_values());
            let new = if met.me.is_some() { new } else { Vec::new() };
            let kept: Vec<NodeId> = met.peers.keys().cloned().collect();
            shared.links.send_if_modified(|links| {
                let states = |node: &NodeId| (node.clone(), links.get(node).copied().unwrap_or_default());
                let mut states: LinkStates = kept.iter().map(states).collect();
                for peer in &over {
                    peer.closed.cancel();
                    states.entry(peer.node.clone()).and_modify(|state| state.is_up = false);
                }
                let is_new = **links != states;
                *links = Arc::new(states);
                is_new
            });
            (over, new)
        };
        for peer in over {
            shared.close(&peer);
        }
        for peer in new {
            let lane = peer.lane(Class::Control, 0);
            if lane.open() {
                self.dial(&peer, lane);
            }
        }
    }
}

impl Shared {
    fn met(&self) -> std::sync::RwLockReadGuard<'_, Met> {
        self.met.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn met_mut(&self) -> std::sync::RwLockWriteGuard<'_, Met> {
        self.met.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn runtime(&self, class: Class) -> &Handle {
        if class == Class::Control { &self.control } else { &self.data }
    }

    /// Which run this node speaks for.
    fn generation(&self) -> Option<Generation> {
        self.met().me.as_ref().map(|(generation, _)| *generation)
    }

    /// Time for deadlines: since these links were started.
    fn elapsed(&self) -> Millis {
        Millis(self.start.elapsed().as_millis() as u64)
    }

    /// What a peer's lane has brought so far, and what ends with this node's run; it has to be `me` still.
    fn in_lane(&self, node: &NodeId, lane: Lane, me: Generation) -> Result<(Arc<InLane>, CancellationToken), Status> {
        let mut met = self.met_mut();
        let run = met.me.as_ref().filter(|(generation, _)| *generation == me).map(|(_, run)| run.clone());
        let run = run.ok_or_else(|| Status::unavailable("this node's run has changed"))?;
        let lane = met.inward.entry((node.clone(), lane)).or_insert_with(|| Arc::new(InLane::new(lane.class)));
        Ok((lane.clone(), run))
    }

    /// Closes the links to a run of a peer, and gives back what it was not told.
    fn close(&self, peer: &Peer) {
        let undelivered = peer.close();
        if undelivered.is_empty() {
            return;
        }
        warn!(node = %peer.node, generation = %peer.generation, count = undelivered.len(), "messages come back undelivered");
        let Some(on_undelivered) = &self.on_undelivered else { return };
        for (class, message) in undelivered {
            let service = Service::of(message.service).expect("only messages of a service are handed over");
            let (to, generation) = (peer.node.clone(), peer.generation);
            on_undelivered(Undelivered { to, generation, class, service, body: message.body });
        }
    }

    /// Changes how the links to a peer stand, unless they lead to another run of it by now.
    fn note(&self, peer: &Peer, change: impl FnOnce(&mut LinkState)) {
        self.links.send_if_modified(|links| {
            if peer.closed.is_cancelled() {
                return false;
            }
            let Some(mut state) = links.get(&peer.node).copied() else { return false };
            let before = state;
            change(&mut state);
            let is_new = state != before;
            if is_new {
                Arc::make_mut(links).insert(peer.node.clone(), state);
            }
            is_new
        });
    }

    /// A peer has said something on a half that this node dialled.
    fn answered(&self, peer: &Peer) {
        let now = self.clock.now();
        let before = Timestamp(peer.answered_at.load(Ordering::Relaxed));
        if before != Timestamp(0) && now.since(before) < FRESHNESS {
            return;
        }
        peer.answered_at.store(now.0, Ordering::Relaxed);
        self.note(peer, |state| state.answered_at = Some(now));
    }

    /// A peer has said something on a half that it dialled.
    fn received(&self, from: &NodeId) {
        let now = self.clock.now();
        let is_fresh = |links: &LinkStates| match links.get(from) {
            Some(state) => state.received_at.is_some_and(|at| now.since(at) < FRESHNESS),
            // Not met yet: there is nothing to note.
            None => true,
        };
        if is_fresh(&self.links.borrow()) {
            return;
        }
        self.links.send_if_modified(|links| {
            if let Some(state) = Arc::make_mut(links).get_mut(from) {
                state.received_at = Some(now);
            }
            true
        });
    }
}

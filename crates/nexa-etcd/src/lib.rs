//! [`Membership`] on etcd: node leases, the election of a leader, and shared settings.
//!
//! Everything runs on a thread of its own with its own runtime ([`EtcdMembership::connect`]), so that a busy node does not lose
//! its lease, and a connection that somebody else's runtime made is never waited for. Beside each other run there:
//!   - [`lease`]: joining, leaving, and the keeper, which renews the node's lease every third of its term
//!   - [`view`]: the list of members. A watch is a hint only, and the list is read again as a whole
//!   - [`election`]: what the list means for who wants to lead
//!   - [`setting`]: shared values, written by comparing
//!   - [`anchors`]: what stands for the whole log, written by who leads
//!
//! Each call to etcd goes to one endpoint ([`pool`]) and is answered within [`ANSWER_WITHIN`], or the next endpoint is asked over a
//! new connection. What was asked without an answer may have been done, so everything is written such that reading again tells:
//! a registration by its lease, a place as leader by the list, a setting by a number that only its writer knows.
//!
//! While etcd is away nothing changes: the list stays as it is (its age is [`EtcdMembership::listed_at`]), and the node stays
//! what it was, with a [`Standing::valid_until`] that passes. Only etcd's own word that the lease is gone makes it
//! [`Standing::Lost`]. An etcd that restarts gives every lease its whole term again, and the keeper keeps asking several times a
//! term, so nobody's run ends because etcd was away.
//!
//! Keys, below `/nexa/CLUSTER/`:
//!
//! | key | value | lease |
//! |---|---|---|
//! | `members/nodes/NODE` | the [`NodeCard`]; its create revision is the generation | the node's |
//! | `members/leader` | name and generation; its create revision is the epoch | the leader's |
//! | `anchors/newest` | the hash of the newest anchor of the log | none |
//! | `anchors/NN` | one anchor of the newest 64 | none |
//! | `settings/NAME` | 16 bytes that name the write, then the setting | none |
//!
//! An etcd that was set back to an earlier state breaks the promises, since its revisions begin to repeat: a list that is older than
//! one that was seen is not used and an error is logged. The remedy is another cluster name.

mod anchors;
mod election;
mod lease;
mod pool;
mod setting;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::Duration;

use futures::future::BoxFuture;
use nexa_ports::dice::SystemDice;
use nexa_ports::membership::{
    Generation, Members, Membership, MembershipError, NodeCard, Setting, Standing, check_setting, encode_card,
};
use nexa_types::{NodeId, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, Semaphore, oneshot, watch};

pub use crate::anchors::ANCHORS_MAX;
use crate::lease::Own;
use crate::pool::{CallError, Pool};
use crate::view::Keys;

/// A call that has no answer after so long is made again at the next endpoint.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// So long is tried before an asker hears [`MembershipError::Unavailable`].
pub const ASK_WITHIN: Duration = Duration::from_secs(3);
/// Between two readings of the list at most.
pub const LIST_EVERY: Duration = Duration::from_secs(5);
/// [`Standing::valid_until`] is so much earlier than the end of the term.
pub const MARGIN: Duration = Duration::from_millis(500);
/// How much longer than the term a node waits for its name to become free.
pub const NAME_WAIT: Duration = Duration::from_secs(2);
/// Asked at the same time; what is beyond waits for its turn.
const ASKS_AT_ONCE: usize = 64;

/// Where etcd is, and which cluster this is.
#[derive(Clone)]
pub struct Settings {
    /// etcd's client endpoints, `host:port` or URLs.
    pub endpoints: Vec<String>,
    /// The cluster's name: letters, digits, `.`, `_` and `-`, at most 64 of them. Clusters with other names do not see each other.
    pub cluster: String,
    /// The term of a lease: how long a node is silent before it is gone. Whole seconds; etcd gives no less than 2 s by default.
    pub term: Duration,
    /// Name and password, if etcd asks for them.
    pub user: Option<(String, String)>,
    /// For endpoints that begin with `https://`.
    pub tls: Option<Tls>,
}

/// Whom to trust, and as whom to come.
#[derive(Clone)]
pub struct Tls {
    /// The authority that signed etcd's certificate, PEM.
    pub ca: Vec<u8>,
    /// This node's own certificate and its key, PEM, if etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that etcd's certificate has, if it is not that of the endpoint.
    pub domain: Option<String>,
}

impl Settings {
    /// A cluster at these endpoints with leases of 3 s, without password and TLS.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>, cluster: impl Into<String>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            cluster: cluster.into(),
            term: Duration::from_secs(3),
            user: None,
            tls: None,
        }
    }
}

/// Why there is no membership with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No endpoint was given.
    #[error("no endpoint of etcd is given; name at least one, such as 127.0.0.1:2379")]
    NoEndpoint,
    /// The name cannot be part of a key.
    #[error("`{name}` is no name of a cluster: use 1 to 64 letters, digits, `.`, `_` or `-`")]
    BadName {
        /// The name.
        name: String,
    },
    /// An endpoint, or what belongs to TLS, is not what it should be.
    #[error("`{endpoint}` cannot be an endpoint of etcd")]
    BadEndpoint {
        /// The endpoint.
        endpoint: String,
        /// Why not.
        source: etcd_client::Error,
    },
    /// There is no thread for it.
    #[error("the thread that keeps the node's lease cannot be started")]
    Thread(#[source] std::io::Error),
}

/// One node's membership. When the value is dropped its lease is no longer renewed, and ends by itself.
pub struct EtcdMembership {
    core: Arc<Core>,
    runtime: Handle,
    asks: Semaphore,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

/// What the tasks on the thread share.
pub(crate) struct Core {
    pool: Pool,
    keys: Keys,
    term: Duration,
    dice: SystemDice,
    own: Mutex<Option<Own>>,
    /// The lease is another one, or the wish to lead is.
    own_changed: Notify,
    /// Joining and leaving take turns.
    turn: tokio::sync::Mutex<()>,
    /// Milliseconds, 0 for not at all.
    valid_until: AtomicU64,
    standing: watch::Sender<Standing>,
    members: watch::Sender<Arc<Members>>,
    /// Milliseconds, 0 for never.
    listed_at: AtomicU64,
    /// The list should be read again.
    hint: Notify,
    wants_to_lead: watch::Sender<bool>,
}

impl Core {
    fn own(&self) -> MutexGuard<'_, Option<Own>> {
        self.own.lock().expect("no holder of this lock can panic")
    }
}

/// Milliseconds that this machine has been on, counted also while it sleeps and while this process is stopped.
pub(crate) fn now() -> Timestamp {
    // Darwin's monotonic clock goes on during sleep; Linux's does not.
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    Timestamp(u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000)
}

impl EtcdMembership {
    /// Starts the thread, which connects and begins to read the list. Does not wait for etcd: whether it is there shows in what
    /// is asked, such as [`Membership::join`].
    ///
    /// # Errors
    /// [`ConnectError`], if the settings cannot be meant.
    pub fn connect(settings: Settings) -> Result<Self, ConnectError> {
        let name = &settings.cluster;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
            return Err(ConnectError::BadName { name: name.clone() });
        }
        let core = Arc::new(Core {
            pool: Pool::new(&settings)?,
            keys: Keys::new(name),
            term: settings.term,
            dice: SystemDice,
            own: Mutex::default(),
            own_changed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            valid_until: AtomicU64::new(0),
            standing: watch::Sender::new(Standing::Outside),
            members: watch::Sender::default(),
            listed_at: AtomicU64::new(0),
            hint: Notify::new(),
            wants_to_lead: watch::Sender::new(false),
        });
        let (stop, stopped) = oneshot::channel();
        let (started, starting) = mpsc::sync_channel(1);
        let shared = core.clone();
        let work = move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(ConnectError::Thread(error)));
                    return;
                }
            };
            let checked = runtime.block_on(shared.pool.check());
            let is_fine = checked.is_ok();
            let _ = started.send(checked.map(|()| runtime.handle().clone()));
            if is_fine {
                runtime.spawn(lease::keep(shared.clone()));
                runtime.spawn(view::follow(shared.clone()));
                runtime.spawn(view::read(shared));
                // An error means that the value was dropped, which is the other way to say it.
                let _ = runtime.block_on(stopped);
            }
        };
        thread::Builder::new().name("nexa-etcd".into()).spawn(work).map_err(ConnectError::Thread)?;
        let runtime = starting.recv().expect("the thread sends an answer before it ends")?;
        Ok(Self { core, runtime, asks: Semaphore::new(ASKS_AT_ONCE), _stop: stop })
    }

    /// Until when the node's own lease counts, as in [`Standing::valid_until`]; `None` without one. Costs one atomic load.
    pub fn valid_until(&self) -> Option<Timestamp> {
        Some(Timestamp(self.core.valid_until.load(Ordering::Acquire))).filter(|until| until.0 > 0)
    }

    /// When the list of members was last read, by [`Membership::now`]; `None` before the first time. Further back than
    /// [`LIST_EVERY`] and some, etcd is away.
    pub fn listed_at(&self) -> Option<Timestamp> {
        Some(Timestamp(self.core.listed_at.load(Ordering::Acquire))).filter(|at| at.0 > 0)
    }

    /// Lets the thread do something, and waits for it. What has begun is finished also if nobody waits any more.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, MembershipError>> + Send + 'static,
    ) -> Result<T, MembershipError> {
        let _turn = self.asks.acquire().await.expect("nobody closes it");
        let ended = |_| MembershipError::Unavailable { detail: "the thread that asks etcd has ended".into() };
        self.runtime.spawn(work).await.map_err(ended)?
    }
}

impl From<CallError> for MembershipError {
    fn from(error: CallError) -> Self {
        Self::Unavailable { detail: error.to_string() }
    }
}

impl Membership for EtcdMembership {
    fn join(&self, card: NodeCard) -> BoxFuture<'_, Result<Generation, MembershipError>> {
        let core = self.core.clone();
        Box::pin(async move {
            let bytes = encode_card(&card)?;
            self.ask(async move { core.join(card.id, bytes).await }).await
        })
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), MembershipError>> {
        let core = self.core.clone();
        Box::pin(self.ask(async move { core.leave().await }))
    }

    fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.core.members.subscribe()
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.core.standing.subscribe()
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn campaign(&self, wants: bool) {
        if self.core.wants_to_lead.send_replace(wants) != wants {
            self.core.hint.notify_one();
        }
    }

    fn end_lease(&self, node: NodeId, generation: Generation) -> BoxFuture<'_, Result<bool, MembershipError>> {
        let core = self.core.clone();
        Box::pin(self.ask(async move { core.end_lease(&node, generation).await }))
    }

    fn run_of(&self, node: NodeId) -> BoxFuture<'_, Result<Option<Generation>, MembershipError>> {
        let core = self.core.clone();
        Box::pin(self.ask(async move { core.run_of(&node).await }))
    }

    fn setting(&self, name: String) -> BoxFuture<'_, Result<Setting, MembershipError>> {
        let core = self.core.clone();
        Box::pin(async move {
            check_setting(&name, &[])?;
            self.ask(async move { core.setting(&name).await }).await
        })
    }

    fn put_setting(
        &self,
        name: String,
        expected: u64,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Option<u64>, MembershipError>> {
        let core = self.core.clone();
        Box::pin(async move {
            check_setting(&name, &value)?;
            self.ask(async move { core.put_setting(&name, expected, &value).await }).await
        })
    }
}

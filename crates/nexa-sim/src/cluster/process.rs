//! A process of the simulation: one run of one node. It runs, stands still, or is dead, and whatever it hears of or does
//! goes through here, so that one that stands still does nothing and one that is dead does nothing any more.
//!
//! What cannot be stopped is computing itself; but nothing that is computed gets anywhere without time, store, network, model
//! or tool, and each of these asks [`Process::goes_on`] before and after.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use nexa_cluster::Relay;
use nexa_cluster::local::LocalPeers;
use nexa_cluster::peers::{AskError, Class, Handler, LinkStates, NotSent, Peers, Refusal, Service};
use nexa_ports::clock::Clock;
use nexa_types::{Generation, Millis, NodeId, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::failpoint::{Armed, Side, Step};

/// What the clock shows when a simulation begins.
pub(super) const BEGIN: Timestamp = Timestamp(1_800_000_000_000);
/// Messages that wait for a process that stands still; as with a full socket, a further one is lost.
const BACKLOG_MAX: usize = 4_096;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock of everybody: tokio's own time, which stands still while anybody can run and then jumps to the next moment
/// that anybody waits for.
#[derive(Debug)]
pub(super) struct VirtualClock {
    origin: Instant,
}

impl VirtualClock {
    /// Begins now. Needs a runtime.
    pub(super) fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let spent = Instant::now().saturating_duration_since(self.origin);
        BEGIN.after(Millis(u64::try_from(spent.as_millis()).unwrap_or(u64::MAX)))
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(self.origin + Duration::from_millis(due.since(BEGIN).0)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Runs,
    Stands,
    Dead,
}

/// What happens to a process at the moment that it asks the store to record the start of an effect: with the word on its way,
/// what it believes to be so is oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtStart {
    Stand,
    Die,
}

/// One run of one node. Not a `watch`: that wakes whoever waits in an order that tokio draws.
pub(super) struct Process {
    /// Another one for each.
    pub(super) number: u64,
    life: Mutex<Life>,
    changed: Notify,
    at_start: Mutex<Option<AtStart>>,
    /// Where it dies, if that was drawn.
    pub(super) armed: Mutex<Option<Armed>>,
}

impl Process {
    pub(super) fn new() -> Arc<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            number,
            life: Mutex::new(Life::Runs),
            changed: Notify::new(),
            at_start: Mutex::default(),
            armed: Mutex::default(),
        })
    }

    fn is(&self, life: Life) -> bool {
        *lock(&self.life) == life
    }

    pub(super) fn runs(&self) -> bool {
        self.is(Life::Runs)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is(Life::Dead)
    }

    async fn becomes(&self, life: Life) {
        while !self.is(life) {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is(life) {
                return;
            }
            changed.await;
        }
    }

    /// Returns while it runs; waits while it stands still, and for ever once it is dead.
    pub(super) async fn goes_on(&self) {
        self.becomes(Life::Runs).await;
    }

    async fn dies(&self) {
        self.becomes(Life::Dead).await;
    }

    /// Stands still, or goes on.
    pub(super) fn stand(&self, stands: bool) {
        self.set(if stands { Life::Stands } else { Life::Runs });
    }

    /// Keeps this for the next start of an effect, or nothing.
    pub(super) fn keep_for_start(&self, what: Option<AtStart>) {
        *lock(&self.at_start) = what;
    }

    /// The store is asked to record the start of an effect; gives what happens to the process with that.
    pub(super) fn starts_effect(&self) -> Option<AtStart> {
        let what = lock(&self.at_start).take()?;
        match what {
            AtStart::Stand => self.stand(true),
            AtStart::Die => self.die(),
        }
        Some(what)
    }

    pub(super) fn die(&self) {
        self.set(Life::Dead);
    }

    fn set(&self, next: Life) {
        let mut life = lock(&self.life);
        if *life != Life::Dead {
            *life = next;
        }
        drop(life);
        self.changed.notify_waiters();
    }
}

/// The clock as a process sees it: what is due while it stands still comes late.
pub(super) struct ProcessClock {
    pub(super) clock: Arc<VirtualClock>,
    pub(super) process: Arc<Process>,
}

impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        let (over, process) = (self.clock.wait_until(due), self.process.clone());
        Box::pin(async move {
            over.await;
            process.goes_on().await;
        })
    }
}

type Letter = (NodeId, Generation, Service, Bytes);

/// Where messages of others reach a process. What comes while it stands still is there when it goes on.
pub(super) struct Door {
    process: Arc<Process>,
    relay: Arc<Relay>,
    backlog: Mutex<VecDeque<Letter>>,
}

impl Door {
    pub(super) fn new(process: Arc<Process>, relay: Arc<Relay>) -> Arc<Self> {
        Arc::new(Self { process, relay, backlog: Mutex::default() })
    }

    /// Hands over what has come meanwhile.
    pub(super) fn open(&self) {
        for (from, generation, service, body) in std::mem::take(&mut *lock(&self.backlog)) {
            self.relay.told(&from, generation, service, body);
        }
    }
}

impl Handler for Door {
    fn told(&self, from: &NodeId, generation: Generation, service: Service, body: Bytes) {
        if self.process.runs() {
            return self.relay.told(from, generation, service, body);
        }
        let mut backlog = lock(&self.backlog);
        if backlog.len() < BACKLOG_MAX {
            backlog.push_back((from.clone(), generation, service, body));
        }
    }

    fn asked(
        &self,
        from: &NodeId,
        generation: Generation,
        service: Service,
        body: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        let from = from.clone();
        Box::pin(async move {
            self.process.goes_on().await;
            let answer = self.relay.asked(&from, generation, service, body).await;
            self.process.goes_on().await;
            answer
        })
    }
}

/// A process's way to the others; closed at once when it dies, whoever still holds it.
pub(super) struct ProcessPeers {
    process: Arc<Process>,
    peers: Mutex<Option<Arc<LocalPeers>>>,
    links: watch::Receiver<Arc<LinkStates>>,
}

impl ProcessPeers {
    pub(super) fn new(process: Arc<Process>, peers: LocalPeers) -> Arc<Self> {
        let links = peers.links();
        Arc::new(Self { process, peers: Mutex::new(Some(Arc::new(peers))), links })
    }

    fn peers(&self) -> Option<Arc<LocalPeers>> {
        lock(&self.peers).clone()
    }

    /// One more message is to be sent; see [`Process::steps`].
    fn steps(&self, service: Service) -> Option<Side> {
        if service == Service::Heartbeat { None } else { self.process.steps(Step::Message) }
    }

    /// From now on whoever dials it is refused.
    pub(super) fn close(&self) {
        lock(&self.peers).take();
    }
}

impl Peers for ProcessPeers {
    fn tell(&self, to: &NodeId, class: Class, service: Service, body: Bytes) -> Result<(), NotSent> {
        let peers = self.peers().filter(|_| self.process.runs()).ok_or(NotSent::Gone)?;
        let side = self.steps(service);
        if side == Some(Side::Before) {
            self.process.dies_here();
            return Err(NotSent::Gone);
        }
        peers.tell(to, class, service, body)?;
        if side == Some(Side::After) {
            self.process.dies_here();
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
            self.process.goes_on().await;
            let Some(peers) = self.peers() else { return Err(NotSent::Gone.into()) };
            let side = self.steps(service);
            if side == Some(Side::Before) {
                self.process.dies_here();
            }
            let answer = tokio::select! {
                biased;
                () = self.process.dies() => None,
                answer = peers.ask(&to, class, service, body, within) => Some(answer),
            };
            // Whoever was asked has done it by now.
            if side == Some(Side::After) && matches!(answer, Some(Ok(_))) {
                self.process.dies_here();
            }
            drop(peers);
            self.process.goes_on().await;
            answer.unwrap_or(Err(AskError::NoAnswer))
        })
    }

    fn links(&self) -> watch::Receiver<Arc<LinkStates>> {
        self.links.clone()
    }

    fn meet(&self, members: &[(NodeId, Generation, String)]) {
        if let Some(peers) = self.peers() {
            peers.meet(members);
        }
    }
}

//! Restarts with a limit.
//!
//! ractor tells a supervisor of a death and does nothing else; this is the rest. A child is made by a factory, so that
//! it can be made again. After a fault it is restarted with a growing, jittered pause; a child that has failed too
//! often within a window is given up: an agent is quarantined (its own input is the likely cause), a service
//! escalates to whoever started it.
//!
//! In:  deaths, as ractor reports them, and the time and dice.
//! Out: restarts, or one [`Child::give_up`].
//!
//! The supervisor's own ractor mailbox is not bounded by count but by meaning: one `Adopt` and one `Restart` a child,
//! and the number of children is bounded by whoever adopts them. Restarting keeps what lives outside the actor: its
//! lanes, its stream, its effects in flight.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use nexa_ports::clock::Clock;
use nexa_ports::dice::Dice;
use nexa_types::{Millis, Timestamp};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::bounded::{self, Address, Behaviour, Fault};

/// How often something may fail, and how long to wait before it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts within the window; one more failure and the child is given up.
    pub restarts_max: usize,
    /// Failures older than this count no longer.
    pub window: Millis,
    /// The first pause; each further one is twice as long.
    pub backoff_first: Millis,
    /// The longest pause before jitter.
    pub backoff_max: Millis,
    /// Each pause is longer or shorter by up to this many percent.
    pub jitter_percent: u64,
}

impl RestartPolicy {
    /// For services, and for agents whose fault is not their own: 5 in 60 s, 50 ms doubling to 5 s, ±20 %.
    pub const SERVICE: Self = Self {
        restarts_max: 5,
        window: Millis(60_000),
        backoff_first: Millis(50),
        backoff_max: Millis(5_000),
        jitter_percent: 20,
    };
    /// For agents that panic: the same input is the likely cause, so the second panic is the last.
    pub const PANIC: Self = Self { restarts_max: 1, ..Self::SERVICE };

    /// The pause before restart number `n`, from 1; `roll` is 64 random bits.
    pub fn pause(&self, n: usize, roll: u64) -> Millis {
        let doublings = u32::try_from(n.saturating_sub(1)).unwrap_or(u32::MAX).min(32);
        let pause = self.backoff_first.0.saturating_mul(1 << doublings).min(self.backoff_max.0);
        let spread = pause.saturating_mul(self.jitter_percent) / 100;
        Millis(pause - spread + roll % (2 * spread + 1))
    }
}

/// The failures of one child that still count.
#[derive(Debug, Clone)]
pub struct RestartWindow {
    policy: RestartPolicy,
    failures: VecDeque<Timestamp>,
}

impl RestartWindow {
    /// A window without failures.
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, failures: VecDeque::new() }
    }

    /// Counts a failure. `Some` is the pause before the restart, `None` means that it failed too often.
    pub fn failed(&mut self, now: Timestamp, roll: u64) -> Option<Millis> {
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|first| now.since(*first) > self.policy.window) {
            self.failures.pop_front();
        }
        let restarts = self.failures.len();
        (restarts <= self.policy.restarts_max).then(|| self.policy.pause(restarts, roll))
    }
}

/// What supervision counts.
#[derive(Debug, Default)]
pub struct SuperviseCounters {
    /// Deaths by panic.
    pub panics: AtomicU64,
    /// Deaths by an error that the actor returned.
    pub faults: AtomicU64,
    /// Restarts.
    pub restarts: AtomicU64,
    /// Children that were given up.
    pub given_up: AtomicU64,
}

/// An error that an actor returns on purpose. Any other death counts as a panic.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// Something that can be started again and again.
pub trait Child: Send + 'static {
    /// Starts it, linked to the supervisor.
    fn spawn(&mut self, supervisor: ActorCell) -> BoxFuture<'_, Result<ActorCell, SpawnErr>>;

    /// It failed too often. An agent is quarantined here; a service tells its owner.
    fn give_up(&mut self, reason: String) -> BoxFuture<'static, ()>;

    /// Whether it is still wanted; asked before each restart.
    fn is_wanted(&self) -> bool;
}

enum Order {
    Adopt(Box<dyn Child>),
    Restart(Ward),
}

struct Ward {
    child: Box<dyn Child>,
    panics: RestartWindow,
    faults: RestartWindow,
}

/// A supervisor of many children. Dropping every handle does not stop it; [`Supervisor::stop`] does.
#[derive(Clone)]
pub struct Supervisor {
    actor: ActorRef<Order>,
}

impl Supervisor {
    /// Starts a supervisor without children.
    ///
    /// # Errors
    /// What ractor says when it cannot start an actor.
    pub async fn start(
        clock: Arc<dyn Clock>,
        dice: Arc<dyn Dice>,
        counters: Arc<SuperviseCounters>,
    ) -> Result<Self, SpawnErr> {
        let (actor, _) = Keeper::spawn(None, Keeper { clock, dice, counters }, ()).await?;
        Ok(Self { actor })
    }

    /// Starts a child and keeps it alive. Returns at once.
    pub fn adopt(&self, child: Box<dyn Child>) {
        // Refused only after `stop`, and then nothing is wanted alive.
        let _ = self.actor.send_message(Order::Adopt(child));
    }

    /// Keeps a bounded actor alive behind its address: `make` makes the behaviour of each incarnation, and what waits in the
    /// lanes stays. One that fails too often is given up: then `failed` is cancelled.
    pub fn serve<B: Behaviour>(
        &self,
        address: &Address<B::Message>,
        make: impl Fn() -> B + Send + Sync + 'static,
        failed: CancellationToken,
    ) {
        self.adopt(Box::new(Service { address: address.clone(), make, failed }));
    }

    /// Ends the supervisor and, without waiting for the message in hand, all its children.
    pub fn stop(&self) {
        for child in self.actor.get_cell().get_children() {
            child.kill();
        }
        self.actor.get_cell().kill();
    }
}

/// A bounded actor that others than agents' shells are made of.
struct Service<M, F> {
    address: Address<M>,
    make: F,
    failed: CancellationToken,
}

impl<B: Behaviour, F: Fn() -> B + Send + Sync + 'static> Child for Service<B::Message, F> {
    fn spawn(&mut self, supervisor: ActorCell) -> BoxFuture<'_, Result<ActorCell, SpawnErr>> {
        Box::pin(bounded::spawn((self.make)(), &self.address, Some(supervisor)))
    }

    fn give_up(&mut self, reason: String) -> BoxFuture<'static, ()> {
        let failed = self.failed.clone();
        Box::pin(async move {
            error!(reason, "service is given up");
            failed.cancel();
        })
    }

    fn is_wanted(&self) -> bool {
        !self.failed.is_cancelled()
    }
}

struct Keeper {
    clock: Arc<dyn Clock>,
    dice: Arc<dyn Dice>,
    counters: Arc<SuperviseCounters>,
}

impl Keeper {
    async fn start(&self, myself: &ActorRef<Order>, wards: &mut HashMap<ActorId, Ward>, mut ward: Ward) {
        if !ward.child.is_wanted() {
            return;
        }
        match ward.child.spawn(myself.get_cell()).await {
            Ok(cell) => {
                wards.insert(cell.get_id(), ward);
            }
            // A failing start reaches the spawner and not the supervisor: it counts like a crash.
            Err(error) => self.failed(myself, ward, &Failed(error.to_string()).into()),
        }
    }

    fn failed(&self, myself: &ActorRef<Order>, mut ward: Ward, fault: &Fault) {
        let (window, counter) = match fault.downcast_ref::<Failed>() {
            Some(_) => (&mut ward.faults, &self.counters.faults),
            None => (&mut ward.panics, &self.counters.panics),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        match window.failed(now, self.dice.roll()) {
            Some(pause) => {
                warn!(%fault, %pause, "actor failed, restarting");
                self.counters.restarts.fetch_add(1, Ordering::Relaxed);
                let (clock, myself) = (self.clock.clone(), myself.clone());
                tokio::spawn(async move {
                    clock.wait_until(now.after(pause)).await;
                    let _ = myself.send_message(Order::Restart(ward));
                });
            }
            None => {
                error!(%fault, "actor failed too often, giving it up");
                self.counters.given_up.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(ward.child.give_up(fault.to_string()));
            }
        }
    }
}

impl Actor for Keeper {
    type Msg = Order;
    type State = HashMap<ActorId, Ward>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(HashMap::new())
    }

    async fn handle(
        &self,
        myself: ActorRef<Order>,
        order: Order,
        wards: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let ward = match order {
            Order::Adopt(child) => Ward {
                child,
                panics: RestartWindow::new(RestartPolicy::PANIC),
                faults: RestartWindow::new(RestartPolicy::SERVICE),
            },
            Order::Restart(ward) => ward,
        };
        self.start(&myself, wards, ward).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Order>,
        event: SupervisionEvent,
        wards: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, _, _) => {
                wards.remove(&cell.get_id());
            }
            SupervisionEvent::ActorFailed(cell, fault) => {
                if let Some(ward) = wards.remove(&cell.get_id()) {
                    self.failed(&myself, ward, &fault);
                }
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

/// Runs a service that should never end, restarting it after a panic, until `stop`. Past the window it escalates:
/// `escalate` is cancelled and the function returns.
pub async fn keep_running<F>(
    name: &'static str,
    (clock, dice): (Arc<dyn Clock>, Arc<dyn Dice>),
    counters: Arc<SuperviseCounters>,
    stop: CancellationToken,
    escalate: CancellationToken,
    mut service: impl FnMut() -> F,
) where
    F: Future<Output = ()>,
{
    let mut window = RestartWindow::new(RestartPolicy::SERVICE);
    loop {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ended = AssertUnwindSafe(async { service().await }).catch_unwind() => ended,
        };
        if ended.is_ok() {
            return;
        }
        counters.panics.fetch_add(1, Ordering::Relaxed);
        let now = clock.now();
        let Some(pause) = window.failed(now, dice.roll()) else {
            error!(name, "service panicked too often, giving it up");
            counters.given_up.fetch_add(1, Ordering::Relaxed);
            escalate.cancel();
            return;
        };
        warn!(name, %pause, "service panicked, restarting");
        counters.restarts.fetch_add(1, Ordering::Relaxed);
        clock.wait_until(now.after(pause)).await;
    }
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;

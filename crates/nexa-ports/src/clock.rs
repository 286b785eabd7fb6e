//! Time as a port.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use nexa_types::{Millis, Timestamp};

/// Tells the time and waits for it.
pub trait Clock: Send + Sync {
    /// The time now. Never goes back within one process.
    fn now(&self) -> Timestamp;

    /// Waits until `due`; returns at once if it has passed. Cancel-safe.
    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()>;
}

/// The machine's clock. A step back of the wall clock is hidden by standing still.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: Mutex<u64>,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64;
        let mut latest = self.latest.lock().expect("no holder of this lock can panic");
        *latest = wall.max(*latest);
        Timestamp(*latest)
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        let Millis(left) = due.since(self.now());
        Box::pin(tokio::time::sleep(Duration::from_millis(left)))
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct SimClock {
    now: tokio::sync::watch::Sender<Timestamp>,
}

impl SimClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { now: tokio::sync::watch::Sender::new(start) }
    }

    /// Moves the clock forward and wakes who waited for a moment up to then.
    pub fn advance(&self, span: Millis) {
        self.now.send_modify(|now| *now = now.after(span));
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            // An error means that the clock is gone: then the moment never comes.
            if now.wait_for(|now| *now >= due).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

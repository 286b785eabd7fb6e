//! A small pool of connections for calls of one statement or one snapshot each.
//!
//! A caller waits for its turn at most for [`TURN_DEADLINE`], and then for its call as `dial` says; so no call hangs when the
//! server stands still. Calls are carried out on the threads of whoever opened the store, whatever threads ask; a caller that
//! gives up gives up its turn, and once its call has begun it is carried out to its end.
//!
//! While the server is away, one call at a time tries whether it is back, and all others are refused at once: whoever asks is
//! told so soon, and does not wait in line for nothing.
//!
//! A question that meets a lost connection is asked once more on a new one; a write is not, since it may have been done.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use nexa_ports::store::StoreError;
use sqlx::PgConnection;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::dial::{Dial, Open, Role};
use crate::trouble::Fault;

/// How long a call waits for a free connection.
const TURN_DEADLINE: Duration = Duration::from_secs(10);
/// How often a write is tried again at once when somebody else was in the way.
const TRIES_MAX: u32 = 8;

/// What is said while somebody else tries a server that is away.
const AWAY: &str = "the database does not answer at the moment";

/// The pool.
#[derive(Clone)]
pub(crate) struct Pool {
    dial: Dial,
    role: Role,
    free: Arc<Mutex<Vec<Open>>>,
    turns: Arc<Semaphore>,
    /// The one call that may try a server that is away.
    scout: Arc<Semaphore>,
    home: Handle,
}

/// A task that is given up with its caller.
struct Waiting<T>(JoinHandle<T>);

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pool {
    /// A pool of at most so many connections, which are made when they are first needed.
    pub(crate) fn new(dial: Dial, role: Role, connections_max: usize, home: Handle) -> Self {
        let (turns, scout) = (Arc::new(Semaphore::new(connections_max)), Arc::new(Semaphore::new(1)));
        Self { dial, role, free: Arc::default(), turns, scout, home }
    }

    /// Lets nobody in any more; calls that have begun end.
    pub(crate) fn close(&self) {
        self.turns.close();
        self.free.lock().expect("no holder of this lock can panic").clear();
    }

    /// Asks something. Cancel-safe.
    pub(crate) async fn read<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        self.call(question, false).await
    }

    /// Writes something in one statement.
    pub(crate) async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        self.call(change, true).await
    }

    async fn call<T, F>(&self, call: F, writes: bool) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>> + Send + Sync + 'static,
    {
        let pool = self.clone();
        let mut waiting = Waiting(self.home.spawn(async move {
            let turn = tokio::time::timeout(TURN_DEADLINE, Arc::clone(&pool.turns).acquire_owned()).await;
            let turn = match turn {
                Ok(Ok(turn)) => turn,
                Ok(Err(_)) => return Err(closed()),
                Err(_) => {
                    return Err(StoreError::Unavailable {
                        detail: format!("no free connection within {TURN_DEADLINE:?}"),
                    });
                }
            };
            let scout = match pool.dial.is_away() {
                false => None,
                true => match Arc::clone(&pool.scout).try_acquire_owned() {
                    Ok(scout) => Some(scout),
                    Err(_) => return Err(StoreError::Unavailable { detail: AWAY.into() }),
                },
            };
            // Its own task, so that a caller who goes away leaves no half-read answer on the connection.
            let called = tokio::spawn(async move {
                let answer = pool.carry_out(&call, writes).await;
                // The connection is back before the turn is.
                drop((turn, scout));
                answer
            });
            let lost = |detail: String| match writes {
                true => StoreError::Ambiguous { detail },
                false => StoreError::Unavailable { detail },
            };
            called.await.unwrap_or_else(|error| Err(lost(format!("a call ended early: {error}"))))
        }));
        (&mut waiting.0).await.unwrap_or_else(|_| Err(closed()))
    }

    async fn carry_out<T, F>(&self, call: &F, writes: bool) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Fault>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let (mut open, is_new) = match self.idle() {
                Some(open) => (open, false),
                None => (self.dial.open(self.role).await?, true),
            };
            match self.dial.within(call(&mut open.connection)).await {
                Ok(answer) => {
                    self.give_back(open);
                    return Ok(answer);
                }
                Err(fault) if fault.is_loss() && !writes && !is_new && tries < TRIES_MAX => {}
                Err(fault) if fault.is_again() && tries < TRIES_MAX => self.give_back(open),
                Err(fault) => {
                    if !fault.is_loss() {
                        self.give_back(open);
                    }
                    return Err(if writes { fault.outcome() } else { fault.refusal() });
                }
            }
        }
    }

    fn idle(&self) -> Option<Open> {
        let mut free = self.free.lock().expect("no holder of this lock can panic");
        while let Some(open) = free.pop() {
            if self.dial.is_of_now(&open) {
                return Some(open);
            }
        }
        None
    }

    fn give_back(&self, open: Open) {
        if self.dial.is_of_now(&open) && !self.turns.is_closed() {
            self.free.lock().expect("no holder of this lock can panic").push(open);
        }
    }
}

/// What is said after the store was closed.
pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable { detail: "the store was closed".into() }
}

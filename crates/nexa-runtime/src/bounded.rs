//! An actor that says no before it drowns.
//!
//! ractor's mailboxes are unbounded, so admission happens before them: a sender takes a permit (one message, n bytes)
//! and gets it back when the message is *handled*, not when it is taken out. Messages wait in three lanes, and the
//! ractor mailbox holds at most one [`Wake`] whatever happens, so a burst costs one push.
//!
//! Lanes, in the order in which they are emptied: control, replies, work. Each has a bound in messages and in bytes;
//! at the bound the *new* message is refused with [`Overloaded`], nothing that was accepted is ever dropped.
//! The lanes belong to the [`Address`] and not to the running actor: after a restart the new incarnation finds them.
//!
//! Not here: deciding about restarts ([`crate::supervise`]).

use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Messages that an actor handles before it lets others on its thread run.
pub const MESSAGES_PER_TURN_MAX: usize = 64;

/// What ended an actor.
pub type Fault = ActorProcessingErr;

/// Which queue a message waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Stop, drain, cancel. Never waits behind anything else.
    Control,
    /// Answers to what the actor asked for.
    Replies,
    /// Everything else.
    Work,
}

impl Lane {
    const ALL: [Self; 3] = [Self::Control, Self::Replies, Self::Work];
}

/// How much may wait in one lane, the message in hand counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Messages.
    pub count_max: usize,
    /// Bytes, as stated by the senders.
    pub bytes_max: usize,
}

/// The bounds of the three lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of [`Lane::Control`].
    pub control: Bound,
    /// Of [`Lane::Replies`].
    pub replies: Bound,
    /// Of [`Lane::Work`].
    pub work: Bound,
}

impl Bounds {
    fn of(&self, lane: Lane) -> Bound {
        match lane {
            Lane::Control => self.control,
            Lane::Replies => self.replies,
            Lane::Work => self.work,
        }
    }
}

impl Default for Bounds {
    /// 64 control messages, 1,024 replies, 1,024 pieces of work; 64 KiB, 8 MiB and 8 MiB.
    fn default() -> Self {
        Self {
            control: Bound { count_max: 64, bytes_max: 64 << 10 },
            replies: Bound { count_max: 1_024, bytes_max: 8 << 20 },
            work: Bound { count_max: 1_024, bytes_max: 8 << 20 },
        }
    }
}

/// A queue is full. Nothing was accepted; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is full: {count} waiting, {bytes} bytes; try again later")]
pub struct Overloaded {
    /// Which queue.
    pub what: &'static str,
    /// How many wait in it.
    pub count: usize,
    /// How many bytes they have.
    pub bytes: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It was not accepted.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The deadline passed. Whether it was handled is open.
    #[error("no answer within {millis} ms")]
    DeadlinePassed {
        /// The deadline as it was given.
        millis: u128,
    },
    /// The actor dropped the question, as it does when it fails while handling it.
    #[error("the actor gave no answer")]
    NoAnswer,
}

/// Where the answer to an [`Address::ask`] goes.
#[derive(Debug)]
pub struct Reply<R>(oneshot::Sender<R>);

impl<R> Reply<R> {
    /// Answers. An answer that nobody waits for any more is dropped.
    pub fn send(self, answer: R) {
        let _ = self.0.send(answer);
    }
}

/// The only thing that ever lies in a bounded actor's ractor mailbox.
#[derive(Debug)]
pub struct Wake;

struct Waiting<M> {
    message: M,
    bytes: usize,
    expires: Option<Instant>,
}

struct Mailbox<M> {
    lanes: [VecDeque<Waiting<M>>; 3],
    /// Messages and bytes per lane, the message in hand included.
    admitted: [(usize, usize); 3],
    wake_sent: bool,
    actor: Option<ActorRef<Wake>>,
}

impl<M> Mailbox<M> {
    fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    fn send_wake(&mut self) {
        if let Some(actor) = &self.actor {
            // An actor that has just died is found by its supervisor; its next incarnation finds the lanes.
            self.wake_sent = actor.send_message(Wake).is_ok();
        }
    }
}

/// Where to send messages to a bounded actor; the same before, during and after a restart.
pub struct Address<M> {
    bounds: Bounds,
    mailbox: Arc<Mutex<Mailbox<M>>>,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { bounds: self.bounds, mailbox: self.mailbox.clone() }
    }
}

impl<M: Send + 'static> Address<M> {
    /// Lanes without an actor yet; messages may already be sent.
    pub fn new(bounds: Bounds) -> Self {
        let mailbox = Mailbox {
            lanes: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            admitted: [(0, 0); 3],
            wake_sent: false,
            actor: None,
        };
        Self { bounds, mailbox: Arc::new(Mutex::new(mailbox)) }
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox<M>> {
        // Every change under this lock is complete before anything that could panic.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message of `bytes` bytes.
    ///
    /// # Errors
    /// [`Overloaded`] if the lane is full; the message was not accepted.
    pub fn tell(&self, lane: Lane, bytes: usize, message: M) -> Result<(), Overloaded> {
        self.admit(lane, Waiting { message, bytes, expires: None })
    }

    /// Sends a question and waits for its answer. A question whose deadline has passed is not handled any more.
    ///
    /// Cancel-safe in the sense that dropping the future only drops the answer.
    ///
    /// # Errors
    /// [`AskError`]: not accepted, no answer in time, or none at all.
    pub async fn ask<R: Send + 'static>(
        &self,
        lane: Lane,
        bytes: usize,
        deadline: Duration,
        question: impl FnOnce(Reply<R>) -> M,
    ) -> Result<R, AskError> {
        let (reply, answer) = oneshot::channel();
        let expires = Some(Instant::now() + deadline);
        self.admit(lane, Waiting { message: question(Reply(reply)), bytes, expires })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::NoAnswer),
            Err(_) => Err(AskError::DeadlinePassed { millis: deadline.as_millis() }),
        }
    }

    /// Whether nothing waits; the message in hand does not count.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn admit(&self, lane: Lane, waiting: Waiting<M>) -> Result<(), Overloaded> {
        let bound = self.bounds.of(lane);
        let mut mailbox = self.lock();
        let (count, bytes) = mailbox.admitted[lane as usize];
        if count >= bound.count_max || bytes.saturating_add(waiting.bytes) > bound.bytes_max {
            return Err(Overloaded { what: "the actor's mailbox", count, bytes });
        }
        mailbox.admitted[lane as usize] = (count + 1, bytes + waiting.bytes);
        mailbox.lanes[lane as usize].push_back(waiting);
        if !mailbox.wake_sent {
            mailbox.send_wake();
        }
        Ok(())
    }

    /// The next message by priority. With none left, the next message to arrive wakes the actor again.
    fn next(&self) -> Option<(M, Permit<M>)> {
        let mut mailbox = self.lock();
        for lane in Lane::ALL {
            while let Some(waiting) = mailbox.lanes[lane as usize].pop_front() {
                if waiting.expires.is_some_and(|expires| expires <= Instant::now()) {
                    let admitted = &mut mailbox.admitted[lane as usize];
                    *admitted = (admitted.0 - 1, admitted.1 - waiting.bytes);
                    continue;
                }
                return Some((waiting.message, Permit { address: self.clone(), lane, bytes: waiting.bytes }));
            }
        }
        mailbox.wake_sent = false;
        None
    }

    fn attach(&self, actor: ActorRef<Wake>) {
        let mut mailbox = self.lock();
        mailbox.actor = Some(actor);
        mailbox.wake_sent = false;
        if !mailbox.is_empty() {
            mailbox.send_wake();
        }
    }

    fn wake_again(&self) {
        self.lock().send_wake();
    }
}

/// Given back when the message has been handled, or its handler has panicked or was killed.
struct Permit<M: Send + 'static> {
    address: Address<M>,
    lane: Lane,
    bytes: usize,
}

impl<M: Send + 'static> Drop for Permit<M> {
    fn drop(&mut self) {
        let mut mailbox = self.address.lock();
        let admitted = &mut mailbox.admitted[self.lane as usize];
        *admitted = (admitted.0 - 1, admitted.1 - self.bytes);
    }
}

/// What an actor does after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Takes the next one.
    GoOn,
    /// Ends; what waits in the lanes stays there.
    Stop,
}

/// The behaviour of a bounded actor.
pub trait Behaviour: Send + Sync + 'static {
    /// What it is sent.
    type Message: Send + 'static;
    /// What it keeps between messages and loses with a restart.
    type State: Send + 'static;

    /// Makes the state of a new incarnation. What may fail or take long belongs into the first message instead.
    fn start(&self) -> Self::State;

    /// Handles one message to its end. Nothing else reaches the actor meanwhile, so it never awaits a model, a tool
    /// or another actor in here: it hands the wish to a dispatcher and takes the result as a message.
    fn handle(
        &self,
        state: &mut Self::State,
        message: Self::Message,
    ) -> impl Future<Output = Result<Then, Fault>> + Send;
}

struct Shell<B: Behaviour> {
    behaviour: B,
    address: Address<B::Message>,
    _message: PhantomData<fn(B::Message)>,
}

impl<B: Behaviour> Actor for Shell<B> {
    type Msg = Wake;
    type State = B::State;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Wake>, (): ()) -> Result<B::State, ActorProcessingErr> {
        let state = self.behaviour.start();
        self.address.attach(myself);
        Ok(state)
    }

    async fn handle(&self, myself: ActorRef<Wake>, Wake: Wake, state: &mut B::State) -> Result<(), ActorProcessingErr> {
        for _ in 0..MESSAGES_PER_TURN_MAX {
            let Some((message, permit)) = self.address.next() else { return Ok(()) };
            let then = self.behaviour.handle(state, message).await?;
            drop(permit);
            if then == Then::Stop {
                myself.stop(None);
                return Ok(());
            }
        }
        self.address.wake_again();
        Ok(())
    }
}

/// Starts an actor behind an address, unnamed, linked to `supervisor` if there is one.
///
/// # Errors
/// What ractor says when the actor could not start, such as a supervisor that is ending.
pub async fn spawn<B: Behaviour>(
    behaviour: B,
    address: &Address<B::Message>,
    supervisor: Option<ActorCell>,
) -> Result<ActorCell, SpawnErr> {
    let shell = Shell { behaviour, address: address.clone(), _message: PhantomData };
    let (actor, _) = match supervisor {
        Some(supervisor) => Shell::spawn_linked(None, shell, (), supervisor).await?,
        None => Shell::spawn(None, shell, ()).await?,
    };
    Ok(actor.get_cell())
}

#[cfg(test)]
#[path = "bounded_tests.rs"]
mod tests;

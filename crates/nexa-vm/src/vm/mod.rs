//! The step machine. It runs until it wants an effect, has used its fuel, or has ended.
//!
//! In:  a verified [`Program`], a function and its arguments; later the answers to its effects.
//! Out: a [`Stop`]: one effect to carry out, a used-up slice, or the outcome.
//!
//! Every frame keeps its locals and operands on one shared stack. An effect leaves its operands there until it is
//! answered, so the machine needs no second description of what it waits for: [`Vm::pending`] reads it off the stack,
//! in a restored VM as well. A VM can only be looked at between two calls of [`Vm::run`], and those end at safepoints:
//! effects, `LoopTick`s and calls.
//!
//! - `code`: a program made ready to run.
//! - `run`: the loop, with the operations that loops are made of.
//! - `ops`, `arithmetic`, `collections`, `merge`: all other operations.
//! - `call`: frames, closures, stages and chains.
//! - `effect`: requests and answers.
//! - `raise`: errors on their way to a handler.
//! - `reuse`: values that are changed in place when nobody could tell.
//! - `heap`: what the values take.
//! - `saved`: states that the program saves and goes back to, and the agent's memory.
//! - `snapshot`, `graph`: the whole state as bytes, and back.

use std::sync::Arc;

use nexa_event::effect::{Answer, EffectBody, EffectRequest};
use nexa_types::limits::{HEAP_BYTES_DEFAULT, HEAP_BYTES_MAX};
use nexa_types::{Failure, Outcome, RunCode, Seq, Timestamp};

use crate::codec;
use crate::value::Value;

mod arithmetic;
mod call;
mod code;
mod collections;
mod effect;
pub(crate) mod equal;
mod graph;
pub(crate) mod heap;
mod merge;
mod ops;
mod question;
mod raise;
mod reuse;
mod run;
mod saved;
mod sized;
pub(crate) mod snapshot;

pub(crate) use arithmetic::order;
pub use code::Program;
pub(crate) use collections::{key_of, key_value};
pub(crate) use effect::message_shape;
pub use snapshot::SnapshotError;

use heap::Heap;
use saved::Saved;

/// Functions that the compiler adds have names that begin like this. What they do is done in the name of their caller.
const HIDDEN: char = '$';

/// The entry of a child that runs a callable value instead of a function of the module: its arguments are the callable
/// (a closure, a stage or an agent) and then the callable's own arguments.
///
/// [`Vm::start`] takes it like any function's index, so whoever starts children passes `ChildSpec::entry` on as it is.
pub const ENTRY_CALLABLE: u32 = u32::MAX;

/// What one VM may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Its values, approximately, in bytes; at most 64 MiB.
    pub heap: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { heap: HEAP_BYTES_DEFAULT }
    }
}

/// Why [`Vm::run`] came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// It waits for the answer to this; give it to [`Vm::resume`].
    Effect(EffectRequest),
    /// The slice is used up; call [`Vm::run`] again.
    OutOfFuel,
    /// It has ended; further calls say the same.
    Ended(Outcome),
}

/// Why a VM cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The module has no such function, or it is a lambda that needs captured values.
    #[error("the module has no function {entry} that can be started")]
    NoSuchFunction {
        /// The index that was asked for.
        entry: u32,
    },
    /// The function takes another number of arguments.
    #[error("`{name}` takes {wanted} arguments and got {found}")]
    WrongArguments {
        /// The function's name.
        name: String,
        /// How many it takes.
        wanted: u32,
        /// How many there are.
        found: usize,
    },
    /// An argument is of another kind than the function takes.
    #[error("argument {place} of `{name}` must be of type {wanted}")]
    WrongKind {
        /// The function's name.
        name: String,
        /// The argument, from 1.
        place: usize,
        /// The kind that it must be of.
        wanted: &'static str,
    },
    /// The callable of [`ENTRY_CALLABLE`] is none, or does not take these arguments.
    #[error("the value to be run is not a callable that takes these arguments")]
    NotCallable,
    /// The arguments take more memory than the VM may use.
    #[error("the arguments take more than the {limit} bytes that the agent may use; raise its `schedule.memory`")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
}

/// Why an answer was not taken. The VM is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The VM waits for nothing.
    #[error("the machine waits for no effect, so effect {seq} cannot be answered")]
    NothingPending {
        /// The effect that was answered.
        seq: Seq,
    },
    /// The VM waits for another effect.
    #[error("the machine waits for effect {pending}, not {seq}")]
    WrongSeq {
        /// The effect that it waits for.
        pending: Seq,
        /// The effect that was answered.
        seq: Seq,
    },
    /// The answer is one to another kind of effect.
    #[error("the answer to effect {seq} does not fit what was asked: {why}")]
    WrongAnswer {
        /// The effect.
        seq: Seq,
        /// What does not fit.
        why: &'static str,
    },
}

/// A program that is under way.
#[derive(Debug, Clone)]
pub struct Vm {
    program: Arc<Program>,
    stack: Vec<Value>,
    frames: Vec<Frame>,
    handlers: Vec<Handler>,
    closing: Option<Closing>,
    heap: Heap,
    saved: Saved,
    next_seq: Seq,
    state: State,
    /// What the last run left of its fuel when it came to an effect. No part of a snapshot.
    fuel_left: i64,
}

/// One call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// The function, or [`CHAIN`].
    function: u32,
    /// The instruction that runs, for the innermost frame; the one to go on with, for all others. For a chain, the
    /// stage to run next.
    pc: u32,
    /// Where its locals start; for a chain, where the chain's value is.
    base: u32,
    /// The stack is cut to this before the result is put on it.
    result: u32,
    /// How many handlers there were when it started.
    handlers: u32,
    /// Whether it or a caller is marked pure, so that effects are refused.
    is_pure: bool,
}

/// In [`Frame::function`]: the frame runs the stages of a chain.
const CHAIN: u32 = u32::MAX;

/// An `EnterTry` that was not left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Handler {
    /// The frame it belongs to, from 0.
    frame: u32,
    /// The stack is cut to this before the error is put on it.
    height: u32,
    /// Where the frame goes on.
    target: u32,
    /// What it catches.
    catches: Catches,
}

/// What a handler catches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Catches {
    /// Errors that may be caught.
    Errors,
    /// The end of its own time.
    Time {
        /// The effect that began it.
        scope: Seq,
        /// When it ends, as its agent counts.
        due: Timestamp,
        /// It has ended: what was deferred inside of it runs, and may wait until `due`.
        fired: bool,
    },
    /// Everything.
    All,
}

/// The end of a VM that still runs what was deferred.
#[derive(Debug, Clone, PartialEq)]
struct Closing {
    /// What it ends with.
    failure: Failure,
    /// How many handlers there were below the innermost one that runs: those catch nothing any more.
    floor: u32,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Running,
    /// The effect with the number before `next_seq` is not answered yet.
    Waiting,
    Ended(Outcome),
}

impl Vm {
    /// A VM at the start of a function, or of a callable value (see [`ENTRY_CALLABLE`]).
    ///
    /// # Errors
    /// [`StartError`] if there is no such function, it takes other arguments, or they are too large.
    pub fn start(program: Arc<Program>, entry: u32, args: Vec<Value>, limits: Limits) -> Result<Self, StartError> {
        let limit = limits.heap.min(HEAP_BYTES_MAX);
        let mut vm = Self {
            program,
            stack: args,
            frames: Vec::new(),
            handlers: Vec::new(),
            closing: None,
            heap: Heap::new(limit),
            saved: Saved::default(),
            next_seq: Seq(1),
            state: State::Running,
            fuel_left: 0,
        };
        vm.heap.count(&vm.stack, 0, 0).map_err(|_| StartError::TooLarge { limit })?;
        if entry == ENTRY_CALLABLE {
            vm.start_callable()?
        } else {
            vm.start_function(entry)?
        }
        Ok(vm)
    }

    /// Runs until an effect, the end, or the first safepoint after `fuel` is used up; at least one instruction. A plain
    /// instruction takes 1, and one that works on many bytes or values as much more.
    ///
    /// While an effect is pending it does nothing but return it again.
    pub fn run(&mut self, fuel: u64) -> Stop {
        self.fuel_left = 0;
        match &self.state {
            State::Ended(outcome) => Stop::Ended(outcome.clone()),
            State::Running => self.execute(fuel),
            State::Waiting => match self.pending() {
                Some(request) => Stop::Effect(request),
                None => self.end_with(Failure::new(RunCode::Failed, "internal error: nothing is pending")),
            },
        }
    }

    /// What the last call of [`Self::run`] left of its fuel when it came to an effect.
    pub fn fuel_left(&self) -> u64 {
        u64::try_from(self.fuel_left).unwrap_or(0)
    }

    /// Answers the pending effect. A failure is raised at the effect, where the program may catch it.
    ///
    /// # Errors
    /// [`ResumeError`] if nothing is pending, something else is, or the answer does not fit; the VM is unchanged then.
    pub fn resume(&mut self, seq: Seq, answer: Result<Answer, Failure>) -> Result<(), ResumeError> {
        let Some(pending) = self.pending_seq() else { return Err(ResumeError::NothingPending { seq }) };
        if pending != seq {
            return Err(ResumeError::WrongSeq { pending, seq });
        }
        self.take_answer(seq, answer)
    }

    /// Ends the VM from outside: cancelled, or out of time as a whole. A pending effect is abandoned, and no handler
    /// of the program sees the failure. What is deferred runs first: true if there is some, and then [`Self::run`] goes
    /// on. Without effect on a VM that has ended, and on one that ends already.
    pub fn interrupt(&mut self, failure: Failure) -> bool {
        if matches!(self.state, State::Ended(_)) {
            return false;
        }
        if self.closing.is_none() {
            self.state = State::Running;
            let _ended = self.close(failure);
        }
        !matches!(self.state, State::Ended(_))
    }

    /// What it will end with, if it only runs what was deferred any more.
    pub fn closing(&self) -> Option<&Failure> {
        self.closing.as_ref().map(|closing| &closing.failure)
    }

    /// The scope whose time ends next: the effect that began it, and when it ends. Of two that end together the outer
    /// one. While something runs that was deferred in a scope that has ended, the scopes around it wait for that.
    pub fn next_scope(&self) -> Option<(Seq, Timestamp)> {
        let (mut next, mut held) = (None, Timestamp(0));
        for handler in self.live_handlers().iter().rev() {
            let Catches::Time { scope, due, fired } = handler.catches else { continue };
            let due = due.max(held);
            if fired {
                held = due;
            }
            if next.is_none_or(|(_, least)| due <= least) {
                next = Some((scope, due));
            }
        }
        next
    }

    /// Those that may still catch something: the ones below what is deferred do not.
    fn live_handlers(&self) -> &[Handler] {
        let floor = self.closing.as_ref().map_or(0, |closing| closing.floor as usize);
        self.handlers.get(floor..).unwrap_or_default()
    }

    /// The time of a scope is over: the pending effect is abandoned, what was deferred inside of it runs, and its code
    /// goes on with the failure. What was deferred may wait until `grace`; then the scope expires again, and again for
    /// each wait that comes after. False if there is no such scope or no effect is pending.
    pub fn expire(&mut self, scope: Seq, failure: Failure, grace: Timestamp) -> bool {
        let is_meant =
            |handler: &Handler| matches!(handler.catches, Catches::Time { scope: open, .. } if open == scope);
        let floor = self.handlers.len() - self.live_handlers().len();
        let Some(place) = self.live_handlers().iter().rposition(is_meant).map(|place| place + floor) else {
            return false;
        };
        if !matches!(self.state, State::Waiting) {
            return false;
        }
        // What was deferred in scopes inside of it has had some of the time, or all.
        let inner = self.handlers[place + 1..].iter().filter_map(|handler| match handler.catches {
            Catches::Time { due, fired: true, .. } => Some(due),
            _ => None,
        });
        let until = inner.chain([grace]).min().unwrap_or(grace);
        if let Catches::Time { due, fired, .. } = &mut self.handlers[place].catches
            && !std::mem::replace(fired, true)
        {
            *due = until;
        }
        self.state = State::Running;
        let _ended = self.unwind(scope, crate::failure::to_value(&failure));
        true
    }

    /// Whether something is deferred here.
    pub fn has_deferred(&self) -> bool {
        self.handlers.iter().any(|handler| handler.catches == Catches::All)
    }

    /// Whether the program defers anything anywhere.
    pub fn may_defer(&self) -> bool {
        self.program.has_defers()
    }

    /// The effect that waits for an answer.
    pub fn pending(&self) -> Option<EffectRequest> {
        let seq = self.pending_seq()?;
        Some(EffectRequest { seq, body: self.effect_body().ok()? })
    }

    /// The number of the next effect, pending ones not counted.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The program it runs.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    fn pending_seq(&self) -> Option<Seq> {
        matches!(self.state, State::Waiting).then(|| Seq(self.next_seq.0.saturating_sub(1)))
    }

    /// Stops until an effect is answered.
    pub(super) fn wait_for(&mut self, body: EffectBody) -> Stop {
        let seq = self.next_seq;
        self.next_seq = seq.next();
        self.state = State::Waiting;
        Stop::Effect(EffectRequest { seq, body })
    }

    /// Ends with a failure.
    fn end_with(&mut self, failure: Failure) -> Stop {
        self.end(Outcome::Err(failure))
    }

    /// Ends with the value of the outermost function.
    fn end_with_value(&mut self, value: &Value) -> Stop {
        match codec::try_encode(value) {
            Ok(payload) => self.end(Outcome::Ok(payload)),
            Err(error) => {
                self.end_with(Failure::new(error.code(), format!("the result cannot leave the agent: {error}")))
            }
        }
    }

    fn end(&mut self, outcome: Outcome) -> Stop {
        let outcome = match self.closing.take() {
            Some(closing) => Outcome::Err(closing.failure),
            None => outcome,
        };
        self.stack = Vec::new();
        self.frames = Vec::new();
        self.handlers = Vec::new();
        self.saved = Saved::default();
        self.heap.charged = 0;
        self.heap.depth_bound = 0;
        self.state = State::Ended(outcome.clone());
        Stop::Ended(outcome)
    }
}

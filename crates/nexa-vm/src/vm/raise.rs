//! Errors on their way to a handler, or to the end.

use std::sync::Arc;

use nexa_types::{Failure, RunCode};

use super::heap::{self, CountError, Exhausted};
use super::{CHAIN, HIDDEN, Stop, Vm};
use crate::failure;
use crate::value::Value;

/// Why an operation did not work.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An error that the machine or a standard function found.
    Failure(Box<Failure>),
    /// A value that the program raised.
    Raised(Value),
}

impl Fault {
    #[cold]
    pub(crate) fn new(code: RunCode, message: impl Into<String>) -> Self {
        Self::Failure(Box::new(Failure::new(code, message)))
    }

    #[cold]
    pub(crate) fn mismatch(message: impl Into<String>) -> Self {
        Self::new(RunCode::TypeMismatch, message)
    }

    /// What only a module that no verifier saw, or a snapshot that no VM made, can lead to.
    #[cold]
    pub(crate) fn internal(what: &str) -> Self {
        Self::new(RunCode::OutOfMemory, format!("internal error: {what}; the module or snapshot is damaged"))
    }
}

impl Vm {
    /// Charges an allocation, counting afresh if the meter has passed the limit.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Fault> {
        match self.heap.charge(bytes) {
            Ok(()) => Ok(()),
            Err(Exhausted) => self.recount(bytes),
        }
    }

    /// Puts a value on the stack that came from outside the stack: an answer, an error.
    pub(super) fn push_new(&mut self, value: Value) -> Result<(), Fault> {
        let (bytes, depth) = heap::measure(&value);
        self.heap.depth_bound = self.heap.depth_bound.max(depth);
        self.stack.push(value);
        match self.heap.charge(bytes) {
            Ok(()) => Ok(()),
            // A count sees the value, which is on the stack already.
            Err(Exhausted) => self.recount(0),
        }
    }

    /// Notes that the top `count` operands go into a new value.
    pub(super) fn nest_top(&mut self, count: usize) -> Result<(), Fault> {
        let from = self.stack.len().saturating_sub(count);
        let mut is_shallow = true;
        for part in &self.stack[from..] {
            is_shallow &= self.heap.nest(part);
        }
        if is_shallow { Ok(()) } else { self.recount(0) }
    }

    /// Counts what is alive; `wanted` bytes are taken if there is room for them.
    #[cold]
    pub(super) fn recount(&mut self, wanted: u64) -> Result<(), Fault> {
        let limit = self.heap.limit;
        self.forget_unreachable();
        let roots = self.stack.iter().chain(self.saved.values());
        match self.heap.count(roots, self.saved.bytes(), wanted) {
            Ok(()) => {
                // `count` has left more room than is wanted.
                let _fits = self.heap.charge(wanted);
                Ok(())
            }
            Err(CountError::TooMuch) => Err(Fault::new(
                RunCode::OutOfMemory,
                format!("the agent's values take more than {limit} bytes; keep less, or raise `schedule.memory`"),
            )),
            Err(CountError::TooDeep) => {
                Err(Fault::new(RunCode::OutOfMemory, "a value nests deeper than 256 levels; flatten it"))
            }
        }
    }

    /// Where the innermost function is, as `file:line`.
    pub(super) fn place(&self) -> String {
        let mut is_innermost = true;
        for frame in self.frames.iter().rev() {
            let functions = &self.program.module().functions;
            let name = functions.get(frame.function as usize).map(|function| function.name.as_str());
            // What the compiler adds is in no line of the program: its caller is where it happened.
            if frame.function != CHAIN && !name.is_some_and(|name| name.starts_with(HIDDEN)) {
                let pc = if is_innermost { frame.pc } else { frame.pc.saturating_sub(1) };
                return self.program.place(frame.function, pc);
            }
            is_innermost = false;
        }
        String::new()
    }

    /// Cuts the stack back to the innermost handler and puts the error there, or ends the VM.
    #[cold]
    pub(super) fn raise(&mut self, fault: Fault) -> Result<(), Stop> {
        let (mut error, is_catchable) = match fault {
            Fault::Failure(mut failure) => {
                if failure.at.is_empty() {
                    failure.at = self.place();
                }
                let is_catchable = failure.code.is_catchable();
                if !is_catchable {
                    return Err(self.end_with(*failure));
                }
                (failure::to_value(&failure), is_catchable)
            }
            Fault::Raised(value) => {
                let code = failure::code_of(&value);
                (value, code.is_none_or(RunCode::is_catchable))
            }
        };
        if let Value::Record(record) = &mut error
            && record.shape == failure::error_shape()
            && matches!(record.values.get(3), Some(Value::Str(at)) if at.is_empty())
        {
            let at = Value::Str(self.place().into());
            Arc::make_mut(record).values[3] = at;
        } else if failure::code_of(&error).is_none() {
            // Whatever else was raised becomes an error, so that a handler finds the fields it looks at.
            let mut failure = failure::from_value(&error);
            failure.at = self.place();
            error = failure::to_value(&failure);
        }
        if is_catchable && let Some(handler) = self.handlers.pop() {
            self.frames.truncate(handler.frame as usize + 1);
            self.saved.keep(self.frames.len());
            self.stack.truncate(handler.height as usize);
            if let Some(frame) = self.frames.last_mut() {
                frame.pc = handler.target;
            }
            match self.push_new(error) {
                Ok(()) => return Ok(()),
                // Not even the error has room. This one cannot be caught, so it does not come back here.
                Err(no_room) => return self.raise(no_room),
            }
        }
        Err(self.end_with(failure::from_value(&error)))
    }
}

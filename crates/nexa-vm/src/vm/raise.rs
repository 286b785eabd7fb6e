//! Errors on their way to a handler, or to the end.

use std::sync::{Arc, LazyLock};

use nexa_types::{Failure, RunCode, Seq};

use super::heap::{self, CountError, Exhausted, Meter as _};
use super::{CHAIN, Catches, Closing, HIDDEN, Handler, Stop, Vm};
use crate::failure;
use crate::value::{Record, Shape, Value};

/// Why an operation did not work.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An error that the machine or a standard function found.
    Failure(Box<Failure>),
    /// A value that the program raised, or what ended a child.
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

    #[cold]
    pub(super) fn trap(&mut self, what: &str) -> Stop {
        match self.raise(Fault::internal(what)) {
            Err(stop) => stop,
            // An internal error cannot be caught, so `raise` has ended the VM.
            Ok(()) => self.end_with(nexa_types::Failure::new(nexa_types::RunCode::Failed, what)),
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
        let mut error = match fault {
            Fault::Failure(mut failure) => {
                if failure.at.is_empty() {
                    failure.at = self.place();
                }
                if !failure.code.is_catchable() {
                    return self.close(*failure);
                }
                failure::to_value(&failure)
            }
            Fault::Raised(value) => {
                if let Some((scope, error)) = unwound(&value) {
                    let error = error.clone();
                    return self.unwind(scope, error);
                }
                value
            }
        };
        if failure::code_of(&error).is_some_and(|code| !code.is_catchable_by_caller()) {
            return self.close(failure::from_value(&error));
        }
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
        let floor = self.closing.as_ref().map_or(0, |closing| closing.floor as usize);
        while self.handlers.len() > floor
            && let Some(handler) = self.handlers.pop()
        {
            if !matches!(handler.catches, Catches::Time { .. }) {
                return self.go_on_at(handler, error);
            }
        }
        // What was deferred has failed while the machine ends: the rest of it runs all the same.
        self.close(failure::from_value(&error))
    }

    /// Ends the machine with what nobody may catch: what is deferred runs first.
    #[cold]
    pub(super) fn close(&mut self, failure: Failure) -> Result<(), Stop> {
        let Closing { failure, .. } = self.closing.take().unwrap_or(Closing { failure, floor: 0 });
        while let Some(handler) = self.handlers.pop() {
            if handler.catches == Catches::All {
                let what = unwinding(EVERYTHING, failure::to_value(&failure));
                self.closing = Some(Closing { failure, floor: self.handlers.len() as u32 });
                return self.go_on_at(handler, what);
            }
        }
        Err(self.end_with(failure))
    }

    /// Ends what runs within a scope: what is deferred there runs first.
    #[cold]
    pub(super) fn unwind(&mut self, scope: Seq, error: Value) -> Result<(), Stop> {
        if scope == EVERYTHING {
            return self.close(failure::from_value(&error));
        }
        let floor = self.closing.as_ref().map_or(0, |closing| closing.floor as usize);
        while self.handlers.len() > floor
            && let Some(handler) = self.handlers.pop()
        {
            match handler.catches {
                Catches::All => return self.go_on_at(handler, unwinding(scope, error)),
                Catches::Time { scope: own, .. } if own == scope => return self.go_on_at(handler, error),
                Catches::Time { .. } | Catches::Errors => {}
            }
        }
        self.close(failure::from_value(&error))
    }

    /// Cuts the stack back to a handler and goes on there.
    fn go_on_at(&mut self, handler: Handler, value: Value) -> Result<(), Stop> {
        self.frames.truncate(handler.frame as usize + 1);
        self.saved.keep(self.frames.len());
        self.stack.truncate(handler.height as usize);
        if let Some(frame) = self.frames.last_mut() {
            frame.pc = handler.target;
        }
        match self.push_new(value) {
            Ok(()) => Ok(()),
            // Not even the error has room. Each time there is a handler less, so this comes to an end.
            Err(no_room) => self.raise(no_room),
        }
    }
}

/// In place of a scope: the whole machine ends.
const EVERYTHING: Seq = Seq(0);

/// What a handler of what is deferred finds while the code around it is ended from outside. No program can write it
/// down, and all it can do with it is to raise it again.
static UNWINDING: LazyLock<Arc<Shape>> = LazyLock::new(|| {
    let fields = ["scope", "error"].map(str::to_owned).to_vec();
    Arc::new(Shape { type_name: "$unwind".to_owned(), fields, ..Shape::default() })
});

fn unwinding(scope: Seq, error: Value) -> Value {
    let scope = Value::Int(i64::try_from(scope.0).unwrap_or(i64::MAX));
    Value::Record(Arc::new(Record { shape: Arc::clone(&UNWINDING), values: vec![scope, error] }))
}

fn unwound(value: &Value) -> Option<(Seq, &Value)> {
    match value {
        Value::Record(record) if record.shape == *UNWINDING => match record.values.as_slice() {
            [Value::Int(scope), error] => Some((Seq(u64::try_from(*scope).ok()?), error)),
            _ => None,
        },
        _ => None,
    }
}

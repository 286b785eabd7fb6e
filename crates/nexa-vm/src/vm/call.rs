//! Frames, closures, stages and chains.

use nexa_types::RunCode;
use nexa_types::limits::{FRAMES_MAX, STACK_VALUES_MAX};

use super::raise::Fault;
use super::{CHAIN, Frame, StartError, Stop, Vm};
use crate::json::validate::describe;
use crate::module::Kind;
use crate::value::{Stage, Value};

/// What a call led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Called {
    /// Another frame is the innermost one now.
    Frame,
    /// The callee is an agent: the operands stay, and the call is an effect.
    Agent,
}

/// What one round of the chain machinery led to.
pub(super) enum Round {
    Go,
    Stop(Stop),
}

impl Vm {
    pub(super) fn start_function(&mut self, entry: u32) -> Result<(), StartError> {
        let program = self.program.clone();
        let code = program.functions.get(entry as usize).filter(|code| code.captures == 0);
        let code = code.ok_or(StartError::NoSuchFunction { entry })?;
        let found = self.stack.len();
        if found != code.arity as usize {
            let name = program.module().functions.get(entry as usize).map_or_else(String::new, |f| f.name.clone());
            return Err(StartError::WrongArguments { name, wanted: code.arity, found });
        }
        if let Some(place) = wrong_place(&code.param_kinds, &self.stack) {
            let name = program.module().functions.get(entry as usize).map_or_else(String::new, |f| f.name.clone());
            let wanted = code.param_kinds.get(place).copied().unwrap_or_default().name();
            return Err(StartError::WrongKind { name, place: place + 1, wanted });
        }
        self.enter(entry, found, 0).map_err(|_| StartError::NotCallable)
    }

    pub(super) fn start_callable(&mut self) -> Result<(), StartError> {
        // An agent, with or without arguments in place, starts as its function.
        while let Some(callee) = self.stack.first().cloned() {
            match callee {
                Value::Agent(index) => {
                    self.stack.remove(0);
                    let function = self.program.module().agents.get(index as usize).map(|agent| agent.function);
                    return self.start_function(function.unwrap_or(u32::MAX));
                }
                Value::Stage(ref stage) if matches!(&**stage, Stage::Partial { .. }) => {
                    let argc = self.stack.len() - 1;
                    self.put_arguments(argc, stage).map_err(|_| StartError::NotCallable)?;
                }
                _ => {
                    let argc = self.stack.len() - 1;
                    return match self.call_value(argc) {
                        Ok(Called::Frame) => Ok(()),
                        _ => Err(StartError::NotCallable),
                    };
                }
            }
        }
        Err(StartError::NotCallable)
    }

    /// Starts a function whose arguments are the top `argc` values. Its result will stand at `result`.
    pub(super) fn enter(&mut self, function: u32, argc: usize, result: usize) -> Result<(), Fault> {
        let Some(code) = self.program.functions.get(function as usize) else {
            return Err(Fault::internal("a call of no function"));
        };
        if !code.param_kinds.is_empty()
            && let Some(fault) = wrong_kind(&code.param_kinds, &self.stack[self.stack.len() - argc..])
        {
            return Err(fault);
        }
        let base = self.stack.len() - argc;
        let top = base + code.locals as usize;
        if self.frames.len() >= FRAMES_MAX || top + code.stack as usize > STACK_VALUES_MAX {
            return Err(Fault::new(
                RunCode::StackOverflow,
                format!("more than {FRAMES_MAX} nested calls; end the recursion earlier"),
            ));
        }
        let is_pure = code.is_pure || self.frames.last().is_some_and(|frame| frame.is_pure);
        self.stack.reserve(code.locals as usize - argc + code.stack as usize);
        for _ in argc..code.locals as usize {
            self.stack.push(Value::Unit);
        }
        self.frames.push(Frame {
            function,
            pc: 0,
            base: base as u32,
            result: result as u32,
            handlers: self.handlers.len() as u32,
            is_pure,
        });
        Ok(())
    }

    /// Ends the innermost frame with a value; says so if it was the last.
    #[inline]
    pub(super) fn leave(&mut self, value: Value) -> Option<Stop> {
        let frame = self.frames.pop()?;
        if self.handlers.len() > frame.handlers as usize {
            self.handlers.truncate(frame.handlers as usize);
        }
        self.saved.keep(self.frames.len());
        if self.frames.is_empty() {
            return Some(self.end_with_value(&value));
        }
        self.stack.truncate(frame.result as usize);
        self.stack.push(value);
        None
    }

    /// Calls the value below the top `argc` values.
    pub(super) fn call_value(&mut self, mut argc: usize) -> Result<Called, Fault> {
        loop {
            let Some(place) = self.stack.len().checked_sub(argc + 1) else {
                return Err(Fault::internal("a call without a callee"));
            };
            match &self.stack[place] {
                Value::Closure(closure) => {
                    let function = closure.function;
                    let captured = closure.captures.len();
                    match self.program.functions.get(function as usize) {
                        Some(code) if code.arity as usize == argc && code.captures as usize == captured => {
                            self.enter(function, argc, place)?;
                            return Ok(Called::Frame);
                        }
                        Some(code) => {
                            let wanted = code.arity;
                            return Err(Fault::mismatch(format!(
                                "the function takes {wanted} arguments and got {argc}"
                            )));
                        }
                        None => return Err(Fault::mismatch("the function is of another program")),
                    }
                }
                Value::Agent(_) => return Ok(Called::Agent),
                Value::Stage(stage) => {
                    let stage = stage.clone();
                    match &*stage {
                        Stage::Partial { callee, .. } if is_agent_below(callee) => return Ok(Called::Agent),
                        Stage::Partial { .. } => argc = self.put_arguments(argc, &stage)?,
                        Stage::Chain(_) if argc == 1 => {
                            if self.frames.len() >= FRAMES_MAX || self.stack.len() + 2 > STACK_VALUES_MAX {
                                return Err(Fault::new(RunCode::StackOverflow, "chains nest too deeply"));
                            }
                            self.frames.push(Frame {
                                function: CHAIN,
                                pc: 0,
                                base: place as u32,
                                result: place as u32,
                                handlers: self.handlers.len() as u32,
                                is_pure: self.frames.last().is_some_and(|frame| frame.is_pure),
                            });
                            return Ok(Called::Frame);
                        }
                        Stage::Chain(_) => {
                            return Err(Fault::mismatch(format!("a chain takes one argument and got {argc}")));
                        }
                    }
                }
                other => return Err(Fault::mismatch(format!("{} cannot be called", describe(other)))),
            }
        }
    }

    /// Replaces a partial stage and the arguments above it by its callee and all arguments; returns their number.
    fn put_arguments(&mut self, argc: usize, stage: &Stage) -> Result<usize, Fault> {
        let Stage::Partial { callee, args, open } = stage else { return Err(Fault::internal("no partial stage")) };
        if self.stack.len() + args.len() + 1 > STACK_VALUES_MAX {
            return Err(Fault::new(RunCode::StackOverflow, "too many values on the stack"));
        }
        let place = self.stack.len().checked_sub(argc + 1).ok_or_else(|| Fault::internal("a call without a callee"))?;
        let given = self.stack.split_off(place + 1);
        let all = merge_arguments(args, *open, given)?;
        let count = all.len();
        self.stack.pop();
        self.stack.push(callee.clone());
        self.stack.extend(all);
        Ok(count)
    }

    /// One step of the chain that is the innermost frame.
    pub(super) fn chain_round(&mut self) -> Round {
        let step = match self.continue_chain() {
            Ok(Some(Called::Frame)) => return Round::Go,
            Ok(Some(Called::Agent)) => self.effect_of_chain().map(Some),
            Ok(None) => Ok(None),
            Err(fault) => Err(fault),
        };
        match step {
            Ok(Some(body)) => Round::Stop(self.wait_for(*body)),
            Ok(None) => match self.stack.pop() {
                Some(value) => self.leave(value).map_or(Round::Go, Round::Stop),
                None => Round::Stop(self.trap("a chain without a value")),
            },
            Err(fault) => match self.raise(fault) {
                Ok(()) => Round::Go,
                Err(stop) => Round::Stop(stop),
            },
        }
    }

    /// Runs the next stage of the innermost frame's chain on the value on top; `None` when the chain has ended.
    fn continue_chain(&mut self) -> Result<Option<Called>, Fault> {
        let Some(frame) = self.frames.last_mut() else { return Err(Fault::internal("no chain")) };
        let base = frame.base as usize;
        let stage = match self.stack.get(base) {
            Some(Value::Stage(stage)) => match &**stage {
                Stage::Chain(stages) => stages.get(frame.pc as usize).cloned(),
                Stage::Partial { .. } => return Err(Fault::internal("no chain")),
            },
            _ => return Err(Fault::internal("no chain")),
        };
        match stage {
            Some(stage) => {
                frame.pc += 1;
                let Some(value) = self.stack.pop() else { return Err(Fault::internal("a chain without a value")) };
                self.stack.push(stage);
                self.stack.push(value);
                self.call_value(1).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// The first argument that is not of the kind that the function takes.
fn wrong_place(kinds: &[Kind], args: &[Value]) -> Option<usize> {
    kinds.iter().zip(args).position(|(kind, value)| !kind.holds(value))
}

/// What a call with such an argument raises.
fn wrong_kind(kinds: &[Kind], args: &[Value]) -> Option<Fault> {
    let place = wrong_place(kinds, args)?;
    let (wanted, found) = (kinds.get(place)?.name(), describe(args.get(place)?));
    Some(Fault::mismatch(format!("argument {} of the function is {found}, and must be of type {wanted}", place + 1)))
}

/// The arguments of a partial stage with the given one, if it waits for one, in its place.
pub(super) fn merge_arguments(args: &[Value], open: u16, given: Vec<Value>) -> Result<Vec<Value>, Fault> {
    let wanted = usize::from(open != Stage::NOTHING_OPEN);
    if given.len() != wanted {
        let takes = if wanted == 1 { "one argument" } else { "no argument" };
        return Err(Fault::mismatch(format!("the stage takes {takes} and got {}", given.len())));
    }
    let (before, after) = args.split_at(usize::from(open).min(args.len()));
    Ok(before.iter().cloned().chain(given).chain(after.iter().cloned()).collect())
}

/// Whether a callable is an agent, maybe with arguments in place.
fn is_agent_below(callee: &Value) -> bool {
    let mut callee = callee;
    loop {
        match callee {
            Value::Agent(_) => return true,
            Value::Stage(stage) => match &**stage {
                Stage::Partial { callee: inner, .. } => callee = inner,
                Stage::Chain(_) => return false,
            },
            _ => return false,
        }
    }
}

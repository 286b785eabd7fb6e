//! The operations that are not worth a place in the hot loop.

use std::sync::Arc;

use nexa_event::effect::EffectBody;
use nexa_types::RunCode;

use super::arithmetic::{canonical, compare, dynamic, float_math, int_math, overflow, undefined};
use super::call::Called;
use super::code::{Instr, Math, Program};
use super::collections::{contains, fits_shape, get_field, index_value};
use super::effect::effect_bytes;
use super::equal::{TooMuchWork, Work};
use super::heap::{LIST_BYTES, Meter as _, VALUE_BYTES};
use super::raise::Fault;
use super::{Catches, Handler, Vm};
use crate::codec::VALUE_BYTES_MAX;
use crate::failure;
use crate::json::validate::describe;
use crate::op::{MemoryScope, Op};
use crate::value::{Closure, Iterator, Record, Shape, Stage, Text, Value};

/// Where the machine goes on after an operation.
pub(super) enum Flow {
    /// With the next instruction.
    Next,
    /// At this one.
    Jump(u32),
    /// In another frame.
    Frame,
    /// Not before this is answered.
    Effect(Box<EffectBody>),
}

impl Vm {
    /// Runs one operation. The innermost frame's `pc` is at it, which `raise` and `effect_body` rely on.
    pub(super) fn slow(&mut self, instr: Instr) -> Result<Flow, Fault> {
        match instr {
            Instr::Other(op, a) => self.other(op, a),
            Instr::OtherAb(op, count, b) => self.other_with_count(op, count, b),
            Instr::IterNext(target) => self.iter_next(target),
            _ => Err(Fault::internal("an instruction that cannot be reached")),
        }
    }

    /// Puts an int on the stack.
    #[inline(always)]
    pub(super) fn push_int(&mut self, number: i64) {
        if self.stack.len() == self.stack.capacity() {
            self.stack.reserve(1);
        }
        self.stack.push(Value::Int(number));
    }

    /// Takes operands off that were looked at where they are. Taking one out whole, right after it was written in parts,
    /// makes the processor wait longer than the operation itself takes.
    #[inline(always)]
    pub(super) fn drop_top(&mut self, count: usize) {
        let keep = self.stack.len().saturating_sub(count);
        self.stack.truncate(keep);
    }

    pub(super) fn pop(&mut self) -> Result<Value, Fault> {
        self.stack.pop().ok_or_else(|| Fault::internal("an operand is missing"))
    }

    pub(super) fn top(&self) -> Result<&Value, Fault> {
        self.stack.last().ok_or_else(|| Fault::internal("an operand is missing"))
    }

    pub(super) fn two(&self) -> Result<(&Value, &Value), Fault> {
        match self.stack.as_slice() {
            [.., x, y] => Ok((x, y)),
            _ => Err(Fault::internal("an operand is missing")),
        }
    }

    /// Replaces the top `count` operands.
    pub(super) fn replace(&mut self, count: usize, value: Value) -> Result<Flow, Fault> {
        let keep = self.stack.len().saturating_sub(count);
        self.stack.truncate(keep);
        self.stack.push(value);
        Ok(Flow::Next)
    }

    /// Takes the top `count` operands off the stack, as the parts of a value that was charged and nested.
    pub(super) fn take_parts(&mut self, count: usize) -> Result<Vec<Value>, Fault> {
        let from = self.stack.len().checked_sub(count).ok_or_else(|| Fault::internal("operands are missing"))?;
        self.charge(LIST_BYTES + VALUE_BYTES * count as u64)?;
        self.nest_top(count)?;
        Ok(self.stack.split_off(from))
    }

    fn other(&mut self, op: Op, a: u32) -> Result<Flow, Fault> {
        match op {
            Op::Nop | Op::Wide => Ok(Flow::Next),
            Op::Unit => self.replace(0, Value::Unit),
            Op::Swap => {
                let len = self.stack.len();
                if len < 2 {
                    return Err(Fault::internal("an operand is missing"));
                }
                self.stack.swap(len - 1, len - 2);
                Ok(Flow::Next)
            }
            Op::Pick => {
                let place = self.stack.len().checked_sub(a as usize + 1);
                let value = place.and_then(|place| self.stack.get(place)).cloned();
                let value = value.ok_or_else(|| Fault::internal("an operand is missing"))?;
                self.replace(0, value)
            }
            Op::LoadCapture => {
                let place = self.frames.last().map_or(0, |frame| frame.result as usize);
                match self.stack.get(place) {
                    Some(Value::Closure(closure)) => match closure.captures.get(a as usize).cloned() {
                        Some(value) => self.replace(0, value),
                        None => Err(Fault::internal("a captured value is missing")),
                    },
                    _ => Err(Fault::internal("a captured value without a closure")),
                }
            }
            Op::DivInt | Op::RemInt => {
                let math = if op == Op::DivInt { Math::Div } else { Math::Rem };
                match self.two()? {
                    (Value::Int(x), Value::Int(y)) => {
                        let result = int_math(math, *x, *y)?;
                        self.replace(2, Value::Int(result))
                    }
                    (x, y) => Err(undefined(op, x, y)),
                }
            }
            Op::DivFloat | Op::RemFloat => {
                let math = if op == Op::DivFloat { Math::Div } else { Math::Rem };
                match self.two()? {
                    (Value::Float(x), Value::Float(y)) => {
                        let result = float_math(math, *x, *y)?;
                        self.replace(2, result)
                    }
                    (x, y) => Err(undefined(op, x, y)),
                }
            }
            Op::EqFloat => match self.two()? {
                (Value::Float(x), Value::Float(y)) => {
                    let equal = x == y;
                    self.replace(2, Value::Bool(equal))
                }
                (x, y) => Err(undefined(op, x, y)),
            },
            Op::NegInt | Op::NegFloat | Op::Neg => {
                let negated = match self.top()? {
                    Value::Int(number) if op != Op::NegFloat => Value::Int(number.checked_neg().ok_or_else(overflow)?),
                    Value::Float(number) if op != Op::NegInt => canonical(-*number),
                    Value::Duration(millis) if op == Op::Neg => {
                        Value::Duration(millis.checked_neg().ok_or_else(overflow)?)
                    }
                    other => return Err(Fault::mismatch(format!("{} cannot be negated", describe(other)))),
                };
                self.replace(1, negated)
            }
            Op::Add if matches!(self.two()?, (Value::List(_), Value::List(_)) | (Value::Str(_), Value::Str(_))) => {
                self.join()
            }
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem => {
                let (x, y) = self.two()?;
                let result = dynamic(op, x, y)?;
                self.replace(2, result)
            }
            Op::Eq | Op::Ne => {
                let (x, y) = self.two()?;
                let mut work = Work::new();
                let equal = work.equal(x, y).map_err(too_much_work)?;
                self.heap.read(work.bytes());
                self.replace(2, Value::Bool(equal == (op == Op::Eq)))
            }
            Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                let (x, y) = self.two()?;
                let result = compare(op, x, y)?;
                if let (Value::Str(x), Value::Str(y)) = (x, y) {
                    let len = x.len().min(y.len()) as u64;
                    self.heap.read(len);
                }
                self.replace(2, Value::Bool(result))
            }
            Op::In => {
                let (x, xs) = self.two()?;
                let (found, bytes) = contains(x, xs)?;
                self.heap.read(bytes);
                self.replace(2, Value::Bool(found))
            }
            Op::IntToFloat => match self.top()? {
                Value::Int(number) => {
                    let float = Value::Float(*number as f64);
                    self.replace(1, float)
                }
                Value::Float(_) => Ok(Flow::Next),
                other => Err(Fault::mismatch(format!("{} is no int", describe(other)))),
            },
            Op::Concat => self.concat(a as usize),
            Op::CheckType => self.check_type(a),
            Op::JumpIfSome => {
                if matches!(self.top()?, Value::None) {
                    self.pop()?;
                    Ok(Flow::Next)
                } else {
                    Ok(Flow::Jump(a))
                }
            }
            Op::JumpIfErr => Ok(if matches!(self.top()?, Value::Err(_)) { Flow::Jump(a) } else { Flow::Next }),
            Op::EnterTry => self.handle(a, Catches::Errors),
            Op::EnterDefer => self.handle(a, Catches::All),
            Op::LeaveTry => {
                self.handlers.pop();
                Ok(Flow::Next)
            }
            Op::Raise => {
                let error = self.pop()?;
                Err(Fault::Raised(error))
            }
            Op::Trap => Err(Fault::internal("an instruction that the checker proved cannot be reached")),
            Op::IsFallback | Op::IsTransient => {
                let code = failure::code_of(self.top()?);
                let answer = code.is_some_and(|code| {
                    if op == Op::IsFallback { code.is_worth_a_fallback() } else { code.is_transient() }
                });
                self.replace(1, Value::Bool(answer))
            }
            Op::CallValue => self.call_op(a as usize),
            Op::NewRecord | Op::Variant => {
                let shape = shape(&self.program, a)?;
                let values = self.take_parts(shape.fields.len())?;
                let record = Arc::new(Record { shape, values });
                self.replace(0, if op == Op::NewRecord { Value::Record(record) } else { Value::Variant(record) })
            }
            Op::GetField => {
                let value = get_field(self.top()?, constant_text(&self.program, a)?)?;
                self.replace(1, value)
            }
            Op::SetField => self.set_field(a),
            Op::NewList | Op::NewTuple => {
                let values = Arc::new(self.take_parts(a as usize)?);
                self.replace(0, if op == Op::NewList { Value::List(values) } else { Value::Tuple(values) })
            }
            Op::NewDict => self.new_dict(a as usize),
            Op::Index => {
                let (xs, index) = self.two()?;
                let bytes = if let Value::Str(text) = xs { text.len() as u64 } else { 0 };
                let value = index_value(xs, index);
                self.heap.read(bytes);
                self.replace(2, value?)
            }
            Op::SetIndex => self.set_index(),
            Op::Len => {
                let len = match self.top()? {
                    Value::Str(text) => {
                        let (len, bytes) = (text.chars().count(), text.len() as u64);
                        self.heap.read(bytes);
                        len
                    }
                    Value::List(values) | Value::Tuple(values) => values.len(),
                    Value::Dict(dict) => dict.len(),
                    other => return Err(Fault::mismatch(format!("{} has no length", describe(other)))),
                };
                self.replace(1, Value::Int(len as i64))
            }
            Op::IterNew => {
                if !matches!(self.top()?, Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Str(_)) {
                    return Err(Fault::mismatch(format!("{} cannot be iterated over", describe(self.top()?))));
                }
                self.charge(LIST_BYTES + VALUE_BYTES)?;
                self.nest_top(1)?;
                let over = self.pop()?;
                self.replace(0, Value::Iterator(Arc::new(Iterator { over, taken: 0 })))
            }
            Op::TestVariant => {
                let shape = shape(&self.program, a)?;
                let fits = fits_shape(self.top()?, &shape);
                self.replace(0, Value::Bool(fits))
            }
            Op::Unwrap => match self.pop()? {
                Value::Ok(inner) => self.replace(0, inner.as_ref().clone()),
                Value::Err(error) => Err(Fault::Raised(error.as_ref().clone())),
                Value::None => Err(Fault::new(RunCode::NoneValue, "`?` met none")),
                other => self.replace(0, other),
            },
            Op::WrapOk | Op::WrapErr => {
                self.charge(LIST_BYTES + VALUE_BYTES)?;
                self.nest_top(1)?;
                let inner = Arc::new(self.pop()?);
                self.replace(0, if op == Op::WrapOk { Value::Ok(inner) } else { Value::Err(inner) })
            }
            Op::Unpack => {
                let values = match self.pop()? {
                    Value::Tuple(values) | Value::List(values) if values.len() == a as usize => values,
                    other => {
                        let found = describe(&other);
                        return Err(Fault::mismatch(format!("expected {a} values to take apart, found {found}")));
                    }
                };
                self.stack.extend(values.iter().cloned());
                self.heap.read(VALUE_BYTES * u64::from(a));
                Ok(Flow::Next)
            }
            Op::ListToRecord => {
                let shape = shape(&self.program, a)?;
                let values = match self.top()? {
                    Value::List(values) if values.len() == shape.fields.len() => Arc::clone(values),
                    other => {
                        let wanted = shape.fields.len();
                        return Err(Fault::mismatch(format!("expected a list of {wanted}, found {}", describe(other))));
                    }
                };
                self.charge(LIST_BYTES + VALUE_BYTES * values.len() as u64)?;
                let values = values.as_ref().clone();
                self.replace(1, Value::Record(Arc::new(Record { shape, values })))
            }
            Op::AgentCreate => self.replace(0, Value::Agent(a)),
            Op::AgentClone => {
                let agents = &self.program.module().agents;
                let (base, made) = match self.top()? {
                    Value::Agent(base) => (agents.get(*base as usize), agents.get(a as usize)),
                    other => return Err(Fault::mismatch(format!("{} is no agent to be cloned", describe(other)))),
                };
                if let (Some(base), Some(made)) = (base, made)
                    && base.params != made.params
                {
                    let message = format!("`{}` takes other parameters than `{}`", made.name, base.name);
                    return Err(Fault::mismatch(message));
                }
                self.replace(1, Value::Agent(a))
            }
            Op::Pipeline => {
                let stages = self.take_parts(a as usize)?;
                self.replace(0, Value::Stage(Arc::new(Stage::Chain(stages))))
            }
            Op::EnterTimed
            | Op::AgentRun
            | Op::LLMCall
            | Op::LLMStream
            | Op::Approve
            | Op::SemanticIf
            | Op::Classify
            | Op::Sleep
            | Op::Emit
            | Op::Now
            | Op::Random
            | Op::Log
            | Op::Spawn
            | Op::Await
            | Op::Send
            | Op::Receive
            | Op::Cancel
            | Op::Timer
            | Op::Release => self.effect(),
            Op::NextSeq => self.replace(0, Value::Int(i64::try_from(self.next_seq.0).unwrap_or(i64::MAX))),
            Op::Secret | Op::Snapshot | Op::Restore | Op::MemStore | Op::MemLoad | Op::MemRecall => {
                self.refuse_in_pure()?;
                match op {
                    Op::Secret => {
                        let name = constant_str(&self.program, a)?.clone();
                        self.replace(0, Value::Secret(name))
                    }
                    Op::Snapshot => self.save(),
                    Op::Restore => self.go_back(),
                    _ if a != MemoryScope::Agent as u32 => self.effect(),
                    Op::MemStore => self.store_own(),
                    Op::MemLoad => self.load_own(),
                    _ => self.recall_own(),
                }
            }
            Op::Tries => self.tries(),
            _ => Err(Fault::internal("an operation with other operands")),
        }
    }

    fn other_with_count(&mut self, op: Op, count: u8, b: u16) -> Result<Flow, Fault> {
        let count = usize::from(count);
        match op {
            Op::CallStd => self.call_std(count, b),
            Op::TailCall => {
                let Some(frame) = self.frames.pop() else { return Err(Fault::internal("a call without a frame")) };
                self.handlers.truncate(frame.handlers as usize);
                self.saved.keep(self.frames.len());
                let from = self.stack.len().saturating_sub(count);
                // The arguments move down to where this function's locals were; a closure below them stays.
                self.stack.drain((frame.base as usize).min(from)..from);
                self.enter(u32::from(b), count, frame.result as usize)?;
                if let Some(callee) = self.frames.last_mut() {
                    callee.is_pure |= frame.is_pure;
                }
                Ok(Flow::Frame)
            }
            Op::Closure => {
                let captures = self.take_parts(count)?;
                self.replace(0, Value::Closure(Arc::new(Closure { function: u32::from(b), captures })))
            }
            Op::MakeStage => {
                let mut args = self.take_parts(count + 1)?;
                let callee = args.remove(0);
                self.replace(0, Value::Stage(Arc::new(Stage::Partial { callee, args, open: b })))
            }
            Op::Fork | Op::TestCall | Op::ToolCall => self.effect(),
            Op::Merge => self.merge(b),
            _ => Err(Fault::internal("an operation with other operands")),
        }
    }

    fn refuse_in_pure(&self) -> Result<(), Fault> {
        if self.frames.last().is_some_and(|frame| frame.is_pure) {
            return Err(Fault::mismatch("a pure function may not run an agent or use another effect"));
        }
        Ok(())
    }

    /// From here on the innermost frame has one more handler.
    pub(super) fn handle(&mut self, target: u32, catches: Catches) -> Result<Flow, Fault> {
        let Some(frame) = self.frames.len().checked_sub(1) else {
            return Err(Fault::internal("a handler without a frame"));
        };
        self.handlers.push(Handler { frame: frame as u32, height: self.stack.len() as u32, target, catches });
        Ok(Flow::Next)
    }

    fn effect(&mut self) -> Result<Flow, Fault> {
        self.refuse_in_pure()?;
        let body = self.effect_body();
        // What an effect says is written out anew, also where that does not work and the program goes on.
        self.heap.read(body.as_ref().map_or(VALUE_BYTES_MAX as u64, effect_bytes));
        Ok(Flow::Effect(Box::new(body?)))
    }

    /// An agent as a stage of a chain: the same as the instruction [`Op::CallValue`] would do.
    pub(super) fn effect_of_chain(&mut self) -> Result<Box<EffectBody>, Fault> {
        match self.effect()? {
            Flow::Effect(body) => Ok(body),
            _ => Err(Fault::internal("an effect that is none")),
        }
    }

    fn call_op(&mut self, argc: usize) -> Result<Flow, Fault> {
        let caller = self.frames.len().wrapping_sub(1);
        if let Some(frame) = self.frames.last() {
            self.lend_argument(frame.pc as usize, argc);
        }
        match self.call_value(argc)? {
            Called::Agent => self.effect(),
            Called::Frame => {
                if let Some(frame) = self.frames.get_mut(caller) {
                    frame.pc += 1;
                }
                Ok(Flow::Frame)
            }
        }
    }
}

fn shape(program: &Program, index: u32) -> Result<Arc<Shape>, Fault> {
    program.shapes.get(index as usize).cloned().ok_or_else(|| Fault::internal("no such shape"))
}

pub(super) fn constant_text(program: &Program, index: u32) -> Result<&str, Fault> {
    constant_str(program, index).map(|text| &**text)
}

fn constant_str(program: &Program, index: u32) -> Result<&Text, Fault> {
    match program.constants.get(index as usize) {
        Some(Value::Str(text)) => Ok(text),
        _ => Err(Fault::internal("a name that is no text")),
    }
}

pub(super) fn no_text(error: crate::json::NoText) -> Fault {
    Fault::new(error.code(), error.to_string())
}

pub(super) fn too_much_work(_: TooMuchWork) -> Fault {
    Fault::new(RunCode::OutOfMemory, "the values are too large to be compared")
}

//! What each instruction needs and leaves.

use nexa_event::effect::TestCall;
use nexa_types::limits::{DEPTH_MAX, SECRET_NAME_BYTES_MAX};

use super::VerifyError;
use super::flow::{Kind, Pass, Point, range_error, stack_error};
use crate::module::Constant;
use crate::op::{Asking, Form, MemoryScope, MergeStrategy, Op, Word};
use crate::stdlib;
use crate::value::Stage;

impl Pass<'_, '_> {
    /// Operands in range, whether a path leads here or not.
    pub(super) fn operands(&self, word: &Word) -> Result<(), VerifyError> {
        let module = self.module;
        let within = |len: usize, what: &str| {
            if word.a < len as u64 { Ok(()) } else { Err(range_error(format!("there is no {what} {}", word.a))) }
        };
        match word.op.form() {
            Form::None => {}
            Form::A if word.op == Op::Int => {}
            Form::A if word.a > u64::from(u32::MAX) => return Err(range_error("an operand beyond 32 bits")),
            Form::A => {}
            Form::Jump => {
                if word.a >= self.starts.len() as u64 {
                    return Err(VerifyError::new("E1002", format!("a jump to {}, beyond the code", word.a)));
                }
            }
            Form::Const => within(module.constants.len(), "constant")?,
            Form::Type => within(module.types.len(), "type")?,
            Form::Shape => within(module.shapes.len(), "shape")?,
            Form::Agent => within(module.agents.len(), "agent")?,
            Form::Request => within(module.requests.len(), "model request")?,
            Form::CountFunction => {
                let Some(callee) = module.functions.get(usize::from(word.b)) else {
                    return Err(range_error(format!("there is no function {}", word.b)));
                };
                let wanted = if word.op == Op::Closure { callee.captures } else { callee.arity };
                if wanted != word.count {
                    let name = &callee.name;
                    return Err(range_error(format!("`{name}` takes {wanted} values and gets {}", word.count)));
                }
                if word.op != Op::Closure && callee.captures > 0 {
                    return Err(range_error(format!("`{}` captures values and is called without them", callee.name)));
                }
            }
            Form::CountStd => {
                let Some(found) = stdlib::by_number(word.b) else {
                    return Err(range_error(format!("there is no standard function {}", word.b)));
                };
                if !(found.arity.0..=found.arity.1).contains(&word.count) {
                    return Err(range_error(format!("`{}` gets {} arguments", found.name, word.count)));
                }
            }
            Form::CountTool => {
                let Some(tool) = module.tools.get(usize::from(word.b)) else {
                    return Err(range_error(format!("there is no tool {}", word.b)));
                };
                if tool.params.len() != usize::from(word.count) {
                    let (name, wanted) = (&tool.name, tool.params.len());
                    return Err(range_error(format!("`{name}` takes {wanted} values and gets {}", word.count)));
                }
            }
            Form::CountFlags => {}
        }
        let locals = u64::from(self.function.locals);
        let count = usize::from(word.count);
        let is_right = match word.op {
            Op::LoadLocal | Op::StoreLocal => word.a < locals,
            Op::IncLocal => u64::from(word.count) < locals,
            Op::LoadCapture => word.a < u64::from(self.function.captures),
            Op::MakeStage => Stage::may_open(word.b, count),
            Op::Fork => word
                .fork_mode()
                .is_some_and(|mode| mode.first_ok.is_none_or(|wanted| usize::from(wanted) <= word.branches())),
            Op::TestCall => TestCall::from_number(word.b).is_some_and(|call| call.arity() == word.count),
            Op::Pipeline => word.a > 0 && word.a <= 256,
            Op::Merge => MergeStrategy::from_number(word.b).is_some(),
            Op::SemanticIf => Asking::from_number(word.a).is_some(),
            Op::Classify => matches!(Asking::from_number(word.a), Some(Asking::Question | Asking::Intent)),
            Op::GetField | Op::SetField => matches!(module.constants.get(word.a as usize), Some(Constant::Str(_))),
            Op::Secret => match module.constants.get(word.a as usize) {
                Some(Constant::Str(name)) => !name.is_empty() && name.len() <= SECRET_NAME_BYTES_MAX,
                _ => false,
            },
            Op::MemStore | Op::MemLoad | Op::MemRecall => MemoryScope::from_number(word.a).is_some(),
            Op::CallValue | Op::AgentRun | Op::Spawn => word.a <= 255,
            Op::NewList | Op::NewTuple | Op::NewDict | Op::Concat | Op::Unpack | Op::Pick => word.a < 1 << 16,
            _ => true,
        };
        if is_right { Ok(()) } else { Err(range_error(format!("an operand of {} is out of range", word.op.name()))) }
    }

    /// What is known after an instruction on the way that falls through; `None` if nothing falls through.
    pub(super) fn step(&mut self, word: &Word, mut point: Point) -> Result<Option<Point>, VerifyError> {
        use Kind::{Any, Bool, Float, Int, List, Other};
        let a = word.a as usize;
        let count = usize::from(word.count);
        match word.op {
            Op::Nop | Op::Wide | Op::LoopTick => {}
            Op::Const => {
                let kind = match self.module.constants.get(a) {
                    Some(Constant::Int(_)) => Int,
                    Some(Constant::Float(_)) => Float,
                    _ => Other,
                };
                self.push(&mut point, kind)?;
            }
            Op::Int => self.push(&mut point, Int)?,
            Op::True | Op::False => self.push(&mut point, Bool)?,
            Op::NoneValue | Op::Unit | Op::AgentCreate => self.push(&mut point, Other)?,
            Op::Pop => {
                self.raw_pop(&mut point)?;
            }
            Op::Dup => {
                self.need(&point, 1)?;
                let kind = point.stack.last().copied().unwrap_or(Any);
                self.push(&mut point, kind)?;
            }
            Op::Swap => {
                let y = self.raw_pop(&mut point)?;
                let x = self.raw_pop(&mut point)?;
                self.push(&mut point, y)?;
                self.push(&mut point, x)?;
            }
            Op::Pick => {
                let place = point.stack.len().checked_sub(a + 1).ok_or_else(|| stack_error("an operand is missing"))?;
                let kind = point.stack[place];
                if kind == Kind::Iterator {
                    return Err(stack_error("an iterator cannot be copied"));
                }
                self.push(&mut point, kind)?;
            }
            Op::LoadLocal => match point.locals[a] {
                Some(kind) => self.push(&mut point, kind)?,
                None => return Err(stack_error(format!("local {a} is read before it is set"))),
            },
            Op::StoreLocal => {
                let kind = self.pop(&mut point)?;
                point.locals[a] = Some(kind);
            }
            Op::IncLocal => match point.locals[count] {
                Some(Int | Any) => point.locals[count] = Some(Int),
                Some(_) => return Err(stack_error(format!("local {count} is no int"))),
                None => return Err(stack_error(format!("local {count} is read before it is set"))),
            },
            Op::LoadCapture => self.push(&mut point, Any)?,
            Op::AddInt | Op::SubInt | Op::MulInt | Op::DivInt | Op::RemInt => {
                self.typed(&mut point, 2, Int)?;
                self.push(&mut point, Int)?;
            }
            Op::NegInt => {
                self.typed(&mut point, 1, Int)?;
                self.push(&mut point, Int)?;
            }
            Op::LtInt | Op::LeInt | Op::EqInt => {
                self.typed(&mut point, 2, Int)?;
                self.push(&mut point, Bool)?;
            }
            Op::AddFloat | Op::SubFloat | Op::MulFloat | Op::DivFloat | Op::RemFloat => {
                self.typed(&mut point, 2, Float)?;
                self.push(&mut point, Float)?;
            }
            Op::NegFloat => {
                self.typed(&mut point, 1, Float)?;
                self.push(&mut point, Float)?;
            }
            Op::LtFloat | Op::LeFloat | Op::EqFloat => {
                self.typed(&mut point, 2, Float)?;
                self.push(&mut point, Bool)?;
            }
            Op::IntToFloat => {
                // A float stays what it is, so that a value of either kind can be made one.
                self.pop(&mut point)?;
                self.push(&mut point, Float)?;
            }
            Op::Not => {
                self.typed(&mut point, 1, Bool)?;
                self.push(&mut point, Bool)?;
            }
            Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge | Op::In => self.change(&mut point, 2, Bool)?,
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem => self.change(&mut point, 2, Any)?,
            Op::Neg | Op::CheckType => self.change(&mut point, 1, Any)?,
            Op::Concat => self.change(&mut point, a, Other)?,
            Op::Jump => {
                self.jump(word.a, point)?;
                return Ok(None);
            }
            Op::JumpIf | Op::JumpIfNot => {
                self.typed(&mut point, 1, Bool)?;
                self.jump(word.a, point.clone())?;
            }
            Op::JumpIfSome => {
                self.need(&point, 1)?;
                self.jump(word.a, point.clone())?;
                self.pop(&mut point)?;
            }
            Op::JumpIfErr => {
                self.need(&point, 1)?;
                self.jump(word.a, point.clone())?;
            }
            Op::Return | Op::Raise => {
                self.pop(&mut point)?;
                return Ok(None);
            }
            Op::Trap => return Ok(None),
            Op::TailCall => {
                self.purity(word)?;
                self.arguments(&point, word)?;
                self.change(&mut point, count, Any)?;
                return Ok(None);
            }
            Op::EnterTry | Op::EnterDefer | Op::EnterTimed => {
                if word.op == Op::EnterTimed {
                    if self.function.pure_ {
                        return Err(stack_error("an effect in a function marked pure"));
                    }
                    self.pop(&mut point)?;
                }
                if word.a as usize <= self.at {
                    return Err(VerifyError::new("E1005", "a handler that stands before its try"));
                }
                if point.tries.len() >= DEPTH_MAX {
                    return Err(VerifyError::new("E1006", "tries nest deeper than 256 levels"));
                }
                // The handler finds the stack as it is here and the error on it; of locals that anything writes from
                // here on it knows only that they are set.
                let mut caught = point.clone();
                self.push(&mut caught, Other)?;
                for (local, last) in caught.locals.iter_mut().zip(&self.written) {
                    if *last > self.at && local.is_some() {
                        *local = Some(Any);
                    }
                }
                self.jump(word.a, caught)?;
                point.tries.push(self.at as u32);
            }
            Op::LeaveTry => {
                if point.tries.pop().is_none() {
                    return Err(stack_error("a try is left that was not entered"));
                }
            }
            Op::IsFallback | Op::IsTransient => self.change(&mut point, 1, Bool)?,
            Op::Call => {
                self.purity(word)?;
                self.arguments(&point, word)?;
                self.change(&mut point, count, Any)?;
            }
            Op::CallStd => self.change(&mut point, count, Any)?,
            Op::CallValue => self.change(&mut point, a + 1, Any)?,
            Op::Closure => self.change(&mut point, count, Other)?,
            Op::MakeStage => self.change(&mut point, count + 1, Other)?,
            Op::NewRecord | Op::Variant => {
                let fields = self.module.shapes.get(a).map_or(0, |shape| shape.fields.len());
                self.change(&mut point, fields, Other)?;
            }
            Op::GetField => self.change(&mut point, 1, Any)?,
            Op::SetField => self.change(&mut point, 2, Other)?,
            Op::NewList => self.change(&mut point, a, List)?,
            Op::NewTuple | Op::Pipeline => self.change(&mut point, a, Other)?,
            Op::NewDict => self.change(&mut point, 2 * a, Other)?,
            Op::Index => self.change(&mut point, 2, Any)?,
            Op::SetIndex => self.change(&mut point, 3, Any)?,
            Op::Len => self.change(&mut point, 1, Int)?,
            Op::IterNew => self.change(&mut point, 1, Kind::Iterator)?,
            Op::IterNext => {
                if point.stack.last() != Some(&Kind::Iterator) {
                    return Err(stack_error("the operand is no iterator"));
                }
                let mut done = point.clone();
                self.raw_pop(&mut done)?;
                self.jump(word.a, done)?;
                self.push(&mut point, Any)?;
            }
            Op::TestVariant => {
                self.need(&point, 1)?;
                self.push(&mut point, Bool)?;
            }
            Op::Unwrap => self.change(&mut point, 1, Any)?,
            Op::WrapOk | Op::WrapErr | Op::ListToRecord => self.change(&mut point, 1, Other)?,
            Op::Unpack => {
                self.pop(&mut point)?;
                for _ in 0..a {
                    self.push(&mut point, Any)?;
                }
            }
            Op::Merge => {
                let strategy = MergeStrategy::from_number(word.b);
                let operands = strategy.map_or(1, MergeStrategy::operands);
                // The results are below the options, but for sections, where they are above.
                let place = if strategy == Some(MergeStrategy::Sections) { 1 } else { operands };
                let results = point.stack.len().checked_sub(place).map(|from| point.stack[from]);
                if !matches!(results, None | Some(List | Any)) {
                    return Err(stack_error("a merge of what is known to be no list of branches' results"));
                }
                let kind = match strategy {
                    Some(MergeStrategy::All | MergeStrategy::AtLeast) => List,
                    Some(MergeStrategy::Sections) => Other,
                    Some(MergeStrategy::WeightedAverage) => Float,
                    _ => Any,
                };
                self.change(&mut point, operands, kind)?;
            }
            Op::AgentRun => self.effect(&mut point, a + 1, Any)?,
            Op::Fork => {
                let mode = word.fork_mode().unwrap_or_default();
                let kind = match mode.first_ok {
                    _ if mode.is_detached => Other,
                    Some(_) => Any,
                    None => List,
                };
                self.effect(&mut point, mode.operands(word.branches()), kind)?;
            }
            Op::LLMCall | Op::LLMStream => self.effect(&mut point, 2, Other)?,
            Op::Approve | Op::SemanticIf => self.effect(&mut point, 3, Other)?,
            Op::Classify => self.effect(&mut point, 4, Other)?,
            Op::Sleep | Op::Log => self.effect(&mut point, 1, Other)?,
            Op::Emit => self.effect(&mut point, 2, Other)?,
            Op::Now => self.effect(&mut point, 0, Int)?,
            Op::Random => self.effect(&mut point, 2, Int)?,
            Op::ToolCall => self.effect(&mut point, count, Any)?,
            Op::Secret | Op::Snapshot => self.effect(&mut point, 0, Other)?,
            Op::Restore => {
                self.effect(&mut point, 1, Other)?;
                return Ok(None);
            }
            Op::AgentClone => self.change(&mut point, 1, Other)?,
            Op::Tries => self.change(&mut point, 1, Int)?,
            Op::MemStore => self.effect(&mut point, 2, Other)?,
            Op::MemRecall => self.effect(&mut point, 2, Any)?,
            Op::MemLoad => self.effect(&mut point, 1, Any)?,
            Op::TestCall => {
                if !self.function.test {
                    return Err(stack_error("only a test asks a test harness"));
                }
                self.effect(&mut point, count, Any)?;
            }
            Op::Spawn => self.effect(&mut point, a + 1, Other)?,
            Op::Await | Op::Receive => self.effect(&mut point, 1, Any)?,
            Op::Send => self.effect(&mut point, 2, Other)?,
            Op::Cancel | Op::Timer | Op::Release => self.effect(&mut point, 1, Other)?,
            // Reveals what effects were made before, which a pure function must not know.
            Op::NextSeq => self.effect(&mut point, 0, Int)?,
        }
        Ok(Some(point))
    }

    fn push(&mut self, point: &mut Point, kind: Kind) -> Result<(), VerifyError> {
        point.stack.push(kind);
        let height = point.stack.len();
        if height > usize::from(self.most) {
            return Err(stack_error(format!("{height} operands, more than the declared {}", self.most)));
        }
        self.highest = self.highest.max(height as u16);
        Ok(())
    }

    fn raw_pop(&mut self, point: &mut Point) -> Result<Kind, VerifyError> {
        // A handler finds what was there when its try was entered, so the try may not take any of that.
        if let Some(entered) = point.tries.last()
            && point.stack.len() <= self.height_in(*entered)
        {
            return Err(stack_error("an operand is missing: it is from before the try, whose handler needs it"));
        }
        point.stack.pop().ok_or_else(|| stack_error("an operand is missing"))
    }

    fn pop(&mut self, point: &mut Point) -> Result<Kind, VerifyError> {
        match self.raw_pop(point)? {
            Kind::Iterator => Err(stack_error("an iterator cannot leave its place")),
            kind => Ok(kind),
        }
    }

    fn need(&self, point: &Point, count: usize) -> Result<(), VerifyError> {
        let from = point.stack.len().checked_sub(count).ok_or_else(|| stack_error("an operand is missing"))?;
        let has_iterator = point.stack[from..].contains(&Kind::Iterator);
        if has_iterator { Err(stack_error("an iterator cannot leave its place")) } else { Ok(()) }
    }

    fn change(&mut self, point: &mut Point, pops: usize, kind: Kind) -> Result<(), VerifyError> {
        for _ in 0..pops {
            self.pop(point)?;
        }
        self.push(point, kind)
    }

    fn typed(&mut self, point: &mut Point, pops: usize, wanted: Kind) -> Result<(), VerifyError> {
        for _ in 0..pops {
            let found = self.pop(point)?;
            if found != wanted && found != Kind::Any {
                return Err(stack_error(format!("an operand is known to be {found:?} and must be {wanted:?}")));
            }
        }
        Ok(())
    }

    /// No argument of a call is known to be of another kind than its function takes.
    fn arguments(&self, point: &Point, word: &Word) -> Result<(), VerifyError> {
        let Some(callee) = self.module.functions.get(usize::from(word.b)) else { return Ok(()) };
        let count = usize::from(word.count);
        let from = point.stack.len().checked_sub(count).ok_or_else(|| stack_error("an operand is missing"))?;
        for (place, found) in point.stack[from..].iter().enumerate() {
            let wanted = Kind::of_param(callee, place);
            if *found != wanted && *found != Kind::Any && wanted != Kind::Any {
                let what =
                    format!("argument {place} of `{}` is known to be {found:?} and must be {wanted:?}", callee.name);
                return Err(stack_error(what));
            }
        }
        Ok(())
    }

    /// A pure function calls only pure ones. What it calls through a value the machine looks at.
    fn purity(&self, word: &Word) -> Result<(), VerifyError> {
        match self.module.functions.get(usize::from(word.b)) {
            Some(callee) if self.function.pure_ && !callee.pure_ => {
                Err(stack_error(format!("a function marked pure calls `{}`, which is not", callee.name)))
            }
            _ => Ok(()),
        }
    }

    fn effect(&mut self, point: &mut Point, pops: usize, kind: Kind) -> Result<(), VerifyError> {
        if self.function.pure_ {
            return Err(stack_error("an effect in a function marked pure"));
        }
        self.change(point, pops, kind)
    }
}

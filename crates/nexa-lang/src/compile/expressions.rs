//! Expressions as instructions: operands left to right, then the operation.

use nexa_types::limits::BRANCHES_MAX;
use nexa_vm::op::{ForkMode, MergeStrategy, Op};
use nexa_vm::value::Stage;

use super::builder::Builder;
use super::questions::Kind;
use crate::hir::{Asked, Const, Expr, ExprKind, Forked, MemoryUse, Operator, Rescue, Test};
use crate::types::Ty;

/// Ints that fit into an instruction.
const SMALL_MIN: i64 = -(1 << 23);
const SMALL_MAX: i64 = (1 << 23) - 1;

impl Builder<'_, '_> {
    /// Leaves the value of an expression on the stack.
    pub(super) fn expr(&mut self, expr: &Expr) {
        let height = self.height;
        self.at(expr.at);
        self.expr_here(expr);
        // Where nothing goes on, the code around still counts on one value.
        debug_assert!(!self.is_live || self.height == height + 1, "{expr:?}");
        self.height = height + 1;
    }

    fn all(&mut self, items: &[Expr]) {
        items.iter().for_each(|item| self.expr(item));
    }

    /// Operands, then an operation that takes them all and gives one value.
    fn simple(&mut self, whole: &Expr, operands: &[&Expr], op: Op, a: u32) {
        operands.iter().for_each(|operand| self.expr(operand));
        self.at(whole.at);
        self.emit(op, a, operands.len() as u32, 1);
    }

    // Each arm is a call or a few words: this frame is on the stack once a level.
    fn expr_here(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Const(constant) => self.constant(constant),
            ExprKind::Local(slot) => self.emit(Op::LoadLocal, u32::from(*slot), 0, 1),
            ExprKind::Capture(number) => self.emit(Op::LoadCapture, u32::from(*number), 0, 1),
            ExprKind::Concat(items) => self.many(expr, items, Op::Concat),
            ExprKind::List(items) => self.many(expr, items, Op::NewList),
            ExprKind::Tuple(items) => self.many(expr, items, Op::NewTuple),
            ExprKind::Chain(items) => self.many(expr, items, Op::Pipeline),
            ExprKind::Dict(entries) => {
                for (key, value) in entries {
                    self.expr(key);
                    self.expr(value);
                }
                self.emit(Op::NewDict, entries.len() as u32, 2 * entries.len() as u32, 1);
            }
            ExprKind::Record(shape, values) => {
                self.all(values);
                let is_case = !shape.tag.is_empty();
                let shape = self.pool.shape(shape);
                let op = if is_case { Op::Variant } else { Op::NewRecord };
                self.emit(op, shape, values.len() as u32, 1);
            }
            ExprKind::Field(record, name) => {
                let name = self.pool.str(name);
                self.simple(expr, &[record], Op::GetField, name);
            }
            ExprKind::SetField(record, name, value) => {
                let name = self.pool.str(name);
                self.simple(expr, &[record, value], Op::SetField, name);
            }
            ExprKind::Index(list, index) => self.simple(expr, &[list, index], Op::Index, 0),
            ExprKind::SetIndex(list, index, value) => self.simple(expr, &[list, index, value], Op::SetIndex, 0),
            ExprKind::Not(value) => self.simple(expr, &[value], Op::Not, 0),
            ExprKind::Neg(value) => {
                let op = match value.ty {
                    Ty::Int => Op::NegInt,
                    Ty::Float => Op::NegFloat,
                    _ => Op::Neg,
                };
                self.simple(expr, &[value], op, 0);
            }
            ExprKind::Binary(operator, left, right) => self.binary(expr, *operator, left, right),
            ExprKind::And(left, right) => self.shortcut(left, right, false),
            ExprKind::Or(left, right) => self.shortcut(left, right, true),
            ExprKind::Coalesce(value, other) => self.coalesce(value, other),
            ExprKind::If(condition, then, other) => self.choice(condition, then, other),
            ExprKind::Block(statements, value) => {
                self.statements(statements);
                self.expr(value);
            }
            ExprKind::Widen(value) => self.simple(expr, &[value], Op::IntToFloat, 0),
            ExprKind::Check(value) => {
                let ty = self.pool.ty(&expr.ty);
                self.simple(expr, &[value], Op::CheckType, ty);
            }
            ExprKind::Conditions(ty, asked, value) => {
                let ty = self.pool.ty(ty);
                self.emit(Op::Int, ty, 0, 1);
                self.emit(if *asked == Asked::Every { Op::True } else { Op::False }, 0, 0, 1);
                self.expr(value);
                self.at(expr.at);
                let number = nexa_vm::stdlib::lookup("core.conditions").map_or(u16::MAX, |function| function.number);
                self.emit_count(Op::CallStd, 3, number, 3, 1);
            }
            ExprKind::Is(test, value) => self.test(expr, test, value),
            ExprKind::ErrorOf(value) => self.standard(expr, "result.error", value),
            ExprKind::Unwrap(value) => self.simple(expr, &[value], Op::Unwrap, 0),
            ExprKind::WrapOk(value) => self.simple(expr, &[value], Op::WrapOk, 0),
            ExprKind::WrapErr(value) => self.simple(expr, &[value], Op::WrapErr, 0),
            ExprKind::Try(value) => self.attempt(value),
            ExprKind::Rescue(rescue) => self.rescue(rescue),
            ExprKind::Raise(error) => {
                self.expr(error);
                self.at(expr.at);
                self.emit(Op::Raise, 0, 1, 0);
            }
            ExprKind::IsTransient(error) => self.simple(expr, &[error], Op::IsTransient, 0),
            ExprKind::Unreachable => self.emit(Op::Trap, 0, 0, 0),
            _ => self.call_here(expr),
        }
    }

    /// Calls and effects.
    fn call_here(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Call(function, args) => match self.pool.apart.get(function) {
                Some(agent) => self.run(expr, *agent, args),
                None => {
                    self.all(args);
                    self.at(expr.at);
                    self.emit_count(Op::Call, args.len(), *function as u16, args.len() as u32, 1);
                }
            },
            ExprKind::CallApart(function, args) => match self.pool.apart.get(function) {
                Some(agent) => self.run(expr, *agent, args),
                None => {
                    self.emit_count(Op::Closure, 0, *function as u16, 0, 1);
                    self.all(args);
                    self.at(expr.at);
                    self.emit(Op::AgentRun, args.len() as u32, args.len() as u32 + 1, 1);
                }
            },
            ExprKind::Std(function, args) => {
                self.all(args);
                self.at(expr.at);
                self.emit_count(Op::CallStd, args.len(), *function, args.len() as u32, 1);
            }
            ExprKind::CallValue(callee, args) => {
                self.expr(callee);
                self.all(args);
                self.at(expr.at);
                self.emit(Op::CallValue, args.len() as u32, args.len() as u32 + 1, 1);
            }
            ExprKind::Agent(agent) => self.agent(*agent),
            ExprKind::Run(agent, args) => self.run(expr, *agent, args),
            ExprKind::Tool(tool, args) => {
                self.all(args);
                self.at(expr.at);
                let function = self.pool.tools_at + tool;
                self.emit_count(Op::Call, args.len(), function as u16, args.len() as u32, 1);
            }
            ExprKind::ToolValue(tool) => {
                let function = self.pool.tools_at + tool;
                self.emit_count(Op::Closure, 0, function as u16, 0, 1);
            }
            ExprKind::ToolCall(tool, args) => {
                self.all(args);
                self.at(expr.at);
                self.emit_count(Op::ToolCall, args.len(), *tool as u16, args.len() as u32, 1);
            }
            ExprKind::Closure(function, captures) => match self.pool.apart.get(function) {
                Some(agent) => self.emit(Op::AgentCreate, *agent, 0, 1),
                None => {
                    self.all(captures);
                    self.emit_count(Op::Closure, captures.len(), *function as u16, captures.len() as u32, 1);
                }
            },
            ExprKind::Partial(callee, args, open) => {
                self.expr(callee);
                self.all(args);
                let open = open.unwrap_or(Stage::NOTHING_OPEN);
                self.emit_count(Op::MakeStage, args.len(), open, args.len() as u32 + 1, 1);
            }
            ExprKind::Fork(fork) => {
                let operands = fork.input.iter().chain(&fork.branches).chain(&fork.timeout);
                operands.for_each(|operand| self.expr(operand));
                self.at(expr.at);
                let mode = ForkMode {
                    has_input: fork.input.is_some(),
                    has_timeout: fork.timeout.is_some(),
                    first_ok: if let Forked::First(wanted) = fork.gives { Some(wanted) } else { None },
                    is_detached: matches!(fork.gives, Forked::Nothing),
                };
                let branches = fork.branches.len();
                // The most branches are written as 0, see `Word::branches`.
                let count = if branches == BRANCHES_MAX { 0 } else { branches };
                self.emit_count(Op::Fork, count, mode.flags(), mode.operands(branches) as u32, 1);
                if let Forked::Record(names) = &fork.gives {
                    let shape = crate::hir::Shape { fields: names.clone(), ..crate::hir::Shape::default() };
                    let shape = self.pool.shape(&shape);
                    self.emit(Op::ListToRecord, shape, 1, 1);
                }
            }
            ExprKind::MergeAll(list) => {
                self.expr(list);
                self.emit_count(Op::Merge, 0, MergeStrategy::All as u16, 1, 1);
            }
            ExprKind::Merge(strategy, list, options) => {
                self.expr(list);
                self.all(options);
                self.at(expr.at);
                self.emit_count(Op::Merge, 0, *strategy as u16, options.len() as u32 + 1, 1);
            }
            ExprKind::MergeSections(names, list) => {
                self.expr(names);
                self.expr(list);
                self.emit_count(Op::Merge, 0, MergeStrategy::Sections as u16, 2, 1);
            }
            ExprKind::Model(request, model, messages, stream) => {
                let op = if *stream { Op::LLMStream } else { Op::LLMCall };
                self.simple(expr, &[model, messages], op, *request);
            }
            ExprKind::Ask(ask) => {
                let operands: Vec<&Expr> = [&ask.question, &ask.subject].into_iter().chain(&ask.labels).collect();
                operands.iter().for_each(|operand| self.expr(operand));
                self.at(expr.at);
                let has_model = !self.model.is_empty();
                if has_model {
                    let model = self.pool.str(&self.model);
                    self.emit(Op::Const, model, 0, 1);
                }
                let kind = Kind { asking: ask.asking, has_labels: ask.labels.is_some(), has_model };
                let function = self.pool.question(kind);
                let count = operands.len() + usize::from(has_model);
                self.emit_count(Op::Call, count, function as u16, count as u32, 1);
            }
            ExprKind::Question(asking, operands) => {
                let op = if operands.len() == 4 { Op::Classify } else { Op::SemanticIf };
                let operands: Vec<&Expr> = operands.iter().collect();
                self.simple(expr, &operands, op, *asking as u32);
            }
            ExprKind::Approve(question, data, timeout) => self.simple(expr, &[question, data, timeout], Op::Approve, 0),
            ExprKind::Sleep(span) => self.simple(expr, &[span], Op::Sleep, 0),
            ExprKind::Emit(value, channel) => self.simple(expr, &[value, channel], Op::Emit, 0),
            ExprKind::Now => self.emit(Op::Now, 0, 0, 1),
            ExprKind::Random(low, high) => self.simple(expr, &[low, high], Op::Random, 0),
            ExprKind::Log(value) => self.simple(expr, &[value], Op::Log, 0),
            ExprKind::Secret(name) => {
                let name = self.pool.str(name);
                self.simple(expr, &[], Op::Secret, name);
            }
            ExprKind::Snapshot => self.simple(expr, &[], Op::Snapshot, 0),
            ExprKind::Restore(handle) => {
                self.expr(handle);
                self.at(expr.at);
                self.emit(Op::Restore, 0, 1, 0);
            }
            ExprKind::Tries(handle) => self.simple(expr, &[handle], Op::Tries, 0),
            ExprKind::Memory(usage, scope, operands) => {
                self.all(operands);
                self.at(expr.at);
                let op = match usage {
                    MemoryUse::Store => Op::MemStore,
                    MemoryUse::Load => Op::MemLoad,
                    MemoryUse::Recall => Op::MemRecall,
                };
                self.emit(op, *scope as u32, operands.len() as u32, 1);
            }
            ExprKind::TestCall(call, args) => {
                self.all(args);
                self.at(expr.at);
                self.emit_count(Op::TestCall, args.len(), *call as u16, args.len() as u32, 1);
            }
            _ => self.handle_here(expr),
        }
    }

    /// A child runs, and the call waits for it.
    fn run(&mut self, whole: &Expr, agent: u32, args: &[Expr]) {
        self.agent(agent);
        self.all(args);
        self.at(whole.at);
        self.emit(Op::AgentRun, args.len() as u32, args.len() as u32 + 1, 1);
    }

    /// An agent; a clone is made of the agent that it is a clone of.
    fn agent(&mut self, agent: u32) {
        match self.pool.clones.get(agent as usize).copied().flatten() {
            None => self.emit(Op::AgentCreate, agent, 0, 1),
            Some(base) => {
                self.emit(Op::AgentCreate, base, 0, 1);
                self.emit(Op::AgentClone, agent, 1, 1);
            }
        }
    }

    /// What makes handles and what they are good for.
    fn handle_here(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Spawn(callee, args) => {
                self.expr(callee);
                self.all(args);
                self.at(expr.at);
                self.emit(Op::Spawn, args.len() as u32, args.len() as u32 + 1, 1);
            }
            ExprKind::Await(handle) => self.simple(expr, &[handle], Op::Await, 0),
            ExprKind::Pass(value, handle) => self.simple(expr, &[value, handle], Op::Send, 0),
            ExprKind::Receive(timeout) => self.simple(expr, &[timeout], Op::Receive, 0),
            ExprKind::Cancel(handle) => self.simple(expr, &[handle], Op::Cancel, 0),
            ExprKind::Timer(span) => self.simple(expr, &[span], Op::Timer, 0),
            ExprKind::NextSeq => self.emit(Op::NextSeq, 0, 0, 1),
            ExprKind::Release(from) => self.simple(expr, &[from], Op::Release, 0),
            // Everything else was written above.
            _ => self.emit(Op::Trap, 0, 0, 0),
        }
    }

    fn many(&mut self, whole: &Expr, items: &[Expr], op: Op) {
        self.all(items);
        self.at(whole.at);
        self.emit(op, items.len() as u32, items.len() as u32, 1);
    }

    fn constant(&mut self, constant: &Const) {
        match constant {
            Const::Unit => self.emit(Op::Unit, 0, 0, 1),
            Const::None => self.emit(Op::NoneValue, 0, 0, 1),
            Const::Bool(true) => self.emit(Op::True, 0, 0, 1),
            Const::Bool(false) => self.emit(Op::False, 0, 0, 1),
            Const::Int(int) if (SMALL_MIN..=SMALL_MAX).contains(int) => {
                self.emit(Op::Int, *int as u32 & 0x00FF_FFFF, 0, 1)
            }
            Const::Int(int) => {
                let number = self.pool.int(*int);
                self.emit(Op::Const, number, 0, 1);
            }
            Const::Float(float) => {
                let number = self.pool.float(*float);
                self.emit(Op::Const, number, 0, 1);
            }
            Const::Duration(millis) => {
                let number = self.pool.duration(*millis);
                self.emit(Op::Const, number, 0, 1);
            }
            Const::Str(text) => {
                let number = self.pool.str(text);
                self.emit(Op::Const, number, 0, 1);
            }
        }
    }

    /// An operator, by its typed instruction where both operands are known to be of one kind.
    fn binary(&mut self, whole: &Expr, operator: Operator, left: &Expr, right: &Expr) {
        let kind = match (&left.ty, &right.ty) {
            (Ty::Int, Ty::Int) => Some(true),
            (Ty::Float, Ty::Float) => Some(false),
            _ => None,
        };
        let pick = |int: Op, float: Op, any: Op| match kind {
            Some(true) => int,
            Some(false) => float,
            None => any,
        };
        // `a > b` is `b < a` for typed ones, which have no instruction of their own.
        let (is_swapped, op) = match operator {
            Operator::Add => (false, pick(Op::AddInt, Op::AddFloat, Op::Add)),
            Operator::Sub => (false, pick(Op::SubInt, Op::SubFloat, Op::Sub)),
            Operator::Mul => (false, pick(Op::MulInt, Op::MulFloat, Op::Mul)),
            Operator::Div => (false, pick(Op::DivInt, Op::DivFloat, Op::Div)),
            Operator::Rem => (false, pick(Op::RemInt, Op::RemFloat, Op::Rem)),
            Operator::Eq => (false, pick(Op::EqInt, Op::EqFloat, Op::Eq)),
            Operator::Ne => (false, pick(Op::EqInt, Op::EqFloat, Op::Ne)),
            Operator::Lt => (false, pick(Op::LtInt, Op::LtFloat, Op::Lt)),
            Operator::Le => (false, pick(Op::LeInt, Op::LeFloat, Op::Le)),
            Operator::Gt => (kind.is_some(), pick(Op::LtInt, Op::LtFloat, Op::Gt)),
            Operator::Ge => (kind.is_some(), pick(Op::LeInt, Op::LeFloat, Op::Ge)),
            Operator::In => (false, Op::In),
        };
        let is_quiet = |operand: &Expr| operand.is_inert() || matches!(operand.kind, ExprKind::Local(_));
        if is_swapped && is_quiet(left) && is_quiet(right) {
            self.expr(right);
            self.expr(left);
        } else {
            self.expr(left);
            self.expr(right);
            if is_swapped {
                self.emit(Op::Swap, 0, 2, 2);
            }
        }
        self.at(whole.at);
        self.emit(op, 0, 2, 1);
        if operator == Operator::Ne && op != Op::Ne {
            self.emit(Op::Not, 0, 1, 1);
        }
    }

    fn shortcut(&mut self, left: &Expr, right: &Expr, when: bool) {
        let (cut, end) = (self.label(), self.label());
        if when {
            self.jump_if(left, cut);
        } else {
            self.jump_unless(left, cut);
        }
        self.expr(right);
        self.jump(Op::Jump, end, 0, 0, 0);
        self.height -= 1;
        self.bind(cut);
        self.emit(if when { Op::True } else { Op::False }, 0, 0, 1);
        self.bind(end);
    }

    fn coalesce(&mut self, value: &Expr, other: &Expr) {
        let end = self.label();
        self.expr(value);
        self.jump(Op::JumpIfSome, end, 1, 0, 0);
        self.expr(other);
        self.bind(end);
    }

    fn choice(&mut self, condition: &Expr, then: &Expr, other: &Expr) {
        let (no, end) = (self.label(), self.label());
        let height = self.height;
        self.jump_unless(condition, no);
        self.expr(then);
        self.jump(Op::Jump, end, 0, 0, 0);
        self.height = height;
        self.bind(no);
        self.expr(other);
        self.bind(end);
        self.height = height + 1;
    }

    fn test(&mut self, whole: &Expr, test: &Test, value: &Expr) {
        match test {
            Test::Variant(shape) => {
                self.expr(value);
                let shape = self.pool.shape(shape);
                self.emit(Op::TestVariant, shape, 1, 2);
                self.emit(Op::Swap, 0, 2, 2);
                self.emit(Op::Pop, 0, 1, 0);
            }
            Test::Of(ty) => {
                let ty = self.pool.ty(ty);
                self.emit(Op::Int, ty, 0, 1);
                self.expr(value);
                self.at(whole.at);
                let number = nexa_vm::stdlib::lookup("core.is_of").map_or(u16::MAX, |function| function.number);
                self.emit_count(Op::CallStd, 2, number, 2, 1);
            }
            Test::None => self.standard(whole, "option.is_none", value),
            Test::Ok => self.standard(whole, "result.is_ok", value),
            Test::Err => self.standard(whole, "result.is_err", value),
        }
    }

    /// A standard function of one argument.
    fn standard(&mut self, whole: &Expr, name: &str, value: &Expr) {
        self.expr(value);
        self.at(whole.at);
        let number = nexa_vm::stdlib::lookup(name).map_or(u16::MAX, |function| function.number);
        self.emit_count(Op::CallStd, 1, number, 1, 1);
    }

    fn attempt(&mut self, value: &Expr) {
        let (caught, end) = (self.label(), self.label());
        self.jump(Op::EnterTry, caught, 0, 0, 1);
        self.tries += 1;
        self.expr(value);
        self.tries -= 1;
        self.emit(Op::LeaveTry, 0, 0, 0);
        self.emit(Op::WrapOk, 0, 1, 1);
        self.jump(Op::Jump, end, 0, 0, 0);
        self.bind(caught);
        self.emit(Op::WrapErr, 0, 1, 1);
        self.bind(end);
    }

    fn rescue(&mut self, rescue: &Rescue) {
        let (caught, end) = (self.label(), self.label());
        let error = u32::from(rescue.error);
        self.jump(Op::EnterTry, caught, 0, 0, 1);
        self.tries += 1;
        self.expr(&rescue.value);
        self.tries -= 1;
        self.emit(Op::LeaveTry, 0, 0, 0);
        self.jump(Op::Jump, end, 0, 0, 0);
        self.bind(caught);
        self.emit(Op::StoreLocal, error, 1, 0);
        if rescue.only_worth_a_fallback {
            let worth = self.label();
            self.emit(Op::LoadLocal, error, 0, 1);
            self.emit(Op::IsFallback, 0, 1, 1);
            self.jump(Op::JumpIf, worth, 1, 0, -1);
            self.emit(Op::LoadLocal, error, 0, 1);
            self.emit(Op::Raise, 0, 1, 0);
            self.bind(worth);
        }
        self.expr(&rescue.substitute);
        self.bind(end);
    }
}

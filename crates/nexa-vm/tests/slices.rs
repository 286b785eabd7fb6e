//! Generated programs give the same effects and the same end in one long run and in slices of one safepoint with a
//! snapshot and restore at each.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::sync::Arc;

use common::{Restore, end, run};
use nexa_vm::Program;
use nexa_vm::module::Constant;
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::op::{ForkMode, MergeStrategy, Op};
use proptest::prelude::*;

const LOCALS: u8 = 4;

/// An expression that leaves one value.
#[derive(Debug, Clone)]
enum Expression {
    Int(i64),
    Text(&'static str),
    Local(u8),
    /// Two operands and a dynamic operation, which often does not fit them and raises.
    Two(Op, Box<Expression>, Box<Expression>),
    List(Vec<Expression>),
    First(Box<Expression>),
    Concat(Box<Expression>, Box<Expression>),
    Ok(Box<Expression>),
    Call(Box<Expression>),
    Captured(Box<Expression>, Box<Expression>),
    Now,
    Emit(Box<Expression>),
    Fork(Box<Expression>),
    FirstOk(Box<Expression>, u16),
    /// Merges what a fork gives, or anything else, by a strategy with options that often do not suit it.
    Merge(MergeStrategy, Box<Expression>, Box<Expression>),
}

/// A statement that leaves the stack as it was.
#[derive(Debug, Clone)]
enum Statement {
    Set(u8, Expression),
    /// Runs its body so many times.
    Repeat(u8, Vec<Statement>),
    /// Runs its body for each element; a value that cannot be iterated over raises.
    Each(Expression, Vec<Statement>),
    /// An error in the body goes to local 0.
    Try(Vec<Statement>),
}

fn expression() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        (-3i64..5).prop_map(Expression::Int),
        prop_oneof![Just("a"), Just(""), Just("día")].prop_map(Expression::Text),
        (0..LOCALS).prop_map(Expression::Local),
        Just(Expression::Now),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let op = prop_oneof![
            Just(Op::Add),
            Just(Op::Sub),
            Just(Op::Mul),
            Just(Op::Div),
            Just(Op::Eq),
            Just(Op::Lt),
            Just(Op::In),
            Just(Op::AddInt),
            Just(Op::LtInt)
        ];
        prop_oneof![
            (op, boxed.clone(), boxed.clone()).prop_map(|(op, x, y)| Expression::Two(op, x, y)),
            proptest::collection::vec(inner, 0..3).prop_map(Expression::List),
            boxed.clone().prop_map(Expression::First),
            (boxed.clone(), boxed.clone()).prop_map(|(x, y)| Expression::Concat(x, y)),
            boxed.clone().prop_map(Expression::Ok),
            boxed.clone().prop_map(Expression::Call),
            (boxed.clone(), boxed.clone()).prop_map(|(x, y)| Expression::Captured(x, y)),
            boxed.clone().prop_map(Expression::Emit),
            boxed.clone().prop_map(Expression::Fork),
            (boxed.clone(), 1..3u16).prop_map(|(input, wanted)| Expression::FirstOk(input, wanted)),
            (0u16..7, boxed.clone(), boxed).prop_map(|(number, results, option)| {
                let strategy = MergeStrategy::from_number(number).expect("a strategy's number");
                Expression::Merge(strategy, results, option)
            }),
        ]
    })
}

fn statements() -> impl Strategy<Value = Vec<Statement>> {
    let set = (0..LOCALS, expression()).prop_map(|(local, value)| Statement::Set(local, value));
    let statement = set.prop_recursive(3, 16, 4, |inner| {
        let body = proptest::collection::vec(inner, 1..4);
        prop_oneof![
            (0u8..4, body.clone()).prop_map(|(times, body)| Statement::Repeat(times, body)),
            (expression(), body.clone()).prop_map(|(over, body)| Statement::Each(over, body)),
            body.prop_map(Statement::Try),
        ]
    });
    proptest::collection::vec(statement, 1..6)
}

struct Writer {
    module: ModuleBuilder,
    twice: u16,
    captured: u16,
}

impl Writer {
    fn value(&mut self, code: &mut Assembler, expression: &Expression) {
        match expression {
            Expression::Int(number) => {
                code.int(*number);
            }
            Expression::Text(text) => {
                code.a(Op::Const, self.module.text(text));
            }
            Expression::Local(local) => {
                code.a(Op::LoadLocal, u32::from(*local));
            }
            Expression::Two(op, x, y) => {
                self.value(code, x);
                self.value(code, y);
                if matches!(op, Op::AddInt | Op::LtInt) {
                    // Through locals, so that nothing is known of the kinds and the machine has to look.
                    let (a, b) = (code.local(), code.local());
                    code.a(Op::StoreLocal, b).a(Op::StoreLocal, a);
                    code.a(Op::LoadLocal, a).ab(Op::Call, 1, self.twice).a(Op::LoadLocal, b).ab(
                        Op::Call,
                        1,
                        self.twice,
                    );
                }
                code.op(*op);
            }
            Expression::List(values) => {
                values.iter().for_each(|value| self.value(code, value));
                code.a(Op::NewList, values.len() as u32);
            }
            Expression::First(list) => {
                self.value(code, list);
                code.int(0).op(Op::Index);
            }
            Expression::Concat(x, y) => {
                self.value(code, x);
                self.value(code, y);
                code.a(Op::Concat, 2);
            }
            Expression::Ok(inner) => {
                self.value(code, inner);
                code.op(Op::WrapOk);
            }
            Expression::Call(argument) => {
                self.value(code, argument);
                code.ab(Op::Call, 1, self.twice);
            }
            Expression::Captured(capture, argument) => {
                self.value(code, capture);
                code.ab(Op::Closure, 1, self.captured);
                self.value(code, argument);
                code.a(Op::CallValue, 1);
            }
            Expression::Now => {
                code.op(Op::Now);
            }
            Expression::Emit(value) => {
                self.value(code, value);
                code.op(Op::NoneValue).op(Op::Emit);
            }
            Expression::Merge(strategy, results, option) => {
                self.value(code, results);
                // The same value, of which the verifier knows nothing: it refuses what is known to be no list.
                code.op(Op::Dup).std("option.unwrap_or", 2);
                match strategy {
                    MergeStrategy::All => {}
                    MergeStrategy::Sections => {
                        self.value(code, option);
                        code.op(Op::Swap);
                    }
                    MergeStrategy::AtLeast | MergeStrategy::Vote | MergeStrategy::VoteWithoutTie => {
                        code.int(1);
                    }
                    MergeStrategy::Concat | MergeStrategy::WeightedAverage => {
                        self.value(code, option);
                        code.int(2);
                    }
                }
                code.ab(Op::Merge, 0, *strategy as u16);
            }
            Expression::Fork(input) => {
                self.value(code, input);
                code.ab(Op::Closure, 0, self.twice).int(1).ab(Op::Closure, 1, self.captured).ab(Op::Fork, 2, 1);
            }
            Expression::FirstOk(input, wanted) => {
                self.value(code, input);
                code.ab(Op::Closure, 0, self.twice).int(1).ab(Op::Closure, 1, self.captured);
                let mode = ForkMode { has_input: true, has_timeout: true, first_ok: Some(*wanted), is_detached: false };
                let timeout = self.module.constant(Constant::Duration(5));
                code.a(Op::Const, timeout).ab(Op::Fork, 2, mode.flags());
            }
        }
    }

    fn statements(&mut self, code: &mut Assembler, statements: &[Statement]) {
        for statement in statements {
            match statement {
                Statement::Set(local, value) => {
                    self.value(code, value);
                    code.a(Op::StoreLocal, u32::from(*local));
                }
                Statement::Repeat(times, body) => {
                    let (counter, end) = (code.local(), code.label());
                    code.int(0).a(Op::StoreLocal, counter);
                    let start = code.loop_start();
                    code.a(Op::LoadLocal, counter).int(i64::from(*times)).op(Op::LtInt).jump(Op::JumpIfNot, end);
                    self.statements(code, body);
                    code.ab(Op::IncLocal, counter as u8, 1).jump(Op::Jump, start).place(end);
                }
                Statement::Each(over, body) => {
                    self.value(code, over);
                    let end = code.label();
                    code.op(Op::IterNew);
                    let start = code.loop_start();
                    code.jump(Op::IterNext, end).a(Op::StoreLocal, 1);
                    self.statements(code, body);
                    code.jump(Op::Jump, start).place(end);
                }
                Statement::Try(body) => {
                    let (caught, end) = (code.label(), code.label());
                    code.jump(Op::EnterTry, caught);
                    self.statements(code, body);
                    code.op(Op::LeaveTry).jump(Op::Jump, end).place(caught).a(Op::StoreLocal, 0).place(end).op(Op::Nop);
                }
            }
        }
    }
}

fn program(statements: &[Statement]) -> (Arc<Program>, u32) {
    let mut module = ModuleBuilder::new();
    module.module.debug.files.push("p.nx".to_owned());
    let mut twice = Assembler::new("twice", 1);
    twice.a(Op::LoadLocal, 0).a(Op::LoadLocal, 0).op(Op::Add).op(Op::Return);
    let twice = module.add(twice);
    let mut captured = Assembler::new("captured", 1).captures(1);
    captured.a(Op::LoadLocal, 0).a(Op::LoadCapture, 0).a(Op::NewTuple, 2).op(Op::Return);
    let captured = module.add(captured);
    let mut writer = Writer { module, twice, captured };
    let mut code = Assembler::new("main", 0);
    for local in 0..LOCALS {
        let slot = code.local();
        code.int(i64::from(local)).a(Op::StoreLocal, slot);
    }
    writer.statements(&mut code, statements);
    for local in 0..LOCALS {
        code.a(Op::LoadLocal, u32::from(local));
    }
    code.a(Op::NewList, u32::from(LOCALS)).op(Op::Return);
    let main = writer.module.add(code);
    let module = writer.module.finish().unwrap();
    assert_eq!(nexa_vm::module::Module::decode(&module.encode()).as_ref(), Ok(&module));
    (Arc::new(Program::new(module).unwrap()), u32::from(main))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slices_and_restores_cannot_be_seen(statements in statements()) {
        let (program, main) = program(&statements);
        let whole = run(&program, main, vec![], u64::MAX, Restore::Never);
        let sliced = run(&program, main, vec![], 1, Restore::AtEverySafepoint);
        prop_assert_eq!(end(&whole), end(&sliced));
        prop_assert_eq!(whole, sliced);
    }
}

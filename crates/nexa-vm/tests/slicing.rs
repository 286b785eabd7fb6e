//! Fuel bounds the time of a slice: what works on many bytes or values uses up as much of it.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::sync::Arc;

use common::{list, text};
use nexa_event::effect::Answer;
use nexa_types::limits::SLICE_FUEL;
use nexa_types::{Outcome, RunCode, Seq};
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::op::{MemoryScope, Op};
use nexa_vm::value::{Dict, Key, Value};
use nexa_vm::{Limits, Program, Stop, Vm, codec, json};

const ROUNDS: u32 = 6;

/// A program that does something with its arguments so many times, in a loop.
fn program(args: usize, operation: impl FnOnce(&mut Assembler)) -> Arc<Program> {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("main", args as u8);
    let round = code.local();
    code.int(0).a(Op::StoreLocal, round);
    let end = code.label();
    let start = code.loop_start();
    code.a(Op::LoadLocal, round).int(i64::from(ROUNDS)).op(Op::LtInt).jump(Op::JumpIfNot, end);
    for local in 0..args {
        code.a(Op::LoadLocal, local as u32);
    }
    operation(&mut code);
    code.op(Op::Pop).ab(Op::IncLocal, round as u8, 1).jump(Op::Jump, start);
    code.place(end).a(Op::LoadLocal, round).op(Op::Return);
    module.add(code);
    Arc::new(Program::new(module.finish().unwrap()).unwrap())
}

/// How often its fuel was used up before it ended, and with what it ended.
fn slices(program: &Arc<Program>, args: Vec<Value>, fuel: u64) -> (u32, Outcome) {
    let mut vm = Vm::start(Arc::clone(program), 0, args, Limits { heap: 64 << 20 }).unwrap();
    let mut slices = 0;
    let mut left = fuel;
    loop {
        match vm.run(left) {
            Stop::OutOfFuel => {
                slices += 1;
                left = fuel;
            }
            Stop::Effect(request) => {
                vm.resume(request.seq, Ok(Answer::Done)).unwrap();
                left = vm.fuel_left();
                if left == 0 {
                    slices += 1;
                    left = fuel;
                }
            }
            Stop::Ended(outcome) => return (slices, outcome),
        }
    }
}

type Operation = (&'static str, Vec<Value>, Box<dyn FnOnce(&mut Assembler)>);

fn calls(name: &'static str, args: Vec<Value>) -> Operation {
    let count = args.len() as u8;
    let operation = move |code: &mut Assembler| {
        code.std(name, count);
    };
    (name, args, Box::new(operation))
}

fn does(name: &'static str, args: Vec<Value>, operation: impl FnOnce(&mut Assembler) + 'static) -> Operation {
    (name, args, Box::new(operation))
}

/// Each of these works on more than a slice has fuel for.
fn large() -> Vec<Operation> {
    let long = text(&"ab cd ".repeat(160_000));
    let other = text(&"ab cd ".repeat(160_000));
    let ints = list((0..30_000).map(Value::Int));
    let texts = list((0..15_000).map(|number| text(&format!("number {number}"))));
    let dict: Dict = (0..8_000).map(|number| (Key::Int(number), Value::Int(number))).collect();
    let dict = Value::Dict(Arc::new(dict));
    let tree = list((0..15_000).map(|number| list([Value::Int(number)])));
    let same = list((0..15_000).map(|number| list([Value::Int(number)])));
    let json = text(&json::to_json(&list((0..120_000).map(Value::Int))));
    vec![
        calls("text.len", vec![long.clone()]),
        calls("text.words", vec![long.clone()]),
        calls("text.upper", vec![long.clone()]),
        calls("text.contains", vec![long.clone(), text("x")]),
        calls("text.slice", vec![long.clone(), Value::Int(300_000), Value::Int(300_001)]),
        calls("hash.sha256", vec![long.clone()]),
        calls("regex.all", vec![text("d a"), long.clone()]),
        calls("json.parse", vec![json]),
        calls("json.text", vec![list((0..120_000).map(Value::Int))]),
        calls("list.sort", vec![ints.clone()]),
        calls("list.unique", vec![texts.clone()]),
        calls("list.contains", vec![texts.clone(), Value::Int(1)]),
        calls("list.sum", vec![ints.clone()]),
        calls("list.reverse", vec![ints.clone()]),
        calls("list.push", vec![ints.clone(), Value::Int(1)]),
        calls("dict.set", vec![dict.clone(), Value::Int(1), Value::Unit]),
        calls("dict.items", vec![dict]),
        does("equal texts", vec![long.clone(), other.clone()], |code| {
            code.op(Op::Eq);
        }),
        does("equal lists", vec![tree.clone(), same], |code| {
            code.op(Op::Eq);
        }),
        does("less", vec![long.clone(), other], |code| {
            code.op(Op::Lt);
        }),
        does("in a list", vec![Value::Int(-1), ints.clone()], |code| {
            code.op(Op::In);
        }),
        does("in a text", vec![text("x"), long.clone()], |code| {
            code.op(Op::In);
        }),
        does("index of a text", vec![long.clone(), Value::Int(300_000)], |code| {
            code.op(Op::Index);
        }),
        does("concat", vec![long.clone(), text("x")], |code| {
            code.a(Op::Concat, 2);
        }),
        does("join of lists", vec![ints.clone(), ints.clone()], |code| {
            code.op(Op::Add);
        }),
        does("set in a list", vec![ints, Value::Int(0), Value::Int(1)], |code| {
            code.op(Op::SetIndex);
        }),
        does("store", vec![text("key"), tree.clone()], |code| {
            code.a(Op::MemStore, MemoryScope::Agent as u32);
        }),
        does("emit", vec![long], |code| {
            code.op(Op::NoneValue).op(Op::Emit);
        }),
    ]
}

#[test]
fn an_instruction_that_works_on_more_than_a_slice_ends_it() {
    for (name, args, operation) in large() {
        let program = program(args.len(), operation);
        let (count, outcome) = slices(&program, args, SLICE_FUEL);
        assert_eq!(outcome, Outcome::Ok(codec::encode(&Value::Int(i64::from(ROUNDS)))), "{name}");
        assert!((ROUNDS - 1..=2 * ROUNDS).contains(&count), "{name}: {ROUNDS} rounds took {count} slices");
    }
}

#[test]
fn on_small_values_the_same_instructions_share_a_slice() {
    let short = text("ab cd");
    for operation in [calls("text.words", vec![short.clone()]), calls("json.text", vec![short])] {
        let (name, args, operation) = operation;
        let (count, _) = slices(&program(args.len(), operation), args, SLICE_FUEL);
        assert_eq!(count, 0, "{name}");
    }
}

/// What costs more in fuel costs no more than slices: with as much as it needs it says the same.
#[test]
fn results_do_not_depend_on_what_a_slice_has() {
    for (name, args, operation) in large() {
        let program = program(args.len(), operation);
        let (none, outcome) = slices(&program, args.clone(), u64::MAX >> 1);
        assert_eq!((none, &outcome), (0, &slices(&program, args, 1).1), "{name}");
    }
}

/// The answer to an effect is decoded before the slice that gets it.
#[test]
fn a_large_answer_is_paid_from_the_slice_that_gets_it() {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("main", 0);
    code.op(Op::NoneValue).op(Op::Receive).op(Op::Pop).op(Op::Now).op(Op::Return);
    module.add(code);
    let program = Arc::new(Program::new(module.finish().unwrap()).unwrap());
    let mut vm = Vm::start(program, 0, Vec::new(), Limits::default()).unwrap();
    assert!(matches!(vm.run(SLICE_FUEL), Stop::Effect(_)));
    assert!(vm.fuel_left() > SLICE_FUEL / 2);
    let large = codec::encode(&text(&"x".repeat(1 << 20)));
    vm.resume(Seq(1), Ok(Answer::Message(large))).unwrap();
    assert!(matches!(vm.run(SLICE_FUEL), Stop::Effect(_)));
    assert_eq!(vm.fuel_left(), 0);
}

/// A list can hold a long text many times over, so what looks at every element has a bound of its own.
#[test]
fn many_long_texts_alike_are_refused_and_not_compared_for_hours() {
    let pair = ["x".repeat(1 << 20), "x".repeat(1 << 20)].map(|long| text(&long));
    let texts = list((0..100_000).map(|number| pair[number % 2].clone()));
    for name in ["list.sort", "list.unique"] {
        let (name, args, operation) = calls(name, vec![texts.clone()]);
        let (_, outcome) = slices(&program(args.len(), operation), args, SLICE_FUEL);
        let Outcome::Err(failure) = outcome else { panic!("{name} came to an end") };
        assert_eq!(failure.code, RunCode::OutOfMemory, "{name}");
    }
    let (_, args, operation) = calls("list.contains", vec![list((0..100_000).map(|_| pair[0].clone())), text("y")]);
    let (_, outcome) = slices(&program(args.len(), operation), args, SLICE_FUEL);
    assert!(matches!(outcome, Outcome::Ok(_)), "texts of other lengths are told apart at once");
}

//! How fast the machine is: `cargo run --release -p nexa-vm --example vm_speed`.
//!
//! Every figure is the median of several runs on one core. The floor beside the loop is the same loop in Rust with
//! checked arithmetic, so that a slow machine shows.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use nexa_types::Outcome;
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::op::Op;
use nexa_vm::value::Value;
use nexa_vm::{Limits, Program, Stop, Vm, codec};

const ITERATIONS: i64 = 3_000_000;
const RUNS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let program = Arc::new(program()?);
    let loop_ns = median(|| run(&program, 0, vec![Value::Int(ITERATIONS)])) / ITERATIONS as f64;
    let floor_ns = median(|| floor(black_box(ITERATIONS))) / ITERATIONS as f64;
    println!("integer loop of five operations: {loop_ns:.1} ns an iteration (the same in Rust: {floor_ns:.1} ns)");
    println!("fib(27): {:.1} ms", median(|| run(&program, 1, vec![Value::Int(27)])) / 1e6);

    let mut vm = Vm::start(Arc::clone(&program), 2, vec![payload()], Limits::default())?;
    assert!(matches!(vm.run(10_000), Stop::Effect(_)), "it waits for an effect");
    let bytes = vm.snapshot();
    println!("snapshot of {} KiB: {:.1} µs", bytes.len() >> 10, median(|| black_box(vm.snapshot()).len()) / 1e3);
    let restore = || Vm::restore(Arc::clone(&program), black_box(&bytes)).map(|vm| vm.next_seq());
    println!("restore: {:.1} µs", median(restore) / 1e3);
    Ok(())
}

/// The median time of [`RUNS`] calls, in nanoseconds.
fn median<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_nanos() as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn run(program: &Arc<Program>, function: u32, args: Vec<Value>) -> Option<Value> {
    let mut vm = Vm::start(Arc::clone(program), function, args, Limits::default()).ok()?;
    loop {
        match vm.run(10_000) {
            Stop::Ended(Outcome::Ok(payload)) => return codec::decode(&payload).ok(),
            Stop::OutOfFuel => {}
            Stop::Ended(Outcome::Err(_)) | Stop::Effect(_) => return None,
        }
    }
}

fn floor(iterations: i64) -> Option<i64> {
    let (mut sum, mut index) = (0i64, 0i64);
    while index < iterations {
        sum = black_box(sum.checked_add(index.checked_mul(3)?.checked_rem(7)?)?.checked_sub(1)?);
        index = index.checked_add(1)?;
    }
    Some(sum)
}

/// About 64 KiB of what agents hold: records with texts and numbers.
fn payload() -> Value {
    let line = |index: i64| {
        let text = format!("line {index}: the quick brown fox jumps over the lazy dog");
        Value::Tuple(Arc::new(vec![Value::Int(index), Value::Str(text.as_str().into()), Value::None]))
    };
    Value::List(Arc::new((0..950).map(line).collect()))
}

fn program() -> Result<Program, Box<dyn std::error::Error>> {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("loop", 1);
    let (sum, index) = (code.local(), code.local());
    code.int(0).a(Op::StoreLocal, sum).int(0).a(Op::StoreLocal, index);
    let end = code.label();
    let start = code.loop_start();
    code.a(Op::LoadLocal, index).a(Op::LoadLocal, 0).op(Op::LtInt).jump(Op::JumpIfNot, end);
    code.a(Op::LoadLocal, sum).a(Op::LoadLocal, index).int(3).op(Op::MulInt).int(7).op(Op::RemInt);
    code.op(Op::AddInt).int(1).op(Op::SubInt).a(Op::StoreLocal, sum);
    code.ab(Op::IncLocal, index as u8, 1).jump(Op::Jump, start);
    code.place(end).a(Op::LoadLocal, sum).op(Op::Return);
    module.add(code);

    let fib = module.declare("fib", 1);
    let mut code = Assembler::new("fib", 1);
    let deeper = code.label();
    code.a(Op::LoadLocal, 0).int(2).op(Op::LtInt).jump(Op::JumpIfNot, deeper);
    code.a(Op::LoadLocal, 0).op(Op::Return).place(deeper);
    code.a(Op::LoadLocal, 0).int(1).op(Op::SubInt).ab(Op::Call, 1, fib);
    code.a(Op::LoadLocal, 0).int(2).op(Op::SubInt).ab(Op::Call, 1, fib);
    code.op(Op::AddInt).op(Op::Return);
    module.define(fib, code);

    let mut code = Assembler::new("waits", 1);
    code.op(Op::Now).op(Op::Return);
    module.add(code);
    Ok(Program::new(module.finish()?)?)
}

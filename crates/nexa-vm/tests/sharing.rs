//! What machines hold: what was sent to many is there once, and one that waits takes little.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::sync::Arc;

use allocation_counter::measure;
use nexa_event::effect::{Answer, EffectBody, EffectRequest};
use nexa_types::{Outcome, RunCode};
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::op::Op;
use nexa_vm::value::Value;
use nexa_vm::{Limits, Program, Stop, Vm, codec};

const MIB: u64 = 1 << 20;
const BRANCHES: usize = 256;

/// `parent(input)` forks 256 times `child(input)`, which waits for the time and then gives its input back.
fn program() -> Arc<Program> {
    let mut module = ModuleBuilder::new();
    let mut child = Assembler::new("child", 1);
    child.op(Op::Now).op(Op::Pop).a(Op::LoadLocal, 0).op(Op::Return);
    let child = module.add(child);
    let mut parent = Assembler::new("parent", 1);
    parent.a(Op::LoadLocal, 0);
    for _ in 0..BRANCHES {
        parent.ab(Op::Closure, 0, child);
    }
    parent.ab(Op::Fork, 0, 1).op(Op::Return);
    module.add(parent);
    Arc::new(Program::new(module.finish().unwrap()).unwrap())
}

fn forked(program: &Arc<Program>, input: Value) -> (Vm, EffectRequest) {
    let mut vm = Vm::start(Arc::clone(program), 1, vec![input], Limits { heap: 8 * MIB }).unwrap();
    match vm.run(10_000) {
        Stop::Effect(request) => (vm, request),
        stop => panic!("{stop:?}"),
    }
}

fn children(program: &Arc<Program>, request: &EffectRequest, limits: Limits) -> Vec<Vm> {
    let EffectBody::Children { branches, .. } = &request.body else { panic!("no children") };
    let start = |args: &nexa_types::Payload, entry| {
        let Ok(Value::List(args)) = codec::decode(args) else { panic!("arguments that are no list") };
        let mut vm = Vm::start(Arc::clone(program), entry, args.to_vec(), limits).ok()?;
        matches!(vm.run(100), Stop::Effect(_)).then_some(vm)
    };
    branches.iter().filter_map(|branch| start(&branch.args, branch.entry)).collect()
}

#[test]
fn an_input_of_256_branches_is_there_once() {
    let program = program();
    let (mut vm, request) = forked(&program, Value::Str("x".repeat(MIB as usize).into()));
    let mut held = Vec::new();
    let sent = measure(|| held.push(vm.pending()));
    assert!(sent.bytes_current < (MIB + MIB / 4) as i64, "the request holds {} bytes", sent.bytes_current);
    let mut all = Vec::new();
    let started = measure(|| all = children(&program, &request, Limits::default()));
    assert_eq!(all.len(), BRANCHES);
    assert!(started.bytes_total < MIB / 2, "256 branches allocated {} bytes", started.bytes_total);
    // Each branch's result is the text that it shares; the parent holds what it is sent, whoever else does.
    let outcomes = vec![ended(&mut all[0]); BRANCHES];
    let answered = measure(|| vm.resume(request.seq, Ok(Answer::Children(outcomes))).unwrap());
    assert!(answered.bytes_max < MIB, "256 results took {} bytes", answered.bytes_max);
}

fn ended(vm: &mut Vm) -> Outcome {
    let seq = vm.pending().unwrap().seq;
    vm.resume(seq, Ok(Answer::Now(nexa_types::Timestamp(1)))).unwrap();
    match vm.run(100) {
        Stop::Ended(outcome) => outcome,
        stop => panic!("{stop:?}"),
    }
}

/// What is shared is charged to each holder in full: whether an agent may run does not depend on who else holds its
/// values.
#[test]
fn what_is_shared_is_charged_to_each_holder() {
    let program = program();
    let (_, request) = forked(&program, Value::Str("x".repeat(MIB as usize).into()));
    assert_eq!(children(&program, &request, Limits { heap: 2 * MIB }).len(), BRANCHES);
    assert_eq!(children(&program, &request, Limits { heap: MIB }).len(), 0);
    // The parent may hold eight of the results, not 256.
    let (mut vm, request) = forked(&program, Value::Str("x".repeat(MIB as usize).into()));
    let result = Outcome::Ok(codec::encode(&Value::Str("y".repeat(MIB as usize).into())));
    vm.resume(request.seq, Ok(Answer::Children(vec![result; BRANCHES]))).unwrap();
    match vm.run(100) {
        Stop::Ended(Outcome::Err(failure)) => assert_eq!(failure.code, RunCode::OutOfMemory),
        stop => panic!("{stop:?}"),
    }
}

/// A short text does not keep the long message alive that it came in.
#[test]
fn a_part_of_a_message_does_not_hold_all_of_it() {
    let line = Value::Str("y".repeat(5_000).into());
    let long = Value::Str("x".repeat(MIB as usize / 2).into());
    let message = codec::encode(&Value::Tuple(Arc::new(vec![line, long.clone(), long])));
    let mut kept = Value::Unit;
    let work = measure(|| {
        let copy = nexa_types::Payload::new(message.as_bytes());
        let Ok(Value::Tuple(parts)) = codec::decode(&copy) else { panic!("a tuple") };
        kept = parts[0].clone();
    });
    assert!(work.bytes_current < 8_000, "{work:?}");
    assert_eq!(kept, Value::Str("y".repeat(5_000).into()));
}

/// A machine that waits for an answer, without its data.
#[test]
fn a_machine_that_waits_takes_at_most_two_kibibytes() {
    let program = program();
    let mut vm = None;
    let work = measure(|| {
        let mut waiting = Vm::start(Arc::clone(&program), 0, vec![Value::Int(1)], Limits::default()).unwrap();
        let _asked = waiting.run(100);
        vm = Some(Box::new(waiting));
    });
    assert!(vm.unwrap().pending().is_some());
    assert!(work.bytes_current <= 2048, "{} bytes", work.bytes_current);
}

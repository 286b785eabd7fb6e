//! Fixed programs run as they should, and the same way however they are sliced, stopped and restored.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::sync::Arc;

use common::{Restore, end, list, run, text};
use nexa_event::effect::{Answer, EffectBody};
use nexa_types::{Failure, Outcome, RunCode, Seq};
use nexa_vm::module::Type;
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::op::Op;
use nexa_vm::value::Value;
use nexa_vm::{Limits, Program, ResumeError, StartError, Stop, Vm, codec};

#[test]
fn every_program_ends_as_it_should() {
    for case in common::programs::all() {
        let trace = run(&case.program, case.function, case.args, 10_000, Restore::Never);
        assert_eq!(end(&trace), case.end, "{}", case.name);
    }
}

#[test]
fn a_snapshot_and_restore_at_every_safepoint_changes_nothing() {
    for case in common::programs::all() {
        let whole = run(&case.program, case.function, case.args.clone(), u64::MAX, Restore::Never);
        let sliced = run(&case.program, case.function, case.args, 1, Restore::AtEverySafepoint);
        assert_eq!(whole, sliced, "{}", case.name);
    }
}

fn program(write: impl FnOnce(&mut Assembler)) -> Arc<Program> {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("main", 0);
    write(&mut code);
    module.add(code);
    Arc::new(Program::new(module.finish().unwrap()).unwrap())
}

#[test]
fn an_answer_must_be_to_what_was_asked() {
    let program = program(|code| {
        code.int(1).int(3).op(Op::Random).op(Op::Return);
    });
    let mut vm = Vm::start(program, 0, vec![], Limits::default()).unwrap();
    assert_eq!(vm.resume(Seq(1), Ok(Answer::Done)), Err(ResumeError::NothingPending { seq: Seq(1) }));
    let Stop::Effect(request) = vm.run(9) else { panic!("no effect") };
    assert_eq!((request.seq, &request.body), (Seq(1), &EffectBody::Random { low: 1, high: 3 }));
    let before = vm.snapshot();
    assert_eq!(vm.resume(Seq(2), Ok(Answer::Random(1))), Err(ResumeError::WrongSeq { pending: Seq(1), seq: Seq(2) }));
    assert!(matches!(vm.resume(Seq(1), Ok(Answer::Done)), Err(ResumeError::WrongAnswer { .. })));
    assert!(matches!(vm.resume(Seq(1), Ok(Answer::Random(3))), Err(ResumeError::WrongAnswer { .. })));
    assert_eq!(vm.snapshot(), before, "a refused answer leaves no trace");
    assert_eq!(vm.run(9), Stop::Effect(request));
    vm.resume(Seq(1), Ok(Answer::Random(2))).unwrap();
    assert_eq!(vm.run(9), Stop::Ended(Outcome::Ok(codec::encode(&Value::Int(2)))));
    assert_eq!(vm.next_seq(), Seq(2));
}

#[test]
fn an_interrupted_program_ends_without_asking_its_handlers() {
    let program = program(|code| {
        let caught = code.label();
        code.jump(Op::EnterTry, caught).op(Op::Now).op(Op::Return).place(caught).op(Op::Return);
    });
    let mut vm = Vm::start(program, 0, vec![], Limits::default()).unwrap();
    assert!(matches!(vm.run(9), Stop::Effect(_)));
    let cancelled = Failure::new(RunCode::Cancelled, "the workload was cancelled");
    vm.interrupt(cancelled.clone());
    assert_eq!(vm.pending(), None);
    assert_eq!(vm.run(9), Stop::Ended(Outcome::Err(cancelled.clone())));
    vm.interrupt(Failure::new(RunCode::Timeout, "too late"));
    assert_eq!(vm.run(9), Stop::Ended(Outcome::Err(cancelled)));
}

#[test]
fn a_failed_effect_can_be_caught_where_it_was_made() {
    let program = program(|code| {
        let caught = code.label();
        code.jump(Op::EnterTry, caught).op(Op::Now).op(Op::Return).place(caught).op(Op::IsTransient).op(Op::Return);
    });
    let mut vm = Vm::start(program, 0, vec![], Limits::default()).unwrap();
    assert!(matches!(vm.run(9), Stop::Effect(_)));
    vm.resume(Seq(1), Err(Failure::new(RunCode::Timeout, "slow"))).unwrap();
    assert_eq!(vm.run(9), Stop::Ended(Outcome::Ok(codec::encode(&Value::Bool(true)))));
}

#[test]
fn a_cancelled_effect_cannot_be_caught() {
    let program = program(|code| {
        let caught = code.label();
        code.jump(Op::EnterTry, caught).op(Op::Now).op(Op::Return).place(caught).op(Op::Return);
    });
    let mut vm = Vm::start(program, 0, vec![], Limits::default()).unwrap();
    assert!(matches!(vm.run(9), Stop::Effect(_)));
    vm.resume(Seq(1), Err(Failure::new(RunCode::Cancelled, "stop"))).unwrap();
    assert!(matches!(vm.run(9), Stop::Ended(Outcome::Err(failure)) if failure.code == RunCode::Cancelled));
}

#[test]
fn recursion_without_end_is_a_stack_overflow_that_nobody_catches() {
    let mut module = ModuleBuilder::new();
    let own = module.declare("f", 0);
    let mut code = Assembler::new("f", 0);
    let caught = code.label();
    code.jump(Op::EnterTry, caught).ab(Op::Call, 0, own).op(Op::Return).place(caught).op(Op::Return);
    module.define(own, code);
    let program = Arc::new(Program::new(module.finish().unwrap()).unwrap());
    let trace = run(&program, 0, vec![], 10_000, Restore::Never);
    assert!(end(&trace).starts_with("stack_overflow"), "{}", end(&trace));
}

#[test]
fn a_program_that_keeps_everything_runs_out_of_memory() {
    let program = program(|code| {
        let kept = code.local();
        code.a(Op::NewList, 0).a(Op::StoreLocal, kept);
        let start = code.loop_start();
        code.a(Op::LoadLocal, kept).a(Op::LoadLocal, kept).a(Op::Concat, 2).a(Op::LoadLocal, kept).a(Op::NewList, 2);
        code.a(Op::StoreLocal, kept).jump(Op::Jump, start);
    });
    let trace = run(&program, 0, vec![], 10_000, Restore::Never);
    assert!(end(&trace).starts_with("out_of_memory"), "{}", end(&trace));
}

#[test]
fn a_program_that_drops_what_it_made_does_not_run_out_of_memory() {
    let program = program(|code| {
        let (text, index, end) = (code.local(), code.local(), code.label());
        code.int(0).a(Op::StoreLocal, index);
        let start = code.loop_start();
        code.a(Op::LoadLocal, index).int(3000).op(Op::LtInt).jump(Op::JumpIfNot, end);
        code.int(0).int(1000).std("range", 2).a(Op::StoreLocal, text);
        code.ab(Op::IncLocal, index as u8, 1).jump(Op::Jump, start).place(end).a(Op::LoadLocal, index).op(Op::Return);
    });
    let trace = run(&program, 0, vec![], 10_000, Restore::Never);
    assert_eq!(end(&trace), "3000");
}

#[test]
fn a_huge_range_is_refused_before_it_is_made() {
    let program = program(|code| {
        code.int(0).int(1 << 46).std("range", 2).op(Op::Return);
    });
    assert!(end(&run(&program, 0, vec![], 9, Restore::Never)).starts_with("out_of_memory"));
}

#[test]
fn a_value_cannot_be_nested_until_freeing_it_breaks_the_machine() {
    let program = program(|code| {
        let value = code.local();
        code.int(0).a(Op::StoreLocal, value);
        let start = code.loop_start();
        code.a(Op::LoadLocal, value).op(Op::WrapOk).a(Op::StoreLocal, value).jump(Op::Jump, start);
    });
    let trace = run(&program, 0, vec![], 1_000, Restore::AtEverySafepoint);
    assert!(end(&trace).starts_with("out_of_memory: a value nests"), "{}", end(&trace));
}

#[test]
fn comparing_values_that_double_themselves_ends() {
    let program = program(|code| {
        let (x, y, index, end) = (code.local(), code.local(), code.local(), code.label());
        code.int(0).a(Op::StoreLocal, x).int(0).a(Op::StoreLocal, y).int(0).a(Op::StoreLocal, index);
        let start = code.loop_start();
        code.a(Op::LoadLocal, index).int(100).op(Op::LtInt).jump(Op::JumpIfNot, end);
        for local in [x, y] {
            code.a(Op::LoadLocal, local).a(Op::LoadLocal, local).a(Op::NewList, 2).a(Op::StoreLocal, local);
        }
        code.ab(Op::IncLocal, index as u8, 1).jump(Op::Jump, start);
        code.place(end).a(Op::LoadLocal, x).a(Op::LoadLocal, y).op(Op::Eq).op(Op::Return);
    });
    assert!(end(&run(&program, 0, vec![], 9, Restore::Never)).contains("too large to be compared"));
}

#[test]
fn a_start_with_other_arguments_is_refused() {
    let case = common::programs::fib();
    let start = |function, args| Vm::start(Arc::clone(&case.program), function, args, Limits::default());
    assert!(matches!(start(0, vec![]), Err(StartError::WrongArguments { wanted: 1, found: 0, .. })));
    assert!(matches!(start(7, vec![]), Err(StartError::NoSuchFunction { entry: 7 })));
    assert!(matches!(start(nexa_vm::ENTRY_CALLABLE, vec![text("x")]), Err(StartError::NotCallable)));
    let large = list((0..1_000_000).map(Value::Int));
    assert!(matches!(start(0, vec![large]), Err(StartError::TooLarge { .. })));
}

#[test]
fn an_effect_inside_a_pure_function_is_refused_even_through_a_value() {
    let mut module = ModuleBuilder::new();
    let mut effectful = Assembler::new("effectful", 0);
    effectful.op(Op::Now).op(Op::Return);
    let effectful = module.add(effectful);
    let mut calling = Assembler::new("calling", 1).pure_();
    calling.a(Op::LoadLocal, 0).a(Op::CallValue, 0).op(Op::Return);
    let calling = module.add(calling);
    let mut main = Assembler::new("main", 0);
    main.ab(Op::Closure, 0, effectful).ab(Op::Call, 1, calling).op(Op::Return);
    let main = module.add(main);
    let program = Arc::new(Program::new(module.finish().unwrap()).unwrap());
    let trace = run(&program, u32::from(main), vec![], 9, Restore::Never);
    assert!(end(&trace).starts_with("type_mismatch: a pure function"), "{}", end(&trace));
}

#[test]
fn a_pure_function_does_not_shed_its_purity_by_a_tail_call() {
    let mut module = ModuleBuilder::new();
    let mut effectful = Assembler::new("effectful", 0);
    effectful.op(Op::Now).op(Op::Return);
    let effectful = module.add(effectful);
    let mut passing = Assembler::new("passing", 0);
    passing.ab(Op::TailCall, 0, effectful);
    let passing = module.add(passing);
    // Only a call through a value gets past the verifier.
    let mut calling = Assembler::new("calling", 0).pure_();
    calling.ab(Op::Closure, 0, passing).a(Op::CallValue, 0).op(Op::Return);
    let calling = module.add(calling);
    let program = Arc::new(Program::new(module.finish().unwrap()).unwrap());
    let trace = run(&program, u32::from(calling), vec![], 9, Restore::Never);
    assert!(end(&trace).starts_with("type_mismatch: a pure function"), "{}", end(&trace));
}

#[test]
fn a_value_as_deep_as_values_get_can_be_written_compared_and_converted() {
    let mut module = ModuleBuilder::new();
    // A list of an option of itself.
    module.module.types = vec![Type::List(1), Type::Option(0)];
    let mut code = Assembler::new("main", 0);
    let (value, other) = (code.local(), code.local());
    code.a(Op::NewList, 0).a(Op::StoreLocal, value).a(Op::NewList, 0).a(Op::StoreLocal, other);
    let start = code.loop_start();
    for local in [value, other] {
        code.a(Op::LoadLocal, local).a(Op::NewList, 1).a(Op::StoreLocal, local);
    }
    code.a(Op::LoadLocal, value).a(Op::Concat, 1).op(Op::Pop);
    code.a(Op::LoadLocal, value).a(Op::LoadLocal, other).op(Op::Eq).op(Op::Pop);
    let (caught, end_of_try) = (code.label(), code.label());
    code.jump(Op::EnterTry, caught).a(Op::LoadLocal, value).a(Op::CheckType, 0).op(Op::LeaveTry);
    code.jump(Op::Jump, end_of_try).place(caught).op(Op::Nop).place(end_of_try).op(Op::Pop);
    code.jump(Op::Jump, start);
    module.add(code);
    let program = Arc::new(Program::new(module.finish().unwrap()).unwrap());
    let trace = run(&program, 0, vec![], 1_000, Restore::AtEverySafepoint);
    assert!(end(&trace).starts_with("out_of_memory: a value nests"), "{}", end(&trace));
}

/// Sums that are stored run as one step; with a `Nop` inside they run one by one, and must come to the same.
#[test]
fn a_fused_sum_is_the_sum_of_its_parts() {
    type Shape = fn(&mut Assembler);
    let shapes: [(&str, Shape); 4] = [
        ("x + y", |code| {
            code.a(Op::LoadLocal, 1).op(Op::AddInt);
        }),
        ("x + 7", |code| {
            code.int(7).op(Op::AddInt);
        }),
        ("x - 7", |code| {
            code.int(7).op(Op::SubInt);
        }),
        ("x + y - 1", |code| {
            code.a(Op::LoadLocal, 1).op(Op::AddInt).int(1).op(Op::SubInt);
        }),
    ];
    let numbers = [0, 5, -7, i64::MAX, i64::MAX - 3, i64::MIN, i64::MIN + 3];
    for (name, shape) in shapes {
        let program = |is_fused: bool| {
            let mut module = ModuleBuilder::new();
            let mut code = Assembler::new("sum", 2);
            let sum = code.local();
            code.a(Op::LoadLocal, 0);
            shape(&mut code);
            if !is_fused {
                code.op(Op::Nop);
            }
            code.a(Op::StoreLocal, sum).a(Op::LoadLocal, sum).op(Op::Return);
            module.add(code);
            Arc::new(Program::new(module.finish().unwrap()).unwrap())
        };
        let (fused, plain) = (program(true), program(false));
        for x in numbers {
            for y in numbers.map(Value::Int).into_iter().chain([text("a")]) {
                let args = vec![Value::Int(x), y.clone()];
                let expected = end(&run(&plain, 0, args.clone(), 9, Restore::Never));
                assert_eq!(end(&run(&fused, 0, args, 9, Restore::Never)), expected, "{name} with {x} and {y:?}");
            }
        }
    }
}

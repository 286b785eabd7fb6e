//! Hostile bytes: whatever they are, nothing panics, and what is accepted stays within its limits.
//!
//! Ordinary tests with a bounded number of rounds; under `cargo bolero` the same targets run for as long as they may.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::sync::Arc;

use bolero::check;
use nexa_event::effect::{EffectBody, Join};
use nexa_vm::module::Module;
use nexa_vm::op::{Form, Op, word_a, word_ab};
use nexa_vm::value::Value;
use nexa_vm::{Limits, Program, Stop, Vm, codec, json};

const ROUNDS: usize = 3_000;

/// Runs a verified program for a while, answering its effects.
fn run_for_a_while(program: &Arc<Program>, function: u32) {
    let arity = program.module().functions[function as usize].arity;
    let args = (0..arity).map(|index| Value::Int(i64::from(index))).collect();
    let Ok(mut vm) = Vm::start(Arc::clone(program), function, args, Limits { heap: 1 << 20 }) else { return };
    go_on(program, &mut vm);
}

fn go_on(program: &Arc<Program>, vm: &mut Vm) {
    for _ in 0..10 {
        match vm.run(1_000) {
            Stop::Ended(_) => return,
            Stop::OutOfFuel => {}
            Stop::Effect(request) => {
                let answer = match &request.body {
                    // Nobody runs them here: random code starts itself again, as deep as one lets it.
                    EffectBody::Children { join: Join::Detached, .. } => Ok(nexa_event::effect::Answer::Done),
                    EffectBody::Children { branches, join: Join::All | Join::FirstOk(_) } => {
                        let failure = nexa_types::Failure::new(nexa_types::RunCode::Refused, "not here");
                        let outcomes = branches.iter().map(|_| nexa_types::Outcome::Err(failure.clone()));
                        Ok(nexa_event::effect::Answer::Children(outcomes.collect()))
                    }
                    body => common::answer(program, body, request.seq.0),
                };
                // An effect of another kind than this knows gets a failure, which any takes.
                if vm.resume(request.seq, answer).is_err() {
                    let failure = nexa_types::Failure::new(nexa_types::RunCode::Refused, "not here");
                    vm.resume(request.seq, Err(failure)).unwrap();
                }
            }
        }
        let bytes = vm.snapshot();
        let restored = Vm::restore(Arc::clone(program), &bytes).unwrap();
        assert_eq!(restored.snapshot(), bytes);
    }
}

/// Changes some bytes of something good: `(position, value)` pairs.
fn damage(good: &[u8], changes: &[(u16, u8)]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, value) in changes {
        let at = usize::from(*at) % bytes.len();
        bytes[at] = *value;
    }
    bytes
}

#[test]
fn any_bytes_as_a_module() {
    check!().with_iterations(ROUNDS).for_each(|bytes: &[u8]| {
        let _refused = Module::decode(bytes);
    });
}

#[test]
fn a_damaged_module_is_refused_or_runs_within_its_limits() {
    let good: Vec<Vec<u8>> = common::programs::all().iter().map(|case| case.program.module().encode()).collect();
    check!().with_type::<(u8, Vec<(u16, u8)>)>().with_iterations(ROUNDS).for_each(|(which, changes)| {
        let bytes = damage(&good[usize::from(*which) % good.len()], &changes[..changes.len().min(4)]);
        if let Ok(program) = Program::load(&bytes) {
            let program = Arc::new(program);
            common::check_tasks(program.module());
            for function in 0..program.module().functions.len().min(4) {
                run_for_a_while(&program, function as u32);
            }
        }
    });
}

/// Instructions that the verifier lets through one after the other: a program that makes no sense and may run.
#[test]
fn any_code_that_is_accepted_runs_within_its_limits() {
    let base = common::programs::fork_and_merge().program.module().clone();
    let trap = u32::from(Op::Trap as u8);
    check!().with_type::<Vec<(u8, u8, u8)>>().with_iterations(ROUNDS / 2).for_each(|words| {
        let mut module = base.clone();
        let function = &mut module.functions[0];
        // Something of every kind to begin with.
        let start = [(Op::LoadLocal, 0), (Op::Int, 3), (Op::Const, 0), (Op::NewList, 0), (Op::AgentCreate, 0)];
        function.code = start.iter().map(|(op, a)| word_a(*op, *a)).chain([trap]).collect();
        (function.stack, function.locals) = (64, 8);
        for (turn, (op, a, b)) in words.iter().cycle().take(words.len().min(40) * 3).enumerate() {
            let op = Op::ALL[(usize::from(*op) + turn * 7) % Op::ALL.len()];
            let code = &mut module.functions[0].code;
            code.pop();
            let word = match op.form() {
                Form::Jump => word_a(op, (code.len() as u32 + u32::from(a % 4)).saturating_sub(2)),
                form if form.has_count() => word_ab(op, a % 4, u16::from(b % 80)),
                _ => word_a(op, u32::from(a % 8)),
            };
            code.extend([word, trap]);
            if nexa_vm::verify::verify(&module).is_err() {
                let code = &mut module.functions[0].code;
                code.truncate(code.len() - 2);
                code.push(trap);
            }
        }
        if let Ok(program) = Program::new(module) {
            run_for_a_while(&Arc::new(program), 0);
        }
    });
}

#[test]
fn a_damaged_snapshot_is_refused_or_goes_on_without_a_panic() {
    let mut stopped = Vec::new();
    for case in common::programs::all() {
        let mut vm = Vm::start(Arc::clone(&case.program), case.function, case.args, Limits::default()).unwrap();
        vm.run(30);
        stopped.push((case.program, vm.snapshot()));
    }
    check!().with_type::<(u8, bool, Vec<(u16, u8)>)>().with_iterations(ROUNDS).for_each(|(which, mend, changes)| {
        let (program, good) = &stopped[usize::from(*which) % stopped.len()];
        let mut bytes = damage(good, &changes[..changes.len().min(3)]);
        if *mend {
            common::damage::mend_checksums(&mut bytes);
        }
        if let Ok(mut vm) = Vm::restore(Arc::clone(program), &bytes) {
            for _ in 0..5 {
                match vm.run(1_000) {
                    Stop::Effect(request) => {
                        let failure = nexa_types::Failure::new(nexa_types::RunCode::Refused, "not here");
                        vm.resume(request.seq, Err(failure)).unwrap();
                    }
                    Stop::OutOfFuel => {}
                    Stop::Ended(_) => break,
                }
                vm.snapshot();
            }
        }
    });
}

/// The first of the cases that `cargo xtask fuzz vm` runs a million of.
#[test]
fn damaged_modules_and_snapshots_take_no_more_than_their_length_allows() {
    let [modules, snapshots] = common::damage::Good::new().run(1, 0..1_000, |_, _| ());
    for tally in [modules, snapshots] {
        assert_eq!(tally.refused + tally.accepted, 1_000);
        assert!(tally.accepted > 50 && tally.refused > 50 && tally.ended > 50 && tally.asked > 5, "{tally:?}");
    }
}

#[test]
fn any_bytes_as_a_value() {
    check!().with_iterations(ROUNDS).for_each(|bytes: &[u8]| {
        let hostile = [&[1], bytes].concat();
        if let Ok(value) = codec::decode_bytes(&hostile) {
            assert_eq!(codec::encode(&value).as_bytes(), hostile);
            json::to_json(&value);
        }
    });
}

#[test]
fn any_text_as_json() {
    check!().with_iterations(ROUNDS).for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(value) = json::from_json(&text) {
            let canonical = json::to_json(&value);
            assert_eq!(json::from_json(&canonical), Ok(value));
        }
    });
}

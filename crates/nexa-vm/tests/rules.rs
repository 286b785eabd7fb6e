//! What each rule of the verifier refuses, one table for all of them. V1 is the decoder's, V10 is about grants.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use nexa_vm::Program;
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::module::{Constant, Module, Type};
use nexa_vm::op::{Op, word_a};

/// A module of `idle`, a function marked pure, and one that is not; then `f` of one argument, two locals and eight
/// operands.
fn module(is_pure: bool, write: impl for<'a> FnOnce(&'a mut Assembler) -> &'a mut Assembler) -> Module {
    let mut module = ModuleBuilder::new();
    module.text("name");
    for (name, is_pure) in [("pure", true), ("effects", false)] {
        let mut code = Assembler::new(name, 0);
        if is_pure {
            code = code.pure_();
        }
        code.op(Op::Unit).op(Op::Return);
        module.add(code);
    }
    let mut code = Assembler::new("f", 1);
    if is_pure {
        code = code.pure_();
    }
    code.local();
    write(&mut code);
    module.add(code);
    for function in &mut module.module.functions {
        function.stack = 8;
    }
    module.module
}

fn said(module: Module) -> String {
    match Program::new(module) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn code(write: impl for<'a> FnOnce(&'a mut Assembler) -> &'a mut Assembler) -> String {
    said(module(false, write))
}

fn pure_code(write: impl for<'a> FnOnce(&'a mut Assembler) -> &'a mut Assembler) -> String {
    said(module(true, write))
}

fn changed(change: impl FnOnce(&mut Module)) -> String {
    let mut module = module(false, |code| code.op(Op::Unit).op(Op::Return));
    change(&mut module);
    said(module)
}

fn raw(words: &[u32]) -> String {
    changed(|module| module.functions[2].code = words.to_vec())
}

fn loaded(bytes: &[u8]) -> String {
    Program::load(bytes).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

fn valid() -> Vec<u8> {
    module(false, |code| code.op(Op::Unit).op(Op::Return)).encode()
}

#[test]
fn every_rule_refuses_what_it_is_there_for() {
    let pattern =
        |pattern: &str| Type::Semantic { base: 0, condition: "fits".to_owned(), pattern: Some(pattern.to_owned()) };
    let refusals: Vec<(&str, &str, String)> = vec![
        ("V1", "E1001", loaded(b"NXB0\x01\x00")),
        ("V1", "E1001", loaded(&valid()[..5])),
        ("V1", "E1004", loaded(&valid()[..valid().len() - 1])),
        ("V2", "E1004", raw(&[0xFF, word_a(Op::Trap, 0)])),
        ("V2", "E1004", code(|c| c.a(Op::Const, 1).op(Op::Return))),
        ("V2", "E1004", code(|c| c.a(Op::LoadLocal, 2).op(Op::Return))),
        ("V2", "E1004", code(|c| c.ab(Op::Call, 0, 9).op(Op::Return))),
        ("V2", "E1004", code(|c| c.ab(Op::Call, 1, 0).op(Op::Return))),
        ("V2", "E1004", code(|c| c.ab(Op::CallStd, 1, 65_000).op(Op::Return))),
        ("V2", "E1004", code(|c| c.a(Op::NewRecord, 0).op(Op::Return))),
        ("V2", "E1004", code(|c| c.a(Op::AgentCreate, 0).op(Op::Return))),
        ("V2", "E1004", code(|c| c.op(Op::Unit).a(Op::AgentClone, 0).op(Op::Return))),
        ("V3", "E1002", code(|c| c.a(Op::Jump, 70))),
        ("V3", "E1002", code(|c| c.a(Op::Jump, 2).a(Op::Wide, 0).a(Op::LoadLocal, 0).op(Op::Return))),
        ("V4", "E1003", code(|c| c.op(Op::Pop).op(Op::Unit).op(Op::Return))),
        ("V4", "E1003", code(|c| (0..9).fold(c, |c, _| c.op(Op::Unit)).op(Op::Return))),
        ("V4", "E1003", code(|c| c.op(Op::True).a(Op::JumpIf, 3).op(Op::Unit).op(Op::Unit).op(Op::Return))),
        ("V5", "E1003", code(|c| c.a(Op::LoadLocal, 1).op(Op::Return))),
        (
            "V5",
            "E1003",
            code(|c| {
                c.op(Op::True).a(Op::JumpIf, 4).op(Op::Unit).a(Op::StoreLocal, 1).a(Op::LoadLocal, 1).op(Op::Return)
            }),
        ),
        ("V6", "E1003", code(|c| c.op(Op::True).int(1).op(Op::AddInt).op(Op::Return))),
        ("V6", "E1003", code(|c| c.int(1).a(Op::JumpIf, 2).op(Op::Trap))),
        ("V6", "E1003", code(|c| c.a(Op::NewList, 0).op(Op::NegInt).op(Op::Return))),
        ("V7", "E1005", code(|c| c.op(Op::Nop).a(Op::Jump, 0))),
        ("V7", "E1005", code(|c| c.op(Op::LoopTick).a(Op::EnterTry, 0).op(Op::Trap))),
        ("V8", "E1003", code(|c| c.op(Op::LeaveTry).op(Op::Trap))),
        ("V8", "E1003", code(|c| c.op(Op::True).a(Op::JumpIf, 3).a(Op::EnterTry, 4).op(Op::Unit).op(Op::Return))),
        ("V8", "E1003", code(|c| c.op(Op::Unit).a(Op::EnterTry, 4).op(Op::Pop).op(Op::LeaveTry).op(Op::Trap))),
        ("V8", "E1003", code(|c| c.op(Op::Unit).a(Op::EnterTry, 3).op(Op::Swap).op(Op::Trap))),
        ("V8", "E1003", code(|c| c.int(1).int(2).a(Op::EnterTry, 5).op(Op::AddInt).op(Op::Trap).op(Op::Trap))),
        ("V9", "E1003", pure_code(|c| c.op(Op::Now).op(Op::Return))),
        ("V9", "E1003", pure_code(|c| c.ab(Op::Call, 0, 1).op(Op::Return))),
        ("V9", "E1003", pure_code(|c| c.ab(Op::TailCall, 0, 1))),
        ("V11", "E1003", code(|c| c.ab(Op::Merge, 0, 0).op(Op::Return))),
        ("V11", "E1003", code(|c| c.int(1).ab(Op::Merge, 0, 0).op(Op::Return))),
        ("V11", "E1003", code(|c| c.a(Op::Const, 0).int(1).ab(Op::Merge, 0, 2).op(Op::Return))),
        ("V11", "E1004", code(|c| c.a(Op::NewList, 0).ab(Op::Merge, 0, 900).op(Op::Return))),
        ("V12", "E1004", changed(|m| m.types.extend([Type::Str, pattern("(")]))),
        ("V12", "E1004", changed(|m| m.types.extend([Type::Str, pattern(r"(a)\1")]))),
        ("V12", "E1004", changed(|m| m.types.extend([Type::Str, pattern(r"(?=a)b")]))),
        ("V12", "E1004", changed(|m| m.types.extend([Type::Str, pattern("(a{1000}){1000}")]))),
        ("V12", "E1004", changed(|m| m.constants.push(Constant::Float(f64::from_bits(f64::NAN.to_bits() | 1))))),
        ("V13", "E1002", code(|c| c.op(Op::Unit))),
        ("V13", "E1002", code(|c| c)),
        ("V14", "E1006", changed(|m| m.functions[2].locals = 257)),
        ("V14", "E1006", changed(|m| m.functions[2].arity = 9)),
        ("V14", "E1006", changed(|m| m.functions[2].stack = 4_097)),
        ("V14", "E1006", changed(|m| m.functions[2].code = vec![word_a(Op::Nop, 0); (1 << 16) + 1])),
        (
            "V14",
            "E1006",
            changed(|m| m.constants.push(Constant::Str("x".repeat(nexa_types::limits::CONSTANT_BYTES_MAX + 1)))),
        ),
        ("V14", "E1006", changed(|m| m.types.extend(vec![Type::Int; (1 << 16) + 1]))),
        (
            "V14",
            "E1006",
            changed(|m| {
                m.types.push(Type::Str);
                m.types.extend(vec![pattern("a"); 257]);
            }),
        ),
    ];
    for (rule, wanted, found) in &refusals {
        assert!(found.starts_with(wanted), "{rule} says {found}, not {wanted}");
    }
    let rules: std::collections::BTreeSet<&str> = refusals.iter().map(|(rule, ..)| *rule).collect();
    assert_eq!(rules.len(), 13, "every rule but V10 is here: {rules:?}");
}

#[test]
fn what_the_rules_leave_alone_is_accepted() {
    assert_eq!(code(|c| c.op(Op::Unit).op(Op::Return)), "accepted");
    assert_eq!(pure_code(|c| c.ab(Op::Call, 0, 0).op(Op::Return)), "accepted");
    assert_eq!(pure_code(|c| c.ab(Op::Closure, 0, 1).op(Op::Return)), "accepted");
    assert_eq!(code(|c| c.ab(Op::Call, 0, 1).op(Op::Return)), "accepted");
    assert_eq!(code(|c| c.a(Op::NewList, 0).ab(Op::Merge, 0, 0).op(Op::Return)), "accepted");
    assert_eq!(code(|c| c.a(Op::LoadLocal, 0).ab(Op::Merge, 0, 0).op(Op::Return)), "accepted");
    assert_eq!(loaded(&valid()), "accepted");
}

/// What the verifier may do for one module is bounded; a function as long as may be, all joins and loops, stays within.
#[test]
fn the_longest_function_is_within_the_bound_on_the_work() {
    let long = |blocks: usize| {
        code(|c| {
            for _ in 0..blocks {
                let (other, end) = (c.label(), c.label());
                let start = c.loop_start();
                c.op(Op::True).jump(Op::JumpIf, other).op(Op::False).jump(Op::JumpIf, start).jump(Op::Jump, end);
                c.place(other).place(end);
            }
            c.op(Op::Unit).op(Op::Return)
        })
    };
    assert_eq!(long(9_000), "accepted");
}

//! Modules that must not run are refused, each for its reason.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use expect_test::expect;
use nexa_event::effect::Remembering;
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::module::{Constant, Kind, LoadError, ModelRequestSpec, Module, Schedule, Type};
use nexa_vm::op::{Op, RESERVED, word_a, word_ab};
use nexa_vm::{Program, verify};

/// What the verifier says to one function that may have 8 operands and 2 locals.
fn refusal(write: impl for<'a> FnOnce(&'a mut Assembler) -> &'a mut Assembler) -> String {
    let mut module = ModuleBuilder::new();
    module.text("name");
    module.module.constants.push(Constant::Float(0.5));
    let mut code = Assembler::new("f", 1);
    code.local();
    write(&mut code);
    module.add(code);
    module.module.functions[0].stack = 8;
    match Program::new(module.module) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn jumps_must_land_on_instructions_and_backwards_on_a_loop_tick() {
    let mut all = String::new();
    let mut say = |text: String| all.push_str(&(text + "\n"));
    say(refusal(|code| code.a(Op::Jump, 9)));
    say(refusal(|code| code.a(Op::Jump, 2).a(Op::Wide, 0).a(Op::LoadLocal, 0).op(Op::Return)));
    say(refusal(|code| code.op(Op::Nop).a(Op::Jump, 0)));
    say(refusal(|code| code.op(Op::LoopTick).op(Op::NoneValue).a(Op::Jump, 0)));
    say(refusal(|code| code.op(Op::Trap).op(Op::LoopTick).a(Op::Jump, 1)));
    say(refusal(|code| code.op(Op::NoneValue)));
    say(refusal(|code| code));
    say(refusal(|code| code.a(Op::EnterTry, 0).op(Op::Trap)));
    expect![[r#"
        E1002: a jump to 9, beyond the code, in `f` at instruction 0
        E1002: a jump to 2, where no instruction starts, in `f` at instruction 0
        E1005: a backward jump to 0, which is no LoopTick, in `f` at instruction 1
        E1003: a loop comes back to 0 with another stack, in `f` at instruction 2
        accepted
        E1002: a path runs past the last instruction, in `f` at instruction 0
        E1002: no instruction, in `f` at instruction 0
        E1005: a handler that stands before its try, in `f` at instruction 0
    "#]]
    .assert_eq(&all);
}

#[test]
fn the_stack_has_one_height_and_locals_are_set_before_they_are_read() {
    let mut all = String::new();
    let mut say = |text: String| all.push_str(&(text + "\n"));
    say(refusal(|code| code.op(Op::Pop).op(Op::Trap)));
    say(refusal(|code| (0..9).fold(code, |code, _| code.op(Op::Unit)).op(Op::Return)));
    say(refusal(|code| code.op(Op::True).a(Op::JumpIf, 3).op(Op::Unit).op(Op::Unit).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 1).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 2).op(Op::Return)));
    say(refusal(|code| code.op(Op::LeaveTry).op(Op::Trap)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).op(Op::IterNew).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).op(Op::IterNew).op(Op::Dup).op(Op::Trap)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).a(Op::IterNext, 2).op(Op::Trap)));
    expect![[r#"
        E1003: an operand is missing, in `f` at instruction 0
        E1003: 9 operands, more than the declared 8, in `f` at instruction 8
        E1003: two paths meet with 1 and 0 operands, in `f` at instruction 3
        E1003: local 1 is read before it is set, in `f` at instruction 0
        E1004: an operand of LoadLocal is out of range, in `f` at instruction 0
        E1003: a try is left that was not entered, in `f` at instruction 0
        E1003: an iterator cannot leave its place, in `f` at instruction 2
        E1003: an iterator cannot leave its place, in `f` at instruction 2
        E1003: the operand is no iterator, in `f` at instruction 1
    "#]]
    .assert_eq(&all);
}

#[test]
fn operands_are_in_range_and_of_the_right_kind() {
    let mut all = String::new();
    let mut say = |text: String| all.push_str(&(text + "\n"));
    say(refusal(|code| code.a(Op::Const, 2).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).a(Op::GetField, 1).op(Op::Return)));
    say(refusal(|code| code.ab(Op::Call, 0, 0).op(Op::Return)));
    say(refusal(|code| code.ab(Op::Call, 0, 7).op(Op::Return)));
    say(refusal(|code| code.ab(Op::CallStd, 0, 9999).op(Op::Return)));
    say(refusal(|code| code.std("text.len", 3).op(Op::Return)));
    say(refusal(|code| code.ab(Op::Merge, 1, 9).op(Op::Return)));
    say(refusal(|code| code.ab(Op::Fork, 0, 0).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).ab(Op::Fork, 1, 16).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).ab(Op::Fork, 1, 8).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).int(1).ab(Op::Fork, 1, 8 | 2).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).ab(Op::Fork, 1, 8 | 4).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).ab(Op::Fork, 1, 1 << 8).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).ab(Op::Fork, 1, 4).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).ab(Op::Fork, 1, 4 | 1 << 8).op(Op::Return)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).ab(Op::Fork, 1, 2).op(Op::Return)));
    say(refusal(|code| code.a(Op::Const, 0).int(1).op(Op::AddInt).op(Op::Return)));
    say(refusal(|code| code.a(Op::Const, 1).int(1).op(Op::LtFloat).op(Op::Return)));
    say(refusal(|code| code.int(1).a(Op::JumpIf, 2).op(Op::Trap)));
    say(refusal(|code| code.a(Op::LoadLocal, 0).int(1).op(Op::AddInt).op(Op::Return)));
    say(refusal(|code| code.a(Op::Wide, 1).a(Op::LoadLocal, 0).op(Op::Return)));
    say(refusal(|code| code.a(Op::Wide, 1).op(Op::Return)));
    expect![[r#"
        E1004: there is no constant 2, in `f` at instruction 0
        E1004: an operand of GetField is out of range, in `f` at instruction 1
        E1004: `f` takes 1 values and gets 0, in `f` at instruction 0
        E1004: there is no function 7, in `f` at instruction 0
        E1004: there is no standard function 9999, in `f` at instruction 0
        E1004: `text.len` gets 3 arguments, in `f` at instruction 0
        E1004: an operand of Merge is out of range, in `f` at instruction 0
        E1003: an operand is missing, in `f` at instruction 0
        E1004: an operand of Fork is out of range, in `f` at instruction 1
        accepted
        E1004: an operand of Fork is out of range, in `f` at instruction 2
        E1004: an operand of Fork is out of range, in `f` at instruction 1
        E1004: an operand of Fork is out of range, in `f` at instruction 1
        accepted
        E1004: an operand of Fork is out of range, in `f` at instruction 1
        E1003: an operand is missing, in `f` at instruction 1
        E1003: an operand is known to be Other and must be Int, in `f` at instruction 2
        E1003: an operand is known to be Int and must be Float, in `f` at instruction 2
        E1003: an operand is known to be Int and must be Bool, in `f` at instruction 1
        accepted
        E1004: an operand of LoadLocal is out of range, in `f` at instruction 0
        E1004: an unknown operation, or a `Wide` that widens nothing, in `f` at instruction 0
    "#]]
    .assert_eq(&all);
}

#[test]
fn numbers_that_are_given_away_have_no_operation_and_are_refused_by_name() {
    for (number, name) in RESERVED {
        assert_eq!(Op::from_byte(*number), None, "{name} is there: take it off the list");
        let mut module = ModuleBuilder::new();
        let mut code = Assembler::new("f", 1);
        code.a(Op::LoadLocal, 0).op(Op::Nop).op(Op::Return);
        module.add(code);
        module.module.functions[0].code[1] = u32::from(*number) | 7 << 8;
        let error = Program::new(module.module).unwrap_err().to_string();
        assert_eq!(error, format!("E1004: `{name}`, which this release does not have, in `f` at instruction 1"));
    }
}

#[test]
fn a_pure_function_has_no_effects() {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("f", 0).pure_();
    code.op(Op::Now).op(Op::Return);
    module.add(code);
    let error = module.finish().unwrap_err();
    assert_eq!(error.to_string(), "E1003: an effect in a function marked pure, in `f` at instruction 0");
}

#[test]
fn a_local_may_change_its_kind_inside_a_loop() {
    let accepted = refusal(|code| {
        let end = code.label();
        code.int(1).a(Op::StoreLocal, 1);
        let start = code.loop_start();
        code.a(Op::LoadLocal, 1).a(Op::LoadLocal, 0).op(Op::Eq).jump(Op::JumpIf, end);
        code.a(Op::Const, 0).a(Op::StoreLocal, 1).jump(Op::Jump, start);
        code.place(end).a(Op::LoadLocal, 1).op(Op::Return)
    });
    assert_eq!(accepted, "accepted");
}

#[test]
fn what_is_no_code_is_checked_too() {
    let refuse = |change: &dyn Fn(&mut Module)| {
        let mut module = Module::default();
        change(&mut module);
        verify::verify(&module).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    };
    assert_eq!(refuse(&|module| module.types.push(Type::List(1))), "E1004: there is no type 1");
    assert_eq!(refuse(&|module| module.types.push(Type::List(0))), "accepted");
    let own_option = refuse(&|module| module.types.push(Type::Option(0)));
    assert_eq!(own_option, "E1004: a type is its own option or part of its own union");
    let semantic = Type::Semantic { base: 0, condition: "even".to_owned(), pattern: Some("(".to_owned()) };
    let pattern = refuse(&|module| module.types.extend([Type::Str, semantic.clone()]));
    assert!(pattern.starts_with("E1004: the pattern `(` is not valid"), "{pattern}");
    let request = ModelRequestSpec {
        agent: "A".to_owned(),
        answer: Some(3),
        temperature: 0.0,
        top_p: 1.0,
        max_tokens: nexa_types::Tokens(1),
        seed: None,
        stop: vec![],
        timeout: nexa_types::Millis(1),
    };
    assert_eq!(refuse(&|module| module.requests.push(request.clone())), "E1004: there is no type 3");
}

#[test]
fn a_file_that_is_no_module_says_so() {
    let load = |bytes: &[u8]| Program::load(bytes).unwrap_err();
    assert_eq!(load(b"PK\x03\x04 zip"), LoadError::Version);
    let mut bytes = Module::default().encode();
    bytes[4] = 9;
    assert_eq!(load(&bytes), LoadError::Version);
    let good = Module::default().encode();
    for len in 6..good.len() {
        assert!(matches!(load(&good[..len]), LoadError::Damaged { .. }), "{len}");
    }
    assert!(matches!(load(&[good.as_slice(), b"x"].concat()), LoadError::Damaged { section: 0, .. }));
}

#[test]
fn the_hash_is_of_everything_but_the_debug_section() {
    let mut module = Module::default();
    let plain = module.hash();
    module.debug.files.push("main.nx".to_owned());
    assert_eq!(module.hash(), plain);
    assert_eq!(Program::load(&module.encode()).unwrap().hash(), plain);
    module.constants.push(Constant::Int(1));
    assert_ne!(module.hash(), plain);
}

#[test]
fn words_are_packed_as_the_reader_takes_them_apart() {
    let code = [word_a(Op::Wide, 1), word_a(Op::Int, 2), word_ab(Op::IncLocal, 3, 0xFFFF)];
    let wide = nexa_vm::op::Word::read(&code, 0).unwrap();
    assert_eq!((wide.op, wide.signed_a(), wide.len), (Op::Int, (1 << 24) + 2, 2));
    let increment = nexa_vm::op::Word::read(&code, 2).unwrap();
    assert_eq!((increment.count, increment.b as i16), (3, -1));
}

/// What the verifier says to a call of `pick(n: int, x: any)` from a function that takes a float.
fn call_refusal(write: impl for<'a> FnOnce(&'a mut Assembler) -> &'a mut Assembler) -> String {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("pick", 2).kinds(&[Kind::Int, Kind::Any]);
    code.a(Op::LoadLocal, 0).op(Op::NegInt).op(Op::Return);
    module.add(code);
    let mut code = Assembler::new("f", 1).kinds(&[Kind::Float]);
    write(&mut code);
    module.add(code);
    for function in &mut module.module.functions {
        function.stack = 8;
    }
    match Program::new(module.module) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_call_with_an_argument_of_another_kind_is_refused_where_that_is_known() {
    let mut all = String::new();
    let mut say = |text: String| all.push_str(&(text + "\n"));
    say(call_refusal(|code| code.int(1).op(Op::Unit).ab(Op::Call, 2, 0).op(Op::Return)));
    say(call_refusal(|code| code.a(Op::LoadLocal, 0).op(Op::Unit).ab(Op::Call, 2, 0).op(Op::Return)));
    say(call_refusal(|code| code.op(Op::True).op(Op::Unit).ab(Op::TailCall, 2, 0)));
    say(call_refusal(|code| code.a(Op::LoadLocal, 0).op(Op::NegInt).op(Op::Return)));
    say(call_refusal(|code| code.a(Op::LoadLocal, 0).op(Op::NegFloat).op(Op::Return)));
    expect![[r#"
        accepted
        E1003: argument 0 of `pick` is known to be Float and must be Int, in `f` at instruction 2
        E1003: argument 0 of `pick` is known to be Bool and must be Int, in `f` at instruction 2
        E1003: an operand is known to be Float and must be Int, in `f` at instruction 1
        accepted
    "#]]
    .assert_eq(&all);
}

#[test]
fn kinds_and_schedules_must_fit_their_functions() {
    let mut all = String::new();
    let mut say = |change: &dyn Fn(&mut Module)| {
        let mut module = ModuleBuilder::new();
        let mut code = Assembler::new("f", 1);
        code.op(Op::Unit).op(Op::Return);
        module.add(code);
        let mut module = module.finish().unwrap();
        change(&mut module);
        let said = match Program::new(module) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        all.push_str(&(said + "\n"));
    };
    say(&|module| module.functions[0].param_kinds = vec![Kind::Int, Kind::Int]);
    say(&|module| module.schedules = vec![(1, Schedule::default())]);
    say(&|module| module.schedules = vec![(0, Schedule::default()); 2]);
    say(&|module| module.schedules = vec![(0, Schedule { weight: -1.0, ..Schedule::default() })]);
    say(&|module| module.schedules = vec![(0, Schedule { memory_bytes: u64::MAX, ..Schedule::default() })]);
    expect![[r#"
        E1004: 1 arguments and 2 kinds of them, in `f`
        E1004: a schedule of function 1, which does not exist or has one already
        E1004: a schedule of function 0, which does not exist or has one already
        E1004: the schedule of `f` has a weight or memory out of range
        E1004: the schedule of `f` has a weight or memory out of range
    "#]]
    .assert_eq(&all);
}

#[test]
fn a_tool_is_called_where_it_is_granted() {
    let module = common::programs::tools().program.module().clone();
    let refused = |change: &dyn Fn(&mut Module)| {
        let mut module = module.clone();
        change(&mut module);
        match Program::new(module) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let changes: &[&dyn Fn(&mut Module)] = &[
        &|_| {},
        &|module| module.grants.clear(),
        &|module| module.functions[1].code = vec![word_ab(Op::Closure, 0, 0), word_a(Op::Return, 0)],
        &|module| {
            // Not through its function.
            let find = module.functions[0].clone();
            module.functions.push(find);
        },
        &|module| module.grants[0].tools.push(1),
        &|module| module.grants.push(module.grants[0].clone()),
        &|module| module.tools[0].function = 1,
        &|module| module.tools[0].key = Some(2),
        &|module| module.tools[0].params[1] = "q".to_owned(),
        &|module| module.tools.clear(),
        &|module| module.offers[0].tools[0].args = 0,
        &|module| module.offers[0].request = 1,
        &|module| module.cached = vec![0],
        &|module| module.cached = vec![0, 0],
        &|module| module.cached = vec![1],
        &|module| module.memories = vec![(0, Remembering::default())],
        &|module| module.memories = vec![(1, Remembering::default())],
        &|module| module.memories = vec![(0, Remembering { page_size: 0, ..Remembering::default() })],
        &|module| module.functions[0].pure_ = true,
    ];
    let all: String = changes.iter().map(|change| refused(change) + "\n").collect();
    expect![[r#"
        accepted
        E1004: the tool `find` is called and was not granted, in `main` at instruction 2
        accepted
        E1004: the tool `find` is called and was not granted, in `find` at instruction 2
        E1004: the grants of function 1 are out of range or order
        E1004: the grants of function 1 are out of range or order
        E1004: the tool `find` has no function that takes its parameters
        E1004: the key of the tool `find` is none of its parameters
        E1004: the tool `find` has two parameters of one name
        E1004: the grants of function 1 are out of range or order
        E1004: the offer of model request 0 is not valid
        E1004: the offer of model request 1 is not valid
        accepted
        E1004: model request 0 is to reuse answers, and does not exist or is met again
        E1004: model request 1 is to reuse answers, and does not exist or is met again
        accepted
        E1004: the memory of model request 1 is out of range, or the request does not exist or is met again
        E1004: the memory of model request 0 is out of range, or the request does not exist or is met again
        E1003: an effect in a function marked pure, in `find` at instruction 2
    "#]]
    .assert_eq(&all);
}

#[test]
fn a_dump_names_tools_grants_and_offers() {
    let module = common::programs::tools().program.module().clone();
    let head: String = module.dump().lines().take(9).map(|line| line.to_owned() + "\n").collect();
    expect![[r#"
        tool find(q, limit): mcp("docs", name: "search"), risk low, effect read, within 9000 ms
        grant main: find
        offer A auto: find

        fn 0 find: 2 arguments, 2 locals, 0 captures, 2 operands
             0 LoadLocal 0
             1 LoadLocal 1
             2 ToolCall 2 find
             3 Return
    "#]]
    .assert_eq(&head);
}

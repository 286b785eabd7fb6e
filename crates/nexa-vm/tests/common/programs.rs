//! Fixed programs, written by hand.

use std::sync::Arc;

use nexa_event::effect::{EvictionPolicy, Remembering, Risk, ToolChoice, ToolEffect, ToolLimits, ToolSource};
use nexa_types::{Budget, Millis, Tokens};
use nexa_vm::Program;
use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::module::outline::{Act, Graph, Outline, Pinned, Step};
use nexa_vm::module::{
    Agent, Constant, Entry, EntryParam, Field, Grant, Kind, ModelRequestSpec, Offer, OfferedTool, RecordType, Schedule,
    Tool, Type,
};
use nexa_vm::op::{MergeStrategy, Op};
use nexa_vm::value::{Stage, Value};

/// A program, the function to start, and its arguments.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) program: Arc<Program>,
    pub(crate) function: u32,
    pub(crate) args: Vec<Value>,
    /// How it ends, as [`super::end`] says it.
    pub(crate) end: &'static str,
}

fn case(name: &'static str, module: ModuleBuilder, function: u16, args: Vec<Value>, end: &'static str) -> Case {
    let program = Arc::new(Program::new(module.finish().unwrap()).unwrap());
    Case { name, program, function: u32::from(function), args, end }
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    vec![
        loop_sum(),
        fib(),
        closures_and_stages(),
        handlers(),
        collections(),
        every_effect(),
        model_conversation(),
        fork_and_merge(),
        chain_of_agents(),
        iterate_dict_and_text(),
        ready_stages(),
        most_branches(),
        typed_calls(),
        saved_states(),
        clones(),
        tools(),
        cached_answers(),
        remembered_conversation(),
        outlined(),
    ]
}

/// Functions that say what kinds their arguments are, and one with a schedule: `if big { n + n } else { n }`, then as a
/// closure, then with an argument of another kind.
pub(crate) fn typed_calls() -> Case {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("pick", 3).kinds(&[Kind::Int, Kind::Any, Kind::Bool]);
    let no = code.label();
    code.a(Op::LoadLocal, 2).jump(Op::JumpIfNot, no);
    code.a(Op::LoadLocal, 0).a(Op::LoadLocal, 0).op(Op::AddInt).op(Op::Return);
    code.place(no).a(Op::LoadLocal, 0).op(Op::Return);
    let pick = module.add(code);
    let mut code = Assembler::new("main", 1);
    let caught = code.label();
    code.int(4).op(Op::NoneValue).op(Op::True).ab(Op::Call, 3, pick);
    code.ab(Op::Closure, 0, pick).int(5).op(Op::NoneValue).op(Op::False).a(Op::CallValue, 3);
    code.jump(Op::EnterTry, caught);
    code.a(Op::LoadLocal, 0).op(Op::NoneValue).op(Op::True).ab(Op::Call, 3, pick);
    code.op(Op::LeaveTry).a(Op::NewList, 3).op(Op::Return);
    let message = module.text("message");
    code.place(caught).a(Op::GetField, message).a(Op::NewList, 3).op(Op::Return);
    let main = module.add(code);
    let schedule = Schedule { weight: 2.5, memory_bytes: 1 << 20, ..Schedule::default() };
    module.module.schedules.push((u32::from(main), schedule));
    let end = r#"[8,5,"argument 1 of the function is the text \"seven\", and must be of type int"]"#;
    case("typed_calls", module, main, vec![super::text("seven")], end)
}

/// `while i < n { s = s + i * 3 % 7 - 1; i += 1 }`
pub(crate) fn loop_sum() -> Case {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("loop_sum", 1);
    let (sum, index) = (code.local(), code.local());
    code.int(0).a(Op::StoreLocal, sum).int(0).a(Op::StoreLocal, index);
    let end = code.label();
    let start = code.loop_start();
    code.a(Op::LoadLocal, index).a(Op::LoadLocal, 0).op(Op::LtInt).jump(Op::JumpIfNot, end);
    code.a(Op::LoadLocal, sum).a(Op::LoadLocal, index).int(3).op(Op::MulInt).int(7).op(Op::RemInt);
    code.op(Op::AddInt).int(1).op(Op::SubInt).a(Op::StoreLocal, sum);
    code.ab(Op::IncLocal, index as u8, 1).jump(Op::Jump, start);
    code.place(end).a(Op::LoadLocal, sum).op(Op::Return);
    let function = module.add(code);
    case("loop_sum", module, function, vec![Value::Int(100)], "197")
}

pub(crate) fn fib() -> Case {
    let mut module = ModuleBuilder::new();
    let function = module.declare("fib", 1);
    let mut code = Assembler::new("fib", 1);
    let deeper = code.label();
    code.a(Op::LoadLocal, 0).int(2).op(Op::LtInt).jump(Op::JumpIfNot, deeper);
    code.a(Op::LoadLocal, 0).op(Op::Return).place(deeper);
    code.a(Op::LoadLocal, 0).int(1).op(Op::SubInt).ab(Op::Call, 1, function);
    code.a(Op::LoadLocal, 0).int(2).op(Op::SubInt).ab(Op::Call, 1, function);
    code.op(Op::AddInt).op(Op::Return);
    module.define(function, code);
    case("fib", module, function, vec![Value::Int(11)], "89")
}

/// Closures with captures, a partial stage, a chain of functions, a tail call.
fn closures_and_stages() -> Case {
    let mut module = ModuleBuilder::new();
    let mut add = Assembler::new("add", 1).captures(1);
    add.a(Op::LoadLocal, 0).a(Op::LoadCapture, 0).op(Op::Add).op(Op::Return);
    let add = module.add(add);
    let mut sub = Assembler::new("sub", 2);
    sub.a(Op::LoadLocal, 0).a(Op::LoadLocal, 1).op(Op::Sub).op(Op::Return);
    let sub = module.add(sub);
    let count = module.declare("count", 2);
    let mut counter = Assembler::new("count", 2);
    let go_on = counter.label();
    counter.a(Op::LoadLocal, 0).int(0).op(Op::EqInt).jump(Op::JumpIfNot, go_on);
    counter.a(Op::LoadLocal, 1).op(Op::Return).place(go_on);
    counter.a(Op::LoadLocal, 0).int(1).op(Op::SubInt).a(Op::LoadLocal, 1).int(2).op(Op::AddInt);
    counter.ab(Op::TailCall, 2, count);
    module.define(count, counter);
    let mut main = Assembler::new("main", 0);
    // add(10) >> sub(_, 3) >> add(100), applied to 1; then count(500, that).
    main.int(500);
    main.int(10).ab(Op::Closure, 1, add);
    main.ab(Op::Closure, 0, sub).int(3).ab(Op::MakeStage, 1, 0);
    main.int(100).ab(Op::Closure, 1, add);
    main.a(Op::Pipeline, 3).int(1).a(Op::CallValue, 1);
    main.ab(Op::TailCall, 2, count);
    let main = module.add(main);
    case("closures_and_stages", module, main, vec![], "1108")
}

/// Errors that are caught, raised again, and cut stacks.
fn handlers() -> Case {
    let mut module = ModuleBuilder::new();
    module.module.debug.files.push("main.nx".to_owned());
    let mut divide = Assembler::new("divide", 2);
    divide.a(Op::LoadLocal, 0).a(Op::LoadLocal, 1).op(Op::Div).op(Op::Return);
    let divide = module.add(divide);
    let (code_name, at_name) = (module.text("code"), module.text("at"));
    let mut main = Assembler::new("main", 0);
    let error = main.local();
    let (caught, caught_again, end) = (main.label(), main.label(), main.label());
    main.int(1).int(2);
    main.jump(Op::EnterTry, caught_again).int(3);
    main.jump(Op::EnterTry, caught).int(4).int(5).int(0).ab(Op::Call, 2, divide).op(Op::Add).op(Op::LeaveTry);
    main.op(Op::LeaveTry).jump(Op::Jump, end);
    main.place(caught).op(Op::Raise);
    main.place(caught_again).a(Op::StoreLocal, error);
    main.a(Op::LoadLocal, error).a(Op::GetField, code_name);
    main.a(Op::LoadLocal, error).a(Op::GetField, at_name).a(Op::NewList, 4).op(Op::Return);
    main.place(end).op(Op::Trap);
    let main = module.add(main);
    module.module.debug.lines = vec![vec![(0, 0, 3), (2, 0, 4)], vec![(0, 0, 9)]];
    // `end` has other operands on the stack than the handler, which is why it traps.
    case("handlers", module, main, vec![], r#"[1,2,"div_zero","main.nx:4"]"#)
}

fn collections() -> Case {
    let mut module = ModuleBuilder::new();
    let (title, score, key) = (module.text("title"), module.text("score"), module.text("k"));
    let shape = module.record(&["title", "score"]);
    let half = module.constant(Constant::Float(0.5));
    let mut main = Assembler::new("main", 0);
    let record = main.local();
    main.a(Op::Const, title).a(Op::Const, half).a(Op::NewRecord, shape).a(Op::StoreLocal, record);
    main.a(Op::LoadLocal, record).a(Op::LoadLocal, record).a(Op::GetField, score).int(1).op(Op::Add);
    main.a(Op::SetField, score).a(Op::StoreLocal, record);
    main.a(Op::Const, key).a(Op::LoadLocal, record).a(Op::NewDict, 1);
    main.a(Op::Const, score).int(7).op(Op::SetIndex);
    main.int(1).int(2).int(3).a(Op::NewList, 3).op(Op::Dup).std("list.reverse", 1).op(Op::Add);
    main.a(Op::Const, title).a(Op::Const, key).a(Op::Concat, 2).op(Op::WrapOk);
    main.a(Op::NewTuple, 3).op(Op::Return);
    let main = module.add(main);
    let end = r#"[{"k":{"title":"title","score":1.5},"score":7},[1,2,3,3,2,1],{"ok":"titlek"}]"#;
    case("collections", module, main, vec![], end)
}

fn every_effect() -> Case {
    let mut module = ModuleBuilder::new();
    let question = module.text("go on?");
    let pause = module.constant(Constant::Duration(250));
    let channel = module.text("side");
    let mut main = Assembler::new("main", 0);
    main.op(Op::Now).int(1).int(7).op(Op::Random);
    main.a(Op::Const, question).op(Op::Log);
    main.a(Op::Const, pause).op(Op::Sleep);
    main.int(5).a(Op::Const, channel).op(Op::Emit);
    main.a(Op::Const, question).int(5).a(Op::Const, pause).op(Op::Approve);
    main.a(Op::NewList, 6).op(Op::Return);
    let main = module.add(main);
    let end = r#"[1000,1,null,null,null,{"tag":"approved","by":"ada","note":""}]"#;
    case("every_effect", module, main, vec![], end)
}

fn request(module: &mut ModuleBuilder, agent: &str) -> u32 {
    module.module.requests.push(ModelRequestSpec {
        agent: agent.to_owned(),
        answer: None,
        temperature: 0.7,
        top_p: 1.0,
        max_tokens: Tokens(100),
        seed: None,
        stop: vec![],
        timeout: Millis(1000),
    });
    module.module.requests.len() as u32 - 1
}

/// A function that asks a model about its argument and gives the text of the reply.
fn asking(module: &mut ModuleBuilder, name: &str) -> u16 {
    let request = request(module, name);
    let (none, system, user, role) = (module.text(""), module.text("system"), module.text("user"), module.text(name));
    let mut code = Assembler::new(name, 1);
    code.a(Op::Const, none);
    code.a(Op::Const, system).a(Op::Const, role).int(0).std("core.message", 3);
    code.a(Op::Const, user).a(Op::LoadLocal, 0).int(0).std("core.message", 3);
    code.a(Op::NewList, 2).a(Op::LLMCall, request).std("core.answer_from_reply", 1).op(Op::Return);
    module.add(code)
}

fn agent(module: &mut ModuleBuilder, name: &str) -> u32 {
    let function = asking(module, name);
    if module.module.types.is_empty() {
        module.module.types.push(Type::Str);
    }
    module.module.agents.push(Agent {
        name: name.to_owned(),
        doc: String::new(),
        function: u32::from(function),
        params: vec![("input".to_owned(), 0)],
        result: 0,
        budget: Budget::default(),
        timeout: Some(Millis(60_000)),
        priority: 128,
        estimate: Millis(2_000),
    });
    module.module.agents.len() as u32 - 1
}

/// Two requests, the second telling where its text comes from, and one that fails and is caught.
fn model_conversation() -> Case {
    let mut module = ModuleBuilder::new();
    let ask = asking(&mut module, "Asker");
    let (hello, fail) = (module.text("hello"), module.text("fail"));
    let mut main = Assembler::new("main", 0);
    let (caught, end) = (main.label(), main.label());
    main.a(Op::Const, hello).ab(Op::Call, 1, ask).ab(Op::Call, 1, ask);
    main.jump(Op::EnterTry, caught).a(Op::Const, fail).ab(Op::Call, 1, ask).op(Op::LeaveTry).jump(Op::Jump, end);
    main.place(caught).op(Op::IsFallback);
    main.place(end).a(Op::NewList, 2).op(Op::Return);
    let main = module.add(main);
    case("model_conversation", module, main, vec![], r#"["re: re: hello",true]"#)
}

/// Two agents of which one takes earlier answers.
fn cached_answers() -> Case {
    let mut module = ModuleBuilder::new();
    let (own, any) = (asking(&mut module, "Asker"), asking(&mut module, "Reuser"));
    module.module.cached.push(1);
    let hello = module.text("hello");
    let mut main = Assembler::new("main", 0);
    main.a(Op::Const, hello).ab(Op::Call, 1, own).ab(Op::Call, 1, any).op(Op::Return);
    let main = module.add(main);
    case("cached_answers", module, main, vec![], r#""re: re: hello""#)
}

/// Two agents of which one remembers its conversation.
fn remembered_conversation() -> Case {
    let mut module = ModuleBuilder::new();
    let (own, kept) = (asking(&mut module, "Forgetful"), asking(&mut module, "Keeper"));
    let memory =
        Remembering { window: Tokens(512), page_size: 4, evict: EvictionPolicy::Lru, ..Remembering::default() };
    module.module.memories.push((1, memory));
    let hello = module.text("hello");
    let mut main = Assembler::new("main", 0);
    main.a(Op::Const, hello).ab(Op::Call, 1, own).ab(Op::Call, 1, kept).op(Op::Return);
    let main = module.add(main);
    case("remembered_conversation", module, main, vec![], r#""re: re: hello""#)
}

/// Three branches of the three kinds; one fails; the results are merged as sections.
pub(crate) fn fork_and_merge() -> Case {
    let mut module = ModuleBuilder::new();
    let a = agent(&mut module, "A");
    let mut broken = Assembler::new("broken", 1);
    broken.a(Op::LoadLocal, 0).int(0).op(Op::Div).op(Op::Return);
    let broken = module.add(broken);
    let mut captured = Assembler::new("captured", 1).captures(1);
    captured.a(Op::LoadCapture, 0).a(Op::LoadLocal, 0).a(Op::Concat, 2).op(Op::Return);
    let captured = module.add(captured);
    let (input, first, second, third) =
        (module.text("q"), module.text("One"), module.text("Two"), module.text("Three"));
    let mut main = Assembler::new("main", 0);
    main.a(Op::Const, first).a(Op::Const, second).a(Op::Const, third).a(Op::NewList, 3);
    main.a(Op::Const, input).a(Op::AgentCreate, a).ab(Op::Closure, 0, broken);
    main.int(9).ab(Op::Closure, 1, captured).ab(Op::Fork, 3, 1);
    main.ab(Op::Merge, 3, MergeStrategy::Sections as u16).op(Op::Return);
    let main = module.add(main);
    let end = r###""## One\n\nre: q\n\n## Two\n\nfailed: type_mismatch\n\n## Three\n\n9q""###;
    case("fork_and_merge", module, main, vec![], end)
}

/// `"q" >> A >> captured >> B`, as a chain inside the VM, and the same chain as a branch.
fn chain_of_agents() -> Case {
    let mut module = ModuleBuilder::new();
    let (a, b) = (agent(&mut module, "A"), agent(&mut module, "B"));
    let mut mark = Assembler::new("mark", 1).captures(1);
    mark.a(Op::LoadLocal, 0).a(Op::LoadCapture, 0).op(Op::Add).op(Op::Return);
    let mark = module.add(mark);
    let (input, bang) = (module.text("q"), module.text("!"));
    let mut main = Assembler::new("main", 0);
    let chain = main.local();
    main.a(Op::AgentCreate, a).a(Op::Const, bang).ab(Op::Closure, 1, mark).a(Op::AgentCreate, b);
    main.a(Op::Pipeline, 3).a(Op::StoreLocal, chain);
    main.a(Op::LoadLocal, chain).a(Op::Const, input).a(Op::CallValue, 1);
    main.a(Op::Const, input).a(Op::LoadLocal, chain).a(Op::AgentCreate, b).ab(Op::Fork, 2, 1);
    main.ab(Op::Merge, 2, MergeStrategy::All as u16);
    main.a(Op::AgentCreate, a).a(Op::Const, bang).a(Op::AgentRun, 1);
    main.a(Op::NewList, 3).op(Op::Return);
    let main = module.add(main);
    case("chain_of_agents", module, main, vec![], r#"["re: re: q!",["re: re: q!","re: q"],"re: !"]"#)
}

/// A flow of which a scheduler is told what it does.
fn outlined() -> Case {
    let mut module = ModuleBuilder::new();
    let (a, b) = (agent(&mut module, "A"), agent(&mut module, "B"));
    let input = module.text("q");
    let mut main = Assembler::new("main", 0);
    main.a(Op::AgentCreate, b).a(Op::AgentCreate, a).a(Op::Const, input).a(Op::AgentRun, 1);
    main.a(Op::AgentRun, 1).op(Op::Return);
    let main = module.add(main);
    let step = |act, after: &[u32], rounds| Step { act, after: after.to_vec(), rounds };
    let steps = vec![
        step(Act::Condition(1), &[], Some(1)),
        step(Act::Fork, &[0], Some(1)),
        step(Act::Agent(a), &[1], Some(4)),
        step(Act::Agent(b), &[1], None),
        step(Act::Merge, &[2, 3], Some(1)),
        step(Act::Flow(u32::from(main)), &[4], Some(1)),
        step(Act::Transform, &[5], Some(1)),
    ];
    module.module.graph = Graph {
        outlines: vec![Outline { function: u32::from(main), steps, ends: vec![6] }],
        pins: vec![(Pinned::Agent(b), "second".to_owned()), (Pinned::Flow(u32::from(main)), "all".to_owned())],
        models: vec![(a, "acme/large".to_owned())],
    };
    let param = |(name, ty): &(String, u32)| EntryParam { name: name.clone(), ty: *ty, default: None };
    let params = module.module.agents[b as usize].params.iter().map(param).collect();
    let entry = |name: &str, is_agent, function, params| Entry {
        name: name.to_owned(),
        is_agent,
        function,
        params,
        result: 0,
        budget: Budget::default(),
    };
    let functions: Vec<u32> = module.module.agents.iter().map(|agent| agent.function).collect();
    module.module.entries =
        vec![entry("main", false, u32::from(main), Vec::new()), entry("B", true, functions[b as usize], params)];
    case("outlined", module, main, vec![], r#""re: re: q""#)
}

/// Stages with all their arguments in place: called, called as an agent, and as branches.
fn ready_stages() -> Case {
    let mut module = ModuleBuilder::new();
    let a = agent(&mut module, "A");
    let mut sub = Assembler::new("sub", 2);
    sub.a(Op::LoadLocal, 0).a(Op::LoadLocal, 1).op(Op::Sub).op(Op::Return);
    let sub = module.add(sub);
    let mut twice = Assembler::new("twice", 1).captures(1);
    twice.a(Op::LoadCapture, 0).a(Op::LoadLocal, 0).op(Op::Mul).op(Op::Return);
    let twice = module.add(twice);
    let (one, two) = (module.text("one"), module.text("two"));
    let mut main = Assembler::new("main", 0);
    main.ab(Op::Closure, 0, sub).int(9).int(4).ab(Op::MakeStage, 2, Stage::NOTHING_OPEN).a(Op::CallValue, 0);
    main.a(Op::AgentCreate, a).a(Op::Const, one).ab(Op::MakeStage, 1, Stage::NOTHING_OPEN).a(Op::CallValue, 0);
    main.a(Op::AgentCreate, a).a(Op::Const, two).ab(Op::MakeStage, 1, Stage::NOTHING_OPEN);
    main.ab(Op::Closure, 0, sub).int(9).int(4).ab(Op::MakeStage, 2, Stage::NOTHING_OPEN);
    main.int(2).ab(Op::Closure, 1, twice).int(21).ab(Op::MakeStage, 1, Stage::NOTHING_OPEN);
    main.ab(Op::Fork, 3, 0).ab(Op::Merge, 3, MergeStrategy::All as u16);
    main.a(Op::NewList, 3).op(Op::Return);
    let main = module.add(main);
    case("ready_stages", module, main, vec![], r#"[5,"re: one",["re: two",5,42]]"#)
}

/// 256 branches, as many as a fork may have, and every strategy on what they give.
fn most_branches() -> Case {
    let mut module = ModuleBuilder::new();
    let mut same = Assembler::new("same", 1);
    same.a(Op::LoadLocal, 0).int(255).op(Op::Sub).op(Op::Return);
    let same = module.add(same);
    let mut main = Assembler::new("main", 0);
    let results = main.local();
    main.int(300);
    for _ in 0..256 {
        main.ab(Op::Closure, 0, same);
    }
    main.ab(Op::Fork, 0, 1).a(Op::StoreLocal, results);
    main.a(Op::LoadLocal, results).int(256).ab(Op::Merge, 0, MergeStrategy::AtLeast as u16).op(Op::Len);
    main.a(Op::LoadLocal, results).int(129).ab(Op::Merge, 0, MergeStrategy::Vote as u16);
    main.a(Op::LoadLocal, results);
    for _ in 0..256 {
        main.int(2);
    }
    main.a(Op::NewList, 256).int(256).ab(Op::Merge, 0, MergeStrategy::WeightedAverage as u16);
    main.a(Op::NewList, 3).op(Op::Return);
    let main = module.add(main);
    case("most_branches", module, main, vec![], "[256,45,45.0]")
}

/// A tool called through its function and offered to a model, and one that says no.
pub(crate) fn tools() -> Case {
    let mut module = ModuleBuilder::new();
    let find = module.add({
        let mut code = Assembler::new("find", 2);
        code.a(Op::LoadLocal, 0).a(Op::LoadLocal, 1).ab(Op::ToolCall, 2, 0).op(Op::Return);
        code
    });
    let asked = request(&mut module, "A");
    module.module.types.clear();
    module.module.types.extend([Type::Str, Type::Int, Type::Option(1)]);
    let field = |name: &str, ty, doc: &str| Field { name: name.to_owned(), ty, doc: doc.to_owned() };
    let fields = vec![field("q", 0, "What to look for."), field("limit", 2, "")];
    module.module.types.push(Type::Record(RecordType { name: "find".to_owned(), nominal: false, fields }));
    module.module.tools.push(Tool {
        name: "find".to_owned(),
        source: ToolSource::Mcp { server: "docs".to_owned(), name: "search".to_owned() },
        function: u32::from(find),
        params: vec!["q".to_owned(), "limit".to_owned()],
        risk: Risk::Low,
        effect: ToolEffect::Read,
        idempotent: true,
        key: Some(0),
        limits: ToolLimits { hosts: vec!["docs.example".to_owned()], memory: Some(1 << 24), ..ToolLimits::default() },
        timeout: Millis(9_000),
    });
    let offered = OfferedTool { name: "find".to_owned(), description: "Finds.".to_owned(), args: 3 };
    module.module.offers.push(Offer { request: asked, choice: ToolChoice::Auto, tools: vec![offered] });
    let (q, fail, none) = (module.text("cats"), module.text("fail"), module.text(""));
    let (user, args) = (module.text("user"), module.text(r#"{"q":"dogs"}"#));
    let message = module.record(&["role", "text", "from"]);
    let calls = module.text("calls");
    let mut main = Assembler::new("main", 0);
    let (caught, over) = (main.label(), main.label());
    main.a(Op::Const, q).int(3).ab(Op::Call, 2, find);
    main.jump(Op::EnterTry, caught).a(Op::Const, fail).int(1).ab(Op::Call, 2, find).op(Op::LeaveTry);
    main.jump(Op::Jump, over).place(caught).op(Op::WrapErr).std("result.code", 1).place(over);
    main.a(Op::Const, none).a(Op::Const, user).a(Op::Const, q).int(0).a(Op::NewRecord, message).a(Op::NewList, 1);
    main.a(Op::LLMCall, asked).a(Op::GetField, calls).op(Op::Len);
    main.int(3).a(Op::Const, args).std("core.read_args", 2).op(Op::Unwrap);
    main.int(3).a(Op::Const, q).std("core.read_args", 2).std("result.error", 1);
    main.a(Op::NewList, 5).op(Op::Return);
    let main = module.add(main);
    module.module.grants.push(Grant { function: u32::from(main), tools: vec![0] });
    let end = concat!(
        r#"["find: {\"q\":\"cats\",\"limit\":3}","tool_failed",0,{"q":"dogs","limit":null},"#,
        r#"["the arguments are not valid JSON at character 1: a value expected"]]"#
    );
    case("tools", module, main, vec![], end)
}

fn iterate_dict_and_text() -> Case {
    let mut module = ModuleBuilder::new();
    let (a, b, word) = (module.text("a"), module.text("b"), module.text("día"));
    let mut main = Assembler::new("main", 0);
    let (out, done, over) = (main.local(), main.label(), main.label());
    main.a(Op::NewList, 0).a(Op::StoreLocal, out);
    main.a(Op::Const, a).int(1).a(Op::Const, b).int(2).a(Op::NewDict, 2).op(Op::IterNew);
    let start = main.loop_start();
    main.jump(Op::IterNext, done).a(Op::Unpack, 2).op(Op::Swap).op(Op::Pop);
    let value = main.local();
    main.a(Op::StoreLocal, value).a(Op::LoadLocal, out).a(Op::LoadLocal, value).std("list.push", 2);
    main.a(Op::StoreLocal, out).jump(Op::Jump, start);
    main.place(done).a(Op::Const, word).op(Op::IterNew);
    let start = main.loop_start();
    main.jump(Op::IterNext, over).a(Op::StoreLocal, value);
    main.a(Op::LoadLocal, out).a(Op::LoadLocal, value).std("list.push", 2).a(Op::StoreLocal, out);
    main.jump(Op::Jump, start).place(over).a(Op::LoadLocal, out).op(Op::Return);
    let main = module.add(main);
    case("iterate_dict_and_text", module, main, vec![], r#"[1,2,"d","í","a"]"#)
}

/// States saved in a call and in its caller, gone back to from a handler; a memory; a secret.
fn saved_states() -> Case {
    let mut module = ModuleBuilder::new();
    let inner = module.declare("inner", 1);
    let mut code = Assembler::new("inner", 1);
    let (own, done) = (code.local(), code.label());
    code.op(Op::Snapshot).a(Op::StoreLocal, own).op(Op::Now).op(Op::Pop);
    // Twice from here, then once a call from the caller's.
    let up = code.label();
    code.a(Op::LoadLocal, own).op(Op::Tries).int(2).op(Op::LtInt).jump(Op::JumpIfNot, up);
    code.a(Op::LoadLocal, own).op(Op::Restore);
    code.place(up);
    code.a(Op::LoadLocal, 0).op(Op::Tries).int(2).op(Op::LtInt).jump(Op::JumpIfNot, done);
    code.a(Op::LoadLocal, 0).op(Op::Restore);
    code.place(done).a(Op::LoadLocal, own).op(Op::Return);
    module.define(inner, code);

    let mut code = Assembler::new("main", 0);
    let (own, dead, caught) = (code.local(), code.local(), code.label());
    let key = module.constant(Constant::Str("key".to_owned()));
    let secret = module.constant(Constant::Str("API".to_owned()));
    let tea = module.constant(Constant::Str("a cup of tea".to_owned()));
    code.a(Op::Secret, secret).op(Op::Pop);
    code.a(Op::Const, key).a(Op::Const, tea).a(Op::MemStore, 0).op(Op::Pop);
    code.op(Op::Snapshot).a(Op::StoreLocal, own);
    code.a(Op::LoadLocal, own).ab(Op::Call, 1, inner).a(Op::StoreLocal, dead);
    code.a(Op::Const, key).a(Op::MemLoad, 0).op(Op::NoneValue).op(Op::Emit).op(Op::Pop);
    code.jump(Op::EnterTry, caught).a(Op::LoadLocal, dead).op(Op::Restore);
    code.place(caught).op(Op::Pop);
    code.a(Op::LoadLocal, own).op(Op::Tries);
    code.a(Op::Const, tea).int(5).a(Op::MemRecall, 0).op(Op::Len).a(Op::NewTuple, 2).op(Op::Return);
    let main = module.add(code);
    case("saved_states", module, main, Vec::new(), "[2,1]")
}

/// A clone is the agent that was derived, as a value of its own; nothing else can be cloned.
fn clones() -> Case {
    let mut module = ModuleBuilder::new();
    let (plain, strict, told) = (agent(&mut module, "Plain"), agent(&mut module, "Strict"), agent(&mut module, "Told"));
    module.module.agents[told as usize].params = vec![("question".to_owned(), 0)];
    let (input, message) = (module.text("q"), module.text("message"));
    let mut code = Assembler::new("main", 0);
    code.a(Op::AgentCreate, plain).a(Op::AgentClone, strict).a(Op::AgentCreate, strict).op(Op::Eq);
    code.a(Op::AgentCreate, plain).a(Op::AgentClone, strict).a(Op::AgentCreate, plain).op(Op::Eq);
    code.a(Op::AgentCreate, plain).a(Op::AgentClone, strict).a(Op::Const, input).a(Op::AgentRun, 1);
    let (no_agent, next, other, end) = (code.label(), code.label(), code.label(), code.label());
    code.jump(Op::EnterTry, no_agent).int(7).a(Op::AgentClone, strict).op(Op::LeaveTry).jump(Op::Jump, next);
    code.place(no_agent).a(Op::GetField, message);
    code.place(next).jump(Op::EnterTry, other).a(Op::AgentCreate, plain).a(Op::AgentClone, told);
    code.op(Op::LeaveTry).jump(Op::Jump, end);
    code.place(other).a(Op::GetField, message);
    code.place(end).a(Op::NewList, 5).op(Op::Return);
    let main = module.add(code);
    let end =
        r#"[true,false,"re: q","the number 7 is no agent to be cloned","`Told` takes other parameters than `Plain`"]"#;
    case("clones", module, main, Vec::new(), end)
}

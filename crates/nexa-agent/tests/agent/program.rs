//! Small programs for agents under test, written in the machine's own words.

use std::sync::Arc;

use nexa_event::effect::{Risk, ToolEffect, ToolLimits, ToolSource};
use nexa_types::{Budget, Millis, Payload, Tokens};
use nexa_vm::codec;
use nexa_vm::module::{Agent, Constant, Function, Grant, ModelRequestSpec, Module, Tool, Type};
use nexa_vm::op::{ForkMode, Op, word_a, word_ab};
use nexa_vm::value::{Shape, Value};
use nexa_vm::vm::Program;

/// Something that a function does. Its results are texts, and the function returns them in a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// Returns its argument and ends.
    Argument,
    /// Takes an argument and leaves it alone.
    Takes,
    /// Asks for the time, and adds it.
    Now,
    /// Asks for a number from 0 to 999, and adds it.
    Random,
    /// Logs a line.
    Log,
    /// Emits a text.
    Emit,
    /// Sleeps so many milliseconds.
    Sleep(u32),
    /// Asks a model, with 16 bytes of text, for at most so many tokens, and adds the answer.
    Ask(u16),
    /// As `Ask`, but a failure adds its code.
    TryAsk(u16),
    /// Asks a person, who has so many milliseconds.
    Approve(u32),
    /// Runs functions as children side by side, and adds what they return. A single one raises what it raised; of
    /// several, a failed one adds an exclamation mark.
    Fork(Vec<u32>),
    /// Runs functions as children side by side, each for at most so many milliseconds, and adds what the first that
    /// ends well returns as soon as so many have; a failure adds its code.
    TryFirst(Vec<u32>, u16, u32),
    /// Runs a function so many times side by side, each over all that was said, and
    /// remembers nothing else than `forked`, or the code of the failure.
    TryForkOver(u8, u16),
    /// Calls a tool, which may be called twice or not, and adds what it gives; a failure adds its code.
    TryCall(bool),
    /// The same of one that only looks.
    TryLook,
    /// Runs a function as a child that has caps of its own, and adds what it returns; if it is tried, a failure adds its
    /// code.
    Run { function: u32, budget: Budget, tries: bool },
    /// Runs functions side by side, each with caps of its own; a failed one adds an exclamation mark.
    ForkCapped(Vec<(u32, Budget)>),
    /// Counts to a number.
    Count(u32),
    /// Fails.
    Fail,
}

/// The encoded list of some texts: the arguments of a call.
pub(crate) fn text_of(texts: &[&str]) -> Payload {
    let texts = texts.iter().map(|text| Value::Str((*text).into())).collect();
    codec::encode(&Value::List(Arc::new(texts)))
}

/// A program of these functions.
pub(crate) fn program(functions: &[Vec<Act>]) -> Arc<Program> {
    let mut module = Module::default();
    let fields = ["role", "text", "from"].map(str::to_owned).to_vec();
    module.shapes.push(Shape { fields, ..Shape::default() });
    for (index, acts) in functions.iter().enumerate() {
        let takes_argument = acts.contains(&Act::Argument) || acts.contains(&Act::Takes);
        let mut writer = Writer { module: &mut module, code: Vec::new() };
        writer.function(acts);
        let code = writer.code;
        if acts.iter().any(|act| matches!(act, Act::TryCall(_) | Act::TryLook)) {
            let tools = (0..module.tools.len() as u32).collect();
            module.grants.push(Grant { function: index as u32, tools });
        }
        let (name, arity) = (format!("f{index}"), u8::from(takes_argument));
        let forks_over = |act: &Act| matches!(act, Act::TryForkOver(_, branch) if usize::from(*branch) == index);
        let captures = u8::from(functions.iter().flatten().any(forks_over));
        module.functions.push(Function { name, arity, captures, locals: 4, stack: 260, code, ..Function::default() });
    }
    // Each tool has a function of its own around its call, as compilers write it.
    for number in 0..module.tools.len() as u32 {
        let code = vec![word_ab(Op::ToolCall, 0, number as u16), word_a(Op::Return, 0)];
        module.tools[number as usize].function = module.functions.len() as u32;
        module.functions.push(Function { name: format!("tool{number}"), stack: 1, code, ..Function::default() });
    }
    Arc::new(Program::new(module).expect("the verifier accepts it"))
}

const ARGUMENT: u32 = 0;
const SAID: u32 = 1;
const COUNTER: u32 = 2;
const BRANCHES: u32 = 3;

struct Writer<'m> {
    module: &'m mut Module,
    code: Vec<u32>,
}

impl Writer<'_> {
    fn op(&mut self, op: Op) {
        self.code.push(word_a(op, 0));
    }

    fn op_a(&mut self, op: Op, a: u32) {
        self.code.push(word_a(op, a));
    }

    fn constant(&mut self, constant: Constant) -> u32 {
        let known = self.module.constants.iter().position(|known| *known == constant);
        known.unwrap_or_else(|| {
            self.module.constants.push(constant);
            self.module.constants.len() - 1
        }) as u32
    }

    fn text(&mut self, text: &str) {
        let index = self.constant(Constant::Str(text.to_owned()));
        self.op_a(Op::Const, index);
    }

    fn duration(&mut self, millis: u32) {
        let index = self.constant(Constant::Duration(millis.into()));
        self.op_a(Op::Const, index);
    }

    fn field(&mut self, name: &str) {
        let index = self.constant(Constant::Str(name.to_owned()));
        self.op_a(Op::GetField, index);
    }

    /// A jump whose target is set by `land`.
    fn jump(&mut self, op: Op) -> usize {
        self.op(op);
        self.code.len() - 1
    }

    fn land(&mut self, jump: usize) {
        let op = Op::from_byte(self.code[jump] as u8).expect("it was written as one");
        self.code[jump] = word_a(op, self.code.len() as u32);
    }

    /// `… text → …`, adds the text to what was said.
    fn say(&mut self) {
        self.op_a(Op::LoadLocal, SAID);
        self.op(Op::Swap);
        self.op_a(Op::Concat, 2);
        self.op_a(Op::StoreLocal, SAID);
    }

    fn function(&mut self, acts: &[Act]) {
        self.text("");
        self.op_a(Op::StoreLocal, SAID);
        for act in acts {
            self.act(act);
            if matches!(act, Act::Fail | Act::Argument) {
                return;
            }
        }
        self.op_a(Op::LoadLocal, SAID);
        self.op(Op::Return);
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Argument => {
                self.op_a(Op::LoadLocal, ARGUMENT);
                self.op(Op::Return);
            }
            Act::Takes => {}
            Act::Now => {
                self.op(Op::Now);
                self.say();
            }
            Act::Random => {
                self.op_a(Op::Int, 0);
                self.op_a(Op::Int, 1_000);
                self.op(Op::Random);
                self.say();
            }
            Act::Log => {
                self.text("line");
                self.op(Op::Log);
                self.op(Op::Pop);
            }
            Act::Emit => {
                self.text("something");
                self.op(Op::NoneValue);
                self.op(Op::Emit);
                self.op(Op::Pop);
            }
            Act::Sleep(millis) => {
                self.duration(*millis);
                self.op(Op::Sleep);
                self.op(Op::Pop);
            }
            Act::Ask(max) => {
                self.ask(*max);
                self.say();
            }
            Act::TryAsk(max) => {
                let handler = self.jump(Op::EnterTry);
                self.ask(*max);
                self.op(Op::LeaveTry);
                let end = self.jump(Op::Jump);
                self.land(handler);
                self.field("code");
                self.land(end);
                self.say();
            }
            Act::Approve(millis) => {
                self.text("may I?");
                self.op(Op::NoneValue);
                self.duration(*millis);
                self.op(Op::Approve);
                self.op(Op::Pop);
            }
            Act::TryCall(idempotent) => self.try_call(ToolEffect::Write, *idempotent),
            Act::TryLook => self.try_call(ToolEffect::Read, false),
            Act::Fork(functions) => self.fork(functions),
            Act::TryFirst(functions, wanted, millis) => {
                let handler = self.jump(Op::EnterTry);
                for function in functions {
                    self.code.push(word_ab(Op::Closure, 0, *function as u16));
                }
                self.duration(*millis);
                let mode =
                    ForkMode { has_input: false, has_timeout: true, first_ok: Some(*wanted), is_detached: false };
                self.code.push(word_ab(Op::Fork, functions.len() as u8, mode.flags()));
                self.op(Op::LeaveTry);
                let end = self.jump(Op::Jump);
                self.land(handler);
                self.field("code");
                self.land(end);
                self.say();
            }
            Act::TryForkOver(times, function) => {
                let handler = self.jump(Op::EnterTry);
                for _ in 0..*times {
                    self.op_a(Op::LoadLocal, SAID);
                    self.code.push(word_ab(Op::Closure, 1, *function));
                }
                self.code.push(word_ab(Op::Fork, *times, 0));
                self.op(Op::Pop);
                self.text("forked");
                self.op(Op::LeaveTry);
                let end = self.jump(Op::Jump);
                self.land(handler);
                self.field("code");
                self.land(end);
                self.op_a(Op::StoreLocal, SAID);
            }
            Act::Run { function, budget, tries: false } => {
                self.agent(*function, *budget);
                self.op_a(Op::AgentRun, 0);
                self.say();
            }
            Act::Run { function, budget, tries: true } => {
                let handler = self.jump(Op::EnterTry);
                self.agent(*function, *budget);
                self.op_a(Op::AgentRun, 0);
                self.op(Op::LeaveTry);
                let end = self.jump(Op::Jump);
                self.land(handler);
                self.field("code");
                self.land(end);
                self.say();
            }
            Act::ForkCapped(children) => {
                for (function, budget) in children {
                    self.agent(*function, *budget);
                }
                self.say_branches(children.len());
            }
            Act::Count(to) => self.count(*to),
            Act::Fail => {
                self.text("it said so");
                self.op(Op::Raise);
            }
        }
    }

    /// `… → … text`
    fn ask(&mut self, max: u16) {
        self.op(Op::NoneValue);
        self.text("user");
        self.text("What comes next?");
        self.op_a(Op::Int, 0);
        self.op_a(Op::NewRecord, 0);
        self.op_a(Op::NewList, 1);
        let request = self.module.requests.len() as u32;
        self.module.requests.push(ModelRequestSpec {
            agent: "A".to_owned(),
            answer: None,
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: Tokens(max.into()),
            seed: None,
            stop: Vec::new(),
            timeout: Millis(60_000),
        });
        self.op_a(Op::LLMCall, request);
        self.field("text");
    }

    fn try_call(&mut self, effect: ToolEffect, idempotent: bool) {
        let tool = self.module.tools.len();
        self.module.tools.push(Tool {
            name: format!("tool{tool}"),
            source: ToolSource::Mcp { server: "bank".to_owned(), name: "pay".to_owned() },
            function: 0,
            params: Vec::new(),
            risk: Risk::Low,
            effect,
            idempotent,
            key: None,
            limits: ToolLimits::default(),
            timeout: Millis(5_000),
        });
        let handler = self.jump(Op::EnterTry);
        self.code.push(word_ab(Op::ToolCall, 0, tool as u16));
        self.op(Op::LeaveTry);
        let end = self.jump(Op::Jump);
        self.land(handler);
        self.field("code");
        self.land(end);
        self.say();
    }

    fn fork(&mut self, functions: &[u32]) {
        for function in functions {
            self.code.push(word_ab(Op::Closure, 0, *function as u16));
        }
        if functions.len() == 1 {
            self.op_a(Op::AgentRun, 0);
            return self.say();
        }
        self.say_branches(functions.len());
    }

    /// `… → … agent`
    fn agent(&mut self, function: u32, budget: Budget) {
        let number = self.module.agents.len() as u32;
        let name = format!("f{function}");
        if self.module.types.is_empty() {
            self.module.types.push(Type::Str);
        }
        self.module.agents.push(Agent {
            name,
            doc: String::new(),
            function,
            params: Vec::new(),
            result: 0,
            budget,
            timeout: None,
            priority: 128,
            estimate: Millis(1_000),
        });
        self.op_a(Op::AgentCreate, number);
    }

    /// `… callable(1) … callable(n) → …`, runs them and adds what each gives.
    fn say_branches(&mut self, count: usize) {
        self.code.push(word_ab(Op::Fork, count as u8, 0));
        self.op_a(Op::StoreLocal, BRANCHES);
        for branch in 0..count as u32 {
            self.op_a(Op::LoadLocal, BRANCHES);
            self.op_a(Op::Int, branch);
            self.op(Op::Index);
            let failed = self.jump(Op::JumpIfErr);
            self.op(Op::Unwrap);
            let end = self.jump(Op::Jump);
            self.land(failed);
            self.op(Op::Pop);
            self.text("!");
            self.land(end);
            self.say();
        }
    }

    fn count(&mut self, to: u32) {
        self.op_a(Op::Int, 0);
        self.op_a(Op::StoreLocal, COUNTER);
        let start = self.code.len() as u32;
        self.op(Op::LoopTick);
        self.op_a(Op::LoadLocal, COUNTER);
        let limit = self.constant(Constant::Int(to.into()));
        self.op_a(Op::Const, limit);
        self.op(Op::Lt);
        let end = self.jump(Op::JumpIfNot);
        self.code.push(word_ab(Op::IncLocal, COUNTER as u8, 1));
        self.op_a(Op::Jump, start);
        self.land(end);
    }
}

//! Small programs, put together by hand so that these tests need no compiler.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

use nexa_types::{Budget, Millis, Tokens};
use nexa_vm::module::{Constant, Entry, Function, ModelRequestSpec, Module};
use nexa_vm::op::{MergeStrategy, Op, word_a, word_ab};
use nexa_vm::value::Shape;

/// A module under construction.
#[derive(Default)]
pub struct Builder {
    module: Module,
}

impl Builder {
    fn new() -> Self {
        let fields = ["role", "text", "from"].map(str::to_owned).to_vec();
        let request = ModelRequestSpec {
            agent: "Reader".into(),
            answer: None,
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: Tokens(100),
            seed: None,
            stop: Vec::new(),
            timeout: Millis(60_000),
        };
        let shape = Shape { type_name: String::new(), tag: String::new(), fields };
        Self { module: Module { shapes: vec![shape], requests: vec![request], ..Module::default() } }
    }

    fn constant(&mut self, constant: Constant) -> u32 {
        self.module.constants.push(constant);
        self.module.constants.len() as u32 - 1
    }

    fn text(&mut self, text: &str) -> u32 {
        let at = self.constant(Constant::Str(text.into()));
        word_a(Op::Const, at)
    }

    /// `ask(prompt)`, where `prompt` leaves a text on the stack; leaves the reply's text.
    fn ask(&mut self, prompt: &[u32]) -> Vec<u32> {
        let (model, role) = (self.text("fake/model"), self.text("user"));
        let field = self.constant(Constant::Str("text".into()));
        let mut code = vec![model, role];
        code.extend(prompt);
        code.extend([
            word_a(Op::Int, 0),
            word_a(Op::NewRecord, 0),
            word_a(Op::NewList, 1),
            word_a(Op::LLMStream, 0),
            word_a(Op::GetField, field),
        ]);
        code
    }

    fn function(&mut self, name: &str, locals: u16, code: Vec<u32>) -> u32 {
        let function = Function { name: name.into(), locals, stack: 300, code, ..Function::default() };
        self.module.functions.push(function);
        let at = self.module.functions.len() - 1;
        let lines = vec![(0, 0, 1)];
        self.module.debug.lines.push(lines);
        at as u32
    }

    /// Ends the module; its entry `main` is the last function.
    fn main(mut self, locals: u16, code: Vec<u32>) -> Module {
        if self.module.types.is_empty() {
            self.module.types.push(nexa_vm::module::Type::Any);
        }
        let function = self.function("main", locals, code);
        self.module.debug.files.push("test.nx".into());
        self.module.entries.push(Entry {
            name: "main".into(),
            is_agent: false,
            function,
            params: Vec::new(),
            result: 0,
            budget: Budget::default(),
        });
        self.module
    }
}

/// `ask("hello")`
pub fn one_call() -> Module {
    let mut builder = Builder::new();
    let prompt = builder.text("hello");
    let mut code = builder.ask(&[prompt]);
    code.push(word_a(Op::Return, 0));
    builder.main(0, code)
}

/// `let text = "0"; n times: text = ask(text); text`
pub fn calls(n: u32) -> Module {
    let mut builder = Builder::new();
    let start = builder.text("0");
    let ask = builder.ask(&[word_a(Op::LoadLocal, 1)]);
    let (tick, end) = (4, 4 + 4 + ask.len() as u32 + 3 + 1);
    let mut code = vec![word_a(Op::Int, 0), word_a(Op::StoreLocal, 0), start, word_a(Op::StoreLocal, 1)];
    code.extend([
        word_a(Op::LoopTick, 0),
        word_a(Op::LoadLocal, 0),
        word_a(Op::Int, n),
        word_a(Op::Lt, 0),
        word_a(Op::JumpIfNot, end),
    ]);
    code.extend(ask);
    code.extend([word_a(Op::StoreLocal, 1), word_ab(Op::IncLocal, 0, 1), word_a(Op::Jump, tick)]);
    assert_eq!(code.len() as u32, end);
    code.extend([word_a(Op::LoadLocal, 1), word_a(Op::Return, 0)]);
    builder.main(2, code)
}

/// `ask(merge(fork [ask("branch 0"), .., ask("branch n-1")]))`, merged as a list and counted.
pub fn fork(n: u8) -> Module {
    let mut builder = Builder::new();
    let mut branches = Vec::new();
    for branch in 0..n {
        let prompt = builder.text(&format!("branch {branch}"));
        let mut code = builder.ask(&[prompt]);
        code.push(word_a(Op::Return, 0));
        branches.push(builder.function(&format!("branch {branch}"), 0, code));
    }
    let mut code: Vec<u32> = branches.iter().map(|function| word_ab(Op::Closure, 0, *function as u16)).collect();
    code.push(word_ab(Op::Fork, n, 0));
    code.push(word_ab(Op::Merge, 0, MergeStrategy::All as u16));
    code.push(word_a(Op::StoreLocal, 0));
    let merge = builder.ask(&[word_a(Op::LoadLocal, 0), word_a(Op::Concat, 1)]);
    code.extend(merge);
    code.push(word_a(Op::Return, 0));
    builder.main(1, code)
}

/// `log("going to sleep"); sleep(millis); "awake"`
pub fn sleeper(millis: i64) -> Module {
    let mut builder = Builder::new();
    let line = builder.text("going to sleep");
    let span = builder.constant(Constant::Duration(millis));
    let done = builder.text("awake");
    builder.main(
        0,
        vec![
            line,
            word_a(Op::Log, 0),
            word_a(Op::Pop, 0),
            word_a(Op::Const, span),
            word_a(Op::Sleep, 0),
            word_a(Op::Pop, 0),
            done,
            word_a(Op::Return, 0),
        ],
    )
}

/// `approve("go on?")`
pub fn approval() -> Module {
    let mut builder = Builder::new();
    let question = builder.text("go on?");
    let none = word_a(Op::NoneValue, 0);
    builder.main(0, vec![question, none, none, word_a(Op::Approve, 0), word_a(Op::Return, 0)])
}

/// `approve("go on?", timeout: millis)`
pub fn approval_within(millis: i64) -> Module {
    let mut builder = Builder::new();
    let question = builder.text("go on?");
    let timeout = builder.constant(Constant::Duration(millis));
    let (none, timeout) = (word_a(Op::NoneValue, 0), word_a(Op::Const, timeout));
    builder.main(0, vec![question, none, timeout, word_a(Op::Approve, 0), word_a(Op::Return, 0)])
}

/// Counts to `n`, then `ask("x")`.
pub fn counts_and_asks(n: u32) -> Module {
    let mut builder = Builder::new();
    let prompt = builder.text("x");
    let ask = builder.ask(&[prompt]);
    let (tick, end) = (2, 9);
    let mut code = vec![word_a(Op::Int, 0), word_a(Op::StoreLocal, 0)];
    code.extend([
        word_a(Op::LoopTick, 0),
        word_a(Op::LoadLocal, 0),
        word_a(Op::Int, n),
        word_a(Op::Lt, 0),
        word_a(Op::JumpIfNot, end),
        word_ab(Op::IncLocal, 0, 1),
        word_a(Op::Jump, tick),
    ]);
    assert_eq!(code.len() as u32, end);
    code.extend(ask);
    code.push(word_a(Op::Return, 0));
    builder.main(1, code)
}

/// `"n"`: a module that differs from those of other numbers.
pub fn says(n: usize) -> Module {
    let mut builder = Builder::new();
    let text = builder.text(&n.to_string());
    builder.main(0, vec![text, word_a(Op::Return, 0)])
}

/// `loop {}`
pub fn spin() -> Module {
    Builder::new().main(0, vec![word_a(Op::LoopTick, 0), word_a(Op::Jump, 0)])
}

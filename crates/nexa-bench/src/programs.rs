//! The programs that are compiled and run.

use std::fmt::Write as _;
use std::sync::Arc;

use nexa_lang::compile_text;
use nexa_types::Outcome;
use nexa_vm::value::Value;
use nexa_vm::{Limits, Program, Stop, Vm, codec};

use crate::measure::Error;
use crate::peers::Peer;

/// The two programs of [`crate::peers`], and one that waits.
const MACHINE: &str = "\
fn count(n: int) -> int {
    let sum = 0
    let i = 0
    while (i < n) {
        sum = sum + i * 3 % 7 - 1
        i += 1
    }
    return sum
}
fn fibonacci(n: int) -> int {
    if (n < 2) { return n }
    return fibonacci(n - 1) + fibonacci(n - 2)
}
flow spin(n: int) -> int { return count(n) }
flow fib(n: int) -> int { return fibonacci(n) }
flow hold(kept: any) -> any {
    sleep(1h)
    return kept
}
";

/// Instructions between two looks at the clock, as a node gives them.
const SLICE: u64 = 10_000;

/// Nexa's own machine.
pub(crate) struct Machine(Arc<Program>);

impl Machine {
    pub(crate) fn new() -> Result<Self, Error> {
        let compiled = compile_text("machine.nx", MACHINE).into_compiled();
        let module = compiled.map_err(|failed| failed.to_json_lines())?.module;
        Ok(Self(Arc::new(Program::load(&module.encode())?)))
    }

    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.0
    }

    /// A machine at the start of a flow.
    pub(crate) fn start(&self, flow: &str, args: Vec<Value>) -> Result<Vm, Error> {
        let entries = &self.0.module().entries;
        let entry = entries.iter().find(|entry| entry.name == flow).ok_or("no such flow")?;
        Ok(Vm::start(Arc::clone(&self.0), entry.function, args, Limits::default())?)
    }

    fn call(&self, flow: &str, argument: i64) -> Result<i64, Error> {
        let mut vm = self.start(flow, vec![Value::Int(argument)])?;
        loop {
            match vm.run(SLICE) {
                Stop::OutOfFuel => {}
                Stop::Ended(Outcome::Ok(payload)) => match codec::decode(&payload)? {
                    Value::Int(number) => return Ok(number),
                    other => return Err(format!("{flow} gave {other:?}").into()),
                },
                other => return Err(format!("{flow} came to {other:?}").into()),
            }
        }
    }
}

impl Peer for Machine {
    fn spin(&mut self, rounds: i64) -> Result<i64, Error> {
        self.call("spin", rounds)
    }

    fn fib(&mut self, place: i64) -> Result<i64, Error> {
        self.call("fib", place)
    }
}

/// A program of so many agents, 15 lines each: the agent with its protocol, and a flow that calls it in several ways.
pub(crate) fn agents(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let _infallible = write!(
            text,
            r##"
/// What agent {number} finds.
protocol Finding{number} {{ title: str, points: list[str], score: float? }}
/// Reads notes for readers of kind {number}.
agent Reader{number}(notes: str, audience: str = "team") -> Finding{number} {{
    role: "Editor", prompt: "Condense the notes for #{{audience}}, kind {number}."
    model: ["local/small", "remote/large"], temperature: 0.2, max_tokens: 800
}}
flow read{number}(topics: list[str]) -> str {{
    let points: list[str] = []
    for each i, topic in topics {{
        if (i > 10 or topic.len() == 0) {{ break }}
        points += (Reader{number}.run("#{{i}}: #{{topic}}") otherwise Finding{number} {{ title: "none", points: [] }}).points
    }}
    return points.join("\n")
}}
"##
        );
    }
    text.push_str("flow main(q: str) -> str { return q }\n");
    text
}

/// A value of about 64 KiB, of what agents hold: tuples of texts and numbers.
pub(crate) fn payload() -> Value {
    let line = |index: i64| {
        let text = format!("line {index}: the quick brown fox jumps over the lazy dog");
        Value::Tuple(Arc::new(vec![Value::Int(index), Value::Str(text.as_str().into()), Value::None]))
    };
    Value::List(Arc::new((0..1_000).map(line).collect()))
}

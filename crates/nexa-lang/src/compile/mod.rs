//! The compiler: from a checked program to a module of bytecode.
//!
//! ```text
//! hir ─► agent_loop (an agent's declaration becomes a function) ─► statements, expressions, conditions ─► module
//!                                                                     └─► pool: constants, types, shapes
//! ```
//!
//! Holds:
//!   CO-1  equal programs give equal bytes: numbers are given out in the order in which things are met
//!   CO-2  a backward jump leads to a `LoopTick` only
//!   CO-3  code that cannot be reached is not written
//!
//! Not here: finding mistakes (`check`). What is left to refuse are the machine's limits, E1006.

mod agent_loop;
mod builder;
mod conditions;
mod expressions;
mod limits;
mod pool;
mod questions;
mod statements;
mod template;
mod tool;
mod tool_loop;

use nexa_event::effect::ToolChoice;
use nexa_types::{Millis, Tokens};
use nexa_vm::module::{
    Agent, Debug, Entry, EntryParam, Function, Grant, Kind, ModelRequestSpec, Module, Offer, OfferedTool, Schedule,
    Tool,
};
use nexa_vm::value::{Dict, Key, Record, Value};

use crate::hir::{self, At, Const, ExprKind};
use crate::types::Ty;
use builder::Builder;
use pool::Pool;
pub(crate) use questions::{REPAIRS as QUESTION_REPAIRS, WAITS as QUESTION_WAITS};

/// Functions are named by 16 bits in a call.
const FUNCTIONS_MAX: usize = 1 << 16;

/// Where a module would be beyond the machine's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) at: At,
    /// What there is too much of.
    pub(crate) what: String,
}

/// A file of the program: its name, and where its lines begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    pub(crate) name: String,
    pub(crate) starts: Vec<u32>,
}

impl Lines {
    /// Indexes a text.
    pub(crate) fn of(name: &str, text: &str) -> Self {
        let ends = text.bytes().zip(1u32..).filter(|(byte, _)| *byte == b'\n').map(|(_, next)| next);
        Lines { name: name.to_owned(), starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The line of a byte, from 1.
    fn line(&self, start: u32) -> u32 {
        self.starts.partition_point(|line| *line <= start) as u32
    }
}

/// Makes the module of a program. `files` are by number, for lines in messages.
pub(crate) fn compile(program: &hir::Program, files: &[Lines]) -> Result<Module, TooLarge> {
    let flows = program.functions.len();
    let own = flows + program.agents.len() + program.tools.len();
    if own + questions::KINDS > FUNCTIONS_MAX {
        let at = program.functions.last().map(|function| function.at).unwrap_or_default();
        return Err(TooLarge { at, what: format!("more than {FUNCTIONS_MAX} flows, branches, agents and tools") });
    }
    let mut pool = Pool::new(&program.types, own);
    pool.tools_at = (flows + program.agents.len()) as u32;
    pool.apart =
        (program.agents.len() as u32..).zip(&program.apart).map(|(agent, flow)| (flow_of(flow), agent)).collect();
    pool.clones = program.agents.iter().map(|agent| agent.clone_of).collect();
    let mut functions = Vec::new();
    let mut lines = Vec::new();
    for function in &program.functions {
        let (made, debug) = Builder::function(&mut pool, files, function)?;
        limits::check_function(&made, function.at)?;
        functions.push(made);
        lines.push(debug);
    }
    let mut agents = Vec::new();
    let mut requests = Vec::new();
    let mut offers = Vec::new();
    let (mut cached, mut memories) = (Vec::new(), Vec::new());
    let mut grants = grants_of(0, &program.functions);
    for (number, agent) in program.agents.iter().enumerate() {
        let at = requests.len() as u32;
        let forced = (agent.tool_choice == ToolChoice::Required && !agent.tools.is_empty()).then_some(at + 1);
        let body = agent_loop::body(agent, at, forced, &mut pool)?;
        grants.extend(grants_of(flows + number, std::slice::from_ref(&body)));
        let (made, debug) = Builder::function(&mut pool, files, &body)?;
        limits::check_function(&made, agent.at)?;
        functions.push(made);
        lines.push(debug);
        if agent.best_of.is_some() {
            agents.push(declared(agent, (flows + number) as u32, &mut pool));
            continue;
        }
        requests.push(request(agent, &mut pool));
        offers.extend(offer(agent, at, if forced.is_some() { ToolChoice::Auto } else { agent.tool_choice }, &mut pool));
        if let Some(forced) = forced {
            requests.push(request(agent, &mut pool));
            offers.extend(offer(agent, forced, ToolChoice::Required, &mut pool));
        }
        if agent.cache {
            cached.extend(at..requests.len() as u32);
        }
        if let Some(memory) = agent.memory {
            memories.extend((at..requests.len() as u32).map(|request| (request, memory)));
        }
        agents.push(declared(agent, (flows + number) as u32, &mut pool));
    }
    for flow in &program.apart {
        agents.push(apart(flow, &program.functions, &mut pool));
    }
    let mut tools = Vec::new();
    for (number, tool) in program.tools.iter().enumerate() {
        let body = tool::body(tool, number as u32, &mut pool);
        let function = pool.tools_at + number as u32;
        grants.extend(grants_of(function as usize, std::slice::from_ref(&body)));
        let (made, debug) = Builder::function(&mut pool, files, &body)?;
        limits::check_function(&made, tool.at)?;
        functions.push(made);
        lines.push(debug);
        tools.push(declared_tool(tool, function));
    }
    let mut next = 0;
    while let Some(kind) = pool.questions.get(next).copied() {
        let function = questions::function(kind, &mut pool);
        let (made, debug) = Builder::function(&mut pool, files, &function)?;
        functions.push(made);
        lines.push(debug);
        next += 1;
    }
    let mut entries = Vec::new();
    for entry in &program.entries {
        entries.push(entry_of(entry, flows as u32, &mut pool));
    }
    let debug = Debug { files: files.iter().map(|file| file.name.clone()).collect(), lines };
    let schedules = schedules(program);
    let Pool { constants, types, shapes, .. } = pool;
    let module = Module {
        constants,
        types,
        shapes,
        functions,
        agents,
        requests,
        entries,
        schedules,
        tools,
        grants,
        offers,
        cached,
        memories,
        debug,
        graph: crate::project::graph(program),
    };
    limits::check_module(&module)?;
    Ok(module)
}

/// The grants of functions, the first of which has this number.
fn grants_of(first: usize, functions: &[hir::Function]) -> Vec<Grant> {
    let grant = |(number, function): (usize, &hir::Function)| {
        let mut tools = function.grants.clone();
        tools.sort_unstable();
        tools.dedup();
        (!tools.is_empty()).then_some(Grant { function: (first + number) as u32, tools })
    };
    functions.iter().enumerate().filter_map(grant).collect()
}

fn offer(agent: &hir::Agent, request: u32, choice: ToolChoice, pool: &mut Pool<'_>) -> Option<Offer> {
    let tool = |offered: &hir::Offered| OfferedTool {
        name: offered.name.clone(),
        description: offered.doc.clone(),
        args: pool.ty(&tool_loop::args_type(offered)),
    };
    let tools: Vec<OfferedTool> = agent.tools.iter().map(tool).collect();
    (!tools.is_empty()).then_some(Offer { request, choice, tools })
}

fn declared_tool(tool: &hir::Tool, function: u32) -> Tool {
    Tool {
        name: tool.name.clone(),
        source: tool.source.clone(),
        function,
        params: tool.params.iter().map(|param| param.name.clone()).collect(),
        risk: tool.risk,
        effect: tool.effect,
        idempotent: tool.idempotent,
        key: tool.key,
        limits: tool.limits.clone(),
        timeout: Millis(tool.timeout),
    }
}

fn request(agent: &hir::Agent, pool: &mut Pool<'_>) -> ModelRequestSpec {
    let sampling = &agent.sampling;
    ModelRequestSpec {
        agent: agent.name.clone(),
        answer: (agent.result != Ty::Str).then(|| pool.ty(&agent.result)),
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        max_tokens: Tokens(sampling.max_tokens),
        seed: sampling.seed,
        stop: sampling.stop.clone(),
        timeout: Millis(agent.timeout),
    }
}

fn declared(agent: &hir::Agent, function: u32, pool: &mut Pool<'_>) -> Agent {
    Agent {
        name: agent.name.clone(),
        doc: agent.doc.clone(),
        function,
        params: agent.params.iter().map(|(name, ty)| (name.clone(), pool.ty(ty))).collect(),
        result: pool.ty(&agent.result),
        budget: agent.budget,
        // Each of several runs has the time that is written.
        timeout: agent.best_of.is_none().then_some(Millis(agent.timeout)),
        priority: agent.schedule.priority,
        estimate: agent.schedule.estimate,
    }
}

fn flow_of(entry: &hir::Entry) -> u32 {
    match entry.target {
        hir::Target::Flow(number) | hir::Target::Agent(number) => number,
    }
}

/// A flow as the agent that a call of it runs.
fn apart(flow: &hir::Entry, functions: &[hir::Function], pool: &mut Pool<'_>) -> Agent {
    let function = flow_of(flow);
    let schedule = functions.get(function as usize).map(|function| function.schedule).unwrap_or_default();
    Agent {
        name: flow.name.clone(),
        doc: String::new(),
        function,
        params: flow.params.iter().map(|(name, ty, _)| (name.clone(), pool.ty(ty))).collect(),
        result: pool.ty(&flow.result),
        budget: flow.budget,
        timeout: None,
        priority: schedule.priority,
        estimate: schedule.estimate,
    }
}

fn entry_of(entry: &hir::Entry, flows: u32, pool: &mut Pool<'_>) -> Entry {
    let (is_agent, function) = match entry.target {
        hir::Target::Flow(number) => (false, number),
        hir::Target::Agent(number) => (true, flows + number),
    };
    let param = |(name, ty, default): &(String, Ty, Option<hir::Expr>)| EntryParam {
        name: name.clone(),
        ty: pool.ty(ty),
        default: default.as_ref().map(|default| nexa_vm::codec::encode(&value_of(default)).as_bytes().to_vec()),
    };
    let params = entry.params.iter().map(param).collect();
    let result = pool.ty(&entry.result);
    Entry { name: entry.name.clone(), is_agent, function, params, result, budget: entry.budget }
}

/// The value of a constant tree.
fn value_of(expr: &hir::Expr) -> Value {
    let all = |items: &[hir::Expr]| items.iter().map(value_of).collect::<Vec<Value>>();
    match &expr.kind {
        ExprKind::Const(constant) => match constant {
            Const::Unit => Value::Unit,
            Const::None => Value::None,
            Const::Bool(value) => Value::Bool(*value),
            Const::Int(int) => Value::Int(*int),
            Const::Float(float) => Value::Float(*float),
            Const::Duration(millis) => Value::Duration(*millis),
            Const::Str(text) => Value::Str(text.as_ref().into()),
        },
        ExprKind::List(items) => Value::List(all(items).into()),
        ExprKind::Tuple(items) => Value::Tuple(all(items).into()),
        ExprKind::Record(shape, items) => {
            let is_case = !shape.tag.is_empty();
            let shape = pool::machine_shape(shape).into();
            let record = Record { shape, values: all(items) }.into();
            if is_case { Value::Variant(record) } else { Value::Record(record) }
        }
        ExprKind::Dict(entries) => {
            let mut dict = Dict::default();
            for (key, value) in entries {
                let key = match value_of(key) {
                    Value::Int(int) => Key::Int(int),
                    Value::Bool(value) => Key::Bool(value),
                    Value::Str(text) => Key::Str(text),
                    // The checker lets no other key through.
                    _ => continue,
                };
                let value = value_of(value);
                dict.insert(key, value);
            }
            Value::Dict(dict.into())
        }
        // The checker lets only constants be defaults.
        _ => Value::None,
    }
}

/// The kinds of a function's arguments; nothing if none of them is known.
fn kinds_of(params: &[Ty]) -> Vec<Kind> {
    let kind = |ty: &Ty| match ty {
        Ty::Int => Kind::Int,
        Ty::Float => Kind::Float,
        Ty::Bool => Kind::Bool,
        _ => Kind::Any,
    };
    let kinds: Vec<Kind> = params.iter().map(kind).collect();
    if kinds.iter().all(|kind| *kind == Kind::Any) { Vec::new() } else { kinds }
}

/// The schedules that differ from the default, by function: flows first, then agents.
fn schedules(program: &hir::Program) -> Vec<(u32, Schedule)> {
    let flows = program.functions.iter().map(|function| function.schedule);
    let agents = program.agents.iter().map(|agent| agent.schedule);
    let numbered = (0u32..).zip(flows.chain(agents));
    numbered.filter(|(_, schedule)| *schedule != Schedule::default()).collect()
}

/// Names a function for people: a lambda's place is in its name already.
fn empty_function(function: &hir::Function) -> Function {
    Function {
        name: function.name.clone(),
        arity: function.arity,
        locals: function.locals,
        captures: function.captures.len() as u8,
        pure_: function.is_pure,
        param_kinds: kinds_of(&function.params),
        test: function.is_test,
        ..Function::default()
    }
}

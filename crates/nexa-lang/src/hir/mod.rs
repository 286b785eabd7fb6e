//! The checked program: every name resolved, every type known, every default filled in, every conversion written out.
//!
//! The checker makes it from the tree, [`crate::list`] makes it from a submitted list of agents, and the compiler turns
//! it into a module. Pipelines, `match`, named arguments and interpolation are gone by now; what is left is a small
//! core that maps almost one to one to instructions.
//!
//! Holds: locals are numbers `0..locals` of their function, parameters first, and each is stored to before it is read;
//! operands are listed in the order in which they are evaluated.

mod parts;

use std::rc::Rc;

use nexa_event::effect::{Remembering, Risk, TestCall, ToolChoice, ToolEffect, ToolLimits, ToolSource};
use nexa_types::Budget;
use nexa_vm::module::Schedule;
use nexa_vm::module::outline::Pinned;
use nexa_vm::op::{Asking, MemoryScope, MergeStrategy};

use crate::types::{Ty, TypeTable};

pub use parts::Part;

/// A place in the text: a file's number and a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// The file.
    pub file: u32,
    /// The first byte.
    pub start: u32,
}

/// A whole program.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Its protocols, structs and enums.
    pub types: TypeTable,
    /// Flows first, then lambdas and branches as they were met.
    pub functions: Vec<Function>,
    /// How many of them are declared: flows and `fn`s.
    pub flows: u32,
    /// Declared agents.
    pub agents: Vec<Agent>,
    /// Declared tools, and those of `std` that were granted.
    pub tools: Vec<Tool>,
    /// What may be started from outside.
    pub entries: Vec<Entry>,
    /// Flows that run as agents of their own wherever they are called: those with a `budget` or a `schedule`.
    pub apart: Vec<Entry>,
    /// Names that nodes of the task graph were given, in ascending order.
    pub pins: Vec<(Pinned, String)>,
    /// The tests, in a test build only.
    pub tests: Vec<TestEntry>,
}

/// A test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestEntry {
    /// Its name.
    pub name: String,
    /// The function that is its body.
    pub function: u32,
    /// Where it is declared.
    pub at: At,
}

/// A flow, a lambda or a branch.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its name, for people.
    pub name: String,
    /// How many arguments it takes.
    pub arity: u8,
    /// The types of its arguments.
    pub params: Vec<Ty>,
    /// How many locals it has, arguments included.
    pub locals: u16,
    /// The types of what it captures.
    pub captures: Vec<Ty>,
    /// What it does. Running off its end gives `()`.
    pub body: Vec<Stmt>,
    /// Whether it only computes: a `fn`, or a lambda in one.
    pub is_pure: bool,
    /// What a scheduler should expect of it when it is started as an agent.
    pub schedule: Schedule,
    /// Whether it is a test or a part of one.
    pub is_test: bool,
    /// The tools that it may call.
    pub grants: Vec<u32>,
    /// The model that its questions go to; an empty name is the project's default.
    pub model: String,
    /// Where it is declared.
    pub at: At,
}

/// An agent as declared; its loop is made by the compiler.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its doc comment.
    pub doc: String,
    /// Parameter names and types.
    pub params: Vec<(String, Ty)>,
    /// Result type.
    pub result: Ty,
    /// Who it is; reads the parameters as locals `0..`.
    pub role: Option<Expr>,
    /// The texts of the files that it knows its task by, in order; they are not templates.
    pub skills: Vec<Rc<str>>,
    /// What it is to do; reads the parameters as locals `0..`.
    pub prompt: Option<Expr>,
    /// Models to try, in order; an empty name is the project's default.
    pub models: Vec<String>,
    /// How it chooses words.
    pub sampling: Sampling,
    /// Caps of its own.
    pub budget: Budget,
    /// The whole call, in milliseconds; also each single request.
    pub timeout: u64,
    /// Waits before each further try of a model, in milliseconds.
    pub backoff: Vec<u64>,
    /// How many turns may be spent on repairing an answer that does not fit.
    pub repair: u32,
    /// Whether a model is asked about each condition in words of its result.
    pub asks_conditions: bool,
    /// Whether pieces of the answer go to the client.
    pub stream: bool,
    /// Whether an earlier answer to the same request will do.
    pub cache: bool,
    /// How it remembers its conversation, if it does.
    pub memory: Option<Remembering>,
    /// What must hold before a model is asked; reads the parameters as locals `0..`.
    pub requires: Vec<Contract>,
    /// What must hold of a result, which is the local after the parameters.
    pub ensures: Vec<Contract>,
    /// How many locals these conditions take, parameters and result included; 0 without conditions.
    pub contract_locals: u16,
    /// Whether the last parameter is no input but a message that is added after it.
    pub is_told: bool,
    /// The agent that it is a clone of.
    pub clone_of: Option<u32>,
    /// The agent that is run when all models have failed.
    pub fallback: Option<u32>,
    /// Several runs of another agent, of which a judge chooses one; it makes no request of its own.
    pub best_of: Option<BestOf>,
    /// What its model is offered.
    pub tools: Vec<Offered>,
    /// Whether its model is to call them.
    pub tool_choice: ToolChoice,
    /// Calls of tools in one run, after which it fails.
    pub max_tool_calls: u32,
    /// Answers of its model that ask for tools, after which it fails; `None` leaves it to `max_tool_calls`.
    pub max_steps: Option<u32>,
    /// What a scheduler should expect of it, and what it may use.
    pub schedule: Schedule,
    /// Where it is declared.
    pub at: At,
}

impl Agent {
    /// The parameters that are its input.
    #[must_use]
    pub fn inputs(&self) -> &[(String, Ty)] {
        &self.params[..self.params.len() - usize::from(self.is_told && !self.params.is_empty())]
    }

    /// The model that is asked first, which its questions go to as well.
    #[must_use]
    pub fn first_model(&self) -> &str {
        self.models.first().map_or("", String::as_str)
    }
}

/// Several runs of an agent, and which one's value is taken.
#[derive(Clone, Debug)]
pub struct BestOf {
    /// The agent that is run, which takes the same parameters.
    pub run: u32,
    /// How many runs there are.
    pub count: u32,
    /// The agent that chooses, if the program names one.
    pub judge: Option<u32>,
    /// The local that the results of the runs are put into before one is chosen.
    pub results: u16,
    /// The value of the run that is chosen.
    pub chosen: Expr,
    /// How many locals that takes, parameters and results included.
    pub locals: u16,
    /// Where it is written.
    pub at: At,
}

/// A condition of a contract.
#[derive(Clone, Debug)]
pub struct Contract {
    /// Whether it holds.
    pub holds: Expr,
    /// What it says, for people and models.
    pub text: String,
}

/// Something that an agent's model may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// A tool, by its index.
    Tool(u32),
    /// A flow, by its function's index.
    Flow(u32),
}

impl Granted {
    /// The tool, if it is one.
    #[must_use]
    pub fn tool(self) -> Option<u32> {
        match self {
            Granted::Tool(tool) => Some(tool),
            Granted::Flow(_) => None,
        }
    }
}

/// A tool or a flow as an agent's model sees it.
#[derive(Clone, Debug)]
pub struct Offered {
    /// What it is.
    pub granted: Granted,
    /// What the model calls it: letters, digits, `_` and `-`.
    pub name: String,
    /// What it does.
    pub doc: String,
    /// Its parameters.
    pub params: Vec<ToolParam>,
}

/// A tool as declared; the function around its call is made by the compiler.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for models to read.
    pub doc: String,
    /// Who provides it.
    pub source: ToolSource,
    /// Its parameters.
    pub params: Vec<ToolParam>,
    /// Result type.
    pub result: Ty,
    /// How much harm it can do.
    pub risk: Risk,
    /// Whether it changes anything outside.
    pub effect: ToolEffect,
    /// Whether a person is asked before each call.
    pub asks: bool,
    /// Whether a call is sent again when its owner was lost.
    pub idempotent: bool,
    /// What happens to a call whose outcome nobody knows.
    pub on_unknown: OnUnknown,
    /// The parameter that is the business key.
    pub key: Option<u32>,
    /// Waits before each further try after a transient failure, in milliseconds.
    pub backoff: Vec<u64>,
    /// What it may reach and use.
    pub limits: ToolLimits,
    /// It must answer within this, in milliseconds.
    pub timeout: u64,
    /// What must hold of the arguments, before anybody is asked and anything is sent.
    pub requires: Vec<Contract>,
    /// What must hold of the answer.
    pub ensures: Vec<Contract>,
    /// How many locals the contracts take: the parameters, the result, and what they need besides.
    pub contract_locals: u16,
    /// Where it is declared.
    pub at: At,
}

/// A parameter of a tool.
#[derive(Clone, Debug)]
pub struct ToolParam {
    /// Its name.
    pub name: String,
    /// What it means, for models to read.
    pub doc: String,
    /// Its type.
    pub ty: Ty,
    /// A constant for when it is left out.
    pub default: Option<Expr>,
}

/// What happens to a call whose outcome nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// The program sees `outcome_unknown`.
    #[default]
    Fail,
    /// A person says whether to call again.
    Ask,
    /// This tool, called with these parameters of the call, finds out.
    Probe(u32, Vec<u16>),
}

/// How a model is asked to choose its words.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: f64,
    /// 0 to 1.
    pub top_p: f64,
    /// The most tokens of an answer.
    pub max_tokens: u64,
    /// Makes the choice repeatable.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.7, top_p: 1.0, max_tokens: 1024, seed: None, stop: Vec::new() }
    }
}

/// Something that may be started from outside.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What is started.
    pub target: Target,
    /// Parameters: name, type, constant default.
    pub params: Vec<(String, Ty, Option<Expr>)>,
    /// Result type.
    pub result: Ty,
    /// Caps of its own.
    pub budget: Budget,
}

/// What an entry starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A function, by its index.
    Flow(u32),
    /// An agent, by its index.
    Agent(u32),
}

/// A statement.
#[derive(Clone, Debug)]
pub struct Stmt {
    /// What it does.
    pub kind: StmtKind,
    /// Where it is.
    pub at: At,
}

/// What a statement does.
#[derive(Clone, Debug)]
pub enum StmtKind {
    /// Sets a local.
    Store(u16, Expr),
    /// Adds a small number to an int local.
    Increment(u16, i16),
    /// Takes a tuple apart into locals; an element without one is dropped.
    Unpack(Expr, Vec<Option<u16>>),
    /// Evaluates and drops the value.
    Expr(Expr),
    /// Ends the function.
    Return(Expr),
    /// One of two.
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    /// Again and again while it holds.
    While(Expr, Vec<Stmt>),
    /// Once for each element.
    ForEach(Box<ForEach>),
    /// Leaves the innermost loop.
    Break,
    /// Goes on with the next round of the innermost loop.
    Continue,
    /// The error of the first block is stored and handled by the second.
    Try(Vec<Stmt>, u16, Vec<Stmt>),
    /// The statements end with `timeout` when they take longer than this.
    Timed(Expr, Vec<Stmt>),
    /// A block of its own.
    Block(Vec<Stmt>),
    /// The first statements run when the second ones are left, in whatever way.
    Defer(Rc<[Stmt]>, Vec<Stmt>),
}

/// A `for each`.
#[derive(Clone, Debug)]
pub struct ForEach {
    /// What is walked through.
    pub over: Expr,
    /// Counts the rounds from 0.
    pub index: Option<u16>,
    /// What each round binds.
    pub item: Item,
    /// What each round does.
    pub body: Vec<Stmt>,
}

/// What a round binds.
#[derive(Clone, Debug)]
pub enum Item {
    /// The element.
    One(u16),
    /// The parts of the element, which is a tuple.
    Parts(Vec<Option<u16>>),
    /// Nothing.
    Nothing,
}

/// An expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it computes.
    pub kind: ExprKind,
    /// The type of its value.
    pub ty: Ty,
    /// Where it is.
    pub at: At,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Const {
    /// `()`
    Unit,
    /// `none`
    None,
    /// `true`, `false`
    Bool(bool),
    /// An int.
    Int(i64),
    /// A float.
    Float(f64),
    /// Milliseconds.
    Duration(i64),
    /// Text.
    Str(Rc<str>),
}

/// An operator on two values, both evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
}

/// What can be asked about a value's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Is it `ok`?
    Ok,
    /// Is it `err`?
    Err,
    /// Is it `none`?
    None,
    /// Is it this variant: enum, tag, fields?
    Variant(Shape),
    /// Is it of this type as it is, without any conversion?
    Of(Ty),
}

/// The names of a record or variant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The nominal type or enum, empty for a plain record.
    pub type_name: Rc<str>,
    /// The tag of a variant, empty for a record.
    pub tag: Rc<str>,
    /// The fields.
    pub fields: Vec<Rc<str>>,
}

/// What an expression computes.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// A constant.
    Const(Const),
    /// A local.
    Local(u16),
    /// What the running closure captured.
    Capture(u8),
    /// The texts of values, joined.
    Concat(Vec<Expr>),
    /// A list.
    List(Vec<Expr>),
    /// A tuple.
    Tuple(Vec<Expr>),
    /// A dict of keys and values.
    Dict(Vec<(Expr, Expr)>),
    /// A record, or the case of an enum if the shape has a tag.
    Record(Shape, Vec<Expr>),
    /// A field of a record or variant.
    Field(Box<Expr>, Rc<str>),
    /// The record with a field replaced.
    SetField(Box<Expr>, Rc<str>, Box<Expr>),
    /// An element.
    Index(Box<Expr>, Box<Expr>),
    /// The list or dict with an element replaced.
    SetIndex(Box<Expr>, Box<Expr>, Box<Expr>),
    /// The opposite bool.
    Not(Box<Expr>),
    /// The opposite number.
    Neg(Box<Expr>),
    /// An operator.
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// The right side only if the left holds.
    And(Box<Expr>, Box<Expr>),
    /// The right side only if the left does not hold.
    Or(Box<Expr>, Box<Expr>),
    /// The right side only if the left is `none`.
    Coalesce(Box<Expr>, Box<Expr>),
    /// One of two.
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Statements, then a value.
    Block(Vec<Stmt>, Box<Expr>),
    /// An int as a float.
    Widen(Box<Expr>),
    /// A value checked against the expression's type.
    Check(Box<Expr>),
    /// The parts of a value of a type about whose conditions a model is asked: a list of condition, part, and what to say
    /// if it does not hold.
    Conditions(Ty, Asked, Box<Expr>),
    /// Whether a value has a form.
    Is(Test, Box<Expr>),
    /// The error in an `err`.
    ErrorOf(Box<Expr>),
    /// The value of `ok` or of a present optional; raises otherwise.
    Unwrap(Box<Expr>),
    /// `ok(x)`
    WrapOk(Box<Expr>),
    /// `err(x)`
    WrapErr(Box<Expr>),
    /// `ok` of the value, or `err` of what it raised.
    Try(Box<Expr>),
    /// A value, or another one for the error that is stored.
    Rescue(Box<Rescue>),
    /// Raises an error.
    Raise(Box<Expr>),
    /// Whether an error's code is transient.
    IsTransient(Box<Expr>),
    /// A function of the program.
    Call(u32, Vec<Expr>),
    /// A function of the program in an agent of its own, whatever it declares.
    CallApart(u32, Vec<Expr>),
    /// A standard function, by its number in the machine.
    Std(u16, Vec<Expr>),
    /// A closure or a stage.
    CallValue(Box<Expr>, Vec<Expr>),
    /// A declared agent as a value.
    Agent(u32),
    /// An agent runs as a child.
    Run(u32, Vec<Expr>),
    /// A tool is called, as its declaration says.
    Tool(u32, Vec<Expr>),
    /// A tool as a value.
    ToolValue(u32),
    /// The call of a tool itself, in the function around it.
    ToolCall(u32, Vec<Expr>),
    /// A function with captured values.
    Closure(u32, Vec<Expr>),
    /// A callable with these arguments in place, the one at this position left open; without a position all are.
    Partial(Box<Expr>, Vec<Expr>, Option<u16>),
    /// Stages one after the other.
    Chain(Vec<Expr>),
    /// Branches run as children.
    Fork(Box<Fork>),
    /// The ok values of a list of results.
    MergeAll(Box<Expr>),
    /// One value from a list of results, by a strategy and its options.
    Merge(MergeStrategy, Box<Expr>, Vec<Expr>),
    /// A text with a headed section for each branch.
    MergeSections(Box<Expr>, Box<Expr>),
    /// A model request: which one, the model's name, the messages, whether pieces go to the client.
    Model(u32, Box<Expr>, Box<Expr>, bool),
    /// A question to a model, asked until its answer can be read: a bool without labels, the number of the label with
    /// them, the number of the best for a judge, a text for a critique.
    Ask(Box<Ask>),
    /// One request for such a question: its operands, then the replies that were not accepted.
    Question(Asking, Vec<Expr>),
    /// A person's decision: question, data, timeout.
    Approve(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Waits.
    Sleep(Box<Expr>),
    /// Sends a value on a channel.
    Emit(Box<Expr>, Box<Expr>),
    /// The time.
    Now,
    /// A number between two.
    Random(Box<Expr>, Box<Expr>),
    /// Logs a value.
    Log(Box<Expr>),
    /// The handle of a secret, by its name.
    Secret(Rc<str>),
    /// Saves the agent's state.
    Snapshot,
    /// Goes back to a saved state.
    Restore(Box<Expr>),
    /// How often a saved state was gone back to.
    Tries(Box<Expr>),
    /// A use of a memory, with its operands.
    Memory(MemoryUse, MemoryScope, Vec<Expr>),
    /// Asks the harness of a test.
    TestCall(TestCall, Vec<Expr>),
    /// A callable starts as a child that runs beside this; gives its handle.
    Spawn(Box<Expr>, Vec<Expr>),
    /// How what a handle stands for ends.
    Await(Box<Expr>),
    /// A value for the child of a handle.
    Pass(Box<Expr>, Box<Expr>),
    /// The next message; not longer than this.
    Receive(Box<Expr>),
    /// Ends the child of a handle.
    Cancel(Box<Expr>),
    /// A handle of a moment.
    Timer(Box<Expr>),
    /// The number of the next effect.
    NextSeq,
    /// Lets go of all handles that were made since the effect of this number.
    Release(Box<Expr>),
    /// Where the checker proved that nothing goes.
    Unreachable,
}

/// The conditions of semantic types that a model is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Those that no pattern decides.
    Undecided,
    /// All of them.
    Every,
}

/// What is done with a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUse {
    /// Key and value are kept.
    Store,
    /// The value of a key.
    Load,
    /// The texts that suit a query: the query and how many.
    Recall,
}

/// A question to a model.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked for.
    pub asking: Asking,
    /// The question, a text.
    pub question: Expr,
    /// What it is about.
    pub subject: Expr,
    /// What may be answered, a list of texts; without them yes or no.
    pub labels: Option<Expr>,
}

/// Branches that run side by side as children of the call.
#[derive(Clone, Debug, Default)]
pub struct Fork {
    /// What each branch is given.
    pub input: Option<Expr>,
    /// The branches, as callables.
    pub branches: Vec<Expr>,
    /// In how long each branch must end.
    pub timeout: Option<Expr>,
    /// What becomes of their results.
    pub gives: Forked,
}

/// What a fork gives.
#[derive(Clone, Debug, Default)]
pub enum Forked {
    /// A list of all results.
    #[default]
    List,
    /// A record of all results by these names.
    Record(Vec<Rc<str>>),
    /// The value of the first that ends ok, as soon as so many have.
    First(u16),
    /// Nothing, at once: the workload keeps the branches.
    Nothing,
}

/// `a otherwise b`, `a fallback b`.
#[derive(Clone, Debug)]
pub struct Rescue {
    /// What may raise.
    pub value: Expr,
    /// Whether only errors worth another worker are caught.
    pub only_worth_a_fallback: bool,
    /// Where the error is stored.
    pub error: u16,
    /// What stands in.
    pub substitute: Expr,
}

impl Expr {
    /// An expression.
    #[must_use]
    pub fn new(kind: ExprKind, ty: Ty, at: At) -> Self {
        Expr { kind, ty, at }
    }

    /// A constant with its type.
    #[must_use]
    pub fn constant(value: Const, at: At) -> Self {
        let ty = match &value {
            Const::Unit => Ty::Unit,
            Const::None => Ty::option(Ty::Never),
            Const::Bool(_) => Ty::Bool,
            Const::Int(_) => Ty::Int,
            Const::Float(_) => Ty::Float,
            Const::Duration(_) => Ty::Duration,
            Const::Str(_) => Ty::Str,
        };
        Expr { kind: ExprKind::Const(value), ty, at }
    }

    /// A text.
    #[must_use]
    pub fn text(value: &str, at: At) -> Self {
        Expr::constant(Const::Str(value.into()), at)
    }

    /// A local.
    #[must_use]
    pub fn local(slot: u16, ty: Ty, at: At) -> Self {
        Expr { kind: ExprKind::Local(slot), ty, at }
    }

    /// Whether evaluating it can neither fail nor have an effect nor depend on when it is done.
    #[must_use]
    pub fn is_inert(&self) -> bool {
        match &self.kind {
            ExprKind::Const(_) | ExprKind::Agent(_) | ExprKind::ToolValue(_) | ExprKind::Capture(_) => true,
            ExprKind::Widen(inner) => inner.is_inert(),
            ExprKind::Closure(_, captures) => captures.iter().all(Expr::is_inert),
            _ => false,
        }
    }
}

//! A compiled program.
//!
//! Magic `NXB1`, major.minor version, then sections: constants, types, shapes, functions, agents, requests, entries,
//! since 1.1 those of kinds, schedules, tools, grants, offers and reuse that say something, debug, since 1.2 the graph if it
//! says something, and since 1.3 that of memories behind reuse. The module hash is BLAKE3-256 over all sections but the
//! last two, so neither comments and line numbers nor
//! what schedulers are told change it; equal source and compiler give equal bytes. A loader accepts an equal major and a lower or equal minor version. A module is written in the lowest version
//! that can say what is in it.

use nexa_event::effect::Remembering;
use nexa_types::{Budget, Millis, Tokens};

use crate::value::Shape;

pub mod build;
mod decode;
mod dump;
mod encode;
mod memories;
pub mod outline;
mod statics;
pub mod tasks;
mod tools;

pub use decode::LoadError;
pub use encode::VERSION;
pub(crate) use encode::max;
pub use statics::{Kind, Schedule};
pub use tools::{Grant, Offer, OfferedTool, Tool};

/// A compiled program, decoded. [`crate::verify`] must accept it before it runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Module {
    /// Texts and numbers that do not fit into an instruction.
    pub constants: Vec<Constant>,
    /// Types that instructions and agents refer to; an index always points to an earlier or the same entry's parts
    /// by number, so recursive protocols are possible.
    pub types: Vec<Type>,
    /// Shapes of records and variants.
    pub shapes: Vec<Shape>,
    /// Functions, lambdas, branches, flows, agents' bodies.
    pub functions: Vec<Function>,
    /// Declared agents.
    pub agents: Vec<Agent>,
    /// Model requests, one for each place that makes one.
    pub requests: Vec<ModelRequestSpec>,
    /// What may be started from outside, by name: the flows and the agents.
    pub entries: Vec<Entry>,
    /// What a scheduler should know of functions that are started as agents, in ascending order of the functions. One
    /// that is not there has the defaults.
    pub schedules: Vec<(u32, Schedule)>,
    /// Declared tools.
    pub tools: Vec<Tool>,
    /// Which functions may call which tools, by function. What is not listed is not granted.
    pub grants: Vec<Grant>,
    /// The tools that model requests offer, by request.
    pub offers: Vec<Offer>,
    /// The model requests for which an earlier answer to the same request will do, in ascending order.
    pub cached: Vec<u32>,
    /// How the conversations are remembered that model requests belong to, in ascending order of the requests. What is not
    /// listed is not remembered.
    pub memories: Vec<(u32, Remembering)>,
    /// Names and lines; not part of the hash.
    pub debug: Debug,
    /// What a scheduler may know of it; not part of the hash.
    pub graph: outline::Graph,
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Constant {
    /// Text.
    Str(String),
    /// An integer that does not fit into 24 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// Milliseconds.
    Duration(i64),
}

/// A type, as much of it as run-time checks and JSON Schemas need. Numbers are indices into [`Module::types`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Any value.
    Any,
    /// `()`
    Unit,
    /// Text.
    Str,
    /// Integer.
    Int,
    /// Float.
    Float,
    /// Bool.
    Bool,
    /// Duration.
    Duration,
    /// List of a type.
    List(u32),
    /// Dict from a key type to a type.
    Dict(u32, u32),
    /// Tuple.
    Tuple(Vec<u32>),
    /// A type or `none`.
    Option(u32),
    /// `ok` of the first, `err` of the second.
    Result(u32, u32),
    /// Record, protocol or struct.
    Record(RecordType),
    /// Enum.
    Enum {
        /// Its name.
        name: String,
        /// Its variants; each a record type whose name is the tag.
        variants: Vec<RecordType>,
    },
    /// One of several.
    Union(Vec<u32>),
    /// A base type with a condition in words and maybe a pattern.
    Semantic {
        /// The base type.
        base: u32,
        /// The condition.
        condition: String,
        /// A regular expression that the text must match.
        pattern: Option<String>,
    },
}

/// A record type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordType {
    /// Its name, empty if it has none.
    pub name: String,
    /// Whether only records of this name fit (struct), or any with these fields (protocol).
    pub nominal: bool,
    /// Its fields, in order.
    pub fields: Vec<Field>,
}

/// A field of a record type. A field of an optional type may be missing in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: u32,
    /// Its doc comment, for models.
    pub doc: String,
}

/// A function.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Function {
    /// Its name, for people: `main`, `main/Briefer`, `main.fn#2`.
    pub name: String,
    /// How many arguments it takes; they are locals `0..arity`.
    pub arity: u8,
    /// How many locals it has, arguments included.
    pub locals: u16,
    /// How many captured values it has.
    pub captures: u8,
    /// The most values that it puts on the stack.
    pub stack: u16,
    /// Whether it may not yield an effect.
    pub pure_: bool,
    /// What kinds its arguments are, one for each; empty if nothing is known of any. Whoever calls it otherwise gets
    /// `type_mismatch` before its first instruction.
    pub param_kinds: Vec<Kind>,
    /// Whether it belongs to a test: only then may it ask a test harness, and only a harness loads its module.
    pub test: bool,
    /// Its instructions.
    pub code: Vec<u32>,
}

/// A declared agent. Its body, generated by the compiler, is an ordinary function.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its doc comment.
    pub doc: String,
    /// The function that is its body.
    pub function: u32,
    /// Parameter names and types.
    pub params: Vec<(String, u32)>,
    /// Result type.
    pub result: u32,
    /// Caps of its own.
    pub budget: Budget,
    /// The whole call.
    pub timeout: Option<Millis>,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// What a scheduler should expect.
    pub estimate: Millis,
}

/// What every model request of one place has in common.
///
/// `LLMCall` pops `messages`, a list of records `{ role, text, from }` (`from`: the number of the effect whose answer
/// the text is, 0 for the program's own text, -1 for text derived by the VM), and below it `model`, a text, empty for
/// the default. A message of a model that asked for tools also has `calls`, a list of records `{ id, name, arguments }`,
/// and one of what a tool gave has `call`, the id of the call. It pushes a record
/// `{ text, finish, from, tokens_in, tokens_out, calls }`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequestSpec {
    /// The agent that asks, as declared.
    pub agent: String,
    /// The type that the answer must have; `None` for free text. Its JSON Schema goes along.
    pub answer: Option<u32>,
    /// 0 to 2.
    pub temperature: f64,
    /// 0 to 1.
    pub top_p: f64,
    /// The most tokens of the answer.
    pub max_tokens: Tokens,
    /// Makes the choice repeatable where the provider can.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// One request must be answered within this.
    pub timeout: Millis,
}

/// Something that may be started from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is an agent (else a flow).
    pub is_agent: bool,
    /// The function.
    pub function: u32,
    /// Parameter names and types; the last ones may have defaults, which the function itself fills in for `none`.
    pub params: Vec<EntryParam>,
    /// Result type.
    pub result: u32,
    /// Caps of its own.
    pub budget: Budget,
}

/// A parameter of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryParam {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: u32,
    /// The default, an encoded value (see [`crate::codec`]), if it has one.
    pub default: Option<Vec<u8>>,
}

/// Names and lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Debug {
    /// Source files, by number.
    pub files: Vec<String>,
    /// For each function, `(first instruction, file, line)` in ascending order of the first.
    pub lines: Vec<Vec<(u32, u32, u32)>>,
}

//! Modules as bytes, their hash, and the limits that both directions keep.
//!
//! `NXB1`, major and minor version as one byte each, then sections in the order of their numbers: a number, a length
//! (4 bytes), the bytes. Sections since 1.1 are left out when they are empty, and a module without any of them is written
//! as 1.0; one that remembers is 1.3. The hash covers everything but debug and graph, behind the version that the module would have without a graph.

use nexa_types::limits::MODULE_BYTES_MAX;
use nexa_types::{Budget, ModuleHash};

use super::{
    Agent, Constant, Debug, Entry, Function, Kind, ModelRequestSpec, Module, RecordType, Type, memories, outline,
    statics, tools,
};
use crate::codec::write_shape;
use crate::wire::Writer;

pub(super) const MAGIC: [u8; 4] = *b"NXB1";
/// A loader accepts this major version and a lower or equal minor one.
pub const VERSION: (u8, u8) = (1, 3);

/// Where the minor version stands in the bytes.
pub(super) const MINOR_AT: usize = MAGIC.len() + 1;
/// The minor version of modules with a graph.
pub(super) const GRAPH_MINOR: u8 = 2;
/// The minor version of modules with a memory. Whether these have a graph, the section says by being there.
pub(super) const MEMORY_MINOR: u8 = 3;

/// Section numbers; stored and never reused.
pub(super) mod section {
    pub(crate) const CONSTANTS: u8 = 1;
    pub(crate) const TYPES: u8 = 2;
    pub(crate) const SHAPES: u8 = 3;
    pub(crate) const FUNCTIONS: u8 = 4;
    pub(crate) const AGENTS: u8 = 5;
    pub(crate) const REQUESTS: u8 = 6;
    pub(crate) const ENTRIES: u8 = 7;
    // Since 1.1. A section that would say nothing is left out.
    pub(crate) const KINDS: u8 = 8;
    pub(crate) const SCHEDULES: u8 = 9;
    pub(crate) const TOOLS: u8 = 10;
    pub(crate) const GRANTS: u8 = 11;
    pub(crate) const OFFERS: u8 = 12;
    pub(crate) const CACHED: u8 = 13;
    // Since 1.3, left out if it would say nothing.
    pub(crate) const MEMORIES: u8 = 14;
    pub(crate) const DEBUG: u8 = 100;
    // Since 1.2, left out if it would say nothing.
    pub(crate) const GRAPH: u8 = 101;
}

/// How many of a thing a module may have.
pub(crate) mod max {
    pub(crate) const CONSTANTS: usize = 1 << 18;
    pub(crate) const TYPES: usize = 1 << 16;
    pub(crate) const SHAPES: usize = 1 << 16;
    pub(crate) const FUNCTIONS: usize = 1 << 16;
    pub(crate) const AGENTS: usize = 1 << 14;
    pub(crate) const REQUESTS: usize = 1 << 14;
    pub(crate) const ENTRIES: usize = 1 << 14;
    pub(crate) const TOOLS: usize = 1 << 12;
    /// Tools that one function is granted, or one request offers.
    pub(crate) const GRANTED: usize = 64;
    pub(crate) const PARTS: usize = 1 << 10;
    pub(crate) const FILES: usize = 1 << 12;
}

impl Module {
    /// The module as bytes. Equal modules give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.encode_hashed();
        section(&mut writer, section::DEBUG, |writer| write_debug(writer, &self.debug));
        if !self.graph.is_empty() {
            writer.bytes[MINOR_AT] = self.minor().max(GRAPH_MINOR);
            section(&mut writer, section::GRAPH, |writer| outline::write_graph(writer, &self.graph));
        }
        writer.bytes
    }

    /// BLAKE3-256 of the bytes without debug and graph: comments and line numbers do not change it.
    pub fn hash(&self) -> ModuleHash {
        hash_of(&[&self.encode_hashed().bytes])
    }

    fn encode_hashed(&self) -> Writer {
        let mut writer = Writer::new();
        writer.raw(&MAGIC);
        writer.u8(VERSION.0);
        writer.u8(self.minor());
        section(&mut writer, section::CONSTANTS, |writer| list(writer, &self.constants, write_constant));
        section(&mut writer, section::TYPES, |writer| list(writer, &self.types, write_type));
        section(&mut writer, section::SHAPES, |writer| list(writer, &self.shapes, write_shape));
        section(&mut writer, section::FUNCTIONS, |writer| list(writer, &self.functions, write_function));
        section(&mut writer, section::AGENTS, |writer| list(writer, &self.agents, write_agent));
        section(&mut writer, section::REQUESTS, |writer| list(writer, &self.requests, write_request));
        section(&mut writer, section::ENTRIES, |writer| list(writer, &self.entries, write_entry));
        let kinds = self.known_kinds();
        said_section(&mut writer, section::KINDS, &kinds, statics::write_kinds);
        said_section(&mut writer, section::SCHEDULES, &self.schedules, statics::write_schedule);
        said_section(&mut writer, section::TOOLS, &self.tools, tools::write_tool);
        said_section(&mut writer, section::GRANTS, &self.grants, tools::write_grant);
        said_section(&mut writer, section::OFFERS, &self.offers, tools::write_offer);
        said_section(&mut writer, section::CACHED, &self.cached, |writer, request| writer.u32(*request));
        said_section(&mut writer, section::MEMORIES, &self.memories, memories::write);
        writer
    }

    /// The lowest minor version that can say what is hashed of the module, so that what an older compiler made keeps its hash.
    pub(super) fn minor(&self) -> u8 {
        let has_statics = !self.schedules.is_empty() || !self.known_kinds().is_empty();
        let has_tools = !self.tools.is_empty() || !self.grants.is_empty() || !self.offers.is_empty();
        if self.memories.is_empty() {
            u8::from(has_statics || has_tools || !self.cached.is_empty())
        } else {
            MEMORY_MINOR
        }
    }

    /// The functions of whose arguments something is known.
    fn known_kinds(&self) -> Vec<(u32, &[Kind])> {
        let numbered = (0u32..).zip(&self.functions);
        let known = numbered.filter(|(_, function)| function.param_kinds.iter().any(|kind| *kind != Kind::Any));
        known.map(|(number, function)| (number, function.param_kinds.as_slice())).collect()
    }

    /// Whether the encoded module is within [`MODULE_BYTES_MAX`].
    pub fn fits(&self) -> bool {
        self.encode().len() <= MODULE_BYTES_MAX
    }
}

/// The hash of what is hashed, in pieces.
pub(super) fn hash_of(pieces: &[&[u8]]) -> ModuleHash {
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 module");
    pieces.iter().for_each(|piece| {
        hasher.update(piece);
    });
    ModuleHash::from_bytes(*hasher.finalize().as_bytes())
}

fn section(writer: &mut Writer, number: u8, write: impl FnOnce(&mut Writer)) {
    let mut inner = Writer::new();
    write(&mut inner);
    writer.u8(number);
    writer.fixed_u32(u32::try_from(inner.bytes.len()).unwrap_or(u32::MAX));
    writer.raw(&inner.bytes);
}

/// A section that older versions do not have: left out if it would say nothing.
fn said_section<T>(writer: &mut Writer, number: u8, items: &[T], write: impl FnMut(&mut Writer, &T)) {
    if !items.is_empty() {
        section(writer, number, |writer| list(writer, items, write));
    }
}

pub(super) fn list<T>(writer: &mut Writer, items: &[T], mut write: impl FnMut(&mut Writer, &T)) {
    writer.count(items.len());
    for item in items {
        write(writer, item);
    }
}

fn write_constant(writer: &mut Writer, constant: &Constant) {
    match constant {
        Constant::Str(text) => {
            writer.u8(0);
            writer.str(text);
        }
        Constant::Int(number) => {
            writer.u8(1);
            writer.i64(*number);
        }
        Constant::Float(number) => {
            writer.u8(2);
            writer.f64(if number.is_nan() { f64::NAN } else { *number });
        }
        Constant::Duration(millis) => {
            writer.u8(3);
            writer.i64(*millis);
        }
    }
}

fn write_type(writer: &mut Writer, ty: &Type) {
    match ty {
        Type::Any => writer.u8(0),
        Type::Unit => writer.u8(1),
        Type::Str => writer.u8(2),
        Type::Int => writer.u8(3),
        Type::Float => writer.u8(4),
        Type::Bool => writer.u8(5),
        Type::Duration => writer.u8(6),
        Type::List(part) => {
            writer.u8(7);
            writer.u32(*part);
        }
        Type::Dict(key, value) => {
            writer.u8(8);
            writer.u32(*key);
            writer.u32(*value);
        }
        Type::Tuple(parts) => {
            writer.u8(9);
            list(writer, parts, |writer, part| writer.u32(*part));
        }
        Type::Option(part) => {
            writer.u8(10);
            writer.u32(*part);
        }
        Type::Result(ok, err) => {
            writer.u8(11);
            writer.u32(*ok);
            writer.u32(*err);
        }
        Type::Record(record) => {
            writer.u8(12);
            write_record(writer, record);
        }
        Type::Enum { name, variants } => {
            writer.u8(13);
            writer.str(name);
            list(writer, variants, write_record);
        }
        Type::Union(parts) => {
            writer.u8(14);
            list(writer, parts, |writer, part| writer.u32(*part));
        }
        Type::Semantic { base, condition, pattern } => {
            writer.u8(15);
            writer.u32(*base);
            writer.str(condition);
            writer.option(pattern.as_deref(), Writer::str);
        }
    }
}

fn write_record(writer: &mut Writer, record: &RecordType) {
    writer.str(&record.name);
    writer.bool(record.nominal);
    list(writer, &record.fields, |writer, field| {
        writer.str(&field.name);
        writer.u32(field.ty);
        writer.str(&field.doc);
    });
}

fn write_function(writer: &mut Writer, function: &Function) {
    writer.str(&function.name);
    writer.u8(function.arity);
    writer.u32(u32::from(function.locals));
    writer.u8(function.captures);
    writer.u32(u32::from(function.stack));
    writer.u8(u8::from(function.pure_) | u8::from(function.test) << 1);
    list(writer, &function.code, |writer, word| writer.fixed_u32(*word));
}

fn write_agent(writer: &mut Writer, agent: &Agent) {
    writer.str(&agent.name);
    writer.str(&agent.doc);
    writer.u32(agent.function);
    list(writer, &agent.params, |writer, (name, ty)| {
        writer.str(name);
        writer.u32(*ty);
    });
    writer.u32(agent.result);
    write_budget(writer, &agent.budget);
    writer.option(agent.timeout, |writer, timeout| writer.u64(timeout.0));
    writer.u8(agent.priority);
    writer.u64(agent.estimate.0);
}

fn write_request(writer: &mut Writer, request: &ModelRequestSpec) {
    writer.str(&request.agent);
    writer.option(request.answer, Writer::u32);
    writer.f64(request.temperature);
    writer.f64(request.top_p);
    writer.u64(request.max_tokens.0);
    writer.option(request.seed, Writer::u64);
    list(writer, &request.stop, |writer, text| writer.str(text));
    writer.u64(request.timeout.0);
}

fn write_entry(writer: &mut Writer, entry: &Entry) {
    writer.str(&entry.name);
    writer.bool(entry.is_agent);
    writer.u32(entry.function);
    list(writer, &entry.params, |writer, param| {
        writer.str(&param.name);
        writer.u32(param.ty);
        writer.option(param.default.as_deref(), Writer::bytes);
    });
    writer.u32(entry.result);
    write_budget(writer, &entry.budget);
}

fn write_budget(writer: &mut Writer, budget: &Budget) {
    writer.option(budget.tokens, |writer, tokens| writer.u64(tokens.0));
    writer.option(budget.cost, |writer, cost| writer.u64(cost.0));
    writer.option(budget.time, |writer, time| writer.u64(time.0));
    writer.option(budget.calls, Writer::u64);
    writer.option(budget.steps, Writer::u64);
}

fn write_debug(writer: &mut Writer, debug: &Debug) {
    list(writer, &debug.files, |writer, file| writer.str(file));
    list(writer, &debug.lines, |writer, lines| {
        list(writer, lines, |writer, (first, file, line)| {
            writer.u32(*first);
            writer.u32(*file);
            writer.u32(*line);
        });
    });
}

//! Modules from bytes. What comes out has the right form; whether it may run is the verifier's question.

use nexa_types::limits::{CONSTANT_BYTES_MAX, MODULE_BYTES_MAX};
use nexa_types::{Budget, Millis, ModuleHash, Tokens, UsdMicro};

use super::encode::{GRAPH_MINOR, MAGIC, MEMORY_MINOR, MINOR_AT, VERSION, hash_of, max, section};
use super::{
    Agent, Constant, Debug, Entry, EntryParam, Field, Function, ModelRequestSpec, Module, RecordType, Type, memories,
    outline, statics, tools,
};
use crate::codec::read_shape;
use crate::verify::VerifyError;
use crate::wire::{Reader, WireError};

/// Why bytes are not a module that may run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// They do not start like a module, or like one of another version.
    #[error("E1001: not a module this build can load (it reads NXB1 version {}.{} and older minors); compile the program again", VERSION.0, VERSION.1)]
    Version,
    /// They are longer than a module may be.
    #[error("E1006: the module has {len} bytes, more than {MODULE_BYTES_MAX}")]
    TooLong {
        /// How long they are.
        len: usize,
    },
    /// A section is damaged.
    #[error("E1004: the module is damaged in its section {section}; compile the program again")]
    Damaged {
        /// The section's number; 0 is the outer form.
        section: u8,
        /// What is wrong with it.
        source: WireError,
    },
    /// The form is right and the content is refused.
    #[error("the module was refused")]
    Refused(
        /// Why.
        #[from]
        VerifyError,
    ),
}

impl Module {
    /// Reads a module's form.
    ///
    /// # Errors
    /// [`LoadError`] for bytes that [`Module::encode`] did not make. Reserves no more than the bytes justify.
    pub fn decode(bytes: &[u8]) -> Result<Self, LoadError> {
        Self::decode_with_hash(bytes).map(|(module, _)| module)
    }

    pub(crate) fn decode_with_hash(bytes: &[u8]) -> Result<(Self, ModuleHash), LoadError> {
        if bytes.len() > MODULE_BYTES_MAX {
            return Err(LoadError::TooLong { len: bytes.len() });
        }
        let header = bytes.get(..6).filter(|header| header[..4] == MAGIC).ok_or(LoadError::Version)?;
        if header[4] != VERSION.0 || header[5] > VERSION.1 {
            return Err(LoadError::Version);
        }
        let mut reader = Reader::new(&bytes[6..]);
        let constants = in_section(&mut reader, section::CONSTANTS, |r| r.list(max::CONSTANTS, read_constant))?;
        let types = in_section(&mut reader, section::TYPES, |r| r.list(max::TYPES, read_type))?;
        let shapes = in_section(&mut reader, section::SHAPES, |r| r.list(max::SHAPES, read_shape))?;
        let mut functions = in_section(&mut reader, section::FUNCTIONS, |r| r.list(max::FUNCTIONS, read_function))?;
        let agents = in_section(&mut reader, section::AGENTS, |r| r.list(max::AGENTS, read_agent))?;
        let requests = in_section(&mut reader, section::REQUESTS, |r| r.list(max::REQUESTS, read_request))?;
        let entries = in_section(&mut reader, section::ENTRIES, |r| r.list(max::ENTRIES, read_entry))?;
        let minor = header[5];
        let kinds = said_section(&mut reader, minor, section::KINDS, max::FUNCTIONS, statics::read_kinds)?;
        statics::put_kinds(&mut functions, kinds).map_err(|source| damaged(section::KINDS, source))?;
        let schedules = said_section(&mut reader, minor, section::SCHEDULES, max::FUNCTIONS, statics::read_schedule)?;
        let tools = said_section(&mut reader, minor, section::TOOLS, max::TOOLS, tools::read_tool)?;
        let grants = said_section(&mut reader, minor, section::GRANTS, max::FUNCTIONS, tools::read_grant)?;
        let offers = said_section(&mut reader, minor, section::OFFERS, max::REQUESTS, tools::read_offer)?;
        let cached = said_section(&mut reader, minor, section::CACHED, max::REQUESTS, |reader| reader.u32())?;
        let memories = if minor >= MEMORY_MINOR {
            said_section(&mut reader, minor, section::MEMORIES, max::REQUESTS, memories::read)?
        } else {
            Vec::new()
        };
        let hashed = bytes.len() - reader.left();
        let debug = in_section(&mut reader, section::DEBUG, read_debug)?;
        let has_graph = minor == GRAPH_MINOR || (minor > GRAPH_MINOR && reader.left() > 0);
        let graph = if has_graph {
            in_section(&mut reader, section::GRAPH, |reader| outline::read_graph(reader, max::FUNCTIONS))?
        } else {
            outline::Graph::default()
        };
        reader.end().map_err(|source| damaged(0, source))?;
        let module = Self {
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
            graph,
        };
        module.graph.check(&module).map_err(|source| damaged(section::GRAPH, source))?;
        // A graph changes the version that is written, and not the one that is hashed.
        let minor = if minor >= GRAPH_MINOR { module.minor() } else { minor };
        Ok((module, hash_of(&[&bytes[..MINOR_AT], &[minor], &bytes[MINOR_AT + 1..hashed]])))
    }
}

fn damaged(section: u8, source: WireError) -> LoadError {
    LoadError::Damaged { section, source }
}

/// A list that is in a section of its own, or empty where that section is left out.
fn said_section<T>(
    reader: &mut Reader<'_>,
    minor: u8,
    number: u8,
    most: usize,
    read: impl FnMut(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, LoadError> {
    if minor == 0 || reader.peek() != Some(number) {
        return Ok(Vec::new());
    }
    let said = in_section(reader, number, |reader| reader.list(most, read))?;
    if said.is_empty() { Err(damaged(number, reader.bad("a section that says something"))) } else { Ok(said) }
}

fn in_section<T>(
    reader: &mut Reader<'_>,
    number: u8,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<T, LoadError> {
    let damaged = |source| damaged(number, source);
    if reader.u8().map_err(damaged)? != number {
        return Err(damaged(reader.bad("the number of the next section")));
    }
    let len = reader.fixed_u32().map_err(damaged)?;
    let body = reader.raw(len as usize).map_err(damaged)?;
    let mut inner = Reader::new(body);
    let content = read(&mut inner).map_err(damaged)?;
    inner.end().map_err(damaged)?;
    Ok(content)
}

fn read_constant(reader: &mut Reader<'_>) -> Result<Constant, WireError> {
    Ok(match reader.u8()? {
        0 => {
            let text = reader.string()?;
            if text.len() > CONSTANT_BYTES_MAX {
                return Err(reader.bad("a constant of this length"));
            }
            Constant::Str(text)
        }
        1 => Constant::Int(reader.i64()?),
        2 => Constant::Float(reader.f64()?),
        3 => Constant::Duration(reader.i64()?),
        _ => return Err(reader.bad("a constant's tag")),
    })
}

fn read_type(reader: &mut Reader<'_>) -> Result<Type, WireError> {
    Ok(match reader.u8()? {
        0 => Type::Any,
        1 => Type::Unit,
        2 => Type::Str,
        3 => Type::Int,
        4 => Type::Float,
        5 => Type::Bool,
        6 => Type::Duration,
        7 => Type::List(reader.u32()?),
        8 => Type::Dict(reader.u32()?, reader.u32()?),
        9 => Type::Tuple(reader.list(max::PARTS, Reader::u32)?),
        10 => Type::Option(reader.u32()?),
        11 => Type::Result(reader.u32()?, reader.u32()?),
        12 => Type::Record(read_record(reader)?),
        13 => Type::Enum { name: reader.string()?, variants: reader.list(max::PARTS, read_record)? },
        14 => Type::Union(reader.list(max::PARTS, Reader::u32)?),
        15 => {
            Type::Semantic { base: reader.u32()?, condition: reader.string()?, pattern: reader.option(Reader::string)? }
        }
        _ => return Err(reader.bad("a type's tag")),
    })
}

fn read_record(reader: &mut Reader<'_>) -> Result<RecordType, WireError> {
    Ok(RecordType {
        name: reader.string()?,
        nominal: reader.bool()?,
        fields: reader.list(max::PARTS, |reader| {
            Ok(Field { name: reader.string()?, ty: reader.u32()?, doc: reader.string()? })
        })?,
    })
}

fn read_function(reader: &mut Reader<'_>) -> Result<Function, WireError> {
    let (name, arity) = (reader.string()?, reader.u8()?);
    let (locals, captures, stack) = (reader.u16()?, reader.u8()?, reader.u16()?);
    let flags = reader.u8()?;
    if flags > 3 {
        return Err(reader.bad("a function's flags"));
    }
    let code = reader.list(MODULE_BYTES_MAX / 4, Reader::fixed_u32)?;
    let (pure_, test) = (flags & 1 != 0, flags & 2 != 0);
    Ok(Function { name, arity, locals, captures, stack, pure_, test, param_kinds: Vec::new(), code })
}

fn read_agent(reader: &mut Reader<'_>) -> Result<Agent, WireError> {
    Ok(Agent {
        name: reader.string()?,
        doc: reader.string()?,
        function: reader.u32()?,
        params: reader.list(max::PARTS, |reader| Ok((reader.string()?, reader.u32()?)))?,
        result: reader.u32()?,
        budget: read_budget(reader)?,
        timeout: reader.option(|reader| reader.u64().map(Millis))?,
        priority: reader.u8()?,
        estimate: Millis(reader.u64()?),
    })
}

fn read_request(reader: &mut Reader<'_>) -> Result<ModelRequestSpec, WireError> {
    Ok(ModelRequestSpec {
        agent: reader.string()?,
        answer: reader.option(Reader::u32)?,
        temperature: reader.f64()?,
        top_p: reader.f64()?,
        max_tokens: Tokens(reader.u64()?),
        seed: reader.option(Reader::u64)?,
        stop: reader.list(max::PARTS, Reader::string)?,
        timeout: Millis(reader.u64()?),
    })
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, WireError> {
    Ok(Entry {
        name: reader.string()?,
        is_agent: reader.bool()?,
        function: reader.u32()?,
        params: reader.list(max::PARTS, |reader| {
            Ok(EntryParam {
                name: reader.string()?,
                ty: reader.u32()?,
                default: reader.option(|reader| reader.bytes().map(<[u8]>::to_vec))?,
            })
        })?,
        result: reader.u32()?,
        budget: read_budget(reader)?,
    })
}

fn read_budget(reader: &mut Reader<'_>) -> Result<Budget, WireError> {
    Ok(Budget {
        tokens: reader.option(|reader| reader.u64().map(Tokens))?,
        cost: reader.option(|reader| reader.u64().map(UsdMicro))?,
        time: reader.option(|reader| reader.u64().map(Millis))?,
        calls: reader.option(Reader::u64)?,
        steps: reader.option(Reader::u64)?,
    })
}

fn read_debug(reader: &mut Reader<'_>) -> Result<Debug, WireError> {
    Ok(Debug {
        files: reader.list(max::FILES, Reader::string)?,
        lines: reader.list(max::FUNCTIONS, |reader| {
            reader.list(usize::MAX, |reader| Ok((reader.u32()?, reader.u32()?, reader.u32()?)))
        })?,
    })
}

//! Values as bytes, and back: how they travel between agents and how they are recorded.
//!
//! One byte names the format, then comes the tree. Agents and functions are written as their index, so such a value
//! means something only together with its module. An iterator never leaves its stack and has no encoding.
//!
//! A value that shares parts with itself is written out in full, so both directions have bounds: [`VALUE_BYTES_MAX`]
//! bytes and [`DEPTH_MAX`] levels.

use std::sync::Arc;

use nexa_types::limits::{DEPTH_MAX, FRAMES_MAX, SECRET_NAME_BYTES_MAX, STRING_BYTES_MAX};
use nexa_types::{Payload, RunCode};

use crate::value::{Closure, Dict, Key, Record, Shape, Stage, Value};
use crate::wire::{Reader, WireError, Writer};

/// The longest encoded value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// The fields of one shape, and the stages of one chain.
pub(crate) const FIELDS_MAX: usize = 1024;

const FORMAT: u8 = 1;

/// Why a value could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is too long when written out.
    #[error("the value is longer than {VALUE_BYTES_MAX} bytes when written out; pass less, or a part of it")]
    TooLong,
    /// It nests too deeply.
    #[error("the value nests deeper than {DEPTH_MAX} levels; flatten it")]
    TooDeep,
    /// An iterator is in it.
    #[error("an iteration that is under way cannot leave its agent")]
    Iterator,
    /// A saved state is in it.
    #[error("a snapshot belongs to the agent that made it and cannot leave it")]
    Saved,
}

impl EncodeError {
    /// The error that a program ends with.
    pub const fn code(self) -> RunCode {
        match self {
            Self::TooLong | Self::TooDeep | Self::Iterator => RunCode::OutOfMemory,
            Self::Saved => RunCode::DeadHandle,
        }
    }
}

/// Why bytes are not a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not an encoded value")]
pub struct DecodeError {
    /// What is wrong with them, and where.
    #[from]
    pub source: WireError,
}

/// Encodes a value that is known to be small enough, such as one that was decoded or parsed.
///
/// A value that [`try_encode`] refuses becomes `()`; only a program can make one, and the machine asks `try_encode`.
pub fn encode(value: &Value) -> Payload {
    try_encode(value).unwrap_or_else(|_| Payload::new([FORMAT, tag::UNIT].as_slice()))
}

/// Encodes any value.
///
/// # Errors
/// [`EncodeError`] if it is too long, too deep, or holds an iteration or a saved state.
pub fn try_encode(value: &Value) -> Result<Payload, EncodeError> {
    let mut writer = Writer::new();
    writer.u8(FORMAT);
    write(&mut writer, value, 0)?;
    Ok(Payload::new(writer.bytes))
}

/// Decodes a value.
///
/// # Errors
/// [`DecodeError`] for bytes that [`encode`] did not make. Nothing longer than the bytes themselves is reserved.
///
/// A text that is most of the payload is not copied out of it: all who decode one payload share it.
pub fn decode(payload: &Payload) -> Result<Value, DecodeError> {
    read_all(Reader::of(payload))
}

/// Decodes a value that stands in other bytes.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(bytes: &[u8]) -> Result<Value, DecodeError> {
    read_all(Reader::new(bytes))
}

fn read_all(mut reader: Reader<'_>) -> Result<Value, DecodeError> {
    if reader.left() > VALUE_BYTES_MAX {
        return Err(reader.bad("a value of this length").into());
    }
    if reader.u8()? != FORMAT {
        return Err(reader.bad("the format byte").into());
    }
    let value = read(&mut reader, 0)?;
    reader.end()?;
    Ok(value)
}

/// The first byte of every value. Numbers are stored and never reused; snapshots use them too.
pub(crate) mod tag {
    pub(crate) const UNIT: u8 = 0;
    pub(crate) const NONE: u8 = 1;
    pub(crate) const FALSE: u8 = 2;
    pub(crate) const TRUE: u8 = 3;
    pub(crate) const INT: u8 = 4;
    pub(crate) const FLOAT: u8 = 5;
    pub(crate) const DURATION: u8 = 6;
    pub(crate) const STR: u8 = 7;
    pub(crate) const LIST: u8 = 8;
    pub(crate) const TUPLE: u8 = 9;
    pub(crate) const RECORD: u8 = 10;
    pub(crate) const DICT: u8 = 11;
    pub(crate) const VARIANT: u8 = 12;
    pub(crate) const OK: u8 = 13;
    pub(crate) const ERR: u8 = 14;
    pub(crate) const AGENT: u8 = 15;
    pub(crate) const CLOSURE: u8 = 16;
    pub(crate) const PARTIAL: u8 = 17;
    pub(crate) const CHAIN: u8 = 18;
    pub(crate) const ITERATOR: u8 = 19;
    pub(crate) const SECRET: u8 = 20;
    pub(crate) const SAVED: u8 = 21;
}

/// Writes a value without parts; `false` if it has parts.
pub(crate) fn write_scalar(writer: &mut Writer, value: &Value) -> bool {
    match value {
        Value::Unit => writer.u8(tag::UNIT),
        Value::None => writer.u8(tag::NONE),
        Value::Bool(value) => writer.u8(if *value { tag::TRUE } else { tag::FALSE }),
        Value::Int(value) => {
            writer.u8(tag::INT);
            writer.i64(*value);
        }
        Value::Float(value) => {
            writer.u8(tag::FLOAT);
            writer.f64(*value);
        }
        Value::Duration(value) => {
            writer.u8(tag::DURATION);
            writer.i64(*value);
        }
        Value::Agent(index) => {
            writer.u8(tag::AGENT);
            writer.u32(*index);
        }
        Value::Secret(name) => {
            writer.u8(tag::SECRET);
            writer.str(name);
        }
        Value::Saved(number) => {
            writer.u8(tag::SAVED);
            writer.u64(*number);
        }
        _ => return false,
    }
    true
}

/// Reads a value without parts whose tag was read; `None` if the tag is another's.
pub(crate) fn read_scalar(reader: &mut Reader<'_>, tag: u8) -> Result<Option<Value>, WireError> {
    Ok(Some(match tag {
        tag::UNIT => Value::Unit,
        tag::NONE => Value::None,
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        tag::INT => Value::Int(reader.i64()?),
        tag::FLOAT => Value::Float(reader.f64()?),
        tag::DURATION => Value::Duration(reader.i64()?),
        tag::AGENT => Value::Agent(reader.u32()?),
        tag::SECRET => {
            let name = reader.str()?;
            if name.len() > SECRET_NAME_BYTES_MAX {
                return Err(reader.bad("a secret's name"));
            }
            Value::Secret(name.into())
        }
        tag::SAVED => Value::Saved(reader.u64()?),
        _ => return Ok(None),
    }))
}

fn write(writer: &mut Writer, value: &Value, depth: usize) -> Result<(), EncodeError> {
    if depth > DEPTH_MAX {
        return Err(EncodeError::TooDeep);
    }
    let list = |writer: &mut Writer, values: &[Value]| {
        writer.count(values.len());
        values.iter().try_for_each(|value| write(writer, value, depth + 1))
    };
    if matches!(value, Value::Saved(_)) {
        return Err(EncodeError::Saved);
    }
    if !write_scalar(writer, value) {
        match value {
            Value::Str(text) => {
                writer.u8(tag::STR);
                writer.str(text);
            }
            Value::List(values) => {
                writer.u8(tag::LIST);
                list(writer, values)?;
            }
            Value::Tuple(values) => {
                writer.u8(tag::TUPLE);
                list(writer, values)?;
            }
            Value::Record(record) | Value::Variant(record) => {
                writer.u8(if matches!(value, Value::Record(_)) { tag::RECORD } else { tag::VARIANT });
                write_shape(writer, &record.shape);
                list(writer, &record.values)?;
            }
            Value::Dict(dict) => {
                writer.u8(tag::DICT);
                writer.count(dict.len());
                for (key, value) in dict.entries() {
                    match key {
                        Key::Str(text) => {
                            writer.u8(tag::STR);
                            writer.str(text);
                        }
                        Key::Int(number) => {
                            writer.u8(tag::INT);
                            writer.i64(*number);
                        }
                        Key::Bool(value) => writer.u8(if *value { tag::TRUE } else { tag::FALSE }),
                    }
                    write(writer, value, depth + 1)?;
                }
            }
            Value::Ok(inner) => {
                writer.u8(tag::OK);
                write(writer, inner, depth + 1)?;
            }
            Value::Err(inner) => {
                writer.u8(tag::ERR);
                write(writer, inner, depth + 1)?;
            }
            Value::Closure(closure) => {
                writer.u8(tag::CLOSURE);
                writer.u32(closure.function);
                list(writer, &closure.captures)?;
            }
            Value::Stage(stage) => match &**stage {
                Stage::Partial { callee, args, open } => {
                    writer.u8(tag::PARTIAL);
                    writer.u32(u32::from(*open));
                    write(writer, callee, depth + 1)?;
                    list(writer, args)?;
                }
                Stage::Chain(stages) => {
                    writer.u8(tag::CHAIN);
                    list(writer, stages)?;
                }
            },
            _ => return Err(EncodeError::Iterator),
        }
    }
    if writer.bytes.len() > VALUE_BYTES_MAX { Err(EncodeError::TooLong) } else { Ok(()) }
}

pub(crate) fn write_shape(writer: &mut Writer, shape: &Shape) {
    writer.str(&shape.type_name);
    writer.str(&shape.tag);
    writer.count(shape.fields.len());
    for field in &shape.fields {
        writer.str(field);
    }
}

pub(crate) fn read_shape(reader: &mut Reader<'_>) -> Result<Shape, WireError> {
    let type_name = reader.string()?;
    let tag = reader.string()?;
    let fields = reader.list(FIELDS_MAX, Reader::string)?;
    Ok(Shape { type_name, tag, fields })
}

pub(crate) fn read_key(reader: &mut Reader<'_>) -> Result<Key, WireError> {
    Ok(match reader.u8()? {
        tag::STR => Key::Str(reader.str()?.into()),
        tag::INT => Key::Int(reader.i64()?),
        tag::FALSE => Key::Bool(false),
        tag::TRUE => Key::Bool(true),
        _ => return Err(reader.bad("a dict's key")),
    })
}

fn read(reader: &mut Reader<'_>, depth: usize) -> Result<Value, WireError> {
    if depth > DEPTH_MAX {
        return Err(reader.bad("a value that nests so deeply"));
    }
    let tag = reader.u8()?;
    if tag == tag::SAVED {
        return Err(reader.bad("a snapshot outside of its agent"));
    }
    if let Some(value) = read_scalar(reader, tag)? {
        return Ok(value);
    }
    let list = |reader: &mut Reader<'_>| reader.list(usize::MAX, |reader| read(reader, depth + 1));
    Ok(match tag {
        tag::STR => {
            let text = reader.text()?;
            if text.len() > STRING_BYTES_MAX {
                return Err(reader.bad("a text of this length"));
            }
            Value::Str(text)
        }
        tag::LIST => Value::List(Arc::new(list(reader)?)),
        tag::TUPLE => Value::Tuple(Arc::new(list(reader)?)),
        tag::RECORD | tag::VARIANT => {
            let shape = read_shape(reader)?;
            let values = list(reader)?;
            if values.len() != shape.fields.len() {
                return Err(reader.bad("a record whose values are not as many as its fields"));
            }
            let record = Arc::new(Record { shape: Arc::new(shape), values });
            if tag == tag::RECORD { Value::Record(record) } else { Value::Variant(record) }
        }
        tag::DICT => {
            let entries = reader.list(usize::MAX, |reader| Ok((read_key(reader)?, read(reader, depth + 1)?)))?;
            let dict = Dict::of_distinct(entries);
            Value::Dict(Arc::new(dict.ok_or_else(|| reader.bad("a dict with a key that stands twice"))?))
        }
        tag::OK => Value::Ok(Arc::new(read(reader, depth + 1)?)),
        tag::ERR => Value::Err(Arc::new(read(reader, depth + 1)?)),
        tag::CLOSURE => {
            let function = reader.u32()?;
            Value::Closure(Arc::new(Closure { function, captures: list(reader)? }))
        }
        tag::PARTIAL => {
            let open = reader.u16()?;
            let callee = read(reader, depth + 1)?;
            let args = list(reader)?;
            if !Stage::may_open(open, args.len()) {
                return Err(reader.bad("a stage's open argument"));
            }
            Value::Stage(Arc::new(Stage::Partial { callee, args, open }))
        }
        tag::CHAIN => {
            let stages = list(reader)?;
            if stages.is_empty() || stages.len() > FRAMES_MAX {
                return Err(reader.bad("a chain's length"));
            }
            Value::Stage(Arc::new(Stage::Chain(stages)))
        }
        _ => return Err(reader.bad("a value's tag")),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            "[a-z]{0,4}".prop_map(|text| Key::Str(text.as_str().into())),
            any::<i64>().prop_map(Key::Int),
            any::<bool>().prop_map(Key::Bool),
        ]
    }

    fn shape_for(values: &[Value], type_name: &str, tag: &str) -> Arc<Shape> {
        let fields = (0..values.len()).map(|index| format!("f{index}")).collect();
        Arc::new(Shape { type_name: type_name.to_owned(), tag: tag.to_owned(), fields })
    }

    /// Any value that may leave an agent.
    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Unit),
            Just(Value::None),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            proptest::num::f64::NORMAL.prop_map(Value::Float),
            any::<i64>().prop_map(Value::Duration),
            "\\PC{0,12}".prop_map(|text| Value::Str(text.as_str().into())),
            (0u32..9).prop_map(Value::Agent),
            "[A-Z_]{1,8}".prop_map(|name| Value::Secret(name.as_str().into())),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..5);
            prop_oneof![
                list.clone().prop_map(|values| Value::List(Arc::new(values))),
                list.clone().prop_map(|values| Value::Tuple(Arc::new(values))),
                list.clone().prop_map(|values| {
                    Value::Record(Arc::new(Record { shape: shape_for(&values, "", ""), values }))
                }),
                list.clone().prop_map(|values| {
                    Value::Variant(Arc::new(Record { shape: shape_for(&values, "E", "tag"), values }))
                }),
                proptest::collection::vec((key(), inner.clone()), 0..5)
                    .prop_map(|entries| { Value::Dict(Arc::new(entries.into_iter().collect())) }),
                inner.clone().prop_map(|value| Value::Ok(Arc::new(value))),
                inner.clone().prop_map(|value| Value::Err(Arc::new(value))),
                list.clone().prop_map(|captures| Value::Closure(Arc::new(Closure { function: 1, captures }))),
                (list, any::<bool>()).prop_map(|(args, is_open)| {
                    let open = if is_open { args.len() as u16 } else { Stage::NOTHING_OPEN };
                    Value::Stage(Arc::new(Stage::Partial { callee: Value::Agent(0), args, open }))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_decodes_as_it_was_encoded(value in any_value()) {
            let payload = try_encode(&value).unwrap();
            prop_assert_eq!(decode(&payload), Ok(value));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(0u8..24, 0..40)) {
            let mut hostile = vec![FORMAT];
            hostile.extend(bytes);
            if let Ok(value) = decode_bytes(&hostile) {
                let encoded = encode(&value);
                prop_assert_eq!(encoded.as_bytes(), hostile.as_slice());
            }
        }
    }

    #[test]
    fn a_value_that_doubles_itself_is_refused_and_not_written_out() {
        let mut value = Value::Int(1);
        for _ in 0..60 {
            value = Value::List(Arc::new(vec![value.clone(), value]));
        }
        assert_eq!(try_encode(&value), Err(EncodeError::TooLong));
    }

    #[test]
    fn a_value_that_nests_too_deeply_is_refused_in_both_directions() {
        let mut value = Value::Unit;
        for _ in 0..400 {
            value = Value::Ok(Arc::new(value));
        }
        assert_eq!(try_encode(&value), Err(EncodeError::TooDeep));
        let mut bytes = vec![FORMAT];
        bytes.extend([tag::OK; 100_000]);
        assert!(decode_bytes(&bytes).is_err());
    }
}

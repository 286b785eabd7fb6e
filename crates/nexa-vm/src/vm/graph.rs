//! A snapshot's table of values.
//!
//! Each value is written after its parts and refers to them by number: what is shared stays shared, and no cycle can be
//! written down. A value without parts stands where it is used.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_types::limits::{SNAPSHOT_BYTES_MAX, STRING_BYTES_MAX};

use super::Program;
use super::heap::{AddressMap, DEPTH_ALLOWED, own_bytes, shared_address};
use super::snapshot::{SnapshotError, damaged};
use crate::codec::{FIELDS_MAX, read_key, read_scalar, read_shape, tag, write_scalar, write_shape};
use crate::value::{Closure, Dict, Iterator, Key, Record, Shape, Stage, Value};
use crate::wire::{Reader, WireError, Writer};

/// Tags of snapshots alone, besides those of values.
mod own_tag {
    /// A value of the table, by number.
    pub(super) const NODE: u8 = 32;
    /// A text that is a constant of the module, by index.
    pub(super) const CONSTANT: u8 = 33;
}

/// The table of values while it is written.
pub(super) struct Graph<'p> {
    program: &'p Program,
    own_shapes: BTreeMap<Arc<Shape>, u32>,
    shapes: Writer,
    /// The number of each shape by its address, so that it is looked up by content once.
    shape_addresses: AddressMap<u32>,
    nodes: Writer,
    /// Buffers of values that were written, to be used again.
    spare: Vec<Writer>,
    count: u32,
    /// The number of each value that may be met again.
    known: AddressMap<u32>,
}

impl<'p> Graph<'p> {
    pub(super) fn new(program: &'p Program) -> Self {
        Self {
            program,
            own_shapes: BTreeMap::new(),
            shapes: Writer::new(),
            shape_addresses: AddressMap::default(),
            nodes: Writer::new(),
            spare: Vec::new(),
            count: 0,
            known: AddressMap::default(),
        }
    }

    pub(super) fn finish(self) -> Writer {
        let mut out = Writer::new();
        out.count(self.own_shapes.len());
        out.raw(&self.shapes.bytes);
        out.u32(self.count);
        out.raw(&self.nodes.bytes);
        out
    }

    /// Writes a value, or the number of its node, which is written before.
    pub(super) fn reference(&mut self, out: &mut Writer, value: &Value) {
        if write_scalar(out, value) {
            return;
        }
        let address = shared_address(value);
        if let (Value::Str(_), Some(index)) = (value, address.and_then(|address| self.program.constant_at(address))) {
            out.u8(own_tag::CONSTANT);
            out.u32(index);
            return;
        }
        let number = match address.and_then(|address| self.known.get(&address)) {
            Some(number) => *number,
            None => {
                let number = self.node(value);
                if let Some(address) = address {
                    self.known.insert(address, number);
                }
                number
            }
        };
        out.u8(own_tag::NODE);
        out.u32(number);
    }

    fn node(&mut self, value: &Value) -> u32 {
        if let Value::Str(text) = value {
            self.nodes.u8(tag::STR);
            self.nodes.str(text);
            self.count += 1;
            return self.count - 1;
        }
        // The parts are written to the table first, so the value itself waits in a buffer.
        let mut body = self.spare.pop().unwrap_or_default();
        let list = |graph: &mut Self, body: &mut Writer, values: &[Value]| {
            body.count(values.len());
            for value in values {
                graph.reference(body, value);
            }
        };
        match value {
            Value::List(values) => {
                body.u8(tag::LIST);
                list(self, &mut body, values);
            }
            Value::Tuple(values) => {
                body.u8(tag::TUPLE);
                list(self, &mut body, values);
            }
            Value::Record(record) | Value::Variant(record) => {
                body.u8(if matches!(value, Value::Record(_)) { tag::RECORD } else { tag::VARIANT });
                let shape = self.shape(&record.shape);
                body.u32(shape);
                list(self, &mut body, &record.values);
            }
            Value::Dict(dict) => {
                body.u8(tag::DICT);
                body.count(dict.len());
                for (key, value) in dict.entries() {
                    match key {
                        Key::Str(text) => {
                            body.u8(tag::STR);
                            body.str(text);
                        }
                        Key::Int(number) => {
                            body.u8(tag::INT);
                            body.i64(*number);
                        }
                        Key::Bool(value) => body.u8(if *value { tag::TRUE } else { tag::FALSE }),
                    }
                    self.reference(&mut body, value);
                }
            }
            Value::Ok(inner) => {
                body.u8(tag::OK);
                self.reference(&mut body, inner);
            }
            Value::Err(inner) => {
                body.u8(tag::ERR);
                self.reference(&mut body, inner);
            }
            Value::Closure(closure) => {
                body.u8(tag::CLOSURE);
                body.u32(closure.function);
                list(self, &mut body, &closure.captures);
            }
            Value::Stage(stage) => match &**stage {
                Stage::Partial { callee, args, open } => {
                    body.u8(tag::PARTIAL);
                    body.u32(u32::from(*open));
                    self.reference(&mut body, callee);
                    list(self, &mut body, args);
                }
                Stage::Chain(stages) => {
                    body.u8(tag::CHAIN);
                    list(self, &mut body, stages);
                }
            },
            Value::Iterator(iterator) => {
                body.u8(tag::ITERATOR);
                body.u64(iterator.taken);
                self.reference(&mut body, &iterator.over);
            }
            // Scalars were written in place, texts above.
            _ => body.u8(tag::UNIT),
        }
        self.nodes.raw(&body.bytes);
        body.bytes.clear();
        self.spare.push(body);
        self.count += 1;
        self.count - 1
    }

    /// The number of a shape: the module's first, then those of this snapshot in the order they are met.
    fn shape(&mut self, shape: &Arc<Shape>) -> u32 {
        let address = Arc::as_ptr(shape) as usize;
        if let Some(number) = self.shape_addresses.get(&address) {
            return *number;
        }
        let number = match self.program.shape_number(shape) {
            Some(index) => index,
            None => match self.own_shapes.get(shape) {
                Some(number) => *number,
                None => {
                    let number = (self.program.shapes.len() + self.own_shapes.len()) as u32;
                    write_shape(&mut self.shapes, shape);
                    self.own_shapes.insert(Arc::clone(shape), number);
                    number
                }
            },
        };
        // The stack keeps every shape alive while the table is written, so an address stays one shape's.
        self.shape_addresses.insert(address, number);
        number
    }
}

/// Nodes that room is made for before they are read.
const RESERVED_MAX: usize = 4_096;

/// The table of values while it is read.
pub(super) struct Nodes<'p> {
    program: &'p Program,
    values: Vec<(Value, u32)>,
    shapes: Vec<Arc<Shape>>,
    /// What may still be allocated.
    room: u64,
}

impl<'p> Nodes<'p> {
    /// The table, and how deep its deepest value nests.
    pub(super) fn read(program: &'p Program, mut reader: Reader<'_>, limit: u64) -> Result<(Self, u32), SnapshotError> {
        // Values take at most what the meter allows, and a little for what is not metered.
        let room = limit.saturating_mul(2).saturating_add(1 << 20);
        let mut nodes = Self { program, values: Vec::new(), shapes: Vec::new(), room };
        for _ in 0..reader.count(SNAPSHOT_BYTES_MAX)? {
            let shape = read_shape(&mut reader)?;
            let names: usize = shape.fields.iter().map(|field| field.len() + size_of::<String>()).sum();
            nodes.take((names + shape.type_name.len() + shape.tag.len() + size_of::<Shape>()) as u64)?;
            nodes.shapes.push(Arc::new(shape));
        }
        let mut deepest = 0;
        let count = reader.count(SNAPSHOT_BYTES_MAX)?;
        // A node takes a byte at least, and so much is held for it at most; more grows as it is read.
        nodes.values.reserve(count.min(RESERVED_MAX));
        for _ in 0..count {
            let depth = Cell::new(0);
            let value = nodes.node(&mut reader, &depth)?;
            nodes.take(own_bytes(&value).saturating_add(size_of::<(Value, u32)>() as u64))?;
            deepest = deepest.max(depth.get());
            nodes.values.push((value, depth.get()));
        }
        reader.end()?;
        Ok((nodes, deepest))
    }

    fn take(&mut self, bytes: u64) -> Result<(), SnapshotError> {
        self.room =
            self.room.checked_sub(bytes).ok_or_else(|| damaged("the values take more than the agent may use"))?;
        Ok(())
    }

    /// A value that was written in place or by number. `depth` grows to one more than the value's own.
    pub(super) fn reference(
        &self,
        reader: &mut Reader<'_>,
        depth: &Cell<u32>,
        may_iterate: bool,
    ) -> Result<Value, WireError> {
        let tag = reader.u8()?;
        depth.set(depth.get().max(1));
        if let Some(value) = read_scalar(reader, tag)? {
            return Ok(value);
        }
        let value = match tag {
            own_tag::CONSTANT => self.program.constants.get(reader.u32()? as usize).cloned(),
            own_tag::NODE => self.values.get(reader.u32()? as usize).map(|(value, own)| {
                depth.set(depth.get().max(own + 1));
                value.clone()
            }),
            _ => None,
        };
        match value {
            Some(Value::Iterator(_)) if !may_iterate => Err(reader.bad("an iteration inside a value")),
            Some(value) if depth.get() <= 2 * DEPTH_ALLOWED => Ok(value),
            _ => Err(reader.bad("a reference to a value")),
        }
    }

    fn node(&self, reader: &mut Reader<'_>, depth: &Cell<u32>) -> Result<Value, WireError> {
        let list = |reader: &mut Reader<'_>| {
            // Each takes at least a byte here and 24 in memory.
            let max = usize::try_from(self.room / size_of::<Value>() as u64).unwrap_or(usize::MAX);
            reader.list(max, |reader| self.reference(reader, depth, false))
        };
        Ok(match reader.u8()? {
            tag::STR => {
                let text = reader.str()?;
                if text.len() > STRING_BYTES_MAX {
                    return Err(reader.bad("a text of this length"));
                }
                Value::Str(text.into())
            }
            tag::LIST => Value::List(Arc::new(list(reader)?)),
            tag::TUPLE => Value::Tuple(Arc::new(list(reader)?)),
            kind @ (tag::RECORD | tag::VARIANT) => {
                let number = reader.u32()? as usize;
                let shapes = &self.program.shapes;
                let shape = shapes.get(number).or_else(|| self.shapes.get(number.checked_sub(shapes.len())?)).cloned();
                let shape = shape.ok_or_else(|| reader.bad("a shape's number"))?;
                let values = list(reader)?;
                if values.len() != shape.fields.len() || values.len() > FIELDS_MAX {
                    return Err(reader.bad("a record whose values are not as many as its fields"));
                }
                let record = Arc::new(Record { shape, values });
                if kind == tag::RECORD { Value::Record(record) } else { Value::Variant(record) }
            }
            tag::DICT => {
                let max = usize::try_from(self.room / (2 * size_of::<Value>() as u64)).unwrap_or(usize::MAX);
                let entries =
                    reader.list(max, |reader| Ok((read_key(reader)?, self.reference(reader, depth, false)?)))?;
                let dict = Dict::of_distinct(entries);
                Value::Dict(Arc::new(dict.ok_or_else(|| reader.bad("a dict with a key that stands twice"))?))
            }
            tag::OK => Value::Ok(Arc::new(self.reference(reader, depth, false)?)),
            tag::ERR => Value::Err(Arc::new(self.reference(reader, depth, false)?)),
            tag::CLOSURE => {
                let function = reader.u32()?;
                Value::Closure(Arc::new(Closure { function, captures: list(reader)? }))
            }
            tag::PARTIAL => {
                let open = reader.u16()?;
                let callee = self.reference(reader, depth, false)?;
                let args = list(reader)?;
                if !Stage::may_open(open, args.len()) {
                    return Err(reader.bad("a stage's open argument"));
                }
                Value::Stage(Arc::new(Stage::Partial { callee, args, open }))
            }
            tag::CHAIN => Value::Stage(Arc::new(Stage::Chain(list(reader)?))),
            tag::ITERATOR => {
                let taken = reader.u64()?;
                let over = self.reference(reader, depth, false)?;
                Value::Iterator(Arc::new(Iterator { over, taken }))
            }
            _ => return Err(reader.bad("a value's tag")),
        })
    }
}

//! Operations on records, dicts, lists and iterations.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_types::RunCode;

use super::Vm;
use super::arithmetic::undefined;
use super::equal::Work;
use super::heap::{VALUE_BYTES, own_bytes};
use super::ops::{Flow, constant_text, too_much_work};
use super::raise::Fault;
use crate::json::validate::describe;
use crate::json::write::key_text;
use crate::op::Op;
use crate::value::{Dict, Key, Shape, Value};

impl Vm {
    pub(super) fn set_field(&mut self, constant: u32) -> Result<Flow, Fault> {
        let bytes = own_bytes(self.two()?.0);
        self.charge(bytes + VALUE_BYTES)?;
        self.nest_top(1)?;
        let program = Arc::clone(&self.program);
        let name = constant_text(&program, constant)?;
        let value = self.pop()?;
        let changed = match self.pop()? {
            Value::Record(mut record) => match record.shape.fields.iter().position(|field| field == name) {
                Some(index) => {
                    Arc::make_mut(&mut record).values[index] = value;
                    Value::Record(record)
                }
                None => return Err(no_field(name)),
            },
            Value::Dict(mut dict) => {
                set_entry(Arc::make_mut(&mut dict), Key::Str(name.into()), value);
                Value::Dict(dict)
            }
            other => return Err(Fault::mismatch(format!("{} has no field `{name}`", describe(&other)))),
        };
        self.replace(0, changed)
    }

    pub(super) fn new_dict(&mut self, pairs: usize) -> Result<Flow, Fault> {
        let keys = self.stack.len().checked_sub(2 * pairs).ok_or_else(|| Fault::internal("operands are missing"))?;
        let key_bytes: u64 = self.stack[keys..].iter().step_by(2).map(own_bytes).sum();
        self.charge(key_bytes)?;
        let mut parts = self.take_parts(2 * pairs)?.into_iter();
        let mut dict = Dict { entries: Vec::with_capacity(pairs) };
        let mut places: BTreeMap<Key, usize> = BTreeMap::new();
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            let key = key_of(&key)?;
            // A key that stands twice keeps its first place and its last value.
            match places.get(&key) {
                Some(&place) => dict.entries[place].1 = value,
                None => {
                    places.insert(key.clone(), dict.entries.len());
                    dict.entries.push((key, value));
                }
            }
        }
        self.replace(0, Value::Dict(Arc::new(dict)))
    }

    pub(super) fn set_index(&mut self) -> Result<Flow, Fault> {
        let bytes = match self.stack.as_slice() {
            [.., xs, _, _] => own_bytes(xs) + 2 * VALUE_BYTES,
            _ => return Err(Fault::internal("an operand is missing")),
        };
        self.charge(bytes)?;
        self.nest_top(1)?;
        let value = self.pop()?;
        let index = self.pop()?;
        let changed = match (self.pop()?, &index) {
            (Value::List(mut values), Value::Int(index)) => {
                let place = list_place(&values, *index)?;
                Arc::make_mut(&mut values)[place] = value;
                Value::List(values)
            }
            (Value::Dict(mut dict), key) => {
                set_entry(Arc::make_mut(&mut dict), key_of(key)?, value);
                Value::Dict(dict)
            }
            (other, index) => {
                let (xs, index) = (describe(&other), describe(index));
                return Err(Fault::mismatch(format!("{xs} has no place {index} to put a value")));
            }
        };
        self.replace(0, changed)
    }

    pub(super) fn iter_next(&mut self, target: u32) -> Result<Flow, Fault> {
        let Some(Value::Iterator(iterator)) = self.stack.last_mut() else {
            return Err(Fault::internal("a step of no iteration"));
        };
        let iterator = Arc::make_mut(iterator);
        let index = usize::try_from(iterator.taken).unwrap_or(usize::MAX);
        let mut step = 1;
        let next = match &iterator.over {
            Value::List(values) | Value::Tuple(values) => values.get(index).cloned(),
            Value::Dict(dict) => {
                dict.entries.get(index).map(|(key, value)| Value::Tuple(Arc::new(vec![key_value(key), value.clone()])))
            }
            // Over a text it counts bytes, so that each step is cheap.
            Value::Str(text) => text.get(index..).and_then(|rest| rest.chars().next()).map(|character| {
                step = character.len_utf8() as u64;
                Value::Str(character.encode_utf8(&mut [0; 4]).into())
            }),
            _ => None,
        };
        match next {
            Some(value) => {
                iterator.taken = iterator.taken.saturating_add(step);
                let bytes = if matches!(iterator.over, Value::List(_)) { 0 } else { own_bytes(&value) };
                let is_shallow = bytes == 0 || self.heap.nest(&value);
                self.stack.push(value);
                if bytes > 0 {
                    self.charge(bytes)?;
                }
                if !is_shallow {
                    self.recount(0)?;
                }
                Ok(Flow::Next)
            }
            None => {
                self.pop()?;
                Ok(Flow::Jump(target))
            }
        }
    }
}

fn no_field(name: &str) -> Fault {
    Fault::new(RunCode::KeyMissing, format!("there is no field `{name}`"))
}

pub(super) fn get_field(value: &Value, name: &str) -> Result<Value, Fault> {
    match value {
        Value::Record(_) | Value::Variant(_) | Value::Dict(_) => {
            crate::json::validate::member(value, name).cloned().ok_or_else(|| no_field(name))
        }
        other => Err(Fault::mismatch(format!("{} has no field `{name}`", describe(other)))),
    }
}

/// A dict's key as a value.
pub(crate) fn key_value(key: &Key) -> Value {
    match key {
        Key::Str(text) => Value::Str(Arc::clone(text)),
        Key::Int(number) => Value::Int(*number),
        Key::Bool(value) => Value::Bool(*value),
    }
}

/// A value as a dict's key.
pub(crate) fn key_of(value: &Value) -> Result<Key, Fault> {
    match value {
        Value::Str(text) => Ok(Key::Str(Arc::clone(text))),
        Value::Int(number) => Ok(Key::Int(*number)),
        Value::Bool(value) => Ok(Key::Bool(*value)),
        other => Err(Fault::mismatch(format!("{} cannot be a key; keys are str, int or bool", describe(other)))),
    }
}

/// Puts an entry at its key's place, or at the end.
pub(crate) fn set_entry(dict: &mut Dict, key: Key, value: Value) {
    match dict.entries.iter_mut().find(|(other, _)| *other == key) {
        Some(entry) => entry.1 = value,
        None => dict.entries.push((key, value)),
    }
}

fn list_place(values: &[Value], index: i64) -> Result<usize, Fault> {
    usize::try_from(index)
        .ok()
        .filter(|place| *place < values.len())
        .ok_or_else(|| Fault::new(RunCode::Index, format!("no element {index} in a list of {}", values.len())))
}

pub(super) fn index_value(xs: &Value, index: &Value) -> Result<Value, Fault> {
    match (xs, index) {
        (Value::List(values) | Value::Tuple(values), Value::Int(index)) => {
            Ok(values[list_place(values, *index)?].clone())
        }
        (Value::Str(text), Value::Int(index)) => {
            let found = usize::try_from(*index).ok().and_then(|index| text.chars().nth(index));
            let found = found.ok_or_else(|| {
                Fault::new(RunCode::Index, format!("no character {index} in a text of {}", text.chars().count()))
            })?;
            Ok(Value::Str(found.encode_utf8(&mut [0; 4]).into()))
        }
        (Value::Dict(dict), key) => {
            let key = key_of(key)?;
            let found = dict.entries.iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone());
            found.ok_or_else(|| Fault::new(RunCode::KeyMissing, format!("there is no key `{}`", key_text(&key))))
        }
        (xs, index) => Err(Fault::mismatch(format!("{} has no place {}", describe(xs), describe(index)))),
    }
}

/// Whether `x` is an element of a list, a key of a dict, or a part of a text.
pub(super) fn contains(x: &Value, xs: &Value) -> Result<bool, Fault> {
    match (x, xs) {
        (x, Value::List(values) | Value::Tuple(values)) => {
            let mut work = Work::new();
            for value in values.iter() {
                if work.equal(x, value).map_err(too_much_work)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (key, Value::Dict(dict)) => {
            let key = key_of(key)?;
            Ok(dict.entries.iter().any(|(other, _)| *other == key))
        }
        (Value::Str(part), Value::Str(text)) => Ok(text.contains(part.as_ref())),
        (x, xs) => Err(undefined(Op::In, x, xs)),
    }
}

/// Whether a value is the variant or record that a shape describes.
pub(super) fn fits_shape(value: &Value, shape: &Arc<Shape>) -> bool {
    match value {
        Value::Variant(record) => {
            Arc::ptr_eq(&record.shape, shape)
                || record.shape.type_name == shape.type_name && record.shape.tag == shape.tag
        }
        Value::Record(record) if shape.tag.is_empty() => {
            Arc::ptr_eq(&record.shape, shape)
                || (shape.type_name.is_empty() || record.shape.type_name == shape.type_name)
                    && shape.fields.iter().all(|field| record.shape.fields.contains(field))
        }
        _ => false,
    }
}

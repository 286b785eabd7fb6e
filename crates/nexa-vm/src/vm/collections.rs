//! Operations on records, dicts, lists and iterations.

use std::sync::Arc;

use nexa_types::RunCode;
use nexa_types::limits::STRING_BYTES_MAX;

use super::Vm;
use super::arithmetic::undefined;
use super::equal::Work;
use super::heap::{LIST_BYTES, PLACE_BYTES, VALUE_BYTES, own_bytes, text_bytes};
use super::ops::{Flow, constant_text, too_much_work};
use super::raise::Fault;
use crate::json::validate::describe;
use crate::json::write::key_text;
use crate::op::Op;
use crate::value::{Dict, Key, Shape, Value, reserve_a_quarter};

impl Vm {
    pub(super) fn set_field(&mut self, constant: u32) -> Result<Flow, Fault> {
        let program = Arc::clone(&self.program);
        let name = constant_text(&program, constant)?;
        let changed = match self.two()?.0 {
            Value::Record(record) => match record.shape.fields.iter().position(|field| field == name) {
                Some(place) => self.change(1, |record| match record {
                    Value::Record(record) => {
                        let values = &mut Arc::make_mut(record).values;
                        values.get_mut(place)
                    }
                    _ => None,
                })?,
                None => return Err(no_field(name)),
            },
            Value::Dict(_) => self.set_entry(1, Key::Str(name.into()))?,
            other => return Err(Fault::mismatch(format!("{} has no field `{name}`", describe(other)))),
        };
        self.replace(2, changed)
    }

    /// `xs + ys` of two lists or two texts.
    pub(super) fn join(&mut self) -> Result<Flow, Fault> {
        let from = self.stack.len().saturating_sub(2);
        let loan = self.lend(from);
        let result = self.join_top();
        if let (Err(_), Some(loan)) = (&result, loan) {
            self.give_back(loan);
        }
        let joined = result?;
        self.replace(2, joined)
    }

    fn join_top(&mut self) -> Result<Value, Fault> {
        let bytes = match self.stack.as_mut_slice() {
            [.., Value::List(x), Value::List(y)] => {
                let kept = if Arc::get_mut(x).is_some() { 0 } else { LIST_BYTES + VALUE_BYTES * x.len() as u64 };
                kept + VALUE_BYTES * y.len() as u64
            }
            [.., Value::Str(x), Value::Str(y)] => {
                let len = x.len() + y.len();
                if len > STRING_BYTES_MAX {
                    let why = format!("a text would be longer than {STRING_BYTES_MAX} bytes");
                    return Err(Fault::new(RunCode::OutOfMemory, why));
                }
                if x.is_own() { y.len() as u64 } else { text_bytes(len) }
            }
            _ => return Err(Fault::internal("operands that cannot be joined")),
        };
        self.charge(bytes)?;
        match self.stack.as_mut_slice() {
            [.., x, y] => match (std::mem::take(x), y) {
                (Value::List(mut x), Value::List(y)) => {
                    let values = Arc::make_mut(&mut x);
                    reserve_a_quarter(values, y.len());
                    values.extend_from_slice(y);
                    Ok(Value::List(x))
                }
                (Value::Str(x), Value::Str(y)) => Ok(Value::Str(x.append(y))),
                _ => Err(Fault::internal("operands that cannot be joined")),
            },
            _ => Err(Fault::internal("an operand is missing")),
        }
    }

    /// Puts the top value into the collection that is `above + 1` values below it, at the place that `find` gives: in
    /// place if nobody else holds the collection.
    fn change(&mut self, above: usize, find: impl FnOnce(&mut Value) -> Option<&mut Value>) -> Result<Value, Fault> {
        self.nest_top(1)?;
        let at = self.stack.len().checked_sub(above + 1).ok_or_else(|| Fault::internal("an operand is missing"))?;
        let loan = self.lend(at);
        if !is_own(&mut self.stack[at]) {
            let bytes = own_bytes(&self.stack[at]);
            if let Err(fault) = self.charge(bytes) {
                if let Some(loan) = loan {
                    self.give_back(loan);
                }
                return Err(fault);
            }
        }
        let value = self.pop()?;
        let mut collection = std::mem::take(&mut self.stack[at]);
        self.stack.push(Value::Unit);
        match find(&mut collection) {
            Some(place) => *place = value,
            None => return Err(Fault::internal("a place that is none")),
        }
        Ok(collection)
    }

    /// The same for the entry of a dict.
    fn set_entry(&mut self, above: usize, key: Key) -> Result<Value, Fault> {
        let at = self.stack.len().checked_sub(above + 1).ok_or_else(|| Fault::internal("an operand is missing"))?;
        let Some(Value::Dict(dict)) = self.stack.get(at) else { return Err(Fault::internal("no dict")) };
        if dict.place_of(&key).is_none() {
            let text = if let Key::Str(text) = &key { text_bytes(text.len()) } else { 0 };
            self.charge(2 * VALUE_BYTES + PLACE_BYTES + text)?;
        }
        self.change(above, |dict| match dict {
            Value::Dict(dict) => Some(Arc::make_mut(dict).entry(key)),
            _ => None,
        })
    }

    pub(super) fn new_dict(&mut self, pairs: usize) -> Result<Flow, Fault> {
        let keys = self.stack.len().checked_sub(2 * pairs).ok_or_else(|| Fault::internal("operands are missing"))?;
        let key_bytes: u64 = self.stack[keys..].iter().step_by(2).map(own_bytes).sum();
        self.charge(key_bytes)?;
        let mut parts = self.take_parts(2 * pairs)?.into_iter();
        let mut dict = Dict::with_capacity(pairs);
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            dict.insert(key_of(&key)?, value);
        }
        self.replace(0, Value::Dict(Arc::new(dict)))
    }

    pub(super) fn set_index(&mut self) -> Result<Flow, Fault> {
        let changed = match self.stack.as_slice() {
            [.., Value::List(values), Value::Int(index), _] => {
                let place = list_place(values, *index)?;
                self.change(2, |list| match list {
                    Value::List(values) => Arc::make_mut(values).get_mut(place),
                    _ => None,
                })?
            }
            [.., Value::Dict(_), key, _] => {
                let key = key_of(key)?;
                self.set_entry(2, key)?
            }
            [.., other, index, _] => {
                let (xs, index) = (describe(other), describe(index));
                return Err(Fault::mismatch(format!("{xs} has no place {index} to put a value")));
            }
            _ => return Err(Fault::internal("an operand is missing")),
        };
        self.replace(3, changed)
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
            Value::Dict(dict) => dict
                .entries()
                .get(index)
                .map(|(key, value)| Value::Tuple(Arc::new(vec![key_value(key), value.clone()]))),
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

/// Whether nobody else holds a collection, so that it may be changed.
fn is_own(collection: &mut Value) -> bool {
    match collection {
        Value::List(values) => Arc::get_mut(values).is_some(),
        Value::Record(record) => Arc::get_mut(record).is_some(),
        Value::Dict(dict) => Arc::get_mut(dict).is_some(),
        _ => false,
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
        Key::Str(text) => Value::Str(text.clone()),
        Key::Int(number) => Value::Int(*number),
        Key::Bool(value) => Value::Bool(*value),
    }
}

/// A value as a dict's key.
pub(crate) fn key_of(value: &Value) -> Result<Key, Fault> {
    match value {
        Value::Str(text) => Ok(Key::Str(text.clone())),
        Value::Int(number) => Ok(Key::Int(*number)),
        Value::Bool(value) => Ok(Key::Bool(*value)),
        other => Err(Fault::mismatch(format!("{} cannot be a key; keys are str, int or bool", describe(other)))),
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
            dict.get(&key)
                .cloned()
                .ok_or_else(|| Fault::new(RunCode::KeyMissing, format!("there is no key `{}`", key_text(&key))))
        }
        (xs, index) => Err(Fault::mismatch(format!("{} has no place {}", describe(xs), describe(index)))),
    }
}

/// Whether `x` is an element of a list, a key of a dict, or a part of a text; and how many bytes were looked at.
pub(super) fn contains(x: &Value, xs: &Value) -> Result<(bool, u64), Fault> {
    match (x, xs) {
        (x, Value::List(values) | Value::Tuple(values)) => {
            let mut work = Work::new();
            for value in values.iter() {
                if work.equal(x, value).map_err(too_much_work)? {
                    return Ok((true, work.bytes()));
                }
            }
            Ok((false, work.bytes()))
        }
        (x, Value::Dict(dict)) => {
            let key = key_of(x)?;
            Ok((dict.get(&key).is_some(), own_bytes(x)))
        }
        (Value::Str(part), Value::Str(text)) => Ok((text.contains(part.as_ref()), (part.len() + text.len()) as u64)),
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

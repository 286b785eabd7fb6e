//! Methods of lists. Lists are values: every method gives a new one.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use nexa_types::RunCode;
use nexa_types::limits::STRING_BYTES_MAX;

use super::{Context, StdFault, any_arg, fail, int_arg, list_arg, mismatch, part_of, str_arg};
use crate::json::text_of;
use crate::value::{Key, Value, reserve_a_quarter};
use crate::vm::equal::Work;
use crate::vm::heap::{LIST_BYTES, VALUE_BYTES};
use crate::vm::{key_of, order};

/// Bytes of texts that one sort may look at, each as often as it may be compared.
const SORTED_BYTES_MAX: u64 = 2 << 30;

pub(super) fn len(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Int(list_arg(args, 0)?.len() as i64))
}

pub(super) fn first(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    context.is_no_deeper();
    Ok(list_arg(args, 0)?.first().cloned().unwrap_or(Value::None))
}

pub(super) fn last(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    context.is_no_deeper();
    Ok(list_arg(args, 0)?.last().cloned().unwrap_or(Value::None))
}

pub(super) fn push(context: &mut Context<'_>, args: &mut [Value]) -> Result<Value, StdFault> {
    let mut values = longer(context, args, 1)?;
    let value = args.get_mut(1).map_or(Value::None, std::mem::take);
    context.nests(&value);
    Arc::make_mut(&mut values).push(value);
    Ok(Value::List(values))
}

pub(super) fn concat(context: &mut Context<'_>, args: &mut [Value]) -> Result<Value, StdFault> {
    let more = list_arg(args, 1)?.len();
    let mut values = longer(context, args, more)?;
    Arc::make_mut(&mut values).extend_from_slice(list_arg(args, 1)?);
    context.is_no_deeper();
    Ok(Value::List(values))
}

/// The first argument with room for more elements: the list itself if nobody else holds it, else a copy. Charged, so
/// from here on the function may not fail.
fn longer(context: &mut Context<'_>, args: &mut [Value], more: usize) -> Result<Arc<Vec<Value>>, StdFault> {
    if let Some(first) = args.first_mut()
        && let Value::List(values) = first
        && let Some(values) = Arc::get_mut(values)
    {
        context.charge(VALUE_BYTES * more as u64)?;
        reserve_a_quarter(values, more);
        if let Value::List(values) = std::mem::take(first) {
            return Ok(values);
        }
    }
    let values = list_arg(args, 0)?;
    context.charge_list(values.len() + more)?;
    let mut copy = Vec::with_capacity(values.len() + more);
    copy.extend_from_slice(values);
    Ok(Arc::new(copy))
}

/// From one position up to another, both clamped to the list.
pub(super) fn slice(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let values = list_arg(args, 0)?;
    let part = part_of(values.len(), int_arg(args, 1)?, int_arg(args, 2)?);
    context.charge_list(part.len())?;
    context.is_no_deeper();
    Ok(Value::List(Arc::new(values[part].to_vec())))
}

pub(super) fn reverse(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let values = list_arg(args, 0)?;
    context.charge_list(values.len())?;
    context.is_no_deeper();
    Ok(Value::List(Arc::new(values.iter().rev().cloned().collect())))
}

/// Numbers, durations, texts or bools, in order; equal ones keep theirs.
pub(super) fn sort(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let values = list_arg(args, 0)?;
    comparable(context, values)?;
    context.charge_list(values.len())?;
    context.is_no_deeper();
    let mut sorted = values.to_vec();
    // Every element was comparable to the first one, so they are of one kind and comparable to each other.
    sorted.sort_by(|x, y| order(x, y).unwrap_or(Ordering::Equal));
    Ok(Value::List(Arc::new(sorted)))
}

/// A list in the order of its elements' keys, one for each; elements of equal keys keep theirs.
pub(super) fn sort_by_keys(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (values, keys) = (list_arg(args, 0)?, list_arg(args, 1)?);
    comparable(context, keys)?;
    context.charge_list(2 * values.len())?;
    context.is_no_deeper();
    let mut sorted: Vec<(&Value, &Value)> = keys.iter().zip(values).collect();
    sorted.sort_by(|(x, _), (y, _)| order(x, y).unwrap_or(Ordering::Equal));
    Ok(Value::List(Arc::new(sorted.into_iter().map(|(_, value)| value.clone()).collect())))
}

/// Whether every value can be compared with every other: they are of one kind if each can be with the first. And
/// whether sorting them comes to an end soon, which for many long texts alike it does not.
fn comparable(context: &mut Context<'_>, values: &[Value]) -> Result<(), StdFault> {
    // Each value is compared about once in each of so many rounds, a text over its length at most.
    let rounds = u64::from(values.len().max(1).ilog2()) + 2;
    let texts = values.iter().map(|value| if let Value::Str(text) = value { text.len() as u64 } else { 0 });
    let bytes = texts.sum::<u64>().saturating_mul(rounds);
    if bytes > SORTED_BYTES_MAX {
        return Err(too_large());
    }
    context.read(VALUE_BYTES.saturating_mul(values.len() as u64).saturating_mul(rounds).max(bytes));
    match values.first().and_then(|first| values.iter().find(|value| order(first, value).is_none())) {
        Some(other) => Err(mismatch("numbers, durations, texts or bools of one kind, without NaN", other)),
        None => Ok(()),
    }
}

/// The first of equal elements.
pub(super) fn unique(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let values = list_arg(args, 0)?;
    context.charge(LIST_BYTES + 3 * VALUE_BYTES * values.len() as u64)?;
    context.is_no_deeper();
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    let mut others: Vec<&Value> = Vec::new();
    let mut work = Work::new();
    let mut kept = Vec::new();
    for value in values {
        let is_new = match key_of(value) {
            // An int may equal a float, so ints stand among the others as soon as there is one.
            Ok(key) if others.is_empty() || matches!(key, Key::Str(_) | Key::Bool(_)) => {
                if let Key::Str(text) = &key {
                    work.text(text.len()).map_err(|_| too_large())?;
                }
                keys.insert(key)
            }
            _ => {
                let mut is_new = true;
                for other in &kept {
                    if work.equal(other, value).map_err(|_| too_large())? {
                        is_new = false;
                        break;
                    }
                }
                if is_new {
                    others.push(value);
                }
                is_new
            }
        };
        if is_new {
            kept.push(value.clone());
        }
    }
    context.read(work.bytes());
    context.read_values(values.len());
    Ok(Value::List(Arc::new(kept)))
}

pub(super) fn contains(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let mut work = Work::new();
    let mut is_found = false;
    for value in list_arg(args, 0)? {
        if work.equal(value, any_arg(args, 1)).map_err(|_| too_large())? {
            is_found = true;
            break;
        }
    }
    context.read(work.bytes());
    Ok(Value::Bool(is_found))
}

/// The elements' texts with a separator between them.
pub(super) fn join(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (values, separator) = (list_arg(args, 0)?, str_arg(args, 1)?);
    let no_text = |error: crate::json::NoText| fail(error.code(), error.to_string());
    context.read_values(values.len());
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        match value {
            Value::Str(text) => out.push_str(text),
            other => out.push_str(&text_of(other).map_err(no_text)?),
        }
        if out.len() > STRING_BYTES_MAX {
            return Err(no_text(crate::json::NoText::TooLong));
        }
    }
    context.text(out)
}

/// Pairs, as many as the shorter list has elements.
pub(super) fn zip(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (xs, ys) = (list_arg(args, 0)?, list_arg(args, 1)?);
    let len = xs.len().min(ys.len());
    context.charge(LIST_BYTES + (LIST_BYTES + 3 * VALUE_BYTES) * len as u64)?;
    let pairs = xs.iter().zip(ys).map(|(x, y)| Value::Tuple(Arc::new(vec![x.clone(), y.clone()])));
    Ok(Value::List(Arc::new(pairs.collect())))
}

pub(super) fn flatten(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    context.read_values(list_arg(args, 0)?.len());
    let mut len = 0;
    for inner in list_arg(args, 0)? {
        match inner {
            Value::List(values) => len += values.len(),
            other => return Err(mismatch("a list of lists", other)),
        }
    }
    context.charge_list(len)?;
    context.is_no_deeper();
    let mut flat = Vec::with_capacity(len);
    for inner in list_arg(args, 0)? {
        if let Value::List(values) = inner {
            flat.extend(values.iter().cloned());
        }
    }
    Ok(Value::List(Arc::new(flat)))
}

/// Ints give an int, one float among them a float; nothing gives 0.
pub(super) fn sum(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let values = list_arg(args, 0)?;
    context.read_values(values.len());
    let mut total = 0i64;
    for (index, value) in values.iter().enumerate() {
        match value {
            Value::Int(number) => {
                let overflow = || fail(RunCode::Overflow, "the sum does not fit into a 64-bit integer");
                total = total.checked_add(*number).ok_or_else(overflow)?;
            }
            Value::Float(_) => {
                let mut float = total as f64;
                for value in &values[index..] {
                    float += match value {
                        Value::Int(number) => *number as f64,
                        Value::Float(number) => *number,
                        other => return Err(mismatch("numbers", other)),
                    };
                }
                return Ok(Value::Float(if float.is_nan() { f64::NAN } else { float }));
            }
            other => return Err(mismatch("numbers", other)),
        }
    }
    Ok(Value::Int(total))
}

fn too_large() -> StdFault {
    fail(RunCode::OutOfMemory, "the values are too large to be compared")
}

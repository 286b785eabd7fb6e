//! Methods of dicts. Entries keep their insertion order; a key that is set again keeps its place.

use std::sync::Arc;

use super::{Context, StdFault, any_arg, mismatch};
use crate::value::{Dict, Key, Value};
use crate::vm::heap::{LIST_BYTES, PLACE_BYTES, VALUE_BYTES, own_bytes, text_bytes};
use crate::vm::{key_of, key_value};

fn dict_arg(args: &[Value], index: usize) -> Result<&Arc<Dict>, StdFault> {
    match any_arg(args, index) {
        Value::Dict(dict) => Ok(dict),
        other => Err(mismatch("a dict", other)),
    }
}

fn key_arg(args: &[Value]) -> Result<Key, StdFault> {
    key_of(any_arg(args, 1)).map_err(|_| mismatch("a key: str, int or bool", any_arg(args, 1)))
}

/// The first argument, to be changed: the dict itself if nobody else holds it, else a copy. `more` bytes are charged
/// besides, so from here on the function may not fail.
fn own(context: &mut Context<'_>, args: &mut [Value], more: u64) -> Result<Arc<Dict>, StdFault> {
    if let Some(first) = args.first_mut() {
        let bytes = own_bytes(first);
        if let Value::Dict(dict) = first {
            let is_own = Arc::get_mut(dict).is_some();
            context.charge(if is_own { more } else { bytes + more })?;
            if let Value::Dict(dict) = std::mem::take(first) {
                return Ok(dict);
            }
        }
    }
    Err(mismatch("a dict", any_arg(args, 0)))
}

/// What one more entry takes.
fn entry_bytes(key: &Key) -> u64 {
    2 * VALUE_BYTES + PLACE_BYTES + if let Key::Str(text) = key { text_bytes(text.len()) } else { 0 }
}

pub(super) fn len(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Int(dict_arg(args, 0)?.len() as i64))
}

pub(super) fn get(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    context.is_no_deeper();
    let key = key_arg(args)?;
    Ok(dict_arg(args, 0)?.get(&key).cloned().unwrap_or(Value::None))
}

pub(super) fn set(context: &mut Context<'_>, args: &mut [Value]) -> Result<Value, StdFault> {
    let key = key_arg(args)?;
    let place = dict_arg(args, 0)?.place_of(&key);
    let mut dict = own(context, args, if place.is_some() { 0 } else { entry_bytes(&key) })?;
    let value = args.get_mut(2).map_or(Value::None, std::mem::take);
    context.nests(&value);
    let changed = Arc::make_mut(&mut dict);
    match place {
        Some(place) => changed.put(place, value),
        None => changed.append(key, value),
    }
    Ok(Value::Dict(dict))
}

pub(super) fn remove(context: &mut Context<'_>, args: &mut [Value]) -> Result<Value, StdFault> {
    let key = key_arg(args)?;
    context.is_no_deeper();
    if dict_arg(args, 0)?.place_of(&key).is_none() {
        return Ok(args.first_mut().map_or(Value::None, std::mem::take));
    }
    let mut dict = own(context, args, 0)?;
    context.read_values(2 * dict.len());
    Arc::make_mut(&mut dict).remove(&key);
    Ok(Value::Dict(dict))
}

pub(super) fn merge(context: &mut Context<'_>, args: &mut [Value]) -> Result<Value, StdFault> {
    let more = Arc::clone(dict_arg(args, 1)?);
    dict_arg(args, 0)?;
    let bytes = more.entries().iter().map(|(key, _)| entry_bytes(key)).sum();
    let mut dict = own(context, args, bytes)?;
    let merged = Arc::make_mut(&mut dict);
    for (key, value) in more.entries() {
        merged.insert(key.clone(), value.clone());
    }
    context.is_no_deeper();
    Ok(Value::Dict(dict))
}

pub(super) fn has(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let key = key_arg(args)?;
    Ok(Value::Bool(dict_arg(args, 0)?.get(&key).is_some()))
}

pub(super) fn keys(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let dict = dict_arg(args, 0)?;
    context.charge(own_bytes(&args[0]))?;
    context.is_no_deeper();
    Ok(Value::List(Arc::new(dict.entries().iter().map(|(key, _)| key_value(key)).collect())))
}

pub(super) fn values(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let dict = dict_arg(args, 0)?;
    context.charge_list(dict.len())?;
    context.is_no_deeper();
    Ok(Value::List(Arc::new(dict.entries().iter().map(|(_, value)| value.clone()).collect())))
}

pub(super) fn items(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let dict = dict_arg(args, 0)?;
    context.charge(own_bytes(&args[0]) + (LIST_BYTES + 2 * VALUE_BYTES) * dict.len() as u64)?;
    let pairs = dict.entries().iter().map(|(key, value)| Value::Tuple(Arc::new(vec![key_value(key), value.clone()])));
    Ok(Value::List(Arc::new(pairs.collect())))
}

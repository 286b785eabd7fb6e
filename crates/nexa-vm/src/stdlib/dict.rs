//! Methods of dicts. Entries keep their insertion order; a key that is set again keeps its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Context, StdFault, any_arg, mismatch};
use crate::value::{Dict, Key, Value};
use crate::vm::heap::{LIST_BYTES, VALUE_BYTES, own_bytes};
use crate::vm::{key_of, key_value, set_entry};

fn dict_arg(args: &[Value], index: usize) -> Result<&Arc<Dict>, StdFault> {
    match any_arg(args, index) {
        Value::Dict(dict) => Ok(dict),
        other => Err(mismatch("a dict", other)),
    }
}

fn key_arg(args: &[Value]) -> Result<Key, StdFault> {
    key_of(any_arg(args, 1)).map_err(|_| mismatch("a key: str, int or bool", any_arg(args, 1)))
}

/// A copy that will be changed, charged.
fn copy(context: &mut Context<'_>, args: &[Value]) -> Result<Dict, StdFault> {
    let dict = dict_arg(args, 0)?;
    context.charge(own_bytes(&args[0]) + own_bytes(any_arg(args, 1)) + 2 * VALUE_BYTES)?;
    Ok(dict.as_ref().clone())
}

pub(super) fn len(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Int(dict_arg(args, 0)?.entries.len() as i64))
}

pub(super) fn get(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let key = key_arg(args)?;
    let found = dict_arg(args, 0)?.entries.iter().find(|(other, _)| *other == key);
    Ok(found.map_or(Value::None, |(_, value)| value.clone()))
}

pub(super) fn set(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let key = key_arg(args)?;
    let mut dict = copy(context, args)?;
    set_entry(&mut dict, key, any_arg(args, 2).clone());
    Ok(Value::Dict(Arc::new(dict)))
}

pub(super) fn remove(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let key = key_arg(args)?;
    let mut dict = copy(context, args)?;
    dict.entries.retain(|(other, _)| *other != key);
    Ok(Value::Dict(Arc::new(dict)))
}

pub(super) fn merge(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let more = dict_arg(args, 1)?;
    let mut dict = copy(context, args)?;
    let mut places: BTreeMap<Key, usize> =
        dict.entries.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect();
    for (key, value) in &more.entries {
        match places.get(key) {
            Some(&place) => dict.entries[place].1 = value.clone(),
            None => {
                places.insert(key.clone(), dict.entries.len());
                dict.entries.push((key.clone(), value.clone()));
            }
        }
    }
    Ok(Value::Dict(Arc::new(dict)))
}

pub(super) fn has(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let key = key_arg(args)?;
    Ok(Value::Bool(dict_arg(args, 0)?.entries.iter().any(|(other, _)| *other == key)))
}

pub(super) fn keys(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let dict = dict_arg(args, 0)?;
    context.charge(own_bytes(&args[0]))?;
    Ok(Value::List(Arc::new(dict.entries.iter().map(|(key, _)| key_value(key)).collect())))
}

pub(super) fn values(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let dict = dict_arg(args, 0)?;
    context.charge_list(dict.entries.len())?;
    Ok(Value::List(Arc::new(dict.entries.iter().map(|(_, value)| value.clone()).collect())))
}

pub(super) fn items(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let dict = dict_arg(args, 0)?;
    context.charge(own_bytes(&args[0]) + (LIST_BYTES + 2 * VALUE_BYTES) * dict.entries.len() as u64)?;
    let pairs = dict.entries.iter().map(|(key, value)| Value::Tuple(Arc::new(vec![key_value(key), value.clone()])));
    Ok(Value::List(Arc::new(pairs.collect())))
}

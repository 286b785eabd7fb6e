//! `text.*`: positions and lengths count Unicode scalar values.

use nexa_types::RunCode;
use nexa_types::limits::STRING_BYTES_MAX;

use super::{Context, StdFault, fail, int_arg, part_of, str_arg};
use crate::value::Value;
use crate::vm::heap::{LIST_BYTES, VALUE_BYTES, text_bytes};

pub(super) fn len(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Int(str_arg(args, 0)?.chars().count() as i64))
}

pub(super) fn upper(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 0)?;
    // One character becomes at most three, of three bytes each.
    context.charge(text_bytes(text.len()))?;
    context.text(text.to_uppercase())
}

pub(super) fn lower(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 0)?;
    context.charge(text_bytes(text.len()))?;
    context.text(text.to_lowercase())
}

pub(super) fn trim(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 0)?;
    let trimmed = text.trim();
    if trimmed.len() == text.len() { Ok(args[0].clone()) } else { context.text(trimmed) }
}

fn texts<'t>(context: &mut Context<'_>, parts: impl Iterator<Item = &'t str>) -> Result<Value, StdFault> {
    let mut values = Vec::new();
    context.charge(LIST_BYTES)?;
    for part in parts {
        context.charge(2 * VALUE_BYTES + text_bytes(part.len()))?;
        values.push(Value::Str(part.into()));
    }
    values.shrink_to_fit();
    Ok(Value::List(std::sync::Arc::new(values)))
}

/// By an empty separator: into characters.
pub(super) fn split(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (text, separator) = (str_arg(args, 0)?, str_arg(args, 1)?);
    if separator.is_empty() {
        let ends = text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()]);
        return texts(context, ends);
    }
    texts(context, text.split(separator))
}

pub(super) fn lines(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    texts(context, str_arg(args, 0)?.lines())
}

pub(super) fn words(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    texts(context, str_arg(args, 0)?.split_whitespace())
}

pub(super) fn replace(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (text, from, to) = (str_arg(args, 0)?, str_arg(args, 1)?, str_arg(args, 2)?);
    let found = text.matches(from).count();
    let len = (text.len() - found * from.len()).saturating_add(found.saturating_mul(to.len()));
    if len > STRING_BYTES_MAX {
        return Err(fail(RunCode::OutOfMemory, crate::json::NoText::TooLong.to_string()));
    }
    context.charge(text_bytes(len))?;
    Ok(Value::Str(text.replace(from, to).into()))
}

pub(super) fn contains(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Bool(str_arg(args, 0)?.contains(str_arg(args, 1)?)))
}

pub(super) fn starts_with(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Bool(str_arg(args, 0)?.starts_with(str_arg(args, 1)?)))
}

pub(super) fn ends_with(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Bool(str_arg(args, 0)?.ends_with(str_arg(args, 1)?)))
}

/// From one position up to another, both clamped to the text.
pub(super) fn slice(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 0)?;
    let part = part_of(usize::MAX, int_arg(args, 1)?, int_arg(args, 2)?);
    let place = |count: usize| text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    let (from, to) = (place(part.start), place(part.end));
    context.text(&text[from..to])
}

/// A quarter of the bytes, rounded up: what a request may cost before a tokenizer was asked.
pub(super) fn token_estimate(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Int(str_arg(args, 0)?.len().div_ceil(4) as i64))
}

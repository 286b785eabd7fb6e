//! `json.*`, `hash.*`, methods of options and results, and what compiled agents call.

use std::sync::Arc;

use nexa_types::RunCode;
use nexa_types::limits::STRING_BYTES_MAX;
use sha2::Digest as _;

use super::{Context, StdFault, any_arg, fail, int_arg, mismatch, str_arg};
use crate::failure::{code_of, error_value, field, text};
use crate::json::validate::member;
use crate::json::{self, JsonError, from_json_charged, text_of, to_json_indented, validate_within};
use crate::value::{Record, Value};
use crate::vm::heap::{LIST_BYTES, VALUE_BYTES};
use crate::vm::message_shape;

fn no_text(error: json::NoText) -> StdFault {
    fail(error.code(), error.to_string())
}

/// A str as it is, any other value as canonical JSON.
pub(super) fn str_of(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    match any_arg(args, 0) {
        text @ Value::Str(_) => Ok(text.clone()),
        other => context.text(text_of(other).map_err(no_text)?),
    }
}

fn parse(context: &mut Context<'_>, text: &str) -> Result<Result<Value, String>, StdFault> {
    match from_json_charged(text, context.heap) {
        Ok(value) => Ok(Ok(value)),
        Err(JsonError::TooLarge) => Err(StdFault::Exhausted),
        Err(error) => Ok(Err(error.to_string())),
    }
}

pub(super) fn json_parse(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    parse(context, str_arg(args, 0)?)?.map_err(|error| fail(RunCode::ParseFailed, error))
}

pub(super) fn json_text(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let indent = if args.len() > 1 { int_arg(args, 1)? } else { 0 };
    let indent = usize::try_from(indent.clamp(0, 16)).unwrap_or(0);
    context.text(to_json_indented(any_arg(args, 0), indent).map_err(no_text)?)
}

/// What a path such as `a.b[0].c` leads to; `none` if it leads nowhere.
pub(super) fn json_get(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let mut value = any_arg(args, 0);
    for step in str_arg(args, 1)?.split(['.', '[']) {
        let next = match step.strip_suffix(']') {
            Some(index) => match (value, index.parse::<usize>()) {
                (Value::List(values) | Value::Tuple(values), Ok(index)) => values.get(index),
                _ => None,
            },
            None if step.is_empty() => Some(value),
            None => member(value, step),
        };
        match next {
            Some(next) => value = next,
            None => return Ok(Value::None),
        }
    }
    Ok(value.clone())
}

/// Whether a value is anything but `none`, `false`, zero, an empty text, list or dict, or an `err`.
pub(super) fn truthy(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let is_empty = match any_arg(args, 0) {
        Value::None | Value::Bool(false) | Value::Int(0) | Value::Err(_) => true,
        Value::Float(number) => *number == 0.0,
        Value::Str(text) => text.is_empty(),
        Value::List(values) => values.is_empty(),
        Value::Dict(dict) => dict.is_empty(),
        _ => false,
    };
    Ok(Value::Bool(!is_empty))
}

pub(super) fn is_none(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Bool(matches!(any_arg(args, 0), Value::None)))
}

pub(super) fn is_ok(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Bool(matches!(any_arg(args, 0), Value::Ok(_))))
}

pub(super) fn is_err(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Bool(matches!(any_arg(args, 0), Value::Err(_))))
}

pub(super) fn unwrap_or(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(match any_arg(args, 0) {
        Value::None | Value::Err(_) => any_arg(args, 1).clone(),
        Value::Ok(inner) => inner.as_ref().clone(),
        other => other.clone(),
    })
}

pub(super) fn code(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(match any_arg(args, 0) {
        Value::Err(error) => field(error, "code").cloned().unwrap_or(Value::None),
        _ => Value::None,
    })
}

pub(super) fn error(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(match any_arg(args, 0) {
        Value::Err(error) => error.as_ref().clone(),
        _ => Value::None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn sha256(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let hash = sha2::Sha256::digest(str_arg(args, 0)?.as_bytes());
    context.text(hex(&hash))
}

pub(super) fn blake3(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let hash = ::blake3::hash(str_arg(args, 0)?.as_bytes());
    context.text(hex(hash.as_bytes()))
}

/// What each byte leaves when it is divided by the polynomial of CRC-32.
const REMAINDERS: [u32; 256] = {
    let mut remainders = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = 0u32.wrapping_sub(remainder & 1);
            remainder = remainder >> 1 ^ 0xEDB8_8320 & carry;
            bit += 1;
        }
        remainders[byte] = remainder;
        byte += 1;
    }
    remainders
};

/// The CRC-32 of Ethernet, zip and PNG.
pub(super) fn crc32(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let mut remainder = u32::MAX;
    for byte in str_arg(args, 0)?.bytes() {
        remainder = remainder >> 8 ^ REMAINDERS[usize::from(remainder as u8 ^ byte)];
    }
    Ok(Value::Int(i64::from(!remainder)))
}

/// A message of a conversation. `from`: see [`crate::module::ModelRequestSpec`].
pub(super) fn message(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let role = str_arg(args, 0)?;
    if !matches!(role, "system" | "user" | "assistant" | "tool") {
        return Err(mismatch("the role system, user, assistant or tool", any_arg(args, 0)));
    }
    str_arg(args, 1)?;
    int_arg(args, 2)?;
    context.charge(LIST_BYTES + 3 * VALUE_BYTES)?;
    Ok(Value::Record(Arc::new(Record { shape: message_shape(), values: args.to_vec() })))
}

/// The text of a model's reply.
pub(super) fn answer_from_reply(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let reply = any_arg(args, 0);
    match field(reply, "text") {
        Some(text @ Value::Str(_)) => Ok(text.clone()),
        _ => Err(mismatch("a model's reply", reply)),
    }
}

fn type_arg(context: &Context<'_>, args: &[Value]) -> Result<u32, StdFault> {
    let index = int_arg(args, 0)?;
    match u32::try_from(index) {
        Ok(ty) if (ty as usize) < context.module.types.len() => Ok(ty),
        _ => Err(fail(RunCode::TypeMismatch, format!("the program has no type {index}"))),
    }
}

/// A text read as JSON of a type: the whole text, else the first block between fences. `ok` of the value, or `err` of
/// the violations, written for whoever has to repair the text.
pub(super) fn read_json(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let ty = type_arg(context, args)?;
    let text = str_arg(args, 1)?.trim();
    let whole = parse(context, text)?;
    let parsed = match (whole, first_fenced_block(text)) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(block)) => parse(context, block)?,
        (Err(error), None) => Err(error),
    };
    fitting(context, ty, parsed.map_err(|error| format!("the answer is {error}; answer with the JSON value alone")))
}

/// The arguments that a model wants a tool to be called with, read as a record type: the whole text, and no text at all
/// counts as no arguments. `ok` of the record, or `err` of the violations.
pub(super) fn read_args(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let ty = type_arg(context, args)?;
    let text = match str_arg(args, 1)?.trim() {
        "" => "{}",
        text => text,
    };
    let parsed = parse(context, text)?;
    fitting(context, ty, parsed.map_err(|error| format!("the arguments are {error}")))
}

/// `ok` of a value as a type, or `err` of what does not fit.
fn fitting(context: &mut Context<'_>, ty: u32, parsed: Result<Value, String>) -> Result<Value, StdFault> {
    let violations = match parsed {
        Ok(value) => {
            let module = context.module;
            match validate_within(module, ty, &value, context.heap)? {
                Ok(value) => {
                    context.charge_list(1)?;
                    return Ok(Value::Ok(Arc::new(value)));
                }
                Err(violations) => violations.iter().map(ToString::to_string).collect(),
            }
        }
        Err(error) => vec![error],
    };
    let lines = violations.iter().map(|line| context.text(line)).collect::<Result<Vec<_>, _>>()?;
    let lines = context.list(lines)?;
    context.charge_list(1)?;
    Ok(Value::Err(Arc::new(lines)))
}

/// Whether a value is of a type as it is.
pub(super) fn is_of(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let ty = type_arg(context, args)?;
    let mut steps = 0;
    let is_of = json::is_of(context.module, ty, any_arg(args, 1), &mut steps);
    context.read(VALUE_BYTES.saturating_mul(steps));
    is_of.map(Value::Bool).ok_or_else(|| fail(RunCode::OutOfMemory, "the value is too large to be told its type"))
}

/// What a model has to be asked about a value of a type: a list of tuples of a condition in words, the part that it is
/// about, and what to say if it does not hold. `every`: also where a pattern decides.
pub(super) fn conditions(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let ty = type_arg(context, args)?;
    let Value::Bool(every) = any_arg(args, 1) else { return Err(mismatch("a bool", any_arg(args, 1))) };
    let listed =
        json::conditions(context.module, ty, any_arg(args, 2), *every, context.heap).map_err(|why| match why {
            json::Unlisted::TooMany => {
                let most = json::CONDITIONS_MAX;
                fail(
                    RunCode::SemanticFailed,
                    format!("a model would be asked about more than {most} parts of one value"),
                )
            }
            json::Unlisted::TooLarge => fail(RunCode::OutOfMemory, "the value is too large to be asked about"),
        })?;
    let mut list = Vec::with_capacity(listed.len());
    for condition in listed {
        context.charge_list(3)?;
        let one = vec![context.text(condition.words)?, condition.part, context.text(condition.violation)?];
        list.push(Value::Tuple(Arc::new(one)));
    }
    context.list(list)
}

/// A model's yes or no: a JSON bool, or `true`, `false`, `yes`, `no` in any case; `none` for anything else.
pub(super) fn read_bool(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let word = str_arg(args, 0)?.trim();
    let is = |words: [&str; 2]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    Ok(match (is(["true", "yes"]), is(["false", "no"])) {
        (true, _) => Value::Bool(true),
        (_, true) => Value::Bool(false),
        _ => Value::None,
    })
}

/// The place of the label that a model answered with: exactly one of them, bare or as a JSON text; `none` for anything
/// else.
pub(super) fn read_label(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let word = str_arg(args, 0)?.trim();
    let Value::List(labels) = any_arg(args, 1) else { return Err(mismatch("a list of labels", any_arg(args, 1))) };
    context.read(labels.iter().map(|label| VALUE_BYTES + text(label).map_or(0, str::len) as u64).sum());
    let place = |word: &str| labels.iter().position(|label| text(label) == Some(word));
    let found = match place(word) {
        None if word.starts_with('"') => match parse(context, word)? {
            Ok(Value::Str(word)) => place(&word),
            _ => None,
        },
        found => found,
    };
    Ok(found.map_or(Value::None, |place| Value::Int(place as i64)))
}

/// What stands between the first two lines that start with three backticks.
fn first_fenced_block(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("```")?;
    let (_, body) = after.split_once('\n')?;
    let (block, _) = body.split_once("```")?;
    Some(block.trim())
}

pub(super) fn schema_text(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let ty = type_arg(context, args)?;
    let schema = json::schema(context.module, ty);
    context.text(schema)
}

pub(super) fn json(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    context.text(to_json_indented(any_arg(args, 0), 0).map_err(no_text)?)
}

/// An error value, to be raised.
pub(super) fn new_error(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (code, message) = (str_arg(args, 0)?, str_arg(args, 1)?);
    let known = code.parse::<RunCode>().ok().filter(|code| code.is_catchable());
    let known = known.ok_or_else(|| mismatch("the code of an error that a program may raise", any_arg(args, 0)))?;
    if message.len() > STRING_BYTES_MAX {
        return Err(no_text(json::NoText::TooLong));
    }
    context.charge(LIST_BYTES + 5 * VALUE_BYTES + message.len() as u64 + 64)?;
    Ok(error_value(known, message, ""))
}

/// Whether an error, or the error of `err`, is one that another worker may do better with.
pub(super) fn worth_fallback(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let error = match any_arg(args, 0) {
        Value::Err(error) => error.as_ref(),
        other => other,
    };
    let code = field(error, "code").and_then(text).and_then(|_| code_of(error));
    Ok(Value::Bool(code.is_some_and(RunCode::is_worth_a_fallback)))
}

//! Arithmetic and order on values whose kinds are only known now.

use std::cmp::Ordering;

use nexa_types::RunCode;

use super::code::Math;
use super::raise::Fault;
use crate::json::validate::describe;
use crate::op::Op;
use crate::value::Value;

/// An integer operation, its result checked.
pub(super) fn int_math(math: Math, x: i64, y: i64) -> Result<i64, Fault> {
    let result = match math {
        Math::Add => x.checked_add(y),
        Math::Sub => x.checked_sub(y),
        Math::Mul => x.checked_mul(y),
        Math::Div | Math::Rem if y == 0 => return Err(div_zero()),
        Math::Div => quotient(x, y),
        Math::Rem => remainder(x, y),
    };
    result.ok_or_else(overflow)
}

/// `x / y`; `None` for overflow and for `y` = 0. Small numbers take the processor's much faster short division.
#[inline]
pub(super) fn quotient(x: i64, y: i64) -> Option<i64> {
    match (u32::try_from(x), u32::try_from(y)) {
        (Ok(x), Ok(y)) => x.checked_div(y).map(i64::from),
        _ => x.checked_div(y),
    }
}

/// `x % y`, with the sign of `x`; `None` for overflow and for `y` = 0.
#[inline]
pub(super) fn remainder(x: i64, y: i64) -> Option<i64> {
    match (u32::try_from(x), u32::try_from(y)) {
        (Ok(x), Ok(y)) => x.checked_rem(y).map(i64::from),
        _ => x.checked_rem(y),
    }
}

#[cold]
pub(super) fn overflow() -> Fault {
    Fault::new(RunCode::Overflow, "the result does not fit into a 64-bit integer")
}

#[cold]
pub(super) fn div_zero() -> Fault {
    Fault::new(RunCode::DivZero, "division by zero")
}

/// A float with the one NaN that values have.
pub(super) fn canonical(value: f64) -> Value {
    Value::Float(if value.is_nan() { f64::NAN } else { value })
}

/// A float operation.
pub(super) fn float_math(math: Math, x: f64, y: f64) -> Result<Value, Fault> {
    Ok(canonical(match math {
        Math::Add => x + y,
        Math::Sub => x - y,
        Math::Mul => x * y,
        Math::Div | Math::Rem if y == 0.0 => return Err(div_zero()),
        Math::Div => x / y,
        Math::Rem => x % y,
    }))
}

/// `x op y` for numbers and durations.
pub(super) fn dynamic(op: Op, x: &Value, y: &Value) -> Result<Value, Fault> {
    let math = match op {
        Op::Add => Math::Add,
        Op::Sub => Math::Sub,
        Op::Mul => Math::Mul,
        Op::Div => Math::Div,
        _ => Math::Rem,
    };
    match (x, y) {
        (Value::Int(x), Value::Int(y)) => int_math(math, *x, *y).map(Value::Int),
        (Value::Float(x), Value::Float(y)) => float_math(math, *x, *y),
        (Value::Int(x), Value::Float(y)) => float_math(math, *x as f64, *y),
        (Value::Float(x), Value::Int(y)) => float_math(math, *x, *y as f64),
        (Value::Duration(x), Value::Duration(y)) if matches!(math, Math::Add | Math::Sub) => {
            int_math(math, *x, *y).map(Value::Duration)
        }
        (Value::Duration(x), Value::Int(y)) | (Value::Int(y), Value::Duration(x)) if math == Math::Mul => {
            int_math(math, *x, *y).map(Value::Duration)
        }
        _ => Err(undefined(op, x, y)),
    }
}

#[cold]
pub(super) fn undefined(op: Op, x: &Value, y: &Value) -> Fault {
    Fault::mismatch(format!("{} is not defined for {} and {}", op.name(), describe(x), describe(y)))
}

/// The order of two numbers, durations, texts or bools.
pub(crate) fn order(x: &Value, y: &Value) -> Option<Ordering> {
    match (x, y) {
        (Value::Int(x), Value::Int(y)) | (Value::Duration(x), Value::Duration(y)) => Some(x.cmp(y)),
        (Value::Float(x), Value::Float(y)) => x.partial_cmp(y),
        (Value::Int(x), Value::Float(y)) => (*x as f64).partial_cmp(y),
        (Value::Float(x), Value::Int(y)) => x.partial_cmp(&(*y as f64)),
        (Value::Str(x), Value::Str(y)) => Some(x.cmp(y)),
        (Value::Bool(x), Value::Bool(y)) => Some(x.cmp(y)),
        _ => None,
    }
}

/// `x < y` and the like. With NaN every comparison is false.
pub(super) fn compare(op: Op, x: &Value, y: &Value) -> Result<bool, Fault> {
    let is_nan = |value: &Value| matches!(value, Value::Float(float) if float.is_nan());
    match order(x, y) {
        Some(order) => Ok(match op {
            Op::Lt => order.is_lt(),
            Op::Le => order.is_le(),
            Op::Gt => order.is_gt(),
            _ => order.is_ge(),
        }),
        None if is_nan(x) || is_nan(y) => Ok(false),
        None => Err(undefined(op, x, y)),
    }
}

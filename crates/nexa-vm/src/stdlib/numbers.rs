//! `math.*`, and the numbers of the prelude.

use nexa_types::RunCode;

use super::{Context, StdFault, any_arg, fail, float_arg, int_arg, mismatch, str_arg};
use crate::value::Value;
use crate::vm::order;

/// `a`, `a + 1`, … up to but not including `b`.
pub(super) fn range(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (from, to) = (int_arg(args, 0)?, int_arg(args, 1)?);
    let len = usize::try_from(i128::from(to) - i128::from(from)).unwrap_or(0);
    context.charge_list(len)?;
    Ok(Value::List(std::sync::Arc::new((from..to).map(Value::Int).collect())))
}

pub(super) fn int_of(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 0)?.trim();
    let not_an_int = |_| fail(RunCode::ParseFailed, format!("`{}` is no integer", shorten(text)));
    text.parse().map(Value::Int).map_err(not_an_int)
}

pub(super) fn float_of(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 0)?.trim();
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Value::Float(number)),
        _ => Err(fail(RunCode::ParseFailed, format!("`{}` is no number", shorten(text)))),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

pub(super) fn abs(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    match any_arg(args, 0) {
        Value::Int(number) => {
            let overflow = || fail(RunCode::Overflow, "the result does not fit into a 64-bit integer");
            Ok(Value::Int(number.checked_abs().ok_or_else(overflow)?))
        }
        Value::Float(number) => Ok(float(number.abs())),
        other => Err(mismatch("a number", other)),
    }
}

fn float(value: f64) -> Value {
    Value::Float(if value.is_nan() { f64::NAN } else { value })
}

/// The one of two numbers that comes first, or last; of equal ones the first. NaN is neither less nor greater.
fn pick(args: &[Value], wants_less: bool) -> Result<Value, StdFault> {
    let (x, y) = (any_arg(args, 0), any_arg(args, 1));
    for value in [x, y] {
        if !matches!(value, Value::Int(_) | Value::Float(_)) {
            return Err(mismatch("a number", value));
        }
    }
    let takes_second = order(y, x).is_some_and(|order| if wants_less { order.is_lt() } else { order.is_gt() });
    Ok(if takes_second { y.clone() } else { x.clone() })
}

pub(super) fn min(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    pick(args, true)
}

pub(super) fn max(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    pick(args, false)
}

/// Not below `low`, and then not above `high`.
pub(super) fn clamp(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let raised = pick(&[any_arg(args, 0).clone(), any_arg(args, 1).clone()], false)?;
    pick(&[raised, any_arg(args, 2).clone()], true)
}

fn whole(value: f64) -> Result<Value, StdFault> {
    // 2⁶³ is a float, 2⁶³ - 1 is not.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        Ok(Value::Int(value as i64))
    } else {
        Err(fail(RunCode::Overflow, "the result does not fit into a 64-bit integer"))
    }
}

pub(super) fn floor(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    whole(float_arg(args, 0)?.floor())
}

pub(super) fn ceil(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    whole(float_arg(args, 0)?.ceil())
}

/// To the nearest, halves away from zero.
pub(super) fn round(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    whole(float_arg(args, 0)?.round())
}

pub(super) fn sqrt(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(float(float_arg(args, 0)?.sqrt()))
}

/// Whole exponents multiply, so that they give the same bits on every machine; others ask the platform's library.
pub(super) fn pow(_: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (base, exponent) = (float_arg(args, 0)?, float_arg(args, 1)?);
    if exponent.fract() != 0.0 || exponent.abs() > 1024.0 {
        return Ok(float(base.powf(exponent)));
    }
    let mut result = 1.0;
    let mut square = base;
    let mut left = exponent.abs() as u32;
    while left > 0 {
        if left & 1 == 1 {
            result *= square;
        }
        square *= square;
        left >>= 1;
    }
    Ok(float(if exponent < 0.0 { 1.0 / result } else { result }))
}

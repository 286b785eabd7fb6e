//! Deep equality of values, with a bound on its work.

use std::sync::Arc;

use super::heap::VALUE_BYTES;
use crate::value::{Record, Stage, Value};

/// Values that one instruction may look at. A value that shares parts with itself can have far more paths than parts.
const WORK_MAX: u32 = 4 << 20;
/// So many bytes of two texts are looked at in the time of two values.
const TEXT_BYTES: usize = 64;
/// So many names of fields are looked at in the time of one value.
const NAMES_A_VALUE: usize = 8;

/// Counts what a comparison looks at.
#[derive(Debug)]
pub(crate) struct Work(u32);

/// A comparison that looks at too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuchWork;

impl Work {
    pub(crate) fn new() -> Self {
        Self(WORK_MAX)
    }

    /// What was looked at, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(WORK_MAX - self.0) * VALUE_BYTES
    }

    /// Notes that so many bytes of a text are looked at.
    pub(crate) fn text(&mut self, len: usize) -> Result<(), TooMuchWork> {
        self.values(len / TEXT_BYTES)
    }

    fn values(&mut self, count: usize) -> Result<(), TooMuchWork> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.0 = self.0.checked_sub(count).ok_or(TooMuchWork)?;
        Ok(())
    }

    /// Whether two values are equal: numbers by what they are worth, dicts and records without regard to the order of
    /// their members, everything else part by part.
    pub(crate) fn equal(&mut self, x: &Value, y: &Value) -> Result<bool, TooMuchWork> {
        self.0 = self.0.checked_sub(1).ok_or(TooMuchWork)?;
        Ok(match (x, y) {
            (Value::Unit, Value::Unit) | (Value::None, Value::None) => true,
            (Value::Bool(x), Value::Bool(y)) => x == y,
            (Value::Int(x), Value::Int(y)) | (Value::Duration(x), Value::Duration(y)) => x == y,
            (Value::Float(x), Value::Float(y)) => x == y,
            (Value::Int(x), Value::Float(y)) | (Value::Float(y), Value::Int(x)) => *x as f64 == *y,
            (Value::Str(x), Value::Str(y)) => {
                // Texts of different lengths are told apart at once.
                if x.len() == y.len() {
                    self.text(x.len())?;
                }
                x == y
            }
            (Value::Agent(x), Value::Agent(y)) => x == y,
            (Value::Secret(x), Value::Secret(y)) => x == y,
            (Value::Saved(x), Value::Saved(y)) => x == y,
            (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
                Arc::ptr_eq(x, y) && !self.may_hold_nan(x)? || self.all_equal(x, y)?
            }
            (Value::Ok(x), Value::Ok(y)) | (Value::Err(x), Value::Err(y)) => self.equal(x, y)?,
            (Value::Record(x), Value::Record(y)) | (Value::Variant(x), Value::Variant(y)) => {
                self.records_equal(x, y)?
            }
            (Value::Dict(x), Value::Dict(y)) => {
                if x.len() != y.len() {
                    return Ok(false);
                }
                for (key, value) in x.entries() {
                    match y.get(key) {
                        Some(other) if self.equal(value, other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::Closure(x), Value::Closure(y)) => {
                x.function == y.function && self.all_equal(&x.captures, &y.captures)?
            }
            (Value::Stage(x), Value::Stage(y)) => match (&**x, &**y) {
                (Stage::Chain(x), Stage::Chain(y)) => self.all_equal(x, y)?,
                (Stage::Partial { callee: f, args: x, open: a }, Stage::Partial { callee: g, args: y, open: b }) => {
                    a == b && self.equal(f, g)? && self.all_equal(x, y)?
                }
                _ => false,
            },
            _ => false,
        })
    }

    /// Whether a list may be unequal to itself.
    fn may_hold_nan(&mut self, values: &[Value]) -> Result<bool, TooMuchWork> {
        let is_plain = |value: &Value| matches!(value, Value::Int(_) | Value::Str(_) | Value::Bool(_) | Value::None);
        let plain = values.iter().take_while(|value| is_plain(value)).count();
        self.values(plain)?;
        Ok(plain < values.len())
    }

    fn all_equal(&mut self, x: &[Value], y: &[Value]) -> Result<bool, TooMuchWork> {
        if x.len() != y.len() {
            return Ok(false);
        }
        for (x, y) in x.iter().zip(y) {
            if !self.equal(x, y)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn records_equal(&mut self, x: &Record, y: &Record) -> Result<bool, TooMuchWork> {
        if x.shape == y.shape {
            return self.all_equal(&x.values, &y.values);
        }
        if x.shape.type_name != y.shape.type_name || x.shape.tag != y.shape.tag || x.values.len() != y.values.len() {
            return Ok(false);
        }
        for (name, value) in x.shape.fields.iter().zip(&x.values) {
            self.values(y.values.len() / NAMES_A_VALUE)?;
            let other = y.shape.fields.iter().position(|other| other == name).and_then(|index| y.values.get(index));
            match other {
                Some(other) if self.equal(value, other)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

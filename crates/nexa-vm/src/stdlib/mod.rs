//! The pure functions that `CallStd` names: the standard library, and the few helpers that compiled agents use.
//!
//! [`FUNCTIONS`] is data: the checker reads names and signatures from it, the compiler the numbers, the machine the
//! function pointers. A function's number is its place in the table and is stored in modules: new ones go at the end.
//!
//! Every function charges what it is about to allocate before it does. When the meter is full it stops with
//! `StdFault::Exhausted`, the machine counts what is alive and calls it again; so a function may not change anything
//! before its last charge. After that it may take an argument that nobody else holds and change it in place.
//!
//! What is charged takes fuel as well, and so do the arguments that are texts. A function that looks at more than that
//! says so ([`Context::read`]), and has a bound of its own if that may be far more than there is.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use nexa_types::{Failure, RunCode};

use crate::json::validate::describe;
use crate::module::Module;
use crate::value::Value;
use crate::vm::heap::{Exhausted, Heap, LIST_BYTES, Meter as _, VALUE_BYTES, text_bytes};

mod core;
mod dict;
mod list;
mod numbers;
mod patterns;
mod table;
mod text;
mod time;

pub use crate::json::CONDITIONS_MAX;
pub use patterns::{Pattern, check_pattern};
pub(crate) use patterns::{compile_regex, known_regex};
pub use table::FUNCTIONS;

/// A type in a signature. Letters are type variables, the same letter being the same type in one signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ty {
    /// Any value, converted freely.
    Any,
    /// Text.
    Str,
    /// Integer.
    Int,
    /// Float.
    Float,
    /// Bool.
    Bool,
    /// The record `Error`.
    Error,
    /// List of a type.
    List(&'static Ty),
    /// Dict of two types.
    Dict(&'static Ty, &'static Ty),
    /// A type or `none`.
    Option(&'static Ty),
    /// Result of two types.
    Result(&'static Ty, &'static Ty),
    /// Tuple of two types.
    Pair(&'static Ty, &'static Ty),
    /// A variable that is int or float, the same one throughout.
    N,
    /// A variable.
    T,
    /// Another variable.
    U,
    /// A variable that can be a dict's key.
    K,
    /// A variable, a dict's value.
    V,
    /// A variable, a result's error.
    E,
}

/// Parameters and result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sig {
    /// Names and types, the subject of a method first.
    pub params: &'static [(&'static str, Ty)],
    /// What it gives.
    pub result: Ty,
}

/// A standard function.
#[derive(Clone, Copy)]
pub struct StdFn {
    /// Its number in [`crate::op::Op::CallStd`].
    pub number: u16,
    /// `module.name`, or the name alone in the prelude. Functions of `text`, `list`, `dict`, `option` and `result` are
    /// also methods of their first argument.
    pub name: &'static str,
    /// The fewest and the most arguments.
    pub arity: (u8, u8),
    /// Its signature.
    pub sig: Sig,
    run: Run,
}

type Run = fn(&mut Context<'_>, &mut [Value]) -> Result<Value, StdFault>;

impl std::fmt::Debug for StdFn {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} (number {}, {} to {} arguments)", self.name, self.number, self.arity.0, self.arity.1)
    }
}

/// The function of this name, such as `text.len`, `list.first` or `range`.
pub fn lookup(name: &str) -> Option<StdFn> {
    static NAMES: LazyLock<BTreeMap<&'static str, usize>> =
        LazyLock::new(|| FUNCTIONS.iter().enumerate().map(|(index, function)| (function.name, index)).collect());
    NAMES.get(name).map(|index| FUNCTIONS[*index])
}

/// The function of this number.
pub fn by_number(number: u16) -> Option<&'static StdFn> {
    FUNCTIONS.get(usize::from(number))
}

/// The functions that change their first argument in place if nobody else holds it: `list.push`, `list.concat`,
/// `dict.set`, `dict.remove`, `dict.merge`.
pub(crate) const CHANGING: [u16; 5] = [32, 33, 45, 46, 47];

/// What a standard function sees besides its arguments.
pub(crate) struct Context<'c> {
    pub(crate) module: &'c Module,
    heap: &'c mut Heap,
    /// What the function knows of how deep its result nests.
    pub(crate) depth: Depth,
}

/// How deep a result nests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Whoever wants to know must look.
    Unknown,
    /// No deeper than what is known already.
    Known,
    /// Known, and the bound is reached: the values must be measured.
    Reached,
}

impl<'c> Context<'c> {
    pub(crate) fn new(module: &'c Module, heap: &'c mut Heap) -> Self {
        Self { module, heap, depth: Depth::Unknown }
    }

    fn charge(&mut self, bytes: u64) -> Result<(), StdFault> {
        Ok(self.heap.charge(bytes)?)
    }

    /// Notes work that is not charged, in bytes that are looked at.
    fn read(&mut self, bytes: u64) {
        self.heap.read(bytes);
    }

    /// The same for so many values.
    fn read_values(&mut self, count: usize) {
        self.read(VALUE_BYTES.saturating_mul(count as u64));
    }

    fn charge_list(&mut self, len: usize) -> Result<(), StdFault> {
        self.charge(VALUE_BYTES.saturating_mul(len as u64).saturating_add(LIST_BYTES))
    }

    /// The result nests no deeper than the arguments.
    fn is_no_deeper(&mut self) {
        self.depth = Depth::Known;
    }

    /// The result nests no deeper than the arguments with `part` in one of them.
    fn nests(&mut self, part: &Value) {
        self.depth = if self.heap.nest(part) { Depth::Known } else { Depth::Reached };
    }

    /// A text, charged.
    fn text(&mut self, text: impl AsRef<str>) -> Result<Value, StdFault> {
        let text = text.as_ref();
        if text.len() > nexa_types::limits::STRING_BYTES_MAX {
            return Err(fail(RunCode::OutOfMemory, crate::json::NoText::TooLong.to_string()));
        }
        self.charge(text_bytes(text.len()))?;
        Ok(Value::Str(text.into()))
    }

    /// A list, charged; its elements were charged before or are shared.
    fn list(&mut self, values: Vec<Value>) -> Result<Value, StdFault> {
        self.charge_list(values.len())?;
        Ok(Value::List(std::sync::Arc::new(values)))
    }
}

/// Why a standard function gave no value.
#[derive(Debug)]
pub(crate) enum StdFault {
    /// It raises this.
    Failure(Box<Failure>),
    /// The meter is full.
    Exhausted,
}

impl From<Exhausted> for StdFault {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

#[cold]
fn fail(code: RunCode, message: impl Into<String>) -> StdFault {
    StdFault::Failure(Box::new(Failure::new(code, message)))
}

#[cold]
fn mismatch(wanted: &str, found: &Value) -> StdFault {
    fail(RunCode::TypeMismatch, format!("expected {wanted}, found {}", describe(found)))
}

/// Calls a standard function. The verifier has seen that the number exists and takes so many arguments.
pub(crate) fn call(context: &mut Context<'_>, number: u16, args: &mut [Value]) -> Result<Value, StdFault> {
    match by_number(number) {
        Some(function) if (usize::from(function.arity.0)..=usize::from(function.arity.1)).contains(&args.len()) => {
            for arg in args.iter() {
                if let Value::Str(text) = arg {
                    context.read(text.len() as u64);
                }
            }
            (function.run)(context, args).map_err(|fault| name_function(fault, function.name))
        }
        _ => Err(fail(RunCode::TypeMismatch, "there is no such standard function")),
    }
}

/// Says which function a mismatch happened in.
fn name_function(fault: StdFault, name: &str) -> StdFault {
    match fault {
        StdFault::Failure(mut failure) if failure.code == RunCode::TypeMismatch => {
            failure.message = format!("{name}: {}", failure.message);
            StdFault::Failure(failure)
        }
        other => other,
    }
}

// Arguments. The checker has seen most types; `any` and dynamic calls are looked at here.

fn str_arg(args: &[Value], index: usize) -> Result<&str, StdFault> {
    match args.get(index) {
        Some(Value::Str(text)) => Ok(text),
        Some(other) => Err(mismatch("a text", other)),
        None => Err(mismatch("a text", &Value::None)),
    }
}

fn int_arg(args: &[Value], index: usize) -> Result<i64, StdFault> {
    match args.get(index) {
        Some(Value::Int(number)) => Ok(*number),
        Some(other) => Err(mismatch("an int", other)),
        None => Err(mismatch("an int", &Value::None)),
    }
}

fn float_arg(args: &[Value], index: usize) -> Result<f64, StdFault> {
    match args.get(index) {
        Some(Value::Float(number)) => Ok(*number),
        Some(Value::Int(number)) => Ok(*number as f64),
        Some(other) => Err(mismatch("a float", other)),
        None => Err(mismatch("a float", &Value::None)),
    }
}

fn list_arg(args: &[Value], index: usize) -> Result<&[Value], StdFault> {
    match args.get(index) {
        Some(Value::List(values) | Value::Tuple(values)) => Ok(values),
        Some(other) => Err(mismatch("a list", other)),
        None => Err(mismatch("a list", &Value::None)),
    }
}

fn any_arg(args: &[Value], index: usize) -> &Value {
    args.get(index).unwrap_or(&Value::None)
}

/// A part from `from` up to `to`, both clamped to what is there.
fn part_of(len: usize, from: i64, to: i64) -> std::ops::Range<usize> {
    let clamp = |place: i64| usize::try_from(place).unwrap_or(0).min(len);
    let from = clamp(from);
    from..clamp(to).max(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_that_change_an_argument_are_known_by_number() {
        let names: Vec<&str> =
            CHANGING.iter().filter_map(|number| by_number(*number)).map(|found| found.name).collect();
        assert_eq!(names, ["list.push", "list.concat", "dict.set", "dict.remove", "dict.merge"]);
    }
}

//! One linear pass that a module must survive before a single instruction runs.
//!
//! For every instruction it knows how many operands are on the stack, which locals are set, which try regions are open,
//! and what kind an operand is where that is certain. It follows jumps forwards only; a backward jump must lead to a
//! `LoopTick` that was seen before with the same stack, so nothing is visited twice.
//!
//! A typed operation is refused only if an operand is *known* to be of another kind; where nothing is known the machine
//! looks and raises `type_mismatch`. Of a function's parameters the module says the kinds ([`crate::module::Kind`]): a
//! call with operands that are known to be others is refused, and the machine looks at each argument before the
//! function starts, so inside of it they are certain.
//!
//! | rule | says | code |
//! |---|---|---|
//! | V2, V12 | known operations, operands in range, constants and patterns valid | E1004 |
//! | V3 | jumps land on instruction starts of the same function | E1002 |
//! | V4, V8 | one stack height and one nesting of tries at every point, never below zero or above what is declared | E1003 |
//! | V5, V6 | locals are set before they are read, typed operations and calls do not get other kinds | E1003 |
//! | V7 | a backward jump leads to a `LoopTick` | E1005 |
//! | V9 | a function marked pure has no effect and calls only pure ones, and no question to a test harness outside of tests | E1003 |
//! | V10 | a tool is called where it is granted, directly or through its function | E1004 |
//! | V11 | a merge consumes branches' results, a list | E1003 |
//! | V13 | every path ends in `Return`, `Raise`, `TailCall` or `Trap` | E1002 |
//! | V14 | limits | E1006 |
//!
//! V1 (header, sections, hash) is the decoder's.

mod flow;
mod grants;
mod step;
mod tables;

use crate::module::Module;

pub use flow::stack_need;

/// In a function's heights: no path leads to this instruction, or it is the middle of one.
pub const UNREACHED: u16 = u16::MAX;

/// Why a module was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {what}{}", in_function(.function, .at))]
pub struct VerifyError {
    /// The E10xx code.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
    /// The function's name, empty if it is not about one.
    pub function: String,
    /// The instruction.
    pub at: Option<usize>,
}

fn in_function(function: &str, at: &Option<usize>) -> String {
    match at {
        Some(at) => format!(", in `{function}` at instruction {at}"),
        None if function.is_empty() => String::new(),
        None => format!(", in `{function}`"),
    }
}

impl VerifyError {
    pub(crate) fn new(code: &'static str, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), function: String::new(), at: None }
    }
}

/// Checks a module. Returns, for every function, how many operands there are before each instruction.
///
/// # Errors
/// The first rule that does not hold.
pub fn verify(module: &Module) -> Result<Vec<Vec<u16>>, VerifyError> {
    tables::check(module)?;
    grants::check(module)?;
    let mut work = flow::WORK_MAX;
    (0..module.functions.len()).map(|index| flow::check(module, index, &mut work)).collect()
}

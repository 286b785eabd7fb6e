//! The machine's limits on a module, looked at before anybody else refuses it.
//!
//! The verifier has the last word; here the same bounds give an error that points into the program.

use nexa_types::limits::{CONSTANT_BYTES_MAX, MODULE_BYTES_MAX};
use nexa_vm::module::{Constant, Function, Module, Type};

use super::TooLarge;
use crate::hir::At;

/// Instructions of one function.
pub(super) const FUNCTION_WORDS_MAX: usize = 1 << 16;
/// Values that one function may have on the stack at once.
const FUNCTION_STACK_MAX: u16 = 4_096;
/// Fields of a record, elements of a tuple type.
const PARTS_MAX: usize = 1 << 10;
/// Types and shapes.
const TYPES_MAX: usize = 1 << 16;
/// Agents, and flows and agents together that may be started.
const AGENTS_MAX: usize = 1 << 14;
/// Constants.
const CONSTANTS_MAX: usize = 1 << 18;
/// Patterns of semantic types.
const PATTERNS_MAX: usize = 256;
/// Source files.
const FILES_MAX: usize = 1 << 12;

/// Refuses a function that is too large.
pub(super) fn check_function(function: &Function, at: At) -> Result<(), TooLarge> {
    let name = &function.name;
    if function.code.len() > FUNCTION_WORDS_MAX {
        return Err(TooLarge { at, what: format!("`{name}` has more than {FUNCTION_WORDS_MAX} instructions") });
    }
    if function.stack > FUNCTION_STACK_MAX {
        return Err(TooLarge {
            at,
            what: format!("`{name}` has an expression of more than {FUNCTION_STACK_MAX} parts"),
        });
    }
    Ok(())
}

/// Refuses a module that is too large as a whole.
pub(super) fn check_module(module: &Module) -> Result<(), TooLarge> {
    let at = At::default();
    let has_pattern = |ty: &&Type| matches!(ty, Type::Semantic { pattern: Some(_), .. });
    let patterns = module.types.iter().filter(has_pattern).count();
    let counts = [
        ("patterns of types", patterns, PATTERNS_MAX),
        ("constants", module.constants.len(), CONSTANTS_MAX),
        ("types", module.types.len(), TYPES_MAX),
        ("kinds of records", module.shapes.len(), TYPES_MAX),
        ("agents", module.agents.len(), AGENTS_MAX),
        ("flows and agents", module.entries.len(), AGENTS_MAX),
        ("files", module.debug.files.len(), FILES_MAX),
    ];
    for (what, found, most) in counts {
        if found > most {
            return Err(TooLarge { at, what: format!("the program has {found} {what}, and may have {most}") });
        }
    }
    let text_bytes = |constant: &Constant| match constant {
        Constant::Str(text) => text.len(),
        _ => 0,
    };
    if module.constants.iter().map(text_bytes).any(|bytes| bytes > CONSTANT_BYTES_MAX) {
        return Err(TooLarge { at, what: format!("a text of the program is longer than {CONSTANT_BYTES_MAX} bytes") });
    }
    let parts = |ty: &Type| match ty {
        Type::Record(record) => record.fields.len(),
        Type::Tuple(parts) | Type::Union(parts) => parts.len(),
        _ => 0,
    };
    let fields = module.shapes.iter().map(|shape| shape.fields.len());
    if fields.chain(module.types.iter().map(parts)).any(|parts| parts > PARTS_MAX) {
        return Err(TooLarge { at, what: format!("a record or tuple of the program has more than {PARTS_MAX} parts") });
    }
    // Most modules are so much smaller that nobody needs to write them to know.
    let words: usize = module.functions.iter().map(|function| function.code.len()).sum();
    let lines: usize = module.debug.lines.iter().map(Vec::len).sum();
    let texts: usize = module.constants.iter().map(text_bytes).sum();
    if 8 * words + 24 * lines + texts > MODULE_BYTES_MAX / 2 && !module.fits() {
        return Err(TooLarge { at, what: format!("the module has more than {MODULE_BYTES_MAX} bytes") });
    }
    Ok(())
}

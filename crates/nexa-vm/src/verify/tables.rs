//! Everything in a module that is not code.

use nexa_types::limits::{CONSTANT_BYTES_MAX, HEAP_BYTES_MAX, LOCALS_MAX, MODULE_BYTES_MAX};

use super::VerifyError;
use crate::codec::{self, FIELDS_MAX};
use crate::module::{Constant, Module, Type, max};

/// The words of one function.
const FUNCTION_WORDS_MAX: usize = 1 << 16;
/// The operands of one function.
const FUNCTION_STACK_MAX: u16 = 4096;
/// Patterns of semantic types in one module.
const PATTERNS_MAX: usize = 256;
/// The most weight that one agent may have.
const WEIGHT_MAX: f64 = 1e9;

fn limit(what: impl Into<String>) -> VerifyError {
    VerifyError::new("E1006", what)
}

fn range(what: impl Into<String>) -> VerifyError {
    VerifyError::new("E1004", what)
}

pub(super) fn check(module: &Module) -> Result<(), VerifyError> {
    let counts = [
        ("constants", module.constants.len(), max::CONSTANTS),
        ("types", module.types.len(), max::TYPES),
        ("shapes", module.shapes.len(), max::SHAPES),
        ("functions", module.functions.len(), max::FUNCTIONS),
        ("agents", module.agents.len(), max::AGENTS),
        ("model requests", module.requests.len(), max::REQUESTS),
        ("entries", module.entries.len(), max::ENTRIES),
    ];
    for (what, found, most) in counts {
        if found > most {
            return Err(limit(format!("the module has {found} {what}, more than {most}")));
        }
    }
    let words: usize = module.functions.iter().map(|function| function.code.len()).sum();
    if words > MODULE_BYTES_MAX / 4 {
        return Err(limit(format!("the module has {words} instructions, more than {}", MODULE_BYTES_MAX / 4)));
    }
    for constant in &module.constants {
        match constant {
            Constant::Str(text) if text.len() > CONSTANT_BYTES_MAX => {
                return Err(limit(format!("a constant is longer than {CONSTANT_BYTES_MAX} bytes")));
            }
            Constant::Float(number) if number.is_nan() && number.to_bits() != f64::NAN.to_bits() => {
                return Err(range("a float constant is another NaN than the canonical one"));
            }
            _ => {}
        }
    }
    for shape in &module.shapes {
        if shape.fields.len() > FIELDS_MAX {
            return Err(limit(format!("a shape has more than {FIELDS_MAX} fields")));
        }
    }
    types(module)?;
    functions(module)?;
    schedules(module)?;
    cached(module)?;
    memories(module)?;
    agents(module)?;
    for request in &module.requests {
        known_type(module, request.answer.unwrap_or(0), request.answer.is_some())?;
        let is_sane = (0.0..=2.0).contains(&request.temperature) && (0.0..=1.0).contains(&request.top_p);
        if !is_sane {
            return Err(range(format!(
                "a model request of `{}` has a temperature outside 0 to 2 or a top_p outside 0 to 1",
                request.agent
            )));
        }
    }
    Ok(())
}

fn known_type(module: &Module, ty: u32, is_used: bool) -> Result<(), VerifyError> {
    if is_used && ty as usize >= module.types.len() { Err(range(format!("there is no type {ty}"))) } else { Ok(()) }
}

fn types(module: &Module) -> Result<(), VerifyError> {
    let mut patterns = 0;
    for ty in &module.types {
        for part in crate::json::schema::parts(ty) {
            known_type(module, part, true)?;
        }
        if let Type::Semantic { pattern: Some(pattern), .. } = ty {
            patterns += 1;
            if patterns > PATTERNS_MAX {
                return Err(limit(format!("the module has more than {PATTERNS_MAX} patterns")));
            }
            if let Err(error) = crate::stdlib::compile_regex(pattern) {
                return Err(range(format!("the pattern `{pattern}` is not valid: {error}")));
            }
        }
    }
    // Converting a value goes from these types to their parts without going into the value, so they may not be cyclic.
    let mut state = vec![Visit::New; module.types.len()];
    for ty in 0..module.types.len() {
        acyclic(module, ty, &mut state)?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    Open,
    Done,
}

/// Walks the types that stand for the same value (an option of it, a union with it) with a stack of its own.
fn acyclic(module: &Module, start: usize, state: &mut [Visit]) -> Result<(), VerifyError> {
    let mut path: Vec<(usize, usize)> = vec![(start, 0)];
    if state[start] != Visit::New {
        return Ok(());
    }
    state[start] = Visit::Open;
    while let Some((ty, next)) = path.last_mut() {
        let same: &[u32] = match &module.types[*ty] {
            Type::Option(part) | Type::Semantic { base: part, .. } => std::slice::from_ref(part),
            Type::Union(parts) => parts,
            // The inner value of `ok` and `err` is reached without a step of the path.
            Type::Result(..) => &[],
            _ => &[],
        };
        match same.get(*next) {
            Some(&part) => {
                *next += 1;
                match state[part as usize] {
                    Visit::Open => return Err(range("a type is its own option or part of its own union")),
                    Visit::Done => {}
                    Visit::New => {
                        state[part as usize] = Visit::Open;
                        path.push((part as usize, 0));
                        if path.len() > nexa_types::limits::DEPTH_MAX {
                            return Err(limit("options and unions nest deeper than 256 levels"));
                        }
                    }
                }
            }
            None => {
                state[*ty] = Visit::Done;
                path.pop();
            }
        }
    }
    Ok(())
}

fn functions(module: &Module) -> Result<(), VerifyError> {
    for function in &module.functions {
        let locals = usize::from(function.locals);
        let refuse = |what: String| Err(VerifyError { code: "E1006", what, function: function.name.clone(), at: None });
        if locals > LOCALS_MAX {
            return refuse(format!("{locals} locals, more than {LOCALS_MAX}"));
        }
        if usize::from(function.arity) > locals {
            return refuse(format!("{} arguments and only {locals} locals", function.arity));
        }
        let kinds = function.param_kinds.len();
        if kinds > 0 && kinds != usize::from(function.arity) {
            let what = format!("{} arguments and {kinds} kinds of them", function.arity);
            return Err(VerifyError { code: "E1004", what, function: function.name.clone(), at: None });
        }
        if function.code.len() > FUNCTION_WORDS_MAX {
            return refuse(format!("{} instructions, more than {FUNCTION_WORDS_MAX}", function.code.len()));
        }
        if function.stack > FUNCTION_STACK_MAX {
            return refuse(format!("{} operands, more than {FUNCTION_STACK_MAX}", function.stack));
        }
    }
    Ok(())
}

fn schedules(module: &Module) -> Result<(), VerifyError> {
    let mut next = 0;
    for (number, schedule) in &module.schedules {
        let Some(function) = module.functions.get(*number as usize).filter(|_| *number >= next) else {
            return Err(range(format!("a schedule of function {number}, which does not exist or has one already")));
        };
        let is_sane = (0.0..=WEIGHT_MAX).contains(&schedule.weight) && schedule.memory_bytes <= HEAP_BYTES_MAX;
        if !is_sane {
            return Err(range(format!("the schedule of `{}` has a weight or memory out of range", function.name)));
        }
        next = number + 1;
    }
    Ok(())
}

fn cached(module: &Module) -> Result<(), VerifyError> {
    let mut next = 0;
    for request in &module.cached {
        if *request < next || *request as usize >= module.requests.len() {
            return Err(range(format!(
                "model request {request} is to reuse answers, and does not exist or is met again"
            )));
        }
        next = request + 1;
    }
    Ok(())
}

fn memories(module: &Module) -> Result<(), VerifyError> {
    let mut next = 0;
    for (request, memory) in &module.memories {
        if *request < next || *request as usize >= module.requests.len() || !memory.is_sane() {
            return Err(range(format!(
                "the memory of model request {request} is out of range, or the request does not exist or is met again"
            )));
        }
        next = request + 1;
    }
    Ok(())
}

fn agents(module: &Module) -> Result<(), VerifyError> {
    let startable = |index: u32, params: usize, name: &str| match module.functions.get(index as usize) {
        Some(function) if usize::from(function.arity) == params && function.captures == 0 => Ok(()),
        _ => Err(range(format!("`{name}` has no function that takes its {params} parameters"))),
    };
    for agent in &module.agents {
        startable(agent.function, agent.params.len(), &agent.name)?;
        known_type(module, agent.result, true)?;
        for (_, ty) in &agent.params {
            known_type(module, *ty, true)?;
        }
    }
    for entry in &module.entries {
        startable(entry.function, entry.params.len(), &entry.name)?;
        known_type(module, entry.result, true)?;
        for param in &entry.params {
            known_type(module, param.ty, true)?;
            if let Some(default) = &param.default
                && codec::decode_bytes(default).is_err()
            {
                return Err(range(format!("the default of `{}` in `{}` is no encoded value", param.name, entry.name)));
            }
        }
    }
    Ok(())
}

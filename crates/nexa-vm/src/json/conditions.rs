//! The conditions in words of semantic types that a value has to meet, each with the part of the value it is about.
//!
//! Patterns are decided by [`super::validate`]; what words say only a model can judge, and who asks it goes through
//! this list. Conditions of a base come before those of the type that narrows it, parts in the order of the value.

use nexa_types::limits::DEPTH_MAX;

use super::is_of::{STEPS_MAX, is_of};
use super::validate::{Violation, describe, member};
use crate::module::{Module, RecordType, Type};
use crate::value::Value;
use crate::vm::heap::{Meter, VALUE_BYTES};

/// Conditions of one value; with more it is refused.
pub const CONDITIONS_MAX: usize = 64;

/// A condition, and the part of the value that it is about.
pub(crate) struct Condition<'m> {
    pub(crate) words: &'m str,
    pub(crate) part: Value,
    /// What is to be said if it does not hold.
    pub(crate) violation: String,
}

/// Why there is no list.
pub(crate) enum Unlisted {
    /// There are more than [`CONDITIONS_MAX`].
    TooMany,
    /// The value nests too deep, or takes too long to be told its type.
    TooLarge,
}

/// The conditions of `module.types[ty]` that a value of it has to meet: all of them, or those without a pattern.
pub(crate) fn conditions<'m>(
    module: &'m Module,
    ty: u32,
    value: &Value,
    every: bool,
    meter: &mut dyn Meter,
) -> Result<Vec<Condition<'m>>, Unlisted> {
    let mut walk = Walk { module, every, depth: 0, steps: 0, path: "$".to_owned(), found: Vec::new() };
    let visited = walk.visit(ty, value);
    meter.read(walk.steps.saturating_mul(VALUE_BYTES));
    visited.map(|()| walk.found)
}

struct Walk<'m> {
    module: &'m Module,
    every: bool,
    depth: usize,
    /// Parts that were looked at.
    steps: u64,
    path: String,
    found: Vec<Condition<'m>>,
}

impl<'m> Walk<'m> {
    fn visit(&mut self, ty: u32, value: &Value) -> Result<(), Unlisted> {
        // A type that stands for the same value, such as a union, goes deeper without going into the value.
        self.steps += 1;
        if self.depth > 2 * DEPTH_MAX || self.steps > STEPS_MAX {
            return Err(Unlisted::TooLarge);
        }
        self.depth += 1;
        let visited = self.part(ty, value);
        self.depth -= 1;
        visited
    }

    fn part(&mut self, ty: u32, value: &Value) -> Result<(), Unlisted> {
        let module = self.module;
        match (module.types.get(ty as usize).unwrap_or(&Type::Any), value) {
            (Type::Semantic { base, condition, pattern }, value) => {
                self.visit(*base, value)?;
                if !self.every && pattern.is_some() {
                    return Ok(());
                }
                if self.found.len() == CONDITIONS_MAX {
                    return Err(Unlisted::TooMany);
                }
                let (path, expected) = (self.path.clone(), condition.clone());
                let violation = Violation { path, expected, found: describe(value) }.to_string();
                self.found.push(Condition { words: condition, part: value.clone(), violation });
                Ok(())
            }
            (Type::Option(_), Value::None) => Ok(()),
            (Type::Option(part), value) => self.visit(*part, value),
            (Type::Result(part, _), Value::Ok(inner)) => self.within(".ok", *part, inner),
            (Type::Result(_, part), Value::Err(inner)) => self.within(".err", *part, inner),
            (Type::List(part), Value::List(values)) => {
                let mut items = values.iter().enumerate();
                items.try_for_each(|(index, value)| self.within(&format!("[{index}]"), *part, value))
            }
            (Type::Tuple(parts), Value::Tuple(values)) => {
                let mut items = parts.iter().zip(values.iter()).enumerate();
                items.try_for_each(|(index, (part, value))| self.within(&format!("[{index}]"), *part, value))
            }
            (Type::Dict(_, part), Value::Dict(dict)) => {
                let mut entries = dict.entries().iter();
                entries.try_for_each(|(key, value)| {
                    self.within(&format!(".{}", super::write::key_text(key)), *part, value)
                })
            }
            (Type::Record(record), value) => self.fields(record, value),
            (Type::Enum { variants, .. }, Value::Variant(found)) => {
                match variants.iter().find(|variant| variant.name == found.shape.tag) {
                    Some(variant) => self.fields(variant, value),
                    None => Ok(()),
                }
            }
            (Type::Union(parts), value) => {
                for part in parts {
                    if is_of(module, *part, value, &mut self.steps).ok_or(Unlisted::TooLarge)? {
                        return self.visit(*part, value);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn within(&mut self, step: &str, ty: u32, value: &Value) -> Result<(), Unlisted> {
        let here = self.path.len();
        self.path.push_str(step);
        let visited = self.visit(ty, value);
        self.path.truncate(here);
        visited
    }

    fn fields(&mut self, record: &RecordType, value: &Value) -> Result<(), Unlisted> {
        record.fields.iter().try_for_each(|field| match member(value, &field.name) {
            Some(found) => self.within(&format!(".{}", field.name), field.ty, found),
            None => Ok(()),
        })
    }
}

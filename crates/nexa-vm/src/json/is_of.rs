//! Whether a value is of a type as it is.
//!
//! Unlike [`super::validate`] nothing is converted: an int is no float, and a dict is no record. A record is of a
//! protocol whose fields it has, whatever others it has besides.

use nexa_types::limits::DEPTH_MAX;

use crate::module::{Module, RecordType, Type};
use crate::value::{Key, Value};
use crate::vm::heap::VALUE_BYTES;

/// Parts of a value that are looked at, each as often as a union tries it. No value of a program has so many.
pub(super) const STEPS_MAX: u64 = 1 << 24;

/// Whether a value is of `module.types[ty]`; nothing if that would take too long to find out. `steps` grows by the
/// parts that were looked at, and counts those that were before.
pub(crate) fn is_of(module: &Module, ty: u32, value: &Value, steps: &mut u64) -> Option<bool> {
    Look { module, depth: 0, steps }.is_of(ty, value)
}

struct Look<'m, 's> {
    module: &'m Module,
    depth: usize,
    steps: &'s mut u64,
}

impl Look<'_, '_> {
    fn is_of(&mut self, ty: u32, value: &Value) -> Option<bool> {
        *self.steps += 1;
        if *self.steps > STEPS_MAX || self.depth > 2 * DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let found = self.part(ty, value);
        self.depth -= 1;
        found
    }

    fn part(&mut self, ty: u32, value: &Value) -> Option<bool> {
        let module = self.module;
        Some(match (module.types.get(ty as usize).unwrap_or(&Type::Any), value) {
            (Type::Any, _)
            | (Type::Unit, Value::Unit)
            | (Type::Str, Value::Str(_))
            | (Type::Int, Value::Int(_))
            | (Type::Float, Value::Float(_))
            | (Type::Bool, Value::Bool(_))
            | (Type::Duration, Value::Duration(_))
            | (Type::Option(_), Value::None) => true,
            (Type::Option(part), value) => self.is_of(*part, value)?,
            (Type::List(part), Value::List(values)) => self.all(values.iter().map(|value| (*part, value)))?,
            (Type::Tuple(parts), Value::Tuple(values)) if parts.len() == values.len() => {
                self.all(parts.iter().copied().zip(values.iter()))?
            }
            (Type::Dict(key, part), Value::Dict(dict)) => {
                let keys = module.types.get(*key as usize).unwrap_or(&Type::Any);
                dict.entries().iter().all(|(key, _)| is_key(keys, key))
                    && self.all(dict.entries().iter().map(|(_, value)| (*part, value)))?
            }
            (Type::Result(part, _), Value::Ok(inner)) | (Type::Result(_, part), Value::Err(inner)) => {
                self.is_of(*part, inner)?
            }
            (Type::Record(record), Value::Record(found)) if record.nominal => found.shape.type_name == record.name,
            (Type::Record(record), Value::Record(_)) => self.has_fields(record, value)?,
            (Type::Enum { name, variants }, Value::Variant(found)) => {
                found.shape.type_name == *name && variants.iter().any(|variant| variant.name == found.shape.tag)
            }
            (Type::Union(parts), value) => {
                for part in parts {
                    if self.is_of(*part, value)? {
                        return Some(true);
                    }
                }
                false
            }
            (Type::Semantic { base, pattern, .. }, value) => {
                let fits = match (pattern, value) {
                    (Some(pattern), Value::Str(text)) => {
                        *self.steps += (text.len() as u64).div_ceil(VALUE_BYTES);
                        crate::stdlib::known_regex(pattern).is_ok_and(|regex| regex.is_match(text))
                    }
                    _ => true,
                };
                fits && self.is_of(*base, value)?
            }
            _ => false,
        })
    }

    fn all<'v>(&mut self, parts: impl Iterator<Item = (u32, &'v Value)>) -> Option<bool> {
        for (ty, value) in parts {
            if !self.is_of(ty, value)? {
                return Some(false);
            }
        }
        Some(true)
    }

    fn has_fields(&mut self, record: &RecordType, value: &Value) -> Option<bool> {
        for field in &record.fields {
            match crate::failure::field(value, &field.name) {
                Some(found) if self.is_of(field.ty, found)? => {}
                _ => return Some(false),
            }
        }
        Some(true)
    }
}

fn is_key(ty: &Type, key: &Key) -> bool {
    matches!(
        (ty, key),
        (Type::Any, _) | (Type::Str, Key::Str(_)) | (Type::Int, Key::Int(_)) | (Type::Bool, Key::Bool(_))
    )
}

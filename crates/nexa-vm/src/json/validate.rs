//! Dynamic values as values of a type.
//!
//! What comes from JSON is close to a type and not of it: objects are dicts, whole numbers are ints where a float is
//! wanted, optional members are missing. This pass makes the value the type describes or lists every violation, each
//! with its path, in words that a model can act on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nexa_types::limits::{DEPTH_MAX, HEAP_BYTES_MAX};

use crate::json::write::key_text;
use crate::module::{Module, RecordType, Type};
use crate::value::{Dict, Key, Record, Shape, Value};
use crate::vm::heap::{Exhausted, Heap, LIST_BYTES, Meter, VALUE_BYTES};

/// Violations that are listed; the rest is counted as one.
const VIOLATIONS_MAX: usize = 32;

/// One thing about a value that does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where, as `$.points[2].title`.
    pub path: String,
    /// What the type wants there.
    pub expected: String,
    /// What is there instead.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: expected {}, found {}", self.path, self.expected, self.found)
    }
}

/// Converts a dynamic value to `module.types[ty]`, or lists what does not fit.
///
/// # Errors
/// Every violation, at most 32 of them; one alone if the value would take more than 64 MiB.
pub fn validate(module: &Module, ty: u32, value: &Value) -> Result<Value, Vec<Violation>> {
    let converted = validate_within(module, ty, value, &mut Heap::new(HEAP_BYTES_MAX));
    converted.unwrap_or_else(|Exhausted| {
        let expected = "a value that takes less memory".to_owned();
        Err(vec![Violation { path: "$".to_owned(), expected, found: describe(value) }])
    })
}

/// As [`validate`]; the meter is asked before each allocation.
pub(crate) fn validate_within(
    module: &Module,
    ty: u32,
    value: &Value,
    meter: &mut dyn Meter,
) -> Result<Result<Value, Vec<Violation>>, Exhausted> {
    let mut check =
        Check { module, violations: Vec::new(), path: Vec::new(), depth: 0, shapes: BTreeMap::new(), steps: 0, meter };
    let converted = check.convert(ty, value);
    check.meter.read(check.steps.saturating_mul(VALUE_BYTES));
    match converted {
        Ok(value) if check.violations.is_empty() => Ok(Ok(value)),
        Ok(_) => Ok(Err(check.violations)),
        Err(Exhausted) => Err(Exhausted),
    }
}

enum Step {
    Field(String),
    Index(usize),
}

struct Check<'m, 'c> {
    module: &'m Module,
    violations: Vec<Violation>,
    path: Vec<Step>,
    depth: usize,
    /// The shape of each record type that was met, by the type's address.
    shapes: BTreeMap<usize, Arc<Shape>>,
    /// Parts that were looked at.
    steps: u64,
    meter: &'c mut dyn Meter,
}

impl Check<'_, '_> {
    fn refuse(&mut self, expected: impl Into<String>, found: impl Into<String>) -> Value {
        if self.violations.len() < VIOLATIONS_MAX {
            let mut path = "$".to_owned();
            for step in &self.path {
                match step {
                    Step::Field(name) => {
                        path.push('.');
                        path.push_str(name);
                    }
                    Step::Index(index) => path.push_str(&format!("[{index}]")),
                }
            }
            self.violations.push(Violation { path, expected: expected.into(), found: found.into() });
        }
        Value::Unit
    }

    fn within(&mut self, step: Step, ty: u32, value: &Value) -> Result<Value, Exhausted> {
        self.path.push(step);
        let converted = self.convert(ty, value);
        self.path.pop();
        converted
    }

    /// The value as the type describes it; what it returns is meaningless once a violation was noted.
    fn convert(&mut self, ty: u32, value: &Value) -> Result<Value, Exhausted> {
        // An option or a union converts the same value again, so the path alone does not bound the recursion.
        if self.depth > DEPTH_MAX {
            return Ok(self.refuse("less nesting", "more than 256 levels"));
        }
        self.depth += 1;
        self.steps += 1;
        let converted = self.convert_part(ty, value);
        self.depth -= 1;
        converted
    }

    fn convert_part(&mut self, ty: u32, value: &Value) -> Result<Value, Exhausted> {
        let module = self.module;
        let known = module.types.get(ty as usize).unwrap_or(&Type::Any);
        Ok(match (known, value) {
            (Type::Any, value) => value.clone(),
            (Type::Unit, Value::Unit | Value::None) => Value::Unit,
            (Type::Str, Value::Str(_)) | (Type::Int, Value::Int(_)) | (Type::Float, Value::Float(_)) => value.clone(),
            (Type::Bool, Value::Bool(_)) | (Type::Duration, Value::Duration(_)) => value.clone(),
            (Type::Float, Value::Int(number)) => Value::Float(*number as f64),
            (Type::Int, Value::Float(number)) if is_whole(*number) => Value::Int(*number as i64),
            (Type::Duration, Value::Int(number)) => Value::Duration(*number),
            (Type::List(part), Value::List(values)) => Value::List(self.list(*part, values)?),
            (Type::Tuple(parts), Value::Tuple(values) | Value::List(values)) if parts.len() == values.len() => {
                self.meter.charge(LIST_BYTES + VALUE_BYTES * values.len() as u64)?;
                let mut converted = Vec::with_capacity(values.len());
                for (index, (part, value)) in parts.iter().zip(values.iter()).enumerate() {
                    converted.push(self.within(Step::Index(index), *part, value)?);
                }
                Value::Tuple(Arc::new(converted))
            }
            (Type::Dict(key, part), Value::Dict(dict)) => {
                self.meter.charge(LIST_BYTES + 2 * VALUE_BYTES * dict.len() as u64)?;
                let mut converted = Dict::with_capacity(dict.len());
                for (name, value) in dict.entries() {
                    let name = self.key(*key, name);
                    let step = Step::Field(key_text(&name).into_owned());
                    let value = self.within(step, *part, value)?;
                    converted.insert(name, value);
                }
                Value::Dict(Arc::new(converted))
            }
            (Type::Option(_), Value::None) => Value::None,
            (Type::Option(part), value) => self.convert(*part, value)?,
            (Type::Result(ok, _), Value::Ok(inner)) => Value::Ok(Arc::new(self.convert(*ok, inner)?)),
            (Type::Result(_, err), Value::Err(inner)) => Value::Err(Arc::new(self.convert(*err, inner)?)),
            (Type::Result(ok, err), Value::Dict(dict)) if dict.len() == 1 => match &dict.entries()[0] {
                (Key::Str(name), inner) if &**name == "ok" => {
                    Value::Ok(Arc::new(self.within(Step::Field("ok".to_owned()), *ok, inner)?))
                }
                (Key::Str(name), inner) if &**name == "err" => {
                    Value::Err(Arc::new(self.within(Step::Field("err".to_owned()), *err, inner)?))
                }
                _ => self.refuse("an object with `ok` or `err`", "another member"),
            },
            (Type::Record(record), Value::Dict(_) | Value::Record(_)) => self.record(record, value)?,
            (Type::Enum { name, variants }, value) => self.variant(name, variants, value)?,
            (Type::Union(parts), value) => self.union(parts, value)?,
            (Type::Semantic { base, condition, pattern }, value) => {
                let converted = self.convert(*base, value)?;
                if let (Some(pattern), Value::Str(text)) = (pattern, &converted) {
                    // The verifier has compiled the pattern before.
                    self.steps += (text.len() as u64).div_ceil(VALUE_BYTES);
                    let fits = crate::stdlib::known_regex(pattern).is_ok_and(|regex| regex.is_match(text));
                    if !fits {
                        self.refuse(format!("text that matches `{pattern}` ({condition})"), describe(&converted));
                    }
                }
                converted
            }
            (known, value) => self.refuse(type_words(known), describe(value)),
        })
    }

    fn list(&mut self, part: u32, values: &[Value]) -> Result<Arc<Vec<Value>>, Exhausted> {
        self.meter.charge(LIST_BYTES + VALUE_BYTES * values.len() as u64)?;
        let mut converted = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            converted.push(self.within(Step::Index(index), part, value)?);
        }
        Ok(Arc::new(converted))
    }

    fn key(&mut self, ty: u32, key: &Key) -> Key {
        let converted = match (self.module.types.get(ty as usize), key) {
            (Some(Type::Str), Key::Str(_)) | (Some(Type::Int), Key::Int(_)) | (Some(Type::Bool), Key::Bool(_)) => None,
            (Some(Type::Int), Key::Str(text)) => Some(text.parse().map(Key::Int).ok()),
            (Some(Type::Bool), Key::Str(text)) => Some(text.parse().map(Key::Bool).ok()),
            (Some(Type::Any) | None, _) => None,
            (Some(_), _) => Some(None),
        };
        match converted {
            None => key.clone(),
            Some(Some(key)) => key,
            Some(None) => {
                let words = self.module.types.get(ty as usize).map_or_else(String::new, type_words);
                self.refuse(format!("keys that are {words}"), format!("the key `{}`", key_text(key)));
                key.clone()
            }
        }
    }

    fn record(&mut self, record: &RecordType, value: &Value) -> Result<Value, Exhausted> {
        if let Value::Record(found) = value
            && record.nominal
            && !found.shape.type_name.is_empty()
            && found.shape.type_name != record.name
        {
            return Ok(self.refuse(format!("a {}", record.name), format!("a {}", found.shape.type_name)));
        }
        let type_name = if record.nominal { record.name.as_str() } else { "" };
        let values = self.fields(record, value, None)?;
        Ok(Value::Record(Arc::new(Record { shape: self.shape(record, type_name, ""), values })))
    }

    /// The values of a record's fields. `ignored` is a member that is no field, such as a variant's tag.
    fn fields(&mut self, record: &RecordType, value: &Value, ignored: Option<&str>) -> Result<Vec<Value>, Exhausted> {
        let words = 16 + record.fields.iter().map(|field| 24 + field.name.len()).sum::<usize>() as u64;
        self.meter.charge(LIST_BYTES + words + VALUE_BYTES * record.fields.len() as u64)?;
        let mut values = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let optional = matches!(self.module.types.get(field.ty as usize), Some(Type::Option(_)));
            let converted = match member(value, &field.name) {
                Some(found) => self.within(Step::Field(field.name.clone()), field.ty, found)?,
                None if optional => Value::None,
                None => {
                    let words = self.module.types.get(field.ty as usize).map_or_else(String::new, type_words);
                    self.path.push(Step::Field(field.name.clone()));
                    let value = self.refuse(words, "nothing; this field is required");
                    self.path.pop();
                    value
                }
            };
            values.push(converted);
        }
        // A record may have more fields than the type it is read as; JSON may not, so that a misspelt name is noticed.
        if let Value::Dict(dict) = value {
            for (key, _) in dict.entries() {
                if self.violations.len() >= VIOLATIONS_MAX {
                    break;
                }
                let name = key_text(key);
                let is_known = record.fields.iter().any(|field| field.name == name) || ignored == Some(&*name);
                if !is_known {
                    let names: Vec<&str> = record.fields.iter().map(|field| field.name.as_str()).collect();
                    self.path.push(Step::Field(name.clone().into_owned()));
                    self.refuse(format!("only the fields {}", names.join(", ")), "a field of another name");
                    self.path.pop();
                }
            }
        }
        Ok(values)
    }

    fn variant(&mut self, name: &str, variants: &[RecordType], value: &Value) -> Result<Value, Exhausted> {
        let tag = match value {
            Value::Str(tag) => Some(tag.as_ref()),
            Value::Variant(found) if found.shape.type_name == name => Some(found.shape.tag.as_str()),
            Value::Dict(_) => match member(value, "tag") {
                Some(Value::Str(tag)) => Some(tag.as_ref()),
                _ => None,
            },
            _ => None,
        };
        let Some(variant) = tag.and_then(|tag| variants.iter().find(|variant| variant.name == tag)) else {
            let tags: Vec<String> = variants.iter().map(|variant| format!("\"{}\"", variant.name)).collect();
            return Ok(self.refuse(format!("one of {}", tags.join(", ")), describe(value)));
        };
        let values = self.fields(variant, value, Some("tag"))?;
        Ok(Value::Variant(Arc::new(Record { shape: self.shape(variant, name, &variant.name), values })))
    }

    /// The shape of values of a record type.
    fn shape(&mut self, record: &RecordType, type_name: &str, tag: &str) -> Arc<Shape> {
        let address = std::ptr::from_ref(record) as usize;
        let shape = self.shapes.entry(address).or_insert_with(|| {
            Arc::new(Shape {
                type_name: type_name.to_owned(),
                tag: tag.to_owned(),
                fields: record.fields.iter().map(|field| field.name.clone()).collect(),
            })
        });
        Arc::clone(shape)
    }

    fn union(&mut self, parts: &[u32], value: &Value) -> Result<Value, Exhausted> {
        // What is of one of the types already stays as it is: a float does not become the int that stands before it.
        if parts.iter().any(|part| super::is_of(self.module, *part, value, &mut self.steps) == Some(true)) {
            return Ok(value.clone());
        }
        for part in parts {
            let known = self.violations.len();
            let full = known >= VIOLATIONS_MAX;
            let converted = self.convert(*part, value)?;
            if self.violations.len() == known && !full {
                return Ok(converted);
            }
            self.violations.truncate(known);
        }
        let words: Vec<String> =
            parts.iter().filter_map(|part| self.module.types.get(*part as usize)).map(type_words).collect();
        Ok(self.refuse(words.join(" or "), describe(value)))
    }
}

fn is_whole(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0
}

/// A member of a dict, record or variant, by name.
pub(crate) fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Dict(dict) => dict.get_str(name),
        other => crate::failure::field(other, name),
    }
}

fn type_words(ty: &Type) -> String {
    match ty {
        Type::Any => "any value".to_owned(),
        Type::Unit => "null".to_owned(),
        Type::Str => "a text".to_owned(),
        Type::Int => "a whole number".to_owned(),
        Type::Float => "a number".to_owned(),
        Type::Bool => "true or false".to_owned(),
        Type::Duration => "a whole number of milliseconds".to_owned(),
        Type::List(_) => "a list".to_owned(),
        Type::Dict(..) => "an object".to_owned(),
        Type::Tuple(parts) => format!("a list of exactly {} values", parts.len()),
        Type::Option(_) => "a value or null".to_owned(),
        Type::Result(..) => "an object with `ok` or `err`".to_owned(),
        Type::Record(record) => {
            let names: Vec<&str> = record.fields.iter().map(|field| field.name.as_str()).collect();
            format!("an object with the fields {}", names.join(", "))
        }
        Type::Enum { variants, .. } => {
            let tags: Vec<String> = variants.iter().map(|variant| format!("\"{}\"", variant.name)).collect();
            format!("one of {}", tags.join(", "))
        }
        Type::Union(_) => "one of several types".to_owned(),
        Type::Semantic { condition, .. } => condition.clone(),
    }
}

/// What a value is, in a few words.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Unit | Value::None => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(_) | Value::Float(_) => format!("the number {}", crate::json::to_json(value)),
        Value::Duration(_) => "a duration".to_owned(),
        Value::Str(text) if text.chars().count() <= 40 => {
            let mut out = "the text ".to_owned();
            crate::json::write::write_text(&mut out, text);
            out
        }
        Value::Str(text) => {
            let start: String = text.chars().take(40).collect();
            let mut out = "the text ".to_owned();
            crate::json::write::write_text(&mut out, &start);
            out.push('…');
            out
        }
        Value::List(values) => format!("a list of {}", values.len()),
        Value::Tuple(values) => format!("a list of {}", values.len()),
        Value::Record(record) if !record.shape.type_name.is_empty() => format!("a {}", record.shape.type_name),
        Value::Record(_) | Value::Dict(_) => "an object".to_owned(),
        Value::Variant(record) => format!("the variant {}", record.shape.tag),
        Value::Ok(_) => "an ok value".to_owned(),
        Value::Err(_) => "an err value".to_owned(),
        Value::Agent(_) => "an agent".to_owned(),
        Value::Secret(_) => "a secret".to_owned(),
        Value::Saved(_) => "a snapshot".to_owned(),
        Value::Closure(_) | Value::Stage(_) => "a function".to_owned(),
        Value::Iterator(_) => "an iteration".to_owned(),
    }
}

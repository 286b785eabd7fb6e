//! Reads the part of JSON Schema that protocols are made of into a [`Grammar`].
//!
//! Understood: `type` (also a list), `properties`, `required`, `additionalProperties`, `items`, `enum`, `const`,
//! `anyOf` and `oneOf` whose alternatives differ in their first character, `$ref` into `$defs`, and the bounds
//! `minLength`, `maxLength`, `minItems`, `maxItems`, `minimum`, `maximum` and their exclusive forms.
//! Notes for people are skipped, and so is `pattern`. Anything else is refused by name, never ignored.

use serde_json::{Map, Value};
use thiserror::Error;

use super::grammar::{Grammar, Node, NodeId, Property};
use super::number::{FRACTION_DIGITS_MAX, NumberShape};

/// How large a document may become where the schema does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Characters of a string; at the limit the string is closed.
    pub string_chars_max: u16,
    /// Items of a list; at the limit the list is closed.
    pub array_items_max: u16,
    /// Entries of a dict; at the limit the dict is closed.
    pub map_entries_max: u16,
    /// Levels below a value of any type.
    pub any_depth_max: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self { string_chars_max: 320, array_items_max: 6, map_entries_max: 6, any_depth_max: 2 }
    }
}

/// Levels of nesting in a schema; a deeper one, such as a recursive one, is refused.
pub(super) const DEPTH_MAX: usize = 12;
/// Levels below a value of any type, whatever [`Limits`] say.
pub(super) const ANY_DEPTH_MAX: u8 = 4;
/// Parts of a schema after references are followed.
const NODES_MAX: usize = 4096;
/// Characters of a dict's key.
const KEY_CHARS_MAX: u16 = 48;

/// Why a schema cannot guide a model.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// It is not JSON.
    #[error("the schema is not valid JSON")]
    NotJson(#[source] serde_json::Error),
    /// It says something that is not understood.
    #[error("the schema at {at} uses {what}, which the embedded model cannot be held to")]
    Unsupported {
        /// A JSON pointer.
        at: String,
        /// The keyword, or what is wrong with it.
        what: String,
    },
    /// Nothing can fit it.
    #[error("the schema at {at} allows no value at all")]
    Impossible {
        /// A JSON pointer.
        at: String,
    },
    /// It is too deep or too large.
    #[error("the schema at {at} nests deeper than {DEPTH_MAX} levels or has more than {NODES_MAX} parts")]
    TooLarge {
        /// A JSON pointer.
        at: String,
    },
}

impl Grammar {
    /// Reads a schema.
    ///
    /// # Errors
    /// [`SchemaError`] names the place that is not understood.
    pub fn from_schema(text: &str, limits: Limits) -> Result<Self, SchemaError> {
        let schema: Value = serde_json::from_str(text).map_err(SchemaError::NotJson)?;
        let limits = Limits { any_depth_max: limits.any_depth_max.min(ANY_DEPTH_MAX), ..limits };
        let mut reader = Reader { root: &schema, limits, grammar: Self::default() };
        let root = reader.node(&schema, &mut Vec::new())?;
        reader.grammar.root = root;
        Ok(reader.grammar)
    }
}

struct Reader<'s> {
    root: &'s Value,
    limits: Limits,
    grammar: Grammar,
}

/// Says something to people only.
const NOTES: [&str; 14] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "pattern",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
];

impl<'s> Reader<'s> {
    fn node(&mut self, schema: &'s Value, at: &mut Vec<String>) -> Result<NodeId, SchemaError> {
        if at.len() > 2 * DEPTH_MAX || self.grammar.len() >= NODES_MAX {
            return Err(SchemaError::TooLarge { at: pointer(at) });
        }
        let object = match schema {
            Value::Bool(true) => return Ok(self.any(self.limits.any_depth_max)),
            Value::Object(object) => object,
            _ => return Err(unsupported(at, "a schema that is not an object")),
        };
        if let Some(reference) = object.get("$ref") {
            return self.reference(reference, at);
        }
        if let Some(values) = object.get("enum").and_then(Value::as_array) {
            return self.choice(values, at);
        }
        if let Some(value) = object.get("const") {
            return self.choice(std::slice::from_ref(value), at);
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(Value::Array(schemas)) = object.get(keyword) {
                known(object, &[keyword, "type"], at)?;
                let alternatives = schemas
                    .iter()
                    .enumerate()
                    .map(|(index, schema)| self.below(schema, at, &[keyword, &index.to_string()]))
                    .collect::<Result<_, _>>()?;
                return self.union(alternatives, at);
            }
        }
        match object.get("type") {
            Some(Value::String(kind)) => self.typed(kind, object, at),
            Some(Value::Array(kinds)) => {
                let alternatives = kinds
                    .iter()
                    .map(|kind| match kind.as_str() {
                        Some(kind) => self.typed(kind, object, at),
                        None => Err(unsupported(at, "a `type` that is not a text")),
                    })
                    .collect::<Result<_, _>>()?;
                self.union(alternatives, at)
            }
            Some(_) => Err(unsupported(at, "a `type` that is not a text")),
            None if object.contains_key("properties") => self.typed("object", object, at),
            None => {
                known(object, &[], at)?;
                Ok(self.any(self.limits.any_depth_max))
            }
        }
    }

    fn below(&mut self, schema: &'s Value, at: &mut Vec<String>, steps: &[&str]) -> Result<NodeId, SchemaError> {
        at.extend(steps.iter().map(|step| (*step).to_owned()));
        let node = self.node(schema, at);
        at.truncate(at.len() - steps.len());
        node
    }

    fn typed(
        &mut self,
        kind: &str,
        object: &'s Map<String, Value>,
        at: &mut Vec<String>,
    ) -> Result<NodeId, SchemaError> {
        // A list of types shares one object of keywords; each type looks at its own.
        let shares = object.get("type").is_some_and(Value::is_array);
        let check = |own: &[&str]| if shares { Ok(()) } else { known(object, own, at) };
        match kind {
            "null" => {
                check(&[])?;
                Ok(self.grammar.add(Node::Choice(vec![b"null".as_slice().into()])))
            }
            "boolean" => {
                check(&[])?;
                Ok(self.grammar.add(Node::Choice(vec![b"true".as_slice().into(), b"false".as_slice().into()])))
            }
            "string" => {
                check(&["minLength", "maxLength"])?;
                let min = count(object, "minLength", at)?.unwrap_or(0);
                let max = count(object, "maxLength", at)?.unwrap_or_else(|| min.max(self.limits.string_chars_max));
                if min > max {
                    return Err(SchemaError::Impossible { at: pointer(at) });
                }
                Ok(self.grammar.add(Node::Text { min, max }))
            }
            "integer" | "number" => {
                check(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])?;
                let digits = if kind == "integer" { 0 } else { FRACTION_DIGITS_MAX };
                let least = bound(object, "minimum", digits, f64::ceil, at)?;
                let above = bound(object, "exclusiveMinimum", digits, f64::floor, at)?.map(|steps| steps + 1);
                let greatest = bound(object, "maximum", digits, f64::floor, at)?;
                let under = bound(object, "exclusiveMaximum", digits, f64::ceil, at)?.map(|steps| steps - 1);
                let (least, greatest) = (least.max(above), [greatest, under].into_iter().flatten().min());
                let shape = if digits == 0 {
                    NumberShape::integer(least, greatest)
                } else {
                    NumberShape::fractional(least, greatest)
                };
                if shape.is_empty() {
                    return Err(SchemaError::Impossible { at: pointer(at) });
                }
                Ok(self.grammar.add(Node::Number(shape)))
            }
            "array" => {
                check(&["items", "minItems", "maxItems"])?;
                let min = count(object, "minItems", at)?.unwrap_or(0);
                let max = count(object, "maxItems", at)?.unwrap_or_else(|| min.max(self.limits.array_items_max));
                if min > max {
                    return Err(SchemaError::Impossible { at: pointer(at) });
                }
                let item = match object.get("items") {
                    Some(schema) => self.below(schema, at, &["items"])?,
                    None => self.any(self.limits.any_depth_max),
                };
                Ok(self.grammar.add(Node::Array { item, min, max }))
            }
            "object" => {
                check(&["properties", "required", "additionalProperties"])?;
                self.object(object, at)
            }
            other => Err(unsupported(at, &format!("the type `{other}`"))),
        }
    }

    fn object(&mut self, object: &'s Map<String, Value>, at: &mut Vec<String>) -> Result<NodeId, SchemaError> {
        let required: Vec<&str> =
            object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let none = Map::new();
        let declared = match object.get("properties") {
            Some(Value::Object(properties)) => Some(properties),
            Some(_) => return Err(unsupported(at, "`properties` that are not an object")),
            None => None,
        };
        if declared.is_none() {
            let value = match object.get("additionalProperties") {
                Some(Value::Bool(false)) => return Ok(self.grammar.add(Node::Object(Vec::new()))),
                Some(schema @ Value::Object(_)) => self.below(schema, at, &["additionalProperties"])?,
                _ => self.any(self.limits.any_depth_max),
            };
            if !required.is_empty() {
                return Err(unsupported(at, "`required` without `properties`"));
            }
            return Ok(self.map_of(value));
        }
        if let Some(missing) = required.iter().find(|name| !declared.unwrap_or(&none).contains_key(**name)) {
            return Err(unsupported(at, &format!("`required` for the undeclared property `{missing}`")));
        }
        let mut properties = Vec::new();
        for (name, schema) in declared.into_iter().flatten() {
            let value = self.below(schema, at, &["properties", name])?;
            let key = format!("{}: ", Value::from(name.as_str())).into_bytes().into();
            properties.push(Property { key, value, is_required: required.contains(&name.as_str()) });
        }
        Ok(self.grammar.add(Node::Object(properties)))
    }

    fn map_of(&mut self, value: NodeId) -> NodeId {
        let key = self.grammar.add(Node::Text { min: 1, max: KEY_CHARS_MAX });
        self.grammar.add(Node::Map { key, value, max: self.limits.map_entries_max })
    }

    fn choice(&mut self, values: &[Value], at: &[String]) -> Result<NodeId, SchemaError> {
        let mut literals: Vec<Box<[u8]>> = Vec::new();
        for value in values {
            if value.is_array() || value.is_object() {
                return Err(unsupported(at, "an `enum` of lists or objects"));
            }
            let literal: Box<[u8]> = value.to_string().into_bytes().into();
            if !literals.contains(&literal) {
                literals.push(literal);
            }
        }
        if literals.is_empty() {
            return Err(SchemaError::Impossible { at: pointer(at) });
        }
        Ok(self.grammar.add(Node::Choice(literals)))
    }

    fn union(&mut self, alternatives: Vec<NodeId>, at: &[String]) -> Result<NodeId, SchemaError> {
        let mut starts = [false; 256];
        for alternative in &alternatives {
            for byte in 0..=255 {
                if self.grammar.begins(*alternative, byte) {
                    if starts[usize::from(byte)] {
                        let what = format!("alternatives that both begin with `{}`", char::from(byte));
                        return Err(unsupported(at, &what));
                    }
                    starts[usize::from(byte)] = true;
                }
            }
        }
        match alternatives.as_slice() {
            [] => Err(SchemaError::Impossible { at: pointer(at) }),
            [only] => Ok(*only),
            _ => Ok(self.grammar.add(Node::Union(alternatives))),
        }
    }

    fn any(&mut self, depth: u8) -> NodeId {
        let simple: [&[u8]; 3] = [b"null", b"true", b"false"];
        let mut alternatives = vec![
            self.grammar.add(Node::Choice(simple.map(Into::into).to_vec())),
            self.grammar.add(Node::Text { min: 0, max: self.limits.string_chars_max }),
            self.grammar.add(Node::Number(NumberShape::fractional(None, None))),
        ];
        if depth > 0 {
            let item = self.any(depth - 1);
            alternatives.push(self.grammar.add(Node::Array { item, min: 0, max: self.limits.array_items_max }));
            alternatives.push(self.map_of(item));
        }
        self.grammar.add(Node::Union(alternatives))
    }

    fn reference(&mut self, reference: &'s Value, at: &mut Vec<String>) -> Result<NodeId, SchemaError> {
        let target = reference.as_str().and_then(|text| text.strip_prefix('#'));
        let Some(schema) = target.and_then(|pointer| self.root.pointer(pointer)) else {
            return Err(unsupported(at, &format!("the reference {reference}")));
        };
        self.below(schema, at, &["$ref"])
    }
}

fn known(object: &Map<String, Value>, own: &[&str], at: &[String]) -> Result<(), SchemaError> {
    let is_known =
        |word: &str| word == "type" || own.contains(&word) || NOTES.contains(&word) || word.starts_with("x-");
    match object.keys().find(|word| !is_known(word)) {
        Some(word) => Err(unsupported(at, &format!("`{word}`"))),
        None => Ok(()),
    }
}

fn count(object: &Map<String, Value>, word: &str, at: &[String]) -> Result<Option<u16>, SchemaError> {
    match object.get(word) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(u16::try_from(number).unwrap_or(u16::MAX))),
            None => Err(unsupported(at, &format!("a `{word}` that is not a count"))),
        },
    }
}

/// A bound in steps of 10^-`digits`, rounded towards the allowed side.
#[allow(clippy::cast_possible_truncation, reason = "clamped to what fits just before")]
fn bound(
    object: &Map<String, Value>,
    word: &str,
    digits: u32,
    round: fn(f64) -> f64,
    at: &[String],
) -> Result<Option<i128>, SchemaError> {
    let Some(value) = object.get(word) else { return Ok(None) };
    if let Some(whole) = value.as_i64() {
        return Ok(Some(i128::from(whole) * 10_i128.pow(digits)));
    }
    let Some(number) = value.as_f64() else {
        return Err(unsupported(at, &format!("a `{word}` that is not a number")));
    };
    let steps = number * 10_f64.powi(i32::try_from(digits).unwrap_or(0));
    // 0.7 × 10,000 is a hair off 7,000; a bound that is meant as a whole number of steps is one.
    let steps = if (steps - steps.round()).abs() < 1e-6 { steps.round() } else { round(steps) };
    Ok(Some(steps.clamp(-1e18, 1e18) as i128))
}

fn unsupported(at: &[String], what: &str) -> SchemaError {
    SchemaError::Unsupported { at: pointer(at), what: what.to_owned() }
}

fn pointer(at: &[String]) -> String {
    if at.is_empty() { "its top".to_owned() } else { format!("/{}", at.join("/")) }
}

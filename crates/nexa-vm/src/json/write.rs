//! Values as canonical JSON text.

use std::fmt::Write as _;

use nexa_types::RunCode;
use nexa_types::limits::STRING_BYTES_MAX;

use crate::value::{Key, Value};

/// Why a value has no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoText {
    /// It would be longer than a text may be.
    #[error("the text of the value is longer than {STRING_BYTES_MAX} bytes")]
    TooLong,
    /// A secret is in it, which never becomes text.
    #[error("a secret would have become text; hand it to a tool as it is")]
    Secret,
}

impl NoText {
    /// The error that a program ends with.
    pub const fn code(self) -> RunCode {
        match self {
            Self::TooLong => RunCode::OutOfMemory,
            Self::Secret => RunCode::SecretLeak,
        }
    }
}

/// The canonical text of a value that is known to be small, such as one that was decoded; cut short at
/// [`STRING_BYTES_MAX`] and before a secret. Agents and functions, which JSON cannot say, read `"<agent>"` and `"<function>"`.
pub fn to_json(value: &Value) -> String {
    let mut writer = JsonWriter { out: String::new(), indent: 0 };
    // The text so far is what there is when it grows too long.
    let _cut_short = writer.value(value, 0);
    writer.out
}

/// The canonical text of any value.
///
/// # Errors
/// [`NoText`] as soon as the text passes [`STRING_BYTES_MAX`], and at a secret.
pub fn try_to_json(value: &Value) -> Result<String, NoText> {
    to_json_indented(value, 0)
}

/// The text with one element a line and `indent` spaces a level; 0 is canonical.
///
/// # Errors
/// [`NoText`] as soon as the text passes [`STRING_BYTES_MAX`], and at a secret.
pub fn to_json_indented(value: &Value, indent: usize) -> Result<String, NoText> {
    let mut writer = JsonWriter { out: String::new(), indent };
    writer.value(value, 0)?;
    Ok(writer.out)
}

/// How a value reads inside text: a str as it is, any other as canonical JSON.
///
/// # Errors
/// [`NoText`] as soon as the text passes [`STRING_BYTES_MAX`], and at a secret.
pub fn text_of(value: &Value) -> Result<String, NoText> {
    match value {
        Value::Str(text) => Ok(text.as_ref().to_owned()),
        other => try_to_json(other),
    }
}

/// Appends a float so that it reads back as the same float; what JSON cannot say is `null`.
pub(crate) fn write_float(out: &mut String, value: f64) {
    if value.is_finite() {
        // Writing to a String cannot fail.
        let _infallible = write!(out, "{value:?}");
    } else {
        out.push_str("null");
    }
}

/// Appends a quoted text.
pub(crate) fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if (control as u32) < 0x20 => {
                let _infallible = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct JsonWriter {
    out: String,
    indent: usize,
}

impl JsonWriter {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), NoText> {
        match value {
            Value::Unit | Value::None => self.out.push_str("null"),
            Value::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) | Value::Duration(value) => {
                let _infallible = write!(self.out, "{value}");
            }
            Value::Float(value) => write_float(&mut self.out, *value),
            Value::Str(text) => write_text(&mut self.out, text),
            Value::List(values) | Value::Tuple(values) => self.list(values, depth)?,
            Value::Record(record) => {
                let names = record.shape.fields.iter().map(String::as_str);
                self.object(names.zip(&record.values), depth)?;
            }
            Value::Variant(record) if record.values.is_empty() => write_text(&mut self.out, &record.shape.tag),
            Value::Variant(record) => {
                let tag = Value::Str(record.shape.tag.as_str().into());
                let fields = record.shape.fields.iter().map(String::as_str).zip(&record.values);
                self.object(std::iter::once(("tag", &tag)).chain(fields), depth)?;
            }
            Value::Dict(dict) => {
                let names: Vec<std::borrow::Cow<'_, str>> =
                    dict.entries().iter().map(|(key, _)| key_text(key)).collect();
                let pairs = names.iter().map(AsRef::as_ref).zip(dict.entries().iter().map(|(_, value)| value));
                self.object(pairs, depth)?;
            }
            Value::Ok(inner) => self.object(std::iter::once(("ok", &**inner)), depth)?,
            Value::Err(inner) => self.object(std::iter::once(("err", &**inner)), depth)?,
            Value::Agent(_) => self.out.push_str("\"<agent>\""),
            Value::Saved(_) => self.out.push_str("\"<snapshot>\""),
            Value::Secret(_) => return Err(NoText::Secret),
            Value::Closure(_) | Value::Stage(_) => self.out.push_str("\"<function>\""),
            Value::Iterator(_) => self.out.push_str("\"<iterator>\""),
        }
        if self.out.len() > STRING_BYTES_MAX { Err(NoText::TooLong) } else { Ok(()) }
    }

    fn list(&mut self, values: &[Value], depth: usize) -> Result<(), NoText> {
        self.out.push('[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.new_line(depth + 1);
            self.value(value, depth + 1)?;
        }
        if !values.is_empty() {
            self.new_line(depth);
        }
        self.out.push(']');
        Ok(())
    }

    fn object<'v>(&mut self, pairs: impl Iterator<Item = (&'v str, &'v Value)>, depth: usize) -> Result<(), NoText> {
        self.out.push('{');
        let mut is_empty = true;
        for (name, value) in pairs {
            if !is_empty {
                self.out.push(',');
            }
            is_empty = false;
            self.new_line(depth + 1);
            write_text(&mut self.out, name);
            self.out.push(':');
            if self.indent > 0 {
                self.out.push(' ');
            }
            self.value(value, depth + 1)?;
        }
        if !is_empty {
            self.new_line(depth);
        }
        self.out.push('}');
        Ok(())
    }

    fn new_line(&mut self, depth: usize) {
        if self.indent > 0 {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', self.indent * depth));
        }
    }
}

/// A key as an object's member name.
pub(crate) fn key_text(key: &Key) -> std::borrow::Cow<'_, str> {
    match key {
        Key::Str(text) => text.as_ref().into(),
        Key::Int(number) => number.to_string().into(),
        Key::Bool(value) => value.to_string().into(),
    }
}

//! JSON text as dynamic values.
//!
//! Strict JSON with bounds: 128 levels, and every allocation is charged before it is made, so that a short hostile text
//! (`[[[[…`) cannot take much more memory than its owner may use. Whole numbers that fit are ints, all others floats.

use std::sync::Arc;

use nexa_types::limits::{HEAP_BYTES_MAX, STRING_BYTES_MAX};

use crate::value::{Dict, Key, Text, Value};
use crate::vm::heap::{Exhausted, Heap, LIST_BYTES, Meter, VALUE_BYTES, text_bytes};

/// The deepest nesting that is read.
const JSON_DEPTH_MAX: usize = 128;

/// Why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Something else stands where a part of JSON should.
    #[error("not valid JSON at character {at}: {expected} expected")]
    Syntax {
        /// The position in characters, from 1.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// It would take more memory than there is.
    #[error("the JSON text is too large for the memory that is left")]
    TooLarge,
}

/// Reads a text as a dynamic value.
///
/// # Errors
/// [`JsonError`] for what is no JSON, nests deeper than 128 levels, or takes more than 64 MiB.
pub fn from_json(text: &str) -> Result<Value, JsonError> {
    from_json_charged(text, &mut Heap::new(HEAP_BYTES_MAX))
}

/// As [`from_json`]; the meter is asked before each allocation.
pub(crate) fn from_json_charged(text: &str, meter: &mut dyn Meter) -> Result<Value, JsonError> {
    let mut parser = Parser { text, at: 0, meter };
    parser.blanks();
    let value = parser.value(0)?;
    parser.blanks();
    if parser.at == text.len() { Ok(value) } else { Err(parser.expected("the end")) }
}

struct Parser<'t, 'c> {
    text: &'t str,
    at: usize,
    meter: &'c mut dyn Meter,
}

impl Parser<'_, '_> {
    fn expected(&self, expected: &'static str) -> JsonError {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        JsonError::Syntax { at: before.chars().count() + 1, expected }
    }

    fn charge(&mut self, bytes: u64) -> Result<(), JsonError> {
        self.meter.charge(bytes).map_err(|Exhausted| JsonError::TooLarge)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, JsonError> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.expected(word))
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth > JSON_DEPTH_MAX {
            return Err(self.expected("less nesting than 128 levels"));
        }
        match self.peek() {
            Some(b'n') => self.word("null", Value::None),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'"') => {
                let text = self.string()?;
                Ok(Value::Str(text.into()))
            }
            Some(b'[') => self.array(depth),
            Some(b'{') => self.object(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.expected("a value")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        self.charge(LIST_BYTES)?;
        let mut values = Vec::new();
        self.blanks();
        if !self.accept(b']') {
            loop {
                self.blanks();
                // A vector's first growth makes room for four.
                self.charge(VALUE_BYTES * if values.is_empty() { 4 } else { 2 })?;
                values.push(self.value(depth + 1)?);
                self.blanks();
                if self.accept(b']') {
                    break;
                }
                if !self.accept(b',') {
                    return Err(self.expected("`,` or `]`"));
                }
            }
        }
        values.shrink_to_fit();
        Ok(Value::List(Arc::new(values)))
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        self.charge(LIST_BYTES)?;
        let mut dict = Dict::default();
        self.blanks();
        if !self.accept(b'}') {
            loop {
                self.blanks();
                if self.peek() != Some(b'"') {
                    return Err(self.expected("a name in quotes"));
                }
                let name: Text = self.string()?.into();
                self.blanks();
                if !self.accept(b':') {
                    return Err(self.expected("`:`"));
                }
                self.blanks();
                self.charge(VALUE_BYTES * if dict.is_empty() { 8 } else { 4 })?;
                let value = self.value(depth + 1)?;
                // A name that stands twice keeps its first place and its last value.
                dict.insert(Key::Str(name), value);
                self.blanks();
                if self.accept(b'}') {
                    break;
                }
                if !self.accept(b',') {
                    return Err(self.expected("`,` or `}`"));
                }
            }
        }
        Ok(Value::Dict(Arc::new(dict)))
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        self.accept(b'-');
        if !self.accept(b'0') {
            self.digits()?;
        }
        let mut is_whole = true;
        if self.accept(b'.') {
            is_whole = false;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            is_whole = false;
            if !self.accept(b'+') {
                self.accept(b'-');
            }
            self.digits()?;
        }
        let number = &self.text[start..self.at];
        if let (true, Ok(number)) = (is_whole, number.parse()) {
            return Ok(Value::Int(number));
        }
        match number.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Float(number)),
            _ => Err(self.expected("a smaller number")),
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let plain =
                self.text.as_bytes()[self.at..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20));
            let len = plain.count();
            self.charge(text_bytes(len))?;
            // Both ends stand at ASCII bytes, so the slice falls on character boundaries.
            out.push_str(self.text.get(self.at..self.at + len).unwrap_or_default());
            self.at += len;
            if out.len() > STRING_BYTES_MAX {
                return Err(JsonError::TooLarge);
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                _ => return Err(self.expected("the end of the text, `\"`")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let escape = self.peek();
        self.at += usize::from(escape.is_some_and(|byte| byte.is_ascii()));
        Ok(match escape {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.four_hex_digits()?;
                let is_high_half = (0xD800..0xDC00).contains(&first);
                let code = if is_high_half && self.accept(b'\\') && self.accept(b'u') {
                    let second = self.four_hex_digits()?;
                    if !(0xDC00..0xE000).contains(&second) {
                        return Err(self.expected("the second half of a surrogate pair"));
                    }
                    0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                } else {
                    first
                };
                char::from_u32(code).ok_or_else(|| self.expected("a Unicode character"))?
            }
            _ => return Err(self.expected("an escape such as `\\n`")),
        })
    }

    fn four_hex_digits(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|part| part.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use proptest::prelude::*;

    use super::*;
    use crate::json::to_json;

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            // Short floats: the other reader is not exact in the last bit of long ones.
            any::<i32>().prop_map(|eighths| (f64::from(eighths) / 8.0).into()),
            "\\PC{0,8}|[\\x00-\\x7f]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::vec(("[a-e]{0,2}", inner), 0..5)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_of_another_writer_is_read_and_written_as_that_writer_would(json in any_json()) {
            for text in [json.to_string(), serde_json::to_string_pretty(&json).unwrap()] {
                let ours = to_json(&from_json(&text).unwrap());
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&ours).unwrap(), json.clone());
            }
        }

        #[test]
        fn whatever_is_read_another_reader_reads_too(text in "[\\[\\]{}\",:0-9eE.+\\-tfn\\\\u ]{0,16}") {
            if from_json(&text).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
        }
    }

    #[test]
    fn the_error_says_where_and_what() {
        assert_eq!(from_json("[1, é]").unwrap_err().to_string(), "not valid JSON at character 5: a value expected");
        assert_eq!(from_json("{\"a\" 1}").unwrap_err().to_string(), "not valid JSON at character 6: `:` expected");
        assert!(from_json("\"\\é\"").is_err());
        assert!(from_json("\"\\ud800x\"").is_err());
    }

    proptest! {
        #[test]
        fn a_float_is_read_as_it_was_written(float in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            prop_assert_eq!(from_json(&to_json(&Value::Float(float))), Ok(Value::Float(float)));
        }
    }

    #[test]
    fn a_thousand_brackets_are_refused() {
        assert!(from_json(&"[".repeat(100_000)).is_err());
    }
}

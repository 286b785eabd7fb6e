//! Failures as values and values as failures: the one shape of the language's `Error`.

use std::sync::{Arc, LazyLock};

use nexa_types::{Failure, RunCode};

use crate::codec;
use crate::json;
use crate::value::{Record, Shape, Value};

/// The longest chain of causes that is kept: well below what stored bytes may be nested.
const CAUSES_MAX: usize = nexa_event::codec::NESTING_MAX / 2;

static SHAPE: LazyLock<Arc<Shape>> = LazyLock::new(|| {
    Arc::new(Shape {
        type_name: "Error".to_owned(),
        tag: String::new(),
        fields: ["code", "message", "data", "at", "cause"].map(str::to_owned).to_vec(),
    })
});

/// The shape of every error value: `Error { code, message, data, at, cause }`.
pub fn error_shape() -> Arc<Shape> {
    Arc::clone(&SHAPE)
}

/// An error value.
pub fn error_value(code: RunCode, message: &str, at: &str) -> Value {
    Value::Record(Arc::new(Record {
        shape: error_shape(),
        values: vec![
            Value::Str(code.as_str().into()),
            Value::Str(message.into()),
            Value::None,
            Value::Str(at.into()),
            Value::None,
        ],
    }))
}

/// A failure as the program sees it. Data that cannot be decoded is left out, and so are causes beyond the 128th.
pub fn to_value(failure: &Failure) -> Value {
    // Built from the innermost cause outwards, so that a long chain costs no stack.
    let causes = std::iter::successors(Some(failure), |failure| failure.cause.as_deref());
    let chain: Vec<&Failure> = causes.take(CAUSES_MAX).collect();
    chain.iter().rev().fold(Value::None, |cause, failure| {
        let data = failure.data.as_ref().and_then(|data| codec::decode(data).ok()).unwrap_or(Value::None);
        let code = Value::Str(failure.code.as_str().into());
        let message = Value::Str(failure.message.as_str().into());
        let at = Value::Str(failure.at.as_str().into());
        Value::Record(Arc::new(Record { shape: error_shape(), values: vec![code, message, data, at, cause] }))
    })
}

/// The code of an error value, if it is one.
pub fn code_of(value: &Value) -> Option<RunCode> {
    text(field(value, "code")?)?.parse().ok()
}

/// An error value as it travels. Anything else that was raised becomes `failed` with its text as the message.
pub fn from_value(value: &Value) -> Failure {
    from_value_at(value, 0)
}

fn from_value_at(value: &Value, depth: usize) -> Failure {
    let Some(code) = code_of(value) else {
        return Failure::new(RunCode::Failed, json::text_of(value).unwrap_or_default());
    };
    let text_field = |name| field(value, name).and_then(text).unwrap_or_default().to_owned();
    let data = match field(value, "data") {
        None | Some(Value::None) => None,
        Some(data) => codec::try_encode(data).ok(),
    };
    let cause = match field(value, "cause") {
        Some(cause @ Value::Record(_)) if depth + 1 < CAUSES_MAX => Some(Box::new(from_value_at(cause, depth + 1))),
        _ => None,
    };
    Failure { code, message: text_field("message"), at: text_field("at"), data, cause }
}

/// A field of a record.
pub(crate) fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let (Value::Record(record) | Value::Variant(record)) = value else { return None };
    let index = record.shape.fields.iter().position(|field| field == name)?;
    record.values.get(index)
}

/// The text of a text value.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_back_as_it_went_in() {
        let mut failure = Failure::new(RunCode::ToolFailed, "no such page");
        failure.at = "main.nx:7".to_owned();
        failure.data = Some(codec::encode(&Value::Int(404)));
        failure.cause = Some(Box::new(Failure::new(RunCode::Timeout, "slow")));
        assert_eq!(from_value(&to_value(&failure)), failure);
    }

    #[test]
    fn a_raised_text_becomes_the_message_of_failed() {
        assert_eq!(from_value(&Value::Str("oh".into())), Failure::new(RunCode::Failed, "oh"));
    }
}

//! How something ended, and the bytes it ended with.

use std::fmt;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use crate::RunCode;

/// An encoded VM value (see `nexa_vm::codec`). Shared, so that a message to many copies nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload(Arc<[u8]>);

impl Payload {
    /// Wraps bytes that an encoder made.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The encoded value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes; no encoded value is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "payload({} bytes)", self.0.len())
    }
}

impl<C> Encode<C> for Payload {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Payload {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self(decoder.bytes()?.into()))
    }
}

/// The language's `Error` value as it travels between agents and to people.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// What kind of failure.
    #[n(0)]
    pub code: RunCode,
    /// What failed, for a person.
    #[n(1)]
    pub message: String,
    /// Where in the program, as `file:line`, or empty.
    #[n(2)]
    pub at: String,
    /// Details that code may look at.
    #[n(3)]
    pub data: Option<Payload>,
    /// What led to it.
    #[n(4)]
    pub cause: Option<Box<Failure>>,
}

impl Failure {
    /// A failure with a code and a message and nothing else.
    pub fn new(code: RunCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), at: String::new(), data: None, cause: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.message)?;
        if self.at.is_empty() { Ok(()) } else { write!(out, " (at {})", self.at) }
    }
}

/// How an agent or an effect ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// With a value.
    #[n(0)]
    Ok(#[n(0)] Payload),
    /// With an error, `cancelled` among them.
    #[n(1)]
    Err(#[n(0)] Failure),
}

impl Outcome {
    /// Whether it ended with a value.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }

    /// Why it ended without a value, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Ok(_) => None,
            Self::Err(failure) => Some(failure),
        }
    }
}

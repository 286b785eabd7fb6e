//! Keeps a model inside a JSON Schema, byte by byte.
//!
//! In:  a schema (once), then a state and the bytes of a token that the model would like to write.
//! Out: the state after them, or `None`: the token cannot continue any valid document.
//!
//! Holds, whatever the model prefers:
//!   CN-1  every state that `step` returns can still be completed
//!   CN-2  `closing` completes it, and the whole then parses and validates
//!   CN-3  the document is finite: strings, lists, dicts and numbers have bounds
//!
//! The document has one layout only: properties in the schema's order, `", "` and `": "` as separators and
//! no other white space. So most of a document is *forced*: it has one possible next byte, and is written
//! without asking the model, which is both faster and kinder to a small one.
//!
//! Not here: tokens, logits and dice (`embedded`), and `pattern`, which whoever validates the answer checks.

mod grammar;
mod number;
mod schema;
#[cfg(test)]
mod tests;

pub use grammar::{Grammar, State};
pub use schema::{Limits, SchemaError};

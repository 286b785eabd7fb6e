//! Values as JSON text, and back.
//!
//! - [`to_json`]: canonical text: insertion order, no spaces, the shortest numbers that read back.
//! - [`from_json`]: any JSON text as a dynamic value; objects become dicts.
//! - [`validate`]: a dynamic value as a value of a type, or every violation, in words for whoever has to repair it.
//! - [`conditions`]: what a model has to be asked about a value of a type.
//! - [`schema`]: a type as JSON Schema, for models.

mod conditions;
mod is_of;
mod read;
pub(crate) mod schema;
pub(crate) mod validate;
pub(crate) mod write;

pub use conditions::CONDITIONS_MAX;
pub use read::{JsonError, from_json};
pub use schema::schema;
pub use validate::{Violation, validate};
pub use write::{NoText, text_of, to_json, to_json_indented, try_to_json};

pub(crate) use conditions::{Unlisted, conditions};
pub(crate) use is_of::is_of;
pub(crate) use read::from_json_charged;
pub(crate) use validate::validate_within;

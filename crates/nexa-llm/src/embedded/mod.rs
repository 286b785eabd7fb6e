//! The embedded model: SmolLM2-135M-Instruct on the processor, in this process, without a key or a server.
//!
//! - [`weights`]: the folder that they lie in, and whether they are right.
//! - [`pull`]: brings them there, in the form that `convert` gives them.
//! - [`worker`]: the `Model` port: one answer at a time on a thread of its own, a fair queue before it.
//! - [`engine`]: writes one answer. Beneath it `llama` (the network), [`vocabulary`] (text to tokens and back), `sampler`
//!   (which token next) and `spool` (bytes to pieces of text); [`crate::constrain`] keeps it inside a schema.

mod convert;
pub mod engine;
pub(crate) mod fair;
mod llama;
mod matrix;
pub mod pull;
mod sampler;
mod spool;
#[cfg(test)]
mod tests;
pub mod vocabulary;
pub mod weights;
pub mod worker;

pub use weights::ModelStore;
pub use worker::{EmbeddedModel, processor_note};

//! Models behind two ports: those that write, embedded, OpenAI-compatible, or scripted; and those that make vectors of texts.
//!
//! ```text
//! ModelCall ─► router ─┬─► embedded   local/…     the processor, in this process
//!                      ├─► openai     provider/…  HTTP
//!                      └─► script                 a file, for tests
//! EmbedCall ─► remembering ─┬─► embedding           local/…     the processor, in this process
//!                           └─► openai::embeddings  provider/…  HTTP
//! ```
//!
//! Those above are each a [`nexa_ports::model::Model`], and [`router::Router`] is one over the others; those below are each a
//! [`nexa_ports::embedder::Embedder`], of which a node has one. None retries: an error says with its
//! code whether trying again makes sense, and the agent's rules decide. [`constrain`] is the pure part that keeps the
//! embedded model inside a JSON Schema, [`tools`] the one that holds tool calls against what was offered.

pub mod constrain;
pub mod embedded;
pub mod embedding;
mod http;
pub mod openai;
pub mod router;
pub mod script;
#[cfg(test)]
mod testing;
pub mod tools;

//! Models behind one port: embedded, OpenAI-compatible, scripted.
//!
//! ```text
//! ModelCall ─► router ─┬─► embedded   local/…     the processor, in this process
//!                      ├─► openai     provider/…  HTTP
//!                      └─► script                 a file, for tests
//! ```
//!
//! Each is a [`nexa_ports::model::Model`]; [`router::Router`] is one over the others. None retries: an error says with its
//! code whether trying again makes sense, and the agent's rules decide. [`constrain`] is the pure part that keeps the
//! embedded model inside a JSON Schema, [`tools`] the one that holds tool calls against what was offered.

pub mod constrain;
pub mod embedded;
mod http;
pub mod openai;
pub mod router;
pub mod script;
#[cfg(test)]
mod testing;
pub mod tools;

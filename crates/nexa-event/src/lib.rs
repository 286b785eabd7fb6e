//! Facts, effects and envelopes: everything that is stored, and nothing that decides.
//!
//! - [`effect`]: what a VM asks for. Never stored as such: a replay makes it again.
//! - [`fact`]: what happened. The only truth beside the agent rows.
//! - [`envelope`]: how a fact is wrapped, hashed and chained.
//! - [`inbox`]: how an input waits for its agent.
//! - [`root`]: what stands for the whole log, and how it is remembered elsewhere.
//! - [`asks`]: what an agent asks of its node.
//! - [`codec`]: how all of it becomes bytes, with its format version and golden files.
//!
//! Every type here has numbered fields (`#[n(..)]`). A number is never reused; a new field is optional;
//! a reader skips numbers that it does not know.

pub mod asks;
pub mod codec;
pub mod effect;
pub mod envelope;
pub mod fact;
pub mod formats;
pub mod inbox;
pub mod root;

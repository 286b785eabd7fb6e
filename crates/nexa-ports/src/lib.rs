//! Narrow traits towards everything outside, each with an in-memory twin or a fake beside it.
//!
//! - [`clock`]: time. Real, or moved by a test.
//! - [`dice`]: randomness. Real, or from a seed.
//! - [`store`]: streams, agent rows, inbox, snapshots, blobs. Two truths, one transaction.
//! - [`view`]: read models, which are folds and can be rebuilt.
//! - [`memories`]: what workloads and tenants remember; a fold as well.
//! - [`model`]: language models.
//! - [`tool`]: what programs and models may call.
//!
//! Adapters never see each other; the `nexa` binary chooses them in one place.

pub mod clock;
pub mod dice;
pub mod memories;
pub mod memory;
pub mod model;
pub mod store;
pub mod tool;
pub mod view;

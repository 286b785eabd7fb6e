//! Narrow traits towards everything outside, each with an in-memory twin or a fake beside it.
//!
//! - [`clock`]: time. Real, or moved by a test.
//! - [`dice`]: randomness. Real, or from a seed.
//! - [`store`]: streams, agent rows, inbox, snapshots, blobs. Two truths, one transaction.
//! - [`audit`]: the log as auditors see it, and where its anchors are kept.
//! - [`leadership`]: what only the elected leader of a cluster writes.
//! - [`membership`]: who is there, who leads, and whose word still counts.
//! - [`neighbours`]: how a node reaches the others.
//! - [`view`]: read models, which are folds and can be rebuilt.
//! - [`memories`]: what workloads and tenants remember; a fold as well.
//! - [`model`]: language models.
//! - [`embedder`]: vectors of texts, near each other where the texts are.
//! - [`pages`]: what agents said, in pages, and how it is found again; a fold as well.
//! - [`tool`]: what programs and models may call.
//!
//! Adapters never see each other; the `nexa` binary chooses them in one place.

pub mod audit;
pub mod clock;
pub mod dice;
pub mod embedder;
pub mod formats;
pub mod leadership;
pub mod membership;
pub mod memories;
pub mod memory;
pub mod model;
pub mod neighbours;
pub mod pages;
pub mod store;
pub mod tool;
pub mod view;

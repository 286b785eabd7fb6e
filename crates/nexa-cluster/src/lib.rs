//! Nodes together.
//!
//! - [`peers`]: the one trait between links and everything above them.
//! - [`link`]: links over sockets, with certificates on both sides.
//! - [`certs`]: an authority for those who have none, and what a certificate says.
//! - [`local`]: an in-process network that can lose, delay and cut, for tests and for nodes of one process.
//!
//! Nothing here makes anything safe: that is the store's fence. What goes between nodes makes things fast, and what gets
//! lost is found again by those who look.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

pub mod certs;
pub mod link;
pub mod local;
pub mod peers;

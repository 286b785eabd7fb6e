//! The mediator and the gRPC doors.
//!
//! - [`mediator`]: commands and queries as types, and the chain of layers that they pass.
//! - [`admission`]: whether the node takes on more work, judged before any of it is done.
//! - [`handlers`]: the end of the chain, over the store, the read models and the node.
//! - [`watch`]: workloads and agents as they go on, resumable at every fact.
//! - [`cursor`]: where a watch goes on, as opaque bytes.
//! - [`doors`]: gRPC in front of the mediator.
//! - [`host`], [`fleet`]: what the handlers need of the node behind them, and of the cluster that it belongs to.
//!
//! A request passes `doors::services` → `doors::decode` → `mediator` → its layers → `handlers` → `doors::encode`.
//! Whoever has a mediator in the same process may ask it without a door.

pub mod admission;
pub mod cursor;
pub mod doors;
pub mod fleet;
pub mod handlers;
pub mod host;
mod listed;
pub mod mediator;
mod standing;
pub mod watch;

//! Nodes together.
//!
//! - [`Cluster`]: a node among others, from joining to leaving, and what people ask of all of them.
//! - [`Relay`]: what stands between a node and the others; made before both.
//! - [`host`]: what a cluster needs of the node that it stands beside.
//! - `heartbeat`: signs of life, from a thread of their own.
//! - `leader`: the actor of whoever is elected, around the pure decisions of nexa-member.
//! - `orders`: what a node does at a leader's word.
//! - [`peers`]: the one trait between links and everything above them.
//! - [`link`]: links over sockets, with certificates on both sides.
//! - [`stats`]: what monitors are told.
//! - `live`: text of agents on other nodes while it is written.
//! - [`certs`]: an authority for those who have none, and what a certificate says.
//! - [`leases`]: slices of what model providers take from all nodes together.
//! - [`formats`]: in which format of stored bytes its nodes write, while they are of two releases.
//! - [`local`]: an in-process network that can lose, delay and cut, for tests and for nodes of one process.
//!
//! Nothing here makes anything safe: that is the store's fence. What goes between nodes makes things fast, and what gets
//! lost is found again by those who look.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

pub mod certs;
mod cluster;
pub mod formats;
mod heartbeat;
pub mod host;
mod inner;
mod leader;
pub mod leases;
pub mod link;
mod live;
pub mod local;
mod orders;
pub mod peers;
mod relay;
pub mod stats;

pub use cluster::{Cluster, ClusterConfig, ClusterError, ClusterPorts, Heart, NodeView, StartError};
pub use relay::{HINTS_MAX, Relay};
pub use stats::ClusterStats;

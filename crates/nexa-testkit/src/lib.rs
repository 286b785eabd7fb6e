//! Fixtures for tests: what every store, leadership, membership, embedder and store of pages must hold, a simulated model endpoint, and servers of
//! PostgreSQL, etcd and S3.

pub mod audit_contract;
pub mod embedder_contract;
#[cfg(feature = "endpoint")]
pub mod endpoint;
pub mod etcd;
pub mod leadership_contract;
pub mod membership_contract;
pub mod minio;
pub mod pages_contract;
pub mod postgres;
mod server;
pub mod store_contract;
pub mod store_model;
pub mod view_contract;

//! Fixtures for tests: what every store and every membership must hold, a simulated model endpoint, and a real etcd.

#[cfg(feature = "endpoint")]
pub mod endpoint;
pub mod etcd;
pub mod membership_contract;
pub mod store_contract;

//! Fixtures for tests: what every store and every membership must hold, and a simulated model endpoint.

#[cfg(feature = "endpoint")]
pub mod endpoint;
pub mod membership_contract;
pub mod store_contract;

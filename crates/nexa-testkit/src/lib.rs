//! Fixtures for tests: what every store must hold, and a simulated model endpoint.

#[cfg(feature = "endpoint")]
pub mod endpoint;
pub mod store_contract;

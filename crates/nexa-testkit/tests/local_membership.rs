//! The contract of memberships, on the one within a process.

use std::sync::Arc;

use nexa_ports::clock::SystemClock;
use nexa_ports::membership::local::LocalCluster;
use nexa_testkit::membership_contract::{Cluster, run_all};
use nexa_types::Millis;

#[tokio::test]
async fn the_membership_within_a_process_keeps_the_contract() {
    let term = Millis(1_000);
    run_all(|| {
        let cluster = LocalCluster::with_term(Arc::new(SystemClock::default()), term);
        Cluster { member: Box::new(move || cluster.member()), term: std::time::Duration::from_millis(term.0) }
    })
    .await;
}

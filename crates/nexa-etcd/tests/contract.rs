//! The contract of memberships, on a real etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nexa_etcd::{EtcdMembership, Settings};
use nexa_testkit::etcd::Server;
use nexa_testkit::membership_contract::{Cluster, run_all};

#[tokio::test]
async fn the_membership_on_etcd_keeps_the_contract() {
    let Some(server) = Server::start() else { return };
    let clusters = AtomicU32::new(0);
    run_all(|| {
        let mut settings = Settings::new([server.endpoint()], format!("c{}", clusters.fetch_add(1, Ordering::Relaxed)));
        settings.term = Duration::from_secs(2);
        let term = settings.term;
        let member = move || Arc::new(EtcdMembership::connect(settings.clone()).expect("plain settings")) as _;
        Cluster { member: Box::new(member), term }
    })
    .await;
}

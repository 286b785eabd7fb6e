//! The contract of memberships, on a real etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nexa_etcd::{ANCHORS_MAX, EtcdMembership, Settings};
use nexa_event::root::{Anchor, Root};
use nexa_ports::audit::{AnchorError, Anchors};
use nexa_ports::membership::Membership;
use nexa_testkit::audit_contract::anchors_are_kept_in_a_row;
use nexa_testkit::etcd::Server;
use nexa_testkit::membership_contract::{Cluster, card, run_all, until};
use nexa_types::{Epoch, GlobalSeq, Timestamp};

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

#[tokio::test]
async fn anchors_on_etcd_keep_the_contract() {
    let Some(mut server) = Server::start() else { return };
    let endpoint = server.endpoint();
    // Nobody's lease is to end: the one that leads gives up by itself.
    let term = Duration::from_secs(30);
    let member = |cluster: &str, name: &'static str| {
        let settings = Settings { term, ..Settings::new([endpoint.clone()], cluster) };
        let member = Arc::new(EtcdMembership::connect(settings).expect("plain settings"));
        async move {
            member.join(card(name)).await.expect("the name is free");
            member
        }
    };
    let led = |member: &Arc<EtcdMembership>| {
        let mut members = member.members();
        async move {
            let list = until(&mut members, term, "a leader", |list| list.leader.is_some()).await;
            list.leader.as_ref().expect("it was waited for").epoch
        }
    };
    // Nobody leads: a person may write, a leader that is none may not.
    let alone = member("alone", "a").await;
    anchors_are_kept_in_a_row(alone, ANCHORS_MAX as usize, None, Some(Some(Epoch(5)))).await;

    // Of two leaders only the later one, and no person.
    let (first, second) = (member("led", "a").await, member("led", "b").await);
    first.campaign(true);
    let before = led(&first).await;
    // Before it has heard of the first one, that nobody leads may be from before.
    assert_eq!(led(&second).await, before);
    first.campaign(false);
    let mut members = second.members();
    until(&mut members, term, "no leader", |list| list.leader.is_none()).await;
    second.campaign(true);
    let now = led(&second).await;
    assert!(now > before);
    anchors_are_kept_in_a_row(first, ANCHORS_MAX as usize, Some(now), Some(Some(before))).await;
    let kept = second.kept().await.expect("both see the same");
    let next =
        Anchor::after(kept.last(), "log".into(), Root { position: GlobalSeq(1_000), ..Root::start() }, Timestamp(1));
    assert_eq!(second.keep(next, None).await, Err(AnchorError::NotLeading));
    server.kill();
    assert!(matches!(second.kept().await, Err(AnchorError::Unavailable { .. })));
}

//! What every membership must do, as tests that any adapter can be put through.
//!
//! Each function takes an empty cluster and panics with the reason if a property of `nexa_ports::membership` does not hold.
//! [`run_all`] takes a way to make clusters and runs them all, in real time: a node falls silent when its value is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexa_ports::membership::{
    CARD_BYTES_MAX, Generation, Leader, Members, Membership, MembershipError, NodeCard, SETTING_BYTES_MAX,
    SETTING_NAME_BYTES_MAX, Standing,
};
use nexa_types::{NodeId, Timestamp};
use tokio::sync::watch;

/// A membership behind its port: one node's.
pub type AnyMembership = Arc<dyn Membership>;

/// How long is waited for what has to come soon.
const SOON: Duration = Duration::from_secs(5);

/// A way to make connections to one cluster, which begins without nodes.
pub struct Cluster {
    /// Makes a connection for one more node.
    pub member: Box<dyn Fn() -> AnyMembership>,
    /// A silent node is gone after so long, give or take a little.
    pub term: Duration,
}

impl Cluster {
    async fn joined(&self, name: &str) -> (AnyMembership, Generation) {
        let member = (self.member)();
        let generation = member.join(card(name)).await.expect("the name is free");
        (member, generation)
    }
}

/// Puts an adapter through the whole contract; `make` gives another empty cluster each time.
pub async fn run_all(make: impl Fn() -> Cluster) {
    who_joins_is_seen_whole_and_is_gone_when_it_leaves(make()).await;
    each_run_of_a_name_has_a_greater_generation(make()).await;
    a_name_belongs_to_one_node_at_a_time(make()).await;
    a_silent_node_is_gone_with_its_lease_and_no_sooner_than_it_was_told(make()).await;
    a_lease_is_kept_alive_without_anybody_asking(make()).await;
    one_leads_and_the_next_has_a_greater_epoch(make()).await;
    nobody_leads_who_is_not_a_member_or_does_not_want_to(make()).await;
    a_lease_is_ended_for_the_run_that_was_meant(make()).await;
    a_run_is_known_to_whoever_asks_as_soon_as_it_has_joined(make()).await;
    lists_are_whole_and_never_go_back(make()).await;
    a_setting_is_written_over_the_one_that_was_read(make()).await;
    what_is_too_large_is_refused(make()).await;
}

fn node(name: &str) -> NodeId {
    name.parse().expect("a node's name")
}

/// What a node of a test says of itself.
pub fn card(name: &str) -> NodeCard {
    NodeCard {
        id: node(name),
        door: format!("http://{name}:7400"),
        link: format!("{name}:7401"),
        labels: BTreeMap::from([("zone".into(), "eu".into()), ("disk".into(), "fast".into())]),
        cpu_milli: 2_000,
        memory_bytes: 1 << 30,
        agents_max: 10_000,
        build: "test".into(),
        formats: (1, 2),
    }
}

/// Waits until a receiver shows what is waited for.
///
/// # Panics
/// If it does not within the time.
pub async fn until<T: Clone + std::fmt::Debug>(
    receiver: &mut watch::Receiver<T>,
    within: Duration,
    what: &str,
    is_so: impl FnMut(&T) -> bool,
) -> T {
    let waited = tokio::time::timeout(within, receiver.wait_for(is_so)).await.map(|found| found.map(|t| (*t).clone()));
    match waited {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => panic!("the membership has ended before {what}: {:?}", receiver.borrow()),
        Err(_) => panic!("after {within:?} not yet: {what}; it stands so: {:?}", receiver.borrow()),
    }
}

async fn until_nodes(member: &AnyMembership, within: Duration, names: &[&str]) -> Arc<Members> {
    let is_so = |members: &Arc<Members>| members.nodes.keys().map(ToString::to_string).eq(names.iter().copied());
    until(&mut member.members(), within, &format!("{names:?} are there"), is_so).await
}

async fn until_leader(member: &AnyMembership, within: Duration, names: &[&str]) -> Leader {
    let is_so = |members: &Arc<Members>| {
        members.leader.as_ref().is_some_and(|leader| names.contains(&leader.node.to_string().as_str()))
    };
    let members = until(&mut member.members(), within, &format!("one of {names:?} leads"), is_so).await;
    members.leader.clone().expect("waited for")
}

fn valid_until(standing: Standing) -> Option<(Generation, Timestamp)> {
    match standing {
        Standing::Member { generation, valid_until } => Some((generation, valid_until)),
        Standing::Outside | Standing::Lost => None,
    }
}

/// MB-3, MB-5.
pub async fn who_joins_is_seen_whole_and_is_gone_when_it_leaves(cluster: Cluster) {
    let watcher = (cluster.member)();
    assert_eq!(*watcher.standing().borrow(), Standing::Outside);
    watcher.leave().await.expect("leaving without having joined does nothing");
    let (a, generation) = cluster.joined("a").await;
    let members = until_nodes(&watcher, SOON, &["a"]).await;
    let seen = &members.nodes[&node("a")];
    assert_eq!((&seen.card, seen.generation), (&card("a"), generation));
    assert!(members.leader.is_none() && members.revision > 0);
    let mut standing = a.standing();
    let (own, until_then) = valid_until(*standing.borrow_and_update()).expect("it has joined");
    assert_eq!(own, generation);
    assert!(until_then > a.now(), "a lease that was just given counts for a while");

    let (b, _) = cluster.joined("b").await;
    until_nodes(&watcher, SOON, &["a", "b"]).await;
    until_nodes(&a, SOON, &["a", "b"]).await;
    let started = Instant::now();
    a.leave().await.expect("reachable");
    until_nodes(&b, SOON, &["b"]).await;
    assert!(started.elapsed() < cluster.term, "who leaves is gone at once");
    until(&mut standing, SOON, "it stands outside", |standing| valid_until(*standing).is_none()).await;
}

/// MB-1, MB-7.
pub async fn each_run_of_a_name_has_a_greater_generation(cluster: Cluster) {
    let (a, mut latest) = cluster.joined("a").await;
    for _ in 0..3 {
        a.leave().await.expect("reachable");
        let next = a.join(card("a")).await.expect("the name is free");
        assert!(next > latest, "{next} after {latest}");
        latest = next;
    }
    let again = a.join(card("a")).await.expect("whoever joins anew gives up its own earlier run");
    assert!(again > latest);
    // MB-7.
    let watcher = (cluster.member)();
    let list = until(&mut watcher.members(), SOON, "a list as late as the run", |list| list.revision >= again.0).await;
    assert_eq!(list.nodes.get(&node("a")).map(|member| member.generation), Some(again));
    assert!(list.is_over(&node("a"), latest) && !list.is_over(&node("a"), again), "{list:?}");
    assert!(!list.is_over(&node("late"), Generation(list.revision + 1)), "who is not there yet is not over");
    a.leave().await.expect("reachable");
    let (b, other) = cluster.joined("a").await;
    assert!(other > again, "also from another process");
    assert_eq!(until_nodes(&b, SOON, &["a"]).await.nodes[&node("a")].generation, other);
}

/// MB-1.
pub async fn a_name_belongs_to_one_node_at_a_time(cluster: Cluster) {
    let (a, first) = cluster.joined("a").await;
    let other = (cluster.member)();
    let refused = other.join(card("a")).await;
    assert_eq!(refused, Err(MembershipError::NameTaken { node: node("a") }));
    assert_eq!(*other.standing().borrow(), Standing::Outside);
    let seen = until_nodes(&a, SOON, &["a"]).await;
    assert_eq!(seen.nodes[&node("a")].generation, first, "who was there has not changed");

    // Somebody who waits for the name gets it as soon as it is free.
    let waiting = tokio::spawn(async move { (other.join(card("a")).await, other) });
    tokio::task::yield_now().await;
    drop(a);
    let (joined, _other) = waiting.await.expect("no panic");
    assert!(joined.expect("the lease of a silent node ends") > first);
}

/// MB-2, MB-3, MB-4.
pub async fn a_silent_node_is_gone_with_its_lease_and_no_sooner_than_it_was_told(cluster: Cluster) {
    let (a, first) = cluster.joined("a").await;
    a.campaign(true);
    let (b, _) = cluster.joined("b").await;
    let led = until_leader(&b, SOON, &["a"]).await;
    assert_eq!(led.generation, first);
    b.campaign(true);
    let standing = a.standing();
    let started = Instant::now();
    drop(a);
    let members = until_nodes(&b, cluster.term + SOON, &["b"]).await;
    let noticed = b.now();
    assert!(
        members.leader.as_ref().is_none_or(|leader| leader.node == node("b")),
        "who is gone does not lead: {members:?}"
    );
    let (_, told) = valid_until(*standing.borrow()).expect("it was a member when it fell silent");
    assert!(noticed >= told, "gone at {noticed:?}, but told that it counts until {told:?}");
    assert!(started.elapsed() > cluster.term / 2, "gone after {:?} of silence", started.elapsed());
    let leads = until_leader(&b, SOON, &["b"]).await;
    assert!(leads.epoch > led.epoch);
}

/// MB-4: what a node is told grows while it lives.
pub async fn a_lease_is_kept_alive_without_anybody_asking(cluster: Cluster) {
    let (a, first) = cluster.joined("a").await;
    let (b, _) = cluster.joined("b").await;
    let mut standing = a.standing();
    let (_, mut latest) = valid_until(*standing.borrow()).expect("it has joined");
    let started = Instant::now();
    while started.elapsed() < cluster.term * 2 {
        let renewed = until(&mut standing, SOON, "the lease is renewed", |standing| {
            valid_until(*standing).is_none_or(|(_, until_then)| until_then > latest)
        });
        let (generation, until_then) = valid_until(renewed.await).expect("nothing ends it");
        assert_eq!(generation, first);
        latest = until_then;
    }
    assert!(latest > a.now());
    assert_eq!(until_nodes(&b, SOON, &["a", "b"]).await.nodes[&node("a")].generation, first);
}

/// MB-2.
pub async fn one_leads_and_the_next_has_a_greater_epoch(cluster: Cluster) {
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        let (member, _) = cluster.joined(name).await;
        member.campaign(true);
        nodes.push((name, member));
    }
    let mut latest = until_leader(&nodes[0].1, SOON, &["a", "b", "c"]).await;
    for (_, member) in &nodes {
        let same = until_leader(member, SOON, &["a", "b", "c"]).await;
        assert_eq!(same, latest, "all see the same one");
    }
    // Each resigns in its turn; the one that is left leads, and then nobody.
    for left in (0..3).rev() {
        let at = nodes.iter().position(|(name, _)| latest.node == node(name)).expect("one of those who want to");
        let (_, resigned) = nodes.remove(at);
        resigned.campaign(false);
        let names: Vec<&str> = nodes.iter().map(|(name, _)| *name).collect();
        if left == 0 {
            until(&mut resigned.members(), SOON, "nobody leads", |members| members.leader.is_none()).await;
            assert_eq!(resigned.members().borrow().nodes.len(), 1, "who resigned is still a member");
            break;
        }
        let next = until_leader(&nodes[0].1, SOON, &names).await;
        assert!(next.epoch > latest.epoch, "{next:?} after {latest:?}");
        latest = next;
        resigned.leave().await.expect("reachable");
    }
}

/// MB-3.
pub async fn nobody_leads_who_is_not_a_member_or_does_not_want_to(cluster: Cluster) {
    let outside = (cluster.member)();
    outside.campaign(true);
    let (b, _) = cluster.joined("b").await;
    let members = until_nodes(&outside, SOON, &["b"]).await;
    assert_eq!(members.leader, None);
    let generation = outside.join(card("a")).await.expect("the name is free");
    let led = until_leader(&b, SOON, &["a"]).await;
    assert_eq!(led.generation, generation, "the wish stands since before it joined");
    outside.leave().await.expect("reachable");
    let members = until_nodes(&b, SOON, &["b"]).await;
    assert_eq!(members.leader, None, "who left does not lead, and the other does not want to");
    b.campaign(true);
    let next = until_leader(&b, SOON, &["b"]).await;
    assert!(next.epoch > led.epoch);
}

/// MB-1, MB-3.
pub async fn a_lease_is_ended_for_the_run_that_was_meant(cluster: Cluster) {
    let (a, first) = cluster.joined("a").await;
    let (b, _) = cluster.joined("b").await;
    until_nodes(&b, SOON, &["a", "b"]).await;
    assert_eq!(b.end_lease(node("nobody"), first).await, Ok(false));
    let mut standing = a.standing();
    let started = Instant::now();
    assert_eq!(b.end_lease(node("a"), first).await, Ok(true));
    until_nodes(&b, SOON, &["b"]).await;
    assert!(started.elapsed() < cluster.term, "it is gone at once");
    until(&mut standing, cluster.term + SOON, "it learns of it", |standing| *standing == Standing::Lost).await;
    let second = a.join(card("a")).await.expect("it may come back as another run");
    assert!(second > first);
    assert_eq!(b.end_lease(node("a"), first).await, Ok(false), "the new run was not meant");
    let members = until_nodes(&b, SOON, &["a", "b"]).await;
    assert_eq!(members.nodes[&node("a")].generation, second);
    assert!(valid_until(*a.standing().borrow()).is_some());
}

/// MB-6.
pub async fn a_run_is_known_to_whoever_asks_as_soon_as_it_has_joined(cluster: Cluster) {
    let (asker, _) = cluster.joined("asker").await;
    assert_eq!(asker.run_of(node("a")).await, Ok(None));
    let mut before = None;
    for _ in 0..5 {
        let (a, generation) = cluster.joined("a").await;
        // Whatever the list says by now.
        assert_eq!(asker.run_of(node("a")).await, Ok(Some(generation)));
        assert!(before < Some(generation));
        before = Some(generation);
        a.leave().await.expect("reachable");
        assert_eq!(asker.run_of(node("a")).await, Ok(None));
    }
}

/// MB-2, MB-5.
pub async fn lists_are_whole_and_never_go_back(cluster: Cluster) {
    let (watcher, own) = cluster.joined("watcher").await;
    let mut seen = watcher.members();
    let churn = async {
        for _ in 0..4 {
            let (a, _) = cluster.joined("a").await;
            a.campaign(true);
            until_leader(&a, SOON, &["a"]).await;
            let (b, _) = cluster.joined("b").await;
            b.campaign(true);
            a.leave().await.expect("reachable");
            until_leader(&b, SOON, &["b"]).await;
            b.leave().await.expect("reachable");
        }
        let (_end, generation) = cluster.joined("end").await;
        until_nodes(&watcher, SOON, &["end", "watcher"]).await;
        generation
    };
    let watch = async {
        let (mut revision, mut generations, mut epoch) = (0, BTreeMap::new(), 0);
        loop {
            let members = seen.borrow_and_update().clone();
            assert!(members.revision >= revision, "a list went back: {members:?} after {revision}");
            revision = members.revision;
            for (name, member) in &members.nodes {
                let latest = generations.entry(name.clone()).or_insert(member.generation);
                assert!(member.generation >= *latest, "{name} went back to {}", member.generation);
                *latest = member.generation;
                assert_eq!(*name, member.card.id);
            }
            if let Some(leader) = &members.leader {
                assert!(leader.epoch.0 >= epoch, "{leader:?} after {epoch}");
                epoch = leader.epoch.0;
                let leads = members.nodes.get(&leader.node);
                assert_eq!(leads.map(|member| member.generation), Some(leader.generation), "{members:?}");
            }
            if members.nodes.contains_key(&node("end")) {
                return generations;
            }
            seen.changed().await.expect("the watcher is there");
        }
    };
    let (end, generations) =
        futures::join!(churn, async { tokio::time::timeout(SOON * 4, watch).await.expect("the last list comes") });
    assert_eq!(generations[&node("end")], end);
    assert_eq!(generations[&node("watcher")], own);
}

/// Settings change by comparing; nobody overwrites what it has not read.
pub async fn a_setting_is_written_over_the_one_that_was_read(cluster: Cluster) {
    let (a, b) = ((cluster.member)(), (cluster.member)());
    let name = || String::from("slices/lane");
    assert_eq!(a.setting(name()).await, Ok(None));
    assert_eq!(a.put_setting(name(), 7, b"x".to_vec()).await, Ok(None), "there is none with this revision");
    let first = a.put_setting(name(), 0, b"one".to_vec()).await.expect("reachable").expect("there was none");
    assert_eq!(b.put_setting(name(), 0, b"two".to_vec()).await, Ok(None), "there is one by now");
    assert_eq!(b.setting(name()).await, Ok(Some((first, b"one".to_vec()))));
    assert_eq!(b.setting("slices".into()).await, Ok(None), "a name is no prefix");
    let second = b.put_setting(name(), first, Vec::new()).await.expect("reachable").expect("it was read");
    assert!(second > first);
    assert_eq!(a.setting(name()).await, Ok(Some((second, Vec::new()))), "an empty one is one");

    // Four count to forty together, each by reading and comparing.
    let count = |member: AnyMembership| async move {
        for _ in 0..10 {
            loop {
                let (revision, value) = member.setting("count".into()).await.expect("reachable").unwrap_or_default();
                let next = value.first().map_or(1, |count| count + 1);
                if member.put_setting("count".into(), revision, vec![next]).await.expect("reachable").is_some() {
                    break;
                }
            }
        }
    };
    futures::join!(count(a.clone()), count(b.clone()), count(a.clone()), count(b));
    let (_, total) = a.setting("count".into()).await.expect("reachable").expect("it was written");
    assert_eq!(total, [40]);
}

/// Everything that is kept has a bound, which says so.
pub async fn what_is_too_large_is_refused(cluster: Cluster) {
    let member = (cluster.member)();
    let mut large = card("a");
    large.labels.insert("x".into(), "y".repeat(CARD_BYTES_MAX));
    let refused = member.join(large).await;
    assert!(matches!(refused, Err(MembershipError::TooLarge { max: CARD_BYTES_MAX, .. })), "{refused:?}");
    let refused = member.put_setting("x".into(), 0, vec![0; SETTING_BYTES_MAX + 1]).await;
    assert!(matches!(refused, Err(MembershipError::TooLarge { max: SETTING_BYTES_MAX, .. })), "{refused:?}");
    let refused = member.setting("x".repeat(SETTING_NAME_BYTES_MAX + 1)).await;
    assert!(matches!(refused, Err(MembershipError::TooLarge { max: SETTING_NAME_BYTES_MAX, .. })), "{refused:?}");
    let written = member.put_setting("x".repeat(SETTING_NAME_BYTES_MAX), 0, vec![0; SETTING_BYTES_MAX]).await;
    assert!(matches!(written, Ok(Some(_))), "what just fits is kept: {written:?}");
}

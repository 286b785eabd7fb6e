use std::time::Duration;

use super::*;
use crate::clock::SimClock;

const START: Timestamp = Timestamp(1_000_000);

/// A cluster under a clock that the test moves.
struct Desk {
    clock: Arc<SimClock>,
    cluster: LocalCluster,
}

fn desk() -> Desk {
    let clock = Arc::new(SimClock::new(START));
    Desk { cluster: LocalCluster::new(clock.clone()), clock }
}

fn node(name: &str) -> NodeId {
    name.parse().expect("a node's name")
}

fn card(name: &str) -> NodeCard {
    NodeCard {
        id: node(name),
        door: format!("{name}:7400"),
        link: format!("{name}:7401"),
        labels: BTreeMap::new(),
        cpu_milli: 2_000,
        memory_bytes: 1 << 30,
        agents_max: 1_000,
        build: "test".into(),
        formats: (1, 1),
    }
}

impl Desk {
    async fn joined(&self, name: &str) -> Arc<dyn Membership> {
        let member = self.cluster.member();
        member.join(card(name)).await.expect("the name is free");
        member
    }
}

fn names(member: &Arc<dyn Membership>) -> Vec<String> {
    member.members().borrow().nodes.keys().map(ToString::to_string).collect()
}

fn leader(member: &Arc<dyn Membership>) -> Option<(String, Epoch)> {
    member.members().borrow().leader.as_ref().map(|leader| (leader.node.to_string(), leader.epoch))
}

fn valid_until(member: &Arc<dyn Membership>) -> Timestamp {
    match *member.standing().borrow() {
        Standing::Member { valid_until, .. } => valid_until,
        other => panic!("not a member: {other:?}"),
    }
}

#[tokio::test]
async fn a_clock_that_jumps_ends_no_lease_that_nothing_keeps_from_being_renewed() {
    let desk = desk();
    let (a, b) = (desk.joined("a").await, desk.joined("b").await);
    desk.clock.advance(Millis(60_000));
    let now = a.now();
    assert!(valid_until(&a) > now);
    assert!(valid_until(&b) > now);
    assert_eq!(names(&a), ["a", "b"]);
}

#[tokio::test]
async fn who_is_cut_off_is_gone_after_its_term_and_learns_of_it_when_healed() {
    let desk = desk();
    let (a, b) = (desk.joined("a").await, desk.joined("b").await);
    a.campaign(true);
    b.campaign(true);
    let (_, first) = leader(&b).expect("a leads");
    assert!(desk.cluster.cut_off(&node("a")));
    let promised = valid_until(&a);
    let mut seen = b.members();
    seen.mark_unchanged();

    desk.clock.advance(Millis(TERM.0 - 1));
    assert_eq!(leader(&b).expect("a leads as long as its lease lives").0, "a");
    desk.clock.advance(Millis(1));
    // Nobody asks: the keeper notices by itself.
    seen.wait_for(|members| members.nodes.len() == 1).await.expect("the cluster is there");
    assert!(promised < b.now());
    let (who, second) = leader(&b).expect("b leads");
    assert!(who == "b" && second > first);
    assert_eq!(names(&a), ["a", "b"], "who is cut off sees what it last saw");
    assert_eq!(valid_until(&a), promised);
    assert!(matches!(a.setting("x".into()).await, Err(MembershipError::Unavailable { .. })));

    desk.cluster.heal(&node("a"));
    assert_eq!(*a.standing().borrow(), Standing::Lost);
    assert_eq!(names(&a), ["b"]);
    let again = a.join(card("a")).await.expect("the name is free");
    assert_eq!(a.members().borrow().nodes[&node("a")].generation, again);
}

#[tokio::test]
async fn who_is_healed_within_its_term_stays_who_it_was() {
    let desk = desk();
    let a = desk.joined("a").await;
    let before = a.standing();
    let Standing::Member { generation, .. } = *before.borrow() else { panic!("a has joined") };
    desk.cluster.cut_off(&node("a"));
    desk.clock.advance(Millis(TERM.0 - 1));
    assert!(valid_until(&a) < a.now());
    desk.cluster.heal(&node("a"));
    assert!(valid_until(&a) > a.now());
    assert_eq!(a.members().borrow().nodes[&node("a")].generation, generation);
}

#[tokio::test]
async fn an_expired_lease_is_over_for_everybody_at_once() {
    let desk = desk();
    let (a, b) = (desk.joined("a").await, desk.joined("b").await);
    assert!(desk.cluster.expire(&node("a")));
    assert!(!desk.cluster.expire(&node("a")));
    assert_eq!(*a.standing().borrow(), Standing::Lost);
    assert_eq!(names(&b), ["b"]);
}

#[tokio::test]
async fn a_deposed_leader_is_followed_by_the_next_who_wants_to_lead() {
    let desk = desk();
    let (a, b) = (desk.joined("a").await, desk.joined("b").await);
    a.campaign(true);
    b.campaign(true);
    let (_, first) = leader(&a).expect("a leads");
    assert_eq!(desk.cluster.depose().map(|leader| leader.epoch), Some(first));
    let (who, second) = leader(&a).expect("b leads");
    assert!(who == "b" && second > first);
    b.campaign(false);
    assert_eq!(leader(&b).expect("a leads again").0, "a");
}

#[tokio::test]
async fn while_the_service_is_away_everything_stays_as_it_was() {
    let desk = desk();
    let (a, b) = (desk.joined("a").await, desk.joined("b").await);
    desk.cluster.set_away(true);
    let promised = valid_until(&a);
    desk.clock.advance(Millis(20_000));
    assert!(a.now() > promised);
    assert_eq!(valid_until(&a), promised);
    assert_eq!(names(&b), ["a", "b"]);
    assert!(matches!(b.setting("x".into()).await, Err(MembershipError::Unavailable { .. })));
    desk.cluster.set_away(false);
    assert!(valid_until(&a) > a.now());
    assert_eq!(names(&b), ["a", "b"]);
}

#[tokio::test]
async fn a_node_whose_value_was_dropped_ends_with_its_lease_and_its_name_is_waited_for() {
    let desk = desk();
    let (a, b) = (desk.joined("a").await, desk.joined("b").await);
    let first = a.members().borrow().nodes[&node("a")].generation;
    drop(a);
    assert_eq!(names(&b), ["a", "b"], "its lease still stands");
    let again = desk.cluster.member();
    let joining = tokio::spawn({
        let again = again.clone();
        async move { again.join(card("a")).await }
    });
    let tries = async {
        while !joining.is_finished() {
            desk.clock.advance(Millis(500));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), tries).await.expect("the lease ends");
    let second = joining.await.expect("no panic").expect("the name became free");
    assert!(second > first);
    assert!(desk.clock.now() >= START.after(TERM));
}

#[tokio::test]
async fn who_leaves_unheard_is_outside_and_gone_with_its_lease() {
    let desk = desk();
    let (a, b) = (desk.joined("a").await, desk.joined("b").await);
    b.campaign(true);
    desk.cluster.cut_off(&node("a"));
    assert!(matches!(a.leave().await, Err(MembershipError::Unavailable { .. })));
    assert_eq!(*a.standing().borrow(), Standing::Outside);
    assert_eq!(a.leave().await, Ok(()));
    desk.cluster.heal(&node("a"));
    a.campaign(true);
    b.campaign(false);
    assert_eq!(leader(&b), None, "a run that was left leads nobody");
    assert_eq!(names(&b), ["a", "b"]);
    desk.clock.advance(TERM);
    b.now();
    assert_eq!(names(&b), ["b"]);
    assert_eq!(*a.standing().borrow(), Standing::Outside);
}

#[tokio::test]
async fn nothing_is_kept_of_nodes_that_are_gone() {
    let desk = desk();
    let watcher = desk.cluster.member();
    for _ in 0..10 {
        desk.joined("a").await.leave().await.expect("reachable");
    }
    watcher.now();
    assert_eq!(desk.cluster.shared.lock().seats.len(), 1);
}

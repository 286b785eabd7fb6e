//! What becomes of members when etcd is away, is back, or does not answer. Each test has an etcd of its own.

mod desk;

use std::time::{Duration, Instant};

use desk::{Node, SOON, TERM, Way, connected, joined, node_id, until_so};
use etcd_client::{Client, CompactionOptions, GetOptions};
use nexa_etcd::{ANSWER_WITHIN, EtcdMembership, Settings, Tls};
use nexa_ports::membership::{Membership, MembershipError, Standing};
use nexa_testkit::etcd::{Certificates, Server};
use nexa_testkit::membership_contract::{card, until};

/// Waits until a setting has this value, and gives its revision.
async fn until_set(member: &EtcdMembership, value: &[u8]) -> u64 {
    let started = Instant::now();
    loop {
        match member.setting("x".into()).await.expect("reachable") {
            Some((revision, found)) if found == value => return revision,
            _ => assert!(started.elapsed() < SOON, "the setting is not written"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until nobody is there.
async fn until_gone(member: &EtcdMembership) {
    until(&mut member.members(), SOON, "nobody is there", |members| members.nodes.is_empty()).await;
}

/// Two members, of which the first leads.
async fn pair(server: &Server) -> (Node, Node, u64) {
    let (a, b) = (joined(&server.endpoint(), "a").await, joined(&server.endpoint(), "b").await);
    a.member.campaign(true);
    let leader = b.until_led(0).await;
    assert_eq!(leader.node, node_id("a"));
    b.member.campaign(true);
    a.until_led(0).await;
    a.until_listed(&["a", "b"]).await;
    b.until_listed(&["a", "b"]).await;
    (a, b, leader.epoch.0)
}

#[tokio::test]
async fn a_restart_of_etcd_changes_nothing() {
    let Some(mut server) = Server::start() else { return };
    let (a, b, _) = pair(&server).await;
    let mut lists = [a.member.members(), b.member.members()];
    lists.iter_mut().for_each(|list| list.mark_unchanged());

    let started = Instant::now();
    server.kill();
    let mut standings = [a.member.standing(), b.member.standing()];
    standings.iter_mut().for_each(|standing| standing.mark_unchanged());
    server.restart();
    let was_away = started.elapsed();
    for standing in &mut standings {
        standing.changed().await.expect("it is there");
    }
    eprintln!("etcd was away for {was_away:?}, both leases renewed {:?} after its end", started.elapsed());
    a.until_renewed().await;
    b.until_renewed().await;
    assert!(lists.iter().all(|list| !list.has_changed().expect("it is there")), "nobody came, went, or led anew");

    // Watches begin again: a newcomer is seen as soon as before.
    let started = Instant::now();
    let c = joined(&server.endpoint(), "c").await;
    for node in [&a, &b, &c] {
        node.until_listed(&["a", "b", "c"]).await;
    }
    eprintln!("a newcomer was seen {:?} after it began to join", started.elapsed());
}

#[tokio::test]
async fn while_etcd_is_away_for_long_everything_stays_as_it_was() {
    let Some(mut server) = Server::start() else { return };
    let (a, b, epoch) = pair(&server).await;
    let listed = a.member.listed_at().expect("it was read");
    server.kill();
    // Whole terms pass, so that every lease would be over by the clock.
    let until_then = a.valid_until().max(b.valid_until()).0 + 2_000;
    let lapsed = |node: &Node| node.member.now().0 > until_then && node.valid_until().0 <= until_then - 2_000;
    until_so(SOON, "both leases count no more", || lapsed(&a) && lapsed(&b)).await;
    let refused = a.member.setting("x".into()).await.expect_err("nobody is there to be asked");
    assert!(matches!(refused, MembershipError::Unavailable { .. }), "{refused}");
    assert_eq!(b.member.members().borrow().nodes.len(), 2);
    assert!(
        a.member.listed_at().expect("it was read").0 < listed.0 + 2_000,
        "the age of the list shows that etcd is away"
    );

    server.restart();
    a.until_renewed().await;
    b.until_renewed().await;
    let members = b.until_listed(&["a", "b"]).await;
    assert_eq!(members.leader.as_ref().map(|leader| leader.epoch.0), Some(epoch), "nobody's run has ended");
    until_so(SOON, "the list is read again", || a.member.listed_at().is_some_and(|at| at.0 > until_then)).await;
    assert_eq!(a.member.setting("x".into()).await, Ok(None));
}

#[tokio::test]
async fn an_etcd_that_stands_still_for_less_than_the_term_changes_nothing() {
    let Some(server) = Server::start() else { return };
    let (a, b, _) = pair(&server).await;
    a.until_renewed().await;
    let mut list = b.member.members();
    list.mark_unchanged();
    server.pause();
    let left = |node: &Node| node.valid_until().0.saturating_sub(node.member.now().0);
    until_so(SOON, "half of the term has passed", || left(&a) < 1_300 || left(&b) < 1_300).await;
    server.resume();
    a.until_renewed().await;
    b.until_renewed().await;
    assert!(!list.has_changed().expect("it is there"));
}

#[tokio::test]
async fn a_lease_that_nobody_renews_counts_no_more_in_time_and_is_lost_when_etcd_says_so() {
    let Some(server) = Server::start() else { return };
    let (a, b, epoch) = pair(&server).await;
    server.pause();
    let paused = Instant::now();
    until_so(SOON, "the lease counts no more", || a.member.now() > a.valid_until() && b.member.now() > b.valid_until())
        .await;
    assert!(paused.elapsed() < TERM, "a node knows before its lease can have ended: after {:?}", paused.elapsed());
    until_so(SOON, "the lease has ended", || paused.elapsed() > TERM * 2).await;
    a.valid_until();
    b.valid_until();

    server.resume();
    let started = Instant::now();
    a.until_lost().await;
    b.until_lost().await;
    eprintln!("both knew of their loss {:?} after etcd went on", started.elapsed());
    let again = a.member.join(card("a")).await.expect("the name is free");
    assert!(again > a.generation);
    // It still wants to lead.
    let members = b.until_led(epoch).await;
    assert_eq!((members.node, members.generation), (node_id("a"), again));
}

#[tokio::test]
async fn the_next_leader_follows_a_silent_one_and_sooner_one_whose_lease_was_ended() {
    let Some(server) = Server::start() else { return };
    let (a, b, mut epoch) = pair(&server).await;
    let c = joined(&server.endpoint(), "c").await;
    c.member.campaign(true);

    let started = Instant::now();
    drop(a);
    let next = c.until_led(epoch).await;
    let silent = started.elapsed();
    eprintln!("a silent leader was followed after {silent:?}");
    assert!(silent < TERM + Duration::from_secs(3), "{silent:?}");
    assert_eq!(c.member.members().borrow().nodes.len(), 2);
    epoch = next.epoch.0;

    let (led, observer) = if next.node == node_id("b") { (b, c) } else { (c, b) };
    let generation = led.generation;
    // Its process is gone: nothing renews the lease any more, and somebody has noticed.
    drop(led);
    let started = Instant::now();
    assert_eq!(observer.member.end_lease(next.node, generation).await, Ok(true));
    let last = observer.until_led(epoch).await;
    eprintln!("a leader whose lease was ended was followed after {:?}", started.elapsed());
    assert_eq!((last.node, last.generation), (node_id(observer.name), observer.generation));
    assert!(started.elapsed() < TERM / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn compaction_takes_no_change_from_anybody() {
    let Some(mut server) = Server::start() else { return };
    let a = joined(&server.endpoint(), "a").await;
    for round in 0..3 {
        for name in ["b", "c"] {
            joined(&server.endpoint(), name).await.member.leave().await.expect("reachable");
        }
        let mut client = Client::connect([server.endpoint()], None).await.expect("reachable");
        let found = client.get("/", Some(GetOptions::new().with_prefix())).await.expect("reachable");
        let revision = found.header().expect("each answer has one").revision();
        client.compact(revision, Some(CompactionOptions::new().with_physical())).await.expect("reachable");
        if round == 1 {
            // Watches begin anew where there is nothing left of what was before.
            server.restart();
        }
        let d = joined(&server.endpoint(), "d").await;
        a.until_listed(&["a", "d"]).await;
        d.member.leave().await.expect("reachable");
        a.until_listed(&["a"]).await;
    }
    a.valid_until();
}

#[tokio::test]
async fn an_etcd_that_was_set_back_is_not_believed() {
    let Some(mut server) = Server::start() else { return };
    let (a, b) = (joined(&server.endpoint(), "a").await, joined(&server.endpoint(), "b").await);
    for _ in 0..5 {
        joined(&server.endpoint(), "c").await.member.leave().await.expect("reachable");
    }
    let newcomer = joined(&server.endpoint(), "d").await;
    a.until_listed(&["a", "b", "d"]).await;
    b.until_listed(&["a", "b", "d"]).await;
    drop(newcomer);
    let mut list = a.member.members();
    list.mark_unchanged();
    server.restart_empty();
    // It answers, but with revisions that were given before.
    let refused = a.member.join(card("a")).await.expect_err("its generation would be an earlier one");
    assert!(refused.to_string().contains("was set back"), "{refused}");
    assert!(!list.has_changed().expect("it is there"), "lists do not go back");
    until_so(SOON, "the lease counts no more", || b.member.now() > b.valid_until()).await;
}

#[tokio::test]
async fn an_endpoint_that_is_dead_or_silent_is_passed_over() {
    let Some(server) = Server::start() else { return };
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoints = [&dead, &silent].map(|listener| listener.local_addr().expect("bound").to_string());
    drop(dead);
    let settings = Settings::new(endpoints.into_iter().chain([server.endpoint()]), "test");
    let a = EtcdMembership::connect(settings).expect("plain settings");
    let started = Instant::now();
    let generation = a.join(card("a")).await.expect("the third answers");
    assert!(started.elapsed() < ANSWER_WITHIN * 4, "{:?}", started.elapsed());
    let node = Node { member: a, name: "a", generation };
    node.until_renewed().await;
    node.until_renewed().await;
}

#[tokio::test]
async fn what_was_done_without_an_answer_is_found_to_be_done() {
    let Some(server) = Server::start() else { return };
    let way = Way::to(server.endpoint()).await;
    let (a, other) = (connected(&way.endpoint), connected(&server.endpoint()));
    assert_eq!(a.setting("x".into()).await, Ok(None));

    // The write arrives, its answer does not.
    way.set_mute(true);
    let (written, seen) = futures::join!(a.put_setting("x".into(), 0, b"one".to_vec()), async {
        let revision = until_set(&other, b"one").await;
        way.set_mute(false);
        revision
    });
    assert_eq!(written, Ok(Some(seen)), "written once, and known");

    // As before, but somebody has written over it since: then nobody can know.
    way.set_mute(true);
    let (written, ()) = futures::join!(a.put_setting("x".into(), seen, b"two".to_vec()), async {
        let first = until_set(&other, b"two").await;
        assert!(other.put_setting("x".into(), first, b"three".to_vec()).await.expect("reachable").is_some());
        way.set_mute(false);
    });
    assert!(matches!(written, Err(MembershipError::Unavailable { .. })), "{written:?}");

    // A node whose registration was not answered is registered once, as what it then believes to be.
    way.set_mute(true);
    let started = Instant::now();
    let (joined, ()) = futures::join!(a.join(card("a")), async {
        until_so(SOON, "a call went unanswered", || started.elapsed() > ANSWER_WITHIN).await;
        way.set_mute(false);
    });
    let generation = joined.expect("it is answered in time");
    let node = Node { member: a, name: "a", generation };
    let members = node.until_listed(&["a"]).await;
    assert_eq!(members.nodes[&node_id("a")].generation, generation);
    node.until_renewed().await;

    // Who leaves without an answer is outside all the same.
    way.set_mute(true);
    let left = node.member.leave().await;
    assert!(matches!(left, Err(MembershipError::Unavailable { .. })), "{left:?}");
    assert_eq!(*node.member.standing().borrow(), Standing::Outside);
    until_gone(&other).await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_alone_loses_its_lease_and_the_others_see_it_go() {
    let Some(server) = Server::start() else { return };
    let way = Way::to(server.endpoint()).await;
    let (a, b) = (joined(&way.endpoint, "a").await, joined(&server.endpoint(), "b").await);
    a.member.campaign(true);
    let led = b.until_led(0).await;
    b.member.campaign(true);
    a.until_renewed().await;
    // What it asks arrives no more either: without answers it cannot know, so it must not rely on it.
    way.set_mute(true);
    let started = Instant::now();
    until_so(SOON, "it knows that its lease may have ended", || a.member.now() > a.valid_until()).await;
    eprintln!("without answers a lease counted for {:?}", started.elapsed());
    assert!(started.elapsed() < TERM, "{:?}", started.elapsed());
    // Its questions still renew the lease, which harms nobody; now it is really gone.
    let told = a.valid_until();
    drop(a);
    b.until_listed(&["b"]).await;
    assert!(b.member.now() >= told);
    assert_eq!(b.until_led(led.epoch.0).await.node, node_id("b"));
}

#[tokio::test]
async fn of_three_etcds_any_may_be_lost_and_all_be_restarted() {
    let Some(mut servers) = Server::start_three() else { return };
    let endpoints = [0, 1, 2].map(|at: usize| servers[at].endpoint());
    let mut nodes = Vec::new();
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        // Each begins at another one.
        let mut own = endpoints.clone();
        own.rotate_left(at);
        let member = EtcdMembership::connect(Settings::new(own, "test")).expect("plain settings");
        let generation = member.join(card(name)).await.expect("the name is free");
        member.campaign(true);
        nodes.push(Node { member, name, generation });
    }
    for node in &nodes {
        node.until_listed(&["a", "b", "c"]).await;
    }
    let epoch = nodes[0].until_led(0).await.epoch;

    // One after the other, so each of them, also the one that led.
    for (at, server) in servers.iter_mut().enumerate() {
        let started = Instant::now();
        server.kill();
        for node in &nodes {
            node.until_renewed().await;
        }
        eprintln!("without etcd {at} all were renewed after {:?}", started.elapsed());
        server.restart();
    }
    // A majority at once.
    servers[0].kill();
    servers[1].kill();
    let refused = nodes[2].member.put_setting("x".into(), 0, b"y".to_vec()).await;
    assert!(matches!(refused, Err(MembershipError::Unavailable { .. })), "{refused:?}");
    let started = Instant::now();
    servers[0].restart();
    for node in &nodes {
        node.until_renewed().await;
    }
    eprintln!("with a majority again all were renewed after {:?}", started.elapsed());
    for node in &nodes {
        let members = node.until_listed(&["a", "b", "c"]).await;
        assert_eq!(members.leader.as_ref().map(|leader| leader.epoch), Some(epoch), "nobody's run has ended");
    }
    assert!(nodes[2].member.put_setting("z".into(), 0, b"y".to_vec()).await.expect("reachable").is_some());
}

#[tokio::test]
async fn etcd_may_ask_for_a_certificate() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("signed").pem();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        (params.signed_by(&key, &issuer).expect("signed").pem(), key.serialize_pem())
    };
    let (certificate, key) = issue("127.0.0.1");
    let Some(server) = Server::start_secured(&Certificates { ca: ca.clone(), certificate, key }) else { return };

    let with = |identity: Option<(String, String)>| {
        let mut settings = Settings::new([server.endpoint()], "test");
        let identity = identity.map(|(certificate, key)| (certificate.into_bytes(), key.into_bytes()));
        settings.tls = Some(Tls { ca: ca.clone().into_bytes(), identity, domain: None });
        EtcdMembership::connect(settings).expect("plain settings")
    };
    let refused = with(None).join(card("a")).await;
    assert!(matches!(refused, Err(MembershipError::Unavailable { .. })), "{refused:?}");
    let member = with(Some(issue("a")));
    let generation = member.join(card("a")).await.expect("it is known");
    let node = Node { member, name: "a", generation };
    node.until_listed(&["a"]).await;
    node.until_renewed().await;
}

#[tokio::test]
async fn etcd_may_ask_for_a_password() {
    let Some(server) = Server::start() else { return };
    let mut client = Client::connect([server.endpoint()], None).await.expect("reachable");
    client.user_add("root", "secret", None).await.expect("a user");
    client.role_add("root").await.expect("a role");
    client.user_grant_role("root", "root").await.expect("granted");
    client.auth_enable().await.expect("enabled");

    let nobody = connected(&server.endpoint());
    let refused = nobody.join(card("a")).await.expect_err("nobody may do anything");
    assert!(refused.to_string().contains("user name is empty"), "{refused}");
    let with = |password: &str| {
        let mut settings = Settings::new([server.endpoint()], "test");
        settings.user = Some(("root".into(), password.into()));
        EtcdMembership::connect(settings).expect("plain settings")
    };
    let refused = with("guess").join(card("a")).await.expect_err("a wrong password");
    assert!(refused.to_string().contains("authentication failed"), "{refused}");
    let member = with("secret");
    let generation = member.join(card("a")).await.expect("the right one");
    let node = Node { member, name: "a", generation };
    node.until_listed(&["a"]).await;
    node.until_renewed().await;
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_refused_at_once() {
    let refused = |settings: Settings| EtcdMembership::connect(settings).err().expect("refused").to_string();
    assert!(refused(Settings::new(Vec::<String>::new(), "test")).contains("no endpoint"));
    for name in ["", "a/b", "ä", &"x".repeat(65)] {
        assert!(refused(Settings::new(["127.0.0.1:1"], name)).contains("no name of a cluster"), "{name}");
    }
    assert!(refused(Settings::new(["not a host"], "test")).contains("`not a host` cannot be an endpoint"));
    // Nobody is there: that shows when something is asked, and not before.
    let member = connected("127.0.0.1:1");
    let refused = member.join(card("a")).await.expect_err("nobody is there");
    assert!(
        matches!(refused, MembershipError::Unavailable { .. }) && refused.to_string().contains("127.0.0.1:1"),
        "{refused}"
    );
}

//! Links over real sockets: order, cut connections, slow receivers, silent peers, restarts, deadlines, certificates.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod certificates;
mod desk;

use std::time::{Duration, Instant};

use bytes::Bytes;
use desk::{Desk, Proxy, number, numbered, until};
use nexa_cluster::peers::{AskError, Class, NotSent, Peers, Service, Why};
use nexa_types::Generation;

const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_arrives_in_order_in_every_class() {
    let desk = Desk::new();
    let (a, b) = (desk.node("a", 1), desk.node("b", 1));
    desk.meet(&[&a, &b]).await;
    const COUNT: u64 = 5_000;
    for at in 0..COUNT {
        for class in Class::ALL {
            // Full is an answer too: whoever gets it comes again.
            until(|| a.peers.tell(&b.id, class, Service::Hints, numbered(class, at)).is_ok()).await;
        }
    }
    b.ear.wait_for(4 * COUNT as usize).await;
    for class in Class::ALL {
        let heard: Vec<u64> = b.ear.of(class);
        assert!(heard.iter().copied().eq(0..COUNT), "{class:?}: {:?}", &heard[..8]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_on_a_cut_connection_is_sent_again_and_heard_once() {
    let desk = Desk::new();
    let (a, b) = (desk.node("a", 1), desk.node("b", 1));
    let proxy = Proxy::before(b.address()).await;
    desk.meet_through(&[&a, &b], &b.id, &proxy).await;
    const COUNT: u64 = 4_000;
    let mut cuts = 0;
    for at in 0..COUNT {
        if at % 500 == 499 {
            // What was told last is on its way, or waits.
            b.ear.wait_for(at as usize - 400).await;
            proxy.cut();
            cuts += 1;
        }
        // While a dial fails there is no link to hand anything to.
        until(|| a.peers.tell(&b.id, Class::Work, Service::Hints, numbered(Class::Work, at)).is_ok()).await;
    }
    b.ear.wait_for(COUNT as usize).await;
    assert!(b.ear.of(Class::Work).into_iter().eq(0..COUNT));
    assert!(cuts == 8 && proxy.connections() >= 8, "{} connections", proxy.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handler_stops_its_sender_and_not_what_keeps_the_cluster_together() {
    let desk = Desk::new();
    let (a, b) = (desk.node("a", 1), desk.node("b", 1));
    desk.meet(&[&a, &b]).await;
    let gate = b.ear.close_gate(Class::Work);
    let body = Bytes::from(vec![2; 64 << 10]);
    let mut sent = 0_usize;
    let full = Instant::now();
    while full.elapsed() < WITHIN {
        match a.peers.tell(&b.id, Class::Work, Service::Hints, body.clone()) {
            Ok(()) => sent += 1,
            Err(refused) => {
                assert_eq!(refused, NotSent::Full);
                break;
            }
        }
    }
    // The ring holds 16 MiB, and the receiver has no more than its window of 4 MiB beside it.
    assert!((200..=330).contains(&sent), "{sent} messages of 64 KiB were taken");
    for _ in 0..20 {
        // The gate is closed until all of these have come.
        let answer = a.peers.ask(&b.id, Class::Control, Service::Heartbeat, "echo".into(), WITHIN).await;
        assert_eq!(answer, Ok("echo".into()));
    }
    drop(gate);
    b.ear.wait_for(sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_swallows_everything_is_noticed_within_four_seconds() {
    let desk = Desk::new();
    let (a, b) = (desk.node("a", 1), desk.node("b", 1));
    let proxy = Proxy::before(b.address()).await;
    desk.meet_through(&[&a, &b], &b.id, &proxy).await;
    proxy.swallow();
    let start = Instant::now();
    let asked = a.peers.ask(&b.id, Class::Control, Service::Queries, "echo".into(), Duration::from_secs(30));
    assert_eq!(asked.await, Err(AskError::NoAnswer));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    a.wait_link(&b.id, |state| !state.is_up && !state.is_refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_meant_for_a_run_that_is_over_comes_back_and_the_next_run_hears_none_of_it() {
    let desk = Desk::new();
    let (a, b) = (desk.node("a", 1), desk.node("b", 1));
    desk.meet(&[&a, &b]).await;
    let gate = b.ear.close_gate(Class::Work);
    for at in 0..10 {
        a.peers.tell(&b.id, Class::Work, Service::Hints, numbered(Class::Work, at)).unwrap();
    }
    let address = b.address();
    b.ear.wait_entered().await;
    let id = b.id.clone();
    drop(gate);
    b.stop().await;
    a.wait_link(&id, |state| !state.is_up).await;
    let b = desk.node_at("b", 2, address);
    // Before membership says so, the new run is seen, and told nothing.
    desk.tell_members(&b, &[&a, &b]);
    a.wait_link(&id, |state| state.generation == Some(Generation(2)) && !state.is_up).await;
    let early = a.peers.tell(&id, Class::Control, Service::Hints, numbered(Class::Control, 0));
    assert_eq!(early, Err(NotSent::Gone));
    desk.tell_members(&a, &[&a, &b]);
    a.wait_link(&id, |state| state.is_up).await;
    until(|| a.peers.tell(&id, Class::Work, Service::Hints, numbered(Class::Work, 77)).is_ok()).await;
    b.ear.wait_for(1).await;
    assert_eq!(b.ear.of(Class::Work), [77]);
    // What the old run had acknowledged before it ended does not come back; everything else does, in order.
    let back: Vec<u64> = a.undelivered().iter().map(|back| number(&back.body)).collect();
    assert!(back.iter().copied().eq(10 - back.len() as u64..10), "{back:?}");
    assert!(a.undelivered().iter().all(|back| back.generation == Generation(1) && back.service == Service::Hints));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_over_is_refused_for_ever() {
    let desk = Desk::new();
    let b = desk.node("b", 1);
    let new = desk.node("a", 8);
    desk.meet(&[&new, &b]).await;
    new.peers.tell(&b.id, Class::Control, Service::Hints, numbered(Class::Control, 1)).unwrap();
    b.ear.wait_for(1).await;
    let old = desk.node("a", 7);
    desk.tell_members(&old, &[&old, &b]);
    let refused = old.peers.ask(&b.id, Class::Control, Service::Queries, "echo".into(), WITHIN).await;
    assert_eq!(refused, Err(AskError::NoAnswer));
    assert_eq!(old.state(&b.id).generation, None, "it was never welcomed");
    // And the one that is not over goes on.
    new.peers.tell(&b.id, Class::Control, Service::Hints, numbered(Class::Control, 2)).unwrap();
    b.ear.wait_for(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_refused_or_given_up_at_its_deadline() {
    let desk = Desk::new();
    let (a, b) = (desk.node("a", 1), desk.node("b", 1));
    desk.meet(&[&a, &b]).await;
    for class in Class::ALL {
        let answer = a.peers.ask(&b.id, class, Service::Queries, "echo".into(), WITHIN).await;
        assert_eq!(answer, Ok("echo".into()), "{class:?}");
    }
    let Err(AskError::Refused(refusal)) = a.peers.ask(&b.id, Class::Work, Service::Leases, "no".into(), WITHIN).await
    else {
        panic!("it was not refused")
    };
    assert_eq!((refusal.why, refusal.detail.as_str()), (Why::NotMe, "ask somebody else"));
    let start = Instant::now();
    let late = a.peers.ask(&b.id, Class::Work, Service::Queries, "never".into(), Duration::from_millis(80)).await;
    // Whoever is first to see that the time is over: this node, or the one that was asked.
    let is_over = match &late {
        Err(AskError::Refused(refusal)) => refusal.why == Why::Failed,
        late => *late == Err(AskError::NoAnswer),
    };
    assert!(is_over, "{late:?}");
    assert!((80..2_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let stranger = desk.node("c", 1);
    let unknown = a.peers.ask(&stranger.id, Class::Work, Service::Queries, "echo".into(), WITHIN).await;
    assert_eq!(unknown, Err(NotSent::Unknown.into()));
    let long = Bytes::from(vec![0; Class::Control.body_bytes_max() + 1]);
    assert_eq!(a.peers.tell(&b.id, Class::Control, Service::Hints, long), Err(NotSent::TooLarge));
    let longest = Bytes::from(vec![1; Class::Bulk.body_bytes_max()]);
    assert_eq!(a.peers.ask(&b.id, Class::Bulk, Service::Queries, longest.clone(), WITHIN).await, Ok(longest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_a_peer_that_dies_is_answered_at_once() {
    let desk = Desk::new();
    let (a, b) = (desk.node("a", 1), desk.node("b", 1));
    desk.meet(&[&a, &b]).await;
    let peers = a.peers.clone();
    let id = b.id.clone();
    let waits = tokio::spawn(async move {
        let asked = Instant::now();
        (peers.ask(&id, Class::Work, Service::Queries, "never".into(), Duration::from_secs(60)).await, asked)
    });
    b.ear.wait_asked().await;
    let id = b.id.clone();
    let died = Instant::now();
    b.stop().await;
    assert_eq!(waits.await.unwrap().0, Err(AskError::NoAnswer));
    assert!(died.elapsed() < Duration::from_secs(3), "{:?}", died.elapsed());
    a.wait_link(&id, |state| state.is_refused).await;
    let start = Instant::now();
    let gone = a.peers.ask(&id, Class::Control, Service::Queries, "echo".into(), Duration::from_secs(60)).await;
    assert_eq!(gone, Err(NotSent::Gone.into()));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_meets_any_more_is_not_talked_to() {
    let desk = Desk::new();
    let (a, b) = (desk.node("a", 1), desk.node("b", 1));
    desk.meet(&[&a, &b]).await;
    desk.tell_members(&a, &[&a]);
    let unknown = a.peers.tell(&b.id, Class::Work, Service::Hints, Bytes::new());
    assert_eq!(unknown, Err(NotSent::Unknown));
    assert!(a.peers.links().borrow().is_empty());
    // Meeting it again goes on counting where its receiver is.
    desk.tell_members(&a, &[&a, &b]);
    for at in 0..5 {
        until(|| a.peers.tell(&b.id, Class::Control, Service::Hints, numbered(Class::Control, at)).is_ok()).await;
    }
    b.ear.wait_for(5).await;
    assert_eq!(b.ear.of(Class::Control), [0, 1, 2, 3, 4]);
}

use std::collections::BTreeMap;
use std::sync::mpsc;

use nexa_types::Millis;
use proptest::prelude::*;

use super::*;

const SLICE: u64 = 10_000;

fn agent(n: u16) -> AgentId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    AgentId::from_bytes(bytes)
}

fn share(tenant: &str, n: u16, weight: u32, priority: u8) -> Share {
    Share { agent: agent(n), tenant: TenantId::new(tenant).unwrap(), weight, priority }
}

fn of(tenant: &str, n: u16) -> Share {
    share(tenant, n, 1, 100)
}

/// Slices are taken one after the other, each of a millisecond; whoever computes for ever queues up again.
#[derive(Default)]
struct Model {
    line: Line<Share>,
    now: Timestamp,
}

impl Model {
    fn comes(&mut self, share: Share, fuel: u64) {
        let earlier = self.line.push(share.clone(), self.now, fuel, share).1;
        assert!(earlier.is_none(), "it waits already");
    }

    /// Takes a slice, of which `used` is really used.
    fn slice(&mut self, used: u64) -> Share {
        let (tenant, fuel, share) = self.line.pop().expect("somebody always computes");
        self.now = self.now.after(Millis(1));
        self.line.queue.settle(&tenant, fuel, used);
        share
    }

    /// A slice of somebody who goes on computing.
    fn endless(&mut self) -> Share {
        let share = self.slice(SLICE);
        self.comes(share.clone(), SLICE);
        share
    }
}

#[test]
fn short_work_waits_for_a_slice_of_each_tenant_and_no_longer_however_many_compute_for_ever() {
    let mut model = Model::default();
    (0..50).for_each(|n| model.comes(of("ants", n), SLICE));
    (100..600).for_each(|n| model.comes(of("bees", n), SLICE));
    for round in 0..200 {
        (0..round % 17).for_each(|_| drop(model.endless()));
        model.comes(of("cats", 999), SLICE);
        let mut waited = 0;
        loop {
            let share = model.slice(if model.line.places.contains_key(&agent(999)) { SLICE } else { 500 });
            if share.agent == agent(999) {
                break;
            }
            model.comes(share, SLICE);
            waited += 1;
        }
        assert!(waited <= 2, "it waited for {waited} slices in round {round}");
    }
}

#[test]
fn an_agent_of_low_priority_computes_at_last_while_others_compute_for_ever() {
    let mut model = Model::default();
    (0..20).for_each(|n| model.comes(share("ants", n, 1, 255), SLICE));
    model.comes(share("ants", 99, 1, 0), SLICE);
    let mut slices = 0;
    while model.endless().agent != agent(99) {
        slices += 1;
    }
    assert!((20_000..=25_600).contains(&slices), "a slice is a millisecond, and it came after {slices}");
}

#[test]
fn a_tenants_agents_of_one_priority_take_turns() {
    let mut model = Model::default();
    (0..10).for_each(|n| model.comes(of("ants", n), SLICE));
    let turns: Vec<AgentId> = (0..30).map(|_| model.endless().agent).collect();
    assert_eq!(turns[..10], turns[10..20]);
    assert_eq!(turns[10..20], turns[20..]);
}

#[test]
fn who_has_something_to_hear_comes_before_who_comes_later_and_after_who_has_waited_longer() {
    let mut line = Line::default();
    let push = |line: &mut Line<u16>, now, n, priority| line.push(share("ants", n, 1, priority), now, SLICE, n);
    push(&mut line, Timestamp(0), 1, 0);
    push(&mut line, Timestamp(5), 2, 255);
    line.hurry(agent(1), Timestamp(10));
    push(&mut line, Timestamp(20), 3, 255);
    line.hurry(agent(3), Timestamp(30));
    line.hurry(agent(9), Timestamp(30));
    let order: Vec<u16> = std::iter::from_fn(|| line.pop()).map(|(_, _, n)| n).collect();
    assert_eq!(order, [2, 1, 3]);
    assert!(line.places.is_empty());
}

#[test]
fn a_later_incarnation_takes_the_place_of_an_earlier_one_whose_ticket_is_worth_nothing() {
    let mut line = Line::default();
    let (first, _) = line.push(of("ants", 1), Timestamp(0), SLICE, 'a');
    let (second, earlier) = line.push(of("ants", 1), Timestamp(1), SLICE, 'b');
    assert_eq!(earlier, Some('a'));
    assert_eq!(line.withdraw(agent(1), first), None);
    assert_eq!(line.withdraw(agent(1), second), Some('b'));
    assert_eq!((line.queue.len(), line.places.len()), (0, 0));
}

proptest! {
    #[test]
    fn tenants_that_compute_for_ever_get_fuel_by_weight(
        weights in proptest::collection::vec(1u32..6, 2..5),
        agents in 1u16..6,
        used in proptest::collection::vec(1u64..=SLICE, 32),
    ) {
        let mut model = Model::default();
        for (t, weight) in weights.iter().enumerate() {
            (0..agents).for_each(|n| model.comes(share(&format!("t{t}"), t as u16 * 100 + n, *weight, 100), SLICE));
        }
        let mut got = BTreeMap::new();
        for turn in 0..600 {
            let used = used[turn % used.len()];
            let share = model.slice(used);
            *got.entry(share.tenant.clone()).or_insert(0) += used;
            model.comes(share, SLICE);
        }
        let shares: Vec<f64> =
            weights.iter().enumerate().map(|(t, weight)| {
                let tenant = TenantId::new(&format!("t{t}")).unwrap();
                got.get(&tenant).copied().unwrap_or(0) as f64 / f64::from(*weight)
            }).collect();
        let (least, most) = (shares.iter().copied().fold(f64::MAX, f64::min), shares.iter().copied().fold(0.0, f64::max));
        prop_assert!(most - least <= 2.0 * SLICE as f64, "{shares:?} at {weights:?}");
    }
}

/// A queue of one thread that is busy until the sender says so.
async fn busy() -> (Arc<RunQueue>, mpsc::Sender<()>) {
    let queue = Arc::new(RunQueue::start(1).unwrap());
    let ((release, released), (begun, begins)) = (mpsc::channel(), oneshot::channel());
    let slice = move || {
        begun.send(()).unwrap();
        let _ = released.recv();
        ((), SLICE)
    };
    tokio::spawn({
        let queue = queue.clone();
        async move { queue.run(of("ants", 0), Timestamp(0), SLICE, slice).await }
    });
    begins.await.unwrap();
    (queue, release)
}

#[tokio::test]
async fn a_panic_reaches_who_asked_and_the_thread_goes_on() {
    let queue = Arc::new(RunQueue::start(1).unwrap());
    let asked = tokio::spawn({
        let queue = queue.clone();
        async move { queue.run(of("ants", 1), Timestamp(0), SLICE, || -> ((), u64) { panic!("a test wants it") }).await }
    });
    let panic = asked.await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"a test wants it"));
    assert_eq!(queue.run(of("ants", 1), Timestamp(0), SLICE, || (7, 1)).await, Ok(7));
}

#[tokio::test]
async fn a_slice_is_not_begun_once_nobody_waits_for_it() {
    let (queue, release) = busy().await;
    let begun = Arc::new(AtomicUsize::new(0));
    let count = |begun: &Arc<AtomicUsize>| {
        let begun = begun.clone();
        move || (begun.fetch_add(1, Ordering::SeqCst), SLICE)
    };
    let mut abandoned = Box::pin(queue.run(of("ants", 1), Timestamp(0), SLICE, count(&begun)));
    assert!(futures::poll!(&mut abandoned).is_pending());
    let mut wanted = Box::pin(queue.run(of("ants", 2), Timestamp(0), SLICE, count(&begun)));
    assert!(futures::poll!(&mut wanted).is_pending());
    assert_eq!(queue.waiting(), 2);
    drop(abandoned);
    assert_eq!(queue.waiting(), 1);
    release.send(()).unwrap();
    assert_eq!(wanted.await, Ok(0), "it is the first to be begun");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_closed_queue_drops_what_waits_and_its_threads_end() {
    let (queue, release) = busy().await;
    let mut waiting = Box::pin(queue.run(of("ants", 1), Timestamp(0), SLICE, || ((), SLICE)));
    assert!(futures::poll!(&mut waiting).is_pending());
    queue.close();
    assert_eq!(waiting.await, Err(Dropped));
    assert_eq!(queue.run(of("ants", 2), Timestamp(0), SLICE, || ((), SLICE)).await, Err(Dropped));
    release.send(()).unwrap();
    while Arc::strong_count(&queue.shared) > 1 {
        tokio::task::yield_now().await;
    }
}

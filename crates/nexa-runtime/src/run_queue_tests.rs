use std::sync::mpsc;

use nexa_types::TenantId;

use super::*;
use crate::line::parts;

const SLICE: u64 = 10_000;

fn of(tenant: &str, n: u16) -> Share {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    let (agent, tenant) = (AgentId::from_bytes(bytes), TenantId::new(tenant).unwrap());
    Share { agent, tenant, tenant_weight: 1, weight: parts(1.0), priority: 100, computed: 0 }
}

fn queue_of(threads: usize) -> RunQueue {
    RunQueue::start(threads, LoadBalanceStrategy::default(), Millis(10)).unwrap()
}

/// A queue of one thread that is busy until the sender says so.
async fn busy() -> (Arc<RunQueue>, mpsc::Sender<()>) {
    let queue = Arc::new(queue_of(1));
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
    let queue = Arc::new(queue_of(1));
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

#[tokio::test]
async fn a_slice_is_worth_what_slices_took() {
    let queue = queue_of(1);
    assert_eq!(queue.slice_fuel(), crate::pace::SLICE_FUEL_MIN);
    // As if nothing took any time: the most that there is.
    queue.run(of("ants", 1), Timestamp(0), SLICE, || ((), u64::MAX / 2)).await.unwrap();
    queue.run(of("ants", 1), Timestamp(0), SLICE, || ((), 1)).await.unwrap();
    assert_eq!(queue.slice_fuel(), crate::pace::SLICE_FUEL_MAX);
}

//! Clocks that do what a real one sometimes does.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nexa_ports::clock::Clock;
use nexa_types::{Millis, Timestamp};

/// Stands still for a while when told, as a clock does that hides a step back of the wall clock. Waits do not know.
pub struct Halting {
    began: Instant,
    halt: Mutex<Halt>,
}

#[derive(Default)]
struct Halt {
    stands: Option<(u64, Instant)>,
    lost_ms: u64,
}

impl Halting {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), halt: Mutex::default() })
    }

    fn wall(&self) -> u64 {
        1_000_000 + u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    pub fn halt(&self, span: Duration) {
        let now = self.now().0;
        self.halt.lock().unwrap().stands = Some((now, Instant::now() + span));
    }
}

impl Clock for Halting {
    fn now(&self) -> Timestamp {
        let (wall, mut halt) = (self.wall(), self.halt.lock().unwrap());
        match halt.stands {
            Some((at, until)) if Instant::now() < until => return Timestamp(at),
            Some((at, _)) => *halt = Halt { stands: None, lost_ms: wall - at },
            None => {}
        }
        Timestamp(wall - halt.lost_ms)
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        let Millis(left) = due.since(self.now());
        Box::pin(tokio::time::sleep(Duration::from_millis(left)))
    }
}

/// Counts who waits on another clock.
pub struct Counting {
    pub clock: Arc<dyn Clock>,
    waiting: Arc<AtomicUsize>,
}

struct Waits(Arc<AtomicUsize>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Counting {
    pub fn on(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, waiting: Arc::default() })
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (waits, over) = (Waits(self.waiting.clone()), self.clock.wait_until(due));
        Box::pin(async move {
            let _waits = waits;
            over.await;
        })
    }
}

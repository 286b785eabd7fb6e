//! Looks after the process from a thread of its own, so that what it sees does not hang on what it looks at.
//!
//! Every [`BEAT`] it notes how late the node's tokio runtime is, how much memory the process has, and, with a memory
//! budget, has the node act on it ([`crate::memory`]). It never waits for the runtime: a question that has not been
//! answered yet counts as late by its age.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::memory::Gauge;
use crate::node::Core;

/// Between two looks.
pub(crate) const BEAT: Duration = Duration::from_millis(100);
/// What [`Vitals`] has for memory where nobody can tell.
const UNKNOWN: u64 = u64::MAX;

/// What was seen last.
#[derive(Debug)]
pub(crate) struct Vitals {
    lag_ms: AtomicU64,
    resident: AtomicU64,
}

impl Default for Vitals {
    fn default() -> Self {
        Self { lag_ms: AtomicU64::new(0), resident: AtomicU64::new(resident_bytes().unwrap_or(UNKNOWN)) }
    }
}

impl Vitals {
    /// Of a process that nobody looks after.
    pub(crate) fn unwatched() -> Self {
        Self { lag_ms: AtomicU64::new(0), resident: AtomicU64::new(UNKNOWN) }
    }

    /// How late the runtime was, or is by now, in milliseconds.
    pub(crate) fn lag_ms(&self) -> u64 {
        self.lag_ms.load(Ordering::Relaxed)
    }

    /// The process's resident memory, where the system tells it.
    pub(crate) fn resident(&self) -> Option<u64> {
        Some(self.resident.load(Ordering::Relaxed)).filter(|resident| *resident != UNKNOWN)
    }
}

/// Watches until `stop`, or until the node is gone. Must be called within the runtime that is watched.
pub(crate) fn watch(vitals: Arc<Vitals>, core: Weak<Core>, stop: CancellationToken) -> io::Result<()> {
    let runtime = Handle::current();
    let watcher = move || {
        let (mut ping, mut gauge) = (Ping::send(&runtime), Gauge::default());
        while !stop.is_cancelled() {
            thread::park_timeout(BEAT);
            let lag = ping.lag();
            vitals.lag_ms.store(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            if ping.heard.get().is_some() {
                ping = Ping::send(&runtime);
            }
            vitals.resident.store(resident_bytes().unwrap_or(UNKNOWN), Ordering::Relaxed);
            if let Some(core) = core.upgrade() {
                core.look_at_memory(&mut gauge);
            }
        }
    };
    thread::Builder::new().name("nexa-liveness".into()).spawn(watcher).map(drop)
}

/// A question to the runtime that costs it nothing but its turn.
struct Ping {
    sent: Instant,
    heard: Arc<OnceLock<Instant>>,
}

impl Ping {
    fn send(runtime: &Handle) -> Self {
        let ping = Self { sent: Instant::now(), heard: Arc::default() };
        let heard = ping.heard.clone();
        runtime.spawn(async move {
            heard.get_or_init(Instant::now);
        });
        ping
    }

    fn lag(&self) -> Duration {
        self.heard.get().copied().unwrap_or_else(Instant::now).saturating_duration_since(self.sent)
    }
}

/// The resident memory of this process. `/proc/self/statm` has it too, but in pages of a size that it does not tell.
fn resident_bytes() -> Option<u64> {
    resident_in(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_system_writes_it() {
        assert_eq!(resident_in("VmPeak:\t   9 kB\nVmRSS:\t  1234 kB\nRssAnon:\t  7 kB\n"), Some(1_234 << 10));
        assert_eq!(resident_in("VmRSS:\t a lot\n"), None);
        assert_eq!(resident_in(""), None);
        #[cfg(target_os = "linux")]
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_runtime_that_does_not_answer_is_late_by_the_age_of_the_question() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ping = Ping::send(runtime.handle());
        while ping.lag() < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        assert!(ping.heard.get().is_none(), "nobody drives the runtime");
        runtime.block_on(async {
            while ping.heard.get().is_none() {
                tokio::task::yield_now().await;
            }
        });
        let late = ping.lag();
        assert!(late >= Duration::from_millis(5));
        assert_eq!(ping.lag(), late, "once heard, it gets no later");
    }
}

//! Signs of life, from a thread of their own: a busy node must not look dead.
//!
//! Every [`BEAT`](nexa_member::detector::BEAT) it looks who is silent, tells the others how this node does, and, if
//! this node leads, how many agents may be born on each.

use std::fs;
use std::sync::{Arc, Weak};
use std::thread;

use nexa_member::detector::{BEAT, Look};
use nexa_member::say::{self, Heartbeat, Load};
use nexa_ports::clock::Clock;
use nexa_ports::membership::Standing;
use nexa_types::{Millis, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cluster::Heart;
use crate::inner::Inner;
use crate::peers::{Class, Service};

/// Ticks a second of `/proc/self/stat`: fixed by the kernel's interface on every platform that Linux runs on here.
const TICKS_PER_SECOND: u64 = 100;
const MILLION: u64 = 1_000_000;

/// Starts the thread, or the task; it ends with the cluster.
pub(crate) fn start(inner: &Arc<Inner>, heart: Heart) -> std::io::Result<()> {
    let (weak, stop, clock) = (Arc::downgrade(inner), inner.stop.clone(), inner.clock.clone());
    match heart {
        Heart::Task => {
            tokio::spawn(beats(weak, stop, clock, Beat::default()));
            Ok(())
        }
        Heart::Thread => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            let beat = Beat { cpu: Some(Cpu::default()), ..Beat::default() };
            let thread = thread::Builder::new().name("nexa-heartbeat".into());
            thread.spawn(move || runtime.block_on(beats(weak, stop, clock, beat))).map(drop)
        }
    }
}

async fn beats(inner: Weak<Inner>, stop: CancellationToken, clock: Arc<dyn Clock>, mut beat: Beat) {
    while !stop.is_cancelled() {
        let Some(inner) = inner.upgrade() else { return };
        beat.beat(&inner);
        drop(inner);
        tokio::select! {
            biased;
            () = clock.wait_until(clock.now().after(BEAT)) => {}
            () = stop.cancelled() => {}
        }
    }
}

#[derive(Default)]
struct Beat {
    valid_until: Timestamp,
    renewed_at: Option<Timestamp>,
    look: Look,
    /// Of a process that is looked at.
    cpu: Option<Cpu>,
}

impl Beat {
    fn beat(&mut self, inner: &Arc<Inner>) {
        let now = inner.clock.now();
        // Copied first: whoever holds a borrowed standing keeps it from changing.
        let standing = *inner.membership.standing().borrow();
        let lease_left = match standing {
            Standing::Member { valid_until, .. } => {
                if valid_until > self.valid_until {
                    (self.valid_until, self.renewed_at) = (valid_until, Some(now));
                }
                valid_until.since(inner.membership.now())
            }
            Standing::Outside | Standing::Lost => Millis(0),
        };
        let load = self.load(inner, now);
        let look = inner.look(now, load.lag, self.renewed_at.unwrap_or(now));
        if look.is_lonely != self.look.is_lonely {
            if look.is_lonely {
                warn!(node = %inner.me, "this node hears nobody and its lease is not renewed: it takes nothing new");
            } else {
                info!(node = %inner.me, "this node is not cut off any more");
            }
        }
        for (node, generation) in look.suspects.difference(&self.look.suspects) {
            info!(%node, %generation, "node is silent");
        }
        for (node, generation) in &look.dead {
            inner.end_lease(node.clone(), *generation);
        }
        inner.relay.owns(load.agents, look.is_lonely || load.is_draining);
        inner.noticed(&look, load);
        let levels = inner.levels();
        let beat = Heartbeat {
            load,
            lease_left,
            suspects: look.suspects.iter().take(say::SUSPECTS_MAX).cloned().collect(),
            is_lonely: look.is_lonely,
            adopted: inner.adopted(),
            slice: None,
            format: Some(inner.writing.format()),
        };
        for to in inner.targets() {
            let slice = levels.get(&to).copied();
            let body = say::write(&Heartbeat { slice, ..beat.clone() }).into();
            // Who cannot be told is missed there, which is what is to be noticed.
            let _ = inner.peers.tell(&to, Class::Control, Service::Heartbeat, body);
        }
        if let Some(slice) = levels.get(&inner.me) {
            inner.relay.slice(slice.leader, slice.level);
        }
        self.look = look;
    }

    fn load(&mut self, inner: &Inner, now: Timestamp) -> Load {
        let load = inner.host.load();
        let count = |count: usize| count as u64;
        let budget = load.memory_max.unwrap_or(inner.card.memory_bytes);
        let part = |of: u64, all: u64| u64::try_from(u128::from(of) * u128::from(MILLION) / u128::from(all.max(1)));
        Load {
            agents: count(load.agents),
            live: count(load.live),
            at_work: count(load.at_work),
            run_queue: count(load.run_queue),
            model_calls: count(load.calls_in_flight),
            cpu: self.cpu.as_mut().map_or(0, |cpu| cpu.part(inner.card.cpu_milli, now)),
            memory: part(load.resident_bytes.unwrap_or(0), budget).unwrap_or(u64::MAX),
            lag: Millis(load.runtime_lag_ms),
            unrecorded: count(load.results_unrecorded),
            is_draining: load.is_draining || inner.is_leaving(),
            births: Some(inner.relay.births()),
        }
    }
}

/// How much of its processors the process uses, averaged over about a second.
#[derive(Default)]
struct Cpu {
    since: Option<(Timestamp, u64)>,
    part: u64,
}

impl Cpu {
    fn part(&mut self, cpu_milli: u64, now: Timestamp) -> u64 {
        let Some(ticks) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| ticks_in(&stat)) else { return 0 };
        match self.since {
            Some((since, before)) if now.since(since) >= Millis(1_000) => {
                let used_ms = ticks.saturating_sub(before) * 1_000 / TICKS_PER_SECOND;
                let had_ms = now.since(since).0.saturating_mul(cpu_milli) / 1_000;
                self.part = used_ms.saturating_mul(MILLION) / had_ms.max(1);
                self.since = Some((now, ticks));
            }
            Some(_) => {}
            None => self.since = Some((now, ticks)),
        }
        self.part
    }
}

/// Processor time in user and kernel mode, in ticks: fields 14 and 15, after the name in parentheses.
fn ticks_in(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_as_the_system_writes_it() {
        assert_eq!(ticks_in("7 (a b) c) S 1 7 7 0 -1 4 5 0 0 0 120 30 0 0 20 0"), Some(150));
        assert_eq!(ticks_in("7 (a"), None);
        assert_eq!(ticks_in(""), None);
        let mut cpu = Cpu { since: Some((Timestamp(0), 0)), part: 0 };
        assert!(cpu.part(1, Timestamp(1_000)) < u64::MAX);
    }
}

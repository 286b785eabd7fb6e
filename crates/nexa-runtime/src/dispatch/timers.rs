//! One timer an agent, all in one table, waited for by one task.
//!
//! In:  `set(agent, due)`, at every recorded step.
//! Out: a nudge when the time has come.
//!
//! Bound: `timers_max` entries. Above it the latest one is left out, which loses nothing: the due time stands in the
//! agent's row, and the sweep refills the table from the rows that are due.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nexa_ports::clock::Clock;
use nexa_types::{AgentId, Timestamp};
use tokio::sync::Notify;

use super::{Hint, Nudge};

pub(crate) struct Timers {
    table: Mutex<Table>,
    changed: Notify,
    timers_max: usize,
}

#[derive(Default)]
struct Table {
    by_time: BTreeSet<(Timestamp, AgentId)>,
    by_agent: HashMap<AgentId, Timestamp>,
}

impl Table {
    fn remove(&mut self, agent: AgentId) {
        if let Some(due) = self.by_agent.remove(&agent) {
            self.by_time.remove(&(due, agent));
        }
    }
}

impl Timers {
    pub(crate) fn new(timers_max: usize) -> Self {
        Self { table: Mutex::default(), changed: Notify::new(), timers_max }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nudges the agent at `due`, or never; an earlier wish of the same agent is forgotten.
    pub(crate) fn set(&self, agent: AgentId, due: Option<Timestamp>) {
        let mut table = self.lock();
        if table.by_agent.get(&agent).copied() == due {
            return;
        }
        let first = table.by_time.first().copied();
        table.remove(agent);
        if let Some(due) = due {
            table.by_agent.insert(agent, due);
            table.by_time.insert((due, agent));
            if table.by_time.len() > self.timers_max
                && let Some((_, latest)) = table.by_time.last().copied()
            {
                table.remove(latest);
            }
        }
        if table.by_time.first().copied() != first {
            self.changed.notify_one();
        }
    }

    /// How many agents have a timer.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_agent.len()
    }

    /// Takes out who is due; else tells when the next one is.
    fn take_due(&self, now: Timestamp) -> Result<AgentId, Option<Timestamp>> {
        let mut table = self.lock();
        match table.by_time.first().copied() {
            Some((due, agent)) if due <= now => {
                table.remove(agent);
                Ok(agent)
            }
            next => Err(next.map(|(due, _)| due)),
        }
    }

    /// Serves the table until dropped.
    pub(crate) async fn run(self: Arc<Self>, clock: Arc<dyn Clock>, nudge: Arc<dyn Nudge>) {
        loop {
            match self.take_due(clock.now()) {
                Ok(agent) => nudge.nudge(agent, Hint::Due),
                Err(None) => self.changed.notified().await,
                Err(Some(due)) => tokio::select! {
                    biased;
                    () = clock.wait_until(due) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nexa_ports::clock::SimClock;
    use nexa_types::Millis;
    use tokio::sync::mpsc;

    use super::*;

    struct Bell(mpsc::UnboundedSender<AgentId>);

    impl Nudge for Bell {
        fn nudge(&self, agent: AgentId, hint: Hint) {
            assert_eq!(hint, Hint::Due);
            self.0.send(agent).unwrap();
        }
    }

    fn agent(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    fn running(timers: &Arc<Timers>, clock: &Arc<SimClock>) -> mpsc::UnboundedReceiver<AgentId> {
        let (bell, rings) = mpsc::unbounded_channel();
        tokio::spawn(timers.clone().run(clock.clone(), Arc::new(Bell(bell))));
        rings
    }

    #[tokio::test]
    async fn agents_are_nudged_in_order_of_time_and_a_changed_wish_replaces_the_old_one() {
        let clock = Arc::new(SimClock::new(Timestamp(0)));
        let timers = Arc::new(Timers::new(10));
        let mut rings = running(&timers, &clock);
        timers.set(agent(1), Some(Timestamp(300)));
        timers.set(agent(2), Some(Timestamp(100)));
        timers.set(agent(3), Some(Timestamp(50)));
        timers.set(agent(3), Some(Timestamp(200)));
        timers.set(agent(4), Some(Timestamp(60)));
        timers.set(agent(4), None);
        clock.advance(Millis(100));
        assert_eq!(rings.recv().await, Some(agent(2)));
        clock.advance(Millis(1_000));
        assert_eq!(rings.recv().await, Some(agent(3)));
        assert_eq!(rings.recv().await, Some(agent(1)));
        timers.set(agent(5), Some(Timestamp(0)));
        assert_eq!(rings.recv().await, Some(agent(5)), "what is past rings at once");
        assert_eq!(timers.len(), 0);
    }

    #[tokio::test]
    async fn hundreds_of_thousands_ring_in_order_and_changing_one_costs_no_look_at_the_others() {
        const AGENTS: u64 = 300_000;
        let many = |n: u64| AgentId::from_bytes(u128::from(n).to_be_bytes());
        let due = |n: u64| Timestamp(1 + n.wrapping_mul(2_654_435_761) % 1_000_000);
        let clock = Arc::new(SimClock::new(Timestamp(0)));
        let timers = Arc::new(Timers::new(1_000_000));
        let mut rings = running(&timers, &clock);
        for n in 0..AGENTS {
            timers.set(many(n), Some(Timestamp(2_000_000)));
            timers.set(many(n), Some(due(n)));
        }
        (0..AGENTS).step_by(3).for_each(|n| timers.set(many(n), None));
        assert_eq!(timers.len() as u64, AGENTS * 2 / 3);
        let mut expected: Vec<(Timestamp, AgentId)> =
            (0..AGENTS).filter(|n| n % 3 != 0).map(|n| (due(n), many(n))).collect();
        expected.sort_unstable();
        // Advanced by steps, so that a step back in the order would show.
        for step in expected.chunk_by(|a, b| a.0.0 / 100_000 == b.0.0 / 100_000) {
            clock.advance(step.last().unwrap().0.since(clock.now()));
            for (_, agent) in step {
                assert_eq!(rings.recv().await, Some(*agent));
            }
        }
        assert_eq!(timers.len(), 0);
    }

    #[tokio::test]
    async fn a_full_table_leaves_out_the_latest() {
        let clock = Arc::new(SimClock::new(Timestamp(0)));
        let timers = Arc::new(Timers::new(2));
        for n in 1..=5 {
            timers.set(agent(n), Some(Timestamp(1_000 - u64::from(n))));
        }
        let mut rings = running(&timers, &clock);
        clock.advance(Millis(1_000));
        assert_eq!(rings.recv().await, Some(agent(5)));
        assert_eq!(rings.recv().await, Some(agent(4)));
        assert_eq!(timers.len(), 0);
    }
}

//! Where a process dies exactly: before and after what others can see of it. What is known of a step is least just before it and
//! just after it, and a death at a moment that is drawn seldom comes between two of them.
//!
//! A point is armed for the n-th such step of a run of a node ([`super::plan::Fault::DieAt`]), and counted once it was reached. A step
//! that does not come that far, as a message that is refused, leaves the point to the next one.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::process::{Process, lock};
use super::trace::Trace;

/// What a process does that others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It has the store keep something: facts, a message for an agent, a snapshot.
    Commit,
    /// It has the store do what only a leader may.
    Lead,
    /// It sends a node something else than a heartbeat. Those would be nearly all.
    Message,
    /// It asks a model or calls a tool.
    Call,
}

/// On which side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Nothing of it gets anywhere.
    Before,
    /// It is done, or on its way, and its answer is not heard.
    After,
}

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) step: Step,
    pub(super) side: Side,
}

impl Point {
    /// Every point, and at which of its steps at most: so many come while one is armed.
    pub(super) const ALL: [(Self, u64); 8] = {
        const fn both(step: Step, most: u64) -> [(Point, u64); 2] {
            [(Point { step, side: Side::Before }, most), (Point { step, side: Side::After }, most)]
        }
        let [[a, b], [c, d]] = [both(Step::Commit, 20), both(Step::Lead, 5)];
        let [[e, f], [g, h]] = [both(Step::Message, 10), both(Step::Call, 6)];
        [a, b, c, d, e, f, g, h]
    };

    /// Its name, for counts.
    pub(super) fn name(self) -> &'static str {
        match (self.step, self.side) {
            (Step::Commit, Side::Before) => "before a commit",
            (Step::Commit, Side::After) => "after a commit",
            (Step::Lead, Side::Before) => "before a leader's commit",
            (Step::Lead, Side::After) => "after a leader's commit",
            (Step::Message, Side::Before) => "before a message",
            (Step::Message, Side::After) => "after a message",
            (Step::Call, Side::Before) => "before a call",
            (Step::Call, Side::After) => "after a call",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Points that were reached in a run.
pub(super) struct Reached {
    trace: Arc<Trace>,
    names: Mutex<Vec<&'static str>>,
}

impl Reached {
    pub(super) fn new(trace: Arc<Trace>) -> Arc<Self> {
        Arc::new(Self { trace, names: Mutex::default() })
    }

    /// Their names, in order.
    pub(super) fn names(&self) -> Vec<&'static str> {
        lock(&self.names).clone()
    }
}

/// A point that waits for a process to come there.
pub(super) struct Armed {
    pub(super) point: Point,
    /// Steps that are left until then.
    pub(super) left: u64,
    pub(super) reached: Arc<Reached>,
}

impl Process {
    /// Dies there, or nowhere.
    pub(super) fn arm(&self, armed: Option<Armed>) {
        *lock(&self.armed) = armed;
    }

    /// One more such step is to be made; gives the side of it on which the process dies.
    pub(super) fn steps(&self, step: Step) -> Option<Side> {
        let mut armed = lock(&self.armed);
        let armed = armed.as_mut().filter(|armed| armed.point.step == step)?;
        armed.left = armed.left.saturating_sub(1);
        (armed.left == 0).then_some(armed.point.side)
    }

    /// The same; of a process that dies before the step this does not come back. Gives whether it dies after it.
    pub(super) async fn steps_into(&self, step: Step) -> bool {
        let side = self.steps(step);
        if side == Some(Side::Before) {
            self.dies_here();
            self.goes_on().await;
        }
        side == Some(Side::After)
    }

    /// It has come to its point.
    pub(super) fn dies_here(&self) {
        let armed = lock(&self.armed).take();
        // Two steps may be under way; it dies with the first, and once.
        if let Some(Armed { point, reached, .. }) = armed.filter(|_| !self.is_dead()) {
            reached.trace.note("dies", point);
            lock(&reached.names).push(point.name());
            self.die();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::process::VirtualClock;
    use super::*;

    fn armed(step: Step, side: Side, left: u64) -> (Arc<Process>, Arc<Reached>) {
        let reached = Reached::new(Trace::new(Arc::new(VirtualClock::new()), false));
        let process = Process::new();
        process.arm(Some(Armed { point: Point { step, side }, left, reached: reached.clone() }));
        (process, reached)
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_dies_at_the_step_that_was_drawn_and_at_no_other() {
        let (process, reached) = armed(Step::Call, Side::Before, 2);
        assert!(!process.steps_into(Step::Message).await && !process.steps_into(Step::Call).await);
        assert!(process.runs() && process.steps_into(Step::Call).now_or_never().is_none() && process.is_dead());
        assert_eq!(reached.names(), ["before a call"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_came_to_nothing_leaves_the_point_to_the_next() {
        let (process, reached) = armed(Step::Message, Side::After, 1);
        assert_eq!(
            (process.steps(Step::Message), process.steps(Step::Message)),
            (Some(Side::After), Some(Side::After))
        );
        assert!(process.runs() && reached.names().is_empty());
        process.dies_here();
        process.dies_here();
        assert!(process.is_dead() && reached.names() == ["after a message"]);
        assert_eq!(process.steps(Step::Message), None);
    }
}

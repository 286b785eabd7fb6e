//! How much is looked at while a plan is made, so that tests can hold its growth by counting and not by time.
//!
//! One *look* is one node asked for room, one step of a timeline passed or moved, or one comparison in an ordered
//! collection. Outside the tests of this crate nothing is counted, and counting costs nothing.

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Moments in the order of time.
    Moment,
    /// Units that wait, in their lines, and the heads of lines.
    Waiting,
    /// Nodes that might have room.
    Node,
    /// Steps of what is held over time.
    Step,
}

#[cfg(test)]
thread_local! {
    static LOOKS: std::cell::Cell<[u64; 4]> = const { std::cell::Cell::new([0; 4]) };
}

/// So many things were looked at.
#[inline(always)]
#[cfg_attr(not(test), expect(unused_variables, reason = "only tests count"))]
pub(crate) fn looks(at: Look, many: usize) {
    #[cfg(test)]
    LOOKS.with(|looks| {
        let mut all = looks.get();
        all[at as usize] += many as u64;
        looks.set(all);
    });
}

/// Something was put into, taken from or found in an ordered collection of this length: as many looks as comparisons.
#[inline(always)]
pub(crate) fn ordered(at: Look, len: usize) {
    looks(at, len.max(1).ilog2() as usize + 1);
}

/// What some work gives, and what is looked at meanwhile on this thread: moments, waiting, nodes, steps.
#[cfg(test)]
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, [u64; 4]) {
    let before = LOOKS.replace([0; 4]);
    let done = work();
    (done, LOOKS.replace(before))
}

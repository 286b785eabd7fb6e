//! Truths that must hold, by name.
//!
//! A broken one stops tests and simulation with a panic. In a release build it is counted, and the caller goes on
//! with what it can still do safely; whoever shows metrics reads [`broken`].

use std::sync::atomic::{AtomicU64, Ordering};

/// The invariants of this crate; its header says them in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// An effect is started once per key, epoch and attempt.
    AG1,
    /// Nothing is promised beyond the budget.
    AG2,
    /// A replay ends where life did.
    AG3,
    /// An end is the end.
    AG4,
    /// The brain takes the answers to its requests.
    AG5,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::AG1, Self::AG2, Self::AG3, Self::AG4, Self::AG5];
}

static BROKEN: [AtomicU64; Invariant::ALL.len()] = [const { AtomicU64::new(0) }; Invariant::ALL.len()];

/// How often an invariant was found broken since the process began.
pub fn broken(invariant: Invariant) -> u64 {
    BROKEN[invariant as usize].load(Ordering::Relaxed)
}

/// Counts a broken invariant and, in builds with debug assertions, panics. Gives back what it was given.
///
/// # Panics
/// If `holds` is false and debug assertions are on.
#[track_caller]
pub fn check(invariant: Invariant, holds: bool, condition: &str) -> bool {
    if !holds {
        BROKEN[invariant as usize].fetch_add(1, Ordering::Relaxed);
        if cfg!(debug_assertions) {
            panic!("invariant {invariant:?} is broken: {condition}");
        }
    }
    holds
}

/// Checks a named truth: `invariant!(AG2, spent <= granted)`. Gives whether it holds.
#[macro_export]
macro_rules! invariant {
    ($name:ident, $condition:expr) => {
        $crate::invariant::check($crate::invariant::Invariant::$name, $condition, stringify!($condition))
    };
}

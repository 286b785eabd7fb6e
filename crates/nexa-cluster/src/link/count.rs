//! How much goes over the links, by class.

use std::sync::atomic::{AtomicU64, Ordering};

use nexa_member::link::Class;

use crate::peers::{ClassTraffic, Traffic};

/// Counters that every lane of a node shares.
#[derive(Debug, Default)]
pub(super) struct Counts {
    by_class: [ClassCounts; 4],
}

#[derive(Debug, Default)]
pub(super) struct ClassCounts {
    pub(super) sent: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) resent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) full: AtomicU64,
}

impl Counts {
    pub(super) fn of(&self, class: Class) -> &ClassCounts {
        // Classes count from 1 on the wire.
        &self.by_class[class as usize - 1]
    }

    pub(super) fn read(&self) -> Traffic {
        Class::ALL.map(|class| {
            let ClassCounts { sent, sent_bytes, resent, received, received_bytes, full } = self.of(class);
            let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            ClassTraffic {
                sent: of(sent),
                sent_bytes: of(sent_bytes),
                resent: of(resent),
                received: of(received),
                received_bytes: of(received_bytes),
                full: of(full),
            }
        })
    }
}

/// Counts so many more.
pub(super) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_counts_for_itself() {
        let counts = Counts::default();
        for (number, class) in Class::ALL.into_iter().enumerate() {
            add(&counts.of(class).full, number + 1);
        }
        assert_eq!(counts.read().map(|class| class.full), [1, 2, 3, 4]);
    }
}

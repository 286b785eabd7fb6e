//! How much fuel a slice of processor time is: a rule over what slices took, measured elsewhere.
//!
//! Fuel counts what a program does and not how long that takes, so that a run is the same on every machine. A time slice
//! is of time; between them stands this rate. What a slice is long decides who waits for how long, and never what
//! anything gives: a program may be stopped after every unit of fuel.

use nexa_types::Millis;
use nexa_types::limits::SLICE_FUEL;

/// The least that a slice is. Below it changing from one to the next would cost more than it computes.
pub(crate) const SLICE_FUEL_MIN: u64 = SLICE_FUEL;
/// The most that a slice is, however fast it goes: a cancel is heard between two of them.
pub(crate) const SLICE_FUEL_MAX: u64 = 10_000_000;
/// The rate is that of about the last so many nanoseconds of computing.
const MEMORY_NANOS: u64 = 200_000_000;

/// Fuel over time, of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    fuel: u64,
    nanos: u64,
}

impl Pace {
    /// A slice used this much fuel in so many nanoseconds.
    pub(crate) fn note(&mut self, fuel: u64, nanos: u64) {
        self.fuel = self.fuel.saturating_add(fuel);
        self.nanos = self.nanos.saturating_add(nanos);
        // Halved and not forgotten, so that one slice of another kind of work does not change everything.
        while self.nanos > MEMORY_NANOS {
            (self.fuel, self.nanos) = (self.fuel / 2, self.nanos / 2);
        }
    }

    /// The fuel of a slice of this time.
    pub(crate) fn slice(&self, time: Millis) -> u64 {
        if self.nanos == 0 || self.fuel == 0 {
            return SLICE_FUEL;
        }
        let fuel = u128::from(self.fuel) * u128::from(time.0) * 1_000_000 / u128::from(self.nanos);
        u64::try_from(fuel).unwrap_or(u64::MAX).clamp(SLICE_FUEL_MIN, SLICE_FUEL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slice_is_as_much_fuel_as_was_used_in_that_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.slice(Millis(10)), SLICE_FUEL, "nothing is known");
        (0..10).for_each(|_| pace.note(50_000, 1_000_000));
        assert_eq!(pace.slice(Millis(10)), 500_000);
        assert_eq!(pace.slice(Millis(0)), SLICE_FUEL_MIN);
        assert_eq!(pace.slice(Millis(u64::MAX)), SLICE_FUEL_MAX);
    }

    #[test]
    fn a_slower_machine_has_smaller_slices_after_a_while() {
        let mut pace = Pace::default();
        (0..1_000).for_each(|_| pace.note(100_000, 1_000_000));
        (0..1_000).for_each(|_| pace.note(20_000, 1_000_000));
        assert!((20 * 10_000..=21 * 10_000).contains(&pace.slice(Millis(10))), "{}", pace.slice(Millis(10)));
    }

    proptest! {
        #[test]
        fn a_slice_stays_within_its_bounds(notes in proptest::collection::vec(any::<(u64, u64)>(), 0..20), time: u64) {
            let mut pace = Pace::default();
            notes.into_iter().for_each(|(fuel, nanos)| pace.note(fuel, nanos));
            prop_assert!((SLICE_FUEL_MIN..=SLICE_FUEL_MAX).contains(&pace.slice(Millis(time))));
        }
    }
}

//! Durations learned from history.

use std::path::PathBuf;

use nexa_sched::{DURATION_MAX, Estimates, EstimatesError, KIND_BYTES_MAX, KINDS_MAX};
use nexa_types::Millis;
use proptest::prelude::*;

use crate::world::Dice;

const DAY: u64 = 24 * 60 * 60 * 1_000;

/// A draw from the lognormal distribution with this median; `sigma` is that of the logarithm.
fn lognormal(dice: &mut Dice, median: f64, sigma: f64) -> Millis {
    let (radius, angle) = ((-2.0 * (1.0 - dice.part()).ln()).sqrt(), std::f64::consts::TAU * dice.part());
    Millis((median * (sigma * radius * angle.cos()).exp()).round() as u64)
}

fn learned(observations: impl IntoIterator<Item = Millis>) -> Estimates {
    let mut estimates = Estimates::default();
    for (at, duration) in observations.into_iter().enumerate() {
        estimates.observe("kind", duration, Millis(at as u64 * 1_000));
    }
    estimates
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// About 256 observations count as much as their weights are worth, so the median of the sample is off by 0.08 sigma
    /// and its ninth decile by 0.11 (their standard deviations); five times that, and half a bucket, is allowed.
    #[test]
    fn lognormal_latencies_are_learned_however_wrong_the_declaration(
        seed: u64, median in 50.0..100_000.0f64, sigma in 0.1..1.2f64, declared in 1u64..1_000_000,
    ) {
        let mut dice = Dice(seed);
        let estimates = learned((0..1_000).map(|_| lognormal(&mut dice, median, sigma)));
        let off = |estimate: Millis, truth: f64| (estimate.0 as f64 / truth).ln().abs();
        let estimate = estimates.estimate("kind", Millis(declared));
        prop_assert!(off(estimate, median) < 0.4 * sigma + 0.04, "{estimate} for {median}");
        let high = estimates.estimate_p90("kind", Millis(declared));
        prop_assert!(off(high, median * (1.2816 * sigma).exp()) < 0.55 * sigma + 0.04, "{high} for {median}, {sigma}");
    }

    /// Nothing is ever 0, above the largest, or lost on the way to bytes and back; the second decile is above the first.
    #[test]
    fn anything_may_be_observed(
        durations in prop::collection::vec((any::<u64>(), 0u32..64, 0u64..20 * DAY), 0..60), declared: u64,
    ) {
        let mut estimates = Estimates::default();
        let mut now = 0;
        for (duration, shift, later) in durations {
            now += later;
            estimates.observe("kind", Millis(duration >> shift), Millis(now));
        }
        let (median, high) =
            (estimates.estimate("kind", Millis(declared)), estimates.estimate_p90("kind", Millis(declared)));
        prop_assert!(Millis(1) <= median && median <= high && high <= DURATION_MAX, "{median} {high}");
        prop_assert_eq!(Estimates::from_bytes(&estimates.to_bytes()), Ok(estimates));
    }

    /// What was stored and then damaged is refused, or read as something that works.
    #[test]
    fn damaged_bytes_are_refused_or_harmless(seed: u64, at: usize, byte: u8, cut: bool) {
        let mut dice = Dice(seed);
        let mut bytes = learned((0..20).map(|_| lognormal(&mut dice, 500.0, 1.0))).to_bytes();
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        if let Ok(mut estimates) = Estimates::from_bytes(&bytes) {
            prop_assert!(!cut, "what is missing is missed");
            for turn in 0..300 {
                estimates.observe("kind", Millis(700), Millis(u64::MAX - 300 + turn));
            }
            prop_assert!((500..=900).contains(&estimates.estimate("kind", Millis(1)).0));
        }
    }
}

#[test]
fn what_is_declared_holds_until_it_is_outvoted() {
    let declared = Millis(2_000);
    let mut estimates = Estimates::default();
    assert_eq!(estimates.estimate("kind", declared), declared);
    assert_eq!(estimates.estimate("kind", Millis(0)), Millis(1));
    for turn in 0..7 {
        estimates.observe("kind", Millis(600_000), Millis(turn));
        assert_eq!(estimates.estimate("kind", declared), declared, "after {} odd runs", turn + 1);
    }
    for turn in 7..30 {
        estimates.observe("kind", Millis(600_000), Millis(turn));
    }
    assert!((570_000..640_000).contains(&estimates.estimate("kind", declared).0));
    assert_eq!(estimates.estimate("other", declared), declared);
}

#[test]
fn one_odd_run_after_a_long_pause_does_not_throw_what_is_known() {
    let mut estimates = learned((0..500).map(|_| Millis(1_000)));
    for day in 1..4 {
        estimates.observe("kind", Millis(900_000), Millis(day * 100 * DAY));
        assert!((940..1_070).contains(&estimates.estimate("kind", Millis(5)).0), "day {day}");
    }
}

#[test]
fn a_change_is_followed_within_ninety_observations() {
    let mut estimates = learned((0..5_000).map(|_| Millis(1_000)));
    let mut needed = 0;
    while estimates.estimate("kind", Millis(1_000)).0 < 2_900 {
        needed += 1;
        estimates.observe("kind", Millis(3_000), Millis(5_000_000 + needed));
    }
    assert!((80..=100).contains(&needed), "{needed}");
}

#[test]
fn over_many_histories_the_estimate_is_off_to_neither_side() {
    let mut dice = Dice(7);
    let logs = (0..400).map(|_| {
        let estimates = learned((0..1_500).map(|_| lognormal(&mut dice, 4_000.0, 1.0)));
        (estimates.estimate("kind", Millis(100)).0 as f64 / 4_000.0).ln()
    });
    let mean = logs.sum::<f64>() / 400.0;
    assert!(mean.abs() < 0.02, "{mean}");
}

#[test]
fn kinds_are_bounded_and_the_one_seen_longest_ago_goes_first() {
    let mut estimates = Estimates::default();
    for kind in 0..KINDS_MAX as u64 {
        estimates.observe(&format!("{kind:04}"), Millis(10), Millis(kind.max(1)));
    }
    for turn in 0..20 {
        estimates.observe("0000", Millis(10), Millis(10_000 + turn));
    }
    estimates.observe("new", Millis(10), Millis(20_000));
    estimates.observe(&"x".repeat(KIND_BYTES_MAX + 1), Millis(10), Millis(20_000));
    assert_eq!(estimates.len(), KINDS_MAX);
    assert_eq!(estimates.estimate("0000", Millis(99)), Millis(10), "seen just now");
    for turn in 0..20 {
        estimates.observe("0001", Millis(10), Millis(20_000 + turn));
    }
    assert_eq!(estimates.len(), KINDS_MAX, "0001 was forgotten, and 0002 after it");
    assert_eq!(Estimates::from_bytes(&estimates.to_bytes()), Ok(estimates));
}

/// `NEXA_GOLDEN=add` writes the file when there is none. It is never changed; a new format gets a new one.
#[test]
fn what_earlier_builds_wrote_is_read_and_written_the_same() {
    let mut dice = Dice(1);
    let mut estimates = learned((0..200).map(|_| Millis(dice.within(300, 9_000))));
    estimates.observe("search.web", Millis(12), Millis(DAY * 3));
    let written: String = estimates.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1-estimates.hex");
    if !path.exists() && std::env::var_os("NEXA_GOLDEN").is_some_and(|wish| wish == "add") {
        std::fs::write(&path, format!("{written}\n")).expect("the directory is there");
    }
    let stored = std::fs::read_to_string(&path).expect("the file is there");
    let bytes: Vec<u8> = (stored.trim().as_bytes().chunks(2))
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).expect("ASCII"), 16).expect("hex digits"))
        .collect();
    assert_eq!(Estimates::from_bytes(&bytes), Ok(estimates));
    assert_eq!(written, stored.trim());
}

#[test]
fn a_newer_format_says_so() {
    let error = Estimates::from_bytes(&[0x82, 0x02, 0x80]).expect_err("format 2");
    assert_eq!(error, EstimatesError::NewerFormat { found: 2 });
    assert!(error.to_string().contains("upgrade"));
    assert!(matches!(Estimates::from_bytes(&[0x82, 0x00, 0x80]), Err(EstimatesError::Malformed { .. })));
    assert_eq!(Estimates::from_bytes(&[0x82, 0x01, 0x80]), Ok(Estimates::default()));
}

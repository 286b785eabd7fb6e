//! How much of a limited key was used, and how evenly by its tenants.
//!
//! Both are measured while every tenant has work left: from when everything was submitted until the first tenant's last
//! request was let in. Outside of that somebody has nothing to ask, and neither says anything.

use std::time::Duration;

use crate::dice::Dice;
use crate::endpoint::counts::Admission;
use crate::endpoint::limits::KeyLimits;
use crate::shape::Plan;

/// A shorter time says nothing of a limit that is given out second by second.
const WINDOW_MIN: Duration = Duration::from_secs(2);
/// What the dice are rolled for.
const TOKEN: u64 = 31;

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shared {
    /// The used share of the tightest limit.
    pub budget_used: Option<f64>,
    /// Jain's index of the tokens that tenants got.
    pub jain_index: Option<f64>,
}

/// The token of a tenant: for a node that only this machine reaches, on data that nobody else's.
pub fn token(seed: u64, tenant: usize) -> String {
    let mut dice = Dice::of(&[seed, TOKEN, tenant as u64]);
    format!("load-{tenant}-{:016x}{:016x}", dice.roll(), dice.roll())
}

/// What came of these requests. `all_there` is when the last workload was accepted, on the endpoint's clock.
pub fn shared(admissions: &[Admission], plan: &Plan, limits: KeyLimits, all_there: Duration) -> Shared {
    let tenant_of = |admission: &Admission| {
        let tag = admission.tag.map(|tag| tag as usize).filter(|tag| *tag < plan.tags());
        tag.map(|tag| plan.tenant(plan.workload_of_tag(tag)))
    };
    let mut last: Vec<Option<Duration>> = vec![None; plan.tenants];
    for admission in admissions {
        if let Some(tenant) = tenant_of(admission) {
            last[tenant] = last[tenant].max(Some(admission.at));
        }
    }
    let Some(end) = last.into_iter().min().flatten() else { return Shared::default() };
    let Some(window) = end.checked_sub(all_there).filter(|window| *window >= WINDOW_MIN) else {
        return Shared::default();
    };
    let within = admissions.iter().filter(|admission| (all_there..end).contains(&admission.at));
    let (mut requests, mut input, mut output, mut got) = (0, 0, 0, vec![0; plan.tenants]);
    for admission in within {
        requests += 1;
        input += admission.input;
        output += admission.output;
        if let Some(tenant) = tenant_of(admission) {
            got[tenant] += admission.input + admission.output;
        }
    }
    let minutes = window.as_secs_f64() / 60.0;
    let used = [
        (limits.requests_per_minute, requests),
        (limits.input_tokens_per_minute, input),
        (limits.output_tokens_per_minute, output),
    ];
    let used = used.into_iter().filter_map(|(limit, used)| Some(used as f64 / (limit? as f64 * minutes)));
    Shared { budget_used: used.reduce(f64::max), jain_index: (plan.tenants > 1).then(|| jain(&got)) }
}

/// The square of the sum over the sum of the squares, a tenant: 1 if all have the same.
fn jain(got: &[u64]) -> f64 {
    let sum: f64 = got.iter().map(|amount| *amount as f64).sum();
    let squares: f64 = got.iter().map(|amount| (*amount as f64).powi(2)).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (got.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::LogNormal;
    use crate::endpoint::profile::{Faults, Profile};
    use crate::shape::Shape;

    fn plan() -> Plan {
        let profile = Profile {
            seed: 1,
            latency_ms: LogNormal { median: 1.0, spread: 0.0 },
            answer_tokens: LogNormal { median: 9.0, spread: 0.0 },
            faults: Faults::default(),
        };
        let shape = Shape::Independent;
        Plan { shape, agents: 200, tenants: 2, calls: 1, text_bytes: 9, rounds: 1, pause_ms: 1, profile, nonce: 0 }
    }

    /// One request each 100 ms, by these tags.
    fn admitted(tags: impl Iterator<Item = u32>) -> Vec<Admission> {
        let at = |index: u64| Duration::from_millis(100 * index);
        (0..).zip(tags).map(|(index, tag)| Admission { at: at(index), tag: Some(tag), input: 6, output: 4 }).collect()
    }

    #[test]
    fn turns_are_even_and_one_after_the_other_is_not() {
        let limits = KeyLimits { requests_per_minute: Some(600), ..KeyLimits::default() };
        let even = admitted((0..200).map(|index| index / 2 + 100 * (index % 2)));
        let Shared { budget_used, jain_index } = shared(&even, &plan(), limits, Duration::ZERO);
        assert!(budget_used.is_some_and(|used| (used - 1.0).abs() < 0.01), "{budget_used:?}");
        assert!(jain_index.is_some_and(|index| index > 0.999), "{jain_index:?}");
        let in_a_row = admitted(0..200);
        let Shared { jain_index, .. } = shared(&in_a_row, &plan(), limits, Duration::ZERO);
        assert!(jain_index.is_some_and(|index| (index - 0.5).abs() < 0.01), "{jain_index:?}");
    }

    #[test]
    fn without_a_time_in_which_all_had_work_nothing_is_said() {
        let even = admitted((0..200).map(|index| index / 2 + 100 * (index % 2)));
        assert_eq!(shared(&even, &plan(), KeyLimits::default(), Duration::from_secs(19)), Shared::default());
        assert_eq!(shared(&[], &plan(), KeyLimits::default(), Duration::ZERO), Shared::default());
    }

    #[test]
    fn the_tightest_limit_counts() {
        let limits = KeyLimits {
            requests_per_minute: Some(6_000),
            input_tokens_per_minute: Some(4_000),
            ..KeyLimits::default()
        };
        let even = admitted((0..200).map(|index| index / 2 + 100 * (index % 2)));
        let used = shared(&even, &plan(), limits, Duration::ZERO).budget_used;
        assert!(used.is_some_and(|used| (used - 0.9).abs() < 0.01), "{used:?}");
    }
}

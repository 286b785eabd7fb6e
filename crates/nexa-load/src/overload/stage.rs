//! One stage: as it was driven, and what came of it in numbers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::figures::{Times, rounded};
use crate::sample::Sample;

/// What came of one stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stage {
    /// The multiple of the rate that was found.
    pub offered: f64,
    /// Submissions made a second, those that the clients held back among them.
    pub sent_per_s: f64,
    /// Workloads that ended well a second.
    pub goodput_per_s: f64,
    /// Accepted submissions.
    pub accepted: u64,
    /// Those that the server refused and told when to come back.
    pub refused: u64,
    /// Of these, how many for which reason, in the server's words.
    pub refused_for: BTreeMap<String, u64>,
    /// Those that the clients held back and told when to come back: the server never saw them.
    pub held_back: u64,
    /// Those that were not made, because too many were under way or the driver was late.
    pub missed: u64,
    /// From when one was sent until the server refused it, for all but the slowest hundredth.
    pub refusal_p99_ms: Option<f64>,
    /// The same of all refusals, those by the clients among them.
    pub told_p99_ms: Option<f64>,
    /// From acceptance to end of the accepted ones, for all but the slowest hundredth.
    pub run_p99_ms: Option<f64>,
    /// Processor time of the node, a second.
    pub node_cpu: Option<f64>,
    /// Processor time of the driver, a second.
    pub driver_cpu: Option<f64>,
}

/// One stage as it was driven. `from` and `to` count from the start.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) offered: f64,
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) began: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) sent: u64,
    pub(super) accepted: u64,
    /// How long each by a client took.
    pub(super) held_back: Times,
    pub(super) missed: u64,
    pub(super) refused_for: BTreeMap<String, u64>,
    /// How long each by the server took.
    pub(super) refusals: Times,
}

impl Span {
    /// How long each refusal took that a caller heard, whoever it was by.
    pub(super) fn told(&self) -> Times {
        let mut all = self.refusals.clone();
        all.add_all(&self.held_back);
        all
    }

    /// `lives` are of all workloads that ended well: from acceptance to end. The samples are of the node and the driver.
    pub(super) fn stage(&self, lives: &[(SystemTime, SystemTime)], node: &[Sample], driver: &[Sample]) -> Stage {
        let seconds = (self.to - self.from).as_secs_f64();
        let within = |at: &SystemTime| self.began <= *at && *at < self.ended;
        let good = lives.iter().filter(|(_, to)| within(to)).count();
        let runs = lives.iter().filter(|(from, _)| within(from));
        let runs: Times = runs.map(|(from, to)| to.duration_since(*from).unwrap_or_default()).collect();
        Stage {
            offered: self.offered,
            sent_per_s: rounded(self.sent as f64 / seconds),
            goodput_per_s: rounded(good as f64 / seconds),
            accepted: self.accepted,
            refused: self.refusals.len(),
            refused_for: self.refused_for.clone(),
            held_back: self.held_back.len(),
            missed: self.missed,
            refusal_p99_ms: self.refusals.ms(0.99),
            told_p99_ms: self.told().ms(0.99),
            run_p99_ms: runs.ms(0.99),
            node_cpu: self.cpu(node),
            driver_cpu: self.cpu(driver),
        }
    }

    fn samples<'a>(&self, samples: &'a [Sample], from: Duration, to: Duration) -> impl Iterator<Item = &'a Sample> {
        samples.iter().filter(move |sample| from <= sample.at && sample.at < to)
    }

    /// Processor time a second, from the first look within the stage to the last one.
    fn cpu(&self, samples: &[Sample]) -> Option<f64> {
        let first = self.samples(samples, self.from, self.to).next()?;
        let last = self.samples(samples, self.from, self.to).last()?;
        let seconds = (last.at - first.at).as_secs_f64();
        (seconds > 0.0).then(|| rounded((last.cpu_s - first.cpu_s) / seconds))
    }

    /// The most memory in the first half, and in the second.
    pub(super) fn memory(&self, samples: &[Sample]) -> (Option<f64>, Option<f64>) {
        let middle = self.from + (self.to - self.from) / 2;
        let most = |from, to| self.samples(samples, from, to).map(|sample| rounded(sample.rss_mib)).reduce(f64::max);
        (most(self.from, middle), most(middle, self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Span {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(100 + seconds);
        Span {
            offered: 10.0,
            from: Duration::from_secs(from),
            to: Duration::from_secs(to),
            began: at(0),
            ended: at(to - from),
            sent: 40,
            accepted: 3,
            held_back: vec![Duration::from_micros(5); 20].into_iter().collect(),
            missed: 1,
            refused_for: BTreeMap::new(),
            refusals: vec![Duration::from_millis(4); 17].into_iter().collect(),
        }
    }

    #[test]
    fn goodput_counts_what_ended_within_its_stage() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let lives = [(at(99), at(100)), (at(100), at(109)), (at(105), at(110)), (at(50), at(51))];
        let stage = span(3, 13).stage(&lives, &[], &[]);
        assert_eq!((stage.goodput_per_s, stage.sent_per_s), (0.2, 4.0));
        assert_eq!((stage.refused, stage.held_back, stage.node_cpu), (17, 20, None));
        let near = |ms: Option<f64>, wanted: f64| ms.is_some_and(|ms| (ms / wanted - 1.0).abs() < 2e-3);
        assert!(
            near(stage.run_p99_ms, 9_000.0) && near(stage.refusal_p99_ms, 4.0) && near(stage.told_p99_ms, 4.0),
            "{stage:?}"
        );
    }

    #[test]
    fn memory_is_the_most_of_each_half_and_processor_time_that_of_a_second() {
        let samples: Vec<Sample> = (0..10)
            .map(|second| Sample {
                at: Duration::from_secs(second),
                pss_mib: 0.0,
                rss_mib: 100.0 + second as f64,
                cpu_s: 7.0 + 1.5 * second as f64,
            })
            .collect();
        assert_eq!(span(0, 10).memory(&samples), (Some(104.0), Some(109.0)));
        assert_eq!(span(20, 30).memory(&samples), (None, None));
        assert_eq!((span(2, 8).cpu(&samples), span(9, 10).cpu(&samples)), (Some(1.5), None));
    }
}

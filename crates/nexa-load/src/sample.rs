//! What a process uses, looked up once a second in `/proc`. Where there is no such thing nothing is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks that are kept; then it stops looking.
const SAMPLES_MAX: usize = 86_400;
/// Units of processor time in a second, as `/proc` counts them on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When, from the start of the load.
    pub at: Duration,
    /// Memory: each shared page divided by those who share it.
    pub pss_mib: f64,
    /// Memory: each shared page in full.
    pub rss_mib: f64,
    /// Processor time used so far, by all processes that were looked at.
    pub cpu_s: f64,
}

/// Looks until it is told to stop, at all processes together. Which these are may change, as after a restart.
pub async fn sample(pids: watch::Receiver<Vec<u32>>, start: Instant, stop: CancellationToken) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut ticks = tokio::time::interval(EVERY);
    // What processes have used that are gone, and each that is there.
    let (mut before, mut used) = (0.0, BTreeMap::<u32, f64>::new());
    while samples.len() < SAMPLES_MAX {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let current = pids.borrow().clone();
        let gone: Vec<u32> = used.keys().copied().filter(|pid| !current.contains(pid)).collect();
        before += gone.iter().filter_map(|pid| used.remove(pid)).sum::<f64>();
        let looks: Vec<(u32, Sample)> = current.iter().filter_map(|pid| Some((*pid, look(*pid, start)?))).collect();
        used.extend(looks.iter().map(|(pid, look)| (*pid, look.cpu_s)));
        let sum = |of: fn(&Sample) -> f64| looks.iter().map(|(_, look)| of(look)).sum();
        if let Some((_, last)) = looks.last() {
            samples.push(Sample {
                at: last.at,
                pss_mib: sum(|look| look.pss_mib),
                rss_mib: sum(|look| look.rss_mib),
                cpu_s: before + used.values().sum::<f64>(),
            });
        }
    }
    samples
}

/// How memory grows over the last two thirds of the time, by least squares. `None` for less than a minute of it.
pub fn slope_mib_per_min(samples: &[Sample]) -> Option<f64> {
    let tail = &samples[samples.len() / 3..];
    let (first, last) = (tail.first()?, tail.last()?);
    if last.at.saturating_sub(first.at) < Duration::from_secs(40) {
        return None;
    }
    let count = tail.len() as f64;
    let minutes = |sample: &Sample| sample.at.as_secs_f64() / 60.0;
    let (at, pss) = tail.iter().fold((0.0, 0.0), |(at, pss), sample| (at + minutes(sample), pss + sample.pss_mib));
    let (at, pss) = (at / count, pss / count);
    let both: f64 = tail.iter().map(|sample| (minutes(sample) - at) * (sample.pss_mib - pss)).sum();
    let squares: f64 = tail.iter().map(|sample| (minutes(sample) - at).powi(2)).sum();
    Some(both / squares)
}

fn look(pid: u32, start: Instant) -> Option<Sample> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Sample {
        at: start.elapsed(),
        pss_mib: mib(&rollup, "Pss:")?,
        rss_mib: mib(&rollup, "Rss:")?,
        cpu_s: cpu_s(&stat)?,
    })
}

fn mib(rollup: &str, name: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// User and system time: the 14th and 15th field, counted behind the name, which may hold anything.
fn cpu_s(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_later_part() {
        let at = |second: u64, pss_mib| Sample { at: Duration::from_secs(second), pss_mib, rss_mib: 0.0, cpu_s: 0.0 };
        let rises: Vec<Sample> = (0..90)
            .map(|second| at(second, if second < 30 { second as f64 * 9.0 } else { 270.0 + second as f64 / 60.0 }))
            .collect();
        assert!(
            slope_mib_per_min(&rises).is_some_and(|slope| (slope - 1.0).abs() < 1e-6),
            "{:?}",
            slope_mib_per_min(&rises)
        );
        assert_eq!((slope_mib_per_min(&rises[..50]), slope_mib_per_min(&[])), (None, None));
    }

    #[test]
    fn the_words_of_proc_are_understood() {
        let rollup = "559 - 7ff ---p 00000000 00:00 0 [rollup]\nRss:  2048 kB\nPss:  1536 kB\nPss_Dirty:  9 kB\n";
        assert_eq!((mib(rollup, "Pss:"), mib(rollup, "Rss:"), mib("", "Pss:")), (Some(1.5), Some(2.0), None));
        let stat = "7 (a ) name) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_s(stat), Some(3.0));
    }
}

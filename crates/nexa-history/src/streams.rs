//! Streams by themselves: versions without gaps (ST-1), epochs that never fall (P1), one end, after which nothing comes (P5).

use std::collections::BTreeMap;

use nexa_types::{Epoch, StreamId, Version};

use crate::{Logged, Violation, What};

#[derive(Default)]
struct Seen {
    last: Version,
    highest: Epoch,
    end: Option<Version>,
}

/// Checks every stream of a log that is in its reading order.
pub fn check(log: &[Logged]) -> Vec<Violation> {
    let mut streams: BTreeMap<&StreamId, Seen> = BTreeMap::new();
    let mut found = Vec::new();
    for Logged { stream, version, epoch, what, .. } in log {
        let seen = streams.entry(stream).or_default();
        if *version != seen.last.next() {
            found.push(Violation::new("ST-1", format!("{stream} has version {version} after {}", seen.last)));
        }
        seen.last = *version;
        let epoch = epoch.unwrap_or_default();
        if epoch < seen.highest {
            found.push(Violation::new("P1", format!("{stream} v{version} is of {epoch} after {}", seen.highest)));
        }
        seen.highest = epoch.max(seen.highest);
        if let Some(end) = seen.end {
            found.push(Violation::new("P5", format!("{stream} v{version} ({what:?}) follows its end at {end}")));
        }
        if matches!(what, What::AgentEnded(_) | What::WorkloadEnded(_)) {
            seen.end = Some(*version);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use nexa_types::{AgentId, GlobalSeq, Timestamp, WorkloadId};

    use super::*;

    fn fact(version: u64, epoch: u64, what: What) -> Logged {
        let workload = WorkloadId::from_bytes([1; 16]);
        Logged {
            position: GlobalSeq(version),
            stream: StreamId::Agent(AgentId::root(workload)),
            version: Version(version),
            epoch: Some(Epoch(epoch)),
            at: Timestamp(version),
            workload: Some(workload),
            what,
        }
    }

    fn ids(log: &[Logged]) -> Vec<&'static str> {
        check(log).iter().map(|violation| violation.id).collect()
    }

    #[test]
    fn a_gap_a_fallen_epoch_and_a_fact_after_the_end_are_found() {
        let good = [fact(1, 0, What::Other), fact(2, 1, What::Other), fact(3, 2, What::AgentEnded(true))];
        assert_eq!(ids(&good), [""; 0]);
        assert_eq!(ids(&[fact(1, 1, What::Other), fact(3, 1, What::Other)]), ["ST-1"]);
        assert_eq!(ids(&[fact(1, 2, What::Other), fact(2, 1, What::Other)]), ["P1"]);
        assert_eq!(ids(&[fact(1, 1, What::AgentEnded(true)), fact(2, 1, What::AgentEnded(true))]), ["P5"]);
    }
}

//! What clients were told: that it stays (P2), that it fits one order (P21), and that a cancel is heeded (P21).
//!
//! A workload is absent, lives, and has ended in one way: it only ever goes on. So an order of all operations on it exists
//! exactly if no operation that had returned shows more than a later one does, and no two show different ends: no search is
//! needed.

use std::collections::{BTreeMap, BTreeSet};

use nexa_types::{GlobalSeq, WorkloadId};

use crate::{Call, Logged, Operation, Standing, Told, Violation, What};

/// Every workload whose submission was acknowledged is in the log, and has ended there once. One whose submission is
/// unknown may be there; then it has ended as well. `has_settled` is false for a run that was broken off.
pub fn kept(log: &[Logged], calls: &[Call], has_settled: bool) -> Vec<Violation> {
    let (mut there, mut ended): (BTreeSet<WorkloadId>, BTreeSet<WorkloadId>) = Default::default();
    for fact in log {
        match (&fact.what, fact.workload) {
            (What::Submitted, Some(workload)) => drop(there.insert(workload)),
            (What::WorkloadEnded(_), Some(workload)) => drop(ended.insert(workload)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for Call { workload, .. } in calls.iter().filter(|call| is_done(call, Operation::Submit)) {
        if !there.contains(workload) {
            found.push(Violation::new("P2", format!("{workload} was acknowledged and is not in the log")));
        }
    }
    for workload in there.iter().filter(|workload| has_settled && !ended.contains(workload)) {
        found.push(Violation::new("P2", format!("{workload} was accepted and has not ended")));
    }
    found
}

fn is_done(call: &Call, operation: Operation) -> bool {
    call.operation == operation && matches!(call.told, Told::Ok(_))
}

/// What is known at least of a workload once this call has returned.
fn shows(call: &Call) -> Option<Standing> {
    match (call.operation, call.told) {
        (Operation::Get, Told::Ok(standing)) => standing,
        (Operation::Submit | Operation::Cancel, Told::Ok(_)) => Some(Standing::Live),
        (_, Told::Fail | Told::Unknown) => None,
    }
}

/// What clients saw of each workload fits one order.
pub fn orderly(calls: &[Call]) -> Vec<Violation> {
    let mut by_workload: BTreeMap<WorkloadId, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        by_workload.entry(call.workload).or_default().push(call);
    }
    let mut found = Vec::new();
    for (workload, mut calls) in by_workload {
        // By when they returned: whoever was invoked after that must see at least as much.
        calls.sort_by_key(|call| call.returned);
        let (mut ends, mut most): (BTreeSet<&str>, Vec<(u64, Standing)>) = Default::default();
        for call in &calls {
            let Some(standing) = shows(call) else { continue };
            if let Standing::Ended(how) = standing {
                ends.insert(how);
            }
            let rank = |standing: &Standing| match standing {
                Standing::Absent => 0,
                Standing::Live => 1,
                Standing::Ended(_) => 2,
            };
            let before = most.iter().take_while(|(returned, _)| *returned < call.invoked).last();
            let asked = call.operation == Operation::Get;
            if let Some((_, known)) = before.filter(|(_, known)| asked && rank(known) > rank(&standing)) {
                let text = format!("{workload} was {known:?}, and a later question had {standing:?} as its answer");
                found.push(Violation::new("P21", text));
            }
            let highest = most.last().map_or(standing, |(_, highest)| (*highest).max(standing));
            most.push((call.returned, highest));
        }
        if ends.len() > 1 {
            found.push(Violation::new("P21", format!("{workload} was shown to have ended as {ends:?}")));
        }
    }
    found
}

/// Nothing of a workload is started after a cancel that was acknowledged: it stands in the log before whatever came after it.
pub fn cancelled(log: &[Logged], calls: &[Call]) -> Vec<Violation> {
    let wanted: BTreeSet<WorkloadId> =
        calls.iter().filter(|call| is_done(call, Operation::Cancel)).map(|call| call.workload).collect();
    let positions = log.iter().filter(|fact| fact.what == What::CancelRequested);
    let positions = positions.filter_map(|fact| Some((fact.workload?, fact.position)));
    starts_after(log, &positions.filter(|(workload, _)| wanted.contains(workload)).collect())
}

/// The same by the position in the log from which a cancel holds.
pub fn starts_after(log: &[Logged], cancels: &BTreeMap<WorkloadId, GlobalSeq>) -> Vec<Violation> {
    let mut found = Vec::new();
    for Logged { position, workload, stream, version, what, .. } in log {
        let cancelled = workload.and_then(|workload| cancels.get(&workload));
        if matches!(what, What::Started(..)) && cancelled.is_some_and(|cancelled| position > cancelled) {
            let text = format!("{stream} v{version} started an effect after an acknowledged cancel");
            found.push(Violation::new("P21", text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, invoked: u64, returned: u64, told: Told) -> Call {
        Call { operation, workload: WorkloadId::from_bytes([1; 16]), invoked, returned, told }
    }

    fn get(invoked: u64, returned: u64, standing: Standing) -> Call {
        call(Operation::Get, invoked, returned, Told::Ok(Some(standing)))
    }

    #[test]
    fn a_workload_that_was_acknowledged_and_is_not_there_is_found() {
        assert_eq!(kept(&[], &[call(Operation::Submit, 1, 2, Told::Ok(None))], true).len(), 1);
        assert_eq!(kept(&[], &[call(Operation::Submit, 1, 2, Told::Unknown)], true), []);
    }

    #[test]
    fn a_later_question_never_shows_less() {
        let submitted = || call(Operation::Submit, 1, 5, Told::Ok(None));
        assert_eq!(orderly(&[submitted(), get(6, 7, Standing::Live), get(8, 9, Standing::Ended("succeeded"))]), []);
        assert_eq!(orderly(&[submitted(), get(3, 7, Standing::Absent)]), [], "they overlap");
        assert_eq!(orderly(&[submitted(), get(6, 7, Standing::Absent)]).len(), 1);
        assert_eq!(orderly(&[get(1, 2, Standing::Ended("succeeded")), get(3, 4, Standing::Live)]).len(), 1);
        assert_eq!(orderly(&[get(1, 9, Standing::Ended("succeeded")), get(3, 4, Standing::Live)]), [], "they overlap");
    }

    #[test]
    fn a_workload_ends_in_one_way() {
        let ends = [get(1, 2, Standing::Ended("failed")), get(3, 4, Standing::Ended("succeeded"))];
        assert_eq!(orderly(&ends).len(), 1);
    }
}

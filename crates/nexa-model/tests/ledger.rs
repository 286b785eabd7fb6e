//! Every state of a call of a tool, with two deaths or other faults; and what is missed when a rule is left out.

use nexa_model::ledger::{Bounds, Ledger, Plant};
use nexa_model::{Effort, Report, check};

fn look(plant: Option<Plant>, bounds: Bounds) -> Report {
    check("ledger", Ledger { bounds, plant }, Effort::default())
}

fn is_missed(plant: Plant, by: &str) {
    let report = look(Some(plant), Bounds::SMALL);
    assert!(report.broken().any(|property| property.name.contains(by)), "{plant:?} is not missed: {report}");
}

#[test]
fn a_call_that_changes_something_is_made_once_or_is_unknown() {
    let report = look(None, Bounds::SMALL);
    assert!(report.holds(), "{report}");
    assert!(report.states > 1_000, "the world was too quiet: {report}");
}

#[test]
#[ignore = "takes minutes: cargo xtask test --slow"]
fn a_call_that_changes_something_is_made_once_or_is_unknown_whatever_goes_wrong_thrice() {
    let report = look(None, Bounds::LARGE);
    assert!(report.holds(), "{report}");
}

#[test]
fn a_node_that_sends_before_it_records_is_noticed() {
    is_missed(Plant::SendFirst, "RT-1");
}

#[test]
fn a_new_owner_that_makes_a_call_again_is_noticed() {
    is_missed(Plant::Repeat, "at most once");
}

/// What an earlier build did: it paid twice.
#[test]
fn a_node_that_acts_by_the_right_of_whoever_overtook_it_is_noticed() {
    is_missed(Plant::Outrun, "at most once");
}

#[test]
fn a_node_that_trusts_an_append_in_doubt_is_noticed() {
    is_missed(Plant::TrustDoubt, "RT-1");
}

/// The first try did it and its owner died; the next one was refused, which was recorded as a failure without effect. Each try
/// was told of rightly, the call was not.
#[test]
fn a_call_that_may_be_repeated_is_unknown_when_a_later_try_is_refused_and_an_earlier_one_may_have_done_it() {
    let report = look(None, Bounds { is_idempotent: true, ..Bounds::SMALL });
    assert!(report.holds(), "{report}");
}

#[test]
#[ignore = "takes minutes: cargo xtask test --slow"]
fn a_call_that_may_be_repeated_is_done_or_unknown_whatever_goes_wrong_thrice() {
    let report = look(None, Bounds { is_idempotent: true, ..Bounds::LARGE });
    assert!(report.holds(), "{report}");
}

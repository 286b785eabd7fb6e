//! Every state of two nodes, an agent and a fault; and what is missed when a rule is left out.

use nexa_model::ownership::{Bounds, Ownership, Plant};
use nexa_model::{Effort, Report, check};

fn look(plant: Option<Plant>, bounds: Bounds) -> Report {
    check("ownership", Ownership { bounds, plant }, Effort::default())
}

fn is_missed(plant: Plant, by: &str) {
    let report = look(Some(plant), Bounds::SMALL);
    assert!(report.broken().any(|property| property.name.contains(by)), "{plant:?} is not missed: {report}");
}

#[test]
fn an_agent_has_one_owner_whatever_goes_wrong_once() {
    let report = look(None, Bounds::SMALL);
    assert!(report.holds(), "{report}");
    assert!(report.states > 1_000, "the world was too quiet: {report}");
}

#[test]
#[ignore = "takes minutes: cargo xtask test --slow"]
fn an_agent_has_one_owner_whatever_goes_wrong_twice() {
    let report = look(None, Bounds::LARGE);
    assert!(report.holds(), "{report}");
}

#[test]
fn a_store_without_a_fence_is_noticed() {
    is_missed(Plant::StoreFence, "ST-2");
}

#[test]
fn a_store_that_obeys_an_earlier_leader_is_noticed() {
    is_missed(Plant::LeaderFence, "LD-1");
}

#[test]
fn a_node_that_sends_without_a_lease_is_noticed() {
    is_missed(Plant::LeaseFence, "without a lease");
}

#[test]
fn a_node_that_sends_before_it_records_is_noticed() {
    is_missed(Plant::SendFirst, "RT-1");
}

#[test]
fn a_lease_that_ends_for_others_before_it_ends_for_its_holder_is_noticed() {
    is_missed(Plant::EarlyEnd, "while its lease counts");
}

#[test]
fn a_node_that_believes_every_row_with_its_name_is_noticed() {
    is_missed(Plant::AnyRow, "RT-1");
}

#[test]
fn a_node_that_acts_by_the_right_of_whoever_overtook_it_is_noticed() {
    is_missed(Plant::Outrun, "records of one epoch");
}

/// What an earlier build did: a leader that had not heard of a new run gave away what that had just taken over.
#[test]
fn a_leader_that_gives_away_what_a_new_run_has_because_its_news_are_old_is_noticed() {
    let report = look(Some(Plant::OldNews), Bounds { faults: 2, ..Bounds::SMALL });
    assert!(report.broken().any(|property| property.name == "the same of a run in place of another"), "{report}");
}

#[test]
#[ignore = "takes a minute: cargo xtask test --slow"]
fn a_new_run_keeps_what_it_has_taken_over_from_a_leader_that_has_not_heard_of_it() {
    let report = look(None, Bounds { faults: 2, ..Bounds::SMALL });
    assert!(report.holds(), "{report}");
}

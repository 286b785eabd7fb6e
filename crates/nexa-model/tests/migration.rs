//! Every state of an agent that moves with a call in flight and a message in its inbox, and a fault.

use nexa_model::ledger::{Bounds, Ledger, Plant};
use nexa_model::{Effort, Report, check};

fn look(plant: Option<Plant>, bounds: Bounds) -> Report {
    check("migration", Ledger { bounds, plant }, Effort::default())
}

#[test]
fn an_agent_that_moves_loses_no_answer_and_no_message_and_calls_nothing_twice() {
    let report = look(None, Bounds::MOVING_SMALL);
    assert!(report.holds(), "{report}");
    assert!(report.states > 1_000, "the world was too quiet: {report}");
}

#[test]
#[ignore = "takes minutes: cargo xtask test --slow"]
fn an_agent_that_moves_twice_or_for_which_two_things_go_wrong_loses_nothing() {
    for bounds in [Bounds::MOVING_TWICE, Bounds::MOVING_LARGE] {
        let report = look(None, bounds);
        assert!(report.holds(), "{report}");
    }
}

#[test]
fn a_carrier_that_forgets_what_it_has_offered_is_noticed() {
    let report = look(Some(Plant::OfferOnce), Bounds::MOVING_SMALL);
    assert!(report.broken().any(|property| property.name.contains("at rest")), "{report}");
}

#[test]
fn a_carrier_whose_end_nobody_hears_of_is_noticed() {
    let report = look(Some(Plant::NoMourning), Bounds::MOVING_SMALL);
    assert!(report.broken().any(|property| property.name.contains("at rest")), "{report}");
}

#[test]
fn a_node_that_gives_an_agent_away_and_does_not_say_what_goes_on_for_it_is_noticed() {
    let report = look(Some(Plant::NoCarrier), Bounds::MOVING_SMALL);
    assert!(report.broken().any(|property| property.name.contains("P15")), "{report}");
}

#[test]
fn a_node_that_waits_for_a_carrier_that_it_knows_to_be_gone_is_noticed() {
    let report = look(Some(Plant::AwaitTheDead), Bounds::MOVING_SMALL);
    assert!(report.broken().any(|property| property.name.contains("at rest")), "{report}");
}

#[test]
fn an_earlier_owner_that_takes_the_answer_to_what_a_later_one_has_sent_is_noticed() {
    let report = look(Some(Plant::SettleUnknown), Bounds::MOVING_SMALL);
    assert!(report.broken().any(|property| property.name.contains("at rest")), "{report}");
}

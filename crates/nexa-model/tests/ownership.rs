//! Every state of two nodes, an agent and a fault; and what is missed when a rule is left out.

use nexa_model::ownership::{Bounds, Ownership, Plant};
use nexa_model::{Effort, Report, check};

fn look(plant: Option<Plant>, bounds: Bounds, new_runs: bool) -> Report {
    check("ownership", Ownership { bounds, plant, new_runs }, Effort::default())
}

fn is_missed(plant: Plant, faults: u8, by: &str) {
    let bounds = Bounds { faults, ..Bounds::SMALL };
    let report = look(Some(plant), bounds, false);
    assert!(report.broken().any(|property| property.name.contains(by)), "{plant:?} is not missed: {report}");
}

#[test]
fn an_agent_has_one_owner_whatever_goes_wrong_once() {
    let report = look(None, Bounds::SMALL, false);
    assert!(report.holds(), "{report}");
    assert!(report.states > 1_000, "the world was too quiet: {report}");
}

#[test]
#[ignore = "takes minutes: cargo test --release -p nexa-model -- --ignored"]
fn an_agent_has_one_owner_whatever_goes_wrong_twice() {
    let report = look(None, Bounds::LARGE, false);
    assert!(report.holds(), "{report}");
}

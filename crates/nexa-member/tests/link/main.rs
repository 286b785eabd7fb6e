//! Two ends of a lane and a network that breaks, over random histories.

mod world;

use nexa_member::link::MESSAGE_COST;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use world::{BODY_MAX, Op, WINDOW, World, op};

/// Histories as numbers: drawn and shrunk fast.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec((0..100u8, any::<u16>()), 1..160).prop_map(|drawn| drawn.into_iter().map(op).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_message_arrives_once_and_in_order_or_comes_back(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.step(op).map_err(TestCaseError::fail)?;
        }
        world.settle().map_err(TestCaseError::fail)?;
    }
}

#[test]
fn the_histories_do_what_they_are_for() {
    // A model in which nothing ever gets through would hold every property.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut delivered, mut back, mut resent) = (0, 0, 0);
    for _ in 0..500 {
        let ops = ops().new_tree(&mut runner).expect("a history").current();
        let mut world = World::new();
        for op in &ops {
            world.step(op).expect("holds");
        }
        resent += world.sent_again;
        delivered += world.delivered.len();
        back += world.fates.values().filter(|fate| fate.given_back && fate.delivered == 0).count();
    }
    assert!(delivered > 1_000 && back > 500 && resent > 100, "{delivered} delivered, {back} back, {resent} sent again");
    const { assert!(BODY_MAX + MESSAGE_COST < WINDOW) };
}

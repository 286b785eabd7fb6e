//! What holds for every plan, over random graphs and clusters.

mod common;

use common::{World, cases, worlds};
use nexa_sched::{KEEP_MARGIN_PERCENT, PlanError, SchedulePlan, check, plan};
use proptest::prelude::*;

/// A plan, or nothing where somebody fits nowhere.
fn planned(world: &World, previous: Option<&SchedulePlan>) -> Option<SchedulePlan> {
    match plan(&world.problem(), previous) {
        Ok(plan) => Some(plan),
        Err(PlanError::DoesNotFit { .. } | PlanError::GangDoesNotFit { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

fn nodes(plan: &SchedulePlan) -> Vec<u32> {
    plan.allocation.iter().map(|slot| slot.node).collect()
}

proptest! {
    #![proptest_config(cases(10_000))]

    /// Capacity, dependencies with transfers, gangs, concurrency and budgets, at every moment; everybody is planned; and
    /// nothing is faster than the lower bound. All of that is what `check` says.
    #[test]
    fn a_plan_keeps_what_it_must(world in worlds()) {
        if let Some(plan) = planned(&world, None) {
            prop_assert_eq!(check(&world.problem(), &plan), Ok(()));
            prop_assert!(plan.allocation.iter().all(|slot| (slot.node as usize) < world.cluster.nodes.len()));
        }
    }

    /// Counted from slots alone: where nodes hold fewer than are allowed, a plan does not look at the limit, and so `check`
    /// does not either.
    #[test]
    fn no_more_run_at_once_than_may(world in worlds()) {
        let Some(plan) = planned(&world, None) else { return Ok(()) };
        for slot in &plan.allocation {
            let at_once = plan.allocation.iter().filter(|it| it.start <= slot.start && slot.start < it.end).count();
            prop_assert!(at_once <= world.config.max_concurrent_agents, "{} at {}", at_once, slot.start);
        }
    }

    #[test]
    fn a_plan_solved_twice_moves_nothing(world in worlds()) {
        if let Some(first) = planned(&world, None) {
            let second = planned(&world, Some(&first)).expect("it fitted before");
            prop_assert_eq!(nodes(&second), nodes(&first));
            prop_assert!(second.estimated_total_time <= first.estimated_total_time);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_plan(world in worlds()) {
        prop_assert_eq!(plan(&world.problem(), None), plan(&world.problem(), None));
    }

    /// When everything goes as planned, whenever one looks nothing ends later, and nothing moves unless it gains enough.
    #[test]
    fn a_plan_that_is_kept_to_stays(world in worlds(), permille in 0u64..1_100) {
        if let Some(first) = planned(&world, None) {
            let later = world.later(&first, permille);
            let second = planned(&later, Some(&first)).expect("it fitted before");
            prop_assert_eq!(check(&later.problem(), &second), Ok(()));
            let (left, takes) = ((world.now + first.estimated_total_time - later.now).0, second.estimated_total_time.0);
            prop_assert!(takes <= left);
            prop_assert!(nodes(&second) == nodes(&first) || takes * (100 + KEEP_MARGIN_PERCENT) < left * 100);
        }
    }

    /// Without the plan that it came from, too.
    #[test]
    fn what_has_started_stays(world in worlds(), permille in 0u64..1_100) {
        if let Some(first) = planned(&world, None) {
            let later = world.later(&first, permille);
            let second = planned(&later, None).expect("it fitted before");
            prop_assert_eq!(check(&later.problem(), &second), Ok(()));
        }
    }
}

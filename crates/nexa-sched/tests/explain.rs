//! What holds of every explanation, over random graphs and clusters; and some that a person can follow.

mod common;

use common::{World, cases, node, worlds};
use nexa_sched::{
    AgentScheduleInfo, Cluster, ExplainError, Explainer, Network, Outcome, PlanError, Problem, ProviderBudget,
    Resource, Resources, SchedulePlan, SchedulerConfig, Slot, TaskGraph, Violation, Wait, WaitReason, check, explain,
    plan,
};
use nexa_types::{Millis, Tokens};
use proptest::prelude::*;

fn planned(world: &World) -> Option<SchedulePlan> {
    match plan(&world.problem(), None) {
        Ok(plan) => Some(plan),
        Err(PlanError::DoesNotFit { .. } | PlanError::GangDoesNotFit { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    /// Waits fill the time from now to the start, and explaining one task changes nothing for the next.
    #[test]
    fn waits_follow_each_other_until_the_start(world in worlds()) {
        let Some(plan) = planned(&world) else { return Ok(()) };
        let problem = world.problem();
        let mut explainer = Explainer::new(&problem, &plan).expect("a plan for this problem");
        let first: Vec<_> = (0..world.graph.len() as u32).map(|task| explainer.explain(task).expect("a task")).collect();
        for explained in &first {
            prop_assert_eq!(&explainer.explain(explained.task).expect("a task"), explained);
            if explained.has_started {
                prop_assert!(explained.waits.is_empty() && explained.alternatives.is_empty());
                continue;
            }
            let mut at = problem.now;
            for wait in &explained.waits {
                prop_assert_eq!(wait.from, at);
                prop_assert!(wait.until > wait.from);
                if let WaitReason::Capacity { holders, .. } = &wait.reason {
                    prop_assert!(!holders.is_empty());
                }
                at = wait.until;
            }
            prop_assert_eq!(at, explained.slot.start);
        }
    }

    /// A task that is put where an explanation says it could run breaks nothing, but that others wait for it longer.
    #[test]
    fn a_task_could_run_where_it_is_said_to(world in worlds()) {
        let Some(plan) = planned(&world) else { return Ok(()) };
        let problem = world.problem();
        let mut explainer = Explainer::new(&problem, &plan).expect("a plan for this problem");
        for task in 0..world.graph.len() as u32 {
            let explained = explainer.explain(task).expect("a task");
            let is_alone = world.graph.gang(task).is_none();
            for other in &explained.alternatives {
                let Outcome::Runs { start, end } = other.outcome else { continue };
                if other.node == explained.slot.node && is_alone {
                    prop_assert!(end <= explained.slot.end, "it ends later where it is than it does");
                }
                let mut moved = plan.clone();
                moved.allocation[task as usize] = Slot { node: other.node, start, end };
                match check(&problem, &moved) {
                    Ok(()) | Err(Violation::Total { .. }) => {}
                    Err(Violation::Dependency { dependency, .. }) => prop_assert_eq!(dependency, task),
                    Err(Violation::Gang { .. }) => prop_assert!(!is_alone),
                    Err(other) => prop_assert!(false, "{other}"),
                }
            }
        }
    }
}

fn cluster(nodes: Vec<nexa_sched::NodeInfo>) -> Cluster {
    Cluster { nodes, network: Network { latency: Millis(5), bytes_per_ms: 0 } }
}

fn agent(id: &str, after: &[&str]) -> AgentScheduleInfo {
    AgentScheduleInfo {
        dependencies: after.iter().map(|id| (*id).to_owned()).collect(),
        requirements: Resources { cpu_milli: 1_000, memory_bytes: 0, llm_slots: 0 },
        ..AgentScheduleInfo::new(id)
    }
}

/// The waits of a task: until when, and why.
fn waits(agents: Vec<AgentScheduleInfo>, cluster: &Cluster, budgets: &[ProviderBudget], id: &str) -> Vec<Wait> {
    let graph = TaskGraph::new(agents).expect("a graph");
    let config = SchedulerConfig { max_concurrent_agents: 2, ..SchedulerConfig::default() };
    let (progress, now) = (&[], Millis(0));
    let problem = Problem { graph: &graph, cluster, config: &config, budgets, progress, now, seed: 0 };
    let plan = plan(&problem, None).expect("a plan");
    explain(&problem, &plan, graph.task(id).expect("a task")).expect("an explanation").waits
}

#[test]
fn a_task_waits_for_its_dependency_and_then_for_its_result() {
    let mut first = agent("first", &[]);
    first.labels.insert("zone".to_owned(), "eu".to_owned());
    let mut second = agent("second", &["first"]);
    second.labels.insert("zone".to_owned(), "us".to_owned());
    let cluster = cluster(vec![node(0, 100, 1, 1, 1, "eu"), node(1, 100, 1, 1, 1, "us")]);
    let found = waits(vec![first, second], &cluster, &[], "second");
    let wait = |from, until, reason| Wait { from: Millis(from), until: Millis(until), reason };
    assert_eq!(
        found,
        [wait(0, 2_000, WaitReason::Dependency { task: 0 }), wait(2_000, 2_005, WaitReason::Transfer { task: 0 }),]
    );
}

#[test]
fn a_task_waits_for_room_on_its_node() {
    let cluster = cluster(vec![node(0, 100, 1, 1, 1, "eu")]);
    let found = waits(vec![agent("a", &[]), agent("b", &[])], &cluster, &[], "b");
    let [Wait { reason: WaitReason::Capacity { resource, holders }, until, .. }] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((*resource, holders.as_slice(), *until), (Resource::Cpu, &[0][..], Millis(2_000)));
}

#[test]
fn a_task_waits_for_what_all_nodes_share() {
    let cluster = cluster(vec![node(0, 100, 8, 1, 1, "eu")]);
    let found = waits(vec![agent("a", &[]), agent("b", &[]), agent("c", &[])], &cluster, &[], "c");
    assert!(
        matches!(found.as_slice(), [Wait { reason: WaitReason::Limit { limit }, .. }] if limit.contains("2 agents"))
    );
    let asking = |id: &str| AgentScheduleInfo {
        model: Some(nexa_sched::ModelNeed {
            provider: "acme".to_owned(),
            requests: 1,
            input_tokens: Tokens(0),
            output_tokens: Tokens(0),
        }),
        ..agent(id, &[])
    };
    let budget = ProviderBudget { requests_per_minute: Some(1), ..ProviderBudget::unlimited("acme") };
    let found = waits(vec![asking("a"), asking("b")], &cluster, &[budget], "b");
    let [Wait { reason: WaitReason::Limit { limit }, until, .. }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((limit.as_str(), *until), (r#""acme" takes 1 requests a minute"#, Millis(60_000)));
}

#[test]
fn a_member_waits_for_its_gang() {
    let member = |id: &str, after: &[&str]| AgentScheduleInfo { gang: Some("g".to_owned()), ..agent(id, after) };
    let cluster = cluster(vec![node(0, 100, 8, 1, 1, "eu")]);
    let found = waits(vec![agent("a", &[]), member("b", &["a"]), member("c", &[])], &cluster, &[], "c");
    let until_then = Wait { from: Millis(0), until: Millis(2_000), reason: WaitReason::Gang { task: 1 } };
    assert_eq!(found, [until_then]);
}

#[test]
fn what_cannot_be_explained_is_refused() {
    let graph = TaskGraph::new(vec![agent("a", &[])]).expect("a graph");
    let cluster = cluster(vec![node(0, 100, 8, 1, 1, "eu")]);
    let config = SchedulerConfig::default();
    let (progress, now) = (&[], Millis(0));
    let problem = Problem { graph: &graph, cluster: &cluster, config: &config, budgets: &[], progress, now, seed: 0 };
    let mut made = plan(&problem, None).expect("a plan");
    assert_eq!(explain(&problem, &made, 7), Err(ExplainError::NoTask { task: 7 }));
    made.allocation[0].node = 9;
    assert_eq!(explain(&problem, &made, 0), Err(ExplainError::OtherPlan));
}

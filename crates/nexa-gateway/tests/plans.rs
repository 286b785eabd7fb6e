//! The plan of a workload through a door.

mod desk;

use desk::Desk;
use nexa_proto::v1;
use nexa_proto::v1::workload_service_submit_request::Program;

const SOURCE: &str = r#"
agent A { prompt: "a", schedule: { estimate: 3s } }
agent B { prompt: "b" }
agent M(parts: list[str]) { prompt: "m" }
flow main(t: str) -> str { return t |>> [A, B] &>> M }
"#;

async fn planned(desk: &Desk, program: Program, input: &str) -> Result<v1::Plan, nexa_client::ClientError> {
    let request =
        v1::WorkloadServiceSubmitRequest { program: Some(program), input_json: input.to_owned(), ..Default::default() };
    let workload_id = desk.client.submit(request).await?.workload_id;
    let request = v1::WorkloadServiceGetPlanRequest { workload_id };
    Ok(desk.client.plan(request).await?.plan.expect("a plan"))
}

/// Each task: its stage, where it runs, from when to when.
fn shown(plan: &v1::Plan) -> Vec<(&str, u32, &str, u64, u64)> {
    let task = |task: &'_ v1::PlannedTask| (task.stage, task.start_ms, task.end_ms);
    plan.tasks
        .iter()
        .map(|one| {
            let (stage, start, end) = task(one);
            (one.id.as_str(), stage, one.node.as_str(), start, end)
        })
        .collect()
}

#[tokio::test]
async fn a_program_is_planned_on_the_node_by_its_graph() {
    let desk = Desk::open().await;
    let source = Program::Source(v1::Source { name: "p.nx".into(), text: SOURCE.into() });
    let plan = planned(&desk, source, r#"{"t":"x"}"#).await.expect("a plan");
    assert_eq!(
        shown(&plan),
        [("main/A", 0, "n1", 0, 3_000), ("main/B", 0, "n1", 0, 2_000), ("main/M", 1, "n1", 3_000, 5_000),]
    );
    assert_eq!((plan.estimated_total_ms, plan.counts_progress), (5_000, false));
    assert_eq!(plan.critical_path, ["main/A", "main/M"]);
    let [wait] = plan.tasks[2].waits.as_slice() else { panic!("one wait") };
    assert_eq!((wait.reason(), wait.tasks.as_slice()), (v1::PlanWaitReason::Dependency, &["main/A".to_owned()][..]));
}

#[tokio::test]
async fn a_list_is_planned_with_what_was_said_of_its_agents() {
    let desk = Desk::open().await;
    let agent = |id: &str, after: &[&str]| v1::AgentSpec {
        id: id.into(),
        prompt: "x".into(),
        after: after.iter().map(|id| (*id).to_owned()).collect(),
        ..Default::default()
    };
    let in_gang = |agent| v1::AgentSpec { gang: "g".into(), ..agent };
    let agents = vec![
        v1::AgentSpec { estimated_duration_ms: Some(700), ..agent("first", &[]) },
        in_gang(agent("one", &["first"])),
        in_gang(agent("other", &[])),
    ];
    let list = |agents| Program::AgentList(v1::AgentList { agents, on_failure: 0 });
    let plan = planned(&desk, list(agents), "").await.expect("a plan");
    let starts: Vec<(&str, u64)> = plan.tasks.iter().map(|task| (task.id.as_str(), task.start_ms)).collect();
    assert_eq!(starts, [("first", 0), ("one", 700), ("other", 700)]);
    assert_eq!(plan.tasks[2].waits[0].reason(), v1::PlanWaitReason::Gang);

    let labels = [("zone".to_owned(), "eu".to_owned())].into();
    let needs = v1::AgentNeeds { cpu_milli: Some(1_024_000), memory_mib: Some(64), ..Default::default() };
    let elsewhere = vec![v1::AgentSpec { labels, needs: Some(needs), ..agent("away", &[]) }];
    let plan = planned(&desk, list(elsewhere), "").await.expect("a node alone runs everything");
    assert_eq!(plan.tasks[0].node, "n1");
}

//! Plans of a server, as text and as JSON.

use nexa_proto::v1;
use nexa_types::Millis;
use serde_json::{Value, json};

use super::plan::seconds;
use super::table::table;

/// A plan as lines.
pub fn to_text(plan: &v1::Plan) -> String {
    let total = seconds(Millis(plan.estimated_total_ms));
    let bound = seconds(Millis(plan.lower_bound_ms));
    let mut text = format!("{} tasks: {total}; no plan takes less than {bound}\n", plan.tasks.len());
    if !plan.counts_progress {
        text += "planned as if nothing had run yet\n";
    }
    text += "\n";
    let mut tasks: Vec<&v1::PlannedTask> = plan.tasks.iter().collect();
    tasks.sort_by_key(|task| (task.stage, task.start_ms));
    let mut last = None;
    let row = |task: &&v1::PlannedTask| {
        let is_new = last.replace(task.stage) != Some(task.stage);
        vec![
            if is_new { (task.stage + 1).to_string() } else { String::new() },
            task.id.clone(),
            task.node.clone(),
            seconds(Millis(task.start_ms)),
            seconds(Millis(task.end_ms)),
            task.waits.last().map(reason).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = tasks.iter().map(row).collect();
    text + &table(&["STAGE", "TASK", "NODE", "START", "END", "WAITS LAST FOR"], &rows)
}

fn reason(wait: &v1::PlanWait) -> String {
    let tasks = wait.tasks.join(", ");
    match wait.reason() {
        v1::PlanWaitReason::Unspecified => String::new(),
        v1::PlanWaitReason::Dependency => tasks,
        v1::PlanWaitReason::Transfer => format!("the result of {tasks}"),
        v1::PlanWaitReason::Gang => format!("{tasks} of its gang"),
        v1::PlanWaitReason::Capacity => {
            let what = match wait.resource.as_str() {
                "cpu_milli" => "cores",
                "memory_bytes" => "memory",
                _ => "model slots",
            };
            format!("{what}, held by {tasks}")
        }
        v1::PlanWaitReason::Limit => format!("its turn: {}", wait.limit),
        v1::PlanWaitReason::Order => "its turn".to_owned(),
    }
}

/// A plan as one object.
pub fn to_json(plan: &v1::Plan) -> Value {
    let wait = |wait: &v1::PlanWait| {
        let reason = wait.reason().as_str_name().trim_start_matches("PLAN_WAIT_REASON_").to_ascii_lowercase();
        json!({
            "from_ms": wait.from_ms, "until_ms": wait.until_ms, "reason": reason,
            "tasks": wait.tasks, "resource": wait.resource, "limit": wait.limit,
        })
    };
    let task = |task: &v1::PlannedTask| {
        json!({
            "id": task.id, "stage": task.stage, "node": task.node, "start_ms": task.start_ms, "end_ms": task.end_ms,
            "is_critical": task.is_critical, "waits": task.waits.iter().map(wait).collect::<Vec<_>>(),
        })
    };
    json!({
        "allocation": plan.tasks.iter().map(task).collect::<Vec<_>>(), "critical_path": plan.critical_path,
        "estimated_total_time_ms": plan.estimated_total_ms, "lower_bound_ms": plan.lower_bound_ms,
        "counts_progress": plan.counts_progress,
    })
}

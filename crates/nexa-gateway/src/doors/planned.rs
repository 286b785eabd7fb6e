//! Plans as messages.

use nexa_proto::v1;
use nexa_sched::{Resource, Wait, WaitReason};

use crate::mediator::Planned;

pub(super) fn plan(planned: &Planned) -> v1::Plan {
    let Planned { graph, cluster, plan, explained } = planned;
    let name = |task: u32| graph.agents().get(task as usize).map(|agent| agent.id.clone()).unwrap_or_default();
    let mut stage_of = vec![0; graph.len()];
    for (stage, tasks) in (0u32..).zip(&plan.stages) {
        for task in tasks {
            stage_of[*task as usize] = stage;
        }
    }
    let task = |task: &u32| {
        let place = *task as usize;
        let slot = plan.allocation.get(place)?;
        let node = cluster.nodes.get(slot.node as usize)?;
        let waits = explained.get(place).map(|explained| explained.waits.as_slice()).unwrap_or_default();
        Some(v1::PlannedTask {
            id: name(*task),
            stage: stage_of[place],
            node: node.id.to_string(),
            start_ms: slot.start.0,
            end_ms: slot.end.0,
            is_critical: plan.critical_path.contains(task),
            waits: waits.iter().map(|one| wait(one, name)).collect(),
        })
    };
    v1::Plan {
        tasks: graph.topological().iter().filter_map(task).collect(),
        critical_path: plan.critical_path.iter().map(|task| name(*task)).collect(),
        estimated_total_ms: plan.estimated_total_time.0,
        lower_bound_ms: plan.lower_bound.0,
        counts_progress: false,
    }
}

fn wait(wait: &Wait, name: impl Fn(u32) -> String) -> v1::PlanWait {
    let mut message = v1::PlanWait { from_ms: wait.from.0, until_ms: wait.until.0, ..v1::PlanWait::default() };
    let reason = match &wait.reason {
        WaitReason::Dependency { task } => {
            message.tasks.push(name(*task));
            v1::PlanWaitReason::Dependency
        }
        WaitReason::Transfer { task } => {
            message.tasks.push(name(*task));
            v1::PlanWaitReason::Transfer
        }
        WaitReason::Gang { task } => {
            message.tasks.push(name(*task));
            v1::PlanWaitReason::Gang
        }
        WaitReason::Capacity { resource, holders } => {
            message.tasks = holders.iter().map(|task| name(*task)).collect();
            message.resource = match resource {
                Resource::Cpu => "cpu_milli",
                Resource::Memory => "memory_bytes",
                Resource::LlmSlots => "llm_slots",
            }
            .to_owned();
            v1::PlanWaitReason::Capacity
        }
        WaitReason::Limit { limit } => {
            message.limit.clone_from(limit);
            v1::PlanWaitReason::Limit
        }
        WaitReason::Order => v1::PlanWaitReason::Order,
    };
    message.set_reason(reason);
    message
}

//! Ours: a plan of `nexa_sched::plan`, carried out by `nexa_sched::Dispatch`, and planned again as that says.

use nexa_sched::{
    AgentScheduleInfo, Cluster, Dispatch, DispatchLimits, Learned, PlanError, Problem, Progress, SchedulePlan,
    SchedulerConfig, TaskGraph, plan,
};
use nexa_types::Millis;

use super::{Fixed, Order, Policy, Seen, Start, Status, Workflow};

/// A workflow that is planned, and planned again when the plan is off.
#[derive(Debug)]
pub struct Planner {
    /// As they were believed to be before the first started.
    agents: Vec<AgentScheduleInfo>,
    dispatch: Dispatch,
    learned: Learned,
    plans: usize,
}

impl Planner {
    /// For a workflow whose tasks are believed to take these durations.
    #[must_use]
    pub fn new(workflow: &Workflow, estimates: &[Millis], limits: DispatchLimits) -> Self {
        let agents = workflow.agents(estimates);
        Self { agents, dispatch: Dispatch::new(limits), learned: Learned::default(), plans: 0 }
    }

    /// How often it has planned.
    #[must_use]
    pub const fn plans(&self) -> usize {
        self.plans
    }

    fn plan(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let learned = |agent: &AgentScheduleInfo| AgentScheduleInfo {
            estimated_duration: self.learned.estimate(agent),
            ..agent.clone()
        };
        let graph = graph(self.agents.iter().map(learned).collect());
        let progress: Vec<Progress> = seen.status.iter().map(Progress::from).collect();
        let plan = planned(&graph, seen.world.cluster, &progress, seen.now).map_err(|error| error.to_string())?;
        let is_waiting = |task: u32| seen.status[task as usize] == Status::Waiting;
        self.dispatch.adopt(plan, &graph, seen.world.cluster.nodes.len(), seen.now, is_waiting);
        self.plans += 1;
        Ok(())
    }
}

impl From<&Status> for Progress {
    fn from(status: &Status) -> Self {
        match *status {
            Status::Waiting => Self::Waiting,
            Status::Running { node, since } => Self::Running { node, since },
            Status::Ended { node, at, .. } => Self::Ended { node, at },
        }
    }
}

impl Policy for Planner {
    fn node_of(&self, task: u32) -> Option<u32> {
        self.dispatch.plan().map(|plan| plan.allocation[task as usize].node)
    }

    fn happened(&mut self, seen: &Seen<'_>, ended: &[u32]) -> Result<(), String> {
        for task in ended {
            let Status::Ended { node, since, at } = seen.status[*task as usize] else { continue };
            let speed = seen.world.cluster.nodes[node as usize].speed;
            let took = Millis((at - since).0.saturating_mul(u64::from(speed)) / 100);
            self.learned.observe(&self.agents[*task as usize], took);
            self.dispatch.ended(*task, at);
        }
        if self.dispatch.is_due(seen.now) { self.plan(seen) } else { Ok(()) }
    }

    fn next(&mut self, seen: &Seen<'_>) -> Option<Start> {
        // There are no gangs here: those that start together are one.
        let started = self.dispatch.next(|one| one.iter().all(|(task, node)| seen.can_start(*task, *node)));
        started.first().map(|&(task, node)| Start { task, node })
    }
}

/// The first plan, carried out as it is, whatever happens.
///
/// # Errors
/// Where there is no plan.
pub fn planned_once(workflow: &Workflow, cluster: &Cluster, estimates: &[Millis]) -> Result<Fixed, PlanError> {
    let graph = graph(workflow.agents(estimates));
    let plan = planned(&graph, cluster, &[], Millis(0))?;
    let slots: Vec<(u32, Millis)> = plan.allocation.iter().map(|slot| (slot.node, slot.start)).collect();
    Ok(Fixed::new(&slots, workflow.topological(), cluster.nodes.len(), Order::Strict))
}

fn graph(agents: Vec<AgentScheduleInfo>) -> TaskGraph {
    TaskGraph::new(agents).expect("a workflow has tasks, without cycles, each with its own id")
}

fn planned(
    graph: &TaskGraph,
    cluster: &Cluster,
    progress: &[Progress],
    now: Millis,
) -> Result<SchedulePlan, PlanError> {
    let config = SchedulerConfig::default();
    plan(&Problem { graph, cluster, config: &config, budgets: &[], progress, now, seed: 1 }, None)
}

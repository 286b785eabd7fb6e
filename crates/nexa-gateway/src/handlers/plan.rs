//! The plan of a workload on this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_event::envelope::Fact;
use nexa_event::fact::{self, AgentEvent, WorkloadEvent};
use nexa_proto::refusal::Refusal;
use nexa_sched::{
    AgentScheduleInfo, Cluster, Explainer, Network, NodeInfo, Problem, Resources, SchedulerConfig, TaskGraph,
    agents_of_entry, agents_of_list,
};
use nexa_types::{Millis, Reason, StreamId, Version};
use nexa_vm::module::Entry;
use nexa_vm::vm::Program;

use super::{By, Handlers, program_refusal, store_refusal};
use crate::mediator::{GetPlan, Planned};

/// Tasks whose waits are told.
const EXPLAINED_MAX: u32 = 1_000;
/// Model requests under way at a time on a node: as good as no limit.
const LLM_SLOTS: u64 = 1 << 20;

impl Handlers {
    /// Planned anew at each question, and as if nothing had run: which agent a task became is not kept.
    pub(super) async fn get_plan(&self, by: &By, get: GetPlan) -> Result<Planned, Refusal> {
        let first = self.own_workload(by, get.workload).await?;
        let Fact::Workload(WorkloadEvent::Submitted { root, .. }) = first.envelope.fact else {
            return Err(corrupt(&get));
        };
        let born = self.store.read(StreamId::Agent(root), Version(0), 1).await.map_err(store_refusal)?;
        let Some(Fact::Agent(AgentEvent::Spawned(spawned))) = born.into_iter().next().map(|born| born.envelope.fact)
        else {
            return Err(corrupt(&get));
        };
        let module = spawned.program.module();
        let program = self.host.program(by.tenant(), module).await.map_err(program_refusal)?;
        let (cluster, config) = (self.this_node(), self.host.scheduler());
        // A list of ten thousand takes tens of milliseconds.
        let work = move || made(agents(&program, &spawned), cluster, &config);
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "planning panicked");
            Err(Refusal::new(Reason::Internal, "the plan met a bug; the log has more"))
        })
    }

    fn this_node(&self) -> Cluster {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let capacity = Resources {
            cpu_milli: cores as u64 * 1_000,
            memory_bytes: self.host.stats().memory_max.unwrap_or(u64::MAX),
            llm_slots: LLM_SLOTS,
        };
        let id = self.host.id().clone();
        let node = NodeInfo { id, capacity, speed: 100, labels: BTreeMap::new(), is_cordoned: false };
        Cluster { nodes: vec![node], network: Network { latency: Millis(0), bytes_per_ms: 0 } }
    }
}

/// What a root agent will run.
fn agents(program: &Arc<Program>, spawned: &fact::Spawned) -> Vec<AgentScheduleInfo> {
    let module = program.module();
    match &spawned.program {
        fact::Program::List { items, .. } => agents_of_list(module, items, ""),
        fact::Program::Function { entry, .. } => {
            let known = module.entries.iter().find(|known| known.function == *entry);
            let unnamed = || Entry {
                name: spawned.name.clone(),
                is_agent: false,
                function: *entry,
                params: Vec::new(),
                result: 0,
                budget: spawned.budget,
            };
            agents_of_entry(module, &known.cloned().unwrap_or_else(unnamed), "")
        }
    }
}

fn made(agents: Vec<AgentScheduleInfo>, cluster: Cluster, config: &SchedulerConfig) -> Result<Planned, Refusal> {
    let refused = |error: &dyn std::fmt::Display| {
        Refusal::new(Reason::InvalidArgument, format!("there is no plan: {error}"))
            .hint("what does not fit here runs as soon as there is room, or on another node")
    };
    let graph = TaskGraph::new(agents).map_err(|error| refused(&error))?;
    let problem =
        Problem { graph: &graph, cluster: &cluster, config, budgets: &[], progress: &[], now: Millis(0), seed: 0 };
    let plan = nexa_sched::plan(&problem, None).map_err(|error| refused(&error))?;
    let mut explainer = Explainer::new(&problem, &plan).map_err(|error| refused(&error))?;
    let told = 0..EXPLAINED_MAX.min(graph.len() as u32);
    let explained = told.map(|task| explainer.explain(task)).collect::<Result<Vec<_>, _>>();
    let explained = explained.map_err(|error| refused(&error))?;
    Ok(Planned { graph, cluster, plan, explained })
}

fn corrupt(get: &GetPlan) -> Refusal {
    Refusal::new(Reason::DataCorrupt, format!("`{}` does not begin with its request", get.workload))
}

//! The plan of a workload on the nodes that are there.
//!
//! What is asked of nodes counts as it does when agents are placed: among several, and not on a node alone, which runs
//! everything.

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

use super::nodes::fleet_refusal;
use super::{By, Handlers, program_refusal, store_refusal};
use crate::fleet::{NodeState, NodeView};
use crate::mediator::{GetPlan, Planned};

/// Tasks whose waits are told.
const EXPLAINED_MAX: u32 = 1_000;
/// Model requests under way at a time on a node: as good as no limit.
const LLM_SLOTS: u64 = 1 << 20;

/// What is sent between nodes counts for nothing beside what models take.
const NETWORK: Network = Network { latency: Millis(0), bytes_per_ms: 0 };

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
        let (cluster, config) = (self.cluster().await?, self.host.scheduler());
        let is_alone = self.neighbours.is_none();
        // A list of ten thousand takes tens of milliseconds.
        let work = move || {
            let mut agents = agents(&program, &spawned);
            if is_alone {
                agents.iter_mut().for_each(|agent| ask_nothing_beyond(&cluster, agent));
            }
            made(agents, cluster, &config)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "planning panicked");
            Err(Refusal::new(Reason::Internal, "the plan met a bug; the log has more"))
        })
    }

    /// The nodes as they are now; those that are given nothing new are cordoned.
    async fn cluster(&self) -> Result<Cluster, Refusal> {
        if self.neighbours.is_none() {
            return Ok(self.this_node());
        }
        let node = |node: NodeView| NodeInfo {
            id: node.id,
            capacity: Resources {
                cpu_milli: node.cpu_milli,
                memory_bytes: if node.memory_bytes == 0 { u64::MAX } else { node.memory_bytes },
                llm_slots: LLM_SLOTS,
            },
            speed: 100,
            labels: node.labels,
            is_cordoned: node.state != NodeState::Ready,
        };
        let nodes = self.fleet.nodes().await.map_err(fleet_refusal)?;
        Ok(Cluster { nodes: nodes.into_iter().map(node).collect(), network: NETWORK })
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
        Cluster { nodes: vec![node], network: NETWORK }
    }
}

/// A node alone runs an agent whatever it asks for: nothing of it is more than there is.
fn ask_nothing_beyond(cluster: &Cluster, agent: &mut AgentScheduleInfo) {
    agent.labels.clear();
    for node in &cluster.nodes {
        let Resources { cpu_milli, memory_bytes, llm_slots } = &mut agent.requirements;
        *cpu_milli = node.capacity.cpu_milli.min(*cpu_milli);
        *memory_bytes = node.capacity.memory_bytes.min(*memory_bytes);
        *llm_slots = node.capacity.llm_slots.min(*llm_slots);
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

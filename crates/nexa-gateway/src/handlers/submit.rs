//! Submit: from a request to a durable workload with its root agent, in one append.
//!
//! The workload's id is a function of tenant and request id, so asking again finds the first answer in the stream: an
//! equal request is answered with it, another one under the same id is refused. Nothing is compiled a second time then.
//! A request for a kept program does not look first: it is appended, and looks when the store has it already.

use std::collections::HashMap;
use std::sync::Arc;

use nexa_agent::coordinator;
use nexa_event::envelope::Fact;
use nexa_event::fact::{self, AgentEvent, ItemSchedule, ListItem, Spawned, WorkloadEvent};
use nexa_lang::{AgentSpec, Needs};
use nexa_ports::store::{Append, AppendError, Birth, Guard};
use nexa_proto::refusal::{Refusal, Violation};
use nexa_runtime::Newborn;
use nexa_types::{AgentId, Budget, Millis, ModuleHash, NodeId, Reason, StreamId, Version, WorkloadId};
use nexa_vm::vm::Program;

use super::{By, Handlers, input, program_refusal, store_refusal};
use crate::admission::Entrance;
use crate::mediator::{ListedAgent, Submit, Submitted, What};

/// The name of a list without one.
const LIST_NAME: &str = "list";

/// What the root agent runs.
struct Root {
    name: String,
    program: fact::Program,
    budget: Budget,
}

/// What a root is born with.
struct Terms {
    owner: Option<NodeId>,
    priority: u8,
    budget: Budget,
}

impl Handlers {
    pub(super) async fn submit(&self, by: &By, submit: Submit) -> Result<Submitted, Refusal> {
        self.still_open()?;
        let workload = WorkloadId::of(by.tenant(), submit.request);
        let request_hash = hash(&submit);
        // A kept program costs nothing to look up, and the store tells one request from two by itself.
        let is_cheap =
            matches!(submit.what, What::Kept { .. }) && !matches!(by.entrance, Some(Entrance::UnlessKnown(..)));
        if !is_cheap && let Some(answer) = self.submitted_before(workload, request_hash).await? {
            return Ok(answer);
        }
        self.still_wanted(by)?;
        let Submit { request, what, name, priority, budget } = submit;
        let root = self.root(by, what).await?;
        let name = if name.is_empty() { root.name.clone() } else { name };
        let answer = Submitted { workload, root: AgentId::root(workload), module: root.program.module() };
        self.still_wanted(by)?;
        let owner = self.claim_owner();
        if self.neighbours.is_some() && owner.is_some() {
            self.host.bears(answer.root);
        }
        let append = self.birth(by, answer, root, Terms { owner, priority, budget }, |budget| {
            WorkloadEvent::Submitted { request, request_hash, name, root: answer.root, budget, priority }
        });
        let newborn = append.births.first().and_then(|birth| Newborn::of(birth, &append.stamp));
        match self.store.append(vec![append]).await.pop() {
            Some(Ok(_)) => {
                match newborn {
                    Some(newborn) => self.host.wake_newborn(newborn),
                    None => self.tell([(answer.root, None)]),
                }
                if let Some(Entrance::Place(place)) = &by.entrance {
                    place.accepted(workload, answer.root);
                }
                Ok(answer)
            }
            // Somebody sent the same request at the same moment.
            Some(Err(AppendError::VersionConflict { .. })) => {
                let before = self.submitted_before(workload, request_hash).await?;
                before.ok_or_else(|| Refusal::new(Reason::Internal, "the store refused a new workload"))
            }
            Some(Err(AppendError::Store(error))) => Err(store_refusal(error)),
            Some(Err(error)) => Err(Refusal::new(Reason::Internal, error.to_string())),
            None => Err(Refusal::new(Reason::Internal, "the store did not answer an append")),
        }
    }

    /// The answer to the same request, if it was accepted before.
    async fn submitted_before(
        &self,
        workload: WorkloadId,
        request_hash: [u8; 32],
    ) -> Result<Option<Submitted>, Refusal> {
        let first = self.store.read(StreamId::Workload(workload), Version(0), 1).await.map_err(store_refusal)?;
        let Some(first) = first.into_iter().next() else { return Ok(None) };
        let Fact::Workload(WorkloadEvent::Submitted { request_hash: before, root, .. }) = first.envelope.fact else {
            return Err(Refusal::new(Reason::DataCorrupt, format!("`{workload}` does not begin with its request")));
        };
        if before != request_hash {
            return Err(Refusal::new(Reason::AlreadyExists, "the request id was used for something else")
                .about("workload", workload)
                .hint("make a new request id for each new request"));
        }
        let module = self.root_module(root).await?;
        // The first sender may have died before it told anybody.
        let owner = match &self.neighbours {
            Some(_) => {
                let owner = self.store.row(root).await.map_err(store_refusal)?.and_then(|row| row.node);
                if owner.as_ref() != Some(self.host.id()) {
                    self.host.did_not_bear(root);
                }
                owner
            }
            None => None,
        };
        self.tell([(root, owner)]);
        Ok(Some(Submitted { workload, root, module }))
    }

    async fn root_module(&self, root: AgentId) -> Result<ModuleHash, Refusal> {
        let first = self.store.read(StreamId::Agent(root), Version(0), 1).await.map_err(store_refusal)?;
        match first.into_iter().next().map(|recorded| recorded.envelope.fact) {
            Some(Fact::Agent(AgentEvent::Spawned(spawned))) => Ok(spawned.program.module()),
            _ => Err(Refusal::new(Reason::DataCorrupt, format!("`{root}` does not begin with its birth"))),
        }
    }

    async fn root(&self, by: &By, what: What) -> Result<Root, Refusal> {
        match what {
            What::Program { program, entry, input } => {
                let (program, _) = self.keep_program(by, program, "").await?;
                function(&program, &entry, &input)
            }
            What::Kept { module, entry, input } => {
                let program = self.host.program(by.tenant(), module).await.map_err(program_refusal)?;
                self.follow_memory(program.module());
                function(&program, &entry, &input)
            }
            What::List { agents, on_failure } => {
                let compiled = self.compiler.list(agents.clone(), &by.gone).await?;
                let program = self.keep_module(by, &compiled.module, LIST_NAME).await?;
                let items = items(&agents, &compiled.functions)?;
                coordinator::validate(&items)
                    .map_err(|error| Refusal::field("agent_list.agents", error.to_string()))?;
                let config = self.host.scheduler();
                gangs_fit(&items, config.max_concurrent_agents)?;
                // Chosen once and recorded, so that a replay needs neither these settings nor this build.
                let turns = Some(coordinator::turns(&items, |priority| config.level(priority)));
                let program = fact::Program::List { module: program.hash(), items, on_failure, turns };
                Ok(Root { name: LIST_NAME.to_owned(), program, budget: Budget::default() })
            }
        }
    }

    /// Who is to own a new root: this node, if it runs alone, or as long as it has room for births of its own; else nobody
    /// before the leader says who. Takes one place of that room, which comes back with the next count of what the node owns
    /// if the root is not born here after all.
    fn claim_owner(&self) -> Option<NodeId> {
        let has_room = self.neighbours.as_ref().is_none_or(|neighbours| neighbours.room(1) > 0);
        has_room.then(|| self.host.id().clone())
    }

    fn birth(
        &self,
        by: &By,
        answer: Submitted,
        root: Root,
        Terms { owner, priority, budget }: Terms,
        submitted: impl FnOnce(Budget) -> WorkloadEvent,
    ) -> Append {
        let budget = budget.tighter(root.budget);
        let spawned = Spawned {
            workload: answer.workload,
            name: root.name,
            parent: None,
            program: root.program,
            budget,
            deadline: None,
            seed: seed(answer.root),
            depth: 0,
            priority,
            asks: None,
        };
        let birth = Birth {
            agent: answer.root,
            workload: answer.workload,
            node: owner,
            priority,
            first: Fact::Agent(AgentEvent::Spawned(spawned)),
        };
        Append {
            stream: StreamId::Workload(answer.workload),
            guard: Guard::Version,
            expected: Version(0),
            stamp: self.stamp(by),
            facts: vec![Fact::Workload(submitted(budget))],
            row: None,
            takes: Vec::new(),
            posts: Vec::new(),
            births: vec![birth],
            also: None,
        }
    }
}

fn function(program: &Arc<Program>, entry: &str, text: &str) -> Result<Root, Refusal> {
    let module = program.module();
    let entry = input::entry(module, entry)?;
    let args = input::arguments(module, entry, text)?;
    let program = fact::Program::Function { module: program.hash(), entry: entry.function, args };
    Ok(Root { name: entry.name.clone(), program, budget: entry.budget })
}

/// The dice of the root agent: as unpredictable as its request id, and the same for the same request.
fn seed(root: AgentId) -> u64 {
    let bytes = root.as_bytes();
    u64::from_le_bytes(std::array::from_fn(|index| bytes[index]))
}

/// The items of a list; dependencies become indices, wrong ones are named.
fn items(agents: &[ListedAgent], entries: &[u32]) -> Result<Vec<ListItem>, Refusal> {
    let by_id: HashMap<&str, u32> =
        agents.iter().zip(0u32..).map(|(agent, index)| (agent.spec.id.as_str(), index)).collect();
    let mut wrong = Vec::new();
    let mut items = Vec::with_capacity(agents.len());
    for (index, (agent, entry)) in agents.iter().zip(entries).enumerate() {
        let mut after = Vec::with_capacity(agent.after.len());
        for id in &agent.after {
            match by_id.get(id.as_str()) {
                Some(number) => after.push(*number),
                None => wrong.push(Violation {
                    field: format!("agent_list.agents[{index}].after"),
                    description: format!("there is no agent `{id}` in the list"),
                }),
            }
        }
        let field = format!("agent_list.agents[{index}].input_json");
        items.push(ListItem {
            id: agent.spec.id.clone(),
            entry: *entry,
            input: input::dynamic(&field, &agent.input)?,
            after,
            budget: agent.spec.budget,
            timeout: Some(Millis(agent.spec.timeout_ms)),
            schedule: schedule(&agent.spec),
        });
    }
    match wrong.first() {
        None => Ok(items),
        Some(first) => {
            let message = format!("{}: {}", first.field, first.description);
            let mut refusal = Refusal::new(Reason::InvalidArgument, message);
            refusal.violations = wrong;
            Err(refusal)
        }
    }
}

/// Whether as many may be at work at a time as each gang has members.
fn gangs_fit(items: &[ListItem], at_work_max: usize) -> Result<(), Refusal> {
    let mut gangs: HashMap<&str, usize> = HashMap::new();
    for gang in items.iter().filter_map(|item| item.schedule.as_ref()?.gang.as_deref()) {
        let members = gangs.entry(gang).or_default();
        *members += 1;
        if *members > at_work_max {
            let told = format!("gang `{gang}` has more members than the {at_work_max} agents that work at a time here");
            return Err(Refusal::field("agent_list.agents", told)
                .hint("make several of it, or raise `max_concurrent_agents` under `[scheduler]` in nexa.toml"));
        }
    }
    Ok(())
}

/// What was said of an agent for scheduling, if anything was.
fn schedule(spec: &AgentSpec) -> Option<ItemSchedule> {
    let usual = AgentSpec::default();
    (spec.is_scheduled() || spec.priority != usual.priority).then(|| ItemSchedule {
        priority: Some(spec.priority),
        estimate: spec.estimated_duration_ms.map(Millis),
        // It is within bounds, so nothing is cut off but what is below a thousandth.
        weight_milli: spec.weight.map(|weight| (weight * 1_000.0).round() as u32),
        gang: (!spec.gang.is_empty()).then(|| spec.gang.clone()),
        cpu_milli: spec.needs.cpu_milli,
        memory_bytes: spec.needs.memory_mib.map(|mib| mib << 20),
        llm_slots: spec.needs.llm_slots,
        labels: (!spec.labels.is_empty()).then(|| spec.labels.clone()),
    })
}

/// A hash of all that a request asks for, its id left out. Lengths keep the parts apart.
fn hash(submit: &Submit) -> [u8; 32] {
    let Submit { request: _, what, name, priority, budget } = submit;
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 submit request");
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(name.as_bytes());
    part(&[*priority]);
    part(&nexa_event::codec::encode(budget));
    match what {
        What::Program { program, entry, input } => {
            use crate::mediator::ProgramText;
            match program {
                ProgramText::Source { name, text } => {
                    part(b"source");
                    part(name.as_bytes());
                    part(text.as_bytes());
                }
                ProgramText::Module(bytes) => {
                    part(b"module");
                    part(bytes);
                }
            }
            part(entry.as_bytes());
            part(input.as_bytes());
        }
        What::Kept { module, entry, input } => {
            part(b"kept");
            part(module.as_bytes());
            part(entry.as_bytes());
            part(input.as_bytes());
        }
        What::List { agents, on_failure } => {
            part(b"list");
            part(&nexa_event::codec::encode(on_failure));
            for agent in agents.iter() {
                hash_agent(agent, &mut part);
            }
        }
    }
    *hasher.finalize().as_bytes()
}

fn hash_agent(agent: &ListedAgent, part: &mut dyn FnMut(&[u8])) {
    let ListedAgent { spec, input, after } = agent;
    let AgentSpec {
        id,
        name,
        role,
        prompt,
        models,
        temperature,
        top_p,
        max_tokens,
        seed,
        stop,
        budget,
        timeout_ms,
        retry_max,
        stream,
        priority,
        estimated_duration_ms,
        weight,
        gang,
        needs: Needs { cpu_milli, memory_mib, llm_slots },
        labels,
    } = spec;
    for text in [id, name, role, prompt, input] {
        part(text.as_bytes());
    }
    for texts in [models, stop, after] {
        part(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            part(text.as_bytes());
        }
    }
    part(&nexa_event::codec::encode(budget));
    part(&nexa_event::codec::encode(seed));
    for number in [temperature.to_bits(), top_p.to_bits(), *max_tokens, *timeout_ms, u64::from(*retry_max)] {
        part(&number.to_le_bytes());
    }
    part(&[u8::from(*stream), *priority]);
    // A request that says none of it has the hash that it had before one could.
    if spec.is_scheduled() {
        part(b"schedule");
        part(gang.as_bytes());
        let numbers = [*estimated_duration_ms, cpu_milli.map(u64::from), *memory_mib, llm_slots.map(u64::from)];
        part(&nexa_event::codec::encode(&numbers.to_vec()));
        part(&nexa_event::codec::encode(&weight.map(f64::to_bits)));
        part(&nexa_event::codec::encode(labels));
    }
}

//! A submitted list of agents, compiled without any text of a program.
//!
//! A list is data: ids, prompts, numbers. It becomes a checked program directly, agent by agent, so nothing in a prompt
//! can ever be read as code. Equal specifications share one agent.
//!
//! Every agent takes one argument: the item's input, or for an item with dependencies the record
//! `{ input, results }` that its coordinator builds.

use std::collections::{BTreeMap, HashMap, HashSet};

use nexa_event::effect::ToolChoice;
use nexa_types::Budget;
use nexa_types::limits::{HEAP_BYTES_MAX, LABEL_BYTES_MAX, LABELS_MAX, LIST_AGENTS_MAX, LIST_ID_BYTES_MAX};
use nexa_vm::module::{Module, Schedule};

use crate::check::{model_name_fault, waits};
use crate::compile::{self, Lines};
use crate::hir::{self, At, Entry, Expr, Target};
use crate::types::{Ty, TypeTable};

/// One item of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSpec {
    /// Its id in the list, for messages.
    pub id: String,
    /// The agent's name, as people and scripts see it; the id if empty.
    pub name: String,
    /// Who it is; may be empty.
    pub role: String,
    /// What it is to do; may be empty.
    pub prompt: String,
    /// Models to try in order, each `provider/name`; none is the project's default.
    pub models: Vec<String>,
    /// 0 to 2.
    pub temperature: f64,
    /// 0 to 1.
    pub top_p: f64,
    /// The most tokens of an answer, from 1.
    pub max_tokens: u64,
    /// Makes the choice of words repeatable.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Caps of its own.
    pub budget: Budget,
    /// The whole call, in milliseconds, from 1.
    pub timeout_ms: u64,
    /// Further tries of one model after a transient error.
    pub retry_max: u32,
    /// Whether pieces of the answer go to the client.
    pub stream: bool,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// How long it is expected to take, in milliseconds, if that is known.
    pub estimated_duration_ms: Option<u64>,
    /// Its share beside others, 0 to 1,000,000; 1 if nothing is said.
    pub weight: Option<f64>,
    /// Members of one gang start together, or none of them does; empty for none.
    pub gang: String,
    /// What it holds on its node while it runs.
    pub needs: Needs,
    /// Labels that its node must have.
    pub labels: BTreeMap<String, String>,
}

/// What an agent of a list holds on its node while it runs, as far as it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Cores, in thousandths.
    pub cpu_milli: Option<u32>,
    /// Memory, in MiB; also the limit of its heap.
    pub memory_mib: Option<u64>,
    /// Model requests under way at a time.
    pub llm_slots: Option<u32>,
}

impl AgentSpec {
    /// Whether something is said that only scheduling asks for, `priority` not counted.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.estimated_duration_ms.is_some()
            || self.weight.is_some()
            || !self.gang.is_empty()
            || self.needs != Needs::default()
            || !self.labels.is_empty()
    }
}

impl Default for AgentSpec {
    fn default() -> Self {
        let sampling = hir::Sampling::default();
        AgentSpec {
            id: String::new(),
            name: String::new(),
            role: String::new(),
            prompt: String::new(),
            models: Vec::new(),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            max_tokens: sampling.max_tokens,
            seed: sampling.seed,
            stop: sampling.stop,
            budget: Budget::default(),
            timeout_ms: 60_000,
            retry_max: 2,
            stream: false,
            priority: 128,
            estimated_duration_ms: None,
            weight: None,
            gang: String::new(),
            needs: Needs::default(),
            labels: BTreeMap::new(),
        }
    }
}

/// A compiled list.
#[derive(Clone, Debug)]
pub struct CompiledList {
    /// The module.
    pub module: Module,
    /// For each item, the function that runs it.
    pub functions: Vec<u32>,
}

/// The most that an agent of a list may weigh: its weight is kept in thousandths.
const WEIGHT_MAX: f64 = 1_000_000.0;

/// Why a list cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It is too long, or empty.
    #[error("a list has from 1 to {LIST_AGENTS_MAX} agents, and this has {count}; split it")]
    Length {
        /// How many it has.
        count: usize,
    },
    /// A setting is out of range.
    #[error("agent `{id}`: `{setting}` is {given}, and may be {allowed}")]
    Setting {
        /// The item.
        id: String,
        /// The setting.
        setting: &'static str,
        /// What was given.
        given: String,
        /// What may be given.
        allowed: &'static str,
    },
    /// It is beyond the machine's limits.
    #[error("the list is too large for one module: {what}; split it")]
    TooLarge {
        /// What there is too much of.
        what: String,
    },
}

/// Makes a module of a list of agents, and says which function runs which item.
///
/// # Errors
/// [`ListError`] names the item and what to change.
pub fn compile_list(items: &[AgentSpec]) -> Result<CompiledList, ListError> {
    if items.is_empty() || items.len() > LIST_AGENTS_MAX {
        return Err(ListError::Length { count: items.len() });
    }
    let mut program = hir::Program { types: TypeTable::default(), ..hir::Program::default() };
    // Looked up only, so the order does not matter. The key is all of a specification but its id and what is only asked
    // for before it runs.
    let mut known: HashMap<String, u32> = HashMap::new();
    let mut names: HashSet<String> = HashSet::new();
    let mut functions = Vec::with_capacity(items.len());
    for item in items {
        check_settings(item)?;
        let (gang, labels) = (String::new(), BTreeMap::new());
        let (id, name, estimated_duration_ms) = (String::new(), name_of(item).to_owned(), None);
        let key = format!("{:?}", AgentSpec { id, name, estimated_duration_ms, gang, labels, ..item.clone() });
        let next = program.agents.len() as u32;
        let number = *known.entry(key).or_insert(next);
        if number == next {
            let agent = agent_of(item);
            program.entries.push(Entry {
                // Two items may give one name to different agents; an entry's name is its own.
                name: if names.insert(agent.name.clone()) { agent.name.clone() } else { item.id.clone() },
                target: Target::Agent(number),
                params: vec![("input".to_owned(), Ty::Any, None)],
                result: Ty::Str,
                budget: agent.budget,
            });
            program.agents.push(agent);
        }
        functions.push(number);
    }
    let module =
        compile::compile(&program, &[Lines::default()]).map_err(|fault| ListError::TooLarge { what: fault.what })?;
    let functions = functions.into_iter().map(|number| module.agents[number as usize].function).collect();
    Ok(CompiledList { module, functions })
}

fn name_of(item: &AgentSpec) -> &str {
    if item.name.is_empty() { &item.id } else { &item.name }
}

fn agent_of(item: &AgentSpec) -> hir::Agent {
    let at = At::default();
    let text = |text: &str| (!text.is_empty()).then(|| Expr::text(text, at));
    hir::Agent {
        name: name_of(item).to_owned(),
        doc: String::new(),
        params: vec![("input".to_owned(), Ty::Any)],
        result: Ty::Str,
        role: text(&item.role),
        skills: Vec::new(),
        prompt: text(&item.prompt),
        models: if item.models.is_empty() { vec![String::new()] } else { item.models.clone() },
        sampling: hir::Sampling {
            temperature: item.temperature,
            top_p: item.top_p,
            max_tokens: item.max_tokens,
            seed: item.seed,
            stop: item.stop.clone(),
        },
        budget: item.budget,
        timeout: item.timeout_ms,
        backoff: waits(i64::from(item.retry_max), 500, 2.0),
        repair: 0,
        asks_conditions: false,
        stream: item.stream,
        cache: false,
        memory: None,
        requires: Vec::new(),
        ensures: Vec::new(),
        contract_locals: 0,
        is_told: false,
        clone_of: None,
        fallback: None,
        best_of: None,
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        max_tool_calls: 0,
        max_steps: None,
        schedule: schedule_of(item),
        at,
    }
}

fn schedule_of(item: &AgentSpec) -> Schedule {
    let usual = Schedule::default();
    Schedule {
        priority: item.priority,
        weight: item.weight.unwrap_or(usual.weight),
        estimate: usual.estimate,
        cpu_milli: item.needs.cpu_milli.unwrap_or(usual.cpu_milli),
        memory_bytes: item.needs.memory_mib.map_or(usual.memory_bytes, |mib| mib << 20),
        llm_slots: item.needs.llm_slots.unwrap_or(usual.llm_slots),
    }
}

fn check_settings(item: &AgentSpec) -> Result<(), ListError> {
    let refuse =
        |setting, given: String, allowed| Err(ListError::Setting { id: item.id.clone(), setting, given, allowed });
    if item.id.is_empty() {
        return refuse("id", "empty".to_owned(), "any text but an empty one");
    }
    if item.id.len() > LIST_ID_BYTES_MAX {
        let id = item.id.chars().take(32).chain(['…']).collect();
        let given = format!("{} bytes long", item.id.len());
        return Err(ListError::Setting { id, setting: "id", given, allowed: "at most 256 bytes" });
    }
    if !(0.0..=2.0).contains(&item.temperature) {
        return refuse("temperature", item.temperature.to_string(), "from 0 to 2");
    }
    if !(0.0..=1.0).contains(&item.top_p) {
        return refuse("top_p", item.top_p.to_string(), "from 0 to 1");
    }
    if !(1..=1_000_000).contains(&item.max_tokens) {
        return refuse("max_tokens", item.max_tokens.to_string(), "from 1 to 1000000");
    }
    if item.timeout_ms == 0 || item.timeout_ms > 30 * 24 * 3_600_000 {
        return refuse("timeout_ms", item.timeout_ms.to_string(), "from 1 to 2592000000");
    }
    if item.retry_max > 16 {
        return refuse("retry_max", item.retry_max.to_string(), "from 0 to 16");
    }
    if item.models.len() > 16 {
        return refuse("models", format!("a list of {}", item.models.len()), "at most 16 names");
    }
    if item.stop.len() > 16 {
        return refuse("stop", format!("a list of {}", item.stop.len()), "at most 16 texts");
    }
    if item.estimated_duration_ms.is_some_and(|estimate| estimate > 30 * 24 * 3_600_000) {
        let given = item.estimated_duration_ms.unwrap_or_default().to_string();
        return refuse("estimated_duration_ms", given, "from 0 to 2592000000");
    }
    if let Some(weight) = item.weight
        && !(0.0..=WEIGHT_MAX).contains(&weight)
    {
        return refuse("weight", weight.to_string(), "from 0 to 1000000");
    }
    if item.gang.len() > LIST_ID_BYTES_MAX {
        return refuse("gang", format!("{} bytes long", item.gang.len()), "at most 256 bytes");
    }
    check_needs(item.needs).or_else(|(setting, given, allowed)| refuse(setting, given, allowed))?;
    if item.labels.len() > LABELS_MAX {
        return refuse("labels", format!("a list of {}", item.labels.len()), "at most 16");
    }
    if item.labels.iter().any(|(name, value)| name.is_empty() || name.len().max(value.len()) > LABEL_BYTES_MAX) {
        return refuse("labels", "a label of another length".to_owned(), "names and values of at most 256 bytes");
    }
    for model in &item.models {
        if let Some(fault) = model_name_fault(model) {
            return refuse("models", format!("`{model}`: {fault}"), "names like `provider/name`");
        }
    }
    Ok(())
}

/// What is out of range of what an agent needs: the setting, what was given, and what may be.
fn check_needs(needs: Needs) -> Result<(), (&'static str, String, &'static str)> {
    const { assert!(HEAP_BYTES_MAX == 64 << 20, "the text below says 64") };
    match needs {
        Needs { cpu_milli: Some(cpu), .. } if cpu > 1_024_000 => {
            Err(("needs.cpu_milli", cpu.to_string(), "from 0 to 1024000"))
        }
        Needs { memory_mib: Some(mib), .. } if !(1..=HEAP_BYTES_MAX >> 20).contains(&mib) => {
            Err(("needs.memory_mib", mib.to_string(), "from 1 to 64"))
        }
        Needs { llm_slots: Some(slots), .. } if slots > 1_024 => {
            Err(("needs.llm_slots", slots.to_string(), "from 0 to 1024"))
        }
        Needs { .. } => Ok(()),
    }
}

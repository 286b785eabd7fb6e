//! What is submitted, and what must come out.
//!
//! Everything is a function of the plan and of a number, so the right output of any workload can be computed at any time,
//! and ten thousand texts need not be kept.
//!
//! | shape | a workload | its right output |
//! |---|---|---|
//! | independent | one agent that asks a model, or a flow that asks several times | the answer to its text |
//! | layers | a list of up to [`LIST_AGENTS`] agents in ten layers; each but the first comes after up to three of the layer above | the answer of each to its input and their results |
//! | pipelines | three agents, one after the other | the answer to the answer to the answer |
//! | sleepers | up to [`GROUP_AGENTS`] agents: one that passes messages, and those that sleep and hear them | a sum |

use std::collections::BTreeSet;

use nexa_proto::v1;
use nexa_proto::v1::workload_service_submit_request::Program;
use nexa_types::RequestId;
use serde_json::{Map, Value, json};

use crate::dice::Dice;
use crate::endpoint::profile::Profile;

/// Agents of one list.
pub const LIST_AGENTS: usize = 1_000;
/// Agents of one group of sleepers, the one that talks to them counted.
pub const GROUP_AGENTS: usize = 100;
/// Layers of a list.
const LAYERS: usize = 10;
/// Agents of the layer above that one comes after, at most.
const AFTER_MAX: u64 = 3;
/// Stages of a pipeline.
const STAGES: usize = 3;
/// Bytes of an item's own text in a list.
const LIST_TEXT_BYTES: usize = 256;
/// What the texts are made of.
const WORDS: [&str; 16] = [
    "harbour", "letter", "winter", "engine", "garden", "signal", "copper", "bridge", "market", "violin", "orchard",
    "compass", "ledger", "window", "meadow", "lantern",
];

/// What kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Each agent a workload of its own.
    Independent,
    /// Lists of agents that come after each other.
    Layers,
    /// Three agents in a row.
    Pipelines,
    /// Agents that sleep and pass messages.
    Sleepers,
}

impl Shape {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Layers => "layers",
            Self::Pipelines => "pipelines",
            Self::Sleepers => "sleepers",
        }
    }
}

/// Everything that decides what is submitted.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What kind of work.
    pub shape: Shape,
    /// How many agents in all.
    pub agents: usize,
    /// On behalf of how many tenants, one after the other. One is the local tenant, without a token.
    pub tenants: usize,
    /// Model calls of an independent agent, one after the other.
    pub calls: u32,
    /// Bytes of text that an agent is given.
    pub text_bytes: usize,
    /// How often a sleeper sleeps.
    pub rounds: u32,
    /// How long it sleeps each time.
    pub pause_ms: u64,
    /// What the model answers.
    pub profile: Profile,
    /// Makes the requests of two runs on one server different ones.
    pub nonce: u64,
}

/// What the dice are rolled for; keeps the streams apart.
const TEXT: u64 = 11;
const AFTER: u64 = 12;
const REQUEST: u64 = 13;

impl Plan {
    /// How many workloads.
    pub fn workloads(&self) -> usize {
        match self.shape {
            Shape::Independent => self.agents,
            Shape::Layers => self.agents.div_ceil(LIST_AGENTS),
            Shape::Pipelines => self.agents.div_ceil(STAGES),
            Shape::Sleepers => self.agents.div_ceil(GROUP_AGENTS),
        }
    }

    /// How many agents a workload is counted as.
    pub fn agents_of(&self, workload: usize) -> f64 {
        match self.shape {
            Shape::Independent | Shape::Pipelines => 1.0,
            Shape::Layers => self.list(workload).len() as f64,
            Shape::Sleepers => self.group(workload) as f64,
        }
    }

    /// Whose a workload is.
    pub fn tenant(&self, workload: usize) -> usize {
        workload * self.tenants / self.workloads().max(1)
    }

    /// How many tags its messages have.
    pub fn tags(&self) -> usize {
        match self.shape {
            Shape::Independent | Shape::Layers => self.agents,
            Shape::Pipelines => self.workloads(),
            Shape::Sleepers => 0,
        }
    }

    /// How many answers each of them gets.
    pub fn answers_per_tag(&self) -> u32 {
        match self.shape {
            Shape::Independent => self.calls,
            Shape::Layers => 1,
            Shape::Pipelines => STAGES as u32,
            Shape::Sleepers => 0,
        }
    }

    /// The workload that a tag belongs to.
    pub fn workload_of_tag(&self, tag: usize) -> usize {
        if self.shape == Shape::Layers { tag / LIST_AGENTS } else { tag }
    }

    /// The tags of a workload.
    pub fn tags_of_workload(&self, workload: usize) -> std::ops::Range<usize> {
        match self.shape {
            Shape::Layers => self.list(workload),
            Shape::Independent | Shape::Pipelines => workload..workload + 1,
            Shape::Sleepers => 0..0,
        }
    }

    /// Whether all agents ask a model at once, so that first answers may be held until all have.
    pub fn all_ask_at_once(&self) -> bool {
        self.shape == Shape::Independent
    }

    /// The program to put before anything is submitted.
    pub fn program(&self) -> Option<&'static str> {
        match self.shape {
            Shape::Independent => Some(include_str!("../programs/independent.nx")),
            Shape::Pipelines => Some(include_str!("../programs/pipelines.nx")),
            Shape::Sleepers => Some(include_str!("../programs/sleepers.nx")),
            Shape::Layers => None,
        }
    }

    /// The request id of a workload: a UUID of version 8 (RFC 9562, section 5.8).
    pub fn request_id(&self, workload: usize) -> RequestId {
        let mut dice = Dice::of(&[self.profile.seed, REQUEST, self.nonce, workload as u64]);
        let (high, low) = (dice.roll(), dice.roll());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        bytes[6] = bytes[6] & 0x0F | 0x80;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        RequestId::from_bytes(bytes)
    }

    /// The submission of a workload. `module` is the hash of the program that was put.
    pub fn submission(&self, workload: usize, module: &str) -> v1::WorkloadServiceSubmitRequest {
        let kept = || Some(Program::ModuleHash(module.to_owned()));
        let (program, entry, input) = match self.shape {
            Shape::Independent if self.calls == 1 => (kept(), "Ask", json!({ "text": self.text(workload) })),
            Shape::Independent => (kept(), "chain", json!({ "text": self.text(workload), "calls": self.calls })),
            Shape::Pipelines => (kept(), "main", json!({ "text": self.text(workload) })),
            Shape::Sleepers => {
                let sleepers = self.group(workload) - 1;
                let input =
                    json!({ "base": workload, "sleepers": sleepers, "rounds": self.rounds, "pause_ms": self.pause_ms });
                (kept(), "main", input)
            }
            Shape::Layers => (Some(Program::AgentList(self.agent_list(workload))), "", Value::Null),
        };
        v1::WorkloadServiceSubmitRequest {
            request_id: uuid_text(self.request_id(workload)),
            program,
            entry: entry.to_owned(),
            input_json: if input.is_null() { String::new() } else { input.to_string() },
            name: format!("load {workload}"),
            priority: None,
            budget: None,
        }
    }

    /// Whether this is the right output of a workload.
    pub fn is_right(&self, workload: usize, value_json: &str) -> bool {
        serde_json::from_str::<Value>(value_json).is_ok_and(|value| value == self.output(workload))
    }

    /// The right output of a workload.
    pub fn output(&self, workload: usize) -> Value {
        match self.shape {
            Shape::Independent if self.calls == 1 => json!(self.profile.answer(&self.text(workload))),
            Shape::Independent => {
                let text = self.text(workload);
                let next = |answer: String, _| self.profile.answer(&format!("{text}\n{answer}"));
                json!((0..self.calls).fold(String::new(), next))
            }
            Shape::Pipelines => json!((0..STAGES).fold(self.text(workload), |text, _| self.profile.answer(&text))),
            Shape::Sleepers => {
                let (sleepers, rounds) = (self.group(workload) as u64 - 1, u64::from(self.rounds));
                // Each sleeper `i` hears `base + round * i` in each round.
                let bases = workload as u64 * sleepers * rounds;
                let products = (rounds * rounds.saturating_sub(1) / 2) * (sleepers * sleepers.saturating_sub(1) / 2);
                json!(bases + products)
            }
            Shape::Layers => Value::Object(self.list_output(workload)),
        }
    }

    /// The text of a tag, which it begins with.
    fn text(&self, tag: usize) -> String {
        let bytes = if self.shape == Shape::Layers { LIST_TEXT_BYTES } else { self.text_bytes };
        let mut dice = Dice::of(&[self.profile.seed, TEXT, tag as u64]);
        let mut text = format!("#{tag}");
        while text.len() < bytes {
            text.push(' ');
            text.push_str(WORDS[(dice.roll() % WORDS.len() as u64) as usize]);
        }
        text
    }

    fn group(&self, workload: usize) -> usize {
        (self.agents - workload * GROUP_AGENTS).min(GROUP_AGENTS)
    }

    fn list(&self, workload: usize) -> std::ops::Range<usize> {
        workload * LIST_AGENTS..((workload + 1) * LIST_AGENTS).min(self.agents)
    }

    /// Which of its list an agent comes after, in order.
    fn after(&self, list: &std::ops::Range<usize>, tag: usize) -> BTreeSet<usize> {
        let width = list.len().div_ceil(LAYERS);
        let layer = (tag - list.start) / width;
        if layer == 0 {
            return BTreeSet::new();
        }
        let above = list.start + (layer - 1) * width;
        let mut dice = Dice::of(&[self.profile.seed, AFTER, tag as u64]);
        let count = 1 + dice.below(AFTER_MAX);
        (0..count).map(|_| above + dice.below(width as u64) as usize).collect()
    }

    fn agent_list(&self, workload: usize) -> v1::AgentList {
        let list = self.list(workload);
        let agent = |tag: usize| v1::AgentSpec {
            id: format!("n{tag}"),
            name: "Node".to_owned(),
            prompt: "Say what follows from the results for the text.".to_owned(),
            temperature: Some(0.0),
            input_json: json!(self.text(tag)).to_string(),
            after: self.after(&list, tag).into_iter().map(|above| format!("n{above}")).collect(),
            timeout_ms: Some(3_600_000),
            retry_max: Some(6),
            ..v1::AgentSpec::default()
        };
        let agents = list.clone().map(agent).collect();
        v1::AgentList { agents, on_failure: v1::OnFailure::FailFast.into() }
    }

    /// The items of a workload that is a list, each with the indices of those that it comes after.
    pub fn items(&self, workload: usize) -> Vec<(String, Vec<u32>)> {
        if self.shape != Shape::Layers {
            return Vec::new();
        }
        let list = self.list(workload);
        let after = |tag| self.after(&list, tag).into_iter().map(|above| (above - list.start) as u32).collect();
        list.clone().map(|tag| (format!("n{tag}"), after(tag))).collect()
    }

    fn list_output(&self, workload: usize) -> Map<String, Value> {
        let list = self.list(workload);
        let mut answers = Map::new();
        for tag in list.clone() {
            let after = self.after(&list, tag);
            let message = if after.is_empty() {
                self.text(tag)
            } else {
                let of = |above: usize| format!("n{above}");
                let results: Map<String, Value> =
                    after.into_iter().map(|above| (of(above), answers[&of(above)].clone())).collect();
                json!({ "input": self.text(tag), "results": results }).to_string()
            };
            answers.insert(format!("n{tag}"), json!(self.profile.answer(&message)));
        }
        answers
    }
}

fn uuid_text(id: RequestId) -> String {
    let hex: String = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

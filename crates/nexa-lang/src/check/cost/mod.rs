//! What a program asks of models: bounds of requests, tokens and money, of each entry and each agent.
//!
//! ```text
//! checked program + prices ─► least (what every run that ends well needs), most (what no run exceeds) ─► Costs
//!                                                                                      └─► findings E0601–E0605
//! ```
//!
//! The most of an agent is `(window + max_tokens) × models × (1 + repair) × (1 + retries)`, of a loop its body times its
//! rounds, of a fork the sum of its branches, and of an agent with several runs their sum and its judge. What depends on
//! the input has no most, and [`Unknown`] says why. The least is one request for each agent that runs whatever the input
//! is. A budget caps both.
//!
//! Holds:
//!   CB-1  a run makes no more requests than the most that is told
//!   CB-2  a run that ends with a value makes no fewer requests than the least that is told
//!
//! Not here: what is spent (`nexa-agent` meters it), where prices come from.

mod findings;
mod graph;
mod least;
mod most;

use std::collections::BTreeMap;

use nexa_types::{Budget, UsdMicro};

use crate::hir::{Agent, At, Program, Target};

pub(super) use findings::find;
use least::LeastOf;
use most::MostOf;
pub(crate) use most::{length_of, rounds_of, stored_once};

/// The window of an agent whose model's window is not known, in tokens: what the language gives an agent's memory.
const WINDOW_TOKENS: u64 = 6_000;

/// Tokens that the answer to a question of a program is given at most.
const ANSWER_TOKENS: u64 = 1_024;
/// How often a question is asked until its answer can be read, further tries after transient failures included.
const QUESTION_TURNS: u64 = 1 + crate::compile::QUESTION_REPAIRS as u64 + crate::compile::QUESTION_WAITS.len() as u64;

/// What a model costs, and how much it reads at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// A million tokens read.
    pub input: UsdMicro,
    /// A million tokens written.
    pub output: UsdMicro,
    /// The most tokens of one request, if that is known.
    pub window: Option<u64>,
}

/// Prices by the names of models. `acme/` stands for every model of a provider that has none of its own, and the empty name
/// for the project's default model. Without any price nothing is said of money.
pub type Prices = BTreeMap<String, Price>;

/// Requests, and what they take. Without a price for each of the models the cost is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// Model requests.
    pub requests: u64,
    /// Tokens, read and written.
    pub tokens: u64,
    /// Money.
    pub cost: Option<UsdMicro>,
}

/// Why there is no upper bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Where it is.
    pub at: At,
    /// What cannot be known, as a sentence without a full stop.
    pub why: String,
}

/// The bounds of something that is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What every run that ends with a value needs. Of tokens and money it is what the largest of its requests has to
    /// reserve for its answer: a budget below that lets none be sent.
    pub least: Amounts,
    /// What no run exceeds, or why that is not known.
    pub most: Result<Amounts, Unknown>,
}

/// The bounds of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// What may be started from outside, by name, in the order of the program.
    pub entries: Vec<(String, Bounds)>,
    /// Each agent by itself.
    pub agents: Vec<(String, Bounds)>,
    /// Each flow that runs as an agent of its own.
    pub apart: Vec<(String, Bounds)>,
    /// What a question of a flow to the default model takes at most.
    pub question: Amounts,
}

impl Default for Amounts {
    fn default() -> Self {
        Amounts::NOTHING
    }
}

impl Amounts {
    /// What asks nobody.
    pub const NOTHING: Amounts = Amounts { requests: 0, tokens: 0, cost: Some(UsdMicro(0)) };

    fn plus(self, other: Amounts) -> Amounts {
        Amounts {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost.zip(other.cost).map(|(a, b)| UsdMicro(a.0.saturating_add(b.0))),
        }
    }

    pub(crate) fn times(self, count: u64) -> Amounts {
        Amounts {
            requests: self.requests.saturating_mul(count),
            tokens: self.tokens.saturating_mul(count),
            cost: self.cost.map(|cost| UsdMicro(cost.0.saturating_mul(count))),
        }
    }

    /// One after the other, where tokens and money are what one request needs.
    fn then(self, other: Amounts) -> Amounts {
        Amounts { requests: self.requests.saturating_add(other.requests), ..self.larger(other) }
    }

    fn larger(self, other: Amounts) -> Amounts {
        Amounts {
            requests: self.requests.max(other.requests),
            tokens: self.tokens.max(other.tokens),
            cost: self.cost.zip(other.cost).map(|(a, b)| a.max(b)),
        }
    }

    fn smaller(self, other: Amounts) -> Amounts {
        Amounts {
            requests: self.requests.min(other.requests),
            tokens: self.tokens.min(other.tokens),
            cost: self.cost.zip(other.cost).map(|(a, b)| a.min(b)),
        }
    }

    /// No more than a budget allows.
    fn capped(self, budget: &Budget) -> Amounts {
        Amounts {
            requests: budget.calls.map_or(self.requests, |calls| self.requests.min(calls)),
            tokens: budget.tokens.map_or(self.tokens, |tokens| self.tokens.min(tokens.0)),
            cost: match (self.cost, budget.cost) {
                (Some(cost), Some(cap)) => Some(cost.min(cap)),
                (cost, cap) => cost.or(cap),
            },
        }
    }
}

/// The price of some tokens, rounded up.
fn price_of(tokens: u64, million: UsdMicro) -> UsdMicro {
    let exact = u128::from(tokens) * u128::from(million.0);
    UsdMicro(u64::try_from(exact.div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// The price of a model.
fn price_by_name<'p>(prices: &'p Prices, model: &str) -> Option<&'p Price> {
    prices.get(model).or_else(|| prices.get(&model[..=model.find('/')?]))
}

/// What one request of an agent takes at most, the dearest of its models taken.
fn one_request(agent: &Agent, prices: &Prices) -> Amounts {
    let of = |model: &String| {
        let price = price_by_name(prices, model);
        let window = price.and_then(|price| price.window).unwrap_or(WINDOW_TOKENS);
        let output = agent.sampling.max_tokens;
        Amounts {
            requests: 1,
            tokens: window.saturating_add(output),
            cost: price.map(|price| {
                UsdMicro(price_of(window, price.input).0.saturating_add(price_of(output, price.output).0))
            }),
        }
    };
    let requests = agent.models.iter().map(of);
    requests.reduce(Amounts::larger).unwrap_or(Amounts { requests: 1, tokens: agent.sampling.max_tokens, cost: None })
}

/// What one question to a model takes at most; outside of agents it goes to the default model.
fn one_question(model: &str, prices: &Prices) -> Amounts {
    let price = price_by_name(prices, model);
    let window = price.and_then(|price| price.window).unwrap_or(WINDOW_TOKENS);
    let cost = price
        .map(|price| UsdMicro(price_of(window, price.input).0.saturating_add(price_of(ANSWER_TOKENS, price.output).0)));
    Amounts { requests: 1, tokens: window.saturating_add(ANSWER_TOKENS), cost }
}

/// The bounds of every entry and agent of a checked program.
pub(crate) fn costs(program: &Program, prices: &Prices) -> Costs {
    let mut most = MostOf::new(program, prices);
    let mut least = LeastOf::new(program, prices);
    let mut bounds = |target: Target, budget: &Budget| {
        let (least, uncapped) = match target {
            Target::Flow(flow) => (least.run_of(flow, budget), most.run_of(flow)),
            Target::Agent(agent) => (least.agent(agent), most.agent(agent)),
        };
        let most = most.capped(uncapped, budget).into_result();
        Bounds { least: least.capped(budget), most }
    };
    let entries = program.entries.iter().map(|entry| (entry.name.clone(), bounds(entry.target, &entry.budget)));
    let entries = entries.collect();
    let apart = program.apart.iter().map(|flow| (flow.name.clone(), bounds(flow.target, &flow.budget)));
    let apart = apart.collect();
    let agents = (0u32..).zip(&program.agents);
    let agents = agents.map(|(number, agent)| (agent.name.clone(), bounds(Target::Agent(number), &agent.budget)));
    let agents = agents.collect();
    Costs { entries, agents, apart, question: one_question("", prices).times(QUESTION_TURNS) }
}

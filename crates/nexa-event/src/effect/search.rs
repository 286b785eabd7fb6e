//! A search for the next action, as a planner with an engine of its own asks for it.
//!
//! The numbers and the bytes are set here before anything asks for a search: no instruction makes such a request yet, and
//! no `EffectBody` or `Answer` has one. A release with an engine takes them as they are.

use minicbor::{Decode, Encode};
use nexa_types::Payload;

/// What is looked for, from where, and how.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SearchRequest {
    /// What the agent is to reach, in words.
    #[n(0)]
    pub goal: String,
    /// Where it is now.
    #[n(1)]
    pub state: Payload,
    /// The actions that there are; none if a model proposes them.
    #[n(2)]
    pub actions: Vec<Payload>,
    /// The tools whose calls are actions, by their names in the program.
    #[n(3)]
    pub tools: Vec<String>,
    /// How it is searched.
    #[n(4)]
    pub settings: SearchSettings,
}

/// The settings of the planner `tectonic`; the default is what its name alone means.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SearchSettings {
    /// Rounds of selecting, expanding, simulating and scoring.
    #[n(0)]
    pub iterations: u32,
    /// Proposals for one state.
    #[n(1)]
    pub branch: u32,
    /// Actions one after the other.
    #[n(2)]
    pub depth: u32,
    /// How much an action that was rarely tried is preferred.
    #[n(3)]
    pub explore: f64,
    /// How an action is simulated: the first way that can.
    #[n(4)]
    pub simulate: Vec<Simulation>,
    /// What a score is made of.
    #[n(5)]
    pub score: ScoreWeights,
    /// The least score of an action that is taken.
    #[n(6)]
    pub accept: f64,
    /// Simulations at a time.
    #[n(7)]
    pub parallel: u32,
    /// How fast more proposals are asked for as a state is visited.
    #[n(8)]
    pub widening: f64,
    /// Whether what is known of an action in one state counts in others.
    #[n(9)]
    pub rave: bool,
    /// Whether two ways to the same state lead to one node.
    #[n(10)]
    pub transposition: bool,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self {
            iterations: 32,
            branch: 4,
            depth: 8,
            explore: 1.414,
            simulate: vec![Simulation::Rules, Simulation::Sandbox, Simulation::Model],
            score: ScoreWeights::default(),
            accept: 0.70,
            parallel: 4,
            widening: 0.5,
            rave: true,
            transposition: true,
        }
    }
}

/// A way to find out what an action would do, without doing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Simulation {
    /// A rule says it.
    #[n(0)]
    Rules,
    /// It is done in a copy of the world.
    #[n(1)]
    Sandbox,
    /// A model guesses.
    #[n(2)]
    Model,
}

/// What each side of a score counts; together 1.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub struct ScoreWeights {
    /// How much nearer the goal is.
    #[n(0)]
    pub progress: f64,
    /// That nothing is harmed.
    #[n(1)]
    pub safety: f64,
    /// What it takes.
    #[n(2)]
    pub efficiency: f64,
    /// That it can be taken back.
    #[n(3)]
    pub reversibility: f64,
}

impl Default for ScoreWeights {
    fn default() -> Self {
        Self { progress: 0.35, safety: 0.30, efficiency: 0.20, reversibility: 0.15 }
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SearchReply {
    /// The action to take.
    #[n(0)]
    pub action: Payload,
    /// How it was found.
    #[n(1)]
    pub statistics: SearchStatistics,
}

/// How a search went.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SearchStatistics {
    /// Rounds that were made.
    #[n(0)]
    pub iterations: u32,
    /// States that were looked at.
    #[n(1)]
    pub nodes: u32,
    /// The actions of the first state, as they were proposed.
    #[n(2)]
    pub actions: Vec<ActionStatistics>,
}

/// How an action of the first state fared.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct ActionStatistics {
    /// The action.
    #[n(0)]
    pub action: Payload,
    /// How often it was tried.
    #[n(1)]
    pub visits: u32,
    /// The mean of its scores.
    #[n(2)]
    pub mean: f64,
}

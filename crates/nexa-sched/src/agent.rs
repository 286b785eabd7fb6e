//! An agent as a scheduler sees it: how long, after whom, with what.

use nexa_types::{Millis, Tokens};

use crate::Labels;

/// What a scheduler should know of an agent before it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentScheduleInfo {
    /// Its name, unique in its graph.
    pub id: String,
    /// What it has in common with those that take as long: what durations are learned by. Often the declared agent.
    pub kind: String,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Its share beside others, above 0.
    pub weight: f64,
    /// How long it is expected to take on a node of speed 100.
    pub estimated_duration: Millis,
    /// The ids of those that must end first.
    pub dependencies: Vec<String>,
    /// What it holds on its node for as long as it runs.
    pub requirements: Resources,
    /// Labels that its node must have.
    pub labels: Labels,
    /// What it asks of a model, all its requests together.
    pub model: Option<ModelNeed>,
    /// What its result takes on the way to each node where a dependent runs, in bytes.
    pub result_bytes: u64,
    /// Members of one gang start together, or none of them does.
    pub gang: Option<String>,
}

impl AgentScheduleInfo {
    /// An agent about which nothing is said: the defaults of the language.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            kind: id.clone(),
            id,
            priority: 128,
            weight: 1.0,
            estimated_duration: Millis(2_000),
            dependencies: Vec::new(),
            requirements: Resources { cpu_milli: 100, memory_bytes: 64 << 20, llm_slots: 1 },
            labels: Labels::new(),
            model: None,
            result_bytes: 0,
            gang: None,
        }
    }
}

/// What is held on a node, or what a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Cores, in thousandths.
    pub cpu_milli: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Model requests under way at a time.
    pub llm_slots: u64,
}

impl Resources {
    /// Whether all of it fits into what is free.
    #[must_use]
    pub fn fits(&self, free: &Self) -> bool {
        self.cpu_milli <= free.cpu_milli && self.memory_bytes <= free.memory_bytes && self.llm_slots <= free.llm_slots
    }

    /// Both together; stops at the largest value.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            llm_slots: self.llm_slots.saturating_add(other.llm_slots),
        }
    }

    /// What is left without the other; stops at 0.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            llm_slots: self.llm_slots.saturating_sub(other.llm_slots),
        }
    }

    /// The largest part that this takes of any resource of `capacity`, in millionths (dominant share: Ghodsi et al.,
    /// "Dominant Resource Fairness", NSDI 2011, §4). What is needed of a resource that is not there counts as all of it.
    #[must_use]
    pub fn dominant_share(&self, capacity: &Self) -> u64 {
        let part = |of: u64, all: u64| match (of, all) {
            (0, _) => 0,
            (_, 0) => 1_000_000,
            (of, all) => u64::try_from(u128::from(of) * 1_000_000 / u128::from(all)).unwrap_or(u64::MAX),
        };
        part(self.cpu_milli, capacity.cpu_milli)
            .max(part(self.memory_bytes, capacity.memory_bytes))
            .max(part(self.llm_slots, capacity.llm_slots))
    }
}

/// What an agent asks of a model's provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelNeed {
    /// The provider, by the name that budgets go by.
    pub provider: String,
    /// Requests.
    pub requests: u64,
    /// Tokens read, all requests together.
    pub input_tokens: Tokens,
    /// Tokens written, all requests together.
    pub output_tokens: Tokens,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dominant_share_is_that_of_what_is_scarcest() {
        let node = Resources { cpu_milli: 4_000, memory_bytes: 1 << 30, llm_slots: 0 };
        let share =
            |cpu_milli, memory_bytes, llm_slots| Resources { cpu_milli, memory_bytes, llm_slots }.dominant_share(&node);
        assert_eq!((share(1_000, 0, 0), share(1_000, 1 << 29, 0), share(0, 0, 1)), (250_000, 500_000, 1_000_000));
        assert_eq!(Resources::default().dominant_share(&Resources::default()), 0);
    }
}

//! The states that a person sees.

use std::fmt;

use minicbor::{Decode, Encode};

/// Where an agent is in its life. Live or dormant is residency and not a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum AgentState {
    /// Waits for other agents to succeed first.
    #[n(0)]
    Pending,
    /// May run; waits for a place.
    #[n(1)]
    Ready,
    /// Has a node; has not run yet.
    #[n(2)]
    Placed,
    /// Computes.
    #[n(3)]
    Running,
    /// Waits for something outside itself.
    #[n(4)]
    Waiting(#[n(0)] Waiting),
    /// Ended with a value.
    #[n(5)]
    Succeeded,
    /// Ended with an error.
    #[n(6)]
    Failed,
    /// Was ended by somebody.
    #[n(7)]
    Cancelled,
    /// Kept ending its node; nobody runs it until a person says so.
    #[n(8)]
    Quarantined,
}

impl AgentState {
    /// Every state.
    pub const ALL: [Self; 14] = [
        Self::Pending,
        Self::Ready,
        Self::Placed,
        Self::Running,
        Self::Waiting(Waiting::Model),
        Self::Waiting(Waiting::Approval),
        Self::Waiting(Waiting::Timer),
        Self::Waiting(Waiting::Children),
        Self::Waiting(Waiting::Message),
        Self::Waiting(Waiting::Tool),
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Quarantined,
    ];

    /// The word that people see, and that stores keep.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Placed => "placed",
            Self::Running => "running",
            Self::Waiting(Waiting::Model) => "waiting(model)",
            Self::Waiting(Waiting::Approval) => "waiting(approval)",
            Self::Waiting(Waiting::Timer) => "waiting(timer)",
            Self::Waiting(Waiting::Children) => "waiting(children)",
            Self::Waiting(Waiting::Message) => "waiting(message)",
            Self::Waiting(Waiting::Tool) => "waiting(tool)",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
        }
    }

    /// The state with this [`word`](Self::word); `None` for any other text.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether nothing more will happen to the agent.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// What a waiting agent waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Waiting {
    /// A model's answer.
    #[n(0)]
    Model,
    /// A person's approval.
    #[n(1)]
    Approval,
    /// A moment.
    #[n(2)]
    Timer,
    /// Children.
    #[n(3)]
    Children,
    /// A message.
    #[n(4)]
    Message,
    /// A tool.
    #[n(5)]
    Tool,
}

impl fmt::Display for Waiting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What stands in the brackets of the state's word, so that there is one list of words.
        out.write_str(AgentState::Waiting(*self).word().trim_start_matches("waiting(").trim_end_matches(')'))
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// Where a workload is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum WorkloadState {
    /// Accepted and durable.
    #[n(0)]
    Submitted,
    /// Its root agent has started.
    #[n(1)]
    Running,
    /// Its root agent succeeded.
    #[n(2)]
    Succeeded,
    /// Its root agent failed.
    #[n(3)]
    Failed,
    /// Somebody cancelled it.
    #[n(4)]
    Cancelled,
}

impl WorkloadState {
    /// Whether nothing more will happen to the workload.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for WorkloadState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Submitted => "submitted",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_states_never_change() {
        let words = AgentState::ALL.map(AgentState::word);
        let known = [
            "pending",
            "ready",
            "placed",
            "running",
            "waiting(model)",
            "waiting(approval)",
            "waiting(timer)",
            "waiting(children)",
            "waiting(message)",
            "waiting(tool)",
            "succeeded",
            "failed",
            "cancelled",
            "quarantined",
        ];
        assert_eq!(words, known, "stores keep them");
        assert_eq!(words.map(AgentState::of_word), AgentState::ALL.map(Some));
        assert_eq!(["", "waiting", "Ready"].map(AgentState::of_word), [None; 3]);
        assert_eq!((Waiting::Model.to_string(), Waiting::Children.to_string()), ("model".into(), "children".into()));
    }

    #[test]
    fn every_state_that_can_be_stored_is_among_all() {
        // CBOR: an array of the variant's number and of an array of its fields.
        let decoded = |bytes: &[u8]| minicbor::decode::<AgentState>(bytes).ok();
        let mut found: Vec<AgentState> = Vec::new();
        for variant in 0..24 {
            found.extend(decoded(&[0x82, variant, 0x80]));
            found.extend((0..24).filter_map(|reason| decoded(&[0x82, variant, 0x81, 0x82, reason, 0x80])));
        }
        found.sort();
        found.dedup();
        assert_eq!(found, AgentState::ALL);
    }
}

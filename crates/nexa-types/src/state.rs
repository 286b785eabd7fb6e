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
        out.write_str(match self {
            Self::Model => "model",
            Self::Approval => "approval",
            Self::Timer => "timer",
            Self::Children => "children",
            Self::Message => "message",
            Self::Tool => "tool",
        })
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => out.write_str("pending"),
            Self::Ready => out.write_str("ready"),
            Self::Placed => out.write_str("placed"),
            Self::Running => out.write_str("running"),
            Self::Waiting(reason) => write!(out, "waiting({reason})"),
            Self::Succeeded => out.write_str("succeeded"),
            Self::Failed => out.write_str("failed"),
            Self::Cancelled => out.write_str("cancelled"),
            Self::Quarantined => out.write_str("quarantined"),
        }
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

//! Messages about the cluster: for operators.

use nexa_types::{AgentId, NodeId};

/// Move an agent to another node while it runs.
#[derive(Debug, Clone)]
pub struct Migrate {
    /// Which.
    pub agent: AgentId,
    /// Where to; without it, wherever there is most room.
    pub to: Option<NodeId>,
}

/// Keep new agents away from a node.
#[derive(Debug, Clone)]
pub struct Cordon {
    /// Which.
    pub node: NodeId,
    /// Let them come again instead.
    pub undo: bool,
}

/// Move every agent of a node away, and keep new ones from it.
#[derive(Debug, Clone)]
pub struct Drain {
    /// Which.
    pub node: NodeId,
}

/// Even out the load of the nodes now.
#[derive(Debug, Clone)]
pub struct Rebalance;

/// Write a newer format.
#[derive(Debug, Clone)]
pub struct RaiseFormat {
    /// Which.
    pub format: u16,
}

/// The nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListNodes;

/// The nodes, as they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchNodes;

/// The formats of what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFormats;

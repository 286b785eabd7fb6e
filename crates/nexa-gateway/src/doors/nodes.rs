//! Nodes as messages.

use nexa_event::formats::Formats;
use nexa_proto::v1;
use nexa_types::NodeId;

use crate::fleet::{FormatsView, NodeState, NodeView};

/// The nodes, in their order.
pub(super) fn nodes(nodes: Vec<NodeView>) -> Vec<v1::Node> {
    nodes.into_iter().map(node).collect()
}

fn node(view: NodeView) -> v1::Node {
    let state = match view.state {
        NodeState::Ready => v1::NodeState::Ready,
        NodeState::Cordoned => v1::NodeState::Cordoned,
        NodeState::Draining => v1::NodeState::Draining,
        NodeState::Drained => v1::NodeState::Drained,
        NodeState::Suspected => v1::NodeState::Suspected,
        NodeState::Resting => v1::NodeState::Resting,
    };
    let load = view.load.map(|load| v1::NodeLoad {
        agents: load.agents,
        live: load.live,
        at_work: load.at_work,
        compute_waiting: load.compute_waiting,
        model_calls: load.model_calls,
        resident_bytes: load.resident_bytes,
        lag_ms: load.lag_ms,
    });
    v1::Node {
        is_self: view.is_self,
        name: view.id.to_string(),
        generation: view.generation,
        state: state.into(),
        is_leader: view.is_leader,
        door: view.door,
        link: view.link,
        build: view.build,
        labels: view.labels.into_iter().collect(),
        capacity: Some(v1::NodeCapacity { cpu_milli: view.cpu_milli, memory_bytes: view.memory_bytes }),
        load,
    }
}

/// What is written, and what the nodes read.
pub(super) fn formats(view: FormatsView) -> v1::ClusterServiceListFormatsResponse {
    let newest = view.newest().into();
    let node = |(node, reads): (NodeId, Formats)| v1::NodeFormats {
        node: node.to_string(),
        oldest: reads.oldest.into(),
        newest: reads.newest.into(),
    };
    v1::ClusterServiceListFormatsResponse {
        written: view.floor.written.into(),
        announced: view.floor.announced.into(),
        newest,
        nodes: view.reads.into_iter().map(node).collect(),
    }
}

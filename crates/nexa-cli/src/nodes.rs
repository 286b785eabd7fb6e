//! The nodes that a plan is made for: a file that describes them, or this machine.

use std::collections::BTreeMap;
use std::path::Path;

use nexa_sched::{Cluster, Network, NodeInfo, ProviderBudget, Resources};
use nexa_types::{Millis, NodeId};
use serde::Deserialize;

use crate::failure::Failure;

/// The most nodes of a file.
const NODES_MAX: usize = 10_000;
/// The most bytes of a file.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Model requests under way at a time on a node that says nothing of it: as good as no limit.
const LLM_SLOTS_DEFAULT: u64 = 1 << 20;
/// Memory of a machine that does not tell how much it has.
const MEMORY_BYTES_DEFAULT: u64 = 8 << 30;
/// What a file looks like, for whoever got it wrong.
const EXAMPLE: &str = r#"{ "nodes": [{ "name": "a", "cpu": 8, "memory": "16GiB" }] }"#;

/// Nodes, what lies between them, and what models' providers take from all of them.
pub struct Nodes {
    /// The nodes and their network.
    pub cluster: Cluster,
    /// What providers take.
    pub budgets: Vec<ProviderBudget>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodesFile {
    nodes: Vec<NodeEntry>,
    #[serde(default)]
    network: NetworkEntry,
    #[serde(default)]
    budgets: Vec<BudgetEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    name: String,
    cpu: f64,
    memory: Size,
    llm: Option<u64>,
    speed: Option<u32>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    cordoned: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct NetworkEntry {
    #[serde(default)]
    latency_ms: u64,
    #[serde(default)]
    bytes_per_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BudgetEntry {
    provider: String,
    requests_per_minute: Option<u64>,
    input_tokens_per_minute: Option<u64>,
    output_tokens_per_minute: Option<u64>,
    concurrency: Option<u64>,
}

/// Bytes, as a number or with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    fn bytes(&self) -> Option<u64> {
        let text = match self {
            Size::Bytes(bytes) => return Some(*bytes),
            Size::Text(text) => text.trim(),
        };
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
        let (number, shift) =
            units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift))).unwrap_or((text, 0));
        let number: u64 = number.trim().parse().ok()?;
        number.checked_mul(1 << shift)
    }
}

impl Nodes {
    /// Reads a file of nodes.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let cannot = |why: String| {
            Failure::error(format!("cannot read the nodes in {}: {why}", file.display()))
                .hint(format!("the least that a file says: {EXAMPLE}"))
        };
        let length = std::fs::metadata(file).map_err(|error| cannot(error.to_string()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(cannot(format!("it has {length} bytes, more than {FILE_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| cannot(error.to_string()))?;
        Self::parse(&text).map_err(cannot)
    }

    /// The nodes of a file's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: NodesFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.nodes.is_empty() || file.nodes.len() > NODES_MAX {
            return Err(format!("it has {} nodes, and may have from 1 to {NODES_MAX}", file.nodes.len()));
        }
        let nodes = file.nodes.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<&str> = file.nodes.iter().map(|node| node.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two nodes are called {:?}", twice[0]));
        }
        let network = Network { latency: Millis(file.network.latency_ms), bytes_per_ms: file.network.bytes_per_ms };
        let budget = |entry: BudgetEntry| ProviderBudget {
            provider: entry.provider,
            requests_per_minute: entry.requests_per_minute,
            input_tokens_per_minute: entry.input_tokens_per_minute,
            output_tokens_per_minute: entry.output_tokens_per_minute,
            concurrency: entry.concurrency,
        };
        Ok(Self { cluster: Cluster { nodes, network }, budgets: file.budgets.into_iter().map(budget).collect() })
    }

    /// This machine as the only node.
    pub fn this_machine() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let node = NodeInfo {
            id: "here".parse().expect("a word is a name"),
            capacity: Resources {
                cpu_milli: cores as u64 * 1_000,
                memory_bytes: memory_bytes().unwrap_or(MEMORY_BYTES_DEFAULT),
                llm_slots: LLM_SLOTS_DEFAULT,
            },
            speed: 100,
            labels: BTreeMap::new(),
            is_cordoned: false,
        };
        let network = Network { latency: Millis(0), bytes_per_ms: 0 };
        Self { cluster: Cluster { nodes: vec![node], network }, budgets: Vec::new() }
    }
}

fn node(entry: &NodeEntry) -> Result<NodeInfo, String> {
    let name = &entry.name;
    let id = name.parse::<NodeId>().map_err(|error| format!("{name:?} is no name of a node: {error}"))?;
    if !(entry.cpu.is_finite() && entry.cpu > 0.0 && entry.cpu <= 1e6) {
        return Err(format!("node {name:?} has {} cores, and may have more than 0 and up to 1000000", entry.cpu));
    }
    let Some(memory_bytes) = entry.memory.bytes() else {
        return Err(format!(
            "the memory of node {name:?} is no size: write a number of bytes, or \"512MiB\", \"16GiB\""
        ));
    };
    let speed = entry.speed.unwrap_or(100);
    if speed == 0 {
        return Err(format!("node {name:?} has speed 0: 100 is the usual, 200 twice as fast"));
    }
    Ok(NodeInfo {
        id,
        capacity: Resources {
            cpu_milli: (entry.cpu * 1_000.0).round() as u64,
            memory_bytes,
            llm_slots: entry.llm.unwrap_or(LLM_SLOTS_DEFAULT),
        },
        speed,
        labels: entry.labels.clone(),
        is_cordoned: entry.cordoned,
    })
}

/// What this machine has of memory, where it says so.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn refused(text: &str, why: &Expect) {
        match Nodes::parse(text) {
            Ok(_) => panic!("{text} is accepted"),
            Err(error) => why.assert_eq(&error),
        }
    }

    #[test]
    fn a_file_says_what_nodes_have_and_leaves_out_what_is_usual() {
        let text = r#"{ "nodes": [
            { "name": "a", "cpu": 0.5, "memory": 1024 },
            { "name": "b", "cpu": 4, "memory": "2GiB", "llm": 3, "speed": 150, "labels": { "zone": "eu" }, "cordoned": true }
        ], "network": { "latency_ms": 2, "bytes_per_ms": 1000 }, "budgets": [{ "provider": "acme", "concurrency": 4 }] }"#;
        let nodes = Nodes::parse(text).expect("a good file");
        let [a, b] = nodes.cluster.nodes.as_slice() else { panic!("two nodes") };
        assert_eq!((a.capacity.cpu_milli, a.capacity.memory_bytes, a.speed, a.is_cordoned), (500, 1_024, 100, false));
        assert_eq!((b.capacity.memory_bytes, b.capacity.llm_slots, b.speed, b.is_cordoned), (2 << 30, 3, 150, true));
        assert_eq!(b.labels.get("zone").map(String::as_str), Some("eu"));
        assert_eq!(nodes.cluster.network, Network { latency: Millis(2), bytes_per_ms: 1_000 });
        assert_eq!(nodes.budgets[0].concurrency, Some(4));
    }

    #[test]
    fn what_is_wrong_is_named() {
        refused(r#"{ "nodes": [] }"#, &expect!["it has 0 nodes, and may have from 1 to 10000"]);
        refused(
            r#"{ "nodes": [{ "name": "a", "cpu": 0, "memory": 1 }] }"#,
            &expect![[r#"node "a" has 0 cores, and may have more than 0 and up to 1000000"#]],
        );
        refused(
            r#"{ "nodes": [{ "name": "a", "cpu": 1, "memory": "much" }] }"#,
            &expect![[r#"the memory of node "a" is no size: write a number of bytes, or "512MiB", "16GiB""#]],
        );
        refused(
            r#"{ "nodes": [{ "name": "a", "cpu": 1, "memory": 1, "speed": 0 }] }"#,
            &expect![[r#"node "a" has speed 0: 100 is the usual, 200 twice as fast"#]],
        );
        refused(
            r#"{ "nodes": [{ "name": "a b", "cpu": 1, "memory": 1 }] }"#,
            &expect![[
                r#""a b" is no name of a node: `a b` is not a node: expected 1 to 64 letters, digits, `.`, `_`, `-`, `:`, `@` or `/`"#
            ]],
        );
        refused(
            r#"{ "nodes": [{ "name": "a", "cores": 1, "memory": 1 }] }"#,
            &expect![
                "unknown field `cores`, expected one of `name`, `cpu`, `memory`, `llm`, `speed`, `labels`, `cordoned` at line 1 column 34"
            ],
        );
        let twice = r#"{ "name": "a", "cpu": 1, "memory": 1 }"#;
        refused(&format!(r#"{{ "nodes": [{twice}, {twice}] }}"#), &expect![[r#"two nodes are called "a""#]]);
    }
}

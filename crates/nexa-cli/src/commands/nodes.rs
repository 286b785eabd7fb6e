//! `nexa nodes`, `cordon`, `uncordon`, `drain`, `migrate` and `rebalance`.

use std::time::Duration;

use futures::StreamExt;
use nexa_proto::v1;
use serde_json::json;

use crate::args::{DrainArgs, MigrateArgs, NodeArgs, NodesArgs, Output, RebalanceArgs};
use crate::failure::{Exit, Failure};
use crate::show::table::table;
use crate::show::{json, words};

/// `nexa nodes`
pub async fn nodes(args: &NodesArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    if !args.watch {
        show(&client.nodes(v1::ClusterServiceListNodesRequest {}).await?.nodes, output);
        return Ok(());
    }
    let mut lists = Box::pin(client.watch_nodes().await?);
    while let Some(list) = lists.next().await {
        show(&list?, output);
        if output == Output::Table {
            println!();
        }
    }
    Ok(())
}

fn show(nodes: &[v1::Node], output: Output) {
    match output {
        Output::Json => nodes.iter().for_each(|node| println!("{}", json::node(node))),
        Output::Table => {
            let mut heads = vec!["NODE", "STATE", "AGENTS", "AT WORK", "MODEL CALLS", "MEMORY", "LAG", "DOOR"];
            let mut rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
            if nodes.iter().any(|node| !node.labels.is_empty()) {
                heads.push("LABELS");
                rows.iter_mut().zip(nodes).for_each(|(row, node)| row.push(labels(node)));
            }
            print!("{}", table(&heads, &rows));
        }
    }
}

fn row(node: &v1::Node) -> Vec<String> {
    let mut state = words::node_state(node.state()).to_owned();
    if node.is_leader {
        state += ", leads";
    }
    let load = |told: fn(&v1::NodeLoad) -> String| node.load.as_ref().map_or_else(|| "-".to_owned(), told);
    vec![
        node.name.clone(),
        state,
        load(|load| load.agents.to_string()),
        load(|load| load.at_work.to_string()),
        load(|load| load.model_calls.to_string()),
        load(|load| match load.resident_bytes {
            0 => "-".to_owned(),
            bytes => format!("{} MiB", bytes >> 20),
        }),
        load(|load| format!("{} ms", load.lag_ms)),
        if node.door.is_empty() { "-".to_owned() } else { node.door.clone() },
    ]
}

/// What a node says of itself, by name.
fn labels(node: &v1::Node) -> String {
    let mut labels: Vec<String> = node.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort_unstable();
    if labels.is_empty() { "-".to_owned() } else { labels.join(",") }
}

/// `nexa cordon`
pub async fn cordon(args: &NodeArgs, output: Output) -> Result<(), Failure> {
    set_cordon(args, false, output).await
}

/// `nexa uncordon`
pub async fn uncordon(args: &NodeArgs, output: Output) -> Result<(), Failure> {
    set_cordon(args, true, output).await
}

async fn set_cordon(args: &NodeArgs, undo: bool, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    client.cordon(v1::ClusterServiceCordonRequest { node: args.node.clone(), undo }).await?;
    match output {
        Output::Json => println!("{}", json!({ "node": args.node, "cordoned": !undo })),
        Output::Table if undo => println!("{} takes agents again", args.node),
        Output::Table => println!("{} takes no new agents", args.node),
    }
    Ok(())
}

/// `nexa drain`
pub async fn drain(args: &DrainArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    client.drain(v1::ClusterServiceDrainRequest { node: args.node.clone() }).await?;
    let Some(seconds) = args.wait else {
        match output {
            Output::Json => println!("{}", json!({ "node": args.node, "draining": true })),
            Output::Table => println!("{} is being drained; `nexa nodes` says how far it is", args.node),
        }
        return Ok(());
    };
    let left = std::cell::Cell::new(0);
    let drained = async {
        let mut lists = Box::pin(client.watch_nodes().await?);
        while let Some(list) = lists.next().await {
            // A node that has left has no agents, either.
            let Some(node) = list?.into_iter().find(|node| node.name == args.node) else { return Ok(()) };
            left.set(node.load.as_ref().map_or(0, |load| load.agents));
            if node.state() == v1::NodeState::Drained {
                return Ok(());
            }
        }
        Err(Failure::error("the server has closed; ask another node with `nexa nodes`"))
    };
    match tokio::time::timeout(Duration::from_secs(seconds), drained).await {
        Ok(drained) => drained?,
        Err(_) => {
            let told = format!("{} still has {} agents after {seconds} s", args.node, left.get());
            let failure = Failure { exit: Exit::Deadline, ..Failure::error(told) };
            return Err(failure.hint("they go on moving; `nexa nodes` says how far it is"));
        }
    }
    match output {
        Output::Json => println!("{}", json!({ "node": args.node, "drained": true })),
        Output::Table => println!("{} has no agents left", args.node),
    }
    Ok(())
}

/// `nexa migrate`
pub async fn migrate(args: &MigrateArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    let request =
        v1::AgentServiceMigrateRequest { agent_id: args.agent.clone(), node: args.to.clone().unwrap_or_default() };
    let node = client.migrate(request).await?.node;
    match output {
        Output::Json => println!("{}", json!({ "agent_id": args.agent, "node": node })),
        Output::Table => println!("{} is on {node}", args.agent),
    }
    Ok(())
}

/// `nexa rebalance`
pub async fn rebalance(args: &RebalanceArgs, output: Output) -> Result<(), Failure> {
    let client = super::connect(&args.server).await?;
    client.rebalance(v1::ClusterServiceRebalanceRequest {}).await?;
    match output {
        Output::Json => println!("{}", json!({ "rebalancing": true })),
        Output::Table => println!("agents move from nodes with more than their share to those with less"),
    }
    Ok(())
}

//! Several nodes in one process: a cluster as those of `nexa serve` are, on one folder, with leases within the process and
//! certificates of an authority that nobody keeps.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nexa_cli::args::{DevArgs, Output};
use nexa_cli::failure::Failure;
use nexa_cli::show::table::table;
use nexa_cluster::certs::Authority;
use nexa_gateway::doors::Listen;
use nexa_gateway::mediator::Tokens;
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::membership::local::LocalCluster;
use nexa_ports::model::Model;
use nexa_telemetry::Door;
use nexa_types::NodeId;
use serde_json::json;
use tempfile::TempDir;

use crate::anchoring::Anchoring;
use crate::backend::Backend;
use crate::chain;
use crate::cluster::{Among, Joining, join};
use crate::config::Project;
use crate::signals::Signals;
use crate::wiring::{Porch, router};

/// Nodes of one process.
const NODES_MAX: usize = 16;
/// Agents of one of them.
const AGENTS_MAX: u64 = 1_000_000;
/// How long certificates of the authority count: longer than any process of a developer lives.
const DAYS: u64 = 3_650;
/// How long agents in flight have to end or be recorded when all nodes stop together.
const GRACE: Duration = Duration::from_secs(5);
/// The cluster's name: nobody else can meet it.
const CLUSTER: &str = "dev";

/// What all of them have in common.
pub(super) struct Several {
    /// Where the first one's door is.
    pub(super) listen: Listen,
    /// The one folder.
    pub(super) data: PathBuf,
    /// The same, if it is to be gone at the end.
    pub(super) temporary: Option<TempDir>,
    /// The settings.
    pub(super) project: Project,
    /// Who may come in.
    pub(super) tokens: Option<Tokens>,
}

/// Runs `nexa dev --nodes N`.
pub(super) async fn run(args: &DevArgs, output: Output, several: Several) -> Result<(), Failure> {
    let Several { listen, data, temporary, project, tokens } = several;
    if !(1..=NODES_MAX).contains(&args.nodes) {
        return Err(Failure::usage(format!("--nodes {} is not between 1 and {NODES_MAX}", args.nodes)));
    }
    let Listen::Tcp(first) = listen else {
        return Err(Failure::usage("several nodes have several doors, and one socket file is not enough")
            .hint("give the address of the first: --listen 127.0.0.1:7070"));
    };
    let mut signals = Signals::heard()?;
    let door = Door::bind(args.metrics.as_deref()).map_err(|error| Failure::usage(chain(&error)))?;
    let backend = Backend::sqlite(&data)?;
    let model: Arc<dyn Model> = Arc::new(router(Some(&data), &project, &args.models)?);
    let clock = Arc::new(SystemClock::default());
    let anchoring = Anchoring::beside(&data, Arc::clone(&backend.audit), Arc::clone(&clock) as _).await?;
    let leases = LocalCluster::new(Arc::clone(&clock) as _);
    let now = clock.now();
    let authority = Authority::throwaway(now).map_err(|error| Failure::error(chain(&error)))?;
    let (tokens, porch) = (tokens.map(Arc::new), Arc::new(Porch::build()?));
    let mut nodes: Vec<(NodeId, Among)> = Vec::new();
    for number in 0..args.nodes {
        let name = NodeId::new(&format!("n{}", number + 1)).expect("a letter and a number are a name");
        let identity = authority.issue(&name, &[], now, DAYS);
        let node = join(Joining {
            cluster: CLUSTER.to_owned(),
            name: name.clone(),
            identity: identity.map_err(|error| Failure::error(chain(&error)))?,
            link: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            labels: Default::default(),
            agents_max: AGENTS_MAX,
            membership: leases.member(),
            backend: backend.clone(),
            anchors: None,
            model: Arc::clone(&model),
            tokens: tokens.clone(),
            door: place(first, number)?.bind().await.map_err(|error| Failure::error(chain(&error)))?,
            porch: Arc::clone(&porch),
            project: &project,
        });
        nodes.push((name, Box::pin(node).await?));
    }
    let (_, node) = &nodes[0];
    let door = door
        .open(nodes.iter().map(|(_, node)| node.probes()).collect())
        .map_err(|error| Failure::error(chain(&error)))?;
    match output {
        Output::Json => {
            let list: Vec<_> =
                nodes.iter().map(|(name, node)| json!({ "node": name.as_str(), "grpc": node.address() })).collect();
            println!("{}", json!({ "grpc": node.address(), "nodes": list, "metrics": door.url(), "data": data }));
        }
        Output::Table => {
            let keeps = if temporary.is_some() { "gone at the end; keep it with --data DIR" } else { "kept" };
            let mut rows: Vec<Vec<String>> = nodes
                .iter()
                .map(|(name, node)| vec![name.to_string(), node.address().to_owned(), String::new()])
                .collect();
            rows[0][2] = "try: nexa nodes, nexa submit FILE".to_owned();
            rows.push(vec!["metrics".to_owned(), door.url(), "of all of them; also /healthz and /readyz".to_owned()]);
            rows.push(vec!["data".to_owned(), data.display().to_string(), keeps.to_owned()]);
            print!("{}", table(&["WHAT", "WHERE", "NOTE"], &rows));
            eprintln!("for development, not for production; Ctrl-C stops them");
        }
    }
    let failed = async {
        let all = nodes.iter().map(|(_, node)| Box::pin(node.failed()));
        futures::future::select_all(all).await.0
    };
    let ended = tokio::select! {
        () = signals.next() => Ok(()),
        () = crate::input::ended(args.end_with_input) => Ok(()),
        failure = failed => Err(failure),
        failure = anchoring.broken() => Err(failure),
    };
    eprintln!("stopping");
    // All at once: there is nobody to move agents to.
    futures::future::join_all(nodes.into_iter().map(|(_, node)| node.stop(GRACE))).await;
    anchoring.stop().await;
    door.close();
    drop(temporary);
    ended
}

/// The place of a door: that many ports after the first, or any.
fn place(first: SocketAddr, number: usize) -> Result<Listen, Failure> {
    let port = match first.port() {
        0 => Some(0),
        port => u16::try_from(number).ok().and_then(|number| port.checked_add(number)),
    };
    let port = port.ok_or_else(|| {
        Failure::usage(format!("there is no port for node {} after {first}", number + 1)).hint("begin with a lower one")
    })?;
    Ok(Listen::Tcp(SocketAddr::new(first.ip(), port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_have_ports_after_each_other() {
        let at =
            |first: &str, number| place(first.parse().expect("an address"), number).map(|listen| listen.to_string());
        assert_eq!(at("127.0.0.1:7070", 2).ok().as_deref(), Some("127.0.0.1:7072"));
        assert_eq!(at("127.0.0.1:0", 2).ok().as_deref(), Some("127.0.0.1:0"));
        assert!(at("127.0.0.1:65535", 1).is_err());
    }
}

//! `nexa serve`: one node that stays, by itself or of a cluster, until it is told to go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nexa_cli::args::{Output, ServeArgs};
use nexa_cli::failure::{Exit, Failure};
use nexa_cli::show::table::table;
use nexa_etcd::EtcdMembership;
use nexa_gateway::doors::{Cover, Listen};
use nexa_gateway::mediator::Tokens;
use nexa_telemetry::{Door, Probes};
use serde_json::json;

use crate::backend::Backend;
use crate::chain;
use crate::cluster::{Among, Joining, identity, join};
use crate::config::Project;
use crate::config::cluster::{Place, ServeSettings};
use crate::input;
use crate::signals::Signals;
use crate::wiring::{Porch, Who, Wired, router, wire};

/// Who comes to etcd, as NAME:PASSWORD.
const ETCD_USER: &str = "NEXA_ETCD_USER";
/// The code of a process that was told twice to end, as shells have it for SIGTERM.
const TERMINATED: i32 = 128 + 15;

/// How long clients have to hear that a node ends whose store has failed: nothing that comes in meanwhile can be recorded.
const UNRECORDED_GRACE: Duration = Duration::from_secs(2);

/// Runs `nexa serve`.
pub(crate) async fn run(args: &ServeArgs, output: Output) -> Result<(), Failure> {
    let listen: Listen = args.listen.parse().map_err(|error| Failure::usage(chain(&error)))?;
    let mut project = Project::find(&std::env::current_dir()?)?.with(&args.models)?;
    project.node.memory_mib = args.memory.or(project.node.memory_mib);
    let settings = ServeSettings::of(args, &project.cluster)?;
    let cover = cover(args)?;
    let tokens = args.tokens.as_deref().map(Tokens::load).transpose();
    let tokens =
        tokens.map_err(|error| Failure::error(chain(&error)).hint("`nexa help dev` shows what stands in it"))?;
    warn_of_secrets();
    let mut signals = Signals::heard()?;
    let door = Door::bind(args.metrics.as_deref()).map_err(|error| Failure::usage(chain(&error)))?;
    let (node, note) = match settings.place {
        Place::Alone(data) => {
            let note = format!("by itself; keeps its things in {}", data.display());
            let who = Who { name: settings.name.clone(), tokens };
            (Serving::Alone(wire(&data, &project, &args.models, who, (&listen, &cover), Porch::build()?).await?), note)
        }
        Place::Among(place) => {
            let note = format!("one of the cluster `{}`", place.name);
            let bound = listen.bind_behind(&cover).await.map_err(|error| Failure::error(chain(&error)))?;
            let membership = Box::pin(membership(&place.etcd, &place.name)).await?;
            let backend = Backend::postgres(&place.store, &settings.name).await?;
            let joining = Joining {
                identity: identity(&place.certs, &settings.name)?,
                cluster: place.name,
                name: settings.name.clone(),
                link: link(&args.link)?,
                advertise: args.advertise.clone(),
                labels: settings.labels,
                agents_max: settings.agents_max,
                anchors: Some(Arc::clone(&membership) as _),
                membership,
                backend,
                model: Arc::new(router(None, &project, &args.models)?),
                tokens: tokens.map(Arc::new),
                door: bound,
                porch: Arc::new(Porch::build()?),
                project: &project,
            };
            (Serving::Among(Box::pin(join(joining)).await?), note)
        }
    };
    let door = door.open(vec![node.probes()]).map_err(|error| Failure::error(chain(&error)))?;
    match output {
        Output::Json => {
            let name = settings.name.as_str();
            println!("{}", json!({ "grpc": node.address(), "metrics": door.url(), "node": name, "link": node.link() }));
        }
        Output::Table => {
            let rows = [
                vec!["node".to_owned(), settings.name.to_string(), note],
                vec!["gRPC".to_owned(), node.address().to_owned(), String::new()],
                vec!["metrics".to_owned(), door.url(), "also /healthz and /readyz".to_owned()],
            ];
            print!("{}", table(&["WHAT", "WHERE", "NOTE"], &rows));
        }
    }
    let mut is_told = true;
    let ended = tokio::select! {
        () = signals.next() => Ok(()),
        () = input::ended(args.end_with_input) => {
            is_told = false;
            Ok(())
        }
        failure = node.failed() => Err(failure),
    };
    if ended.as_ref().is_err_and(|failure| failure.exit == Exit::LeaseLost) {
        // Whatever it still did would be refused.
        return ended;
    }
    let is_store_failed = ended.as_ref().is_err_and(|failure| failure.exit == Exit::StoreFailed);
    let grace = if is_store_failed { UNRECORDED_GRACE } else { Duration::from_secs(args.grace) };
    eprintln!("letting go of everything in good order; told again, it ends at once");
    let told_again = async {
        // Whoever closes the input may send a signal with it, and means one wish.
        for _ in 0..if is_told { 1 } else { 2 } {
            signals.next().await;
        }
        eprintln!("ended at once");
        std::process::exit(TERMINATED)
    };
    tokio::select! {
        () = node.leave(grace) => {}
        () = told_again => {}
    }
    door.close();
    ended
}

/// What lies between the door and those who can reach it.
fn cover(args: &ServeArgs) -> Result<Cover, Failure> {
    let read = |file: &std::path::Path| {
        std::fs::read_to_string(file).map_err(|error| {
            Failure::error(format!("cannot read {}: {error}", file.display()))
                .hint("`nexa certs --out DIR NODE=HOST` makes a certificate and a key for a host")
        })
    };
    Ok(match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Cover::Tls { certificate: read(certificate)?, key: read(key)? },
        _ if args.listen_without_tls => {
            eprintln!("warning: the door has no TLS: whoever is on the way reads and changes what is said, tokens too");
            Cover::None
        }
        _ => Cover::Loopback,
    })
}

/// Others can read what was typed.
fn warn_of_secrets() {
    let has_password = |arg: &str| {
        arg.split_once("://").and_then(|(_, rest)| rest.split_once('@')).is_some_and(|(user, _)| user.contains(':'))
    };
    if std::env::args_os().skip(1).any(|arg| has_password(&arg.to_string_lossy())) {
        eprintln!(
            "warning: others on this machine can read the password that was typed: use NEXA_STORE or --store-file"
        );
    }
}

/// A node, by itself or among others.
enum Serving {
    Alone(Wired),
    Among(Among),
}

impl Serving {
    fn address(&self) -> &str {
        match self {
            Self::Alone(node) => &node.address,
            Self::Among(node) => node.address(),
        }
    }

    /// Where other nodes reach it, if there are others.
    fn link(&self) -> Option<String> {
        match self {
            Self::Alone(_) => None,
            Self::Among(node) => Some(node.link()),
        }
    }

    fn probes(&self) -> Probes {
        match self {
            Self::Alone(node) => node.probes(),
            Self::Among(node) => node.probes(),
        }
    }

    async fn failed(&self) -> Failure {
        match self {
            Self::Alone(node) => node.failed().await,
            Self::Among(node) => node.failed().await,
        }
    }

    async fn leave(self, within: Duration) {
        match self {
            Self::Alone(node) => {
                node.close_to_work();
                node.stop_within(within).await;
            }
            Self::Among(node) => node.leave(within).await,
        }
    }
}

/// Where a node listens for others.
fn link(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(format!("--link {text} is not an address to listen on"))
            .hint("an IP address and a port, such as 10.0.0.7:7071; what others are told is set by --advertise")
    })
}

/// The lease of a node on etcd.
pub(crate) async fn membership(etcd: &[String], cluster: &str) -> Result<Arc<EtcdMembership>, Failure> {
    let mut settings = nexa_etcd::Settings::new(etcd.iter().cloned(), cluster);
    if let Some(user) = std::env::var(ETCD_USER).ok().filter(|user| !user.is_empty()) {
        let (name, password) = user
            .split_once(':')
            .ok_or_else(|| Failure::usage(format!("{ETCD_USER} is not of the form NAME:PASSWORD")))?;
        settings.user = Some((name.to_owned(), password.to_owned()));
    }
    // It starts a thread, and waits until that has begun.
    let connected = tokio::task::spawn_blocking(move || EtcdMembership::connect(settings)).await;
    let connected = connected.map_err(|error| Failure::error(chain(&error)))?;
    Ok(Arc::new(connected.map_err(|error| Failure::error(chain(&error)))?))
}

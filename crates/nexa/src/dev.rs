//! `nexa dev`: one node with its door open on loopback, or several in one process, until told to stop.

use nexa_cli::args::{DevArgs, Output};
use nexa_cli::failure::Failure;
use nexa_cli::show::table::table;
use nexa_gateway::doors::{Cover, Listen};
use nexa_gateway::mediator::Tokens;
use nexa_telemetry::Door;
use serde_json::json;

mod several;

use several::Several;

use crate::chain;
use crate::config::Project;
use crate::input;
use crate::signals::Signals;
use crate::wiring::{Porch, Who, wire};

/// Runs `nexa dev`.
pub(crate) async fn run(args: &DevArgs, output: Output) -> Result<(), Failure> {
    let listen: Listen = args.listen.parse().map_err(|error| Failure::usage(chain(&error)))?;
    // Gone when this function returns, unless the data was asked to stay.
    let temporary = match args.data {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("nexa-dev").tempdir()?),
    };
    let data = match (&args.data, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(temporary)) => temporary.path().join("data"),
        (None, None) => return Err(Failure::error("there is no folder for data")),
    };
    let mut project = Project::find(&std::env::current_dir()?)?.with(&args.models)?;
    project.node.memory_mib = args.memory.or(project.node.memory_mib);
    let tokens = args.tokens.as_deref().map(Tokens::load).transpose();
    let tokens =
        tokens.map_err(|error| Failure::error(chain(&error)).hint("`nexa help dev` shows what stands in it"))?;
    if args.nodes != 1 {
        return Box::pin(several::run(args, output, Several { listen, data, temporary, project, tokens })).await;
    }
    let mut signals = Signals::heard()?;
    let door = Door::bind(args.metrics.as_deref()).map_err(|error| Failure::usage(chain(&error)))?;
    let node =
        wire(&data, &project, &args.models, Who::local(tokens), (&listen, &Cover::Loopback), Porch::build()?).await?;
    let door = door.open(vec![node.probes()]).map_err(|error| Failure::error(chain(&error)))?;
    match output {
        Output::Json => println!("{}", json!({ "grpc": node.address, "metrics": door.url(), "data": data })),
        Output::Table => {
            let keeps = if temporary.is_some() { "gone at the end; keep it with --data DIR" } else { "kept" };
            let try_it = match args.tokens {
                Some(_) => "try: nexa submit FILE --token-file TOKEN",
                None => "try: nexa submit FILE",
            };
            let rows = [
                vec!["gRPC".to_owned(), node.address.clone(), try_it.to_owned()],
                vec!["metrics".to_owned(), door.url(), "also /healthz and /readyz".to_owned()],
                vec!["data".to_owned(), data.display().to_string(), keeps.to_owned()],
            ];
            print!("{}", table(&["WHAT", "WHERE", "NOTE"], &rows));
            eprintln!("for development, not for production; Ctrl-C stops it");
        }
    }
    let ended = tokio::select! {
        () = signals.next() => Ok(()),
        () = input::ended(args.end_with_input) => Ok(()),
        failure = node.failed() => Err(failure),
    };
    eprintln!("stopping");
    node.stop().await;
    door.close();
    ended
}

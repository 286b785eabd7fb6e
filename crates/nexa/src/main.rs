//! The `nexa` binary: settings, wiring, and nothing else.
//!
//! - [`config`]: where settings come from.
//! - [`wiring`], [`backend`], [`cluster`]: which adapter stands behind which port, for a node by itself and for one among
//!   others. The only place that knows them all.
//! - [`dev`], [`serve`], [`run`]: the commands that have a node inside.
//! - [`load`]: the command that puts a node under load.
//! - [`anchoring`], [`audit`]: what shows that the log is whole, while a node runs and when somebody asks.
//! - [`models`], [`doctor`]: the commands that look after this machine.
//!
//! The commands that only talk to a server are in `nexa-cli`.

mod anchoring;
mod audit;
mod backend;
mod cluster;
mod config;
mod dev;
mod doctor;
mod input;
mod load;
mod models;
mod nofile;
mod remembering;
mod run;
mod serve;
mod signals;
mod wiring;

use std::process::ExitCode;

use clap::Parser;
use nexa_cli::args::{Cli, Color, Command, LogFormat};
use nexa_cli::commands;
use nexa_cli::failure::{Exit, Failure};
use nexa_telemetry::{Format, Logs, Telemetry, Traces};

/// Compiling, restoring and replaying make and drop many small things on many threads. Beside the allocator of the system
/// the compiler takes five sixths of the time, and a short run as much memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The stack of a thread. The compiler may nest deeply in what a client sends; twice what its tests need.
const STACK_BYTES: usize = 4 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let telemetry = match tell(&cli) {
        Ok(telemetry) => telemetry,
        Err(failure) => {
            eprintln!("{failure}");
            return ExitCode::from(failure.exit as u8);
        }
    };
    nofile::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::from(Exit::Error as u8);
        }
    };
    let result = runtime.block_on(Box::pin(execute(cli)));
    // What still runs belongs to an ended command; everything durable is on disk.
    runtime.shutdown_background();
    telemetry.stop();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{failure}");
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn execute(cli: Cli) -> Result<(), Failure> {
    let (output, color) = (cli.output, cli.color);
    match &cli.command {
        Command::Dev(args) => dev::run(args, output).await,
        Command::Serve(args) => Box::pin(serve::run(args, output)).await,
        Command::Run(args) => {
            // On one of the runtime's threads: from here each thing that is awaited would be a way to another and back.
            let ended = tokio::spawn(run::run(args.clone(), output, color)).await;
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        }
        Command::Check(args) => {
            commands::check(args, |folder| Ok(config::Project::find(folder)?.prices()), output, color)
        }
        Command::Graph(args) => {
            commands::graph(args, |folder| Ok(config::Project::find(folder)?.prices()), output, color)
        }
        Command::Explain(args) => commands::explain(args, output),
        Command::Fmt(args) => commands::fmt(args, output, color),
        Command::Test(args) => commands::test(args, output, color),
        Command::Submit(args) => commands::submit(args, output, color).await,
        Command::Watch(args) => commands::watch(args, output, color).await,
        Command::Plan(args) => commands::plan(args, output).await,
        Command::Ps(args) => commands::ps(args, output).await,
        Command::Logs(args) => commands::logs(args, output).await,
        Command::Recall(args) => commands::recall(args, output).await,
        Command::Memory(args) => commands::memory(args, output).await,
        Command::Cancel(args) => commands::cancel(args, output).await,
        Command::Send(args) => commands::send(args, output).await,
        Command::Approve(args) => commands::approve(args, output).await,
        Command::Nodes(args) => commands::nodes(args, output).await,
        Command::Cordon(args) => commands::cordon(args, output).await,
        Command::Uncordon(args) => commands::uncordon(args, output).await,
        Command::Drain(args) => commands::drain(args, output).await,
        Command::Migrate(args) => commands::migrate(args, output).await,
        Command::Rebalance(args) => commands::rebalance(args, output).await,
        Command::Formats(args) => commands::formats(args, output).await,
        Command::Certs(args) => commands::certs(args, output),
        Command::Models(args) => models::run(args, output, color).await,
        Command::Load(args) => load::run(args, output).await,
        Command::Audit(args) => audit::run(args, output).await,
        Command::Doctor(args) => doctor::run(args, output).await,
    }
}

/// Starts the log on standard error (warnings and errors, or what `NEXA_LOG` asks for), and spans if a collector is named.
fn tell(cli: &Cli) -> Result<Telemetry, Failure> {
    let colored = match cli.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::IsTerminal::is_terminal(&std::io::stderr()),
    };
    let format = match cli.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let logs = Logs { format, filter: std::env::var("NEXA_LOG").ok(), colored };
    let traces = match &cli.command {
        Command::Dev(args) => Some(&args.traces),
        Command::Serve(args) => Some(&args.traces),
        Command::Run(args) => Some(&args.traces),
        // They have no node inside.
        _ => None,
    };
    let traces = traces.and_then(|args| {
        Some(Traces {
            endpoint: args.otlp.clone().filter(|endpoint| !endpoint.is_empty())?,
            protocol: std::env::var("OTEL_EXPORTER_OTLP_PROTOCOL").ok(),
            ratio: args.trace_ratio,
            content: args.trace_content,
        })
    });
    nexa_telemetry::start(logs, traces).map_err(|error| Failure::usage(chain(&error)))
}

/// An error with what led to it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

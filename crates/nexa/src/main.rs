//! The `nexa` binary: settings, wiring, and nothing else.
//!
//! - [`config`]: where settings come from.
//! - [`wiring`]: which adapter stands behind which port. The only place that knows them all.
//! - [`dev`], [`run`]: the commands that have a node inside.
//! - [`load`]: the command that puts a node under load.
//! - [`models`], [`doctor`]: the commands that look after this machine.
//!
//! The commands that only talk to a server are in `nexa-cli`.

mod config;
mod dev;
mod doctor;
mod load;
mod models;
mod nofile;
mod run;
mod wiring;

use std::process::ExitCode;

use clap::Parser;
use nexa_cli::args::{Cli, Color, Command};
use nexa_cli::commands;
use nexa_cli::failure::{Exit, Failure};
use tracing_subscriber::EnvFilter;

/// Compiling, restoring and replaying make and drop many small things on many threads. Beside the allocator of the system
/// the compiler takes five sixths of the time, and a process two megabytes more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The stack of a thread. The compiler may nest deeply in what a client sends; twice what its tests need.
const STACK_BYTES: usize = 4 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(&cli);
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
        Command::Run(args) => run::run(args, output, color).await,
        Command::Check(args) => {
            commands::check(args, |folder| Ok(config::Project::find(folder)?.prices()), output, color)
        }
        Command::Explain(args) => commands::explain(args, output),
        Command::Fmt(args) => commands::fmt(args, output, color),
        Command::Test(args) => commands::test(args, output, color),
        Command::Submit(args) => commands::submit(args, output, color).await,
        Command::Watch(args) => commands::watch(args, output, color).await,
        Command::Ps(args) => commands::ps(args, output).await,
        Command::Logs(args) => commands::logs(args, output).await,
        Command::Cancel(args) => commands::cancel(args, output).await,
        Command::Send(args) => commands::send(args, output).await,
        Command::Approve(args) => commands::approve(args, output).await,
        Command::Models(args) => models::run(args, output, color).await,
        Command::Load(args) => load::run(args, output).await,
        Command::Doctor(args) => doctor::run(args, output).await,
    }
}

/// Warnings and errors on standard error, or what `NEXA_LOG` asks for.
fn log_to_stderr(cli: &Cli) {
    let filter = EnvFilter::try_from_env("NEXA_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let colored = match cli.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::IsTerminal::is_terminal(&std::io::stderr()),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colored).init();
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

//! `nexa load`: a node or a cluster under load, and every output checked.

use std::time::Duration;

use nexa_cli::args::{LoadArgs, LoadShape, Output};
use nexa_cli::commands::read_token;
use nexa_cli::failure::{Exit, Failure};
use nexa_cli::show::table::table;
use nexa_load::LoadError;
use nexa_load::dice::LogNormal;
use nexa_load::drive::Arrivals;
use nexa_load::endpoint::limits::KeyLimits;
use nexa_load::endpoint::profile::{Faults, Profile};
use nexa_load::overload;
use nexa_load::run::rolling::Rolling;
use nexa_load::run::{Server, Settings, Victim};
use nexa_load::shape::{Plan, Shape};
use tokio_util::sync::CancellationToken;

use crate::chain;
use crate::signals::Signals;

/// Agents of one run; more would have keys that the endpoint does not remember.
const AGENTS_MAX: usize = 1_000_000;

/// Nodes of one run: they share this machine.
const NODES_MAX: usize = 16;

/// Tenants of one run: as many as a node reads tokens.
const TENANTS_MAX: usize = 1_024;

/// Runs `nexa load`.
pub(crate) async fn run(args: &LoadArgs, output: Output) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let (mut signals, heard) = (Signals::heard()?, stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = signals.next() => heard.cancel(),
            () = heard.cancelled() => {}
        }
    });
    let told = |what: &str| eprintln!("{what}");
    let Some(shape) = shape(args.shape) else {
        let outcome = Box::pin(overload::run(overloading(args)?, stop, &told)).await.map_err(failure)?;
        if let Some(file) = &args.report {
            overload::write(file, &typed(), &outcome).map_err(failure)?;
            eprintln!("the report is in {}", file.with_extension("md").display());
        }
        print(&outcome.figures, output)?;
        return match outcome.figures.is_right() {
            true => Ok(()),
            false => Err(Failure::told(Exit::RunFailed)),
        };
    };
    let settings = settings(args, shape)?;
    let outcome = Box::pin(nexa_load::run::run(settings, stop, &told)).await.map_err(failure)?;
    if let Some(file) = &args.report {
        nexa_load::report::write(file, &typed(), &outcome).map_err(failure)?;
        eprintln!("the report is in {}", file.with_extension("md").display());
    }
    print(&outcome.figures, output)?;
    match outcome.figures.is_right() {
        true => Ok(()),
        false => Err(Failure::told(Exit::RunFailed)),
    }
}

/// The command as it was typed, without the path of the binary.
fn typed() -> String {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once("nexa".to_owned()).chain(args).collect::<Vec<_>>().join(" ")
}

fn failure(error: LoadError) -> Failure {
    match error {
        LoadError::Interrupted => Failure { exit: Exit::Interrupted, ..Failure::error(error.to_string()) },
        error => Failure::error(chain(&error)),
    }
}

/// The shape of a load that ends with its work; `None` for the one that never ends by itself.
fn shape(shape: LoadShape) -> Option<Shape> {
    match shape {
        LoadShape::Independent => Some(Shape::Independent),
        LoadShape::Layers => Some(Shape::Layers),
        LoadShape::Pipelines => Some(Shape::Pipelines),
        LoadShape::Sleepers => Some(Shape::Sleepers),
        LoadShape::Overload => None,
    }
}

fn overloading(args: &LoadArgs) -> Result<overload::Settings, Failure> {
    if !args.target.is_empty()
        || args.kill_at.is_some()
        || args.kill_leader_at.is_some()
        || args.rolling_restart
        || args.nodes != 1
    {
        return Err(Failure::usage("`overload` starts one node of its own, and neither kills nor restarts it"));
    }
    if !(1..=3_600).contains(&args.stage_s) {
        return Err(Failure::usage(format!("--stage-s {} is not between 1 and 3600", args.stage_s)));
    }
    Ok(overload::Settings {
        exe: std::env::current_exe()?,
        folder: args.data.as_deref().map(std::path::absolute).transpose()?,
        stage: Duration::from_secs(args.stage_s),
        seed: args.seed,
    })
}

fn settings(args: &LoadArgs, shape: Shape) -> Result<Settings, Failure> {
    if !(1..=NODES_MAX).contains(&args.nodes) {
        return Err(Failure::usage(format!("--nodes {} is not between 1 and {NODES_MAX}", args.nodes)));
    }
    let within = |name: &str, value: f64, least: f64, most: f64| match value {
        value if value >= least && value <= most => Ok(value),
        _ => Err(Failure::usage(format!("{name} {value} is not between {least} and {most}"))),
    };
    if args.kill_leader_at.is_some() && args.nodes == 1 {
        return Err(Failure::usage("--kill-leader-at is for several nodes: one by itself has nobody to lead"));
    }
    within("--agents", args.agents as f64, 1.0, AGENTS_MAX as f64)?;
    within("--calls", args.calls.into(), 1.0, 1_000.0)?;
    within("--text-bytes", args.text_bytes as f64, 0.0, 1e6)?;
    within("--tenants", args.tenants as f64, 1.0, args.agents.min(TENANTS_MAX) as f64)?;
    for (name, limit) in [("--key-rpm", args.key_rpm), ("--key-tpm", args.key_tpm), ("--key-otpm", args.key_otpm)] {
        limit.map(|limit| within(name, limit as f64, 1.0, 1e12)).transpose()?;
    }
    within("--rounds", args.rounds.into(), 1.0, 10_000.0)?;
    within("--pause-ms", args.pause_ms as f64, 0.0, 3_600_000.0)?;
    let arrivals = match args.rate.map(|rate| within("--rate", rate, 1e-3, 1e6)).transpose()? {
        None => Arrivals::AtOnce,
        Some(rate) if args.even => Arrivals::Even(rate),
        Some(rate) => Arrivals::Random(rate),
    };
    let faults = Faults {
        errors: within("--errors", args.errors, 0.0, 1.0)?,
        drops: within("--drops", args.drops, 0.0, 1.0)?,
        hangs: 0.0,
    };
    let profile = Profile {
        seed: args.seed,
        latency_ms: LogNormal {
            median: within("--latency-ms", args.latency_ms, 0.0, 300_000.0)?,
            spread: within("--latency-spread", args.latency_spread, 0.0, 3.0)?,
        },
        answer_tokens: LogNormal { median: within("--answer-tokens", args.answer_tokens, 1.0, 512.0)?, spread: 0.4 },
        faults,
    };
    let server = if args.target.is_empty() {
        Server::Own {
            exe: std::env::current_exe()?,
            folder: args.data.as_deref().map(std::path::absolute).transpose()?,
            nodes: args.nodes,
        }
    } else {
        Server::Target {
            addresses: args.target.clone(),
            token: args.token_file.as_deref().map(read_token).transpose()?,
        }
    };
    let plan = Plan {
        shape,
        agents: args.agents,
        tenants: args.tenants,
        calls: args.calls,
        text_bytes: args.text_bytes,
        rounds: args.rounds,
        pause_ms: args.pause_ms,
        profile,
        // A server that was there before may know the requests of an earlier run with this seed.
        nonce: if !args.target.is_empty() { uuid::Uuid::now_v7().as_u64_pair().1 } else { 0 },
    };
    Ok(Settings {
        plan,
        arrivals,
        gives_up: args.give_up,
        server,
        kill_at: args.kill_at.as_deref().or(args.kill_leader_at.as_deref()).map(share).transpose()?,
        victim: if args.kill_leader_at.is_some() { Victim::Leader } else { Victim::Any },
        rolling: rolling(args)?,
        concurrency: args.concurrency.unwrap_or(args.agents).max(1),
        limits: KeyLimits {
            requests_per_minute: args.key_rpm,
            input_tokens_per_minute: args.key_tpm,
            output_tokens_per_minute: args.key_otpm,
            concurrency: None,
        },
        port: args.port,
        patience: Duration::from_secs(args.patience_s.max(1)),
        history: args.history.clone(),
    })
}

/// Whether nodes are restarted one after the other, and from what.
fn rolling(args: &LoadArgs) -> Result<Option<Rolling>, Failure> {
    if !args.rolling_restart {
        return Ok(None);
    }
    if args.nodes == 1 {
        return Err(Failure::usage("--rolling-restart is for several nodes, of which the others go on")
            .hint("for example --nodes 3"));
    }
    let exe = args.restart_with.as_deref().map(std::path::absolute).transpose()?;
    match exe.as_ref().filter(|exe| !exe.is_file()) {
        Some(exe) => Err(Failure::usage(format!("--restart-with {} is no file", exe.display()))),
        None => Ok(Some(Rolling { exe })),
    }
}

/// `50%` or `50`, as a share.
fn share(text: &str) -> Result<f64, Failure> {
    let percent: Option<f64> = text.trim_end_matches('%').trim().parse().ok();
    match percent {
        Some(percent) if (1.0..100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(Failure::usage(format!("{text} is no share of the work")).hint("for example --kill-at 50%")),
    }
}

fn print(figures: &impl serde::Serialize, output: Output) -> Result<(), Failure> {
    let json = serde_json::to_value(figures).map_err(|error| Failure::error(error.to_string()))?;
    match output {
        Output::Json => println!("{json}"),
        Output::Table => {
            let fields = json.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
            let rows: Vec<Vec<String>> = fields.map(|(name, value)| vec![name.clone(), value.to_string()]).collect();
            print!("{}", table(&["WHAT", "HOW MUCH"], &rows));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        let read = |text| share(text).ok();
        assert_eq!((read("50%"), read("25"), read("12.5 %")), (Some(0.5), Some(0.25), Some(0.125)));
        assert_eq!((read("0%"), read("100%"), read("half"), read("")), (None, None, None, None));
    }
}

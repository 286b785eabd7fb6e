//! Real faults on real processes: `nexa-battery`.
//!
//! In:  which scenes, how many kills or power cuts, a seed, and the binary of the nodes.
//! Out: for each scene whether anything that was acknowledged was lost, anything was done twice, or clients saw what cannot be; one
//!      JSON object and a table. Ends with 0 if all scenes passed or were skipped, with 1 otherwise.
//!
//! - [`cage`]: namespaces of its own, which go with it; what this machine can do.
//! - [`net`], [`disk`]: the network between members, and disks that fail.
//! - [`member`], [`town`]: a process, and a cluster of them.
//! - [`sink`]: who counts effects from outside.
//! - [`work`]: what runs meanwhile, and what clients are told.
//! - [`scene`]: what goes wrong. [`play`]: a scene from its start to its verdict.
//! - [`power`]: the same for a node by itself, whose disk loses its power.
//! - [`report`]: what came of it.
//!
//! What must hold, and the checkers, are `nexa-history`'s, which the simulation shares. A mechanism that is missing makes a
//! scene SKIP, never PASS.

mod args;
mod cage;
mod disk;
mod member;
mod net;
mod play;
mod power;
mod report;
mod scene;
mod sink;
mod town;
mod work;

use std::process::ExitCode;

use args::Args;
use cage::{Folder, Probed};
use play::Verdict;
use town::Ground;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("nexa-battery: {why}; see --help");
            return ExitCode::from(2);
        }
    };
    if !cage::is_inside() {
        eprintln!("nexa-battery: {}", cage::enter());
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nexa-battery: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(Box::pin(run(&args))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("nexa-battery: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Plays everything that was asked for; gives whether nothing failed.
async fn run(args: &Args) -> Result<bool, String> {
    let folder = Folder::make(&args.folder, args.keep)?;
    let probed = Probed::now(&folder.path);
    let missing =
        [("nft", &probed.nft), ("disks", &probed.disks), ("blkio", &probed.throttle), ("freezer", &probed.freezer)];
    for (what, why) in missing.iter().filter_map(|(what, probed)| Some((what, probed.as_ref().err()?))) {
        eprintln!("{what} is missing: {why}");
    }
    let ground = Ground::prepare(args.nexa.clone(), folder.path.clone(), args.seed)?;
    eprintln!("seed {}, in {}", args.seed, folder.path.display());
    let mut verdicts: Vec<(String, Verdict)> = Vec::new();
    for scene in args.scenes() {
        eprintln!("{}: {}", scene.name, scene.about);
        let told = |line: &str| eprintln!("  {line}");
        let verdict = play::play(&ground, &scene, &probed, args.rate, &told).await;
        eprintln!("  {}", report::word(&verdict));
        match &verdict {
            Verdict::Skipped(why) | Verdict::Broken(why) => eprintln!("  {why}"),
            Verdict::Played(played) => played.violations.iter().for_each(|violation| eprintln!("  {violation}")),
        }
        if args.is_json {
            println!("{}", report::json(scene.name, &verdict));
        }
        verdicts.push((scene.name.to_owned(), verdict));
        if !args.keep {
            let _ = std::fs::remove_dir_all(folder.path.join(scene.name));
        }
    }
    let table = report::table(&verdicts);
    match &args.report {
        Some(file) => std::fs::write(file, &table).map_err(|error| format!("{}: {error}", file.display()))?,
        None if !args.is_json => print!("{table}"),
        None => {}
    }
    Ok(verdicts.iter().all(|(_, verdict)| matches!(report::word(verdict), "PASS" | "SKIP")))
}

//! Real faults on real processes: `nexa-battery`.
//!
//! In:  which scenes, how many kills or power cuts, how long at most, a seed, and the binary of the nodes.
//! Out: for each scene whether anything that was acknowledged was lost, anything was done twice, or clients saw what cannot be; a
//!      table, and the sum of all, for people or as one JSON object. Ends with 0 if scenes passed and none failed, with 1 otherwise.
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
//! scene SKIP, never PASS, and so does want of time.

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
use std::time::{Duration, Instant};

use args::Args;
use cage::{Folder, Probed};
use play::Verdict;
use report::Sum;
use scene::Scene;
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

/// How long a scene may take that is no row.
const SCENE_TAKES: Duration = Duration::from_secs(60);
/// What is kept of the time for each row that follows another.
const ROW_TAKES: Duration = Duration::from_secs(90);

/// Until when a row begins further faults, or how little time is left for what is no row.
fn until(scene: &Scene, ends: Option<Instant>, rows_after: usize) -> Result<Option<Instant>, Duration> {
    let Some(ends) = ends else { return Ok(None) };
    let kept = SCENE_TAKES + ROW_TAKES * u32::try_from(rows_after).unwrap_or(u32::MAX);
    match ends.saturating_duration_since(Instant::now()) {
        _ if scene.is_row() => Ok(ends.checked_sub(kept).or(Some(Instant::now()))),
        left if left < SCENE_TAKES => Err(left),
        _ => Ok(None),
    }
}

/// Plays everything that was asked for; gives whether something was played and nothing failed.
async fn run(args: &Args) -> Result<bool, String> {
    let began = Instant::now();
    let ends = args.within.map(|within| began + within);
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
    let scenes = args.scenes();
    for (place, scene) in scenes.iter().enumerate() {
        eprintln!("{}: {}", scene.name, scene.about);
        let told = |line: &str| eprintln!("  {line}");
        let rows_after = scenes[place + 1..].iter().filter(|scene| scene.is_row()).count();
        let verdict = match until(scene, ends, rows_after) {
            Err(left) => Verdict::Skipped(report::no_time(scene, left)),
            Ok(until) => {
                let scene = Scene { until, ..scene.clone() };
                play::play(&ground, &scene, &probed, args.rate, &told).await
            }
        };
        eprintln!("  {}", report::word(&verdict));
        match &verdict {
            Verdict::Skipped(why) | Verdict::Broken(why) => eprintln!("  {why}"),
            Verdict::Played(played) => played.violations.iter().for_each(|violation| eprintln!("  {violation}")),
        }
        if args.is_json && !args.is_text {
            println!("{}", report::json(scene.name, &verdict));
        }
        verdicts.push((scene.name.to_owned(), verdict));
        if !args.keep {
            let _ = std::fs::remove_dir_all(folder.path.join(scene.name));
        }
    }
    let sum = Sum::of(&verdicts, began.elapsed().as_secs_f64());
    let table = report::table(&verdicts);
    if let Some(file) = &args.report {
        std::fs::write(file, &table).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if args.is_text {
        println!("{table}\n{}", sum.text());
    }
    if args.is_json {
        println!("{}", sum.json());
    }
    Ok(sum.is_good())
}

//! A scene from its start to its verdict.
//!
//! 1. A cluster is built, and works until [`WARM`] workloads have ended.
//! 2. The fault comes, as often as the scene says; after each heal something new is given to each door, and must have ended
//!    within [`PLACES_WITHIN`].
//! 3. No more work comes; all of it must have ended within [`SETTLES_WITHIN`].
//! 4. The log is read from the database, and judged beside what clients were told and what was counted outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nexa_event::envelope::Fact;
use nexa_event::fact::WorkloadEvent;
use nexa_history::effects::{self, Counts};
use nexa_history::{Call, Fault, Logged, Told, Violation, What, clients, edges, json, streams};
use nexa_load::dice::Dice;
use nexa_ports::store::Store;
use nexa_postgres::{PostgresStore, Settings};
use nexa_types::{GlobalSeq, NodeId, Outcome, WorkloadId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cage::Probed;
use crate::disk::Disk;
use crate::member::{Ended, Role};
use crate::power;
use crate::scene::{self, Scene, kind, strike};
use crate::town::{Ground, Outside, Town};
use crate::work::{Work, may_repeat, now_ms};

/// Workloads that have ended before anything goes wrong.
const WARM: usize = 15;
/// How long that may take.
const WARM_WITHIN: Duration = Duration::from_secs(60);
/// After a heal, something new has been placed and has ended.
pub(crate) const PLACES_WITHIN: Duration = Duration::from_secs(20);
/// How long it may go on until nothing is left to do.
pub(crate) const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// Between a heal that was survived and the next fault.
const CALM: Duration = Duration::from_secs(2);
/// Between two of many kills.
const KILL_EVERY: Duration = Duration::from_secs(3);
/// Facts that are read at once.
const PAGE: usize = 5_000;
/// The most violations of one scene that are shown.
const SHOWN_MAX: usize = 20;
/// How a node ends whose lease is lost.
const LEASE_LOST: i32 = 7;

/// What came of a scene.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// It could not be played here.
    Skipped(String),
    /// It was played.
    Played(Box<Played>),
    /// It broke off before its end.
    Broken(String),
}

/// What came of one that was played.
#[derive(Debug, Clone, Default)]
pub(crate) struct Played {
    /// What must not have happened; the first of it.
    pub(crate) violations: Vec<Violation>,
    /// How much of it there was, by property.
    pub(crate) broken: BTreeMap<&'static str, usize>,
    /// How many faults were asked for.
    pub(crate) wanted: u32,
    /// Operations of clients by kind and answer.
    pub(crate) operations: BTreeMap<String, usize>,
    /// Commands that were refused and tried again, by reason.
    pub(crate) refusals: BTreeMap<String, usize>,
    /// Faults by kind and victim.
    pub(crate) faults: BTreeMap<String, usize>,
    /// How many faults hit while something was in flight.
    pub(crate) hit: usize,
    /// Effects in flight when a fault began, over all faults.
    pub(crate) in_flight: usize,
    /// What the log says of effects.
    pub(crate) effects: Counts,
    /// Workloads that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Facts in the log.
    pub(crate) facts: usize,
    /// From each heal until something new had ended at each door, in milliseconds.
    pub(crate) placed_ms: Vec<u64>,
    /// From the last submission until all had ended.
    pub(crate) settled_ms: u64,
    /// Nodes that ended because their lease was lost.
    pub(crate) lease_lost: usize,
    /// Nodes that ended because their writes failed, as they should.
    pub(crate) store_failed: usize,
    /// Processes that ended before they served, and were started again.
    pub(crate) restarted: usize,
    /// How long all of it took.
    pub(crate) seconds: f64,
}

/// Plays one.
pub(crate) async fn play(ground: &Ground, scene: &Scene, probed: &Probed, rate: f64, told: &dyn Fn(&str)) -> Verdict {
    if let Err(why) = scene.needs(probed) {
        return Verdict::Skipped(why);
    }
    let folder = ground.folder.join(scene.name);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        return Verdict::Broken(format!("{}: {error}", folder.display()));
    }
    let began = Instant::now();
    let carried_out = match scene.name {
        scene::POWER_NODE => Box::pin(power::carry_out(ground, scene, &folder, rate, told)).await,
        _ => Box::pin(carry_out(ground, scene, &folder, rate, told)).await,
    };
    match carried_out {
        Ok(mut played) => {
            played.seconds = began.elapsed().as_secs_f64();
            Verdict::Played(Box::new(played))
        }
        Err(why) => Verdict::Broken(why),
    }
}

async fn carry_out(
    ground: &Ground,
    scene: &Scene,
    folder: &Path,
    rate: f64,
    told: &dyn Fn(&str),
) -> Result<Played, String> {
    let disk = scene.disk_mib.map(|mib| Disk::make(folder, "disk", mib)).transpose()?;
    let town = Town::build(ground, folder, disk.as_ref().map(|disk| disk.at.as_path())).await?;
    let work = Work::put(town.doors.clone(), ground.seed).await?;
    let stop = CancellationToken::new();
    let flow = tokio::spawn(work.clone().flow(rate, stop.clone()));
    warm(&work).await?;
    let mut played = Played { wanted: scene.times, ..Played::default() };
    let faults = trouble(&town, &work, scene, disk.as_ref(), ground.seed, &mut played, told).await;
    stop.cancel();
    let settling = Instant::now();
    let settled = tokio::time::timeout(SETTLES_WITHIN, flow).await.is_ok();
    let open = work.settle(SETTLES_WITHIN.saturating_sub(settling.elapsed())).await;
    played.settled_ms = settling.elapsed().as_millis() as u64;
    if !settled {
        played.violations.push(Violation::new("P10", "clients were not answered after all had healed"));
    }
    for (workload, standing) in open.iter().take(SHOWN_MAX) {
        let text = format!("{workload} has not ended {SETTLES_WITHIN:?} after all had healed: {standing:?}");
        played.violations.push(Violation::new("P2", text));
    }
    let faults = faults?;
    let evidence = Evidence { log: read(&town).await?, outside: &town.outside, ended: town.ended() };
    judge(evidence, &work, &faults, open.is_empty(), folder, &mut played)?;
    town.clear();
    Ok(played)
}

async fn warm(work: &Work) -> Result<(), String> {
    let until = Instant::now() + WARM_WITHIN;
    while work.counts().1 < WARM {
        if Instant::now() > until {
            return Err(format!("only {} workloads had ended after {WARM_WITHIN:?}", work.counts().1));
        }
        tokio::time::sleep(crate::town::LOOK_EVERY).await;
    }
    Ok(())
}

/// The faults of a scene, one after the other.
async fn trouble(
    town: &Town,
    work: &Work,
    scene: &Scene,
    disk: Option<&Disk>,
    seed: u64,
    played: &mut Played,
    told: &dyn Fn(&str),
) -> Result<Vec<Fault>, String> {
    let mut dice = Dice::of(&[seed, 75, scene.times.into()]);
    let (is_row, mut faults, mut probes) = (scene.name == scene::KILLS, Vec::new(), JoinSet::new());
    for turn in 0..scene.times {
        if scene.is_over(turn) {
            break;
        }
        let turned = Instant::now();
        let began = Mutex::new(now_ms());
        let note = || *began.lock().unwrap_or_else(PoisonError::into_inner) = now_ms();
        let victim = strike(town, scene.fault, turn, disk, &mut dice, note).await?;
        let began = began.into_inner().unwrap_or_else(PoisonError::into_inner);
        faults.push(Fault { kind: kind(scene.fault).to_owned(), victim: victim.clone(), began, healed: now_ms() });
        let prober = work.clone();
        if is_row {
            probes.spawn(async move { prober.probe(PLACES_WITHIN).await });
            tokio::time::sleep(KILL_EVERY.saturating_sub(turned.elapsed())).await;
            if (turn + 1).is_multiple_of(10) {
                told(&format!("{} of {} kills", turn + 1, scene.times));
            }
            continue;
        }
        match prober.probe(PLACES_WITHIN).await {
            Ok(time) => {
                told(&format!(
                    "{}: {victim}; {:.1} s after it was over all doors place",
                    kind(scene.fault),
                    time.as_secs_f64()
                ));
                played.placed_ms.push(time.as_millis() as u64);
            }
            Err(why) => played.violations.push(Violation::new("P10", format!("after {victim}: {why}"))),
        }
        tokio::time::sleep(CALM).await;
    }
    for probe in probes.join_all().await {
        match probe {
            Ok(time) => played.placed_ms.push(time.as_millis() as u64),
            Err(why) => played.violations.push(Violation::new("P10", why)),
        }
    }
    Ok(faults)
}

/// A whole log, and how its workloads ended.
pub(crate) struct Log {
    facts: Vec<Logged>,
    outcomes: BTreeMap<WorkloadId, Outcome>,
}

/// That of a town.
async fn read(town: &Town) -> Result<Log, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the log cannot be read: {error}");
    let name = NodeId::new("battery").map_err(|error| failed(&error))?;
    let store = PostgresStore::connect(Settings::new(&*town.store, name)).await.map_err(|error| failed(&error))?;
    let log = scan(&store).await;
    store.close().await;
    log
}

/// The whole log, as a store reads it.
pub(crate) async fn scan(store: &dyn Store) -> Result<Log, String> {
    let (mut log, mut after) = (Log { facts: Vec::new(), outcomes: BTreeMap::new() }, GlobalSeq(0));
    loop {
        let page = store.scan(None, after, PAGE).await.map_err(|error| format!("the log cannot be read: {error}"))?;
        let Some(last) = page.last() else { return Ok(log) };
        after = last.position;
        for fact in &page {
            log.facts.push(Logged::of(fact.position, fact.workload, &fact.envelope));
            if let (Fact::Workload(WorkloadEvent::Ended { outcome, .. }), Some(workload)) =
                (&fact.envelope.fact, fact.workload)
            {
                log.outcomes.insert(workload, outcome.clone());
            }
        }
    }
}

/// By what a run is judged, beside what clients were told.
pub(crate) struct Evidence<'a> {
    /// The whole log.
    pub(crate) log: Log,
    /// Who has counted.
    pub(crate) outside: &'a Outside,
    /// Who has ended without being asked to.
    pub(crate) ended: Vec<Ended>,
}

/// Judges a run; `has_settled` says whether all of it had the time to end. Leaves the whole history in the folder.
///
/// # Errors
/// What could not be looked at.
pub(crate) fn judge(
    evidence: Evidence<'_>,
    work: &Work,
    faults: &[Fault],
    has_settled: bool,
    folder: &Path,
    played: &mut Played,
) -> Result<(), String> {
    let Evidence { log: Log { facts: log, outcomes }, outside, ended } = evidence;
    let (calls, jobs, refused) = work.told();
    let sink = outside.sink.done()?;
    let sent = |key: nexa_types::EffectKey| outside.endpoint.key(&key.to_string()).sent;
    let (counts, of_effects) = effects::check(&log, &sink, may_repeat, Some(&sent));
    let mut found = [
        streams::check(&log),
        of_effects,
        edges::check(&log),
        clients::kept(&log, &calls, has_settled),
        clients::orderly(&calls),
        clients::cancelled(&log, &calls),
    ]
    .concat();
    let counted = effects::Words::of(&sink);
    for (workload, outcome) in &outcomes {
        let Some(job) = jobs.get(workload) else { continue };
        match job.words(outcome, &outside.profile.answer(&job.asks())) {
            Ok(words) => found.extend(counted.check(&words, may_repeat)),
            Err(why) => found.push(Violation::new("P2", format!("{workload} ended wrongly: {why}"))),
        }
    }
    found.extend(refused.iter().map(|name| Violation::new("P2", format!("{name} was refused for good"))));
    found.extend(ended.iter().filter_map(|ended| unasked(ended, played)));
    played.violations.extend(found);
    for violation in &played.violations {
        *played.broken.entry(violation.id).or_default() += 1;
    }
    let others = played.violations.len().saturating_sub(SHOWN_MAX);
    played.violations.truncate(SHOWN_MAX);
    if others > 0 {
        played.violations.push(Violation::new("more", format!("{others} others")));
    }
    count(&log, &calls, faults, counts, played);
    played.refusals = work.refusals();
    let lines: Vec<String> = json::lines(&calls, faults, &sink, &log).collect();
    let history = folder.join("history.jsonl");
    std::fs::write(&history, lines.join("\n")).map_err(|error| format!("{}: {error}", history.display()))
}

/// An end that nobody asked for: of a node that has lost its lease, or of one that found nobody at its start, it is as it
/// should be. PostgreSQL ends when its disk is full.
fn unasked(ended: &Ended, played: &mut Played) -> Option<Violation> {
    match (ended.role, ended.had_served, ended.code) {
        (Role::Node, true, Some(LEASE_LOST)) => played.lease_lost += 1,
        (Role::Node, false, Some(_)) | (Role::Postgres | Role::Etcd, ..) => played.restarted += 1,
        _ => {
            let text = format!("{} ended by itself with {:?}: {}", ended.name, ended.code, ended.tail);
            return Some(Violation::new("END", text));
        }
    }
    None
}

fn count(log: &[Logged], calls: &[Call], faults: &[Fault], counts: Counts, played: &mut Played) {
    (played.effects, played.facts) = (counts, log.len());
    for call in calls {
        let told = match call.told {
            Told::Ok(_) => "ok",
            Told::Fail => "fail",
            Told::Unknown => "unknown",
        };
        *played.operations.entry(format!("{} {told}", call.operation.name())).or_default() += 1;
    }
    played.acknowledged = played.operations.get("submit ok").copied().unwrap_or_default();
    let mut spans: BTreeMap<nexa_types::EffectKey, (u64, u64)> = BTreeMap::new();
    for fact in log {
        match &fact.what {
            What::Started(key, _) => {
                spans.entry(*key).or_insert((fact.at.0, u64::MAX));
            }
            What::EffectEnded(key, _) => {
                if let Some(span) = spans.get_mut(key) {
                    span.1 = fact.at.0;
                }
            }
            _ => {}
        }
    }
    for fault in faults {
        *played.faults.entry(format!("{} {}", fault.kind, fault.victim)).or_default() += 1;
        let in_flight = spans.values().filter(|(from, to)| *from <= fault.began && fault.began < *to).count();
        played.hit += usize::from(in_flight > 0);
        played.in_flight += in_flight;
    }
}

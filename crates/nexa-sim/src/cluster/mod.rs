//! A whole cluster in one thread, on virtual time, from a seed.
//!
//! Real are the nodes: `nexa-runtime`'s `Node` with its agents, ledger, residency, timers and fence, and `nexa-cluster`'s
//! `Cluster` with its relay, heartbeats, leader and orders. Simulated is what they stand on: clock and dice, network, membership
//! service, store, models and tools. Time is tokio's own, paused: it stands still while anybody can run, and then jumps to the
//! next moment that anybody waits for. So a minute of a cluster takes about a second, and a seed is the same run each time: the
//! hash of its trace says so. What is drawn outside the seed and could come in between: the order in which a `watch` with several
//! who wait wakes them, a `select!` that is not `biased`, the order of a `HashMap` that somebody goes through.
//!
//! A run: nodes start; clients submit work all the time ([`load`]), and cancel some of it; agents are told to move; what goes
//! wrong, and when, is drawn from the seed ([`plan`]), also nodes that die exactly before or after something ([`failpoint`]); then
//! everything is healed, and the cluster gets time to finish. At the end, and at each fact and call on the way:
//!
//! | id | what must hold | where |
//! |---|---|---|
//! | P1 | no fact of an agent under an epoch below the highest that it has had, none that an effect was started under one | `store` |
//! | LD-1 | no word of a leader under an epoch below the highest that was heard | `store` |
//! | RT-1 | nothing is sent of which the store has not accepted the start | `world` |
//! | P1b | nothing is sent without a lease but within a second of the store's word that the agent is the node's | `world` |
//! | P2 | each accepted workload has ended, with the value that its program gives | `oracles` |
//! | P3 | nothing is done twice; what a program says was done was done; what was done is recorded, or as unknown | `oracles` |
//! | P5 | each workload and each agent ends once, and nothing follows | `oracles` |
//! | P21 | after an acknowledged cancel nothing of the workload is started | `oracles` |
//! | ST-1 | streams have the versions 1 to n | `oracles` |
//! | LE-2 | a leader places nothing on a node long after that was cordoned | `store` |
//! | LE-7 | once faults stop, every agent comes to its end on a node that is there | `oracles` |
//! | PANIC | nothing panics | `panics` |
//! | MB-2 | no lease is ended by others while its process is there; once faults stop, each node is a member | `town` |
//! | MD-1 | no node has more calls in flight than its lanes have room for | `world` |
//! | P15 | where nothing goes wrong, no call is unknown, also while nodes leave and come | `oracles` |
//! | LV-2 | once faults stop, the cluster obeys the people again | `people` |
//! | LV-1 | where nothing goes wrong, each workload ends in about the time that its naps and calls take | `oracles` |
//!
//! A failing seed prints its faults, the property, and the command that plays it again. Whether the simulation would notice is
//! shown by planted bugs ([`crate::bugs`]), each of which some seed must catch.
//!
//! Not here: processes, sockets, disks and real clocks (the process tests have these), the doors, tools' adapters, and looks into
//! memories, which use threads.

mod failpoint;
mod load;
mod oracles;
mod panics;
mod people;
mod plan;
mod process;
mod store;
mod town;
mod trace;
mod wall;
mod witness;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nexa_cluster::local::LocalNetwork;
use nexa_ports::clock::Clock;
use nexa_ports::membership::local::LocalCluster;
use nexa_ports::store::{Rows, Store};
use nexa_types::{GlobalSeq, Millis, WorkloadId};

use self::failpoint::Reached;
use self::load::Job;
use self::people::People;
use self::process::{BEGIN, Process, VirtualClock, lock};
use self::store::{ProcessStore, Server};
use self::town::{Land, Town};
use self::trace::Trace;
use self::world::World;
use crate::bugs::planting;
use crate::dice::Dice;

pub use crate::bugs::Bug;
pub use nexa_history::Violation;

/// Between two looks at the plan.
const TICK: Millis = Millis(50);
/// Between two looks whether all is done.
const LOOK: Millis = Millis(500);
/// How long a run may go on beyond its time, for a cluster that does not finish though nothing goes wrong any more.
const SETTLE_MAX: Millis = Millis(120_000);
/// Of a run, the part in which things go wrong, in percent.
const FAULTY_PERCENT: u64 = 70;
/// One workload of so many is cancelled, so long after it was accepted at most.
const CANCELLED_ONE_IN: u64 = 6;
/// See [`CANCELLED_ONE_IN`].
const CANCELLED_WITHIN: Millis = Millis(10_000);
/// In one look of so many an agent is told to move.
const MOVED_ONE_IN: u64 = 15;
/// Everything has ended for so long before a run is judged: what comes late must come by then.
const QUIET: Millis = Millis(3_000);

/// What a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Simulated seconds, at least; most of them with faults.
    pub seconds: u64,
    /// Nodes.
    pub nodes: usize,
    /// Workloads.
    pub workloads: u64,
    /// Whether anything goes wrong.
    pub has_faults: bool,
    /// A planted bug.
    pub bug: Option<Bug>,
    /// Whether lines of the trace are kept.
    pub keeps_lines: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seconds: 60, nodes: 3, workloads: 12, has_faults: true, bug: None, keeps_lines: false }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Over every fact, call and fault with its virtual time.
    pub hash: String,
    /// Facts that were stored.
    pub facts: u64,
    /// Virtual time that passed.
    pub simulated: Millis,
    /// Real time that passed.
    pub took: Duration,
    /// What went wrong, for people.
    pub faults: Vec<String>,
    /// The same by kind.
    pub kinds: Vec<&'static str>,
    /// Points at which a process died exactly.
    pub points: Vec<&'static str>,
    /// Workloads that were accepted.
    pub accepted: usize,
    /// Faults that began while an effect was started and had not ended.
    pub in_flight: u64,
    /// Effects that were started: questions to models and calls of tools.
    pub effects: usize,
    /// Calls that the sink has done.
    pub done: usize,
    /// Calls of which nobody knows.
    pub unknown: usize,
    /// How often nodes were started.
    pub starts: u64,
    /// What must not have happened.
    pub violations: Vec<Violation>,
    /// What happened, if it was kept.
    pub lines: Vec<String>,
}

/// The names of all points at which a process may die exactly.
#[must_use]
pub fn points() -> Vec<&'static str> {
    failpoint::Point::ALL.map(|(point, _)| point.name()).into()
}

/// Plays a seed.
///
/// # Errors
/// What kept it from beginning.
pub fn run(seed: u64, settings: &Settings) -> Result<Report, String> {
    let began = Instant::now();
    let (played, panics) = panics::watched(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| format!("there is no runtime: {error}"))?;
        planting(settings.bug, || runtime.block_on(play(seed, settings)))
    });
    // A run that ended with a panic has nothing to report but that.
    let mut report = played.unwrap_or_else(|| Ok(Report { seed, ..Report::default() }))?;
    report.violations.extend(panics);
    report.took = began.elapsed();
    Ok(report)
}

async fn play(seed: u64, settings: &Settings) -> Result<Report, String> {
    let clock = Arc::new(VirtualClock::new());
    let trace = Trace::new(clock.clone(), settings.keeps_lines);
    let mut dice = Dice::of(&[0x70, seed]);
    let server = Server::new(clock.clone(), trace.clone(), dice.next(), settings.bug);
    let put = load::put(&server.memory, clock.now(), settings.bug).await?;
    server.observe().await;
    let world = World::new(clock.clone(), trace.clone(), server.clone(), dice.next(), settings.bug);
    let reached = Reached::new(trace.clone());
    let land = Land {
        service: LocalCluster::new(clock.clone()),
        network: LocalNetwork::new(clock.clone(), dice.next()),
        clock: clock.clone(),
        trace: trace.clone(),
        server: server.clone(),
        world: world.clone(),
        seed,
        are_clocks_off: settings.has_faults,
        bug: settings.bug,
        people: People {
            clock: clock.clone(),
            trace: trace.clone(),
            server: server.clone(),
            clusters: Arc::default(),
            busy: Arc::default(),
        },
        runs: Arc::default(),
        reached: reached.clone(),
    };
    let faulty = Millis(settings.seconds * 1_000 * FAULTY_PERCENT / 100);
    let plan = plan::draw(seed, settings.nodes, faulty, settings.has_faults);
    let (faults, kinds) = (plan::shown_plan(&plan), plan.iter().map(|planned| planned.fault.kind()).collect());
    let mut town = Town::new(land, settings.nodes, plan);

    let clients = Clients::start(settings, &mut dice, &clock, &server, put, faulty);
    let mut heard = 0;
    let end = BEGIN.after(Millis(settings.seconds * 1_000));
    let latest = end.after(SETTLE_MAX);
    let mut quiet_since = None;
    while clock.now() < latest && trace.is_sound() {
        town.tick();
        let accepted = clients.accepted.load(Ordering::Relaxed);
        if accepted > heard && dice.below(2) == 0 {
            town.hint();
        }
        heard = accepted;
        if dice.below(MOVED_ONE_IN) == 0 {
            town.migrate(dice.next()).await;
        }
        let now = clock.now();
        if town.is_healed() && now >= BEGIN.after(faulty) {
            let is_whole = accepted == clients.jobs.len() && town.away().is_empty();
            let is_done = is_whole && has_ended(&server, &clients.jobs).await;
            let since = if is_done { Some(quiet_since.unwrap_or(now)) } else { None };
            quiet_since = since;
            let is_quiet = since.is_some_and(|since| now.since(since) >= QUIET);
            if is_quiet && now >= end {
                break;
            }
            clock.wait_until(now.after(LOOK)).await;
        } else {
            clock.wait_until(now.after(TICK)).await;
        }
    }
    server.observe().await;
    let simulated = clock.now().since(BEGIN);
    let cancels = lock(&clients.cancels).clone();
    let accepted = (clients.taken_in(), cancels);
    let finished = trace.is_sound();
    if finished {
        for (name, wanted) in town.wanted() {
            trace.violated("LV-2", format!("nobody had {name} {wanted}, and nothing is wrong any more"));
        }
        for name in town.away() {
            trace.violated("MB-2", format!("{name} is no member, and nothing is wrong any more"));
        }
    }
    let there = finished.then(|| town.present());
    let judged = oracles::judge(&server, &world, &trace, &accepted, (there, !settings.has_faults)).await;
    let (starts, in_flight) = (town.runs(), town.hit_in_flight());
    drop(town);
    let (hash, facts, lines, mut violations) = trace.finish();
    violations.dedup();
    Ok(Report {
        seed,
        hash,
        facts,
        simulated,
        took: Duration::ZERO,
        faults,
        kinds,
        points: reached.names(),
        accepted: judged.accepted,
        in_flight,
        effects: judged.effects,
        done: judged.done,
        unknown: judged.unknown,
        starts,
        violations,
        lines,
    })
}

/// Whether no agent lives any more and each workload has ended.
async fn has_ended(server: &Server, jobs: &[Job]) -> bool {
    let live = server.memory.rows(Rows::Live, None, 1).await.unwrap_or_default();
    if !live.is_empty() {
        return false;
    }
    for job in jobs {
        if oracles::ends_of(server, job.workload()).await.is_empty() {
            return false;
        }
    }
    true
}

/// Who submits work.
struct Clients {
    jobs: Vec<Job>,
    taken_in: Arc<Mutex<Vec<WorkloadId>>>,
    accepted: Arc<AtomicUsize>,
    cancels: Cancels,
}

/// Workloads that were cancelled, each with the newest fact when that was acknowledged.
type Cancels = Arc<Mutex<BTreeMap<WorkloadId, GlobalSeq>>>;

impl Clients {
    fn start(
        settings: &Settings,
        dice: &mut Dice,
        clock: &Arc<VirtualClock>,
        server: &Arc<Server>,
        put: load::Put,
        within: Millis,
    ) -> Self {
        let (mut jobs, accepted) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
        let taken_in: Arc<Mutex<Vec<WorkloadId>>> = Arc::default();
        let cancels = Cancels::default();
        let process = Process::new();
        for number in 0..settings.workloads {
            let rounds = i64::try_from(dice.between(1, 6)).unwrap_or(1);
            let nap = Millis(dice.between(20, 2_000));
            let is_cancelled = dice.below(CANCELLED_ONE_IN) == 0;
            let cancelled_after = is_cancelled.then_some(Millis(dice.below(CANCELLED_WITHIN.0)));
            let job = Job { number, nap, rounds, cancelled_after };
            let begins = BEGIN.after(Millis(dice.below(within.0)));
            jobs.push(job.clone());
            let store = ProcessStore::new(server, &process);
            let (clock, server, cancels) = (clock.clone(), server.clone(), Arc::clone(&cancels));
            let (accepted, taken_in) = (accepted.clone(), Arc::clone(&taken_in));
            tokio::spawn(async move {
                clock.wait_until(begins).await;
                load::submit(store.clone(), clock.clone(), put, &job).await;
                lock(&taken_in).push(job.workload());
                accepted.fetch_add(1, Ordering::Relaxed);
                let (to, at, of) = (store.clone(), clock.clone(), job.clone());
                tokio::spawn(async move { load::mail(to, at, &of).await });
                let Some(after) = job.cancelled_after else { return };
                clock.wait_until(clock.now().after(after)).await;
                if load::cancel(store, clock, job.workload()).await {
                    lock(&cancels).insert(job.workload(), *server.memory.head().borrow());
                }
            });
        }
        Self { jobs, taken_in, accepted, cancels }
    }

    /// The work that was accepted.
    fn taken_in(&self) -> Vec<Job> {
        let taken_in = lock(&self.taken_in);
        self.jobs.iter().filter(|job| taken_in.contains(&job.workload())).cloned().collect()
    }
}

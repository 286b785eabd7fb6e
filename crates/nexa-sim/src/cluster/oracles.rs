//! Judges a run at its end, by what the store and the sink have: see the table in the module's header.

use std::collections::BTreeMap;

use nexa_event::effect::Answer;
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, EffectResult, WorkloadEvent};
use nexa_ports::store::{Recorded, Rows, Store};
use nexa_types::{AgentId, EffectKey, Epoch, GlobalSeq, NodeId, Outcome, StreamId, Timestamp, Version, WorkloadId};

use super::load::Job;
use super::store::{Server, name_of};
use super::trace::Trace;
use super::world::World;

/// What was counted while judging.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub(super) accepted: usize,
    pub(super) effects: usize,
    pub(super) done: usize,
    pub(super) unknown: usize,
}

/// How a workload has ended: once, if all is well.
pub(super) async fn ends_of(server: &Server, workload: WorkloadId) -> Vec<Outcome> {
    let facts = server.memory.read(StreamId::Workload(workload), Version(0), usize::MAX).await.unwrap_or_default();
    let ends = facts.into_iter().filter_map(|recorded| match recorded.envelope.fact {
        Fact::Workload(WorkloadEvent::Ended { outcome, .. }) => Some(outcome),
        _ => None,
    });
    ends.collect()
}

/// Judges everything; who is `present` is nobody's business if the run was broken off, and nor is who has not ended. Where
/// nothing went wrong, more is asked.
pub(super) async fn judge(
    server: &Server,
    world: &World,
    trace: &Trace,
    (accepted, cancels): &(Vec<Job>, BTreeMap<WorkloadId, GlobalSeq>),
    (present, is_calm): (Option<Vec<NodeId>>, bool),
) -> Judged {
    let log = server.memory.scan(None, GlobalSeq(0), usize::MAX).await.unwrap_or_default();
    streams(&log, trace);
    starts(&log, cancels, trace);
    let (effects, unknown) = effects(&log, world, trace);
    let done = world.done();
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for counted in done.values() {
        *times.entry(&counted.what).or_default() += counted.times;
    }
    let counts = Judged { accepted: accepted.len(), effects, done: done.len(), unknown };
    let Some(present) = present else { return counts };
    if is_calm {
        if unknown > 0 {
            trace.violated("P15", format!("{unknown} calls are of unknown outcome, and nothing went wrong"));
        }
        accepted.iter().for_each(|job| in_time(&log, job, trace));
    }
    for job in accepted {
        let ends = ends_of(server, job.workload()).await;
        let name = format!("workload w{}", job.number);
        match &ends[..] {
            [] => {
                trace.violated("P2", format!("{name} was accepted and has not ended: {}", state_of(server, job).await))
            }
            [outcome] => match job.calls(outcome) {
                Ok(calls) => calls.iter().for_each(|call| paid(&times, call, trace)),
                Err(why) => trace.violated("P2", format!("{name} ended wrongly: {why}")),
            },
            ends => trace.violated("P5", format!("{name} ended {} times", ends.len())),
        }
    }
    for row in server.memory.rows(Rows::Live, None, usize::MAX).await.unwrap_or_default() {
        let is_there = row.node.as_ref().is_some_and(|node| present.contains(node));
        let owner = row.node.as_ref().map_or("nobody", NodeId::as_str);
        let what = if is_there { "lives on" } else { "is owned by nobody that is there" };
        trace.violated("LE-7", format!("{} {what}: {} of {owner} under {}", row.agent, row.state, row.epoch));
    }
    counts
}

/// Whether a workload took about as long as its naps and calls.
fn in_time(log: &[Recorded], job: &Job, trace: &Trace) {
    let stream = StreamId::Workload(job.workload());
    let times: Vec<Timestamp> =
        log.iter().filter(|it| it.envelope.header.stream == stream).map(|it| it.envelope.header.at).collect();
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return };
    let (took, most) = (last.since(*first), job.takes_at_most());
    if took > most {
        trace.violated("LV-1", format!("workload w{} took {took}, and should take {most} at most", job.number));
    }
}

/// Where the agents of a workload are, for people.
async fn state_of(server: &Server, job: &Job) -> String {
    let rows = server.memory.rows(Rows::Workload(job.workload()), None, usize::MAX).await.unwrap_or_default();
    let shown = rows.iter().map(|row| {
        let owner = row.node.as_ref().map_or("nobody", NodeId::as_str);
        format!("{} {} of {owner} under {} at version {}", row.agent, row.state, row.epoch, row.version)
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// What a program says of a call, against what the sink has counted for the same words, whatever their keys.
fn paid(times: &BTreeMap<&str, u64>, (what, is_paid): &(String, bool), trace: &Trace) {
    // The sink has the arguments as JSON.
    let count: u64 = times.iter().filter(|(args, _)| args.contains(&format!("\"{what}\""))).map(|(_, n)| n).sum();
    if count > 1 || (*is_paid && count == 0) {
        let said = if *is_paid { "done" } else { "unknown" };
        trace.violated("P3", format!("`{what}` was done {count} times, and its program was told: {said}"));
    }
}

/// Versions without gaps, epochs that never fall, and one end, after which nothing comes.
fn streams(log: &[Recorded], trace: &Trace) {
    let mut versions: BTreeMap<&StreamId, Version> = BTreeMap::new();
    let mut epochs: BTreeMap<&StreamId, Epoch> = BTreeMap::new();
    let mut ended: BTreeMap<&StreamId, Version> = BTreeMap::new();
    for Recorded { envelope, .. } in log {
        let (stream, version) = (&envelope.header.stream, envelope.header.version);
        let last = versions.entry(stream).or_default();
        if version != last.next() {
            trace.violated("ST-1", format!("{stream} has version {version} after {last}"));
        }
        *last = version;
        let epoch = envelope.header.epoch.unwrap_or_default();
        let highest = epochs.entry(stream).or_default();
        if epoch < *highest {
            trace.violated("P1", format!("{stream} v{version} is of {epoch} after {highest}"));
        }
        *highest = epoch.max(*highest);
        if let Some(end) = ended.get(stream) {
            trace.violated("P5", format!("{stream} v{version} ({}) follows its end at {end}", name_of(&envelope.fact)));
        }
        let is_end = matches!(
            envelope.fact,
            Fact::Agent(AgentEvent::Ended { .. }) | Fact::Workload(WorkloadEvent::Ended { .. })
        );
        if is_end {
            ended.insert(stream, version);
        }
    }
}

/// Nothing of a workload is started after its cancel was acknowledged.
fn starts(log: &[Recorded], cancels: &BTreeMap<WorkloadId, GlobalSeq>, trace: &Trace) {
    for Recorded { position, workload, envelope } in log {
        let acknowledged = workload.and_then(|workload| cancels.get(&workload));
        if matches!(envelope.fact, Fact::Agent(AgentEvent::EffectStarted { .. }))
            && acknowledged.is_some_and(|acknowledged| position > acknowledged)
        {
            let (stream, version) = (&envelope.header.stream, envelope.header.version);
            trace.violated("P21", format!("{stream} v{version} started an effect after an acknowledged cancel"));
        }
    }
}

/// The ledger against the sink; gives how many effects were started, and how many calls are unknown.
fn effects(log: &[Recorded], world: &World, trace: &Trace) -> (usize, usize) {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum End {
        Done,
        Unknown,
        Other,
    }
    let mut ends: BTreeMap<EffectKey, End> = BTreeMap::new();
    let mut starts: BTreeMap<EffectKey, u32> = BTreeMap::new();
    let mut unknown = 0;
    for Recorded { envelope, workload, .. } in log {
        let (StreamId::Agent(agent), Fact::Agent(event), Some(workload)) =
            (&envelope.header.stream, &envelope.fact, workload)
        else {
            continue;
        };
        let key = |seq| EffectKey::of(*workload, *agent, seq);
        let (key, end) = match event {
            AgentEvent::EffectStarted { seq, attempt, .. } => {
                let attempts = starts.entry(key(*seq)).or_default();
                if *attempt <= *attempts {
                    started_again(*agent, *attempts, *attempt, trace);
                }
                *attempts = *attempt;
                continue;
            }
            AgentEvent::EffectEnded { seq, result, .. } => {
                let end = match result {
                    EffectResult::Done(Answer::Value(_)) => End::Done,
                    EffectResult::Unknown(_) => End::Unknown,
                    EffectResult::Done(_) | EffectResult::Failed(_) => End::Other,
                };
                (key(*seq), end)
            }
            AgentEvent::EffectLost { seq } => (key(*seq), End::Unknown),
            _ => continue,
        };
        unknown += usize::from(end == End::Unknown);
        if ends.insert(key, end).is_some() {
            trace.violated("P5", format!("effect {key} ended twice"));
        }
    }
    for (key, counted) in world.done() {
        if counted.times > 1 {
            trace.violated("P3", format!("{key} ({}) was done {} times", counted.what, counted.times));
        }
        if matches!(ends.get(&key), Some(End::Other)) {
            trace.violated("P3", format!("{key} ({}) was done, and is recorded as failed", counted.what));
        }
    }
    let done = world.done();
    for (key, _) in ends.iter().filter(|(key, end)| **end == End::Done && !done.contains_key(key)) {
        trace.violated("P3", format!("{key} is recorded as done, and was not"));
    }
    (starts.len(), unknown)
}

fn started_again(agent: AgentId, last: u32, attempt: u32, trace: &Trace) {
    trace.violated("AG-1", format!("{agent} has started attempt {attempt} of an effect after attempt {last}"));
}

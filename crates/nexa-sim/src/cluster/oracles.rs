//! Judges a run at its end, by what the store and the sink have: see the table in the module's header. What a log and a sink
//! must show whatever world they are of is `nexa-history`'s to judge; here is what only a simulation knows.

use std::collections::BTreeMap;

use nexa_event::envelope::Fact;
use nexa_event::fact::WorkloadEvent;
use nexa_history::{Done, Logged, Sink, clients, edges, effects, streams};
use nexa_ports::store::{Recorded, Rows, Store};
use nexa_types::{GlobalSeq, NodeId, Outcome, StreamId, Timestamp, Version, WorkloadId};

use super::load::Job;
use super::store::Server;
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
    let logged: Vec<Logged> = log.iter().map(|fact| Logged::of(fact.position, fact.workload, &fact.envelope)).collect();
    let sink = sink_of(world);
    let (effects, of_effects) = effects::check(&logged, &sink, |_| false, None);
    let found = [streams::check(&logged), clients::starts_after(&logged, cancels), of_effects, edges::check(&logged)];
    found.into_iter().flatten().for_each(|found| trace.violated(found.id, found.text));
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (sent, unknown) = (count(effects.sent), count(effects.unknown));
    let counts = Judged { accepted: accepted.len(), effects: sent, done: sink.len(), unknown };
    let Some(present) = present else { return counts };
    if is_calm {
        if unknown > 0 {
            trace.violated("P15", format!("{unknown} calls are of unknown outcome, and nothing went wrong"));
        }
        accepted.iter().for_each(|job| in_time(&log, job, trace));
    }
    let said = effects::Words::of(&sink);
    for job in accepted {
        let ends = ends_of(server, job.workload()).await;
        let name = format!("workload w{}", job.number);
        match &ends[..] {
            [] => {
                trace.violated("P2", format!("{name} was accepted and has not ended: {}", state_of(server, job).await))
            }
            [outcome] => match job.calls(outcome) {
                Ok(calls) => {
                    let found = said.check(&calls, |_| false);
                    found.into_iter().for_each(|found| trace.violated(found.id, found.text));
                }
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

/// What the sink has counted, by the words that the program has for it: the world has the arguments as JSON.
fn sink_of(world: &World) -> Sink {
    let words = |args: &str| -> Option<String> {
        let args: serde_json::Value = serde_json::from_str(args).ok()?;
        Some(args.get("what")?.as_str()?.to_owned())
    };
    let done = world.done().into_iter();
    done.map(|(key, it)| (key, Done { what: words(&it.what).unwrap_or(it.what), times: it.times })).collect()
}

//! What happened in a load, in the form that simulations and the battery of faults use, and whether it may have.
//!
//! In:  the watch of a workload from its start, what clients asked about it, and how often the endpoint was asked by key.
//! Out: what `nexa-history` finds, and its lines for a file.
//!
//! A watch has every fact of a workload's streams, in order, with its version. It does not tell epochs, so P1 is not checked
//! here, nor what an item of a list comes after, which is taken from what was submitted. One workload after the other is
//! read, checked and let go.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use nexa_client::{Client, ClientError, From};
use nexa_history::logged::Kind;
use nexa_history::{Call, End, Fault, Logged, Sink, Violation, What, clients, edges, effects, json, streams};
use nexa_proto::v1;
use nexa_proto::v1::effect_ended::Result as Ended;
use nexa_proto::v1::watch_event::Event;
use nexa_proto::v1::watch_frame::Frame;
use nexa_types::{AgentId, EffectKey, GlobalSeq, Seq, StreamId, Timestamp, Version, WorkloadId};

use crate::LoadError;

/// How long one history may take.
const HISTORY_PATIENCE: Duration = Duration::from_secs(60);

/// Items of a list, each with the indices of those before it.
pub type Items = Vec<(String, Vec<u32>)>;

/// Reads the history of a workload that has ended. `items` is what its list was submitted with, if it is one.
///
/// # Errors
/// [`LoadError::Client`].
pub async fn read(client: &Client, workload: WorkloadId, items: Items) -> Result<Vec<Logged>, LoadError> {
    let failed = |source| LoadError::Client { doing: "reading a history", source };
    let mut frames = client.watch_workload(workload.to_string(), From::Start, false);
    let mut facts = Vec::new();
    let all = async {
        while let Some(frame) = frames.next().await {
            let Frame::Event(event) = frame.map_err(failed)? else { continue };
            facts.extend(logged(workload, &items, facts.len() as u64 + 1, *event));
        }
        Ok(())
    };
    tokio::time::timeout(HISTORY_PATIENCE, all).await.map_err(|_| failed(ClientError::Deadline))??;
    Ok(facts)
}

/// A fact of a workload as the checkers look at it.
fn logged(workload: WorkloadId, items: &Items, position: u64, event: v1::WatchEvent) -> Option<Logged> {
    let agent = event.agent_id.parse::<AgentId>().ok();
    let at = event.at.and_then(|at| SystemTime::try_from(at).ok());
    let at = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let is_root = agent == Some(AgentId::root(workload));
    let what = what(workload, agent, event.agent_name, event.event?, if is_root { items } else { &[] });
    Some(Logged {
        position: GlobalSeq(position),
        stream: agent.map_or(StreamId::Workload(workload), StreamId::Agent),
        version: Version(event.version),
        epoch: None,
        at: Timestamp(at.as_millis() as u64),
        workload: Some(workload),
        what,
    })
}

fn what(
    workload: WorkloadId,
    agent: Option<AgentId>,
    name: String,
    event: Event,
    items: &[(String, Vec<u32>)],
) -> What {
    let key = |agent, seq| EffectKey::of(workload, agent, Seq(seq));
    match (event, agent) {
        (Event::WorkloadSubmitted(_), _) => What::Submitted,
        (Event::WorkloadCancelRequested(_), _) => What::CancelRequested,
        (Event::WorkloadEnded(ended), _) => What::WorkloadEnded(is_well(ended.outcome)),
        (Event::AgentSpawned(spawned), _) => {
            What::Spawned { name, parent: spawned.parent_agent_id.parse().ok(), items: items.to_vec() }
        }
        (Event::AgentStarted(v1::AgentStarted { node }) | Event::AgentTakenOver(v1::AgentTakenOver { node }), _) => {
            What::Owned(node)
        }
        (Event::AgentEnded(ended), _) => What::AgentEnded(is_well(ended.outcome)),
        (Event::EffectIntended(intended), Some(agent)) => {
            let kind = if intended.tool.is_some() { Kind::Tool } else { Kind::Model };
            What::Intended(key(agent, intended.effect_seq), kind)
        }
        (Event::EffectStarted(started), Some(agent)) => What::Started(key(agent, started.effect_seq), started.attempt),
        (Event::EffectEnded(ended), Some(agent)) => {
            let end = match ended.result {
                Some(Ended::Tool(_)) => End::Done,
                Some(Ended::Model(_) | Ended::Approval(_)) => End::Answered,
                Some(Ended::Failure(_)) => End::Failed,
                Some(Ended::Unknown(_)) | None => End::Unknown,
            };
            What::EffectEnded(key(agent, ended.effect_seq), end)
        }
        (Event::ChildrenSpawned(born), _) => {
            What::Children(born.agent_ids.iter().filter_map(|agent| agent.parse().ok()).collect())
        }
        _ => What::Other,
    }
}

fn is_well(outcome: Option<v1::Outcome>) -> bool {
    matches!(outcome.and_then(|outcome| outcome.result), Some(v1::outcome::Result::ValueJson(_)))
}

/// Checks the history of a workload that has ended. `calls` is what clients asked and were told of it, `sent` how often the
/// endpoint was asked under a key.
pub fn check(facts: &[Logged], calls: &[Call], sent: &dyn Fn(EffectKey) -> u32) -> Vec<Violation> {
    // Nothing that a load does has an effect outside but a model's request.
    let (_, of_effects) = effects::check(facts, &Sink::new(), |_| false, Some(sent));
    [
        streams::check(facts),
        of_effects,
        edges::check(facts),
        clients::kept(facts, calls, true),
        clients::orderly(calls),
        clients::cancelled(facts, calls),
    ]
    .concat()
}

/// How often the sending of each outside effect was recorded.
pub fn attempts(facts: &[Logged]) -> BTreeMap<EffectKey, u32> {
    let mut attempts: BTreeMap<EffectKey, u32> = BTreeMap::new();
    for fact in facts {
        if let What::Started(key, attempt) = fact.what {
            attempts.entry(key).and_modify(|most| *most = attempt.max(*most)).or_insert(attempt);
        }
    }
    attempts
}

/// Of agents that were on a node when it was killed and went on elsewhere: when the new owner first recorded anything but that
/// it is the owner.
pub fn resumed(facts: &[Logged], node: &str, killed: Timestamp) -> Vec<Timestamp> {
    #[derive(Default)]
    struct Whereabouts<'a> {
        node: &'a str,
        /// It was on the killed node, and another has taken it over since.
        is_back: bool,
        resumed: Option<Timestamp>,
    }
    let mut agents: BTreeMap<AgentId, Whereabouts<'_>> = BTreeMap::new();
    for fact in facts {
        let Some(agent) = fact.agent() else { continue };
        let agent = agents.entry(agent).or_default();
        match &fact.what {
            What::Owned(owner) => {
                agent.is_back |= agent.node == node && fact.at > killed;
                agent.node = owner;
            }
            _ if agent.is_back && agent.resumed.is_none() => agent.resumed = Some(fact.at),
            _ => {}
        }
    }
    agents.into_values().filter_map(|agent| agent.resumed).collect()
}

/// A file of histories: a line of JSON for each fact, each call of a client, and each fault.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    file: std::io::BufWriter<std::fs::File>,
}

impl Record {
    /// Makes the file.
    ///
    /// # Errors
    /// [`LoadError::Folder`].
    pub fn create(path: &Path) -> Result<Self, LoadError> {
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::File::create(path));
        let file = made.map_err(|source| LoadError::Folder { folder: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), file: std::io::BufWriter::new(file) })
    }

    /// Adds a part of a history.
    ///
    /// # Errors
    /// [`LoadError::Folder`].
    pub fn add(&mut self, calls: &[Call], faults: &[Fault], facts: &[Logged]) -> Result<(), LoadError> {
        let sink = Sink::new();
        let mut written = Ok(());
        for line in json::lines(calls, faults, &sink, facts) {
            written = written.and_then(|()| writeln!(self.file, "{line}"));
        }
        written
            .and_then(|()| self.file.flush())
            .map_err(|source| LoadError::Folder { folder: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use nexa_history::{Operation, Told};

    use super::*;

    fn workload() -> WorkloadId {
        WorkloadId::from_bytes([1; 16])
    }

    fn root() -> AgentId {
        AgentId::root(workload())
    }

    /// The facts of one agent, each with the second that it is of.
    fn facts(events: Vec<(Event, u64)>) -> Vec<Logged> {
        let fact = |(position, (event, second)): (u64, (Event, i64))| {
            let event = v1::WatchEvent {
                agent_id: root().to_string(),
                version: position,
                at: Some(prost_types::Timestamp { seconds: second, nanos: 0 }),
                event: Some(event),
                ..v1::WatchEvent::default()
            };
            logged(workload(), &Items::new(), position, event)
        };
        let events = events.into_iter().map(|(event, second)| (event, i64::try_from(second).unwrap_or_default()));
        (1..).zip(events).filter_map(fact).collect()
    }

    fn started(node: &str) -> Event {
        Event::AgentStarted(v1::AgentStarted { node: node.into() })
    }

    fn taken(node: &str) -> Event {
        Event::AgentTakenOver(v1::AgentTakenOver { node: node.into() })
    }

    fn sent(attempt: u32) -> Event {
        Event::EffectStarted(v1::EffectStarted { effect_seq: 1, attempt })
    }

    fn asked() -> Event {
        Event::EffectIntended(v1::EffectIntended { effect_seq: 1, ..v1::EffectIntended::default() })
    }

    #[test]
    fn an_agent_is_back_when_another_node_records_something_of_it() {
        let resumed = |events| resumed(&facts(events), "b", Timestamp(10_000));
        let back = [Timestamp(13_000)];
        assert_eq!(
            resumed(vec![(started("b"), 1), (sent(1), 2), (taken("a"), 12), (sent(2), 13), (sent(3), 14)]),
            back
        );
        assert_eq!(resumed(vec![(started("a"), 1), (taken("c"), 12), (sent(1), 13)]), [], "it was not there");
        assert_eq!(resumed(vec![(started("b"), 1), (taken("a"), 5), (sent(1), 13)]), [], "it had left before");
        let moved_there = vec![(started("a"), 1), (taken("b"), 5), (taken("c"), 12), (sent(1), 15)];
        assert_eq!(resumed(moved_there), [Timestamp(15_000)]);
    }

    #[test]
    fn a_model_that_was_asked_more_often_than_is_recorded_is_found() {
        let facts = facts(vec![(started("a"), 1), (asked(), 1), (sent(1), 1), (sent(2), 3)]);
        let found = |times| check(&facts, &[], &|_| times).into_iter().map(|found| found.id).collect::<Vec<_>>();
        assert_eq!((found(1), found(2), found(3)), (vec![], vec![], vec!["P3"]));
        assert_eq!(attempts(&facts).into_values().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn an_attempt_that_is_recorded_twice_and_a_workload_that_is_not_there_are_found() {
        let twice = facts(vec![(started("a"), 1), (asked(), 1), (sent(1), 1), (sent(1), 3)]);
        assert_eq!(check(&twice, &[], &|_| 1)[0].id, "AG-1");
        let told = Told::Ok(None);
        let call = Call { operation: Operation::Submit, workload: workload(), invoked: 1, returned: 2, told };
        assert_eq!(check(&[], &[call], &|_| 0)[0].id, "P2");
    }

    #[test]
    fn what_an_item_comes_after_is_known_from_what_was_submitted() {
        let items = vec![("a".to_owned(), vec![]), ("b".to_owned(), vec![0])];
        let spawned = |agent: AgentId, name: &str, parent: String| v1::WatchEvent {
            agent_id: agent.to_string(),
            agent_name: name.to_owned(),
            version: 1,
            event: Some(Event::AgentSpawned(v1::AgentSpawned { parent_agent_id: parent })),
            ..v1::WatchEvent::default()
        };
        let child = |branch| AgentId::child(root(), Seq(1), branch);
        let events = [
            spawned(root(), "list", String::new()),
            spawned(child(0), "a", root().to_string()),
            spawned(child(1), "b", root().to_string()),
        ];
        let facts: Vec<Logged> =
            (1..).zip(events).filter_map(|(position, event)| logged(workload(), &items, position, event)).collect();
        assert_eq!(check(&facts, &[], &|_| 0)[0].id, "P4");
    }
}

//! How the server says things stand.
//!
//! Results are learnt from pages of the list of workloads: five hundred an answer, with state, output and times. A watch
//! for each of ten thousand workloads would be ten thousand streams that a node keeps up, and it has a limit below that; a
//! question for each would read ten thousand histories. Histories are read only where something may have been sent
//! twice: of what ran when the node was killed, and of keys that the endpoint saw more than once.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream;
use nexa_client::{Client, From};
use nexa_proto::v1;
use nexa_proto::v1::watch_event::Event;
use nexa_proto::v1::watch_frame::Frame;
use nexa_types::{AgentId, EffectKey, Seq, WorkloadId};

use crate::LoadError;

/// Items of a page.
const PAGE_ITEMS: i32 = 500;
/// Histories that are read at once; a server lets more than a thousand watches wait.
const HISTORIES_AT_ONCE: usize = 32;
/// How long one history may take.
const HISTORY_PATIENCE: Duration = Duration::from_secs(60);

/// A workload as a list shows it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Where it is in its life.
    pub state: v1::WorkloadState,
    /// How many agents of it have ended.
    pub agents_ended: u64,
    /// When it was accepted.
    pub submitted_at: Option<SystemTime>,
    /// When it ended.
    pub ended_at: Option<SystemTime>,
    /// Its output, if it succeeded and the list shows one that long.
    pub value_json: Option<String>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl Seen {
    /// Whether it has ended in any way.
    pub fn has_ended(&self) -> bool {
        !matches!(
            self.state,
            v1::WorkloadState::Unspecified | v1::WorkloadState::Submitted | v1::WorkloadState::Running
        )
    }
}

impl std::convert::From<v1::Workload> for Seen {
    fn from(workload: v1::Workload) -> Self {
        use v1::outcome::Result;
        let time = |at: Option<prost_types::Timestamp>| at.and_then(|at| SystemTime::try_from(at).ok());
        let (value_json, failure) = match workload.outcome.as_ref().and_then(|outcome| outcome.result.clone()) {
            Some(Result::ValueJson(json)) => (Some(json).filter(|json| !json.is_empty()), None),
            Some(Result::Failure(failure)) => (None, Some(format!("{}: {}", failure.code, failure.message))),
            None => (None, None),
        };
        Self {
            state: workload.state(),
            agents_ended: workload.agents_ended,
            submitted_at: time(workload.submitted_at),
            ended_at: time(workload.ended_at),
            value_json,
            failure,
        }
    }
}

fn failed(doing: &'static str) -> impl Fn(nexa_client::ClientError) -> LoadError {
    move |source| LoadError::Client { doing, source }
}

/// All workloads by id.
///
/// # Errors
/// [`LoadError::Client`].
pub async fn sweep(client: &Client) -> Result<BTreeMap<String, Seen>, LoadError> {
    let mut all = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = v1::WorkloadServiceListRequest { page_size: PAGE_ITEMS, page_token, ..Default::default() };
        let page = client.workloads(request).await.map_err(failed("listing workloads"))?;
        all.extend(page.workloads.into_iter().map(|workload| (workload.workload_id.clone(), workload.into())));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// A workload with its whole output.
///
/// # Errors
/// [`LoadError::Client`].
pub async fn whole(client: &Client, workload_id: &str) -> Result<Seen, LoadError> {
    let request = v1::WorkloadServiceGetRequest { workload_id: workload_id.to_owned() };
    let found = client.workload(request).await.map_err(failed("asking for a workload"))?;
    Ok(found.workload.unwrap_or_default().into())
}

/// When each agent began to run, with its workload.
///
/// # Errors
/// [`LoadError::Client`].
pub async fn starts(client: &Client) -> Result<Vec<(String, SystemTime)>, LoadError> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::AgentServiceListRequest { page_size: PAGE_ITEMS, page_token, ..Default::default() };
        let page = client.agents(request).await.map_err(failed("listing agents"))?;
        for agent in page.agents {
            let started = agent.started_at.and_then(|at| SystemTime::try_from(at).ok());
            all.extend(started.map(|at| (agent.workload_id, at)));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// How many agents that have not ended each node has, by name, as it told last.
///
/// # Errors
/// [`LoadError::Client`].
pub async fn nodes(client: &Client) -> Result<BTreeMap<String, u64>, LoadError> {
    let listed = client.nodes(v1::ClusterServiceListNodesRequest {}).await.map_err(failed("listing nodes"))?;
    let agents = |node: &v1::Node| node.load.as_ref().map_or(0, |load| load.agents);
    Ok(listed.nodes.iter().map(|node| (node.name.clone(), agents(node))).collect())
}

/// Who leads, by name, as the node that is asked sees it.
///
/// # Errors
/// [`LoadError::Client`].
pub async fn leader(client: &Client) -> Result<Option<String>, LoadError> {
    let listed = client.nodes(v1::ClusterServiceListNodesRequest {}).await.map_err(failed("listing nodes"))?;
    Ok(listed.nodes.into_iter().find(|node| node.is_leader).map(|node| node.name))
}

/// What a history tells of a workload's agents.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Its outside effects.
    pub attempts: Vec<Attempts>,
    /// Who was on a node that was killed, and went on elsewhere: when the new owner first recorded anything but that it is
    /// the owner.
    pub resumed: Vec<SystemTime>,
}

/// An outside effect in a history: its key, as the endpoint saw it, and how often its sending was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// The `Idempotency-Key`.
    pub key: String,
    /// The highest attempt.
    pub attempts: u32,
}

/// What the histories of ended workloads tell. `killed` is the name of a node that was, and when.
///
/// # Errors
/// [`LoadError::Client`].
pub async fn histories(
    client: &Client,
    workloads: Vec<String>,
    killed: Option<(String, SystemTime)>,
) -> Result<Vec<History>, LoadError> {
    let histories = stream::iter(workloads).map(|workload| history_of(client.clone(), workload, killed.clone()));
    let mut histories = histories.buffer_unordered(HISTORIES_AT_ONCE);
    let mut all = Vec::new();
    while let Some(history) = histories.next().await {
        all.push(history?);
    }
    Ok(all)
}

/// Where an agent is, as its history tells so far.
#[derive(Debug, Default)]
struct Whereabouts {
    node: String,
    /// It was on the killed node, and another has taken it over since.
    is_back: bool,
    resumed: Option<SystemTime>,
}

impl Whereabouts {
    fn note(&mut self, event: &Event, at: Option<SystemTime>, killed: &(String, SystemTime)) {
        let (name, killed_at) = killed;
        match event {
            Event::AgentStarted(started) if self.node.is_empty() => self.node.clone_from(&started.node),
            Event::AgentStarted(_) => {}
            Event::AgentTakenOver(taken) => {
                self.is_back |= self.node == *name && at.is_some_and(|at| at > *killed_at);
                self.node.clone_from(&taken.node);
            }
            _ if self.is_back && self.resumed.is_none() => self.resumed = at,
            _ => {}
        }
    }
}

async fn history_of(
    client: Client,
    workload_id: String,
    killed: Option<(String, SystemTime)>,
) -> Result<History, LoadError> {
    let Ok(workload) = workload_id.parse::<WorkloadId>() else { return Ok(History::default()) };
    let mut effects: BTreeMap<(AgentId, Seq), u32> = BTreeMap::new();
    let mut agents: BTreeMap<AgentId, Whereabouts> = BTreeMap::new();
    let mut frames = client.watch_workload(workload_id, From::Start, false);
    let read = async {
        while let Some(frame) = frames.next().await {
            let Frame::Event(event) = frame.map_err(failed("reading a history"))? else { continue };
            let (Some(what), Ok(agent)) = (event.event, event.agent_id.parse::<AgentId>()) else { continue };
            if let Some(killed) = &killed {
                let at = event.at.and_then(|at| SystemTime::try_from(at).ok());
                agents.entry(agent).or_default().note(&what, at, killed);
            }
            if let Event::EffectStarted(started) = what {
                let attempts = effects.entry((agent, Seq(started.effect_seq))).or_default();
                *attempts = (*attempts).max(started.attempt);
            }
        }
        Ok(())
    };
    let late = nexa_client::ClientError::Deadline;
    tokio::time::timeout(HISTORY_PATIENCE, read).await.map_err(|_| failed("reading a history")(late))??;
    let key = |(agent, seq)| EffectKey::of(workload, agent, seq).to_string();
    let attempts = effects.into_iter().map(|(effect, attempts)| Attempts { key: key(effect), attempts }).collect();
    let resumed = agents.into_values().filter_map(|agent| agent.resumed).collect();
    Ok(History { attempts, resumed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_back_when_another_node_records_something_of_it() {
        let at = |second| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let killed = ("b".to_owned(), SystemTime::UNIX_EPOCH + Duration::from_secs(10));
        let started = |node: &str| Event::AgentStarted(v1::AgentStarted { node: node.into() });
        let taken = |node: &str| Event::AgentTakenOver(v1::AgentTakenOver { node: node.into() });
        let sent = || Event::EffectStarted(v1::EffectStarted { effect_seq: 1, attempt: 2 });
        let resumed = |events: Vec<(Event, u64)>| {
            let mut agent = Whereabouts::default();
            events.iter().for_each(|(event, second)| agent.note(event, at(*second), &killed));
            agent.resumed
        };
        assert_eq!(resumed(vec![(started("b"), 1), (sent(), 2), (taken("a"), 12), (sent(), 13), (sent(), 14)]), at(13));
        assert_eq!(resumed(vec![(started("a"), 1), (taken("c"), 12), (sent(), 13)]), None, "it was not there");
        assert_eq!(resumed(vec![(started("b"), 1), (taken("a"), 5), (sent(), 13)]), None, "it had left before");
        let moved_there = vec![(started("a"), 1), (taken("b"), 5), (taken("c"), 12), (sent(), 15)];
        assert_eq!(resumed(moved_there), at(15));
    }
}

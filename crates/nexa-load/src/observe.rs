//! How the server says things stand.
//!
//! Results are learnt from pages of the list of workloads: five hundred an answer, with state, output and times. A watch
//! for each of ten thousand workloads would be ten thousand streams that a node keeps up, and it has a limit below that; a
//! question for each would read ten thousand histories ([`crate::history`] reads those that matter).

use std::collections::BTreeMap;
use std::time::SystemTime;

use nexa_client::Client;
use nexa_history::Standing;
use nexa_proto::v1;

use crate::LoadError;

/// Items of a page.
const PAGE_ITEMS: i32 = 500;

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
        matches!(standing(self.state), Standing::Ended(_))
    }
}

/// How a workload stands, in the words of histories.
pub fn standing(state: v1::WorkloadState) -> Standing {
    match state {
        v1::WorkloadState::Unspecified | v1::WorkloadState::Submitted | v1::WorkloadState::Running => Standing::Live,
        v1::WorkloadState::Succeeded => Standing::Ended("succeeded"),
        v1::WorkloadState::Failed => Standing::Ended("failed"),
        v1::WorkloadState::Cancelled => Standing::Ended("cancelled"),
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

//! Agents: get, watch, send, snapshot.

use bytes::Bytes;
use nexa_event::fact::Input;
use nexa_ports::store::{AgentRow, Post, Posted, Recorded};
use nexa_proto::refusal::Refusal;
use nexa_types::{AgentId, InputId, Reason, StreamId, Version};
use nexa_view::AgentView;

use super::{By, Handlers, input, overloaded, store_refusal};
use crate::mediator::{AgentSnapshot, Frames, GetAgent, SendMessage, Snapshot, WatchAgent};
use crate::standing::Standings;
use crate::watch::Subject;

/// Facts read at once.
const BATCH: usize = 256;

impl Handlers {
    /// The whole stream is folded; state, node and epoch are the row's.
    pub(super) async fn get_agent(&self, by: &By, get: GetAgent) -> Result<AgentView, Refusal> {
        let row = self.own_agent(by, get.agent).await?;
        let (standing, _) = self.fold_agent(get.agent).await?;
        let Some(mut agent) = standing.agents.into_values().next() else {
            return Err(Refusal::new(Reason::DataCorrupt, format!("`{}` has a row and no facts", get.agent)));
        };
        // Facts may have come between the two reads; then the fold knows better.
        if row.version >= agent.version {
            agent.state = row.state;
            agent.node = row.node;
            agent.epoch = row.epoch;
            agent.asks = row.asks;
        }
        // A node alone runs it whatever it asks for.
        agent.asks = agent.asks.filter(|_| self.neighbours.is_some());
        Ok(agent)
    }

    /// The agent as its stream tells, and the facts about the newest question to a person in it.
    pub(super) async fn fold_agent(&self, agent: AgentId) -> Result<(Standings, Vec<Recorded>), Refusal> {
        let mut standings = Standings::default();
        let mut questions = Vec::new();
        let mut after = Version(0);
        loop {
            let page = self.store.read(StreamId::Agent(agent), after, BATCH).await.map_err(store_refusal)?;
            let full = page.len() == BATCH;
            for recorded in page {
                after = recorded.envelope.header.version;
                standings.apply(&recorded);
                if super::approvals::is_about_a_question(&recorded) {
                    questions.push(recorded);
                }
            }
            if !full {
                return Ok((standings, questions));
            }
        }
    }

    /// The row of an agent of the caller's tenant.
    pub(super) async fn own_agent(&self, by: &By, agent: AgentId) -> Result<AgentRow, Refusal> {
        let row = self.store.row(agent).await.map_err(store_refusal)?;
        row.filter(|row| row.tenant == *by.tenant()).ok_or_else(|| Refusal::not_found("agent", agent))
    }

    pub(super) async fn watch_agent(&self, by: &By, watch: WatchAgent) -> Result<Frames, Refusal> {
        let row = self.own_agent(by, watch.agent).await?;
        let first = self.store.read(StreamId::Agent(watch.agent), Version(0), 1).await.map_err(store_refusal)?;
        let Some(first) = first.into_iter().next() else {
            return Err(Refusal::new(Reason::DataCorrupt, format!("`{}` has a row and no facts", watch.agent)));
        };
        self.start_watch(Subject::Agent(watch.agent, row.workload), watch.from, watch.chunks, first).await
    }

    /// Idempotent by its request id, which makes the input's id: an inbox takes each id once. Another message under the
    /// same id is found out as long as the first one waits; it is never put there.
    pub(super) async fn send(&self, by: &By, send: SendMessage) -> Result<(), Refusal> {
        self.own_agent(by, send.agent).await?;
        let value = input::dynamic("value_json", &send.value)?;
        let post = Post {
            to: send.agent,
            id: InputId::message(send.agent, send.request),
            input: Input::Message { from: by.identity.principal.to_string(), value },
            trace: by.trace,
        };
        let (id, input) = (post.id, post.input.clone());
        self.post(by, post).await?;
        match self.store.entry(send.agent, id).await.map_err(store_refusal)? {
            Some(first) if first.input != input => {
                Err(Refusal::new(Reason::AlreadyExists, "the request id was used for another message")
                    .about("agent", send.agent)
                    .hint("make a new request id for each new message"))
            }
            // Equal, or taken since.
            Some(_) | None => Ok(()),
        }
    }

    /// Puts an entry into an agent's inbox and wakes the agent.
    pub(super) async fn post(&self, by: &By, post: Post) -> Result<(), Refusal> {
        let agent = post.to;
        match self.store.post(post, self.stamp(by)).await.map_err(store_refusal)? {
            Posted::Accepted { owner } => {
                self.tell([(agent, owner)]);
                Ok(())
            }
            Posted::AgentEnded => Err(Refusal::new(Reason::AlreadyEnded, "the agent has ended").about("agent", agent)),
            Posted::InboxFull => Err(overloaded("the agent's inbox is full").about("agent", agent)),
            Posted::NoSuchAgent => Err(Refusal::not_found("agent", agent)),
        }
    }

    pub(super) async fn snapshot(&self, by: &By, snapshot: Snapshot) -> Result<AgentSnapshot, Refusal> {
        self.own_agent(by, snapshot.agent).await?;
        let kept = self.store.snapshot(snapshot.agent).await.map_err(store_refusal)?;
        let (version, bytes) = kept.ok_or_else(|| {
            Refusal::new(Reason::NotFound, "no snapshot of the agent was kept yet")
                .about("snapshot", snapshot.agent)
                .hint("snapshots are kept when an agent sleeps, and after many facts; its facts are complete without")
        })?;
        Ok(AgentSnapshot { version, bytes: Bytes::from(bytes) })
    }
}

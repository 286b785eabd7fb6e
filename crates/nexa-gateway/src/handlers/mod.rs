//! The end of the chain: what each command and query does.
//!
//! Get by id reads the stream and the row, so it knows everything that was recorded before it was asked. Lists and
//! searches read the read models, which say how far they have seen. Whatever belongs to another tenant is not found.
//!
//! A command is carried out in a task of its own: a client that goes away, or a deadline that passes, does not stop it
//! half way. Its request id makes asking again safe; each handler says how. New work that has not begun is another thing:
//! it is not begun for somebody who has gone.

mod agents;
mod approvals;
mod compile;
mod input;
mod list;
mod memory;
mod nodes;
mod plan;
mod programs;
mod submit;
mod workloads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nexa_event::envelope::TraceContext;
use nexa_ports::clock::Clock;
use nexa_ports::neighbours::Neighbours;
use nexa_ports::store::{Stamp, Store, StoreError};
use nexa_ports::view::{ViewError, Views};
use nexa_proto::refusal::Refusal;
use nexa_remember::Remembrance;
use nexa_runtime::ProgramError;
use nexa_runtime::trace;
use nexa_types::{AgentId, GlobalSeq, NodeId, Reason, TenantId};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::util::{BoxCloneSyncService, service_fn};
use tracing::Span;

use crate::admission::Entrance;
use crate::fleet::{Fleet, Lone};
use crate::host::Host;
use crate::mediator::{Call, Command, Identity, Message, Next, Query, Reply};
use compile::Compiler;

/// Watches and exports that one door has open at once. Then: OVERLOADED.
pub const STREAMS_MAX: usize = 1_024;
/// How long a list waits for `min_seq`. Then: OVERLOADED, with a time to come back.
const VIEW_WAIT_MAX: Duration = Duration::from_secs(5);
/// When to come back after a refusal for want of room.
const COME_BACK_AFTER: Duration = Duration::from_millis(200);

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Handlers {
    store: Arc<dyn Store>,
    views: Arc<dyn Views>,
    host: Arc<dyn Host>,
    fleet: Arc<dyn Fleet>,
    /// The other nodes of its cluster; `None` if it runs alone.
    neighbours: Option<Arc<dyn Neighbours>>,
    clock: Arc<dyn Clock>,
    /// What agents remember; `None` where nobody keeps it.
    remembrance: Option<Remembrance>,
    compiler: Arc<Compiler>,
    streams: Arc<Semaphore>,
    closing: CancellationToken,
    /// Where commands are carried out.
    home: Option<Handle>,
}

/// On whose behalf a handler works.
#[derive(Clone)]
struct By {
    identity: Identity,
    trace: Option<TraceContext>,
    /// How it was let in, if it brings new work.
    entrance: Option<Entrance>,
    /// Cancelled once nobody waits for the answer.
    gone: CancellationToken,
}

impl By {
    fn tenant(&self) -> &TenantId {
        &self.identity.tenant
    }
}

impl Handlers {
    /// Handlers over a store, its read models and a node. Commands are carried out on the runtime that this is called on,
    /// whichever the doors have: what was let in does not wait behind those who are refused.
    pub fn new(store: Arc<dyn Store>, views: Arc<dyn Views>, host: Arc<dyn Host>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            views,
            fleet: Arc::new(Lone::new(host.clone(), String::new())),
            host,
            neighbours: None,
            clock,
            remembrance: None,
            compiler: Arc::new(Compiler::new()),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            closing: CancellationToken::new(),
            home: Handle::try_current().ok(),
        }
    }

    /// The same with another account of the nodes. Without it, the node is taken for one without others.
    #[must_use]
    pub fn fleet(mut self, fleet: Arc<dyn Fleet>) -> Self {
        self.fleet = fleet;
        self
    }

    /// The same for a node among others: beyond its room for births of its own, new workloads have no owner before the leader
    /// gives them one, and agents are told of what is new to them wherever they are.
    #[must_use]
    pub fn among(mut self, neighbours: Arc<dyn Neighbours>) -> Self {
        self.neighbours = Some(neighbours);
        self
    }

    /// The same for a node that keeps what agents remember.
    #[must_use]
    pub fn remembering(mut self, remembrance: Remembrance) -> Self {
        self.remembrance = Some(remembrance);
        self
    }

    /// Cancel it to take no new work and to end all streams.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// The end of a chain, for [`crate::mediator::Mediator::builder`].
    pub fn into_end(self) -> Next {
        BoxCloneSyncService::new(service_fn(move |call: Call| {
            let handlers = self.clone();
            async move { handlers.execute(call).await }
        }))
    }

    async fn execute(&self, call: Call) -> Result<Reply, Refusal> {
        let Some(identity) = call.identity else {
            return Err(Refusal::new(Reason::Unauthenticated, "who is asking is not known"));
        };
        let gone = CancellationToken::new();
        // Whoever only looks, again and again, is in traces if they ask for it.
        let is_seen = call.trace.is_some() || matches!(call.message, Message::Command(_));
        let seen = match is_seen {
            true => trace::call(call.message.name(), self.host.id(), call.trace),
            false => Span::none(),
        };
        let trace = trace::context_of(&seen).or(call.trace);
        let by = By { identity, trace, entrance: call.entrance, gone: gone.clone() };
        // Dropped with this future, by a deadline or because the caller has gone.
        let _waits = gone.drop_guard();
        let answer = self.answer(by, call.message).await;
        if let Err(refusal) = &answer {
            trace::failed(&seen, refusal.reason.as_str());
        }
        answer
    }

    async fn answer(&self, by: By, message: Message) -> Result<Reply, Refusal> {
        match message {
            Message::Query(query) => self.query(&by, query).await,
            Message::Command(command) => {
                let handlers = self.clone();
                let work = async move {
                    let answer = handlers.command(&by, command).await;
                    if let Some(Entrance::Place(place)) = &by.entrance {
                        place.leave();
                    }
                    answer
                };
                let task = self.home.as_ref().map_or_else(Handle::current, Handle::clone).spawn(work);
                task.await.unwrap_or_else(|error| {
                    tracing::error!(%error, "a handler panicked");
                    Err(Refusal::new(Reason::Internal, "the request met a bug; the log has more"))
                })
            }
        }
    }

    async fn command(&self, by: &By, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::PutProgram(put) => self.put_program(by, put).await.map(Reply::ProgramPut),
            Command::Submit(submit) => Box::pin(self.submit(by, submit)).await.map(Reply::Submitted),
            Command::Cancel(cancel) => self.cancel(by, cancel).await.map(Reply::Cancelled),
            Command::SendMessage(send) => self.send(by, send).await.map(Reply::Sent),
            Command::AnswerApproval(answer) => self.answer_approval(by, answer).await.map(Reply::Answered),
            Command::Migrate(migrate) => self.migrate(migrate).await.map(Reply::Migrated),
            Command::Cordon(cordon) => self.cordon(cordon).await.map(Reply::Cordoned),
            Command::Drain(drain) => self.drain(drain).await.map(Reply::Draining),
            Command::Rebalance(_) => self.rebalance().await.map(Reply::Rebalanced),
            Command::RaiseFormat(raise) => self.raise_format(by, raise).await.map(Reply::FormatRaised),
            Command::Forget(forget) => self.forget(by, forget).await.map(Reply::Forgotten),
            Command::Rebuild(_) => self.rebuild().await.map(Reply::Rebuilt),
        }
    }

    async fn query(&self, by: &By, query: Query) -> Result<Reply, Refusal> {
        match query {
            Query::GetProgram(get) => self.get_program(by, get).await.map(Reply::Program),
            Query::ListPrograms(list) => self.list_programs(by, list).await.map(Reply::Programs),
            Query::GetWorkload(get) => self.get_workload(by, get).await.map(Reply::Workload),
            Query::GetPlan(get) => self.get_plan(by, get).await.map(Reply::Plan),
            Query::ListWorkloads(list) => self.list_workloads(by, list).await.map(Reply::Workloads),
            Query::WatchWorkload(watch) => self.watch_workload(by, watch).await.map(Reply::WorkloadFrames),
            Query::GetAgent(get) => self.get_agent(by, get).await.map(Reply::Agent),
            Query::ListAgents(list) => self.list_agents(by, list).await.map(Reply::Agents),
            Query::WatchAgent(watch) => self.watch_agent(by, watch).await.map(Reply::AgentFrames),
            Query::Snapshot(snapshot) => self.snapshot(by, snapshot).await.map(Reply::Snapshot),
            Query::ListApprovals(list) => self.list_approvals(by, list).await.map(Reply::Approvals),
            Query::SearchHistory(search) => self.search_history(by, search).await.map(Reply::History),
            Query::ListNodes(_) => self.list_nodes().await.map(Reply::Nodes),
            Query::WatchNodes(_) => self.watch_nodes().map(Reply::NodeLists),
            Query::ListFormats(_) => self.list_formats().await.map(Reply::Formats),
            Query::Recall(recall) => self.recall(by, recall).await.map(Reply::Recollected),
            Query::ListPages(list) => self.list_pages(by, list).await.map(Reply::Pages),
            Query::MemoryStats(stats) => self.memory_stats(by, stats).await.map(Reply::MemoryStats),
            Query::ExportMemory(export) => self.export_memory(by, export).await.map(Reply::Exported),
        }
    }

    fn stamp(&self, by: &By) -> Stamp {
        Stamp {
            at: self.clock.now(),
            tenant: by.identity.tenant.clone(),
            principal: by.identity.principal.clone(),
            trace: by.trace,
        }
    }

    /// What is known to be refused, as it turned out to be new; what nobody waits for any more.
    fn still_wanted(&self, by: &By) -> Result<(), Refusal> {
        if let Some(Entrance::UnlessKnown(refusal, _)) = &by.entrance {
            return Err(refusal.as_ref().clone());
        }
        if by.gone.is_cancelled() {
            return Err(Refusal::new(Reason::DeadlineExceeded, "nobody waits for the answer any more"));
        }
        Ok(())
    }

    /// Refuses new work once the door closes.
    fn still_open(&self) -> Result<(), Refusal> {
        if self.closing.is_cancelled() {
            return Err(Refusal::new(Reason::Draining, "the node is stopping").hint("try another node, or later"));
        }
        Ok(())
    }

    /// The right to be one of the streams that are open here, watches and exports; refused once the door closes.
    fn may_stream(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.still_open()?;
        let permit = self.streams.clone().try_acquire_owned();
        permit.map_err(|_| overloaded(format!("{STREAMS_MAX} watches and exports are open already")))
    }

    /// Says to the owners of agents that there is something to do. Only hints: what there is to do is in the store.
    fn tell(&self, agents: impl IntoIterator<Item = (AgentId, Option<NodeId>)>) {
        let mut elsewhere: BTreeMap<NodeId, Vec<AgentId>> = BTreeMap::new();
        let mut unplaced = Vec::new();
        for (agent, owner) in agents {
            match (owner, &self.neighbours) {
                (Some(owner), Some(_)) if owner != *self.host.id() => elsewhere.entry(owner).or_default().push(agent),
                (None, Some(_)) => unplaced.push(agent),
                _ => self.host.wake(agent),
            }
        }
        let Some(neighbours) = &self.neighbours else { return };
        for (node, agents) in &elsewhere {
            neighbours.wake(node, agents);
        }
        if !unplaced.is_empty() {
            neighbours.unplaced(&unplaced);
        }
    }

    /// Waits until read models have seen what the caller has seen.
    async fn caught_up(&self, min_seq: GlobalSeq) -> Result<(), Refusal> {
        if min_seq == GlobalSeq(0) {
            return Ok(());
        }
        self.views.wait_applied(min_seq, VIEW_WAIT_MAX).await.map_err(view_refusal)
    }
}

/// What a store's error means to a caller.
pub(crate) fn store_refusal(error: StoreError) -> Refusal {
    let message = error.to_string();
    match error {
        StoreError::Unavailable { .. } | StoreError::Ambiguous { .. } => {
            Refusal::new(Reason::StoreUnavailable, message).hint("ask again with the same request id")
        }
        StoreError::DiskFull => Refusal::new(Reason::DiskFull, message).hint("free some space, then ask again"),
        StoreError::Corrupt { .. } => {
            let hint = "stop the node and put back a copy of its data folder, or go on with another folder";
            Refusal::new(Reason::DataCorrupt, message).hint(hint)
        }
        StoreError::TooLarge { .. } => Refusal::new(Reason::InvalidArgument, message),
    }
}

/// What a read model's error means to a caller.
fn view_refusal(error: ViewError) -> Refusal {
    let message = error.to_string();
    match error {
        ViewError::BadToken => Refusal::new(Reason::CursorInvalid, message).hint("ask for the first page again"),
        ViewError::Behind { .. } => Refusal::new(Reason::Overloaded, message).after(COME_BACK_AFTER),
        ViewError::Store(error) => store_refusal(error),
    }
}

/// What a missing program means to a caller.
fn program_refusal(error: ProgramError) -> Refusal {
    let message = error.to_string();
    match error {
        ProgramError::Unknown { module } => Refusal::not_found("program", module).hint("put the program first"),
        ProgramError::Missing { .. } => Refusal::new(Reason::DataCorrupt, message).hint("put the program again"),
        ProgramError::Refused { .. } => Refusal::new(Reason::ProgramInvalid, message),
        ProgramError::NoTool { .. } => Refusal::new(Reason::ProgramInvalid, message)
            .hint("run it on a node that has the tool, or change the tool's `source`"),
        ProgramError::Contended => overloaded(message),
        ProgramError::Store(error) => store_refusal(error),
    }
}

/// There is no room now.
fn overloaded(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Overloaded, message).after(COME_BACK_AFTER).hint("ask again a little later")
}

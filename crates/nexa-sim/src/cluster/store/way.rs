//! A process's way to the store: it takes time, fails, and leaves answers in doubt.
//!
//! What is asked for goes there, is done or not, and its answer comes back, each with a delay that is drawn. Once it is on its
//! way there it does not depend on whoever asked: a process that dies meanwhile may have written, or not. An answer in doubt is
//! one of three: it was not stored, it was, or it will be a little later.

use futures::FutureExt;
use futures::future::BoxFuture;
use nexa_ports::leadership::Record;
use tokio::sync::{oneshot, watch};

use super::*;
use crate::cluster::failpoint::Step;

/// One process's way to the store.
pub(in crate::cluster) struct ProcessStore {
    pub(in crate::cluster) server: Arc<Server>,
    pub(in crate::cluster) process: Arc<Process>,
}

fn away() -> StoreError {
    StoreError::Unavailable { detail: "the simulation has sent it away".into() }
}

fn doubtful() -> StoreError {
    StoreError::Ambiguous { detail: "the simulation has lost the answer".into() }
}

impl ProcessStore {
    pub(in crate::cluster) fn new(server: &Arc<Server>, process: &Arc<Process>) -> Arc<Self> {
        Arc::new(Self { server: server.clone(), process: process.clone() })
    }

    /// A call that changes nothing.
    fn look<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&'a MemoryStore) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        async move {
            self.process.goes_on().await;
            let server = &self.server;
            let (fate, there, back) = (server.fate(false), server.delay(), server.delay());
            server.pause(there).await;
            let answer = if fate == Fate::Refused { Err(away()) } else { work(&server.memory).await };
            server.pause(back).await;
            self.process.goes_on().await;
            answer
        }
        .boxed()
    }

    /// A call that changes something; on its way there it is on its own.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Server>) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        self.write_and((Step::Commit, false), work)
    }

    /// The same, for what is such a step; `starts` says whether an effect is started by it.
    fn write_and<T: Send + 'static>(
        &self,
        (step, starts): (Step, bool),
        work: impl FnOnce(Arc<Server>) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        async move {
            self.process.goes_on().await;
            let dies = self.process.steps_into(step).await.then(|| self.process.clone());
            let (answered, answer) = oneshot::channel();
            let server = self.server.clone();
            let (fate, there, back) = (server.fate(true), server.delay(), server.delay());
            let late = Millis(server.dice.roll() % LATE_MAX.0);
            // Who dies once the store has it hears nothing of it anyhow.
            let fate = if dies.is_some() { Fate::Fine } else { fate };
            tokio::spawn(async move {
                server.pause(there).await;
                let answer = match fate {
                    Fate::Refused => Err(away()),
                    Fate::Unsaid | Fate::Late => Err(doubtful()),
                    Fate::Fine | Fate::Lost => {
                        let answer = work(server.clone()).await;
                        server.observe().await;
                        dies.iter().for_each(|process| process.dies_here());
                        server.pause(back).await;
                        let _ = answered.send(if fate == Fate::Lost { Err(doubtful()) } else { answer });
                        return;
                    }
                };
                server.pause(back).await;
                // Whoever asked may be dead.
                let _ = answered.send(answer);
                if fate == Fate::Late {
                    server.pause(late).await;
                    let _ = work(server.clone()).await;
                    server.observe().await;
                }
            });
            if starts && let Some(what) = self.process.starts_effect() {
                self.server.trace.note("at start", format_args!("{what:?}"));
            }
            let answer = answer.await.unwrap_or_else(|_| Err(doubtful()));
            self.process.goes_on().await;
            answer
        }
        .boxed()
    }

    /// The same for what only a leader does.
    fn lead_by<T: Send + 'static>(
        &self,
        epoch: Epoch,
        work: impl FnOnce(Arc<Server>) -> BoxFuture<'static, Result<T, LeadError>> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, LeadError>> {
        let answer = self.write_and((Step::Lead, false), move |server| {
            async move {
                let answer = work(server.clone()).await;
                if answer.is_ok() {
                    server.led(epoch);
                }
                Ok(answer)
            }
            .boxed()
        });
        async move { answer.await? }.boxed()
    }
}

impl Store for ProcessStore {
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Appended, AppendError>>> {
        let (count, by) = (batch.len(), self.process.number);
        let starts = |fact: &Fact| matches!(fact, Fact::Agent(AgentEvent::EffectStarted { .. }));
        let starts = batch.iter().any(|append| append.facts.iter().any(starts));
        let answers = self
            .write_and((Step::Commit, starts), move |server| async move { Ok(server.append(by, batch).await) }.boxed());
        async move {
            match answers.await {
                Ok(answers) => answers,
                Err(error) => (0..count).map(|_| Err(error.clone().into())).collect(),
            }
        }
        .boxed()
    }

    fn post(&self, post: Post, stamp: Stamp) -> BoxFuture<'_, Result<Posted, StoreError>> {
        self.write(move |server| async move { server.memory.post(server.renamed(post), stamp).await }.boxed())
    }

    fn cancel(
        &self,
        workload: WorkloadId,
        reason: String,
        stamp: Stamp,
    ) -> BoxFuture<'_, Result<Cancelled, StoreError>> {
        self.write(move |server| async move { server.memory.cancel(workload, reason, stamp).await }.boxed())
    }

    fn place(&self, wishes: Vec<Place>) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, StoreError>> {
        self.write(move |server| async move { server.memory.place(wishes).await }.boxed())
    }

    fn row(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<AgentRow>, StoreError>> {
        self.look(move |store| store.row(agent))
    }

    fn rows(
        &self,
        which: Rows,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<AgentRow>, StoreError>> {
        self.look(move |store| store.rows(which, after, limit))
    }

    fn inbox(&self, agent: AgentId, limit: usize) -> BoxFuture<'_, Result<Vec<InboxEntry>, StoreError>> {
        self.look(move |store| store.inbox(agent, limit))
    }

    fn entry(&self, agent: AgentId, id: InputId) -> BoxFuture<'_, Result<Option<InboxEntry>, StoreError>> {
        self.look(move |store| store.entry(agent, id))
    }

    fn read(&self, stream: StreamId, after: Version, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        self.look(move |store| store.read(stream, after, limit))
    }

    fn scan(
        &self,
        workload: Option<WorkloadId>,
        after: GlobalSeq,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, StoreError>> {
        self.look(move |store| store.scan(workload, after, limit))
    }

    fn head(&self) -> watch::Receiver<GlobalSeq> {
        self.server.memory.head()
    }

    fn put_snapshot(&self, agent: AgentId, version: Version, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(move |server| async move { server.memory.put_snapshot(agent, version, bytes).await }.boxed())
    }

    fn snapshot(&self, agent: AgentId) -> BoxFuture<'_, Result<Option<Snapshot>, StoreError>> {
        self.look(move |store| store.snapshot(agent))
    }

    fn put_blob(&self, tenant: TenantId, bytes: Vec<u8>) -> BoxFuture<'_, Result<BlobHash, StoreError>> {
        self.write(move |server| async move { server.memory.put_blob(tenant, bytes).await }.boxed())
    }

    fn blob(&self, tenant: TenantId, hash: BlobHash) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.look(move |store| store.blob(tenant, hash))
    }
}

impl Leadership for ProcessStore {
    fn lead(&self, epoch: Epoch) -> BoxFuture<'_, Result<(), LeadError>> {
        self.lead_by(epoch, move |server| async move { server.memory.lead(epoch).await }.boxed())
    }

    fn place_as(
        &self,
        leader: Epoch,
        wishes: Vec<Place>,
    ) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, LeadError>> {
        self.lead_by(leader, move |server| async move { server.place_as(leader, wishes).await }.boxed())
    }

    fn put_record(
        &self,
        leader: Epoch,
        name: String,
        expected: Version,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Version, LeadError>> {
        self.lead_by(leader, move |server| {
            async move { server.memory.put_record(leader, name, expected, value).await }.boxed()
        })
    }

    fn records(&self, prefix: String) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.look(move |store| store.records(prefix))
    }
}

//! Workloads: get, watch, cancel.

use nexa_ports::store::{Cancelled, Recorded, Rows};
use nexa_proto::refusal::Refusal;
use nexa_types::{AgentState, Reason, StreamId, Version, WorkloadId, WorkloadState};
use nexa_view::WorkloadView;

use super::{By, Handlers, store_refusal, view_refusal};
use crate::mediator::{Cancel, Frames, GetWorkload, WatchFrom, WatchWorkload};
use crate::standing::Standings;
use crate::watch::{self, Plan, Subject};

/// Facts or rows read at once.
const BATCH: usize = 256;

impl Handlers {
    /// Name, state and outcome come from the workload's stream and its root's row; counts and spend, which run through
    /// all of its agents, from the read model until the end says them for good.
    pub(super) async fn get_workload(&self, by: &By, get: GetWorkload) -> Result<WorkloadView, Refusal> {
        let first = self.own_workload(by, get.workload).await?;
        let mut standings = Standings::default();
        let mut after = first.envelope.header.version;
        standings.apply(&first);
        loop {
            let stream = StreamId::Workload(get.workload);
            let page = self.store.read(stream, after, BATCH).await.map_err(store_refusal)?;
            let full = page.len() == BATCH;
            for recorded in page {
                after = recorded.envelope.header.version;
                standings.apply(&recorded);
            }
            if !full {
                break;
            }
        }
        let Some(mut workload) = standings.workload else {
            return Err(Refusal::new(
                Reason::DataCorrupt,
                format!("`{}` does not begin with its request", get.workload),
            ));
        };
        let seen = self.views.workload(by.tenant().clone(), get.workload).await.map_err(view_refusal)?;
        if let Some(seen) = seen {
            workload.agents = seen.agents;
            workload.agents_ended = seen.agents_ended;
            if !workload.state.is_terminal() {
                workload.spend = seen.spend;
            }
        }
        if !workload.state.is_terminal() {
            workload.state = self.live_state(&workload).await?;
        }
        Ok(workload)
    }

    /// A workload that has not ended runs as soon as its root has begun.
    async fn live_state(&self, workload: &WorkloadView) -> Result<WorkloadState, Refusal> {
        let row = self.store.row(workload.root).await.map_err(store_refusal)?;
        Ok(match row.map(|row| row.state) {
            None | Some(AgentState::Pending | AgentState::Ready | AgentState::Placed) => WorkloadState::Submitted,
            Some(_) => WorkloadState::Running,
        })
    }

    /// The first fact of a workload of the caller's tenant.
    pub(super) async fn own_workload(&self, by: &By, workload: WorkloadId) -> Result<Recorded, Refusal> {
        let first = self.store.read(StreamId::Workload(workload), Version(0), 1).await.map_err(store_refusal)?;
        first
            .into_iter()
            .next()
            .filter(|first| first.envelope.header.tenant == *by.tenant())
            .ok_or_else(|| Refusal::not_found("workload", workload))
    }

    pub(super) async fn watch_workload(&self, by: &By, watch: WatchWorkload) -> Result<Frames, Refusal> {
        let first = self.own_workload(by, watch.workload).await?;
        self.start_watch(Subject::Workload(watch.workload), watch.from, watch.chunks, first).await
    }

    pub(super) async fn start_watch(
        &self,
        subject: Subject,
        from: WatchFrom,
        chunks: bool,
        first: Recorded,
    ) -> Result<Frames, Refusal> {
        let permit = self.may_stream()?;
        let live = chunks.then(|| self.host.live().subscribe(subject.workload()));
        let (store, closing) = (self.store.clone(), self.closing.clone());
        watch::start(Plan { store, subject, from, live, first, closing, permit }).await
    }

    async fn wake_all(&self, workload: WorkloadId) -> Result<(), Refusal> {
        let mut after = None;
        loop {
            let page = self.store.rows(Rows::Workload(workload), after, BATCH).await.map_err(store_refusal)?;
            let last = page.last().map(|row| row.agent).filter(|_| page.len() == BATCH);
            self.tell(page.into_iter().filter(|row| !row.state.is_terminal()).map(|row| (row.agent, row.node)));
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Idempotent by itself: a workload is cancelled once, and who asks again is told the same.
    pub(super) async fn cancel(&self, by: &By, cancel: Cancel) -> Result<(), Refusal> {
        self.own_workload(by, cancel.workload).await?;
        let who = &by.identity.principal;
        let reason = match cancel.reason.as_str() {
            "" => format!("cancelled by {who}"),
            reason => format!("cancelled by {who}: {reason}"),
        };
        let stamp = self.stamp(by);
        match self.store.cancel(cancel.workload, reason, stamp).await.map_err(store_refusal)? {
            Cancelled::Accepted { agents } => {
                self.tell(agents);
                Ok(())
            }
            // The first one was perhaps stored and its answer lost, before anybody was woken.
            Cancelled::Already => self.wake_all(cancel.workload).await,
            Cancelled::Ended => Err(Refusal::new(Reason::AlreadyEnded, "the workload has ended by itself")
                .about("workload", cancel.workload)),
            Cancelled::NoSuchWorkload => Err(Refusal::not_found("workload", cancel.workload)),
        }
    }
}

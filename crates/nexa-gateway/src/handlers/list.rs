//! Lists and searches: the read models, page by page.

use nexa_ports::view::{AgentFilter, ApprovalFilter, HistoryHit, Listed};
use nexa_proto::refusal::Refusal;
use nexa_view::{AgentView, ApprovalView, ProgramView, WorkloadView};

use super::{By, Handlers, view_refusal};
use crate::mediator::{ListAgents, ListApprovals, ListPrograms, ListWorkloads, SearchHistory};

impl Handlers {
    pub(super) async fn list_programs(&self, by: &By, list: ListPrograms) -> Result<Listed<ProgramView>, Refusal> {
        self.caught_up(list.min_seq).await?;
        self.views.list_programs(by.tenant().clone(), list.page).await.map_err(view_refusal)
    }

    pub(super) async fn list_workloads(&self, by: &By, list: ListWorkloads) -> Result<Listed<WorkloadView>, Refusal> {
        self.caught_up(list.min_seq).await?;
        self.views.list_workloads(by.tenant().clone(), list.state, list.page).await.map_err(view_refusal)
    }

    pub(super) async fn list_agents(&self, by: &By, list: ListAgents) -> Result<Listed<AgentView>, Refusal> {
        self.caught_up(list.min_seq).await?;
        let filter = AgentFilter { workload: list.workload, states: list.states };
        self.views.list_agents(by.tenant().clone(), filter, list.page).await.map_err(view_refusal)
    }

    pub(super) async fn list_approvals(&self, by: &By, list: ListApprovals) -> Result<Listed<ApprovalView>, Refusal> {
        self.caught_up(list.min_seq).await?;
        let filter = ApprovalFilter { workload: list.workload, pending_only: true };
        self.views.list_approvals(by.tenant().clone(), filter, list.page).await.map_err(view_refusal)
    }

    pub(super) async fn search_history(&self, by: &By, search: SearchHistory) -> Result<Listed<HistoryHit>, Refusal> {
        self.caught_up(search.min_seq).await?;
        let SearchHistory { page, words, workload, .. } = search;
        self.views.search_history(by.tenant().clone(), words, workload, page).await.map_err(view_refusal)
    }
}

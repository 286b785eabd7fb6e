//! Lists and searches: the read models, page by page.

use std::collections::BTreeMap;

use nexa_ports::store::Rows;
use nexa_ports::view::{AgentFilter, ApprovalFilter, HistoryHit, Listed};
use nexa_proto::refusal::Refusal;
use nexa_view::{AgentView, ApprovalView, ProgramView, WorkloadView};

use super::{By, Handlers, store_refusal, view_refusal};
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
        let mut listed = self.views.list_agents(by.tenant().clone(), filter, list.page).await.map_err(view_refusal)?;
        if self.neighbours.is_some() {
            self.say_where(&mut listed.items).await?;
        } else {
            // A node alone runs all of them, whatever they ask for.
            listed.items.iter_mut().for_each(|agent| agent.asks = None);
        }
        Ok(listed)
    }

    /// Which node owns each that lives, as the rows say: an agent that waits records nothing when it moves, so no read model
    /// hears of it. What each asks for they say, too.
    async fn say_where(&self, agents: &mut [AgentView]) -> Result<(), Refusal> {
        let live: Vec<_> = agents.iter().filter(|agent| !agent.state.is_terminal()).map(|agent| agent.agent).collect();
        if live.is_empty() {
            return Ok(());
        }
        let count = live.len();
        let rows = self.store.rows(Rows::Agents(live), None, count).await.map_err(store_refusal)?;
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.agent, row)).collect();
        for agent in agents {
            if let Some(row) = rows.get(&agent.agent) {
                (agent.node, agent.epoch, agent.asks) = (row.node.clone(), row.epoch, row.asks.clone());
            }
        }
        Ok(())
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

//! How one workload and its agents stand: the read model's own fold, on a shelf in memory.
//!
//! Used where the truth up to the last fact is wanted and not a read model that may lag: by `Get`, and for the snapshot
//! and the states of a watch.

use std::collections::BTreeMap;
use std::convert::Infallible;

use nexa_ports::store::Recorded;
use nexa_types::AgentId;
use nexa_view::{AgentView, HistoryLine, Key, MemoryEntry, MemoryPlace, Seen, Shelf, View, WorkloadView, fold};

/// A workload and its agents, as far as they were folded.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    /// The workload, once its first fact was seen.
    pub(crate) workload: Option<WorkloadView>,
    /// Its agents.
    pub(crate) agents: BTreeMap<AgentId, AgentView>,
}

impl Standings {
    /// Takes in the next fact.
    pub(crate) fn apply(&mut self, recorded: &Recorded) {
        let Recorded { position, workload, envelope } = recorded;
        let seen = Seen { position: *position, workload: *workload, envelope };
        let Ok(()) = fold(self, &seen);
    }

    /// The agents in the order of their birth, parents before children.
    pub(crate) fn by_birth(&self) -> Vec<AgentView> {
        let mut agents: Vec<_> = self.agents.values().cloned().collect();
        agents.sort_by_key(|agent| agent.born_seq);
        agents
    }
}

impl Shelf for Standings {
    type Error = Infallible;

    fn load(&mut self, key: &Key) -> Result<Option<View>, Infallible> {
        Ok(match key {
            Key::Workload(id) => self.workload.clone().filter(|view| view.workload == *id).map(View::Workload),
            Key::Agent(id) => self.agents.get(id).cloned().map(View::Agent),
            Key::Approval(_) | Key::Program(..) => None,
        })
    }

    fn save(&mut self, view: View) -> Result<(), Infallible> {
        match view {
            View::Workload(view) => self.workload = Some(view),
            View::Agent(view) => drop(self.agents.insert(view.agent, view)),
            View::Approval(_) | View::Program(_) => {}
        }
        Ok(())
    }

    fn save_line(&mut self, _: HistoryLine) -> Result<(), Infallible> {
        Ok(())
    }

    fn keep_memory(&mut self, _: MemoryEntry) -> Result<(), Self::Error> {
        Ok(())
    }

    fn forget_memory(&mut self, _: &MemoryPlace) -> Result<(), Self::Error> {
        Ok(())
    }
}

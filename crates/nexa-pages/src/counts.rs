//! Which rows count, as `nexa_ports::pages` says (PG-2, PG-5): of rows under one id, that of the highest epoch; and no page
//! that another of its agent supersedes, or that was deleted.

use std::collections::{HashMap, HashSet};

use nexa_ports::pages::{PageKind, Reach, Scope};
use nexa_types::{AgentId, PageId};

use crate::claim::Claim;
use crate::rows::Key;

/// Of rows in the order in which they were written, by their places: those that count, and those that must stay all the same
/// because they supersede something.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Pages that can be read.
    pub(crate) pages: Vec<usize>,
    /// Others whose word counts still.
    pub(crate) hollow: Vec<usize>,
}

/// Judges rows by a claim; all of an agent must be there.
pub(crate) fn judge(claim: &Claim, keys: &[&Key]) -> Counted {
    let mut newest: HashMap<PageId, usize> = HashMap::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        let known = newest.entry(key.id).or_insert(at);
        let before = keys[*known];
        if (key.epoch, key.has_vector) > (before.epoch, before.has_vector) {
            *known = at;
        }
    }
    let superseding = newest.values().filter_map(|at| Some((keys[*at].supersedes?, keys[*at].agent)));
    let gone: HashSet<(PageId, AgentId)> = superseding.collect();
    let mut counted = Counted::default();
    for (at, key) in keys.iter().enumerate() {
        if newest.get(&key.id) != Some(&at) {
            continue;
        }
        let is_there = !gone.contains(&(key.id, key.agent)) && !claim.has_deleted(key);
        if key.kind != PageKind::Tombstone && is_there {
            counted.pages.push(at);
        } else if key.supersedes.is_some() {
            counted.hollow.push(at);
        }
    }
    counted
}

/// Whether a page may be found (PG-4); [`Scope::admits`] of a page that is not read yet.
pub(crate) fn admits(scope: &Scope, key: &Key) -> bool {
    match scope {
        Scope::Agent(tenant, agent) => key.tenant == *tenant && key.agent == *agent,
        Scope::Workload(tenant, workload) => {
            key.tenant == *tenant && key.workload == *workload && key.reach >= Reach::Workload
        }
        Scope::Tenant(tenant) => key.tenant == *tenant && key.reach == Reach::Tenant,
    }
}

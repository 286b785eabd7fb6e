//! Whether a list can be run: each id once, each dependency there, none that wait for each other.

use std::collections::BTreeSet;

use nexa_event::fact::ListItem;
use nexa_types::limits::LIST_AGENTS_MAX;
use nexa_vm::codec;

/// Why a list cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It has no agents.
    #[error("the list has no agents")]
    Empty,
    /// It has too many.
    #[error("the list has {count} agents, more than the {LIST_AGENTS_MAX} that are allowed; submit several lists")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Two have one name.
    #[error("two agents of the list are called `{id}`; give each an id of its own")]
    DuplicateId {
        /// The name.
        id: String,
    },
    /// One comes after something that is not there.
    #[error("agent `{id}` comes after number {missing}, but the list has only {count} agents")]
    MissingDependency {
        /// Who.
        id: String,
        /// The index that it names.
        missing: u32,
        /// The length of the list.
        count: usize,
    },
    /// Some wait for each other.
    #[error("agents wait for each other: {path}")]
    Cycle {
        /// The ids along the cycle, the first one again at the end: `a → b → a`, each waiting for the next.
        path: String,
    },
    /// An input is no encoded value.
    #[error("the input of agent `{id}` cannot be read")]
    InputUnreadable {
        /// Whose.
        id: String,
        /// What is wrong with it.
        #[source]
        source: codec::DecodeError,
    },
}

/// Checks a list before it is accepted.
///
/// # Errors
/// [`ListError`] for a list that [`super::Coordinator::new`] would refuse.
pub fn validate(items: &[ListItem]) -> Result<(), ListError> {
    if items.is_empty() {
        return Err(ListError::Empty);
    }
    if items.len() > LIST_AGENTS_MAX {
        return Err(ListError::TooMany { count: items.len() });
    }
    let mut ids = BTreeSet::new();
    for item in items {
        if !ids.insert(item.id.as_str()) {
            return Err(ListError::DuplicateId { id: item.id.clone() });
        }
        if let Some(missing) = item.after.iter().find(|after| **after as usize >= items.len()) {
            let (id, count) = (item.id.clone(), items.len());
            return Err(ListError::MissingDependency { id, missing: *missing, count });
        }
        codec::decode(&item.input).map_err(|source| ListError::InputUnreadable { id: item.id.clone(), source })?;
    }
    match cycle(items) {
        Some(path) => Err(ListError::Cycle { path }),
        None => Ok(()),
    }
}

/// A cycle among items whose dependencies all exist. Without recursion: a chain may be as long as the list.
fn cycle(items: &[ListItem]) -> Option<String> {
    let mut left: Vec<usize> = items.iter().map(|item| distinct(&item.after).len()).collect();
    let dependents = dependents(items);
    let mut free: Vec<usize> = (0..items.len()).filter(|index| left[*index] == 0).collect();
    while let Some(index) = free.pop() {
        for dependent in &dependents[index] {
            left[*dependent as usize] -= 1;
            if left[*dependent as usize] == 0 {
                free.push(*dependent as usize);
            }
        }
    }
    // Whatever is left waits for something that is left, so going on from one to the next must come round.
    let mut at = left.iter().position(|left| *left > 0)?;
    let mut walk = Vec::new();
    let mut seen = BTreeSet::new();
    while seen.insert(at) {
        walk.push(at);
        at = items[at].after.iter().map(|after| *after as usize).find(|after| left[*after] > 0)?;
    }
    let from = walk.iter().position(|seen| *seen == at)?;
    let ids = walk[from..].iter().chain([&at]).map(|index| items[*index].id.as_str());
    Some(ids.collect::<Vec<_>>().join(" → "))
}

pub(super) fn distinct(after: &[u32]) -> BTreeSet<u32> {
    after.iter().copied().collect()
}

pub(super) fn dependents(items: &[ListItem]) -> Vec<Vec<u32>> {
    let mut dependents = vec![Vec::new(); items.len()];
    for (index, item) in (0..).zip(items) {
        for after in distinct(&item.after) {
            dependents[after as usize].push(index);
        }
    }
    dependents
}

//! Whether a list can be run: each id once, each dependency there, none that wait for each other.

use std::collections::BTreeSet;

use nexa_event::fact::ListItem;
use nexa_types::limits::{BRANCHES_MAX, LIST_AGENTS_MAX};
use nexa_vm::codec;

use super::START_BYTES_MAX;
use super::order::{Units, gang};

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
    /// Members of a gang wait for what can only be there once others of them have started.
    #[error(
        "the members of gang `{gang}` can never start together: {path} (`→` waits for, `=` starts together with); \
         take one of them out of its gang"
    )]
    GangWaitsForItself {
        /// The gang.
        gang: String,
        /// The ids along the way: `a → b = c → a`.
        path: String,
    },
    /// A gang has too many members to start with one record.
    #[error(
        "gang `{gang}` has {members} members, more than the {BRANCHES_MAX} that can start together; make several of it"
    )]
    GangTooMany {
        /// The gang.
        gang: String,
        /// How many.
        members: usize,
    },
    /// The inputs of a gang are too long to start with one record.
    #[error(
        "the inputs of gang `{gang}` have {bytes} bytes together, more than the {START_BYTES_MAX} that can start \
         together; make several of it, or hand less to each"
    )]
    GangTooLong {
        /// The gang.
        gang: String,
        /// How many.
        bytes: usize,
    },
    /// There is not one turn for each agent.
    #[error("the list has {count} agents and {turns} turns")]
    Turns {
        /// The length of the list.
        count: usize,
        /// How many turns there are.
        turns: usize,
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
        None => gangs(items),
    }
}

/// Whether each gang of a list without a cycle can start.
fn gangs(items: &[ListItem]) -> Result<(), ListError> {
    let units = Units::new(items);
    if units.members.len() == items.len() {
        return Ok(());
    }
    for members in &units.members {
        let Some(gang) = gang(&items[members[0] as usize]) else { continue };
        if members.len() > BRANCHES_MAX {
            return Err(ListError::GangTooMany { gang: gang.to_owned(), members: members.len() });
        }
        let bytes = members.iter().map(|index| items[*index as usize].input.len()).sum();
        if bytes > START_BYTES_MAX {
            return Err(ListError::GangTooLong { gang: gang.to_owned(), bytes });
        }
    }
    match ring(items, &units) {
        Some((gang, path)) => Err(ListError::GangWaitsForItself { gang, path }),
        None => Ok(()),
    }
}

/// A ring of gangs and items of a list without a cycle, if there is one: its first gang, and the way.
fn ring(items: &[ListItem], units: &Units) -> Option<(String, String)> {
    let (_, left) = units.sorted(items);
    // Whatever is left waits for something that is left, so going on from one to the next must come round.
    let mut at = left.iter().position(|left| *left > 0)?;
    let (mut walk, mut seen) = (Vec::new(), BTreeSet::new());
    while seen.insert(at) {
        let waits = |member: &u32| {
            let after = items[*member as usize].after.iter();
            after.copied().find(|after| left[units.of[*after as usize] as usize] > 0).map(|after| (*member, after))
        };
        let edge = units.members[at].iter().find_map(waits)?;
        walk.push((at, edge));
        at = units.of[edge.1 as usize] as usize;
    }
    let from = walk.iter().position(|(unit, _)| *unit == at)?;
    let mut edges: Vec<(u32, u32)> = walk[from..].iter().map(|(_, edge)| *edge).collect();
    // Somewhere it comes into a gang by one member and goes out by another, or it were a cycle of items. Begin there.
    let enters = |place: usize| edges[(place + edges.len() - 1) % edges.len()].1;
    let crossing = (0..edges.len()).find(|place| enters(*place) != edges[*place].0)?;
    edges.rotate_left(crossing);
    let id = |index: u32| items[index as usize].id.as_str();
    let mut path = id(edges[0].0).to_owned();
    for (place, (_, after)) in edges.iter().enumerate() {
        path.push_str(" → ");
        path.push_str(id(*after));
        let next = edges[(place + 1) % edges.len()].0;
        if next != *after {
            path.push_str(" = ");
            path.push_str(id(next));
        }
    }
    Some((gang(&items[edges[0].0 as usize])?.to_owned(), path))
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

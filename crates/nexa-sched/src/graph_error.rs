//! What is wrong with a graph, in words: the way through it, and what may have been meant.

use thiserror::Error;

/// Why agents make no graph.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GraphError {
    /// There is nobody.
    #[error("there is no agent to schedule")]
    Empty,
    /// More than [`TASKS_MAX`](crate::TASKS_MAX).
    #[error("{agents} agents are more than a graph may have ({max}): split it", max = crate::graph::TASKS_MAX)]
    TooMany {
        /// How many there are.
        agents: usize,
    },
    /// More than [`DEPENDENCIES_MAX`](crate::DEPENDENCIES_MAX).
    #[error("{dependencies} dependencies are more than a graph may have ({max}): let groups wait for one agent that waits for all", max = crate::graph::DEPENDENCIES_MAX)]
    TooManyDependencies {
        /// How many there are.
        dependencies: usize,
    },
    /// Two have one id.
    #[error("two agents have the id {id:?}: give each its own")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// Somebody waits for nobody there is.
    #[error("agent {agent:?} waits for {dependency:?}, which is not in the graph{}", meant(nearest))]
    MissingDependency {
        /// Who waits.
        agent: String,
        /// For whom.
        dependency: String,
        /// The id nearest to it, if one is near.
        nearest: Option<String>,
    },
    /// Nobody on it can ever start.
    #[error("agents wait for each other in a ring: {path}")]
    Cycle {
        /// `a → b → a`: each waits for the one before it.
        path: String,
    },
    /// It can never start together.
    #[error("members of gang {gang:?} can never start together, since one waits for another: {path}")]
    GangWaitsForItself {
        /// The gang.
        gang: String,
        /// `a → x → b`: each waits for the one before it; `b1 = b2`: both are in one gang.
        path: String,
    },
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |id| format!(" (did you mean {id:?}?)"))
}

/// Names of a way that are shown from its start, and from its end.
const SHOWN_EACH_END: usize = 6;

/// Names with signs between them; of a long way only both ends.
pub(crate) fn shown(names: &[&str], signs: &[&str]) -> String {
    let mut text = String::new();
    let cut = SHOWN_EACH_END..names.len().saturating_sub(SHOWN_EACH_END);
    for (place, name) in names.iter().enumerate() {
        if cut.contains(&place) {
            if place == cut.start {
                text.push_str(&format!(" → … {} more …", cut.len()));
            }
            continue;
        }
        if place > 0 {
            text.push_str(signs[place - 1]);
        }
        text.push_str(name);
    }
    text
}

/// Longer names are not compared: the comparison is quadratic.
const NAME_CHARS_MAX: usize = 64;

/// Names that are looked at for one that may be meant; later ones are not.
const NAMES_COMPARED_MAX: usize = 20_000;

/// The first of the names nearest to `wanted`, if it is at most a third of its letters away, or one.
pub(crate) fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let wanted: Vec<char> = wanted.chars().take(NAME_CHARS_MAX + 1).collect();
    let allowed = (wanted.len() / 3).max(1);
    let near = names.take(NAMES_COMPARED_MAX).filter_map(|name| {
        let letters: Vec<char> = name.chars().take(NAME_CHARS_MAX + 1).collect();
        let comparable =
            wanted.len().max(letters.len()) <= NAME_CHARS_MAX && wanted.len().abs_diff(letters.len()) <= allowed;
        let distance = if comparable { edits(&wanted, &letters) } else { usize::MAX };
        (distance <= allowed && distance < wanted.len()).then_some((distance, name))
    });
    near.min_by_key(|&(distance, _)| distance).map(|(_, name)| name.to_owned())
}

/// Letters to put in, take out or replace (Wagner & Fischer, "The string-to-string correction problem", JACM 1974); two
/// neighbours that changed places count as two.
fn edits(from: &[char], to: &[char]) -> usize {
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, left) in from.iter().enumerate() {
        let mut corner = std::mem::replace(&mut above[0], row + 1);
        for (column, right) in to.iter().enumerate() {
            let replaced = corner + usize::from(left != right);
            corner = above[column + 1];
            above[column + 1] = replaced.min(corner + 1).min(above[column] + 1);
        }
    }
    above[to.len()]
}

//! What comes after what: P4. An item of a list starts after those that it names have succeeded.

use std::collections::BTreeMap;

use nexa_types::{AgentId, GlobalSeq};

use crate::{Logged, Violation, What};

#[derive(Default)]
struct Item {
    born: Option<GlobalSeq>,
    succeeded: Option<GlobalSeq>,
}

/// Checks every list of a log whose failures end it, or leave out what depends on them.
pub fn check(log: &[Logged]) -> Vec<Violation> {
    let mut lists: BTreeMap<AgentId, &[(String, Vec<u32>)]> = BTreeMap::new();
    let mut named: BTreeMap<AgentId, (AgentId, &str)> = BTreeMap::new();
    let mut items: BTreeMap<(AgentId, &str), Item> = BTreeMap::new();
    for fact in log {
        let Some(agent) = fact.agent() else { continue };
        let position = fact.position;
        match &fact.what {
            What::Spawned { items: of_list, .. } if !of_list.is_empty() => {
                lists.insert(agent, of_list);
            }
            What::Spawned { name, parent: Some(parent), .. } if lists.contains_key(parent) => {
                named.insert(agent, (*parent, name));
                items.entry((*parent, name)).or_default().born.get_or_insert(position);
            }
            What::AgentEnded(true) => {
                if let Some(item) = named.get(&agent) {
                    items.entry(*item).or_default().succeeded = Some(position);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (list, of_list) in &lists {
        for (id, after) in *of_list {
            let Some(born) = items.get(&(*list, id.as_str())).and_then(|item| item.born) else { continue };
            for before in after.iter().filter_map(|index| of_list.get(*index as usize)) {
                let succeeded = items.get(&(*list, before.0.as_str())).and_then(|item| item.succeeded);
                if succeeded.is_none_or(|succeeded| succeeded > born) {
                    let text = format!("`{id}` of {list} was started before `{}` had succeeded", before.0);
                    found.push(Violation::new("P4", text));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use nexa_types::{Epoch, Seq, StreamId, Timestamp, Version, WorkloadId};

    use super::*;

    #[test]
    fn an_item_that_starts_before_what_it_comes_after_has_succeeded_is_found() {
        let workload = WorkloadId::from_bytes([1; 16]);
        let root = AgentId::root(workload);
        let (a, b) = (AgentId::child(root, Seq(1), 0), AgentId::child(root, Seq(1), 1));
        let fact = |agent, at, what| Logged {
            position: GlobalSeq(at),
            stream: StreamId::Agent(agent),
            version: Version(1),
            epoch: Some(Epoch(1)),
            at: Timestamp(at),
            workload: Some(workload),
            what,
        };
        let born = |name: &str, parent, items: &[(&str, &[u32])]| What::Spawned {
            name: name.to_owned(),
            parent,
            items: items.iter().map(|(id, after)| ((*id).to_owned(), after.to_vec())).collect(),
        };
        let list = || fact(root, 1, born("list", None, &[("a", &[]), ("b", &[0])]));
        let item = |agent, at, name: &str| fact(agent, at, born(name, Some(root), &[]));
        let good = [list(), item(a, 2, "a"), fact(a, 3, What::AgentEnded(true)), item(b, 4, "b")];
        assert_eq!(check(&good), []);
        let early = [list(), item(a, 2, "a"), item(b, 3, "b"), fact(a, 4, What::AgentEnded(true))];
        assert_eq!(check(&early).len(), 1);
        let failed = [list(), item(a, 2, "a"), fact(a, 3, What::AgentEnded(false)), item(b, 4, "b")];
        assert_eq!(check(&failed).len(), 1);
    }
}

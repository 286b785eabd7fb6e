//! Who waits for whom.
//!
//! In:  agents that name those they wait for.
//! Out: a [`TaskGraph`]: tasks by ordinal, both directions of every edge in one row after the other (compressed sparse
//!      rows), an order in which nobody comes before those it waits for, and gangs; or a [`GraphError`] that names the
//!      way on which it goes wrong.
//!
//! Time and memory grow with agents and edges, and with nothing else.
//!
//! Not here: how long anything takes (`rank`), and where it runs (`plan`).

use std::collections::HashMap;

use crate::AgentScheduleInfo;
use crate::graph_error::{nearest, shown};

pub use crate::graph_error::GraphError;

/// Agents in one graph.
pub const TASKS_MAX: usize = 1_000_000;

/// Dependencies in one graph, all agents together.
pub const DEPENDENCIES_MAX: usize = 16_000_000;

/// No unit, no node, no gang.
pub(crate) const NONE: u32 = u32::MAX;

/// Rows of ordinals, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Rows {
    /// Rows `0..rows` of `(row, item)` pairs; within a row the items keep the order of the pairs.
    pub(crate) fn new(rows: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut starts = vec![0u32; rows + 1];
        for (row, _) in pairs.clone() {
            starts[row as usize + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut next = starts.clone();
        let mut items = vec![0; starts[rows] as usize];
        for (row, item) in pairs {
            items[next[row as usize] as usize] = item;
            next[row as usize] += 1;
        }
        Self { starts, items }
    }

    pub(crate) fn row(&self, row: u32) -> &[u32] {
        &self.items[self.starts[row as usize] as usize..self.starts[row as usize + 1] as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }
}

/// Agents and who of them waits for whom. Tasks are named by the place of their agent.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskGraph {
    agents: Vec<AgentScheduleInfo>,
    dependencies: Rows,
    dependents: Rows,
    topological: Vec<u32>,
    gang_of: Vec<u32>,
    gangs: Rows,
}

impl TaskGraph {
    /// The graph of these agents. A dependency named twice counts once.
    ///
    /// # Errors
    /// If it is empty or too large, two agents have one id, somebody waits for nobody there is, agents wait for each
    /// other in a ring, or members of a gang could never start together.
    pub fn new(agents: Vec<AgentScheduleInfo>) -> Result<Self, GraphError> {
        if agents.is_empty() {
            return Err(GraphError::Empty);
        }
        if agents.len() > TASKS_MAX {
            return Err(GraphError::TooMany { agents: agents.len() });
        }
        let named: usize = agents.iter().map(|agent| agent.dependencies.len()).sum();
        if named > DEPENDENCIES_MAX {
            return Err(GraphError::TooManyDependencies { dependencies: named });
        }
        let edges = edges(&agents)?;
        let dependencies = Rows::new(agents.len(), edges.iter().copied());
        let dependents = Rows::new(agents.len(), edges.iter().map(|&(after, before)| (before, after)));
        drop(edges);

        let mut gang_names: HashMap<&str, u32> = HashMap::new();
        let gang_of: Vec<u32> = agents
            .iter()
            .map(|agent| {
                let next = gang_names.len() as u32;
                agent.gang.as_deref().map_or(NONE, |gang| *gang_names.entry(gang).or_insert(next))
            })
            .collect();
        let members = (0u32..).zip(&gang_of).filter(|&(_, &gang)| gang != NONE).map(|(task, &gang)| (gang, task));
        let gangs = Rows::new(gang_names.len(), members);
        drop(gang_names);

        let mut graph = Self { agents, dependencies, dependents, topological: Vec::new(), gang_of, gangs };
        graph.topological = graph.order()?;
        Ok(graph)
    }

    /// The agents, by task.
    #[must_use]
    pub fn agents(&self) -> &[AgentScheduleInfo] {
        &self.agents
    }

    /// How many tasks there are; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a graph without a task is refused")]
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Those that must end before this one, each once, in the order in which it names them.
    #[must_use]
    pub fn dependencies(&self, task: u32) -> &[u32] {
        self.dependencies.row(task)
    }

    /// Those that wait for this one, in ascending order.
    #[must_use]
    pub fn dependents(&self, task: u32) -> &[u32] {
        self.dependents.row(task)
    }

    /// All tasks, each after those it waits for; members of a gang stand together.
    #[must_use]
    pub fn topological(&self) -> &[u32] {
        &self.topological
    }

    /// All gangs, each with its members in ascending order.
    pub fn gangs(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.gangs.len() as u32).map(|gang| self.gangs.row(gang))
    }

    /// Those that start together with this task, itself among them; nothing if it is in no gang.
    #[must_use]
    pub fn gang(&self, task: u32) -> Option<&[u32]> {
        match self.gang_of[task as usize] {
            NONE => None,
            gang => Some(self.gangs.row(gang)),
        }
    }

    /// The task of this id, found by looking at each.
    #[must_use]
    pub fn task(&self, id: &str) -> Option<u32> {
        self.agents.iter().position(|agent| agent.id == id).map(|task| task as u32)
    }

    /// The tasks by stage, ascending within each. A stage is the longest way, in edges, from one that waits for nobody.
    #[must_use]
    pub fn stages(&self) -> Vec<Vec<u32>> {
        let mut stage_of = vec![0u32; self.len()];
        let mut last = 0;
        for &task in &self.topological {
            let after = self.dependencies(task).iter().map(|&before| stage_of[before as usize] + 1);
            let stage = after.max().unwrap_or(0);
            stage_of[task as usize] = stage;
            last = last.max(stage);
        }
        let mut sizes = vec![0usize; last as usize + 1];
        for &stage in &stage_of {
            sizes[stage as usize] += 1;
        }
        let mut stages: Vec<Vec<u32>> = sizes.into_iter().map(Vec::with_capacity).collect();
        for (task, stage) in (0u32..).zip(stage_of) {
            stages[stage as usize].push(task);
        }
        stages
    }

    /// An order of units, those of one gang as one (Kahn, "Topological sorting of large networks", CACM 1962): if there
    /// is one, each gang can start at one time after all that its members wait for.
    fn order(&self) -> Result<Vec<u32>, GraphError> {
        let (left, order) = self.peel(true);
        if order.len() == self.len() {
            return Ok(order);
        }
        let (left_alone, order_alone) = self.peel(false);
        Err(if order_alone.len() == self.len() { self.gang_ring(&left) } else { self.ring(&left_alone) })
    }

    /// Takes away whoever waits for nobody left. Gives how many each still waits for, and the order of those taken.
    /// `together`: members of a gang go when none of them waits, and what one waits for all do.
    fn peel(&self, together: bool) -> (Vec<u32>, Vec<u32>) {
        let slot = |task: u32| match self.gang_of[task as usize] {
            gang if together && gang != NONE => self.gangs.row(gang)[0],
            _ => task,
        };
        let mut waits = vec![0u32; self.len()];
        for task in 0..self.len() as u32 {
            waits[slot(task) as usize] += self.dependencies(task).len() as u32;
        }
        let mut order = Vec::with_capacity(self.len());
        let take = |unit: u32, order: &mut Vec<u32>| match self.gang(unit) {
            Some(members) if together => order.extend_from_slice(members),
            _ => order.push(unit),
        };
        for task in 0..self.len() as u32 {
            if slot(task) == task && waits[task as usize] == 0 {
                take(task, &mut order);
            }
        }
        let mut at = 0;
        while let Some(&task) = order.get(at) {
            at += 1;
            for &after in self.dependents(task) {
                let unit = slot(after);
                waits[unit as usize] -= 1;
                if waits[unit as usize] == 0 {
                    take(unit, &mut order);
                }
            }
        }
        if together {
            for task in 0..self.len() as u32 {
                waits[task as usize] = waits[slot(task) as usize];
            }
        }
        (waits, order)
    }

    /// The ring that somebody with `left` is in or behind, each after the one it waits for.
    fn ring(&self, left: &[u32]) -> GraphError {
        let mut at = left.iter().position(|&left| left > 0).expect("somebody was left over") as u32;
        let mut place = vec![NONE; self.len()];
        let mut way = Vec::new();
        while place[at as usize] == NONE {
            place[at as usize] = way.len() as u32;
            way.push(at);
            let before = self.dependencies(at).iter().find(|&&before| left[before as usize] > 0);
            at = *before.expect("whoever is left over waits for somebody left over");
        }
        let mut ring: Vec<&str> = Vec::with_capacity(way.len() + 1);
        let on_it = way[place[at as usize] as usize..].iter().rev();
        ring.push(&self.agents[at as usize].id);
        ring.extend(on_it.map(|&task| self.agents[task as usize].id.as_str()));
        GraphError::Cycle { path: shown(&ring, &vec![" → "; ring.len() - 1]) }
    }

    /// The way on which a gang waits for itself. There is no ring of single tasks, so somewhere on the ring of units it
    /// comes into a gang by one member and leaves it by another.
    fn gang_ring(&self, left: &[u32]) -> GraphError {
        let members = |task: &u32| match self.gang(*task) {
            Some(members) => members.to_vec(),
            None => vec![*task],
        };
        let mut at = left.iter().position(|&left| left > 0).expect("somebody was left over") as u32;
        let mut place = vec![NONE; self.len()];
        let mut way: Vec<(u32, u32)> = Vec::new();
        let unit = loop {
            let unit = members(&at)[0];
            if place[unit as usize] != NONE {
                break unit;
            }
            place[unit as usize] = way.len() as u32;
            let edge = members(&at).into_iter().find_map(|after| {
                let before = self.dependencies(after).iter().find(|&&before| left[before as usize] > 0);
                before.map(|&before| (before, after))
            });
            let edge = edge.expect("a unit left over waits for one left over");
            way.push(edge);
            at = edge.0;
        };
        // Edges in the order of time: the target of each is in the unit of the source of the next.
        let mut edges: Vec<(u32, u32)> = way[place[unit as usize] as usize..].iter().rev().copied().collect();
        let crossing = (0..edges.len()).find(|&place| {
            let into = edges[(place + edges.len() - 1) % edges.len()].1;
            into != edges[place].0
        });
        edges.rotate_left(crossing.expect("a ring without a crossing is one of single tasks"));
        let (mut names, mut signs) = (vec![edges[0].0], Vec::new());
        for (place, &(before, after)) in edges.iter().enumerate() {
            if place > 0 && names.last() != Some(&before) {
                names.push(before);
                signs.push(" = ");
            }
            names.push(after);
            signs.push(" → ");
        }
        let names: Vec<&str> = names.into_iter().map(|task| self.agents[task as usize].id.as_str()).collect();
        let gang = self.agents[edges[0].0 as usize].gang.clone().unwrap_or_default();
        GraphError::GangWaitsForItself { gang, path: shown(&names, &signs) }
    }
}

/// All `(task, dependency)` pairs, each once, by task.
fn edges(agents: &[AgentScheduleInfo]) -> Result<Vec<(u32, u32)>, GraphError> {
    let mut by_id: HashMap<&str, u32> = HashMap::with_capacity(agents.len());
    for (task, agent) in (0u32..).zip(agents) {
        if by_id.insert(&agent.id, task).is_some() {
            return Err(GraphError::DuplicateId { id: agent.id.clone() });
        }
    }
    let mut edges = Vec::with_capacity(agents.iter().map(|agent| agent.dependencies.len()).sum());
    let mut last_named_by = vec![NONE; agents.len()];
    for (task, agent) in (0u32..).zip(agents) {
        for id in &agent.dependencies {
            let Some(&before) = by_id.get(id.as_str()) else {
                return Err(GraphError::MissingDependency {
                    agent: agent.id.clone(),
                    dependency: id.clone(),
                    nearest: nearest(id, agents.iter().map(|agent| agent.id.as_str()).filter(|id| *id != agent.id)),
                });
            };
            if std::mem::replace(&mut last_named_by[before as usize], task) != task {
                edges.push((task, before));
            }
        }
    }
    Ok(edges)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `"a b<a c<a,b d@g"`: names, whom they wait for, and their gang.
    fn graph(text: &str) -> Result<TaskGraph, GraphError> {
        let agents = text.split_whitespace().map(|word| {
            let (word, gang) = word.split_once('@').map_or((word, None), |(word, gang)| (word, Some(gang.to_owned())));
            let (id, after) = word.split_once('<').unwrap_or((word, ""));
            let dependencies = after.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
            AgentScheduleInfo { dependencies, gang, ..AgentScheduleInfo::new(id) }
        });
        TaskGraph::new(agents.collect())
    }

    fn refusal(text: &str) -> String {
        graph(text).expect_err("refused").to_string()
    }

    #[test]
    fn edges_go_both_ways_and_each_counts_once() {
        let graph = graph("c<a,b,a a b<a").expect("a graph");
        assert_eq!(
            (graph.dependencies(0), graph.dependents(1), graph.dependents(0)),
            (&[1, 2][..], &[0, 2][..], &[][..])
        );
        assert_eq!((graph.topological(), graph.stages()), (&[1, 2, 0][..], vec![vec![1], vec![2], vec![0]]));
    }

    #[test]
    fn a_ring_is_named_from_one_to_itself() {
        assert_eq!(refusal("a<b b<a"), "agents wait for each other in a ring: a → b → a");
        assert_eq!(refusal("x a<x,c b<a c<b d<c"), "agents wait for each other in a ring: a → b → c → a");
        assert_eq!(refusal("a<a"), "agents wait for each other in a ring: a → a");
    }

    #[test]
    fn a_long_ring_is_shown_by_its_ends() {
        let text: String = (0..40).map(|at| format!("t{at}<t{} ", (at + 39) % 40)).collect();
        let shown = refusal(&text);
        assert!(shown.contains("… 29 more …") && shown.len() < 200, "{shown}");
    }

    #[test]
    fn what_is_not_there_is_named_with_what_may_be_meant() {
        assert_eq!(
            refusal("search write<serach"),
            r#"agent "write" waits for "serach", which is not in the graph (did you mean "search"?)"#
        );
        assert_eq!(refusal("a b<quite_another"), r#"agent "b" waits for "quite_another", which is not in the graph"#);
        assert_eq!(refusal("a a"), r#"two agents have the id "a": give each its own"#);
        assert_eq!(TaskGraph::new(Vec::new()).expect_err("refused"), GraphError::Empty);
    }

    #[test]
    fn a_gang_that_waits_for_itself_is_named_with_its_way() {
        assert_eq!(
            refusal("a@g b<a@g"),
            r#"members of gang "g" can never start together, since one waits for another: a → b"#
        );
        assert!(refusal("a@g x<a b<x@g").ends_with("a → x → b"));
        assert!(
            refusal("a1@a a2<b2@a b1<a1@b b2@b").ends_with("a1 → b1 = b2 → a2"),
            "{}",
            refusal("a1@a a2<b2@a b1<a1@b b2@b")
        );
        let fine = graph("x a<x@g b@g y<b").expect("a graph");
        assert_eq!((fine.topological(), fine.gang(1), fine.gang(0)), (&[0, 1, 2, 3][..], Some(&[1, 2][..]), None));
    }
}

//! A workflow as everything here sees it: tasks by ordinal, with what they wait for and what they hold.

use std::collections::{BTreeMap, BTreeSet};

use nexa_sched::{AgentScheduleInfo, Cluster, Resources};
use nexa_types::Millis;

/// The most tasks of a workflow.
const TASKS_MAX: usize = 100_000;
/// The most pairs of a task and one that it waits for.
const NEEDS_MAX: usize = 1_000_000;

/// A workflow without cycles. Tasks are named by their place in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    name: String,
    tasks: Vec<Task>,
    children: Vec<Vec<u32>>,
    topological: Vec<u32>,
}

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name, unique in its workflow.
    pub id: String,
    /// What it has in common with tasks that take as long.
    pub kind: String,
    /// How long it took where it was recorded, which is how long it takes on a node of speed 100. At least 1 ms.
    pub duration: Millis,
    /// What it holds on its node for as long as it runs.
    pub requirements: Resources,
    /// Which tasks it waits for.
    pub needs: Vec<Need>,
}

/// That a task waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// For which.
    pub task: u32,
    /// The bytes that it reads of what that one wrote.
    pub bytes: u64,
}

/// Why tasks are no workflow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WorkflowError {
    /// Nothing to do.
    #[error("there are no tasks")]
    Empty,
    /// Too large to be played.
    #[error("there are {tasks} tasks with {needs} dependencies; at most {TASKS_MAX} with {NEEDS_MAX} can be played")]
    TooLarge {
        /// How many tasks there are.
        tasks: usize,
        /// How many pairs.
        needs: usize,
    },
    /// Names must tell tasks apart.
    #[error("two tasks have the id `{0}`")]
    Duplicate(String),
    /// A dependency on what is not there.
    #[error("task `{task}` waits for task number {needs}, and there are {tasks}")]
    Missing {
        /// Who waits.
        task: String,
        /// For what.
        needs: u32,
        /// How many there are.
        tasks: usize,
    },
    /// A dependency on itself, directly or not.
    #[error("task `{0}` waits for itself, directly or through others")]
    Cycle(String),
}

impl Workflow {
    /// A workflow of these tasks. What a task needs of another twice is added up, and what takes no time takes 1 ms: a
    /// task that holds something for no time at all could be planned where there is no room for it.
    ///
    /// # Errors
    /// Where the tasks are none, too many, not told apart, or wait for themselves or for what is not there.
    pub fn new(name: impl Into<String>, mut tasks: Vec<Task>) -> Result<Self, WorkflowError> {
        let pairs = tasks.iter().map(|task| task.needs.len()).sum();
        if tasks.is_empty() {
            return Err(WorkflowError::Empty);
        }
        if tasks.len() > TASKS_MAX || pairs > NEEDS_MAX {
            return Err(WorkflowError::TooLarge { tasks: tasks.len(), needs: pairs });
        }
        let count = tasks.len();
        let mut ids = BTreeSet::new();
        let mut children = vec![Vec::new(); count];
        for (ordinal, task) in (0..).zip(&mut tasks) {
            if !ids.insert(task.id.clone()) {
                return Err(WorkflowError::Duplicate(task.id.clone()));
            }
            task.duration = task.duration.max(Millis(1));
            let mut bytes: BTreeMap<u32, u64> = BTreeMap::new();
            for need in &task.needs {
                let sum = bytes.entry(need.task).or_default();
                *sum = sum.saturating_add(need.bytes);
            }
            task.needs = bytes.into_iter().map(|(task, bytes)| Need { task, bytes }).collect();
            for need in &task.needs {
                let Some(of) = children.get_mut(need.task as usize) else {
                    return Err(WorkflowError::Missing { task: task.id.clone(), needs: need.task, tasks: count });
                };
                of.push(ordinal);
            }
        }
        let topological = topological(&tasks, &children)?;
        Ok(Self { name: name.into(), tasks, children, topological })
    }

    /// Its name, for tables.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tasks, by ordinal.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Who waits for a task.
    #[must_use]
    pub fn children(&self, task: u32) -> &[u32] {
        &self.children[task as usize]
    }

    /// All tasks, each after those that it waits for.
    #[must_use]
    pub fn topological(&self) -> &[u32] {
        &self.topological
    }

    /// The true durations, by task.
    #[must_use]
    pub fn durations(&self) -> Vec<Millis> {
        self.tasks.iter().map(|task| task.duration).collect()
    }

    /// The longest path in true durations, without transfers.
    #[must_use]
    pub fn longest_path(&self) -> Millis {
        let mut ends = vec![Millis(0); self.tasks.len()];
        for &task in &self.topological {
            let it = &self.tasks[task as usize];
            let start = it.needs.iter().map(|need| ends[need.task as usize]).max().unwrap_or_default();
            ends[task as usize] = start + it.duration;
        }
        ends.into_iter().max().unwrap_or_default()
    }

    /// What the result of a task takes on the way to another node, in bytes: the most that any one task reads of it. A
    /// task that splits a file among a hundred others sends each of them its part.
    #[must_use]
    pub fn result_bytes(&self, task: u32) -> u64 {
        let read = |child: &u32| self.tasks[*child as usize].needs.iter().find(|need| need.task == task);
        self.children(task).iter().filter_map(read).map(|need| need.bytes).max().unwrap_or(0)
    }

    /// The same workflow on a cluster whose largest node has less than a task wants: such a task takes all of it.
    #[must_use]
    pub fn fitted(mut self, cluster: &Cluster) -> Self {
        // The nodes of a modelled cluster have memory in proportion to their cores: one of them has most of both.
        let most = cluster.nodes.iter().map(|node| node.capacity).max_by_key(|has| (has.cpu_milli, has.memory_bytes));
        if let Some(most) = most {
            for task in &mut self.tasks {
                let needs = &mut task.requirements;
                needs.cpu_milli = needs.cpu_milli.min(most.cpu_milli);
                needs.memory_bytes = needs.memory_bytes.min(most.memory_bytes);
                needs.llm_slots = needs.llm_slots.min(most.llm_slots);
            }
        }
        self
    }

    /// The workflow as a scheduler is given it, with these durations.
    #[must_use]
    pub fn agents(&self, estimates: &[Millis]) -> Vec<AgentScheduleInfo> {
        let name = |need: &Need| self.tasks[need.task as usize].id.clone();
        (0..)
            .zip(self.tasks.iter().zip(estimates))
            .map(|(ordinal, (task, estimate))| AgentScheduleInfo {
                kind: task.kind.clone(),
                estimated_duration: *estimate,
                dependencies: task.needs.iter().map(name).collect(),
                requirements: task.requirements,
                result_bytes: self.result_bytes(ordinal),
                ..AgentScheduleInfo::new(task.id.clone())
            })
            .collect()
    }
}

/// Kahn's algorithm (1962), in the order of the ordinals where it has a choice.
fn topological(tasks: &[Task], children: &[Vec<u32>]) -> Result<Vec<u32>, WorkflowError> {
    let mut waits: Vec<usize> = tasks.iter().map(|task| task.needs.len()).collect();
    let mut order: Vec<u32> = (0..).zip(&waits).filter(|(_, waits)| **waits == 0).map(|(task, _)| task).collect();
    let mut next = 0;
    while let Some(&task) = order.get(next) {
        next += 1;
        for &child in &children[task as usize] {
            waits[child as usize] -= 1;
            if waits[child as usize] == 0 {
                order.push(child);
            }
        }
    }
    if order.len() == tasks.len() {
        return Ok(order);
    }
    // What is left waits for a cycle. Going back from it long enough leads into one.
    let mut at = waits.iter().position(|waits| *waits > 0).expect("a task that was not ordered still waits");
    for _ in 0..tasks.len() {
        let blocked = |need: &&Need| waits[need.task as usize] > 0;
        at = tasks[at].needs.iter().find(blocked).expect("a task that waits does so for one that waits").task as usize;
    }
    Err(WorkflowError::Cycle(tasks[at].id.clone()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A task of one core that is named by its number.
    pub(crate) fn task(id: usize, millis: u64, needs: &[(u32, u64)]) -> Task {
        Task {
            id: format!("t{id}"),
            kind: "kind".to_owned(),
            duration: Millis(millis),
            requirements: Resources { cpu_milli: 1_000, memory_bytes: 0, llm_slots: 0 },
            needs: needs.iter().map(|&(task, bytes)| Need { task, bytes }).collect(),
        }
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_the_name_of_who_is_at_fault() {
        let error = |tasks| Workflow::new("w", tasks).expect_err("it is none").to_string();
        assert_eq!(error(vec![]), "there are no tasks");
        assert_eq!(error(vec![task(0, 1, &[]), task(0, 1, &[])]), "two tasks have the id `t0`");
        assert_eq!(error(vec![task(0, 1, &[(7, 0)])]), "task `t0` waits for task number 7, and there are 1");
        assert_eq!(error(vec![task(0, 1, &[(0, 0)])]), "task `t0` waits for itself, directly or through others");
        let behind = vec![task(0, 1, &[(2, 0)]), task(1, 1, &[(2, 0)]), task(2, 1, &[(1, 0)])];
        let blamed = error(behind);
        assert!(blamed.starts_with("task `t1` waits") || blamed.starts_with("task `t2` waits"), "{blamed}");
    }

    #[test]
    fn the_result_of_a_split_is_as_large_as_its_largest_part() {
        let tasks = vec![task(0, 1, &[]), task(1, 1, &[(0, 5), (0, 2)]), task(2, 1, &[(0, 6), (1, 0)])];
        let workflow = Workflow::new("w", tasks).expect("it is one");
        assert_eq!([0, 1, 2].map(|task| workflow.result_bytes(task)), [7, 0, 0]);
        assert_eq!((workflow.children(0), workflow.topological()), (&[1, 2][..], &[0, 1, 2][..]));
    }
}

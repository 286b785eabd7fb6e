//! Carries a plan out: what starts next, and when to plan again.
//!
//! In:  plans; what ended, and when; the time; for tasks and nodes, whether they may start there now.
//! Out: starts, and whether a new plan is due.
//!
//! A plan is right as long as tasks take what was expected. So long its order is kept on each node, also where somebody
//! behind could start earlier: a gap was left for a reason. Once a task ends away from its time, or is overdue, the plan is
//! *off*: a new one is due, and until it is there nobody waits for somebody who cannot start. New plans are due at most
//! once in [`DispatchLimits::gap`], however much happens. Members of a gang start together, also then.
//!
//! How far off durations are is also learned by kind, within the run: [`Learned`]. What other runs taught is in the
//! estimates from the beginning.
//!
//! What has not started has nothing to keep where it was planned, so a new plan need not be given the one before: with it
//! a gain below its margin is left, which costs 1 to 2 % of the makespan where durations are 100 % off.
//!
//! Not here: the plan itself (`plan`), and whether a node really has room (whoever starts tasks knows).

use std::collections::{BTreeMap, VecDeque};

use nexa_types::Millis;

use crate::{AgentScheduleInfo, SchedulePlan, TaskGraph};

/// How far behind the first of a node's queue is looked for somebody who can start, while the plan is off.
const PASS_MAX: usize = 256;

/// When a plan is off, and how often there is a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DispatchLimits {
    /// A task that ends earlier or later than planned by more than this part of its planned duration, in percent, puts the
    /// plan off.
    pub tolerance_percent: u64,
    /// The time from one plan to the next, at least.
    pub gap: Millis,
}

impl Default for DispatchLimits {
    fn default() -> Self {
        Self { tolerance_percent: 10, gap: Millis(500) }
    }
}

/// A plan that is carried out.
#[derive(Debug, Clone, Default)]
pub struct Dispatch {
    limits: DispatchLimits,
    plan: Option<(SchedulePlan, Millis)>,
    /// By node, what is planned there and has not started, in the order of the plan.
    queues: Vec<VecDeque<u32>>,
    /// By a member of a gang, all that have not started, each with its node.
    gangs: BTreeMap<u32, Vec<(u32, u32)>>,
    /// What has started and not ended.
    running: Vec<u32>,
    is_off: bool,
}

impl Dispatch {
    /// Without a plan, so that one is due.
    #[must_use]
    pub fn new(limits: DispatchLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The plan that is carried out.
    #[must_use]
    pub fn plan(&self) -> Option<&SchedulePlan> {
        self.plan.as_ref().map(|(plan, _)| plan)
    }

    /// Carries out this plan from now on. `is_waiting` says of a task whether it has not started.
    pub fn adopt(
        &mut self,
        plan: SchedulePlan,
        graph: &TaskGraph,
        nodes: usize,
        now: Millis,
        is_waiting: impl Fn(u32) -> bool,
    ) {
        // Tasks that start at the same time, as those after one of no duration, keep the order of their dependencies.
        let mut order: Vec<u32> = graph.topological().iter().copied().filter(|task| is_waiting(*task)).collect();
        order.sort_by_key(|task| plan.allocation[*task as usize].start);
        let mut gangs: BTreeMap<&str, Vec<(u32, u32)>> = BTreeMap::new();
        for task in &order {
            if let Some(gang) = &graph.agents()[*task as usize].gang {
                gangs.entry(gang).or_default().push((*task, plan.allocation[*task as usize].node));
            }
        }
        let by_member =
            |members: Vec<(u32, u32)>| members.clone().into_iter().map(move |(task, _)| (task, members.clone()));
        self.gangs = gangs.into_values().filter(|members| members.len() > 1).flat_map(by_member).collect();
        self.queues = vec![VecDeque::new(); nodes];
        for task in order {
            if let Some(queue) = self.queues.get_mut(plan.allocation[task as usize].node as usize) {
                queue.push_back(task);
            }
        }
        self.plan = Some((plan, now));
        self.is_off = false;
    }

    /// A task has ended, at its planned time or not.
    pub fn ended(&mut self, task: u32, at: Millis) {
        self.running.retain(|running| *running != task);
        if let Some((plan, _)) = &self.plan {
            let Some(slot) = plan.allocation.get(task as usize) else { return };
            let tolerance = (slot.end - slot.start).0.saturating_mul(self.limits.tolerance_percent) / 100;
            self.is_off |= at.0.abs_diff(slot.end.0) > tolerance;
        }
    }

    /// Whether a new plan is due.
    #[must_use]
    pub fn is_due(&mut self, now: Millis) -> bool {
        let Some((plan, since)) = &self.plan else { return true };
        let is_overdue = |task: &u32| {
            let slot = &plan.allocation[*task as usize];
            let tolerance = (slot.end - slot.start).0.saturating_mul(self.limits.tolerance_percent) / 100;
            now > slot.end + Millis(tolerance)
        };
        self.is_off = self.is_off || self.running.iter().any(is_overdue);
        self.is_off && now >= *since + self.limits.gap
    }

    /// What starts now, each with its node: one task, or the members of a gang. Asked until it is empty. `may_start` says
    /// whether all of some tasks may start on their nodes together: what they depend on has ended and arrived there, and
    /// there is room for all of them.
    pub fn next(&mut self, mut may_start: impl FnMut(&[(u32, u32)]) -> bool) -> Vec<(u32, u32)> {
        let within = if self.is_off { PASS_MAX } else { 1 };
        for (node, queue) in (0..).zip(&self.queues) {
            for &task in queue.iter().take(within) {
                let alone = [(task, node)];
                let together = self.gangs.get(&task).map_or(&alone[..], Vec::as_slice);
                if may_start(together) {
                    let starts = together.to_vec();
                    self.start(&starts);
                    return starts;
                }
            }
        }
        Vec::new()
    }

    fn start(&mut self, starts: &[(u32, u32)]) {
        for (task, node) in starts {
            let queue = &mut self.queues[*node as usize];
            if let Some(place) = queue.iter().position(|other| other == task) {
                queue.remove(place);
            }
            self.gangs.remove(task);
            self.running.push(*task);
        }
    }
}

/// How far off the durations of each kind are in this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// By kind: what those that ended took, and what had been expected of them, at speed 100.
    kinds: BTreeMap<String, (u64, u64)>,
}

impl Learned {
    /// A task took so long at speed 100.
    pub fn observe(&mut self, of: &AgentScheduleInfo, took: Millis) {
        let (taken, expected) = self.kinds.entry(of.kind.clone()).or_default();
        *taken = taken.saturating_add(took.0);
        *expected = expected.saturating_add(of.estimated_duration.0.max(1));
    }

    /// What a task is expected to take now: its estimate, scaled by how far off its kind is, the estimate itself counting
    /// as if one like it had ended as expected.
    #[must_use]
    pub fn estimate(&self, of: &AgentScheduleInfo) -> Millis {
        let own = u128::from(of.estimated_duration.0);
        let (taken, expected) = self.kinds.get(&of.kind).copied().unwrap_or_default();
        let scaled = own.saturating_mul(u128::from(taken) + own) / (u128::from(expected) + own).max(1);
        Millis(u64::try_from(scaled).unwrap_or(u64::MAX).max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Cluster, Labels, Network, NodeInfo, Problem, Progress, Resources, SchedulerConfig, Slot, plan};

    /// Agents of one core: name, duration, names of those that it waits for, gang.
    fn graph(agents: &[(&str, u64, &[&str], Option<&str>)]) -> TaskGraph {
        let agent = |(id, millis, after, gang): &(&str, u64, &[&str], Option<&str>)| AgentScheduleInfo {
            estimated_duration: Millis(*millis),
            dependencies: after.iter().map(|id| (*id).to_owned()).collect(),
            requirements: Resources { cpu_milli: 1_000, ..Resources::default() },
            gang: gang.map(str::to_owned),
            ..AgentScheduleInfo::new(*id)
        };
        TaskGraph::new(agents.iter().map(agent).collect()).expect("it is one")
    }

    fn planned(slots: &[(u32, u64, u64)]) -> SchedulePlan {
        let slot = |&(node, start, end): &(u32, u64, u64)| Slot { node, start: Millis(start), end: Millis(end) };
        SchedulePlan {
            stages: Vec::new(),
            allocation: slots.iter().map(slot).collect(),
            critical_path: Vec::new(),
            estimated_total_time: Millis(0),
            lower_bound: Millis(0),
        }
    }

    /// All that starts when these may.
    fn starts(dispatch: &mut Dispatch, may: &[u32]) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        loop {
            let next = dispatch.next(|together| together.iter().all(|(task, _)| may.contains(task)));
            if next.is_empty() {
                return all;
            }
            all.extend(next);
        }
    }

    #[test]
    fn a_plan_that_holds_keeps_its_order_and_one_that_is_off_lets_those_pass_who_can() {
        let graph = graph(&[("a", 10, &[], None), ("b", 10, &["a"], None), ("c", 10, &[], None), ("d", 10, &[], None)]);
        let plan = planned(&[(0, 0, 10), (1, 10, 20), (1, 20, 30), (1, 30, 40)]);
        let mut dispatch = Dispatch::new(DispatchLimits { tolerance_percent: 10, gap: Millis(50) });
        assert!(dispatch.is_due(Millis(0)) && starts(&mut dispatch, &[0, 1, 2, 3]).is_empty());
        dispatch.adopt(plan, &graph, 2, Millis(0), |_| true);
        assert_eq!(starts(&mut dispatch, &[0, 2, 3]), [(0, 0)], "c was planned after b");
        assert!(!dispatch.is_due(Millis(11)), "within the tolerance");
        assert!(!dispatch.is_due(Millis(12)), "overdue, and too soon after the last plan");
        assert_eq!(starts(&mut dispatch, &[2]), [(2, 1)], "b is not waited for any more");
        assert!(dispatch.is_due(Millis(50)));
        dispatch.ended(0, Millis(50));
        dispatch.adopt(planned(&[(0, 0, 50), (1, 50, 60), (1, 11, 55), (1, 60, 70)]), &graph, 2, Millis(50), |task| {
            [1, 3].contains(&task)
        });
        assert_eq!(starts(&mut dispatch, &[2, 3]), [], "the new plan holds, in which d is after b");
        assert_eq!(starts(&mut dispatch, &[1, 3]), [(1, 1), (3, 1)]);
        dispatch.ended(1, Millis(60));
        assert!(dispatch.is_due(Millis(1_000)), "d is overdue by then");
    }

    #[test]
    fn members_of_a_gang_start_together_also_while_the_plan_is_off() {
        let graph = graph(&[("a", 10, &[], None), ("b", 10, &[], Some("g")), ("c", 10, &["a"], Some("g"))]);
        let mut dispatch = Dispatch::new(DispatchLimits { tolerance_percent: 0, gap: Millis(1_000) });
        dispatch.adopt(planned(&[(0, 0, 10), (1, 10, 20), (0, 10, 20)]), &graph, 2, Millis(0), |_| true);
        assert_eq!(starts(&mut dispatch, &[0, 1]), [(0, 0)], "c waits for a, and b for c");
        dispatch.ended(0, Millis(15));
        assert_eq!(starts(&mut dispatch, &[2]), [], "b has no room");
        assert_eq!(starts(&mut dispatch, &[1, 2]), [(1, 1), (2, 0)]);
    }

    #[test]
    fn what_a_kind_takes_is_learned_and_one_that_was_seen_does_not_decide_alone() {
        let of = |kind: &str, millis| AgentScheduleInfo {
            kind: kind.to_owned(),
            estimated_duration: Millis(millis),
            ..AgentScheduleInfo::new("a")
        };
        let mut learned = Learned::default();
        assert_eq!(learned.estimate(&of("k", 100)), Millis(100));
        learned.observe(&of("k", 100), Millis(300));
        assert_eq!((learned.estimate(&of("k", 100)), learned.estimate(&of("l", 100))), (Millis(200), Millis(100)));
        (0..99).for_each(|_| learned.observe(&of("k", 100), Millis(300)));
        assert_eq!((learned.estimate(&of("k", 100)), learned.estimate(&of("k", 10))), (Millis(298), Millis(29)));
        learned.observe(&of("k", u64::MAX), Millis(u64::MAX));
        assert!(learned.estimate(&of("k", u64::MAX)) >= Millis(1) && learned.estimate(&of("k", 0)) == Millis(1));
    }

    fn node(place: usize, cores: u64) -> NodeInfo {
        NodeInfo {
            id: format!("n{place}").parse().expect("a name"),
            capacity: Resources { cpu_milli: cores * 1_000, memory_bytes: 0, llm_slots: 0 },
            speed: 100,
            labels: Labels::new(),
            is_cordoned: false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the truth about durations is, all start, each after what it waits for, gangs at once, within capacity.
        #[test]
        fn whatever_is_off_everything_starts_and_gangs_at_once(
            drawn in prop::collection::vec((1u64..50, 1u64..50, 0usize..4, 0u8..6), 1..25),
            cores in prop::collection::vec(1u64..4, 1..4),
            gap in 0u64..100,
        ) {
            // Members of one gang have the same number of those before them, so that none waits for another.
            let agents: Vec<AgentScheduleInfo> = drawn.iter().enumerate().map(|(id, &(millis, _, after, gang))| {
                let gang = (gang == 0 && id % 5 != 0).then(|| format!("g{}", id / 5));
                let before = if gang.is_some() { id / 5 * 5 } else { id };
                AgentScheduleInfo {
                    estimated_duration: Millis(millis),
                    dependencies: (0..before).rev().step_by(7).take(after).map(|id| format!("t{id}")).collect(),
                    requirements: Resources { cpu_milli: 250, ..Resources::default() },
                    gang,
                    ..AgentScheduleInfo::new(format!("t{id}"))
                }
            }).collect();
            let graph = TaskGraph::new(agents).expect("each waits for earlier ones");
            let cluster = Cluster {
                nodes: cores.iter().enumerate().map(|(place, cores)| node(place, *cores)).collect(),
                network: Network { latency: Millis(1), bytes_per_ms: 0 },
            };
            let config = SchedulerConfig::default();
            let mut dispatch = Dispatch::new(DispatchLimits { tolerance_percent: 5, gap: Millis(gap) });
            let mut progress = vec![Progress::Waiting; graph.len()];
            let mut started = vec![None; graph.len()];
            for now in (0..20_000).map(Millis) {
                for task in 0..graph.len() {
                    if let Progress::Running { node, since } = progress[task]
                        && since + Millis(drawn[task].1) == now
                    {
                        progress[task] = Progress::Ended { node, at: now };
                        dispatch.ended(task as u32, now);
                    }
                }
                let is_waiting = |task: u32| progress[task as usize] == Progress::Waiting;
                if dispatch.is_due(now) {
                    let problem = Problem {
                        graph: &graph, cluster: &cluster, config: &config, budgets: &[], progress: &progress, now, seed: 1,
                    };
                    let plan = plan(&problem, None).expect("a gang takes a core at most, which every node has");
                    dispatch.adopt(plan, &graph, cluster.nodes.len(), now, is_waiting);
                }
                loop {
                    let running = |node: u32| progress.iter()
                        .filter(|it| matches!(it, Progress::Running { node: on, .. } if *on == node)).count();
                    let starts = dispatch.next(|together| together.iter().all(|(task, node)| {
                        let arrived = graph.dependencies(*task).iter().all(|before| match progress[*before as usize] {
                            Progress::Ended { node: from, at } => at + Millis(u64::from(from != *node)) <= now,
                            _ => false,
                        });
                        let more = together.iter().filter(|(_, other)| other == node).count();
                        arrived && (running(*node) + more) as u64 <= cores[*node as usize] * 4
                    }));
                    if starts.is_empty() {
                        break;
                    }
                    for (task, node) in starts {
                        prop_assert_eq!(progress[task as usize], Progress::Waiting);
                        progress[task as usize] = Progress::Running { node, since: now };
                        started[task as usize] = Some(now);
                    }
                }
                if progress.iter().all(|it| matches!(it, Progress::Ended { .. })) {
                    break;
                }
            }
            for (task, at) in started.iter().enumerate() {
                prop_assert!(at.is_some(), "t{} never started", task);
                let gang = &graph.agents()[task].gang;
                let together = |other: usize| gang.is_none() || graph.agents()[other].gang != *gang || started[other] == *at;
                prop_assert!((0..graph.len()).all(together), "the gang of t{} started apart", task);
            }
        }
    }
}

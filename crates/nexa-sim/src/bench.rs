//! The suite `scheduler` of the benches: what plans, new plans, single places and rebalancing take, and what plans are
//! worth.
//!
//! Graphs are random ones of layers, in which each agent waits for one to three of the layer before, on the hundred nodes
//! of a modelled cluster; seeds are fixed, so that each run measures the same. There are twenty layers, or as many more as
//! it takes for none to be of more than five hundred agents. For so many there is room at once, and more would wait for it:
//! were layers to grow with the graph, a hundred thousand agents would be another problem than ten thousand, and what is
//! looked at for each of them more, once. `*_wide` are of twenty layers in which all wait for room.
//!
//! A figure is the median of its rounds, `*_min` and `*_max` are the best and the worst; what is compared is measured in
//! turn, round by round. `growth_*` is what a plan of ten times as many agents takes over what it takes of the fewer, over
//! the same of n log n: the median of the rounds. That what is *looked at* grows no faster is a test of `nexa-sched`; what
//! is more than 1 here is how much of the larger problem is not in the caches, and that from ten to a hundred thousand agents
//! the nodes asked for each double, since they are fuller. The last line is one JSON object.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use nexa_sched::{
    AgentLoad, AgentScheduleInfo, Cluster, LoadBalanceStrategy, NodeFree, NodeLoad, NodeState, Problem, Progress,
    RebalanceLimits, Resources, SchedulePlan, SchedulerConfig, SystemLoad, TaskGraph, Weights, place_one, plan,
    rebalance,
};
use nexa_sim::dice::Dice;
use nexa_sim::workflows::{self, Contender, Noise, Settings, mean_ratio, read_all, study, usual_folder};
use nexa_types::{AgentId, Millis};
use serde_json::{Map, Number, Value};

use crate::plan_sim::{Error, chain};

/// Rounds that count; one before them warms up.
const ROUNDS: usize = 7;
const NODES: usize = 100;
const LAYERS: usize = 20;
/// Agents in a layer for which there is room at once.
const WIDTH_MAX: usize = 500;
/// Agents that are on the nodes when they are rebalanced.
const AGENTS: usize = 10_000;
/// Places that are looked for in a round.
const PLACES: u64 = 100_000;
/// Clusters of each size on which workflows are played.
const SEEDS: u64 = 5;

/// Measures everything. `traces` is the folder with workflow traces; without one they are looked for where they usually
/// are, and if there are none, what plans are worth is null.
pub(crate) fn run(traces: Option<&Path>) -> Result<Value, Error> {
    let mut figures = Figures::default();
    times(&mut figures)?;
    let folder = traces.map(Path::to_owned).or_else(usual_folder);
    let noises = [Noise::True, Noise::Task(30), Noise::Task(100)];
    let keys = ["makespan_vs_heft", "makespan_vs_heft_30", "makespan_vs_heft_100"];
    let Some(folder) = folder else {
        let why = "there are no workflow traces; name their folder with --workflows DIR";
        keys.into_iter().for_each(|key| figures.absent(key, why));
        return Ok(figures.to_json());
    };
    let workflows = read_all(&folder).map_err(|error| chain(&error))?;
    let settings = Settings { nodes: vec![2, 4, 8, 16, 32, 64], seeds: SEEDS, noises: noises.to_vec() };
    let cells = study(&workflows, &settings, |_, _| ())?;
    for (key, noise) in keys.into_iter().zip(noises) {
        let mean = mean_ratio(cells.iter().filter(|cell| cell.noise == noise), Contender::Ours);
        figures.count(key, mean.ok_or("nothing was played")?);
    }
    Ok(figures.to_json())
}

fn n_log_n(n: f64) -> f64 {
    n * n.ln()
}

fn times(figures: &mut Figures) -> Result<(), Error> {
    let cluster = workflows::cluster(NODES, 1);
    let graphs = [1_000, 10_000, 30_000, 100_000, 300_000].map(|count| layered(count, (count / LAYERS).min(WIDTH_MAX)));
    let [small, middle, thirty, large, largest] = &graphs;
    let wide = [30_000, 300_000].map(|count| layered(count, count / LAYERS));
    let after = tenth(middle, &cluster)?;
    let load = uneven(&cluster)?;
    let weights = Weights::default();
    let free: Vec<NodeFree<'_>> = load.nodes.iter().map(|node| node.free(&weights)).collect();
    let fresh = |graph: &TaskGraph| millis(|| plan_of(graph, &cluster, &[], Millis(0), None));
    let again = || plan_of(middle, &cluster, &after.progress, after.now, Some(&after.previous));
    let subjects = [
        Subject::new("plan_1k_ms", || fresh(small)),
        Subject::new("plan_10k_ms", || fresh(middle)),
        Subject::new("plan_30k_ms", || fresh(thirty)),
        Subject::new("plan_100k_ms", || fresh(large)),
        Subject::new("plan_300k_ms", || fresh(largest)),
        Subject::new("plan_30k_wide_ms", || fresh(&wide[0])),
        Subject::new("plan_300k_wide_ms", || fresh(&wide[1])),
        Subject::new("replan_10k_ms", || millis(again)),
        Subject::new("graph_10k_ms", || {
            let agents = middle.agents().to_vec();
            millis(|| TaskGraph::new(agents))
        }),
        Subject::new("place_one_us", || {
            let all = || (0..PLACES).filter(|dice| place(&free, *dice).is_some()).count();
            let took = millis(|| if all() == 0 { Err("nobody found a place") } else { Ok(()) })?;
            Ok(took * 1_000.0 / PLACES as f64)
        }),
        Subject::new("rebalance_100_nodes_ms", || {
            millis(|| match rebalance(&load, &RebalanceLimits::default(), Millis(0)).len() {
                0 => Err(Error::from("nothing was moved, so nothing was measured")),
                moves => Ok(moves),
            })
        }),
    ];
    figures.measure(subjects)?;
    figures.growth("growth_10k_to_100k", ("plan_10k_ms", 10_000.0), ("plan_100k_ms", 100_000.0));
    figures.growth("growth_30k_to_300k", ("plan_30k_ms", 30_000.0), ("plan_300k_ms", 300_000.0));
    figures.growth("growth_30k_to_300k_wide", ("plan_30k_wide_ms", 30_000.0), ("plan_300k_wide_ms", 300_000.0));
    Ok(())
}

fn place(free: &[NodeFree<'_>], dice: u64) -> Option<u32> {
    place_one(free, &demand(&mut Dice::of(&[dice])), &Default::default(), LoadBalanceStrategy::Adaptive, dice)
}

fn demand(dice: &mut Dice) -> Resources {
    Resources { cpu_milli: dice.between(1, 10) * 100, memory_bytes: dice.between(1, 16) << 24, llm_slots: 0 }
}

/// So many agents in layers of this width.
fn layered(count: usize, width: usize) -> TaskGraph {
    let mut dice = Dice::of(&[0x6a, count as u64]);
    let agent = |id: usize| {
        let first = (id / width).checked_sub(1).map(|layer| layer * width);
        let mut before: Vec<u64> = first
            .map(|first| (0..dice.between(1, 3)).map(|_| first as u64 + dice.below(width as u64)).collect())
            .unwrap_or_default();
        before.sort_unstable();
        before.dedup();
        AgentScheduleInfo {
            kind: format!("kind-{}", id % 10),
            estimated_duration: Millis(dice.between(100, 10_000)),
            dependencies: before.iter().map(|id| format!("agent-{id}")).collect(),
            requirements: demand(&mut dice),
            result_bytes: dice.below(1_000_000),
            ..AgentScheduleInfo::new(format!("agent-{id}"))
        }
    };
    TaskGraph::new((0..count).map(agent).collect()).expect("each layer waits for the one before")
}

fn plan_of(
    graph: &TaskGraph,
    cluster: &Cluster,
    progress: &[Progress],
    now: Millis,
    previous: Option<&SchedulePlan>,
) -> Result<SchedulePlan, Error> {
    let config = SchedulerConfig::default();
    let problem = Problem { graph, cluster, config: &config, budgets: &[], progress, now, seed: 1 };
    Ok(plan(&problem, previous)?)
}

/// A plan of which a tenth has ended.
struct Tenth {
    previous: SchedulePlan,
    progress: Vec<Progress>,
    now: Millis,
}

fn tenth(graph: &TaskGraph, cluster: &Cluster) -> Result<Tenth, Error> {
    let previous = plan_of(graph, cluster, &[], Millis(0), None)?;
    let mut ends: Vec<Millis> = previous.allocation.iter().map(|slot| slot.end).collect();
    ends.sort_unstable();
    let now = ends[ends.len() / 10];
    let progress = previous.allocation.iter().map(|slot| match slot.node {
        node if slot.end <= now => Progress::Ended { node, at: slot.end },
        node if slot.start <= now => Progress::Running { node, since: slot.start },
        _ => Progress::Waiting,
    });
    Ok(Tenth { progress: progress.collect(), now, previous })
}

/// Nodes with a tenth of them overloaded, by agents that are there and not elsewhere.
fn uneven(cluster: &Cluster) -> Result<SystemLoad, Error> {
    let mut dice = Dice::of(&[0x10ad]);
    let mut used = vec![Resources::default(); NODES];
    let mut agents = Vec::with_capacity(AGENTS);
    let cores: u64 = cluster.nodes.iter().map(|node| node.capacity.cpu_milli).sum();
    for at in 0..AGENTS {
        // One draw in ten goes to the first ten nodes whatever they have, the others in proportion to cores.
        let drawn = if dice.below(10) == 0 { dice.below(10) } else { by_cores(cluster, dice.below(cores)) };
        let node = usize::try_from(drawn).map_err(|error| error.to_string())?;
        let uses = Resources { cpu_milli: dice.between(5, 35), memory_bytes: dice.between(1, 64) << 20, llm_slots: 0 };
        used[node] = used[node].plus(&uses);
        agents.push(AgentLoad {
            id: AgentId::from_slice(&(at as u128).to_be_bytes()).ok_or("an id has sixteen bytes")?,
            node: u32::try_from(node)?,
            holds: uses,
            uses,
            move_bytes: dice.below(1 << 20),
            labels: Default::default(),
            priority: 128,
            weight: 1_000,
            gang: None,
            moved_at: None,
            talks_to: Vec::new(),
        });
    }
    let part = |of: u64, all: u64| of * 1_000_000 / all.max(1);
    let node = |(node, used): (&nexa_sched::NodeInfo, &Resources)| NodeLoad {
        capacity: node.capacity,
        used: *used,
        speed: node.speed,
        cpu: part(used.cpu_milli, node.capacity.cpu_milli),
        memory: part(used.memory_bytes, node.capacity.memory_bytes),
        state: NodeState::Open,
        ..NodeLoad::default()
    };
    Ok(SystemLoad { nodes: cluster.nodes.iter().zip(&used).map(node).collect(), agents })
}

/// The node that has the core of this number.
fn by_cores(cluster: &Cluster, mut core: u64) -> u64 {
    for (place, node) in (0..).zip(&cluster.nodes) {
        if core < node.capacity.cpu_milli {
            return place;
        }
        core -= node.capacity.cpu_milli;
    }
    0
}

/// How long something takes, in milliseconds.
fn millis<T, E: Into<Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<f64, Error> {
    let start = Instant::now();
    let done = black_box(work());
    let took = start.elapsed().as_secs_f64() * 1_000.0;
    done.map(|_| took).map_err(Into::into)
}

/// One thing that is measured: its key in the result, and what one round of it costs in the key's unit.
struct Subject<'a> {
    key: &'static str,
    round: Box<dyn FnMut() -> Result<f64, Error> + 'a>,
}

impl<'a> Subject<'a> {
    fn new(key: &'static str, round: impl FnMut() -> Result<f64, Error> + 'a) -> Self {
        Self { key, round: Box::new(round) }
    }
}

/// Figures by their keys, in the order in which they were measured, and what they are made of.
#[derive(Default)]
struct Figures {
    all: Map<String, Value>,
    rounds: BTreeMap<&'static str, Vec<f64>>,
}

impl Figures {
    fn measure<'a>(&mut self, subjects: impl IntoIterator<Item = Subject<'a>>) -> Result<(), Error> {
        let mut subjects: Vec<(Subject<'a>, Vec<f64>)> = subjects.into_iter().map(|it| (it, Vec::new())).collect();
        for round in 0..=ROUNDS {
            for (subject, taken) in &mut subjects {
                let figure = (subject.round)()?;
                if round > 0 {
                    taken.push(figure);
                }
            }
        }
        for (subject, mut taken) in subjects {
            self.rounds.insert(subject.key, taken.clone());
            taken.sort_by(f64::total_cmp);
            let (median, min, max) = (taken[ROUNDS / 2], taken[0], taken[ROUNDS - 1]);
            eprintln!("{:26} {median:12.3}   ({min:.3} to {max:.3})", subject.key);
            self.set(subject.key.to_owned(), median);
            self.set(format!("{}_min", subject.key), min);
            self.set(format!("{}_max", subject.key), max);
        }
        Ok(())
    }

    /// How much more a larger problem takes than a smaller one, over the same of n log n; both by key and size. The median
    /// of the rounds, in each of which both were measured.
    fn growth(&mut self, key: &str, small: (&str, f64), large: (&str, f64)) {
        let expected = n_log_n(large.1) / n_log_n(small.1);
        let pairs = self.rounds[small.0].iter().zip(&self.rounds[large.0]);
        let mut ratios: Vec<f64> = pairs.map(|(small, large)| large / small / expected).collect();
        ratios.sort_by(f64::total_cmp);
        self.count(key, ratios[ratios.len() / 2]);
    }

    /// A figure that is the same each time.
    fn count(&mut self, key: &str, figure: f64) {
        eprintln!("{key:26} {figure:12.3}");
        self.set(key.to_owned(), figure);
    }

    /// A figure that cannot be had here, and why.
    fn absent(&mut self, key: &str, why: &str) {
        eprintln!("{key:26} {:>12}   ({why})", "-");
        self.all.insert(key.to_owned(), Value::Null);
    }

    fn set(&mut self, key: String, figure: f64) {
        // Four digits after the point: a place takes a few hundred nanoseconds.
        let rounded = (figure * 10_000.0).round() / 10_000.0;
        self.all.insert(key, Number::from_f64(rounded).map_or(Value::Null, Value::Number));
    }

    fn to_json(&self) -> Value {
        Value::Object(self.all.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_what_it_says() {
        let cluster = workflows::cluster(NODES, 1);
        let graph = layered(1_000, 1_000 / LAYERS);
        assert_eq!((graph.len(), graph.stages().len()), (1_000, LAYERS));
        let after = tenth(&graph, &cluster).expect("there is a plan");
        let ended = after.progress.iter().filter(|it| matches!(it, Progress::Ended { .. })).count();
        assert!((100..150).contains(&ended), "{ended} have ended");
        let again = plan_of(&graph, &cluster, &after.progress, after.now, Some(&after.previous)).expect("a plan");
        assert!(again.estimated_total_time + after.now <= after.previous.estimated_total_time, "nothing was late");
        let load = uneven(&cluster).expect("it can be made");
        let above = load.nodes.iter().filter(|node| node.pressure() > 800_000).count();
        assert!((3..30).contains(&above), "{above} nodes are overloaded");
        assert!(!rebalance(&load, &RebalanceLimits::default(), Millis(0)).is_empty());
    }

    #[test]
    fn growth_is_the_median_of_the_rounds_over_that_of_n_log_n() {
        let rounds = [("small", vec![1.0, 2.0, 4.0]), ("large", vec![25.0, 40.0, 60.0])].into();
        let mut figures = Figures { rounds, ..Figures::default() };
        figures.growth("growth", ("small", 10_000.0), ("large", 100_000.0));
        // 100,000 log 100,000 is 12.5 times 10,000 log 10,000; of 25, 20 and 15 times, 20 is the median.
        assert_eq!(figures.to_json().to_string(), r#"{"growth":1.6}"#);
    }

    #[test]
    fn an_absent_figure_is_null_and_not_left_out() {
        let mut figures = Figures::default();
        figures.absent("a", "there is none");
        figures.count("b", 1.00006);
        assert_eq!(figures.to_json().to_string(), r#"{"a":null,"b":1.0001}"#);
    }
}

//! That the time of a plan grows with n log n, shown by counting what is looked at: clocks also tell how much of a problem
//! the caches hold.
//!
//! Two graphs of layers on a hundred nodes. In the one, as in the bench `scheduler`, a layer is a twentieth of all: up to
//! ten thousand agents it finds room at once, and beyond it waits, so that the work for each agent grows once and then no
//! more. In the other a layer is always of one width, so that only the number of layers grows.

use super::*;
use crate::count::counted;
use crate::{AgentScheduleInfo, NodeInfo, Resources};

const SIZES: [usize; 6] = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000];

/// Agents in a layer where that is the same for all sizes: those of a layer find room at once.
const WIDTH: usize = 500;

/// Nodes of 50 to 200 % speed with 1 to 8 cores.
fn nodes() -> Cluster {
    let mut dice = dice::Dice::new(1);
    let nodes = (0..100).map(|place| {
        let (speed, cores) = (50 + dice.below(151), 1 + dice.below(8));
        NodeInfo {
            id: format!("node-{place}").parse().expect("a name"),
            capacity: Resources { cpu_milli: cores * 1_000, memory_bytes: cores << 32, llm_slots: 0 },
            speed: speed as u32,
            labels: [].into(),
            is_cordoned: false,
        }
    });
    Cluster { nodes: nodes.collect(), network: crate::Network { latency: Millis(1), bytes_per_ms: 125_000 } }
}

/// Layers in which each agent waits for one to three of the layer before.
fn layered(count: usize, width: usize) -> TaskGraph {
    let mut dice = dice::Dice::new(count as u64);
    let agent = |id: usize| {
        let first = (id / width).checked_sub(1).map(|layer| (layer * width) as u64);
        let mut before = first.map_or(Vec::new(), |first| vec![first; 1 + dice.below(3) as usize]);
        before.iter_mut().for_each(|before| *before += dice.below(width as u64));
        AgentScheduleInfo {
            kind: format!("kind-{}", id % 10),
            estimated_duration: Millis(100 + dice.below(9_901)),
            dependencies: before.iter().map(|before| format!("agent-{before}")).collect(),
            requirements: Resources {
                cpu_milli: (1 + dice.below(10)) * 100,
                memory_bytes: (1 + dice.below(16)) << 24,
                llm_slots: 0,
            },
            result_bytes: dice.below(1_000_000),
            ..AgentScheduleInfo::new(format!("agent-{id}"))
        }
    };
    TaskGraph::new((0..count).map(agent).collect()).expect("each layer waits for the one before")
}

/// How much is looked at for each n log₂ n: to make a plan moment by moment, and to keep it as a previous one. Searching
/// for better plans of small graphs is bounded by numbers of looks of its own.
fn looks(count: usize, width: usize, strategy: LoadBalanceStrategy) -> (f64, f64) {
    let (graph, cluster) = (layered(count, width), nodes());
    let config = SchedulerConfig { load_balance_strategy: strategy, ..SchedulerConfig::default() };
    let now = Millis(0);
    let problem =
        Problem { graph: &graph, cluster: &cluster, config: &config, budgets: &[], progress: &[], now, seed: 1 };
    let setting = Setting::new(&problem).expect("everybody fits somewhere");
    let bound = crate::bound::lower_bound(&setting).0;
    let ((end, allocation), made) = counted(|| forward::forward(&setting, Turn::new(&setting, strategy), bound));
    let (stages, critical_path) = (Vec::new(), Vec::new());
    let (estimated_total_time, lower_bound) = (Millis(end), Millis(bound));
    let previous = SchedulePlan { stages, allocation, critical_path, estimated_total_time, lower_bound };
    let mut kept = Kept::new(&setting, &previous);
    let (kept_end, again) = counted(|| kept.serial.run(&kept.order, &Place::InTurn(&kept.nodes)));
    assert!(kept_end.is_some_and(|kept_end| kept_end <= end), "nobody starts later than before");
    let n_log_n = count as f64 * (count as f64).log2();
    let each = |of: [u64; 4]| of.iter().sum::<u64>() as f64 / n_log_n;
    eprintln!(
        "{strategy:?} {count} in layers of {width}: {made:?} and {again:?}, {:.2} and {:.2}",
        each(made),
        each(again)
    );
    assert!(made.iter().sum::<u64>() >= count as u64, "nothing was counted");
    (each(made), each(again))
}

#[test]
fn what_is_looked_at_grows_with_n_log_n() {
    let adaptive = |count: usize, width: usize| looks(count, width, LoadBalanceStrategy::Adaptive);
    let wide: Vec<(f64, f64)> = SIZES.iter().map(|&count| adaptive(count, count / 20)).collect();
    let fixed: Vec<(f64, f64)> = SIZES.iter().map(|&count| adaptive(count, WIDTH)).collect();
    assert!(wide.iter().all(|of| of.0 < 30.0 && of.1 < 4.0), "{wide:?}");
    assert!(fixed.iter().all(|of| of.0 < 10.0 && of.1 < 4.0), "{fixed:?}");
    // From a size to ten times that, where both are of one kind: from a layer of five hundred on, and once layers wait.
    for pair in fixed[2..].windows(3).chain(wide[3..].windows(3)) {
        let (small, large) = (pair[0], pair[2]);
        assert!(large.0 < 1.25 * small.0 && large.1 < 1.25 * small.1, "{small:?} became {large:?}");
    }
}

#[test]
fn so_does_it_for_every_strategy() {
    for strategy in [
        LoadBalanceStrategy::RoundRobin,
        LoadBalanceStrategy::LeastLoaded,
        LoadBalanceStrategy::WeightedFair,
        LoadBalanceStrategy::PriorityBased,
    ] {
        let [small, large] = [3_000, 30_000].map(|count| looks(count, WIDTH, strategy).0);
        assert!(large < 1.25 * small && large < 50.0, "{strategy:?}: {small} became {large}");
    }
}

//! All contenders on all workflows, clusters, noises and seeds, and what comes of it: makespans beside that of HEFT.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nexa_sched::DispatchLimits;
use nexa_types::Millis;

use super::{
    Fault, Noise, Order, Planner, Spread, Transfers, Turn, Workflow, World, check, cluster, estimates, heft_fixed,
    lower_bound, planned_once,
};
use crate::dice::Dice;

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// A node by chance for each task that is ready.
    Random,
    /// A node by turns for each task that is ready.
    RoundRobin,
    /// HEFT's plan, as it is.
    Heft,
    /// HEFT's plan, where a task may pass those of its node that cannot start yet.
    HeftConserving,
    /// The plan of `nexa_sched::plan`, as it is.
    Plan,
    /// That plan, carried out by `nexa_sched::Dispatch`, which plans again when it is off.
    Ours,
    /// The same where results set out only when it is settled where they are read: for all plans that are kept as they are
    /// that is before they are there, and so makes no difference.
    OursSettled,
    /// No contender: what nobody can be below.
    Bound,
}

impl Contender {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 8] = [
        Self::Random,
        Self::RoundRobin,
        Self::Heft,
        Self::HeftConserving,
        Self::Plan,
        Self::Ours,
        Self::OursSettled,
        Self::Bound,
    ];

    /// Its name in tables and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::RoundRobin => "round_robin",
            Self::Heft => "heft",
            Self::HeftConserving => "heft_conserving",
            Self::Plan => "plan",
            Self::Ours => "ours",
            Self::OursSettled => "ours_settled",
            Self::Bound => "bound",
        }
    }
}

/// What is played.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sizes of clusters.
    pub nodes: Vec<usize>,
    /// Each workflow is played so often on each size, with another cluster and other noise each time: seeds from 1 on.
    pub seeds: u64,
    /// What is believed about durations.
    pub noises: Vec<Noise>,
}

/// One workflow on one cluster with one noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The workflow's name.
    pub workflow: String,
    /// The size of the cluster.
    pub nodes: usize,
    /// What was believed.
    pub noise: Noise,
    /// Which cluster and which noise.
    pub seed: u64,
    /// The makespans, in the order of [`Contender::ALL`].
    pub makespans: [Millis; Contender::ALL.len()],
}

impl Cell {
    /// A contender's makespan.
    #[must_use]
    pub fn makespan(&self, of: Contender) -> Millis {
        let place = Contender::ALL.iter().position(|other| *other == of).expect("all of them are there");
        self.makespans[place]
    }

    /// A contender's makespan over that of HEFT.
    #[must_use]
    pub fn ratio(&self, of: Contender) -> f64 {
        // Every task takes at least a millisecond, and HEFT runs at least one.
        self.makespan(of).0 as f64 / self.makespan(Contender::Heft).0 as f64
    }
}

/// Why a study ends.
#[derive(Debug, thiserror::Error)]
#[error("{contender} on {workflow} with {nodes} nodes, {noise}, seed {seed}: {why}")]
pub struct StudyError {
    contender: &'static str,
    workflow: String,
    nodes: usize,
    noise: Noise,
    seed: u64,
    why: String,
}

/// Plays everything, on as many threads as there are processors, and calls `done` with the share that is done. The cells
/// are in the order of workflows, nodes, noises and seeds whatever thread played them.
///
/// # Errors
/// Where a contender does what cannot be: the study says who, and on what.
pub fn study(
    workflows: &[Workflow],
    settings: &Settings,
    done: impl Fn(usize, usize) + Sync,
) -> Result<Vec<Cell>, StudyError> {
    let mut wanted = Vec::new();
    for workflow in workflows {
        for &nodes in &settings.nodes {
            for &noise in &settings.noises {
                wanted.extend((1..=settings.seeds).map(|seed| (workflow, nodes, noise, seed)));
            }
        }
    }
    let next = AtomicUsize::new(0);
    let cells = Mutex::new(Vec::with_capacity(wanted.len()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let play = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(workflow, nodes, noise, seed)) = wanted.get(place) else { return };
            let cell = cell(workflow, nodes, noise, seed);
            let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.push((place, cell));
            done(cells.len(), wanted.len());
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(play))));
    let mut cells = cells.into_inner().unwrap_or_else(PoisonError::into_inner);
    cells.sort_unstable_by_key(|cell| cell.0);
    cells.into_iter().map(|cell| cell.1).collect()
}

fn cell(workflow: &Workflow, nodes: usize, noise: Noise, seed: u64) -> Result<Cell, StudyError> {
    let cluster = cluster(nodes, seed);
    let workflow = workflow.clone().fitted(&cluster);
    let believed = estimates(&workflow, noise, seed);
    let world = World { workflow: &workflow, cluster: &cluster, transfers: Transfers::AtOnce };
    let mut makespans = [Millis(0); Contender::ALL.len()];
    for (contender, makespan) in Contender::ALL.into_iter().zip(&mut makespans) {
        let of = makespan_of(contender, &world, &believed, seed);
        *makespan = of.map_err(|why| StudyError {
            contender: contender.name(),
            workflow: workflow.name().to_owned(),
            nodes,
            noise,
            seed,
            why,
        })?;
    }
    Ok(Cell { workflow: workflow.name().to_owned(), nodes, noise, seed, makespans })
}

fn makespan_of(contender: Contender, world: &World<'_>, believed: &[Millis], seed: u64) -> Result<Millis, String> {
    let World { workflow, cluster, .. } = *world;
    let tasks = workflow.tasks().len();
    let heft = |order| heft_fixed(workflow, cluster, believed, order);
    let ran = match contender {
        Contender::Random => world.play(&mut Spread::new(Turn::Random(Dice::of(&[0x5a, seed])), tasks)),
        Contender::RoundRobin => world.play(&mut Spread::new(Turn::RoundRobin(0), tasks)),
        Contender::Heft => world.play(&mut heft(Order::Strict)),
        Contender::HeftConserving => world.play(&mut heft(Order::Conserving)),
        Contender::Plan => {
            let mut fixed = planned_once(workflow, cluster, believed).map_err(|error| error.to_string())?;
            world.play(&mut fixed)
        }
        Contender::Ours => world.play(&mut Planner::new(workflow, believed, DispatchLimits::default())),
        Contender::OursSettled => {
            let world = World { transfers: Transfers::WhenSettled, ..*world };
            world.play(&mut Planner::new(workflow, believed, DispatchLimits::default()))
        }
        Contender::Bound => return Ok(lower_bound(workflow, cluster)),
    };
    let ran = ran.map_err(|fault: Fault| fault.to_string())?;
    check(world, &ran)?;
    Ok(ran.makespan)
}

/// The geometric mean of a contender's makespan over that of HEFT, over the cells that are asked for; nothing of none.
#[must_use]
pub fn mean_ratio<'a>(cells: impl IntoIterator<Item = &'a Cell>, of: Contender) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for cell in cells {
        sum += cell.ratio(of).ln();
        count += 1;
    }
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

#[cfg(test)]
mod tests {
    use super::super::task::tests::task;
    use super::*;

    #[test]
    fn a_study_is_in_order_and_the_same_again_and_nobody_is_below_the_bound() {
        let tasks = |count: usize| (0..count).map(|id| task(id, 100 * (id as u64 % 7 + 1), &[])).collect();
        let workflows =
            [("a", 12), ("b", 5)].map(|(name, count)| Workflow::new(name, tasks(count)).expect("it is one"));
        let settings = Settings { nodes: vec![2, 4], seeds: 2, noises: vec![Noise::True, Noise::Task(100)] };
        let told = AtomicUsize::new(0);
        let cells = study(&workflows, &settings, |done, of| {
            assert!(done <= of && of == 16);
            told.fetch_add(1, Ordering::Relaxed);
        });
        let cells = cells.expect("it goes to the end");
        let again = study(&workflows, &settings, |_, _| ()).expect("it goes to the end");
        assert_eq!((&cells, told.into_inner()), (&again, 16));
        let order: Vec<_> =
            cells.iter().map(|cell| (cell.workflow.as_str(), cell.nodes, cell.noise, cell.seed)).collect();
        assert!(order.is_sorted());
        assert!(
            cells.iter().all(|cell| cell.makespans.iter().all(|makespan| *makespan >= cell.makespan(Contender::Bound)))
        );
        assert_eq!(mean_ratio(&cells, Contender::Heft), Some(1.0));
        assert_eq!(mean_ratio(&[], Contender::Heft), None);
        assert!(mean_ratio(&cells, Contender::Bound) < Some(1.0) && mean_ratio(&cells, Contender::Random) > Some(1.0));
    }

    #[test]
    fn means_are_geometric() {
        let cell = |own, heft| Cell {
            workflow: "w".to_owned(),
            nodes: 2,
            noise: Noise::True,
            seed: 1,
            makespans: Contender::ALL.map(|of| Millis(if of == Contender::Random { own } else { heft })),
        };
        let mean = mean_ratio(&[cell(200, 100), cell(50, 100)], Contender::Random);
        assert!(mean.is_some_and(|mean| (mean - 1.0).abs() < 1e-9));
    }
}

//! The nodes of a simulated cluster, and what is done to them.
//!
//! Each run of a node is a process with ports of its own onto one store, one network, one membership service and one world; all
//! else is what a real node has: `Node`, `Cluster`, relay, heartbeats, leader, fence. A run that ends by itself, because it lost
//! its lease or could not start, is started again a little later, as by whoever looks after a real process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nexa_cluster::local::{Faults, LocalNetwork};
use nexa_cluster::{Cluster, ClusterConfig, ClusterPorts, Heart, Relay};
use nexa_member::leader::Limits;
use nexa_ports::clock::Clock;
use nexa_ports::dice::SeededDice;
use nexa_ports::formats::{Formats, Writing};
use nexa_ports::membership::local::LocalCluster;
use nexa_ports::membership::{Membership, NodeCard};
use nexa_ports::store::{Rows, Store};
use nexa_ports::view::MemoryViews;
use nexa_runtime::fence::{Always, Fence, Leased};
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_types::{Millis, NodeId, Timestamp};
use tokio::task::JoinHandle;

use super::Bug;
use super::failpoint::{Armed, Reached};
use super::people::People;
use super::plan::{Fault, Planned, Whom};
use super::process::{AtStart, BEGIN, Door, Process, ProcessClock, ProcessPeers, VirtualClock, lock};
use super::store::{ProcessStore, Server, Weather};
use super::trace::Trace;
use super::wall::{Wall, WallClock};
use super::witness::{Runs, Witness};
use super::world::{Outside, World};

/// How long a process that has ended by itself is away.
const RESTART_AFTER: Millis = Millis(500);
/// After a pause a process hears of its lease this much later at most.
const HEARS_WITHIN: u64 = 100;
/// Fuel between two looks at other agents: not measured, so that it is the same each time.
const SLICE_FUEL: u64 = 20_000;

/// What all nodes share.
#[derive(Clone)]
pub(super) struct Land {
    pub(super) clock: Arc<VirtualClock>,
    pub(super) trace: Arc<Trace>,
    pub(super) server: Arc<Server>,
    pub(super) world: Arc<World>,
    pub(super) service: LocalCluster,
    pub(super) network: LocalNetwork,
    pub(super) seed: u64,
    /// Whether clocks of nodes are off.
    pub(super) are_clocks_off: bool,
    pub(super) bug: Option<Bug>,
    pub(super) people: People,
    pub(super) runs: Arc<Runs>,
    pub(super) reached: Arc<Reached>,
}

impl Land {
    fn wall(&self, node: &NodeId) -> Wall {
        if self.are_clocks_off { Wall::of(self.seed, node) } else { Wall::default() }
    }
}

struct Running {
    cluster: Cluster,
    node: Node,
}

#[derive(Default)]
struct Slot {
    running: Mutex<Option<Running>>,
    over: AtomicBool,
}

/// A run of a node, from its start on.
struct Run {
    process: Arc<Process>,
    door: Arc<Door>,
    peers: Arc<ProcessPeers>,
    slot: Arc<Slot>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Spot {
    runs: u64,
    run: Option<Run>,
    starts_at: Option<Timestamp>,
}

/// A fault that has begun: what it is for, and which run of it.
struct Active {
    planned: Planned,
    node: usize,
    run: u64,
}

/// The nodes.
pub(super) struct Town {
    land: Land,
    names: Vec<NodeId>,
    spots: Vec<Spot>,
    plan: std::vec::IntoIter<Planned>,
    next: Option<Planned>,
    active: Vec<Active>,
    /// Faults that began while an effect was started and had not ended.
    in_flight: u64,
}

impl Town {
    /// So many nodes, which start now.
    pub(super) fn new(land: Land, nodes: usize, plan: Vec<Planned>) -> Self {
        let name = |number: usize| NodeId::new(&format!("n{number}")).expect("a letter and a number are a name");
        let mut plan = plan.into_iter();
        let mut town = Self {
            names: (1..=nodes).map(name).collect(),
            spots: (0..nodes).map(|_| Spot::default()).collect(),
            next: plan.next(),
            plan,
            active: Vec::new(),
            in_flight: 0,
            land,
        };
        (0..nodes).for_each(|node| town.start(node));
        town
    }

    fn start(&mut self, node: usize) {
        let (name, spot) = (self.names[node].clone(), &mut self.spots[node]);
        spot.runs += 1;
        spot.starts_at = None;
        let (process, relay, slot) = (Process::new(), Relay::new(), Arc::new(Slot::default()));
        let door = Door::new(process.clone(), relay.clone());
        let peers = ProcessPeers::new(process.clone(), self.land.network.enter(name.clone(), &door));
        let parts = Parts { name: name.clone(), run: spot.runs, process: process.clone(), relay, peers: peers.clone() };
        self.land.trace.note("start", format_args!("{name}, run {}, clock {}", spot.runs, self.land.wall(&name)));
        let task = tokio::spawn(parts.live(self.land.clone(), slot.clone()));
        spot.run = Some(Run { process, door, peers, slot, task });
    }

    /// As if its process was killed.
    fn kill(&mut self, node: usize) {
        let Some(run) = self.spots[node].run.take() else { return };
        run.process.die();
        // The keeper of leases looks at who holds a value, and what is dead may be held for a while.
        self.land.service.cut_off(&self.names[node]);
        run.peers.close();
        lock(&self.land.people.clusters).remove(&self.names[node]);
        run.task.abort();
        drop(lock(&run.slot.running).take());
    }

    /// Lets time pass: faults begin and end, and what ended by itself is started again.
    pub(super) fn tick(&mut self) {
        let now = self.land.clock.now();
        let since = Millis(now.since(BEGIN).0);
        while let Some(planned) = self.next.take_if(|planned| planned.from <= since) {
            self.begin(planned);
            self.next = self.plan.next();
        }
        let (over, active) = std::mem::take(&mut self.active).into_iter().partition(|it| it.planned.until <= since);
        self.active = active;
        let over: Vec<Active> = over;
        over.into_iter().for_each(|active| self.end(&active));
        for node in 0..self.spots.len() {
            let is_over = |run: &Run| run.slot.over.load(Ordering::Relaxed) || run.process.is_dead();
            if self.spots[node].run.as_ref().is_some_and(is_over) {
                self.land.trace.note("over", format_args!("{}, run {}", self.names[node], self.spots[node].runs));
                self.kill(node);
                self.spots[node].starts_at = Some(now.after(RESTART_AFTER));
            }
            if self.spots[node].starts_at.is_some_and(|at| at <= now) {
                self.start(node);
            }
        }
    }

    /// Whether nothing is wrong any more, nor will be.
    pub(super) fn is_healed(&self) -> bool {
        self.next.is_none() && self.active.is_empty() && lock(&self.land.people.busy).is_empty()
    }

    /// What people still want, of which node.
    pub(super) fn wanted(&self) -> Vec<(NodeId, &'static str)> {
        lock(&self.land.people.busy).iter().map(|(name, wanted)| (name.clone(), *wanted)).collect()
    }

    fn leader(&self) -> Option<usize> {
        let leads = |spot: &Spot| {
            let run = spot.run.as_ref()?;
            lock(&run.slot.running).as_ref().map(|running| running.cluster.leads())
        };
        self.spots.iter().position(|spot| leads(spot) == Some(true))
    }

    fn node_of(&self, whom: Whom) -> usize {
        match whom {
            Whom::Leader => self.leader().unwrap_or_default(),
            Whom::Node(node) => node,
        }
    }

    fn cut(&self, node: usize, is_cut: bool) {
        let name = &self.names[node];
        for other in self.names.iter().filter(|other| *other != name) {
            self.land.network.cut(name, other, is_cut);
            self.land.network.cut(other, name, is_cut);
        }
    }

    fn begin(&mut self, planned: Planned) {
        let fault = planned.fault;
        let (network, service) = (self.land.network.clone(), self.land.service.clone());
        let mut node = 0;
        match fault {
            Fault::Kill(whom) => {
                node = self.node_of(whom);
                self.kill(node);
                self.spots[node].starts_at = None;
            }
            Fault::Pause(whom) => {
                node = self.node_of(whom);
                if let Some(run) = &self.spots[node].run {
                    run.process.stand(true);
                    service.cut_off(&self.names[node]);
                }
            }
            Fault::KillAtStart(whom) => {
                node = self.node_of(whom);
                if let Some(run) = &self.spots[node].run {
                    run.process.keep_for_start(Some(AtStart::Die));
                }
            }
            Fault::PauseAtStart(whom) => {
                node = self.node_of(whom);
                if let Some(run) = &self.spots[node].run {
                    run.process.keep_for_start(Some(AtStart::Stand));
                    service.cut_off(&self.names[node]);
                }
            }
            Fault::DieAt(whom, point, left) => {
                node = self.node_of(whom);
                if let Some(run) = &self.spots[node].run {
                    run.process.arm(Some(Armed { point, left, reached: self.land.reached.clone() }));
                }
            }
            Fault::OneWay(whom, to) => {
                node = self.node_of(whom);
                network.cut(&self.names[node], &self.names[to], true);
            }
            Fault::Alone(whom) => {
                node = self.node_of(whom);
                self.cut(node, true);
            }
            Fault::Unlisted(whom) => {
                node = self.node_of(whom);
                service.cut_off(&self.names[node]);
            }
            Fault::Lost(whom) => {
                node = self.node_of(whom);
                self.cut(node, true);
                service.cut_off(&self.names[node]);
            }
            Fault::NoMembership => service.set_away(true),
            Fault::Depose => drop(service.depose()),
            Fault::Cordon(of) | Fault::Drain(of) => {
                node = of;
                let until = BEGIN.after(planned.until);
                self.land.people.shut(self.names[of].clone(), matches!(fault, Fault::Drain(_)), until);
            }
            Fault::Leave(of) => {
                node = of;
                self.leave(of);
            }
            Fault::Links { lost_per_mille, delay_max } => network.set_faults(Faults { lost_per_mille, delay_max }),
            Fault::Store(weather) => self.land.server.set_weather(weather),
        }
        self.in_flight += u64::from(self.land.server.has_open_effects());
        let name = &self.names[node];
        self.land.trace.note("fault", format_args!("{fault} ({name}) for {}", planned.until.0 - planned.from.0));
        self.active.push(Active { planned, node, run: self.spots[node].runs });
    }

    fn end(&mut self, active: &Active) {
        let Active { planned: Planned { fault, .. }, node, run } = active;
        let (network, service) = (self.land.network.clone(), self.land.service.clone());
        let name = self.names[*node].clone();
        self.land.trace.note("healed", format_args!("{fault} ({name})"));
        // What was done to a run that is gone since is not undone: the name may be that of a corpse.
        let same = self.spots[*node].run.as_ref().filter(|_| self.spots[*node].runs == *run);
        match *fault {
            Fault::Kill(_) => {
                if self.spots[*node].run.is_none() && self.spots[*node].starts_at.is_none() {
                    self.start(*node);
                }
            }
            Fault::KillAtStart(_) => {
                if let Some(run) = same {
                    run.process.keep_for_start(None);
                }
            }
            Fault::DieAt(..) => same.iter().for_each(|run| run.process.arm(None)),
            Fault::Pause(_) | Fault::PauseAtStart(_) => {
                if let Some(run) = same {
                    run.process.keep_for_start(None);
                    run.process.stand(false);
                    run.door.open();
                    let (land, process) = (self.land.clone(), run.process.clone());
                    let late = Millis(crate::dice::Dice::of(&[self.land.seed, land.clock.now().0]).below(HEARS_WITHIN));
                    tokio::spawn(async move {
                        land.clock.wait_until(land.clock.now().after(late)).await;
                        if process.runs() {
                            land.service.heal(&name);
                        }
                    });
                }
            }
            Fault::OneWay(_, to) => network.cut(&name, &self.names[to], false),
            Fault::Alone(_) => self.cut(*node, false),
            Fault::Unlisted(_) | Fault::Lost(_) => {
                if same.is_some_and(|run| run.process.runs()) {
                    service.heal(&name);
                }
                if matches!(fault, Fault::Lost(_)) {
                    self.cut(*node, false);
                }
            }
            Fault::NoMembership => service.set_away(false),
            Fault::Depose | Fault::Cordon(_) | Fault::Drain(_) | Fault::Leave(_) => {}
            Fault::Links { .. } => network.set_faults(Faults::default()),
            Fault::Store(_) => self.land.server.set_weather(Weather::default()),
        }
    }

    /// A node leaves in good order, as one does that is told to stop; whoever looks after it starts it again.
    fn leave(&self, node: usize) {
        let Some(run) = &self.spots[node].run else { return };
        let Some((cluster, of)) = lock(&run.slot.running).as_ref().map(|it| (it.cluster.clone(), it.node.clone()))
        else {
            return;
        };
        let slot = run.slot.clone();
        self.land.people.leave(self.names[node].clone(), cluster, of, move || slot.over.store(true, Ordering::Relaxed));
    }

    /// Names of the nodes that are no members now.
    pub(super) fn away(&self) -> Vec<&NodeId> {
        let is_away = |spot: &Spot| {
            let run = spot.run.as_ref().and_then(|run| lock(&run.slot.running).as_ref().map(|it| it.cluster.clone()));
            run.is_none_or(|cluster| cluster.fenced())
        };
        self.names.iter().zip(&self.spots).filter(|(_, spot)| is_away(spot)).map(|(name, _)| name).collect()
    }

    /// A door of the cluster says that somebody was born without an owner.
    pub(super) fn hint(&self) {
        let running = |spot: &Spot| {
            let run = spot.run.as_ref().filter(|run| run.process.runs())?;
            lock(&run.slot.running).as_ref().map(|running| running.cluster.neighbours())
        };
        if let Some(neighbours) = self.spots.iter().find_map(running) {
            neighbours.unplaced(&[]);
        }
    }

    /// Tells an agent to move, as a person would, by one of the nodes: which and where the roll says.
    pub(super) async fn migrate(&self, roll: u64) {
        let rows = self.land.server.memory.rows(Rows::Live, None, usize::MAX).await.unwrap_or_default();
        let of = |number: u64, count: usize| usize::try_from(number % count.max(1) as u64).unwrap_or_default();
        let (Some(row), asked) = (rows.get(of(roll >> 16, rows.len())), &self.spots[of(roll >> 8, self.spots.len())])
        else {
            return;
        };
        let Some(run) = asked.run.as_ref().filter(|run| run.process.runs()) else { return };
        let Some(cluster) = lock(&run.slot.running).as_ref().map(|running| running.cluster.clone()) else { return };
        let (agent, to) = (row.agent, self.names[of(roll, self.names.len())].clone());
        let trace = self.land.trace.clone();
        tokio::spawn(async move {
            trace.note("move", format_args!("{agent} to {to}"));
            let moved = cluster.migrate(agent, Some(to.clone())).await;
            trace.note(
                "moved",
                format_args!("{agent} to {to}: {}", moved.map_or_else(|e| e.to_string(), |()| "yes".into())),
            );
        });
    }

    /// Names of the nodes that are there.
    pub(super) fn present(&self) -> Vec<NodeId> {
        let is_there = |spot: &Spot| spot.run.as_ref().is_some_and(|run| lock(&run.slot.running).is_some());
        self.names.iter().zip(&self.spots).filter(|(_, spot)| is_there(spot)).map(|(name, _)| name.clone()).collect()
    }

    /// How many faults began while an effect was started and had not ended.
    pub(super) fn hit_in_flight(&self) -> u64 {
        self.in_flight
    }

    /// How often nodes were started.
    pub(super) fn runs(&self) -> u64 {
        self.spots.iter().map(|spot| spot.runs).sum()
    }
}

/// What a run of a node is made of.
struct Parts {
    name: NodeId,
    run: u64,
    process: Arc<Process>,
    relay: Arc<Relay>,
    peers: Arc<ProcessPeers>,
}

impl Parts {
    async fn live(self, land: Land, slot: Arc<Slot>) {
        let (name, run) = (self.name.clone(), self.run);
        match self.start(&land).await {
            Ok(running) => {
                land.trace.note("runs", format_args!("{name}, run {run}"));
                let cluster = running.cluster.clone();
                lock(&land.people.clusters).insert(name.clone(), cluster.clone());
                *lock(&slot.running) = Some(running);
                cluster.over().await;
            }
            Err(error) => land.trace.note("failed", format_args!("{name}, run {run}: {error}")),
        }
        slot.over.store(true, Ordering::Relaxed);
    }

    async fn start(self, land: &Land) -> Result<Running, Box<dyn std::error::Error + Send + Sync>> {
        let Self { name, run, process, relay, peers } = self;
        let card = NodeCard {
            id: name.clone(),
            door: String::new(),
            link: String::new(),
            labels: BTreeMap::new(),
            cpu_milli: 2_000,
            memory_bytes: 8 << 30,
            agents_max: 10_000,
            build: "sim".into(),
            formats: (Formats::THIS_BUILD.oldest, Formats::THIS_BUILD.newest),
        };
        let membership: Arc<dyn Membership> = Arc::new(Witness {
            membership: land.service.member(),
            runs: land.runs.clone(),
            process: process.clone(),
            trace: land.trace.clone(),
        });
        membership.join(card.clone()).await?;
        process.goes_on().await;
        let store = ProcessStore::new(&land.server, &process);
        let outside = Arc::new(Outside {
            world: land.world.clone(),
            process: process.clone(),
            node: name.clone(),
            membership: membership.clone(),
            calls: Default::default(),
        });
        let number = crate::dice::Dice::of(&[land.seed, run, name.as_str().bytes().map(u64::from).sum()]).next();
        let dice = Arc::new(SeededDice::new(number));
        let clock = ProcessClock { clock: land.clock.clone(), process };
        let clock: Arc<dyn Clock> = Arc::new(WallClock { clock, wall: land.wall(&name) });
        let fence: Arc<dyn Fence> = match land.bug {
            Some(Bug::LeaseFence) => Arc::new(Always),
            _ => Arc::new(Leased(membership.clone())),
        };
        let ports = Ports {
            store: store.clone(),
            memories: Arc::new(MemoryViews::new(store.clone() as Arc<dyn Store>)),
            model: outside.clone(),
            tools: outside,
            clock: clock.clone(),
            dice: dice.clone(),
            neighbours: relay.clone(),
            fence,
        };
        let config =
            NodeConfig { others: true, compute_threads: 0, slice_fuel: Some(SLICE_FUEL), ..NodeConfig::new(name) };
        let node = Node::start(config, ports).await?;
        let config = ClusterConfig { card, may_lead: true, limits: Limits::default(), heart: Heart::Task };
        let ports = ClusterPorts {
            host: Arc::new(node.clone()),
            relay,
            store: store.clone(),
            leadership: store,
            membership,
            peers,
            clock,
            dice,
            writing: Writing::oldest(Formats::THIS_BUILD),
        };
        let cluster = Cluster::start(config, ports).await?;
        Ok(Running { cluster, node })
    }
}

//! Three nodes in one process: one store, one membership, a network without sockets, the real everything else.
#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

#[path = "../../nexa-runtime/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nexa_cluster::formats::{FormatsError, agree};
use nexa_cluster::local::{Faults, LocalNetwork, LocalPeers};
use nexa_cluster::peers::{Class, Peers, Service};
use nexa_cluster::{Cluster, ClusterConfig, ClusterError, ClusterPorts, Heart, Relay};
use nexa_member::floor::WAIT;
use nexa_member::leader::{Limits, Mark};
use nexa_member::say::{self, Carrier, Moved, Refused};
use nexa_ports::clock::Clock;
use nexa_ports::dice::SystemDice;
use nexa_ports::formats::{Floor, Formats, Writing};
use nexa_ports::membership::NodeCard;
use nexa_ports::membership::local::LocalCluster;
use nexa_ports::store::{AgentRow, Place, Rows, StoreError};
use nexa_runtime::fence::Leased;
use nexa_runtime::{Live, LiveKind, LivePiece, Node, NodeConfig, Ports, programs};
use nexa_types::*;
use support::model::FakeModel;
use support::{Desk, program, soon};

/// A node and all that is its own.
struct Town {
    desk: Desk,
    service: LocalCluster,
    network: LocalNetwork,
    nodes: BTreeMap<String, (Cluster, Node, Arc<LocalPeers>, Writing)>,
    /// What the build of the next node reads.
    reads: Formats,
}

/// A clock that goes some times as fast as others, so that a wait of many seconds takes few.
struct Quick(Instant);

impl Quick {
    const TIMES: u32 = 5;
}

impl Clock for Quick {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + u64::try_from((self.0.elapsed() * Self::TIMES).as_millis()).unwrap())
    }

    fn wait_until(&self, due: Timestamp) -> BoxFuture<'static, ()> {
        let Millis(left) = due.since(self.now());
        Box::pin(tokio::time::sleep(Duration::from_millis(left) / Self::TIMES))
    }
}

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// Looks again and again, a few times a second.
async fn until<F: Future<Output = bool>>(what: &str, mut is_true: impl FnMut() -> F) -> Duration {
    let begin = Instant::now();
    soon(what, async {
        while !is_true().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    begin.elapsed()
}

impl Town {
    async fn new(model: Arc<FakeModel>, names: &[&str]) -> Self {
        let mut town = Self::empty(Desk::new(model));
        for name in names {
            town.start(name).await;
        }
        town.settle(names.len()).await;
        town
    }

    fn empty(desk: Desk) -> Self {
        let service = LocalCluster::new(desk.clock.clone());
        let network = LocalNetwork::new(desk.clock.clone(), 7);
        Self { desk, service, network, nodes: BTreeMap::new(), reads: Formats::THIS_BUILD }
    }

    /// Somebody leads, and has heard all.
    async fn settle(&self, count: usize) {
        until("a leader that has heard all", async || {
            let leads = self.nodes.values().filter(|(cluster, ..)| cluster.leads()).count() == 1;
            let (cluster, ..) = self.nodes.values().next().unwrap();
            let nodes = cluster.nodes().await.unwrap();
            leads && nodes.len() == count && nodes.iter().all(|node| node.load.is_some())
        })
        .await;
    }

    fn card(&self, name: &str) -> NodeCard {
        NodeCard {
            id: id(name),
            door: String::new(),
            link: String::new(),
            labels: BTreeMap::new(),
            cpu_milli: 2_000,
            memory_bytes: 8 << 30,
            agents_max: 10_000,
            build: String::new(),
            formats: (self.reads.oldest, self.reads.newest),
        }
    }

    async fn start(&mut self, name: &str) {
        let card = self.card(name);
        let membership = self.service.member();
        membership.join(card.clone()).await.unwrap();
        let relay = Relay::new();
        let peers = Arc::new(self.network.enter(id(name), &relay));
        let ports = Ports {
            neighbours: relay.clone(),
            fence: Arc::new(Leased(membership.clone())),
            ..self.desk.ports(self.desk.store.clone())
        };
        let config = NodeConfig { others: true, ..support::config(name) };
        let node = Node::start(config, ports).await.unwrap();
        let config = ClusterConfig { card, may_lead: true, limits: Limits::default(), heart: Heart::Thread };
        let writing = Writing::oldest(self.reads);
        let ports = ClusterPorts {
            host: Arc::new(node.clone()),
            relay,
            store: self.desk.store.clone(),
            leadership: self.desk.memory.clone(),
            membership,
            peers: peers.clone(),
            clock: self.desk.clock.clone(),
            dice: Arc::new(SystemDice),
            writing: writing.clone(),
        };
        let cluster = Cluster::start(config, ports).await.unwrap();
        self.nodes.insert(name.to_owned(), (cluster, node, peers, writing));
    }

    fn cluster(&self, name: &str) -> &Cluster {
        &self.nodes[name].0
    }

    fn leader(&self) -> Option<String> {
        self.nodes.iter().find(|(_, (cluster, ..))| cluster.leads()).map(|(name, _)| name.clone())
    }

    /// As if its process was killed.
    fn kill(&mut self, name: &str) {
        drop(self.nodes.remove(name).unwrap());
    }

    /// Workloads whose roots are nobody's, as a door of a cluster makes them.
    async fn submit(&self, numbers: std::ops::Range<u8>) -> Vec<WorkloadId> {
        let module = program::one_call();
        let hash =
            programs::put(&*self.desk.store, &TenantId::local(), &module, "test", self.desk.stamp()).await.unwrap();
        let mut workloads = Vec::new();
        for number in numbers {
            let entry = module.entries[0].function;
            workloads.push(self.desk.submit_program("", number, hash, entry, Vec::new()).await);
        }
        self.nodes.values().next().unwrap().0.neighbours().unplaced(&[]);
        workloads
    }

    async fn rows(&self, workloads: &[WorkloadId]) -> Vec<AgentRow> {
        let agents = workloads.iter().map(|workload| AgentId::root(*workload)).collect();
        self.desk.store.rows(Rows::Agents(agents), None, usize::MAX).await.unwrap()
    }

    async fn owners(&self, workloads: &[WorkloadId]) -> BTreeMap<String, usize> {
        let mut owners = BTreeMap::new();
        for row in self.rows(workloads).await {
            *owners.entry(row.node.map_or("nobody".to_owned(), |node| node.to_string())).or_default() += 1;
        }
        owners
    }

    async fn all_wait_for_the_model(&self, workloads: &[WorkloadId]) -> Duration {
        until("all to ask the model", async || {
            let rows = self.rows(workloads).await;
            rows.iter().all(|row| row.state == AgentState::Waiting(Waiting::Model))
        })
        .await
    }

    async fn all_end_well(&self, workloads: &[WorkloadId]) {
        for workload in workloads {
            assert_eq!(self.desk.text(*workload).await, "<hello>");
        }
        self.desk.asks_are_in_order();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_spread_over_the_nodes_and_end() {
    let town = Town::new(FakeModel::echo(1_000), &["a", "b", "c"]).await;
    let begin = Instant::now();
    let workloads = town.submit(0..240).await;
    town.all_end_well(&workloads).await;
    println!("240 agents submitted without owner, placed and ended: {:?}", begin.elapsed());
    let owners = town.owners(&workloads).await;
    assert_eq!(owners.len(), 3, "{owners:?}");
    assert!(owners.values().all(|count| (40..=120).contains(count)), "{owners:?}");
    assert_eq!(town.desk.model.asked_count(), 240);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_say_is_heard_on_every_node_where_somebody_listens_and_on_no_other() {
    let mut town = Town::new(FakeModel::echo(1_000), &["a", "b", "c"]).await;
    let workload = WorkloadId::from_bytes([9; 16]);
    let made = std::sync::atomic::AtomicU64::new(0);
    let says = |town: &Town, name: &str, text: &str| {
        town.nodes[name].1.live().publish(workload, || LivePiece {
            agent: AgentId::root(workload),
            name: "root".into(),
            seq: Seq(1),
            attempt: 1,
            offset: made.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            kind: LiveKind::Text,
            text: text.into(),
        });
    };
    let text = |live: Option<Live>| match live {
        Some(Live::Piece(piece)) => piece.text.to_string(),
        other => format!("{other:?}"),
    };
    let mut at_a = town.nodes["a"].1.live().subscribe(workload);
    let mut at_b = town.nodes["b"].1.live().subscribe(workload);
    // Its word gets to the others soon; what was said before is lost.
    for speaker in ["b", "c"] {
        soon("a to hear it", async {
            loop {
                says(&town, speaker, speaker);
                let heard = tokio::time::timeout(Duration::from_millis(50), at_a.next()).await;
                if heard.is_ok_and(|heard| text(heard) == speaker) {
                    break;
                }
            }
        })
        .await;
    }
    // In order from each speaker, and once.
    while tokio::time::timeout(Duration::from_millis(50), at_a.next()).await.is_ok() {}
    for number in 0..100 {
        says(&town, "c", &number.to_string());
    }
    for number in 0..100 {
        assert_eq!(text(soon("a piece", at_a.next()).await), number.to_string());
    }
    // Nobody listens any more: nothing is made, nor sent.
    drop(at_a);
    drop(at_b);
    let quiet = |town: &Town| {
        let before = made.load(std::sync::atomic::Ordering::Relaxed);
        says(town, "c", "?");
        before == made.load(std::sync::atomic::Ordering::Relaxed)
    };
    until("c to know", async || quiet(&town)).await;
    // A listener whose node is killed is forgotten with it.
    at_b = town.nodes["b"].1.live().subscribe(workload);
    until("c to know", async || !quiet(&town)).await;
    town.kill("b");
    until("c to forget", async || quiet(&town)).await;
    drop(at_b);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_of_a_killed_node_go_on_elsewhere() {
    let mut town = Town::new(FakeModel::echo(1_000), &["a", "b", "c"]).await;
    town.desk.model.hold(true);
    let workloads = town.submit(0..240).await;
    town.all_wait_for_the_model(&workloads).await;
    // What a start was recorded of may not have been sent yet, and would be missing below.
    until("the model to be asked", async || town.desk.model.asked_count() == 240).await;
    let leader = town.leader().unwrap();
    let victim = ["a", "b", "c"].into_iter().find(|name| **name != leader).unwrap();
    let lost = town.owners(&workloads).await[victim];
    let begin = Instant::now();
    town.kill(victim);
    until("its agents to be elsewhere", async || !town.owners(&workloads).await.contains_key(victim)).await;
    let placed = begin.elapsed();
    until("its agents to ask again", async || town.desk.model.asked_count() == 240 + lost).await;
    println!("node with {lost} agents killed: owned elsewhere after {placed:?}, at work after {:?}", begin.elapsed());
    town.desk.model.hold(false);
    town.all_end_well(&workloads).await;

    // It comes back, and takes its part.
    town.start(victim).await;
    town.settle(3).await;
    let workloads = town.submit(240..255).await;
    town.all_end_well(&workloads).await;
    let owners = town.owners(&workloads).await;
    assert!(owners.contains_key(victim), "{owners:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_another_leads_and_places() {
    let mut town = Town::new(FakeModel::echo(1_000), &["a", "b", "c"]).await;
    town.desk.model.hold(true);
    let workloads = town.submit(0..120).await;
    town.all_wait_for_the_model(&workloads).await;
    let leader = town.leader().unwrap();
    let begin = Instant::now();
    town.kill(&leader);
    let more = town.submit(120..240).await;
    until("another leader", async || town.leader().is_some()).await;
    let elected = begin.elapsed();
    town.all_wait_for_the_model(&more).await;
    let placed = begin.elapsed();
    until("agents of the old one to be elsewhere", async || !town.owners(&workloads).await.contains_key(&leader)).await;
    println!(
        "leader killed: another works after {elected:?}, new agents at work after {placed:?}, its own elsewhere after {:?}",
        begin.elapsed()
    );
    town.desk.model.hold(false);
    town.all_end_well(&workloads).await;
    town.all_end_well(&more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stepped_down_unheard_is_followed_by_one_that_leads() {
    let clock = Arc::new(Quick(Instant::now()));
    let mut town = Town::empty(Desk { clock: clock.clone(), ..Desk::new(FakeModel::echo(1)) });
    for name in ["a", "b"] {
        town.start(name).await;
    }
    town.settle(2).await;
    // The store is not told of the next leader, which gives up while it cannot say so, and stands again before it can.
    let refuses = || town.desk.memory.fail_next(StoreError::Unavailable { detail: "a test".into() });
    refuses();
    town.service.depose().unwrap();
    until("a leader that cannot work", async || town.leader().is_none()).await;
    town.service.set_away(true);
    let long_enough = clock.now().after(Limits::default().stuck_after).after(Millis(3_000));
    until("it to have given up", async || {
        refuses();
        clock.now() >= long_enough
    })
    .await;
    assert_eq!(town.leader(), None);
    town.service.set_away(false);
    until("one that leads", async || town.leader().is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_suspected_gets_nothing_new_and_is_the_lonely_one() {
    let town = Town::new(FakeModel::echo(1_000), &["a", "b", "c"]).await;
    let leader = town.leader().unwrap();
    let silent = ["a", "b", "c"].into_iter().find(|name| **name != leader).unwrap();
    town.network.isolate(&id(silent), true);
    let suspected = until("it to be suspected", async || {
        let nodes = town.cluster(&leader).nodes().await.unwrap();
        nodes.iter().any(|node| node.member.card.id == id(silent) && node.is_suspected)
    })
    .await;
    println!("a silent node is suspected after {suspected:?}");
    let workloads = town.submit(0..60).await;
    town.all_end_well(&workloads).await;
    assert!(!town.owners(&workloads).await.contains_key(silent));
    // Its lease stands: silence alone is not death. Without the lease it is alone, and says so.
    assert!(!town.cluster(silent).fenced());
    town.service.cut_off(&id(silent));
    until("it to be fenced", async || town.cluster(silent).fenced()).await;
    assert_eq!(town.cluster(silent).neighbours().room(1), 0, "nothing is born there");
    until("it to be gone", async || town.cluster(&leader).nodes().await.unwrap().len() == 2).await;
    town.service.heal(&id(silent));
    soon("it to learn that its run is over", town.cluster(silent).over()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_is_emptied_while_its_calls_go_on_and_a_cordoned_one_gets_nothing() {
    let town = Town::new(FakeModel::echo(1_000), &["a", "b", "c"]).await;
    let leader = town.leader().unwrap();
    let other = ["a", "b", "c"].into_iter().find(|name| **name != leader).unwrap();
    town.desk.model.hold(true);
    let workloads = town.submit(0..150).await;
    town.all_wait_for_the_model(&workloads).await;
    let count = town.owners(&workloads).await[other];
    // Asked of a node that does not lead.
    let begin = Instant::now();
    town.cluster(other).drain(id(other)).await.unwrap();
    until("it to be empty", async || !town.owners(&workloads).await.contains_key(other)).await;
    println!("node with {count} agents, each with a model call in flight, drained in {:?}", begin.elapsed());
    town.desk.model.hold(false);
    town.all_end_well(&workloads).await;
    assert_eq!(town.desk.model.asked_count(), 150, "no call was made again");

    let workloads = town.submit(150..200).await;
    town.all_end_well(&workloads).await;
    assert!(!town.owners(&workloads).await.contains_key(other), "it drains");
    town.cluster(&leader).cordon(id(other), false).await.unwrap();
    town.cluster(other).cordon(id(&leader), true).await.unwrap();
    let marks = town.cluster(other).nodes().await.unwrap();
    let marks = marks.into_iter().map(|node| (node.member.card.id.to_string(), node.mark));
    let marks: Vec<String> = marks.filter(|(_, mark)| *mark == Mark::Cordoned).map(|(name, _)| name).collect();
    assert_eq!(marks.join(" "), leader);
    let workloads = town.submit(200..250).await;
    town.all_end_well(&workloads).await;
    let owners = town.owners(&workloads).await;
    assert!(owners.contains_key(other) && !owners.contains_key(&leader), "{owners:?}");
    let refused = town.cluster(other).cordon(id("nobody"), true).await;
    assert!(matches!(refused, Err(ClusterError::Refused(Refused::NoSuchNode))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_migrate_where_they_are_told_and_a_leaving_node_leaves_none_behind() {
    let town = Town::new(FakeModel::echo(1_000), &["a", "b", "c"]).await;
    town.desk.model.hold(true);
    let workloads = town.submit(0..60).await;
    town.all_wait_for_the_model(&workloads).await;
    let agent = AgentId::root(workloads[0]);
    for to in ["a", "b", "c", "c"] {
        let begin = Instant::now();
        town.cluster("b").migrate(agent, Some(id(to))).await.unwrap();
        println!("migrated to {to} in {:?}", begin.elapsed());
        assert_eq!(town.desk.store.row(agent).await.unwrap().unwrap().node, Some(id(to)));
    }
    town.cluster("c").migrate(agent, None).await.unwrap();
    assert_ne!(town.desk.store.row(agent).await.unwrap().unwrap().node, Some(id("c")));

    let leaves = town.leader().unwrap();
    let leaving = town.cluster(&leaves).clone();
    let left = tokio::spawn(async move { leaving.leave(Duration::from_secs(15)).await });
    until("its agents to be elsewhere", async || !town.owners(&workloads).await.contains_key(&leaves)).await;
    let count = async || {
        let stays = town.nodes.iter().find(|(name, _)| **name != leaves).unwrap();
        stays.1.0.nodes().await.unwrap().len()
    };
    assert_eq!(count().await, 3, "its calls are still in flight");
    town.desk.model.hold(false);
    soon("it to leave", left).await.unwrap().unwrap();
    until("it to be gone", async || count().await == 2).await;
    town.all_end_well(&workloads).await;
    assert_eq!(town.desk.model.asked_count(), 60, "no call was made again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_comes_does_not_wait_for_a_carrier_that_its_new_node_knows_to_be_gone() {
    let town = Town::new(FakeModel::echo(2), &["a", "b"]).await;
    town.desk.model.hold(true);
    let workload = town.submit(0..1).await[0];
    town.all_wait_for_the_model(&[workload]).await;
    let row = town.desk.store.row(AgentId::root(workload)).await.unwrap().unwrap();
    let (agent, from, old) = (row.agent, row.epoch, row.node.unwrap());
    let new = if old == id("a") { "b" } else { "a" };
    // A node that comes and goes: it is not in the list, and the list is late enough to have it.
    let gone = town.service.member();
    let run = gone.join(town.card("c")).await.unwrap();
    gone.leave().await.unwrap();
    let epoch = town.desk.store.place(vec![Place { agent, from, node: id(new) }]).await.unwrap().remove(0).unwrap();
    let (key, deadline) = (EffectKey::of(workload, agent, Seq(1)), Timestamp(u64::MAX / 2));
    let carrier = Carrier { node: id("c"), key, attempt: 1, deadline, run: Some(run) };
    let of = town.cluster(new).generation();
    let moved = say::write(&Moved { agent, epoch, carrier: Some(carrier), run: of, trace: None });
    let peers = &town.nodes[old.as_str()].2;
    peers.ask(&id(new), Class::Work, Service::Moving, moved.into(), Duration::from_secs(5)).await.unwrap();
    soon("the call to be made again", town.desk.model.was_asked(2)).await;
    town.desk.model.hold(false);
    town.all_end_well(&[workload]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_network_that_loses_and_delays_everybody_still_ends_also_when_a_node_dies() {
    let mut town = Town::new(FakeModel::echo(1_000), &["a", "b", "c"]).await;
    town.network.set_faults(Faults { lost_per_mille: 150, delay_max: Millis(20) });
    let first = town.submit(0..100).await;
    let victim = town.leader().unwrap();
    town.all_end_well(&first).await;
    let second = town.submit(100..200).await;
    town.kill(&victim);
    town.all_end_well(&second).await;
    let owners = town.owners(&second).await;
    assert!(!owners.contains_key("nobody"), "{owners:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_format_is_written_once_an_operator_asks_and_every_node_reads_it_whoever_leads_by_then() {
    let (old, new) = (Formats { oldest: 1, newest: 1 }, Formats { oldest: 1, newest: 2 });
    let clock = Arc::new(Quick(Instant::now()));
    let mut town = Town::empty(Desk { clock: clock.clone(), ..Desk::new(FakeModel::echo(1)) });
    for (name, reads) in [("a", old), ("b", new), ("c", new)] {
        town.reads = reads;
        town.start(name).await;
    }
    town.settle(3).await;
    let raise = async |town: &Town, at: &str| town.cluster(at).raise_format(2, PrincipalId::local()).await;
    // Whoever is asked, it is the leader's list that counts.
    for at in ["a", "b", "c"] {
        let refused = raise(&town, at).await;
        let Err(ClusterError::Refused(Refused::Unread { node, newest: 1 })) = refused else { panic!("{refused:?}") };
        assert_eq!(node, id("a"));
    }

    // The last old node is gone for long enough, and nobody has said that it should not come back.
    town.kill("a");
    town.start("a").await;
    town.settle(3).await;
    clock.wait_until(clock.now().after(WAIT).after(WAIT)).await;
    let (floor, reads) = town.cluster("b").formats().await.unwrap();
    assert_eq!((floor, reads.values().all(|reads| *reads == new)), (Floor::of(1), true));
    agree(&*town.desk.memory, &Writing::oldest(old)).await.unwrap();

    // What was asked for outlives whoever was asked.
    raise(&town, "a").await.unwrap();
    assert_eq!(town.cluster("b").formats().await.unwrap().0.announced, 2);
    let refused = agree(&*town.desk.memory, &Writing::oldest(old)).await;
    assert!(matches!(refused, Err(FormatsError::Unreadable(_))), "{refused:?}");
    let leader = town.leader().unwrap();
    town.kill(&leader);
    until("every node to write it", async || town.nodes.values().all(|(.., writing)| writing.format() == 2)).await;
    let other = town.nodes.keys().next().unwrap().clone();
    assert_eq!(town.cluster(&other).formats().await.unwrap().0, Floor::of(2));
    raise(&town, &other).await.unwrap();
}

//! Three nodes of one process: real links, membership and store of the in-process kind, and a clock that the test moves.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock};

use nexa_ports::clock::SimClock;
use nexa_ports::membership::NodeCard;
use nexa_ports::membership::local::LocalCluster;
use nexa_ports::memory::MemoryStore;
use nexa_sched::lease::{Backlog, Begun, Cost, Ending, Holder, HolderInput, Meter, Sizes};
use nexa_types::TenantId;
use tokio::sync::Notify;

use super::*;
use crate::local::{Faults, LocalNetwork, LocalPeers};
use crate::peers::{Handler, Refusal, Why};

const REQUESTS: u64 = 600;
const COST: Cost = Cost { input_tokens: 1, output_tokens: 1 };

fn budget() -> ProviderBudget {
    ProviderBudget { requests_per_minute: Some(REQUESTS), ..ProviderBudget::unlimited("acme") }
}

fn node(at: usize) -> NodeId {
    NodeId::new(&format!("n{at}")).unwrap()
}

/// Lanes of a node that always want more than there is.
struct Lanes {
    clock: Arc<SimClock>,
    state: Mutex<State>,
    hungry: Notify,
}

#[derive(Default)]
struct State {
    holder: Option<Holder>,
    begun: VecDeque<(Timestamp, Begun)>,
    elsewhere: u64,
}

impl Lanes {
    /// Begins what may be, and ends what is old enough. Gives how many began.
    fn work(&self) -> u64 {
        let now = self.clock.now();
        let State { holder, begun, .. } = &mut *self.state.lock().unwrap();
        let Some(holder) = holder else { return 0 };
        while begun.front().is_some_and(|(ends, _)| *ends <= now) {
            let (_, ended) = begun.pop_front().unwrap();
            holder.end("acme", ended, Ending::Sent(COST), now);
        }
        let before = begun.len();
        // As a lane's buckets would.
        while begun.len() - before < 10
            && let Ok(one) = holder.begin("acme", COST, now)
        {
            begun.push_back((now.after(Millis(1_000)), one));
        }
        (begun.len() - before) as u64
    }

    fn pauses(&self) {
        let retry = HolderInput::RetryAfter { provider: "acme".to_owned(), pause: Millis(9_000) };
        self.state.lock().unwrap().holder.as_mut().unwrap().step(retry, self.clock.now());
    }

    fn slice(&self) -> u64 {
        let state = self.state.lock().unwrap();
        state.holder.as_ref().map_or(Sizes::NONE, |holder| holder.slice("acme")).of(Meter::Requests)
    }
}

impl Slicing for Lanes {
    fn budgets(&self) -> Vec<ProviderBudget> {
        vec![budget()]
    }

    fn begin(&self, run: HolderId) {
        self.state.lock().unwrap().holder = Some(Holder::new(run));
    }

    fn end(&self) {
        self.state.lock().unwrap().holder.as_mut().unwrap().step(HolderInput::LeaseEnded, self.clock.now());
    }

    fn told(&self, notice: Notice) {
        let mut state = self.state.lock().unwrap();
        state.holder.as_mut().unwrap().step(HolderInput::Notice(notice), self.clock.now());
    }

    fn elsewhere(&self, provider: &str, tenants: &WaitingTenants) {
        assert_eq!((provider, &tenants[0].0), ("acme", &TenantId::local()));
        self.state.lock().unwrap().elsewhere = tenants[0].1;
    }

    fn report(&self) -> Option<SlicesReport> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap();
        let holder = state.holder.as_mut()?;
        let backlog = Backlog { requests: 900, cost: COST, largest: COST, weight: 1 };
        holder.step(HolderInput::Waiting { provider: "acme".to_owned(), backlog }, now);
        let tenants = vec![("acme".to_owned(), vec![(TenantId::local(), 900)])];
        Some(SlicesReport { report: holder.report(now)?, tenants })
    }

    fn hungry(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.hungry.notified())
    }
}

/// Hands messages over.
#[derive(Default)]
struct Ear(OnceLock<Leases>);

impl Handler for Ear {
    fn told(&self, from: &NodeId, generation: Generation, service: Service, body: Bytes) {
        assert_eq!(service, Service::Leases);
        self.0.get().unwrap().told(from, generation, &body).unwrap();
    }

    fn asked(&self, _: &NodeId, _: Generation, _: Service, _: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async { Err(Refusal::new(Why::Malformed, "nothing is asked about slices")) })
    }
}

struct Seat {
    lanes: Arc<Lanes>,
    membership: Option<Arc<dyn Membership>>,
    peers: Arc<LocalPeers>,
    stop: CancellationToken,
    _ear: Arc<Ear>,
}

struct Room {
    clock: Arc<SimClock>,
    cluster: LocalCluster,
    network: LocalNetwork,
    seats: Vec<Seat>,
    /// What came within the last minute, by when.
    came: VecDeque<(Timestamp, u64)>,
    all: u64,
}

impl Room {
    async fn of_three() -> Self {
        let clock = Arc::new(SimClock::new(Timestamp(1_000_000)));
        let cluster = LocalCluster::new(clock.clone());
        let network = LocalNetwork::new(clock.clone(), 7);
        let store = Arc::new(MemoryStore::default());
        let mut seats = Vec::new();
        for at in 0..3 {
            let membership = cluster.member();
            let card = NodeCard {
                id: node(at),
                door: String::new(),
                link: String::new(),
                labels: BTreeMap::new(),
                cpu_milli: 1,
                memory_bytes: 1,
                agents_max: 1,
                build: String::new(),
                formats: (1, 1),
            };
            let generation = membership.join(card).await.unwrap();
            membership.campaign(true);
            let ear = Arc::new(Ear::default());
            let peers = Arc::new(network.enter(node(at), &ear));
            let lanes = Arc::new(Lanes { clock: clock.clone(), state: Mutex::default(), hungry: Notify::new() });
            let ports = LeasesPorts {
                slices: lanes.clone(),
                leadership: store.clone(),
                membership: membership.clone(),
                peers: peers.clone(),
                clock: clock.clone(),
            };
            let (run, stop) = (HolderId { node: node(at), generation }, CancellationToken::new());
            let leases = Leases::start(run, LeaderSettings::default(), ports, stop.clone()).unwrap();
            assert!(ear.0.set(leases).is_ok());
            seats.push(Seat { lanes, membership: Some(membership), peers, stop, _ear: ear });
        }
        Self { clock, cluster, network, seats, came: VecDeque::new(), all: 0 }
    }

    /// Time passes, and everybody does what there is to do.
    async fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 250 {
            self.clock.advance(Millis(250));
            for _ in 0..30 {
                tokio::task::yield_now().await;
            }
            let members: Option<Arc<Members>> =
                self.seats.iter().find_map(|seat| Some(seat.membership.as_ref()?.members().borrow().clone()));
            let met: Vec<(NodeId, Generation, String)> = members
                .iter()
                .flat_map(|list| list.nodes.iter())
                .map(|(node, member)| (node.clone(), member.generation, String::new()))
                .collect();
            let mut began = 0;
            for seat in self.seats.iter().filter(|seat| seat.membership.is_some()) {
                seat.peers.meet(&met);
                began += seat.lanes.work();
            }
            let now = self.clock.now();
            self.all += began;
            self.came.push_back((now, began));
            while self.came.front().is_some_and(|(then, _)| now.since(*then) >= Millis(60_000)) {
                self.came.pop_front();
            }
            let within: u64 = self.came.iter().map(|(_, count)| count).sum();
            assert!(within <= REQUESTS, "{within} of {REQUESTS} within a minute");
        }
    }

    /// How much of the budget was used meanwhile, in thousandths.
    async fn used(&mut self, millis: u64) -> u64 {
        let before = self.all;
        self.pass(millis).await;
        (self.all - before) * 1_000 * 60_000 / (REQUESTS * millis)
    }

    fn slices(&self) -> Vec<u64> {
        self.seats.iter().map(|seat| seat.lanes.slice()).collect()
    }

    fn leader(&self) -> usize {
        let lists = self.seats.iter().filter_map(|seat| Some(seat.membership.as_ref()?.members().borrow().clone()));
        let leader = lists.filter_map(|list| list.leader.clone()).max_by_key(|leader| leader.epoch).unwrap();
        (0..3).find(|at| node(*at) == leader.node).unwrap()
    }

    /// The process of a node is gone.
    fn kill(&mut self, at: usize) {
        self.seats[at].stop.cancel();
        self.seats[at].membership = None;
    }
}

fn is_even(slices: &[u64]) -> bool {
    let (least, most) = (slices.iter().min().unwrap(), slices.iter().max().unwrap());
    slices.iter().sum::<u64>() >= REQUESTS * 95 / 100 && most - least <= REQUESTS / 50
}

#[tokio::test]
async fn three_nodes_have_equal_slices_and_use_them() {
    let mut room = Room::of_three().await;
    room.pass(120_000).await;
    assert!(is_even(&room.slices()), "{:?}", room.slices());
    let used = room.used(240_000).await;
    assert!(used >= 950, "{used} of 1000 used");
    assert_eq!(room.seats.iter().map(|seat| seat.lanes.state.lock().unwrap().elsewhere).sum::<u64>(), 3 * 1_800);
}

#[tokio::test]
async fn slices_stand_while_nobody_leads_and_the_next_leader_goes_on_with_them() {
    let mut room = Room::of_three().await;
    room.pass(120_000).await;
    room.network.set_faults(Faults { lost_per_mille: 200, delay_max: Millis(400) });
    let (before, leader) = (room.slices(), room.leader());
    room.cluster.depose();
    let used = room.used(180_000).await;
    assert_ne!(room.leader(), leader, "somebody else leads");
    assert!(used >= 950, "{used} of 1000 used; {before:?} {:?}", room.slices());
    assert!(is_even(&room.slices()), "{:?}", room.slices());
}

#[tokio::test]
async fn what_a_dead_leader_had_goes_to_the_others_when_it_counts_no_more() {
    let mut room = Room::of_three().await;
    room.pass(120_000).await;
    let dead = room.leader();
    room.kill(dead);
    let meanwhile = room.used(60_000).await;
    assert!((600..700).contains(&meanwhile), "{meanwhile} of 1000 used while the dead node's slice counts");
    room.pass(90_000).await;
    let used = room.used(180_000).await;
    assert!(used >= 950, "{used} of 1000 used; {:?}", room.slices());
}

#[tokio::test]
async fn a_node_that_has_lost_its_lease_begins_nothing_more() {
    let mut room = Room::of_three().await;
    room.pass(120_000).await;
    let other = (room.leader() + 1) % 3;
    room.cluster.expire(&node(other));
    room.pass(1_000).await;
    assert_eq!(room.slices()[other], 0);
    assert_eq!(room.seats[other].lanes.work(), 0);
}

#[tokio::test]
async fn one_pause_that_a_provider_asks_for_holds_all_nodes() {
    let mut room = Room::of_three().await;
    room.pass(120_000).await;
    room.seats[0].lanes.pauses();
    room.pass(4_500).await;
    let used = room.used(3_000).await;
    assert_eq!(used, 0, "everybody pauses");
    let used = room.used(120_000).await;
    assert!(used >= 850, "{used} of 1000 used: they go on");
}

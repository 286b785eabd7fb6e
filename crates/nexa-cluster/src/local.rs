//! A network within one process: nodes that need no sockets, and faults that a test needs.
//!
//! One [`LocalNetwork`] has all nodes; each gets its [`LocalPeers`]. What goes wrong is decided by dice from a seed: a part
//! of what is told gets lost, everything takes its time, and ways are cut in one direction or both. Per peer and class
//! there is one queue of [`QUEUE_MAX`] messages; at the bound a message is refused.
//!
//! A node whose `LocalPeers` was dropped is like a process that is gone: whoever dials it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use nexa_ports::clock::Clock;
use nexa_ports::dice::{Dice, SeededDice};
use nexa_types::{Generation, Millis, NodeId, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::peers::{AskError, Class, Handler, LinkState, LinkStates, NotSent, Peers, Refusal, Service};

/// Messages that wait for one peer in one class; a further one is refused.
pub const QUEUE_MAX: usize = 1_024;
/// How seldom a peer's moments in [`LinkStates`] are brought up to date.
const FRESHNESS: Millis = Millis(200);

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many of a thousand messages get lost.
    pub lost_per_mille: u64,
    /// The longest that a message takes; how long is drawn for each, and the order stays.
    pub delay_max: Millis,
}

/// All nodes. Clones are the same network.
#[derive(Clone)]
pub struct LocalNetwork {
    net: Arc<Net>,
}

struct Net {
    clock: Arc<dyn Clock>,
    dice: SeededDice,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Weak<Station>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    faults: Faults,
}

/// One node of it; its way out.
pub struct LocalPeers {
    station: Arc<Station>,
}

struct Station {
    node: NodeId,
    net: Arc<Net>,
    handler: Weak<dyn Handler>,
    met: Mutex<Met>,
    links: watch::Sender<Arc<LinkStates>>,
    closed: CancellationToken,
}

/// Whom this node knows, itself included, and the queues to them.
#[derive(Default)]
struct Met {
    peers: BTreeMap<NodeId, Generation>,
    queues: BTreeMap<(NodeId, Class), mpsc::Sender<(Service, Bytes)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalNetwork {
    /// A network without nodes and faults.
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { net: Arc::new(Net { clock, dice: SeededDice::new(seed), state: Mutex::default() }) }
    }

    /// A node's way into the network, in place of an earlier one of that name. What comes for it goes to the handler, for
    /// as long as somebody else holds that.
    pub fn enter(&self, node: NodeId, handler: &Arc<impl Handler + 'static>) -> LocalPeers {
        let handler: Weak<dyn Handler> = Arc::downgrade(handler) as Weak<dyn Handler>;
        let station = Arc::new(Station {
            node: node.clone(),
            net: self.net.clone(),
            handler,
            met: Mutex::default(),
            links: watch::Sender::default(),
            closed: CancellationToken::new(),
        });
        lock(&self.net.state).nodes.insert(node, Arc::downgrade(&station));
        self.net.look_around();
        LocalPeers { station }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.net.state).faults = faults;
    }

    /// Cuts the way from one node to another, or mends it. The way back is another one.
    pub fn cut(&self, from: &NodeId, to: &NodeId, is_cut: bool) {
        let way = (from.clone(), to.clone());
        let mut state = lock(&self.net.state);
        if is_cut {
            state.cut.insert(way);
        } else {
            state.cut.remove(&way);
        }
        drop(state);
        self.net.look_around();
    }

    /// Cuts one node off from all others, both ways, or mends it.
    pub fn isolate(&self, node: &NodeId, is_cut: bool) {
        let others: Vec<NodeId> = lock(&self.net.state).nodes.keys().filter(|other| *other != node).cloned().collect();
        for other in others {
            self.cut(node, &other, is_cut);
            self.cut(&other, node, is_cut);
        }
    }
}

impl Net {
    /// The receiver, if the way there is not cut and its process is there.
    fn reach(&self, from: &NodeId, to: &NodeId) -> Option<Arc<Station>> {
        let state = lock(&self.state);
        let is_cut = !state.cut.is_empty() && state.cut.contains(&(from.clone(), to.clone()));
        if is_cut { None } else { state.nodes.get(to)?.upgrade() }
    }

    /// How long the next message takes, and whether it arrives.
    fn fate(&self) -> (Timestamp, bool) {
        let faults = lock(&self.state).faults;
        let delay = Millis(self.dice.roll() % (faults.delay_max.0 + 1));
        (self.clock.now().after(delay), self.dice.roll() % 1_000 >= faults.lost_per_mille)
    }

    /// Brings everybody's view of the links up to date.
    fn look_around(&self) {
        let stations: Vec<Arc<Station>> = lock(&self.state).nodes.values().filter_map(Weak::upgrade).collect();
        for station in stations {
            station.look();
        }
    }
}

impl Station {
    fn generation(&self) -> Option<Generation> {
        lock(&self.met).peers.get(&self.node).copied()
    }

    /// Looks at the links anew, without dialling: nothing is dialled in here.
    fn look(&self) {
        let peers: Vec<NodeId> = lock(&self.met).peers.keys().filter(|peer| **peer != self.node).cloned().collect();
        let states: Vec<(NodeId, LinkState)> = peers
            .into_iter()
            .map(|peer| {
                let (is_cut, station) = {
                    let state = lock(&self.net.state);
                    let way = (self.node.clone(), peer.clone());
                    (state.cut.contains(&way), state.nodes.get(&peer).and_then(Weak::upgrade))
                };
                let before = self.links.borrow().get(&peer).copied().unwrap_or_default();
                let generation = station.as_ref().and_then(|station| station.generation());
                let state = LinkState {
                    generation: if is_cut { before.generation } else { generation.or(before.generation) },
                    is_up: !is_cut && station.is_some(),
                    is_refused: !is_cut && station.is_none(),
                    ..before
                };
                (peer, state)
            })
            .collect();
        let states: LinkStates = states.into_iter().collect();
        self.links.send_if_modified(|links| {
            let is_new = **links != states;
            if is_new {
                *links = Arc::new(states);
            }
            is_new
        });
    }

    /// Notes that something came from a peer, or that it has answered.
    fn heard(&self, peer: &NodeId, has_answered: bool) {
        let now = self.net.clock.now();
        self.links.send_if_modified(|links| {
            let Some(state) = links.get(peer) else { return false };
            let at = if has_answered { state.answered_at } else { state.received_at };
            if at.is_some_and(|at| now.since(at) < FRESHNESS) {
                return false;
            }
            if let Some(state) = Arc::make_mut(links).get_mut(peer) {
                *(if has_answered { &mut state.answered_at } else { &mut state.received_at }) = Some(now);
            }
            true
        });
    }

    /// Takes messages out of one queue and delivers them to that run, until the queue or this node is gone.
    async fn deliver(self: Arc<Self>, to: NodeId, run: Generation, mut queue: mpsc::Receiver<(Service, Bytes)>) {
        loop {
            let next = tokio::select! {
                biased;
                next = queue.recv() => next,
                () = self.closed.cancelled() => None,
            };
            let Some((service, body)) = next else { return };
            let (due, arrives) = self.net.fate();
            if self.net.clock.now() < due {
                self.net.clock.wait_until(due).await;
            }
            if !arrives || self.closed.is_cancelled() {
                continue;
            }
            let (Some(station), Some(generation)) = (self.net.reach(&self.node, &to), self.generation()) else {
                continue;
            };
            if let (true, Some(handler)) = (station.generation() == Some(run), station.handler.upgrade()) {
                station.heard(&self.node, false);
                self.heard(&to, true);
                handler.told(&self.node, generation, service, body);
            }
        }
    }

    async fn question(&self, to: NodeId, service: Service, body: Bytes) -> Result<Bytes, AskError> {
        let (due, arrives) = self.net.fate();
        self.net.clock.wait_until(due).await;
        let station = self.net.reach(&self.node, &to).filter(|_| arrives);
        let handler = station.as_ref().and_then(|station| station.handler.upgrade());
        let (Some(station), Some(handler), Some(generation)) = (station, handler, self.generation()) else {
            return std::future::pending().await;
        };
        station.heard(&self.node, false);
        let answer: Result<Bytes, Refusal> = handler.asked(&self.node, generation, service, body).await;
        let (due, arrives) = self.net.fate();
        self.net.clock.wait_until(due).await;
        if !arrives || self.net.reach(&to, &self.node).is_none() {
            return std::future::pending().await;
        }
        self.heard(&to, true);
        Ok(answer?)
    }
}

impl Peers for LocalPeers {
    fn tell(&self, to: &NodeId, class: Class, service: Service, body: Bytes) -> Result<(), NotSent> {
        let station = &self.station;
        let mut met = lock(&station.met);
        let run = met.peers.get(to).copied().filter(|_| *to != station.node).ok_or(NotSent::Unknown)?;
        if station.net.reach(&station.node, to).is_none() {
            return Err(NotSent::Gone);
        }
        let queue = met.queues.entry((to.clone(), class)).or_insert_with(|| {
            let (queue, messages) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(station.clone().deliver(to.clone(), run, messages));
            queue
        });
        queue.try_send((service, body)).map_err(|_| NotSent::Full)
    }

    fn ask(
        &self,
        to: &NodeId,
        _: Class,
        service: Service,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        let to = to.clone();
        let until = self.station.net.clock.now().after(Millis(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)));
        Box::pin(async move {
            let station = &self.station;
            if !lock(&station.met).peers.contains_key(&to) || to == station.node {
                return Err(NotSent::Unknown.into());
            }
            if station.net.reach(&station.node, &to).is_none() {
                return Err(NotSent::Gone.into());
            }
            tokio::select! {
                biased;
                answer = station.question(to, service, body) => answer,
                () = station.net.clock.wait_until(until) => Err(AskError::NoAnswer),
                () = station.closed.cancelled() => Err(AskError::NoAnswer),
            }
        })
    }

    fn links(&self) -> watch::Receiver<Arc<LinkStates>> {
        self.station.links.subscribe()
    }

    fn meet(&self, members: &[(NodeId, Generation, String)]) {
        let peers: BTreeMap<NodeId, Generation> =
            members.iter().map(|(node, generation, _)| (node.clone(), *generation)).collect();
        let mut met = lock(&self.station.met);
        // What waits for an earlier run, or for one that is not met any more, goes nowhere.
        let Met { peers: before, queues } = &mut *met;
        queues.retain(|(node, _), _| peers.contains_key(node) && peers.get(node) == before.get(node));
        met.peers = peers;
        drop(met);
        self.station.net.look_around();
    }
}

impl Drop for LocalPeers {
    fn drop(&mut self) {
        self.station.closed.cancel();
        let mut state = lock(&self.station.net.state);
        if state.nodes.get(&self.station.node).is_some_and(|there| there.as_ptr() == Arc::as_ptr(&self.station)) {
            state.nodes.remove(&self.station.node);
        }
        drop(state);
        self.station.net.look_around();
    }
}

#[cfg(test)]
mod tests {
    use nexa_ports::clock::SystemClock;
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::peers::Why;

    struct Ear(mpsc::UnboundedSender<(NodeId, Generation, Bytes)>);

    impl Handler for Ear {
        fn told(&self, from: &NodeId, generation: Generation, _: Service, body: Bytes) {
            let _ = self.0.send((from.clone(), generation, body));
        }

        fn asked(
            &self,
            _: &NodeId,
            _: Generation,
            service: Service,
            body: Bytes,
        ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
            Box::pin(async move {
                if service == Service::Queries { Ok(body) } else { Err(Refusal::new(Why::NotMe, "somebody else")) }
            })
        }
    }

    type Heard = UnboundedReceiver<(NodeId, Generation, Bytes)>;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn enter(network: &LocalNetwork, name: &str) -> (LocalPeers, Arc<Ear>, Heard) {
        let (out, heard) = mpsc::unbounded_channel();
        let ear = Arc::new(Ear(out));
        (network.enter(node(name), &ear), ear, heard)
    }

    fn members(list: &[(&str, u64)]) -> Vec<(NodeId, Generation, String)> {
        list.iter().map(|(name, generation)| (node(name), Generation(*generation), String::new())).collect()
    }

    #[tokio::test]
    async fn what_is_told_arrives_in_order_and_questions_are_answered_or_refused() {
        let network = LocalNetwork::new(Arc::new(SystemClock::default()), 1);
        let ((a, _ea, _ha), (b, _eb, mut heard)) = (enter(&network, "a"), enter(&network, "b"));
        let all = members(&[("a", 1), ("b", 2)]);
        for peers in [&a, &b] {
            peers.meet(&all);
        }
        for n in 0..100u8 {
            a.tell(&node("b"), Class::Work, Service::Hints, Bytes::copy_from_slice(&[n])).unwrap();
        }
        for n in 0..100u8 {
            assert_eq!(heard.recv().await, Some((node("a"), Generation(1), Bytes::copy_from_slice(&[n]))));
        }
        let ask = |service| a.ask(&node("b"), Class::Reads, service, Bytes::from_static(b"?"), Duration::from_secs(5));
        assert_eq!(ask(Service::Queries).await, Ok(Bytes::from_static(b"?")));
        assert_eq!(ask(Service::Leases).await, Err(Refusal::new(Why::NotMe, "somebody else").into()));
        let state = a.links().borrow().get(&node("b")).copied().unwrap();
        assert_eq!((state.generation, state.is_up, state.is_refused), (Some(Generation(2)), true, false));
    }

    #[tokio::test]
    async fn who_is_gone_refuses_and_who_is_cut_off_is_silent() {
        let network = LocalNetwork::new(Arc::new(SystemClock::default()), 1);
        let ((a, _ea, _ha), (b, _eb, _hb)) = (enter(&network, "a"), enter(&network, "b"));
        let all = members(&[("a", 1), ("b", 2)]);
        for peers in [&a, &b] {
            peers.meet(&all);
        }
        let tell = || a.tell(&node("b"), Class::Work, Service::Hints, Bytes::new());
        let refused = || a.links().borrow().get(&node("b")).map(|state| (state.is_up, state.is_refused));
        network.cut(&node("a"), &node("b"), true);
        assert_eq!((tell(), refused()), (Err(NotSent::Gone), Some((false, false))));
        network.cut(&node("a"), &node("b"), false);
        assert_eq!((tell(), refused()), (Ok(()), Some((true, false))));
        drop(b);
        assert_eq!((tell(), refused()), (Err(NotSent::Gone), Some((false, true))));
        a.meet(&members(&[("a", 1)]));
        assert_eq!((tell(), refused()), (Err(NotSent::Unknown), None));
    }

    #[tokio::test]
    async fn nothing_arrives_that_was_meant_for_an_earlier_run() {
        let network = LocalNetwork::new(Arc::new(SystemClock::default()), 1);
        let ((a, _ea, _ha), (b, _eb, mut heard)) = (enter(&network, "a"), enter(&network, "b"));
        a.meet(&members(&[("a", 1), ("b", 2)]));
        b.meet(&members(&[("a", 1), ("b", 3)]));
        a.tell(&node("b"), Class::Work, Service::Hints, Bytes::from_static(b"old")).unwrap();
        tokio::task::yield_now().await;
        a.meet(&members(&[("a", 1), ("b", 3)]));
        a.tell(&node("b"), Class::Work, Service::Hints, Bytes::from_static(b"new")).unwrap();
        assert_eq!(heard.recv().await.map(|(.., body)| body), Some(Bytes::from_static(b"new")));
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let network = LocalNetwork::new(Arc::new(SystemClock::default()), 1);
        let ((a, _ea, _ha), (b, _eb, _hb)) = (enter(&network, "a"), enter(&network, "b"));
        let all = members(&[("a", 1), ("b", 2)]);
        for peers in [&a, &b] {
            peers.meet(&all);
        }
        // Nothing is taken out before this test waits.
        let told: Vec<_> =
            (0..=QUEUE_MAX).map(|_| a.tell(&node("b"), Class::Work, Service::Hints, Bytes::new())).collect();
        assert_eq!((told[QUEUE_MAX - 1], told[QUEUE_MAX]), (Ok(()), Err(NotSent::Full)));
        assert_eq!(a.tell(&node("b"), Class::Control, Service::Heartbeat, Bytes::new()), Ok(()));
    }
}

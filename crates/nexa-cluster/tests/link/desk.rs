//! Nodes on loopback with certificates of a throwaway authority, and a proxy that can cut and swallow.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use nexa_cluster::certs::{Authority, Identity};
use nexa_cluster::link::{LinkConfig, TonicPeers, Undelivered};
use nexa_cluster::peers::{Class, Handler, LinkState, Peers, Refusal, Service, Why};
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::SeededDice;
use nexa_types::{Generation, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// No condition takes longer, even where others compile.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// A body that says its class and its number.
pub(crate) fn numbered(class: Class, at: u64) -> Bytes {
    let mut body = vec![class as u8];
    body.extend(at.to_le_bytes());
    Bytes::from(body)
}

pub(crate) fn number(body: &[u8]) -> u64 {
    u64::from_le_bytes(body[1..9].try_into().unwrap())
}

/// Comes again until something is so, letting others go on.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it never came to be");
}

/// What a node hears.
#[derive(Default)]
pub(crate) struct Ear {
    heard: Mutex<Vec<Bytes>>,
    count: watch::Sender<usize>,
    asked: Notify,
    entered: Notify,
    closed: Mutex<Option<Class>>,
    opened: Condvar,
}

/// While it is there, the handler of one class does not come back.
pub(crate) struct Gate(Arc<Ear>);

impl Drop for Gate {
    fn drop(&mut self) {
        *self.0.closed.lock().unwrap() = None;
        self.0.opened.notify_all();
    }
}

impl Ear {
    pub(crate) async fn wait_for(&self, count: usize) {
        let mut counted = self.count.subscribe();
        let waited = timeout(PATIENCE, counted.wait_for(|now| *now >= count)).await;
        assert!(waited.is_ok(), "{} of {count} were heard", *self.count.borrow());
    }

    pub(crate) async fn wait_asked(&self) {
        timeout(PATIENCE, self.asked.notified()).await.expect("nobody asked");
    }

    pub(crate) async fn wait_entered(&self) {
        timeout(PATIENCE, self.entered.notified()).await.expect("nothing came to the gate");
    }

    pub(crate) fn of(&self, class: Class) -> Vec<u64> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|body| body[0] == class as u8).map(|body| number(body)).collect()
    }

    pub(crate) fn close_gate(self: &Arc<Self>, class: Class) -> Gate {
        *self.closed.lock().unwrap() = Some(class);
        Gate(self.clone())
    }
}

impl Handler for Ear {
    fn told(&self, _: &NodeId, _: Generation, _: Service, body: Bytes) {
        let mut closed = self.closed.lock().unwrap();
        while closed.is_some_and(|class| body.first() == Some(&(class as u8))) {
            self.entered.notify_one();
            closed = self.opened.wait(closed).unwrap();
        }
        drop(closed);
        self.heard.lock().unwrap().push(body);
        self.count.send_modify(|count| *count += 1);
    }

    fn asked(&self, _: &NodeId, _: Generation, service: Service, body: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        self.asked.notify_one();
        if body == "never" {
            return futures::future::pending().boxed();
        }
        let refused = service == Service::Leases;
        async move { if refused { Err(Refusal::new(Why::NotMe, "ask somebody else")) } else { Ok(body) } }.boxed()
    }
}

pub(crate) struct Desk {
    pub(crate) authority: Authority,
    pub(crate) clock: Arc<SystemClock>,
}

pub(crate) struct TestNode {
    pub(crate) id: NodeId,
    pub(crate) generation: Generation,
    pub(crate) peers: Arc<TonicPeers>,
    pub(crate) ear: Arc<Ear>,
    back: Arc<Mutex<Vec<Undelivered>>>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(SystemClock::default());
        Self { authority: Authority::throwaway(clock.now()).unwrap(), clock }
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.authority.issue(&id(name), &[], self.clock.now(), 1).unwrap()
    }

    pub(crate) fn node(&self, name: &str, generation: u64) -> TestNode {
        self.node_at(name, generation, ([127, 0, 0, 1], 0).into())
    }

    pub(crate) fn node_at(&self, name: &str, generation: u64, listen: SocketAddr) -> TestNode {
        let ear = Arc::new(Ear::default());
        let back = Arc::new(Mutex::new(Vec::new()));
        let undelivered = back.clone();
        let config = LinkConfig {
            cluster: "test".into(),
            node: id(name),
            identity: self.identity(name),
            listen,
            threads: 2,
            clock: self.clock.clone(),
            dice: Arc::new(SeededDice::new(generation)),
            on_undelivered: Some(Box::new(move |message| undelivered.lock().unwrap().push(message))),
        };
        let peers = Arc::new(TonicPeers::start(config, &ear).unwrap());
        TestNode { id: id(name), generation: Generation(generation), peers, ear, back }
    }

    /// Tells one node who is there.
    pub(crate) fn tell_members(&self, node: &TestNode, members: &[&TestNode]) {
        let members: Vec<_> =
            members.iter().map(|node| (node.id.clone(), node.generation, node.address().to_string())).collect();
        node.peers.meet(&members);
    }

    /// Tells all nodes, and waits until each has a link to each.
    pub(crate) async fn meet(&self, nodes: &[&TestNode]) {
        nodes.iter().for_each(|node| self.tell_members(node, nodes));
        self.wait_linked(nodes).await;
    }

    /// The same, but `to` is dialled through a proxy.
    pub(crate) async fn meet_through(&self, nodes: &[&TestNode], to: &NodeId, proxy: &Proxy) {
        let address = |node: &TestNode| if node.id == *to { proxy.address } else { node.address() };
        let members: Vec<_> =
            nodes.iter().map(|node| (node.id.clone(), node.generation, address(node).to_string())).collect();
        nodes.iter().for_each(|node| node.peers.meet(&members));
        self.wait_linked(nodes).await;
    }

    async fn wait_linked(&self, nodes: &[&TestNode]) {
        for node in nodes {
            for other in nodes.iter().filter(|other| other.id != node.id) {
                node.wait_link(&other.id, |state| state.is_up).await;
            }
        }
    }
}

impl TestNode {
    pub(crate) fn address(&self) -> SocketAddr {
        self.peers.local_addr()
    }

    pub(crate) fn state(&self, peer: &NodeId) -> LinkState {
        self.peers.links().borrow().get(peer).copied().unwrap_or_default()
    }

    pub(crate) async fn wait_link(&self, peer: &NodeId, is_so: impl Fn(&LinkState) -> bool) {
        let mut links = self.peers.links();
        let waited = timeout(PATIENCE, links.wait_for(|links| links.get(peer).is_some_and(&is_so))).await;
        assert!(waited.is_ok(), "the link to {peer} stands so: {:?}", self.state(peer));
    }

    pub(crate) fn undelivered(&self) -> Vec<Undelivered> {
        self.back.lock().unwrap().clone()
    }

    /// Ends it as its process would end: nobody listens there any more.
    pub(crate) async fn stop(self) {
        let address = self.address();
        assert_eq!(Arc::strong_count(&self.peers), 1, "somebody still holds the links");
        drop(self);
        // Its threads end without anybody waiting for them, and the last of them closes the door.
        until(|| std::net::TcpListener::bind(address).is_ok()).await;
    }
}

/// Between a node and whoever dials it.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    cut: Arc<Mutex<CancellationToken>>,
    swallows: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            cut: Arc::default(),
            swallows: Arc::default(),
        };
        let (connections, cut, swallows) = (proxy.connections.clone(), proxy.cut.clone(), proxy.swallows.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let Ok(other) = TcpStream::connect(target).await else { continue };
                let (cut, swallows) = (cut.lock().unwrap().clone(), swallows.clone());
                let ((from, to), (back_from, back_to)) = (socket.into_split(), other.into_split());
                for (mut from, mut to) in [(from, back_to), (back_from, to)] {
                    let (cut, swallows) = (cut.clone(), swallows.clone());
                    tokio::spawn(async move {
                        let mut buffer = vec![0; 16 << 10];
                        loop {
                            let read = tokio::select! {
                                () = cut.cancelled() => return,
                                read = from.read(&mut buffer) => read,
                            };
                            let Ok(len) = read else { return };
                            if len == 0 {
                                return;
                            }
                            if !swallows.load(Ordering::Relaxed) && to.write_all(&buffer[..len]).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        });
        proxy
    }

    /// Closes every connection, with what is under way on it. New ones are taken.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    /// From now on it takes everything and passes nothing on.
    pub(crate) fn swallow(&self) {
        self.swallows.store(true, Ordering::Relaxed);
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

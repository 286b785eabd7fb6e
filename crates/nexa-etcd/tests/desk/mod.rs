//! What the tests on a real etcd share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nexa_etcd::{EtcdMembership, Settings};
use nexa_ports::membership::{Generation, Leader, Members, Membership, Standing};
use nexa_testkit::membership_contract::{card, until};
use nexa_types::{NodeId, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long is waited for what has to come soon.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The term of leases in these tests.
pub(crate) const TERM: Duration = Duration::from_secs(3);

/// A node of a test.
pub(crate) struct Node {
    pub(crate) member: EtcdMembership,
    pub(crate) name: &'static str,
    pub(crate) generation: Generation,
}

pub(crate) fn node_id(name: &str) -> NodeId {
    name.parse().expect("a node's name")
}

pub(crate) fn connected(endpoint: &str) -> EtcdMembership {
    EtcdMembership::connect(Settings::new([endpoint], "test")).expect("plain settings")
}

pub(crate) async fn joined(endpoint: &str, name: &'static str) -> Node {
    let member = connected(endpoint);
    let generation = member.join(card(name)).await.expect("the name is free");
    Node { member, name, generation }
}

impl Node {
    pub(crate) fn valid_until(&self) -> Timestamp {
        let told = match *self.member.standing().borrow() {
            Standing::Member { valid_until, generation } => {
                assert_eq!(generation, self.generation);
                valid_until
            }
            other => panic!("{} is not the member that it was: {other:?}", self.name),
        };
        assert!(self.member.valid_until().is_some_and(|until| until >= told), "the atomic is never behind");
        told
    }

    pub(crate) async fn until_listed(&self, names: &[&str]) -> Arc<Members> {
        let is_so = |members: &Arc<Members>| members.nodes.keys().map(NodeId::as_str).eq(names.iter().copied());
        until(&mut self.member.members(), SOON, &format!("{} sees {names:?}", self.name), is_so).await
    }

    pub(crate) async fn until_led(&self, after: u64) -> Leader {
        let is_so = |members: &Arc<Members>| members.leader.as_ref().is_some_and(|leader| leader.epoch.0 > after);
        let members = until(&mut self.member.members(), SOON, &format!("{} sees a leader", self.name), is_so).await;
        members.leader.clone().expect("waited for")
    }

    /// Waits for a renewal that was asked for after now.
    pub(crate) async fn until_renewed(&self) {
        let fresh =
            Timestamp(self.member.now().0 + u64::try_from((TERM - nexa_etcd::MARGIN).as_millis()).expect("small"));
        let is_so =
            |standing: &Standing| matches!(standing, Standing::Member { valid_until, .. } if *valid_until >= fresh);
        until(&mut self.member.standing(), SOON, &format!("{} is renewed", self.name), is_so).await;
        self.valid_until();
    }

    pub(crate) async fn until_lost(&self) {
        let is_so = |standing: &Standing| *standing == Standing::Lost;
        until(&mut self.member.standing(), SOON, &format!("{} knows that its lease has ended", self.name), is_so).await;
        assert_eq!(self.member.valid_until(), None);
    }
}

/// Looks again and again until something is so.
pub(crate) async fn until_so(within: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < within, "after {within:?} not yet: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A way to etcd on which answers can be lost: what is asked arrives, what is answered does not.
pub(crate) struct Way {
    pub(crate) endpoint: String,
    is_mute: Arc<AtomicBool>,
}

impl Way {
    pub(crate) async fn to(etcd: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = listener.local_addr().expect("bound").to_string();
        let is_mute = Arc::new(AtomicBool::new(false));
        let mute = is_mute.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&etcd).await else { continue };
                let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
                let mute = mute.clone();
                tokio::spawn(async move { tokio::io::copy(&mut near_in, &mut far_out).await });
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(len @ 1..) = far_in.read(&mut bytes).await {
                        // A connection that lost bytes says nothing any more.
                        if mute.load(Ordering::SeqCst) {
                            std::future::pending::<()>().await;
                        }
                        if near_out.write_all(&bytes[..len]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { endpoint, is_mute }
    }

    pub(crate) fn set_mute(&self, is_mute: bool) {
        self.is_mute.store(is_mute, Ordering::SeqCst);
    }
}

//! Nodes on one database, and a way between them and the server that can be cut.

#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, Input};
use nexa_ports::store::{Append, Post};
use nexa_postgres::{PostgresStore, Settings};
use nexa_types::{AgentId, InputId, NodeId, Payload, Seq};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a good name")
}

/// A node's store on a database.
pub(crate) async fn open(url: &str, name: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::connect(Settings::new(url, node(name))).await.expect("it opens"))
}

pub(crate) fn message(to: AgentId, number: u64) -> Post {
    let input = Input::Message { from: "somebody".into(), value: Payload::new(vec![7]) };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    Post { to, id: InputId::from_bytes(id), input, trace: None }
}

pub(crate) fn fact(seq: u64, bytes: usize) -> Fact {
    Fact::Agent(AgentEvent::Emitted { seq: Seq(seq), channel: "main".into(), value: Payload::new(vec![0x61; bytes]) })
}

/// One append with one answer.
pub(crate) async fn append(
    store: &dyn nexa_ports::store::Store,
    append: Append,
) -> Result<nexa_ports::store::Appended, nexa_ports::store::AppendError> {
    store.append(vec![append]).await.remove(0)
}

/// Carries bytes between clients and a server, and can lose answers.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    cut_answers: Arc<AtomicBool>,
}

impl Proxy {
    /// Between clients and a server on a port of this machine.
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let cut_answers = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&cut_answers);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, Arc::clone(&cut)));
            }
        });
        Self { port, cut_answers }
    }

    /// From now on: a request of more than a thousand bytes reaches the server, and instead of the answer the connection
    /// ends. Requests of batches are so long, and no others of these tests.
    pub(crate) fn cut_answers(&self, cut: bool) {
        self.cut_answers.store(cut, Ordering::SeqCst);
    }
}

async fn carry(mut client: TcpStream, server: u16, cut: Arc<AtomicBool>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut doomed = false;
    loop {
        tokio::select! {
            got = client.read(&mut up) => {
                let Ok(len @ 1..) = got else { return };
                doomed |= len > 1_000 && cut.load(Ordering::SeqCst);
                if server.write_all(&up[..len]).await.is_err() { return }
            }
            got = server.read(&mut down) => {
                let Ok(len @ 1..) = got else { return };
                if doomed {
                    return;
                }
                if client.write_all(&down[..len]).await.is_err() { return }
            }
        }
    }
}

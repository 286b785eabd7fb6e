//! The door for monitors: `/metrics`, `/healthz` and `/readyz`, on loopback, from a thread of its own.
//!
//! - `/metrics`: every figure, in the text format of Prometheus.
//! - `/healthz`: 200 while the node's runtime runs what it is given and no service was given up; else 503, and the
//!   process should be started again.
//! - `/readyz`: 200 while new work is taken; else 503 with the reason, and work should go elsewhere.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use nexa_cluster::ClusterStats;
use nexa_remember::Standing;
use nexa_runtime::NodeStats;
use tokio::runtime::Handle;

use crate::http::{self, Page, Pages};
use crate::pulse::{WELL_WITHIN, turns};
use crate::recorder::Recorder;
use crate::thread::Thread;

/// Where the door is unless somebody says otherwise: the port that exporters of OpenTelemetry use.
pub const DOOR_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Why there is no door.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The text is no address.
    #[error("`{text}` is no address for metrics: use `127.0.0.1:PORT` or `[::1]:PORT`")]
    Malformed {
        /// The text.
        text: String,
    },
    /// Others could look in.
    #[error(
        "`{address}` is not a loopback address, and metrics are served without TLS or tokens: listen on `127.0.0.1` or \
         `[::1]`, and put a proxy before it"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The system said no.
    #[error("cannot serve metrics on `{address}`: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// There is a recorder already.
    #[error("metrics cannot be recorded: {0}")]
    Recorder(String),
    /// No thread.
    #[error("no thread could be started to serve metrics: {0}")]
    Thread(#[source] std::io::Error),
}

/// What the door asks about a node.
pub struct Probes {
    /// Its name, told where a process has several.
    pub name: Option<String>,
    /// How it is doing among others, if there may be others.
    pub cluster: Option<Box<dyn Fn() -> ClusterStats + Send + Sync>>,
    /// How it is doing.
    pub stats: Box<dyn Fn() -> NodeStats + Send + Sync>,
    /// How it is doing with what its agents remember.
    pub remembering: Box<dyn Fn() -> Standing + Send + Sync>,
    /// Why the store takes no writes, if it takes none.
    pub store_trouble: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// The runtime that the node is on.
    pub runtime: Handle,
}

/// A door whose address is taken and that nobody is behind yet. Figures are recorded from now on.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    recorder: Recorder,
}

impl Door {
    /// Takes an address, and records figures from now on: to be called before the node starts.
    ///
    /// `None` is [`DOOR_DEFAULT`], or any free port if that is taken; port 0 takes any free one.
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn bind(text: Option<&str>) -> Result<Self, DoorError> {
        let failed = |address| move |source| DoorError::Bind { address, source };
        let listener = match text {
            Some(text) => {
                let address = parse(text)?;
                TcpListener::bind(address).map_err(failed(address))?
            }
            None => TcpListener::bind(DOOR_DEFAULT)
                .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
                .map_err(failed(DOOR_DEFAULT))?,
        };
        let address = listener.local_addr().map_err(failed(DOOR_DEFAULT))?;
        listener.set_nonblocking(true).map_err(failed(address))?;
        let recorder = Recorder::install().map_err(DoorError::Recorder)?;
        Ok(Self { listener, address, recorder })
    }

    /// Answers from now on, for all nodes of the process.
    ///
    /// # Errors
    /// [`DoorError::Thread`].
    pub fn open(self, nodes: Vec<Probes>) -> Result<OpenDoor, DoorError> {
        let thread = Thread::start("nexa-metrics").map_err(DoorError::Thread)?;
        let pages = Arc::new(Monitor { nodes, recorder: self.recorder.clone() });
        let inside = thread.handle().enter();
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(DoorError::Thread)?;
        drop(inside);
        thread.handle().spawn(self.recorder.upkeep());
        thread.handle().spawn(http::serve(listener, pages));
        Ok(OpenDoor { address: self.address, thread })
    }
}

/// A door that answers.
#[must_use = "the door is closed by `close`"]
pub struct OpenDoor {
    address: SocketAddr,
    thread: Thread,
}

impl OpenDoor {
    /// Where metrics are.
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Answers no more.
    pub fn close(self) {
        self.thread.stop();
    }
}

fn parse(text: &str) -> Result<SocketAddr, DoorError> {
    let plain = text.strip_prefix("http://").unwrap_or(text);
    let plain = match plain.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => plain.to_owned(),
    };
    let address: SocketAddr = plain.parse().map_err(|_| DoorError::Malformed { text: text.to_owned() })?;
    if address.ip().is_loopback() { Ok(address) } else { Err(DoorError::NotLoopback { address }) }
}

/// Who is behind the door.
struct Monitor {
    nodes: Vec<Probes>,
    recorder: Recorder,
}

impl Pages for Monitor {
    async fn page(&self, path: &str) -> Page {
        match path {
            "/metrics" => Page {
                status: "200 OK",
                kind: "text/plain; version=0.0.4; charset=utf-8",
                body: self.recorder.read(&self.nodes),
            },
            // Several nodes of a process are one process: what ails one ails all.
            "/healthz" => {
                let mut trouble = None;
                for node in &self.nodes {
                    let turns = turns(&node.runtime, WELL_WITHIN).await;
                    trouble = trouble.or(ailing((node.stats)(), turns));
                }
                told("healthy", trouble)
            }
            "/readyz" => {
                let mut nodes = self.nodes.iter();
                told("ready", nodes.find_map(|node| busy((node.stats)(), (node.store_trouble)())))
            }
            _ => Page::text("404 Not Found", "there are /metrics, /healthz and /readyz\n"),
        }
    }
}

fn told(well: &str, trouble: Option<String>) -> Page {
    match trouble {
        None => Page::text("200 OK", format!("{well}\n")),
        Some(trouble) => Page::text("503 Service Unavailable", format!("not {well}: {trouble}\n")),
    }
}

/// Why the process should be started again.
fn ailing(stats: NodeStats, turns: bool) -> Option<String> {
    match (stats.has_failed, turns) {
        (true, _) => Some("a service of the node failed too often and was given up".to_owned()),
        (_, false) => Some(format!("the node's runtime did not run a task within {} ms", WELL_WITHIN.as_millis())),
        (false, true) => None,
    }
}

/// Why new work should go elsewhere.
fn busy(stats: NodeStats, store: Option<String>) -> Option<String> {
    match (stats.has_failed, stats.is_draining, store) {
        (true, ..) => Some("a service of the node failed too often and was given up".to_owned()),
        (_, true, _) => Some("the node stops".to_owned()),
        (_, _, Some(trouble)) => Some(format!("the store takes no writes: {trouble}")),
        (false, false, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_can_reach_is_refused() {
        for text in ["0.0.0.0:0", "[::]:0", "192.0.2.7:80"] {
            assert!(matches!(parse(text), Err(DoorError::NotLoopback { .. })), "{text}");
        }
        for text in ["", "9464", "localhost", "example.org:80", "127.0.0.1:99999"] {
            assert!(matches!(parse(text), Err(DoorError::Malformed { .. })), "{text}");
        }
        assert_eq!(parse("localhost:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(parse("http://[::1]:80").unwrap().to_string(), "[::1]:80");
    }

    #[test]
    fn health_and_readiness_say_what_is_wrong() {
        let well = NodeStats::default();
        let (draining, failed) = (NodeStats { is_draining: true, ..well }, NodeStats { has_failed: true, ..well });
        assert_eq!((ailing(well, true), busy(well, None)), (None, None));
        assert_eq!(ailing(draining, true), None, "a node that stops is well");
        assert!(busy(draining, None).unwrap().contains("stops"));
        assert!(ailing(failed, true).unwrap().contains("given up") && busy(failed, None).is_some());
        assert!(ailing(well, false).unwrap().contains("2000 ms"));
        assert!(busy(well, Some("the disk is full".into())).unwrap().contains("the disk is full"));
        assert_eq!(told("ready", None).body, "ready\n");
    }
}

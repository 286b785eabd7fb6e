//! A real etcd for a test: its own process on free ports of this machine, with its data in a temporary folder.
//!
//! The folder is in memory where there is room. etcd syncs each write, and a disk that other tests keep busy can stand still for
//! longer than a lease of a test lasts; then a test would show what the disk does.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::statvfs;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::server::{Health, ServerProcess, free_port};

/// How long it may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Starts that are tried, since somebody else may take a port that was free.
const STARTS_MAX: usize = 3;

/// Where files are in memory, as on any Linux.
const MEMORY: &str = "/dev/shm";
/// Room that there must be: etcd sets aside 128 MiB of log, and tests run side by side.
const MEMORY_FREE: u64 = 4 << 30;

/// Certificates for an etcd that talks to those it knows only; PEM.
pub struct Certificates {
    /// Who signed etcd's own certificate, and signs those of clients.
    pub ca: String,
    /// etcd's own, for 127.0.0.1.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// One etcd. It is ended, and its data deleted, when the value is dropped.
pub struct Server {
    program: PathBuf,
    process: ServerProcess,
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    /// Tells how it is, without certificates.
    health: SocketAddr,
    /// It and those it forms a cluster with, as etcd wants to have them named.
    together: String,
    is_secured: bool,
}

impl Server {
    /// Starts one and waits until it answers. `None`, and a line that says so, where etcd is not installed.
    ///
    /// # Panics
    /// If etcd is not installed although `CI` is set, or if it does not start.
    pub fn start() -> Option<Self> {
        Self::start_some(1, None).and_then(|mut servers| servers.pop())
    }

    /// Starts three that are one cluster; each as with [`start`](Self::start).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_three() -> Option<[Self; 3]> {
        Self::start_some(3, None).and_then(|servers| servers.try_into().ok())
    }

    /// Starts one that is reached by `https://` and asks for certificates; otherwise as with [`start`](Self::start).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_secured(certificates: &Certificates) -> Option<Self> {
        Self::start_some(1, Some(certificates)).and_then(|mut servers| servers.pop())
    }

    fn start_some(count: usize, certificates: Option<&Certificates>) -> Option<Vec<Self>> {
        let Some(program) = program() else {
            assert!(std::env::var_os("CI").is_none(), "etcd is not installed, and CI must not skip what needs it");
            eprintln!("SKIP: etcd is not installed (`cargo xtask setup` installs it)");
            return None;
        };
        for _ in 0..STARTS_MAX {
            let mut servers: Vec<Self> = (0..count).map(|at| Self::new(&program, at, certificates)).collect();
            let named = |server: &Self| format!("{}=http://{}", server.name, server.peer);
            let together = servers.iter().map(named).collect::<Vec<_>>().join(",");
            for server in &mut servers {
                server.together.clone_from(&together);
                server.launch();
            }
            if servers.iter_mut().all(|server| server.process.is_ready()) {
                return Some(servers);
            }
            servers.iter().for_each(|server| eprintln!("etcd did not start:\n{}", server.process.log()));
        }
        panic!("etcd did not start {STARTS_MAX} times; what it said stands above");
    }

    fn new(program: &Path, at: usize, certificates: Option<&Certificates>) -> Self {
        // Told without certificates; and it can write once it has elected itself.
        let health = Health { address: free_port(), path: "/health", says: r#""health":"true""#, within: READY_WITHIN };
        let process = ServerProcess::new("etcd", folder(), health);
        if let Some(Certificates { ca, certificate, key }) = certificates {
            for (name, text) in [("ca", ca), ("certificate", certificate), ("key", key)] {
                fs::write(process.path(name), text).expect("the folder is ours");
            }
        }
        Self {
            program: program.to_owned(),
            process,
            name: format!("test{at}"),
            client: free_port(),
            peer: free_port(),
            health: health.address,
            together: String::new(),
            is_secured: certificates.is_some(),
        }
    }

    /// Where clients reach it: `host:port`, with `https://` before it where certificates are asked for.
    pub fn endpoint(&self) -> String {
        if self.is_secured { format!("https://{}", self.client) } else { self.client.to_string() }
    }

    /// Kills it, as a power cut would; its data stay.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data and ports, and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(self.process.is_ready(), "etcd did not start again:\n{}", self.process.log());
    }

    /// Starts it again on the same ports without anything that it knew, as a restored backup would.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart_empty(&mut self) {
        self.kill();
        fs::remove_dir_all(self.process.path("data")).expect("the folder is ours");
        self.restart();
    }

    /// Stops it where it stands: connections stay open, and nobody is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.running().expect("it runs");
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        kill_process(pid, signal).expect("it is a child of this process");
    }

    /// Starts its process.
    fn launch(&mut self) {
        let scheme = if self.is_secured { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://{}", self.client), format!("http://{}", self.peer));
        let file = |name: &str| self.process.path(name);
        let mut command = Command::new(&self.program);
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(file("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-metrics-urls", &format!("http://{}", self.health)])
            .args(["--initial-cluster", &self.together, "--logger", "zap"]);
        if self.is_secured {
            command.arg("--client-cert-auth");
            for (option, name) in [("--trusted-ca-file", "ca"), ("--cert-file", "certificate"), ("--key-file", "key")] {
                command.arg(option).arg(file(name));
            }
        }
        self.process.launch(&mut command);
    }
}

/// A new folder, in memory if it can be.
fn folder() -> TempDir {
    let has_room = statvfs(MEMORY).is_ok_and(|about| about.f_bavail * about.f_frsize >= MEMORY_FREE);
    let in_memory = has_room.then(|| tempfile::tempdir_in(MEMORY).ok()).flatten();
    in_memory.unwrap_or_else(|| tempfile::tempdir().expect("a temporary folder"))
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]);
    dirs.map(|dir| dir.join("etcd")).find(|program| program.is_file())
}

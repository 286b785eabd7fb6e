//! A real etcd for a test: its own process on free ports of this machine, with its data in a temporary folder.
//!
//! The folder is in memory where there is room. etcd syncs each write, and a disk that other tests keep busy can stand still for
//! longer than a lease of a test lasts; then a test would show what the disk does.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

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
    data: TempDir,
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    /// Tells how it is, without certificates.
    health: SocketAddr,
    /// It and those it forms a cluster with, as etcd wants to have them named.
    together: String,
    is_secured: bool,
    process: Option<Child>,
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
            if servers.iter_mut().all(Self::is_ready) {
                return Some(servers);
            }
            servers.iter().for_each(|server| eprintln!("etcd did not start:\n{}", server.log()));
        }
        panic!("etcd did not start {STARTS_MAX} times; what it said stands above");
    }

    fn new(program: &Path, at: usize, certificates: Option<&Certificates>) -> Self {
        let data = folder();
        if let Some(Certificates { ca, certificate, key }) = certificates {
            for (name, text) in [("ca", ca), ("certificate", certificate), ("key", key)] {
                fs::write(data.path().join(name), text).expect("the folder is ours");
            }
        }
        Self {
            program: program.to_owned(),
            data,
            name: format!("test{at}"),
            client: free_port(),
            peer: free_port(),
            health: free_port(),
            together: String::new(),
            is_secured: certificates.is_some(),
            process: None,
        }
    }

    /// Where clients reach it: `host:port`, with `https://` before it where certificates are asked for.
    pub fn endpoint(&self) -> String {
        if self.is_secured { format!("https://{}", self.client) } else { self.client.to_string() }
    }

    /// Kills it, as a power cut would; its data stay.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // One that was stopped is ended as well.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same data and ports, and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(self.is_ready(), "etcd did not start again:\n{}", self.log());
    }

    /// Starts it again on the same ports without anything that it knew, as a restored backup would.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart_empty(&mut self) {
        self.kill();
        fs::remove_dir_all(self.data.path().join("data")).expect("the folder is ours");
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
        let process = self.process.as_ref().expect("it runs");
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        kill_process(pid, signal).expect("it is a child of this process");
    }

    /// Starts its process.
    fn launch(&mut self) {
        let scheme = if self.is_secured { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://{}", self.client), format!("http://{}", self.peer));
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the folder is ours");
        let file = |name: &str| self.data.path().join(name);
        let mut command = Command::new(&self.program);
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(file("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-metrics-urls", &format!("http://{}", self.health)])
            .args(["--initial-cluster", &self.together, "--logger", "zap"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        if self.is_secured {
            command.arg("--client-cert-auth");
            for (option, name) in [("--trusted-ca-file", "ca"), ("--cert-file", "certificate"), ("--key-file", "key")] {
                command.arg(option).arg(file(name));
            }
        }
        self.process = Some(command.spawn().expect("etcd is a program"));
    }

    /// Waits until it answers, or has ended.
    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            let ended =
                self.process.as_mut().is_none_or(|process| process.try_wait().is_ok_and(|ended| ended.is_some()));
            if ended {
                return false;
            }
            if is_healthy(self.health) {
                return true;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        false
    }

    fn log_path(&self) -> PathBuf {
        self.data.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("etcd said:\n{}", self.log());
        }
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

/// A port of this machine that nobody uses at the moment.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a free port");
    listener.local_addr().expect("a bound listener has an address")
}

/// Whether it says that it can write, which it can once it has elected itself.
fn is_healthy(address: SocketAddr) -> bool {
    let ask = || {
        let limit = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4_096).read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(r#""health":"true""#))
}

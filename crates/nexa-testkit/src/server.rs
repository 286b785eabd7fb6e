//! The process of a server for a test: started in a folder of its own, with its log there, asked until it says that it is well, and
//! ended with the value.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long one question may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// What of an answer is read, in bytes.
const ANSWER_MAX: u64 = 4_096;

/// How a server is asked whether it is well.
#[derive(Clone, Copy)]
pub(crate) struct Health {
    /// By HTTP.
    pub(crate) address: SocketAddr,
    /// With GET.
    pub(crate) path: &'static str,
    /// What its answer has if it is.
    pub(crate) says: &'static str,
    /// How long that may take after its start.
    pub(crate) within: Duration,
}

/// A server's process, or what is left of it between a kill and a start.
pub(crate) struct ServerProcess {
    name: &'static str,
    folder: TempDir,
    health: Health,
    process: Option<Child>,
}

impl ServerProcess {
    /// One that does not run yet, by what it is called.
    pub(crate) fn new(name: &'static str, folder: TempDir, health: Health) -> Self {
        Self { name, folder, health, process: None }
    }

    /// Something in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its process, if it runs.
    pub(crate) fn running(&self) -> Option<&Child> {
        self.process.as_ref()
    }

    /// Starts it. What it says goes to its log.
    pub(crate) fn launch(&mut self, command: &mut Command) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("the folder is ours");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        self.process = Some(command.spawn().unwrap_or_else(|error| panic!("{} is no program: {error}", self.name)));
    }

    /// Waits until it is well, or has ended.
    pub(crate) fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + self.health.within;
        while Instant::now() < deadline {
            let has_ended = |process: &mut Child| process.try_wait().is_ok_and(|ended| ended.is_some());
            if self.process.as_mut().is_none_or(has_ended) {
                return false;
            }
            if self.health.is_good() {
                return true;
            }
            thread::park_timeout(ASK_EVERY);
        }
        false
    }

    /// Kills it, as a power cut would; its folder stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // One that was stopped is ended as well.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{} said:\n{}", self.name, self.log());
        }
    }
}

impl Health {
    fn is_good(&self) -> bool {
        self.answer().is_ok_and(|answer| answer.contains(self.says))
    }

    fn answer(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWERS_WITHIN)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        stream.write_all(format!("GET {} HTTP/1.0\r\nHost: localhost\r\n\r\n", self.path).as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// A port of this machine that nobody uses at the moment.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("this machine has a free port");
    listener.local_addr().expect("a bound listener has an address")
}

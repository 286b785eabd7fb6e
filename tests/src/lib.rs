//! Helpers for tests of whole processes. A test touches processes only through these.
//!
//! Every process that a test starts is ended with it, by id. Waiting is for a condition, with a bound; there are no sleeps
//! but the pause between two looks.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a test waits for anything before it fails. What takes half a minute on two processors takes more than two when others
/// use them as well.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A place for which the system chooses the port.
const ANY_PORT: &str = "127.0.0.1:0";

/// The binary under test: `NEXA_BIN`, or what the same profile built.
pub fn nexa_path() -> PathBuf {
    let path = std::env::var_os("NEXA_BIN").map_or_else(
        || {
            let test = std::env::current_exe().expect("a test knows its own path");
            test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps").join("nexa")
        },
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is not there: run `cargo build --profile fast -p nexa` first", path.display());
    path
}

/// The stand-in for the next release: `NEXA_NEXT_BIN`, or `nexa-next` beside the binary under test. `None` if it was not built,
/// which a line says.
///
/// # Panics
/// If there is none and `CI` is set.
pub fn next_path() -> Option<PathBuf> {
    let named = std::env::var_os("NEXA_NEXT_BIN").map(PathBuf::from);
    let path = named.unwrap_or_else(|| nexa_path().with_file_name("nexa-next"));
    if path.is_file() {
        return Some(path);
    }
    let how = "`cargo xtask test` builds it: the binary with `--features nexa/next-format`, copied to that name";
    assert!(std::env::var_os("CI").is_none(), "{} is not there: {how}", path.display());
    eprintln!("skipped: {} is not there: {how}", path.display());
    None
}

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the project").to_path_buf()
}

/// A folder for one test, gone afterwards, with the data of its nodes.
pub struct Desk {
    dir: TempDir,
}

/// What a process printed and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// Standard output of a process that must have succeeded.
    #[track_caller]
    pub fn good(self) -> String {
        assert!(self.status.success(), "{}\n--- out\n{}\n--- err\n{}", self.status, self.out, self.err);
        self.out
    }

    /// The exit code and standard error of a process that must have failed by itself.
    #[track_caller]
    pub fn bad(self) -> (i32, String) {
        assert!(!self.status.success(), "succeeded\n--- out\n{}\n--- err\n{}", self.out, self.err);
        (self.status.code().expect("a process that fails by itself has a code"), self.err)
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

impl Desk {
    /// An empty desk.
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("nexa-test").tempdir().expect("a temporary folder can be made") }
    }

    /// A path on the desk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file on the desk.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the desk can be written to");
        path
    }

    /// `nexa ARGS`, with nothing of the caller's settings.
    pub fn nexa(&self, args: &[&str]) -> Command {
        self.nexa_from(&nexa_path(), args)
    }

    /// The same from another binary.
    pub fn nexa_from(&self, exe: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(exe);
        command
            .args(args)
            .current_dir(root())
            .env("NEXA_DATA", self.path("data"))
            .env_remove("NEXA_SERVER")
            .env_remove("NEXA_STORE")
            .env_remove("NEXA_ETCD")
            .env_remove("NEXA_CERTS")
            .env_remove("NEXA_NODE")
            .env_remove("NEXA_CLUSTER")
            .env_remove("NEXA_MODEL")
            .env_remove("NEXA_TOKEN_FILE")
            .env_remove("NEXA_LOG")
            .env_remove("NEXA_LOG_FORMAT")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `nexa ARGS` to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        finish(self.nexa(args))
    }

    /// Starts `nexa dev ARGS` on a free port and waits until it serves.
    pub fn dev(&self, args: &[&str]) -> Server {
        let data = self.path("data");
        let mut all =
            vec!["dev", "--listen", "127.0.0.1:0", "--data", data.to_str().expect("a plain path"), "-o", "json"];
        all.extend(args);
        Server::started(self.nexa(&all))
    }
}

/// What a cluster of processes needs, for one test.
pub struct Cluster {
    /// Where its files are.
    pub desk: Desk,
    /// What every node is told by variables.
    pub variables: Vec<(String, String)>,
    /// Where nodes are started: the project that they belong to.
    pub folder: PathBuf,
}

impl Cluster {
    /// A cluster of these names on a database and an etcd, with certificates for each.
    pub fn new(store: String, etcd: String, names: &[&str]) -> Self {
        let desk = Desk::new();
        let certs = desk.path("pki");
        let folder = certs.to_str().expect("a plain path").to_owned();
        let mut args = vec!["certs", "--out", folder.as_str()];
        args.extend(names);
        desk.run(&args).good();
        let variables = [("NEXA_STORE", store), ("NEXA_ETCD", etcd), ("NEXA_CERTS", folder.clone())];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { desk, variables, folder: root() }
    }

    /// Starts `nexa serve --name NAME ARGS` on free ports and waits until it serves.
    pub fn serve(&self, name: &str, args: &[&str]) -> Server {
        self.serve_at(name, ANY_PORT, args)
    }

    /// The same where it was before its end: at `HOST:PORT`.
    pub fn serve_at(&self, name: &str, listen: &str, args: &[&str]) -> Server {
        Server::started(self.command(&nexa_path(), name, listen, args))
    }

    /// The same from another binary.
    pub fn serve_from(&self, exe: &Path, name: &str, args: &[&str]) -> Server {
        Server::started(self.command(exe, name, ANY_PORT, args))
    }

    /// Starts it without waiting.
    pub fn start(&self, name: &str, args: &[&str]) -> Process {
        Process::start(self.command(&nexa_path(), name, ANY_PORT, args))
    }

    fn command(&self, exe: &Path, name: &str, listen: &str, args: &[&str]) -> Command {
        let mut all = vec!["serve", "--name", name, "--listen", listen, "--link", ANY_PORT];
        all.extend(["--metrics", ANY_PORT, "-o", "json"]);
        all.extend(args);
        let mut command = self.desk.nexa_from(exe, &all);
        command.current_dir(&self.folder);
        command.envs(self.variables.iter().cloned());
        command
    }
}

impl Server {
    /// Starts a node that says with one object where it serves.
    fn started(command: Command) -> Self {
        let mut process = Process::start(command);
        let line = process.wait_for_line(|line| line.contains("\"grpc\""));
        let ready: serde_json::Value = serde_json::from_str(&line).expect("`-o json` prints one object");
        let address = ready["grpc"].as_str().expect("the object has the address of the door").to_owned();
        Self { process, address, ready }
    }
}

/// Runs a command to its end, at most [`PATIENCE`] long.
pub fn finish(command: Command) -> Finished {
    let mut process = Process::start(command);
    let status = process.wait();
    Finished { status, out: process.rest_of_out(), err: process.rest_of_err() }
}

/// A running process, ended with the value.
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: String,
    /// What it has said on standard error so far, and the thread that listens.
    err: (Arc<Mutex<String>>, Option<std::thread::JoinHandle<()>>),
}

impl Process {
    /// Starts a command.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the process can be started");
        let out = child.stdout.take().expect("standard output is piped");
        let err = child.stderr.take().expect("standard error is piped");
        // The reader ends with the process, and the channel is bounded by what one test prints.
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let said = Arc::new(Mutex::new(String::new()));
        let saying = Arc::clone(&said);
        let listener = std::thread::spawn(move || {
            let mut err = BufReader::new(err);
            let mut line = Vec::new();
            // What was read before an error is still worth showing.
            while err.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                *saying.lock().unwrap_or_else(PoisonError::into_inner) += &String::from_utf8_lossy(&line);
                line.clear();
            }
        });
        Self { child, lines, seen: String::new(), err: (said, Some(listener)) }
    }

    /// Waits for a line of standard output that fits.
    #[track_caller]
    pub fn wait_for_line(&mut self, fits: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen += &line;
                    self.seen.push('\n');
                    if fits(&line) {
                        return line;
                    }
                }
                Err(_) => {
                    self.kill();
                    let err = self.rest_of_err();
                    panic!("no such line came\n--- out\n{}\n--- err\n{err}", self.seen);
                }
            }
        }
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            if Instant::now() > until {
                self.kill();
                let (out, err) = (self.rest_of_out(), self.rest_of_err());
                panic!("it did not end within {PATIENCE:?}\n--- out\n{out}\n--- err\n{err}");
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Standard output as a whole, after the end.
    pub fn rest_of_out(&mut self) -> String {
        for line in self.lines.iter() {
            self.seen += &line;
            self.seen.push('\n');
        }
        std::mem::take(&mut self.seen)
    }

    /// Standard error as a whole, after the end.
    pub fn rest_of_err(&mut self) -> String {
        // A listener that panicked has written down what it read.
        let _ = self.err.1.take().map(std::thread::JoinHandle::join);
        self.said_so_far()
    }

    /// What it has said on standard error so far, in whole lines.
    pub fn said_so_far(&self) -> String {
        self.err.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends it a signal, such as `INT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the process can be sent a signal");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A node that serves.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Its gRPC door, as `--server` takes it.
    pub address: String,
    /// What `-o json` said.
    pub ready: serde_json::Value,
}

/// Looks until it is true, at most [`PATIENCE`] long.
#[track_caller]
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Replaces what differs from run to run by a word: ids by their order, times and addresses by their kind.
pub fn normalised(text: &str) -> String {
    let mut out = String::new();
    let mut seen: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['w', 'a', 'm', 'r']) {
        let (before, from) = rest.split_at(at);
        out += before;
        let is_start = !before.ends_with(|c: char| c.is_ascii_alphanumeric());
        let digits = from.get(2..).map_or(0, |tail| tail.chars().take_while(char::is_ascii_hexdigit).count());
        if is_start && from.get(1..2) == Some("-") && digits >= 6 {
            let id = &from[..2 + digits.min(64)];
            let number = seen.iter().position(|known| known == id).unwrap_or_else(|| {
                seen.push(id.to_owned());
                seen.len() - 1
            });
            out += &format!("{}-{}", &id[..1], number + 1);
            rest = &from[id.len()..];
        } else {
            out += &from[..1];
            rest = &from[1..];
        }
    }
    out + rest
}

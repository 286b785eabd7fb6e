//! A node under load: a child process of the same binary, in a folder of its own.
//!
//! It is started by `nexa dev` on SQLite, or by `nexa serve` as one of a cluster. The folder's `nexa.toml` names the simulated
//! endpoint; what it says on standard error goes to `node.log` there. It may be killed; one by itself starts again on the same
//! data and the same address.
//!
//! Waiting: [`START_PATIENCE`] for the address, [`STOP_PATIENCE`] for the end after SIGTERM; then it is killed. A driver that
//! gives it up kills it; when one is killed itself, the node's input ends, and so does the node.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::LoadError;
use crate::endpoint::limits::KeyLimits;

/// How long a node may take to serve: after a kill it reads what ten thousand agents were doing.
pub const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to stop.
pub const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How much of its log is shown when it fails.
const LOG_LINES_SHOWN: usize = 12;
/// A door for which the system chooses the port.
const ANY_PORT: &str = "127.0.0.1:0";
/// The provider's name in `nexa.toml`.
const PROVIDER: &str = "sim";
/// The variable that the node reads the key from, and the key: an endpoint keeps limits by it.
const KEY: (&str, &str) = ("SIM_API_KEY", "load");

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// The binary.
    pub exe: PathBuf,
    /// The folder for `nexa.toml`, the data and the log.
    pub folder: PathBuf,
    /// The URL of the endpoint.
    pub endpoint: String,
    /// Model calls at once.
    pub concurrency: usize,
    /// The limits of the key, which the node keeps to.
    pub limits: KeyLimits,
    /// The tokens of its tenants; without any, whoever reaches it is the local tenant.
    pub tokens: Vec<String>,
    /// What it is told as one of a cluster; without it, it is by itself.
    pub member: Option<Member>,
}

/// What a node of a cluster is told.
#[derive(Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The URL of the database.
    pub store: String,
    /// Where etcd is.
    pub etcd: String,
    /// The folder with the certificates.
    pub certs: PathBuf,
    /// How long it may take to let its agents go.
    pub grace: Duration,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, store: _, etcd, .. } = self;
        write!(out, "Member({name} at {etcd})")
    }
}

/// A running node.
pub struct Node {
    plan: NodePlan,
    child: Child,
    said: Said,
    /// Not the child's: waiting for one closes that.
    input: Input,
}

/// Where a node says that it is reached.
#[derive(Debug, Clone)]
struct Said {
    /// By clients.
    door: String,
    /// By other nodes, if there are others.
    link: Option<String>,
}

/// Keeps a node's input open: it ends when that is closed, as it is with this process.
type Input = Option<ChildStdin>;

impl NodePlan {
    fn settings(&self) -> String {
        let mut text = format!("model = \"{PROVIDER}/any\"\n\n[providers.{PROVIDER}]\nurl = \"{}\"\n", self.endpoint);
        // A string takes everything that is written to it.
        let _ = writeln!(text, "concurrency = {}", self.concurrency);
        let KeyLimits { requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, concurrency: _ } =
            self.limits;
        for (name, limit) in [
            ("requests_per_minute", requests_per_minute),
            ("input_tokens_per_minute", input_tokens_per_minute),
            ("output_tokens_per_minute", output_tokens_per_minute),
        ] {
            if let Some(limit) = limit {
                let _ = writeln!(text, "{name} = {limit}");
            }
        }
        text
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The token file, if tenants have tokens.
    fn token_file(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    fn write_tokens(&self) -> std::io::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt;
        let mut file =
            std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(self.token_file())?;
        for (tenant, token) in self.tokens.iter().enumerate() {
            // One of them may ask how the nodes are.
            let access = if tenant == 0 { "operator" } else { "full" };
            writeln!(file, "{} load-{tenant} load {access}", blake3::hash(token.as_bytes()))?;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("node.log")
    }

    /// Writes the settings and starts a node.
    ///
    /// # Errors
    /// [`LoadError::Node`] if it does not serve in time.
    pub async fn start(self) -> Result<Node, LoadError> {
        if self.data().join("nexa.db").exists() {
            return Err(LoadError::DataThere { folder: self.folder.clone() });
        }
        let prepare = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            std::fs::write(self.folder.join("nexa.toml"), self.settings())?;
            if self.tokens.is_empty() { Ok(()) } else { self.write_tokens() }
        };
        prepare().map_err(|source| LoadError::Folder { folder: self.folder.clone(), source })?;
        let (child, input, said) = self.spawn(ANY_PORT, ANY_PORT).await?;
        Ok(Node { plan: self, child, said, input })
    }

    async fn spawn(&self, listen: &str, link: &str) -> Result<(Child, Input, Said), LoadError> {
        let failed = |why: String| LoadError::Node { why, log: self.end_of_log() };
        let log = std::fs::File::options().create(true).append(true).open(self.log());
        let log = log.map_err(|error| failed(format!("its log cannot be written: {error}")))?;
        let mut command = Command::new(&self.exe);
        if !self.tokens.is_empty() {
            command.env("NEXA_TOKENS", self.token_file());
        }
        match &self.member {
            None => {
                command.args(["dev", "--end-with-input", "--listen", listen, "-o", "json", "--data"]).arg(self.data())
            }
            Some(Member { name, store, etcd, certs, grace }) => command
                .args(["serve", "--end-with-input", "--name", name, "--listen", listen, "--link", link])
                .args(["--metrics", ANY_PORT, "-o", "json", "--grace", &grace.as_secs().to_string()])
                .env("NEXA_STORE", store)
                .env("NEXA_ETCD", etcd)
                .env("NEXA_CERTS", certs)
                .env_remove("NEXA_STORE_FILE")
                .env_remove("NEXA_CLUSTER")
                .env_remove("NEXA_ADVERTISE"),
        };
        let mut child = command
            .current_dir(&self.folder)
            .env(KEY.0, KEY.1)
            .env_remove("NEXA_MODEL")
            // The system closes it when the driver is gone, however that went; the node ends with it.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("{} cannot be started: {error}", self.exe.display())))?;
        let input = child.stdin.take();
        let out = child.stdout.take().expect("standard output is piped");
        let mut lines = BufReader::new(out).lines();
        let said = tokio::time::timeout(START_PATIENCE, async {
            while let Ok(Some(line)) = lines.next_line().await {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(door) = said["grpc"].as_str() {
                    let link = said["link"].as_str().map(str::to_owned);
                    return Some(Said { door: door.to_owned(), link });
                }
            }
            None
        });
        match said.await {
            Ok(Some(said)) => Ok((child, input, said)),
            Ok(None) => Err(failed("it ended before it served".to_owned())),
            Err(_) => Err(failed(format!("it did not serve within {START_PATIENCE:?}"))),
        }
    }

    /// The last lines of its log.
    fn end_of_log(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Node {
    /// How to reach it, as `--server` takes it.
    pub fn address(&self) -> &str {
        &self.said.door
    }

    /// The process's id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its name among others.
    pub fn name(&self) -> Option<&str> {
        self.plan.member.as_ref().map(|member| member.name.as_str())
    }

    /// The folder with its data.
    pub fn folder(&self) -> &Path {
        &self.plan.folder
    }

    /// Whether it has ended by itself, and what its log says then.
    pub fn has_failed(&mut self) -> Option<LoadError> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(LoadError::Node { why: format!("it ended by itself: {status}"), log: self.plan.end_of_log() })
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// [`LoadError::Node`] if it cannot be killed.
    pub async fn kill(&mut self) -> Result<(), LoadError> {
        let killed = self.child.kill().await;
        killed.map_err(|error| LoadError::Node { why: format!("it cannot be killed: {error}"), log: String::new() })
    }

    /// Starts it again after its end, on the same data and the same addresses.
    ///
    /// # Errors
    /// [`LoadError::Node`] if it does not serve in time.
    pub async fn restart(&mut self) -> Result<(), LoadError> {
        let listen = self.said.door.trim_start_matches("http://");
        let link = self.said.link.as_deref().unwrap_or(ANY_PORT);
        (self.child, self.input, self.said) = self.plan.spawn(listen, link).await?;
        Ok(())
    }

    /// From here on it is started from another binary.
    pub fn becomes(&mut self, exe: &Path) {
        self.plan.exe = exe.to_owned();
    }

    /// SIGTERM, and waits until it has let everything go.
    ///
    /// # Errors
    /// [`LoadError::Node`] if it does not end well, or not in time; it is killed then.
    pub async fn let_go(&mut self) -> Result<(), LoadError> {
        let grace = self.plan.member.as_ref().map_or(Duration::ZERO, |member| member.grace);
        self.terminate();
        let failed = |why: String| LoadError::Node { why, log: self.plan.end_of_log() };
        match tokio::time::timeout(grace + STOP_PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(format!("told to go, it ended with {status}"))),
            Ok(Err(error)) => Err(failed(format!("it cannot be waited for: {error}"))),
            Err(_) => {
                let _ = self.child.kill().await;
                Err(failed(format!("told to go, it had not ended after {:?}", grace + STOP_PATIENCE)))
            }
        }
    }

    fn terminate(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself, as when Ctrl-C went to both.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(mut self) {
        self.terminate();
        if tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            // It is killed with the value in any case.
            let _ = self.child.kill().await;
        }
    }
}

//! The servers that nodes of a cluster need, for the time of a load: PostgreSQL and etcd, each on a free port of loopback, with
//! its data in a folder of its own and every sync to disk on.
//!
//! Each runs below a small shell that ends it when its input is closed; the system closes that also for a driver that was
//! killed. So nothing stays behind, however a load ends.
//!
//! Waiting: [`START_PATIENCE`] until a server answers, [`STOP_PATIENCE`] until it has ended; then it is killed.

mod etcd;
mod postgres;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

use crate::LoadError;

/// How long a server may take until it answers.
pub const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end.
pub const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 4 << 10;
/// How much of a log is shown when a server fails.
const LOG_LINES_SHOWN: usize = 12;

/// Says the server's process, runs it until the input is closed, then ends it: with the signal that it takes for a wish.
const KEEPER: &str = r#"
signal=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
echo $server
( read -r word <&3; kill -"$signal" $server ) 2>/dev/null &
reader=$!
wait $server
status=$?
kill $reader 2>/dev/null
exit $status
"#;

/// PostgreSQL and etcd.
pub struct Servers {
    postgres: Kept,
    etcd: Kept,
    store: String,
    endpoint: String,
}

impl Servers {
    /// Starts both in a folder, for this many nodes.
    ///
    /// # Errors
    /// [`LoadError::Missing`] if one of them is not installed, [`LoadError::Server`] if it does not start.
    pub async fn start(folder: &Path, nodes: usize) -> Result<Self, LoadError> {
        // What is missing is said before anything was started.
        let (database, coordinator) = (postgres::Binaries::find()?, etcd::find()?);
        let (postgres, store) = postgres::start(&database, &folder.join("postgres"), nodes).await?;
        let (etcd, endpoint) = etcd::start(&coordinator, &folder.join("etcd")).await?;
        Ok(Self { postgres, etcd, store, endpoint })
    }

    /// The URL of the database, with its password.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Where etcd is, as `host:port`.
    pub fn etcd(&self) -> &str {
        &self.endpoint
    }

    /// Whether one of them has ended by itself.
    pub fn have_failed(&mut self) -> Option<LoadError> {
        self.postgres.has_failed().or_else(|| self.etcd.has_failed())
    }

    /// Ends both, and waits until they have ended.
    pub async fn stop(self) {
        // Nodes that are gone do not need it any more; the other order would let them see it go.
        self.etcd.stop().await;
        self.postgres.stop().await;
    }
}

/// A server below its keeper.
struct Kept {
    name: &'static str,
    log: PathBuf,
    keeper: Child,
    /// Closed, it ends the server.
    input: Option<ChildStdin>,
}

/// How to start a server.
struct Plan<'a> {
    name: &'static str,
    binary: &'a Path,
    args: Vec<OsString>,
    /// Where it starts, and where its log goes.
    folder: &'a Path,
    /// What it takes for a wish to end.
    signal: &'static str,
    /// As whom it runs, if not as whoever runs this.
    user: Option<(u32, u32)>,
}

impl Kept {
    async fn start(plan: Plan<'_>) -> Result<Self, LoadError> {
        let log = plan.folder.join(format!("{}.log", plan.name));
        let failed = |why: String| server(plan.name, why, &log);
        let out = File::options().create(true).append(true).open(&log);
        let out = out.map_err(|error| failed(format!("its log cannot be written: {error}")))?;
        let mut command = Command::new("sh");
        command
            .args([OsStr::new("-c"), OsStr::new(KEEPER), OsStr::new("keeper"), OsStr::new(plan.signal)])
            .arg(plan.binary)
            .args(&plan.args)
            .current_dir(plan.folder)
            // Ctrl-C is for the driver, which ends it after the nodes.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(out);
        if let Some((user, group)) = plan.user {
            command.uid(user).gid(group);
        }
        let mut keeper = command.spawn().map_err(|error| failed(format!("it cannot be started: {error}")))?;
        let input = keeper.stdin.take();
        if let Some(out) = keeper.stdout.take() {
            // The server's own output goes the same way; it says nothing of interest there.
            let mut lines = BufReader::new(out).lines();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        }
        Ok(Self { name: plan.name, log, keeper, input })
    }

    /// Looks until it answers.
    async fn answers(&mut self, answers: impl AsyncFn() -> bool) -> Result<(), LoadError> {
        let until = Instant::now() + START_PATIENCE;
        while !answers().await {
            if let Some(failure) = self.has_failed() {
                return Err(failure);
            }
            if Instant::now() > until {
                return Err(server(self.name, format!("it did not answer within {START_PATIENCE:?}"), &self.log));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn has_failed(&mut self) -> Option<LoadError> {
        let status = self.keeper.try_wait().ok().flatten()?;
        Some(server(self.name, format!("it ended by itself: {status}"), &self.log))
    }

    async fn stop(mut self) {
        drop(self.input.take());
        if tokio::time::timeout(STOP_PATIENCE, self.keeper.wait()).await.is_err() {
            let _ = self.keeper.kill().await;
        }
    }
}

fn server(name: &'static str, why: String, log: &Path) -> LoadError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    LoadError::Server { name, why, log: lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n") }
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The first of these names that is a file in a folder of `PATH`, or in one of some others.
fn find(name: &str, others: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(others).collect();
    folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Asks over HTTP, and gives the beginning of what is answered.
async fn ask(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_where_it_is_and_missed_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let there = folder.path().join("no-such-server");
        assert_eq!(find("no-such-server", [folder.path().to_path_buf()]), None);
        std::fs::write(&there, "").expect("written");
        assert_eq!(find("no-such-server", [folder.path().to_path_buf()]), Some(there));
        let missing = LoadError::Missing { name: "etcd", hint: etcd::HINT }.to_string();
        assert!(missing.contains("etcd is not installed") && missing.contains("apt-get install"), "{missing}");
    }
}

//! A real server of S3 for a test: MinIO, in its own process on a free port of this machine, with its data in a temporary
//! folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::etcd::free_port;

/// How long it may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Starts that are tried, since somebody else may take a port that was free.
const STARTS_MAX: usize = 3;
/// Names its program; otherwise it is on the path.
const PROGRAM: &str = "NEXA_TEST_MINIO";

/// Who may do everything.
const USER: &str = "tester";
const PASSWORD: &str = "tester-secret";
/// The bucket that there is.
const BUCKET: &str = "pages";

/// One MinIO with one bucket. It is ended, and its data deleted, when the value is dropped.
pub struct Server {
    program: PathBuf,
    data: TempDir,
    address: SocketAddr,
    process: Option<Child>,
}

impl Server {
    /// Starts one and waits until it answers. `None`, and a line that says so, where MinIO is not installed.
    ///
    /// # Panics
    /// If MinIO is not installed although `CI` is set, or if it does not start.
    pub fn start() -> Option<Self> {
        let Some(program) = program() else {
            assert!(std::env::var_os("CI").is_none(), "MinIO is not installed, and CI must not skip what needs it");
            eprintln!("SKIP: MinIO is not installed (`cargo xtask test --apart` installs it)");
            return None;
        };
        for _ in 0..STARTS_MAX {
            let data = tempfile::tempdir().expect("a temporary folder");
            // A folder in its data is a bucket.
            fs::create_dir_all(data.path().join("data").join(BUCKET)).expect("the folder is ours");
            let mut server = Self { program: program.clone(), data, address: free_port(), process: None };
            server.launch();
            if server.is_ready() {
                return Some(server);
            }
            eprintln!("MinIO did not start:\n{}", server.log());
        }
        panic!("MinIO did not start {STARTS_MAX} times; what it said stands above");
    }

    /// The URL of a prefix in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// Whether there is anything below a prefix in the bucket.
    pub fn has(&self, prefix: &str) -> bool {
        self.data.path().join("data").join(BUCKET).join(prefix).exists()
    }

    /// How it is reached, as the environment says it.
    pub fn access(&self) -> Vec<(String, String)> {
        let address = format!("http://{}", self.address);
        let said = [
            ("AWS_ENDPOINT_URL", address.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", USER),
            ("AWS_SECRET_ACCESS_KEY", PASSWORD),
        ];
        said.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// Kills it; what it has on the disk stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same data and port, and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(self.is_ready(), "MinIO did not start again:\n{}", self.log());
    }

    /// Starts its process.
    fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the folder is ours");
        let file = |name: &str| self.data.path().join(name);
        let mut command = Command::new(&self.program);
        command
            .args(["server", "--quiet", "--address", &self.address.to_string(), "--certs-dir"])
            .arg(file("certificates"))
            .arg(file("data"))
            .env("HOME", self.data.path())
            .env("MINIO_ROOT_USER", USER)
            .env("MINIO_ROOT_PASSWORD", PASSWORD)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        self.process = Some(command.spawn().expect("MinIO is a program"));
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
            if is_healthy(self.address) {
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
            eprintln!("MinIO said:\n{}", self.log());
        }
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os(PROGRAM).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).map(|dir| dir.join("minio")).find(|program| program.is_file());
    named.or_else(on_path)
}

/// Whether it says that it can write.
fn is_healthy(address: SocketAddr) -> bool {
    let ask = || {
        let limit = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"GET /minio/health/cluster HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4_096).read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

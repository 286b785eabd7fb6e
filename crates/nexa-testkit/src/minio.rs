//! A real server of S3 for a test: MinIO, in its own process on a free port of this machine, with its data in a temporary
//! folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::server::{Health, ServerProcess, free_port};

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
    process: ServerProcess,
    health: Health,
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
            let folder = tempfile::tempdir().expect("a temporary folder");
            // A folder in its data is a bucket.
            fs::create_dir_all(folder.path().join("data").join(BUCKET)).expect("the folder is ours");
            // It says whether it can write.
            let (path, says) = ("/minio/health/cluster", " 200 OK");
            let health = Health { address: free_port(), path, says, within: READY_WITHIN };
            let process = ServerProcess::new("MinIO", folder, health);
            let mut server = Self { program: program.clone(), process, health };
            server.launch();
            if server.process.is_ready() {
                return Some(server);
            }
            eprintln!("MinIO did not start:\n{}", server.process.log());
        }
        panic!("MinIO did not start {STARTS_MAX} times; what it said stands above");
    }

    /// The URL of a prefix in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// Whether there is anything below a prefix in the bucket.
    pub fn has(&self, prefix: &str) -> bool {
        self.process.path("data").join(BUCKET).join(prefix).exists()
    }

    /// How it is reached, as the environment says it.
    pub fn access(&self) -> Vec<(String, String)> {
        let address = format!("http://{}", self.health.address);
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
        self.process.kill();
    }

    /// Starts it again on the same data and port, and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(self.process.is_ready(), "MinIO did not start again:\n{}", self.process.log());
    }

    /// Starts its process.
    fn launch(&mut self) {
        let file = |name: &str| self.process.path(name);
        let mut command = Command::new(&self.program);
        command
            .args(["server", "--quiet", "--address", &self.health.address.to_string(), "--certs-dir"])
            .arg(file("certificates"))
            .arg(file("data"))
            .env("HOME", file(""))
            .env("MINIO_ROOT_USER", USER)
            .env("MINIO_ROOT_PASSWORD", PASSWORD)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off");
        self.process.launch(&mut command);
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os(PROGRAM).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).map(|dir| dir.join("minio")).find(|program| program.is_file());
    named.or_else(on_path)
}

//! A PostgreSQL server of one test binary: found on the machine, started in a temporary folder on a free port of the loopback,
//! and ended with the process however that ends.
//!
//! A small shell stands between: it ends the server and removes the folder once its input is closed, which the operating
//! system does also for a process that was killed. Servers refuse to run as root, so that root runs them as `postgres`.
//!
//! Where no server is installed there is none, and a line says so; with the variable `CI` set that is a failure.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a server may take until it lets somebody in.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Runs the server until its input is closed, then ends it and removes the folder.
const KEEPER: &str = r#"
folder=$1; shift
"$@" >>"$folder/log" 2>&1 </dev/null &
server=$!
echo $server
read -r word
if [ "$word" = keep ]; then
    wait $server
else
    kill -QUIT $server; kill -CONT $server; wait $server; rm -rf "$folder"
fi
"#;

/// A running server.
#[derive(Debug)]
pub struct Server {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    /// Whom it runs as, if not as who runs the test.
    user: Option<(u32, u32)>,
    running: Mutex<Option<Running>>,
    databases: AtomicU32,
}

#[derive(Debug)]
struct Running {
    keeper: Child,
    pid: u32,
}

impl Server {
    /// The server of this test binary, started by whoever asks first.
    ///
    /// # Panics
    /// If there is none and `CI` is set, or if it does not start.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// A server of its own, ended when it is dropped.
    ///
    /// # Panics
    /// If there is none and `CI` is set, or if it does not start.
    pub fn start() -> Option<Self> {
        let Some(bin) = binaries() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed: `cargo xtask setup` does it");
            eprintln!(
                "SKIP: PostgreSQL is not installed, so that nothing is tested on it; `cargo xtask setup` installs it"
            );
            return None;
        };
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nexa-postgres-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).expect("a temporary folder");
        let user = (id(&["-u"]) == Some(0)).then(|| {
            let user = id(&["-u", "postgres"]).expect("the installation makes a user `postgres`");
            let group = id(&["-g", "postgres"]).expect("and its group");
            chown(&folder, Some(user), Some(group)).expect("root may");
            (user, group)
        });
        let server =
            Self { bin, folder, port: free_port(), user, running: Mutex::default(), databases: AtomicU32::new(0) };
        let made = server
            .command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(server.folder.join("data"))
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.run();
        Some(server)
    }

    /// Starts it again after [`Server::crash`].
    ///
    /// # Panics
    /// If it does not start.
    pub fn run(&self) {
        let mut command = as_user(Command::new("sh"), self.user);
        command.arg("-c").arg(KEEPER).arg("keeper").arg(&self.folder).arg(self.bin.join("postgres"));
        command.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-c", "fsync=on", "-c", "max_connections=300"]);
        // A group of its own: Control-C at a terminal goes to the tests, and the keeper ends the server after them.
        command.current_dir(&self.folder).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().expect("a shell");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("the shell says the number");
        let pid = line.trim().parse().expect("the number of a process");
        *self.running.lock().expect("no test panics with it") = Some(Running { keeper, pid });
        let start = Instant::now();
        while !self.is_ready() {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(start.elapsed() < START_DEADLINE, "PostgreSQL did not start: {}", log());
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Ends it at once, as a crash does: nothing is written any more.
    ///
    /// # Panics
    /// If it is not running.
    pub fn crash(&self) {
        let mut running = self.running.lock().expect("no test panics with it").take().expect("it runs");
        signal("-QUIT", &[running.pid]);
        let mut input = running.keeper.stdin.take().expect("it is piped");
        std::io::Write::write_all(&mut input, b"keep\n").expect("the keeper listens");
        running.keeper.wait().expect("the keeper ends with the server");
    }

    /// Has all its processes stand still, as a machine does that hangs.
    ///
    /// # Panics
    /// If it is not running.
    pub fn freeze(&self) {
        let pid = self.pid();
        signal("-STOP", &[pid]);
        signal("-STOP", &children(pid));
    }

    /// Has its processes go on.
    ///
    /// # Panics
    /// If it is not running.
    pub fn thaw(&self) {
        let pid = self.pid();
        signal("-CONT", &children(pid));
        signal("-CONT", &[pid]);
    }

    /// Makes an empty database, and gives its address.
    ///
    /// # Panics
    /// If the server does not do it.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name, self.port)
    }

    /// The address of a database, over a port: the server's own or that of something between.
    pub fn url(&self, database: &str, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{database}")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a statement answers, as `psql` shows it without headings.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        let output =
            psql.args(["-p", &self.port.to_string(), "-d", database, "-c", statement]).output().expect("psql runs");
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn pid(&self) -> u32 {
        self.running.lock().expect("no test panics with it").as_ref().expect("it runs").pid
    }

    fn is_ready(&self) -> bool {
        let mut asking = self.command("pg_isready");
        asking.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        asking.status().is_ok_and(|status| status.success())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = as_user(Command::new(self.bin.join(name)), self.user);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let running = self.running.get_mut().map(Option::take);
        match running {
            Ok(Some(Running { mut keeper, .. })) => {
                drop(keeper.stdin.take());
                // It ends the server and removes the folder; if it was killed, both stay.
                let _ = keeper.wait();
            }
            _ => drop(std::fs::remove_dir_all(&self.folder)),
        }
    }
}

/// The programs that are used here.
const PROGRAMS: [&str; 4] = ["initdb", "postgres", "pg_isready", "psql"];

/// Where the programs of a server lie: those on the path, or those of the newest that is installed.
fn binaries() -> Option<PathBuf> {
    let has_all = |folder: &PathBuf| PROGRAMS.iter().all(|name| folder.join(name).is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What is on the path may be a link to one of them; the others lie beside what it leads to.
    let behind = |folder: PathBuf| Some(folder.join("postgres").canonicalize().ok()?.parent()?.to_owned());
    if let Some(folder) = std::env::split_paths(&path).filter_map(behind).find(has_all) {
        return Some(folder);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions.filter(|path| has_all(&path.join("bin"))).max_by_key(number).map(|path| path.join("bin"))
}

fn as_user(mut command: Command, user: Option<(u32, u32)>) -> Command {
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn signal(signal: &str, pids: &[u32]) {
    // One that has ended meanwhile needs no signal.
    let _ = Command::new("kill").arg(signal).args(pids.iter().map(u32::to_string)).stderr(Stdio::null()).status();
}

fn children(pid: u32) -> Vec<u32> {
    let list = Command::new("ps").args(["-o", "pid=", "--ppid", &pid.to_string()]).output();
    let list = list.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

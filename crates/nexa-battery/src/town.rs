//! A cluster of processes: three nodes, three members of etcd and one PostgreSQL, each in a namespace of its own, with the
//! model endpoint and the sink at home, which nobody kills.
//!
//! | member | address |
//! |---|---|
//! | endpoint, clients, sink | 10.77.0.1 |
//! | `n1` to `n3` | 10.77.0.11 to 13 |
//! | `e1` to `e3` | 10.77.0.21 to 23 |
//! | `pg` | 10.77.0.31 |

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nexa_client::{Client, Options, Patience, Throttling};
use nexa_load::dice::LogNormal;
use nexa_load::endpoint::limits::KeyLimits;
use nexa_load::endpoint::profile::{Faults, Profile};
use nexa_load::endpoint::{Config, Endpoint};
use nexa_proto::v1;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::cage::run;
use crate::member::{Ended, Member, Recipe, Role};
use crate::net;
use crate::sink::Sink;

/// How long everything may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at processes.
const TEND_EVERY: Duration = Duration::from_millis(50);
/// Between two looks whether something answers.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of one question at one door.
pub(crate) const QUICK: Patience = Patience {
    deadline: Duration::from_secs(3),
    attempts_max: 1,
    first_wait: Duration::from_millis(20),
    wait_max: Duration::from_millis(500),
};
/// How long a model takes for half of its answers.
const MODEL_MS: f64 = 800.0;
/// Requests that the provider takes at once. A node that vanished keeps its slice for two minutes, for that long its requests
/// may go on: of a few hundred nothing would be left to anybody while a node is killed every few seconds.
const MODEL_CONCURRENCY: u32 = 50_000;
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const ETCDS: [&str; 3] = ["e1", "e2", "e3"];
const POSTGRES: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 31);
const PASSWORD: &str = "battery";
/// Nodes run as root, which PostgreSQL refuses to do.
const POSTGRES_USER: &str = "postgres";

/// What towns have in common.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    /// The binary of the nodes.
    pub(crate) nexa: PathBuf,
    /// The folder for everything.
    pub(crate) folder: PathBuf,
    /// A database folder to be copied.
    template: PathBuf,
    postgres: PathBuf,
    user: (u32, u32),
    certs: PathBuf,
    /// Where all chance comes from.
    pub(crate) seed: u64,
}

impl Ground {
    /// Lays the network, and makes what every town needs.
    ///
    /// # Errors
    /// What is missing, or what the system said.
    pub(crate) fn prepare(nexa: PathBuf, folder: PathBuf, seed: u64) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).map_err(io)?;
        run("etcd", &["--version"]).map_err(|_| "etcd is not installed: `apt-get install etcd-server`".to_owned())?;
        let postgres = newest_postgres().ok_or("PostgreSQL is not installed: `apt-get install postgresql`")?;
        let id = |what: &str| run("id", &[what, POSTGRES_USER])?.trim().parse::<u32>().map_err(|it| it.to_string());
        let user = (id("-u")?, id("-g")?);
        let (home, password) = (folder.join("template"), folder.join("password"));
        std::fs::create_dir(&home).and_then(|()| std::fs::write(&password, PASSWORD)).map_err(io)?;
        [&home, &password].iter().try_for_each(|path| chown(path, Some(user.0), Some(user.1))).map_err(io)?;
        let template = home.join("data");
        let (ids, initdb) = ([user.0, user.1].map(|id| id.to_string()), postgres.join("initdb"));
        run(
            "nsenter",
            &[
                "--net=/proc/self/ns/net",
                "--setuid",
                &ids[0],
                "--setgid",
                &ids[1],
                "--",
                &initdb.to_string_lossy(),
                "--username=nexa",
                "--auth=scram-sha-256",
                &format!("--pwfile={}", password.display()),
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "-D",
                &template.to_string_lossy(),
            ],
        )?;
        let access = template.join("pg_hba.conf");
        let mut text = std::fs::read_to_string(&access).map_err(io)?;
        text += "host all all 10.77.0.0/24 scram-sha-256\n";
        std::fs::write(&access, text).map_err(io)?;
        let certs = folder.join("pki");
        run(&nexa.to_string_lossy(), &[&["certs", "--out", &certs.to_string_lossy()], &NODES[..]].concat())?;
        net::lay()?;
        net::join("pg", POSTGRES)?;
        for (name, address) in (11..).zip(NODES).chain((21..).zip(ETCDS)).map(|(last, name)| (name, at(last))) {
            net::join(name, address)?;
        }
        Ok(Self { nexa, folder, template, postgres, user, certs, seed })
    }
}

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn newest_postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
    versions.filter(|folder| folder.join("postgres").is_file()).max()
}

/// What nobody kills: the model endpoint, and who counts effects of tools.
pub(crate) struct Outside {
    /// Who counts effects of tools.
    pub(crate) sink: Sink,
    /// Who counts requests to models.
    pub(crate) endpoint: Endpoint,
    /// What models answer.
    pub(crate) profile: Profile,
    tools: PathBuf,
}

impl Outside {
    /// Opens both, with the folder of the tools below this one.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) async fn open(ground: &Ground, folder: &Path) -> Result<Self, String> {
        let tools = folder.join("tools");
        let sink = Sink::watch(&tools)?;
        let profile = Profile {
            seed: ground.seed,
            latency_ms: LogNormal { median: MODEL_MS, spread: 0.5 },
            answer_tokens: LogNormal { median: 12.0, spread: 0.3 },
            faults: Faults::default(),
        };
        let config = Config {
            profile: profile.clone(),
            limits: KeyLimits::default(),
            tags: 0,
            answers_per_tag: 0,
            host: net::HOME,
            port: 0,
        };
        let endpoint = Endpoint::start(config).await.map_err(|error| format!("the model endpoint: {error}"))?;
        Ok(Self { sink, endpoint, profile, tools })
    }

    /// What nodes are told of them, as `nexa.toml`.
    pub(crate) fn settings(&self) -> String {
        let (url, tools) = (self.endpoint.url(), self.tools.display());
        format!(
            "model = \"sim/any\"\n\n[providers.sim]\nurl = \"{url}\"\nconcurrency = {MODEL_CONCURRENCY}\n\n[tools]\nfiles = \"{tools}\"\nwrite = true\n"
        )
    }
}

/// Looks after processes: those that end by themselves are noted, and started again.
pub(crate) fn tend(members: Vec<Arc<Member>>, ended: Arc<Mutex<Vec<Ended>>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            for seen in members.iter().filter_map(|member| member.tend()) {
                ended.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            }
            tokio::time::sleep(TEND_EVERY).await;
        }
    })
}

/// A running cluster.
pub(crate) struct Town {
    /// Everybody, nodes first.
    pub(crate) members: Vec<Arc<Member>>,
    /// Who counts.
    pub(crate) outside: Outside,
    /// A client at each node's door.
    pub(crate) doors: Vec<Client>,
    /// Where the log is.
    pub(crate) store: String,
    ended: Arc<Mutex<Vec<Ended>>>,
    tender: JoinHandle<()>,
}

impl Town {
    /// Builds one in a folder, with the database on a disk of its own if there is one, and waits until all of it serves.
    ///
    /// # Errors
    /// What did not start, with the end of its log.
    pub(crate) async fn build(ground: &Ground, folder: &Path, disk: Option<&Path>) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(folder).map_err(io)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).map_err(io)?;
        let outside = Outside::open(ground, folder).await?;
        let store = format!("postgres://nexa:{PASSWORD}@{POSTGRES}:5432/postgres");
        let settings = outside.settings();
        let mut members = Vec::new();
        for (place, name) in (11..).zip(NODES) {
            let home = folder.join(name);
            std::fs::create_dir_all(&home).map_err(io)?;
            std::fs::write(home.join("nexa.toml"), &settings).map_err(io)?;
            members.push(Member::new(name, Role::Node, at(place), node(ground, name, at(place), home, &store))?);
        }
        for (place, name) in (21..).zip(ETCDS) {
            members.push(Member::new(name, Role::Etcd, at(place), etcd(name, at(place), folder.join(name)))?);
        }
        let home = disk.map_or_else(|| folder.join("pg"), Path::to_path_buf);
        std::fs::create_dir_all(&home).map_err(io)?;
        run("cp", &["-a", &ground.template.to_string_lossy(), &home.join("data").to_string_lossy()])?;
        // What is there before the first start is written already, as after any installation.
        run("sync", &["-f", &home.to_string_lossy()])?;
        chown(&home, Some(ground.user.0), Some(ground.user.1)).map_err(io)?;
        members.push(Member::new("pg", Role::Postgres, POSTGRES, postgres(ground, &home, &folder.join("pg-log")))?);
        let members: Vec<Arc<Member>> = members.into_iter().map(Arc::new).collect();

        members.iter().filter(|member| member.role != Role::Node).try_for_each(|member| member.start())?;
        let pg = members.last().cloned().expect("it was pushed last");
        answers(&pg, async || TcpStream::connect((POSTGRES, 5432)).await.is_ok()).await?;
        for member in members.iter().filter(|member| member.role == Role::Etcd) {
            answers(member, async || is_healthy(member.address).await).await?;
        }
        members.iter().filter(|member| member.role == Role::Node).try_for_each(|member| member.start())?;
        let mut doors = Vec::new();
        for member in members.iter().filter(|member| member.role == Role::Node) {
            let address = format!("http://{}:7070", member.address);
            let options = Options { patience: QUICK, throttling: Throttling::Off, ..Options::default() };
            let until = Instant::now() + READY_WITHIN;
            doors.push(loop {
                match Client::connect(&address, options.clone()).await {
                    Ok(client) => break client,
                    Err(error) if Instant::now() > until => {
                        return Err(format!("{} does not serve: {error}\n{}", member.name, member.tail()));
                    }
                    Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                }
            });
        }
        let ended = Arc::<Mutex<Vec<Ended>>>::default();
        let tender = tend(members.clone(), Arc::clone(&ended));
        let town = Self { members, outside, doors, store, ended, tender };
        let until = Instant::now() + READY_WITHIN;
        while town.ready().await < NODES.len() {
            if Instant::now() > until {
                return Err(format!("the nodes do not become one cluster\n{}", town.members[0].tail()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(town)
    }

    /// How many nodes are listed as ready, by whoever answers first.
    pub(crate) async fn ready(&self) -> usize {
        let nodes = self.listed().await;
        nodes.iter().filter(|node| node.state() == v1::NodeState::Ready && node.load.is_some()).count()
    }

    async fn listed(&self) -> Vec<v1::Node> {
        for door in &self.doors {
            if let Ok(listed) = door.nodes(v1::ClusterServiceListNodesRequest {}).await {
                return listed.nodes;
            }
        }
        Vec::new()
    }

    /// Everybody of a role.
    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(move |member| member.role == role)
    }

    /// Who leads the nodes, if anybody does that somebody knows of.
    pub(crate) async fn leader(&self) -> Option<Arc<Member>> {
        let name = self.listed().await.into_iter().find(|node| node.is_leader)?.name;
        self.members.iter().find(|member| member.name == name).cloned()
    }

    /// Who leads etcd.
    pub(crate) async fn etcd_leader(&self) -> Option<Arc<Member>> {
        for member in self.of(Role::Etcd) {
            let said = ask(member.address, "POST /v3/maintenance/status", "{}").await.unwrap_or_default();
            let said: Value = serde_json::from_str(&said).unwrap_or_default();
            if said["leader"].is_string() && said["leader"] == said["header"]["member_id"] {
                return Some(Arc::clone(member));
            }
        }
        None
    }

    /// Who has ended without being asked to.
    pub(crate) fn ended(&self) -> Vec<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends everybody.
    pub(crate) fn clear(self) {
        self.tender.abort();
        self.members.iter().for_each(|member| member.kill(true));
    }
}

/// Waits until a member answers.
async fn answers(member: &Member, answers: impl AsyncFn() -> bool) -> Result<(), String> {
    let until = Instant::now() + READY_WITHIN;
    while !answers().await {
        if Instant::now() > until {
            return Err(format!("{} did not answer within {READY_WITHIN:?}\n{}", member.name, member.tail()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn is_healthy(address: Ipv4Addr) -> bool {
    ask(address, "GET /health", "").await.is_ok_and(|said| said.contains("\"true\""))
}

/// Asks a member of etcd over HTTP; gives the body.
async fn ask(address: Ipv4Addr, what: &str, body: &str) -> std::io::Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect((address, 2379)).await?;
        let length = body.len();
        let head = format!("{what} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(16 << 10).read_to_string(&mut answer).await?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    };
    tokio::time::timeout(Duration::from_secs(1), asked)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

fn words(all: &[&str]) -> Vec<OsString> {
    all.iter().map(OsString::from).collect()
}

fn node(ground: &Ground, name: &str, address: Ipv4Addr, folder: PathBuf, store: &str) -> Recipe {
    let (door, link) = (format!("{address}:7070"), format!("{address}:7071"));
    let etcd: Vec<String> = (21..24).map(|last| format!("{}:2379", at(last))).collect();
    Recipe {
        program: ground.nexa.clone(),
        args: words(&[
            "serve",
            "--name",
            name,
            "--listen",
            &door,
            "--listen-without-tls",
            "--link",
            &link,
            "--metrics",
            "127.0.0.1:9464",
            "-o",
            "json",
            "--grace",
            "15",
        ]),
        env: vec![
            ("NEXA_STORE", store.to_owned()),
            ("NEXA_ETCD", etcd.join(",")),
            ("NEXA_CERTS", ground.certs.display().to_string()),
            ("SIM_API_KEY", "battery".to_owned()),
        ],
        folder,
        user: None,
    }
}

/// A node by itself, with its data in this folder.
///
/// # Errors
/// What the system said.
pub(crate) fn by_itself(ground: &Ground, home: PathBuf, data: &Path) -> Result<Member, String> {
    let address = at(11);
    let door = format!("{address}:7070");
    let args = ["serve", "--name", "n1", "--store", &data.to_string_lossy(), "--listen", &door, "--listen-without-tls"];
    let more = ["--metrics", "127.0.0.1:9464", "-o", "json", "--grace", "15"];
    let recipe = Recipe {
        program: ground.nexa.clone(),
        args: words(&[&args[..], &more[..]].concat()),
        env: vec![("SIM_API_KEY", "battery".to_owned())],
        folder: home,
        user: None,
    };
    Member::new("n1", Role::Node, address, recipe)
}

fn etcd(name: &str, address: Ipv4Addr, folder: PathBuf) -> Recipe {
    let together: Vec<String> =
        (21..).zip(ETCDS).map(|(last, name)| format!("{name}=http://{}:2380", at(last))).collect();
    let (client, peer) = (format!("http://{address}:2379"), format!("http://{address}:2380"));
    Recipe {
        program: PathBuf::from("etcd"),
        args: words(&[
            "--data-dir=data",
            "--name",
            name,
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &together.join(","),
        ]),
        env: Vec::new(),
        folder,
        user: None,
    }
}

fn postgres(ground: &Ground, home: &Path, log: &Path) -> Recipe {
    let data = home.join("data");
    Recipe {
        program: ground.postgres.join("postgres"),
        args: words(&[
            "-D",
            &data.to_string_lossy(),
            "-c",
            "listen_addresses=*",
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=150",
            "-c",
            "shared_buffers=64MB",
        ]),
        env: Vec::new(),
        folder: log.to_path_buf(),
        user: Some(ground.user),
    }
}

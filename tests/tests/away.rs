//! What a cluster needs is away for a while: etcd, or PostgreSQL. Under load, and nothing is lost, wrong, or done twice.
//!
//! The load runs beside the cluster, at all three doors, so that it sees what any client would.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nexa_testkit::{etcd, postgres};
use nexa_tests::{Cluster, Desk, Finished, Process, Server, wait_until};
use serde_json::Value;

/// How long something is away: several terms of a lease of 3 s.
const AWAY: Duration = Duration::from_secs(10);
/// Workloads that must have ended before anything goes away, so that all nodes are at work.
const BEFORE: usize = 30;
/// Agents of a load, each with two calls of a model, and how many come a second.
const AGENTS: &str = "300";
const RATE: &str = "15";

/// Three nodes under load, with what they need.
struct Trial {
    database: postgres::Server,
    etcd: etcd::Server,
    cluster: Cluster,
    nodes: Vec<Server>,
    port: String,
}

impl Trial {
    /// `None`, and a line that says so, where something is not installed.
    fn start() -> Option<Self> {
        let (database, etcd) = (postgres::Server::start()?, etcd::Server::start()?);
        let mut cluster = Cluster::new(database.database(), etcd.endpoint(), &["a", "b", "c"]);
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
        let settings = format!(
            "model = \"sim/any\"\n\n[providers.sim]\nurl = \"http://127.0.0.1:{port}/v1\"\nconcurrency = 1000\n"
        );
        cluster.desk.write("nexa.toml", &settings);
        cluster.folder = cluster.desk.path("");
        cluster.variables.push(("SIM_API_KEY".to_owned(), "load".to_owned()));
        let nodes = ["a", "b", "c"].map(|name| cluster.serve(name, &[])).into();
        let trial = Self { database, etcd, cluster, nodes, port: port.to_string() };
        wait_until("the nodes to be one cluster", || {
            let nodes = trial.listed();
            nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "ready" && !node["load"].is_null())
        });
        Some(trial)
    }

    fn desk(&self) -> &Desk {
        &self.cluster.desk
    }

    /// Asks a node, of which no answer is no failure.
    fn ask(&self, node: &Server, args: &[&str]) -> Finished {
        let mut all = args.to_vec();
        all.extend(["--server", &node.address]);
        self.desk().run(&all)
    }

    fn listed(&self) -> Vec<Value> {
        lines(&self.ask(&self.nodes[0], &["nodes", "-o", "json"]))
    }

    /// The load, which ends by itself when all of it has.
    fn load(&self) -> Process {
        let mut command = self.desk().nexa(&["load", "--port", &self.port, "--agents", AGENTS, "--rate", RATE]);
        // A key with a limit, which nobody reaches: agents are not held until all of them ask.
        command.args([
            "--key-rpm",
            "1000000",
            "--calls",
            "2",
            "--latency-ms",
            "800",
            "--patience-s",
            "60",
            "-o",
            "json",
        ]);
        command.args(self.nodes.iter().flat_map(|node| ["--target", &node.address]));
        Process::start(command)
    }

    /// How many workloads have succeeded, as a list shows it.
    fn ended(&self) -> usize {
        lines(&self.ask(&self.nodes[0], &["ps", "-o", "json", "--limit", "1000"]))
            .iter()
            .filter(|it| it["state"] == "succeeded")
            .count()
    }

    /// A program that waits for nobody.
    fn program(&self) -> PathBuf {
        self.desk().write("new.nx", "flow main() -> str { return \"hello\" }\n")
    }

    /// New work is refused with a word about when to come back, and nobody waits for longer than a client does.
    #[track_caller]
    fn refuses_new_work(&self) {
        let (began, program) = (Instant::now(), self.program());
        let (code, err) = self.ask(&self.nodes[1], &["submit", program.to_str().expect("a plain path")]).bad();
        assert_eq!(code, 5, "{err}");
        // Whichever is noticed first: that nobody answers, or that what waits to be stored becomes more.
        let says = ["the store is not available", "the disk does not keep up"];
        assert!(says.iter().any(|says| err.contains(says)) && err.contains("come back in"), "{err}");
        eprintln!("it took {:?} until new work was refused: {err}", began.elapsed());
        wait_until("it to have been away for long", || began.elapsed() > AWAY);
    }

    fn until_at_work(&self) {
        wait_until("some of it to have ended", || self.ended() >= BEFORE);
    }
}

fn lines(finished: &Finished) -> Vec<Value> {
    finished.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What the load says in the end. Nothing may be lost, wrong, repeated, or refused for good.
#[track_caller]
fn all_went_right(mut load: Process) -> Value {
    let began = Instant::now();
    while !load.has_ended() {
        assert!(began.elapsed() < Duration::from_secs(180), "the load does not end: {}", load.said_so_far());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (out, err) = (load.rest_of_out(), load.rest_of_err());
    let figures: Value =
        serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{err}"));
    eprintln!("{figures}");
    for name in ["lost", "wrong", "repeated_effects", "not_accepted"] {
        assert_eq!(figures[name], 0, "{name}: {figures}\n{err}");
    }
    figures
}

fn wait_for(time: Duration) {
    let began = Instant::now();
    wait_until("it to have been away for long", || began.elapsed() > time);
}

#[test]
fn an_etcd_that_is_killed_and_comes_back_disturbs_nobody() {
    let Some(mut trial) = Trial::start() else { return };
    let load = trial.load();
    trial.until_at_work();
    trial.etcd.kill();
    // Longer than any lease counts: what runs goes on, and so does what is new, since whoever led still does.
    wait_for(AWAY / 2);
    let before = trial.ended();
    wait_for(AWAY / 2);
    assert!(trial.ended() > before, "agents stand still: {before} have ended");
    let new = trial.program();
    let new = trial.ask(&trial.nodes[1], &["submit", new.to_str().expect("a plain path"), "--watch"]).good();
    assert!(new.contains("hello"), "{new}");
    trial.etcd.restart();
    let figures = all_went_right(load);
    assert_eq!(figures["reissued_model_calls"], 0, "somebody was taken for gone: {figures}");
    for node in &mut trial.nodes {
        assert!(!node.process.has_ended(), "{}", node.process.rest_of_err());
    }
}

#[test]
fn an_etcd_that_stood_still_has_ended_all_leases_and_nodes_that_are_started_again_go_on() {
    let Some(mut trial) = Trial::start() else { return };
    let load = trial.load();
    trial.until_at_work();
    trial.etcd.pause();
    wait_for(AWAY / 2);
    let before = trial.ended();
    wait_for(AWAY / 2);
    assert!(trial.ended() > before, "agents stand still: {before} have ended");
    trial.etcd.resume();
    // To etcd no time has passed in which anybody could have renewed anything. Whoever looks after processes starts the
    // nodes again, as after any end with 7.
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut old = trial.nodes.remove(at);
        assert_eq!(old.process.wait().code(), Some(7), "{}", old.process.rest_of_err());
        let listen = old.address.trim_start_matches("http://").to_owned();
        trial.nodes.insert(at, trial.cluster.serve_at(name, &listen, &[]));
    }
    all_went_right(load);
}

#[test]
fn while_postgres_stands_still_agents_pause_and_callers_are_told_to_come_back() {
    let Some(trial) = Trial::start() else { return };
    let load = trial.load();
    trial.until_at_work();
    trial.database.freeze();
    trial.refuses_new_work();
    trial.database.thaw();
    all_went_right(load);
}

#[test]
fn agents_go_on_where_they_were_when_postgres_was_started_again() {
    let Some(trial) = Trial::start() else { return };
    let load = trial.load();
    trial.until_at_work();
    trial.database.crash();
    trial.refuses_new_work();
    trial.database.run();
    all_went_right(load);
}

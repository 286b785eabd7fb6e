//! A cluster on a database that is not the one that was there before: its anchors are in etcd.

use std::process::Command;

use nexa_testkit::{etcd, postgres};
use nexa_tests::{Cluster, Finished, finish, wait_until};
use serde_json::Value;

struct Trial {
    database: postgres::Server,
    /// Ended with the value.
    _etcd: etcd::Server,
    cluster: Cluster,
}

impl Trial {
    fn audit(&self, args: &[&str]) -> Finished {
        let mut command: Command = self.cluster.desk.nexa(&[&["audit"], args].concat());
        command.envs(self.cluster.variables.iter().cloned());
        finish(command)
    }

    fn verified(&self) -> (bool, Value) {
        let finished = self.audit(&["verify", "-o", "json"]);
        let found = serde_json::from_str(&finished.out).unwrap_or_else(|_| panic!("{} {}", finished.out, finished.err));
        (finished.status.success(), found)
    }

    /// Makes one database a copy of another.
    fn copy(&self, from: &str, to: &str) {
        let sql = |statement: String| self.database.sql("postgres", &statement);
        sql(format!("DROP DATABASE IF EXISTS {to} WITH (FORCE)"));
        sql(format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{from}'"));
        sql(format!("CREATE DATABASE {to} TEMPLATE {from}"));
    }
}

#[test]
fn a_cluster_refuses_an_older_database_until_a_person_accepts_it() {
    let (Some(database), Some(etcd)) = (postgres::Server::start(), etcd::Server::start()) else { return };
    let url = database.database();
    let name = url.rsplit('/').next().expect("an address has one").to_owned();
    let trial = Trial { cluster: Cluster::new(url, etcd.endpoint(), &["a"]), database, _etcd: etcd };
    let work = |server: &nexa_tests::Server| {
        let args = ["submit", "examples/hello/hello.nx", "--watch", "--server", &server.address];
        trial.cluster.desk.run(&args).good();
    };
    let anchored = || {
        let (is_whole, found) = trial.verified();
        assert!(is_whole && found["wrong"].is_null(), "{found}");
        (found["facts"].as_u64() > Some(0) && found["anchored_facts"] == found["facts"]).then_some(found)
    };

    let mut node = trial.cluster.serve("a", &[]);
    work(&node);
    wait_until("an anchor of everything", || anchored().is_some());
    let refused = trial.audit(&["accept", "--why", "a test"]);
    let (code, err) = refused.bad();
    assert!(code == 1 && err.contains("a node leads the cluster"), "{err}");
    node.process.signal("TERM");
    assert!(node.process.wait().success());
    trial.copy(&name, "older");

    let mut node = trial.cluster.serve("a", &[]);
    work(&node);
    wait_until("an anchor of that, too", || anchored().is_some());
    // The database is changed for an older one under a running node.
    trial.copy("older", &name);
    assert_eq!(node.process.wait().code(), Some(1));
    let err = node.process.rest_of_err();
    assert!(err.contains("the log has lost its newest facts") && !err.contains("panicked"), "{err}");

    let (is_whole, found) = trial.verified();
    assert!(!is_whole && found["wrong"].as_str().is_some_and(|wrong| wrong.contains("lost its newest")), "{found}");
    let mut refused = trial.cluster.start("a", &[]);
    assert_eq!(refused.wait().code(), Some(1));
    let err = refused.rest_of_err();
    assert!(err.contains("nexa audit accept --cluster nexa") && err.contains("lost its newest facts"), "{err}");

    trial.audit(&["accept", "--why", "a test put it back"]).good();
    let node = trial.cluster.serve("a", &[]);
    work(&node);
    wait_until("an anchor of what came then", || anchored().is_some());
}

//! The contract of auditing, on PostgreSQL.

use std::sync::Arc;

use nexa_postgres::{PostgresStore, Settings};
use nexa_testkit::audit_contract::{AnyAuditedStore, Bench, run_all};
use nexa_testkit::postgres::Server;
use nexa_types::NodeId;

struct Database {
    server: &'static Server,
    name: String,
    store: Option<Arc<PostgresStore>>,
}

impl Database {
    fn of(server: &'static Server) -> Self {
        let url = server.database();
        Self { server, name: url.rsplit('/').next().expect("an address has one").to_owned(), store: None }
    }

    /// Makes one database a copy of another.
    fn clone_to(&self, from: &str, to: &str) {
        self.server.sql("postgres", &format!("DROP DATABASE IF EXISTS {to} WITH (FORCE)"));
        // Sessions that were just closed are gone a moment later.
        let ending = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{from}'");
        self.server.sql("postgres", &ending);
        self.server.sql("postgres", &format!("CREATE DATABASE {to} TEMPLATE {from}"));
    }

    fn copy_name(&self) -> String {
        format!("{}_copy", self.name)
    }
}

impl Bench for Database {
    async fn open(&mut self) -> Result<AnyAuditedStore, String> {
        let url = self.server.url(&self.name, self.server.port());
        let node = NodeId::new("n1").expect("a good name");
        let store = PostgresStore::connect(Settings::new(url, node)).await.map_err(|error| error.to_string())?;
        let store = Arc::new(store);
        self.store = Some(Arc::clone(&store));
        Ok(store)
    }

    async fn close(&mut self) {
        self.store.take().expect("it is open").close().await;
    }

    fn sql(&self, statements: &str) {
        self.server.sql(&self.name, &format!("SET search_path = nexa; {statements}"));
    }

    fn key(&self) -> &'static str {
        "('a'::bytea || agents.agent)"
    }

    fn recount(&self) {
        self.sql("UPDATE head SET position = (SELECT coalesce(max(position), 0) FROM events)");
    }

    fn copy(&mut self) {
        self.clone_to(&self.name, &self.copy_name());
    }

    fn restore(&mut self) {
        self.clone_to(&self.copy_name(), &self.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auditing_on_postgresql_keeps_the_contract() {
    let Some(server) = Server::shared() else { return };
    run_all(|| Database::of(server)).await;
}

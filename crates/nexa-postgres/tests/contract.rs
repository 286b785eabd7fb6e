//! The contracts of stores and of leadership, on PostgreSQL.

use std::sync::Arc;

use nexa_postgres::{PostgresStore, Settings};
use nexa_testkit::postgres::Server;
use nexa_testkit::{leadership_contract, store_contract};
use nexa_types::NodeId;

async fn open(server: &Server) -> PostgresStore {
    let node = NodeId::new("n1").expect("a good name");
    PostgresStore::connect(Settings::new(server.database(), node)).await.expect("it opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_on_postgresql_keeps_the_contract() {
    let Some(server) = Server::shared() else { return };
    store_contract::run_all(async || Arc::new(open(server).await) as store_contract::AnyStore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_on_postgresql_keeps_the_contract() {
    let Some(server) = Server::shared() else { return };
    leadership_contract::run_all(async || Arc::new(open(server).await) as leadership_contract::AnyLedStore).await;
}

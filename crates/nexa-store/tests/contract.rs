//! The contracts of stores and of leadership, on SQLite.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use nexa_store::{Options, SqliteStore};
use nexa_testkit::leadership_contract::{self, AnyLedStore};
use nexa_testkit::store_contract::{AnyStore, run_all};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_on_sqlite_keeps_the_contract() {
    let (directories, opened) = (RefCell::new(Vec::new()), Cell::new(0));
    run_all(async || {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // Every second one has nearly all facts in its indices.
        opened.set(opened.get() + 1);
        let run_facts = (opened.get() % 2 == 0).then_some(2);
        let store = SqliteStore::open(directory.path(), Options { run_facts, ..Options::default() }).expect("open");
        directories.borrow_mut().push(directory);
        Arc::new(store) as AnyStore
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_on_sqlite_keeps_the_contract() {
    let directories = RefCell::new(Vec::new());
    leadership_contract::run_all(async || {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = SqliteStore::open(directory.path(), Options::default()).expect("open");
        directories.borrow_mut().push(directory);
        Arc::new(store) as AnyLedStore
    })
    .await;
}

//! The contract of auditing, on SQLite.

use std::path::Path;
use std::sync::Arc;

use nexa_ports::audit::{Audit, MemoryAnchors};
use nexa_ports::store::Store;
use nexa_store::{FileAnchors, Options, SqliteStore};
use nexa_testkit::audit_contract::{AnyAuditedStore, Bench, anchors_are_kept_in_a_row, run_all};
use nexa_testkit::store_contract::{submission, workload};
use nexa_types::Epoch;
use rusqlite::Connection;
use tempfile::TempDir;

struct Folder {
    folder: TempDir,
    copy: TempDir,
    store: Option<Arc<SqliteStore>>,
    /// See [`Options::run_facts`].
    run_facts: Option<usize>,
}

fn copied(from: &Path, to: &Path) {
    for name in ["nexa.db", "nexa.db-wal", "views.db", "views.db-wal"] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
    for name in ["nexa.db-shm", "views.db-shm"] {
        let _ = std::fs::remove_file(to.join(name));
    }
}

impl Bench for Folder {
    async fn open(&mut self) -> Result<AnyAuditedStore, String> {
        let options = Options { run_facts: self.run_facts, ..Options::default() };
        let store = SqliteStore::open(self.folder.path(), options).map_err(|error| error.to_string())?;
        let store = Arc::new(store);
        self.store = Some(Arc::clone(&store));
        Ok(store)
    }

    async fn close(&mut self) {
        let store = self.store.take().expect("it is open");
        drop(Arc::into_inner(store).expect("nobody else has it"));
    }

    fn sql(&self, statements: &str) {
        let file = Connection::open(self.folder.path().join("nexa.db")).expect("open");
        file.execute_batch(statements).expect("it is done");
    }

    fn key(&self) -> &'static str {
        "CAST('a' || agents.agent AS BLOB)"
    }

    fn recount(&self) {
        // Who knows what a store compares takes the read models away, too.
        for name in ["views.db", "views.db-wal", "views.db-shm"] {
            let _ = std::fs::remove_file(self.folder.path().join(name));
        }
    }

    fn copy(&mut self) {
        copied(self.folder.path(), self.copy.path());
    }

    fn restore(&mut self) {
        copied(self.copy.path(), self.folder.path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auditing_on_sqlite_keeps_the_contract() {
    let folder = || tempfile::tempdir().expect("a folder");
    for run_facts in [None, Some(3)] {
        run_all(|| Folder { folder: folder(), copy: folder(), store: None, run_facts }).await;
    }
}

#[tokio::test]
async fn anchors_in_a_file_and_in_memory_keep_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = FileAnchors::new(folder.path().join("data.anchors"));
    anchors_are_kept_in_a_row(Arc::new(file), 100, None, None).await;
    let memory = MemoryAnchors::new(8);
    memory.elect(Some(Epoch(7)));
    anchors_are_kept_in_a_row(Arc::new(memory), 8, Some(Epoch(7)), Some(Some(Epoch(5)))).await;
    anchors_are_kept_in_a_row(Arc::new(MemoryAnchors::new(8)), 8, None, Some(Some(Epoch(5)))).await;
}

/// A node that ends anchors its newest facts: it asks once, and does not wait in steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_the_root_gets_it_up_to_the_newest_fact() {
    let folder = TempDir::new().expect("a folder");
    let store = SqliteStore::open(folder.path(), Options::default()).expect("it opens");
    for number in 1..=50 {
        store.append(vec![submission(workload(number))]).await.remove(0).expect("it is accepted");
        let newest = store.log().await.expect("log").newest;
        assert_eq!(store.root().await.expect("root").position, newest);
    }
}

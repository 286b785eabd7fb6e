//! Read models on SQLite: the same answers as the twin in memory, also after a restart and a rebuild.

use std::sync::Arc;
use std::time::Duration;

use nexa_ports::store::Store;
use nexa_ports::view::{AgentFilter, MemoryViews, Page, ViewError, Views};
use nexa_store::{Options, SqliteStore};
use nexa_testkit::store_contract::{AnyStore, owned, submission, workload};
use nexa_testkit::view_contract::{LONG, append, fill, local, replied, same_answers};
use nexa_types::{AgentId, GlobalSeq, TenantId, Version};

#[tokio::test]
async fn both_read_models_answer_the_same_also_after_restart_and_rebuild() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let open = || Arc::new(SqliteStore::open(directory.path(), Options::default()).expect("open"));
    let store = open();
    fill(&*store).await;
    let memory = MemoryViews::new(Arc::clone(&store) as AnyStore);
    same_answers(&*store, &memory).await;
    store.rebuild().await.expect("rebuild");
    same_answers(&*store, &memory).await;
    drop((store, memory));

    let store = open();
    let memory = MemoryViews::new(Arc::clone(&store) as AnyStore);
    same_answers(&*store, &memory).await;
    let root = AgentId::root(workload(1));
    append(&*store, owned(root, 1, 3, vec![replied(1, "one more chapter")])).await;
    let head = *store.head().borrow();
    store.wait_applied(head, LONG).await.expect("it goes on after a restart");
    let found = store.search_history(local(), "more chapter".into(), None, Page::default()).await.expect("search");
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.applied_seq, head);
    drop((store, memory));

    // Damaged or somebody else's read models are made again.
    std::fs::write(directory.path().join("views.db"), b"not a database at all, but longer than a header is".repeat(99))
        .expect("write");
    let store = open();
    let memory = MemoryViews::new(Arc::clone(&store) as AnyStore);
    let head = *store.head().borrow();
    store.wait_applied(head, LONG).await.expect("it catches up");
    assert_eq!(store.digest(local()).await, memory.digest(local()).await);
}

#[tokio::test]
async fn nothing_of_one_tenant_is_shown_to_another() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(SqliteStore::open(directory.path(), Options::default()).expect("open"));
    fill(&*store).await;
    let head = *store.head().borrow();
    store.wait_applied(head, LONG).await.expect("it catches up");
    let memory = MemoryViews::new(Arc::clone(&store) as AnyStore);
    let stranger = || TenantId::new("stranger").expect("a good name");
    for views in [&*store as &dyn Views, &memory as &dyn Views] {
        let theirs = views.list_workloads(stranger(), None, Page::default()).await.expect("list");
        assert_eq!(theirs.items.iter().map(|view| view.workload).collect::<Vec<_>>(), [workload(99)]);
        assert_eq!(views.workload(stranger(), workload(1)).await, Ok(None));
        assert_eq!(views.workload(local(), workload(99)).await, Ok(None));
        assert_eq!(views.agent(stranger(), AgentId::root(workload(1))).await, Ok(None));
        let filter = AgentFilter { workload: Some(workload(1)), states: vec![] };
        assert!(views.list_agents(stranger(), filter, Page::default()).await.expect("list").items.is_empty());
        let found = views.search_history(stranger(), "chapter".into(), None, Page::default()).await.expect("search");
        assert!(found.items.is_empty());
        assert!(views.list_programs(stranger(), Page::default()).await.expect("list").items.is_empty());
    }
    assert_ne!(store.digest(stranger()).await, store.digest(local()).await);
}

#[tokio::test]
async fn a_position_that_is_not_there_yet_is_waited_for_and_said() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = SqliteStore::open(directory.path(), Options::default()).expect("open");
    let early = store.wait_applied(GlobalSeq(1), Duration::from_millis(1)).await;
    assert_eq!(early, Err(ViewError::Behind { wanted: GlobalSeq(1), applied: GlobalSeq(0) }));
    let (waited, ()) = tokio::join!(store.wait_applied(GlobalSeq(2), LONG), append(&store, submission(workload(1))));
    assert_eq!(waited, Ok(()));
    let bad = Page { size: 1, token: Some("' OR 1".into()) };
    assert_eq!(store.list_workloads(local(), None, bad).await, Err(ViewError::BadToken));
    let listed = store.list_workloads(local(), None, Page::default()).await.expect("list");
    assert_eq!((listed.items.len(), listed.next, listed.applied_seq), (1, None, GlobalSeq(2)));
}

/// Overwrites everything of a file but its first bytes.
fn damage(path: &std::path::Path, keep: usize) {
    use std::os::unix::fs::FileExt;
    let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) else { return };
    let len = file.metadata().expect("metadata").len() as usize;
    file.write_all_at(&vec![0xa5; len.saturating_sub(keep)], keep as u64).expect("write");
}

/// Waits until the read models say the same as the facts.
async fn heals(store: &Arc<SqliteStore>) {
    let memory = MemoryViews::new(Arc::clone(store) as AnyStore);
    let healed = async {
        loop {
            let head = *store.head().borrow();
            let caught_up = store.wait_applied(head, Duration::from_millis(50)).await.is_ok();
            if caught_up && store.digest(local()).await == memory.digest(local()).await {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, healed).await.expect("the read models are folded again");
    same_answers(&**store, &memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_that_are_damaged_while_the_store_is_open_are_folded_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Arc::new(SqliteStore::open(directory.path(), Options::default()).expect("open"));
    fill(&*store).await;
    store.wait_applied(*store.head().borrow(), LONG).await.expect("it catches up");
    let damaged = std::fs::File::open(directory.path().join("views.db")).expect("open");
    damage(&directory.path().join("views.db"), 4_096);
    damage(&directory.path().join("views.db-wal"), 32);
    // Both the projector and the readers may meet it first.
    append(&*store, owned(AgentId::root(workload(1)), 1, 3, vec![replied(1, "one more line")])).await;
    heals(&store).await;
    let links = std::os::unix::fs::MetadataExt::nlink(&damaged.metadata().expect("metadata"));
    assert_eq!(links, 0, "nothing is written into a damaged file any more");
    append(&*store, owned(AgentId::root(workload(1)), 1, 4, vec![replied(1, "and another line")])).await;
    heals(&store).await;
    assert_eq!(store.row(AgentId::root(workload(1))).await.expect("row").expect("it exists").version, Version(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_that_were_damaged_before_the_store_is_opened_are_folded_again() {
    for keep in [0, 100, 4_096, 3 * 4_096, 8 * 4_096] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let open = || Arc::new(SqliteStore::open(directory.path(), Options::default()).expect("open"));
        let store = open();
        fill(&*store).await;
        store.wait_applied(*store.head().borrow(), LONG).await.expect("it catches up");
        drop(store);
        let path = directory.path().join("views.db");
        // Moves what is in the log into the file, so that the damage is in the file.
        let mover = rusqlite::Connection::open(&path).expect("open");
        mover.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpoint");
        drop(mover);
        damage(&path, keep);
        let store = open();
        append(&*store, owned(AgentId::root(workload(1)), 1, 3, vec![replied(1, "one more line")])).await;
        heals(&store).await;
    }
}

//! Lost answers, a server that crashes, one that stands still, and a commit that is refused at the last moment.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexa_ports::store::{AppendError, Store, StoreError};
use nexa_testkit::postgres::Server;
use nexa_testkit::store_contract::{emitted, owned, submission, workload};
use nexa_testkit::view_contract::LONG;
use nexa_types::{AgentId, GlobalSeq, StreamId, Version};
use support::{Proxy, append, message, open};

fn is_ambiguous<T>(answer: &Result<T, AppendError>) -> bool {
    matches!(answer, Err(AppendError::Store(StoreError::Ambiguous { .. })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_a_commit_leaves_the_result_open_and_reading_tells() {
    let Some(server) = Server::shared() else { return };
    let proxy = Proxy::start(server.port()).await;
    let url = server.database();
    let database = url.rsplit('/').next().expect("an address has one");
    let store = open(&server.url(database, proxy.port), "n1").await;
    append(&*store, submission(workload(1))).await.expect("it is new");
    let root = AgentId::root(workload(1));
    append(&*store, owned(root, 1, 1, vec![emitted(1)])).await.expect("append");

    proxy.cut_answers(true);
    let lost = append(&*store, owned(root, 1, 2, vec![emitted(2)])).await;
    assert!(is_ambiguous(&lost), "{lost:?}");
    assert!(store.trouble().is_some(), "whoever asks is told");
    proxy.cut_answers(false);
    // The server goes on with what it got, so that reading waits for the row.
    let stored = async {
        while store.row(root).await.expect("row").expect("it exists").version != Version(3) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, stored).await.expect("this one was stored");
    let again = append(&*store, owned(root, 1, 2, vec![emitted(2)])).await;
    assert_eq!(again, Err(AppendError::VersionConflict { given: Version(2), current: Version(3) }));
    append(&*store, owned(root, 1, 3, vec![emitted(3)])).await.expect("it goes on");
    assert_eq!(store.trouble(), None);
    assert_eq!(store.read(StreamId::Agent(root), Version(0), 10).await.expect("read").len(), 4);
}

/// ST-5: what was acknowledged is there after a crash, and what was not was refused or is in doubt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash_of_the_server() {
    let Some(server) = Server::start() else { return };
    let store = open(&server.database(), "n1").await;
    const WRITERS: u8 = 6;
    for number in 1..=WRITERS {
        append(&*store, submission(workload(number))).await.expect("it is new");
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (1..=WRITERS)
        .map(|number| {
            let (store, stopped) = (Arc::clone(&store), stopped.clone());
            tokio::spawn(async move {
                let root = AgentId::root(workload(number));
                let (mut version, mut acknowledged) = (1, 1);
                while !*stopped.borrow() {
                    match append(&*store, owned(root, 1, version, vec![emitted(version)])).await {
                        Ok(appended) => {
                            version = appended.version.0;
                            acknowledged = version;
                        }
                        // As an agent does: read again before anything else.
                        Err(AppendError::Store(_)) => {
                            let row = loop {
                                match store.row(root).await {
                                    Ok(row) => break row.expect("an acknowledged agent is gone"),
                                    Err(_) => tokio::task::yield_now().await,
                                }
                            };
                            assert!(row.version.0 >= acknowledged, "an acknowledged fact is gone");
                            version = row.version.0;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    for _ in 0..3 {
        let before = *store.head().borrow();
        store.head().wait_for(|head| head.0 > before.0 + 40).await.expect("it is open");
        server.crash();
        server.run();
    }
    let before = *store.head().borrow();
    let goes_on = async { store.head().wait_for(|head| head.0 > before.0 + 40).await.map(|head| *head) };
    tokio::time::timeout(LONG, goes_on).await.expect("it goes on by itself").expect("it is open");
    stop.send_replace(true);
    for (number, writer) in (1..=WRITERS).zip(writers) {
        let acknowledged = writer.await.expect("no writer fails");
        let facts =
            store.read(StreamId::Agent(AgentId::root(workload(number))), Version(0), 100_000).await.expect("read");
        assert!(facts.len() as u64 >= acknowledged, "{} of {acknowledged}", facts.len());
    }
    assert!(store.scan(None, GlobalSeq(0), 1_000_000).await.is_ok(), "no position is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_waits_for_ever_when_the_server_stands_still() {
    let Some(server) = Server::start() else { return };
    let store = open(&server.database(), "n1").await;
    append(&*store, submission(workload(1))).await.expect("it is new");
    let root = AgentId::root(workload(1));
    store.row(root).await.expect("row");
    server.freeze();
    let start = Instant::now();
    let (appended, posted, row) = tokio::join!(
        append(&*store, owned(root, 1, 1, vec![emitted(1)])),
        store.post(message(root, 1), nexa_testkit::store_contract::stamp(1)),
        store.row(root),
    );
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    let refused = |error: &StoreError| matches!(error, StoreError::Unavailable { .. } | StoreError::Ambiguous { .. });
    assert!(matches!(&appended, Err(AppendError::Store(error)) if refused(error)), "{appended:?}");
    assert!(matches!(&posted, Err(error) if refused(error)), "{posted:?}");
    assert!(matches!(&row, Err(StoreError::Unavailable { .. })), "{row:?}");
    server.thaw();
    let goes_on = async {
        loop {
            let Ok(Some(row)) = store.row(root).await else { continue };
            if append(&*store, owned(root, 1, row.version.0, vec![emitted(2)])).await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, goes_on).await.expect("it goes on by itself");
}

/// An answer may come before the commit does: what fails then was not stored, and nobody is told that it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_commit_is_refused_is_not_acknowledged() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let store = open(&url, "n1").await;
    append(&*store, submission(workload(1))).await.expect("it is new");
    server.sql(
        url.rsplit('/').next().expect("an address has one"),
        "CREATE FUNCTION nexa.refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE disk_full; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON nexa.events DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW WHEN (new.version = 3) EXECUTE FUNCTION nexa.refuse()",
    );
    let root = AgentId::root(workload(1));
    append(&*store, owned(root, 1, 1, vec![emitted(1)])).await.expect("append");
    let refused = append(&*store, owned(root, 1, 2, vec![emitted(2)])).await;
    assert_eq!(refused, Err(AppendError::Store(StoreError::DiskFull)));
    assert_eq!(store.trouble(), Some(StoreError::DiskFull));
    // Where a batch is refused, those of it that are not the reason are stored.
    append(&*store, submission(workload(2))).await.expect("another one fits");
    assert_eq!(store.row(root).await.expect("row").expect("it exists").version, Version(2));
    assert_eq!(store.scan(None, GlobalSeq(0), 10).await.expect("scan").len(), 5, "no position was lost with it");
}

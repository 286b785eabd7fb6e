//! Processes that are killed while they write to a bucket, and servers of buckets that are killed meanwhile.

#![cfg(feature = "s3")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nexa_pages::{Access, LancePages, Settings};
use nexa_ports::pages::{ANSWER_PAGES_MAX, PageBatch, PageStore, PagesError, Shard};
use nexa_testkit::minio::Server;
use nexa_testkit::pages_contract::agent;
use nexa_types::{Epoch, GlobalSeq, TenantId, Version};
use support::{Worker, batch, judge, shards, works_until_it_is_killed};
use tokio::sync::Notify;

/// Kills of one run of a test; `NEXA_PAGES_KILLS` says another number.
const KILLS: u64 = 6;
/// Every so many batches the shard is compacted.
const COMPACT_EVERY: u64 = 5;
/// How long writers may take to go on, or to give up.
const TOLD_WITHIN: Duration = Duration::from_secs(180);

fn kills() -> u64 {
    std::env::var("NEXA_PAGES_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

fn settings(server: &Server) -> Settings {
    Settings { access: Access::of(server.access()), ..Settings::default() }
}

#[test]
#[ignore = "a process that the next test starts and kills"]
fn helper_works_until_it_is_killed() {
    works_until_it_is_killed();
}

/// The process is told by its environment alone where its bucket is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_bucket_acknowledged_before_a_kill_is_there_after_it() {
    let Some(server) = Server::start() else { return };
    let at = server.url("kills");
    let mut all = BTreeMap::new();
    for kill in 0..kills() {
        let env = server.access();
        let mut worker = Worker::start("helper_works_until_it_is_killed", &at, 2 * kill + 1, true, &env);
        assert!(worker.acks(3 + (kill as usize * 5) % 17), "it works until it is killed");
        all.extend(worker.kill());
        let judged = judge(&at, settings(&server), &all, 2 * kill + 2).await;
        assert_eq!(judged, Ok(()), "after kill {kill}: {all:?}");
    }
    println!("{} kills, acknowledged up to {all:?}", kills());
}

/// What the writers of a test tell each other.
#[derive(Default)]
struct Told {
    acks: AtomicU64,
    errors: AtomicU64,
    is_over: AtomicBool,
    changed: Notify,
}

impl Told {
    async fn wait(&self, count: &AtomicU64, until: u64) {
        let counted = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if count.load(Ordering::SeqCst) >= until {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(TOLD_WITHIN, counted).await.expect("writers go on");
    }

    fn add(&self, count: &AtomicU64) {
        count.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

/// Writes as the tail of the log does: again after whatever was not stored, and after a take-over where that is not known.
/// Gives the last batch that was acknowledged.
async fn writes(pages: LancePages, shard: Shard, told: Arc<Told>) -> (u16, u64) {
    let epoch = Epoch(1);
    let (mut acked, mut next) = (0, None);
    while !told.is_over.load(Ordering::SeqCst) {
        let Some(number) = next else {
            match pages.take_over(shard, epoch).await {
                Ok(applied) => {
                    assert!(applied.0 >= acked, "shard {} goes up to {applied} after {acked}", shard.0);
                    next = Some(applied.0 + 1);
                }
                Err(PagesError::Unavailable(_) | PagesError::Unknown(_)) => told.add(&told.errors),
                Err(other) => panic!("taking shard {} over: {other}", shard.0),
            }
            continue;
        };
        let all = PageBatch { shard, epoch, applied: GlobalSeq(number), pages: batch(shard, number) };
        let mut written = pages.append(all).await;
        if written.is_ok() {
            acked = number;
            next = Some(number + 1);
            told.add(&told.acks);
            if number.is_multiple_of(COMPACT_EVERY) {
                written = pages.compact(shard, epoch).await.map(drop);
            }
        }
        match written {
            Ok(()) => {}
            Err(PagesError::Unavailable(_)) => told.add(&told.errors),
            Err(PagesError::Unknown(_) | PagesError::Fenced { .. }) => {
                next = None;
                told.add(&told.errors);
            }
            Err(other) => panic!("batch {number} of shard {}: {other}", shard.0),
        }
    }
    (shard.0, acked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_pages_are_written_loses_none_and_damages_none() {
    let Some(mut server) = Server::start() else { return };
    let at = server.url("outages");
    let pages = LancePages::open(&at, shards(), settings(&server)).await.expect("open");
    let reader =
        LancePages::open(&at, shards(), Settings { memory_bytes: 0, ..settings(&server) }).await.expect("open");
    let told = Arc::new(Told::default());
    let writers: Vec<_> =
        shards().all().map(|shard| tokio::spawn(writes(pages.clone(), shard, Arc::clone(&told)))).collect();
    for kill in 0..kills() {
        let acks = told.acks.load(Ordering::SeqCst);
        told.wait(&told.acks, acks + 2 + (kill * 5) % 13).await;
        let errors = told.errors.load(Ordering::SeqCst);
        server.kill();
        // Every other time it is back before anybody gives up.
        if kill.is_multiple_of(2) {
            for agent in (1..=6).map(agent) {
                let read = reader.scan(TenantId::local(), agent, Version(0), ANSWER_PAGES_MAX).await;
                assert!(matches!(read, Err(PagesError::Unavailable(_))), "without a server: {read:?}");
            }
            told.wait(&told.errors, errors + 1).await;
        }
        server = tokio::task::spawn_blocking(move || {
            server.restart();
            server
        })
        .await
        .expect("it starts");
    }
    let acks = told.acks.load(Ordering::SeqCst);
    told.wait(&told.acks, acks + 4).await;
    told.is_over.store(true, Ordering::SeqCst);
    let mut all = BTreeMap::new();
    for writer in writers {
        let (shard, acked) = writer.await.expect("a writer meets nothing but a server that is away");
        all.insert(shard, acked);
    }
    println!("{} kills of the server, {} errors, up to {all:?}", kills(), told.errors.load(Ordering::SeqCst));
    assert_eq!(judge(&at, settings(&server), &all, 2).await, Ok(()));
}

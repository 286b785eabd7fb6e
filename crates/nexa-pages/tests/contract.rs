//! The contract of stores of pages, on Lance.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use nexa_pages::{LancePages, Settings};
use nexa_ports::pages::Shards;
use nexa_testkit::pages_contract::{AnyPages, Place, run_all};
use tempfile::TempDir;

struct InFolder {
    folder: TempDir,
    shards: u16,
    settings: Settings,
}

impl Place for InFolder {
    fn open(&self) -> BoxFuture<'_, AnyPages> {
        async {
            let at = self.folder.path().join("pages");
            let shards = Shards::new(self.shards).expect("a good number");
            let pages = LancePages::open(&at.to_string_lossy(), shards, self.settings.clone()).await.expect("open");
            Arc::new(pages) as AnyPages
        }
        .boxed()
    }
}

async fn keeps_the_contract(shards: u16, settings: Settings) {
    run_all(async || InFolder {
        folder: tempfile::tempdir().expect("a temporary directory"),
        shards,
        settings: settings.clone(),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_in_lance_keep_the_contract() {
    keeps_the_contract(4, Settings::default()).await;
}

/// What a compaction replaces goes at once, so that whoever still reads it has to look again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_in_one_shard_keep_the_contract_without_rest() {
    let settings = Settings { fsync: false, retired_kept: Duration::ZERO, ..Settings::default() };
    keeps_the_contract(1, settings).await;
}

/// Nothing is kept in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_without_memory_keep_the_contract() {
    keeps_the_contract(2, Settings { fsync: false, memory_bytes: 0, ..Settings::default() }).await;
}

/// The same in a bucket of a real server.
#[cfg(feature = "s3")]
mod in_a_bucket {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nexa_pages::Access;
    use nexa_testkit::minio::Server;

    use super::*;

    struct InBucket {
        at: String,
        shards: u16,
        settings: Settings,
    }

    impl Place for InBucket {
        fn open(&self) -> BoxFuture<'_, AnyPages> {
            async {
                let shards = Shards::new(self.shards).expect("a good number");
                let pages = LancePages::open(&self.at, shards, self.settings.clone()).await.expect("open");
                Arc::new(pages) as AnyPages
            }
            .boxed()
        }
    }

    async fn keeps_the_contract(shards: u16, settings: Settings) {
        let Some(server) = Server::start() else { return };
        let settings = Settings { access: Access::of(server.access()), ..settings };
        let places = AtomicUsize::new(0);
        run_all(async || {
            let at = server.url(&format!("a place/of Ümläut/{}", places.fetch_add(1, Ordering::Relaxed)));
            InBucket { at, shards, settings: settings.clone() }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pages_in_a_bucket_keep_the_contract() {
        keeps_the_contract(4, Settings::default()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pages_in_one_shard_of_a_bucket_keep_the_contract_without_rest() {
        keeps_the_contract(1, Settings { retired_kept: Duration::ZERO, memory_bytes: 0, ..Settings::default() }).await;
    }
}

//! What only shows from inside, in a bucket of a real server: writers that are overtaken, and objects that are damaged.

use std::path::Path;

use nexa_testkit::minio::Server;
use nexa_testkit::pages_contract::{agent, page};
use object_store::ObjectStoreExt as _;

use super::*;
use crate::tests::{
    SHARD, are_compacted, batch, comes_too_late, is_overtaken, is_tidied, one_shard, opened, quick, set,
    take_at_the_same_time, texts,
};

fn settings(server: &Server) -> Settings {
    Settings { access: Access::of(server.access()), ..quick() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_in_a_bucket_has_one_writer() {
    let Some(server) = Server::start() else { return };
    let settings = settings(&server);
    is_overtaken(Path::new(&server.url("overtaken")), &settings).await;
    take_at_the_same_time(Path::new(&server.url("taken")), &settings).await;
    comes_too_late(Path::new(&server.url("late")), &settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_in_a_bucket_is_kept_small() {
    let Some(server) = Server::start() else { return };
    is_tidied(Path::new(&server.url("tidied")), &settings(&server)).await;
    are_compacted(Path::new(&server.url("compacted")), &settings(&server)).await;
}

/// Whatever object is missing, empty or short: an answer is what was written, or the shard is damaged and is written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_shard_in_a_bucket_is_dropped_and_written_again() {
    let Some(server) = Server::start() else { return };
    let settings = Settings { retired_kept: Duration::ZERO, ..settings(&server) };
    let filled = async |turn: usize| {
        let at = server.url(&format!("damaged/{turn}"));
        let pages = opened(Path::new(&at), &settings).await;
        pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
        pages.append(batch(1, 1, vec![page(agent(1), 1, "one"), page(agent(2), 1, "other")])).await.expect("stored");
        pages.compact(SHARD, Epoch(1)).await.expect("compacted");
        pages.append(batch(1, 2, vec![page(agent(1), 5, "two")])).await.expect("stored");
        (at, pages)
    };
    let (mut noticed, mut turns) = (0, 0);
    for turn in 0.. {
        let (at, pages) = filled(turn).await;
        let store = &pages.stores[0].storage;
        let objects = store.objects().await.expect("listed");
        let Some(damaged) = objects.get(turn) else { break };
        let bytes = store.store().get(damaged).await.expect("it is there").bytes().await.expect("read");
        match turn % 3 {
            0 => store.store().delete(damaged).await.expect("removed"),
            1 => drop(store.store().put(damaged, Vec::new().into()).await.expect("written")),
            _ => drop(store.store().put(damaged, bytes.slice(..bytes.len() / 2).into()).await.expect("written")),
        }
        let later = opened(Path::new(&at), &settings).await;
        let mut is_noticed = false;
        match later.scan(TenantId::local(), agent(1), Version(0), ANSWER_PAGES_MAX).await {
            Err(PagesError::Damaged { .. }) => is_noticed = true,
            Err(other) => panic!("{damaged}, {}: {other}", turn % 3),
            // Without its newest claim, or the newest manifest of the part that grows, a shard is what it was before: the next writer
            // is told so, and goes on from there.
            Ok(found) => match later.take_over(SHARD, Epoch(2)).await {
                Err(PagesError::Damaged { .. }) => is_noticed = true,
                Err(other) => panic!("{damaged}, {}: {other}", turn % 3),
                Ok(applied) => {
                    let found: Vec<&str> = found.iter().map(|page| page.text.as_str()).collect();
                    let told: &[&str] = match applied.0 {
                        0 => &[],
                        1 => &["one"],
                        _ => &["one", "two"],
                    };
                    assert!(told.iter().all(|text| found.contains(text)), "{damaged}: {found:?} up to {applied}");
                }
            },
        }
        noticed += usize::from(is_noticed);
        later.drop_pages(SHARD, Epoch(3)).await.expect("dropped");
        assert_eq!(later.take_over(SHARD, Epoch(3)).await, Ok(GlobalSeq(0)), "after {damaged}");
        assert_eq!(texts(&later).await, set(&[]));
        later.append(batch(3, 2, vec![page(agent(1), 1, "again")])).await.expect("it is stored");
        assert_eq!(texts(&opened(Path::new(&at), &settings).await).await, set(&["again"]), "after {damaged}");
        turns += 1;
    }
    // A claim, and of each of two parts its newest manifest and its data; of the part that grows, the manifest may be the one that
    // is gone, as their names are random.
    assert!(noticed >= 4, "objects in use are missed: {noticed} of {turns} are noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_cannot_be_used_is_not_opened() {
    let Some(server) = Server::start() else { return };
    let open = async |at: &str, access: Vec<(String, String)>| {
        LancePages::open(at, one_shard(), Settings { access: Access::of(access), ..quick() }).await.map(drop)
    };
    assert_eq!(open(&server.url("pages"), server.access()).await, Ok(()));
    let missing = open("s3://there-is-none/pages", server.access()).await;
    assert!(matches!(missing, Err(PagesError::Unavailable(_))), "{missing:?}");
    let mut stranger = server.access();
    stranger.retain(|(name, _)| name != "AWS_SECRET_ACCESS_KEY");
    stranger.push(("AWS_SECRET_ACCESS_KEY".to_owned(), "another".to_owned()));
    let unknown = open(&server.url("pages"), stranger).await;
    assert!(matches!(&unknown, Err(PagesError::Unavailable(why)) if !why.contains("another")), "{unknown:?}");
    let two = Shards::new(2).expect("a good number");
    let settings = settings(&server);
    let refused = LancePages::open(&server.url("pages"), two, settings.clone()).await.map(drop);
    assert!(matches!(refused, Err(PagesError::Refused(_))), "the number of shards never changes: {refused:?}");
    let pages = opened(Path::new(&server.url("pages")), &settings).await;
    assert_eq!(pages.has_some().await, Ok(false));
    pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
    assert_eq!(pages.has_some().await, Ok(true));
    assert!(!format!("{settings:?}").contains("tester-secret"), "a secret is in no log");
}

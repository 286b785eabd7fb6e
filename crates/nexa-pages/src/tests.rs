//! What only shows from inside: writers that are overtaken in the midst of a write, and damaged files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nexa_ports::pages::{PageKind, PageVector};
use nexa_testkit::pages_contract::{agent, near, page};

use super::*;

pub(crate) const SHARD: Shard = Shard(0);

pub(crate) fn one_shard() -> Shards {
    Shards::new(1).expect("a good number")
}

pub(crate) async fn opened(folder: &Path, settings: &Settings) -> LancePages {
    LancePages::open(&folder.to_string_lossy(), one_shard(), settings.clone()).await.expect("open")
}

pub(crate) fn quick() -> Settings {
    Settings { fsync: false, ..Settings::default() }
}

pub(crate) fn batch(epoch: u64, applied: u64, pages: Vec<StoredPage>) -> PageBatch {
    PageBatch { shard: SHARD, epoch: Epoch(epoch), applied: GlobalSeq(applied), pages }
}

pub(crate) async fn texts(pages: &LancePages) -> BTreeSet<String> {
    let all = pages.scan(TenantId::local(), agent(1), Version(0), ANSWER_PAGES_MAX).await.expect("a scan");
    all.into_iter().map(|page| page.text).collect()
}

pub(crate) fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// PG-3, at the worst moment: the writer was judged to be the writer, and is taken over from before it commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_overtaken_in_the_midst_of_a_write_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    is_overtaken(folder.path(), &quick()).await;
}

pub(crate) async fn is_overtaken(at: &Path, settings: &Settings) {
    let (early, late) = (opened(at, settings).await, opened(at, settings).await);
    let before = |number: u64| page(agent(1), 1 + 4 * number, &format!("before {number}"));
    early.take_over(SHARD, Epoch(3)).await.expect("nobody was there before");
    early.append(batch(3, 7, vec![before(0), before(1)])).await.expect("it is stored");
    let mut kept = set(&["before 0", "before 1"]);
    for turn in 0..3_u64 {
        let epoch = 3 + turn;
        let (writer, next) = if turn % 2 == 0 { (&early, &late) } else { (&late, &early) };
        let mut writing = writer.stores[0].writing(Epoch(epoch)).await.expect("it is the writer");
        let applied = next.take_over(SHARD, Epoch(epoch + 1)).await;
        assert_eq!(applied, Ok(GlobalSeq(7 + turn)));
        let fenced = PagesError::Fenced { given: Epoch(epoch), current: Epoch(epoch + 1) };
        let zombie = page(agent(1), 100 + turn, "of a zombie");
        match turn {
            0 => assert_eq!(writing.append(batch(epoch, 99, vec![zombie.clone()])).await, Err(fenced)),
            1 => assert_eq!(writing.compact().await, Err(fenced)),
            _ => assert_eq!(writing.delete_agent(&TenantId::local(), agent(1), Version(1)).await, Err(fenced)),
        }
        drop(writing);
        let after = page(agent(1), 50 + 4 * turn, &format!("after {turn}"));
        next.append(batch(epoch + 1, 8 + turn, vec![after.clone()])).await.expect("the new writer goes on");
        kept.insert(after.text);
        for handle in [&early, &late, &opened(at, settings).await] {
            assert_eq!(texts(handle).await, kept, "in turn {turn}");
        }
    }
    let last = early.take_over(SHARD, Epoch(9)).await;
    assert_eq!(last, Ok(GlobalSeq(10)), "a zombie's position counts for nothing");
    early.compact(SHARD, Epoch(9)).await.expect("compacted");
    assert_eq!(texts(&late).await, kept);
}

/// Takers at the same time: one order of epochs comes of it, and only the last may write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_takers_at_the_same_time_the_latest_epoch_stays() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    take_at_the_same_time(folder.path(), &quick()).await;
}

pub(crate) async fn take_at_the_same_time(at: &Path, settings: &Settings) {
    let mut takers = Vec::new();
    for epoch in 1..=6 {
        let pages = opened(at, settings).await;
        takers.push(tokio::spawn(async move {
            let taken = pages.take_over(SHARD, Epoch(epoch)).await;
            let written = pages.append(batch(epoch, epoch, vec![page(agent(1), epoch, &epoch.to_string())])).await;
            (epoch, taken, written)
        }));
    }
    let mut acknowledged = BTreeSet::new();
    for taker in takers {
        let (epoch, taken, written) = taker.await.expect("it ends");
        assert!(matches!(taken, Ok(_) | Err(PagesError::Fenced { .. })), "{taken:?}");
        assert!(matches!(written, Ok(()) | Err(PagesError::Fenced { .. } | PagesError::Unknown(_))), "{written:?}");
        assert!(epoch < 6 || (taken.is_ok() && written.is_ok()), "nobody may hold the latest up");
        if written.is_ok() {
            acknowledged.insert(epoch.to_string());
        }
    }
    let read = texts(&opened(at, settings).await).await;
    assert!(read.contains("6") && read.is_subset(&acknowledged), "{read:?} of {acknowledged:?}");
}

/// A process that died between its dataset and its claim leaves a part that nobody knows; the next writer removes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unfinished_compaction_left_goes_with_the_next_claim() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    is_tidied(folder.path(), &quick()).await;
}

pub(crate) async fn is_tidied(at: &Path, settings: &Settings) {
    let settings = Settings { retired_kept: Duration::ZERO, ..settings.clone() };
    let pages = opened(at, &settings).await;
    pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
    pages.append(batch(1, 1, vec![page(agent(1), 1, "kept")])).await.expect("it is stored");
    let store = &pages.stores[0];
    let orphan = claim::Claim::part_name(2, Epoch(1));
    part::Part::create(&store.storage, SHARD, &orphan).await.expect("made");
    pages.compact(SHARD, Epoch(1)).await.expect("compacted");
    let parts = store.storage.parts(SHARD).await.expect("listed");
    assert!(!parts.contains(&orphan) && parts.len() == 2, "{parts:?}");
    assert_eq!(texts(&pages).await, set(&["kept"]));
}

/// The part that is appended to is compacted by itself once it has many fragments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_batches_are_compacted_by_themselves() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    are_compacted(folder.path(), &quick()).await;
}

pub(crate) async fn are_compacted(at: &Path, settings: &Settings) {
    let pages = opened(at, settings).await;
    pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
    for number in 1..=70 {
        pages.append(batch(1, number, vec![page(agent(1), number, &number.to_string())])).await.expect("it is stored");
    }
    let seen = pages.stores[0].view.now().await.expect("seen");
    let fragments: Vec<usize> = seen.parts.iter().map(|part| part.fragments.len()).collect();
    assert_eq!(fragments, [1, 6]);
    assert_eq!(texts(&pages).await.len(), 70);
}

/// Each take-over leaves a part, however short; also a shard whose writers never last is compacted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_taken_over_again_and_again_has_few_parts() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let pages = opened(folder.path(), &quick()).await;
    for epoch in 1..=40 {
        pages.take_over(SHARD, Epoch(epoch)).await.expect("a later epoch");
        pages.append(batch(epoch, epoch, vec![page(agent(1), epoch, &epoch.to_string())])).await.expect("it is stored");
    }
    let seen = pages.stores[0].view.now().await.expect("seen");
    assert!(seen.parts.len() < 16, "{} parts", seen.parts.len());
    assert_eq!(texts(&pages).await.len(), 40);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => all.extend(files(&path)),
            path => all.push(path),
        }
    }
    all.sort();
    all
}

/// Every answer that a reader can get.
async fn answers(folder: &Path) -> Result<Vec<StoredPage>, PagesError> {
    let pages = opened(folder, &quick()).await;
    let mut all = Vec::new();
    for number in 1..4 {
        let agent = agent(number);
        let query = PageQuery { words: Some("fox".to_owned()), near: Some(near("red fox")), best: 50 };
        let hits = pages.search(Scope::Agent(TenantId::local(), agent), query).await?;
        let ids: Vec<PageId> = hits.iter().map(|hit| hit.id).collect();
        all.extend(pages.read(TenantId::local(), agent, ids).await?);
        all.extend(pages.scan(TenantId::local(), agent, Version(0), ANSWER_PAGES_MAX).await?);
    }
    Ok(all)
}

async fn filled(folder: &Path) -> LancePages {
    let pages = opened(folder, &Settings { retired_kept: Duration::ZERO, ..quick() }).await;
    pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
    let all =
        |of: u64| (1..4).map(move |number| page(agent(number), 1 + 4 * of, &format!("the red fox {of} of {number}")));
    pages.append(batch(1, 1, all(0).chain(all(1)).collect())).await.expect("it is stored");
    pages.compact(SHARD, Epoch(1)).await.expect("compacted");
    pages.append(batch(1, 2, all(2).collect())).await.expect("it is stored");
    pages
}

/// Whether any file has some bytes.
fn is_on_disk(folder: &Path, bytes: &[u8]) -> bool {
    let has = |path: &PathBuf| std::fs::read(path).expect("a file").windows(bytes.len()).any(|of| of == bytes);
    files(folder).iter().any(has)
}

/// PG-5 on the disk: of an agent, of a page that another supersedes, and of a tenant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_is_off_the_disk_after_a_compaction() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let pages = opened(folder.path(), &Settings { retired_kept: Duration::ZERO, ..quick() }).await;
    pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
    // Nothing that could be compressed.
    let secret =
        |number: u8| -> Vec<u8> { (0..8).flat_map(|part| *blake3::hash(&[number, part]).as_bytes()).collect() };
    let with = |number: u8, page: StoredPage| StoredPage { body: secret(number), ..page };
    let other = nexa_testkit::pages_contract::tenant("other");
    let superseded = with(2, page(agent(2), 1, "superseded"));
    let all = vec![
        with(1, page(agent(1), 1, "deleted")),
        superseded.clone(),
        with(3, page(agent(2), 5, "kept")),
        StoredPage { tenant: other.clone(), ..with(4, page(agent(3), 1, "of a tenant")) },
    ];
    pages.append(batch(1, 1, all)).await.expect("it is stored");
    pages.compact(SHARD, Epoch(1)).await.expect("compacted");
    for number in 1..=4 {
        assert!(is_on_disk(folder.path(), &secret(number)[..24]), "{number} is written");
    }
    assert_eq!(pages.delete_agent(Epoch(1), TenantId::local(), agent(1), Version(1)).await, Ok(1));
    assert_eq!(pages.delete_tenant(SHARD, Epoch(1), other).await, Ok(1));
    let tombstone = StoredPage { kind: PageKind::Tombstone, supersedes: Some(superseded.id), ..page(agent(2), 1, "") };
    pages.append(batch(1, 2, vec![tombstone])).await.expect("it is stored");
    pages.compact(SHARD, Epoch(1)).await.expect("compacted");
    for number in 1..=4 {
        assert_eq!(is_on_disk(folder.path(), &secret(number)[..24]), number == 3, "{number}");
    }
}

/// Flipped bits: an answer is what was written, or says that the shard is damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flipped_bit_is_ever_answered_as_a_page() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    drop(filled(folder.path()).await);
    let whole = answers(folder.path()).await.expect("it is whole");
    assert_eq!(whole.len(), 18);
    let (mut damaged, mut tried) = (0, 0);
    let files: Vec<PathBuf> = files(&folder.path().join("shards"));
    let flips = std::env::var("NEXA_PAGES_FLIPS").ok().and_then(|flips| flips.parse().ok()).unwrap_or(160_usize);
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    while tried < flips {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let path = &files[(dice >> 33) as usize % files.len()];
        let good = std::fs::read(path).expect("a file");
        let bit = (dice >> 11) as usize % (good.len() * 8).max(1);
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(path, &bad).expect("written");
        let answered = tokio::time::timeout(Duration::from_secs(30), answers(folder.path())).await;
        std::fs::write(path, &good).expect("written");
        tried += 1;
        match answered.expect("a damaged file must not stop a reader") {
            Ok(answered) => assert_eq!(answered, whole, "bit {bit} of {}", path.display()),
            Err(PagesError::Damaged { .. } | PagesError::Unavailable(_)) => damaged += 1,
            Err(other) => panic!("bit {bit} of {}: {other}", path.display()),
        }
    }
    assert_eq!(answers(folder.path()).await, Ok(whole));
    assert!(damaged > tried / 10, "most of a file is in use, so that damage must show: {damaged} of {tried}");
    println!("{damaged} of {tried} flips were noticed, the others did not matter");
}

/// Whatever file is missing, empty or short: what is written again from the log is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_shard_is_dropped_and_written_again() {
    for turn in 0.. {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let pages = filled(folder.path()).await;
        let gone = page(agent(7), 1, "of one that was deleted");
        pages.append(batch(1, 3, vec![gone.clone()])).await.expect("it is stored");
        assert_eq!(pages.delete_agent(Epoch(1), TenantId::local(), agent(7), Version(1)).await, Ok(1));
        let whole = answers(folder.path()).await.expect("it is whole");
        let files: Vec<PathBuf> = files(&folder.path().join("shards"));
        let Some(path) = files.get(turn / 2) else { break };
        match turn % 2 {
            0 => std::fs::remove_file(path).expect("removed"),
            _ => std::fs::write(path, []).expect("written"),
        }
        let was_noticed = match answers(folder.path()).await {
            Ok(answered) => answered != whole,
            Err(PagesError::Damaged { .. }) => true,
            Err(other) => panic!("without {}: {other}", path.display()),
        };
        // Without its newest claim, a shard is what it was by the claim before; or it is damaged.
        let later = opened(folder.path(), &quick()).await;
        later.drop_pages(SHARD, Epoch(2)).await.expect("dropped");
        assert_eq!(later.take_over(SHARD, Epoch(2)).await, Ok(GlobalSeq(0)), "after {}", path.display());
        assert_eq!(texts(&later).await, set(&[]));
        let mut again: Vec<StoredPage> = whole.clone();
        again.push(gone.clone());
        later.append(batch(2, 3, again)).await.expect("it is stored");
        assert_eq!(answers(folder.path()).await, Ok(whole), "after {}, noticed: {was_noticed}", path.display());
    }
}

#[tokio::test]
async fn pages_are_kept_where_it_is_known_what_is_durable_and_nowhere_else() {
    let open = async |at: &str| LancePages::open(at, one_shard(), quick()).await.map(drop);
    #[cfg(not(feature = "s3"))]
    {
        let Err(PagesError::Refused(why)) = open("s3://bucket/pages").await else { panic!("a bucket was taken") };
        assert!(why.contains("feature `s3`"), "{why}");
    }
    for elsewhere in ["gs://bucket", "S3://bucket", "s3a://bucket/pages", "memory://", "nexa://x", "s3+ddb://x", ""] {
        let refused = open(elsewhere).await;
        assert!(matches!(refused, Err(PagesError::Refused(_))), "{elsewhere}: {refused:?}");
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let at = folder.path().join("a folder/with Ümläut");
    assert_eq!(open(&format!("file://{}", at.display())).await, Ok(()));
    assert_eq!(open(&at.to_string_lossy()).await, Ok(()));
    let two = Shards::new(2).expect("a good number");
    let refused = LancePages::open(&at.to_string_lossy(), two, quick()).await.map(drop);
    assert!(matches!(refused, Err(PagesError::Refused(_))), "the number of shards never changes: {refused:?}");
    // Also a folder that must be written as something else in a URL.
    let pages = opened(&at, &quick()).await;
    pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
    pages.append(batch(1, 1, vec![page(agent(1), 1, "here")])).await.expect("it is stored");
    assert_eq!(texts(&opened(&at, &quick()).await).await, set(&["here"]));
}

/// A commit that nobody saw end may still be on its way to a store far away. It must not come after what is written next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_know_how_a_write_ended_goes_on_where_it_cannot_come() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    comes_too_late(folder.path(), &quick()).await;
}

pub(crate) async fn comes_too_late(at: &Path, settings: &Settings) {
    let pages = opened(at, settings).await;
    pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
    pages.append(batch(1, 1, vec![page(agent(1), 1, "before")])).await.expect("it is stored");
    let store = &pages.stores[0];
    let open = Arc::clone(store.view.now().await.expect("seen").parts.last().expect("an open part"));
    let number = store.view.now().await.expect("seen").claim.number;
    store.writing(Epoch(1)).await.expect("it is the writer").unknown("a lost answer".to_owned());
    let fenced = pages.append(batch(1, 2, vec![page(agent(1), 5, "too early")])).await;
    assert!(matches!(fenced, Err(PagesError::Fenced { .. })), "{fenced:?}");
    assert_eq!(pages.take_over(SHARD, Epoch(1)).await, Ok(GlobalSeq(1)));
    let late = rows::encode(&[(Epoch(1), page(agent(1), 5, "late"))]).expect("rows");
    open.append(&store.storage, late, GlobalSeq(9), Epoch(1)).await.expect("it arrives");
    pages.append(batch(1, 2, vec![page(agent(1), 9, "after")])).await.expect("it is stored");
    for handle in [&pages, &opened(at, settings).await] {
        assert_eq!(texts(handle).await, set(&["before", "after"]));
    }
    assert_eq!(opened(at, settings).await.take_over(SHARD, Epoch(2)).await, Ok(GlobalSeq(2)));
    let now = pages.stores[0].view.now().await.expect("seen").claim.number;
    assert_eq!(now, number + 2, "one claim for the doubt, one for the epoch");
    // Who has no doubts writes nothing.
    assert_eq!(opened(at, settings).await.take_over(SHARD, Epoch(2)).await, Ok(GlobalSeq(2)));
    assert_eq!(pages.stores[0].view.now().await.expect("seen").claim.number, now);
}

/// The dimension of vectors is nothing that a shard is made for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_of_several_models_live_beside_each_other() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let pages = opened(folder.path(), &quick()).await;
    pages.take_over(SHARD, Epoch(1)).await.expect("nobody was there before");
    let vector = |model: &str, numbers: Vec<f32>| PageVector {
        model: model.to_owned(),
        vector: nexa_ports::embedder::UnitVector::towards(numbers).expect("a direction"),
    };
    let small = StoredPage { vector: Some(vector("small", vec![3.0, 4.0])), ..page(agent(1), 1, "small") };
    let large = StoredPage { vector: Some(vector("large", vec![1.0; 768])), ..page(agent(1), 5, "large") };
    pages.append(batch(1, 1, vec![small.clone(), large])).await.expect("it is stored");
    let summary = StoredPage { kind: PageKind::Summary, vector: None, ..page(agent(1), 9, "summary") };
    pages.append(batch(1, 2, vec![summary])).await.expect("it is stored");
    let query = PageQuery { words: None, near: Some(vector("small", vec![3.0, 4.0])), best: 9 };
    let hits = pages.search(Scope::Agent(TenantId::local(), agent(1)), query).await.expect("a search");
    assert_eq!(hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), [small.id]);
    assert_eq!(texts(&pages).await, set(&["small", "large", "summary"]));
}

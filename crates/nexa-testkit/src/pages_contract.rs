//! What every store of pages must do, as tests that any adapter can be put through.
//!
//! Each function takes an empty [`Place`] and panics with the reason if a property of `nexa_ports::pages` does not hold.
//! [`run_all`] takes a way to make places and runs them all. A place can be opened several times: as another process
//! would, or the same one after a restart.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use nexa_ports::embedder::{HashedWords, UnitVector};
use nexa_ports::pages::{
    ANSWER_PAGES_MAX, BATCH_PAGES_MAX, Hit, PAGE_BYTES_MAX, PageBatch, PageKind, PageQuery, PageStore, PageVector,
    PagesError, Reach, Scope, Shard, StoredPage, behind,
};
use nexa_types::{AgentId, Epoch, GlobalSeq, PageId, TenantId, Timestamp, Version, WorkloadId};

/// A store of pages behind its port.
pub type AnyPages = Arc<dyn PageStore>;

/// Where pages are kept, to be opened by several.
pub trait Place: Send + Sync {
    /// A handle of its own, which knows only what is stored.
    fn open(&self) -> BoxFuture<'_, AnyPages>;
}

/// Numbers of the vectors here.
pub const DIMENSION: usize = 384;
const MODEL: &str = "test/hashed-words-384";

/// Puts an adapter through the whole contract; `make` gives an empty place each time.
pub async fn run_all<P: Place>(make: impl AsyncFn() -> P) {
    what_was_accepted_is_read_back_as_it_was(&make().await).await;
    an_agent_is_scanned_in_order(&make().await).await;
    a_page_appended_twice_is_one_page(&make().await).await;
    a_later_writer_fences_an_earlier_one(&make().await).await;
    nobody_writes_without_taking_over(&make().await).await;
    the_position_is_that_of_the_last_batch(&make().await).await;
    what_is_superseded_is_gone_for_good(&make().await).await;
    what_an_agent_said_stays_deleted_and_what_it_says_later_is_kept(&make().await).await;
    a_deleted_tenant_leaves_the_others_alone(&make().await).await;
    a_search_finds_nothing_outside_of_its_scope(&make().await).await;
    words_find_pages_that_have_them(&make().await).await;
    nearness_is_exact_among_few_pages(&make().await).await;
    a_vector_that_comes_later_is_found_then(&make().await).await;
    compaction_changes_no_answer(&make().await).await;
    a_dropped_shard_takes_its_pages_again(&make().await).await;
    what_is_too_large_is_refused_whole(&make().await).await;
}

/// A tenant by name.
pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("test names are good")
}

/// A workload by number.
pub fn workload(number: u8) -> WorkloadId {
    WorkloadId::from_bytes([number; 16])
}

/// An agent by number.
pub fn agent(number: u8) -> AgentId {
    AgentId::from_bytes(std::array::from_fn(|place| number.wrapping_mul(31).wrapping_add(place as u8)))
}

/// A page of an agent of workload 1 of the local tenant: its messages from `first` on, four of them.
pub fn page(agent: AgentId, first: u64, text: &str) -> StoredPage {
    let last = Version(first + 3);
    let content: [u8; 32] =
        std::array::from_fn(|place| text.as_bytes().get(place).copied().unwrap_or(text.len() as u8));
    StoredPage {
        id: PageId::of(agent, Version(first), last, &content),
        tenant: TenantId::local(),
        workload: workload(1),
        agent,
        reach: Reach::Agent,
        kind: PageKind::Raw,
        first: Version(first),
        last,
        first_at: Timestamp(1_000 + first),
        last_at: Timestamp(1_003 + first),
        supersedes: None,
        messages: 4,
        tokens: 99,
        body: text.bytes().rev().collect(),
        text: text.to_owned(),
        message_vectors: vec![0, 255, 7, 0],
        vector: Some(near(text)),
        importance: 0.5,
    }
}

/// The vector of a text.
pub fn near(text: &str) -> PageVector {
    PageVector { model: MODEL.to_owned(), vector: HashedWords::new(DIMENSION).vector(text) }
}

/// Takes the shard of an agent over; gives it with the position.
async fn take(pages: &AnyPages, agent: AgentId, epoch: u64) -> (Shard, GlobalSeq) {
    let shard = pages.shards().of(agent);
    (shard, pages.take_over(shard, Epoch(epoch)).await.expect("the epoch is the newest"))
}

fn batch(shard: Shard, epoch: u64, applied: u64, pages: Vec<StoredPage>) -> PageBatch {
    PageBatch { shard, epoch: Epoch(epoch), applied: GlobalSeq(applied), pages }
}

/// Takes over under epoch 1 and appends pages, each to the shard of its agent.
async fn filled(pages: &AnyPages, all: &[StoredPage]) {
    let shards: BTreeSet<Shard> = all.iter().map(|page| pages.shards().of(page.agent)).collect();
    for shard in shards {
        pages.take_over(shard, Epoch(1)).await.expect("nobody was there before");
        let of_shard = all.iter().filter(|page| pages.shards().of(page.agent) == shard).cloned().collect();
        pages.append(batch(shard, 1, 1, of_shard)).await.expect("it is stored");
    }
}

async fn scanned(pages: &AnyPages, agent: AgentId) -> Vec<StoredPage> {
    pages.scan(TenantId::local(), agent, Version(0), ANSWER_PAGES_MAX).await.expect("a scan")
}

async fn found(pages: &AnyPages, scope: Scope, words: &str) -> Vec<PageId> {
    let query = PageQuery { words: Some(words.to_owned()), near: None, best: 50 };
    pages.search(scope, query).await.expect("a search").into_iter().map(|hit| hit.id).collect()
}

fn of(agent: AgentId) -> Scope {
    Scope::Agent(TenantId::local(), agent)
}

/// PG-1.
pub async fn what_was_accepted_is_read_back_as_it_was(place: &impl Place) {
    let pages = place.open().await;
    let mut all = vec![
        page(agent(1), 1, "Ada: the fox, the dog and 100% of \"rivers\" — naïve\u{301} 猫 🦀\n\0"),
        StoredPage {
            vector: None,
            text: String::new(),
            body: vec![],
            message_vectors: vec![],
            ..page(agent(1), 5, "x")
        },
        StoredPage { kind: PageKind::Summary, reach: Reach::Tenant, importance: 0.0, ..page(agent(1), 9, "sum") },
        StoredPage { first: Version(u64::MAX >> 1), last: Version(u64::MAX >> 1), ..page(agent(1), 13, "late") },
    ];
    all[3].tokens = u32::MAX;
    all[3].last_at = Timestamp(u64::MAX >> 1);
    filled(&pages, &all).await;
    for handle in [pages, place.open().await] {
        let ids: Vec<PageId> = all.iter().rev().map(|page| page.id).collect();
        let mut read = handle.read(TenantId::local(), agent(1), ids.clone()).await.expect("read");
        assert_eq!(read.iter().map(|page| page.id).collect::<Vec<_>>(), ids, "in the order that was asked for");
        read.reverse();
        for (read, written) in read.iter().zip(&all) {
            same(read, written);
        }
        let unknown = PageId::from_bytes([9; 16]);
        assert_eq!(handle.read(TenantId::local(), agent(1), vec![unknown]).await, Ok(vec![]));
        assert_eq!(handle.read(tenant("other"), agent(1), ids.clone()).await, Ok(vec![]), "another tenant's");
        assert_eq!(handle.read(TenantId::local(), agent(2), ids).await, Ok(vec![]), "another agent's");
    }
}

/// Equal, but that numbers of a vector may be rounded on their way.
fn same(read: &StoredPage, written: &StoredPage) {
    match (&read.vector, &written.vector) {
        (Some(read), Some(written)) => {
            assert_eq!(read.model, written.model);
            assert!(read.vector.cosine(&written.vector) > 0.999_9, "the vector is another");
        }
        (read, written) => assert_eq!(read, written),
    }
    assert_eq!(StoredPage { vector: None, ..read.clone() }, StoredPage { vector: None, ..written.clone() });
}

/// Scans.
pub async fn an_agent_is_scanned_in_order(place: &impl Place) {
    let pages = place.open().await;
    let mut all: Vec<StoredPage> =
        (0..20).rev().map(|number| page(agent(1), 1 + 4 * number, &format!("page {number}"))).collect();
    all.extend((0..5).map(|number| page(agent(2), 1 + 4 * number, "another's")));
    // Another kind of page that begins where one does.
    all.push(StoredPage { kind: PageKind::Summary, ..page(agent(1), 9, "summary") });
    filled(&pages, &all).await;
    let firsts = |pages: &[StoredPage]| pages.iter().map(|page| page.first.0).collect::<Vec<_>>();
    let whole = scanned(&pages, agent(1)).await;
    let mut expected: Vec<u64> = (0..20).map(|number| 1 + 4 * number).collect();
    expected.insert(2, 9);
    assert_eq!(firsts(&whole), expected);
    for size in [1, 2, 3, 7] {
        let (mut from, mut seen) = (Version(0), Vec::new());
        loop {
            let part = pages.scan(TenantId::local(), agent(1), from, size).await.expect("a scan");
            let Some(last) = part.last() else { break };
            from = behind(last);
            seen.extend(part);
        }
        assert_eq!(firsts(&seen), expected, "in parts of {size}");
    }
    assert_eq!(pages.scan(tenant("other"), agent(1), Version(0), 10).await, Ok(vec![]));
}

/// PG-2.
pub async fn a_page_appended_twice_is_one_page(place: &impl Place) {
    let pages = place.open().await;
    let (shard, _) = take(&pages, agent(1), 1).await;
    let one = page(agent(1), 1, "the fox");
    for applied in 1..=3 {
        pages.append(batch(shard, 1, applied, vec![one.clone(), one.clone()])).await.expect("it is stored");
    }
    assert_eq!(scanned(&pages, agent(1)).await.len(), 1);
    take(&pages, agent(1), 5).await;
    let weightier = StoredPage { importance: 0.9, ..one.clone() };
    pages.append(batch(shard, 5, 4, vec![weightier])).await.expect("it is stored");
    assert_eq!(found(&pages, of(agent(1)), "fox").await, [one.id]);
    let all = scanned(&pages, agent(1)).await;
    assert_eq!((all.len(), all[0].importance), (1, 0.9), "the later epoch counts");
}

/// PG-3.
pub async fn a_later_writer_fences_an_earlier_one(place: &impl Place) {
    let (early, late) = (place.open().await, place.open().await);
    let (shard, _) = take(&early, agent(1), 3).await;
    early.append(batch(shard, 3, 7, vec![page(agent(1), 1, "before")])).await.expect("it is stored");
    let (_, applied) = take(&late, agent(1), 4).await;
    assert_eq!(applied, GlobalSeq(7));
    // Whether it hears of it or not: nobody reads what it writes now.
    let zombie = early.append(batch(shard, 3, 9, vec![page(agent(1), 5, "of a zombie")])).await;
    assert!(matches!(zombie, Ok(()) | Err(PagesError::Fenced { .. } | PagesError::Unknown(_))), "{zombie:?}");
    let _ = early.delete_agent(Epoch(3), TenantId::local(), agent(1), Version(99)).await;
    let _ = early.compact(shard, Epoch(3)).await;
    late.append(batch(shard, 4, 8, vec![page(agent(1), 9, "after")])).await.expect("it is stored");
    for handle in [&late, &place.open().await] {
        let texts: Vec<String> = scanned(handle, agent(1)).await.into_iter().map(|page| page.text).collect();
        assert_eq!(texts, ["before", "after"]);
        assert!(found(handle, of(agent(1)), "zombie").await.is_empty());
    }
    let again = late.take_over(shard, Epoch(3)).await;
    assert_eq!(again, Err(PagesError::Fenced { given: Epoch(3), current: Epoch(4) }));
    assert_eq!(late.take_over(shard, Epoch(4)).await, Ok(GlobalSeq(8)), "the same again reads anew");
}

/// PG-3, from the start.
pub async fn nobody_writes_without_taking_over(place: &impl Place) {
    let pages = place.open().await;
    let shard = pages.shards().of(agent(1));
    let untaken = pages.append(batch(shard, 1, 1, vec![page(agent(1), 1, "x")])).await;
    assert_eq!(untaken, Err(PagesError::Fenced { given: Epoch(1), current: Epoch(0) }));
    pages.take_over(shard, Epoch(2)).await.expect("nobody was there before");
    let early = pages.append(batch(shard, 3, 1, vec![])).await;
    assert_eq!(early, Err(PagesError::Fenced { given: Epoch(3), current: Epoch(2) }));
    assert!(pages.compact(shard, Epoch(1)).await.is_err());
    assert!(pages.delete_agent(Epoch(1), TenantId::local(), agent(1), Version(99)).await.is_err());
    assert_eq!(scanned(&pages, agent(1)).await, vec![]);
}

/// PG-6.
pub async fn the_position_is_that_of_the_last_batch(place: &impl Place) {
    let pages = place.open().await;
    let (shard, applied) = take(&pages, agent(1), 1).await;
    assert_eq!(applied, GlobalSeq(0), "nothing is there yet");
    pages.append(batch(shard, 1, 10, vec![page(agent(1), 1, "one")])).await.expect("it is stored");
    pages.append(batch(shard, 1, 20, vec![])).await.expect("an empty batch moves the position");
    pages.append(batch(shard, 1, 15, vec![page(agent(1), 5, "two")])).await.expect("it is stored");
    drop(pages);
    let pages = place.open().await;
    assert_eq!(take(&pages, agent(1), 2).await.1, GlobalSeq(20), "it never goes back");
    assert_eq!(scanned(&pages, agent(1)).await.len(), 2);
    pages.compact(shard, Epoch(2)).await.expect("compacted");
    assert_eq!(take(&place.open().await, agent(1), 3).await.1, GlobalSeq(20));
}

/// PG-5, of single pages.
pub async fn what_is_superseded_is_gone_for_good(place: &impl Place) {
    let pages = place.open().await;
    let (shard, _) = take(&pages, agent(1), 1).await;
    let (one, two) = (page(agent(1), 1, "the secret fox"), page(agent(1), 5, "the dog"));
    let better = StoredPage { supersedes: Some(one.id), ..page(agent(1), 1, "the fox") };
    let tombstone = StoredPage { kind: PageKind::Tombstone, supersedes: Some(two.id), ..page(agent(1), 5, "") };
    pages.append(batch(shard, 1, 1, vec![one.clone(), two.clone()])).await.expect("it is stored");
    // A page of another agent cannot hide it.
    let other = (2..=255).map(agent).find(|other| pages.shards().of(*other) == shard).expect("shards are few");
    let stranger = StoredPage { supersedes: Some(one.id), ..page(other, 1, "stranger") };
    pages.append(batch(shard, 1, 2, vec![stranger])).await.expect("it is stored");
    assert_eq!(scanned(&pages, agent(1)).await.len(), 2);
    pages.append(batch(shard, 1, 3, vec![better.clone(), tombstone.clone()])).await.expect("it is stored");
    let gone = async |pages: &AnyPages| {
        assert_eq!(scanned(pages, agent(1)).await.iter().map(|page| page.id).collect::<Vec<_>>(), [better.id]);
        assert_eq!(found(pages, of(agent(1)), "secret dog fox").await, [better.id]);
        assert_eq!(pages.read(TenantId::local(), agent(1), vec![one.id, two.id, tombstone.id]).await, Ok(vec![]));
    };
    gone(&pages).await;
    pages.append(batch(shard, 1, 4, vec![one.clone(), two.clone()])).await.expect("a replay");
    gone(&pages).await;
    pages.compact(shard, Epoch(1)).await.expect("compacted");
    gone(&pages).await;
    pages.append(batch(shard, 1, 5, vec![one.clone(), two.clone()])).await.expect("a replay");
    gone(&place.open().await).await;
}

/// PG-5, of agents.
pub async fn what_an_agent_said_stays_deleted_and_what_it_says_later_is_kept(place: &impl Place) {
    let pages = place.open().await;
    let (one, two) = (page(agent(1), 1, "the secret fox"), page(agent(1), 5, "the secret den of the fox"));
    let shared = StoredPage { reach: Reach::Tenant, ..page(agent(1), 9, "the shared fox") };
    let other = page(agent(2), 1, "the other fox");
    filled(&pages, &[one.clone(), two.clone(), other.clone()]).await;
    let shard = pages.shards().of(agent(1));
    // What was looked at before is not answered from memory afterwards.
    assert_eq!(scanned(&pages, agent(1)).await.len(), 2);
    let delete = async |tenant, up_to| pages.delete_agent(Epoch(1), tenant, agent(1), Version(up_to)).await;
    assert_eq!(delete(tenant("other"), 7).await, Ok(0), "it is not that tenant's");
    assert_eq!(scanned(&pages, agent(1)).await.len(), 2);
    assert_eq!(delete(TenantId::local(), 4).await, Ok(1));
    assert_eq!(scanned(&pages, agent(1)).await, std::slice::from_ref(&two));
    assert_eq!(delete(TenantId::local(), 7).await, Ok(1));
    assert_eq!(delete(TenantId::local(), 7).await, Ok(0), "there is nothing left");
    assert_eq!(delete(TenantId::local(), 3).await, Ok(0), "it never goes back");
    let all = vec![one.clone(), two.clone(), shared.clone()];
    pages.append(batch(shard, 1, 9, all.clone())).await.expect("a replay, and more");
    pages.compact(shard, Epoch(1)).await.expect("compacted");
    pages.append(batch(shard, 1, 9, all)).await.expect("a replay");
    let later = place.open().await;
    take(&later, agent(1), 2).await;
    for handle in [&later, &place.open().await] {
        assert_eq!(scanned(handle, agent(1)).await, std::slice::from_ref(&shared));
        assert_eq!(found(handle, of(agent(1)), "fox").await, [shared.id]);
        assert_eq!(found(handle, Scope::Tenant(TenantId::local()), "fox").await, [shared.id]);
        assert_eq!(
            handle.read(TenantId::local(), agent(1), vec![one.id, two.id, shared.id]).await,
            Ok(vec![shared.clone()])
        );
        assert_eq!(scanned(handle, agent(2)).await.len(), 1);
    }
}

/// PG-5, of tenants.
pub async fn a_deleted_tenant_leaves_the_others_alone(place: &impl Place) {
    let pages = place.open().await;
    let theirs: Vec<StoredPage> =
        (1..6).map(|number| StoredPage { tenant: tenant("leaving"), ..page(agent(number), 1, "fox") }).collect();
    let ours: Vec<StoredPage> = (6..9).map(|number| page(agent(number), 1, "fox")).collect();
    filled(&pages, &[theirs.clone(), ours.clone()].concat()).await;
    let mut deleted = 0;
    for shard in pages.shards().all() {
        pages.take_over(shard, Epoch(1)).await.expect("it is the same epoch");
        deleted += pages.delete_tenant(shard, Epoch(1), tenant("leaving")).await.expect("deleted");
        pages.compact(shard, Epoch(1)).await.expect("compacted");
    }
    assert_eq!(deleted, theirs.len());
    for page in &theirs {
        assert_eq!(pages.scan(tenant("leaving"), page.agent, Version(0), 9).await, Ok(vec![]));
    }
    for page in &ours {
        assert_eq!(scanned(&pages, page.agent).await.len(), 1);
    }
}

/// PG-4.
pub async fn a_search_finds_nothing_outside_of_its_scope(place: &impl Place) {
    let pages = place.open().await;
    let text = "the fox";
    let reaching = |agent: AgentId, reach| StoredPage { reach, ..page(agent, 1, text) };
    let (own, shared, wide) =
        (reaching(agent(1), Reach::Agent), reaching(agent(2), Reach::Workload), reaching(agent(3), Reach::Tenant));
    let elsewhere = StoredPage { workload: workload(2), ..reaching(agent(4), Reach::Workload) };
    let public = StoredPage { workload: workload(2), ..reaching(agent(5), Reach::Tenant) };
    let foreign = StoredPage { tenant: tenant("other"), ..reaching(agent(6), Reach::Tenant) };
    let all = [own.clone(), shared.clone(), wide.clone(), elsewhere, public.clone(), foreign.clone()];
    filled(&pages, &all).await;
    let local = TenantId::local();
    for (scope, expected) in [
        (of(agent(1)), vec![&own]),
        (Scope::Workload(local.clone(), workload(1)), vec![&shared, &wide]),
        (Scope::Tenant(local.clone()), vec![&wide, &public]),
        (Scope::Tenant(tenant("other")), vec![&foreign]),
        (Scope::Workload(tenant("other"), workload(2)), vec![]),
        (Scope::Agent(tenant("other"), agent(1)), vec![]),
        (Scope::Tenant(tenant("o' OR 1=1 --".replace([' ', '\'', '='], "").as_str())), vec![]),
    ] {
        let expected: BTreeSet<PageId> = expected.into_iter().map(|page| page.id).collect();
        let by_words: BTreeSet<PageId> = found(&pages, scope.clone(), "fox").await.into_iter().collect();
        assert_eq!(by_words, expected, "by words in {scope:?}");
        let query = PageQuery { words: None, near: Some(near(text)), best: 50 };
        let hits = pages.search(scope.clone(), query).await.expect("a search");
        assert_eq!(hits.iter().map(|hit| hit.id).collect::<BTreeSet<_>>(), expected, "by nearness in {scope:?}");
    }
}

/// Searches by words.
pub async fn words_find_pages_that_have_them(place: &impl Place) {
    let pages = place.open().await;
    let texts =
        ["the red fox sleeps", "the dog sleeps", "a river runs by the red house", "Äpfel und RED wine", "fox fox fox"];
    let all: Vec<StoredPage> =
        texts.iter().enumerate().map(|(number, text)| page(agent(1), 1 + 4 * number as u64, text)).collect();
    filled(&pages, &all).await;
    let having = async |words: &str| -> BTreeSet<usize> {
        let ids = found(&pages, of(agent(1)), words).await;
        ids.iter().filter_map(|id| all.iter().position(|page| page.id == *id)).collect()
    };
    assert_eq!(having("red").await, BTreeSet::from([0, 2, 3]));
    assert_eq!(having("FOX dog").await, BTreeSet::from([0, 1, 4]));
    assert_eq!(having("äpfel").await, BTreeSet::from([3]));
    for nothing in ["", "?!", "elephant", "\"", "red\0fox -", "AND OR NOT ( * ~ ^ : \\ /"] {
        let found = having(nothing).await;
        // Whatever is in it, it is looked for as words and never read as a language.
        assert!(nothing.contains("red") || found.is_empty(), "{nothing:?}: {found:?}");
    }
    assert_eq!(found(&pages, of(agent(1)), "red fox").await[0], all[0].id, "the one with both comes first");
    let query = PageQuery { words: Some("the red fox".to_owned()), near: None, best: 2 };
    let hits: Vec<Hit> = pages.search(of(agent(1)), query.clone()).await.expect("a search");
    assert_eq!(hits.len(), 2);
    assert!(hits.iter().all(|hit| hit.words.is_some_and(|score| score > 0.0) && hit.cosine.is_none()));
    assert_eq!(pages.search(of(agent(1)), PageQuery { best: 0, ..query.clone() }).await, Ok(vec![]));
    assert_eq!(pages.search(of(agent(1)), query.clone()).await.expect("a search"), hits, "twice the same");
}

/// Searches by nearness.
pub async fn nearness_is_exact_among_few_pages(place: &impl Place) {
    let pages = place.open().await;
    let words = ["fox", "dog", "river", "house", "red", "blue", "runs", "sleeps", "under", "over"];
    let text = |number: usize| [words[number % 10], words[number / 10 % 10], words[number * 7 % 10]].join(" ");
    let all: Vec<StoredPage> =
        (0..120).map(|number| page(agent((number % 3) as u8 + 1), 1 + 4 * number as u64, &text(number))).collect();
    filled(&pages, &all).await;
    for asked in ["red fox", "the dog sleeps under the house", "blue"] {
        let vector: UnitVector = near(asked).vector;
        let query = PageQuery { words: None, near: Some(near(asked)), best: 10 };
        let hits = pages.search(of(agent(2)), query).await.expect("a search");
        let mut exact: Vec<f32> = all
            .iter()
            .filter(|page| page.agent == agent(2))
            .filter_map(|page| Some(page.vector.as_ref()?.vector.cosine(&vector)))
            .collect();
        exact.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(hits.len(), 10);
        for (hit, exact) in hits.iter().zip(exact) {
            let cosine = hit.cosine.expect("found by nearness");
            assert!((cosine - exact).abs() < 1e-3, "{cosine} instead of {exact}");
        }
    }
    let other = PageVector { model: "other/model".to_owned(), ..near("red fox") };
    let query = PageQuery { words: None, near: Some(other), best: 10 };
    assert_eq!(pages.search(of(agent(2)), query).await, Ok(vec![]), "vectors of other models are not compared");
}

/// Pages are found by words before they have a vector.
pub async fn a_vector_that_comes_later_is_found_then(place: &impl Place) {
    let pages = place.open().await;
    let (shard, _) = take(&pages, agent(1), 1).await;
    let with = page(agent(1), 1, "the red fox");
    let without = StoredPage { vector: None, ..with.clone() };
    let both = || PageQuery { words: Some("fox".to_owned()), near: Some(near("red fox")), best: 10 };
    pages.append(batch(shard, 1, 1, vec![without])).await.expect("it is stored");
    let hits = pages.search(of(agent(1)), both()).await.expect("a search");
    assert!(hits.len() == 1 && hits[0].words.is_some() && hits[0].cosine.is_none(), "{hits:?}");
    pages.append(batch(shard, 1, 2, vec![with.clone()])).await.expect("it is stored");
    let hits = pages.search(of(agent(1)), both()).await.expect("a search");
    assert!(hits.len() == 1 && hits[0].words.is_some() && hits[0].cosine.is_some(), "{hits:?}");
    assert_eq!(scanned(&pages, agent(1)).await.len(), 1);
}

/// PG-7.
pub async fn compaction_changes_no_answer(place: &impl Place) {
    let pages = place.open().await;
    let (shard, _) = take(&pages, agent(1), 1).await;
    for number in 0..12_u64 {
        let mut all = vec![page(agent(1), 1 + 4 * number, &format!("fox number {number}"))];
        if number % 3 == 0 && number > 0 {
            let before = page(agent(1), 1 + 4 * (number - 1), &format!("fox number {}", number - 1));
            all.push(StoredPage {
                kind: PageKind::Tombstone,
                supersedes: Some(before.id),
                ..page(agent(1), 90 + number, "")
            });
            all.push(page(agent(1), 1 + 4 * (number - 2), &format!("fox number {}", number - 2)));
        }
        pages.append(batch(shard, 1, number, all)).await.expect("it is stored");
    }
    let answers = async |pages: &AnyPages| {
        let query = PageQuery { words: Some("fox 7".to_owned()), near: Some(near("fox number 4")), best: 5 };
        let ids: Vec<PageId> =
            pages.search(of(agent(1)), query).await.expect("a search").iter().map(|hit| hit.id).collect();
        (scanned(pages, agent(1)).await, ids.into_iter().collect::<BTreeSet<_>>())
    };
    let before = answers(&pages).await;
    assert_eq!(before.0.len(), 9);
    let compacted = pages.compact(shard, Epoch(1)).await.expect("compacted");
    assert!(compacted.rows_after < compacted.rows_before, "{compacted:?}");
    assert_eq!(answers(&pages).await, before);
    assert_eq!(answers(&place.open().await).await, before);
    let again = pages.compact(shard, Epoch(1)).await.expect("compacted");
    assert_eq!(again.rows_after, compacted.rows_after, "there is nothing left to drop");
    pages.append(batch(shard, 1, 20, vec![page(agent(1), 60, "one more")])).await.expect("writing goes on");
    assert_eq!(scanned(&pages, agent(1)).await.len(), 10);
}

/// PG-8.
pub async fn a_dropped_shard_takes_its_pages_again(place: &impl Place) {
    let pages = place.open().await;
    let (gone, kept) = (page(agent(1), 1, "the secret fox"), page(agent(1), 5, "the shared fox"));
    let shard = pages.shards().of(agent(1));
    take(&pages, agent(1), 2).await;
    pages.append(batch(shard, 2, 7, vec![gone.clone(), kept.clone()])).await.expect("appended");
    assert_eq!(pages.delete_agent(Epoch(2), TenantId::local(), agent(1), Version(4)).await, Ok(1));
    let fenced = pages.drop_pages(shard, Epoch(1)).await;
    assert_eq!(fenced, Err(PagesError::Fenced { given: Epoch(1), current: Epoch(2) }));
    assert_eq!(scanned(&pages, agent(1)).await, std::slice::from_ref(&kept));
    pages.drop_pages(shard, Epoch(3)).await.expect("dropped");
    assert_eq!(scanned(&pages, agent(1)).await, vec![]);
    let stale = pages.append(batch(shard, 2, 8, vec![kept.clone()])).await;
    assert_eq!(stale, Err(PagesError::Fenced { given: Epoch(2), current: Epoch(3) }));
    let later = place.open().await;
    assert_eq!(take(&later, agent(1), 3).await.1, GlobalSeq(0));
    assert_eq!(scanned(&later, agent(1)).await, vec![]);
    later.append(batch(shard, 3, 7, vec![gone, kept.clone()])).await.expect("written again");
    for handle in [&later, &place.open().await] {
        assert_eq!(scanned(handle, agent(1)).await, std::slice::from_ref(&kept), "what was deleted stays so");
    }
}

/// The limits of the port.
pub async fn what_is_too_large_is_refused_whole(place: &impl Place) {
    let pages = place.open().await;
    let (shard, _) = take(&pages, agent(1), 1).await;
    let good = page(agent(1), 1, "good");
    let refused = async |bad: Vec<StoredPage>| {
        let refused = pages.append(batch(shard, 1, 5, bad)).await;
        assert!(matches!(refused, Err(PagesError::Refused(_))), "{refused:?}");
    };
    let large = StoredPage { body: vec![0; PAGE_BYTES_MAX], ..page(agent(1), 5, "large") };
    refused(vec![good.clone(), large]).await;
    refused(vec![good.clone(); BATCH_PAGES_MAX + 1]).await;
    refused(vec![good.clone(), StoredPage { kind: PageKind::Tombstone, ..page(agent(1), 5, "") }]).await;
    if let Some(other) = (2..=255).map(agent).find(|other| pages.shards().of(*other) != shard) {
        refused(vec![good.clone(), page(other, 1, "of another shard")]).await;
    }
    let beyond = Shard(pages.shards().count());
    assert!(matches!(pages.append(batch(beyond, 1, 1, vec![])).await, Err(PagesError::Refused(_))));
    assert_eq!(scanned(&pages, agent(1)).await, vec![]);
    assert_eq!(take(&pages, agent(1), 1).await.1, GlobalSeq(0), "nothing of it was stored");
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::FutureExt;
    use nexa_ports::pages::{MemoryPages, Shards};

    struct InMemory(MemoryPages);

    impl Place for InMemory {
        fn open(&self) -> BoxFuture<'_, AnyPages> {
            let pages: AnyPages = Arc::new(self.0.clone());
            std::future::ready(pages).boxed()
        }
    }

    #[tokio::test]
    async fn pages_in_memory_keep_the_contract() {
        for count in [1, 4] {
            let shards = Shards::new(count).expect("a good number");
            run_all(async || InMemory(MemoryPages::new(shards))).await;
        }
    }
}

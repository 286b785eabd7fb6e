//! Random histories on Lance and on the twin in memory: every answer is the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nexa_pages::{LancePages, Settings};
use nexa_ports::pages::{
    ANSWER_PAGES_MAX, MemoryPages, PageBatch, PageKind, PageQuery, PageStore, PagesError, Reach, Scope, Shard, Shards,
    StoredPage,
};
use nexa_testkit::pages_contract::{agent, near, page, tenant, workload};
use nexa_types::{AgentId, Epoch, GlobalSeq, PageId, TenantId, Version};
use proptest::collection::vec;
use proptest::prelude::*;

const SHARDS: u16 = 2;
const AGENTS: u8 = 5;
const WORDS: [&str; 8] = ["fox", "dog", "river", "house", "red", "blue", "runs", "Äpfel"];

/// A page by numbers: the same numbers are the same page.
#[derive(Debug, Clone, Copy)]
struct Said {
    agent: u8,
    place: u64,
    words: u8,
    reach: u8,
    kind: u8,
    /// The place of the page that it supersedes.
    supersedes: Option<(u64, u8)>,
    has_vector: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Said>),
    /// Another handle, with a later epoch; the one before is not told.
    TakeOver,
    /// The writer before the last take-over writes once more.
    Zombie(Said),
    /// An agent's pages, up to those that begin at a place.
    DeleteAgent(u8, u64),
    DeleteTenant(u8),
    Compact(u16),
    Position,
    Reopen,
}

fn said() -> impl Strategy<Value = Said> {
    let supersedes = proptest::option::weighted(0.2, (0..6_u64, 0..6_u8));
    (0..AGENTS, 0..6_u64, 0..6_u8, 0..3_u8, 0..8_u8, supersedes, proptest::bool::weighted(0.8)).prop_map(
        |(agent, place, words, reach, kind, supersedes, has_vector)| Said {
            agent,
            place,
            words,
            reach,
            kind,
            supersedes,
            has_vector,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => vec(said(), 1..6).prop_map(Step::Append),
        2 => Just(Step::TakeOver),
        1 => said().prop_map(Step::Zombie),
        2 => (0..AGENTS, 0..6_u64).prop_map(|(agent, place)| Step::DeleteAgent(agent, place)),
        1 => (0..2_u8).prop_map(Step::DeleteTenant),
        3 => (0..SHARDS).prop_map(Step::Compact),
        1 => Just(Step::Position),
        1 => Just(Step::Reopen),
    ]
}

fn tenant_of(number: u8) -> TenantId {
    if number.is_multiple_of(2) { TenantId::local() } else { tenant("other") }
}

fn agent_of(number: u8) -> AgentId {
    agent(number + 1)
}

fn text(words: u8) -> String {
    (0..3).map(|at| WORDS[(usize::from(words) * 3 + at * 5) % WORDS.len()]).collect::<Vec<_>>().join(" ")
}

fn id_of(agent: u8, place: u64, words: u8, kind: u8, supersedes: Option<(u64, u8)>) -> PageId {
    let mut content = [0; 32];
    content[..3].copy_from_slice(&[words, kind, supersedes.map_or(99, |(place, words)| place as u8 * 10 + words)]);
    PageId::of(agent_of(agent), Version(1 + 4 * place), Version(4 + 4 * place), &content)
}

fn page_of(said: Said) -> StoredPage {
    let kind = match said.kind {
        0 if said.supersedes.is_some() => PageKind::Tombstone,
        1 => PageKind::Summary,
        _ => PageKind::Raw,
    };
    let text = text(said.words);
    StoredPage {
        id: id_of(said.agent, said.place, said.words, kind as u8, said.supersedes),
        tenant: tenant_of(said.agent),
        workload: workload(said.agent % 3),
        reach: [Reach::Agent, Reach::Workload, Reach::Tenant][usize::from(said.reach)],
        kind,
        supersedes: said.supersedes.map(|(place, words)| id_of(said.agent, place, words, PageKind::Raw as u8, None)),
        vector: said.has_vector.then(|| near(&text)),
        ..page(agent_of(said.agent), 1 + 4 * said.place, &text)
    }
}

struct Pair {
    at: String,
    settings: Settings,
    lance: LancePages,
    before: LancePages,
    twin: MemoryPages,
    epoch: u64,
    applied: u64,
    pages: Vec<StoredPage>,
}

fn shards() -> Shards {
    Shards::new(SHARDS).expect("a good number")
}

impl Pair {
    async fn new(at: &str, settings: Settings) -> Self {
        let lance = opened(at, &settings).await;
        let before = lance.clone();
        let twin = MemoryPages::new(shards());
        let at = at.to_owned();
        let mut pair = Self { at, settings, lance, before, twin, epoch: 0, applied: 0, pages: vec![] };
        pair.take_over().await;
        pair
    }

    async fn take_over(&mut self) {
        self.epoch += 1;
        for shard in shards().all() {
            let (ours, theirs) =
                (self.lance.take_over(shard, Epoch(self.epoch)), self.twin.take_over(shard, Epoch(self.epoch)));
            assert_eq!(ours.await, theirs.await, "the position of {shard:?}");
        }
    }

    async fn append(&mut self, all: Vec<StoredPage>) {
        self.applied += 1;
        for shard in shards().all() {
            let pages: Vec<StoredPage> = all.iter().filter(|page| shards().of(page.agent) == shard).cloned().collect();
            let (epoch, applied) = (Epoch(self.epoch), GlobalSeq(self.applied));
            let batch = PageBatch { shard, epoch, applied, pages };
            assert_eq!(self.twin.append(batch.clone()).await, Ok(()));
            assert_eq!(self.lance.append(batch).await, Ok(()));
        }
        self.pages.extend(all);
    }

    async fn play(&mut self, step: Step) {
        let epoch = Epoch(self.epoch);
        match step {
            Step::Append(said) => self.append(said.into_iter().map(page_of).collect()).await,
            Step::Position => self.append(vec![]).await,
            Step::TakeOver => {
                self.before = std::mem::replace(&mut self.lance, opened(&self.at, &self.settings).await);
                self.take_over().await;
            }
            Step::Zombie(said) => {
                let page = page_of(said);
                let (shard, early) = (shards().of(page.agent), Epoch(self.epoch.saturating_sub(1)));
                if early > Epoch(0) {
                    let batch = PageBatch { shard, epoch: early, applied: GlobalSeq(1 << 40), pages: vec![page] };
                    let written = self.before.append(batch).await;
                    assert!(matches!(written, Err(PagesError::Fenced { .. } | PagesError::Unknown(_))), "{written:?}");
                    assert!(self.before.compact(shard, early).await.is_err());
                }
            }
            Step::DeleteAgent(number, place) => {
                let up_to = Version(1 + 4 * place);
                for tenant in [tenant_of(number + 1), tenant_of(number)] {
                    let ours = self.lance.delete_agent(epoch, tenant.clone(), agent_of(number), up_to).await;
                    // The twin forgets whose an agent was whose pages it deleted; nothing can be seen of that.
                    assert_eq!(ours, self.twin.delete_agent(epoch, tenant, agent_of(number), up_to).await);
                    if self.pages.iter().all(|page| page.agent != agent_of(number)) {
                        break;
                    }
                }
            }
            Step::DeleteTenant(number) => {
                for shard in shards().all() {
                    let ours = self.lance.delete_tenant(shard, epoch, tenant_of(number)).await;
                    assert_eq!(ours, self.twin.delete_tenant(shard, epoch, tenant_of(number)).await);
                }
            }
            Step::Compact(shard) => {
                let compacted = self.lance.compact(Shard(shard), epoch).await.expect("compacted");
                assert!(compacted.rows_after <= compacted.rows_before);
                let again = self.lance.compact(Shard(shard), epoch).await.expect("compacted");
                assert_eq!(again.rows_after, compacted.rows_after, "there is nothing left to drop");
            }
            Step::Reopen => {
                self.lance = opened(&self.at, &self.settings).await;
                for shard in shards().all() {
                    let taken = (self.lance.take_over(shard, epoch).await, self.twin.take_over(shard, epoch).await);
                    assert_eq!(taken.0, taken.1);
                }
            }
        }
    }

    async fn compare(&self, words: u8) {
        let fresh = opened(&self.at, &self.settings).await;
        let ids: BTreeSet<PageId> = self.pages.iter().map(|page| page.id).collect();
        let ids: Vec<PageId> = ids.into_iter().collect();
        for (name, lance) in [("the writer", &self.lance), ("the writer before", &self.before), ("another", &fresh)] {
            for number in 0..AGENTS {
                let (tenant, agent) = (tenant_of(number), agent_of(number));
                let ours = lance.scan(tenant.clone(), agent, Version(0), ANSWER_PAGES_MAX).await;
                let theirs = self.twin.scan(tenant.clone(), agent, Version(0), ANSWER_PAGES_MAX).await;
                assert_eq!(ours, theirs, "{name} scans {number}");
                let (ours, theirs) = (
                    lance.scan(tenant.clone(), agent, Version(9), 2).await,
                    self.twin.scan(tenant.clone(), agent, Version(9), 2).await,
                );
                assert_eq!(ours, theirs, "{name} scans a part of {number}");
                let ours = lance.read(tenant.clone(), agent, ids.clone()).await;
                assert_eq!(ours, self.twin.read(tenant, agent, ids.clone()).await, "{name} reads {number}");
            }
            for scope in scopes() {
                for best in [2, 50] {
                    let asked = text(words);
                    let near = Some(near(&asked));
                    let query = PageQuery { words: Some(asked), near, best };
                    let ours = lance.search(scope.clone(), query.clone()).await;
                    assert_eq!(ours, self.twin.search(scope.clone(), query).await, "{name} searches {scope:?}");
                }
            }
        }
    }
}

fn scopes() -> Vec<Scope> {
    let agents = (0..AGENTS).map(|number| Scope::Agent(tenant_of(number), agent_of(number)));
    let tenants = (0..2).map(|number| Scope::Tenant(tenant_of(number)));
    let workloads = (0..6).map(|number| Scope::Workload(tenant_of(number), workload(number % 3)));
    agents.chain(tenants).chain(workloads).collect()
}

async fn opened(at: &str, settings: &Settings) -> LancePages {
    LancePages::open(at, shards(), settings.clone()).await.expect("open")
}

/// Settings that a history is played under.
fn settings() -> impl Strategy<Value = Settings> {
    let kept = prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(600))];
    (kept, prop_oneof![Just(0), Just(64 << 20)])
        .prop_map(|(retired_kept, memory_bytes)| quick(retired_kept, memory_bytes))
}

fn quick(retired_kept: Duration, memory_bytes: u64) -> Settings {
    Settings { fsync: false, retired_kept, memory_bytes, ..Settings::default() }
}

/// Plays a history in an empty place, and compares every few steps and in the end.
fn plays(at: &str, settings: Settings, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut pair = Pair::new(at, settings).await;
        for (number, step) in steps.into_iter().enumerate() {
            pair.play(step).await;
            if number % 4 == 3 {
                pair.compare(number as u8).await;
            }
        }
        pair.compare(0).await;
    });
}

/// Histories of one run of the test, which takes some seconds for each; `PROPTEST_CASES` says another number.
const CASES: u32 = 6;

/// The same in a bucket, where each question is some requests.
#[cfg(feature = "s3")]
const BUCKET_CASES: u32 = 2;

fn config(cases: u32) -> ProptestConfig {
    let said = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: said.unwrap_or(cases), max_shrink_iters: 60, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(CASES))]

    #[test]
    fn answers_are_those_of_the_twin(steps in vec(step(), 1..24), settings in settings()) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        plays(&folder.path().to_string_lossy(), settings, steps);
    }
}

/// The same in a bucket of a real server.
#[cfg(feature = "s3")]
#[test]
fn answers_from_a_bucket_are_those_of_the_twin() {
    let Some(server) = nexa_testkit::minio::Server::start() else { return };
    let places = std::sync::atomic::AtomicUsize::new(0);
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..config(BUCKET_CASES) });
    let played = runner.run(&(vec(step(), 1..12), settings()), |(steps, settings)| {
        let at = server.url(&places.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string());
        plays(&at, Settings { access: nexa_pages::Access::of(server.access()), ..settings }, steps);
        Ok(())
    });
    played.expect("every answer is the twin's");
}

/// Readers ask without a break while a writer appends and compacts, and what it replaces goes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_while_a_shard_is_compacted_misses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    misses_nothing(&folder.path().to_string_lossy(), quick(Duration::ZERO, 0)).await;
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_while_a_shard_in_a_bucket_is_compacted_misses_nothing() {
    let Some(server) = nexa_testkit::minio::Server::start() else { return };
    let settings = Settings { access: nexa_pages::Access::of(server.access()), ..quick(Duration::ZERO, 0) };
    misses_nothing(&server.url("pages"), settings).await;
}

async fn misses_nothing(at: &str, settings: Settings) {
    let mut pair = Pair::new(at, settings).await;
    let number = 0;
    let said = |place| Said { agent: number, place, words: 1, reach: 2, kind: 2, supersedes: None, has_vector: true };
    pair.append(vec![page_of(said(0))]).await;
    let reader = Arc::new(opened(&pair.at, &pair.settings).await);
    let done = tokio_util::sync::CancellationToken::new();
    let asking = tokio::spawn({
        let done = done.clone();
        async move {
            let mut least = 1;
            while !done.is_cancelled() {
                let pages = reader.scan(tenant_of(number), agent_of(number), Version(0), ANSWER_PAGES_MAX).await;
                let count = pages.expect("a scan").len();
                assert!(count >= least, "{count} pages after {least}");
                least = count;
                let near = Some(near("fox"));
                let query = PageQuery { words: None, near, best: 99 };
                let hits = reader.search(Scope::Tenant(tenant_of(number)), query).await.expect("a search");
                assert!(hits.len() >= count, "{} hits after {count} pages", hits.len());
            }
            least
        }
    });
    for place in 1..30 {
        pair.append(vec![page_of(said(place))]).await;
        let shard = shards().of(agent_of(number));
        pair.lance.compact(shard, Epoch(pair.epoch)).await.expect("compacted");
    }
    done.cancel();
    assert!(asking.await.expect("the reader is well") >= 1);
    pair.compare(1).await;
}

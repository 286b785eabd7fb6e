//! The store of context pages at size: what it takes to write, to find and to read pages of many agents.
//!
//! Pages are made from a seed, so that any of them can be made again to compare with: text of words as rare as those of a
//! language, vectors around topics. Two tasks make and write them, before anything else is measured. What is found is compared with
//! what looking at every page gives. A recall has its query embedded by the embedded model; where its weights are not there, that
//! is said, and recalls are without.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nexa_llm::embedded::ModelStore;
use nexa_llm::embedding::EmbeddingModel;
use nexa_pages::{LancePages, Settings};
use nexa_ports::embedder::{EmbedCall, Embedder, UnitVector, Urgency};
use nexa_ports::pages::{
    PageBatch, PageKind, PageQuery, PageStore, PageVector, PagesError, Reach, Scope, Shard, Shards, StoredPage,
};
use nexa_types::{AgentId, Epoch, GlobalSeq, PageId, TenantId, Timestamp, Version, WorkloadId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Messages of a page.
const MESSAGES: u64 = 8;
/// Bytes of a message's vector.
const MESSAGE_VECTOR_BYTES: usize = 384;
/// Numbers of a vector.
const DIMENSION: usize = 384;
/// Words of a page, as those of a page of eight messages.
const WORDS: usize = 160;
/// Different words.
const VOCABULARY: usize = PIECES.len() * PIECES.len();
/// Words that everybody knows.
const PIECES: [&str; 141] = [
    "apple", "arm", "army", "bag", "ball", "band", "bank", "bar", "base", "bath", "bear", "bed", "bell", "belt",
    "bird", "blood", "boat", "body", "bone", "book", "border", "bottle", "bowl", "box", "boy", "branch", "bread",
    "breath", "brick", "bridge", "brother", "brush", "bus", "cake", "camp", "car", "card", "cat", "chain", "chair",
    "cheese", "chest", "child", "church", "city", "clock", "cloth", "cloud", "coat", "coffee", "corn", "cow", "crown",
    "cup", "dance", "desk", "dog", "door", "dress", "dust", "ear", "earth", "egg", "eye", "face", "farm", "father",
    "field", "film", "fire", "fish", "flag", "floor", "flower", "foot", "forest", "fork", "friend", "fruit", "garden",
    "gate", "gift", "girl", "glass", "gold", "grass", "gun", "hair", "hall", "hand", "harbor", "hat", "heart", "hill",
    "home", "horse", "hospital", "house", "ice", "iron", "island", "job", "king", "kitchen", "knee", "lake", "lamp",
    "land", "leaf", "leg", "letter", "light", "lion", "market", "meat", "milk", "moon", "mother", "mountain", "mouth",
    "neck", "night", "nose", "ocean", "paper", "park", "pen", "phone", "plane", "plant", "rain", "river", "road",
    "rock", "roof", "room", "salt", "sand", "sea", "ship", "shirt",
];
/// Topics that vectors lie around.
const TOPICS: u64 = 400;
/// One page of so many is shared with the tenant.
const SHARED_EVERY: u64 = 50;
/// Shards of a node: few enough that a node makes two commits a second at most, each shard having one every 15 s.
const SHARDS: u16 = 16;
/// Who write at a time, each its own shards.
const WRITERS: usize = 2;
/// Rows of a batch.
const BATCH_ROWS: usize = 512;
/// Pages a second of 10,000 agents that seal one every 30 s.
const PAGES_PER_S: f64 = 333.0;
/// Hits of a query.
const BEST: usize = 10;
/// Queries that are timed, and those that are compared with what looking at every page gives.
const QUERIES: u64 = 1_000;
const COMPARED: u64 = 200;
/// Texts that are embedded for the figure of that.
const EMBEDDED: u64 = 96;
/// How long a call of the embedder may take: the first reads the weights.
const EMBEDS_WITHIN: Duration = Duration::from_secs(120);
/// What a page takes of the disk until readers of what was there before compaction are gone, in bytes; measured.
const PAGE_ON_DISK: u64 = 21_000;

const HELP: &str = "\
usage: cargo xtask bench context [--scale N] [--pages N] [--active N] [--seed N] [--folder DIR] [--models DIR]

  --scale N       agents (default: 10,000)
  --pages N       pages of each (200)
  --active N      agents that are asked again and again (1,000)
  --seed N        where texts, vectors and queries come from (1)
  --folder DIR    where pages are written meanwhile (default: that for temporary files), 39 GiB of them at the whole size; or
                  the URL of a bucket, s3://BUCKET/PREFIX, which the environment says how to reach
  --models DIR    where `nexa models pull` has put weights (default: where it does)

The last line is one JSON object.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut words: &[String] = &args;
    let (mut size, mut folder, mut models) = (Size::default(), None, models_folder());
    while let [name, value, rest @ ..] = words {
        let number = || value.parse().ok().filter(|number| *number > 0);
        let taken = match name.as_str() {
            "--scale" => number().map(|number| size.agents = number),
            "--pages" => number().map(|number| size.pages = number),
            "--active" => number().map(|number| size.active = number),
            "--seed" => number().map(|number| size.seed = number),
            "--folder" => {
                folder = Some(value.clone());
                Some(())
            }
            "--models" => {
                models = Some(PathBuf::from(value));
                Some(())
            }
            _ => None,
        };
        if taken.is_none() {
            break;
        }
        words = rest;
    }
    if !words.is_empty() {
        print!("{HELP}");
        return ExitCode::from(u8::from(!matches!(words, [help] if help == "--help")) * 2);
    }
    size.active = size.active.min(size.agents);
    match run(size, folder.as_deref(), models) {
        Ok((page, figures)) => {
            println!("{page}\n{figures}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Where `nexa models pull` puts weights.
fn models_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    data.map(|folder| folder.join("nexa/models"))
}

/// Two digits after the point.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// What is built.
struct Size {
    agents: u64,
    pages: u64,
    active: u64,
    seed: u64,
}

impl Default for Size {
    fn default() -> Self {
        Self { agents: 10_000, pages: 200, active: 1_000, seed: 1 }
    }
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn of(parts: &[u64]) -> Self {
        Self(parts.iter().fold(0x9E37_79B9_7F4A_7C15, |seed, part| mixed(seed ^ mixed(*part))))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.0)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The world of a seed.
struct World {
    size: Size,
    model: String,
}

impl World {
    fn agent(&self, number: u64) -> AgentId {
        let mut dice = Dice::of(&[self.size.seed, 1, number]);
        let (a, b) = (dice.next().to_le_bytes(), dice.next().to_le_bytes());
        AgentId::from_bytes(std::array::from_fn(|at| if at < 8 { a[at] } else { b[at - 8] }))
    }

    /// A word; the first are as frequent as those of a language are. The rare ones are two in one, so that the embedder, which
    /// takes a text to pieces that it knows, has as much to do with them as with those of a language.
    fn word(dice: &mut Dice) -> String {
        let rank = ((VOCABULARY as f64).powf(dice.unit()) as usize).min(VOCABULARY - 1);
        let word = |at: usize| PIECES.get(at % PIECES.len()).copied().unwrap_or_default();
        if rank < PIECES.len() { word(rank).to_owned() } else { word(rank / PIECES.len()).to_owned() + word(rank) }
    }

    fn text(&self, agent: u64, page: u64) -> String {
        let mut dice = Dice::of(&[self.size.seed, 2, agent, page]);
        (0..WORDS).map(|_| Self::word(&mut dice)).collect::<Vec<_>>().join(" ")
    }

    fn vector(&self, parts: &[u64]) -> PageVector {
        let mut dice = Dice::of(parts);
        let mut topic = Dice::of(&[self.size.seed, 4, dice.next() % TOPICS]);
        let numbers = (0..DIMENSION).map(|_| ((topic.unit() - 0.5) + 0.7 * (dice.unit() - 0.5)) as f32).collect();
        let vector = UnitVector::towards(numbers).expect("not all are zero");
        PageVector { model: self.model.clone(), vector }
    }

    fn page(&self, agent: u64, page: u64) -> StoredPage {
        let text = self.text(agent, page);
        let (first, last) = (Version(1 + page * MESSAGES), Version((page + 1) * MESSAGES));
        let id = PageId::of(self.agent(agent), first, last, blake3::hash(text.as_bytes()).as_bytes());
        let mut dice = Dice::of(&[self.size.seed, 5, agent, page]);
        let shared = (agent + page).is_multiple_of(SHARED_EVERY);
        StoredPage {
            id,
            tenant: TenantId::local(),
            workload: WorkloadId::from_bytes([(agent % 7) as u8; 16]),
            agent: self.agent(agent),
            reach: if shared { Reach::Tenant } else { Reach::Agent },
            kind: PageKind::Raw,
            first,
            last,
            first_at: Timestamp(1_000 * page),
            last_at: Timestamp(1_000 * page + 900),
            supersedes: None,
            messages: MESSAGES as u32,
            tokens: 211,
            body: text.bytes().chain(std::iter::repeat_n(0, 64)).collect(),
            text,
            message_vectors: (0..MESSAGES as usize * MESSAGE_VECTOR_BYTES).map(|_| dice.next() as u8).collect(),
            vector: Some(self.vector(&[self.size.seed, 3, agent, page])),
            importance: 0.5,
        }
    }
}

/// Runs it; gives a page of Markdown and the figures.
///
/// # Errors
/// In words.
fn run(size: Size, folder: Option<&str>, models: Option<PathBuf>) -> Result<(String, Value), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    let folder = folder.map_or_else(|| std::env::temp_dir().to_string_lossy().into_owned(), str::to_owned);
    let place = format!("{}/nexa-context-{}", folder.trim_end_matches('/'), std::process::id());
    let measured = runtime.block_on(measured(size, &place, models));
    let removed = if is_folder(&place) { std::fs::remove_dir_all(&place) } else { Ok(()) };
    let figures = measured?;
    removed.map_err(|error| format!("cannot remove {place}: {error}"))?;
    let rows = figures.as_object().into_iter().flatten().map(|(name, value)| format!("| {name} | {value} |\n"));
    Ok((format!("| | |\n|---|---|\n{}", rows.collect::<String>()), figures))
}

/// Whether it is a folder and no bucket.
fn is_folder(place: &str) -> bool {
    !place.contains("://")
}

async fn measured(size: Size, at: &str, models: Option<PathBuf>) -> Result<Value, String> {
    let model = models.map(|folder| EmbeddingModel::new(ModelStore::embedding(folder)));
    let name = model.as_ref().map_or("seeded/384", |model| model.model()).to_owned();
    let world = Arc::new(World { size, model: name });
    let meanwhile = (world.size.agents * world.size.pages * PAGE_ON_DISK) as f64 / f64::from(1 << 30);
    let Size { agents, pages, .. } = &world.size;
    eprintln!("{agents} agents with {pages} pages each, in {at}, where they take about {meanwhile:.1} GiB meanwhile");
    let embedding = match &model {
        Some(model) => embeds(model, &world).await,
        None => Err("no folder of weights is known".to_owned()),
    };
    let model = model.filter(|_| embedding.is_ok());
    if let Err(why) = &embedding {
        eprintln!("recalls are without the embedding of their query: {why}");
    }
    let said = |error: PagesError| error.to_string();
    let shards = Shards::new(SHARDS).expect("a good number");
    let settings = Settings { memory_bytes: 1 << 30, ..Settings::default() };
    let pages = Arc::new(LancePages::open(at, shards, settings).await.map_err(said)?);
    let written = writes(&pages, &world).await?;
    eprintln!("pages are compacted, then agents recall");
    let fresh = mib_of(at);
    let began = Instant::now();
    for shard in shards.all() {
        pages.compact(shard, Epoch(1)).await.map_err(said)?;
    }
    let compacting = began.elapsed();
    let mut warm = Vec::new();
    for agent in 0..world.size.active {
        let began = Instant::now();
        recalls(&pages, &world, None, agent, 0).await?;
        warm.push(began.elapsed());
    }
    let agent_kib = pages.memory_bytes() as f64 / 1_024.0 / world.size.active.max(1) as f64;
    let (mut with, mut without, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..QUERIES {
        let agent = Dice::of(&[world.size.seed, 6, number]).next() % world.size.active.max(1);
        let recalled = recalls(&pages, &world, model.as_ref(), agent, number).await?;
        with.push(recalled.whole);
        without.push(recalled.search);
        let began = Instant::now();
        let ids: Vec<PageId> = recalled.ids.into_iter().take(4).collect();
        pages.read(TenantId::local(), world.agent(agent), ids).await.map_err(said)?;
        reads.push(began.elapsed());
    }
    let agent_exact = agent_exact(&pages, &world).await?;
    let (wide, wide_times, shared) = wide(&pages, &world).await?;
    let [recall, search, read, cold, wide_times] = [with, without, reads, warm, wide_times].map(Times::of);
    let retired = mib_of(at);
    let all = world.size.agents as f64 * world.size.pages as f64;
    let per_commit = all / written.commits.len().max(1) as f64;
    let commit = Times::of(written.commits);
    Ok(json!({
        "suite": "context",
        "agents": world.size.agents, "pages_each": world.size.pages, "active": world.size.active,
        "seed": world.size.seed, "shards": SHARDS, "is_whole": world.size.agents >= 10_000 && world.size.pages >= 200,
        "recall_p50_ms": recall.p50, "recall_p99_ms": recall.p99, "recall_min_ms": recall.min, "recall_max_ms": recall.max,
        "recall_has_embedding": model.is_some(),
        "search_p50_ms": search.p50, "search_p99_ms": search.p99,
        "read_4_p50_ms": read.p50, "read_4_p99_ms": read.p99,
        "first_recall_p50_ms": cold.p50, "first_recall_p99_ms": cold.p99,
        "pages_written_per_s": rounded(all / written.whole.as_secs_f64()), "writing_s": rounded(written.whole.as_secs_f64()),
        "commit_p50_ms": commit.p50, "commit_p99_ms": commit.p99, "commit_min_ms": commit.min, "commit_max_ms": commit.max,
        "pages_per_commit": rounded(per_commit),
        "commits_per_s_at_333_every_15_s": rounded(f64::from(SHARDS) / 15.0),
        "commits_per_s_at_333_full_batches": rounded(PAGES_PER_S / BATCH_ROWS as f64),
        "embeddings_per_s": embedding.ok().map(rounded),
        "agent_recall_exact": agent_exact, "wide_recall": wide, "shared_pages": shared,
        "wide_p50_ms": wide_times.p50, "wide_p99_ms": wide_times.p99,
        "agent_kib": rounded(agent_kib),
        "disk_mib_before": fresh,
        "disk_mib_with_retired": retired,
        "disk_mib_compacted": tidied(at, shards).await?,
        "compacting_s": rounded(compacting.as_secs_f64()),
    }))
}

/// Times as figures, in milliseconds.
struct Times {
    p50: f64,
    p99: f64,
    min: f64,
    max: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| -> f64 {
            let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(place).map_or(0.0, |time| (time.as_secs_f64() * 1e6).round() / 1e3)
        };
        Self { p50: at(0.5), p99: at(0.99), min: at(0.0), max: at(1.0) }
    }
}

/// What writing everything took.
struct Written {
    /// Each commit.
    commits: Vec<Duration>,
    /// All of it, with making the pages.
    whole: Duration,
}

/// How far the writers are, for whoever waits.
struct Progress {
    began: Instant,
    pages: u64,
    written: AtomicU64,
}

impl Progress {
    /// Says every tenth of it.
    fn add(&self, pages: u64) {
        let before = self.written.fetch_add(pages, Ordering::Relaxed);
        let tenths = |pages: u64| pages * 10 / self.pages.max(1);
        if tenths(before + pages) > tenths(before) {
            let now = before + pages;
            eprintln!("{now} of {} pages are written after {:.0} s", self.pages, self.began.elapsed().as_secs_f64());
        }
    }
}

/// Writes everything, in the order of time: the first page of all agents, then the second.
async fn writes(pages: &Arc<LancePages>, world: &Arc<World>) -> Result<Written, String> {
    for shard in pages.shards().all() {
        pages.take_over(shard, Epoch(1)).await.map_err(|error| error.to_string())?;
    }
    let (size, began) = (&world.size, Instant::now());
    let progress = Arc::new(Progress { began, pages: size.agents * size.pages, written: AtomicU64::new(0) });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(writes_some(pages.clone(), world.clone(), writer, progress.clone())))
        .collect();
    let mut commits = Vec::new();
    for writer in writers {
        commits.extend(writer.await.map_err(|error| error.to_string())??);
    }
    Ok(Written { commits, whole: began.elapsed() })
}

/// Writes what belongs to one writer's shards; gives what each commit took.
async fn writes_some(
    pages: Arc<LancePages>,
    world: Arc<World>,
    writer: usize,
    progress: Arc<Progress>,
) -> Result<Vec<Duration>, String> {
    let shards: BTreeSet<_> = pages.shards().all().skip(writer).step_by(WRITERS).collect();
    let agents: Vec<_> = (0..world.size.agents)
        .map(|agent| (agent, pages.shards().of(world.agent(agent))))
        .filter(|(_, shard)| shards.contains(shard))
        .collect();
    let mut waiting: BTreeMap<_, Vec<StoredPage>> = BTreeMap::new();
    let (mut commits, mut applied) = (Vec::new(), 0);
    for page in 0..world.size.pages {
        for (agent, shard) in &agents {
            let batch = waiting.entry(*shard).or_default();
            batch.push(world.page(*agent, page));
            if batch.len() >= BATCH_ROWS {
                commits.push(commit(&pages, *shard, &mut applied, std::mem::take(batch), &progress).await?);
            }
        }
    }
    for (shard, rest) in waiting.into_iter().filter(|(_, rest)| !rest.is_empty()) {
        commits.push(commit(&pages, shard, &mut applied, rest, &progress).await?);
    }
    Ok(commits)
}

async fn commit(
    pages: &LancePages,
    shard: Shard,
    applied: &mut u64,
    some: Vec<StoredPage>,
    progress: &Progress,
) -> Result<Duration, String> {
    *applied += 1;
    let count = some.len() as u64;
    let batch = PageBatch { shard, epoch: Epoch(1), applied: GlobalSeq(*applied), pages: some };
    let began = Instant::now();
    pages.append(batch).await.map_err(|error| error.to_string())?;
    progress.add(count);
    Ok(began.elapsed())
}

struct Recalled {
    whole: Duration,
    search: Duration,
    ids: Vec<PageId>,
}

/// One recall: some words of a page, and a vector.
async fn recalls(
    pages: &LancePages,
    world: &World,
    model: Option<&EmbeddingModel>,
    agent: u64,
    number: u64,
) -> Result<Recalled, String> {
    let mut dice = Dice::of(&[world.size.seed, 7, agent, number]);
    let text = world.text(agent, dice.next() % world.size.pages);
    let words: Vec<&str> = text.split(' ').skip(dice.next() as usize % (WORDS - 12)).take(12).collect();
    let words = words.join(" ");
    let mut near = world.vector(&[world.size.seed, 8, agent, number]);
    let began = Instant::now();
    if let Some(model) = model {
        let made =
            model.embed(call(vec![words.as_str().into()], Urgency::Query)).await.map_err(|error| error.to_string())?;
        near.vector = made.vectors.into_iter().next().ok_or("the embedder gave no vector")?;
    }
    let searching = Instant::now();
    let query = PageQuery { words: Some(words), near: Some(near), best: BEST };
    let scope = Scope::Agent(TenantId::local(), world.agent(agent));
    let hits = pages.search(scope, query).await.map_err(|error| error.to_string())?;
    let ids = hits.into_iter().map(|hit| hit.id).collect();
    Ok(Recalled { whole: began.elapsed(), search: searching.elapsed(), ids })
}

/// The share of an agent's nearest pages that a search finds.
async fn agent_exact(pages: &LancePages, world: &World) -> Result<f64, String> {
    let (mut found, mut all) = (0, 0);
    for number in 0..COMPARED {
        let agent = Dice::of(&[world.size.seed, 9, number]).next() % world.size.agents;
        let near = world.vector(&[world.size.seed, 10, number]);
        let there = (0..world.size.pages).map(|page| world.page(agent, page)).map(|page| (page.id, page.vector));
        let exact = nearest(there.filter_map(|(id, vector)| Some((id, vector?))), &near);
        let query = PageQuery { words: None, near: Some(near), best: BEST };
        let scope = Scope::Agent(TenantId::local(), world.agent(agent));
        let hits = pages.search(scope, query).await.map_err(|error| error.to_string())?;
        found += hits.iter().filter(|hit| exact.contains(&hit.id)).count();
        all += exact.len();
    }
    Ok(found as f64 / all.max(1) as f64)
}

/// The same of what the tenant shares; how long it took, and among how many pages.
async fn wide(pages: &LancePages, world: &World) -> Result<(f64, Vec<Duration>, usize), String> {
    let mut shared = Vec::new();
    for agent in 0..world.size.agents {
        let of = (0..world.size.pages).filter(|page| (agent + page).is_multiple_of(SHARED_EVERY));
        shared.extend(of.map(|page| world.page(agent, page)).filter_map(|page| Some((page.id, page.vector?))));
    }
    let (mut found, mut all, mut times) = (0, 0, Vec::new());
    // The first reads them.
    for number in 0..=COMPARED {
        let near = world.vector(&[world.size.seed, 11, number]);
        let query = PageQuery { words: None, near: Some(near.clone()), best: BEST };
        let began = Instant::now();
        let hits = pages.search(Scope::Tenant(TenantId::local()), query).await.map_err(|error| error.to_string())?;
        if number > 0 {
            times.push(began.elapsed());
            let exact = nearest(shared.iter().cloned(), &near);
            found += hits.iter().filter(|hit| exact.contains(&hit.id)).count();
            all += exact.len();
        }
    }
    Ok((found as f64 / all.max(1) as f64, times, shared.len()))
}

fn nearest(all: impl Iterator<Item = (PageId, PageVector)>, near: &PageVector) -> BTreeSet<PageId> {
    let mut all: Vec<(f32, PageId)> = all.map(|(id, of)| (of.vector.cosine(&near.vector), id)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    all.into_iter().take(BEST).map(|(_, id)| id).collect()
}

fn call(texts: Vec<Arc<str>>, urgency: Urgency) -> EmbedCall {
    EmbedCall { texts, tenant: TenantId::local(), urgency, deadline: EMBEDS_WITHIN, cancel: CancellationToken::new() }
}

/// Texts of pages a second, after the first call has read the weights.
async fn embeds(model: &EmbeddingModel, world: &World) -> Result<f64, String> {
    let said = |error: nexa_ports::embedder::EmbedError| error.to_string();
    model.embed(call(vec!["once".into()], Urgency::Query)).await.map_err(said)?;
    let texts: Vec<Arc<str>> = (0..EMBEDDED).map(|page| world.text(1, page).into()).collect();
    let began = Instant::now();
    for batch in texts.chunks(32) {
        model.embed(call(batch.to_vec(), Urgency::Background)).await.map_err(said)?;
    }
    Ok(EMBEDDED as f64 / began.elapsed().as_secs_f64())
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.metadata().map_or(0, |of| if of.is_dir() { folder_bytes(&entry.path()) } else { of.len() }))
        .sum()
}

/// Of a folder, in MiB.
fn mib_of(place: &str) -> Option<f64> {
    is_folder(place).then(|| rounded(folder_bytes(Path::new(place)) as f64 / 1_048_576.0))
}

/// What is left in a folder once nobody reads what was replaced; in a bucket, nothing is left.
async fn tidied(place: &str, shards: Shards) -> Result<Option<f64>, String> {
    let settings = Settings { retired_kept: Duration::ZERO, ..Settings::default() };
    let pages = LancePages::open(place, shards, settings).await.map_err(|error| error.to_string())?;
    for shard in shards.all() {
        match is_folder(place) {
            true => pages.take_over(shard, Epoch(2)).await.map(drop),
            false => pages.drop_pages(shard, Epoch(2)).await,
        }
        .map_err(|error| error.to_string())?;
    }
    Ok(mib_of(place))
}

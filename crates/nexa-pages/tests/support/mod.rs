//! A load whose every batch can be computed again, and a judge of what is left of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nexa_pages::{LancePages, Settings};
use nexa_ports::pages::{ANSWER_PAGES_MAX, PageBatch, PageStore, Shard, Shards, StoredPage, behind};
use nexa_testkit::pages_contract::{agent, page};
use nexa_types::{AgentId, Epoch, GlobalSeq, TenantId, Version};

/// Shards of the load; each has a writer of its own.
pub(crate) const SHARDS: u16 = 2;
/// Agents of a shard.
const AGENTS: usize = 3;
/// Every so many batches the shard is compacted.
const COMPACT_EVERY: u64 = 7;

pub(crate) fn shards() -> Shards {
    Shards::new(SHARDS).expect("a good number")
}

fn agents(shard: Shard) -> Vec<AgentId> {
    (1..=255).map(agent).filter(|agent| shards().of(*agent) == shard).take(AGENTS).collect()
}

/// The pages of a batch: several, of several agents.
pub(crate) fn batch(shard: Shard, number: u64) -> Vec<StoredPage> {
    let of = |at: usize, agent: AgentId| {
        let text = format!("batch {number} of shard {} has part {at} {}", shard.0, "and more ".repeat(40));
        StoredPage { body: vec![number as u8; 3_000], ..page(agent, 1 + 4 * number, &text) }
    };
    agents(shard).into_iter().enumerate().map(|(at, agent)| of(at, agent)).collect()
}

/// Appends batches to a shard for ever; says of each that it was acknowledged.
async fn writes(pages: LancePages, shard: Shard, epoch: Epoch) {
    let mut number = pages.take_over(shard, epoch).await.expect("taken over").0;
    loop {
        number += 1;
        let pages_of = PageBatch { shard, epoch, applied: GlobalSeq(number), pages: batch(shard, number) };
        pages.append(pages_of).await.expect("appended");
        println!("ack {} {number}", shard.0);
        if number.is_multiple_of(COMPACT_EVERY) {
            pages.compact(shard, epoch).await.expect("compacted");
        }
    }
}

/// What a process does until it is killed.
pub(crate) fn works_until_it_is_killed() {
    let setting = |name: &str| std::env::var(name).expect("started by its parent only");
    let epoch = Epoch(setting("NEXA_TEST_EPOCH").parse().expect("a number"));
    let settings = Settings { fsync: setting("NEXA_TEST_FSYNC") == "true", ..Settings::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let pages = LancePages::open(&setting("NEXA_TEST_PLACE"), shards(), settings).await.expect("open");
        futures::future::join_all(shards().all().map(|shard| writes(pages.clone(), shard, epoch))).await;
    });
}

/// A process that works.
pub(crate) struct Worker {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    /// The last batch of each shard that was acknowledged.
    pub(crate) acked: BTreeMap<u16, u64>,
}

impl Worker {
    pub(crate) fn start(test: &str, at: &str, epoch: u64, fsync: bool, env: &[(String, String)]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a test has a program"))
            .args(["--exact", test, "--ignored", "--nocapture"])
            .envs(env.iter().map(|(name, value)| (name, value)))
            .env("NEXA_TEST_PLACE", at)
            .env("NEXA_TEST_EPOCH", epoch.to_string())
            .env("NEXA_TEST_FSYNC", fsync.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, said, acked: BTreeMap::new() }
    }

    /// Waits for so many acknowledgements; whether they came.
    pub(crate) fn acks(&mut self, count: usize) -> bool {
        let mut seen = 0;
        let mut line = String::new();
        while seen < count {
            line.clear();
            if self.said.read_line(&mut line).expect("its output") == 0 {
                return false;
            }
            seen += usize::from(self.heard(&line));
        }
        true
    }

    fn heard(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The harness of tests writes before the first of ours.
        let Some(at) = words.iter().position(|word| *word == "ack") else { return false };
        let (Some(shard), Some(number)) = (words.get(at + 1), words.get(at + 2)) else { return false };
        let (Ok(shard), Ok(number)) = (shard.parse(), number.parse()) else { return false };
        self.acked.insert(shard, number);
        true
    }

    /// Kills it, and hears what it said until then.
    pub(crate) fn kill(mut self) -> BTreeMap<u16, u64> {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        let mut line = String::new();
        // What it was about to say when it died may be half a line.
        while self.said.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
            self.heard(&line);
            line.clear();
        }
        self.acked
    }
}

/// Whether a place has all that was acknowledged, whole, and nothing half. Takes the shards over.
pub(crate) async fn judge(at: &str, settings: Settings, acked: &BTreeMap<u16, u64>, epoch: u64) -> Result<(), String> {
    let said = |error: nexa_ports::pages::PagesError| error.to_string();
    let pages = LancePages::open(at, shards(), settings).await.map_err(said)?;
    for shard in shards().all() {
        let applied = pages.take_over(shard, Epoch(epoch)).await.map_err(said)?.0;
        let promised = acked.get(&shard.0).copied().unwrap_or_default();
        if applied < promised {
            return Err(format!("shard {} goes up to {applied}, and {promised} was acknowledged", shard.0));
        }
        let mut found = Vec::new();
        for agent in agents(shard) {
            let mut from = Version(0);
            loop {
                let part = pages.scan(TenantId::local(), agent, from, ANSWER_PAGES_MAX).await.map_err(said)?;
                let Some(last) = part.last() else { break };
                from = behind(last);
                found.extend(part);
            }
        }
        let mut expected: Vec<StoredPage> = (1..=applied).flat_map(|number| batch(shard, number)).collect();
        expected.sort_by_key(|page| page.id);
        found.sort_by_key(|page| page.id);
        if found != expected {
            return Err(format!("shard {} has {} pages instead of {}", shard.0, found.len(), expected.len()));
        }
    }
    Ok(())
}

//! How many durable appends a second 64 writers get, beside what the disk does at the same time.
//!
//! `cargo run --release -p nexa-store --example append_speed -- [DIRECTORY] [SECONDS] [WRITERS]`
//!
//! Each append is what one step of an agent stores: three facts and the change of its row.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nexa_event::effect::{Answer, Finish, ModelReply};
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, EffectResult, Intent};
use nexa_ports::store::{Append, Birth, RowChange, Store};
use nexa_ports::view::Views;
use nexa_store::{Options, SqliteStore};
use nexa_testkit::store_contract::{birth, owned, submission, workload};
use nexa_types::{AgentId, AgentState, Epoch, Seq, Spend, Timestamp, Tokens, Waiting};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(|| std::env::temp_dir().join("nexa-append-speed"), PathBuf::from);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(5);
    let writers = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(64);
    std::fs::create_dir_all(&directory).expect("a directory to write to");
    let syncs = sync_times(&directory, 200);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let rate = runtime.block_on(measure(&directory, Duration::from_secs(seconds), writers));
    let after = sync_times(&directory, 200);
    println!("sync of 512 bytes: p50 {} µs before, {} µs after", syncs.as_micros(), after.as_micros());
    let floor = f64::from(writers) * 2.0 / (syncs + after).as_secs_f64();
    println!("one commit of all writers a sync would be {floor:.0} appends/s; this is {:.2} of it", rate / floor);
}

/// The median time of a write and sync of 512 bytes.
fn sync_times(directory: &std::path::Path, count: usize) -> Duration {
    let mut file = File::create(directory.join("sync.probe")).expect("a file");
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[7; 512]).and_then(|()| file.sync_data()).expect("a sync");
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[count / 2]
}

fn step(agent: AgentId, version: u64) -> Append {
    let seq = Seq(version);
    let reply = ModelReply {
        text: "a short answer of about a hundred bytes, as a model gives it when it is asked to be brief".into(),
        finish: Finish::Stop,
        model: "embedded/model".into(),
        spend: Spend::default(),
        tokens_left_out: Tokens(0),
        tool_calls: Vec::new(),
    };
    let result = EffectResult::Done(Answer::Model(reply));
    let intent = Intent::Model {
        model: "embedded/model".into(),
        sources: vec![],
        reserved: Spend::default(),
        conversation: None,
    };
    let facts = vec![
        Fact::Agent(AgentEvent::EffectEnded { seq, result, spend: Spend::default() }),
        Fact::Agent(AgentEvent::EffectIntended { seq: seq.next(), intent, fingerprint: [7; 32] }),
        Fact::Agent(AgentEvent::EffectStarted { seq: seq.next(), attempt: 1, epoch: Epoch(1) }),
    ];
    let row = Some(RowChange { state: AgentState::Waiting(Waiting::Model), due: Some(Timestamp(9_000_000)) });
    Append { row, ..owned(agent, 1, version, facts) }
}

async fn measure(directory: &std::path::Path, span: Duration, writers: u32) -> f64 {
    let store = Arc::new(SqliteStore::open(directory.join("store"), Options::default()).expect("open"));
    let number = u8::try_from(std::process::id() % 250).expect("below 250");
    let workload = workload(number);
    let root = AgentId::root(workload);
    let agents: Vec<AgentId> = (0..writers).map(|branch| AgentId::child(root, Seq(1), branch)).collect();
    let births: Vec<Birth> = agents.iter().map(|agent| birth(workload, *agent)).collect();
    let submission = Append { births, ..submission(workload) };
    store.append(vec![submission]).await.remove(0).expect("an empty directory, or another process id");

    let stop = Arc::new(AtomicBool::new(false));
    let appends = Arc::new(AtomicU64::new(0));
    let waited = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks: Vec<_> = agents
        .into_iter()
        .map(|agent| {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            let (appends, waited) = (Arc::clone(&appends), Arc::clone(&waited));
            tokio::spawn(async move {
                let mut version = 1;
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let appended = store.append(vec![step(agent, version)]).await.remove(0).expect("append");
                    version = appended.version.0;
                    appends.fetch_add(1, Ordering::Relaxed);
                    waited.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(span).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no writer fails");
    }
    let took = start.elapsed();
    let appends = appends.load(Ordering::Relaxed);
    let mean = waited.load(Ordering::Relaxed) / appends.max(1);
    let rate = appends as f64 / took.as_secs_f64();
    let lag = store.lag();
    let log = std::fs::metadata(directory.join("store/nexa.db-wal")).map_or(0, |file| file.len());
    println!("{writers} writers: {rate:.0} appends/s, {:.0} facts/s, mean wait {mean} µs", rate * 3.0);
    println!("read models behind by {lag} facts, write-ahead log {} MiB", log >> 20);
    let head = *store.head().borrow();
    let begun = Instant::now();
    store.wait_applied(head, Duration::from_secs(600)).await.expect("they catch up");
    println!(
        "caught up after {:.1} s: {:.0} facts/s",
        begun.elapsed().as_secs_f64(),
        lag as f64 / begun.elapsed().as_secs_f64()
    );
    rate
}

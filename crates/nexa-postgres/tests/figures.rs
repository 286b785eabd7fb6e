//! Appends a second through the port beside raw inserts and the disk's own floor, of one run on one server.
//!
//! `cargo test --release -p nexa-postgres --test figures -- --ignored --nocapture`

mod support;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexa_ports::store::{Append, Birth};
use nexa_postgres::{PostgresStore, Settings};
use nexa_testkit::postgres::Server;
use nexa_testkit::store_contract::{birth, owned, submission, workload};
use nexa_types::{AgentId, Seq};
use sqlx::{Connection, PgConnection};
use support::{append, fact, node};

/// Who appends at a time, each to an agent of its own, one fact a call.
const CALLERS: u32 = 64;
/// Bytes of a fact's value.
const FACT_BYTES: usize = 220;
const DURATION: Duration = Duration::from_secs(4);

/// Microseconds until 512 bytes are on the disk, the median.
fn fsync_p50() -> f64 {
    let path = std::env::temp_dir().join(format!("nexa-fsync-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).expect("a temporary file");
    let mut times: Vec<f64> = (0..200)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[7; 512]).and_then(|()| file.sync_data()).expect("it is written");
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    std::fs::remove_file(path).expect("it was made");
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Rows a second of one connection that inserts 256 at a time into a table like that of facts.
async fn raw_rows(url: &str) -> f64 {
    let mut connection = PgConnection::connect(url).await.expect("it connects");
    sqlx::raw_sql(
        "CREATE TABLE raw (position bigint PRIMARY KEY, stream bytea NOT NULL, version bigint NOT NULL, workload bytea,
                           payload bytea);
         CREATE UNIQUE INDEX raw_by_stream ON raw (stream, version);
         CREATE INDEX raw_by_workload ON raw (workload, position) WHERE workload IS NOT NULL",
    )
    .execute(&mut connection)
    .await
    .expect("the table is made");
    let (start, mut rows) = (Instant::now(), 0_i64);
    while start.elapsed() < DURATION {
        let agents: Vec<Vec<u8>> =
            (0..256_u32).map(|n| [&[b'a'][..], &(n % 64).to_be_bytes(), &[9; 12]].concat()).collect();
        sqlx::query("INSERT INTO raw SELECT * FROM unnest($1, $2, $3, $4, $5)")
            .bind((rows..rows + 256).collect::<Vec<_>>())
            .bind(agents)
            .bind((rows..rows + 256).collect::<Vec<_>>())
            .bind(vec![vec![3_u8; 16]; 256])
            .bind(vec![vec![5_u8; 256]; 256])
            .execute(&mut connection)
            .await
            .expect("rows are inserted");
        rows += 256;
    }
    rows as f64 / start.elapsed().as_secs_f64()
}

/// Appends a second, and the median of how long one took, in milliseconds.
async fn appends(url: &str, writers: usize) -> (f64, f64) {
    let settings = Settings { writers, ..Settings::new(url, node("n1")) };
    let store = Arc::new(PostgresStore::connect(settings).await.expect("it opens"));
    append(&*store, submission(workload(1))).await.expect("it is new");
    let root = AgentId::root(workload(1));
    let agents: Vec<AgentId> = (0..CALLERS).map(|nth| AgentId::child(root, Seq(1), nth)).collect();
    let births: Vec<Birth> = agents.iter().map(|agent| birth(workload(1), *agent)).collect();
    append(&*store, Append { births, ..owned(root, 1, 1, vec![]) }).await.expect("they are born");
    let start = Instant::now();
    let callers = agents.into_iter().map(|agent| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let (mut version, mut times) = (1, Vec::new());
            while start.elapsed() < DURATION {
                let began = Instant::now();
                append(&*store, owned(agent, 1, version, vec![fact(version, FACT_BYTES)])).await.expect("append");
                times.push(began.elapsed().as_secs_f64() * 1e3);
                version += 1;
            }
            times
        })
    });
    let mut times = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        times.extend(caller.await.expect("no caller fails"));
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    store.close().await;
    times.sort_by(f64::total_cmp);
    (rate, times[times.len() / 2])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures, which takes a machine that does nothing else"]
async fn appends_a_second_beside_raw_inserts_and_the_disk() {
    let Some(server) = Server::shared() else { return };
    for run in 1..=3 {
        let (fsync, raw) = (fsync_p50(), raw_rows(&server.database()).await);
        println!(
            "run {run}: fsync_p50_us {fsync:.0} raw_insert_rows_per_s {raw:.0} aim {:.0}",
            0.4 * 64.0 / (fsync / 1e6)
        );
        for writers in [1, 2, 4] {
            let (rate, median) = appends(&server.database(), writers).await;
            println!("  writers {writers}: appends_per_s {rate:.0} append_p50_ms {median:.2}");
        }
    }
}

//! What a node does on PostgreSQL, and what the server does by itself.
//!
//! - `durable_steps_per_s_postgres`, `step_p50_ms`, `step_p99_ms`, `durable_messages_per_s`: as in the suite `core`, by the same
//!   programs, on a server that was started for it with its usual settings; it syncs.
//! - `raw_insert_rows_per_s`: rows of 256 bytes into the store's own table with its indices, in batches of 256, one commit
//!   each, on one connection. `raw_insert_rows_per_s_of_four`: on four connections at a time.
//! - `fsync_p50_us`: 512 bytes written and synced on the file system that the server is on.
//!
//! Each round has a new database, and all of them are measured in turn.

use std::sync::Arc;
use std::time::Instant;

use nexa_postgres::{PostgresStore, Settings};
use nexa_testkit::postgres::Server;
use nexa_types::NodeId;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::core::node::{Ground, block_on};
use crate::core::{disk, messages, steps};
use crate::measure::{Error, Figures, Rounds};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds that do not count.
    pub(crate) warm_up: usize,
    pub(crate) rounds: usize,
    pub(crate) syncs: usize,
    pub(crate) rows: usize,
    pub(crate) agents: usize,
    pub(crate) steps: i64,
    pub(crate) messages: i64,
}

/// Streams that the rows belong to, one after another.
const STREAMS: usize = 64;
/// Rows of one transaction.
const BATCH: usize = 256;
/// Connections that insert at a time, where more than one does.
const CONNECTIONS: usize = 4;

/// Measures it.
pub(crate) fn run(scale: Scale, server: &Server, figures: &mut Figures) -> Result<(), Error> {
    let mut rounds = Rounds::default();
    for round in 0..scale.warm_up + scale.rounds {
        let taken = one_round(scale, server)?;
        if round >= scale.warm_up {
            rounds.append(taken);
        }
    }
    figures.spread("durable_steps_per_s_postgres", rounds.take("durable_steps_per_s")?);
    for key in [
        "step_p50_ms",
        "step_p99_ms",
        "durable_messages_per_s",
        "raw_insert_rows_per_s",
        "raw_insert_rows_per_s_of_four",
        "fsync_p50_us",
    ] {
        figures.spread(key, rounds.take(key)?);
    }
    let allowed = scale.agents as f64 * 1e6 / figures.of("fsync_p50_us");
    figures.count("steps_vs_fsync", figures.of("durable_steps_per_s_postgres") / allowed);
    figures.count("messages_vs_raw", figures.of("durable_messages_per_s") / figures.of("raw_insert_rows_per_s"));
    Ok(())
}

/// Everything once, in turn.
fn one_round(scale: Scale, server: &Server) -> Result<Rounds, Error> {
    let mut rounds = Rounds::default();
    // The server keeps its data there.
    let folder = tempfile::tempdir()?;
    let sync = || disk::sync_micros(folder.path(), scale.syncs);
    rounds.note("fsync_p50_us", sync()?);
    rounds.note("raw_insert_rows_per_s", insert_rows(server, 1, scale.rows)?);
    rounds.note("raw_insert_rows_per_s_of_four", insert_rows(server, CONNECTIONS, scale.rows)?);
    rounds.note("fsync_p50_us", sync()?);
    steps::measure(async || ground(server).await, scale.agents, scale.steps, &mut rounds)?;
    rounds.note("fsync_p50_us", sync()?);
    let messages = messages::measure(async || ground(server).await, scale.agents, scale.messages)?;
    rounds.note("durable_messages_per_s", messages);
    rounds.note("fsync_p50_us", sync()?);
    Ok(rounds)
}

/// A store in a database that nobody has used.
async fn ground(server: &Server) -> Result<Ground, Error> {
    let store = Arc::new(PostgresStore::connect(Settings::new(server.database(), NodeId::new("bench")?)).await?);
    Ground::on(store.clone(), store)
}

/// Rows a second, from so many connections, each with its own part of the streams.
fn insert_rows(server: &Server, connections: usize, count: usize) -> Result<f64, Error> {
    block_on(async {
        let url = server.database();
        // It makes the tables.
        PostgresStore::connect(Settings::new(&*url, NodeId::new("bench")?)).await?.close().await;
        let options: PgConnectOptions = url.parse()?;
        let options = options.disable_statement_logging().options([("search_path", "nexa")]);
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(PgConnection::connect_with(&options).await?);
        }
        let each = count / connections / BATCH;
        let begin = Instant::now();
        let inserting: Vec<_> = open
            .into_iter()
            .enumerate()
            .map(|(number, connection)| tokio::spawn(insert_batches(connection, number * each..(number + 1) * each)))
            .collect();
        for inserted in inserting {
            inserted.await??;
        }
        Ok((each * connections * BATCH) as f64 / begin.elapsed().as_secs_f64())
    })
}

async fn insert_batches(mut connection: PgConnection, batches: std::ops::Range<usize>) -> Result<(), sqlx::Error> {
    // Together with the two numbers, 256 bytes a row.
    let (workload, header, payload, link) = ([3_u8; 16], [5_u8; 96], [6_u8; 79], [9_u8; 32]);
    for batch in batches {
        let rows: Vec<usize> = (batch * BATCH..(batch + 1) * BATCH).collect();
        let streams: Vec<[u8; 17]> = rows
            .iter()
            .map(|row| {
                let mut stream = [1; 17];
                // Ids are hashes: streams lie anywhere in the index.
                stream[1] = (row % STREAMS).wrapping_mul(151) as u8;
                stream
            })
            .collect();
        sqlx::query(
            "INSERT INTO events (position, stream, version, workload, header, payload, link)
             SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[])",
        )
        .bind(rows.iter().map(|row| *row as i64 + 1).collect::<Vec<_>>())
        .bind(streams.iter().map(|stream| stream.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| (row / STREAMS) as i64).collect::<Vec<_>>())
        .bind(vec![workload.as_slice(); BATCH])
        .bind(vec![header.as_slice(); BATCH])
        .bind(vec![payload.as_slice(); BATCH])
        .bind(vec![link.as_slice(); BATCH])
        .execute(&mut connection)
        .await?;
    }
    connection.close().await
}

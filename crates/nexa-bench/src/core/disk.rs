//! What the disk does at the same time: one sync, and rows by SQLite alone.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use nexa_store::{Options, SqliteStore};
use rusqlite::{Connection, params};

use crate::measure::Error;

/// Streams that the rows belong to, one after another.
const STREAMS: usize = 64;
/// Rows of one transaction.
const BATCH: usize = 256;

/// The median time of a write and sync of 512 bytes, in microseconds.
pub(crate) fn sync_micros(folder: &Path, count: usize) -> Result<f64, Error> {
    let mut file = File::create(folder.join("sync.probe"))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        file.write_all(&[7; 512])?;
        file.sync_data()?;
        times.push(begin.elapsed().as_nanos() as f64 / 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[count / 2])
}

/// Indices by stream and by workload that SQLite keeps itself, with each row.
const INDICES: &str = "CREATE UNIQUE INDEX events_by_stream ON events (stream, version);
                       CREATE INDEX events_by_workload ON events (workload) WHERE workload IS NOT NULL;";

/// Rows a second into the table of facts of a new store, indexed by SQLite itself, with the settings of the store's writer.
/// Nobody reads them: they are no facts.
pub(crate) fn insert_rows(folder: &Path, count: usize) -> Result<f64, Error> {
    drop(SqliteStore::open(folder, Options::default())?);
    let mut connection = Connection::open(folder.join("nexa.db"))?;
    connection.execute_batch(INDICES)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "cache_size", -(16 << 10))?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_096)?;
    // Together with the two numbers, 256 bytes a row.
    let (workload, header, payload, link) = ([3_u8; 16], [5_u8; 96], [6_u8; 79], [9_u8; 32]);
    let begin = Instant::now();
    let mut done = 0;
    while done < count {
        let change = connection.transaction()?;
        {
            let mut insert = change.prepare_cached(
                "INSERT INTO events (position, stream, version, workload, header, payload, blob, link)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7)",
            )?;
            for row in done..done + BATCH {
                let mut stream = [1_u8; 17];
                // Ids are hashes: streams lie anywhere in the index.
                stream[1] = (row % STREAMS).wrapping_mul(151) as u8;
                insert.execute(params![
                    (row + 1) as i64,
                    stream,
                    (row / STREAMS) as i64,
                    workload,
                    header,
                    payload,
                    link
                ])?;
            }
        }
        change.commit()?;
        done += BATCH;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

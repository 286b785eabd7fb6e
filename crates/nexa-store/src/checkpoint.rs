//! Keeps the write-ahead log short without making a commit wait for it.
//!
//! A thread with its own connection copies the log into the file while commits go on. Under steady load it never
//! catches up by itself, so that the log could never start over; the writer therefore copies the short rest between
//! two commits, once the thread has done the bulk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tracing::warn;

use crate::open::connect;

/// The log is copied when it has more pages than this: 16 MiB of 4 KiB pages.
const LOG_PAGES_MAX: u64 = 4_096;

/// The writer's end.
pub(crate) struct Handle {
    wake: SyncSender<()>,
    bulk_done: Arc<AtomicBool>,
}

impl Handle {
    /// Called between commits with the length of the log.
    pub(crate) fn after_commit(&self, writer: &Connection, log_pages: u64) {
        if log_pages < LOG_PAGES_MAX {
            return;
        }
        if self.bulk_done.swap(false, Ordering::AcqRel) {
            copy_log(writer);
        } else {
            // Full means that the thread is at it.
            let _ = self.wake.try_send(());
        }
    }
}

/// Starts the thread for the file at this path, of which it opens a connection when the log is long for the first time. It ends
/// when the handle is dropped.
pub(crate) fn start(path: &Path) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let (wake, woken) = sync_channel(1);
    let bulk_done = Arc::new(AtomicBool::new(false));
    let (done, path) = (Arc::clone(&bulk_done), path.to_owned());
    let thread =
        std::thread::Builder::new().name("nexa-store-checkpoint".into()).spawn(move || work(&path, woken, done))?;
    Ok((Handle { wake, bulk_done }, thread))
}

fn work(path: &Path, woken: Receiver<()>, bulk_done: Arc<AtomicBool>) {
    let mut opened = None;
    while woken.recv().is_ok() {
        let connection = opened.take().map_or_else(|| connect(path), Ok);
        match &connection {
            Ok(connection) => {
                if copy_log(connection) {
                    bulk_done.store(true, Ordering::Release);
                }
            }
            Err(error) => not_copied(error),
        }
        opened = connection.ok();
    }
}

/// Copies as much as possible without waiting for anybody. Whether it worked.
fn copy_log(connection: &Connection) -> bool {
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        Ok(()) => true,
        Err(error) => {
            not_copied(&error);
            false
        }
    }
}

/// The log still has everything: it only grows until the next try.
fn not_copied(error: &rusqlite::Error) {
    warn!(%error, "the write-ahead log could not be copied into the database file");
}

/// Empties a long log before the writer's connection is closed, so that the next start has little to read. A short
/// one stays: copying it would cost an end two syncs, and reading it costs a start next to nothing.
pub(crate) fn last(connection: &Connection, log_pages: u64) {
    if log_pages < LOG_PAGES_MAX / 4 {
        return;
    }
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        warn!(%error, "the write-ahead log stays for the next start");
    }
}

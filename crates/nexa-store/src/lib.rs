//! Streams, agent rows, inbox, snapshots, blobs and read models on SQLite, in one directory of one machine.
//!
//! ```text
//! callers ──► queue ──► writer thread ──► nexa.db   one commit in flight, the next batch forms meanwhile
//!                            │  wakes
//!                            ├──► checkpoint thread   moves the write-ahead log into the file, off the commit path
//!                            └──► projector thread ──► views.db   folds of nexa-view; can be thrown away
//! readers ◄── small pools of read-only connections
//! ```
//!
//! - [`open`]: the directory, its lock, its schema; [`SqliteStore`] itself.
//! - `writer`: group commit, and what happens when the disk is full or fails.
//! - `append`, `command`: what one writing call does within a transaction.
//! - `index`: where the facts of a stream or a workload lie; what came of late is in memory only.
//! - `leadership`: what only an elected leader writes, in the same transactions.
//! - `read`: every question to the store, with the checks that no damaged byte is handed out.
//! - `audit`: the log as auditors see it; `anchors`: where a node by itself keeps what stands for it.
//! - `projector`, `views_file`, `views`: read models.
//!
//! Facts lie in arrival order with indices beside them, which is more than ten times as fast as a table that is
//! ordered by stream. `synchronous=FULL` is not an option: with less, SQLite may lose the last commits at a power cut.

mod anchors;
mod append;
mod audit;
mod checkpoint;
mod column;
mod command;
mod image;
mod index;
mod leadership;
pub mod memories;
mod open;
mod projector;
mod read;
mod readers;
mod schema;
mod store;
mod tables;
mod trouble;
mod views;
mod views_file;
mod writer;

pub use anchors::FileAnchors;
pub use audit::SqliteLog;
pub use open::{OpenError, Options, SqliteStore};

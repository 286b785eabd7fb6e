//! Streams, agent rows, inbox, snapshots, blobs, read models and leadership on PostgreSQL (15 or later), shared by every node
//! of a cluster.
//!
//! ```text
//! callers ──► queues ──► writer tasks ──► append_batch   each one commit in flight, the next batch forms meanwhile
//! callers ──────────────► callers' pool ──► post, cancel, place, snapshots, blobs, leadership
//! callers ◄────────────── readers' pool
//! head    ◄── follower    asks how far facts and read models are, whichever node moved them
//!             projector   on one node at a time: folds of nexa-view into the tables of the read models
//! ```
//!
//! - [`open`]: settings, the schema's version, [`PostgresStore`] itself; `schema`, `sql/tables.sql`: the tables.
//! - `dial`, `pool`: connections, their deadlines, and what becomes of them when the server goes away; `trouble`: what its
//!   errors mean.
//! - `writer`: group commit. `batch`: the judgement, in memory; `known`: rows that need not be read for it. `write`,
//!   `sql/functions.sql`: how it is stored. `row`: the facts of one append to one stream, in one row.
//! - `command`, `leadership`: the other writes. `read`, `scan`: every question, with the checks that no damaged byte is handed
//!   out.
//! - `audit`: the log as auditors see it, and its root.
//! - `follow`: the head. `projector`, `shelf`: who folds facts, and what a batch of them changes; `views`, `memories`,
//!   `sql/views.sql`: read models.
//!
//! **No lock is held while a message travels.** A batch reads the rows that it needs, is judged in memory, and is stored by
//! one call, which the server makes one transaction: it locks those rows, compares them with what was read, and stores all or
//! nothing; where something changed, the batch is read and judged again. So a node that stands still, or a partition, keeps
//! nobody else waiting. A batch takes two round trips, and one if its writer left the rows as they are or they are new. The order
//! of locks is told in `sql/functions.sql`.
//!
//! **The reading order is the order of commits** (ST-7). Positions are given out by one row, locked last in each transaction
//! that stores facts, just before they are inserted, and given up by the commit: whoever sees a position sees every earlier
//! one, no position is skipped, and an append knows its position when it is answered. The price is that commits with facts
//! follow each other; what waits meanwhile joins the next batch, so that it costs waiting and not work. The alternative,
//! reading below the oldest running transaction (`pg_snapshot_xmin`) and numbering behind, lets commits overlap, but any long
//! transaction on the server then delays every reader, an append would not know its position, and dense positions would cost
//! a second commit.
//!
//! **What was acknowledged is durable** (ST-5): `synchronous_commit` is switched on where the server has it off. A reply that
//! never came makes the result unknown (`StoreError::Ambiguous`); everything that failed before the call was sent, or was
//! refused by the server, stored nothing. Every wait has a deadline, also when the server stands still.

mod audit;
mod batch;
mod column;
mod command;
mod dial;
mod follow;
mod known;
mod leadership;
mod memories;
mod open;
mod pool;
mod projector;
mod read;
mod row;
mod scan;
mod schema;
mod shelf;
mod store;
mod trouble;
mod views;
mod write;
mod writer;

pub use open::{OpenError, PostgresStore, Settings};

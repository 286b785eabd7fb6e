//! The one task of a cluster that folds facts into the tables of the read models.
//!
//! Every node runs it; the one that holds an advisory lock of the database has the right to fold, and the others look every
//! `RIGHT_EVERY` whether it has become free, which it does with the holder's connection. Behind that stands a fence: whoever
//! takes the right over counts it up, and each batch moves `applied` only from where its holder left it and under its own
//! count, in the transaction that changes the views. So two holders cannot both move it, whatever they believe.
//!
//! A holder that stands still while facts wait, such as a node that was stopped, keeps its lock: after `STILL_AFTER` without
//! a step the others have the server end its session. Each holder has that time for itself, whatever the one before did
//! with its own; and one that did not get through its batch takes half as many facts the next time, so that a slow server,
//! as after a crash, is no reason to end sessions for ever.
//!
//! When facts cannot be read or views not be kept it gives the right back, says so, and tries again after `RETRY_AFTER`.
//! Tables of an older format are made again and folded from the first fact; those of a newer one belong to a newer build, and
//! this one leaves them alone.

use std::time::{Duration, Instant};

use nexa_ports::formats::Formats;
use nexa_types::GlobalSeq;
use sqlx::{Connection, Row};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::audit;
use crate::column::{count, counter};
use crate::dial::{Dial, Open, Role};
use crate::follow::{Eager, Models};
use crate::scan::{self, Streams};
use crate::schema::{VIEWS_VERSION, empty_views, remake_views};
use crate::shelf::{self, Loaded};
use crate::trouble::Fault;

/// Facts of one transaction: at most, and where the last ones were too many.
const BATCH_FACTS: usize = 2_048;
const BATCH_FACTS_MIN: usize = 16;
/// Views that are kept in memory from batch to batch; beyond that all are loaded again.
const VIEWS_MAX: usize = 16_384;
/// As many facts in one batch, and it is taken that more are about to come.
const STREAM_FACTS: usize = 64;
/// Between the beginnings of two batches while facts keep coming, unless one is full or somebody waits here: small ones would
/// write the same views again and again.
const BATCH_EVERY: Duration = Duration::from_millis(40);
/// How often a node without the right tries to get it.
const RIGHT_EVERY: Duration = Duration::from_millis(500);
/// How often the holder looks whether somebody asked for a rebuild.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long nothing may move while facts wait until somebody looks who has the right.
const LOOKED_AT_AFTER: Duration = Duration::from_secs(1);
/// How long the holder may make no step while facts wait, from then on.
const STILL_AFTER: Duration = Duration::from_secs(5);
/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Facts over which the root is folded at once where it is behind the views.
const ROOT_FACTS: u64 = 65_536;

/// The lock of whoever folds: "nexa" in ASCII, and a number of its own.
const PROJECTOR_LOCK: i64 = 0x6e65_7861_0000_0002;

/// The task.
pub(crate) struct Projector {
    dial: Dial,
    reads: Formats,
    head: watch::Receiver<GlobalSeq>,
    models: watch::Sender<Models>,
    /// How far the holder was when it was seen to move, and when that was.
    seen: (Models, Instant),
    /// The session that has the right and has made no step since then.
    suspect: Option<(i32, Instant)>,
    /// Facts of the next transaction.
    batch: usize,
    failures: u32,
    eager: Eager,
}

/// The right to fold, for as long as the connection lasts.
struct Right {
    open: Open,
    number: i64,
    views: Loaded,
    streams: Streams,
    /// What the table said after the latest batch.
    applied: u64,
}

impl Right {
    /// Goes on after another fact than the latest one, and relies on nothing that was read before.
    fn start_at(&mut self, applied: u64) {
        self.views.clear();
        self.streams.forget();
        self.applied = applied;
    }
}

/// What a round came to.
enum Round {
    /// There may be more.
    More,
    /// All facts are folded; so many were new.
    Done(usize),
    /// The right is lost, or the tables are a newer build's.
    Over,
}

impl Projector {
    pub(crate) fn new(
        dial: Dial,
        reads: Formats,
        head: watch::Receiver<GlobalSeq>,
        models: watch::Sender<Models>,
        eager: Eager,
    ) -> Self {
        let seen = (*models.borrow(), Instant::now());
        Self { dial, reads, head, models, seen, suspect: None, batch: BATCH_FACTS, failures: 0, eager }
    }

    /// Folds when it has the right to, until the store is closed.
    pub(crate) async fn work(mut self, mut closed: watch::Receiver<bool>) {
        let mut open = None;
        loop {
            let pause = match self.right(&mut open).await {
                Ok(Some(right)) => {
                    match self.hold(right, &mut closed).await {
                        Ok(()) if *closed.borrow() || closed.has_changed().is_err() => return,
                        Ok(()) => {}
                        Err(fault) => {
                            self.batch = (self.batch / 2).max(BATCH_FACTS_MIN);
                            self.note(fault);
                        }
                    }
                    RETRY_AFTER
                }
                Ok(None) => RIGHT_EVERY,
                Err(fault) => {
                    open = None;
                    self.note(fault);
                    RETRY_AFTER
                }
            };
            tokio::select! {
                // Also when the store was dropped without being closed.
                _ = closed.changed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn note(&mut self, fault: Fault) {
        self.failures += 1;
        if self.failures == 1 {
            warn!(error = %fault.refusal(), "read models stand still here until this is over");
        }
    }

    /// Tries to get the right; otherwise keeps the connection for the next try.
    async fn right(&mut self, kept: &mut Option<Open>) -> Result<Option<Right>, Fault> {
        let mut open = match kept.take() {
            Some(open) if self.dial.is_of_now(&open) => open,
            _ => self.dial.open(Role::Project).await?,
        };
        let asking = async {
            let got: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                .bind(PROJECTOR_LOCK)
                .fetch_one(&mut open.connection)
                .await?;
            if !got {
                return Ok(None);
            }
            let row = sqlx::query(
                "UPDATE view_meta SET right_no = right_no + 1, holder = pg_backend_pid() RETURNING right_no, applied",
            )
            .fetch_one(&mut open.connection)
            .await?;
            Ok::<_, Fault>(Some((row.try_get(0)?, counter(row.try_get(1)?)?)))
        };
        match self.dial.within(asking).await? {
            Some((number, applied)) => {
                Ok(Some(Right { open, number, views: Loaded::new(), streams: Streams::default(), applied }))
            }
            None => {
                self.watch_holder(&mut open).await?;
                *kept = Some(open);
                Ok(None)
            }
        }
    }

    /// Has the session of a holder ended that makes no step though facts wait.
    async fn watch_holder(&mut self, open: &mut Open) -> Result<(), Fault> {
        let now = *self.models.borrow();
        if now != self.seen.0 || *self.head.borrow() <= now.applied {
            (self.seen, self.suspect) = ((now, Instant::now()), None);
        }
        if self.seen.1.elapsed() < LOOKED_AT_AFTER {
            return Ok(());
        }
        // The holder is whoever has the lock, by the two halves of its number.
        let asking = sqlx::query_scalar(
            "SELECT pid FROM pg_locks
             WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND classid = $1::bigint::oid AND objid = $2::bigint::oid AND granted AND pid <> pg_backend_pid()",
        )
        .bind(PROJECTOR_LOCK >> 32)
        .bind(PROJECTOR_LOCK & 0xffff_ffff)
        .fetch_optional(&mut open.connection);
        let holder: Option<i32> = self.dial.within(async { Ok(asking.await?) }).await?;
        match self.suspect {
            Some((pid, since)) if holder == Some(pid) => {
                if since.elapsed() < STILL_AFTER {
                    return Ok(());
                }
                self.suspect = None;
                let ending = sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut open.connection);
                self.dial.within(async { Ok(ending.await?) }).await?;
                warn!(applied = now.applied.0, "whoever folds read models stands still: its session was ended");
            }
            _ => self.suspect = holder.map(|pid| (pid, Instant::now())),
        }
        Ok(())
    }

    /// Folds batch after batch until the store is closed, the right is lost, or something fails.
    async fn hold(&mut self, mut right: Right, closed: &mut watch::Receiver<bool>) -> Result<(), Fault> {
        self.head.mark_unchanged();
        loop {
            let began = Instant::now();
            match self.round(&mut right).await? {
                Round::Over => return Ok(()),
                Round::More if !*closed.borrow() && closed.has_changed().is_ok() => self.failures = 0,
                Round::More => return Ok(()),
                Round::Done(facts) => {
                    self.failures = 0;
                    tokio::select! {
                        _ = closed.changed() => return Ok(()),
                        changed = self.head.changed() => if changed.is_err() { return Ok(()) },
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                    if facts >= STREAM_FACTS {
                        tokio::select! {
                            _ = closed.changed() => return Ok(()),
                            () = self.eager.is_waited_for() => {}
                            () = tokio::time::sleep_until((began + BATCH_EVERY).into()) => {}
                        }
                    }
                }
            }
        }
    }

    async fn round(&mut self, right: &mut Right) -> Result<Round, Fault> {
        let dial = self.dial.clone();
        let looking = async {
            let row = sqlx::query(
                "SELECT format, applied, right_no, asked, made, (SELECT value FROM meta WHERE key = 'root') FROM view_meta",
            )
            .fetch_one(&mut right.open.connection)
            .await?;
            let number = |column| Ok::<i64, Fault>(row.try_get(column)?);
            let root = audit::root_of(row.try_get(5)?)?;
            Ok((number(0)?, counter(number(1)?)?, number(2)?, number(3)?, number(4)?, root))
        };
        let (format, applied, number, asked, made, root) = dial.within(looking).await?;
        if number != right.number || format > VIEWS_VERSION {
            return Ok(Round::Over);
        }
        if applied != right.applied {
            // A batch whose commit was in doubt, or tables that were made again.
            right.start_at(applied);
        }
        if format < VIEWS_VERSION || asked > made || applied > self.head.borrow().0 && self.is_beyond(right).await? {
            dial.within(forget(right, format < VIEWS_VERSION, asked)).await?;
            self.tell(Models { applied: GlobalSeq(0), made: asked.unsigned_abs() });
            return Ok(Round::More);
        }
        let mut root = root;
        while root.position < GlobalSeq(applied) {
            // Views that a build without it has folded. As much at a time as is surely read before the deadline.
            let to = GlobalSeq(applied.min(root.position.0 + ROOT_FACTS));
            let on = dial.within(audit::fold(&mut right.open.connection, root, to)).await?;
            if on == root {
                break;
            }
            root = on;
        }
        let (connection, streams) = (&mut right.open.connection, &mut right.streams);
        let scanning = scan::scan_linked(connection, self.reads, None, GlobalSeq(applied), self.batch, streams);
        let facts = dial.within(scanning).await?;
        let is_all = facts.len() < self.batch;
        let mut links = Vec::with_capacity(facts.len());
        let facts: Vec<_> = facts.into_iter().map(|(fact, link)| (links.push(link), fact).1).collect();
        let Some(last) = facts.last().map(|fact| fact.position) else { return Ok(Round::Done(0)) };
        for (fact, link) in facts.iter().zip(links) {
            if fact.position.0 == root.position.0 + 1 {
                root = root.next(fact.envelope.header.version, link);
            }
        }
        let changes = loop {
            match shelf::fold_all(&facts, &right.views) {
                Ok(changes) => break changes,
                Err(missing) => {
                    dial.within(shelf::load(&mut right.open.connection, missing, &mut right.views)).await?;
                }
            }
        };
        let keeping = async {
            let mut change = right.open.connection.begin().await?;
            shelf::write(&mut change, &changes).await?;
            let moved: i64 = sqlx::query_scalar(
                "WITH moved AS (UPDATE view_meta SET applied = $1 WHERE applied = $2 AND right_no = $3 RETURNING 1),
                      kept AS (INSERT INTO meta (key, value) SELECT 'root', $4 FROM moved
                               ON CONFLICT (key) DO UPDATE SET value = excluded.value)
                 SELECT count(*) FROM moved",
            )
            .bind(count(last.0))
            .bind(count(applied))
            .bind(right.number)
            .bind(audit::written(&root))
            .fetch_one(&mut *change)
            .await?;
            if moved != 1 {
                change.rollback().await?;
                return Ok(false);
            }
            change.commit().await?;
            Ok(true)
        };
        if !dial.within(keeping).await? {
            return Ok(Round::Over);
        }
        right.applied = last.0;
        if right.views.len() > VIEWS_MAX {
            right.views.clear();
        }
        right.views.extend(changes.views.into_iter().map(|(key, view)| (key, Some(view))));
        self.tell(Models { applied: last, made: made.unsigned_abs() });
        self.batch = (self.batch * 2).min(BATCH_FACTS);
        Ok(if is_all { Round::Done(facts.len()) } else { Round::More })
    }

    /// Whether the views have seen facts that are gone, as when a copy of only some tables was put back.
    async fn is_beyond(&self, right: &mut Right) -> Result<bool, Fault> {
        let applied = count(right.applied);
        let asking = async {
            let newest: i64 =
                sqlx::query_scalar("SELECT position FROM head").fetch_one(&mut right.open.connection).await?;
            Ok(applied > newest)
        };
        self.dial.within(asking).await
    }

    fn tell(&self, models: Models) {
        self.models.send_if_modified(|known| std::mem::replace(known, models) != models);
    }
}

/// Empties the tables, or makes them again, under the fence of the right.
async fn forget(right: &mut Right, remake: bool, asked: i64) -> Result<(), Fault> {
    info!("read models are folded again from the first fact");
    let mut change = right.open.connection.begin().await?;
    if remake {
        remake_views(&mut change).await?;
        sqlx::query(
            "INSERT INTO view_meta (format, applied, right_no, holder, asked, made)
             VALUES ($1, 0, $2, pg_backend_pid(), $3, $3)",
        )
        .bind(VIEWS_VERSION)
        .bind(right.number)
        .bind(asked)
        .execute(&mut *change)
        .await?;
    } else {
        let moved = sqlx::query("UPDATE view_meta SET applied = 0, made = $1 WHERE right_no = $2")
            .bind(asked)
            .bind(right.number)
            .execute(&mut *change)
            .await?;
        if moved.rows_affected() == 1 {
            empty_views(&mut change).await?;
        }
    }
    change.commit().await?;
    right.start_at(0);
    Ok(())
}

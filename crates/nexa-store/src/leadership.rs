//! What only the elected leader writes: owners, and its records. The one writer does one call after the other, so that a write
//! under an old epoch cannot come after the answer to a newer one.

use futures::future::BoxFuture;
use nexa_ports::leadership::{self, LeadError, Leadership, RECORDS_MAX, Record};
use nexa_ports::store::{Place, StoreError};
use nexa_types::{Epoch, Version};
use rusqlite::{Connection, OptionalExtension, params};

use crate::append::Desk;
use crate::column::{count, counter};
use crate::command::{Command, place};
use crate::open::SqliteStore;
use crate::trouble::refusal;

/// Refuses an earlier leader; a later one is known from now on.
fn lead(desk: &Desk<'_>, epoch: Epoch) -> rusqlite::Result<Result<(), LeadError>> {
    let known: i64 = desk.connection.prepare_cached("SELECT epoch FROM leader")?.query_row([], |row| row.get(0))?;
    if let Err(refused) = leadership::admits(Epoch(known.unsigned_abs()), epoch) {
        return Ok(Err(refused));
    }
    let given = count(epoch.0);
    if given > known {
        desk.connection.prepare_cached("UPDATE leader SET epoch = ?1")?.execute([given])?;
    }
    Ok(Ok(()))
}

/// See `Leadership::lead`.
struct Lead(Epoch);

impl Command for Lead {
    type Output = Result<(), LeadError>;

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<Self::Output> {
        lead(desk, self.0)
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// See `Leadership::place_as`.
struct PlaceAs(Epoch, Vec<Place>);

impl Command for PlaceAs {
    type Output = Result<Vec<Result<Epoch, Epoch>>, LeadError>;

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<Self::Output> {
        if let Err(refused) = lead(desk, self.0)? {
            return Ok(Err(refused));
        }
        let answers: rusqlite::Result<_> = self.1.iter().map(|wish| place_live(desk, wish)).collect();
        answers.map(Ok)
    }

    fn bytes(&self) -> usize {
        self.1.len() * size_of::<Place>()
    }

    fn appends(&self) -> usize {
        self.1.len()
    }
}

fn place_live(desk: &Desk<'_>, wish: &Place) -> rusqlite::Result<Result<Epoch, Epoch>> {
    let lives = desk
        .connection
        .prepare_cached("SELECT 1 FROM agents WHERE agent = ?1 AND ended = 0")?
        .exists([wish.agent.as_bytes()])?;
    if lives { place(desk, wish) } else { Ok(Err(Epoch(0))) }
}

/// See `Leadership::put_record`.
struct PutRecord {
    leader: Epoch,
    name: String,
    expected: Version,
    value: Vec<u8>,
}

impl Command for PutRecord {
    type Output = Result<Version, LeadError>;

    fn run(&self, desk: &mut Desk<'_>) -> rusqlite::Result<Self::Output> {
        if let Err(refused) = lead(desk, self.leader)? {
            return Ok(Err(refused));
        }
        let found: Option<i64> = desk
            .connection
            .prepare_cached("SELECT version FROM records WHERE name = ?1")?
            .query_row([&self.name], |row| row.get(0))
            .optional()?;
        let current = Version(found.unwrap_or(0).unsigned_abs());
        if current != self.expected {
            return Ok(Err(LeadError::Changed { given: self.expected, current }));
        }
        if found.is_none() {
            let kept: i64 =
                desk.connection.prepare_cached("SELECT count(*) FROM records")?.query_row([], |row| row.get(0))?;
            if kept >= RECORDS_MAX as i64 {
                return Ok(Err(leadership::full()));
            }
        }
        desk.bytes += self.value.len() as u64;
        desk.connection
            .prepare_cached(
                "INSERT INTO records (name, version, epoch, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET version = ?2, epoch = ?3, value = ?4",
            )?
            .execute(params![self.name, count(current.next().0), count(self.leader.0), self.value])?;
        Ok(Ok(current.next()))
    }

    fn bytes(&self) -> usize {
        self.name.len() + self.value.len()
    }
}

/// See `Leadership::records`.
fn records(connection: &Connection, prefix: &str) -> Result<Vec<Record>, StoreError> {
    let sql = |error: rusqlite::Error| refusal(&error);
    let mut select = connection
        .prepare_cached(
            "SELECT name, version, epoch, value FROM records
             WHERE name >= ?1 AND substr(CAST(name AS BLOB), 1, length(CAST(?1 AS BLOB))) = CAST(?1 AS BLOB)
             ORDER BY name",
        )
        .map_err(sql)?;
    let mut rows = select.query([prefix]).map_err(sql)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        found.push(Record {
            name: row.get(0).map_err(sql)?,
            version: Version(counter(row.get(1).map_err(sql)?)?),
            epoch: Epoch(counter(row.get(2).map_err(sql)?)?),
            value: row.get(3).map_err(sql)?,
        });
    }
    Ok(found)
}

impl Leadership for SqliteStore {
    fn lead(&self, epoch: Epoch) -> BoxFuture<'_, Result<(), LeadError>> {
        Box::pin(async move { self.submit(Lead(epoch)).await? })
    }

    fn place_as(
        &self,
        leader: Epoch,
        wishes: Vec<Place>,
    ) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, LeadError>> {
        Box::pin(async move { self.submit(PlaceAs(leader, wishes)).await? })
    }

    fn put_record(
        &self,
        leader: Epoch,
        name: String,
        expected: Version,
        value: Vec<u8>,
    ) -> BoxFuture<'_, Result<Version, LeadError>> {
        Box::pin(async move {
            leadership::fits(&value)?;
            self.submit(PutRecord { leader, name, expected, value }).await?
        })
    }

    fn records(&self, prefix: String) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(self.readers.read(move |connection| records(connection, &prefix)))
    }
}

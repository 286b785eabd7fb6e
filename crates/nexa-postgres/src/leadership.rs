//! What only the elected leader writes. Its row is locked before all others, so that a write under an old epoch cannot slip in
//! behind the answer to a newer one.

use std::sync::Arc;

use futures::future::BoxFuture;
use nexa_ports::leadership::{self, LeadError, Leadership, RECORDS_MAX, Record};
use nexa_ports::store::{Place, StoreError};
use nexa_types::{Epoch, Version};
use sqlx::{PgConnection, Row};

use crate::column::{count, counter, damaged};
use crate::command::{placed, wished};
use crate::open::PostgresStore;
use crate::trouble::Fault;

async fn lead(connection: &mut PgConnection, epoch: Epoch) -> Result<Epoch, Fault> {
    let known = sqlx::query_scalar("SELECT lead_1($1)").bind(count(epoch.0)).fetch_one(connection).await?;
    Ok(Epoch(counter(known)?))
}

async fn place_as(
    connection: &mut PgConnection,
    leader: Epoch,
    wishes: &[Place],
) -> Result<Result<Vec<Result<Epoch, Epoch>>, Epoch>, Fault> {
    let (agents, froms, nodes) = wished(wishes);
    let rows = sqlx::query("SELECT changed, epoch FROM place_as_1($1, $2, $3, $4)")
        .bind(count(leader.0))
        .bind(agents)
        .bind(froms)
        .bind(nodes)
        .fetch_all(connection)
        .await?;
    let mut answers = rows.iter().map(placed).collect::<Result<Vec<_>, _>>()?.into_iter();
    match answers.next() {
        Some(Ok(_)) => Ok(Ok(answers.collect())),
        Some(Err(current)) => Ok(Err(current)),
        None => Err(damaged("the answer to a leader", "is empty").into()),
    }
}

/// The epoch of whoever leads, the version that the record had, and whether it was written.
async fn put_record(
    connection: &mut PgConnection,
    leader: Epoch,
    name: &str,
    expected: Version,
    value: &[u8],
) -> Result<(Epoch, Version, bool), Fault> {
    let row = sqlx::query("SELECT known, found, kept FROM put_record_1($1, $2, $3, $4, $5)")
        .bind(count(leader.0))
        .bind(name.as_bytes())
        .bind(count(expected.0))
        .bind(value)
        .bind(RECORDS_MAX as i64)
        .fetch_one(connection)
        .await?;
    Ok((Epoch(counter(row.try_get(0)?)?), Version(counter(row.try_get(1)?)?), row.try_get(2)?))
}

async fn records(connection: &mut PgConnection, prefix: &str) -> Result<Vec<Record>, Fault> {
    let rows = sqlx::query(
        "SELECT name, version, epoch, value FROM records WHERE name >= $1 AND substring(name FROM 1 FOR $2) = $1 ORDER BY name",
    )
    .bind(prefix.as_bytes())
    .bind(i32::try_from(prefix.len()).unwrap_or(i32::MAX))
    .fetch_all(connection)
    .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let name = String::from_utf8(row.try_get(0)?).map_err(|_| damaged("a record", "its name is no text"))?;
        let (version, epoch) = (Version(counter(row.try_get(1)?)?), Epoch(counter(row.try_get(2)?)?));
        Ok(Record { name, version, epoch, value: row.try_get(3)? })
    };
    rows.iter().map(read).collect()
}

impl Leadership for PostgresStore {
    fn lead(&self, epoch: Epoch) -> BoxFuture<'_, Result<(), LeadError>> {
        Box::pin(async move {
            match self.callers.write(move |connection| Box::pin(lead(connection, epoch))).await? {
                current if current == epoch => Ok(()),
                current => Err(LeadError::Deposed { current }),
            }
        })
    }

    fn place_as(
        &self,
        leader: Epoch,
        wishes: Vec<Place>,
    ) -> BoxFuture<'_, Result<Vec<Result<Epoch, Epoch>>, LeadError>> {
        Box::pin(async move {
            let wishes = Arc::new(wishes);
            self.callers
                .write(move |connection| {
                    let wishes = Arc::clone(&wishes);
                    Box::pin(async move { place_as(connection, leader, &wishes).await })
                })
                .await?
                .map_err(|current| LeadError::Deposed { current })
        })
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
            let whole = Arc::new((name, value));
            match self
                .callers
                .write(move |connection| {
                    let whole = Arc::clone(&whole);
                    Box::pin(async move { put_record(connection, leader, &whole.0, expected, &whole.1).await })
                })
                .await?
            {
                (current, ..) if current != leader => Err(LeadError::Deposed { current }),
                (_, found, true) => Ok(found.next()),
                (_, current, false) if current != expected => Err(LeadError::Changed { given: expected, current }),
                (..) => Err(leadership::full()),
            }
        })
    }

    fn records(&self, prefix: String) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        Box::pin(self.readers.read(move |connection| {
            let prefix = prefix.clone();
            Box::pin(async move { records(connection, &prefix).await })
        }))
    }
}

//! The schema `nexa` of a database: made in an empty one, brought up to date in one of an older build, refused if newer.
//!
//! All of it is one transaction under an advisory lock, so that two nodes may start at once and a crash leaves all or nothing.

use nexa_ports::formats::{FLOOR_RECORD, Floor, Writing};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::open::OpenError;

/// The newest schema that this build knows. Databases of earlier ones are brought up to it by [`STEPS`].
pub(crate) const SCHEMA_VERSION: i64 = 3;

/// What leads from a version to the next one, from version 1 on. A new database takes them as well.
const STEPS: [&str; 2] = [include_str!("../sql/step_2.sql"), include_str!("../sql/step_3.sql")];

/// Grows with every change of the read models' tables or of what the folds mean; they are then made again.
pub(crate) const VIEWS_VERSION: i64 = 1;

/// Held while a schema is looked at and made: "nexa" in ASCII, and a number of its own.
const MIGRATION_LOCK: i64 = 0x6e65_7861_0000_0001;

const TABLES: &str = include_str!("../sql/tables.sql");
const VIEWS: &str = include_str!("../sql/views.sql");
const FUNCTIONS: &str = include_str!("../sql/functions.sql");

/// Tables of the read models, but for the one that says how far they are.
pub(crate) const VIEW_TABLES: &str =
    "view_workloads, view_agents, view_approvals, view_programs, view_memories, view_history";

/// Makes sure that the schema is there and one that this build knows, and learns in which format others write.
pub(crate) async fn prepare(connection: &mut PgConnection, writing: &Writing) -> Result<(), OpenError> {
    let mut change = connection.begin().await.map_err(OpenError::sql)?;
    // Whoever comes second waits until the first has made everything, however slow the disk is: the deadline of all of it ends that.
    sqlx::query(
        "SELECT set_config(name, '0', true) FROM unnest(ARRAY['lock_timeout', 'statement_timeout']) AS t(name)",
    )
    .execute(&mut *change)
    .await
    .map_err(OpenError::sql)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *change)
        .await
        .map_err(OpenError::sql)?;
    let reads = writing.reads();
    let floor = match inspect(&mut change).await? {
        Found::Nothing => {
            // Whoever comes later and does not read it is refused.
            create(&mut change, reads.newest).await.map_err(OpenError::sql)?;
            Floor::of(reads.newest)
        }
        Found::Foreign => return Err(OpenError::Foreign),
        Found::Ours { schema, .. } if schema > SCHEMA_VERSION => {
            return Err(OpenError::Newer { what: "schema", found: schema, known: SCHEMA_VERSION });
        }
        Found::Ours { floor, .. } if floor.announced > reads.newest => {
            let (found, known) = (floor.announced.into(), reads.newest.into());
            return Err(OpenError::Newer { what: "format", found, known });
        }
        Found::Ours { newest, told, .. } if newest != told => {
            return Err(OpenError::Lost { told: told.unsigned_abs(), found: newest.unsigned_abs() });
        }
        Found::Ours { schema, floor, .. } if schema < SCHEMA_VERSION => {
            upgrade(&mut change, schema).await.map_err(OpenError::sql)?;
            floor
        }
        Found::Ours { floor, .. } => floor,
    };
    change.commit().await.map_err(OpenError::sql)?;
    writing.raise(floor.written).map_err(|error| OpenError::Format { error })
}

enum Found {
    /// There is no schema `nexa`, or nothing in it.
    Nothing,
    /// It has other tables.
    Foreign,
    /// It is ours; in which format it is written, the position of the newest fact, and the position that the head tells of.
    Ours { schema: i64, floor: Floor, newest: i64, told: i64 },
}

async fn inspect(connection: &mut PgConnection) -> Result<Found, OpenError> {
    let (tables, ours): (i64, bool) = sqlx::query_as(
        "SELECT count(*), coalesce(bool_or(c.relname = 'meta'), false)
         FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'nexa' AND c.relkind = 'r'",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(OpenError::sql)?;
    match (tables, ours) {
        (0, _) => return Ok(Found::Nothing),
        (_, false) => return Ok(Found::Foreign),
        (_, true) => {}
    }
    let number = async |connection: &mut PgConnection, key: &str| -> Result<Option<i64>, OpenError> {
        let value: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE key = $1")
            .bind(key)
            .fetch_optional(connection)
            .await
            .map_err(OpenError::sql)?;
        Ok(value.and_then(|value| value.parse().ok()))
    };
    let schema = number(&mut *connection, "schema_version").await?;
    let format = number(&mut *connection, "format_floor").await?;
    let (Some(schema), Some(made)) = (schema, format) else { return Ok(Found::Foreign) };
    let made = Floor::of(u16::try_from(made).unwrap_or(u16::MAX));
    if schema > SCHEMA_VERSION {
        // What follows may not even be there.
        return Ok(Found::Ours { schema, floor: made, newest: 0, told: 0 });
    }
    // The head waits for whoever writes just now, so that both numbers are of one moment.
    let told: i64 = sqlx::query_scalar("SELECT position FROM head FOR SHARE")
        .fetch_one(&mut *connection)
        .await
        .map_err(OpenError::sql)?;
    let newest: i64 = sqlx::query_scalar("SELECT coalesce(max(position), 0) FROM events")
        .fetch_one(&mut *connection)
        .await
        .map_err(OpenError::sql)?;
    let kept: Option<Vec<u8>> = sqlx::query_scalar("SELECT value FROM records WHERE name = $1")
        .bind(FLOOR_RECORD.as_bytes())
        .fetch_optional(&mut *connection)
        .await
        .map_err(OpenError::sql)?;
    let kept = kept.map(|bytes| Floor::from_bytes(&bytes)).transpose();
    let kept = kept.map_err(|why| OpenError::Refused { detail: format!("the record {FLOOR_RECORD}: {why}") })?;
    let floor = kept.filter(|kept| kept.written >= made.written).unwrap_or(made);
    Ok(Found::Ours { schema, floor, newest, told })
}

async fn create(connection: &mut PgConnection, format: u16) -> Result<(), sqlx::Error> {
    let is_there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'nexa')")
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
        sqlx::raw_sql("CREATE SCHEMA nexa").execute(&mut *connection).await?;
    }
    for part in [TABLES, VIEWS].into_iter().chain(STEPS).chain([FUNCTIONS]) {
        sqlx::raw_sql(part).execute(&mut *connection).await?;
    }
    for (key, value) in [("schema_version", SCHEMA_VERSION), ("format_floor", i64::from(format))] {
        sqlx::query("INSERT INTO meta (key, value) VALUES ($1, $2)")
            .bind(key)
            .bind(value.to_string())
            .execute(&mut *connection)
            .await?;
    }
    // Tells one store from another.
    sqlx::raw_sql("INSERT INTO meta (key, value) VALUES ('store_id', replace(gen_random_uuid()::text, '-', ''))")
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO view_meta (format, applied, right_no, asked, made) VALUES ($1, 0, 0, 0, 0)")
        .bind(VIEWS_VERSION)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Brings an older schema up to date. Nodes of the build before that run go on: what they call stays as it was.
async fn upgrade(connection: &mut PgConnection, from: i64) -> Result<(), sqlx::Error> {
    let taken = usize::try_from(from - 1).unwrap_or(usize::MAX);
    for part in STEPS.into_iter().skip(taken).chain([FUNCTIONS]) {
        sqlx::raw_sql(part).execute(&mut *connection).await?;
    }
    sqlx::query("UPDATE meta SET value = $1 WHERE key = 'schema_version'")
        .bind(SCHEMA_VERSION.to_string())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Makes the tables of the read models again, within a transaction of whoever has the right to fold.
pub(crate) async fn remake_views(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let drop = format!("DROP TABLE {VIEW_TABLES}, view_meta");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    sqlx::raw_sql(VIEWS).execute(&mut *connection).await?;
    Ok(())
}

/// Empties the tables of the read models, within such a transaction.
pub(crate) async fn empty_views(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Not `TRUNCATE`: it would wait for every reader, and have every reader wait.
    for table in VIEW_TABLES.split(", ") {
        sqlx::raw_sql(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *connection).await?;
    }
    Ok(())
}

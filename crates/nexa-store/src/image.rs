//! New files: copies of the empty ones that the build script has made.
//!
//! They have room for the id of their store and for the format, which are not known when they are made: in a row of `meta`, a
//! value stands behind its key, so both are found in the bytes.

use crate::column::hex;
use crate::tables::{FORMAT_UNSET, STORE_ID_UNSET};

const LOG: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nexa.db"));
const VIEWS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/views.db"));

/// What tells one store from another, as when the read models of one lie beside the facts of another.
///
/// # Errors
/// The system has no random numbers.
pub(crate) fn new_store_id() -> std::io::Result<String> {
    let mut id = [0; STORE_ID_UNSET.len() / 2];
    getrandom::fill(&mut id)?;
    Ok(hex(&id))
}

/// The bytes of an empty `nexa.db` of a format.
pub(crate) fn log(store_id: &str, format: u16) -> Vec<u8> {
    let mut file = LOG.to_vec();
    fill(&mut file, "store_id", STORE_ID_UNSET, store_id);
    fill(&mut file, "format_floor", FORMAT_UNSET, &format!("{format:0width$}", width = FORMAT_UNSET.len()));
    file
}

/// The bytes of an empty `views.db` of a store.
pub(crate) fn views(store_id: &str) -> Vec<u8> {
    let mut file = VIEWS.to_vec();
    fill(&mut file, "store_id", STORE_ID_UNSET, store_id);
    file
}

/// Puts the value of a key where none is yet, in the room that the build script has made sure of; one of another length than
/// that is left out.
fn fill(file: &mut [u8], key: &str, unset: &str, value: &str) {
    let row = [key.as_bytes(), unset.as_bytes()].concat();
    let place = file.windows(row.len()).position(|bytes| bytes == row);
    if let Some(place) = place.filter(|_| value.len() == unset.len()) {
        file[place + key.len()..place + row.len()].copy_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::schema::{self, Found};
    use crate::tables::{LOG as LOG_TABLES, SCHEMA_VERSION, STEPS, VIEWS as VIEWS_TABLES};

    /// What a file holds: everything that was made, as SQLite tells it.
    fn made(file: &Connection) -> Vec<(String, String)> {
        let mut rows = file.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").expect("asked");
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("told");
        rows.map(|row| row.expect("a row")).collect()
    }

    #[test]
    fn a_copy_is_what_its_statements_make_with_its_values_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let id = new_store_id().expect("random numbers");
        for (name, bytes, tables) in [
            ("nexa.db", log(&id, 7), [LOG_TABLES, &STEPS.concat()].concat()),
            ("views.db", views(&id), VIEWS_TABLES.to_owned()),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            let copy = Connection::open(&path).expect("opened");
            let whole: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
            assert_eq!(whole, "ok");
            let mode: String = copy.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("told");
            assert_eq!(mode, "wal");
            assert_eq!(schema::store_id(&copy).expect("it has one"), id);
            let afresh = Connection::open_in_memory().expect("opened");
            afresh.execute_batch(&tables).expect("made");
            assert_eq!(made(&copy), made(&afresh));
            if name == "nexa.db" {
                let found = schema::inspect(&copy).expect("read");
                assert_eq!(found, Found::Ours { schema: SCHEMA_VERSION, format: 7 });
            }
        }
    }

    #[test]
    fn no_two_stores_have_one_id() {
        let ids: std::collections::BTreeSet<String> =
            (0..64).map(|_| new_store_id().expect("random numbers")).collect();
        assert_eq!(ids.len(), 64);
        assert!(ids.iter().all(|id| id.len() == STORE_ID_UNSET.len() && id != STORE_ID_UNSET));
    }
}

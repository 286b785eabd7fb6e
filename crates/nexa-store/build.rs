//! Makes an empty `nexa.db` and an empty `views.db`, of which new stores are copies.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

#[path = "src/tables.rs"]
mod tables;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/tables.rs");
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where to"));
    make(
        &folder.join("nexa.db"),
        &[tables::LOG, &tables::STEPS.concat()],
        tables::APPLICATION_ID,
        &[
            ("schema_version", &tables::SCHEMA_VERSION.to_string()),
            ("format_floor", tables::FORMAT_UNSET),
            ("store_id", tables::STORE_ID_UNSET),
        ],
    )
    .expect("SQLite takes the tables of the log");
    assert_one_room(&folder.join("nexa.db"), "format_floor", tables::FORMAT_UNSET);
    assert_one_room(&folder.join("nexa.db"), "store_id", tables::STORE_ID_UNSET);
    make(
        &folder.join("views.db"),
        &[tables::VIEWS],
        0,
        &[("version", &tables::VIEWS_VERSION.to_string()), ("store_id", tables::STORE_ID_UNSET), ("applied", "0")],
    )
    .expect("SQLite takes the tables of the read models");
    assert_one_room(&folder.join("views.db"), "store_id", tables::STORE_ID_UNSET);
}

/// A copy finds the room of a value by its key before it: there must be exactly one.
fn assert_one_room(path: &Path, key: &str, unset: &str) {
    let file = std::fs::read(path).expect("it was just written");
    let row = [key, unset].concat().into_bytes();
    let found = file.windows(row.len()).filter(|bytes| *bytes == row).count();
    assert_eq!(found, 1, "rooms for `{key}` in {}", path.display());
}

fn make(path: &Path, tables: &[&str], application_id: i64, meta: &[(&str, &str)]) -> rusqlite::Result<()> {
    // What is not there need not be removed; what cannot be removed shows below.
    let _ = std::fs::remove_file(path);
    let file = Connection::open(path)?;
    file.pragma_update(None, "synchronous", "OFF")?;
    tables.iter().try_for_each(|some| file.execute_batch(some))?;
    file.pragma_update(None, "application_id", application_id)?;
    for (key, value) in meta {
        file.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, value])?;
    }
    // What the steps have dropped leaves room, and a copy is as long as its file.
    file.execute_batch("VACUUM")?;
    file.pragma_update(None, "journal_mode", "WAL")?;
    file.close().map_err(|(_, error)| error)
}

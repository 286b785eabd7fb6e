//! Full disks, damaged files, foreign files, killed processes.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nexa_event::envelope::{FORMAT, Fact};
use nexa_event::fact::{AgentEvent, Input};
use nexa_ports::audit::Audit;
use nexa_ports::leadership::Leadership;
use nexa_ports::store::{Append, AppendError, Post, Recorded, Rows, Store, StoreError};
use nexa_store::{OpenError, Options, SqliteLog, SqliteStore};
use nexa_testkit::store_contract::{emitted, owned, submission, workload};
use nexa_types::limits::{INLINE_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use nexa_types::{AgentId, BlobHash, Epoch, GlobalSeq, InputId, Payload, Seq, StreamId, TenantId, Version};
use rusqlite::Connection;
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(directory: &TempDir) -> SqliteStore {
    // Few facts stay outside the indices, so that these are met, too.
    SqliteStore::open(directory.path(), Options { run_facts: Some(4), ..Options::default() }).expect("open")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

async fn submit(store: &SqliteStore, number: u8) -> AgentId {
    store.append(vec![submission(workload(number))]).await.remove(0).expect("a first submission");
    AgentId::root(workload(number))
}

fn large(len: usize) -> Fact {
    Fact::Agent(AgentEvent::Emitted { seq: Seq(1), channel: "main".into(), value: Payload::new(vec![0x61; len]) })
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_and_goes_on_by_itself() {
    let directory = directory();
    block_on(async {
        let options = Options { pages_max: Some(1_000), run_facts: Some(4) };
        let store = SqliteStore::open(directory.path(), options).expect("open");
        let root = submit(&store, 1).await;
        store.put_snapshot(root, Version(1), vec![1; 1 << 20]).await.expect("it fits");
        let mut version = 1;
        let refused = loop {
            match store.append(vec![owned(root, 1, version, vec![large(30_000)])]).await.remove(0) {
                Ok(appended) => version = appended.version.0,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, AppendError::Store(StoreError::DiskFull));
        assert!(version > 10, "it was filled by appends");
        let again = store.append(vec![owned(root, 1, version, vec![large(30_000)])]).await.remove(0);
        assert_eq!(again, Err(AppendError::Store(StoreError::DiskFull)));
        let facts = store.read(StreamId::Agent(root), Version(0), 10_000).await.expect("reading goes on");
        assert_eq!(facts.len() as u64, version, "what was acknowledged is there and nothing else");
        // A smaller snapshot makes room; no restart is needed.
        store.put_snapshot(root, Version(2), vec![2]).await.expect("replacing by less needs no room");
        let more = store.append(vec![owned(root, 1, version, vec![large(30_000)])]).await.remove(0);
        assert_eq!(more.expect("there is room again").version, Version(version + 1));
    });
}

#[test]
fn an_append_with_a_part_that_is_too_long_leaves_nothing_and_the_others_of_its_batch_are_stored() {
    let directory = directory();
    block_on(async {
        let store = open(&directory);
        let (root, other) = (submit(&store, 1).await, submit(&store, 2).await);
        let head = *store.head().borrow();
        let input = Input::Message { from: "ann".into(), value: Payload::new(vec![0x61; SNAPSHOT_BYTES_MAX]) };
        let post = Post { to: other, id: InputId::cancel(other), input, trace: None };
        let batch = vec![
            owned(root, 1, 1, vec![emitted(1), large(SNAPSHOT_BYTES_MAX), emitted(3)]),
            Append { posts: vec![post], ..owned(root, 1, 1, vec![emitted(1)]) },
            owned(other, 1, 1, vec![emitted(1)]),
            owned(root, 1, 1, vec![emitted(1)]),
        ];
        let answers = store.append(batch).await;
        let is_too_long =
            |answer: &Result<_, AppendError>| matches!(answer, Err(AppendError::Store(StoreError::TooLarge { .. })));
        assert!(answers[..2].iter().all(is_too_long), "{answers:?}");
        assert_eq!(answers[2].as_ref().expect("the third is fine").position, GlobalSeq(head.0 + 1));
        assert_eq!(answers[3].as_ref().expect("so is the last").version, Version(2));
        assert_eq!(store.read(StreamId::Agent(root), Version(0), 10).await.expect("it is sound").len(), 2);
        assert!(store.inbox(other, 10).await.expect("it is sound").is_empty());
    });
}

#[test]
fn a_small_append_is_stored_where_a_large_one_of_the_same_batch_does_not_fit() {
    let directory = directory();
    block_on(async {
        let store =
            SqliteStore::open(directory.path(), Options { pages_max: Some(300), ..Options::default() }).expect("open");
        let (root, other) = (submit(&store, 1).await, submit(&store, 2).await);
        let (too_much, little) = tokio::join!(
            store.append(vec![owned(root, 1, 1, vec![large(4 << 20)])]),
            store.append(vec![owned(other, 1, 1, vec![emitted(1)])]),
        );
        assert_eq!(too_much, vec![Err(AppendError::Store(StoreError::DiskFull))]);
        assert!(little[0].is_ok(), "{little:?}");
    });
}

#[test]
fn a_directory_belongs_to_one_store_at_a_time() {
    let directory = directory();
    let first = open(&directory);
    let error = SqliteStore::open(directory.path(), Options::default()).expect_err("it is in use");
    let text = error.to_string();
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    drop(first);
    open(&directory);
}

#[cfg(unix)]
#[test]
fn a_directory_that_is_made_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let outer = directory();
    let inner = outer.path().join("data").join("nexa");
    drop(SqliteStore::open(&inner, Options::default()).expect("open"));
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    for file in ["nexa.db", "views.db", "lock"] {
        assert_eq!(mode(&inner.join(file)), 0o600, "{file}");
    }
}

fn refused(directory: &TempDir) -> String {
    let error = SqliteStore::open(directory.path(), Options::default()).expect_err("it must not open");
    assert!(!matches!(error, OpenError::Io { .. }), "{error:?}");
    let mut text = error.to_string().replace(&directory.path().display().to_string(), "DIR");
    if let Some(source) = error.source() {
        text.push_str(&format!(": {source}"));
    }
    text
}

fn sql(directory: &TempDir, statement: &str) {
    let connection = Connection::open(directory.path().join("nexa.db")).expect("open");
    // Closing it copies the log into the file.
    connection.execute_batch(statement).expect("it runs");
}

#[test]
fn a_file_of_an_earlier_schema_is_brought_up_to_date_with_all_that_is_in_it() {
    // What each did not have.
    let schema_3 = "CREATE UNIQUE INDEX events_by_stream ON events (stream, version);
                    CREATE INDEX events_by_workload ON events (workload) WHERE workload IS NOT NULL;
                    DROP TABLE stream_index; DROP TABLE workload_index; DROP TABLE indexed;
                    UPDATE meta SET value = '3' WHERE key = 'schema_version';";
    let schema_2 = "ALTER TABLE agents DROP COLUMN asks; UPDATE meta SET value = '2' WHERE key = 'schema_version';";
    let schema_1 = "DROP TABLE leader; DROP TABLE records; UPDATE meta SET value = '1' WHERE key = 'schema_version';";
    for before in [schema_3.to_owned(), [schema_3, schema_2].concat(), [schema_3, schema_2, schema_1].concat()] {
        let directory = directory();
        let store = open(&directory);
        block_on(async { store.append(vec![submission(workload(1))]).await.remove(0).expect("it is accepted") });
        let facts = block_on(store.scan(None, GlobalSeq(0), 10));
        drop(store);
        sql(&directory, &before);
        let looked_at = SqliteLog::open(directory.path()).expect("who only looks changes nothing");
        let entries = block_on(looked_at.proven(GlobalSeq(1), 10)).expect("it can be looked at");
        assert_eq!(entries.len() + 1, facts.as_ref().map_or(0, Vec::len));
        for again in 0..2 {
            let store = open(&directory);
            let kept = block_on(store.scan(None, GlobalSeq(0), facts.as_ref().map_or(0, Vec::len)));
            assert_eq!(kept, facts);
            assert_eq!(block_on(store.lead(Epoch(3))), Ok(()));
            let row = block_on(store.row(AgentId::root(workload(1)))).expect("a store").expect("a row");
            assert_eq!(row.asks, None, "rows from before ask for nothing");
            let more = submission(workload(2 + again));
            block_on(async { store.append(vec![more]).await.remove(0).expect("it is accepted") });
        }
    }
}

#[test]
fn a_file_of_an_earlier_format_says_that_it_is_written_in_a_newer_one_from_then_on() {
    let directory = directory();
    drop(open(&directory));
    sql(&directory, "UPDATE meta SET value = '1' WHERE key = 'format_floor'");
    drop(SqliteLog::open(directory.path()).expect("who only looks changes nothing"));
    let floor = || -> String {
        let connection = Connection::open(directory.path().join("nexa.db")).expect("open");
        let asked = "SELECT value FROM meta WHERE key = 'format_floor'";
        connection.query_row(asked, [], |row| row.get(0)).expect("it says so")
    };
    assert_eq!(floor(), "1");
    drop(open(&directory));
    assert_eq!(floor(), FORMAT.to_string(), "so that no earlier build opens it and then meets what it cannot read");
}

#[test]
fn a_file_that_is_not_ours_is_refused_with_a_reason() {
    let newer = directory();
    drop(open(&newer));
    sql(&newer, "UPDATE meta SET value = '99' WHERE key = 'schema_version'");
    assert_eq!(
        refused(&newer),
        "DIR/nexa.db was written by a newer build (schema 99, this build knows up to 4); upgrade this build"
    );

    let format = directory();
    drop(open(&format));
    sql(&format, "UPDATE meta SET value = '7' WHERE key = 'format_floor'");
    assert!(refused(&format).contains(&format!("(format 7, this build knows up to {FORMAT})")));

    let foreign = directory();
    sql(&foreign, "CREATE TABLE recipes (name TEXT)");
    assert_eq!(refused(&foreign), "DIR/nexa.db is the database of another program; choose another directory");

    let empty = directory();
    std::fs::write(empty.path().join("nexa.db"), "").expect("write");
    std::fs::write(empty.path().join("nexa.db.new"), "half a file of an earlier try").expect("write");
    drop(open(&empty));

    let text = directory();
    std::fs::write(text.path().join("nexa.db"), "shopping list\n".repeat(400)).expect("write");
    assert!(refused(&text).starts_with("DIR/nexa.db is damaged or no database of this program"));
}

#[test]
fn a_store_that_lost_facts_does_not_open() {
    let directory = directory();
    block_on(async { submit(&open(&directory), 1).await });
    sql(&directory, "DELETE FROM events WHERE position = 2");
    let text = refused(&directory);
    assert!(text.contains("its streams have 2 facts and 1 are there"), "{text}");
}

/// What is there before and after damage, as far as it is checked.
#[derive(Debug, PartialEq)]
struct Contents {
    streams: Vec<Result<Vec<Recorded>, StoreError>>,
    all: Result<Vec<Recorded>, StoreError>,
    snapshot: Result<Option<(Version, Vec<u8>)>, StoreError>,
    blob: Result<Option<Vec<u8>>, StoreError>,
}

async fn contents(store: &SqliteStore, agents: &[AgentId], blob: BlobHash) -> Contents {
    let mut streams = Vec::new();
    for agent in agents {
        streams.push(store.read(StreamId::Agent(*agent), Version(0), 1_000).await);
    }
    streams.push(store.read(StreamId::Workload(workload(1)), Version(0), 1_000).await);
    Contents {
        streams,
        all: store.scan(None, GlobalSeq(0), 1_000).await,
        snapshot: store.snapshot(agents[0]).await,
        blob: store.blob(TenantId::local(), blob).await,
    }
}

async fn filled(store: &SqliteStore) -> (Vec<AgentId>, BlobHash) {
    let agents = vec![submit(store, 1).await, submit(store, 2).await];
    for (index, agent) in agents.iter().enumerate() {
        let facts = (0..20).map(|seq| if seq == 7 { large(INLINE_BYTES_MAX + 1 + index) } else { emitted(seq) });
        store.append(vec![owned(*agent, 1, 1, facts.collect())]).await.remove(0).expect("append");
    }
    store.put_snapshot(agents[0], Version(5), vec![5; 3_000]).await.expect("put");
    let blob = store.put_blob(TenantId::local(), vec![6; 9_000]).await.expect("put");
    (agents, blob)
}

fn served<T: PartialEq>(before: &Result<T, StoreError>, after: &Result<T, StoreError>) -> Option<bool> {
    match after {
        Err(StoreError::Corrupt { .. }) => None,
        after => Some(after == before),
    }
}

/// A number for each trial, without dice.
fn scatter(trial: usize) -> usize {
    let hash = blake3::hash(&trial.to_le_bytes());
    usize::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

#[test]
fn a_flipped_bit_in_a_column_is_noticed_before_anything_is_served() {
    let directory = directory();
    block_on(async {
        let store = open(&directory);
        let (agents, blob) = filled(&store).await;
        let before = contents(&store, &agents, blob).await;
        let raw = Connection::open(directory.path().join("nexa.db")).expect("open");
        let columns = [
            ("events", "position", "stream"),
            ("events", "position", "workload"),
            ("events", "position", "header"),
            ("events", "position", "payload"),
            ("events", "position", "blob"),
            ("events", "position", "link"),
            ("snapshots", "rowid", "bytes"),
            ("snapshots", "rowid", "checksum"),
            ("blobs", "rowid", "bytes"),
            ("blobs", "rowid", "hash"),
        ];
        for trial in 0..200 {
            let (table, key, column) = columns[trial % columns.len()];
            let count: u32 =
                raw.query_row(&format!("SELECT count({column}) FROM {table}"), [], |row| row.get(0)).expect("count");
            let (row, old): (i64, Vec<u8>) = raw
                .query_row(
                    &format!(
                        "SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY {key} LIMIT 1 OFFSET {}",
                        scatter(trial) % count as usize
                    ),
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .expect("a row");
            let mut new = old.clone();
            new[scatter(trial + 1_000) % old.len()] ^= 1 << (scatter(trial + 2_000) % 8);
            let update = format!("UPDATE {table} SET {column} = ?1 WHERE {key} = ?2");
            raw.execute(&update, (&new, row)).expect("update");

            let after = contents(&store, &agents, blob).await;
            let place = format!("{table}.{column} row {row}");
            assert_ne!(after, before, "{place} was not noticed");
            for (before, after) in before.streams.iter().zip(&after.streams) {
                assert_ne!(served(before, after), Some(false), "{place} was served");
            }
            assert_ne!(served(&before.all, &after.all), Some(false), "{place} was served");
            assert_ne!(served(&before.snapshot, &after.snapshot), Some(false), "{place} was served");
            // A blob whose hash was changed is not there under its own one.
            let missing = after.blob == Ok(None);
            assert!(missing || served(&before.blob, &after.blob) != Some(false), "{place} was served");
            raw.execute(&update, (&old, row)).expect("restore");
        }
        assert_eq!(contents(&store, &agents, blob).await, before);
    });
}

#[test]
fn a_flipped_bit_anywhere_in_the_file_never_changes_what_is_served() {
    let directory = directory();
    let path = directory.path().join("nexa.db");
    let (before, agents, blob) = block_on(async {
        let store = open(&directory);
        let (agents, blob) = filled(&store).await;
        (contents(&store, &agents, blob).await, agents, blob)
    });
    // All of it into the one file, without the log beside it.
    sql(&directory, "PRAGMA wal_checkpoint(TRUNCATE)");
    let good = std::fs::read(&path).expect("read");
    let mut noticed = 0;
    for trial in 0..120 {
        let mut bad = good.clone();
        bad[scatter(trial) % good.len()] ^= 1 << (scatter(trial + 5_000) % 8);
        std::fs::write(&path, &bad).expect("write");
        block_on(async {
            // A refusal to open is a good answer too.
            let Ok(store) = SqliteStore::open(directory.path(), Options::default()) else {
                noticed += 1;
                return;
            };
            let after = contents(&store, &agents, blob).await;
            noticed += usize::from(after != before);
            let place = format!("byte {}", scatter(trial) % good.len());
            for (before, after) in before.streams.iter().zip(&after.streams) {
                assert_ne!(served(before, after), Some(false), "{place}");
            }
            assert_ne!(served(&before.all, &after.all), Some(false), "{place}");
            // What cannot be found is not served; a snapshot is made again from the facts.
            assert!(after.snapshot == Ok(None) || served(&before.snapshot, &after.snapshot) != Some(false), "{place}");
            assert!(after.blob == Ok(None) || served(&before.blob, &after.blob) != Some(false), "{place}");
        });
    }
    assert!(noticed > 20, "most of the file is in use, so that damage must show: {noticed}");
}

/// Starts this very test program again as a process that can be killed.
fn helper(test: &str, directory: &Path, limits: &str) -> Child {
    let program = std::env::current_exe().expect("a test has a program");
    let script = format!("{limits} exec \"$0\" --exact {test} --ignored --nocapture");
    Command::new("sh")
        .args(["-c", &script])
        .arg(program)
        .env("NEXA_TEST_DIRECTORY", directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}

fn helper_directory() -> std::path::PathBuf {
    std::env::var_os("NEXA_TEST_DIRECTORY").expect("started by its parent only").into()
}

#[test]
#[ignore = "a process that the next test starts and kills"]
fn helper_appends_until_it_is_killed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let store = Arc::new(SqliteStore::open(helper_directory(), Options::default()).expect("open"));
        let mut writers = Vec::new();
        for number in 1..=16_u8 {
            let store = Arc::clone(&store);
            writers.push(tokio::spawn(async move {
                let root = AgentId::root(workload(number));
                let mut version = match store.row(root).await.expect("row") {
                    Some(row) => row.version.0,
                    None => submit(&store, number).await.as_bytes().len() as u64 / 16,
                };
                loop {
                    let facts = vec![emitted(version), large(500)];
                    let appended = store.append(vec![owned(root, 1, version, facts)]).await.remove(0);
                    version = appended.expect("append").version.0;
                    println!("ack {number} {version}");
                }
            }));
        }
        futures::future::join_all(writers).await;
    });
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let directory = directory();
    for round in 0..3 {
        let mut child = helper("helper_appends_until_it_is_killed", directory.path(), "");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut acknowledged = [0_u64; 17];
        let mut lines = 0;
        for line in output.lines() {
            let line = line.expect("a line");
            let mut words = line.split(' ');
            if words.next() == Some("ack")
                && let (Some(Ok(number)), Some(Ok(version))) =
                    (words.next().map(str::parse::<usize>), words.next().map(str::parse::<u64>))
            {
                acknowledged[number] = version;
                lines += 1;
                if lines == 300 + 211 * round {
                    child.kill().expect("SIGKILL");
                }
            }
        }
        child.wait().expect("it ended");
        assert!(lines >= 300, "it was killed in the middle of its work");
        block_on(async {
            let store = open(&directory);
            let mut total = 0;
            for (number, acknowledged) in acknowledged.iter().enumerate().skip(1) {
                let stream = StreamId::Agent(AgentId::root(workload(number as u8)));
                let facts = store.read(stream, Version(0), 1_000_000).await.expect("the chain holds");
                assert!(facts.len() as u64 >= *acknowledged, "agent {number} lost acknowledged facts");
                total += facts.len() + usize::from(!facts.is_empty());
            }
            let all = store.scan(None, GlobalSeq(0), 1_000_000).await.expect("scan");
            assert_eq!(all.len(), total);
            assert!(store.rows(Rows::Live, None, 100).await.expect("rows").len() <= 16);
        });
    }
}

#[test]
#[ignore = "a process that the next test starts with a limit on the size of files"]
fn helper_appends_until_writing_fails() {
    block_on(async {
        let store = SqliteStore::open(helper_directory(), Options::default()).expect("open");
        let root = submit(&store, 1).await;
        let mut version = 1;
        let first = loop {
            match store.append(vec![owned(root, 1, version, vec![large(20_000)])]).await.remove(0) {
                Ok(appended) => version = appended.version.0,
                Err(error) => break error,
            }
        };
        println!("ack 1 {version}");
        println!("first {first}");
        println!("told {}", store.broken().await);
        for _ in 0..2 {
            let next = store.append(vec![owned(root, 1, version, vec![emitted(1)])]).await.remove(0);
            println!("then {}", next.expect_err("it stays stopped"));
        }
        let facts = store.read(StreamId::Agent(root), Version(0), 10_000).await.expect("reading goes on");
        println!("read {}", facts.len() as u64 == version);
    });
}

#[test]
fn after_a_failed_write_the_store_takes_no_more_until_a_restart() {
    let directory = directory();
    // Writes beyond the limit fail with an error that is not about room: 4,096 blocks of 512 bytes.
    let limits = "trap '' XFSZ; ulimit -f 4096;";
    let mut child = helper("helper_appends_until_writing_fails", directory.path(), limits);
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let lines: Vec<String> = output.lines().map(|line| line.expect("a line")).collect();
    assert!(child.wait().expect("it ended").success(), "{lines:#?}");
    let said = |word: &str| lines.iter().filter(|line| line.starts_with(word)).cloned().collect::<Vec<_>>();
    assert_eq!(said("first").len(), 1, "{lines:#?}");
    assert!(said("first")[0].contains("disk I/O error"), "{lines:#?}");
    assert!(said("told")[0].contains("disk I/O error"), "{lines:#?}");
    for line in said("then") {
        assert!(line.contains("not available") && line.contains("restart the process"), "{line}");
    }
    assert_eq!(said("read"), ["read true"]);
    let acknowledged: u64 = said("ack")[0].rsplit(' ').next().expect("a number").parse().expect("a number");
    block_on(async {
        let store = open(&directory);
        let stream = StreamId::Agent(AgentId::root(workload(1)));
        let facts = store.read(stream, Version(0), 10_000).await.expect("the chain holds").len() as u64;
        assert!(facts == acknowledged || facts == acknowledged + 1, "{facts} of {acknowledged}");
        store.append(vec![owned(AgentId::root(workload(1)), 1, facts, vec![emitted(1)])]).await.remove(0).expect("on");
    });
}

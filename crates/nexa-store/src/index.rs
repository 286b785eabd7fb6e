//! Where the facts of one stream, and of one workload, lie.
//!
//! Facts lie in the order of their arrival; two indices lead to them by stream and by workload. Indices that change with each
//! commit have a page written for nearly every agent that writes, four fifths of all pages. So facts of late are in memory only
//! ([`Recent`]), and come into the indices in runs: once there are [`RUN_FACTS`], they are sorted, and each further commit takes
//! a slice of them along. Neighbours share a page then, and no commit gets long.
//!
//! The truth is in the file: `indexed` says, in the same moment as all else that a question sees, up to where the indices have
//! every fact. What came later is looked up in memory if that reaches back so far, and else read through, which is about twice a
//! run at most. So a process that has nothing in memory, and a question that began long ago, get the same answers.
//!
//! Holds:
//!   IX-1  the indices have each fact up to `indexed`, and may have later ones
//!   IX-2  memory has each fact after its start that anybody can see, and may have some that nobody sees: who looks one up
//!         checks that it lies where it was said to lie

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use nexa_types::WorkloadId;
use rusqlite::{Connection, OptionalExtension, params};

use crate::column::{count, counter, damaged};
use crate::read::{Answer, limited, sql};

/// Facts that come into the indices together.
pub(crate) const RUN_FACTS: usize = 4_096;
/// Entries that a commit takes along at least, and for each fact of its own: so a run is done before the next one is complete.
const SLICE_MIN: usize = 64;
/// See [`SLICE_MIN`].
const SLICE_PER_FACT: usize = 6;

/// A fact that has come.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) position: u64,
    pub(crate) stream: Arc<[u8]>,
    pub(crate) version: u64,
    pub(crate) workload: Option<WorkloadId>,
}

/// Facts that came after some position.
#[derive(Debug, Default)]
struct Generation {
    after: u64,
    /// Versions and positions, in order.
    streams: HashMap<Arc<[u8]>, Vec<(u64, u64)>>,
    workloads: HashMap<WorkloadId, Vec<u64>>,
}

impl Generation {
    fn add(&mut self, arrival: &Arrival) {
        let place = (arrival.version, arrival.position);
        self.streams.entry(Arc::clone(&arrival.stream)).or_default().push(place);
        if let Some(workload) = arrival.workload {
            self.workloads.entry(workload).or_default().push(arrival.position);
        }
    }

    /// Takes back what was added last.
    fn remove(&mut self, arrival: &Arrival) {
        if let Some(places) = self.streams.get_mut(&arrival.stream) {
            places.retain(|(_, position)| *position != arrival.position);
        }
        if let Some(places) = arrival.workload.and_then(|workload| self.workloads.get_mut(&workload)) {
            places.retain(|position| *position != arrival.position);
        }
    }
}

/// Facts of late, for whoever asks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recent(Arc<RwLock<Generations>>);

#[derive(Debug)]
struct Generations {
    /// What is being put into the indices, or was before the younger ones came.
    older: Generation,
    younger: Generation,
}

impl Recent {
    /// Of a process that knows of no fact.
    pub(crate) fn nothing() -> Self {
        Self::after(u64::MAX)
    }

    fn after(after: u64) -> Self {
        let generation = || Generation { after, ..Generation::default() };
        Self(Arc::new(RwLock::new(Generations { older: generation(), younger: generation() })))
    }

    fn look<T>(&self, look: impl FnOnce(&Generations) -> T) -> T {
        look(&self.0.read().expect("no holder of this lock can panic"))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Generations) -> T) -> T {
        change(&mut self.0.write().expect("no holder of this lock can panic"))
    }

    /// Where a version of a stream may lie.
    pub(crate) fn at(&self, stream: &[u8], version: u64) -> Option<u64> {
        self.look(|known| {
            [&known.younger, &known.older].into_iter().find_map(|generation| {
                let places = generation.streams.get(stream)?;
                let place = places.binary_search_by_key(&version, |(version, _)| *version).ok()?;
                Some(places[place].1)
            })
        })
    }

    /// Where the versions of a stream from one on may lie; `None` if facts after that position may be missing here.
    fn of_stream(&self, indexed: u64, stream: &[u8], from: u64, limit: usize) -> Option<Vec<u64>> {
        self.look(|known| {
            let found = [&known.older, &known.younger].into_iter().filter_map(|it| it.streams.get(stream)).flatten();
            let found = found.filter(|(version, _)| *version >= from).map(|(_, position)| *position);
            (known.older.after <= indexed).then(|| found.take(limit).collect())
        })
    }

    /// The same of a workload, from a position on.
    fn of_workload(&self, indexed: u64, workload: WorkloadId, after: u64, limit: usize) -> Option<Vec<u64>> {
        self.look(|known| {
            let known_places = [&known.older, &known.younger].into_iter();
            let found = known_places.filter_map(|it| it.workloads.get(&workload)).flatten().copied();
            (known.older.after <= indexed).then(|| found.filter(|position| *position > after).take(limit).collect())
        })
    }
}

/// A run that is on its way into the indices, sorted.
struct Run {
    streams: Vec<(Arc<[u8]>, u64, u64)>,
    workloads: Vec<(WorkloadId, u64)>,
    /// Entries of both that are in.
    done: usize,
    /// The position of its newest fact.
    end: u64,
}

impl Run {
    fn len(&self) -> usize {
        self.streams.len() + self.workloads.len()
    }
}

/// The writer's part: fills the indices.
pub(crate) struct Indexer {
    recent: Recent,
    run_facts: usize,
    /// Facts since the latest run began.
    younger: usize,
    run: Option<Run>,
}

impl Indexer {
    /// Reads what is in no index yet.
    pub(crate) fn open(connection: &Connection, run_facts: usize) -> rusqlite::Result<Self> {
        let indexed: i64 = connection.query_row("SELECT position FROM indexed", [], |row| row.get(0))?;
        let mut indexer = Self { recent: Recent::after(indexed.unsigned_abs()), run_facts, younger: 0, run: None };
        let mut select =
            connection.prepare("SELECT position, stream, version, workload FROM events WHERE position > ?1")?;
        let mut rows = select.query([indexed])?;
        let mut newest = indexed.unsigned_abs();
        while let Some(row) = rows.next()? {
            let (position, stream, version): (i64, Vec<u8>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let workload: Option<Vec<u8>> = row.get(3)?;
            let workload = workload.as_deref().and_then(WorkloadId::from_slice);
            newest = position.unsigned_abs();
            let arrival =
                Arrival { position: newest, stream: stream.into(), version: version.unsigned_abs(), workload };
            indexer.expect(std::slice::from_ref(&arrival));
            indexer.younger += 1;
        }
        indexer.freeze(newest);
        Ok(indexer)
    }

    /// For those who ask.
    pub(crate) fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// Facts that are about to be committed.
    pub(crate) fn expect(&self, arrivals: &[Arrival]) {
        self.recent.change(|known| arrivals.iter().for_each(|arrival| known.younger.add(arrival)));
    }

    /// They were not committed, for certain. Where nobody knows, they stay: somebody may see them.
    pub(crate) fn give_up(&self, arrivals: &[Arrival]) {
        self.recent.change(|known| arrivals.iter().for_each(|arrival| known.younger.remove(arrival)));
    }

    /// Puts the next slice into the indices, within the transaction of so many facts. How far the run is then.
    pub(crate) fn slice(&self, connection: &Connection, facts: usize) -> rusqlite::Result<usize> {
        let Some(run) = &self.run else { return Ok(0) };
        let end = run.len().min(run.done + SLICE_MIN.max(facts.saturating_mul(SLICE_PER_FACT)));
        let split = run.streams.len();
        // An earlier process may have come a part of the way.
        let mut insert = connection
            .prepare_cached("INSERT OR IGNORE INTO stream_index (stream, version, position) VALUES (?1, ?2, ?3)")?;
        for (stream, version, position) in &run.streams[run.done.min(split)..end.min(split)] {
            insert.execute(params![&stream[..], count(*version), count(*position)])?;
        }
        let mut insert =
            connection.prepare_cached("INSERT OR IGNORE INTO workload_index (workload, position) VALUES (?1, ?2)")?;
        for (workload, position) in &run.workloads[run.done.max(split) - split..end.max(split) - split] {
            insert.execute(params![workload.as_bytes(), count(*position)])?;
        }
        if end == run.len() {
            connection.prepare_cached("UPDATE indexed SET position = ?1")?.execute([count(run.end)])?;
        }
        Ok(end)
    }

    /// So many facts were committed, the newest there, and with them the run's slice up to `done`.
    pub(crate) fn committed(&mut self, facts: usize, newest: u64, done: usize) {
        self.younger += facts;
        self.run = self.run.take().map(|run| Run { done, ..run }).filter(|run| run.done < run.len());
        self.freeze(newest);
    }

    /// Begins a run with what has come, if that is enough.
    fn freeze(&mut self, newest: u64) {
        if self.run.is_some() || self.younger < self.run_facts {
            return;
        }
        self.younger = 0;
        self.run = Some(self.recent.change(|known| {
            known.older = std::mem::replace(&mut known.younger, Generation { after: newest, ..Generation::default() });
            let places = known.older.streams.iter();
            let streams = places.flat_map(|(stream, places)| {
                places.iter().map(|(version, position)| (Arc::clone(stream), *version, *position))
            });
            let places = known.older.workloads.iter();
            let workloads = places.flat_map(|(workload, places)| places.iter().map(|position| (*workload, *position)));
            Run { streams: streams.collect(), workloads: workloads.collect(), done: 0, end: newest }
        }));
        if let Some(run) = &mut self.run {
            run.streams.sort_unstable();
            run.workloads.sort_unstable();
        }
    }
}

/// Up to where the indices have every fact.
fn indexed(connection: &Connection) -> Answer<u64> {
    let position: Option<i64> = sql(connection
        .prepare_cached("SELECT position FROM indexed")
        .and_then(|mut select| select.query_row([], |row| row.get(0)).optional()))?;
    counter(position.ok_or_else(|| damaged("the indices", "nothing says how far they are"))?)
}

/// Positions from a question's first column.
fn positions(connection: &Connection, question: &str, values: &[&dyn rusqlite::ToSql]) -> Answer<Vec<u64>> {
    let mut select = sql(connection.prepare_cached(question))?;
    let mut rows = sql(select.query(values))?;
    let mut found = Vec::new();
    while let Some(row) = sql(rows.next())? {
        found.push(counter(sql(row.get(0))?)?);
    }
    Ok(found)
}

/// Where the versions of a stream from one on may lie, in order and without gap as far as they are there.
pub(crate) fn of_stream(
    connection: &Connection,
    recent: &Recent,
    stream: &[u8],
    from: u64,
    limit: usize,
) -> Answer<Vec<u64>> {
    const INDEXED: &str =
        "SELECT position FROM stream_index WHERE stream = ?1 AND version >= ?2 ORDER BY version LIMIT ?3";
    const YOUNGER: &str = "SELECT position FROM events WHERE position > ?1 AND stream = ?2 AND version >= ?3
                           ORDER BY version LIMIT ?4";
    let mut found = positions(connection, INDEXED, &[&stream, &count(from), &limited(limit)])?;
    // The index has the first versions of what it has of a stream, so that the others follow.
    let next = from + found.len() as u64;
    let rest = limit - found.len().min(limit);
    if rest > 0 {
        let indexed = indexed(connection)?;
        found.extend(match recent.of_stream(indexed, stream, next, rest) {
            Some(younger) => younger,
            None => positions(connection, YOUNGER, &[&count(indexed), &stream, &count(next), &limited(rest)])?,
        });
    }
    Ok(found)
}

/// Where the facts of a workload after a position may lie, in order.
pub(crate) fn of_workload(
    connection: &Connection,
    recent: &Recent,
    workload: WorkloadId,
    after: u64,
    limit: usize,
) -> Answer<Vec<u64>> {
    const INDEXED: &str = "SELECT position FROM workload_index WHERE workload = ?1 AND position > ?2 AND position <= ?3
                           ORDER BY position LIMIT ?4";
    const YOUNGER: &str =
        "SELECT position FROM events WHERE position > ?1 AND workload = ?2 ORDER BY position LIMIT ?3";
    let indexed = indexed(connection)?;
    let key = workload.as_bytes();
    let mut found = positions(connection, INDEXED, &[key, &count(after), &count(indexed), &limited(limit)])?;
    let rest = limit - found.len().min(limit);
    if rest > 0 {
        let after = after.max(indexed);
        found.extend(match recent.of_workload(indexed, workload, after, rest) {
            Some(younger) => younger,
            None => positions(connection, YOUNGER, &[&count(after), key, &limited(rest)])?,
        });
    }
    Ok(found)
}

/// Where a version of a stream may lie, by the file alone.
pub(crate) fn at(connection: &Connection, stream: &[u8], version: u64) -> Answer<Option<u64>> {
    let found = of_stream(connection, &Recent::nothing(), stream, version, 1)?;
    Ok(found.into_iter().next())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image;

    fn workload(number: u8) -> WorkloadId {
        WorkloadId::from_bytes([number; 16])
    }

    /// A fact of one of a few streams, as its number.
    fn insert(connection: &Connection, position: u64, stream: u8, versions: &mut [u64; 4]) -> Arrival {
        let version = &mut versions[usize::from(stream)];
        *version += 1;
        let arrival = Arrival {
            position,
            stream: vec![b'a', stream].into(),
            version: *version,
            workload: (stream < 3).then(|| workload(stream / 2)),
        };
        let id = arrival.workload.map(|workload| workload.as_bytes().to_vec());
        let values = params![count(position), &arrival.stream[..], count(arrival.version), id];
        let statement =
            "INSERT INTO events (position, stream, version, workload, header, link) VALUES (?1, ?2, ?3, ?4, x'', x'')";
        connection.prepare_cached(statement).and_then(|mut insert| insert.execute(values)).expect("inserted");
        arrival
    }

    /// What lies at those positions of what the connection sees.
    fn seen(connection: &Connection, places: Vec<u64>) -> Vec<u64> {
        let mut there = connection.prepare_cached("SELECT 1 FROM events WHERE position = ?1").expect("a question");
        places.into_iter().filter(|place| there.exists([count(*place)]).expect("an answer")).collect()
    }

    fn all_is_found(connection: &Connection, recent: &Recent) {
        let whole = |question: &str, key: &[u8]| positions(connection, question, &[&key]).expect("an answer");
        for stream in 0..4 {
            let key = [b'a', stream];
            let expected = whole("SELECT position FROM events WHERE stream = ?1 ORDER BY version", &key);
            for (from, limit) in [(1, 100), (1, 2), (2, 3), (5, 100)] {
                let found = of_stream(connection, recent, &key, from, limit).expect("an answer");
                let expected: Vec<u64> = expected.iter().skip(from as usize - 1).take(limit).copied().collect();
                assert_eq!(seen(connection, found), expected, "stream {stream} from {from}, {limit}");
            }
            for (version, position) in (1..).zip(&expected) {
                assert_eq!(at(connection, &key, version).expect("an answer"), Some(*position));
                assert!(recent.at(&key, version).is_none_or(|place| place == *position));
            }
        }
        for number in 0..2 {
            let id = workload(number);
            let expected = whole("SELECT position FROM events WHERE workload = ?1 ORDER BY position", id.as_bytes());
            for (after, limit) in [(0, 100), (0, 2), (4, 3), (9, 100)] {
                let found = of_workload(connection, recent, id, after, limit).expect("an answer");
                let expected: Vec<u64> = expected.iter().filter(|place| **place > after).take(limit).copied().collect();
                assert_eq!(seen(connection, found), expected, "workload {number} after {after}, {limit}");
            }
        }
    }

    proptest! {
        /// With memory, without, after a restart at any moment, and for one who began to look at any moment.
        #[test]
        fn everything_is_found_by_everybody_at_any_moment(
            commits in prop::collection::vec((prop::collection::vec(0_u8..4, 0..6), 0_u8..8), 1..40),
            run in 1_usize..12,
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("nexa.db");
            std::fs::write(&path, image::log("of a test", 1)).expect("written");
            let writer = Connection::open(&path).expect("a file");
            writer.pragma_update(None, "synchronous", "OFF").expect("set");
            let mut indexer = Indexer::open(&writer, run).expect("open");
            let (early, late) = (Connection::open(&path).expect("again"), Connection::open(&path).expect("again"));
            let (mut newest, mut versions) = (0, [0; 4]);
            let mut before = indexer.recent();
            for (facts, what) in commits {
                writer.execute_batch("BEGIN").expect("begun");
                let (mut position, mut next) = (newest, versions);
                let arrivals: Vec<Arrival> = facts.iter().map(|stream| {
                    position += 1;
                    insert(&writer, position, *stream, &mut next)
                }).collect();
                let done = indexer.slice(&writer, arrivals.len()).expect("a slice");
                indexer.expect(&arrivals);
                all_is_found(&late, &indexer.recent());
                if what == 0 {
                    writer.execute_batch("ROLLBACK").expect("taken back");
                    indexer.give_up(&arrivals);
                } else {
                    writer.execute_batch("COMMIT").expect("committed");
                    (newest, versions) = (position, next);
                    indexer.committed(arrivals.len(), newest, done);
                }
                if what == 1 {
                    indexer = Indexer::open(&writer, run).expect("open");
                }
                all_is_found(&late, &indexer.recent());
                all_is_found(&late, &Recent::nothing());
                // Whose moment is an earlier one.
                all_is_found(&early, &before);
                if what == 2 && !early.is_autocommit() {
                    early.execute_batch("COMMIT").expect("it ends");
                }
                if early.is_autocommit() {
                    early.execute_batch("BEGIN; SELECT count(*) FROM events").expect("it begins");
                    before = indexer.recent();
                }
            }
        }
    }
}

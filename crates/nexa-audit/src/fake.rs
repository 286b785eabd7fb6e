//! A log that tests change as no store would let them.

use std::sync::Mutex;

use futures::future::BoxFuture;
use nexa_event::envelope::Link;
use nexa_event::root::Root;
use nexa_ports::audit::{Audit, End, Entry, LogHead};
use nexa_ports::store::StoreError;
use nexa_types::{GlobalSeq, Version};

pub(crate) struct Log {
    id: String,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: Vec<Entry>,
    ends: Vec<End>,
    /// Facts that were ever appended: no two are alike.
    count: u64,
    folded: Folded,
    /// Positions of facts whose bytes were changed.
    damaged: Vec<u64>,
}

struct Folded(Root);

impl Default for Folded {
    fn default() -> Self {
        Self(Root::start())
    }
}

fn link(number: u64) -> Link {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Link(bytes)
}

fn root_of(entries: &[Entry]) -> Root {
    entries.iter().fold(Root::start(), |root, entry| root.next(entry.version, entry.link))
}

impl Log {
    pub(crate) fn of(facts: u64) -> Self {
        Self::named("log", facts)
    }

    pub(crate) fn named(id: &str, facts: u64) -> Self {
        let log = Self { id: id.to_owned(), kept: Mutex::default() };
        log.append(facts);
        log
    }

    /// More facts, of three streams in turn; folded at once.
    pub(crate) fn append(&self, facts: u64) {
        let mut kept = self.kept.lock().unwrap();
        for _ in 0..facts {
            kept.count += 1;
            let stream = vec![b'a', (kept.count % 3) as u8];
            let position = GlobalSeq(kept.entries.len() as u64 + 1);
            let version = kept.ends.iter().find(|end| end.stream == stream).map_or(0, |end| end.version.0) + 1;
            let entry = Entry { position, stream: stream.clone(), version: Version(version), link: link(kept.count) };
            kept.ends.retain(|end| end.stream != stream);
            kept.ends.push(End { stream, version: entry.version, link: entry.link });
            kept.entries.push(entry);
        }
        kept.ends.sort_by(|a, b| a.stream.cmp(&b.stream));
        kept.folded = Folded(root_of(&kept.entries));
    }

    pub(crate) fn truncate(&self, facts: usize) {
        let mut kept = self.kept.lock().unwrap();
        kept.entries.truncate(facts);
        let entries = std::mem::take(&mut kept.entries);
        kept.ends.clear();
        for stream in 0..3 {
            let last = entries.iter().rfind(|entry| entry.stream == [b'a', stream]);
            kept.ends.extend(last.map(|last| End {
                stream: last.stream.clone(),
                version: last.version,
                link: last.link,
            }));
        }
        kept.entries = entries;
        kept.folded = Folded(root_of(&kept.entries));
    }

    /// Puts another fact in the place of one.
    pub(crate) fn change(&self, position: usize) {
        let mut kept = self.kept.lock().unwrap();
        kept.entries[position - 1].link = link(u64::MAX);
        kept.folded = Folded(root_of(&kept.entries));
    }

    /// Changes the bytes of a fact.
    pub(crate) fn damage(&self, position: u64) {
        self.kept.lock().unwrap().damaged.push(position);
    }

    /// Changes what a stream's row says.
    pub(crate) fn change_end(&self, change: impl FnOnce(&mut Vec<End>)) {
        change(&mut self.kept.lock().unwrap().ends);
    }

    pub(crate) fn fold_to(&self, position: usize) {
        let mut kept = self.kept.lock().unwrap();
        let upto = position.min(kept.entries.len());
        kept.folded = Folded(root_of(&kept.entries[..upto]));
    }

    /// The root up to a position.
    pub(crate) fn root_at(&self, position: usize) -> Root {
        root_of(&self.kept.lock().unwrap().entries[..position])
    }

    /// The root of all of it.
    pub(crate) fn whole(&self) -> Root {
        root_of(&self.kept.lock().unwrap().entries)
    }
}

impl Audit for Log {
    fn log(&self) -> BoxFuture<'_, Result<LogHead, StoreError>> {
        let newest = GlobalSeq(self.kept.lock().unwrap().entries.len() as u64);
        Box::pin(async move { Ok(LogHead { id: self.id.clone(), newest }) })
    }

    fn root(&self) -> BoxFuture<'_, Result<Root, StoreError>> {
        Box::pin(async move { Ok(self.kept.lock().unwrap().folded.0) })
    }

    fn entries(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            let kept = self.kept.lock().unwrap();
            Ok(kept.entries.iter().filter(|entry| entry.position > after).take(limit).cloned().collect())
        })
    }

    fn proven(&self, after: GlobalSeq, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            let page = self.entries(after, limit).await?;
            let kept = self.kept.lock().unwrap();
            match page.iter().find(|entry| kept.damaged.contains(&entry.position.0)) {
                Some(entry) => Err(StoreError::Corrupt { detail: format!("the fact at position {}", entry.position) }),
                None => Ok(page),
            }
        })
    }

    fn ends(&self, after: Vec<u8>, limit: usize) -> BoxFuture<'_, Result<Vec<End>, StoreError>> {
        Box::pin(async move {
            let kept = self.kept.lock().unwrap();
            Ok(kept.ends.iter().filter(|end| end.stream > after).take(limit).cloned().collect())
        })
    }
}

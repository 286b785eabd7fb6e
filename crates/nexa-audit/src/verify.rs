//! Reads the whole log, and names the first thing that is not what it must be.
//!
//! In order: the anchors follow each other; each fact is what its stream's chain says, without a gap in the reading order; the
//! root at each anchor is the one that was anchored; no fact is missing up to the newest anchor; each stream ends where its own
//! row says.
//!
//! A log may grow meanwhile. Memory: about a hundred bytes for each stream.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use nexa_event::envelope::Link;
use nexa_event::root::{Anchor, Root, check_chain, in_force};
use nexa_ports::audit::Audit;
use nexa_ports::store::StoreError;
use nexa_types::GlobalSeq;

use crate::check::{Broken, PAGE};

/// Facts that are read and checked at once.
const FACTS: usize = 256;

/// What became of one anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The log is the same up to its position.
    Agrees,
    /// It is of a history that a person has given up.
    GivenUp,
    /// The log is not the same.
    Differs,
    /// It was not reached.
    Open,
}

/// What was read, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The root of all that is right.
    pub root: Root,
    /// The anchors, oldest first.
    pub anchors: Vec<(Anchor, Verdict)>,
    /// The first thing that is wrong, if anything is.
    pub wrong: Option<Wrong>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The log as a whole is not the one that was anchored, or the anchors are not in order.
    #[error(transparent)]
    Whole(#[from] Broken),
    /// A fact is not what was appended.
    #[error("{detail}")]
    Fact {
        /// Its position.
        position: u64,
        /// Where it lies, and how it was noticed.
        detail: String,
    },
    /// Between two anchors, each fact fits its stream and all together are not those that were anchored.
    #[error(
        "a fact after position {after} and up to {position} was put in, taken away, moved, or changed together with all that follows it \
         in its stream: the root there is not the anchored one"
    )]
    Between {
        /// Up to here everything is as it was anchored.
        after: u64,
        /// The position of the anchor.
        position: u64,
    },
    /// A stream's row says another end than its facts.
    #[error("the row of stream {stream} says that it ends at version {told}, and its facts end at {found}")]
    End {
        /// The stream's key, in hex.
        stream: String,
        /// What the row says; 0 for no row.
        told: u64,
        /// Where the facts end; 0 for none. The same number if they are others.
        found: u64,
    },
}

/// The end of a stream by its facts: version and link.
type Ends = BTreeMap<Vec<u8>, (u64, [u8; 32])>;

struct Reading<'a> {
    log: &'a dyn Audit,
    root: Root,
    ends: Ends,
    anchors: Vec<(Anchor, Verdict)>,
    /// Up to here the log is as it was anchored.
    agreed: u64,
}

/// Reads everything; `progress` is told how many facts were read, now and then.
///
/// # Errors
/// [`StoreError`] if the log could not be read.
pub async fn verify(log: &dyn Audit, kept: &[Anchor], mut progress: impl FnMut(u64)) -> Result<Verified, StoreError> {
    let given_up = kept.len() - in_force(kept).len();
    let verdict = |place: usize| if place < given_up { Verdict::GivenUp } else { Verdict::Open };
    let anchors = kept.iter().enumerate().map(|(place, anchor)| (anchor.clone(), verdict(place))).collect();
    let mut reading = Reading { log, root: Root::start(), ends: Ends::new(), anchors, agreed: 0 };
    let wrong = reading.all(kept, &mut progress).await?;
    Ok(Verified { root: reading.root, anchors: reading.anchors, wrong })
}

impl Reading<'_> {
    async fn all(&mut self, kept: &[Anchor], progress: &mut impl FnMut(u64)) -> Result<Option<Wrong>, StoreError> {
        if let Err(unchained) = check_chain(kept) {
            return Ok(Some(Broken::from(unchained).into()));
        }
        let head = self.log.log().await?;
        let newest = in_force(kept).last();
        if let Some(anchor) = newest.filter(|anchor| anchor.log != head.id) {
            return Ok(Some(Broken::Foreign { anchored: anchor.log.clone(), found: head.id }.into()));
        }
        if let Some(wrong) = self.facts(head.newest, progress).await? {
            return Ok(Some(wrong));
        }
        if let Some(anchor) = newest.filter(|anchor| anchor.root.position > self.root.position) {
            let (anchored, found) = (anchor.root.position.0, self.root.position.0);
            return Ok(Some(Broken::Behind { anchored, found }.into()));
        }
        self.rows().await
    }

    /// Folds what there is up to a position, and compares it with each anchor on the way.
    async fn facts(&mut self, to: GlobalSeq, progress: &mut impl FnMut(u64)) -> Result<Option<Wrong>, StoreError> {
        if let Some(wrong) = self.compare() {
            return Ok(Some(wrong));
        }
        let mut limit = FACTS;
        while self.root.position < to {
            let page = match self.log.proven(self.root.position, limit).await {
                Ok(page) => page,
                // One of them is wrong: those before it are taken one by one.
                Err(StoreError::Corrupt { .. }) if limit > 1 => {
                    limit = 1;
                    continue;
                }
                Err(StoreError::Corrupt { detail }) => {
                    return Ok(Some(Wrong::Fact { position: self.root.position.0 + 1, detail }));
                }
                Err(error) => return Err(error),
            };
            if page.is_empty() {
                let position = self.root.position.0 + 1;
                return Ok(Some(Wrong::Fact { position, detail: format!("position {position}: a fact is missing") }));
            }
            for entry in page {
                self.root = self.root.next(entry.version, entry.link);
                self.ends.insert(entry.stream, (entry.version.0, entry.link.0));
                if let Some(wrong) = self.compare() {
                    return Ok(Some(wrong));
                }
            }
            progress(self.root.position.0);
        }
        Ok(None)
    }

    /// Compares the root with the anchors at its position.
    fn compare(&mut self) -> Option<Wrong> {
        let root = self.root;
        let here = |(anchor, verdict): &&mut (Anchor, Verdict)| {
            *verdict == Verdict::Open && anchor.root.position == root.position
        };
        for (anchor, verdict) in self.anchors.iter_mut().filter(here) {
            if anchor.root != root {
                *verdict = Verdict::Differs;
                return Some(Wrong::Between { after: self.agreed, position: root.position.0 });
            }
            *verdict = Verdict::Agrees;
            self.agreed = root.position.0;
        }
        None
    }

    /// Compares where streams end with what their rows say.
    ///
    /// Rows change together with their facts and are read after them, so that none is behind. Those that are ahead must be so by
    /// what has come meanwhile.
    async fn rows(&self) -> Result<Option<Wrong>, StoreError> {
        let wrong = |stream: &[u8], told: u64, found: u64| {
            let stream = stream.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(Some(Wrong::End { stream, told, found }))
        };
        let mut ends = self.ends.iter().peekable();
        let (mut after, mut ahead) = (Vec::new(), Vec::new());
        loop {
            let page = self.log.ends(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.stream.clone();
            for end in page {
                if let Some((stream, (found, _))) = ends.next_if(|(stream, _)| **stream < end.stream) {
                    return wrong(stream, 0, *found);
                }
                let found = ends.next_if(|(stream, _)| **stream == end.stream);
                let (found, link) = found.map_or((0, Link::START.0), |(_, found)| *found);
                match end.version.0.cmp(&found) {
                    Ordering::Equal if end.link.0 == link => {}
                    Ordering::Equal | Ordering::Less => return wrong(&end.stream, end.version.0, found),
                    Ordering::Greater => ahead.push((end.stream, end.version.0, found)),
                }
            }
        }
        if let Some((stream, (found, _))) = ends.next() {
            return wrong(stream, 0, *found);
        }
        let came = self.log.log().await?.newest.0.saturating_sub(self.root.position.0);
        let more: u64 = ahead.iter().map(|(_, told, found)| told - found).fold(0, u64::saturating_add);
        match ahead.first() {
            Some((stream, told, found)) if more > came => wrong(stream, *told, *found),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use nexa_event::root::Unchained;
    use nexa_ports::audit::End;
    use nexa_types::{Timestamp, Version};

    use super::*;
    use crate::fake::Log;

    fn anchors(log: &Log, positions: &[usize]) -> Vec<Anchor> {
        let mut anchors: Vec<Anchor> = Vec::new();
        for position in positions {
            let root = log.root_at(*position);
            anchors.push(Anchor::after(anchors.last(), "log".to_owned(), root, Timestamp(1)));
        }
        anchors
    }

    async fn wrong(log: &Log, anchors: &[Anchor]) -> Option<Wrong> {
        verify(log, anchors, |_| {}).await.expect("it can be read").wrong
    }

    #[tokio::test]
    async fn a_whole_log_agrees_with_every_anchor() {
        let log = Log::of(1_000);
        let kept = anchors(&log, &[3, 700, 1_000]);
        let verified = verify(&log, &kept, |_| {}).await.expect("it can be read");
        assert_eq!((verified.wrong, verified.root), (None, log.whole()));
        assert!(verified.anchors.iter().all(|(_, verdict)| *verdict == Verdict::Agrees));
        assert_eq!(wrong(&log, &[]).await, None);
    }

    #[tokio::test]
    async fn the_first_wrong_fact_is_named() {
        let log = Log::of(1_000);
        log.damage(901);
        log.damage(777);
        let detail = "the fact at position 777".to_owned();
        let found = verify(&log, &[], |_| {}).await.expect("it can be read");
        assert_eq!(found.wrong, Some(Wrong::Fact { position: 777, detail }));
        assert_eq!(found.root, log.root_at(776));
    }

    #[tokio::test]
    async fn what_fits_its_streams_and_not_the_anchors_lies_between_two() {
        let log = Log::of(100);
        let kept = anchors(&log, &[40, 60, 100]);
        log.change(55);
        assert_eq!(wrong(&log, &kept).await, Some(Wrong::Between { after: 40, position: 60 }));
        log.truncate(54);
        assert_eq!(wrong(&log, &kept).await, Some(Broken::Behind { anchored: 100, found: 54 }.into()));
        let mut accepted = kept.clone();
        let root = log.whole();
        accepted.push(Anchor::after(kept.last(), "log".to_owned(), root, Timestamp(2)).accepting("so be it".into()));
        let verified = verify(&log, &accepted, |_| {}).await.expect("it can be read");
        let verdicts: Vec<Verdict> = verified.anchors.iter().map(|(_, verdict)| *verdict).collect();
        assert_eq!(
            (verified.wrong, verdicts.as_slice()),
            (None, &[Verdict::GivenUp, Verdict::GivenUp, Verdict::GivenUp, Verdict::Agrees] as &[_])
        );
        accepted.remove(1);
        assert_eq!(wrong(&log, &accepted).await, Some(Broken::Unchained(Unchained { number: 3 }).into()));
    }

    #[tokio::test]
    async fn a_stream_s_row_that_says_another_end_is_named() {
        type Change = fn(&mut Vec<End>);
        let changes: [(Change, u64, u64); 5] = [
            (|ends| ends[1].version = Version(5), 5, 4),
            (|ends| ends[1].version = Version(3), 3, 4),
            (|ends| ends[1].link.0[5] ^= 1, 4, 4),
            (|ends| drop(ends.remove(1)), 0, 4),
            (|ends| ends.push(End { stream: vec![b'z'], ..ends[1].clone() }), 4, 0),
        ];
        for (change, told, found) in changes {
            let log = Log::of(12);
            log.change_end(change);
            let stream = if found == 0 { "7a" } else { "6101" }.to_owned();
            assert_eq!(wrong(&log, &[]).await, Some(Wrong::End { stream, told, found }));
        }
    }
}

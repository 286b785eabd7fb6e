//! Whether a log is still the one that was anchored.
//!
//! The root is folded on from an anchor over what came since, or, where the fold is behind the anchor, from it up to the
//! anchor. Either way both must meet. It costs as much as there is between them: about a second's facts at a start.

use nexa_event::root::{Anchor, Root, Unchained};
use nexa_ports::audit::{Audit, fold_on};
use nexa_ports::store::StoreError;
use nexa_types::GlobalSeq;

/// Places of facts that are read at once.
pub(crate) const PAGE: usize = 4_096;

/// How a log is not the one that was anchored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Its newest facts are gone.
    #[error(
        "the log has lost its newest facts: {anchored} were there when it was last anchored, and {found} are there now, \
         as after an older copy was put back, or a standby was promoted that had not got them"
    )]
    Behind {
        /// How many there were.
        anchored: u64,
        /// How many there are.
        found: u64,
    },
    /// It has another history.
    #[error(
        "the log has another history than the one that was anchored: its first {position} facts are not those of that time"
    )]
    Differs {
        /// Up to where it was anchored.
        position: u64,
    },
    /// It is another log.
    #[error("this is another log: its id is {found}, and the one that was anchored here is {anchored}")]
    Foreign {
        /// The id of the anchored one.
        anchored: String,
        /// The id of what is there.
        found: String,
    },
    /// The anchors do not follow each other.
    #[error(transparent)]
    Unchained(#[from] Unchained),
}

/// Either it is that log, or how it is not; or it could not be read.
pub type Checked = Result<Result<(), Broken>, StoreError>;

/// Whether the log goes on from an anchor, by its root as it is folded and by what came between.
///
/// # Errors
/// [`StoreError`] if it could not be read.
pub async fn check(log: &dyn Audit, anchor: &Anchor) -> Checked {
    if let Err(broken) = still_there(log, anchor).await? {
        return Ok(Err(broken));
    }
    let folded = log.root().await?;
    let (from, to) = if folded.position < anchor.root.position { (folded, anchor.root) } else { (anchor.root, folded) };
    let reached = fold(log, from, to.position).await?;
    Ok(if reached == to { Ok(()) } else { Err(Broken::Differs { position: anchor.root.position.0 }) })
}

/// Whether the fact that was the newest at an anchor is still where it was: the quick look in between.
///
/// # Errors
/// [`StoreError`] if it could not be read.
pub async fn still_there(log: &dyn Audit, anchor: &Anchor) -> Checked {
    let head = log.log().await?;
    let position = anchor.root.position;
    if head.id != anchor.log {
        return Ok(Err(Broken::Foreign { anchored: anchor.log.clone(), found: head.id }));
    }
    if head.newest < position {
        return Ok(Err(Broken::Behind { anchored: position.0, found: head.newest.0 }));
    }
    if position == GlobalSeq(0) {
        return Ok(Ok(()));
    }
    let found = log.entries(GlobalSeq(position.0 - 1), 1).await?;
    let is_there = found.first().is_some_and(|entry| entry.position == position && entry.link.0 == anchor.root.link);
    Ok(if is_there { Ok(()) } else { Err(Broken::Differs { position: position.0 }) })
}

/// The root at a position, folded on from an earlier one. Ends early where a fact is missing.
pub(crate) async fn fold(log: &dyn Audit, mut root: Root, to: GlobalSeq) -> Result<Root, StoreError> {
    while root.position < to {
        let left = usize::try_from(to.0 - root.position.0).unwrap_or(PAGE).min(PAGE);
        let page = log.entries(root.position, left).await?;
        let reached = fold_on(root, &page);
        if reached.position == root.position {
            return Ok(root);
        }
        root = reached;
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use nexa_types::Timestamp;

    use super::*;
    use crate::fake::Log;

    async fn anchored(log: &Log) -> Anchor {
        Anchor::after(None, "log".to_owned(), log.whole(), Timestamp(1))
    }

    #[tokio::test]
    async fn a_log_that_goes_on_agrees_wherever_its_fold_is() {
        let log = Log::of(10_000);
        let anchor = anchored(&log).await;
        log.append(9_000);
        for folded in [0, 4_000, 10_000, 10_001, 19_000] {
            log.fold_to(folded);
            assert_eq!(check(&log, &anchor).await, Ok(Ok(())), "folded up to {folded}");
        }
    }

    #[tokio::test]
    async fn whatever_else_is_there_is_told_from_it() {
        for folded in [0, 7, 20, 25] {
            let log = Log::of(20);
            let anchor = anchored(&log).await;
            let fold = |log: &Log| log.fold_to(folded);

            log.truncate(19);
            fold(&log);
            assert_eq!(check(&log, &anchor).await, Ok(Err(Broken::Behind { anchored: 20, found: 19 })));

            // An older copy that went on.
            log.append(6);
            fold(&log);
            assert_eq!(check(&log, &anchor).await, Ok(Err(Broken::Differs { position: 20 })));

            // A change far back, with everything after it as it was.
            let log = Log::of(20);
            log.change(3);
            log.append(5);
            fold(&log);
            assert_eq!(check(&log, &anchor).await, Ok(Err(Broken::Differs { position: 20 })));

            let other = Log::named("other", 20);
            let foreign = Broken::Foreign { anchored: "log".into(), found: "other".into() };
            assert_eq!(check(&other, &anchor).await, Ok(Err(foreign)));
        }
    }
}

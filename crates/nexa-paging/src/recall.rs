//! A recall: what a query finds within a budget, which pages have to be read for it, and which become active or leave.

use nexa_types::PageId;

use crate::page::Turn;
use crate::rank::{Found, FoundPage, Mode};
use crate::turnover::{Access, Turnover};

/// What is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'q> {
    /// In words.
    pub text: &'q str,
    /// The vector of the words, if there is somebody who makes vectors.
    pub vector: Option<&'q [f32]>,
    /// What is compared.
    pub mode: Mode,
    /// What the pages that are found are used for.
    pub access: Access,
}

/// How much may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecallBudget {
    /// Messages.
    pub messages: usize,
    /// Tokens of all of them, if there is a limit. A message that does not fit is passed over, and a shorter one may still.
    pub tokens: Option<u64>,
}

impl Default for RecallBudget {
    fn default() -> Self {
        Self { messages: 40, tokens: None }
    }
}

impl RecallBudget {
    /// Those of the ranked messages that fit.
    pub(crate) fn fitting(self, ranked: Vec<Found>) -> Vec<Found> {
        let mut left = self.tokens.unwrap_or(u64::MAX);
        let mut kept = ranked;
        kept.retain(|found| {
            let fits = u64::from(found.tokens) <= left;
            left -= if fits { u64::from(found.tokens) } else { 0 };
            fits
        });
        kept.truncate(self.messages);
        kept
    }

    /// How many messages have to be ranked for it.
    pub(crate) fn depth(self) -> usize {
        match self.tokens {
            // Some may be passed over.
            Some(_) => self.messages.saturating_mul(2),
            None => self.messages,
        }
    }
}

/// What a query found. It is a decision: nothing has been read and nothing has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Recall {
    /// Messages, the best first.
    pub messages: Vec<Found>,
    /// Pages, the best first: active ones as well as stored ones.
    pub pages: Vec<FoundPage>,
    /// Stored pages that have to be read for the messages, the one with the best message first.
    pub reads: Vec<PageId>,
    /// Which pages become active, and which leave.
    pub turnover: Turnover,
    /// What was compared: words only where there were no vectors; `None` if nothing could be.
    pub mode: Option<Mode>,
    /// When it was decided.
    pub turn: Turn,
}

#[cfg(test)]
mod tests {
    use nexa_types::Version;

    use super::*;
    use crate::rank::Why;

    fn found(seq: u64, tokens: u32) -> Found {
        Found { seq: Version(seq), page: None, tokens, score: 1.0, why: Why::default() }
    }

    #[test]
    fn what_does_not_fit_is_passed_over_and_what_follows_may_still() {
        let ranked = vec![found(1, 60), found(2, 60), found(3, 40), found(4, 1)];
        let kept = |messages, tokens| {
            let kept = RecallBudget { messages, tokens }.fitting(ranked.clone());
            kept.iter().map(|found| found.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(kept(9, Some(100)), [1, 3]);
        assert_eq!(kept(1, Some(100)), [1]);
        assert_eq!(kept(3, None), [1, 2, 3]);
        assert!(kept(9, Some(0)).is_empty() && kept(0, None).is_empty());
    }
}

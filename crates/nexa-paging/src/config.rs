//! What can be set about paging.

pub use nexa_event::effect::EvictionPolicy;
use nexa_event::effect::{MAX_PAGES_MAX, PAGE_SIZE_MAX, Remembering};

use crate::error::ConfigError;

/// The most messages of a page.
pub const PAGE_MESSAGES_MAX: usize = PAGE_SIZE_MAX as usize;
/// The most active pages of an agent.
pub const ACTIVE_PAGES_MAX: usize = MAX_PAGES_MAX as usize;
/// The name of an embedding model, in bytes.
pub const EMBEDDING_MODEL_BYTES_MAX: usize = 256;
/// The greatest of all weights.
const WEIGHT_MAX: f64 = 100.0;

/// How an agent's context is paged.
#[derive(Debug, Clone, PartialEq)]
pub struct PagingConfig {
    /// Messages of a page: 1 to [`PAGE_MESSAGES_MAX`]. A break of the conversation ends a page early.
    pub page_size: usize,
    /// Pages whose messages are in memory: 1 to [`ACTIVE_PAGES_MAX`].
    pub max_active_pages: usize,
    /// Which model makes the vectors, as whoever embeds calls it. Vectors of different models cannot be compared. Empty: none,
    /// and only words are searched.
    pub embedding_model: String,
    /// A page of which no message is so near to the query (cosine, -1 to 1) is found by words only. It never holds against a
    /// page that has one of the query's words.
    pub similarity_threshold: f32,
    /// Which page leaves when another comes: always the one that is least worth keeping, see [`crate::keep`].
    pub eviction_policy: EvictionPolicy,
    /// What the policy [`EvictionPolicy::Hybrid`] weighs.
    pub hybrid: HybridWeights,
    /// What ranking weighs.
    pub rank: RankWeights,
    /// Pages that one recall makes active at most, the best of those that it needs; further ones are read and not kept. So one
    /// query does not drive out all that others use. 0: `max_active_pages`.
    pub activate_max: usize,
}

impl Default for PagingConfig {
    fn default() -> Self {
        Self {
            page_size: 8,
            max_active_pages: 16,
            embedding_model: "local/all-minilm-l6-v2".to_owned(),
            similarity_threshold: 0.2,
            eviction_policy: EvictionPolicy::Hybrid,
            hybrid: HybridWeights::default(),
            rank: RankWeights::default(),
            activate_max: 8,
        }
    }
}

impl PagingConfig {
    /// What an agent's declaration asks for, paged by words alone.
    pub fn declared(memory: &Remembering) -> Self {
        Self {
            page_size: memory.page_size as usize,
            max_active_pages: memory.max_pages as usize,
            embedding_model: String::new(),
            similarity_threshold: memory.threshold as f32,
            eviction_policy: memory.evict,
            ..Self::default()
        }
    }

    /// Gives it back if it can be kept to.
    ///
    /// # Errors
    /// [`ConfigError`] for what cannot.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let within = |name, value, max| match value {
            1.. if value <= max => Ok(()),
            _ => Err(ConfigError::OutOfRange { name, value, max }),
        };
        within("page_size", self.page_size, PAGE_MESSAGES_MAX)?;
        within("max_active_pages", self.max_active_pages, ACTIVE_PAGES_MAX)?;
        if self.embedding_model.len() > EMBEDDING_MODEL_BYTES_MAX {
            return Err(ConfigError::LongModel { bytes: self.embedding_model.len() });
        }
        if !(-1.0..=1.0).contains(&self.similarity_threshold) {
            return Err(ConfigError::NoCosine { value: self.similarity_threshold });
        }
        let HybridWeights { relevance, recency, frequency, importance, size } = self.hybrid;
        let RankWeights { keywords, page, conversation, neighbours, date, speaker } = self.rank;
        let weights = [
            ("hybrid.relevance", relevance),
            ("hybrid.recency", recency),
            ("hybrid.frequency", frequency),
            ("hybrid.importance", importance),
            ("hybrid.size", size),
            ("rank.page", page),
            ("rank.conversation", conversation),
            ("rank.neighbours", neighbours),
            ("rank.date", date),
            ("rank.speaker", speaker),
        ];
        for (name, value) in weights {
            if !(0.0..=WEIGHT_MAX).contains(&value) {
                return Err(ConfigError::BadWeight { name, value, max: WEIGHT_MAX });
            }
        }
        if !(0.0..=1.0).contains(&keywords) {
            return Err(ConfigError::BadWeight { name: "rank.keywords", value: keywords, max: 1.0 });
        }
        Ok(self)
    }

    /// Pages that one recall makes active at most.
    #[must_use]
    pub fn activated(&self) -> usize {
        match self.activate_max {
            0 => self.max_active_pages,
            most => most.min(self.max_active_pages),
        }
    }
}

/// `relevance·r + recency·2^(−Δ/16) + frequency·f + importance·i − size·s`, each of the five between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HybridWeights {
    /// The best cosine of the page's messages to the last turns.
    pub relevance: f64,
    /// Turns since the last use, halved every sixteen.
    pub recency: f64,
    /// Uses, fading.
    pub frequency: f64,
    /// What rules say of its messages: names, numbers, dates, paths.
    pub importance: f64,
    /// Tokens of it against those of the largest active page.
    pub size: f64,
}

impl Default for HybridWeights {
    fn default() -> Self {
        Self { relevance: 0.45, recency: 0.30, frequency: 0.15, importance: 0.10, size: 0.0 }
    }
}

/// What a message's score is made of. Scores of words are divided by the greatest of all units, cosines go from 0 for the
/// least to 1 for the greatest, so that each part of a score is between 0 and 1 before it is weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankWeights {
    /// What words are worth beside vectors, which are worth the rest: 0 to 1.
    pub keywords: f64,
    /// For a message: the score of its page.
    pub page: f64,
    /// For a page: the score of all that was said between two breaks.
    pub conversation: f64,
    /// For a message: the scores of those before and after it.
    pub neighbours: f64,
    /// For a message: the query names the date.
    pub date: f64,
    /// For a message: the query names the speaker.
    pub speaker: f64,
}

impl Default for RankWeights {
    fn default() -> Self {
        Self { keywords: 0.5, page: 0.75, conversation: 0.25, neighbours: 0.2, date: 0.0, speaker: 0.2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_kept_to() {
        assert_eq!(PagingConfig::default().checked(), Ok(PagingConfig::default()));
    }

    #[test]
    fn what_cannot_be_kept_to_is_refused_with_its_name() {
        let base = PagingConfig::default;
        let rank = RankWeights { page: f64::NAN, ..RankWeights::default() };
        for (config, name) in [
            (PagingConfig { page_size: 0, ..base() }, "page_size"),
            (PagingConfig { page_size: PAGE_MESSAGES_MAX + 1, ..base() }, "page_size"),
            (PagingConfig { max_active_pages: 0, ..base() }, "max_active_pages"),
            (PagingConfig { similarity_threshold: f32::NAN, ..base() }, "similarity_threshold"),
            (PagingConfig { embedding_model: "x".repeat(257), ..base() }, "embedding_model"),
            (PagingConfig { rank, ..base() }, "rank.page"),
        ] {
            let error = config.checked().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_recall_activates_no_more_than_there_is_room_for() {
        let config = |activate_max| PagingConfig { max_active_pages: 4, activate_max, ..PagingConfig::default() };
        assert_eq!([0, 2, 9].map(|most| config(most).activated()), [4, 2, 4]);
    }
}

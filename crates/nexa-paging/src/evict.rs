//! How much an active page is worth keeping.
//!
//! `Hybrid` is a sum of five parts, each 0 to 1, as in J. Park et al., *Generative Agents* (2023); there recency has a weight of
//! 1 in what is retrieved, here it has one only in what stays. Deterministic and without a model; equals go by the last use
//! and then by id. A page on probation leaves before any other: so what a scan brings in drives out nothing that is used.

use nexa_types::PageId;

use crate::config::{EvictionPolicy, HybridWeights};
use crate::math::recency;
use crate::page::Turn;

/// The most that the counter of uses counts to.
pub(crate) const FREQUENCY_MAX: u8 = 15;

/// An active page that may leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The page.
    pub page: PageId,
    /// When it was last used.
    pub last: Turn,
    /// Turns since then.
    pub idle: u64,
    /// Uses, fading: 0 to 15.
    pub frequency: u8,
    /// How much it has to do with the last turns, 0 to 1.
    pub relevance: f32,
    /// What rules say of it: 0 to 15.
    pub importance: u8,
    /// Its tokens against those of the largest candidate, 0 to 1.
    pub size: f32,
    /// Whether it was brought in by a scan and has not been used since.
    pub is_on_probation: bool,
}

/// How much a page is worth keeping, compared with others under the same policy.
#[must_use]
pub fn keep(policy: EvictionPolicy, weights: &HybridWeights, page: &Candidate) -> f64 {
    let of_fifteen = |count: u8| f64::from(count.min(FREQUENCY_MAX)) / f64::from(FREQUENCY_MAX);
    match policy {
        EvictionPolicy::Lru => -(page.idle as f64),
        EvictionPolicy::Lfu => of_fifteen(page.frequency),
        EvictionPolicy::Relevance => f64::from(page.relevance),
        EvictionPolicy::Hybrid => {
            weights.relevance * f64::from(page.relevance)
                + weights.recency * recency(page.idle)
                + weights.frequency * of_fifteen(page.frequency)
                + weights.importance * of_fifteen(page.importance)
                - weights.size * f64::from(page.size)
        }
    }
}

/// The candidates in the order in which they leave, each with what it was worth.
pub(crate) fn order(policy: EvictionPolicy, weights: &HybridWeights, all: Vec<Candidate>) -> Vec<(Candidate, f64)> {
    let mut all: Vec<(Candidate, f64)> = all.into_iter().map(|page| (page, keep(policy, weights, &page))).collect();
    all.sort_by(|(x, worth_x), (y, worth_y)| {
        let probation = y.is_on_probation.cmp(&x.is_on_probation);
        probation.then(worth_x.total_cmp(worth_y)).then(x.last.cmp(&y.last)).then(x.page.cmp(&y.page))
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u8) -> Candidate {
        Candidate {
            page: PageId::from_bytes([number; 16]),
            last: Turn(100 - u64::from(number)),
            idle: u64::from(number),
            frequency: 0,
            relevance: 0.0,
            importance: 0,
            size: 0.0,
            is_on_probation: false,
        }
    }

    fn leaves(policy: EvictionPolicy, pages: &[Candidate]) -> Vec<u8> {
        let order = order(policy, &HybridWeights::default(), pages.to_vec());
        order.iter().map(|(candidate, _)| candidate.page.as_bytes()[0]).collect()
    }

    #[test]
    fn each_policy_lets_go_what_it_is_named_for() {
        let pages = [
            Candidate { relevance: 0.9, frequency: 3, ..page(9) },
            Candidate { relevance: 0.5, frequency: 0, ..page(1) },
            Candidate { relevance: 0.1, frequency: 9, ..page(4) },
        ];
        assert_eq!(leaves(EvictionPolicy::Lru, &pages), [9, 4, 1]);
        assert_eq!(leaves(EvictionPolicy::Lfu, &pages), [1, 9, 4]);
        assert_eq!(leaves(EvictionPolicy::Relevance, &pages), [4, 1, 9]);
        assert_eq!(leaves(EvictionPolicy::Hybrid, &pages), [4, 1, 9]);
    }

    #[test]
    fn each_part_of_the_sum_counts() {
        let base = Candidate { size: 0.5, ..page(20) };
        let weights = HybridWeights { size: 0.1, ..HybridWeights::default() };
        let worth = |page: Candidate| keep(EvictionPolicy::Hybrid, &weights, &page);
        assert!(worth(Candidate { relevance: 0.1, ..base }) > worth(base));
        assert!(worth(Candidate { idle: 19, ..base }) > worth(base));
        assert!(worth(Candidate { frequency: 1, ..base }) > worth(base));
        assert!(worth(Candidate { importance: 1, ..base }) > worth(base));
        assert!(worth(Candidate { size: 0.6, ..base }) < worth(base));
    }

    #[test]
    fn what_is_on_probation_leaves_first_and_equals_go_by_use_and_id() {
        let scanned = Candidate { is_on_probation: true, relevance: 1.0, ..page(0) };
        assert_eq!(leaves(EvictionPolicy::Hybrid, &[page(5), scanned, page(6)])[0], 0);
        let equal = |number| Candidate { idle: 7, last: Turn(7), ..page(number) };
        assert_eq!(leaves(EvictionPolicy::Hybrid, &[equal(3), equal(1), equal(2)]), [1, 2, 3]);
    }
}

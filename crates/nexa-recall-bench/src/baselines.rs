//! Replacement policies of the literature, beside which those of the pager are measured.
//!
//! In:  pages, one after the other, as they are used. Out: which of them are active.
//!
//! Each is as its paper defines it, with the numbers that the paper uses, and knows nothing of what a page says. So are the four:
//!
//! - [`Lru`], to compare: what is measured here and what is measured through the pager differ by more than the policy.
//! - [`Sieve`]: Y. Zhang et al., *SIEVE is Simpler than LRU: an Efficient Turn-Key Eviction Algorithm for Web Caches*, NSDI '24.
//! - [`S3Fifo`]: J. Yang et al., *FIFO Queues are All You Need for Cache Eviction*, SOSP '23.
//! - [`Arc`]: N. Megiddo, D. Modha, *ARC: A Self-Tuning, Low Overhead Replacement Cache*, FAST '03.
//!
//! Holds, here and in the tests: never more pages are active than may be, what is used is active afterwards, a hit lets nothing
//! go, and the same uses end in the same pages.
//!
//! Not here: speed. Each use looks through lists, of which the longest has a few hundred pages.

use std::collections::VecDeque;

use nexa_types::PageId;

/// A policy with the pages that it keeps.
pub(crate) trait Replacement {
    /// A page is used. Afterwards it is active.
    fn used(&mut self, page: PageId);

    /// The active pages, in no order.
    fn active(&self) -> Vec<PageId>;
}

/// Makes a policy that keeps so many pages.
pub(crate) type Make = fn(usize) -> Box<dyn Replacement>;

/// All of them, by name.
pub(crate) const BASELINES: [(&str, Make); 4] = [
    ("lru", |limit| Box::new(Lru::new(limit))),
    ("sieve", |limit| Box::new(Sieve::new(limit))),
    ("s3-fifo", |limit| Box::new(S3Fifo::new(limit))),
    ("arc", |limit| Box::new(Arc::new(limit))),
];

/// Takes a page out of a list; whether it was there.
fn take(list: &mut VecDeque<PageId>, page: PageId) -> bool {
    let place = list.iter().position(|other| *other == page);
    place.and_then(|place| list.remove(place)).is_some()
}

/// What was not used for the longest time leaves.
pub(crate) struct Lru {
    limit: usize,
    /// The longest unused first.
    pages: VecDeque<PageId>,
}

impl Lru {
    fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), pages: VecDeque::new() }
    }
}

impl Replacement for Lru {
    fn used(&mut self, page: PageId) {
        if !take(&mut self.pages, page) && self.pages.len() == self.limit {
            self.pages.pop_front();
        }
        self.pages.push_back(page);
    }

    fn active(&self) -> Vec<PageId> {
        self.pages.iter().copied().collect()
    }
}

/// Section 3.1 and algorithm 1: a queue in the order of coming, which a hit does not change, and a hand that goes from the oldest
/// to the newest. Whom it finds visited stays where it is and is visited no more; whom it finds not visited leaves.
pub(crate) struct Sieve {
    limit: usize,
    /// The oldest first, and whether each was visited since the hand was there.
    queue: Vec<(PageId, bool)>,
    /// Where the hand goes on; the oldest, if it has passed the newest.
    hand: usize,
}

impl Sieve {
    fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), queue: Vec::new(), hand: 0 }
    }

    fn evict(&mut self) {
        while std::mem::take(&mut self.queue[self.hand].1) {
            self.hand = (self.hand + 1) % self.queue.len();
        }
        self.queue.remove(self.hand);
        // The next newer one is here now. Beyond the newest is the oldest, also when a newer one has come meanwhile.
        if self.hand == self.queue.len() {
            self.hand = 0;
        }
    }
}

impl Replacement for Sieve {
    fn used(&mut self, page: PageId) {
        if let Some((_, is_visited)) = self.queue.iter_mut().find(|(other, _)| *other == page) {
            *is_visited = true;
            return;
        }
        if self.queue.len() == self.limit {
            self.evict();
        }
        self.queue.push((page, false));
    }

    fn active(&self) -> Vec<PageId> {
        self.queue.iter().map(|(page, _)| *page).collect()
    }
}

/// Section 4.1 and algorithm 1: a small queue, into which what is new comes, a main queue for what was used more than once there,
/// and the ids of what left the small one. Who comes back while its id is there goes into the main queue at once.
pub(crate) struct S3Fifo {
    small_max: usize,
    main_max: usize,
    /// The oldest first, with the uses since it came.
    small: VecDeque<(PageId, u8)>,
    main: VecDeque<(PageId, u8)>,
    ghosts: VecDeque<PageId>,
}

impl S3Fifo {
    /// Of so many pages one is for the small queue.
    const SMALL_SHARE: usize = 10;
    /// Uses are counted up to here.
    const USES_MAX: u8 = 3;
    /// With more uses than this a page goes from the small queue to the main one.
    const USES_STAYED: u8 = 1;

    fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        let small_max = limit.div_ceil(Self::SMALL_SHARE);
        let (small, main, ghosts) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { small_max, main_max: limit - small_max, small, main, ghosts }
    }

    fn evict(&mut self) {
        if self.small.len() >= self.small_max { self.evict_small() } else { self.evict_main() }
    }

    fn evict_small(&mut self) {
        while let Some((page, uses)) = self.small.pop_front() {
            if uses <= Self::USES_STAYED {
                self.ghosts.push_back(page);
                // As many as the main queue has pages.
                if self.ghosts.len() > self.main_max {
                    self.ghosts.pop_front();
                }
                return;
            }
            // Its count begins anew.
            self.main.push_back((page, 0));
            if self.main.len() > self.main_max {
                self.evict_main();
            }
        }
    }

    fn evict_main(&mut self) {
        while let Some((page, uses)) = self.main.pop_front() {
            if uses == 0 {
                return;
            }
            self.main.push_back((page, uses - 1));
        }
    }
}

impl Replacement for S3Fifo {
    fn used(&mut self, page: PageId) {
        let mut all = self.small.iter_mut().chain(&mut self.main);
        if let Some((_, uses)) = all.find(|(other, _)| *other == page) {
            *uses = (*uses + 1).min(Self::USES_MAX);
            return;
        }
        while self.small.len() + self.main.len() >= self.small_max + self.main_max {
            self.evict();
        }
        let queue = if take(&mut self.ghosts, page) { &mut self.main } else { &mut self.small };
        queue.push_back((page, 0));
    }

    fn active(&self) -> Vec<PageId> {
        self.small.iter().chain(&self.main).map(|(page, _)| *page).collect()
    }
}

/// Section 3 and figure 4: what was used once lately and what was used more often are two lists, each with the ids of what left
/// it. Who comes back from the ids of one list shows that it was too short, and `once_aim` moves towards it.
pub(crate) struct Arc {
    limit: usize,
    /// How many of those used once are meant to be active; the paper's p.
    once_aim: f64,
    /// T1 and T2, the longest unused first.
    once: VecDeque<PageId>,
    often: VecDeque<PageId>,
    /// B1 and B2, the ids of what left them.
    once_ghosts: VecDeque<PageId>,
    often_ghosts: VecDeque<PageId>,
}

impl Arc {
    fn new(limit: usize) -> Self {
        let empty = VecDeque::new;
        let (once, often, once_ghosts, often_ghosts) = (empty(), empty(), empty(), empty());
        Self { limit: limit.max(1), once_aim: 0.0, once, often, once_ghosts, often_ghosts }
    }

    /// The subroutine REPLACE: one active page becomes an id.
    fn replace(&mut self, was_often: bool) {
        let once = self.once.len() as f64;
        let is_once_full = once > self.once_aim || (was_often && once == self.once_aim);
        let (from, to) = if is_once_full && !self.once.is_empty() {
            (&mut self.once, &mut self.once_ghosts)
        } else {
            (&mut self.often, &mut self.often_ghosts)
        };
        to.extend(from.pop_front());
    }

    /// Case IV: a page of which nothing is known.
    fn make_room(&mut self) {
        let seen_once = self.once.len() + self.once_ghosts.len();
        let all = seen_once + self.often.len() + self.often_ghosts.len();
        if seen_once == self.limit {
            if self.once.len() < self.limit {
                self.once_ghosts.pop_front();
                self.replace(false);
            } else {
                self.once.pop_front();
            }
        } else if all >= self.limit {
            if all == 2 * self.limit {
                self.often_ghosts.pop_front();
            }
            self.replace(false);
        }
    }
}

impl Replacement for Arc {
    fn used(&mut self, page: PageId) {
        let [once_ghosts, often_ghosts] = [&self.once_ghosts, &self.often_ghosts].map(|ids| ids.len() as f64);
        if take(&mut self.once, page) || take(&mut self.often, page) {
            self.often.push_back(page);
        } else if self.once_ghosts.contains(&page) {
            self.once_aim = (self.once_aim + (often_ghosts / once_ghosts).max(1.0)).min(self.limit as f64);
            self.replace(false);
            take(&mut self.once_ghosts, page);
            self.often.push_back(page);
        } else if self.often_ghosts.contains(&page) {
            self.once_aim = (self.once_aim - (once_ghosts / often_ghosts).max(1.0)).max(0.0);
            self.replace(true);
            take(&mut self.often_ghosts, page);
            self.often.push_back(page);
        } else {
            self.make_room();
            self.once.push_back(page);
        }
    }

    fn active(&self) -> Vec<PageId> {
        self.once.iter().chain(&self.often).copied().collect()
    }
}

#[cfg(test)]
#[path = "baselines_tests.rs"]
mod tests;

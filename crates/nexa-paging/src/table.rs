//! The page table of one agent: which pages there are, which are active, and how they were used.
//!
//! In:  a page that was sealed; pages that are wanted; pins.
//! Out: a [`Turnover`]: what comes and what leaves, and why. It is decided first and carried out afterwards, when the pages
//!      that come have been read; in between nothing may have changed.
//!
//! What stays whatever comes: pinned pages, pages that are wanted at this moment, pages whose messages are not recorded in the
//! log yet, and the newest two. One active page is never pinned, so a further page always finds a place, or is recorded and
//! needs none.
//!
//! Uses are counted up to 15 and halved from time to time, so that old fame fades. A page that leaves is a *ghost* for a while:
//! it keeps its count, and one that comes back as a ghost counts more, since letting it go was a mistake. Recency is counted in
//! turns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use minicbor::{Decode, Encode};
use nexa_types::{PageId, Version};

use crate::config::{EvictionPolicy, HybridWeights, PagingConfig};
use crate::error::PagingError;
use crate::evict::{Candidate, FREQUENCY_MAX, order};
use crate::page::{Accessed, Turn};
use crate::turnover::{Access, Leave, LeaveReason, Load, Turnover};

/// Pages that have left and are remembered as having been active, for each page that may be active.
pub const GHOSTS_PER_ACTIVE: usize = 2;
/// The newest pages, which stay where at least one other can leave.
pub const NEWEST_KEPT: usize = 2;
/// Uses after which all counts are halved, for each page that may be active.
const HALVING_PER_ACTIVE: u64 = 16;
/// What a ghost that comes back counts.
const GHOST_USES: u8 = 2;

/// Where a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Residency {
    /// In the store only.
    #[n(0)]
    Stored,
    /// In memory.
    #[n(1)]
    Active,
    /// In memory, brought in by a scan and not used since.
    #[n(2)]
    Probation,
}

/// What the table knows of a page.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct PageEntry {
    /// Where the log has its first message.
    #[n(0)]
    pub first: Version,
    /// Where the log has its last message.
    #[n(1)]
    pub last: Version,
    /// How many messages it has.
    #[n(2)]
    pub messages: u32,
    /// Tokens of all of them.
    #[n(3)]
    pub tokens: u32,
    /// What rules say of it: 0 to 15.
    #[n(4)]
    pub importance: u8,
    /// Whether the conversation breaks after it.
    #[n(5)]
    pub ends_conversation: bool,
    /// Where it is.
    #[n(6)]
    pub residency: Residency,
    /// Whether it stays until it is unpinned.
    #[n(7)]
    pub is_pinned: bool,
    /// When it was last used, or came.
    #[n(8)]
    pub last_accessed: Accessed,
    /// How often it was used.
    #[n(9)]
    pub access_count: u64,
    /// Uses, fading: 0 to 15.
    #[n(10)]
    pub frequency: u8,
    /// How much it had to do with the last turns when that was last asked.
    #[n(11)]
    pub relevance: f32,
}

impl PageEntry {
    /// Whether it is in memory.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.residency != Residency::Stored
    }
}

/// The pages of one agent.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
#[cbor(map)]
pub struct PageTable {
    #[n(0)]
    pages: BTreeMap<PageId, PageEntry>,
    /// Ids in the order of the log.
    #[n(1)]
    order: Vec<PageId>,
    #[n(2)]
    ghosts: VecDeque<PageId>,
    #[n(3)]
    turn: Turn,
    /// Uses since counts were halved.
    #[n(4)]
    uses: u64,
    /// The log has recorded messages up to here.
    #[n(5)]
    recorded: Version,
    /// Grows whenever a page comes, leaves, or is pinned.
    #[n(6)]
    changes: u64,
}

/// How worth is judged.
pub(crate) struct Judge {
    pub policy: EvictionPolicy,
    pub weights: HybridWeights,
    /// How much active pages have to do with the last turns.
    pub relevance: BTreeMap<PageId, f32>,
}

impl PageTable {
    /// What is known of a page.
    #[must_use]
    pub fn get(&self, page: PageId) -> Option<&PageEntry> {
        self.pages.get(&page)
    }

    /// All pages in the order of the log.
    pub fn pages(&self) -> impl Iterator<Item = (PageId, &PageEntry)> {
        self.order.iter().filter_map(|page| Some((*page, self.pages.get(page)?)))
    }

    /// The active pages, in the order of their ids.
    pub fn active(&self) -> impl Iterator<Item = (PageId, &PageEntry)> {
        self.pages.iter().filter(|(_, entry)| entry.is_active()).map(|(page, entry)| (*page, entry))
    }

    /// Pages that were active and have left, the latest last.
    pub fn ghosts(&self) -> impl ExactSizeIterator<Item = PageId> {
        self.ghosts.iter().copied()
    }

    /// How many pages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The present turn.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// Up to where the log has recorded messages.
    #[must_use]
    pub fn recorded(&self) -> Version {
        self.recorded
    }

    pub(crate) fn next_turn(&mut self) {
        self.turn = Turn(self.turn.0 + 1);
    }

    /// The log has recorded messages up to here. Never goes back.
    pub(crate) fn record(&mut self, upto: Version) {
        self.recorded = self.recorded.max(upto);
    }

    fn active_count(&self) -> usize {
        self.active().count()
    }

    /// Pins a page, which then stays where it is, or unpins it. A stored page that is pinned stays once it has come.
    ///
    /// # Errors
    /// [`PagingError::NoPage`], and [`PagingError::TooManyPins`] if no active page would be left without one.
    pub(crate) fn pin(&mut self, page: PageId, is_pinned: bool, config: &PagingConfig) -> Result<(), PagingError> {
        let pinned = self.pages.values().filter(|entry| entry.is_pinned).count();
        let entry = self.pages.get_mut(&page).ok_or(PagingError::NoPage { page })?;
        if is_pinned && !entry.is_pinned && pinned + 1 >= config.max_active_pages {
            return Err(PagingError::TooManyPins { pinned });
        }
        self.changes += u64::from(entry.is_pinned != is_pinned);
        entry.is_pinned = is_pinned;
        Ok(())
    }

    /// Decides what wanted pages do: those that are active are hits, others come as far as there is room. `wanted` has the
    /// best first, each once.
    pub(crate) fn turnover(&self, wanted: &[PageId], access: Access, judge: &Judge, config: &PagingConfig) -> Turnover {
        let mut turnover = Turnover { access, base: self.changes, ..Turnover::default() };
        let mut missing = Vec::new();
        for page in wanted {
            match self.pages.get(page) {
                Some(entry) if entry.is_active() => turnover.hits.push(*page),
                Some(_) => missing.push(*page),
                None => {}
            }
        }
        let newest_kept = NEWEST_KEPT.min(config.max_active_pages - 1);
        let newest = &self.order[self.order.len().saturating_sub(newest_kept)..];
        let stays = |page: &PageId| wanted.contains(page) || newest.contains(page);
        let victims = self.victims(stays, judge);
        let room = config.max_active_pages.saturating_sub(self.active_count());
        let coming = missing.len().min(room + victims.len());
        turnover.passing = missing.split_off(coming);
        let load = |page| Load { page, was_ghost: self.ghosts.contains(&page) };
        turnover.loads = missing.into_iter().map(load).collect();
        turnover.leaves = victims.into_iter().take(coming.saturating_sub(room)).collect();
        turnover
    }

    /// Active pages that may leave, the least worth first.
    fn victims(&self, stays: impl Fn(&PageId) -> bool, judge: &Judge) -> Vec<Leave> {
        let may_leave = |page: &PageId, entry: &PageEntry| {
            entry.is_active() && !entry.is_pinned && entry.last <= self.recorded && !stays(page)
        };
        let pages = || self.pages.iter().filter(|(page, entry)| may_leave(page, entry));
        let largest = pages().map(|(_, entry)| entry.tokens).max().unwrap_or(0).max(1);
        let candidates = pages().map(|(page, entry)| Candidate {
            page: *page,
            last: entry.last_accessed.turn,
            idle: self.turn.since(entry.last_accessed.turn),
            frequency: entry.frequency,
            relevance: judge.relevance.get(page).copied().unwrap_or(0.0),
            importance: entry.importance,
            size: (f64::from(entry.tokens) / f64::from(largest)) as f32,
            is_on_probation: entry.residency == Residency::Probation,
        });
        let leave = |(candidate, worth): (Candidate, f64)| Leave {
            page: candidate.page,
            why: if candidate.is_on_probation { LeaveReason::Probation } else { LeaveReason::LeastWorth },
            worth,
        };
        order(judge.policy, &judge.weights, candidates.collect()).into_iter().map(leave).collect()
    }

    /// Carries out what was decided, as far as the pages that come could be read. For one that could not, none leaves. Gives
    /// the pages that left indeed.
    ///
    /// # Errors
    /// [`PagingError::Stale`] if pages came or left in between.
    pub(crate) fn carry_out(
        &mut self,
        turnover: &Turnover,
        read: &BTreeSet<PageId>,
        judge: &Judge,
        now: Accessed,
        config: &PagingConfig,
    ) -> Result<Vec<Leave>, PagingError> {
        if turnover.base != self.changes {
            return Err(PagingError::Stale);
        }
        for (page, relevance) in &judge.relevance {
            if let Some(entry) = self.pages.get_mut(page) {
                entry.relevance = *relevance;
            }
        }
        let is_scan = turnover.access == Access::Scan;
        // A scan asks for everything, which says nothing about any page.
        for page in turnover.hits.iter().filter(|_| !is_scan) {
            self.used(*page, now, 1);
            if let Some(entry) = self.pages.get_mut(page) {
                entry.residency = Residency::Active;
            }
        }
        let room = config.max_active_pages.saturating_sub(self.active_count());
        let loads: Vec<&Load> = turnover.loads.iter().filter(|load| read.contains(&load.page)).collect();
        let leaving = &turnover.leaves[..loads.len().saturating_sub(room).min(turnover.leaves.len())];
        leaving.iter().for_each(|leave| self.leave(leave.page, config));
        for load in loads {
            self.ghosts.retain(|ghost| *ghost != load.page);
            self.used(
                load.page,
                now,
                if is_scan {
                    0
                } else if load.was_ghost {
                    GHOST_USES
                } else {
                    1
                },
            );
            if let Some(entry) = self.pages.get_mut(&load.page) {
                entry.residency = if is_scan { Residency::Probation } else { Residency::Active };
            }
            self.changes += 1;
        }
        self.fade(config);
        Ok(leaving.to_vec())
    }

    /// Whether a page can be sealed whose last message is at `last`: whether there is room, somebody can leave, or the page
    /// itself need not stay.
    pub(crate) fn can_seal(&self, last: Version, config: &PagingConfig) -> bool {
        let may_leave = |entry: &PageEntry| entry.is_active() && !entry.is_pinned && entry.last <= self.recorded;
        last <= self.recorded || self.active_count() < config.max_active_pages || self.pages.values().any(may_leave)
    }

    /// Takes a page that was just sealed, as the newest. Gives what leaves for it.
    pub(crate) fn seal(&mut self, page: PageId, entry: PageEntry, judge: &Judge, config: &PagingConfig) -> Vec<Leave> {
        self.pages.insert(page, entry);
        self.order.push(page);
        self.changes += 1;
        self.shrink(LeaveReason::NoRoom, judge, config)
    }

    /// Lets pages go until there are no more than may be. Of the newest, one goes only if nothing else can.
    pub(crate) fn shrink(&mut self, why: LeaveReason, judge: &Judge, config: &PagingConfig) -> Vec<Leave> {
        let excess = self.active_count().saturating_sub(config.max_active_pages);
        if excess == 0 {
            return Vec::new();
        }
        let newest: Vec<PageId> = self.order.iter().rev().take(NEWEST_KEPT).copied().collect();
        let mut leaving = self.victims(|page| newest.contains(page), judge);
        let last_ones = self.victims(|page| !newest.contains(page), judge);
        // The older of the newest before the newest of all.
        leaving.extend(newest.iter().rev().filter_map(|page| last_ones.iter().find(|leave| leave.page == *page)));
        leaving.truncate(excess);
        for leave in &mut leaving {
            if why == LeaveReason::SmallerLimit || newest.first() == Some(&leave.page) {
                leave.why = why;
            }
            self.leave(leave.page, config);
        }
        leaving
    }

    fn leave(&mut self, page: PageId, config: &PagingConfig) {
        if let Some(entry) = self.pages.get_mut(&page) {
            entry.residency = Residency::Stored;
        }
        self.changes += 1;
        self.ghosts.push_back(page);
        while self.ghosts.len() > GHOSTS_PER_ACTIVE * config.max_active_pages {
            // Forgotten: if it comes back, it counts from the beginning.
            let forgotten = self.ghosts.pop_front();
            if let Some(entry) = forgotten.and_then(|page| self.pages.get_mut(&page)) {
                entry.frequency = 0;
            }
        }
    }

    /// Unpins the oldest pages until there is an active page without a pin.
    pub(crate) fn limit_pins(&mut self, config: &PagingConfig) {
        let pinned: Vec<PageId> = self.pages().filter(|(_, entry)| entry.is_pinned).map(|(page, _)| page).collect();
        let excess = (pinned.len() + 1).saturating_sub(config.max_active_pages);
        for page in pinned.iter().take(excess) {
            if let Some(entry) = self.pages.get_mut(page) {
                entry.is_pinned = false;
            }
        }
    }

    /// The conversation breaks after the last page.
    pub(crate) fn end_conversation(&mut self) {
        let last = self.order.last().and_then(|page| self.pages.get_mut(page));
        last.into_iter().for_each(|entry| entry.ends_conversation = true);
    }

    fn used(&mut self, page: PageId, now: Accessed, uses: u8) {
        if let Some(entry) = self.pages.get_mut(&page) {
            entry.last_accessed = now;
            entry.access_count = entry.access_count.saturating_add(1);
            entry.frequency = entry.frequency.saturating_add(uses).min(FREQUENCY_MAX);
            self.uses += 1;
        }
    }

    fn fade(&mut self, config: &PagingConfig) {
        if self.uses >= HALVING_PER_ACTIVE * config.max_active_pages as u64 {
            self.pages.values_mut().for_each(|entry| entry.frequency /= 2);
            self.uses = 0;
        }
    }

    /// Whether it says one thing: what the rest of the code takes for granted of a table.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let in_order: Option<Vec<&PageEntry>> = self.order.iter().map(|page| self.pages.get(page)).collect();
        let Some(in_order) = in_order else { return Some("a page is listed and not described") };
        let distinct: BTreeSet<&PageId> = self.order.iter().collect();
        if distinct.len() != self.order.len() || self.pages.len() != self.order.len() {
            return Some("pages are listed twice or not at all");
        }
        if in_order.iter().any(|entry| entry.first > entry.last || entry.messages == 0)
            || in_order.windows(2).any(|two| two[0].last >= two[1].first)
        {
            return Some("pages overlap");
        }
        let is_no_ghost = |page| self.pages.get(page).is_none_or(PageEntry::is_active);
        self.ghosts.iter().any(is_no_ghost).then_some("an active page is among those that have left")
    }
}

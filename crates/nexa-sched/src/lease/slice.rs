//! One slice as its leader knows it: what is recorded, what its holder was told, and what it wants.
//!
//! A slice has at most one write under way. Whatever its holder was told is recorded (`told` fits `recorded`, and its pace
//! the recorded pace), and while a smaller size is being written, nothing larger is told.

use nexa_types::planted::{Bug, planted};
use nexa_types::{Millis, Timestamp};

use super::share::Claim;
use super::sizes::{Meter, NO_LIMIT, Sizes};
use super::usage::WINDOW;
use super::{Pause, ProviderReport};

/// A holder that wants less than before is taken at its word when it has wanted no more for so long.
const FADING: Millis = Millis(30_000);
/// What a holder keeps less is recorded when it is one of so many parts, or all that it was to give back.
const FREED_PART_OF: u64 = 16;
/// What can still count of a lost holder is recorded in so many parts of it: one a second, about.
const SPREAD_PART_OF: u64 = 64;
/// What a pace is of.
const MINUTE: Millis = Millis(60_000);
/// A slice grows by a part of what it should only if that is one of so many parts of it, and at all if it is off by more
/// than one of [`OFF_PART_OF`].
const GROWTH_PART_OF: u64 = 16;
const OFF_PART_OF: u64 = 64;
/// While nobody lacks anything, a slice shrinks if more than one of so many parts is not wanted.
const SPARE_PART_OF: u64 = 4;
/// A change of a slice by no more than one of so many parts, or so few units, waits until the last change is [`STEADY`]
/// old.
const SMALL_PART_OF: u64 = 8;
const SMALL: u64 = 2;
const STEADY: Millis = Millis(30_000);
/// What was not confirmed is said again after this.
const SAID_AGAIN: Millis = Millis(2_000);

/// Numbers writes, notices and pauses: one count for a whole leader, so that a slice that went and came again goes on
/// with newer versions.
#[derive(Debug, Default)]
pub(super) struct Count(u64);

impl Count {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) version: u64,
    pub(super) size: Sizes,
    pub(super) pace: u64,
    /// What the holder is told when the store has it: its slice and its pace.
    then: Option<(Sizes, u64)>,
}

/// What a slice should become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    /// What it should be now, if it could be had.
    pub(super) size: Sizes,
    /// Requests a minute that are its share of the whole budget, also of what lost holders still have and of what nobody wants.
    pub(super) pace: u64,
    /// What the paces leave that others go by now.
    pub(super) pace_left: u64,
    /// Whether somebody waits for a quicker pace until others have slowed down.
    pub(super) slows_others: bool,
    /// Whether something of lost holders comes back, bit by bit.
    pub(super) comes_back: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Slice {
    /// What the store has for certain, or had more than.
    recorded: Sizes,
    /// The pace that the store has: no slower than any of the holder within the last minute.
    pace: u64,
    writing: Option<Write>,
    /// The newest notice; none by this leader if 0.
    version: u64,
    told: Sizes,
    told_pace: u64,
    /// Since when the holder is known to go no faster than this, if that is slower than what is recorded.
    slower: Option<(Timestamp, u64)>,
    /// When that was decided, and when it was last said.
    told_at: Timestamp,
    said_at: Timestamp,
    /// Left by the last leader, and nothing was heard of its holder since.
    is_unheard: bool,
    /// The requests that were recorded when the holder was gone.
    last: Option<u64>,
    confirmed: u64,
    /// The number of the holder's own newest pause that was heard of.
    pause_taken: u64,
    /// The number of the leader's newest pause that the holder has heard of.
    pause_heard: u64,
    wanted: Sizes,
    wanted_at: [Timestamp; 4],
    least: Sizes,
    weight: u64,
}

impl Slice {
    /// One that the last leader has left. It is taken to want what it has until something is heard of it.
    pub(super) fn found((recorded, pace): (Sizes, u64), now: Timestamp) -> Self {
        Self {
            recorded,
            pace,
            told: recorded,
            told_pace: pace,
            wanted: recorded,
            wanted_at: [now; 4],
            weight: 1,
            is_unheard: true,
            ..Self::default()
        }
    }

    /// The most that it may take of the budget.
    pub(super) fn outstanding(&self) -> Sizes {
        self.writing.map_or(self.recorded, |write| self.recorded.max(&write.size))
    }

    /// The quickest pace that its holder may go by now.
    pub(super) fn current_pace(&self) -> u64 {
        let known = self.slower.map_or(self.pace, |(_, slower)| slower);
        self.writing.and_then(|write| write.then).map_or(known, |(_, pace)| known.max(pace))
    }

    /// The quickest pace that it may have, or have had within the last minute.
    pub(super) fn outstanding_pace(&self) -> u64 {
        self.writing.map_or(self.pace, |write| self.pace.max(write.pace))
    }

    pub(super) fn writing(&self) -> Option<Write> {
        self.writing
    }

    pub(super) fn is_unheard(&self) -> bool {
        self.is_unheard
    }

    pub(super) fn is_gone(&self) -> bool {
        self.recorded.is_none() && self.writing.is_none()
    }

    /// Whether the holder must be told once more, because it is not known to go by the newest notice, or to have heard of
    /// this pause. One that was never told is told when its slice is first decided.
    pub(super) fn is_owed(&self, pause: Option<Pause>, now: Timestamp) -> bool {
        let is_unheard = pause.is_some_and(|pause| pause.number > self.pause_heard);
        self.version > 0 && (self.confirmed < self.version || is_unheard) && now.since(self.said_at) >= SAID_AGAIN
    }

    /// What the holder is told now: its slice and its pace.
    pub(super) fn say(&mut self, now: Timestamp) -> (u64, Sizes, u64) {
        self.said_at = now;
        (self.version, self.told, self.told_pace)
    }

    fn write(&mut self, size: Sizes, pace: u64, then: Option<(Sizes, u64)>, count: &mut Count) {
        self.writing = Some(Write { version: count.next(), size, pace, then });
    }

    fn decide(&mut self, version: u64, (size, pace): (Sizes, u64), now: Timestamp) {
        (self.version, self.told, self.told_pace, self.told_at) = (version, size, pace, now);
        self.slower =
            self.slower.map(|(since, slower)| (since, slower.max(pace))).filter(|(_, slower)| *slower < self.pace);
    }

    /// The store has it. Gives whether the holder is to be told something new.
    pub(super) fn recorded(&mut self, version: u64, now: Timestamp) -> bool {
        let Some(write) = self.writing.take_if(|write| write.version == version) else { return false };
        (self.recorded, self.pace) = (write.size, write.pace);
        if let Some(told) = write.then {
            self.decide(version, told, now);
        }
        write.then.is_some()
    }

    /// The holder is gone: this much of it can still count somewhere.
    pub(super) fn vanishes_to(&mut self, size: Sizes, count: &mut Count) {
        if self.writing.is_none() && size != self.recorded {
            self.write(size, self.pace, None, count);
        }
    }

    /// How many requests of a holder that is gone can still count, if so much time has `passed` since it can have begun the
    /// last one: those that its pace gave in the rest of the window, and no more than its slice.
    pub(super) fn spread(&mut self, passed: Millis) -> u64 {
        let last = self.last.unwrap_or(0).max(self.outstanding().of(Meter::Requests));
        self.last = Some(last);
        let pace = self.outstanding_pace();
        if pace == NO_LIMIT || last == NO_LIMIT {
            return last;
        }
        let left = (u128::from(WINDOW.0.saturating_sub(passed.0)) * u128::from(pace)).div_ceil(u128::from(MINUTE.0));
        // Not each of them is worth a write.
        let part = (last / SPREAD_PART_OF).max(1);
        u64::try_from(left).unwrap_or(last).div_ceil(part).saturating_mul(part).min(last)
    }

    /// Records a slower pace when nothing counts any more that was begun at the quicker one. Lanes may be `ahead`.
    pub(super) fn slows_down(&mut self, ahead: Millis, now: Timestamp, count: &mut Count) {
        if self.writing.is_none()
            && let Some((since, pace)) = self.slower
            && now.since(since) >= WINDOW + ahead
            && self.pace - pace > self.pace / FREED_PART_OF
        {
            self.slower = None;
            self.write(self.recorded, pace, None, count);
        }
    }

    /// Takes what its holder says. Gives the pause that the holder was told of, if it is news.
    pub(super) fn hear(
        &mut self,
        report: &ProviderReport,
        is_mine: bool,
        now: Timestamp,
        count: &mut Count,
    ) -> Option<Pause> {
        for (at, meter) in Meter::ALL.into_iter().enumerate() {
            let (wanted, before) = (report.wanted.of(meter), self.wanted.of(meter));
            if wanted >= before || now.since(self.wanted_at[at]) >= FADING {
                self.wanted.set(meter, wanted);
                self.wanted_at[at] = now;
            }
        }
        (self.least, self.weight, self.is_unheard) = (report.least, report.weight, false);
        if is_mine {
            self.pause_heard = self.pause_heard.max(report.pause_heard);
            if report.version == self.version && self.version > 0 {
                self.confirmed = self.version;
                if self.told_pace < self.pace {
                    self.slower.get_or_insert((now, self.told_pace));
                }
                self.keeps(&report.kept, count);
            }
        }
        let pause = report.pause.filter(|pause| pause.number > self.pause_taken)?;
        self.pause_taken = pause.number;
        Some(pause)
    }

    /// The holder keeps this under the newest notice, and will never again keep more.
    fn keeps(&mut self, kept: &Sizes, count: &mut Count) {
        if self.writing.is_some() {
            return;
        }
        let kept = kept.min(&self.recorded).max(&self.told);
        let much = Meter::ALL.into_iter().any(|meter| {
            let (before, after) = (self.recorded.of(meter), kept.of(meter));
            before - after > before / FREED_PART_OF
        });
        if kept != self.recorded && (much || kept == self.told) {
            self.write(kept, self.pace, None, count);
        }
    }

    /// What it wants, or that it is idle.
    pub(super) fn claim(&self, is_heard: bool) -> Claim {
        let wanted = if is_heard { self.wanted } else { Sizes::NONE };
        Claim { weight: self.weight.max(1), wanted, least: self.least }
    }

    /// Whether it lacks something that matters.
    pub(super) fn is_short(&self, target: &Sizes, meter: Meter) -> bool {
        let (target, have) = (target.of(meter), self.outstanding().of(meter));
        target > have && target - have > target / OFF_PART_OF
    }

    /// Moves towards its goal: down where it must, up by what is in the pool. Gives whether the holder is to be told
    /// something new; a growth, of the slice or of its pace, is written first.
    pub(super) fn turn_to(
        &mut self,
        goal: &Goal,
        pool: &mut Sizes,
        is_contested: impl Fn(Meter) -> bool,
        now: Timestamp,
        count: &mut Count,
    ) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let next = Sizes::by(|meter| self.next(goal, pool, is_contested(meter), meter));
        let requests = next.of(Meter::Requests);
        // The others may still go by what they were told before.
        let most = self.told_pace.max(goal.pace_left);
        let pace = if planted(Bug::PaceNotAwaited) { goal.pace } else { goal.pace.min(most) };
        let is_small = Meter::ALL.into_iter().all(|meter| {
            let (told, next) = (self.told.of(meter), next.of(meter));
            // From nothing to something is never small.
            told >= self.least.of(meter).max(next.min(1)) && !differs(told, next)
        });
        // What comes back bit by bit is not held up.
        let is_quicker = pace > self.told_pace && differs(self.told_pace, pace);
        let returns = goal.comes_back && (requests > self.told.of(Meter::Requests) || is_quicker);
        let is_in_the_way = goal.slows_others && pace < self.told_pace;
        let is_steady = is_small && !is_in_the_way && (goal.comes_back || !differs(self.told_pace, pace));
        if self.version > 0 && is_steady && !returns && now.since(self.told_at) < STEADY {
            return false;
        }
        let is_recorded = next.fits(&self.recorded) || planted(Bug::SliceToldEarly);
        if is_recorded && (pace <= self.pace || planted(Bug::PaceUnrecorded)) {
            let is_new = self.version == 0 || next != self.told || pace != self.told_pace;
            if is_new {
                self.decide(count.next(), (next, pace), now);
                if planted(Bug::ShrinkNotAwaited) {
                    self.write(next, self.pace, None, count);
                }
            }
            return is_new;
        }
        if !planted(Bug::PoolGivenTwice) {
            *pool = pool.minus(&next.minus(&self.recorded));
        }
        self.write(self.recorded.max(&next), self.pace.max(pace), Some((next, pace)), count);
        false
    }

    fn next(&self, goal: &Goal, pool: &Sizes, is_contested: bool, meter: Meter) -> u64 {
        let (told, target) = (self.told.of(meter), goal.size.of(meter));
        let comes_back = goal.comes_back && meter == Meter::Requests;
        if target < told {
            let must = is_contested || told - target > told / SPARE_PART_OF;
            return if must { target } else { told };
        }
        if !comes_back && target - told <= told / OFF_PART_OF && told >= self.least.of(meter) {
            return told;
        }
        let reached = self.recorded.of(meter).saturating_add(pool.of(meter)).min(target);
        let is_worth_it = reached == target || reached.saturating_sub(told) > target / GROWTH_PART_OF;
        if is_worth_it { reached } else { told }
    }
}

/// Whether a change is worth telling at once.
pub(super) fn differs(told: u64, next: u64) -> bool {
    told.abs_diff(next) > (told / SMALL_PART_OF).max(SMALL)
}

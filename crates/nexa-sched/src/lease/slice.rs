//! One slice as its leader knows it: what is recorded, what its holder was told, and what it wants.
//!
//! A slice has at most one write under way. Whatever its holder was told is recorded (`told` fits `recorded`), and while a
//! smaller size is being written, nothing larger is told.

use nexa_types::{Millis, Timestamp};

use super::share::Claim;
use super::sizes::{Meter, Sizes};
use super::{Pause, ProviderReport};

/// A holder that wants less than before is taken at its word when it has wanted no more for so long.
const FADING: Millis = Millis(30_000);
/// What a holder keeps less is recorded when it is one of so many parts, or all that it was to give back.
const FREED_PART_OF: u64 = 16;
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
    /// What the holder is told when the store has it.
    then: Option<Sizes>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Slice {
    /// What the store has for certain, or had more than.
    recorded: Sizes,
    writing: Option<Write>,
    /// The newest notice; none by this leader if 0.
    version: u64,
    told: Sizes,
    /// When that was decided, and when it was last said.
    told_at: Timestamp,
    said_at: Timestamp,
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
    pub(super) fn found(recorded: Sizes, now: Timestamp) -> Self {
        Self { recorded, told: recorded, wanted: recorded, wanted_at: [now; 4], weight: 1, ..Self::default() }
    }

    /// The most that it may take of the budget.
    pub(super) fn outstanding(&self) -> Sizes {
        self.writing.map_or(self.recorded, |write| self.recorded.max(&write.size))
    }

    pub(super) fn writing(&self) -> Option<Write> {
        self.writing
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

    /// What the holder is told now.
    pub(super) fn say(&mut self, now: Timestamp) -> (u64, Sizes) {
        self.said_at = now;
        (self.version, self.told)
    }

    fn write(&mut self, size: Sizes, then: Option<Sizes>, count: &mut Count) {
        self.writing = Some(Write { version: count.next(), size, then });
    }

    /// The store has it. Gives whether the holder is to be told something new.
    pub(super) fn recorded(&mut self, version: u64, now: Timestamp) -> bool {
        let Some(write) = self.writing.take_if(|write| write.version == version) else { return false };
        self.recorded = write.size;
        if let Some(size) = write.then {
            (self.version, self.told, self.told_at) = (version, size, now);
        }
        write.then.is_some()
    }

    /// The holder is gone: this much of it can still count somewhere.
    pub(super) fn vanishes_to(&mut self, size: Sizes, count: &mut Count) {
        if self.writing.is_none() && size != self.recorded {
            self.write(size, None, count);
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
        (self.least, self.weight) = (report.least, report.weight);
        if is_mine {
            self.pause_heard = self.pause_heard.max(report.pause_heard);
            if report.version == self.version && self.version > 0 {
                self.confirmed = self.version;
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
            self.write(kept, None, count);
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

    /// Moves towards its target: down where it must, up by what is in the pool. Gives whether the holder is to be told
    /// something new; a growth is written first.
    pub(super) fn turn_to(
        &mut self,
        target: &Sizes,
        pool: &mut Sizes,
        is_contested: impl Fn(Meter) -> bool,
        now: Timestamp,
        count: &mut Count,
    ) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let next = Sizes::by(|meter| self.next(target, pool, is_contested(meter), meter));
        let is_small = Meter::ALL.into_iter().all(|meter| {
            let (told, next) = (self.told.of(meter), next.of(meter));
            // From nothing to something is never small.
            let is_usable = told >= self.least.of(meter).max(next.min(1));
            is_usable && told.abs_diff(next) <= (told / SMALL_PART_OF).max(SMALL)
        });
        if self.version > 0 && is_small && now.since(self.told_at) < STEADY {
            return false;
        }
        if next.fits(&self.recorded) {
            let is_new = self.version == 0 || next != self.told;
            if is_new {
                (self.version, self.told, self.told_at) = (count.next(), next, now);
            }
            return is_new;
        }
        *pool = pool.minus(&next.minus(&self.recorded));
        self.write(self.recorded.max(&next), Some(next), count);
        false
    }

    fn next(&self, target: &Sizes, pool: &Sizes, is_contested: bool, meter: Meter) -> u64 {
        let (told, target) = (self.told.of(meter), target.of(meter));
        if target < told {
            let must = is_contested || told - target > told / SPARE_PART_OF;
            return if must { target } else { told };
        }
        if target - told <= told / OFF_PART_OF && told >= self.least.of(meter) {
            return told;
        }
        let reached = self.recorded.of(meter).saturating_add(pool.of(meter)).min(target);
        let is_worth_it = reached == target || reached.saturating_sub(told) > target / GROWTH_PART_OF;
        if is_worth_it { reached } else { told }
    }
}

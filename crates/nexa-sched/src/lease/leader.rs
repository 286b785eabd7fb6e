//! Splits the budgets of providers into slices, for as long as it holds its office.
//!
//! In:  who is there, what holders report, what the store says, budgets, and ticks, about one a second.
//! Out: slices to record and notices to send.
//!
//! On each tick, and for each provider: [`super::share`] says who should have how much; whoever has more is told of less,
//! if somebody lacks it; whoever has less gets it as far as the pool goes, which is the budget without all that is
//! outstanding. What was not answered or confirmed is said again. Everything else only takes notes, and passes on what
//! the store has recorded.
//!
//! A holder of which nothing was heard for [`SILENCE`] wants nothing; it keeps its slice until it says so or its lease ends.
//!
//! Providers: those of the budgets, [`super::PROVIDERS_MAX`], and older ones until nothing of them is outstanding.
//! Holders: [`HOLDERS_MAX`].

use std::collections::{BTreeMap, BTreeSet};

use nexa_types::planted::{Bug, planted};
use nexa_types::{Millis, Timestamp};

use super::share::{paces, shares};
use super::slice::{Count, Goal, Slice, Write, differs};
use super::usage::WINDOW;
use super::{
    Budgets, HOLDERS_MAX, HolderId, LeaderEpoch, Meter, NO_LIMIT, Notice, PAUSE_MAX, PROVIDERS_MAX, Pause, Report,
    Sizes, SliceRecord,
};

/// How long a holder may begin requests after membership has said that its lease has ended: it goes by what it has
/// recorded of late, and messages take their time.
pub const VANISHING: Millis = Millis(5_000);
/// See the header.
const SILENCE: Millis = Millis(10_000);
/// A new leader leaves slices as they are until it has heard of all who hold one, at most so long: before, it would weigh
/// those that it has heard of against others of which it knows nothing.
const GATHERING: Millis = Millis(3_000);
/// How long those who have a seat keep it while there are too few; see [`super::share`].
const TURN: Millis = Millis(60_000);

/// What can be set about slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderSettings {
    /// How long a request to a model goes on at most. So long the requests of a vanished holder count as in flight.
    pub request_max: Millis,
    /// How far holders may be ahead of their pace: in any time a holder begins no more requests than its pace gives in that
    /// and in this. `None` if it may begin those of a minute at once.
    pub ahead: Option<Millis>,
}

impl Default for LeaderSettings {
    fn default() -> Self {
        Self { request_max: Millis(120_000), ahead: None }
    }
}

/// What a leader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaderInput {
    /// All whose leases stand, read after whatever it was told before: after its election, and after a gap in what
    /// membership says. Slices of others are over.
    Members(BTreeSet<HolderId>),
    /// A holder has registered.
    Joined(HolderId),
    /// A holder's lease has ended; this generation never comes back. Told with the time at which that was seen, also if that
    /// was before the election.
    LeaseEnded(HolderId),
    /// From a holder.
    Report(Report),
    /// The store has this record of a slice.
    Recorded {
        /// Of which provider.
        provider: String,
        /// Whose.
        holder: HolderId,
        /// Which version of it.
        version: u64,
    },
    /// The store has refused a record, because another leader was elected.
    Refused,
    /// The budgets from now on.
    Budgets(Budgets),
    /// Time has passed.
    Tick,
}

/// What a leader wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaderOutput {
    /// To be recorded, and answered with [`LeaderInput::Recorded`] or [`LeaderInput::Refused`]. It is said again until then.
    Record(SliceRecord),
    /// To be sent to its holder.
    Notice(Notice),
}

/// An elected leader, from its election to its last word.
#[derive(Debug)]
pub struct Leader {
    epoch: LeaderEpoch,
    settings: LeaderSettings,
    budgets: Budgets,
    since: Timestamp,
    is_deposed: bool,
    count: Count,
    holders: BTreeMap<HolderId, Standing>,
    providers: BTreeMap<String, Provider>,
}

#[derive(Debug)]
struct Standing {
    /// The number of its newest report, and when that came.
    report: u64,
    heard: Timestamp,
    ended: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Provider {
    pause: u64,
    paused_until: Timestamp,
    slices: BTreeMap<HolderId, Slice>,
}

impl Leader {
    /// Was elected, with this epoch, and has then read these records.
    #[must_use]
    pub fn new(
        epoch: LeaderEpoch,
        settings: LeaderSettings,
        budgets: Budgets,
        records: &[SliceRecord],
        now: Timestamp,
    ) -> Self {
        let (count, holders, providers) = (Count::default(), BTreeMap::new(), BTreeMap::new());
        let mut leader = Self { epoch, settings, budgets, since: now, is_deposed: false, count, holders, providers };
        let counts = |record: &&SliceRecord| !record.size().is_none() && !planted(Bug::RecordsForgotten);
        for record in records.iter().filter(counts) {
            let provider = leader.providers.entry(record.provider.clone()).or_default();
            let before = provider.slices.get(&record.holder());
            let (size, pace) = before.map_or((Sizes::NONE, 0), |slice| (slice.outstanding(), slice.outstanding_pace()));
            let found = (size.max(&record.size()), pace.max(record.pace()));
            provider.slices.insert(record.holder(), Slice::found(found, now));
            leader.holders.insert(record.holder(), Standing { report: 0, heard: now, ended: None });
        }
        leader.provide();
        leader
    }

    /// Knows all providers that have a budget.
    fn provide(&mut self) {
        for name in self.budgets.providers() {
            if !self.providers.contains_key(name) {
                self.providers.insert(name.clone(), Provider::default());
            }
        }
    }

    /// Whether it has learned that it is no longer the leader. It says nothing any more.
    #[must_use]
    pub fn is_deposed(&self) -> bool {
        self.is_deposed
    }

    /// What all holders may use of a provider, together.
    #[must_use]
    pub fn outstanding(&self, provider: &str) -> Sizes {
        self.providers.get(provider).map_or(Sizes::NONE, Provider::outstanding)
    }

    /// Takes note of what happened, and says what is to be done.
    pub fn step(&mut self, input: LeaderInput, now: Timestamp) -> Vec<LeaderOutput> {
        let mut out = Vec::new();
        if self.is_deposed {
            return out;
        }
        match input {
            LeaderInput::Members(members) => {
                let gone: Vec<_> = self.holders.keys().filter(|id| !members.contains(*id)).cloned().collect();
                gone.iter().for_each(|id| self.end(id, now));
                members.into_iter().for_each(|id| self.join(id, now));
            }
            LeaderInput::Joined(id) => self.join(id, now),
            LeaderInput::LeaseEnded(id) => self.end(&id, now),
            LeaderInput::Report(report) => self.hear(report, now, &mut out),
            LeaderInput::Recorded { provider, holder, version } => {
                self.recorded(&provider, &holder, version, now, &mut out);
            }
            LeaderInput::Refused => self.is_deposed = true,
            LeaderInput::Budgets(budgets) => {
                self.budgets = budgets;
                self.provide();
            }
            LeaderInput::Tick => self.tick(now, &mut out),
        }
        out
    }

    fn join(&mut self, id: HolderId, now: Timestamp) {
        if self.holders.len() < HOLDERS_MAX {
            self.holders.entry(id).or_insert(Standing { report: 0, heard: now, ended: None });
        }
    }

    fn end(&mut self, id: &HolderId, now: Timestamp) {
        if let Some(standing) = self.holders.get_mut(id) {
            standing.ended.get_or_insert(now);
        }
    }

    fn hear(&mut self, report: Report, now: Timestamp, out: &mut Vec<LeaderOutput>) {
        let Report { holder, number, of } = report;
        let known = self.holders.get_mut(&holder).filter(|known| known.ended.is_none() && number > known.report);
        let Some(standing) = known else { return };
        (standing.report, standing.heard) = (number, now);
        for report in of.iter().take(PROVIDERS_MAX) {
            if report.epoch > self.epoch {
                self.is_deposed = true;
                out.clear();
                return;
            }
            let Some(provider) = self.providers.get_mut(&report.provider) else { continue };
            let slice = provider.slices.entry(holder.clone()).or_default();
            let before = slice.writing();
            let pause = slice.hear(report, report.epoch == self.epoch, now, &mut self.count);
            if let Some(write) = slice.writing().filter(|write| Some(*write) != before) {
                out.push(record(&report.provider, &holder, self.epoch, &write));
            }
            if let Some(pause) = pause {
                let until = now.after(pause.left.min(PAUSE_MAX));
                if until > provider.paused_until {
                    (provider.pause, provider.paused_until) = (self.count.next(), until);
                }
            }
        }
    }

    fn recorded(&mut self, name: &str, holder: &HolderId, version: u64, now: Timestamp, out: &mut Vec<LeaderOutput>) {
        let has_ended = self.holders.get(holder).is_none_or(|standing| standing.ended.is_some());
        let Some(provider) = self.providers.get_mut(name) else { return };
        let pause = provider.pause(now);
        let Some(slice) = provider.slices.get_mut(holder) else { return };
        if slice.recorded(version, now) && !has_ended {
            out.push(LeaderOutput::Notice(notice(name, holder, self.epoch, slice.say(now), pause)));
        }
    }

    fn tick(&mut self, now: Timestamp, out: &mut Vec<LeaderOutput>) {
        let turn = now.since(self.since).0 / TURN.0;
        let gathers = now.since(self.since) < GATHERING;
        for (name, provider) in &mut self.providers {
            provider.let_go(&self.holders, &self.settings, now, &mut self.count);
            let ahead = self.settings.ahead.unwrap_or(WINDOW);
            provider.slices.values_mut().for_each(|slice| slice.slows_down(ahead, now, &mut self.count));
            let told = match gathers && provider.has_unheard(&self.holders) {
                true => BTreeSet::new(),
                false => provider.split(&self.budgets.of(name), &self.holders, turn, now, &mut self.count),
            };
            let pause = provider.pause(now);
            for (id, slice) in &mut provider.slices {
                if let Some(write) = slice.writing() {
                    out.push(record(name, id, self.epoch, &write));
                }
                let is_here = self.holders.get(id).is_some_and(|standing| standing.ended.is_none());
                if is_here && (told.contains(id) || slice.is_owed(pause, now)) {
                    out.push(LeaderOutput::Notice(notice(name, id, self.epoch, slice.say(now), pause)));
                }
            }
        }
        let (budgets, holders) = (&self.budgets, &mut self.holders);
        self.providers.retain(|name, provider| budgets.has(name) || !provider.slices.values().all(Slice::is_gone));
        let providers = &self.providers;
        holders.retain(|id, standing| {
            standing.ended.is_none() || providers.values().any(|provider| provider.slices.contains_key(id))
        });
    }
}

impl Provider {
    fn outstanding(&self) -> Sizes {
        self.slices.values().fold(Sizes::NONE, |sum, slice| sum.plus(&slice.outstanding()))
    }

    /// The pause that lasts.
    fn pause(&self, now: Timestamp) -> Option<Pause> {
        let left = self.paused_until.since(now);
        (left > Millis(0)).then_some(Pause { number: self.pause, left })
    }

    /// What vanished holders may still take becomes less with time.
    fn let_go(
        &mut self,
        holders: &BTreeMap<HolderId, Standing>,
        settings: &LeaderSettings,
        now: Timestamp,
        count: &mut Count,
    ) {
        self.slices.retain(|id, slice| {
            let Some(ended) = holders.get(id).and_then(|standing| standing.ended) else { return true };
            let counts = |meter| {
                let longest = match meter {
                    Meter::Requests | Meter::InputTokens => WINDOW,
                    Meter::OutputTokens => settings.request_max + WINDOW,
                    Meter::Concurrency => settings.request_max,
                };
                now < ended.after(VANISHING + longest) && !planted(Bug::SliceFreedAtOnce)
            };
            let outstanding = slice.outstanding();
            let mut left = Sizes::by(|meter| if counts(meter) { outstanding.of(meter) } else { 0 });
            if let Some(ahead) = settings.ahead {
                // The oldest of them count no more, and in the same time others may begin as many.
                let passed = now.since(ended.after(VANISHING + ahead));
                left.set(Meter::Requests, slice.spread(passed).min(left.of(Meter::Requests)));
            }
            slice.vanishes_to(left, count);
            !slice.is_gone()
        });
    }

    /// Whether somebody who is there has a slice of the last leader, and has said nothing yet.
    fn has_unheard(&self, holders: &BTreeMap<HolderId, Standing>) -> bool {
        let is_here = |id: &HolderId| holders.get(id).is_some_and(|standing| standing.ended.is_none());
        self.slices.iter().any(|(id, slice)| slice.is_unheard() && is_here(id))
    }

    /// Moves all slices towards their shares. Gives whom to tell.
    fn split(
        &mut self,
        budget: &Sizes,
        holders: &BTreeMap<HolderId, Standing>,
        turn: u64,
        now: Timestamp,
        count: &mut Count,
    ) -> BTreeSet<HolderId> {
        let here: Vec<_> = holders.iter().filter(|(_, standing)| standing.ended.is_none()).collect();
        let claims: Vec<_> = here
            .iter()
            .map(|(id, standing)| {
                let slice = self.slices.entry((*id).clone()).or_default();
                slice.claim(now.since(standing.heard) < SILENCE)
            })
            .collect();
        let is_here = |id: &HolderId| holders.get(id).is_some_and(|standing| standing.ended.is_none());
        let vanished = self.slices.iter().filter(|(id, _)| !is_here(id));
        let vanished = vanished.fold(Sizes::NONE, |sum, (_, slice)| sum.plus(&slice.outstanding()));
        let targets = shares(&budget.minus(&vanished), &claims, turn);
        let comes_back = vanished.of(Meter::Requests) > 0;
        let goals = if comes_back { shares(budget, &claims, turn) } else { targets.clone() };
        let paces = paces(budget, &goals, &claims);
        let outstanding = self.outstanding();
        let mut pool = budget.minus(&outstanding);
        let mut short = [false; 4];
        for ((id, _), target) in here.iter().zip(&targets) {
            for (at, meter) in Meter::ALL.into_iter().enumerate() {
                short[at] |= self.slices.get(*id).is_some_and(|slice| slice.is_short(target, meter));
            }
        }
        let lacking = here.iter().zip(&targets).fold(Sizes::NONE, |sum, ((id, _), target)| {
            sum.plus(&self.slices.get(*id).map_or(Sizes::NONE, |slice| target.minus(&slice.outstanding())))
        });
        let is_contested = |meter: Meter| {
            let lacks = short[meter as usize] && lacking.of(meter) > pool.of(meter);
            lacks || outstanding.of(meter) > budget.of(meter)
        };
        let contested = Meter::ALL.map(is_contested);
        let current = |id: &HolderId| self.slices.get(id).map_or(0, Slice::current_pace);
        let mut going = here.iter().map(|(id, _)| current(id)).fold(0, u64::saturating_add);
        let left = |going: u64, own: u64| match budget.limit(Meter::Requests) {
            Some(limit) => limit.saturating_sub(going.saturating_sub(own)),
            None => NO_LIMIT,
        };
        let slows_others = here.iter().zip(&paces).any(|((id, _), pace)| {
            let own = current(id);
            *pace > left(going, own) && differs(own, *pace)
        });
        let mut told = BTreeSet::new();
        for ((id, _), (target, pace)) in here.iter().zip(targets.iter().zip(paces)) {
            let Some(slice) = self.slices.get_mut(*id) else { continue };
            let own = slice.current_pace();
            let goal = Goal { size: *target, pace, pace_left: left(going, own), slows_others, comes_back };
            if slice.turn_to(&goal, &mut pool, |meter| contested[meter as usize], now, count) {
                told.insert((*id).clone());
            }
            going = going.saturating_add(slice.current_pace().saturating_sub(own));
        }
        told
    }
}

fn record(provider: &str, holder: &HolderId, epoch: LeaderEpoch, write: &Write) -> LeaderOutput {
    let Write { version, size, pace, .. } = write;
    LeaderOutput::Record(SliceRecord::new(provider, holder, epoch, *version, (size, *pace)))
}

fn notice(
    provider: &str,
    holder: &HolderId,
    epoch: LeaderEpoch,
    (version, size, pace): (u64, Sizes, u64),
    pause: Option<Pause>,
) -> Notice {
    let pace = Some(pace).filter(|pace| *pace != NO_LIMIT);
    Notice { holder: holder.clone(), epoch, version, provider: provider.to_owned(), size, pause, pace }
}

//! Lets a node begin what fits its slices.
//!
//! In:  notices of leaders, what waits on the node's lanes, what a provider said, that the lease has ended, the time.
//! Out: whether a request may begin now and else when to ask again; and, as often as it is asked, a [`Report`].
//!
//! It takes a notice for its own generation that is newer, by epoch and version, than what it goes by (LS-3). A smaller
//! slice counts from that moment: whatever was begun stays, and nothing begins until it fits. What it says to keep is the
//! slice, or what still counts where that is more; under one notice that only ever falls. Without any word of a leader it
//! goes on with what it has (LS-4).
//!
//! Shares of providers: at most [`PROVIDERS_MAX`], with what was begun within a minute each.

use std::collections::BTreeMap;

use nexa_types::planted::{Bug, planted};
use nexa_types::{Millis, Timestamp};

use super::share::WEIGHT_MAX;
use super::usage::{Begun, Cost, Ending, Usage};
use super::{HolderId, LeaderEpoch, Meter, Notice, PAUSE_MAX, PROVIDERS_MAX, Pause, ProviderReport, Report, Sizes};

/// What waits on a node for one provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// So many requests.
    pub requests: u64,
    /// What they cost, together.
    pub cost: Cost,
    /// What the largest of them costs, meter by meter.
    pub largest: Cost,
    /// The weights of those who wait, together. 0 is taken for 1.
    pub weight: u64,
}

/// What a holder is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HolderInput {
    /// By a leader.
    Notice(Notice),
    /// By a lane: what waits now.
    Waiting {
        /// For which provider.
        provider: String,
        /// Nothing, or what.
        backlog: Backlog,
    },
    /// By a provider: go on after this.
    RetryAfter {
        /// By which.
        provider: String,
        /// At most [`PAUSE_MAX`] counts.
        pause: Millis,
    },
    /// By membership, or because no renewal came in time: this generation is over.
    LeaseEnded,
}

/// Why a request cannot begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Ask again after this, or when the slice has changed or a request has ended.
    For(Millis),
    /// Ask again when the slice has changed or a request has ended. The next report says what is wanted.
    UntilChange,
    /// This node's lease has ended; nothing begins in this generation.
    Ended,
}

/// One life of one node.
#[derive(Debug)]
pub struct Holder {
    id: HolderId,
    /// The newest leader that it has heard of.
    epoch: LeaderEpoch,
    reports: u64,
    has_ended: bool,
    parts: BTreeMap<String, Part>,
}

/// What it has of one provider.
#[derive(Debug, Default)]
struct Part {
    /// The newest notice: whose, and which.
    epoch: LeaderEpoch,
    version: u64,
    size: Sizes,
    pace: u64,
    usage: Usage,
    backlog: Backlog,
    /// The newest pause of that leader.
    pause_heard: u64,
    paused_until: Timestamp,
    /// Pauses that the provider itself has asked for, and how long the last one is to last.
    pauses: u64,
    own_pause_until: Timestamp,
}

impl Holder {
    /// A node that has just registered and has no slice of anything.
    #[must_use]
    pub fn new(id: HolderId) -> Self {
        Self { id, epoch: LeaderEpoch(0), reports: 0, has_ended: false, parts: BTreeMap::new() }
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &HolderId {
        &self.id
    }

    /// Takes note of what happened.
    pub fn step(&mut self, input: HolderInput, now: Timestamp) {
        match input {
            HolderInput::Notice(notice) => self.take(notice, now),
            HolderInput::Waiting { provider, backlog } => {
                if let Some(part) = self.part(&provider) {
                    part.backlog = backlog;
                }
            }
            HolderInput::RetryAfter { provider, pause } => {
                if let Some(part) = self.part(&provider) {
                    let until = now.after(pause.min(PAUSE_MAX));
                    // A shorter one says nothing new.
                    if until > part.own_pause_until {
                        part.own_pause_until = until;
                        part.pauses += 1;
                    }
                }
            }
            HolderInput::LeaseEnded => self.has_ended = true,
        }
    }

    fn take(&mut self, notice: Notice, now: Timestamp) {
        let Notice { holder, epoch, version, provider, size, pause, pace } = notice;
        let is_old = epoch < self.epoch && !planted(Bug::OldNotice);
        if holder != self.id || is_old {
            return;
        }
        self.epoch = epoch;
        let Some(part) = self.part(&provider) else { return };
        if epoch > part.epoch {
            (part.epoch, part.version, part.pause_heard) = (epoch, 0, 0);
        }
        if version > part.version || planted(Bug::OldNotice) {
            (part.version, part.size, part.pace) = (version, size, pace.unwrap_or(size.of(Meter::Requests)));
        }
        // Only the first word of a pause counts: a later one says as much, and may have been longer on its way.
        if let Some(pause) = pause.filter(|pause| pause.number > part.pause_heard) {
            part.pause_heard = pause.number;
            part.paused_until = part.paused_until.max(now.after(pause.left.min(PAUSE_MAX)));
        }
    }

    fn part(&mut self, provider: &str) -> Option<&mut Part> {
        if !self.parts.contains_key(provider) {
            if self.parts.len() >= PROVIDERS_MAX {
                return None;
            }
            self.parts.insert(provider.to_owned(), Part::default());
        }
        self.parts.get_mut(provider)
    }

    /// The slice of a provider: the limits of its lane. Where it is 0, nothing is to be sent at all.
    #[must_use]
    pub fn slice(&self, provider: &str) -> Sizes {
        self.parts.get(provider).filter(|_| !self.has_ended).map_or(Sizes::NONE, |part| part.size)
    }

    /// The requests a minute that they are to be begun at: the rate of its lane. [`NO_LIMIT`](super::NO_LIMIT) is none.
    #[must_use]
    pub fn pace(&self, provider: &str) -> u64 {
        self.parts.get(provider).filter(|_| !self.has_ended).map_or(0, |part| part.pace)
    }

    /// Begins a request, if it may be sent now. One that costs more than the whole budget of a minute never may: whoever
    /// makes it must refuse it before.
    ///
    /// # Errors
    /// [`Denied`]: not now.
    pub fn begin(&mut self, provider: &str, cost: Cost, now: Timestamp) -> Result<Begun, Denied> {
        let mut begun = self.reserve(provider, cost, now)?;
        self.sends(provider, &mut begun, now);
        Ok(begun)
    }

    /// The same for a request that is sent later: until then it counts without becoming older.
    ///
    /// # Errors
    /// [`Denied`]: not now.
    pub fn reserve(&mut self, provider: &str, cost: Cost, now: Timestamp) -> Result<Begun, Denied> {
        if self.has_ended {
            return Err(Denied::Ended);
        }
        let part = self.part(provider).ok_or(Denied::UntilChange)?;
        let paused = part.paused_until.max(part.own_pause_until).since(now);
        if paused > Millis(0) {
            return Err(Denied::For(paused));
        }
        let more = cost.bounded().sizes();
        if part.usage.held(now).plus(&more).fits_where(&part.size, &more) {
            return Ok(part.usage.reserve(cost));
        }
        Err(part.usage.wait(&more, &part.size, now).map_or(Denied::UntilChange, Denied::For))
    }

    /// Says that a reserved request is sent now. Saying it again changes nothing.
    pub fn sends(&mut self, provider: &str, begun: &mut Begun, now: Timestamp) {
        if let Some(part) = self.parts.get_mut(provider) {
            part.usage.sends(begun, now);
        }
    }

    /// Ends a request.
    pub fn end(&mut self, provider: &str, begun: Begun, ending: Ending, now: Timestamp) {
        if let Some(part) = self.parts.get_mut(provider) {
            part.usage.end(begun, ending, now);
        }
    }

    /// What the leader should know, about once a second. Nothing once the lease has ended.
    pub fn report(&mut self, now: Timestamp) -> Option<Report> {
        if self.has_ended {
            return None;
        }
        self.reports += 1;
        let of = self.parts.iter_mut().map(|(provider, part)| part.report(provider, now)).collect();
        Some(Report { holder: self.id.clone(), number: self.reports, of })
    }
}

impl Part {
    fn report(&mut self, provider: &str, now: Timestamp) -> ProviderReport {
        let held = self.usage.held(now);
        let Backlog { requests, cost, largest, weight } = self.backlog;
        let waiting = Sizes::new(requests, cost.input_tokens, cost.output_tokens, requests);
        let left = self.own_pause_until.since(now);
        ProviderReport {
            provider: provider.to_owned(),
            epoch: self.epoch,
            version: self.version,
            pause_heard: self.pause_heard,
            kept: self.size.max(&held),
            wanted: held.plus(&waiting),
            least: if requests > 0 { largest.bounded().sizes() } else { Sizes::NONE },
            weight: weight.clamp(1, WEIGHT_MAX),
            pause: (left > Millis(0)).then_some(Pause { number: self.pauses, left }),
        }
    }
}

impl Sizes {
    /// Whether it fits on each meter of which more is asked.
    fn fits_where(&self, size: &Self, more: &Self) -> bool {
        Meter::ALL.into_iter().all(|meter| more.of(meter) == 0 || self.of(meter) <= size.of(meter))
    }
}

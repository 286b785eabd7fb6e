//! One lane: those who want to send to one provider, and what lets them.
//!
//! In:  wishes, what became of calls, and the time.
//! Out: the next one that may send, with a [`Pass`]; who is told that the endpoint is away; when to look again.
//!
//! Whose turn it is goes by share and priority ([`crate::fair`]); whether the turn can be taken now, by concurrency,
//! budgets ([`super::budget`]), a pause that the provider asked for, and the breaker ([`super::breaker`]). Whoever has
//! the turn keeps it until it can be taken: nobody smaller overtakes, or a large request would wait for ever.
//!
//! While the breaker holds calls back, everybody waits as for a slot. An agent whose request would have timed out by the
//! time of the next try gets a pass with which nothing is sent: its call fails with `unavailable`, and its program's
//! retries and fallbacks decide. What it waited before the breaker opened does not count against it.
//!
//! A provider that all nodes of a cluster ask lets through what this node's slice of its budget allows, beside all that:
//! see [`super::leased`].

use std::collections::{BTreeSet, HashMap};

use nexa_ports::model::LaneLimits;
use nexa_sched::lease::{Backlog, HolderInput, WaitingTenants};
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, Millis, RunCode, TenantId, Timestamp};

use super::breaker::{Breaker, Gate, Sign};
use super::budget::{Budget, Cost};
use super::leased::{Asks, Leased, Lent};
use crate::fair::{FairQueue, Rank};

/// The longest pause that a provider may impose on a lane with one answer.
pub(super) const RETRY_AFTER_MAX: Millis = Millis(300_000);
/// The first pause after a 429 that says nothing; it doubles with each further one, until an answer comes.
const BACKOFF_MIN: Millis = Millis(1_000);
/// The longest of these pauses.
const BACKOFF_MAX: Millis = Millis(60_000);
/// Agents that are told at once that the endpoint is away. The others are told when these have heard it.
const REFUSALS_AT_ONCE_MAX: usize = 256;

/// Tokens that an answer is taken to have for its tenant's share, before any came. What is held of the budget must be
/// the most that may come; as a share that would put a tenant far ahead for as long as its calls take, and whoever comes
/// meanwhile with it.
const ANSWER_PRIOR: u64 = 256;
/// One answer counts for so much of their mean.
const ANSWER_MEAN_OF: u64 = 16;

/// What a lane lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneKind {
    pub(super) limits: LaneLimits,
    /// Whether a breaker holds back calls while nothing answers.
    pub(super) has_breaker: bool,
}

/// Who wants to send, and what.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) agent: AgentId,
    pub(super) tenant: TenantId,
    pub(super) weight: u32,
    pub(super) priority: u8,
    pub(super) cost: Cost,
    /// How long it waits for an endpoint that is away.
    pub(super) patience: Millis,
}

/// The right to send once.
#[derive(Debug)]
pub(crate) struct Pass {
    tenant: TenantId,
    thought: Cost,
    taken: Cost,
    /// What it took of its tenant's share.
    price: u64,
    kind: PassKind,
    /// What it took of this node's slice.
    lent: Option<Lent>,
    since: Timestamp,
    /// How long it was waited for.
    pub(super) waited: Millis,
}

#[derive(Debug, PartialEq, Eq)]
enum PassKind {
    Sends,
    /// To see whether the endpoint is back.
    Tries,
    /// Nothing is sent, for this reason.
    Refused(RunCode, String),
}

impl Pass {
    /// Why nothing is to be sent with it.
    pub(super) fn refusal(&self) -> Option<(RunCode, &str)> {
        match &self.kind {
            PassKind::Refused(code, why) => Some((*code, why)),
            PassKind::Sends | PassKind::Tries => None,
        }
    }
}

/// How a call ended, as far as a lane cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Answered, for this; nothing if that is not known.
    Answered(Cost),
    /// Not answered.
    Failed { code: RunCode, retry_after: Option<Millis> },
    /// Not sent after all.
    NotSent,
}

impl Ending {
    /// What the provider may have counted of a call that was taken to cost this; nothing if it was not sent. One that
    /// failed may have written on for nobody, unless the provider refused it.
    fn cost(self, taken: Cost) -> Option<Cost> {
        match self {
            Self::Answered(real) if real.total() > 0 => Some(real),
            Self::Failed { code: RunCode::RateLimited | RunCode::Refused, .. } => Some(Cost { output: 0, ..taken }),
            Self::Answered(_) | Self::Failed { .. } => Some(taken),
            Self::NotSent => None,
        }
    }
}

struct Waiting {
    tenant: TenantId,
    rank: Rank,
    cost: Cost,
    /// What it was expected to cost when it came.
    asked: Cost,
    price: u64,
    since: Timestamp,
    patience: Millis,
    /// When it gives up if the endpoint is away until then. Brought up to date when it is looked at.
    gives_up: Timestamp,
}

pub(super) struct Lane {
    name: String,
    limits: LaneLimits,
    budget: Budget,
    /// What waits, if this node has only a slice of the provider's budget.
    asks: Option<Asks>,
    /// That the slice lets nobody begin, and until when if time alone helps.
    denied: Option<Option<Timestamp>>,
    /// How many waited when that was last reported.
    reported: usize,
    breaker: Option<Breaker>,
    /// Calls in flight, and passes held for agents.
    busy: usize,
    /// Passes out with which nothing is sent.
    refusals: usize,
    paused_until: Timestamp,
    backoff: Millis,
    /// What answers have lately had, in tokens.
    answer_mean: u64,
    queue: FairQueue<TenantId, AgentId>,
    waiting: HashMap<AgentId, Waiting>,
    gives_up: BTreeSet<(Timestamp, AgentId)>,
}

impl Lane {
    pub(super) fn new(name: &str, kind: LaneKind, now: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            limits: kind.limits,
            budget: Budget::new(kind.limits, now),
            asks: None,
            denied: None,
            reported: 0,
            breaker: kind.has_breaker.then(Breaker::default),
            busy: 0,
            refusals: 0,
            paused_until: Timestamp(0),
            backoff: BACKOFF_MIN,
            answer_mean: ANSWER_PRIOR,
            queue: FairQueue::default(),
            waiting: HashMap::new(),
            gives_up: BTreeSet::new(),
        }
    }

    /// Goes by slices of its limits, before anybody waits.
    pub(super) fn lease(&mut self) {
        self.asks = Some(Asks::default());
    }

    /// Goes by these limits from now on.
    pub(super) fn adapt(&mut self, limits: LaneLimits, now: Timestamp) {
        self.limits = limits;
        if self.asks.is_none() {
            self.budget.adapt(limits, now);
        }
    }

    /// Goes by this node's slice as it is now.
    pub(super) fn resize(&mut self, leased: &Leased, now: Timestamp) {
        self.budget.adapt(leased.limits(&self.name, self.limits), now);
    }

    fn is_full(&self) -> bool {
        self.busy >= self.limits.concurrency.max(1) && !planted(Bug::SlotsOverrun)
    }

    /// What waits for a slice, together and by tenant.
    pub(super) fn asks(&mut self, now: Timestamp) -> Option<(Backlog, WaitingTenants)> {
        self.reported = self.queue.len();
        self.weigh(now);
        self.asks.as_mut().map(|asks| (asks.backlog(now), asks.tenants()))
    }

    /// Whether nothing but a larger slice helps, and more than twice as much waits as was last reported.
    pub(super) fn is_hungry(&self) -> bool {
        self.denied == Some(None) && self.queue.len() > 2 * self.reported
    }

    /// What of the tenants here waits on other nodes.
    pub(super) fn elsewhere(&mut self, tenants: &WaitingTenants, now: Timestamp) {
        self.asks.iter_mut().for_each(|asks| asks.elsewhere(tenants, now));
        self.weigh(now);
    }

    /// Counts those who wait by the part of their tenants that waits here, also if they came before that was known and
    /// nobody comes after them.
    fn weigh(&mut self, now: Timestamp) {
        for (tenant, weight) in self.asks.iter().flat_map(|asks| asks.weights(now)) {
            self.queue.weigh(tenant, weight);
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Calls in flight, and passes held for agents.
    #[cfg(test)]
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    pub(super) fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until > now
    }

    /// Whether the breaker holds calls back.
    pub(super) fn is_broken(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.open_since().is_some())
    }

    /// Waits for its turn from now on. Tickets grow.
    pub(super) fn enter(&mut self, wanted: Wanted, ticket: u64, now: Timestamp) {
        let Wanted { agent, tenant, weight, priority, cost, patience } = wanted;
        let rank = Rank::new(now, priority, ticket);
        let asked = self.budget.expected(&tenant, cost);
        let price = (asked.input + cost.output.min(self.answer_mean)).max(1);
        let weight = self.asks.as_mut().map_or(weight, |asks| asks.enter(&tenant, weight, asked, now));
        let gives_up = now.after(patience);
        self.queue.push(&tenant, weight, rank, price, agent);
        self.gives_up.insert((gives_up, agent));
        self.waiting.insert(agent, Waiting { tenant, rank, cost, asked, price, since: now, patience, gives_up });
    }

    /// Waits no longer.
    pub(super) fn leave(&mut self, agent: AgentId, now: Timestamp) {
        if let Some(waiting) = self.forget(agent, now) {
            self.queue.remove(&waiting.tenant, waiting.rank);
        }
    }

    fn forget(&mut self, agent: AgentId, now: Timestamp) -> Option<Waiting> {
        let waiting = self.waiting.remove(&agent)?;
        self.asks.iter_mut().for_each(|asks| asks.leave(&waiting.tenant, waiting.asked, now));
        self.gives_up.remove(&(waiting.gives_up, agent));
        Some(waiting)
    }

    fn gate(&self, now: Timestamp) -> Gate {
        self.breaker.as_ref().map_or(Gate::Open, |breaker| breaker.gate(now))
    }

    /// What the one whose turn it is will take.
    fn first(&self) -> Option<Cost> {
        let (tenant, _, agent) = self.queue.peek()?;
        Some(self.budget.expected(tenant, self.waiting.get(agent)?.cost))
    }

    /// Lets the next one through, if it may go now.
    pub(super) fn next(&mut self, leased: Option<&mut Leased>, now: Timestamp) -> Option<(AgentId, Pass)> {
        self.denied = None;
        let gate = self.gate(now);
        if self.is_full() || self.is_paused(now) || matches!(gate, Gate::Shut(_)) {
            return self.refuse(now);
        }
        let taken = self.first()?;
        if let Some(why) = leased.as_ref().and_then(|leased| leased.refusal(&self.name, taken)) {
            let agent = *self.queue.peek().filter(|_| self.refusals < REFUSALS_AT_ONCE_MAX)?.2;
            return self.refused(agent, RunCode::Refused, why, now);
        }
        if self.budget.wait(taken, now) > Millis(0) {
            return None;
        }
        let lent = match leased.map(|leased| leased.reserve(&self.name, taken, now)).transpose() {
            Ok(lent) => lent,
            Err(until) => {
                self.denied = Some(until);
                return None;
            }
        };
        let (_, agent) = self.queue.pop()?;
        let waiting = self.forget(agent, now)?;
        self.budget.take(taken, now);
        self.busy += 1;
        let tries = gate == Gate::One;
        if tries {
            self.breaker.iter_mut().for_each(Breaker::tries);
        }
        Some((agent, waiting.pass(taken, if tries { PassKind::Tries } else { PassKind::Sends }, lent, now)))
    }

    /// The request of a pass is sent now.
    pub(super) fn sends(&self, pass: &mut Pass, leased: Option<&mut Leased>, now: Timestamp) {
        if let (Some(lent), Some(leased)) = (&mut pass.lent, leased) {
            leased.sends(&self.name, lent, now);
        }
    }

    /// Takes one out with a pass with which nothing is sent.
    fn refused(&mut self, agent: AgentId, code: RunCode, why: String, now: Timestamp) -> Option<(AgentId, Pass)> {
        let waiting = self.forget(agent, now)?;
        self.queue.remove(&waiting.tenant, waiting.rank);
        self.refusals += 1;
        Some((agent, waiting.pass(Cost::default(), PassKind::Refused(code, why), None, now)))
    }

    /// Takes one out for whom the endpoint is away for too long.
    fn refuse(&mut self, now: Timestamp) -> Option<(AgentId, Pass)> {
        let breaker = self.breaker.as_ref()?;
        let opened = breaker.open_since()?;
        let back = match breaker.gate(now) {
            Gate::Shut(until) => until.unwrap_or(now),
            Gate::Open | Gate::One => now,
        };
        if self.refusals >= REFUSALS_AT_ONCE_MAX {
            return None;
        }
        while let Some((gives_up, agent)) = self.gives_up.first().copied().filter(|(gives_up, _)| *gives_up <= back) {
            let waiting = self.waiting.get_mut(&agent)?;
            let since = waiting.since.max(opened);
            waiting.gives_up = since.after(waiting.patience);
            if waiting.gives_up > gives_up {
                self.gives_up.remove(&(gives_up, agent));
                self.gives_up.insert((waiting.gives_up, agent));
                continue;
            }
            let reason = breaker.reason(&self.name, now);
            return self.refused(agent, RunCode::Unavailable, reason, now);
        }
        None
    }

    /// When something may change by itself.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Timestamp> {
        let first = self.first()?;
        let gives_up = self.gives_up.first().map(|(gives_up, _)| *gives_up);
        let room = self.refusals < REFUSALS_AT_ONCE_MAX;
        let due = match self.gate(now) {
            Gate::Shut(Some(until)) => Some(until),
            Gate::Shut(None) => gives_up.filter(|_| room),
            Gate::Open | Gate::One if self.is_paused(now) => Some(self.paused_until),
            Gate::Open | Gate::One if self.is_full() => None,
            Gate::Open | Gate::One if self.denied.is_some() => self.denied.flatten(),
            Gate::Open | Gate::One => Some(now.after(self.budget.wait(first, now))),
        };
        due.filter(|due| *due > now)
    }

    /// What a pass was good for is over.
    pub(super) fn ended(&mut self, pass: Pass, ending: Ending, mut leased: Option<&mut Leased>, now: Timestamp) {
        let Pass { tenant, thought, taken, price, kind, lent, since, .. } = pass;
        if let (Some(lent), Some(leased)) = (lent, leased.as_deref_mut()) {
            leased.end(&self.name, lent, ending.cost(taken), now);
        }
        if matches!(kind, PassKind::Refused(..)) {
            self.refusals -= 1;
            return;
        }
        self.busy -= 1;
        let tried = kind == PassKind::Tries;
        match ending {
            Ending::Answered(real) => {
                // An adapter that says nothing of tokens leaves it at the estimate.
                if real.total() > 0 {
                    self.budget.settle(&tenant, thought, taken, real, now);
                    self.queue.settle(&tenant, price, real.total());
                    self.answer_mean =
                        (self.answer_mean * (ANSWER_MEAN_OF - 1) + real.output).div_ceil(ANSWER_MEAN_OF).max(1);
                }
                self.heard(Sign::Alive, RunCode::Unavailable, tried, now);
                if since >= self.paused_until {
                    self.backoff = BACKOFF_MIN;
                }
            }
            Ending::Failed { code, retry_after } => {
                self.budget.failed(taken, now);
                self.queue.settle(&tenant, price, taken.input);
                if let (Some(pause), Some(leased)) = (self.pause(code, retry_after, now), leased) {
                    leased.step(HolderInput::RetryAfter { provider: self.name.clone(), pause }, now);
                }
                self.heard(Sign::of(code, now.since(since)), code, tried, now);
            }
            Ending::NotSent => {
                self.budget.give_back(taken, now);
                self.queue.settle(&tenant, price, 0);
                if tried {
                    self.breaker.iter_mut().for_each(|breaker| breaker.tried_nothing(now));
                }
            }
        }
    }

    fn heard(&mut self, sign: Sign, code: RunCode, tried: bool, now: Timestamp) {
        self.breaker.iter_mut().for_each(|breaker| breaker.heard(sign, code, tried, now));
    }

    /// A provider says when to go on, or only that it was too much. Gives the pause that follows.
    fn pause(&mut self, code: RunCode, retry_after: Option<Millis>, now: Timestamp) -> Option<Millis> {
        let pause = match retry_after {
            Some(pause) => pause.min(RETRY_AFTER_MAX),
            // One pause for all that were in flight together.
            None if code == RunCode::RateLimited && !self.is_paused(now) => {
                let pause = self.backoff;
                self.backoff = Millis((pause.0 * 2).min(BACKOFF_MAX.0));
                pause
            }
            None => return None,
        };
        self.paused_until = self.paused_until.max(now.after(pause));
        Some(pause)
    }
}

impl Waiting {
    fn pass(self, taken: Cost, kind: PassKind, lent: Option<Lent>, now: Timestamp) -> Pass {
        let Self { tenant, cost: thought, price, since, .. } = self;
        Pass { tenant, thought, taken, price, kind, lent, since: now, waited: now.since(since) }
    }
}

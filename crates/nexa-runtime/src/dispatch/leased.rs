//! What this node may use now of providers that all nodes of a cluster ask with one key: its slices.
//!
//! In:  the slices, as leaders say them; what lanes want to begin, have begun, and have waiting.
//! Out: whether a lane may begin a request; and what the leader should know, so that slices follow what is wanted.
//!
//! The count of what a slice allows is [`nexa_sched::lease::Holder`]'s; here it is brought together with the lanes. A slice
//! says how much may begin within any minute, and the lane's own buckets spread that over the minute: those of tokens go by
//! the slice as their rate, and that of requests by the pace that the leader says with it. A request is reserved when its agent gets a slot and counts as sent when it is.
//!
//! Tenants whose agents are on several nodes get their one share from all of these together: each node counts a tenant's
//! weight by the part of its requests that waits there, for the order on the node as well as for the size of its slices.
//!
//! Before this run of the node is known to the leader, and after its lease has ended, nothing begins.

use std::collections::BTreeMap;

use nexa_ports::model::LaneLimits;
use nexa_sched::ProviderBudget;
use nexa_sched::lease::{
    self, Backlog, Begun, Denied, Holder, HolderId, HolderInput, Meter, NO_LIMIT, Report, Sizes, TENANTS_TOLD_MAX,
    WaitingTenants,
};
use nexa_types::{Generation, Millis, TenantId, Timestamp};

use super::budget::Cost;

/// How long a tenant of which nothing waits any more counts for the size of slices, and how long what was said of its
/// requests on other nodes does.
const LATELY: Millis = Millis(10_000);
/// Weight 1 is so many parts, for tenants of which only a part waits here.
const PARTS: u64 = 64;

/// The slices of this node.
pub(super) struct Leased {
    budgets: BTreeMap<String, Sizes>,
    holder: Option<Holder>,
}

/// What a request has taken of a slice.
#[derive(Debug)]
pub(super) struct Lent {
    run: Generation,
    begun: Begun,
}

fn priced(cost: Cost) -> lease::Cost {
    lease::Cost { input_tokens: cost.input, output_tokens: cost.output }
}

impl Leased {
    /// Without a slice of anything yet. Lanes of other names are this node's alone.
    pub(super) fn new(budgets: &[ProviderBudget]) -> Self {
        let budgets = budgets.iter().map(|budget| (budget.provider.clone(), Sizes::from(budget))).collect();
        Self { budgets, holder: None }
    }

    pub(super) fn has(&self, lane: &str) -> bool {
        self.budgets.contains_key(lane)
    }

    /// Another run of this node: what the one before has begun counts for that one.
    pub(super) fn begins(&mut self, run: HolderId) {
        let is_news = self.holder.as_ref().is_none_or(|holder| holder.id().generation < run.generation);
        if is_news {
            self.holder = Some(Holder::new(run));
        }
    }

    pub(super) fn step(&mut self, input: HolderInput, now: Timestamp) {
        self.holder.iter_mut().for_each(|holder| holder.step(input.clone(), now));
    }

    pub(super) fn report(&mut self, now: Timestamp) -> Option<Report> {
        self.holder.as_mut()?.report(now)
    }

    /// The rates of a lane: what the whole cluster has, and no more than this node's slice.
    pub(super) fn limits(&self, lane: &str, whole: LaneLimits) -> LaneLimits {
        let slice = self.holder.as_ref().map_or(Sizes::NONE, |holder| holder.slice(lane));
        let pace = self.holder.as_ref().map_or(0, |holder| holder.pace(lane));
        let least = |whole: Option<u64>, own: u64| match (whole, Some(own).filter(|own| *own != NO_LIMIT)) {
            (Some(whole), Some(own)) => Some(whole.min(own)),
            (one, other) => one.or(other),
        };
        LaneLimits {
            concurrency: whole.concurrency,
            requests_per_minute: least(whole.requests_per_minute, pace),
            input_tokens_per_minute: least(whole.input_tokens_per_minute, slice.of(Meter::InputTokens)),
            output_tokens_per_minute: least(whole.output_tokens_per_minute, slice.of(Meter::OutputTokens)),
        }
    }

    /// Why a request can never be sent, if it cannot: it reads more than the whole cluster may in a minute. What it may
    /// write is only the most that can come, and does not count here.
    pub(super) fn refusal(&self, lane: &str, cost: Cost) -> Option<String> {
        let most = self.budgets.get(lane)?.limit(Meter::InputTokens)?;
        (cost.input > most).then(|| {
            let read = cost.input;
            format!(
                "the request is taken to have {read} tokens, and of the provider `{lane}` all nodes together may have \
                 {most} read a minute: make it shorter, or raise `input_tokens_per_minute` if the key has more"
            )
        })
    }

    /// Takes what a request costs, if it may begin now. Otherwise says when to ask again; `None` is when something changes.
    pub(super) fn reserve(&mut self, lane: &str, cost: Cost, now: Timestamp) -> Result<Lent, Option<Timestamp>> {
        let holder = self.holder.as_mut().ok_or(None)?;
        let written = self.budgets.get(lane).and_then(|budget| budget.limit(Meter::OutputTokens));
        let cost = Cost { output: cost.output.min(written.unwrap_or(u64::MAX)), ..cost };
        match holder.reserve(lane, priced(cost), now) {
            Ok(begun) => Ok(Lent { run: holder.id().generation, begun }),
            Err(Denied::For(wait)) => Err(Some(now.after(wait))),
            Err(Denied::UntilChange | Denied::Ended) => Err(None),
        }
    }

    /// A reserved request is sent now.
    pub(super) fn sends(&mut self, lane: &str, lent: &mut Lent, now: Timestamp) {
        if let Some(holder) = self.run_of(lent.run) {
            holder.sends(lane, &mut lent.begun, now);
        }
    }

    /// A request has ended: with what it cost, or `None` if it was not sent.
    pub(super) fn end(&mut self, lane: &str, lent: Lent, cost: Option<Cost>, now: Timestamp) {
        if let Some(holder) = self.run_of(lent.run) {
            let ending = cost.map_or(lease::Ending::NotSent, |cost| lease::Ending::Sent(priced(cost)));
            holder.end(lane, lent.begun, ending, now);
        }
    }

    /// The holder, if it is still that run's.
    fn run_of(&mut self, run: Generation) -> Option<&mut Holder> {
        self.holder.as_mut().filter(|holder| holder.id().generation == run)
    }
}

/// What waits in a lane of a shared provider, counted as it comes and goes.
#[derive(Default)]
pub(super) struct Asks {
    requests: u64,
    sum: Cost,
    /// How many have so many tokens, to be read and to be written.
    inputs: BTreeMap<u64, usize>,
    outputs: BTreeMap<u64, usize>,
    tenants: BTreeMap<TenantId, Asking>,
}

struct Asking {
    weight: u32,
    waiting: u64,
    last: Timestamp,
    /// What waits of it on other nodes, and when that was heard.
    elsewhere: (u64, Timestamp),
}

impl Asking {
    /// Its weight on this node, in [`PARTS`].
    fn weight(&self, now: Timestamp) -> u64 {
        let (count, heard) = self.elsewhere;
        let elsewhere = if now.since(heard) < LATELY { count } else { 0 };
        let here = u128::from(self.waiting.max(1));
        let part = u128::from(self.weight.max(1)) * u128::from(PARTS) * here / (here + u128::from(elsewhere));
        u64::try_from(part).unwrap_or(u64::MAX).max(1)
    }

    /// The same, for the order on this node.
    fn turns(&self, now: Timestamp) -> u32 {
        u32::try_from(self.weight(now)).unwrap_or(u32::MAX)
    }
}

impl Asks {
    /// One more waits. Gives the weight of its tenant on this node.
    pub(super) fn enter(&mut self, tenant: &TenantId, weight: u32, cost: Cost, now: Timestamp) -> u32 {
        self.requests += 1;
        self.sum = Cost {
            input: self.sum.input.saturating_add(cost.input),
            output: self.sum.output.saturating_add(cost.output),
        };
        *self.inputs.entry(cost.input).or_default() += 1;
        *self.outputs.entry(cost.output).or_default() += 1;
        let new = || Asking { weight, waiting: 0, last: now, elsewhere: (0, Timestamp(0)) };
        let asking = self.tenants.entry(tenant.clone()).or_insert_with(new);
        (asking.weight, asking.last) = (weight, now);
        asking.waiting += 1;
        asking.turns(now)
    }

    /// The weights on this node of the tenants that wait.
    pub(super) fn weights(&self, now: Timestamp) -> impl Iterator<Item = (&TenantId, u32)> {
        let waiting = self.tenants.iter().filter(|(_, asking)| asking.waiting > 0);
        waiting.map(move |(tenant, asking)| (tenant, asking.turns(now)))
    }

    /// One waits no longer.
    pub(super) fn leave(&mut self, tenant: &TenantId, cost: Cost, now: Timestamp) {
        self.requests -= 1;
        self.sum = Cost {
            input: self.sum.input.saturating_sub(cost.input),
            output: self.sum.output.saturating_sub(cost.output),
        };
        for (counts, tokens) in [(&mut self.inputs, cost.input), (&mut self.outputs, cost.output)] {
            if let Some(count) = counts.get_mut(&tokens) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&tokens);
                }
            }
        }
        if let Some(asking) = self.tenants.get_mut(tenant) {
            asking.waiting -= 1;
            asking.last = now;
        }
    }

    /// All of it.
    pub(super) fn backlog(&mut self, now: Timestamp) -> Backlog {
        self.tenants.retain(|_, asking| asking.waiting > 0 || now.since(asking.last) < LATELY);
        let largest = |counts: &BTreeMap<u64, usize>| counts.last_key_value().map_or(0, |(tokens, _)| *tokens);
        Backlog {
            requests: self.requests,
            cost: priced(self.sum),
            largest: lease::Cost { input_tokens: largest(&self.inputs), output_tokens: largest(&self.outputs) },
            weight: self.tenants.values().map(|asking| asking.weight(now)).fold(0, u64::saturating_add),
        }
    }

    /// By tenant: those of whom most waits.
    pub(super) fn tenants(&self) -> WaitingTenants {
        let mut all: WaitingTenants = self
            .tenants
            .iter()
            .filter(|(_, asking)| asking.waiting > 0)
            .map(|(tenant, asking)| (tenant.clone(), asking.waiting))
            .collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(TENANTS_TOLD_MAX);
        all
    }

    /// What waits on other nodes, of tenants that were told of.
    pub(super) fn elsewhere(&mut self, tenants: &WaitingTenants, now: Timestamp) {
        for (tenant, waiting) in tenants {
            if let Some(asking) = self.tenants.get_mut(tenant) {
                asking.elsewhere = (*waiting, now);
            }
        }
    }
}

#[cfg(test)]
#[path = "leased_tests.rs"]
mod tests;

//! Whether a node takes on more: a pure function of how it is doing.
//!
//! Each row holds one number of the node against one limit; at the limit new work is refused. What a refused caller is told
//! to wait grows with how far over the limit the worst row is, and with how many are refused for each that is let in, so
//! that tenfold pressure does not come back ten times as fast.
//!
//! Holds, see the tests:
//!   AD-1  below every limit nothing is refused
//!   AD-2  what is refused is refused under more pressure, too, and is told to wait at least as long

use std::time::Duration;

/// What new work adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Agents: a workload.
    Agents,
    /// None, but work for the processor and the disk: a program to keep.
    Program,
}

/// How a node is doing, and who asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// New work that is being carried out.
    pub entering: usize,
    /// Workloads that were accepted and have not begun, those that enter among them.
    pub unstarted: usize,
    /// Of these, those of the tenant who asks.
    pub unstarted_of_tenant: usize,
    /// Tenants that asked for work lately, the one who asks among them.
    pub tenants: usize,
    /// Agents in memory or waiting to be, and those that enter.
    pub present: usize,
    /// Of these, agents that wait for a place in memory.
    pub waiting: usize,
    /// Agents that have not ended, wherever they are.
    pub unfinished: usize,
    /// How long the oldest call to the store has waited to be written, in milliseconds.
    pub store_oldest_ms: u64,
    /// Ended effects that no agent has recorded yet.
    pub unrecorded: usize,
    /// Resident memory, in thousandths of the budget for it; 0 without a budget.
    pub memory_permille: u64,
    /// How late the threads are that answer, in milliseconds.
    pub lag_ms: u64,
    /// New work that was let in lately.
    pub admitted_lately: u64,
    /// New work that was refused lately.
    pub refused_lately: u64,
}

/// How much a node takes on. At each limit new work is refused with OVERLOADED; what was accepted goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmitLimits {
    /// New work carried out at once: it takes no more of the store's queue and of the processor than this. Fewer than a disk
    /// takes in a few commits would leave it waiting for them; and who comes next, to be refused perhaps, waits behind all of
    /// them, so more than a node carries out in some 50 ms makes refusals late. Not less than half of `unstarted_max`, so that
    /// a tenant is held to its part before it has all places.
    pub entering_max: usize,
    /// Workloads that were accepted and have not begun. What is accepted begins within the time that the node needs for
    /// so many. From half of it on, a tenant may hold no more than an equal part of it.
    pub unstarted_max: usize,
    /// Agents in memory or waiting to be. Those of accepted work that come later, its children, are never refused.
    pub present_agents_max: usize,
    /// Of these, agents that wait.
    pub waiting_agents_max: usize,
    /// Agents that have not ended, asleep ones among them.
    pub unfinished_agents_max: usize,
    /// How long the oldest call to the store may have waited.
    pub store_wait_max: Duration,
    /// Ended effects that no agent has recorded yet, as when the store is away.
    pub unrecorded_max: usize,
    /// Resident memory, in thousandths of the budget for it, if the node has one. Here it lets hardly any agent wake up.
    pub memory_permille_max: u64,
    /// How late the threads that answer may be: they have more to do than the processor gives them.
    pub lag_max: Duration,
    /// What a refused caller is told to wait at the limit; jitter adds up to half of it.
    pub retry_after_min: Duration,
    /// The same far above it.
    pub retry_after_max: Duration,
}

impl Default for AdmitLimits {
    fn default() -> Self {
        Self {
            entering_max: 256,
            unstarted_max: 512,
            present_agents_max: 30_000,
            waiting_agents_max: 20_000,
            unfinished_agents_max: 1_000_000,
            store_wait_max: Duration::from_millis(500),
            unrecorded_max: 1_024,
            memory_permille_max: 900,
            lag_max: Duration::from_millis(1_000),
            retry_after_min: Duration::from_millis(250),
            retry_after_max: Duration::from_secs(20),
        }
    }
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excess {
    /// New work that is being carried out.
    Entering,
    /// Workloads that have not begun.
    Unstarted,
    /// Workloads of one tenant that have not begun, while others ask for work.
    TenantShare,
    /// Agents in memory or waiting to be.
    Present,
    /// Agents that wait for a place in memory.
    Waiting,
    /// Agents that have not ended.
    Unfinished,
    /// What waits for the disk.
    Store,
    /// What ended and could not be recorded.
    Unrecorded,
    /// Memory in use.
    Memory,
    /// Work for the threads that answer.
    Lag,
}

impl Excess {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Entering,
        Self::Unstarted,
        Self::TenantShare,
        Self::Present,
        Self::Waiting,
        Self::Unfinished,
        Self::Store,
        Self::Unrecorded,
        Self::Memory,
        Self::Lag,
    ];

    /// One word, for labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entering => "entering",
            Self::Unstarted => "unstarted",
            Self::TenantShare => "tenant_share",
            Self::Present => "present",
            Self::Waiting => "waiting",
            Self::Unfinished => "unfinished",
            Self::Store => "store",
            Self::Unrecorded => "unrecorded",
            Self::Memory => "memory",
            Self::Lag => "lag",
        }
    }

    /// What there is too much of, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Entering => "too many requests for new work are being carried out",
            Self::Unstarted => "too many accepted workloads have not begun yet",
            Self::TenantShare => "the tenant holds its part of the places for workloads that have not begun yet",
            Self::Present => "too many agents are in memory or wait to be",
            Self::Waiting => "too many agents wait for a place in memory",
            Self::Unfinished => "too many agents have not ended",
            Self::Store => "the disk does not keep up",
            Self::Unrecorded => "too many results could not be recorded yet",
            Self::Memory => "the memory budget is nearly used up",
            Self::Lag => "the processor does not keep up",
        }
    }
}

/// New work is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The worst of the reasons.
    pub reason: Excess,
    /// When to ask again.
    pub retry_after: Duration,
}

/// Judges new work. `roll` is 64 random bits: callers that are refused together do not come back together.
///
/// # Errors
/// [`Refused`], if the node has too much of something.
pub fn admit(demand: Demand, load: &Pressure, limits: &AdmitLimits, roll: u64) -> Result<(), Refused> {
    /// The first rows are for whatever brings work; the others count agents.
    const PROGRAM_ROWS: usize = 5;
    let row = |reason, has: usize, max: usize| (reason, has as u64, max as u64);
    let part = if 2 * load.unstarted >= limits.unstarted_max { load.unstarted_of_tenant } else { 0 };
    let rows = [
        row(Excess::Entering, load.entering, limits.entering_max),
        (Excess::Store, load.store_oldest_ms, limits.store_wait_max.as_millis() as u64),
        row(Excess::Unrecorded, load.unrecorded, limits.unrecorded_max),
        (Excess::Memory, load.memory_permille, limits.memory_permille_max),
        (Excess::Lag, load.lag_ms, limits.lag_max.as_millis() as u64),
        row(Excess::TenantShare, part, limits.unstarted_max / load.tenants.max(1)),
        row(Excess::Unstarted, load.unstarted, limits.unstarted_max),
        row(Excess::Present, load.present, limits.present_agents_max),
        row(Excess::Waiting, load.waiting, limits.waiting_agents_max),
        row(Excess::Unfinished, load.unfinished, limits.unfinished_agents_max),
    ];
    let judged = match demand {
        Demand::Agents => &rows[..],
        Demand::Program => &rows[..PROGRAM_ROWS],
    };
    let over = |has: u64, max: u64| has as f64 / max.max(1) as f64;
    let worst = judged
        .iter()
        .filter(|(_, has, max)| *has >= (*max).max(1))
        .map(|(reason, has, max)| (*reason, over(*has, *max)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b));
    let Some((reason, over)) = worst else { return Ok(()) };
    let crowd = 1.0 + load.refused_lately as f64 / load.admitted_lately.max(1) as f64;
    let min = limits.retry_after_min.as_secs_f64();
    let whole = (min * over * crowd).min(limits.retry_after_max.as_secs_f64());
    let jitter = 1.0 + roll as f64 / u64::MAX as f64 / 2.0;
    Err(Refused { reason, retry_after: Duration::from_secs_f64(whole * jitter) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> AdmitLimits {
        AdmitLimits {
            entering_max: 8,
            unstarted_max: 20,
            present_agents_max: 100,
            waiting_agents_max: 50,
            unfinished_agents_max: 1_000,
            store_wait_max: Duration::from_millis(500),
            unrecorded_max: 64,
            ..AdmitLimits::default()
        }
    }

    fn reason(demand: Demand, load: Pressure) -> Option<Excess> {
        admit(demand, &load, &limits(), 0).err().map(|refused| refused.reason)
    }

    #[test]
    fn each_limit_refuses_what_it_is_for() {
        let calm = Pressure { tenants: 1, ..Pressure::default() };
        for (load, workload, program) in [
            (calm, None, None),
            (Pressure { entering: 8, ..calm }, Some(Excess::Entering), Some(Excess::Entering)),
            (Pressure { store_oldest_ms: 500, ..calm }, Some(Excess::Store), Some(Excess::Store)),
            (Pressure { unrecorded: 64, ..calm }, Some(Excess::Unrecorded), Some(Excess::Unrecorded)),
            (Pressure { memory_permille: 900, ..calm }, Some(Excess::Memory), Some(Excess::Memory)),
            (Pressure { lag_ms: 1_000, ..calm }, Some(Excess::Lag), Some(Excess::Lag)),
            (Pressure { unstarted: 20, ..calm }, Some(Excess::Unstarted), None),
            (Pressure { present: 100, ..calm }, Some(Excess::Present), None),
            (Pressure { waiting: 50, ..calm }, Some(Excess::Waiting), None),
            (Pressure { unfinished: 1_000, ..calm }, Some(Excess::Unfinished), None),
        ] {
            assert_eq!(reason(Demand::Agents, load), workload, "{load:?}");
            assert_eq!(reason(Demand::Program, load), program, "{load:?}");
        }
    }

    #[test]
    fn a_tenant_alone_may_hold_every_place_and_beside_others_its_part() {
        let holds = |unstarted, unstarted_of_tenant, tenants| {
            let load = Pressure { unstarted, unstarted_of_tenant, tenants, ..Pressure::default() };
            reason(Demand::Agents, load)
        };
        assert_eq!(holds(19, 19, 1), None);
        assert_eq!(holds(20, 20, 1), Some(Excess::Unstarted));
        assert_eq!(holds(9, 9, 4), None, "while there are places nobody is counted");
        assert_eq!(holds(12, 5, 4), Some(Excess::TenantShare));
        assert_eq!(holds(19, 4, 4), None);
        assert_eq!(holds(20, 0, 4), Some(Excess::Unstarted));
    }

    #[test]
    fn a_tenant_is_held_to_its_part_before_it_has_all_places_to_enter() {
        let limits = AdmitLimits::default();
        let asks = |unstarted_of_tenant| {
            let places = limits.entering_max - 1;
            let load = Pressure {
                entering: places,
                unstarted: places + 1,
                unstarted_of_tenant,
                tenants: 2,
                ..Pressure::default()
            };
            admit(Demand::Agents, &load, &limits, 0).map_err(|refused| refused.reason)
        };
        assert_eq!(asks(limits.entering_max), Err(Excess::TenantShare));
        assert_eq!(asks(0), Ok(()), "there is a place left for somebody else");
    }

    #[test]
    fn who_is_refused_by_a_crowd_waits_longer() {
        let told = |present, refused_lately, roll| {
            let load = Pressure { present, refused_lately, admitted_lately: 10, tenants: 1, ..Pressure::default() };
            admit(Demand::Agents, &load, &limits(), roll).expect_err("refused").retry_after
        };
        assert_eq!(told(100, 0, 0), Duration::from_millis(250));
        assert_eq!(told(100, 0, u64::MAX), Duration::from_millis(375), "jitter adds up to half");
        assert_eq!(told(200, 0, 0), Duration::from_millis(500));
        assert_eq!(told(100, 90, 0), Duration::from_millis(2_500));
        assert_eq!(told(100, 1_000_000, 0), limits().retry_after_max);
    }

    fn pressures() -> impl Strategy<Value = Pressure> {
        let agents = (0..200usize, 0..100usize, 0..2_000usize);
        let times = (0..1_000u64, 0..1_800u64, 0..2_000u64);
        (0..16usize, 0..40usize, 0..40usize, 1..5usize, agents, times, 0..128usize, 0..50u64, 0..50u64).prop_map(
            |(entering, unstarted, of_tenant, tenants, agents, times, unrecorded, admitted, refused)| {
                let (store_oldest_ms, memory_permille, lag_ms) = times;
                let (present, waiting, unfinished) = agents;
                Pressure {
                    entering,
                    unstarted,
                    unstarted_of_tenant: of_tenant.min(unstarted),
                    tenants,
                    present,
                    waiting,
                    unfinished,
                    store_oldest_ms,
                    unrecorded,
                    memory_permille,
                    lag_ms,
                    admitted_lately: admitted,
                    refused_lately: refused,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn below_every_limit_nothing_is_refused(load in pressures(), roll: u64) {
            let limits = limits();
            let below = Pressure {
                entering: load.entering % limits.entering_max,
                unstarted: load.unstarted % (limits.unstarted_max / 2),
                present: load.present % limits.present_agents_max,
                waiting: load.waiting % limits.waiting_agents_max,
                unfinished: load.unfinished % limits.unfinished_agents_max,
                store_oldest_ms: load.store_oldest_ms % 500,
                unrecorded: load.unrecorded % limits.unrecorded_max,
                memory_permille: load.memory_permille % limits.memory_permille_max,
                lag_ms: load.lag_ms % 1_000,
                ..load
            };
            prop_assert_eq!(admit(Demand::Agents, &below, &limits, roll), Ok(()));
            prop_assert_eq!(admit(Demand::Program, &below, &limits, roll), Ok(()));
        }

        #[test]
        fn more_pressure_is_refused_too_and_waits_at_least_as_long(less in pressures(), more in pressures(), roll: u64) {
            let above = Pressure {
                entering: less.entering + more.entering,
                unstarted: less.unstarted + more.unstarted,
                unstarted_of_tenant: less.unstarted_of_tenant + more.unstarted_of_tenant,
                tenants: less.tenants + more.tenants,
                present: less.present + more.present,
                waiting: less.waiting + more.waiting,
                unfinished: less.unfinished + more.unfinished,
                store_oldest_ms: less.store_oldest_ms + more.store_oldest_ms,
                unrecorded: less.unrecorded + more.unrecorded,
                memory_permille: less.memory_permille + more.memory_permille,
                lag_ms: less.lag_ms + more.lag_ms,
                admitted_lately: less.admitted_lately,
                refused_lately: less.refused_lately + more.refused_lately,
            };
            for demand in [Demand::Agents, Demand::Program] {
                if let Err(refused) = admit(demand, &less, &limits(), roll) {
                    let worse = admit(demand, &above, &limits(), roll);
                    prop_assert!(worse.is_err_and(|worse| worse.retry_after >= refused.retry_after));
                }
            }
        }
    }
}

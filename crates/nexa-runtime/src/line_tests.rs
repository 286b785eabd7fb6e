use std::collections::BTreeMap;

use nexa_types::Millis;
use proptest::prelude::*;

use super::*;

const SLICE: u64 = 10_000;
const ALL: [LoadBalanceStrategy; 5] = [
    LoadBalanceStrategy::RoundRobin,
    LoadBalanceStrategy::LeastLoaded,
    LoadBalanceStrategy::WeightedFair,
    LoadBalanceStrategy::PriorityBased,
    LoadBalanceStrategy::Adaptive,
];

fn agent(n: u16) -> AgentId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    AgentId::from_bytes(bytes)
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn share(name: &str, n: u16, tenant_weight: u32, priority: u8) -> Share {
    Share { agent: agent(n), tenant: tenant(name), tenant_weight, weight: parts(1.0), priority, computed: 0 }
}

fn of(tenant: &str, n: u16) -> Share {
    share(tenant, n, 1, 100)
}

/// Slices are taken one after the other, each of a millisecond; whoever computes for ever queues up again.
#[derive(Default)]
struct Model {
    line: Line<Share>,
    now: Timestamp,
}

impl Model {
    fn of(strategy: LoadBalanceStrategy) -> Self {
        Self { line: Line::new(strategy), now: Timestamp(0) }
    }

    fn comes(&mut self, share: Share, fuel: u64) {
        let earlier = self.line.push(share.clone(), self.now, fuel, share).1;
        assert!(earlier.is_none(), "it waits already");
    }

    /// Takes a slice, of which `used` is really used.
    fn slice(&mut self, used: u64) -> Share {
        let Turn { agent, tenant, fuel, item } = self.line.pop().expect("somebody always computes");
        self.now = self.now.after(Millis(1));
        self.line.settle(&tenant, agent, fuel, used);
        Share { computed: item.computed + used, ..item }
    }

    /// A slice of somebody who goes on computing.
    fn endless(&mut self) -> Share {
        let share = self.slice(SLICE);
        self.comes(share.clone(), SLICE);
        share
    }
}

#[test]
fn short_work_waits_for_a_slice_of_each_tenant_and_no_longer_however_many_compute_for_ever() {
    for strategy in [LoadBalanceStrategy::Adaptive, LoadBalanceStrategy::WeightedFair] {
        let mut model = Model::of(strategy);
        (0..50).for_each(|n| model.comes(of("ants", n), SLICE));
        (100..600).for_each(|n| model.comes(of("bees", n), SLICE));
        for round in 0..200 {
            (0..round % 17).for_each(|_| drop(model.endless()));
            model.comes(of("cats", 999), SLICE);
            let mut waited = 0;
            loop {
                let share = model.slice(if model.line.places.contains_key(&agent(999)) { SLICE } else { 500 });
                if share.agent == agent(999) {
                    break;
                }
                model.comes(share, SLICE);
                waited += 1;
            }
            assert!(waited <= 2, "{strategy:?}: it waited for {waited} slices in round {round}");
        }
    }
}

#[test]
fn an_agent_of_low_priority_computes_at_last_while_others_compute_for_ever() {
    let mut model = Model::default();
    (0..20).for_each(|n| model.comes(share("ants", n, 1, 255), SLICE));
    model.comes(share("ants", 99, 1, 0), SLICE);
    let mut slices = 0;
    while model.endless().agent != agent(99) {
        slices += 1;
    }
    assert!((20_000..=25_600).contains(&slices), "a slice is a millisecond, and it came after {slices}");
}

#[test]
fn equals_take_turns_under_every_strategy() {
    for strategy in ALL {
        let mut model = Model::of(strategy);
        (0..10).for_each(|n| model.comes(of("ants", n), SLICE));
        let turns: Vec<AgentId> = (0..30).map(|_| model.endless().agent).collect();
        assert_eq!(turns[..10], turns[10..20], "{strategy:?}");
        assert_eq!(turns[10..20], turns[20..], "{strategy:?}");
    }
}

#[test]
fn round_robin_looks_at_nothing_but_who_came_first() {
    let mut model = Model::of(LoadBalanceStrategy::RoundRobin);
    let shares = [share("ants", 3, 1, 0), share("bees", 2, 9, 255), Share { computed: 9, ..of("ants", 1) }];
    shares.into_iter().for_each(|share| model.comes(share, SLICE));
    assert_eq!([(); 3].map(|()| model.slice(1).agent), [agent(3), agent(2), agent(1)]);
}

#[test]
fn the_least_loaded_is_next_and_the_one_that_has_waited_longest_now_and_then() {
    let mut model = Model::of(LoadBalanceStrategy::LeastLoaded);
    model.comes(Share { computed: 1 << 40, ..of("ants", 1) }, SLICE);
    let mut waited = 0;
    for newcomer in 2.. {
        model.comes(of("bees", newcomer), SLICE);
        if model.slice(SLICE).agent == agent(1) {
            break;
        }
        waited += 1;
    }
    assert_eq!(waited + 1, LONGEST_WAIT_EVERY);
}

#[test]
fn a_high_priority_waits_for_no_lower_one_but_now_and_then() {
    let mut model = Model::of(LoadBalanceStrategy::PriorityBased);
    (0..40).for_each(|n| model.comes(share("ants", n, 1, if n % 2 == 0 { 10 } else { 20 }), SLICE));
    let turns: Vec<u8> = (0..15).map(|_| model.slice(SLICE).priority).collect();
    assert_eq!(turns, [20; 15]);
    assert_eq!(model.slice(SLICE).priority, 10, "whoever has waited longest");
    assert_eq!(model.slice(SLICE).priority, 20);
}

#[test]
fn who_has_something_to_hear_comes_before_who_comes_later_and_after_who_has_waited_longer() {
    let mut line = Line::default();
    let push = |line: &mut Line<u16>, now, n, priority| line.push(share("ants", n, 1, priority), now, SLICE, n);
    push(&mut line, Timestamp(0), 1, 0);
    push(&mut line, Timestamp(5), 2, 255);
    line.hurry(agent(1), Timestamp(10));
    push(&mut line, Timestamp(20), 3, 255);
    line.hurry(agent(3), Timestamp(30));
    line.hurry(agent(9), Timestamp(30));
    let order: Vec<u16> = std::iter::from_fn(|| line.pop()).map(|turn| turn.item).collect();
    assert_eq!(order, [2, 1, 3]);
    assert_eq!(line.len(), 0);
}

#[test]
fn who_has_something_to_hear_waits_for_few_slices_under_every_strategy() {
    for strategy in ALL {
        let mut model = Model::of(strategy);
        (0..20).for_each(|n| model.comes(share("ants", n, 1, 255), SLICE));
        (0..5_000).for_each(|_| drop(model.endless()));
        // Whatever would keep it back: its priority, its weight, and what it has had.
        let slow = Share { priority: 0, weight: 1, computed: 1 << 40, ..of("ants", 99) };
        model.comes(slow, SLICE);
        (0..25).for_each(|_| drop(model.endless()));
        model.line.hurry(agent(99), model.now);
        let waited = (0..).find(|_| model.endless().agent == agent(99)).unwrap();
        assert!(waited <= 20, "{strategy:?}: {waited} slices");
    }
}

#[test]
fn a_later_incarnation_takes_the_place_of_an_earlier_one_whose_ticket_is_worth_nothing() {
    for strategy in ALL {
        let mut line = Line::new(strategy);
        let (first, _) = line.push(of("ants", 1), Timestamp(0), SLICE, 'a');
        let (second, earlier) = line.push(of("ants", 1), Timestamp(1), SLICE, 'b');
        assert_eq!(earlier, Some('a'));
        assert_eq!(line.withdraw(agent(1), first), None);
        assert_eq!(line.withdraw(agent(1), second), Some('b'));
        assert_eq!((line.len(), line.pop().is_none()), (0, true));
    }
}

#[test]
fn weights_are_counted_within_bounds() {
    assert_eq!([0.0, 0.001, 0.5, 1.0, 2.5, 1e9].map(parts), [1, 1, 50, 100, 250, 10_000]);
    assert_eq!((parts(f64::NAN), parts(-1.0)), (1, 1));
}

/// Fuel that each agent gets of 12,000 slices, beside what it should have, in parts of that.
fn deviations(
    strategy: LoadBalanceStrategy,
    shares: &[Share],
    used: &[u64],
    wanted: impl Fn(&Share) -> f64,
) -> Vec<f64> {
    let mut model = Model::of(strategy);
    shares.iter().for_each(|share| model.comes(share.clone(), SLICE));
    let mut got = BTreeMap::new();
    let mut turns = BTreeMap::new();
    for _ in 0..12_000 {
        // What an agent uses of a slice is its own way, and nobody knows before.
        let next = model.line.pop().expect("somebody always computes");
        let n = turns.entry(next.agent).and_modify(|n| *n += 1).or_insert(0_usize);
        let used = used[*n % used.len()];
        model.line.settle(&next.tenant, next.agent, next.fuel, used);
        *got.entry(next.agent).or_insert(0) += used;
        model.now = model.now.after(Millis(1));
        model.comes(Share { computed: next.item.computed + used, ..next.item }, SLICE);
    }
    let all: u64 = got.values().sum();
    let of_all: f64 = shares.iter().map(&wanted).sum();
    let got = |share: &Share| got.get(&share.agent).copied().unwrap_or(0) as f64 / all as f64;
    shares.iter().map(|share| got(share) / (wanted(share) / of_all) - 1.0).collect()
}

/// Agents of tenants, with weights of both.
fn any_shares() -> impl Strategy<Value = Vec<Share>> {
    let tenants = proptest::collection::vec((1u32..5, proptest::collection::vec(1u32..5, 1..5)), 1..4);
    tenants.prop_map(|tenants| {
        let mut shares = Vec::new();
        for (t, (tenant_weight, weights)) in tenants.into_iter().enumerate() {
            for weight in weights {
                let weight = parts(f64::from(weight) / 2.0);
                let n = shares.len() as u16;
                shares.push(Share { weight, ..share(&format!("t{t}"), n, tenant_weight, 100) });
            }
        }
        shares
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn shares_are_within_five_percent_of_what_the_strategy_promises(
        shares in any_shares(),
        used in proptest::collection::vec(1u64..=SLICE, 1..8),
    ) {
        let of_tenant = |share: &Share, part: fn(&Share) -> f64| -> f64 {
            let all: f64 = shares.iter().filter(|other| other.tenant == share.tenant).map(part).sum();
            f64::from(share.tenant_weight) * part(share) / all
        };
        for strategy in ALL {
            let wanted = |share: &Share| match strategy {
                LoadBalanceStrategy::WeightedFair => of_tenant(share, |share| f64::from(share.weight)),
                LoadBalanceStrategy::Adaptive => of_tenant(share, |_| 1.0),
                LoadBalanceStrategy::RoundRobin
                | LoadBalanceStrategy::LeastLoaded
                | LoadBalanceStrategy::PriorityBased => 1.0,
            };
            let deviations = deviations(strategy, &shares, &used, wanted);
            prop_assert!(deviations.iter().all(|by| by.abs() <= 0.05), "{strategy:?}: {deviations:?} for {shares:?}");
        }
    }

    /// One agent comes last, with everything against it, while those before it go on and others keep coming.
    #[test]
    fn nobody_waits_longer_than_the_bound_of_the_strategy(
        shares in any_shares(),
        priority in 220u8..,
        before in 0usize..200,
        comes_every in 1usize..4,
    ) {
        for strategy in ALL {
            let mut model = Model::of(strategy);
            shares.iter().for_each(|share| model.comes(Share { priority: 255, ..share.clone() }, SLICE));
            (0..before).for_each(|_| drop(model.endless()));
            let last = Share { priority, computed: 1 << 40, ..share("t0", 900, shares[0].tenant_weight, priority) };
            let ahead = model.line.len() as u64;
            let since = model.now;
            model.comes(last.clone(), SLICE);
            let mut newcomers = 1_000..;
            let (mut waited, mut in_time) = (0, 0);
            let late = Millis(crate::fair::PRIORITY_STEP.0 * u64::from(255 - priority));
            loop {
                if (waited as usize).is_multiple_of(comes_every) && strategy != LoadBalanceStrategy::WeightedFair {
                    // Of its own tenant, of the highest priority, and without anything to its name. It goes again soon.
                    let n = newcomers.next().unwrap();
                    model.comes(share("t0", n, shares[0].tenant_weight, 255), SLICE);
                    in_time += u64::from(model.now.since(since) <= late);
                }
                let next = model.slice(SLICE);
                if next.agent == last.agent {
                    break;
                }
                if next.agent < agent(1_000) {
                    in_time += u64::from(next.tenant == last.tenant && model.now.since(since) <= late);
                    model.comes(next, SLICE);
                }
                waited += 1;
            }
            let weights = |by: &dyn Fn(&Share) -> (TenantId, u32)| shares.iter().map(by).collect::<BTreeMap<_, _>>();
            let tenants = weights(&|share| (share.tenant.clone(), share.tenant_weight));
            let own = shares[0].tenant_weight;
            // Slices of all tenants for so many of its own.
            let in_all = |turns: u64| -> u64 {
                tenants.values().map(|weight| (turns + 1) * u64::from(*weight) / u64::from(own) + 1).sum()
            };
            let bound = match strategy {
                LoadBalanceStrategy::RoundRobin => ahead,
                LoadBalanceStrategy::LeastLoaded | LoadBalanceStrategy::PriorityBased => {
                    LONGEST_WAIT_EVERY * (ahead + 1)
                }
                LoadBalanceStrategy::Adaptive => in_all(ahead + in_time),
                LoadBalanceStrategy::WeightedFair => {
                    let of_own = shares.iter().filter(|share| share.tenant == last.tenant);
                    in_all(of_own.map(|share| u64::from(share.weight / last.weight) + 2).sum::<u64>())
                }
            };
            prop_assert!(waited <= bound, "{strategy:?}: {waited} slices, more than {bound}");
        }
    }

    /// Who came at the same moment with the same rights is of one kind; which of them is first is nobody's business.
    #[test]
    fn the_order_of_equal_pushes_does_not_matter(
        kinds in proptest::collection::vec((0u8..3, 0u8..3), 1..15),
        seed: u64,
    ) {
        let shares: Vec<Share> = kinds.iter().enumerate().map(|(n, (of, kind))| {
            let priority = 100 + 10 * *kind;
            let computed = u64::from(*kind) * 500;
            Share { computed, ..share(&format!("t{of}"), n as u16, u32::from(*of) + 1, priority) }
        }).collect();
        let mut shuffled = shares.clone();
        shuffled.sort_by_key(|share| (u64::from(share.agent.as_bytes()[1]) + 1).wrapping_mul(seed | 1).rotate_left(17));
        for strategy in ALL.into_iter().filter(|strategy| *strategy != LoadBalanceStrategy::RoundRobin) {
            let order = |shares: &[Share]| -> Vec<String> {
                let mut model = Model::of(strategy);
                shares.iter().for_each(|share| model.comes(share.clone(), SLICE));
                (0..shares.len()).map(|_| {
                    let Share { tenant, priority, .. } = model.slice(SLICE);
                    match strategy {
                        LoadBalanceStrategy::Adaptive => format!("{tenant} {priority}"),
                        LoadBalanceStrategy::WeightedFair => tenant.to_string(),
                        _ => priority.to_string(),
                    }
                }).collect()
            };
            prop_assert_eq!(order(&shares), order(&shuffled), "{:?}", strategy);
        }
    }

    #[test]
    fn nothing_is_lost_or_given_twice(
        steps in proptest::collection::vec((0u8..6, 0u8..3, 0u16..40), 1..300),
        which in 0usize..ALL.len(),
    ) {
        let mut line = Line::new(ALL[which]);
        let mut there: BTreeMap<u16, u64> = BTreeMap::new();
        for (now, (what, of, n)) in steps.into_iter().enumerate() {
            let now = Timestamp(now as u64);
            match what {
                0..=2 => {
                    let who = Share { computed: u64::from(n), ..share(&format!("t{of}"), n, 1, n as u8) };
                    let (ticket, earlier) = line.push(who, now, SLICE, n);
                    prop_assert_eq!(earlier.is_some(), there.insert(n, ticket).is_some());
                }
                3 => {
                    let ticket = there.get(&n).copied();
                    let gone = line.withdraw(agent(n), ticket.unwrap_or(u64::MAX));
                    prop_assert_eq!(gone.is_some(), there.remove(&n).is_some());
                }
                4 => line.hurry(agent(n), now),
                _ => {
                    let turn = line.pop();
                    prop_assert!(turn.is_some() || there.is_empty());
                    if let Some(turn) = turn {
                        prop_assert!(there.remove(&turn.item).is_some());
                        line.settle(&turn.tenant, turn.agent, turn.fuel, u64::from(n));
                    }
                }
            }
            prop_assert_eq!(line.len(), there.len());
        }
        while let Some(turn) = line.pop() {
            prop_assert!(there.remove(&turn.item).is_some());
        }
        prop_assert!(there.is_empty());
    }
}

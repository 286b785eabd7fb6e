//! Many tenants on one rate-limited lane, in virtual time, against a provider that keeps its own count.
//!
//! The provider knows what a call really reads and writes, the table only what the request looks like. It refuses by the
//! minute and, for requests and what they read, by the second too. What is written it counts when it is written.

use std::collections::BTreeMap;

use nexa_event::fact::EffectResult;
use nexa_ports::model::LaneLimits;
use nexa_types::{AgentId, EffectKey, Failure, Millis, RunCode, Seq, Spend, TenantId, Timestamp};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::budget::Cost;
use super::lane::{Ending, LaneKind, Pass, Wanted};
use super::slots::{Finished, ModelLimits, Reserve, Slots};

const TEN_MINUTES: u64 = 600_000;
const PATIENCE: Millis = Millis(60_000);

/// Numbers that look like chance and are the same in each run (SplitMix64).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound.max(1)
    }

    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }
}

/// The provider's count of one thing, in floating point: nothing in common with ours.
struct Meter {
    per_ms: f64,
    most: f64,
    left: f64,
    at: u64,
}

impl Meter {
    fn new(per_minute: u64, window_ms: f64) -> Self {
        let per_ms = per_minute as f64 / 60_000.0;
        let most = (per_ms * window_ms).max(1.0);
        Self { per_ms, most, left: most, at: 0 }
    }

    fn left(&mut self, now: u64) -> f64 {
        self.left = (self.left + self.per_ms * (now - self.at) as f64).min(self.most);
        self.at = now;
        self.left
    }

    /// Whether so much is left, or all that there can be.
    fn has(&mut self, count: f64, now: u64) -> bool {
        self.left(now) + 1e-6 >= count.min(self.most)
    }
}

struct Provider {
    requests: Vec<Meter>,
    input: Vec<Meter>,
    output: Vec<Meter>,
}

impl Provider {
    fn of(limits: &LaneLimits) -> Self {
        let meters = |rate: Option<u64>, windows: &[f64]| -> Vec<Meter> {
            rate.iter().flat_map(|rate| windows.iter().map(|window| Meter::new(*rate, *window))).collect()
        };
        Self {
            requests: meters(limits.requests_per_minute, &[60_000.0, 1_000.0]),
            input: meters(limits.input_tokens_per_minute, &[60_000.0, 1_000.0]),
            output: meters(limits.output_tokens_per_minute, &[60_000.0]),
        }
    }

    fn takes(&mut self, input: u64, now: u64) -> bool {
        let input = input as f64;
        let fits = self.requests.iter_mut().all(|meter| meter.has(1.0, now))
            && self.input.iter_mut().all(|meter| meter.has(input, now))
            && self.output.iter_mut().all(|meter| meter.left(now) > 0.0);
        if fits {
            self.requests.iter_mut().for_each(|meter| meter.left -= 1.0);
            self.input.iter_mut().for_each(|meter| meter.left -= input);
        }
        fits
    }

    fn wrote(&mut self, output: u64, now: u64) {
        for meter in &mut self.output {
            meter.left(now);
            meter.left -= output as f64;
        }
    }
}

/// What the agents of a tenant are like.
#[derive(Debug, Clone)]
struct Demand {
    agents: usize,
    weight: u32,
    /// Between an answer and the next wish.
    think_ms: u64,
    /// Tokens that its requests look like, and percent of that which they are.
    input: (u64, u64),
    output: (u64, u64),
    /// Every other agent asks with this priority.
    priority: u8,
}

#[derive(Default, Debug, Clone)]
struct Got {
    tokens: u64,
    calls: u64,
}

struct Agent {
    tenant: usize,
    calls: u64,
    wished: u64,
    longest: u64,
    real: Cost,
}

enum Event {
    Wishes(usize),
    Sends(usize),
    Arrives(usize, Pass),
    Lands(usize, Pass, Option<Cost>),
}

struct World {
    now: u64,
    chance: Chance,
    slots: Slots,
    kind: LaneKind,
    provider: Provider,
    says_when: bool,
    demands: Vec<Demand>,
    agents: Vec<Agent>,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    got: Vec<Got>,
    requests: u64,
    input: u64,
    output: u64,
    refused: u64,
}

fn id(agent: usize) -> AgentId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(agent as u64).to_be_bytes());
    AgentId::from_bytes(bytes)
}

fn number(agent: AgentId) -> usize {
    u64::from_be_bytes(agent.as_bytes()[..8].try_into().unwrap()) as usize
}

impl World {
    fn new(limits: LaneLimits, demands: Vec<Demand>, seed: u64) -> Self {
        let mut world = Self {
            now: 0,
            chance: Chance(seed),
            slots: Slots::new(ModelLimits { reservations_max: 100_000, held_results_max: 4_096 }),
            kind: LaneKind { limits, has_breaker: true },
            provider: Provider::of(&limits),
            says_when: !seed.is_multiple_of(2),
            got: vec![Got::default(); demands.len()],
            demands,
            agents: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            requests: 0,
            input: 0,
            output: 0,
            refused: 0,
        };
        for tenant in 0..world.demands.len() {
            for _ in 0..world.demands[tenant].agents {
                let agent = world.agents.len();
                world.agents.push(Agent { tenant, calls: 0, wished: 0, longest: 0, real: Cost::default() });
                let start = world.chance.below(1_000);
                world.at(start, Event::Wishes(agent));
            }
        }
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.insert((time, self.count), event);
    }

    /// Those who have got a slot first write that they begin, which takes a moment.
    fn granted(&mut self, granted: Vec<AgentId>) {
        for agent in granted {
            let later = self.now + self.chance.below(40);
            self.at(later, Event::Sends(number(agent)));
        }
    }

    fn run(&mut self, until: u64) {
        loop {
            let next = self.events.first_key_value().map(|((time, _), _)| *time).unwrap_or(u64::MAX);
            let due = self.slots.due().map_or(u64::MAX, |due| due.0);
            self.now = next.min(due);
            if self.now >= until {
                return;
            }
            if due < next {
                let granted = self.slots.ring(Timestamp(self.now));
                self.granted(granted);
            } else if let Some((_, event)) = self.events.pop_first() {
                self.happens(event);
            }
        }
    }

    fn happens(&mut self, event: Event) {
        let now = Timestamp(self.now);
        match event {
            Event::Wishes(agent) => {
                let demand = &self.demands[self.agents[agent].tenant];
                let priority = if agent.is_multiple_of(2) { demand.priority } else { 128 };
                let shown = |(least, _): (u64, u64), chance: &mut Chance| chance.between(least / 2, least + least / 2);
                let input = shown(demand.input, &mut self.chance);
                let output = demand.output.0;
                let wanted = Wanted {
                    agent: id(agent),
                    tenant: TenantId::new(&format!("tenant-{}", self.agents[agent].tenant)).unwrap(),
                    weight: demand.weight,
                    priority,
                    cost: Cost { input, output },
                    patience: PATIENCE,
                };
                let percent = |count: u64, percent: u64| (count * percent / 100).max(1);
                let written = self.chance.between(demand.output.1 / 2, demand.output.1 + demand.output.1 / 2);
                let real = Cost { input: percent(input, demand.input.1), output: percent(output, written) };
                (self.agents[agent].real, self.agents[agent].wished) = (real, self.now);
                let (reserved, mut others) = self.slots.reserve("acme".to_owned(), self.kind, wanted, now);
                assert_ne!(reserved, Reserve::Full);
                if reserved == Reserve::Granted {
                    others.push(id(agent));
                }
                self.granted(others);
            }
            Event::Sends(agent) => {
                let waited = self.now - self.agents[agent].wished;
                self.agents[agent].longest = self.agents[agent].longest.max(waited);
                let (key, attempt) = (EffectKey::from_bytes([0; 32]), 1);
                let flight = self.slots.take_off(id(agent), key, attempt, (CancellationToken::new(), now), now);
                let (_, pass, others) = flight.expect("a slot is held");
                self.granted(others);
                let later = self.now + self.chance.below(10);
                self.at(later, Event::Arrives(agent, pass));
            }
            Event::Arrives(agent, pass) => {
                let real = self.agents[agent].real;
                self.requests += 1;
                if self.provider.takes(real.input, self.now) {
                    self.input += real.input;
                    let takes = self.chance.between(500, 1_500) + real.output * 10;
                    self.at(self.now + takes, Event::Lands(agent, pass, Some(real)));
                } else {
                    self.refused += 1;
                    self.at(self.now + 20, Event::Lands(agent, pass, None));
                }
            }
            Event::Lands(agent, pass, real) => {
                let tenant = self.agents[agent].tenant;
                let ending = match real {
                    Some(real) => {
                        self.provider.wrote(real.output, self.now);
                        self.output += real.output;
                        self.got[tenant].tokens += real.input + real.output;
                        self.got[tenant].calls += 1;
                        self.agents[agent].calls += 1;
                        Ending::Answered(real)
                    }
                    None => Ending::Failed {
                        code: RunCode::RateLimited,
                        retry_after: self.says_when.then_some(Millis(1_000)),
                    },
                };
                let key = EffectKey::from_bytes([0; 32]);
                let result = EffectResult::Failed(Failure::new(RunCode::Failed, "not looked at"));
                let finished = Finished { key, seq: Seq(1), attempt: 1, result, spend: Spend::default() };
                let (is_wanted, granted) = self.slots.land("acme", pass, ending, id(agent), finished, now);
                assert!(is_wanted);
                self.granted(granted);
                let granted = self.slots.settle(id(agent), key, now);
                self.granted(granted);
                let think = self.demands[tenant].think_ms;
                let later = self.now + think / 2 + self.chance.below(think);
                self.at(later, Event::Wishes(agent));
            }
        }
    }

    /// Tokens by weight of those tenants that always wait.
    fn shares(&self, waits: impl Fn(usize) -> bool) -> Vec<f64> {
        let all = self.got.iter().zip(&self.demands).enumerate().filter(|(tenant, _)| waits(*tenant));
        all.map(|(_, (got, demand))| got.tokens as f64 / f64::from(demand.weight)).collect()
    }
}

/// 1 if all have got the same, 1/n if one has got everything.
pub(super) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// Twenty tenants: fifteen with far more agents than their share lets work, five that ask now and then. Requests are
/// short or long, and look like between a third and three times what they are.
fn twenty() -> Vec<Demand> {
    (0..20u64)
        .map(|tenant| Demand {
            agents: if tenant < 15 { 40 + 20 * tenant as usize } else { 2 },
            weight: match tenant {
                3 => 2,
                4 => 4,
                _ => 1,
            },
            think_ms: if tenant < 15 { 200 } else { 20_000 },
            input: (200 + 150 * (tenant % 7), [100, 80, 120][tenant as usize % 3]),
            output: (300 + 100 * (tenant % 4), [100, 33, 60][tenant as usize % 3]),
            priority: if tenant % 2 == 0 { 0 } else { 255 },
        })
        .collect()
}

fn limits(requests: Option<u64>, input: Option<u64>, output: Option<u64>) -> LaneLimits {
    LaneLimits {
        concurrency: 1_000,
        requests_per_minute: requests,
        input_tokens_per_minute: input,
        output_tokens_per_minute: output,
    }
}

fn told(world: &World) -> String {
    let shares = world.shares(|tenant| tenant < 15);
    format!(
        "requests {} input {} output {} refused {} jain {:.4} {shares:?}",
        world.requests,
        world.input,
        world.output,
        world.refused,
        jain(&shares)
    )
}

/// What must hold of ten minutes, whichever budget is the scarce one.
fn holds(world: &World, used: u64, per_minute: u64) {
    let told = told(world);
    let share = used as f64 / (per_minute as f64 * 10.0);
    assert!((0.95..1.02).contains(&share), "used {share:.4} of the budget: {told}");
    assert!(world.refused * 1_000 <= world.requests, "429s: {told}");
    assert!(jain(&world.shares(|tenant| tenant < 15)) >= 0.98, "{told}");
}

#[test]
fn twenty_tenants_share_a_budget_of_requests() {
    let mut world = World::new(limits(Some(1_200), None, None), twenty(), 1);
    world.run(TEN_MINUTES);
    holds(&world, world.requests, 1_200);
}

#[test]
fn twenty_tenants_share_a_budget_of_tokens_read() {
    let mut world = World::new(limits(Some(6_000), Some(400_000), None), twenty(), 2);
    world.run(TEN_MINUTES);
    holds(&world, world.input, 400_000);
}

#[test]
fn twenty_tenants_share_a_budget_of_tokens_written() {
    let mut world = World::new(limits(Some(6_000), Some(4_000_000), Some(150_000)), twenty(), 3);
    world.run(TEN_MINUTES);
    holds(&world, world.output, 150_000);
}

#[test]
fn who_asks_now_and_then_is_not_kept_waiting_and_no_priority_starves() {
    let mut world = World::new(limits(Some(1_200), None, None), twenty(), 4);
    world.run(TEN_MINUTES);
    for (number, agent) in world.agents.iter().enumerate() {
        if agent.tenant >= 15 {
            assert!(agent.longest < 10_000, "agent {number} of a quiet tenant waited for {} ms", agent.longest);
        }
    }
    // In a tenant with a few agents, a low priority costs them 12.8 s and not their turn.
    let of_the_first = || world.agents.iter().enumerate().filter(|(_, agent)| agent.tenant == 0);
    let calls = |low: bool| -> u64 {
        of_the_first().filter(|(number, _)| number.is_multiple_of(2) == low).map(|(_, agent)| agent.calls).sum()
    };
    assert!(of_the_first().all(|(_, agent)| agent.calls > 0), "somebody had no turn");
    assert!(calls(true) < calls(false), "{} {}", calls(true), calls(false));
}

#[test]
fn ten_thousand_agents_wait_in_one_lane() {
    let many = Demand { agents: 10_000, weight: 1, think_ms: 100, input: (400, 100), output: (300, 50), priority: 128 };
    let mut world = World::new(limits(Some(6_000), None, None), vec![many; 2], 5);
    world.run(TEN_MINUTES);
    let told = format!("{} of {} refused", world.refused, world.requests);
    assert!((57_000..=60_100).contains(&world.requests) && world.refused * 1_000 <= world.requests, "{told}");
    let least = world.agents.iter().map(|agent| agent.calls).min();
    assert!(least >= Some(1), "everybody has had a turn");
}

/// No request reads more than a second gives: a provider that counts by the second would refuse that one half of the time,
/// whatever is done about it, because calls do not arrive exactly as they were sent.
fn demand() -> impl Strategy<Value = Demand> {
    let whole = (1u32..4, 1u64..1_000, (200u64..400, 33u64..200), (200u64..800, 33u64..100), any::<u8>());
    whole.prop_map(|(weight, think_ms, input, output, priority)| Demand {
        agents: 1_500,
        weight,
        think_ms,
        input,
        output,
        priority,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Whatever tenants are like that always wait: all is used, hardly anything is refused, and shares go by weight.
    #[test]
    fn shares_of_any_demand_are_fair(
        demands in prop::collection::vec(demand(), 2..8),
        per_minute in 150_000u64..300_000,
        is_input in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (input, output) = if is_input { (Some(per_minute), None) } else { (None, Some(per_minute)) };
        let limits = LaneLimits { concurrency: 10_000, ..limits(None, input, output) };
        let mut world = World::new(limits, demands, seed);
        // Until the first answers have come, nobody knows how far off estimates are.
        world.run(60_000);
        let early = world.refused;
        world.run(5 * 60_000);
        let used = if is_input { world.input } else { world.output };
        let shares = world.shares(|_| true);
        let told = format!("used {used} of {}, {} of {} refused, {shares:?}", per_minute * 5, world.refused, world.requests);
        prop_assert!(used * 100 >= per_minute * 5 * 95, "{told}");
        prop_assert!(used * 100 <= per_minute * 5 * 103, "{told}");
        prop_assert!(early <= 20, "{early} early ones: {told}");
        prop_assert!((world.refused - early) * 1_000 <= world.requests.max(2_000), "{early} early ones: {told}");
        prop_assert!(jain(&shares) >= 0.98, "{told}");
    }
}

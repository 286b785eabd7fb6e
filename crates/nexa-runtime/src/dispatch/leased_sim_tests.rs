//! Many tenants on one budget over several nodes, in virtual time: the tables of the nodes, their slices, a leader, and what
//! goes wrong between them, against a provider that counts every minute, wherever it begins.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nexa_event::fact::EffectResult;
use nexa_ports::model::LaneLimits;
use nexa_sched::ProviderBudget;
use nexa_sched::lease::{
    Budgets, HolderId, Leader, LeaderEpoch, LeaderInput, LeaderOutput, LeaderSettings, Notice, Report, SliceRecord,
    WaitingTenants, WaitingWhere,
};
use nexa_types::{AgentId, EffectKey, Failure, Generation, Millis, NodeId, RunCode, Seq, Spend, TenantId, Timestamp};
use tokio_util::sync::CancellationToken;

use super::budget::Cost;
use super::lane::{Ending, LaneKind, Pass, Wanted};
use super::sim_tests::{Chance, jain};
use super::slots::{Finished, ModelLimits, Reserve, Slots};

const NODES: usize = 3;
const TENANTS: usize = 20;
const AGENTS: usize = 60;
const MINUTE: u64 = 60_000;
/// How long a lease lasts without being renewed.
const TERM: u64 = 3_000;
const LANE: &str = "acme";
/// As a node has them.
const SETTINGS: LeaderSettings = LeaderSettings { request_max: Millis(120_000), ahead: Some(Millis(5_000)) };

/// Counts what came within the last minute.
#[derive(Default)]
struct Minute {
    came: VecDeque<(u64, u64)>,
    sum: u64,
    all: u64,
}

impl Minute {
    fn sum(&mut self, now: u64) -> u64 {
        while let Some((_, count)) = self.came.front().copied().filter(|(then, _)| then + MINUTE <= now) {
            self.sum -= count;
            self.came.pop_front();
        }
        self.sum
    }

    fn count(&mut self, count: u64, now: u64) {
        self.came.push_back((now, count));
        self.sum += count;
        self.all += count;
    }
}

/// Counts what comes too quickly for a provider that gives its minute out second by second.
#[derive(Default)]
struct Seconds {
    /// What came and is not paid for: a request is [`MINUTE`], and each millisecond pays what the minute has.
    debt: u64,
    at: u64,
    hasty: u64,
}

impl Seconds {
    fn count(&mut self, per_minute: u64, now: u64) {
        self.debt = self.debt.saturating_sub(per_minute * (now - self.at));
        self.at = now;
        if self.debt + MINUTE > 1_000 * per_minute {
            self.hasty += 1;
        } else {
            self.debt += MINUTE;
        }
    }
}

struct Agent {
    tenant: usize,
    node: usize,
    /// Whether it has wished for a call on this node that has not ended.
    is_busy: bool,
    real: Cost,
}

struct Member {
    slots: Slots,
    run: HolderId,
    is_alive: bool,
}

enum Event {
    Wishes(usize),
    Sends(usize, usize),
    Arrives(usize, usize, Pass),
    Lands(usize, usize, Pass, Option<Cost>),
    Reports(usize),
    Ticks,
    ToLeader(Report, Vec<(String, WaitingTenants)>),
    Notice(usize, Notice),
    Elsewhere(usize, Vec<(String, WaitingTenants)>),
    Write(SliceRecord),
    Written(SliceRecord),
    Gone(HolderId),
    Elected,
}

/// What goes wrong with messages: so many of a hundred get lost, or come twice, and the longest that one takes.
#[derive(Clone, Copy)]
struct Net {
    lost: u64,
    twice: u64,
    delay: u64,
}

const GOOD: Net = Net { lost: 0, twice: 0, delay: 20 };
const BAD: Net = Net { lost: 25, twice: 25, delay: 1_500 };

struct World {
    now: u64,
    chance: Chance,
    net: Net,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    budget: ProviderBudget,
    kind: LaneKind,
    nodes: Vec<Member>,
    agents: Vec<Agent>,
    /// Whether agents whose call was answered wish for another one.
    again: bool,
    leader: Option<Leader>,
    epoch: LeaderEpoch,
    tenants: WaitingWhere,
    store: BTreeMap<HolderId, SliceRecord>,
    requests: Minute,
    input: Minute,
    output: Minute,
    seconds: Seconds,
    refused: u64,
    got: Vec<u64>,
}

fn id(agent: usize) -> AgentId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(agent as u64).to_be_bytes());
    AgentId::from_bytes(bytes)
}

fn number(agent: AgentId) -> usize {
    u64::from_be_bytes(agent.as_bytes()[..8].try_into().unwrap()) as usize
}

fn budget(requests: Option<u64>, input: Option<u64>, output: Option<u64>) -> ProviderBudget {
    ProviderBudget {
        provider: LANE.to_owned(),
        requests_per_minute: requests,
        input_tokens_per_minute: input,
        output_tokens_per_minute: output,
        concurrency: Some(400),
    }
}

impl World {
    /// Every other tenant has all its agents on one node, the others have theirs everywhere.
    fn new(budget: ProviderBudget, net: Net, seed: u64) -> Self {
        let limits = LaneLimits {
            concurrency: 400,
            requests_per_minute: budget.requests_per_minute,
            input_tokens_per_minute: budget.input_tokens_per_minute,
            output_tokens_per_minute: budget.output_tokens_per_minute,
        };
        let nodes = (0..NODES).map(|at| {
            let node = NodeId::new(&format!("n{at}")).unwrap();
            let run = HolderId { node, generation: Generation(at as u64 + 1) };
            let mut slots = Slots::new(ModelLimits { reservations_max: 100_000, held_results_max: 4_096 });
            slots.lease(std::slice::from_ref(&budget));
            slots.begins(run.clone(), Timestamp(0));
            Member { slots, run, is_alive: true }
        });
        let nodes: Vec<Member> = nodes.collect();
        let agents = (0..TENANTS * AGENTS).map(|at| {
            let (tenant, nth) = (at / AGENTS, at % AGENTS);
            let node = if tenant.is_multiple_of(2) { nth % NODES } else { (tenant / 2) % NODES };
            Agent { tenant, node, is_busy: false, real: Cost::default() }
        });
        let mut world = Self {
            now: 0,
            chance: Chance(seed),
            net,
            events: BTreeMap::new(),
            count: 0,
            kind: LaneKind { limits, has_breaker: true },
            budget,
            nodes,
            agents: agents.collect(),
            again: true,
            leader: None,
            epoch: LeaderEpoch(0),
            tenants: WaitingWhere::default(),
            store: BTreeMap::new(),
            requests: Minute::default(),
            input: Minute::default(),
            output: Minute::default(),
            seconds: Seconds::default(),
            refused: 0,
            got: vec![0; TENANTS],
        };
        for agent in 0..world.agents.len() {
            let start = world.chance.below(1_000);
            world.at(start, Event::Wishes(agent));
        }
        (0..NODES).for_each(|node| world.at(300 * node as u64, Event::Reports(node)));
        world.at(0, Event::Elected);
        world.at(500, Event::Ticks);
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.events.insert((time, self.count), event);
    }

    /// Over the network.
    fn send(&mut self, make: impl Fn() -> Event) {
        let Net { lost, twice, delay } = self.net;
        let copies = if self.chance.below(100) < lost { 0 } else { 1 + u64::from(self.chance.below(100) < twice) };
        for _ in 0..copies {
            let at = self.now + 1 + self.chance.below(delay);
            self.at(at, make());
        }
    }

    fn granted(&mut self, node: usize, granted: Vec<AgentId>) {
        for agent in granted {
            // The append that it begins.
            let later = self.now + self.chance.below(40);
            self.at(later, Event::Sends(number(agent), node));
        }
    }

    fn run(&mut self, until: u64) {
        loop {
            let next = self.events.first_key_value().map_or(u64::MAX, |((time, _), _)| *time);
            let alive = self.nodes.iter().enumerate().filter(|(_, node)| node.is_alive);
            let due = alive.filter_map(|(at, node)| Some((node.slots.due()?.0, at))).min();
            match due.filter(|(due, _)| *due < next && *due < until) {
                Some((due, node)) => {
                    self.now = due;
                    let granted = self.nodes[node].slots.ring(Timestamp(due));
                    self.granted(node, granted);
                }
                None if next >= until => {
                    self.now = until;
                    return;
                }
                None => {
                    self.now = next;
                    if let Some((_, event)) = self.events.pop_first() {
                        self.happens(event);
                    }
                }
            }
        }
    }

    /// Whether an agent is on a node that is alive.
    fn is_on(&self, agent: usize, node: usize) -> bool {
        self.agents[agent].node == node && self.nodes[node].is_alive
    }

    fn happens(&mut self, event: Event) {
        let now = Timestamp(self.now);
        match event {
            Event::Wishes(agent) => self.wishes(agent),
            Event::Sends(agent, node) if self.is_on(agent, node) => {
                let key = EffectKey::from_bytes([0; 32]);
                let taken = self.nodes[node].slots.take_off(id(agent), key, 1, (CancellationToken::new(), now), now);
                let (_, pass, granted) = taken.expect("a slot is held");
                assert_eq!(pass.refusal(), None);
                self.granted(node, granted);
                let later = self.now + self.chance.below(100);
                self.at(later, Event::Arrives(agent, node, pass));
            }
            Event::Arrives(agent, node, pass) => {
                // Also what a node has sent before it died arrives, and is answered.
                let real = self.agents[agent].real;
                let over = |limit: Option<u64>, sum: u64| limit.is_some_and(|limit| sum > limit);
                let is_over = over(self.budget.requests_per_minute, self.requests.sum(self.now) + 1)
                    || over(self.budget.input_tokens_per_minute, self.input.sum(self.now) + real.input)
                    || over(self.budget.output_tokens_per_minute, self.output.sum(self.now) + 1);
                if is_over {
                    self.refused += 1;
                    self.at(self.now + 20, Event::Lands(agent, node, pass, None));
                } else {
                    self.requests.count(1, self.now);
                    if let Some(per_minute) = self.budget.requests_per_minute {
                        self.seconds.count(per_minute, self.now);
                    }
                    self.input.count(real.input, self.now);
                    let takes = self.chance.between(500, 1_500) + real.output * 4;
                    self.at(self.now + takes, Event::Lands(agent, node, pass, Some(real)));
                }
            }
            Event::Lands(agent, node, pass, real) => {
                self.output.count(real.map_or(0, |real| real.output), self.now);
                if self.is_on(agent, node) {
                    self.lands(agent, node, pass, real);
                }
            }
            Event::Reports(node) if self.nodes[node].is_alive => {
                if let Some((report, tenants)) = self.nodes[node].slots.report(now) {
                    self.send(|| Event::ToLeader(report.clone(), tenants.clone()));
                }
                self.at(self.now + 1_000, Event::Reports(node));
            }
            Event::ToLeader(report, tenants) if self.leader.is_some() => {
                let run = report.holder.clone();
                self.tenants.hear(&run, &tenants, now);
                let elsewhere = self.tenants.elsewhere(&run, now);
                let node = self.nodes.iter().position(|node| node.run == run).unwrap();
                self.send(|| Event::Elsewhere(node, elsewhere.clone()));
                self.lead(LeaderInput::Report(report));
            }
            Event::Ticks => {
                self.lead(LeaderInput::Tick);
                self.at(self.now + 1_000, Event::Ticks);
            }
            Event::Notice(node, notice) if self.nodes[node].is_alive => {
                let granted = self.nodes[node].slots.told(notice, now);
                self.granted(node, granted);
            }
            Event::Elsewhere(node, tenants) => {
                for (lane, tenants) in tenants {
                    self.nodes[node].slots.elsewhere(&lane, &tenants, now);
                }
            }
            Event::Write(record) if record.epoch == self.epoch => {
                let newest = self.store.get(&record.holder()).map(|old| (old.epoch, old.version));
                if newest < Some((record.epoch, record.version)) {
                    self.store.insert(record.holder(), record.clone());
                }
                self.send(|| Event::Written(record.clone()));
            }
            Event::Written(record) if record.epoch == self.epoch => {
                let (provider, holder, version) = (record.provider.clone(), record.holder(), record.version);
                self.lead(LeaderInput::Recorded { provider, holder, version });
            }
            Event::Gone(run) => self.lead(LeaderInput::LeaseEnded(run)),
            Event::Elected => {
                self.epoch = LeaderEpoch(self.epoch.0 + 1);
                let budgets = Budgets::new(std::slice::from_ref(&self.budget)).unwrap();
                let records: Vec<SliceRecord> = self.store.values().cloned().collect();
                self.leader = Some(Leader::new(self.epoch, SETTINGS, budgets, &records, now));
                let alive = self.nodes.iter().filter(|node| node.is_alive);
                let members: BTreeSet<HolderId> = alive.map(|node| node.run.clone()).collect();
                self.lead(LeaderInput::Members(members));
            }
            // For somebody who is not there any more.
            Event::Sends(..) | Event::Reports(_) | Event::Notice(..) => {}
            Event::ToLeader(..) | Event::Write(_) | Event::Written(_) => {}
        }
    }

    fn lead(&mut self, input: LeaderInput) {
        let Some(leader) = &mut self.leader else { return };
        for output in leader.step(input, Timestamp(self.now)) {
            match output {
                LeaderOutput::Record(record) => self.send(|| Event::Write(record.clone())),
                LeaderOutput::Notice(notice) => {
                    let node = self.nodes.iter().position(|node| node.run == notice.holder).unwrap();
                    self.send(|| Event::Notice(node, notice.clone()));
                }
            }
        }
    }

    fn wishes(&mut self, agent: usize) {
        let (tenant, node) = (self.agents[agent].tenant, self.agents[agent].node);
        // One that was moved between two calls may wish twice.
        if !self.nodes[node].is_alive || std::mem::replace(&mut self.agents[agent].is_busy, true) {
            return;
        }
        let input = self.chance.between(100, 300) + 50 * (tenant as u64 % 7);
        let output = 400;
        // Requests look like a bit more or less than they are.
        let real = Cost {
            input: input * [100, 80, 120][tenant % 3] / 100,
            output: output * self.chance.between(20, 60) / 100,
        };
        self.agents[agent].real = real;
        let tenant = TenantId::new(&format!("tenant-{tenant}")).unwrap();
        let (cost, patience) = (Cost { input, output }, Millis(MINUTE));
        let wanted = Wanted { agent: id(agent), tenant, weight: 1, priority: 128, cost, patience };
        let slots = &mut self.nodes[node].slots;
        let (reserved, mut granted) = slots.reserve(LANE.to_owned(), self.kind, wanted, Timestamp(self.now));
        assert_ne!(reserved, Reserve::Full);
        if reserved == Reserve::Granted {
            granted.push(id(agent));
        }
        self.granted(node, granted);
    }

    fn lands(&mut self, agent: usize, node: usize, pass: Pass, real: Option<Cost>) {
        let now = Timestamp(self.now);
        self.agents[agent].is_busy = false;
        let ending = match real {
            Some(real) => {
                self.got[self.agents[agent].tenant] += real.total();
                Ending::Answered(real)
            }
            None => Ending::Failed { code: RunCode::RateLimited, retry_after: Some(Millis(1_000)) },
        };
        let key = EffectKey::from_bytes([0; 32]);
        let result = EffectResult::Failed(Failure::new(RunCode::Failed, "not looked at"));
        let finished = Finished { key, seq: Seq(1), attempt: 1, result, spend: Spend::default() };
        let slots = &mut self.nodes[node].slots;
        let (_, mut granted) = slots.land(LANE, pass, ending, id(agent), finished, now);
        granted.extend(slots.settle(id(agent), key, now));
        self.granted(node, granted);
        if self.again || real.is_none() {
            let later = self.now + 100 + self.chance.below(200);
            self.at(later, Event::Wishes(agent));
        }
    }

    /// The leader's process ends; another one leads when its lease has ended.
    fn leader_dies(&mut self) {
        self.leader = None;
        self.tenants = WaitingWhere::default();
        let later = self.now + TERM + self.chance.below(1_000);
        self.at(later, Event::Elected);
    }

    /// The process ends in which the leader is, with the node: both with one lease.
    fn leading_node_dies(&mut self, node: usize) {
        self.leader_dies();
        self.node_dies(node);
    }

    /// A node's process ends; its agents go on elsewhere when its lease has ended.
    fn node_dies(&mut self, node: usize) {
        self.nodes[node].is_alive = false;
        let gone = self.now + TERM + self.chance.below(1_000);
        let run = self.nodes[node].run.clone();
        self.at(gone, Event::Gone(run));
        for agent in 0..self.agents.len() {
            if self.agents[agent].node == node {
                self.agents[agent].node = (node + 1 + agent % (NODES - 1)) % NODES;
                self.agents[agent].is_busy = false;
                let later = gone + self.chance.below(500);
                self.at(later, Event::Wishes(agent));
            }
        }
    }

    fn told(&self) -> String {
        let jain = jain(&self.got.iter().map(|got| *got as f64).collect::<Vec<_>>());
        let (requests, input, output) = (self.requests.all, self.input.all, self.output.all);
        let (refused, hasty) = (self.refused, self.seconds.hasty);
        format!(
            "requests {requests} ({hasty} hasty) input {input} output {output} refused {refused} jain {jain:.4} {:?}",
            self.got
        )
    }

    /// What has come of a meter, in thousandths of what may in this time, while so much of it passes.
    fn used(&mut self, of: fn(&Self) -> u64, per_minute: u64, span: u64) -> u64 {
        let before = of(self);
        self.run(self.now + span);
        (of(self) - before) * 1_000 * MINUTE / (per_minute * span)
    }

    /// Neither by the minute nor by the second.
    fn was_never_refused(&self) -> bool {
        self.refused + self.seconds.hasty == 0
    }

    fn is_fair(&self) {
        let got: Vec<f64> = self.got.iter().map(|got| *got as f64).collect();
        assert!(jain(&got) >= 0.98, "{}", self.told());
    }
}

#[path = "leased_sim_cases.rs"]
mod cases;

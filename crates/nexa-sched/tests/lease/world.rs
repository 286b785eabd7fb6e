//! A cluster in a box: nodes, leaders, a store, membership, providers, and a network that loses, repeats, delays and
//! reorders. Every machine has a clock of its own.

use std::collections::{BTreeMap, BTreeSet};

use nexa_sched::ProviderBudget;
use nexa_sched::lease::{
    Backlog, Begun, Budgets, Cost, Denied, Ending, Generation, Holder, HolderId, HolderInput, Leader, LeaderEpoch,
    LeaderInput, LeaderOutput, LeaderSettings, Meter, NO_LIMIT, Notice, Report, Sizes, SliceRecord,
};
use nexa_types::{Millis, NodeId, Timestamp};

use super::dice::Dice;
use super::provider::Counting;

pub(crate) const REQUEST_MAX: u64 = 20_000;
/// How long a node that lost its lease may not know it.
const ZOMBIE_MAX: u64 = 4_500;
const LEASE: u64 = 3_000;
/// How far nodes go ahead of their pace, where they go by one.
const AHEAD: u64 = 2_000;
/// Requests that a node begins at a time, where there is no limit.
const AT_ONCE_MAX: u64 = 100;

enum Message {
    Notice(Notice),
    Report(usize, Report),
    Write(usize, SliceRecord),
    Answer(usize, LeaderInput),
    Arrive(String, Cost),
    Written(String, u64),
    End(String),
    Ended(usize, u64, Cost),
}

pub(crate) struct Node {
    pub(crate) holder: Holder,
    offset: u64,
    /// Does nothing until then.
    away_until: u64,
    /// Does not know that its lease has ended until then.
    lease_ended: Option<u64>,
    renewed: u64,
    calls: BTreeMap<u64, (String, Begun)>,
    /// Requests that it would begin in a second.
    pub(crate) appetite: u64,
    /// Requests that wait, by provider.
    queues: BTreeMap<String, u64>,
    /// What its pace gives, by provider, in parts of a request, and since when.
    buckets: BTreeMap<String, (u64, u64)>,
}

impl Node {
    /// How many it may begin now by its pace: at most those of [`AHEAD`] at once.
    fn paced(&mut self, provider: &str, now: u64) -> u64 {
        let pace = self.holder.pace(provider).min(1 << 32);
        let (level, since) = self.buckets.get(provider).copied().unwrap_or((pace * AHEAD, now));
        let level = (level + pace * (now - since)).min(pace * AHEAD);
        self.buckets.insert(provider.to_owned(), (level, now));
        level / 60_000
    }

    fn has_begun(&mut self, provider: &str) {
        if let Some((level, _)) = self.buckets.get_mut(provider) {
            *level -= 60_000;
        }
    }
}

struct Seat {
    leader: Leader,
    offset: u64,
    away_until: u64,
    /// How much of what membership and settings said it has heard.
    members_heard: usize,
    budgets_heard: usize,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) now: u64,
    pub(crate) has_faults: bool,
    /// Whether nodes whose leases have ended go on for as long as they may.
    pub(crate) are_stubborn: bool,
    /// Whether nodes go by their pace, and leaders by that.
    pub(crate) is_paced: bool,
    sent: u64,
    net: BTreeMap<(u64, u64), Message>,
    pub(crate) nodes: Vec<Node>,
    generations: u64,
    leaders: Vec<Seat>,
    epoch: LeaderEpoch,
    pub(crate) store: BTreeMap<(String, HolderId), SliceRecord>,
    members: Vec<LeaderInput>,
    pub(crate) budgets: Vec<Vec<ProviderBudget>>,
    allowed: BTreeMap<String, Sizes>,
    pub(crate) providers: BTreeMap<String, Counting>,
    pub(crate) cost_max: Cost,
    /// How often a holder had another size than before.
    pub(crate) changes: u64,
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, budgets: Vec<ProviderBudget>) -> Self {
        let providers = budgets.iter().map(|one| (one.provider.clone(), Counting::new(Sizes::from(one)))).collect();
        let mut world = Self {
            dice: Dice::new(seed),
            now: 0,
            has_faults: false,
            are_stubborn: false,
            is_paced: seed.is_multiple_of(2),
            sent: 0,
            net: BTreeMap::new(),
            nodes: Vec::new(),
            generations: 0,
            leaders: Vec::new(),
            epoch: LeaderEpoch(0),
            store: BTreeMap::new(),
            members: Vec::new(),
            budgets: vec![budgets],
            allowed: BTreeMap::new(),
            providers,
            cost_max: Cost { input_tokens: 100, output_tokens: 50 },
            changes: 0,
        };
        for at in 0..nodes {
            let node = world.born(at, 0);
            world.nodes.push(node);
        }
        world.elect();
        world
    }

    fn born(&mut self, at: usize, appetite: u64) -> Node {
        self.generations += 1;
        let node = NodeId::new(&format!("node-{at}")).expect("a good name");
        let id = HolderId { node, generation: Generation(self.generations) };
        self.members.push(LeaderInput::Joined(id.clone()));
        Node {
            holder: Holder::new(id),
            offset: self.dice.between(0, 1_000_000),
            away_until: 0,
            lease_ended: None,
            renewed: self.now,
            calls: BTreeMap::new(),
            appetite,
            queues: BTreeMap::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// Another leader, while older ones go on until they learn of it. It reads the store after it was elected.
    pub(crate) fn elect(&mut self) {
        self.epoch = LeaderEpoch(self.epoch.0 + 1);
        let offset = self.dice.between(0, 1_000_000);
        let records: Vec<_> = self.store.values().cloned().collect();
        let budgets_heard = self.dice.between(1, self.budgets.len() as u64 + 1) as usize;
        let budgets = Budgets::new(&self.budgets[budgets_heard - 1]).expect("good budgets");
        let ahead = self.is_paced.then_some(Millis(AHEAD));
        let settings = LeaderSettings { request_max: Millis(REQUEST_MAX), ahead };
        let mut leader = Leader::new(self.epoch, settings, budgets, &records, Timestamp(self.now + offset));
        let standing: BTreeSet<_> = self.standing();
        leader.step(LeaderInput::Members(standing), Timestamp(self.now + offset));
        let members_heard = self.members.len();
        self.leaders.push(Seat { leader, offset, away_until: 0, members_heard, budgets_heard });
        self.allowed.clear();
    }

    /// Whether the process of the newest leader is gone.
    pub(crate) fn has_no_leader(&self) -> bool {
        self.leaders.last().is_none_or(|seat| seat.away_until == u64::MAX)
    }

    fn standing(&self) -> BTreeSet<HolderId> {
        let mut standing = BTreeSet::new();
        for event in &self.members {
            match event {
                LeaderInput::Joined(id) => standing.insert(id.clone()),
                LeaderInput::LeaseEnded(id) => standing.remove(id),
                _ => false,
            };
        }
        standing
    }

    fn send(&mut self, message: Message) {
        self.sent += 1;
        let delay = match self.dice.percent(3) && self.has_faults {
            true => self.dice.between(0, 40_000),
            false if self.has_faults => self.dice.between(1, 2_000),
            false => self.dice.between(1, 50),
        };
        self.net.insert((self.now + delay, self.sent), message);
    }

    /// Over the network, on which anything may happen.
    fn try_send(&mut self, make: impl Fn() -> Message) {
        let copies = match self.has_faults {
            true => self.dice.pick(&[0, 1, 1, 1, 1, 1, 1, 2, 3]),
            false => 1,
        };
        (0..copies).for_each(|_| self.send(make()));
    }

    fn at(&mut self, at: u64, message: Message) {
        self.sent += 1;
        self.net.insert((at, self.sent), message);
    }

    /// So much time passes; everybody who is there does what there is to do.
    pub(crate) fn pass(&mut self, millis: u64) {
        let until = self.now + millis;
        while let Some(entry) = self.net.first_entry().filter(|entry| entry.key().0 <= until) {
            self.now = self.now.max(entry.key().0);
            let message = entry.remove();
            self.deliver(message);
        }
        self.now = until;
        for at in 0..self.nodes.len() {
            self.live(at);
        }
        for at in 0..self.leaders.len() {
            self.lead(at);
        }
        self.leaders.iter_mut().rev().skip(3).for_each(|seat| seat.away_until = u64::MAX);
    }

    fn deliver(&mut self, message: Message) {
        let now = self.now;
        match message {
            Message::Notice(notice) => {
                let found = self.nodes.iter_mut().find(|node| node.holder.id().node == notice.holder.node);
                if let Some(node) = found.filter(|node| node.away_until <= now) {
                    let (provider, before) = (notice.provider.clone(), node.holder.slice(&notice.provider));
                    node.holder.step(HolderInput::Notice(notice), Timestamp(now + node.offset));
                    self.changes += u64::from(node.holder.slice(&provider) != before);
                }
            }
            Message::Report(to, report) => self.tell(to, LeaderInput::Report(report)),
            Message::Answer(to, answer) => self.tell(to, answer),
            Message::Write(from, record) => self.write(from, record),
            Message::Arrive(provider, cost) => self.counting(&provider).arrives(cost, now),
            Message::Written(provider, tokens) => self.counting(&provider).writes(tokens, now),
            Message::End(provider) => self.counting(&provider).ends(),
            Message::Ended(at, call, cost) => {
                let node = &mut self.nodes[at];
                if let Some((provider, begun)) = node.calls.remove(&call) {
                    node.holder.end(&provider, begun, Ending::Sent(cost), Timestamp(now + node.offset));
                }
            }
        }
    }

    fn counting(&mut self, provider: &str) -> &mut Counting {
        self.providers.get_mut(provider).expect("one that has a budget")
    }

    fn write(&mut self, from: usize, record: SliceRecord) {
        if record.epoch < self.epoch {
            self.try_send(|| Message::Answer(from, LeaderInput::Refused));
            return;
        }
        let (provider, holder, version) = (record.provider.clone(), record.holder(), record.version);
        let key = (provider.clone(), holder.clone());
        let newest = self.store.get(&key).map(|old| (old.epoch, old.version));
        if newest < Some((record.epoch, version)) {
            self.store.insert(key, record);
        }
        self.try_send(|| {
            let (provider, holder) = (provider.clone(), holder.clone());
            Message::Answer(from, LeaderInput::Recorded { provider, holder, version })
        });
    }

    fn tell(&mut self, to: usize, input: LeaderInput) {
        let seat = &mut self.leaders[to];
        if seat.away_until <= self.now {
            let out = seat.leader.step(input, Timestamp(self.now + seat.offset));
            self.act(to, out);
        }
    }

    fn act(&mut self, from: usize, out: Vec<LeaderOutput>) {
        for output in out {
            match output {
                LeaderOutput::Record(record) => self.try_send(|| Message::Write(from, record.clone())),
                LeaderOutput::Notice(notice) => self.try_send(|| Message::Notice(notice.clone())),
            }
        }
    }

    fn lead(&mut self, at: usize) {
        if self.leaders[at].away_until > self.now {
            return;
        }
        if !self.has_faults || self.dice.percent(50) {
            let seat = &mut self.leaders[at];
            let (members, budgets) = (seat.members_heard, seat.budgets_heard);
            (seat.members_heard, seat.budgets_heard) = (self.members.len(), self.budgets.len());
            for event in self.members.split_off(members) {
                self.members.push(event.clone());
                self.tell(at, event);
            }
            if let Some(budgets) = self.budgets[budgets..].last() {
                let budgets = Budgets::new(budgets).expect("good budgets");
                self.tell(at, LeaderInput::Budgets(budgets));
            }
        }
        self.tell(at, LeaderInput::Tick);
    }

    fn live(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.lease_ended.is_none() && node.away_until > now && now > node.renewed + LEASE {
            node.lease_ended = Some(now);
            self.members.push(LeaderInput::LeaseEnded(node.holder.id().clone()));
        }
        if self.nodes[at].away_until > now {
            return;
        }
        if let Some(ended) = self.nodes[at].lease_ended {
            // It goes on for a while without knowing.
            if now >= ended + ZOMBIE_MAX || (!self.are_stubborn && self.dice.percent(20)) {
                self.restart(at);
            }
        } else {
            self.nodes[at].renewed = now;
        }
        self.begin_some(at);
        let node = &mut self.nodes[at];
        if let Some(report) = node.holder.report(Timestamp(now + node.offset)) {
            for to in 0..self.leaders.len() {
                if self.leaders[to].away_until <= now {
                    self.try_send(|| Message::Report(to, report.clone()));
                }
            }
        }
    }

    fn begin_some(&mut self, at: usize) {
        let providers: Vec<String> = self.providers.keys().cloned().collect();
        for provider in providers {
            let appetite = self.nodes[at].appetite;
            let queue = self.nodes[at].queues.entry(provider.clone()).or_default();
            // Those who want a lot have a minute of it waiting; nobody has more.
            *queue = if appetite >= 100 { 6_000 } else { (*queue + appetite).min(600) * appetite.min(1) };
            let (all, mut queued) = (*queue, *queue);
            let paced = self.nodes[at].paced(&provider, self.now);
            let most = if self.is_paced { paced.min(AT_ONCE_MAX) } else { AT_ONCE_MAX };
            while queued > 0 && all - queued < most {
                let cost = Cost {
                    input_tokens: self.dice.between(1, self.cost_max.input_tokens + 1),
                    output_tokens: self.dice.between(1, self.cost_max.output_tokens + 1),
                };
                let node = &mut self.nodes[at];
                match node.holder.begin(&provider, cost, Timestamp(self.now + node.offset)) {
                    Ok(begun) => {
                        if self.is_paced {
                            self.nodes[at].has_begun(&provider);
                        }
                        self.sent += 1;
                        self.nodes[at].calls.insert(self.sent, (provider.clone(), begun));
                        self.call(at, self.sent, &provider, cost);
                    }
                    Err(Denied::For(wait)) => {
                        assert!(wait > Millis(0), "there is something to wait for");
                        break;
                    }
                    Err(_) => break,
                }
                queued -= 1;
            }
            let total = |most: u64| queued * most / 2;
            let (input_tokens, output_tokens) = (total(self.cost_max.input_tokens), total(self.cost_max.output_tokens));
            let cost = Cost { input_tokens, output_tokens };
            let backlog = Backlog { requests: queued, cost, largest: self.cost_max, weight: 1 };
            let node = &mut self.nodes[at];
            node.queues.insert(provider.clone(), queued);
            let waiting = HolderInput::Waiting { provider, backlog };
            node.holder.step(waiting, Timestamp(self.now + node.offset));
        }
    }

    fn call(&mut self, at: usize, call: u64, provider: &str, cost: Cost) {
        let arrives = self.now + self.dice.between(0, 500);
        let longest = self.dice.pick(&[300, 3_000, 3_000, REQUEST_MAX - 600]);
        let ends = arrives + self.dice.between(1, longest);
        let real = Cost { output_tokens: self.dice.between(0, cost.output_tokens + 1), ..cost };
        let written = if self.dice.percent(50) { self.dice.between(arrives, ends) } else { ends - 1 };
        self.at(arrives, Message::Arrive(provider.to_owned(), cost));
        self.at(written, Message::Written(provider.to_owned(), real.output_tokens));
        self.at(ends, Message::End(provider.to_owned()));
        let heard = ends + self.dice.between(0, 90);
        self.at(heard, Message::Ended(at, call, real));
    }

    /// A node's process ends, and another one begins. Its requests go on at the provider.
    fn restart(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.lease_ended.is_none() {
            self.members.push(LeaderInput::LeaseEnded(node.holder.id().clone()));
        }
        self.nodes[at] = self.born(at, self.nodes[at].appetite);
    }

    /// The lease of some node ends while it stands still. It goes on then, in a hurry and as long as it may not know it.
    pub(crate) fn lease_ends(&mut self) {
        let at = self.dice.between(0, self.nodes.len() as u64) as usize;
        if self.nodes[at].lease_ended.is_none() {
            self.nodes[at].lease_ended = Some(self.now);
            self.nodes[at].away_until = self.now + AHEAD;
            self.members.push(LeaderInput::LeaseEnded(self.nodes[at].holder.id().clone()));
        }
    }

    /// Something goes wrong.
    pub(crate) fn trouble(&mut self) {
        let at = self.dice.between(0, self.nodes.len() as u64) as usize;
        match self.dice.between(0, 12) {
            0 => self.restart(at),
            1 => self.nodes[at].away_until = self.now + self.dice.between(0, 20_000),
            2 if self.nodes[at].lease_ended.is_none() => {
                // Its lease ends for no reason of its own.
                self.nodes[at].lease_ended = Some(self.now);
                self.members.push(LeaderInput::LeaseEnded(self.nodes[at].holder.id().clone()));
            }
            3 => self.elect(),
            4 | 5 => {
                let at = self.dice.between(0, self.leaders.len() as u64) as usize;
                let until = self.now + self.dice.between(0, 30_000);
                let seat = &mut self.leaders[at];
                seat.away_until = seat.away_until.max(until);
            }
            6 => {
                // The process of the newest leader is gone, and nobody follows for a while.
                self.leaders.iter_mut().last().expect("a leader").away_until = u64::MAX;
            }
            7 => {
                let provider = self.dice.pick(&[0, 1]) % self.providers.len();
                let provider = self.providers.keys().nth(provider).expect("it is there").clone();
                let pause = Millis(self.dice.between(1, 10_000));
                let node = &mut self.nodes[at];
                node.holder.step(HolderInput::RetryAfter { provider, pause }, Timestamp(self.now + node.offset));
            }
            8 => {
                // Never above the first budget, which is what the provider goes by.
                let mut budgets = self.budgets[0].clone();
                for budget in &mut budgets {
                    let part = self.dice.pick(&[1, 2, 4]);
                    budget.requests_per_minute = budget.requests_per_minute.map(|most| most / part);
                    budget.concurrency = budget.concurrency.map(|most| most / part);
                }
                if self.dice.percent(30) {
                    // Nobody gets anything of this one, until the next settings.
                    budgets.remove(0);
                }
                self.budgets.push(budgets);
            }
            _ => self.nodes[at].appetite = self.dice.pick(&[0, 1, 3, 100, 100]),
        }
    }

    /// Everybody is there again, with one leader, and nothing is lost any more.
    pub(crate) fn calm(&mut self) {
        self.has_faults = false;
        for at in 0..self.nodes.len() {
            self.nodes[at].away_until = 0;
        }
        self.elect();
    }

    /// LS-1, LS-2, LS-6 and LS-7.
    pub(crate) fn check(&mut self) {
        let names: Vec<String> = self.providers.keys().cloned().collect();
        for name in names {
            let recorded = self.recorded(&name);
            let seat = self.leaders.last().expect("a leader");
            let budget = self.budgets[seat.budgets_heard - 1].iter().find(|one| one.provider == name);
            let budget = budget.map_or(Sizes::NONE, Sizes::from);
            let outstanding = seat.leader.outstanding(&name);
            let before = self.allowed.get(&name).copied().unwrap_or(outstanding);
            let allowed = budget.max(&before.min(&outstanding));
            if !seat.leader.is_deposed() {
                assert!(outstanding.fits(&allowed), "LS-1: {outstanding:?} outstanding, {allowed:?} may be");
            }
            assert!(recorded.fits(&outstanding), "LS-1: {recorded:?} recorded, {outstanding:?} known");
            self.allowed.insert(name.clone(), allowed);
            let first = Sizes::from(self.budgets[0].iter().find(|one| one.provider == name).expect("it has one"));
            assert!(recorded.fits(&first), "LS-1: {recorded:?} recorded of {first:?}");
        }
        let mut paces: BTreeMap<String, u64> = BTreeMap::new();
        for node in &mut self.nodes {
            let Some(report) = node.holder.report(Timestamp(self.now + node.offset)) else { continue };
            for of in report.of {
                let pace = node.holder.pace(&of.provider);
                let has_none = node.holder.slice(&of.provider).is_none();
                let is_gone = node.lease_ended.is_some();
                if of.epoch == self.epoch && !is_gone && !has_none {
                    let sum = paces.entry(of.provider.clone()).or_default();
                    *sum = sum.saturating_add(pace);
                }
                let record = self.store.get(&(of.provider, report.holder.clone()));
                let (size, most) = record.map_or((Sizes::NONE, 0), |record| (record.size(), record.pace()));
                assert!(is_gone || of.kept.fits(&size), "LS-2: {:?} kept of {size:?} recorded", of.kept);
                assert!(is_gone || has_none || pace <= most, "LS-6: {pace} a minute of {most} recorded");
            }
        }
        for one in &self.budgets[0] {
            let (sum, rate) = (paces.get(&one.provider).copied().unwrap_or(0), Sizes::from(one).of(Meter::Requests));
            assert!(sum <= rate, "LS-7: {sum} a minute together, of {rate}");
        }
    }

    fn recorded(&self, provider: &str) -> Sizes {
        let of = self.store.iter().filter(|((name, _), _)| name == provider);
        of.fold(Sizes::NONE, |sum, (_, record)| sum.plus(&record.size()))
    }

    /// The slices of those who want more than there is, on a meter that is limited.
    pub(crate) fn slices(&self, provider: &str, meter: Meter) -> Vec<u64> {
        let busy = self.nodes.iter().filter(|node| node.appetite >= 100);
        busy.map(|node| node.holder.slice(provider).of(meter)).filter(|size| *size != NO_LIMIT).collect()
    }
}

//! What agents of the world ask for: labels that all nodes, some, one or none have, and gangs.

use super::*;

/// What a node of this number says of itself, in every run.
pub(super) fn labels(n: usize) -> Labels {
    let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    match n {
        0 => of(&[("zone", "eu")]),
        1 => of(&[("zone", "eu"), ("gpu", "yes")]),
        2 => of(&[("zone", "us")]),
        _ => Labels::new(),
    }
}

pub(super) fn suits(asks: Option<&Asks>, n: usize) -> bool {
    asks.is_none_or(|asks| asks.is_met_by(&labels(n), 2_000, 1 << 30))
}

impl World {
    pub(super) fn asks(&mut self) -> Option<Asks> {
        let pair = match self.dice.below(20) {
            0..3 => ("zone", "eu"),
            3..5 => ("zone", "us"),
            5 => ("gpu", "yes"),
            6 if self.dice.chance(10) => ("zone", "mars"),
            7 => return Some(Asks { cpu_milli: Some(2_000), ..Asks::default() }),
            _ => return None,
        };
        Some(Asks { labels: Labels::from([(pair.0.into(), pair.1.into())]), ..Asks::default() })
    }

    /// Agents that start together are born, without owner.
    pub(super) fn gang(&mut self) {
        let members = 2 + self.dice.below(4) as u32;
        let workload = WorkloadId::from_bytes(u128::from(self.dice.roll()).to_be_bytes());
        let gang = Some(Gang { name: "g".into(), members });
        for _ in 0..members {
            let asks = self.asks().filter(|asks| !asks.labels.contains_key("gpu")).unwrap_or_default();
            self.birth(None, false, workload, Some(Asks { gang: gang.clone(), ..asks }));
        }
    }

    pub(super) fn must_suit(&self, agent: AgentId, to: &NodeId) {
        let Some(row) = self.rows.get(&agent) else { return };
        assert!(suits(row.asks.as_ref(), index(to)), "LE-2: {to} lacks what {agent} asks for: {:?}", row.asks);
    }

    /// Whether nodes have room for an agent, and for all that must start with it.
    pub(super) fn has_room(&self, row: &Stored) -> bool {
        let holds = |n: &usize| self.runs[*n].as_ref().map_or(0, |run| run.holds.len() as u64);
        let gang = row.asks.as_ref().and_then(|asks| asks.gang.as_ref()).filter(|_| row.epoch == Epoch(0));
        let places = gang.map_or(1, |gang| u64::from(gang.members));
        let fits = |row: &Stored| {
            let mut suiting = (0..NODES).filter(|n| suits(row.asks.as_ref(), *n));
            suiting.any(|n| self.runs[n].is_some() && holds(&n) + places <= self.agents_max)
        };
        let with = |other: &&Stored| other.workload == row.workload && other.epoch == Epoch(0);
        if gang.is_none() { fits(row) } else { self.rows.values().filter(with).all(fits) }
    }

    /// LE-1: one that knows that it leads no more says nothing of that leadership.
    pub(super) fn must_lead(&self, generation: Generation, output: &Output) {
        let (Output::Place { leader, .. }
        | Output::Tell { leader, .. }
        | Output::Check { leader, .. }
        | Output::PutMark { leader, .. }
        | Output::Move { leader, .. }) = output
        else {
            return;
        };
        let over = self.over.get(&generation).is_some_and(|over| over >= leader);
        assert!(!over, "LE-1: a leader of {leader} goes on, and knows that it is deposed");
    }

    /// LE-2 and LE-5, of what a leader wants to place: by what was said last, with what is on its way, nodes have room; and
    /// something was said by this very run.
    pub(super) fn must_hold(
        &self,
        generation: Generation,
        leader: Epoch,
        wishes: &[(AgentId, Epoch, NodeId)],
        seen: &BTreeMap<NodeId, Seen>,
    ) {
        let nodes: BTreeSet<&NodeId> = wishes.iter().map(|(.., to)| to).collect();
        for to in nodes {
            let Some(run) = self.members.get(to).map(|facts| facts.generation) else { continue };
            let is_heard = self.heard.contains(&(generation, to.clone(), run));
            assert!(is_heard, "LE-2: {to} was not heard as {run}");
            let held = self.runs[index(to)].as_ref().filter(|it| it.generation == run);
            let is_held = |agent: &AgentId, epoch| held.is_some_and(|it| it.holds.get(agent) == Some(&epoch));
            let is_coming = |(agent, row): &(&AgentId, &Stored)| {
                let by = self.placed_by.get(*agent);
                row.node.as_ref() == Some(to) && by == Some(&(leader, row.epoch)) && !is_held(agent, row.epoch)
            };
            let coming = if held.is_some() { self.rows.iter().filter(is_coming).count() as u64 } else { 0 };
            let more = wishes.iter().filter(|(.., of)| of == to).count() as u64;
            let said = seen.get(to).and_then(|seen| seen.load).map_or(0, |load| load.agents);
            let all = said + coming + more;
            assert!(all <= self.agents_max, "LE-5: {said} on {to}, {coming} on their way, and {more} more");
        }
    }

    /// LE-2 and LE-7, of what a leader wants to place.
    pub(super) fn look_at_wishes(&mut self, wishes: &[(AgentId, Epoch, NodeId)]) {
        let mut gangs: BTreeMap<WorkloadId, u32> = BTreeMap::new();
        for (agent, from, to) in wishes {
            self.must_suit(*agent, to);
            if let Some(row) = self.rows.get(agent).filter(|_| *from == Epoch(0))
                && row.asks.as_ref().is_some_and(|asks| asks.gang.is_some())
            {
                *gangs.entry(row.workload).or_default() += 1;
            }
        }
        for (workload, placed) in gangs {
            let of_gang = |row: &&Stored| row.workload == workload && row.epoch == Epoch(0);
            let members = |row: &Stored| row.asks.as_ref()?.gang.as_ref().map(|gang| gang.members);
            let left = self.rows.values().filter(of_gang).count() as u32;
            let all = self.rows.values().filter(of_gang).find_map(members);
            // Those that ended, or that somebody placed, nobody waits for.
            assert!(
                all.is_none_or(|all| placed == all || left < all),
                "LE-7: {placed} of {all:?}, and {left} are there"
            );
            self.gangs += u64::from(all == Some(placed));
        }
    }
}

//! The nodes as the moves decided so far leave them, and the agents in the units that move together.

use nexa_types::Millis;

use crate::load::{MILLION, TALKS_MAX, age_part, part, share};
use crate::{LoadBalanceStrategy, NodeState, RebalanceLimits, Resources, SystemLoad};

/// A node as the moves so far leave it. What is used is measured in cores of the reference, so that nodes of different
/// speed compare.
pub(crate) struct Seat {
    pub(crate) state: NodeState,
    pub(crate) strength: Resources,
    pub(crate) busy: Resources,
    /// What may be busy when something comes.
    pub(crate) ceiling: Resources,
    capacity: Resources,
    held: Resources,
    /// Whether it is one that agents leave. Nothing comes there while they do, so that what receives only fills up.
    pub(crate) is_left: bool,
    age_part: u64,
    pub(crate) agents: u64,
    pub(crate) weight: u64,
}

impl Seat {
    /// The part in use of what is scarcest, in millionths.
    pub(crate) fn pressure(&self) -> u64 {
        pressure(&self.busy, &self.strength)
    }

    /// What is in use above the ceiling.
    pub(crate) fn excess(&self) -> Resources {
        self.busy.minus(&self.ceiling)
    }
}

fn pressure(busy: &Resources, strength: &Resources) -> u64 {
    part(busy.cpu_milli, strength.cpu_milli)
        .max(part(busy.memory_bytes, strength.memory_bytes))
        .max(part(busy.llm_slots, strength.llm_slots))
}

/// Agents of one node that move together: one of its own, or all members of a gang that are there.
pub(crate) struct Unit {
    /// The first member in the order of the list; breaks ties.
    pub(crate) first: u32,
    /// Where its members are in [`Board::members`].
    members: (u32, u32),
    pub(crate) node: u32,
    pub(crate) holds: Resources,
    /// Processor in cores of the reference.
    pub(crate) uses: Resources,
    pub(crate) bytes: u64,
    pub(crate) weight: u64,
    pub(crate) priority: u8,
    /// Whether no member moved too recently.
    pub(crate) may_move: bool,
}

impl Unit {
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.members.1 - self.members.0)
    }
}

/// Where a unit may go, and what that is worth.
pub(crate) struct Target {
    pub(crate) node: u32,
    /// The node's pressure once the unit is there.
    pub(crate) pressure: u64,
}

/// All of it.
pub(crate) struct Board<'a> {
    load: &'a SystemLoad,
    limits: &'a RebalanceLimits,
    pub(crate) seats: Vec<Seat>,
    /// Where each agent is, by its place in the list.
    places: Vec<u32>,
    members: Vec<u32>,
    /// What a unit's talk to each node is worth; all 0 between two questions.
    talk: Vec<u64>,
    /// Something that no open node has room for, whatever its labels. What receives only fills up, so what is as large has no
    /// room either, and a node full of what nobody takes is not offered around agent by agent.
    hopeless: Option<(Resources, Resources)>,
    /// Where the nodes that take turns are.
    pub(crate) cursor: usize,
}

impl<'a> Board<'a> {
    /// The nodes as they are. No node is filled above `ceiling` millionths.
    pub(crate) fn new(load: &'a SystemLoad, limits: &'a RebalanceLimits, ceiling: u64) -> Self {
        let mut seats: Vec<Seat> = (load.nodes.iter())
            .map(|node| {
                let strength = at_reference(&node.capacity, node.speed);
                let busy = Resources {
                    cpu_milli: share(strength.cpu_milli, node.cpu),
                    memory_bytes: share(strength.memory_bytes, node.memory),
                    llm_slots: node.model_calls,
                };
                Seat {
                    state: node.state,
                    strength,
                    busy,
                    ceiling: Resources {
                        cpu_milli: share(strength.cpu_milli, ceiling),
                        memory_bytes: share(strength.memory_bytes, ceiling),
                        llm_slots: share(strength.llm_slots, ceiling),
                    },
                    capacity: node.capacity,
                    held: node.used,
                    is_left: false,
                    age_part: age_part(node.mailbox_age),
                    agents: 0,
                    weight: 0,
                }
            })
            .collect();
        for agent in &load.agents {
            if let Some(seat) = seats.get_mut(agent.node as usize) {
                seat.agents += 1;
                seat.weight = seat.weight.saturating_add(agent.weight);
            }
        }
        Self {
            load,
            limits,
            places: load.agents.iter().map(|agent| agent.node).collect(),
            members: Vec::new(),
            talk: vec![0; seats.len()],
            hopeless: None,
            cursor: 0,
            seats,
        }
    }

    /// The units on the nodes asked for, by their first member.
    pub(crate) fn units(&mut self, now: Millis, of: impl Fn(u32) -> bool) -> Vec<Unit> {
        let (agents, nodes) = (&self.load.agents, self.seats.len());
        let mut members: Vec<u32> = (0..agents.len())
            .filter(|at| (agents[*at].node as usize) < nodes && of(agents[*at].node))
            .map(|at| u32::try_from(at).expect("agents are numbered in 32 bits"))
            .collect();
        // Those without a gang stay in the order of the list, in front: the sort is stable.
        let group = |at: u32| {
            let agent = &agents[at as usize];
            (agent.gang, agent.gang.map(|_| agent.node))
        };
        members.sort_by_key(|at| group(*at));
        let mut units: Vec<Unit> = Vec::with_capacity(members.len());
        for (at, agent_at) in (0u32..).zip(members.iter().copied()) {
            let agent = &agents[agent_at as usize];
            let uses = at_reference(&agent.uses, self.load.nodes[agent.node as usize].speed);
            let may_move = agent.moved_at.is_none_or(|moved| now - moved >= self.limits.cool_down);
            match units.last_mut() {
                Some(unit) if agent.gang.is_some() && group(unit.first) == group(agent_at) => {
                    unit.members.1 = at + 1;
                    unit.holds = unit.holds.plus(&agent.holds);
                    unit.uses = unit.uses.plus(&uses);
                    unit.bytes = unit.bytes.saturating_add(agent.move_bytes);
                    unit.weight = unit.weight.saturating_add(agent.weight);
                    unit.priority = unit.priority.max(agent.priority);
                    unit.may_move &= may_move;
                }
                _ => units.push(Unit {
                    first: agent_at,
                    members: (at, at + 1),
                    node: agent.node,
                    holds: agent.holds,
                    uses,
                    bytes: agent.move_bytes,
                    weight: agent.weight,
                    priority: agent.priority,
                    may_move,
                }),
            }
        }
        self.members = members;
        units
    }

    /// The members of a unit, by their place in the list.
    pub(crate) fn members(&self, unit: &Unit) -> &[u32] {
        &self.members[unit.members.0 as usize..unit.members.1 as usize]
    }

    /// The open node that is best for a unit by the strategy, among those with room and labels that stay below their
    /// ceiling. With `gain_min`, none that gains less over where the unit is.
    pub(crate) fn best_target(&mut self, unit: &Unit, gain_min: Option<u64>) -> Option<Target> {
        if self.hopeless.is_some_and(|(holds, uses)| holds.fits(&unit.holds) && uses.fits(&unit.uses)) {
            return None;
        }
        self.set_talk(unit, true);
        let takes_turns = self.limits.strategy == LoadBalanceStrategy::RoundRobin;
        let (mut best, mut had_room): (Option<(i64, Target)>, bool) = (None, false);
        for turn in 0..self.seats.len() {
            let node = if takes_turns { (self.cursor + turn) % self.seats.len() } else { turn };
            let Some(busy) = self.room(unit, node) else { continue };
            had_room = true;
            let pressure = pressure(&busy, &self.seats[node].strength);
            if !self.has_labels(unit, node)
                || gain_min.is_some_and(|least| self.gain(unit, node, pressure) < least as i64)
            {
                continue;
            }
            let cost = self.cost(unit, node, &busy, pressure);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, Target { node: ordinal(node), pressure }));
            }
            if takes_turns {
                break;
            }
        }
        self.set_talk(unit, false);
        if !had_room && self.hopeless.is_none_or(|(holds, uses)| unit.holds.fits(&holds) && unit.uses.fits(&uses)) {
            self.hopeless = Some((unit.holds, unit.uses));
        }
        best.map(|(_, target)| target)
    }

    /// What would be busy on a node with the unit; none if it has no room for it or takes nothing.
    pub(crate) fn room(&self, unit: &Unit, node: usize) -> Option<Resources> {
        let seat = &self.seats[node];
        let is_open = seat.state == NodeState::Open && !seat.is_left && node != unit.node as usize;
        let busy = seat.busy.plus(&unit.uses);
        (is_open && seat.held.plus(&unit.holds).fits(&seat.capacity) && busy.fits(&seat.ceiling)).then_some(busy)
    }

    /// A node's pressure with a unit on it, too.
    pub(crate) fn pressure_with(&self, unit: &Unit, node: usize) -> u64 {
        let seat = &self.seats[node];
        pressure(&seat.busy.plus(&unit.uses), &seat.strength)
    }

    /// Whether a node has the labels of every member.
    pub(crate) fn has_labels(&self, unit: &Unit, node: usize) -> bool {
        let node = &self.load.nodes[node];
        self.members(unit).iter().all(|member| node.has(&self.load.agents[*member as usize].labels))
    }

    /// Carries a move out on the board.
    pub(crate) fn apply(&mut self, unit: &Unit, to: u32) {
        let from = &mut self.seats[unit.node as usize];
        from.busy = from.busy.minus(&unit.uses);
        from.held = from.held.minus(&unit.holds);
        from.agents = from.agents.saturating_sub(unit.len());
        from.weight = from.weight.saturating_sub(unit.weight);
        let target = &mut self.seats[to as usize];
        target.busy = target.busy.plus(&unit.uses);
        target.held = target.held.plus(&unit.holds);
        target.agents += unit.len();
        target.weight = target.weight.saturating_add(unit.weight);
        for at in unit.members.0..unit.members.1 {
            self.places[self.members[at as usize] as usize] = to;
        }
        self.cursor = (to as usize + 1) % self.seats.len();
    }

    /// What part of a unit's messages goes to agents on its own node, in millionths of one agent's.
    pub(crate) fn talk_at_home(&mut self, unit: &Unit) -> u64 {
        self.set_talk(unit, true);
        let talk = self.talk[unit.node as usize];
        self.set_talk(unit, false);
        talk
    }

    /// How much better off all are with the unit there, in millionths of a node: the pressure it leaves behind less the one
    /// that it comes to, less what must be brought, and what is talked about there rather than here.
    fn gain(&self, unit: &Unit, node: usize, pressure_there: u64) -> i64 {
        let weights = &self.limits.weights;
        let here = self.seats[unit.node as usize].pressure() + weights.affinity(self.talk[node]);
        let there = pressure_there + weights.affinity(self.talk[unit.node as usize]) + weights.fetch(unit.bytes);
        here as i64 - there as i64
    }

    /// What a place costs by the strategy; only compared with other places of the same unit.
    fn cost(&self, unit: &Unit, node: usize, busy: &Resources, pressure: u64) -> i64 {
        let seat = &self.seats[node];
        let weighted = || {
            let parts = [
                part(busy.cpu_milli, seat.strength.cpu_milli),
                part(busy.memory_bytes, seat.strength.memory_bytes),
                part(busy.llm_slots, seat.strength.llm_slots),
                seat.age_part,
            ];
            self.limits.weights.cost(parts) as i64
        };
        match self.limits.strategy {
            LoadBalanceStrategy::RoundRobin => 0,
            LoadBalanceStrategy::LeastLoaded => pressure as i64,
            LoadBalanceStrategy::WeightedFair => {
                part(seat.weight.saturating_add(unit.weight), seat.strength.cpu_milli.max(1)) as i64
            }
            LoadBalanceStrategy::PriorityBased => weighted(),
            LoadBalanceStrategy::Adaptive => weighted() - self.limits.weights.affinity(self.talk[node]) as i64,
        }
    }

    /// Notes for each node what part of the unit's messages goes there, or forgets it again. Only the adaptive strategy
    /// looks at who talks to whom. Members of the unit go along and count for no node.
    fn set_talk(&mut self, unit: &Unit, is_noted: bool) {
        if self.limits.strategy != LoadBalanceStrategy::Adaptive {
            return;
        }
        let members = &self.members[unit.members.0 as usize..unit.members.1 as usize];
        for member in members {
            for (peer, talk) in self.load.agents[*member as usize].talks_to.iter().take(TALKS_MAX) {
                let Some(place) = self.places.get(*peer as usize) else { continue };
                let Some(noted) = self.talk.get_mut(*place as usize) else { continue };
                // Members are in the order of the list.
                if members.binary_search(peer).is_err() {
                    *noted = if is_noted { noted.saturating_add((*talk).min(MILLION)) } else { 0 };
                }
            }
        }
    }
}

/// A node's place as moves name it.
fn ordinal(node: usize) -> u32 {
    u32::try_from(node).expect("nodes are numbered in 32 bits")
}

/// Processors in hundredths of cores of the reference, the rest as it is.
fn at_reference(resources: &Resources, speed: u32) -> Resources {
    Resources { cpu_milli: resources.cpu_milli.saturating_mul(u64::from(speed.max(1))), ..*resources }
}

//! What happens in the world: at the store, on nodes, and by fate.

use super::*;

impl World {
    pub(super) fn store(&mut self, n: usize, generation: Generation, output: Output) {
        let fails = !self.is_calm && self.dice.chance(5);
        let acts = !fails || self.dice.chance(50);
        let answer = match output {
            Output::Lead(epoch) if acts => {
                if epoch < self.newest {
                    Some(Input::Deposed(epoch))
                } else {
                    self.newest = epoch;
                    Some(Input::Leading(epoch, !fails))
                }
            }
            Output::Lead(epoch) => Some(Input::Leading(epoch, false)),
            Output::ReadMarks(epoch) => Some(Input::Marks(epoch, (!fails).then(|| self.marks.clone()))),
            Output::Read { number, which, after } => {
                let is_back = matches!(&which, Which::Left(node) if self.members.contains_key(node));
                let page = self.rows.iter().filter(|(agent, row)| {
                    after.is_none_or(|after| **agent > after)
                        && match &which {
                            Which::Unplaced => row.node.is_none(),
                            Which::Live => true,
                            Which::Of(node) | Which::Left(node) => row.node.as_ref() == Some(node),
                        }
                });
                let page = page.take(PAGE).map(|(agent, row)| Row {
                    agent: *agent,
                    node: row.node.clone(),
                    epoch: row.epoch,
                    priority: row.priority,
                    is_quarantined: row.is_quarantined,
                    is_cancelled: false,
                    is_over: false,
                    workload: row.workload,
                    asks: row.asks.clone(),
                });
                let page = (!fails && !is_back).then(|| page.collect());
                Some(Input::Rows(number, page))
            }
            Output::Place { number, leader, wishes } => {
                if leader < self.newest {
                    // The word of an older leader counts for nothing.
                    Some(Input::Deposed(leader))
                } else {
                    let known = (!fails).then_some(leader);
                    let answers = if acts {
                        wishes.into_iter().map(|wish| self.place(known, wish)).collect()
                    } else {
                        Vec::new()
                    };
                    Some(Input::Placed(number, (!fails).then_some(answers)))
                }
            }
            Output::PutMark { leader, node, expected, mark } => {
                let (version, _) = self.marks.get(&node).copied().unwrap_or_default();
                let is_good = acts && leader >= self.newest && version == expected;
                if is_good {
                    self.marks.insert(node.clone(), (version.next(), mark));
                }
                Some(Input::Marked { node, version: (is_good && !fails).then(|| version.next()) })
            }
            other => panic!("not for the store: {other:?}"),
        };
        let span = self.delay();
        if let Some(input) = answer {
            self.later(span, Event::Answer(n, generation, input));
        }
    }

    /// `known` is the leader, if it learns of it.
    pub(super) fn place(
        &mut self,
        known: Option<Epoch>,
        (agent, from, to): (AgentId, Epoch, NodeId),
    ) -> Result<Epoch, Epoch> {
        let row = self.rows.get_mut(&agent).ok_or(Epoch(0))?;
        if row.epoch != from {
            return Err(row.epoch);
        }
        (row.epoch, row.node) = (from.next(), Some(to));
        self.placed += 1;
        match known {
            Some(leader) => self.placed_by.insert(agent, (leader, row.epoch)),
            None => self.placed_by.remove(&agent),
        };
        Ok(row.epoch)
    }

    pub(super) fn node(&mut self, n: usize, generation: Generation, output: Output) {
        let Some(run) = self.runs[n].as_mut().filter(|run| run.generation == generation) else { return };
        let (leader, sender, answer) = match output {
            Output::Tell { number, leader, agents, node: sender, .. } => {
                if leader < run.leader {
                    return;
                }
                run.leader = leader;
                if run.adopted.leader < leader {
                    run.adopted = Adopted { leader, agents: 0 };
                }
                if run.numbers.insert((leader, number)) {
                    run.adopted.agents += agents.len() as u64;
                }
                for (agent, epoch) in agents {
                    let held = run.holds.entry(agent).or_default();
                    *held = (*held).max(epoch);
                }
                (leader, sender, Input::Told { number, done: true })
            }
            Output::Check { leader, agents, node: sender, .. } => {
                if leader < run.leader || !run.is_up {
                    return;
                }
                run.leader = leader;
                let lacks = |held: &&Held| run.holds.get(&held.agent) != Some(&held.epoch);
                let missing = agents.iter().filter(lacks).map(|held| held.agent).collect();
                (leader, sender, Input::Checked { node: node(n), missing: Some(missing) })
            }
            Output::Move { leader, agent, to, from: sender, .. } => {
                if leader < run.leader {
                    return;
                }
                let held = run.holds.get(&agent).copied();
                let mut done = false;
                if let Some(row) = self.rows.get_mut(&agent).filter(|row| Some(row.epoch) == held) {
                    run.holds.remove(&agent);
                    (row.epoch, row.node) = (row.epoch.next(), Some(to.clone()));
                    let (epoch, done_now) = (row.epoch, true);
                    done = done_now;
                    // For that run only; who comes after it is told by the leader.
                    let run = self.members.get(&to).map(|facts| facts.generation);
                    let is_lost = self.is_lost() || run != self.generation(index(&to));
                    let span = self.delay();
                    if !is_lost && self.is_calm {
                        self.later(span.min(STEP), Event::Moved(index(&to), agent, epoch));
                    }
                }
                (leader, sender, Input::Moved { agent, done })
            }
            other => panic!("not for a node: {other:?}"),
        };
        let _ = leader;
        if let (false, Some(to)) = (self.is_lost(), self.generation(index(&sender))) {
            let span = self.delay();
            self.later(span, Event::Answer(index(&sender), to, answer));
        }
    }

    /// Somebody is born, on a node that has what it asks for, or without owner.
    fn single(&mut self, owner: Option<usize>, is_quarantined: bool) {
        let asks = self.asks();
        let owner = owner.filter(|n| wishes::suits(asks.as_ref(), *n));
        self.births += u64::from(owner.is_some());
        self.birth(owner, is_quarantined, WorkloadId::from_bytes([9; 16]), asks);
    }

    pub(super) fn birth(
        &mut self,
        owner: Option<usize>,
        is_quarantined: bool,
        workload: WorkloadId,
        asks: Option<Asks>,
    ) {
        self.born += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.dice.roll().to_be_bytes());
        bytes[8..].copy_from_slice(&self.born.to_be_bytes());
        let agent = AgentId::from_slice(&bytes).expect("sixteen bytes");
        let epoch = Epoch(u64::from(owner.is_some()));
        let priority = self.dice.below(256) as u8;
        if let Some(run) = owner.and_then(|n| self.runs[n].as_mut()) {
            run.holds.insert(agent, epoch);
        }
        self.rows.insert(agent, Stored { node: owner.map(node), epoch, priority, is_quarantined, workload, asks });
    }

    /// What a run of a node does by itself.
    pub(super) fn live(&mut self, n: usize) {
        let Some(run) = &self.runs[n] else { return };
        // An agent of which the row says something else is not run any more, as its next append is refused.
        let gone: Vec<AgentId> = (run.holds.iter())
            .filter(|(agent, epoch)| {
                self.rows.get(agent).is_none_or(|row| row.epoch != **epoch || row.node != Some(node(n)))
            })
            .map(|(agent, _)| *agent)
            .collect();
        let (ends, room) = (run.ends_at, run.level.1.saturating_sub(run.holds.len() as u64));
        let run = self.runs[n].as_mut().expect("it is there");
        for agent in gone {
            run.holds.remove(&agent);
        }
        if ends.is_some_and(|at| at <= self.now) {
            self.runs[n] = None;
            return;
        }
        let wanted = if self.is_calm { 0 } else { self.dice.below(4) };
        for _ in 0..wanted {
            let here = room > wanted && self.runs[n].as_ref().is_some_and(|run| run.is_up && run.ends_at.is_none());
            if self.rows.len() < 300 {
                self.single(here.then_some(n), false);
            }
        }
    }

    pub(super) fn beats(&mut self) {
        for n in 0..NODES {
            let Some(run) = &self.runs[n] else { continue };
            if !run.is_up || !self.members.contains_key(&node(n)) {
                continue;
            }
            let (generation, adopted) = (run.generation, run.adopted);
            let load = Load { agents: run.holds.len() as u64, cpu: 100_000 * n as u64, ..Load::default() };
            for to in 0..NODES {
                let Some(receiver) = self.generation(to) else { continue };
                if !self.is_lost() {
                    let span = self.delay();
                    self.later(span, Event::Beat(to, receiver, n, generation, load, adopted));
                }
            }
            let Some(leader) = self.leaders[n].leads() else { continue };
            for (to, level) in self.leaders[n].levels() {
                assert!(level <= self.agents_max, "LE-5: {level} agents may be on {to}");
                let Some(facts) = self.members.get(&to) else { continue };
                let (generation, span) = (facts.generation, self.delay().min(400));
                self.later(span, Event::Slice(index(&to), generation, leader, level));
            }
        }
    }

    pub(super) fn faults(&mut self) {
        let n = self.dice.below(NODES as u64) as usize;
        match self.dice.below(120) {
            // Dies.
            0 if self.runs.iter().flatten().count() > 1 => {
                if let Some(generation) = self.generation(n) {
                    self.runs[n] = None;
                    let span = 200 + self.dice.below(3_000);
                    self.later(span, Event::LeaseEnds(n, generation));
                }
            }
            // Is cut off from the membership, and goes on for a while.
            1 if self.members.len() > 1 => {
                if let Some(run) = &mut self.runs[n] {
                    run.ends_at = Some(self.now + 300 + self.dice.below(2_000));
                    let generation = run.generation;
                    self.later(0, Event::LeaseEnds(n, generation));
                }
            }
            // Comes back.
            2..6 if self.runs[n].is_none() && !self.members.contains_key(&node(n)) => self.start(n),
            6 => self.elect(n),
            7 => {
                if let Some((leader, _)) = self.elected
                    && let Some(generation) = self.generation(leader)
                {
                    let suspects = BTreeSet::from([node(n)]);
                    self.step(leader, generation, Input::Suspects(suspects));
                }
            }
            8 => {
                if let Some((leader, _)) = self.elected
                    && let Some(generation) = self.generation(leader)
                {
                    let on = self.dice.chance(40);
                    let command = if self.dice.chance(30) {
                        Command::Drain { node: node(n) }
                    } else {
                        Command::Cordon { node: node(n), on }
                    };
                    let number = self.dice.roll();
                    self.step(leader, generation, Input::Command(number, command));
                }
            }
            9..20 => {
                let agent = self.rows.keys().nth(self.dice.below(self.rows.len().max(1) as u64) as usize).copied();
                if let Some(agent) = agent {
                    self.rows.remove(&agent);
                }
            }
            20..22 => self.single(None, false),
            22 => self.single(None, self.born < 5),
            23..50 if self.rows.len() < 300 => self.gang(),
            _ => {}
        }
    }
}

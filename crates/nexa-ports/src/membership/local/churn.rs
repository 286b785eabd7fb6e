//! Nodes that come, go, fall silent and are cut off at random, and what holds whatever they do.

use futures::FutureExt;

use super::*;
use crate::clock::SimClock;
use crate::dice::{Dice, SeededDice};

const NAMES: [&str; 3] = ["a", "b", "c"];
const SEEDS: u64 = 300;
const STEPS: usize = 120;

/// One connection, and what was seen through it.
struct Seat {
    member: Arc<dyn Membership>,
    run: Option<Run>,
    is_cut_off: bool,
    wants: bool,
    seen: Arc<Members>,
}

/// A run as its node knows it.
#[derive(Clone)]
struct Run {
    name: NodeId,
    generation: Generation,
    promised: Timestamp,
    /// Since when nothing has renewed its lease; `None` while something does.
    silent: Option<Timestamp>,
    /// Somebody ended it, which it may not know.
    is_ended: bool,
}

struct World {
    dice: SeededDice,
    clock: Arc<SimClock>,
    cluster: LocalCluster,
    seats: Vec<Seat>,
    /// Runs that nobody ended, and that must be there until their lease ends.
    left: Vec<Run>,
    generation: Generation,
    epoch: Epoch,
    /// The latest that was seen.
    leader: Option<Leader>,
    is_away: bool,
    away_last: Timestamp,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(SimClock::new(Timestamp(1_000_000)));
        let cluster = LocalCluster::new(clock.clone());
        let seat =
            || Seat { member: cluster.member(), run: None, is_cut_off: false, wants: false, seen: Arc::default() };
        let seats = (0..4).map(|_| seat()).collect();
        Self {
            dice: SeededDice::new(seed),
            seats,
            clock,
            cluster,
            left: Vec::new(),
            generation: Generation(0),
            epoch: Epoch(0),
            leader: None,
            is_away: false,
            away_last: Timestamp(0),
        }
    }

    fn pick(&self, count: usize) -> usize {
        usize::try_from(self.dice.roll() % count as u64).expect("less than a count")
    }

    fn step(&mut self) {
        let (at, name) = (self.pick(self.seats.len()), NAMES[self.pick(NAMES.len())]);
        let name: NodeId = name.parse().expect("a node's name");
        let now = self.clock.now();
        match self.pick(12) {
            0..=2 => self.clock.advance(Millis(self.dice.roll() % 1_500)),
            3..=4 => self.join(at, &name),
            5 => {
                let heard = self.seats[at].member.leave().now_or_never().expect("it does not wait");
                if let Some(run) = self.seats[at].run.take()
                    && heard.is_err()
                {
                    self.left.push(Run { silent: Some(run.silent.unwrap_or(now)), ..run });
                }
            }
            6..=7 => {
                self.seats[at].wants = self.pick(3) > 0;
                self.seats[at].member.campaign(self.seats[at].wants);
            }
            8 => {
                // A process that is killed, and another one that starts.
                let fresh = self.cluster.member();
                let seat = &mut self.seats[at];
                seat.member = fresh;
                (seat.is_cut_off, seat.wants, seat.seen) = (false, false, Arc::default());
                if let Some(run) = seat.run.take() {
                    self.left.push(Run { silent: Some(run.silent.unwrap_or(now)), ..run });
                }
            }
            9 => {
                let seat = &mut self.seats[at];
                if let Some(run) = &mut seat.run {
                    seat.is_cut_off = !seat.is_cut_off;
                    run.silent = seat.is_cut_off.then_some(now);
                    let known =
                        if seat.is_cut_off { self.cluster.cut_off(&run.name) } else { self.cluster.heal(&run.name) };
                    assert!(known, "it has joined under this name");
                }
            }
            10 => {
                let generation = self.seats[at].seen.nodes.get(&name).map(|member| member.generation);
                if let Some(generation) = generation
                    && self.seats[at].member.end_lease(name, generation).now_or_never() == Some(Ok(true))
                {
                    self.left.retain(|run| run.generation != generation);
                    for seat in &mut self.seats {
                        seat.run.take_if(|run| run.generation == generation && !seat.is_cut_off);
                    }
                    for run in self.seats.iter_mut().filter_map(|seat| seat.run.as_mut()) {
                        if run.generation == generation {
                            run.is_ended = true;
                        }
                    }
                }
            }
            _ => {
                // Seldom, and not for long.
                self.is_away = !self.is_away && self.pick(3) == 0;
                self.cluster.set_away(self.is_away);
                self.away_last = now;
            }
        }
        if self.is_away {
            self.away_last = self.clock.now();
        }
    }

    fn join(&mut self, at: usize, name: &NodeId) {
        // Two connections with one name would make it unclear which of them is cut off.
        if self
            .seats
            .iter()
            .enumerate()
            .any(|(other, seat)| other != at && seat.run.as_ref().is_some_and(|run| run.name == *name))
        {
            return;
        }
        let card = NodeCard {
            id: name.clone(),
            door: String::new(),
            link: String::new(),
            labels: BTreeMap::new(),
            cpu_milli: 1,
            memory_bytes: 1,
            agents_max: 1,
            build: String::new(),
            formats: (1, 1),
        };
        let joined = self.seats[at].member.join(card).now_or_never();
        match joined {
            Some(Ok(generation)) => {
                assert!(generation > self.generation, "MB-1: {generation:?} after {:?}", self.generation);
                assert!(!self.is_away && !self.seats[at].is_cut_off);
                self.generation = generation;
                let run = Run { name: name.clone(), generation, promised: Timestamp(0), silent: None, is_ended: false };
                self.seats[at].run = Some(run);
            }
            // It waits for the name; what it was before, it has left.
            None => self.seats[at].run = None,
            Some(Err(_)) => {
                assert!(self.is_away || self.seats[at].is_cut_off, "a reachable service is there for everybody")
            }
        }
    }

    fn check(&mut self) {
        let now = self.seats[0].member.now();
        for seat in &mut self.seats {
            let members = seat.member.members().borrow().clone();
            assert!(members.revision >= seat.seen.revision, "MB-5: a list went back");
            if members.revision == seat.seen.revision {
                assert_eq!(members, seat.seen, "MB-5: one revision, one list");
            }
            if let Some(leader) = &members.leader {
                let generation = members.nodes.get(&leader.node).map(|member| member.generation);
                assert_eq!(generation, Some(leader.generation), "MB-3: who leads is there");
            }
            seat.seen = members;
            match (*seat.member.standing().borrow(), &mut seat.run) {
                (Standing::Member { generation, valid_until }, Some(run)) => {
                    assert_eq!(generation, run.generation);
                    run.promised = run.promised.max(valid_until);
                }
                (Standing::Member { .. }, None) => panic!("a member without a run"),
                (Standing::Lost, Some(_)) => {
                    assert!(!seat.is_cut_off, "who is cut off learns nothing");
                    seat.run = None;
                }
                (Standing::Lost | Standing::Outside, _) => {}
            }
        }
        let Some(newest) = self
            .seats
            .iter()
            .filter(|seat| !seat.is_cut_off)
            .map(|seat| seat.seen.clone())
            .max_by_key(|list| list.revision)
        else {
            return;
        };
        for seat in self.seats.iter().filter(|seat| !seat.is_cut_off && !self.is_away) {
            assert_eq!(seat.seen, newest, "whoever is connected sees the same");
        }
        if let Some(leader) = newest.leader.as_ref().filter(|leader| Some(*leader) != self.leader.as_ref()) {
            assert!(leader.epoch > self.epoch, "MB-2: {leader:?} after {:?}", self.leader);
            self.epoch = leader.epoch;
            self.leader = Some(leader.clone());
        }
        if self.is_away {
            return;
        }
        let stands = |run: &Run| newest.nodes.get(&run.name).is_some_and(|member| member.generation == run.generation);
        let runs = self.seats.iter().filter_map(|seat| seat.run.as_ref()).chain(&self.left);
        for run in runs {
            if !stands(run) {
                assert!(
                    run.is_ended || now >= run.promised,
                    "MB-4: {} was told {:?} and is gone at {now:?}",
                    run.name,
                    run.promised
                );
            } else if let Some(silent) = run.silent {
                let since = silent.max(self.away_last);
                assert!(now < since.after(TERM), "MB-3: {} is silent since {silent:?} and there at {now:?}", run.name);
            }
        }
        self.left.retain(|run| newest.nodes.get(&run.name).is_some_and(|member| member.generation == run.generation));
        let may_lead = |seat: &&Seat| seat.wants && !seat.is_cut_off && seat.run.as_ref().is_some_and(stands);
        if self.seats.iter().any(|seat| may_lead(&seat)) {
            assert!(newest.leader.is_some(), "somebody wants to lead and nobody does");
        }
    }
}

#[tokio::test]
async fn the_promises_hold_whatever_nodes_do() {
    let (mut joins, mut led, mut lost) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
        joins += world.generation.0;
        led += u64::from(world.epoch.0 > 0);
        lost += u64::from(world.seats.iter().any(|seat| *seat.member.standing().borrow() == Standing::Lost));
    }
    // The world was one in which something happens.
    assert!(joins > SEEDS * 10 && led > SEEDS / 2 && lost > SEEDS / 20, "{joins} {led} {lost}");
}

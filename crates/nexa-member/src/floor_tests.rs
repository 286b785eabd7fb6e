//! A cluster whose nodes come and go in any release, whose lists of members lag, and whose leaders change.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A tick of the model.
const TICK: Millis = Millis(1_000);
/// How old a list of members is at most, in ticks: less than [`WAIT`].
const LAG_MAX: usize = 9;
/// How long a node takes at most from joining until it looks, and a write until it is kept, in ticks.
const DELAY_MAX: usize = 12;

fn reads(newest: u16) -> Formats {
    Formats { oldest: 1, newest }
}

fn at(second: u64) -> Timestamp {
    Timestamp(second * 1_000)
}

#[derive(Debug, Clone)]
enum Event {
    /// A node starts: with this newest format, and so long until it has looked at what is announced.
    Start { node: usize, newest: u16, looks_in: usize },
    /// It is gone.
    Stop { node: usize },
    /// Somebody else leads, whose writes take so long.
    Elected { write_takes: usize },
    /// From here on lists are so old.
    Lag(usize),
    /// So much time passes.
    Pass(usize),
}

#[derive(Debug, Clone, Copy)]
struct Node {
    newest: u16,
    looks_at: usize,
    is_in: bool,
}

struct Leader {
    raising: Raising,
    write_takes: usize,
    /// What is on its way to the store, and when it is there.
    writing: Option<(Floor, usize)>,
}

struct World {
    tick: usize,
    /// Members at each tick.
    lists: Vec<BTreeMap<usize, Node>>,
    members: BTreeMap<usize, Node>,
    kept: Floor,
    leader: Leader,
    lag: usize,
    refused: usize,
}

impl World {
    fn new() -> Self {
        let kept = Floor::of(1);
        let leader = Leader { raising: Raising::new(kept, at(0)), write_takes: 0, writing: None };
        Self { tick: 0, lists: Vec::new(), members: BTreeMap::new(), kept, leader, lag: 0, refused: 0 }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.tick as u64 * TICK.0)
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Start { node, newest, looks_in } => {
                let is_there = self.members.contains_key(&node);
                if !is_there {
                    let looks_at = self.tick + looks_in;
                    self.members.insert(node, Node { newest, looks_at, is_in: false });
                }
            }
            Event::Stop { node } => drop(self.members.remove(&node)),
            Event::Elected { write_takes } => {
                let raising = Raising::new(self.kept, self.now());
                self.leader = Leader { raising, write_takes, writing: None };
            }
            Event::Lag(lag) => self.lag = lag,
            Event::Pass(ticks) => (0..ticks).for_each(|_| self.pass()),
        }
    }

    fn pass(&mut self) {
        self.tick += 1;
        let (tick, kept, now) = (self.tick, self.kept, self.now());
        let before = self.members.len();
        // Whoever looks now is in, or leaves.
        self.members.retain(|_, node| node.is_in || node.looks_at > tick || reads(node.newest).has(kept.announced));
        self.refused += before - self.members.len();
        self.members.values_mut().for_each(|node| node.is_in |= node.looks_at <= tick);
        self.lists.push(self.members.clone());
        let leader = &mut self.leader;
        if let Some((floor, _)) = leader.writing.take_if(|(_, until)| *until <= tick) {
            self.kept = floor;
            leader.raising.kept(floor, now);
        }
        if leader.writing.is_none() {
            let seen = &self.lists[self.lists.len().saturating_sub(1 + self.lag)];
            let wanted = leader.raising.look(seen.values().map(|node| reads(node.newest)), now);
            leader.writing = wanted.map(|floor| (floor, tick + leader.write_takes));
        }
        assert!(self.kept.written >= kept.written && self.kept.announced >= self.kept.written, "FF-2: {:?}", self.kept);
        for (name, node) in self.members.iter().filter(|(_, node)| node.is_in) {
            assert!(node.newest >= self.kept.written, "FF-1: node {name}: {node:?}, {:?}, tick {tick}", self.kept);
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4_usize, 1..4_u16, 0..=DELAY_MAX)
            .prop_map(|(node, newest, looks_in)| Event::Start { node, newest, looks_in }),
        3 => (0..4_usize).prop_map(|node| Event::Stop { node }),
        1 => (0..=DELAY_MAX).prop_map(|write_takes| Event::Elected { write_takes }),
        1 => (0..=LAG_MAX).prop_map(Event::Lag),
        6 => (1..25_usize).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn nothing_is_written_that_a_member_does_not_read_and_what_all_read_is_written_at_last(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new();
        for event in &events {
            world.happens(event);
        }
        // Nobody comes or goes any more.
        let settle = DELAY_MAX + LAG_MAX + 2 * (10 + DELAY_MAX + LAG_MAX) + 4;
        (0..settle).for_each(|_| world.pass());
        if let Some(common) = world.members.values().map(|node| node.newest).min() {
            prop_assert_eq!(world.kept, Floor::of(common.max(world.kept.written)), "FF-3");
            prop_assert!(common >= world.kept.written, "whoever is left reads it");
        }
    }
}

#[test]
fn a_newer_format_is_announced_and_then_written_when_the_last_old_node_is_gone_for_long() {
    let mut raising = Raising::new(Floor::of(1), at(0));
    let mixed = [reads(1), reads(2), reads(2)];
    assert_eq!(raising.look(mixed, at(100)), None);
    assert_eq!(raising.look(mixed[1..].to_vec(), at(101)), None, "it may only be restarting");
    assert_eq!(raising.look(mixed, at(105)), None);
    assert_eq!(raising.look([reads(2); 3], at(106)), None);
    assert_eq!(raising.look([reads(2); 3], at(115)), None);
    let announced = Floor { announced: 2, written: 1 };
    assert_eq!(raising.look([reads(2); 3], at(116)), Some(announced));
    assert_eq!(raising.look([reads(2); 3], at(117)), Some(announced), "until it is kept");
    raising.kept(announced, at(118));
    assert_eq!(raising.look([reads(2); 3], at(127)), None);
    assert_eq!(raising.look([reads(2); 3], at(128)), Some(Floor::of(2)));
    raising.kept(Floor::of(2), at(128));
    assert_eq!(raising.look([reads(2); 3], at(999)), None);
}

#[test]
fn an_announcement_is_taken_back_for_who_was_there_before_it() {
    let announced = Floor { announced: 2, written: 1 };
    let mut raising = Raising::new(announced, at(0));
    assert_eq!(raising.look([reads(2), reads(1)], at(1)), Some(Floor::of(1)));
    raising.kept(Floor::of(1), at(1));
    assert_eq!(raising.look([reads(2), reads(1)], at(60)), None);
    assert_eq!(raising.look([], at(61)), None, "an empty list says nothing");
}

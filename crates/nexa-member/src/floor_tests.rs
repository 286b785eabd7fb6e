//! A cluster whose nodes come and go in any release, whose lists of members lag, whose leaders change, and whose operators ask
//! for formats at any time.

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

/// Members, each with the newest format that it reads.
fn named<N: AsRef<str>>(members: impl IntoIterator<Item = (N, u16)>) -> BTreeMap<NodeId, Formats> {
    members.into_iter().map(|(name, newest)| (name.as_ref().parse().expect("a name"), reads(newest))).collect()
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
    /// An operator asks for this format.
    Ask(u16),
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
    /// What it was asked for and has not looked at.
    asked: Option<u16>,
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
    /// The newest format that anybody asked for.
    wanted: u16,
    /// The newest of which an operator was told that it is announced.
    promised: u16,
}

impl World {
    fn new() -> Self {
        let kept = Floor::of(1);
        let leader = Leader { raising: Raising::new(kept, at(0)), write_takes: 0, asked: None, writing: None };
        let (lists, members) = (Vec::new(), BTreeMap::new());
        Self { tick: 0, lists, members, kept, leader, lag: 0, wanted: 1, promised: 1 }
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
                // Whoever had asked is not answered.
                self.leader = Leader { raising, write_takes, asked: None, writing: None };
            }
            Event::Ask(format) => {
                self.leader.asked = Some(format);
                self.wanted = self.wanted.max(format);
            }
            Event::Lag(lag) => self.lag = lag,
            Event::Pass(ticks) => (0..ticks).for_each(|_| self.pass()),
        }
    }

    fn pass(&mut self) {
        self.tick += 1;
        let (tick, kept, now) = (self.tick, self.kept, self.now());
        // Whoever looks now is in, or leaves.
        self.members.retain(|_, node| node.is_in || node.looks_at > tick || reads(node.newest).has(kept.announced));
        self.members.values_mut().for_each(|node| node.is_in |= node.looks_at <= tick);
        self.lists.push(self.members.clone());
        let leader = &mut self.leader;
        if let Some((floor, _)) = leader.writing.take_if(|(_, until)| *until <= tick) {
            self.kept = floor;
            leader.raising.kept(floor, now);
            // Whoever asked for it is answered.
            self.promised = floor.announced;
        }
        if leader.writing.is_none() {
            let seen = &self.lists[self.lists.len().saturating_sub(1 + self.lag)];
            let seen = named(seen.iter().map(|(node, it)| (format!("n{node}"), it.newest)));
            let asked = leader.asked.take().and_then(|format| leader.raising.asked(format, &seen).ok().flatten());
            let wanted = asked.or_else(|| leader.raising.look(&seen, now));
            leader.writing = wanted.map(|floor| (floor, tick + leader.write_takes));
        }
        let Floor { announced, written } = self.kept;
        assert!(
            written >= kept.written && announced >= kept.announced && announced >= written,
            "FF-2: {:?}",
            self.kept
        );
        for (name, node) in self.members.iter().filter(|(_, node)| node.is_in) {
            assert!(node.newest >= written, "FF-1: node {name}: {node:?}, {:?}, tick {tick}", self.kept);
        }
        assert!(announced <= self.wanted, "FF-4: {:?}", self.kept);
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4_usize, 1..4_u16, 0..=DELAY_MAX)
            .prop_map(|(node, newest, looks_in)| Event::Start { node, newest, looks_in }),
        3 => (0..4_usize).prop_map(|node| Event::Stop { node }),
        1 => (0..=DELAY_MAX).prop_map(|write_takes| Event::Elected { write_takes }),
        2 => (1..4_u16).prop_map(Event::Ask),
        1 => (0..=LAG_MAX).prop_map(Event::Lag),
        6 => (1..25_usize).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn nothing_is_written_that_a_member_does_not_read_or_nobody_asked_for_and_what_was_asked_for_is_written_at_last(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new();
        for event in &events {
            world.happens(event);
        }
        // Nobody comes, goes or asks any more: what is under way is kept, and what is announced then is written after a wait.
        let settle = DELAY_MAX + (10 + DELAY_MAX + LAG_MAX) + (10 + DELAY_MAX) + 4;
        (0..settle).for_each(|_| world.pass());
        prop_assert!(world.kept.announced >= world.promised);
        if world.members.values().all(|node| node.newest >= world.kept.announced) && !world.members.is_empty() {
            prop_assert_eq!(world.kept.written, world.kept.announced, "FF-3");
        }
    }
}

#[test]
fn a_newer_format_is_announced_when_somebody_asks_for_it_and_written_a_wait_later() {
    let all = named([("a", 2), ("b", 3)]);
    let mut raising = Raising::new(Floor::of(1), at(0));
    assert_eq!(raising.look(&all, at(999)), None, "nobody has asked");
    let announced = Floor { announced: 2, written: 1 };
    assert_eq!(raising.asked(2, &all), Ok(Some(announced)));
    let unread = Refused::Unread { node: "a".parse().expect("a name"), newest: 2 };
    assert_eq!(raising.asked(3, &all), Err(unread));
    raising.kept(announced, at(1_000));
    assert_eq!(raising.asked(2, &all), Ok(None), "it is on its way");
    assert_eq!(raising.look(&all, at(1_009)), None);
    assert_eq!(raising.look(&all, at(1_010)), Some(Floor::of(2)));
    assert_eq!(raising.look(&all, at(1_011)), Some(Floor::of(2)), "until it is kept");
    raising.kept(Floor::of(2), at(1_011));
    assert_eq!(raising.asked(2, &named([("a", 1)])), Ok(None), "it is written");
    assert_eq!(raising.look(&all, at(9_999)), None);
}

#[test]
fn who_was_there_before_an_announcement_and_does_not_read_it_is_waited_for() {
    let raising = Raising::new(Floor { announced: 2, written: 1 }, at(0));
    assert_eq!(raising.look(&named([("a", 2), ("b", 1)]), at(60)), None);
    assert_eq!(raising.look(&BTreeMap::new(), at(61)), None, "an empty list says nothing");
    assert_eq!(raising.look(&named([("a", 2)]), at(62)), Some(Floor::of(2)));
}

//! Agents that wait to be placed: by priority, and among equals by who waited first.
//!
//! Those that ask for the same stand in one line, so that a line that no node has room for keeps nobody of another one
//! waiting, and costs one look a round however long it is. Members of a gang that starts are gathered until all of them
//! are there, and then stand as one.
//!
//! Bounds: of those that no node takes just now, with all members of gangs, at most half of the queue and [`LINES_MAX`]
//! lines are kept. What is beyond is not taken in; it stays in the store, and the next look finds it again. A gang is taken
//! in whole, or none of it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nexa_event::asks::Asks;
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, Epoch, Millis, Timestamp, WorkloadId};

/// Lines that are kept although no node takes what stands in them.
pub(super) const LINES_MAX: usize = 256;

/// An agent that needs an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) agent: AgentId,
    /// The epoch that its row has.
    pub(super) from: Epoch,
    pub(super) priority: u8,
    pub(super) workload: WorkloadId,
    /// What it asks of its node, if anything.
    pub(super) asks: Option<Arc<Asks>>,
}

impl Wish {
    /// The gang that it starts with, and how many it has. One that was placed before has started, and goes on alone.
    fn gang(&self) -> Option<(GangId, u32)> {
        let gang = self.asks.as_ref()?.gang.as_ref().filter(|_| self.from == Epoch(0) && !planted(Bug::GangSplit))?;
        Some(((self.workload, gang.name.clone()), gang.members))
    }

    /// What it asks of the node alone.
    fn line(&self) -> Option<Arc<Asks>> {
        let asks = self.asks.as_ref()?;
        let alone = Asks { gang: None, until: None, ..Asks::clone(asks) };
        (!alone.is_nothing()).then(|| Arc::new(alone))
    }
}

/// Who is before whom: the higher priority, and among equals who came first.
pub(super) type Turn = (Reverse<u8>, u64);
pub(super) type GangId = (WorkloadId, String);

/// Where somebody waits.
#[derive(Debug, Clone)]
enum Place {
    Line(Option<Arc<Asks>>, Turn),
    Gang(GangId),
}

/// Members of a gang that starts.
#[derive(Debug, Clone)]
struct Gathering {
    members: u32,
    turn: Turn,
    /// How many looks for agents without owner had ended when the first of it came.
    since: u64,
    /// Each with the number of looks that had ended when it was seen last.
    wishes: BTreeMap<AgentId, (Wish, u64)>,
    /// Since when it is whole and there is no room for all of it.
    waits_since: Option<Timestamp>,
    /// How often room was kept for it, and there was not enough in the end.
    in_vain: u32,
}

impl Gathering {
    fn is_whole(&self) -> bool {
        self.wishes.len() as u64 >= u64::from(self.members)
    }

    /// What each of its members asks for.
    fn asks(&self) -> Vec<Option<&Asks>> {
        self.wishes.values().map(|(wish, _)| wish.asks.as_deref()).collect()
    }
}

/// Those who wait, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    /// By what is asked for; none is empty.
    lines: BTreeMap<Option<Arc<Asks>>, BTreeMap<Turn, Wish>>,
    gangs: BTreeMap<GangId, Gathering>,
    waiting: BTreeMap<AgentId, Place>,
    /// How many members all gangs have that are gathered, those with them that are still to come.
    members: usize,
    tickets: u64,
    looks: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What those in lines ask for.
    pub(super) fn asked(&self) -> impl Iterator<Item = Option<&Asks>> {
        self.lines.keys().map(|asks| asks.as_deref())
    }

    /// How many wait for one of the nodes that `is_there` says to be there.
    pub(super) fn placeable(&self, is_there: impl Fn(Option<&Asks>) -> bool) -> usize {
        let lines = self.lines.iter().filter(|(asks, _)| is_there(asks.as_deref())).map(|(_, line)| line.len());
        let gangs = self.gangs.values().filter(|gang| gang.wishes.values().all(|(of, _)| is_there(of.asks.as_deref())));
        lines.chain(gangs.map(|gang| gang.wishes.len())).sum()
    }

    /// Whether somebody is taken in when no node takes it just now, as the queue has so much room in all.
    pub(super) fn keeps(&self, wish: &Wish, queue_max: usize) -> bool {
        let unasked = self.lines.get(&None).map_or(0, BTreeMap::len);
        let in_lines = self.lines.values().map(BTreeMap::len).sum::<usize>() - unasked;
        let kept = in_lines.saturating_add(self.members);
        match (wish.gang(), wish.line()) {
            (Some((id, members)), _) => {
                self.gangs.contains_key(&id) || kept.saturating_add(members as usize) <= queue_max / 2
            }
            (None, None) => true,
            (None, asks) => (self.lines.contains_key(&asks) || self.lines.len() < LINES_MAX) && kept < queue_max / 2,
        }
    }

    /// How many places must be free for somebody to go on: all of a gang do so together.
    pub(super) fn places(wish: &Wish) -> u64 {
        wish.gang().map_or(1, |(_, members)| u64::from(members))
    }

    /// Puts an agent at the end of those of its priority. One who waits already keeps its turn; the later epoch counts, and
    /// what is asked for by then.
    pub(super) fn add(&mut self, wish: Wish) {
        let gang = wish.gang();
        let mut turn = None;
        match self.waiting.get(&wish.agent) {
            Some(Place::Line(asks, at)) if *asks == wish.line() && gang.is_none() => {
                if let Some(before) = self.lines.get_mut(asks).and_then(|line| line.get_mut(at)) {
                    before.from = before.from.max(wish.from);
                }
                return;
            }
            Some(Place::Line(_, at)) => turn = Some(*at),
            Some(Place::Gang(id)) if gang.as_ref().is_some_and(|(gang, _)| gang == id) => {
                if let Some((_, seen)) = self.gangs.get_mut(id).and_then(|gang| gang.wishes.get_mut(&wish.agent)) {
                    *seen = self.looks;
                }
                return;
            }
            Some(Place::Gang(_)) | None => {}
        }
        self.remove(wish.agent);
        let turn = turn.unwrap_or_else(|| {
            self.tickets += 1;
            (Reverse(wish.priority), self.tickets)
        });
        match gang {
            None => self.line_up(turn, wish),
            Some((id, members)) => {
                self.waiting.insert(wish.agent, Place::Gang(id.clone()));
                let since = self.looks;
                let gathering = self.gangs.entry(id).or_insert_with(|| {
                    self.members += members as usize;
                    Gathering { members, turn, since, wishes: BTreeMap::new(), waits_since: None, in_vain: 0 }
                });
                gathering.wishes.insert(wish.agent, (wish, since));
            }
        }
    }

    fn line_up(&mut self, turn: Turn, wish: Wish) {
        let asks = wish.line();
        self.waiting.insert(wish.agent, Place::Line(asks.clone(), turn));
        self.lines.entry(asks).or_default().insert(turn, wish);
    }

    fn remove(&mut self, agent: AgentId) {
        match self.waiting.remove(&agent) {
            Some(Place::Line(asks, turn)) => {
                if let Some(line) = self.lines.get_mut(&asks) {
                    line.remove(&turn);
                    if line.is_empty() {
                        self.lines.remove(&asks);
                    }
                }
            }
            Some(Place::Gang(id)) => {
                if let Some(gang) = self.gangs.get_mut(&id) {
                    gang.wishes.remove(&agent);
                    if gang.wishes.is_empty() {
                        self.dissolve(&id);
                    }
                }
            }
            None => {}
        }
    }

    fn dissolve(&mut self, id: &GangId) -> Option<Gathering> {
        let gang = self.gangs.remove(id)?;
        self.members -= gang.members as usize;
        Some(gang)
    }

    /// Takes out those who are next, each with the place that `take` finds for its turn and what it asks for; whoever gets
    /// none stays, and so do all behind who ask for the same. At most `most`.
    pub(super) fn next<P>(
        &mut self,
        most: usize,
        mut take: impl FnMut(Turn, Option<&Asks>) -> Option<P>,
    ) -> Vec<(Wish, P)> {
        let first = |line: &BTreeMap<Turn, Wish>| line.first_key_value().map(|(turn, _)| *turn);
        let mut turns: BTreeSet<(Turn, Option<Arc<Asks>>)> =
            self.lines.iter().filter_map(|(asks, line)| Some((first(line)?, asks.clone()))).collect();
        let mut found = Vec::new();
        while found.len() < most
            && let Some((turn, asks)) = turns.pop_first()
        {
            let Some(place) = take(turn, asks.as_deref()) else { continue };
            let Some(line) = self.lines.get_mut(&asks) else { continue };
            if let Some(wish) = line.remove(&turn) {
                self.waiting.remove(&wish.agent);
                found.push((wish, place));
            }
            match first(line) {
                Some(turn) => drop(turns.insert((turn, asks))),
                None => drop(self.lines.remove(&asks)),
            }
        }
        found
    }

    /// Takes out the gangs of which all members are there, in turn, each with the places that `take` finds for all of them;
    /// one that gets none stays. At most `most` members together.
    pub(super) fn next_gangs<P>(
        &mut self,
        most: usize,
        now: Timestamp,
        mut take: impl FnMut(Turn, &[Option<&Asks>]) -> Option<Vec<P>>,
    ) -> Vec<(Wish, P)> {
        let whole = self.gangs.iter().filter(|(_, gang)| gang.is_whole());
        let mut whole: Vec<(Turn, GangId)> = whole.map(|(id, gang)| (gang.turn, id.clone())).collect();
        whole.sort_unstable();
        let mut found = Vec::new();
        for (turn, id) in whole {
            let Some(gang) = self.gangs.get_mut(&id) else { continue };
            if found.len() + gang.wishes.len() > most {
                continue;
            }
            let Some(places) = take(turn, &gang.asks()) else {
                gang.waits_since.get_or_insert(now);
                continue;
            };
            let Some(gang) = self.dissolve(&id) else { continue };
            for ((wish, _), place) in gang.wishes.into_values().zip(places) {
                self.waiting.remove(&wish.agent);
                found.push((wish, place));
            }
        }
        found
    }

    /// Of the gangs that are whole and have waited for room for so long: the one for which room was kept least often, and
    /// then the first, with its turn and how often that was in vain. It is not named again before as long again.
    pub(super) fn in_want(&mut self, now: Timestamp, after: Millis) -> Option<(GangId, Turn, u32)> {
        let waits = |gang: &Gathering| gang.waits_since.is_some_and(|since| now.since(since) >= after);
        let in_want = self.gangs.iter_mut().filter(|(_, gang)| gang.is_whole() && waits(gang));
        let (id, gang) = in_want.min_by_key(|(_, gang)| (gang.in_vain, gang.turn))?;
        gang.waits_since = Some(now);
        Some((id.clone(), gang.turn, gang.in_vain))
    }

    /// What the members of a gang ask for, if it still waits and is whole.
    pub(super) fn asks_of(&self, gang: &GangId) -> Option<Vec<Option<&Asks>>> {
        self.gangs.get(gang).filter(|gang| gang.is_whole()).map(Gathering::asks)
    }

    /// Room was kept for a gang, and there was not enough.
    pub(super) fn in_vain(&mut self, gang: &GangId) {
        if let Some(gang) = self.gangs.get_mut(gang) {
            gang.in_vain = gang.in_vain.saturating_add(1);
        }
    }

    /// A look for agents without owner has ended. Members of gangs that were not seen by it are not without owner any more. A
    /// gang that was not whole by the end of a look that began after its first member was seen will never be: some of it
    /// have ended, or were given to somebody. The rest go on alone.
    pub(super) fn looked(&mut self) {
        self.looks += 1;
        let looks = self.looks;
        let all = self.gangs.values().flat_map(|gang| gang.wishes.values());
        let unseen: Vec<AgentId> = all.filter(|(_, seen)| seen + 1 < looks).map(|(wish, _)| wish.agent).collect();
        unseen.into_iter().for_each(|agent| self.remove(agent));
        let is_short = |gang: &Gathering| !gang.is_whole() && looks >= gang.since + 2;
        let short: Vec<GangId> =
            self.gangs.iter().filter(|(_, gang)| is_short(gang)).map(|(id, _)| id.clone()).collect();
        for id in short {
            let Some(gang) = self.dissolve(&id) else { continue };
            for (wish, _) in gang.wishes.into_values() {
                self.tickets += 1;
                self.line_up((gang.turn.0, self.tickets), wish);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nexa_event::asks::Gang;

    use super::*;

    fn wish(n: u8, priority: u8, from: u64) -> Wish {
        let agent = AgentId::from_slice(&[n; 16]).expect("sixteen bytes");
        Wish { agent, from: Epoch(from), priority, workload: WorkloadId::from_bytes([1; 16]), asks: None }
    }

    fn asking(zone: &str, wish: Wish) -> Wish {
        let labels = [("zone".to_owned(), zone.to_owned())].into();
        Wish { asks: Some(Arc::new(Asks { labels, ..Asks::default() })), ..wish }
    }

    fn member(of: &str, members: u32, wish: Wish) -> Wish {
        let gang = Some(Gang { name: of.to_owned(), members });
        Wish { asks: Some(Arc::new(Asks { gang, ..Asks::default() })), ..wish }
    }

    /// Takes gangs while all that wait would find room.
    fn gangs(queue: &mut Queue, most: usize) -> Vec<(Wish, ())> {
        queue.next_gangs(most, Timestamp(0), |_, all| Some(vec![(); all.len()]))
    }

    fn order(found: Vec<(Wish, ())>) -> Vec<Wish> {
        found.into_iter().map(|(wish, ())| wish).collect()
    }

    #[test]
    fn the_highest_priority_is_next_and_among_equals_who_waited_first() {
        let mut queue = Queue::default();
        for wish in [wish(9, 1, 0), wish(3, 5, 0), wish(1, 5, 0), wish(3, 5, 2), wish(2, 200, 0)] {
            queue.add(wish);
        }
        assert_eq!(queue.len(), 4);
        let order = order(queue.next(9, |_, _| Some(())));
        assert_eq!(order, [wish(2, 200, 0), wish(3, 5, 2), wish(1, 5, 0), wish(9, 1, 0)]);
        assert!(queue.is_empty() && queue.lines.is_empty());
    }

    #[test]
    fn who_gets_no_place_keeps_only_those_waiting_who_ask_for_the_same() {
        let mut queue = Queue::default();
        let all =
            [asking("eu", wish(1, 9, 0)), asking("us", wish(2, 8, 0)), asking("eu", wish(3, 7, 0)), wish(4, 6, 0)];
        all.iter().cloned().for_each(|wish| queue.add(wish));
        let in_us = |_, asks: Option<&Asks>| asks.is_none_or(|asks| asks.labels["zone"] == "us").then_some(());
        assert_eq!(order(queue.next(9, in_us)), [all[1].clone(), all[3].clone()]);
        assert_eq!(queue.len(), 2);
        assert_eq!(order(queue.next(9, |_, _| Some(()))), [all[0].clone(), all[2].clone()]);
        assert!(queue.is_empty() && queue.lines.is_empty());
    }

    #[test]
    fn what_no_node_takes_fills_no_more_than_half() {
        let mut queue = Queue::default();
        queue.add(wish(1, 1, 0));
        queue.add(asking("eu", wish(2, 1, 0)));
        assert!(queue.keeps(&asking("eu", wish(3, 1, 0)), 4) && !queue.keeps(&asking("eu", wish(3, 1, 0)), 2));
        assert!(queue.keeps(&wish(4, 1, 0), 2), "who asks for nothing waits for room, and for nothing else");
        for line in 2..LINES_MAX as u128 {
            let agent = AgentId::from_bytes((line << 64).to_be_bytes());
            queue.add(asking(&line.to_string(), Wish { agent, ..wish(0, 1, 0) }));
        }
        assert!(!queue.keeps(&asking("one more", wish(9, 1, 0)), 100_000));
        assert!(queue.keeps(&asking("eu", wish(9, 1, 0)), 100_000));
    }

    #[test]
    fn a_gang_is_taken_in_whole_or_not_at_all_and_counts_with_all_its_members() {
        let mut queue = Queue::default();
        let of = |name: &str, n| member(name, 3, asking("eu", wish(n, 1, 0)));
        assert!(queue.keeps(&of("g", 1), 8) && !queue.keeps(&of("g", 1), 4));
        queue.add(of("g", 1));
        assert!(queue.keeps(&of("g", 2), 4), "it has begun to gather");
        assert!(queue.keeps(&of("h", 3), 12) && !queue.keeps(&of("h", 3), 10));
        assert!(queue.keeps(&asking("eu", wish(4, 1, 0)), 8) && !queue.keeps(&asking("eu", wish(4, 1, 0)), 6));
        queue.add(of("g", 2));
        queue.add(of("g", 3));
        assert_eq!(gangs(&mut queue, 9).len(), 3);
        assert!(queue.keeps(&of("h", 3), 6), "there is room again");
    }

    #[test]
    fn the_gang_in_want_is_the_one_for_which_least_was_done_and_then_the_first() {
        let mut queue = Queue::default();
        for (name, n) in [("g", 1), ("g", 2), ("h", 3), ("h", 4), ("short", 5)] {
            queue.add(member(name, 2, wish(n, 1, 0)));
        }
        let mut named = |now, after| queue.in_want(Timestamp(now), Millis(after)).map(|((_, name), ..)| name);
        assert_eq!(named(0, 0), None, "nobody has looked for room for them");
        assert!(queue.next_gangs(9, Timestamp(0), |_, _| None::<Vec<()>>).is_empty());
        let id = |name: &str| (wish(1, 1, 0).workload, name.to_owned());
        let named = |queue: &mut Queue, now| queue.in_want(Timestamp(now), Millis(10)).map(|((_, name), ..)| name);
        assert_eq!([9, 10, 11, 12].map(|now| named(&mut queue, now)), [None, Some("g".into()), Some("h".into()), None]);
        queue.in_vain(&id("g"));
        assert_eq!([21, 21].map(|now| named(&mut queue, now)), [Some("h".into()), Some("g".into())]);
        assert!(queue.asks_of(&id("g")).is_some_and(|asks| asks.len() == 2) && queue.asks_of(&id("short")).is_none());
    }

    #[test]
    fn a_gang_waits_for_its_members_and_goes_as_one() {
        let mut queue = Queue::default();
        queue.add(member("g", 3, wish(1, 5, 0)));
        queue.add(member("g", 3, wish(2, 5, 0)));
        assert!(queue.next(9, |_, _| Some(())).is_empty() && gangs(&mut queue, 9).is_empty());
        queue.add(member("g", 3, wish(3, 5, 0)));
        assert!(queue.next_gangs(9, Timestamp(5), |_, _| None::<Vec<()>>).is_empty(), "there is no room for all");
        assert!(gangs(&mut queue, 2).is_empty(), "the batch is full");
        assert_eq!(gangs(&mut queue, 9).len(), 3);
        assert!(queue.is_empty() && queue.gangs.is_empty());
    }

    #[test]
    fn what_is_left_of_a_gang_goes_on_alone_and_so_does_who_has_started() {
        let mut queue = Queue::default();
        queue.add(member("g", 2, wish(1, 5, 0)));
        queue.add(member("h", 2, wish(2, 5, 1)));
        assert_eq!(order(queue.next(9, |_, _| Some(()))), [member("h", 2, wish(2, 5, 1))]);
        queue.looked();
        assert!(queue.next(9, |_, _| Some(())).is_empty(), "the look had begun before");
        queue.add(member("g", 2, wish(1, 5, 0)));
        queue.looked();
        assert_eq!(order(queue.next(9, |_, _| Some(()))), [member("g", 2, wish(1, 5, 0))]);
        queue.add(member("g", 2, wish(1, 5, 0)));
        queue.looked();
        queue.looked();
        assert!(queue.is_empty() && queue.gangs.is_empty(), "the look did not find it any more");
    }
}

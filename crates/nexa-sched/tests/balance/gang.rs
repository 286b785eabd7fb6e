//! Gangs: a million of them, from several at a time that are in each other's way, over links that lose and delay.

use std::collections::BTreeMap;

use nexa_sched::{
    Demand, GangAsk, GangAttempt, GangState, GangStep, HoldId, Labels, NodeFree, Reservations, ReserveError, Resources,
    place_gang,
};
use nexa_types::Millis;

use crate::world::Dice;

const SPAN: Millis = Millis(200);

struct Cluster {
    capacity: Vec<Resources>,
    nodes: Vec<Reservations>,
}

impl Cluster {
    fn drawn(dice: &mut Dice, nodes: u64) -> Self {
        let capacity: Vec<Resources> = (0..nodes)
            .map(|_| {
                let cores = dice.within(2, 8);
                Resources { cpu_milli: cores * 1_000, memory_bytes: cores << 30, llm_slots: cores }
            })
            .collect();
        Self { nodes: capacity.iter().map(|capacity| Reservations::new(*capacity)).collect(), capacity }
    }

    /// A gang that an empty cluster has room for.
    fn gang(&self, dice: &mut Dice) -> Vec<Resources> {
        (0..dice.within(1, 5))
            .map(|_| Resources {
                cpu_milli: dice.within(1, 4) * 500,
                memory_bytes: dice.within(0, 2) << 30,
                llm_slots: 1,
            })
            .collect()
    }

    /// Where it would go by what nodes say they have free, from a node that is drawn on, so that attempts differ.
    fn places(&mut self, members: &[Resources], is_stale: bool, now: Millis) -> Option<Vec<u32>> {
        let labels = Labels::new();
        let nodes: Vec<NodeFree<'_>> = (self.nodes.iter_mut().zip(&self.capacity))
            .map(|(node, capacity)| NodeFree {
                free: if is_stale { *capacity } else { node.free(now) },
                capacity: *capacity,
                speed: 100,
                cost: 0,
                run_queue: 0,
                is_open: true,
                labels: &labels,
            })
            .collect();
        let demands: Vec<Demand<'_>> =
            members.iter().map(|resources| Demand { resources: *resources, labels: &labels }).collect();
        place_gang(&nodes, &demands)
    }

    fn tell(&mut self, id: HoldId, step: &GangStep, now: Millis) -> Result<(), ReserveError> {
        let node = &mut self.nodes[step.node as usize];
        match step.ask {
            GangAsk::Reserve { resources, span } => node.reserve(id, resources, span, now),
            GangAsk::Confirm { span, .. } => node.confirm(id, span, now),
            GangAsk::Release => {
                node.release(id);
                Ok(())
            }
        }
    }
}

/// What is under way between attempts and nodes.
enum Message {
    Ask(HoldId, GangStep),
    Answer(HoldId, GangStep, Result<(), ReserveError>),
}

#[test]
fn a_million_gangs_neither_lock_nor_leak_nor_overfill() {
    let mut dice = Dice(1);
    let mut cluster = Cluster::drawn(&mut dice, 16);
    let (mut attempts, mut messages): (BTreeMap<HoldId, GangAttempt>, Vec<Message>) = Default::default();
    let (mut begun, mut full, mut held, mut refused, mut late, mut lost) = (0u64, 0u64, 0u64, 0u64, 0u64, 0u64);
    let mut now = Millis(0);
    while begun < 1_000_000 || !attempts.is_empty() {
        // Up to eight at a time, of leaders that know how full nodes are or do not.
        while begun < 1_000_000 && attempts.len() < 8 {
            let members = cluster.gang(&mut dice);
            let id = HoldId { gang: begun, attempt: 0 };
            begun += 1;
            let Some(places) = cluster.places(&members, dice.is_one_in(4), now) else {
                full += 1;
                now += Millis(1);
                continue;
            };
            let (attempt, first) = GangAttempt::new(id, &places, &members, SPAN, now);
            attempts.insert(id, attempt);
            messages.extend(first.map(|step| Message::Ask(id, step)));
        }
        now += Millis(dice.within(0, 3));
        // Each node has a timer for what ends by itself. Nothing of a gang runs there that still thinks it is held.
        for node in &mut cluster.nodes {
            if node.next_end().is_some_and(|end| end <= now) {
                for id in node.expire(now) {
                    assert!(attempts.get(&id).is_none_or(|attempt| attempt.until() <= now), "RV-4");
                }
            }
        }
        // Any of them next: links delay. One in a hundred is lost, one in a hundred comes twice.
        for _ in 0..messages.len().min(4) {
            let at = dice.within(0, messages.len() as u64 - 1) as usize;
            let is_doubled = dice.is_one_in(100);
            if dice.is_one_in(100) {
                messages.swap_remove(at);
                lost += 1;
            } else {
                let (id, step, answer) = match &messages[at] {
                    Message::Ask(id, step) => (*id, *step, None),
                    Message::Answer(id, step, answer) => (*id, *step, Some(*answer)),
                };
                if !is_doubled {
                    messages.swap_remove(at);
                }
                if let Some(answer) = answer {
                    let attempt = attempts.get_mut(&id);
                    let steps = attempt.map(|attempt| attempt.answer(step.node, &step.ask, answer, now));
                    messages.extend(steps.into_iter().flatten().map(|step| Message::Ask(id, step)));
                } else {
                    let answer = cluster.tell(id, &step, now);
                    let node = step.node as usize;
                    assert!(cluster.nodes[node].free(now).fits(&cluster.capacity[node]));
                    if step.ask != GangAsk::Release {
                        messages.push(Message::Answer(id, step, answer));
                    }
                }
            }
        }
        // Whoever is held starts, and ends or dies some time later; whoever waits too long gives up.
        let mut over = Vec::new();
        for (id, attempt) in &mut attempts {
            let steps = match attempt.state() {
                GangState::Held if dice.is_one_in(8) => {
                    if now < attempt.until() {
                        held += 1;
                        assert!(attempt.nodes().all(|node| cluster.nodes[node as usize].is_confirmed(*id)), "RV-4");
                    }
                    // One in twenty dies without a word.
                    if dice.is_one_in(20) { Vec::new() } else { attempt.release() }
                }
                GangState::Held if dice.is_one_in(40) => {
                    messages.extend(attempt.renew(now).into_iter().map(|step| Message::Ask(*id, step)));
                    continue;
                }
                GangState::GivenUp { at } => {
                    if at.is_some() {
                        refused += 1
                    } else {
                        late += 1
                    }
                    Vec::new()
                }
                _ => {
                    messages.extend(attempt.tick(now).into_iter().map(|step| Message::Ask(*id, step)));
                    continue;
                }
            };
            messages.extend(steps.into_iter().map(|step| Message::Ask(*id, step)));
            over.push(*id);
        }
        for id in over {
            attempts.remove(&id);
        }
    }
    assert!(
        held > 300_000 && refused > 50_000 && late > 1_000 && lost > 10_000,
        "{full} {held} {refused} {late} {lost}"
    );
    // What is still under way arrives; then nobody says anything any more.
    for message in messages {
        if let Message::Ask(id, step) = message {
            let _ = cluster.tell(id, &step, now);
        }
    }
    now += SPAN;
    for (node, capacity) in cluster.nodes.iter_mut().zip(&cluster.capacity) {
        let _ = node.expire(now);
        assert!(node.is_empty() && node.free(now) == *capacity && node.next_end().is_none());
    }
}

/// Without losses, of any number of attempts that meet on empty nodes at least one is held, and what is held is held on all
/// of its nodes.
#[test]
fn of_those_that_are_in_each_others_way_one_succeeds() {
    let mut dice = Dice(2);
    for _ in 0..20_000 {
        let mut cluster = Cluster::drawn(&mut dice, 6);
        let mut attempts: BTreeMap<HoldId, GangAttempt> = BTreeMap::new();
        let mut asks: Vec<(HoldId, GangStep)> = Vec::new();
        for gang in 0..dice.within(1, 6) {
            let members = cluster.gang(&mut dice);
            let id = HoldId { gang, attempt: 0 };
            let Some(places) = cluster.places(&members, true, Millis(0)) else { continue };
            let (attempt, first) = GangAttempt::new(id, &places, &members, SPAN, Millis(0));
            asks.extend(first.map(|step| (id, step)));
            attempts.insert(id, attempt);
        }
        let mut refusals = 0;
        while !asks.is_empty() {
            let at = dice.within(0, asks.len() as u64 - 1) as usize;
            let (id, step) = asks.swap_remove(at);
            let answer = cluster.tell(id, &step, Millis(0));
            refusals += u32::from(answer.is_err());
            if step.ask != GangAsk::Release {
                let attempt = attempts.get_mut(&id).expect("it asked");
                let steps = attempt.answer(step.node, &step.ask, answer, Millis(0));
                asks.extend(steps.into_iter().map(|step| (id, step)));
            }
        }
        let held = attempts.iter().filter(|(_, attempt)| attempt.state() == GangState::Held);
        assert!(attempts.is_empty() || held.clone().count() > 0, "{refusals} refusals and nobody is held");
        for (id, attempt) in held {
            assert!(attempt.nodes().all(|node| cluster.nodes[node as usize].is_confirmed(*id)));
        }
        let given_up = attempts.iter().filter(|(_, attempt)| attempt.state() != GangState::Held);
        for (id, attempt) in given_up {
            assert!(matches!(attempt.state(), GangState::GivenUp { at: Some(_) }));
            for node in attempt.nodes() {
                let mut node = cluster.nodes[node as usize].clone();
                assert_eq!(node.confirm(*id, SPAN, Millis(0)), Err(ReserveError::Ended), "it gave back what it had");
            }
        }
    }
}

/// Whether there is any way at all to fit them, by trying all.
fn fits(free: &mut [Resources], members: &[Resources]) -> bool {
    let Some((first, rest)) = members.split_first() else { return true };
    (0..free.len()).any(|node| {
        if !first.fits(&free[node]) {
            return false;
        }
        let before = free[node];
        free[node] = before.minus(first);
        let fits = fits(free, rest);
        free[node] = before;
        fits
    })
}

#[test]
fn a_gang_is_placed_as_a_whole_or_not_and_rarely_refused_for_nothing() {
    let mut dice = Dice(3);
    let (mut could, mut placed) = (0u32, 0u32);
    for _ in 0..10_000 {
        let nodes = dice.within(1, 4);
        let mut cluster = Cluster::drawn(&mut dice, nodes);
        let members: Vec<Resources> = (0..dice.within(1, 8))
            .map(|_| Resources {
                cpu_milli: dice.within(1, 8) * 500,
                memory_bytes: dice.within(0, 4) << 30,
                llm_slots: dice.within(0, 2),
            })
            .collect();
        could += u32::from(fits(&mut cluster.capacity.clone(), &members));
        let Some(places) = cluster.places(&members, false, Millis(0)) else { continue };
        placed += 1;
        let mut free = cluster.capacity.clone();
        for (node, needs) in places.iter().zip(&members) {
            assert!(needs.fits(&free[*node as usize]));
            free[*node as usize] = free[*node as usize].minus(needs);
        }
    }
    assert!(placed <= could && placed * 100 >= could * 95, "{placed} of {could}");
}

#[test]
fn members_with_labels_have_the_nodes_that_others_could_do_without() {
    let (none, gpu) = (Labels::new(), Labels::from([("gpu".to_owned(), "yes".to_owned())]));
    let one = Resources { cpu_milli: 1_000, ..Resources::default() };
    let node = |labels| NodeFree { free: one, capacity: one, speed: 100, cost: 0, run_queue: 0, is_open: true, labels };
    let demand = |labels| Demand { resources: one, labels };
    let nodes = [node(&gpu), node(&none)];
    assert_eq!(place_gang(&nodes, &[demand(&none), demand(&gpu)]), Some(vec![1, 0]));
    assert_eq!(place_gang(&nodes, &[demand(&gpu), demand(&gpu)]), None);
    assert_eq!(place_gang(&nodes, &[]), Some(vec![]));
    assert_eq!(place_gang(&[], &[demand(&none)]), None);
}

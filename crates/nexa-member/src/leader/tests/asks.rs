//! Agents that ask for something of their nodes, and gangs.

use nexa_event::asks::{Asks, Gang};

use super::*;

/// A desk of which `n2` has a graphics card.
fn with_labels(members: &[(&str, u64, u64)]) -> Desk {
    let mut desk = Desk::new(Limits { look_every: Millis(100), ..Limits::default() }, &[]);
    labelled(&mut desk, members);
    desk.elect();
    desk
}

fn labelled(desk: &mut Desk, members: &[(&str, u64, u64)]) {
    let labels = |name: &str| if name == "n2" { Labels::from([("gpu".into(), "yes".into())]) } else { Labels::new() };
    let facts = |(name, generation, max): &(&str, u64, u64)| {
        (node(name), Facts { labels: labels(name), ..facts(*generation, *max) })
    };
    desk.give(Input::Members(members.iter().map(facts).collect()));
    for (name, generation, _) in members {
        desk.heard(name, *generation, 0);
    }
}

fn wants_gpu() -> Option<Asks> {
    Some(Asks { labels: Labels::from([("gpu".into(), "yes".into())]), ..Asks::default() })
}

#[test]
fn who_asks_for_what_no_node_has_waits_for_one_and_keeps_nobody_else_waiting() {
    let mut desk = with_labels(&[("n1", 1, 100)]);
    desk.rows = vec![Row { asks: wants_gpu(), ..row(1, None, 0, 255) }, row(2, None, 0, 1)];
    desk.tick(1_000);
    assert_eq!(desk.placed, [(agent(2), node("n1"))]);
    labelled(&mut desk, &[("n1", 1, 100), ("n2", 2, 100)]);
    desk.tick(200);
    assert_eq!(desk.placed[1..], [(agent(1), node("n2"))]);
    desk.rows.push(Row { asks: Some(Asks { cpu_milli: Some(2_001), ..Asks::default() }), ..row(3, None, 0, 1) });
    desk.tick(7_000);
    assert_eq!(desk.placed.len(), 2, "no node has so many cores");
    assert!(desk.leader.leads().is_some(), "it is not stuck, it waits");
}

#[test]
fn what_is_left_of_a_workload_that_is_over_ends_anywhere() {
    let mut desk = with_labels(&[("n1", 1, 100)]);
    let asking = |n, epoch| Row { asks: wants_gpu(), ..row(n, None, epoch, 1) };
    desk.rows = vec![Row { is_over: true, ..asking(1, 0) }, Row { is_cancelled: true, ..asking(2, 1) }, asking(3, 0)];
    desk.tick(1_000);
    assert_eq!(desk.placed, [(agent(1), node("n1")), (agent(2), node("n1"))]);
}

#[test]
fn agents_of_a_gone_node_wait_for_one_that_has_what_they_ask_for() {
    let mut desk = with_labels(&[("n1", 1, 100), ("n2", 2, 100)]);
    desk.rows = vec![Row { asks: wants_gpu(), ..row(1, Some("n2"), 3, 1) }, row(2, Some("n2"), 3, 1)];
    desk.tick(200);
    labelled(&mut desk, &[("n1", 1, 100)]);
    desk.tick(3_000);
    assert_eq!(desk.placed, [(agent(2), node("n1"))]);
}

#[test]
fn a_node_is_left_but_for_those_whom_no_other_suits_and_somebody_is_told_once() {
    let mut desk = with_labels(&[("n1", 1, 100), ("n2", 2, 100)]);
    desk.rows = vec![Row { asks: wants_gpu(), ..row(1, Some("n2"), 3, 1) }, row(2, Some("n2"), 3, 1)];
    desk.give(Input::Command(99, Command::Drain { node: node("n2") }));
    desk.tick(3_000);
    let moves = |output: &&Output| matches!(output, Output::Move { .. });
    let moved: Vec<&Output> = desk.wanted.iter().filter(moves).collect();
    assert!(
        moved.iter().all(|output| matches!(output, Output::Move { agent: it, .. } if *it == agent(2))),
        "{moved:?}"
    );
    assert!(!moved.is_empty());
    let kept = Output::Kept { node: node("n2"), agents: 1, asks: wants_gpu().expect("it asks") };
    assert_eq!(desk.wanted.iter().filter(|output| **output == kept).count(), 1);
    assert!(!desk.leader.seen().expect("it leads")[&node("n2")].is_drained);
}

#[test]
fn nobody_moves_to_a_node_that_lacks_what_it_asks_for() {
    let mut desk = with_labels(&[("n1", 1, 100), ("n2", 2, 100)]);
    desk.rows = vec![row(1, Some("n2"), 3, 1)];
    let migrate =
        |to: Option<&str>, asks| Command::Migrate { agent: agent(1), from: node("n2"), to: to.map(node), asks };
    assert_eq!(desk.command(migrate(Some("n1"), wants_gpu())), Some(Err(Refused::Lacks)));
    assert_eq!(desk.command(migrate(None, wants_gpu())), Some(Err(Refused::Lacks)));
    assert_ne!(desk.command(migrate(Some("n1"), None)), Some(Err(Refused::Lacks)));
}

#[test]
fn a_gang_is_placed_when_there_is_room_for_all_of_it_and_over_several_nodes() {
    let mut desk = with_labels(&[("n1", 1, 2), ("n2", 2, 1)]);
    let gang = Some(Gang { name: "g".into(), members: 4 });
    let member = |n| Row { asks: Some(Asks { gang: gang.clone(), ..Asks::default() }), ..row(n, None, 0, 1) };
    desk.rows = (1..5).map(member).collect();
    desk.tick(1_000);
    assert_eq!(desk.placed, [], "there is room for three");
    labelled(&mut desk, &[("n1", 1, 2), ("n2", 2, 1), ("n3", 3, 1)]);
    desk.tick(200);
    assert_eq!(desk.placed.len(), 4);
    let on: BTreeSet<&NodeId> = desk.placed.iter().map(|(_, node)| node).collect();
    assert_eq!(on.len(), 3);
}

/// Agents of one list that start together.
fn gang(name: &str, numbers: std::ops::Range<u64>, labels: Option<Asks>) -> Vec<Row> {
    let gang = Some(Gang { name: name.to_owned(), members: (numbers.end - numbers.start) as u32 });
    numbers
        .map(|n| Row {
            asks: Some(Asks { gang: gang.clone(), ..labels.clone().unwrap_or_default() }),
            ..row(n, None, 0, 1)
        })
        .collect()
}

impl Desk {
    /// A while in which a full node's oldest agent ends every 100 ms, another of the same wishes waits at once, and the node
    /// says what it has. Gives how many have ended.
    fn churn(&mut self, name: &str, generation: u64, millis: u64, priority: u8) -> usize {
        let next = self
            .rows
            .iter()
            .map(|row| u64::from_be_bytes(row.agent.as_bytes()[8..].try_into().expect("eight bytes")))
            .max();
        let mut next = next.unwrap_or_default();
        let mut ended = 0;
        for _ in 0..millis / 100 {
            next += 1;
            self.rows.push(row(next, None, 0, priority));
            if let Some(at) = self.rows.iter().position(|row| row.node == Some(node(name))) {
                self.rows.remove(at);
                ended += 1;
            }
            self.beat(name, generation);
            self.tick(100);
        }
        ended
    }

    /// A node tells what it has, and that it has taken up all that it was given.
    fn beat(&mut self, name: &str, generation: u64) {
        let agents = self.on(name) as u64;
        let given = self.placed.iter().filter(|(_, to)| *to == node(name)).count() as u64;
        self.give(Input::Heard {
            node: node(name),
            generation: Generation(generation),
            load: Load { agents, ..Load::default() },
            adopted: Adopted { leader: Epoch(7), agents: given },
        });
    }

    fn is_placed(&self, n: u64) -> bool {
        self.placed.iter().any(|(placed, _)| *placed == agent(n))
    }
}

#[test]
fn room_is_kept_for_a_gang_where_places_get_free_one_by_one_and_others_wait_no_longer_than_that() {
    let mut desk = with_labels(&[("n1", 1, 10)]);
    desk.rows = (100..110).map(|n| row(n, None, 0, 1)).collect();
    desk.beat("n1", 1);
    desk.tick(200);
    desk.beat("n1", 1);
    assert_eq!(desk.on("n1"), 10);
    desk.rows.extend(gang("g", 1..7, None));
    desk.tick(200);
    let before = desk.placed.len();
    let ended = desk.churn("n1", 1, 1_000, 1);
    assert!(desk.placed.len() > before && !desk.is_placed(1), "places go to those who need one");
    let ended = ended + desk.churn("n1", 1, 3_000, 1);
    assert!((1..7).all(|n| desk.is_placed(n)), "it was not in vain: {ended} have ended");
    let before = desk.placed.len();
    desk.churn("n1", 1, 1_000, 1);
    assert!(desk.placed.len() > before + 5, "and then all go on");
}

#[test]
fn nothing_is_born_where_room_is_kept_until_the_gang_has_gone_on() {
    let mut desk = with_labels(&[("n1", 1, 10), ("n2", 2, 10)]);
    desk.rows = (100..118).map(|n| row(n, Some(if n % 2 == 0 { "n1" } else { "n2" }), 1, 1)).collect();
    desk.rows.extend(gang("g", 1..7, wants_gpu()));
    let births = |desk: &mut Desk| {
        desk.beat("n1", 1);
        desk.beat("n2", 2);
        desk.tick(100);
        let levels = desk.leader.levels();
        ["n1", "n2"].map(|name| levels[&node(name)])
    };
    let before = births(&mut desk);
    assert!(before.iter().all(|level| *level > 0), "{before:?}");
    desk.tick(1_200);
    let [one, other] = births(&mut desk);
    assert!(one > 0 && other == 0, "only the second has what they ask for: {one}, {other}");
    desk.rows.retain(|row| row.node != Some(node("n2")) || row.agent < agent(105));
    births(&mut desk);
    assert!((1..7).all(|n| desk.is_placed(n)));
    let after = births(&mut desk);
    assert!(after.iter().all(|level| *level > 0), "nobody waits any more: {after:?}");
}

#[test]
fn room_is_kept_in_vain_for_a_while_only_and_never_from_who_is_more_urgent() {
    let mut desk = with_labels(&[("n1", 1, 100), ("n3", 3, 1)]);
    desk.rows = (1_000..1_100).map(|n| row(n, None, 0, 1)).collect();
    desk.beat("n1", 1);
    desk.tick(200);
    desk.beat("n1", 1);
    // More than get free while room is kept for it, but no more than the node could hold.
    desk.rows.extend(gang("g", 1..90, None));
    desk.tick(200);
    let (mut placed, mut pauses) = (Vec::new(), 0);
    for _ in 0..60 {
        let before = desk.placed.len();
        desk.churn("n1", 1, 500, 1);
        placed.push(desk.placed.len() - before);
        pauses += usize::from(placed.last() == Some(&0));
    }
    assert!((1..89).all(|n| !desk.is_placed(n)) && desk.leader.leads().is_some());
    assert!((8..=40).contains(&pauses), "{placed:?}");
    assert!(placed.iter().sum::<usize>() > 120, "{placed:?}");
    // Those of higher priority do not notice.
    for _ in 0..20 {
        let before = desk.placed.len();
        desk.churn("n1", 1, 500, 9);
        assert!(desk.placed.len() >= before + 3);
    }
    // Nor do agents of a node that is gone.
    desk.rows.push(row(5_000, Some("n3"), 4, 1));
    desk.tick(200);
    labelled(&mut desk, &[("n1", 1, 100)]);
    desk.churn("n1", 1, 1_000, 1);
    assert!(desk.is_placed(5_000));
}

#[test]
fn gangs_that_find_no_room_keep_nobody_else_waiting_and_no_gang_is_torn() {
    let limits = Limits { queue_max: 2 * PAGE, look_every: Millis(100), ..Limits::default() };
    let mut desk = Desk::new(limits, &[]);
    labelled(&mut desk, &[("n1", 1, 200)]);
    desk.elect();
    // More than the queue takes in, each too large for the node; and some of which one member finds no node.
    for number in 0..20 {
        desk.rows.extend(gang(&format!("large {number}"), number * 1_000..number * 1_000 + 201, None));
    }
    desk.rows.extend(gang("half", 30_000..30_002, None));
    desk.rows.last_mut().expect("a member").asks.as_mut().expect("it asks").labels =
        wants_gpu().expect("labels").labels;
    // Behind all of them.
    desk.rows.push(row(90_000, None, 0, 1));
    desk.rows.extend(gang("small", 91_000..91_003, None));
    for _ in 0..30 {
        desk.beat("n1", 1);
        desk.tick(100);
    }
    let mut placed: Vec<AgentId> = desk.placed.iter().map(|(agent, _)| *agent).collect();
    placed.sort_unstable();
    assert_eq!(placed, [90_000, 91_000, 91_001, 91_002].map(agent));
    labelled(&mut desk, &[("n1", 1, 200), ("n2", 2, 250)]);
    for _ in 0..30 {
        desk.beat("n1", 1);
        desk.beat("n2", 2);
        desk.tick(100);
    }
    assert_eq!([30_000, 30_001].map(|n| desk.is_placed(n)), [true, true], "a node has come that suits it");
    let large = (0..20).map(|number| (0..201).filter(|n| desk.is_placed(number * 1_000 + n)).count());
    let large: Vec<usize> = large.collect();
    assert!(large.iter().all(|placed| [0, 201].contains(placed)) && large.contains(&201), "{large:?}");
}

#[test]
fn a_failover_ends_when_all_have_owners_whom_some_node_suits() {
    let mut desk = with_labels(&[("n1", 1, 100), ("n2", 2, 100)]);
    desk.rows = vec![Row { asks: wants_gpu(), ..row(1, Some("n2"), 3, 1) }, row(2, Some("n2"), 3, 1)];
    desk.tick(200);
    labelled(&mut desk, &[("n1", 1, 100)]);
    desk.tick(3_000);
    let is_over = |output: &Output| matches!(output, Output::FailedOver { .. });
    assert!(desk.wanted.iter().any(is_over), "who suits nowhere is not waited for");
    labelled(&mut desk, &[("n1", 1, 100), ("n3", 3, 100)]);
    desk.tick(1_000);
    assert!(!desk.is_placed(1));
    let facts = Facts { labels: wants_gpu().expect("labels").labels, ..facts(4, 100) };
    let others = [("n1", 1), ("n3", 3)].map(|(name, generation)| (node(name), self::facts(generation, 100)));
    desk.give(Input::Members(others.into_iter().chain([(node("n4"), facts)]).collect()));
    desk.heard("n4", 4, 0);
    desk.tick(200);
    assert_eq!(desk.placed.last(), Some(&(agent(1), node("n4"))));
}

#[test]
fn nobody_is_moved_for_balance_to_a_node_that_lacks_what_it_asks_for() {
    let limits = Limits { look_every: Millis(100), moves_percent: 100, ..Limits::default() };
    let mut desk = Desk::new(limits, &[]);
    labelled(&mut desk, &[("n1", 1, 100), ("n2", 2, 100)]);
    desk.elect();
    let asking = |n| Row { asks: wants_gpu(), ..row(n, Some("n2"), 3, 1) };
    let large = |n| Row { asks: Some(Asks { cpu_milli: Some(2_000), ..Asks::default() }), ..row(n, Some("n2"), 3, 1) };
    desk.rows =
        (0..20).map(asking).chain((20..40).map(|n| row(n, Some("n2"), 3, 1))).chain((40..60).map(large)).collect();
    desk.beat("n1", 1);
    desk.beat("n2", 2);
    desk.tick(200);
    assert_eq!(desk.command(Command::Rebalance), Some(Ok(())));
    for _ in 0..100 {
        desk.beat("n1", 1);
        desk.beat("n2", 2);
        desk.tick(100);
        let _ = desk.command(Command::Rebalance);
    }
    let moved: BTreeSet<AgentId> =
        desk.rows.iter().filter(|row| row.node == Some(node("n1"))).map(|row| row.agent).collect();
    assert!(!moved.is_empty(), "there are some that can");
    assert!(moved.iter().all(|it| *it >= agent(20)), "{moved:?}");
}

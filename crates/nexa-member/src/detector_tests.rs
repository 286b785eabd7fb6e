//! A detector among peers that beat, fall silent, or are dialled in vain.

use proptest::prelude::*;

use super::*;

fn node(n: usize) -> NodeId {
    format!("n{n:03}").parse().expect("a name")
}

fn members(count: usize) -> BTreeMap<NodeId, Generation> {
    (0..count).map(|n| (node(n), Generation(n as u64 + 1))).collect()
}

fn run(n: usize) -> (NodeId, Generation) {
    (node(n), Generation(n as u64 + 1))
}

/// Node 0 among `count`, of which `leader` leads.
fn desk(count: usize, leader: usize) -> Detector {
    let mut detector = Detector::new(node(0), Timestamp(0));
    detector.members(members(count), Some(node(leader)), Timestamp(0));
    detector
}

/// Beats of these peers and looks, from one moment up to another.
fn pass(detector: &mut Detector, from: u64, to: u64, beating: &[usize], suspected: &[usize]) -> Look {
    let mut look = Look::default();
    for at in (from..=to).step_by(BEAT.0 as usize) {
        for n in beating {
            let (peer, generation) = run(*n);
            detector.heard(&peer, generation, suspected.iter().map(|n| run(*n)), false, Timestamp(at));
        }
        look = detector.look(Timestamp(at), Millis(0), Timestamp(at));
    }
    look
}

#[test]
fn ten_missed_beats_make_a_suspect_and_silence_alone_makes_nobody_dead() {
    let mut detector = desk(3, 0);
    assert_eq!(pass(&mut detector, 100, 1_000, &[1, 2], &[]), Look::default());
    assert_eq!(pass(&mut detector, 1_100, 1_900, &[1], &[]).suspects, BTreeSet::new());
    let look = pass(&mut detector, 2_000, 9_000, &[1], &[2]);
    assert_eq!((look.suspects, look.dead), (BTreeSet::from([run(2)]), Vec::new()));
}

#[test]
fn a_refused_dial_and_a_second_observer_make_it_dead_within_three_beats() {
    let mut detector = desk(3, 0);
    pass(&mut detector, 100, 1_000, &[1, 2], &[]);
    detector.dialled(&node(2), true);
    assert_eq!(pass(&mut detector, 1_100, 1_300, &[1], &[]).dead, [], "nobody else says so");
    assert_eq!(pass(&mut detector, 1_400, 1_400, &[1], &[2]).dead, [run(2)]);
    let mut other = desk(3, 1);
    pass(&mut other, 100, 1_000, &[1, 2], &[]);
    other.dialled(&node(2), true);
    let look = pass(&mut other, 1_100, 2_000, &[1], &[2]);
    assert_eq!((look.suspects.len(), look.dead), (1, Vec::new()), "it is the leader's to say");
}

#[test]
fn a_dead_leader_is_found_by_anybody_and_of_two_nodes_by_the_other_alone() {
    let mut detector = desk(3, 2);
    detector.dialled(&node(2), true);
    assert_eq!(pass(&mut detector, 100, 1_000, &[1], &[2]).dead, [run(2)]);
    let mut detector = desk(2, 1);
    detector.dialled(&node(1), true);
    assert_eq!(pass(&mut detector, 100, 1_000, &[], &[]).dead, [run(1)]);
}

#[test]
fn who_hears_nobody_and_is_not_renewed_is_the_lonely_one_and_accuses_nobody() {
    let mut detector = desk(2, 1);
    detector.dialled(&node(1), true);
    let mut look = Look::default();
    for at in (100..=3_000).step_by(100) {
        look = detector.look(Timestamp(at), Millis(0), Timestamp(0));
        assert_eq!(look.is_lonely, at >= 1_500, "at {at}");
        assert!(!look.is_lonely || look.dead.is_empty());
    }
    assert!(look.is_lonely);
    detector.heard(&node(1), Generation(2), [], false, Timestamp(3_000));
    assert!(!detector.look(Timestamp(3_100), Millis(0), Timestamp(0)).is_lonely);
    assert!(!desk(1, 0).look(Timestamp(9_000), Millis(0), Timestamp(0)).is_lonely, "alone is not lonely");
}

#[test]
fn the_word_of_a_lonely_or_suspected_observer_does_not_count() {
    let mut detector = desk(4, 0);
    detector.dialled(&node(3), true);
    for at in (100..=1_000).step_by(100) {
        detector.heard(&node(1), Generation(2), [run(3)], true, Timestamp(at));
        detector.heard(&node(2), Generation(3), [], false, Timestamp(at));
        let look = detector.look(Timestamp(at), Millis(0), Timestamp(at));
        assert_eq!(look.dead, []);
    }
    let mut detector = desk(4, 0);
    detector.heard(&node(1), Generation(2), [run(3)], false, Timestamp(0));
    detector.dialled(&node(3), true);
    assert_eq!(pass(&mut detector, 100, 3_000, &[2], &[]).dead, [], "who said so is silent by now");
}

#[test]
fn an_earlier_run_is_not_taken_for_this_one() {
    let mut detector = desk(2, 0);
    for at in (100..=2_000).step_by(100) {
        detector.heard(&node(1), Generation(1), [], false, Timestamp(at));
        detector.look(Timestamp(at), Millis(0), Timestamp(at));
    }
    let look = detector.look(Timestamp(2_100), Millis(0), Timestamp(2_100));
    assert_eq!(look.suspects, BTreeSet::from([run(1)]));
    detector.members(BTreeMap::from([run(0), (node(1), Generation(9))]), None, Timestamp(2_100));
    assert_eq!(detector.look(Timestamp(2_200), Millis(0), Timestamp(2_200)).suspects, BTreeSet::new());
}

#[test]
fn in_a_large_cluster_each_hears_its_ring_and_the_leader_hears_all() {
    let all = members(100);
    for n in 0..100 {
        let mine = targets(&all, &node(n), Some(&node(50)));
        let expected = if n == 50 { 99 } else { RING + usize::from(!(40..50).contains(&n)) };
        assert_eq!(mine.len(), expected, "node {n}");
        assert!(n == 50 || mine.contains(&node(50)));
        assert!(!mine.contains(&node(n)));
    }
    let observed = (0..100).filter(|n| targets(&all, &node(*n), None).contains(&node(7))).count();
    assert_eq!(observed, RING);
    let mut detector = Detector::new(node(0), Timestamp(0));
    detector.members(all, Some(node(50)), Timestamp(0));
    let look = pass(&mut detector, 100, 3_000, &[50], &[]);
    assert_eq!(look.suspects, (90..100).map(run).collect(), "only those who send here");
}

#[test]
fn three_crashes_in_five_minutes_are_too_many() {
    let mut crashes = Crashes::default();
    let name = node(1);
    let mut there = |generation: Option<u64>, has_left: bool, minute: u64| {
        let members = generation.map(|generation| (name.clone(), Generation(generation))).into_iter().collect();
        crashes.members(members, |_, _| has_left, Timestamp(minute * 60_000)).len()
    };
    assert_eq!((there(Some(1), false, 0), there(Some(1), false, 0)), (0, 0), "that it is there still is no crash");
    assert_eq!((there(None, false, 1), there(Some(2), false, 1)), (0, 0), "gone is one, back is none");
    assert_eq!((there(Some(3), true, 1), there(Some(4), true, 1)), (0, 0), "those who leave do not crash");
    assert_eq!((there(Some(5), false, 2), there(Some(6), false, 3)), (0, 1), "another run in its place is one");
    assert_eq!((there(Some(7), false, 4), there(Some(7), false, 5)), (1, 0), "so is each further one");
    assert_eq!((there(Some(8), false, 8), there(Some(9), false, 8)), (0, 1), "none counts for more than five minutes");
}

proptest! {
    /// A peer that beats is never suspected, however late single beats are within the limit, and however badly this node
    /// itself keeps its own time.
    #[test]
    fn the_sick_do_not_accuse_the_healthy(pauses in prop::collection::vec((1u64..20_000, 0u64..800), 1..60)) {
        let mut detector = desk(3, 0);
        let mut now = 0;
        for (pause, late) in pauses {
            now += pause;
            // While this node stood still nothing was taken in; what waits is taken in after the look.
            let look = detector.look(Timestamp(now), Millis(pause.saturating_sub(100)), Timestamp(now));
            prop_assert_eq!(look, Look::default());
            for n in [1, 2] {
                let (peer, generation) = run(n);
                detector.heard(&peer, generation, [], false, Timestamp(now.saturating_sub(late.min(pause))));
            }
        }
    }

    /// Whoever falls silent is suspected, at the latest when the limit, widened as far as it goes, has passed.
    #[test]
    fn silence_is_noticed(lags in prop::collection::vec(0u64..50_000, 0..50), refused in any::<bool>()) {
        let mut detector = desk(3, 0);
        detector.dialled(&node(2), refused);
        let mut lags = lags.into_iter();
        let mut noticed = None;
        for at in (100..=20_000u64).step_by(100) {
            detector.heard(&node(1), Generation(2), [], false, Timestamp(at));
            let look = detector.look(Timestamp(at), Millis(lags.next().unwrap_or(0)), Timestamp(at));
            prop_assert!(!look.suspects.contains(&run(1)));
            if look.suspects.contains(&run(2)) {
                noticed = noticed.or(Some(at));
            }
        }
        let limit = BEAT.0 * if refused { MISSED_REFUSED_MAX } else { MISSED_MAX };
        prop_assert!(noticed.is_some_and(|at| at >= limit && at <= limit + WIDEN_MAX.0), "noticed at {:?}", noticed);
    }

    /// Nobody is called dead without a refused dial, a second observer (of three or more), and a right to say so.
    #[test]
    fn nobody_is_dead_for_less(
        count in 2usize..6,
        leader in 0usize..6,
        events in prop::collection::vec((1usize..6, any::<bool>(), any::<bool>(), prop::collection::vec(1usize..6, 0..3)), 1..200),
    ) {
        let mut detector = desk(count, leader);
        let mut refused = BTreeSet::new();
        let mut said: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, (peer, beats, is_refused, suspects)) in events.into_iter().enumerate() {
            let now = Timestamp(at as u64 * 100);
            if beats {
                let (name, generation) = run(peer);
                detector.heard(&name, generation, suspects.iter().map(|n| run(*n)), false, now);
                refused.remove(&peer);
                said.insert(peer, suspects);
            } else {
                detector.dialled(&node(peer), is_refused);
                if is_refused { refused.insert(peer); } else { refused.remove(&peer); }
            }
            let look = detector.look(now, Millis(0), now);
            for dead in look.dead {
                let n = (0..count).find(|n| run(*n) == dead).expect("a member");
                prop_assert!(refused.contains(&n));
                prop_assert!(leader == 0 || leader == n);
                let others = said.iter().any(|(by, whom)| *by != n && whom.contains(&n));
                prop_assert!(count == 2 || others);
            }
        }
    }
}

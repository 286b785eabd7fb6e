//! What goes with an agent that leaves, and what is left for one that comes.

use super::*;

/// The key of another of its effects.
fn later(agent: u8) -> EffectKey {
    EffectKey::from_bytes([agent ^ 0xFF; 32])
}

#[test]
fn what_an_agent_waits_for_is_the_last_that_was_sent_or_said_and_goes_with_it() {
    for agent in [1, 0xFE] {
        let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 9 });
        let now = Timestamp(0);
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        slots.reserve("a".into(), at_once(2), wanted(agent, 0), now);
        slots.take_off(id(agent), key(agent), 1, (first.clone(), Timestamp(100)), now).unwrap();
        slots.reserve("a".into(), at_once(2), wanted(agent, 0), now);
        slots.take_off(id(agent), later(agent), 1, (second.clone(), Timestamp(100)), now).unwrap();
        let (sent, _) = slots.hand_over(id(agent), &node("n2"), now);
        assert_eq!(sent.map(|sent| (sent.key, sent.by)), Some((later(agent), None)));
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert_eq!((slots.carried(), slots.carries(id(agent), key(agent))), (1, false));
        // Back, it waits for what is said.
        let other = Sent { key: key(agent), attempt: 2, deadline: Timestamp(100), by: Some(node("n3")) };
        slots.take_up(id(agent), Some(other.clone()));
        assert_eq!(slots.hand_over(id(agent), &node("n2"), now).0, Some(other));
    }
}

#[test]
fn an_answer_that_nobody_has_asked_for_does_not_follow_an_agent() {
    let (mut slots, now) = (Slots::new(ModelLimits { reservations_max: 4, held_results_max: 9 }), Timestamp(0));
    assert!(slots.is_offered(&node("n2"), id(1), ended(1, 1)));
    assert_eq!(slots.hand_over(id(1), &node("n3"), now).0, None);
    assert_eq!(slots.load(now).held, 0);
}

#[test]
fn an_agent_that_is_back_waits_for_nothing_that_is_not_said() {
    let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 9 });
    slots.take_up(id(1), Some(expected(1, 1, Timestamp(100))));
    assert!(slots.carries(id(1), key(1)));
    slots.take_up(id(1), None);
    assert!(!slots.carries(id(1), key(1)) && slots.round_due().is_none());
    // An answer that has come is one.
    slots.take_up(id(1), Some(expected(1, 1, Timestamp(100))));
    slots.is_offered(&node("n2"), id(1), ended(1, 1));
    slots.take_up(id(1), None);
    assert!(slots.carries(id(1), key(1)));
}

#[test]
fn an_answer_that_is_turned_away_is_not_told_to_be_recorded_and_may_be_offered_again() {
    let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 1 });
    slots.take_up(id(2), Some(expected(2, 1, Timestamp(100))));
    for agent in [1, 2] {
        for _ in 0..2 {
            assert!(slots.is_offered(&node("n2"), id(agent), ended(agent, 1)));
            assert!(slots.turn_away(id(agent), key(agent)));
            assert!(!slots.turn_away(id(agent), key(agent)) && slots.finished(id(agent)).next().is_none());
        }
    }
    assert_eq!((slots.take_recorded(), slots.load(Timestamp(0)).held), (vec![], 0));
    assert!(!slots.carries(id(1), key(1)) && slots.carries(id(2), key(2)), "what is awaited is so still");
    assert_eq!(slots.round(Timestamp(100).after(CARRY_GRACE)).given_up, [id(2)]);
}

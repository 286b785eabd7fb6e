#[path = "slots_carry_tests.rs"]
mod carry_tests;

use nexa_ports::model::LaneLimits;
use nexa_types::{Failure, Millis, RunCode, TenantId};
use proptest::prelude::*;

use super::carry::{CARRY_GRACE, Sent};
use super::*;
use crate::dispatch::budget::Cost;

#[derive(Debug, Clone)]
enum Move {
    Reserve { agent: u8, lane: u8, priority: u8 },
    Withdraw(u8),
    Send(u8),
    Land { nth: usize, how: u8 },
    Settle(u8),
    Abandon(u8),
    Forget(u8),
    Wait(u64),
    HandOver(u8),
    TakeBack(u8),
    Expect(u8),
    Offered(u8),
    Recorded(u8),
    CarrierGone,
    Round,
}

fn moves() -> impl Strategy<Value = Move> {
    let agent = 0u8..8;
    prop_oneof![
        4 => (agent.clone(), 0u8..3, 0u8..3)
            .prop_map(|(agent, lane, priority)| Move::Reserve { agent, lane, priority }),
        1 => agent.clone().prop_map(Move::Withdraw),
        4 => agent.clone().prop_map(Move::Send),
        3 => (0usize..8, 0u8..6).prop_map(|(nth, how)| Move::Land { nth, how }),
        3 => agent.clone().prop_map(Move::Settle),
        1 => agent.clone().prop_map(Move::Abandon),
        1 => agent.clone().prop_map(Move::Forget),
        2 => agent.clone().prop_map(Move::HandOver),
        1 => agent.clone().prop_map(Move::TakeBack),
        1 => agent.clone().prop_map(Move::Expect),
        1 => agent.clone().prop_map(Move::Offered),
        2 => agent.prop_map(Move::Recorded),
        1 => Just(Move::CarrierGone),
        2 => Just(Move::Round),
        1 => prop_oneof![Just(3u64), 0u64..3_000].prop_map(Move::Wait),
    ]
}

fn id(agent: u8) -> AgentId {
    AgentId::from_bytes([agent; 16])
}

fn key(agent: u8) -> EffectKey {
    EffectKey::from_bytes([agent; 32])
}

fn at_once(concurrency: usize) -> LaneKind {
    LaneKind { limits: LaneLimits::at_once(concurrency), has_breaker: false }
}

fn wanted(agent: u8, priority: u8) -> Wanted {
    Wanted {
        agent: id(agent),
        tenant: TenantId::new(&format!("tenant-{}", agent % 3)).unwrap(),
        weight: 1,
        priority,
        cost: Cost { input: 30, output: 70 },
        patience: Millis(500),
    }
}

fn ended(agent: u8, attempt: u32) -> Finished {
    let result = EffectResult::Failed(Failure::new(RunCode::Failed, "x"));
    Finished { key: key(agent), seq: Seq(1), attempt, result, spend: Spend::default() }
}

const ANSWERED: Ending = Ending::Answered(Cost { input: 30, output: 70 });

/// Sends with the slot that an agent holds.
fn send(slots: &mut Slots, agent: u8, now: Timestamp) -> Option<(String, Pass)> {
    let flight = slots.take_off(id(agent), key(agent), 1, (CancellationToken::new(), now), now);
    flight.map(|(lane, pass, _)| (lane, pass))
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// Sent by another node.
fn expected(agent: u8, attempt: u32, deadline: Timestamp) -> Sent {
    Sent { key: key(agent), attempt, deadline, by: Some(node("n2")) }
}

/// A table of one lane, with an effect of agent 1 on its way.
fn with_one_sent(held_results_max: usize) -> (Slots, Pass) {
    let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max });
    slots.reserve("a".into(), at_once(2), wanted(1, 0), Timestamp(0));
    let deadline = (CancellationToken::new(), Timestamp(60_000));
    let (_, pass, _) = slots.take_off(id(1), key(1), 1, deadline, Timestamp(0)).unwrap();
    (slots, pass)
}

/// What is offered at a time, and how often it was before.
fn offers(slots: &mut Slots, now: Timestamp) -> Vec<(AgentId, String, u32)> {
    let round = slots.round(now);
    round.offers.into_iter().map(|offer| (offer.agent, offer.to.to_string(), offer.offered)).collect()
}

#[test]
fn an_answer_that_came_before_its_agent_is_offered_again_once_the_agent_is_there() {
    let (mut slots, pass) = with_one_sent(9);
    slots.hand_over(id(1), &node("n2"), Timestamp(0)).0.unwrap();
    slots.has_arrived(id(1), Timestamp(5));
    assert!(slots.round_due().is_none(), "there is no answer yet");
    slots.land("a", pass, ANSWERED, id(1), ended(1, 1), Timestamp(10));
    assert_eq!(offers(&mut slots, Timestamp(10)), [(id(1), "n2".to_owned(), 0)]);
    slots.has_arrived(id(1), Timestamp(12));
    assert_eq!(offers(&mut slots, Timestamp(12)), [(id(1), "n2".to_owned(), 0)], "nobody doubts where it is");
    assert_eq!(slots.round_due(), Some(Timestamp(262)));
    slots.is_recorded(id(1), key(1), Timestamp(20));
    slots.has_arrived(id(1), Timestamp(30));
    assert!(slots.round_due().is_none(), "it is recorded");
}

#[test]
fn a_carried_answer_is_offered_less_and_less_often_until_it_is_recorded() {
    let (mut slots, pass) = with_one_sent(9);
    let sent = slots.hand_over(id(1), &node("n2"), Timestamp(0)).0.unwrap();
    assert_eq!((sent.key, sent.attempt, sent.deadline, sent.by), (key(1), 1, Timestamp(60_000), None));
    assert!(!slots.carries(id(1), key(1)) && slots.round_due().is_none(), "its agent is gone, and it has not ended");
    let (is_wanted, _) = slots.land("a", pass, ANSWERED, id(1), ended(1, 1), Timestamp(1_000));
    assert!(!is_wanted && slots.finished(id(1)).next().is_none(), "nobody here wants it");
    let mut times = Vec::new();
    while times.len() < 7 {
        let due = slots.round_due().unwrap();
        assert_eq!(offers(&mut slots, due), [(id(1), "n2".to_owned(), times.len() as u32)]);
        times.push(due.0);
    }
    assert_eq!(times, [1_000, 1_250, 1_750, 2_750, 4_750, 8_750, 12_750]);
    slots.redirect(id(1), key(1), node("n3"));
    let due = slots.round_due().unwrap();
    assert_eq!(offers(&mut slots, due), [(id(1), "n3".to_owned(), 7)]);
    slots.is_recorded(id(1), key(1), due);
    let load = slots.load(due);
    assert_eq!((load.carried, load.held, slots.round_due()), (0, 0, None));
}

#[test]
fn a_carried_answer_that_nobody_records_is_given_up_and_makes_room() {
    let (mut slots, pass) = with_one_sent(1);
    slots.hand_over(id(1), &node("n2"), Timestamp(0));
    slots.land("a", pass, ANSWERED, id(1), ended(1, 1), Timestamp(1_000));
    let waits = slots.reserve("a".into(), at_once(2), wanted(2, 0), Timestamp(1_000));
    assert_eq!(waits, (Reserve::Waiting, vec![]), "it counts against the bound");
    let over = Timestamp(60_000).after(CARRY_GRACE);
    let round = slots.round(over);
    assert_eq!((round.offers.len(), round.granted), (0, vec![id(2)]));
    assert_eq!(slots.load(over).carried, 0);
}

#[test]
fn a_call_that_its_agents_new_node_does_not_want_is_cancelled() {
    let (mut slots, pass) = with_one_sent(9);
    slots.hand_over(id(1), &node("n2"), Timestamp(0));
    slots.is_recorded(id(1), key(1), Timestamp(5));
    assert_eq!(slots.load(Timestamp(5)).carried, 1, "until it has ended");
    slots.land("a", pass, Ending::NotSent, id(1), ended(1, 1), Timestamp(6));
    let load = slots.load(Timestamp(6));
    assert_eq!((load.carried, load.held, slots.round_due()), (0, 0, None));
}

#[test]
fn an_awaited_answer_counts_as_one_of_its_own_and_its_carrier_is_told() {
    let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 1 });
    slots.take_up(id(1), Some(expected(1, 2, Timestamp(100))));
    slots.take_up(id(2), Some(expected(2, 1, Timestamp(100))));
    assert_eq!(slots.carrier(id(1), key(1)), Some(Some(node("n2"))));
    assert!(slots.is_in_flight_for(id(1)));
    assert!(slots.is_offered(&node("n2"), id(1), ended(1, 2)));
    assert!(!slots.is_offered(&node("n2"), id(1), ended(1, 2)), "once is enough");
    assert!(!slots.is_offered(&node("n2"), id(2), ended(2, 1)), "as many are kept as may be");
    slots.settle(id(1), key(1), Timestamp(1));
    assert_eq!(slots.take_recorded(), [(node("n2"), id(1), key(1))]);
    slots.abandon(id(2), key(2), Timestamp(1));
    assert_eq!(slots.take_recorded(), [(node("n2"), id(2), key(2))], "it need not go on");
}

#[test]
fn what_is_awaited_is_given_up_in_time_or_with_its_carrier_and_left_to_the_next_owner() {
    let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 9 });
    for agent in 1..=4 {
        slots.take_up(id(agent), Some(expected(agent, 1, Timestamp(u64::from(agent) * 100))));
    }
    assert_eq!(slots.round(Timestamp(100).after(CARRY_GRACE)).given_up, [id(1)]);
    slots.forget(id(2), Timestamp(0));
    assert_eq!(slots.hand_over(id(3), &node("n3"), Timestamp(0)).0, Some(expected(3, 1, Timestamp(300))));
    assert_eq!(slots.take_recorded(), [], "whoever carries it goes on");
    assert_eq!(slots.carrier_is_gone(&node("n3")), []);
    assert_eq!(slots.carrier_is_gone(&node("n2")), [id(4)]);
    assert!((1..=4).all(|agent| !slots.is_in_flight_for(id(agent))));
    assert_eq!(slots.round_due(), None);
}

/// Found by the property below.
#[test]
fn a_slot_given_up_for_another_lane_goes_to_who_waits_for_it() {
    let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 3 });
    let now = Timestamp(0);
    assert_eq!(slots.reserve("a".into(), at_once(1), wanted(1, 0), now), (Reserve::Granted, vec![]));
    assert_eq!(slots.reserve("a".into(), at_once(1), wanted(2, 0), now), (Reserve::Waiting, vec![]));
    assert_eq!(slots.reserve("b".into(), at_once(1), wanted(1, 0), now), (Reserve::Granted, vec![id(2)]));
    assert!(slots.holds_slot(id(1)) && slots.holds_slot(id(2)));
}

/// Found by the property below.
#[test]
fn a_second_attempt_makes_room_for_another_result() {
    let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 1 });
    let (now, cancel) = (Timestamp(0), CancellationToken::new());
    slots.reserve("a".into(), at_once(2), wanted(1, 0), now);
    let (_, pass) = send(&mut slots, 1, now).unwrap();
    slots.reserve("a".into(), at_once(2), wanted(1, 0), now);
    slots.land("a", pass, ANSWERED, id(1), ended(1, 1), now);
    assert_eq!(slots.reserve("a".into(), at_once(2), wanted(2, 0), now), (Reserve::Waiting, vec![]), "unrecorded");
    let again = slots.take_off(id(1), key(1), 2, (cancel, now), now).map(|(lane, _, granted)| (lane, granted));
    assert_eq!(again, Some(("a".into(), vec![id(2)])));
}

#[test]
fn a_429_without_advice_pauses_for_longer_each_time_until_an_answer_comes() {
    let mut slots = Slots::new(ModelLimits { reservations_max: 4, held_results_max: 9 });
    let mut now = Timestamp(0);
    let mut pauses = Vec::new();
    let mut call = |slots: &mut Slots, ending, now: &mut Timestamp| {
        let (reserved, _) = slots.reserve("a".into(), at_once(2), wanted(1, 0), *now);
        let began = *now;
        if reserved == Reserve::Waiting {
            *now = slots.due().unwrap();
            assert_eq!(slots.ring(*now), [id(1)]);
        }
        pauses.push(now.since(began).0);
        let (_, pass) = send(slots, 1, *now).unwrap();
        slots.land("a", pass, ending, id(1), ended(1, 1), *now);
        slots.settle(id(1), key(1), *now);
    };
    let refused = |retry_after| Ending::Failed { code: RunCode::RateLimited, retry_after };
    for _ in 0..8 {
        call(&mut slots, refused(None), &mut now);
    }
    call(&mut slots, ANSWERED, &mut now);
    call(&mut slots, refused(None), &mut now);
    call(&mut slots, refused(Some(Millis(7))), &mut now);
    call(&mut slots, refused(Some(Millis(u64::MAX))), &mut now);
    call(&mut slots, ANSWERED, &mut now);
    assert_eq!(pauses, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 0, 1_000, 7, 300_000]);
}

/// A lane with a breaker that has just opened; how its calls ended, and when.
fn broken() -> (Slots, LaneKind, Timestamp) {
    let mut slots = Slots::new(ModelLimits { reservations_max: 1_000, held_results_max: 1_000 });
    let (kind, now) = (LaneKind { has_breaker: true, ..at_once(2) }, Timestamp(50_000));
    for _ in 0..5 {
        assert_eq!(slots.load(now).breakers_open, 0);
        slots.reserve("a".into(), kind, wanted(0, 0), now);
        let (_, pass) = send(&mut slots, 0, now).unwrap();
        let away = Ending::Failed { code: RunCode::Unavailable, retry_after: None };
        slots.land("a", pass, away, id(0), ended(0, 1), now);
        slots.settle(id(0), key(0), now);
    }
    assert_eq!(slots.load(now).breakers_open, 1);
    (slots, kind, now)
}

#[test]
fn while_an_endpoint_is_away_the_patient_wait_and_the_others_are_told() {
    let (mut slots, kind, now) = broken();
    let tenant = TenantId::local();
    let patient = |agent| Wanted { patience: Millis(2_500), tenant: tenant.clone(), ..wanted(agent, 0) };
    assert_eq!(slots.reserve("a".into(), kind, wanted(1, 0), now).0, Reserve::Granted, "the next try is too late");
    let (_, pass) = send(&mut slots, 1, now).unwrap();
    assert!(pass.refusal().unwrap().1.contains("`a` is away"), "{pass:?}");
    slots.land("a", pass, Ending::NotSent, id(1), ended(1, 1), now);
    for agent in 2..5 {
        assert_eq!(slots.reserve("a".into(), kind, patient(agent), now).0, Reserve::Waiting);
    }
    let now = slots.due().unwrap();
    assert_eq!(now, Timestamp(51_000));
    assert_eq!(slots.ring(now), [id(2)], "one tries");
    let (_, pass) = send(&mut slots, 2, now).unwrap();
    assert_eq!(pass.refusal(), None);
    let away = Ending::Failed { code: RunCode::Unavailable, retry_after: None };
    let (_, told) = slots.land("a", pass, away, id(2), ended(2, 1), now);
    // The next try is at 53,000, and they would have waited until 52,500.
    assert_eq!(told, [id(3), id(4)]);
    assert!(send(&mut slots, 3, now).unwrap().1.refusal().is_some());
    assert_eq!(slots.load(now).waiting, 0);
}

#[test]
fn time_waited_before_the_breaker_opened_does_not_count() {
    let mut slots = Slots::new(ModelLimits { reservations_max: 1_000, held_results_max: 1_000 });
    let kind = LaneKind { has_breaker: true, ..at_once(5) };
    let start = Timestamp(0);
    let passes: Vec<Pass> = (0..5)
        .map(|agent| {
            slots.reserve("a".into(), kind, wanted(agent, 0), start);
            send(&mut slots, agent, start).unwrap().1
        })
        .collect();
    let patient = Wanted { patience: Millis(1_200), ..wanted(7, 0) };
    // Room for one only from now on, so that it waits until the others have failed.
    let narrow = LaneKind { limits: LaneLimits::at_once(1), ..kind };
    assert_eq!(slots.reserve("a".into(), narrow, patient, start).0, Reserve::Waiting);
    let now = Timestamp(60_000);
    for (agent, pass) in (0..5).zip(passes) {
        let away = Ending::Failed { code: RunCode::Timeout, retry_after: None };
        assert_eq!(slots.land("a", pass, away, id(agent), ended(agent, 1), now).1, []);
    }
    assert_eq!(slots.load(now).breakers_open, 1);
    assert!(slots.has_wish(id(7)) && !slots.holds_slot(id(7)));
    assert_eq!(slots.due(), Some(Timestamp(61_000)));
    assert_eq!(slots.ring(Timestamp(61_000)), [id(7)]);
    assert_eq!(send(&mut slots, 7, Timestamp(61_000)).unwrap().1.refusal(), None);
}

#[test]
fn as_many_as_a_bound_are_told_at_once() {
    let (mut slots, kind, now) = broken();
    let agent = |n: u16| AgentId::from_bytes([[n as u8; 8], [(n >> 8) as u8; 8]].concat().try_into().unwrap());
    let ask = |n: u16| Wanted { agent: agent(n), ..wanted(0, 0) };
    let told = (0..300u16).filter(|n| slots.reserve("a".into(), kind, ask(*n), now).0 == Reserve::Granted).count();
    assert_eq!((told, slots.load(now).waiting), (256, 44));
    assert_eq!(slots.withdraw(agent(0), now).len(), 1, "when one has heard it, another is told");
}

proptest! {
    #[test]
    fn slots_are_never_overbooked_and_nobody_is_forgotten(moves in prop::collection::vec(moves(), 1..200)) {
        const SLOTS: usize = 2;
        let limits = ModelLimits { reservations_max: 4, held_results_max: 3 };
        let mut slots = Slots::new(limits);
        let mut now = Timestamp(0);
        let mut flying: Vec<(u8, u32, String, Pass)> = Vec::new();
        let mut attempts = [0u32; 8];
        let budgets = LaneLimits { requests_per_minute: Some(300), output_tokens_per_minute: Some(9_000), ..LaneLimits::at_once(SLOTS) };
        let kinds = [
            at_once(SLOTS),
            LaneKind { has_breaker: true, ..at_once(SLOTS) },
            LaneKind { limits: budgets, has_breaker: true },
        ];
        for step in moves {
            match step {
                Move::Reserve { agent, lane, priority } => {
                    slots.reserve(format!("lane {lane}"), kinds[usize::from(lane)], wanted(agent, priority), now);
                }
                Move::Withdraw(agent) => drop(slots.withdraw(id(agent), now)),
                Move::Send(agent) => {
                    let attempt = attempts[usize::from(agent)] + 1;
                    let held = slots.holds_slot(id(agent));
                    let flight = slots.take_off(id(agent), key(agent), attempt, (CancellationToken::new(), now), now);
                    prop_assert_eq!(flight.is_some(), held, "a held slot can be used, another not");
                    if let Some((lane, pass, _)) = flight {
                        attempts[usize::from(agent)] = attempt;
                        flying.push((agent, attempt, lane, pass));
                        let again = slots.take_off(id(agent), key(agent), attempt, (CancellationToken::new(), now), now);
                        prop_assert!(again.is_none(), "MD-3");
                    }
                }
                Move::Land { nth, how } if nth < flying.len() => {
                    let (agent, attempt, lane, pass) = flying.swap_remove(nth);
                    let failed = |code, retry_after| Ending::Failed { code, retry_after };
                    let ending = match how {
                        _ if pass.refusal().is_some() => Ending::NotSent,
                        0 => ANSWERED,
                        1 => Ending::NotSent,
                        2 => failed(RunCode::RateLimited, Some(Millis(5))),
                        3 => failed(RunCode::RateLimited, None),
                        _ => failed(RunCode::Unavailable, None),
                    };
                    slots.land(&lane, pass, ending, id(agent), ended(agent, attempt), now);
                }
                Move::Land { .. } => {}
                Move::Settle(agent) => drop(slots.settle(id(agent), key(agent), now)),
                Move::Abandon(agent) => drop(slots.abandon(id(agent), key(agent), now)),
                Move::Forget(agent) => {
                    slots.forget(id(agent), now);
                    prop_assert!(!slots.has_wish(id(agent)) && !slots.is_in_flight_for(id(agent)));
                }
                Move::HandOver(agent) => drop(slots.hand_over(id(agent), &node("n2"), now)),
                Move::TakeBack(agent) => slots.take_up(id(agent), None),
                Move::Expect(agent) => {
                    slots.take_up(id(agent), Some(expected(agent, attempts[usize::from(agent)], now)));
                }
                Move::Offered(agent) => {
                    let answer = ended(agent, attempts[usize::from(agent)]);
                    slots.is_offered(&node("n2"), id(agent), answer);
                }
                Move::Recorded(agent) => drop(slots.is_recorded(id(agent), key(agent), now)),
                Move::CarrierGone => drop(slots.carrier_is_gone(&node("n2"))),
                Move::Round => drop(slots.round(now)),
                Move::Wait(span) => {
                    now = now.after(Millis(span));
                    slots.ring(now);
                }
            }
            let mut waiting = 0;
            for (name, row) in &mut slots.lanes {
                let sends = |pass: &Pass| pass.refusal().is_none();
                let in_lane = flying.iter().filter(|(_, _, lane, pass)| lane == name && sends(pass)).count();
                let granted = |wish: &&Wish| matches!(wish, Wish::Granted { lane, pass } if lane == name && sends(pass));
                let holding = slots.wishes.values().filter(granted).count();
                prop_assert_eq!(row.lane.busy(), in_lane + holding, "every busy slot is somebody's");
                prop_assert!(row.lane.busy() <= SLOTS, "MD-1");
                prop_assert!(row.lane.len() <= limits.reservations_max);
                waiting += row.lane.len();
                let is_held = slots.held >= limits.held_results_max || row.lane.busy() >= SLOTS;
                prop_assert!(
                    is_held || row.lane.len() == 0 || row.due.is_some_and(|due| due > now),
                    "somebody waits beside a free slot, and nothing will happen"
                );
                prop_assert_eq!(row.due.is_some_and(|due| !slots.dues.contains(&(due, name.clone()))), false);
            }
            prop_assert_eq!(slots.dues.len(), slots.lanes.values().filter(|row| row.due.is_some()).count());
            prop_assert!(slots.due().is_none_or(|due| due > now));
            let finished = slots.flights.values().filter(|flight| flight.finished.is_some()).count();
            prop_assert_eq!((slots.held, slots.in_flight, slots.waiting), (finished, flying.len(), waiting));
            let carried = slots.flights.values().filter(|flight| matches!(flight.route, Route::Carried(..))).count();
            prop_assert_eq!(slots.carried, carried);
            let watched = slots.flights.iter().filter_map(|(place, flight)| Some((flight.due?, *place)));
            prop_assert_eq!(&watched.collect::<BTreeSet<_>>(), &slots.watched);
            let is_left = |flight: &Flight| match flight.route {
                Route::Own => flight.due.is_some(),
                Route::Awaited(_) => flight.due.is_some() == flight.finished.is_some(),
                Route::Carried(..) => flight.due.is_none() && flight.finished.is_some(),
            };
            prop_assert!(!slots.flights.values().any(is_left), "an answer that nobody looks at");
        }
    }
}

#[test]
fn a_lane_whose_slice_is_far_too_small_is_hungry_once() {
    use nexa_sched::ProviderBudget;
    use nexa_sched::lease::{Generation, HolderId, LeaderEpoch, NO_LIMIT, Notice, Sizes};

    let run = HolderId { node: "n1".parse().unwrap(), generation: Generation(1) };
    let mut slots = Slots::new(ModelLimits { reservations_max: 9, held_results_max: 9 });
    slots.lease(&[ProviderBudget::unlimited("acme")]);
    let (kind, now) = (LaneKind { has_breaker: true, ..at_once(9) }, Timestamp(0));
    let reserve = |slots: &mut Slots, agent| slots.reserve("acme".into(), kind, wanted(agent, 0), now).0;
    assert_eq!(reserve(&mut slots, 1), Reserve::Waiting, "this run is not known yet");
    assert!(slots.begins(run.clone(), now).is_empty() && slots.take_hungry());
    assert!(slots.report(now).is_some_and(|(report, tenants)| report.of.len() == 1 && tenants[0].1.len() == 1));
    assert_eq!((reserve(&mut slots, 2), slots.take_hungry()), (Reserve::Waiting, false), "not more than twice as much");
    assert_eq!((reserve(&mut slots, 3), slots.take_hungry()), (Reserve::Waiting, true));
    let size = Sizes::new(NO_LIMIT, NO_LIMIT, NO_LIMIT, 2);
    let notice = Notice {
        holder: run,
        epoch: LeaderEpoch(1),
        version: 1,
        provider: "acme".to_owned(),
        size,
        pause: None,
        pace: None,
    };
    assert_eq!(slots.told(notice, now).len(), 2, "so many may begin");
    assert!(!slots.take_hungry(), "as much waits as is known");
    // Another lane is this node's alone.
    assert_eq!(slots.reserve("local".into(), kind, wanted(4, 0), now).0, Reserve::Granted);
}

//! Random programs, random interleavings. The desk checks AG-1, AG-3 and AG-4 after every single step.

use nexa_agent::Input;
use nexa_event::fact::{EffectResult, OnFailure};
use nexa_types::{AgentId, AgentState, Budget, Millis, Outcome, RunCode, Seq, Spend, Timestamp, Tokens, Waiting};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::desk::{Desk, NOON, bill};
use crate::lists::any_list;
use crate::program::Act;

/// An act of a function, whose children are functions with a higher number.
fn any_act(function: u32, timed: bool) -> BoxedStrategy<Act> {
    let asks = prop_oneof![(1..200u16).prop_map(Act::Ask), (1..200u16).prop_map(Act::TryAsk), Just(Act::TryCall(true))];
    let local = prop_oneof![Just(Act::Random), Just(Act::Log), (0..30u32).prop_map(Act::Count), Just(Act::Emit)];
    let timed_acts = prop_oneof![Just(Act::Now), (0..500u32).prop_map(Act::Sleep), (1..500u32).prop_map(Act::Approve),];
    let timed_weight = u32::from(timed) * 3;
    if function < 2 {
        let fork = prop::collection::vec(function + 1..3, 1..4).prop_map(Act::Fork);
        let some = (prop::collection::vec(function + 1..3, 2..4), 1..3u16, 0..600u32);
        let first = some.prop_map(|(functions, wanted, millis)| Act::TryFirst(functions, wanted, millis));
        // Which one is the first depends on time.
        let first_weight = u32::from(timed) * 2;
        prop_oneof![
            4 => asks, 2 => local, timed_weight => timed_acts, 3 => fork, first_weight => first, 1 => Just(Act::Fail)
        ]
        .boxed()
    } else {
        prop_oneof![4 => asks, 2 => local, timed_weight => timed_acts, 1 => Just(Act::Fail)].boxed()
    }
}

fn any_functions(timed: bool) -> impl Strategy<Value = Vec<Vec<Act>>> {
    (0..3u32).map(|function| prop::collection::vec(any_act(function, timed), 1..5)).collect::<Vec<_>>()
}

fn any_budget() -> impl Strategy<Value = Budget> {
    let tokens = prop::option::of((0..2_000u64).prop_map(Tokens));
    let calls = prop::option::of(0..12u64);
    let time = prop::option::weighted(0.3, (0..3_000u64).prop_map(Millis));
    (tokens, calls, time).prop_map(|(tokens, calls, time)| Budget { tokens, calls, time, ..Budget::default() })
}

/// Something that may happen to an agent, however little it fits.
#[derive(Debug, Clone)]
enum Happening {
    Start,
    GoOn,
    ReadInbox,
    GrantSlot,
    Answer(Index, u8),
    AnswerAgain(Index),
    Person(bool),
    TakeOver,
    Migrate,
    LoseCarrier,
    Freeze,
    Message(u8),
    Passes(u16),
    Due,
    Cancel,
    Quarantine,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => Just(Happening::Start),
        8 => Just(Happening::GoOn),
        8 => Just(Happening::ReadInbox),
        6 => Just(Happening::GrantSlot),
        8 => (any::<Index>(), any::<u8>()).prop_map(|(which, spend)| Happening::Answer(which, spend)),
        4 => any::<Index>().prop_map(Happening::AnswerAgain),
        3 => any::<bool>().prop_map(Happening::Person),
        5 => Just(Happening::TakeOver),
        4 => Just(Happening::Migrate),
        2 => Just(Happening::LoseCarrier),
        2 => Just(Happening::Freeze),
        1 => any::<u8>().prop_map(Happening::Message),
        3 => (0..400u16).prop_map(Happening::Passes),
        3 => Just(Happening::Due),
        1 => prop::bool::weighted(0.1).prop_map(|yes| if yes { Happening::Cancel } else { Happening::Due }),
        1 => prop::bool::weighted(0.3).prop_map(|yes| if yes { Happening::Quarantine } else { Happening::Freeze }),
    ]
}

fn happens(desk: &mut Desk, id: AgentId, happening: Happening) {
    match happening {
        Happening::Start => {
            if desk.seats[&id].agent.state() == AgentState::Placed {
                desk.start(id);
            }
        }
        Happening::GoOn => drop(desk.step(id, Input::Continue)),
        Happening::ReadInbox => desk.read_inbox(id),
        Happening::GrantSlot => desk.grant_slot(id),
        Happening::Answer(which, spend) => {
            let flying = desk.seats[&id].flying.clone();
            if !flying.is_empty() {
                let effect = which.get(&flying);
                match spend % 4 {
                    0 => {
                        let failure = nexa_types::Failure::new(RunCode::Unavailable, "away");
                        desk.answer(id, effect, EffectResult::Failed(failure), Spend::default());
                    }
                    _ => drop(desk.answer_by_key(id, effect)),
                }
            }
        }
        Happening::AnswerAgain(which) => {
            let answered = desk.seats[&id].answered.clone();
            if !answered.is_empty() {
                desk.answer_by_key(id, which.get(&answered));
            }
        }
        Happening::Person(approved) => {
            if desk.seats[&id].agent.state() == AgentState::Waiting(Waiting::Approval) {
                let asked = desk.seats[&id].stream.iter().rev().find_map(|(event, _)| match event {
                    nexa_event::fact::AgentEvent::EffectStarted { seq, .. } => Some(*seq),
                    _ => None,
                });
                desk.person_says(id, asked.unwrap_or(Seq(1)), approved);
            }
        }
        Happening::TakeOver => drop(desk.take_over(id)),
        Happening::Migrate => drop(desk.migrate(id)),
        Happening::LoseCarrier => desk.lose_carrier(id),
        Happening::Freeze => desk.freeze(id),
        Happening::Message(number) => desk.message(id, number),
        Happening::Passes(millis) => desk.now = desk.now.after(Millis(millis.into())),
        Happening::Due => drop(desk.step(id, Input::Due)),
        Happening::Cancel => desk.cancel_workload(),
        Happening::Quarantine => drop(desk.step(id, Input::Quarantine { reason: "it looked ill".to_owned() })),
    }
}

/// AG-2 for the whole tree, from what was recorded.
fn nobody_used_more_than_granted(desk: &Desk) {
    for seat in desk.seats.values() {
        let budget = seat.agent.spawned().budget;
        let used = seat.agent.end().map_or(seat.agent.spend(), |end| end.spend);
        assert!(budget.tokens.is_none_or(|cap| used.tokens() <= cap), "AG-2: {used:?} of {budget:?}");
        assert!(budget.calls.is_none_or(|cap| used.calls <= cap), "AG-2: {used:?} of {budget:?}");
    }
}

/// What quarantine left behind is placed again, and all is run to its end.
fn ends_everywhere(desk: &mut Desk) {
    for id in desk.seats.keys().copied().collect::<Vec<_>>() {
        if desk.seats[&id].agent.state() == AgentState::Quarantined {
            desk.take_over(id);
        }
    }
    desk.run_to_the_end();
    assert!(desk.seats.values().all(|seat| seat.agent.state().is_terminal()), "something never ends");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_agent_ends_once_within_its_means(
        functions in any_functions(true),
        budget in any_budget(),
        deadline in prop::option::weighted(0.3, 0..3_000u64),
        fuel in prop::sample::select(vec![1, 3, 10_000]),
        slots in any::<bool>(),
        story in prop::collection::vec((any::<Index>(), any_happening()), 0..60),
    ) {
        let mut desk = Desk::with(&functions, |born| {
            born.budget = budget;
            born.deadline = deadline.map(|millis| Timestamp(NOON.0 + millis));
        });
        desk.fuel = fuel;
        desk.slots = slots;
        for (who, happening) in story {
            let ids: Vec<AgentId> = desk.seats.keys().copied().collect();
            happens(&mut desk, *who.get(&ids), happening);
        }
        ends_everywhere(&mut desk);
        nobody_used_more_than_granted(&desk);
    }

    #[test]
    fn a_list_ends_within_its_means_whatever_happens(
        items in any_list(),
        on_failure in prop::sample::select(vec![OnFailure::FailFast, OnFailure::SkipDependents, OnFailure::Continue]),
        acts in prop::collection::vec(any_act(2, true), 1..4),
        budget in any_budget(),
        story in prop::collection::vec((any::<Index>(), any_happening()), 0..60),
    ) {
        let takes = [vec![Act::Takes], acts].concat();
        let mut desk = Desk::list_of(&[takes], items, on_failure, budget);
        for (who, happening) in story {
            let ids: Vec<AgentId> = desk.seats.keys().copied().collect();
            happens(&mut desk, *who.get(&ids), happening);
        }
        ends_everywhere(&mut desk);
        nobody_used_more_than_granted(&desk);
    }

    #[test]
    fn takeovers_slices_and_late_answers_do_not_change_the_result(
        functions in any_functions(false),
        budget in any_budget(),
        fuel in prop::sample::select(vec![1, 3, 10_000]),
        story in prop::collection::vec((any::<Index>(), 0..8u8), 0..80),
    ) {
        let budget = Budget { time: None, ..budget };
        let mut calm = Desk::with(&functions, |born| born.budget = budget);
        calm.run_to_the_end();

        let mut desk = Desk::with(&functions, |born| born.budget = budget);
        desk.fuel = fuel;
        for (who, what) in story {
            let ids: Vec<AgentId> = desk.seats.keys().copied().collect();
            let happening = match what {
                0 => Happening::Start,
                1 => Happening::ReadInbox,
                2 => Happening::TakeOver,
                3 => Happening::AnswerAgain(who),
                4 => Happening::Answer(who, 1),
                5 => Happening::Migrate,
                6 => Happening::LoseCarrier,
                _ => Happening::GoOn,
            };
            happens(&mut desk, *who.get(&ids), happening);
        }
        desk.run_to_the_end();
        let end = |desk: &Desk| desk.root().agent.end().cloned();
        let (calm, stormy) = (end(&calm).expect("it ended"), end(&desk).expect("it ended"));
        prop_assert_eq!(&calm.outcome, &stormy.outcome);
        prop_assert_eq!(calm.spend, stormy.spend);
    }

    #[test]
    fn a_bill_above_the_worst_case_is_the_last_that_is_run_up(over in 1..500u64, cap in 20..200u64) {
        let mut desk = Desk::with(&[vec![Act::TryAsk(10); 4]], |born| born.budget = crate::desk::tokens(cap));
        desk.starts();
        let root = desk.root;
        while let Some(effect) = desk.root().flying.first().cloned() {
            let before = desk.root().agent.spend().tokens().0;
            prop_assert!(before + 14 <= cap, "it was sent although it did not fit");
            desk.answer(root, &effect, Desk::reply("x", bill(4, 10 + over)), bill(4, 10 + over));
        }
        let outcome = desk.outcome();
        let fits = |outcome| matches!(outcome, Some(Outcome::Ok(_))) || matches!(outcome, Some(Outcome::Err(failure)) if failure.code == RunCode::BudgetExceeded);
        prop_assert!(fits(outcome));
    }
}

//! What happens to one agent, told in transcripts.

use expect_test::expect;
use nexa_agent::Input;
use nexa_event::fact::AgentEvent;
use nexa_types::{Budget, Failure, Millis, Outcome, RunCode, Seq, Spend, Timestamp};

use crate::desk::{Desk, NOON, bill, calls, tokens};
use crate::program::{Act, text_of};

#[test]
fn an_agent_asks_a_model_and_ends_with_the_answer() {
    let mut desk = Desk::agent(&[Act::Log, Act::Ask(100), Act::Emit]);
    desk.starts().model_says("forty-two").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #2 model, reserves 124 tokens
        effect_started #2 attempt 1 epoch 1
          logs line
        effect_ended #2 done, used 3 tokens in 1 calls
        emitted #3 main
        ended ok, used 3 tokens in 1 calls
        => succeeded
    "#]]);
}

#[test]
fn without_a_slot_the_intent_stands_alone_and_the_ticket_follows() {
    let mut desk = Desk::agent(&[Act::Ask(100)]);
    desk.slots = false;
    desk.starts();
    let root = desk.root;
    desk.grant_slot(root);
    desk.model_says("ok").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
          wishes for a slot #1 attempt 1
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 done, used 3 tokens in 1 calls
        ended ok, used 3 tokens in 1 calls
        => succeeded
    "#]]);
}

#[test]
fn a_second_ticket_for_the_same_wish_is_refused() {
    let mut desk = Desk::agent(&[Act::Ask(100)]);
    desk.starts();
    let root = desk.root;
    let seat = desk.seats.get_mut(&root).expect("it is there");
    assert_eq!(seat.agent.start_effect(Seq(1)), None);
    assert_eq!(seat.agent.wish(NOON), None);
    assert_eq!(seat.agent.in_flight(NOON).map(|effect| effect.attempt), Some(1));
}

#[test]
fn a_request_in_flight_is_sent_again_by_a_new_owner_under_the_same_key() {
    let mut desk = Desk::agent(&[Act::Ask(100)]);
    desk.starts().taken_over();
    assert_eq!(desk.root().agent.reissued_model_calls(), 1);
    desk.model_says("ok").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_started #1 attempt 2 epoch 2
        effect_ended #1 done, used 3 tokens in 1 calls
        ended ok, used 3 tokens in 1 calls
        => succeeded
    "#]]);
}

#[test]
fn the_first_answer_counts_even_of_a_lost_attempt_and_the_second_changes_nothing() {
    let mut desk = Desk::agent(&[Act::Ask(100), Act::Ask(100)]);
    desk.starts().taken_over().late_answer(1, "first");
    desk.late_answer(1, "first again").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_started #1 attempt 2 epoch 2
        effect_ended #1 done, used 3 tokens in 1 calls
        effect_intended #2 model, reserves 124 tokens
        effect_started #2 attempt 1 epoch 2
          abandons a request
        => waiting(model)
    "#]]);
}

#[test]
fn a_new_owner_without_a_slot_accepts_a_late_answer_and_sends_nothing() {
    let mut desk = Desk::agent(&[Act::Ask(100)]);
    desk.starts();
    desk.slots = false;
    desk.taken_over().late_answer(1, "late").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
          wishes for a slot #1 attempt 2
        effect_ended #1 done, used 3 tokens in 1 calls
        ended ok, used 3 tokens in 1 calls
        => succeeded
    "#]]);
}

#[test]
fn a_recorded_answer_is_not_asked_for_again() {
    let mut desk = Desk::agent(&[Act::Ask(100), Act::Approve(50)]);
    desk.starts().model_says("once").taken_over().expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 done, used 3 tokens in 1 calls
        effect_intended #2 approval "may I?"
        effect_started #2 attempt 1 epoch 1
        taken_over by n1 epoch 2
        => waiting(approval), due in 50
    "#]]);
    assert!(desk.root().flying.is_empty());
}

#[test]
fn an_approval_waits_over_a_takeover_and_keeps_its_expiry() {
    let mut desk = Desk::agent(&[Act::Approve(5_000)]);
    desk.starts().passes(1_000).taken_over();
    desk.passes(3_999).expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 approval "may I?"
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        => waiting(approval), due in 1
    "#]]);
    desk.passes(1).expect(expect![[r#"
        effect_ended #1 failed approval_timeout
        ended approval_timeout
        => failed
    "#]]);
}

/// C44: whoever waits for a person may leave memory and come back on another node, as often as it must.
#[test]
fn an_approval_gives_the_same_wherever_its_agent_waits_for_it() {
    let waits = |moves: u32| {
        let mut desk = Desk::agent(&[Act::Ask(10), Act::Approve(5_000), Act::Ask(10)]);
        desk.starts().model_says("before");
        let root = desk.root;
        for _ in 0..moves {
            desk.freeze(root);
            desk.taken_over().passes(1_000);
        }
        desk.person_says(root, Seq(2), true);
        desk.model_says("after");
        desk.outcome().expect("it ended")
    };
    let stayed = waits(0);
    assert!(stayed.is_ok());
    assert_eq!(waits(1), stayed);
    assert_eq!(waits(4), stayed);
}

#[test]
fn a_person_answers_once() {
    let mut desk = Desk::agent(&[Act::Approve(5_000), Act::Sleep(10)]);
    desk.starts();
    let root = desk.root;
    desk.person_says(root, Seq(1), true);
    desk.person_says(root, Seq(1), false);
    desk.passes(10).expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 approval "may I?"
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 done
        timer_set #2 due 1000010
        timer_fired #2
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn an_answer_with_a_foreign_key_is_taken_and_means_nothing() {
    let mut desk = Desk::agent(&[Act::Ask(10)]);
    desk.starts();
    let root = desk.root;
    desk.person_says(root, Seq(1), true);
    assert!(desk.root().inbox.is_empty());
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 34 tokens
        effect_started #1 attempt 1 epoch 1
        => waiting(model)
    "#]]);
}

#[test]
fn time_with_a_person_counts_toward_no_timeout() {
    let deadline = |millis| Some(Timestamp(NOON.0 + millis));
    let acts = vec![Act::Approve(100_000), Act::Sleep(900)];
    let mut desk = Desk::with(&[acts], |born| {
        born.deadline = deadline(1_000);
        born.budget = Budget { time: Some(Millis(2_000)), ..Budget::default() };
    });
    desk.starts().passes(50_000);
    let root = desk.root;
    desk.person_says(root, Seq(1), true);
    desk.passes(900).expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 approval "may I?"
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 done
        timer_set #2 due 1050900
        timer_fired #2
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn a_deadline_ends_the_agent_and_what_it_asked_for_is_billed_at_its_worst() {
    let mut desk = Desk::with(&[vec![Act::Ask(100)]], |born| born.deadline = Some(Timestamp(NOON.0 + 500)));
    desk.starts().passes(499).passes(1).expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
        effect_started #1 attempt 1 epoch 1
        deadline_passed
        ended timeout, used 124 tokens in 1 calls
          abandons a request
        => failed
    "#]]);
}

#[test]
fn a_used_up_budget_of_time_is_no_timeout() {
    let time = Some(Millis(200));
    let mut desk = Desk::with(&[vec![Act::Sleep(1_000)]], |born| born.budget.time = time);
    desk.starts().passes(200).expect(expect![[r#"
        started on n1 epoch 1
        timer_set #1 due 1001000
        deadline_passed
        ended budget_exceeded
        => failed
    "#]]);
}

#[test]
fn a_request_that_does_not_fit_is_not_sent() {
    // 16 bytes of text are 4 to 24 tokens, and up to 100 may come back: near the end all that is left is held.
    let mut desk = Desk::with(&[vec![Act::TryAsk(100), Act::TryAsk(100)]], |born| born.budget = tokens(106));
    desk.starts();
    desk.model_says("ab").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 106 tokens
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 done, used 3 tokens in 1 calls
        ended budget_exceeded, used 3 tokens in 1 calls
        => failed
    "#]]);
    let mut desk = Desk::with(&[vec![Act::TryAsk(100)]], |born| born.budget = tokens(103));
    desk.starts().expect(expect![[r#"
        started on n1 epoch 1
        ended budget_exceeded
        => failed
    "#]]);
    assert!(desk.root().flying.is_empty());
}

#[test]
fn a_bill_above_the_worst_case_is_recorded_and_the_last() {
    let mut desk = Desk::with(&[vec![Act::Ask(10), Act::Ask(10)]], |born| born.budget = tokens(100));
    desk.starts();
    let root = desk.root;
    let effect = desk.root().flying[0].clone();
    desk.answer(root, &effect, Desk::reply("much", bill(50, 60)), bill(50, 60));
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 34 tokens
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 done, used 110 tokens in 1 calls
        ended budget_exceeded, used 110 tokens in 1 calls
        => failed
    "#]]);
}

#[test]
fn the_third_of_two_calls_is_never_sent() {
    let mut desk = Desk::with(&[vec![Act::Ask(1), Act::Ask(1), Act::Ask(1)]], |born| born.budget = calls(2));
    desk.starts().model_says("a").model_says("b").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 25 tokens
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 done, used 3 tokens in 1 calls
        effect_intended #2 model, reserves 25 tokens
        effect_started #2 attempt 1 epoch 1
        effect_ended #2 done, used 3 tokens in 1 calls
        ended budget_exceeded, used 6 tokens in 2 calls
        => failed
    "#]]);
}

#[test]
fn a_lost_attempt_takes_no_second_reserve() {
    let mut desk = Desk::with(&[vec![Act::Ask(100)]], |born| born.budget = Budget { calls: Some(1), ..tokens(104) });
    desk.starts().taken_over().taken_over().model_says("still").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 104 tokens
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_started #1 attempt 2 epoch 2
        taken_over by n1 epoch 3
        effect_started #1 attempt 3 epoch 3
        effect_ended #1 done, used 3 tokens in 1 calls
        ended ok, used 3 tokens in 1 calls
        => succeeded
    "#]]);
}

#[test]
fn a_cancel_interrupts_an_endless_loop_and_takes_the_raised_epoch() {
    let mut desk = Desk::agent(&[Act::Count(u32::MAX)]);
    desk.fuel = 10;
    desk.starts().go_on().go_on();
    assert!(desk.root().more);
    desk.cancelled().expect(expect![[r#"
        started on n1 epoch 1
        cancel_received "ann said so"
        ended cancelled
        => cancelled
    "#]]);
    assert_eq!(desk.root().agent.epoch(), desk.root().row_epoch);
}

#[test]
fn a_cancel_reaches_a_request_in_flight() {
    let mut desk = Desk::agent(&[Act::TryAsk(100), Act::Ask(7)]);
    desk.starts().cancelled().expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
        effect_started #1 attempt 1 epoch 1
        cancel_received "ann said so"
        ended cancelled, used 124 tokens in 1 calls
          abandons a request
        => cancelled
    "#]]);
    assert!(desk.root().flying.is_empty());
}

#[test]
fn a_cancel_before_the_start_ends_it_too() {
    let mut desk = Desk::agent(&[Act::Ask(100)]);
    desk.cancelled().expect(expect![[r#"
        cancel_received "ann said so"
        ended cancelled
        => cancelled
    "#]]);
}

#[test]
fn nothing_follows_the_end() {
    let mut desk = Desk::agent(&[Act::Ask(100)]);
    desk.starts().model_says("done").starts().taken_over().late_answer(1, "again").passes(1_000_000).cancelled();
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 done, used 3 tokens in 1 calls
        ended ok, used 3 tokens in 1 calls
        => succeeded
    "#]]);
}

#[test]
fn the_time_that_a_program_sees_is_that_of_the_input_it_computes_on() {
    let mut desk = Desk::agent(&[Act::Sleep(70), Act::Count(100), Act::Now, Act::Ask(10)]);
    desk.fuel = 10;
    desk.starts().passes(70);
    assert!(desk.root().more);
    // It is stopped in mid-slice, read again elsewhere and later, and still sees 70 ms after noon.
    desk.passes(5_000).taken_over();
    desk.computes().model_says("!").computes();
    let ended = desk.outcome();
    assert_eq!(ended, Some(Outcome::Ok(one_text("1000070!"))));
}

#[test]
fn dice_depend_on_the_seed_and_the_place_in_the_program() {
    let roll = |seed| {
        let mut desk = Desk::with(&[vec![Act::Random, Act::Emit, Act::Random]], |born| born.seed = seed);
        desk.starts();
        desk.outcome()
    };
    assert_eq!(roll(1), roll(1));
    assert_ne!(roll(1), roll(2));
}

#[test]
fn a_quarantined_agent_rests_until_it_is_placed_again() {
    let mut desk = Desk::agent(&[Act::Ask(100), Act::Sleep(10)]);
    desk.starts();
    let root = desk.root;
    desk.step(root, Input::Quarantine { reason: "it ended its node three times".to_owned() });
    desk.message(root, 1);
    desk.read_inbox(root);
    assert_eq!(desk.root().inbox.len(), 1, "the message stays where it is");
    desk.late_answer_is_dropped();
    desk.taken_over().model_says("back").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 124 tokens
        effect_started #1 attempt 1 epoch 1
        quarantined "it ended its node three times"
        taken_over by n1 epoch 2
        effect_started #1 attempt 2 epoch 2
        effect_ended #1 done, used 3 tokens in 1 calls
        timer_set #2 due 1000010
        => waiting(timer), due in 10
    "#]]);
}

#[test]
fn arguments_that_do_not_fit_end_the_agent_and_do_not_stop_it_from_existing() {
    let mut desk = Desk::with(&[vec![Act::Now]], |born| {
        let nexa_event::fact::Program::Function { module, .. } = born.program else { panic!("a function") };
        born.program = nexa_event::fact::Program::Function { module, entry: 99, args: text_of(&[]) };
    });
    desk.starts().expect(expect![[r#"
        started on n1 epoch 1
        ended failed
        => failed
    "#]]);
}

#[test]
fn an_unknown_ending_is_told_as_such() {
    let mut desk = Desk::agent(&[Act::TryAsk(10)]);
    desk.starts();
    let root = desk.root;
    let effect = desk.root().flying[0].clone();
    let unknown = nexa_event::fact::EffectResult::Unknown(Failure::new(RunCode::Timeout, "no answer"));
    desk.answer(root, &effect, unknown, Spend::default());
    let ended = desk.outcome();
    assert_eq!(ended, Some(Outcome::Ok(one_text("outcome_unknown"))));
}

#[test]
fn a_failed_request_is_raised_and_ends_it() {
    let mut desk = Desk::agent(&[Act::Ask(10)]);
    desk.starts().model_fails(RunCode::Refused).expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 model, reserves 34 tokens
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 failed refused
        ended refused
        => failed
    "#]]);
}

#[test]
fn a_changed_program_is_noticed_at_the_first_difference() {
    let mut desk = Desk::agent(&[Act::Emit, Act::Ask(10)]);
    desk.starts();
    let other = Desk::agent(&[Act::Emit, Act::Ask(11)]);
    let mut agent = nexa_agent::Agent::born(
        desk.root,
        other.root().agent.spawned(),
        crate::program::program(&[vec![Act::Emit, Act::Ask(11)]]),
    )
    .expect("the right module");
    let error = desk.root().stream[1..].iter().find_map(|(event, at)| agent.replay(event, *at).err());
    expect!["at version 4 the log has `effect_intended #2 model, reserves 34 tokens` and the machine decides `effect_intended #2 model, reserves 35 tokens`: the program or the machine is not the one that wrote this log"].assert_eq(&error.expect("they differ").to_string());
    let error = agent.replay(&AgentEvent::TimerFired { seq: Seq(9) }, NOON).expect_err("no timer is set");
    expect!["at version 4 the log has `timer_fired #9`, which does not fit: no such timer is set"]
        .assert_eq(&error.to_string());
}

#[test]
fn many_wishes_in_a_row_let_others_have_a_turn() {
    let mut desk = Desk::agent(&vec![Act::Log; 100]);
    desk.starts();
    assert!(desk.root().more);
    desk.go_on();
    assert!(!desk.root().more && desk.root().agent.end().is_some());
}

/// The text that a function ends with.
fn one_text(text: &str) -> nexa_types::Payload {
    nexa_vm::codec::encode(&nexa_vm::value::Value::Str(text.into()))
}

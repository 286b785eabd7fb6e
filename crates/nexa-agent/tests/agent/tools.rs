//! Calls of tools: once, or as good as once.

use expect_test::expect;
use nexa_event::fact::{AgentEvent, EffectResult};
use nexa_types::{Failure, RunCode, Seq, Spend};

use crate::desk::Desk;
use crate::program::Act;

/// How often a call was sent.
fn sent(desk: &Desk) -> usize {
    desk.root().stream.iter().filter(|(event, _)| matches!(event, AgentEvent::EffectStarted { .. })).count()
}

/// The call in flight is refused.
fn refuses(desk: &mut Desk) -> &mut Desk {
    let effect = desk.root().flying.last().expect("a call is in flight").clone();
    desk.answer(desk.root, &effect, EffectResult::Failed(Failure::new(RunCode::Denied, "no")), Spend::default());
    desk
}

/// C51, when it is not the answer but the node that gets lost.
#[test]
fn a_call_in_flight_at_a_crash_is_not_made_again_and_has_an_unknown_outcome() {
    let mut desk = Desk::agent(&[Act::TryCall(false)]);
    desk.starts().taken_over();
    assert_eq!(sent(&desk), 1);
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_lost #1
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn a_call_that_is_carried_is_made_once_over_two_migrations_and_its_answer_counts() {
    let mut desk = Desk::agent(&[Act::TryCall(false)]);
    desk.starts();
    desk.migrate(desk.root);
    desk.migrate(desk.root);
    assert_eq!(sent(&desk), 1);
    desk.tool_gives("paid").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2, n0 carries what is in flight
        taken_over by n1 epoch 3, n0 carries what is in flight
        effect_ended #1 done
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn a_call_whose_carrier_is_gone_is_treated_as_one_whose_owner_is_lost() {
    let mut desk = Desk::agent(&[Act::TryCall(false), Act::TryCall(true)]);
    desk.starts();
    desk.migrate(desk.root);
    desk.lose_carrier(desk.root);
    desk.migrate(desk.root);
    desk.lose_carrier(desk.root);
    desk.tool_gives("done").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2, n0 carries what is in flight
        taken_over by n1 epoch 2
        effect_lost #1
        effect_intended #2 tool tool1 {}
        effect_started #2 attempt 1 epoch 2
        taken_over by n1 epoch 3, n0 carries what is in flight
        taken_over by n1 epoch 3
        effect_started #2 attempt 2 epoch 3
        effect_ended #2 done
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn the_late_answer_of_a_lost_call_changes_nothing() {
    let mut desk = Desk::agent(&[Act::TryCall(false), Act::TryCall(false)]);
    desk.starts().taken_over();
    let late = desk.root().answered[0].clone();
    let step = desk.answer(desk.root, &late, Desk::value("paid"), Spend::default());
    assert!(step.facts.is_empty());
    desk.tool_gives("looked").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_lost #1
        effect_intended #2 tool tool1 {}
        effect_started #2 attempt 1 epoch 2
        effect_ended #2 done
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn an_attempt_that_was_not_started_here_is_ahead_and_one_that_was_is_not() {
    let mut desk = Desk::agent(&[Act::TryCall(true), Act::TryCall(true)]);
    let ahead =
        |desk: &Desk| [(1, 1), (1, 2), (2, 1)].map(|(seq, attempt)| desk.root().agent.is_ahead(Seq(seq), attempt));
    assert_eq!(ahead(&desk), [true, true, true]);
    desk.starts();
    assert_eq!(ahead(&desk), [false, true, true]);
    desk.taken_over();
    assert_eq!(ahead(&desk), [false, false, true]);
    desk.tool_gives("done");
    assert_eq!(ahead(&desk), [false, false, false]);
}

#[test]
fn a_call_that_may_be_made_twice_is_sent_again_under_the_same_key() {
    let mut desk = Desk::agent(&[Act::TryCall(true)]);
    desk.starts().taken_over();
    let keys: Vec<_> = desk.root().flying.iter().chain(&desk.root().answered).map(|effect| effect.key).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1]);
    desk.tool_gives("done");
    assert_eq!(desk.root().agent.reissued_model_calls(), 0);
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_started #1 attempt 2 epoch 2
        effect_ended #1 done
        ended ok
        => succeeded
    "#]]);
}

/// Its first try did it perhaps, and the second one speaks for itself only.
#[test]
fn a_call_that_is_made_again_and_refused_has_an_unknown_outcome_because_the_first_try_may_have_done_it() {
    let mut desk = Desk::agent(&[Act::TryCall(true)]);
    refuses(desk.starts().taken_over());
    assert_eq!(sent(&desk), 2);
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_started #1 attempt 2 epoch 2
        effect_ended #1 unknown denied
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn a_call_that_is_refused_at_its_first_try_has_failed_and_so_has_one_that_only_looks_at_any_try() {
    let mut desk = Desk::agent(&[Act::TryCall(true), Act::TryLook]);
    refuses(refuses(desk.starts()).taken_over());
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 failed denied
        effect_intended #2 tool tool1 {}
        effect_started #2 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_started #2 attempt 2 epoch 2
        effect_ended #2 failed denied
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn a_call_that_only_looks_is_sent_again_under_the_same_key() {
    let mut desk = Desk::agent(&[Act::TryLook]);
    desk.starts().taken_over();
    let keys: Vec<_> = desk.root().flying.iter().chain(&desk.root().answered).map(|effect| effect.key).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1]);
    desk.tool_gives("seen").expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        taken_over by n1 epoch 2
        effect_started #1 attempt 2 epoch 2
        effect_ended #1 done
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn a_call_that_was_wanted_and_never_sent_is_sent_by_the_new_owner() {
    let mut desk = Desk::agent(&[Act::TryCall(false)]);
    desk.slots = false;
    desk.starts();
    desk.slots = true;
    desk.taken_over().tool_gives("done");
    assert_eq!(sent(&desk), 1);
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
          wishes for a slot #1 attempt 1
        taken_over by n1 epoch 2
        effect_started #1 attempt 1 epoch 2
        effect_ended #1 done
        ended ok
        => succeeded
    "#]]);
}

#[test]
fn a_dispatcher_that_cannot_say_how_a_call_ended_is_believed() {
    let mut desk = Desk::agent(&[Act::TryCall(false)]);
    desk.starts();
    let effect = desk.root().flying[0].clone();
    let unknown = EffectResult::Unknown(Failure::new(RunCode::Timeout, "no answer"));
    desk.answer(desk.root, &effect, unknown, Spend::default());
    desk.expect(expect![[r#"
        started on n1 epoch 1
        effect_intended #1 tool tool0 {}
        effect_started #1 attempt 1 epoch 1
        effect_ended #1 unknown timeout
        ended ok
        => succeeded
    "#]]);
}

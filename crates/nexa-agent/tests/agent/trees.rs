//! Parents and children.

use expect_test::expect;
use nexa_agent::BRANCHES_BYTES_MAX;
use nexa_types::limits::AGENT_DEPTH_MAX;
use nexa_types::{AgentState, Budget, Failure, Millis, Outcome, RunCode, Spend, Timestamp, Tokens};

use crate::desk::{Desk, NOON, bill, tokens};
use crate::program::Act;

fn ok(text: &str) -> Outcome {
    Outcome::Ok(nexa_vm::codec::encode(&nexa_vm::value::Value::Str(text.into())))
}

#[test]
fn a_fork_waits_for_all_and_keeps_declaration_order() {
    let mut desk = Desk::with(&[vec![Act::Fork(vec![1, 1]), Act::Emit], vec![Act::Now]], |_| {});
    desk.starts();
    desk.child_ends(1, 1, ok("second"), bill(1, 1)).child_ends(1, 0, ok("first"), bill(2, 2));
    desk.expect(expect![[r#"
        started on n1 epoch 1
        children_spawned #1 f1, f1
        child_ended #1.1 ok, used 2 tokens in 1 calls
        child_ended #1.0 ok, used 4 tokens in 1 calls
        emitted #2 main
        ended ok, used 6 tokens in 2 calls
        => succeeded
    "#]]);
    assert_eq!(desk.outcome(), Some(ok("firstsecond")));
}

#[test]
fn a_failed_branch_does_not_stop_its_siblings() {
    let mut desk = Desk::with(&[vec![Act::Fork(vec![1, 2])], vec![Act::Fail], vec![Act::Ask(10)]], |_| {});
    desk.run_to_the_end();
    assert_eq!(desk.root().agent.state(), AgentState::Succeeded);
}

#[test]
fn children_share_what_is_left_and_give_back_what_they_do_not_use() {
    let mut desk =
        Desk::with(&[vec![Act::Fork(vec![1, 1, 1]), Act::Ask(60)], vec![Act::Now]], |born| born.budget = tokens(100));
    desk.starts();
    let granted: Vec<_> =
        (0..3).map(|branch| desk.seats[&desk.child(1, branch)].agent.spawned().budget.tokens).collect();
    assert_eq!(granted, [Some(Tokens(33)); 3]);
    for branch in 0..3 {
        desk.child_ends(1, branch, ok("x"), bill(3, 7));
    }
    // 30 are used and 70 are left, so a request of 64 fits.
    assert_eq!(desk.root().flying.len(), 1);
}

#[test]
fn a_child_that_exceeds_its_share_ends_and_its_parent_sees_the_error() {
    let mut desk = Desk::with(&[vec![Act::Fork(vec![1])], vec![Act::Ask(100)]], |born| born.budget = tokens(50));
    desk.run_to_the_end();
    let outcome = desk.outcome();
    assert!(
        matches!(outcome, Some(Outcome::Err(failure)) if failure.code == RunCode::BudgetExceeded),
        "raised at the call"
    );
}

#[test]
fn a_parent_that_ends_cancels_its_children_and_their_late_ends_do_no_harm() {
    let mut desk = Desk::with(&[vec![Act::Fork(vec![1, 1])], vec![Act::Ask(100)]], |born| {
        born.deadline = Some(Timestamp(NOON.0 + 100));
    });
    desk.starts();
    let child = desk.child(1, 0);
    desk.start(child);
    desk.passes(100);
    desk.read_inbox(child);
    assert_eq!(desk.seats[&child].agent.state(), AgentState::Cancelled);
    desk.expect(expect![[r#"
        started on n1 epoch 1
        children_spawned #1 f1, f1
            [child] started on n1 epoch 1
            [child] effect_intended #1 model, reserves 124 tokens
            [child] effect_started #1 attempt 1 epoch 1
        deadline_passed
        children_cancelled 2
        ended timeout
          posts a cancel to a child
          posts a cancel to a child
            [child] cancel_received "its parent ended"
            [child] ended cancelled, used 124 tokens in 1 calls
            [child]   abandons a request
            [child]   posts its end
        => failed
    "#]]);
}

#[test]
fn a_child_has_the_earlier_of_both_deadlines_and_the_rest_of_the_time() {
    let mut desk = Desk::with(&[vec![Act::Sleep(400), Act::Fork(vec![1])], vec![Act::Sleep(9_000)]], |born| {
        born.deadline = Some(Timestamp(NOON.0 + 700));
        born.budget = Budget { time: Some(Millis(1_000)), ..Budget::default() };
    });
    desk.starts().passes(400);
    let child = desk.seats[&desk.child(2, 0)].agent.spawned().clone();
    assert_eq!((child.deadline, child.budget.time), (Some(Timestamp(NOON.0 + 700)), Some(Millis(600))));
    assert_eq!(child.depth, 1);
    assert_ne!(child.seed, desk.root().agent.spawned().seed);
}

#[test]
fn agents_do_not_start_agents_without_end() {
    let mut desk = Desk::with(&[vec![Act::Fork(vec![0])]], |born| born.depth = AGENT_DEPTH_MAX - 2);
    desk.run_to_the_end();
    assert_eq!(desk.seats.len(), 3);
    let deepest = desk.seats.values().find(|seat| seat.agent.spawned().depth == AGENT_DEPTH_MAX).expect("it was born");
    let outcome = deepest.agent.end().map(|end| end.outcome.clone());
    assert!(matches!(outcome, Some(Outcome::Err(failure)) if failure.code == RunCode::StackOverflow));
}

#[test]
fn an_end_that_is_told_twice_counts_once() {
    let mut desk = Desk::with(&[vec![Act::Fork(vec![1, 1])], vec![Act::Now]], |_| {});
    desk.starts().child_ends(1, 0, ok("a"), bill(5, 5));
    let length = desk.root().stream.len();
    let again = nexa_event::fact::Input::ChildEnded {
        seq: nexa_types::Seq(1),
        branch: 0,
        outcome: ok("b"),
        spend: bill(5, 5),
        handed_over: None,
    };
    let root = desk.root;
    desk.step(root, nexa_agent::Input::Inbox(nexa_types::InputId::from_bytes([9; 16]), again));
    assert_eq!(desk.root().stream.len(), length);
    assert_eq!(desk.root().agent.spend(), bill(5, 5));
}

#[test]
fn a_cancelled_workload_ends_everywhere() {
    let mut desk = Desk::with(&[vec![Act::Fork(vec![1, 1])], vec![Act::Fork(vec![2])], vec![Act::Ask(10)]], |_| {});
    desk.starts();
    let child = desk.child(1, 0);
    desk.start(child);
    desk.cancel_workload();
    desk.run_to_the_end();
    assert!(desk.seats.values().all(|seat| seat.agent.state() == AgentState::Cancelled));
    assert_eq!(desk.root().agent.spend(), Spend::default());
    let reason = Failure::new(RunCode::Cancelled, "ann said so");
    assert_eq!(desk.outcome(), Some(Outcome::Err(reason)));
}

#[test]
fn branches_that_are_too_long_together_are_a_failure_that_the_program_can_catch() {
    let functions = [vec![Act::Ask(10), Act::TryForkOver(100, 1)], vec![Act::Log]];
    let ends = |answer: usize| {
        let mut desk = Desk::with(&functions, |_| {});
        desk.starts().model_says(&"x".repeat(answer)).computes();
        desk
    };
    let too_long = ends(1 + BRANCHES_BYTES_MAX / 100);
    assert_eq!(too_long.outcome(), Some(ok("failed")));
    assert_eq!(too_long.seats.len(), 1, "nobody is born");
    let mut fits = ends(BRANCHES_BYTES_MAX / 200);
    assert_eq!(fits.seats.len(), 101);
    fits.run_to_the_end();
    assert_eq!(fits.outcome(), Some(ok("forked")));
}

#[test]
fn an_end_at_the_top_reaches_everyone_below_also_who_is_born_after_it() {
    let functions = [vec![Act::Fork(vec![1, 1])], vec![Act::Fork(vec![2, 2])], vec![Act::Ask(10)]];
    let mut desk = Desk::with(&functions, |born| born.deadline = Some(Timestamp(NOON.0 + 100)));
    desk.starts().passes(100);
    assert!(desk.outcome().is_some());
    // The workload is over, and this one has not looked into its inbox.
    let child = desk.child(1, 0);
    desk.now = NOON;
    desk.start(child);
    assert_eq!(desk.seats.len(), 5, "it bore two more");
    for _ in 0..2 {
        for id in desk.seats.keys().copied().collect::<Vec<_>>() {
            desk.read_inbox(id);
        }
    }
    let states: Vec<AgentState> = desk.seats.values().map(|seat| seat.agent.state()).collect();
    assert!(states.iter().all(|state| state.is_terminal()), "{states:?}");
}

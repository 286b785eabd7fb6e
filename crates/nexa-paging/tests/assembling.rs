//! What a context consists of, and what it never exceeds.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

use nexa_event::effect::Role;
use nexa_paging::{AssembleError, Found, MemoryMessage, Parts, Place, Why, assemble};
use nexa_types::{Timestamp, Tokens, Version};
use proptest::prelude::*;

fn message(seq: u64, role: Role, tokens: u32) -> MemoryMessage {
    let (speaker, text) = (String::new(), format!("message {seq}"));
    MemoryMessage { seq: Version(seq), role, speaker, text, at: Timestamp(seq), tokens }
}

fn user(seq: u64) -> MemoryMessage {
    message(seq, Role::User, 10)
}

fn found(seq: u64) -> (Found, MemoryMessage) {
    let message = user(seq);
    (Found { seq: message.seq, page: None, tokens: 10, score: 1.0, why: Why::default() }, message)
}

fn counted(message: &MemoryMessage) -> Tokens {
    Tokens(u64::from(message.tokens))
}

/// The places and numbers of a context with a budget.
fn context(parts: &Parts<'_>, budget: u64) -> Vec<(char, u64)> {
    let context = assemble(parts, Tokens(budget), &counted).unwrap();
    assert!(context.tokens <= Tokens(budget));
    let short = |place: &Place| match place {
        Place::System => 's',
        Place::Pinned => 'p',
        Place::Recalled(_) => 'f',
        Place::Recent => 'r',
    };
    context.messages.iter().map(|placed| (short(&placed.place), placed.message.seq.0)).collect()
}

#[test]
fn system_pinned_recalled_in_order_of_time_recent() {
    let system = [message(0, Role::System, 10)];
    let (pinned, recent) = ([user(3)], [user(20), user(21)]);
    let recalled = [found(9), found(4), found(12)];
    let parts = Parts { system: &system, pinned: &pinned, recalled: &recalled, recent: &recent };
    assert_eq!(context(&parts, 1_000), [('s', 0), ('p', 3), ('f', 4), ('f', 9), ('f', 12), ('r', 20), ('r', 21)]);
}

#[test]
fn a_small_budget_takes_the_best_that_was_found_and_the_newest() {
    let system = [message(0, Role::System, 10)];
    let recent: Vec<_> = (20..30).map(user).collect();
    let recalled = [found(9), found(4), found(12)];
    let parts = Parts { system: &system, pinned: &[], recalled: &recalled, recent: &recent };
    assert_eq!(context(&parts, 60), [('s', 0), ('f', 4), ('f', 9), ('r', 27), ('r', 28), ('r', 29)]);
    assert_eq!(context(&parts, 20), [('s', 0), ('r', 29)]);
    let error = assemble(&parts, Tokens(19), &counted).unwrap_err();
    assert!(matches!(error, AssembleError::TooLarge { needed: Tokens(20), budget: Tokens(19), .. }), "{error}");
}

#[test]
fn what_recall_does_not_need_goes_to_recent_messages() {
    let recent: Vec<_> = (20..30).map(user).collect();
    let recalled = [found(9)];
    let parts = Parts { system: &[], pinned: &[], recalled: &recalled, recent: &recent };
    assert_eq!(context(&parts, 100).len(), 10);
    assert_eq!(context(&parts, 110).len(), 11);
}

#[test]
fn nothing_is_in_twice() {
    let recent: Vec<_> = (1..4).map(user).collect();
    let recalled = [found(1), found(2), found(1)];
    let pinned = [user(2)];
    let parts = Parts { system: &[], pinned: &pinned, recalled: &recalled, recent: &recent };
    assert_eq!(context(&parts, 1_000), [('r', 1), ('r', 2), ('r', 3)]);
    let context = assemble(&parts, Tokens(1_000), &counted).unwrap();
    assert_eq!((context.tokens, context.left_out), (Tokens(30), [0, 0, 0]));
}

#[test]
fn a_result_without_its_call_is_left_out() {
    let recent = [message(1, Role::Assistant, 50), message(2, Role::Tool, 10), user(3)];
    let parts = Parts { system: &[], pinned: &[], recalled: &[], recent: &recent };
    assert_eq!(context(&parts, 30), [('r', 3)]);
    assert_eq!(context(&parts, 200).len(), 3);
}

proptest! {
    #[test]
    fn a_budget_is_never_exceeded(
        budget in 0u64..300,
        tokens in prop::collection::vec((0u32..40, any::<bool>()), 1..40),
        pins in prop::collection::btree_set(0usize..40, 0..5),
        hits in prop::collection::vec(0usize..40, 0..10),
        first in 0usize..40,
    ) {
        let role = |is_tool| if is_tool { Role::Tool } else { Role::User };
        let all: Vec<_> = tokens.iter().enumerate().map(|(seq, (tokens, is_tool))| message(seq as u64, role(*is_tool), *tokens)).collect();
        let pinned: Vec<_> = pins.iter().filter_map(|place| all.get(*place).cloned()).collect();
        let recalled: Vec<_> = hits.iter().filter_map(|place| Some((found(*place as u64).0, all.get(*place)?.clone()))).collect();
        let recent = &all[first.min(all.len() - 1)..];
        let parts = Parts { system: &[], pinned: &pinned, recalled: &recalled, recent };
        match assemble(&parts, Tokens(budget), &counted) {
            Ok(context) => {
                prop_assert!(context.tokens <= Tokens(budget));
                let mut seen: Vec<_> = context.messages.iter().map(|placed| placed.message.seq).collect();
                prop_assert_eq!(context.messages.last().map(|placed| placed.message.seq), recent.last().map(|message| message.seq));
                seen.sort_unstable();
                prop_assert!(seen.windows(2).all(|two| two[0] < two[1]));
            }
            Err(AssembleError::TooLarge { needed, .. }) => prop_assert!(needed > Tokens(budget)),
        }
    }
}

//! Agents that remember: what of a long conversation is sent, and what the log has of it.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

use nexa_event::effect::{Conversation, EffectBody, Message, Role};
use nexa_event::fact::{AgentEvent, Intent};

use crate::desk::Desk;

/// An agent whose answers are refused until it says a number, so that its conversation grows.
const STUBBORN: &str = r#"
agent Guide(q: str) -> int { role: "You guide.", prompt: "Answer.", repair: 16, retry: { max: 0 }, memory: { window: 512 } }
agent Plain(q: str) -> int { role: "You guide.", prompt: "Answer.", repair: 16, retry: { max: 0 } }
flow main(q: str) -> int { return Guide.run(q) }
"#;
/// Its window, in bytes.
const WINDOW_BYTES: usize = 512 * 4;

/// What is in flight to the model.
fn asked(desk: &Desk) -> Vec<Message> {
    match &desk.root().flying.last().expect("a request is in flight").body {
        EffectBody::Model(request) => request.messages.clone(),
        other => panic!("not a request: {other:?}"),
    }
}

fn conversations(desk: &Desk) -> Vec<Conversation> {
    let of = |event: &AgentEvent| match event {
        AgentEvent::EffectIntended { intent: Intent::Model { conversation, .. }, .. } => conversation.clone(),
        _ => None,
    };
    desk.root().stream.iter().filter_map(|(event, _)| of(event)).collect()
}

fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.text.as_str()).collect()
}

/// A wrong answer about something, long enough to fill a window after some.
fn rambling(about: &str) -> String {
    format!("{about} is what I think of, and {}", "of nothing else ".repeat(20))
}

#[test]
fn a_conversation_that_fits_is_sent_whole_and_the_log_has_what_was_heard() {
    let mut desk = Desk::of_source(STUBBORN, "Guide", &["how many?"]);
    desk.starts().model_says("many").computes();
    assert_eq!(asked(&desk).len(), 4, "what it is told, the question, the answer, and what is wrong with it");
    let told = conversations(&desk);
    let heard: Vec<Vec<&str>> =
        told.iter().map(|of| of.heard.iter().map(|heard| heard.text.as_str()).collect()).collect();
    assert_eq!(heard[0], ["how many?"]);
    assert_eq!(heard[1].len(), 1, "the answer is in the log already: {heard:?}");
    assert!(told.iter().all(|of| of.sent.is_none() && of.name == "Guide" && of.page_size == 8));
    assert_eq!(told.iter().map(|of| of.before).collect::<Vec<_>>(), [0, 2], "an answer counts, too");
    desk.model_says("7").computes();
    assert!(desk.root().agent.end().is_some());
}

#[test]
fn an_agent_that_forgets_leaves_no_texts() {
    let mut desk = Desk::of_source(STUBBORN, "Plain", &["how many?"]);
    desk.starts().model_says("many").computes();
    assert!(conversations(&desk).is_empty());
}

#[test]
fn what_does_not_fit_is_left_out_and_what_the_newest_message_is_about_is_not() {
    let mut desk = Desk::of_source(STUBBORN, "Guide", &["how many apples are in the basket?"]);
    desk.starts();
    for about in ["the moon", "a river", "the number of apples", "old trains", "a castle", "paper", "the sea", "dust"] {
        desk.model_says(&rambling(about)).computes();
        let sent = asked(&desk);
        let bytes: usize = sent.iter().map(|message| message.text.len() + 32).sum();
        assert!(bytes <= WINDOW_BYTES + 64, "{bytes} bytes are sent");
        assert_eq!(sent[0].role, Role::System);
        assert!(texts(&sent).contains(&"how many apples are in the basket?"), "what it is about stays");
        assert_eq!(sent.last().unwrap().role, Role::User, "the newest message is the last");
    }
    let last = conversations(&desk).pop().unwrap();
    let sent = last.sent.expect("not all of it fits");
    assert_eq!(sent.len(), asked(&desk).len());
    assert!(sent.is_sorted(), "in order of time: {sent:?}");
    assert!(desk.root().agent.paging().recalls > 0);
}

/// AG-3, of a request in flight. The desk replays after every step as well.
#[test]
fn whoever_takes_it_over_sends_the_same() {
    let mut desk = Desk::of_source(STUBBORN, "Guide", &["how many?"]);
    desk.starts();
    for about in ["the moon", "a river", "apples", "old trains"] {
        desk.model_says(&rambling(about)).computes();
    }
    let before = asked(&desk);
    desk.freeze(desk.root);
    desk.taken_over();
    assert_eq!(asked(&desk), before, "after a snapshot");
    desk.model_says(&rambling("a castle")).computes();
    let before = asked(&desk);
    desk.taken_over();
    assert_eq!(asked(&desk), before, "after a snapshot and what came since");
}

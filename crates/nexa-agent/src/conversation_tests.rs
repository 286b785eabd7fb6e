#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

use nexa_event::effect::ToolCall;
use nexa_types::Seq;
use proptest::prelude::*;

use super::*;

fn said(role: Role, text: &str) -> Message {
    Message::new(role, text, Source::Program)
}

fn memory(window: u64, max_pages: u32) -> Remembering {
    Remembering { window: Tokens(window), page_size: 2, max_pages, ..Remembering::default() }
}

/// The places that are sent of a conversation whose first message is the system's.
fn sent(messages: &[Message], memory: &Remembering) -> Vec<u32> {
    let hashes: Vec<u64> = messages.iter().map(hash).collect();
    let mut recollection = Recollection::new(AgentId::from_bytes([1; 16]), memory, PagingCounts::default()).unwrap();
    recollection.choose(messages, &hashes, 1, memory.window).unwrap_or_else(|| least(messages, 1))
}

fn long(text: &str) -> String {
    format!("{text} {}", "and so on ".repeat(12))
}

#[test]
fn what_a_tool_gave_goes_with_its_call() {
    let call = ToolCall { id: "c".into(), name: "find".into(), arguments: "{}".into() };
    let messages = vec![
        said(Role::System, "s"),
        said(Role::User, &long("question")),
        said(Role::Assistant, &long("thought")),
        Message::calling("", Source::Answer(Seq(1)), vec![call]),
        Message::returned("c", long("result"), Source::Derived),
    ];
    let places = sent(&messages, &memory(60, 8));
    assert_eq!(places[places.len() - 2..], [3, 4], "{places:?}");
}

#[test]
fn a_call_that_is_recalled_is_told_without_its_form() {
    let call = ToolCall { id: "c".into(), name: "find".into(), arguments: "{}".into() };
    let calling = Message::calling("I look it up", Source::Answer(Seq(1)), vec![call.clone()]);
    let plain = told(&calling).unwrap();
    assert_eq!((plain.text.as_str(), plain.tool_calls.len()), ("I look it up", 0));
    let gave = told(&Message::returned("c", "42", Source::Derived)).unwrap();
    assert_eq!((gave.role, gave.tool_call_id), (Role::User, None));
    assert_eq!(told(&Message::calling("", Source::Derived, vec![call])), None);
}

#[test]
fn what_the_newest_message_asks_for_is_recalled_from_far_back() {
    let mut messages = vec![said(Role::System, "s"), said(Role::User, "hello")];
    for nth in 0..100 {
        messages.push(said(Role::User, &long(&format!("fact {nth} about thing{nth}"))));
        messages.push(said(Role::Assistant, "noted"));
    }
    messages.push(said(Role::User, "what was it about thing17"));
    let places = sent(&messages, &memory(400, 8));
    assert!(places.contains(&(2 + 34)), "{places:?}");
    assert!(places.contains(&0) && places.contains(&1) && places.contains(&(messages.len() as u32 - 1)));
}

#[test]
fn what_cannot_fit_at_all_is_sent_nevertheless() {
    let messages = vec![said(Role::System, &"s".repeat(4_000)), said(Role::User, "a"), said(Role::User, "b")];
    assert_eq!(sent(&messages, &memory(256, 8)), [0, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The choice hangs neither on how many pages are in memory nor on whether earlier requests were paged by the same pager.
    #[test]
    fn the_choice_is_a_function_of_the_conversation(
        words in proptest::collection::vec(0usize..30, 4..60),
        max_pages in 1u32..9,
    ) {
        let mut messages = vec![said(Role::System, "s")];
        messages.extend(words.iter().map(|word| said(Role::User, &long(&format!("word{word}")))));
        let memory = memory(300, max_pages);
        let mut grown = Recollection::new(AgentId::from_bytes([1; 16]), &memory, PagingCounts::default()).unwrap();
        for len in 4..=messages.len() {
            let part = &messages[..len];
            let hashes: Vec<u64> = part.iter().map(hash).collect();
            let by_grown = grown.choose(part, &hashes, 1, memory.window).unwrap_or_else(|| least(part, 1));
            prop_assert_eq!(&by_grown, &sent(part, &super::tests::memory(300, 64)));
            let used: u64 = by_grown.iter().map(|place| tokens(&part[*place as usize])).sum();
            prop_assert!(used <= memory.window.0);
        }
    }
}

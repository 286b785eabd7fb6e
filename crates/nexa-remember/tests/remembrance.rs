//! What agents remember, over a log and a store of pages in memory.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod desk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nexa_event::effect::{ConversationScope, Role};
use nexa_paging::Mode;
use nexa_ports::embedder::{EmbedCall, EmbedError, Embedded, Embedder, HashedWords};
use nexa_ports::pages::{BATCH_PAGES_MAX, Scope};
use nexa_ports::store::Store;
use nexa_remember::{APPEND_EVERY, APPEND_ROWS, Asked, RememberError, Remembrance, WAITING_PAGES_MAX};
use nexa_types::{Millis, Version};

use desk::{Desk, SIZE, Talker, UNSPEAKABLE, tenant};

fn own(who: &Talker) -> Scope {
    Scope::Agent(who.tenant.clone(), who.agent)
}

async fn found(remembrance: &Remembrance, scope: Scope, query: &str) -> Vec<String> {
    let asked = Asked { scope, query: query.into(), messages: 3, tokens: None };
    remembrance.recall(asked).await.unwrap().messages.into_iter().map(|found| found.message.text).collect()
}

#[tokio::test]
async fn what_was_said_a_moment_ago_is_found_with_where_it_is_from() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    desk.turn(&mut who, "when does the train leave", "at nine").await;
    desk.turn(&mut who, "what do we eat", "soup").await;
    desk.turn(&mut who, "who drives", "Ada drives the bus").await;
    let asked = Asked { scope: own(&who), query: "which train".into(), messages: 2, tokens: None };
    let recalled = remembrance.recall(asked).await.unwrap();
    let [first, second] = &recalled.messages[..] else { panic!("two were asked for") };
    assert_eq!((first.message.text.as_str(), first.message.role), ("when does the train leave", Role::User));
    assert_eq!((second.message.text.as_str(), second.message.speaker.as_str()), ("at nine", "Guide"));
    assert!(first.page.is_some() && recalled.mode == Some(Mode::Keywords));
    assert_eq!(nexa_paging::PlaceInLog::of(first.message.seq).version, Version(2));
    assert_eq!(recalled.seen, *desk.store.head().borrow());
    assert_eq!(found(&remembrance, own(&who), "bus").await[0], "Ada drives the bus", "although its page is open");
}

#[tokio::test]
async fn nothing_of_another_tenant_or_beyond_the_scope_is_found() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let (mut own_only, mut shared) =
        (desk.born("t", 1, ConversationScope::Agent).await, desk.born("t", 2, ConversationScope::Tenant).await);
    let mut other = desk.born("other", 3, ConversationScope::Tenant).await;
    for (who, text) in [(&mut own_only, "mine"), (&mut shared, "ours"), (&mut other, "theirs")] {
        desk.turn(who, &format!("the secret is {text}"), "noted").await;
        desk.turn(who, "so", "so").await;
    }
    let of = |name: &str| Scope::Tenant(tenant(name));
    for stored in [false, true] {
        if stored {
            desk.until_stored(&remembrance, 3).await;
        }
        let secret = |text: &str| format!("the secret is {text}");
        let all = |texts: Vec<String>| texts.into_iter().filter(|text| text.contains("secret")).collect::<Vec<_>>();
        assert_eq!(all(found(&remembrance, of("t"), "secret").await), [secret("ours")], "stored: {stored}");
        assert_eq!(all(found(&remembrance, of("other"), "secret").await), [secret("theirs")]);
        assert_eq!(all(found(&remembrance, own(&own_only), "secret").await), [secret("mine")]);
        let foreign = Scope::Agent(tenant("other"), own_only.agent);
        assert!(found(&remembrance, foreign, "secret").await.is_empty());
    }
}

#[tokio::test]
async fn pages_are_stored_after_a_while_and_a_restart_goes_on_from_there() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    for nth in 0..5 {
        desk.turn(&mut who, &format!("question {nth}"), &format!("answer {nth}")).await;
    }
    assert_eq!(found(&remembrance, own(&who), "answer 4").await[0], "answer 4");
    desk.until_stored(&remembrance, 2).await;
    let (pages, _) = remembrance.pages(&who.tenant, who.agent, Version(0), 9).await.unwrap();
    let shape = |pages: &[nexa_remember::PageLine]| {
        pages.iter().map(|page| (page.messages, page.stored, page.id.is_none())).collect::<Vec<_>>()
    };
    assert_eq!(shape(&pages), [(4, true, false), (4, true, false), (2, false, true)]);
    remembrance.stop(Duration::from_secs(5)).await;

    let again = desk.start(None);
    assert_eq!(found(&again, own(&who), "answer 4").await[0], "answer 4", "what was open is open again");
    desk.turn(&mut who, "question 5", "answer 5").await;
    desk.ends(&mut who).await;
    let (pages, _) = again.pages(&who.tenant, who.agent, Version(0), 9).await.unwrap();
    assert_eq!(shape(&pages), [(4, true, false), (4, true, false), (4, false, false)]);
    assert_eq!(again.standing().sealed, 1, "the others were not made again");
    let (messages, next) = again.messages(&who.tenant, who.agent, Version(0)).await.unwrap();
    assert_eq!((messages.len(), next), (12, None));
    assert_eq!(messages[11].message.text, "answer 5");
}

#[tokio::test]
async fn pages_that_cannot_be_stored_are_found_and_stored_later() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    desk.pages.fails.store(true, Ordering::SeqCst);
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    desk.turn(&mut who, "where is the key", "under the mat").await;
    desk.turn(&mut who, "so", "so").await;
    assert_eq!(found(&remembrance, own(&who), "key").await[0], "where is the key");
    while remembrance.standing().failures == 0 {
        desk.clock.advance(APPEND_EVERY);
        tokio::task::yield_now().await;
    }
    assert_eq!((remembrance.standing().waiting, remembrance.standing().rows), (1, 0));
    assert_eq!(found(&remembrance, own(&who), "key").await[0], "where is the key");
    desk.pages.fails.store(false, Ordering::SeqCst);
    desk.until_stored(&remembrance, 1).await;
    assert_eq!(found(&remembrance, own(&who), "key").await[0], "where is the key");
}

#[tokio::test]
async fn a_page_that_is_refused_takes_no_other_along() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    for question in ["where is the key", "so", UNSPEAKABLE, "so", "where is the door", "so"] {
        desk.turn(&mut who, question, "noted").await;
    }
    assert_eq!(found(&remembrance, own(&who), "key").await[0], "where is the key");
    desk.until_stored(&remembrance, 2).await;
    assert_eq!(found(&remembrance, own(&who), "key").await[0], "where is the key");
    assert_eq!(found(&remembrance, own(&who), "door").await[0], "where is the door");
    let (pages, _) = remembrance.pages(&who.tenant, who.agent, Version(0), 9).await.unwrap();
    assert_eq!(pages.iter().map(|page| (page.messages, page.stored)).collect::<Vec<_>>(), [(4, true), (4, true)]);
}

#[tokio::test]
async fn pages_that_wait_between_stored_ones_are_listed_and_exported_too() {
    const PAGES: usize = BATCH_PAGES_MAX + 40;
    let desk = Desk::new();
    let remembrance = desk.start(None);
    desk.pages.fails.store(true, Ordering::SeqCst);
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    for nth in 0..PAGES * 2 {
        desk.turn(&mut who, &format!("fact number {nth}"), "noted").await;
    }
    assert_eq!(found(&remembrance, own(&who), "number 700").await[0], "fact number 700");
    desk.pages.takes.store(1, Ordering::SeqCst);
    desk.pages.fails.store(false, Ordering::SeqCst);
    desk.until_stored(&remembrance, BATCH_PAGES_MAX as u64).await;
    assert_eq!(remembrance.standing().waiting, 40);

    let (mut pages, mut from) = (Vec::new(), Some(Version(0)));
    while let Some(begin) = from {
        let (some, next) = remembrance.pages(&who.tenant, who.agent, begin, 100).await.unwrap();
        assert!(some.len() <= 100, "{} pages of one answer", some.len());
        pages.extend(some);
        from = next;
    }
    assert_eq!((pages.len(), pages.iter().filter(|page| page.stored).count()), (PAGES, BATCH_PAGES_MAX));
    assert!(pages.is_sorted_by(|page, next| page.last < next.first));
    let (mut messages, mut from) = (Vec::new(), Some(Version(0)));
    while let Some(begin) = from {
        let (some, next) = remembrance.messages(&who.tenant, who.agent, begin).await.unwrap();
        messages.extend(some);
        from = next;
    }
    assert_eq!(messages.len(), PAGES * 4);
    assert!(messages.is_sorted_by(|message, next| message.message.seq < next.message.seq));
}

#[tokio::test]
async fn no_more_waits_than_may_while_the_store_is_away() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    desk.pages.fails.store(true, Ordering::SeqCst);
    let mut who = Talker { size: 1, ..desk.born("t", 1, ConversationScope::Agent).await };
    for nth in 0..WAITING_PAGES_MAX / 2 {
        desk.turn(&mut who, &format!("fact number {nth}"), "noted").await;
    }
    assert_eq!(found(&remembrance, own(&who), "number 700").await.len(), 3);
    assert_eq!(remembrance.standing().waiting, WAITING_PAGES_MAX as u64);
    desk.turn(&mut who, "one too many", "noted").await;
    let asked = Asked { scope: own(&who), query: "many".into(), messages: 1, tokens: None };
    let passes = async {
        loop {
            desk.clock.advance(Millis(10));
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::select! {
        refused = remembrance.recall(asked) => refused.unwrap_err(),
        () = passes => unreachable!("time has no end"),
    };
    assert!(matches!(refused, RememberError::Behind { .. }), "{refused}");
    assert_eq!(remembrance.standing().waiting, WAITING_PAGES_MAX as u64);
    desk.pages.fails.store(false, Ordering::SeqCst);
    desk.until_stored(&remembrance, WAITING_PAGES_MAX as u64 + 2).await;
    assert_eq!(found(&remembrance, own(&who), "many").await[0], "one too many");
}

#[tokio::test]
async fn vectors_come_later_and_find_what_words_do_not() {
    let desk = Desk::new();
    let remembrance = desk.start(Some(Arc::new(HashedWords::new(64))));
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    desk.turn(&mut who, "the ferry crosses at dawn", "yes").await;
    desk.turn(&mut who, "bread and butter", "fine").await;
    let _ = found(&remembrance, own(&who), "ferry").await;
    desk.until_stored(&remembrance, 1).await;
    while remembrance.pages(&who.tenant, who.agent, Version(0), 9).await.unwrap().0[0].embedded < SIZE {
        desk.clock.advance(APPEND_EVERY);
        tokio::task::yield_now().await;
    }
    let asked = Asked { scope: own(&who), query: "ferry at dawn".into(), messages: 1, tokens: None };
    let recalled = remembrance.recall(asked).await.unwrap();
    assert_eq!(recalled.mode, Some(Mode::Hybrid));
    assert!(recalled.messages[0].why.cosine.is_some_and(|cosine| cosine > 0.5), "{:?}", recalled.messages[0].why);
}

#[tokio::test]
async fn pages_that_were_stored_without_vectors_get_them_once_a_query_reads_them() {
    let desk = Desk::new();
    let without = desk.start(None);
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    desk.turn(&mut who, "the ferry crosses at dawn", "yes").await;
    desk.turn(&mut who, "bread and butter", "fine").await;
    let _ = found(&without, own(&who), "ferry").await;
    desk.until_stored(&without, 1).await;
    without.stop(Duration::from_secs(5)).await;

    let remembrance = desk.start(Some(Arc::new(HashedWords::new(64))));
    let asked = || Asked { scope: own(&who), query: "ferry at dawn".into(), messages: 1, tokens: None };
    assert_eq!(remembrance.recall(asked()).await.unwrap().mode, Some(Mode::Keywords));
    while remembrance.pages(&who.tenant, who.agent, Version(0), 9).await.unwrap().0[0].embedded < SIZE {
        desk.clock.advance(APPEND_EVERY);
        tokio::task::yield_now().await;
    }
    assert_eq!(remembrance.recall(asked()).await.unwrap().mode, Some(Mode::Hybrid));
}

/// Has its weights once it is told.
struct Late {
    words: HashedWords,
    is_there: AtomicBool,
}

impl Embedder for Late {
    fn model(&self) -> &str {
        self.words.model()
    }
    fn dimension(&self) -> usize {
        self.words.dimension()
    }
    fn embed(&self, call: EmbedCall) -> futures::future::BoxFuture<'_, Result<Embedded, EmbedError>> {
        match self.is_there.load(Ordering::SeqCst) {
            true => self.words.embed(call),
            false => Box::pin(async { Err(EmbedError::Absent("no weights".into())) }),
        }
    }
}

#[tokio::test]
async fn pages_that_cannot_be_read_for_a_while_get_their_vectors_later() {
    let desk = Desk::new();
    let embedder = Arc::new(Late { words: HashedWords::new(64), is_there: AtomicBool::new(false) });
    let remembrance = desk.start(Some(embedder.clone()));
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    desk.turn(&mut who, "the ferry crosses at dawn", "yes").await;
    desk.turn(&mut who, "bread and butter", "fine").await;
    let _ = found(&remembrance, own(&who), "ferry").await;
    desk.until_stored(&remembrance, 1).await;
    desk.pages.is_unreadable.store(true, Ordering::SeqCst);
    embedder.is_there.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        desk.clock.advance(APPEND_EVERY);
        tokio::task::yield_now().await;
    }
    desk.pages.is_unreadable.store(false, Ordering::SeqCst);
    for _ in 0..10_000 {
        if remembrance.standing().embedded >= u64::from(SIZE) {
            return;
        }
        desk.clock.advance(APPEND_EVERY);
        tokio::task::yield_now().await;
    }
    panic!("it should have its vectors: {:?}", remembrance.standing());
}

/// Never answers.
struct Silent;

impl Embedder for Silent {
    fn model(&self) -> &'static str {
        "test/silent"
    }
    fn dimension(&self) -> usize {
        8
    }
    fn embed(&self, _: EmbedCall) -> futures::future::BoxFuture<'_, Result<Embedded, EmbedError>> {
        Box::pin(async { Err(EmbedError::Absent("no weights".into())) })
    }
}

#[tokio::test]
async fn without_weights_words_are_enough_and_many_pages_go_at_once() {
    let desk = Desk::new();
    let remembrance = desk.start(Some(Arc::new(Silent)));
    let mut who = desk.born("t", 1, ConversationScope::Agent).await;
    for nth in 0..APPEND_ROWS * 2 {
        desk.turn(&mut who, &format!("fact number {nth}"), "noted").await;
    }
    assert_eq!(found(&remembrance, own(&who), "number 700").await[0], "fact number 700");
    for _ in 0..10_000 {
        if remembrance.standing().rows >= APPEND_ROWS as u64 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(remembrance.standing().rows >= APPEND_ROWS as u64, "no time has passed: {:?}", remembrance.standing());
    assert_eq!(found(&remembrance, own(&who), "number 700").await[0], "fact number 700");
}

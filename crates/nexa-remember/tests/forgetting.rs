//! What is forgotten stays so: after a restart, when the log is read again, on every node, and whatever the store of pages does.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod desk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nexa_event::effect::ConversationScope;
use nexa_event::envelope::Fact;
use nexa_event::fact::ClusterEvent;
use nexa_ports::embedder::{EmbedCall, EmbedError, Embedded, Embedder, HashedWords};
use nexa_ports::formats::{Formats, Writing};
use nexa_ports::pages::{PageStore, Scope};
use nexa_ports::store::{Append, Guard, Store, StoreError};
use nexa_remember::{APPEND_EVERY, Asked, RememberError, Remembrance};
use nexa_types::{AgentId, BlobHash, Epoch, ModuleHash, StreamId, TenantId, Version};
use tokio::sync::Notify;

use desk::{Desk, SIZE, Talker, tenant};

const SECRET: &str = "the code is 4711";

async fn recalled(remembrance: &Remembrance, scope: Scope, query: &str) -> Vec<String> {
    let asked = Asked { scope, query: query.into(), messages: 9, tokens: None };
    remembrance.recall(asked).await.unwrap().messages.into_iter().map(|found| found.message.text).collect()
}

async fn knows(remembrance: &Remembrance, who: &Talker, text: &str) -> bool {
    let scope = Scope::Agent(who.tenant.clone(), who.agent);
    recalled(remembrance, scope, text).await.iter().any(|found| found == text)
}

async fn messages(remembrance: &Remembrance, who: &Talker) -> Vec<String> {
    let (messages, next) = remembrance.messages(&who.tenant, who.agent, Version(0)).await.unwrap();
    assert_eq!(next, None);
    messages.into_iter().map(|found| found.message.text).collect()
}

async fn forget(remembrance: &Remembrance, who: &Talker) -> usize {
    remembrance.forget(who.agent, Desk::stamp(&who.tenant)).await.unwrap()
}

/// What the log tells to be forgotten, in the stream of a tenant: who, and as whose wish.
async fn told(desk: &Desk, name: &str) -> Vec<(AgentId, Version, String)> {
    let facts = desk.store.read(StreamId::Cluster(tenant(name)), Version(0), 99).await.unwrap();
    let forgotten = facts.into_iter().filter_map(|recorded| match recorded.envelope.fact {
        Fact::Cluster(ClusterEvent::AgentForgotten { agent, up_to }) => {
            Some((agent, up_to, recorded.envelope.header.principal.to_string()))
        }
        _ => None,
    });
    forgotten.collect()
}

/// An agent that has said the secret, in a page and in what is open.
async fn keeper(desk: &Desk, workload: u8) -> Talker {
    let mut who = desk.born("t", workload, ConversationScope::Tenant).await;
    for _ in 0..3 {
        desk.turn(&mut who, SECRET, "noted").await;
    }
    who
}

#[tokio::test]
async fn what_was_forgotten_is_not_found_after_a_restart_or_a_rebuild_and_the_log_says_who_wanted_it() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let (who, other) = (keeper(&desk, 1).await, keeper(&desk, 2).await);
    let foreign = remembrance.forget(who.agent, Desk::stamp(&tenant("other"))).await.unwrap();
    assert_eq!((foreign, knows(&remembrance, &who, SECRET).await), (0, true), "nobody forgets for another tenant");
    assert_eq!((told(&desk, "other").await, told(&desk, "t").await), (vec![], vec![]));

    assert_eq!(forget(&remembrance, &who).await, 1);
    assert_eq!(told(&desk, "t").await, [(who.agent, Version(who.version), "user:ada".to_owned())]);
    let is_forgotten = async |remembrance: &Remembrance, when: &str| {
        assert!(!knows(remembrance, &who, SECRET).await, "{when}");
        assert_eq!(messages(remembrance, &who).await, [""; 0], "{when}");
        let (pages, _) = remembrance.pages(&who.tenant, who.agent, Version(0), 9).await.unwrap();
        assert!(pages.is_empty(), "{when}: {pages:?}");
        assert!(knows(remembrance, &other, SECRET).await, "{when}: nobody else is forgotten");
        let shared = recalled(remembrance, Scope::Tenant(tenant("t")), SECRET).await;
        assert_eq!(shared.iter().filter(|text| *text == SECRET).count(), 3, "{when}: {shared:?}");
    };
    is_forgotten(&remembrance, "at once").await;
    remembrance.rebuild().await.unwrap();
    is_forgotten(&remembrance, "after a rebuild").await;
    remembrance.stop(Duration::from_secs(5)).await;
    let again = desk.start(None);
    is_forgotten(&again, "after a restart").await;
    again.stop(Duration::from_secs(5)).await;
    let elsewhere = desk.neighbour();
    let second = elsewhere.start(None);
    is_forgotten(&second, "on a node that has nothing but the log").await;
    assert_eq!(forget(&second, &who).await, 0);
    assert_eq!(told(&desk, "t").await.len(), 1, "who is forgotten is not forgotten again");
}

#[tokio::test]
async fn what_is_stored_is_forgotten_on_every_node_and_deleted_there() {
    let desk = Desk::new();
    let elsewhere = desk.neighbour();
    let (here, there) = (desk.start(None), elsewhere.start(None));
    let mut who = keeper(&desk, 1).await;
    desk.ends(&mut who).await;
    for (desk, remembrance) in [(&desk, &here), (&elsewhere, &there)] {
        assert!(knows(remembrance, &who, SECRET).await);
        desk.until_stored(remembrance, 2).await;
    }
    assert_eq!(forget(&here, &who).await, 2, "also of an agent that has ended");
    for (desk, remembrance) in [(&desk, &here), (&elsewhere, &there)] {
        assert!(!knows(remembrance, &who, SECRET).await);
        until(|| stored_pages(desk, &who) == 0).await;
    }
}

fn stored_pages(desk: &Desk, who: &Talker) -> usize {
    let pages = desk.pages.scan(who.tenant.clone(), who.agent, Version(0), 99);
    pages.now_or_never().expect("they are in memory").unwrap().len()
}

async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it should have come to that");
}

#[tokio::test]
async fn what_an_agent_says_after_it_was_forgotten_is_remembered() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let mut who = keeper(&desk, 1).await;
    assert!(knows(&remembrance, &who, SECRET).await);
    desk.until_stored(&remembrance, 1).await;
    assert_eq!(forget(&remembrance, &who).await, 1);
    for nth in 0..4 {
        desk.turn(&mut who, &format!("question {nth}"), &format!("answer {nth}")).await;
    }
    let is_as_said = async |remembrance: &Remembrance, count: usize, when: &str| {
        let texts = messages(remembrance, &who).await;
        assert_eq!((texts.len(), texts.first().map(String::as_str)), (count, Some("question 0")), "{when}: {texts:?}");
        assert!(!knows(remembrance, &who, SECRET).await, "{when}");
    };
    is_as_said(&remembrance, 8, "at once").await;
    desk.until_stored(&remembrance, 3).await;
    is_as_said(&remembrance, 8, "when it is stored").await;
    remembrance.stop(Duration::from_secs(5)).await;
    let again = desk.start(None);
    is_as_said(&again, 8, "after a restart").await;
    again.rebuild().await.unwrap();
    is_as_said(&again, 8, "after a rebuild").await;
    let pages = |lines: Vec<nexa_remember::PageLine>| {
        lines.iter().map(|line| (line.id, line.first, line.last)).collect::<Vec<_>>()
    };
    let elsewhere = desk.neighbour().start(None);
    let (here, _) = again.pages(&who.tenant, who.agent, Version(0), 9).await.unwrap();
    let (there, _) = elsewhere.pages(&who.tenant, who.agent, Version(0), 9).await.unwrap();
    assert_eq!(pages(here), pages(there), "all nodes have the same pages");

    assert_eq!(forget(&again, &who).await, 2);
    desk.turn(&mut who, "and now", "so").await;
    let texts = messages(&again, &who).await;
    assert_eq!(texts, ["and now", "so"]);
    assert_eq!(messages(&elsewhere, &who).await, texts);
}

#[tokio::test]
async fn what_cannot_be_deleted_is_hidden_and_deleted_later_also_after_a_restart() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let who = keeper(&desk, 1).await;
    assert!(knows(&remembrance, &who, SECRET).await);
    desk.until_stored(&remembrance, 1).await;
    desk.pages.fails.store(true, Ordering::SeqCst);
    assert_eq!(forget(&remembrance, &who).await, 1);
    assert!(!knows(&remembrance, &who, SECRET).await);
    until(|| remembrance.standing().failures > 0).await;
    assert_eq!(stored_pages(&desk, &who), 1);
    remembrance.stop(Duration::from_secs(5)).await;

    desk.pages.fails.store(false, Ordering::SeqCst);
    let again = desk.start(None);
    assert!(!knows(&again, &who, SECRET).await);
    until(|| stored_pages(&desk, &who) == 0).await;
}

#[tokio::test]
async fn a_shard_goes_no_further_than_what_it_has_not_deleted() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let mut who = keeper(&desk, 1).await;
    desk.ends(&mut who).await;
    assert!(knows(&remembrance, &who, SECRET).await);
    desk.until_stored(&remembrance, 2).await;
    desk.pages.keeps.store(true, Ordering::SeqCst);
    forget(&remembrance, &who).await;
    let forgotten_at = *desk.store.head().borrow();
    // Others of the shard go on meanwhile, and are stored.
    let others = async |numbers: std::ops::Range<u8>| {
        for number in numbers {
            let mut other = desk.born("t", number, ConversationScope::Agent).await;
            desk.turn(&mut other, "so", "so").await;
            desk.ends(&mut other).await;
        }
        assert!(!knows(&remembrance, &who, SECRET).await);
    };
    // The clock stood there when the shards were taken over.
    const EPOCH: Epoch = Epoch(1_000);
    let applied = async || {
        let shard = desk.pages.shards().of(who.agent);
        desk.pages.take_over(shard, EPOCH).await.unwrap()
    };
    others(2..40).await;
    desk.until_stored(&remembrance, 2 + 38).await;
    assert_eq!(stored_pages(&desk, &who), 2);
    assert!(applied().await < forgotten_at, "whoever starts now is told again");
    desk.pages.keeps.store(false, Ordering::SeqCst);
    others(40..80).await;
    desk.until_stored(&remembrance, 2 + 38 + 40).await;
    assert_eq!(stored_pages(&desk, &who), 0);
    assert!(applied().await >= forgotten_at);
}

/// Answers when it is told to.
struct Slow {
    words: HashedWords,
    asked: Notify,
    go: Notify,
    is_free: AtomicBool,
}

impl Embedder for Slow {
    fn model(&self) -> &str {
        self.words.model()
    }
    fn dimension(&self) -> usize {
        self.words.dimension()
    }
    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embedded, EmbedError>> {
        Box::pin(async move {
            if !self.is_free.load(Ordering::SeqCst) {
                self.asked.notify_one();
                self.go.notified().await;
            }
            self.words.embed(call).await
        })
    }
}

#[tokio::test]
async fn a_page_that_gets_its_vectors_while_it_is_forgotten_does_not_come_back() {
    let desk = Desk::new();
    let (words, is_free) = (HashedWords::new(64), AtomicBool::new(false));
    let slow = Arc::new(Slow { words, asked: Notify::new(), go: Notify::new(), is_free });
    let remembrance = desk.start(Some(slow.clone()));
    remembrance.follow();
    let who = keeper(&desk, 1).await;
    slow.asked.notified().await;
    slow.is_free.store(true, Ordering::SeqCst);
    assert_eq!(forget(&remembrance, &who).await, 1);
    slow.go.notify_one();
    until(|| remembrance.standing().embedded >= u64::from(SIZE)).await;
    for _ in 0..100 {
        desk.clock.advance(APPEND_EVERY);
        tokio::task::yield_now().await;
    }
    assert!(!knows(&remembrance, &who, SECRET).await);
    assert_eq!((remembrance.standing().waiting, stored_pages(&desk, &who)), (0, 0));
}

#[tokio::test]
async fn a_log_of_an_earlier_format_tells_nothing_that_its_readers_would_not_read() {
    let desk = Desk { writing: Writing::oldest(Formats::THIS_BUILD), ..Desk::new() };
    let remembrance = desk.start(None);
    let who = keeper(&desk, 1).await;
    let refused = remembrance.forget(who.agent, Desk::stamp(&who.tenant)).await.unwrap_err();
    assert_eq!(refused, RememberError::Unwritten { written: 1 });
    assert!(refused.to_string().contains("format 1") && refused.to_string().contains("format 2"), "{refused}");
    assert!(knows(&remembrance, &who, SECRET).await && told(&desk, "t").await.is_empty());
    desk.writing.raise(2).unwrap();
    assert_eq!(forget(&remembrance, &who).await, 1);
}

/// Programs are put into the same stream.
async fn put(desk: &Desk, tenant: TenantId, version: u64) {
    let (module, blob) = (ModuleHash::from_bytes([version as u8; 32]), BlobHash::from_bytes([1; 32]));
    let append = Append {
        stamp: Desk::stamp(&tenant),
        stream: StreamId::Cluster(tenant),
        guard: Guard::Version,
        expected: Version(version),
        facts: vec![Fact::Cluster(ClusterEvent::ProgramPut { module, blob, name: "p".into() })],
        row: None,
        takes: Vec::new(),
        posts: Vec::new(),
        births: Vec::new(),
        also: None,
    };
    desk.store.append(vec![append]).await.pop().unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_is_forgotten_behind_whatever_else_the_tenants_stream_has() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let who = keeper(&desk, 1).await;
    for version in 0..3 {
        put(&desk, tenant("t"), version).await;
    }
    assert!(knows(&remembrance, &who, SECRET).await);
    desk.store.fail_next(StoreError::DiskFull);
    let failed = remembrance.forget(who.agent, Desk::stamp(&who.tenant)).await;
    assert_eq!(failed, Err(RememberError::Store(StoreError::DiskFull)));
    assert!(knows(&remembrance, &who, SECRET).await);
    assert_eq!(forget(&remembrance, &who).await, 1);
    put(&desk, tenant("t"), 4).await;
    assert_eq!((forget(&remembrance, &who).await, told(&desk, "t").await.len()), (0, 1));
}

#[tokio::test]
async fn what_is_told_although_the_answer_was_lost_is_forgotten_and_not_told_again() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let who = keeper(&desk, 1).await;
    assert!(knows(&remembrance, &who, SECRET).await);
    desk.store.lose_next_answer();
    let lost = remembrance.forget(who.agent, Desk::stamp(&who.tenant)).await;
    assert!(matches!(lost, Err(RememberError::Store(StoreError::Ambiguous { .. }))), "{lost:?}");
    assert!(!knows(&remembrance, &who, SECRET).await);
    assert_eq!((forget(&remembrance, &who).await, told(&desk, "t").await.len()), (0, 1));
}

#[tokio::test]
async fn figures_say_what_is_behind_and_what_was_asked() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let who = keeper(&desk, 1).await;
    assert_eq!(remembrance.standing().lag_facts, 0, "nobody follows the log yet");
    assert!(knows(&remembrance, &who, SECRET).await);
    let standing = remembrance.standing();
    assert_eq!((standing.lag_facts, standing.lag_ms, standing.recalls), (0, 0, 1));
    assert_eq!((standing.waiting, standing.ranked), (1, 2), "a page, and what is open");
    assert_eq!(standing.waiting_bytes, (2 * (SECRET.len() + "noted".len())) as u64);
}

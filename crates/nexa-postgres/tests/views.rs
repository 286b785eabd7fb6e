//! Read models on PostgreSQL: the same answers as the twin in memory, from whichever node, also after a rebuild.

mod support;

use std::sync::Arc;
use std::time::Duration;

use nexa_event::effect::{MemoryScope, Remembered};
use nexa_event::envelope::Fact;
use nexa_event::fact::AgentEvent;
use nexa_ports::memories::Memories;
use nexa_ports::store::Store;
use nexa_ports::view::{MemoryViews, Page, ViewError, Views};
use nexa_testkit::postgres::Server;
use nexa_testkit::store_contract::{AnyStore, owned, submission, workload};
use nexa_testkit::view_contract::{LONG, append, fill, local, replied, same_answers};
use nexa_types::limits::MEMORY_ENTRIES_MAX;
use nexa_types::{AgentId, GlobalSeq, Payload, Seq, TenantId};
use nexa_view::MemoryPlace;
use support::open;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_models_answer_as_the_twin_on_every_node_also_after_a_rebuild() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let (one, two) = (open(&url, "n1").await, open(&url, "n2").await);
    fill(&*one).await;
    let memory = MemoryViews::new(Arc::clone(&one) as AnyStore);
    let head = *one.head().borrow();
    for store in [&one, &two] {
        store.wait_applied(head, LONG).await.expect("it catches up");
        store.head().wait_for(|seen| *seen >= head).await.expect("it is open");
        same_answers(&**store, &memory).await;
    }
    two.rebuild().await.expect("a rebuild, asked of either node");
    for store in [&one, &two] {
        store.wait_applied(head, LONG).await.expect("it catches up");
        same_answers(&**store, &memory).await;
    }
    let root = AgentId::root(workload(1));
    append(&*two, owned(root, 1, 3, vec![replied(1, "one more chapter\0 with a zero")])).await;
    let head = *two.head().borrow();
    one.wait_applied(head, LONG).await.expect("the other node waits for it");
    let found = one.search_history(local(), "more chapter".into(), None, Page::default()).await.expect("search");
    assert_eq!((found.items.len(), found.applied_seq), (1, head));
    one.close().await;
    append(&*two, owned(root, 1, 4, vec![replied(1, "and without the first node")])).await;
    two.wait_applied(GlobalSeq(head.0 + 1), LONG).await.expect("whoever is left folds");
    assert!(
        matches!(one.list_workloads(local(), None, Page::default()).await, Err(ViewError::Store(_))),
        "it is closed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_not_there_yet_is_waited_for_and_said() {
    let Some(server) = Server::shared() else { return };
    let store = open(&server.database(), "n1").await;
    let early = store.wait_applied(GlobalSeq(1), Duration::from_millis(1)).await;
    assert_eq!(early, Err(ViewError::Behind { wanted: GlobalSeq(1), applied: GlobalSeq(0) }));
    let (waited, ()) = tokio::join!(store.wait_applied(GlobalSeq(2), LONG), append(&*store, submission(workload(1))));
    waited.expect("it comes");
    let bad = Page { size: 1, token: Some("q00".into()) };
    assert_eq!(store.list_workloads(local(), None, bad).await, Err(ViewError::BadToken));
    let stranger = TenantId::new("stranger").expect("a good name");
    assert_eq!(store.workload(stranger, workload(1)).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_read_models_are_folded_again() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let store = open(&url, "n1").await;
    fill(&*store).await;
    let head = *store.head().borrow();
    store.wait_applied(head, LONG).await.expect("it catches up");
    let database = url.rsplit('/').next().expect("an address has one");
    server.sql(database, "UPDATE nexa.view_workloads SET body = '\\x00'");
    assert!(store.list_workloads(local(), None, Page::default()).await.is_err(), "damage is never handed out");
    let healed = async {
        while store.list_workloads(local(), None, Page::default()).await.map_or(true, |page| page.applied_seq < head) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, healed).await.expect("they are made again");
    same_answers(&*store, &MemoryViews::new(Arc::clone(&store) as AnyStore)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memories_are_those_of_the_twin_within_their_bound() {
    let Some(server) = Server::shared() else { return };
    let store = open(&server.database(), "n1").await;
    let root = AgentId::root(workload(1));
    append(&*store, submission(workload(1))).await;
    let stored = |number: usize, key: usize, forget: bool, scope| {
        let value = (!forget).then(|| Payload::new(vec![0x18, (number % 256) as u8]));
        let entry = Remembered { scope, key: format!("key {key}"), value };
        Fact::Agent(AgentEvent::MemoryStored { seq: Seq(number as u64), entry })
    };
    // More than fit, some of them forgotten, in a few appends.
    let mut facts: Vec<Fact> =
        (0..MEMORY_ENTRIES_MAX + 300).map(|n| stored(n, n, n % 7 == 3 && n > 10, MemoryScope::Tenant)).collect();
    facts.extend((0..50).map(|n| stored(n, n % 10, n % 4 == 3, MemoryScope::Workload)));
    let mut version = 1;
    for some in facts.chunks(400) {
        append(&*store, owned(root, 1, version, some.to_vec())).await;
        version += some.len() as u64;
    }
    let head = *store.head().borrow();
    let memory = MemoryViews::new(Arc::clone(&store) as AnyStore);
    for place in [
        MemoryPlace { tenant: local(), workload: None },
        MemoryPlace { tenant: local(), workload: Some(workload(1)) },
        MemoryPlace { tenant: TenantId::new("stranger").expect("a good name"), workload: None },
    ] {
        let kept = store.entries(place.clone(), None, head, LONG).await.expect("entries");
        assert_eq!(Ok(kept), memory.entries(place, None, head, LONG).await);
    }
    assert_eq!(store.digest(local()).await, memory.digest(local()).await);
}

//! What every store must do, as tests that any adapter can be put through.
//!
//! Each function takes an empty store and panics with the reason if a property of `nexa_ports::store` does not hold.
//! [`run_all`] takes a way to make stores and runs them all.

mod fixture;

use std::future::Future;
use std::sync::Arc;

use nexa_event::asks::{Asks, Gang};
use nexa_event::envelope::{FORMAT, Fact};
use nexa_event::fact::{AgentEvent, Input, WorkloadEvent};
use nexa_ports::store::{
    Append, AppendError, Appended, Birth, Cancelled, Guard, Place, Post, Posted, RowChange, Rows, Stamp, Store,
};
use nexa_types::limits::{INBOX_ENTRIES_MAX, INLINE_BYTES_MAX};
use nexa_types::{
    AgentId, AgentState, BlobHash, Epoch, GlobalSeq, InputId, Outcome, Payload, Seq, Spend, StreamId, TenantId,
    Timestamp, Version, Waiting, WorkloadId,
};

pub(crate) use fixture::trace;
use fixture::{asking, message, node, plain, row, submitted};
pub use fixture::{birth, emitted, owned, spawned, stamp, submission, workload};

/// A store behind its port.
pub type AnyStore = Arc<dyn Store>;

/// Puts an adapter through the whole contract; `make` gives an empty store each time.
pub async fn run_all<F, R>(make: F)
where
    F: Fn() -> R,
    R: Future<Output = AnyStore>,
{
    a_stream_counts_from_one_without_gap(make().await).await;
    a_stale_epoch_or_version_changes_nothing(make().await).await;
    an_append_is_stored_whole_or_not_at_all(make().await).await;
    appends_of_a_batch_are_judged_alone_and_in_order(make().await).await;
    an_input_enters_an_inbox_once_also_after_it_was_taken(make().await).await;
    an_inbox_is_bounded_for_posts_from_outside(make().await).await;
    an_end_is_final(make().await).await;
    a_workload_ends_together_with_its_root(make().await).await;
    whom_an_end_has_not_reached_may_still_bear(make().await).await;
    after_a_cancel_nothing_is_born_and_the_epoch_is_raised(make().await).await;
    a_cancel_says_what_it_met(make().await).await;
    a_cancel_that_waits_gets_the_raised_epoch(make().await).await;
    placing_raises_the_epoch_from_the_expected_one_only(make().await).await;
    who_posts_learns_whom_to_tell(make().await).await;
    rows_say_what_agents_ask_of_their_nodes(make().await).await;
    rows_are_listed_in_pages(make().await).await;
    large_facts_and_blobs_come_back_whole(make().await).await;
    facts_of_one_append_are_read_from_each_of_them(make().await).await;
    a_snapshot_is_replaced_by_a_newer_one_only(make().await).await;
    reading_order_holds_under_concurrent_writers(make().await).await;
}

async fn append(store: &AnyStore, append: Append) -> Result<Appended, AppendError> {
    let mut answers = store.append(vec![append]).await;
    assert_eq!(answers.len(), 1, "one answer an append");
    answers.pop().expect("counted above")
}

/// The agents of these tests are born on the first node.
fn accepted() -> Posted {
    Posted::Accepted { owner: Some(node("n1")) }
}

async fn submit(store: &AnyStore, number: u8) -> (WorkloadId, AgentId) {
    let workload = workload(number);
    append(store, submission(workload)).await.expect("a first submission is accepted");
    (workload, AgentId::root(workload))
}

async fn version_of(store: &AnyStore, agent: AgentId) -> Version {
    store.row(agent).await.expect("row").expect("the agent exists").version
}

/// ST-1.
pub async fn a_stream_counts_from_one_without_gap(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    for version in 1..=20 {
        let appended = append(&store, owned(root, 1, version, vec![emitted(version)])).await.expect("append");
        assert_eq!(appended.version, Version(version + 1));
    }
    let stream = StreamId::Agent(root);
    let facts = store.read(stream.clone(), Version(0), 100).await.expect("read");
    let versions: Vec<u64> = facts.iter().map(|fact| fact.envelope.header.version.0).collect();
    assert_eq!(versions, (1..=21).collect::<Vec<_>>());
    for fact in &facts {
        let header = &fact.envelope.header;
        assert_eq!((header.format, &header.stream, header.epoch), (FORMAT, &stream, Some(Epoch(1))));
        assert_eq!(fact.workload, Some(workload));
    }
    assert_eq!(facts[20].envelope.fact, emitted(20));
    // A page in the middle, one past the end, and a stream that nobody knows.
    let page = store.read(stream.clone(), Version(5), 3).await.expect("read");
    assert_eq!(page, facts[5..8]);
    assert_eq!(store.read(stream.clone(), Version(21), 3).await.expect("read"), vec![]);
    assert_eq!(store.read(stream, Version(99), 3).await.expect("read"), vec![]);
    let nobody = AgentId::from_bytes([0; 16]);
    assert_eq!(store.read(StreamId::Agent(nobody), Version(0), 3).await.expect("read"), vec![]);
    assert_eq!(append(&store, owned(nobody, 1, 0, vec![emitted(1)])).await, Err(AppendError::NoSuchAgent));
}

/// ST-2.
pub async fn a_stale_epoch_or_version_changes_nothing(store: AnyStore) {
    let (_, root) = submit(&store, 1).await;
    let wish = Place { agent: root, from: Epoch(1), node: node("n2") };
    assert_eq!(store.place(vec![wish]).await, Ok(vec![Ok(Epoch(2))]));
    let before = (store.row(root).await, store.scan(None, GlobalSeq(0), 100).await);

    let stale = Append { row: row(AgentState::Running), ..owned(root, 1, 1, vec![emitted(1)]) };
    let refused = AppendError::StaleEpoch { given: Epoch(1), current: Epoch(2) };
    assert_eq!(append(&store, stale.clone()).await, Err(refused));
    for expected in [0, 2, 7] {
        let conflicting = Append { expected: Version(expected), guard: Guard::Owner(Epoch(2)), ..stale.clone() };
        let refused = AppendError::VersionConflict { given: Version(expected), current: Version(1) };
        assert_eq!(append(&store, conflicting).await, Err(refused));
    }
    let ownerless = Append { guard: Guard::Version, ..stale };
    assert!(matches!(append(&store, ownerless).await, Err(AppendError::StaleEpoch { .. })));
    let again = append(&store, submission(workload(1))).await;
    assert_eq!(again, Err(AppendError::VersionConflict { given: Version(0), current: Version(1) }));
    assert_eq!(before, (store.row(root).await, store.scan(None, GlobalSeq(0), 100).await));
}

/// ST-3, first half.
pub async fn an_append_is_stored_whole_or_not_at_all(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    let (child, other) = (AgentId::child(root, Seq(1), 0), AgentId::child(root, Seq(1), 1));
    let everything = Append {
        row: Some(RowChange { state: AgentState::Waiting(Waiting::Children), due: Some(Timestamp(9)) }),
        posts: vec![message(child, 1), message(root, 2), message(AgentId::from_bytes([9; 16]), 3)],
        births: vec![birth(workload, child), birth(workload, other)],
        also: Some((StreamId::Cluster(TenantId::local()), vec![submitted(root)])),
        ..owned(root, 1, 1, vec![emitted(1), emitted(2)])
    };
    // The second child exists already, so nothing of the first try may stay.
    let twice = Append { births: vec![birth(workload, child), birth(workload, root)], ..everything.clone() };
    let before = store.scan(None, GlobalSeq(0), 100).await;
    assert!(matches!(append(&store, twice).await, Err(AppendError::VersionConflict { .. })));
    assert_eq!(store.scan(None, GlobalSeq(0), 100).await, before);
    assert_eq!(store.row(child).await, Ok(None));
    assert_eq!(store.inbox(root, 10).await, Ok(vec![]));

    let appended = append(&store, everything).await.expect("append");
    let facts = store.scan(None, GlobalSeq(0), 100).await.expect("scan");
    assert_eq!(
        appended,
        Appended { version: Version(3), position: facts.last().expect("facts").position, elsewhere: vec![] }
    );
    let order: Vec<String> = facts.iter().skip(2).map(|fact| fact.envelope.header.stream.to_string()).collect();
    let expected = [StreamId::Agent(root), StreamId::Agent(root), StreamId::Agent(child), StreamId::Agent(other)];
    let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    expected.push("cluster/local".into());
    assert_eq!(order, expected, "an agent's facts, then births, then the other stream");
    let parent = store.row(root).await.expect("row").expect("exists");
    assert_eq!((parent.state, parent.due), (AgentState::Waiting(Waiting::Children), Some(Timestamp(9))));
    let born = store.row(child).await.expect("row").expect("exists");
    assert_eq!((born.epoch, born.version, born.state), (Epoch(1), Version(1), AgentState::Placed));
    assert_eq!(store.inbox(child, 10).await.expect("inbox").len(), 1, "a post reaches an agent of the same append");

    let unplaced = AgentId::child(root, Seq(2), 0);
    let first = Birth { node: None, ..birth(workload, unplaced) };
    append(&store, Append { births: vec![first], ..owned(root, 1, 3, vec![]) }).await.expect("append");
    let born = store.row(unplaced).await.expect("row").expect("exists");
    assert_eq!((born.epoch, born.node, born.state), (Epoch(0), None, AgentState::Ready));
}

/// ST-3, second half.
pub async fn appends_of_a_batch_are_judged_alone_and_in_order(store: AnyStore) {
    let (_, root) = submit(&store, 1).await;
    let (_, other) = submit(&store, 2).await;
    let batch = vec![
        owned(root, 1, 1, vec![emitted(1)]),
        owned(root, 1, 1, vec![emitted(1)]),
        owned(root, 7, 2, vec![emitted(2)]),
        owned(root, 1, 2, vec![emitted(2)]),
        owned(other, 1, 1, vec![emitted(1)]),
    ];
    let answers = store.append(batch).await;
    let stored: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, false, false, true, true]);
    assert_eq!(version_of(&store, root).await, Version(3));
    assert_eq!(version_of(&store, other).await, Version(2));
    assert_eq!(store.append(vec![]).await, vec![]);
    // Without facts only the row changes.
    let newest = *store.head().borrow();
    let quiet = Append { row: row(AgentState::Running), ..owned(root, 1, 3, vec![]) };
    assert_eq!(append(&store, quiet).await, Ok(Appended { version: Version(3), position: newest, elsewhere: vec![] }));
}

/// ST-4.
pub async fn an_input_enters_an_inbox_once_also_after_it_was_taken(store: AnyStore) {
    let (_, root) = submit(&store, 1).await;
    let (first, second) = (message(root, 1), message(root, 2));
    for post in [&first, &second, &first] {
        assert_eq!(store.post(post.clone(), stamp(5)).await, Ok(accepted()));
    }
    let waiting = store.inbox(root, 10).await.expect("inbox");
    assert_eq!(waiting.iter().map(|entry| entry.id).collect::<Vec<_>>(), [first.id, second.id], "oldest first");
    assert_eq!((waiting[0].at, &waiting[0].input), (Timestamp(5), &first.input));
    assert_eq!(waiting.iter().map(|entry| entry.trace).collect::<Vec<_>>(), [first.trace, second.trace]);
    assert!(first.trace.is_some() && second.trace.is_none(), "one with a trace and one without");
    assert_eq!(store.inbox(root, 1).await.expect("inbox").len(), 1);
    assert_eq!(store.entry(root, second.id).await, Ok(Some(waiting[1].clone())));
    assert_eq!(store.entry(root, message(root, 3).id).await, Ok(None));

    // One that waits and one that has not come yet are taken; both stay known.
    let third = message(root, 3);
    let taking = Append { takes: vec![first.id, third.id], ..owned(root, 1, 1, vec![emitted(1)]) };
    append(&store, taking).await.expect("append");
    for post in [&first, &third] {
        assert_eq!(store.post(post.clone(), stamp(6)).await, Ok(accepted()));
    }
    let reposting = Append { posts: vec![first.clone(), second.clone()], ..owned(root, 1, 2, vec![]) };
    append(&store, reposting).await.expect("append");
    let waiting = store.inbox(root, 10).await.expect("inbox");
    assert_eq!(waiting.iter().map(|entry| entry.id).collect::<Vec<_>>(), [second.id]);
    assert_eq!(store.entry(root, first.id).await, Ok(None), "it was taken");
    let nobody = AgentId::from_bytes([0; 16]);
    assert_eq!(store.post(message(nobody, 1), stamp(6)).await, Ok(Posted::NoSuchAgent));
}

/// The bound of an inbox, and who is above it.
pub async fn an_inbox_is_bounded_for_posts_from_outside(store: AnyStore) {
    let (_, root) = submit(&store, 1).await;
    let numbered = |number: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Post { id: InputId::from_bytes(id), ..message(root, 1) }
    };
    let posts = (0..INBOX_ENTRIES_MAX).map(numbered).collect();
    append(&store, Append { posts, ..owned(root, 1, 1, vec![]) }).await.expect("append");
    assert_eq!(store.post(numbered(INBOX_ENTRIES_MAX), stamp(2)).await, Ok(Posted::InboxFull));
    assert_eq!(store.post(numbered(3), stamp(2)).await, Ok(accepted()), "one that waits already");
    let by_an_agent = Append { posts: vec![numbered(INBOX_ENTRIES_MAX + 1)], ..owned(root, 1, 1, vec![]) };
    append(&store, by_an_agent).await.expect("append");
    let takes = vec![numbered(0).id, numbered(1).id];
    append(&store, Append { takes, ..owned(root, 1, 1, vec![]) }).await.expect("append");
    assert_eq!(store.post(numbered(INBOX_ENTRIES_MAX), stamp(2)).await, Ok(accepted()));
}

/// The row that guards an agent also says whose it is, to whoever posts to it.
pub async fn who_posts_learns_whom_to_tell(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    let children: Vec<AgentId> = (0..4).map(|nth| AgentId::child(root, Seq(1), nth)).collect();
    let on = |child: usize, node| Birth { node, ..birth(workload, children[child]) };
    let births = vec![on(0, Some(node("n1"))), on(1, Some(node("n2"))), on(2, None), on(3, Some(node("n2")))];
    append(&store, Append { births, ..owned(root, 1, 1, vec![]) }).await.expect("append");
    append(&store, Append { row: row(AgentState::Failed), ..owned(children[3], 1, 1, vec![]) }).await.expect("append");
    let posts = children.iter().map(|child| message(*child, 1)).collect();
    let appended = append(&store, Append { posts, ..owned(root, 1, 1, vec![]) }).await.expect("append");
    assert_eq!(appended.elsewhere, [(children[1], node("n2"))], "neither its own, nor nobody's, nor who has ended");
    let again = Append { posts: vec![message(children[1], 1)], ..owned(root, 1, 1, vec![]) };
    let appended = append(&store, again).await.expect("append");
    assert_eq!(appended.elsewhere, [(children[1], node("n2"))], "also for what is there already");

    for (child, owner) in [(0, Some(node("n1"))), (1, Some(node("n2"))), (2, None)] {
        assert_eq!(store.post(message(children[child], 2), stamp(2)).await, Ok(Posted::Accepted { owner }));
    }
    let wish = Place { agent: children[2], from: Epoch(0), node: node("n3") };
    assert_eq!(store.place(vec![wish]).await, Ok(vec![Ok(Epoch(1))]));
    let of = |name| store.rows(Rows::Of(node(name)), None, 10);
    let ids = |rows: Vec<nexa_ports::store::AgentRow>| rows.into_iter().map(|row| row.agent).collect::<Vec<_>>();
    let mut mine = vec![root, children[0]];
    mine.sort_unstable();
    assert_eq!(ids(of("n1").await.expect("rows")), mine);
    assert_eq!(ids(of("n2").await.expect("rows")), [children[1]], "who has ended is nobody's concern");
    assert_eq!(ids(of("n3").await.expect("rows")), [children[2]]);
    let unknown = AgentId::from_bytes([0xee; 16]);
    let mut some = vec![children[3], children[0], unknown];
    let found = ids(store.rows(Rows::Agents(some.clone()), None, 10).await.expect("rows"));
    some.retain(|agent| *agent != unknown);
    some.sort_unstable();
    assert_eq!(found, some, "ended ones too");
    let rest = ids(store.rows(Rows::Agents(some.clone()), Some(some[0]), 10).await.expect("rows"));
    assert_eq!(rest, some[1..]);

    let owners = match store.cancel(workload, "enough".into(), stamp(4)).await.expect("cancel") {
        Cancelled::Accepted { agents } => agents,
        other => panic!("{other:?}"),
    };
    assert!(owners.contains(&(children[1], Some(node("n2")))) && owners.contains(&(children[2], Some(node("n3")))));
}

/// A terminal state stays.
pub async fn an_end_is_final(store: AnyStore) {
    let (_, root) = submit(&store, 1).await;
    assert_eq!(store.post(message(root, 1), stamp(2)).await, Ok(accepted()));
    let end = Append { row: row(AgentState::Succeeded), ..owned(root, 1, 1, vec![emitted(1)]) };
    append(&store, end).await.expect("append");
    let more = append(&store, owned(root, 1, 2, vec![emitted(2)])).await;
    assert_eq!(more, Err(AppendError::VersionConflict { given: Version(2), current: Version(2) }));
    assert_eq!(store.post(message(root, 2), stamp(2)).await, Ok(Posted::AgentEnded));
    assert_eq!(store.post(message(root, 1), stamp(2)).await, Ok(accepted()), "it came before the end");
    let wish = Place { agent: root, from: Epoch(1), node: node("n2") };
    assert_eq!(store.place(vec![wish]).await, Ok(vec![Err(Epoch(1))]));

    let (_, other) = submit(&store, 2).await;
    append(&store, Append { posts: vec![message(root, 5)], ..owned(other, 1, 1, vec![]) }).await.expect("append");
    assert_eq!(store.inbox(root, 10).await.expect("inbox").len(), 1, "a post to an ended agent is dropped");
}

fn workload_ended() -> Fact {
    Fact::Workload(WorkloadEvent::Ended { outcome: Outcome::Ok(Payload::new(vec![0xf6])), spend: Spend::default() })
}

/// `also`, and that a workload's end is final.
pub async fn a_workload_ends_together_with_its_root(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    let stream = StreamId::Workload(workload);
    let also = Some((stream.clone(), vec![workload_ended()]));
    let end = Append { row: row(AgentState::Succeeded), also, ..owned(root, 1, 1, vec![emitted(1)]) };
    append(&store, end).await.expect("append");
    let facts = store.read(stream.clone(), Version(0), 10).await.expect("read");
    assert_eq!(facts.len(), 2);
    assert_eq!((&facts[1].envelope.fact, facts[1].envelope.header.epoch), (&workload_ended(), None));
    let more = append(&store, plain(stream.clone(), 2, vec![workload_ended()])).await;
    assert_eq!(more, Err(AppendError::VersionConflict { given: Version(2), current: Version(2) }));
    let (_, other) = submit(&store, 2).await;
    let elsewhere = Append { also: Some((stream, vec![workload_ended()])), ..owned(other, 1, 1, vec![emitted(1)]) };
    assert!(matches!(append(&store, elsewhere).await, Err(AppendError::VersionConflict { .. })));
    assert_eq!(version_of(&store, other).await, Version(1));
    assert_eq!(store.cancel(workload, "late".into(), stamp(3)).await, Ok(Cancelled::Ended));
}

/// A workload's end goes from parent to child, so those below may be born after it.
pub async fn whom_an_end_has_not_reached_may_still_bear(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    let (child, grandchild) = (AgentId::child(root, Seq(1), 0), AgentId::child(root, Seq(1), 1));
    let births = vec![birth(workload, child)];
    append(&store, Append { births, ..owned(root, 1, 1, vec![emitted(1)]) }).await.expect("append");
    let also = Some((StreamId::Workload(workload), vec![workload_ended()]));
    let posts = vec![message(child, 1)];
    let end = Append { row: row(AgentState::Failed), also, posts, ..owned(root, 1, 2, vec![emitted(2)]) };
    append(&store, end).await.expect("append");
    let births = vec![birth(workload, grandchild)];
    append(&store, Append { births, ..owned(child, 1, 1, vec![emitted(1)]) }).await.expect("it was not reached yet");
    let end =
        Append { row: row(AgentState::Cancelled), posts: vec![message(grandchild, 1)], ..owned(child, 1, 2, vec![]) };
    append(&store, end).await.expect("append");
    assert_eq!(store.inbox(grandchild, 10).await.expect("inbox").len(), 1, "and is told in its turn");
}

/// ST-6.
pub async fn after_a_cancel_nothing_is_born_and_the_epoch_is_raised(store: AnyStore) {
    let (cancelled, root) = submit(&store, 1).await;
    let (untouched, other) = submit(&store, 2).await;
    let (child, ended) = (AgentId::child(root, Seq(1), 0), AgentId::child(root, Seq(1), 1));
    let births = vec![birth(cancelled, child), birth(cancelled, ended)];
    append(&store, Append { births, ..owned(root, 1, 1, vec![emitted(1)]) }).await.expect("append");
    append(&store, Append { row: row(AgentState::Failed), ..owned(ended, 1, 1, vec![]) }).await.expect("append");

    let answer = store.cancel(cancelled, "enough".into(), stamp(4)).await.expect("cancel");
    let mut agents = vec![root, child];
    agents.sort_unstable();
    let agents = agents.into_iter().map(|agent| (agent, Some(node("n1")))).collect();
    assert_eq!(answer, Cancelled::Accepted { agents });
    for agent in [root, child] {
        let row = store.row(agent).await.expect("row").expect("exists");
        assert_eq!((row.epoch, row.cancelled, row.node), (Epoch(2), true, Some(node("n1"))));
        let waiting = store.inbox(agent, 10).await.expect("inbox");
        assert_eq!(waiting[0].id, InputId::cancel(agent));
        assert_eq!(waiting[0].input, Input::Cancel { reason: "enough".into(), epoch: Epoch(2) });
    }
    let late = Append { births: vec![birth(cancelled, AgentId::child(root, Seq(2), 0))], ..owned(root, 1, 2, vec![]) };
    assert!(matches!(append(&store, late.clone()).await, Err(AppendError::StaleEpoch { .. })));
    let under_the_new_epoch = Append { guard: Guard::Owner(Epoch(2)), ..late };
    assert_eq!(append(&store, under_the_new_epoch).await, Err(AppendError::WorkloadCancelled));
    append(&store, owned(root, 2, 2, vec![emitted(3)])).await.expect("clean-up goes on under the new epoch");

    let row = store.row(ended).await.expect("row").expect("exists");
    assert_eq!((row.epoch, row.cancelled), (Epoch(1), false), "who has ended is left alone");
    append(
        &store,
        Append { births: vec![birth(untouched, AgentId::child(other, Seq(1), 0))], ..owned(other, 1, 1, vec![]) },
    )
    .await
    .expect("another workload goes on");
    let facts = store.read(StreamId::Workload(cancelled), Version(1), 10).await.expect("read");
    let wish = Fact::Workload(WorkloadEvent::CancelRequested { reason: "enough".into() });
    assert_eq!(facts.iter().map(|fact| &fact.envelope.fact).collect::<Vec<_>>(), [&wish]);
}

/// The answers of a cancel.
pub async fn a_cancel_says_what_it_met(store: AnyStore) {
    assert_eq!(store.cancel(workload(9), String::new(), stamp(1)).await, Ok(Cancelled::NoSuchWorkload));
    let (cancelled, root) = submit(&store, 1).await;
    let first = store.cancel(cancelled, "enough".into(), stamp(1)).await;
    assert_eq!(first, Ok(Cancelled::Accepted { agents: vec![(root, Some(node("n1")))] }));
    assert_eq!(store.cancel(cancelled, "again".into(), stamp(2)).await, Ok(Cancelled::Already));
    assert_eq!(version_of(&store, root).await, Version(1));
    let also = Some((StreamId::Workload(cancelled), vec![workload_ended()]));
    let end = Append { row: row(AgentState::Cancelled), also, ..owned(root, 2, 1, vec![emitted(1)]) };
    append(&store, end).await.expect("append");
    assert_eq!(store.cancel(cancelled, "again".into(), stamp(3)).await, Ok(Cancelled::Already));
}

/// A parent's cancel and the workload's are one entry; the later epoch counts.
pub async fn a_cancel_that_waits_gets_the_raised_epoch(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    let input = Input::Cancel { reason: "parent".into(), epoch: Epoch(1) };
    let posts = vec![Post { to: root, id: InputId::cancel(root), input, trace: None }];
    append(&store, Append { posts, ..owned(root, 1, 1, vec![]) }).await.expect("append");
    store.cancel(workload, "enough".into(), Stamp { trace: trace(1), ..stamp(4) }).await.expect("cancel");
    let waiting = store.inbox(root, 10).await.expect("inbox");
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].trace, trace(1), "and it comes from there");
    assert_eq!(waiting[0].input, Input::Cancel { reason: "enough".into(), epoch: Epoch(2) });
}

/// Ownership changes hands by the expected epoch.
pub async fn placing_raises_the_epoch_from_the_expected_one_only(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    let waiting = AgentId::child(root, Seq(1), 0);
    let first = Birth { node: None, ..birth(workload, waiting) };
    append(&store, Append { births: vec![first], ..owned(root, 1, 1, vec![]) }).await.expect("append");
    let place = |agent, from| Place { agent, from: Epoch(from), node: node("n2") };
    let nobody = AgentId::from_bytes([0; 16]);
    let answers = store.place(vec![place(waiting, 0), place(waiting, 0), place(root, 7), place(nobody, 3)]).await;
    assert_eq!(answers, Ok(vec![Ok(Epoch(1)), Err(Epoch(1)), Err(Epoch(1)), Err(Epoch(0))]));
    let placed = store.row(waiting).await.expect("row").expect("exists");
    assert_eq!((placed.node, placed.state, placed.version), (Some(node("n2")), AgentState::Placed, Version(1)));
    store.cancel(workload, "enough".into(), stamp(2)).await.expect("cancel");
    assert_eq!(store.place(vec![place(root, 2)]).await, Ok(vec![Ok(Epoch(3))]), "somebody must clean up");
}

/// Who places an agent knows by its row what it asks of its node.
pub async fn rows_say_what_agents_ask_of_their_nodes(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    let asks = Asks {
        labels: [("zone".to_owned(), "eu".to_owned()), ("gpu".to_owned(), String::new())].into(),
        cpu_milli: Some(1_500),
        memory_bytes: Some(1 << 40),
        gang: Some(Gang { name: "readers".into(), members: 2 }),
        until: Some(Timestamp(7)),
    };
    let children: Vec<AgentId> = (0..3).map(|branch| AgentId::child(root, Seq(1), branch)).collect();
    let births = (children.iter().zip([Some(asks.clone()), None, Some(Asks::default())]))
        .map(|(agent, asks)| Birth { node: None, ..asking(workload, *agent, asks) })
        .collect();
    append(&store, Append { births, ..owned(root, 1, 1, vec![]) }).await.expect("append");
    store.place(vec![Place { agent: children[0], from: Epoch(0), node: node("n2") }]).await.expect("place");
    let row = store.row(children[0]).await.expect("row").expect("exists");
    assert_eq!((row.asks, row.epoch), (Some(asks), Epoch(1)));
    let unplaced = store.rows(Rows::Unplaced, None, 10).await.expect("rows");
    let mut unplaced: Vec<_> = unplaced.into_iter().map(|row| (row.agent, row.asks)).collect();
    let mut expected = vec![(children[1], None), (children[2], Some(Asks::default()))];
    unplaced.sort_by_key(|(agent, _)| *agent);
    expected.sort_by_key(|(agent, _)| *agent);
    assert_eq!(unplaced, expected);
    assert_eq!(store.row(root).await.expect("row").expect("exists").asks, None);
}

/// Lists of rows.
pub async fn rows_are_listed_in_pages(store: AnyStore) {
    let (workload, root) = submit(&store, 1).await;
    submit(&store, 2).await;
    let children: Vec<AgentId> = (0..10).map(|branch| AgentId::child(root, Seq(1), branch)).collect();
    let births = children.iter().map(|agent| Birth { node: None, ..birth(workload, *agent) }).collect();
    append(&store, Append { births, ..owned(root, 1, 1, vec![]) }).await.expect("append");
    for (index, agent) in children.iter().enumerate() {
        let wish = Place { agent: *agent, from: Epoch(0), node: node("n1") };
        if index < 6 {
            store.place(vec![wish]).await.expect("place");
            let state = if index == 0 { AgentState::Succeeded } else { AgentState::Waiting(Waiting::Timer) };
            let change = Some(RowChange { state, due: Some(Timestamp(10 * index as u64)) });
            append(&store, Append { row: change, ..owned(*agent, 1, 1, vec![]) }).await.expect("append");
        }
    }
    let listed = async |which: Rows| {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = store.rows(which.clone(), after, 3).await.expect("rows");
            found.extend(page.iter().map(|row| row.agent));
            match page.last() {
                Some(last) if page.len() == 3 => after = Some(last.agent),
                _ => return found,
            }
        }
    };
    let sorted = |agents: &[AgentId]| {
        let mut agents = agents.to_vec();
        agents.sort_unstable();
        agents
    };
    assert_eq!(listed(Rows::Workload(workload)).await, sorted(&[&children[..], &[root]].concat()));
    assert_eq!(listed(Rows::Unplaced).await, sorted(&children[6..]));
    assert_eq!(listed(Rows::Due(Timestamp(30))).await, sorted(&children[1..4]), "at or before, and not ended");
    assert_eq!(listed(Rows::Live).await.len(), 11);
}

/// What does not fit into an event, and bytes by their hash.
pub async fn large_facts_and_blobs_come_back_whole(store: AnyStore) {
    let (_, root) = submit(&store, 1).await;
    let fact = |len: usize| {
        let value = Payload::new(vec![0x61; len]);
        Fact::Agent(AgentEvent::Emitted { seq: Seq(1), channel: "main".into(), value })
    };
    let sizes = [INLINE_BYTES_MAX - 100, INLINE_BYTES_MAX + 1, INLINE_BYTES_MAX + 1, 3 << 20];
    let facts: Vec<Fact> = sizes.into_iter().map(fact).collect();
    append(&store, owned(root, 1, 1, facts.clone())).await.expect("append");
    let read = store.read(StreamId::Agent(root), Version(1), 10).await.expect("read");
    assert!(read.into_iter().map(|fact| fact.envelope.fact).eq(facts.clone()));
    let scanned = store.scan(None, GlobalSeq(2), 10).await.expect("scan");
    assert!(scanned.into_iter().map(|fact| fact.envelope.fact).eq(facts));

    let tenant = TenantId::local();
    let hash = store.put_blob(tenant.clone(), b"module".to_vec()).await.expect("put");
    assert_eq!(store.put_blob(tenant.clone(), b"module".to_vec()).await, Ok(hash));
    assert_eq!(store.blob(tenant.clone(), hash).await, Ok(Some(b"module".to_vec())));
    assert_eq!(store.blob(tenant, BlobHash::from_bytes([0; 32])).await, Ok(None));
    let stranger = TenantId::new("stranger").expect("a good name");
    assert_eq!(store.blob(stranger, hash).await, Ok(None), "another tenant's blob is not there");
}

/// A page may begin and end within an append, whatever a store keeps together.
pub async fn facts_of_one_append_are_read_from_each_of_them(store: AnyStore) {
    let agents = [submit(&store, 1).await, submit(&store, 2).await];
    let mut versions = [1, 1];
    for (turn, count) in [3_u64, 1, 2, 24, 2, 5, 1, 40].into_iter().enumerate() {
        let (turn, version) = (turn % 2, versions[turn % 2]);
        let facts = (version..version + count).map(|seq| {
            // Now and then one that is longer than the others together.
            let value = Payload::new(vec![0x61; if seq % 7 == 4 { 1_500 } else { 10 }]);
            Fact::Agent(AgentEvent::Emitted { seq: Seq(seq), channel: "main".into(), value })
        });
        append(&store, owned(agents[turn].1, 1, version, facts.collect())).await.expect("append");
        versions[turn] += count;
    }
    let all = store.scan(None, GlobalSeq(0), 1_000).await.expect("scan");
    let facts = versions[0] + versions[1] + 2;
    assert!(all.iter().map(|fact| fact.position.0).eq(1..=facts));
    let (workload, agent) = agents[1];
    let of_one: Vec<_> = all.iter().filter(|fact| fact.workload == Some(workload)).cloned().collect();
    let stream = StreamId::Agent(agent);
    let grown: Vec<_> = of_one.iter().filter(|fact| fact.envelope.header.stream == stream).cloned().collect();
    assert!(grown.iter().map(|fact| fact.envelope.header.version.0).eq(1..=versions[1]));
    for limit in [1, 2, 5, 1_000] {
        for after in 0..=facts {
            let position = GlobalSeq(after);
            let page = all.iter().filter(|fact| fact.position > position).take(limit);
            assert!(store.scan(None, position, limit).await.expect("scan").iter().eq(page), "{limit} after {after}");
            let page = of_one.iter().filter(|fact| fact.position > position).take(limit);
            let scanned = store.scan(Some(workload), position, limit).await.expect("scan");
            assert!(scanned.iter().eq(page), "{limit} after {after} of {workload}");
            let page = grown.iter().skip(usize::try_from(after).expect("a small number")).take(limit);
            let read = store.read(stream.clone(), Version(after), limit).await.expect("read");
            assert!(read.iter().eq(page), "{limit} after version {after}");
        }
    }
}

/// Snapshots.
pub async fn a_snapshot_is_replaced_by_a_newer_one_only(store: AnyStore) {
    let (_, root) = submit(&store, 1).await;
    assert_eq!(store.snapshot(root).await, Ok(None));
    for (version, bytes) in [(5, b"five".to_vec()), (3, b"three".to_vec())] {
        store.put_snapshot(root, Version(version), bytes).await.expect("put");
        assert_eq!(store.snapshot(root).await, Ok(Some((Version(5), b"five".to_vec()))));
    }
    store.put_snapshot(root, Version(8), vec![8; 1 << 20]).await.expect("put");
    assert_eq!(store.snapshot(root).await, Ok(Some((Version(8), vec![8; 1 << 20]))));
}

/// ST-7.
pub async fn reading_order_holds_under_concurrent_writers(store: AnyStore) {
    const WRITERS: u8 = 8;
    const FACTS: u64 = 30;
    let mut heads = store.head();
    let writers: Vec<_> = (1..=WRITERS)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let (_, root) = submit(&store, number).await;
                for version in 1..=FACTS {
                    append(&store, owned(root, 1, version, vec![emitted(version)])).await.expect("append");
                }
            })
        })
        .collect();
    // Reads along while they write, as a projector does.
    let total = u64::from(WRITERS) * (FACTS + 2);
    let mut seen = Vec::new();
    while (seen.len() as u64) < total {
        let after = GlobalSeq(seen.len() as u64);
        heads.wait_for(|head| *head > after).await.expect("the store is there");
        let facts = store.scan(None, after, 7).await.expect("scan");
        assert!(!facts.is_empty(), "what the head tells can be read");
        seen.extend(facts);
    }
    for writer in writers {
        writer.await.expect("no writer fails");
    }
    assert_eq!(store.scan(None, GlobalSeq(0), 10_000).await.expect("scan"), seen, "what was read stays as it was");
    for (index, fact) in seen.iter().enumerate() {
        assert_eq!(fact.position, GlobalSeq(index as u64 + 1), "no position is skipped");
    }
    for number in 1..=WRITERS {
        let of_one = store.scan(Some(workload(number)), GlobalSeq(0), 1_000).await.expect("scan");
        assert!(of_one.iter().eq(seen.iter().filter(|fact| fact.workload == Some(workload(number)))));
        let root = StreamId::Agent(AgentId::root(workload(number)));
        let versions = seen.iter().filter(|fact| fact.envelope.header.stream == root);
        assert!(versions.map(|fact| fact.envelope.header.version.0).eq(1..=FACTS + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexa_ports::memory::MemoryStore;
    use nexa_ports::store::StoreError;

    #[tokio::test]
    async fn the_store_in_memory_keeps_the_contract() {
        run_all(async || Arc::new(MemoryStore::new()) as AnyStore).await;
    }

    #[tokio::test]
    async fn an_ordered_fault_hits_one_writing_call() {
        let memory = Arc::new(MemoryStore::new());
        let store = Arc::clone(&memory) as AnyStore;
        memory.fail_next(StoreError::DiskFull);
        let refused = append(&store, submission(workload(1))).await;
        assert_eq!(refused, Err(AppendError::Store(StoreError::DiskFull)));
        memory.lose_next_answer();
        let lost = append(&store, submission(workload(1))).await;
        assert!(matches!(lost, Err(AppendError::Store(StoreError::Ambiguous { .. }))));
        assert_eq!(version_of(&store, AgentId::root(workload(1))).await, Version(1), "it was stored all the same");
        assert!(matches!(append(&store, submission(workload(1))).await, Err(AppendError::VersionConflict { .. })));
    }
}

//! The chain by itself: order, own layers, retry, cache, timeout. No store, no door.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nexa_ports::clock::SystemClock;
use nexa_ports::dice::SeededDice;
use nexa_ports::view::Listed;
use nexa_proto::refusal::Refusal;
use nexa_types::{GlobalSeq, ModuleHash, Reason, RequestId, Timestamp, WorkloadId};
use tower::layer::layer_fn;
use tower::util::{BoxCloneSyncService, service_fn};

use super::*;

type Seen = Arc<Mutex<Vec<String>>>;

fn cancel() -> Cancel {
    Cancel { request: RequestId::from_bytes([1; 16]), workload: WorkloadId::from_bytes([1; 16]), reason: String::new() }
}

fn get_program() -> GetProgram {
    GetProgram { module: ModuleHash::from_bytes([7; 32]) }
}

/// An end that answers by a function of the attempt's number.
fn end<F>(answer: F) -> (Next, Arc<AtomicU32>)
where
    F: Fn(u32, &Call) -> Result<Reply, Refusal> + Send + Sync + 'static,
{
    let (count, answer) = (Arc::new(AtomicU32::new(0)), Arc::new(answer));
    let counted = count.clone();
    let service = service_fn(move |call: Call| {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = answer(number, &call);
        async move { answer }
    });
    (BoxCloneSyncService::new(service), count)
}

fn builder(end: Next) -> Builder {
    let limits =
        Limits { retry_wait: Duration::from_millis(1), call_time_max: Duration::from_millis(200), ..Limits::default() };
    Mediator::builder(end, Arc::new(SystemClock::default()), Arc::new(SeededDice::new(1))).limits(limits)
}

fn program() -> Reply {
    Reply::Program(ProgramInfo {
        module: ModuleHash::from_bytes([7; 32]),
        name: "p".into(),
        entries: Arc::new([]),
        put_at: Timestamp(1),
    })
}

/// A layer that notes when it is entered.
fn noting(seen: &Seen, order: u16, name: &'static str, only_commands: bool) -> Layer {
    let seen = seen.clone();
    let can_handle = move |message: &Message| !only_commands || matches!(message, Message::Command(_));
    let layer = layer_fn(move |next: Next| {
        let seen = seen.clone();
        service_fn(move |call: Call| {
            let who = call.identity.as_ref().map_or("nobody", |_| "somebody");
            seen.lock().expect("unpoisoned").push(format!("{name} for {who}"));
            next.clone().oneshot(call)
        })
    });
    Layer::new(order, name, can_handle, layer)
}

#[tokio::test]
async fn own_layers_go_in_at_their_number_and_only_where_they_can() {
    let (end, _) = end(|_, call| match &call.message {
        Message::Command(_) => Ok(Reply::Cancelled(())),
        Message::Query(_) => Ok(program()),
    });
    let seen = Seen::default();
    let mediator = builder(end)
        .layer(noting(&seen, 999, "last", false))
        .layer(noting(&seen, 175, "commands only", true))
        .layer(noting(&seen, 10, "first", false))
        .layer(noting(&seen, 175, "second at one number", false))
        .build();
    mediator.ask(cancel()).await.expect("answered");
    let expected =
        ["first for nobody", "commands only for somebody", "second at one number for somebody", "last for somebody"];
    assert_eq!(*seen.lock().expect("unpoisoned"), expected);
    seen.lock().expect("unpoisoned").clear();
    mediator.ask(get_program()).await.expect("answered");
    let expected = ["first for nobody", "second at one number for somebody", "last for somebody"];
    assert_eq!(*seen.lock().expect("unpoisoned"), expected);
}

#[tokio::test]
async fn tower_s_own_layers_fit() {
    let (end, count) = end(|_, _| Ok(Reply::Cancelled(())));
    let seen = Seen::default();
    let noted = seen.clone();
    let layer = tower::util::MapRequestLayer::new(move |call: Call| {
        noted.lock().expect("unpoisoned").push(call.message.name().to_owned());
        call
    });
    let mediator = builder(end).layer(Layer::new(250, "tower's", |_| true, layer)).build();
    mediator.ask(cancel()).await.expect("answered");
    assert_eq!((count.load(Ordering::SeqCst), seen.lock().expect("unpoisoned").len()), (1, 1));
}

#[tokio::test]
async fn a_command_is_tried_again_while_the_store_is_away_and_not_for_ever() {
    let away = |_: &Call| Err(Refusal::new(Reason::StoreUnavailable, "away"));
    let (back, count) = end(move |number, call| if number < 3 { away(call) } else { Ok(Reply::Cancelled(())) });
    builder(back).build().ask(cancel()).await.expect("the third attempt works");
    assert_eq!(count.load(Ordering::SeqCst), 3);

    let (gone, count) = end(move |_, call| away(call));
    let refusal = builder(gone).build().ask(cancel()).await.expect_err("still away");
    assert_eq!(count.load(Ordering::SeqCst), Limits::default().attempts_max);
    assert_eq!(refusal.reason, Reason::StoreUnavailable);
    assert!(refusal.retry_after.is_some(), "the client is told when to come back");

    let (gone, count) = end(move |_, call| away(call));
    builder(gone).build().ask(get_program()).await.expect_err("queries are not tried again");
    assert_eq!(count.load(Ordering::SeqCst), 1);

    let (refusing, count) = end(|_, _| Err(Refusal::new(Reason::AlreadyEnded, "ended")));
    builder(refusing).build().ask(cancel()).await.expect_err("a refusal stands");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_a_program_offers_is_kept_for_each_principal_and_nothing_else_is() {
    let (end, count) = end(|_, call| match &call.message {
        Message::Query(Query::GetProgram(_)) => Ok(program()),
        _ => Ok(Reply::Workloads(Listed { items: Vec::new(), next: None, applied_seq: GlobalSeq(0) })),
    });
    let people = ["ann", "bob"].map(|name| {
        let principal = nexa_types::PrincipalId::new(name).expect("a good name");
        Tokens::line(name, &Identity { principal, ..Identity::local() })
    });
    let tokens = Arc::new(Tokens::parse(&people.join("\n")).expect("a good file"));
    let mediator = builder(end).tokens(tokens).build();
    let asked = async |name: &'static str| {
        let dress = move |call: &mut Call| call.credentials = Credentials::Bearer(name.to_owned());
        mediator.ask_as(get_program(), dress).await.expect("answered");
        count.load(Ordering::SeqCst)
    };
    assert_eq!([asked("ann").await, asked("ann").await, asked("bob").await, asked("bob").await], [1, 1, 2, 2]);
    for expected in [3, 4] {
        let dress = |call: &mut Call| call.credentials = Credentials::Bearer("ann".into());
        mediator.ask_as(ListWorkloads::default(), dress).await.expect("answered");
        assert_eq!(count.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn a_call_ends_with_its_time_and_a_watch_does_not() {
    let never = BoxCloneSyncService::new(service_fn(|call: Call| async move {
        if call.message.is_watch() {
            // Longer than any call may take.
            tokio::time::sleep(Duration::from_millis(300)).await;
            return Ok(Reply::WorkloadFrames(Frames::new(futures::stream::empty())));
        }
        std::future::pending().await
    }));
    let mediator = builder(never).build();
    let refusal = mediator.ask(get_program()).await.expect_err("too late");
    assert_eq!(refusal.reason, Reason::DeadlineExceeded);
    let patience = |call: &mut Call| call.patience = Some(Duration::from_millis(1));
    let refusal = mediator.ask_as(cancel(), patience).await.expect_err("too late");
    assert!(refusal.message.contains("1ms"), "{refusal}");
    let watch = WatchWorkload { workload: WorkloadId::from_bytes([1; 16]), from: WatchFrom::Start, chunks: false };
    mediator.ask(watch).await.expect("a watch has no deadline");
}

#[tokio::test]
async fn a_reply_to_something_else_is_a_bug_and_no_panic() {
    let (end, _) = end(|_, _| Ok(Reply::Sent(())));
    assert_eq!(builder(end).build().ask(cancel()).await.expect_err("a bug").reason, Reason::Internal);
}

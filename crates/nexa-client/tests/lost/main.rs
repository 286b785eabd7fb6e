//! Calls whose connection ends under them, in every way that one can, at real doors.
//!
//! What must hold: whoever has another door, or the same one again, gets the answer and does not notice; a command is sent under
//! its one request id; and what a server says is never taken for a connection that ended.

mod door;

use std::time::Duration;

use door::{Act, Door, End, Once};
use futures::{TryStreamExt, future};
use nexa_client::{Client, ClientError, From, Options, Patience};
use nexa_proto::v1;
use nexa_proto::v1::watch_frame::Frame;
use prost::Message;

/// Every way in which a call that has no answer yet can be lost.
fn losses() -> Vec<Act> {
    let silent = |once, end| Act { once, sends: None, end };
    let begun = |end| Act { once: Once::Read(1), sends: Some(Vec::new()), end };
    let mut all = vec![
        silent(Once::Accepted, End::Closed),
        silent(Once::Accepted, End::Cut),
        silent(Once::Asked, End::Closed),
        silent(Once::Asked, End::Cut),
        silent(Once::Asked, End::Away(door::NO_ERROR, false)),
        silent(Once::Asked, End::Reset(door::REFUSED_STREAM)),
        silent(Once::Read(1), End::Closed),
        silent(Once::Read(1), End::Cut),
        silent(Once::Read(1), End::Away(door::NO_ERROR, false)),
        silent(Once::Read(1), End::Away(door::NO_ERROR, true)),
        silent(Once::Read(1), End::Away(door::INTERNAL_ERROR, false)),
        begun(End::Ended),
    ];
    let half = [End::HalfClosed, End::HalfEnded, End::Closed, End::Cut, End::Away(door::NO_ERROR, true)];
    all.extend(half.map(begun));
    let reasons = [
        door::NO_ERROR,
        door::PROTOCOL_ERROR,
        door::INTERNAL_ERROR,
        door::STREAM_CLOSED,
        door::REFUSED_STREAM,
        door::CANCEL,
    ];
    all.extend(reasons.map(|reason| silent(Once::Read(1), End::Reset(reason))));
    all.extend(reasons.map(|reason| begun(End::Reset(reason))));
    all
}

/// A client of these doors that does not wait long between two tries.
async fn client(doors: &[&Door]) -> Client {
    let patience = Patience { first_wait: Duration::from_millis(2), ..Patience::default() };
    patient(doors, patience).await
}

async fn patient(doors: &[&Door], patience: Patience) -> Client {
    let addresses: Vec<&str> = doors.iter().map(|door| door.address.as_str()).collect();
    let options = Options { patience, ..Options::default() };
    Client::connect(&addresses.join(","), options).await.expect("the first one listens")
}

/// A submission, and what came of it.
async fn submit(client: &Client) -> Result<String, ClientError> {
    let request = v1::WorkloadServiceSubmitRequest::default();
    client.submit(request).await.map(|answer| answer.workload_id)
}

fn accepts() -> Act {
    let answer = v1::WorkloadServiceSubmitResponse { workload_id: "it".to_owned(), ..Default::default() };
    Act::answer(vec![answer.encode_to_vec()])
}

/// The request ids of the submissions that a door has read.
fn ids(door: &Door) -> Vec<String> {
    let read = |bytes: Vec<u8>| v1::WorkloadServiceSubmitRequest::decode(&bytes[..]).expect("a submission").request_id;
    door.asked().into_iter().map(read).collect()
}

#[tokio::test]
async fn a_call_that_is_lost_at_one_door_is_answered_at_the_next_under_the_same_request_id() {
    for loss in losses() {
        let (bad, good) = (Door::open(vec![loss.clone()]).await, Door::open(vec![accepts()]).await);
        let client = client(&[&bad, &good]).await;
        let answer = submit(&client).await.unwrap_or_else(|error| panic!("{loss:?}: {error}: {error:?}"));
        assert_eq!((answer.as_str(), client.sent_again()), ("it", 1), "{loss:?}");
        let (lost, answered) = (ids(&bad), ids(&good));
        assert_eq!(answered.len(), 1, "{loss:?}");
        // Of a stream that is reset after its head, the rest may still come.
        assert!(lost.len() == 1 || (lost.is_empty() && !matches!(loss.once, Once::Read(_))), "{loss:?}");
        assert!(lost.iter().all(|id| *id == answered[0]) && !answered[0].is_empty(), "{loss:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_lost_at_the_only_door_is_asked_there_again() {
    for loss in losses() {
        let only = Door::open(vec![loss.clone(), accepts()]).await;
        let client = client(&[&only]).await;
        submit(&client).await.unwrap_or_else(|error| panic!("{loss:?}: {error}: {error:?}"));
        let ids = ids(&only);
        assert!(ids.iter().all(|id| *id == ids[0]), "{loss:?}: {ids:?}");
    }
}

#[tokio::test]
async fn all_calls_in_flight_on_a_connection_that_goes_away_are_answered_elsewhere() {
    const CALLS: usize = 16;
    for end in [End::Away(door::NO_ERROR, false), End::Away(door::NO_ERROR, true), End::Closed, End::Cut] {
        let bad = Door::open(vec![Act { once: Once::Read(CALLS), sends: None, end }]).await;
        let good = Door::open(vec![accepts()]).await;
        let client = client(&[&bad, &good]).await;
        let answers = future::join_all((0..CALLS).map(|_| submit(&client))).await;
        assert!(answers.iter().all(Result::is_ok), "{end:?}: {answers:?}");
        let (mut lost, mut answered) = (ids(&bad), ids(&good));
        lost.sort();
        answered.sort();
        assert_eq!((lost.len(), &lost), (CALLS, &answered), "{end:?}");
    }
}

#[tokio::test]
async fn what_a_server_says_stands_whatever_its_words() {
    let words = [
        (1, "operation was canceled"),
        (2, "transport error"),
        (13, "h2 protocol error: http2 error"),
        (9, "connection closed"),
    ];
    for (code, text) in words {
        for sends in [None, Some(Vec::new())] {
            let says = Act { once: Once::Read(1), sends, end: End::Said(code, text) };
            let (first, second) = (Door::open(vec![says]).await, Door::open(vec![accepts()]).await);
            let client = client(&[&first, &second]).await;
            let error = submit(&client).await.expect_err("it said no");
            assert!(matches!(&error, ClientError::Transport { message, .. } if message == text), "{error:?}");
            assert_eq!((first.asked().len(), second.asked().len()), (1, 0), "{code} {text}");
        }
    }
}

#[tokio::test]
async fn who_is_told_to_send_less_asks_the_same_door_again() {
    let calm = Act { once: Once::Read(1), sends: None, end: End::Reset(door::ENHANCE_YOUR_CALM) };
    let (first, second) = (Door::open(vec![calm, accepts()]).await, Door::open(vec![accepts()]).await);
    let client = client(&[&first, &second]).await;
    submit(&client).await.expect("there is room again");
    assert_eq!((first.asked().len(), second.asked().len()), (2, 0));
}

#[tokio::test]
async fn a_deadline_that_passes_is_not_a_lost_connection_and_the_next_call_asks_elsewhere() {
    let silent = Act { once: Once::Read(1), sends: None, end: End::Silence };
    let (first, second) = (Door::open(vec![silent]).await, Door::open(vec![accepts()]).await);
    let patience = Patience { deadline: Duration::from_millis(300), ..Patience::default() };
    let client = patient(&[&first, &second], patience).await;
    assert!(matches!(submit(&client).await, Err(ClientError::Deadline)));
    assert_eq!((first.asked().len(), second.asked().len(), client.sent_again()), (1, 0, 0));
    // With time enough, on a machine that is busy, for what the other door does.
    let answer = tokio::time::timeout(Duration::from_secs(60), async { while submit(&client).await.is_err() {} });
    answer.await.expect("the other door answers");
    assert_eq!(first.asked().len(), 1);
}

#[tokio::test]
async fn where_every_door_loses_every_call_asking_ends_after_so_many_rounds() {
    let cut = || vec![Act { once: Once::Read(1), sends: None, end: End::Cut }];
    let doors = [Door::open(cut()).await, Door::open(cut()).await];
    let patience = Patience { attempts_max: 3, first_wait: Duration::from_millis(2), ..Patience::default() };
    let client = patient(&[&doors[0], &doors[1]], patience).await;
    let error = submit(&client).await.expect_err("nobody answers");
    assert!(matches!(error, ClientError::Lost { .. }) && error.is_unreachable(), "{error:?}");
    assert_eq!(client.sent_again(), 2 * 3 - 1);
}

fn bookmark(cursor: u8) -> v1::WatchFrame {
    v1::WatchFrame { frame: Some(Frame::Bookmark(v1::WatchBookmark { cursor: vec![cursor] })) }
}

fn frame(cursor: u8) -> Vec<u8> {
    v1::WorkloadServiceWatchResponse { frame: Some(bookmark(cursor)) }.encode_to_vec()
}

/// Ways in which a watch ends early, each also midway: after this message.
fn early_ends(message: &[u8]) -> Vec<(bool, Act)> {
    // When a connection is cut, the system may throw away what came before.
    let midway = losses().into_iter().filter(|loss| loss.sends.is_some() && loss.end != End::Cut);
    let midway = midway.map(|loss| (true, Act { sends: Some(vec![message.to_vec()]), ..loss }));
    losses().into_iter().map(|loss| (false, loss)).chain(midway).collect()
}

#[tokio::test]
async fn a_watch_that_is_lost_goes_on_behind_its_last_frame_at_the_next_door() {
    for (is_midway, loss) in early_ends(&frame(1)) {
        let rest = if is_midway { vec![frame(2)] } else { vec![frame(1), frame(2)] };
        let (bad, good) = (Door::open(vec![loss.clone()]).await, Door::open(vec![Act::answer(rest)]).await);
        let client = client(&[&bad, &good]).await;
        let frames: Result<Vec<Frame>, _> = client.watch_workload("w", From::Snapshot, false).try_collect().await;
        let frames = frames.unwrap_or_else(|error| panic!("{loss:?}: {error}"));
        assert_eq!(frames, [1, 2].map(|cursor| bookmark(cursor).frame.expect("it has one")), "{loss:?}");
        let asked = v1::WorkloadServiceWatchRequest::decode(&good.asked()[0][..]).expect("a watch");
        assert_eq!(asked.cursor, if is_midway { vec![1] } else { Vec::new() }, "{loss:?}");
    }
}

#[tokio::test]
async fn a_watch_of_the_nodes_that_is_lost_goes_on_at_the_next_door() {
    let list = |name: &str| {
        let node = v1::Node { name: name.to_owned(), ..Default::default() };
        v1::ClusterServiceWatchResponse { nodes: vec![node] }.encode_to_vec()
    };
    for (is_midway, loss) in early_ends(&list("a")) {
        let (bad, good) = (Door::open(vec![loss.clone()]).await, Door::open(vec![Act::answer(vec![list("b")])]).await);
        let client = client(&[&bad, &good]).await;
        let lists = client.watch_nodes().await.unwrap_or_else(|error| panic!("{loss:?}: {error}"));
        let names: Result<Vec<String>, _> = lists.map_ok(|nodes| nodes[0].name.clone()).try_collect().await;
        let names = names.unwrap_or_else(|error| panic!("{loss:?}: {error}"));
        assert_eq!(names, if is_midway { vec!["a", "b"] } else { vec!["b"] }, "{loss:?}");
    }
}

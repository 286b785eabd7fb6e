//! Watches: whole, resumed at every fact, with live text, to slow readers, over a restart of the server.

mod desk;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use desk::{Desk, Workload, asks_model, connect, emits, frames, model_answers, next, reason, started, word};
use futures::StreamExt;
use nexa_client::{Client, From, Options};
use nexa_gateway::doors::DoorConfig;
use nexa_ports::memory::MemoryStore;
use nexa_proto::v1;
use nexa_proto::v1::watch_frame::Frame;

/// A workload that ran and ended.
async fn told(desk: &Desk) -> Workload {
    let workload = desk.submitted("a story").await;
    desk.writes(workload.root, vec![started()]).await;
    desk.writes(workload.root, asks_model(1)).await;
    desk.writes(workload.root, vec![model_answers(1, "rain falls")]).await;
    desk.writes(workload.root, vec![emits(2, "first"), emits(3, "second")]).await;
    desk.ends(workload, "done").await;
    workload
}

#[tokio::test]
async fn who_is_in_the_same_process_is_answered_as_over_a_connection() {
    let desk = Desk::open().await;
    let id = told(&desk).await.id.to_string();
    let beside = Client::beside(desk.beside.clone(), Options::default()).expect("no token");
    let watch = async |client: &Client| frames(client.watch_workload(id.clone(), From::Start, false)).await;
    assert_eq!(watch(&beside).await, watch(&desk.client).await);
    let get = |workload_id: &str| v1::WorkloadServiceGetRequest { workload_id: workload_id.to_owned() };
    assert_eq!(beside.workload(get(&id)).await.expect("found"), desk.client.workload(get(&id)).await.expect("found"));
    for wrong in ["w-00000000000000000000000000000000", "no id"] {
        assert_eq!(reason(beside.workload(get(wrong)).await), reason(desk.client.workload(get(wrong)).await));
    }
}

fn events(frames: Vec<Frame>) -> Vec<v1::WatchEvent> {
    let event = |frame| match frame {
        Frame::Event(event) => Some(*event),
        _ => None,
    };
    frames.into_iter().filter_map(event).collect()
}

#[tokio::test]
async fn a_watch_from_the_start_shows_every_fact_and_ends() {
    let desk = Desk::open().await;
    let workload = told(&desk).await;
    let shown = frames(desk.client.watch_workload(workload.id.to_string(), From::Start, false)).await;
    assert_eq!(
        shown.iter().map(word).collect::<Vec<_>>(),
        [
            "workload submitted",
            "spawned",
            "started",
            "intended 1",
            "effect 1 started",
            "effect 1 ended",
            "emitted \"first\"",
            "emitted \"second\"",
            "ended",
            "workload ended",
        ]
    );
    let states: Vec<_> = events(shown).iter().map(v1::WatchEvent::agent_state).collect();
    use v1::AgentState::{Placed, Running, Succeeded, Unspecified, Waiting};
    assert_eq!(
        states,
        [Unspecified, Placed, Running, Waiting, Waiting, Running, Running, Running, Succeeded, Unspecified]
    );
}

#[tokio::test]
async fn a_watch_resumed_at_every_fact_shows_exactly_the_rest() {
    let desk = Desk::open().await;
    let workload = told(&desk).await;
    let id = workload.id.to_string();
    let all = events(frames(desk.client.watch_workload(&id, From::Start, false)).await);
    for (seen, event) in all.iter().enumerate() {
        let rest = events(frames(desk.client.watch_workload(&id, From::Cursor(event.cursor.clone()), false)).await);
        assert_eq!(rest, all[seen + 1..], "after {} facts", seen + 1);
    }
    let own = all.iter().filter(|event| !event.agent_id.is_empty()).count();
    let agent = events(frames(desk.client.watch_agent(workload.root.to_string(), From::Start, false)).await);
    assert_eq!(agent.len(), own, "an agent's watch shows its own facts");
    for (seen, event) in agent.iter().enumerate() {
        let from = From::Cursor(event.cursor.clone());
        let rest = events(frames(desk.client.watch_agent(workload.root.to_string(), from, false)).await);
        assert_eq!(rest, agent[seen + 1..]);
    }
}

#[tokio::test]
async fn a_snapshot_and_the_facts_after_it_are_the_whole_story() {
    let desk = Desk::open().await;
    let workload = desk.submitted("a story").await;
    desk.writes(workload.root, vec![started()]).await;
    let mut watch = desk.client.watch_workload(workload.id.to_string(), From::Snapshot, false);
    let Frame::Snapshot(snapshot) = next(&mut watch).await else { panic!("a snapshot comes first") };
    let standing = snapshot.workload.expect("the first part has the workload");
    assert_eq!(standing.state(), v1::WorkloadState::Running);
    assert_eq!(standing.name, "a story");
    assert_eq!(snapshot.agents.len(), 1);
    assert_eq!(snapshot.agents[0].state(), v1::AgentState::Running);
    desk.writes(workload.root, vec![emits(1, "later")]).await;
    desk.ends(workload, "done").await;
    let rest = frames(watch).await;
    assert_eq!(
        rest.iter().filter(|frame| !matches!(frame, Frame::Bookmark(_))).map(word).collect::<Vec<_>>(),
        ["emitted \"later\"", "ended", "workload ended"]
    );
    // The same from the snapshot's cursor.
    let again = frames(desk.client.watch_workload(workload.id.to_string(), From::Cursor(snapshot.cursor), false)).await;
    assert_eq!(again.iter().map(word).collect::<Vec<_>>(), ["emitted \"later\"", "ended", "workload ended"]);
}

#[tokio::test]
async fn a_watch_of_what_has_ended_shows_it_and_ends() {
    let desk = Desk::open().await;
    let workload = told(&desk).await;
    let shown = frames(desk.client.watch_workload(workload.id.to_string(), From::Snapshot, true)).await;
    let Some(Frame::Snapshot(snapshot)) = shown.first() else { panic!("a snapshot comes first") };
    let standing = snapshot.workload.clone().expect("the workload");
    assert_eq!(standing.state(), v1::WorkloadState::Succeeded);
    assert_eq!(standing.spend.expect("a spend").tokens_out, 7);
    let value = standing.outcome.expect("an outcome").result;
    assert_eq!(value, Some(v1::outcome::Result::ValueJson("\"done\"".into())));
    let resumed = From::Cursor(snapshot.cursor.clone());
    assert!(events(frames(desk.client.watch_workload(workload.id.to_string(), resumed, true)).await).is_empty());
}

#[tokio::test]
async fn a_cursor_of_another_workload_or_store_is_refused() {
    let (desk, other) = (Desk::open().await, Desk::open().await);
    let (workload, elsewhere) = (told(&desk).await, told(&other).await);
    let id = elsewhere.id.to_string();
    let cursor = events(frames(other.client.watch_workload(&id, From::Start, false)).await)[0].cursor.clone();
    for cursor in [cursor, b"nonsense".to_vec(), vec![0; 4096]] {
        let mut watch = desk.client.watch_workload(workload.id.to_string(), From::Cursor(cursor), false);
        assert_eq!(reason(watch.next().await.expect("an answer")), "CURSOR_INVALID");
        assert!(watch.next().await.is_none(), "an error is the end");
    }
}

#[tokio::test]
async fn live_text_comes_between_the_start_and_the_end_of_its_effect() {
    let desk = Desk::open().await;
    let workload = desk.submitted("a story").await;
    desk.writes(workload.root, vec![started()]).await;
    let mut watch = desk.client.watch_workload(workload.id.to_string(), From::Snapshot, true);
    assert_eq!(word(&next(&mut watch).await), "snapshot");
    desk.writes(workload.root, asks_model(1)).await;
    desk.says(workload, 1, 0, "rain ");
    desk.says(workload, 1, 5, "falls");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(word(&next(&mut watch).await));
    }
    assert_eq!(seen, ["intended 1", "effect 1 started", "chunk 1+0 rain ", "chunk 1+5 falls"]);
    desk.writes(workload.root, vec![model_answers(1, "rain falls")]).await;
    assert_eq!(word(&next(&mut watch).await), "effect 1 ended");
    desk.says(workload, 1, 10, " too late");
    desk.ends(workload, "done").await;
    let rest: Vec<_> = frames(watch).await.iter().map(word).filter(|word| word != "bookmark").collect();
    assert_eq!(rest, ["ended", "workload ended"], "a piece of an answered effect is dropped");
}

#[tokio::test]
async fn a_slow_reader_gets_every_fact_and_is_told_of_lost_text() {
    let desk = Desk::open().await;
    let workload = desk.submitted("a long story").await;
    desk.writes(workload.root, vec![started()]).await;
    let mut watch = desk.client.watch_workload(workload.id.to_string(), From::Snapshot, true);
    assert_eq!(word(&next(&mut watch).await), "snapshot");
    desk.writes(workload.root, asks_model(1)).await;
    assert_eq!(word(&next(&mut watch).await), "intended 1");
    assert_eq!(word(&next(&mut watch).await), "effect 1 started");
    // Nobody reads now: more than all buffers on the way hold.
    let piece = "x".repeat(16 << 10);
    let pieces = 4_000;
    for number in 0..pieces {
        desk.says(workload, 1, number * piece.len() as u64, &piece);
        if number % 500 == 0 {
            tokio::task::yield_now().await;
        }
    }
    desk.writes(workload.root, vec![model_answers(1, "long")]).await;
    for seq in 2..400 {
        desk.writes(workload.root, vec![emits(seq, "value")]).await;
    }
    desk.ends(workload, "done").await;
    let shown = frames(watch).await;
    let lost: u64 = shown.iter().map(|frame| if let Frame::Lagged(lagged) = frame { lagged.chunks } else { 0 }).sum();
    let chunks = shown.iter().filter(|frame| matches!(frame, Frame::Chunk(_))).count() as u64;
    assert!(lost > 0, "the reader was too slow for {pieces} pieces");
    // Pieces that were still held when their answer was there are replaced by it, and not counted as lost.
    assert!(chunks > 0 && lost + chunks <= pieces, "{lost} lost and {chunks} shown of {pieces}");
    let emitted = shown.iter().filter(|frame| word(frame).starts_with("emitted")).count();
    assert_eq!(emitted, 398);
    assert_eq!(word(shown.last().expect("an end")), "workload ended");
}

#[tokio::test]
async fn a_watch_goes_on_over_a_restart_of_the_server() {
    let store = Arc::new(MemoryStore::new());
    let first = Desk::over(store.clone(), "127.0.0.1:0", |builder| builder).await;
    let workload = first.submitted("a story").await;
    let listen = first.address.trim_start_matches("http://").to_owned();
    let mut watch = first.client.watch_workload(workload.id.to_string(), From::Start, false);
    let mut seen = vec![word(&next(&mut watch).await), word(&next(&mut watch).await)];
    let client = first.client.clone();
    drop(first);
    // The port is free as soon as the old door has closed.
    let second = loop {
        let listen: nexa_gateway::doors::Listen = listen.parse().expect("an address");
        if let nexa_gateway::doors::Listen::Tcp(address) = listen
            && let Ok(free) = tokio::net::TcpListener::bind(address).await
        {
            drop(free);
            break Desk::over(store.clone(), &address.to_string(), |builder| builder).await;
        }
        tokio::task::yield_now().await;
    };
    second.writes(workload.root, vec![started(), emits(1, "after")]).await;
    second.ends(workload, "done").await;
    seen.extend(frames(watch).await.iter().map(word).filter(|word| word != "bookmark"));
    assert_eq!(seen, ["workload submitted", "spawned", "started", "emitted \"after\"", "ended", "workload ended"]);
    let id = workload.id.to_string();
    let standing = client.workload(v1::WorkloadServiceGetRequest { workload_id: id }).await.expect("an answer");
    assert_eq!(standing.workload.expect("a workload").state(), v1::WorkloadState::Succeeded);
}

#[tokio::test]
async fn many_agents_come_in_parts_of_one_snapshot() {
    use nexa_event::envelope::Fact;
    use nexa_event::fact::AgentEvent;
    use nexa_ports::store::{Append, Birth, Store};
    use nexa_types::{AgentId, Seq};

    let desk = Desk::open().await;
    let workload = desk.submitted("a crowd").await;
    let row = desk.store.row(workload.root).await.expect("a row").expect("the root");
    let first = desk.store.read(nexa_types::StreamId::Agent(workload.root), nexa_types::Version(0), 1).await;
    let first = first.expect("a stream").remove(0).envelope;
    let Fact::Agent(AgentEvent::Spawned(root)) = first.fact else { panic!("a birth") };
    let births: Vec<Birth> = (0..1_234)
        .map(|branch| Birth {
            agent: AgentId::child(workload.root, Seq(1), branch),
            workload: workload.id,
            node: row.node.clone(),
            priority: 1,
            first: Fact::Agent(AgentEvent::Spawned(root.clone())),
        })
        .collect();
    let append = Append {
        stream: nexa_types::StreamId::Agent(workload.root),
        guard: nexa_ports::store::Guard::Owner(row.epoch),
        expected: row.version,
        stamp: nexa_ports::store::Stamp {
            at: nexa_types::Timestamp(1),
            tenant: row.tenant.clone(),
            principal: row.principal.clone(),
            trace: None,
        },
        facts: vec![Fact::Agent(started())],
        row: None,
        takes: Vec::new(),
        posts: Vec::new(),
        births,
        also: None,
    };
    for answer in desk.store.append(vec![append]).await {
        answer.expect("the children are born");
    }
    let mut watch = desk.client.watch_workload(workload.id.to_string(), From::Snapshot, false);
    let mut parts = Vec::new();
    loop {
        let Frame::Snapshot(part) = next(&mut watch).await else { panic!("parts come together") };
        let last = !part.cursor.is_empty();
        parts.push(part);
        if last {
            break;
        }
    }
    assert_eq!(parts.iter().map(|part| part.agents.len()).collect::<Vec<_>>(), [500, 500, 235]);
    assert_eq!(parts.iter().filter(|part| part.workload.is_some()).count(), 1);
    assert_eq!(parts[0].agents[0].agent_id, workload.root.to_string(), "parents come first");
}

/// A way to a door that counts who comes.
async fn counted(door: &str) -> (String, Arc<AtomicUsize>) {
    let door = door.strip_prefix("http://").expect("a TCP door").to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut far = tokio::net::TcpStream::connect(&door).await.expect("the door is open");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await.ok() });
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_watch_outlives_the_age_of_its_connection_while_further_calls_have_a_new_one() {
    let desk = Desk::open().await;
    let workload = desk.submitted("a story").await;
    let config = DoorConfig {
        connection_age_max: Duration::from_millis(200),
        grace: Duration::from_millis(10),
        ..DoorConfig::default()
    };
    let listen = "127.0.0.1:0".parse().expect("an address");
    let door = desk.gateway.serve(&listen, config, desk.shutdown.clone()).await.expect("a free port");
    let (address, connections) = counted(&door.address).await;
    let endpoint = tonic::transport::Endpoint::from_shared(address.clone()).expect("an address");
    let mut raw =
        v1::workload_service_client::WorkloadServiceClient::new(endpoint.connect().await.expect("it is open"));
    let request = v1::WorkloadServiceWatchRequest {
        workload_id: workload.id.to_string(),
        from_start: true,
        ..Default::default()
    };
    let mut watch = raw.watch(request).await.expect("a watch").into_inner();
    watch.message().await.expect("no error").expect("a fact");
    let client = connect(&address, None).await;
    // The watch's one, which is the oldest, and three of the client's, which therefore has seen two grow old.
    let old = async {
        while connections.load(Ordering::SeqCst) < 4 {
            client
                .workloads(v1::WorkloadServiceListRequest::default())
                .await
                .expect("no call is lost with a connection");
        }
    };
    tokio::time::timeout(desk::SOON, old).await.expect("connections grow old");
    desk.ends(workload, "done").await;
    let all = async { while watch.message().await.expect("the watch is not cut").is_some() {} };
    tokio::time::timeout(desk::SOON, all).await.expect("the watch ends with what it shows");
}

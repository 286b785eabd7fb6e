//! Text while it is written, of an agent on another node than the one that is watched at.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use futures::StreamExt;
use nexa_client::{Client, From, Options, Watched};
use nexa_proto::v1::watch_frame::Frame;
use nexa_tests::{Desk, wait_until};
use serde_json::Value;

/// Waits for a person, so that somebody can watch before it speaks.
const PROGRAM: &str = r#"
agent Speaker(text: str) { prompt: "Speak.", stream: true }

flow main(text: str) -> str {
    return match approve("Speak?", timeout: 1h) {
        approved(_by, _note) => text >> Speaker
        denied(_by, _note) => "silence"
    }
}
"#;

/// A model endpoint that says a word at each beat, to one who asks.
fn endpoint() -> (String, Sender<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound port has an address");
    let (beat, beats) = channel();
    std::thread::spawn(move || {
        let (connection, _) = listener.accept().expect("somebody asks");
        speak(connection, &beats);
    });
    (format!("speaker=http://{address}/v1"), beat)
}

fn speak(mut connection: TcpStream, beats: &Receiver<&'static str>) {
    let mut request = BufReader::new(connection.try_clone().expect("a socket can be cloned"));
    let mut length = 0;
    loop {
        let mut line = String::new();
        request.read_line(&mut line).expect("a line of the head");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length is a number");
        }
        if line == "\r\n" {
            break;
        }
    }
    request.read_exact(&mut vec![0; length]).expect("the body has its length");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    connection.write_all(head.as_bytes()).expect("somebody listens");
    let say = |mut connection: &TcpStream, delta: &str, finish: &str| {
        let event = format!(
            r#"{{"id":"1","object":"chat.completion.chunk","model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
        );
        connection.write_all(format!("data: {event}\n\n").as_bytes()).expect("somebody listens");
    };
    for word in beats {
        say(&connection, &format!(r#"{{"role":"assistant","content":"{word}"}}"#), "null");
    }
    say(&connection, "{}", "\"stop\"");
    connection.write_all(b"data: [DONE]\n\n").expect("somebody listens");
}

fn json(desk: &Desk, server: &str, args: &[&str]) -> Vec<Value> {
    let mut all = args.to_vec();
    all.extend(["-o", "json", "--server", server]);
    desk.run(&all).good().lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

/// The next piece of text.
async fn piece(watch: &mut Watched) -> String {
    loop {
        match watch.next().await.expect("the watch goes on").expect("it does not fail") {
            Frame::Chunk(chunk) => return chunk.text,
            Frame::Lagged(lagged) => panic!("{} pieces were lost", lagged.chunks),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_heard_on_another_node_while_they_are_said_also_after_their_agent_has_moved() {
    let desk = Desk::new();
    let (speaker, beat) = endpoint();
    let server =
        desk.dev(&["--nodes", "3", "--endpoint", &speaker, "--model", "speaker/m", "--metrics", "127.0.0.1:0"]);
    let doors: Vec<String> = (server.ready["nodes"].as_array().expect("a list of nodes").iter())
        .map(|node| node["grpc"].as_str().expect("each has a door").to_owned())
        .collect();
    wait_until("the nodes to be one cluster", || {
        let nodes = json(&desk, &doors[0], &["nodes"]);
        nodes.len() == 3
            && nodes.iter().all(|node| node["state"] == "ready" && !node["load"].is_null())
            && nodes.iter().any(|node| node["is_leader"] == true)
    });
    let program = desk.write("speak.nx", PROGRAM);
    let args = ["submit", program.to_str().expect("a plain path"), "--input", "\"x\"", "--server", &doors[0]];
    let workload = desk.run(&args).good().trim().to_owned();
    let agents = || json(&desk, &doors[0], &["ps", &workload]);
    wait_until("the flow to ask", || agents().first().is_some_and(|agent| agent["state"] == "waiting(approval)"));
    let root = agents().remove(0);
    let place = root["node"].as_str().expect("it has a node").to_owned();
    // At a node where no agent of it is, nor the one that speaks will be.
    let others: Vec<&str> = ["n1", "n2", "n3"].into_iter().filter(|node| *node != place).collect();
    let watched_at = &doors[others[0][1..].parse::<usize>().expect("nodes are numbered") - 1];
    let client = Client::connect(watched_at, Options::default()).await.expect("the door is open");
    let mut watch = client.watch_workload(workload.clone(), From::Snapshot, true);
    // Once it is there, the node listens.
    assert!(matches!(watch.next().await, Some(Ok(Frame::Snapshot(_)))));
    let asks = desk.run(&["approve", "--server", &doors[0]]).good();
    desk.run(&["approve", asks.split_whitespace().next().expect("somebody asks"), "--server", &doors[1]]).good();

    // The answer is not there before the last beat, so it is not from there that these come.
    for word in ["first", "second"] {
        beat.send(word).expect("the endpoint waits for a beat");
        assert_eq!(piece(&mut watch).await, word);
    }
    let speaks = || agents().into_iter().find(|agent| agent["name"] == "Speaker");
    wait_until("the speaker to be listed", || speaks().is_some_and(|agent| agent["node"].is_string()));
    let speaker = speaks().expect("it is listed");
    assert_eq!(speaker["node"], place.as_str(), "it was born beside its parent");
    let id = speaker["agent_id"].as_str().expect("an id");
    desk.run(&["migrate", id, "--to", others[1], "--server", &doors[0]]).good();
    beat.send("third").expect("the endpoint waits for a beat");
    assert_eq!(piece(&mut watch).await, "third", "the call goes on where it was begun");
    drop(beat);
    while watch.next().await.is_some() {}
    let ended = json(&desk, &doors[1], &["watch", &workload]);
    assert_eq!(ended.last().expect("a watch ends")["workload"]["outcome"]["ok"], "firstsecondthird");
}

//! Spans of agents that talk to each other: whoever takes a message follows the turn that sent it, also from node to node.

use std::collections::BTreeMap;

use nexa_tests::{Desk, Server, wait_until};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use crate::collector::{Collector, attribute};
use crate::nodes::{doors, json};

/// Each message has a turn of its own on both sides: whoever sends it, and whoever takes it, has waited for something before.
const PROGRAM: &str = r##"
flow helper() -> str {
    let one: str = receive()
    let heard = approve("Heard?", timeout: 1h)
    let two: str = receive()
    let said = approve("Said?", timeout: 1h)
    let three: str = receive()
    return "#{one} #{two} #{three}"
}

flow main() -> str {
    let child = spawn helper()
    let first = approve("Say one?", timeout: 1h)
    pass "one" to child
    let second = approve("Say two?", timeout: 1h)
    pass "two" to child
    return await child
}
"##;

/// An agent at work: what it is, and what asks for it.
struct Stage<'a> {
    desk: &'a Desk,
    doors: &'a [String],
    workload: String,
}

impl Stage<'_> {
    fn agent(&self, name: &str) -> Option<Value> {
        json(self.desk, &self.doors[0], &["ps", &self.workload]).into_iter().find(|agent| agent["name"] == name)
    }

    fn text(&self, name: &str, key: &str) -> String {
        let agent = self.agent(name).unwrap_or_else(|| panic!("`{name}` is not listed"));
        agent[key].as_str().unwrap_or_else(|| panic!("{agent} has no `{key}`")).to_owned()
    }

    fn reaches(&self, name: &str, state: &str) {
        let is_there = || self.agent(name).is_some_and(|agent| agent["state"] == state);
        wait_until(&format!("`{name}` to be {state}"), is_there);
    }

    /// Says yes, once it is asked this.
    fn approves(&self, question: &str, door: &str) {
        let mut asks = None;
        wait_until(question, || {
            let open = self.desk.run(&["approve", "--server", door]).good();
            let line = open.lines().find(|line| line.ends_with(question));
            asks = line.and_then(|line| line.split_whitespace().next()).map(str::to_owned);
            asks.is_some()
        });
        self.desk.run(&["approve", &asks.expect("it was just found"), "--server", door]).good();
    }
}

/// Where the two agents were: the one that sends, and the other before and after it was moved.
struct Places {
    workload: String,
    sender: String,
    before: String,
    after: String,
}

fn run(desk: &Desk, server: &mut Server) -> Places {
    let doors = doors(desk, server);
    let program = desk.write("talk.nx", PROGRAM);
    let submit = ["submit", program.to_str().expect("a plain path"), "--server", &doors[0]];
    let workload = desk.run(&submit).good().trim().to_owned();
    let stage = Stage { desk, doors: &doors, workload };
    stage.reaches("helper", "waiting(message)");
    let (sender, before) = (stage.text("main", "node"), stage.text("helper", "node"));
    let after = ["n1", "n2", "n3"].into_iter().find(|node| *node != sender && *node != before);
    let after = after.expect("there are three").to_owned();

    stage.approves("Say one?", &doors[0]);
    stage.approves("Heard?", &doors[1]);
    stage.reaches("helper", "waiting(message)");
    let helper = stage.text("helper", "agent_id");
    desk.run(&["migrate", &helper, "--to", &after, "--server", &doors[2]]).good();
    stage.approves("Say two?", &doors[0]);
    stage.approves("Said?", &doors[1]);
    stage.reaches("helper", "waiting(message)");
    desk.run(&["send", &helper, "\"three\"", "--server", &doors[0]]).good();
    stage.reaches("main", "succeeded");
    let workload = stage.workload;
    // What waits is sent before the process ends.
    server.process.signal("TERM");
    assert!(server.process.wait().success(), "{}", server.process.rest_of_err());
    Places { workload, sender, before, after }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_a_message_follows_the_turn_that_sent_it_also_on_another_node() {
    let collector = Collector::default();
    let (address, closed) = collector.open().await;
    let places = tokio::task::block_in_place(|| {
        let desk = Desk::new();
        let mut server = desk.dev(&["--nodes", "3", "--otlp", &address]);
        run(&desk, &mut server)
    });
    closed.cancel();
    let spans = collector.spans();
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    let turns = |name: &str| -> Vec<&Span> {
        let name = format!("invoke_agent {name}");
        let is_of = |span: &&Span| attribute(span, "nexa.workload.id").as_ref() == Some(&places.workload);
        let mut turns: Vec<&Span> = spans.iter().filter(is_of).filter(|span| span.name == name).collect();
        turns.sort_by_key(|turn| turn.start_time_unix_nano);
        turns
    };
    let node = |span: &Span| attribute(span, "nexa.node.id").expect("every span says where");
    let led = |span: &Span, name: &str| -> Vec<&Span> {
        let led = span.links.iter().filter_map(|link| by_id.get(link.span_id.as_slice()).copied());
        led.filter(|to| to.name == name).collect()
    };
    let (mains, helpers) = (turns("main"), turns("helper"));
    assert!(mains.iter().chain(&helpers).all(|turn| turn.parent_span_id.is_empty()), "a link is no parent");

    // What each turn of the helper follows of its parent's, beside the one that it was born in.
    let born = led(helpers.first().expect("it took a turn"), "invoke_agent main");
    assert_eq!(born.len(), 1, "{:?}", helpers.first());
    let heard: Vec<(&Span, &Span)> = (helpers.iter())
        .flat_map(|turn| led(turn, "invoke_agent main").into_iter().map(|from| (*turn, from)))
        .filter(|(_, from)| from.span_id != born[0].span_id)
        .collect();
    let where_to: Vec<(String, String)> = heard.iter().map(|(turn, from)| (node(from), node(turn))).collect();
    let Places { sender, before, after, .. } = &places;
    let expected = [(sender.clone(), before.clone()), (sender.clone(), after.clone())];
    assert_eq!(where_to, expected, "one link for each message: {helpers:?} {mains:?}");
    assert_ne!(heard[0].1.span_id, heard[1].1.span_id, "each was sent in a turn of its own");
    for (turn, from) in &heard {
        assert_ne!(turn.trace_id, from.trace_id, "a turn is a trace of its own");
        assert!(!led(from, "nexa.v1/AnswerApproval").is_empty(), "it goes back to the call that made it: {from:?}");
    }

    // A message from outside follows the call that brought it, and the parent follows the turn in which its child ended.
    let last = helpers.last().expect("it took a turn");
    assert_eq!((node(last), led(last, "nexa.v1/SendMessage").len()), (after.clone(), 1), "{last:?}");
    let ended = mains.last().expect("it took a turn");
    assert_eq!(node(ended), *sender);
    assert!(led(ended, "invoke_agent helper").iter().any(|from| from.span_id == last.span_id), "{ended:?}");
    assert!(spans.iter().all(|span| !span.name.contains("message")), "no span is one of a message");
}

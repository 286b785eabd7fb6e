//! Lists of agents over gRPC: the format as its page shows it, and a long one whose node is killed in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, EffectResult, Program};
use nexa_llm::script::Script;
use nexa_ports::store::Store;
use nexa_store::SqliteStore;
use nexa_testkit::endpoint::Endpoint;
use nexa_tests::{Desk, PATIENCE, Server, root};
use nexa_types::{AgentId, EffectKey, GlobalSeq, Outcome, StreamId};
use nexa_vm::value::Value as Known;
use serde_json::{Value, json};

/// Agents of the long list, in layers of [`WIDTH`]; each but the first comes after [`FAN_IN`] of the layer before.
const AGENTS: usize = 1_000;
const WIDTH: usize = 100;
const FAN_IN: usize = 3;

fn id(number: usize) -> String {
    format!("a{number}")
}

fn said(number: usize) -> String {
    format!("number {number} was here")
}

fn after(number: usize) -> BTreeSet<usize> {
    let Some(layer) = (number / WIDTH).checked_sub(1) else { return BTreeSet::new() };
    (0..FAN_IN).map(|nth| layer * WIDTH + (number + 31 * nth) % WIDTH).collect()
}

fn list() -> Value {
    let agent = |number: usize| {
        let after: Vec<String> = after(number).into_iter().map(id).collect();
        json!({ "id": id(number), "prompt": "Say who you are.", "input": number, "after": after })
    };
    json!({ "agents": (0..AGENTS).map(agent).collect::<Vec<_>>() })
}

fn script() -> Script {
    let lines: String =
        (0..AGENTS).map(|number| format!("script {} => after(5ms, \"{}\")\n", id(number), said(number))).collect();
    Script::parse(&lines).expect("the script is right")
}

/// The last line of a command that prints JSON.
fn last(out: &str) -> Value {
    serde_json::from_str(out.lines().last().expect("it prints something")).expect("the last line is JSON")
}

fn submit(desk: &Desk, server: &Server, list: &str) -> String {
    let file = desk.write("list.json", list);
    let file = file.to_str().expect("a plain path");
    let out = desk.run(&["submit", file, "--server", &server.address, "-o", "json"]).good();
    last(&out)["workload_id"].as_str().expect("a workload has an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_a_thousand_is_killed_in_the_middle_and_every_output_is_right() {
    let desk = Desk::new();
    let endpoint = Endpoint::start(script()).await.expect("loopback has a free port");
    let at = format!("sim={}", endpoint.url());
    let model = ["--model", "sim/any", "--endpoint", &at];
    let mut server = desk.dev(&model);
    let workload = submit(&desk, &server, &list().to_string());

    let until = Instant::now() + PATIENCE;
    while endpoint.requests() < AGENTS / 2 {
        assert!(Instant::now() < until, "no requests come any more: {}", server.process.said_so_far());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    server.process.kill();
    let (sent_before, log_before) = (endpoint.sent(), Log::read(&desk).await);
    assert!((1..AGENTS).contains(&log_before.answered.len()), "{} had ended", log_before.answered.len());

    let mut server = desk.dev(&model);
    let watched = desk.run(&["watch", &workload, "--server", &server.address, "-o", "json"]).good();
    let ended = last(&watched)["workload"].clone();
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let expected: Value =
        (0..AGENTS).map(|number| (id(number), json!(said(number)))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(ended["outcome"]["ok"], expected);

    let shown = |limit: &str| {
        let out = desk.run(&["ps", &workload, "--limit", limit, "--server", &server.address, "-o", "json"]).good();
        out.lines().count()
    };
    assert_eq!((shown("5000"), shown("700")), (1 + AGENTS, 700), "the list and its agents, over several pages");
    server.process.kill();

    let (log, sent) = (Log::read(&desk).await, endpoint.sent());
    log.each_started_once_and_after_what_it_comes_after();
    assert_eq!((sent.len(), log.answered.len()), (AGENTS, AGENTS), "every agent asked once, before and after the kill");
    for key in &log_before.answered {
        assert_eq!(sent[key], sent_before[key], "{key} was recorded and asked for again");
    }
    let again: usize = sent.values().map(|count| count - 1).sum();
    assert!(again <= log.reissued, "{again} calls were made again, {} are counted", log.reissued);
}

/// What the log says of the agents of a list.
#[derive(Default)]
struct Log {
    /// Where each item was born, and with which results.
    born: BTreeMap<String, (GlobalSeq, BTreeMap<String, String>)>,
    /// Where each agent has ended well.
    succeeded: BTreeMap<String, GlobalSeq>,
    answered: BTreeSet<EffectKey>,
    reissued: usize,
}

impl Log {
    /// Reads the log of a node that does not run.
    async fn read(desk: &Desk) -> Self {
        let store =
            SqliteStore::open(desk.path("data"), nexa_store::Options::default()).expect("the data can be opened");
        let mut log = Self::default();
        let mut names: BTreeMap<AgentId, String> = BTreeMap::new();
        let mut seen = GlobalSeq(0);
        loop {
            let facts = store.scan(None, seen, 500).await.expect("the log can be read");
            let Some(newest) = facts.last() else { return log };
            seen = newest.position;
            for fact in &facts {
                let (Fact::Agent(event), StreamId::Agent(agent)) = (&fact.envelope.fact, &fact.envelope.header.stream)
                else {
                    continue;
                };
                match event {
                    AgentEvent::Spawned(born) if born.parent.is_some() => {
                        names.insert(*agent, born.name.clone());
                        let birth = (fact.position, results(&born.program));
                        assert!(log.born.insert(born.name.clone(), birth).is_none(), "{} was born twice", born.name);
                    }
                    AgentEvent::EffectEnded { seq, result, .. } => {
                        assert!(matches!(result, EffectResult::Done(_)), "{result:?}");
                        let workload = fact.workload.expect("an agent's fact has a workload");
                        assert!(log.answered.insert(EffectKey::of(workload, *agent, *seq)), "recorded twice");
                    }
                    AgentEvent::EffectStarted { attempt, .. } if *attempt > 1 => log.reissued += 1,
                    AgentEvent::Ended { outcome: Outcome::Ok(_), .. } if names.contains_key(agent) => {
                        log.succeeded.insert(names[agent].clone(), fact.position);
                    }
                    _ => {}
                }
            }
        }
    }

    fn each_started_once_and_after_what_it_comes_after(&self) {
        assert_eq!(self.born.len(), AGENTS);
        for number in 0..AGENTS {
            let (born, results) = &self.born[&id(number)];
            let expected: BTreeMap<String, String> =
                after(number).into_iter().map(|before| (id(before), said(before))).collect();
            assert_eq!(*results, expected, "what {} was given", id(number));
            for before in expected.keys() {
                assert!(self.succeeded[before] < *born, "{} started before {before} had succeeded", id(number));
            }
        }
    }
}

/// The results that an agent of a list was given, by the id of whom they are from.
fn results(program: &Program) -> BTreeMap<String, String> {
    let Program::Function { args, .. } = program else { panic!("an item runs a function") };
    let Ok(Known::List(args)) = nexa_vm::codec::decode(args) else { panic!("arguments are a list") };
    let given: Value = serde_json::from_str(&nexa_vm::json::to_json(&args[0])).expect("values are JSON");
    let Some(results) = given.get("results").and_then(Value::as_object) else { return BTreeMap::new() };
    results.iter().map(|(id, value)| (id.clone(), value.as_str().expect("a text").to_owned())).collect()
}

#[test]
fn the_list_on_its_page_runs() {
    let page = std::fs::read_to_string(root().join("docs/lists.md")).expect("the page can be read");
    let block = |fence: &str| {
        let after = page.split(fence).nth(1).unwrap_or_else(|| panic!("the page has no block {fence}"));
        after.split("```").next().expect("a block ends").to_owned()
    };
    let desk = Desk::new();
    let script = desk.write("model.script", &block("```script\n"));
    let server = desk.dev(&["--script", script.to_str().expect("a plain path")]);
    let workload = submit(&desk, &server, &block("```json\n"));
    let ended = last(&desk.run(&["watch", &workload, "--server", &server.address, "-o", "json"]).good());
    let shown: Value = serde_json::from_str(&block("```json result\n")).expect("the result on the page is JSON");
    assert_eq!(ended["workload"]["outcome"]["ok"], shown, "{ended}");
}

#[test]
fn a_list_that_is_too_long_for_one_message_is_refused_with_a_way_out() {
    let desk = Desk::new();
    let script = desk.write("model.script", "script Long => \"never\"\n");
    let server = desk.dev(&["--script", script.to_str().expect("a plain path")]);
    let agent = |number: usize| json!({ "id": id(number), "prompt": format!("{number}{}", "x".repeat(2 << 20)) });
    let list = json!({ "agents": (0..12).map(agent).collect::<Vec<_>>() }).to_string();
    let file = desk.write("list.json", &list);
    let (code, told) = desk.run(&["submit", file.to_str().expect("a plain path"), "--server", &server.address]).bad();
    assert_eq!(code, 1);
    let bytes: usize = told.split_whitespace().find_map(|word| word.parse().ok()).expect("it says how long it is");
    assert!(bytes > 24 << 20, "{told}");
    let rest = told.replace(&bytes.to_string(), "N");
    let expected = "\
error: the request has N bytes, more than the 20971520 of one message
help: hand over less, or submit it as several workloads
";
    assert_eq!(rest, expected);
}

//! A process that is killed at any moment loses nothing and repeats nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nexa_event::envelope::Fact;
use nexa_event::fact::AgentEvent;
use nexa_ports::store::Store;
use nexa_store::SqliteStore;
use nexa_testkit::endpoint::Endpoint;
use nexa_tests::{Desk, PATIENCE, Process};
use nexa_types::{EffectKey, GlobalSeq, StreamId};

/// How many agents the run has, and so how many answers it needs.
const AGENTS: usize = 50;
/// How often the process is killed.
const KILLS: usize = 10;
/// Where SplitMix64 starts; printed by a failing test through its assertions.
const SEED: u64 = 20_261_121;

/// Each agent answers after 40 ms, so a run with a handful of slots has its calls in flight most of the time.
fn script() -> nexa_llm::script::Script {
    nexa_llm::script::Script::parse("script Label => after(40ms, \"thing\")\n").expect("the script is right")
}

fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 31)
}

fn arguments(desk: &Desk, endpoint: &Endpoint) -> Vec<String> {
    let items: Vec<String> = (0..AGENTS).map(|number| format!("item {number}")).collect();
    let input = desk.write("items.json", &serde_json::json!({ "items": items }).to_string());
    let input = std::fs::read_to_string(input).expect("it was just written");
    [
        "run",
        "examples/batch/batch.nx",
        "-o",
        "json",
        "--model",
        "sim/any",
        "--endpoint",
        &format!("sim={}", endpoint.url()),
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(["--input".to_owned(), input])
    .collect()
}

/// The value of the workload, from the last line of `-o json`.
fn value_of(out: &str) -> serde_json::Value {
    let last = out.lines().last().expect("a run prints something");
    let last: serde_json::Value = serde_json::from_str(last).expect("the last line is JSON");
    assert_eq!(last["workload"]["state"], "succeeded", "{last}");
    last["workload"]["outcome"]["ok"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_fifty_agents_survives_ten_kills() {
    let undisturbed = {
        let desk = Desk::new();
        let endpoint = Endpoint::start(script()).await.expect("loopback has a free port");
        let args = arguments(&desk, &endpoint);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        value_of(&desk.run(&args).good())
    };

    let labels = undisturbed.as_array().expect("the example gives a list");
    assert!(labels.len() == AGENTS && labels[7] == "item 7: thing", "{undisturbed}");

    let desk = Desk::new();
    let endpoint = Endpoint::start(script()).await.expect("loopback has a free port");
    let args = arguments(&desk, &endpoint);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut state = SEED;
    // For every answer found in the log after a kill: how often its effect had been sent by then.
    let mut recorded: BTreeMap<EffectKey, usize> = BTreeMap::new();
    for kill in 1..=KILLS {
        let mut process = Process::start(desk.nexa(&args));
        // A random number of requests later, at a random moment of the calls in flight.
        let goal = endpoint.requests() + 1 + (dice(&mut state) % 5) as usize;
        let until = Instant::now() + PATIENCE;
        while endpoint.requests() < goal {
            assert!(!process.has_ended(), "the run ended before kill {kill}; it has too few agents");
            assert!(Instant::now() < until, "no requests come any more: {}", process.rest_of_err());
            tokio::time::sleep(Duration::from_millis(dice(&mut state) % 7)).await;
        }
        process.kill();
        let sent = endpoint.sent();
        for key in ledger(&desk).await.answered {
            recorded.entry(key).or_insert_with(|| sent[&key]);
        }
    }
    let out = desk.run(&args).good();
    assert_eq!(value_of(&out), undisturbed);

    let sent = endpoint.sent();
    assert_eq!(sent.len(), AGENTS, "every effect has one key, before and after a kill");
    for (key, count) in &recorded {
        assert_eq!(sent[key], *count, "{key} was recorded and asked for again");
    }
    let ledger = ledger(&desk).await;
    assert_eq!(ledger.answered.len(), AGENTS);
    assert_eq!(endpoint.answered().len(), AGENTS, "every answer came from the script");
    let again: usize = sent.values().map(|count| count - 1).sum();
    assert!(again <= ledger.reissued, "{again} calls were made again, {} are counted", ledger.reissued);
    println!(
        "{KILLS} kills, {AGENTS} effects, {} answers recorded before the last kill, {again} calls made again, {} counted as such",
        recorded.len(),
        ledger.reissued
    );
}

/// What the log says of effects.
struct Ledger {
    answered: BTreeSet<EffectKey>,
    reissued: usize,
}

/// Reads the log of a node that does not run.
async fn ledger(desk: &Desk) -> Ledger {
    let store = SqliteStore::open(desk.path("data"), nexa_store::Options::default()).expect("the data can be opened");
    let mut ledger = Ledger { answered: BTreeSet::new(), reissued: 0 };
    let mut after = GlobalSeq(0);
    loop {
        let facts = store.scan(None, after, 500).await.expect("the log can be read");
        let Some(last) = facts.last() else { return ledger };
        after = last.position;
        for fact in &facts {
            let (Fact::Agent(event), StreamId::Agent(agent)) = (&fact.envelope.fact, &fact.envelope.header.stream)
            else {
                continue;
            };
            let workload = fact.workload.expect("an agent's fact has a workload");
            match event {
                AgentEvent::EffectEnded { seq, .. } => {
                    assert!(ledger.answered.insert(EffectKey::of(workload, *agent, *seq)), "recorded twice");
                }
                AgentEvent::EffectStarted { attempt, .. } if *attempt > 1 => ledger.reissued += 1,
                _ => {}
            }
        }
    }
}

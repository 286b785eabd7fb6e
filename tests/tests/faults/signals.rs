//! Ctrl-C and the polite end.

use nexa_llm::script::Script;
use nexa_testkit::endpoint::Endpoint;
use nexa_tests::{Desk, Process, wait_until};

use crate::goes_on;

/// An odd number, so that the run has a last one that stands alone.
const AGENTS: usize = 7;

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_says_how_to_go_on_and_asks_for_nothing_twice() {
    let desk = Desk::new();
    let script = Script::parse("script Label => after(50ms, \"thing\")").expect("the script is right");
    let endpoint = Endpoint::start(script).await.expect("loopback has a free port");
    let setting = format!("sim={}", endpoint.url());
    let items: Vec<String> = (1..=AGENTS).map(|number| format!("item {number}")).collect();
    let input = serde_json::json!({ "items": items }).to_string();
    let args = ["run", "examples/batch/batch.nx", "--model", "sim/any", "--endpoint", &setting, "--input", &input];

    let mut process = Process::start(desk.nexa(&args));
    // In the middle of the second pair.
    wait_until("the third request", || endpoint.requests() >= 3 || process.has_ended());
    process.signal("INT");
    let status = process.wait();
    let err = process.rest_of_err();
    assert_eq!(status.code(), Some(130), "{err}");
    assert!(err.contains("the same command goes on"), "{err}");
    assert!(!err.contains("panicked"), "{err}");
    let before = endpoint.requests();
    assert!(before < AGENTS, "it was over before it was interrupted");

    let finished = desk.run(&args);
    assert!(finished.err.contains("going on with w-"), "{}", finished.err);
    let value: serde_json::Value = serde_json::from_str(&finished.good()).expect("the value is JSON");
    let labelled: Vec<String> = items.iter().map(|item| format!("{item}: thing")).collect();
    assert_eq!(value, serde_json::json!(labelled));
    // What was in flight was waited for and recorded, so that nothing at all is sent twice.
    let sent = endpoint.sent();
    assert_eq!(sent.len(), AGENTS);
    assert!(sent.values().all(|count| *count == 1), "{sent:?}");
    goes_on(&desk);
}

#[test]
fn a_server_that_is_told_to_stop_ends_well() {
    let desk = Desk::new();
    for signal in ["TERM", "INT"] {
        let mut server = desk.dev(&[]);
        server.process.signal(signal);
        let status = server.process.wait();
        let err = server.process.rest_of_err();
        assert_eq!(status.code(), Some(0), "after SIG{signal}: {err}");
        assert!(!err.contains("panicked"), "{err}");
    }
    goes_on(&desk);
}

//! Endpoints that are away, slow, confused or busy.

use std::time::Duration;

use nexa_event::envelope::Fact;
use nexa_event::fact::AgentEvent;
use nexa_llm::script::Script;
use nexa_ports::store::Store;
use nexa_store::SqliteStore;
use nexa_testkit::endpoint::{Endpoint, Fault};
use nexa_tests::Desk;
use nexa_types::{GlobalSeq, Timestamp};
use tokio::net::TcpListener;

use crate::{ANSWER, ASKER, asks, fails, goes_on};

/// What the endpoint asks for with its status 429.
const RETRY_AFTER: Duration = Duration::from_secs(1);

async fn endpoint(faults: &[Fault]) -> (Endpoint, String) {
    let script = Script::parse(ANSWER).expect("the script is right");
    let endpoint = Endpoint::start(script).await.expect("loopback has a free port");
    endpoint.fail_next(faults);
    let setting = format!("sim={}", endpoint.url());
    (endpoint, setting)
}

/// When each sending of a request was recorded, in order.
async fn sendings(desk: &Desk) -> Vec<Timestamp> {
    let store = SqliteStore::open(desk.path("data"), nexa_store::Options::default()).expect("the data can be opened");
    let facts = store.scan(None, GlobalSeq(0), 1_000).await.expect("the log can be read");
    let is_sending = |fact: &Fact| matches!(fact, Fact::Agent(AgentEvent::EffectStarted { .. }));
    facts.iter().filter(|fact| is_sending(&fact.envelope.fact)).map(|fact| fact.envelope.header.at).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_connections_is_tried_again_and_named() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let url = format!("http://{}/v1", listener.local_addr().expect("it is bound"));
    drop(listener);
    let setting = format!("sim={url}");
    let model = ["--model", "sim/any", "--endpoint", &setting];
    let says = ["unavailable", &*url, "check that it runs and that the address is right"];
    let err = fails(desk.run(&asks(&program, "1", &model)), 3, &says);
    // What is shown begins with the watch, and the first of them may have been over by then.
    assert_eq!(sendings(&desk).await.len(), 3, "once, and twice again:\n{err}");
    goes_on(&desk);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_is_given_up_in_time() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", &ASKER.replace("timeout: 20s", "timeout: 1s"));
    let (endpoint, setting) = endpoint(&[Fault::Hangs]).await;
    let model = ["--model", "sim/any", "--endpoint", &setting];
    fails(desk.run(&asks(&program, "1", &model)), 3, &["timeout", "deadline passed"]);
    assert_eq!(endpoint.requests(), 1);
    goes_on(&desk);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_answers_nonsense_is_told_from_one_that_is_away() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let (endpoint, setting) = endpoint(&[Fault::Nonsense]).await;
    let model = ["--model", "sim/any", "--endpoint", &setting];
    let says = ["output_invalid", "no chat completion", "check that the URL is that of the API"];
    fails(desk.run(&asks(&program, "1", &model)), 3, &says);
    assert_eq!(endpoint.requests(), 1, "nonsense is not asked for again");
    desk.run(&asks(&program, "1", &model)).good();
    goes_on(&desk);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let (endpoint, setting) = endpoint(&[Fault::DropsInMidStream]).await;
    let finished = desk.run(&asks(&program, "1", &["--model", "sim/any", "--endpoint", &setting]));
    assert!(finished.err.contains("unavailable"), "the history shows the fault:\n{}", finished.err);
    assert_eq!(finished.good(), "forty two, as far as anybody knows\n", "nothing of the broken answer is left");
    assert_eq!(endpoint.requests(), 2);
    assert!(endpoint.sent().values().all(|count| *count == 1), "a new try is a new effect: {:?}", endpoint.sent());
    goes_on(&desk);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_to_slow_down_is_obeyed() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let (endpoint, setting) = endpoint(&[Fault::TooManyRequests]).await;
    let finished = desk.run(&asks(&program, "1", &["--model", "sim/any", "--endpoint", &setting]));
    assert!(finished.err.contains("rate_limited"), "the history shows why it took longer:\n{}", finished.err);
    finished.good();
    assert_eq!(endpoint.requests(), 2);
    // The first sending was recorded before the endpoint said when to come again, by the node's own clock.
    let sent = sendings(&desk).await;
    let [first, second] = sent.as_slice() else { panic!("two sendings, not {sent:?}") };
    assert!(u128::from(second.since(*first).0) >= RETRY_AFTER.as_millis(), "sent again after {}", second.since(*first));
    goes_on(&desk);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_stays_busy_is_reported_and_counted() {
    let desk = Desk::new();
    let program = desk.write("asker.nx", ASKER);
    let (endpoint, setting) = endpoint(&[Fault::TooManyRequests; 3]).await;
    let model = ["--model", "sim/any", "--endpoint", &setting];
    fails(desk.run(&asks(&program, "1", &model)), 3, &["rate_limited", "slow down or raise the limit there"]);
    assert_eq!(endpoint.requests(), 3, "once, and twice again");
    goes_on(&desk);
}

//! What a node tells about itself: figures, health, spans, log lines.

mod collector;
mod messages;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::PoisonError;

use nexa_tests::{Desk, Process, Server, root, wait_until};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status};
use serde_json::Value;

use crate::collector::{Collector, attribute};

/// Three agents: one streams, one calls a tool, one waits for both.
const PROGRAM: &str = r#"
tool calculate(expression: str) -> float {
    source: builtin("calculator.evaluate")
    risk: "low", effect: "none", idempotent: true, timeout: 5s
}

agent Reader(text: str) { prompt: "Read it.", stream: true }
agent Counter(text: str) uses calculate { prompt: "Count it.", max_tool_calls: 2 }
agent Chief(notes: str) { prompt: "Sum it up." }

flow main(text: str) -> str {
    return text |>> [reader: Reader, counter: Counter] &>> Chief
}
"#;

/// Enough for three runs.
const SCRIPT: &str = r#"
script Reader => "a word of the reader"
script Counter => [
    call(calculate, { expression: "6 * 7" }), "a word of the counter",
    call(calculate, { expression: "6 * 7" }), "a word of the counter",
    call(calculate, { expression: "6 * 7" }), "a word of the counter",
]
script Chief => "a word of the chief"
"#;

/// Everything that is said to or by a model starts like this.
const SECRET: &[&str] = &["a word of", "Read it", "Count it", "Sum it up", "6 * 7", "quite private"];

struct Stage {
    desk: Desk,
    server: Server,
    metrics: String,
}

impl Stage {
    fn open(more: &[&str]) -> Self {
        let desk = Desk::new();
        let script = desk.write("script.nx", SCRIPT);
        desk.write("three.nx", PROGRAM);
        let mut args = vec!["--script", script.to_str().expect("a plain path"), "--metrics", "127.0.0.1:0"];
        args.extend(more);
        let mut server = desk.dev(&args);
        let metrics = server.ready["metrics"].as_str().expect("the object has the address of metrics").to_owned();
        assert!(!server.process.has_ended());
        Self { desk, server, metrics }
    }

    /// Runs the program to its end.
    fn runs(&self) {
        let program = self.desk.path("three.nx");
        let program = program.to_str().expect("a plain path");
        let args = ["submit", program, "--input", r#"{"text": "quite private"}"#, "--watch", "--server"];
        let mut args = args.to_vec();
        args.push(&self.server.address);
        let said = self.desk.run(&args).good();
        assert!(said.contains("a word of the chief"), "{said}");
    }

    fn page(&self, path: &str) -> (u16, String) {
        page(&self.metrics, path)
    }

    fn figures(&self) -> Figures {
        let (status, text) = self.page("/metrics");
        assert_eq!(status, 200);
        Figures::parse(&text)
    }
}

/// Asks the door of metrics for a page: its status and its body.
fn page(metrics: &str, path: &str) -> (u16, String) {
    let address = metrics.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("a URL");
    let mut connection = TcpStream::connect(address).expect("the door is open");
    write!(connection, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").expect("the door listens");
    let mut told = String::new();
    connection.read_to_string(&mut told).expect("the door answers in UTF-8");
    let (head, body) = told.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// What Prometheus reads.
struct Figures {
    /// Names of families, with their type.
    families: BTreeMap<String, String>,
    /// Samples by name and labels.
    samples: BTreeMap<String, f64>,
}

impl Figures {
    /// Reads the text format; anything that is not of it fails.
    fn parse(text: &str) -> Self {
        let (mut families, mut samples) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (what, name, rest) = (words.next(), words.next().expect(line), words.next().expect(line));
                match what {
                    Some("HELP") => assert!(!rest.is_empty(), "{line}"),
                    Some("TYPE") => {
                        assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                        assert!(families.insert(name.to_owned(), rest.to_owned()).is_none(), "{line}");
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect(line);
            let name = series.split('{').next().expect("a name");
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(families.contains_key(name) || families.contains_key(family), "{line} has no type");
            if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let inside = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).expect(line);
                for label in inside.split("\",") {
                    let (key, value) = label.split_once("=\"").expect(line);
                    assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                    assert!(!value.is_empty(), "{line}");
                }
            }
            let value: f64 = value.parse().expect(line);
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line} is there twice");
        }
        Self { families, samples }
    }

    /// The sum of all series of a name whose labels contain a text.
    fn sum(&self, name: &str, labels: &str) -> f64 {
        let of_name = self.samples.iter().filter(|(series, _)| series.split('{').next() == Some(name));
        of_name.filter(|(series, _)| series.contains(labels)).map(|(_, value)| value).sum()
    }
}

/// The names in the first column of the tables of a document.
fn documented(prefixes: &[&str]) -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/observability.md")).expect("the page can be read");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned));
    rows.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))).collect()
}

/// Reads days of a diary, more than it is shown at a time.
const DIARY: &str = r#"
flow day(number: int) -> str {
    return "Day #{number}: rain in the morning, and we met the heron by the mill. Walked #{number * 3 % 17} miles home."
}
agent Reader(question: str) -> str uses day {
    prompt: "Read every day with the tool `day`, and answer."
    max_tool_calls: 60
    memory: { window: 600, page_size: 2, max_pages: 2 }
}
"#;

#[test]
fn paging_of_a_conversation_is_counted() {
    let desk = Desk::new();
    let days: String = (1..=40).map(|number| format!("call(day, {{ number: {number} }}), ")).collect();
    let script = desk.write("script.nx", &format!("script Reader => [{days}\"Twice.\"]"));
    let program = desk.write("diary.nx", DIARY);
    let (script, program) = (script.to_str().expect("a plain path"), program.to_str().expect("a plain path"));
    let server = desk.dev(&["--script", script, "--metrics", "127.0.0.1:0"]);
    let input = r#"{"question": "When did we meet the heron?"}"#;
    let args = ["submit", program, "--entry", "Reader", "--input", input, "--watch", "--server", &server.address];
    let said = desk.run(&args).good();
    assert!(said.contains("Twice."), "{said}");
    let metrics = server.ready["metrics"].as_str().expect("the object has the address of metrics");
    let figures = Figures::parse(&page(metrics, "/metrics").1);
    let of = |name: &str| figures.sum(name, "");
    let recalls = of("nexa_context_recalls_total");
    assert!(recalls > 20.0 && recalls < of("nexa_model_calls_total"), "not while all of it fits: {recalls}");
    assert!(of("nexa_page_faults_total") > 0.0, "there are more pages than may be active");
    assert!(of("nexa_page_hits_total") > 0.0);
    let evictions = of("nexa_page_evictions_total");
    assert!(evictions > 10.0, "each page comes and two stay: {evictions}");
}

#[test]
fn a_node_serves_every_figure_that_is_documented_and_they_agree_with_what_was_done() {
    let stage = Stage::open(&[]);
    assert_eq!(stage.page("/healthz"), (200, "healthy\n".to_owned()));
    assert_eq!(stage.page("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(stage.page("/nothing").0, 404);
    let before = stage.figures();
    assert_eq!(before.sum("nexa_model_calls_total", ""), 0.0);
    let runs = 3;
    for _ in 0..runs {
        stage.runs();
    }
    let after = stage.figures();
    let served: BTreeSet<String> = after.families.keys().cloned().collect();
    let mut documented_here = documented(&["nexa_", "gen_ai_", "process_"]);
    // Only with a budget for it.
    documented_here.remove("nexa_memory_budget_bytes");
    // Only once somebody has looked for something.
    documented_here.remove("nexa_recall_seconds");
    // Only with other nodes.
    documented_here.retain(|name| !name.starts_with("nexa_cluster_") && !name.starts_with("nexa_link_"));
    assert_eq!(served, documented_here, "left: served, right: docs/observability.md");
    // Reader, Counter twice, Chief.
    let runs = f64::from(runs);
    assert_eq!(after.sum("nexa_model_calls_total", ""), 4.0 * runs);
    assert_eq!(after.sum("gen_ai_client_operation_duration_seconds_count", ""), 4.0 * runs);
    assert_eq!(after.sum("gen_ai_client_token_usage_count", "gen_ai_token_type=\"input\""), 4.0 * runs);
    assert_eq!(after.sum("gen_ai_client_operation_time_to_first_chunk_seconds_count", ""), runs, "one agent streams");
    assert_eq!(after.sum("nexa_tool_calls_total", ""), runs);
    assert_eq!(after.sum("gen_ai_execute_tool_duration_seconds_count", ""), runs);
    assert_eq!(after.sum("nexa_rpc_seconds_count", "rpc=\"Submit\""), runs);
    assert_eq!(after.sum("nexa_panics_total", "") + after.sum("nexa_faults_total", ""), 0.0);
    let steps = after.sum("nexa_steps_total", "");
    assert!(steps >= 12.0 && after.sum("nexa_step_seconds_count", "") > 0.0, "{steps}");
    let appends = after.sum("nexa_appends_total", "");
    assert!(appends > 0.0 && after.sum("nexa_store_append_seconds_count", "") >= appends);
    assert!(after.sum("nexa_store_batch_appends_sum", "") >= appends);
    assert!(after.sum("process_resident_memory_bytes", "") > 1e6);
    for series in after.samples.keys() {
        for secret in ["Reader", "Counter", "Chief", "w-", "a-", "local/"] {
            assert!(!series.contains(secret), "{series} says who works");
        }
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused_and_so_is_a_collector_without_a_scheme() {
    let desk = Desk::new();
    let (code, err) = desk.run(&["dev", "--listen", "127.0.0.1:0", "--metrics", "0.0.0.0:0"]).bad();
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("not a loopback address"), "{err}");
    let (code, err) = desk.run(&["dev", "--listen", "127.0.0.1:0", "--otlp", "127.0.0.1:4317"]).bad();
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("http://HOST:PORT"), "{err}");
}

#[test]
fn log_lines_are_json_if_asked_for() {
    let desk = Desk::new();
    let script = desk.write("script.nx", SCRIPT);
    let program = desk.write("three.nx", PROGRAM);
    let args = ["--script", script.to_str().expect("a plain path"), "--log-format", "json"];
    let mut all = vec!["run", program.to_str().expect("a plain path"), "--input", r#"{"text": "quite private"}"#];
    all.extend(args);
    let mut command = desk.nexa(&all);
    command.env("NEXA_LOG", "info");
    let mut process = Process::start(command);
    assert!(process.wait().success());
    let err = process.rest_of_err();
    let lines: Vec<Value> = err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()), "{err}");
    let tool = lines.iter().find(|line| line["message"] == "tool is called").expect("the line of the tool");
    assert!(tool["agent"].as_str().is_some_and(|agent| agent.starts_with("a-")), "{tool}");
    assert!(tool["workload"].as_str().is_some_and(|workload| workload.starts_with("w-")), "{tool}");
    assert!(!err.contains("quite private"), "{err}");
}

/// Runs the program once with a collector, stops the node, and gives the spans.
async fn traced(more: &[&str]) -> Collector {
    let collector = Collector::default();
    let (address, closed) = collector.open().await;
    let mut args = vec!["--otlp", &address];
    args.extend(more);
    let mut stage = Stage::open(&args);
    tokio::task::block_in_place(|| {
        stage.runs();
        // What waits is sent before the process ends.
        stage.server.process.signal("TERM");
        assert!(stage.server.process.wait().success());
        let err = stage.server.process.rest_of_err();
        assert!(!err.contains("WARN") && !err.contains("ERROR"), "{err}");
    });
    closed.cancel();
    collector
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_have_the_names_parents_and_links_that_are_documented_and_no_words() {
    let collector = traced(&[]).await;
    let spans = collector.spans();
    let services = collector.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(services.len() == 1 && services.iter().all(|name| name.contains("\"nexa\"")), "{services:?}");
    let told = format!("{spans:?}");
    for secret in SECRET {
        assert!(!told.contains(secret), "a span says `{secret}`");
    }
    let of = |operation: &str| -> Vec<&Span> {
        let is_of = |span: &&Span| attribute(span, "gen_ai.operation.name").as_deref() == Some(operation);
        spans.iter().filter(is_of).collect()
    };
    let (turns, chats, tools) = (of("invoke_agent"), of("chat"), of("execute_tool"));
    let calls: Vec<&Span> = spans.iter().filter(|span| attribute(span, "rpc.system").is_some()).collect();
    assert_eq!(turns.len() + chats.len() + tools.len() + calls.len(), spans.len(), "there are other spans");
    // Looking on is in no trace unless it asks for it.
    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["nexa.v1/PutProgram", "nexa.v1/Submit"]);
    assert!(calls.iter().all(|call| call.kind == SpanKind::Server as i32 && call.parent_span_id.is_empty()));
    assert!(spans.iter().all(|span| attribute(span, "nexa.node.id").as_deref() == Some("local")), "{spans:?}");
    assert_eq!((chats.len(), tools.len()), (4, 1));

    // A turn is a trace of its own; what led to it is a link to another turn that was exported too.
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    let mut workloads = BTreeSet::new();
    for turn in &turns {
        let agent = attribute(turn, "gen_ai.agent.name").expect("a turn has an agent");
        assert_eq!(turn.name, format!("invoke_agent {agent}"));
        assert_eq!(turn.kind, SpanKind::Internal as i32);
        assert!(turn.parent_span_id.is_empty(), "{turn:?}");
        assert!(attribute(turn, "nexa.link").is_none());
        workloads.insert(attribute(turn, "nexa.workload.id").expect("a turn has a workload"));
        for link in &turn.links {
            let to = by_id.get(link.span_id.as_slice()).expect("a link leads to a span that is there");
            assert!(to.name.starts_with("invoke_agent ") || to.name == "nexa.v1/Submit", "{to:?}");
            assert_eq!(to.trace_id, link.trace_id);
            assert_ne!(link.trace_id, turn.trace_id);
        }
    }
    assert_eq!(workloads.len(), 1, "{workloads:?}");
    let traces: BTreeSet<&[u8]> = turns.iter().map(|turn| turn.trace_id.as_slice()).collect();
    assert_eq!(traces.len(), turns.len(), "each turn is a trace");
    // The very first turn follows the call that submitted it.
    assert!(turns.iter().all(|turn| !turn.links.is_empty()));
    assert!(turns.iter().any(|turn| turn.links.iter().any(|link| link.span_id == calls[1].span_id)));

    // A call is the child of the turn that sent it, and ends after it began.
    for call in chats.iter().chain(&tools) {
        let parent = by_id.get(call.parent_span_id.as_slice()).expect("a call has a turn");
        assert_eq!(parent.trace_id, call.trace_id);
        assert_eq!(attribute(parent, "gen_ai.agent.id"), attribute(call, "gen_ai.agent.id"));
        assert!(call.end_time_unix_nano >= call.start_time_unix_nano);
        assert!(call.status.as_ref().is_none_or(|status| status.code() != status::StatusCode::Error));
    }
    for chat in &chats {
        let model = attribute(chat, "gen_ai.request.model").expect("a chat has a model");
        assert_eq!(chat.name, format!("chat {model}"));
        assert_eq!(chat.kind, SpanKind::Client as i32);
        for known in [
            "gen_ai.provider.name",
            "gen_ai.response.model",
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.output_tokens",
            "gen_ai.conversation.id",
        ] {
            assert!(attribute(chat, known).is_some(), "{known} is not in {chat:?}");
        }
        let reasons = attribute(chat, "gen_ai.response.finish_reasons").expect("a chat has an end");
        assert!(reasons.starts_with('['), "{reasons}");
    }
    let streamed = chats.iter().filter(|chat| attribute(chat, "gen_ai.response.time_to_first_chunk").is_some());
    assert_eq!(streamed.count(), 1);
    assert_eq!(tools[0].name, "execute_tool calculate");
    assert_eq!(attribute(tools[0], "gen_ai.tool.name").as_deref(), Some("calculate"));
    let used: BTreeSet<String> =
        spans.iter().flat_map(|span| span.attributes.iter().map(|attribute| attribute.key.clone())).collect();
    let known = documented(&["gen_ai.", "nexa.", "error.", "rpc."]);
    assert!(used.is_subset(&known), "not in docs/observability.md: {:?}", used.difference(&known));
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_in_spans_if_asked_for_and_no_span_is_there_if_none_is_sampled() {
    let told = format!("{:?}", traced(&["--trace-content"]).await.spans());
    for word in ["a word of the reader", "quite private", "gen_ai.input.messages", "gen_ai.output.messages"] {
        assert!(told.contains(word), "no span says `{word}`");
    }
    assert_eq!(traced(&["--trace-ratio", "0"]).await.spans().len(), 0);
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let stage = Stage::open(&["--otlp", "http://127.0.0.1:1"]);
    stage.runs();
    wait_until("the spans to be given up", || stage.figures().sum("nexa_spans_lost_total", "") > 0.0);
    assert_eq!(stage.figures().sum("nexa_spans_sent_total", ""), 0.0);
    assert!(stage.server.process.said_so_far().contains("is the collector there?"));
    stage.runs();
}

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use expect_test::expect;
use futures::StreamExt;
use nexa_event::effect::{Finish, ModelReply};
use nexa_ports::model::{LaneLimits, Model, ModelError, NoChunks};
use nexa_types::{Millis, RunCode, Tokens, UsdMicro};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{ApiKey, Endpoint, EndpointConfig, RETRY_AFTER_MAX, retry_after};
use crate::testing::{Pieces, call, request};

/// What the endpoint does with every request.
#[derive(Clone)]
pub(super) enum Answering {
    Whole(StatusCode, &'static [(&'static str, &'static str)], String),
    Stream(Vec<&'static str>),
    /// Sends this and then breaks the connection.
    Broken(&'static str),
    /// Sends this and then nothing, with the connection open.
    Hanging(&'static str),
}

#[derive(Clone)]
pub(super) struct Desk {
    answering: Answering,
    seen: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    /// Told when a request that hangs is given up by the client.
    given_up: Arc<Notify>,
}

struct TellWhenDropped(Arc<Notify>);

impl Drop for TellWhenDropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn answer(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let json = serde_json::from_slice(&body).expect("a request is JSON");
    desk.seen.lock().expect("no holder panics").push((headers, json));
    let stream = Response::builder().header("content-type", "text/event-stream; charset=utf-8");
    let piece = |text: &'static str| Ok::<_, std::io::Error>(Bytes::from_static(text.as_bytes()));
    match desk.answering {
        Answering::Whole(status, headers, text) => {
            let response = Response::builder().status(status).header("content-type", "application/json");
            headers
                .iter()
                .fold(response, |response, (name, value)| response.header(*name, *value))
                .body(Body::from(text))
        }
        Answering::Stream(pieces) => stream.body(Body::from_stream(futures::stream::iter(pieces).map(piece))),
        Answering::Broken(text) => {
            // The pause lets the first piece leave before the connection breaks.
            let plug = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("pulled the plug"))
            });
            let broken = futures::stream::iter([piece(text)]).chain(plug);
            stream.body(Body::from_stream(broken))
        }
        Answering::Hanging(text) => {
            let guard = TellWhenDropped(desk.given_up.clone());
            let silence = futures::stream::once(async move {
                let _guard = guard;
                std::future::pending().await
            });
            stream.body(Body::from_stream(futures::stream::iter([piece(text)]).chain(silence)))
        }
    }
    .expect("a well-formed response")
}

impl Desk {
    pub(super) async fn open(answering: Answering) -> (Self, Endpoint) {
        let desk = Self { answering, seen: Arc::default(), given_up: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let app = axum::Router::new().route("/v1/chat/completions", post(answer)).with_state(desk.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (desk, endpoint(&format!("http://{address}/v1")))
    }

    pub(super) fn has_no_request(&self) -> bool {
        self.seen.lock().expect("no holder panics").is_empty()
    }

    pub(super) fn only_request(&self) -> (HeaderMap, Value) {
        let seen = self.seen.lock().expect("no holder panics");
        assert_eq!(seen.len(), 1);
        seen[0].clone()
    }
}

fn endpoint(base_url: &str) -> Endpoint {
    Endpoint::new(EndpointConfig {
        provider: "acme".to_owned(),
        base_url: base_url.to_owned(),
        key: Some((ApiKey::new("sk-very-secret"), "the variable ACME_KEY".to_owned())),
        limits: LaneLimits::at_once(4),
        price: (UsdMicro(2_000_000), UsdMicro(8_000_000)),
    })
    .expect("a good URL")
}

async fn ask(endpoint: &Endpoint, stream: bool) -> (Result<ModelReply, ModelError>, String) {
    let mut asking = request("hi");
    asking.model = "acme/large-1".to_owned();
    asking.stream = stream;
    let pieces = Pieces::default();
    let reply = endpoint.ask(call(3, asking), &pieces).await;
    (reply, pieces.text())
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

const WHOLE: &str = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}"#;

#[test]
fn a_request_says_everything_and_an_answer_is_counted_and_priced() {
    block_on(async {
        let (desk, endpoint) = Desk::open(Answering::Whole(StatusCode::OK, &[], WHOLE.to_owned())).await;
        let mut asking = request("hi");
        asking.model = "acme/large-1".to_owned();
        asking.stream = false;
        asking.schema = Some(r#"{"type":"object"}"#.to_owned());
        asking.sampling.stop = vec!["END".to_owned()];
        let sent = call(3, asking);
        let key = sent.key.to_string();
        let reply = endpoint.ask(sent, &NoChunks).await.expect("an answer");
        assert_eq!((reply.text.as_str(), reply.finish, reply.model.as_str()), ("Hello.", Finish::Stop, "acme/large-1"));
        assert_eq!((reply.spend.tokens_in, reply.spend.tokens_out, reply.spend.calls), (Tokens(12), Tokens(3), 1));
        assert_eq!(reply.spend.cost, UsdMicro(12 * 2 + 3 * 8));
        let (headers, body) = desk.only_request();
        assert_eq!(headers["idempotency-key"], key.as_str());
        assert_eq!(headers["authorization"], "Bearer sk-very-secret");
        expect![[r#"{"model":"large-1","messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"hi"}],"temperature":0.7,"top_p":0.9,"max_tokens":24,"seed":1,"stop":["END"],"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":{"type":"object"}}}}"#]]
        .assert_eq(&body.to_string());
    });
}

#[test]
fn a_stream_is_passed_on_piece_by_piece() {
    block_on(async {
        let pieces = vec![
            ": comment\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"con",
            "tent\":\"Good \"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"day\"}}]}\r\n\r\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\ndata: never read\n\n",
        ];
        let (desk, endpoint) = Desk::open(Answering::Stream(pieces)).await;
        let (reply, shown) = ask(&endpoint, true).await;
        let reply = reply.expect("an answer");
        assert_eq!((reply.text.as_str(), shown.as_str(), reply.finish), ("Good day", "Good day", Finish::Length));
        assert_eq!((reply.spend.tokens_in, reply.spend.tokens_out), (Tokens(5), Tokens(2)));
        let (_, body) = desk.only_request();
        assert_eq!((&body["stream"], &body["stream_options"]), (&json!(true), &json!({"include_usage": true})));
    });
}

#[test]
fn an_endpoint_that_does_not_stream_or_count_is_understood_too() {
    block_on(async {
        let plain = r#"{"choices":[{"message":{"content":"12345678"}}]}"#;
        let (_, endpoint) = Desk::open(Answering::Whole(StatusCode::OK, &[], plain.to_owned())).await;
        let (reply, shown) = ask(&endpoint, true).await;
        assert_eq!(shown, "12345678");
        assert_eq!(reply.expect("an answer").spend.tokens_out, Tokens(2));
    });
}

/// What comes of an answer: code, wait, message without the port.
async fn told(answering: Answering) -> String {
    let (_, endpoint) = Desk::open(answering).await;
    let (reply, shown) = ask(&endpoint, true).await;
    let error = reply.expect_err("no answer");
    let mut message = error.message.clone();
    if let (Some(from), Some(to)) = (message.find("127.0.0.1:"), message.find("/v1")) {
        message.replace_range(from..to, "HOST");
    }
    assert!(!message.contains("secret"), "{message}");
    let wait = error.retry_after.map(|wait| format!(" wait {wait}")).unwrap_or_default();
    let shown = if shown.is_empty() { String::new() } else { format!(" after “{shown}”") };
    format!("{}{wait}{shown}: {message}\n", error.code)
}

#[test]
fn every_kind_of_bad_answer_says_what_happened_and_what_to_do() {
    let whole = |status: u16, headers, text: &str| {
        Answering::Whole(StatusCode::from_u16(status).expect("a status"), headers, text.to_owned())
    };
    let seen = block_on(async {
        let mut seen = String::new();
        for answering in [
            whole(429, &[("retry-after", "7")], r#"{"error":{"message":"too\n many","type":"x"}}"#),
            whole(503, &[("retry-after", "0.5")], "upstream gone"),
            whole(500, &[], ""),
            whole(401, &[], r#"{"error":"bad key"}"#),
            whole(400, &[], &"x".repeat(5_000)),
            whole(404, &[], "{}"),
            whole(408, &[], "{}"),
            whole(302, &[("location", "http://127.0.0.1:1/")], ""),
            whole(200, &[], "<html>hello</html>"),
            whole(200, &[], r#"{"object":"list","data":[]}"#),
            whole(
                200,
                &[],
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"1"}]},"finish_reason":"tool_calls"}]}"#,
            ),
            Answering::Stream(vec!["data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n"]),
            Answering::Stream(vec!["data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: {oops\n\n"]),
            Answering::Stream(vec!["data: {\"error\":{\"message\":\"overloaded\"}}\n\n"]),
            Answering::Broken("data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n"),
        ] {
            seen.push_str(&told(answering).await);
        }
        seen
    });
    expect![[r#"
        rate_limited wait 7000: endpoint `acme` at http://HOST/v1 answered 429 Too Many Requests saying “too many”; slow down or raise the limit there
        unavailable wait 500: endpoint `acme` at http://HOST/v1 answered 503 Service Unavailable saying “upstream gone”; try again later or look at the endpoint
        unavailable: endpoint `acme` at http://HOST/v1 answered 500 Internal Server Error; try again later or look at the endpoint
        refused: endpoint `acme` at http://HOST/v1 answered 401 Unauthorized saying “bad key”; check the key in the variable ACME_KEY
        refused: endpoint `acme` at http://HOST/v1 answered 400 Bad Request saying “xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx …”; the same request will be refused again
        refused: endpoint `acme` at http://HOST/v1 answered 404 Not Found saying “{}”; check the base URL and the model's name
        timeout: endpoint `acme` at http://HOST/v1 answered 408 Request Timeout saying “{}”; try again
        refused: endpoint `acme` at http://HOST/v1 answered 302 Found; configure the URL that it redirects to
        output_invalid: endpoint `acme` at http://HOST/v1 sent something that is no chat completion: expected value at line 1 column 1; check that the URL is that of the API
        output_invalid: endpoint `acme` at http://HOST/v1 sent something that is no chat completion: it has no choices; check that the URL is that of the API
        output_invalid: endpoint `acme` at http://HOST/v1 asks for tools although none were offered; use another model
        unavailable after “Hel”: endpoint `acme` at http://HOST/v1 ended its stream after 3 bytes of text without saying that it was done; try again
        output_invalid after “Hel”: endpoint `acme` at http://HOST/v1 sent something that is no chat completion: key must be a string at line 1 column 2; check that the URL is that of the API
        unavailable: endpoint `acme` at http://HOST/v1 answered with an error, “overloaded”; try again
        unavailable after “Hel”: endpoint `acme` at http://HOST/v1 broke off its answer after 49 bytes (error decoding response body: error reading a body from connection: unexpected EOF during chunk size line); try again
    "#]].assert_eq(&seen);
}

#[test]
fn nobody_at_the_address_is_said_so() {
    let error = block_on(async {
        // A port that was free a moment ago.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        ask(&endpoint(&format!("http://user:secret@{address}/v1/")), false).await.0.expect_err("nobody there")
    });
    assert_eq!(error.code, RunCode::Unavailable);
    assert!(error.message.contains("check that it runs") && !error.message.contains("secret"), "{error}");
}

#[test]
fn an_endless_answer_is_cut_off() {
    block_on(async {
        let (_, endpoint) =
            Desk::open(Answering::Whole(StatusCode::OK, &[], "x".repeat(super::ANSWER_BYTES_MAX + 1))).await;
        let error = ask(&endpoint, false).await.0.expect_err("too long");
        assert_eq!(error.code, RunCode::OutputInvalid);
        assert!(error.message.contains("longer than"), "{error}");
    });
}

#[test]
fn a_hanging_endpoint_ends_with_the_deadline_or_the_cancellation_and_is_let_go() {
    block_on(async {
        let half = "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n";
        let (desk, endpoint) = Desk::open(Answering::Hanging(half)).await;
        let mut late = call(1, request("hi"));
        late.deadline = Duration::from_millis(50);
        let error = endpoint.ask(late, &NoChunks).await.expect_err("late");
        assert_eq!(error.code, RunCode::Timeout);
        assert!(error.message.contains("did not answer within 50ms"), "{error}");
        desk.given_up.notified().await;

        let cancelled = call(2, request("hi"));
        let cancel = cancelled.cancel.clone();
        let pieces = Pieces::default();
        let watching = async {
            while pieces.text().is_empty() {
                tokio::task::yield_now().await;
            }
            cancel.cancel();
        };
        let (reply, ()) = futures::join!(endpoint.ask(cancelled, &pieces), watching);
        assert_eq!(reply.expect_err("cancelled").code, RunCode::Cancelled);
        desk.given_up.notified().await;
    });
}

#[test]
fn a_wait_is_seconds_or_a_date_and_never_absurd() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
    let wait = |text: &str| {
        let headers = HeaderMap::from_iter([(super::RETRY_AFTER, text.parse().expect("a header"))]);
        retry_after(&headers, now).map(|Millis(wait)| wait)
    };
    assert_eq!(wait("120"), Some(120_000));
    assert_eq!(wait("1.5"), Some(1_500));
    assert_eq!(wait("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30_000));
    assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
    assert_eq!(wait("99999999999"), Some(RETRY_AFTER_MAX.as_millis() as u64));
    assert_eq!(wait("soon"), None);
    assert_eq!(wait("-1"), None);
    assert_eq!(wait("NaN"), None);
    assert_eq!(retry_after(&HeaderMap::new(), SystemTime::now()), None);
}

#[test]
fn a_key_is_never_shown_and_a_url_is_checked() {
    let shown = format!("{:?}", endpoint("http://localhost:1/v1"));
    assert!(!shown.contains("very-secret"), "{shown}");
    for url in ["localhost:8000", "ftp://x/v1", "", "http://"] {
        let config = EndpointConfig { base_url: url.to_owned(), ..endpoint("http://localhost:1/v1").config };
        assert!(Endpoint::new(config).is_err_and(|error| error.to_string().contains("http://host:port/v1")), "{url}");
    }
}

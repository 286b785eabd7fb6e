//! A simulated OpenAI-compatible endpoint over real HTTP on loopback.
//!
//! It answers chat completions from a script, whole or as a stream, and counts requests by their `Idempotency-Key`, which
//! is the effect's key: the count of a key is how often that effect was sent. The agent that asks is named by the
//! header `X-Nexa-Agent`, because a script answers by agent.
//!
//! It lives in the test's process, so it survives whatever is done to the process under test. At most
//! [`REQUESTS_MAX`] requests are remembered; more fail the test.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::stream;
use nexa_llm::script::{Say, Script, Seating};
use nexa_types::{EffectKey, RunCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How many requests an endpoint remembers.
pub const REQUESTS_MAX: usize = 100_000;

/// What goes wrong, beyond what the script says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Answers never come.
    Hangs,
    /// The body is no JSON.
    Nonsense,
    /// The connection ends in the middle of a stream.
    DropsInMidStream,
    /// Status 429 with `Retry-After: 1`.
    TooManyRequests,
}

/// A running endpoint. Stops with the value.
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    script: Script,
    state: Mutex<Seen>,
    /// How many requests have come; tests wait on it.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Seen {
    seating: Seating,
    /// Requests by key, and the agent that asked.
    requests: BTreeMap<EffectKey, (String, usize)>,
    answered: BTreeMap<EffectKey, usize>,
    /// Faults for the next requests, first come first served.
    faults: Vec<Fault>,
}

impl Endpoint {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// What binding met.
    pub async fn start(script: Script) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { script, state: Mutex::default(), count: watch::Sender::new(0) });
        let router = Router::new().route("/v1/chat/completions", post(complete)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It ends with the test; an error of the listener shows as requests that fail.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, server })
    }

    /// What `--endpoint PROVIDER=URL` takes.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Lets the next requests go wrong.
    pub fn fail_next(&self, faults: &[Fault]) {
        self.seen().faults.extend_from_slice(faults);
    }

    /// How often each effect was sent.
    pub fn sent(&self) -> BTreeMap<EffectKey, usize> {
        self.seen().requests.iter().map(|(key, (_, count))| (*key, *count)).collect()
    }

    /// How often each effect was answered to the end, as far as this side can tell.
    pub fn answered(&self) -> BTreeMap<EffectKey, usize> {
        self.seen().answered.clone()
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Changes whenever a request comes.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.shared.count.subscribe()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().expect("no holder of this lock can panic")
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({ "error": { "message": message } }))).into_response()
}

async fn complete(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let Some(key) = text("idempotency-key").and_then(|text| text.parse::<EffectKey>().ok()) else {
        return refusal(StatusCode::BAD_REQUEST, "the Idempotency-Key is missing or no effect key");
    };
    let Some(agent) = text("x-nexa-agent").map(str::to_owned) else {
        return refusal(StatusCode::BAD_REQUEST, "the X-Nexa-Agent header is missing");
    };
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "the body is not JSON");
    };
    let (turn, fault) = {
        let mut seen = shared.seen();
        if seen.requests.len() >= REQUESTS_MAX {
            return refusal(StatusCode::INSUFFICIENT_STORAGE, "the endpoint cannot remember more requests");
        }
        seen.requests.entry(key).or_insert_with(|| (agent.clone(), 0)).1 += 1;
        let fault = if seen.faults.is_empty() { Fault::None } else { seen.faults.remove(0) };
        (shared.script.next_turn(&mut seen.seating, &agent, key).cloned(), fault)
    };
    shared.count.send_modify(|count| *count += 1);
    match fault {
        Fault::None | Fault::DropsInMidStream => {}
        Fault::Hangs => std::future::pending().await,
        Fault::Nonsense => return "<html>this is not JSON</html>".into_response(),
        Fault::TooManyRequests => {
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "slow down");
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            return response;
        }
    }
    let turn = match turn {
        Ok(turn) => turn,
        Err(miss) => return refusal(StatusCode::UNPROCESSABLE_ENTITY, &miss.to_string()),
    };
    tokio::time::sleep(turn.after).await;
    let answer = match turn.say {
        Say::Text(text) => text,
        Say::Fail(code) => return refusal(status_of(code), code.meaning()),
    };
    let usage = json!({
        "prompt_tokens": body.len().div_ceil(4),
        "completion_tokens": answer.len().div_ceil(4),
    });
    if request["stream"] == Value::Bool(true) {
        return stream_answer(&answer, &usage, fault == Fault::DropsInMidStream, shared, key);
    }
    *shared.seen().answered.entry(key).or_default() += 1;
    let choice = json!({ "index": 0, "message": { "role": "assistant", "content": answer }, "finish_reason": "stop" });
    axum::Json(json!({ "model": request["model"], "choices": [choice], "usage": usage })).into_response()
}

fn status_of(code: RunCode) -> StatusCode {
    match code {
        RunCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        RunCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RunCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn stream_answer(answer: &str, usage: &Value, drops: bool, shared: Arc<Shared>, key: EffectKey) -> Response {
    let frame = |value: &Value| format!("data: {value}\n\n");
    let mut frames: Vec<String> = answer
        .split_inclusive(' ')
        .map(|piece| frame(&json!({ "choices": [{ "index": 0, "delta": { "content": piece } }] })))
        .collect();
    if drops {
        frames.truncate(frames.len() / 2);
        let broken = frames.into_iter().map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
        let error = std::iter::once_with(|| Err(std::io::Error::other("the endpoint drops the connection")));
        return stream_response(Body::from_stream(stream::iter(broken.chain(error))));
    }
    frames.push(frame(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] })));
    frames.push(frame(&json!({ "choices": [], "usage": usage })));
    frames.push("data: [DONE]\n\n".to_owned());
    // The last frame counts as answered when it is taken from the stream.
    let last = frames.len() - 1;
    let frames = frames.into_iter().enumerate().map(move |(at, text)| {
        if at == last {
            *shared.seen().answered.entry(key).or_default() += 1;
        }
        Ok::<_, Infallible>(Bytes::from(text))
    });
    stream_response(Body::from_stream(stream::iter(frames)))
}

fn stream_response(body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    response
}

//! A simulated OpenAI-compatible endpoint over real HTTP on loopback.
//!
//! It answers chat completions from a script, whole or as a stream, and counts requests by their `Idempotency-Key`, which
//! is the effect's key: the count of a key is how often that effect was sent. The agent that asks is named by the
//! header `X-Nexa-Agent`, because a script answers by agent.
//!
//! A turn `call(tool, …)` is answered with that call, whatever was offered: a model may ask for anything. A conversation
//! in which a tool's result belongs to no call is refused, as the real ones do.
//!
//! It lives in the test's process, so it survives whatever is done to the process under test. At most
//! [`REQUESTS_MAX`] requests are remembered; more fail the test.

use std::collections::{BTreeMap, BTreeSet};
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
use nexa_llm::script::{Say, Script, Seating, Turn};
use nexa_llm::tools::call_id;
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

enum Answers {
    Script(Script),
    By(fn(&Value) -> Turn),
}

struct Shared {
    answers: Answers,
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
        Self::answering(Answers::Script(script)).await
    }

    /// The same with answers that are a function of the request's body: where many agents have one name, a list of turns
    /// knows nothing of which of them asks.
    ///
    /// # Errors
    /// What binding met.
    pub async fn start_by(answer: fn(&Value) -> Turn) -> std::io::Result<Self> {
        Self::answering(Answers::By(answer)).await
    }

    async fn answering(answers: Answers) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { answers, state: Mutex::default(), count: watch::Sender::new(0) });
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
    if let Err(complaint) = results_belong_to_calls(&request) {
        return refusal(StatusCode::BAD_REQUEST, &complaint);
    }
    let (turn, fault) = {
        let mut seen = shared.seen();
        if seen.requests.len() >= REQUESTS_MAX {
            return refusal(StatusCode::INSUFFICIENT_STORAGE, "the endpoint cannot remember more requests");
        }
        seen.requests.entry(key).or_insert_with(|| (agent.clone(), 0)).1 += 1;
        let fault = if seen.faults.is_empty() { Fault::None } else { seen.faults.remove(0) };
        let turn = match &shared.answers {
            Answers::Script(script) => script.next_turn(&mut seen.seating, &agent, key).cloned(),
            Answers::By(answer) => Ok(answer(&request)),
        };
        (turn, fault)
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
        Say::Text(text) => Answer::Text(text),
        Say::Call { tool, arguments } => Answer::Call { id: call_id(key, 1), tool, arguments },
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
    let choice = json!({ "index": 0, "message": answer.message(), "finish_reason": answer.finish_reason() });
    axum::Json(json!({ "model": request["model"], "choices": [choice], "usage": usage })).into_response()
}

/// Each message of a tool names a call of an earlier message of the assistant.
fn results_belong_to_calls(request: &Value) -> Result<(), String> {
    let mut calls: BTreeSet<&str> = BTreeSet::new();
    for message in request["messages"].as_array().into_iter().flatten() {
        let called = message["tool_calls"].as_array().into_iter().flatten();
        calls.extend(called.filter_map(|call| call["id"].as_str()));
        let id = message["tool_call_id"].as_str().unwrap_or_default();
        if message["role"] == "tool" && !calls.contains(id) {
            return Err(format!("a message of a tool answers the call `{id}`, which nobody made"));
        }
    }
    Ok(())
}

/// What the script answers, in the API's words.
enum Answer {
    Text(String),
    Call { id: String, tool: String, arguments: String },
}

impl Answer {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Call { tool, arguments, .. } => tool.len() + arguments.len(),
        }
    }

    fn finish_reason(&self) -> &'static str {
        match self {
            Self::Text(_) => "stop",
            Self::Call { .. } => "tool_calls",
        }
    }

    fn message(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "role": "assistant", "content": text }),
            Self::Call { id, tool, arguments } => {
                let function = json!({ "name": tool, "arguments": arguments });
                let call = json!({ "id": id, "type": "function", "function": function });
                json!({ "role": "assistant", "content": null, "tool_calls": [call] })
            }
        }
    }

    /// The pieces of a stream: a text by words; a call by its name, and then its arguments in fragments.
    fn deltas(&self) -> Vec<Value> {
        match self {
            Self::Text(text) => text.split_inclusive(' ').map(|piece| json!({ "content": piece })).collect(),
            Self::Call { id, tool, arguments } => {
                let function = json!({ "name": tool, "arguments": "" });
                let opening = json!({ "index": 0, "id": id, "type": "function", "function": function });
                let fragments = arguments.split_inclusive([',', ':', '{']);
                let rest = fragments.map(|piece| json!({ "index": 0, "function": { "arguments": piece } }));
                std::iter::once(opening).chain(rest).map(|call| json!({ "tool_calls": [call] })).collect()
            }
        }
    }
}

fn status_of(code: RunCode) -> StatusCode {
    match code {
        RunCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        RunCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RunCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn stream_answer(answer: &Answer, usage: &Value, drops: bool, shared: Arc<Shared>, key: EffectKey) -> Response {
    let frame = |value: &Value| format!("data: {value}\n\n");
    let mut frames: Vec<String> = answer
        .deltas()
        .into_iter()
        .map(|delta| frame(&json!({ "choices": [{ "index": 0, "delta": delta }] })))
        .collect();
    if drops {
        frames.truncate(frames.len() / 2);
        let broken = frames.into_iter().map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
        let error = std::iter::once_with(|| Err(std::io::Error::other("the endpoint drops the connection")));
        return stream_response(Body::from_stream(stream::iter(broken.chain(error))));
    }
    frames.push(frame(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": answer.finish_reason() }] })));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use nexa_event::effect::{
        Finish, Message, ModelReply, ModelRequest, Purpose, Role, Sampling, Source, ToolChoice, ToolOffer,
    };
    use nexa_llm::openai::{Endpoint as Adapter, EndpointConfig};
    use nexa_llm::router::Router;
    use nexa_llm::script::ScriptedModel;
    use nexa_ports::model::{LaneLimits, Model, ModelCall, ModelError, NoChunks};
    use nexa_types::{AgentId, Millis, RequestId, Seq, TenantId, Tokens, UsdMicro, WorkloadId};

    use super::*;

    const SCRIPT: &str = r#"script Helper => [call(find, { q: "cats, dogs", near: { x: 1 } }), "They purr."]"#;

    fn request(stream: bool, messages: Vec<Message>) -> ModelRequest {
        let find = ToolOffer {
            name: "find".to_owned(),
            description: "Finds pages.".to_owned(),
            schema: r#"{"type":"object"}"#.to_owned(),
        };
        ModelRequest {
            agent: "Helper".to_owned(),
            purpose: Purpose::Agent,
            model: "acme/large".to_owned(),
            messages,
            schema: None,
            tools: vec![find],
            tool_choice: ToolChoice::Auto,
            sampling: Sampling { temperature: 0.0, top_p: 1.0, max_tokens: Tokens(99), seed: None, stop: Vec::new() },
            stream,
            cache: false,
            memory: None,
            timeout: Millis(60_000),
        }
    }

    async fn ask(model: &dyn Model, seq: u64, request: ModelRequest) -> Result<ModelReply, ModelError> {
        let tenant = TenantId::local();
        let workload = WorkloadId::of(&tenant, RequestId::from_bytes([7; 16]));
        let key = EffectKey::of(workload, AgentId::root(workload), Seq(seq));
        let deadline = Duration::from_secs(60);
        let call = ModelCall { request, key, attempt: 1, tenant, workload, deadline, cancel: Default::default() };
        model.ask(call, &NoChunks).await
    }

    fn over_http(endpoint: &Endpoint) -> Router {
        let config = EndpointConfig {
            provider: "acme".to_owned(),
            base_url: endpoint.url(),
            key: None,
            limits: LaneLimits::at_once(4),
            price: (UsdMicro(0), UsdMicro(0)),
        };
        Router::new("acme/large").with("acme", Arc::new(Adapter::new(config).expect("a good URL")))
    }

    /// A whole conversation: the question, the call, its result, the answer.
    async fn converse(model: &dyn Model, stream: bool) -> Vec<ModelReply> {
        let mut messages = vec![Message::new(Role::User, "What do cats do?", Source::Program)];
        let called = ask(model, 1, request(stream, messages.clone())).await.expect("a call");
        let call = called.tool_calls.first().expect("one call").clone();
        messages.push(Message::calling(called.text.clone(), Source::Answer(Seq(1)), vec![call.clone()]));
        messages.push(Message::returned(call.id, "purring", Source::Answer(Seq(2))));
        let answered = ask(model, 3, request(stream, messages)).await.expect("an answer");
        vec![called, answered]
    }

    #[tokio::test]
    async fn a_scripted_call_comes_the_same_over_http_whole_or_streamed_and_without_http() {
        let script = || Script::parse(SCRIPT).expect("a script");
        let told = |replies: Vec<ModelReply>| -> Vec<_> {
            replies.into_iter().map(|reply| (reply.text, reply.finish, reply.tool_calls)).collect()
        };
        let direct = told(converse(&ScriptedModel::new(script()), true).await);
        for stream in [false, true] {
            let endpoint = Endpoint::start(script()).await.expect("loopback has a port");
            assert_eq!(told(converse(&over_http(&endpoint), stream).await), direct);
            assert_eq!(endpoint.answered().values().sum::<usize>(), 2);
        }
        let (text, finish, calls) = &direct[0];
        assert_eq!((text.as_str(), *finish), ("", Finish::ToolCalls));
        assert_eq!(calls[0].arguments, r#"{"q":"cats, dogs","near":{"x":1}}"#);
        assert_eq!((direct[1].0.as_str(), direct[1].1, direct[1].2.len()), ("They purr.", Finish::Stop, 0));
    }

    #[tokio::test]
    async fn a_call_of_what_was_not_offered_reaches_the_adapter_which_refuses_it() {
        let script = Script::parse("script Helper => call(delete_all, {})").expect("a script");
        let endpoint = Endpoint::start(script).await.expect("loopback has a port");
        let error = ask(&over_http(&endpoint), 1, request(true, Vec::new())).await.expect_err("not offered");
        assert_eq!(error.code, RunCode::OutputInvalid);
        assert!(error.message.contains("`delete_all`, which was not offered; offered: find"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_that_drops_within_a_call_gives_no_call() {
        let endpoint = Endpoint::start(Script::parse(SCRIPT).expect("a script")).await.expect("loopback has a port");
        endpoint.fail_next(&[Fault::DropsInMidStream]);
        let router = over_http(&endpoint);
        let error = ask(&router, 1, request(true, Vec::new())).await.expect_err("half a call");
        assert_eq!(error.code, RunCode::Unavailable);
        // The same effect again gets the same turn.
        let reply = ask(&router, 1, request(true, Vec::new())).await.expect("a call");
        assert_eq!(reply.tool_calls.len(), 1);
    }

    #[tokio::test]
    async fn a_result_without_its_call_is_refused() {
        let endpoint = Endpoint::start(Script::parse(SCRIPT).expect("a script")).await.expect("loopback has a port");
        let stray = vec![Message::returned("call_x", "purring", Source::Program)];
        let error = ask(&over_http(&endpoint), 1, request(false, stray)).await.expect_err("a stray result");
        assert_eq!(error.code, RunCode::Refused);
        assert!(error.message.contains("the call `call_x`, which nobody made"), "{error}");
    }
}

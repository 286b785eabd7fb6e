//! A simulated model endpoint: chat completions over real HTTP, on loopback for most.
//!
//! It lives in the process of whoever drives the load, so it survives whatever is done to the node, and remembers.
//!
//! - [`profile`]: what it says, how long it takes, what goes wrong; the same for the same seed.
//! - [`limits`]: what one API key may do; above it comes 429 with `Retry-After`.
//! - [`counts`]: how often each `Idempotency-Key` was sent and answered.
//! - `wire`: the API's words, whole and streamed.
//!
//! A request is counted, let in or refused, held if all are ([`Endpoint::hold`]), waited for, and answered, in this order.
//! One that hangs does so until the client gives up, at most [`HANG_MAX`].

pub mod counts;
pub mod limits;
pub mod profile;
mod wire;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::stream;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::counts::{Admission, Counts, Key, Totals};
use self::limits::{KeyLimits, KeyUse};
use self::profile::{Fate, Profile, hash64, tag, tokens};

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: u32 = 16_384;
/// API keys whose limits are kept apart; requests with a further one share those of requests without a key.
const API_KEYS_MAX: usize = 1_024;
/// How long a request hangs whose client does not give up.
pub const HANG_MAX: Duration = Duration::from_secs(3_600);

/// What an endpoint is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// How it behaves.
    pub profile: Profile,
    /// What each API key may do.
    pub limits: KeyLimits,
    /// How many tags there are, from 0.
    pub tags: usize,
    /// How many answers a tag gets in all.
    pub answers_per_tag: u32,
    /// The address of this machine that it listens on.
    pub host: Ipv4Addr,
    /// The port; 0 for any free one.
    pub port: u16,
}

/// A running endpoint. Stops with the value.
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    profile: Profile,
    limits: KeyLimits,
    started: Instant,
    counts: Mutex<Counts>,
    keys: Mutex<BTreeMap<String, KeyUse>>,
    held: watch::Sender<bool>,
}

impl Endpoint {
    /// Starts where it is told to listen.
    ///
    /// # Errors
    /// What binding met.
    pub async fn start(config: Config) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((config.host, config.port).into())?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            profile: config.profile,
            limits: config.limits,
            started: Instant::now(),
            counts: Mutex::new(Counts::new(config.tags, config.answers_per_tag)),
            keys: Mutex::default(),
            held: watch::Sender::new(false),
        });
        let router = Router::new().route("/v1/chat/completions", post(complete)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // It ends with the value; an error of the listener shows as requests that fail.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, server })
    }

    /// What `--endpoint PROVIDER=URL` takes.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The moment from which its times count.
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// Keeps all answers back until they are released.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets the answers go.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// The sums so far.
    pub fn totals(&self) -> Totals {
        self.shared.counts().totals
    }

    /// What is known of an `Idempotency-Key`.
    pub fn key(&self, key: &str) -> Key {
        self.shared.counts().key(hash64(key.as_bytes()))
    }

    /// The keys that were sent more than once, by their hash.
    pub fn sent_again(&self) -> Vec<(u64, Key)> {
        self.shared.counts().sent_again()
    }

    /// When the first request of each tag came, from [`Endpoint::started`] on.
    pub fn first_of_tag(&self, tag: usize) -> Option<Duration> {
        self.shared.counts().first_of_tag(tag)
    }

    /// The requests that were let in, in order.
    pub fn admissions(&self) -> Vec<Admission> {
        self.shared.counts().admissions()
    }

    /// How many answers went out in each second.
    pub fn answers_by_second(&self) -> Vec<u32> {
        self.shared.counts().answers_by_second()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Every change under this lock is complete before anything that could panic.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> MutexGuard<'_, BTreeMap<String, KeyUse>> {
        // As above.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request of an API key in, or says when to come back.
    fn admit(self: &Arc<Self>, api_key: String, admission: Admission) -> Result<UnderWay, Duration> {
        let api_key = {
            let mut keys = self.keys();
            let is_known = keys.contains_key(&api_key) || keys.len() < API_KEYS_MAX;
            let api_key = if is_known { api_key } else { String::new() };
            let used = keys.entry(api_key.clone()).or_insert_with(|| KeyUse::new(self.limits));
            used.begin(admission.at, admission.input, admission.output)?;
            api_key
        };
        self.counts().begins(admission);
        Ok(UnderWay { shared: Arc::clone(self), api_key })
    }
}

/// A request that was let in; ends with the value, also when the client has gone.
struct UnderWay {
    shared: Arc<Shared>,
    api_key: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.counts().ends();
        if let Some(used) = self.shared.keys().get_mut(&self.api_key) {
            used.end();
        }
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({ "error": { "message": message } }))).into_response()
}

async fn complete(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let Some(key) = text("idempotency-key").map(|key| hash64(key.as_bytes())) else {
        return refusal(StatusCode::BAD_REQUEST, "the Idempotency-Key is missing");
    };
    let asked: wire::Asked<'_> = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &format!("the body is no request: {error}")),
    };
    let Some(message) = asked.message() else {
        return refusal(StatusCode::BAD_REQUEST, "there is no message of a user");
    };
    let Some(sending) = shared.counts().sent(key, tag(message), shared.started.elapsed()) else {
        return refusal(StatusCode::INSUFFICIENT_STORAGE, "the endpoint cannot remember more keys");
    };
    let answer = shared.profile.answer(message);
    let api_key = text("authorization").unwrap_or_default().to_owned();
    let (input, output) = (asked.tokens(), tokens(answer.len()));
    let admission = Admission { at: shared.started.elapsed(), tag: tag(message), input, output };
    let under_way = match shared.admit(api_key, admission) {
        Ok(under_way) => under_way,
        Err(wait) => {
            shared.counts().totals.rate_limited += 1;
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, "more than this key may do");
            // Whole seconds, as the header has it.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            return response;
        }
    };
    let mut held = shared.held.subscribe();
    // The sender lives as long as `shared`.
    let _ = held.wait_for(|held| !held).await;
    let fate = shared.profile.fate(key, sending);
    if fate != Fate::Answered {
        shared.counts().totals.faults += 1;
    }
    let latency = shared.profile.latency(key);
    match fate {
        Fate::Hangs => {
            tokio::time::sleep(HANG_MAX).await;
            return refusal(StatusCode::GATEWAY_TIMEOUT, "nothing came");
        }
        Fate::Error => {
            tokio::time::sleep(latency).await;
            return refusal(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong, on purpose");
        }
        Fate::Answered | Fate::Dropped => {}
    }
    let drops = fate == Fate::Dropped;
    let frames = if asked.stream {
        wire::frames(&asked.model, &answer, input)
    } else {
        vec![Bytes::from(wire::whole(&asked.model, &answer, input).to_string())]
    };
    if !asked.stream && !drops {
        tokio::time::sleep(latency).await;
        shared.counts().answered(key, shared.started.elapsed());
        drop(under_way);
        let body = frames.into_iter().next().unwrap_or_default();
        return typed("application/json", Body::from(body));
    }
    let content_type = if asked.stream { "text/event-stream" } else { "application/json" };
    typed(content_type, Body::from_stream(pieces(shared, under_way, key, frames, latency, drops)))
}

fn typed(content_type: &'static str, body: Body) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The frames over the time that the answer takes. One that is dropped ends in the middle of its middle frame.
fn pieces(
    shared: Arc<Shared>,
    under_way: UnderWay,
    key: u64,
    mut frames: Vec<Bytes>,
    latency: Duration,
    drops: bool,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let pause = latency / u32::try_from(frames.len()).unwrap_or(u32::MAX).max(1);
    if drops {
        frames.truncate(frames.len().div_ceil(2));
        if let Some(last) = frames.last_mut() {
            last.truncate(last.len() / 2);
        }
    }
    let state = (frames.into_iter(), Some(under_way));
    stream::unfold(state, move |(mut frames, mut under_way)| {
        let shared = Arc::clone(&shared);
        async move {
            let Some(frame) = frames.next() else {
                under_way.take()?;
                let dropped = std::io::Error::other("the endpoint drops the connection, on purpose");
                return drops.then_some((Err(dropped), (frames, None)));
            };
            tokio::time::sleep(pause).await;
            if frames.len() == 0 && !drops {
                shared.counts().answered(key, shared.started.elapsed());
            }
            Some((Ok(frame), (frames, under_way)))
        }
    })
}

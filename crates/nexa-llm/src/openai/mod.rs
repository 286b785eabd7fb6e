//! Any endpoint that speaks the chat completions API over HTTP.
//!
//! One call is one request, with the effect's key as `Idempotency-Key`, so that an endpoint that knows the key need
//! not answer twice. It ends by its answer, its deadline or its cancellation, and then the connection is dropped.
//! Retrying is not done here: the error says whether it makes sense, and `Retry-After` when.
//!
//! | what happens | code |
//! |---|---|
//! | no connection, a broken one, 5xx | `unavailable` |
//! | the deadline, 408 | `timeout` |
//! | 429 | `rate_limited` |
//! | any other status that is not 2xx | `refused` |
//! | an answer that is none, or calls tools that it may not | `output_invalid` |
//!
//! Tools are offered as functions, and what the answer asks for is checked by [`crate::tools`]. An answer with calls is
//! one like any other; its calls are no pieces of text and come with its end.

mod calls;
pub mod embeddings;
#[cfg(test)]
mod embeddings_tests;
pub mod sse;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tools_tests;
mod wire;

use std::fmt;
use std::time::{Duration, SystemTime};

use futures::future::{BoxFuture, FutureExt};
use nexa_event::effect::{Finish, ModelReply};
use nexa_ports::embedder::DIMENSION_MAX;
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_types::{Millis, RunCode, Spend, Tokens, UsdMicro};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use thiserror::Error;

use crate::http;
use crate::tools::{self, Unfit};
use sse::Events;
use wire::{Answer, Nonsense, Unofferable, Usage};

/// An answer longer than this is cut off as nonsense, in bytes of HTTP body.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How much of an error's body is read, in bytes.
const COMPLAINT_BYTES_MAX: usize = 16 << 10;
/// A `Retry-After` beyond this is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// A secret that is sent and never shown.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps a key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ApiKey(hidden)")
    }
}

/// Where an endpoint is and how it is used.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The name before the `/` of its models' names.
    pub provider: String,
    /// The URL up to and with the version, such as `http://localhost:8000/v1`.
    pub base_url: String,
    /// The key, and for error messages where it came from, such as `the variable OPENAI_API_KEY`.
    pub key: Option<(ApiKey, String)>,
    /// What it takes at once and in a minute.
    pub limits: LaneLimits,
    /// The price of a million tokens read and of a million written.
    pub price: (UsdMicro, UsdMicro),
}

/// Why an endpoint cannot be used at all.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The URL is none.
    #[error("`{url}` is not a URL of the form http://host:port/v1")]
    Url {
        /// What was given.
        url: String,
    },
    /// No vector has so many numbers.
    #[error("the embeddings of `{model}` cannot have {given} numbers, only 1 to {DIMENSION_MAX}")]
    Dimension {
        /// Whose they are.
        model: String,
        /// What was given.
        given: usize,
    },
    /// The client cannot be made.
    #[error("cannot set up the HTTP client for `{provider}`")]
    Client {
        /// For whom.
        provider: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

/// One endpoint behind the model port.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    url: Url,
    /// The URL as it may be shown.
    shown: String,
    client: reqwest::Client,
    /// What it answers with.
    answers: &'static str,
}

impl Endpoint {
    /// Prepares a client; nothing is sent.
    ///
    /// # Errors
    /// [`EndpointError`] if the URL or the client's set-up is wrong.
    pub fn new(config: EndpointConfig) -> Result<Self, EndpointError> {
        Self::at(config, &["chat", "completions"], "chat completion")
    }

    fn at(config: EndpointConfig, path: &[&str], answers: &'static str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError::Url { url: config.base_url.clone() };
        let mut url = Url::parse(&config.base_url).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong());
        }
        let mut shown = url.clone();
        // Both fail only for URLs without a host, which are refused above.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.set_query(None);
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path);
        let client = http::endpoint_client()
            .map_err(|source| EndpointError::Client { provider: config.provider.clone(), source })?;
        Ok(Self { url, shown: shown.to_string(), client, config, answers })
    }

    /// The name before the `/` of its models' names.
    pub fn provider(&self) -> &str {
        &self.config.provider
    }

    async fn answer(&self, call: ModelCall, chunks: &dyn Chunks) -> Result<ModelReply, ModelError> {
        tokio::select! {
            biased;
            () = call.cancel.cancelled() => Err(ModelError::new(RunCode::Cancelled, "the call was cancelled")),
            reply = self.exchange(&call, chunks) => reply,
            () = tokio::time::sleep(call.deadline) => Err(self.error(
                RunCode::Timeout,
                format!("did not answer within {:?}; give it more time or look at the endpoint", call.deadline),
            )),
        }
    }

    async fn exchange(&self, call: &ModelCall, chunks: &dyn Chunks) -> Result<ModelReply, ModelError> {
        let request = &call.request;
        let name = request.model.strip_prefix(&format!("{}/", self.config.provider)).unwrap_or(&request.model);
        let accept = if request.stream { "text/event-stream" } else { "application/json" };
        let body = wire::body(request, name).map_err(|Unofferable(tool)| {
            let message = format!("the tool `{tool}` cannot be offered: the schema of its arguments is no JSON object");
            ModelError::new(RunCode::Refused, format!("{message}; correct its declaration"))
        })?;
        let sent = self
            .client
            .post(self.url.clone())
            .header(ACCEPT, accept)
            .header("Idempotency-Key", call.key.to_string())
            // For gateways that route or account by agent. A name may have any letters, so it goes as bytes.
            .header("X-Nexa-Agent", request.agent.as_bytes())
            .json(&body);
        let response = self.send(sent).await?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let answer = if content_type.starts_with("text/event-stream") {
            self.read_stream(response, chunks).await?
        } else {
            self.read_whole(response, request.stream, chunks).await?
        };
        self.reply(call, name, answer)
    }

    /// Sends a request with the key, and gives the answer to it if it is one.
    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Response, ModelError> {
        if let Some((ApiKey(key), _)) = &self.config.key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(|error| {
            let hint =
                if error.is_connect() { "check that it runs and that the address is right" } else { "try again later" };
            self.error(RunCode::Unavailable, format!("cannot be reached ({}); {hint}", http::told(&error)))
        })?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// Reads an answer that comes piece by piece.
    async fn read_stream(&self, mut response: Response, chunks: &dyn Chunks) -> Result<Answer, ModelError> {
        let (mut events, mut answer, mut seen) = (Events::default(), Answer::default(), 0);
        let mut is_done = false;
        while !is_done {
            let Some(bytes) = self.next(&mut response, &mut seen).await? else { break };
            let mut complete = Vec::new();
            events.push(&bytes, |data| complete.push(data)).map_err(|error| self.nonsense(&error))?;
            for data in complete {
                if data.trim() == "[DONE]" {
                    is_done = true;
                    break;
                }
                let offset = answer.text.len() as u64;
                let piece = answer.add(&data).map_err(|nonsense| self.not_an_answer(nonsense))?;
                if !piece.is_empty() {
                    chunks.piece(offset, piece);
                }
            }
        }
        if is_done || answer.finish.is_some() {
            return Ok(answer);
        }
        let len = answer.text.len();
        Err(self.error(
            RunCode::Unavailable,
            format!("ended its stream after {len} bytes of text without saying that it was done; try again"),
        ))
    }

    /// Reads an answer that comes as one piece of JSON.
    async fn read_whole(&self, mut response: Response, shows: bool, chunks: &dyn Chunks) -> Result<Answer, ModelError> {
        let body = self.body(&mut response).await?;
        let mut answer = Answer::default();
        let text = answer.add(&String::from_utf8_lossy(&body)).map_err(|nonsense| self.not_an_answer(nonsense))?;
        if shows && !text.is_empty() {
            chunks.piece(0, text);
        }
        match answer.finish {
            None if answer.text.is_empty() && answer.calls.is_empty() => Err(self.nonsense(&"it has no choices")),
            _ => Ok(answer),
        }
    }

    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, ModelError> {
        let (mut body, mut seen) = (Vec::new(), 0);
        while let Some(bytes) = self.next(response, &mut seen).await? {
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    async fn next(&self, response: &mut Response, seen: &mut usize) -> Result<Option<bytes::Bytes>, ModelError> {
        let bytes = response.chunk().await.map_err(|error| {
            let told = http::told(&error);
            self.error(RunCode::Unavailable, format!("broke off its answer after {seen} bytes ({told}); try again"))
        })?;
        *seen += bytes.as_ref().map_or(0, bytes::Bytes::len);
        if *seen > ANSWER_BYTES_MAX {
            return Err(self.nonsense(&format!("it is longer than {ANSWER_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    fn reply(&self, call: &ModelCall, name: &str, answer: Answer) -> Result<ModelReply, ModelError> {
        let request = &call.request;
        let finish = answer.finish.unwrap_or(Finish::Stop);
        let (tool_calls, finish) =
            tools::settle(request, call.key, answer.calls.in_order(), finish).map_err(|unfit| self.unfit(&unfit))?;
        // An endpoint that does not count is counted roughly: four bytes a token.
        let usage = answer.usage.unwrap_or_else(|| Usage {
            prompt_tokens: (tools::read_len(request) as u64).div_ceil(4),
            completion_tokens: (tools::written_len(&answer.text, &tool_calls) as u64).div_ceil(4),
        });
        let (price_in, price_out) = self.config.price;
        let cost = |tokens: u64, price: UsdMicro| (u128::from(tokens) * u128::from(price.0)).div_ceil(1_000_000);
        let cost = cost(usage.prompt_tokens, price_in) + cost(usage.completion_tokens, price_out);
        Ok(ModelReply {
            text: answer.text,
            finish,
            model: format!("{}/{name}", self.config.provider),
            spend: Spend {
                tokens_in: Tokens(usage.prompt_tokens),
                tokens_out: Tokens(usage.completion_tokens),
                cost: UsdMicro(u64::try_from(cost).unwrap_or(u64::MAX)),
                calls: 1,
                steps: 0,
            },
            tokens_left_out: Tokens(0),
            tool_calls,
        })
    }

    async fn refusal(&self, mut response: Response) -> ModelError {
        let status = response.status();
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let mut body = Vec::new();
        // A body that breaks off has said what it could.
        while let Ok(Some(bytes)) = response.chunk().await {
            body.extend_from_slice(&bytes);
            if body.len() > COMPLAINT_BYTES_MAX {
                break;
            }
        }
        let said = wire::complaint(&String::from_utf8_lossy(&body[..body.len().min(COMPLAINT_BYTES_MAX)]));
        let said = if said.is_empty() { String::new() } else { format!(" saying “{said}”") };
        let (code, hint) = match status {
            StatusCode::TOO_MANY_REQUESTS => (RunCode::RateLimited, "slow down or raise the limit there".to_owned()),
            StatusCode::REQUEST_TIMEOUT => (RunCode::Timeout, "try again".to_owned()),
            _ if status.is_server_error() => {
                (RunCode::Unavailable, "try again later or look at the endpoint".to_owned())
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => match &self.config.key {
                Some((_, from)) => (RunCode::Refused, format!("check the key in {from}")),
                None => (RunCode::Refused, "it wants a key and none is configured".to_owned()),
            },
            StatusCode::NOT_FOUND => (RunCode::Refused, "check the base URL and the model's name".to_owned()),
            _ if status.is_redirection() => (RunCode::Refused, "configure the URL that it redirects to".to_owned()),
            _ => (RunCode::Refused, "the same request will be refused again".to_owned()),
        };
        ModelError { retry_after, ..self.error(code, format!("answered {status}{said}; {hint}")) }
    }

    fn not_an_answer(&self, nonsense: Nonsense) -> ModelError {
        match nonsense {
            Nonsense::Shape(error) => self.nonsense(&error),
            Nonsense::Error(said) => {
                self.error(RunCode::Unavailable, format!("answered with an error, “{said}”; try again"))
            }
            Nonsense::Unfit(unfit) => self.unfit(&unfit),
        }
    }

    fn unfit(&self, unfit: &Unfit) -> ModelError {
        let hint = match unfit {
            Unfit::NoneOffered | Unfit::NoneWanted => "use another model",
            Unfit::CutOff { .. } => "raise `max_tokens`",
            _ => "ask again or use another model",
        };
        self.error(RunCode::OutputInvalid, format!("{unfit}; {hint}"))
    }

    fn nonsense(&self, what: &dyn fmt::Display) -> ModelError {
        self.error(
            RunCode::OutputInvalid,
            format!("sent something that is no {}: {what}; check that the URL is that of the API", self.answers),
        )
    }

    fn error(&self, code: RunCode, what: String) -> ModelError {
        ModelError::new(code, format!("endpoint `{}` at {} {what}", self.config.provider, self.shown))
    }
}

/// How long an endpoint asks to wait: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Millis> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let span = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or(Duration::ZERO),
    };
    Some(Millis(span.min(RETRY_AFTER_MAX).as_millis() as u64))
}

impl Model for Endpoint {
    fn ask<'a>(&'a self, call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        self.answer(call, chunks).boxed()
    }

    fn limits(&self, _: &str) -> LaneLimits {
        self.config.limits
    }

    fn lane(&self, _: &str) -> String {
        self.config.provider.clone()
    }
}

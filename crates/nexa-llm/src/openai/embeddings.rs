//! Vectors from any endpoint that speaks the embeddings API over HTTP.
//!
//! A call becomes one request for each [`BATCH_TEXTS_MAX`] texts or [`BATCH_BYTES_MAX`] bytes, as many at once as the
//! endpoint takes; if one of them fails, the call has failed. Retrying is not done here: the error says whether it makes
//! sense, and `Retry-After` when. The endpoint's numbers are scaled to length one.
//!
//! Two things are done to texts: one longer than [`EmbeddingConfig::text_bytes_max`] is cut, because endpoints refuse what
//! their model cannot read; and an empty one is sent as a space, because some refuse that, too.

use std::ops::Range;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, TryStreamExt};
use nexa_ports::embedder::{DIMENSION_MAX, EmbedCall, EmbedError, Embedded, Embedder, UnitVector};
use nexa_ports::model::ModelError;
use nexa_types::{Millis, RunCode, Spend, Tokens, UsdMicro};
use reqwest::header::ACCEPT;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{Endpoint, EndpointConfig, EndpointError};

/// Texts of one request.
pub const BATCH_TEXTS_MAX: usize = 64;
/// Bytes of texts of one request, or a single text.
pub const BATCH_BYTES_MAX: usize = 128 << 10;
/// A text is cut there unless it is said otherwise: some two thousand tokens of English.
pub const TEXT_BYTES_DEFAULT: usize = 8_000;
/// What a busy endpoint is given that says nothing of when to come again.
const RETRY_AFTER_DEFAULT: Millis = Millis(1_000);

/// Which model of an endpoint, and what is known of it.
#[derive(Debug, Clone)]
pub struct EmbeddingConfig {
    /// The model's name without the provider.
    pub model: String,
    /// How many numbers its vectors have. Another number in an answer is an error.
    pub dimension: usize,
    /// A longer text is cut.
    pub text_bytes_max: usize,
}

/// One model of an endpoint behind the embedder port.
#[derive(Debug)]
pub struct EmbeddingEndpoint {
    endpoint: Endpoint,
    config: EmbeddingConfig,
    name: String,
    slots: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: Vec<&'a str>,
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
}

impl EmbeddingEndpoint {
    /// Prepares a client; nothing is sent.
    ///
    /// # Errors
    /// [`EndpointError`] if the URL, the dimension, or the client's set-up is wrong.
    pub fn new(endpoint: EndpointConfig, config: EmbeddingConfig) -> Result<Self, EndpointError> {
        if !(1..=DIMENSION_MAX).contains(&config.dimension) {
            return Err(EndpointError::Dimension { model: config.model, given: config.dimension });
        }
        let name = format!("{}/{}", endpoint.provider, config.model);
        let slots = Arc::new(Semaphore::new(endpoint.limits.concurrency.max(1)));
        Ok(Self { endpoint: Endpoint::at(endpoint, &["embeddings"], "list of embeddings")?, config, name, slots })
    }

    async fn answer(&self, call: EmbedCall) -> Result<Embedded, EmbedError> {
        call.check()?;
        tokio::select! {
            biased;
            () = call.cancel.cancelled() => Err(EmbedError::Cancelled),
            () = tokio::time::sleep(call.deadline) => Err(failure(self.endpoint.error(
                RunCode::Timeout,
                format!("did not answer within {:?}; give it more time or look at the endpoint", call.deadline),
            ))),
            answer = self.exchange_all(&call.texts) => answer.map_err(failure),
        }
    }

    async fn exchange_all(&self, texts: &[Arc<str>]) -> Result<Embedded, ModelError> {
        let cut = |text: &str| text.floor_char_boundary(self.config.text_bytes_max.max(1));
        let texts: Vec<&str> = texts.iter().map(|text| &text[..cut(text)]).collect();
        // A gate of its own for each call, besides that of all: a call holds no more requests than can be sent.
        let at_once = self.endpoint.config.limits.concurrency.max(1);
        let requests =
            futures::stream::iter(batches(&texts)).map(|batch| self.exchange(&texts[batch])).buffered(at_once);
        let parts: Vec<Embedded> = requests.try_collect().await?;
        let mut whole = Embedded { vectors: Vec::with_capacity(texts.len()), spend: Spend::default() };
        for Embedded { vectors, spend } in parts {
            whole.vectors.extend(vectors);
            whole.spend.tokens_in += spend.tokens_in;
            whole.spend.cost += spend.cost;
            whole.spend.calls += spend.calls;
        }
        Ok(whole)
    }

    async fn exchange(&self, texts: &[&str]) -> Result<Embedded, ModelError> {
        let _slot = self.slots.acquire().await.expect("the gate is never closed");
        let input = texts.iter().map(|text| if text.is_empty() { " " } else { *text }).collect();
        let body = Request { model: &self.config.model, input, encoding_format: "float" };
        let request = self.endpoint.client.post(self.endpoint.url.clone()).header(ACCEPT, "application/json");
        let mut response = self.endpoint.send(request.json(&body)).await?;
        let body = self.endpoint.body(&mut response).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| self.endpoint.nonsense(&error))?;
        self.read(texts, answer)
    }

    fn read(&self, texts: &[&str], answer: Answer) -> Result<Embedded, ModelError> {
        let mut vectors = vec![None; texts.len()];
        for Item { index, embedding } in answer.data {
            let (len, expected) = (embedding.len(), self.config.dimension);
            if len != expected {
                let message = format!("sent a vector of {len} numbers instead of {expected}; correct `dimension`");
                return Err(self.endpoint.error(RunCode::OutputInvalid, message));
            }
            let Some(place) = vectors.get_mut(index) else {
                return Err(self.endpoint.nonsense(&format!("it has a vector for text {index} of {}", texts.len())));
            };
            *place = UnitVector::towards(embedding);
        }
        let missing = vectors.iter().position(Option::is_none);
        if let Some(index) = missing {
            return Err(self.endpoint.nonsense(&format!("it has no vector, or one of zeros, for text {index}")));
        }
        // An endpoint that does not count is counted roughly: four bytes a token.
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let tokens = answer.usage.map_or((bytes as u64).div_ceil(4), |usage| usage.prompt_tokens);
        let (price, _) = self.endpoint.config.price;
        let cost = (u128::from(tokens) * u128::from(price.0)).div_ceil(1_000_000);
        let cost = UsdMicro(u64::try_from(cost).unwrap_or(u64::MAX));
        let spend = Spend { tokens_in: Tokens(tokens), cost, calls: 1, ..Spend::default() };
        Ok(Embedded { vectors: vectors.into_iter().flatten().collect(), spend })
    }
}

impl Embedder for EmbeddingEndpoint {
    fn model(&self) -> &str {
        &self.name
    }

    fn dimension(&self) -> usize {
        self.config.dimension
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embedded, EmbedError>> {
        self.answer(call).boxed()
    }
}

/// Texts in requests, none with more than it may have, but for a single text that is longer.
fn batches(texts: &[&str]) -> Vec<Range<usize>> {
    let (mut batches, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (place, text) in texts.iter().enumerate() {
        if place > first && (place - first == BATCH_TEXTS_MAX || bytes + text.len() > BATCH_BYTES_MAX) {
            batches.push(first..place);
            (first, bytes) = (place, 0);
        }
        bytes += text.len();
    }
    if first < texts.len() {
        batches.push(first..texts.len());
    }
    batches
}

fn failure(error: ModelError) -> EmbedError {
    let ModelError { code, message, retry_after } = error;
    match code {
        RunCode::Unavailable => EmbedError::Unavailable(message),
        RunCode::Timeout => EmbedError::Timeout(message),
        RunCode::RateLimited => EmbedError::Busy { message, retry_after: retry_after.unwrap_or(RETRY_AFTER_DEFAULT) },
        RunCode::OutputInvalid => EmbedError::Invalid(message),
        RunCode::Cancelled => EmbedError::Cancelled,
        _ => EmbedError::Refused(message),
    }
}

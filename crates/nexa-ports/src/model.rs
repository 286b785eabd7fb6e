//! The port to language models.
//!
//! One call, one answer. Pieces of the answer go to a [`Chunks`] sink as they come; they are never facts. A call ends
//! by its answer, its deadline, or its token being cancelled, whichever comes first, and then costs nothing more.

use futures::future::BoxFuture;
use nexa_event::effect::{ModelReply, ModelRequest};
use nexa_types::{EffectKey, Millis, RunCode, TenantId, WorkloadId};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A request with everything that is known about it outside the VM.
#[derive(Debug, Clone)]
pub struct ModelCall {
    /// What is asked.
    pub request: ModelRequest,
    /// The effect's key, sent along so that a provider that knows it need not answer twice.
    pub key: EffectKey,
    /// 1 for the first sending.
    pub attempt: u32,
    /// Who pays, and the lane in which the call waits its turn.
    pub tenant: TenantId,
    /// The workload; calls of one tenant take turns by workload.
    pub workload: WorkloadId,
    /// How long the answer may take from now.
    pub deadline: Duration,
    /// Ends the call early.
    pub cancel: CancellationToken,
}

/// Where the pieces of an answer go.
pub trait Chunks: Send + Sync {
    /// The next piece of text; `offset` is the number of bytes of text before it. Must not block.
    fn piece(&self, offset: u64, text: &str);
}

/// A sink for nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoChunks;

impl Chunks for NoChunks {
    fn piece(&self, _: u64, _: &str) {}
}

/// Why a model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// One of `timeout`, `cancelled`, `unavailable`, `rate_limited`, `refused`, `output_invalid`,
    /// `unscripted_call`, `script_exhausted`, or what a script's `fail` says.
    pub code: RunCode,
    /// What failed, why, and what to do.
    pub message: String,
    /// The provider asks to wait this long before the next request.
    pub retry_after: Option<Millis>,
}

impl ModelError {
    /// An error without advice on when to try again.
    pub fn new(code: RunCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }
}

/// What a provider takes at once and in a minute. Callers keep to it by waiting, so that the provider never has to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLimits {
    /// Calls in flight at once; 0 is taken for 1.
    pub concurrency: usize,
    /// Calls begun in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens that models read in a minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Tokens that models write in a minute.
    pub output_tokens_per_minute: Option<u64>,
}

impl LaneLimits {
    /// So many calls at once, and as many a minute as that gives.
    pub const fn at_once(concurrency: usize) -> Self {
        let (requests_per_minute, input_tokens_per_minute, output_tokens_per_minute) = (None, None, None);
        Self { concurrency, requests_per_minute, input_tokens_per_minute, output_tokens_per_minute }
    }
}

/// A language model, or a router over several.
pub trait Model: Send + Sync {
    /// Asks once.
    ///
    /// Cancel-safe: dropping the future ends the call, and what it has cost by then is lost to accounting.
    fn ask<'a>(&'a self, call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>>;

    /// What the provider of this model name takes; the dispatcher keeps to it.
    fn limits(&self, model: &str) -> LaneLimits;

    /// The lane that a model name uses: names with equal lanes share the limits.
    fn lane(&self, model: &str) -> String;
}

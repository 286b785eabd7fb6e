//! Models that cost nothing: one answers at once, one never.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::future::BoxFuture;
use nexa_event::effect::{Finish, ModelReply};
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_types::{Spend, Tokens, WorkloadId};
use tokio::sync::watch;

/// Answers `true` at once and remembers how long each agent took from one request to its next.
#[derive(Default)]
pub(crate) struct Quick(Mutex<Asked>);

#[derive(Default)]
struct Asked {
    /// Each workload has one agent.
    last: HashMap<WorkloadId, Instant>,
    /// In milliseconds.
    between: Vec<f64>,
    count: usize,
}

impl Quick {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was asked.
    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }

    /// The times between two requests of an agent, the shortest first, in milliseconds.
    pub(crate) fn between(&self) -> Vec<f64> {
        let mut between = self.lock().between.clone();
        between.sort_by(f64::total_cmp);
        between
    }
}

impl Model for Quick {
    fn ask<'a>(&'a self, call: ModelCall, _: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        let now = Instant::now();
        let mut asked = self.lock();
        asked.count += 1;
        if let Some(last) = asked.last.insert(call.workload, now) {
            asked.between.push((now - last).as_nanos() as f64 / 1e6);
        }
        drop(asked);
        Box::pin(std::future::ready(Ok(ModelReply {
            text: "true".to_owned(),
            finish: Finish::Stop,
            model: "bench/quick".to_owned(),
            spend: Spend { tokens_in: Tokens(40), tokens_out: Tokens(1), calls: 1, ..Spend::default() },
            tokens_left_out: Tokens(0),
            tool_calls: Vec::new(),
        })))
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(1_000)
    }

    fn lane(&self, _: &str) -> String {
        String::new()
    }
}

/// Never answers, and counts who waits.
#[derive(Default)]
pub(crate) struct Silent(watch::Sender<usize>);

impl Silent {
    /// Waits until so many wait for an answer.
    pub(crate) async fn was_asked(&self, count: usize) -> Result<(), watch::error::RecvError> {
        self.0.subscribe().wait_for(|asked| *asked >= count).await.map(|_| ())
    }
}

impl Model for Silent {
    fn ask<'a>(&'a self, _: ModelCall, _: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        self.0.send_modify(|asked| *asked += 1);
        Box::pin(std::future::pending())
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(1_000_000)
    }

    fn lane(&self, _: &str) -> String {
        String::new()
    }
}

//! A model that answers by rule and remembers who asked.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use nexa_event::effect::{Finish, ModelReply, ModelRequest};
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_types::{EffectKey, RunCode, Spend, Tokens};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Rule = Box<dyn Fn(&ModelRequest) -> Result<String, ModelError> + Send + Sync>;

pub struct FakeModel {
    limits: LaneLimits,
    rule: Rule,
    /// Attempts by key, in the order in which they came.
    asked: watch::Sender<BTreeMap<EffectKey, Vec<u32>>>,
    /// The tokens of all calls.
    pub tokens: Mutex<Vec<CancellationToken>>,
    /// While set, calls wait.
    hold: watch::Sender<bool>,
}

impl FakeModel {
    /// Answers `<prompt>`.
    pub fn echo(slots: usize) -> Arc<Self> {
        Self::with(slots, |prompt| Ok(format!("<{prompt}>")))
    }

    /// Answers by the text of the last message.
    pub fn with(slots: usize, rule: impl Fn(&str) -> Result<String, ModelError> + Send + Sync + 'static) -> Arc<Self> {
        Self::asked_for(slots, move |request| rule(request.messages.last().map_or("", |message| message.text.as_str())))
    }

    /// Answers by the whole request.
    pub fn asked_for(
        slots: usize,
        rule: impl Fn(&ModelRequest) -> Result<String, ModelError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::new(LaneLimits::at_once(slots), rule)
    }

    /// The same behind a provider that takes so much.
    pub fn limited(
        limits: LaneLimits,
        rule: impl Fn(&str) -> Result<String, ModelError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::new(limits, move |request| rule(request.messages.last().map_or("", |message| message.text.as_str())))
    }

    fn new(
        limits: LaneLimits,
        rule: impl Fn(&ModelRequest) -> Result<String, ModelError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits,
            rule: Box::new(rule),
            asked: watch::Sender::default(),
            tokens: Mutex::default(),
            hold: watch::Sender::new(false),
        })
    }

    pub fn hold(&self, hold: bool) {
        self.hold.send_replace(hold);
    }

    pub fn asked(&self) -> BTreeMap<EffectKey, Vec<u32>> {
        self.asked.borrow().clone()
    }

    pub fn asked_count(&self) -> usize {
        self.asked.borrow().values().map(Vec::len).sum()
    }

    pub async fn was_asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|asked| asked.values().map(Vec::len).sum::<usize>() >= times).await.unwrap();
    }
}

impl Model for FakeModel {
    fn ask<'a>(&'a self, call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        Box::pin(async move {
            self.tokens.lock().unwrap().push(call.cancel.clone());
            self.asked.send_modify(|asked| asked.entry(call.key).or_default().push(call.attempt));
            let mut hold = self.hold.subscribe();
            tokio::select! {
                _ = hold.wait_for(|hold| !hold) => {}
                () = call.cancel.cancelled() => return Err(ModelError::new(RunCode::Cancelled, "cancelled")),
            }
            let text = (self.rule)(&call.request)?;
            let (head, tail) = text.split_at(text.floor_char_boundary(text.len() / 2));
            chunks.piece(0, head);
            chunks.piece(head.len() as u64, tail);
            let spend = Spend { tokens_in: Tokens(3), tokens_out: Tokens(2), calls: 1, ..Spend::default() };
            Ok(ModelReply {
                text,
                finish: Finish::Stop,
                model: "fake/model".into(),
                spend,
                tokens_left_out: Tokens(0),
                tool_calls: Vec::new(),
            })
        })
    }

    fn limits(&self, _: &str) -> LaneLimits {
        self.limits
    }

    fn lane(&self, _: &str) -> String {
        "fake".into()
    }
}

//! Asks models, and calls tools, on behalf of agents.
//!
//! In:  `reserve` a slot of a lane, `send` with it, `settle` once the answer is recorded, `abandon` when it is not
//!      wanted any more.
//! Out: nudges; the agent then takes its granted slot or its finished effects. Both wait here until they are taken,
//!      whatever happens to the agent's actor meanwhile.
//!
//! Who may send is decided in [`super::slots`]; here it is carried out.
//!
//! A request that an earlier answer will do for gets that one, if there is one, through its slot as any other.
//!
//! Bounds: `reservations_max` waiting a lane, then [`Reserve::Full`]: the agent parks and asks again later. A pause
//! asked for by a provider holds back the whole lane. A model that panics counts as unavailable.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use nexa_agent::{AnswerKey, Answers};
use nexa_event::effect::{Answer, ModelReply, ModelRequest, ToolRequest, ToolSource};
use nexa_event::fact::EffectResult;
use nexa_ports::clock::Clock;
use nexa_ports::model::{Chunks as _, Model, ModelCall, ModelError};
use nexa_ports::tool::Tools;
use nexa_types::{AgentId, EffectKey, Failure, Millis, RunCode, Seq, Spend, TenantId, Timestamp, WorkloadId};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::slots::{Finished, ModelLimits, ModelLoad, Reserve, Slots};
use super::{Hint, Nudge};
use crate::live::{LiveChunks, LiveHub};
use crate::waits::until_shown;

/// How long a cancelled call may take to end by itself before its future is dropped.
pub(super) const CANCEL_GRACE: Millis = Millis(1_000);
/// The longest pause that a provider may impose on a lane with one answer.
const RETRY_AFTER_MAX: Millis = Millis(300_000);

/// What the dispatcher counts.
#[derive(Debug, Default)]
pub(crate) struct ModelCounters {
    /// Calls sent.
    pub(crate) sent: AtomicU64,
    /// Requests that an earlier answer did for, so that nothing was sent.
    pub(crate) reused: AtomicU64,
    /// Calls sent with an attempt above 1.
    pub(crate) reissued: AtomicU64,
    /// Tool calls sent.
    pub(crate) tools: AtomicU64,
    /// Panics in adapters.
    pub(crate) panics: AtomicU64,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Ask a model.
    Model(Box<ModelRequest>),
    /// Call a tool.
    Tool(Box<ToolRequest>),
}

/// One sending of one effect.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) agent: AgentId,
    pub(crate) name: Arc<str>,
    pub(crate) tenant: TenantId,
    pub(crate) workload: WorkloadId,
    pub(crate) seq: Seq,
    pub(crate) attempt: u32,
    pub(crate) work: Work,
    /// Nobody waits for the answer after this.
    pub(crate) deadline: Timestamp,
}

/// The dispatcher. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Models {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    slots: Mutex<Slots>,
    answers: Mutex<Answers>,
    model: Arc<dyn Model>,
    pub(super) tools: Arc<dyn Tools>,
    pub(super) clock: Arc<dyn Clock>,
    live: LiveHub,
    nudge: Arc<dyn Nudge>,
    stop: CancellationToken,
    pub(super) counters: ModelCounters,
}

impl Models {
    pub(crate) fn new(
        (model, tools): (Arc<dyn Model>, Arc<dyn Tools>),
        clock: Arc<dyn Clock>,
        live: LiveHub,
        nudge: Arc<dyn Nudge>,
        limits: ModelLimits,
        stop: CancellationToken,
    ) -> Self {
        let counters = ModelCounters::default();
        let (slots, answers) = (Mutex::new(Slots::new(limits)), Mutex::default());
        Self { shared: Arc::new(Shared { slots, answers, model, tools, clock, live, nudge, stop, counters }) }
    }

    pub(crate) fn counters(&self) -> &ModelCounters {
        &self.shared.counters
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Every change under this lock is complete before anything that could panic.
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        // Nothing under this lock calls anybody else's code.
        self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table and tells those who have got a slot by it.
    fn change(&self, change: impl FnOnce(&mut Slots, Timestamp) -> Vec<AgentId>) {
        let now = self.shared.clock.now();
        let granted = change(&mut self.lock(), now);
        self.tell(granted);
    }

    /// Wants a slot to send a request to `model`. Asking again while waiting or holding changes nothing.
    pub(crate) fn reserve(&self, agent: AgentId, model: &str, priority: u8) -> Reserve {
        let slots = self.shared.model.limits(model).concurrency.max(1);
        self.reserve_in(agent, self.shared.model.lane(model), slots, priority)
    }

    /// The same for a call of a tool.
    pub(crate) fn reserve_tool(&self, agent: AgentId, source: &ToolSource, priority: u8) -> Reserve {
        let slots = self.shared.tools.slots(source).max(1);
        self.reserve_in(agent, format!("tool {}", self.shared.tools.lane(source)), slots, priority)
    }

    fn reserve_in(&self, agent: AgentId, lane: String, slots: usize, priority: u8) -> Reserve {
        let now = self.shared.clock.now();
        let (mine, others) = self.lock().reserve(agent, lane, slots, priority, now);
        self.tell(others);
        mine
    }

    /// Gives up the agent's wish, granted or waiting.
    pub(crate) fn withdraw(&self, agent: AgentId) {
        self.change(|slots, now| slots.withdraw(agent, now));
    }

    /// Sends with the slot that is held for the agent. Its start must be recorded. `false` if no slot was held, or if
    /// this attempt was sent before; then nothing is sent.
    pub(crate) fn send(&self, key: EffectKey, sending: Sending) -> bool {
        let cancel = self.shared.stop.child_token();
        let now = self.shared.clock.now();
        let flight = self.lock().take_off(sending.agent, key, sending.attempt, cancel.clone(), now);
        let Some((lane, granted)) = flight else { return false };
        self.tell(granted);
        let counters = &self.shared.counters;
        let answer_key = match &sending.work {
            Work::Model(request) => AnswerKey::of(&sending.tenant, request),
            Work::Tool(_) => None,
        };
        let earlier = answer_key.as_ref().and_then(|key| self.answers().find(key));
        match &sending.work {
            Work::Model(_) if earlier.is_some() => {
                counters.reused.fetch_add(1, Ordering::Relaxed);
            }
            Work::Model(_) => {
                counters.sent.fetch_add(1, Ordering::Relaxed);
                counters.reissued.fetch_add(u64::from(sending.attempt > 1), Ordering::Relaxed);
            }
            Work::Tool(_) => {
                counters.tools.fetch_add(1, Ordering::Relaxed);
            }
        }
        match earlier {
            Some(reply) => {
                let models = self.clone();
                tokio::spawn(async move { models.hand_out(&lane, key, sending, reply) });
            }
            None => {
                tokio::spawn(self.clone().carry(lane, key, sending, cancel, answer_key));
            }
        }
        true
    }

    /// Whether an effect is in flight, or finished and not recorded.
    pub(crate) fn carries(&self, agent: AgentId, key: EffectKey) -> bool {
        self.lock().carries(agent, key)
    }

    /// An effect of the agent that has ended and is not recorded. Looking does not take it.
    pub(crate) fn finished(&self, agent: AgentId) -> Option<Finished> {
        self.lock().finished(agent).next().cloned()
    }

    /// Whether any effect of the agent is in flight or waits to be recorded.
    pub(crate) fn is_in_flight_for(&self, agent: AgentId) -> bool {
        self.lock().is_in_flight_for(agent)
    }

    /// Whether any effect of the agent is in flight or waits to be recorded, or the agent waits for a slot.
    pub(crate) fn is_busy_for(&self, agent: AgentId) -> bool {
        let slots = self.lock();
        slots.has_wish(agent) || slots.is_in_flight_for(agent)
    }

    /// The end of an effect is recorded; it is forgotten here.
    pub(crate) fn settle(&self, agent: AgentId, key: EffectKey) {
        self.change(|slots, now| slots.settle(agent, key, now));
    }

    /// Nobody wants the result of an effect any more: cancels the call and forgets it.
    pub(crate) fn abandon(&self, agent: AgentId, key: EffectKey) {
        self.change(|slots, now| slots.abandon(agent, key, now));
    }

    /// Forgets an agent that has ended or left for good.
    pub(crate) fn forget(&self, agent: AgentId) {
        self.change(|slots, now| slots.forget(agent, now));
    }

    /// How busy the dispatcher is.
    pub(crate) fn load(&self) -> ModelLoad {
        self.lock().load()
    }

    fn tell(&self, granted: impl IntoIterator<Item = AgentId>) {
        for agent in granted {
            self.shared.nudge.nudge(agent, Hint::SlotGranted);
        }
    }

    /// An earlier answer in the place of one that would be asked for.
    fn hand_out(&self, lane: &str, key: EffectKey, sending: Sending, reply: ModelReply) {
        let Sending { agent, seq, attempt, .. } = sending;
        if matches!(&sending.work, Work::Model(request) if request.stream) {
            self.chunks(sending).piece(0, &reply.text);
        }
        let (result, spend) = (EffectResult::Done(Answer::Model(reply)), Spend::default());
        self.landed(lane, agent, Finished { key, seq, attempt, result, spend }, None);
    }

    fn chunks(&self, sending: Sending) -> LiveChunks {
        let Sending { agent, name, workload, seq, attempt, .. } = sending;
        LiveChunks { hub: self.shared.live.clone(), workload, agent, name, seq, attempt }
    }

    async fn carry(
        self,
        lane: String,
        key: EffectKey,
        sending: Sending,
        cancel: CancellationToken,
        answer_key: Option<AnswerKey>,
    ) {
        let agent = sending.agent;
        let (seq, attempt) = (sending.seq, sending.attempt);
        // Nothing else stands between a panic in here and the slot: `ask` and `call` catch what an adapter does.
        let request = match &sending.work {
            Work::Model(request) => request.as_ref().clone(),
            Work::Tool(request) => {
                let result = super::tools::call(&self.shared, key, &sending, request, &cancel).await;
                return self.landed(
                    &lane,
                    agent,
                    Finished { key, seq, attempt, result, spend: Spend::default() },
                    None,
                );
            }
        };
        let asked = self.ask(key, sending, request, &cancel).await;
        let pause = match &asked {
            Err(error) => error.retry_after,
            Ok(_) => None,
        };
        let (result, spend) = match asked {
            Ok(reply) => {
                if let Some(key) = answer_key {
                    self.answers().keep(key, &reply);
                }
                let spend = reply.spend;
                (EffectResult::Done(Answer::Model(reply)), spend)
            }
            Err(error) => {
                debug!(%agent, %seq, code = %error.code, %error, "model call failed");
                let failure = Failure::new(error.code, error.message);
                (EffectResult::Failed(failure), Spend { calls: 1, ..Spend::default() })
            }
        };
        self.landed(&lane, agent, Finished { key, seq, attempt, result, spend }, pause);
    }

    async fn ask(
        &self,
        key: EffectKey,
        sending: Sending,
        request: ModelRequest,
        cancel: &CancellationToken,
    ) -> Result<ModelReply, ModelError> {
        if cancel.is_cancelled() {
            return Err(ModelError::new(RunCode::Cancelled, "the call was cancelled before it was sent"));
        }
        let shared = &self.shared;
        let timeout = sending.deadline.since(shared.clock.now());
        let deadline = sending.deadline;
        let call = ModelCall {
            request,
            key,
            attempt: sending.attempt,
            tenant: sending.tenant.clone(),
            workload: sending.workload,
            deadline: Duration::from_millis(timeout.0),
            cancel: cancel.clone(),
        };
        let chunks = self.chunks(sending);
        let answer = AssertUnwindSafe(async { shared.model.ask(call, &chunks).await }).catch_unwind();
        let too_late = until_shown(&*shared.clock, deadline);
        let unheard = async {
            cancel.cancelled().await;
            shared.clock.wait_until(shared.clock.now().after(CANCEL_GRACE)).await;
        };
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|panic| {
                shared.counters.panics.fetch_add(1, Ordering::Relaxed);
                let text = panic_text(panic.as_ref());
                error!(agent = %chunks.agent, seq = %chunks.seq, text, "model adapter panicked");
                Err(ModelError::new(RunCode::Unavailable, format!("the model adapter panicked: {text}")))
            }),
            () = too_late => Err(ModelError::new(RunCode::Timeout, format!("no answer from the model within {timeout} ms"))),
            () = unheard => Err(ModelError::new(RunCode::Cancelled, "the call was cancelled")),
        }
    }

    /// Frees the slot, keeps the result for the agent, and lets the next ones go.
    fn landed(&self, lane: &str, agent: AgentId, finished: Finished, pause: Option<Millis>) {
        let now = self.shared.clock.now();
        let resume = pause.map(|pause| now.after(Millis(pause.0.min(RETRY_AFTER_MAX.0))));
        let (is_wanted, granted) = self.lock().land(lane, agent, finished, resume, now);
        if is_wanted {
            self.shared.nudge.nudge(agent, Hint::EffectEnded);
        }
        self.tell(granted);
        if let Some(resume) = resume {
            let models = self.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = until_shown(&*models.shared.clock, resume) => models.change(Slots::grant_all),
                    () = models.shared.stop.cancelled() => {}
                }
            });
        }
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_owned(),
        (None, None) => "without a text".to_owned(),
    }
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;

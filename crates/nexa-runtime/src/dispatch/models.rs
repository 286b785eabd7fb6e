//! Asks models, and calls tools, on behalf of agents.
//!
//! In:  `reserve` a slot of a lane, `send` with it, `settle` once the answer is recorded, `abandon` when it is not
//!      wanted any more.
//! Out: nudges; the agent then takes its granted slot or its finished effects. Both wait here until they are taken,
//!      whatever happens to the agent's actor meanwhile.
//!
//! An agent that moves leaves what it has in flight behind: the call goes on here, and its answer follows it.
//!
//! Who may send is decided in [`super::slots`]; here it is carried out, and [`Models::run`] looks again when time alone
//! lets somebody through.
//!
//! A request that an earlier answer will do for gets that one, if there is one, through its slot as any other.
//!
//! Bounds: `reservations_max` waiting a lane, then [`Reserve::Full`]: the agent parks and asks again later. A pause
//! asked for by a provider holds back the whole lane; a breaker holds back that of an endpoint that is away. A model that
//! panics counts as unavailable.
//!
//! Not here: retries and fallbacks, which are the program's. Nothing is asked twice at once to take the quicker answer:
//! the language has no word for it, and a budget would pay both.

mod carry;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use nexa_agent::{AnswerKey, Answers};
use nexa_event::effect::{Answer, ModelReply, ModelRequest, ToolRequest, ToolSource};
use nexa_event::fact::EffectResult;
use nexa_ports::clock::Clock;
use nexa_ports::model::{Chunks as _, LaneLimits, Model, ModelCall, ModelError};
use nexa_ports::tool::Tools;
use nexa_sched::ProviderBudget;
use nexa_types::{AgentId, EffectKey, Failure, Millis, RunCode, Seq, Spend, TenantId, Timestamp, WorkloadId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info};

use super::budget::{Cost, thought_of};
use super::lane::{Ending, LaneKind, Pass, Wanted};
use super::slots::{Finished, ModelLimits, ModelLoad, Reserve, Slots};
use super::{Hint, Nudge};
use crate::genai::Effect;
use crate::live::{LiveChunks, LiveHub};
use crate::waits::until_shown;

/// How long a cancelled call may take to end by itself before its future is dropped.
pub(super) const CANCEL_GRACE: Millis = Millis(1_000);

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
    /// Calls that a provider refused because there were too many.
    pub(crate) rate_limited: AtomicU64,
    /// Calls that were not sent because the endpoint is away.
    pub(crate) held_back: AtomicU64,
    /// Times that an agent got a slot of a model and used it, and milliseconds waited for these together.
    pub(crate) waits: AtomicU64,
    pub(crate) waited_ms: AtomicU64,
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
    /// How it is seen.
    pub(crate) seen: Effect,
}

/// The dispatcher. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Models {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    slots: Mutex<Slots>,
    /// The time at which the table is to be looked at has come nearer.
    sooner: Notify,
    /// A slice has become far too small.
    pub(super) hungry: Notify,
    /// The same for what goes on for agents that have moved; and what is left of it has become less.
    carry: Notify,
    fewer_carried: Notify,
    weights: BTreeMap<TenantId, u32>,
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
        (limits, weights): (ModelLimits, BTreeMap<TenantId, u32>),
        stop: CancellationToken,
    ) -> Self {
        let counters = ModelCounters::default();
        let (slots, answers) = (Mutex::new(Slots::new(limits)), Mutex::default());
        let [sooner, hungry, carry, fewer_carried] = [(); 4].map(|()| Notify::new());
        let shared = Shared {
            slots,
            sooner,
            hungry,
            carry,
            fewer_carried,
            weights,
            answers,
            model,
            tools,
            clock,
            live,
            nudge,
            stop,
            counters,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Goes by slices of these budgets, which all nodes share. To be said before anybody asks.
    pub(crate) fn lease(&self, budgets: &[ProviderBudget]) {
        self.lock().lease(budgets);
    }

    /// Lets agents through whom only time holds back, until dropped.
    pub(crate) async fn run(self) {
        loop {
            let due = self.lock().due();
            let clock = &self.shared.clock;
            match due {
                Some(due) if due <= clock.now() => self.change(Slots::ring),
                Some(due) => tokio::select! {
                    biased;
                    () = clock.wait_until(due) => {}
                    () = self.shared.sooner.notified() => {}
                },
                None => self.shared.sooner.notified().await,
            }
        }
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

    /// Changes the table at the time that it is now, sees to it that whoever waits for it looks in time, and tells the
    /// carriers of what is recorded.
    pub(super) fn with_slots<T>(&self, change: impl FnOnce(&mut Slots, Timestamp) -> T) -> T {
        let is_sooner = |after: Option<Timestamp>, before: Option<Timestamp>| {
            after.is_some_and(|due| before.is_none_or(|b| due < b))
        };
        let now = self.shared.clock.now();
        let mut slots = self.lock();
        let (before, round_before, carried_before) = (slots.due(), slots.round_due(), slots.carried());
        let changed = change(&mut slots, now);
        let recorded = slots.take_recorded();
        let hungry = slots.take_hungry();
        let sooner = is_sooner(slots.due(), before);
        let carry = is_sooner(slots.round_due(), round_before);
        let fewer = slots.carried() < carried_before;
        drop(slots);
        if sooner {
            self.shared.sooner.notify_one();
        }
        if carry {
            self.shared.carry.notify_one();
        }
        if hungry {
            self.shared.hungry.notify_one();
        }
        if fewer {
            self.shared.fewer_carried.notify_waiters();
        }
        for (carrier, agent, key) in recorded {
            self.shared.nudge.recorded(&carrier, agent, key);
        }
        changed
    }

    /// Changes the table and tells those who have got a slot by it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Slots, Timestamp) -> Vec<AgentId>) {
        let granted = self.with_slots(change);
        self.tell(granted);
    }

    /// Wants a slot to send a request to a model. Asking again while waiting or holding changes nothing.
    pub(crate) fn reserve(&self, agent: AgentId, tenant: &TenantId, request: &ModelRequest, priority: u8) -> Reserve {
        let model = &self.shared.model;
        let kind = LaneKind { limits: model.limits(&request.model), has_breaker: true };
        let asked = (thought_of(request), request.timeout);
        self.reserve_in(agent, tenant, model.lane(&request.model), kind, asked, priority)
    }

    /// The same for a call of a tool.
    pub(crate) fn reserve_tool(&self, agent: AgentId, tenant: &TenantId, source: &ToolSource, priority: u8) -> Reserve {
        let tools = &self.shared.tools;
        let kind = LaneKind { limits: LaneLimits::at_once(tools.slots(source)), has_breaker: false };
        let lane = format!("tool {}", tools.lane(source));
        self.reserve_in(agent, tenant, lane, kind, Default::default(), priority)
    }

    fn reserve_in(
        &self,
        agent: AgentId,
        tenant: &TenantId,
        lane: String,
        kind: LaneKind,
        (cost, patience): (Cost, Millis),
        priority: u8,
    ) -> Reserve {
        let weight = self.shared.weights.get(tenant).copied().unwrap_or(1);
        let wanted = Wanted { agent, tenant: tenant.clone(), weight, priority, cost, patience };
        let (mine, others) = self.with_slots(|slots, now| slots.reserve(lane, kind, wanted, now));
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
        let (agent, attempt, deadline) = (sending.agent, sending.attempt, sending.deadline);
        let flight = self.with_slots(|slots, now| slots.take_off(agent, key, attempt, (cancel.clone(), deadline), now));
        let Some((lane, pass, granted)) = flight else { return false };
        self.tell(granted);
        let counters = &self.shared.counters;
        if matches!(sending.work, Work::Model(_)) {
            counters.waits.fetch_add(1, Ordering::Relaxed);
            counters.waited_ms.fetch_add(pass.waited.0, Ordering::Relaxed);
        }
        let answer_key = match &sending.work {
            Work::Model(request) => AnswerKey::of(&sending.tenant, request),
            Work::Tool(_) => None,
        };
        let earlier = answer_key.as_ref().and_then(|key| self.answers().find(key));
        match &sending.work {
            Work::Model(_) if earlier.is_some() => {
                counters.reused.fetch_add(1, Ordering::Relaxed);
            }
            Work::Model(_) if pass.refusal().is_some() => {
                counters.held_back.fetch_add(1, Ordering::Relaxed);
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
                tokio::spawn(async move { models.hand_out(&lane, pass, key, sending, reply) });
            }
            None => {
                tokio::spawn(self.clone().carry((lane, pass), key, sending, cancel, answer_key));
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

    /// Forgets an agent that has ended or left for good. Gives who is to be told that it has a slot now.
    pub(crate) fn forget(&self, agent: AgentId) -> Vec<AgentId> {
        self.with_slots(|slots, now| slots.forget(agent, now))
    }

    /// How busy the dispatcher is.
    pub(crate) fn load(&self) -> ModelLoad {
        self.lock().load(self.shared.clock.now())
    }

    /// Tells those who have got a slot.
    pub(crate) fn tell(&self, granted: impl IntoIterator<Item = AgentId>) {
        for agent in granted {
            self.shared.nudge.nudge(agent, Hint::SlotGranted);
        }
    }

    /// An earlier answer in the place of one that would be asked for.
    fn hand_out(&self, lane: &str, pass: Pass, key: EffectKey, mut sending: Sending, reply: ModelReply) {
        std::mem::replace(&mut sending.seen, Effect::unseen()).reused(&reply);
        let Sending { agent, seq, attempt, .. } = sending;
        if matches!(&sending.work, Work::Model(request) if request.stream) {
            self.chunks(sending).piece(0, &reply.text);
        }
        let (result, spend) = (EffectResult::Done(Answer::Model(reply)), Spend::default());
        self.landed(lane, pass, Ending::NotSent, agent, Finished { key, seq, attempt, result, spend });
    }

    fn chunks(&self, sending: Sending) -> LiveChunks {
        let Sending { agent, name, workload, seq, attempt, seen, .. } = sending;
        LiveChunks { hub: self.shared.live.clone(), workload, agent, name, seq, attempt, seen }
    }

    async fn carry(
        self,
        (lane, pass): (String, Pass),
        key: EffectKey,
        sending: Sending,
        cancel: CancellationToken,
        answer_key: Option<AnswerKey>,
    ) {
        let agent = sending.agent;
        let (seq, attempt) = (sending.seq, sending.attempt);
        let seen = sending.seen.clone();
        // Nothing else stands between a panic in here and the slot: `ask` and `call` catch what an adapter does.
        let request = match &sending.work {
            Work::Model(request) => request.as_ref().clone(),
            Work::Tool(request) => {
                let call = super::tools::call(&self.shared, key, &sending, request, &cancel);
                let result = call.instrument(seen.span.clone()).await;
                seen.ended(&result);
                let ended = Finished { key, seq, attempt, result, spend: Spend::default() };
                return self.landed(&lane, pass, Ending::Answered(Cost::default()), agent, ended);
            }
        };
        let asked = match pass.refusal() {
            Some((code, why)) => {
                seen.held_back(code);
                let failure = Failure::new(code, why);
                let (result, spend) = (EffectResult::Failed(failure), Spend::default());
                return self.landed(&lane, pass, Ending::NotSent, agent, Finished { key, seq, attempt, result, spend });
            }
            None => {
                let asked = self.ask(key, sending, request, &cancel).instrument(seen.span.clone()).await;
                seen.answered(&asked);
                asked
            }
        };
        let (ending, result, spend) = match asked {
            Ok(reply) => {
                if let Some(key) = answer_key {
                    self.answers().keep(key, &reply);
                }
                let spend = reply.spend;
                (Ending::Answered(Cost::of(&spend)), EffectResult::Done(Answer::Model(reply)), spend)
            }
            Err(error) => {
                debug!(%agent, %seq, code = %error.code, %error, "model call failed");
                if error.code == RunCode::RateLimited {
                    self.shared.counters.rate_limited.fetch_add(1, Ordering::Relaxed);
                    info!(lane, retry_after = ?error.retry_after.map(|pause| pause.0), "provider refused: too many calls");
                }
                let ending = Ending::Failed { code: error.code, retry_after: error.retry_after };
                let failure = Failure::new(error.code, error.message);
                (ending, EffectResult::Failed(failure), Spend { calls: 1, ..Spend::default() })
            }
        };
        self.landed(&lane, pass, ending, agent, Finished { key, seq, attempt, result, spend });
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
    fn landed(&self, lane: &str, pass: Pass, ending: Ending, agent: AgentId, finished: Finished) {
        let (is_wanted, granted) = self.with_slots(|slots, now| slots.land(lane, pass, ending, agent, finished, now));
        if is_wanted {
            self.shared.nudge.nudge(agent, Hint::EffectEnded);
        }
        self.tell(granted);
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

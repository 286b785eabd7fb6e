//! Asks models on behalf of agents.
//!
//! In:  `reserve` a slot of a lane, `send` with it, `settle` once the answer is recorded, `abandon` when it is not
//!      wanted any more.
//! Out: nudges; the agent then takes its granted slot or its finished effects. Both wait here until they are taken,
//!      whatever happens to the agent's actor meanwhile.
//!
//! Holds:
//!   MD-1  calls in flight in a lane never exceed the lane's slots
//!   MD-2  a slot is granted in order of priority, then of asking; nobody overtakes a waiting one of equal priority
//!   MD-3  an effect is sent at most once per key and attempt
//!   MD-4  a finished effect is kept until its agent has recorded it, and at most `held_results_max` are kept:
//!         at the bound no further slot is granted until some are recorded
//!
//! Bounds: `reservations_max` waiting a lane, then [`Reserve::Full`]: the agent parks and asks again later. A pause
//! asked for by a provider holds back the whole lane. A model that panics counts as unavailable.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use nexa_event::effect::{Answer, ModelRequest};
use nexa_event::fact::EffectResult;
use nexa_ports::clock::Clock;
use nexa_ports::model::{Model, ModelCall, ModelError};
use nexa_types::{AgentId, EffectKey, Failure, Millis, RunCode, Seq, Spend, TenantId, Timestamp, WorkloadId};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::{Hint, Nudge};
use crate::live::{LiveChunks, LiveHub};

/// How long a cancelled call may take to end by itself before its future is dropped.
const CANCEL_GRACE: Millis = Millis(1_000);
/// The longest pause that a provider may impose on a lane with one answer.
const RETRY_AFTER_MAX: Millis = Millis(300_000);

/// Limits of the dispatcher.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelLimits {
    pub(crate) reservations_max: usize,
    pub(crate) held_results_max: usize,
}

/// What the dispatcher counts.
#[derive(Debug, Default)]
pub(crate) struct ModelCounters {
    /// Calls sent.
    pub(crate) sent: AtomicU64,
    /// Calls sent with an attempt above 1.
    pub(crate) reissued: AtomicU64,
    /// Panics in adapters.
    pub(crate) panics: AtomicU64,
}

/// What became of a wish for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserve {
    /// A slot is held for the agent: [`Models::send`] uses it.
    Granted,
    /// The agent is in the waiting list and is nudged when a slot is held for it.
    Waiting,
    /// The waiting list is full.
    Full,
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
    pub(crate) request: ModelRequest,
    /// Nobody waits for the answer after this.
    pub(crate) deadline: Timestamp,
}

/// An effect that has ended and is not recorded yet.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) key: EffectKey,
    pub(crate) seq: Seq,
    pub(crate) attempt: u32,
    pub(crate) result: EffectResult,
    pub(crate) spend: Spend,
}

struct Flight {
    attempt: u32,
    cancel: CancellationToken,
    abandoned: bool,
    finished: Option<Finished>,
}

#[derive(Default)]
struct Lane {
    slots: usize,
    /// Calls in flight and slots held for agents.
    busy: usize,
    paused_until: Option<Timestamp>,
    waiting: BTreeMap<(Reverse<u8>, u64), AgentId>,
}

/// Where an agent stands with its one wish.
enum Wish {
    Waiting { lane: String, place: (Reverse<u8>, u64) },
    Granted { lane: String },
}

#[derive(Default)]
struct Desk {
    lanes: BTreeMap<String, Lane>,
    wishes: HashMap<AgentId, Wish>,
    flights: BTreeMap<(AgentId, EffectKey), Flight>,
    held: usize,
    ticket: u64,
}

/// The dispatcher. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Models {
    shared: Arc<Shared>,
}

struct Shared {
    desk: Mutex<Desk>,
    model: Arc<dyn Model>,
    clock: Arc<dyn Clock>,
    live: LiveHub,
    nudge: Arc<dyn Nudge>,
    limits: ModelLimits,
    stop: CancellationToken,
    counters: ModelCounters,
}

impl Models {
    pub(crate) fn new(
        model: Arc<dyn Model>,
        clock: Arc<dyn Clock>,
        live: LiveHub,
        nudge: Arc<dyn Nudge>,
        limits: ModelLimits,
        stop: CancellationToken,
    ) -> Self {
        let counters = ModelCounters::default();
        Self { shared: Arc::new(Shared { desk: Mutex::default(), model, clock, live, nudge, limits, stop, counters }) }
    }

    pub(crate) fn counters(&self) -> &ModelCounters {
        &self.shared.counters
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        // Every change under this lock is complete before anything that could panic.
        self.shared.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a slot to send a request to `model`. Asking again while waiting or holding changes nothing.
    pub(crate) fn reserve(&self, agent: AgentId, model: &str, priority: u8) -> Reserve {
        let name = self.shared.model.lane(model);
        let slots = self.shared.model.slots(model).max(1);
        let mut desk = self.lock();
        match desk.wishes.get(&agent) {
            Some(Wish::Granted { lane }) if *lane == name => return Reserve::Granted,
            Some(Wish::Waiting { lane, .. }) if *lane == name => return Reserve::Waiting,
            Some(_) => desk.withdraw(agent),
            None => {}
        }
        desk.ticket += 1;
        let place = (Reverse(priority), desk.ticket);
        let lane = desk.lanes.entry(name.clone()).or_default();
        lane.slots = slots;
        if lane.waiting.len() >= self.shared.limits.reservations_max {
            return Reserve::Full;
        }
        lane.waiting.insert(place, agent);
        desk.wishes.insert(agent, Wish::Waiting { lane: name.clone(), place });
        let granted = desk.grant(&name, &self.shared);
        let mine = granted.contains(&agent);
        drop(desk);
        self.tell(granted.into_iter().filter(|other| *other != agent));
        if mine { Reserve::Granted } else { Reserve::Waiting }
    }

    /// Whether a slot is held for the agent.
    #[cfg(test)]
    pub(crate) fn holds_slot(&self, agent: AgentId) -> bool {
        matches!(self.lock().wishes.get(&agent), Some(Wish::Granted { .. }))
    }

    /// Gives up the agent's wish, granted or waiting.
    pub(crate) fn withdraw(&self, agent: AgentId) {
        let granted = {
            let mut desk = self.lock();
            if !desk.wishes.contains_key(&agent) {
                return;
            }
            desk.withdraw(agent);
            desk.grant_all(&self.shared)
        };
        self.tell(granted);
    }

    /// Sends with the slot that is held for the agent. Its start must be recorded. `false` if no slot was held, or if
    /// this attempt was sent before; then nothing is sent.
    pub(crate) fn send(&self, key: EffectKey, sending: Sending) -> bool {
        let cancel = self.shared.stop.child_token();
        let lane = {
            let mut desk = self.lock();
            if desk.flights.get(&(sending.agent, key)).is_some_and(|flight| flight.attempt >= sending.attempt) {
                return false;
            }
            let lane = match desk.wishes.remove(&sending.agent) {
                Some(Wish::Granted { lane }) => lane,
                Some(waiting) => {
                    desk.wishes.insert(sending.agent, waiting);
                    return false;
                }
                None => return false,
            };
            let flight = Flight { attempt: sending.attempt, cancel: cancel.clone(), abandoned: false, finished: None };
            if desk.flights.insert((sending.agent, key), flight).is_some_and(|earlier| earlier.finished.is_some()) {
                desk.held -= 1;
            }
            lane
        };
        self.shared.counters.sent.fetch_add(1, Ordering::Relaxed);
        if sending.attempt > 1 {
            self.shared.counters.reissued.fetch_add(1, Ordering::Relaxed);
        }
        tokio::spawn(self.clone().carry(lane, key, sending, cancel));
        true
    }

    /// Whether an effect is in flight, or finished and not recorded.
    pub(crate) fn carries(&self, agent: AgentId, key: EffectKey) -> bool {
        self.lock().flights.get(&(agent, key)).is_some_and(|flight| !flight.abandoned)
    }

    /// The effects of an agent that have ended and are not recorded.
    pub(crate) fn finished(&self, agent: AgentId) -> Vec<Finished> {
        let desk = self.lock();
        desk.flights_of(agent).filter_map(|(_, flight)| flight.finished.clone()).collect()
    }

    /// Whether any effect of the agent is in flight or waits to be recorded.
    pub(crate) fn is_in_flight_for(&self, agent: AgentId) -> bool {
        self.lock().flights_of(agent).any(|(_, flight)| !flight.abandoned)
    }

    /// Whether any effect of the agent is in flight or waits to be recorded, or the agent waits for a slot.
    pub(crate) fn is_busy_for(&self, agent: AgentId) -> bool {
        let desk = self.lock();
        desk.wishes.contains_key(&agent) || desk.flights_of(agent).any(|(_, flight)| !flight.abandoned)
    }

    /// The end of an effect is recorded; it is forgotten here.
    pub(crate) fn settle(&self, agent: AgentId, key: EffectKey) {
        let granted = {
            let mut desk = self.lock();
            if desk.flights.get(&(agent, key)).is_none_or(|flight| flight.finished.is_none()) {
                return;
            }
            desk.flights.remove(&(agent, key));
            desk.held -= 1;
            desk.grant_all(&self.shared)
        };
        self.tell(granted);
    }

    /// Nobody wants the result of an effect any more: cancels the call and forgets it.
    pub(crate) fn abandon(&self, agent: AgentId, key: EffectKey) {
        let finished = match self.lock().flights.get_mut(&(agent, key)) {
            Some(flight) => {
                flight.abandoned = true;
                flight.cancel.cancel();
                flight.finished.is_some()
            }
            None => false,
        };
        if finished {
            self.settle(agent, key);
        }
    }

    /// Forgets an agent that has ended or left for good.
    pub(crate) fn forget(&self, agent: AgentId) {
        let keys: Vec<EffectKey> = self.lock().flights_of(agent).map(|(key, _)| *key).collect();
        for key in keys {
            self.abandon(agent, key);
        }
        self.withdraw(agent);
    }

    /// Calls in flight, slots held and not used, agents that wait for one, and results that nobody has recorded yet.
    pub(crate) fn load(&self) -> ModelLoad {
        let desk = self.lock();
        ModelLoad {
            in_flight: desk.flights.values().filter(|flight| flight.finished.is_none()).count(),
            waiting: desk.lanes.values().map(|lane| lane.waiting.len()).sum(),
            held: desk.held,
        }
    }

    fn tell(&self, granted: impl IntoIterator<Item = AgentId>) {
        for agent in granted {
            self.shared.nudge.nudge(agent, Hint::SlotGranted);
        }
    }

    async fn carry(self, lane: String, key: EffectKey, sending: Sending, cancel: CancellationToken) {
        let agent = sending.agent;
        let (seq, attempt) = (sending.seq, sending.attempt);
        // Nothing else stands between a panic in here and the slot: `ask` catches what the adapter does.
        let asked = self.ask(key, sending, &cancel).await;
        let pause = match &asked {
            Err(error) => error.retry_after,
            Ok(_) => None,
        };
        let (result, spend) = match asked {
            Ok(reply) => {
                let spend = reply.spend;
                (EffectResult::Done(Answer::Model(reply)), spend)
            }
            Err(error) => {
                debug!(%agent, %seq, code = %error.code, %error, "model call failed");
                let failure = Failure::new(error.code, error.message);
                (EffectResult::Failed(failure), Spend { calls: 1, ..Spend::default() })
            }
        };
        self.landed(lane, agent, Finished { key, seq, attempt, result, spend }, pause);
    }

    async fn ask(
        &self,
        key: EffectKey,
        sending: Sending,
        cancel: &CancellationToken,
    ) -> Result<nexa_event::effect::ModelReply, ModelError> {
        let shared = &self.shared;
        let timeout = sending.deadline.since(shared.clock.now());
        let chunks = LiveChunks {
            hub: shared.live.clone(),
            workload: sending.workload,
            agent: sending.agent,
            name: sending.name,
            seq: sending.seq,
            attempt: sending.attempt,
        };
        let call = ModelCall {
            request: sending.request,
            key,
            attempt: sending.attempt,
            tenant: sending.tenant,
            workload: sending.workload,
            deadline: Duration::from_millis(timeout.0),
            cancel: cancel.clone(),
        };
        let answer = AssertUnwindSafe(async { shared.model.ask(call, &chunks).await }).catch_unwind();
        let too_late = shared.clock.wait_until(sending.deadline);
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
    fn landed(&self, lane: String, agent: AgentId, finished: Finished, pause: Option<Millis>) {
        let resume = pause.map(|pause| self.shared.clock.now().after(Millis(pause.0.min(RETRY_AFTER_MAX.0))));
        let (granted, wanted) = {
            let mut desk = self.lock();
            if let Some(lane) = desk.lanes.get_mut(&lane) {
                lane.busy -= 1;
                lane.paused_until = lane.paused_until.max(resume);
            }
            let place = (agent, finished.key);
            let wanted = match desk.flights.get_mut(&place) {
                // A later attempt has taken its place.
                Some(flight) if flight.attempt != finished.attempt => false,
                Some(flight) if !flight.abandoned => {
                    flight.finished = Some(finished);
                    desk.held += 1;
                    true
                }
                _ => {
                    desk.flights.remove(&place);
                    false
                }
            };
            (desk.grant_all(&self.shared), wanted)
        };
        if wanted {
            self.shared.nudge.nudge(agent, Hint::EffectEnded);
        }
        self.tell(granted);
        if let Some(resume) = resume {
            let models = self.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = models.shared.clock.wait_until(resume) => {
                        let granted = models.lock().grant_all(&models.shared);
                        models.tell(granted);
                    }
                    () = models.shared.stop.cancelled() => {}
                }
            });
        }
    }
}

/// How busy the dispatcher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModelLoad {
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
    pub(crate) held: usize,
}

impl Desk {
    fn flights_of(&self, agent: AgentId) -> impl Iterator<Item = (&EffectKey, &Flight)> {
        let first = (agent, EffectKey::from_bytes([0; 32]));
        let last = (agent, EffectKey::from_bytes([0xFF; 32]));
        self.flights.range(first..=last).map(|((_, key), flight)| (key, flight))
    }

    fn withdraw(&mut self, agent: AgentId) {
        match self.wishes.remove(&agent) {
            Some(Wish::Waiting { lane, place }) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.waiting.remove(&place);
                }
            }
            Some(Wish::Granted { lane }) => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.busy -= 1;
                }
            }
            None => {}
        }
    }

    fn grant_all(&mut self, shared: &Shared) -> Vec<AgentId> {
        let waited_for: Vec<String> =
            self.lanes.iter().filter(|(_, lane)| !lane.waiting.is_empty()).map(|(name, _)| name.clone()).collect();
        waited_for.iter().flat_map(|name| self.grant(name, shared)).collect()
    }

    /// Hands free slots of a lane to those who wait, in order.
    fn grant(&mut self, name: &str, shared: &Shared) -> Vec<AgentId> {
        let Some(lane) = self.lanes.get_mut(name) else { return Vec::new() };
        if self.held >= shared.limits.held_results_max
            || lane.paused_until.is_some_and(|until| until > shared.clock.now())
        {
            return Vec::new();
        }
        lane.paused_until = None;
        let mut granted = Vec::new();
        while lane.busy < lane.slots
            && let Some((_, agent)) = lane.waiting.pop_first()
        {
            lane.busy += 1;
            self.wishes.insert(agent, Wish::Granted { lane: name.to_owned() });
            granted.push(agent);
        }
        granted
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_owned(),
        (None, None) => "without a text".to_owned(),
    }
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;

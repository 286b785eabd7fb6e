//! What lies outside a simulated cluster: a model that answers by rule, and a sink that counts what tools do by key.
//!
//! Checked here, with every call as it is sent:
//!   RT-1  the store had accepted that this effect is started
//!   P1  nobody has taken the agent over since, but within a second of the store's word that it is this node's
//!   MD-1  the node has no more calls in flight than there is room for
//!   P1b  the node's lease counts, or the store has accepted an append of this node as the agent's owner within the last second
//!
//! The sink is never killed. What reached it has happened, whether or not anybody waits for the answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use nexa_event::effect::{Finish, ModelReply, ToolSource};
use nexa_ports::clock::Clock;
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::membership::{Membership, Standing};
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_ports::tool::{NoTool, ToolCall, ToolError, Tools};
use nexa_runtime::fence::TICKET_FRESH;
use nexa_types::*;
use tokio::sync::oneshot;

use super::Bug;
use super::failpoint::Step;
use super::process::{Process, VirtualClock, lock};
use super::store::Server;
use super::trace::Trace;

/// How long a model thinks at most.
const THINKING_MAX: Millis = Millis(400);
/// How long a way to the sink or back takes at most.
const WAY_MAX: Millis = Millis(300);
/// Calls in flight at once, of models and of tools each.
const SLOTS: usize = 2;

/// What the sink has counted for one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    /// How often it was done.
    pub(super) times: u64,
    /// What was asked for.
    pub(super) what: String,
}

/// All that is outside.
pub(super) struct World {
    clock: Arc<VirtualClock>,
    trace: Arc<Trace>,
    server: Arc<Server>,
    dice: SeededDice,
    done: Mutex<BTreeMap<EffectKey, Counted>>,
    bug: Option<Bug>,
}

impl World {
    pub(super) fn new(
        clock: Arc<VirtualClock>,
        trace: Arc<Trace>,
        server: Arc<Server>,
        seed: u64,
        bug: Option<Bug>,
    ) -> Arc<Self> {
        Arc::new(Self { clock, trace, server, dice: SeededDice::new(seed), done: Mutex::default(), bug })
    }

    /// What was done, by key.
    pub(super) fn done(&self) -> BTreeMap<EffectKey, Counted> {
        lock(&self.done).clone()
    }

    async fn pause(&self, longest: Millis) {
        let span = Millis(self.dice.roll() % (longest.0 + 1));
        self.clock.wait_until(self.clock.now().after(span)).await;
    }

    /// A call leaves a node.
    fn sent(&self, from: &Outside, key: EffectKey, attempt: u32, what: &str) {
        let node = &from.node;
        self.trace.note("sent", format_args!("{node} {key} attempt {attempt} {what}"));
        let Some(started) = self.server.started(key, attempt) else {
            let text = format!("{node} sent {key} attempt {attempt} ({what}), of which the store knows no start");
            return self.trace.violated("RT-1", text);
        };
        let now = self.clock.now();
        let has_lease = match *from.membership.standing().borrow() {
            Standing::Member { valid_until, .. } => now < valid_until,
            Standing::Outside | Standing::Lost => false,
        };
        let since = now.since(self.server.owned_at(started.agent, &from.process));
        let highest = self.server.epoch(started.agent);
        if highest > started.epoch && since > TICKET_FRESH {
            let text = format!("{node} sent {key} attempt {attempt} ({what}) of {}, after {highest}", started.epoch);
            self.trace.violated("P1", text);
        }
        if !has_lease && since > TICKET_FRESH {
            let text = format!(
                "{node} sent {key} attempt {attempt} ({what}) without a lease, {since} after the store last accepted \
                 an append of it as its agent's owner"
            );
            self.trace.violated("P1b", text);
        }
    }

    fn do_it(&self, key: EffectKey, what: &str) {
        let mut done = lock(&self.done);
        let counted = done.entry(key).or_insert_with(|| Counted { times: 0, what: what.to_owned() });
        counted.times += 1;
        self.trace.note("done", format_args!("{key} {what}, {} times", counted.times));
    }
}

/// One process's way to the world.
pub(super) struct Outside {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
    pub(super) node: NodeId,
    pub(super) membership: Arc<dyn Membership>,
    /// Calls in flight, of models and of tools.
    pub(super) calls: [Arc<AtomicUsize>; 2],
}

/// A call that is in flight until this is dropped.
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Outside {
    fn begins(&self, of: usize) -> InFlight {
        let before = self.calls[of].fetch_add(1, Ordering::Relaxed);
        if before >= SLOTS {
            let text = format!("{} has {} calls in flight, where there is room for {SLOTS}", self.node, before + 1);
            self.world.trace.violated("MD-1", text);
        }
        InFlight(self.calls[of].clone())
    }
}

impl Model for Outside {
    fn ask<'a>(&'a self, call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        async move {
            self.process.goes_on().await;
            let dies = self.process.steps_into(Step::Call).await;
            let _in_flight = self.begins(0);
            self.world.sent(self, call.key, call.attempt, "model");
            if dies {
                self.process.dies_here();
            }
            tokio::select! {
                biased;
                () = call.cancel.cancelled() => return Err(ModelError::new(RunCode::Cancelled, "cancelled")),
                () = self.world.pause(THINKING_MAX) => {}
            }
            self.process.goes_on().await;
            let asked = call.request.messages.last().map_or("", |message| message.text.as_str());
            let text = format!("<{asked}>");
            chunks.piece(0, &text);
            let spend = Spend { tokens_in: Tokens(3), tokens_out: Tokens(2), calls: 1, ..Spend::default() };
            Ok(ModelReply {
                text,
                finish: Finish::Stop,
                model: "sim/model".into(),
                spend,
                tokens_left_out: Tokens(0),
                tool_calls: Vec::new(),
            })
        }
        .boxed()
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(SLOTS)
    }

    fn lane(&self, _: &str) -> String {
        "sim".into()
    }
}

impl Tools for Outside {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<String, ToolError>> {
        async move {
            self.process.goes_on().await;
            let dies = self.process.steps_into(Step::Call).await;
            let _in_flight = self.begins(1);
            self.world.sent(self, call.key, call.attempt, &call.request.args);
            let (answered, answer) = oneshot::channel();
            let (world, key, what) = (self.world.clone(), call.key, call.request.args.clone());
            // On its way it depends on nobody any more.
            tokio::spawn(async move {
                world.pause(WAY_MAX).await;
                world.do_it(key, &what);
                if world.bug == Some(Bug::ToolRetry) && world.dice.roll().is_multiple_of(16) {
                    world.do_it(key, &what);
                }
                world.pause(WAY_MAX).await;
                let _ = answered.send(());
            });
            if dies {
                self.process.dies_here();
            }
            let answer = tokio::select! {
                biased;
                () = call.cancel.cancelled() => Err(ToolError::Cancelled),
                answer = answer => answer.map_err(|_| ToolError::Lost("the sink was lost".into())),
            };
            self.process.goes_on().await;
            answer.map(|()| "\"done\"".to_owned())
        }
        .boxed()
    }

    fn find(&self, _: &TenantId, _: &ToolSource, _: &[String]) -> Result<(), NoTool> {
        Ok(())
    }

    fn slots(&self, _: &ToolSource) -> usize {
        SLOTS
    }

    fn lane(&self, source: &ToolSource) -> String {
        source.to_string()
    }
}

//! Takes an input, decides, and says what to store and do.
//!
//! The caller's order, always: `step` (decide), try to get a sending slot for [`Step::wish`] and add
//! [`Agent::start_effect`] to the same append if there is one (reserve), append (record), then send, cancel and wake
//! (act). `step` changes the agent at once; if the append is refused, the agent in memory is wrong and is dropped, and
//! the next owner reads the stream again. If the store is away, the very same append is tried again.
//!
//! Every fact of a step is stamped with the `now` that the step was given: a replay hands it back.

use nexa_event::effect::EffectBody;
use nexa_event::fact::{self, AgentEvent, EffectResult, Spawned};
use nexa_types::limits::BRANCHES_MAX;
use nexa_types::{AgentId, AgentState, EffectKey, Epoch, InputId, NodeId, Outcome, Seq, Spend, Timestamp};

use crate::agent::Agent;
use crate::handles::outcome_bytes;
use crate::invariant;

/// How many wishes one step answers or records before it lets others have a turn.
pub const WISHES_PER_STEP_MAX: u32 = 64;
/// Bytes of decisions and births after which a step leaves the rest to the next one, so that no append grows with the
/// length of a list. The last decision counts when it is made: it is bounded by itself.
pub const STEP_BYTES_MAX: usize = 4 << 20;
/// Births after which a step leaves the rest to the next one: each is a row and an event, and others wait for the store
/// meanwhile. One effect's worth is never divided.
pub const BIRTHS_PER_STEP_MAX: usize = BRANCHES_MAX;
/// Endings of children that one append takes in, see [`Step::takes_in`].
pub const ENDINGS_PER_APPEND_MAX: usize = 64;

/// What wakes an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A node begins to run it. For an agent that was started before it means the same as [`Input::TakeOver`].
    Start {
        /// Where.
        node: NodeId,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// A new owner, or the same one after a restart, goes on with it: what was in flight is wished for again, unless it
    /// is carried. When a carrier is gone, the same under the same epoch. Waking a dormant agent on its own node is no
    /// takeover and needs no input of its own.
    TakeOver {
        /// Where.
        node: NodeId,
        /// Under which epoch.
        epoch: Epoch,
        /// The node that sent what is in flight and hands the answer over.
        carried: Option<NodeId>,
    },
    /// An entry of its inbox.
    Inbox(InputId, fact::Input),
    /// A dispatcher has an answer. One to an effect that has ended or was never started changes nothing.
    EffectEnded {
        /// The effect.
        seq: Seq,
        /// Which sending of it.
        attempt: u32,
        /// How it ended.
        result: EffectResult,
        /// What it used, every attempt counted.
        spend: Spend,
    },
    /// The moment that [`Step::due`] named has come. Too early, it changes nothing.
    Due,
    /// The last step said [`Step::more`].
    Continue,
    /// It kept ending its node; nobody runs it until a person places it again.
    Quarantine {
        /// What was seen.
        reason: String,
    },
}

/// What to store and what to do, once it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Facts for the agent's own stream, the recorded input first. May be empty.
    pub facts: Vec<AgentEvent>,
    /// Agents that exist with this append, and their first events.
    pub births: Vec<(AgentId, Spawned)>,
    /// Entries for the inboxes of others.
    pub posts: Vec<(AgentId, InputId, fact::Input)>,
    /// Entries of its own inbox that are dealt with.
    pub takes: Vec<InputId>,
    /// An outside effect that waits for a sending slot. [`Agent::wish`] gives it again.
    pub wish: Option<OutsideEffect>,
    /// Lines for whoever watches live. Not repeated by a replay.
    pub logs: Vec<String>,
    /// Effects in flight that nobody waits for any more.
    pub abandoned: Vec<EffectKey>,
    /// The end, if this step was the last.
    pub ended: Option<End>,
    /// How people see it now.
    pub state: AgentState,
    /// When to give [`Input::Due`] unless something else comes first.
    pub due: Option<Timestamp>,
    /// It could go on computing: call again with [`Input::Continue`], or with any other input.
    pub more: bool,
    /// What is left of the fuel. Nothing depends on it but whose turn is next.
    pub fuel_left: u64,
    /// Bytes of what may be long in the facts and births.
    pub bytes: usize,
}

impl Step {
    /// Whether the ending of another child may go into the same append, so that the log of a parent whose children end
    /// faster than the store answers does not lag behind them. Not while the brain would compute, and at most
    /// [`ENDINGS_PER_APPEND_MAX`], [`BIRTHS_PER_STEP_MAX`] and [`STEP_BYTES_MAX`]; the last one counts when it is taken in.
    pub fn takes_in(&self, next: &fact::Input) -> bool {
        matches!(next, fact::Input::ChildEnded { .. })
            && !self.more
            && self.ended.is_none()
            && self.takes.len() < ENDINGS_PER_APPEND_MAX
            && self.births.len() < BIRTHS_PER_STEP_MAX
            && self.bytes < STEP_BYTES_MAX
    }

    /// This step and the one that the agent made after it, at the same moment, as one to record.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        let Self { facts, births, posts, takes, wish, logs, abandoned, ended, state, due, more, fuel_left, bytes } =
            later;
        self.facts.extend(facts);
        self.births.extend(births);
        self.posts.extend(posts);
        self.takes.extend(takes);
        self.logs.extend(logs);
        self.abandoned.extend(abandoned);
        Self { wish, ended, state, due, more, fuel_left, bytes: self.bytes + bytes, ..self }
    }
}

/// An outside effect to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct OutsideEffect {
    /// Its number in the agent.
    pub seq: Seq,
    /// Its key: the same for every attempt.
    pub key: EffectKey,
    /// Which sending this will be, from 1. Above 1, an earlier one was in flight when its owner was lost.
    pub attempt: u32,
    /// What is asked for.
    pub body: EffectBody,
    /// Nobody waits for an answer after this.
    pub deadline: Timestamp,
}

/// How an agent ended.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct End {
    /// With what.
    #[n(0)]
    pub outcome: Outcome,
    /// What it and its children used.
    #[n(1)]
    pub spend: Spend,
}

/// A step while it is being made.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) facts: Vec<AgentEvent>,
    pub(crate) births: Vec<(AgentId, Spawned)>,
    pub(crate) posts: Vec<(AgentId, InputId, fact::Input)>,
    pub(crate) logs: Vec<String>,
    pub(crate) abandoned: Vec<EffectKey>,
    /// Bytes of what may be long in the facts and births.
    pub(crate) bytes: usize,
}

impl Agent {
    /// Handles one input that came at `now` and then computes with `fuel_max` for all of it (`SLICE_FUEL` in earnest; 1
    /// makes every safepoint a step in tests).
    pub fn step(&mut self, input: Input, now: Timestamp, fuel_max: u64) -> Step {
        self.step_all([input], now, fuel_max)
    }

    /// Handles inputs that came together: takes in one after the other and computes once. It is what a node does that
    /// comes to none of its computing in between, so a replay, which hands out inputs first, sees nothing new. For
    /// messages: each is a fact, and the waiting between two of them is none.
    pub fn step_all(&mut self, inputs: impl IntoIterator<Item = Input>, now: Timestamp, fuel_max: u64) -> Step {
        let mut fuel = fuel_max;
        let mut draft = Draft::default();
        let (mut takes, mut ended_bytes) = (Vec::new(), 0);
        for input in inputs {
            if let Input::Inbox(id, _) = &input
                && self.takes_inbox(&input)
            {
                takes.push(*id);
            }
            // A child without a time of its own has its parent's. Both are over together, and the parent's counts: it
            // does not learn in time how the child ended.
            let ending = match &input {
                Input::Inbox(_, fact::Input::ChildEnded { outcome, .. }) => Some(outcome_bytes(outcome)),
                _ => None,
            };
            ended_bytes += ending.unwrap_or(0);
            let over = (ending.is_some() && self.is_over(now)).then_some(AgentEvent::DeadlinePassed);
            over.into_iter().for_each(|event| self.record(event, now, &mut draft));
            let event = self.admit(input, now, &mut draft);
            event.into_iter().for_each(|event| self.record(event, now, &mut draft));
        }
        let mut wishes = 0;
        let more = loop {
            if !self.is_computing() {
                // What was wished for in a scope whose time is over is not even sent.
                match self.scope_is_over(now) {
                    Some(event) if self.end().is_none() && !self.life.quarantined => {
                        draft.facts.push(event.clone());
                        let fits = self.apply(&event, now, &mut draft);
                        if invariant!(AG3, fits.is_ok()) {
                            continue;
                        }
                        break false;
                    }
                    _ => break false,
                }
            }
            let is_full = fuel == 0
                || wishes == WISHES_PER_STEP_MAX
                || draft.bytes >= STEP_BYTES_MAX
                || draft.births.len() >= BIRTHS_PER_STEP_MAX;
            if is_full {
                break true;
            }
            if !self.advance(fuel, &mut draft) {
                fuel = 0;
                break true;
            }
            wishes += 1;
            fuel = self.brain.fuel_left();
        };
        self.life.version.0 += draft.facts.len() as u64;
        let ended = match draft.facts.last() {
            Some(AgentEvent::Ended { .. }) => self.end().cloned(),
            _ => None,
        };
        Step {
            facts: draft.facts,
            births: draft.births,
            posts: draft.posts,
            takes,
            wish: self.wish(now),
            logs: draft.logs,
            abandoned: draft.abandoned,
            ended,
            state: self.state(),
            due: self.due(),
            more,
            fuel_left: fuel.min(fuel_max),
            bytes: draft.bytes + ended_bytes,
        }
    }

    /// Decides on what an input, or the clock, has brought.
    fn record(&mut self, event: AgentEvent, now: Timestamp, draft: &mut Draft) {
        draft.facts.push(event.clone());
        let fits = self.apply(&event, now, draft);
        invariant!(AG3, fits.is_ok());
    }

    /// Whether its time is over, and that is still to be recorded.
    fn is_over(&self, now: Timestamp) -> bool {
        let lives = self.end().is_none() && !self.life.quarantined;
        lives && self.limit().is_some_and(|(limit, _)| limit <= now)
    }
}

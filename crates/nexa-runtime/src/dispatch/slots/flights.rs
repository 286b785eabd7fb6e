//! What is in flight at a node for one agent, for models: the very table that runs, made anew from all that has happened to it.
//!
//! A state of a model is copied and compared, which the table cannot be: it holds the ends of calls that are under way. So what
//! is kept is what was done to it, and how it looks after that. Only with the feature `model`.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use nexa_event::fact::EffectResult;
use nexa_ports::model::LaneLimits;
use nexa_ports::neighbours::Carried;
use nexa_types::{AgentId, EffectKey, Millis, NodeId, Seq, Spend, TenantId, Timestamp};
use tokio_util::sync::CancellationToken;

use super::carry::{Offer, Route, Sent};
use super::{Finished, Flight, ModelLimits, Slots};
use crate::dispatch::budget::Cost;
use crate::dispatch::lane::{Ending, LaneKind, Pass, Wanted};
use crate::moving::Carrier;

/// The lane in which everything is sent: there is room in it.
const LANE: &str = "a";
const ROOM: usize = 64;

/// What happens to the table.
#[derive(Debug, Clone)]
pub enum Op {
    /// A slot is reserved, and an attempt of an effect is sent with it, if it was not sent before.
    Send(EffectKey, u32, Timestamp),
    /// The call has ended.
    End(EffectKey, Seq, u32, EffectResult),
    /// The end is recorded here.
    Settle(EffectKey),
    /// The agent is another node's, who was not given it from here.
    Forget,
    /// It has gone to that node.
    HandOver(NodeId),
    /// It has come, with what goes on for it elsewhere.
    TakeUp(Option<Carrier>),
    /// An answer has come from the node that carries it.
    Offered(NodeId, Carried),
    /// That answer is turned away.
    TurnAway(EffectKey),
    /// The agent's node has recorded an answer that is carried here.
    Recorded(EffectKey),
    /// A node is gone.
    Gone(NodeId),
    /// What is due is done.
    Round,
    /// The node that the agent went to has it.
    HasArrived,
    /// The agent has moved on to that node.
    Redirect(EffectKey, NodeId),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Came {
    /// Something was sent.
    pub was_sent: bool,
    /// An answer was taken, and the agent is to look.
    pub was_taken: bool,
    /// What goes on for an agent that has gone.
    pub carrier: Option<Carrier>,
    /// Answers to offer, to whom, and how often they were before.
    pub offers: Vec<(NodeId, Carried, u32)>,
    /// Whom to tell that an answer is recorded.
    pub recorded: Vec<(NodeId, EffectKey)>,
}

/// The table of a node, for one agent.
#[derive(Debug, Clone)]
pub struct Flights {
    node: NodeId,
    agent: AgentId,
    done: Vec<(Op, Timestamp)>,
    /// Ended for the agent here, and not recorded.
    finished: Vec<Carried>,
    /// What the agent here waits for, and who goes on with it.
    awaited: BTreeMap<EffectKey, NodeId>,
    due: Option<Timestamp>,
    has_offers: bool,
    looks: String,
}

struct Table {
    node: NodeId,
    agent: AgentId,
    slots: Slots,
    passes: BTreeMap<(EffectKey, u32), (String, Pass)>,
}

impl Flights {
    /// Nothing is in flight.
    #[must_use]
    pub fn new(node: NodeId, agent: AgentId) -> Self {
        Self {
            node,
            agent,
            done: Vec::new(),
            finished: Vec::new(),
            awaited: BTreeMap::new(),
            due: None,
            has_offers: false,
            looks: String::new(),
        }
    }

    /// Something happens.
    pub fn apply(&mut self, op: Op, now: Timestamp) -> Came {
        let mut table = Table {
            node: self.node.clone(),
            agent: self.agent,
            slots: Slots::new(ModelLimits { reservations_max: ROOM, held_results_max: ROOM }),
            passes: BTreeMap::new(),
        };
        for (op, at) in &self.done {
            table.apply(op.clone(), *at);
        }
        let came = table.apply(op.clone(), now);
        self.done.push((op, now));
        self.finished = table.slots.finished(self.agent).map(|finished| table.carried(finished.clone())).collect();
        let carrier = |key: &EffectKey| table.slots.carrier(self.agent, *key);
        let keys = table.slots.flights.keys().map(|(_, key)| key);
        let awaited = keys.filter_map(|key| Some((*key, carrier(key)?.unwrap_or_else(|| self.node.clone()))));
        self.awaited = awaited.collect();
        self.due = table.slots.round_due();
        let is_offered = |flight: &Flight| matches!(flight.route, Route::Carried(..)) && flight.finished.is_some();
        self.has_offers = table.slots.flights.values().any(is_offered);
        self.looks = table.looks();
        came
    }

    /// Whether an effect is in flight for the agent here, or has ended and is not recorded.
    #[must_use]
    pub fn carries(&self, key: EffectKey) -> bool {
        self.awaited.contains_key(&key)
    }

    /// Who goes on with it.
    #[must_use]
    pub fn carrier(&self, key: EffectKey) -> Option<&NodeId> {
        self.awaited.get(&key)
    }

    /// What has ended and is not recorded.
    #[must_use]
    pub fn finished(&self) -> Option<&Carried> {
        self.finished.first()
    }

    /// Whether an answer is here for an agent that has gone, and not known to be recorded.
    #[must_use]
    pub fn has_offers(&self) -> bool {
        self.has_offers
    }

    /// When [`Op::Round`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }
}

impl PartialEq for Flights {
    fn eq(&self, other: &Self) -> bool {
        self.looks == other.looks
    }
}

impl Eq for Flights {}

impl Hash for Flights {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.looks.hash(state);
    }
}

impl Table {
    fn carried(&self, finished: Finished) -> Carried {
        let Finished { key, seq, attempt, result, spend } = finished;
        Carried { agent: self.agent, key, seq, attempt, result, spend }
    }

    fn apply(&mut self, op: Op, now: Timestamp) -> Came {
        let (agent, mut came) = (self.agent, Came::default());
        let spend = Spend::default();
        match op {
            Op::Send(key, attempt, deadline) => {
                let kind = LaneKind { limits: LaneLimits::at_once(ROOM), has_breaker: false };
                let wanted = Wanted {
                    agent,
                    tenant: TenantId::local(),
                    weight: 1,
                    priority: 0,
                    cost: Cost { input: 0, output: 0 },
                    patience: Millis(0),
                };
                self.slots.reserve(LANE.to_owned(), kind, wanted, now);
                let call = (CancellationToken::new(), deadline);
                match self.slots.take_off(agent, key, attempt, call, now) {
                    Some((lane, pass, _)) => {
                        self.passes.insert((key, attempt), (lane, pass));
                        came.was_sent = true;
                    }
                    None => drop(self.slots.withdraw(agent, now)),
                }
            }
            Op::End(key, seq, attempt, result) => {
                if let Some((lane, pass)) = self.passes.remove(&(key, attempt)) {
                    let finished = Finished { key, seq, attempt, result, spend };
                    let ending = Ending::Answered(Cost { input: 0, output: 0 });
                    came.was_taken = self.slots.land(&lane, pass, ending, agent, finished, now).0;
                }
            }
            Op::Settle(key) => drop(self.slots.settle(agent, key, now)),
            Op::Forget => drop(self.slots.forget(agent, now)),
            Op::HandOver(to) => {
                let sent = self.slots.hand_over(agent, &to, now).0;
                came.carrier = sent.map(|Sent { key, attempt, deadline, by }| {
                    let node = by.unwrap_or_else(|| self.node.clone());
                    Carrier { node, key, attempt, deadline }
                });
            }
            Op::TakeUp(carrier) => {
                let sent = carrier.map(|Carrier { node, key, attempt, deadline }| {
                    let by = (node != self.node).then_some(node);
                    Sent { key, attempt, deadline, by }
                });
                self.slots.take_up(agent, sent);
            }
            Op::Offered(from, Carried { key, seq, attempt, result, spend, .. }) => {
                let finished = Finished { key, seq, attempt, result, spend };
                came.was_taken = self.slots.is_offered(&from, agent, finished);
            }
            Op::TurnAway(key) => drop(self.slots.turn_away(agent, key)),
            Op::Recorded(key) => drop(self.slots.is_recorded(agent, key, now)),
            Op::Gone(node) => drop(self.slots.carrier_is_gone(&node)),
            Op::Round => {
                let offers = self.slots.round(now).offers;
                came.offers = (offers.into_iter())
                    .map(|Offer { to, finished, offered, .. }| (to, self.carried(finished), offered))
                    .collect();
            }
            Op::HasArrived => self.slots.has_arrived(agent, now),
            Op::Redirect(key, node) => self.slots.redirect(agent, key, node),
        }
        came.recorded = self.slots.take_recorded().into_iter().map(|(node, _, key)| (node, key)).collect();
        came
    }

    /// All of it that anything depends on. Of turns it is their order.
    fn looks(&self) -> String {
        let mut turns: Vec<u64> = self.slots.flights.values().map(|flight| flight.turn).collect();
        turns.sort_unstable();
        let mut looks = String::new();
        for ((_, key), flight) in &self.slots.flights {
            let Flight { attempt, abandoned, finished, route, due, turn, .. } = flight;
            let place = if *turn == 0 { 0 } else { 1 + turns.partition_point(|other| other < turn) };
            let is_due = due.is_some();
            looks += &format!("{key} {attempt} {abandoned} {finished:?} {route:?} {is_due} {place};");
        }
        format!("{looks} {:?}", self.passes.keys())
    }
}

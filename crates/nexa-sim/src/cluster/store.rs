//! The store of a simulated cluster: the in-memory twin, which several processes reach each on a way of its own ([`way`]), and
//! what is checked of all that is stored there.
//!
//! Checked here, with every fact as it is stored:
//!   P1  no fact of an agent is stored under an epoch below the highest that it has had, and none says that an effect was
//!       started under one
//!   LE-2  no leader places an agent on a node long after people had that take nothing new
//!   LD-1  nothing of a leader is accepted under an epoch below the highest that was accepted

mod broken;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use nexa_event::codec;
use nexa_event::envelope::Fact;
use nexa_event::fact::AgentEvent;
use nexa_ports::clock::Clock;
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::leadership::{LeadError, Leadership};
use nexa_ports::memory::MemoryStore;
use nexa_ports::store::*;
use nexa_types::*;

pub(super) use self::way::ProcessStore;
use super::Bug;
use super::process::{Process, VirtualClock, lock};
use super::trace::Trace;

/// How long a way to the store or back takes at most when nothing is wrong with it.
const CALM_DELAY: Millis = Millis(8);
/// How much later than its doubtful answer a write may be stored.
const LATE_MAX: Millis = Millis(2_000);
/// What was on its way when a node was cordoned may come for so long.
const SHUT_GRACE: Millis = Millis(8_000);

/// What is wrong with the store for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weather {
    /// Of a thousand calls, so many are refused.
    pub(super) refused_per_mille: u64,
    /// Of a thousand writes, so many are answered by nobody knows.
    pub(super) doubted_per_mille: u64,
    /// The longest that a way there or back takes.
    pub(super) delay_max: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    Refused,
    /// Not stored, and nobody says so.
    Unsaid,
    /// Stored, and nobody says so.
    Lost,
    /// Nobody says so, and it is stored afterwards.
    Late,
}

/// The start of an effect that the store has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Started {
    pub(super) agent: AgentId,
    pub(super) epoch: Epoch,
}

#[derive(Default)]
struct Seen {
    position: GlobalSeq,
    epochs: BTreeMap<AgentId, Epoch>,
    leader: Epoch,
    /// Each attempt of an effect that the store has accepted. An earlier one may still be sent when a later one is accepted: its
    /// sender hears of its own first.
    started: BTreeMap<(EffectKey, u32), Started>,
    /// Effects that were started and have not ended.
    open: BTreeSet<(AgentId, Seq)>,
    /// Nodes on which nothing is to be placed, and since when.
    shut: BTreeMap<NodeId, Timestamp>,
    /// When each process was last told that it owns an agent, by an append that was accepted.
    owned_at: BTreeMap<(AgentId, u64), Timestamp>,
}

/// The store itself.
pub(super) struct Server {
    pub(super) memory: MemoryStore,
    clock: Arc<VirtualClock>,
    trace: Arc<Trace>,
    dice: SeededDice,
    weather: Mutex<Weather>,
    seen: Mutex<Seen>,
    bug: Option<Bug>,
    /// Inputs that a bug has given other ids.
    renamings: AtomicU64,
}

impl Server {
    pub(super) fn new(clock: Arc<VirtualClock>, trace: Arc<Trace>, seed: u64, bug: Option<Bug>) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(),
            clock,
            trace,
            dice: SeededDice::new(seed),
            weather: Mutex::default(),
            seen: Mutex::default(),
            bug,
            renamings: AtomicU64::new(1 << 32),
        })
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        *lock(&self.weather) = weather;
    }

    /// The start of this attempt, if it was accepted.
    pub(super) fn started(&self, key: EffectKey, attempt: u32) -> Option<Started> {
        lock(&self.seen).started.get(&(key, attempt)).copied()
    }

    /// Whether an effect was started and has not ended.
    pub(super) fn has_open_effects(&self) -> bool {
        !lock(&self.seen).open.is_empty()
    }

    /// The highest epoch that an agent has had in its stream.
    pub(super) fn epoch(&self, agent: AgentId) -> Epoch {
        lock(&self.seen).epochs.get(&agent).copied().unwrap_or_default()
    }

    /// From now on, or no longer, nothing is to be placed on a node.
    pub(super) fn shuts(&self, node: &NodeId, is_shut: bool) {
        let mut seen = lock(&self.seen);
        if is_shut {
            seen.shut.insert(node.clone(), self.clock.now());
        } else {
            seen.shut.remove(node);
        }
    }

    /// A leader has placed an agent.
    fn placed(&self, wish: &Place) {
        let shut = lock(&self.seen).shut.get(&wish.node).copied();
        if let Some(span) = shut.map(|at| self.clock.now().since(at)).filter(|span| *span > SHUT_GRACE) {
            self.trace
                .violated("LE-2", format!("{} was placed on {}, {span} after it was shut", wish.agent, wish.node));
        }
    }

    /// When the store last accepted an append of this process as an agent's owner, one without facts too: that is how it asks.
    pub(super) fn owned_at(&self, agent: AgentId, by: &Process) -> Timestamp {
        lock(&self.seen).owned_at.get(&(agent, by.number)).copied().unwrap_or_default()
    }

    fn delay(&self) -> Millis {
        let longest = lock(&self.weather).delay_max.0.max(CALM_DELAY.0);
        Millis(self.dice.roll() % (longest + 1))
    }

    fn fate(&self, writes: bool) -> Fate {
        let Weather { refused_per_mille, doubted_per_mille, .. } = *lock(&self.weather);
        let roll = self.dice.roll() % 1_000;
        if roll < refused_per_mille {
            Fate::Refused
        } else if writes && roll < refused_per_mille + doubted_per_mille {
            [Fate::Unsaid, Fate::Lost, Fate::Late][(self.dice.roll() % 3) as usize]
        } else {
            Fate::Fine
        }
    }

    async fn pause(&self, span: Millis) {
        self.clock.wait_until(self.clock.now().after(span)).await;
    }

    /// Looks at what was stored since the last look.
    pub(super) async fn observe(&self) {
        let from = lock(&self.seen).position;
        let facts = self.memory.scan(None, from, usize::MAX).await.unwrap_or_default();
        let mut seen = lock(&self.seen);
        for Recorded { position, workload, envelope } in facts {
            seen.position = position;
            let header = &envelope.header;
            let epoch = header.epoch.unwrap_or_default();
            let line = format!("{} v{} e{} {}", header.stream, header.version, epoch, name_of(&envelope.fact));
            self.trace.fact(&line, &codec::encode(&envelope.fact));
            let (StreamId::Agent(agent), Fact::Agent(event)) = (&header.stream, &envelope.fact) else { continue };
            let said = match event {
                AgentEvent::EffectStarted { epoch, .. } | AgentEvent::TakenOver { epoch, .. } => *epoch,
                _ => epoch,
            };
            let highest = seen.epochs.entry(*agent).or_default();
            if epoch < *highest || said < *highest {
                let text = format!("{line}: stored under {epoch}, says {said}, and the agent has had {highest}");
                self.trace.violated("P1", text);
            }
            *highest = epoch.max(said).max(*highest);
            match (event, workload) {
                (AgentEvent::EffectStarted { seq, attempt, epoch }, Some(workload)) => {
                    let key = EffectKey::of(workload, *agent, *seq);
                    seen.started.insert((key, *attempt), Started { agent: *agent, epoch: *epoch });
                    seen.open.insert((*agent, *seq));
                }
                (AgentEvent::EffectEnded { seq, .. } | AgentEvent::EffectLost { seq }, _) => {
                    seen.open.remove(&(*agent, *seq));
                }
                (AgentEvent::Ended { .. }, _) => seen.open.retain(|(of, _)| of != agent),
                _ => {}
            }
        }
    }

    fn led(&self, epoch: Epoch) {
        let mut seen = lock(&self.seen);
        if epoch < seen.leader {
            self.trace.violated("LD-1", format!("a leader of epoch {epoch} was heard after one of {}", seen.leader));
        }
        seen.leader = epoch.max(seen.leader);
    }
}

/// Takes a text up to where its first word ends.
struct FirstWord(String);

impl fmt::Write for FirstWord {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.find([' ', '(', '{']) {
            Some(end) => {
                self.0.push_str(&text[..end]);
                Err(fmt::Error)
            }
            None => {
                self.0.push_str(text);
                Ok(())
            }
        }
    }
}

/// The kind of a fact: as it is called where it is defined.
pub(super) fn name_of(fact: &Fact) -> String {
    let mut word = FirstWord(String::new());
    // It says that it failed as soon as it has the word.
    let _ = match fact {
        Fact::Agent(event) => write!(word, "{event:?}"),
        Fact::Workload(event) => write!(word, "{event:?}"),
        Fact::Cluster(event) => write!(word, "{event:?}"),
    };
    word.0
}

impl Server {
    async fn place_as(&self, leader: Epoch, wishes: Vec<Place>) -> Result<Vec<Result<Epoch, Epoch>>, LeadError> {
        let answers = match self.bug {
            Some(Bug::OldLeaderHeard) => self.memory.place(wishes.clone()).await?,
            _ => self.memory.place_as(leader, wishes.clone()).await?,
        };
        wishes.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()).for_each(|(wish, _)| self.placed(wish));
        Ok(answers)
    }

    async fn append(&self, by: u64, batch: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
        let streams: Vec<StreamId> = batch.iter().map(|append| append.stream.clone()).collect();
        let answers = self.judge(batch).await;
        let (mut seen, now) = (lock(&self.seen), self.clock.now());
        for (stream, _) in streams.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()) {
            if let StreamId::Agent(agent) = stream {
                seen.owned_at.insert((*agent, by), now);
            }
        }
        answers
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

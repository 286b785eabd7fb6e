//! The actor of whoever is elected: takes in what happens, asks the pure machine, and has done what that wants.
//!
//! Mailbox: control 64 (members, elections, suspects), replies 8,192 (answers to what it asked for; so many questions are
//! never open), work 1,024 (heartbeats, hints, commands, time). What is refused in the first two is offered again; of the
//! last, heartbeats and time come again by themselves, and a command is refused. Supervised by the cluster; a restart
//! keeps what waits in the lanes and nothing else, and begins anew from the members and the store, as every new leader
//! does. Nothing is awaited in `handle`: each wish is carried out beside it, and its answer is a message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nexa_member::leader::{Facts, Input, Leader, Output, PAGE, Row, Which};
use nexa_member::say::{self, Command, Done, Heartbeat, Order, Refused};
use nexa_ports::leadership::LeadError;
use nexa_ports::membership::Members;
use nexa_ports::store::{AgentRow, Place, Rows};
use nexa_runtime::bounded::{Behaviour, Fault, Lane, Reply, Then};
use nexa_runtime::trace;
use nexa_types::{AgentId, AgentState, Epoch, Generation, NodeId, WorkloadId};
use tracing::{debug, info, warn};

use crate::inner::{Inner, MARK_PREFIX, lock};
use crate::orders;
use crate::peers::{AskError, Class, Service, Why};

/// How long a node may take to take up what it is given, and to say what it lacks.
const ORDER_WITHIN: Duration = Duration::from_secs(3);
/// How long a node may take to let an agent go.
const RELEASE_WITHIN: Duration = Duration::from_secs(9);

/// What the actor is sent.
pub(crate) enum Message {
    /// Something has happened.
    Input(Input),
    /// A person's wish.
    Command(Command, Reply<Result<(), Refused>>),
}

/// Makes a leader of what the cluster knows.
pub(crate) struct Actor {
    inner: Weak<Inner>,
}

pub(crate) struct State {
    machine: Leader,
    commands: BTreeMap<u64, Reply<Result<(), Refused>>>,
    numbers: u64,
    /// What the machine wants since it was made.
    wanted: Vec<Output>,
}

impl Actor {
    pub(crate) fn new(inner: Weak<Inner>) -> Self {
        Self { inner }
    }
}

/// What a list of members says to a leader.
pub(crate) fn inputs_of(list: &Members, me: &NodeId, generation: Generation) -> Vec<Input> {
    let facts = list.nodes.iter().map(|(node, member)| {
        let card = &member.card;
        let facts = Facts {
            generation: member.generation,
            cpu_milli: card.cpu_milli,
            memory_bytes: card.memory_bytes,
            agents_max: card.agents_max,
            labels: card.labels.clone(),
        };
        (node.clone(), facts)
    });
    let office = match &list.leader {
        Some(leader) if leader.node == *me && leader.generation == generation => Input::Elected(leader.epoch),
        Some(leader) => Input::Deposed(leader.epoch),
        // Whoever is elected next has a greater one than all that were seen.
        None => Input::Deposed(Epoch(u64::MAX)),
    };
    vec![Input::Members(facts.collect()), office]
}

impl Behaviour for Actor {
    type Message = Message;
    type State = State;

    fn start(&self) -> State {
        let mut state = State {
            machine: Leader::new(self.inner.upgrade().map(|inner| inner.limits.clone()).unwrap_or_default()),
            commands: BTreeMap::new(),
            numbers: 0,
            wanted: Vec::new(),
        };
        if let Some(inner) = self.inner.upgrade() {
            let list = inner.membership.members().borrow().clone();
            let beats = lock(&inner.seen).beats.clone().into_iter();
            let heard = beats.map(|(node, (generation, beat))| {
                let Heartbeat { load, adopted, .. } = beat;
                Input::Heard { node, generation, load, adopted }
            });
            for input in inputs_of(&list, &inner.me, inner.generation).into_iter().chain(heard) {
                let wanted = state.machine.step(input, inner.clock.now(), inner.dice.roll());
                state.wanted.extend(wanted);
            }
            inner.office.set(state.machine.is_elected());
        }
        state
    }

    async fn handle(&self, state: &mut State, message: Message) -> Result<Then, Fault> {
        let Some(inner) = self.inner.upgrade() else { return Ok(Then::Stop) };
        let input = match message {
            Message::Input(input) => input,
            Message::Command(command, reply) => {
                state.numbers += 1;
                state.commands.insert(state.numbers, reply);
                Input::Command(state.numbers, command)
            }
        };
        let before = state.machine.leads();
        let is_tick = input == Input::Tick;
        let mut wanted = std::mem::take(&mut state.wanted);
        wanted.extend(state.machine.step(input, inner.clock.now(), inner.dice.roll()));
        inner.office.set(state.machine.is_elected());
        let leads = state.machine.leads();
        if leads != before {
            match leads {
                Some(epoch) => info!(node = %inner.me, %epoch, "leads"),
                None => info!(node = %inner.me, "leads no more"),
            }
            if leads.is_none() {
                // What was asked of this leadership is nobody's any more.
                std::mem::take(&mut state.commands)
                    .into_values()
                    .for_each(|reply| reply.send(Err(Refused::NotLeading)));
            }
        }
        if is_tick || leads != before {
            inner.set_levels(leads, state.machine.levels());
        }
        for output in wanted {
            match output {
                Output::Answer(number, answer) => {
                    if let Some(reply) = state.commands.remove(&number) {
                        reply.send(answer);
                    }
                }
                Output::StepDown { why } => inner.step_down(why),
                Output::FailedOver { node, took } => {
                    info!(%node, ms = took.0, "all agents of a lost node have other owners");
                    inner.counters.failed_over(took);
                }
                output => {
                    let inner = inner.clone();
                    tokio::spawn(async move {
                        let stop = inner.stop.clone();
                        tokio::select! {
                            biased;
                            input = carry_out(&inner, output) => {
                                if let Some(input) = input {
                                    inner.tell_leader(Lane::Replies, input);
                                }
                            }
                            () = stop.cancelled() => {}
                        }
                    });
                }
            }
        }
        Ok(Then::GoOn)
    }
}

/// Does what a leader wants; gives what came of it.
async fn carry_out(inner: &Arc<Inner>, output: Output) -> Option<Input> {
    match output {
        Output::Lead(epoch) => Some(match inner.leadership.lead(epoch).await {
            Ok(()) => Input::Leading(epoch, true),
            Err(LeadError::Deposed { current }) => deposed(epoch, current),
            Err(error) => {
                warn!(%epoch, %error, "the store was not told who leads");
                Input::Leading(epoch, false)
            }
        }),
        Output::ReadMarks(epoch) => {
            let marks = inner.marks().await;
            let marks = marks.inspect_err(|error| warn!(%error, "what is to be done with nodes was not read"));
            Some(Input::Marks(epoch, marks.ok()))
        }
        Output::Read { number, which, after } => {
            let (which, left) = match which {
                Which::Unplaced => (Rows::Unplaced, None),
                Which::Live => (Rows::Live, None),
                Which::Of(node) => (Rows::Of(node), None),
                Which::Left(node) => (Rows::Of(node.clone()), Some(node)),
            };
            let rows = inner.store.rows(which, after, PAGE).await;
            let rows = rows.inspect_err(|error| debug!(%error, "rows were not read")).ok();
            let mut rows = match rows {
                Some(rows) => rows_of(inner, rows).await,
                None => None,
            };
            // After they were read: a run that is not there yet has not touched them, and what it does later changes them.
            if let Some(node) = left
                && rows.as_ref().is_some_and(|rows| !rows.is_empty())
                && !is_left(inner, &node).await
            {
                rows = None;
            }
            Some(Input::Rows(number, rows))
        }
        Output::Place { number, leader, wishes } => {
            let wishes = wishes.into_iter().map(|(agent, from, node)| Place { agent, from, node }).collect();
            Some(match inner.leadership.place_as(leader, wishes).await {
                Ok(answers) => {
                    inner.counters.placed(answers.iter().filter(|answer| answer.is_ok()).count());
                    Input::Placed(number, Some(answers))
                }
                Err(LeadError::Deposed { current }) => deposed(leader, current),
                Err(error) => {
                    warn!(%error, "agents were not placed, or nobody knows");
                    Input::Placed(number, None)
                }
            })
        }
        Output::Tell { number, node, generation, leader, agents } => {
            let seen = trace::place(&inner.me, &node, agents.len());
            let order = Order::Placed { leader, number, agents, run: generation, trace: trace::context_of(&seen) };
            match order_of(inner, &node, order, ORDER_WITHIN).await {
                Ok(done) => Some(Input::Told { number, done: done == Done::Adopted }),
                Err(Undone::Deposed) => {
                    trace::failed(&seen, "deposed");
                    Some(Input::Deposed(leader))
                }
                Err(Undone::Failed) => {
                    trace::failed(&seen, "no_answer");
                    Some(Input::Told { number, done: false })
                }
            }
        }
        Output::Check { node, generation, leader, agents } => {
            let order = Order::Check { leader, agents, run: generation };
            match order_of(inner, &node, order, ORDER_WITHIN).await {
                Ok(Done::Missing(missing)) => Some(Input::Checked { node, missing: Some(missing) }),
                Err(Undone::Deposed) => Some(Input::Deposed(leader)),
                Ok(_) | Err(Undone::Failed) => Some(Input::Checked { node, missing: None }),
            }
        }
        Output::PutMark { leader, node, expected, mark } => {
            let name = format!("{MARK_PREFIX}{node}");
            match inner.leadership.put_record(leader, name, expected, say::write(&mark)).await {
                Ok(version) => {
                    info!(%node, ?mark, "what is to be done with a node has changed");
                    Some(Input::Marked { node, version: Some(version) })
                }
                Err(LeadError::Deposed { current }) => Some(deposed(leader, current)),
                Err(error) => {
                    warn!(%node, %error, "what is to be done with a node was not written");
                    Some(Input::Marked { node, version: None })
                }
            }
        }
        Output::Move { leader, agent, from, generation, to } => {
            let order = Order::Release { leader, agent, to, run: generation };
            match order_of(inner, &from, order, RELEASE_WITHIN).await {
                Ok(done) => Some(Input::Moved { agent, done: done == Done::Released }),
                Err(Undone::Deposed) => Some(Input::Deposed(leader)),
                Err(Undone::Failed) => Some(Input::Moved { agent, done: false }),
            }
        }
        Output::Kept { node, agents, asks } => {
            warn!(%node, agents, asks = %asks, "agents stay on a node that is to be left: no other has what they ask for");
            None
        }
        Output::Answer(..) | Output::StepDown { .. } | Output::FailedOver { .. } => None,
    }
}

/// Whether no run of a node is there, by the word of the membership service and not by a list, which may be old.
async fn is_left(inner: &Inner, node: &NodeId) -> bool {
    match inner.membership.run_of(node.clone()).await {
        Ok(None) => true,
        Ok(Some(generation)) => {
            debug!(%node, %generation, "a node that was gone is back, and has its agents");
            false
        }
        Err(error) => {
            debug!(%node, %error, "whether a node is back is not known");
            false
        }
    }
}

fn deposed(epoch: Epoch, current: Epoch) -> Input {
    info!(%epoch, %current, "somebody else leads");
    Input::Deposed(epoch)
}

/// Rows as a leader looks at them. Of those that ask for something it also knows whether their workload has ended or their
/// time is over, so that they need not wait for a node that suits them to say so.
async fn rows_of(inner: &Inner, rows: Vec<AgentRow>) -> Option<Vec<Row>> {
    let roots: BTreeSet<AgentId> =
        rows.iter().filter(|row| row.asks.is_some()).map(|row| AgentId::root(row.workload)).collect();
    let count = roots.len();
    let over: BTreeSet<WorkloadId> = if count == 0 {
        BTreeSet::new()
    } else {
        let roots = inner.store.rows(Rows::Agents(roots.into_iter().collect()), None, count).await;
        let roots = roots.inspect_err(|error| debug!(%error, "rows were not read")).ok()?;
        roots.into_iter().filter(|root| root.state.is_terminal()).map(|root| root.workload).collect()
    };
    let now = inner.clock.now();
    let is_late = |row: &AgentRow| row.asks.as_ref().and_then(|asks| asks.until).is_some_and(|until| until <= now);
    let is_over = |row: &AgentRow| over.contains(&row.workload) || is_late(row);
    Some(rows.into_iter().map(|row| Row { is_over: is_over(&row), ..row_of(row) }).collect())
}

fn row_of(row: AgentRow) -> Row {
    Row {
        agent: row.agent,
        node: row.node,
        epoch: row.epoch,
        priority: row.priority,
        is_quarantined: row.state == AgentState::Quarantined,
        is_cancelled: row.cancelled,
        is_over: false,
        workload: row.workload,
        asks: row.asks,
    }
}

/// Why an order was not obeyed.
enum Undone {
    /// The node knows a later leader.
    Deposed,
    /// It did not answer, or could not.
    Failed,
}

/// Gives a node an order: another, or the one beside.
async fn order_of(inner: &Inner, node: &NodeId, order: Order, within: Duration) -> Result<Done, Undone> {
    let refused = |why: Why| if why == Why::NotMe { Undone::Deposed } else { Undone::Failed };
    if *node == inner.me {
        return orders::obey(inner, order).await.map_err(|refusal| refused(refusal.why));
    }
    let body = say::write(&order).into();
    match inner.peers.ask(node, Class::Work, Service::Placing, body, within).await {
        Ok(answer) => say::read(&answer).map_err(|_| Undone::Failed),
        Err(AskError::Refused(refusal)) => {
            debug!(%node, %refusal, "a node does not do what it was told");
            Err(refused(refusal.why))
        }
        Err(error) => {
            debug!(%node, %error, "a node does not answer");
            Err(Undone::Failed)
        }
    }
}

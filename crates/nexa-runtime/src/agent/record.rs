//! Records a step, then acts on it; and what to do when the store says no, says nothing, or nobody knows what it said.
//!
//!   accepted            act
//!   stale epoch         the row has a right of this node, as after a cancel: read everything again; else another owner
//!                       has it: stop
//!   version conflict    somebody wrote what this agent does not know: read everything again, once; then quarantine. Of a step
//!                       that may be on its way already it is likely the step itself: look whether it was stored
//!   away, full, lost    keep the step, pause, look whether it was stored after all, and only else append it again

use nexa_agent::{Input, OutsideEffect, Step};
use nexa_event::asks::Asks;
use nexa_event::effect::EffectBody;
use nexa_event::envelope::Fact;
use nexa_event::fact::{self, WorkloadEvent};
use nexa_ports::store::{Append, AppendError, Birth, Guard, Post, RowChange, Rows, Stamp, StoreError};
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, EffectKey, Epoch, InputId, NodeId, Outcome, Seq, StreamId, Timestamp, Version};
use tracing::{debug, warn};

use super::{AgentActor, Body, Loaded, births, hear};
use crate::begin::is_work;
use crate::bounded::Fault;
use crate::config::Counters;
use crate::dispatch::Hint;
use crate::dispatch::models::{Sending, Work};
use crate::dispatch::slots::Reserve;
use crate::fence::FENCE_RETRY;
use crate::genai;
use crate::live::{LiveKind, LivePiece, cut};
use crate::newborn::Newborn;
use crate::resume::{self, After, Doubt};
use crate::supervise::Failed;
use crate::trace;

/// A decided step until it is recorded and acted on.
pub(super) struct Kept {
    append: Option<Append>,
    acts: Acts,
    /// When the store was asked by the append that may have been taken in, the first of several, as the fence counts.
    asked: Option<Timestamp>,
}

/// What follows once a step is recorded. None of it can fail.
#[derive(Default)]
struct Acts {
    settled: Option<EffectKey>,
    send: Option<OutsideEffect>,
    abandoned: Vec<EffectKey>,
    /// Children that were born here, and those that somebody has to place.
    born: Vec<AgentId>,
    unplaced: Vec<AgentId>,
    /// Whose inboxes have changed.
    posted: Vec<AgentId>,
    logs: Vec<String>,
    row: Option<RowChange>,
    ended: bool,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    /// Recorded and acted on.
    Done,
    /// Recorded, and it was the last one.
    Ended,
    /// Kept; the agent is called again after a pause.
    Paused,
    /// The agent in memory is wrong: read it again.
    Outdated,
    /// The agent does not run here any more: this is its epoch now, as far as it is known.
    NotMine(Epoch),
}

/// Bytes of messages after which the others wait for the next append.
const MAIL_BYTES_MAX: usize = 1 << 20;

/// How long a message is, or a note of how many were read; `None` if it is something else.
fn mail_bytes(input: &fact::Input) -> Option<usize> {
    match input {
        fact::Input::Message { value, .. } | fact::Input::Passed { value, .. } => Some(value.len()),
        fact::Input::Credit { .. } => Some(0),
        _ => None,
    }
}

impl AgentActor {
    /// Decides on an input. Messages that have come by now are decided on together: one append for all, where each
    /// would wait for the disk by itself.
    pub(super) fn decide(&self, loaded: &mut Loaded, input: Input, now: Timestamp, fuel: u64) -> Step {
        let Loaded { agent, inbox, heard, .. } = loaded;
        let first = if let Input::Inbox(_, input) = &input { mail_bytes(input) } else { None };
        let mut bytes = first.unwrap_or(MAIL_BYTES_MAX);
        let more = std::iter::from_fn(|| {
            if bytes >= MAIL_BYTES_MAX {
                return None;
            }
            bytes += mail_bytes(&inbox.front()?.input)?;
            inbox.pop_front().map(|entry| hear(entry, heard))
        });
        agent.step_all(std::iter::once(input).chain(more), now, fuel)
    }

    /// Makes of a step what will be stored and done: reserves a slot for its wish and, with one, adds the ticket.
    pub(super) fn keep(&self, loaded: &mut Loaded, step: Step, settled: Option<EffectKey>, now: Timestamp) -> Kept {
        let mut facts = step.facts;
        loaded.more = step.more;
        loaded.wish = step.wish;
        let mut send = None;
        if let Some(wish) = self.reserve(loaded) {
            facts.extend(loaded.agent.start_effect(wish.seq));
            loaded.wish = None;
            send = Some(wish);
        }
        let row = RowChange { state: step.state, due: step.due };
        let asks: Vec<Option<&Asks>> = step.births.iter().map(|(_, spawned)| spawned.asks.as_ref()).collect();
        let here = births::here(&asks, &*self.core.neighbours);
        let births: Vec<Birth> = (step.births.into_iter().zip(here))
            .map(|((agent, spawned), here)| Birth {
                agent,
                workload: spawned.workload,
                node: here.then(|| self.core.config.node.clone()),
                priority: spawned.priority,
                first: Fact::Agent(nexa_event::fact::AgentEvent::Spawned(spawned)),
            })
            .collect();
        // Each is linked to the turn that sends it, and to nothing else: an agent's birth is no reason for what it says later.
        let trace = if step.posts.is_empty() { None } else { trace::here() };
        let posts: Vec<Post> = step.posts.into_iter().map(|(to, id, input)| Post { to, id, input, trace }).collect();
        let posted = posts.iter().map(|post| post.to).collect();
        let (born, unplaced): (Vec<&Birth>, Vec<&Birth>) = births.iter().partition(|birth| birth.node.is_some());
        let ids = |births: Vec<&Birth>| births.into_iter().map(|birth| birth.agent).collect();
        let (born, unplaced) = (ids(born), ids(unplaced));
        let also = match (&step.ended, loaded.agent.spawned().parent) {
            (Some(end), parent) if parent.is_none() || planted(Bug::ChildEndsWorkload) => {
                let ended = WorkloadEvent::Ended { outcome: end.outcome.clone(), spend: end.spend };
                Some((StreamId::Workload(loaded.workload), vec![Fact::Workload(ended)]))
            }
            _ => None,
        };
        if let Some(Outcome::Err(failure)) = step.ended.as_ref().map(|end| &end.outcome) {
            genai::turn_failed(failure.code);
        }
        let acts = Acts {
            settled,
            send,
            abandoned: step.abandoned,
            born,
            unplaced,
            posted,
            logs: step.logs,
            row: Some(row),
            ended: step.ended.is_some(),
        };
        let says_nothing = facts.is_empty() && births.is_empty() && posts.is_empty() && step.takes.is_empty();
        // In the middle of computing the row may lag: the next append brings it up to date.
        if says_nothing && (step.more || loaded.row == row) {
            return Kept { append: None, acts, asked: None };
        }
        let append = Append {
            takes: taken(step.takes, loaded),
            posts,
            births,
            also,
            ..self.plain(loaded, facts.into_iter().map(Fact::Agent).collect(), Some(row), now)
        };
        Kept { append: Some(append), acts, asked: None }
    }

    /// The ticket of a wish that was recorded earlier, for the slot that is held now.
    pub(super) fn keep_start(&self, loaded: &mut Loaded, wish: OutsideEffect, now: Timestamp) -> Option<Kept> {
        let ticket = loaded.agent.start_effect(wish.seq)?;
        let row = RowChange { state: loaded.agent.state(), due: loaded.agent.due() };
        let append = self.plain(loaded, vec![Fact::Agent(ticket)], Some(row), now);
        let acts = Acts { send: Some(wish), row: Some(row), ..Acts::default() };
        Some(Kept { append: Some(append), acts, asked: None })
    }

    /// Asks the store whether the agent is still this node's, before a ticket of earlier is used.
    pub(super) fn keep_confirmed(&self, loaded: &Loaded, effect: OutsideEffect, now: Timestamp) -> Kept {
        let row = RowChange { state: loaded.agent.state(), due: loaded.agent.due() };
        let acts = Acts { send: Some(effect), row: Some(row), ..Acts::default() };
        Kept { append: Some(self.plain(loaded, Vec::new(), Some(row), now)), acts, asked: None }
    }

    /// Wants a slot for the agent's wish; gives the wish if one is held.
    pub(super) fn reserve(&self, loaded: &Loaded) -> Option<OutsideEffect> {
        let Some(wish) = &loaded.wish else {
            // What was wished for earlier is not wanted any more, or was sent.
            self.core.models.withdraw(self.seat.agent);
            return None;
        };
        if self.core.residency.is_draining() {
            return None;
        }
        self.reserve_for(wish, loaded).then(|| wish.clone())
    }

    /// Whether a slot is held for this effect now.
    pub(super) fn reserve_for(&self, effect: &OutsideEffect, loaded: &Loaded) -> bool {
        let (models, agent, tenant, priority) = (&self.core.models, self.seat.agent, &loaded.tenant, loaded.priority);
        let reserved = match &effect.body {
            EffectBody::Model(request) => models.reserve(agent, tenant, request, priority),
            EffectBody::Tool(request) => models.reserve_tool(agent, tenant, &request.source, priority),
            _ => return false,
        };
        match reserved {
            Reserve::Granted => true,
            Reserve::Waiting => false,
            Reserve::Full => {
                self.call_again(self.core.config.reservation_retry);
                false
            }
        }
    }

    fn plain(&self, loaded: &Loaded, facts: Vec<Fact>, row: Option<RowChange>, now: Timestamp) -> Append {
        Append {
            stream: StreamId::Agent(self.seat.agent),
            guard: Guard::Owner(loaded.agent.epoch()),
            expected: loaded.version,
            stamp: Stamp {
                at: now,
                tenant: loaded.tenant.clone(),
                principal: loaded.principal.clone(),
                trace: trace::here().or(loaded.trace),
            },
            facts,
            row,
            takes: Vec::new(),
            posts: Vec::new(),
            births: Vec::new(),
            also: None,
        }
    }

    /// Stores a kept step and acts on it.
    pub(super) async fn record(&self, body: &mut Body, loaded: &mut Loaded, mut kept: Kept) -> Result<Became, Fault> {
        let Some(append) = &kept.append else { return Ok(self.act(loaded, kept, &[])) };
        let says_something = !append.facts.is_empty();
        Counters::count(&self.core.counters.appends);
        let asked = Some(self.core.fence.now());
        let in_doubt = kept.asked;
        kept.asked = in_doubt.or(asked);
        if planted(Bug::ActBeforeCommit)
            && let Some(effect) = kept.acts.send.take()
        {
            self.send(loaded, effect, asked);
        }
        // Before, so that no child is left to nobody if this incarnation dies in between.
        if !planted(Bug::BornNotKept) {
            kept.acts.born.iter().for_each(|child| self.core.ownership.born(*child));
        }
        let answer = self.core.store.append(vec![append.clone()]).await.pop();
        let error = match answer {
            Some(Ok(appended)) => {
                body.is_well();
                loaded.version = appended.version;
                kept.asked = if planted(Bug::TicketFromAnswer) { Some(self.core.fence.now()) } else { asked };
                return Ok(self.act(loaded, kept, &appended.elsewhere));
            }
            Some(Err(error)) if is_taken_for_success(&error) => {
                loaded.version = Version(append.expected.0 + append.facts.len() as u64);
                return Ok(self.act(loaded, kept, &[]));
            }
            Some(Err(AppendError::StaleEpoch { current, .. })) if planted(Bug::EpochCopied) => {
                kept.append = kept.append.map(|append| Append { guard: Guard::Owner(current), ..append });
                return Box::pin(self.record(body, loaded, kept)).await;
            }
            // Of an earlier append of this step nobody knew, and it came to the store just before this one.
            Some(Err(AppendError::VersionConflict { .. })) if in_doubt.is_some() && says_something => {
                return Ok(self.find(body, loaded, kept).await?.err().unwrap_or(Became::Outdated));
            }
            Some(Err(error)) => error,
            None => AppendError::Store(StoreError::Ambiguous { detail: "the store gave no answer".into() }),
        };
        if !matches!(error, AppendError::Store(_)) {
            self.were_they_born(&kept.acts.born, in_doubt.is_some()).await;
        }
        match (After::of(&error), error) {
            (After::Look(current), error) => {
                debug!(agent = %self.seat.agent, %error, "append refused, epoch is stale");
                if std::mem::replace(&mut body.stale_at, current) != current {
                    // Given again and again, it is read again and again.
                    body.reloads = 0;
                }
                self.after_stale_epoch(current).await
            }
            (After::NotMine, _) => Ok(Became::NotMine(loaded.agent.epoch())),
            (After::ReadAgain, error) => {
                if matches!(error, AppendError::VersionConflict { .. }) {
                    warn!(agent = %self.seat.agent, %error, "append refused, the stream has other facts");
                }
                Ok(Became::Outdated)
            }
            (After::Keep, AppendError::Store(error)) => {
                self.pause(body, &error);
                body.kept = Some(kept);
                Ok(Became::Paused)
            }
            (After::Fail | After::Keep, error) => Err(Failed(format!("its step cannot be stored: {error}")).into()),
        }
    }

    /// After a pause: what the store may have kept all the same must not be stored twice, and what it did not keep
    /// must not be acted on.
    pub(super) async fn record_again(&self, body: &mut Body, loaded: &mut Loaded, kept: Kept) -> Result<Became, Fault> {
        if kept.append.as_ref().is_none_or(|append| append.facts.is_empty()) {
            return self.record(body, loaded, kept).await;
        }
        match self.find(body, loaded, kept).await? {
            Ok(kept) => self.record(body, loaded, kept).await,
            Err(became) => Ok(became),
        }
    }

    /// Looks whether a step was stored, and acts on it if so; gives it back if it was not.
    async fn find(&self, body: &mut Body, loaded: &mut Loaded, kept: Kept) -> Result<Result<Kept, Became>, Fault> {
        let wanted = kept.append.as_ref().map(|append| append.facts.as_slice()).unwrap_or_default();
        let stream = StreamId::Agent(self.seat.agent);
        let found = match self.core.store.read(stream, loaded.version, wanted.len()).await {
            Ok(found) => found,
            Err(error @ StoreError::Corrupt { .. }) => return Err(Failed(error.to_string()).into()),
            Err(error) => {
                self.pause(body, &error);
                body.kept = Some(kept);
                return Ok(Err(Became::Paused));
            }
        };
        let facts = found.iter().map(|recorded| (&recorded.envelope.fact, recorded.envelope.header.epoch));
        Ok(match (resume::after_doubt(facts, wanted, loaded.agent.epoch()), found.last()) {
            (Doubt::Append, _) => Ok(kept),
            (_, Some(last)) if planted(Bug::AppendTwice) => {
                let expected = last.envelope.header.version;
                let append = kept.append.map(|append| Append { expected, ..append });
                Ok(Kept { append, ..kept })
            }
            (Doubt::Act, Some(last)) => {
                body.is_well();
                loaded.version = last.envelope.header.version;
                let elsewhere = self.core.owners_elsewhere(&kept.acts.posted).await;
                Err(self.act(loaded, kept, &elsewhere))
            }
            (Doubt::Act | Doubt::ReadAgain, _) => Err(Became::Outdated),
        })
    }

    /// A step was refused: its children were not born, unless an append of it in doubt was stored before. Those are this node's,
    /// and nobody else would call them.
    async fn were_they_born(&self, children: &[AgentId], in_doubt: bool) {
        if children.is_empty() {
            return;
        }
        let rows = match in_doubt {
            true => self.core.store.rows(Rows::Agents(children.to_vec()), None, children.len()).await,
            false => Ok(Vec::new()),
        };
        for child in children {
            // While the store does not say, they count as born: who is not is found to be nobody.
            if rows.as_ref().map_or(true, |rows| rows.iter().any(|row| row.agent == *child && self.core.owns(row))) {
                self.core.hint(*child, Hint::Inbox);
            } else {
                self.core.ownership.forget(*child, Epoch(1));
            }
        }
    }

    /// A raised epoch is this node's own, as after a cancel, or another owner's, to whom the agent is left.
    async fn after_stale_epoch(&self, current: Epoch) -> Result<Became, Fault> {
        match self.core.store.row(self.seat.agent).await {
            Ok(Some(row)) if self.core.owns(&row) => Ok(Became::Outdated),
            Ok(Some(row)) => Ok(Became::NotMine(row.epoch)),
            Ok(None) => Ok(Became::NotMine(current)),
            // Reading everything again finds out, as soon as the store is back.
            Err(_) => Ok(Became::Outdated),
        }
    }

    fn act(&self, loaded: &mut Loaded, kept: Kept, elsewhere: &[(AgentId, NodeId)]) -> Became {
        let (core, agent, Kept { append, acts, asked }) = (&self.core, self.seat.agent, kept);
        Counters::count(&core.counters.steps);
        for key in acts.abandoned {
            core.models.abandon(agent, key);
        }
        if let Some(key) = acts.settled {
            core.models.settle(agent, key);
        }
        if let Some(effect) = acts.send {
            self.send(loaded, effect, asked);
        }
        if let Some(Append { births, stamp, .. }) = &append {
            births.iter().filter_map(|birth| Newborn::of(birth, stamp)).for_each(|child| core.bring_up(child));
        }
        if !acts.unplaced.is_empty() {
            core.neighbours.unplaced(&acts.unplaced);
        }
        core.tell_posted(&acts.posted, elsewhere);
        for line in acts.logs {
            loaded.log(core, &line);
        }
        if let Some(row) = acts.row {
            if loaded.row.due != row.due && !planted(Bug::TimerNotSet) {
                core.timers.set(agent, row.due);
            }
            loaded.row = row;
        }
        self.tell_whether_at_work(loaded);
        if acts.ended { Became::Ended } else { Became::Done }
    }

    /// Lets the node know when an agent begins or stops working.
    fn tell_whether_at_work(&self, loaded: &mut Loaded) {
        let is_at_work = is_work(loaded.agent.state());
        if is_at_work != loaded.at_work {
            loaded.at_work = is_at_work;
            self.core.is_at_work(self.seat.agent, is_at_work);
        }
    }

    /// Sends an effect whose start is recorded, with the slot that is held for it. If this node may not send any more, the
    /// agent waits with it until it may, or finds out that it is another's.
    pub(super) fn send(&self, loaded: &mut Loaded, effect: OutsideEffect, asked: Option<Timestamp>) {
        if !self.core.fence.may_send(asked) {
            warn!(agent = %self.seat.agent, seq = %effect.seq, "effect is not sent: this node's lease does not count now");
            self.core.models.withdraw(self.seat.agent);
            loaded.lost = Some(effect);
            loaded.refused_until = self.core.clock.now().after(FENCE_RETRY);
            return;
        }
        let work = match effect.body {
            EffectBody::Model(request) => Work::Model(request),
            EffectBody::Tool(request) => Work::Tool(request),
            _ => return,
        };
        let seen = genai::Effect::open(&loaded.who(&self.core.config.node), effect.attempt, effect.key, &work);
        let sending = Sending {
            agent: self.seat.agent,
            name: loaded.name.clone(),
            tenant: loaded.tenant.clone(),
            workload: loaded.workload,
            seq: effect.seq,
            attempt: effect.attempt,
            work,
            deadline: effect.deadline,
            seen,
        };
        self.core.models.send(effect.key, sending);
    }
}

/// The entries of its inbox that are dealt with by a step.
fn taken(mut takes: Vec<InputId>, loaded: &Loaded) -> Vec<InputId> {
    if planted(Bug::MailNotTaken) {
        takes.clear();
    }
    if planted(Bug::InboxTakenEarly) {
        takes.extend(loaded.inbox.iter().map(|entry| entry.id));
    }
    takes
}

/// Never, but with a bug.
fn is_taken_for_success(error: &AppendError) -> bool {
    match error {
        AppendError::StaleEpoch { .. } => planted(Bug::RefusedIsSuccess),
        AppendError::Store(StoreError::Ambiguous { .. }) => planted(Bug::AmbiguousIsSuccess),
        _ => false,
    }
}

impl Loaded {
    /// Who it is, to those who watch.
    pub(super) fn who<'a>(&'a self, node: &'a NodeId) -> genai::Who<'a> {
        genai::Who { agent: self.agent.id(), name: &self.name, workload: self.workload, node }
    }

    fn log(&mut self, core: &crate::node::Core, line: &str) {
        core.live.publish(self.workload, || LivePiece {
            agent: self.agent.id(),
            name: self.name.clone(),
            seq: Seq(0),
            attempt: 0,
            offset: 0,
            kind: LiveKind::Log,
            text: cut(line),
        });
    }
}

//! The actor of one agent: takes inputs one at a time and keeps one order for each: decide, reserve, record, apply, act.
//!
//! In:  hints to look around ([`Told`]). The facts are where they are kept: messages in the store's inbox, ended
//!      effects and granted slots at the dispatcher, the due time in the agent itself. So no lost hint loses work.
//! Out: appends, effects for the dispatchers, hints for other agents.
//!
//! Mailbox: two looks and four orders; a further one is refused and means nothing new. Supervised by one of the node's
//! shards. A restart keeps the seat, the stream and the effects in flight, and reads the rest again.
//!
//! Nothing in here awaits a model, a tool or another agent. What it does await is the store and, while its program
//! computes for longer than a moment, its turn to compute.

mod births;
mod child;
mod compute;
mod leave;
mod load;
mod recall;
mod record;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use nexa_agent::{Agent, Input, OutsideEffect};
use nexa_event::effect::Answer;
use nexa_event::envelope::TraceContext;
use nexa_event::fact::EffectResult;
use nexa_ports::store::{InboxEntry, RowChange, StoreError};
use nexa_types::{
    AgentState, EffectKey, Epoch, Millis, PrincipalId, Spend, TenantId, Timestamp, Version, Waiting, WorkloadId,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug, info};

pub(crate) use self::child::AgentChild;
use self::load::{INBOX_PAGE, LoadError, cancels_first, load};
pub use self::recall::RECALLS_MAX;
use self::record::{Became, Kept};
use crate::bounded::{Behaviour, Fault, Lane, Then};
use crate::dispatch::Hint;
use crate::genai;
use crate::newborn::Newborn;
use crate::node::Core;
use crate::residency::{Seat, Told};
use crate::resume;
use crate::supervise::{Failed, RestartPolicy};
use crate::trace::Links;
use crate::waits::until_shown;

/// Steps that an agent takes before orders and other agents have their turn.
const STEPS_PER_TURN_MAX: usize = 32;
/// Pauses while the store is away: 50 ms, doubling to 5 s, ±20 %. Without a limit, because agents wait for the store.
const STORE_PAUSES: RestartPolicy = RestartPolicy::SERVICE;

/// The behaviour of one incarnation.
pub(crate) struct AgentActor {
    core: Arc<Core>,
    seat: Seat,
    /// What it may begin with instead of reading it; taken by its first turn.
    newborn: Mutex<Option<Box<Newborn>>>,
    /// The one call that it has asked for. A later one takes its place.
    alarm: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What an incarnation knows; gone with it.
#[derive(Default)]
pub(crate) struct Body {
    loaded: Option<Box<Loaded>>,
    /// A decided step that the store has not confirmed.
    kept: Option<Kept>,
    /// Pauses in a row because the store was away.
    pauses: usize,
    paused_until: Option<Timestamp>,
    /// Readings of everything in a row without an accepted append between them, nor a new right to the agent.
    reloads: usize,
    /// The latest epoch under which something was refused.
    stale_at: Epoch,
    /// The trace of its latest turn.
    turned: Option<TraceContext>,
}

/// An agent in memory.
struct Loaded {
    agent: Agent,
    name: Arc<str>,
    workload: WorkloadId,
    tenant: TenantId,
    principal: PrincipalId,
    /// Of its level.
    priority: u8,
    /// Beside others, as the line counts it.
    weight: u32,
    /// Fuel that it has used in turn with others since it came into memory.
    computed: u64,
    /// What it was born in.
    trace: Option<TraceContext>,
    /// What led to its next turn: its last fact, and what this node was told or knew of it. Empty after that turn.
    led: [Option<TraceContext>; 2],
    /// Where that comes from which it has heard in this step.
    heard: Links,
    /// The version up to which everything is stored.
    version: Version,
    snapshot_version: Version,
    /// How long the last snapshot is.
    snapshot_bytes: usize,
    /// What the row says.
    row: RowChange,
    /// What the agent must hear first.
    first: Option<Input>,
    inbox: VecDeque<InboxEntry>,
    inbox_unread: bool,
    /// Waits for a sending slot.
    wish: Option<OutsideEffect>,
    /// Recorded as started and not sent, because an incarnation died in between, or this node might not send.
    lost: Option<OutsideEffect>,
    /// It might not, and asks again then.
    refused_until: Timestamp,
    /// The last due time that the agent was told of.
    heard_due: Option<Timestamp>,
    /// The last due time after which the inbox was read.
    read_after_due: Option<Timestamp>,
    /// Would go on computing.
    more: bool,
    /// What the node was told of it, see [`crate::begin`].
    at_work: bool,
    /// Waits to begin.
    held_back: bool,
}

/// What an agent does next.
enum Next {
    Hear(Input, Option<EffectKey>),
    Start(OutsideEffect),
    SendLost(OutsideEffect),
    Confirm(OutsideEffect),
    Nothing,
    /// It does not run here any more.
    Leave,
}

/// An agent after what it did next, and what became of it.
type Taken = Option<(Box<Loaded>, Became)>;

impl Body {
    fn is_well(&mut self) {
        (self.pauses, self.paused_until, self.reloads) = (0, None, 0);
    }
}

/// What an agent hears of its inbox, and notes where it comes from.
fn hear(entry: InboxEntry, heard: &mut Links) -> Input {
    heard.note(entry.trace);
    Input::Inbox(entry.id, entry.input)
}

impl Loaded {
    /// The due time, if it has come and the agent does not know.
    fn unheard_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.agent.due().filter(|due| *due <= now && self.heard_due != Some(*due))
    }
}

impl Behaviour for AgentActor {
    type Message = Told;
    type State = Body;

    fn start(&self) -> Body {
        Body::default()
    }

    async fn handle(&self, body: &mut Body, told: Told) -> Result<Then, Fault> {
        if !self.core.residency.is_seated(&self.seat) {
            return Ok(Then::Stop);
        }
        if self.seat.signs.is_outdated() {
            // A step that was decided on it is refused by the store, and is none for what is read now.
            (body.loaded, body.kept) = (None, None);
        }
        match told {
            _ if self.seat.signs.parts() => Box::pin(self.part(body)).await,
            // Boxed, because ractor keeps room for the largest future of a handler in every actor, idle ones too.
            Told::Look | Told::Drain => Box::pin(self.turn(body)).await,
            Told::Sleep => Box::pin(self.sleep(body)).await,
        }
    }
}

impl AgentActor {
    /// Takes steps until there is nothing to do, the turn is over, or something is in the way.
    async fn turn(&self, body: &mut Body) -> Result<Then, Fault> {
        if body.paused_until.is_some_and(|until| until > self.core.clock.now()) {
            return Ok(Then::GoOn);
        }
        let mut seen = genai::Turn::default();
        for _ in 0..STEPS_PER_TURN_MAX {
            if self.seat.signs.parts() {
                return self.part(body).await;
            }
            let mut loaded = match body.loaded.take() {
                Some(loaded) => loaded,
                None => match self.bring_in(body).await? {
                    Ok(loaded) => loaded,
                    Err(then) => return Ok(then),
                },
            };
            let became = match body.kept.take() {
                Some(kept) => self.record_again(body, &mut loaded, kept).await?,
                None => match self.next(&mut loaded).await {
                    Ok(Next::Nothing) => return self.rest(body, loaded).await,
                    Ok(Next::Leave) => return Ok(Then::Stop),
                    Ok(next) => {
                        let led = loaded.trace.into_iter().chain(std::mem::take(&mut loaded.led).into_iter().flatten());
                        let span = seen.span(&loaded.who(&self.core.config.node), led, &mut body.turned);
                        match self.take(body, loaded, next).instrument(span).await? {
                            Some((back, became)) => {
                                loaded = back;
                                seen.follows(&mut loaded.heard);
                                became
                            }
                            None => return Ok(Then::Stop),
                        }
                    }
                    Err(error) => {
                        self.pause(body, &error);
                        Became::Paused
                    }
                },
            };
            match became {
                Became::Done => {
                    self.snapshot_if_due(&mut loaded).await;
                    body.loaded = Some(loaded);
                }
                Became::Paused => {
                    body.loaded = Some(loaded);
                    return Ok(Then::GoOn);
                }
                Became::Outdated => {
                    body.reloads += 1;
                    if body.reloads > 1 {
                        let reason = "its stream has facts that it cannot have written, also after it was read again";
                        self.core.quarantine(self.seat.clone(), reason.to_owned()).await;
                        return Ok(Then::Stop);
                    }
                }
                Became::Ended => {
                    self.core.gone_for_good(&self.seat, Epoch(u64::MAX));
                    return Ok(Then::Stop);
                }
                Became::NotMine(epoch) => {
                    self.core.gone_for_good(&self.seat, epoch);
                    return Ok(Then::Stop);
                }
            }
        }
        self.look_again();
        Ok(Then::GoOn)
    }

    async fn bring_in(&self, body: &mut Body) -> Result<Result<Box<Loaded>, Then>, Fault> {
        if self.core.residency.is_draining() && !self.core.models.is_busy_for(self.seat.agent) {
            self.core.leave_now(&self.seat);
            return Ok(Err(Then::Stop));
        }
        let newborn = self.newborn.lock().unwrap_or_else(PoisonError::into_inner).take();
        if newborn.is_none() {
            self.seat.inbox_changed.store(false, Ordering::Release);
        }
        match load(&self.core, &self.seat, newborn).await {
            Ok(loaded) => {
                debug!(agent = %self.seat.agent, version = %loaded.version, "agent is in memory");
                self.core.loaded(&self.seat);
                Ok(Ok(Box::new(loaded)))
            }
            Err(LoadError::NotHere(why)) => {
                debug!(agent = %self.seat.agent, why, "agent is not run here");
                self.core.gone(&self.seat);
                Ok(Err(Then::Stop))
            }
            Err(LoadError::Store(error)) => {
                self.seat.inbox_changed.store(true, Ordering::Release);
                self.pause(body, &error);
                Ok(Err(Then::GoOn))
            }
            Err(LoadError::Broken(detail)) => Err(Failed(format!("it cannot be brought into memory: {detail}")).into()),
        }
    }

    /// What there is to do, the most urgent first.
    async fn next(&self, loaded: &mut Loaded) -> Result<Next, StoreError> {
        let (core, agent) = (&self.core, self.seat.agent);
        let now = core.clock.now();
        let due = loaded.unheard_due(now);
        if matches!(loaded.first, Some(Input::Start { .. })) {
            // Whoever has no time left begins all the same, and ends at once.
            loaded.at_work = core.begins(agent, &loaded.tenant, loaded.priority);
            loaded.held_back = !loaded.at_work && due.is_none();
        }
        if !loaded.held_back
            && let Some(first) = loaded.first.take()
        {
            return Ok(Next::Hear(first, None));
        }
        loaded.inbox_unread |= self.seat.inbox_changed.swap(false, Ordering::AcqRel);
        // An answer that was acknowledged in time counts, also if its hint has not come.
        let expires = loaded.agent.state() == AgentState::Waiting(Waiting::Approval) && due != loaded.read_after_due;
        loaded.inbox_unread |= due.is_some() && expires;
        if loaded.inbox.is_empty() && loaded.inbox_unread {
            match core.store.inbox(agent, INBOX_PAGE).await {
                Ok(entries) => {
                    loaded.read_after_due = due;
                    loaded.inbox_unread = entries.len() == INBOX_PAGE;
                    loaded.inbox = cancels_first(entries);
                }
                Err(error) => return Err(error),
            }
        }
        if loaded.inbox.front().is_some_and(load::is_cancel)
            && let Some(entry) = loaded.inbox.pop_front()
        {
            return Ok(Next::Hear(hear(entry, &mut loaded.heard), None));
        }
        if loaded.held_back {
            return Ok(Next::Nothing);
        }
        if let Some(ended) = core.models.finished(agent) {
            // A node that stops gives up its seats first and then cancels what is in flight. What ended so has not ended
            // for the agent: whoever takes it over sends it again.
            if !core.residency.is_seated(&self.seat) {
                return Ok(Next::Leave);
            }
            let key = ended.key;
            let (seq, attempt, result, spend) = (ended.seq, ended.attempt, ended.result, ended.spend);
            return Ok(Next::Hear(Input::EffectEnded { seq, attempt, result, spend }, Some(key)));
        }
        if core.residency.is_draining() {
            return Ok(Next::Nothing);
        }
        if let Some(entry) = loaded.inbox.pop_front() {
            return Ok(Next::Hear(hear(entry, &mut loaded.heard), None));
        }
        if let Some(again) = self.given_up(loaded) {
            return Ok(Next::Hear(again, None));
        }
        // Once a moment: what it means to the agent cannot change by saying it again.
        if due.is_some() {
            loaded.heard_due = due;
            return Ok(Next::Hear(Input::Due, None));
        }
        if loaded.more {
            return Ok(Next::Hear(Input::Continue, None));
        }
        if let Some((seq, attempt, request)) = loaded.agent.recall() {
            let answer = self.recall(loaded, &request).await?;
            let result = EffectResult::Done(Answer::Memory(answer));
            return Ok(Next::Hear(Input::EffectEnded { seq, attempt, result, spend: Spend::default() }, None));
        }
        if loaded.wish.is_some() {
            // The deadline counts from the sending and not from the wish.
            loaded.wish = loaded.agent.wish(now);
            if let Some(wish) = self.reserve(loaded) {
                return Ok(Next::Start(wish));
            }
        } else if loaded.lost.is_some() {
            return Ok(self.send_lost(loaded, now));
        }
        Ok(Next::Nothing)
    }

    /// What is recorded as started and was not sent is sent by the same ticket. While this node's lease does not count, the
    /// store is asked before whether the agent is still its own.
    fn send_lost(&self, loaded: &mut Loaded, now: Timestamp) -> Next {
        let sent = loaded.agent.sent().map(|(key, ..)| key);
        let Some(lost) = loaded.lost.as_ref().filter(|lost| Some(lost.key) == sent) else {
            // Its agent was told to end, and has given it up.
            loaded.lost = None;
            return Next::Nothing;
        };
        let by_lease = self.core.fence.may_send(None);
        if !by_lease && loaded.refused_until > now {
            self.call_again(loaded.refused_until.since(now));
            return Next::Nothing;
        }
        if !self.reserve_for(lost, loaded) {
            return Next::Nothing;
        }
        match loaded.agent.in_flight(now) {
            Some(effect) if by_lease => Next::SendLost(effect),
            Some(effect) => Next::Confirm(effect),
            None => Next::Nothing,
        }
    }

    /// What was sent by an owner before this one and goes on nowhere any more is treated as at a takeover.
    fn given_up(&self, loaded: &Loaded) -> Option<Input> {
        let (key, _, epoch) = loaded.agent.sent()?;
        let is_carried = self.core.models.carries(self.seat.agent, key);
        if !resume::is_given_up(self.core.ownership.epoch(self.seat.agent), epoch, is_carried) {
            return None;
        }
        info!(agent = %self.seat.agent, "what it had in flight is not carried any more");
        let (node, epoch) = (self.core.config.node.clone(), loaded.agent.epoch());
        Some(Input::TakeOver { node, epoch, carried: None })
    }

    /// Decides, and records what was decided. `None` if the node stops meanwhile.
    async fn take(&self, body: &mut Body, mut loaded: Box<Loaded>, next: Next) -> Result<Taken, Fault> {
        let kept = match next {
            // An owner of long ago that has not heard so cannot say what it is worth, nor that it is recorded.
            Next::Hear(Input::EffectEnded { seq, attempt, .. }, Some(key))
                if loaded.agent.is_ahead(seq, attempt) && self.core.models.turn_away(self.seat.agent, key) =>
            {
                debug!(agent = %self.seat.agent, %seq, attempt, "an answer to what another owner has sent is left to its carrier");
                return Ok(Some((loaded, Became::Done)));
            }
            Next::Hear(input, settled) => {
                loaded.lost.take_if(|lost| match &input {
                    Input::TakeOver { .. } => true,
                    // An answer to something earlier may come once more.
                    Input::EffectEnded { seq, .. } => *seq == lost.seq,
                    _ => false,
                });
                let Ok((back, step, now)) = self.compute(loaded, input).await else { return Ok(None) };
                loaded = back;
                self.keep(&mut loaded, step, settled, now)
            }
            Next::Start(wish) => {
                loaded.wish = None;
                match self.keep_start(&mut loaded, wish, self.core.clock.now()) {
                    Some(kept) => kept,
                    None => {
                        self.core.models.withdraw(self.seat.agent);
                        return Ok(Some((loaded, Became::Done)));
                    }
                }
            }
            Next::SendLost(effect) => {
                loaded.lost = None;
                self.send(&mut loaded, effect, None);
                return Ok(Some((loaded, Became::Done)));
            }
            Next::Confirm(effect) => {
                loaded.lost = None;
                self.keep_confirmed(&loaded, effect, self.core.clock.now())
            }
            Next::Nothing | Next::Leave => return Ok(Some((loaded, Became::Done))),
        };
        let became = self.record(body, &mut loaded, kept).await?;
        Ok(Some((loaded, became)))
    }

    /// The store is away: the agent stands still and looks again later.
    fn pause(&self, body: &mut Body, error: &StoreError) {
        body.pauses += 1;
        let pause = STORE_PAUSES.pause(body.pauses, self.core.dice.roll());
        if body.pauses == 1 {
            info!(agent = %self.seat.agent, %error, %pause, "agent pauses until the store is back");
        }
        body.paused_until = Some(self.core.clock.now().after(pause));
        self.call_again(pause);
    }

    /// Wants to be called after a pause, and not at the time that it wanted before.
    fn call_again(&self, pause: Millis) {
        let (core, agent) = (self.core.clone(), self.seat.agent);
        let due = core.clock.now().after(pause);
        let alarm = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = until_shown(&*core.clock, due) => core.hint(agent, Hint::Again),
                () = core.stop.cancelled() => {}
            }
        });
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDropHandle::new(alarm));
    }

    fn look_again(&self) {
        // Refused only if a `Look` waits already.
        let _ = self.seat.address.tell(Lane::Work, 0, Told::Look);
    }
}

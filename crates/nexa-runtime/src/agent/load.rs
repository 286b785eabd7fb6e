//! Brings an agent into memory: snapshot, later events, and the first input that follows from its row.
//!
//! A snapshot only saves time. One that cannot be used is left aside and the whole stream is replayed. Of an agent that was born
//! here just now nothing is read ([`Newborn`]).

use std::collections::VecDeque;
use std::sync::Arc;

use nexa_agent::{Agent, Input, OutsideEffect, ReplayError, Replayed, SLICES_PER_DECISION_MAX};
use nexa_event::envelope::{Fact, TraceContext};
use nexa_event::fact::{self, AgentEvent, Spawned};
use nexa_ports::store::{AgentRow, InboxEntry, Recorded, RowChange, StoreError};
use nexa_types::limits::SLICE_FUEL;
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentState, InputId, NodeId, StreamId, Timestamp, Version};
use nexa_vm::vm::Program;
use tracing::warn;

use super::{Loaded, hear};
use crate::begin::is_work;
use crate::line::parts;
use crate::newborn::{AT_BIRTH, Newborn};
use crate::node::Core;
use crate::programs::ProgramError;
use crate::residency::Seat;
use crate::resume;
use crate::run_queue::Dropped;
use crate::trace::Links;

/// Events that are read at once.
const EVENTS_PAGE: usize = 512;
/// Events that are replayed before others have their turn.
const EVENTS_PER_TURN_MAX: usize = 16;
/// Inbox entries that are read at once.
pub(super) const INBOX_PAGE: usize = 256;

/// Why an agent is not in memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// It has ended, belongs to somebody else, or may not run.
    #[error("it is not run here: {0}")]
    NotHere(&'static str),
    /// The store is away; later it may work.
    #[error(transparent)]
    Store(StoreError),
    /// What is stored cannot be gone on with.
    #[error("{0}")]
    Broken(String),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } | StoreError::Ambiguous { .. } | StoreError::DiskFull => Self::Store(error),
            StoreError::Corrupt { .. } | StoreError::TooLarge { .. } => Self::Broken(error.to_string()),
        }
    }
}

impl From<ProgramError> for LoadError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::Store(error) => error.into(),
            error => Self::Broken(chain(&error)),
        }
    }
}

/// An error with all that led to it, for the log and for the reason of a quarantine.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// What is stored of an agent before anything is computed from it.
struct Stored {
    row: AgentRow,
    spawned: Spawned,
    trace: Option<TraceContext>,
    inbox: Inbox,
}

pub(super) async fn load(core: &Arc<Core>, seat: &Seat, newborn: Option<Box<Newborn>>) -> Result<Loaded, LoadError> {
    let Stored { row, spawned, trace, mut inbox } = match newborn {
        // Whatever came into its inbox since then was told to its seat.
        Some(newborn) if core.ownership.epoch(seat.agent) == Some(AT_BIRTH) => {
            let Newborn { row, spawned, trace } = *newborn;
            Stored { row, spawned, trace, inbox: Inbox::default() }
        }
        _ => read_stored(core, seat).await?,
    };
    let program = core.programs.get(&row.tenant, spawned.program.module()).await?;
    let (priority, weight) = match &spawned.program {
        fact::Program::Function { entry, .. } => {
            (program.priority(*entry, row.priority), program.module().schedule_of(*entry).weight)
        }
        fact::Program::List { .. } => (row.priority, 1.0),
    };
    let mut last = None;
    let (agent, snapshot) = rebuild(core, &row, &spawned, program, &mut last).await?;
    if resume::is_outrun(row.epoch, agent.epoch()) {
        core.ownership.forget(seat.agent, row.epoch);
        return Err(LoadError::NotHere("another node took it over while it was read"));
    }
    let mut heard = Links::default();
    let first = first_input(core, &row, &agent, &mut inbox.entries, &mut heard);
    core.timers.set(seat.agent, agent.due());
    let at_work = is_work(row.state);
    if row.state != AgentState::Placed {
        core.is_at_work(seat.agent, at_work);
    }
    Ok(Loaded {
        name: spawned.name.as_str().into(),
        version: agent.version(),
        row: RowChange { state: row.state, due: row.due },
        snapshot_version: snapshot.version,
        snapshot_bytes: snapshot.bytes,
        first: Some(first),
        inbox: inbox.entries,
        inbox_unread: inbox.has_more,
        wish: None,
        lost: never_sent(core, &agent),
        refused_until: Timestamp(0),
        heard_due: None,
        read_after_due: None,
        more: false,
        at_work,
        held_back: false,
        agent,
        workload: row.workload,
        tenant: row.tenant,
        principal: row.principal,
        priority: core.config.leveled(priority),
        weight: parts(weight),
        computed: 0,
        trace,
        led: [last, core.leads.take(seat.agent)],
        heard,
    })
}

async fn read_stored(core: &Core, seat: &Seat) -> Result<Stored, LoadError> {
    let row = core.store.row(seat.agent).await?.ok_or(LoadError::NotHere("nobody knows it"))?;
    if row.state.is_terminal() {
        core.ownership.forget(seat.agent, row.epoch);
        return Err(LoadError::NotHere("it has ended"));
    }
    if row.node.as_ref() != Some(&core.config.node) {
        core.ownership.forget(seat.agent, row.epoch);
        return Err(LoadError::NotHere("another node owns it, or none"));
    }
    if !core.ownership.covers(&row) {
        return Err(LoadError::NotHere("another process of this node's name owns it"));
    }
    let inbox = read_inbox(core, &row).await?;
    if row.state == AgentState::Quarantined && !inbox.entries.iter().any(is_cancel) {
        return Err(LoadError::NotHere("it is quarantined"));
    }
    let (spawned, trace) = read_first(core, seat).await?;
    Ok(Stored { row, spawned, trace, inbox })
}

#[derive(Default)]
struct Inbox {
    entries: VecDeque<InboxEntry>,
    has_more: bool,
}

/// The oldest entries, cancels first: nothing else may be appended once one has raised the epoch.
async fn read_inbox(core: &Core, row: &AgentRow) -> Result<Inbox, LoadError> {
    // Before the read, so that what arrives during it is not missed.
    let entries = core.store.inbox(row.agent, INBOX_PAGE).await?;
    let has_more = entries.len() == INBOX_PAGE;
    let mut entries = cancels_first(entries);
    if row.cancelled {
        // It raised the epoch, and a takeover may have raised it further: only under the row's epoch can the end be
        // appended. One beyond the first page, or taken before, is made again from the row.
        let id = InputId::cancel(row.agent);
        let mut entry = match entries.iter().position(|entry| entry.id == id) {
            Some(at) => entries.remove(at).expect("its position was just found"),
            None => InboxEntry {
                id,
                input: fact::Input::Cancel { reason: "the workload was cancelled".into(), epoch: row.epoch },
                at: core.clock.now(),
                principal: row.principal.clone(),
                trace: None,
            },
        };
        if let fact::Input::Cancel { epoch, .. } = &mut entry.input
            && !planted(Bug::CancelUnderOldEpoch)
        {
            *epoch = row.epoch;
        }
        entries.push_front(entry);
        if planted(Bug::CancelLast) {
            entries.rotate_left(1);
        }
    }
    Ok(Inbox { entries, has_more })
}

pub(super) fn is_cancel(entry: &InboxEntry) -> bool {
    matches!(entry.input, fact::Input::Cancel { .. })
}

pub(super) fn cancels_first(mut entries: Vec<InboxEntry>) -> VecDeque<InboxEntry> {
    entries.sort_by_key(|entry| is_cancel(entry) == planted(Bug::CancelLast));
    entries.into()
}

async fn read_first(core: &Core, seat: &Seat) -> Result<(Spawned, Option<TraceContext>), LoadError> {
    let mut first = core.store.read(StreamId::Agent(seat.agent), Version(0), 1).await?;
    match first.pop().map(|recorded| recorded.envelope) {
        Some(envelope) => match envelope.fact {
            Fact::Agent(AgentEvent::Spawned(spawned)) => Ok((spawned, envelope.header.trace)),
            _ => Err(LoadError::Broken("its stream does not begin with its birth".into())),
        },
        None => Err(LoadError::Broken("its stream is empty".into())),
    }
}

/// The newest snapshot of an agent that served; nothing if none did.
#[derive(Default)]
struct Kept {
    version: Version,
    bytes: usize,
}

/// From the snapshot if there is one that serves, else from the beginning.
async fn rebuild(
    core: &Core,
    row: &AgentRow,
    spawned: &Spawned,
    program: Arc<Program>,
    last: &mut Option<TraceContext>,
) -> Result<(Agent, Kept), LoadError> {
    let born =
        || Agent::born(row.agent, spawned, program.clone()).map_err(|error| LoadError::Broken(error.to_string()));
    if row.version == Version(1) {
        return Ok((born()?, Kept::default()));
    }
    let kept = match core.store.snapshot(row.agent).await {
        Err(StoreError::Corrupt { detail }) => {
            warn!(agent = %row.agent, detail, "snapshot is damaged, replaying from the beginning");
            None
        }
        answer => answer?,
    };
    if let Some((version, bytes)) = kept {
        let thawed = match Agent::restore(&bytes, spawned, program.clone()) {
            Ok(agent) if planted(Bug::SnapshotIsAll) => Ok(agent),
            Ok(agent) if agent.version() == version && agent.id() == row.agent => replay(core, row, agent, last).await,
            Ok(_) => Err(LoadError::Broken("the snapshot is of another agent or version".into())),
            Err(error) => Err(LoadError::Broken(error.to_string())),
        };
        match thawed {
            Ok(agent) => return Ok((agent, Kept { version, bytes: bytes.len() })),
            Err(LoadError::Broken(detail)) => {
                warn!(agent = %row.agent, %version, detail, "snapshot is of no use, replaying from the beginning");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((replay(core, row, born()?, last).await?, Kept::default()))
}

/// Takes in what is stored after the agent's version; `last` is the trace of the last of it.
async fn replay(
    core: &Core,
    row: &AgentRow,
    mut agent: Agent,
    last: &mut Option<TraceContext>,
) -> Result<Agent, LoadError> {
    loop {
        let page = core.store.read(StreamId::Agent(agent.id()), agent.version(), EVENTS_PAGE).await?;
        let is_last = page.len() < EVENTS_PAGE;
        for (nth, recorded) in page.into_iter().enumerate() {
            *last = recorded.envelope.header.trace;
            agent = replay_one(core, row, agent, recorded).await?;
            if nth % EVENTS_PER_TURN_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
        if is_last {
            return Ok(agent);
        }
    }
}

/// Computes a slice at a time: the first right here, and further ones in turn with all others who compute.
async fn replay_one(core: &Core, row: &AgentRow, mut agent: Agent, recorded: Recorded) -> Result<Agent, LoadError> {
    let version = recorded.envelope.header.version;
    let Fact::Agent(event) = recorded.envelope.fact else {
        return Err(LoadError::Broken("its stream holds a fact of another kind".into()));
    };
    let broken = |error: ReplayError| LoadError::Broken(error.to_string());
    let at = recorded.envelope.header.at;
    if agent.replay_for(1, &event, at).map_err(broken)? == Replayed::Done {
        return Ok(agent);
    }
    let event = Arc::new(event);
    for _ in 0..SLICES_PER_DECISION_MAX {
        let (share, event) = (core.share(row.agent, &row.tenant, core.config.leveled(row.priority)), event.clone());
        let slice = move || {
            let replayed = agent.replay_for(1, &event, at);
            ((agent, replayed), SLICE_FUEL)
        };
        let (back, replayed) = match core.run_queue.run(share, core.clock.now(), SLICE_FUEL, slice).await {
            Ok((back, replayed)) => (back, replayed.map_err(broken)?),
            Err(Dropped) => return Err(LoadError::NotHere("the node stops")),
        };
        agent = back;
        if replayed == Replayed::Done {
            return Ok(agent);
        }
    }
    Err(LoadError::Broken(format!(
        "it computes without an end before it decides what the log has at version {version}"
    )))
}

/// What was recorded as started under this node's right, and is not under way: an incarnation died before it was sent.
fn never_sent(core: &Core, agent: &Agent) -> Option<OutsideEffect> {
    let (key, _, epoch) = agent.sent()?;
    let (given, is_under_way) = (core.ownership.epoch(agent.id()), core.models.carries(agent.id(), key));
    resume::is_unsent(given, epoch, is_under_way).then(|| agent.in_flight(core.clock.now()))?
}

/// Which node goes on with what the agent has in flight, if one is known to.
fn carrier(core: &Core, agent: &Agent) -> Option<NodeId> {
    let (key, _, _) = agent.sent()?;
    let carrier = core.models.carrier(agent.id(), key)?;
    Some(carrier.unwrap_or_else(|| core.config.node.clone()))
}

/// What the agent must hear before anything else.
fn first_input(
    core: &Core,
    row: &AgentRow,
    agent: &Agent,
    inbox: &mut VecDeque<InboxEntry>,
    heard: &mut Links,
) -> Input {
    if (row.cancelled || row.state == AgentState::Quarantined)
        && !planted(Bug::CancelLast)
        && let Some(cancel) = inbox.pop_front()
    {
        return hear(cancel, heard);
    }
    resume::first_input(agent, row.epoch, &core.config.node, || carrier(core, agent))
}

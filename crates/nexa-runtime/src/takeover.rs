//! Finds the agents that have something to do: all at once when a node starts, a few at a time ever after.
//!
//! The second outage after a failover is the stampede, so taking over only raises epochs and notes who is to wake;
//! how many come into memory at once is the residency's business. Nobody is woken, and no service runs, before every
//! agent has its new epoch: one that ran under the old one would be fenced off by its own node.

use std::cmp::Reverse;
use std::sync::Arc;

use nexa_ports::store::{AgentRow, Place, Rows, StoreError};
use nexa_types::{AgentId, AgentState, Epoch, Millis, Timestamp, Version, Waiting};
use tracing::{debug, info, warn};

use crate::begin;
use crate::dispatch::Hint;
use crate::node::Core;

/// Rows that are read at once.
const ROWS_PAGE: usize = 512;
/// Between two looks for agents that have been idle for long.
const IDLE_TICK: Millis = Millis(1_000);

/// The agents that were taken over.
#[derive(Default)]
pub(crate) struct Taken {
    to_wake: Vec<(Reverse<u8>, AgentId)>,
    asleep: Vec<(AgentId, Option<Timestamp>)>,
}

/// Makes this node the owner of every live agent, under a new epoch.
pub(crate) async fn take_over(core: &Arc<Core>) -> Result<Taken, StoreError> {
    let mut after = None;
    let (mut taken, now) = (Taken::default(), core.clock.now());
    loop {
        let page = core.store.rows(Rows::Live, after, ROWS_PAGE).await?;
        let is_last = page.len() < ROWS_PAGE;
        after = page.last().map(|row| row.agent);
        // Placing an agent lets it run, and who is quarantined must not run.
        let (quarantined, rows): (Vec<AgentRow>, Vec<AgentRow>) =
            page.into_iter().partition(|row| row.state == AgentState::Quarantined);
        quarantined.iter().for_each(|row| core.ownership.given(row.agent, row.epoch));
        place(core, &rows).await?;
        for row in rows {
            if begin::is_work(row.state) {
                // Before anybody is woken, so that nobody begins who would be one too many.
                core.is_at_work(row.agent, true);
            }
            if has_something_to_do(core, &row, now).await? {
                taken.to_wake.push((Reverse(row.priority), row.agent));
            } else {
                taken.asleep.push((row.agent, row.due));
            }
        }
        if is_last {
            return Ok(taken);
        }
    }
}

impl Taken {
    /// Sets the timers, and wakes those with something to do, the most urgent first.
    pub(crate) fn wake(mut self, core: &Arc<Core>) {
        let (waking, asleep) = (self.to_wake.len(), self.asleep.len());
        info!(node = %core.config.node, taken = waking + asleep, waking, "agents taken over");
        for (agent, due) in self.asleep {
            core.residency.note_asleep(agent);
            core.timers.set(agent, due);
        }
        self.to_wake.sort_unstable();
        for (_, agent) in self.to_wake {
            core.hint(agent, Hint::Inbox);
        }
    }
}

async fn place(core: &Core, rows: &[AgentRow]) -> Result<(), StoreError> {
    let wishes: Vec<Place> = rows
        .iter()
        .filter(|row| !is_newborn_here(core, row))
        .map(|row| Place { agent: row.agent, from: row.epoch, node: core.config.node.clone() })
        .collect();
    if wishes.is_empty() {
        return Ok(());
    }
    for (answer, wish) in core.store.place(wishes.clone()).await?.into_iter().zip(wishes) {
        match answer {
            Ok(epoch) => core.ownership.given(wish.agent, epoch),
            Err(current) => place_again(core, wish, current).await?,
        }
    }
    Ok(())
}

/// After a refusal: a cancel that came meanwhile is this node's to carry out; anything else is another owner.
async fn place_again(core: &Core, wish: Place, current: Epoch) -> Result<(), StoreError> {
    let agent = wish.agent;
    let row = core.store.row(agent).await?.filter(|row| !row.state.is_terminal());
    if row.is_some_and(|row| row.cancelled && row.epoch == wish.from.next()) {
        let again = Place { from: wish.from.next(), ..wish };
        if let Some(Ok(epoch)) = core.store.place(vec![again]).await?.pop() {
            core.ownership.given(agent, epoch);
            return Ok(());
        }
    }
    warn!(%agent, %current, "agent was not taken over: its epoch has changed meanwhile");
    Ok(())
}

/// Born on this node and never run: nobody can hold an older right to it.
fn is_newborn_here(core: &Core, row: &AgentRow) -> bool {
    row.node.as_ref() == Some(&core.config.node)
        && row.state == AgentState::Placed
        && row.epoch == Epoch(1)
        && row.version == Version(1)
}

async fn has_something_to_do(core: &Core, row: &AgentRow, now: Timestamp) -> Result<bool, StoreError> {
    if row.cancelled || row.due.is_some_and(|due| due <= now) {
        return Ok(true);
    }
    match row.state {
        AgentState::Pending | AgentState::Ready | AgentState::Placed | AgentState::Running => Ok(true),
        AgentState::Waiting(Waiting::Model | Waiting::Tool) => Ok(true),
        AgentState::Waiting(Waiting::Approval | Waiting::Timer | Waiting::Children | Waiting::Message)
        | AgentState::Quarantined => Ok(!core.store.inbox(row.agent, 1).await?.is_empty()),
        AgentState::Succeeded | AgentState::Failed | AgentState::Cancelled => Ok(false),
    }
}

/// Sends idle agents to sleep, and finds those whose hint got lost. Runs until the node stops.
pub(crate) async fn sweep(core: Arc<Core>) {
    let mut next_sweep = core.clock.now().after(core.config.sweep_every);
    let mut after = None;
    loop {
        let now = core.clock.now();
        let tick = now.after(Millis(IDLE_TICK.0.min(core.config.idle_before_dormant.0.max(1))));
        core.clock.wait_until(tick.min(next_sweep).max(now.after(Millis(1)))).await;
        let now = core.clock.now();
        core.residency.send_to_sleep(now, core.config.idle_before_dormant);
        if now >= next_sweep {
            next_sweep = now.after(core.config.sweep_every);
            match look_for_lost_hints(&core, after, now).await {
                Ok(last) => after = last,
                Err(error) => debug!(%error, "sweep is put off"),
            }
        }
    }
}

/// Goes through the agents that are due, and through the next part of all; tells where to go on.
async fn look_for_lost_hints(
    core: &Arc<Core>,
    after: Option<AgentId>,
    now: Timestamp,
) -> Result<Option<AgentId>, StoreError> {
    let limit = core.config.sweep_rows_max.max(1);
    for row in core.store.rows(Rows::Due(now), None, limit).await? {
        if row.state != AgentState::Quarantined && row.node.as_ref() == Some(&core.config.node) {
            core.hint(row.agent, Hint::Due);
        }
    }
    let page = core.store.rows(Rows::Live, after, limit).await?;
    let last = if page.len() < limit { None } else { page.last().map(|row| row.agent) };
    for row in page {
        let is_mine = row.node.as_ref() == Some(&core.config.node);
        // Who is in memory looks around by itself, but one that computes for long does not look for a cancel.
        let is_missed = row.cancelled || !(core.residency.holds(row.agent) || core.holds_back(row.agent));
        if is_mine && is_missed && has_something_to_do(core, &row, now).await? {
            core.hint(row.agent, Hint::Inbox);
        }
    }
    Ok(last)
}

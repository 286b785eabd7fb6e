//! Finds the agents that have something to do: all at once when a node starts, a few at a time ever after.
//!
//! The second outage after a failover is the stampede, so taking over only raises epochs and notes who is to wake;
//! how many come into memory at once is the residency's business. Nobody is woken, and no service runs, before every
//! agent has its new epoch: one that ran under the old one would be fenced off by its own node.
//!
//! A node among others takes over only what an earlier run of it has left; the rest it is given ([`adopt`]), with the epoch.
//! A row of its name under an epoch that it was not given is another run's, and is never touched.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use nexa_ports::store::{AgentRow, Place, Rows, StoreError};
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, AgentState, Epoch, Millis, Timestamp, Version, Waiting};
use tracing::{debug, info, warn};

use crate::begin;
use crate::dispatch::Hint;
use crate::moving::Given;
use crate::node::Core;

/// Rows that are read at once.
const ROWS_PAGE: usize = 512;
/// Agents whose inboxes are looked into at the same time.
const LOOKS_AT_ONCE: usize = 32;
/// Between two looks for agents that have been idle for long.
const IDLE_TICK: Millis = Millis(1_000);

/// The agents that were taken over.
#[derive(Default)]
pub(crate) struct Taken {
    to_wake: Vec<(Reverse<u8>, AgentId)>,
    asleep: Vec<(AgentId, Option<Timestamp>)>,
}

/// Makes this node the owner of every live agent of an earlier run of it, or of all if there are no others, under a new
/// epoch.
pub(crate) async fn take_over(core: &Arc<Core>) -> Result<Taken, StoreError> {
    let mut after = None;
    let (mut taken, now) = (Taken::default(), core.clock.now());
    loop {
        let page = core.store.rows(rows_of(core), after, ROWS_PAGE).await?;
        let is_last = page.len() < ROWS_PAGE;
        after = page.last().map(|row| row.agent);
        // Placing an agent lets it run, and who is quarantined must not run.
        let (quarantined, rows): (Vec<AgentRow>, Vec<AgentRow>) =
            page.into_iter().partition(|row| row.state == AgentState::Quarantined);
        for row in quarantined {
            core.ownership.given(row.agent, row.epoch);
        }
        place(core, &rows).await?;
        let has_work: Vec<bool> = have_something_to_do(core, &rows, now).try_collect().await?;
        taken.note(core, rows.into_iter().zip(has_work));
        if is_last {
            return Ok(taken);
        }
    }
}

/// The rows that are this node's to look after.
fn rows_of(core: &Core) -> Rows {
    if core.config.others { Rows::Of(core.config.node.clone()) } else { Rows::Live }
}

/// Takes up agents that were placed on this node, or have moved to it. What is stale, or known already, is left aside.
pub(crate) async fn adopt(core: &Arc<Core>, given: Vec<Given>) -> Result<(), StoreError> {
    let (mut taken, now) = (Taken::default(), core.clock.now());
    let given: Vec<Given> =
        given.into_iter().filter(|given| core.ownership.epoch(given.agent) < Some(given.epoch)).collect();
    for page in given.chunks(ROWS_PAGE) {
        let agents: Vec<AgentId> = page.iter().map(|given| given.agent).collect();
        let limit = agents.len();
        let found = core.store.rows(Rows::Agents(agents), None, limit).await?;
        let found: BTreeMap<AgentId, AgentRow> = found.into_iter().map(|row| (row.agent, row)).collect();
        let rows: Vec<AgentRow> = (page.iter())
            .filter_map(|given| found.get(&given.agent).filter(|row| core.is_given(given, row)).cloned())
            .collect();
        // Who cannot be told is woken: it looks for itself.
        let has_work = have_something_to_do(core, &rows, now).map(|has| has.unwrap_or(true)).collect::<Vec<_>>().await;
        taken.note(core, rows.into_iter().zip(has_work));
    }
    taken.wake(core);
    Ok(())
}

impl Taken {
    fn note(&mut self, core: &Arc<Core>, rows: impl Iterator<Item = (AgentRow, bool)>) {
        for (row, has_work) in rows {
            if begin::is_work(row.state) {
                // Before anybody is woken, so that nobody begins who would be one too many.
                core.is_at_work(row.agent, true);
            }
            if has_work {
                self.to_wake.push((Reverse(row.priority), row.agent));
            } else {
                self.asleep.push((row.agent, row.due));
            }
        }
    }

    /// Sets the timers, and wakes those with something to do, the most urgent first.
    pub(crate) fn wake(mut self, core: &Arc<Core>) {
        let (waking, asleep) = (self.to_wake.len(), self.asleep.len());
        if waking + asleep > 0 {
            info!(node = %core.config.node, taken = waking + asleep, waking, "agents taken over");
        }
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
    if planted(Bug::RestartKeepsEpoch) {
        for wish in wishes {
            core.ownership.given(wish.agent, wish.from);
        }
        return Ok(());
    }
    if wishes.is_empty() {
        return Ok(());
    }
    for (answer, wish) in core.store.place(wishes.clone()).await?.into_iter().zip(wishes) {
        match answer {
            Ok(epoch) => {
                core.ownership.given(wish.agent, epoch);
            }
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
    // Beside others a leader may have placed it, on an earlier run that is still there.
    !core.config.others
        && row.node.as_ref() == Some(&core.config.node)
        && row.state == AgentState::Placed
        && row.epoch == Epoch(1)
        && row.version == Version(1)
}

/// Of each whether there is something to do, in order.
fn have_something_to_do(
    core: &Arc<Core>,
    rows: &[AgentRow],
    now: Timestamp,
) -> impl Stream<Item = Result<bool, StoreError>> + Send + use<> {
    let looks: Vec<_> = rows
        .iter()
        .map(|row| {
            let (core, row) = (core.clone(), row.clone());
            async move { has_something_to_do(&core, &row, now).await }
        })
        .collect();
    stream::iter(looks).buffered(LOOKS_AT_ONCE)
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

/// Where the sweep goes on.
#[derive(Default)]
struct Swept {
    rows: Option<AgentId>,
    due: Option<AgentId>,
}

/// Sends idle agents to sleep, and finds those whose hint got lost. Runs until the node stops.
pub(crate) async fn sweep(core: Arc<Core>) {
    let mut next_sweep = core.clock.now().after(core.config.sweep_every);
    let mut swept = Swept::default();
    loop {
        let now = core.clock.now();
        let tick = now.after(Millis(IDLE_TICK.0.min(core.config.idle_before_dormant.0.max(1))));
        core.clock.wait_until(tick.min(next_sweep).max(now.after(Millis(1)))).await;
        let now = core.clock.now();
        core.residency.send_to_sleep(now, core.config.idle_before_dormant);
        if now >= next_sweep {
            next_sweep = now.after(core.config.sweep_every);
            if let Err(error) = look_for_lost_hints(&core, &mut swept, now).await {
                debug!(%error, "sweep is put off");
            }
        }
    }
}

/// Goes through the next part of the agents that are due, of which others' are passed over, and of all that are this
/// node's.
async fn look_for_lost_hints(core: &Arc<Core>, swept: &mut Swept, now: Timestamp) -> Result<(), StoreError> {
    let limit = core.config.sweep_rows_max.max(1);
    let page = core.store.rows(Rows::Due(now), swept.due, limit).await?;
    swept.due = next_after(&page, limit);
    for row in page {
        if row.state != AgentState::Quarantined && core.owns(&row) {
            core.hint(row.agent, Hint::Due);
        }
    }
    let page = core.store.rows(rows_of(core), swept.rows, limit).await?;
    if core.config.others {
        forget_the_lost(core, swept.rows, &page, limit).await?;
    }
    swept.rows = next_after(&page, limit);
    for row in page {
        if core.owns(&row) && is_missed(core, &row, now).await? {
            core.hint(row.agent, Hint::Inbox);
        }
    }
    Ok(())
}

/// Whether an agent should look, and may not know it. Who is in memory keeps its timer and its effects in view, but nobody
/// else tells it that its inbox has changed: a hint that got lost would keep it waiting until it has been idle for so long
/// that it leaves.
async fn is_missed(core: &Core, row: &AgentRow, now: Timestamp) -> Result<bool, StoreError> {
    // One that computes for long does not look for a cancel.
    if row.cancelled {
        return Ok(true);
    }
    if core.holds_back(row.agent) || planted(Bug::SweepBlind) {
        return Ok(false);
    }
    match (core.residency.holds(row.agent), row.state) {
        (false, _) => has_something_to_do(core, row, now).await,
        (true, AgentState::Waiting(_)) => Ok(!core.store.inbox(row.agent, 1).await?.is_empty()),
        (true, _) => Ok(false),
    }
}

fn next_after(page: &[AgentRow], limit: usize) -> Option<AgentId> {
    if page.len() < limit { None } else { page.last().map(|row| row.agent) }
}

/// Agents that were given to others without a word to this node, or have ended elsewhere, are not counted for its own
/// any more.
async fn forget_the_lost(
    core: &Arc<Core>,
    after: Option<AgentId>,
    page: &[AgentRow],
    limit: usize,
) -> Result<(), StoreError> {
    let last = next_after(page, limit);
    let found: BTreeSet<AgentId> = page.iter().map(|row| row.agent).collect();
    let listed = core.ownership.list(after, limit.saturating_mul(2));
    let missing = listed.into_iter().take_while(|agent| last.is_none_or(|last| *agent <= last));
    let missing: Vec<AgentId> =
        missing.filter(|agent| !found.contains(agent) && !core.residency.holds(*agent)).take(limit).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // They are looked at again, because they may have come since the page was read.
    for row in core.store.rows(Rows::Agents(missing), None, limit).await? {
        if row.state.is_terminal() || row.node.as_ref() != Some(&core.config.node) {
            core.lose(row.agent, row.epoch);
        }
    }
    Ok(())
}

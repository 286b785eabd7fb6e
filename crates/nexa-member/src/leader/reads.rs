//! What a leader looks at, a page at a time: one question to the store is under way, and looks take turns by urgency. One that
//! could not be made lets the others go first: as long as the membership service is away, nobody knows whether a lost node is back.
//!
//! | look | when | until |
//! |---|---|---|
//! | rows of a gone node, while none of its runs is back | it is gone | a whole pass finds none: what was born meanwhile is found by the next pass |
//! | rows without owner | at the start, at a hint, every second | for ever |
//! | rows of a node, to be checked with it | at the start, when a run of it is new, every minute | the end |
//! | rows of a draining node | while it drains and few of it are on their way | for ever |
//! | rows of a node to be relieved | when balancing asks | one page |
//! | all rows, for owners that are not there | at the start, every minute | for ever |

use std::collections::BTreeMap;

use nexa_types::{AgentId, Millis, NodeId, Timestamp};

use super::{Limits, Output, PAGE, Row, Which};

/// Between two passes over the rows of a node that is gone or drains.
const PASS_PAUSE: Millis = Millis(200);
/// Between two looks that were hinted at.
const HINT_PAUSE: Millis = Millis(20);
/// After a page that could not be read, or that a node did not answer for.
const RETRY_PAUSE: Millis = Millis(500);

/// What a page is read for; the most urgent first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aim {
    Gone(NodeId),
    Unplaced,
    Check(NodeId),
    Drain(NodeId),
    Balance(NodeId),
    Orphans,
}

impl Aim {
    fn which(&self) -> Which {
        match self {
            Self::Gone(node) => Which::Left(node.clone()),
            Self::Check(node) | Self::Drain(node) | Self::Balance(node) => Which::Of(node.clone()),
            Self::Unplaced => Which::Unplaced,
            Self::Orphans => Which::Live,
        }
    }
}

/// A way through rows.
#[derive(Debug, Clone, Copy)]
struct Pass {
    /// When it begins or goes on; none while a node is asked about its page.
    due: Option<Timestamp>,
    /// After whom it goes on.
    after: Option<AgentId>,
    /// What it has found so far.
    found: usize,
    /// Where it goes on once the node has answered, if not at the end.
    then: Option<AgentId>,
}

/// All looks.
#[derive(Debug, Clone)]
pub(super) struct Reads {
    passes: BTreeMap<Aim, Pass>,
    under_way: Option<(u64, Aim)>,
    /// What could not be read last.
    failed: Option<Aim>,
    paused_until: Timestamp,
}

impl Reads {
    pub(super) fn new(now: Timestamp) -> Self {
        let mut reads = Self { passes: BTreeMap::new(), under_way: None, failed: None, paused_until: now };
        reads.begin(Aim::Unplaced, now);
        reads.begin(Aim::Orphans, now);
        reads
    }

    /// Begins a look, if it is not under way. Whether it was not.
    pub(super) fn begin(&mut self, aim: Aim, now: Timestamp) -> bool {
        let begins = !self.passes.contains_key(&aim);
        self.passes.entry(aim).or_insert(Pass { due: Some(now), after: None, found: 0, then: None });
        begins
    }

    /// Ends a look.
    pub(super) fn end(&mut self, aim: &Aim) {
        self.passes.remove(aim);
    }

    /// Somebody was born without an owner. Many hints make one look.
    pub(super) fn hint(&mut self, now: Timestamp) {
        if let Some(pass) = self.passes.get_mut(&Aim::Unplaced)
            && pass.after.is_none()
        {
            pass.due = pass.due.map(|due| due.min(now.after(HINT_PAUSE)));
        }
    }

    /// Asks for the page of the most urgent look that is due and wanted, if none is under way.
    pub(super) fn drive(
        &mut self,
        is_wanted: impl Fn(&Aim) -> bool,
        number: &mut u64,
        now: Timestamp,
        out: &mut Vec<Output>,
    ) {
        if self.under_way.is_some() || now < self.paused_until {
            return;
        }
        let is_due = |pass: &Pass| pass.due.is_some_and(|due| due <= now);
        let due = || self.passes.iter().filter(|(aim, pass)| is_due(pass) && is_wanted(aim));
        let other = due().find(|(aim, _)| self.failed.as_ref() != Some(*aim));
        let Some((aim, pass)) = other.or_else(|| due().next()) else { return };
        *number += 1;
        out.push(Output::Read { number: *number, which: aim.which(), after: pass.after });
        self.under_way = Some((*number, aim.clone()));
        self.failed = None;
    }

    /// A page has come: what it was read for, if that is still wanted. A failed one is asked for again.
    pub(super) fn came(&mut self, number: u64, rows: Option<Vec<Row>>, now: Timestamp) -> Option<(Aim, Vec<Row>)> {
        let (_, aim) = self.under_way.take_if(|(asked, _)| *asked == number)?;
        if rows.is_none() {
            self.paused_until = now.after(RETRY_PAUSE);
            self.failed = Some(aim.clone());
        }
        rows.filter(|_| self.passes.contains_key(&aim)).map(|rows| (aim, rows))
    }

    /// A page was looked at and `found` rows of it need something done. Gives `true` at the end of a pass that found
    /// nothing.
    pub(super) fn looked(&mut self, limits: &Limits, aim: &Aim, rows: &[Row], found: usize, now: Timestamp) -> bool {
        let next = if rows.len() < PAGE { None } else { rows.last().map(|row| row.agent) };
        let Some(pass) = self.passes.get_mut(aim) else { return false };
        pass.found += found;
        if matches!(aim, Aim::Check(_)) && !rows.is_empty() {
            (pass.due, pass.then) = (None, next);
            return false;
        }
        self.go_on(limits, aim, next, now)
    }

    /// A node has answered for its page, or has not.
    pub(super) fn checked(&mut self, limits: &Limits, node: &NodeId, has_answered: bool, now: Timestamp) {
        let aim = Aim::Check(node.clone());
        let Some(pass) = self.passes.get_mut(&aim).filter(|pass| pass.due.is_none()) else { return };
        if has_answered {
            let next = pass.then;
            self.go_on(limits, &aim, next, now);
        } else {
            pass.due = Some(now.after(RETRY_PAUSE));
        }
    }

    fn go_on(&mut self, limits: &Limits, aim: &Aim, next: Option<AgentId>, now: Timestamp) -> bool {
        let Some(pass) = self.passes.get_mut(aim) else { return false };
        (pass.after, pass.due) = (next, Some(now));
        if next.is_some() {
            return false;
        }
        let is_clean = std::mem::take(&mut pass.found) == 0;
        let pause = match aim {
            Aim::Gone(_) if !is_clean => PASS_PAUSE,
            Aim::Gone(_) | Aim::Check(_) | Aim::Balance(_) => {
                self.passes.remove(aim);
                return is_clean;
            }
            Aim::Drain(_) if !is_clean => PASS_PAUSE,
            Aim::Unplaced | Aim::Drain(_) => limits.look_every,
            Aim::Orphans => limits.patrol_every,
        };
        pass.due = Some(now.after(pause));
        is_clean
    }
}

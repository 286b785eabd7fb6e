//! What a node makes of an agent that it has read, and of an append that was not simply accepted: choices without a store.
//!
//! Pure, so that `nexa-model` goes through every order of events with the very rules that run. Who acts on them is the actor
//! (`agent`); what the ledger makes of an effect that was lost is nexa-agent's.

use nexa_agent::{Agent, Input};
use nexa_ports::store::{AppendError, StoreError};
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentState, Epoch, NodeId};

/// Whether somebody else has taken an agent over while it was read: its stream has facts under a later right than the row had
/// that was read before. Nobody may act by that right, nor send what it has started.
#[must_use]
pub fn is_outrun(row: Epoch, recorded: Epoch) -> bool {
    recorded > row
}

/// What an agent hears first that was read: that it begins, that another owner has it now, or that it goes on. `carried` says
/// which node goes on with what it has in flight.
#[must_use]
pub fn first_input(agent: &Agent, row: Epoch, node: &NodeId, carried: impl FnOnce() -> Option<NodeId>) -> Input {
    let (node, epoch) = (node.clone(), row);
    if agent.state() == AgentState::Placed {
        Input::Start { node, epoch }
    } else if epoch > agent.epoch() && !planted(Bug::TakeoverNotHeard) {
        Input::TakeOver { node, epoch, carried: carried().filter(|_| !planted(Bug::CarriedSentAgain)) }
    } else {
        Input::Continue
    }
}

/// Whether an effect that is recorded as started was started under this node's right and is not under way: an incarnation
/// died before it was sent. `given` is the right that the node holds now.
#[must_use]
pub fn is_unsent(given: Option<Epoch>, started: Epoch, is_under_way: bool) -> bool {
    given.is_some_and(|given| started >= given) && !is_under_way
}

/// Whether an effect was sent by an owner before this one, and nobody goes on with it any more.
#[must_use]
pub fn is_given_up(given: Option<Epoch>, started: Epoch, is_carried: bool) -> bool {
    given.is_some_and(|given| started < given) && !is_carried
}

/// What follows from a refused append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The row has another epoch, this one: it is looked at whether that is this node's too.
    Look(Epoch),
    /// The agent in memory is wrong, and is read again.
    ReadAgain,
    /// There is no such agent any more.
    NotMine,
    /// It can never be stored.
    Fail,
    /// Nothing was stored, or nobody knows: the same append is kept, and after a pause [`after_doubt`] says what to do.
    Keep,
}

impl After {
    /// By what the store says.
    #[must_use]
    pub fn of(error: &AppendError) -> Self {
        match error {
            AppendError::StaleEpoch { current, .. } => Self::Look(*current),
            AppendError::WorkloadCancelled | AppendError::VersionConflict { .. } => Self::ReadAgain,
            AppendError::NoSuchAgent => Self::NotMine,
            AppendError::Store(StoreError::Corrupt { .. } | StoreError::TooLarge { .. }) => Self::Fail,
            AppendError::Store(
                StoreError::Unavailable { .. } | StoreError::Ambiguous { .. } | StoreError::DiskFull,
            ) => Self::Keep,
        }
    }
}

/// What becomes of an append of which nobody knew whether it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It was not: it is appended again.
    Append,
    /// It was: it is acted on.
    Act,
    /// Something else was: the agent is read again.
    ReadAgain,
}

/// By the facts that follow in the stream on what the agent knew, each with the epoch that it was recorded under, and those
/// that were to be appended under `epoch`.
#[must_use]
pub fn after_doubt<'a, F: PartialEq + 'a>(
    found: impl ExactSizeIterator<Item = (&'a F, Option<Epoch>)>,
    wanted: &[F],
    epoch: Epoch,
) -> Doubt {
    if found.len() == 0 {
        return Doubt::Append;
    }
    let has_all = found.len() == wanted.len();
    let is_ours = found.zip(wanted).all(|((fact, under), wanted)| fact == wanted && under == Some(epoch));
    if has_all && is_ours { Doubt::Act } else { Doubt::ReadAgain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_in_doubt_is_acted_on_only_if_all_of_it_stands_there_under_its_own_right() {
        let doubt = |found: &[(u8, u64)], wanted: &[u8]| {
            after_doubt(found.iter().map(|(fact, under)| (fact, Some(Epoch(*under)))), wanted, Epoch(2))
        };
        assert_eq!(doubt(&[], &[1, 2]), Doubt::Append);
        assert_eq!(doubt(&[(1, 2), (2, 2)], &[1, 2]), Doubt::Act);
        assert_eq!(doubt(&[(1, 2), (2, 3)], &[1, 2]), Doubt::ReadAgain, "another owner has decided the same");
        assert_eq!(doubt(&[(1, 2)], &[1, 2]), Doubt::ReadAgain);
        assert_eq!(doubt(&[(1, 2), (3, 2)], &[1, 2]), Doubt::ReadAgain);
    }

    #[test]
    fn what_was_started_under_an_earlier_right_is_never_taken_for_unsent() {
        assert!(is_unsent(Some(Epoch(3)), Epoch(3), false));
        assert!(!is_unsent(Some(Epoch(3)), Epoch(2), false));
        assert!(!is_unsent(Some(Epoch(3)), Epoch(3), true));
        assert!(!is_unsent(None, Epoch(3), false));
        assert!(is_given_up(Some(Epoch(3)), Epoch(2), false));
        assert!(!is_given_up(Some(Epoch(3)), Epoch(2), true));
        assert!(is_outrun(Epoch(2), Epoch(3)) && !is_outrun(Epoch(3), Epoch(3)));
    }
}

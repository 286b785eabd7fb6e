//! Between the words of `nexa-types` and their messages.
//!
//! Outwards nothing fails. Inwards an unknown or missing value gives `None`, and the caller says which field it was.

use nexa_types::{AgentState, Budget, Millis, RequestId, Spend, Timestamp, Tokens, UsdMicro, Waiting, WorkloadState};

use crate::v1;

/// Reads the UUID of a request; every usual form of a UUID will do.
pub fn request_id(text: &str) -> Option<RequestId> {
    uuid::Uuid::try_parse(text).ok().filter(|id| !id.is_nil()).map(|id| RequestId::from_bytes(id.into_bytes()))
}

/// A moment as a message.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let Timestamp(millis) = at;
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    prost_types::Timestamp { seconds, nanos: (millis % 1000) as i32 * 1_000_000 }
}

/// A moment from a message; one before 1970 is none.
pub fn moment(at: &prost_types::Timestamp) -> Option<Timestamp> {
    let seconds = u64::try_from(at.seconds).ok()?;
    let nanos = u64::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Timestamp(seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000)?))
}

impl From<Budget> for v1::Budget {
    fn from(budget: Budget) -> Self {
        Self {
            tokens: budget.tokens.map(|Tokens(tokens)| tokens),
            cost_usd_micro: budget.cost.map(|UsdMicro(cost)| cost),
            time_ms: budget.time.map(|Millis(time)| time),
            calls: budget.calls,
            steps: budget.steps,
        }
    }
}

impl From<v1::Budget> for Budget {
    fn from(budget: v1::Budget) -> Self {
        Self {
            tokens: budget.tokens.map(Tokens),
            cost: budget.cost_usd_micro.map(UsdMicro),
            time: budget.time_ms.map(Millis),
            calls: budget.calls,
            steps: budget.steps,
        }
    }
}

impl From<Spend> for v1::Spend {
    fn from(spend: Spend) -> Self {
        Self {
            tokens_in: spend.tokens_in.0,
            tokens_out: spend.tokens_out.0,
            cost_usd_micro: spend.cost.0,
            calls: spend.calls,
            steps: spend.steps,
        }
    }
}

impl From<v1::Spend> for Spend {
    fn from(spend: v1::Spend) -> Self {
        Self {
            tokens_in: Tokens(spend.tokens_in),
            tokens_out: Tokens(spend.tokens_out),
            cost: UsdMicro(spend.cost_usd_micro),
            calls: spend.calls,
            steps: spend.steps,
        }
    }
}

impl From<WorkloadState> for v1::WorkloadState {
    fn from(state: WorkloadState) -> Self {
        match state {
            WorkloadState::Submitted => Self::Submitted,
            WorkloadState::Running => Self::Running,
            WorkloadState::Succeeded => Self::Succeeded,
            WorkloadState::Failed => Self::Failed,
            WorkloadState::Cancelled => Self::Cancelled,
        }
    }
}

/// A workload's state from its message; `None` for one that is not told.
pub fn workload_state(state: v1::WorkloadState) -> Option<WorkloadState> {
    match state {
        v1::WorkloadState::Unspecified => None,
        v1::WorkloadState::Submitted => Some(WorkloadState::Submitted),
        v1::WorkloadState::Running => Some(WorkloadState::Running),
        v1::WorkloadState::Succeeded => Some(WorkloadState::Succeeded),
        v1::WorkloadState::Failed => Some(WorkloadState::Failed),
        v1::WorkloadState::Cancelled => Some(WorkloadState::Cancelled),
    }
}

/// An agent's state as the two fields that messages have for it.
pub fn agent_state_fields(state: AgentState) -> (v1::AgentState, v1::WaitingFor) {
    let plain = |state| (state, v1::WaitingFor::Unspecified);
    match state {
        AgentState::Pending => plain(v1::AgentState::Pending),
        AgentState::Ready => plain(v1::AgentState::Ready),
        AgentState::Placed => plain(v1::AgentState::Placed),
        AgentState::Running => plain(v1::AgentState::Running),
        AgentState::Waiting(reason) => (
            v1::AgentState::Waiting,
            match reason {
                Waiting::Model => v1::WaitingFor::Model,
                Waiting::Approval => v1::WaitingFor::Approval,
                Waiting::Timer => v1::WaitingFor::Timer,
                Waiting::Children => v1::WaitingFor::Children,
                Waiting::Message => v1::WaitingFor::Message,
                Waiting::Tool => v1::WaitingFor::Tool,
            },
        ),
        AgentState::Succeeded => plain(v1::AgentState::Succeeded),
        AgentState::Failed => plain(v1::AgentState::Failed),
        AgentState::Cancelled => plain(v1::AgentState::Cancelled),
        AgentState::Quarantined => plain(v1::AgentState::Quarantined),
    }
}

/// An agent's state from its two fields; `None` if it is not told, or waits for something that is not told.
pub fn agent_state(state: v1::AgentState, waiting: v1::WaitingFor) -> Option<AgentState> {
    Some(match state {
        v1::AgentState::Unspecified => return None,
        v1::AgentState::Pending => AgentState::Pending,
        v1::AgentState::Ready => AgentState::Ready,
        v1::AgentState::Placed => AgentState::Placed,
        v1::AgentState::Running => AgentState::Running,
        v1::AgentState::Waiting => AgentState::Waiting(match waiting {
            v1::WaitingFor::Unspecified => return None,
            v1::WaitingFor::Model => Waiting::Model,
            v1::WaitingFor::Approval => Waiting::Approval,
            v1::WaitingFor::Timer => Waiting::Timer,
            v1::WaitingFor::Children => Waiting::Children,
            v1::WaitingFor::Message => Waiting::Message,
            v1::WaitingFor::Tool => Waiting::Tool,
        }),
        v1::AgentState::Succeeded => AgentState::Succeeded,
        v1::AgentState::Failed => AgentState::Failed,
        v1::AgentState::Cancelled => AgentState::Cancelled,
        v1::AgentState::Quarantined => AgentState::Quarantined,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back_from_its_message() {
        let waits =
            [Waiting::Model, Waiting::Approval, Waiting::Timer, Waiting::Children, Waiting::Message, Waiting::Tool];
        let states = [
            AgentState::Pending,
            AgentState::Ready,
            AgentState::Placed,
            AgentState::Running,
            AgentState::Succeeded,
            AgentState::Failed,
            AgentState::Cancelled,
            AgentState::Quarantined,
        ];
        for state in states.into_iter().chain(waits.map(AgentState::Waiting)) {
            let (told, waiting) = agent_state_fields(state);
            assert_eq!(agent_state(told, waiting), Some(state));
        }
        for state in [
            WorkloadState::Submitted,
            WorkloadState::Running,
            WorkloadState::Succeeded,
            WorkloadState::Failed,
            WorkloadState::Cancelled,
        ] {
            assert_eq!(workload_state(state.into()), Some(state));
        }
    }

    #[test]
    fn a_moment_comes_back_and_a_wrong_one_is_none() {
        for millis in [0, 1, 999, 1000, 1_763_000_000_123] {
            assert_eq!(moment(&timestamp(Timestamp(millis))), Some(Timestamp(millis)));
        }
        assert_eq!(moment(&prost_types::Timestamp { seconds: -1, nanos: 0 }), None);
        assert_eq!(moment(&prost_types::Timestamp { seconds: 0, nanos: -1 }), None);
        assert_eq!(moment(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), None);
        let _ = timestamp(Timestamp(u64::MAX));
    }

    #[test]
    fn a_request_id_is_a_uuid_and_not_the_nil_one() {
        assert!(request_id("019a8f6e-6c3a-7d44-9a43-3f0b8f9a3e55").is_some());
        assert_eq!(
            request_id("019a8f6e6c3a7d449a433f0b8f9a3e55"),
            request_id("019A8F6E-6C3A-7D44-9A43-3F0B8F9A3E55"),
            "the same id in another form is the same id"
        );
        for wrong in
            ["", "1", "not-a-uuid", "00000000-0000-0000-0000-000000000000", "019a8f6e-6c3a-7d44-9a43-3f0b8f9a3e5g"]
        {
            assert_eq!(request_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn budgets_and_spends_come_back() {
        let budget =
            Budget { tokens: Some(Tokens(1)), cost: None, time: Some(Millis(0)), calls: Some(u64::MAX), steps: None };
        assert_eq!(Budget::from(v1::Budget::from(budget)), budget);
        let spend = Spend { tokens_in: Tokens(3), tokens_out: Tokens(4), cost: UsdMicro(5), calls: 6, steps: 7 };
        assert_eq!(Spend::from(v1::Spend::from(spend)), spend);
    }
}

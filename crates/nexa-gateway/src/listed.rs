//! What lists and snapshots show of something long: a page of many must fit into one message, so that one agent's end
//! cannot hide all the others. Whole outcomes are told by `Get` and by the facts themselves.

use nexa_types::Outcome;
use nexa_view::AgentView;

/// Longer values are left out, in encoded bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 4 << 10;
/// Longer texts of failures are cut off, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 10;
/// Bytes of JSON for one encoded byte, at most: a control character is written as `\u0000`.
const JSON_BYTES_PER_BYTE: usize = 6;
/// Ids, counts and times of an agent, in bytes, at most.
const FRAME_BYTES: usize = 1 << 10;

/// The text as lists show it.
pub(crate) fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// About the most bytes that an agent takes in a list.
fn bytes(agent: &AgentView) -> usize {
    let outcome = match &agent.outcome {
        Some(Outcome::Ok(value)) if value.len() <= VALUE_BYTES_MAX => JSON_BYTES_PER_BYTE * value.len(),
        Some(Outcome::Err(failure)) => failure.at.len().min(TEXT_BYTES_MAX) + failure.message.len().min(TEXT_BYTES_MAX),
        Some(Outcome::Ok(_)) | None => 0,
    };
    let last_failure = agent.last_failure.as_ref().map_or(0, |text| text.len().min(TEXT_BYTES_MAX));
    let asks = agent
        .asks
        .as_ref()
        .map_or(0, |asks| asks.to_string().len() + asks.gang.as_ref().map_or(0, |gang| gang.to_string().len()));
    FRAME_BYTES + agent.name.len() + outcome + last_failure + asks
}

/// Agents in parts of at most so many and about so many bytes; at least one part, and none without reason.
pub(crate) fn parts(agents: Vec<AgentView>, agents_max: usize, bytes_max: usize) -> Vec<Vec<AgentView>> {
    let mut parts = vec![Vec::new()];
    let mut used = 0;
    for agent in agents {
        let more = bytes(&agent);
        let part = parts.last_mut().expect("there is one from the start");
        if part.len() == agents_max || (used + more > bytes_max && !part.is_empty()) {
            parts.push(vec![agent]);
            used = more;
        } else {
            part.push(agent);
            used += more;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexa_types::{
        AgentId, AgentState, Epoch, Failure, GlobalSeq, PrincipalId, RunCode, Spend, TenantId, Timestamp, Version,
        WorkloadId,
    };

    fn failed(message: usize) -> AgentView {
        AgentView {
            agent: AgentId::from_bytes([1; 16]),
            workload: WorkloadId::from_bytes([2; 16]),
            tenant: TenantId::local(),
            principal: PrincipalId::local(),
            name: "main".to_owned(),
            parent: None,
            state: AgentState::Failed,
            node: None,
            epoch: Epoch(1),
            version: Version(2),
            spend: Spend::default(),
            created_at: Timestamp(1),
            started_at: None,
            ended_at: None,
            outcome: Some(Outcome::Err(Failure::new(RunCode::Failed, "é".repeat(message / 2)))),
            last_failure: None,
            pending: None,
            coordinates: false,
            quarantined: None,
            born_seq: GlobalSeq(1),
            applied: GlobalSeq(2),
            asks: None,
        }
    }

    #[test]
    fn parts_are_closed_by_bytes_and_by_count() {
        let lens = |agents, agents_max, bytes_max| {
            parts(agents, agents_max, bytes_max).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(lens(vec![], 500, 1 << 20), [0]);
        assert_eq!(lens(vec![failed(2); 1_001], 500, 4 << 20), [500, 500, 1]);
        assert_eq!(lens(vec![failed(1 << 20); 9], 500, 5 * (FRAME_BYTES + TEXT_BYTES_MAX)), [4, 4, 1]);
        assert_eq!(lens(vec![failed(1 << 20); 2], 500, 1), [1, 1]);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(cut(&format!("x{long}")).len(), TEXT_BYTES_MAX - 1 + "…".len());
    }
}

//! From replies to messages. Nothing here fails: what cannot be said is left empty, and the surface's documentation says so.

use nexa_event::effect::{Answer, Finish};
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, EffectResult, Intent, WorkloadEvent};
use nexa_ports::view::HistoryHit;
use nexa_proto::convert::{agent_state_fields, timestamp};
use nexa_proto::v1;
use nexa_proto::v1::watch_event::Event;
use nexa_proto::v1::watch_frame;
use nexa_runtime::LiveKind;
use nexa_types::{AgentId, Failure, Outcome, Payload, RunCode, WorkloadState};
use nexa_view::{AgentView, ApprovalView, ProgramView, WorkloadView};
use nexa_vm::{codec, json};

use crate::listed;
use crate::mediator::{ApprovalId, Note, ProgramInfo, ProgramPut};
use crate::watch::{Frame, WatchedFact};

/// Causes of a failure beyond this are left out.
const CAUSES_MAX: usize = 10;

/// A value as JSON; empty if its text is longer than 16 MiB or its bytes are damaged.
pub(super) fn value_json(value: &Payload) -> String {
    codec::decode(value).ok().and_then(|value| json::try_to_json(&value).ok()).unwrap_or_default()
}

/// A failure with its causes.
pub(super) fn failure(failure: &Failure) -> v1::Failure {
    let mut chain: Vec<&Failure> = vec![failure];
    while let Some(cause) = chain.last().and_then(|last| last.cause.as_deref()).filter(|_| chain.len() < CAUSES_MAX) {
        chain.push(cause);
    }
    let told = |failure: &Failure| v1::Failure {
        code: failure.code.to_string(),
        message: failure.message.clone(),
        at: failure.at.clone(),
        data_json: failure.data.as_ref().map(value_json).unwrap_or_default(),
        cause: None,
    };
    let mut message = None;
    for failure in chain.into_iter().rev() {
        message = Some(v1::Failure { cause: message.map(Box::new), ..told(failure) });
    }
    message.unwrap_or_default()
}

/// An outcome, whole.
pub(super) fn outcome(outcome: &Outcome) -> v1::Outcome {
    use v1::outcome::Result;
    let result = match outcome {
        Outcome::Ok(value) => Result::ValueJson(value_json(value)),
        Outcome::Err(told) => Result::Failure(failure(told)),
    };
    v1::Outcome { result: Some(result) }
}

/// An outcome for a list: a long value is left out, and so are a failure's data and causes.
fn listed_outcome(told: &Outcome) -> v1::Outcome {
    use v1::outcome::Result;
    let result = match told {
        Outcome::Ok(value) if value.len() > listed::VALUE_BYTES_MAX => Result::ValueJson(String::new()),
        Outcome::Ok(value) => Result::ValueJson(value_json(value)),
        Outcome::Err(failure) => Result::Failure(v1::Failure {
            code: failure.code.to_string(),
            message: listed::cut(&failure.message),
            at: listed::cut(&failure.at),
            ..v1::Failure::default()
        }),
    };
    v1::Outcome { result: Some(result) }
}

pub(super) fn workload(view: WorkloadView, whole: bool) -> v1::Workload {
    let told = if whole { outcome } else { listed_outcome };
    v1::Workload {
        workload_id: view.workload.to_string(),
        name: view.name,
        state: v1::WorkloadState::from(view.state).into(),
        root_agent_id: view.root.to_string(),
        budget: Some(view.budget.into()),
        spend: Some(view.spend.into()),
        priority: view.priority.into(),
        agents: view.agents,
        agents_ended: view.agents_ended,
        submitted_at: Some(timestamp(view.submitted_at)),
        ended_at: view.ended_at.map(timestamp),
        outcome: view.outcome.as_ref().map(told),
        principal: view.principal.to_string(),
        cancel_requested: view.cancel_requested,
    }
}

pub(super) fn agent(view: AgentView, whole: bool) -> v1::Agent {
    let told = if whole { outcome } else { listed_outcome };
    let (state, waiting_for) = agent_state_fields(view.state);
    let waits = view.asks.filter(|_| view.node.is_none() && !view.state.is_terminal());
    v1::Agent {
        agent_id: view.agent.to_string(),
        workload_id: view.workload.to_string(),
        name: view.name,
        parent_agent_id: view.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        state: state.into(),
        waiting_for: waiting_for.into(),
        spend: Some(view.spend.into()),
        version: view.version.0,
        node: view.node.map(|node| node.to_string()).unwrap_or_default(),
        created_at: Some(timestamp(view.created_at)),
        started_at: view.started_at.map(timestamp),
        ended_at: view.ended_at.map(timestamp),
        outcome: view.outcome.as_ref().map(told),
        last_failure: view.last_failure.map(|text| if whole { text } else { listed::cut(&text) }).unwrap_or_default(),
        waits_for_node: waits.as_ref().map(ToString::to_string).unwrap_or_default(),
        waits_for_gang: waits.and_then(|asks| asks.gang).map(|gang| gang.to_string()).unwrap_or_default(),
    }
}

pub(super) fn approval(view: ApprovalView) -> v1::Approval {
    v1::Approval {
        approval_id: ApprovalId { agent: view.agent, seq: view.seq }.to_string(),
        agent_id: view.agent.to_string(),
        agent_name: view.agent_name,
        workload_id: view.workload.to_string(),
        question: view.question,
        data_json: view.data.unwrap_or_default(),
        asked_at: Some(timestamp(view.asked_at)),
        due: view.expires_at.map(timestamp),
    }
}

pub(super) fn hit(hit: HistoryHit) -> v1::HistoryHit {
    let HistoryHit { line, agent_name } = hit;
    v1::HistoryHit {
        workload_id: line.workload.map(|id| id.to_string()).unwrap_or_default(),
        agent_id: line.agent.map(|id| id.to_string()).unwrap_or_default(),
        agent_name: agent_name.unwrap_or_default(),
        kind: line.kind,
        at: Some(timestamp(line.at)),
        snippet: line.text,
    }
}

pub(super) fn listed_program(view: ProgramView) -> v1::Program {
    v1::Program {
        module_hash: view.module.to_string(),
        name: view.name,
        entries: Vec::new(),
        put_at: Some(timestamp(view.put_at)),
    }
}

pub(super) fn program(info: ProgramInfo) -> v1::Program {
    let entry = |entry: &crate::mediator::EntryInfo| v1::ProgramEntry {
        name: entry.name.clone(),
        is_agent: entry.is_agent,
        params: entry
            .params
            .iter()
            .map(|param| v1::ProgramParam {
                name: param.name.clone(),
                schema_json: param.schema.clone(),
                optional: param.optional,
            })
            .collect(),
        result_schema_json: entry.result_schema.clone(),
    };
    v1::Program {
        module_hash: info.module.to_string(),
        name: info.name,
        entries: info.entries.iter().map(entry).collect(),
        put_at: Some(timestamp(info.put_at)),
    }
}

pub(super) fn program_put(put: ProgramPut) -> v1::ProgramServicePutResponse {
    let note = |note: Note| v1::Diagnostic {
        file: note.file,
        line: note.line,
        column: note.column,
        code: note.code,
        message: note.message,
    };
    v1::ProgramServicePutResponse {
        program: Some(program(put.program)),
        warnings: put.warnings.into_iter().map(note).collect(),
    }
}

pub(super) fn frame(frame: Frame) -> v1::WatchFrame {
    let frame = match frame {
        Frame::Snapshot(part) => watch_frame::Frame::Snapshot(v1::WatchSnapshot {
            workload: part.workload.map(|view| workload(view, true)),
            agents: part.agents.into_iter().map(|view| agent(view, false)).collect(),
            cursor: part.cursor.unwrap_or_default(),
        }),
        Frame::Event(fact) => watch_frame::Frame::Event(Box::new(event(*fact))),
        Frame::Chunk(piece) => watch_frame::Frame::Chunk(v1::WatchChunk {
            agent_id: piece.agent.to_string(),
            agent_name: piece.name.to_string(),
            effect_seq: piece.seq.0,
            attempt: piece.attempt,
            offset: piece.offset,
            kind: match piece.kind {
                LiveKind::Text => v1::ChunkKind::Text.into(),
                LiveKind::Log => v1::ChunkKind::Log.into(),
            },
            text: piece.text.to_string(),
        }),
        Frame::Bookmark(cursor) => watch_frame::Frame::Bookmark(v1::WatchBookmark { cursor }),
        Frame::Lagged(chunks) => watch_frame::Frame::Lagged(v1::WatchLagged { chunks }),
    };
    v1::WatchFrame { frame: Some(frame) }
}

fn event(fact: WatchedFact) -> v1::WatchEvent {
    let WatchedFact { cursor, recorded, workload, agent } = fact;
    let header = recorded.envelope.header;
    let id = agent.as_ref().map(|(id, ..)| *id);
    let happened = match &recorded.envelope.fact {
        Fact::Workload(event) => Some(workload_event(event)),
        Fact::Agent(event) => Some(agent_event(event, id)),
        // Never in a workload's stream or in those of its agents.
        Fact::Cluster(_) => None,
    };
    let mut message = v1::WatchEvent {
        cursor,
        at: Some(timestamp(header.at)),
        workload_id: workload.to_string(),
        version: header.version.0,
        event: happened,
        ..v1::WatchEvent::default()
    };
    if let Some((id, name, state)) = agent {
        let (state, waiting_for) = agent_state_fields(state);
        message.agent_id = id.to_string();
        message.agent_name = name;
        message.agent_state = state.into();
        message.waiting_for = waiting_for.into();
    }
    message
}

fn workload_event(event: &WorkloadEvent) -> Event {
    match event {
        WorkloadEvent::Submitted { name, root, .. } => {
            Event::WorkloadSubmitted(v1::WorkloadSubmitted { name: name.clone(), root_agent_id: root.to_string() })
        }
        WorkloadEvent::CancelRequested { reason } => {
            Event::WorkloadCancelRequested(v1::WorkloadCancelRequested { reason: reason.clone() })
        }
        WorkloadEvent::Ended { outcome: how, spend } => {
            let state = match how {
                Outcome::Ok(_) => WorkloadState::Succeeded,
                Outcome::Err(failure) if failure.code == RunCode::Cancelled => WorkloadState::Cancelled,
                Outcome::Err(_) => WorkloadState::Failed,
            };
            Event::WorkloadEnded(v1::WorkloadEnded {
                outcome: Some(outcome(how)),
                spend: Some((*spend).into()),
                state: v1::WorkloadState::from(state).into(),
            })
        }
    }
}

fn agent_event(event: &AgentEvent, agent: Option<AgentId>) -> Event {
    match event {
        AgentEvent::Spawned(spawned) => Event::AgentSpawned(v1::AgentSpawned {
            parent_agent_id: spawned.parent.map(|parent| parent.agent.to_string()).unwrap_or_default(),
        }),
        AgentEvent::Started { node, .. } => Event::AgentStarted(v1::AgentStarted { node: node.to_string() }),
        AgentEvent::TakenOver { node, .. } => Event::AgentTakenOver(v1::AgentTakenOver { node: node.to_string() }),
        AgentEvent::Ended { outcome: how, spend } => {
            Event::AgentEnded(v1::AgentEnded { outcome: Some(outcome(how)), spend: Some((*spend).into()) })
        }
        AgentEvent::Quarantined { reason } => Event::AgentQuarantined(v1::AgentQuarantined { reason: reason.clone() }),
        AgentEvent::EffectIntended { seq, intent: Intent::Model { model, .. }, .. } => {
            Event::EffectIntended(v1::EffectIntended { effect_seq: seq.0, model: model.clone(), tool: None })
        }
        AgentEvent::EffectIntended {
            seq, intent: Intent::Tool { tool, source, preview, risk, effect, .. }, ..
        } => {
            let tool = v1::ToolIntended {
                name: tool.clone(),
                source: source.clone(),
                arguments_preview: preview.clone(),
                risk: risk.as_str().to_owned(),
                effect: effect.as_str().to_owned(),
            };
            Event::EffectIntended(v1::EffectIntended { effect_seq: seq.0, model: String::new(), tool: Some(tool) })
        }
        AgentEvent::EffectLost { seq } => {
            let lost =
                Failure::new(RunCode::OutcomeUnknown, "the tool was called, and its owner was lost before it answered");
            Event::EffectEnded(v1::EffectEnded {
                effect_seq: seq.0,
                spend: None,
                result: Some(v1::effect_ended::Result::Unknown(failure(&lost))),
            })
        }
        AgentEvent::EffectIntended { seq, intent: Intent::Recall(_), .. } => {
            Event::EffectIntended(v1::EffectIntended { effect_seq: seq.0, model: String::new(), tool: None })
        }
        AgentEvent::EffectIntended { seq, intent: Intent::Approval(request), .. } => {
            let approval = agent.map(|agent| ApprovalId { agent, seq: *seq }.to_string());
            Event::ApprovalRequested(v1::ApprovalRequested {
                effect_seq: seq.0,
                approval_id: approval.unwrap_or_default(),
                question: request.question.clone(),
                data_json: request.data.clone().unwrap_or_default(),
            })
        }
        AgentEvent::EffectStarted { seq, attempt, .. } => {
            Event::EffectStarted(v1::EffectStarted { effect_seq: seq.0, attempt: *attempt })
        }
        AgentEvent::EffectEnded { seq, result, spend } => Event::EffectEnded(v1::EffectEnded {
            effect_seq: seq.0,
            spend: Some((*spend).into()),
            result: effect_result(result),
        }),
        AgentEvent::ChildrenSpawned { seq, children, .. } => Event::ChildrenSpawned(v1::ChildrenSpawned {
            effect_seq: seq.0,
            agent_ids: children.iter().map(|child| child.agent.to_string()).collect(),
        }),
        AgentEvent::ChildEnded { seq, branch, outcome, .. } => {
            Event::ChildEnded(v1::ChildEnded { effect_seq: seq.0, branch: *branch, succeeded: outcome.is_ok() })
        }
        AgentEvent::ChildrenCancelled { children } => Event::ChildrenCancelled(v1::ChildrenCancelled {
            agent_ids: children.iter().map(AgentId::to_string).collect(),
        }),
        AgentEvent::TimerSet { seq, due } => {
            Event::TimerSet(v1::TimerSet { effect_seq: seq.0, due: Some(timestamp(*due)) })
        }
        AgentEvent::TimerFired { seq } => Event::TimerFired(v1::TimerFired { effect_seq: seq.0 }),
        AgentEvent::Emitted { channel, value, .. } => {
            Event::ValueEmitted(v1::ValueEmitted { channel: channel.clone(), value_json: value_json(value) })
        }
        AgentEvent::MemoryStored { seq, entry } => Event::MemoryStored(v1::MemoryStored {
            effect_seq: seq.0,
            scope: entry.scope.as_str().to_owned(),
            key: entry.key.clone(),
            forgotten: entry.value.is_none(),
        }),
        AgentEvent::MessageReceived { from, value, .. } => {
            Event::MessageReceived(v1::MessageReceived { from: from.clone(), value_json: value_json(value) })
        }
        AgentEvent::CancelReceived { reason } => Event::CancelReceived(v1::CancelReceived { reason: reason.clone() }),
        AgentEvent::DeadlinePassed => Event::DeadlinePassed(v1::DeadlinePassed {}),
        AgentEvent::WaitBegan { seq, due, .. } => {
            Event::WaitBegan(v1::WaitBegan { effect_seq: seq.0, due: due.map(timestamp) })
        }
        AgentEvent::MessageSent { seq, to, number } => {
            Event::MessageSent(v1::MessageSent { effect_seq: seq.0, to_agent_id: to.to_string(), number: *number })
        }
        AgentEvent::ScopeExpired { seq } => Event::ScopeExpired(v1::ScopeExpired { effect_seq: seq.0 }),
        AgentEvent::Interrupted { seq, code } => Event::Interrupted(v1::Interrupted {
            effect_seq: seq.0,
            code: code.map(|code| code.to_string()).unwrap_or_default(),
        }),
        AgentEvent::Detached { seq, branches } => {
            Event::BranchesDetached(v1::BranchesDetached { effect_seq: seq.0, names: branches.clone() })
        }
        AgentEvent::Adopted { from, branches, .. } => Event::BranchesAdopted(v1::BranchesAdopted {
            from_agent_id: from.to_string(),
            names: branches.iter().map(|branch| branch.name.clone()).collect(),
        }),
        AgentEvent::Concluded { outcome } => {
            Event::ProgramConcluded(v1::ProgramConcluded { succeeded: outcome.is_ok() })
        }
        AgentEvent::DetachedFailed { name, agent, failure } => Event::DetachedFailed(v1::DetachedFailed {
            name: name.clone(),
            agent_id: agent.map(|agent| agent.to_string()).unwrap_or_default(),
            failure: Some(self::failure(failure)),
        }),
        AgentEvent::MailTaken { seq, count } => {
            Event::MailTaken(v1::MailTaken { effect_seq: seq.0, count: u64::from(*count) })
        }
        AgentEvent::CreditReceived { seq, branch, taken } => {
            Event::CreditReceived(v1::CreditReceived { effect_seq: seq.0, branch: *branch, taken: *taken })
        }
    }
}

fn effect_result(result: &EffectResult) -> Option<v1::effect_ended::Result> {
    use v1::effect_ended::Result;
    Some(match result {
        EffectResult::Done(Answer::Model(reply)) => Result::Model(v1::ModelAnswer {
            text: reply.text.clone(),
            model: reply.model.clone(),
            finish: match reply.finish {
                Finish::Stop => "stop",
                Finish::Length => "length",
                Finish::ToolCalls => "tool_calls",
                Finish::Filtered => "filtered",
            }
            .to_owned(),
        }),
        EffectResult::Done(Answer::Approval(decision)) => Result::Approval(v1::ApprovalDecision {
            approved: decision.approved,
            by: decision.by.clone(),
            note: decision.note.clone(),
        }),
        // What a memory has stays between it and the agent.
        EffectResult::Done(Answer::Memory(_)) => return None,
        EffectResult::Done(Answer::Value(value)) => Result::Tool(v1::ToolAnswer { value_json: value_json(value) }),
        // No other effect is outside, so no other answer is a fact of its own; tests do not run on nodes.
        EffectResult::Done(
            Answer::Done
            | Answer::Now(_)
            | Answer::Random(_)
            | Answer::Children(_)
            | Answer::Started(_)
            | Answer::Message(_)
            | Answer::Tested(_),
        ) => return None,
        EffectResult::Failed(told) => Result::Failure(failure(told)),
        EffectResult::Unknown(told) => Result::Unknown(failure(told)),
    })
}

//! JSON for programs: one object a line, the same words as the gRPC surface, values as values and not as text.

use nexa_proto::v1;
use serde_json::{Map, Value, json};

use super::words;

/// A JSON text as a value; a text that is none stays a text.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A moment, in milliseconds since 1970.
pub fn time(time: Option<&prost_types::Timestamp>) -> Value {
    time.map_or(Value::Null, |time| json!(words::millis(time)))
}

/// Bytes as hexadecimal digits, as `--cursor` takes them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that [`hex`] wrote.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn spend(spend: Option<&v1::Spend>) -> Value {
    let spend = spend.copied().unwrap_or_default();
    json!({
        "tokens_in": spend.tokens_in,
        "tokens_out": spend.tokens_out,
        "cost_usd_micro": spend.cost_usd_micro,
        "calls": spend.calls,
    })
}

fn failure(failure: &v1::Failure) -> Value {
    let mut object = Map::new();
    object.insert("code".into(), json!(failure.code));
    object.insert("message".into(), json!(failure.message));
    if !failure.at.is_empty() {
        object.insert("at".into(), json!(failure.at));
    }
    if !failure.data_json.is_empty() {
        object.insert("data".into(), value(&failure.data_json));
    }
    if let Some(cause) = &failure.cause {
        object.insert("cause".into(), self::failure(cause));
    }
    Value::Object(object)
}

/// `{ "ok": value }`, `{ "err": failure }`, or `null`.
pub fn outcome(outcome: Option<&v1::Outcome>) -> Value {
    match outcome.and_then(|outcome| outcome.result.as_ref()) {
        Some(v1::outcome::Result::ValueJson(text)) => json!({ "ok": value(text) }),
        Some(v1::outcome::Result::Failure(error)) => json!({ "err": failure(error) }),
        None => Value::Null,
    }
}

/// A workload. Times are milliseconds since 1970.
pub fn workload(workload: &v1::Workload) -> Value {
    json!({
        "workload_id": workload.workload_id,
        "name": workload.name,
        "state": words::workload_state(workload.state()),
        "root_agent_id": workload.root_agent_id,
        "agents": workload.agents,
        "agents_ended": workload.agents_ended,
        "spend": spend(workload.spend.as_ref()),
        "submitted_at": time(workload.submitted_at.as_ref()),
        "ended_at": time(workload.ended_at.as_ref()),
        "outcome": outcome(workload.outcome.as_ref()),
    })
}

/// An agent. Times are milliseconds since 1970.
pub fn agent(agent: &v1::Agent) -> Value {
    json!({
        "agent_id": agent.agent_id,
        "workload_id": agent.workload_id,
        "name": agent.name,
        "parent_agent_id": agent.parent_agent_id,
        "state": words::agent_state(agent.state(), agent.waiting_for()),
        "node": agent.node,
        "waits_for_node": agent.waits_for_node,
        "waits_for_gang": agent.waits_for_gang,
        "spend": spend(agent.spend.as_ref()),
        "created_at": time(agent.created_at.as_ref()),
        "started_at": time(agent.started_at.as_ref()),
        "ended_at": time(agent.ended_at.as_ref()),
        "outcome": outcome(agent.outcome.as_ref()),
    })
}

/// A node.
pub fn node(node: &v1::Node) -> Value {
    let capacity = node.capacity.unwrap_or_default();
    json!({
        "node": node.name,
        "generation": node.generation,
        "state": words::node_state(node.state()),
        "is_leader": node.is_leader,
        "is_self": node.is_self,
        "door": node.door,
        "link": node.link,
        "build": node.build,
        "labels": node.labels.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "cpu_milli": capacity.cpu_milli,
        "memory_bytes": capacity.memory_bytes,
        "load": node.load.map(|load| json!({
            "agents": load.agents,
            "live": load.live,
            "at_work": load.at_work,
            "compute_waiting": load.compute_waiting,
            "model_calls": load.model_calls,
            "resident_bytes": load.resident_bytes,
            "lag_ms": load.lag_ms,
        })),
    })
}

/// In which format is written what is stored, and what each node reads.
pub fn formats(told: &v1::ClusterServiceListFormatsResponse) -> Value {
    let node = |node: &v1::NodeFormats| json!({ "node": node.node, "oldest": node.oldest, "newest": node.newest });
    json!({
        "written": told.written,
        "announced": told.announced,
        "newest": told.newest,
        "nodes": told.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

/// A question to a person.
pub fn approval(approval: &v1::Approval) -> Value {
    json!({
        "approval_id": approval.approval_id,
        "workload_id": approval.workload_id,
        "agent": approval.agent_name,
        "question": approval.question,
        "data": value(&approval.data_json),
        "asked_at": time(approval.asked_at.as_ref()),
        "due": time(approval.due.as_ref()),
    })
}

/// A hit of a history search.
pub fn hit(hit: &v1::HistoryHit) -> Value {
    json!({
        "workload_id": hit.workload_id,
        "agent_id": hit.agent_id,
        "agent": hit.agent_name,
        "kind": hit.kind,
        "at": time(hit.at.as_ref()),
        "snippet": hit.snippet,
    })
}

/// A frame of a watch. Every one has `frame`, and `cursor` where a watch can go on.
pub fn frame(frame: &v1::watch_frame::Frame) -> Value {
    use v1::watch_frame::Frame;
    match frame {
        Frame::Snapshot(snapshot) => json!({
            "frame": "snapshot",
            "workload": snapshot.workload.as_ref().map(workload),
            "agents": snapshot.agents.iter().map(agent).collect::<Vec<_>>(),
            "cursor": hex(&snapshot.cursor),
        }),
        Frame::Event(event) => self::event(event),
        Frame::Chunk(chunk) => json!({
            "frame": "chunk",
            "agent_id": chunk.agent_id,
            "agent": chunk.agent_name,
            "kind": match chunk.kind() {
                v1::ChunkKind::Unspecified | v1::ChunkKind::Text => "text",
                v1::ChunkKind::Log => "log",
            },
            "effect_seq": chunk.effect_seq,
            "attempt": chunk.attempt,
            "offset": chunk.offset,
            "text": chunk.text,
        }),
        Frame::Bookmark(bookmark) => json!({ "frame": "bookmark", "cursor": hex(&bookmark.cursor) }),
        Frame::Lagged(lagged) => json!({ "frame": "lagged", "chunks": lagged.chunks }),
    }
}

/// A fact.
fn event(event: &v1::WatchEvent) -> Value {
    let mut object = json!({
        "frame": "event",
        "cursor": hex(&event.cursor),
        "at": time(event.at.as_ref()),
        "workload_id": event.workload_id,
    });
    if !event.agent_id.is_empty() {
        object["agent_id"] = json!(event.agent_id);
        object["agent"] = json!(event.agent_name);
        object["version"] = json!(event.version);
        object["state"] = json!(words::agent_state(event.agent_state(), event.waiting_for()));
    }
    if let Some(what) = &event.event {
        let (name, details) = details(what);
        object["event"] = json!(name);
        if let (Value::Object(object), Value::Object(details)) = (&mut object, details) {
            object.extend(details);
        }
    }
    object
}

fn details(event: &v1::watch_event::Event) -> (&'static str, Value) {
    use v1::watch_event::Event;
    match event {
        Event::WorkloadSubmitted(e) => {
            ("workload_submitted", json!({ "name": e.name, "root_agent_id": e.root_agent_id }))
        }
        Event::WorkloadCancelRequested(e) => ("workload_cancel_requested", json!({ "reason": e.reason })),
        Event::WorkloadEnded(e) => (
            "workload_ended",
            json!({
                "workload_state": words::workload_state(e.state()),
                "outcome": outcome(e.outcome.as_ref()),
                "spend": spend(e.spend.as_ref()),
            }),
        ),
        Event::AgentSpawned(e) => ("agent_spawned", json!({ "parent_agent_id": e.parent_agent_id })),
        Event::AgentStarted(e) => ("agent_started", json!({ "node": e.node })),
        Event::AgentTakenOver(e) => ("agent_taken_over", json!({ "node": e.node })),
        Event::AgentEnded(e) => {
            ("agent_ended", json!({ "outcome": outcome(e.outcome.as_ref()), "spend": spend(e.spend.as_ref()) }))
        }
        Event::AgentQuarantined(e) => ("agent_quarantined", json!({ "reason": e.reason })),
        Event::EffectIntended(v1::EffectIntended { effect_seq, tool: Some(tool), .. }) => {
            let (name, source, arguments) = (&tool.name, &tool.source, &tool.arguments_preview);
            let (risk, effect) = (&tool.risk, &tool.effect);
            let tool = json!({
                "name": name, "source": source, "arguments_preview": arguments, "risk": risk, "effect": effect,
            });
            ("effect_intended", json!({ "effect_seq": effect_seq, "tool": tool }))
        }
        Event::EffectIntended(e) => ("effect_intended", json!({ "effect_seq": e.effect_seq, "model": e.model })),
        Event::EffectStarted(e) => ("effect_started", json!({ "effect_seq": e.effect_seq, "attempt": e.attempt })),
        Event::EffectEnded(e) => {
            use v1::effect_ended::Result;
            let result = match &e.result {
                Some(Result::Model(a)) => json!({ "model": a.model, "text": a.text, "finish": a.finish }),
                Some(Result::Approval(d)) => json!({ "approved": d.approved, "by": d.by, "note": d.note }),
                Some(Result::Tool(a)) => json!({ "value": serde_json::from_str(&a.value_json).unwrap_or(Value::Null) }),
                Some(Result::Failure(error)) => json!({ "failed": failure(error) }),
                Some(Result::Unknown(error)) => json!({ "unknown": failure(error) }),
                None => Value::Null,
            };
            let details = json!({ "effect_seq": e.effect_seq, "result": result, "spend": spend(e.spend.as_ref()) });
            ("effect_ended", details)
        }
        Event::ApprovalRequested(e) => (
            "approval_requested",
            json!({
                "effect_seq": e.effect_seq,
                "approval_id": e.approval_id,
                "question": e.question,
                "data": value(&e.data_json),
            }),
        ),
        Event::ChildrenSpawned(e) => {
            ("children_spawned", json!({ "effect_seq": e.effect_seq, "agent_ids": e.agent_ids }))
        }
        Event::ChildEnded(e) => {
            ("child_ended", json!({ "effect_seq": e.effect_seq, "branch": e.branch, "succeeded": e.succeeded }))
        }
        Event::ChildrenCancelled(e) => ("children_cancelled", json!({ "agent_ids": e.agent_ids })),
        Event::TimerSet(e) => ("timer_set", json!({ "effect_seq": e.effect_seq, "due": time(e.due.as_ref()) })),
        Event::TimerFired(e) => ("timer_fired", json!({ "effect_seq": e.effect_seq })),
        Event::MemoryStored(e) => (
            "memory_stored",
            json!({ "effect_seq": e.effect_seq, "scope": e.scope, "key": e.key, "forgotten": e.forgotten }),
        ),
        Event::ValueEmitted(e) => ("value_emitted", json!({ "channel": e.channel, "value": value(&e.value_json) })),
        Event::MessageReceived(e) => ("message_received", json!({ "from": e.from, "value": value(&e.value_json) })),
        Event::CancelReceived(e) => ("cancel_received", json!({ "reason": e.reason })),
        Event::DeadlinePassed(_) => ("deadline_passed", json!({})),
        Event::WaitBegan(e) => ("wait_began", json!({ "effect_seq": e.effect_seq, "due": time(e.due.as_ref()) })),
        Event::MessageSent(e) => {
            ("message_sent", json!({ "effect_seq": e.effect_seq, "to_agent_id": e.to_agent_id, "number": e.number }))
        }
        Event::ScopeExpired(e) => ("scope_expired", json!({ "effect_seq": e.effect_seq })),
        Event::Interrupted(e) => ("interrupted", json!({ "effect_seq": e.effect_seq, "code": e.code })),
        Event::BranchesDetached(e) => ("branches_detached", json!({ "effect_seq": e.effect_seq, "names": e.names })),
        Event::BranchesAdopted(e) => {
            ("branches_adopted", json!({ "from_agent_id": e.from_agent_id, "names": e.names }))
        }
        Event::ProgramConcluded(e) => ("program_concluded", json!({ "succeeded": e.succeeded })),
        Event::DetachedFailed(e) => (
            "detached_failed",
            json!({ "name": e.name, "agent_id": e.agent_id, "failure": e.failure.as_ref().map(failure) }),
        ),
        Event::MailTaken(e) => ("mail_taken", json!({ "effect_seq": e.effect_seq, "count": e.count })),
        Event::CreditReceived(e) => {
            ("credit_received", json!({ "effect_seq": e.effect_seq, "branch": e.branch, "taken": e.taken }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_command_line() {
        assert_eq!(unhex(&hex(&[0, 7, 255])), Some(vec![0, 7, 255]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex("é"), None);
    }
}

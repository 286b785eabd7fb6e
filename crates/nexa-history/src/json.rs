//! A history as lines of JSON: `kind` says what each is.

use serde_json::{Value, json};

use crate::{Call, End, Fault, Logged, Sink, Standing, Told, What};

/// A whole history, in no order: each line has its time or its position.
pub fn lines<'a>(
    calls: &'a [Call],
    faults: &'a [Fault],
    sink: &'a Sink,
    log: &'a [Logged],
) -> impl Iterator<Item = String> + 'a {
    let done = sink
        .iter()
        .map(|(key, done)| json!({ "kind": "effect", "key": key.to_string(), "what": done.what, "times": done.times }));
    let values = calls.iter().map(call).chain(faults.iter().map(fault)).chain(done).chain(log.iter().map(fact));
    values.map(|value: Value| value.to_string())
}

fn call(call: &Call) -> Value {
    let (told, standing) = match call.told {
        Told::Ok(standing) => ("ok", standing),
        Told::Fail => ("fail", None),
        Told::Unknown => ("unknown", None),
    };
    let standing = standing.map(|standing| match standing {
        Standing::Absent => "absent",
        Standing::Live => "live",
        Standing::Ended(how) => how,
    });
    json!({
        "kind": "call", "op": call.operation.name(), "workload": call.workload.to_string(),
        "t_invoke": call.invoked, "t_return": call.returned, "told": told, "standing": standing,
    })
}

fn fault(fault: &Fault) -> Value {
    json!({
        "kind": "fault", "fault": fault.kind, "victim": fault.victim, "began_ms": fault.began, "healed_ms": fault.healed,
    })
}

fn fact(fact: &Logged) -> Value {
    let (name, more) = match &fact.what {
        What::Submitted => ("submitted", Value::Null),
        What::CancelRequested => ("cancel_requested", Value::Null),
        What::WorkloadEnded(is_well) => ("workload_ended", json!(is_well)),
        What::Spawned { name, .. } => ("spawned", json!(name)),
        What::Owned(node) => ("owned", json!(node)),
        What::Intended(key, _) => ("intended", json!(key.to_string())),
        What::Started(key, attempt) => ("started", json!([key.to_string(), attempt])),
        What::EffectEnded(key, end) => ("effect_ended", json!([key.to_string(), name_of(*end)])),
        What::Children(children) => ("children", json!(children.len())),
        What::AgentEnded(is_well) => ("agent_ended", json!(is_well)),
        What::Other => ("other", Value::Null),
    };
    json!({
        "kind": "fact", "position": fact.position.0, "stream": fact.stream.to_string(), "version": fact.version.0,
        "epoch": fact.epoch.map(|epoch| epoch.0), "at_ms": fact.at.0, "fact": name, "more": more,
    })
}

fn name_of(end: End) -> &'static str {
    match end {
        End::Done => "done",
        End::Answered => "answered",
        End::Failed => "failed",
        End::Unknown => "unknown",
    }
}

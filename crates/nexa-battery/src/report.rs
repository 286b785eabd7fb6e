//! What came of the scenes: as JSON for programs, as a table for people.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::play::{Played, Verdict};

/// The most of effects that may have an unknown end, as a share of those that were sent.
pub(crate) const UNKNOWN_MAX: f64 = 0.005;

/// One word for it.
pub(crate) fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Skipped(_) => "SKIP",
        Verdict::Broken(_) => "BROKEN",
        Verdict::Played(played) if played.violations.is_empty() && unknown_share(played) <= UNKNOWN_MAX => "PASS",
        Verdict::Played(_) => "FAIL",
    }
}

/// Unknown ends, as a share of all effects that were sent.
pub(crate) fn unknown_share(played: &Played) -> f64 {
    played.effects.unknown as f64 / (played.effects.tools + played.effects.models).max(1) as f64
}

/// One scene for programs.
pub(crate) fn json(name: &str, verdict: &Verdict) -> Value {
    let mut value = json!({ "scene": name, "verdict": word(verdict) });
    match verdict {
        Verdict::Skipped(why) | Verdict::Broken(why) => value["why"] = json!(why),
        Verdict::Played(played) => {
            let more = json!({
                "violations": played.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "operations": played.operations, "refusals": played.refusals, "faults": played.faults, "faults_hit": played.hit,
                "in_flight_at_faults": played.in_flight, "acknowledged": played.acknowledged, "facts": played.facts,
                "tool_calls": played.effects.tools, "model_requests": played.effects.models,
                "model_requests_reissued": played.effects.reissued, "tool_calls_reissued": played.effects.repeated,
                "unknown": played.effects.unknown, "unknown_share": unknown_share(played),
                "placed_ms": played.placed_ms, "settled_ms": played.settled_ms,
                "lease_lost": played.lease_lost, "restarted": played.restarted, "seconds": played.seconds,
            });
            if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
                value.extend(more);
            }
        }
    }
    value
}

/// All of them for people.
pub(crate) fn table(verdicts: &[(String, Verdict)]) -> String {
    let mut text = String::from(
        "| scene | verdict | acknowledged | faults (hit) | in flight | tools, models | unknown | reissued | placing again, worst | settled |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, verdict) in verdicts {
        // A string takes everything that is written to it.
        let _ = match verdict {
            Verdict::Skipped(why) | Verdict::Broken(why) => {
                let why = why.lines().next().unwrap_or_default();
                writeln!(text, "| {name} | {}: {why} | | | | | | | | |", word(verdict))
            }
            Verdict::Played(played) => {
                let faults: usize = played.faults.values().sum();
                let placed =
                    played.placed_ms.iter().max().map_or_else(String::new, |ms| format!("{:.1} s", *ms as f64 / 1e3));
                let effects = played.effects;
                writeln!(
                    text,
                    "| {name} | {} | {} | {faults} ({}) | {} | {}, {} | {} | {} | {placed} | {:.1} s |",
                    word(verdict),
                    played.acknowledged,
                    played.hit,
                    played.in_flight,
                    effects.tools,
                    effects.models,
                    effects.unknown,
                    effects.reissued + effects.repeated,
                    played.settled_ms as f64 / 1e3,
                )
            }
        };
    }
    text
}

//! Calls tools on behalf of agents: one call, its deadline, and what its end means for the ledger.
//!
//! Slots, waiting lists and results that are not recorded yet are those of [`super::models`]: a tool has a lane as a
//! model has one.
//!
//! Bounds: a result of more than [`TOOL_RESULT_BYTES_MAX`] is no result; a message of a failure is cut at
//! [`TOOL_MESSAGE_BYTES_MAX`]. A tool that panics counts as one whose answer was lost.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use nexa_event::effect::{Answer, ToolEffect, ToolRequest};
use nexa_event::fact::EffectResult;
use nexa_ports::tool::{ToolCall, ToolError};
use nexa_types::{EffectKey, Failure, RunCode};
use nexa_vm::{codec, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::models::{CANCEL_GRACE, Sending, Shared, panic_text};
use crate::waits::until_shown;

/// The most bytes of a tool's result, as JSON.
pub(crate) const TOOL_RESULT_BYTES_MAX: usize = 1 << 20;
/// The most bytes of what a tool says about a failure.
pub(crate) const TOOL_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Calls a tool once and says how that ended.
pub(super) async fn call(
    shared: &Shared,
    key: EffectKey,
    sending: &Sending,
    request: &ToolRequest,
    cancel: &CancellationToken,
) -> EffectResult {
    let (agent, seq) = (sending.agent, sending.seq);
    let (tool, risk, effect) = (&request.tool, request.risk.as_str(), request.effect.as_str());
    info!(%agent, workload = %sending.workload, %seq, tool, source = %request.source, risk, effect, attempt = sending.attempt, "tool is called");
    let began = shared.clock.now();
    let answer = match cancel.is_cancelled() {
        true => Err(ToolError::Unavailable("the call was cancelled before it was sent".to_owned())),
        false => invoke(shared, key, sending, request, cancel).await,
    };
    let result = ending(request, answer);
    let took = shared.clock.now().since(began);
    match &result {
        EffectResult::Done(_) => info!(%agent, %seq, tool, %took, "tool has answered"),
        EffectResult::Failed(failure) => info!(%agent, %seq, tool, %took, code = %failure.code, "tool has failed"),
        EffectResult::Unknown(failure) => {
            info!(%agent, %seq, tool, %took, code = %failure.code, "tool may have worked")
        }
    }
    result
}

async fn invoke(
    shared: &Shared,
    key: EffectKey,
    sending: &Sending,
    request: &ToolRequest,
    cancel: &CancellationToken,
) -> Result<String, ToolError> {
    let timeout = sending.deadline.since(shared.clock.now());
    let call = ToolCall {
        request: request.clone(),
        key,
        attempt: sending.attempt,
        tenant: sending.tenant.clone(),
        workload: sending.workload,
        agent: sending.agent,
        deadline: Duration::from_millis(timeout.0),
        cancel: cancel.clone(),
    };
    let answer = AssertUnwindSafe(async { shared.tools.call(call).await }).catch_unwind();
    let too_late = until_shown(&*shared.clock, sending.deadline);
    let unheard = async {
        cancel.cancelled().await;
        shared.clock.wait_until(shared.clock.now().after(CANCEL_GRACE)).await;
    };
    tokio::select! {
        biased;
        answer = answer => answer.unwrap_or_else(|panic| {
            shared.counters.panics.fetch_add(1, Ordering::Relaxed);
            let text = panic_text(panic.as_ref());
            error!(agent = %sending.agent, seq = %sending.seq, tool = request.tool, text, "tool panicked");
            Err(ToolError::Lost(format!("`{}` panicked: {text}", request.tool)))
        }),
        () = too_late => {
            // Whoever carries it out need not go on.
            cancel.cancel();
            Err(ToolError::Timeout(format!("`{}` gave no result within {timeout} ms", request.tool)))
        }
        () = unheard => Err(ToolError::Cancelled),
    }
}

/// What an answer means. A failure says that nothing was changed outside; where the tool changes something and may have done so,
/// nobody can say how the call ended, also of one that may be called twice.
fn ending(request: &ToolRequest, answer: Result<String, ToolError>) -> EffectResult {
    let failed = |code, message: String| EffectResult::Failed(Failure::new(code, shortened(message)));
    let may_have_changed = request.effect == ToolEffect::Write;
    let open = |code, message: String| match may_have_changed {
        true => EffectResult::Unknown(Failure::new(RunCode::OutcomeUnknown, shortened(message))),
        false => failed(code, message),
    };
    match answer {
        Ok(text) if text.len() > TOOL_RESULT_BYTES_MAX => {
            let (tool, len) = (&request.tool, text.len());
            let most = TOOL_RESULT_BYTES_MAX;
            open(RunCode::ToolFailed, format!("`{tool}` gave {len} bytes, more than {most}: ask it for less"))
        }
        Ok(text) => match value(&text) {
            Ok(payload) => EffectResult::Done(Answer::Value(payload)),
            Err(why) => open(RunCode::ToolFailed, format!("what `{}` gave is no value: {why}", request.tool)),
        },
        Err(error) => {
            debug!(tool = request.tool, %error, "tool call failed");
            let message = error.to_string();
            match error {
                ToolError::Failed(_) => failed(RunCode::ToolFailed, message),
                ToolError::Denied(_) => failed(RunCode::Denied, message),
                ToolError::Unavailable(_) => failed(RunCode::Unavailable, message),
                ToolError::Timeout(_) => open(RunCode::Timeout, message),
                ToolError::Cancelled => open(RunCode::Cancelled, message),
                ToolError::Lost(_) => open(RunCode::Unavailable, message),
            }
        }
    }
}

fn value(text: &str) -> Result<nexa_types::Payload, String> {
    let value = json::from_json(text).map_err(|error| error.to_string())?;
    codec::try_encode(&value).map_err(|error| error.to_string())
}

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(TOOL_MESSAGE_BYTES_MAX));
    message
}

#[cfg(test)]
mod tests {
    use nexa_event::effect::{Risk, ToolLimits, ToolSource};
    use nexa_types::Millis;

    use super::*;

    fn request(effect: ToolEffect, idempotent: bool) -> ToolRequest {
        ToolRequest {
            tool: "find".to_owned(),
            source: ToolSource::Builtin { name: "x".to_owned() },
            args: "{}".to_owned(),
            risk: Risk::Low,
            effect,
            idempotent,
            key: None,
            limits: ToolLimits::default(),
            timeout: Millis(10),
        }
    }

    fn told(request: &ToolRequest, answer: Result<&str, ToolError>) -> String {
        match ending(request, answer.map(str::to_owned)) {
            EffectResult::Done(Answer::Value(payload)) => {
                json::to_json(&codec::decode(&payload).expect("encoded here"))
            }
            EffectResult::Failed(failure) => format!("failed {}", failure.code),
            EffectResult::Unknown(failure) => format!("unknown {}", failure.code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_result_is_a_value_within_its_bound() {
        let read = request(ToolEffect::Read, false);
        assert_eq!(told(&read, Ok(r#"{"a":[1,2.5,null]}"#)), r#"{"a":[1,2.5,null]}"#);
        assert_eq!(told(&read, Ok("no JSON")), "failed tool_failed");
        let long = format!("\"{}\"", "x".repeat(TOOL_RESULT_BYTES_MAX));
        assert_eq!(told(&read, Ok(&long)), "failed tool_failed");
        assert_eq!(shortened("é".repeat(TOOL_MESSAGE_BYTES_MAX)).len(), TOOL_MESSAGE_BYTES_MAX);
    }

    #[test]
    fn a_call_that_changes_something_and_may_have_done_it_has_an_unknown_end_and_no_failure() {
        let lost = || Err(ToolError::Lost("reset".to_owned()));
        let late = || Err(ToolError::Timeout("late".to_owned()));
        assert_eq!(told(&request(ToolEffect::Write, false), lost()), "unknown outcome_unknown");
        assert_eq!(told(&request(ToolEffect::Write, false), late()), "unknown outcome_unknown");
        assert_eq!(told(&request(ToolEffect::Write, false), Err(ToolError::Cancelled)), "unknown outcome_unknown");
        // Twice may be as good as once; that is no word that it was not done.
        assert_eq!(told(&request(ToolEffect::Write, true), lost()), "unknown outcome_unknown");
        assert_eq!(told(&request(ToolEffect::Write, true), late()), "unknown outcome_unknown");
        assert_eq!(told(&request(ToolEffect::Write, true), Err(ToolError::Cancelled)), "unknown outcome_unknown");
        // It has answered, and so has done it, whatever its answer is.
        assert_eq!(told(&request(ToolEffect::Write, true), Ok("no JSON")), "unknown outcome_unknown");
        let long = format!("\"{}\"", "x".repeat(TOOL_RESULT_BYTES_MAX));
        assert_eq!(told(&request(ToolEffect::Write, false), Ok(&long)), "unknown outcome_unknown");
        assert_eq!(told(&request(ToolEffect::Read, false), late()), "failed timeout");
        assert_eq!(told(&request(ToolEffect::None, false), lost()), "failed unavailable");
        let unreached = Err(ToolError::Unavailable("no route".to_owned()));
        assert_eq!(told(&request(ToolEffect::Write, false), unreached), "failed unavailable");
        let denied = Err(ToolError::Denied("beyond".to_owned()));
        assert_eq!(told(&request(ToolEffect::Write, false), denied), "failed denied");
    }
}

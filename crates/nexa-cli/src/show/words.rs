//! Words and numbers for people.

use nexa_proto::v1;
use prost_types::Timestamp;

/// An agent's state, with what it waits for.
pub fn agent_state(state: v1::AgentState, waiting_for: v1::WaitingFor) -> String {
    let word = match state {
        v1::AgentState::Unspecified => "unknown",
        v1::AgentState::Pending => "pending",
        v1::AgentState::Ready => "ready",
        v1::AgentState::Placed => "placed",
        v1::AgentState::Running => "running",
        v1::AgentState::Waiting => "waiting",
        v1::AgentState::Succeeded => "succeeded",
        v1::AgentState::Failed => "failed",
        v1::AgentState::Cancelled => "cancelled",
        v1::AgentState::Quarantined => "quarantined",
    };
    let reason = match waiting_for {
        v1::WaitingFor::Unspecified => return word.to_owned(),
        v1::WaitingFor::Model => "model",
        v1::WaitingFor::Approval => "approval",
        v1::WaitingFor::Timer => "timer",
        v1::WaitingFor::Children => "children",
        v1::WaitingFor::Message => "message",
        v1::WaitingFor::Tool => "tool",
    };
    format!("{word}({reason})")
}

/// How an agent stands: its state, or what it waits for while it has no node.
pub fn agent_stands(agent: &v1::Agent) -> String {
    match (agent.waits_for_node.as_str(), agent.waits_for_gang.as_str()) {
        ("", "") => agent_state(agent.state(), agent.waiting_for()),
        (asks, "") => format!("waits for a node with {asks}"),
        ("", gang) => format!("waits for room for all of {gang}"),
        (asks, gang) => format!("waits for a node with {asks}, and room for all of {gang}"),
    }
}

/// A workload's state.
pub fn workload_state(state: v1::WorkloadState) -> &'static str {
    match state {
        v1::WorkloadState::Unspecified => "unknown",
        v1::WorkloadState::Submitted => "submitted",
        v1::WorkloadState::Running => "running",
        v1::WorkloadState::Succeeded => "succeeded",
        v1::WorkloadState::Failed => "failed",
        v1::WorkloadState::Cancelled => "cancelled",
    }
}

/// How a node stands.
pub fn node_state(state: v1::NodeState) -> &'static str {
    match state {
        v1::NodeState::Unspecified => "unknown",
        v1::NodeState::Ready => "ready",
        v1::NodeState::Cordoned => "cordoned",
        v1::NodeState::Draining => "draining",
        v1::NodeState::Drained => "drained",
        v1::NodeState::Suspected => "suspected",
        v1::NodeState::Resting => "resting",
    }
}

/// Milliseconds since 1970.
pub fn millis(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000)
}

/// A span: `0.4 s`, `12.3 s`, `4 min 05 s`, `2 h 10 min`.
pub fn span(millis: i64) -> String {
    let millis = millis.max(0);
    match millis / 1_000 {
        0..60 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        seconds @ 60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// Money in millionths of a dollar: `$12`, `$0.0375`.
pub fn dollars(micro: u64) -> String {
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    format!("${}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// From start to end, or `-` if either is missing.
pub fn span_between(start: Option<&Timestamp>, end: Option<&Timestamp>) -> String {
    match (start, end) {
        (Some(start), Some(end)) => span(millis(end) - millis(start)),
        _ => "-".to_owned(),
    }
}

/// A time of day in UTC, to the millisecond.
pub fn time_of_day(time: &Timestamp) -> String {
    let millis = millis(time);
    let seconds = millis.div_euclid(1_000);
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds.rem_euclid(86_400) / 3_600,
        seconds.rem_euclid(3_600) / 60,
        seconds.rem_euclid(60),
        millis.rem_euclid(1_000)
    )
}

/// Tokens read and written, or `-` if there were none.
pub fn tokens(spend: Option<&v1::Spend>) -> String {
    match spend.map(|spend| (spend.tokens_in, spend.tokens_out)) {
        None | Some((0, 0)) => "-".to_owned(),
        Some((read, written)) => format!("{read} + {written}"),
    }
}

/// A failure on one line.
pub fn failure(failure: &v1::Failure) -> String {
    let mut text = format!("{}: {}", failure.code, failure.message);
    if !failure.at.is_empty() {
        text += &format!(" (at {})", failure.at);
    }
    if let Some(cause) = &failure.cause {
        text += &format!("; because of {}", self::failure(cause));
    }
    text
}

/// What happened, on one line; `None` for facts that only explain others.
pub fn event(event: &v1::watch_event::Event) -> String {
    use v1::watch_event::Event;
    match event {
        Event::WorkloadSubmitted(submitted) => format!("submitted `{}`", submitted.name),
        Event::WorkloadCancelRequested(cancel) => format!("cancel requested: {}", cancel.reason),
        Event::WorkloadEnded(ended) => format!("workload {}", workload_state(ended.state())),
        Event::AgentSpawned(_) => "spawned".to_owned(),
        Event::AgentStarted(started) => format!("started on {}", started.node),
        Event::AgentTakenOver(taken) => format!("taken over by {}", taken.node),
        Event::AgentEnded(ended) => match ended.outcome.as_ref().and_then(|outcome| outcome.result.as_ref()) {
            Some(v1::outcome::Result::Failure(failure)) => format!("ended: {}", self::failure(failure)),
            Some(v1::outcome::Result::ValueJson(value)) => format!("ended: {}", shortened(value)),
            None => "ended".to_owned(),
        },
        Event::AgentQuarantined(quarantined) => format!("quarantined: {}", quarantined.reason),
        Event::EffectIntended(v1::EffectIntended { effect_seq, tool: Some(tool), .. }) => {
            format!("#{effect_seq} wants {} {}", tool.name, tool.arguments_preview)
        }
        Event::EffectIntended(intended) if intended.model.is_empty() => {
            format!("#{} wants an answer", intended.effect_seq)
        }
        Event::EffectIntended(intended) => format!("#{} wants {}", intended.effect_seq, intended.model),
        Event::EffectStarted(started) if started.attempt > 1 => {
            format!("#{} sent again, attempt {}", started.effect_seq, started.attempt)
        }
        Event::EffectStarted(started) => format!("#{} sent", started.effect_seq),
        Event::EffectEnded(ended) => format!("#{} {}", ended.effect_seq, effect_result(ended)),
        Event::ApprovalRequested(asked) => format!("#{} asks people: {}", asked.effect_seq, asked.question),
        Event::ChildrenSpawned(spawned) => {
            format!("#{} started {} agents", spawned.effect_seq, spawned.agent_ids.len())
        }
        Event::ChildEnded(ended) => {
            let how = if ended.succeeded { "succeeded" } else { "failed" };
            format!("#{} branch {} {how}", ended.effect_seq, ended.branch)
        }
        Event::ChildrenCancelled(cancelled) => format!("cancelled {} agents", cancelled.agent_ids.len()),
        Event::TimerSet(timer) => match &timer.due {
            Some(due) => format!("#{} sleeps until {}", timer.effect_seq, time_of_day(due)),
            None => format!("#{} sleeps", timer.effect_seq),
        },
        Event::TimerFired(timer) => format!("#{} woke up", timer.effect_seq),
        Event::MemoryStored(memory) => {
            let verb = if memory.forgotten { "forgot" } else { "remembered" };
            format!("{verb} {:?} ({} memory)", memory.key, memory.scope)
        }
        Event::ValueEmitted(emitted) => format!("emitted to {}: {}", emitted.channel, shortened(&emitted.value_json)),
        Event::MessageReceived(message) => format!("message from {}: {}", message.from, shortened(&message.value_json)),
        Event::CancelReceived(cancel) => format!("cancelled: {}", cancel.reason),
        Event::DeadlinePassed(_) => "its deadline passed".to_owned(),
        Event::WaitBegan(wait) => match &wait.due {
            Some(due) => format!("#{} waits until {}", wait.effect_seq, time_of_day(due)),
            None => format!("#{} waits", wait.effect_seq),
        },
        Event::MessageSent(sent) => {
            format!("#{} passed message {} to {}", sent.effect_seq, sent.number, sent.to_agent_id)
        }
        Event::ScopeExpired(scope) => format!("#{} took too long", scope.effect_seq),
        Event::Interrupted(at) if at.code.is_empty() => format!("#{} is left out, as it ends", at.effect_seq),
        Event::Interrupted(at) => format!("it ends at #{}: {}", at.effect_seq, at.code),
        Event::BranchesDetached(detached) => {
            format!("#{} leaves {} to the workload", detached.effect_seq, detached.names.join(", "))
        }
        Event::BranchesAdopted(adopted) => {
            format!("takes over {} from {}", adopted.names.join(", "), adopted.from_agent_id)
        }
        Event::ProgramConcluded(_) => "its program has ended, and detached branches run".to_owned(),
        Event::DetachedFailed(failed) => {
            let why = failed.failure.as_ref().map(self::failure).unwrap_or_default();
            format!("the detached branch {} failed: {why}", failed.name)
        }
        Event::MailTaken(taken) => format!("#{} read {} messages", taken.effect_seq, taken.count),
        Event::CreditReceived(credit) => {
            format!("branch {} of #{} has read {} messages", credit.branch, credit.effect_seq, credit.taken)
        }
    }
}

fn effect_result(ended: &v1::EffectEnded) -> String {
    use v1::effect_ended::Result;
    match &ended.result {
        Some(Result::Model(answer)) => {
            format!("{} answered ({}): {}", answer.model, tokens(ended.spend.as_ref()), shortened(&answer.text))
        }
        Some(Result::Approval(decision)) => {
            let word = if decision.approved { "approved" } else { "denied" };
            let note = if decision.note.is_empty() { String::new() } else { format!(": {}", decision.note) };
            format!("{word} by {}{note}", decision.by)
        }
        Some(Result::Tool(answer)) => format!("gave {}", shortened(&answer.value_json)),
        Some(Result::Failure(failure)) => format!("failed: {}", self::failure(failure)),
        Some(Result::Unknown(failure)) => format!("has an unknown outcome: {}", self::failure(failure)),
        None => "ended".to_owned(),
    }
}

/// The most characters of a value on one line.
const LINE_CHARS_MAX: usize = 100;

/// A text on one line, cut where it would be too long.
pub fn shortened(text: &str) -> String {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = words.char_indices().nth(LINE_CHARS_MAX) {
        words.truncate(cut);
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_no_more_digits_than_it_needs() {
        assert_eq!([0, 37_500, 12_000_000, 100_000_001].map(dollars), ["$0", "$0.0375", "$12", "$100.000001"]);
    }

    #[test]
    fn a_span_reads_like_a_person_would_say_it() {
        let spans: Vec<String> = [0, 999, 1_000, 59_949, 60_000, 245_000, 7_800_000, -5].map(span).to_vec();
        assert_eq!(spans, ["0.0 s", "0.9 s", "1.0 s", "59.9 s", "1 min 00 s", "4 min 05 s", "2 h 10 min", "0.0 s"]);
    }

    #[test]
    fn a_long_answer_stays_on_one_line() {
        let text = "é \n".repeat(500);
        let line = shortened(&text);
        assert_eq!(line.chars().count(), LINE_CHARS_MAX + 1);
        assert!(!line.contains('\n'));
    }
}

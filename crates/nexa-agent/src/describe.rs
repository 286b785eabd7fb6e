//! An event in one line, for people: errors, transcripts, traces.

use nexa_event::effect::Wanted;
use nexa_event::fact::{AgentEvent, EffectResult, Intent, WaitOn};
use nexa_types::{Outcome, Spend};

/// One line that names what happened and tells it from its neighbours. Not a format: nothing may parse it.
pub fn describe(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Spawned(spawned) => format!("spawned {}", spawned.name),
        AgentEvent::Started { node, epoch } => format!("started on {node} epoch {epoch}"),
        AgentEvent::EffectIntended { seq, intent, .. } => match intent {
            Intent::Model { reserved, .. } => {
                format!("effect_intended #{seq} model, reserves {} tokens", reserved.tokens())
            }
            Intent::Recall(request) => match &request.what {
                Wanted::Key(key) => {
                    format!("effect_intended #{seq} {} memory at {:?}", request.scope.as_str(), short(key))
                }
                Wanted::Best { query, count } => {
                    let scope = request.scope.as_str();
                    format!("effect_intended #{seq} {scope} memory, best {count} for {:?}", short(query))
                }
            },
            Intent::Tool { tool, preview, .. } => {
                format!("effect_intended #{seq} tool {tool} {}", short(preview))
            }
            Intent::Approval(request) => format!("effect_intended #{seq} approval {:?}", short(&request.question)),
        },
        AgentEvent::EffectStarted { seq, attempt, epoch } => {
            format!("effect_started #{seq} attempt {attempt} epoch {epoch}")
        }
        AgentEvent::EffectEnded { seq, result, spend } => match result {
            EffectResult::Done(_) => format!("effect_ended #{seq} done{}", used(spend)),
            EffectResult::Failed(failure) => format!("effect_ended #{seq} failed {}{}", failure.code, used(spend)),
            EffectResult::Unknown(failure) => format!("effect_ended #{seq} unknown {}{}", failure.code, used(spend)),
        },
        AgentEvent::EffectLost { seq } => format!("effect_lost #{seq}"),
        AgentEvent::ChildrenSpawned { seq, children, .. } => {
            let names: Vec<&str> = children.iter().map(|child| child.spec.name.as_str()).collect();
            format!("children_spawned #{seq} {}", short(&names.join(", ")))
        }
        AgentEvent::ChildEnded { seq, branch, outcome, spend, .. } => {
            format!("child_ended #{seq}.{branch} {}{}", ending(outcome), used(spend))
        }
        AgentEvent::TimerSet { seq, due } => format!("timer_set #{seq} due {}", due.0),
        AgentEvent::TimerFired { seq } => format!("timer_fired #{seq}"),
        AgentEvent::Emitted { seq, channel, .. } => format!("emitted #{seq} {channel}"),
        AgentEvent::MessageReceived { from, number: None, .. } => format!("message_received from {from}"),
        AgentEvent::MessageReceived { number: Some(number), .. } => {
            format!("message_received {number} from its parent")
        }
        AgentEvent::MemoryStored { seq, entry } => {
            let verb = if entry.value.is_some() { "memory_stored" } else { "memory_forgotten" };
            format!("{verb} #{seq} {} {:?}", entry.scope.as_str(), short(&entry.key))
        }
        AgentEvent::CancelReceived { reason } => format!("cancel_received {:?}", short(reason)),
        AgentEvent::DeadlinePassed => "deadline_passed".to_owned(),
        AgentEvent::ChildrenCancelled { children } => format!("children_cancelled {}", children.len()),
        AgentEvent::Ended { outcome, spend } => format!("ended {}{}", ending(outcome), used(spend)),
        AgentEvent::Quarantined { reason } => format!("quarantined {:?}", short(reason)),
        AgentEvent::WaitBegan { seq, on, due } => {
            let on = match on {
                WaitOn::Child(child) => format!("for the child of #{child}"),
                WaitOn::Timer => "for a timer".to_owned(),
                WaitOn::Message => "for a message".to_owned(),
                WaitOn::Room(child) => format!("for room at the child of #{child}"),
                WaitOn::Budget => "for what ending children leave of the budget".to_owned(),
            };
            let due = due.map_or_else(String::new, |due| format!(", due {}", due.0));
            format!("wait_began #{seq} {on}{due}")
        }
        AgentEvent::ScopeExpired { seq } => format!("scope_expired #{seq}"),
        AgentEvent::Interrupted { seq, code: None } => format!("interrupted #{seq}"),
        AgentEvent::Interrupted { seq, code: Some(code) } => format!("interrupted #{seq} {code}"),
        AgentEvent::MessageSent { seq, number, .. } => format!("message_sent #{seq} message {number}"),
        AgentEvent::MailTaken { seq, count } => format!("mail_taken #{seq} {count}"),
        AgentEvent::CreditReceived { seq, branch, taken } => format!("credit_received #{seq}.{branch} {taken} taken"),
        AgentEvent::Detached { seq, branches } => format!("detached #{seq} {}", short(&branches.join(", "))),
        AgentEvent::Adopted { branches, .. } => {
            let names: Vec<&str> = branches.iter().map(|branch| branch.name.as_str()).collect();
            format!("adopted {}", short(&names.join(", ")))
        }
        AgentEvent::Concluded { outcome } => format!("concluded {}", ending(outcome)),
        AgentEvent::DetachedFailed { name, failure, .. } => format!("detached_failed {} {}", short(name), failure.code),
        AgentEvent::TakenOver { node, epoch, carried: None } => format!("taken_over by {node} epoch {epoch}"),
        AgentEvent::TakenOver { node, epoch, carried: Some(carrier) } => {
            format!("taken_over by {node} epoch {epoch}, {carrier} carries what is in flight")
        }
    }
}

fn ending(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(_) => "ok".to_owned(),
        Outcome::Err(failure) => failure.code.to_string(),
    }
}

fn used(spend: &Spend) -> String {
    if *spend == Spend::default() {
        String::new()
    } else {
        format!(", used {} tokens in {} calls", spend.tokens(), spend.calls)
    }
}

/// At most 60 characters.
fn short(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(59).chain(['…']).collect() }
}

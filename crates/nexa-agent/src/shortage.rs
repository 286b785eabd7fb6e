//! Whose budget it is that a request did not fit.
//!
//! A budget belongs to the agent that was given it by its own declaration. When a request below it does not fit, it is
//! that agent that ends, and only who called it can catch that: what it called itself had no say in how much there was.
//! So a child that ends because its parent's rest was too small ends its parent too, up to the one whose own cap it is.
//!
//! A failure says whose request it was and what was short, so a parent tells its own shortage from one that was caught or
//! passed on as an ordinary error further below. Branches that run side by side have a share each, fixed at birth, which
//! counts as their own: one that uses it up fails alone, and what it leaves of its siblings is theirs.

use std::sync::Arc;

use nexa_types::{AgentId, Budget, Failure, RunCode};
use nexa_vm::codec;
use nexa_vm::value::{Record, Shape, Value};

use crate::meter::Shortage;

/// What is counted, by the words that people read.
pub(crate) const TOKENS: &str = "tokens";
pub(crate) const CALLS: &str = "model requests";
pub(crate) const STEPS: &str = "planner steps";
pub(crate) const COST: &str = "millionths of a dollar";
pub(crate) const TIME: &str = "time";

/// The failure of an agent whose next request does not fit.
pub(crate) fn budget_exceeded(agent: AgentId, shortage: &Shortage) -> Failure {
    let Shortage { what, needed, left } = shortage;
    marked(agent, what, format!("the next model request may take {needed} {what} and the budget has {left} left"))
}

/// The failure of an agent whose budget of time is used up.
pub(crate) fn time_exceeded(agent: AgentId) -> Failure {
    marked(agent, TIME, "the time of the budget is used up".to_owned())
}

fn marked(agent: AgentId, what: &str, message: String) -> Failure {
    let shape = Shape { fields: ["agent", "what"].map(str::to_owned).to_vec(), ..Shape::default() };
    let values = vec![Value::Str(agent.to_string().into()), Value::Str(what.into())];
    let data = codec::encode(&Value::Record(Arc::new(Record { shape: Arc::new(shape), values })));
    Failure { data: Some(data), ..Failure::new(RunCode::BudgetExceeded, message) }
}

/// The failure that the parent of a lone child ends with, if the child ended because its parent's rest was too small:
/// `own` are the caps that the child brought, `granted` what it got.
pub(crate) fn of_parent(
    parent: AgentId,
    child: AgentId,
    own: &Budget,
    granted: &Budget,
    failure: &Failure,
) -> Option<Failure> {
    let what = short_of(child, failure)?;
    let is_own = match what.as_str() {
        TOKENS => own.tokens.is_some() && own.tokens == granted.tokens,
        CALLS => own.calls.is_some() && own.calls == granted.calls,
        STEPS => own.steps.is_some() && own.steps == granted.steps,
        COST => own.cost.is_some() && own.cost == granted.cost,
        TIME => own.time.is_some() && own.time == granted.time,
        _ => return None,
    };
    (!is_own).then(|| marked(parent, &what, failure.message.clone()))
}

/// What an agent was short of, if it ended because of that and not because of somebody else's failure.
fn short_of(agent: AgentId, failure: &Failure) -> Option<String> {
    if failure.code != RunCode::BudgetExceeded {
        return None;
    }
    let Ok(Value::Record(record)) = codec::decode(failure.data.as_ref()?) else { return None };
    let [Value::Str(whose), Value::Str(what)] = record.values.as_slice() else { return None };
    (**whose == agent.to_string()).then(|| what.to_string())
}

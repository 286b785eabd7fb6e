//! What answers in the place of models, tools and people.
//!
//! A rule has one turn for every request, or one for each and then none. Whoever has no rule gets `unscripted_call`,
//! whoever has used all turns `script_exhausted`: a failure that the program sees, so a test sees it too.

use std::collections::BTreeMap;

use nexa_event::effect::{Answer, Decision, Finish, ModelReply, ModelRequest, ToolCall};
use nexa_event::fact::EffectResult;
use nexa_types::{Failure, Millis, RunCode, Spend, Tokens};
use nexa_vm::codec;
use nexa_vm::json::{from_json, text_of, to_json};
use nexa_vm::value::Value;

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `agent`, `tool`, `semantic`, `intent`, `judge`, `reflect`, `approve`.
    pub kind: String,
    /// The name of the agent or tool, the question, or nothing.
    pub name: String,
}

impl Target {
    /// A target of a kind, by its name.
    pub fn new(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned() }
    }

    /// As the program writes it after `script`.
    fn written(&self) -> String {
        match (self.kind.as_str(), self.name.as_str()) {
            ("agent" | "tool", name) => name.to_owned(),
            (kind, "") => kind.to_owned(),
            (kind, question) => format!("{kind} {question:?}"),
        }
    }
}

/// What is said once.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// A value: to a program that reads text, its JSON.
    Say(Value),
    /// It fails.
    Fail(RunCode),
    /// Tools are asked for, with their arguments.
    Call(Vec<(String, Value)>),
    /// A person decides.
    Decide(Decision),
    /// The turn, but later.
    After(Millis, Box<Turn>),
}

/// What is said to all requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Turns {
    /// The same every time.
    Every(Turn),
    /// One a request.
    Each(Vec<Turn>),
}

/// All rules, and how far each is used.
#[derive(Debug, Clone, Default)]
pub struct Script {
    rules: BTreeMap<Target, (Turns, usize)>,
}

impl Script {
    /// Sets a rule; an earlier one for the same target is forgotten.
    pub fn set(&mut self, target: Target, turns: Turns) {
        self.rules.insert(target, (turns, 0));
    }

    /// Sets the rule of a test: kind, name, and turns as the compiler writes them. The error says what is wrong.
    pub(crate) fn set_from(&mut self, args: &[Value]) -> Result<(), Failure> {
        let [Value::Str(kind), Value::Str(name), turns] = args else { return Err(no_turn(&Value::Unit)) };
        self.set(Target::new(kind, name), turns_of(turns)?);
        Ok(())
    }

    /// The next turn for a target and how long it takes, or why there is none.
    pub fn next(&mut self, target: &Target) -> Result<(Millis, Turn), Failure> {
        let written = target.written();
        let Some((turns, used)) = self.rules.get_mut(target) else {
            let message =
                format!("`{written}` is asked, and nothing is scripted for it: write `script {written} => …`");
            return Err(Failure::new(RunCode::UnscriptedCall, message));
        };
        let turn = match turns {
            Turns::Every(turn) => turn.clone(),
            Turns::Each(turns) => match turns.get(*used) {
                Some(turn) => turn.clone(),
                None => {
                    let count = turns.len();
                    let message = format!("`script {written}` has {count} turns, and this is request {}", count + 1);
                    return Err(Failure::new(RunCode::ScriptExhausted, message));
                }
            },
        };
        *used += 1;
        let (mut delay, mut turn) = (Millis(0), turn);
        while let Turn::After(more, inner) = turn {
            delay = Millis(delay.0.saturating_add(more.0));
            turn = *inner;
        }
        Ok((delay, turn))
    }
}

/// A model's answer by a turn.
pub(crate) fn model_result(turn: Result<Turn, Failure>, request: &ModelRequest, seq: u64) -> (EffectResult, Spend) {
    let tokens_in = request.messages.iter().map(|message| message.text.len().div_ceil(4) as u64).sum();
    let spend = |text: &str| {
        let tokens_out = (text.len().div_ceil(4) as u64).min(request.sampling.max_tokens.0);
        Spend { tokens_in: Tokens(tokens_in), tokens_out: Tokens(tokens_out), calls: 1, ..Spend::default() }
    };
    let (text, tool_calls) = match turn {
        Err(failure) => return (EffectResult::Failed(failure), Spend { calls: 1, ..Spend::default() }),
        Ok(Turn::Fail(code)) => {
            let failure = Failure::new(code, "the script says so");
            return (EffectResult::Failed(failure), Spend { calls: 1, ..Spend::default() });
        }
        Ok(Turn::Call(calls)) => {
            let calls = calls.into_iter().enumerate().map(|(place, (name, arguments))| ToolCall {
                id: format!("call_{seq}_{place}"),
                name,
                arguments: to_json(&arguments),
            });
            (String::new(), calls.collect::<Vec<_>>())
        }
        Ok(Turn::Say(value)) => (text_of(&value).unwrap_or_default(), Vec::new()),
        Ok(turn @ (Turn::Decide(_) | Turn::After(..))) => {
            return (EffectResult::Failed(misplaced(&turn, "a model")), Spend::default());
        }
    };
    let model = if request.model.is_empty() { "script/script".to_owned() } else { request.model.clone() };
    let finish = if tool_calls.is_empty() { Finish::Stop } else { Finish::ToolCalls };
    let spend = spend(&text);
    let reply = ModelReply { text, finish, model, spend, tokens_left_out: Tokens(0), tool_calls };
    (EffectResult::Done(Answer::Model(reply)), spend)
}

/// What a tool gives by a turn: a value as JSON has it, so that the program must read it as its type.
pub(crate) fn tool_result(turn: Result<Turn, Failure>) -> EffectResult {
    match turn {
        Ok(Turn::Say(value)) => {
            let plain = from_json(&to_json(&value)).map_err(|error| error.to_string());
            match plain.and_then(|value| codec::try_encode(&value).map_err(|error| error.to_string())) {
                Ok(payload) => EffectResult::Done(Answer::Value(payload)),
                Err(why) => EffectResult::Failed(Failure::new(RunCode::UnscriptedCall, why)),
            }
        }
        Ok(Turn::Fail(RunCode::OutcomeUnknown)) => {
            EffectResult::Unknown(Failure::new(RunCode::OutcomeUnknown, "the script says so"))
        }
        Ok(Turn::Fail(code)) => EffectResult::Failed(Failure::new(code, "the script says so")),
        Ok(other) => EffectResult::Failed(misplaced(&other, "a tool")),
        Err(failure) => EffectResult::Failed(failure),
    }
}

/// A person's answer by a turn.
pub(crate) fn decision_result(turn: Result<Turn, Failure>) -> EffectResult {
    match turn {
        Ok(Turn::Decide(decision)) => EffectResult::Done(Answer::Approval(decision)),
        Ok(Turn::Fail(code)) => EffectResult::Failed(Failure::new(code, "the script says so")),
        Ok(other) => EffectResult::Failed(misplaced(&other, "a person")),
        Err(failure) => EffectResult::Failed(failure),
    }
}

fn misplaced(turn: &Turn, who: &str) -> Failure {
    let what = match turn {
        Turn::Say(value) => to_json(value),
        Turn::Fail(code) => format!("fail(\"{code}\")"),
        Turn::Call(_) => "call(…)".to_owned(),
        Turn::Decide(_) => "approved(…) or denied(…)".to_owned(),
        Turn::After(..) => "after(…)".to_owned(),
    };
    Failure::new(RunCode::UnscriptedCall, format!("{who} cannot answer with the scripted turn {what}"))
}

fn turns_of(value: &Value) -> Result<Turns, Failure> {
    match parts(value) {
        Some(("every", [turn])) => Ok(Turns::Every(turn_of(turn)?)),
        Some(("each", [Value::List(turns)])) => Ok(Turns::Each(turns.iter().map(turn_of).collect::<Result<_, _>>()?)),
        Some(("given", [Value::List(values)])) => Ok(Turns::Each(values.iter().cloned().map(Turn::Say).collect())),
        Some(("given", [value])) => Ok(Turns::Every(Turn::Say(value.clone()))),
        _ => Err(no_turn(value)),
    }
}

fn turn_of(value: &Value) -> Result<Turn, Failure> {
    match parts(value) {
        Some(("say", [value])) => Ok(Turn::Say(value.clone())),
        Some(("fail", [Value::Str(code)])) => match code.parse() {
            Ok(code) => Ok(Turn::Fail(code)),
            Err(_) => Err(Failure::new(RunCode::Failed, format!("there is no run-time code `{code}` to fail with"))),
        },
        Some(("after", [Value::Duration(delay), turn])) => {
            Ok(Turn::After(Millis(u64::try_from(*delay).unwrap_or(0)), Box::new(turn_of(turn)?)))
        }
        Some(("call", [Value::List(calls)])) => {
            let call = |call: &Value| match call {
                Value::List(parts) => match parts.as_slice() {
                    [Value::Str(name), arguments] => Ok((name.as_ref().to_owned(), arguments.clone())),
                    _ => Err(no_turn(call)),
                },
                _ => Err(no_turn(call)),
            };
            Ok(Turn::Call(calls.iter().map(call).collect::<Result<_, _>>()?))
        }
        Some(("decide", [Value::Bool(approved), Value::Str(by), Value::Str(note)])) => {
            let (by, note) = (by.as_ref().to_owned(), note.as_ref().to_owned());
            Ok(Turn::Decide(Decision { approved: *approved, by, note }))
        }
        _ => Err(no_turn(value)),
    }
}

/// A tagged list: its tag and the rest.
fn parts(value: &Value) -> Option<(&str, &[Value])> {
    let Value::List(parts) = value else { return None };
    match parts.split_first() {
        Some((Value::Str(tag), rest)) => Some((tag, rest)),
        _ => None,
    }
}

fn no_turn(value: &Value) -> Failure {
    Failure::new(RunCode::Failed, format!("{} is no turn of a script", to_json(value)))
}

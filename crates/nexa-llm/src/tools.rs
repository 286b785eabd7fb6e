//! Tool calls in an answer: what a model wrote, held against what it was offered.
//!
//! In:  the calls as an adapter read them, and the request that they answer.
//! Out: calls that can be recorded, or in words why the answer is none.
//!
//! Holds for every answer that passes:
//!   TC-1  it has at most [`TOOL_CALLS_MAX`] calls with at most [`TOOL_CALLS_BYTES_MAX`] bytes together
//!   TC-2  each call names an offered tool and has an id that no other call of the answer has
//!   TC-3  its arguments are a JSON object, written without spaces, so that nobody reads them in two ways
//!   TC-4  there is a call if one was required, and none if none was wanted
//!
//! Not here: whether the arguments fit the tool's schema and whether the call is granted; whoever carries it out knows.

use nexa_event::effect::{Finish, ModelRequest, TOOL_CALLS_BYTES_MAX, TOOL_CALLS_MAX, ToolCall, ToolChoice, ToolOffer};
use nexa_types::EffectKey;
use serde_json::Value;
use thiserror::Error;

/// How much of a name that a model made up stands in an error, in characters.
const NAME_CHARS_SHOWN: usize = 64;
/// How many offered tools an error lists.
const OFFERS_SHOWN: usize = 8;

/// A call as it was read; anything may stand in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Called {
    /// Empty if the model gave none.
    pub(crate) id: String,
    pub(crate) name: String,
    /// Empty if the model gave none.
    pub(crate) arguments: String,
}

impl Called {
    pub(crate) fn len(&self) -> usize {
        self.id.len() + self.name.len() + self.arguments.len()
    }
}

/// Why an answer with calls, or without, is no answer. Follows the name of whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Unfit {
    #[error("asks for tools although none were offered")]
    NoneOffered,
    #[error("asks for tools although it was told not to")]
    NoneWanted,
    #[error("says that it asks for tools but names none")]
    NoneNamed,
    #[error("asks for no tool although it had to")]
    NoneCalled,
    #[error("asks for more than {TOOL_CALLS_MAX} tools at once")]
    TooMany,
    #[error("asks for tools with more than {TOOL_CALLS_BYTES_MAX} bytes of ids, names and arguments")]
    TooLong,
    #[error("asks for a tool without saying which")]
    NoName,
    #[error("asks for the tool `{name}`, which was not offered; offered: {offered}")]
    NotOffered { name: String, offered: String },
    #[error("gives two calls the same id, `{id}`")]
    SameId { id: String },
    #[error("asks for `{name}` with arguments that are no JSON object: {why}")]
    Arguments { name: String, why: String },
    #[error("was cut off at the limit of tokens within the arguments of `{name}`")]
    CutOff { name: String },
}

/// Checks the calls of an answer; gives them as they are recorded, and why the model stopped in view of them.
pub(crate) fn settle(
    request: &ModelRequest,
    key: EffectKey,
    called: Vec<Called>,
    finish: Finish,
) -> Result<(Vec<ToolCall>, Finish), Unfit> {
    if called.is_empty() {
        return match finish {
            Finish::ToolCalls if request.tools.is_empty() => Err(Unfit::NoneOffered),
            Finish::ToolCalls => Err(Unfit::NoneNamed),
            // A model that was cut off may have been about to ask.
            Finish::Stop if !request.tools.is_empty() && request.tool_choice == ToolChoice::Required => {
                Err(Unfit::NoneCalled)
            }
            _ => Ok((Vec::new(), finish)),
        };
    }
    if request.tools.is_empty() {
        return Err(Unfit::NoneOffered);
    }
    if request.tool_choice == ToolChoice::None {
        return Err(Unfit::NoneWanted);
    }
    if called.len() > TOOL_CALLS_MAX {
        return Err(Unfit::TooMany);
    }
    let mut calls: Vec<ToolCall> = Vec::with_capacity(called.len());
    let mut bytes = 0;
    for (at, called) in called.into_iter().enumerate() {
        let call = checked(request, key, at + 1, called, finish)?;
        if calls.iter().any(|other| other.id == call.id) {
            return Err(Unfit::SameId { id: shown(&call.id) });
        }
        bytes += call.id.len() + call.name.len() + call.arguments.len();
        if bytes > TOOL_CALLS_BYTES_MAX {
            return Err(Unfit::TooLong);
        }
        calls.push(call);
    }
    // Some endpoints say `stop` beside their calls.
    let finish = if finish == Finish::Stop { Finish::ToolCalls } else { finish };
    Ok((calls, finish))
}

fn checked(
    request: &ModelRequest,
    key: EffectKey,
    ordinal: usize,
    called: Called,
    finish: Finish,
) -> Result<ToolCall, Unfit> {
    let Called { id, name, arguments } = called;
    if name.is_empty() {
        return Err(Unfit::NoName);
    }
    if !request.tools.iter().any(|tool| tool.name == name) {
        return Err(Unfit::NotOffered { name: shown(&name), offered: listed(&request.tools) });
    }
    let arguments = object(&arguments).map_err(|why| match finish {
        Finish::Length => Unfit::CutOff { name: shown(&name) },
        _ => Unfit::Arguments { name: shown(&name), why },
    })?;
    let id = if id.is_empty() { call_id(key, ordinal) } else { id };
    Ok(ToolCall { id, name, arguments })
}

/// The id of a call whose model gave none: the same whenever the same effect is answered again, and short, because some
/// endpoints take no more than 40 characters. `ordinal` is the call's place in its answer, from 1.
pub fn call_id(key: EffectKey, ordinal: usize) -> String {
    let start: String = key.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("call_{start}_{ordinal}")
}

fn object(text: &str) -> Result<String, String> {
    // A tool without parameters is called without arguments by some models.
    if text.trim().is_empty() {
        return Ok("{}".to_owned());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let kind = match value {
        Value::Object(_) => return Ok(value.to_string()),
        Value::Array(_) => "a list",
        Value::String(_) => "a text",
        Value::Number(_) => "a number",
        Value::Bool(_) => "a bool",
        Value::Null => "null",
    };
    Err(format!("they are {kind}"))
}

fn shown(name: &str) -> String {
    name.chars().take(NAME_CHARS_SHOWN).flat_map(char::escape_debug).collect()
}

fn listed(offers: &[ToolOffer]) -> String {
    let names: Vec<&str> = offers.iter().take(OFFERS_SHOWN).map(|offer| offer.name.as_str()).collect();
    let more = if offers.len() > OFFERS_SHOWN { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

/// How many bytes a model has to read, for those who cannot count tokens.
pub(crate) fn read_len(request: &ModelRequest) -> usize {
    let call = |call: &ToolCall| call.name.len() + call.arguments.len();
    let said: usize =
        request.messages.iter().map(|it| it.text.len() + it.tool_calls.iter().map(call).sum::<usize>()).sum();
    let offered: usize = request.tools.iter().map(|it| it.name.len() + it.description.len() + it.schema.len()).sum();
    said + offered
}

/// How many bytes a model has written.
pub(crate) fn written_len(text: &str, calls: &[ToolCall]) -> usize {
    text.len() + calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{call, offering, request};

    fn called(id: &str, name: &str, arguments: &str) -> Called {
        Called { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
    }

    fn told(request: &ModelRequest, calls: Vec<Called>, finish: Finish) -> String {
        match settle(request, call(1, request.clone()).key, calls, finish) {
            Ok((calls, finish)) => {
                let calls: Vec<String> =
                    calls.iter().map(|call| format!("{} {}{}", call.id, call.name, call.arguments)).collect();
                format!("{finish:?} {}", calls.join(", "))
            }
            Err(unfit) => unfit.to_string(),
        }
    }

    #[test]
    fn an_answer_is_held_against_what_was_offered() {
        let offering = offering(&["find", "book"]);
        let choosing = |tool_choice| ModelRequest { tool_choice, ..offering.clone() };
        let find = |arguments: &str| vec![called("a", "find", arguments)];
        let long = format!(r#"{{"q":"{}"}}"#, "x".repeat(TOOL_CALLS_BYTES_MAX));
        let seen = [
            told(&offering, vec![], Finish::Stop),
            told(&offering, find(" { \"q\" : [1, 2.50], \"a\":null,\"q\":3}\n"), Finish::Stop),
            told(&offering, vec![called("", "find", ""), called("", "book", "{}")], Finish::ToolCalls),
            told(&offering, find("{}"), Finish::Length),
            told(&offering, find("{\"q\":"), Finish::Length),
            told(&offering, find("{\"q\":"), Finish::ToolCalls),
            told(&offering, find("[{}]"), Finish::ToolCalls),
            told(&offering, find("null"), Finish::ToolCalls),
            told(&offering, find("{} {}"), Finish::ToolCalls),
            told(&offering, find(&long), Finish::ToolCalls),
            told(&offering, vec![called("a", "fi\nnd", "{}")], Finish::ToolCalls),
            told(&offering, vec![called("a", "find", "{}"), called("a", "book", "{}")], Finish::ToolCalls),
            told(&offering, vec![called("", "find", "{}"); TOOL_CALLS_MAX + 1], Finish::ToolCalls),
            told(&offering, vec![], Finish::ToolCalls),
            told(&request("hi"), vec![], Finish::ToolCalls),
            told(&request("hi"), find("{}"), Finish::Stop),
            told(&choosing(ToolChoice::Required), vec![], Finish::Stop),
            told(&choosing(ToolChoice::Required), vec![], Finish::Length),
            told(&choosing(ToolChoice::None), vec![], Finish::Stop),
            told(&choosing(ToolChoice::None), find("{}"), Finish::Stop),
        ];
        expect![[r#"
            Stop 
            ToolCalls a find{"q":3,"a":null}
            ToolCalls call_8733fb6bf9c1bb73_1 find{}, call_8733fb6bf9c1bb73_2 book{}
            Length a find{}
            was cut off at the limit of tokens within the arguments of `find`
            asks for `find` with arguments that are no JSON object: EOF while parsing a value at line 1 column 5
            asks for `find` with arguments that are no JSON object: they are a list
            asks for `find` with arguments that are no JSON object: they are null
            asks for `find` with arguments that are no JSON object: trailing characters at line 1 column 4
            asks for tools with more than 1048576 bytes of ids, names and arguments
            asks for the tool `fi\nnd`, which was not offered; offered: find, book
            gives two calls the same id, `a`
            asks for more than 64 tools at once
            says that it asks for tools but names none
            asks for tools although none were offered
            asks for tools although none were offered
            asks for no tool although it had to
            Length 
            Stop 
            asks for tools although it was told not to"#]]
        .assert_eq(&seen.join("\n"));
    }

    #[test]
    fn an_id_that_is_made_up_is_short_and_the_same_again() {
        let key = call(1, request("hi")).key;
        assert_eq!(call_id(key, 1), call_id(key, 1));
        assert_ne!(call_id(key, 1), call_id(key, 2));
        assert_ne!(call_id(key, 1), call_id(call(2, request("hi")).key, 1));
        assert!(call_id(key, TOOL_CALLS_MAX).len() <= 40);
    }

    proptest! {
        #[test]
        fn whatever_a_model_writes_what_passes_holds_what_is_promised(
            calls in prop::collection::vec(
                ("[ab]{0,2}", "find|book|x", "(\\{|\\}|\\[|\"q\"|:|,|1|null| ){0,7}"),
                0..4,
            ),
        ) {
            let request = offering(&["find", "book"]);
            let calls = calls.iter().map(|(id, name, arguments)| called(id, name, arguments)).collect();
            if let Ok((calls, _)) = settle(&request, call(1, request.clone()).key, calls, Finish::ToolCalls) {
                let mut ids: Vec<&str> = calls.iter().map(|call| call.id.as_str()).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), calls.len());
                for call in &calls {
                    let value: Value = serde_json::from_str(&call.arguments).expect("JSON");
                    let rewritten = value.to_string();
                    prop_assert_eq!(&rewritten, &call.arguments);
                    prop_assert!(value.is_object() && !call.id.is_empty());
                }
            }
        }
    }
}

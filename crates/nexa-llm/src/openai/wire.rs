//! The JSON of the chat completions API: what is sent, and what comes back whole or in pieces.

use nexa_event::effect::{Finish, Message, ModelRequest, ToolCall, ToolOffer};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::calls::{Calls, Fragment};
use crate::tools::Unfit;

/// A tool that cannot be offered, because its schema is no JSON object.
#[derive(Debug)]
pub(super) struct Unofferable(pub(super) String);

/// The body of a request. `name` is the model's name as the endpoint knows it.
pub(super) fn body(request: &ModelRequest, name: &str) -> Result<Value, Unofferable> {
    let messages: Vec<Value> = request.messages.iter().map(message).collect();
    let sampling = &request.sampling;
    let mut body = Map::new();
    let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
    put("model", json!(name));
    put("messages", json!(messages));
    put("temperature", json!(sampling.temperature));
    put("top_p", json!(sampling.top_p));
    put("max_tokens", json!(sampling.max_tokens.0));
    if let Some(seed) = sampling.seed {
        // Many endpoints read the seed as a signed number.
        put("seed", json!(seed & (i64::MAX as u64)));
    }
    if !sampling.stop.is_empty() {
        put("stop", json!(sampling.stop));
    }
    if let Some(schema) = request.schema.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        put("response_format", json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}));
    }
    if !request.tools.is_empty() {
        let tools: Vec<Value> = request.tools.iter().map(offer).collect::<Result<_, _>>()?;
        put("tools", json!(tools));
        put("tool_choice", json!(request.tool_choice.as_str()));
        // Several at once are the caller's to order, see the rules of the agent.
        put("parallel_tool_calls", json!(true));
    }
    if request.stream {
        put("stream", json!(true));
        put("stream_options", json!({"include_usage": true}));
    }
    Ok(Value::Object(body))
}

fn message(message: &Message) -> Value {
    let mut said = Map::new();
    said.insert("role".to_owned(), json!(message.role.as_str()));
    let is_silent = message.text.is_empty() && !message.tool_calls.is_empty();
    said.insert("content".to_owned(), if is_silent { Value::Null } else { json!(message.text) });
    if !message.tool_calls.is_empty() {
        let calls: Vec<Value> = message.tool_calls.iter().map(call).collect();
        said.insert("tool_calls".to_owned(), json!(calls));
    }
    if let Some(id) = &message.tool_call_id {
        said.insert("tool_call_id".to_owned(), json!(id));
    }
    Value::Object(said)
}

fn call(call: &ToolCall) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

fn offer(tool: &ToolOffer) -> Result<Value, Unofferable> {
    match serde_json::from_str::<Value>(&tool.schema) {
        Ok(schema @ Value::Object(_)) => Ok(json!({
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": schema},
        })),
        _ => Err(Unofferable(tool.name.clone())),
    }
}

/// An answer as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) finish: Option<Finish>,
    pub(super) usage: Option<Usage>,
    pub(super) calls: Calls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
}

/// Why a piece of JSON is no part of an answer.
#[derive(Debug)]
pub(super) enum Nonsense {
    /// Not JSON, or not of the API's shape.
    Shape(serde_json::Error),
    /// An error object, which some endpoints send with a good status or in the middle of a stream.
    Error(String),
    /// Too many tool calls, or too long ones.
    Unfit(Unfit),
}

/// Unknown fields are skipped on purpose: endpoints add their own.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    /// In a whole answer.
    message: Option<Said>,
    /// In a piece of one.
    delta: Option<Said>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
    tool_calls: Option<Vec<Fragment>>,
}

impl Answer {
    /// Adds a whole answer, or a piece of one; gives the text that it added.
    pub(super) fn add(&mut self, json: &str) -> Result<&str, Nonsense> {
        let reply: Reply = serde_json::from_str(json).map_err(Nonsense::Shape)?;
        if let Some(error) = reply.error.filter(|error| !error.is_null()) {
            return Err(Nonsense::Error(error_text(&error)));
        }
        let before = self.text.len();
        self.usage = reply.usage.or(self.usage);
        if let Some(choice) = reply.choices.into_iter().next() {
            let is_whole = choice.message.is_some();
            if let Some(said) = choice.message.or(choice.delta) {
                self.text.push_str(said.content.as_deref().unwrap_or(""));
                for call in said.tool_calls.unwrap_or_default() {
                    let added = if is_whole { self.calls.whole(call) } else { self.calls.part(call) };
                    added.map_err(Nonsense::Unfit)?;
                }
            }
            self.finish = choice.finish_reason.as_deref().map(finish).or(self.finish);
        }
        Ok(&self.text[before..])
    }
}

fn finish(reason: &str) -> Finish {
    match reason {
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "content_filter" => Finish::Filtered,
        _ => Finish::Stop,
    }
}

/// What an error's body says to a person, shortened.
pub(super) fn complaint(body: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    let text = match parsed.as_ref().and_then(|value| value.get("error")) {
        Some(error) => error_text(error),
        None => body.to_owned(),
    };
    shorten(&text)
}

fn error_text(error: &Value) -> String {
    let message = error.get("message").and_then(Value::as_str).or(error.as_str());
    shorten(&message.map_or_else(|| error.to_string(), str::to_owned))
}

/// How much of somebody else's text stands in an error, in characters.
const COMPLAINT_CHARS_MAX: usize = 300;

fn shorten(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(COMPLAINT_CHARS_MAX) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text,
    }
}

//! The chat completions API, as far as it is spoken here.

use std::borrow::Cow;

use axum::body::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::profile::tokens;

/// Pieces of a streamed answer.
const PIECES_MAX: usize = 8;

/// A request. Unknown fields are skipped.
#[derive(Debug, Deserialize)]
pub(super) struct Asked<'a> {
    #[serde(borrow)]
    pub(super) model: Cow<'a, str>,
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    #[serde(default)]
    pub(super) stream: bool,
}

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

impl Asked<'_> {
    /// The last message of the user.
    pub(super) fn message(&self) -> Option<&str> {
        self.messages.iter().rev().find(|message| message.role == "user").and_then(|message| message.content.as_deref())
    }

    /// What the request counts as.
    pub(super) fn tokens(&self) -> u64 {
        tokens(self.messages.iter().map(|message| message.content.as_deref().map_or(0, str::len)).sum())
    }
}

fn usage(input: u64, text: &str) -> Value {
    let output = tokens(text.len());
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
}

/// A whole answer.
pub(super) fn whole(model: &str, text: &str, input: u64) -> Value {
    let message = json!({ "role": "assistant", "content": text });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    json!({ "object": "chat.completion", "model": model, "choices": [choice], "usage": usage(input, text) })
}

/// The frames of a streamed answer, the last of which says that it is done.
pub(super) fn frames(model: &str, text: &str, input: u64) -> Vec<Bytes> {
    let frame = |value: Value| Bytes::from(format!("data: {value}\n\n"));
    let chunk = |choices: Value| json!({ "object": "chat.completion.chunk", "model": model, "choices": choices });
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let mut frames: Vec<Bytes> = words
        .chunks(words.len().div_ceil(PIECES_MAX).max(1))
        .map(|piece| frame(chunk(json!([{ "index": 0, "delta": { "content": piece.concat() } }]))))
        .collect();
    frames.push(frame(chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]))));
    let mut last = chunk(json!([]));
    last["usage"] = usage(input, text);
    let mut last = format!("data: {last}\n\n");
    last += "data: [DONE]\n\n";
    frames.push(Bytes::from(last));
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_the_user_counts_and_all_texts_are_read() {
        let body = r##"{"model":"any","temperature":0.0,"messages":[
            {"role":"system","content":"Be brief."},
            {"role":"user","content":"#1 \"first\""},
            {"role":"assistant","content":null},
            {"role":"user","content":"#2 second"}]}"##;
        let asked: Asked<'_> = serde_json::from_str(body).expect("a request");
        assert_eq!((asked.message(), asked.stream), (Some("#2 second"), false));
        assert_eq!(asked.tokens(), (9 + 10 + 9_u64).div_ceil(4));
    }

    #[test]
    fn a_stream_has_the_same_text_as_the_whole() {
        let text = "#1 a bb ccc dddd eeeee ffffff ggggggg hhhhhhhh iiiiiiiii j";
        let frames = frames("any", text, 3);
        let mut joined = String::new();
        for frame in &frames[..frames.len() - 2] {
            let frame = std::str::from_utf8(frame).expect("text").trim().strip_prefix("data: ").expect("a frame");
            let frame: Value = serde_json::from_str(frame).expect("JSON");
            joined += frame["choices"][0]["delta"]["content"].as_str().expect("a piece");
        }
        assert_eq!(joined, text);
        assert!(frames.len() <= PIECES_MAX + 2 && frames.last().expect("an end").ends_with(b"data: [DONE]\n\n"));
    }
}

//! Tools over HTTP: what is offered and told, and what comes back whole, in pieces, or wrong.

use axum::http::StatusCode;
use expect_test::expect;
use nexa_event::effect::{
    Finish, Message, ModelReply, ModelRequest, Role, Source, TOOL_CALLS_BYTES_MAX, TOOL_CALLS_MAX, ToolCall, ToolChoice,
};
use nexa_ports::model::{Model, ModelError};
use nexa_types::{RunCode, Tokens};
use serde_json::{Value, json};

use super::tests::{Answering, Desk, block_on};
use crate::testing::{Pieces, call, offering};
use crate::tools::call_id;

async fn ask(answering: Answering, request: ModelRequest) -> (Result<ModelReply, ModelError>, String) {
    let (_, endpoint) = Desk::open(answering).await;
    let pieces = Pieces::default();
    let reply = endpoint.ask(call(3, request), &pieces).await;
    (reply, pieces.text())
}

fn whole(message: &Value, finish: &str) -> Answering {
    let answer = json!({"choices": [{"index": 0, "message": message, "finish_reason": finish}]});
    Answering::Whole(StatusCode::OK, &[], answer.to_string())
}

/// Deltas as a stream, cut where no event ends.
fn streamed(deltas: &[Value], finish: &str) -> Answering {
    let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]});
    let deltas = deltas.iter().map(|delta| json!({"choices": [{"index": 0, "delta": delta}]}));
    let stream: String = deltas.chain([last]).map(|event| format!("data: {event}\n\n")).collect();
    let stream: &'static str = format!("{stream}data: [DONE]\n\n").leak();
    let mut pieces: Vec<&str> = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(rest.len().min(1_013));
        pieces.push(piece);
        rest = later;
    }
    Answering::Stream(pieces)
}

fn function(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn find_and_book() -> Vec<ToolCall> {
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    };
    vec![call("call_a", "find", r#"{"q":"cats","near":{"x":1}}"#), call("call_b", "book", "{}")]
}

#[test]
fn offers_and_the_conversation_about_them_are_sent_as_the_api_wants_them() {
    block_on(async {
        let (desk, endpoint) = Desk::open(whole(&json!({"content": "They purr."}), "stop")).await;
        let mut asking = offering(&["find", "book"]);
        asking.stream = false;
        asking.messages.extend([
            Message::calling("", Source::Program, find_and_book()),
            Message::returned("call_a", "purring", Source::Program),
            Message::returned("call_b", "", Source::Program),
            Message::calling("Once more.", Source::Program, find_and_book()[1..].to_vec()),
        ]);
        let reply = endpoint.ask(call(3, asking), &Pieces::default()).await.expect("an answer");
        assert_eq!((reply.text.as_str(), reply.finish, reply.tool_calls.len()), ("They purr.", Finish::Stop, 0));
        let (_, body) = desk.only_request();
        let about_tools = json!({
            "messages": body["messages"].as_array().expect("a list")[2..],
            "tools": body["tools"],
            "tool_choice": body["tool_choice"],
            "parallel_tool_calls": body["parallel_tool_calls"],
        });
        expect![[r#"
            {
              "messages": [
                {
                  "role": "assistant",
                  "content": null,
                  "tool_calls": [
                    {
                      "id": "call_a",
                      "type": "function",
                      "function": {
                        "name": "find",
                        "arguments": "{\"q\":\"cats\",\"near\":{\"x\":1}}"
                      }
                    },
                    {
                      "id": "call_b",
                      "type": "function",
                      "function": {
                        "name": "book",
                        "arguments": "{}"
                      }
                    }
                  ]
                },
                {
                  "role": "tool",
                  "content": "purring",
                  "tool_call_id": "call_a"
                },
                {
                  "role": "tool",
                  "content": "",
                  "tool_call_id": "call_b"
                },
                {
                  "role": "assistant",
                  "content": "Once more.",
                  "tool_calls": [
                    {
                      "id": "call_b",
                      "type": "function",
                      "function": {
                        "name": "book",
                        "arguments": "{}"
                      }
                    }
                  ]
                }
              ],
              "tools": [
                {
                  "type": "function",
                  "function": {
                    "name": "find",
                    "description": "Does `find`.",
                    "parameters": {
                      "type": "object",
                      "properties": {
                        "q": {
                          "type": "string"
                        }
                      }
                    }
                  }
                },
                {
                  "type": "function",
                  "function": {
                    "name": "book",
                    "description": "Does `book`.",
                    "parameters": {
                      "type": "object",
                      "properties": {
                        "q": {
                          "type": "string"
                        }
                      }
                    }
                  }
                }
              ],
              "tool_choice": "auto",
              "parallel_tool_calls": true
            }"#]]
        .assert_eq(&format!("{about_tools:#}"));
    });
}

#[test]
fn each_choice_has_its_name_and_nothing_is_said_about_tools_without_an_offer() {
    block_on(async {
        let calling = json!({"tool_calls": [function("a", "find", "{}")]});
        for (choice, name, message) in [
            (ToolChoice::Auto, "auto", json!({"content": "Hi."})),
            (ToolChoice::Required, "required", calling),
            (ToolChoice::None, "none", json!({"content": "Hi."})),
        ] {
            let (desk, endpoint) = Desk::open(whole(&message, "stop")).await;
            let asking = ModelRequest { tool_choice: choice, ..offering(&["find"]) };
            endpoint.ask(call(3, asking), &Pieces::default()).await.expect("an answer");
            assert_eq!(desk.only_request().1["tool_choice"], name);

            let (desk, endpoint) = Desk::open(whole(&json!({"content": "Hi."}), "stop")).await;
            let asking = ModelRequest { tool_choice: choice, ..offering(&[]) };
            endpoint.ask(call(3, asking), &Pieces::default()).await.expect("an answer");
            let (_, body) = desk.only_request();
            for key in ["tools", "tool_choice", "parallel_tool_calls"] {
                assert!(body.get(key).is_none(), "{body}");
            }
        }
    });
}

#[test]
fn calls_are_read_the_same_whole_and_in_fragments() {
    block_on(async {
        let arguments = r#"{"q": "cats", "near": {"x": 1}}"#;
        let calls = json!([function("call_a", "find", arguments), function("call_b", "book", "")]);
        let message = json!({"role": "assistant", "content": "Let me see.", "tool_calls": calls});
        let (reply, shown) = ask(whole(&message, "tool_calls"), offering(&["find", "book"])).await;
        let whole = reply.expect("an answer");
        assert_eq!(
            (whole.text.as_str(), whole.finish, shown.as_str()),
            ("Let me see.", Finish::ToolCalls, "Let me see.")
        );
        assert_eq!(whole.tool_calls, find_and_book());
        // Nobody counted: four bytes a token, of what was written with the calls.
        assert_eq!(whole.spend.tokens_out, Tokens(12));

        let fragment = |index: u64, arguments: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]});
        let opening = |index: u64, id: &str, name: &str| {
            let function = json!({"name": name, "arguments": ""});
            json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
        };
        let mut deltas = vec![json!({"role": "assistant", "content": null})];
        deltas.extend(["Let ", "me ", "see."].map(|text| json!({"content": text})));
        deltas.push(opening(0, "call_a", "find"));
        deltas.extend(arguments.split_inclusive(' ').map(|piece| fragment(0, piece)));
        deltas.push(opening(1, "call_b", "book"));
        let (reply, shown) = ask(streamed(&deltas, "tool_calls"), offering(&["find", "book"])).await;
        assert_eq!((reply.expect("an answer"), shown.as_str()), (whole, "Let me see."));
    });
}

#[test]
fn calls_without_an_id_or_a_reason_are_calls_all_the_same() {
    block_on(async {
        let calls = json!([{"function": {"name": "find", "arguments": {"q": 1}}}, {"function": {"name": "find"}}]);
        let key = call(3, offering(&[])).key;
        for answering in [
            whole(&json!({"content": null, "tool_calls": calls}), "stop"),
            streamed(&[json!({"tool_calls": calls})], "stop"),
        ] {
            let reply = ask(answering, offering(&["find"])).await.0.expect("an answer");
            assert_eq!((reply.text.as_str(), reply.finish), ("", Finish::ToolCalls));
            let seen: Vec<(&str, &str)> =
                reply.tool_calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
            let (first, second) = (call_id(key, 1), call_id(key, 2));
            assert_eq!(seen, [(first.as_str(), r#"{"q":1}"#), (second.as_str(), "{}")]);
        }
    });
}

/// What comes of an answer: code and message without the endpoint's name and address.
async fn told(answering: Answering, request: ModelRequest) -> String {
    let error = ask(answering, request).await.0.expect_err("no answer");
    let message = error.message.split_once("/v1 ").expect("an endpoint's error").1;
    format!("{}: {message}\n", error.code)
}

#[test]
fn calls_that_cannot_be_carried_out_are_no_answer_and_say_why() {
    let seen = block_on(async {
        let mut seen = String::new();
        let calling = |calls: Value| json!({"content": null, "tool_calls": calls});
        for (calls, finish) in [
            (json!([function("a", "find", r#"{"q": "#)]), "tool_calls"),
            (json!([function("a", "find", r#"{"q": "#)]), "length"),
            (json!([function("a", "find", r#"["q"]"#)]), "tool_calls"),
            (json!([function("a", "find", "cats")]), "tool_calls"),
            (json!([function("a", "delete\u{7}_all", "{}")]), "tool_calls"),
            (json!([function("a", "", "{}")]), "tool_calls"),
            (json!([{"id": "a", "type": "function"}]), "tool_calls"),
            (json!([]), "tool_calls"),
        ] {
            let message = calling(calls);
            let once = told(whole(&message, finish), offering(&["find", "book"])).await;
            assert_eq!(told(streamed(&[message], finish), offering(&["find", "book"])).await, once);
            seen.push_str(&once);
        }
        let one = calling(json!([function("a", "find", "{}")]));
        seen.push_str(&told(whole(&one, "tool_calls"), offering(&[])).await);
        seen.push_str(&told(streamed(std::slice::from_ref(&one), "tool_calls"), offering(&[])).await);
        let choosing = |tool_choice| ModelRequest { tool_choice, ..offering(&["find"]) };
        seen.push_str(&told(whole(&one, "tool_calls"), choosing(ToolChoice::None)).await);
        seen.push_str(&told(whole(&json!({"content": "No."}), "stop"), choosing(ToolChoice::Required)).await);
        let twice = calling(json!([function("a", "find", "{}"), function("a", "find", "{}")]));
        seen.push_str(&told(whole(&twice, "tool_calls"), offering(&["find"])).await);
        seen.push_str(&told(whole(&calling(json!(["find"])), "tool_calls"), offering(&["find"])).await);
        seen
    });
    expect![[r#"
        output_invalid: asks for `find` with arguments that are no JSON object: EOF while parsing a value at line 1 column 6; ask again or use another model
        output_invalid: was cut off at the limit of tokens within the arguments of `find`; raise `max_tokens`
        output_invalid: asks for `find` with arguments that are no JSON object: they are a list; ask again or use another model
        output_invalid: asks for `find` with arguments that are no JSON object: expected value at line 1 column 1; ask again or use another model
        output_invalid: asks for the tool `delete\u{7}_all`, which was not offered; offered: find, book; ask again or use another model
        output_invalid: asks for a tool without saying which; ask again or use another model
        output_invalid: asks for a tool without saying which; ask again or use another model
        output_invalid: says that it asks for tools but names none; ask again or use another model
        output_invalid: asks for tools although none were offered; use another model
        output_invalid: asks for tools although none were offered; use another model
        output_invalid: asks for tools although it was told not to; use another model
        output_invalid: asks for no tool although it had to; ask again or use another model
        output_invalid: gives two calls the same id, `a`; ask again or use another model
        output_invalid: sent something that is no chat completion: invalid type: string "find", expected a tool call at line 1 column 69; check that the URL is that of the API
    "#]].assert_eq(&seen);
}

#[test]
fn too_many_or_too_long_calls_are_given_up_before_they_end() {
    let seen = block_on(async {
        let many: Vec<Value> = (0..=TOOL_CALLS_MAX)
            .map(|index| json!({"index": index, "id": format!("{index}"), "function": {"name": "find"}}))
            .collect();
        let long = || {
            let piece = |text: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]});
            let head = json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "find", "arguments": "{"}}]});
            let body = "x".repeat(100_000);
            let mut deltas = vec![head];
            deltas.extend((0..=TOOL_CALLS_BYTES_MAX / body.len()).map(|_| piece(&body)));
            deltas
        };
        let message = json!({"tool_calls": many});
        let mut seen = told(whole(&message, "tool_calls"), offering(&["find"])).await;
        seen.push_str(&told(streamed(&[message], "tool_calls"), offering(&["find"])).await);
        seen.push_str(&told(streamed(&long(), "tool_calls"), offering(&["find"])).await);
        seen
    });
    expect![[r#"
        output_invalid: asks for more than 64 tools at once; ask again or use another model
        output_invalid: asks for more than 64 tools at once; ask again or use another model
        output_invalid: asks for tools with more than 1048576 bytes of ids, names and arguments; ask again or use another model
    "#]].assert_eq(&seen);
}

#[test]
fn a_stream_that_breaks_off_within_a_call_is_unavailable_and_no_call() {
    block_on(async {
        let half = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\
            \"function\":{\"name\":\"find\",\"arguments\":\"{}\"}}]}}]}\n\n";
        for answering in [Answering::Broken(half), Answering::Stream(vec![half])] {
            let error = ask(answering, offering(&["find"])).await.0.expect_err("half an answer");
            assert_eq!(error.code, RunCode::Unavailable, "{error}");
        }
    });
}

#[test]
fn a_tool_whose_schema_is_none_is_not_offered_to_anybody() {
    block_on(async {
        for schema in ["", "{", "[]", "true"] {
            let mut asking = offering(&["find"]);
            asking.tools[0].schema = schema.to_owned();
            let (desk, endpoint) = Desk::open(whole(&json!({"content": "Hi."}), "stop")).await;
            let error = endpoint.ask(call(3, asking), &Pieces::default()).await.expect_err("no schema");
            assert_eq!(
                (error.code, error.message.as_str()),
                (
                    RunCode::Refused,
                    "the tool `find` cannot be offered: the schema of its arguments is no JSON object; correct its \
                     declaration"
                )
            );
            assert!(desk.has_no_request());
        }
    });
}

#[test]
fn a_message_of_a_tool_without_a_call_goes_out_as_it_is() {
    block_on(async {
        let (desk, endpoint) = Desk::open(whole(&json!({"content": "Hi."}), "stop")).await;
        let mut asking = offering(&[]);
        asking.messages.push(Message::new(Role::Tool, "purring", Source::Program));
        endpoint.ask(call(3, asking), &Pieces::default()).await.expect("an answer");
        assert_eq!(desk.only_request().1["messages"][2], json!({"role": "tool", "content": "purring"}));
    });
}

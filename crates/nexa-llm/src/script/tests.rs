use std::fs;
use std::time::Duration;

use expect_test::expect;
use nexa_event::effect::{Finish, ModelReply, ModelRequest, Purpose, ToolCall, ToolChoice};
use nexa_ports::model::{Model, ModelError, NoChunks};
use nexa_types::RunCode;
use proptest::prelude::*;

use super::{Miss, Say, Script, ScriptedModel, Seating, target_of};
use crate::testing::{Pieces, call, offering, request};
use crate::tools::call_id;

fn script(text: &str) -> Script {
    Script::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The first answers for a target, as text.
fn answers(script: &Script, target: &str) -> Vec<String> {
    (0..4)
        .map(|ordinal| match script.turn(target, ordinal) {
            Ok(turn) => {
                let after = if turn.after.is_zero() { String::new() } else { format!(" after {:?}", turn.after) };
                match &turn.say {
                    Say::Text(text) => format!("{text}{after}"),
                    Say::Call { tool, arguments } => format!("call {tool}{arguments}{after}"),
                    Say::Fail(code) => format!("fail {code}{after}"),
                }
            }
            Err(miss) => miss.code().to_string(),
        })
        .collect()
}

#[test]
fn every_kind_of_turn_is_read() {
    let script = script(
        r##"
        // A comment; and a rule a line.
        script Same => "Hi \"you\" \u{1F600}\n"     // always
        script Each => [ "one", { verdict: "keep", score: 7, "odd key": [1.5, -2, 0xff, 1_000], more: none, kind: Red },
                         after(200ms, true), after(1s, after(5ms, fail("rate_limited"))), ]
        script List => [[1, 2]]; script Label => [approved, Brief { title: "T" }]
        script Block => """
            first
              second \#{x}
            """
        script Raw => r"a\b"
        script Calls => [call(find, { q: "cats", n: 1 }), call( "std.fs.read" , Path { at: "/" } ), after(5ms, call(now, {})), "done"]
        "##,
    );
    assert_eq!(answers(&script, "Same")[3], "Hi \"you\" 😀\n");
    expect![[r#"
        one
        {"verdict":"keep","score":7,"odd key":[1.5,-2,255,1000],"more":null,"kind":"Red"}
        true after 200ms
        fail rate_limited after 1.005s"#]]
    .assert_eq(&answers(&script, "Each").join("\n"));
    assert_eq!(answers(&script, "List"), ["[1,2]", "script_exhausted", "script_exhausted", "script_exhausted"]);
    assert_eq!(answers(&script, "Label")[..2], ["approved", r#"{"title":"T"}"#]);
    assert_eq!(answers(&script, "Block")[0], "first\n  second #{x}");
    assert_eq!(answers(&script, "Raw")[0], r"a\b");
    expect![[r#"
        call find{"q":"cats","n":1}
        call std.fs.read{"at":"/"}
        call now{} after 5ms
        done"#]]
    .assert_eq(&answers(&script, "Calls").join("\n"));
    assert_eq!(answers(&script, "Nobody")[0], "unscripted_call");
    assert_eq!(script.targets().collect::<Vec<_>>(), ["Block", "Calls", "Each", "Label", "List", "Raw", "Same"]);
}

#[test]
fn questions_are_answered_by_what_they_are_for() {
    let script = script(
        r#"
        script semantic "is it \"so\"?" => [true, "no"]; script intent => greets
        script judge => { best: 1 }; script reflect => "too short"; script Greeter => "hello"
        "#,
    );
    let target = |purpose| target_of(&ModelRequest { purpose, ..request("hi") });
    let semantic = |question: &str| target(Purpose::Semantic { question: question.to_owned() });
    assert_eq!(answers(&script, &semantic("is it \"so\"?"))[..2], ["true", "no"]);
    assert_eq!(answers(&script, &semantic("is it?"))[0], "unscripted_call");
    assert_eq!(answers(&script, &target(Purpose::Intent))[0], "greets");
    assert_eq!(answers(&script, &target(Purpose::Judge))[0], r#"{"best":1}"#);
    assert_eq!(answers(&script, &target(Purpose::Reflect))[0], "too short");
    assert_eq!(answers(&script, &target(Purpose::Agent))[0], "hello");
    // A seating has one line a seat.
    assert!(!semantic("two\nlines").contains('\n'));
}

#[test]
fn a_mistake_is_named_with_its_place() {
    let mistakes = [
        "scrpt A => \"x\"",
        "script semantic => true",
        "script approve => true",
        "script A = \"x\"",
        "script A => \"x\" script B => \"y\"",
        "script A => \"x\"\nscript A => \"y\"",
        "script A => [\"x\" \"y\"]",
        "script A => [\n  \"x\",\n",
        "script A => \"no end\nscript B => 1",
        "script A => \"#{x}\"",
        r#"script A => "\q""#,
        "script A => fail(\"broken\")",
        "script A => fail(refused)",
        "script A => call(find)",
        "script A => call(find, [1])",
        "script A => call(\"\", {})",
        "script A => call(find, { q: 1 }, 2)",
        "script A => after(200, \"x\")",
        "script A => wait(1s, \"x\")",
        "script A => { a: 1, a: 2 }",
        "script A => { a 1 }",
        "script A => 1.2.3",
        "script A =>",
        "script => \"x\"",
    ];
    let seen: Vec<String> = mistakes.iter().map(|text| Script::parse(text).expect_err(text).to_string()).collect();
    expect![[r#"
        line 1, column 1: a rule is written `script TARGET => turns`
        line 1, column 17: after `script semantic` stands the question in quotes
        line 1, column 8: `approve` cannot be scripted in a file; only models can
        line 1, column 10: after `script A` stands `=>`
        line 1, column 17: a rule ends at the end of its line or with `;`
        line 2, column 13: `A` has a rule already; a list gives it several turns
        line 1, column 18: a `,` or the closing `]` is missing
        line 3, column 1: here stands a text, a record, a list, a number, `true`, `false`, `none` or a label
        line 1, column 13: the text that begins here has no closing `"`
        line 1, column 13: a script has no values to put into `#{…}`; write `\#{` for the characters
        line 1, column 13: `\q` is no escape; there are \n \r \t \0 \\ \" \# \u{…}
        line 1, column 18: `broken` is no error code; there are failed, timeout, cancelled, budget_exceeded, unavailable, rate_limited, refused, output_invalid, tool_failed, tool_limit, denied, approval_timeout, outcome_unknown, semantic_failed, merge_failed, no_match, contract_violated, verify_failed, assertion_failed, loop_limit, restore_limit, type_mismatch, parse_failed, none_value, overflow, div_zero, index, key_missing, stack_overflow, out_of_memory, dead_handle, secret_leak, unscripted_call, script_exhausted
        line 1, column 18: `fail` takes a code in quotes
        line 1, column 18: `call` takes a tool's name and a record: `call(find, { q: 1 })`
        line 1, column 25: `call` takes a tool's name and a record: `call(find, { q: 1 })`
        line 1, column 18: `call` takes a tool's name and a record: `call(find, { q: 1 })`
        line 1, column 29: a closing `)` is missing
        line 1, column 19: a duration is written `250ms`, `30s`, `5m`, `2h` or `1d`
        line 1, column 13: `wait(…)` is no turn; there are `fail`, `call` and `after`
        line 1, column 24: a field is there twice
        line 1, column 15: after the field's name `a` stands `:`
        line 1, column 13: `1.2.3` is no number
        line 1, column 12: here stands a text, a record, a list, a number, `true`, `false`, `none` or a label
        line 1, column 8: after `script` stands the name of an agent"#]].assert_eq(&seen.join("\n"));
    let deep = format!("script A => {}", "[".repeat(10_000));
    assert!(Script::parse(&deep).is_err_and(|error| error.message.contains("within each other")));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(script|A|=>|\\[|\\]|\\{|\\}|\"|\\\\|fail|call|after|\\(|\\)|1|ms|,|:|;|\n|//|r\"|\"\"\"|é| ){0,30}") {
        let _ = Script::parse(&text);
    }

    #[test]
    fn any_text_is_answered_as_it_was_written(text in "\\PC{0,40}") {
        let written = text.replace('\\', "\\\\").replace('"', "\\\"").replace('#', "\\#");
        prop_assert_eq!(&answers(&script(&format!("script A => \"{written}\"")), "A")[0], &text);
    }
}

#[test]
fn a_key_asked_again_keeps_its_turn_and_uses_up_no_other() {
    let script = script("script A => [\"one\", \"two\"]");
    let mut seating = Seating::default();
    let mut ask = |seq| match script.next_turn(&mut seating, "A", call(seq, request("")).key) {
        Ok(turn) => format!("{:?}", turn.say),
        Err(miss) => miss.to_string(),
    };
    let seen = [ask(10), ask(10), ask(20), ask(10), ask(30), ask(20)];
    expect![[r#"
        Text("one")
        Text("one")
        Text("two")
        Text("one")
        the script has 2 turns for `A` and this is request 3; add one to its list
        Text("two")"#]]
    .assert_eq(&seen.join("\n"));
    assert_eq!(
        Miss::Unscripted { target: "B".to_owned() }.to_string(),
        "the script has no rule for `B`; add `script B => …`"
    );
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

async fn ask(model: &ScriptedModel, seq: u64) -> Result<ModelReply, ModelError> {
    model.ask(call(seq, request("hi")), &NoChunks).await
}

#[test]
fn a_scripted_model_answers_fails_and_ends_like_any_other() {
    block_on(async {
        let model = ScriptedModel::new(script("script Greeter => [\"a b c\", fail(\"refused\"), after(1h, \"late\")]"));
        let pieces = Pieces::default();
        let reply = model.ask(call(1, request("hi")), &pieces).await.expect("an answer");
        assert_eq!((reply.text.as_str(), pieces.text().as_str()), ("a b c", "a b c"));
        assert_eq!(ask(&model, 2).await.expect_err("it says so").code, RunCode::Refused);
        let mut late = call(3, request("hi"));
        late.deadline = Duration::from_millis(5);
        assert_eq!(model.ask(late, &NoChunks).await.expect_err("an hour is long").code, RunCode::Timeout);
        let gone = call(3, request("hi"));
        gone.cancel.cancel();
        assert_eq!(model.ask(gone, &NoChunks).await.expect_err("given up").code, RunCode::Cancelled);
        assert_eq!(ask(&model, 4).await.expect_err("three turns").code, RunCode::ScriptExhausted);
        let mut other = call(5, request("hi"));
        other.request.agent = "Stranger".to_owned();
        assert_eq!(model.ask(other, &NoChunks).await.expect_err("no rule").code, RunCode::UnscriptedCall);
    });
}

#[test]
fn a_scripted_call_is_one_of_an_offered_tool_or_no_answer() {
    block_on(async {
        let turns = r#"[call(find, { q: "cats" }), "They purr.", call(book, { n: 1 }), call(find, {})]"#;
        let model = ScriptedModel::new(script(&format!("script Greeter => {turns}")));
        let ask = async |seq, request| model.ask(call(seq, request), &NoChunks).await;

        let reply = ask(1, offering(&["find"])).await.expect("a call");
        let key = call(1, request("hi")).key;
        let wish = ToolCall { id: call_id(key, 1), name: "find".to_owned(), arguments: r#"{"q":"cats"}"#.to_owned() };
        assert_eq!((reply.text.as_str(), reply.finish), ("", Finish::ToolCalls));
        assert_eq!(reply.tool_calls, std::slice::from_ref(&wish));
        assert_eq!(ask(1, offering(&["find"])).await.expect("the same again").tool_calls, [wish]);

        let reply = ask(2, offering(&["find"])).await.expect("a text");
        assert_eq!((reply.text.as_str(), reply.finish, reply.tool_calls.len()), ("They purr.", Finish::Stop, 0));

        let mut seen = Vec::new();
        for (seq, request) in [(3, offering(&["find"])), (4, request("hi"))] {
            let error = ask(seq, request).await.expect_err("not offered");
            seen.push(format!("{}: {error}", error.code));
        }
        let required = ModelRequest { tool_choice: ToolChoice::Required, ..offering(&["find"]) };
        let error = ask(2, required).await.expect_err("a text is no call");
        seen.push(format!("{}: {error}", error.code));
        expect![[r#"
            output_invalid: the script asks for the tool `book`, which was not offered; offered: find; correct its turn or what `Greeter` is offered
            output_invalid: the script asks for tools although none were offered; correct its turn or what `Greeter` is offered
            output_invalid: the script asks for no tool although it had to; correct its turn or what `Greeter` is offered"#]].assert_eq(&seen.join("\n"));
    });
}

#[test]
fn a_restarted_process_goes_on_where_the_script_was_even_after_a_torn_line() {
    block_on(async {
        let dir = tempfile::TempDir::new().expect("a temporary folder");
        let journal = dir.path().join("seats");
        let model =
            || ScriptedModel::resuming(script("script Greeter => [\"1\", \"2\", \"3\"]"), &journal).expect("readable");
        let first = model();
        assert_eq!(ask(&first, 10).await.expect("a turn").text, "1");
        assert_eq!(ask(&first, 20).await.expect("a turn").text, "2");
        drop(first);
        let mut torn = fs::read(&journal).expect("written");
        torn.extend_from_slice(b"\ne-12");
        fs::write(&journal, torn).expect("writable");
        let second = model();
        assert_eq!(ask(&second, 20).await.expect("the same turn").text, "2");
        assert_eq!(ask(&second, 30).await.expect("the next").text, "3");
        drop(second);
        assert_eq!(ask(&model(), 30).await.expect("the same turn").text, "3");
    });
}

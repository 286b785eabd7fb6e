//! Of the export of a diary's reader (`examples/diary/diary.nx`, 120 days), which was told each day by a tool.

use super::*;

const DIARY: &str = include_str!("../tests/data/diary.jsonl");
/// The window that its declaration names.
const WINDOW: Tokens = Tokens(2_000);

fn line(role: &str, text: &str, version: u64) -> String {
    let agent = "a-000102030405060708090a0b0c0d0e0f";
    json!({ "role": role, "text": text, "agent_id": agent, "version": version, "number": 0 }).to_string()
}

fn talk(lines: &[(&str, &str)]) -> Recording {
    let lines: Vec<String> = (1..).zip(lines).map(|(version, (role, text))| line(role, text, version)).collect();
    parsed(&lines.join("\n")).unwrap()
}

#[test]
fn an_export_is_read_as_a_node_has_the_conversation() {
    let diary = parsed(DIARY).unwrap();
    assert_eq!(diary.messages.len(), 242, "the question, 120 calls with what came back, and the answer");
    let shown =
        |place: usize| (diary.messages[place].role, diary.messages[place].text.as_str(), diary.messages[place].tokens);
    assert_eq!(shown(0), (Role::User, r#"{"question":"When did we meet the heron?","days":120}"#, 22));
    assert_eq!(shown(1), (Role::Assistant, "", 13), "a call is no text, and takes room");
    assert_eq!(shown(2).1, "Day 1: rain in the morning, and we met the fox by the mill. Walked 3 miles.");
    assert_eq!(shown(241).1, "On day 5 and every fifth day after it.");
}

#[test]
fn calls_are_told_from_what_is_said_before_them() {
    assert_eq!(without_calls("I look.\nentry({\"number\":1})\nentry({\"number\":2})"), "I look.");
    assert_eq!(without_calls("entry({})"), "");
    assert_eq!(without_calls("I look (twice)"), "I look (twice)");
    assert_eq!(without_calls("(twice)\nI look"), "(twice)\nI look");
    let alone = talk(&[("user", "which?"), ("assistant", "max(a, b)"), ("user", "why?")]);
    assert_eq!(alone.messages[1].text, "max(a, b)", "nobody answered it, so it was said");
}

#[test]
fn a_node_asks_once_a_request_when_the_window_is_outgrown() {
    let said = [
        ("user", "When does the train leave?"),
        ("assistant", "I look.\ntimes({})"),
        ("tool", "at nine, and at ten"),
        ("assistant", "At nine."),
        ("user", "And the bus?"),
        ("assistant", "There is none."),
    ];
    let recording = talk(&said);
    let asked = |asking, window| {
        let calls = recording.calls(asking, Tokens(window));
        calls.iter().map(|call| (call.known, call.query.to_owned())).collect::<Vec<_>>()
    };
    let call = |known, place: usize| (known, said[place].1.to_owned());
    assert_eq!(asked(Asking::Person, 20), [call(2, 0), call(4, 4)]);
    assert_eq!(asked(Asking::Newest, 20), [call(2, 2), call(4, 4)], "what the agent says is no query");
    assert_eq!(asked(Asking::Person, 0), [call(2, 0), call(4, 4)], "one message is always sent");
    assert!(asked(Asking::Newest, 1_000).is_empty());
}

#[test]
fn what_is_no_export_is_refused_with_its_line() {
    let why = |lines: &[String]| parsed(&lines.join("\n")).map(|_| ()).unwrap_err();
    let good = line("user", "x", 2);
    assert!(why(&[]).contains("nexa memory export"));
    assert!(why(&[good.clone(), "user: x".into()]).starts_with("line 2: "));
    assert!(why(&[good.replace("\"text\"", "\"words\"")]).ends_with("it has no `text`"));
    assert!(why(&[line("robot", "x", 1)]).ends_with("there is no role `robot`"));
    assert!(why(&[good.clone(), good.clone()]).ends_with("it is out of order"));
    let other = line("user", "x", 3).replace("a-00", "a-ff");
    assert!(why(&[good, other]).contains("it is of a-ff"));
}

/// CP-2 of a conversation that an agent had: what is needed is the same however many pages are active, and by whichever policy.
#[test]
fn the_diary_is_measured_by_every_policy_and_none_beats_the_bound() {
    let diary = parsed(DIARY).unwrap();
    let mut page = String::new();
    let figures = run(&diary, Some(WINDOW), &mut page).unwrap();
    for asking in ["person", "newest"] {
        for active in ACTIVE_PAGES {
            let of_active = &figures[asking][format!("active_{active}")];
            let bound = of_active["belady"]["faults"].as_f64().unwrap();
            assert_eq!(of_active["belady"]["saved_percent"], 100.0);
            let rows = of_active[format!("activates_{active}")].as_object().unwrap();
            let mut names: Vec<&str> = rows.keys().map(String::as_str).collect();
            names.sort_unstable();
            let expected =
                ["hybrid", "lfu", "lru", "relevance", "trace_arc", "trace_lru", "trace_s3_fifo", "trace_sieve"];
            assert_eq!(names, expected);
            for (name, row) in rows {
                assert!(row["faults"].as_f64().unwrap() >= bound, "{asking} {active} {name}: {row}, the bound {bound}");
                assert!(row.get("mean_recall").is_none(), "nobody knows the evidence");
            }
        }
    }
    let mut again = String::new();
    assert_eq!(run(&diary, Some(WINDOW), &mut again).unwrap(), figures);
    assert_eq!(again, page);
    let refused = run(&diary, None, &mut page).unwrap_err();
    assert!(refused.contains("--window"), "{refused}");
}

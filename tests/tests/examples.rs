//! The examples as a person runs them, each as a process with its own data, answered by a script in the model's place.
//! What is between the program and the model is all real: node, store, tools, memory.

use nexa_tests::Desk;
use serde_json::{Value, json};

/// `nexa run examples/NAME/NAME.nx` with an input and a script; gives the workload as it ended.
fn run(desk: &Desk, name: &str, input: &str, script: &str) -> Value {
    let script = desk.write(&format!("{name}.script"), script);
    let script = script.to_str().expect("a plain path");
    let program = format!("examples/{name}/{name}.nx");
    let input = json!(input).to_string();
    let out = desk.run(&["run", &program, "--input", &input, "--script", script, "-o", "json"]).good();
    serde_json::from_str(out.lines().last().expect("a line")).expect("JSON")
}

fn value(ended: &Value) -> &Value {
    &ended["workload"]["outcome"]["ok"]
}

#[test]
fn the_household_reads_its_notes_and_calculates() {
    let desk = Desk::new();
    let ended = run(
        &desk,
        "tools",
        "What do we pay for tea?",
        r#"script Keeper => [call(std_fs_read, { path: "notes/prices.txt" }), call(std_fs_read, { path: "notes/../nexa.toml" }),
            call(calculate, { expression: "4 * 2.75 * 52 / 12" }), "About 47.67 a month."]"#,
    );
    assert_eq!(value(&ended), "About 47.67 a month.");
    assert_eq!(ended["workload"]["spend"]["calls"], 4, "one model request for each turn: {ended}");
}

#[test]
fn the_chat_finds_what_was_said_in_an_earlier_process() {
    let desk = Desk::new();
    let script = r#"script Talk => ["Nice name!", "Ada."]"#;
    assert_eq!(value(&run(&desk, "chat", "My cat is called Ada.", script)), "Nice name!");
    let ended = run(&desk, "chat", "What is my cat called?", script);
    assert_eq!(value(&ended), "Ada.");
    let tokens = |ended: &Value| ended["workload"]["spend"]["tokens_in"].as_u64().expect("tokens are counted");
    let alone = run(&Desk::new(), "chat", "What is my cat called?", r#"script Talk => "Ada.""#);
    assert!(tokens(&ended) > tokens(&alone), "the request holds what was remembered: {ended} {alone}");
}

#[test]
fn the_critic_asks_for_another_draft() {
    let script = r#"script Writer => ["A FIFO.", "A queue is a line."]
script semantic "a child would understand it" => [false, true]
script reflect => "It uses a technical word."
"#;
    assert_eq!(value(&run(&Desk::new(), "critic", "Explain queues.", script)), "A queue is a line.");
}

#[test]
fn the_front_desk_sends_to_whom_the_model_chooses() {
    let script = r#"script Support => "Start it again."
script intent => "says that something does not work"
"#;
    assert_eq!(value(&run(&Desk::new(), "router", "It crashes.", script)), "Start it again.");
}

#[test]
fn the_debate_ends_with_what_both_say() {
    let script = r#"script Optimist => ["Always.", "Mostly."]
script Sceptic => ["Never.", "Mostly."]
script Chair => [{ agreed: false, value: "", reason: "too absolute" }, { agreed: true, value: "Mostly.", reason: "" }]
"#;
    assert_eq!(value(&run(&Desk::new(), "debate", "Tests first?", script)), "Mostly.");
}

#[test]
fn five_hundred_agents_read_the_pages_of_the_language() {
    let desk = Desk::new();
    let folder = nexa_tests::root().join("docs/language");
    let pages =
        std::fs::read_dir(folder).expect("the pages are there").map(|page| page.expect("it can be read").path());
    let mut pages: Vec<_> = pages.filter(|page| page.extension().is_some_and(|kind| kind == "md")).collect();
    pages.sort();
    let text: String = pages.iter().map(|page| std::fs::read_to_string(page).expect("it can be read")).collect();
    assert!(text.len() > 200_000, "{} bytes are no long text", text.len());
    let input = desk.write("long.txt", &text);
    let script = r#"script Reader => "A page of the language."
script Joiner => "Several pages of the language."
script Editor => { title: "The language", summary: "All of it.", topics: ["forks", "loops"] }
"#;
    let script = desk.write("map-reduce.script", script);
    let out = desk.run(&[
        "run",
        "examples/map-reduce/map-reduce.nx",
        "--input-file",
        input.to_str().expect("a plain path"),
        "--script",
        script.to_str().expect("a plain path"),
        "-o",
        "json",
    ]);
    let ended: Value = serde_json::from_str(out.good().lines().last().expect("a line")).expect("JSON");
    let digest = json!({ "title": "The language", "summary": "All of it.", "topics": ["forks", "loops"] });
    assert_eq!(*value(&ended), digest);
    // 500 readers; 63 joiners of eight notes each, and then 8; one editor.
    assert_eq!(ended["workload"]["spend"]["calls"], 500 + 63 + 8 + 1, "{ended}");
    assert_eq!(ended["workload"]["agents"], 1 + 500 + 63 + 8 + 1, "{ended}");
}

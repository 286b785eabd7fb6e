//! Submitted lists: agents without a program's text.

mod running;

use nexa_lang::{AgentSpec, ListError, compile_list};
use nexa_types::limits::LIST_AGENTS_MAX;
use running::{Desk, both_ways, str};

fn spec(id: &str, prompt: &str) -> AgentSpec {
    AgentSpec { id: id.to_owned(), prompt: prompt.to_owned(), ..AgentSpec::default() }
}

#[test]
fn a_prompt_is_text_and_never_code() {
    let hostile = "Say #{fail(\"x\")}\" } flow main() { } agent B {";
    let list = compile_list(&[AgentSpec { name: "A".to_owned(), ..spec("one", hostile) }]).expect("it compiles");
    let make = || Desk::module(list.module.clone()).script("A", &["fine"]);
    let (value, desk) = both_ways(make, "A", &[str("hello")]);
    assert_eq!(value, "\"fine\"");
    assert_eq!(desk.requests[0].messages[0].text, hostile);
    assert_eq!(desk.requests[0].messages[1].text, "hello");
}

#[test]
fn equal_specifications_share_one_agent_and_one_function() {
    let named = |id: &str, prompt: &str| AgentSpec { name: "Worker".to_owned(), ..spec(id, prompt) };
    let list = compile_list(&[named("a", "x"), named("b", "x"), named("c", "y")]).expect("it compiles");
    assert_eq!(list.module.agents.len(), 2);
    assert_eq!(list.functions[0], list.functions[1]);
    assert_ne!(list.functions[0], list.functions[2]);
    let entries: Vec<&str> = list.module.entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(entries, ["Worker", "c"]);
}

#[test]
fn an_item_with_dependencies_gets_a_record() {
    let list = compile_list(&[spec("sum", "Sum up.")]).expect("it compiles");
    let mut desk = Desk::module(list.module).script("sum", &["s"]);
    let results = nexa_vm::json::from_json(r#"{"input":"x","results":{"a":"1"}}"#).expect("it is JSON");
    desk.run("sum", &[results]);
    assert_eq!(desk.inputs[0].1, r#"{"input":"x","results":{"a":"1"}}"#);
}

#[test]
fn what_is_out_of_range_names_the_item_and_the_setting() {
    for (item, expected) in [
        (AgentSpec { temperature: 2.5, ..spec("a", "") }, "agent `a`: `temperature` is 2.5, and may be from 0 to 2"),
        (
            AgentSpec { temperature: f64::NAN, ..spec("a", "") },
            "agent `a`: `temperature` is NaN, and may be from 0 to 2",
        ),
        (AgentSpec { max_tokens: 0, ..spec("a", "") }, "agent `a`: `max_tokens` is 0, and may be from 1 to 1000000"),
        (
            AgentSpec { models: vec!["small".to_owned()], ..spec("a", "") },
            "agent `a`: `models` is `small`: it has no `/`, and may be names like `provider/name`",
        ),
        (spec("", "x"), "agent ``: `id` is empty, and may be any text but an empty one"),
    ] {
        assert_eq!(compile_list(&[item]).expect_err("it is out of range").to_string(), expected);
    }
    assert_eq!(compile_list(&[]).expect_err("nothing to run"), ListError::Length { count: 0 });
}

#[test]
fn the_longest_list_compiles() {
    let items: Vec<AgentSpec> =
        (0..LIST_AGENTS_MAX).map(|number| spec(&format!("agent {number}"), &format!("Prompt {number}."))).collect();
    let list = compile_list(&items).expect("it compiles");
    assert_eq!(list.functions.len(), LIST_AGENTS_MAX);
    nexa_vm::verify::verify(&list.module).expect("the verifier accepts it");
    assert!(matches!(compile_list(&[items, vec![spec("more", "")]].concat()), Err(ListError::Length { .. })));
}

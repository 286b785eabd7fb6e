//! Submitted lists: agents without a program's text.

mod running;

use nexa_lang::{AgentSpec, ListError, Needs, compile_list};
use nexa_types::limits::LIST_AGENTS_MAX;
use nexa_vm::module::Schedule;
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
        (
            spec(&"é".repeat(129), "x"),
            "agent `éééééééééééééééééééééééééééééééé…`: `id` is 258 bytes long, and may be at most 256 bytes",
        ),
        (
            AgentSpec { weight: Some(f64::NAN), ..spec("a", "") },
            "agent `a`: `weight` is NaN, and may be from 0 to 1000000",
        ),
        (
            AgentSpec { estimated_duration_ms: Some(u64::MAX), ..spec("a", "") },
            "agent `a`: `estimated_duration_ms` is 18446744073709551615, and may be from 0 to 2592000000",
        ),
        (
            AgentSpec { needs: Needs { memory_mib: Some(65), ..Needs::default() }, ..spec("a", "") },
            "agent `a`: `needs.memory_mib` is 65, and may be from 1 to 64",
        ),
        (
            AgentSpec { labels: (0..17).map(|n| (n.to_string(), String::new())).collect(), ..spec("a", "") },
            "agent `a`: `labels` is a list of 17, and may be at most 16",
        ),
        (
            AgentSpec { gang: "g".repeat(257), ..spec("a", "") },
            "agent `a`: `gang` is 257 bytes long, and may be at most 256 bytes",
        ),
    ] {
        assert_eq!(compile_list(&[item]).expect_err("it is out of range").to_string(), expected);
    }
    assert_eq!(compile_list(&[]).expect_err("nothing to run"), ListError::Length { count: 0 });
}

#[test]
fn what_is_said_for_scheduling_reaches_the_module_and_makes_no_further_agents() {
    let weighty = AgentSpec {
        weight: Some(2.5),
        priority: 200,
        needs: Needs { cpu_milli: Some(500), memory_mib: Some(16), llm_slots: Some(2) },
        ..spec("b", "Work.")
    };
    let long = AgentSpec {
        estimated_duration_ms: Some(9),
        gang: "g".to_owned(),
        labels: [("zone".to_owned(), "eu".to_owned())].into(),
        name: "a".to_owned(),
        ..spec("c", "Work.")
    };
    let list = compile_list(&[spec("a", "Work."), weighty, long]).expect("it compiles");
    assert_eq!((list.functions[0] == list.functions[2], list.module.agents.len()), (true, 2));
    let usual = Schedule::default();
    let expected = Schedule {
        priority: 200,
        weight: 2.5,
        estimate: usual.estimate,
        cpu_milli: 500,
        memory_bytes: 16 << 20,
        llm_slots: 2,
    };
    assert_eq!(list.module.schedule_of(list.functions[1]), expected);
    assert_eq!(list.module.schedule_of(list.functions[0]), usual);
    nexa_vm::verify::verify(&list.module).expect("the verifier accepts it");
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

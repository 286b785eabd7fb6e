//! Programs in the Nexa language on a node: compiled, put, run, killed, gone on with.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::sync::atomic::Ordering;

use futures::future::join_all;
use nexa_event::effect::{ModelRequest, Role};
use nexa_event::fact::AgentEvent;
use nexa_types::{AgentId, AgentState, Millis, Seq, TenantId, Waiting};
use nexa_vm::json;
use nexa_vm::module::Module;
use nexa_vm::value::Value;

use support::job::Job;
use support::model::FakeModel;
use support::{Desk, config, program, until};

const REVIEW: &str = r##"
protocol Verdict { summary: str, score: int }

agent Clarity(document: str) { prompt: "What is hard to understand?", max_tokens: 80 }
agent Risk(document: str) { prompt: "What could go wrong?", max_tokens: 80 }
agent Style(document: str) { prompt: "How could it be written better?", max_tokens: 80 }
agent Chief(reviews: str) -> Verdict { prompt: "Make one verdict of these reviews.", repair: 2 }

flow main(document: str) -> Verdict {
    return document |>> [clarity: Clarity, risk: Risk, style: Style] &>> Chief
}
"##;

const LETTER: &str = r##"
agent Draft(letter: str) { prompt: "Write a short answer." }

flow main(letter: str) -> str {
    let draft = letter >> Draft
    let decision = approve("Send this answer?", data: { answer: draft }, timeout: 1h)
    sleep(2s)
    return match decision {
        approved(by, note) => "#{by} sent: #{draft}"
        denied(by, note) => "#{by} did not send it"
    }
}
"##;

const DETACHED: &str = r##"
agent A { prompt: "First view." }
agent B { prompt: "Second view." }

flow tell(q: str) -> str { return q || [A, B] }
flow main(q: str) -> str {
    let r = fork [tell("#{q}1"), tell("#{q}2")]
    return "#{r[0]?} #{r[1]?}" || [A, tell]
}
"##;

const FIRST: &str = r##"
agent A { prompt: "First view." }

flow late(q: str) -> str { sleep(1h); return "late" }
flow main(q: str) -> str { return (q |>> [late, A, late] merge first(timeout: 2h)) >> A }
"##;

const MESSAGES: &str = r"
flow reader(count: int) -> int {
    let sum = 0
    let i = 0
    while (i < count) { let n: int = receive(); sum = sum * 3 % 1_000_003 + n; i += 1 }
    return sum
}
flow main(count: int) -> int {
    let child = spawn reader(count)
    let i = 0
    while (i < count) { i += 1; pass i to child }
    return await child
}
";

fn compiled(text: &str) -> Module {
    let result = nexa_lang::compile_text("test.nx", text);
    let shown: Vec<String> = result.diagnostics.iter().map(|diagnostic| format!("{diagnostic:?}")).collect();
    result.module.unwrap_or_else(|| panic!("{shown:#?}"))
}

/// Reviewers say something; the chief first says nonsense and repairs it when told.
fn answer(request: &ModelRequest) -> String {
    let was_told = request.messages.iter().any(|message| message.role == Role::Assistant);
    match request.agent.as_str() {
        "Chief" if was_told => r#"{ "summary": "readable", "score": 7 }"#.into(),
        "Chief" => "I like it.".into(),
        name => format!("{name} has read it."),
    }
}

#[tokio::test]
async fn a_review_with_a_repair_survives_a_death_at_any_append() {
    let model = || FakeModel::asked_for(2, |request| Ok(answer(request)));
    let job = Job { module: compiled(REVIEW), args: vec![Value::Str("A long text.".into())], model: Box::new(model) };
    let (outcome, _) = job.undisturbed().await;
    let nexa_types::Outcome::Ok(payload) = outcome else { panic!("{outcome:?}") };
    let verdict = json::to_json(&nexa_vm::codec::decode(&payload).unwrap());
    assert_eq!(verdict, r#"{"summary":"readable","score":7}"#);
    job.survives_a_death_at_any_append().await;
}

#[tokio::test]
async fn detached_branches_all_run_once_after_a_death_at_any_append() {
    let model = || FakeModel::asked_for(2, |request| Ok(answer(request)));
    let job = Job { module: compiled(DETACHED), args: vec![Value::Str("q".into())], model: Box::new(model) };
    let (outcome, _) = job.undisturbed().await;
    let nexa_types::Outcome::Ok(payload) = outcome else { panic!("{outcome:?}") };
    assert_eq!(nexa_vm::codec::decode(&payload).unwrap(), Value::Str("q1 q2".into()));
    job.survives_a_death_at_any_append().await;
}

#[tokio::test]
async fn the_first_branch_stays_the_first_after_a_death_at_any_append() {
    let model = || FakeModel::asked_for(2, |request| Ok(answer(request)));
    let job = Job { module: compiled(FIRST), args: vec![Value::Str("q".into())], model: Box::new(model) };
    job.survives_a_death_at_any_append().await;
}

#[tokio::test]
async fn messages_are_recorded_many_at_a_time_and_survive_a_death_at_any_append() {
    let count = 200;
    let job = Job { module: compiled(MESSAGES), args: vec![Value::Int(count)], model: Box::new(|| FakeModel::echo(1)) };
    let (outcome, appends) = job.undisturbed().await;
    let nexa_types::Outcome::Ok(payload) = outcome else { panic!("{outcome:?}") };
    let sum = (1..=count).fold(0, |sum, n| sum * 3 % 1_000_003 + n);
    assert_eq!(nexa_vm::codec::decode(&payload).unwrap(), Value::Int(sum));
    assert!(appends < 20, "{appends} appends for {count} messages");
    job.survives_a_death_at_any_append().await;
}

#[tokio::test]
async fn a_letter_waits_for_a_person_and_for_the_clock_across_restarts() {
    let desk = Desk::with_still_clock(FakeModel::echo(1));
    let module = compiled(LETTER);
    let main = module.entries.iter().find(|entry| entry.name == "main").unwrap().function;
    desk.submit(9, &module).await;
    let args = vec![Value::Str("Dear all".into())];
    let workload = desk.submit_program("n1", 1, module.hash(), main, args).await;
    let root = AgentId::root(workload);

    let first = desk.start(config("n1")).await;
    desk.reaches(root, AgentState::Waiting(Waiting::Approval)).await;
    drop(first);
    let second = desk.start(config("n1")).await;
    desk.approve(&second, workload, root, Seq(2)).await;
    desk.reaches(root, AgentState::Waiting(Waiting::Timer)).await;
    drop(second);

    let third = desk.start(config("n1")).await;
    let clock = desk.sim.clone().unwrap();
    clock.advance(Millis(2_000));
    let text = desk.text(workload).await;
    assert!(text.starts_with("ada sent: <"), "{text}");
    until("the last act", || third.stats().model_calls_in_flight == 0).await;
    assert!(desk.model.asked().values().all(|attempts| attempts.len() == 1), "nothing was asked twice");
}

#[tokio::test]
async fn many_puts_at_the_same_time_all_succeed() {
    let desk = Desk::new(FakeModel::echo(1));
    let (node, way) = desk.start_mortal(None).await;
    way.yields.store(true, Ordering::SeqCst);
    let tenant = TenantId::local();
    let modules: Vec<Module> = (0..40).map(program::says).collect();
    let names: Vec<String> = (0..40).map(|n| format!("program {n}")).collect();
    let puts = modules.iter().zip(&names).map(|(module, name)| node.put_program(&tenant, module, name, desk.stamp()));
    for (put, module) in join_all(puts).await.into_iter().zip(&modules) {
        assert_eq!(put.unwrap().hash(), module.hash());
    }
    let other = desk.start(config("n2")).await;
    for module in &modules {
        assert!(other.program(&tenant, module.hash()).await.is_ok());
    }
}

#[tokio::test]
async fn putting_the_same_program_again_writes_nothing() {
    let desk = Desk::new(FakeModel::echo(1));
    let (node, way) = desk.start_mortal(None).await;
    let (tenant, module) = (TenantId::local(), program::says(1));
    node.put_program(&tenant, &module, "one", desk.stamp()).await.unwrap();
    let written = || (Desk::appends(&way), way.blobs_put.load(Ordering::SeqCst));
    let once = written();
    node.put_program(&tenant, &module, "one", desk.stamp()).await.unwrap();
    assert_eq!(written(), once);
    node.put_program(&tenant, &module, "uno", desk.stamp()).await.unwrap();
    node.put_program(&tenant, &program::says(2), "one", desk.stamp()).await.unwrap();
    node.put_program(&tenant, &module, "one", desk.stamp()).await.unwrap();
    assert_eq!(written().0, once.0 + 3, "another name, another program, and the first one back are news");
}

#[tokio::test]
async fn an_earlier_answer_serves_another_run_for_nothing_and_is_gone_with_its_node() {
    let desk = Desk::new(FakeModel::asked_for(2, |request| Ok(answer(request))));
    let module = compiled(
        "agent A { prompt: \"Read.\", cache: \"exact\" }\nflow main(q: str) -> str { return \"#{A.run(q)} #{A.run(q)}\" }",
    );
    let main = module.entries.iter().find(|entry| entry.name == "main").unwrap().function;
    let run = async |node: &nexa_runtime::Node, number: u8, text: &str| {
        let workload = desk.submit_program("n1", number, module.hash(), main, vec![Value::Str(text.into())]).await;
        node.wake(AgentId::root(workload)).unwrap();
        assert_eq!(desk.text(workload).await, "A has read it. A has read it.");
        let events = desk.events(AgentId::root(workload)).await;
        let Some(AgentEvent::Ended { spend, .. }) = events.last() else { panic!("{events:?}") };
        (spend.calls, spend.tokens().0 > 0)
    };
    let count = |node: &nexa_runtime::Node| (node.stats().model_calls, node.stats().reused_answers);

    let first = desk.start(config("n1")).await;
    first.put_program(&TenantId::local(), &module, "test", desk.stamp()).await.unwrap();
    assert_eq!(run(&first, 1, "one").await, (1, true));
    assert_eq!(run(&first, 2, "one").await, (0, false));
    assert_eq!(run(&first, 3, "two").await, (1, true));
    assert_eq!((count(&first), desk.model.asked_count()), ((2, 4), 2));
    drop(first);

    let second = desk.start(config("n1")).await;
    assert_eq!(run(&second, 4, "one").await, (1, true));
    assert_eq!((count(&second), desk.model.asked_count()), ((1, 1), 3));
}

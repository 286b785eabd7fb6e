//! Commands and queries through a real door.

mod desk;

use desk::{Desk, append_as_owner, asks_person, connect, emits, model_answers, reason, started, submission, text};
use futures::FutureExt;
use nexa_client::new_request_id;
use nexa_event::fact::{AgentEvent, EffectResult};
use nexa_gateway::mediator::{Access, Identity, Tokens};
use nexa_ports::store::{Store, StoreError};
use nexa_proto::v1;
use nexa_proto::v1::workload_service_client::WorkloadServiceClient;
use nexa_types::{AgentState, Failure, Outcome, PrincipalId, RunCode, Seq, Spend, TenantId};

fn get(id: impl ToString) -> v1::WorkloadServiceGetRequest {
    v1::WorkloadServiceGetRequest { workload_id: id.to_string() }
}

fn cancel(id: impl ToString) -> v1::WorkloadServiceCancelRequest {
    v1::WorkloadServiceCancelRequest { workload_id: id.to_string(), ..Default::default() }
}

#[tokio::test]
async fn submitting_again_under_one_request_id_gives_the_first_answer() {
    let desk = Desk::open().await;
    let request = v1::WorkloadServiceSubmitRequest { request_id: new_request_id(), ..submission("one") };
    let first = desk.client.submit(request.clone()).await.expect("accepted");
    assert_eq!(desk.client.submit(request.clone()).await.expect("the same"), first);
    let at_once = futures::future::join_all((0..8).map(|_| desk.client.submit(request.clone()))).await;
    assert!(at_once.into_iter().all(|answer| answer.expect("the same") == first));
    let other = v1::WorkloadServiceSubmitRequest { priority: Some(7), ..request };
    assert_eq!(reason(desk.client.submit(other).await), "ALREADY_EXISTS");
    let listed = desk.client.workloads(Default::default()).await.expect("a list");
    assert_eq!(listed.workloads.len(), 1);
    assert!(desk.host.woken.lock().expect("unpoisoned").contains(&first.root_agent_id.parse().expect("an id")));
}

#[tokio::test]
async fn eight_equal_submissions_at_once_make_one_workload() {
    let desk = Desk::open().await;
    let request = v1::WorkloadServiceSubmitRequest { request_id: new_request_id(), ..submission("one") };
    let answers = futures::future::join_all((0..8).map(|_| desk.client.submit(request.clone()))).await;
    let mut answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("accepted").workload_id).collect();
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(desk.client.workloads(Default::default()).await.expect("a list").workloads.len(), 1);
}

#[tokio::test]
async fn a_workload_can_be_got_as_soon_as_it_is_accepted() {
    let desk = Desk::open().await;
    let workload = desk.submitted("fresh").await;
    let got = desk.client.workload(get(workload.id)).await.expect("found").workload.expect("a workload");
    assert_eq!((got.name.as_str(), got.state(), got.agents), ("fresh", v1::WorkloadState::Submitted, 1));
    desk.writes(workload.root, vec![started()]).await;
    let got = desk.client.workload(get(workload.id)).await.expect("found").workload.expect("a workload");
    assert_eq!(got.state(), v1::WorkloadState::Running);
    desk.ends(workload, "done").await;
    let got = desk.client.workload(get(workload.id)).await.expect("found").workload.expect("a workload");
    assert_eq!(got.state(), v1::WorkloadState::Succeeded);
    let agent_id = workload.root.to_string();
    let agent = desk.client.agent(v1::AgentServiceGetRequest { agent_id }).await.expect("found").agent.expect("one");
    assert_eq!((agent.state(), agent.version, agent.name.as_str()), (v1::AgentState::Succeeded, 3, "main"));
}

#[tokio::test]
async fn pages_leave_nothing_out_and_show_nothing_twice_while_more_is_added() {
    let desk = Desk::open().await;
    let mut expected = Vec::new();
    for number in 0..23 {
        expected.push(desk.submitted(&format!("w{number}")).await.id.to_string());
    }
    expected.reverse();
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::WorkloadServiceListRequest { page_size: 5, page_token, ..Default::default() };
        let page = desk.client.workloads(request).await.expect("a page");
        assert!(page.workloads.len() <= 5);
        seen.extend(page.workloads.into_iter().map(|workload| workload.workload_id));
        desk.submitted("meanwhile").await;
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(seen, expected);
    let wrong = v1::AgentServiceListRequest { page_token: "w0000000000000001".into(), ..Default::default() };
    assert_eq!(reason(desk.client.agents(wrong).await), "CURSOR_INVALID");
    let negative = v1::AgentServiceListRequest { page_size: -1, ..Default::default() };
    assert_eq!(reason(desk.client.agents(negative).await), "INVALID_ARGUMENT");
}

#[tokio::test]
async fn a_list_waits_for_what_its_caller_has_seen() {
    let desk = Desk::open().await;
    desk.submitted("one").await;
    let min_seq = desk.store.head().borrow().0;
    let request = v1::WorkloadServiceListRequest { min_seq, ..Default::default() };
    let page = desk.client.workloads(request).await.expect("a page");
    assert!(page.applied_seq >= min_seq);
    assert_eq!(page.workloads.len(), 1);
}

#[tokio::test]
async fn a_cancel_is_durable_once_and_told_again() {
    let desk = Desk::open().await;
    let workload = desk.submitted("one").await;
    desk.client.cancel(cancel(workload.id)).await.expect("cancelled");
    desk.host.woken.lock().expect("unpoisoned").clear();
    desk.client.cancel(cancel(workload.id)).await.expect("and told again");
    assert_eq!(*desk.host.woken.lock().expect("unpoisoned"), [workload.root], "whose first wake may have been lost");
    let row = desk.store.row(workload.root).await.expect("a row").expect("the root");
    assert!(row.cancelled);
    assert_eq!(desk.store.inbox(workload.root, 10).await.expect("an inbox").len(), 1);
    let ended = desk.submitted("two").await;
    desk.writes(ended.root, vec![started()]).await;
    desk.ends(ended, "done").await;
    assert_eq!(reason(desk.client.cancel(cancel(ended.id)).await), "ALREADY_ENDED");
    let unknown = format!("w-{}", "0".repeat(32));
    assert_eq!(reason(desk.client.cancel(cancel(unknown)).await), "NOT_FOUND");
}

#[tokio::test]
async fn the_first_answer_to_an_approval_counts() {
    let desk = Desk::open().await;
    let workload = desk.submitted("one").await;
    desk.writes(workload.root, vec![started()]).await;
    desk.writes(workload.root, asks_person(1, "Deploy to production?")).await;
    let waiting = desk.client.approvals(Default::default()).await.expect("a list").approvals;
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        (waiting[0].question.as_str(), waiting[0].data_json.as_str()),
        ("Deploy to production?", "{\"cost\":3}")
    );
    let answer = |approved, note: &str| v1::ApprovalServiceAnswerRequest {
        approval_id: waiting[0].approval_id.clone(),
        approved,
        note: note.to_owned(),
        ..Default::default()
    };
    desk.client.answer(answer(true, "go")).await.expect("accepted");
    desk.client.answer(answer(true, "go")).await.expect("the same answer is accepted again");
    assert_eq!(reason(desk.client.answer(answer(false, "wait")).await), "NOT_WAITING");
    assert_eq!(desk.store.inbox(workload.root, 10).await.expect("an inbox").len(), 1);
    let never = v1::ApprovalServiceAnswerRequest { approval_id: format!("{}/9", workload.root), ..Default::default() };
    assert_eq!(reason(desk.client.answer(never).await), "NOT_FOUND");
    desk.ends(workload, "gone on").await;
    assert_eq!(reason(desk.client.answer(answer(false, "wait")).await), "NOT_WAITING");
}

#[tokio::test]
async fn an_answer_that_comes_as_its_question_expires_is_not_accepted() {
    let desk = Desk::open().await;
    let workload = desk.submitted("one").await;
    desk.writes(workload.root, vec![started()]).await;
    desk.writes(workload.root, asks_person(1, "Deploy to production?")).await;
    let (store, root) = (desk.store.clone(), workload.root);
    *desk.host.at_next_wake.lock().expect("unpoisoned") = Some(Box::new(move || {
        let failure = Failure::new(RunCode::ApprovalTimeout, "nobody answered the approval in time");
        let (seq, result) = (Seq(1), EffectResult::Failed(failure));
        let expired = vec![AgentEvent::EffectEnded { seq, result, spend: Spend::default() }];
        // The store in memory never waits.
        append_as_owner(&store, root, expired, AgentState::Running, None).now_or_never().expect("it is stored");
    }));
    let approval_id = format!("{}/1", workload.root);
    let answer = v1::ApprovalServiceAnswerRequest { approval_id, approved: true, ..Default::default() };
    assert_eq!(reason(desk.client.answer(answer.clone()).await), "NOT_WAITING");
    assert_eq!(
        desk.store.inbox(workload.root, 10).await.expect("an inbox").len(),
        1,
        "it waits and counts for nothing"
    );
    assert_eq!(reason(desk.client.answer(answer).await), "NOT_WAITING");
}

#[tokio::test]
async fn a_list_of_failures_with_much_data_fits_into_a_message() {
    let desk = Desk::open().await;
    let mut ids = Vec::new();
    for number in 0..50 {
        let workload = desk.submitted(&format!("w{number}")).await;
        let mut failure = Failure::new(RunCode::Refused, "agent `b` failed");
        failure.data = Some(text(&"x".repeat(500 << 10)));
        failure.cause = Some(Box::new(Failure::new(RunCode::Refused, "y".repeat(60 << 10))));
        desk.writes(workload.root, vec![started()]).await;
        desk.ends_with(workload, Outcome::Err(failure)).await;
        ids.push(workload.id);
    }
    let request = v1::WorkloadServiceListRequest { page_size: 500, ..Default::default() };
    let listed = desk.client.workloads(request).await.expect("a page").workloads;
    let request = v1::AgentServiceListRequest { page_size: 500, ..Default::default() };
    let agents = desk.client.agents(request).await.expect("a page").agents;
    let outcomes = listed.into_iter().map(|view| view.outcome).chain(agents.into_iter().map(|view| view.outcome));
    let mut shown = 0;
    for outcome in outcomes {
        let Some(v1::outcome::Result::Failure(failure)) = outcome.expect("it ended").result else {
            panic!("it failed")
        };
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("refused", "agent `b` failed"));
        assert_eq!((failure.data_json.len(), failure.cause), (0, None));
        shown += 1;
    }
    assert_eq!(shown, 100);
    let whole =
        desk.client.workload(get(ids[0])).await.expect("found").workload.expect("one").outcome.expect("it ended");
    let Some(v1::outcome::Result::Failure(failure)) = whole.result else { panic!("it failed") };
    assert_eq!(
        (failure.data_json.len(), failure.cause.is_some()),
        ((500 << 10) + 2, true),
        "whoever asks for one gets all"
    );
}

#[tokio::test]
async fn a_message_is_sent_once_per_request_id() {
    let desk = Desk::open().await;
    let workload = desk.submitted("one").await;
    let send = v1::AgentServiceSendRequest {
        request_id: new_request_id(),
        agent_id: workload.root.to_string(),
        value_json: r#"{"words":["a","b"]}"#.into(),
    };
    desk.client.send(send.clone()).await.expect("accepted");
    desk.client.send(send.clone()).await.expect("accepted");
    assert_eq!(desk.store.inbox(workload.root, 10).await.expect("an inbox").len(), 1);
    let other = v1::AgentServiceSendRequest { value_json: r#"{"words":[]}"#.into(), ..send.clone() };
    assert_eq!(reason(desk.client.send(other).await), "ALREADY_EXISTS");
    assert_eq!(desk.store.inbox(workload.root, 10).await.expect("an inbox").len(), 1);
    let broken = v1::AgentServiceSendRequest { value_json: "{".into(), ..send.clone() };
    assert_eq!(reason(desk.client.send(broken).await), "INVALID_ARGUMENT");
    desk.writes(workload.root, vec![started()]).await;
    desk.ends(workload, "done").await;
    let late = v1::AgentServiceSendRequest { request_id: String::new(), ..send };
    assert_eq!(reason(desk.client.send(late).await), "ALREADY_ENDED");
}

#[tokio::test]
async fn history_is_found_by_words() {
    let desk = Desk::open().await;
    let workload = desk.submitted("one").await;
    desk.writes(workload.root, vec![started(), emits(1, "x")]).await;
    desk.writes(workload.root, desk::asks_model(2)).await;
    desk.writes(workload.root, vec![model_answers(2, "The rain in Spain stays mainly in the plain")]).await;
    let find = |query: &str| v1::HistoryServiceSearchRequest { query: query.to_owned(), ..Default::default() };
    let found = desk.client.search(find("spain rain")).await.expect("an answer").hits;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].kind.as_str(), found[0].agent_name.as_str()), ("model_replied", "main"));
    assert!(found[0].snippet.contains("Spain"));
    assert!(desk.client.search(find("snow")).await.expect("an answer").hits.is_empty());
    assert_eq!(reason(desk.client.search(find("  ")).await), "INVALID_ARGUMENT");
    assert_eq!(reason(desk.client.search(find(&"x".repeat(2_000))).await), "INVALID_ARGUMENT");
}

#[tokio::test]
async fn what_belongs_to_another_tenant_is_not_found() {
    let person = |tenant: &str, name: &str, access| Identity {
        tenant: TenantId::new(tenant).expect("a good name"),
        principal: PrincipalId::new(name).expect("a good name"),
        access,
    };
    let file = [
        Tokens::line("ann-secret", &person("a", "ann", Access::Full)),
        Tokens::line("bob-secret", &person("b", "bob", Access::Full)),
        Tokens::line("eve-secret", &person("a", "eve", Access::Read)),
    ]
    .join("\n");
    let tokens = std::sync::Arc::new(Tokens::parse(&file).expect("a good file"));
    let desk = Desk::with(|builder| builder.tokens(tokens)).await;
    let ann = connect(&desk.address, Some("ann-secret")).await;
    let bob = connect(&desk.address, Some("bob-secret")).await;
    let eve = connect(&desk.address, Some("eve-secret")).await;

    let workload = desk.submitted_by(&ann, "ann's").await;
    desk.writes(workload.root, vec![started()]).await;
    desk.writes(workload.root, asks_person(1, "Really?")).await;
    let agent_id = workload.root.to_string();
    let got = ann.workload(get(workload.id)).await.expect("hers").workload.expect("a workload");
    assert_eq!(got.principal, "ann");
    assert_eq!(reason(bob.workload(get(workload.id)).await), "NOT_FOUND");
    let plan = v1::WorkloadServiceGetPlanRequest { workload_id: workload.id.to_string() };
    assert_eq!(reason(bob.plan(plan).await), "NOT_FOUND");
    assert_eq!(reason(bob.cancel(cancel(workload.id)).await), "NOT_FOUND");
    assert_eq!(reason(bob.agent(v1::AgentServiceGetRequest { agent_id: agent_id.clone() }).await), "NOT_FOUND");
    assert_eq!(reason(bob.snapshot(v1::AgentServiceSnapshotRequest { agent_id: agent_id.clone() }).await), "NOT_FOUND");
    let send = v1::AgentServiceSendRequest { agent_id: agent_id.clone(), value_json: "1".into(), ..Default::default() };
    assert_eq!(reason(bob.send(send).await), "NOT_FOUND");
    let approval_id = format!("{agent_id}/1");
    let answer = v1::ApprovalServiceAnswerRequest { approval_id, approved: true, ..Default::default() };
    assert_eq!(reason(bob.answer(answer.clone()).await), "NOT_FOUND");
    use futures::StreamExt;
    let watch = bob.watch_workload(workload.id.to_string(), Default::default(), true).next().await;
    assert_eq!(reason(watch.expect("an answer")), "NOT_FOUND");
    let watch = bob.watch_agent(agent_id, Default::default(), true).next().await;
    assert_eq!(reason(watch.expect("an answer")), "NOT_FOUND");
    assert!(bob.workloads(Default::default()).await.expect("a list").workloads.is_empty());
    assert!(bob.agents(Default::default()).await.expect("a list").agents.is_empty());
    assert!(bob.approvals(Default::default()).await.expect("a list").approvals.is_empty());
    assert!(bob.programs(Default::default()).await.expect("a list").programs.is_empty());
    let module_hash = ann.programs(Default::default()).await.expect("a list").programs[0].module_hash.clone();
    assert_eq!(reason(bob.program(v1::ProgramServiceGetRequest { module_hash }).await), "NOT_FOUND");

    assert_eq!(eve.workloads(Default::default()).await.expect("she may read").workloads.len(), 1);
    assert_eq!(reason(eve.cancel(cancel(workload.id)).await), "PERMISSION_DENIED");
    assert_eq!(reason(eve.answer(answer.clone()).await), "PERMISSION_DENIED");
    ann.answer(answer).await.expect("hers to answer");

    let missing = desk.client.workload(get(workload.id)).await.expect_err("no token");
    let wrong = connect(&desk.address, Some("ann-Secret")).await.workload(get(workload.id)).await.expect_err("wrong");
    assert_eq!(reason::<()>(Err(missing.clone())), "UNAUTHENTICATED");
    assert_eq!(missing.to_string(), wrong.to_string(), "nobody learns what was wrong");
    assert_eq!(missing.hint(), wrong.hint());
}

#[tokio::test]
async fn malformed_requests_are_refused_by_the_name_of_the_field() {
    use v1::workload_service_submit_request::Program;
    let desk = Desk::open().await;
    let refused = async |request: v1::WorkloadServiceSubmitRequest| {
        let error = desk.client.submit(request).await.expect_err("refused");
        let refusal = error.refusal().expect("a reason").clone();
        (refusal.reason.as_str(), refusal.violations.first().map(|first| first.field.clone()).unwrap_or_default())
    };
    let good = || submission("one");
    type Request = v1::WorkloadServiceSubmitRequest;
    let invalid = |field: &str| ("INVALID_ARGUMENT", field.to_owned());
    for (request, expected) in [
        (Request { request_id: "7".into(), ..good() }, invalid("request_id")),
        (Request { program: None, ..good() }, invalid("program")),
        (Request { program: Some(Program::ModuleHash("m-12".into())), ..good() }, invalid("module_hash")),
        (Request { priority: Some(256), ..good() }, invalid("priority")),
        (Request { name: "x".repeat(129), ..good() }, invalid("name")),
        (Request { name: "a\nb".into(), ..good() }, invalid("name")),
        (Request { entry: "other".into(), ..good() }, invalid("entry")),
        (Request { input_json: "{".into(), ..good() }, invalid("input_json")),
        (Request { input_json: "[1]".into(), ..good() }, invalid("input_json")),
        (Request { input_json: "{}".into(), ..good() }, invalid("input_json.topic")),
        (Request { input_json: r#"{"topic":1}"#.into(), ..good() }, invalid("input_json.topic")),
        (Request { input_json: r#"{"topic":"a","more":1}"#.into(), ..good() }, invalid("input_json.more")),
        (Request { input_json: "[".repeat(100_000), ..good() }, invalid("input_json")),
        (Request { program: Some(Program::AgentList(Default::default())), ..good() }, invalid("input_json")),
        (
            Request { program: Some(Program::AgentList(Default::default())), input_json: String::new(), ..good() },
            invalid("agent_list.agents"),
        ),
    ] {
        assert_eq!(refused(request).await, expected);
    }
    let unknown = Request { program: Some(Program::ModuleHash(format!("m-{}", "0".repeat(64)))), ..good() };
    assert_eq!(reason(desk.client.submit(unknown).await), "NOT_FOUND");
    assert_eq!(reason(desk.client.workload(get("w-xyz")).await), "INVALID_ARGUMENT");
    assert!(desk.client.workloads(Default::default()).await.expect("a list").workloads.is_empty());
}

#[tokio::test]
async fn a_program_with_errors_is_refused_with_each_of_them() {
    let desk = Desk::open().await;
    let put = v1::ProgramServicePutRequest {
        program: Some(v1::program_service_put_request::Program::Source(v1::Source {
            name: "broken.nx".into(),
            text: "flow main() -> str {\n    return missing\n}\n".into(),
        })),
        ..Default::default()
    };
    let error = desk.client.put_program(put).await.expect_err("refused");
    let refusal = error.refusal().expect("a reason");
    assert_eq!(refusal.reason.as_str(), "PROGRAM_INVALID");
    assert!(refusal.violations[0].field.starts_with("broken.nx:2:"), "{refusal:?}");
    assert!(refusal.violations[0].description.starts_with('E'), "{refusal:?}");
    for bytes in [vec![], b"NXB1".to_vec(), vec![0xff; 1000]] {
        let module = Some(v1::program_service_put_request::Program::Module(bytes));
        let put = v1::ProgramServicePutRequest { program: module, ..Default::default() };
        assert_eq!(reason(desk.client.put_program(put).await), "PROGRAM_INVALID");
    }
}

#[tokio::test]
async fn a_put_program_tells_what_it_offers_and_runs_by_its_hash() {
    let desk = Desk::open().await;
    let module = desk::program().encode();
    let put = v1::ProgramServicePutRequest {
        program: Some(v1::program_service_put_request::Program::Module(module)),
        name: "by hand".into(),
        ..Default::default()
    };
    let program = desk.client.put_program(put.clone()).await.expect("kept").program.expect("a program");
    assert_eq!(desk.client.put_program(put).await.expect("kept").program, Some(program.clone()));
    let module_hash = program.module_hash.clone();
    let get = v1::ProgramServiceGetRequest { module_hash: module_hash.clone() };
    assert_eq!(desk.client.program(get).await.expect("found").program, Some(program.clone()));
    let params: Vec<_> = program.entries[1].params.iter().map(|param| (param.name.as_str(), param.optional)).collect();
    assert_eq!(params, [("topic", false), ("times", true)]);
    let listed = desk.client.programs(Default::default()).await.expect("a list").programs;
    assert_eq!((listed.len(), listed[0].name.as_str()), (1, "by hand"));
    let submit = v1::WorkloadServiceSubmitRequest {
        program: Some(v1::workload_service_submit_request::Program::ModuleHash(module_hash.clone())),
        entry: "repeat".into(),
        ..submission("")
    };
    let answer = desk.client.submit(submit).await.expect("accepted");
    assert_eq!(answer.module_hash, module_hash);
}

#[tokio::test]
async fn a_huge_message_is_refused_and_the_connection_lives_on() {
    let desk = Desk::open().await;
    let channel = tonic::transport::Endpoint::from_shared(desk.address.clone()).expect("an address");
    let channel = channel.connect().await.expect("the door is open");
    let mut raw = WorkloadServiceClient::new(channel).max_encoding_message_size(usize::MAX);
    let huge = v1::WorkloadServiceSubmitRequest { input_json: "x".repeat(32 << 20), ..submission("huge") };
    let status = raw.submit(huge).await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
    let large = v1::WorkloadServiceSubmitRequest { input_json: "x".repeat(5 << 20), ..submission("large") };
    let status = raw.submit(large).await.expect_err("refused");
    let refusal = nexa_proto::refusal::Refusal::from_status(&status).expect("a reason");
    assert_eq!(refusal.violations[0].field, "request_id", "{refusal:?}");
    let large = v1::WorkloadServiceSubmitRequest { input_json: "x".repeat(5 << 20), ..submission("large") };
    assert_eq!(reason(desk.client.submit(large).await), "INVALID_ARGUMENT");
    desk.client.workloads(Default::default()).await.expect("the door still answers");
}

#[tokio::test]
async fn garbage_on_the_wire_ends_its_own_connection_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let desk = Desk::open().await;
    let address = desk.address.trim_start_matches("http://").to_owned();
    for garbage in [b"\xff\x00nonsense".repeat(1_000), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff".to_vec()]
    {
        let mut wire = tokio::net::TcpStream::connect(&address).await.expect("the door is open");
        // The door may hang up before it has read everything.
        let _ = wire.write_all(&garbage).await;
        let mut said = Vec::new();
        let _ = tokio::time::timeout(desk::SOON, wire.read_to_end(&mut said)).await.expect("the door hangs up");
    }
    desk.client.workloads(Default::default()).await.expect("the door still answers");
}

#[tokio::test]
async fn a_command_is_tried_again_when_the_store_was_away() {
    let desk = Desk::open().await;
    desk.submitted("warm").await;
    desk.store.fail_next(StoreError::Unavailable { detail: "a test".into() });
    desk.submitted("away for a moment").await;
    desk.store.lose_next_answer();
    desk.submitted("stored, and the answer lost").await;
    let listed = desk.client.workloads(Default::default()).await.expect("a list").workloads;
    assert_eq!(listed.len(), 3);
    desk.store.fail_next(StoreError::DiskFull);
    let error = desk.client.submit(submission("no room")).await.expect_err("refused");
    assert_eq!(error.reason().expect("a reason").as_str(), "DISK_FULL");
    assert!(error.hint().contains("free some space"));
}

#[tokio::test]
async fn a_closing_door_ends_watches_and_takes_no_new_work() {
    use futures::StreamExt;
    let desk = Desk::open().await;
    let workload = desk.submitted("one").await;
    let channel = tonic::transport::Endpoint::from_shared(desk.address.clone()).expect("an address");
    let mut raw = WorkloadServiceClient::new(channel.connect().await.expect("the door is open"));
    let request = v1::WorkloadServiceWatchRequest { workload_id: workload.id.to_string(), ..Default::default() };
    let mut frames = raw.watch(request).await.expect("a watch").into_inner();
    frames.next().await.expect("a frame").expect("a snapshot");
    desk.shutdown.cancel();
    let status = loop {
        match frames.next().await.expect("an answer") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    let refusal = nexa_proto::refusal::Refusal::from_status(&status).expect("a reason");
    assert_eq!(refusal.reason.as_str(), "DRAINING");
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    let desk = Desk::open().await;
    let channel = tonic::transport::Endpoint::from_shared(desk.address.clone()).expect("an address");
    let channel = channel.connect().await.expect("the door is open");
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "nexa.liveness", "nexa.readiness"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.expect("an answer");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(futures::stream::iter([ask]))
        .await
        .expect("an answer")
        .into_inner();
    let answer = answers.message().await.expect("an answer").expect("one").message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = answer else { panic!("a list") };
    let names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"nexa.v1.WorkloadService".to_owned()), "{names:?}");
}

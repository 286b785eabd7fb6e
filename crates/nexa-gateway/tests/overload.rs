//! Far more work than a node takes: who is refused, how, and what goes on meanwhile.

mod desk;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use desk::{Desk, SOON, reason, submission};
use nexa_client::{Client, ClientError, Options, Patience, Throttling, new_request_id};
use nexa_gateway::admission::{Admission, AdmitLimits, Excess};
use nexa_gateway::doors::{DoorConfig, Gateway};
use nexa_gateway::handlers::Handlers;
use nexa_gateway::host::Host;
use nexa_gateway::mediator::{Access, Identity, Layer, Mediator, Tokens, order};
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_proto::v1;
use nexa_runtime::{Node, NodeConfig, NodeStats, Ports};
use nexa_store::SqliteStore;
use nexa_types::{Millis, NodeId, PrincipalId, TenantId};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const SOURCE: &str = "\
flow listening(topic: str) -> str {
    let heard: str = receive()
    return \"#{topic}: #{heard}\"
}

flow quick(topic: str) -> str { return topic }
";

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

fn dice() -> Arc<dyn Dice> {
    Arc::new(SeededDice::new(5))
}

/// A client that sends each call once.
async fn blunt(address: &str, token: Option<&str>) -> Client {
    let patience = Patience { deadline: SOON, attempts_max: 1, ..Patience::default() };
    let options =
        Options { token: token.map(str::to_owned), patience, throttling: Throttling::Off, ..Options::default() };
    Client::connect(address, options).await.expect("the door is open")
}

#[track_caller]
fn is_overloaded<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Duration {
    let error = answer.expect_err("there is no room");
    let refusal = error.refusal().unwrap_or_else(|| panic!("not from the server: {error:?}"));
    assert_eq!(refusal.reason.as_str(), "OVERLOADED", "{refusal:?}");
    assert_eq!(nexa_proto::refusal::code(refusal.reason), tonic::Code::ResourceExhausted);
    refusal.retry_after.expect("a time to come back")
}

/// A model that nobody asks.
struct NoModel;

impl Model for NoModel {
    fn ask<'a>(
        &'a self,
        _: ModelCall,
        _: &'a dyn Chunks,
    ) -> futures::future::BoxFuture<'a, Result<nexa_event::effect::ModelReply, ModelError>> {
        Box::pin(async { Err(ModelError::new(nexa_types::RunCode::Failed, "nobody asks")) })
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(1)
    }

    fn lane(&self, _: &str) -> String {
        "none".into()
    }
}

/// A node on disk behind a door with little room.
struct House {
    address: String,
    client: Client,
    node: Node,
    admission: Admission,
    /// The most agents that the node had at any request.
    most: Arc<AtomicUsize>,
    /// The longest that a refusal took, from the layer before admission, in microseconds.
    slowest_refusal: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl House {
    async fn open(limits: AdmitLimits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(SqliteStore::open(folder.path(), nexa_store::Options::default()).expect("it opens"));
        let (clock, dice) = (clock(), dice());
        let ports = Ports {
            store: store.clone(),
            memories: store.clone(),
            model: Arc::new(NoModel),
            tools: Arc::new(nexa_ports::tool::NoTools),
            clock: clock.clone(),
            dice: dice.clone(),
            neighbours: Arc::new(nexa_ports::neighbours::Alone),
            fence: Arc::new(nexa_runtime::fence::Always),
        };
        let config = NodeConfig {
            idle_before_dormant: Millis(3_600_000),
            ..NodeConfig::new(NodeId::new("n1").expect("a good name"))
        };
        let node = Node::start(config, ports).await.expect("the node starts");
        let host: Arc<dyn Host> = Arc::new(node.clone());
        let handlers = Handlers::new(store.clone(), store, host.clone(), clock.clone());
        let closing = handlers.closing().clone();
        let admission = Admission::new(host, limits, clock.clone(), dice.clone());
        let (most, slowest_refusal) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let noting = {
            let (node, most, slowest) = (node.clone(), most.clone(), slowest_refusal.clone());
            Layer::new(
                order::ADMIT - 1,
                "note",
                |_| true,
                tower::layer::layer_fn(move |next: nexa_gateway::mediator::Next| {
                    let (node, most, slowest) = (node.clone(), most.clone(), slowest.clone());
                    tower::util::service_fn(move |call| {
                        let (node, most, slowest, next) = (node.clone(), most.clone(), slowest.clone(), next.clone());
                        async move {
                            let came = Instant::now();
                            let answer = next.oneshot(call).await;
                            let NodeStats { live_agents, waiting_agents, dormant_agents, .. } = node.stats();
                            most.fetch_max(live_agents + waiting_agents + dormant_agents, Ordering::Relaxed);
                            if answer.is_err() {
                                slowest.fetch_max(came.elapsed().as_micros() as usize, Ordering::Relaxed);
                            }
                            answer
                        }
                    })
                }),
            )
        };
        let mediator =
            Mediator::builder(handlers.into_end(), clock, dice).admission(admission.clone()).layer(noting).build();
        let shutdown = CancellationToken::new();
        let listen = "127.0.0.1:0".parse().expect("an address");
        let gateway = Gateway::new(mediator, closing);
        let served = gateway.serve(&listen, DoorConfig::default(), shutdown.clone()).await.expect("a free port");
        let client = blunt(&served.address, None).await;
        Self { address: served.address, client, node, admission, most, slowest_refusal, shutdown, _folder: folder }
    }

    fn request(entry: &str) -> v1::WorkloadServiceSubmitRequest {
        use v1::workload_service_submit_request::Program;
        v1::WorkloadServiceSubmitRequest {
            request_id: new_request_id(),
            program: Some(Program::Source(v1::Source { name: "house.nx".into(), text: SOURCE.into() })),
            entry: entry.into(),
            input_json: r#"{"topic":"rain"}"#.into(),
            ..Default::default()
        }
    }

    async fn state(&self, workload_id: &str) -> v1::WorkloadState {
        let get = v1::WorkloadServiceGetRequest { workload_id: workload_id.to_owned() };
        self.client.workload(get).await.expect("found").workload.expect("one").state()
    }

    async fn until(&self, workload_id: &str, state: v1::WorkloadState) {
        let ended = async {
            while self.state(workload_id).await != state {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, ended).await.expect("it ends");
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.node.drain(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_enough_refuses_at_once_and_finishes_what_it_took() {
    const ROOM: usize = 20;
    const OFFERED: usize = 400;
    let house = House::open(AdmitLimits { present_agents_max: ROOM, ..AdmitLimits::default() }).await;
    let offers: Vec<_> = (0..OFFERED).map(|_| House::request("listening")).collect();
    let answers = futures::future::join_all(offers.iter().map(|offer| house.client.submit(offer.clone()))).await;
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for (offer, answer) in offers.into_iter().zip(answers) {
        match answer {
            Ok(answer) => taken.push((offer, answer)),
            refusal => {
                let wait = is_overloaded(refusal);
                assert!(wait >= AdmitLimits::default().retry_after_min, "{wait:?}");
                refused.push(offer);
            }
        }
    }
    // None ends by itself, so there is room for exactly so many.
    assert_eq!((taken.len(), refused.len()), (ROOM, OFFERED - ROOM));
    assert_eq!(house.admission.refused()[&Excess::Present], (OFFERED - ROOM) as u64);

    // It is as full as it may be, and people can help themselves.
    is_overloaded(house.client.submit(House::request("quick")).await);
    for (offer, answer) in &taken {
        assert_eq!(&house.client.submit(offer.clone()).await.expect("accepted before"), answer);
    }
    assert_eq!(house.client.workloads(Default::default()).await.expect("a list").workloads.len(), ROOM);
    let (_, cancelled) = taken.pop().expect("some");
    let cancel = v1::WorkloadServiceCancelRequest { workload_id: cancelled.workload_id.clone(), ..Default::default() };
    house.client.cancel(cancel).await.expect("cancelled");
    house.until(&cancelled.workload_id, v1::WorkloadState::Cancelled).await;

    // Everything that was accepted ends well, by messages that go through.
    for (_, answer) in &taken {
        let (agent_id, value_json) = (answer.root_agent_id.clone(), "\"go\"".to_owned());
        let send = v1::AgentServiceSendRequest { agent_id, value_json, ..Default::default() };
        house.client.send(send).await.expect("sent");
    }
    for (_, answer) in &taken {
        house.until(&answer.workload_id, v1::WorkloadState::Succeeded).await;
    }
    // A place that becomes free is given to who asks again.
    let again = refused.pop().expect("some");
    let accepted = tokio::time::timeout(SOON, async {
        loop {
            if let Ok(answer) = house.client.submit(again.clone()).await {
                return answer;
            }
        }
    });
    accepted.await.expect("there is room now");
    let most = house.most.load(Ordering::Relaxed);
    assert!(most <= ROOM, "{most} agents had not ended at once");
    let slowest = house.slowest_refusal.load(Ordering::Relaxed);
    println!("the slowest refusal took {slowest} µs");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_when_they_are_told_get_everything_done() {
    let limits = AdmitLimits {
        entering_max: 2,
        present_agents_max: 6,
        retry_after_min: Duration::from_millis(1),
        retry_after_max: Duration::from_millis(20),
        ..AdmitLimits::default()
    };
    let house = House::open(limits).await;
    let patience = Patience { deadline: SOON, attempts_max: 10_000, ..Patience::default() };
    // A client each, so that each has retries of its own.
    let work = (0..24).map(async |_| {
        let options = Options { patience, ..Options::default() };
        let client = Client::connect(&house.address, options).await.expect("the door is open");
        loop {
            match client.submit(House::request("quick")).await {
                Ok(answer) => return answer,
                // Its budget for retries is used up.
                Err(error) => {
                    assert_eq!(error.reason().map(nexa_types::Reason::as_str), Some("OVERLOADED"), "{error:?}")
                }
            }
        }
    });
    for answer in futures::future::join_all(work).await {
        house.until(&answer.workload_id, v1::WorkloadState::Succeeded).await;
    }
    assert!(house.most.load(Ordering::Relaxed) <= 6);
    house.close().await;
}

/// A still host whose admission has these limits.
async fn still(limits: AdmitLimits, tokens: Option<Tokens>) -> Desk {
    Desk::with_host(|host, builder| {
        let admission = Admission::new(host, limits, clock(), dice());
        let builder = builder.admission(admission);
        match tokens {
            Some(tokens) => builder.tokens(Arc::new(tokens)),
            None => builder,
        }
    })
    .await
}

#[tokio::test]
async fn what_was_accepted_before_a_restart_is_looked_up_for_who_repeats_it() {
    use nexa_proto::v1::workload_service_client::WorkloadServiceClient;
    let desk = still(AdmitLimits::default(), None).await;
    let request = v1::WorkloadServiceSubmitRequest { request_id: new_request_id(), ..submission("one") };
    let first = desk.client.submit(request.clone()).await.expect("accepted");
    let store = desk.store.clone();
    drop(desk);

    let full = NodeStats { live_agents: 30_000, ..NodeStats::default() };
    let desk = Desk::over_host(store, |host, builder| {
        *host.stats.lock().expect("unpoisoned") = full;
        builder.admission(Admission::new(host, AdmitLimits::default(), clock(), dice()))
    })
    .await;
    let mut raw = WorkloadServiceClient::connect(desk.address.clone()).await.expect("the door is open");
    let mut repeated = async |request: v1::WorkloadServiceSubmitRequest| {
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("grpc-previous-rpc-attempts", 1.into());
        raw.submit(request).await.map(tonic::Response::into_inner).map_err(ClientError::from)
    };
    assert_eq!(repeated(request.clone()).await.expect("accepted before"), first);
    let new = v1::WorkloadServiceSubmitRequest { request_id: new_request_id(), ..submission("two") };
    is_overloaded(repeated(new).await);
    let blunt = blunt(&desk.address, None).await;
    is_overloaded(blunt.submit(request).await);
    assert!(blunt.workloads(Default::default()).await.is_ok());
}

/// Counts the calls whose messages were read.
fn counting(read: &Arc<AtomicUsize>) -> Layer {
    let read = read.clone();
    let layer = tower::layer::layer_fn(move |next: nexa_gateway::mediator::Next| {
        let read = read.clone();
        tower::util::service_fn(move |call| {
            read.fetch_add(1, Ordering::Relaxed);
            next.clone().oneshot(call)
        })
    });
    Layer::new(order::AUTHENTICATE - 1, "count", |_| true, layer)
}

#[tokio::test]
async fn while_it_is_full_calls_are_refused_by_their_heads_and_nobody_gets_another_answer_for_it() {
    use nexa_proto::v1::workload_service_client::WorkloadServiceClient;
    let read = Arc::<AtomicUsize>::default();
    let people = [("ann", Access::Full), ("eve", Access::Read)].map(|(name, access)| {
        let principal = PrincipalId::new(name).expect("a good name");
        Tokens::line(name, &Identity { principal, access, ..Identity::local() })
    });
    let tokens = Tokens::parse(&people.join("\n")).expect("a good file");
    let desk = Desk::with_host(|host, builder| {
        let admission = Admission::new(host, AdmitLimits::default(), clock(), dice());
        builder.admission(admission).tokens(Arc::new(tokens)).layer(counting(&read))
    })
    .await;
    let ann = blunt(&desk.address, Some("ann")).await;
    let reads = |what: &str, wanted| assert_eq!(read.swap(0, Ordering::Relaxed), wanted, "{what}");

    let before = v1::WorkloadServiceSubmitRequest { request_id: new_request_id(), ..submission("one") };
    let accepted = ann.submit(before.clone()).await.expect("there is room");
    *desk.host.stats.lock().expect("unpoisoned") = NodeStats { live_agents: 30_000, ..NodeStats::default() };
    is_overloaded(ann.submit(submission("two")).await);
    reads("nobody was refused until now", 2);
    let wait = is_overloaded(ann.submit(submission("two")).await);
    assert!(wait >= AdmitLimits::default().retry_after_min, "{wait:?}");
    reads("now that there is a crowd, new work is not even read", 0);
    assert_eq!(ann.submit(before).await.expect("accepted before"), accepted);
    reads("what was accepted before is", 1);
    assert!(ann.workloads(Default::default()).await.is_ok());
    reads("and who looks", 1);
    assert_eq!(reason(blunt(&desk.address, Some("mallory")).await.submit(submission("two")).await), "UNAUTHENTICATED");
    assert_eq!(reason(blunt(&desk.address, Some("eve")).await.submit(submission("two")).await), "PERMISSION_DENIED");
    reads("and who may not submit", 2);

    let mut raw = WorkloadServiceClient::connect(desk.address.clone()).await.expect("the door is open");
    let mut sent = async |headers: &[(&'static str, &'static str)]| {
        let message = v1::WorkloadServiceSubmitRequest { request_id: new_request_id(), ..submission("two") };
        let mut request = tonic::Request::new(message);
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().expect("a good header"));
        }
        is_overloaded(raw.submit(request).await.map_err(ClientError::from));
    };
    const ANN: (&str, &str) = ("authorization", "Bearer ann");
    const ID: (&str, &str) = (nexa_proto::REQUEST_ID, "0197a3c2-0000-7000-8000-000000000001");
    sent(&[ANN]).await;
    reads("whose head does not say which request it is", 1);
    sent(&[ANN, (ID.0, "not an id")]).await;
    reads("or says nonsense", 1);
    sent(&[ANN, ID, ("grpc-previous-rpc-attempts", "1")]).await;
    reads("who does not know what became of it", 1);
    sent(&[ANN, ID]).await;
    reads("anybody else", 0);

    // There is room again, and heads that pass are judged by the layer, which gives them their place.
    *desk.host.stats.lock().expect("unpoisoned") = NodeStats::default();
    ann.submit(submission("three")).await.expect("there is room again");
    reads("at once", 1);
}

#[tokio::test]
async fn a_program_is_kept_while_agents_are_too_many_and_not_while_the_disk_is_behind() {
    let desk = still(AdmitLimits::default(), None).await;
    let blunt = blunt(&desk.address, None).await;
    let put = || {
        use v1::program_service_put_request::Program;
        let source = v1::Source { name: "main.nx".into(), text: desk::SOURCE.into() };
        v1::ProgramServicePutRequest { program: Some(Program::Source(source)), ..Default::default() }
    };
    let is = |stats| *desk.host.stats.lock().expect("unpoisoned") = stats;
    is(NodeStats { waiting_agents: 20_000, ..NodeStats::default() });
    is_overloaded(blunt.submit(submission("one")).await);
    blunt.put_program(put()).await.expect("no agents come of it");
    is(NodeStats { store_oldest_ms: 500, ..NodeStats::default() });
    is_overloaded(blunt.submit(submission("one")).await);
    is_overloaded(blunt.put_program(put()).await);
    is(NodeStats::default());
    blunt.submit(submission("one")).await.expect("accepted");
}

#[tokio::test]
async fn a_tenant_that_floods_the_door_leaves_others_their_part() {
    let people = ["ann", "bob"].map(|name| {
        let identity = Identity {
            tenant: TenantId::new(name).expect("a good name"),
            principal: PrincipalId::new(name).expect("a good name"),
            ..Identity::local()
        };
        Tokens::line(name, &identity)
    });
    let tokens = Tokens::parse(&people.join("\n")).expect("a good file");
    let desk = still(AdmitLimits { unstarted_max: 8, ..AdmitLimits::default() }, Some(tokens)).await;
    let (ann, bob) = (blunt(&desk.address, Some("ann")).await, blunt(&desk.address, Some("bob")).await);
    let coming = |are: bool| *desk.host.are_coming.lock().expect("unpoisoned") = are;
    let takes = async |client: &Client| {
        let mut taken = 0;
        for _ in 0..16 {
            match client.submit(submission("one")).await {
                Ok(_) => taken += 1,
                refusal => drop(is_overloaded(refusal)),
            }
        }
        taken
    };
    coming(true);
    assert_eq!(takes(&ann).await, 8, "alone she has every place");
    assert_eq!(takes(&bob).await, 0);
    // All of them begin; the next look sees it.
    coming(false);
    let begun = async { while bob.submit(submission("one")).await.is_err() {} };
    tokio::time::timeout(SOON, begun).await.expect("places become free");
    coming(true);
    let (of_ann, of_bob) = (takes(&ann).await, takes(&bob).await);
    assert!(of_ann <= 4 && of_bob >= 3, "ann has {of_ann}, bob {of_bob} and at most one before");
    assert_eq!(reason(blunt(&desk.address, None).await.submit(submission("one")).await), "UNAUTHENTICATED");
}

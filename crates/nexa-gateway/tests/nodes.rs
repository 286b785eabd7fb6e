//! Nodes through a door: who may ask, what a node without others says, and who is told of what among several.

mod desk;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use desk::{Desk, SOON, Said, connect, reason, submission};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use nexa_event::envelope::Fact;
use nexa_event::formats::{Floor, Formats};
use nexa_gateway::fleet::{Fleet, FleetError, FormatsView, NodeLoad, NodeState, NodeView};
use nexa_gateway::mediator::{Access, Identity, Tokens};
use nexa_ports::neighbours::{Carried, Neighbours};
use nexa_ports::store::{Place, Store};
use nexa_proto::v1;
use nexa_types::{AgentId, EffectKey, Epoch, NodeId, PrincipalId, StreamId, TenantId, Version};

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a good name")
}

/// Nodes that do as they are told and remember it.
#[derive(Default)]
struct Told {
    said: Mutex<Vec<String>>,
    states: Mutex<BTreeMap<&'static str, NodeState>>,
    has_leader: Mutex<bool>,
    /// Agents that may still be born on the first of them.
    room: Mutex<usize>,
}

impl Told {
    fn two() -> Arc<Self> {
        let told = Self::default();
        *told.states.lock().expect("no test panics here") =
            BTreeMap::from([("n1", NodeState::Ready), ("n2", NodeState::Ready)]);
        *told.has_leader.lock().expect("no test panics here") = true;
        Arc::new(told)
    }

    fn note(&self, what: String) {
        self.said.lock().expect("no test panics here").push(what);
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().expect("no test panics here"))
    }
}

impl Fleet for Told {
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeView>, FleetError>> {
        let states = self.states.lock().expect("no test panics here");
        let load = NodeLoad { agents: 7, resident_bytes: 64 << 20, ..NodeLoad::default() };
        let nodes = states
            .iter()
            .map(|(name, state)| NodeView {
                id: node(name),
                generation: 3,
                state: *state,
                is_leader: *name == "n2",
                is_self: *name == "n1",
                door: String::new(),
                link: "127.0.0.1:1".into(),
                build: "1".into(),
                labels: BTreeMap::from([("zone".into(), if *name == "n1" { "eu" } else { "us" }.into())]),
                cpu_milli: 2_000,
                memory_bytes: 0,
                load: Some(load),
            })
            .collect();
        futures::future::ready(Ok(nodes)).boxed()
    }

    fn cordon<'a>(&'a self, node: &'a NodeId, undo: bool) -> BoxFuture<'a, Result<(), FleetError>> {
        async move {
            if !*self.has_leader.lock().expect("no test panics here") {
                *self.has_leader.lock().expect("no test panics here") = true;
                return Err(FleetError::NoLeader);
            }
            self.note(format!("{} {node}", if undo { "uncordon" } else { "cordon" }));
            Ok(())
        }
        .boxed()
    }

    fn drain<'a>(&'a self, node: &'a NodeId) -> BoxFuture<'a, Result<(), FleetError>> {
        async move { Err(FleetError::NoSuchNode { node: node.clone() }) }.boxed()
    }

    fn migrate(&self, agent: AgentId, to: Option<NodeId>) -> BoxFuture<'_, Result<(), FleetError>> {
        async move {
            if to == Some(node("n3")) {
                return Err(FleetError::Unfit { why: "it is full".into() });
            }
            self.note(format!("migrate {agent}"));
            Ok(())
        }
        .boxed()
    }

    fn rebalance(&self) -> BoxFuture<'_, Result<(), FleetError>> {
        self.note("rebalance".into());
        futures::future::ready(Ok(())).boxed()
    }

    fn formats(&self) -> BoxFuture<'_, Result<FormatsView, FleetError>> {
        let reads = [("n1", 1, 4), ("n2", 2, 3)];
        let reads = reads.map(|(name, oldest, newest)| (node(name), Formats { oldest, newest }));
        let view = FormatsView { floor: Floor { announced: 3, written: 2 }, reads: reads.into() };
        futures::future::ready(Ok(view)).boxed()
    }

    fn raise_format(&self, format: u16, by: PrincipalId) -> BoxFuture<'_, Result<(), FleetError>> {
        async move {
            if format > 3 {
                return Err(FleetError::Unread { format, why: "node n2 reads formats up to 3".into() });
            }
            self.note(format!("raise {format} by {by}"));
            Ok(())
        }
        .boxed()
    }
}

impl Neighbours for Told {
    fn wake(&self, node: &NodeId, agents: &[AgentId]) {
        self.note(format!("wake {} on {node}", agents.len()));
    }

    fn unplaced(&self, agents: &[AgentId]) {
        self.note(format!("{} unplaced", agents.len()));
    }

    fn room(&self, wanted: usize) -> usize {
        let mut room = self.room.lock().expect("no test panics here");
        let granted = wanted.min(*room);
        *room -= granted;
        granted
    }

    fn deliver(&self, _: &NodeId, _: &Carried) {}

    fn recorded(&self, _: &NodeId, _: AgentId, _: EffectKey) {}
}

fn migrate(agent: impl ToString, to: &str) -> v1::AgentServiceMigrateRequest {
    v1::AgentServiceMigrateRequest { agent_id: agent.to_string(), node: to.into() }
}

fn cordon(name: &str, undo: bool) -> v1::ClusterServiceCordonRequest {
    v1::ClusterServiceCordonRequest { node: name.into(), undo }
}

fn drain(name: &str) -> v1::ClusterServiceDrainRequest {
    v1::ClusterServiceDrainRequest { node: name.into() }
}

fn raise(format: u32) -> v1::ClusterServiceRaiseFormatRequest {
    v1::ClusterServiceRaiseFormatRequest { format }
}

#[tokio::test]
async fn a_node_without_others_lists_itself_and_moves_nothing() {
    let desk = Desk::open().await;
    let workload = desk.submitted("alone").await;
    let client = &desk.client;
    let nodes = client.nodes(v1::ClusterServiceListNodesRequest {}).await.expect("a list").nodes;
    let [only] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!((only.name.as_str(), only.state()), ("n1", v1::NodeState::Ready));
    assert!(only.is_leader && only.is_self && only.load.is_some());
    let refused = client.migrate(migrate(workload.root, "")).await.expect_err("there is nowhere to go");
    assert_eq!(refused.reason().map(|reason| reason.as_str()), Some("NO_NODE"));
    assert!(refused.to_string().contains("runs alone") && refused.hint().contains("docs/cluster.md"), "{refused}");
    assert_eq!(client.migrate(migrate(workload.root, "n1")).await.expect("it is there").node, "n1");
    assert_eq!(reason(client.migrate(migrate(workload.root, "n2")).await), "NOT_FOUND");
    assert_eq!(reason(client.cordon(cordon("n1", false)).await), "NO_NODE");
    assert_eq!(reason(client.drain(drain("n1")).await), "NO_NODE");
    assert_eq!(reason(client.drain(drain("n2")).await), "NOT_FOUND");
    assert_eq!(reason(client.drain(drain("a b")).await), "INVALID_ARGUMENT");
    client.rebalance(v1::ClusterServiceRebalanceRequest {}).await.expect("nothing to do");
    let formats = client.formats(Default::default()).await.expect("what it writes");
    let newest = u32::from(Formats::THIS_BUILD.newest);
    assert_eq!((formats.written, formats.announced, formats.newest), (newest, newest, newest));
    assert_eq!(formats.nodes, [v1::NodeFormats { node: "n1".into(), oldest: newest, newest }]);
    client.raise_format(raise(newest)).await.expect("it is so");
    assert_eq!(reason(client.raise_format(raise(newest + 1)).await), "UNREAD");
    for nonsense in [0, 65_536] {
        assert_eq!(reason(client.raise_format(raise(nonsense)).await), "INVALID_ARGUMENT");
    }
    desk.ends(workload, "done").await;
    assert_eq!(reason(client.migrate(migrate(workload.root, "")).await), "ALREADY_ENDED");
    let nobody = AgentId::from_bytes([9; 16]);
    assert_eq!(reason(client.migrate(migrate(nobody, "")).await), "NOT_FOUND");
}

#[tokio::test]
async fn nodes_are_for_operators() {
    let person = |name: &str, access| Identity {
        tenant: TenantId::new("a").expect("a good name"),
        principal: PrincipalId::new(name).expect("a good name"),
        access,
    };
    let lines = [("ann", Access::Full), ("eve", Access::Read), ("otto", Access::Operator)]
        .map(|(name, access)| Tokens::line(name, &person(name, access)));
    let tokens = Arc::new(Tokens::parse(&lines.join("\n")).expect("a good file"));
    let told = Told::two();
    let fleet = Arc::clone(&told);
    let desk = Desk::arranged(|handlers| handlers.fleet(fleet), |builder| builder.tokens(tokens)).await;
    let otto = connect(&desk.address, Some("otto")).await;
    let workload = desk.submitted_by(&connect(&desk.address, Some("ann")).await, "hers").await;
    for name in ["ann", "eve"] {
        let client = connect(&desk.address, Some(name)).await;
        let denied = client.nodes(v1::ClusterServiceListNodesRequest {}).await.expect_err(name);
        assert_eq!(denied.reason().map(|reason| reason.as_str()), Some("PERMISSION_DENIED"));
        assert!(denied.hint().contains("`operator`"), "{}", denied.hint());
        assert_eq!(reason(client.cordon(cordon("n1", false)).await), "PERMISSION_DENIED");
        assert_eq!(reason(client.drain(drain("n1")).await), "PERMISSION_DENIED");
        assert_eq!(reason(client.rebalance(Default::default()).await), "PERMISSION_DENIED");
        assert_eq!(reason(client.migrate(migrate(workload.root, "")).await), "PERMISSION_DENIED");
        assert_eq!(reason(client.watch_nodes().await.map(drop)), "PERMISSION_DENIED");
        assert_eq!(reason(client.formats(Default::default()).await), "PERMISSION_DENIED");
        assert_eq!(reason(client.raise_format(raise(3)).await), "PERMISSION_DENIED");
    }
    assert!(told.said().is_empty(), "nothing was passed on");
    assert_eq!(otto.nodes(v1::ClusterServiceListNodesRequest {}).await.expect("a list").nodes.len(), 2);
    // What it says is what the row says, whoever moved it.
    assert_eq!(otto.migrate(migrate(workload.root, "")).await.expect("moved").node, "n1");
    assert_eq!(reason(otto.migrate(migrate(workload.root, "n3")).await), "NO_NODE");
    // A leader that is being elected is asked again by the client itself.
    *told.has_leader.lock().expect("no test panics here") = false;
    otto.cordon(cordon("n2", false)).await.expect("after an election");
    otto.cordon(cordon("n2", true)).await.expect("undone");
    otto.rebalance(Default::default()).await.expect("moves");
    let formats = otto.formats(Default::default()).await.expect("all read 3");
    assert_eq!((formats.written, formats.announced, formats.newest, formats.nodes.len()), (2, 3, 3, 2));
    otto.raise_format(raise(3)).await.expect("all read it");
    let unread = otto.raise_format(raise(4)).await.expect_err("n2 does not");
    assert_eq!(unread.reason().map(|reason| reason.as_str()), Some("UNREAD"));
    assert!(
        unread.to_string().contains("n2 reads formats up to 3") && unread.hint().contains("nexa formats"),
        "{unread}"
    );
    let passed_on = ["migrate", "cordon n2", "uncordon n2", "rebalance", "raise 3 by otto"];
    assert_eq!(
        told.said().iter().map(|said| said.replace(&format!(" {}", workload.root), "")).collect::<Vec<_>>(),
        passed_on
    );
}

#[tokio::test]
async fn a_watch_shows_nodes_when_they_change_and_only_then() {
    let told = Told::two();
    let fleet = Arc::clone(&told);
    let desk = Desk::arranged(|handlers| handlers.fleet(fleet), |builder| builder).await;
    let mut lists = Box::pin(desk.client.watch_nodes().await.expect("operators may"));
    let first = lists.next().await.expect("at once").expect("a list");
    assert_eq!(first.iter().map(v1::Node::state).collect::<Vec<_>>(), [v1::NodeState::Ready; 2]);
    assert_eq!(first[0].labels["zone"], "eu");
    told.states.lock().expect("no test panics here").insert("n2", NodeState::Suspected);
    let second = tokio::time::timeout(SOON, lists.next()).await.expect("in time").expect("goes on").expect("a list");
    assert_eq!(second[1].state(), v1::NodeState::Suspected);
    // A client goes on to the next door, and says nothing of this.
    let channel = tonic::transport::Endpoint::from_shared(desk.address.clone()).expect("an address");
    let mut raw = v1::cluster_service_client::ClusterServiceClient::new(channel.connect().await.expect("it is open"));
    let mut lists = raw.watch(v1::ClusterServiceWatchRequest {}).await.expect("operators may").into_inner();
    lists.message().await.expect("at once").expect("a list");
    desk.shutdown.cancel();
    let last = tokio::time::timeout(SOON, lists.message()).await.expect("in time").expect_err("it is told");
    assert_eq!(reason(Err::<(), _>(last.into())), "DRAINING");
}

#[tokio::test]
async fn among_others_a_root_has_no_owner_until_it_gets_one_and_whoever_owns_it_is_told() {
    let told = Told::two();
    let neighbours = Arc::clone(&told);
    let desk = Desk::arranged(|handlers| handlers.among(neighbours), |builder| builder).await;
    let request = v1::WorkloadServiceSubmitRequest {
        request_id: "0192d3e4-0000-7000-8000-000000000001".into(),
        ..submission("placed")
    };
    let answer = desk.client.submit(request.clone()).await.expect("accepted");
    let root: AgentId = answer.root_agent_id.parse().expect("an agent id");
    let row = desk.store.row(root).await.expect("a store").expect("a row");
    assert_eq!((row.node, row.epoch), (None, Epoch(0)));
    assert_eq!(told.said(), ["1 unplaced"]);
    let send = |client: nexa_client::Client| async move {
        let message =
            v1::AgentServiceSendRequest { agent_id: root.to_string(), value_json: "1".into(), ..Default::default() };
        client.send(message).await.expect("in the inbox");
    };
    send(desk.client.clone()).await;
    assert_eq!(told.said(), ["1 unplaced"]);
    let placed = desk.store.place(vec![Place { agent: root, from: Epoch(0), node: node("n2") }]).await;
    assert_eq!(placed.expect("a store"), [Ok(Epoch(1))]);
    send(desk.client.clone()).await;
    desk.client.submit(request).await.expect("the same again");
    assert_eq!(told.said(), ["wake 1 on n2", "wake 1 on n2"]);
    let placed = desk.store.place(vec![Place { agent: root, from: Epoch(1), node: node("n1") }]).await;
    assert_eq!(placed.expect("a store"), [Ok(Epoch(2))]);
    // Nothing was recorded of the moves, and a list knows them all the same.
    let listed = desk.client.agents(Default::default()).await.expect("a list").agents;
    assert_eq!(listed.iter().map(|agent| agent.node.as_str()).collect::<Vec<_>>(), ["n1"]);
    desk.host.woken.lock().expect("no test panics here").clear();
    let cancel = v1::WorkloadServiceCancelRequest { workload_id: answer.workload_id, ..Default::default() };
    desk.client.cancel(cancel.clone()).await.expect("cancelled");
    desk.client.cancel(cancel).await.expect("cancelled already");
    assert_eq!(*desk.host.woken.lock().expect("no test panics here"), [root, root]);
    assert!(told.said().is_empty(), "it is this node's");
    let first = desk.store.read(StreamId::Agent(root), Version(0), 1).await.expect("a store");
    assert!(matches!(first[0].envelope.fact, Fact::Agent(_)));
}

#[tokio::test]
async fn among_others_a_plan_has_each_on_a_node_that_has_what_it_asks_for() {
    let told = Told::two();
    let (fleet, neighbours) = (Arc::clone(&told), Arc::clone(&told));
    let desk = Desk::arranged(|handlers| handlers.fleet(fleet).among(neighbours), |builder| builder).await;
    let planned = async |zone: &str, cpu_milli| {
        let agent = |number: usize| v1::AgentSpec {
            id: format!("a{number}"),
            prompt: "x".into(),
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            needs: Some(v1::AgentNeeds { cpu_milli: Some(cpu_milli), ..Default::default() }),
            ..Default::default()
        };
        let list = v1::AgentList { agents: (0..3).map(agent).collect(), on_failure: 0 };
        let program = v1::workload_service_submit_request::Program::AgentList(list);
        let request = v1::WorkloadServiceSubmitRequest { program: Some(program), ..Default::default() };
        let workload_id = desk.client.submit(request).await.expect("accepted").workload_id;
        desk.client.plan(v1::WorkloadServiceGetPlanRequest { workload_id }).await.map(|it| it.plan.expect("a plan"))
    };
    let plan = planned("us", 2_000).await.expect("a plan");
    assert_eq!(plan.tasks.iter().map(|task| task.node.as_str()).collect::<Vec<_>>(), ["n2"; 3]);
    for (zone, cpu_milli, why) in [("mars", 1, "no node has zone"), ("us", 2_001, "fits nowhere")] {
        let refused = planned(zone, cpu_milli).await.expect_err("it waits for a node");
        assert!(refused.to_string().contains(why), "{refused}");
        assert_eq!(reason::<()>(Err(refused)), "INVALID_ARGUMENT");
    }
    told.states.lock().expect("no test panics here").insert("n2", NodeState::Cordoned);
    assert_eq!(reason(planned("us", 1).await.map(drop)), "INVALID_ARGUMENT", "nothing is placed there now");
    assert_eq!(planned("eu", 1).await.expect("a plan").tasks[0].node, "n1");
}

/// Workloads of a kept program, which are appended without a look whether they are known.
async fn kept(desk: &Desk) -> impl Fn(&str) -> v1::WorkloadServiceSubmitRequest {
    let put = v1::ProgramServicePutRequest {
        program: Some(v1::program_service_put_request::Program::Source(v1::Source {
            name: "main.nx".into(),
            text: desk::SOURCE.into(),
        })),
        ..Default::default()
    };
    let module_hash =
        desk.client.put_program(put).await.expect("a good program").program.expect("it is told").module_hash;
    move |request_id| v1::WorkloadServiceSubmitRequest {
        request_id: request_id.into(),
        program: Some(v1::workload_service_submit_request::Program::ModuleHash(module_hash.clone())),
        ..submission("kept")
    }
}

const FIRST: &str = "0192d3e4-0000-7000-8000-000000000001";
const SECOND: &str = "0192d3e4-0000-7000-8000-000000000002";

#[tokio::test]
async fn a_root_is_born_where_it_was_submitted_while_that_node_has_room() {
    let told = Told::two();
    *told.room.lock().expect("no test panics here") = 1;
    let neighbours = Arc::clone(&told);
    let desk = Desk::arranged(|handlers| handlers.among(neighbours), |builder| builder).await;
    let of = kept(&desk).await;
    let owner = async |root| {
        let row = desk.store.row(root).await.expect("a store").expect("a row");
        (row.node, row.epoch)
    };
    let first: AgentId =
        desk.client.submit(of(FIRST)).await.expect("accepted").root_agent_id.parse().expect("an agent id");
    assert_eq!(owner(first).await, (Some(node("n1")), Epoch(1)));
    let bears = (first, Said::Bears { is_stored: false });
    assert_eq!(*desk.host.births.lock().expect("no test panics here"), [bears], "before the store has it");
    assert_eq!(*desk.host.woken.lock().expect("no test panics here"), [first]);
    assert!(told.said().is_empty(), "nobody has to place it");
    // There is no room for another.
    let second: AgentId =
        desk.client.submit(of(SECOND)).await.expect("accepted").root_agent_id.parse().expect("an agent id");
    assert_eq!(owner(second).await, (None, Epoch(0)));
    assert_eq!(told.said(), ["1 unplaced"]);
    assert_eq!(*desk.host.births.lock().expect("no test panics here"), [bears]);
    assert_eq!(*desk.host.woken.lock().expect("no test panics here"), [first]);
    // The same request again, while there is room: it is here already, and stays.
    *told.room.lock().expect("no test panics here") = 1;
    desk.client.submit(of(FIRST)).await.expect("the same again");
    let again = (first, Said::Bears { is_stored: true });
    assert_eq!(*desk.host.births.lock().expect("no test panics here"), [bears, again]);
    assert_eq!(*desk.host.woken.lock().expect("no test panics here"), [first, first]);
    assert_eq!(owner(first).await, (Some(node("n1")), Epoch(1)));
    assert!(told.said().is_empty());
}

#[tokio::test]
async fn a_root_that_turns_out_to_be_another_nodes_is_not_taken_for_born_here() {
    let told = Told::two();
    let neighbours = Arc::clone(&told);
    let desk = Desk::arranged(|handlers| handlers.among(neighbours), |builder| builder).await;
    let request = kept(&desk).await(FIRST);
    let before = desk.client.submit(request.clone()).await.expect("accepted");
    let root: AgentId = before.root_agent_id.parse().expect("an agent id");
    let placed = desk.store.place(vec![Place { agent: root, from: Epoch(0), node: node("n2") }]).await;
    assert_eq!(placed.expect("a store"), [Ok(Epoch(1))]);
    assert_eq!(told.said(), ["1 unplaced"]);
    *told.room.lock().expect("no test panics here") = 1;
    assert_eq!(desk.client.submit(request).await.expect("the same again"), before);
    let expected = [(root, Said::Bears { is_stored: true }), (root, Said::DidNotBear)];
    assert_eq!(*desk.host.births.lock().expect("no test panics here"), expected);
    assert_eq!(told.said(), ["wake 1 on n2"]);
    assert!(desk.host.woken.lock().expect("no test panics here").is_empty(), "it is not here");
}

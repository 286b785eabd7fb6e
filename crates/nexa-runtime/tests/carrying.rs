//! What is in flight for an agent while nobody is sure whose it is: no call of a tool is made twice, and none that goes on
//! is given up. Each test holds the store or the tool just where two nodes could disagree.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::sync::Arc;

use nexa_event::fact::{AgentEvent, EffectResult, Input};
use nexa_ports::neighbours::Carried;
use nexa_ports::store::{Place, Post, Posted};
use nexa_runtime::{Given, Node, Released};
use nexa_types::*;
use nexa_vm::codec;
use nexa_vm::module::Module;
use nexa_vm::value::Value;
use tokio::sync::watch;

use support::cluster::{Switch, Town, name};
use support::model::FakeModel;
use support::store::Way;
use support::{Desk, soon, until};

const PAYS: &str = r##"
tool pay(what: str) -> str { source: builtin("sink.pay"), risk: "low", effect: "write" }

flow main() -> str uses pay {
    let first = pay("first")
    let second = pay("second one")
    return "#{first} #{second}"
}
"##;

const PAID: &str = "done 16 done 21";

fn pays() -> Module {
    nexa_lang::compile_text("test.nx", PAYS).module.unwrap()
}

fn root(workload: WorkloadId) -> AgentId {
    AgentId::root(workload)
}

/// Something comes into the inbox of an agent that it records, whatever it waits for.
async fn hears(town: &Town, node: &Node, agent: AgentId, number: u8) {
    let value = codec::encode(&Value::Int(1));
    let input = Input::Message { from: "a test".to_owned(), value };
    let post = Post { to: agent, id: InputId::from_bytes([number; 16]), input, trace: None };
    assert!(matches!(town.desk.store.post(post, town.desk.stamp()).await.unwrap(), Posted::Accepted { .. }));
    node.wake(agent).unwrap();
}

async fn was_held(what: &str, held: &watch::Sender<u64>, times: u64) {
    soon(what, held.subscribe().wait_for(|held| *held >= times)).await.unwrap();
}

/// The row says that the agent is that node's from now on. Nobody is told.
async fn is_placed(town: &Town, agent: AgentId, node: &str) -> Epoch {
    let from = town.desk.store.row(agent).await.unwrap().unwrap().epoch;
    let place = Place { agent, from, node: name(node) };
    town.desk.store.place(vec![place]).await.unwrap()[0].unwrap()
}

fn given(agent: AgentId, epoch: Epoch) -> Vec<Given> {
    vec![Given { agent, epoch, carrier: None, trace: None }]
}

/// How each call of the tool was made, without its key.
fn calls(town: &Town) -> Vec<Vec<u32>> {
    town.sink.calls().into_values().collect()
}

/// What an agent was told about who goes on with its call.
async fn takeovers(town: &Town, agent: AgentId) -> Vec<(u64, Option<String>)> {
    let carrier = |event| match event {
        AgentEvent::TakenOver { epoch, carried, .. } => Some((epoch.0, carried.map(|node| node.to_string()))),
        _ => None,
    };
    town.desk.events(agent).await.into_iter().filter_map(carrier).collect()
}

/// As for a node that stood still while it read an agent, and goes on when another has it.
#[tokio::test]
async fn whoever_reads_an_agent_while_another_takes_it_over_does_not_act_by_the_others_right() {
    let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
    let way = Way::to(&town.desk.store, None);
    let (n1, n2) = (town.start_on("n1", way.clone()).await, town.start("n2").await);
    let module =
        nexa_lang::compile_text("test.nx", &PAYS.replace("{\n", "{\n    let go = receive()\n")).module.unwrap();
    let workload = town.run_on("n2", 1, &module, Vec::new()).await;
    let agent = root(workload);
    town.desk.reaches(agent, AgentState::Waiting(Waiting::Message)).await;
    town.place(agent, &name("n1")).await;
    way.holds_reads.send_replace(true);
    town.sink.hold(true);
    hears(&town, &n1, agent, 9).await;
    was_held("the reading", &way.held_reads, 1).await;
    let epoch = is_placed(&town, agent, "n2").await;
    n2.adopt(given(agent, epoch)).await.unwrap();
    town.sink.was_called(1).await;
    way.holds_reads.send_replace(false);
    until("the first to let go", || n1.load().live == 0).await;
    assert_eq!((calls(&town), n1.stats().tool_calls, n1.stats().appends), (vec![vec![1]], 0, 0));
    town.sink.hold(false);
    assert_eq!(town.desk.text(workload).await, PAID);
    assert_eq!(calls(&town), [[1], [1]]);
}

/// What a node offers that carried an answer, if the receipt was lost or slow: it is recorded already.
fn comes_again(node: &Node, agent: AgentId, key: EffectKey, seq: Seq) {
    let result = EffectResult::Failed(Failure::new(RunCode::Unavailable, "nobody waits for this"));
    let answer = Carried { agent, key, seq, attempt: 1, result, spend: Spend::default() };
    node.carried(&name("n1"), answer);
}

#[tokio::test]
async fn an_agent_that_leaves_is_followed_by_what_it_waits_for_and_not_by_what_came_again() {
    // By their keys either of the two calls may be the first.
    for number in 1..=8 {
        let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
        let way = Way::to(&town.desk.store, None);
        let (n2, n3) = (town.start_on("n2", way.clone()).await, town.start("n3").await);
        town.sink.lets(1);
        let workload = town.run_on("n2", number, &pays(), Vec::new()).await;
        let agent = root(workload);
        town.sink.was_called(2).await;
        // It is in the middle of a step, so that it hears of neither answer before it leaves.
        way.holds_appends.send_replace(true);
        hears(&town, &n2, agent, 9).await;
        was_held("a step", &way.held_appends, 1).await;
        comes_again(&n2, agent, EffectKey::of(workload, agent, Seq(1)), Seq(1));
        town.sink.hold(false);
        until("both answers", || n2.load().results_unrecorded == 2).await;
        let node = n2.clone();
        let leaving = tokio::spawn(async move { node.release(agent, &name("n3")).await });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        way.holds_appends.send_replace(false);
        let released = soon("the release", leaving).await.unwrap().unwrap();
        let key = released.carrier.as_ref().map(|carrier| carrier.key);
        assert_eq!(key, Some(EffectKey::of(workload, agent, Seq(2))), "{number}");
        let Released { epoch, carrier, .. } = released;
        n3.adopt(vec![Given { agent, epoch, carrier, trace: None }]).await.unwrap();
        n2.has_arrived(agent);
        assert_eq!(town.desk.text(workload).await, PAID);
        assert_eq!(calls(&town), [[1], [1]]);
    }
}

/// Its carrier has let go of the call, because it lost the agent in between.
#[tokio::test]
async fn an_agent_that_is_back_without_a_word_does_not_wait_for_what_an_earlier_stay_expected() {
    let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
    let (n1, n2) = (town.start("n1").await, town.start("n2").await);
    town.sink.hold(true);
    let workload = town.run_on("n1", 1, &pays(), Vec::new()).await;
    let agent = root(workload);
    town.sink.was_called(1).await;
    town.migrates(agent, "n2").await.unwrap().unwrap();
    until("it to be there", || n2.stats().appends == 1).await;
    let back = is_placed(&town, agent, "n1").await;
    n1.adopt(given(agent, back)).await.unwrap();
    let n1_has_it = (3, Some("n1".to_owned()));
    let has_it = async {
        while takeovers(&town, agent).await.last() != Some(&n1_has_it) {
            tokio::task::yield_now().await;
        }
    };
    soon("it to be back", has_it).await;
    let again = is_placed(&town, agent, "n2").await;
    hears(&town, &n1, agent, 9).await;
    until("the call to be let go", || n1.load().live == 0 && n1.load().calls_in_flight == 0).await;
    n2.adopt(given(agent, again)).await.unwrap();
    assert_eq!(town.desk.failure(workload).await.code, RunCode::OutcomeUnknown);
    assert_eq!(takeovers(&town, agent).await.last(), Some(&(4, None)));
    assert_eq!(calls(&town), [[1]]);
}

/// The answer that it is another's is on its way while the node is given it again.
#[tokio::test]
async fn what_is_found_of_an_earlier_right_ends_nothing_that_goes_on_by_a_later_one() {
    let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
    let way = Way::to(&town.desk.store, None);
    let (n1, _n2) = (town.start_on("n1", way.clone()).await, town.start("n2").await);
    town.sink.hold(true);
    let workload = town.run_on("n1", 1, &pays(), Vec::new()).await;
    let agent = root(workload);
    town.sink.was_called(1).await;
    is_placed(&town, agent, "n2").await;
    way.holds_rows.send_replace(true);
    hears(&town, &n1, agent, 9).await;
    was_held("a look at the row", &way.held_rows, 1).await;
    let back = is_placed(&town, agent, "n1").await;
    n1.adopt(given(agent, back)).await.unwrap();
    way.holds_rows.send_replace(false);
    let goes_on = async {
        while takeovers(&town, agent).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("it to go on", goes_on).await;
    town.sink.hold(false);
    assert_eq!(town.desk.text(workload).await, PAID);
    assert_eq!(takeovers(&town, agent).await, [(3, Some("n1".to_owned()))]);
    assert_eq!(calls(&town), [[1], [1]]);
}

#[tokio::test]
async fn a_ticket_that_waits_is_not_given_up_for_an_answer_to_something_else() {
    let town = Town::of(Desk::with_still_clock(FakeModel::echo(1)));
    let fence = Arc::new(Switch::default());
    let n1 = town.start_fenced("n1", fence.clone()).await;
    let workload = town.run_on("n1", 1, &pays(), Vec::new()).await;
    let agent = root(workload);
    town.desk.reaches(agent, AgentState::Waiting(Waiting::Tool)).await;
    comes_again(&n1, agent, EffectKey::of(workload, agent, Seq(77)), Seq(77));
    until("it to be heard", || n1.load().results_unrecorded == 0).await;
    fence.allow();
    town.desk.sim.clone().unwrap().advance(Millis(500));
    assert_eq!(town.desk.text(workload).await, PAID);
    assert_eq!(calls(&town), [[1], [1]]);
}

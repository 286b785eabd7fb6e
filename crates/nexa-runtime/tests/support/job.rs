//! A program that is run once undisturbed, and then on nodes that die at every append that it makes.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::BTreeSet;
use std::sync::Arc;

use nexa_runtime::{Node, programs};
use nexa_types::{AgentId, EffectKey, Outcome, TenantId, WorkloadId};
use nexa_vm::module::Module;
use nexa_vm::value::Value;

use super::model::FakeModel;
use super::store::Death;
use super::{Desk, config, soon, until};

pub struct Job {
    pub module: Module,
    pub args: Vec<Value>,
    /// A model that gives the same answers to the same requests.
    pub model: Box<dyn Fn() -> Arc<FakeModel>>,
}

impl Job {
    async fn begin(&self, desk: &Desk, node: &Node) -> WorkloadId {
        let tenant = TenantId::local();
        let hash = programs::put(&*desk.store, &tenant, &self.module, "test", desk.stamp()).await.unwrap();
        let main = self.module.entries.iter().find(|entry| entry.name == "main").unwrap();
        let workload = desk.submit_program("n1", 1, hash, main.function, self.args.clone()).await;
        node.wake(AgentId::root(workload)).unwrap();
        workload
    }

    /// How it ends when nothing happens to it, and how many appends its node makes.
    pub async fn undisturbed(&self) -> (Outcome, u64) {
        let (outcome, appends, _) = self.measured().await;
        (outcome, appends)
    }

    /// As `undisturbed`, and how many requests it makes.
    async fn measured(&self) -> (Outcome, u64, usize) {
        let desk = Desk::new((self.model)());
        let (node, way) = desk.start_mortal(None).await;
        let workload = self.begin(&desk, &node).await;
        let outcome = desk.outcome(workload).await;
        until("the last act", || node.stats().live_agents == 0).await;
        (outcome, Desk::appends(&way), desk.model.asked().len())
    }

    pub async fn survives_a_death_at_any_append(&self) {
        let (outcome, appends, asks) = self.measured().await;
        for number in 0..appends {
            self.dies_and_goes_on(Death::Before(number), &outcome, asks).await;
            self.dies_and_goes_on(Death::After(number), &outcome, asks).await;
        }
    }

    /// Runs on a node that dies at a point, then on another; nothing is lost, and nothing recorded is bought twice.
    async fn dies_and_goes_on(&self, death: Death, expected: &Outcome, asks: usize) {
        let desk = Desk::new((self.model)());
        let (first, way) = desk.start_mortal(Some(death)).await;
        let workload = self.begin(&desk, &first).await;
        // With several threads a wish may find a slot at once or wait for it, and save or cost an append.
        tokio::select! {
            () = soon("death", way.died()) => {}
            _ = desk.outcome(workload) => {}
        }
        let reissued_before = first.stats().reissued_model_calls;
        drop(first);
        until("the dead to be gone", || Arc::strong_count(&way) == 1).await;
        until("its calls to be gone", || Arc::strong_count(&desk.model) == 1).await;
        let recorded: BTreeSet<EffectKey> = desk.recorded_answers().await.into_iter().collect();
        let asked_before = desk.model.asked();

        let second = desk.start(config("n1")).await;
        assert_eq!(&desk.outcome(workload).await, expected, "after {death:?}");
        until("the last act", || second.stats().live_agents == 0).await;
        let reissued = reissued_before + second.stats().reissued_model_calls;
        let asked = desk.model.asked();
        assert_eq!(asked.len(), asks, "nothing is left out after {death:?}");
        let mut again = 0;
        for (key, attempts) in &asked {
            again += attempts.len() as u64 - 1;
            if recorded.contains(key) {
                assert_eq!(attempts, &asked_before[key], "a recorded answer was asked for again after {death:?}");
            }
        }
        assert_eq!(desk.recorded_answers().await.len(), asked.len(), "each answer is recorded once");
        assert!(again <= reissued, "{again} asks were repeated, {reissued} are counted, after {death:?}");
        desk.asks_are_in_order();
    }
}

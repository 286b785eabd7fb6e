//! The same calls to PostgreSQL and to the store in memory give the same answers and leave the same behind, also when they are
//! made to two nodes in turn.

mod support;

use std::sync::Arc;

use nexa_ports::memory::MemoryStore;
use nexa_testkit::postgres::Server;
use nexa_testkit::store_contract::AnyStore;
use nexa_testkit::store_model::{begin, calls, same_answers, same_state};
use proptest::prelude::*;
use support::open;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn postgresql_does_what_the_model_does(calls in calls(40)) {
        let Some(server) = Server::shared() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let url = server.database();
            let model = Arc::new(MemoryStore::new()) as AnyStore;
            let nodes = [open(&url, "n1").await as AnyStore, open(&url, "n2").await as AnyStore];
            begin(&nodes[0], &model).await;
            for (call, node) in calls.iter().zip(nodes.iter().cycle()) {
                // What a node answers to a call without facts is what it knows of the head.
                let newest = *model.head().borrow();
                node.head().wait_for(|head| *head >= newest).await.expect("it is open");
                same_answers(node, &model, call).await;
            }
            let newest = *model.head().borrow();
            for node in &nodes {
                node.head().wait_for(|head| *head >= newest).await.expect("it is open");
                same_state(node, &model).await;
            }
        });
    }
}

//! The same calls to SQLite and to the store in memory give the same answers and leave the same behind.

use std::sync::Arc;

use nexa_ports::memory::MemoryStore;
use nexa_store::{Options, SqliteStore};
use nexa_testkit::store_contract::AnyStore;
use nexa_testkit::store_model::{begin, calls, same_answers, same_state};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_does_what_the_model_does(calls in calls(40), run in prop::sample::select(vec![1, 3, 10, 4_096])) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = Options { run_facts: Some(run), ..Options::default() };
        let open = || Arc::new(SqliteStore::open(directory.path(), options.clone()).expect("open")) as AnyStore;
        runtime.block_on(async {
            let model = Arc::new(MemoryStore::new()) as AnyStore;
            let sqlite = open();
            begin(&sqlite, &model).await;
            for call in &calls {
                same_answers(&sqlite, &model, call).await;
            }
            same_state(&sqlite, &model).await;
            drop(sqlite);
            same_state(&open(), &model).await;
        });
    }
}

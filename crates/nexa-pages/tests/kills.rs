//! Processes that are killed while they write.

mod support;

use std::collections::BTreeMap;

use nexa_pages::Settings;
use support::{Worker, judge, works_until_it_is_killed};

/// Kills of one run of the test; `NEXA_PAGES_KILLS` says another number.
const KILLS: u64 = 12;

#[test]
#[ignore = "a process that the next test starts and kills"]
fn helper_works_until_it_is_killed() {
    works_until_it_is_killed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let kills = std::env::var("NEXA_PAGES_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let at = folder.path().to_str().expect("a temporary path");
    let mut all = BTreeMap::new();
    for kill in 0..kills {
        let mut worker = Worker::start("helper_works_until_it_is_killed", at, 2 * kill + 1, true, &[]);
        // At another place each time; soon after one acknowledgement, the next batch or a compaction is on its way.
        assert!(worker.acks(3 + (kill as usize * 5) % 17), "it works until it is killed");
        all.extend(worker.kill());
        let judged = judge(at, Settings::default(), &all, 2 * kill + 2).await;
        assert_eq!(judged, Ok(()), "after kill {kill}: {all:?}");
    }
    println!("{kills} kills, acknowledged up to {all:?}");
}

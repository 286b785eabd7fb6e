//! Facts that share a row.

mod support;

use std::sync::Arc;

use nexa_event::envelope::FORMAT;
use nexa_event::formats::{Formats, PACKING};
use nexa_ports::audit::Audit;
use nexa_ports::formats::Writing;
use nexa_ports::store::{Store, StoreError};
use nexa_postgres::{PostgresStore, Settings};
use nexa_testkit::postgres::Server;
use nexa_testkit::store_contract::{emitted, owned, submission, workload};
use nexa_types::{AgentId, GlobalSeq, StreamId, Version};
use support::{append, fact, node, open};

fn database(url: &str) -> &str {
    url.rsplit('/').next().expect("an address has one")
}

/// How many facts each row of an agent has, in their order.
fn rows(server: &Server, url: &str, agent: AgentId) -> Vec<usize> {
    let id: String = agent.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = server.sql(
        database(url),
        &format!(
            "SELECT length(link) / 32 FROM nexa.events WHERE stream = 'a'::bytea || '\\x{id}'::bytea ORDER BY version"
        ),
    );
    answer.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

#[tokio::test]
async fn facts_of_one_append_share_a_row_as_far_as_they_fit() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let store = open(&url, "n1").await;
    append(&*store, submission(workload(1))).await.expect("it is new");
    let root = AgentId::root(workload(1));
    let few = (1..=3).map(emitted).collect();
    append(&*store, owned(root, 1, 1, few)).await.expect("append");
    let many = (1..=40).map(|_| emitted(1)).collect();
    append(&*store, owned(root, 1, 4, many)).await.expect("append");
    let large = vec![fact(1, 10), fact(2, 1_700), fact(3, 10), fact(4, 100_000), fact(5, 10)];
    append(&*store, owned(root, 1, 44, large)).await.expect("append");
    let rows = rows(server, &url, root);
    assert_eq!(rows[..2], [1, 3], "{rows:?}");
    assert_eq!(rows.iter().sum::<usize>(), 49);
    assert!(rows[2..].iter().all(|facts| *facts <= 16), "{rows:?}");
    assert_eq!(rows[rows.len() - 5..], [1, 1, 1, 1, 1], "a long fact has a row for itself: {rows:?}");
    assert!(rows.len() < 20, "{rows:?}");
}

/// Whoever reads the format before finds no row that it cannot read, until all have been told.
#[tokio::test]
async fn rows_have_one_fact_until_the_format_is_raised() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let connect = async |newest| {
        let writing = Writing::oldest(Formats { oldest: 1, newest });
        let settings = Settings { writing: writing.clone(), ..Settings::new(&*url, node("n1")) };
        (Arc::new(PostgresStore::connect(settings).await.expect("it opens")), writing)
    };
    let root = AgentId::root(workload(1));
    let (before, _) = connect(PACKING - 1).await;
    append(&*before, submission(workload(1))).await.expect("it is new");
    append(&*before, owned(root, 1, 1, vec![emitted(1), emitted(2)])).await.expect("append");
    before.close().await;
    let (after, writing) = connect(FORMAT).await;
    append(&*after, owned(root, 1, 3, vec![emitted(3), emitted(4)])).await.expect("append");
    assert_eq!(rows(server, &url, root), [1, 1, 1, 1, 1]);
    writing.raise(FORMAT).expect("it knows it");
    append(&*after, owned(root, 1, 5, vec![emitted(5), emitted(6)])).await.expect("append");
    assert_eq!(rows(server, &url, root), [1, 1, 1, 1, 1, 2]);
    let facts = after.read(StreamId::Agent(root), Version(0), 10).await.expect("read");
    assert!(facts[1..].iter().map(|fact| fact.envelope.fact.clone()).eq((1..=6).map(emitted)));
}

#[tokio::test]
async fn a_changed_row_of_several_facts_is_found() {
    let Some(server) = Server::shared() else { return };
    // The row has the positions 3 to 5 and the versions 2 to 4.
    let changes = [
        "payload = overlay(payload PLACING '\\x00' FROM length(payload) - 3)",
        "payload = substring(payload FOR length(payload) - 1)",
        "payload = payload || '\\xf6'",
        "payload = NULL",
        "header = header || header",
        "header = substring(header FOR length(header) / 3)",
        "link = substring(link FOR 64)",
        "link = substring(link FOR 95)",
        "link = link || substring(link FOR 32)",
        "link = ''",
        "link = substring(link FROM 33 FOR 32) || substring(link FOR 32) || substring(link FROM 65)",
        "version = version - 1",
        "version = version + 1",
        "version = 2",
        "position = position + 1",
        "position = position - 1",
    ];
    for change in changes {
        let url = server.database();
        let store = open(&url, "n1").await;
        append(&*store, submission(workload(1))).await.expect("it is new");
        let root = AgentId::root(workload(1));
        append(&*store, owned(root, 1, 1, (1..=3).map(emitted).collect())).await.expect("append");
        append(&*store, owned(root, 1, 4, vec![emitted(4)])).await.expect("append");
        // What was below the last position is out of the way for those that move it.
        server.sql(
            database(&url),
            &format!(
                "UPDATE nexa.events SET position = 100 WHERE position = 6;
                 UPDATE nexa.events SET version = 100 WHERE version = 5;
                 UPDATE nexa.events SET {change} WHERE position = 5;
                 UPDATE nexa.events SET version = 5 WHERE version = 100 AND NOT EXISTS (SELECT FROM nexa.events WHERE version = 5);
                 UPDATE nexa.events SET position = 6 WHERE position = 100 AND NOT EXISTS (SELECT FROM nexa.events WHERE position = 6)"
            ),
        );
        let is_found = |outcome: &Result<(), StoreError>| matches!(outcome, Err(StoreError::Corrupt { .. }));
        let whole = store.proven(GlobalSeq(0), 10).await.map(drop);
        assert!(is_found(&whole), "{change}: {whole:?}");
        // Positions are in no link: whoever begins after a gap does not see it.
        if !change.starts_with("position") {
            let scanned = store.scan(None, GlobalSeq(3), 10).await.map(drop);
            assert!(is_found(&scanned), "{change}: {scanned:?}");
            let read = store.read(StreamId::Agent(root), Version(0), 10).await.map(drop);
            assert!(is_found(&read), "{change}: {read:?}");
        }
    }
}

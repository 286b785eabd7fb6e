//! Several nodes on one database.

mod support;

use std::sync::Arc;

use nexa_ports::leadership::Leadership;
use nexa_ports::store::{Append, AppendError, Birth, Cancelled, Place, RowChange, Store};
use nexa_ports::view::Views;
use nexa_postgres::{OpenError, PostgresStore, Settings};
use nexa_testkit::postgres::Server;
use nexa_testkit::store_contract::{birth, emitted, owned, stamp, submission, workload};
use nexa_testkit::view_contract::LONG;
use nexa_types::{AgentId, AgentState, Epoch, GlobalSeq, Seq, StreamId, Version, WorkloadId};
use sqlx::{Connection, PgConnection};
use support::{append, message, node, open};

/// How long whoever folds may stand still, at least.
const STILL: std::time::Duration = std::time::Duration::from_secs(5);

/// ST-1, ST-7, with three nodes that write at once, to each other's agents, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reading_order_holds_while_three_nodes_write() {
    const WRITERS: u8 = 4;
    const FACTS: u64 = 40;
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let nodes = [open(&url, "n1").await, open(&url, "n2").await, open(&url, "n3").await];
    for number in 1..=3 * WRITERS {
        append(&*nodes[0], submission(workload(number))).await.expect("a first submission is accepted");
    }
    let writers: Vec<_> = (1..=3 * WRITERS)
        .map(|number| {
            let store = Arc::clone(&nodes[usize::from(number) % 3]);
            tokio::spawn(async move {
                let root = AgentId::root(workload(number));
                for version in 1..=FACTS {
                    // Everybody posts to the next two, so that batches of different nodes want each other's rows.
                    let to = |by: u8| AgentId::root(workload((number - 1 + by) % (3 * WRITERS) + 1));
                    let posts =
                        [1, 2].map(|by| message(to(by), u64::from(number) << 32 | version << 8 | u64::from(by)));
                    let grown = Append { posts: posts.to_vec(), ..owned(root, 1, version, vec![emitted(version)]) };
                    append(&*store, grown).await.expect("append");
                }
            })
        })
        .collect();
    let total = u64::from(3 * WRITERS) * (FACTS + 2);
    let mut readers = Vec::new();
    for store in &nodes {
        let store = Arc::clone(store);
        readers.push(tokio::spawn(async move {
            let (mut heads, mut seen) = (store.head(), Vec::new());
            while (seen.len() as u64) < total {
                let after = GlobalSeq(seen.len() as u64);
                heads.wait_for(|head| *head > after).await.expect("the store is there");
                let facts = store.scan(None, after, 100).await.expect("scan");
                assert!(!facts.is_empty(), "what the head tells can be read");
                seen.extend(facts);
            }
            seen
        }));
    }
    for writer in writers {
        writer.await.expect("no writer fails");
    }
    let mut seen = Vec::new();
    for reader in readers {
        seen.push(tokio::time::timeout(LONG, reader).await.expect("every node hears of all").expect("no reader fails"));
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "all nodes read the same order");
    assert!(seen[0].iter().map(|fact| fact.position.0).eq(1..=total), "no position is skipped");
    for number in 1..=3 * WRITERS {
        let root = StreamId::Agent(AgentId::root(workload(number)));
        let versions = seen[0].iter().filter(|fact| fact.envelope.header.stream == root);
        assert!(versions.map(|fact| fact.envelope.header.version.0).eq(1..=FACTS + 1), "each stream in its order");
        let waiting = nodes[0].inbox(AgentId::root(workload(number)), 10_000).await.expect("inbox");
        assert_eq!(waiting.len() as u64, 2 * FACTS, "every post arrived once");
    }
}

/// One batch changes agents that another posts to: whoever comes second waits, and never both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_want_the_same_agents_do_not_wait_for_each_other_in_a_circle() {
    const AGENTS: u8 = 24;
    const ROUNDS: u64 = 60;
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let (one, two) = (open(&url, "n1").await, open(&url, "n2").await);
    // Their ids are hashes: the order of the table is not that of the ids.
    for number in 0..=AGENTS {
        append(&*one, submission(workload(number))).await.expect("it is new");
    }
    let roots: Vec<AgentId> = (1..=AGENTS).map(|number| AgentId::root(workload(number))).collect();
    let grown = async {
        for version in 1..=ROUNDS {
            let all = roots.iter().map(|root| owned(*root, 1, version, vec![emitted(version)])).collect();
            for appended in one.append(all).await {
                appended.expect("append");
            }
        }
    };
    let posted = async {
        for version in 1..=ROUNDS {
            let posts = roots.iter().map(|root| message(*root, version)).collect();
            let poster = owned(AgentId::root(workload(0)), 1, version, vec![emitted(version)]);
            append(&*two, Append { posts, ..poster }).await.expect("append");
        }
    };
    tokio::join!(grown, posted);
    // Counted once the sessions are over.
    one.close().await;
    two.close().await;
    let database = url.rsplit('/').next().expect("an address has one");
    let circles = server.sql(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    assert_eq!(circles.trim(), "0", "circles that the server had to break");
}

/// The order within a batch counts, also where the server itself has to look whether somebody lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_in_a_batch_has_what_was_posted_before_in_it_and_nothing_that_comes_later() {
    let Some(server) = Server::shared() else { return };
    let store = open(&server.database(), "n1").await;
    let (poster, reader) = (AgentId::root(workload(1)), AgentId::root(workload(2)));
    for number in [1, 2] {
        append(&*store, submission(workload(number))).await.expect("it is new");
    }
    let wish = Place { agent: reader, from: Epoch(1), node: node("n2") };
    assert_eq!(store.place(vec![wish]).await, Ok(vec![Ok(Epoch(2))]));
    let posted =
        |version| Append { posts: vec![message(reader, version)], ..owned(poster, 1, version, vec![emitted(version)]) };
    let end = Some(RowChange { state: AgentState::Succeeded, due: None });
    let ends = Append { row: end, ..owned(reader, 2, 1, vec![emitted(1)]) };
    let told: Vec<_> = store.append(vec![posted(1), ends, posted(2)]).await;
    let elsewhere: Vec<_> = told.into_iter().map(|told| told.expect("append").elsewhere).collect();
    assert_eq!(elsewhere, [vec![(reader, node("n2"))], vec![], vec![]]);
    let waiting = store.inbox(reader, 10).await.expect("inbox");
    assert_eq!(waiting.iter().map(|entry| entry.id).collect::<Vec<_>>(), [message(reader, 1).id]);
}

/// ST-2, between nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_an_agent_cannot_append_to_it() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let (one, two) = (open(&url, "n1").await, open(&url, "n2").await);
    append(&*one, submission(workload(1))).await.expect("it is new");
    let root = AgentId::root(workload(1));
    append(&*one, owned(root, 1, 1, vec![emitted(1)])).await.expect("it owns the agent");
    two.lead(Epoch(5)).await.expect("it is elected");
    let wish = Place { agent: root, from: Epoch(1), node: node("n2") };
    assert_eq!(two.place_as(Epoch(5), vec![wish]).await, Ok(vec![Ok(Epoch(2))]));
    let late = append(&*one, owned(root, 1, 2, vec![emitted(2)])).await;
    assert_eq!(late, Err(AppendError::StaleEpoch { given: Epoch(1), current: Epoch(2) }));
    append(&*two, owned(root, 2, 2, vec![emitted(2)])).await.expect("the new owner goes on");
    let late = append(&*one, owned(root, 2, 2, vec![emitted(2)])).await;
    assert_eq!(late, Err(AppendError::VersionConflict { given: Version(2), current: Version(3) }));
}

/// ST-6, while another node bears as fast as it can: the cancel comes through however fast that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_meets_births_of_another_node_and_none_comes_after_it() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let (one, two) = (open(&url, "n1").await, open(&url, "n2").await);
    for nth in 1..=8 {
        let workload = workload(nth);
        append(&*one, submission(workload)).await.expect("it is new");
        let (began, begins) = tokio::sync::oneshot::channel();
        let bearing = tokio::spawn(bear_until_cancelled(Arc::clone(&one), workload, began));
        begins.await.expect("it bears");
        let cancelled = two.cancel(workload, "enough".into(), stamp(9)).await.expect("cancel");
        let Cancelled::Accepted { agents } = cancelled else { panic!("{cancelled:?}") };
        let mut born = bearing.await.expect("it is told");
        born.sort_unstable();
        assert_eq!(
            agents.into_iter().map(|(agent, _)| agent).collect::<Vec<_>>(),
            born,
            "all of them, and nobody else"
        );
    }
}

/// The agents of a workload, of which the root bears three with each step until it is told that it was cancelled. `began` is told
/// once it does.
async fn bear_until_cancelled(
    store: Arc<PostgresStore>,
    workload: WorkloadId,
    began: tokio::sync::oneshot::Sender<()>,
) -> Vec<AgentId> {
    let root = AgentId::root(workload);
    let (mut born, mut began) = (vec![root], Some(began));
    for number in 0_u64.. {
        let children: Vec<AgentId> = (0..3).map(|branch| AgentId::child(root, Seq(number), branch)).collect();
        let births = children.iter().map(|child| Birth { node: None, ..birth(workload, *child) }).collect();
        match append(&*store, Append { births, ..owned(root, 1, number + 1, vec![emitted(number)]) }).await {
            Ok(_) => born.extend(children),
            Err(AppendError::StaleEpoch { current, .. }) => {
                assert_eq!(current, Epoch(2));
                return born;
            }
            Err(other) => panic!("{other}"),
        }
        if number == 5
            && let Some(began) = began.take()
        {
            began.send(()).expect("somebody waits");
        }
    }
    born
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_make_one_schema_and_a_newer_one_is_refused() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let stores = futures::future::join_all((0..6).map(|number| {
        let settings = Settings::new(url.clone(), node(&format!("n{number}")));
        PostgresStore::connect(settings)
    }))
    .await;
    assert!(stores.iter().all(Result::is_ok), "{stores:?}");
    drop(stores);
    let database = url.rsplit('/').next().expect("an address has one").to_owned();
    let connect = || PostgresStore::connect(Settings::new(url.clone(), node("n1")));
    server.sql(&database, "UPDATE nexa.meta SET value = '99' WHERE key = 'schema_version'");
    assert_eq!(
        connect().await.expect_err("it is newer").to_string(),
        "the database was written by a newer build (schema 99, this build knows up to 3); upgrade this build"
    );
    server.sql(&database, "UPDATE nexa.meta SET value = '3' WHERE key = 'schema_version'");
    server.sql(&database, "UPDATE nexa.meta SET value = '7' WHERE key = 'format_floor'");
    assert!(matches!(connect().await, Err(OpenError::Newer { what: "format", found: 7, .. })));
    server.sql(&database, "UPDATE nexa.meta SET value = '1' WHERE key = 'format_floor'");
    server.sql(&database, "UPDATE nexa.head SET position = 3");
    assert!(matches!(connect().await, Err(OpenError::Lost { told: 3, found: 0 })));

    let foreign = server.database();
    server.sql(foreign.rsplit('/').next().expect("it has one"), "CREATE SCHEMA nexa CREATE TABLE recipes (name text)");
    assert!(matches!(PostgresStore::connect(Settings::new(foreign, node("n1"))).await, Err(OpenError::Foreign)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_the_build_before_is_brought_up_to_date_under_its_nodes() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let connect = || PostgresStore::connect(Settings::new(url.clone(), node("n1")));
    let before = connect().await.expect("it starts");
    before.append(vec![submission(workload(1))]).await.remove(0).expect("it is accepted");
    let facts = before.scan(None, GlobalSeq(0), 10).await;
    drop(before);
    let database = url.rsplit('/').next().expect("an address has one").to_owned();
    // What the first schema did not have.
    server.sql(
        &database,
        "ALTER TABLE nexa.agents DROP COLUMN asks;
         DO $$ BEGIN EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc WHERE proname = 'append_batch_3'
                              AND pronamespace = 'nexa'::regnamespace); END $$;
         UPDATE nexa.meta SET value = '1' WHERE key = 'schema_version'",
    );
    let stores = futures::future::join_all((0..3).map(|_| connect())).await;
    for (number, store) in (2..).zip(stores) {
        let store = store.expect("it starts");
        store.append(vec![submission(workload(number))]).await.remove(0).expect("it is accepted");
        assert_eq!(store.scan(None, GlobalSeq(0), facts.as_ref().map_or(0, Vec::len)).await, facts);
        let row = store.row(AgentId::root(workload(1))).await.expect("a store").expect("a row");
        assert_eq!(row.asks, None, "rows from before ask for nothing");
    }
}

#[tokio::test]
async fn no_error_shows_a_password() {
    let settings = |url: &str| Settings::new(url, node("n1"));
    let told = async |url: &str| {
        let error = PostgresStore::connect(settings(url)).await.expect_err("nobody is there");
        format!("{error} {error:?} {:?}", settings(url))
    };
    for url in [
        "postgres://somebody:geheim@127.0.0.1:1/nexa",
        "postgres://somebody:geheim@127.0.0.1:99999/nexa",
        "postgres://somebody:geheim@127.0.0.1:1/nexa?sslmode=geheim",
        "nonsense:geheim",
    ] {
        let told = told(url).await;
        assert!(!told.contains("geheim"), "{told}");
    }
}

/// One node at a time folds; another goes on where it was, when it is closed and when it stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_goes_on_folding_where_one_stopped() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let database = url.rsplit('/').next().expect("an address has one").to_owned();
    let (one, two) = (open(&url, "n1").await, open(&url, "n2").await);
    append(&*one, submission(workload(1))).await.expect("it is new");
    for store in [&one, &two] {
        store.wait_applied(GlobalSeq(2), LONG).await.expect("either node folds");
    }
    let holder = || {
        server.sql(
            &database,
            "SELECT application_name FROM pg_stat_activity WHERE pid = (SELECT holder FROM nexa.view_meta)",
        )
    };
    let (first, second) = if holder() == "nexa project n1" { (&one, &two) } else { (&two, &one) };
    let right: u64 = server.sql(&database, "SELECT right_no FROM nexa.view_meta").parse().expect("a number");
    first.close().await;
    append(&**second, owned(AgentId::root(workload(1)), 1, 1, vec![emitted(1)])).await.expect("append");
    second.wait_applied(GlobalSeq(3), LONG).await.expect("the other one folds");
    let later: u64 = server.sql(&database, "SELECT right_no FROM nexa.view_meta").parse().expect("a number");
    assert!(later > right, "the right was taken over");

    second.close().await;

    // Somebody holds the lock of whoever folds and does nothing, as a node that was stopped.
    let mut stopped = PgConnection::connect(&url).await.expect("it connects");
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(0x6e65_7861_0000_0002_i64)
        .execute(&mut stopped)
        .await
        .expect("nobody has it any more");
    let third = open(&url, "n3").await;
    append(&*third, owned(AgentId::root(workload(1)), 1, 2, vec![emitted(2)])).await.expect("append");
    third.wait_applied(GlobalSeq(4), LONG).await.expect("the server ends its session, and the right is free");
    assert!(stopped.ping().await.is_err(), "its session was ended");
}

/// Whoever has just got the right has its own time: the one before stood still, and is not to be paid for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_is_not_ended_for_the_time_of_the_one_before() {
    let Some(server) = Server::shared() else { return };
    let url = server.database();
    let one = open(&url, "n1").await;
    append(&*one, submission(workload(1))).await.expect("it is new");
    one.wait_applied(GlobalSeq(2), LONG).await.expect("it folds");
    one.close().await;

    let hold = || async {
        let mut holder = PgConnection::connect(&url).await.expect("it connects");
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(0x6e65_7861_0000_0002_i64)
            .execute(&mut holder)
            .await
            .expect("whoever has it lets it go");
        (holder, std::time::Instant::now())
    };
    let (mut first, got) = hold().await;
    let second = open(&url, "n2").await;
    append(&*second, owned(AgentId::root(workload(1)), 1, 1, vec![emitted(1)])).await.expect("append");
    // Somebody waits for the lock already when the first one is ended, so that it is the next to have it.
    let next = hold();
    let (ended, (mut next, got_next)) = tokio::join!(
        async {
            while first.ping().await.is_ok() {}
            got.elapsed()
        },
        next
    );
    assert!(ended > STILL, "{ended:?}");
    while next.ping().await.is_ok() {}
    assert!(got_next.elapsed() > STILL, "{:?} after {ended:?}", got_next.elapsed());
    second.wait_applied(GlobalSeq(3), LONG).await.expect("it folds in the end");
}

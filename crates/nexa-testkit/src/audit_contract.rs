//! What every store must do for auditors, and every tampering that must be found, as tests that any adapter can be put through.
//!
//! Each function takes a bench with an empty store and panics with the reason if a property of `nexa_ports::audit` does not
//! hold. [`run_all`] takes a way to make benches and runs them all.

use std::sync::Arc;
use std::time::Duration;

use nexa_audit::{Broken, KeepError, Keeper, check, verify};
use nexa_event::root::{Anchor, Root};
use nexa_ports::audit::{AnchorError, Anchors, Audit, MemoryAnchors};
use nexa_ports::store::Store;
use nexa_types::{AgentId, Epoch, GlobalSeq, Timestamp};

use crate::store_contract::{emitted, owned, submission, workload};

/// A store that can be audited.
pub trait AuditedStore: Store + Audit {}

impl<T: Store + Audit> AuditedStore for T {}

/// A store behind its ports.
pub type AnyAuditedStore = Arc<dyn AuditedStore>;

/// A store that can be closed, changed as no store does it, and opened again. Tables and columns are called alike everywhere.
pub trait Bench {
    /// Opens it; says why it is refused.
    fn open(&mut self) -> impl Future<Output = Result<AnyAuditedStore, String>>;
    /// Closes it.
    fn close(&mut self) -> impl Future<Output = ()>;
    /// Changes what lies there, while it is closed.
    fn sql(&self, statements: &str);
    /// How the key of an agent's stream is made of the column `agent`.
    fn key(&self) -> &'static str;
    /// Has the store's own count of facts fit what lies there.
    fn recount(&self);
    /// Keeps a copy, while it is closed.
    fn copy(&mut self);
    /// Puts the copy back, while it is closed.
    fn restore(&mut self);
}

/// Puts an adapter through the whole contract; `make` gives a bench each time.
pub async fn run_all<B: Bench>(make: impl Fn() -> B) {
    the_root_follows_the_log_and_outlives_a_restart(make()).await;
    ends_are_listed_in_pages(make()).await;
    entries_are_listed_from_each_of_them(make()).await;
    for tampering in TAMPERINGS {
        tampering_is_found(make(), tampering).await;
    }
    another_history_in_the_place_of_this_one_is_found(make()).await;
}

/// Facts of two agents in turn, each once with a number.
const FACTS: u64 = 20;

async fn fill(store: &AnyAuditedStore, from: u64, to: u64) {
    let agents = [1, 2].map(|number| AgentId::root(workload(number)));
    for nth in from..to {
        if nth == 0 {
            for number in [1, 2] {
                store.append(vec![submission(workload(number))]).await.remove(0).expect("it is accepted");
            }
        }
        for agent in agents {
            let version = store.row(agent).await.expect("row").expect("it exists").version;
            let append = owned(agent, 1, version.0, vec![emitted(nth)]);
            store.append(vec![append]).await.remove(0).expect("it is accepted");
        }
    }
}

/// Waits until the root has seen every fact.
async fn folded(store: &AnyAuditedStore) -> Root {
    for _ in 0..2_000 {
        let (head, root) = (store.log().await.expect("log"), store.root().await.expect("root"));
        if root.position == head.newest {
            return root;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the root does not follow the log");
}

async fn from_scratch(store: &AnyAuditedStore) -> Root {
    let entries = store.entries(GlobalSeq(0), 10_000).await.expect("entries");
    assert_eq!(store.proven(GlobalSeq(0), 10_000).await, Ok(entries.clone()));
    entries.into_iter().fold(Root::start(), |root, entry| root.next(entry.version, entry.link))
}

async fn anchored(store: &AnyAuditedStore, anchors: &Arc<MemoryAnchors>) -> Anchor {
    folded(store).await;
    let mut keeper = Keeper::new(Arc::clone(store) as _, Arc::clone(anchors) as _, None);
    keeper.turn(Timestamp(7)).await.expect("it is anchored");
    anchors.kept().await.expect("kept").pop().expect("there is one")
}

/// AU-1.
pub async fn the_root_follows_the_log_and_outlives_a_restart(mut bench: impl Bench) {
    let store = bench.open().await.expect("it opens");
    assert_eq!(store.root().await, Ok(Root::start()));
    fill(&store, 0, FACTS).await;
    let root = folded(&store).await;
    assert_eq!(root, from_scratch(&store).await);
    assert_eq!((root.position, root.streams), (GlobalSeq(4 + 2 * FACTS), 4));
    let id = store.log().await.expect("log").id;
    drop(store);
    bench.close().await;
    let store = bench.open().await.expect("it opens");
    assert_eq!(store.root().await, Ok(root));
    assert_eq!(store.log().await.expect("log").id, id);
    fill(&store, FACTS, FACTS + 3).await;
    assert_eq!(folded(&store).await, from_scratch(&store).await);
    drop(store);
    bench.close().await;
}

/// Streams come in the order of their keys, none twice and none left out.
pub async fn ends_are_listed_in_pages(mut bench: impl Bench) {
    let store = bench.open().await.expect("it opens");
    for number in 1..=7 {
        store.append(vec![submission(workload(number))]).await.remove(0).expect("it is accepted");
    }
    let all = store.ends(Vec::new(), 100).await.expect("ends");
    assert_eq!(all.len(), 14);
    assert!(all.windows(2).all(|pair| pair[0].stream < pair[1].stream), "{all:?}");
    for limit in [1, 3, 7, 8] {
        let (mut after, mut found) = (Vec::new(), Vec::new());
        loop {
            let page = store.ends(after, limit).await.expect("ends");
            let Some(last) = page.last() else { break };
            after = last.stream.clone();
            found.extend(page);
        }
        assert_eq!(found, all, "in pages of {limit}");
    }
    drop(store);
    bench.close().await;
}

/// A page may begin and end within an append.
pub async fn entries_are_listed_from_each_of_them(mut bench: impl Bench) {
    let store = bench.open().await.expect("it opens");
    store.append(vec![submission(workload(1))]).await.remove(0).expect("it is accepted");
    let mut version = 1;
    for count in [3, 1, 20, 2] {
        let facts = (version..version + count).map(emitted).collect();
        let append = owned(AgentId::root(workload(1)), 1, version, facts);
        store.append(vec![append]).await.remove(0).expect("it is accepted");
        version += count;
    }
    let all = store.entries(GlobalSeq(0), 100).await.expect("entries");
    assert!(all.iter().map(|entry| entry.position.0).eq(1..=version + 1));
    for limit in [1, 2, 5, 100] {
        for after in 0..=all.len() {
            let page: Vec<_> = all[after..].iter().take(limit).cloned().collect();
            let after = GlobalSeq(after as u64);
            assert_eq!(store.entries(after, limit).await, Ok(page.clone()), "{limit} after {after}");
            assert_eq!(store.proven(after, limit).await, Ok(page), "{limit} after {after}");
        }
    }
    drop(store);
    bench.close().await;
}

/// A change that no store makes. `KEY` stands for the key of an agent's stream.
struct Tampering {
    what: &'static str,
    sql: &'static str,
    /// Whoever does it has the counts fit afterwards.
    recounts: bool,
    /// It shows already in what has come since the anchor and what stands at it.
    shows_at_start: bool,
}

/// Rows of agents that say what their facts say.
const REWRITE_ROWS: &str = "UPDATE agents SET
    version = (SELECT max(e.version) FROM events AS e WHERE e.stream = KEY),
    link = (SELECT e.link FROM events AS e WHERE e.stream = KEY ORDER BY e.version DESC LIMIT 1);";

const TAMPERINGS: [Tampering; 11] = [
    Tampering {
        what: "a payload is changed",
        sql: "UPDATE events SET payload = (SELECT payload FROM events WHERE position = 9) WHERE position = 7;",
        recounts: false,
        shows_at_start: false,
    },
    Tampering {
        what: "a header is changed",
        sql: "UPDATE events SET header = (SELECT header FROM events WHERE position = 9) WHERE position = 7;",
        recounts: false,
        shows_at_start: false,
    },
    Tampering {
        what: "a link is changed",
        sql: "UPDATE events SET link = (SELECT link FROM events WHERE position = 9) WHERE position = 7;",
        recounts: false,
        shows_at_start: false,
    },
    Tampering {
        what: "a fact is deleted in the middle",
        sql: "DELETE FROM events WHERE position = 7;",
        recounts: false,
        shows_at_start: false,
    },
    Tampering {
        what: "the newest facts are deleted",
        sql: "DELETE FROM events WHERE position > 38;",
        recounts: false,
        shows_at_start: true,
    },
    Tampering {
        what: "the newest facts are deleted, and every row says so",
        sql: "DELETE FROM events WHERE position > 38;",
        recounts: true,
        shows_at_start: true,
    },
    Tampering {
        what: "a whole stream is deleted, and what follows moves up",
        sql: "DELETE FROM events WHERE stream = (SELECT stream FROM events WHERE position = 44);
              DELETE FROM agents WHERE NOT EXISTS (SELECT 1 FROM events AS e WHERE e.stream = KEY);
              UPDATE events SET position = position + 1000000;
              UPDATE events SET position = (SELECT count(*) FROM events AS b WHERE b.position <= events.position);",
        recounts: true,
        shows_at_start: true,
    },
    Tampering {
        what: "two facts of a stream change places",
        sql: "UPDATE events SET version = version + 1000 WHERE position IN (7, 9);
              UPDATE events SET version = version - 999 WHERE position = 7;
              UPDATE events SET version = version - 1001 WHERE position = 9;",
        recounts: false,
        shows_at_start: false,
    },
    Tampering {
        what: "two facts of two streams change places",
        sql: "UPDATE events SET position = position + 1000000 WHERE position IN (7, 8);
              UPDATE events SET position = 8 WHERE position = 1000007;
              UPDATE events SET position = 7 WHERE position = 1000008;",
        recounts: false,
        shows_at_start: false,
    },
    Tampering {
        what: "the newest facts of two streams change places",
        sql: "UPDATE events SET position = position + 1000000 WHERE position IN (43, 44);
              UPDATE events SET position = 44 WHERE position = 1000043;
              UPDATE events SET position = 43 WHERE position = 1000044;",
        recounts: false,
        shows_at_start: true,
    },
    Tampering {
        what: "a row says another end",
        sql: "UPDATE agents SET link = (SELECT link FROM events WHERE position = 9)
              WHERE agent = (SELECT a.agent FROM agents AS a ORDER BY a.agent LIMIT 1);",
        recounts: false,
        shows_at_start: false,
    },
];

async fn tampering_is_found(mut bench: impl Bench, tampering: Tampering) {
    let what = tampering.what;
    let store = bench.open().await.expect("it opens");
    let anchors = Arc::new(MemoryAnchors::new(4));
    fill(&store, 0, FACTS).await;
    let anchor = anchored(&store, &anchors).await;
    assert_eq!(anchor.root.position, GlobalSeq(44));
    drop(store);
    bench.close().await;
    let sql = tampering.sql.replace("KEY", bench.key());
    bench.sql(&sql);
    if tampering.recounts {
        bench.sql(&REWRITE_ROWS.replace("KEY", bench.key()));
        bench.recount();
    }
    let store = match bench.open().await {
        Ok(store) => store,
        // What the store itself notices need not be noticed twice.
        Err(why) if !tampering.recounts => {
            eprintln!("{what}: the store is not opened: {why}");
            return;
        }
        Err(why) => panic!("{what}: the store itself cannot know of it, and says {why}"),
    };
    let checked = check(&*store, &anchor).await.expect("it can be read");
    if tampering.shows_at_start {
        assert!(checked.is_err(), "{what}: not found at the start");
    }
    let kept = anchors.kept().await.expect("kept");
    let verified = verify(&*store, &kept, |_| {}).await.expect("it can be read");
    let wrong = verified.wrong.unwrap_or_else(|| panic!("{what}: not found"));
    eprintln!("{what}: {wrong}");
    drop(store);
    bench.close().await;
}

/// An older copy; the same grown to the same length, and beyond; and how to go on from there.
pub async fn another_history_in_the_place_of_this_one_is_found(mut bench: impl Bench) {
    let anchors = Arc::new(MemoryAnchors::new(4));
    let store = bench.open().await.expect("it opens");
    fill(&store, 0, FACTS - 5).await;
    anchored(&store, &anchors).await;
    drop(store);
    bench.close().await;
    bench.copy();
    let store = bench.open().await.expect("it opens");
    fill(&store, FACTS - 5, FACTS).await;
    let anchor = anchored(&store, &anchors).await;
    assert_eq!(check(&*store, &anchor).await, Ok(Ok(())));
    drop(store);
    bench.close().await;

    bench.restore();
    let store = bench.open().await.expect("the copy is whole");
    let broken = |store: &AnyAuditedStore| {
        let mut keeper = Keeper::new(Arc::clone(store) as _, Arc::clone(&anchors) as _, None);
        async move { keeper.read().await }
    };
    let behind = Broken::Behind { anchored: 44, found: 34 };
    assert_eq!(broken(&store).await, Err(KeepError::Broken(behind)));
    let differs = || Err(KeepError::Broken(Broken::Differs { position: 44 }));
    for (from, to) in [(FACTS + 5, FACTS + 10), (FACTS + 10, FACTS + 12)] {
        fill(&store, from, to).await;
        folded(&store).await;
        assert_eq!(broken(&store).await, differs());
        let kept = anchors.kept().await.expect("kept");
        let wrong = verify(&*store, &kept, |_| {}).await.expect("it can be read").wrong.expect("it is found");
        eprintln!("a fork: {wrong}");
    }
    let log: Arc<dyn Audit> = Arc::clone(&store) as _;
    let why = "a test wants it".to_owned();
    Keeper::accept(log, Arc::clone(&anchors) as _, why, Timestamp(9)).await.expect("a person may");
    assert_eq!(broken(&store).await, Ok(()));
    let kept = anchors.kept().await.expect("kept");
    assert_eq!(verify(&*store, &kept, |_| {}).await.expect("it can be read").wrong, None);
    drop(store);
    bench.close().await;
}

/// Times that a place which does not answer is asked.
const ASKED_MAX: usize = 20;

/// What keeping an anchor is answered, and whether it was asked before without an answer, so that it may be kept already.
async fn asked(anchors: &Arc<dyn Anchors>, anchor: &Anchor, leader: Option<Epoch>) -> (Result<(), AnchorError>, bool) {
    for nth in 0..ASKED_MAX {
        match anchors.keep(anchor.clone(), leader).await {
            Err(AnchorError::Unavailable { detail }) => eprintln!("asked again: {detail}"),
            answer => return (answer, nth > 0),
        }
    }
    panic!("the place did not answer {ASKED_MAX} times");
}

/// AN-1, AN-2, AN-3: an empty place that keeps at least so many, the right to write there, and one that is none (any more).
pub async fn anchors_are_kept_in_a_row(
    anchors: Arc<dyn Anchors>,
    at_least: usize,
    leader: Option<Epoch>,
    deposed: Option<Option<Epoch>>,
) {
    let after = |before: Option<&Anchor>| {
        let position = before.map_or(0, |before| before.root.position.0) + 3;
        Anchor::after(
            before,
            "log".into(),
            Root { position: GlobalSeq(position), ..Root::start() },
            Timestamp(position),
        )
    };
    assert_eq!(anchors.kept().await, Ok(Vec::new()));
    let first = after(None);
    assert_eq!(asked(&anchors, &after(Some(&first)), leader).await.0, Err(AnchorError::Overtaken { number: 2 }));
    let mut all = Vec::new();
    for _ in 0..at_least + 9 {
        let next = after(all.last());
        if let Some(deposed) = deposed {
            assert_eq!(asked(&anchors, &next, deposed).await.0, Err(AnchorError::NotLeading));
        }
        let newest = Err(AnchorError::Overtaken { number: next.number });
        match asked(&anchors, &next, leader).await {
            (Ok(()), _) => {}
            (answer, true) if answer == newest => {
                assert_eq!(anchors.kept().await.expect("kept").last(), Some(&next));
            }
            (other, _) => panic!("it is not kept: {other:?}"),
        }
        assert_eq!(asked(&anchors, &next, leader).await.0, newest, "it is the newest already");
        all.push(next);
    }
    let other = Anchor { at: Timestamp(1), ..all[all.len() - 1].clone() };
    let number = other.number + 1;
    assert_eq!(asked(&anchors, &after(Some(&other)), leader).await.0, Err(AnchorError::Overtaken { number }));
    let kept = anchors.kept().await.expect("kept");
    assert!((at_least..=all.len()).contains(&kept.len()), "{} are kept", kept.len());
    assert_eq!(kept, all[all.len() - kept.len()..]);
}

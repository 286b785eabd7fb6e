//! What every store must do for leaders, as tests that any adapter can be put through.
//!
//! Each function takes an empty store and panics with the reason if a property of `nexa_ports::leadership` does not hold.
//! [`run_all`] takes a way to make stores and runs them all.

use std::future::Future;
use std::sync::Arc;

use nexa_ports::leadership::{LeadError, Leadership, RECORD_BYTES_MAX, Record};
use nexa_ports::store::{Append, Birth, Place, RowChange, Store, StoreError};
use nexa_types::{AgentId, AgentState, Epoch, NodeId, Seq, Version};

use crate::store_contract::{birth, owned, submission, workload};

/// A store that leaders write to.
pub trait LedStore: Store + Leadership {}

impl<T: Store + Leadership> LedStore for T {}

/// A store behind its ports.
pub type AnyLedStore = Arc<dyn LedStore>;

/// Puts an adapter through the whole contract; `make` gives an empty store each time.
pub async fn run_all<F, R>(make: F)
where
    F: Fn() -> R,
    R: Future<Output = AnyLedStore>,
{
    an_election_deposes_all_before_it(make().await).await;
    owners_are_changed_by_who_leads_each_by_its_row(make().await).await;
    a_record_only_grows(make().await).await;
    records_are_listed_by_name(make().await).await;
    no_write_of_an_earlier_leader_comes_after_a_later_one(make().await).await;
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("test names are good")
}

/// The root of a workload with ten children that nobody owns.
async fn unplaced(store: &AnyLedStore) -> Vec<AgentId> {
    let (workload, root) = (workload(1), AgentId::root(workload(1)));
    let agents: Vec<AgentId> = (0..10).map(|nth| AgentId::child(root, Seq(1), nth)).collect();
    let births = agents.iter().map(|agent| Birth { node: None, ..birth(workload, *agent) }).collect();
    for append in [submission(workload), Append { births, ..owned(root, 1, 1, vec![]) }] {
        store.append(vec![append]).await.remove(0).expect("it is accepted");
    }
    agents
}

/// LD-1.
pub async fn an_election_deposes_all_before_it(store: AnyLedStore) {
    let agents = unplaced(&store).await;
    let wish = || vec![Place { agent: agents[0], from: Epoch(0), node: node("n1") }];
    assert_eq!(store.lead(Epoch(7)).await, Ok(()));
    assert_eq!(store.lead(Epoch(7)).await, Ok(()), "the newest may be told again");
    assert_eq!(store.put_record(Epoch(7), "cordon/n1".into(), Version(0), vec![1]).await, Ok(Version(1)));
    assert_eq!(store.lead(Epoch(9)).await, Ok(()));

    let deposed = LeadError::Deposed { current: Epoch(9) };
    assert_eq!(store.lead(Epoch(7)).await, Err(deposed.clone()));
    assert_eq!(store.place_as(Epoch(7), wish()).await, Err(deposed.clone()));
    assert_eq!(store.put_record(Epoch(7), "cordon/n1".into(), Version(1), vec![2]).await, Err(deposed.clone()));
    assert_eq!(store.put_record(Epoch(7), "cordon/n2".into(), Version(0), vec![2]).await, Err(deposed));
    assert_eq!(store.row(agents[0]).await.expect("row").expect("it exists").node, None);
    let kept = Record { name: "cordon/n1".into(), version: Version(1), epoch: Epoch(7), value: vec![1] };
    assert_eq!(store.records(String::new()).await, Ok(vec![kept]));
    assert_eq!(store.place_as(Epoch(9), wish()).await, Ok(vec![Ok(Epoch(1))]));
}

/// LD-2.
pub async fn owners_are_changed_by_who_leads_each_by_its_row(store: AnyLedStore) {
    let agents = unplaced(&store).await;
    store.lead(Epoch(3)).await.expect("nobody led before");
    let place = |agent, from| Place { agent, from: Epoch(from), node: node("n2") };
    let wishes = agents.iter().map(|agent| place(*agent, 0)).collect();
    assert_eq!(store.place_as(Epoch(3), wishes).await, Ok(vec![Ok(Epoch(1)); agents.len()]));
    let end = Some(RowChange { state: AgentState::Failed, due: None });
    let end = Append { row: end, ..owned(agents[1], 1, 1, vec![]) };
    store.append(vec![end]).await.remove(0).expect("it is accepted");

    let nobody = AgentId::from_bytes([0; 16]);
    let wishes =
        vec![place(agents[0], 0), place(agents[1], 1), place(nobody, 0), place(agents[2], 1), place(agents[2], 1)];
    let answers = vec![Err(Epoch(1)), Err(Epoch(0)), Err(Epoch(0)), Ok(Epoch(2)), Err(Epoch(2))];
    assert_eq!(store.place_as(Epoch(3), wishes).await, Ok(answers), "each alone, and in order");
    let row = store.row(agents[2]).await.expect("row").expect("it exists");
    assert_eq!((row.node, row.epoch, row.state), (Some(node("n2")), Epoch(2), AgentState::Placed));
    assert_eq!(store.place_as(Epoch(3), vec![]).await, Ok(vec![]));
}

/// LD-3.
pub async fn a_record_only_grows(store: AnyLedStore) {
    store.lead(Epoch(3)).await.expect("nobody led before");
    let put = |epoch, version, value: &[u8]| {
        store.put_record(Epoch(epoch), "drain/n1".into(), Version(version), value.to_vec())
    };
    assert_eq!(put(3, 1, b"a").await, Err(LeadError::Changed { given: Version(1), current: Version(0) }));
    assert_eq!(put(3, 0, b"a").await, Ok(Version(1)));
    assert_eq!(put(3, 0, b"b").await, Err(LeadError::Changed { given: Version(0), current: Version(1) }));
    assert_eq!(put(3, 1, b"b").await, Ok(Version(2)));
    store.lead(Epoch(4)).await.expect("a later election");
    assert_eq!(put(4, 2, b"").await, Ok(Version(3)), "taken back");
    let taken_back = Record { name: "drain/n1".into(), version: Version(3), epoch: Epoch(4), value: vec![] };
    assert_eq!(store.records("drain/".into()).await, Ok(vec![taken_back]), "what was taken back is known");
    assert_eq!(put(4, 0, b"c").await, Err(LeadError::Changed { given: Version(0), current: Version(3) }));
    let long = store.put_record(Epoch(4), "long".into(), Version(0), vec![0; RECORD_BYTES_MAX + 1]).await;
    assert!(matches!(long, Err(LeadError::Store(StoreError::TooLarge { .. }))), "{long:?}");
    let longest = store.put_record(Epoch(4), "long".into(), Version(0), vec![0; RECORD_BYTES_MAX]).await;
    assert_eq!(longest, Ok(Version(1)));
}

/// Lists.
pub async fn records_are_listed_by_name(store: AnyLedStore) {
    store.lead(Epoch(1)).await.expect("nobody led before");
    for name in ["b/2", "a", "b/10", "b", "b/ä", "c%", "b_"] {
        store.put_record(Epoch(1), name.into(), Version(0), vec![]).await.expect("it is new");
    }
    let names = async |prefix: &str| -> Vec<String> {
        store.records(prefix.into()).await.expect("records").into_iter().map(|record| record.name).collect()
    };
    assert_eq!(names("").await, ["a", "b", "b/10", "b/2", "b/ä", "b_", "c%"]);
    assert_eq!(names("b/").await, ["b/10", "b/2", "b/ä"]);
    assert_eq!(names("c%").await, ["c%"]);
    assert_eq!(names("%").await, Vec::<String>::new());
}

/// LD-1, with both leaders at it.
pub async fn no_write_of_an_earlier_leader_comes_after_a_later_one(store: AnyLedStore) {
    store.lead(Epoch(1)).await.expect("nobody led before");
    let early = Arc::clone(&store);
    let writing = tokio::spawn(async move {
        let mut version = Version(0);
        loop {
            match early.put_record(Epoch(1), "of/both".into(), version, vec![1]).await {
                Ok(next) => version = next,
                Err(LeadError::Deposed { current }) => return (version, current),
                Err(other) => panic!("{other}"),
            }
        }
    });
    store.put_record(Epoch(1), "other".into(), Version(0), vec![]).await.expect("it leads");
    store.lead(Epoch(2)).await.expect("a later election");
    let seen = store.records("of/".into()).await.expect("records");
    let (written, current) = writing.await.expect("it is deposed");
    assert_eq!(current, Epoch(2));
    let at = seen.first().map_or(Version(0), |record| record.version);
    assert_eq!(at, written, "what was read after the election stays");
    assert_eq!(store.records("of/".into()).await.expect("records"), seen);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexa_ports::memory::MemoryStore;

    #[tokio::test]
    async fn the_store_in_memory_keeps_the_contract_of_leadership() {
        run_all(async || Arc::new(MemoryStore::new()) as AnyLedStore).await;
    }
}

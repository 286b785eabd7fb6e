//! What read models must answer, on any adapter: the same as the twin in memory.
//!
//! [`fill`] puts some of everything into an empty store; [`same_answers`] compares what two read models say about it.

use std::time::Duration;

use nexa_event::effect::{Answer as EffectAnswer, ApprovalRequest, Finish, ModelReply};
use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, ClusterEvent, EffectResult, Intent};
use nexa_ports::store::{Append, Guard, Stamp, Store};
use nexa_ports::view::{AgentFilter, ApprovalFilter, HistoryHit, MemoryViews, Page, Views};
use nexa_types::{
    AgentId, AgentState, BlobHash, EffectKey, Epoch, ModuleHash, NodeId, Seq, Spend, StreamId, TenantId, Tokens,
    Version, Waiting, WorkloadState,
};

use crate::store_contract::{birth, owned, stamp, submission, workload};

/// Longer than any read model needs here.
pub const LONG: Duration = Duration::from_secs(20);

/// The tenant of all of this.
pub fn local() -> TenantId {
    TenantId::local()
}

/// A fact with a line of history.
pub fn replied(seq: u64, text: &str) -> Fact {
    let reply = ModelReply {
        text: text.into(),
        finish: Finish::Stop,
        model: "embedded/smol".into(),
        spend: Spend::default(),
        tokens_left_out: Tokens(0),
        tool_calls: Vec::new(),
    };
    let result = EffectResult::Done(EffectAnswer::Model(reply));
    Fact::Agent(AgentEvent::EffectEnded { seq: Seq(seq), result, spend: Spend::default() })
}

fn asked(seq: u64) -> Fact {
    let request = ApprovalRequest { question: format!("Question {seq}?"), data: None, timeout: None };
    Fact::Agent(AgentEvent::EffectIntended { seq: Seq(seq), intent: Intent::Approval(request), fingerprint: [0; 32] })
}

/// Appends, and insists on it.
///
/// # Panics
/// If it is refused.
pub async fn append(store: &dyn Store, append: Append) {
    store.append(vec![append]).await.remove(0).expect("it is stored");
}

/// Twelve workloads, each with a root that waits for an approval and two children of which one replied; programs, and another
/// tenant's workload.
pub async fn fill(store: &dyn Store) {
    for number in 1..=12 {
        let workload = workload(number);
        let root = AgentId::root(workload);
        append(store, submission(workload)).await;
        let started = Fact::Agent(AgentEvent::Started { node: NodeId::new("n1").expect("good"), epoch: Epoch(1) });
        let children: Vec<AgentId> = (0..2).map(|branch| AgentId::child(root, Seq(1), branch)).collect();
        let births = children.iter().map(|child| birth(workload, *child)).collect();
        let facts = vec![started.clone(), asked(1)];
        append(store, Append { births, ..owned(root, 1, 1, facts) }).await;
        let text = format!("Chapter {number}: \"naïve\" re-entrant AND café OR NOT(x*) 100%");
        append(store, owned(children[0], 1, 1, vec![started, replied(1, &text)])).await;
    }
    for (name, byte) in [("review", 1), ("other", 2), ("review", 3)] {
        let (module, blob) = (ModuleHash::from_bytes([byte; 32]), BlobHash::from_bytes([byte; 32]));
        let put = Fact::Cluster(ClusterEvent::ProgramPut { module, blob, name: name.into() });
        let stream = StreamId::Cluster(local());
        let version = store.read(stream.clone(), Version(0), 100).await.expect("read").len() as u64;
        let change =
            Append { stream, guard: Guard::Version, ..owned(AgentId::from_bytes([0; 16]), 0, version, vec![put]) };
        append(store, change).await;
    }
    // Another tenant's.
    let stranger = TenantId::new("stranger").expect("a good name");
    let theirs = Append { stamp: Stamp { tenant: stranger, ..stamp(9) }, ..submission(workload(99)) };
    append(store, theirs).await;
}

/// Every page of a list.
macro_rules! all_pages {
    ($views:expr, $size:expr, |$page:ident| $call:expr) => {{
        let (mut items, mut next) = (Vec::new(), None);
        loop {
            let $page = Page { size: $size, token: next };
            let listed = $call.await.expect("a page");
            assert!(listed.items.len() <= $size);
            items.extend(listed.items);
            next = listed.next;
            if next.is_none() {
                break items;
            }
        }
    }};
}

/// Panics unless a store's read models say what the twin says about the same facts.
pub async fn same_answers<S: Store + Views>(store: &S, memory: &MemoryViews) {
    let head = *store.head().borrow();
    store.wait_applied(head, LONG).await.expect("it catches up");
    assert_eq!(store.lag(), 0);
    let (a, b): (&dyn Views, &dyn Views) = (store, memory);
    for size in [5, 500] {
        for state in [None, Some(WorkloadState::Running), Some(WorkloadState::Failed)] {
            let left = all_pages!(a, size, |page| a.list_workloads(local(), state, page));
            assert_eq!(left, all_pages!(b, size, |page| b.list_workloads(local(), state, page)));
        }
        for one in [None, Some(workload(3))] {
            for states in [vec![], vec![AgentState::Placed, AgentState::Waiting(Waiting::Approval)]] {
                let filter = AgentFilter { workload: one, states };
                let left = all_pages!(a, size, |page| a.list_agents(local(), filter.clone(), page));
                assert!(!left.is_empty());
                assert_eq!(left, all_pages!(b, size, |page| b.list_agents(local(), filter.clone(), page)));
            }
            let filter = ApprovalFilter { workload: one, pending_only: true };
            let left = all_pages!(a, size, |page| a.list_approvals(local(), filter.clone(), page));
            assert!(!left.is_empty());
            assert_eq!(left, all_pages!(b, size, |page| b.list_approvals(local(), filter.clone(), page)));
        }
        let left = all_pages!(a, size, |page| a.list_programs(local(), page));
        assert_eq!(left.iter().map(|program| program.name.as_str()).collect::<Vec<_>>(), ["review", "other", "review"]);
        assert_eq!(left, all_pages!(b, size, |page| b.list_programs(local(), page)));
        let queries = [
            ("chapter", 12),
            ("CHAPTER 7", 1),
            ("re-entrant naïve", 12),
            ("café", 12),
            ("cafe", 0),
            ("\"naïve\" AND", 12),
            ("NOT(x*)", 12),
            ("text:chapter", 0),
            ("chapt*", 0),
            ("question", 12),
            ("", 0),
            ("\" ' ; -- ( ) *", 0),
        ];
        for (query, count) in queries {
            let left = all_pages!(a, size, |page| a.search_history(local(), query.into(), None, page));
            let right = all_pages!(b, size, |page| b.search_history(local(), query.into(), None, page));
            assert_eq!(left.len(), count, "{query}");
            let place = |hits: &[HistoryHit]| -> Vec<_> {
                hits.iter().map(|hit| (hit.line.position, hit.line.kind.clone(), hit.agent_name.clone())).collect()
            };
            assert_eq!(place(&left), place(&right), "{query}");
        }
        let one = all_pages!(a, size, |page| a.search_history(local(), "chapter".into(), Some(workload(4)), page));
        assert_eq!(one.len(), 1);
    }
    let root = AgentId::root(workload(2));
    assert_eq!(a.workload(local(), workload(2)).await, b.workload(local(), workload(2)).await);
    assert_eq!(a.agent(local(), root).await, b.agent(local(), root).await);
    let key = EffectKey::of(workload(2), root, Seq(1));
    assert!(a.approval(local(), key).await.expect("approval").is_some());
    assert_eq!(a.approval(local(), key).await, b.approval(local(), key).await);
    let module = ModuleHash::from_bytes([3; 32]);
    assert_eq!(a.program(local(), module).await, b.program(local(), module).await);
    assert_eq!(a.digest(local()).await, b.digest(local()).await);
}

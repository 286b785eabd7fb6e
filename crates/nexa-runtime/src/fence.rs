//! Whether this node may still begin something outside.
//!
//! The store fences off a node that has lost an agent, but only at its next append; what it sends before that, it sends
//! beside the new owner. So the node asks here right before it sends. While its lease counts, nobody else can have its
//! agents. Past that, as while the membership service is away, the store's word counts for a moment: it has just
//! accepted the start of that very effect under this node's right.

use std::sync::Arc;

use nexa_ports::membership::{Membership, Standing};
use nexa_types::planted::{Bug, planted};
use nexa_types::{Millis, Timestamp};

/// How long the store's acceptance of a start counts by itself.
pub const TICKET_FRESH: Millis = Millis(1_000);
/// After so long an agent that may not send asks again, and the store before whether it is still this node's.
pub(crate) const FENCE_RETRY: Millis = Millis(500);

/// Says whether an effect may be sent. Asked before each, so it must be cheap, and must not block.
pub trait Fence: Send + Sync {
    /// The time by which starts age. It should also count while the process is stopped or the machine sleeps; it is
    /// compared with nothing else.
    fn now(&self) -> Timestamp;

    /// Whether an effect may be sent now. The store was asked to accept its start at `asked`, and has accepted it; `None`
    /// if nobody knows when that was.
    fn may_send(&self, asked: Option<Timestamp>) -> bool;
}

/// Of a node that nobody else can take for gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Always;

impl Fence for Always {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn may_send(&self, _: Option<Timestamp>) -> bool {
        true
    }
}

/// Whether a node that stands so may send an effect at `now`, by the clock of its lease. `asked` as in [`Fence::may_send`].
#[must_use]
pub fn may_send(standing: Standing, asked: Option<Timestamp>, now: Timestamp) -> bool {
    let is_valid = match standing {
        Standing::Member { valid_until, .. } => now < valid_until,
        Standing::Outside | Standing::Lost => false,
    };
    let is_fresh = |asked| now.since(asked) <= TICKET_FRESH || planted(Bug::TicketNeverAges);
    is_valid || asked.is_some_and(is_fresh) || planted(Bug::FenceOpen)
}

/// By the node's own lease.
#[derive(Clone)]
pub struct Leased(pub Arc<dyn Membership>);

impl Fence for Leased {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn may_send(&self, asked: Option<Timestamp>) -> bool {
        let now = self.0.now();
        let standing = *self.0.standing().borrow();
        may_send(standing, asked, now)
    }
}

#[cfg(test)]
mod tests {
    use nexa_ports::clock::SimClock;
    use nexa_ports::membership::NodeCard;
    use nexa_ports::membership::local::LocalCluster;
    use nexa_types::NodeId;

    use super::*;

    #[tokio::test]
    async fn past_its_lease_a_node_sends_only_what_the_store_has_just_accepted() {
        let clock = Arc::new(SimClock::new(Timestamp(1_000_000)));
        let cluster = LocalCluster::with_term(clock.clone(), Millis(3_000));
        let member = cluster.member();
        let fence = Leased(member.clone());
        let node = NodeId::new("n1").unwrap();
        let card = NodeCard {
            id: node.clone(),
            door: "a:1".to_owned(),
            link: "a:2".to_owned(),
            labels: std::collections::BTreeMap::new(),
            cpu_milli: 1,
            memory_bytes: 1,
            agents_max: 1,
            build: "test".to_owned(),
            formats: (1, 1),
        };
        assert!(!fence.may_send(None), "it is no member yet");
        member.join(card).await.unwrap();
        assert!(fence.may_send(None));
        cluster.cut_off(&node);
        clock.advance(Millis(10_000));
        let now = fence.now();
        assert!(!fence.may_send(None));
        assert!(fence.may_send(Some(now)));
        clock.advance(TICKET_FRESH);
        assert!(fence.may_send(Some(now)));
        clock.advance(Millis(1));
        assert!(!fence.may_send(Some(now)));
    }
}

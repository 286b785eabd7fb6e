//! New work is refused by the head of its call, before the message is read.
//!
//! While a node is full, most of what a refusal costs would be reading, decoding and carrying along what is then refused.
//! So for [`CROWDED_FOR`] after a refusal each call that brings new work is judged here first, by what travels beside its
//! message: the token says who asks, and [`REQUEST_ID`](nexa_proto::REQUEST_ID) which request it is. It is the judgement of
//! the layer with the same numbers, so tenants keep their parts and what was accepted before is not refused. What passes
//! takes no place here: the layer judges it again.
//!
//! Left to the layer is whoever is not known or may not submit, who is told so; a submission without that header, because
//! nobody could say whether it was accepted before; and one that says that it repeats itself, which may be looked up.
//!
//! A message that makes no sense is told to come back here, and what is wrong with it then. Who names another request in the
//! head than in the message may be refused for it, or goes on to the layer, which believes the message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use metrics::histogram;
use nexa_proto::refusal::Refusal;
use nexa_types::{Millis, RequestId, Timestamp, WorkloadId};

use super::{Admission, Demand};
use crate::mediator::{Access, Credentials, Tokens, identify};

/// How long after a refusal calls are judged by their heads.
pub const CROWDED_FOR: Millis = Millis(1_000);

/// What is known of a call that brings new work before its message is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What it adds to.
    pub demand: Demand,
    /// What the caller showed.
    pub credentials: Credentials,
    /// Which request it says it is.
    pub request: Option<RequestId>,
    /// Whether the caller has sent it before and does not know what became of it.
    pub repeats: bool,
}

/// Judges heads. Clones are the same.
#[derive(Clone)]
pub struct Porter {
    admission: Admission,
    tokens: Option<Arc<Tokens>>,
}

/// Whether something was refused lately.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    until: AtomicU64,
}

impl Crowd {
    pub(super) fn refused_at(&self, now: Timestamp) {
        self.until.fetch_max(now.after(CROWDED_FOR).0, Ordering::Relaxed);
    }

    fn is_there(&self, now: Timestamp) -> bool {
        now.0 < self.until.load(Ordering::Relaxed)
    }
}

impl Porter {
    pub(crate) fn new(admission: Admission, tokens: Option<Arc<Tokens>>) -> Self {
        Self { admission, tokens }
    }

    /// Whether calls are judged by their heads now. Nearly free.
    pub fn is_awake(&self) -> bool {
        let shared = &self.admission.shared;
        shared.crowd.is_there(shared.clock.now())
    }

    /// Why a call is refused; `None` if the layer is to judge it.
    pub fn turns_away(&self, head: &Head) -> Option<Refusal> {
        let came = Instant::now();
        if head.repeats {
            return None;
        }
        let identity = identify(self.tokens.as_deref(), &head.credentials).ok()?;
        if identity.access == Access::Read {
            return None;
        }
        let workload = match head.demand {
            Demand::Agents => Some(WorkloadId::of(&identity.tenant, head.request?)),
            Demand::Program => None,
        };
        let refusal = self.admission.turns_away(&identity.tenant, head.demand, workload)?;
        let name = match head.demand {
            Demand::Agents => "Submit",
            Demand::Program => "PutProgram",
        };
        tracing::debug!(tenant = %identity.tenant, name, %refusal, "turned away");
        histogram!("nexa_rpc_seconds", "rpc" => name, "code" => "RESOURCE_EXHAUSTED")
            .record(came.elapsed().as_secs_f64());
        Some(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_there_for_a_while_after_the_last_refusal() {
        let crowd = Crowd::default();
        assert!(!crowd.is_there(Timestamp(0)));
        crowd.refused_at(Timestamp(5_000));
        crowd.refused_at(Timestamp(4_000));
        assert!(crowd.is_there(Timestamp(5_999)) && !crowd.is_there(Timestamp(6_000)));
    }
}

//! New work is let in, or refused at once: the shell around [`judge::admit`].
//!
//! A layer of the chain at [`order::ADMIT`](crate::mediator::order::ADMIT). It judges the commands that bring new work,
//! which are Submit and PutProgram; everything else goes by, so that under overload people can still look, cancel and
//! answer. Finishing what was accepted comes before accepting more: nothing here ever takes accepted work back.
//!
//! A command that is let in holds an [`Entrance`] until it is carried out, also when its caller has gone meanwhile. A
//! workload that was accepted is counted until its root agent has begun, which the node is asked now and then.
//!
//! A request that was accepted before is never refused: its answer costs nothing. The newest [`ACCEPTED_KEPT_MAX`] are
//! known here; whether an older one was, or one from before a restart, is looked up if the caller says that it repeats
//! itself, at most [`LOOKUPS_MAX`] at a time.
//!
//! While it refuses, a [`Porter`] at the door does most of it by the heads of calls, before their messages are read.
//!
//! Bounds: [`AdmitLimits`]; then OVERLOADED, with a time to come back.

mod judge;
mod porter;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nexa_ports::clock::Clock;
use nexa_ports::dice::Dice;
use nexa_proto::refusal::Refusal;
use nexa_types::{AgentId, Reason, TenantId, WorkloadId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use judge::{AdmitLimits, Demand, Excess, Pressure, Refused, admit};
pub use porter::{CROWDED_FOR, Head, Porter};

use crate::host::Host;
use crate::mediator::{Call, Command, Layer, Message, around, go_on, order};
use porter::Crowd;
use state::State;

/// Accepted requests that are known without a look into the store. Then: the oldest goes.
pub const ACCEPTED_KEPT_MAX: usize = 65_536;
/// Looks into the store for requests that would be refused. Then: they are refused without one.
pub const LOOKUPS_MAX: usize = 4;

/// Judges new work for one node. Clones are the same.
#[derive(Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

struct Shared {
    host: Arc<dyn Host>,
    limits: AdmitLimits,
    clock: Arc<dyn Clock>,
    dice: Arc<dyn Dice>,
    state: Mutex<State>,
    lookups: Arc<Semaphore>,
    crowd: Crowd,
}

/// How a command that brings new work was let in; held until it is carried out.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// It takes a place.
    Place(Arc<Place>),
    /// Refused so, unless it turns out that it was accepted before.
    UnlessKnown(Box<Refusal>, Arc<OwnedSemaphorePermit>),
}

/// A place among the work that enters, given back when the work is carried out, or when this is dropped.
pub struct Place {
    shared: Arc<Shared>,
    tenant: TenantId,
    demand: Demand,
    is_left: AtomicBool,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Place({})", self.tenant)
    }
}

impl Place {
    /// The work was accepted: it is never refused from now on, and counted until its root agent has begun.
    pub(crate) fn accepted(&self, workload: WorkloadId, root: AgentId) {
        self.shared.lock().accepted(workload, root, &self.tenant);
    }
}

impl Place {
    /// The work is carried out. Its answer may take its time on the way out, and takes nobody's place meanwhile.
    pub(crate) fn leave(&self) {
        if !self.is_left.swap(true, Ordering::AcqRel) {
            self.shared.lock().leave(&self.tenant, self.demand);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges new work of a tenant. A refusal is noted; who passes is not.
    fn judge(&self, state: &mut State, tenant: &TenantId, demand: Demand) -> Result<(), Refused> {
        let now = self.clock.now();
        state.look(now, tenant, |root| self.host.is_coming(root));
        let load = state.pressure(tenant, &self.host.stats());
        admit(demand, &load, &self.limits, self.dice.roll()).inspect_err(|refused| {
            state.refuse(refused.reason);
            self.crowd.refused_at(now);
        })
    }
}

impl Admission {
    /// Admission to a node.
    pub fn new(host: Arc<dyn Host>, limits: AdmitLimits, clock: Arc<dyn Clock>, dice: Arc<dyn Dice>) -> Self {
        let lookups = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self {
            shared: Arc::new(Shared {
                host,
                limits,
                clock,
                dice,
                state: Mutex::default(),
                lookups,
                crowd: Crowd::default(),
            }),
        }
    }

    /// The layer, for [`Builder::admission`](crate::mediator::Builder::admission).
    pub(crate) fn layer(&self) -> Layer {
        let admission = self.clone();
        around(order::ADMIT, "admit", brings_work, move |mut call, next| {
            let judged = admission.enter(&call);
            async move {
                call.entrance = judged?;
                go_on(next, call).await
            }
        })
    }

    /// How often new work was refused since the start, by reason.
    pub fn refused(&self) -> BTreeMap<Excess, u64> {
        self.shared.lock().refused.clone()
    }

    /// Why new work would be refused now, if it was not accepted before.
    fn turns_away(&self, tenant: &TenantId, demand: Demand, workload: Option<WorkloadId>) -> Option<Refusal> {
        let mut state = self.shared.lock();
        if workload.is_some_and(|workload| state.knows(workload)) {
            return None;
        }
        self.shared.judge(&mut state, tenant, demand).err().map(refusal)
    }

    fn enter(&self, call: &Call) -> Result<Option<Entrance>, Refusal> {
        let Some(identity) = &call.identity else {
            return Err(Refusal::new(Reason::Unauthenticated, "who is asking is not known"));
        };
        let (demand, workload) = match &call.message {
            Message::Command(Command::Submit(submit)) => {
                (Demand::Agents, Some(WorkloadId::of(&identity.tenant, submit.request)))
            }
            _ => (Demand::Program, None),
        };
        if call.patience.is_some_and(|patience| patience.is_zero()) {
            return Err(Refusal::new(Reason::DeadlineExceeded, "the call came after its deadline"));
        }
        let shared = &self.shared;
        let refused = {
            let mut state = shared.lock();
            if workload.is_some_and(|workload| state.knows(workload)) {
                return Ok(None);
            }
            match shared.judge(&mut state, &identity.tenant, demand) {
                Ok(()) => {
                    state.enter(&identity.tenant, demand);
                    let tenant = identity.tenant.clone();
                    return Ok(Some(Entrance::Place(Arc::new(Place {
                        shared: shared.clone(),
                        tenant,
                        demand,
                        is_left: AtomicBool::new(false),
                    }))));
                }
                Err(refused) => refused,
            }
        };
        let refusal = refusal(refused);
        if call.repeats
            && workload.is_some()
            && let Ok(permit) = shared.lookups.clone().try_acquire_owned()
        {
            return Ok(Some(Entrance::UnlessKnown(Box::new(refusal), Arc::new(permit))));
        }
        Err(refusal)
    }
}

/// What a caller is told.
fn refusal(refused: Refused) -> Refusal {
    Refusal::new(Reason::Overloaded, format!("no new work is taken: {}", refused.reason.text()))
        .hint("accepted work goes on, and can be watched and cancelled; ask again later with the same request id")
        .after(refused.retry_after)
}

fn brings_work(message: &Message) -> bool {
    match message {
        Message::Command(Command::Submit(_) | Command::PutProgram(_)) => true,
        Message::Command(
            Command::Cancel(_)
            | Command::SendMessage(_)
            | Command::AnswerApproval(_)
            | Command::Migrate(_)
            | Command::Cordon(_)
            | Command::Drain(_)
            | Command::Rebalance(_)
            | Command::RaiseFormat(_)
            | Command::Forget(_)
            | Command::Rebuild(_),
        )
        | Message::Query(_) => false,
    }
}

//! What the handlers need of the node that they share a process with.
//!
//! A narrow trait and not the node itself: tests of doors and handlers need no agents that run, and a door that stands
//! before several nodes will choose one here.

use std::sync::Arc;

use futures::future::BoxFuture;
use nexa_ports::store::Stamp;
use nexa_runtime::LiveHub;
use nexa_runtime::Newborn;
use nexa_runtime::Node;
use nexa_runtime::NodeStats;
use nexa_runtime::ProgramError;
use nexa_sched::SchedulerConfig;
use nexa_types::{AgentId, ModuleHash, NodeId, TenantId};
use nexa_vm::module::Module;
use nexa_vm::vm::Program;

/// The node behind the doors.
pub trait Host: Send + Sync {
    /// Its name: the owner of what is submitted here.
    fn id(&self) -> &NodeId;

    /// Says that an agent has something to do. Only a hint: what there is to do is in the store.
    fn wake(&self, agent: AgentId);

    /// The same for an agent that was born on this node just now, with what was stored of it.
    fn wake_newborn(&self, newborn: Newborn);

    /// A kept program of a tenant.
    fn program<'a>(
        &'a self,
        tenant: &'a TenantId,
        module: ModuleHash,
    ) -> BoxFuture<'a, Result<Arc<Program>, ProgramError>>;

    /// Keeps a program of a tenant under a name, and loads it. Puts of one tenant take turns.
    fn put_program<'a>(
        &'a self,
        tenant: &'a TenantId,
        module: &'a Module,
        name: &'a str,
        stamp: Stamp,
    ) -> BoxFuture<'a, Result<Arc<Program>, ProgramError>>;

    /// What its agents say while they work.
    fn live(&self) -> &LiveHub;

    /// How it is doing. Cheap enough to be asked for every request.
    fn stats(&self) -> NodeStats;

    /// Whether an agent that it was told of has not begun yet.
    fn is_coming(&self, agent: AgentId) -> bool;

    /// An agent is about to be born on this node, which has others beside it: it takes up only agents that it was told of.
    fn bears(&self, agent: AgentId);

    /// It was born elsewhere, by another request for the same.
    fn did_not_bear(&self, agent: AgentId);

    /// How it schedules.
    fn scheduler(&self) -> SchedulerConfig {
        SchedulerConfig::default()
    }
}

impl Host for Node {
    fn id(&self) -> &NodeId {
        Node::id(self)
    }

    fn wake(&self, agent: AgentId) {
        if let Err(overloaded) = Node::wake(self, agent) {
            tracing::debug!(%agent, %overloaded, "the agent will be found by the next sweep");
        }
    }

    fn wake_newborn(&self, newborn: Newborn) {
        let agent = newborn.agent();
        if let Err(overloaded) = Node::wake_newborn(self, newborn) {
            tracing::debug!(%agent, %overloaded, "the agent will be found by the next sweep");
        }
    }

    fn program<'a>(
        &'a self,
        tenant: &'a TenantId,
        module: ModuleHash,
    ) -> BoxFuture<'a, Result<Arc<Program>, ProgramError>> {
        Box::pin(Node::program(self, tenant, module))
    }

    fn put_program<'a>(
        &'a self,
        tenant: &'a TenantId,
        module: &'a Module,
        name: &'a str,
        stamp: Stamp,
    ) -> BoxFuture<'a, Result<Arc<Program>, ProgramError>> {
        Box::pin(Node::put_program(self, tenant, module, name, stamp))
    }

    fn live(&self) -> &LiveHub {
        Node::live(self)
    }

    fn stats(&self) -> NodeStats {
        Node::stats(self)
    }

    fn is_coming(&self, agent: AgentId) -> bool {
        Node::is_coming(self, agent)
    }

    fn bears(&self, agent: AgentId) {
        Node::bears(self, agent);
    }

    fn did_not_bear(&self, agent: AgentId) {
        Node::did_not_bear(self, agent);
    }

    fn scheduler(&self) -> SchedulerConfig {
        Node::scheduler(self).clone()
    }
}

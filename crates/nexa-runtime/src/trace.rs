//! Where traces come from and go on: what came with a call, what placed an agent, what it did on the node before.
//!
//! A context travels in five ways: as the `traceparent` of a call; in the header of each fact; beside what waits in an inbox; in
//! the leader's order that gives agents to a node; and with an agent that moves. An agent's turns are traces of their own
//! ([`crate::genai`]), so all of these become links of its next turn, but for a call's `traceparent`, which is the parent of the
//! call's span.
//!
//! What waits in an inbox comes from agents of the same workload, or from a call that was let in for the agent's tenant. So no
//! trace leads from one tenant to another.
//!
//! Spans in here are one for each call that changes something, one for each time that a node is told of agents, and one for
//! each agent that moves: none for a message or a fact.
//!
//! Bounds: [`LEADS_MAX`] agents that are out of memory have a context kept. A further one has its next turn without that link.
//! A turn has at most [`LINKS_MAX`] links; what it hears after those is not linked.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nexa_event::envelope::TraceContext;
use nexa_types::{AgentId, NodeId};
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::genai::{TARGET, attribute};

/// Agents out of memory of which it is known what led to their next turn.
pub const LEADS_MAX: usize = 65_536;

/// The most links of a span. They go to the exporter as attributes, of which it keeps 128 a span, and what else is said of a turn
/// must have room.
pub const LINKS_MAX: usize = 64;

/// What is done, beside agents' own work.
pub mod operation {
    /// Somebody calls a node.
    pub const CALL: &str = "call";
    /// A leader tells a node of agents that it was given.
    pub const PLACE: &str = "place_agents";
    /// An agent moves.
    pub const MIGRATE: &str = "migrate_agent";
}

/// How spans and contexts go together, which only who exports them knows.
#[derive(Debug, Clone, Copy)]
pub struct Exporter {
    /// Which trace a span is in, if it is exported.
    pub context_of: fn(&Span) -> Option<TraceContext>,
    /// Makes a new span a child of one that is not of this process.
    pub put_under: fn(&Span, &TraceContext),
}

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Says who exports spans. The first call counts.
pub fn exported_by(exporter: Exporter) {
    // A second exporter in one process would see the same spans.
    let _ = EXPORTER.set(exporter);
}

/// Which trace a span is in, if it is exported.
pub fn context_of(span: &Span) -> Option<TraceContext> {
    EXPORTER.get().and_then(|exporter| (exporter.context_of)(span))
}

/// What is being done, if it is exported: what is stored meanwhile belongs to it.
pub(crate) fn here() -> Option<TraceContext> {
    EXPORTER.get().and_then(|exporter| (exporter.context_of)(&Span::current()))
}

/// A context as a W3C `traceparent`.
pub fn traceparent(context: &TraceContext) -> String {
    format!("00-{:032x}-{:016x}-01", u128::from_be_bytes(context.trace), u64::from_be_bytes(context.span))
}

/// The context of a W3C `traceparent` (Trace Context, level 1, section 3.2): version, trace, span and flags in hex. Nothing
/// for one that is malformed, or that says that its trace is not kept.
pub fn context(header: &str) -> Option<TraceContext> {
    let mut parts = header.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    // A later version may have more parts, this one has not.
    let has_more = version == "00" && parts.next().is_some();
    if !is_hex(version, 2) || version == "ff" || !is_hex(trace, 32) || !is_hex(span, 16) || has_more {
        return None;
    }
    let is_kept = is_hex(flags, 2) && u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
    is_kept.then(|| TraceContext { trace: trace.to_be_bytes(), span: span.to_be_bytes() })
}

/// Contexts that lead to something, each once, and the first [`LINKS_MAX`] of them.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<TraceContext>);

impl Links {
    /// Takes one in, and says whether it was wanted.
    pub(crate) fn note(&mut self, context: Option<TraceContext>) -> bool {
        let Some(context) = context else { return false };
        let is_wanted = self.0.len() < LINKS_MAX && !self.0.contains(&context);
        if is_wanted {
            self.0.push(context);
        }
        is_wanted
    }

    /// Gives them, the first one first, and has none afterwards, nor room for any.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = TraceContext> {
        std::mem::take(&mut self.0).into_iter()
    }
}

/// Notes what led to a span, beside what it is linked to already.
pub(crate) fn link(span: &Span, linked: &mut Links, to: impl IntoIterator<Item = TraceContext>) {
    for to in to {
        if linked.note(Some(to)) {
            span.record(attribute::LINK, traceparent(&to));
        }
    }
}

/// A call that a node answers, as a child of what its caller sent along.
pub fn call(name: &'static str, node: &NodeId, from: Option<TraceContext>) -> Span {
    let span = info_span!(
        target: TARGET,
        parent: None,
        operation::CALL,
        otel.name = format!("nexa.v1/{name}"),
        otel.kind = "server",
        otel.status_code = Empty,
        { attribute::RPC_SYSTEM } = "grpc",
        { attribute::RPC_METHOD } = name,
        { attribute::NODE_ID } = display(node),
        { attribute::ERROR_TYPE } = Empty,
    );
    if let (Some(exporter), Some(from), false) = (EXPORTER.get(), from, span.is_disabled()) {
        (exporter.put_under)(&span, &from);
    }
    span
}

/// A leader tells a node of so many agents.
pub fn place(leader: &NodeId, node: &NodeId, agents: usize) -> Span {
    info_span!(
        target: TARGET,
        parent: None,
        operation::PLACE,
        otel.name = format!("{} on {node}", operation::PLACE),
        otel.kind = "producer",
        otel.status_code = Empty,
        { attribute::OPERATION_NAME } = operation::PLACE,
        { attribute::NODE_ID } = display(leader),
        { attribute::TO_NODE_ID } = display(node),
        { attribute::AGENTS } = agents,
        { attribute::ERROR_TYPE } = Empty,
    )
}

/// An agent leaves a node for another.
pub fn migrate(agent: AgentId, from: &NodeId, to: &NodeId) -> Span {
    info_span!(
        target: TARGET,
        parent: None,
        operation::MIGRATE,
        otel.name = format!("{} to {to}", operation::MIGRATE),
        otel.kind = "internal",
        otel.status_code = Empty,
        { attribute::OPERATION_NAME } = operation::MIGRATE,
        { attribute::AGENT_ID } = display(agent),
        { attribute::CONVERSATION_ID } = display(agent),
        { attribute::NODE_ID } = display(from),
        { attribute::TO_NODE_ID } = display(to),
        { attribute::ERROR_TYPE } = Empty,
        { attribute::LINK } = Empty,
    )
}

/// An agent that moves did this last where it was.
pub fn follows(span: &Span, earlier: Option<TraceContext>) {
    link(span, &mut Links::default(), earlier);
}

/// What a span is about did not work, for this reason from a closed set.
pub fn failed(span: &Span, why: impl Display) {
    span.record(attribute::ERROR_TYPE, why.to_string());
    span.record("otel.status_code", "ERROR");
}

/// What led to the next turn of agents that are out of memory: their latest turn here or elsewhere, or who placed them.
#[derive(Default)]
pub(crate) struct Leads {
    by_agent: Mutex<HashMap<AgentId, TraceContext>>,
}

impl Leads {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, TraceContext>> {
        self.by_agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, agent: AgentId, context: Option<TraceContext>) {
        let Some(context) = context else { return };
        let mut by_agent = self.lock();
        if by_agent.len() < LEADS_MAX || by_agent.contains_key(&agent) {
            by_agent.insert(agent, context);
        }
    }

    pub(crate) fn take(&self, agent: AgentId) -> Option<TraceContext> {
        self.lock().remove(&agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_written_as_a_traceparent_and_read_again() {
        let it = TraceContext { trace: [0x0A; 16], span: [1, 0, 0, 0, 0, 0, 0, 0xFF] };
        let written = traceparent(&it);
        assert_eq!(written, format!("00-{}-01000000000000ff-01", "0a".repeat(16)));
        assert_eq!(context(&written), Some(it));
    }

    #[test]
    fn a_header_is_a_context_or_nothing() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        assert!(context(&format!("00-{trace}-{span}-03")).is_some(), "further flags say nothing about it");
        assert!(context(&format!("01-{trace}-{span}-01-more")).is_some(), "a later version may say more");
        for wrong in [
            String::new(),
            "00".into(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-00"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}é-{span}-01"),
        ] {
            assert_eq!(context(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_context_is_linked_once_and_only_so_many_are() {
        let it = |n: usize| Some(TraceContext { trace: (n as u128).to_be_bytes(), span: [1; 8] });
        let mut links = Links::default();
        assert!(!links.note(None));
        for n in 0..LINKS_MAX {
            assert!(links.note(it(n)) && !links.note(it(n)), "{n}");
        }
        assert!(!links.note(it(LINKS_MAX)), "there is no room for it");
        assert_eq!(links.take().map(Some).collect::<Vec<_>>(), (0..LINKS_MAX).map(it).collect::<Vec<_>>());
        assert!(links.note(it(0)), "it has none any more");
    }

    #[test]
    fn what_leads_to_a_turn_is_kept_for_so_many_agents_and_taken_once() {
        let (leads, agent) = (Leads::default(), |n: usize| AgentId::from_bytes((n as u128).to_be_bytes()));
        let it = |n: u8| Some(TraceContext { trace: [n; 16], span: [n; 8] });
        for n in 0..LEADS_MAX {
            leads.note(agent(n), it(1));
        }
        leads.note(agent(LEADS_MAX), it(1));
        leads.note(agent(0), it(2));
        leads.note(agent(0), None);
        assert_eq!((leads.take(agent(0)), leads.take(agent(0))), (it(2), None));
        assert_eq!(leads.take(agent(LEADS_MAX)), None);
    }
}

//! The port to tools.
//!
//! One call, one result: JSON in, JSON out. Whether a tool may be called at all was decided before, by the program's
//! grant and, where it asks for one, by a person; what it may reach is decided here, by the limits that come with the
//! call.
//!
//! A call ends by its result, its deadline, or its token being cancelled, whichever comes first.

use std::time::Duration;

use futures::future::BoxFuture;
use nexa_event::effect::{ToolRequest, ToolSource};
use nexa_types::{AgentId, EffectKey, TenantId, WorkloadId};
use tokio_util::sync::CancellationToken;

/// A call with everything that is known about it outside the VM.
#[derive(Debug, Clone)]
pub struct ToolCall {
    /// What is asked.
    pub request: ToolRequest,
    /// The effect's key, the same for every attempt: whoever sees it twice has done the work before.
    pub key: EffectKey,
    /// 1 for the first sending.
    pub attempt: u32,
    /// On whose behalf.
    pub tenant: TenantId,
    /// In which workload.
    pub workload: WorkloadId,
    /// By which agent.
    pub agent: AgentId,
    /// How long the result may take from now.
    pub deadline: Duration,
    /// Ends the call early.
    pub cancel: CancellationToken,
}

/// Why a tool gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The tool answered that it failed, or the arguments mean nothing to it.
    #[error("{0}")]
    Failed(String),
    /// The limits of the call do not allow it.
    #[error("{0}")]
    Denied(String),
    /// The tool was not reached, so nothing has happened.
    #[error("{0}")]
    Unavailable(String),
    /// No result in time. The work may go on or be done.
    #[error("{0}")]
    Timeout(String),
    /// The call was cancelled. The work may be done.
    #[error("the call was cancelled")]
    Cancelled,
    /// The tool was reached and its answer was lost.
    #[error("{0}")]
    Lost(String),
}

/// Why this node cannot call a tool at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_text} is not available on this node: {why}")]
pub struct NoTool {
    /// The source, as a program writes it.
    pub source_text: String,
    /// Why, and what to do.
    pub why: String,
}

impl NoTool {
    /// A source that is missing for a reason.
    pub fn new(source: &ToolSource, why: impl Into<String>) -> Self {
        Self { source_text: source.to_string(), why: why.into() }
    }
}

/// Everything that can be called as a tool from a node.
pub trait Tools: Send + Sync {
    /// Calls a tool once. The result is JSON text.
    ///
    /// Dropping the future gives up waiting. A tool that had begun may go on, so a caller that must know drops it only
    /// for calls that change nothing.
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<String, ToolError>>;

    /// Whether a source exists for a tenant and takes these parameters. Asked when a module is loaded.
    ///
    /// # Errors
    /// [`NoTool`] says what is missing.
    fn find(&self, tenant: &TenantId, source: &ToolSource, params: &[String]) -> Result<(), NoTool>;

    /// How many calls of a source's lane may be under way at once.
    fn slots(&self, source: &ToolSource) -> usize;

    /// The lane that a source uses: sources with equal lanes share slots.
    fn lane(&self, source: &ToolSource) -> String;
}

/// A node without tools.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTools;

impl Tools for NoTools {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<String, ToolError>> {
        let source = call.request.source.to_string();
        Box::pin(
            async move { Err(ToolError::Unavailable(format!("{source} is not available: this node has no tools"))) },
        )
    }

    fn find(&self, _: &TenantId, source: &ToolSource, _: &[String]) -> Result<(), NoTool> {
        Err(NoTool::new(source, "it has no tools"))
    }

    fn slots(&self, _: &ToolSource) -> usize {
        1
    }

    fn lane(&self, source: &ToolSource) -> String {
        source.to_string()
    }
}

//! What messages are answered with, where no read model has a type for it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use nexa_proto::refusal::Refusal;
use nexa_types::{AgentId, ModuleHash, Timestamp, Version, WorkloadId};

use crate::watch::Frame;

/// A kept program.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramPut {
    /// What it offers.
    pub program: ProgramInfo,
    /// What the compiler warns of.
    pub warnings: Vec<Note>,
}

/// Something that the compiler says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// The code.
    pub code: String,
    /// What is wrong.
    pub message: String,
}

/// What a program offers.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramInfo {
    /// Its module.
    pub module: ModuleHash,
    /// The name under which it was put first.
    pub name: String,
    /// What can be submitted.
    pub entries: Arc<[EntryInfo]>,
    /// When it was put first.
    pub put_at: Timestamp,
}

/// Something that can be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// Its name.
    pub name: String,
    /// Whether it is a declared agent.
    pub is_agent: bool,
    /// Its parameters, in order.
    pub params: Vec<ParamInfo>,
    /// The JSON Schema of its result.
    pub result_schema: String,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamInfo {
    /// Its name.
    pub name: String,
    /// The JSON Schema of its values.
    pub schema: String,
    /// Whether the input may leave it out.
    pub optional: bool,
}

/// A workload is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// The workload.
    pub workload: WorkloadId,
    /// The agent that decides what runs next.
    pub root: AgentId,
    /// What it runs.
    pub module: ModuleHash,
}

/// A plan with what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The tasks.
    pub graph: nexa_sched::TaskGraph,
    /// The nodes.
    pub cluster: nexa_sched::Cluster,
    /// What runs where and when.
    pub plan: nexa_sched::SchedulePlan,
    /// Why, of the first tasks.
    pub explained: Vec<nexa_sched::Explanation>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSnapshot {
    /// How many facts it accounts for.
    pub version: Version,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What a watch shows, one after the other. Dropping it ends the watch.
pub struct Frames<T = Frame>(Pin<Box<dyn Stream<Item = Result<T, Refusal>> + Send>>);

impl<T> Frames<T> {
    /// Frames from a stream of them.
    pub fn new(frames: impl Stream<Item = Result<T, Refusal>> + Send + 'static) -> Self {
        Self(Box::pin(frames))
    }
}

impl<T> Stream for Frames<T> {
    type Item = Result<T, Refusal>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl<T> std::fmt::Debug for Frames<T> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Frames(…)")
    }
}

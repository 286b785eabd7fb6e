//! Everybody who answers a driven run: the script behind the model port, the tools of a node, and memories.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nexa_agent::OutsideEffect;
use nexa_event::effect::{Answer, EffectBody, RecallRequest, Remembered};
use nexa_event::fact::EffectResult;
use nexa_llm::script::{Script, ScriptedModel};
use nexa_ports::clock::SystemClock;
use nexa_ports::memories::MemoryPlace;
use nexa_ports::model::{Model, ModelCall, NoChunks};
use nexa_ports::tool::{ToolCall, Tools};
use nexa_tools::Builtins;
use nexa_types::{AgentId, Failure, GlobalSeq, RunCode, Spend, TenantId, WorkloadId};
use nexa_view::{MemoryBook, MemoryEntry};
use nexa_vm::recall::look_up;
use nexa_vm::{codec, json};
use tokio_util::sync::CancellationToken;

/// How long an answer may take; none is waited for longer than its script says.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    model: ScriptedModel,
    tools: Builtins,
    memories: MemoryBook,
    stored: u64,
}

impl World {
    /// The script answers for models, and tools see the files below `folder`.
    pub(crate) fn new(script: Script, folder: &Path) -> Self {
        let tools = Builtins::new(Arc::new(SystemClock::default()));
        let tools = tools.with_files(TenantId::local(), folder).expect("the example's folder can be opened");
        Self { model: ScriptedModel::new(script), tools, memories: MemoryBook::default(), stored: 0 }
    }

    /// What comes of a request that was sent, and what it cost.
    pub(crate) fn answer(&self, agent: AgentId, workload: WorkloadId, effect: OutsideEffect) -> (EffectResult, Spend) {
        let OutsideEffect { key, attempt, body, .. } = effect;
        let (tenant, cancel, deadline) = (TenantId::local(), CancellationToken::new(), DEADLINE);
        match body {
            EffectBody::Model(request) => {
                let call = ModelCall { request: *request, key, attempt, tenant, workload, deadline, cancel };
                match wait(self.model.ask(call, &NoChunks)) {
                    Ok(reply) => {
                        let spend = reply.spend;
                        (EffectResult::Done(Answer::Model(reply)), spend)
                    }
                    Err(error) => {
                        let spend = Spend { calls: 1, ..Spend::default() };
                        (EffectResult::Failed(Failure::new(error.code, error.message)), spend)
                    }
                }
            }
            EffectBody::Tool(request) => {
                let call = ToolCall { request: *request, key, attempt, tenant, workload, agent, deadline, cancel };
                let result = match wait(self.tools.call(call)) {
                    Ok(text) => {
                        let value = json::from_json(&text).expect("a tool gives JSON");
                        EffectResult::Done(Answer::Value(codec::encode(&value)))
                    }
                    Err(error) => EffectResult::Failed(Failure::new(RunCode::ToolFailed, error.to_string())),
                };
                (result, Spend::default())
            }
            other => panic!("nobody here answers {other:?}"),
        }
    }

    /// What an agent stored is there for all that look later.
    pub(crate) fn keep(&mut self, entry: &Remembered, workload: WorkloadId) {
        self.stored += 1;
        self.memories.keep(MemoryEntry::new(entry, TenantId::local(), workload, GlobalSeq(self.stored)));
    }

    pub(crate) fn recall(&self, request: &RecallRequest, workload: WorkloadId) -> EffectResult {
        let place = MemoryPlace::of(request.scope, TenantId::local(), workload);
        EffectResult::Done(Answer::Memory(look_up(&request.what, self.memories.entries(&place))))
    }
}

/// Waits on a thread of its own, because a test may itself be within a runtime.
fn wait<T: Send>(answer: impl Future<Output = T> + Send) -> T {
    let on_a_thread = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime for one answer").block_on(answer)
    };
    std::thread::scope(|scope| scope.spawn(on_a_thread).join()).expect("who answers does not panic")
}

//! Programs: put and get.

use std::sync::Arc;

use nexa_event::envelope::Fact;
use nexa_event::fact::ClusterEvent;
use nexa_proto::refusal::Refusal;
use nexa_types::{ModuleHash, StreamId, TenantId, Timestamp, Version};
use nexa_vm::json;
use nexa_vm::module::{Entry, Module, Type};
use nexa_vm::vm::Program;

use super::{By, Handlers, program_refusal, store_refusal};
use crate::mediator::{EntryInfo, GetProgram, Note, ParamInfo, ProgramInfo, ProgramPut, ProgramText, PutProgram};

/// Facts read at once.
const BATCH: usize = 256;

impl Handlers {
    /// Idempotent by itself: a module under a name is the same module under the same name.
    pub(super) async fn put_program(&self, by: &By, put: PutProgram) -> Result<ProgramPut, Refusal> {
        self.still_open()?;
        let (program, warnings) = self.keep_program(by, put.program, &put.name).await?;
        let program = self.describe(by.tenant(), &program).await?;
        Ok(ProgramPut { program, warnings })
    }

    /// Compiles and keeps a program that came along, and loads it.
    pub(super) async fn keep_program(
        &self,
        by: &By,
        program: ProgramText,
        name: &str,
    ) -> Result<(Arc<Program>, Vec<Note>), Refusal> {
        let fallback = match &program {
            ProgramText::Source { name, .. } if !name.is_empty() => name.clone(),
            ProgramText::Source { .. } => "main.nx".to_owned(),
            ProgramText::Module(_) => "module".to_owned(),
        };
        let name = if name.is_empty() { fallback } else { name.to_owned() };
        let (module, warnings) = self.compiler.module(program, &by.gone).await?;
        self.keep_module(by, &module, &name).await.map(|program| (program, warnings))
    }

    /// Keeps a module and loads it.
    pub(super) async fn keep_module(&self, by: &By, module: &Module, name: &str) -> Result<Arc<Program>, Refusal> {
        self.follow_memory(module);
        let stamp = self.stamp(by);
        self.host.put_program(by.tenant(), module, name, stamp).await.map_err(program_refusal)
    }

    pub(super) async fn get_program(&self, by: &By, get: GetProgram) -> Result<ProgramInfo, Refusal> {
        let program = self.host.program(by.tenant(), get.module).await.map_err(program_refusal)?;
        self.describe(by.tenant(), &program).await
    }

    async fn describe(&self, tenant: &TenantId, program: &Program) -> Result<ProgramInfo, Refusal> {
        let (name, put_at) = self.first_put(tenant, program.hash()).await?;
        let module = program.module();
        let entries = module.entries.iter().map(|entry| entry_info(module, entry)).collect();
        Ok(ProgramInfo { module: program.hash(), name, entries, put_at })
    }

    /// When and under which name a module was put first.
    async fn first_put(&self, tenant: &TenantId, hash: ModuleHash) -> Result<(String, Timestamp), Refusal> {
        let mut after = Version(0);
        loop {
            let page = self.store.read(StreamId::Cluster(tenant.clone()), after, BATCH).await.map_err(store_refusal)?;
            let full = page.len() == BATCH;
            for recorded in page {
                after = recorded.envelope.header.version;
                if let Fact::Cluster(ClusterEvent::ProgramPut { module, name, .. }) = recorded.envelope.fact
                    && module == hash
                {
                    return Ok((name, recorded.envelope.header.at));
                }
            }
            if !full {
                return Err(Refusal::not_found("program", hash));
            }
        }
    }
}

fn entry_info(module: &Module, entry: &Entry) -> EntryInfo {
    let param = |param: &nexa_vm::module::EntryParam| ParamInfo {
        name: param.name.clone(),
        schema: json::schema(module, param.ty),
        optional: param.default.is_some() || is_option(module, param.ty),
    };
    EntryInfo {
        name: entry.name.clone(),
        is_agent: entry.is_agent,
        params: entry.params.iter().map(param).collect(),
        result_schema: json::schema(module, entry.result),
    }
}

/// Whether a value of this type may be left out.
pub(super) fn is_option(module: &Module, ty: u32) -> bool {
    matches!(module.types.get(ty as usize), Some(Type::Option(_)))
}

//! Compiling: work for the processor, kept away from the threads that answer.
//!
//! Bounds: compilations at once for half of the machine's processors, because agents that were accepted come first, and
//! [`WAITING_MAX`] that wait for their turn. Then: OVERLOADED. One whose caller has gone meanwhile is not begun.

use std::sync::Arc;

use nexa_lang::{CompiledList, Diagnostic, ListError, SourceSet};
use nexa_proto::refusal::{Refusal, Violation};
use nexa_types::Reason;
use nexa_vm::module::Module;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::overloaded;
use crate::mediator::{ListedAgent, Note, ProgramText};

/// Compilations that wait for their turn.
const WAITING_MAX: usize = 64;
/// The file's name if the request has none.
const NAME_DEFAULT: &str = "main.nx";

/// Takes turns at compiling.
pub(super) struct Compiler {
    waiting: Semaphore,
    running: Semaphore,
}

impl Compiler {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let turns = (processors / 2).max(1);
        Self { waiting: Semaphore::new(WAITING_MAX + turns), running: Semaphore::new(turns) }
    }

    /// The module of a program, and what the compiler warns of.
    pub(super) async fn module(
        &self,
        program: ProgramText,
        gone: &CancellationToken,
    ) -> Result<(Module, Vec<Note>), Refusal> {
        self.turn(gone, move || match program {
            ProgramText::Source { name, text } => compile(&name, &text),
            ProgramText::Module(bytes) => {
                let module = Module::decode(&bytes).map_err(|error| {
                    Refusal::new(Reason::ProgramInvalid, format!("the module cannot be read: {error}"))
                        .violating("module", error.to_string())
                        .hint("compile it again with this release")
                })?;
                Ok((module, Vec::new()))
            }
        })
        .await
    }

    /// The module of a list of agents, and the function of each.
    pub(super) async fn list(
        &self,
        agents: Arc<[ListedAgent]>,
        gone: &CancellationToken,
    ) -> Result<CompiledList, Refusal> {
        self.turn(gone, move || compile_list(&agents)).await
    }

    async fn turn<T: Send + 'static>(
        &self,
        gone: &CancellationToken,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _place = self.waiting.try_acquire().map_err(|_| overloaded("too many programs wait to be compiled"))?;
        let _turn = tokio::select! {
            biased;
            () = gone.cancelled() => {
                return Err(Refusal::new(Reason::DeadlineExceeded, "nobody waits for the program any more"));
            }
            turn = self.running.acquire() => turn.expect("nobody closes this semaphore"),
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the compiler panicked");
            Err(Refusal::new(Reason::Internal, "the compiler met a bug; the log has more"))
        })
    }
}

fn compile(name: &str, text: &str) -> Result<(Module, Vec<Note>), Refusal> {
    let name = if name.is_empty() { NAME_DEFAULT } else { name };
    let compiled = nexa_lang::compile_text(name, text);
    let notes: Vec<Note> = compiled.diagnostics.iter().map(|found| note(found, &compiled.sources)).collect();
    match compiled.module {
        Some(module) => Ok((module, notes)),
        None => {
            let errors: Vec<_> = notes
                .into_iter()
                .zip(&compiled.diagnostics)
                .filter(|(_, found)| found.is_error())
                .map(|(note, _)| note)
                .collect();
            Err(invalid(&errors))
        }
    }
}

fn note(found: &Diagnostic, sources: &SourceSet) -> Note {
    let source = sources.source(found.file);
    let at = source.map(|source| source.line_column(found.span.start));
    Note {
        file: source.map(|source| source.name().to_owned()).unwrap_or_default(),
        line: at.map_or(1, |at| at.line),
        column: at.map_or(1, |at| at.column),
        code: found.code.name().to_owned(),
        message: found.message.clone(),
    }
}

/// A program with errors: one violation each.
fn invalid(errors: &[Note]) -> Refusal {
    let count = match errors.len() {
        1 => "an error".to_owned(),
        count => format!("{count} errors"),
    };
    let first = errors.first().map(|note| format!(": {} {}", place(note), note.message)).unwrap_or_default();
    let mut refusal = Refusal::new(Reason::ProgramInvalid, format!("the program has {count}{first}"))
        .hint("run `nexa check` on the file to see each error in its place");
    let told = |note: &Note| Violation { field: place(note), description: format!("{} {}", note.code, note.message) };
    refusal.violations = errors.iter().map(told).collect();
    refusal
}

fn place(note: &Note) -> String {
    format!("{}:{}:{}", note.file, note.line, note.column)
}

fn compile_list(agents: &[ListedAgent]) -> Result<CompiledList, Refusal> {
    let specs: Vec<_> = agents.iter().map(|agent| agent.spec.clone()).collect();
    nexa_lang::compile_list(&specs).map_err(|error| {
        let index = match &error {
            ListError::Setting { id, .. } => specs.iter().position(|spec| spec.id == *id),
            ListError::Length { .. } | ListError::TooLarge { .. } => None,
        };
        let field = index.map_or("agent_list.agents".to_owned(), |index| format!("agent_list.agents[{index}]"));
        Refusal::field(field, error.to_string())
    })
}

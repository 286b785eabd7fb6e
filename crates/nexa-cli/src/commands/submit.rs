//! From a file to a workload: `nexa submit`, and the same for `nexa run`.
//!
//! A program is compiled here, with its imports, and put as a module; the server never sees files. A list of agents goes as
//! it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nexa_client::{Client, From};
use nexa_lang::CompileResult;
use nexa_lang::diagnostic::Diagnostic;
use nexa_lang::source_set::{FileLoader, LoadError, SourceSet};
use nexa_proto::v1;
use nexa_vm::module::Module;
use serde::Deserialize;
use serde_json::{Value, json};

use super::follow::{Following, follow};
use crate::args::{Color, InputArgs, Output, SubmitArgs};
use crate::failure::{Exit, Failure};
use crate::program;

/// The priority of a workload that says nothing else.
const PRIORITY_DEFAULT: u8 = 128;

/// A program as it was compiled.
pub(super) struct Compilation {
    /// Its files.
    sources: SourceSet,
    /// What the compiler says.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// The module, if there are no errors.
    pub(super) module: Option<Module>,
}

impl Compilation {
    /// A diagnostic for people.
    pub(super) fn text(&self, diagnostic: &Diagnostic, colored: bool) -> String {
        let colour = if colored { nexa_lang::diagnostic::Colour::On } else { nexa_lang::diagnostic::Colour::Off };
        nexa_lang::diagnostic::render(diagnostic, |file| self.sources.source(file), colour)
    }

    /// A diagnostic for programs.
    pub(super) fn json(&self, diagnostic: &Diagnostic) -> String {
        nexa_lang::diagnostic::to_json(diagnostic, |file| self.sources.source(file))
    }
}

/// Reads files below one folder.
pub(super) struct Folder(pub(super) PathBuf);

impl FileLoader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => LoadError::NotFound,
            _ => LoadError::Unreadable(error.to_string()),
        };
        let file = self.0.join(path).canonicalize().map_err(unreadable)?;
        // A symbolic link may lead out of the folder.
        if !file.starts_with(&self.0) {
            return Err(LoadError::NotFound);
        }
        let length = std::fs::metadata(&file).map_err(unreadable)?.len();
        if length > nexa_types::limits::SOURCE_BYTES_MAX as u64 {
            let max = nexa_types::limits::SOURCE_BYTES_MAX;
            return Err(LoadError::Unreadable(format!("it has {length} bytes, more than the {max} of a source file")));
        }
        std::fs::read(&file).map_err(unreadable)
    }
}

impl std::convert::From<CompileResult> for Compilation {
    fn from(result: CompileResult) -> Self {
        Compilation { sources: result.sources, diagnostics: result.diagnostics, module: result.module }
    }
}

/// Compiles a program; prints its diagnostics to standard error; fails if there are errors.
pub fn compile(file: &Path) -> Result<Module, Failure> {
    let (folder, path) = program::project_of(file)?;
    let compilation = Compilation::from(nexa_lang::compile(&path, &Folder(folder)));
    for diagnostic in &compilation.diagnostics {
        eprintln!("{}", compilation.text(diagnostic, false));
    }
    compilation.module.ok_or_else(|| Failure::told(Exit::Error))
}

/// Keeps a compiled program at the server; gives its hash.
pub async fn put(client: &Client, module: &Module, name: &str) -> Result<String, Failure> {
    let request = v1::ProgramServicePutRequest {
        request_id: String::new(),
        name: name.to_owned(),
        program: Some(v1::program_service_put_request::Program::Module(module.encode())),
    };
    Ok(client.put_program(request).await?.program.unwrap_or_default().module_hash)
}

/// What to submit.
pub struct Submission {
    /// Makes a second submission the same workload; empty for a new id.
    pub request_id: String,
    /// What to run.
    pub program: v1::workload_service_submit_request::Program,
    /// Which entry; empty for a list.
    pub entry: String,
    /// Its arguments.
    pub input_json: String,
    /// The name that people see.
    pub name: String,
    /// 0 to 255, higher first.
    pub priority: u8,
}

impl Submission {
    /// A program that was put, and its input.
    pub fn of_module(
        module: &Module,
        hash: String,
        entry: &str,
        input: &InputArgs,
        name: String,
    ) -> Result<Self, Failure> {
        Ok(Self {
            request_id: String::new(),
            program: v1::workload_service_submit_request::Program::ModuleHash(hash),
            entry: entry.to_owned(),
            input_json: program::arguments(program::entry(module, entry)?, input)?,
            name,
            priority: PRIORITY_DEFAULT,
        })
    }

    /// Sends it.
    pub async fn send(self, client: &Client) -> Result<v1::WorkloadServiceSubmitResponse, Failure> {
        let request = v1::WorkloadServiceSubmitRequest {
            request_id: self.request_id,
            program: Some(self.program),
            entry: self.entry,
            input_json: self.input_json,
            name: self.name,
            priority: Some(self.priority.into()),
            budget: None,
        };
        Ok(client.submit(request).await?)
    }
}

/// `nexa submit`
pub async fn submit(args: &SubmitArgs, output: Output, color: Color) -> Result<(), Failure> {
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| args.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default());
    let is_list = args.file.extension().is_some_and(|extension| extension == "json");
    let (client, mut submission) = if is_list {
        let list = read_list(&args.file)?;
        let program = v1::workload_service_submit_request::Program::AgentList(list);
        let submission = Submission {
            request_id: String::new(),
            program,
            entry: String::new(),
            input_json: String::new(),
            name,
            priority: args.priority,
        };
        (super::connect(&args.server).await?, submission)
    } else {
        let module = compile(&args.file)?;
        // The input is looked at before anything is sent.
        program::arguments(program::entry(&module, &args.entry)?, &args.input)?;
        let client = super::connect(&args.server).await?;
        let hash = put(&client, &module, &name).await?;
        (client, Submission::of_module(&module, hash, &args.entry, &args.input, name)?)
    };
    submission.priority = args.priority;
    submission.request_id = args.request_id.clone().unwrap_or_default();
    let accepted = submission.send(&client).await?;
    match output {
        Output::Json => {
            let root = &accepted.root_agent_id;
            println!(
                "{}",
                json!({ "workload_id": accepted.workload_id, "root_agent_id": root, "module_hash": accepted.module_hash })
            );
        }
        Output::Table => println!("{}", accepted.workload_id),
    }
    if !args.watch {
        return Ok(());
    }
    follow(&client, Following::of(accepted.workload_id, From::Snapshot, output, color)).await
}

/// A file with a list of agents. Settings that are left out are those of the gRPC surface.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFile {
    agents: Vec<ListAgent>,
    #[serde(default)]
    on_failure: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListAgent {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: String,
    prompt: String,
    #[serde(default)]
    models: Vec<String>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    max_tokens: Option<u64>,
    seed: Option<u64>,
    #[serde(default)]
    stop: Vec<String>,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    after: Vec<String>,
    timeout_ms: Option<u64>,
    retry_max: Option<u32>,
    #[serde(default)]
    stream: bool,
    priority: Option<u8>,
    estimated_duration_ms: Option<u64>,
    weight: Option<f64>,
    #[serde(default)]
    gang: String,
    needs: Option<ListNeeds>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListNeeds {
    cpu_milli: Option<u32>,
    memory_mib: Option<u64>,
    llm_slots: Option<u32>,
}

impl ListNeeds {
    fn told(self) -> v1::AgentNeeds {
        let Self { cpu_milli, memory_mib, llm_slots } = self;
        v1::AgentNeeds { cpu_milli, memory_mib, llm_slots }
    }
}

pub(super) fn read_list(file: &Path) -> Result<v1::AgentList, Failure> {
    let cannot = |why: String| Failure::error(format!("cannot read the list in {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| cannot(error.to_string()))?;
    let list: ListFile = serde_json::from_str(&text).map_err(|error| cannot(error.to_string()))?;
    let on_failure = match list.on_failure.as_deref() {
        None | Some("fail_fast") => v1::OnFailure::FailFast,
        Some("skip_dependents") => v1::OnFailure::SkipDependents,
        Some("continue") => v1::OnFailure::Continue,
        Some(other) => {
            return Err(cannot(format!("on_failure is `{other}`, not fail_fast, skip_dependents or continue")));
        }
    };
    let agents = list.agents.into_iter().map(|agent| v1::AgentSpec {
        id: agent.id,
        name: agent.name,
        role: agent.role,
        prompt: agent.prompt,
        models: agent.models,
        temperature: agent.temperature,
        top_p: agent.top_p,
        max_tokens: agent.max_tokens,
        seed: agent.seed,
        stop: agent.stop,
        input_json: agent.input.to_string(),
        after: agent.after,
        budget: None,
        timeout_ms: agent.timeout_ms,
        retry_max: agent.retry_max,
        stream: agent.stream,
        priority: agent.priority.map(u32::from),
        estimated_duration_ms: agent.estimated_duration_ms,
        weight: agent.weight,
        gang: agent.gang,
        needs: agent.needs.map(ListNeeds::told),
        labels: agent.labels.into_iter().collect(),
    });
    Ok(v1::AgentList { agents: agents.collect(), on_failure: on_failure.into() })
}

//! The tools that come with a node.
//!
//! | source | takes | gives |
//! |---|---|---|
//! | `builtin("calculator.evaluate")` | `expression: str` | a number |
//! | `builtin("time.now")` | nothing | milliseconds since 1970 |
//! | `builtin("fs.read")` | `path: str` | the text of a file |
//! | `builtin("fs.list")` | `path: str` | the names in a folder |
//! | `builtin("fs.write")` | `path: str`, `text: str` | nothing; the file holds the text |
//!
//! Each is found by its name when a module is loaded. Files are seen below the one folder that the node names for the
//! tenant, and there only below the folders that the call's limits list; a tenant without such a folder has no file tools, and
//! one is written to only if the node says so.
//!
//! A file is written whole or not at all, whatever happens meanwhile; a call that was sent again writes the same again.
//!
//! Looking at a file takes a thread, whoever waits for the result and however long; there are at most
//! [`FILE_THREADS_MAX`], and further calls wait for one until their deadline.

mod calculator;
mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use nexa_event::effect::ToolSource;
use nexa_ports::clock::Clock;
use nexa_ports::tool::{NoTool, ToolCall, ToolError, Tools};
use nexa_types::TenantId;
use serde_json::Value;
use tokio::sync::Semaphore;

pub use calculator::evaluate;
pub use files::{ENTRIES_MAX, FILE_BYTES_MAX, Files};

/// Calls of one tool at once.
const SLOTS: usize = 16;
/// Threads that look at files at once. A disk that does not answer keeps these busy and no others of the process.
pub const FILE_THREADS_MAX: usize = 16;

/// The tools of a node.
pub struct Builtins {
    clock: Arc<dyn Clock>,
    /// What each tenant sees; one that is not here sees nothing.
    files: BTreeMap<TenantId, Arc<Files>>,
    /// Those who may write to what they see.
    writers: BTreeSet<TenantId>,
    threads: Arc<Semaphore>,
}

/// A tool by its name, and the parameters that it takes.
const KNOWN: &[(&str, &[&str])] = &[
    ("calculator.evaluate", &["expression"]),
    ("time.now", &[]),
    ("fs.read", &["path"]),
    ("fs.list", &["path"]),
    ("fs.write", &["path", "text"]),
];

impl Builtins {
    /// Tools without files.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            files: BTreeMap::new(),
            writers: BTreeSet::new(),
            threads: Arc::new(Semaphore::new(FILE_THREADS_MAX)),
        }
    }

    /// The same with files below a folder for one tenant, to look at, and for no other.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub fn with_files(mut self, tenant: TenantId, folder: &Path) -> std::io::Result<Self> {
        self.files.insert(tenant, Arc::new(Files::open(folder)?));
        Ok(self)
    }

    /// The same with a tenant who may also write to the files that it sees.
    #[must_use]
    pub fn with_writer(mut self, tenant: TenantId) -> Self {
        self.writers.insert(tenant);
        self
    }

    async fn run(&self, call: ToolCall) -> Result<String, ToolError> {
        let ToolSource::Builtin { name } = &call.request.source else {
            let why = format!("{} is not available on this node", call.request.source);
            return Err(ToolError::Unavailable(why));
        };
        let args: Value = serde_json::from_str(&call.request.args)
            .map_err(|error| ToolError::Failed(format!("the arguments are no JSON: {error}")))?;
        let text = |param: &str| match args.get(param) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(ToolError::Failed(format!("`{param}` must be a text"))),
        };
        match name.as_str() {
            "calculator.evaluate" => {
                let number = evaluate(&text("expression")?).map_err(ToolError::Failed)?;
                // Whole numbers are whole in JSON too.
                let is_whole = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
                Ok(if is_whole { format!("{}", number as i64) } else { Value::from(number).to_string() })
            }
            "time.now" => Ok(self.clock.now().0.to_string()),
            "fs.read" | "fs.list" | "fs.write" => {
                let files = self.files.get(&call.tenant).cloned();
                let files = files.ok_or_else(|| ToolError::Unavailable(no_files(&call.tenant)))?;
                let (path, limits) = (text("path")?, call.request.limits.clone());
                let (is_read, key) = (name == "fs.read", call.key);
                let written = if name == "fs.write" { Some(text("text")?) } else { None };
                if written.is_some() && !self.writers.contains(&call.tenant) {
                    return Err(ToolError::Failed(read_only(&call.tenant)));
                }
                let thread = Arc::clone(&self.threads).acquire_owned().await.expect("nobody closes the semaphore");
                let look = move || {
                    // Given back when the thread is free, which may be long after the call has ended.
                    let _thread = thread;
                    match written {
                        Some(text) => files.write(&path, &text, key, &limits),
                        None if is_read => files.read(&path, &limits),
                        None => files.list(&path, &limits),
                    }
                };
                let done = tokio::task::spawn_blocking(look).await;
                done.unwrap_or_else(|error| Err(ToolError::Lost(format!("the file tool stopped: {error}"))))
            }
            other => Err(ToolError::Unavailable(format!("there is no built-in tool `{other}`"))),
        }
    }
}

/// Where nexa.toml says what the tools of a tenant may reach.
fn table(tenant: &TenantId) -> String {
    if *tenant == TenantId::local() { "tools".to_owned() } else { format!("tools.tenants.\"{tenant}\"") }
}

/// What a node says that names no folder for a tenant.
fn no_files(tenant: &TenantId) -> String {
    let table = table(tenant);
    format!(
        "this node gives the tools of tenant `{tenant}` no folder; name one with `files` under `[{table}]` in nexa.toml"
    )
}

/// What a node says that lets a tenant only look.
fn read_only(tenant: &TenantId) -> String {
    let table = table(tenant);
    format!(
        "this node lets the tools of tenant `{tenant}` only look at files; `write = true` under `[{table}]` in nexa.toml lets \
         them write"
    )
}

impl Tools for Builtins {
    /// Dropping the future gives up waiting; a file that was to be written may be written all the same.
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<String, ToolError>> {
        Box::pin(self.run(call))
    }

    fn find(&self, tenant: &TenantId, source: &ToolSource, params: &[String]) -> Result<(), NoTool> {
        let name = match source {
            ToolSource::Builtin { name } => name,
            ToolSource::Mcp { .. } => return Err(NoTool::new(source, "it speaks to no MCP servers")),
            ToolSource::Wasm { .. } => return Err(NoTool::new(source, "it runs no WASM components")),
        };
        let Some((_, wanted)) = KNOWN.iter().find(|(known, _)| known == name) else {
            let known: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
            return Err(NoTool::new(source, format!("there is no such tool; there are {}", known.join(", "))));
        };
        if wanted.iter().any(|param| params.iter().all(|given| given != param)) {
            return Err(NoTool::new(source, format!("it takes {}", wanted.join(", "))));
        }
        if name.starts_with("fs.") && !self.files.contains_key(tenant) {
            return Err(NoTool::new(source, no_files(tenant)));
        }
        Ok(())
    }

    fn slots(&self, _: &ToolSource) -> usize {
        SLOTS
    }

    fn lane(&self, source: &ToolSource) -> String {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nexa_event::effect::{Risk, ToolEffect, ToolLimits, ToolRequest};
    use nexa_ports::clock::SimClock;
    use nexa_types::{AgentId, EffectKey, Millis, RequestId, Seq, Timestamp, WorkloadId};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn builtin(name: &str) -> ToolSource {
        ToolSource::Builtin { name: name.to_owned() }
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a name")
    }

    fn tools() -> Builtins {
        Builtins::new(Arc::new(SimClock::new(Timestamp(0))))
    }

    /// A call by a tenant that was granted all there is.
    fn call(tenant: &TenantId, tool: &str, path: &str) -> ToolCall {
        let workload = WorkloadId::of(tenant, RequestId::from_bytes([1; 16]));
        let agent = AgentId::root(workload);
        ToolCall {
            request: ToolRequest {
                tool: tool.to_owned(),
                source: builtin(tool),
                args: format!(r#"{{"path":"{path}"}}"#),
                risk: Risk::Low,
                effect: ToolEffect::Read,
                idempotent: true,
                key: None,
                limits: ToolLimits { paths: vec![".".to_owned()], ..ToolLimits::default() },
                timeout: Millis(1_000),
            },
            key: EffectKey::of(workload, agent, Seq(1)),
            attempt: 1,
            tenant: tenant.clone(),
            workload,
            agent,
            deadline: Duration::from_secs(1),
            cancel: CancellationToken::new(),
        }
    }

    #[test]
    fn a_tool_is_found_by_its_name_and_parameters() {
        let (tools, local) = (tools(), TenantId::local());
        assert_eq!(tools.find(&local, &builtin("time.now"), &[]), Ok(()));
        assert!(tools.find(&local, &builtin("calculator.evaluate"), &["x".to_owned()]).is_err());
        assert!(tools.find(&local, &builtin("time.then"), &[]).is_err());
        let why = tools.find(&local, &builtin("fs.read"), &["path".to_owned()]).expect_err("there is no folder").why;
        assert!(why.contains("`files` under `[tools]`"), "{why}");
        let mcp = ToolSource::Mcp { server: "docs".to_owned(), name: "find".to_owned() };
        assert!(tools.find(&local, &mcp, &[]).is_err());
    }

    #[tokio::test]
    async fn a_tenant_sees_its_own_folder_and_no_other() {
        let folders = ["local", "a"].map(|text| {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("who.txt"), text).expect("a file");
            folder
        });
        let (local, a, b) = (TenantId::local(), tenant("a"), tenant("b"));
        let tools = tools().with_files(local.clone(), folders[0].path()).expect("it opens");
        let tools = tools.with_files(a.clone(), folders[1].path()).expect("it opens");
        assert_eq!(tools.call(call(&local, "fs.read", "who.txt")).await, Ok("\"local\"".to_owned()));
        assert_eq!(tools.call(call(&a, "fs.read", "who.txt")).await, Ok("\"a\"".to_owned()));
        for tool in ["fs.read", "fs.list"] {
            let refused = tools.call(call(&b, tool, ".")).await.expect_err("it has no folder");
            assert_eq!(refused, ToolError::Unavailable(no_files(&b)));
            let why = tools.find(&b, &builtin(tool), &["path".to_owned()]).expect_err("it has no folder").why;
            assert!(why.contains("`files` under `[tools.tenants.\"b\"]`"), "{why}");
        }
    }

    #[tokio::test]
    async fn a_text_is_written_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = TenantId::local();
        let tools = tools().with_files(local.clone(), folder.path()).expect("it opens");
        let mut write = call(&local, "fs.write", "a.txt");
        let lacks = tools.call(write.clone()).await.expect_err("there is no text");
        assert_eq!(lacks, ToolError::Failed("`text` must be a text".to_owned()));
        write.request.args = r#"{"path":"a.txt","text":"tea\n"}"#.to_owned();
        assert_eq!(tools.call(write.clone()).await, Err(ToolError::Failed(read_only(&local))));
        assert_eq!(tools.call(call(&local, "fs.list", ".")).await, Ok("[]".to_owned()));
        let tools = tools.with_writer(local.clone());
        // The second one is the same call, sent again.
        for _ in 0..2 {
            assert_eq!(tools.call(write.clone()).await, Ok("null".to_owned()));
        }
        assert_eq!(tools.call(call(&local, "fs.read", "a.txt")).await, Ok(r#""tea\n""#.to_owned()));
        assert_eq!(tools.call(call(&local, "fs.list", ".")).await, Ok(r#"["a.txt"]"#.to_owned()));
        assert!(tools.find(&local, &builtin("fs.write"), &["path".to_owned()]).is_err());
    }

    #[tokio::test]
    async fn no_more_calls_look_at_files_at_once_than_there_are_threads_for_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = TenantId::local();
        let tools = tools().with_files(local.clone(), folder.path()).expect("it opens");
        let busy = Arc::clone(&tools.threads).acquire_many_owned(FILE_THREADS_MAX as u32).await.expect("it is open");
        let mut waiting = tools.call(call(&local, "fs.list", "."));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(busy);
        assert_eq!(waiting.await, Ok("[]".to_owned()));
        assert_eq!(tools.threads.available_permits(), FILE_THREADS_MAX);
    }
}

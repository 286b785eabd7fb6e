//! The tools that come with a node.
//!
//! | source | takes | gives |
//! |---|---|---|
//! | `builtin("calculator.evaluate")` | `expression: str` | a number |
//! | `builtin("time.now")` | nothing | milliseconds since 1970 |
//! | `builtin("fs.read")` | `path: str` | the text of a file |
//! | `builtin("fs.list")` | `path: str` | the names in a folder |
//!
//! Each is found by its name when a module is loaded. Files are seen below one folder that the node names, and there only
//! below the folders that the call's limits list; without such a folder the node has no file tools.

mod calculator;
mod files;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use nexa_event::effect::ToolSource;
use nexa_ports::clock::Clock;
use nexa_ports::tool::{NoTool, ToolCall, ToolError, Tools};
use serde_json::Value;

pub use calculator::evaluate;
pub use files::{ENTRIES_MAX, FILE_BYTES_MAX, Files};

/// Calls of one tool at once.
const SLOTS: usize = 16;

/// The tools of a node.
pub struct Builtins {
    clock: Arc<dyn Clock>,
    files: Option<Arc<Files>>,
}

/// A tool by its name, and the parameters that it takes.
const KNOWN: &[(&str, &[&str])] =
    &[("calculator.evaluate", &["expression"]), ("time.now", &[]), ("fs.read", &["path"]), ("fs.list", &["path"])];

impl Builtins {
    /// Tools without files.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, files: None }
    }

    /// The same with files below a folder.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub fn with_files(mut self, folder: &Path) -> std::io::Result<Self> {
        self.files = Some(Arc::new(Files::open(folder)?));
        Ok(self)
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
            "fs.read" | "fs.list" => {
                let files = self.files.clone().ok_or_else(|| ToolError::Unavailable(NO_FILES.to_owned()))?;
                let (path, limits, is_read) = (text("path")?, call.request.limits.clone(), name == "fs.read");
                let look = move || if is_read { files.read(&path, &limits) } else { files.list(&path, &limits) };
                let done = tokio::task::spawn_blocking(look).await;
                done.unwrap_or_else(|error| Err(ToolError::Lost(format!("the file tool stopped: {error}"))))
            }
            other => Err(ToolError::Unavailable(format!("there is no built-in tool `{other}`"))),
        }
    }
}

/// What a node without a folder for its tools says.
const NO_FILES: &str = "this node gives its tools no folder; name one with `files` under `[tools]` in nexa.toml";

impl Tools for Builtins {
    /// Dropping the future gives up waiting; none of these tools changes anything.
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<String, ToolError>> {
        Box::pin(self.run(call))
    }

    fn find(&self, source: &ToolSource, params: &[String]) -> Result<(), NoTool> {
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
        if name.starts_with("fs.") && self.files.is_none() {
            return Err(NoTool::new(source, NO_FILES));
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
    use nexa_ports::clock::SimClock;
    use nexa_types::Timestamp;

    use super::*;

    fn builtin(name: &str) -> ToolSource {
        ToolSource::Builtin { name: name.to_owned() }
    }

    #[test]
    fn a_tool_is_found_by_its_name_and_parameters() {
        let tools = Builtins::new(Arc::new(SimClock::new(Timestamp(0))));
        assert_eq!(tools.find(&builtin("time.now"), &[]), Ok(()));
        assert!(tools.find(&builtin("calculator.evaluate"), &["x".to_owned()]).is_err());
        assert!(tools.find(&builtin("time.then"), &[]).is_err());
        let why = tools.find(&builtin("fs.read"), &["path".to_owned()]).expect_err("there is no folder").why;
        assert_eq!(why, NO_FILES);
        let mcp = ToolSource::Mcp { server: "docs".to_owned(), name: "find".to_owned() };
        assert!(tools.find(&mcp, &[]).is_err());
    }
}

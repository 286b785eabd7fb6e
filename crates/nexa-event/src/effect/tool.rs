//! A call of a tool, with all that whoever carries it out must know.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use nexa_types::Millis;

/// Who provides a tool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum ToolSource {
    /// Comes with the node.
    #[n(0)]
    Builtin {
        /// Its name, such as `time.now`.
        #[n(0)]
        name: String,
    },
    /// A tool of an MCP server.
    #[n(1)]
    Mcp {
        /// The server, as the node's settings call it.
        #[n(0)]
        server: String,
        /// The tool, as the server calls it.
        #[n(1)]
        name: String,
    },
    /// A function of a WASM component.
    #[n(2)]
    Wasm {
        /// The component.
        #[n(0)]
        module: String,
        /// The function.
        #[n(1)]
        export: String,
    },
}

impl fmt::Display for ToolSource {
    /// As it is written in a program.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin { name } => write!(out, "builtin({name:?})"),
            Self::Mcp { server, name } => write!(out, "mcp({server:?}, name: {name:?})"),
            Self::Wasm { module, export } => write!(out, "wasm({module:?}, export: {export:?})"),
        }
    }
}

/// How much harm a tool can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum Risk {
    /// None worth asking about.
    #[n(0)]
    Low,
    /// Some, where it changes something.
    #[n(1)]
    Medium,
    /// Much: a person is asked.
    #[n(2)]
    High,
    /// So much that a person is asked each time, whatever was granted before.
    #[n(3)]
    Critical,
}

impl Risk {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Its name in a program.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Whether a tool changes anything outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum ToolEffect {
    /// It only computes.
    #[n(0)]
    None,
    /// It looks at something.
    #[n(1)]
    Read,
    /// It changes something.
    #[n(2)]
    Write,
}

impl ToolEffect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Read, Self::Write];

    /// Its name in a program.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What a tool may reach and use. No path and no host unless it is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolLimits {
    /// Bytes of memory; `None` is the provider's default.
    pub memory: Option<u64>,
    /// Time on the processor.
    pub cpu: Option<Millis>,
    /// Bytes of one file.
    pub file_size: Option<u64>,
    /// Hosts that it may speak to.
    pub hosts: Vec<String>,
    /// Folders and files that it may see, relative to the folder that the node gives its tools.
    pub paths: Vec<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRequest {
    /// The tool, as the program calls it; scripts answer by it.
    pub tool: String,
    /// Who provides it.
    pub source: ToolSource,
    /// The arguments: a canonical JSON object with one member a parameter.
    pub args: String,
    /// How much harm it can do.
    pub risk: Risk,
    /// Whether it changes anything outside.
    pub effect: ToolEffect,
    /// Whether calling it twice is as good as once.
    pub idempotent: bool,
    /// The business key of the call, if the tool has one: a second call with the same key is the same call.
    pub key: Option<String>,
    /// What it may reach and use.
    pub limits: ToolLimits,
    /// It must answer within this.
    pub timeout: Millis,
}

impl ToolRequest {
    /// Whether it may be called again when nobody knows how a call has ended: it changes nothing outside, or twice is as
    /// good as once. Any other call is made once, and its outcome is unknown.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        self.idempotent || self.effect != ToolEffect::Write
    }
}

//! Lossless syntax, checker, diagnostics, formatter and bytecode compiler.
//!
//! ```text
//! bytes ─► source ─► lexer ─► parser ─► tree ─► ast ─► checker ─► compiler ─► module
//!              └────────┴─────────┴──────────────────────┴─► diagnostics
//! ```
//!
//! Everything here is a pure function of the program text: no files, no clock, no dice. Parsing never fails and never
//! panics: every text has a tree that prints back to it byte for byte, and a list of what is wrong with it.

pub mod ast;
pub mod diagnostic;
mod lexer;
mod parser;
pub mod source;
pub mod source_set;
pub mod syntax;
mod syntax_kind;

mod check;
mod compile;
pub mod explain;
pub mod fix;
pub mod format;
pub mod hir;
pub mod list;
mod program;
pub mod project;
pub mod types;

pub use diagnostic::{Code, Diagnostic, Severity};
pub use parser::parse;
pub use source::{FileId, Source, Span};
pub use source_set::{FileLoader, LoadError, SourceSet};
pub use syntax::{Parse, SyntaxNode, SyntaxToken};
pub use syntax_kind::SyntaxKind;

pub use check::asserted_parts;
pub use check::cost::{Amounts, Bounds, Costs, Price, Prices, Unknown};
pub use list::{AgentSpec, CompiledList, ListError, Needs, compile_list};
pub use program::{
    CompileResult, Compiled, Options, check, compile, compile_tests, compile_text, compile_with, compile_with_costs,
};

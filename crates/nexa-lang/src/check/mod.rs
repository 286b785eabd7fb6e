//! The checker: from trees to a typed program, or to diagnostics that say what to do.
//!
//! In:  the parsed files of a program, which file each `use` means, and the loader of the text files that agents name.
//! Out: a [`hir::Program`] and the findings; with an error among them the program must not be compiled.
//!
//! It walks twice. First the names and signatures of all files ([`modules`], [`declarations`], [`agents`]), then the
//! bodies of flows ([`statements`], [`expressions`], [`operators`], [`calls`], [`pipes`], [`matches`], [`patterns`]). A flow without
//! a written result type is checked when somebody first asks what it gives.
//!
//! Holds:
//!   CK-1  one mistake, one error: what follows from a reported mistake has the type [`Ty::Broken`] and stays silent
//!   CK-2  nothing is accepted and ignored: what this release cannot do gets E0906 by its name
//!   CK-3  equal files give an equal program, whatever order they were loaded in
//!
//! Not here: instructions (`compile`), reading programs (`source_set`).

mod agents;
mod apart;
mod asserts;
mod assignments;
mod callees;
mod calls;
mod clones;
mod closures;
mod constants;
mod contracts;
pub(crate) mod cost;
mod coverage;
mod declarations;
mod decorators;
mod destructure;
mod detached;
mod expressions;
mod forks;
mod grants;
mod handles;
mod judges;
mod legacy;
mod literals;
mod loops;
mod matches;
mod memories;
mod merges;
mod modules;
mod operators;
mod patterns;
mod pipes;
mod places;
mod planners;
mod questions;
mod scope;
mod semantics;
mod skills;
mod standard;
mod state;
mod statements;
mod std_tools;
mod tests;
mod tools;
mod type_exprs;
mod unchecked;
mod variants;
mod walks;

use std::collections::BTreeMap;

use crate::ast::{AstNode, SourceFile};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::hir::{self, At, Expr, ExprKind};
use crate::program::Options;
use crate::source::{FileId, Span};
use crate::source_set::FileLoader;
use crate::types::{NamedId, Ty, TypeTable};

pub(crate) use agents::{model_name_fault, waits};
pub use asserts::asserted_parts;
use declarations::{AgentInfo, FlowInfo};
use modules::Scope;
use scope::Frame;

/// How deep expressions and statements may nest: 200 levels, or a chain of 256 stages, whose levels take less of the
/// stack. The parser allows more; the checker's recursion ends here with E0210.
const DEPTH_MAX: u32 = 800;
/// What a level counts.
const LEVEL: u32 = 4;
/// What a stage of a chain counts.
const PIPE_LEVEL: u32 = 3;

/// Findings that are told; who has more of them fixes these first.
const FINDINGS_MAX: usize = 1_000;
/// Findings after which no nearest name is looked for any more: each look compares with every known name.
const SUGGESTIONS_MAX: usize = 100;

/// One file as the checker takes it.
pub(crate) struct File {
    /// Its number; files are handed over in order of their numbers.
    pub(crate) id: FileId,
    /// Its name, as people see it.
    pub(crate) name: String,
    /// Its tree.
    pub(crate) tree: SourceFile,
    /// Which file each path of a `use` means; a path without a file was reported when it was loaded.
    pub(crate) imports: BTreeMap<String, FileId>,
}

/// Checks a program. The first file is the one that was named. Tests are always checked, and kept in test builds only.
pub(crate) fn check(
    files: &[File],
    loader: &dyn FileLoader,
    entry: FileId,
    keeps_tests: bool,
    options: &Options,
) -> (hir::Program, Vec<Diagnostic>) {
    let mut checker = Checker::new(files, loader);
    checker.is_strict = options.is_strict;
    checker.collect_names();
    checker.resolve_imports();
    checker.define_types();
    checker.index_cases();
    checker.check_signatures();
    checker.check_flows();
    checker.check_apart();
    let (functions, agents) = (checker.functions.len(), checker.agents.len());
    let mut tests = checker.check_tests();
    if !keeps_tests {
        // Nothing before them refers to what they added, so a program is the same with tests and without.
        tests.clear();
        checker.functions.truncate(functions);
        checker.agents.truncate(agents);
    }
    checker.report_unused_imports();
    let program = hir::Program { tests, ..checker.program(entry) };
    if !checker.diagnostics.iter().any(Diagnostic::is_error) {
        cost::find(&mut checker, &program, &options.prices);
        unchecked::find(&mut checker, &program);
        detached::find(&mut checker, &program);
    }
    checker.drop_allowed();
    let mut diagnostics = checker.diagnostics;
    diagnostics.sort_by_key(|diagnostic| (diagnostic.file, diagnostic.span.start, diagnostic.span.end));
    (program, diagnostics)
}

/// What is known while a program is checked.
pub(super) struct Checker<'f> {
    files: &'f [File],
    /// Where each file stands in `files` and `scopes`.
    places: BTreeMap<FileId, usize>,
    diagnostics: Vec<Diagnostic>,
    types: TypeTable,
    /// The names of each file, in the order of `files`.
    scopes: Vec<Scope>,
    /// For each file, the enums that have a case of a name, by that name: the enum's own name there, and its number.
    case_owners: Vec<BTreeMap<String, Vec<(String, NamedId)>>>,
    agents: Vec<AgentInfo>,
    tools: Vec<tools::ToolInfo>,
    flows: Vec<FlowInfo>,
    /// Functions by number; a flow's number is its place in `flows`.
    functions: Vec<hir::Function>,
    /// The file whose text is being looked at.
    file: FileId,
    decorated: decorators::Decorated,
    /// The function being checked, below it those that it stands in.
    frames: Vec<Frame>,
    /// How deep the walk is, see [`DEPTH_MAX`].
    depth: u32,
    /// How many flows are being checked, each because the one before asked for its result type.
    running: usize,
    /// Whether the flow being checked has caps of its own.
    has_budget: bool,
    /// Whether a test is being checked.
    in_test: bool,
    /// The tools that the flow being checked may call.
    granted: Vec<u32>,
    /// The flows that are offered to models, and where.
    offered_flows: Vec<(FileId, Span, usize)>,
    /// Whether names are limited to parameters and the prelude: inside an agent's texts.
    in_agent_text: bool,
    /// The clause whose condition is being looked at, see [`contracts`].
    in_contract: Option<&'static str>,
    /// Whether the flow being checked has the grant `memory.tenant`.
    may_use_tenant_memory: bool,
    /// The agents that clones are, by the places where they are written.
    clones: BTreeMap<(FileId, Span), usize>,
    /// For agents that a consensus runs again, the agents that are told why, see [`judges`].
    told: BTreeMap<usize, usize>,
    /// The agents that stream what others give.
    streams: BTreeMap<usize, usize>,
    /// The fallbacks that were met.
    fallbacks: Vec<clones::Fallback>,
    /// The text files that agents name as their skills.
    text_files: skills::Texts<'f>,
    /// Whether a value of any type may not stand where a type is asked for.
    is_strict: bool,
    /// Whether the next lambda handles an error, which is its first argument.
    is_handler: bool,
    /// Where the argument that is being looked at goes when it leaves the program.
    leaving: Option<&'static str>,
    /// Names that take every value in a `match`, and the case of the enum that was probably meant.
    near_cases: BTreeMap<(FileId, Span), String>,
    /// The patterns of semantic types that literals were compared with; nothing for one that was refused.
    patterns: BTreeMap<std::rc::Rc<str>, Option<nexa_vm::stdlib::Pattern>>,
}

impl<'f> Checker<'f> {
    fn new(files: &'f [File], loader: &'f dyn FileLoader) -> Self {
        Checker {
            files,
            places: files.iter().enumerate().map(|(place, file)| (file.id, place)).collect(),
            diagnostics: Vec::new(),
            types: TypeTable::default(),
            scopes: files.iter().map(|_| Scope::default()).collect(),
            case_owners: Vec::new(),
            agents: Vec::new(),
            tools: Vec::new(),
            flows: Vec::new(),
            functions: Vec::new(),
            file: files.first().map(|file| file.id).unwrap_or_default(),
            decorated: decorators::Decorated::default(),
            frames: Vec::new(),
            depth: 0,
            running: 0,
            has_budget: false,
            in_test: false,
            granted: Vec::new(),
            offered_flows: Vec::new(),
            in_agent_text: false,
            in_contract: None,
            may_use_tenant_memory: false,
            clones: BTreeMap::new(),
            told: BTreeMap::new(),
            streams: BTreeMap::new(),
            fallbacks: Vec::new(),
            text_files: skills::Texts::new(loader),
            is_strict: false,
            is_handler: false,
            leaving: None,
            near_cases: BTreeMap::new(),
            patterns: BTreeMap::new(),
        }
    }

    /// The place of a file in `files` and `scopes`.
    fn place_of(&self, file: FileId) -> usize {
        self.places.get(&file).copied().unwrap_or_default()
    }

    fn at(&self, node: &impl AstNode) -> At {
        self.at_span(node.span())
    }

    fn at_span(&self, span: Span) -> At {
        At { file: self.file.0, start: span.start }
    }

    /// A finding at a place of the current file.
    fn finding(&self, code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, self.file, span, message)
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        // One error more is kept than is shown, so that a program of warnings alone does not hide its first error.
        let has_error = || self.diagnostics.iter().any(Diagnostic::is_error);
        if self.diagnostics.len() < FINDINGS_MAX || (diagnostic.is_error() && !has_error()) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// E0906 for a construct that this release does not have.
    fn not_available(&mut self, span: Span, construct: &str) -> Diagnostic {
        self.finding(Code::E0906, span, format!("{construct} is not available in this release"))
    }

    fn report_not_available(&mut self, span: Span, construct: &str) {
        let finding = self.not_available(span, construct);
        self.report(finding);
    }

    /// Stands where something was reported.
    fn broken(&self, span: Span) -> Expr {
        Expr::new(ExprKind::Const(hir::Const::Unit), Ty::Broken, self.at_span(span))
    }

    /// Reports, and stands in for what was reported.
    fn refuse(&mut self, diagnostic: Diagnostic) -> Expr {
        let expr = self.broken(diagnostic.span);
        self.report(diagnostic);
        expr
    }

    /// "Did you mean": a help for an unknown name, if a known one is near.
    fn suggest<'n>(&self, finding: Diagnostic, name: &str, known: impl IntoIterator<Item = &'n str>) -> Diagnostic {
        if self.diagnostics.len() > SUGGESTIONS_MAX {
            return finding;
        }
        match nearest(name, known) {
            Some(near) => finding.help(format!("did you mean `{near}`?")),
            None => finding,
        }
    }

    fn show(&self, ty: &Ty) -> String {
        self.types.show(ty)
    }

    /// Puts the parts of the program together.
    fn program(&mut self, entry: FileId) -> hir::Program {
        let entries = self.entries(entry);
        let apart = self.apart();
        let agents = std::mem::take(&mut self.agents).into_iter().map(|agent| agent.checked).collect();
        let tools = std::mem::take(&mut self.tools).into_iter().map(|tool| tool.checked).collect();
        let (types, functions) = (self.types.clone(), std::mem::take(&mut self.functions));
        let (flows, pins) = (self.flows.len() as u32, self.decorated.pins());
        hir::Program { types, functions, flows, agents, tools, entries, apart, pins, tests: Vec::new() }
    }
}

/// Some names as people list them: `` `a`, `b` and `c` ``.
fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

//! From the text of a program to its module, in one call.
//!
//! [`compile`] loads, parses, checks and compiles; [`check`] stops before the module is made. Both always give a
//! [`CompileResult`] with the sources that diagnostics point into; there is a module if and only if there is no error.

use std::collections::{BTreeMap, BTreeSet};

use nexa_vm::module::Module;

use crate::ast::AstNode;
use crate::check as checker;
use crate::check::cost::{Costs, Prices};
use crate::compile::{self as compiler, Lines};
use crate::diagnostic::{self, Code, Colour, Diagnostic};
use crate::hir::{self, TestEntry};
use crate::source::{FileId, Span};
use crate::source_set::{FileLoader, ParsedFile, SourceSet};

/// What became of a program.
#[derive(Clone, Debug)]
pub struct CompileResult {
    /// Its files, for showing diagnostics.
    pub sources: SourceSet,
    /// What was found: errors, warnings, notes; file by file.
    pub diagnostics: Vec<Diagnostic>,
    /// The module, unless there are errors or only a check was asked for.
    pub module: Option<Module>,
    /// The tests in the module, file by file; only [`compile_tests`] keeps them.
    pub tests: Vec<TestEntry>,
}

/// A program without errors.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Its module.
    pub module: Module,
    /// Warnings and notes.
    pub diagnostics: Vec<Diagnostic>,
}

/// How a program is checked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What models cost.
    pub prices: Prices,
    /// Whether it is an error that a value of any type stands where a type is asked for.
    pub is_strict: bool,
}

/// Compiles the program whose first file is at this path.
pub fn compile(entry_path: &str, loader: &dyn FileLoader) -> CompileResult {
    compile_with(entry_path, loader, &Options::default())
}

/// The same with other options than the usual ones. The module does not depend on them.
pub fn compile_with(entry_path: &str, loader: &dyn FileLoader, options: &Options) -> CompileResult {
    run(SourceSet::load(entry_path, loader), loader, Wanted::Module, options).0
}

/// Compiles the program whose first file is at this path, with the tests of all its files. Only a test harness can run
/// such a module.
pub fn compile_tests(entry_path: &str, loader: &dyn FileLoader) -> CompileResult {
    run(SourceSet::load(entry_path, loader), loader, Wanted::Tests, &Options::default()).0
}

/// Checks the program whose first file is at this path, and makes no module.
pub fn check(entry_path: &str, loader: &dyn FileLoader) -> CompileResult {
    run(SourceSet::load(entry_path, loader), loader, Wanted::Nothing, &Options::default()).0
}

/// Compiles the program whose first file is at this path, and says what it may ask of models. There are no costs of a
/// program with errors.
pub fn compile_with_costs(
    entry_path: &str,
    loader: &dyn FileLoader,
    options: &Options,
) -> (CompileResult, Option<Costs>) {
    let (result, program) = run(SourceSet::load(entry_path, loader), loader, Wanted::Module, options);
    let costs = (!result.has_errors()).then(|| checker::cost::costs(&program, &options.prices));
    (result, costs)
}

/// Compiles a program of one file without imports.
#[must_use]
pub fn compile_text(name: &str, text: &str) -> CompileResult {
    run(SourceSet::single(name, text), &BTreeMap::new(), Wanted::Module, &Options::default()).0
}

impl CompileResult {
    /// Whether something keeps the program from being compiled.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The diagnostics as people read them, with an empty line between two.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        let shown = |finding: &Diagnostic| diagnostic::render(finding, |file| self.sources.source(file), colour);
        self.diagnostics.iter().map(shown).collect::<Vec<_>>().join("\n\n")
    }

    /// The diagnostics as JSON, one object a line.
    #[must_use]
    pub fn to_json_lines(&self) -> String {
        let line = |finding: &Diagnostic| diagnostic::to_json(finding, |file| self.sources.source(file)) + "\n";
        self.diagnostics.iter().map(line).collect()
    }

    /// Adds E0414 if there is no `flow main` to run, and drops the module then. A file that is only imported needs none.
    #[must_use]
    pub fn with_main(mut self) -> Self {
        let has_main = |module: &Module| module.entries.iter().any(|entry| entry.name == "main" && !entry.is_agent);
        if self.module.as_ref().is_some_and(|module| !has_main(module))
            && let Some(entry) = self.sources.entry()
        {
            let span = Span::new(0, 0);
            let name = entry.source.name();
            let missing =
                Diagnostic::new(Code::E0414, entry.source.file(), span, format!("`{name}` has no `flow main` to run"))
                    .help("add `flow main(input: str) -> str { … }`");
            self.diagnostics.push(missing);
            self.module = None;
        }
        self
    }

    /// The module and its warnings.
    ///
    /// # Errors
    /// The result itself if there is no module.
    pub fn into_compiled(mut self) -> Result<Compiled, Box<Self>> {
        match self.module.take() {
            Some(module) => Ok(Compiled { module, diagnostics: self.diagnostics }),
            None => Err(Box::new(self)),
        }
    }
}

/// What is to be made of a program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Module,
    Tests,
}

fn run(
    sources: SourceSet,
    loader: &dyn FileLoader,
    wanted: Wanted,
    options: &Options,
) -> (CompileResult, hir::Program) {
    let mut diagnostics = first_of_each_line(&sources, sources.diagnostics().into_iter().cloned().collect());
    let entry = sources.entry().map(|entry| entry.source.file());
    let Some(entry) = entry else {
        let result = CompileResult { sources, diagnostics, module: None, tests: Vec::new() };
        return (result, hir::Program::default());
    };
    let files: Vec<checker::File> = sources.files().iter().map(checked_file).collect();
    let (program, findings) = checker::check(&files, loader, entry, wanted == Wanted::Tests, options);
    let findings = once_each(without_unused(findings));
    if diagnostics.iter().any(Diagnostic::is_error) {
        let findings = without_follow_ups(&sources, &diagnostics, findings);
        diagnostics.extend(findings);
    } else {
        diagnostics.extend(findings);
    }
    let mut module = None;
    if wanted != Wanted::Nothing && !diagnostics.iter().any(Diagnostic::is_error) {
        match compiler::compile(&program, &lines(&sources)) {
            Ok(made) => module = Some(made),
            Err(fault) => {
                let file = FileId(fault.at.file);
                let span = Span::new(fault.at.start, fault.at.start);
                diagnostics.push(
                    Diagnostic::new(Code::E1006, file, span, fault.what)
                        .help("split it into smaller flows, or several programs"),
                );
            }
        }
    }
    let tests = if module.is_some() { program.tests.clone() } else { Vec::new() };
    (CompileResult { sources, diagnostics, module, tests }, program)
}

fn checked_file(file: &ParsedFile) -> checker::File {
    let path = |import: &crate::source_set::Import| Some((import.declaration.path()?.plain()?, import.file));
    checker::File {
        id: file.source.file(),
        name: file.source.name().to_owned(),
        tree: file.parse.tree(),
        imports: file.imports.iter().filter_map(path).collect(),
    }
}

/// The lines of every file, by number.
fn lines(sources: &SourceSet) -> Vec<Lines> {
    let count = sources.files().iter().map(|file| file.source.file().0 as usize + 1).max().unwrap_or_default();
    let mut lines = vec![Lines::default(); count];
    for file in sources.files() {
        lines[file.source.file().0 as usize] = Lines::of(file.source.name(), file.source.text());
    }
    lines
}

/// Findings without those that call something unused in a file with errors: what is used is known once they are mended.
fn without_unused(mut findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let wrong: BTreeSet<FileId> =
        findings.iter().filter(|finding| finding.is_error()).map(|finding| finding.file).collect();
    findings.retain(|finding| finding.code != Code::W0212 || !wrong.contains(&finding.file));
    findings
}

/// Findings of the lexer and the parser with one error of the parser a line at most, and none where the lexer has found
/// what is wrong: the others follow from it.
fn first_of_each_line(sources: &SourceSet, findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let is_parsers =
        |finding: &Diagnostic| matches!(finding.code, Code::E0201 | Code::E0202 | Code::E0203 | Code::E0204);
    let is_lexers = |finding: &Diagnostic| finding.is_error() && finding.code.name().starts_with("E01");
    let line = |finding: &Diagnostic| {
        let source = sources.source(finding.file)?;
        Some((finding.file, source.line_column(finding.span.start).line))
    };
    let mut taken: BTreeSet<_> = findings.iter().filter(|finding| is_lexers(finding)).filter_map(line).collect();
    let is_kept = |finding: &Diagnostic| !is_parsers(finding) || line(finding).is_none_or(|line| taken.insert(line));
    let keep: Vec<bool> = findings.iter().map(is_kept).collect();
    findings.into_iter().zip(keep).filter_map(|(finding, is_kept)| is_kept.then_some(finding)).collect()
}

/// Findings with each unknown name, field and method told once: where it is met first, and how often it is met again.
fn once_each(findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut told: BTreeMap<(FileId, Code, String), (usize, usize)> = BTreeMap::new();
    let mut kept: Vec<Diagnostic> = Vec::new();
    for finding in findings {
        if matches!(finding.code, Code::E0208 | Code::E0302 | Code::E0305 | Code::E0406) {
            let name = (finding.file, finding.code, finding.message.clone());
            let (_, again) = told.entry(name).and_modify(|(_, again)| *again += 1).or_insert((kept.len(), 0));
            if *again > 0 {
                continue;
            }
        }
        kept.push(finding);
    }
    for (place, again) in told.into_values().filter(|(_, again)| *again > 0) {
        let times = if again == 1 { "once more".to_owned() } else { format!("{again} times more") };
        kept[place].notes.push(format!("it is met {times} in this file"));
    }
    kept
}

/// What the checker finds in a program with syntax errors, as far as it does not follow from them: no warnings, nothing
/// inside a declaration that could not be read whole, and no unknown names, parameters and fields, since the parser may
/// have lost theirs.
fn without_follow_ups(sources: &SourceSet, known: &[Diagnostic], findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let errors = known.iter().filter(|finding| finding.is_error());
    let errors: BTreeSet<(FileId, u32)> = errors.map(|finding| (finding.file, finding.span.start)).collect();
    let mut broken: Vec<(FileId, Span)> = Vec::new();
    for file in sources.files() {
        let id = file.source.file();
        for decl in file.parse.tree().declarations() {
            let span = decl.span();
            let has_error = errors.range((id, span.start)..=(id, span.end)).next().is_some();
            if has_error || decl.is_broken() {
                broken.push((id, span));
            }
        }
    }
    let is_follow_up = |finding: &Diagnostic| {
        !finding.is_error()
            || matches!(finding.code, Code::E0208 | Code::E0302 | Code::E0304 | Code::E0305)
            || broken.iter().any(|(file, span)| {
                *file == finding.file && span.start <= finding.span.start && finding.span.start <= span.end
            })
    };
    let follows = |finding: &Diagnostic| {
        // What is refused on purpose follows from nothing else.
        let is_own = finding.code.is_about_refused_forms() && finding.code != Code::E0906;
        !is_own && is_follow_up(finding)
    };
    findings.into_iter().filter(|finding| !follows(finding)).collect()
}

//! One page: its fences, what each program does, and whether that is what the page says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nexa_harness::{Suite, report};
use nexa_lang::diagnostic::Colour;
use nexa_lang::format::format;
use nexa_lang::{CompileResult, Diagnostic, FileId, Severity, Source, SourceSet, parse};

/// The name under which a program is compiled.
const MAIN: &str = "main.nx";

/// A fence: its kind and settings, its text, and where the text stands in the page.
struct Fence {
    info: String,
    text: String,
    line: usize,
    from: usize,
    to: usize,
}

/// A program of a page and what is expected of it.
struct Program {
    title: String,
    line: usize,
    text: String,
    /// Which fence says what it does.
    expected: usize,
    /// The fence with the report of its first failed test.
    failure: Option<usize>,
}

pub(crate) struct Page {
    path: PathBuf,
    text: String,
    fences: Vec<Fence>,
    files: BTreeMap<String, Vec<u8>>,
    programs: Vec<Program>,
}

impl Page {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let fences = fences(&text);
        let mut page = Self { path: path.to_owned(), text, fences, files: BTreeMap::new(), programs: Vec::new() };
        let mut open: Option<(String, usize, String)> = None;
        for (number, fence) in page.fences.iter().enumerate() {
            let place = format!("{}:{}", path.display(), fence.line);
            match (fence.info.split_whitespace().next(), setting(&fence.info, "title"), setting(&fence.info, "file")) {
                (Some("nexa"), Some(title), None) => {
                    assert!(open.is_none(), "{place}: the program before this one has no `expect` fence");
                    open = Some((title, fence.line, fence.text.clone()));
                }
                (Some("nexa" | "text"), None, Some(file)) => {
                    page.files.insert(file, fence.text.clone().into_bytes());
                }
                (Some("expect"), _, _) => {
                    let (title, line, text) = open.take().unwrap_or_else(|| panic!("{place}: no program before this"));
                    page.programs.push(Program { title, line, text, expected: number, failure: None });
                }
                (Some("failure"), _, _) => {
                    let program = page.programs.last_mut().unwrap_or_else(|| panic!("{place}: no program before this"));
                    program.failure = Some(number);
                }
                // Anything else is for the reader alone.
                _ => {}
            }
        }
        assert!(open.is_none(), "{}: the last program has no `expect` fence", path.display());
        assert!(!page.programs.is_empty(), "{}: the page has no program", path.display());
        page
    }

    /// Every program does what the page says, in every way to run it.
    pub(crate) fn check(&self) {
        let mut wrong = Vec::new();
        let mut found: Vec<(usize, String)> = Vec::new();
        for program in &self.programs {
            let did = self.run(program);
            let mut said = vec![(program.expected, did.summary)];
            said.extend(program.failure.map(|fence| (fence, did.failure.clone())));
            for (fence, now) in said {
                let expected = self.fences[fence].text.trim_end();
                if expected != now {
                    let (file, line, title) = (self.path.display(), program.line, &program.title);
                    let details = if did.failure.is_empty() { String::new() } else { format!("\n\n{}", did.failure) };
                    wrong.push(format!(
                        "{file}:{line}: \"{title}\"\n--- the page says\n{expected}\n--- the program does\n{now}{details}"
                    ));
                }
                found.push((fence, now));
            }
        }
        if !wrong.is_empty() && std::env::var_os("UPDATE_EXPECT").is_some() {
            return self.rewrite(found);
        }
        assert!(wrong.is_empty(), "{} of {} differ\n\n{}", wrong.len(), self.programs.len(), wrong.join("\n\n"));
    }

    fn run(&self, program: &Program) -> Did {
        let place = format!("{}:{}: \"{}\"", self.path.display(), program.line, program.title);
        is_kept(&program.text, &place);
        let mut files = self.files.clone();
        files.insert(MAIN.to_owned(), program.text.clone().into_bytes());
        let suite = match Suite::load(MAIN, &files) {
            Ok(suite) => suite,
            Err(result) => {
                let CompileResult { sources, diagnostics, .. } = &*result;
                return Did { summary: listed(diagnostics, sources), failure: result.render(Colour::Off) };
            }
        };
        assert!(suite.tests().count() > 0, "{place} compiles and has no test");
        let (mut lines, mut failure) = (Vec::new(), String::new());
        let mut ends = Vec::new();
        for test in suite.tests() {
            let run =
                suite.prove(test).unwrap_or_else(|differs| panic!("{place}, \"{}\": {}", test.name, differs.what));
            ends.push(run.clock.0);
            if let Some(shown) = report::failure(&run, test, &suite.sources, Colour::Off) {
                lines.push(format!("fails: {}", test.name));
                failure = if failure.is_empty() { shown } else { failure };
            }
        }
        if lines.is_empty() {
            lines.push("passes".to_owned());
        }
        if self.fences[program.expected].text.contains("workload ends at") {
            let ends = ends.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            lines.push(format!("workload ends at {ends} ms"));
        }
        let warnings = listed(&suite.diagnostics, &suite.sources);
        lines.extend((!warnings.is_empty()).then_some(warnings));
        Did { summary: lines.join("\n"), failure }
    }

    /// Puts what the programs do in the place of what the page says.
    fn rewrite(&self, mut found: Vec<(usize, String)>) {
        let mut text = self.text.clone();
        found.sort();
        for (fence, now) in found.into_iter().rev() {
            let Fence { from, to, .. } = self.fences[fence];
            text.replace_range(from..to, &format!("{now}\n"));
        }
        std::fs::write(&self.path, text).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
    }
}

/// Whatever a program is, its tree prints every byte of it, and formatting it twice is formatting it once.
fn is_kept(text: &str, place: &str) {
    let source = |text: &str| Source::from_text(FileId(0), MAIN, text).expect("a program of a page is small");
    assert_eq!(parse(&source(text)).print(), text, "{place}: the tree prints something else");
    // Who has errors of syntax is not formatted.
    if let Ok(once) = format(&source(text)) {
        assert_eq!(format(&source(&once)).as_deref(), Ok(once.as_str()), "{place}: formatting it again changes it");
    }
}

/// What a program did.
struct Did {
    /// As an `expect` fence has it.
    summary: String,
    /// The report of the first failure, or the diagnostics.
    failure: String,
}

/// Diagnostics, one a line: `error[E0601] at 3:5`. Places in other files name them.
fn listed(diagnostics: &[Diagnostic], sources: &SourceSet) -> String {
    let line = |finding: &Diagnostic| {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let place = sources.source(finding.file).map(|source| {
            let at = source.line_column(finding.span.start);
            let file = if source.name() == MAIN { String::new() } else { format!("{}:", source.name()) };
            format!("{file}{}:{}", at.line, at.column)
        });
        format!("{severity}[{}] at {}", finding.code.name(), place.unwrap_or_default())
    };
    diagnostics.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// All fences of a page; a fence opens and closes at the start of a line.
fn fences(text: &str) -> Vec<Fence> {
    let mut fences: Vec<Fence> = Vec::new();
    let mut open: Option<Fence> = None;
    let mut at = 0;
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        if let Some(info) = line.strip_prefix("```") {
            match open.take() {
                None => {
                    let from = at + line.len();
                    open =
                        Some(Fence { info: info.trim().to_owned(), text: String::new(), line: number, from, to: from });
                }
                Some(fence) => {
                    fences.push(Fence { text: text[fence.from..at].to_owned(), to: at, ..fence });
                }
            }
        }
        at += line.len();
    }
    assert!(open.is_none(), "a fence is not closed");
    fences
}

/// `name="value"` in the line that opens a fence.
fn setting(info: &str, name: &str) -> Option<String> {
    let (_, rest) = info.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

//! The tests of a program.

use std::sync::Arc;

use nexa_lang::hir::TestEntry;
use nexa_lang::{CompileResult, FileLoader, SourceSet, compile_tests};
use nexa_types::{Millis, Outcome};
use nexa_vm::vm::Program;

use crate::stage::{Pace, Run, Stage};

/// A compiled program with its tests.
pub struct Suite {
    /// Its sources, for showing places.
    pub sources: SourceSet,
    /// Warnings and notes.
    pub diagnostics: Vec<nexa_lang::Diagnostic>,
    /// The tests of all its files.
    tests: Vec<TestEntry>,
    program: Arc<Program>,
}

/// Two of the three ways to run a test differ: a mistake in Nexa itself, not in the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// Which way, and where it parts.
    pub what: String,
}

impl Suite {
    /// Compiles a program with its tests.
    ///
    /// # Errors
    /// The result, with what keeps it from being compiled.
    pub fn load(entry_path: &str, loader: &dyn FileLoader) -> Result<Self, Box<CompileResult>> {
        let mut result = compile_tests(entry_path, loader);
        let Some(module) = result.module.take() else { return Err(Box::new(result)) };
        let program = Program::for_tests(module).expect("the verifier accepts what the compiler makes");
        let CompileResult { sources, diagnostics, tests, .. } = result;
        Ok(Self { sources, diagnostics, tests, program: Arc::new(program) })
    }

    /// The tests of the file that was named, in its order; not those of the files that it uses.
    pub fn tests(&self) -> impl Iterator<Item = &TestEntry> {
        let entry = self.sources.entry().map(|entry| entry.source.file().0);
        self.tests.iter().filter(move |test| Some(test.at.file) == entry)
    }

    /// Runs a test once.
    pub fn run(&self, test: &TestEntry, pace: Pace) -> Run {
        let name = format!("test {:?}", test.name);
        Stage::new(Arc::clone(&self.program), &name, test.function, Vec::new(), pace).play()
    }

    /// Runs a test in one go, then stopped and thawed at every safepoint, then from its recorded streams.
    ///
    /// # Errors
    /// [`Disagreement`] where one way differs from the first.
    pub fn prove(&self, test: &TestEntry) -> Result<Run, Disagreement> {
        let whole = self.run(test, Pace::Full);
        let pieces = self.run(test, Pace::Stopping);
        let differs = |what: String| Err(Disagreement { what });
        if let Some((one, other)) = first_difference(&whole.told(), &pieces.told()) {
            return differs(format!(
                "stopped at every safepoint it goes another way\n  in one go: {one}\n  stopped:   {other}"
            ));
        }
        let end = |run: &Run| -> (Outcome, Millis) { (run.outcome.clone(), run.clock) };
        if end(&whole) != end(&pieces) || whole.trace() != pieces.trace() {
            return differs("stopped at every safepoint it ends in another state".to_owned());
        }
        match whole.replay().and_then(|()| pieces.replay()) {
            Ok(()) => Ok(whole),
            Err(what) => differs(what),
        }
    }
}

fn first_difference(one: &str, other: &str) -> Option<(String, String)> {
    let (mut ones, mut others) = (one.lines(), other.lines());
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            (one, other) => {
                return Some((one.unwrap_or("(nothing)").to_owned(), other.unwrap_or("(nothing)").to_owned()));
            }
        }
    }
}

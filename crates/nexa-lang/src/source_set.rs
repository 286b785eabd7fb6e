//! A program: its entry file and every file it imports, read and parsed.
//!
//! In:  the path of the entry file, and a [`FileLoader`] that gives the bytes of a path.
//! Out: the parsed files, imported ones before those that import them, and what is wrong with the imports.
//!
//! A path in `use` is relative to the importing file. Paths are compared after `.` and `..` are taken out; one that leads
//! out of the folder the loader serves is not found. Nothing is read here: the loader decides what a path is.

use std::collections::BTreeMap;

use crate::{
    ast::{AstNode, UseDecl},
    diagnostic::{Code, Diagnostic},
    parser::parse,
    source::{FileId, Source, Span},
    syntax::Parse,
};

/// How many files one program may have. More are refused as not found, with a note.
pub const FILES_MAX: usize = 4_096;

/// Why a file could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// There is no such file, or it lies outside of what the loader may read.
    NotFound,
    /// It is there and cannot be read; the reason is for people.
    Unreadable(String),
}

/// Gives the bytes of a file. Paths are relative, with `/` between their parts and without `.` and `..`.
pub trait FileLoader {
    /// The bytes of the file at this path.
    ///
    /// # Errors
    /// [`LoadError`], which becomes E0206 at the `use`, or the name of a text file, that asked.
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError>;
}

impl FileLoader for BTreeMap<String, Vec<u8>> {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        self.get(path).cloned().ok_or(LoadError::NotFound)
    }
}

/// One file of a program.
#[derive(Clone, Debug)]
pub struct ParsedFile {
    /// Its name and text.
    pub source: Source,
    /// Its tree.
    pub parse: Parse,
    /// Its `use` declarations and the files they name; one that could not be loaded is missing.
    pub imports: Vec<Import>,
}

/// A `use` and the file it names.
#[derive(Clone, Debug)]
pub struct Import {
    /// The declaration.
    pub declaration: UseDecl,
    /// The file.
    pub file: FileId,
}

/// The files of a program in dependency order: every file comes after the files it imports, the entry file last.
#[derive(Clone, Debug, Default)]
pub struct SourceSet {
    files: Vec<ParsedFile>,
    unreadable: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
}

impl SourceSet {
    /// Loads and parses a program. It always gives a set; what could not be loaded is in the diagnostics.
    pub fn load(entry: &str, loader: &dyn FileLoader) -> SourceSet {
        let mut loading = Loading { loader, known: BTreeMap::new(), set: SourceSet::default(), next: 0 };
        loading.run(entry);
        loading.set
    }

    /// A program of one text without a loader; its imports are not found.
    #[must_use]
    pub fn single(name: &str, text: &str) -> SourceSet {
        SourceSet::load(name, &BTreeMap::from([(normalized(name).unwrap_or_default(), text.as_bytes().to_vec())]))
    }

    /// The files in dependency order.
    #[must_use]
    pub fn files(&self) -> &[ParsedFile] {
        &self.files
    }

    /// The entry file, unless it could not be read.
    #[must_use]
    pub fn entry(&self) -> Option<&ParsedFile> {
        self.files.iter().find(|file| file.source.file() == ENTRY)
    }

    /// The file of a number.
    #[must_use]
    pub fn file(&self, file: FileId) -> Option<&ParsedFile> {
        self.files.iter().find(|parsed| parsed.source.file() == file)
    }

    /// The name and text of a file, for rendering; a file that could not be read has its name and no text.
    #[must_use]
    pub fn source(&self, file: FileId) -> Option<&Source> {
        let unreadable = self.unreadable.iter().find(|source| source.file() == file);
        self.file(file).map(|parsed| &parsed.source).or(unreadable)
    }

    /// What is wrong with the files, their characters, their syntax and their imports: file by file, the entry file last.
    #[must_use]
    pub fn diagnostics(&self) -> Vec<&Diagnostic> {
        self.diagnostics.iter().chain(self.files.iter().flat_map(|file| file.parse.diagnostics())).collect()
    }
}

const ENTRY: FileId = FileId(0);

/// A file on the way: parsed, its imports being followed.
struct Open {
    path: String,
    source: Source,
    parse: Parse,
    pending: std::vec::IntoIter<UseDecl>,
    imports: Vec<Import>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open(FileId),
    Done(FileId),
    /// It was reported when it was first asked for.
    Failed,
}

struct Loading<'l> {
    loader: &'l dyn FileLoader,
    known: BTreeMap<String, State>,
    set: SourceSet,
    next: u32,
}

impl Loading<'_> {
    /// Follows the imports depth first, with a stack of its own: a chain of imports may be longer than ours.
    fn run(&mut self, entry: &str) {
        let path = normalized(entry).unwrap_or_else(|| entry.to_owned());
        let mut stack: Vec<Open> = self.open(&path, None).into_iter().collect();
        while let Some(top) = stack.last_mut() {
            let Some(declaration) = top.pending.next() else {
                let Some(done) = stack.pop() else { break };
                let file = done.source.file();
                self.known.insert(done.path, State::Done(file));
                self.set.files.push(ParsedFile { source: done.source, parse: done.parse, imports: done.imports });
                continue;
            };
            let Some(written) = declaration.path() else { continue };
            let Some(relative) = written.plain() else {
                let importer = top.source.file();
                self.refuse(importer, written.span(), "the path of an import is a plain text".to_owned());
                continue;
            };
            let importer = top.source.file();
            let Some(path) = resolved(&top.path, &relative) else {
                self.refuse(importer, written.span(), format!("`{relative}` leads out of the project"));
                continue;
            };
            match self.known.get(&path).copied() {
                Some(State::Done(file)) => top.imports.push(Import { declaration, file }),
                Some(State::Failed) => {}
                Some(State::Open(_)) => self.report_cycle(&stack, &path, written.span()),
                None => {
                    if let Some(open) = self.open(&path, Some((importer, written.span()))) {
                        top.imports.push(Import { declaration, file: open.source.file() });
                        stack.push(open);
                    }
                }
            }
        }
    }

    fn open(&mut self, path: &str, importer: Option<(FileId, Span)>) -> Option<Open> {
        let file = FileId(self.next);
        self.next += 1;
        let loaded = if file.0 as usize >= FILES_MAX {
            Err(LoadError::Unreadable(format!("a program may have {FILES_MAX} files")))
        } else {
            self.loader.load(path)
        };
        let (at_file, at) = importer.unwrap_or((file, Span::default()));
        let source = match loaded {
            Ok(bytes) => Source::from_bytes(file, path, bytes).map_err(|diagnostic| *diagnostic),
            Err(LoadError::NotFound) => {
                let diagnostic = Diagnostic::new(Code::E0206, at_file, at, format!("the file `{path}` is not found"));
                Err(if importer.is_some() {
                    diagnostic.note("a path is relative to the file that imports it")
                } else {
                    diagnostic
                })
            }
            Err(LoadError::Unreadable(why)) => {
                Err(Diagnostic::new(Code::E0206, at_file, at, format!("the file `{path}` cannot be read")).note(why))
            }
        };
        match source {
            Ok(source) => {
                self.known.insert(path.to_owned(), State::Open(file));
                let parse = parse(&source);
                let pending = parse.tree().uses().collect::<Vec<_>>().into_iter();
                Some(Open { path: path.to_owned(), source, parse, pending, imports: Vec::new() })
            }
            Err(diagnostic) => {
                self.known.insert(path.to_owned(), State::Failed);
                self.set.unreadable.push(Source::empty(file, path));
                self.set.diagnostics.push(diagnostic);
                None
            }
        }
    }

    fn refuse(&mut self, file: FileId, span: Span, message: String) {
        self.set.diagnostics.push(Diagnostic::new(Code::E0206, file, span, message));
    }

    fn report_cycle(&mut self, stack: &[Open], path: &str, span: Span) {
        let Some(importer) = stack.last() else { return };
        let from = stack.iter().position(|open| open.path == path).unwrap_or_default();
        let circle: Vec<&str> = stack[from..].iter().map(|open| open.path.as_str()).chain([path]).collect();
        let message =
            format!("`{}` imports itself{}", path, if circle.len() > 2 { " through other files" } else { "" });
        let diagnostic = Diagnostic::new(Code::E0205, importer.source.file(), span, message)
            .note(circle.join(" -> "))
            .help("move what both need into a file of its own");
        self.set.diagnostics.push(diagnostic);
    }
}

/// The path that `relative` names in the file at `importer`; nothing if it leads out of the project.
pub(crate) fn resolved(importer: &str, relative: &str) -> Option<String> {
    let folder = importer.rsplit_once('/').map_or("", |(folder, _)| folder);
    if relative.starts_with('/') || relative.contains('\\') || relative.contains('\0') {
        return None;
    }
    normalized(&format!("{folder}/{relative}"))
}

/// The path without empty parts, `.` and `..`; nothing if it begins with `..` then, or is empty.
fn normalized(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

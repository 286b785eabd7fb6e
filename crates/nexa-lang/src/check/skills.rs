//! `skills: ["brief.md", …]`: text files that an agent knows its task by.
//!
//! Their texts become constants of the program when it is compiled, so a module is whole without the files, and another
//! text is another module. They are texts and no templates: `#{…}` in them means nothing. A path is relative to the file
//! in which it stands, as that of a `use` is.
//!
//! Bounds: [`SKILLS_MAX`] files an agent, [`SKILL_BYTES_MAX`] a file, [`TEXTS_BYTES_MAX`] all files of a program.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Checker;
use crate::ast::{self, AstNode};
use crate::diagnostic::{Code, Diagnostic};
use crate::source::Span;
use crate::source_set::{FileLoader, LoadError, resolved};

/// Files of one agent.
pub(super) const SKILLS_MAX: usize = 16;
/// One file. A constant of a module may be longer, but no model reads so much before its task.
pub(super) const SKILL_BYTES_MAX: usize = 256 << 10;
/// All files that a program names, each counted once.
pub(super) const TEXTS_BYTES_MAX: usize = 8 << 20;

/// Why the text of a file cannot be had.
#[derive(Clone, Debug)]
struct Fault {
    code: Code,
    message: String,
    note: Option<String>,
    help: Option<&'static str>,
}

/// The text files of a program, each read once.
pub(super) struct Texts<'l> {
    loader: &'l dyn FileLoader,
    known: BTreeMap<String, Result<Rc<str>, Fault>>,
    bytes: usize,
}

impl<'l> Texts<'l> {
    pub(super) fn new(loader: &'l dyn FileLoader) -> Self {
        Texts { loader, known: BTreeMap::new(), bytes: 0 }
    }

    fn text(&mut self, path: &str) -> Result<Rc<str>, Fault> {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let text = self.read(path);
        self.bytes += text.as_ref().map_or(0, |text| text.len());
        self.known.insert(path.to_owned(), text.clone());
        text
    }

    fn read(&self, path: &str) -> Result<Rc<str>, Fault> {
        let fault = |code, message| Fault { code, message, note: None, help: None };
        let bytes = self.loader.load(path).map_err(|error| match error {
            LoadError::NotFound => Fault {
                note: Some("a path is relative to the file in which it stands".to_owned()),
                ..fault(Code::E0206, format!("the file `{path}` is not found"))
            },
            LoadError::Unreadable(why) => {
                Fault { note: Some(why), ..fault(Code::E0206, format!("the file `{path}` cannot be read")) }
            }
        })?;
        let count = bytes.len();
        if count > SKILL_BYTES_MAX {
            let message = format!("`{path}` has {count} bytes; a skill may have {SKILL_BYTES_MAX}");
            return Err(Fault { help: Some("split it into several files"), ..fault(Code::E0102, message) });
        }
        if self.bytes + count > TEXTS_BYTES_MAX {
            let message = format!("with `{path}` the skills of the program have more than {TEXTS_BYTES_MAX} bytes");
            return Err(Fault { help: Some("give each agent what it needs only"), ..fault(Code::E0102, message) });
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            let message = format!("`{path}` is not UTF-8: byte {at} is 0x{byte:02x}");
            Fault { help: Some("save the file in the encoding UTF-8"), ..fault(Code::E0101, message) }
        })?;
        // The mark that some editors put before a text says nothing, and neither does what is blank at its end.
        Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end().into())
    }
}

impl Checker<'_> {
    /// The texts of the files that a list names, in its order.
    pub(super) fn skills(&mut self, value: &ast::Expr) -> Vec<Rc<str>> {
        let names = self.texts(value, "skills", SKILLS_MAX);
        let spans: Vec<Span> = match value.clone().without_parens() {
            Some(ast::Expr::ListExpr(list)) => list.items().map(|item| item.span()).collect(),
            _ => Vec::new(),
        };
        let importer = self.files[self.place_of(self.file)].name.clone();
        let mut first: BTreeMap<String, Span> = BTreeMap::new();
        let mut texts = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let span = spans.get(place).copied().unwrap_or_else(|| value.span());
            let Some(path) = resolved(&importer, name) else {
                let outside = self.finding(Code::E0206, span, format!("`{name}` leads out of the project"));
                self.report(outside);
                continue;
            };
            if let Some(first) = first.get(&path).copied() {
                let twice = self.finding(Code::E0402, span, format!("`skills` has `{path}` twice"));
                self.report(twice.label(first, "it is given here first"));
                continue;
            }
            first.insert(path.clone(), span);
            match self.text_files.text(&path) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => texts.push(text),
                Err(Fault { code, message, note, help }) => {
                    let mut finding = self.finding(code, span, message);
                    finding = note.into_iter().fold(finding, Diagnostic::note);
                    finding = help.into_iter().fold(finding, Diagnostic::help);
                    self.report(finding);
                }
            }
        }
        texts
    }
}

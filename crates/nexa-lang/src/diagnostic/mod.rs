//! What is wrong with a program, said so that its author can act.
//!
//! A [`Diagnostic`] has one code of a closed table, one message, one primary place, and as many labels, notes, helps
//! and machine-applicable fixes as help. It is a value: [`render`] turns it into text or JSON.
//!
//! Holds: one mistake gives one primary error. The parser and the checker suppress follow-ups in the same statement.

mod code;
mod json;
mod nearest;
mod render;

pub use code::{Code, Severity};
pub use json::to_json;
pub use nearest::nearest;
pub use render::{Colour, Shown, render, show};

use crate::source::{FileId, Span};

/// How many lexical and syntax findings are kept of one file. Later ones are dropped: nobody reads them, and a large file
/// that is no program at all would fill the memory with them.
pub const SYNTAX_FINDINGS_MAX: usize = 1_000;

/// One finding about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which mistake it is.
    pub code: Code,
    /// Whether it stops the program from being compiled.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// The file of the primary place.
    pub file: FileId,
    /// The primary place.
    pub span: Span,
    /// A few words right at the primary place.
    pub primary_label: Option<String>,
    /// Other places that matter.
    pub labels: Vec<Label>,
    /// Why it is wrong.
    pub notes: Vec<String>,
    /// What to do.
    pub helps: Vec<String>,
    /// What a tool can do about it alone.
    pub fixes: Vec<Fix>,
}

/// A place with a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The file.
    pub file: FileId,
    /// The place.
    pub span: Span,
    /// The words.
    pub message: String,
}

/// A change that removes the mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What the change does.
    pub title: String,
    /// The edits in the diagnostic's file; they do not overlap.
    pub edits: Vec<Edit>,
}

/// The replacement of one range of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced; an empty span inserts.
    pub span: Span,
    /// What it is replaced by.
    pub text: String,
}

impl Diagnostic {
    /// A finding at a place; its severity is that of the code.
    #[must_use]
    pub fn new(code: Code, file: FileId, span: Span, message: impl Into<String>) -> Self {
        Diagnostic {
            code,
            severity: code.severity(),
            message: message.into(),
            file,
            span,
            primary_label: None,
            labels: Vec::new(),
            notes: Vec::new(),
            helps: Vec::new(),
            fixes: Vec::new(),
        }
    }

    /// Puts a few words at the primary place.
    #[must_use]
    pub fn primary_label(mut self, words: impl Into<String>) -> Self {
        self.primary_label = Some(words.into());
        self
    }

    /// Points at another place of the same file.
    #[must_use]
    pub fn label(self, span: Span, words: impl Into<String>) -> Self {
        let file = self.file;
        self.label_in(file, span, words)
    }

    /// Points at a place of any file.
    #[must_use]
    pub fn label_in(mut self, file: FileId, span: Span, words: impl Into<String>) -> Self {
        self.labels.push(Label { file, span, message: words.into() });
        self
    }

    /// Says why it is wrong.
    #[must_use]
    pub fn note(mut self, words: impl Into<String>) -> Self {
        self.notes.push(words.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, words: impl Into<String>) -> Self {
        self.helps.push(words.into());
        self
    }

    /// Offers a change that a tool can make.
    #[must_use]
    pub fn fix(mut self, title: impl Into<String>, edits: Vec<Edit>) -> Self {
        self.fixes.push(Fix { title: title.into(), edits });
        self
    }

    /// Whether a program with this finding yields no module.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl Edit {
    /// Replaces the text at a place.
    #[must_use]
    pub fn replace(span: Span, text: impl Into<String>) -> Self {
        Edit { span, text: text.into() }
    }
}

//! Diagnostics for people: the message, the place, the marked source, then notes and helps.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Severity};
use crate::source::{FileId, Source, Span};

/// Whether the text carries terminal colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    #[default]
    Off,
    /// With ANSI escapes.
    On,
}

/// The diagnostic as text of several lines, without a line end after the last.
///
/// `find` gives the source of a file; a place in a file it does not know is left out.
pub fn render<'s>(diagnostic: &Diagnostic, find: impl Fn(FileId) -> Option<&'s Source>, colour: Colour) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.name()));
    for (source, marks) in marks_by_file(diagnostic, find) {
        group = if source.text().is_empty() {
            group.element(Origin::path(source.name()))
        } else {
            group.element(snippet(source, &marks))
        };
    }
    let notes = diagnostic.notes.iter().map(|note| Level::NOTE.message(note.as_str()));
    let helps = diagnostic.helps.iter().map(|help| Level::HELP.message(help.as_str()));
    group = group.elements(notes).elements(helps);
    let renderer = match colour {
        Colour::Off => Renderer::plain(),
        Colour::On => Renderer::styled(),
    };
    renderer.render(&[group])
}

/// Something to be shown like a diagnostic that is none, such as a failed test.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// What stands in brackets after `error`.
    pub id: &'a str,
    /// What is wrong.
    pub message: &'a str,
    /// Where.
    pub place: Option<(&'a Source, Span)>,
    /// What else there is to know.
    pub notes: &'a [String],
    /// What to do.
    pub helps: &'a [String],
}

/// The text of several lines, without a line end after the last.
#[must_use]
pub fn show(shown: &Shown<'_>, colour: Colour) -> String {
    let mut group = Group::with_title(Level::ERROR.primary_title(shown.message).id(shown.id));
    if let Some((source, span)) = shown.place {
        group = group.element(snippet(source, &[Mark { span, kind: AnnotationKind::Primary, words: None }]));
    }
    group = group.elements(shown.notes.iter().map(|note| Level::NOTE.message(note.as_str())));
    group = group.elements(shown.helps.iter().map(|help| Level::HELP.message(help.as_str())));
    let renderer = match colour {
        Colour::Off => Renderer::plain(),
        Colour::On => Renderer::styled(),
    };
    renderer.render(&[group])
}

struct Mark<'d> {
    span: Span,
    kind: AnnotationKind,
    words: Option<&'d str>,
}

/// The marks of each file, the primary file first, files in the order in which they are first mentioned.
fn marks_by_file<'s, 'd>(
    diagnostic: &'d Diagnostic,
    find: impl Fn(FileId) -> Option<&'s Source>,
) -> Vec<(&'s Source, Vec<Mark<'d>>)> {
    let primary =
        Mark { span: diagnostic.span, kind: AnnotationKind::Primary, words: diagnostic.primary_label.as_deref() };
    let others = diagnostic.labels.iter().map(|label| {
        let mark = Mark { span: label.span, kind: AnnotationKind::Context, words: Some(label.message.as_str()) };
        (label.file, mark)
    });
    let mut files: Vec<(&Source, Vec<Mark<'d>>)> = Vec::new();
    for (file, mark) in std::iter::once((diagnostic.file, primary)).chain(others) {
        let Some(source) = find(file) else { continue };
        match files.iter_mut().find(|(known, _)| known.file() == source.file()) {
            Some((_, marks)) => marks.push(mark),
            None => files.push((source, vec![mark])),
        }
    }
    files
}

/// Shows the lines from the first mark to the last; only they are handed to the renderer, so a large file costs nothing.
fn snippet<'a>(source: &'a Source, marks: &[Mark<'a>]) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let text = source.text();
    let clamp = |offset: u32| text.floor_char_boundary((offset as usize).min(text.len()));
    let first = marks.iter().map(|mark| clamp(mark.span.start)).min().unwrap_or_default();
    let last = marks.iter().map(|mark| clamp(mark.span.end)).max().unwrap_or_default();
    let from = text[..first].rfind('\n').map_or(0, |at| at + 1);
    let to = text[last..].find('\n').map_or(text.len(), |at| last + at);
    let annotations = marks.iter().map(|mark| {
        let range: Range<usize> =
            clamp(mark.span.start) - from..clamp(mark.span.end).max(clamp(mark.span.start)) - from;
        mark.kind.span(range).label(mark.words)
    });
    let line = source.line_column(first as u32).line as usize;
    Snippet::source(&text[from..to]).line_start(line).path(source.name()).annotations(annotations)
}

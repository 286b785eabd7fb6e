//! Diagnostics for tools: one JSON object, on one line.

use serde_json::{Value, json};

use super::{Diagnostic, Edit, Label};
use crate::source::{FileId, Source, Span};

/// The diagnostic as one JSON object without line breaks.
///
/// `start` and `end` are bytes, `line` and `column` begin at 1, a column counts Unicode scalar values. `find` gives the
/// source of a file; a file it does not know is shown with an empty name at 1:1.
pub fn to_json<'s>(diagnostic: &Diagnostic, find: impl Fn(FileId) -> Option<&'s Source>) -> String {
    let place = |file: FileId, span: Span| {
        let source = find(file);
        let (line, column) = source.map_or((1, 1), |source| {
            let at = source.line_column(span.start);
            (at.line, at.column)
        });
        (source.map(Source::name).unwrap_or_default(), line, column)
    };
    let label = |label: &Label| {
        let (file, line, column) = place(label.file, label.span);
        json!({
            "file": file, "start": label.span.start, "end": label.span.end,
            "line": line, "column": column, "message": label.message,
        })
    };
    let primary = diagnostic.primary_label.as_ref().map(|words| Label {
        file: diagnostic.file,
        span: diagnostic.span,
        message: words.clone(),
    });
    let labels: Vec<Value> = primary.iter().chain(&diagnostic.labels).map(label).collect();
    let edit = |edit: &Edit| json!({ "start": edit.span.start, "end": edit.span.end, "text": edit.text });
    let fixes: Vec<Value> = diagnostic
        .fixes
        .iter()
        .map(|fix| json!({ "title": fix.title, "edits": fix.edits.iter().map(edit).collect::<Vec<_>>() }))
        .collect();
    // Readers of JSON get helps as notes: both are sentences for people, and the object has one place for them.
    let notes: Vec<&String> = diagnostic.notes.iter().chain(&diagnostic.helps).collect();
    let (file, line, column) = place(diagnostic.file, diagnostic.span);
    json!({
        "code": diagnostic.code.name(),
        "severity": diagnostic.severity.name(),
        "message": diagnostic.message,
        "file": file,
        "start": diagnostic.span.start,
        "end": diagnostic.span.end,
        "line": line,
        "column": column,
        "labels": labels,
        "notes": notes,
        "fixes": fixes,
    })
    .to_string()
}

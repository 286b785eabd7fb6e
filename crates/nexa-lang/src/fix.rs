//! Makes the changes that diagnostics offer.
//!
//! Fixes of one round must not touch the same text; those that would are left for the next, made on what the first round
//! gave. [`migrate`] does so for the forms of the earlier dialect alone.

use crate::diagnostic::{Code, Diagnostic, Edit};
use crate::program::check;
use crate::source::Source;
use crate::source_set::{FileLoader, LoadError};

/// How many rounds are made at most. A program that has more forms within each other than this keeps the rest, which the
/// next run finds.
pub const ROUNDS_MAX: usize = 64;

/// The text after the first fix of each finding, and the findings that it was made for. A fix that touches what an earlier
/// one changes is left out, as is one that points beyond the text.
#[must_use]
pub fn apply<'d>(text: &str, findings: impl IntoIterator<Item = &'d Diagnostic>) -> (String, Vec<&'d Diagnostic>) {
    let mut made: Vec<&Edit> = Vec::new();
    let mut mended = Vec::new();
    for finding in findings {
        let Some(fix) = finding.fixes.first().filter(|fix| !fix.edits.is_empty()) else { continue };
        let is_good = |edit: &Edit| text.get(edit.span.start as usize..edit.span.end as usize).is_some();
        let is_free = |edit: &Edit| made.iter().all(|other| !touches(edit, other));
        if fix.edits.iter().all(|edit| is_good(edit) && is_free(edit)) {
            made.extend(&fix.edits);
            mended.push(finding);
        }
    }
    made.sort_by_key(|edit| edit.span);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in made {
        // Edits of one fix that overlap would be a fault of the fix; the later one is left out.
        if (edit.span.start as usize) < at {
            continue;
        }
        out.push_str(&text[at..edit.span.start as usize]);
        out.push_str(&edit.text);
        at = edit.span.end as usize;
    }
    out.push_str(&text[at..]);
    (out, mended)
}

fn touches(left: &Edit, right: &Edit) -> bool {
    left.span.start <= right.span.end && right.span.start <= left.span.end
}

/// The text with every older form of it written anew, as far as the forms have a fix. What else is wrong with it stays.
#[must_use]
pub fn migrate(source: &Source) -> String {
    let mut text = source.text().to_owned();
    for _ in 0..ROUNDS_MAX {
        let loader = Alone { name: source.name(), text: &text };
        let result = check(source.name(), &loader);
        let entry = result.sources.entry().map(|entry| entry.source.file());
        let older = result
            .diagnostics
            .iter()
            .filter(|finding| Some(finding.file) == entry && matches!(finding.code, Code::E0901 | Code::E0902));
        let (changed, mended) = apply(&text, older);
        if mended.is_empty() {
            break;
        }
        text = changed;
    }
    text
}

/// One file, without those that it imports.
struct Alone<'t> {
    name: &'t str,
    text: &'t str,
}

impl FileLoader for Alone<'_> {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        if path == self.name { Ok(self.text.as_bytes().to_vec()) } else { Err(LoadError::NotFound) }
    }
}

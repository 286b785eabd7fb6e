//! Chooses a layout: a group stays on its line if what it needs up to the next possible line end fits into [`COLUMNS`].
//!
//! Takes time linear in the text: how far a group looks ahead is bounded by the columns of a line.
//! Holds: no line ends in blanks of the printer's, and there is never more than one empty line in a row.

use super::doc::{Doc, Kind};

/// The width of a line.
pub(super) const COLUMNS: usize = 100;
/// The blanks of one level.
const INDENT: usize = 4;
/// The deepest indentation in blanks: what nests deeper is not moved further, so that the text grows no faster than the
/// program.
const INDENT_MAX: usize = 4 * COLUMNS;

/// The text of a document in the layout that fits best.
pub(super) fn print(doc: &Doc) -> String {
    let mut printer = Printer {
        out: String::new(),
        column: 0,
        is_line_start: true,
        wants_space: false,
        follows_comment: false,
        must_break: false,
        follows_opener: true,
        text_end: 0,
        stack: Vec::new(),
    };
    printer.run(doc);
    let mut out = printer.out;
    out.truncate(out.trim_end_matches('\n').len());
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// A part that is still to be printed, with the indentation of its lines and whether its group is flat.
#[derive(Clone, Copy)]
struct Todo<'d> {
    indent: usize,
    is_flat: bool,
    doc: &'d Doc,
}

struct Printer<'d> {
    out: String,
    column: usize,
    /// Nothing stands on the current line yet.
    is_line_start: bool,
    /// A blank comes before the next text, should that stand on this line.
    wants_space: bool,
    /// The last thing was a comment in the middle of a line.
    follows_comment: bool,
    /// The last thing was a comment to the end of its line.
    must_break: bool,
    /// The last thing was an opening bracket; no empty line follows it.
    follows_opener: bool,
    /// Where the last text ends that is no comment.
    text_end: usize,
    stack: Vec<Todo<'d>>,
}

impl<'d> Printer<'d> {
    fn run(&mut self, doc: &'d Doc) {
        self.stack.push(Todo { indent: 0, is_flat: false, doc });
        while let Some(Todo { indent, is_flat, doc }) = self.stack.pop() {
            match &doc.kind {
                Kind::Nil => {}
                Kind::Text(text) => self.text(text, indent),
                Kind::Comment { text, is_line } => self.comment(text, *is_line, indent),
                Kind::Space => self.wants_space = true,
                Kind::Line { soft } if is_flat => self.wants_space |= !soft,
                Kind::Line { .. } => self.new_line(false),
                Kind::Hard { blank } => self.new_line(*blank),
                Kind::TrailingComma if is_flat => {}
                Kind::TrailingComma => self.out.insert(self.text_end, ','),
                Kind::FlatComma if is_flat => self.text(",", indent),
                Kind::FlatComma => {}
                Kind::Concat(parts) => {
                    self.stack.extend(parts.iter().rev().map(|doc| Todo { indent, is_flat, doc }));
                }
                Kind::Indent(inner) => self.stack.push(Todo { indent: indent + INDENT, is_flat, doc: inner }),
                Kind::Group(inner) => {
                    let is_flat = !doc.breaks() && (is_flat || self.fits(inner, indent));
                    self.stack.push(Todo { indent, is_flat, doc: inner });
                }
            }
        }
    }

    fn text(&mut self, text: &str, indent: usize) {
        let joins = matches!(text, "," | ")" | "]" | ";" | "." | "?");
        self.place(indent, self.wants_space || (self.follows_comment && !joins));
        self.push(text);
        self.text_end = self.out.len();
        self.follows_opener = matches!(text, "{" | "(" | "[");
    }

    fn comment(&mut self, text: &str, is_line: bool, indent: usize) {
        let follows_bracket = self.out.ends_with(['(', '[']) && self.follows_opener;
        self.place(indent, self.wants_space || !follows_bracket);
        self.push(text);
        self.follows_opener = false;
        self.follows_comment = true;
        self.must_break = is_line;
    }

    /// Gets ready to print something at this indentation, after a blank or not.
    fn place(&mut self, indent: usize, spaced: bool) {
        if self.must_break {
            self.new_line(false);
        }
        if self.is_line_start {
            let indent = indent.min(INDENT_MAX);
            self.out.extend(std::iter::repeat_n(' ', indent));
            self.column = indent;
        } else if spaced {
            self.out.push(' ');
            self.column += 1;
        }
        self.is_line_start = false;
        self.wants_space = false;
        self.follows_comment = false;
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        match text.rfind('\n') {
            Some(at) => self.column = text[at + 1..].chars().count(),
            None => self.column += text.chars().count(),
        }
    }

    fn new_line(&mut self, blank: bool) {
        if !self.is_line_start {
            self.out.push('\n');
        }
        if blank && !self.follows_opener && !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
        self.column = 0;
        self.is_line_start = true;
        self.wants_space = false;
        self.follows_comment = false;
        self.must_break = false;
    }

    /// Whether `doc`, flat, and what comes after it fit on the line up to the next possible line end.
    fn fits(&self, doc: &'d Doc, indent: usize) -> bool {
        let mut is_line_start = self.is_line_start;
        let used = if is_line_start { indent.min(INDENT_MAX) } else { self.column + usize::from(self.wants_space) };
        let Some(mut left) = COLUMNS.checked_sub(used) else { return false };
        let mut later = self.stack.iter().rev();
        let mut ahead = vec![Todo { indent: 0, is_flat: true, doc }];
        loop {
            let Some(Todo { is_flat, doc, .. }) = ahead.pop().or_else(|| later.next().copied()) else { return true };
            let width = match &doc.kind {
                Kind::Nil | Kind::TrailingComma => 0,
                Kind::Text(text) => match text.split_once('\n') {
                    Some((first, _)) => return first.chars().count() <= left,
                    None => text.chars().count(),
                },
                // What stands behind the code does not push it about.
                Kind::Comment { is_line: true, .. } | Kind::Hard { .. } => return true,
                Kind::Comment { text, .. } if text.contains('\n') => return true,
                // A blank stands before a comment, and behind it if something follows that wants one.
                Kind::Comment { text, .. } => text.chars().count() + usize::from(!is_line_start),
                Kind::Space => 1,
                Kind::Line { soft } if is_flat => usize::from(!soft),
                Kind::Line { .. } => return true,
                Kind::FlatComma => usize::from(is_flat),
                Kind::Concat(parts) => {
                    ahead.extend(parts.iter().rev().map(|doc| Todo { indent: 0, is_flat, doc }));
                    0
                }
                Kind::Indent(inner) => {
                    ahead.push(Todo { indent: 0, is_flat, doc: inner });
                    0
                }
                Kind::Group(inner) => {
                    ahead.push(Todo { indent: 0, is_flat: is_flat && !doc.breaks(), doc: inner });
                    0
                }
            };
            is_line_start &= width == 0;
            match left.checked_sub(width) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
    }
}

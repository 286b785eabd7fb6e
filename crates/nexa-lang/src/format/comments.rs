//! Which comments belong to which token, so that they stay beside it.
//!
//! A comment on the same line as the token before it, with a line end after it, belongs to that token; any other belongs
//! to the token after it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::doc::Doc;
use crate::{SyntaxKind, SyntaxNode, SyntaxToken};

/// Where the end of the file is kept among the tokens.
const END_OF_FILE: u32 = u32::MAX;

/// One comment.
struct Comment {
    text: String,
    is_line: bool,
    /// Whether it begins its line.
    owns_line: bool,
    follows_blank: bool,
}

/// What stands between a token and the one before it, as far as it belongs to this one.
#[derive(Default)]
struct Before {
    comments: Vec<Comment>,
    /// Whether a line ends right before the token, behind all its comments.
    follows_newline: bool,
    follows_blank: bool,
    /// Whether any line ends between the two tokens.
    is_on_new_line: bool,
}

/// The comments of a file by the tokens they belong to.
#[derive(Default)]
pub(super) struct Comments {
    /// By the first byte of the token. Looked up, never walked, so its order does not matter.
    before: HashMap<u32, Before>,
    /// By the end of the token.
    behind: HashMap<u32, Vec<Comment>>,
    /// The starts and ends whose comments are in the document already.
    taken_before: RefCell<HashSet<u32>>,
    taken_behind: RefCell<HashSet<u32>>,
}

/// Collects the comments between two tokens.
struct Gap {
    before: Before,
    /// The comments on the line of the token before.
    behind: Vec<Comment>,
    newlines: usize,
    has_newline: bool,
}

impl Comments {
    pub(super) fn of(root: &SyntaxNode) -> Self {
        let mut comments = Comments::default();
        let mut gap = Gap::new(true);
        let mut end = None;
        for token in root.descendants_with_tokens().filter_map(rowan::NodeOrToken::into_token) {
            if token.kind().is_trivia() {
                gap.add(&token);
                continue;
            }
            comments.close(std::mem::replace(&mut gap, Gap::new(false)), end, token.text_range().start().into());
            end = Some(token.text_range().end().into());
        }
        comments.close(gap, end, END_OF_FILE);
        comments
    }

    fn close(&mut self, gap: Gap, end: Option<u32>, start: u32) {
        let Gap { mut before, mut behind, newlines, has_newline } = gap;
        before.follows_newline = newlines > 0;
        before.follows_blank = newlines > 1;
        before.is_on_new_line = has_newline;
        if !has_newline && start != END_OF_FILE {
            // All of it stands on one line: it belongs to what it stands before.
            behind.append(&mut before.comments);
            std::mem::swap(&mut behind, &mut before.comments);
        }
        if let Some(end) = end
            && !behind.is_empty()
        {
            self.behind.insert(end, behind);
        }
        if !before.comments.is_empty() || before.is_on_new_line {
            self.before.insert(start, before);
        }
    }

    /// Takes the comments before a token, ready to be followed by it. Whoever lays out the outermost node that begins
    /// there takes them, so that they do not break what is inside of it.
    pub(super) fn before(&self, start: u32) -> Doc {
        let Some(before) = self.before.get(&start).filter(|before| !before.comments.is_empty()) else {
            return Doc::nil();
        };
        if !self.taken_before.borrow_mut().insert(start) {
            return Doc::nil();
        }
        let mut parts = written(&before.comments);
        if before.follows_newline {
            parts.push(Doc::hard(before.follows_blank));
        }
        Doc::concat(parts)
    }

    /// Takes the comments behind a token; as with those before it, the outermost node that ends there does.
    pub(super) fn behind(&self, end: u32) -> Doc {
        match self.behind.get(&end) {
            Some(comments) if self.taken_behind.borrow_mut().insert(end) => Doc::concat(written(comments)),
            _ => Doc::nil(),
        }
    }

    /// The comments before a closing bracket, which stay among what it closes.
    pub(super) fn before_closer(&self, start: u32) -> Option<Doc> {
        let before = self.before.get(&start).filter(|before| !before.comments.is_empty())?;
        Some(Doc::concat(written(&before.comments)))
    }

    /// The comments before the end of the file.
    pub(super) fn at_end(&self) -> Doc {
        self.before_closer(END_OF_FILE).unwrap_or_else(Doc::nil)
    }

    /// Whether a token, or the first comment before it, comes after an empty line.
    pub(super) fn follows_blank(&self, start: u32) -> bool {
        self.before.get(&start).is_some_and(|before| match before.comments.first() {
            Some(first) => first.follows_blank,
            None => before.follows_blank,
        })
    }

    /// Whether a line ends between a token and the one before it.
    pub(super) fn is_on_new_line(&self, start: u32) -> bool {
        self.before.get(&start).is_some_and(|before| before.is_on_new_line)
    }

    /// Whether comments stand before a token that are written on lines of their own.
    pub(super) fn has_before(&self, start: u32) -> bool {
        self.before.get(&start).is_some_and(|before| !before.comments.is_empty())
    }

    /// Whether comments stand behind a token.
    pub(super) fn has_behind(&self, end: u32) -> bool {
        self.behind.contains_key(&end)
    }
}

impl Gap {
    fn new(is_file_start: bool) -> Self {
        // The first line of a file begins like any other.
        Gap { before: Before::default(), behind: Vec::new(), newlines: 0, has_newline: is_file_start }
    }

    fn add(&mut self, token: &SyntaxToken) {
        match token.kind() {
            SyntaxKind::Newline => {
                self.newlines += 1;
                self.has_newline = true;
            }
            SyntaxKind::LineComment | SyntaxKind::DocComment | SyntaxKind::FileDoc | SyntaxKind::BlockComment => {
                let is_line = token.kind() != SyntaxKind::BlockComment;
                let text = if is_line { token.text().trim_end() } else { token.text() };
                let comment = Comment {
                    text: text.replace("\r\n", "\n"),
                    is_line,
                    owns_line: self.newlines > 0 || (self.has_newline && self.before.comments.is_empty()),
                    follows_blank: self.newlines > 1,
                };
                let place = if self.has_newline { &mut self.before.comments } else { &mut self.behind };
                place.push(comment);
                self.newlines = 0;
            }
            _ => {}
        }
    }
}

fn written(comments: &[Comment]) -> Vec<Doc> {
    let mut parts = Vec::new();
    for comment in comments {
        if comment.owns_line {
            parts.push(Doc::hard(comment.follows_blank));
        }
        parts.push(Doc::comment(comment.text.as_str(), comment.is_line));
    }
    parts
}

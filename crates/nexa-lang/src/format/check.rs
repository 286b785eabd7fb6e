//! Whether a formatted text is the same program: the same nodes, tokens and comments in the same order.
//!
//! Left out are line ends, blanks, and the commas and semicolons that the formatter may add and drop; the nodes around
//! them show that they separate the same things.

use rowan::{NodeOrToken, WalkEvent};

use super::{FormatError, syntax_errors};
use crate::parser::parse;
use crate::source::{FileId, Source};
use crate::syntax::Parse;
use crate::{SyntaxKind, SyntaxNode};

/// # Errors
/// [`FormatError::WouldChange`] with the first line that differs.
pub(super) fn same_program(source: &Source, before: &Parse, text: &str) -> Result<(), FormatError> {
    let changed_at = |offset: u32| FormatError::WouldChange { line: source.line_column(offset).line };
    let after = Source::from_text(FileId::default(), source.name(), text).map_err(|_| changed_at(0))?;
    let after = parse(&after);
    let (old, new) = (before.syntax(), after.syntax());
    let mut events = pieces(&new);
    for (piece, offset) in pieces(&old) {
        if events.next().is_none_or(|(other, _)| other != piece) {
            return Err(changed_at(offset));
        }
    }
    match events.next() {
        None if syntax_errors(&after).is_empty() => Ok(()),
        _ => Err(changed_at(source.text().len() as u32)),
    }
}

/// A part of a program that formatting keeps.
#[derive(PartialEq, Eq)]
enum Piece {
    Open(SyntaxKind),
    Close,
    Token(SyntaxKind, String),
    /// Kept in order, but not at its place in the tree: a comment may leave the node of a comma that is dropped.
    Comment(String),
}

fn pieces(root: &SyntaxNode) -> impl Iterator<Item = (Piece, u32)> {
    let mut comments = Vec::new();
    let mut rest = Vec::new();
    for event in root.preorder_with_tokens() {
        match event {
            WalkEvent::Enter(NodeOrToken::Node(node)) => {
                rest.push((Piece::Open(node.kind()), node.text_range().start().into()));
            }
            WalkEvent::Leave(NodeOrToken::Node(node)) => rest.push((Piece::Close, node.text_range().end().into())),
            WalkEvent::Enter(NodeOrToken::Token(token)) => {
                let offset = token.text_range().start().into();
                match token.kind() {
                    SyntaxKind::Whitespace | SyntaxKind::Newline | SyntaxKind::Comma | SyntaxKind::Semicolon => {}
                    kind if kind.is_trivia() => comments.push((Piece::Comment(kept(token.text())), offset)),
                    kind => rest.push((Piece::Token(kind, kept(token.text())), offset)),
                }
            }
            WalkEvent::Leave(NodeOrToken::Token(_)) => {}
        }
    }
    rest.into_iter().chain(comments)
}

/// The text of a token but for the form of its line ends, and for blanks at its end.
fn kept(text: &str) -> String {
    text.replace("\r\n", "\n").trim_end().to_owned()
}

//! The typed view of the tree: what the checker and every tool above it read.
//!
//! A typed node is a rowan node whose kind is known; its accessors look children up by kind and give `Option` wherever
//! a broken program may lack them. Nothing is copied, and nothing is desugared: an accessor says what is written.
//!
//! - [`declarations`]: the file, `use`, types, tools, agents, flows, tests
//! - [`statements`]: blocks and what stands in them
//! - [`expressions`]: operators, calls, records and lists
//! - [`pipelines`]: stages, forks, merges, branches
//! - [`control`]: `if`, `match`, `try`, functions as values
//! - [`literals`]: the values of numbers and texts, with escapes decoded
//! - [`types`] and [`patterns`]
//!
//! Not here: names resolved, types known, defaults filled in. That is the checker's work.

pub mod control;
pub mod declarations;
pub mod expressions;
pub mod literals;
pub mod patterns;
pub mod pipelines;
pub mod statements;
pub mod types;

pub use control::*;
pub use declarations::*;
pub use expressions::*;
pub use literals::*;
pub use patterns::*;
pub use pipelines::*;
pub use statements::*;
pub use types::*;

use unicode_normalization::{UnicodeNormalization, is_nfc_quick};

use crate::{
    SyntaxKind,
    source::Span,
    syntax::{SyntaxNode, SyntaxToken},
};

/// A node of the tree whose kind is known.
pub trait AstNode: Sized {
    /// The typed form of a node, if it is of this kind.
    fn cast(node: SyntaxNode) -> Option<Self>;

    /// The node itself.
    fn syntax(&self) -> &SyntaxNode;

    /// The text of the node, without blanks and comments around it.
    fn span(&self) -> Span {
        self.syntax().text_range().into()
    }

    /// Whether the parser could not read some part of this node; a checker then stays silent about it.
    fn is_broken(&self) -> bool {
        self.syntax().descendants().any(|node| node.kind() == SyntaxKind::Error)
    }
}

/// A written name: the token, and its text as names are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(SyntaxToken);

impl Name {
    /// The name in Unicode normalization form C, the form in which names are compared.
    #[must_use]
    pub fn text(&self) -> String {
        let text = self.0.text();
        match is_nfc_quick(text.chars()) {
            unicode_normalization::IsNormalized::Yes => text.to_owned(),
            _ => text.nfc().collect(),
        }
    }

    /// Where it is written.
    #[must_use]
    pub fn span(&self) -> Span {
        self.0.text_range().into()
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &SyntaxToken {
        &self.0
    }
}

/// Defines typed nodes of one kind each.
macro_rules! nodes {
    ($( $(#[$note:meta])* $name:ident, )*) => { $(
        $(#[$note])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(crate::syntax::SyntaxNode);

        impl crate::ast::AstNode for $name {
            fn cast(node: crate::syntax::SyntaxNode) -> Option<Self> {
                (node.kind() == crate::SyntaxKind::$name).then_some($name(node))
            }

            fn syntax(&self) -> &crate::syntax::SyntaxNode {
                &self.0
            }
        }
    )* };
}

/// Defines a choice between typed nodes; the variant is named after the node.
macro_rules! choice {
    ($(#[$note:meta])* $choice:ident { $( $(#[$case_note:meta])* $name:ident, )* }) => {
        $(#[$note])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $choice {
            $( $(#[$case_note])* $name($name), )*
        }

        impl crate::ast::AstNode for $choice {
            fn cast(node: crate::syntax::SyntaxNode) -> Option<Self> {
                match node.kind() {
                    $( crate::SyntaxKind::$name => $name::cast(node).map($choice::$name), )*
                    _ => None,
                }
            }

            fn syntax(&self) -> &crate::syntax::SyntaxNode {
                match self { $( $choice::$name(node) => node.syntax(), )* }
            }
        }
    };
}

pub(crate) use {choice, nodes};

/// The first child of a typed kind.
fn child<N: AstNode>(parent: &SyntaxNode) -> Option<N> {
    parent.children().find_map(N::cast)
}

/// The child of a typed kind at this place among its like, from 0.
fn nth_child<N: AstNode>(parent: &SyntaxNode, place: usize) -> Option<N> {
    parent.children().filter_map(N::cast).nth(place)
}

/// All children of a typed kind, in the order of the text.
fn children<N: AstNode>(parent: &SyntaxNode) -> impl Iterator<Item = N> + use<N> {
    parent.children().filter_map(N::cast)
}

/// The first token of a kind directly in this node.
fn token(parent: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxToken> {
    parent.children_with_tokens().filter_map(rowan::NodeOrToken::into_token).find(|token| token.kind() == kind)
}

/// The first child that comes after a token of this kind.
fn child_after<N: AstNode>(parent: &SyntaxNode, kind: SyntaxKind) -> Option<N> {
    parent
        .children_with_tokens()
        .skip_while(|element| element.kind() != kind)
        .filter_map(rowan::NodeOrToken::into_node)
        .find_map(N::cast)
}

/// All names directly in this node, in the order of the text.
fn names(parent: &SyntaxNode) -> impl Iterator<Item = Name> + use<> {
    parent
        .children_with_tokens()
        .filter_map(rowan::NodeOrToken::into_token)
        .filter(|token| token.kind() == SyntaxKind::Ident)
        .map(Name)
}

/// The first name directly in this node.
fn name(parent: &SyntaxNode) -> Option<Name> {
    names(parent).next()
}

/// The `///` lines right before a node (or between its decorators), without the slashes and one blank each.
fn docs(node: &SyntaxNode) -> Option<String> {
    let mut lines = Vec::new();
    let mut before = node.prev_sibling_or_token();
    while let Some(element) = before {
        match element.kind() {
            SyntaxKind::DocComment => lines.extend(element.as_token().map(doc_line)),
            SyntaxKind::Whitespace | SyntaxKind::Newline | SyntaxKind::LineComment | SyntaxKind::BlockComment => {}
            _ => break,
        }
        before = element.prev_sibling_or_token();
    }
    lines.reverse();
    let inside = node.children_with_tokens().filter_map(rowan::NodeOrToken::into_token);
    lines.extend(
        inside
            .take_while(|token| token.kind().is_trivia())
            .filter(|token| token.kind() == SyntaxKind::DocComment)
            .map(|token| doc_line(&token)),
    );
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn doc_line(token: &SyntaxToken) -> String {
    let text = token.text().get(3..).unwrap_or_default();
    text.strip_prefix(' ').unwrap_or(text).trim_end().to_owned()
}

//! The lossless tree: rowan's nodes and tokens with this language's kinds.
//!
//! Trivia always lies *between* nodes, never at the edge of one, so the range of a node is exactly the text a
//! diagnostic should mark.

use crate::{SyntaxKind, diagnostic::Diagnostic, source::FileId};

/// Ties rowan's untyped tree to [`SyntaxKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NexaLanguage {}

impl rowan::Language for NexaLanguage {
    type Kind = SyntaxKind;

    fn kind_from_raw(raw: rowan::SyntaxKind) -> SyntaxKind {
        // The tree is built by this crate only, from kinds of this list; a foreign number reads as an error node.
        SyntaxKind::ALL.get(usize::from(raw.0)).copied().unwrap_or(SyntaxKind::Error)
    }

    fn kind_to_raw(kind: SyntaxKind) -> rowan::SyntaxKind {
        rowan::SyntaxKind(kind as u16)
    }
}

/// A node of the tree.
pub type SyntaxNode = rowan::SyntaxNode<NexaLanguage>;
/// A token of the tree.
pub type SyntaxToken = rowan::SyntaxToken<NexaLanguage>;
/// A node or a token.
pub type SyntaxElement = rowan::SyntaxElement<NexaLanguage>;

/// What parsing gives: always a tree of the whole text, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Parse {
    pub(crate) green: rowan::GreenNode,
    pub(crate) file: FileId,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) steps: u64,
}

impl Parse {
    /// The root of the tree, of kind [`SyntaxKind::SourceFile`].
    #[must_use]
    pub fn syntax(&self) -> SyntaxNode {
        SyntaxNode::new_root(self.green.clone())
    }

    /// The root as a typed node.
    #[must_use]
    pub fn tree(&self) -> crate::ast::SourceFile {
        crate::ast::SourceFile::of_root(self.syntax())
    }

    /// The file that was parsed.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file
    }

    /// Lexical and syntax errors, in the order of the text.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The text of the tree, which is the text that was parsed, byte for byte.
    #[must_use]
    pub fn print(&self) -> String {
        self.syntax().text().to_string()
    }

    /// How many times the parser looked at a token: a measure of its work that no clock can blur.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

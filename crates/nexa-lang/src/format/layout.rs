//! From the tree to a document: which function lays out which node, and where one blank stands between two tokens.
//!
//! Every token goes through [`Layout::token`] or [`Layout::dropped`] exactly once, in the order of the text; both bring the
//! token's comments along, so that none is lost.

use rowan::NodeOrToken;

use super::comments::Comments;
use super::doc::Doc;
use crate::syntax::SyntaxElement;
use crate::{SyntaxKind, SyntaxNode, SyntaxToken};

/// The document of a whole file.
pub(super) fn document(root: &SyntaxNode) -> Doc {
    let layout = Layout { comments: Comments::of(root), line_ends: line_ends(root) };
    Doc::concat(vec![layout.statements(elements(root)), layout.comments.at_end()])
}

pub(super) struct Layout {
    pub(super) comments: Comments,
    /// Where the lines of the text end, in order.
    line_ends: Vec<u32>,
}

fn line_ends(root: &SyntaxNode) -> Vec<u32> {
    let mut ends = Vec::new();
    let mut start = 0;
    root.text().for_each_chunk(|chunk| {
        ends.extend((start..).zip(chunk.bytes()).filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at));
        start += chunk.len() as u32;
    });
    ends
}

/// The children of a node that are no blanks and no comments.
pub(super) fn elements(node: &SyntaxNode) -> impl Iterator<Item = SyntaxElement> + use<> {
    node.children_with_tokens().filter(|element| !element.kind().is_trivia())
}

/// Where an element begins.
pub(super) fn start(element: &SyntaxElement) -> u32 {
    element.text_range().start().into()
}

/// Where an element ends.
pub(super) fn end(element: &SyntaxElement) -> u32 {
    element.text_range().end().into()
}

impl Layout {
    /// Whether an element has several lines in the text.
    pub(super) fn has_lines(&self, element: &SyntaxElement) -> bool {
        let first = self.line_ends.partition_point(|at| *at < start(element));
        self.line_ends.get(first).is_some_and(|at| *at < end(element))
    }

    pub(super) fn element(&self, element: &SyntaxElement) -> Doc {
        match element {
            NodeOrToken::Node(node) => self.node(node),
            NodeOrToken::Token(token) => self.token(token),
        }
    }

    /// A node between the comments before its first token and behind its last: they stay outside of its groups.
    pub(super) fn node(&self, node: &SyntaxNode) -> Doc {
        let before = self.comments.before(node.text_range().start().into());
        let behind = self.comments.behind(node.text_range().end().into());
        Doc::concat(vec![before, self.bare(node), behind])
    }

    fn bare(&self, node: &SyntaxNode) -> Doc {
        use SyntaxKind as K;
        match node.kind() {
            // As they are written.
            K::StringExpr | K::Error => Doc::text(node.text().to_string().replace("\r\n", "\n")),
            K::Block => self.block(node),
            K::PropertyList => self.properties(node),
            K::VariantList | K::ArmList => self.entries(node),
            K::FieldList if node.parent().is_some_and(|parent| parent.kind() != K::Variant) => self.entries(node),
            K::FieldList
            | K::UseList
            | K::ParamList
            | K::ArgList
            | K::TypeArgs
            | K::ListExpr
            | K::ForkList
            | K::RecordExpr
            | K::DictExpr
            | K::TupleExpr
            | K::TupleType
            | K::TuplePat
            | K::ListPat
            | K::RecordPat
            | K::ParenExpr
            | K::VariantPat
            | K::IntentPat => self.list(node),
            K::UseDecl
            | K::TypeDecl
            | K::ProtocolDecl
            | K::StructDecl
            | K::EnumDecl
            | K::FnDecl
            | K::ToolDecl
            | K::AgentDecl
            | K::FlowDecl
            | K::TestDecl => self.declaration(node),
            K::UsesClause => self.uses(node),
            K::BinaryExpr | K::PipeExpr | K::BranchExpr | K::RescueExpr => self.chain(node),
            K::FieldExpr | K::CallExpr | K::IndexExpr | K::UnwrapExpr => self.postfix(node),
            K::IfExpr => self.if_expr(node),
            K::WhileStmt | K::Guard | K::UntilClause | K::CatchClause => self.conditioned(elements(node), node.kind()),
            _ => self.inline(elements(node), node.kind()),
        }
    }

    /// A token with its comments.
    pub(super) fn token(&self, token: &SyntaxToken) -> Doc {
        let (start, end) = (token.text_range().start().into(), token.text_range().end().into());
        let text = Doc::text(token.text().replace("\r\n", "\n"));
        Doc::concat(vec![self.comments.before(start), text, self.comments.behind(end)])
    }

    /// The comments of a separator that is left out. One with a doc comment before it stays: without it, the comment would
    /// describe what comes after.
    pub(super) fn dropped(&self, token: &SyntaxToken) -> Doc {
        let trivia = std::iter::successors(token.prev_token(), SyntaxToken::prev_token);
        if trivia.take_while(|before| before.kind().is_trivia()).any(|before| before.kind() == SyntaxKind::DocComment) {
            return self.token(token);
        }
        let (start, end) = (token.text_range().start().into(), token.text_range().end().into());
        Doc::concat(vec![self.comments.before(start), self.comments.behind(end)])
    }

    /// Elements on one line, with blanks between them where they belong.
    pub(super) fn inline(&self, elements: impl Iterator<Item = SyntaxElement>, parent: SyntaxKind) -> Doc {
        let mut parts = Vec::new();
        let mut last: Option<SyntaxElement> = None;
        for element in elements {
            if let Some(last) = &last
                && is_spaced(parent, last.kind(), element.kind())
            {
                parts.push(Doc::space());
            }
            parts.push(self.element(&element));
            last = Some(element);
        }
        Doc::concat(parts)
    }
}

/// Whether a blank stands between two neighbours in a node of this kind.
pub(super) fn is_spaced(parent: SyntaxKind, left: SyntaxKind, right: SyntaxKind) -> bool {
    use SyntaxKind as K;
    let is_tight = match (left, right) {
        (_, K::Comma | K::Semicolon | K::Dot | K::ParenClose | K::BracketClose) => true,
        (_, K::Colon) => parent != K::BranchExpr,
        // `T? ?` is written apart: without the blank it would be one token.
        (_, K::Question | K::QuestionQuestion) if parent == K::OptionType => left != K::OptionType,
        (K::ParenOpen | K::BracketOpen | K::Dot, _) => true,
        (K::At, _) => parent == K::Decorator,
        (K::Minus | K::Bang, _) => parent == K::PrefixExpr,
        (_, K::ArgList) => !matches!(parent, K::LoopStmt | K::SemanticIfStmt | K::TryBlock),
        (_, K::ParamList | K::TypeArgs) => true,
        (_, K::TupleType) => parent == K::FnType,
        (_, K::FieldList) => parent == K::Variant,
        _ => false,
    };
    !is_tight
}

//! Declarations: decorators on lines of their own, then the signature, then clauses, then the body.

use super::doc::Doc;
use super::layout::{Layout, elements};
use crate::syntax::SyntaxElement;
use crate::{SyntaxKind, SyntaxNode};

impl Layout {
    pub(super) fn declaration(&self, node: &SyntaxNode) -> Doc {
        use SyntaxKind as K;
        let kind = node.kind();
        let mut parts = Vec::new();
        let mut signature: Vec<SyntaxElement> = Vec::new();
        let mut clauses: Vec<SyntaxElement> = Vec::new();
        let mut body: Vec<SyntaxElement> = Vec::new();
        for element in elements(node) {
            match element.kind() {
                K::Decorator => parts.extend([self.element(&element), Doc::hard(false)]),
                K::UsesClause
                | K::ImplementsClause
                | K::RequiresClause
                | K::EnsuresClause
                | K::BudgetClause
                | K::ScheduleClause => clauses.push(element),
                _ if !body.is_empty() => body.push(element),
                K::Block | K::PropertyList => body.push(element),
                K::FatArrow if kind == K::FnDecl => body.push(element),
                _ => signature.push(element),
            }
        }
        parts.push(self.inline(signature.into_iter(), kind));
        let body = match body.split_first() {
            Some((arrow, value)) if arrow.kind() == K::FatArrow => {
                let value = Doc::concat(vec![Doc::line(), self.inline(value.iter().cloned(), kind)]).indent();
                Doc::concat(vec![self.element(arrow), value]).group()
            }
            _ => self.inline(body.iter().cloned(), kind),
        };
        if clauses.is_empty() {
            parts.extend([Doc::space(), body]);
            return Doc::concat(parts);
        }
        let is_long = clauses
            .iter()
            .any(|clause| matches!(clause.kind(), K::ImplementsClause | K::RequiresClause | K::EnsuresClause));
        let lines = clauses.iter().flat_map(|clause| [Doc::line(), self.element(clause)]).collect();
        // The brace stands on the line of the clauses, or on its own below them.
        let tail = Doc::concat(vec![Doc::concat(lines).indent(), Doc::line()]);
        parts.push(if is_long { tail.broken().group() } else { tail.group() });
        parts.push(body);
        Doc::concat(parts)
    }

    /// `uses a, b`: further lines are indented.
    pub(super) fn uses(&self, node: &SyntaxNode) -> Doc {
        let mut parts = Vec::new();
        let mut rest = Vec::new();
        let mut last = None;
        for element in elements(node) {
            match (last, element.kind()) {
                (None, _) => {
                    parts.push(self.element(&element));
                    last = Some(element.kind());
                    continue;
                }
                (_, SyntaxKind::Comma) => {}
                (Some(SyntaxKind::Comma), _) => rest.push(Doc::line()),
                _ => rest.push(Doc::space()),
            }
            last = Some(element.kind());
            rest.push(self.element(&element));
        }
        parts.push(Doc::concat(rest).indent());
        Doc::concat(parts).group()
    }
}

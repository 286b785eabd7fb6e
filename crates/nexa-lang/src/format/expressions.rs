//! Operators and what follows an operand: chains break before each operator of one level, or stay on one line.

use rowan::NodeOrToken;

use super::doc::Doc;
use super::layout::{Layout, elements};
use crate::syntax::SyntaxElement;
use crate::{SyntaxKind, SyntaxNode};

/// A chain with more stages than this goes one stage a line.
const STAGES_INLINE_MAX: usize = 3;
/// So many method calls in a row go one a line if they do not fit.
const METHODS_BROKEN_MIN: usize = 3;

/// Operators that share a level share a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Pipe,
    Rescue,
    Or,
    And,
    Sum,
    Product,
    Coalesce,
    Compare,
}

fn level(node: &SyntaxNode) -> Option<Level> {
    use SyntaxKind as K;
    match node.kind() {
        K::PipeExpr | K::BranchExpr => return Some(Level::Pipe),
        K::RescueExpr => return Some(Level::Rescue),
        K::BinaryExpr => {}
        _ => return None,
    }
    let operator = elements(node).find_map(|element| element.into_token())?;
    Some(match operator.kind() {
        K::OrKw => Level::Or,
        K::AndKw => Level::And,
        K::Plus | K::Minus => Level::Sum,
        K::Star | K::Slash | K::Percent => Level::Product,
        K::QuestionQuestion => Level::Coalesce,
        _ => Level::Compare,
    })
}

impl Layout {
    /// `a op b op c`.
    pub(super) fn chain(&self, node: &SyntaxNode) -> Doc {
        let Some(level) = level(node) else { return self.inline(elements(node), node.kind()) };
        let (first, links) = links(node, level);
        let mut parts = vec![self.element(&first)];
        let count = links.len();
        let mut rest = Vec::new();
        for (parent, link) in links {
            let Some((operator, operand)) = link.split_first() else { continue };
            let operand = self.inline(operand.iter().cloned(), parent);
            if operator.kind() == SyntaxKind::Minus {
                // A line that begins with a minus would be a statement of its own.
                rest.extend([Doc::space(), self.element(operator), Doc::line(), operand]);
            } else {
                rest.extend([Doc::line(), self.element(operator), Doc::space(), operand]);
            }
        }
        parts.push(Doc::concat(rest).indent());
        let chain = Doc::concat(parts);
        let is_long = level == Level::Pipe && count > STAGES_INLINE_MAX;
        if is_long { chain.broken().group() } else { chain.group() }
    }

    /// `a.b(c)[d]?`.
    pub(super) fn postfix(&self, node: &SyntaxNode) -> Doc {
        let mut spine = vec![node.clone()];
        while let Some(inner) = spine.last().and_then(SyntaxNode::first_child) {
            let is_spine =
                matches!(
                    inner.kind(),
                    SyntaxKind::FieldExpr | SyntaxKind::CallExpr | SyntaxKind::IndexExpr | SyntaxKind::UnwrapExpr
                ) && elements(&spine[spine.len() - 1]).next().is_some_and(|first| first.as_node() == Some(&inner));
            if !is_spine {
                break;
            }
            spine.push(inner);
        }
        spine.reverse();
        let calls = |place: usize| spine.get(place + 1).is_some_and(|next| next.kind() == SyntaxKind::CallExpr);
        let is_method = |place: usize| spine[place].kind() == SyntaxKind::FieldExpr && calls(place);
        let methods = (0..spine.len()).filter(|place| is_method(*place)).count();
        let mut base = Vec::new();
        let mut rest = Vec::new();
        for (place, link) in spine.iter().enumerate() {
            let mut all: Vec<SyntaxElement> = elements(link).collect();
            if all.is_empty() {
                continue;
            }
            let operand = all.remove(0);
            if place == 0 {
                base.push(self.element(&operand));
                if needs_gap(&operand, link) {
                    base.push(Doc::space());
                }
            }
            if is_method(place) && methods >= METHODS_BROKEN_MIN {
                rest.push(Doc::soft_line());
            }
            if link.kind() == SyntaxKind::UnwrapExpr && operand.kind() == SyntaxKind::UnwrapExpr {
                // `a? ?` is written apart: without the blank it would be one token.
                rest.push(Doc::space());
            }
            rest.push(self.inline(all.into_iter(), link.kind()));
        }
        base.push(Doc::concat(rest).indent_if(methods >= METHODS_BROKEN_MIN));
        let chain = Doc::concat(base);
        if methods >= METHODS_BROKEN_MIN { chain.group() } else { chain }
    }
}

/// The first operand of a chain, and each operator with what belongs to it.
fn links(node: &SyntaxNode, level: Level) -> (SyntaxElement, Vec<(SyntaxKind, Vec<SyntaxElement>)>) {
    let mut links = Vec::new();
    let mut current = node.clone();
    if level == Level::Coalesce {
        // Its right operand is the chain.
        let mut first = None;
        let mut operator: Option<SyntaxElement> = None;
        loop {
            let mut all: Vec<SyntaxElement> = elements(&current).collect();
            let right = if all.len() == 3 { all.pop() } else { None };
            let own = all.pop();
            let left = all.pop();
            match (operator.take(), left) {
                (None, left) => first = left,
                (Some(operator), Some(left)) => links.push((SyntaxKind::BinaryExpr, vec![operator, left])),
                (Some(operator), None) => links.push((SyntaxKind::BinaryExpr, vec![operator])),
            }
            operator = own;
            match right {
                Some(NodeOrToken::Node(right)) if self::level(&right) == Some(Level::Coalesce) => current = right,
                right => {
                    links.push((SyntaxKind::BinaryExpr, operator.into_iter().chain(right).collect()));
                    break;
                }
            }
        }
        return (first.unwrap_or_else(|| NodeOrToken::Node(node.clone())), links);
    }
    loop {
        let mut all: Vec<SyntaxElement> = elements(&current).collect();
        let first = all.remove(0);
        links.push((current.kind(), all));
        match first {
            NodeOrToken::Node(left) if level != Level::Compare && self::level(&left) == Some(level) => current = left,
            first => {
                links.reverse();
                return (first, links);
            }
        }
    }
}

/// Whether a number and the dot after it must not touch.
fn needs_gap(operand: &SyntaxElement, link: &SyntaxNode) -> bool {
    let is_number = operand.as_node().and_then(SyntaxNode::first_token).is_some_and(|token| {
        matches!(token.kind(), SyntaxKind::Int | SyntaxKind::Float | SyntaxKind::Duration | SyntaxKind::Size)
    }) && operand.kind() == SyntaxKind::LiteralExpr;
    let dot = elements(link).nth(1);
    let touches = dot.as_ref().is_some_and(|dot| dot.text_range().start() == operand.text_range().end());
    is_number && dot.is_some_and(|dot| dot.kind() == SyntaxKind::Dot) && !touches
}

//! Blocks: one statement a line.

use rowan::NodeOrToken;

use super::doc::Doc;
use super::layout::{Layout, elements, is_spaced, start};
use crate::syntax::SyntaxElement;
use crate::{SyntaxKind, SyntaxNode, SyntaxToken};

/// Words that could go on with the statement before them; a `;` before one is kept.
const GOES_ON: [&str; 9] =
    ["otherwise", "fallback", "merge", "against", "until", "to", "satisfies", "as", "fast_match"];

/// Words that begin something unless a `;` follows: a `;` after a variable of this name that ends its statement is kept.
const BEGINS: [&str; 8] = ["semantic_if", "loop", "fork", "spawn", "pass", "verify", "assert", "script"];

impl Layout {
    /// Statements or declarations, one a line, with the empty lines of the author's.
    pub(super) fn statements(&self, all: impl Iterator<Item = SyntaxElement>) -> Doc {
        let mut parts: Vec<Doc> = Vec::new();
        let mut has_any = false;
        let mut is_open = false;
        // The `;` after the last statement.
        let mut pending: Option<SyntaxToken> = None;
        for element in all {
            match &element {
                NodeOrToken::Token(token) if token.kind() == SyntaxKind::Semicolon => {
                    if let Some(earlier) = pending.replace(token.clone()) {
                        parts.push(self.dropped(&earlier));
                    }
                    continue;
                }
                _ => {}
            }
            if let Some(semicolon) = pending.take() {
                let goes_on = || first_token(&element).is_some_and(|word| GOES_ON.contains(&word.text()));
                let is_needed = has_any && (is_open || goes_on());
                parts.push(if is_needed { self.token(&semicolon) } else { self.dropped(&semicolon) });
            }
            parts.push(Doc::hard(self.comments.follows_blank(start(&element))));
            parts.push(self.element(&element));
            has_any = true;
            is_open = element.as_node().is_some_and(ends_in_head_word);
        }
        parts.extend(pending.map(|semicolon| self.dropped(&semicolon)));
        Doc::concat(parts)
    }

    /// `{ … }`: one statement a line, or a single short one on the line of the braces where a value is asked for.
    pub(super) fn block(&self, node: &SyntaxNode) -> Doc {
        let tokens: Vec<SyntaxElement> = elements(node).collect();
        let [NodeOrToken::Token(open), inner @ .., NodeOrToken::Token(close)] = tokens.as_slice() else {
            return self.inline(tokens.into_iter(), node.kind());
        };
        let dangling = self.comments.before_closer(close.text_range().start().into());
        if inner.is_empty() && dangling.is_none() {
            return Doc::concat(vec![self.token(open), self.closer(close)]);
        }
        if let [only] = inner
            && dangling.is_none()
            && is_value(node)
            && is_plain(only)
            && !self.comments.is_on_new_line(start(only))
            && !self.has_lines(&node.clone().into())
        {
            let inside = Doc::concat(vec![Doc::line(), self.element(only)]).indent();
            return Doc::concat(vec![self.token(open), inside, Doc::line(), self.closer(close)]).group();
        }
        let mut inside = vec![Doc::hard(false), self.statements(inner.iter().cloned())];
        inside.extend(dangling);
        Doc::concat(vec![self.token(open), Doc::concat(inside).indent(), Doc::hard(false), self.closer(close)])
    }

    /// `if (c) a else b`: as written, broken behind the condition and before `else` if it is too long.
    pub(super) fn if_expr(&self, node: &SyntaxNode) -> Doc {
        let all: Vec<SyntaxElement> = elements(node).collect();
        let Some(head) = all.iter().position(|element| element.kind() == SyntaxKind::ParenClose) else {
            return self.inline(all.into_iter(), node.kind());
        };
        let mut parts = vec![self.conditioned(all[..=head].iter().cloned(), node.kind())];
        let mut follows_block = false;
        for element in &all[head + 1..] {
            if element.kind() == SyntaxKind::ElseKw {
                parts.push(if follows_block { Doc::space() } else { Doc::line() });
                parts.push(self.element(element));
                continue;
            }
            follows_block = element.kind() == SyntaxKind::Block;
            let stays = follows_block
                || matches!(element.kind(), SyntaxKind::IfExpr | SyntaxKind::RecordExpr | SyntaxKind::DictExpr);
            if stays {
                parts.extend([Doc::space(), self.element(element)]);
            } else {
                parts.push(Doc::concat(vec![Doc::line(), self.element(element)]).indent());
            }
        }
        Doc::concat(parts).group()
    }

    /// `while (c) …`, `until (c)`: elements with a condition in parentheses, which breaks as a list of one would.
    pub(super) fn conditioned(&self, all: impl Iterator<Item = SyntaxElement>, parent: SyntaxKind) -> Doc {
        let all: Vec<SyntaxElement> = all.collect();
        let open = all.iter().position(|element| element.kind() == SyntaxKind::ParenOpen);
        let close = all.iter().rposition(|element| element.kind() == SyntaxKind::ParenClose);
        let (Some(open), Some(close)) = (open, close) else {
            return self.inline(all.into_iter(), parent);
        };
        let Some(closing) = all[close].as_token() else { return self.inline(all.into_iter(), parent) };
        let mut inside = vec![Doc::soft_line(), self.inline(all[open + 1..close].iter().cloned(), parent)];
        inside.extend(self.comments.before_closer(closing.text_range().start().into()));
        let condition =
            vec![self.element(&all[open]), Doc::concat(inside).indent(), Doc::soft_line(), self.closer(closing)];
        let mut parts = vec![self.inline(all[..open].iter().cloned(), parent)];
        if open > 0 && is_spaced(parent, all[open - 1].kind(), SyntaxKind::ParenOpen) {
            parts.push(Doc::space());
        }
        parts.push(Doc::concat(condition).group());
        if close + 1 < all.len() {
            parts.push(Doc::space());
            parts.push(self.inline(all[close + 1..].iter().cloned(), parent));
        }
        Doc::concat(parts)
    }
}

fn first_token(element: &SyntaxElement) -> Option<SyntaxToken> {
    match element {
        NodeOrToken::Node(node) => node.first_token(),
        NodeOrToken::Token(token) => Some(token.clone()),
    }
}

/// Whether a statement ends in a word with which what follows would go on.
fn ends_in_head_word(node: &SyntaxNode) -> bool {
    node.last_token().is_some_and(|word| word.kind() == SyntaxKind::Ident && BEGINS.contains(&word.text()))
}

/// Whether a block is written for its value rather than as a statement.
fn is_value(block: &SyntaxNode) -> bool {
    use SyntaxKind as K;
    let Some(mut outer) = block.parent() else { return false };
    match outer.kind() {
        K::LambdaExpr | K::Arm => return true,
        K::IfExpr => {}
        _ => return false,
    }
    while outer.kind() == K::IfExpr {
        match outer.parent() {
            Some(next) => outer = next,
            None => return false,
        }
    }
    outer.kind() != K::ExprStmt
}

/// Whether a statement may stand between its braces on one line.
fn is_plain(element: &SyntaxElement) -> bool {
    use SyntaxKind as K;
    match element.kind() {
        K::LetStmt | K::AssignStmt | K::ReturnStmt | K::BreakStmt | K::ContinueStmt | K::PassStmt => true,
        K::ExprStmt => element
            .as_node()
            .and_then(SyntaxNode::first_child)
            .is_some_and(|inner| !matches!(inner.kind(), K::IfExpr | K::MatchExpr | K::TryBlock)),
        _ => false,
    }
}

//! What stands in brackets: lists with commas, and entries that a line end separates as well.

use rowan::NodeOrToken;

use super::doc::Doc;
use super::layout::{Layout, elements, end, start};
use crate::syntax::SyntaxElement;
use crate::{SyntaxKind, SyntaxNode, SyntaxToken};

/// A bracketed node, taken apart.
struct Parts {
    prefix: Vec<SyntaxElement>,
    open: SyntaxToken,
    items: Vec<Item>,
    close: SyntaxToken,
    /// Separators before the first item.
    stray: Vec<SyntaxToken>,
}

/// What stands between two brackets or separators.
struct Item {
    element: SyntaxElement,
    separators: Vec<SyntaxToken>,
}

/// Takes a node apart; `None` if it is not `prefix open item, item close`.
fn parts(node: &SyntaxNode) -> Option<Parts> {
    use SyntaxKind as K;
    let mut prefix = Vec::new();
    let mut open = None;
    let mut close = None;
    let mut items: Vec<Item> = Vec::new();
    let mut stray = Vec::new();
    for element in elements(node) {
        match (&element, element.kind()) {
            (NodeOrToken::Token(token), K::ParenOpen | K::BracketOpen | K::BraceOpen) if open.is_none() => {
                open = Some(token.clone());
            }
            _ if open.is_none() => prefix.push(element),
            (NodeOrToken::Token(token), K::Comma | K::Semicolon) => match items.last_mut() {
                Some(item) => item.separators.push(token.clone()),
                None => stray.push(token.clone()),
            },
            (NodeOrToken::Token(token), K::ParenClose | K::BracketClose | K::BraceClose) if close.is_none() => {
                close = Some(token.clone());
            }
            _ => items.push(Item { element, separators: Vec::new() }),
        }
    }
    Some(Parts { prefix, open: open?, items, close: close?, stray })
}

/// The words that go on with the line before them when they begin one.
fn goes_on(element: &SyntaxElement) -> bool {
    let token = match element {
        NodeOrToken::Node(node) => node.first_token(),
        NodeOrToken::Token(token) => Some(token.clone()),
    };
    token.is_some_and(|token| matches!(token.text(), "otherwise" | "fallback") && !names_an_entry(&token))
}

/// Whether a word at the start of an entry is the entry's name.
fn names_an_entry(token: &SyntaxToken) -> bool {
    let mut next = token.next_token();
    while let Some(token) = next {
        if !token.kind().is_trivia() {
            return token.kind() == SyntaxKind::Colon;
        }
        next = token.next_token();
    }
    false
}

impl Layout {
    /// `prefix (a, b)`: on one line, or one item a line with a comma after each.
    pub(super) fn list(&self, node: &SyntaxNode) -> Doc {
        use SyntaxKind as K;
        let kind = node.kind();
        let Some(Parts { prefix, open, items, close, stray }) = parts(node) else {
            return self.inline(elements(node), kind);
        };
        let mut outer = vec![self.inline(prefix.iter().cloned(), kind)];
        if !prefix.is_empty() && kind == K::RecordExpr {
            outer.push(Doc::space());
        }
        outer.push(self.token(&open));
        let is_braced = open.kind() == K::BraceOpen;
        let edge = || if is_braced { Doc::line() } else { Doc::soft_line() };
        let dangling = self.comments.before_closer(u32::from(close.text_range().start()));
        let is_lonely = kind == K::ParenExpr || (items.len() == 1 && is_tuple(kind));
        let docs: Vec<Doc> = items.iter().map(|item| self.element(&item.element)).collect();
        if dangling.is_none() && stray.is_empty() && self.hugs(&items, &docs, kind) {
            let count = items.len();
            for (place, (item, doc)) in items.iter().zip(docs).enumerate() {
                let is_last = place + 1 == count;
                outer.push(doc);
                outer.extend(
                    item.separators.iter().map(|token| if is_last { self.dropped(token) } else { self.token(token) }),
                );
                if !is_last {
                    outer.push(Doc::space());
                }
            }
            outer.push(self.closer(&close));
            return Doc::concat(outer);
        }
        if items.is_empty() && dangling.is_none() {
            outer.push(self.closer(&close));
            return Doc::concat(outer);
        }
        let mut inner = vec![edge()];
        inner.extend(stray.iter().map(|token| self.dropped(token)));
        let count = items.len();
        for (place, (item, doc)) in items.iter().zip(docs).enumerate() {
            if place > 0 {
                inner.push(Doc::line());
            }
            inner.push(doc);
            let is_last = place + 1 == count;
            for (nth, separator) in item.separators.iter().enumerate() {
                let keeps = nth == 0 && (!is_last || is_lonely);
                inner.push(if keeps { self.token(separator) } else { self.dropped(separator) });
            }
            if is_last && !is_lonely {
                inner.push(Doc::trailing_comma());
            }
        }
        inner.extend(dangling);
        let inside = vec![Doc::concat(inner).indent(), edge(), self.closer(&close)];
        outer.extend(inside);
        Doc::concat(outer).group()
    }

    /// Whether the last item of a list is laid out as if it were the list: `f({ … })`, `xs.map(fn(x) { … })`.
    fn hugs(&self, items: &[Item], docs: &[Doc], kind: SyntaxKind) -> bool {
        use SyntaxKind as K;
        let (Some((last, others)), Some((_, other_docs))) = (items.split_last(), docs.split_last()) else {
            return false;
        };
        let has_comments = |item: &Item| {
            let separators = item.separators.iter().any(|token| {
                self.comments.has_before(token.text_range().start().into())
                    || self.comments.has_behind(token.text_range().end().into())
            });
            separators || self.comments.has_before(start(&item.element)) || self.comments.has_behind(end(&item.element))
        };
        if !matches!(kind, K::ArgList | K::ParenExpr) || items.iter().any(has_comments) {
            return false;
        }
        let Some(value) = hugged(&last.element) else { return false };
        let has_block = value.kind() == K::LambdaExpr && value.last_child().is_some_and(|body| body.kind() == K::Block);
        if others.is_empty() {
            let is_text_block = value.kind() == K::StringExpr && self.has_lines(&value.clone().into());
            let is_bracketed = matches!(value.kind(), K::RecordExpr | K::DictExpr | K::ListExpr | K::MatchExpr);
            return has_block || is_text_block || is_bracketed;
        }
        has_block && docs.last().is_some_and(Doc::breaks) && !other_docs.iter().any(Doc::breaks)
    }

    /// A closing bracket whose comments were printed before it.
    pub(super) fn closer(&self, token: &SyntaxToken) -> Doc {
        let text = Doc::text(token.text());
        Doc::concat(vec![text, self.comments.behind(token.text_range().end().into())])
    }

    /// `{ a, b }` where a line end separates as well: one entry a line, or all on one line if they began on the line of the
    /// bracket and fit there.
    pub(super) fn entries(&self, node: &SyntaxNode) -> Doc {
        let Some(Parts { open, items, close, stray, .. }) = parts(node) else {
            return self.inline(elements(node), node.kind());
        };
        let rows = items.into_iter().map(|item| vec![item]).collect();
        self.rows(open, stray, rows, close)
    }

    /// The settings of an agent or a tool: as entries, but what shares a line in the text does so on.
    pub(super) fn properties(&self, node: &SyntaxNode) -> Doc {
        let Some(Parts { open, items, close, stray, .. }) = parts(node) else {
            return self.inline(elements(node), node.kind());
        };
        let mut rows: Vec<Vec<Item>> = Vec::new();
        for item in items {
            match rows.last_mut() {
                Some(row) if !self.comments.is_on_new_line(start(&item.element)) => row.push(item),
                _ => rows.push(vec![item]),
            }
        }
        self.rows(open, stray, rows, close)
    }

    fn rows(&self, open: SyntaxToken, stray: Vec<SyntaxToken>, rows: Vec<Vec<Item>>, close: SyntaxToken) -> Doc {
        let mut outer = vec![self.token(&open)];
        let dangling = self.comments.before_closer(close.text_range().start().into());
        if rows.is_empty() && dangling.is_none() && stray.is_empty() {
            outer.push(self.closer(&close));
            return Doc::concat(outer);
        }
        let first = rows.first().and_then(|row| row.first()).map(|item| start(&item.element));
        let begins_inline = first.is_some_and(|start| !self.comments.is_on_new_line(start));
        let is_inline = begins_inline && rows.iter().flatten().all(|item| !self.has_lines(&item.element));
        let mut inner: Vec<Doc> = stray.iter().map(|token| self.dropped(token)).collect();
        for (place, row) in rows.iter().enumerate() {
            let next = rows.get(place + 1).and_then(|row| row.first());
            inner.push(self.row(row, next));
            if let Some(next) = next {
                if is_inline && !goes_on(&next.element) {
                    inner.push(Doc::flat_comma());
                }
                let is_blank = self.comments.follows_blank(start(&next.element));
                inner.push(if is_inline { Doc::line() } else { Doc::hard(is_blank) });
            }
        }
        inner.extend(dangling);
        let edge = || if is_inline { Doc::line() } else { Doc::hard(false) };
        outer.push(Doc::concat(vec![edge(), Doc::concat(inner)]).indent());
        outer.push(edge());
        outer.push(self.closer(&close));
        Doc::concat(outer).group()
    }

    /// Entries that share a line, with what comes after them.
    fn row(&self, row: &[Item], after: Option<&Item>) -> Doc {
        let (Some(first), Some(last)) = (row.first(), row.last()) else { return Doc::nil() };
        // The comments around the row do not break it.
        let before = self.comments.before(start(&first.element));
        let behind = self.comments.behind(end(&last.element));
        let mut parts = Vec::new();
        let mut trailing = vec![behind];
        let is_split = row.iter().any(|item| self.has_lines(&item.element));
        for (place, item) in row.iter().enumerate() {
            let next = row.get(place + 1);
            parts.push(self.element(&item.element));
            let separators = Doc::concat(item.separators.iter().map(|token| self.dropped(token)).collect());
            match next {
                Some(_) => parts.push(separators),
                None => trailing.push(separators),
            }
            if next.or(after).is_some_and(|next| goes_on(&next.element)) {
                parts.push(Doc::text(","));
            } else if next.is_some() {
                parts.push(Doc::flat_comma());
            }
            if next.is_some() {
                parts.push(if is_split { Doc::hard(false) } else { Doc::line() });
            }
        }
        let row = if row.len() > 1 { Doc::concat(parts).group() } else { Doc::concat(parts) };
        Doc::concat(vec![before, row, Doc::concat(trailing)])
    }
}

fn is_tuple(kind: SyntaxKind) -> bool {
    matches!(kind, SyntaxKind::TupleExpr | SyntaxKind::TupleType | SyntaxKind::TuplePat)
}

/// The value of an argument or a branch without a name, or the element itself.
fn hugged(element: &SyntaxElement) -> Option<SyntaxNode> {
    let node = element.as_node()?;
    if !matches!(node.kind(), SyntaxKind::Arg | SyntaxKind::ForkBranch) {
        return Some(node.clone());
    }
    let is_named = elements(node).any(|element| element.kind() == SyntaxKind::Colon);
    if is_named { None } else { node.first_child() }
}

//! The values of literals.

use super::{AstNode, Expr, child, nodes};
use crate::{
    SyntaxKind,
    lexer::{
        numbers::{self, Number},
        texts::{self, Piece},
    },
    source::Span,
    syntax::SyntaxToken,
};

nodes! {
    /// A number, a raw text, `true`, `false` or `none`.
    LiteralExpr,
    /// `"…"` or `"""…"""`, perhaps with interpolation.
    StringExpr,
    /// `#{e}` in a text.
    Interpolation,
}

/// The value of a literal.
#[derive(Clone, Debug, PartialEq)]
pub enum LiteralValue {
    /// An int.
    Int(i64),
    /// A float.
    Float(f64),
    /// A duration in whole milliseconds.
    Duration(i64),
    /// A size in bytes; its type is int.
    Size(i64),
    /// `true` or `false`.
    Bool(bool),
    /// `none`.
    None,
    /// A raw text.
    Str(String),
}

/// A stretch of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringPart {
    /// Characters, with escapes decoded and a text block's indentation removed.
    Text(String),
    /// An interpolated expression.
    Interpolation(Interpolation),
}

impl LiteralExpr {
    /// The only token.
    #[must_use]
    pub fn token(&self) -> Option<SyntaxToken> {
        self.0.first_token()
    }

    /// The value; nothing for a literal that an error was reported for.
    #[must_use]
    pub fn value(&self) -> Option<LiteralValue> {
        let token = self.token()?;
        match token.kind() {
            SyntaxKind::TrueKw => Some(LiteralValue::Bool(true)),
            SyntaxKind::FalseKw => Some(LiteralValue::Bool(false)),
            SyntaxKind::NoneKw => Some(LiteralValue::None),
            SyntaxKind::RawStr => Some(LiteralValue::Str(texts::decode_raw(token.text()))),
            _ => match numbers::read(token.text()).ok()? {
                Number::Int(magnitude) => i64::try_from(magnitude).ok().map(LiteralValue::Int),
                Number::Float(value) => Some(LiteralValue::Float(value)),
                Number::Duration(millis) => Some(LiteralValue::Duration(millis)),
                Number::Size(bytes) => Some(LiteralValue::Size(bytes)),
            },
        }
    }

    /// The magnitude of an int literal; 2^63 is possible, right after a minus.
    #[must_use]
    pub fn int_magnitude(&self) -> Option<u64> {
        match numbers::read(self.token()?.text()) {
            Ok(Number::Int(magnitude)) => Some(magnitude),
            _ => None,
        }
    }
}

impl StringExpr {
    /// The text and its interpolations, in order. Adjacent text is one part; an empty text has no parts.
    #[must_use]
    pub fn parts(&self) -> Vec<StringPart> {
        let mut is_block = false;
        let mut elements = Vec::new();
        for element in self.0.children_with_tokens() {
            match element {
                rowan::NodeOrToken::Token(token) if token.kind() == SyntaxKind::StrOpen => {
                    is_block = token.text().len() == 3
                }
                rowan::NodeOrToken::Token(token) if token.kind() == SyntaxKind::StrText => elements.push(Ok(token)),
                rowan::NodeOrToken::Node(node) => elements.extend(Interpolation::cast(node).map(Err)),
                rowan::NodeOrToken::Token(_) => {}
            }
        }
        let pieces: Vec<Piece<'_>> = elements
            .iter()
            .map(|element| match element {
                Ok(token) => Piece::Text(token.text()),
                Err(_) => Piece::Gap,
            })
            .collect();
        let decoded = texts::decode(&pieces, is_block);
        let mut parts = Vec::new();
        for (element, text) in elements.into_iter().zip(decoded) {
            match element {
                Ok(_) if text.is_empty() => {}
                Ok(_) => parts.push(StringPart::Text(text)),
                Err(interpolation) => parts.push(StringPart::Interpolation(interpolation)),
            }
        }
        parts
    }

    /// The whole text, if nothing is interpolated.
    #[must_use]
    pub fn plain(&self) -> Option<String> {
        match self.parts().as_slice() {
            [] => Some(String::new()),
            [StringPart::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }

    /// Where the text between the quotes stands.
    #[must_use]
    pub fn content_span(&self) -> Span {
        let whole = self.span();
        let quotes = if self.0.first_token().is_some_and(|token| token.text().len() == 3) { 3 } else { 1 };
        Span::new(whole.start + quotes, whole.end.saturating_sub(quotes))
    }
}

impl Interpolation {
    /// The expression between `#{` and `}`.
    #[must_use]
    pub fn expr(&self) -> Option<Expr> {
        child(&self.0)
    }
}

//! Expressions.
//!
//! A method call is a [`CallExpr`] whose callee is a [`FieldExpr`]. Parentheses are kept as [`ParenExpr`], because
//! around a stage they switch the insertion of the piped value off.

use super::{
    BranchExpr, ForkExpr, IfExpr, LambdaExpr, LiteralExpr, MatchExpr, Name, PipeExpr, RescueExpr, StringExpr, TryBlock,
    TryExpr, child, child_after, children, choice, name, nodes, nth_child,
};
use crate::{SyntaxKind, source::Span, syntax::SyntaxNode};

nodes! {
    /// `x`.
    NameRef,
    /// `_`: the piped value, or the stage that gives its input back.
    PlaceholderExpr,
    /// `(e)`.
    ParenExpr,
    /// `(a, b)`; with no items it is the unit value `()`.
    TupleExpr,
    /// `[a, b]`.
    ListExpr,
    /// `{ a: 1 }` or `Brief { a: 1 }`.
    RecordExpr,
    /// `a: 1`.
    RecordField,
    /// `{ "k": v, [e]: w }`, or the empty `{}`.
    DictExpr,
    /// `"k": v`.
    DictEntry,
    /// `e.f`.
    FieldExpr,
    /// `e(args)`.
    CallExpr,
    /// `(a, k: b)`.
    ArgList,
    /// `a` or `k: b`.
    Arg,
    /// `e[i]`.
    IndexExpr,
    /// `e?`.
    UnwrapExpr,
    /// `-e`, `!e`, `not e`.
    PrefixExpr,
    /// `await e`.
    AwaitExpr,
    /// `spawn F(args)`.
    SpawnExpr,
    /// `a + b` and every other operator on two values.
    BinaryExpr,
}

choice! {
    /// An expression.
    Expr {
        /// A number, a raw text, `true`, `false` or `none`.
        LiteralExpr,
        /// A text, perhaps with interpolation.
        StringExpr,
        /// A name.
        NameRef,
        /// `_`.
        PlaceholderExpr,
        /// Parentheses.
        ParenExpr,
        /// A tuple, or unit.
        TupleExpr,
        /// A list.
        ListExpr,
        /// A record.
        RecordExpr,
        /// A dict.
        DictExpr,
        /// A field.
        FieldExpr,
        /// A call.
        CallExpr,
        /// An index.
        IndexExpr,
        /// Postfix `?`.
        UnwrapExpr,
        /// A prefix operator.
        PrefixExpr,
        /// `await`
        AwaitExpr,
        /// `spawn`
        SpawnExpr,
        /// A binary operator.
        BinaryExpr,
        /// A pipeline operator.
        PipeExpr,
        /// `?>`
        BranchExpr,
        /// `otherwise`, `fallback`
        RescueExpr,
        /// `if`
        IfExpr,
        /// `match`
        MatchExpr,
        /// `try e`
        TryExpr,
        /// `try { … }`
        TryBlock,
        /// `fn`
        LambdaExpr,
        /// `fork`
        ForkExpr,
    }
}

impl Expr {
    /// The expression inside any parentheses around it.
    #[must_use]
    pub fn without_parens(self) -> Option<Expr> {
        let mut expr = self;
        while let Expr::ParenExpr(paren) = expr {
            expr = paren.inner()?;
        }
        Some(expr)
    }
}

/// The first token directly in a node that `read` understands, and its place.
pub(super) fn operator<T>(node: &SyntaxNode, read: impl Fn(SyntaxKind) -> Option<T>) -> Option<(T, Span)> {
    let mut tokens = node.children_with_tokens().filter_map(rowan::NodeOrToken::into_token);
    tokens.find_map(|token| read(token.kind()).map(|op| (op, token.text_range().into())))
}

impl NameRef {
    /// The name.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }
}

impl ParenExpr {
    /// What stands inside.
    #[must_use]
    pub fn inner(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl TupleExpr {
    /// The items; none for `()`.
    pub fn items(&self) -> impl Iterator<Item = Expr> + use<> {
        children(&self.0)
    }
}

impl ListExpr {
    /// The items.
    pub fn items(&self) -> impl Iterator<Item = Expr> + use<> {
        children(&self.0)
    }
}

impl RecordExpr {
    /// The type before the brace: a name, or a field access for a type of an imported file.
    #[must_use]
    pub fn ty(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The fields, in the order of the text.
    pub fn fields(&self) -> impl Iterator<Item = RecordField> + use<> {
        children(&self.0)
    }
}

impl RecordField {
    /// The name.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl DictExpr {
    /// The entries, in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = DictEntry> + use<> {
        children(&self.0)
    }
}

impl DictEntry {
    /// The key: a text, or the expression between brackets.
    #[must_use]
    pub fn key(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        child_after(&self.0, SyntaxKind::Colon)
    }
}

impl FieldExpr {
    /// What the field is taken of.
    #[must_use]
    pub fn receiver(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The field.
    #[must_use]
    pub fn field(&self) -> Option<Name> {
        name(&self.0)
    }
}

impl CallExpr {
    /// What is called.
    #[must_use]
    pub fn callee(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The argument list with its parentheses.
    #[must_use]
    pub fn arg_list(&self) -> Option<ArgList> {
        child(&self.0)
    }

    /// The arguments, in the order of the text.
    #[must_use]
    pub fn args(&self) -> Vec<Arg> {
        self.arg_list().map(|list| list.args().collect()).unwrap_or_default()
    }
}

impl ArgList {
    /// The arguments, in the order of the text.
    pub fn args(&self) -> impl Iterator<Item = Arg> + use<> {
        children(&self.0)
    }
}

impl Arg {
    /// The name before the colon.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl IndexExpr {
    /// What is indexed.
    #[must_use]
    pub fn receiver(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> Option<Expr> {
        nth_child(&self.0, 1)
    }
}

impl UnwrapExpr {
    /// What is unwrapped.
    #[must_use]
    pub fn operand(&self) -> Option<Expr> {
        child(&self.0)
    }
}

/// A prefix operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixOp {
    /// `-`
    Negate,
    /// `!` and `not`, which mean the same and bind differently
    Not,
}

impl PrefixExpr {
    /// The operator.
    #[must_use]
    pub fn op(&self) -> Option<PrefixOp> {
        let read = |kind| match kind {
            SyntaxKind::Minus => Some(PrefixOp::Negate),
            SyntaxKind::Bang | SyntaxKind::NotKw => Some(PrefixOp::Not),
            _ => None,
        };
        operator(&self.0, read).map(|(op, _)| op)
    }

    /// The operand.
    #[must_use]
    pub fn operand(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The value of a negated int literal, which covers the smallest int, whose magnitude alone is out of range.
    #[must_use]
    pub fn negative_int(&self) -> Option<i64> {
        match (self.op()?, self.operand()?) {
            (PrefixOp::Negate, Expr::LiteralExpr(literal)) => {
                literal.int_magnitude().and_then(|magnitude| 0i64.checked_sub_unsigned(magnitude))
            }
            _ => None,
        }
    }
}

impl AwaitExpr {
    /// The handle.
    #[must_use]
    pub fn operand(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl SpawnExpr {
    /// The call that is started.
    #[must_use]
    pub fn call(&self) -> Option<Expr> {
        child(&self.0)
    }
}

/// An operator on two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `??`
    Coalesce,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `in`
    In,
    /// `and`
    And,
    /// `or`
    Or,
}

impl BinaryOp {
    /// The operator a token stands for.
    #[must_use]
    pub fn of(kind: SyntaxKind) -> Option<BinaryOp> {
        Some(match kind {
            SyntaxKind::Star => BinaryOp::Multiply,
            SyntaxKind::Slash => BinaryOp::Divide,
            SyntaxKind::Percent => BinaryOp::Remainder,
            SyntaxKind::Plus => BinaryOp::Add,
            SyntaxKind::Minus => BinaryOp::Subtract,
            SyntaxKind::QuestionQuestion => BinaryOp::Coalesce,
            SyntaxKind::EqualsEquals => BinaryOp::Equal,
            SyntaxKind::BangEquals => BinaryOp::NotEqual,
            SyntaxKind::Less => BinaryOp::Less,
            SyntaxKind::LessEquals => BinaryOp::LessOrEqual,
            SyntaxKind::Greater => BinaryOp::Greater,
            SyntaxKind::GreaterEquals => BinaryOp::GreaterOrEqual,
            SyntaxKind::InKw => BinaryOp::In,
            SyntaxKind::AndKw => BinaryOp::And,
            SyntaxKind::OrKw => BinaryOp::Or,
            _ => return None,
        })
    }
}

impl BinaryExpr {
    /// The operator and where it stands.
    #[must_use]
    pub fn op(&self) -> Option<(BinaryOp, Span)> {
        operator(&self.0, BinaryOp::of)
    }

    /// The operand on the left.
    #[must_use]
    pub fn left(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The operand on the right.
    #[must_use]
    pub fn right(&self) -> Option<Expr> {
        nth_child(&self.0, 1)
    }
}

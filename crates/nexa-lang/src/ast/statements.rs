//! Statements.
//!
//! `if`, `match`, `fork`, `spawn` and `try` are expressions here, also where they stand as statements: a statement of
//! that form is an [`ExprStmt`] around the expression.

use super::{
    ArgList, Arm, ArmList, Expr, Name, Pattern, StringExpr, TypeExpr, child, children, choice, nodes, nth_child, token,
};
use crate::{SyntaxKind, syntax::SyntaxToken};

nodes! {
    /// `{ … }`.
    Block,
    /// `let p: T = e`.
    LetStmt,
    /// `x = e`, `x += e`, `x -= e`, `x.f = e`, `x[i] = e`.
    AssignStmt,
    /// An expression.
    ExprStmt,
    /// `return e`.
    ReturnStmt,
    /// `break`.
    BreakStmt,
    /// `continue`.
    ContinueStmt,
    /// `defer e` or `defer { … }`.
    DeferStmt,
    /// `while (c) { … }`.
    WhileStmt,
    /// `for each x in xs { … }`, `for each i, x in xs { … }`, `for (k, v) in m { … }`.
    ForStmt,
    /// `semantic_if "c" against x { … } else { … }`, or the form with labels.
    SemanticIfStmt,
    /// `loop (max: n) { … } until (c)`.
    LoopStmt,
    /// `until (c)` or `until ("c" against x)`.
    UntilClause,
    /// `pass e to h`.
    PassStmt,
    /// `verify x satisfies P` or `verify "c" against x`.
    VerifyStmt,
    /// `assert e, "why"` or `assert "c" against x`.
    AssertStmt,
    /// `script TARGET => turns`, in tests.
    ScriptStmt,
}

choice! {
    /// A statement.
    Stmt {
        /// A block of its own.
        Block,
        /// `let`
        LetStmt,
        /// An assignment.
        AssignStmt,
        /// An expression.
        ExprStmt,
        /// `return`
        ReturnStmt,
        /// `break`
        BreakStmt,
        /// `continue`
        ContinueStmt,
        /// `defer`
        DeferStmt,
        /// `while`
        WhileStmt,
        /// `for`
        ForStmt,
        /// `semantic_if`
        SemanticIfStmt,
        /// `loop`
        LoopStmt,
        /// `pass`
        PassStmt,
        /// `verify`
        VerifyStmt,
        /// `assert`
        AssertStmt,
        /// `script`
        ScriptStmt,
    }
}

impl Block {
    /// The statements in order.
    pub fn statements(&self) -> impl Iterator<Item = Stmt> + use<> {
        children(&self.0)
    }

    /// The closing brace.
    #[must_use]
    pub fn close(&self) -> Option<SyntaxToken> {
        token(&self.0, SyntaxKind::BraceClose)
    }
}

impl LetStmt {
    /// The pattern: a [`Pattern::NamePat`] for `let x`, a [`Pattern::TuplePat`] for `let (a, b)`.
    #[must_use]
    pub fn pattern(&self) -> Option<Pattern> {
        child(&self.0)
    }

    /// The written type.
    #[must_use]
    pub fn ty(&self) -> Option<TypeExpr> {
        child(&self.0)
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        child(&self.0)
    }
}

/// How an assignment changes its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignOp {
    /// `=`
    Set,
    /// `+=`
    Add,
    /// `-=`
    Subtract,
}

impl AssignStmt {
    /// What is assigned to: a name, a field, or an index; anything else is left to the checker to refuse.
    #[must_use]
    pub fn target(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The operator.
    #[must_use]
    pub fn op(&self) -> AssignOp {
        if token(&self.0, SyntaxKind::PlusEquals).is_some() {
            AssignOp::Add
        } else if token(&self.0, SyntaxKind::MinusEquals).is_some() {
            AssignOp::Subtract
        } else {
            AssignOp::Set
        }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        nth_child(&self.0, 1)
    }
}

impl ExprStmt {
    /// The expression.
    #[must_use]
    pub fn expr(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl ReturnStmt {
    /// The value.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl DeferStmt {
    /// The expression, or nothing if a block is deferred.
    #[must_use]
    pub fn expr(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The block.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }
}

impl WhileStmt {
    /// The condition, without its parentheses.
    #[must_use]
    pub fn condition(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }
}

/// The three forms of `for`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForBinding {
    /// `for each x in xs`
    Item(Pattern),
    /// `for each i, x in xs`
    IndexedItem(Pattern, Pattern),
    /// `for (k, v) in m`
    Entry(Pattern, Pattern),
}

impl ForStmt {
    /// What is bound in each round.
    #[must_use]
    pub fn binding(&self) -> Option<ForBinding> {
        if token(&self.0, SyntaxKind::EachKw).is_none() {
            let Some(Pattern::TuplePat(pair)) = child(&self.0) else { return None };
            let mut items = pair.items();
            return match (items.next(), items.next(), items.next()) {
                (Some(key), Some(value), None) => Some(ForBinding::Entry(key, value)),
                _ => None,
            };
        }
        match (nth_child(&self.0, 0), nth_child(&self.0, 1)) {
            (Some(item), None) => Some(ForBinding::Item(item)),
            (Some(index), Some(item)) => Some(ForBinding::IndexedItem(index, item)),
            _ => None,
        }
    }

    /// What is walked through.
    #[must_use]
    pub fn subject(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }
}

impl SemanticIfStmt {
    /// The condition in words, of the form without labels.
    #[must_use]
    pub fn question(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The regular expression after `fast_match`.
    #[must_use]
    pub fn fast_match(&self) -> Option<Expr> {
        super::child_after(&self.0, SyntaxKind::FastMatchKw)
    }

    /// The expression after `against`.
    #[must_use]
    pub fn subject(&self) -> Option<Expr> {
        super::child_after(&self.0, SyntaxKind::AgainstKw)
    }

    /// The block taken when the condition holds.
    #[must_use]
    pub fn then_block(&self) -> Option<Block> {
        nth_child(&self.0, 0)
    }

    /// The block after `else`.
    #[must_use]
    pub fn else_block(&self) -> Option<Block> {
        super::child_after(&self.0, SyntaxKind::ElseKw)
    }

    /// The arms of the form with labels; its subject and question are then [`SemanticIfStmt::args`].
    #[must_use]
    pub fn arms(&self) -> Option<Vec<Arm>> {
        child::<ArmList>(&self.0).map(|list| list.arms().collect())
    }

    /// `(x, "question")` of the form with labels.
    #[must_use]
    pub fn args(&self) -> Option<ArgList> {
        child(&self.0)
    }
}

impl LoopStmt {
    /// `(max: n, timeout: t)`.
    #[must_use]
    pub fn options(&self) -> Option<ArgList> {
        child(&self.0)
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }

    /// The test after the body.
    #[must_use]
    pub fn until(&self) -> Option<UntilClause> {
        child(&self.0)
    }
}

impl UntilClause {
    /// The condition.
    #[must_use]
    pub fn condition(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The expression after `against`.
    #[must_use]
    pub fn subject(&self) -> Option<Expr> {
        super::child_after(&self.0, SyntaxKind::AgainstKw)
    }
}

impl PassStmt {
    /// The message.
    #[must_use]
    pub fn message(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The handle after `to`.
    #[must_use]
    pub fn target(&self) -> Option<Expr> {
        super::child_after(&self.0, SyntaxKind::ToKw)
    }
}

impl VerifyStmt {
    /// The value, or the condition in words before `against`.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The type after `satisfies`.
    #[must_use]
    pub fn ty(&self) -> Option<TypeExpr> {
        child(&self.0)
    }

    /// The expression after `against`.
    #[must_use]
    pub fn subject(&self) -> Option<Expr> {
        super::child_after(&self.0, SyntaxKind::AgainstKw)
    }
}

impl AssertStmt {
    /// The condition.
    #[must_use]
    pub fn condition(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The reason after the comma.
    #[must_use]
    pub fn reason(&self) -> Option<Expr> {
        super::child_after(&self.0, SyntaxKind::Comma)
    }

    /// The expression after `against`.
    #[must_use]
    pub fn subject(&self) -> Option<Expr> {
        super::child_after(&self.0, SyntaxKind::AgainstKw)
    }
}

impl ScriptStmt {
    /// What stands before `=>`: the name of an agent or tool, `file.Name` for one of an imported file, or one of the
    /// words `semantic`, `judge`, `approve`, `intent`, `reflect`.
    #[must_use]
    pub fn target(&self) -> Vec<Name> {
        super::names(&self.0).collect()
    }

    /// The question of `script semantic "…"`.
    #[must_use]
    pub fn question(&self) -> Option<StringExpr> {
        let first: StringExpr = child(&self.0)?;
        let arrow = token(&self.0, SyntaxKind::FatArrow)?;
        (super::AstNode::syntax(&first).text_range().end() <= arrow.text_range().start()).then_some(first)
    }

    /// The turns after `=>`.
    #[must_use]
    pub fn turns(&self) -> Option<Expr> {
        super::child_after(&self.0, SyntaxKind::FatArrow)
    }
}

//! Expressions that choose: `if`, `match`, `try`, and functions as values.

use super::{ArgList, AstNode, Block, Expr, Name, ParamList, Pattern, child, children, name, nodes, nth_child, token};
use crate::{SyntaxKind, syntax::SyntaxNode};

nodes! {
    /// `if (c) a else b`.
    IfExpr,
    /// `match x { … }`.
    MatchExpr,
    /// The arms between braces.
    ArmList,
    /// `p if (g) => e`.
    Arm,
    /// `if (g)` of an arm.
    Guard,
    /// `try e`.
    TryExpr,
    /// `try (timeout: t) { … } catch (e) { … }`.
    TryBlock,
    /// `catch (e) { … }`.
    CatchClause,
    /// `fn(x) => e`.
    LambdaExpr,
}

/// One side of an `if`, or the body of an arm, a function or a lambda.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An expression.
    Expr(Expr),
    /// A block.
    Block(Block),
    /// `return`, `break` or `continue` as the body of an arm.
    Stmt(super::Stmt),
}

impl Body {
    fn of(node: SyntaxNode) -> Option<Body> {
        if let Some(expr) = Expr::cast(node.clone()) {
            return Some(Body::Expr(expr));
        }
        match super::Stmt::cast(node)? {
            super::Stmt::Block(block) => Some(Body::Block(block)),
            stmt => Some(Body::Stmt(stmt)),
        }
    }

    fn after(parent: &SyntaxNode, kind: SyntaxKind) -> Option<Body> {
        let rest = parent.children_with_tokens().skip_while(|element| element.kind() != kind);
        rest.filter_map(rowan::NodeOrToken::into_node).find_map(Body::of)
    }
}

impl IfExpr {
    /// The condition, without its parentheses.
    #[must_use]
    pub fn condition(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// What is taken when it holds.
    #[must_use]
    pub fn then_body(&self) -> Option<Body> {
        Body::after(&self.0, SyntaxKind::ParenClose)
    }

    /// What stands after `else`; `else if` is a [`Body::Expr`] around another [`IfExpr`].
    #[must_use]
    pub fn else_body(&self) -> Option<Body> {
        Body::after(&self.0, SyntaxKind::ElseKw)
    }
}

impl MatchExpr {
    /// What is looked at.
    #[must_use]
    pub fn subject(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The arms in order.
    #[must_use]
    pub fn arms(&self) -> Vec<Arm> {
        child::<ArmList>(&self.0).map(|list| list.arms().collect()).unwrap_or_default()
    }
}

impl ArmList {
    /// The arms in order.
    pub fn arms(&self) -> impl Iterator<Item = Arm> + use<> {
        children(&self.0)
    }
}

impl Arm {
    /// The pattern, in a `match`.
    #[must_use]
    pub fn pattern(&self) -> Option<Pattern> {
        child(&self.0)
    }

    /// The condition or label, in a branch table or a `semantic_if`.
    #[must_use]
    pub fn condition(&self) -> Option<Expr> {
        let arrow = token(&self.0, SyntaxKind::FatArrow)?;
        child::<Expr>(&self.0).filter(|expr| expr.syntax().text_range().end() <= arrow.text_range().start())
    }

    /// The condition of `if (…)` after the pattern.
    #[must_use]
    pub fn guard(&self) -> Option<Expr> {
        child::<Guard>(&self.0).and_then(|guard| child(&guard.0))
    }

    /// What the arm gives or does.
    #[must_use]
    pub fn body(&self) -> Option<Body> {
        Body::after(&self.0, SyntaxKind::FatArrow)
    }
}

impl TryExpr {
    /// What may fail.
    #[must_use]
    pub fn operand(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl TryBlock {
    /// `(timeout: t)`.
    #[must_use]
    pub fn options(&self) -> Option<ArgList> {
        child(&self.0)
    }

    /// The block that may fail.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }

    /// The handler.
    #[must_use]
    pub fn catch(&self) -> Option<CatchClause> {
        child(&self.0)
    }
}

impl CatchClause {
    /// The name of the error.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The block.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }
}

impl LambdaExpr {
    /// The parameters.
    #[must_use]
    pub fn params(&self) -> Option<ParamList> {
        child(&self.0)
    }

    /// The expression or block.
    #[must_use]
    pub fn body(&self) -> Option<Body> {
        self.0.children().filter(|node| node.kind() != SyntaxKind::ParamList).find_map(Body::of)
    }
}

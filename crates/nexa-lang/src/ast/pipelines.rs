//! Pipelines: stages, forks, merges, branches, and what stands in for a stage that fails.

use super::{
    ArgList, Arm, ArmList, Expr, Name, child, child_after, children, expressions::operator, name, nodes, nth_child,
    token,
};
use crate::{SyntaxKind, source::Span, syntax::SyntaxToken};

nodes! {
    /// `x >> S` and its kin.
    PipeExpr,
    /// `x ?> c => S : F` or `x ?> { c => S, _ => T }`.
    BranchExpr,
    /// `a otherwise b`, `a fallback b`.
    RescueExpr,
    /// `fork [a: e] merge S(opts)`.
    ForkExpr,
    /// `[a: e, b: f]` of a fork.
    ForkList,
    /// `a: e` or `e`.
    ForkBranch,
    /// `merge S(opts)`.
    MergeClause,
}

/// A pipeline operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeOp {
    /// `>>`: run a stage on the value
    Run,
    /// `|>`: call a function with the value
    Call,
    /// `|>>`: fork and wait for all
    Fork,
    /// `||`: fork detached
    Detach,
    /// `&>>`: merge
    Merge,
    /// `&&`: consensus
    Consensus,
}

impl PipeOp {
    /// The operator a token stands for.
    #[must_use]
    pub fn of(kind: SyntaxKind) -> Option<PipeOp> {
        Some(match kind {
            SyntaxKind::Pipe => PipeOp::Run,
            SyntaxKind::PipeCall => PipeOp::Call,
            SyntaxKind::PipeFork => PipeOp::Fork,
            SyntaxKind::PipeDetach => PipeOp::Detach,
            SyntaxKind::PipeMerge => PipeOp::Merge,
            SyntaxKind::PipeConsensus => PipeOp::Consensus,
            _ => return None,
        })
    }
}

/// What stands right of a pipeline operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipeTarget {
    /// One stage.
    Stage(Expr),
    /// `[A, b: B]` after `|>>` or `||`.
    Branches(ForkList),
}

impl PipeExpr {
    /// The operator and where it stands.
    #[must_use]
    pub fn op(&self) -> Option<(PipeOp, Span)> {
        operator(&self.0, PipeOp::of)
    }

    /// What goes in.
    #[must_use]
    pub fn left(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// What it goes into. After `|>>` and `||` a bracketed list is always [`PipeTarget::Branches`].
    #[must_use]
    pub fn target(&self) -> Option<PipeTarget> {
        child(&self.0).map(PipeTarget::Branches).or_else(|| nth_child(&self.0, 1).map(PipeTarget::Stage))
    }

    /// `merge …` after the branches.
    #[must_use]
    pub fn merge(&self) -> Option<MergeClause> {
        child(&self.0)
    }
}

impl BranchExpr {
    /// The value that is branched on.
    #[must_use]
    pub fn subject(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The condition of the short form.
    #[must_use]
    pub fn condition(&self) -> Option<Expr> {
        child_after(&self.0, SyntaxKind::PipeBranch)
    }

    /// The stage taken when the condition holds.
    #[must_use]
    pub fn then_stage(&self) -> Option<Expr> {
        child_after(&self.0, SyntaxKind::FatArrow)
    }

    /// The stage taken otherwise.
    #[must_use]
    pub fn else_stage(&self) -> Option<Expr> {
        child_after(&self.0, SyntaxKind::Colon)
    }

    /// The arms of the table form. Their condition is [`Arm::condition`]; `_` is a [`PlaceholderExpr`].
    #[must_use]
    pub fn table(&self) -> Option<Vec<Arm>> {
        child::<ArmList>(&self.0).map(|list| list.arms().collect())
    }
}

/// Which errors the right side stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RescueOp {
    /// `otherwise`: a substitute for any catchable error
    Otherwise,
    /// `fallback`: another worker for errors of the worker
    Fallback,
}

impl RescueExpr {
    /// The operator and where it stands.
    #[must_use]
    pub fn op(&self) -> Option<(RescueOp, Span)> {
        let read = |kind| match kind {
            SyntaxKind::OtherwiseKw => Some(RescueOp::Otherwise),
            SyntaxKind::FallbackKw => Some(RescueOp::Fallback),
            _ => None,
        };
        operator(&self.0, read)
    }

    /// What may fail.
    #[must_use]
    pub fn left(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// What stands in for it.
    #[must_use]
    pub fn right(&self) -> Option<Expr> {
        nth_child(&self.0, 1)
    }
}

impl ForkExpr {
    /// The branches.
    #[must_use]
    pub fn branches(&self) -> Option<ForkList> {
        child(&self.0)
    }

    /// `merge …`.
    #[must_use]
    pub fn merge(&self) -> Option<MergeClause> {
        child(&self.0)
    }
}

impl ForkList {
    /// The branches in order.
    pub fn branches(&self) -> impl Iterator<Item = ForkBranch> + use<> {
        children(&self.0)
    }
}

impl ForkBranch {
    /// The name before the colon.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The stage or expression.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl MergeClause {
    /// The strategy: `first`, `all`, `concat`, `vote`, `best_of`, `weighted_average`, `consensus`.
    #[must_use]
    pub fn strategy(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> Option<ArgList> {
        child(&self.0)
    }

    /// The word `merge`.
    #[must_use]
    pub fn keyword(&self) -> Option<SyntaxToken> {
        token(&self.0, SyntaxKind::MergeKw)
    }
}

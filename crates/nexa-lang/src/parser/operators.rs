//! How tightly each operator binds.
//!
//! A higher level binds tighter. The language's own table counts the other way round; its numbers stand at the right.

use crate::SyntaxKind;

pub(super) const RESCUE: u8 = 1; // 11: `otherwise`, `fallback`
pub(super) const OR: u8 = 2; // 10
pub(super) const AND: u8 = 3; // 9
pub(super) const NOT: u8 = 4; // 8
pub(super) const COMPARE: u8 = 5; // 7
pub(super) const PIPE: u8 = 6; // 6
pub(super) const COALESCE: u8 = 7; // 5
pub(super) const SUM: u8 = 8; // 4
pub(super) const PRODUCT: u8 = 9; // 3

/// An infix operator: its level, the least level of its right operand, and the node it makes.
#[derive(Clone, Copy)]
pub(super) struct Infix {
    pub(super) level: u8,
    pub(super) right: u8,
    pub(super) node: SyntaxKind,
}

/// The infix operator a token stands for; `otherwise` and `fallback` are words and come from elsewhere.
pub(super) fn infix(kind: SyntaxKind) -> Option<Infix> {
    use SyntaxKind as K;
    let left_to_right = |level, node| Infix { level, right: level + 1, node };
    Some(match kind {
        K::OrKw => left_to_right(OR, K::BinaryExpr),
        K::AndKw => left_to_right(AND, K::BinaryExpr),
        K::EqualsEquals | K::BangEquals | K::Less | K::LessEquals | K::Greater | K::GreaterEquals | K::InKw => {
            left_to_right(COMPARE, K::BinaryExpr)
        }
        K::Pipe | K::PipeCall | K::PipeFork | K::PipeDetach | K::PipeMerge | K::PipeConsensus => {
            left_to_right(PIPE, K::PipeExpr)
        }
        K::PipeBranch => left_to_right(PIPE, K::BranchExpr),
        K::QuestionQuestion => Infix { level: COALESCE, right: COALESCE, node: K::BinaryExpr },
        K::Plus | K::Minus => left_to_right(SUM, K::BinaryExpr),
        K::Star | K::Slash | K::Percent => left_to_right(PRODUCT, K::BinaryExpr),
        _ => return None,
    })
}

/// `otherwise` and `fallback`.
pub(super) const RESCUE_OPERATOR: Infix = Infix { level: RESCUE, right: RESCUE + 1, node: SyntaxKind::RescueExpr };

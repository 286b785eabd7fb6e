//! Operators: arithmetic, comparison, logic, `?`, `??`, `try`, `otherwise`, `fallback`.

use super::Checker;
use super::places::Place;
use crate::ast::{self, AstNode, BinaryOp, PrefixOp, RescueOp};
use crate::diagnostic::Code;
use crate::hir::{Const, Expr, ExprKind, Operator, Rescue};
use crate::source::Span;
use crate::types::{Fit, Ty, TypeTable};

impl Checker<'_> {
    /// A condition: a bool.
    pub(super) fn condition(&mut self, node: Option<ast::Expr>, around: Span) -> Expr {
        let Some(node) = node else { return self.broken(around) };
        let value = self.expr(&node, Some(&Ty::Bool));
        self.bool(value, node.span())
    }

    pub(super) fn bool(&mut self, value: Expr, span: Span) -> Expr {
        let value = self.plain(value);
        let at = value.at;
        match &value.ty {
            Ty::Bool | Ty::Broken | Ty::Never => value,
            Ty::Any => {
                self.refuse_any(&Ty::Any, span, "a bool");
                Expr::new(ExprKind::Check(Box::new(value)), Ty::Bool, at)
            }
            union @ Ty::Union(_) => {
                let wide = self.unnarrowed(span, union, "it is a condition");
                self.refuse(wide)
            }
            other => {
                let help = match other {
                    Ty::Option(_) => "compare it: `… != none`",
                    Ty::List(_) | Ty::Dict(..) => "ask for its length: `….len() > 0`",
                    Ty::Str => "compare it: `… != \"\"`",
                    Ty::Int | Ty::Float => "compare it: `… != 0`",
                    Ty::Result(..) => "ask it: `….is_ok()`",
                    _ => "compare it with something",
                };
                let message = format!("a condition is a bool, and this is `{}`", self.show(other));
                let wrong = self.finding(Code::E0306, span, message).help(help);
                self.refuse(wrong)
            }
        }
    }

    pub(super) fn prefix(&mut self, node: &ast::PrefixExpr) -> Expr {
        let at = self.at(node);
        if let Some(int) = node.negative_int() {
            return Expr::constant(Const::Int(int), at);
        }
        let Some(operand) = node.operand() else { return self.broken(node.span()) };
        if node.op() == Some(PrefixOp::Not) {
            let value = self.condition(Some(operand), node.span());
            return Expr::new(ExprKind::Not(Box::new(value)), Ty::Bool, at);
        }
        let value = self.expr(&operand, None);
        let value = self.plain(value);
        let ty = value.ty.clone();
        match (&value.kind, &ty) {
            (ExprKind::Const(Const::Float(float)), _) => Expr::constant(Const::Float(-float), at),
            (ExprKind::Const(Const::Duration(millis)), _) => {
                Expr::constant(Const::Duration(millis.saturating_neg()), at)
            }
            (_, Ty::Int | Ty::Float | Ty::Duration | Ty::Any) => {
                self.refuse_any(&ty, node.span(), "a number");
                Expr::new(ExprKind::Neg(Box::new(value)), ty, at)
            }
            _ if ty.is_silent() => value,
            _ => {
                let wrong =
                    self.finding(Code::E0307, node.span(), format!("`-` does not work on `{}`", self.show(&ty)));
                self.refuse(wrong)
            }
        }
    }

    pub(super) fn binary(&mut self, node: &ast::BinaryExpr, want: Option<&Ty>) -> Expr {
        let (Some((op, at_op)), Some(left), Some(right)) = (node.op(), node.left(), node.right()) else {
            return self.broken(node.span());
        };
        let at = self.at(node);
        match op {
            BinaryOp::And | BinaryOp::Or => {
                let left = self.condition(Some(left), node.span());
                let right = self.condition(Some(right), node.span());
                let (left, right) = (Box::new(left), Box::new(right));
                let kind = if op == BinaryOp::And { ExprKind::And(left, right) } else { ExprKind::Or(left, right) };
                Expr::new(kind, Ty::Bool, at)
            }
            BinaryOp::Coalesce => self.coalesce(&left, &right, want, at),
            _ => {
                let x = self.expr(&left, None);
                let hint = x.ty.clone();
                let y = self.expr(&right, Some(&hint));
                self.operate(op, at_op, (x, left.span()), (y, right.span()), at)
            }
        }
    }

    /// An operator on two values, converted to what they have in common.
    pub(super) fn operate(
        &mut self,
        op: BinaryOp,
        at_op: Span,
        left: (Expr, Span),
        right: (Expr, Span),
        at: crate::hir::At,
    ) -> Expr {
        let ((mut x, x_span), (mut y, y_span)) = (left, right);
        if x.ty.is_silent() || y.ty.is_silent() {
            return self.broken(at_op);
        }
        let operator = operator_of(op);
        // What holds of the values besides matters only to whether they can be equal.
        let can_be_equal = self.types.fit(&x.ty, &y.ty) != Fit::No || self.types.fit(&y.ty, &x.ty) != Fit::No;
        if !matches!(op, BinaryOp::Equal | BinaryOp::NotEqual) || can_be_equal {
            (x, y) = (self.plain(x), self.plain(y));
        }
        let is_sum = matches!(op, BinaryOp::Add | BinaryOp::Subtract);
        let ty = match op {
            BinaryOp::Equal | BinaryOp::NotEqual => can_be_equal.then_some(Ty::Bool),
            BinaryOp::Less | BinaryOp::LessOrEqual | BinaryOp::Greater | BinaryOp::GreaterOrEqual => {
                match (&x.ty, &y.ty) {
                    (x, y) if x.is_number() && y.is_number() => Some(Ty::Bool),
                    (Ty::Str, Ty::Str) | (Ty::Duration, Ty::Duration) => Some(Ty::Bool),
                    (Ty::Any, other) | (other, Ty::Any)
                        if other.is_number() || matches!(other, Ty::Any | Ty::Str | Ty::Duration) =>
                    {
                        Some(Ty::Bool)
                    }
                    _ => None,
                }
            }
            BinaryOp::In => match (&x.ty, &y.ty) {
                (Ty::Str, Ty::Str) | (_, Ty::Any) => Some(Ty::Bool),
                (x, Ty::List(item)) if self.types.fit(x, self.types.base(item)) != Fit::No => Some(Ty::Bool),
                (x, Ty::Dict(key, _)) if self.types.fit(x, key) != Fit::No => Some(Ty::Bool),
                _ => None,
            },
            _ => match (&x.ty, &y.ty) {
                (Ty::Int, Ty::Int) => Some(Ty::Int),
                (x, y) if x.is_number() && y.is_number() => Some(Ty::Float),
                (Ty::Str, Ty::Str) if op == BinaryOp::Add => Some(Ty::Str),
                (Ty::List(a), Ty::List(b)) if op == BinaryOp::Add => match self.types.join(a, b) {
                    Ty::Union(_) => None,
                    // `list[int] + list[float]` would have to change what is in the list.
                    joined if self.types.fit(a, &joined) == Fit::Same && self.types.fit(b, &joined) == Fit::Same => {
                        Some(Ty::list(joined))
                    }
                    _ => None,
                },
                (Ty::Duration, Ty::Duration) if is_sum => Some(Ty::Duration),
                (Ty::Duration, Ty::Int) | (Ty::Int, Ty::Duration) if op == BinaryOp::Multiply => Some(Ty::Duration),
                (Ty::Any, other) | (other, Ty::Any) if works_with_any(other) => Some(Ty::Any),
                _ => None,
            },
        };
        let Some(ty) = ty else {
            let wrong = self.no_operator(op, at_op, (&x.ty, x_span), (&y.ty, y_span));
            return self.refuse(wrong);
        };
        if !matches!(op, BinaryOp::Equal | BinaryOp::NotEqual | BinaryOp::In) {
            let wanted = format!("an operand of `{}`", sign_of(op));
            for (ty, span) in [(&x.ty, x_span), (&y.ty, y_span)] {
                self.refuse_any(ty, span, &wanted);
            }
        }
        // An int beside a float becomes one, so that both sides of an instruction are of one kind.
        if x.ty.is_number() && y.ty.is_number() && x.ty != y.ty {
            x = self.coerce(x, &Ty::Float, x_span, Place::Element);
            y = self.coerce(y, &Ty::Float, y_span, Place::Element);
        }
        Expr::new(ExprKind::Binary(operator, Box::new(x), Box::new(y)), ty, at)
    }

    fn no_operator(&mut self, op: BinaryOp, at_op: Span, left: (&Ty, Span), right: (&Ty, Span)) -> crate::Diagnostic {
        for (ty, span) in [left, right] {
            if matches!(ty, Ty::Union(_)) && !matches!(op, BinaryOp::Equal | BinaryOp::NotEqual) {
                return self.unnarrowed(span, ty, &format!("`{}` works on it", sign_of(op)));
            }
        }
        let (x, y) = (self.show(left.0), self.show(right.0));
        let sign = sign_of(op);
        let message = match op {
            BinaryOp::Equal | BinaryOp::NotEqual => format!("`{x}` and `{y}` are never equal"),
            BinaryOp::In => format!("`{x}` cannot be in `{y}`"),
            _ => format!("`{sign}` does not work on `{x}` and `{y}`"),
        };
        let wrong = self
            .finding(Code::E0307, at_op, message)
            .label(left.1, format!("this is `{x}`"))
            .label(right.1, format!("this is `{y}`"));
        match (op, left.0, right.0) {
            (BinaryOp::Add, Ty::Str, _) | (BinaryOp::Add, _, Ty::Str) => {
                wrong.help("join texts by interpolation: `\"#{a}#{b}\"`")
            }
            (_, Ty::Option(_), _) | (_, _, Ty::Option(_)) => {
                wrong.help("unwrap it with `?`, or give another value with `??`")
            }
            (_, Ty::Result(..), _) | (_, _, Ty::Result(..)) => {
                wrong.help("unwrap it with `?`, or give another value with `otherwise`")
            }
            _ => wrong,
        }
    }

    fn coalesce(&mut self, left: &ast::Expr, right: &ast::Expr, want: Option<&Ty>, at: crate::hir::At) -> Expr {
        let value = self.expr(left, want);
        let inner = value.ty.without_option().clone();
        let hint = if inner == Ty::Never { want } else { Some(&inner) };
        let other = self.expr(right, hint);
        let other_ty = other.ty.clone();
        let ty = self.types.join(&inner, &other_ty);
        // The left side is converted only as far as that leaves its `none` alone.
        if self.types.fit(&inner, &ty) == Fit::Widen {
            let message =
                format!("the left side is `{}`, but its substitute is `{}`", self.show(&inner), self.show(&other_ty));
            let wrong = self
                .finding(Code::E0301, right.span(), message)
                .label(left.span(), format!("this is `{}`", self.show(&value.ty)));
            return self.refuse(wrong.help("give both sides the same type"));
        }
        let other = self.coerce(other, &ty, right.span(), Place::Arm);
        Expr::new(ExprKind::Coalesce(Box::new(value), Box::new(other)), ty, at)
    }

    pub(super) fn unwrap(&mut self, node: &ast::UnwrapExpr) -> Expr {
        let Some(operand) = node.operand() else { return self.broken(node.span()) };
        let value = self.expr(&operand, None);
        let at = self.at(node);
        let ty = match &value.ty {
            Ty::Result(inner, _) | Ty::Option(inner) => (**inner).clone(),
            Ty::Any => Ty::Any,
            other if other.is_silent() => return value,
            // A call can raise, and `?` after it only says that one knows.
            _ if is_fallible(&operand) => return value,
            other => {
                let message = format!("`?` stands after `{}`, which cannot fail", self.show(other));
                let wrong = self.finding(Code::E0314, node.span(), message).help("remove the `?`");
                return self.refuse(wrong);
            }
        };
        Expr::new(ExprKind::Unwrap(Box::new(value)), ty, at)
    }

    pub(super) fn try_expr(&mut self, node: &ast::TryExpr) -> Expr {
        let Some(operand) = node.operand() else { return self.broken(node.span()) };
        let value = self.expr(&operand, None);
        let ty = Ty::result(value.ty.clone());
        Expr::new(ExprKind::Try(Box::new(value)), ty, self.at(node))
    }

    pub(super) fn rescue(&mut self, node: &ast::RescueExpr, want: Option<&Ty>) -> Expr {
        let (Some((op, _)), Some(left), Some(right)) = (node.op(), node.left(), node.right()) else {
            return self.broken(node.span());
        };
        let at = self.at(node);
        let mut value = self.expr(&left, want);
        // `err` counts as a failure too: unwrapping raises it right where errors are caught.
        if let Ty::Result(inner, _) = value.ty.clone() {
            let value_at = value.at;
            value = Expr::new(ExprKind::Unwrap(Box::new(value)), (*inner).clone(), value_at);
        }
        let error = self.temporary(node.span());
        let hint = if value.ty.is_silent() { want.cloned() } else { Some(value.ty.clone()) };
        let mut substitute = self.substitute(&right, hint.as_ref(), error);
        if op == RescueOp::Fallback
            && let Ty::Result(inner, _) = substitute.ty.clone()
        {
            let substitute_at = substitute.at;
            substitute = Expr::new(ExprKind::Unwrap(Box::new(substitute)), (*inner).clone(), substitute_at);
        }
        let ty = self.types.join(&value.ty, &substitute.ty);
        let value = self.coerce(value, &ty, left.span(), Place::Arm);
        let substitute = self.coerce(substitute, &ty, right.span(), Place::Arm);
        let only_worth_a_fallback = op == RescueOp::Fallback;
        Expr::new(ExprKind::Rescue(Box::new(Rescue { value, only_worth_a_fallback, error, substitute })), ty, at)
    }

    /// The right side of `otherwise`: a value, or a function that is called with the error.
    fn substitute(&mut self, node: &ast::Expr, want: Option<&Ty>, error: u16) -> Expr {
        let error_ty = Ty::Named(TypeTable::ERROR);
        let inner = node.clone().without_parens();
        let handler = match (&inner, want) {
            (Some(ast::Expr::LambdaExpr(_)), Some(want)) => {
                Some(Ty::Function([error_ty.clone()].into(), std::rc::Rc::new(want.clone())))
            }
            (Some(ast::Expr::LambdaExpr(_)), None) => {
                Some(Ty::Function([error_ty.clone()].into(), std::rc::Rc::new(Ty::Any)))
            }
            _ => None,
        };
        self.is_handler = matches!(inner, Some(ast::Expr::LambdaExpr(_)));
        let around = self.frame().caught.replace(error);
        let made = self.expr(node, handler.as_ref().or(want));
        self.frame().caught = around;
        let at = made.at;
        match made.ty.clone() {
            Ty::Function(params, result) if params.len() == 1 => {
                let argument = Expr::local(error, error_ty, at);
                let argument =
                    self.coerce(argument, &params[0], node.span(), Place::Argument("the error", "otherwise", None));
                Expr::new(ExprKind::CallValue(Box::new(made), vec![argument]), (*result).clone(), at)
            }
            Ty::Function(params, _) => {
                let message = format!(
                    "`otherwise` calls a function with the error, and this one takes {} arguments",
                    params.len()
                );
                let wrong = self.finding(Code::E0304, node.span(), message);
                self.refuse(wrong.help("give it one parameter, or call it: `otherwise f(…)`"))
            }
            _ => made,
        }
    }
}

/// Whether an expression can raise because it calls something.
fn is_fallible(node: &ast::Expr) -> bool {
    match node {
        ast::Expr::ParenExpr(paren) => paren.inner().is_some_and(|inner| is_fallible(&inner)),
        ast::Expr::CallExpr(_) | ast::Expr::PipeExpr(_) => true,
        _ => false,
    }
}

fn works_with_any(ty: &Ty) -> bool {
    matches!(ty, Ty::Any | Ty::Int | Ty::Float | Ty::Str | Ty::Duration | Ty::List(_))
}

fn operator_of(op: BinaryOp) -> Operator {
    match op {
        BinaryOp::Multiply => Operator::Mul,
        BinaryOp::Divide => Operator::Div,
        BinaryOp::Remainder => Operator::Rem,
        BinaryOp::Subtract => Operator::Sub,
        BinaryOp::Equal => Operator::Eq,
        BinaryOp::NotEqual => Operator::Ne,
        BinaryOp::Less => Operator::Lt,
        BinaryOp::LessOrEqual => Operator::Le,
        BinaryOp::Greater => Operator::Gt,
        BinaryOp::GreaterOrEqual => Operator::Ge,
        BinaryOp::In => Operator::In,
        // The other three do not evaluate both sides and never come here.
        BinaryOp::Add | BinaryOp::Coalesce | BinaryOp::And | BinaryOp::Or => Operator::Add,
    }
}

fn sign_of(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Multiply => "*",
        BinaryOp::Divide => "/",
        BinaryOp::Remainder => "%",
        BinaryOp::Add => "+",
        BinaryOp::Subtract => "-",
        BinaryOp::Coalesce => "??",
        BinaryOp::Equal => "==",
        BinaryOp::NotEqual => "!=",
        BinaryOp::Less => "<",
        BinaryOp::LessOrEqual => "<=",
        BinaryOp::Greater => ">",
        BinaryOp::GreaterOrEqual => ">=",
        BinaryOp::In => "in",
        BinaryOp::And => "and",
        BinaryOp::Or => "or",
    }
}

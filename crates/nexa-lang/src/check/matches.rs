//! `match`: patterns become tests and bindings (`patterns`), and the arms a chain of choices.

use nexa_vm::op::Asking;

use super::Checker;
use super::coverage::{self, Cover};
use super::expressions::Use;
use super::literals::block_of;
use super::patterns::Tested;
use super::places::Place;
use super::questions::Run;
use crate::ast::{self, AstNode, Pattern};
use crate::diagnostic::{Code, Diagnostic};
use crate::hir::{Expr, ExprKind};
use crate::source::Span;
use crate::types::Ty;

impl Checker<'_> {
    pub(super) fn match_expr(&mut self, node: &ast::MatchExpr, usage: Use<'_>) -> Expr {
        let Some(subject_node) = node.subject() else { return self.broken(node.span()) };
        let at = self.at(node);
        let subject = self.expr(&subject_node, None);
        let mut statements = Vec::new();
        let subject = if matches!(subject.kind, ExprKind::Local(_)) {
            subject
        } else {
            self.set_aside(subject, &mut statements, at)
        };
        // What the arms so far take whatever their guards say.
        let mut covers: Vec<Cover> = Vec::new();
        let mut arms: Vec<(Option<Expr>, Expr, Span)> = Vec::new();
        let mut ty = Ty::Never;
        // What is wrong with a pattern was said; nothing is said of what that leads to.
        let mut is_judged = !subject.ty.is_silent();
        let nodes = node.arms();
        let mut run: Option<(Run, usize)> = None;
        for (place, arm) in nodes.iter().enumerate() {
            let (Some(pattern), Some(body)) = (arm.pattern(), arm.body()) else { continue };
            if intent_of(arm).is_none() {
                run = None;
            } else if run.is_none() {
                let labels: Vec<_> = nodes[place..].iter().map_while(intent_of).collect();
                let labels = labels.iter().map(|words| self.words(words)).collect();
                let about = self.as_subject(subject.clone(), subject_node.span());
                run = Some((self.run_of(Asking::Intent, labels, &about, pattern.span()), place));
            }
            let opened = self.open_block();
            let known = self.diagnostics.len();
            let tested = match &run {
                Some((run, first)) => Tested::asked(self.run_test(run, place - first, pattern.span())),
                None => self.pattern(&pattern, &subject, &covers),
            };
            self.report_bound_twice(opened);
            if subject.ty.is_silent() || self.diagnostics[known..].iter().any(Diagnostic::is_error) {
                is_judged = false;
                self.bind_rest(&pattern, opened);
            }
            if is_judged {
                self.check_reached(&subject, &covers, &tested.cover, pattern.span());
            }
            let guard = arm.guard().map(|guard| self.condition(Some(guard), pattern.span()));
            if guard.is_none() {
                covers.push(tested.cover);
            }
            let test = match (tested.test, guard) {
                (Some(test), Some(guard)) => {
                    Some(Expr::new(ExprKind::And(Box::new(test), Box::new(guard)), Ty::Bool, at))
                }
                (test, guard) => test.or(guard),
            };
            let value = self.body(&body, usage);
            self.close_block(opened);
            // The values of statement arms are dropped; whether they end is what counts.
            let value_ty = match usage {
                Use::Nothing if value.ty != Ty::Never => Ty::Unit,
                _ => value.ty.clone(),
            };
            ty = self.types.join(&ty, &value_ty);
            arms.push((test, value, arm.span()));
        }
        if is_judged {
            let asks = nodes.iter().any(|arm| intent_of(arm).is_some());
            self.check_exhaustive(&subject, &covers, asks, node);
        }
        let mut chain = Expr::new(ExprKind::Unreachable, Ty::Never, at);
        for (test, value, span) in arms.into_iter().rev() {
            let value = match usage {
                Use::Value(_) => self.coerce(value, &ty, span, Place::Arm),
                Use::Nothing => value,
            };
            chain = match test {
                Some(test) => Expr::new(ExprKind::If(Box::new(test), Box::new(value), Box::new(chain)), ty.clone(), at),
                None => value,
            };
        }
        block_of(statements, Expr { ty, ..chain })
    }

    /// W0316 for an arm that the arms before it leave nothing to.
    fn check_reached(&mut self, subject: &Expr, before: &[Cover], cover: &Cover, span: Span) {
        if coverage::is_reached(&self.types, before, cover, &subject.ty) {
            return;
        }
        let help = match cover {
            Cover::Case(case, _) if !before.contains(&Cover::All) && &**case != coverage::ANYTHING => {
                format!("an arm before it takes every `{case}`")
            }
            _ => "the arms before it take every value".to_owned(),
        };
        let dead = self.finding(Code::W0316, span, "this arm is never reached").help(help);
        self.report(dead);
    }

    /// T7: what every value of the subject meets.
    fn check_exhaustive(&mut self, subject: &Expr, covers: &[Cover], asks: bool, node: &ast::MatchExpr) {
        if node.is_broken() {
            return;
        }
        let mut missing = coverage::left_out(&self.types, covers, &subject.ty);
        // Where a model has a say, there is always something left.
        if missing.is_empty() && asks && !covers.contains(&Cover::All) {
            missing = vec![coverage::ANYTHING.into()];
        }
        if missing.is_empty() {
            return;
        }
        let start = node.span().start;
        let span = Span::new(start, start + "match".len() as u32);
        let shown = missing.iter().map(|case| if case == coverage::ANYTHING { "every other value" } else { case });
        let message = format!("this `match` leaves out {}", super::listed(shown));
        let lacks =
            self.finding(Code::E0315, span, message).help("add an arm for each, or `_ => …` for all that is left");
        self.report(lacks);
    }
}

/// The words of an arm `intent("…")`.
fn intent_of(arm: &ast::Arm) -> Option<ast::StringExpr> {
    match arm.pattern()? {
        Pattern::IntentPat(intent) => intent.question(),
        _ => None,
    }
}

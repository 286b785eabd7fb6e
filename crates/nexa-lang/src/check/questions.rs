//! Questions to a model: `semantic_if`, `verify`, `assert`, `reflect`, and words where a condition stands.
//!
//! Each becomes one [`ExprKind::Ask`]; a run of adjacent intents, or of conditions in words, is one question with labels.

use nexa_vm::op::Asking;

use super::Checker;
use super::literals::block_of;
use super::places::Place;
use crate::ast::{self, AstNode};
use crate::diagnostic::Code;
use crate::hir::{Ask, At, Const, Expr, ExprKind, Operator, Stmt, StmtKind};
use crate::source::Span;
use crate::types::{Fit, Ty, TypeTable};

/// What a model answers if none of the labels fits, where the program has an answer to that.
const NONE: &str = "none";
/// What a model is asked when it chooses an intent.
const WHICH_INTENT: &str = "Which of these does the text want or say?";
/// Labels of one question.
const LABELS_MAX: usize = 256;

/// The arms of a run that ask one question together: how each arm's test is made.
pub(super) struct Run {
    asking: Asking,
    subject: Expr,
    labels: Vec<Expr>,
    /// Holds which of them was chosen, if there are several.
    slot: u16,
}

impl Checker<'_> {
    /// A question to a model.
    pub(super) fn ask(
        &mut self,
        asking: Asking,
        question: Expr,
        subject: Expr,
        labels: Option<Expr>,
        span: Span,
    ) -> Expr {
        if self.is_effect_in_fn(span, "a question to a model") || question.ty == Ty::Broken || subject.ty == Ty::Broken
        {
            return self.broken(span);
        }
        let ty = match (asking, &labels) {
            (Asking::Reflect, _) => Ty::Str,
            (Asking::Judge, _) | (_, Some(_)) => Ty::Int,
            (_, None) => Ty::Bool,
        };
        let at = self.at_span(span);
        Expr::new(ExprKind::Ask(Box::new(Ask { asking, question, subject, labels })), ty, at)
    }

    /// What a question is about; E0416 if a model cannot be shown it.
    pub(super) fn subject(&mut self, node: &ast::Expr) -> Expr {
        let value = self.expr(node, None);
        self.as_subject(value, node.span())
    }

    pub(super) fn as_subject(&mut self, value: Expr, span: Span) -> Expr {
        if value.ty.is_silent() {
            return value;
        }
        let Some(culprit) = self.types.not_for_models(&value.ty, false) else { return value };
        let message = format!("a model is asked about `{}`, which it cannot be shown", self.show(&value.ty));
        let cannot = self.finding(Code::E0416, span, message);
        self.refuse(cannot.note(format!("`{}` has no JSON form", self.show(&culprit))))
    }

    /// `"c" against x`, as a condition.
    pub(super) fn holds(&mut self, words: &ast::Expr, subject: &ast::Expr, span: Span) -> Expr {
        let question = self.expect(words, &Ty::Str, Place::Arm);
        let subject = self.subject(subject);
        self.ask(Asking::Question, question, subject, None, span)
    }

    /// `semantic_if`, in both forms. The answer says whether what follows is never reached.
    pub(super) fn semantic_if(&mut self, node: &ast::SemanticIfStmt, out: &mut Vec<Stmt>) -> bool {
        match (node.args(), node.arms()) {
            (Some(args), Some(arms)) => self.sorted(node, &args, &arms, out),
            _ => self.asked(node, out),
        }
    }

    /// `semantic_if "c" fast_match r"re" against x { … } else { … }`
    fn asked(&mut self, node: &ast::SemanticIfStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        let word = Span::new(at.start, at.start + "semantic_if".len() as u32);
        let (Some(words), Some(subject)) = (node.question(), node.subject()) else { return false };
        let condition = match node.fast_match() {
            None => self.holds(&words, &subject, word),
            Some(pattern) => {
                let question = self.expect(&words, &Ty::Str, Place::Arm);
                let question = self.set_aside(question, out, at);
                let pattern = self.pattern_text(&pattern);
                let value = self.subject(&subject);
                let value = if value.ty.is_silent() { value } else { self.set_aside(value, out, at) };
                let asked = self.ask(Asking::Question, question, value.clone(), None, word);
                match pattern {
                    Some(pattern) if !asked.ty.is_silent() => {
                        let text = Expr::new(ExprKind::Concat(vec![value]), Ty::Str, at);
                        let found = standard("regex.test", vec![pattern, text], Ty::Bool, at);
                        Expr::new(ExprKind::Or(Box::new(found), Box::new(asked)), Ty::Bool, at)
                    }
                    _ => self.broken(word),
                }
            }
        };
        let (then, then_ends) = node.then_block().map_or((Vec::new(), false), |block| self.block(&block));
        let (other, other_ends) = node.else_block().map_or((Vec::new(), false), |block| self.block(&block));
        out.push(Stmt { kind: StmtKind::If(condition, then, other), at });
        then_ends && other_ends
    }

    /// A pattern that is written out: E0404 if it is computed, E0317 if it is malformed.
    pub(super) fn pattern_text(&mut self, node: &ast::Expr) -> Option<Expr> {
        let made = self.expect(node, &Ty::Str, Place::Arm);
        if made.ty.is_silent() {
            return None;
        }
        let ExprKind::Const(Const::Str(pattern)) = &made.kind else {
            let computed = self.finding(Code::E0404, node.span(), "a pattern must be written out");
            self.report(computed.help("write it as a raw text: `r\"[a-z]+\"`"));
            return None;
        };
        self.check_pattern(pattern, node.span()).then_some(made)
    }

    /// E0317 if a regular expression is malformed, or can only be matched by going back.
    pub(super) fn check_pattern(&mut self, pattern: &str, span: Span) -> bool {
        let Err(why) = nexa_vm::stdlib::check_pattern(pattern) else { return true };
        let bad = self.finding(Code::E0317, span, format!("this is no regular expression: {why}"));
        self.report(bad.note("patterns match in linear time: there are no back-references and no look-around"));
        false
    }

    /// E0317 for `regex.…` with a malformed pattern that is written out.
    pub(super) fn check_constant_pattern(&mut self, function: &str, values: &[Expr], span: Span) -> bool {
        match values.first().map(|value| &value.kind) {
            Some(ExprKind::Const(Const::Str(pattern))) if function.starts_with("regex.") => {
                self.check_pattern(pattern, span)
            }
            _ => true,
        }
    }

    /// `semantic_if (x, "question") { "label" => arm, _ => arm }`
    fn sorted(
        &mut self,
        node: &ast::SemanticIfStmt,
        args: &ast::ArgList,
        arms: &[ast::Arm],
        out: &mut Vec<Stmt>,
    ) -> bool {
        let at = self.at(node);
        let word = Span::new(at.start, at.start + "semantic_if".len() as u32);
        let given: Vec<ast::Arg> = args.args().collect();
        let [Some(subject), Some(words)] = [0, 1].map(|place| given.get(place).and_then(ast::Arg::value)) else {
            let lacks = self.finding(Code::E0304, args.span(), "`semantic_if` takes a value and a question");
            self.report(lacks.help("write `semantic_if (x, \"which topic is it?\") { \"a\" => …, _ => … }`"));
            return false;
        };
        if let Some(extra) = given.get(2) {
            let extra =
                self.finding(Code::E0304, extra.span(), "`semantic_if` takes a value and a question, and no more");
            self.report(extra);
        }
        let subject = self.subject(&subject);
        // The value is evaluated before the question, as it is written.
        let subject =
            if subject.is_inert() || subject.ty.is_silent() { subject } else { self.set_aside(subject, out, at) };
        let question = self.expect(&words, &Ty::Str, Place::Arm);
        let mut labels: Vec<(String, Span)> = Vec::new();
        let mut bodies: Vec<(Vec<Stmt>, bool)> = Vec::new();
        let mut rest: Option<(Vec<Stmt>, bool)> = None;
        for arm in arms {
            let (Some(label), Some(body)) = (arm.condition(), arm.body()) else { continue };
            if rest.is_some() {
                let dead = self.finding(Code::W0316, label.span(), "this arm is never reached");
                self.report(dead.help("put `_ => …` last"));
            }
            let known = match &label {
                ast::Expr::PlaceholderExpr(_) => None,
                ast::Expr::StringExpr(text) if text.plain().is_some() => text.plain(),
                other => {
                    let computed = self.finding(Code::E0404, other.span(), "a label is a text that is written out");
                    self.report(computed);
                    Some(String::new())
                }
            };
            let opened = self.open_block();
            let made = self.body_statements(&body);
            self.close_block(opened);
            match known {
                None => rest = rest.or(Some(made)),
                Some(text) => {
                    if let Some((_, first)) = labels.iter().find(|(known, _)| *known == text) {
                        let dead = self.finding(Code::W0316, label.span(), "this arm is never reached");
                        self.report(dead.label(*first, "this arm has the same label"));
                        continue;
                    }
                    labels.push((text, label.span()));
                    bodies.push(made);
                }
            }
        }
        if labels.is_empty() || labels.len() > LABELS_MAX {
            let message = format!("a question has from 1 to {LABELS_MAX} labels, and this has {}", labels.len());
            let wrong = self.finding(Code::E0304, word, message);
            self.report(wrong);
            return false;
        }
        let mut texts: Vec<Expr> = labels.iter().map(|(label, _)| Expr::text(label, at)).collect();
        if rest.is_some() {
            texts.push(Expr::text(self.none_of(labels.iter().map(|(label, _)| label.as_str())), at));
        }
        let texts = Expr::new(ExprKind::List(texts), Ty::list(Ty::Str), at);
        let chosen = self.ask(Asking::Question, question, subject, Some(texts), word);
        let chosen = if chosen.ty.is_silent() { chosen } else { self.set_aside(chosen, out, at) };
        // One of the labels was chosen, so the last one is what is left.
        let (last, mut ends) = match rest {
            Some(rest) => rest,
            None => bodies.pop().unwrap_or_default(),
        };
        let mut chain = last;
        for (place, (body, body_ends)) in bodies.into_iter().enumerate().rev() {
            ends &= body_ends;
            let test = is_chosen(&chosen, place, at);
            chain = vec![Stmt { kind: StmtKind::If(test, body, chain), at }];
        }
        out.extend(chain);
        ends
    }

    /// The label for "none of these", which none of the others is.
    fn none_of<'l>(&self, mut labels: impl Iterator<Item = &'l str>) -> &'static str {
        if labels.any(|label| label == NONE) { "none of these" } else { NONE }
    }

    /// `verify x satisfies P`, `verify "c" against x`
    pub(super) fn verify_statement(&mut self, node: &ast::VerifyStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        let word = Span::new(at.start, at.start + "verify".len() as u32);
        let Some(value) = node.value() else { return false };
        if let Some(subject) = node.subject() {
            self.demand(&value, &subject, word, "verify_failed", None, out);
            return false;
        }
        let Some(written) = node.ty() else { return false };
        let ty = self.ty(&written);
        let made = self.expr(&value, None);
        if ty.is_silent() || made.ty.is_silent() {
            return false;
        }
        if self.types.fit(&made.ty, &ty) == Fit::No && self.types.unchecked(&made.ty, &ty).is_none() {
            // The checker knows already that it cannot be; a value of the type is never anything else.
            self.coerce(made, &ty, value.span(), Place::Let(written.span()));
            return false;
        }
        let kept = self.set_aside(made, out, at);
        self.demand_type(kept, &ty, word, out);
        false
    }

    /// Asks whether something holds, and raises an error if it does not.
    pub(super) fn demand(
        &mut self,
        words: &ast::Expr,
        subject: &ast::Expr,
        span: Span,
        code: &str,
        reason: Option<&ast::Expr>,
        out: &mut Vec<Stmt>,
    ) {
        let at = self.at_span(span);
        let question = self.expect(words, &Ty::Str, Place::Arm);
        let question =
            if question.is_inert() || question.ty.is_silent() { question } else { self.set_aside(question, out, at) };
        let value = self.subject(subject);
        let message = match reason {
            Some(reason) => self.expect(reason, &Ty::Str, Place::Arm),
            None => {
                let parts = vec![Expr::text("it does not hold: ", at), question.clone()];
                Expr::new(ExprKind::Concat(parts), Ty::Str, at)
            }
        };
        let holds = self.ask(Asking::Question, question, value, None, span);
        let fails = Expr::new(ExprKind::Not(Box::new(holds)), Ty::Bool, at);
        out.push(Stmt { kind: StmtKind::If(fails, vec![raised(code, message, at)], Vec::new()), at });
    }

    /// A run of adjacent questions about one subject.
    pub(super) fn run_of(&mut self, asking: Asking, labels: Vec<Expr>, subject: &Expr, span: Span) -> Run {
        let slot = if labels.len() > 1 { self.temporary(span) } else { 0 };
        // Several conditions together are a choice between intents; one is a question of its own.
        let asking = if labels.len() > 1 { Asking::Intent } else { asking };
        Run { asking, subject: subject.clone(), labels, slot }
    }

    /// The test of one arm of a run; that of the first one asks.
    pub(super) fn run_test(&mut self, run: &Run, place: usize, span: Span) -> Expr {
        let at = self.at_span(span);
        if let [only] = run.labels.as_slice() {
            return self.ask(run.asking, only.clone(), run.subject.clone(), None, span);
        }
        let chosen = Expr::local(run.slot, Ty::Int, at);
        let test = is_chosen(&chosen, place, at);
        if place > 0 {
            return test;
        }
        let mut labels = run.labels.clone();
        let texts = labels.iter().filter_map(|label| match &label.kind {
            ExprKind::Const(Const::Str(text)) => Some(&**text),
            _ => None,
        });
        let none = self.none_of(texts);
        labels.push(Expr::text(none, at));
        let labels = Expr::new(ExprKind::List(labels), Ty::list(Ty::Str), at);
        let asked = self.ask(run.asking, Expr::text(WHICH_INTENT, at), run.subject.clone(), Some(labels), span);
        if asked.ty.is_silent() {
            return asked;
        }
        block_of(vec![Stmt { kind: StmtKind::Store(run.slot, asked), at }], test)
    }

    /// The question of an intent or a condition in words.
    pub(super) fn words(&mut self, node: &ast::StringExpr) -> Expr {
        self.expect(&ast::Expr::StringExpr(node.clone()), &Ty::Str, Place::Arm)
    }
}

fn is_chosen(chosen: &Expr, place: usize, at: At) -> Expr {
    let place = Expr::constant(Const::Int(place as i64), at);
    Expr::new(ExprKind::Binary(Operator::Eq, Box::new(chosen.clone()), Box::new(place)), Ty::Bool, at)
}

/// A call of a standard function.
pub(super) fn standard(name: &str, args: Vec<Expr>, ty: Ty, at: At) -> Expr {
    let number = nexa_vm::stdlib::lookup(name).map_or(u16::MAX, |function| function.number);
    Expr::new(ExprKind::Std(number, args), ty, at)
}

/// Raises an error with a code.
pub(super) fn raised(code: &str, message: Expr, at: At) -> Stmt {
    let error = standard("core.error", vec![Expr::text(code, at), message], Ty::Named(TypeTable::ERROR), at);
    let raise = Expr::new(ExprKind::Raise(Box::new(error)), Ty::Never, at);
    Stmt { kind: StmtKind::Expr(raise), at }
}

//! Contracts: what a flow or an agent requires of its arguments, and what it ensures of its result.
//!
//! A condition is a bool over the parameters (and `result`, for `ensures`), or words that a model is asked about: the
//! arguments for `requires`, the result for `ensures`. It only computes: whatever else it asks for is E0413.
//!
//! The contracts of an agent are part of its loop, where a broken promise costs a repair turn. Those of a tool stand around
//! its call. Those of a flow or a `fn` stand around it: it becomes a function of its own, and under its name there is one
//! that checks, calls and checks.

use nexa_vm::op::Asking;

use super::Checker;
use super::declarations::Signature;
use super::questions::raised;
use super::scope::{Frame, FrameKind};
use crate::SyntaxKind;
use crate::ast::{self, AstNode};
use crate::diagnostic::Code;
use crate::hir::{self, At, Contract, Expr, ExprKind, Shape, Stmt, StmtKind};
use crate::source::Span;
use crate::syntax::SyntaxNode;
use crate::types::{Field, Ty};

/// The clauses between a signature and a body, in their order.
const CLAUSES: &[(SyntaxKind, &str)] = &[
    (SyntaxKind::UsesClause, "uses"),
    (SyntaxKind::ImplementsClause, "implements"),
    (SyntaxKind::RequiresClause, "requires"),
    (SyntaxKind::EnsuresClause, "ensures"),
    (SyntaxKind::BudgetClause, "budget"),
    (SyntaxKind::ScheduleClause, "schedule"),
];

/// The contracts of a callee.
#[derive(Default)]
pub(super) struct Contracts {
    pub(super) requires: Vec<Contract>,
    pub(super) ensures: Vec<Contract>,
    /// How many locals their conditions take: the parameters, the result, and what they need besides.
    pub(super) locals: u16,
}

impl Checker<'_> {
    /// The contracts that are written for a callee which gives a value of this type. The result is the local after the
    /// parameters.
    pub(super) fn contracts(
        &mut self,
        requires: &[ast::Expr],
        ensures: &[ast::Expr],
        signature: &Signature,
        result: &Ty,
        kind: FrameKind,
    ) -> Contracts {
        if requires.is_empty() && ensures.is_empty() {
            return Contracts::default();
        }
        let around = std::mem::take(&mut self.frames);
        self.frames.push(Frame::new(signature.name.to_string(), kind, None));
        for param in &signature.params {
            self.bind_param(&param.name, param.span, param.ty.clone());
        }
        let slot = self.temporary(signature.span);
        let arguments = |checker: &mut Self, at: At| checker.arguments_as_one(signature, at);
        let requires = self.conditions(requires, "requires", &arguments);
        self.bind_word("result", signature.span, result.clone(), slot);
        let about = |_: &mut Self, at: At| Some(Expr::local(slot, result.clone(), at));
        let ensures = self.conditions(ensures, "ensures", &about);
        let locals = self.frame().locals;
        self.frames = around;
        Contracts { requires, ensures, locals }
    }

    fn conditions(
        &mut self,
        nodes: &[ast::Expr],
        clause: &'static str,
        subject: &dyn Fn(&mut Self, At) -> Option<Expr>,
    ) -> Vec<Contract> {
        let mut contracts = Vec::new();
        for node in nodes {
            let at = self.at(node);
            let words = match node {
                ast::Expr::StringExpr(words) => Some(words),
                _ => None,
            };
            let before = self.in_contract.replace(clause);
            let condition = match words {
                Some(words) => self.words(words),
                None => self.condition(Some(node.clone()), node.span()),
            };
            self.in_contract = before;
            let holds = match words {
                None => condition,
                Some(_) => match subject(self, at) {
                    Some(subject) => {
                        let subject = self.as_subject(subject, node.span());
                        self.ask(Asking::Question, condition, subject, None, node.span())
                    }
                    None => {
                        let message = format!("`{clause}` in words is about the arguments, and there are none");
                        let nothing = self.finding(Code::E0413, node.span(), message);
                        self.refuse(nothing)
                    }
                },
            };
            let text = match words.and_then(ast::StringExpr::plain) {
                Some(words) => words,
                None => tidy(node.syntax()),
            };
            contracts.push(Contract { holds, text });
        }
        contracts
    }

    /// The clauses of a declaration stand in one order, so that whoever reads one knows where to look.
    pub(super) fn check_clauses(&mut self, decl: &impl AstNode) {
        let mut before: Vec<(usize, Span)> = Vec::new();
        for node in decl.syntax().children() {
            let Some(place) = CLAUSES.iter().position(|(kind, _)| *kind == node.kind()) else { continue };
            let (word, span) = (CLAUSES[place].1, Span::from(node.text_range()));
            let span = Span::new(span.start, span.start + word.len() as u32);
            let is_single = matches!(word, "budget" | "schedule");
            if let Some((_, first)) = before.iter().find(|(known, _)| is_single && *known == place) {
                let twice = self.finding(Code::E0402, span, format!("`{word}` is given twice"));
                self.report(twice.label(*first, "it is given here first"));
            } else if let Some((later, first)) = before.iter().find(|(known, _)| *known > place) {
                let message = format!("`{word}` stands before `{}`", CLAUSES[*later].1);
                let late = self.finding(Code::E0201, span, message).label(*first, "this comes after it");
                let order = super::listed(CLAUSES.iter().map(|(_, word)| *word));
                self.report(late.help(format!("the order of the clauses is {order}")));
            }
            before.push((place, span));
        }
    }

    /// The arguments of a call as one value: the only one as it is, several as a record.
    fn arguments_as_one(&self, signature: &Signature, at: At) -> Option<Expr> {
        let local = |place: usize, ty: &Ty| Expr::local(place as u16, ty.clone(), at);
        match signature.params.as_slice() {
            [] => None,
            [only] => Some(local(0, &only.ty)),
            params => {
                let fields = params.iter().map(|param| std::rc::Rc::clone(&param.name)).collect();
                let values = params.iter().enumerate().map(|(place, param)| local(place, &param.ty)).collect();
                let field = |param: &super::declarations::Param| Field {
                    name: std::rc::Rc::clone(&param.name),
                    ty: param.ty.clone(),
                    doc: "".into(),
                };
                let ty = Ty::Record(params.iter().map(field).collect());
                Some(Expr::new(ExprKind::Record(Shape { fields, ..Shape::default() }, values), ty, at))
            }
        }
    }

    /// E0413 where a contract would do more than compute; the answer says whether it would.
    pub(super) fn is_effect_in_contract(&mut self, span: Span, what: &str) -> bool {
        let Some(clause) = self.in_contract else { return false };
        let message = format!("`{clause}` only computes, and {what} reaches outside");
        let effect = self.finding(Code::E0413, span, message);
        self.report(effect.help("use parameters, functions declared with `fn`, or a condition in words"));
        true
    }

    /// A flow with contracts: its own function goes elsewhere, and this one checks, calls it, and checks.
    pub(super) fn guarded(&mut self, contracts: Contracts, inner: hir::Function, result: &Ty) -> hir::Function {
        let at = inner.at;
        let arity = inner.params.len();
        let params = inner.params.iter().enumerate();
        let args = params.map(|(place, ty)| Expr::local(place as u16, ty.clone(), at)).collect();
        let mut body: Vec<Stmt> = contracts.requires.iter().map(|contract| broken(contract, "requires", at)).collect();
        let guard = hir::Function { body: Vec::new(), locals: contracts.locals, ..inner.clone() };
        self.functions.push(inner);
        let call = Expr::new(ExprKind::Call(self.functions.len() as u32 - 1, args), result.clone(), at);
        body.push(Stmt { kind: StmtKind::Store(arity as u16, call), at });
        body.extend(contracts.ensures.iter().map(|contract| broken(contract, "ensures", at)));
        let value = Expr::local(arity as u16, result.clone(), at);
        body.push(Stmt { kind: StmtKind::Return(value), at });
        hir::Function { body, ..guard }
    }
}

/// Raises `contract_violated` unless a condition holds.
fn broken(contract: &Contract, clause: &str, at: At) -> Stmt {
    let fails = Expr::new(ExprKind::Not(Box::new(contract.holds.clone())), Ty::Bool, at);
    let message = Expr::text(&format!("`{clause}` does not hold: {}", contract.text), at);
    Stmt { kind: StmtKind::If(fails, vec![raised("contract_violated", message, at)], Vec::new()), at }
}

/// An expression as text that does not depend on spaces, comments and trailing commas.
fn tidy(node: &SyntaxNode) -> String {
    let tokens = node.descendants_with_tokens().filter_map(rowan::NodeOrToken::into_token);
    let tokens: Vec<String> =
        tokens.filter(|token| !token.kind().is_trivia()).map(|token| token.text().to_owned()).collect();
    let mut out = String::new();
    for (place, token) in tokens.iter().enumerate() {
        let next = tokens.get(place + 1).map_or("", String::as_str);
        if token == "," && matches!(next, ")" | "]" | "}") {
            continue;
        }
        let joins = out.is_empty()
            || out.ends_with(['(', '[', '.', '!'])
            || matches!(token.as_str(), ")" | "]" | "," | "." | "?" | ":")
            || (matches!(token.as_str(), "(" | "[")
                && out.ends_with(|last: char| last.is_alphanumeric() || last == '_'));
        if !joins {
            out.push(' ');
        }
        out.push_str(token);
    }
    out
}

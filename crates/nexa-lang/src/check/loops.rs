//! `loop (max: n) { … } until (c)`: the body first, then the test. And `defer`: what happens when a block is left.
//!
//! A loop becomes a `while` that counts its rounds: the first one is not asked about, and a round more than `max` raises
//! `loop_limit`. So `continue` leads to the test, as in every other loop.

use nexa_vm::op::Asking;

use super::Checker;
use super::places::Place;
use crate::ast::{self, AstNode};
use crate::diagnostic::Code;
use crate::hir::{At, Const, Expr, ExprKind, Operator, Part, Shape, Stmt, StmtKind};
use crate::source::Span;
use crate::syntax::SyntaxNode;
use crate::types::{Field, Ty, TypeTable};

/// How deep `defer`s may nest: each way out of a block repeats what is deferred, so each level doubles it at least.
const DEFERRED_DEPTH_MAX: u32 = 3;

impl Checker<'_> {
    /// The answer says whether what follows is never reached.
    pub(super) fn loop_statement(&mut self, node: &ast::LoopStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        let word = Span::new(at.start, at.start + "loop".len() as u32);
        let most = self.loop_max(node);
        if most.is_none() && !self.has_budget {
            let unbounded = self.finding(Code::E0601, word, "nothing bounds this loop");
            self.report(unbounded.help("write `loop (max: 10) { … }`, or give the flow a `budget { calls: … }`"));
        }
        let timeout = node.options().and_then(|options| self.timeout_of("loop", &options, out, at));
        let rounds = self.temporary(word);
        let mut statements = Vec::new();
        if let Some(Some(most)) = most {
            let most = if most.is_inert() { most } else { self.set_aside(most, out, at) };
            let count = Expr::local(rounds, Ty::Int, at);
            let is_over = Expr::new(ExprKind::Binary(Operator::Ge, Box::new(count), Box::new(most)), Ty::Bool, at);
            let raise = Stmt { kind: StmtKind::Expr(limit_reached(at)), at };
            statements.push(Stmt { kind: StmtKind::If(is_over, vec![raise], Vec::new()), at });
        }
        // Right before the loop, where `cost` looks for it.
        out.push(Stmt { kind: StmtKind::Store(rounds, Expr::constant(Const::Int(0), at)), at });
        statements.push(Stmt { kind: StmtKind::Increment(rounds, 1), at });
        self.frame().loops += 1;
        let (body, _) = node.body().map_or((Vec::new(), false), |body| self.block(&body));
        self.frame().loops -= 1;
        let is_left = super::statements::breaks(&body);
        statements.extend(body);
        let Some(until) = self.until(node) else { return false };
        let is_endless = matches!(until.kind, ExprKind::Const(Const::Bool(false)));
        let is_first = Expr::new(
            ExprKind::Binary(
                Operator::Eq,
                Box::new(Expr::local(rounds, Ty::Int, at)),
                Box::new(Expr::constant(Const::Int(0), at)),
            ),
            Ty::Bool,
            at,
        );
        let goes_on = Expr::new(ExprKind::Not(Box::new(until)), Ty::Bool, at);
        let condition = Expr::new(ExprKind::Or(Box::new(is_first), Box::new(goes_on)), Ty::Bool, at);
        let repeated = Stmt { kind: StmtKind::While(condition, statements), at };
        out.push(match timeout {
            Some(timeout) => Stmt { kind: StmtKind::Timed(timeout, vec![repeated]), at },
            None => repeated,
        });
        is_endless && !is_left
    }

    /// What `timeout: …` of a `try` or a `loop` says, evaluated before it begins.
    pub(super) fn timeout_of(
        &mut self,
        of: &'static str,
        options: &ast::ArgList,
        out: &mut Vec<Stmt>,
        at: At,
    ) -> Option<Expr> {
        let mut timeout: Option<Expr> = None;
        for arg in options.args() {
            let Some(value) = arg.value() else { continue };
            match arg.name().map(|name| name.text()).as_deref() {
                Some("timeout") if timeout.is_some() => {
                    let twice = self.finding(Code::E0304, arg.span(), format!("`{of}` gets `timeout` twice"));
                    self.report(twice);
                }
                Some("timeout") => {
                    let made = self.expect(&value, &Ty::Duration, Place::Argument("timeout", of, None));
                    timeout =
                        Some(if made.is_inert() || made.ty.is_silent() { made } else { self.set_aside(made, out, at) });
                }
                _ if of == "try" => {
                    let unknown = self.finding(Code::E0304, arg.span(), "`try` takes `timeout: …`");
                    let name = arg.name().map(|name| name.text()).unwrap_or_default();
                    let unknown = self.suggest(unknown, &name, ["timeout"]);
                    self.report(unknown.help("write `try (timeout: 30s) { … } catch (e) { … }`"));
                }
                _ => {}
            }
        }
        timeout.filter(|timeout| !timeout.ty.is_silent())
    }

    /// `defer e` and the statements after it in its block. The answer says whether their end is never reached.
    ///
    /// What is deferred runs when they end, return, break, continue or raise an error that can be caught; the last one
    /// deferred runs first. A VM that is interrupted, or ends with an error that no `catch` sees, runs none of it.
    pub(super) fn deferred(
        &mut self,
        node: &ast::DeferStmt,
        rest: &[ast::Stmt],
        after: Option<Span>,
        out: &mut Vec<Stmt>,
    ) -> bool {
        let at = self.at(node);
        self.depth += super::LEVEL;
        if self.depth > super::DEPTH_MAX {
            self.depth -= super::LEVEL;
            let many = self.finding(Code::E0210, node.span(), "too many `defer`s stand in one block");
            self.report(many.help("put what they do into one"));
            return false;
        }
        // What is deferred belongs to no loop and gives no result: `break` would leave something that is left already.
        let loops = std::mem::take(&mut self.frame().loops);
        self.frame().deferring += 1;
        if self.frame().deferring == DEFERRED_DEPTH_MAX + 1 {
            let deep = self.finding(Code::E0210, node.span(), "`defer`s nest too deep");
            self.report(deep.help("put what they do into a flow of its own"));
        }
        let mut body = Vec::new();
        match (node.body(), node.expr()) {
            (Some(block), _) => body = self.block(&block).0,
            (None, Some(expr)) => {
                self.expr_statement(&expr, &mut body);
            }
            (None, None) => {}
        }
        self.frame().loops = loops;
        self.frame().deferring -= 1;
        let is_return = |part: Part<'_>| matches!(part, Part::Stmt(Stmt { kind: StmtKind::Return(_), .. }));
        if self.frame().deferring == 0 && Part::any(&body, &|_| true, &is_return) {
            let lost = self.finding(Code::E0201, node.span(), "`return` stands inside of a `defer`");
            self.report(lost.help("what is deferred runs when the result is decided already"));
        }
        let (statements, ends) = self.statements(rest, after);
        out.push(Stmt { kind: StmtKind::Defer(body.into(), statements), at });
        self.depth -= super::LEVEL;
        ends
    }

    /// What `max` says: nothing if it is not there, nothing inside if it was reported.
    fn loop_max(&mut self, node: &ast::LoopStmt) -> Option<Option<Expr>> {
        let mut most: Option<Option<Expr>> = None;
        let mut has_unknown = false;
        for arg in node.options().into_iter().flat_map(|options| options.args().collect::<Vec<_>>()) {
            let Some(value) = arg.value() else { continue };
            let name = arg.name();
            let text = name.as_ref().map(ast::Name::text).unwrap_or_default();
            match (text.as_str(), &most) {
                ("max", None) => {
                    let made = self.expect(&value, &Ty::Int, Place::Argument("max", "loop", None));
                    if let ExprKind::Const(Const::Int(int)) = made.kind
                        && int < 1
                    {
                        self.out_of_range(value.span(), "max", &int.to_string(), "1 or more");
                    }
                    most = Some((!made.ty.is_silent()).then_some(made));
                }
                ("max", Some(_)) => {
                    let twice = self.finding(Code::E0304, arg.span(), "`loop` gets `max` twice");
                    self.report(twice);
                }
                ("timeout", _) => {}
                _ => {
                    has_unknown = true;
                    let unknown = self.finding(Code::E0304, arg.span(), "`loop` takes `max: …` and `timeout: …`");
                    let unknown = self.suggest(unknown, &text, ["max", "timeout"]);
                    self.report(unknown.help("write `loop (max: 10) { … } until (…)`"));
                }
            }
        }
        // What was written may have been a bound: one mistake is one error.
        most.or(has_unknown.then_some(None))
    }

    /// A record of the variables that a loop's body assigns and that are there after it.
    fn assigned_in(&mut self, node: &ast::LoopStmt, span: Span) -> Expr {
        let at = self.at_span(span);
        let assignments = node.body().map(|body| body.syntax().clone());
        let assignments = assignments.iter().flat_map(SyntaxNode::descendants).filter_map(ast::AssignStmt::cast);
        let mut names: Vec<ast::Name> = Vec::new();
        for name in assignments.filter_map(|assignment| root_name(assignment.target()?)) {
            if !names.iter().any(|known| known.text() == name.text()) && self.is_variable(&name.text()) {
                names.push(name);
            }
        }
        let mut fields = Vec::new();
        let mut values = Vec::new();
        for name in names {
            let Some(value) = self.variable(&name.text(), name.span()) else { continue };
            let value = self.as_subject(value, name.span());
            fields.push(Field { name: name.text().into(), ty: value.ty.clone(), doc: "".into() });
            values.push(value);
        }
        if values.is_empty() {
            let nothing =
                self.finding(Code::E0304, span, "this condition is about nothing: the loop assigns no variable");
            return self.refuse(nothing.help("say what it is about: `until (\"it is done\" against x)`"));
        }
        let shape = Shape { fields: fields.iter().map(|field| field.name.clone()).collect(), ..Shape::default() };
        Expr::new(ExprKind::Record(shape, values), Ty::Record(fields.into()), at)
    }

    /// The test after the body.
    fn until(&mut self, node: &ast::LoopStmt) -> Option<Expr> {
        let until = node.until()?;
        let condition = until.condition()?;
        let is_words = matches!(condition, ast::Expr::StringExpr(_));
        match until.subject() {
            Some(subject) => return Some(self.holds(&condition, &subject, condition.span())),
            None if is_words => {
                let question = self.expect(&condition, &Ty::Str, Place::Arm);
                let subject = self.assigned_in(node, until.span());
                return Some(self.ask(Asking::Question, question, subject, None, condition.span()));
            }
            None => {}
        }
        Some(self.condition(Some(condition), until.span()))
    }
}

/// Raises `loop_limit`.
fn limit_reached(at: At) -> Expr {
    let number = nexa_vm::stdlib::lookup("core.error").map_or(u16::MAX, |function| function.number);
    let words = ["loop_limit", "the loop ran `max` rounds and its condition does not hold"];
    let words = words.map(|text| Expr::text(text, at)).to_vec();
    let error = Expr::new(ExprKind::Std(number, words), Ty::Named(TypeTable::ERROR), at);
    Expr::new(ExprKind::Raise(Box::new(error)), Ty::Never, at)
}

/// The variable that an assignment changes, whatever part of it.
fn root_name(target: ast::Expr) -> Option<ast::Name> {
    let mut target = target;
    loop {
        target = match target {
            ast::Expr::NameRef(name) => return name.name(),
            ast::Expr::FieldExpr(field) => field.receiver()?,
            ast::Expr::IndexExpr(index) => index.receiver()?,
            _ => return None,
        };
    }
}

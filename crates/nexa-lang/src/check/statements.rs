//! Statements: `let`, assignment, loops, `return`, `try`; and whether the end of a block is ever reached.

use super::Checker;
use super::expressions::Use;
use super::places::Place;
use super::scope::FrameKind;
use crate::ast::{self, AstNode, Body, ForBinding, Pattern};
use crate::diagnostic::Code;
use crate::hir::{Const, Expr, ExprKind, ForEach, Item, Part, Stmt, StmtKind};
use crate::source::Span;
use crate::types::{Ty, TypeTable};

impl Checker<'_> {
    /// The statements of a block, and whether its end is never reached.
    pub(super) fn block(&mut self, block: &ast::Block) -> (Vec<Stmt>, bool) {
        self.depth += super::LEVEL;
        let made = if self.depth > super::DEPTH_MAX {
            let deep = self.finding(Code::E0210, block.span(), "the blocks nest too deep");
            self.report(deep.help("move the inner ones into a flow of their own"));
            (Vec::new(), true)
        } else {
            let opened = self.open_block();
            let nodes: Vec<ast::Stmt> = block.statements().collect();
            let made = self.statements(&nodes, None);
            self.close_block(opened);
            made
        };
        self.depth -= super::LEVEL;
        made
    }

    /// Some statements; `after` is what follows them in the same block.
    pub(super) fn statements(&mut self, nodes: &[ast::Stmt], after: Option<Span>) -> (Vec<Stmt>, bool) {
        let mut statements = Vec::new();
        let mut ends = false;
        for (place, node) in nodes.iter().enumerate() {
            if let ast::Stmt::DeferStmt(node) = node {
                ends = self.deferred(node, &nodes[place + 1..], after, &mut statements);
                break;
            }
            ends = self.statement(node, &mut statements);
            let next = nodes.get(place + 1).map(AstNode::span).or(after);
            if let (true, Some(next)) = (ends, next) {
                let dead = self
                    .finding(Code::E0507, next, "this is never reached")
                    .label(node.span(), "the block ends here")
                    .help("remove it, or move it before the statement that ends the block");
                self.report(dead);
                // It is checked all the same, so that its names count as used.
                let mut dropped = Vec::new();
                for node in &nodes[place + 1..] {
                    self.statement(node, &mut dropped);
                }
                break;
            }
        }
        (statements, ends)
    }

    /// One statement; the answer says whether what follows it is never reached.
    pub(super) fn statement(&mut self, node: &ast::Stmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        match node {
            ast::Stmt::Block(block) => {
                let (statements, ends) = self.block(block);
                out.push(Stmt { kind: StmtKind::Block(statements), at });
                ends
            }
            ast::Stmt::LetStmt(node) => self.let_statement(node, out),
            ast::Stmt::AssignStmt(node) => self.assignment(node, out),
            ast::Stmt::ExprStmt(node) => node.expr().is_some_and(|expr| self.expr_statement(&expr, out)),
            ast::Stmt::ReturnStmt(node) => self.return_statement(node, out),
            ast::Stmt::BreakStmt(_) | ast::Stmt::ContinueStmt(_) => {
                let is_break = matches!(node, ast::Stmt::BreakStmt(_));
                if self.frame().loops == 0 {
                    let word = if is_break { "break" } else { "continue" };
                    let lost = self.finding(Code::E0201, node.span(), format!("`{word}` stands outside of a loop"));
                    self.report(lost);
                    return false;
                }
                out.push(Stmt { kind: if is_break { StmtKind::Break } else { StmtKind::Continue }, at });
                true
            }
            ast::Stmt::WhileStmt(node) => self.while_statement(node, out),
            ast::Stmt::ForStmt(node) => self.for_statement(node, out),
            // A block hands over what stands after it, see `statements`.
            ast::Stmt::DeferStmt(node) => self.deferred(node, &[], None, out),
            ast::Stmt::SemanticIfStmt(node) => self.semantic_if(node, out),
            ast::Stmt::LoopStmt(node) => self.loop_statement(node, out),
            ast::Stmt::PassStmt(node) => self.pass_statement(node, out),
            ast::Stmt::VerifyStmt(node) => self.verify_statement(node, out),
            ast::Stmt::AssertStmt(node) => self.assert_statement(node, out),
            ast::Stmt::ScriptStmt(node) => self.script_statement(node, out),
        }
    }

    /// An expression whose value is dropped.
    pub(super) fn expr_statement(&mut self, node: &ast::Expr, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        match node {
            ast::Expr::IfExpr(node) => {
                let condition = self.condition(node.condition(), node.span());
                let (then, then_ends) =
                    node.then_body().map_or((Vec::new(), false), |body| self.body_statements(&body));
                let (other, other_ends) =
                    node.else_body().map_or((Vec::new(), false), |body| self.body_statements(&body));
                out.push(Stmt { kind: StmtKind::If(condition, then, other), at });
                then_ends && other_ends
            }
            ast::Expr::TryBlock(node) => self.try_block(node, out),
            ast::Expr::MatchExpr(node) => {
                let value = self.match_expr(node, Use::Nothing);
                let ends = value.ty == Ty::Never;
                out.push(Stmt { kind: StmtKind::Expr(value), at });
                ends
            }
            _ => {
                let value = self.expr(node, None);
                self.check_dropped(&value, node);
                let ends = value.ty == Ty::Never;
                out.push(Stmt { kind: StmtKind::Expr(value), at });
                ends
            }
        }
    }

    /// The statements of an arm, or of one side of an `if`.
    pub(super) fn body_statements(&mut self, body: &Body) -> (Vec<Stmt>, bool) {
        match body {
            Body::Block(block) => self.block(block),
            Body::Expr(expr) => {
                let mut statements = Vec::new();
                let ends = self.expr_statement(expr, &mut statements);
                (statements, ends)
            }
            Body::Stmt(stmt) => {
                let mut statements = Vec::new();
                let ends = self.statement(stmt, &mut statements);
                (statements, ends)
            }
        }
    }

    /// A value that is dropped should not be a failure nobody sees, nor a chain that never ran.
    fn check_dropped(&mut self, value: &Expr, node: &ast::Expr) {
        let is_result = match &value.ty {
            Ty::Result(..) => true,
            Ty::List(item) => matches!(**item, Ty::Result(..)),
            _ => false,
        };
        if is_result {
            let ignored = self
                .finding(Code::W0319, node.span(), "a failure in this result goes unseen")
                .help("unwrap it with `?`, look at it with `match`, or write `let _ = …`");
            self.report(ignored);
        } else if matches!(value.ty, Ty::Stage(..)) {
            let idle = self
                .finding(Code::E0504, node.span(), "this chain has no input, so nothing runs")
                .help("pipe a value into it: `x >> …`, or keep it: `let p = …`");
            self.report(idle);
        }
    }

    fn let_statement(&mut self, node: &ast::LetStmt, out: &mut Vec<Stmt>) -> bool {
        let value = match (node.ty(), node.value()) {
            (Some(written), Some(value)) => {
                let ty = self.ty(&written);
                let made = self.expect(&value, &ty, Place::Let(written.span()));
                // The variable has the type that is written, also when the value has a narrower one.
                Expr { ty: if made.ty.is_silent() { made.ty } else { ty }, ..made }
            }
            (None, Some(value)) => self.expr(&value, None),
            (_, None) => self.broken(node.span()),
        };
        let ends = value.ty == Ty::Never;
        let Some(pattern) = node.pattern() else { return ends };
        let opened = self.open_block();
        self.take_apart(&pattern, value, out);
        if !matches!(pattern, Pattern::NamePat(_)) {
            self.report_bound_twice(opened);
        }
        ends
    }

    fn return_statement(&mut self, node: &ast::ReturnStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        let frame = self.frame();
        if frame.kind == FrameKind::Branch {
            let lost = self.finding(Code::E0201, node.span(), "`return` stands inside of a branch");
            self.report(
                lost.help("a branch gives the value of its expression; put the `return` into a flow that it calls"),
            );
            return true;
        }
        let (written, returned) = (frame.result.clone(), frame.returned.clone());
        let value = match (node.value(), &written) {
            (Some(value), Some((ty, span))) => {
                let span = *span;
                self.expect(&value, ty, Place::Return(Some(span)))
            }
            (Some(value), None) => {
                let hint = returned.as_ref().map(|(ty, _)| ty.clone());
                let made = self.expr(&value, hint.as_ref());
                self.note_return(made, value.span(), returned)
            }
            (None, Some((ty, span))) if !matches!(ty, Ty::Unit | Ty::Any | Ty::Broken) => {
                let message = format!("this returns nothing, but the result is `{}`", self.show(ty));
                let lacks = self.finding(Code::E0301, node.span(), message).label(*span, "a value is promised here");
                self.refuse(lacks.help("write the value after `return`"))
            }
            (None, _) => {
                let unit = Expr::constant(Const::Unit, at);
                if written.is_none() { self.note_return(unit, node.span(), returned) } else { unit }
            }
        };
        out.push(Stmt { kind: StmtKind::Return(value), at });
        true
    }

    /// Finds the result type of a function without a written one.
    fn note_return(&mut self, value: Expr, span: Span, before: Option<(Ty, Span)>) -> Expr {
        let Some((known, first)) = before else {
            if value.ty != Ty::Never {
                self.frame().returned = Some((value.ty.clone(), span));
            }
            return value;
        };
        let joined = self.types.join(&known, &value.ty);
        // Returns before this one are compiled already, so they must fit as they are.
        if matches!(joined, Ty::Union(_)) || self.types.fit(&known, &joined) != crate::types::Fit::Same {
            let message =
                format!("this returns `{}`, and `{}` is returned before", self.show(&value.ty), self.show(&known));
            let differ =
                self.finding(Code::E0301, span, message).label(first, format!("this is `{}`", self.show(&known)));
            return self.refuse(differ.help("write the result type after `->`"));
        }
        let value = self.coerce(value, &joined, span, Place::Return(None));
        self.frame().returned = Some((joined, first));
        value
    }

    fn while_statement(&mut self, node: &ast::WhileStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        let condition = self.condition(node.condition(), node.span());
        let is_endless = matches!(condition.kind, ExprKind::Const(Const::Bool(true)));
        self.frame().loops += 1;
        let (body, _) = node.body().map_or((Vec::new(), false), |body| self.block(&body));
        self.frame().loops -= 1;
        let ends = is_endless && !breaks(&body);
        out.push(Stmt { kind: StmtKind::While(condition, body), at });
        ends
    }

    fn for_statement(&mut self, node: &ast::ForStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        let (Some(binding), Some(subject)) = (node.binding(), node.subject()) else { return false };
        let over = self.expr(&subject, None);
        let over = self.plain(over);
        let over = if matches!(over.ty, Ty::Stream(_)) { self.chunks(over) } else { over };
        self.refuse_any(&over.ty, subject.span(), "a list or dict");
        let opened = self.open_block();
        let (element, entry) = match &over.ty {
            Ty::List(item) => (Some((**item).clone()), None),
            Ty::Dict(key, value) => (None, Some(((**key).clone(), (**value).clone()))),
            Ty::Any => (Some(Ty::Any), Some((Ty::Any, Ty::Any))),
            ty if ty.is_silent() => (Some(Ty::Broken), Some((Ty::Broken, Ty::Broken))),
            _ => (None, None),
        };
        let wanted = if matches!(binding, ForBinding::Entry(..)) { entry.is_some() } else { element.is_some() };
        if !wanted {
            let message = format!("`{}` cannot be walked through like this", self.show(&over.ty));
            let wrong = self.finding(Code::E0301, subject.span(), message);
            self.report(match (&element, &entry) {
                (Some(_), _) => wrong.help("write `for each x in xs { … }`"),
                (_, Some(_)) => wrong.help("write `for (key, value) in m { … }`"),
                _ => wrong.help("lists and dicts can be walked through"),
            });
        }
        let element = element.unwrap_or(Ty::Broken);
        let (key, value) = entry.unwrap_or((Ty::Broken, Ty::Broken));
        let mut index = None;
        let mut inner = Vec::new();
        let item = match &binding {
            ForBinding::Item(pattern) => self.loop_item(pattern, element, &mut inner),
            ForBinding::IndexedItem(number, pattern) => {
                index = match self.loop_item(number, Ty::Int, &mut inner) {
                    Item::One(slot) => Some(slot),
                    _ => None,
                };
                self.loop_item(pattern, element, &mut inner)
            }
            ForBinding::Entry(first, second) => {
                let key = self.part_slot(first, key, &mut inner);
                let value = self.part_slot(second, value, &mut inner);
                Item::Parts(vec![key, value])
            }
        };
        self.report_bound_twice(opened);
        self.frame().loops += 1;
        let (rest, _) = node.body().map_or((Vec::new(), false), |body| self.block(&body));
        self.frame().loops -= 1;
        let body = inner.into_iter().chain(rest).collect();
        self.close_block(opened);
        out.push(Stmt { kind: StmtKind::ForEach(Box::new(ForEach { over, index, item, body })), at });
        false
    }

    pub(super) fn try_block(&mut self, node: &ast::TryBlock, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        let timeout = node.options().and_then(|options| self.timeout_of("try", &options, out, at));
        let (mut body, body_ends) = node.body().map_or((Vec::new(), false), |body| self.block(&body));
        if let Some(timeout) = timeout {
            body = vec![Stmt { kind: StmtKind::Timed(timeout, body), at }];
        }
        let Some(catch) = node.catch() else { return false };
        let opened = self.open_block();
        let error = match catch.name() {
            Some(name) => self.bind(&name, Ty::Named(TypeTable::ERROR)),
            None => self.temporary(catch.span()),
        };
        let around = self.frame().caught.replace(error);
        let (handler, handler_ends) = catch.body().map_or((Vec::new(), false), |body| self.block(&body));
        self.frame().caught = around;
        self.close_block(opened);
        out.push(Stmt { kind: StmtKind::Try(body, error, handler), at });
        body_ends && handler_ends
    }
}

/// Whether a loop's body leaves the loop with `break`.
pub(super) fn breaks(body: &[Stmt]) -> bool {
    // A `break` in an inner loop leaves only that one.
    let enter =
        |part: Part<'_>| !matches!(part, Part::Stmt(Stmt { kind: StmtKind::While(..) | StmtKind::ForEach(_), .. }));
    Part::any(body, &enter, &|part| matches!(part, Part::Stmt(Stmt { kind: StmtKind::Break, .. })))
}

//! Expressions: the dispatch, names, fields, indices, `if`, lambdas, blocks as values.

use std::rc::Rc;

use super::Checker;
use super::declarations::Signature;
use super::literals::block_of;
use super::modules::Item;
use super::places::Place;
use super::walks::Walk;
use crate::ast::{self, AstNode, Body, Name};
use crate::diagnostic::{Code, Diagnostic};
use crate::hir::{self, Const, Expr, ExprKind, Stmt};
use crate::source::Span;
use crate::types::Ty;

/// What becomes of a value.
#[derive(Clone, Copy)]
pub(super) enum Use<'t> {
    /// It is used, perhaps where a type is known.
    Value(Option<&'t Ty>),
    /// It is dropped.
    Nothing,
}

impl Checker<'_> {
    /// A value where a type is asked for.
    pub(super) fn expect(&mut self, node: &ast::Expr, ty: &Ty, place: Place<'_>) -> Expr {
        let value = self.expr(node, Some(ty));
        self.coerce(value, ty, node.span(), place)
    }

    /// A value; the type that is wanted, if any, helps literals and is not enforced.
    pub(super) fn expr(&mut self, node: &ast::Expr, want: Option<&Ty>) -> Expr {
        let level = if matches!(node, ast::Expr::PipeExpr(_)) { super::PIPE_LEVEL } else { super::LEVEL };
        self.depth += level;
        let value = if self.depth > super::DEPTH_MAX {
            let deep = self.finding(Code::E0210, node.span(), "the expression nests too deep");
            self.refuse(deep.help("give parts of it names with `let`"))
        } else {
            self.expr_here(node, want)
        };
        self.depth -= level;
        value
    }

    // Each arm is a call: this frame is on the stack once a level, so it must stay small.
    fn expr_here(&mut self, node: &ast::Expr, want: Option<&Ty>) -> Expr {
        match node {
            ast::Expr::LiteralExpr(node) => self.literal(node),
            ast::Expr::StringExpr(node) => self.wanted_string(node, want),
            ast::Expr::NameRef(node) => self.name_ref(node, want),
            ast::Expr::PlaceholderExpr(node) => self.placeholder(node.span()),
            ast::Expr::ParenExpr(node) => self.paren(node, want),
            ast::Expr::TupleExpr(node) => self.tuple(node, want),
            ast::Expr::ListExpr(node) => self.list(node, want),
            ast::Expr::RecordExpr(node) => self.record(node, want),
            ast::Expr::DictExpr(node) => self.empty_record_or_dict(node, want),
            ast::Expr::FieldExpr(node) => self.field(node, want),
            ast::Expr::CallExpr(node) => self.call(node, want),
            ast::Expr::IndexExpr(node) => self.index(node),
            ast::Expr::UnwrapExpr(node) => self.unwrap(node),
            ast::Expr::PrefixExpr(node) => self.prefix(node),
            ast::Expr::AwaitExpr(node) => self.await_handle(node),
            ast::Expr::SpawnExpr(node) => self.spawn(node),
            ast::Expr::BinaryExpr(node) => self.binary(node, want),
            ast::Expr::PipeExpr(node) => self.pipe(node),
            ast::Expr::BranchExpr(node) => self.branch(node),
            ast::Expr::RescueExpr(node) => self.rescue(node, want),
            ast::Expr::IfExpr(node) => self.if_value(node, want),
            ast::Expr::MatchExpr(node) => self.match_expr(node, Use::Value(want)),
            ast::Expr::TryExpr(node) => self.try_expr(node),
            ast::Expr::TryBlock(node) => self.try_value(node),
            ast::Expr::LambdaExpr(node) => self.lambda(node, want),
            ast::Expr::ForkExpr(node) => {
                self.is_effect_in_fn(node.span(), "a fork");
                self.fork(node)
            }
        }
    }

    /// Stands for a construct that this release does not have.
    pub(super) fn missing(&mut self, span: Span, construct: &str) -> Expr {
        let finding = self.not_available(span, construct);
        self.refuse(finding)
    }

    fn placeholder(&mut self, span: Span) -> Expr {
        let wrong = self.finding(Code::E0503, span, "`_` stands for a piped value, and nothing is piped here");
        self.refuse(wrong.help("use it as an argument of a stage: `x >> f(1, _)`"))
    }

    fn paren(&mut self, node: &ast::ParenExpr, want: Option<&Ty>) -> Expr {
        match node.inner() {
            Some(inner) => self.expr(&inner, want),
            None => self.broken(node.span()),
        }
    }

    /// E0201: `try { … } catch (e) { … }` is a statement.
    fn try_value(&mut self, node: &ast::TryBlock) -> Expr {
        let mut dropped = Vec::new();
        self.try_block(node, &mut dropped);
        let statement = self.finding(Code::E0201, node.span(), "`try { … }` is a statement and gives no value");
        self.refuse(
            statement.help("write `try e` for a result, `e otherwise …` for a substitute, or assign in the block"),
        )
    }

    /// `{}` is an empty dict unless a record is wanted.
    fn empty_record_or_dict(&mut self, node: &ast::DictExpr, want: Option<&Ty>) -> Expr {
        if node.entries().next().is_none()
            && let Some(want) = want.map(Ty::without_option)
            && let Some(fields) = self.types.fields(want)
            && !self.types.is_struct(want)
            && fields.iter().all(|field| matches!(field.ty, Ty::Option(_)))
        {
            let at = self.at(node);
            let names = fields.iter().map(|field| Rc::clone(&field.name)).collect();
            let shape = hir::Shape { type_name: self.shape_name(want), fields: names, ..hir::Shape::default() };
            let values = fields.iter().map(|_| Expr::constant(Const::None, at)).collect();
            return Expr::new(ExprKind::Record(shape, values), want.clone(), at);
        }
        self.dict(node, want)
    }

    fn name_ref(&mut self, node: &ast::NameRef, want: Option<&Ty>) -> Expr {
        let Some(name) = node.name() else { return self.broken(node.span()) };
        let text = name.text();
        if let Some(variable) = self.variable(&text, name.span()) {
            return variable;
        }
        if self.in_agent_text {
            return self.unseen(&name);
        }
        match self.item(&text).map(|known| known.item) {
            Some(item) => self.item_value(item, &name),
            None => match self.enum_of_case(&name, want) {
                Some(id) => self.case_value(id, &name),
                None => match super::standard::function(&text) {
                    Some(function) => self.standard_value(function, want, name.span()),
                    None => self.unknown_name(&name),
                },
            },
        }
    }

    /// A declared agent or flow as a value.
    pub(super) fn item_value(&mut self, item: Item, name: &Name) -> Expr {
        self.note_use(item, name.span());
        let at = self.at_span(name.span());
        match item {
            Item::Agent(number) => {
                self.is_effect_in_fn(name.span(), "an agent");
                let ty = self.agent_stage(number);
                Expr::new(ExprKind::Agent(number as u32), ty, at)
            }
            Item::Flow(number) => {
                if !self.is_fn(number) {
                    self.is_effect_in_fn(name.span(), "a flow");
                }
                let result = self.flow_result(number, name.span());
                let params = self.flows[number].signature.params.iter().map(|param| param.ty.clone()).collect();
                Expr::new(ExprKind::Closure(number as u32, Vec::new()), Ty::Function(params, Rc::new(result)), at)
            }
            Item::Tool(number) => self.tool_value(number, name.span()),
            Item::Type(id) => {
                let message = format!("`{}` is a type, not a value", name.text());
                let wrong = self.finding(Code::E0208, name.span(), message);
                let help = match self.cases(id).and_then(<[_]>::first) {
                    Some((tag, _)) => format!("name one of its cases: `{}.{tag}`", name.text()),
                    None if self.types.semantic(&Ty::Named(id)).is_some() => {
                        format!("check a value: `{}.check(…)`", name.text())
                    }
                    None => format!("make a value of it: `{} {{ … }}`", name.text()),
                };
                self.refuse(wrong.help(help))
            }
            Item::Module(_) => {
                let message = format!("`{}` is a file, not a value", name.text());
                let wrong = self.finding(Code::E0208, name.span(), message);
                self.refuse(wrong.help(format!("name something in it: `{}.name`", name.text())))
            }
            Item::Reported => self.broken(name.span()),
        }
    }

    /// The type of an agent as a value: a stage from its first parameter to its result.
    pub(super) fn agent_stage(&self, number: usize) -> Ty {
        let Signature { params, result, .. } = &*self.agents[number].signature;
        let input = params.first().map_or(Ty::Unit, |param| param.ty.clone());
        let output = result.as_ref().map_or(Ty::Str, |(ty, _)| ty.clone());
        Ty::Stage(Rc::new(input), Rc::new(output))
    }

    /// E0406: inside an agent's texts only parameters and prelude functions can be seen.
    fn unseen(&mut self, name: &Name) -> Expr {
        let text = name.text();
        let visible = self.visible();
        let unseen = self.finding(Code::E0406, name.span(), format!("this text cannot see `{text}`"));
        let unseen = self.suggest(unseen, &text, visible.iter().map(String::as_str));
        let help = "an agent's texts see its parameters; add one, and pass the value when it is called";
        self.refuse(unseen.help(help))
    }

    pub(super) fn unknown_name(&mut self, name: &Name) -> Expr {
        let text = name.text();
        if let Some(older) = self.older_name(name) {
            return self.refuse(older);
        }
        if let Some(clause) = self.in_contract {
            let visible = self.visible();
            let unseen = self.finding(Code::E0413, name.span(), format!("`{clause}` cannot see `{text}`"));
            let unseen = self.suggest(unseen, &text, visible.iter().map(String::as_str));
            let sees = if clause == "ensures" { "the parameters and `result`" } else { "the parameters" };
            return self.refuse(unseen.help(format!("it sees {sees}, and functions that only compute")));
        }
        if self.diagnostics.len() > super::SUGGESTIONS_MAX {
            let unknown = self.finding(Code::E0208, name.span(), format!("there is no `{text}` here"));
            return self.refuse(unknown);
        }
        let mut known = self.visible();
        known.extend(self.scopes[self.place_of(self.file)].names().map(str::to_owned));
        known.extend(self.case_names());
        known.extend(super::standard::prelude().chain(super::standard::modules()).map(str::to_owned));
        let unknown = self.finding(Code::E0208, name.span(), format!("there is no `{text}` here"));
        let unknown = self.suggest(unknown, &text, known.iter().map(String::as_str));
        self.refuse(unknown)
    }

    fn field(&mut self, node: &ast::FieldExpr, want: Option<&Ty>) -> Expr {
        let (Some(receiver), Some(name)) = (node.receiver(), node.field()) else { return self.broken(node.span()) };
        if let ast::Expr::NameRef(module) = &receiver
            && let Some(module) = module.name()
            && !self.is_variable(&module.text())
        {
            match self.item(&module.text()).map(|known| known.item) {
                Some(Item::Module(place)) => {
                    let item = self.item_of_module(place, &name);
                    return self.item_value(item, &name);
                }
                Some(Item::Type(id)) if self.cases(id).is_some() => return self.case_value(id, &name),
                Some(_) => {}
                None if super::standard::is_module(&module.text()) => {
                    let full = format!("{}.{}", module.text(), name.text());
                    return match super::standard::function(&full) {
                        Some(function) => self.standard_value(function, want, node.span()),
                        None => self.no_function(&module.text(), &name),
                    };
                }
                None if module.text() == "std" && name.text() == "shell" => {
                    let shell = self.finding(Code::E0904, node.span(), "`std.shell` runs code outside the sandbox");
                    return self.refuse(shell.help("declare a wasm or mcp tool"));
                }
                None if super::standard::is_later(&module.text()) => {
                    let construct = format!("`{}.{}`", module.text(), name.text());
                    return self.missing(node.span(), &construct);
                }
                None => {}
            }
        }
        if matches!(receiver, ast::Expr::FieldExpr(_) | ast::Expr::NameRef(_))
            && let Some((Item::Type(id), owner)) = self.static_item(&receiver)
        {
            if self.cases(id).is_some() {
                return self.case_value(id, &name);
            }
            if name.text() == "check" && self.types.semantic(&Ty::Named(id)).is_some() {
                return self.check_value(id, &owner, node.span());
            }
        }
        let value = self.expr(&receiver, None);
        self.field_of(value, &name)
    }

    /// E0312 for a union that is used as if it were one of its types.
    pub(super) fn unnarrowed(&self, span: Span, ty: &Ty, what: &str) -> Diagnostic {
        let message = format!("{what}, and which of `{}` this is is not known yet", self.show(ty));
        self.finding(Code::E0312, span, message).help("narrow it with `match` first: `match x { n: int => …, … }`")
    }

    /// A field of a value.
    pub(super) fn field_of(&mut self, value: Expr, name: &Name) -> Expr {
        let value = self.plain(value);
        let at = self.at_span(name.span());
        let text = name.text();
        if value.ty.is_silent() {
            return self.broken(name.span());
        }
        if value.ty == Ty::Any {
            return Expr::new(ExprKind::Field(Box::new(value), text.into()), Ty::Any, at);
        }
        if value.ty == Ty::Snapshot && text == "tries" {
            return Expr::new(ExprKind::Tries(Box::new(value)), Ty::Int, at);
        }
        let shown = self.show(&value.ty);
        let Some(fields) = self.types.fields(&value.ty) else {
            if matches!(value.ty, Ty::Union(_)) {
                let wide = self.unnarrowed(name.span(), &value.ty, &format!("the field `{text}` is asked for"));
                return self.refuse(wide);
            }
            let mut unknown = self.finding(Code::E0305, name.span(), format!("`{shown}` has no field `{text}`"));
            if matches!(value.ty, Ty::Option(_) | Ty::Result(..)) {
                unknown = unknown.help(format!("unwrap it first: `…?.{text}`"));
            } else if super::standard::method_names(&value.ty)
                .chain(Walk::names(&value.ty))
                .any(|method| method == text)
            {
                unknown = unknown.help(format!("it is a method; call it: `.{text}(…)`"));
            } else {
                let methods = super::standard::method_names(&value.ty).chain(Walk::names(&value.ty));
                unknown = self.suggest(unknown, &text, methods);
            }
            return self.refuse(unknown);
        };
        match fields.iter().find(|field| *field.name == *text) {
            Some(field) => Expr::new(ExprKind::Field(Box::new(value), Rc::clone(&field.name)), field.ty.clone(), at),
            None => {
                let unknown = self.finding(Code::E0305, name.span(), format!("`{shown}` has no field `{text}`"));
                let unknown = self.suggest(unknown, &text, fields.iter().map(|field| &*field.name));
                let known = super::listed(fields.iter().map(|field| &*field.name));
                self.refuse(unknown.note(format!("it has {known}")))
            }
        }
    }

    fn index(&mut self, node: &ast::IndexExpr) -> Expr {
        let (Some(receiver), Some(index)) = (node.receiver(), node.index()) else { return self.broken(node.span()) };
        let value = self.expr(&receiver, None);
        let value = self.plain(value);
        let (key, item) = match self.indexed(&value.ty) {
            Some(types) => types,
            None if value.ty.is_silent() => {
                self.expr(&index, None);
                return self.broken(node.span());
            }
            None => {
                if let Ty::Tuple(items) = value.ty.clone() {
                    return self.tuple_index(value, &items, &index);
                }
                if matches!(value.ty, Ty::Union(_)) {
                    let wide = self.unnarrowed(receiver.span(), &value.ty, "it is indexed");
                    return self.refuse(wide);
                }
                let message = format!("`{}` cannot be indexed", self.show(&value.ty));
                let wrong = self.finding(Code::E0305, receiver.span(), message);
                return self.refuse(wrong.help("lists, tuples and dicts can"));
            }
        };
        let index = self.expect(&index, &key, Place::Index);
        Expr::new(ExprKind::Index(Box::new(value), Box::new(index)), item, self.at(node))
    }

    /// What indexes a value of this type, and what that gives.
    pub(super) fn indexed(&self, ty: &Ty) -> Option<(Ty, Ty)> {
        match ty {
            Ty::List(item) => Some((Ty::Int, (**item).clone())),
            Ty::Dict(key, value) => Some(((**key).clone(), (**value).clone())),
            Ty::Any => Some((Ty::Any, Ty::Any)),
            _ => None,
        }
    }

    fn tuple_index(&mut self, value: Expr, items: &[Ty], index: &ast::Expr) -> Expr {
        let made = self.expect(index, &Ty::Int, Place::Index);
        let place = match made.kind {
            ExprKind::Const(Const::Int(int)) => usize::try_from(int).ok().filter(|place| *place < items.len()),
            _ if made.ty.is_silent() => return self.broken(index.span()),
            _ => None,
        };
        let Some(place) = place else {
            let last = items.len().saturating_sub(1);
            let wrong = self.finding(
                Code::E0305,
                index.span(),
                format!("a tuple of {} is indexed by a literal from 0 to {last}", items.len()),
            );
            return self.refuse(wrong);
        };
        let at = value.at;
        Expr::new(ExprKind::Index(Box::new(value), Box::new(made)), items[place].clone(), at)
    }

    fn if_value(&mut self, node: &ast::IfExpr, want: Option<&Ty>) -> Expr {
        let condition = self.condition(node.condition(), node.span());
        let at = self.at(node);
        let then = node.then_body().map(|body| (self.body(&body, Use::Value(want)), body_span(&body)));
        let other = node.else_body().map(|body| (self.body(&body, Use::Value(want)), body_span(&body)));
        let (Some((then, then_span)), Some((other, other_span))) = (then, other) else {
            if node.is_broken() {
                return self.broken(node.span());
            }
            let lacks = self.finding(Code::E0301, node.span(), "this `if` gives no value when its condition is false");
            return self.refuse(lacks.help("add `else …`"));
        };
        let ty = self.types.join(&then.ty, &other.ty);
        let then = self.coerce(then, &ty, then_span, Place::Arm);
        let other = self.coerce(other, &ty, other_span, Place::Arm);
        Expr::new(ExprKind::If(Box::new(condition), Box::new(then), Box::new(other)), ty, at)
    }

    /// A side of an `if`, an arm, or the body of a lambda.
    pub(super) fn body(&mut self, body: &Body, usage: Use<'_>) -> Expr {
        match (body, usage) {
            (Body::Expr(expr), Use::Value(want)) => self.expr(expr, want),
            (Body::Expr(expr), Use::Nothing) => {
                let mut statements = Vec::new();
                let ends = self.expr_statement(expr, &mut statements);
                self.done(statements, ends, expr.span())
            }
            (Body::Block(block), usage) => self.block_value(block, usage),
            (Body::Stmt(stmt), _) => {
                let mut statements = Vec::new();
                let ends = self.statement(stmt, &mut statements);
                self.done(statements, ends, stmt.span())
            }
        }
    }

    fn block_value(&mut self, block: &ast::Block, usage: Use<'_>) -> Expr {
        let Use::Value(want) = usage else {
            let (statements, ends) = self.block(block);
            return self.done(statements, ends, block.span());
        };
        let nodes: Vec<ast::Stmt> = block.statements().collect();
        let Some((ast::Stmt::ExprStmt(last), before)) = nodes.split_last() else {
            let (statements, ends) = self.block(block);
            return self.done(statements, ends, block.span());
        };
        let Some(last) = last.expr() else { return self.broken(block.span()) };
        let opened = self.open_block();
        let (mut statements, ends) = self.statements(before, Some(last.span()));
        let mut value = self.expr(&last, want);
        if let Some(inside) = deferred_rest(&mut statements) {
            // The value is computed before what is deferred runs.
            let at = value.at;
            value = match value.ty {
                Ty::Never => {
                    inside.push(Stmt { kind: hir::StmtKind::Expr(value), at });
                    Expr::new(ExprKind::Unreachable, Ty::Never, at)
                }
                _ => self.set_aside(value, inside, at),
            };
        }
        self.close_block(opened);
        let value = block_of(statements, value);
        if ends { Expr { ty: Ty::Never, ..value } } else { value }
    }

    /// Statements as an expression: `()`, or nothing at all if their end is never reached.
    fn done(&self, statements: Vec<Stmt>, ends: bool, span: Span) -> Expr {
        let at = self.at_span(span);
        let unit = Expr::constant(Const::Unit, at);
        let value = if ends { Expr::new(ExprKind::Unreachable, Ty::Never, at) } else { unit };
        block_of(statements, value)
    }
}

/// The statements after the last `defer` of a block, if it has one: they are part of it.
fn deferred_rest(statements: &mut [Stmt]) -> Option<&mut Vec<Stmt>> {
    let Some(Stmt { kind: hir::StmtKind::Defer(_, rest), .. }) = statements.last_mut() else { return None };
    // Borrowed anew, because what is found deeper may be nothing.
    if matches!(rest.last(), Some(Stmt { kind: hir::StmtKind::Defer(..), .. })) {
        deferred_rest(rest)
    } else {
        Some(rest)
    }
}

fn body_span(body: &Body) -> Span {
    match body {
        Body::Expr(expr) => expr.span(),
        Body::Block(block) => block.span(),
        Body::Stmt(stmt) => stmt.span(),
    }
}

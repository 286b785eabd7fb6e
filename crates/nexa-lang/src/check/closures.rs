//! Functions as values: lambdas, and what stands for one without being written as one, such as `xs.map(text.upper)` and
//! `xs.map(Email.check)`. The latter becomes the lambda that would have been written: `fn(x) => text.upper(x)`.

use std::rc::Rc;

use nexa_vm::module::Schedule;

use super::Checker;
use super::calls::Piped;
use super::expressions::Use;
use super::scope::{Frame, FrameKind};
use super::standard::{Bindings, Function};
use crate::ast::{self, AstNode, Body, Name};
use crate::diagnostic::Code;
use crate::hir::{self, Const, Expr, ExprKind, Stmt, StmtKind};
use crate::source::Span;
use crate::types::{NamedId, Ty, TypeTable};

impl Checker<'_> {
    pub(super) fn lambda(&mut self, node: &ast::LambdaExpr, want: Option<&Ty>) -> Expr {
        let at = self.at(node);
        let (wanted, wanted_result) = match want.map(Ty::without_option) {
            Some(Ty::Function(params, result)) => (params.to_vec(), Some((**result).clone())),
            Some(Ty::Stage(input, output)) => (vec![(**input).clone()], Some((**output).clone())),
            _ => (Vec::new(), None),
        };
        let is_handler = std::mem::take(&mut self.is_handler);
        let frame = self.inner_frame("fn", FrameKind::Lambda);
        self.frames.push(frame);
        let (mut params, mut patterns, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for (place, param) in node.params().into_iter().flat_map(|list| list.params()).enumerate() {
            let ty = match param.ty() {
                Some(written) => self.ty(&written),
                None => wanted.get(place).cloned().unwrap_or(Ty::Any),
            };
            if let Some(default) = param.default() {
                let lost = self.finding(Code::E0201, default.span(), "a parameter of a lambda has no default");
                self.report(lost.help("whoever calls it gives all of its arguments; declare a `fn` instead"));
            }
            match param.name() {
                Some(name) => self.bind_param(&name.text().into(), name.span(), ty.clone()),
                None => {
                    let slot = self.temporary(param.span());
                    patterns.extend(param.pattern().map(|pattern| (pattern, slot, ty.clone())));
                }
            }
            params.push(ty);
        }
        if is_handler && params.first() == Some(&Ty::Named(TypeTable::ERROR)) {
            self.frame().caught = Some(0);
        }
        let opened = self.open_block();
        for (pattern, slot, ty) in patterns {
            self.take_apart(&pattern, Expr::local(slot, ty, at), &mut taken);
        }
        self.report_bound_twice(0);
        let hint = wanted_result.filter(|result| !matches!(result, Ty::Any | Ty::Never));
        let (body, result) = match node.body() {
            Some(Body::Block(block)) => {
                let (statements, ends) = self.block(&block);
                let end = block.close().map_or(block.span(), |close| close.text_range().into());
                (statements, self.result_of_body("fn", node.span(), end, ends))
            }
            Some(body) => {
                let value = self.body(&body, Use::Value(hint.as_ref()));
                let ty = value.ty.clone();
                (vec![Stmt { kind: StmtKind::Return(value), at }], ty)
            }
            None => (Vec::new(), Ty::Broken),
        };
        self.close_block(opened);
        taken.extend(body);
        let ty = Ty::Function(params.clone().into(), Rc::new(result));
        self.close_function(params, taken, ty, at)
    }

    /// A frame for a function inside the current one.
    pub(super) fn inner_frame(&mut self, word: &str, kind: FrameKind) -> Frame {
        let outer = self.frame();
        outer.inner += 1;
        let name = format!("{}.{word}#{}", outer.name, outer.inner);
        Frame::new(name, kind, None)
    }

    /// Ends the innermost function and gives the closure of it.
    pub(super) fn close_function(&mut self, params: Vec<Ty>, body: Vec<Stmt>, ty: Ty, at: hir::At) -> Expr {
        let Some(frame) = self.frames.pop() else { return Expr::new(ExprKind::Const(Const::Unit), Ty::Broken, at) };
        let captured = frame.captured(at);
        let captures = frame.capture_types();
        let number = self.functions.len() as u32;
        let arity = params.len() as u8;
        self.functions.push(hir::Function {
            name: frame.name,
            arity,
            params,
            locals: frame.locals,
            captures,
            body,
            is_pure: self.frames.first().is_some_and(|frame| frame.kind == FrameKind::Fn),
            schedule: Schedule::default(),
            is_test: self.in_test,
            grants: self.granted_tools(),
            model: String::new(),
            at,
        });
        Expr::new(ExprKind::Closure(number, captured), ty, at)
    }

    /// A standard function as a value. What is wanted says how many arguments it is called with, and of which types;
    /// otherwise it takes those that have no default.
    pub(super) fn standard_value(&mut self, function: &'static Function, want: Option<&Ty>, span: Span) -> Expr {
        let is_pure = nexa_vm::stdlib::lookup(function.name).is_some() || matches!(function.name, "str" | "ok" | "err");
        if !is_pure {
            let name = function.name;
            let effect = self.finding(Code::E0208, span, format!("`{name}` does something, and is not a value"));
            return self.refuse(effect.help(format!("call it, or write a function that does: `fn(x) => {name}(…)`")));
        }
        let wanted: &[Ty] = match want.map(Ty::without_option) {
            Some(Ty::Function(params, _)) => params,
            _ => &[],
        };
        let least = function.params.iter().filter(|param| param.default.is_none()).count();
        let count = if (least..=function.params.len()).contains(&wanted.len()) { wanted.len() } else { least };
        let mut bindings = Bindings::default();
        for (param, ty) in function.params.iter().zip(wanted) {
            bindings.learn(&param.ty, ty, &self.types);
        }
        let params: Vec<Ty> = function.params[..count].iter().map(|param| bindings.apply(&param.ty)).collect();
        let names: Vec<&str> = function.params[..count].iter().map(|param| param.name).collect();
        self.lambda_of(&names, params, span, |checker, values| {
            let values = values.into_iter().enumerate().map(|(place, value)| (place, value, span, false)).collect();
            checker.standard_of(function, values, span)
        })
    }

    /// `Email.check` as a value.
    pub(super) fn check_value(&mut self, id: NamedId, owner: &Name, span: Span) -> Expr {
        let base = self.types.base(&Ty::Named(id)).clone();
        self.lambda_of(&["value"], vec![base], span, |checker, values| match values.into_iter().next() {
            Some(value) => checker.check_call(id, owner, &[], Some(Piped { value, span }), span),
            None => checker.broken(span),
        })
    }

    /// A lambda that gives what is made of its parameters.
    fn lambda_of(
        &mut self,
        names: &[&str],
        params: Vec<Ty>,
        span: Span,
        make: impl FnOnce(&mut Self, Vec<Expr>) -> Expr,
    ) -> Expr {
        let at = self.at_span(span);
        let frame = self.inner_frame("fn", FrameKind::Lambda);
        self.frames.push(frame);
        for (name, ty) in names.iter().zip(&params) {
            self.bind_param(&Rc::from(*name), span, ty.clone());
        }
        let values = (0u16..).zip(&params).map(|(slot, ty)| Expr::local(slot, ty.clone(), at)).collect();
        let value = make(self, values);
        let ty = Ty::Function(params.clone().into(), Rc::new(value.ty.clone()));
        let body = vec![Stmt { kind: StmtKind::Return(value), at }];
        self.close_function(params, body, ty, at)
    }
}

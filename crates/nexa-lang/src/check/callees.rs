//! What stands in front of the parentheses of a call: a declaration, a standard function, a method, or a value.

use nexa_event::effect::TestCall;

use super::Checker;
use super::calls::Piped;
use super::modules::Item;
use super::standard::{self, Function};
use super::walks::Walk;
use crate::ast::{self, AstNode, Name};
use crate::diagnostic::Code;
use crate::hir::Expr;
use crate::source::Span;
use crate::types::{NamedId, Ty};

/// What is called.
pub(super) enum Callee {
    Item(Item, Name),
    /// A standard function; a method has its receiver.
    Standard(&'static Function, Option<Piped>),
    /// A case of an enum.
    Case(NamedId, Name),
    /// A method that takes a function, and its receiver.
    Walk(Walk, Piped),
    /// A value: a function or a stage.
    Value(Expr, Span),
    /// The check of a semantic type.
    Check(NamedId, Name),
    /// A helper of a test.
    Test(TestCall, Name),
    /// A copy of an agent with other properties.
    Clone(usize, Name),
    /// An agent whose answer is streamed.
    Stream(usize, Name),
    /// The chunks of a stream.
    Collect(Expr),
    /// It was reported.
    Reported,
}

impl Checker<'_> {
    /// What an expression in front of parentheses, or as a stage, names.
    pub(super) fn callee(&mut self, node: &ast::Expr) -> Callee {
        match node {
            ast::Expr::NameRef(reference) => {
                let Some(name) = reference.name() else { return Callee::Reported };
                self.named_callee(&name)
            }
            ast::Expr::FieldExpr(field) => self.field_callee(field),
            ast::Expr::CallExpr(_) if let Some((item, owner)) = self.static_item(node) => Callee::Item(item, owner),
            _ => {
                let value = self.expr(node, None);
                Callee::Value(value, node.span())
            }
        }
    }

    fn named_callee(&mut self, name: &Name) -> Callee {
        let text = name.text();
        if let Some(variable) = self.variable(&text, name.span()) {
            return Callee::Value(variable, name.span());
        }
        if !self.in_agent_text
            && let Some(known) = self.item(&text)
        {
            return Callee::Item(known.item, name.clone());
        }
        if !self.in_agent_text
            && let Some(id) = self.enum_of_case(name, None)
        {
            return Callee::Case(id, name.clone());
        }
        if self.in_test
            && let Some(call) = super::tests::helper(&text)
        {
            return Callee::Test(call, name.clone());
        }
        if let Some(function) = standard::function(&text) {
            return Callee::Standard(function, None);
        }
        if standard::is_later(&text) {
            self.report_not_available(name.span(), &format!("`{text}`"));
        } else if self.in_agent_text {
            let unseen = self.finding(Code::E0406, name.span(), format!("this text cannot see `{text}`"));
            self.report(unseen.help("an agent's texts see its parameters and the standard functions"));
        } else if super::tests::helper(&text).is_some() {
            let lost = self.finding(Code::E0208, name.span(), format!("`{text}` is known inside of a `test` only"));
            self.report(lost);
        } else {
            self.unknown_name(name);
        }
        Callee::Reported
    }

    fn field_callee(&mut self, node: &ast::FieldExpr) -> Callee {
        let (Some(receiver), Some(name)) = (node.receiver(), node.field()) else { return Callee::Reported };
        let text = name.text();
        if let Some(tool) = self.std_tool(node) {
            return tool.map_or(Callee::Reported, |number| Callee::Item(Item::Tool(number), name));
        }
        if let Some((item, owner)) = self.static_item(&receiver) {
            return match item {
                Item::Module(place) => Callee::Item(self.item_of_module(place, &name), name),
                Item::Agent(_) | Item::Tool(_) | Item::Flow(_) if text == "run" => Callee::Item(item, owner),
                Item::Agent(number) if text == "clone" => Callee::Clone(number, owner),
                Item::Agent(number) if text == "stream" => Callee::Stream(number, owner),
                Item::Agent(_) | Item::Tool(_) | Item::Flow(_) => {
                    let message = format!("`{}` has no method `{text}`", owner.text());
                    let unknown = self.finding(Code::E0305, name.span(), message);
                    let known: &[&str] = match item {
                        Item::Agent(_) => &["run", "stream", "clone"],
                        _ => &["run"],
                    };
                    let unknown = self.suggest(unknown, &text, known.iter().copied());
                    self.report(unknown.help(format!("run it with `{}.run(…)`", owner.text())));
                    Callee::Reported
                }
                Item::Type(id) if self.cases(id).is_some() => Callee::Case(id, name),
                Item::Type(id) if self.types.semantic(&Ty::Named(id)).is_some() => {
                    if text == "check" {
                        return Callee::Check(id, owner);
                    }
                    let message = format!("`{}` has no method `{text}`", owner.text());
                    let unknown = self.finding(Code::E0305, name.span(), message);
                    self.report(unknown.help(format!("check a value with `{}.check(…)`", owner.text())));
                    Callee::Reported
                }
                Item::Type(_) => {
                    let message = format!("`{}` has no method `{text}`", owner.text());
                    let unknown = self.finding(Code::E0305, name.span(), message);
                    self.report(unknown.help(format!("check a value with `verify x satisfies {}`", owner.text())));
                    Callee::Reported
                }
                Item::Reported => Callee::Reported,
            };
        }
        if let ast::Expr::NameRef(module) = &receiver
            && let Some(module) = module.name()
            && !self.is_variable(&module.text())
        {
            let module_text = module.text();
            if standard::is_module(&module_text) {
                return match standard::function(&format!("{module_text}.{text}")) {
                    Some(function) => Callee::Standard(function, None),
                    None => {
                        self.no_function(&module_text, &name);
                        Callee::Reported
                    }
                };
            }
            if standard::is_later(&module_text) {
                self.report_not_available(node.span(), &format!("`{module_text}.{text}`"));
                return Callee::Reported;
            }
        }
        let value = self.expr(&receiver, None);
        self.method(value, receiver.span(), &name)
    }

    /// E0305 for a function that a standard module does not have.
    pub(super) fn no_function(&mut self, module: &str, name: &Name) -> Expr {
        let text = name.text();
        let unknown = self.finding(Code::E0305, name.span(), format!("`{module}` has no function `{text}`"));
        let unknown = self.suggest(unknown, &text, standard::functions_of(module));
        self.refuse(unknown)
    }

    /// A method of a value, or a field of it that is a function.
    fn method(&mut self, value: Expr, span: Span, name: &Name) -> Callee {
        let value = self.plain(value);
        let text = name.text();
        if value.ty.is_silent() {
            return Callee::Reported;
        }
        let has_field =
            self.types.fields(&value.ty).is_some_and(|fields| fields.iter().any(|field| *field.name == text));
        if has_field {
            let field = self.field_of(value, name);
            return Callee::Value(field, name.span());
        }
        if let Some(function) = standard::method(&value.ty, &text) {
            return Callee::Standard(function, Some(Piped { value, span }));
        }
        if matches!(value.ty, Ty::Stage(..)) && text == "run" {
            return Callee::Value(value, span);
        }
        if matches!(value.ty, Ty::Stream(_)) && text == "collect" {
            return Callee::Collect(value);
        }
        if let Some(walk) = Walk::of(&value.ty, &text) {
            return Callee::Walk(walk, Piped { value, span });
        }
        if matches!(value.ty, Ty::Union(_)) {
            let wide = self.unnarrowed(name.span(), &value.ty, &format!("the method `{text}` is called"));
            self.report(wide);
            return Callee::Reported;
        }
        let shown = self.show(&value.ty);
        let mut unknown = self.finding(Code::E0305, name.span(), format!("`{shown}` has no method `{text}`"));
        unknown = match &value.ty {
            Ty::Any => unknown.help("give the value a type first: `let x: list[str] = …`"),
            Ty::Stage(..) => unknown.help("run it with `.run(…)`, or pipe a value into it: `x >> stage`"),
            Ty::Stream(_) => {
                unknown.help("walk through it with `for each`, emit it, or take its chunks with `.collect()`")
            }
            ty => {
                let inner = ty.without_option();
                if inner != ty && standard::method(inner, &text).is_some() {
                    unknown.help(format!("unwrap it first: `…?.{text}(…)`"))
                } else {
                    self.suggest(unknown, &text, standard::method_names(ty).chain(Walk::names(ty)))
                }
            }
        };
        self.report(unknown);
        Callee::Reported
    }

    /// Reports a bare name that means nothing here, where a declaration is asked for.
    pub(super) fn unknown_item(&mut self, node: &ast::Expr) -> Option<Expr> {
        let ast::Expr::NameRef(reference) = node else { return None };
        let name = reference.name()?;
        let text = name.text();
        let is_known = self.is_variable(&text)
            || self.item(&text).is_some()
            || standard::function(&text).is_some()
            || standard::is_module(&text);
        (!is_known).then(|| self.unknown_name(&name))
    }

    /// The declaration that an expression names, if it is no variable.
    pub(super) fn static_item(&mut self, node: &ast::Expr) -> Option<(Item, Name)> {
        match node {
            ast::Expr::NameRef(reference) => {
                let name = reference.name()?;
                let text = name.text();
                if self.in_agent_text || self.is_variable(&text) {
                    return None;
                }
                Some((self.item(&text)?.item, name))
            }
            ast::Expr::CallExpr(call) => {
                // `A.clone(…)` names an agent as `A` does.
                let ast::Expr::FieldExpr(method) = call.callee()? else { return None };
                if method.field()?.text() != "clone" {
                    return None;
                }
                let (Item::Agent(number), owner) = self.static_item(&method.receiver()?)? else { return None };
                Some((Item::Agent(self.clone_agent(number, &owner, &call.args(), call.span())), owner))
            }
            ast::Expr::FieldExpr(field) => {
                let ast::Expr::NameRef(module) = field.receiver()? else { return None };
                let module = module.name()?.text();
                if self.in_agent_text || self.is_variable(&module) {
                    return None;
                }
                let Item::Module(place) = self.item(&module)?.item else { return None };
                let name = field.field()?;
                Some((self.item_of_module(place, &name), name))
            }
            _ => None,
        }
    }
}

//! Calls: what is called, which argument goes to which parameter, and what comes back.

use std::rc::Rc;

use super::Checker;
use super::callees::Callee;
use super::literals::block_of;
use super::modules::Item;
use super::places::Place;
use super::standard::{Bindings, Default, Function};
use crate::ast::{self, AstNode, Name};
use crate::diagnostic::Code;
use crate::hir::{At, Const, Expr, ExprKind};
use crate::source::{FileId, Span};
use crate::types::{Ty, TypeTable};

/// A value that a pipeline operator hands to a stage.
#[derive(Clone)]
pub(super) struct Piped {
    pub(super) value: Expr,
    pub(super) span: Span,
}

/// A parameter as arguments are bound to it.
pub(super) struct Slot<'s> {
    pub(super) name: &'s str,
    pub(super) ty: Ty,
    pub(super) declared: Option<(FileId, Span)>,
    pub(super) default: Option<Expr>,
}

/// An argument: written, or piped.
pub(super) enum Given {
    Written(ast::Expr),
    Piped(Piped),
}

impl Checker<'_> {
    pub(super) fn call(&mut self, node: &ast::CallExpr, want: Option<&Ty>) -> Expr {
        if let Some(case) = self.wanted_case(node, want) {
            return case;
        }
        let Some(callee) = node.callee() else { return self.broken(node.span()) };
        self.call_with(&callee, &node.args(), None, node.span())
    }

    /// A call, with a piped value or without.
    pub(super) fn call_with(
        &mut self,
        callee: &ast::Expr,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        match self.callee(callee) {
            Callee::Item(Item::Agent(number), name) => self.run_agent(number, &name, args, piped, span),
            Callee::Item(Item::Tool(number), name) => self.call_tool(number, name.span(), args, piped, span),
            Callee::Item(Item::Flow(number), name) => self.call_flow(number, &name, args, piped, span),
            Callee::Item(item, name) => {
                self.look_at(args);
                self.item_value(item, &name)
            }
            Callee::Case(id, name) => self.case_call(id, &name, args, piped, span),
            Callee::Check(id, owner) => self.check_call(id, &owner, args, piped, span),
            Callee::Walk(walk, receiver) => self.walk(walk, receiver, args, piped, span),
            Callee::Standard(function, receiver) => self.call_standard(function, receiver, args, piped, span),
            Callee::Value(value, value_span) => self.call_value(value, value_span, args, piped, span),
            Callee::Clone(number, owner) => {
                let made = self.clone_agent(number, &owner, args, span);
                match piped {
                    Some(piped) => self.run_agent(made, &owner, &[], Some(piped), span),
                    None => self.item_value(Item::Agent(made), &owner),
                }
            }
            Callee::Stream(number, owner) => self.stream(number, &owner, args, piped, span),
            Callee::Collect(stream) if args.is_empty() && piped.is_none() => self.chunks(stream),
            Callee::Collect(_) => {
                self.look_at(args);
                let wrong = self.finding(Code::E0304, span, "`collect` takes no arguments");
                self.refuse(wrong)
            }
            Callee::Test(call, name) => self.test_helper(call, &name, args, span),
            Callee::Reported => {
                self.look_at(args);
                self.broken(span)
            }
        }
    }

    /// Checks arguments whose call was refused, so that their names count as used.
    pub(super) fn look_at(&mut self, args: &[ast::Arg]) {
        for value in args.iter().filter_map(ast::Arg::value) {
            if !matches!(value, ast::Expr::PlaceholderExpr(_)) {
                self.expr(&value, None);
            }
        }
    }

    pub(super) fn run_agent(
        &mut self,
        number: usize,
        name: &Name,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        self.note_use(Item::Agent(number), name.span());
        let signature = Rc::clone(&self.agents[number].signature);
        let result = signature.result.as_ref().map_or(Ty::Str, |(ty, _)| ty.clone());
        let slots = slots_of(&signature);
        let at = self.at_span(name.span());
        self.is_effect_in_fn(name.span(), "an agent");
        match self.arguments(&signature.name, &slots, args, piped, span) {
            Some((_, values)) if values.iter().any(|value| self.is_prompted(value, span, &signature.name)) => {
                self.broken(span)
            }
            Some((statements, mut values)) => {
                let number = match self.reason(span) {
                    Some(reason) => {
                        values.push(reason);
                        self.told(number)
                    }
                    None => number,
                };
                block_of(statements, Expr::new(ExprKind::Run(number as u32, values), result, at))
            }
            None => Expr::new(ExprKind::Const(Const::Unit), Ty::Broken, at),
        }
    }

    fn call_flow(&mut self, number: usize, name: &Name, args: &[ast::Arg], piped: Option<Piped>, span: Span) -> Expr {
        self.note_use(Item::Flow(number), name.span());
        let signature = Rc::clone(&self.flows[number].signature);
        if !self.is_fn(number) {
            self.is_effect_in_fn(name.span(), "a flow");
        }
        let result = self.flow_result(number, name.span());
        let slots = slots_of(&signature);
        let at = self.at_span(name.span());
        match self.arguments(&signature.name, &slots, args, piped, span) {
            Some((statements, values)) => {
                block_of(statements, Expr::new(ExprKind::Call(number as u32, values), result, at))
            }
            None => Expr::new(ExprKind::Const(Const::Unit), Ty::Broken, at),
        }
    }

    /// Binds arguments to parameters: positional ones in order, named ones by name, the piped one at `_` or first.
    pub(super) fn bound(
        &mut self,
        callee: &str,
        names: &[&str],
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Option<Vec<(usize, Given, Span)>> {
        let is_placeholder = |arg: &ast::Arg| matches!(arg.value(), Some(ast::Expr::PlaceholderExpr(_)));
        let has_placeholder = args.iter().any(is_placeholder);
        let mut piped = piped;
        let mut given: Vec<(usize, Given, Span)> = Vec::new();
        let mut next = 0;
        let mut is_right = true;
        if !has_placeholder && let Some(piped) = piped.take() {
            let piped_span = piped.span;
            given.push((0, Given::Piped(piped), piped_span));
            next = 1;
        }
        let mut extra: Option<Span> = None;
        for arg in args {
            let Some(value) = arg.value() else { continue };
            let value_span = value.span();
            let place = match arg.name() {
                Some(name) => match names.iter().position(|known| *known == name.text()) {
                    Some(place) => place,
                    None => {
                        let unknown = self.finding(
                            Code::E0304,
                            name.span(),
                            format!("`{callee}` has no parameter `{}`", name.text()),
                        );
                        let unknown = self.suggest(unknown, &name.text(), names.iter().copied());
                        self.report(unknown);
                        is_right = false;
                        continue;
                    }
                },
                None => {
                    next += 1;
                    next - 1
                }
            };
            if place >= names.len() {
                extra = extra.or(Some(value_span));
                continue;
            }
            if let Some((_, _, first)) = given.iter().find(|(known, _, _)| *known == place) {
                let twice = self.finding(Code::E0304, value_span, format!("`{callee}` gets `{}` twice", names[place]));
                let twice = twice.label(*first, "it is given here first");
                self.report(twice);
                is_right = false;
                continue;
            }
            let one = match (&value, piped.is_some()) {
                (ast::Expr::PlaceholderExpr(_), true) => piped.take().map(Given::Piped),
                _ => Some(Given::Written(value)),
            };
            given.extend(one.map(|one| (place, one, value_span)));
        }
        if next > names.len() {
            let takes = match names {
                [] => "takes no arguments".to_owned(),
                [one] => format!("takes one argument, `{one}`"),
                many => format!("takes {} arguments, {}", many.len(), super::listed(many.iter().copied())),
            };
            let verb = if next == 1 { "is" } else { "are" };
            let message = format!("`{callee}` {takes}, and {next} {verb} given");
            let wrong = self.finding(Code::E0304, extra.unwrap_or(span), message);
            self.report(wrong);
            is_right = false;
        }
        if !is_right {
            for (_, one, _) in given {
                if let Given::Written(value) = one {
                    self.expr(&value, None);
                }
            }
            return None;
        }
        // The piped value was computed before anything that is written in the call.
        given.sort_by_key(|(_, one, _)| matches!(one, Given::Written(_)));
        Some(given)
    }

    /// The arguments of a declared callee, in the order of its parameters.
    pub(super) fn arguments(
        &mut self,
        callee: &str,
        slots: &[Slot<'_>],
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Option<(Vec<crate::hir::Stmt>, Vec<Expr>)> {
        let names: Vec<&str> = slots.iter().map(|slot| slot.name).collect();
        let given = self.bound(callee, &names, args, piped, span)?;
        let at = self.at_span(span);
        let around = self.leaving.take();
        let mut values = Vec::new();
        for (place, one, one_span) in given {
            let slot = &slots[place];
            let value = match one {
                Given::Written(node) => self.expect(&node, &slot.ty, Place::Argument(slot.name, callee, slot.declared)),
                Given::Piped(piped) => {
                    self.coerce(piped.value, &slot.ty, one_span, Place::Piped(callee, slot.declared))
                }
            };
            values.push((place, value));
        }
        self.leaving = around;
        let is_given = |place: usize| values.iter().any(|(known, _)| *known == place);
        let missing: Vec<&str> = slots
            .iter()
            .enumerate()
            .filter(|(place, slot)| !is_given(*place) && slot.default.is_none())
            .map(|(_, slot)| slot.name)
            .collect();
        if !missing.is_empty() {
            let mut lacks = self.finding(Code::E0304, span, format!("`{callee}` needs {} too", super::listed(missing)));
            if let Some((file, declared)) = slots.iter().find_map(|slot| slot.declared) {
                lacks = lacks.label_in(file, declared, "its parameters are declared here");
            }
            self.report(lacks);
            return None;
        }
        let (statements, values) = self.in_order(values, slots.len(), at);
        let values = values.into_iter().zip(slots).filter_map(|(value, slot)| value.or_else(|| slot.default.clone()));
        Some((statements, values.collect()))
    }

    fn call_standard(
        &mut self,
        function: &'static Function,
        receiver: Option<Piped>,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        let short = function.name.rsplit('.').next().unwrap_or(function.name);
        let is_method = receiver.is_some();
        let names: Vec<&str> = function.params.iter().map(|param| param.name).skip(usize::from(is_method)).collect();
        let Some(given) = self.bound(short, &names, args, piped, span) else { return self.broken(span) };
        let around = self.leaving;
        self.leaving = super::state::leaves_to(function.name).or(around);
        let mut bindings = Bindings::default();
        let mut values: Vec<(usize, Expr, Span, bool)> = Vec::new();
        if let Some(receiver) = receiver {
            bindings.learn(&function.params[0].ty, &receiver.value.ty, &self.types);
            values.push((0, receiver.value, receiver.span, false));
        }
        for (place, one, one_span) in given {
            let place = place + usize::from(is_method);
            let param = &function.params[place];
            let (value, is_piped) = match one {
                Given::Written(node) => {
                    let hint = bindings.hint(&param.ty);
                    (self.expr(&node, hint.as_ref()), false)
                }
                Given::Piped(piped) => (piped.value, true),
            };
            bindings.learn(&param.ty, &value.ty, &self.types);
            values.push((place, value, one_span, is_piped));
        }
        self.leaving = around;
        self.standard_of(function, values, span)
    }

    /// A standard function of values: each with the place of its parameter, where it stands, and whether it is piped.
    pub(super) fn standard_of(
        &mut self,
        function: &'static Function,
        values: Vec<(usize, Expr, Span, bool)>,
        span: Span,
    ) -> Expr {
        let at = self.at_span(span);
        let short = function.name.rsplit('.').next().unwrap_or(function.name);
        let mut bindings = Bindings::default();
        for (place, value, ..) in &values {
            bindings.learn(&function.params[*place].ty, &value.ty, &self.types);
        }
        let is_given = |place: usize| values.iter().any(|(known, ..)| *known == place);
        let missing: Vec<&str> = function
            .params
            .iter()
            .enumerate()
            .filter(|(place, param)| !is_given(*place) && param.default.is_none())
            .map(|(_, param)| param.name)
            .collect();
        if !missing.is_empty() {
            let lacks = self.finding(Code::E0304, span, format!("`{short}` needs {} too", super::listed(missing)));
            return self.refuse(lacks);
        }
        let mut converted = Vec::new();
        for (place, value, value_span, is_piped) in values {
            let param = &function.params[place];
            let ty = bindings.apply(&param.ty);
            let place_of = if is_piped { Place::Piped(short, None) } else { Place::Argument(param.name, short, None) };
            converted.push((place, self.coerce(value, &ty, value_span, place_of)));
        }
        if converted.iter().any(|(_, value)| value.ty == Ty::Broken) {
            return self.broken(span);
        }
        let (statements, values) = self.in_order(converted, function.params.len(), at);
        let values: Vec<Expr> = values
            .into_iter()
            .zip(&function.params)
            .filter_map(|(value, param)| value.or_else(|| default_value(param.default?, at)))
            .collect();
        let result = bindings.apply(&function.result);
        let made = self.standard_call(function, values, result, span);
        block_of(statements, made)
    }

    /// The instruction of a standard function.
    fn standard_call(&mut self, function: &'static Function, mut values: Vec<Expr>, ty: Ty, span: Span) -> Expr {
        let at = self.at_span(span);
        if super::standard::is_effect(function.name) {
            self.is_effect_in_fn(span, &format!("`{}`", function.name));
        }
        if let Some(into) = super::state::leaves_to(function.name)
            && values.iter().any(|value| self.leaks(value, span, into))
        {
            return self.broken(span);
        }
        if let Some(made) = self.state_call(function.name, &mut values, &ty, span) {
            return made;
        }
        let mut take = || Box::new(if values.is_empty() { Expr::constant(Const::None, at) } else { values.remove(0) });
        let kind = match function.name {
            "str" => {
                let value = *take();
                let value = self.shown(value, span);
                ExprKind::Concat(vec![value])
            }
            "random" => ExprKind::Random(take(), take()),
            "sleep" => ExprKind::Sleep(take()),
            "print" => ExprKind::Log(take()),
            "emit" => ExprKind::Emit(take(), take()),
            "approve" => {
                let (question, data, timeout) = (take(), take(), take());
                if matches!(timeout.kind, ExprKind::Const(Const::None)) {
                    let open = self.finding(Code::W0606, span, "this approval may wait for ever");
                    self.report(open.help("say how long: `approve(…, timeout: 1h)`"));
                }
                ExprKind::Approve(question, data, timeout)
            }
            "receive" => ExprKind::Receive(take()),
            "timer" => ExprKind::Timer(take()),
            "handle.cancel" => ExprKind::Cancel(take()),
            "reflect" => {
                let (question, subject) = (*take(), *take());
                let subject = self.as_subject(subject, span);
                return self.ask(nexa_vm::op::Asking::Reflect, question, subject, None, span);
            }
            "time.now" => ExprKind::Now,
            "ok" => ExprKind::WrapOk(take()),
            "err" => ExprKind::WrapErr(take()),
            "fail" => {
                let (message, code) = (take(), take());
                self.check_code(&code, span);
                // The message is evaluated before the code, as it is written; the machine takes the code first.
                let (statements, values) = self.in_order(vec![(1, *message), (0, *code)], 2, at);
                let number = nexa_vm::stdlib::lookup("core.error").map_or(u16::MAX, |function| function.number);
                let error = ExprKind::Std(number, values.into_iter().flatten().collect());
                let mut error = Expr::new(error, Ty::Named(TypeTable::ERROR), at);
                if let Some(caught) = self.frame().caught {
                    let cause = Expr::local(caught, error.ty.clone(), at);
                    let kind = ExprKind::SetField(Box::new(error), "cause".into(), Box::new(cause));
                    error = Expr::new(kind, Ty::Named(TypeTable::ERROR), at);
                }
                ExprKind::Raise(Box::new(block_of(statements, error)))
            }
            _ if ty == Ty::Str && values.iter().any(|value| self.types.holds_secret(&value.ty)) => {
                let secret = values.into_iter().find(|value| self.types.holds_secret(&value.ty));
                let secret = secret.unwrap_or_else(|| Expr::constant(Const::None, at));
                return self.shown(secret, span);
            }
            name => match nexa_vm::stdlib::lookup(name) {
                Some(_) if !self.check_constant_pattern(name, &values, span) => return self.broken(span),
                Some(function) => ExprKind::Std(function.number, values),
                None => return self.missing(span, &format!("`{name}`")),
            },
        };
        Expr::new(kind, ty, at)
    }

    fn call_value(
        &mut self,
        callee: Expr,
        callee_span: Span,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        let at = self.at_span(span);
        let (params, result) = match callee.ty.clone() {
            Ty::Function(params, result) => (params.to_vec(), (*result).clone()),
            Ty::Stage(input, output) => {
                self.is_effect_in_fn(callee_span, "a stage");
                (vec![(*input).clone()], (*output).clone())
            }
            ty => {
                self.look_at(args);
                if ty.is_silent() {
                    return self.broken(span);
                }
                let code = if piped.is_some() { Code::E0503 } else { Code::E0304 };
                let what = if piped.is_some() { "is not a stage" } else { "cannot be called" };
                let wrong = self.finding(code, callee_span, format!("`{}` {what}", self.show(&ty)));
                return self.refuse(wrong.help("agents, flows, functions and chains of them can be"));
            }
        };
        let names: Vec<String> = (1..=params.len()).map(|place| format!("argument {place}")).collect();
        if let Some(name) = args.iter().find_map(ast::Arg::name) {
            let wrong = self.finding(Code::E0304, name.span(), "a function value has no named parameters");
            self.look_at(args);
            return self.refuse(wrong.help("give the arguments in order"));
        }
        let slots: Vec<Slot<'_>> = params
            .iter()
            .zip(&names)
            .map(|(ty, name)| Slot { name, ty: ty.clone(), declared: None, default: None })
            .collect();
        // The callee is evaluated first, so it waits if arguments have to wait.
        let Some((mut statements, values)) = self.arguments("the function", &slots, args, piped, span) else {
            return self.broken(span);
        };
        let callee = if statements.is_empty() || callee.is_inert() {
            callee
        } else {
            let mut before = Vec::new();
            let callee = self.set_aside(callee, &mut before, at);
            before.append(&mut statements);
            statements = before;
            callee
        };
        block_of(statements, Expr::new(ExprKind::CallValue(Box::new(callee), values), result, at))
    }
}

pub(super) fn slots_of(signature: &super::declarations::Signature) -> Vec<Slot<'_>> {
    let slots = signature.params.iter().map(|param| Slot {
        name: &param.name,
        ty: param.ty.clone(),
        declared: Some((signature.file, param.span)),
        default: param.default.clone(),
    });
    slots.collect()
}

fn default_value(default: Default, at: At) -> Option<Expr> {
    match default {
        Default::LeftOut => None,
        Default::None => Some(Expr::constant(Const::None, at)),
        Default::Int(int) => Some(Expr::constant(Const::Int(int), at)),
        Default::Text(text) => Some(Expr::text(text, at)),
    }
}

//! Literals: numbers and texts, lists, tuples, records, dicts.

use std::rc::Rc;

use super::Checker;
use super::modules::Item;
use super::places::Place;
use super::type_exprs::FIELDS_MAX;
use crate::ast::{self, AstNode, LiteralValue, StringPart};
use crate::diagnostic::Code;
use crate::hir::{Const, Expr, ExprKind, Shape, Stmt, StmtKind};
use crate::types::{Field, NamedKind, Ty};

impl Checker<'_> {
    pub(super) fn literal(&mut self, node: &ast::LiteralExpr) -> Expr {
        let at = self.at(node);
        match node.value() {
            None => self.broken(node.span()),
            Some(LiteralValue::Int(int) | LiteralValue::Size(int)) => Expr::constant(Const::Int(int), at),
            Some(LiteralValue::Float(float)) => Expr::constant(Const::Float(float), at),
            Some(LiteralValue::Duration(millis)) => Expr::constant(Const::Duration(millis), at),
            Some(LiteralValue::Bool(value)) => Expr::constant(Const::Bool(value), at),
            Some(LiteralValue::None) => Expr::constant(Const::None, at),
            Some(LiteralValue::Str(text)) => Expr::text(&text, at),
        }
    }

    /// A text where something is wanted: a semantic type whose pattern it matches, perhaps.
    pub(super) fn wanted_string(&mut self, node: &ast::StringExpr, want: Option<&Ty>) -> Expr {
        let made = self.string(node);
        match want.and_then(|want| self.literal_as(&made, want.without_option())) {
            Some(id) => Expr { ty: Ty::Named(id), ..made },
            None => made,
        }
    }

    pub(super) fn string(&mut self, node: &ast::StringExpr) -> Expr {
        let at = self.at(node);
        let mut parts = Vec::new();
        for part in node.parts() {
            parts.push(match part {
                StringPart::Text(text) => Expr::text(&text, at),
                StringPart::Interpolation(interpolation) => {
                    let Some(inner) = interpolation.expr() else { continue };
                    let value = self.expr(&inner, None);
                    self.shown(value, inner.span())
                }
            });
        }
        if parts.iter().any(|part| part.ty == Ty::Broken) {
            return Expr::new(ExprKind::Const(Const::Str("".into())), Ty::Str, at);
        }
        match parts.as_slice() {
            [] => Expr::text("", at),
            [Expr { kind: ExprKind::Const(Const::Str(_)), .. }] => parts.remove(0),
            _ => Expr::new(ExprKind::Concat(parts), Ty::Str, at),
        }
    }

    /// A value that is about to become text: functions, saved states and secrets have none.
    pub(super) fn shown(&mut self, value: Expr, span: crate::source::Span) -> Expr {
        let is_secret = self.types.holds_secret(&value.ty);
        if self.in_agent_text && is_secret {
            let leak = self.finding(Code::E0802, span, "a secret flows into a prompt");
            return self.refuse(leak.help("hand it to a tool that the agent may call; a model must not see it"));
        }
        if let (true, Some(into)) = (is_secret, self.leaving) {
            self.leaks(&value, span, into);
            return self.broken(span);
        }
        if !is_secret && !matches!(value.ty, Ty::Function(..) | Ty::Stage(..) | Ty::Snapshot) {
            return value;
        }
        let message = format!("a value of type `{}` has no text", self.show(&value.ty));
        let wrong = self.finding(Code::E0301, span, message);
        self.refuse(match value.ty {
            _ if is_secret => wrong.help("a secret can be handed to a tool, and to nothing else"),
            Ty::Snapshot => wrong.help("go back to it with `restore(…)`, or read its `.tries`"),
            _ => wrong.help("call it first, or run it with `>>`"),
        })
    }

    pub(super) fn list(&mut self, node: &ast::ListExpr, want: Option<&Ty>) -> Expr {
        let at = self.at(node);
        let nodes: Vec<ast::Expr> = node.items().collect();
        let wanted = match want.map(Ty::without_option) {
            Some(Ty::List(item)) => Some((**item).clone()),
            Some(Ty::Any) => Some(Ty::Any),
            _ => None,
        };
        if let Some(item) = wanted.filter(|item| *item != Ty::Never) {
            let items = nodes.iter().map(|node| self.expect(node, &item, Place::Element)).collect();
            return Expr::new(ExprKind::List(items), Ty::list(item), at);
        }
        if nodes.is_empty() {
            return Expr::new(ExprKind::List(Vec::new()), Ty::list(Ty::Any), at);
        }
        let mut items: Vec<Expr> = Vec::new();
        let mut ty = Ty::Never;
        for (place, node) in nodes.iter().enumerate() {
            let hint = (place > 0).then(|| ty.clone());
            let item = self.expr(node, hint.as_ref());
            let joined = self.types.join(&ty, &item.ty);
            if matches!(joined, Ty::Union(_)) && !matches!(ty, Ty::Union(_)) && !matches!(item.ty, Ty::Union(_)) {
                let message = format!(
                    "the list has elements of type `{}`, and this is `{}`",
                    self.show(&ty),
                    self.show(&item.ty)
                );
                let mixed = self
                    .finding(Code::E0308, node.span(), message)
                    .primary_label(format!("this is `{}`", self.show(&item.ty)))
                    .label(nodes[0].span(), format!("this is `{}`", self.show(&items[0].ty)))
                    .help("make the elements alike, or write the type: `let xs: list[any] = [ … ]`");
                self.report(mixed);
                items.push(self.broken(node.span()));
                continue;
            }
            ty = joined;
            items.push(item);
        }
        // `[1, 2.0]` is a list of floats; ints before the first float are widened now.
        let items = items
            .into_iter()
            .zip(&nodes)
            .map(|(item, node)| self.coerce(item, &ty, node.span(), Place::Element))
            .collect();
        Expr::new(ExprKind::List(items), Ty::list(ty), at)
    }

    pub(super) fn tuple(&mut self, node: &ast::TupleExpr, want: Option<&Ty>) -> Expr {
        let at = self.at(node);
        let nodes: Vec<ast::Expr> = node.items().collect();
        if nodes.is_empty() {
            return Expr::constant(Const::Unit, at);
        }
        let wanted = match want.map(Ty::without_option) {
            Some(Ty::Tuple(items)) if items.len() == nodes.len() => Some(Rc::clone(items)),
            _ => None,
        };
        let mut items = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            items.push(match wanted.as_ref().map(|wanted| wanted[place].clone()) {
                Some(ty) => self.expect(node, &ty, Place::Element),
                None => self.expr(node, None),
            });
        }
        let ty = Ty::Tuple(items.iter().map(|item| item.ty.clone()).collect());
        Expr::new(ExprKind::Tuple(items), ty, at)
    }

    pub(super) fn dict(&mut self, node: &ast::DictExpr, want: Option<&Ty>) -> Expr {
        let at = self.at(node);
        let (wanted_key, wanted) = match want.map(Ty::without_option) {
            Some(Ty::Dict(key, value)) => (Some((**key).clone()), Some((**value).clone())),
            Some(Ty::Any) => (Some(Ty::Str), Some(Ty::Any)),
            _ => (None, None),
        };
        let (mut key_ty, mut value_ty) = (wanted_key.clone().unwrap_or(Ty::Never), wanted.clone().unwrap_or(Ty::Never));
        let mut entries = Vec::new();
        for entry in node.entries() {
            let (Some(key_node), Some(value_node)) = (entry.key(), entry.value()) else { continue };
            let key = self.expr(&key_node, wanted_key.as_ref());
            let key = self.plain(key);
            if key_ty == Ty::Never {
                key_ty = key.ty.clone();
                if !matches!(key_ty, Ty::Str | Ty::Int | Ty::Bool | Ty::Any | Ty::Broken | Ty::Never) {
                    let message = format!("a dict cannot have keys of type `{}`", self.show(&key_ty));
                    let bad =
                        self.finding(Code::E0309, key_node.span(), message).help("keys are `str`, `int` or `bool`");
                    self.report(bad);
                    key_ty = Ty::Broken;
                }
            }
            let key = self.coerce(key, &key_ty, key_node.span(), Place::Key);
            let value = match &wanted {
                Some(wanted) => self.expect(&value_node, wanted, Place::Element),
                None => self.expr(&value_node, None),
            };
            value_ty = self.types.join(&value_ty, &value.ty);
            entries.push((key, value, value_node.span()));
        }
        if entries.is_empty() {
            key_ty = wanted_key.unwrap_or(Ty::Str);
            value_ty = wanted.unwrap_or(Ty::Any);
        }
        let entries =
            entries.into_iter().map(|(key, value, span)| (key, self.coerce(value, &value_ty, span, Place::Element)));
        let entries = entries.collect();
        Expr::new(ExprKind::Dict(entries), Ty::Dict(Rc::new(key_ty), Rc::new(value_ty)), at)
    }

    pub(super) fn record(&mut self, node: &ast::RecordExpr, want: Option<&Ty>) -> Expr {
        let at = self.at(node);
        let named = match node.ty() {
            Some(written) => match self.record_type(&written) {
                Some(ty) => Some(ty),
                None => {
                    for field in node.fields() {
                        field.value().map(|value| self.expr(&value, None));
                    }
                    return self.broken(node.span());
                }
            },
            // A struct is made by its name only.
            None => want
                .map(|want| want.without_option().clone())
                .filter(|want| self.types.fields(want).is_some() && !self.types.is_struct(want)),
        };
        let Some(ty) = named else { return self.plain_record(node) };
        let Some(wanted) = self.types.fields(&ty) else { return self.plain_record(node) };
        let owner = self.show(&ty);
        let mut values: Vec<Option<Expr>> = wanted.iter().map(|_| None).collect();
        let mut order = Vec::new();
        let mut is_known = true;
        for field in node.fields() {
            let (Some(name), Some(value)) = (field.name(), field.value()) else { continue };
            let text = name.text();
            match wanted.iter().position(|field| *field.name == *text) {
                Some(place) if values[place].is_some() => {
                    let twice = self.finding(Code::E0402, name.span(), format!("the field `{text}` is given twice"));
                    self.report(twice);
                }
                Some(place) => {
                    values[place] = Some(self.expect(&value, &wanted[place].ty, Place::Field(&text, &owner)));
                    order.push(place);
                }
                None => {
                    is_known = false;
                    self.expr(&value, None);
                    let unknown = self.finding(Code::E0305, name.span(), format!("`{owner}` has no field `{text}`"));
                    let unknown = self.suggest(unknown, &text, wanted.iter().map(|field| &*field.name));
                    self.report(
                        unknown.note(format!("it has {}", super::listed(wanted.iter().map(|field| &*field.name)))),
                    );
                }
            }
        }
        let missing: Vec<&str> = wanted
            .iter()
            .zip(&values)
            .filter(|(field, value)| value.is_none() && !may_be_absent(field))
            .map(|(field, _)| &*field.name)
            .collect();
        // A field that is unknown is probably one of those that are missing.
        if !missing.is_empty() && is_known {
            let message = format!("this `{owner}` lacks {}", super::listed(missing.iter().copied()));
            let help = format!("add `{}: …`", missing.join(": …, "));
            let lacks = self.finding(Code::E0301, node.span(), message).help(help);
            self.report(lacks);
        }
        let shape = Shape {
            type_name: self.shape_name(&ty),
            fields: wanted.iter().map(|field| Rc::clone(&field.name)).collect(),
            ..Shape::default()
        };
        let mut given: Vec<(usize, Expr)> = Vec::new();
        for place in order {
            if let Some(value) = values[place].take() {
                given.push((place, value));
            }
        }
        self.record_in_order(shape, given, ty, at)
    }

    /// Builds a record whose fields are given in another order than they are evaluated in; absent ones are `none`.
    fn record_in_order(&mut self, shape: Shape, given: Vec<(usize, Expr)>, ty: Ty, at: crate::hir::At) -> Expr {
        let count = shape.fields.len();
        let (statements, values) = self.in_order(given, count, at);
        let values = values.into_iter().map(|value| value.unwrap_or_else(|| Expr::constant(Const::None, at))).collect();
        let record = Expr::new(ExprKind::Record(shape, values), ty.clone(), at);
        block_of(statements, record)
    }

    /// Puts operands, listed as they are evaluated, to their places. Where both orders differ, values wait in locals.
    pub(super) fn in_order(
        &mut self,
        given: Vec<(usize, Expr)>,
        count: usize,
        at: crate::hir::At,
    ) -> (Vec<Stmt>, Vec<Option<Expr>>) {
        let sorted = given.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let mut statements = Vec::new();
        let mut values: Vec<Option<Expr>> = (0..count).map(|_| None).collect();
        for (place, value) in given {
            let value = if sorted || value.is_inert() { value } else { self.set_aside(value, &mut statements, at) };
            if let Some(slot) = values.get_mut(place) {
                *slot = Some(value);
            }
        }
        (statements, values)
    }

    /// Evaluates a value now, for a later use.
    pub(super) fn set_aside(&mut self, value: Expr, statements: &mut Vec<Stmt>, at: crate::hir::At) -> Expr {
        let slot = self.temporary(crate::source::Span::new(at.start, at.start));
        let ty = value.ty.clone();
        statements.push(Stmt { kind: StmtKind::Store(slot, value), at });
        Expr::local(slot, ty, at)
    }

    fn plain_record(&mut self, node: &ast::RecordExpr) -> Expr {
        let at = self.at(node);
        let mut fields: Vec<Field> = Vec::new();
        let mut values = Vec::new();
        for field in node.fields() {
            let (Some(name), Some(value)) = (field.name(), field.value()) else { continue };
            let text: Rc<str> = name.text().into();
            if fields.len() == FIELDS_MAX {
                let crowded =
                    self.finding(Code::E1006, name.span(), format!("a record has at most {FIELDS_MAX} fields"));
                self.report(crowded.help("use a dict: `{ \"key\": value }`"));
                break;
            }
            let value = self.expr(&value, None);
            if fields.iter().any(|field| field.name == text) {
                let twice = self.finding(Code::E0402, name.span(), format!("the field `{text}` is given twice"));
                self.report(twice);
                continue;
            }
            fields.push(Field { name: text, ty: value.ty.clone(), doc: "".into() });
            values.push(value);
        }
        let shape = Shape { fields: fields.iter().map(|field| Rc::clone(&field.name)).collect(), ..Shape::default() };
        Expr::new(ExprKind::Record(shape, values), Ty::Record(fields.into()), at)
    }

    /// The record type before a brace.
    fn record_type(&mut self, written: &ast::Expr) -> Option<Ty> {
        let (name, item) = match written {
            ast::Expr::NameRef(reference) => {
                let name = reference.name()?;
                let item = self.item(&name.text()).map(|known| known.item);
                let built_in = || self.types.built_in(&name.text()).map(Item::Type);
                let item = item.or_else(built_in);
                (name, item)
            }
            ast::Expr::FieldExpr(field) => {
                let (Some(ast::Expr::NameRef(module)), Some(name)) = (field.receiver(), field.field()) else {
                    return None;
                };
                let item = match self.item(&module.name()?.text()).map(|known| known.item) {
                    Some(Item::Module(place)) => Some(self.item_of_module(place, &name)),
                    other => other.filter(|item| *item == Item::Reported),
                };
                (name, item)
            }
            _ => return None,
        };
        match item {
            Some(Item::Type(id))
                if !matches!(self.types.named(id).kind, NamedKind::Enum(_) | NamedKind::Semantic(_)) =>
            {
                self.note_use(Item::Type(id), name.span());
                Some(Ty::Named(id))
            }
            Some(Item::Reported) => None,
            _ => {
                let message = format!("there is no record type `{}`", name.text());
                let unknown = self.finding(Code::E0302, name.span(), message);
                let known: Vec<String> = self.scopes[self.place_of(self.file)].names().map(str::to_owned).collect();
                let unknown = self.suggest(unknown, &name.text(), known.iter().map(String::as_str));
                self.report(unknown);
                None
            }
        }
    }

    /// The name that values of a type carry: only nominal types have one.
    pub(super) fn shape_name(&self, ty: &Ty) -> Rc<str> {
        match ty {
            Ty::Named(id) if !matches!(self.types.named(*id).kind, NamedKind::Protocol(_)) => self.types.run_name(*id),
            _ => "".into(),
        }
    }
}

fn may_be_absent(field: &Field) -> bool {
    matches!(field.ty, Ty::Option(_) | Ty::Any | Ty::Broken)
}

/// Statements and then a value; without statements only the value.
pub(super) fn block_of(statements: Vec<Stmt>, value: Expr) -> Expr {
    if statements.is_empty() {
        return value;
    }
    let (ty, at) = (value.ty.clone(), value.at);
    Expr::new(ExprKind::Block(statements, Box::new(value)), ty, at)
}

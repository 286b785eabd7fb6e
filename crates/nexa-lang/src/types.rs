//! Types as the checker knows them, and when a value of one may stand where another is asked for.
//!
//! A [`Ty`] is a small tree; protocols, structs and enums are numbers into a [`TypeTable`], so they may refer to
//! themselves. [`TypeTable::fit`] is the only judge of "may this stand there", [`TypeTable::join`] of "what are these
//! two together".
//!
//! Holds: a value is changed on its way from one type to another only by [`Fit::Widen`] and [`Fit::Check`]; every other
//! permitted step leaves its representation alone.

mod semantic;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

pub use semantic::{NARROWED_MAX, Narrowed, Semantic};

use crate::source::{FileId, Span};

/// The number of a protocol, struct, enum or semantic type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedId(pub u32);

/// A type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// Of something that an error was reported about; fits everywhere.
    Broken,
    /// Of an expression that never ends with a value.
    Never,
    /// Any value.
    Any,
    /// `()`
    Unit,
    /// Text.
    Str,
    /// Integer.
    Int,
    /// Float.
    Float,
    /// Bool.
    Bool,
    /// Duration.
    Duration,
    /// A secret: a handle without a text.
    Secret,
    /// A state that the agent saved.
    Snapshot,
    /// `stream[T]`: what comes piece by piece. When the program runs it is the whole.
    Stream(Rc<Ty>),
    /// `list[T]`
    List(Rc<Ty>),
    /// `dict[K, V]`
    Dict(Rc<Ty>, Rc<Ty>),
    /// `(T, U)`
    Tuple(Rc<[Ty]>),
    /// `T?`
    Option(Rc<Ty>),
    /// `Result[T, E]`
    Result(Rc<Ty>, Rc<Ty>),
    /// `{ a: T }`
    Record(Rc<[Field]>),
    /// A protocol, struct, enum or semantic type.
    Named(NamedId),
    /// `A | B`, at least two, none of them a union.
    Union(Rc<[Ty]>),
    /// `fn(T) -> U`
    Function(Rc<[Ty]>, Rc<Ty>),
    /// `stage[I, O]`
    Stage(Rc<Ty>, Rc<Ty>),
    /// `handle[T]`
    Handle(Rc<Ty>),
}

/// A field of a record type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name.
    pub name: Rc<str>,
    /// Its type.
    pub ty: Ty,
    /// Its doc comment, which models are shown.
    pub doc: Rc<str>,
}

/// What a named type is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedKind {
    /// Any record with these fields.
    Protocol(Rc<[Field]>),
    /// Only records of this name.
    Struct(Rc<[Field]>),
    /// One of these variants.
    Enum(Vec<Variant>),
    /// A value of a base type of which something holds.
    Semantic(Rc<Semantic>),
}

/// A variant of an enum: its tag and its fields.
pub type Variant = (Rc<str>, Rc<[Field]>);

/// A declared or built-in type.
#[derive(Clone, Debug)]
pub struct NamedType {
    /// Its name.
    pub name: Rc<str>,
    /// What it is.
    pub kind: NamedKind,
    /// Where it is declared; nothing for a built-in one.
    pub declared: Option<(FileId, Span)>,
}

/// Pairs of protocols that were compared on the way, so that each is compared once.
struct Compared {
    pairs: BTreeMap<(NamedId, NamedId), Fit>,
    /// How a value of any type fits where another type is asked for.
    any: Fit,
    /// How many conditions of semantic types are around what is compared.
    narrowed: usize,
}

/// How a value of one type comes to stand where another is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// As it is.
    Same,
    /// An int becomes a float.
    Widen,
    /// It is checked, and converted where needed, when the program runs.
    Check,
    /// Not at all.
    No,
}

impl Ty {
    /// `list[T]`
    #[must_use]
    pub fn list(item: Ty) -> Ty {
        Ty::List(Rc::new(item))
    }

    /// `T?`; `T??` is `T?`, and `any?` is `any`.
    #[must_use]
    pub fn option(inner: Ty) -> Ty {
        match inner {
            Ty::Option(_) | Ty::Any | Ty::Broken => inner,
            inner => Ty::Option(Rc::new(inner)),
        }
    }

    /// `Result[T, Error]`
    #[must_use]
    pub fn result(value: Ty) -> Ty {
        Ty::Result(Rc::new(value), Rc::new(Ty::Named(TypeTable::ERROR)))
    }

    /// Whether nothing more needs to be said about it, because it was reported or never happens.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        matches!(self, Ty::Broken | Ty::Never)
    }

    /// Whether `+`, `-`, `*`, `/` work on it.
    #[must_use]
    pub fn is_number(&self) -> bool {
        matches!(self, Ty::Int | Ty::Float)
    }

    /// The inner type of an optional, or the type itself.
    #[must_use]
    pub fn without_option(&self) -> &Ty {
        match self {
            Ty::Option(inner) => inner,
            other => other,
        }
    }
}

/// The protocols, structs and enums of a program, the built-in ones first.
#[derive(Clone, Debug)]
pub struct TypeTable {
    named: Vec<NamedType>,
    /// The names that values of struct and enum types carry where the type's own name is taken.
    run_names: BTreeMap<NamedId, Rc<str>>,
    /// How many types have a name.
    namesakes: BTreeMap<Rc<str>, usize>,
}

impl Default for TypeTable {
    fn default() -> Self {
        let field = |name: &str, ty: Ty| Field { name: name.into(), ty, doc: "".into() };
        let error = NamedType {
            name: "Error".into(),
            kind: NamedKind::Struct(
                [
                    field("code", Ty::Str),
                    field("message", Ty::Str),
                    field("data", Ty::Any),
                    field("at", Ty::Str),
                    field("cause", Ty::option(Ty::Named(Self::ERROR))),
                ]
                .into(),
            ),
            declared: None,
        };
        let decision: Rc<[Field]> = [field("by", Ty::Str), field("note", Ty::Str)].into();
        let approval = NamedType {
            name: "Approval".into(),
            kind: NamedKind::Enum(vec![("approved".into(), Rc::clone(&decision)), ("denied".into(), decision)]),
            declared: None,
        };
        let hit = NamedType {
            name: "Hit".into(),
            kind: NamedKind::Struct([field("key", Ty::Str), field("text", Ty::Str), field("score", Ty::Float)].into()),
            declared: None,
        };
        let named = vec![error, approval, hit];
        let namesakes = named.iter().map(|ty| (Rc::clone(&ty.name), 1)).collect();
        TypeTable { named, run_names: BTreeMap::new(), namesakes }
    }
}

impl TypeTable {
    /// The built-in `Error`.
    pub const ERROR: NamedId = NamedId(0);
    /// The built-in `Approval`.
    pub const APPROVAL: NamedId = NamedId(1);
    /// The built-in `Hit` of a recall.
    pub const HIT: NamedId = NamedId(2);

    /// Adds a type whose fields may be set later with [`TypeTable::define`].
    pub fn declare(&mut self, ty: NamedType) -> NamedId {
        let id = NamedId(self.named.len() as u32);
        let namesakes = self.namesakes.entry(Rc::clone(&ty.name)).or_default();
        *namesakes += 1;
        if *namesakes > 1 {
            self.run_names.insert(id, format!("{}#{namesakes}", ty.name).into());
        }
        self.named.push(ty);
        id
    }

    /// The name that values of a struct or enum carry: the type's own, unless another file has one of that name too.
    #[must_use]
    pub fn run_name(&self, id: NamedId) -> Rc<str> {
        self.run_names.get(&id).cloned().unwrap_or_else(|| Rc::clone(&self.named(id).name))
    }

    /// Sets what a declared type is.
    pub fn define(&mut self, id: NamedId, kind: NamedKind) {
        self.named[id.0 as usize].kind = kind;
    }

    /// A named type.
    #[must_use]
    pub fn named(&self, id: NamedId) -> &NamedType {
        &self.named[id.0 as usize]
    }

    /// The built-in types by name.
    #[must_use]
    pub fn built_in(&self, name: &str) -> Option<NamedId> {
        [Self::ERROR, Self::APPROVAL, Self::HIT].into_iter().find(|id| &*self.named(*id).name == name)
    }

    /// The fields of a record-like type.
    #[must_use]
    pub fn fields(&self, ty: &Ty) -> Option<Rc<[Field]>> {
        match ty {
            Ty::Record(fields) => Some(Rc::clone(fields)),
            Ty::Named(id) => match &self.named(*id).kind {
                NamedKind::Protocol(fields) | NamedKind::Struct(fields) => Some(Rc::clone(fields)),
                NamedKind::Enum(_) | NamedKind::Semantic(_) => None,
            },
            _ => None,
        }
    }

    /// Whether only records of its own name are of a type.
    #[must_use]
    pub fn is_struct(&self, ty: &Ty) -> bool {
        matches!(ty, Ty::Named(id) if matches!(self.named(*id).kind, NamedKind::Struct(_)))
    }

    /// How a value of type `from` comes to stand where `to` is asked for.
    #[must_use]
    pub fn fit(&self, from: &Ty, to: &Ty) -> Fit {
        self.fit_within(from, to, &mut Compared { pairs: BTreeMap::new(), any: Fit::Check, narrowed: 0 })
    }

    /// The same where a value of any type stands for no other.
    #[must_use]
    pub fn fit_strictly(&self, from: &Ty, to: &Ty) -> Fit {
        self.fit_within(from, to, &mut Compared { pairs: BTreeMap::new(), any: Fit::No, narrowed: 0 })
    }

    fn fit_within(&self, from: &Ty, to: &Ty, compared: &mut Compared) -> Fit {
        if from == to {
            return Fit::Same;
        }
        let mut inside = |from: &Ty, to: &Ty| match self.fit_within(from, to, compared) {
            // A conversion inside another value is done by the check of the whole.
            Fit::Widen => Fit::Check,
            other => other,
        };
        match (from, to) {
            (Ty::Broken | Ty::Never, _) | (_, Ty::Broken | Ty::Any) => Fit::Same,
            // Functions and handles cannot be checked when the program runs.
            (Ty::Any, Ty::Function(..) | Ty::Stage(..) | Ty::Secret | Ty::Snapshot | Ty::Stream(_) | Ty::Handle(_)) => {
                Fit::No
            }
            (Ty::Any, _) => compared.any,
            (Ty::Int, Ty::Float) => Fit::Widen,
            (Ty::Option(from), Ty::Option(to)) => inside(from, to),
            // What holds of it besides does not matter to who asks for less.
            (from, Ty::Option(_) | Ty::Union(_)) if let Some((_, semantic)) = self.semantic(from) => {
                let as_base = self.fit_base(semantic, to, compared);
                let alternatives: &[Ty] = match to {
                    Ty::Option(to) => std::slice::from_ref(&**to),
                    Ty::Union(alternatives) => alternatives,
                    _ => &[],
                };
                alternatives.iter().map(|to| self.fit_within(from, to, compared)).fold(as_base, Fit::min)
            }
            (from, Ty::Option(to)) => self.fit_within(from, to, compared),
            (Ty::Union(alternatives), to) => {
                alternatives.iter().map(|from| inside(from, to)).max().unwrap_or(Fit::Same)
            }
            (from, Ty::Union(alternatives)) => {
                alternatives.iter().map(|to| self.fit_within(from, to, compared)).min().unwrap_or(Fit::No)
            }
            (Ty::Named(_), to) if let Some((_, semantic)) = self.semantic(from) => {
                self.fit_base(semantic, to, compared)
            }
            (Ty::List(from), Ty::List(to)) => inside(from, to),
            (Ty::Dict(from_key, from), Ty::Dict(to_key, to)) => inside(from_key, to_key).max(inside(from, to)),
            (Ty::Result(from, from_error), Ty::Result(to, to_error)) => {
                inside(from, to).max(inside(from_error, to_error))
            }
            (Ty::Tuple(from), Ty::Tuple(to)) if from.len() == to.len() => {
                from.iter().zip(to.iter()).map(|(from, to)| inside(from, to)).max().unwrap_or(Fit::Same)
            }
            (Ty::Function(from, from_result), Ty::Function(to, to_result)) if from.len() == to.len() => {
                // What a function takes and gives cannot be checked later, so it must be right as it is.
                let params = from.iter().zip(to.iter()).map(|(from, to)| inside(to, from)).max();
                match params.max(Some(inside(from_result, to_result))) {
                    Some(Fit::Same) => Fit::Same,
                    _ => Fit::No,
                }
            }
            (Ty::Stage(from_input, from), Ty::Stage(to_input, to)) => {
                match inside(to_input, from_input).max(inside(from, to)) {
                    Fit::Same => Fit::Same,
                    _ => Fit::No,
                }
            }
            (Ty::Handle(from), Ty::Handle(to)) => match inside(from, to) {
                Fit::Same => Fit::Same,
                _ => Fit::No,
            },
            (from, Ty::Record(wanted)) => self.fit_fields(from, wanted, compared),
            (from, Ty::Named(id)) => match &self.named(*id).kind {
                NamedKind::Protocol(wanted) => match from {
                    Ty::Named(given) => {
                        let pair = (*given, *id);
                        if let Some(known) = compared.pairs.get(&pair) {
                            return *known;
                        }
                        // Protocols that contain themselves fit unless something else in them does not.
                        compared.pairs.insert(pair, Fit::Same);
                        let fit = self.fit_fields(from, wanted, compared);
                        compared.pairs.insert(pair, fit);
                        fit
                    }
                    _ => self.fit_fields(from, wanted, compared),
                },
                // It was reported.
                NamedKind::Semantic(_) if *self.base(to) == Ty::Broken => Fit::Same,
                NamedKind::Struct(_) | NamedKind::Enum(_) | NamedKind::Semantic(_) => Fit::No,
            },
            _ => Fit::No,
        }
    }

    /// What is narrowed too often, or by itself, is reported when all types are known, and fits nothing until then.
    fn fit_base(&self, from: &Semantic, to: &Ty, compared: &mut Compared) -> Fit {
        if compared.narrowed > NARROWED_MAX {
            return Fit::No;
        }
        compared.narrowed += 1;
        let fit = self.fit_within(&from.base, to, compared);
        compared.narrowed -= 1;
        fit
    }

    fn fit_fields(&self, from: &Ty, wanted: &[Field], compared: &mut Compared) -> Fit {
        let Some(given) = self.fields(from) else { return Fit::No };
        let fits = wanted.iter().map(|want| match given.iter().find(|field| field.name == want.name) {
            Some(field) => match self.fit_within(&field.ty, &want.ty, compared) {
                Fit::Widen => Fit::Check,
                other => other,
            },
            None => Fit::No,
        });
        fits.max().unwrap_or(Fit::Same)
    }

    /// What a value is that is either of one type or of the other.
    #[must_use]
    pub fn join(&self, a: &Ty, b: &Ty) -> Ty {
        match (a, b) {
            _ if a == b => a.clone(),
            (Ty::Broken, _) | (_, Ty::Broken) => Ty::Broken,
            (Ty::Never, other) | (other, Ty::Never) => other.clone(),
            (Ty::Any, _) | (_, Ty::Any) => Ty::Any,
            (Ty::Int, Ty::Float) | (Ty::Float, Ty::Int) => Ty::Float,
            (Ty::Option(a), Ty::Option(b)) => Ty::option(self.join(a, b)),
            (Ty::Option(inner), other) | (other, Ty::Option(inner)) => Ty::option(self.join(inner, other)),
            // `[]` and `{}` without a type of their own.
            (Ty::List(x), Ty::List(y)) if matches!(**x, Ty::Never) || matches!(**y, Ty::Never) => {
                Ty::list(self.join(x, y))
            }
            (Ty::Result(x, e), Ty::Result(y, f)) if e == f => Ty::Result(Rc::new(self.join(x, y)), Rc::clone(e)),
            _ if self.fit(a, b) == Fit::Same => b.clone(),
            _ if self.fit(b, a) == Fit::Same => a.clone(),
            _ => {
                let mut alternatives: Vec<Ty> = Vec::new();
                for ty in [a, b] {
                    let parts: &[Ty] = if let Ty::Union(parts) = ty { parts } else { std::slice::from_ref(ty) };
                    for part in parts {
                        if !alternatives.contains(part) {
                            alternatives.push(part.clone());
                        }
                    }
                }
                Ty::Union(alternatives.into())
            }
        }
    }

    /// What keeps a type from travelling to or from a model as JSON, if anything does. A `Result` may go to a model,
    /// and cannot be asked of one.
    #[must_use]
    pub fn not_for_models(&self, ty: &Ty, is_asked: bool) -> Option<Ty> {
        self.not_json(ty, is_asked, &mut Vec::new())
    }

    fn not_json(&self, ty: &Ty, is_asked: bool, seen: &mut Vec<NamedId>) -> Option<Ty> {
        let mut all = |fields: &[Field]| fields.iter().find_map(|field| self.not_json(&field.ty, is_asked, seen));
        match ty {
            Ty::Function(..)
            | Ty::Stage(..)
            | Ty::Never
            | Ty::Secret
            | Ty::Snapshot
            | Ty::Stream(_)
            | Ty::Handle(_) => Some(ty.clone()),
            Ty::Unit | Ty::Result(..) if is_asked => Some(ty.clone()),
            Ty::List(inner) | Ty::Option(inner) => self.not_json(inner, is_asked, seen),
            Ty::Result(value, error) => {
                self.not_json(value, is_asked, seen).or_else(|| self.not_json(error, is_asked, seen))
            }
            Ty::Dict(key, value) => match &**key {
                Ty::Str | Ty::Any => self.not_json(value, is_asked, seen),
                _ => Some(ty.clone()),
            },
            Ty::Tuple(items) | Ty::Union(items) => items.iter().find_map(|item| self.not_json(item, is_asked, seen)),
            Ty::Record(fields) => all(fields),
            Ty::Named(id) if seen.contains(id) => None,
            Ty::Named(id) => {
                seen.push(*id);
                match &self.named(*id).kind {
                    NamedKind::Protocol(fields) | NamedKind::Struct(fields) => {
                        fields.iter().find_map(|field| self.not_json(&field.ty, is_asked, seen))
                    }
                    NamedKind::Enum(variants) => {
                        let fields = variants.iter().flat_map(|(_, fields)| fields.iter());
                        fields.into_iter().find_map(|field| self.not_json(&field.ty, is_asked, seen))
                    }
                    NamedKind::Semantic(semantic) => self.not_json(&semantic.base, is_asked, seen),
                }
            }
            Ty::Broken | Ty::Any | Ty::Unit | Ty::Str | Ty::Int | Ty::Float | Ty::Bool | Ty::Duration => None,
        }
    }

    /// Whether a value of a type is or holds a secret, as far as the type tells: what is behind `any` it does not.
    #[must_use]
    pub fn holds_secret(&self, ty: &Ty) -> bool {
        self.first_within(ty, |ty| *ty == Ty::Secret).is_some()
    }

    /// The first type of those wanted that a value of a type is or holds, as far as the type tells: what is behind `any`
    /// it does not, and what a function or a stage has with it neither.
    #[must_use]
    pub fn first_within(&self, ty: &Ty, is_wanted: impl Fn(&Ty) -> bool) -> Option<Ty> {
        self.within(ty, &is_wanted, &mut Vec::new())
    }

    fn within(&self, ty: &Ty, is_wanted: &dyn Fn(&Ty) -> bool, seen: &mut Vec<NamedId>) -> Option<Ty> {
        if is_wanted(ty) {
            return Some(ty.clone());
        }
        match ty {
            Ty::List(inner) | Ty::Option(inner) | Ty::Handle(inner) => self.within(inner, is_wanted, seen),
            Ty::Dict(a, b) | Ty::Result(a, b) => {
                self.within(a, is_wanted, seen).or_else(|| self.within(b, is_wanted, seen))
            }
            Ty::Tuple(items) | Ty::Union(items) => items.iter().find_map(|item| self.within(item, is_wanted, seen)),
            Ty::Record(fields) => fields.iter().find_map(|field| self.within(&field.ty, is_wanted, seen)),
            Ty::Named(id) if seen.contains(id) => None,
            Ty::Named(id) => {
                seen.push(*id);
                match &self.named(*id).kind {
                    NamedKind::Protocol(fields) | NamedKind::Struct(fields) => {
                        fields.iter().find_map(|field| self.within(&field.ty, is_wanted, seen))
                    }
                    NamedKind::Enum(variants) => {
                        let mut fields = variants.iter().flat_map(|(_, fields)| fields.iter());
                        fields.find_map(|field| self.within(&field.ty, is_wanted, seen))
                    }
                    NamedKind::Semantic(semantic) => self.within(&semantic.base, is_wanted, seen),
                }
            }
            Ty::Broken | Ty::Never | Ty::Any | Ty::Unit | Ty::Str | Ty::Int | Ty::Float | Ty::Bool | Ty::Duration => {
                None
            }
            Ty::Secret | Ty::Function(..) | Ty::Stage(..) | Ty::Snapshot | Ty::Stream(_) => None,
        }
    }

    /// The type as it is written in a program.
    #[must_use]
    pub fn show(&self, ty: &Ty) -> String {
        let mut out = String::new();
        self.write(ty, &mut out);
        out
    }

    fn write(&self, ty: &Ty, out: &mut String) {
        let list = |types: &[Ty], out: &mut String, between: &str| {
            for (place, ty) in types.iter().enumerate() {
                if place > 0 {
                    out.push_str(between);
                }
                self.write(ty, out);
            }
        };
        match ty {
            Ty::Broken => out.push('?'),
            Ty::Never => out.push_str("never"),
            Ty::Any => out.push_str("any"),
            Ty::Unit => out.push_str("unit"),
            Ty::Str => out.push_str("str"),
            Ty::Int => out.push_str("int"),
            Ty::Float => out.push_str("float"),
            Ty::Bool => out.push_str("bool"),
            Ty::Duration => out.push_str("duration"),
            Ty::Secret => out.push_str("secret"),
            Ty::Snapshot => out.push_str("snapshot"),
            Ty::Stream(item) => {
                out.push_str("stream[");
                self.write(item, out);
                out.push(']');
            }
            Ty::List(item) => {
                out.push_str("list[");
                self.write(item, out);
                out.push(']');
            }
            Ty::Dict(key, value) => {
                out.push_str("dict[");
                self.write(key, out);
                out.push_str(", ");
                self.write(value, out);
                out.push(']');
            }
            Ty::Tuple(items) => {
                out.push('(');
                list(items, out, ", ");
                out.push(')');
            }
            Ty::Option(inner) if **inner == Ty::Never => out.push_str("none"),
            Ty::Option(inner) => {
                self.write(inner, out);
                out.push('?');
            }
            Ty::Result(value, error) => {
                out.push_str("Result[");
                self.write(value, out);
                if **error != Ty::Named(Self::ERROR) {
                    out.push_str(", ");
                    self.write(error, out);
                }
                out.push(']');
            }
            Ty::Record(fields) => {
                out.push_str("{ ");
                for (place, field) in fields.iter().enumerate() {
                    let comma = if place > 0 { ", " } else { "" };
                    let _ = write!(out, "{comma}{}: ", field.name);
                    self.write(&field.ty, out);
                }
                out.push_str(" }");
            }
            Ty::Named(id) => out.push_str(&self.named(*id).name),
            Ty::Union(alternatives) => list(alternatives, out, " | "),
            Ty::Function(params, result) => {
                out.push_str("fn(");
                list(params, out, ", ");
                out.push_str(") -> ");
                self.write(result, out);
            }
            Ty::Handle(value) => {
                out.push_str("handle[");
                self.write(value, out);
                out.push(']');
            }
            Ty::Stage(input, output) => {
                out.push_str("stage[");
                self.write(input, out);
                out.push_str(", ");
                self.write(output, out);
                out.push(']');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_int_widens_and_any_is_checked_and_nothing_else_changes() {
        let table = TypeTable::default();
        assert_eq!(table.fit(&Ty::Int, &Ty::Float), Fit::Widen);
        assert_eq!(table.fit(&Ty::Int, &Ty::option(Ty::Float)), Fit::Widen);
        assert_eq!(table.fit(&Ty::list(Ty::Any), &Ty::list(Ty::Str)), Fit::Check);
        assert_eq!(table.fit_strictly(&Ty::list(Ty::Any), &Ty::list(Ty::Str)), Fit::No);
        assert_eq!(table.fit_strictly(&Ty::list(Ty::Int), &Ty::list(Ty::Float)), Fit::Check);
        assert_eq!(table.fit_strictly(&Ty::Str, &Ty::Any), Fit::Same);
        assert_eq!(table.fit(&Ty::Str, &Ty::Int), Fit::No);
        assert_eq!(table.fit(&Ty::Str, &Ty::Any), Fit::Same);
        assert_eq!(table.fit(&Ty::option(Ty::Str), &Ty::Str), Fit::No);
    }

    #[test]
    fn two_arms_join_to_what_holds_both() {
        let table = TypeTable::default();
        let none = Ty::option(Ty::Never);
        assert_eq!(table.show(&table.join(&Ty::Int, &Ty::Float)), "float");
        assert_eq!(table.show(&table.join(&Ty::Str, &none)), "str?");
        assert_eq!(table.show(&table.join(&Ty::Str, &Ty::Int)), "str | int");
        assert_eq!(table.show(&table.join(&Ty::Never, &Ty::Int)), "int");
    }
}

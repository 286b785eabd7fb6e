//! Semantic types: a base type with a condition in words, and perhaps a pattern.
//!
//! A value of one is a value of its base that was found to fit, so it may stand wherever the base may; the way back is
//! a check. The value itself does not say what it was found to be.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Fit, NamedId, NamedKind, Ty, TypeTable};
use crate::hir::Asked;

/// How deep parts of types are compared for the sake of a better message.
const DEPTH_MAX: u32 = 16;
/// Semantic types that narrow each other.
pub const NARROWED_MAX: usize = 64;

/// What a semantic type comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrowed {
    /// A type with conditions, at most [`NARROWED_MAX`] around each other.
    Type,
    /// It needs itself.
    Itself,
    /// More conditions are around each other.
    TooDeep,
}

/// What a semantic type is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semantic {
    /// The type that it narrows; perhaps a semantic type as well.
    pub base: Ty,
    /// What must hold of a value.
    pub condition: Rc<str>,
    /// The regular expression that decides whether it holds; without one a model is asked.
    pub pattern: Option<Rc<str>>,
}

impl TypeTable {
    /// What a semantic type is; nothing for another type.
    #[must_use]
    pub fn semantic(&self, ty: &Ty) -> Option<(NamedId, &Semantic)> {
        match ty {
            Ty::Named(id) => match &self.named(*id).kind {
                NamedKind::Semantic(semantic) => Some((*id, semantic)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The type below all conditions.
    #[must_use]
    pub fn base<'t>(&'t self, ty: &'t Ty) -> &'t Ty {
        let mut base = ty;
        // What is narrowed more often, or by itself, is reported.
        for _ in 0..=NARROWED_MAX {
            match self.semantic(base) {
                Some((_, semantic)) => base = &semantic.base,
                None => return base,
            }
        }
        &Ty::Broken
    }

    /// What a semantic type comes down to, without a protocol, struct or enum on the way.
    #[must_use]
    pub fn narrowed(&self, id: NamedId) -> Narrowed {
        let NamedKind::Semantic(semantic) = &self.named(id).kind else { return Narrowed::Type };
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(&semantic.base, 1)];
        while let Some((ty, depth)) = waiting.pop() {
            if depth > NARROWED_MAX {
                return Narrowed::TooDeep;
            }
            let mut visit = |ty| waiting.push((ty, depth));
            match ty {
                Ty::Named(part) if *part == id => return Narrowed::Itself,
                Ty::Named(part) => match &self.named(*part).kind {
                    NamedKind::Semantic(inner) if seen.insert(*part) => waiting.push((&inner.base, depth + 1)),
                    _ => {}
                },
                Ty::List(inner) | Ty::Option(inner) | Ty::Handle(inner) | Ty::Stream(inner) => visit(inner),
                Ty::Dict(a, b) | Ty::Result(a, b) | Ty::Stage(a, b) => [&**a, &**b].into_iter().for_each(visit),
                Ty::Tuple(items) | Ty::Union(items) => items.iter().for_each(visit),
                Ty::Record(fields) => fields.iter().map(|field| &field.ty).for_each(visit),
                Ty::Function(params, result) => params.iter().chain([&**result]).for_each(visit),
                _ => {}
            }
        }
        Narrowed::Type
    }

    /// The semantic type that keeps a value from standing somewhere, if a check is all that is missing.
    #[must_use]
    pub fn unchecked(&self, from: &Ty, to: &Ty) -> Option<NamedId> {
        self.unchecked_within(from, to, 0)
    }

    fn unchecked_within(&self, from: &Ty, to: &Ty, depth: u32) -> Option<NamedId> {
        if depth > DEPTH_MAX || self.fit(from, to) != Fit::No {
            return None;
        }
        let inside = |from: &Ty, to: &Ty| self.unchecked_within(from, to, depth + 1);
        match (from, to) {
            (from, Ty::Named(_)) if self.semantic(to).is_some() => {
                let (id, semantic) = self.semantic(to)?;
                if self.fit(from, self.base(to)) != Fit::No { Some(id) } else { inside(from, &semantic.base) }
            }
            (Ty::Union(alternatives), to) => alternatives.iter().find_map(|from| inside(from, to)),
            (from, Ty::Union(alternatives)) => alternatives.iter().find_map(|to| inside(from, to)),
            (Ty::Option(from), Ty::Option(to)) | (Ty::List(from), Ty::List(to)) => inside(from, to),
            (from, Ty::Option(to)) => inside(from, to),
            (Ty::Dict(_, from), Ty::Dict(_, to)) | (Ty::Result(from, _), Ty::Result(to, _)) => inside(from, to),
            (Ty::Tuple(from), Ty::Tuple(to)) if from.len() == to.len() => {
                from.iter().zip(to.iter()).find_map(|(from, to)| inside(from, to))
            }
            (from, to) => {
                let (given, wanted) = (self.fields(from)?, self.fields(to)?);
                wanted.iter().find_map(|want| {
                    let field = given.iter().find(|field| field.name == want.name)?;
                    inside(&field.ty, &want.ty)
                })
            }
        }
    }

    /// How many conditions a model is asked about in a value of a type at most; `u64::MAX` if its length or depth
    /// decides.
    #[must_use]
    pub fn questions(&self, ty: &Ty, asked: Asked) -> u64 {
        let mut counted = Counted { asked, known: BTreeMap::new(), loops: false };
        match self.count(ty, &mut counted) {
            0 => 0,
            _ if counted.loops => u64::MAX,
            count => count,
        }
    }

    fn count(&self, ty: &Ty, counted: &mut Counted) -> u64 {
        match ty {
            Ty::List(item) | Ty::Dict(_, item) => match self.count(item, counted) {
                0 => 0,
                _ => u64::MAX,
            },
            Ty::Option(inner) => self.count(inner, counted),
            Ty::Result(value, error) => self.count(value, counted).max(self.count(error, counted)),
            Ty::Tuple(items) => self.sum(items.iter(), counted),
            Ty::Union(items) => items.iter().map(|item| self.count(item, counted)).max().unwrap_or(0),
            Ty::Record(fields) => self.sum(fields.iter().map(|field| &field.ty), counted),
            Ty::Named(id) => {
                match counted.known.get(id) {
                    Some(Some(count)) => return *count,
                    Some(None) => {
                        counted.loops = true;
                        return 0;
                    }
                    None => counted.known.insert(*id, None),
                };
                let count = match &self.named(*id).kind {
                    NamedKind::Semantic(semantic) => {
                        let own = u64::from(semantic.pattern.is_none() || counted.asked == Asked::Every);
                        own.saturating_add(self.count(&semantic.base, counted))
                    }
                    NamedKind::Protocol(fields) | NamedKind::Struct(fields) => {
                        self.sum(fields.iter().map(|field| &field.ty), counted)
                    }
                    NamedKind::Enum(variants) => {
                        let of = |fields: &Rc<[super::Field]>, counted: &mut Counted| {
                            self.sum(fields.iter().map(|field| &field.ty), counted)
                        };
                        variants.iter().map(|(_, fields)| of(fields, counted)).max().unwrap_or(0)
                    }
                };
                counted.known.insert(*id, Some(count));
                count
            }
            _ => 0,
        }
    }

    fn sum<'t>(&self, types: impl Iterator<Item = &'t Ty>, counted: &mut Counted) -> u64 {
        types.fold(0, |sum, ty| sum.saturating_add(self.count(ty, counted)))
    }
}

/// What was counted of named types; nothing yet for those that are being counted.
struct Counted {
    asked: Asked,
    known: BTreeMap<NamedId, Option<u64>>,
    /// Whether a type was met inside of itself.
    loops: bool,
}

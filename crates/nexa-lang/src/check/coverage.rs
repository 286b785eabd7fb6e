//! Which values the arms of a `match` take: is a value left out, and does an arm ever get one?
//!
//! A type is seen as cases with parts: `ok` with what it holds, each case of an enum with its fields, each alternative
//! of a union with the cases of its own. A [`Cover`] says of a pattern which of them it takes. Whether rows of covers
//! leave something out is found by taking the first column apart, case by case, with the parts of each case in its
//! place (L. Maranget, "Warnings for pattern matching", 2007).
//!
//! Holds: what is called left out is left out, and what is called never reached is never reached. A question that
//! takes more than [`WORK_MAX`] steps is answered with "something may be left out" and "it may be reached".

use std::rc::Rc;

use crate::types::{NamedKind, Ty, TypeTable};

/// Steps that one question may take.
const WORK_MAX: u32 = 20_000;
/// What stands for a value of which nothing is said.
pub(super) const ANYTHING: &str = "_";

/// The values that a pattern takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// Every value.
    All,
    /// Some values; which ones is not known.
    Some,
    /// The values of a case whose parts are covered like this.
    Case(Rc<str>, Vec<Cover>),
    /// The values that one of these takes.
    OneOf(Vec<Cover>),
}

/// A case of a type: its name, and the types of its parts.
pub(super) type Case = (Rc<str>, Vec<Ty>);

/// The cases of a type; a type that is not told apart is a single one.
pub(super) fn cases(types: &TypeTable, ty: &Ty) -> Vec<Case> {
    let plain = |name: &str| (Rc::from(name), Vec::new());
    match ty {
        Ty::Bool => vec![plain("true"), plain("false")],
        Ty::Result(value, error) => {
            vec![("ok".into(), vec![(**value).clone()]), ("err".into(), vec![(**error).clone()])]
        }
        Ty::Option(inner) if **inner == Ty::Never => vec![plain("none")],
        Ty::Option(inner) => std::iter::once(plain("none")).chain(cases(types, inner)).collect(),
        Ty::Union(parts) => parts.iter().flat_map(|part| cases_in_union(types, part)).collect(),
        Ty::Tuple(items) => vec![(ANYTHING.into(), items.to_vec())],
        Ty::Record(fields) => vec![(ANYTHING.into(), fields.iter().map(|field| field.ty.clone()).collect())],
        Ty::Named(id) => match &types.named(*id).kind {
            NamedKind::Protocol(fields) | NamedKind::Struct(fields) => {
                vec![(ANYTHING.into(), fields.iter().map(|field| field.ty.clone()).collect())]
            }
            NamedKind::Enum(variants) => {
                let parts = |fields: &[crate::types::Field]| fields.iter().map(|field| field.ty.clone()).collect();
                variants.iter().map(|(tag, fields)| (Rc::clone(tag), parts(fields))).collect()
            }
            NamedKind::Semantic(_) => cases(types, types.base(ty)),
        },
        _ => vec![plain(ANYTHING)],
    }
}

/// In a union a case says whose it is, and what has no cases goes by the name of its type.
fn cases_in_union(types: &TypeTable, ty: &Ty) -> Vec<Case> {
    let owner = match ty {
        // Two files may have types of one name.
        Ty::Named(id) => types.run_name(*id).to_string(),
        ty => types.show(ty),
    };
    let is_enum = matches!(ty, Ty::Named(id) if matches!(types.named(*id).kind, NamedKind::Enum(_)));
    let named = |(case, parts): Case| match &*case {
        ANYTHING => (Rc::from(owner.as_str()), parts),
        _ if is_enum => (format!("{owner}.{case}").into(), parts),
        _ => (case, parts),
    };
    cases(types, ty).into_iter().map(named).collect()
}

/// The name of a case of `part` among the cases of `whole`, which it is an alternative of.
pub(super) fn case_name(types: &TypeTable, whole: &Ty, part: &Ty, case: &str) -> Rc<str> {
    if !matches!(whole.without_option(), Ty::Union(_)) {
        return case.into();
    }
    let own = cases(types, part).into_iter().position(|(name, _)| &*name == case);
    match own.and_then(|place| cases_in_union(types, part).into_iter().nth(place)) {
        Some((name, _)) => name,
        None => case.into(),
    }
}

/// For each case of a type that these patterns leave out, an example of what is left out.
pub(super) fn left_out(types: &TypeTable, covers: &[Cover], ty: &Ty) -> Vec<String> {
    let mut work = WORK_MAX;
    let rows: Vec<Vec<Cover>> = covers.iter().map(|cover| vec![cover.clone()]).collect();
    let example = |(case, parts): &Case, work: &mut u32| {
        let rows = taken_apart(&rows, case, parts.len());
        let missing = missing(types, rows, parts, work)?;
        Some(shown(case, &missing))
    };
    cases(types, ty).iter().filter_map(|case| example(case, &mut work)).collect()
}

/// The cases of a type of which these patterns leave something out.
pub(super) fn open_cases(types: &TypeTable, covers: &[Cover], ty: &Ty) -> Vec<Rc<str>> {
    let mut work = WORK_MAX;
    let rows: Vec<Vec<Cover>> = covers.iter().map(|cover| vec![cover.clone()]).collect();
    let mut is_open =
        |(case, parts): &Case| missing(types, taken_apart(&rows, case, parts.len()), parts, &mut work).is_some();
    cases(types, ty).into_iter().filter(&mut is_open).map(|(case, _)| case).collect()
}

/// Whether some value is taken by a pattern and by none of those before it.
pub(super) fn is_reached(types: &TypeTable, before: &[Cover], cover: &Cover, ty: &Ty) -> bool {
    let rows = before.iter().map(|cover| vec![cover.clone()]).collect();
    is_useful(types, rows, vec![cover.clone()], vec![ty.clone()], &mut { WORK_MAX })
}

fn shown(case: &str, parts: &[String]) -> String {
    if parts.iter().all(|part| part == ANYTHING) { case.to_owned() } else { format!("{case}({})", parts.join(", ")) }
}

/// The rows whose first column takes values of a case, with the case's parts in its place.
fn taken_apart(rows: &[Vec<Cover>], case: &str, parts: usize) -> Vec<Vec<Cover>> {
    let mut out = Vec::new();
    for row in rows {
        let Some((first, rest)) = row.split_first() else { continue };
        take_apart(first, rest, case, parts, &mut out);
    }
    out
}

fn take_apart(first: &Cover, rest: &[Cover], case: &str, parts: usize, out: &mut Vec<Vec<Cover>>) {
    let with = |parts: Vec<Cover>| parts.into_iter().chain(rest.iter().cloned()).collect();
    match first {
        Cover::All => out.push(with(vec![Cover::All; parts])),
        Cover::Case(name, inner) if **name == *case && inner.len() == parts => out.push(with(inner.clone())),
        Cover::Case(..) | Cover::Some => {}
        Cover::OneOf(covers) => covers.iter().for_each(|cover| take_apart(cover, rest, case, parts, out)),
    }
}

/// The rows that take every value in the first column, without that column.
fn without_first(rows: &[Vec<Cover>]) -> Vec<Vec<Cover>> {
    let all = |row: &&Vec<Cover>| row.first().is_some_and(is_all);
    rows.iter().filter(all).map(|row| row[1..].to_vec()).collect()
}

fn is_all(cover: &Cover) -> bool {
    match cover {
        Cover::All => true,
        Cover::OneOf(covers) => covers.iter().any(is_all),
        _ => false,
    }
}

fn names_case(cover: &Cover) -> bool {
    match cover {
        Cover::Case(..) => true,
        Cover::OneOf(covers) => covers.iter().any(names_case),
        _ => false,
    }
}

/// Values, one of each type, that no row takes.
fn missing(types: &TypeTable, rows: Vec<Vec<Cover>>, columns: &[Ty], work: &mut u32) -> Option<Vec<String>> {
    let Some((ty, rest)) = columns.split_first() else { return rows.is_empty().then(Vec::new) };
    let anything = || vec![ANYTHING.to_owned(); columns.len()];
    if rows.is_empty() || !spend(work) {
        return Some(anything());
    }
    if !rows.iter().any(|row| row.first().is_some_and(names_case)) {
        let found = missing(types, without_first(&rows), rest, work)?;
        return Some(std::iter::once(ANYTHING.to_owned()).chain(found).collect());
    }
    for (case, parts) in cases(types, ty) {
        let columns: Vec<Ty> = parts.iter().chain(rest).cloned().collect();
        if let Some(found) = missing(types, taken_apart(&rows, &case, parts.len()), &columns, work) {
            let (inside, after) = found.split_at(parts.len().min(found.len()));
            return Some(std::iter::once(shown(&case, inside)).chain(after.iter().cloned()).collect());
        }
    }
    None
}

fn is_useful(types: &TypeTable, rows: Vec<Vec<Cover>>, row: Vec<Cover>, columns: Vec<Ty>, work: &mut u32) -> bool {
    let Some((first, rest)) = row.split_first() else { return rows.is_empty() };
    let (Some((ty, more)), true) = (columns.split_first(), !rows.is_empty() && spend(work)) else { return true };
    let of_case = |case: &str, parts: &[Ty], inner: Vec<Cover>, work: &mut u32| {
        let row = inner.into_iter().chain(rest.iter().cloned()).collect();
        let columns = parts.iter().chain(more).cloned().collect();
        is_useful(types, taken_apart(&rows, case, parts.len()), row, columns, work)
    };
    match first {
        Cover::OneOf(covers) => covers.iter().any(|cover| {
            let row = std::iter::once(cover.clone()).chain(rest.iter().cloned()).collect();
            is_useful(types, rows.clone(), row, columns.clone(), work)
        }),
        Cover::Case(name, inner) => match cases(types, ty).into_iter().find(|(case, _)| case == name) {
            Some((case, parts)) if parts.len() == inner.len() => of_case(&case, &parts, inner.clone(), work),
            _ => true,
        },
        // Some values may be of any case, as all of them are.
        Cover::All | Cover::Some if rows.iter().any(|row| row.first().is_some_and(names_case)) => cases(types, ty)
            .into_iter()
            .any(|(case, parts)| of_case(&case, &parts, vec![first.clone(); parts.len()], work)),
        Cover::All | Cover::Some => is_useful(types, without_first(&rows), rest.to_vec(), more.to_vec(), work),
    }
}

fn spend(work: &mut u32) -> bool {
    *work = work.saturating_sub(1);
    *work > 0
}

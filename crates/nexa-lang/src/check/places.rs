//! May this value stand there? Conversions where they are allowed, and otherwise an error that points at both sides.

use super::Checker;
use crate::diagnostic::{Code, Diagnostic};
use crate::hir::{Const, Expr, ExprKind};
use crate::source::{FileId, Span};
use crate::types::{Fit, Ty};

/// How one comes from `any` to a type.
const ASK_TYPE: &str = "ask what it is: `match x { n: int => …, _ => … }`";

/// What asks for a type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'p> {
    /// `let x: T = e`; the type's place.
    Let(Span),
    /// `x = e`: the variable and where it is bound.
    Assignment(&'p str, Span),
    /// `x.f = e`, `x[i] = e`: the part as it is written.
    Part(&'p str),
    /// A parameter: its name, whose it is, and where it is declared.
    Argument(&'p str, &'p str, Option<(FileId, Span)>),
    /// The piped value: the stage that takes it and where its parameter is declared.
    Piped(&'p str, Option<(FileId, Span)>),
    /// `return e`; where the result type is written.
    Return(Option<Span>),
    /// A field: its name and its record's.
    Field(&'p str, &'p str),
    /// An element of a list whose type is known.
    Element,
    /// A key of a dict.
    Key,
    /// The value of an `if`, `match`, `??` or `otherwise` whose type is known.
    Arm,
    /// A property of an agent or a setting of one.
    Property(&'p str),
    /// The default of a parameter.
    Default(&'p str),
    /// An index.
    Index,
}

impl Checker<'_> {
    /// The value, converted to a type where that is allowed; otherwise an error is reported.
    pub(super) fn coerce(&mut self, value: Expr, to: &Ty, span: Span, place: Place<'_>) -> Expr {
        match self.types.fit(&value.ty, to) {
            Fit::Same => self.settled(value, to),
            Fit::Widen => widen(value, to),
            Fit::Check => {
                self.strictly(&value, to, span, place);
                let at = value.at;
                Expr::new(ExprKind::Check(Box::new(value)), to.clone(), at)
            }
            Fit::No => match self.literal_as(&value, to) {
                Some(id) => Expr { ty: Ty::Named(id), ..value },
                None => {
                    let conflict = self.conflict(&value, to, span, place);
                    self.refuse(conflict)
                }
            },
        }
    }

    /// With `--strict`, the error for a value of any type where another type is asked for. A message that is waited for
    /// has the type of its place.
    fn strictly(&mut self, value: &Expr, to: &Ty, span: Span, place: Place<'_>) {
        let is_message = matches!(value.kind, ExprKind::Receive(_));
        if self.is_strict && !is_message && self.types.fit_strictly(&value.ty, to) == Fit::No {
            let loose = self.conflict(value, to, span, place);
            self.report(loose.note("`--strict` asks for types that are known before the program runs").help(ASK_TYPE));
        }
    }

    /// With `--strict`, the error for a value of any type where `wanted` is asked for.
    pub(super) fn refuse_any(&mut self, ty: &Ty, span: Span, wanted: &str) {
        if self.is_strict && *ty == Ty::Any {
            let loose = self.finding(Code::E0301, span, format!("{wanted} is asked for here, and this is `any`"));
            self.report(loose.note("`--strict` asks for types that are known before the program runs").help(ASK_TYPE));
        }
    }

    /// The error for a value that may not stand somewhere.
    fn conflict(&mut self, value: &Expr, to: &Ty, span: Span, place: Place<'_>) -> Diagnostic {
        let from = &value.ty;
        let unchecked = self.types.unchecked(from, to);
        let (given, wanted) = (self.show(from), self.show(to));
        let code = match place {
            _ if unchecked.is_some() => Code::E0311,
            Place::Assignment(..) | Place::Part(_) => Code::E0310,
            Place::Piped(..) => Code::E0501,
            Place::Key => Code::E0309,
            Place::Element => Code::E0308,
            _ if matches!(self.types.base(from), Ty::Union(_)) => Code::E0312,
            _ => Code::E0301,
        };
        let message = match place {
            _ if unchecked.is_some() => format!("`{given}` becomes `{wanted}` by a check only"),
            Place::Let(_) => format!("the value is `{given}`, but `{wanted}` is written"),
            Place::Assignment(name, _) | Place::Part(name) => {
                format!("`{name}` is `{wanted}` and cannot become `{given}`")
            }
            Place::Argument(name, callee, _) => format!("`{callee}` takes `{wanted}` for `{name}`, not `{given}`"),
            Place::Piped(stage, _) => format!("`{stage}` takes `{wanted}`, but is given `{given}`"),
            Place::Return(_) => format!("this returns `{given}`, but the result is `{wanted}`"),
            Place::Field(name, record) => format!("the field `{name}` of `{record}` is `{wanted}`, not `{given}`"),
            Place::Element => format!("the list has elements of type `{wanted}`, and this is `{given}`"),
            Place::Key => format!("the dict has keys of type `{wanted}`, and this is `{given}`"),
            Place::Arm => format!("`{wanted}` is asked for here, and this is `{given}`"),
            Place::Property(name) => format!("`{name}` takes `{wanted}`, not `{given}`"),
            Place::Default(name) => format!("the default of `{name}` is `{given}`, but its type is `{wanted}`"),
            Place::Index => format!("the index must be `{wanted}`, and this is `{given}`"),
        };
        let conflict = self.finding(code, span, message).primary_label(format!("this is `{given}`"));
        let asked = format!("`{wanted}` is asked for here");
        let conflict = match place {
            Place::Let(ty) | Place::Return(Some(ty)) => conflict.label(ty, asked),
            Place::Assignment(name, bound) => conflict.label(bound, format!("`{name}` is `{wanted}` since here")),
            Place::Argument(_, _, Some((file, span))) | Place::Piped(_, Some((file, span))) => {
                conflict.label_in(file, span, asked)
            }
            _ => conflict,
        };
        if let Some(id) = unchecked {
            return self.ask_for_check(conflict, value, to, id);
        }
        match self.way_out(self.types.base(from), to) {
            Some(help) => conflict.help(help),
            None => conflict,
        }
    }

    /// How one gets from one type to the other.
    fn way_out(&self, from: &Ty, to: &Ty) -> Option<String> {
        let fits = |inner: &Ty| self.types.fit(inner, to) != Fit::No;
        Some(match (from, to) {
            (Ty::Option(inner), _) if **inner == Ty::Never => {
                format!("write the type with `?` if the value may be absent: `{}?`", self.show(to))
            }
            (Ty::Option(inner), _) if fits(inner) => {
                "`?` raises an error when the value is absent, and `?? …` gives another value instead".to_owned()
            }
            (Ty::Result(value, _), _) if fits(value) => {
                "`?` raises the error, and `otherwise …` gives another value instead".to_owned()
            }
            (Ty::List(item), _) if matches!(**item, Ty::Result(..)) && matches!(to, Ty::List(_)) => {
                "a fork gives one Result a branch; unwrap each with `?`, or merge them with `&>>`".to_owned()
            }
            (Ty::Int | Ty::Float | Ty::Bool | Ty::Duration, Ty::Str) => {
                "put it into a text: `\"#{…}\"`, or use `str(…)`".to_owned()
            }
            (Ty::Str, Ty::Int) => "`int(…)` reads a number from a text".to_owned(),
            (Ty::Str, Ty::Float) => "`float(…)` reads a number from a text".to_owned(),
            (Ty::Int, Ty::Duration) => "durations have a unit: `30s`, `250ms`, `5m`".to_owned(),
            (Ty::Float, Ty::Int) => "`math.round(…)`, `math.floor(…)` and `math.ceil(…)` give an int".to_owned(),
            (_, Ty::Named(_)) if self.types.is_struct(to) && self.types.fields(from).is_some() => {
                format!("a struct is made by its name: `{} {{ … }}`", self.show(to))
            }
            (Ty::Union(_), _) => "narrow it with `match` first".to_owned(),
            _ => {
                let wanted = self.types.fields(to)?;
                let given = self.types.fields(from)?;
                let missing = wanted.iter().filter(|want| given.iter().all(|field| field.name != want.name));
                let missing: Vec<&str> = missing.map(|field| &*field.name).collect();
                if missing.is_empty() {
                    return None;
                }
                format!("`{}` has no {}", self.show(from), super::listed(missing))
            }
        })
    }
}

/// An int as a float; a literal becomes one at once.
fn widen(value: Expr, to: &Ty) -> Expr {
    let at = value.at;
    match value.kind {
        ExprKind::Const(Const::Int(int)) => Expr::constant(Const::Float(int as f64), at),
        _ => Expr::new(ExprKind::Widen(Box::new(value)), to.without_option().clone(), at),
    }
}

//! Methods that take a function: `map`, `filter`, `fold`, `find`, `any`, `all`, `sort_by` of lists, `map` of an optional
//! and of a Result.
//!
//! The machine knows none of them. Each becomes a loop, or a choice, of the program that uses it, so that the function's
//! instructions count as the program's own: a slice may end inside of it, an agent may run inside of it, and a snapshot
//! falls wherever it falls.
//!
//! Holds: the receiver is evaluated first, then the other arguments, then the function is called for one element after
//! the other; `find`, `any` and `all` call it no further than to the element that decides.

use std::rc::Rc;

use super::Checker;
use super::calls::{Given, Piped};
use super::literals::block_of;
use super::places::Place;
use crate::ast;
use crate::diagnostic::Code;
use crate::hir::{At, Const, Expr, ExprKind, ForEach, Item, Stmt, StmtKind, Test};
use crate::source::Span;
use crate::types::{Fit, Ty};

/// A method that takes a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    Map,
    Filter,
    Fold,
    Find,
    Any,
    All,
    SortBy,
    MapOption,
    MapResult,
}

/// The methods of lists.
const OF_LISTS: &[(&str, Walk)] = &[
    ("map", Walk::Map),
    ("filter", Walk::Filter),
    ("fold", Walk::Fold),
    ("find", Walk::Find),
    ("any", Walk::Any),
    ("all", Walk::All),
    ("sort_by", Walk::SortBy),
];

impl Walk {
    fn all_of(ty: &Ty) -> &'static [(&'static str, Walk)] {
        match ty {
            Ty::List(_) => OF_LISTS,
            Ty::Option(_) => &[("map", Walk::MapOption)],
            Ty::Result(..) => &[("map", Walk::MapResult)],
            _ => &[],
        }
    }

    /// The method of this name that a value of a type has.
    pub(super) fn of(ty: &Ty, name: &str) -> Option<Walk> {
        Self::all_of(ty).iter().find(|(known, _)| *known == name).map(|(_, walk)| *walk)
    }

    /// The names of these methods of a type.
    pub(super) fn names(ty: &Ty) -> impl Iterator<Item = &'static str> {
        Self::all_of(ty).iter().map(|(name, _)| *name)
    }

    fn name(self) -> &'static str {
        match self {
            Walk::MapOption | Walk::MapResult => "map",
            _ => OF_LISTS.iter().find(|(_, walk)| *walk == self).map_or("map", |(name, _)| name),
        }
    }

    fn params(self) -> &'static [&'static str] {
        if self == Walk::Fold { &["init", "f"] } else { &["f"] }
    }
}

/// A function that a method calls for each element.
struct Called {
    value: Expr,
    span: Span,
    params: Vec<Ty>,
    result: Ty,
}

/// The loop of a method on its way.
struct Round {
    /// The element.
    item: Expr,
    slot: u16,
    /// What the function gives for it.
    answer: Expr,
}

impl Checker<'_> {
    /// A call of a method that takes a function.
    pub(super) fn walk(
        &mut self,
        walk: Walk,
        receiver: Piped,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        let at = self.at_span(span);
        let Some(given) = self.bound(walk.name(), walk.params(), args, piped, span) else { return self.broken(span) };
        if given.len() < walk.params().len() {
            let absent = walk.params().iter().enumerate();
            let absent = absent.filter(|(place, _)| given.iter().all(|(known, ..)| known != place));
            let absent = super::listed(absent.map(|(_, name)| *name));
            self.look_at(args);
            let lacks = self.finding(Code::E0304, span, format!("`{}` needs {absent} too", walk.name()));
            return self.refuse(lacks);
        }
        let mut statements = Vec::new();
        let over = self.set_aside(receiver.value, &mut statements, at);
        let element = match &over.ty {
            Ty::List(item) | Ty::Option(item) | Ty::Result(item, _) => (**item).clone(),
            _ => Ty::Broken,
        };
        // The initial value is looked at before the function, whatever their order is: it says what the function takes.
        let mut init = None;
        let mut function = None;
        for (place, given, given_span) in given {
            if walk == Walk::Fold && place == 0 {
                let value = self.given(given, None);
                init = Some(self.set_aside(value, &mut statements, at));
            } else {
                function = Some((given, given_span));
            }
        }
        let Some((function, function_span)) = function else { return self.broken(span) };
        let takes: Vec<Ty> = init.iter().map(|init| init.ty.clone()).chain([element.clone()]).collect();
        let Some(mut called) = self.called(walk, function, function_span, takes) else { return self.broken(span) };
        called.value = self.set_aside(called.value, &mut statements, at);
        let made = match walk {
            Walk::MapOption => self.map_option(&over, element, &called, at),
            Walk::MapResult => self.map_result(&over, element, &called, at),
            _ => self.walk_list(walk, over, element, init, &called, &mut statements, at),
        };
        if made.ty.is_silent() { self.broken(span) } else { block_of(statements, made) }
    }

    fn given(&mut self, given: Given, want: Option<&Ty>) -> Expr {
        match given {
            Given::Written(node) => self.expr(&node, want),
            Given::Piped(piped) => piped.value,
        }
    }

    /// The function of a method, which will be called with values of these types.
    fn called(&mut self, walk: Walk, given: Given, span: Span, takes: Vec<Ty>) -> Option<Called> {
        let count = takes.len();
        let hint = match walk {
            Walk::Filter | Walk::Find | Walk::Any | Walk::All => Ty::Bool,
            _ => Ty::Any,
        };
        let want = Ty::Function(takes.into(), Rc::new(hint));
        let value = self.given(given, Some(&want));
        let (params, result) = match value.ty.clone() {
            Ty::Function(params, result) => (params.to_vec(), (*result).clone()),
            Ty::Stage(input, output) => {
                self.is_effect_in_fn(span, "a stage");
                (vec![(*input).clone()], (*output).clone())
            }
            ty => {
                if !ty.is_silent() {
                    let message = format!("`{}` takes a function, not `{}`", walk.name(), self.show(&ty));
                    let wrong = self.finding(Code::E0304, span, message);
                    let example = if count == 2 { "fn(sum, x) => …" } else { "fn(x) => …" };
                    self.report(wrong.help(format!("write one: `{example}`, or name one")));
                }
                return None;
            }
        };
        if params.len() != count {
            let takes = if count == 1 { "one argument".to_owned() } else { format!("{count} arguments") };
            let message =
                format!("`{}` calls its function with {takes}, and this one takes {}", walk.name(), params.len());
            let wrong = self.finding(Code::E0304, span, message);
            self.report(wrong);
            return None;
        }
        Some(Called { value, span, params, result })
    }

    /// One call of the function.
    fn call_of(&mut self, walk: Walk, called: &Called, args: Vec<Expr>, at: At) -> Expr {
        let place = Place::Argument("f", walk.name(), None);
        let mut fits = true;
        let mut values = Vec::new();
        for (arg, param) in args.into_iter().zip(&called.params) {
            let made = self.types.fit(&arg.ty, param);
            if made == Fit::No {
                fits = false;
                let message = format!(
                    "`{}` hands `{}` to this function, which takes `{}`",
                    walk.name(),
                    self.show(&arg.ty),
                    self.show(param)
                );
                let wrong = self.finding(Code::E0301, called.span, message);
                self.report(wrong);
                break;
            }
            values.push(self.coerce(arg, param, called.span, place));
        }
        if !fits {
            return self.broken(called.span);
        }
        Expr::new(ExprKind::CallValue(Box::new(called.value.clone()), values), called.result.clone(), at)
    }

    /// A call whose answer decides.
    fn decision(&mut self, walk: Walk, called: &Called, answer: Expr) -> Expr {
        if self.types.fit(&answer.ty, &Ty::Bool) == Fit::No {
            let message = format!("the function of `{}` gives `{}`, not `bool`", walk.name(), self.show(&answer.ty));
            let wrong = self.finding(Code::E0306, called.span, message);
            return self.refuse(wrong);
        }
        self.coerce(answer, &Ty::Bool, called.span, Place::Arm)
    }

    fn map_option(&mut self, over: &Expr, element: Ty, called: &Called, at: At) -> Expr {
        let present = Expr { ty: element, ..over.clone() };
        let made = self.call_of(Walk::MapOption, called, vec![present], at);
        let ty = Ty::option(made.ty.clone());
        let none = Expr { ty: ty.clone(), ..Expr::constant(Const::None, at) };
        let is_none = Expr::new(ExprKind::Is(Test::None, Box::new(over.clone())), Ty::Bool, at);
        Expr::new(ExprKind::If(Box::new(is_none), Box::new(none), Box::new(made)), ty, at)
    }

    fn map_result(&mut self, over: &Expr, element: Ty, called: &Called, at: At) -> Expr {
        let Ty::Result(_, error) = over.ty.clone() else { return self.broken(called.span) };
        let value = Expr::new(ExprKind::Unwrap(Box::new(over.clone())), element, at);
        let made = self.call_of(Walk::MapResult, called, vec![value], at);
        let ty = Ty::Result(Rc::new(made.ty.clone()), error);
        let is_err = Expr::new(ExprKind::Is(Test::Err, Box::new(over.clone())), Ty::Bool, at);
        let as_it_is = Expr { ty: ty.clone(), ..over.clone() };
        let made = Expr::new(ExprKind::WrapOk(Box::new(made)), ty.clone(), at);
        Expr::new(ExprKind::If(Box::new(is_err), Box::new(as_it_is), Box::new(made)), ty, at)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one loop")]
    fn walk_list(
        &mut self,
        walk: Walk,
        over: Expr,
        element: Ty,
        init: Option<Expr>,
        called: &Called,
        statements: &mut Vec<Stmt>,
        at: At,
    ) -> Expr {
        let slot = self.temporary(called.span);
        let item = Expr::local(slot, element.clone(), at);
        let args = init.iter().cloned().chain([item.clone()]).collect();
        let answer = self.call_of(walk, called, args, at);
        if answer.ty == Ty::Broken {
            return answer;
        }
        let round = Round { item, slot, answer };
        match walk {
            Walk::Map => {
                let ty = Ty::list(round.answer.ty.clone());
                self.collect(over, ty, round, None, statements, at)
            }
            Walk::Filter => {
                let keep = self.decision(walk, called, round.answer.clone());
                self.collect(over, Ty::list(element), round, Some(keep), statements, at)
            }
            Walk::SortBy => {
                if !matches!(
                    self.types.base(&round.answer.ty),
                    Ty::Int | Ty::Float | Ty::Str | Ty::Bool | Ty::Duration | Ty::Any
                ) {
                    let message = format!("`sort_by` cannot order by `{}`", self.show(&round.answer.ty));
                    let wrong = self.finding(Code::E0301, called.span, message);
                    return self.refuse(wrong.help("give a number, a text, a duration or a bool for each element"));
                }
                let ty = Ty::list(round.answer.ty.clone());
                let keys = self.collect(over.clone(), ty, round, None, statements, at);
                standard("core.sort_by_keys", vec![over.clone(), keys], over.ty, at)
            }
            Walk::Fold => {
                let Some(ExprKind::Local(total)) = init.as_ref().map(|init| init.kind.clone()) else { return over };
                let ty = init.map_or(Ty::Broken, |init| init.ty);
                if self.types.fit(&round.answer.ty, &ty) == Fit::No {
                    let (given, wanted) = (self.show(&round.answer.ty), self.show(&ty));
                    let message = format!("the function of `fold` gives `{given}`, and `init` is `{wanted}`");
                    let wrong = self.finding(Code::E0301, called.span, message);
                    return self.refuse(wrong.help("both must have one type: it is what the next call is given"));
                }
                let next = self.coerce(round.answer, &ty, called.span, Place::Arm);
                let body = vec![Stmt { kind: StmtKind::Store(total, next), at }];
                statements.push(each(over, round.slot, body, at));
                Expr::local(total, ty, at)
            }
            Walk::Find => {
                let is_it = self.decision(walk, called, round.answer);
                let ty = Ty::option(element);
                let none = Expr { ty: ty.clone(), ..Expr::constant(Const::None, at) };
                self.first(over, round.slot, is_it, (none, round.item), statements, ty, at)
            }
            Walk::Any | Walk::All => {
                let holds = self.decision(walk, called, round.answer);
                let is_any = walk == Walk::Any;
                let decides = if is_any { holds } else { Expr::new(ExprKind::Not(Box::new(holds)), Ty::Bool, at) };
                let answer = |value: bool| Expr::constant(Const::Bool(value), at);
                self.first(over, round.slot, decides, (answer(!is_any), answer(is_any)), statements, Ty::Bool, at)
            }
            Walk::MapOption | Walk::MapResult => over,
        }
    }

    /// A list of what the function gives, or of the elements for which `keep` holds.
    fn collect(
        &mut self,
        over: Expr,
        ty: Ty,
        round: Round,
        keep: Option<Expr>,
        statements: &mut Vec<Stmt>,
        at: At,
    ) -> Expr {
        let empty = Expr::new(ExprKind::List(Vec::new()), ty.clone(), at);
        let made = self.set_aside(empty, statements, at);
        let ExprKind::Local(list) = made.kind else { return made };
        let part = if keep.is_some() { round.item } else { round.answer };
        let longer = standard("list.push", vec![Expr::local(list, ty.clone(), at), part], ty.clone(), at);
        let append = vec![Stmt { kind: StmtKind::Store(list, longer), at }];
        let body = match keep {
            Some(keep) => vec![Stmt { kind: StmtKind::If(keep, append, Vec::new()), at }],
            None => append,
        };
        statements.push(each(over, round.slot, body, at));
        Expr::local(list, ty, at)
    }

    /// The first of two answers, unless some element decides for the second.
    #[allow(clippy::too_many_arguments, reason = "the parts of one loop")]
    fn first(
        &mut self,
        over: Expr,
        slot: u16,
        decides: Expr,
        answers: (Expr, Expr),
        statements: &mut Vec<Stmt>,
        ty: Ty,
        at: At,
    ) -> Expr {
        let made = self.set_aside(answers.0, statements, at);
        let ExprKind::Local(answer) = made.kind else { return made };
        let found = vec![Stmt { kind: StmtKind::Store(answer, answers.1), at }, Stmt { kind: StmtKind::Break, at }];
        let body = vec![Stmt { kind: StmtKind::If(decides, found, Vec::new()), at }];
        statements.push(each(over, slot, body, at));
        Expr::local(answer, ty, at)
    }
}

/// A loop over a list.
fn each(over: Expr, slot: u16, body: Vec<Stmt>, at: At) -> Stmt {
    let walk = ForEach { over, index: None, item: Item::One(slot), body };
    Stmt { kind: StmtKind::ForEach(Box::new(walk)), at }
}

/// A function of the machine.
fn standard(name: &str, args: Vec<Expr>, ty: Ty, at: At) -> Expr {
    let number = nexa_vm::stdlib::lookup(name).map_or(u16::MAX, |function| function.number);
    Expr::new(ExprKind::Std(number, args), ty, at)
}

//! Merges that ask a judge: `best_of(judge: J)`, the built-in judge, `consensus(judge: J)` and `&&`.
//!
//! A judge is a stage that is given what the branches gave, in the form that its first parameter asks for:
//!
//! ```text
//! list[Result[T, Error]]   the results as they are
//! list[str]                each as a text, a failed one as `failed: CODE`
//! list[T?]                 the values, none for a failed one
//! list[T]                  the ok values only
//! anything else            one text with a section for each branch
//! ```
//!
//! ```text
//! let list = fork […]; let reason = ""; let round = 0
//! while (true) {
//!     if (round >= rounds + 1) { fail("…", code: "merge_failed") }
//!     round += 1
//!     if (round > 1) { list = fork […] }                   // each agent of a branch is told the reason
//!     <fewer ok than min_ok: merge_failed>
//!     let verdict = list >> J
//!     if (verdict.agreed) { break }                        // verdict.value is the value
//!     reason = verdict.reason
//! }
//! ```

use nexa_vm::op::{Asking, MergeStrategy};

use super::Checker;
use super::calls::Piped;
use super::forks::Branch;
use super::literals::block_of;
use super::merges::{joint, merged};
use super::questions::{raised, standard};
use crate::ast::{self, AstNode, MergeClause};
use crate::diagnostic::Code;
use crate::hir::{At, Const, Expr, ExprKind, ForEach, Fork, Forked, Item, Operator, Stmt, StmtKind, Test};
use crate::source::Span;
use crate::types::{Fit, Ty};

/// What an agent is told when a consensus was not reached, while the branches are looked at again.
const REASON: &str = "$reason";
/// Rounds after the first, unless the program says otherwise, and at most.
const ROUNDS: i64 = 1;
const ROUNDS_MAX: i64 = 16;
/// What the built-in judge is asked.
const WHICH_IS_BEST: &str = "Which of these candidates is the best?";

/// What is judged: the results, their types, and what the branches are called.
struct Judged {
    /// A local that holds the results.
    list: Expr,
    /// The type of a value.
    value: Ty,
    names: Vec<String>,
}

/// A fork that a judge decides about.
struct Agreement<'n> {
    judge: &'n ast::Expr,
    rounds: i64,
    /// All of them if it is not written.
    min_ok: Option<i64>,
    /// In how long each branch must end, each time.
    timeout: Option<&'n ast::Expr>,
}

impl Checker<'_> {
    /// `merge best_of(judge: J)`; without a judge the model is asked.
    pub(super) fn best_by_judge(
        &mut self,
        list: Expr,
        value: &Ty,
        names: Vec<String>,
        judge: Option<&ast::Expr>,
        min_ok: Expr,
        at: At,
    ) -> Expr {
        let mut out = Vec::new();
        let here = Span::new(at.start, at.start);
        let list = self.set_aside(list, &mut out, at);
        let judged = Judged { list: list.clone(), value: value.clone(), names };
        out.push(enough(&list, min_ok, at));
        let best = match judge {
            None => {
                let subject = sections(&judged, true, at);
                self.ask(Asking::Judge, Expr::text(WHICH_IS_BEST, at), subject, None, here)
            }
            Some(judge) => match self.verdict(judge, &judged, &[("best", Ty::Int)], true, &mut out, at) {
                Some(verdict) => field(&verdict, "best", Ty::Int),
                None => return self.broken(judge.span()),
            },
        };
        if best.ty.is_silent() {
            return best;
        }
        let best = self.set_aside(best, &mut out, at);
        let bool = |kind| Expr::new(kind, Ty::Bool, at);
        let compare =
            |operator, left: Expr, right: Expr| bool(ExprKind::Binary(operator, Box::new(left), Box::new(right)));
        let len = standard("list.len", vec![list.clone()], Ty::Int, at);
        let below = compare(Operator::Lt, best.clone(), Expr::constant(Const::Int(0), at));
        let beyond = compare(Operator::Ge, best.clone(), len);
        let lost = bool(ExprKind::Or(Box::new(below), Box::new(beyond)));
        let message = |text: &str| {
            let number = Expr::new(ExprKind::Concat(vec![best.clone()]), Ty::Str, at);
            let parts = vec![Expr::text("the judge chose branch ", at), number, Expr::text(text, at)];
            Expr::new(ExprKind::Concat(parts), Ty::Str, at)
        };
        let none = raised("merge_failed", message(", which there is not"), at);
        out.push(Stmt { kind: StmtKind::If(lost, vec![none], Vec::new()), at });
        let chosen = ExprKind::Index(Box::new(list), Box::new(best.clone()));
        let chosen = self.set_aside(Expr::new(chosen, Ty::result(value.clone()), at), &mut out, at);
        let failed = bool(ExprKind::Is(Test::Err, Box::new(chosen.clone())));
        let none = raised("merge_failed", message(", which failed"), at);
        out.push(Stmt { kind: StmtKind::If(failed, vec![none], Vec::new()), at });
        block_of(out, Expr::new(ExprKind::Unwrap(Box::new(chosen)), value.clone(), at))
    }

    /// `fork […] merge consensus(judge: J, rounds: n)`
    pub(super) fn consensus(
        &mut self,
        clause: &MergeClause,
        branches: &[Branch],
        piped: Option<Piped>,
        at: At,
    ) -> Expr {
        let Some(name) = clause.strategy() else { return self.broken(clause.span()) };
        let known = ["judge", "rounds", "min_ok", "timeout"];
        let Some(options) = self.merge_options(clause, "consensus", &known) else { return self.broken(name.span()) };
        let Some(judge) = options.get("judge") else {
            let lacks = self.finding(Code::E0304, name.span(), "`merge consensus` needs a judge");
            return self.refuse(lacks.help("write `consensus(judge: J)`, J giving `{ agreed, value, reason }`"));
        };
        let rounds = match options.get("rounds") {
            Some(written) => self.int_setting(written, "rounds", 0..=ROUNDS_MAX),
            None => Some(ROUNDS),
        };
        let min_ok = match options.get("min_ok") {
            Some(written) => self.int_setting(written, "min_ok", 1..=branches.len() as i64),
            None => Some(branches.len() as i64),
        };
        let timeout = options.get("timeout");
        let (Some(rounds), Some(min_ok)) = (rounds, min_ok) else { return self.broken(name.span()) };
        self.agree(branches, piped, &Agreement { judge, rounds, min_ok: Some(min_ok), timeout }, at)
    }

    /// `x |>> […] && J`: the fork is written there, so its branches can run again.
    pub(super) fn rerun_until_agreed(
        &mut self,
        branches: &[Branch],
        piped: Option<Piped>,
        judge: &ast::Expr,
        span: Span,
        at_op: Span,
    ) -> Expr {
        self.is_effect_in_fn(at_op, "a fork");
        if !self.check_branches(branches, span) {
            return self.broken(span);
        }
        let at = self.at_span(at_op);
        self.agree(branches, piped, &Agreement { judge, rounds: ROUNDS, min_ok: None, timeout: None }, at)
    }

    /// `r && J` for results that are there already.
    pub(super) fn agree_on_results(&mut self, left: &ast::Expr, piped: Piped, judge: &ast::Expr, at_op: Span) -> Expr {
        if piped.value.ty.is_silent() {
            return self.broken(at_op);
        }
        let at = self.at_span(at_op);
        let mut statements = Vec::new();
        let Some((list, item)) = self.as_list(piped.value.clone(), &mut statements, at) else {
            let message = format!("`{}` is neither a fork nor a list", self.show(&piped.value.ty));
            let wrong = self.finding(Code::E0508, left.span(), message);
            return self.refuse(wrong.help("fork first: `x |>> [A, B] && J`"));
        };
        let names = self.section_names(left);
        let value = self.agree_on(list, &item, names, judge, at);
        block_of(statements, value)
    }

    fn agree(&mut self, branches: &[Branch], piped: Option<Piped>, agreement: &Agreement<'_>, at: At) -> Expr {
        let mut out = Vec::new();
        let piped = match piped {
            Some(Piped { value, .. }) if value.ty.is_silent() => return Expr { ty: Ty::Broken, ..value },
            Some(Piped { value, span }) => Some(Piped { value: self.set_aside(value, &mut out, at), span }),
            None => None,
        };
        let timeout = match agreement.timeout.map(|written| self.branch_timeout(written)) {
            Some(value) if value.ty.is_silent() => return Expr { ty: Ty::Broken, ..value },
            Some(value) if !value.is_inert() => Some(self.set_aside(value, &mut out, at)),
            timeout => timeout,
        };
        let fork = |branches| {
            let input = piped.as_ref().map(|piped| piped.value.clone());
            let fork = Fork { input, branches, timeout: timeout.clone(), gives: Forked::List };
            Expr::new(ExprKind::Fork(Box::new(fork)), Ty::list(Ty::result(Ty::Any)), at)
        };
        let (made, types): (Vec<Expr>, Vec<Ty>) = self.branch_values(branches, piped.as_ref()).into_iter().unzip();
        if types.contains(&Ty::Broken) {
            return Expr::new(ExprKind::Const(Const::Unit), Ty::Broken, at);
        }
        let first = fork(made);
        let given: Vec<(Span, Ty)> = branches.iter().map(|branch| branch.value.span()).zip(types).collect();
        let names = super::forks::names_of(branches);
        let mut again = None;
        let reason = self.temporary(Span::new(at.start, at.start));
        if agreement.rounds > 0 {
            // The branches are looked at a second time, with a reason to tell; what is wrong with them was said.
            let (opened, known) = (self.open_block(), self.diagnostics.len());
            self.bind_word(REASON, Span::new(at.start, at.start), Ty::Str, reason);
            let (made, _): (Vec<Expr>, Vec<Ty>) = self.branch_values(branches, piped.as_ref()).into_iter().unzip();
            self.diagnostics.truncate(known);
            self.close_block(opened);
            again = Some(fork(made));
        }
        self.agreed(first, joint(&given), names, branches.len(), agreement, reason, again, out, at)
    }

    /// `r && J` on results that are there already: the judge is asked once.
    fn agree_on(&mut self, list: Expr, item: &Ty, names: Vec<String>, judge: &ast::Expr, at: At) -> Expr {
        let value = match item {
            Ty::Result(value, _) => (**value).clone(),
            other => other.clone(),
        };
        let mut out = Vec::new();
        let list = match item {
            Ty::Result(..) => list,
            // Values that cannot have failed are ok results.
            _ => self.mapped(list, item, &mut out, at, &|item| {
                Expr::new(ExprKind::WrapOk(Box::new(item)), Ty::result(value.clone()), at)
            }),
        };
        let agreement = Agreement { judge, rounds: 0, min_ok: None, timeout: None };
        let reason = self.temporary(Span::new(at.start, at.start));
        self.agreed(list, value.clone(), names, 0, &agreement, reason, None, out, at)
    }

    #[allow(clippy::too_many_arguments)]
    fn agreed(
        &mut self,
        first: Expr,
        value: Ty,
        names: Vec<String>,
        count: usize,
        agreement: &Agreement<'_>,
        reason: u16,
        again: Option<Expr>,
        mut out: Vec<Stmt>,
        at: At,
    ) -> Expr {
        let here = Span::new(at.start, at.start);
        let list = self.set_aside(first, &mut out, at);
        let ExprKind::Local(slot) = list.kind else { return self.broken(here) };
        let stmt = |kind| Stmt { kind, at };
        let round = self.temporary(here);
        let count_of = || Box::new(Expr::local(round, Ty::Int, at));
        let number = |number: i64| Box::new(Expr::constant(Const::Int(number), at));
        out.push(stmt(StmtKind::Store(reason, Expr::text("", at))));
        out.push(stmt(StmtKind::Store(round, *number(0))));
        let message = vec![Expr::text("the judge sees no consensus: ", at), Expr::local(reason, Ty::Str, at)];
        let raise = raised("merge_failed", Expr::new(ExprKind::Concat(message), Ty::Str, at), at);
        let is_over = ExprKind::Binary(Operator::Ge, count_of(), number(agreement.rounds + 1));
        let mut body = vec![
            stmt(StmtKind::If(Expr::new(is_over, Ty::Bool, at), vec![raise], Vec::new())),
            stmt(StmtKind::Increment(round, 1)),
        ];
        if let Some(fork) = again {
            let is_later = ExprKind::Binary(Operator::Gt, count_of(), number(1));
            let run = stmt(StmtKind::Store(slot, fork));
            body.push(stmt(StmtKind::If(Expr::new(is_later, Ty::Bool, at), vec![run], Vec::new())));
        }
        let min_ok = match agreement.min_ok {
            Some(min_ok) => Expr::constant(Const::Int(min_ok), at),
            None if count > 0 => Expr::constant(Const::Int(count as i64), at),
            None => standard("list.len", vec![list.clone()], Ty::Int, at),
        };
        body.push(enough(&list, min_ok, at));
        let judged = Judged { list, value, names };
        let fields = [("agreed", Ty::Bool), ("value", Ty::Any), ("reason", Ty::Str)];
        let Some(verdict) = self.verdict(agreement.judge, &judged, &fields, false, &mut body, at) else {
            return self.broken(agreement.judge.span());
        };
        let value_ty = self.types.fields(&verdict.ty).into_iter().flat_map(|fields| fields.to_vec());
        let value_ty = value_ty.into_iter().find(|field| &*field.name == "value").map_or(Ty::Any, |field| field.ty);
        body.push(stmt(StmtKind::If(field(&verdict, "agreed", Ty::Bool), vec![stmt(StmtKind::Break)], Vec::new())));
        body.push(stmt(StmtKind::Store(reason, field(&verdict, "reason", Ty::Str))));
        // The verdict is read after the loop, which only ends with one.
        if let ExprKind::Local(slot) = verdict.kind {
            out.push(stmt(StmtKind::Store(slot, Expr::constant(Const::None, at))));
        }
        out.push(stmt(StmtKind::While(Expr::constant(Const::Bool(true), at), body)));
        block_of(out, field(&verdict, "value", value_ty))
    }

    /// Runs the judge; E0512 if its result lacks what is asked of it.
    fn verdict(
        &mut self,
        judge: &ast::Expr,
        judged: &Judged,
        fields: &[(&str, Ty)],
        is_numbered: bool,
        out: &mut Vec<Stmt>,
        at: At,
    ) -> Option<Expr> {
        let shown = self.shown_to_judge(judge, judged, is_numbered, out, at);
        let verdict = self.stage(judge, Piped { value: shown, span: judge.span() });
        if verdict.ty.is_silent() {
            return None;
        }
        let given = self.types.fields(&verdict.ty);
        let suits = |(name, ty): &(&str, Ty)| {
            let found = given.iter().flat_map(|fields| fields.iter()).find(|field| &*field.name == *name);
            found.is_some_and(|field| self.types.fit(&field.ty, ty) == Fit::Same)
        };
        if !fields.iter().all(suits) {
            let wanted: Vec<String> = fields.iter().map(|(name, ty)| format!("{name}: {}", self.show(ty))).collect();
            let message = format!("a judge gives `{{ {} }}`, not `{}`", wanted.join(", "), self.show(&verdict.ty));
            let wrong = self.finding(Code::E0512, judge.span(), message);
            self.report(wrong.help("declare a protocol with these fields, and make it the judge's result"));
            return None;
        }
        Some(self.set_aside(verdict, out, at))
    }

    /// What a judge is given, see the module's header.
    fn shown_to_judge(
        &mut self,
        judge: &ast::Expr,
        judged: &Judged,
        is_numbered: bool,
        out: &mut Vec<Stmt>,
        at: At,
    ) -> Expr {
        let list = judged.list.clone();
        let result = Ty::result(judged.value.clone());
        let Some(Ty::List(item)) = self.merged_input(judge) else { return sections(judged, is_numbered, at) };
        match self.types.base(&item) {
            Ty::Result(..) => Expr { ty: Ty::list(result), ..list },
            Ty::Str => self.mapped(list, &result, out, at, &|item| {
                let is_ok = Expr::new(ExprKind::Is(Test::Ok, Box::new(item.clone())), Ty::Bool, at);
                let value = Expr::new(ExprKind::Unwrap(Box::new(item.clone())), Ty::Any, at);
                let error = Expr::new(ExprKind::ErrorOf(Box::new(item)), Ty::Any, at);
                let text = |parts| Expr::new(ExprKind::Concat(parts), Ty::Str, at);
                let failed = text(vec![Expr::text("failed: ", at), field(&error, "code", Ty::Str)]);
                let choice = ExprKind::If(Box::new(is_ok), Box::new(text(vec![value])), Box::new(failed));
                Expr::new(choice, Ty::Str, at)
            }),
            Ty::Option(_) => {
                let ty = Ty::option(judged.value.clone());
                self.mapped(list, &result, out, at, &|item| {
                    let none = Expr::constant(Const::None, at);
                    standard("result.unwrap_or", vec![item, none], ty.clone(), at)
                })
            }
            _ => {
                let least = Expr::constant(Const::Int(0), at);
                merged(MergeStrategy::AtLeast, list, vec![least], Ty::list(judged.value.clone()), at)
            }
        }
    }

    /// A list of what an expression makes of each element.
    fn mapped(&mut self, list: Expr, item: &Ty, out: &mut Vec<Stmt>, at: At, make: &dyn Fn(Expr) -> Expr) -> Expr {
        let here = Span::new(at.start, at.start);
        let (made, one) = (self.temporary(here), self.temporary(here));
        let value = make(Expr::local(one, item.clone(), at));
        let ty = Ty::list(value.ty.clone());
        let so_far = Expr::local(made, ty.clone(), at);
        let push = standard("list.push", vec![so_far.clone(), value], ty.clone(), at);
        let body = vec![Stmt { kind: StmtKind::Store(made, push), at }];
        let empty = Expr::new(ExprKind::List(Vec::new()), ty, at);
        out.push(Stmt { kind: StmtKind::Store(made, empty), at });
        let walk = ForEach { over: list, index: None, item: Item::One(one), body };
        out.push(Stmt { kind: StmtKind::ForEach(Box::new(walk)), at });
        so_far
    }

    /// The agent that is like another one and is told a message after its input.
    pub(super) fn told(&mut self, number: usize) -> usize {
        if let Some(known) = self.told.get(&number) {
            return *known;
        }
        let signature = (*self.agents[number].signature).clone();
        let mut agent = self.agents[number].checked.clone();
        agent.params.push((REASON.to_owned(), Ty::Str));
        agent.is_told = true;
        let made = self.derived(number, signature, agent);
        self.told.insert(number, made);
        made
    }

    /// The reason why the branches run again, if they do.
    pub(super) fn reason(&mut self, span: Span) -> Option<Expr> {
        self.is_variable(REASON).then(|| self.variable(REASON, span)).flatten()
    }
}

/// Raises `merge_failed` unless enough branches are ok.
fn enough(list: &Expr, min_ok: Expr, at: At) -> Stmt {
    let ok = merged(MergeStrategy::AtLeast, list.clone(), vec![min_ok], Ty::list(Ty::Any), at);
    Stmt { kind: StmtKind::Expr(ok), at }
}

/// A text with a section for each branch, with its number if it is to be chosen by it.
fn sections(judged: &Judged, is_numbered: bool, at: At) -> Expr {
    let names = judged.names.iter().enumerate();
    let names = names.map(|(place, name)| if is_numbered { format!("{place}: {name}") } else { name.clone() });
    let names = names.map(|name| Expr::text(&name, at)).collect();
    let names = Expr::new(ExprKind::List(names), Ty::list(Ty::Str), at);
    Expr::new(ExprKind::MergeSections(Box::new(names), Box::new(judged.list.clone())), Ty::Str, at)
}

fn field(record: &Expr, name: &str, ty: Ty) -> Expr {
    Expr::new(ExprKind::Field(Box::new(record.clone()), name.into()), ty, record.at)
}

//! `merge S(opts)` after a fork: one value from the branches' results.
//!
//! Whether a strategy can merge what the branches give, and whether its options suit their number, is said here; what
//! is left at run time is to count who failed. `best_of` is written out as a loop over the ok values, so that its
//! function runs as the program's own.

use std::collections::BTreeMap;
use std::rc::Rc;

use nexa_vm::op::MergeStrategy;

use super::Checker;
use super::agents::WEIGHT_MAX;
use super::literals::block_of;
use super::places::Place;
use crate::ast::{self, AstNode, MergeClause, Name};
use crate::diagnostic::Code;
use crate::hir::{At, Const, Expr, ExprKind, ForEach, Fork, Forked, Item, Operator, Stmt, StmtKind};
use crate::source::Span;
use crate::types::{Fit, Ty};

/// The strategies of this release, with their options.
const STRATEGIES: &[(&str, &[&str])] = &[
    ("first", &["min_ok", "timeout"]),
    ("all", &["min_ok", "timeout"]),
    ("concat", &["sep", "min_ok", "timeout"]),
    ("vote", &["min_ok", "tie", "timeout"]),
    ("best_of", &["by", "judge", "min_ok", "timeout"]),
    ("weighted_average", &["weights", "min_ok", "timeout"]),
    ("consensus", &["judge", "rounds", "min_ok", "timeout"]),
];
/// What stands between texts unless the program says otherwise.
const SEPARATOR: &str = "\n\n";

/// Options are expressions, which may hold merges again; one takes the room of so many levels of others.
const LEVELS: u32 = 10 * super::LEVEL;

/// What a branch gives, and where it is written.
pub(super) type BranchType = (Span, Ty);

/// The options of a clause by their names, as written.
pub(super) type Options = BTreeMap<String, ast::Expr>;

impl Checker<'_> {
    /// Merges what the branches of a fork give.
    pub(super) fn merge_fork(&mut self, clause: &MergeClause, fork: Fork, branches: &[BranchType], at: At) -> Expr {
        self.depth += LEVELS;
        let value = self.merge_here(clause, fork, branches, at);
        self.depth -= LEVELS;
        value
    }

    fn merge_here(&mut self, clause: &MergeClause, mut fork: Fork, branches: &[BranchType], at_fork: At) -> Expr {
        let Some(name) = clause.strategy() else { return self.broken(clause.span()) };
        let strategy = name.text();
        let Some((_, known)) = STRATEGIES.iter().find(|(known, _)| *known == strategy) else {
            let unknown = self.finding(Code::E0208, name.span(), format!("there is no strategy `{strategy}`"));
            let unknown = self.suggest(unknown, &strategy, STRATEGIES.iter().map(|(known, _)| *known));
            let all = super::listed(STRATEGIES.iter().map(|(known, _)| *known));
            return self.refuse(unknown.note(format!("the strategies are {all}")));
        };
        let Some(options) = self.merge_options(clause, &strategy, known) else { return self.broken(name.span()) };
        let at = self.at_span(name.span());
        let count = branches.len();
        let default = match strategy.as_str() {
            "vote" => count / 2 + 1,
            "first" | "best_of" => 1,
            _ => count,
        };
        let min_ok = match options.get("min_ok") {
            Some(written) => self.int_setting(written, "min_ok", 1..=count as i64),
            None => Some(default as i64),
        };
        fork.timeout = options.get("timeout").map(|written| self.branch_timeout(written));
        if fork.timeout.iter().any(|timeout| timeout.ty.is_silent()) || branches.iter().any(|(_, ty)| *ty == Ty::Broken)
        {
            return self.broken(name.span());
        }
        let Some(min_ok) = min_ok else { return self.broken(name.span()) };
        let value = joint(branches);
        if strategy == "first" {
            // Of the branches that a fork may have, so many are checked to be there.
            fork.gives = Forked::First(min_ok as u16);
            return Expr::new(ExprKind::Fork(Box::new(fork)), value, at);
        }
        let list = Expr::new(ExprKind::Fork(Box::new(fork)), Ty::list(Ty::result(Ty::Any)), at_fork);
        let min_ok = Expr::constant(Const::Int(min_ok), at);
        match strategy.as_str() {
            "all" => merged(MergeStrategy::AtLeast, list, vec![min_ok], Ty::list(value), at),
            "concat" => self.concat(&name, list, min_ok, branches, options.get("sep")),
            "vote" => match options.get("tie") {
                None => merged(MergeStrategy::Vote, list, vec![min_ok], value, at),
                Some(tie) => match self.text_setting(tie, "tie").as_deref() {
                    Some("earliest") => merged(MergeStrategy::Vote, list, vec![min_ok], value, at),
                    Some("error") => merged(MergeStrategy::VoteWithoutTie, list, vec![min_ok], value, at),
                    Some(other) => {
                        let allowed = "\"earliest\" or \"error\"";
                        self.out_of_range(tie.span(), "tie", &format!("\"{other}\""), allowed);
                        self.broken(tie.span())
                    }
                    None => self.broken(tie.span()),
                },
            },
            "weighted_average" => self.weighted_average(&name, list, min_ok, branches, options.get("weights")),
            _ => match options.get("by") {
                Some(by) if options.contains_key("judge") => {
                    let both = self.finding(Code::E0304, by.span(), "`merge best_of` takes `by` or `judge`, not both");
                    self.refuse(both)
                }
                Some(by) => {
                    let ok = merged(MergeStrategy::AtLeast, list, vec![min_ok], Ty::list(value.clone()), at);
                    self.best_of(ok, &value, by, at)
                }
                None => {
                    let names = (1..=branches.len()).map(|number| number.to_string()).collect();
                    self.best_by_judge(list, &value, names, options.get("judge"), min_ok, at)
                }
            },
        }
    }

    /// The options by their names; nothing if one of them is wrong.
    pub(super) fn merge_options(&mut self, clause: &MergeClause, strategy: &str, known: &[&str]) -> Option<Options> {
        let mut options = Options::new();
        let mut is_right = true;
        for arg in clause.options().into_iter().flat_map(|list| list.args()) {
            let Some(value) = arg.value() else { continue };
            let wrong = match arg.name() {
                None => {
                    let unnamed = self.finding(Code::E0304, value.span(), "the options of `merge` have names");
                    Some(unnamed.help(format!("write `{}: …`", known[0])))
                }
                Some(name) if !known.contains(&name.text().as_str()) => {
                    let message = format!("`merge {strategy}` has no option `{}`", name.text());
                    let unknown = self.finding(Code::E0304, name.span(), message);
                    let unknown = self.suggest(unknown, &name.text(), known.iter().copied());
                    Some(unknown.note(format!("its options: {}", super::listed(known.iter().copied()))))
                }
                Some(name) => options.insert(name.text(), value).map(|first| {
                    let message = format!("`merge {strategy}` gets `{}` twice", name.text());
                    self.finding(Code::E0304, name.span(), message).label(first.span(), "it is given here first")
                }),
            };
            if let Some(wrong) = wrong {
                self.report(wrong);
                is_right = false;
            }
        }
        is_right.then_some(options)
    }

    /// What `timeout: …` says: in how long each branch must end.
    pub(super) fn branch_timeout(&mut self, written: &ast::Expr) -> Expr {
        self.expect(written, &Ty::Duration, Place::Argument("timeout", "merge", None))
    }

    /// E0502 for the first branch whose type does not suit.
    fn unmergeable(
        &mut self,
        name: &Name,
        branches: &[BranchType],
        does: &str,
        suits: impl Fn(&Ty) -> bool,
    ) -> Option<Expr> {
        let (span, ty) = branches.iter().find(|(_, ty)| *ty != Ty::Never && !suits(ty))?;
        let message = format!("`{}` {does}, and this branch gives `{}`", name.text(), self.show(ty));
        let wrong = self.finding(Code::E0502, *span, message).label(name.span(), "they are merged here");
        let help = "`merge all` gives a list of the values, and `merge vote` the most frequent one";
        Some(self.refuse(wrong.help(help)))
    }

    /// What holds of the branches besides is lost when they are made one.
    fn plain_branches(&self, branches: &[BranchType]) -> Vec<BranchType> {
        branches.iter().map(|(span, ty)| (*span, self.types.base(ty).clone())).collect()
    }

    fn concat(
        &mut self,
        name: &Name,
        list: Expr,
        min_ok: Expr,
        branches: &[BranchType],
        separator: Option<&ast::Expr>,
    ) -> Expr {
        let at = self.at_span(name.span());
        let branches = &self.plain_branches(branches);
        let has_list = branches.iter().any(|(_, ty)| matches!(ty, Ty::List(_)));
        let has_text = branches.iter().any(|(_, ty)| *ty == Ty::Str);
        let does = if has_list && has_text { "joins only texts, or only lists" } else { "joins texts or lists" };
        let suits = |ty: &Ty| match ty {
            Ty::Any | Ty::Str => true,
            Ty::List(_) => !has_text,
            _ => false,
        };
        if let Some(wrong) = self.unmergeable(name, branches, does, suits) {
            return wrong;
        }
        let is_open = branches.iter().any(|(_, ty)| *ty == Ty::Any);
        let ty = match joint(branches) {
            Ty::Any if has_list && !is_open => Ty::list(Ty::Any),
            ty => ty,
        };
        let separator = match separator {
            Some(written) => self.expect(written, &Ty::Str, Place::Property("sep")),
            None => Expr::text(SEPARATOR, at),
        };
        merged(MergeStrategy::Concat, list, vec![separator, min_ok], ty, at)
    }

    fn weighted_average(
        &mut self,
        name: &Name,
        list: Expr,
        min_ok: Expr,
        branches: &[BranchType],
        weights: Option<&ast::Expr>,
    ) -> Expr {
        let at = self.at_span(name.span());
        let branches = &self.plain_branches(branches);
        let suits = |ty: &Ty| ty.is_number() || *ty == Ty::Any;
        if let Some(wrong) = self.unmergeable(name, branches, "is of numbers", suits) {
            return wrong;
        }
        let weights: Vec<f64> = match weights {
            None => self.own_weights(&list),
            Some(ast::Expr::ListExpr(written)) => {
                let items: Vec<ast::Expr> = written.items().collect();
                if items.len() != branches.len() {
                    let message = format!("there are {} branches and {} weights", branches.len(), items.len());
                    let wrong = self.finding(Code::E0506, written.span(), message);
                    return self.refuse(wrong.help("give each branch one weight, in their order"));
                }
                let read = |item: &ast::Expr| self.float_setting(item, "a weight", 0.0..=WEIGHT_MAX);
                let read: Vec<Option<f64>> = items.iter().map(read).collect();
                match read.into_iter().collect() {
                    Some(weights) => weights,
                    None => return self.broken(written.span()),
                }
            }
            Some(other) => {
                let wrong = self.finding(Code::E0404, other.span(), "`weights` must be a constant");
                return self.refuse(wrong.help("write a list of numbers here: `weights: [1, 2.5]`"));
            }
        };
        if weights.iter().all(|weight| *weight == 0.0) {
            self.out_of_range(name.span(), "the sum of the weights", "0", "anything above it");
            return self.broken(name.span());
        }
        let weights = weights.into_iter().map(|weight| Expr::constant(Const::Float(weight), at)).collect();
        let weights = Expr::new(ExprKind::List(weights), Ty::list(Ty::Float), at);
        merged(MergeStrategy::WeightedAverage, list, vec![weights, min_ok], Ty::Float, at)
    }

    /// What each branch of a fork counts: the weight of the agent or flow that it runs, 1 for anything else.
    fn own_weights(&self, list: &Expr) -> Vec<f64> {
        let ExprKind::Fork(fork) = &list.kind else { return Vec::new() };
        fork.branches.iter().map(|branch| self.own_weight(branch)).collect()
    }

    fn own_weight(&self, branch: &Expr) -> f64 {
        let mut callee = branch;
        loop {
            match &callee.kind {
                ExprKind::Partial(inner, ..) => callee = inner,
                ExprKind::Agent(agent) | ExprKind::Run(agent, _) => {
                    return self.agents[*agent as usize].checked.schedule.weight;
                }
                ExprKind::Call(flow, _) => return self.flows[*flow as usize].schedule.weight,
                ExprKind::Closure(number, _) if (*number as usize) < self.flows.len() => {
                    return self.flows[*number as usize].schedule.weight;
                }
                // A branch of its own: what it returns.
                ExprKind::Closure(number, _) => match self.functions.get(*number as usize).map(|f| f.body.as_slice()) {
                    Some([Stmt { kind: StmtKind::Return(value), .. }]) => callee = value,
                    _ => return 1.0,
                },
                ExprKind::Block(_, value) => callee = value,
                _ => return 1.0,
            }
        }
    }

    /// The value for which the function gives the most; the earliest of several.
    ///
    /// ```text
    /// for each index, value in ok {
    ///     let score = by(value)
    ///     if (index == 0 or score > best_score or (best_score is no number and score is one)) {
    ///         best = value; best_score = score
    ///     }
    /// }
    /// ```
    fn best_of(&mut self, ok: Expr, value: &Ty, by: &ast::Expr, at: At) -> Expr {
        let mut before = Vec::new();
        let ok = self.set_aside(ok, &mut before, at);
        let want = Ty::Function([value.clone()].into(), Rc::new(Ty::Float));
        let made = self.expr(by, Some(&want));
        let (input, output) = match made.ty.clone() {
            Ty::Function(params, output) if params.len() == 1 => (params[0].clone(), (*output).clone()),
            Ty::Stage(input, output) => ((*input).clone(), (*output).clone()),
            ty if ty.is_silent() => return self.broken(by.span()),
            ty => {
                let (wanted, given) = (self.show(&want), self.show(&ty));
                let wrong = self.finding(Code::E0301, by.span(), format!("`by` takes `{wanted}`, not `{given}`"));
                return self.refuse(wrong.help("say what makes a value better: `by: fn(v) => v.score`"));
            }
        };
        if self.types.fit(&output, &Ty::Float) == Fit::No {
            let message = format!("`by` gives `{}`, and must give `float`", self.show(&output));
            let wrong = self.finding(Code::E0301, by.span(), message);
            return self.refuse(wrong.help("the value with the highest number is the best"));
        }
        let function = if made.is_inert() { made } else { self.set_aside(made, &mut before, at) };
        let here = Span::new(at.start, at.start);
        let slots: [u16; 5] = std::array::from_fn(|_| self.temporary(here));
        let [best, best_score, index, item, score] = slots;
        let argument = self.coerce(Expr::local(item, value.clone(), at), &input, by.span(), Place::Piped("by", None));
        let called = Expr::new(ExprKind::CallValue(Box::new(function), vec![argument]), output, at);
        let called = self.coerce(called, &Ty::Float, by.span(), Place::Index);
        let float = |slot| Box::new(Expr::local(slot, Ty::Float, at));
        let bool = |kind| Box::new(Expr::new(kind, Ty::Bool, at));
        let zero = Box::new(Expr::constant(Const::Int(0), at));
        let is_first = bool(ExprKind::Binary(Operator::Eq, Box::new(Expr::local(index, Ty::Int, at)), zero));
        let is_better = bool(ExprKind::Binary(Operator::Gt, float(score), float(best_score)));
        let is_number = bool(ExprKind::Binary(Operator::Eq, float(score), float(score)));
        let was_none = bool(ExprKind::Binary(Operator::Ne, float(best_score), float(best_score)));
        let is_better = bool(ExprKind::Or(is_better, bool(ExprKind::And(was_none, is_number))));
        let is_best = ExprKind::Or(is_first, is_better);
        let store = |slot, value| Stmt { kind: StmtKind::Store(slot, value), at };
        let take = vec![
            store(best, Expr::local(item, value.clone(), at)),
            store(best_score, Expr::local(score, Ty::Float, at)),
        ];
        let choose = StmtKind::If(*bool(is_best), take, Vec::new());
        let body = vec![store(score, called), Stmt { kind: choose, at }];
        let walk = ForEach { over: ok, index: Some(index), item: Item::One(item), body };
        before.push(store(best, Expr::constant(Const::None, at)));
        before.push(store(best_score, Expr::constant(Const::Float(0.0), at)));
        before.push(Stmt { kind: StmtKind::ForEach(Box::new(walk)), at });
        block_of(before, Expr::local(best, value.clone(), at))
    }
}

pub(super) fn merged(strategy: MergeStrategy, list: Expr, options: Vec<Expr>, ty: Ty, at: At) -> Expr {
    Expr::new(ExprKind::Merge(strategy, Box::new(list), options), ty, at)
}

/// The type of a value that may come from any of the branches: theirs if they agree. Branches that never give a value
/// do not count.
pub(super) fn joint(branches: &[BranchType]) -> Ty {
    let mut types = branches.iter().map(|(_, ty)| ty).filter(|ty| **ty != Ty::Never);
    match types.next() {
        Some(first) if types.all(|ty| ty == first) => first.clone(),
        _ => Ty::Any,
    }
}

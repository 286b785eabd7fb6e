//! Planners: how an agent comes to its answer.
//!
//! ```text
//! "react", react(max_steps: n)      one run: the model reasons and calls tools until it gives an answer
//! best_of_n(n: 4, judge: J)         several such runs beside each other, and a judge that chooses one of them
//! tectonic(…)                       a search, whose engine this release does not have
//! ```
//!
//! An agent with `best_of_n` is two agents of the program. The *run* is the agent as it is written, with the planner
//! `react`: what its properties say holds for each run. The agent itself is what stands around the runs: it has the budget,
//! looks once at what is required, forks as many runs as it is told, and merges them as `best_of` does.
//!
//! Holds: no judge leads back to the agent that it judges, by way of judges and fallbacks.

use std::collections::BTreeSet;
use std::rc::Rc;

use nexa_types::Budget;

use super::Checker;
use super::declarations::{AgentInfo, Signature};
use super::modules::Item;
use super::places::Place;
use super::scope::{Frame, FrameKind};
use crate::ast::{self, AstNode};
use crate::diagnostic::Code;
use crate::hir::{self, BestOf, Const, Expr, ExprKind};
use crate::source::{FileId, Span};
use crate::types::Ty;

/// Runs of an agent with `best_of_n`.
const RUNS: std::ops::RangeInclusive<i64> = 2..=16;
/// Steps of one run.
const STEPS: std::ops::RangeInclusive<i64> = 1..=1_000;
const REACT_HELP: &str = "write `react(max_steps: 16)`";
const BEST_OF_N_HELP: &str = "write `best_of_n(n: 4)`, or with an agent that chooses `best_of_n(n: 4, judge: J)`";

impl Checker<'_> {
    /// `planner: …`
    pub(super) fn planner(&mut self, agent: &mut hir::Agent, signature: &Signature, value: &ast::Expr) {
        // A clone may have another planner than what it is made of.
        (agent.max_steps, agent.best_of) = (None, None);
        let (name, args) = match value {
            ast::Expr::StringExpr(text) => (text.plain(), None),
            ast::Expr::NameRef(name) => (name.name().map(|name| name.text()), None),
            ast::Expr::CallExpr(call) => match call.callee() {
                Some(ast::Expr::NameRef(name)) => (name.name().map(|name| name.text()), Some(call.args())),
                _ => (None, None),
            },
            _ => (None, None),
        };
        match (name.as_deref(), args) {
            (Some("react"), None) => {}
            (Some("react"), Some(args)) => {
                let known = self.planner_settings("react", &args, &["max_steps"], REACT_HELP);
                for (_, value) in known {
                    let steps = self.planner_number("max_steps", &value, STEPS);
                    agent.max_steps = steps.map(|steps| steps as u32);
                }
            }
            (Some("best_of_n"), Some(args)) => agent.best_of = self.best_of_n(agent, signature, &args, value.span()),
            (Some("best_of_n"), None) => {
                let lacks =
                    self.finding(Code::E0411, value.span(), "`best_of_n` needs to know how many runs there are");
                self.report(lacks.help(BEST_OF_N_HELP));
            }
            (Some("tectonic"), _) => {
                let message = "the search engine of `tectonic` is not available in this release";
                let absent = self.finding(Code::E0411, value.span(), message);
                self.report(absent.help("use `react`, or `best_of_n(n: 4)` for several runs and a judge"));
            }
            (Some(other), _) => {
                let unknown = self.finding(Code::E0411, value.span(), format!("there is no planner `{other}`"));
                let unknown = self.suggest(unknown, other, ["react", "best_of_n"]);
                self.report(unknown.note("planners are `react` and `best_of_n`"));
            }
            (None, _) => {
                let wrong = self.finding(Code::E0411, value.span(), "`planner` takes the name of a planner");
                self.report(wrong.help("write `\"react\"`, `react(max_steps: 16)` or `best_of_n(n: 4)`"));
            }
        }
    }

    /// The settings of a planner, each of a known name and given once.
    fn planner_settings(
        &mut self,
        planner: &str,
        args: &[ast::Arg],
        known: &[&'static str],
        help: &str,
    ) -> Vec<(&'static str, ast::Expr)> {
        let mut settings: Vec<(&'static str, ast::Expr)> = Vec::new();
        for arg in args {
            let Some(value) = arg.value() else { continue };
            let name = arg.name().map(|name| name.text());
            let mut meant = String::new();
            let message = match known.iter().find(|known| Some(**known) == name.as_deref()) {
                Some(known) if settings.iter().all(|(given, _)| given != known) => {
                    settings.push((known, value));
                    continue;
                }
                Some(known) => format!("`{planner}` has `{known}` twice"),
                None => match name {
                    Some(name) => {
                        meant.clone_from(&name);
                        format!("`{planner}` has no setting `{name}`")
                    }
                    None => format!("`{planner}` takes its settings by name"),
                },
            };
            let wrong = self.finding(Code::E0411, arg.span(), message);
            let wrong = self.suggest(wrong, &meant, known.iter().copied());
            self.report(wrong.help(help));
        }
        settings
    }

    /// A constant int within bounds.
    fn planner_number(&mut self, name: &str, value: &ast::Expr, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let made = self.constant(value, &Ty::Int, Place::Property(name));
        let ExprKind::Const(Const::Int(number)) = made.kind else { return None };
        if range.contains(&number) {
            return Some(number);
        }
        let message = format!("`{name}` is {number}, and may be from {} to {}", range.start(), range.end());
        let out = self.finding(Code::E0411, value.span(), message);
        self.report(out);
        None
    }

    fn best_of_n(
        &mut self,
        agent: &hir::Agent,
        signature: &Signature,
        args: &[ast::Arg],
        span: Span,
    ) -> Option<BestOf> {
        let (mut count, mut judge) = (None, None);
        for (name, value) in self.planner_settings("best_of_n", args, &["n", "judge"], BEST_OF_N_HELP) {
            match name {
                "n" => count = Some(self.planner_number("n", &value, RUNS)?),
                _ => judge = Some((self.planner_judge(&value)?, value)),
            }
        }
        let Some(count) = count else {
            // What was written may have been the number: one mistake is one error.
            if args.iter().any(|arg| arg.name().is_none_or(|name| !["n", "judge"].contains(&name.text().as_str()))) {
                return None;
            }
            let lacks = self.finding(Code::E0411, span, "`best_of_n` needs to know how many runs there are");
            self.report(lacks.help(BEST_OF_N_HELP));
            return None;
        };
        let at = self.at_span(span);
        let around = std::mem::take(&mut self.frames);
        self.frames.push(Frame::new(signature.name.to_string(), FrameKind::Flow, None));
        for param in &signature.params {
            self.bind_param(&param.name, param.span, param.ty.clone());
        }
        let results = self.temporary(signature.span);
        let list = Expr::local(results, Ty::list(Ty::result(agent.result.clone())), at);
        let names = (1..=count).map(|nth| match nth {
            1 => signature.name.to_string(),
            nth => format!("{}_{nth}", signature.name),
        });
        let least = Expr::constant(Const::Int(1), at);
        let by = judge.as_ref().map(|(_, value)| value);
        let chosen = self.best_by_judge(list, &agent.result, names.collect(), by, least, at);
        let locals = self.frame().locals;
        self.frames = around;
        let judge = judge.map(|(number, _)| number);
        // Which agent its run is, is known once all its properties are.
        (!chosen.ty.is_silent()).then_some(BestOf { run: 0, count: count as u32, judge, results, chosen, locals, at })
    }

    /// The agent that a judge is. A flow could run the agent that it judges, without end.
    fn planner_judge(&mut self, value: &ast::Expr) -> Option<u32> {
        let named = match value {
            ast::Expr::NameRef(_) | ast::Expr::FieldExpr(_) => self.static_item(value),
            _ => None,
        };
        if let Some((Item::Agent(number), _)) = named {
            return Some(number as u32);
        }
        if named.is_none() && self.unknown_item(value).is_some() {
            return None;
        }
        let wrong = self.finding(Code::E0411, value.span(), "`judge` takes the name of an agent");
        self.report(wrong.help("declare one that gives `{ best: int }`, and name it here"));
        None
    }

    /// Makes the agent that is run several times, if an agent is planned so.
    pub(super) fn add_run(&mut self, number: usize) {
        let run = self.agents.len();
        let whole = &mut self.agents[number];
        let Some(best_of) = &mut whole.checked.best_of else { return };
        best_of.run = run as u32;
        let (requires, budget) = (Vec::new(), Budget::default());
        let checked = hir::Agent { best_of: None, requires, budget, ..whole.checked.clone() };
        let (decl, signature) = (whole.decl.clone(), Rc::clone(&whole.signature));
        self.agents.push(AgentInfo { decl, signature, checked });
    }

    /// E0411: the judge of an agent does not lead back to the agent. Fallbacks that do were found before.
    pub(super) fn check_judges(&mut self) {
        let mut told: BTreeSet<u32> = BTreeSet::new();
        for number in 0..self.agents.len() as u32 {
            let Some(best_of) = &self.agents[number as usize].checked.best_of else { continue };
            let at = best_of.at;
            let mut waiting: Vec<u32> = best_of.judge.into_iter().collect();
            let mut seen: BTreeSet<u32> = BTreeSet::new();
            while let Some(next) = waiting.pop() {
                if seen.insert(next) {
                    let agent = &self.agents[next as usize].checked;
                    waiting.extend(agent.fallback);
                    waiting.extend(agent.best_of.as_ref().and_then(|best_of| best_of.judge));
                }
            }
            if !seen.contains(&number) {
                continue;
            }
            // A circle is one mistake, however many agents it goes through.
            let is_told = told.iter().any(|known| seen.contains(known));
            told.insert(number);
            if is_told {
                continue;
            }
            self.file = FileId(at.file);
            let span = Span::new(at.start, at.start + "best_of_n".len() as u32);
            let message = format!("the judge of `{}` leads back to it", self.agents[number as usize].signature.name);
            let circle = self.finding(Code::E0411, span, message);
            self.report(circle.help("let an agent judge whose planner is `react`"));
        }
    }
}

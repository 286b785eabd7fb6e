//! `x || [A, B]`: branches that the workload keeps, while the flow goes on with `x`.
//!
//! Nobody waits for such a branch, so a question to a person in it might be asked after everything else is over. A tool
//! that asks for approval cannot be reached from one: E0805.

use std::collections::BTreeSet;

use super::Checker;
use super::calls::Piped;
use super::forks::{Branch, branches_of};
use super::literals::block_of;
use crate::ast::{self, AstNode, ForkList};
use crate::diagnostic::{Code, Diagnostic};
use crate::hir::{Expr, ExprKind, Fork, Forked, Granted, Part, Program, Stmt, StmtKind};
use crate::source::{FileId, Span};
use crate::types::Ty;

impl Checker<'_> {
    /// `x || [A, B]`; the value is `x`.
    pub(super) fn detached(&mut self, node: &ast::PipeExpr, list: &ForkList, piped: Piped, at_op: Span) -> Expr {
        let at = self.at_span(at_op);
        let branches: Vec<Branch> = branches_of(list.branches());
        if let Some(merge) = node.merge() {
            let nothing = self.finding(Code::E0508, merge.span(), "detached branches give nothing to merge");
            return self.refuse(nothing.help("write `|>>` to wait for the branches"));
        }
        if piped.value.ty.is_silent() || !self.check_branches(&branches, list.span()) {
            return self.broken(list.span());
        }
        let mut out = Vec::new();
        let value = if piped.value.is_inert() { piped.value } else { self.set_aside(piped.value, &mut out, at) };
        let piped = Piped { value: value.clone(), span: piped.span };
        let (made, types): (Vec<Expr>, Vec<Ty>) = self.branch_values(&branches, Some(&piped)).into_iter().unzip();
        if types.contains(&Ty::Broken) {
            return self.broken(list.span());
        }
        let fork = Fork { input: Some(value.clone()), branches: made, gives: Forked::Nothing, ..Fork::default() };
        let fork = Expr::new(ExprKind::Fork(Box::new(fork)), Ty::Unit, at);
        out.push(Stmt { kind: StmtKind::Expr(fork), at });
        block_of(out, value)
    }
}

/// E0805 for each detached branch that may ask for approval.
pub(super) fn find(checker: &mut Checker<'_>, program: &Program) {
    let mut found = Vec::new();
    for function in &program.functions {
        let mut parts: Vec<Part<'_>> = function.body.iter().map(Part::Stmt).collect();
        while let Some(part) = parts.pop() {
            match part {
                Part::Stmt(stmt) => stmt.parts(&mut parts),
                Part::Expr(expr) => {
                    if let ExprKind::Fork(fork) = &expr.kind
                        && matches!(fork.gives, Forked::Nothing)
                    {
                        let asks = |branch| Some((branch, Reach::of(program, branch)?));
                        found.extend(fork.branches.iter().filter_map(asks));
                    }
                    expr.parts(&mut parts);
                }
            }
        }
    }
    for (branch, tool) in found {
        let span = Span::new(branch.at.start, branch.at.start + 1);
        let message = format!("the tool `{tool}` asks for approval, and nobody waits for a detached branch");
        let asks = Diagnostic::new(Code::E0805, FileId(branch.at.file), span, message);
        checker.report(asks.help("write `|>>` to wait for the branches, or grant a tool that does not ask"));
    }
}

/// What an expression may lead to.
struct Reach<'p> {
    program: &'p Program,
    functions: BTreeSet<u32>,
    agents: BTreeSet<u32>,
    parts: Vec<Part<'p>>,
}

impl<'p> Reach<'p> {
    /// A tool that asks for approval, if one may be called.
    fn of(program: &'p Program, branch: &'p Expr) -> Option<&'p str> {
        let mut reach =
            Reach { program, functions: BTreeSet::new(), agents: BTreeSet::new(), parts: vec![Part::Expr(branch)] };
        while let Some(part) = reach.parts.pop() {
            let expr = match part {
                Part::Stmt(stmt) => {
                    stmt.parts(&mut reach.parts);
                    continue;
                }
                Part::Expr(expr) => expr,
            };
            expr.parts(&mut reach.parts);
            let asks = match &expr.kind {
                ExprKind::Call(function, _) | ExprKind::Closure(function, _) => {
                    reach.function(*function);
                    None
                }
                ExprKind::Agent(agent) | ExprKind::Run(agent, _) => reach.agent(*agent),
                ExprKind::Tool(tool, _) | ExprKind::ToolValue(tool) => reach.tool(*tool),
                _ => None,
            };
            if asks.is_some() {
                return asks;
            }
        }
        None
    }

    fn function(&mut self, number: u32) {
        if let Some(function) = self.program.functions.get(number as usize)
            && self.functions.insert(number)
        {
            self.parts.extend(function.body.iter().map(Part::Stmt));
        }
    }

    fn agent(&mut self, number: u32) -> Option<&'p str> {
        let mut waiting = vec![number];
        let mut asks = None;
        while let Some(number) = waiting.pop() {
            let Some(agent) = self.program.agents.get(number as usize).filter(|_| self.agents.insert(number)) else {
                continue;
            };
            for offered in &agent.tools {
                match offered.granted {
                    Granted::Tool(tool) => asks = asks.or(self.tool(tool)),
                    Granted::Flow(flow) => self.function(flow),
                }
            }
            let contracts = agent.requires.iter().chain(&agent.ensures);
            self.parts.extend(contracts.map(|contract| Part::Expr(&contract.holds)));
            waiting.extend(agent.fallback);
            if let Some(best_of) = &agent.best_of {
                waiting.extend([best_of.run].into_iter().chain(best_of.judge));
                self.parts.push(Part::Expr(&best_of.chosen));
            }
        }
        asks
    }

    fn tool(&self, number: u32) -> Option<&'p str> {
        let tool = self.program.tools.get(number as usize)?;
        tool.asks.then_some(tool.name.as_str())
    }
}

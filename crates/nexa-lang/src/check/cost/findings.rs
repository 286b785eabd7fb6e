//! What the bounds of a program say against it: E0601 to E0603, W0604, E0605.

use std::collections::{BTreeMap, BTreeSet};

use nexa_types::Budget;

use super::graph::{callees, circles};
use super::least::LeastOf;
use super::most::MostOf;
use super::{Amounts, Prices, Unknown};
use crate::check::Checker;
use crate::diagnostic::{Code, Diagnostic};
use crate::hir::{At, Expr, ExprKind, Part, Program};
use crate::source::{FileId, Span};

/// A budget and whose it is.
struct Scope {
    name: String,
    budget: Budget,
    file: FileId,
    span: Span,
}

/// Reports what the bounds of a program say against it. The program has no errors.
pub(in crate::check) fn find(checker: &mut Checker<'_>, program: &Program, prices: &Prices) {
    let edges: Vec<BTreeSet<u32>> = program.functions.iter().map(callees).collect();
    let owners = owners(checker.flows.len(), &edges);
    let is_capped = |checker: &Checker<'_>, function: u32| {
        owners.get(&function).is_none_or(|flow| checker.flows[*flow as usize].budget.is_some())
    };
    let mut most = MostOf::new(program, prices);
    let capped: BTreeSet<u32> =
        (0..program.functions.len() as u32).filter(|function| is_capped(checker, *function)).collect();
    unbounded_loops(checker, program, &mut most, &capped);
    recursion(checker, program, &mut most, &edges, &capped);
    for number in 0..checker.flows.len() {
        let Some((budget, span)) = checker.flows[number].budget else { continue };
        let signature = &checker.flows[number].signature;
        let scope = Scope { name: signature.name.to_string(), budget, file: signature.file, span };
        let least = LeastOf::new(program, prices).run_of(number as u32, &Budget::default());
        // What it would use if its budget did not stop it.
        let open = MostOf::without_budgets(program, prices).run_of(number as u32).into_result();
        against_budget(checker, &scope, least, &open, prices);
        larger_children(checker, program, &edges, number as u32, &scope);
    }
    for number in 0..program.agents.len() {
        let agent = &program.agents[number];
        if agent.budget.tokens.is_none() && agent.budget.cost.is_none() {
            continue;
        }
        let (file, span) = place(agent.at, &agent.name);
        let scope = Scope { name: agent.name.clone(), budget: agent.budget, file, span };
        let least = LeastOf::new(program, prices).agent(number as u32);
        let open = MostOf::without_budgets(program, prices).agent(number as u32).into_result();
        against_budget(checker, &scope, least, &open, prices);
    }
}

/// The flow that each lambda and branch stands in.
fn owners(flows: usize, edges: &[BTreeSet<u32>]) -> BTreeMap<u32, u32> {
    let mut owners = BTreeMap::new();
    for flow in 0..flows as u32 {
        let mut waiting = vec![flow];
        while let Some(function) = waiting.pop() {
            if owners.insert(function, flow).is_none() {
                let inner = edges.get(function as usize).into_iter().flatten();
                waiting.extend(inner.filter(|callee| **callee as usize >= flows));
            }
        }
    }
    owners
}

/// E0601 for each loop that asks a model while neither a number nor a budget ends it.
fn unbounded_loops<'p>(checker: &mut Checker<'_>, program: &'p Program, most: &mut MostOf<'p>, capped: &BTreeSet<u32>) {
    for (number, function) in (0u32..).zip(&program.functions) {
        if capped.contains(&number) {
            continue;
        }
        for at in most.unbounded_loops(function) {
            let (file, span) = place(at, "while");
            let is_known =
                |found: &Diagnostic| found.code == Code::E0601 && found.file == file && found.span.start == span.start;
            if checker.diagnostics.iter().any(is_known) {
                continue;
            }
            let unbounded = Diagnostic::new(Code::E0601, file, span, "this loop asks a model and nothing bounds it");
            let help =
                "give the flow a `budget { calls: … }`, or use `loop (max: 10) { … }` or `for each x in range(0, n)`";
            checker.report(unbounded.help(help));
        }
    }
}

/// E0602 for flows that lead back to themselves and ask models on the way.
fn recursion(
    checker: &mut Checker<'_>,
    program: &Program,
    most: &mut MostOf<'_>,
    edges: &[BTreeSet<u32>],
    capped: &BTreeSet<u32>,
) {
    for circle in circles(edges, &|function| capped.contains(&function)) {
        let asks = circle.iter().any(|function| most.function(*function).amounts().requests > 0);
        let Some(first) = circle.first().filter(|_| asks) else { continue };
        let Some(function) = program.functions.get(*first as usize) else { continue };
        let (file, span) = place(function.at, &function.name);
        let others: Vec<&str> = circle[1..]
            .iter()
            .filter(|number| (**number as usize) < checker.flows.len())
            .filter_map(|number| program.functions.get(*number as usize))
            .map(|function| function.name.as_str())
            .collect();
        let way =
            if others.is_empty() { String::new() } else { format!(" by way of {}", super::super::listed(others)) };
        let message = format!("`{}` calls itself{way} and runs agents, and nothing bounds how often", function.name);
        let endless = Diagnostic::new(Code::E0602, file, span, message);
        checker.report(endless.help("give it a `budget { calls: … }`, or write a `loop (max: …)` instead"));
    }
}

/// E0603 and W0604.
fn against_budget(
    checker: &mut Checker<'_>,
    scope: &Scope,
    least: Amounts,
    most: &Result<Amounts, Unknown>,
    prices: &Prices,
) {
    let Scope { name, budget, file, span } = scope;
    let tokens = budget.tokens.filter(|cap| cap.0 < least.tokens);
    if let Some(cap) = tokens {
        let message =
            format!("`{name}` has {cap} tokens, and one of its requests reserves {} for its answer", least.tokens);
        let small = Diagnostic::new(Code::E0603, *file, *span, message);
        checker.report(small.help("allow more tokens, or give the agent a smaller `max_tokens`"));
        return;
    }
    if let (Some(cap), Some(cost)) = (budget.cost, least.cost)
        && cap < cost
    {
        let message = format!(
            "`{name}` has {}, and one of its requests reserves {} for its answer",
            dollars(cap.0),
            dollars(cost.0)
        );
        let small = Diagnostic::new(Code::E0603, *file, *span, message);
        checker.report(small.help("allow more, or give the agent a smaller `max_tokens` or a cheaper model"));
        return;
    }
    let help = "the budget stops it there; write `@allow(W0604)` above the declaration if that is what you want";
    let wants_cost = budget.cost.is_some() && !prices.is_empty();
    if budget.tokens.is_none() && !wants_cost {
        return;
    }
    let open = match most {
        Err(unknown) => {
            let message = format!("how much `{name}` may use is not known: {}", unknown.why);
            let open = Diagnostic::new(Code::W0604, *file, *span, message);
            Some(open.label_in(
                FileId(unknown.at.file),
                Span::new(unknown.at.start, unknown.at.start),
                "this decides it",
            ))
        }
        Ok(most) => match (budget.tokens, budget.cost, most.cost) {
            (Some(cap), ..) if most.tokens > cap.0 => {
                let message = format!("`{name}` may use up to {} tokens, and its budget is {cap}", most.tokens);
                Some(Diagnostic::new(Code::W0604, *file, *span, message))
            }
            (_, Some(cap), Some(cost)) if wants_cost && cost > cap => {
                let message =
                    format!("`{name}` may cost up to {}, and its budget is {}", dollars(cost.0), dollars(cap.0));
                Some(Diagnostic::new(Code::W0604, *file, *span, message))
            }
            (_, Some(_), None) if wants_cost => {
                let message = format!("what `{name}` may cost is not known: a model that it may ask has no price");
                Some(Diagnostic::new(Code::W0604, *file, *span, message))
            }
            _ => None,
        },
    };
    if let Some(open) = open {
        checker.report(open.help(help));
    }
}

/// E0605 for each agent, and each flow with a budget, that is allowed more than the flow that runs it.
fn larger_children(checker: &mut Checker<'_>, program: &Program, edges: &[BTreeSet<u32>], flow: u32, scope: &Scope) {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![flow]);
    let mut found: BTreeMap<(bool, u32), (At, String, String)> = BTreeMap::new();
    while let Some(number) = waiting.pop() {
        let Some(function) = program.functions.get(number as usize).filter(|_| seen.insert(number)) else { continue };
        let mut parts: Vec<Part<'_>> = function.body.iter().map(Part::Stmt).collect();
        while let Some(part) = parts.pop() {
            let Part::Expr(expr) = part else {
                if let Part::Stmt(stmt) = part {
                    stmt.parts(&mut parts);
                }
                continue;
            };
            expr.parts(&mut parts);
            let (key, name, budget) = match expr {
                Expr { kind: ExprKind::Run(agent, _) | ExprKind::Agent(agent), .. } => {
                    let Some(known) = program.agents.get(*agent as usize) else { continue };
                    ((true, *agent), known.name.clone(), known.budget)
                }
                Expr { kind: ExprKind::Call(callee, _), .. } => match checker.flows.get(*callee as usize) {
                    Some(known) if *callee != flow => {
                        let budget = known.budget.map(|(budget, _)| budget).unwrap_or_default();
                        ((false, *callee), known.signature.name.to_string(), budget)
                    }
                    _ => continue,
                },
                _ => continue,
            };
            if let Some(excess) = excess(&budget, &scope.budget) {
                found.entry(key).or_insert((expr.at, name, excess));
            }
        }
        // A flow with a budget of its own answers for what it runs.
        let is_open = |callee: &&u32| checker.flows.get(**callee as usize).is_none_or(|flow| flow.budget.is_none());
        waiting.extend(edges.get(number as usize).into_iter().flatten().filter(is_open));
    }
    for (at, name, excess) in found.into_values() {
        let (file, span) = place(at, &name);
        let message = format!("`{name}` is allowed {excess} that `{}` allows", scope.name);
        let larger = Diagnostic::new(Code::E0605, file, span, message);
        let larger = larger.label_in(scope.file, scope.span, "it has no more than this");
        checker.report(larger.help(format!("lower the budget of `{name}`, or raise that of `{}`", scope.name)));
    }
}

/// The first cap by which a child's budget is above its parent's, in words.
fn excess(child: &Budget, parent: &Budget) -> Option<String> {
    let above = |child: Option<u64>, parent: Option<u64>| child.zip(parent).filter(|(child, parent)| child > parent);
    if let Some((child, parent)) = above(child.tokens.map(|cap| cap.0), parent.tokens.map(|cap| cap.0)) {
        return Some(format!("{child} tokens, more than the {parent}"));
    }
    if let Some((child, parent)) = above(child.cost.map(|cap| cap.0), parent.cost.map(|cap| cap.0)) {
        return Some(format!("{}, more than the {}", dollars(child), dollars(parent)));
    }
    if let Some((child, parent)) = above(child.time.map(|cap| cap.0), parent.time.map(|cap| cap.0)) {
        return Some(format!("{child}ms, more than the {parent}ms"));
    }
    if let Some((child, parent)) = above(child.calls, parent.calls) {
        return Some(format!("{child} requests, more than the {parent}"));
    }
    let (child, parent) = above(child.steps, parent.steps)?;
    Some(format!("{child} steps, more than the {parent}"))
}

/// Where a name stands.
fn place(at: At, name: &str) -> (FileId, Span) {
    (FileId(at.file), Span::new(at.start, at.start + name.len() as u32))
}

fn dollars(micro: u64) -> String {
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    format!("${}", text.trim_end_matches('0').trim_end_matches('.'))
}

//! W0808: what a tool gave reaches an argument of a tool of high risk, and nothing looked at it on the way.
//!
//! A tool's answer is text of somebody else, and may ask for things. It is followed through the variables, texts, records
//! and computing functions of a flow, and out of the flows that give it on. A variable was looked at if a condition, a
//! comparison, a `match`, a question to a model or a question to a person is about it, anywhere in its flow. What an
//! agent makes of an answer is the agent's, and is not followed.
//!
//! In:  a checked program without errors.  Out: warnings.
//!
//! Not here: arguments that a model chooses; a person sees them, since a tool of high risk always asks.

use std::collections::{BTreeMap, BTreeSet};

use nexa_event::effect::Risk;

use super::Checker;
use crate::diagnostic::{Code, Diagnostic};
use crate::hir::{At, Expr, ExprKind, Function, Item, Part, Program, Stmt, StmtKind, Test};
use crate::source::{FileId, Span};
use crate::types::Ty;

/// How often a flow, and the list of flows, is gone through again because more was found. A value that goes a longer way
/// against the order of the program is not followed to its end.
const ROUNDS_MAX: usize = 8;

/// Where a value came from: a tool or flow, and where it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    name: String,
    at: At,
}

/// Warns of each call of a tool of high risk with an argument that nothing looked at.
pub(super) fn find(checker: &mut Checker<'_>, program: &Program) {
    let is_risky = |tool: u32| {
        program.tools.get(tool as usize).is_some_and(|tool| matches!(tool.risk, Risk::High | Risk::Critical))
    };
    if !(0..program.tools.len() as u32).any(is_risky) {
        return;
    }
    let bodies: Vec<Body<'_>> = program.functions.iter().map(Body::of).collect();
    let mut found = Found { program, givers: BTreeSet::new() };
    for _ in 0..ROUNDS_MAX {
        let mut more = false;
        for (number, body) in (0u32..).zip(&bodies) {
            if !found.givers.contains(&number) {
                let kept = found.kept(body);
                let gives = body.returned.iter().any(|value| found.source(value, &kept, body).is_some());
                more |= gives && found.givers.insert(number);
            }
        }
        if !more {
            break;
        }
    }
    for body in &bodies {
        let risky: Vec<(u32, &[Expr], At)> = body.calls.iter().filter(|(tool, ..)| is_risky(*tool)).copied().collect();
        if risky.is_empty() {
            continue;
        }
        let kept = found.kept(body);
        for (tool, args, at) in risky {
            if let Some(source) = args.iter().find_map(|arg| found.source(arg, &kept, body)) {
                warn(checker, &program.tools[tool as usize].name, at, &source);
            }
        }
    }
}

fn warn(checker: &mut Checker<'_>, tool: &str, at: At, source: &Source) {
    let (file, span) = place(at, tool);
    let (from_file, from) = place(source.at, &source.name);
    let message =
        format!("what `{}` gave reaches `{tool}`, a tool of high risk, and nothing looked at it", source.name);
    let mut unchecked = Diagnostic::new(Code::W0808, file, span, message);
    if (from_file, from) != (file, span) {
        unchecked = unchecked.label_in(from_file, from, "it comes from here");
    }
    checker.report(
        unchecked.help("look at it first, in an `if`, a `match` or a `verify`, or ask a person with `approve`"),
    );
}

fn place(at: At, name: &str) -> (FileId, Span) {
    (FileId(at.file), Span::new(at.start, at.start + name.len() as u32))
}

/// What of a function matters here.
#[derive(Default)]
struct Body<'p> {
    /// What each local is given.
    stores: Vec<(u16, &'p Expr)>,
    /// Locals that something looks at.
    looked_at: BTreeSet<u16>,
    /// Calls of tools: which, its arguments, where.
    calls: Vec<(u32, &'p [Expr], At)>,
    /// What it gives.
    returned: Vec<&'p Expr>,
}

impl<'p> Body<'p> {
    fn of(function: &'p Function) -> Self {
        let mut body = Body::default();
        // A stack of its own: a chain of operators may be longer than ours. The bool says whether a part is looked at.
        let mut waiting: Vec<(Part<'p>, bool)> = function.body.iter().map(|stmt| (Part::Stmt(stmt), false)).collect();
        let mut parts = Vec::new();
        while let Some((part, is_looked_at)) = waiting.pop() {
            let looks = match part {
                Part::Stmt(stmt) => {
                    body.statement(stmt);
                    false
                }
                Part::Expr(expr) => body.expression(expr, is_looked_at),
            };
            match part {
                Part::Stmt(stmt) => stmt.parts(&mut parts),
                Part::Expr(expr) => expr.parts(&mut parts),
            }
            waiting.extend(parts.drain(..).map(|part| (part, looks && matches!(part, Part::Expr(_)))));
        }
        body.look_through_copies();
        body
    }

    /// Who looks at a copy looks at what was copied: an `assert` keeps its operands to show them.
    fn look_through_copies(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let before = self.looked_at.len();
            for (slot, value) in &self.stores {
                if let ExprKind::Local(from) = &value.kind
                    && self.looked_at.contains(slot)
                {
                    self.looked_at.insert(*from);
                }
            }
            if self.looked_at.len() == before {
                break;
            }
        }
    }

    fn statement(&mut self, stmt: &'p Stmt) {
        match &stmt.kind {
            StmtKind::Store(slot, value) => self.stores.push((*slot, value)),
            StmtKind::Unpack(value, slots) => self.stores.extend(slots.iter().flatten().map(|slot| (*slot, value))),
            StmtKind::Return(value) => self.returned.push(value),
            StmtKind::ForEach(walk) => {
                let slots = match &walk.item {
                    Item::One(slot) => vec![*slot],
                    Item::Parts(slots) => slots.iter().flatten().copied().collect(),
                    Item::Nothing => Vec::new(),
                };
                self.stores.extend(slots.into_iter().map(|slot| (slot, &walk.over)));
            }
            _ => {}
        }
    }

    /// Whether the parts of an expression are looked at.
    fn expression(&mut self, expr: &'p Expr, is_looked_at: bool) -> bool {
        match &expr.kind {
            ExprKind::Local(slot) if is_looked_at => {
                self.looked_at.insert(*slot);
            }
            ExprKind::Tool(tool, args) => self.calls.push((*tool, args, expr.at)),
            _ => {}
        }
        match &expr.kind {
            // That there is a value says nothing about what it is.
            ExprKind::Is(Test::Ok | Test::Err | Test::None, _) | ExprKind::Block(..) => false,
            ExprKind::Approve(..) | ExprKind::Ask(_) => true,
            _ => is_looked_at || expr.ty == Ty::Bool,
        }
    }
}

struct Found<'p> {
    program: &'p Program,
    /// Functions that give what a tool gave.
    givers: BTreeSet<u32>,
}

impl Found<'_> {
    /// The locals that hold what a tool gave.
    fn kept(&self, body: &Body<'_>) -> BTreeMap<u16, Source> {
        let mut kept = BTreeMap::new();
        for _ in 0..ROUNDS_MAX {
            let before = kept.len();
            // Statements were met from the last to the first.
            for (slot, value) in body.stores.iter().rev() {
                if !kept.contains_key(slot)
                    && let Some(source) = self.source(value, &kept, body)
                {
                    kept.insert(*slot, source);
                }
            }
            if kept.len() == before {
                break;
            }
        }
        kept
    }

    /// The tool that a value comes from, if nothing looked at it.
    fn source(&self, value: &Expr, kept: &BTreeMap<u16, Source>, body: &Body<'_>) -> Option<Source> {
        let mut waiting = vec![value];
        let mut parts = Vec::new();
        while let Some(expr) = waiting.pop() {
            match &expr.kind {
                ExprKind::Tool(tool, _) => {
                    let name = self.program.tools.get(*tool as usize)?.name.clone();
                    return Some(Source { name, at: expr.at });
                }
                ExprKind::Call(function, _) if self.givers.contains(function) => {
                    let name = self.program.functions.get(*function as usize)?.name.clone();
                    return Some(Source { name, at: expr.at });
                }
                ExprKind::Local(slot) if !body.looked_at.contains(slot) => {
                    if let Some(source) = kept.get(slot) {
                        return Some(source.clone());
                    }
                }
                ExprKind::If(_, then, other) => waiting.extend([&**then, &**other]),
                ExprKind::Index(of, _) => waiting.push(of),
                // Whether, how many, and where: not what.
                ExprKind::Std(..) | ExprKind::Binary(..) if matches!(expr.ty, Ty::Bool | Ty::Int | Ty::Float) => {}
                ExprKind::Std(..)
                | ExprKind::Binary(..)
                | ExprKind::Concat(_)
                | ExprKind::List(_)
                | ExprKind::Tuple(_)
                | ExprKind::Dict(_)
                | ExprKind::Record(..)
                | ExprKind::Field(..)
                | ExprKind::SetField(..)
                | ExprKind::SetIndex(..)
                | ExprKind::Coalesce(..)
                | ExprKind::Block(..)
                | ExprKind::Check(_)
                | ExprKind::Unwrap(_)
                | ExprKind::WrapOk(_)
                | ExprKind::Try(_)
                | ExprKind::Rescue(_) => {
                    expr.parts(&mut parts);
                    waiting.extend(parts.drain(..).filter_map(|part| match part {
                        Part::Expr(expr) => Some(expr),
                        Part::Stmt(_) => None,
                    }));
                }
                _ => {}
            }
        }
        None
    }
}

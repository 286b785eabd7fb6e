//! The outline of a flow: its agents, tools, questions, forks and merges, and which come after which.
//!
//! The walk goes through a flow as it would run and keeps the *front*: the steps after which the next one comes. An `if`
//! takes both ways from one front and joins where they end; a fork's branches start from one front; a spawned child leaves
//! the front alone until it is awaited. Closures are followed to where they were made, if that is one place.
//!
//! What computes and runs nobody is a `transform`, neighbours together in one: a condition or a loop whose ways hold
//! nothing else is folded into it.
//!
//! Bounded: a flow has at most [`STEPS_MAX`] steps, of which the last stands for all that follow, what nests deeper than
//! [`DEPTH_MAX`] is a `transform`, and at most [`PARTS_MAX`] parts of a program are looked at.

mod calls;
mod ways;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use nexa_vm::module::outline::{AFTER_MAX, Act, Outline, STEPS_MAX, Step};

use crate::check::cost::stored_once;
use crate::hir::{Expr, ExprKind, Part, Program, Stmt, StmtKind, Target};

/// How deep blocks, conditions, loops and closures are followed.
const DEPTH_MAX: u32 = 320;
/// Expressions and statements that are looked at for all outlines of a program; a closure's body counts at each call.
const PARTS_MAX: usize = 1 << 22;

/// The outlines of all flows that run as agents, and of those that they run through, by function.
pub(super) fn outlines(program: &Program) -> Vec<Outline> {
    let apart: BTreeMap<u32, u32> = (program.agents.len() as u32..)
        .zip(&program.apart)
        .filter_map(|(agent, flow)| flow_of(flow.target).map(|function| (function, agent)))
        .collect();
    let roots = program.entries.iter().chain(&program.apart).filter_map(|entry| flow_of(entry.target));
    let mut waiting: BTreeSet<u32> = roots.collect();
    let mut done: BTreeMap<u32, Outline> = BTreeMap::new();
    let mut left = PARTS_MAX;
    while let Some(flow) = waiting.pop_first() {
        let Some(function) = program.functions.get(flow as usize) else { continue };
        let mut walk = Walk::new(program, &apart, left);
        let scope = Rc::new(Scope { body: &function.body, arity: function.arity, ..Scope::default() });
        walk.statements(&function.body, &scope);
        left = walk.left;
        waiting.extend(walk.flows.iter().filter(|flow| !done.contains_key(flow)));
        done.insert(flow, walk.outline(flow));
    }
    let says_something = |outline: &Outline| outline.steps.iter().any(|step| step.act != Act::Transform);
    done.into_values().filter(says_something).collect()
}

fn flow_of(target: Target) -> Option<u32> {
    match target {
        Target::Flow(function) => Some(function),
        Target::Agent(_) => None,
    }
}

/// A function that is walked through, and what is known of its values.
#[derive(Default)]
struct Scope<'p> {
    body: &'p [Stmt],
    arity: u8,
    captured: &'p [Expr],
    /// Where its captures were taken.
    around: Option<Rc<Scope<'p>>>,
    stored: OnceCell<BTreeMap<u16, &'p Expr>>,
}

impl<'p> Scope<'p> {
    /// What a local holds, if it is stored to in one place and is no parameter.
    fn local(&self, slot: u16) -> Option<&'p Expr> {
        let stored = self.stored.get_or_init(|| stored_once(self.body));
        if slot < u16::from(self.arity) { None } else { stored.get(&slot).copied() }
    }
}

/// The steps after which something comes; nothing if nothing comes to it.
type Front = Option<Vec<u32>>;

/// What leaves the loop that is being walked through.
#[derive(Default)]
struct Round {
    left: Vec<u32>,
}

struct Walk<'p, 'a> {
    program: &'p Program,
    /// The agents that flows are which run as agents of their own.
    apart: &'a BTreeMap<u32, u32>,
    steps: Vec<Step>,
    front: Front,
    ends: Vec<u32>,
    /// How often what is being walked through is done.
    rounds: Option<u64>,
    loops: Vec<Round>,
    /// Where the function of a closure that is walked through returns to.
    returns: Vec<Vec<u32>>,
    /// Children that were spawned: the local of the handle, if it has one, and where the child ends.
    spawned: Vec<(Option<u16>, Vec<u32>)>,
    /// Flows that are run through in place.
    flows: BTreeSet<u32>,
    depth: u32,
    left: usize,
}

/// Something to do on the way through an expression.
enum Todo<'p> {
    Enter(&'p Expr),
    Act(&'p Expr),
}

impl<'p, 'a> Walk<'p, 'a> {
    fn new(program: &'p Program, apart: &'a BTreeMap<u32, u32>, left: usize) -> Self {
        Walk {
            program,
            apart,
            steps: Vec::new(),
            front: Some(Vec::new()),
            ends: Vec::new(),
            rounds: Some(1),
            loops: Vec::new(),
            returns: Vec::new(),
            spawned: Vec::new(),
            flows: BTreeSet::new(),
            depth: 0,
            left,
        }
    }

    fn outline(mut self, function: u32) -> Outline {
        let front = self.front.take().unwrap_or_default();
        self.ends.extend(front);
        Outline { function, ends: tidy(&self.steps, self.ends), steps: self.steps }
    }

    /// Adds a step behind the front, which it then is.
    fn push(&mut self, act: Act) -> u32 {
        let after = tidy(&self.steps, self.front.take().unwrap_or_default());
        if self.steps.len() < STEPS_MAX {
            self.steps.push(Step { act, after, rounds: self.rounds });
        } else if let Some(last) = self.steps.last_mut() {
            *last = Step { act: Act::Transform, after: std::mem::take(&mut last.after), rounds: self.rounds };
        }
        let place = self.steps.len() as u32 - 1;
        self.front = Some(vec![place]);
        place
    }

    /// Something that computes and runs nobody.
    fn plain(&mut self) {
        let last = (self.steps.len() as u32).wrapping_sub(1);
        let goes_on = self.front.as_deref() == Some(&[last])
            && self.steps.last().is_some_and(|step| step.act == Act::Transform && step.rounds == self.rounds);
        if self.front.is_some() && !goes_on {
            self.push(Act::Transform);
        }
    }

    /// Makes one transform of the steps since there, if none of them is anything else.
    fn fold(&mut self, start: usize, before: Vec<u32>) {
        let is_plain = |step: &Step| matches!(step.act, Act::Transform | Act::Condition(0));
        if self.steps.len() >= STEPS_MAX || !self.steps[start..].iter().all(is_plain) {
            return;
        }
        let front = self.front.take();
        self.front = Some(self.behind(start, before, front.as_deref().unwrap_or_default()));
        self.steps.truncate(start);
        self.plain();
        self.mend(start, self.front.as_ref().and_then(|front| front.first().copied()));
        if front.is_none() {
            self.front = None;
        }
    }

    /// What came before steps that are dropped, and the children that were awaited among them.
    fn behind(&self, start: usize, mut before: Vec<u32>, front: &[u32]) -> Vec<u32> {
        let dropped = self.steps.get(start..).into_iter().flatten().flat_map(|step| &step.after);
        before.extend(front.iter().chain(dropped).filter(|place| (**place as usize) < start));
        tidy(&self.steps, before)
    }

    /// Lets what led to a step that is gone lead to another one, or nowhere.
    fn mend(&mut self, start: usize, stands_in: Option<u32>) {
        let start = start as u32;
        let mend = |places: &mut Vec<u32>| {
            if places.iter().any(|place| *place >= start) {
                places.retain(|place| *place < start);
                places.extend(stands_in);
            }
        };
        mend(&mut self.ends);
        self.returns.iter_mut().for_each(mend);
        self.loops.iter_mut().for_each(|round| mend(&mut round.left));
        self.spawned.iter_mut().for_each(|(_, ends)| mend(ends));
    }

    /// Whether there is room to look at another part.
    fn looks(&mut self) -> bool {
        let looks = self.left > 0;
        self.left = self.left.saturating_sub(1);
        looks
    }

    fn statements(&mut self, statements: &'p [Stmt], scope: &Rc<Scope<'p>>) {
        for stmt in statements {
            if self.front.is_none() {
                break;
            }
            self.statement(stmt, scope);
        }
    }

    fn statement(&mut self, stmt: &'p Stmt, scope: &Rc<Scope<'p>>) {
        if !self.looks() || self.depth >= DEPTH_MAX {
            return self.opaque(Part::Stmt(stmt));
        }
        self.depth += 1;
        match &stmt.kind {
            StmtKind::Store(slot, value) => {
                self.expr(value, scope);
                if let ExprKind::Spawn(..) = value.kind
                    && let Some(child) = self.spawned.last_mut()
                {
                    child.0 = Some(*slot);
                }
            }
            StmtKind::Unpack(value, _) | StmtKind::Expr(value) => self.expr(value, scope),
            StmtKind::Return(value) => {
                self.expr(value, scope);
                let front = self.front.take().unwrap_or_default();
                self.returns.last_mut().unwrap_or(&mut self.ends).extend(front);
            }
            StmtKind::Increment(..) => {}
            StmtKind::Break | StmtKind::Continue => {
                let front = self.front.take().unwrap_or_default();
                if let Some(round) = self.loops.last_mut() {
                    round.left.extend(front);
                }
            }
            StmtKind::If(..) => self.choice_of_statements(stmt, scope),
            StmtKind::While(condition, body) => self.repeat(condition, body, scope),
            StmtKind::ForEach(each) => self.each(each, scope),
            StmtKind::Try(body, _, handler) => {
                self.statements(body, scope);
                // Whatever of it was done, the handler may come next.
                let tried = self.front.take();
                self.front = Some(tried.clone().unwrap_or_else(|| self.last()));
                self.perhaps(|walk| walk.statements(handler, scope));
                self.join(tried);
            }
            StmtKind::Defer(deferred, rest) => {
                self.statements(rest, scope);
                if self.front.is_none() {
                    let ends = std::mem::take(self.returns.last_mut().unwrap_or(&mut self.ends));
                    self.front = Some(ends);
                    self.statements(deferred, scope);
                    let front = self.front.take().unwrap_or_default();
                    self.returns.last_mut().unwrap_or(&mut self.ends).extend(front);
                } else {
                    self.statements(deferred, scope);
                }
            }
            StmtKind::Timed(span, body) => {
                self.expr(span, scope);
                self.statements(body, scope);
            }
            StmtKind::Block(body) => self.statements(body, scope),
        }
        self.depth -= 1;
    }

    /// The step that was added last, if there is one.
    fn last(&self) -> Vec<u32> {
        (self.steps.len() as u32).checked_sub(1).into_iter().collect()
    }

    /// Goes on after both the front and these.
    fn join(&mut self, other: Front) {
        self.front = match (self.front.take(), other) {
            (Some(mut front), Some(other)) => {
                front.extend(other);
                Some(tidy(&self.steps, front))
            }
            (front, other) => front.or(other),
        };
    }

    /// What was found too deep, or too late: a transform if it may run anybody.
    fn opaque(&mut self, part: Part<'p>) {
        let mut waiting = vec![part];
        while let Some(part) = waiting.pop() {
            match part {
                Part::Stmt(stmt) => stmt.parts(&mut waiting),
                Part::Expr(expr) if acts(expr) => return self.plain(),
                Part::Expr(expr) => expr.parts(&mut waiting),
            }
        }
    }

    /// A question's step, if the last thing that was done is a question and nothing else: the ways part there.
    fn asked(&self) -> Option<u32> {
        let last = (self.steps.len() as u32).checked_sub(1)?;
        let is_asked = matches!(self.steps.last()?.act, Act::Condition(1..));
        (is_asked && self.front.as_deref() == Some(&[last])).then_some(last)
    }

    /// The step where ways part: a question just asked, or a condition of its own.
    fn condition(&mut self) -> u32 {
        match self.asked() {
            Some(asked) => asked,
            None => self.push(Act::Condition(0)),
        }
    }

    /// Walks through what is asked before ways part, and gives the step where they do. What it computes is part of that.
    fn parting(&mut self, condition: &'p Expr, scope: &Rc<Scope<'p>>) -> u32 {
        let (start, before) = (self.steps.len(), self.front.clone());
        self.expr(condition, scope);
        if matches!(self.steps.get(start..), Some([Step { act: Act::Transform, .. }])) {
            self.steps.truncate(start);
            self.front = before;
        }
        self.condition()
    }

    /// Goes on where ways that part there have come together.
    fn meet(&mut self, parting: u32, other: Front) {
        self.join(other);
        if let Some(front) = &mut self.front
            && front.iter().any(|place| *place > parting)
        {
            front.retain(|place| *place != parting);
        }
    }

    /// What is done or left out.
    fn perhaps(&mut self, way: impl FnOnce(&mut Self)) {
        let (start, before) = (self.steps.len(), self.front.clone().unwrap_or_default());
        let condition = self.condition();
        way(self);
        self.meet(condition, Some(vec![condition]));
        self.fold_ways(start, before);
    }

    /// Folds ways that hold nothing; a question that was asked before stays.
    fn fold_ways(&mut self, start: usize, before: Vec<u32>) {
        if self.steps.len() > start {
            self.fold(start, before);
        }
    }

    /// An expression: its operands first, from left to right, without the stack where they only follow each other.
    fn expr(&mut self, expr: &'p Expr, scope: &Rc<Scope<'p>>) {
        let mut todo = vec![Todo::Enter(expr)];
        let mut parts = Vec::new();
        while let Some(next) = todo.pop() {
            match next {
                Todo::Act(expr) => self.act(expr, scope),
                Todo::Enter(expr) if !self.looks() || self.depth >= DEPTH_MAX => self.opaque(Part::Expr(expr)),
                Todo::Enter(expr) if is_control(expr) => {
                    self.depth += 1;
                    self.control(expr, scope);
                    self.depth -= 1;
                }
                Todo::Enter(expr) => {
                    if acts(expr) || matches!(expr.kind, ExprKind::Std(..)) {
                        todo.push(Todo::Act(expr));
                    }
                    expr.parts(&mut parts);
                    todo.extend(parts.drain(..).rev().filter_map(|part| match part {
                        Part::Expr(expr) => Some(Todo::Enter(expr)),
                        Part::Stmt(_) => None,
                    }));
                }
            }
        }
    }

    fn control(&mut self, expr: &'p Expr, scope: &Rc<Scope<'p>>) {
        match &expr.kind {
            ExprKind::If(..) => self.choice(expr, scope),
            ExprKind::Block(statements, value) => {
                self.statements(statements, scope);
                if self.front.is_some() {
                    self.expr(value, scope);
                }
            }
            ExprKind::And(left, right) | ExprKind::Or(left, right) | ExprKind::Coalesce(left, right) => {
                self.expr(left, scope);
                self.perhaps_runs(right, scope);
            }
            ExprKind::Rescue(rescue) => {
                self.expr(&rescue.value, scope);
                self.perhaps_runs(&rescue.substitute, scope);
            }
            _ => {}
        }
    }

    /// An operand that is computed or left out. One that runs nobody is no condition.
    fn perhaps_runs(&mut self, operand: &'p Expr, scope: &Rc<Scope<'p>>) {
        if self.front.is_none() || operand.is_inert() {
            return;
        }
        let (start, before) = (self.steps.len(), self.front.clone());
        let asked = self.asked();
        let condition = self.condition();
        self.expr(operand, scope);
        let runs = self.steps[start..].iter().skip(usize::from(asked.is_none())).any(|step| step.act != Act::Transform);
        if runs || self.steps.len() >= STEPS_MAX {
            self.meet(condition, Some(vec![condition]));
        } else {
            let front = self.front.take().unwrap_or_default();
            let before = self.behind(start, before.unwrap_or_default(), &front);
            self.steps.truncate(start);
            self.mend(start, before.first().copied());
            self.front = Some(before);
        }
    }
}

/// Whether it runs or asks somebody, or may.
fn acts(expr: &Expr) -> bool {
    matches!(
        expr.kind,
        ExprKind::Run(..)
            | ExprKind::Tool(..)
            | ExprKind::Call(..)
            | ExprKind::CallApart(..)
            | ExprKind::CallValue(..)
            | ExprKind::Fork(_)
            | ExprKind::MergeAll(_)
            | ExprKind::Merge(..)
            | ExprKind::MergeSections(..)
            | ExprKind::Ask(_)
            | ExprKind::Spawn(..)
            | ExprKind::Await(_)
    )
}

/// Whether it does more than act once its operands are there.
fn is_control(expr: &Expr) -> bool {
    matches!(
        expr.kind,
        ExprKind::If(..)
            | ExprKind::Block(..)
            | ExprKind::And(..)
            | ExprKind::Or(..)
            | ExprKind::Coalesce(..)
            | ExprKind::Rescue(_)
    )
}

/// Places in ascending order, without those that another of them comes directly after, at most [`AFTER_MAX`]: of more,
/// the last ones, which come latest.
fn tidy(steps: &[Step], mut places: Vec<u32>) -> Vec<u32> {
    places.sort_unstable();
    places.dedup();
    if let [_, _, ..] = places.as_slice() {
        let waited_for: BTreeSet<u32> = places
            .iter()
            .filter_map(|place| steps.get(*place as usize))
            .flat_map(|step| step.after.iter().copied())
            .filter(|place| places.binary_search(place).is_ok())
            .collect();
        places.retain(|place| !waited_for.contains(place));
    }
    let excess = places.len().saturating_sub(AFTER_MAX);
    places.drain(..excess);
    places
}

//! What is called: agents, tools, flows, values that are followed to where they were made, and the branches of forks.

use std::rc::Rc;

use nexa_vm::module::outline::Act;

use super::{DEPTH_MAX, Scope, Walk, tidy};
use crate::hir::{Expr, ExprKind, Fork, Forked};

impl<'p> Walk<'p, '_> {
    /// What an expression does when its operands are there.
    pub(super) fn act(&mut self, expr: &'p Expr, scope: &Rc<Scope<'p>>) {
        if self.front.is_none() {
            return;
        }
        match &expr.kind {
            ExprKind::Run(agent, _) => {
                self.push(Act::Agent(*agent));
            }
            ExprKind::Tool(tool, _) => {
                self.push(Act::Tool(*tool));
            }
            ExprKind::Call(function, _) | ExprKind::CallApart(function, _) => self.call(*function),
            ExprKind::CallValue(callee, _) => self.called(callee, scope),
            ExprKind::Fork(fork) => self.fork(fork, scope),
            ExprKind::MergeAll(_) | ExprKind::Merge(..) | ExprKind::MergeSections(..) => {
                self.push(Act::Merge);
            }
            ExprKind::Ask(_) => {
                self.push(Act::Condition(1));
            }
            ExprKind::Spawn(callee, _) => {
                let front = self.front.clone();
                self.called(callee, scope);
                let ends = std::mem::replace(&mut self.front, front).unwrap_or_default();
                self.spawned.push((None, ends));
            }
            ExprKind::Await(handle) => {
                let slot = match &handle.kind {
                    ExprKind::Local(slot) => Some(*slot),
                    _ => None,
                };
                let is_known = |child: &&(Option<u16>, Vec<u32>)| slot.is_some() && child.0 == slot;
                let known: Vec<u32> = self.spawned.iter().filter(is_known).flat_map(|(_, ends)| ends.clone()).collect();
                // Any of them, where it cannot be told which.
                let all = || self.spawned.iter().flat_map(|(_, ends)| ends.clone()).collect();
                let ends = if known.is_empty() { all() } else { known };
                self.join(Some(ends));
            }
            ExprKind::Std(..) => self.plain(),
            _ => {}
        }
    }

    fn call(&mut self, function: u32) {
        if let Some(agent) = self.apart.get(&function) {
            self.push(Act::Agent(*agent));
            return;
        }
        match self.program.functions.get(function as usize) {
            Some(callee) if !callee.is_pure => {
                self.flows.insert(function);
                self.push(Act::Flow(function));
            }
            _ => self.plain(),
        }
    }

    /// A call of a value, whose own parts have been walked through.
    fn called(&mut self, callee: &'p Expr, scope: &Rc<Scope<'p>>) {
        if !self.looks() || self.depth >= DEPTH_MAX {
            return self.plain();
        }
        self.depth += 1;
        match &callee.kind {
            ExprKind::Agent(agent) => {
                self.push(Act::Agent(*agent));
            }
            ExprKind::ToolValue(tool) => {
                self.push(Act::Tool(*tool));
            }
            ExprKind::Partial(inner, ..) | ExprKind::Block(_, inner) => self.called(inner, scope),
            ExprKind::Chain(stages) => stages.iter().for_each(|stage| self.called(stage, scope)),
            ExprKind::Closure(number, captured) => self.closure(*number, captured, scope),
            ExprKind::Local(slot) => match scope.local(*slot) {
                Some(value) => self.called(value, scope),
                None => self.plain(),
            },
            ExprKind::Capture(number) => {
                let known = scope.captured.get(usize::from(*number)).zip(scope.around.clone());
                match known {
                    Some((value, around)) => self.called(value, &around),
                    None => self.plain(),
                }
            }
            ExprKind::If(_, then, other) => {
                let front = self.front.clone();
                self.called(then, scope);
                let taken = std::mem::replace(&mut self.front, front);
                self.called(other, scope);
                self.join(taken);
            }
            _ => self.plain(),
        }
        self.depth -= 1;
    }

    fn closure(&mut self, number: u32, captured: &'p [Expr], scope: &Rc<Scope<'p>>) {
        // What has a name is called by it.
        if number < self.program.flows {
            return self.call(number);
        }
        let Some(function) = self.program.functions.get(number as usize) else { return self.plain() };
        if function.is_pure {
            return self.plain();
        }
        let inner = Scope {
            body: &function.body,
            arity: function.arity,
            captured,
            around: Some(Rc::clone(scope)),
            ..Scope::default()
        };
        let loops = std::mem::take(&mut self.loops);
        self.returns.push(Vec::new());
        let before = self.steps.len();
        self.statements(&function.body, &Rc::new(inner));
        self.loops = loops;
        let returned = self.returns.pop().unwrap_or_default();
        let returned = (!returned.is_empty()).then_some(returned);
        if returned.is_some() || self.front.is_none() {
            self.join(returned);
        }
        if self.front.is_none() {
            self.front = Some(self.last());
        }
        if self.steps.len() == before {
            self.plain();
        }
    }

    fn fork(&mut self, fork: &'p Fork, scope: &Rc<Scope<'p>>) {
        let parting = self.push(Act::Fork);
        let mut ends = Vec::new();
        for branch in &fork.branches {
            self.front = Some(vec![parting]);
            let before = self.steps.len();
            self.called(branch, scope);
            if self.steps.len() == before {
                self.plain();
            }
            ends.extend(self.front.take().unwrap_or_default());
        }
        // Detached branches hold nobody up.
        self.front = Some(if matches!(fork.gives, Forked::Nothing) { vec![parting] } else { tidy(&self.steps, ends) });
    }
}

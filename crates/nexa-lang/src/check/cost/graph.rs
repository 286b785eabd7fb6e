//! Who calls whom, and who calls itself.

use std::collections::BTreeSet;

use crate::hir::{Expr, ExprKind, Function, Part};

/// The functions that a function calls or makes closures of, in ascending order.
pub(super) fn callees(function: &Function) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<Part<'_>> = function.body.iter().map(Part::Stmt).collect();
    while let Some(part) = waiting.pop() {
        match part {
            Part::Stmt(stmt) => stmt.parts(&mut waiting),
            Part::Expr(expr) => {
                if let Expr { kind: ExprKind::Call(number, _) | ExprKind::Closure(number, _), .. } = expr {
                    found.insert(*number);
                }
                expr.parts(&mut waiting);
            }
        }
    }
    found
}

/// Functions that lead back to themselves, each group once, in ascending order. Those that `skip` names are passed over.
pub(super) fn circles(edges: &[BTreeSet<u32>], skip: &dyn Fn(u32) -> bool) -> Vec<Vec<u32>> {
    let mut walk = Walk {
        edges,
        order: vec![None; edges.len()],
        low: vec![0; edges.len()],
        open: Vec::new(),
        is_open: vec![false; edges.len()],
        next: 0,
        found: Vec::new(),
    };
    for start in 0..edges.len() as u32 {
        if walk.order[start as usize].is_none() && !skip(start) {
            walk.from(start, skip);
        }
    }
    walk.found.sort();
    walk.found
}

/// R. Tarjan's strongly connected components, with a stack of its own.
struct Walk<'g> {
    edges: &'g [BTreeSet<u32>],
    order: Vec<Option<u32>>,
    low: Vec<u32>,
    open: Vec<u32>,
    is_open: Vec<bool>,
    next: u32,
    found: Vec<Vec<u32>>,
}

impl Walk<'_> {
    fn enter(&mut self, node: u32) {
        self.order[node as usize] = Some(self.next);
        self.low[node as usize] = self.next;
        self.next += 1;
        self.open.push(node);
        self.is_open[node as usize] = true;
    }

    fn from(&mut self, start: u32, skip: &dyn Fn(u32) -> bool) {
        self.enter(start);
        let mut path: Vec<(u32, Vec<u32>)> = vec![(start, self.next_of(start, skip))];
        while let Some((node, rest)) = path.last_mut() {
            let node = *node;
            if let Some(target) = rest.pop() {
                match self.order[target as usize] {
                    None => {
                        self.enter(target);
                        let next = self.next_of(target, skip);
                        path.push((target, next));
                    }
                    Some(order) if self.is_open[target as usize] => {
                        self.low[node as usize] = self.low[node as usize].min(order);
                    }
                    Some(_) => {}
                }
                continue;
            }
            path.pop();
            if let Some((above, _)) = path.last() {
                self.low[*above as usize] = self.low[*above as usize].min(self.low[node as usize]);
            }
            if Some(self.low[node as usize]) == self.order[node as usize] {
                self.close(node);
            }
        }
    }

    fn next_of(&self, node: u32, skip: &dyn Fn(u32) -> bool) -> Vec<u32> {
        let known = |target: &&u32| (**target as usize) < self.edges.len() && !skip(**target);
        self.edges[node as usize].iter().rev().filter(known).copied().collect()
    }

    fn close(&mut self, node: u32) {
        let mut group = Vec::new();
        while let Some(member) = self.open.pop() {
            self.is_open[member as usize] = false;
            group.push(member);
            if member == node {
                break;
            }
        }
        group.sort_unstable();
        if group.len() > 1 || self.edges[node as usize].contains(&node) {
            self.found.push(group);
        }
    }
}

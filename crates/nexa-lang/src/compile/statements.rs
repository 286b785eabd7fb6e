//! Statements as instructions.

use std::rc::Rc;

use nexa_vm::op::Op;

use super::builder::{Builder, Deferred, Loop};
use crate::hir::{Expr, ExprKind, ForEach, Item, Part, Stmt, StmtKind};
use crate::types::Ty;

impl Builder<'_, '_> {
    /// A function's statements. What it starts ends with it, whatever way that is:
    ///
    /// ```text
    /// let first = <number of the next effect>
    /// defer <let go of all handles since first>
    /// …
    /// ```
    pub(super) fn body(&mut self, statements: &[Stmt]) {
        let makes_handles =
            |part: Part<'_>| matches!(part, Part::Expr(Expr { kind: ExprKind::Spawn(..) | ExprKind::Timer(_), .. }));
        if !Part::any(statements, &|_| true, &makes_handles) {
            return self.statements(statements);
        }
        let at = self.here();
        let first = self.hidden_local();
        self.emit(Op::NextSeq, 0, 0, 1);
        self.emit(Op::StoreLocal, u32::from(first), 1, 0);
        let release = ExprKind::Release(Box::new(Expr::local(first, Ty::Int, at)));
        let release = Stmt { kind: StmtKind::Expr(Expr::new(release, Ty::Unit, at)), at };
        self.defer(&Rc::from([release]), statements);
    }

    pub(super) fn statements(&mut self, statements: &[Stmt]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        self.at(statement.at);
        match &statement.kind {
            StmtKind::Store(slot, value) => {
                self.expr(value);
                self.at(statement.at);
                self.emit(Op::StoreLocal, u32::from(*slot), 1, 0);
            }
            StmtKind::Increment(slot, step) => self.emit_count(Op::IncLocal, usize::from(*slot), *step as u16, 0, 0),
            StmtKind::Unpack(value, slots) => {
                self.expr(value);
                self.unpack(slots);
            }
            StmtKind::Expr(value) => {
                self.expr(value);
                self.emit(Op::Pop, 0, 1, 0);
            }
            StmtKind::Return(value) => {
                self.expr(value);
                let around = self.run_deferred(0);
                // The machine forgets the tries of a function that returns.
                self.at(statement.at);
                self.emit(Op::Return, 0, 1, 0);
                (self.tries, self.defers) = around;
            }
            StmtKind::If(condition, then, other) => self.choose(condition, then, other),
            StmtKind::While(condition, body) => self.repeat(condition, body),
            StmtKind::ForEach(walk) => self.walk(walk),
            StmtKind::Break | StmtKind::Continue => {
                let Some(around) = self.loops.last().copied() else { return };
                let before = self.height;
                let (label, height) = if matches!(statement.kind, StmtKind::Break) {
                    (around.end, around.end_height)
                } else {
                    (around.next, around.next_height)
                };
                let open = self.run_deferred(around.defers);
                self.unwind_to(around.tries, height);
                self.jump(Op::Jump, label, 0, 0, 0);
                (self.tries, self.defers) = open;
                self.height = before;
            }
            StmtKind::Try(body, error, handler) => self.try_catch(body, *error, handler),
            StmtKind::Timed(span, body) => self.timed(span, body),
            StmtKind::Defer(deferred, rest) => self.defer(deferred, rest),
            StmtKind::Block(body) => self.statements(body),
        }
    }

    /// Some statements, and what happens when they are left: at their end, by an error, and at each jump out of them,
    /// see `run_deferred`.
    fn defer(&mut self, deferred: &Rc<[Stmt]>, rest: &[Stmt]) {
        let (caught, end) = (self.label(), self.label());
        let error = u32::from(self.hidden_local());
        self.defers.push(Deferred { body: Rc::clone(deferred), tries: self.tries });
        self.jump(Op::EnterDefer, caught, 0, 0, 1);
        self.tries += 1;
        self.statements(rest);
        self.tries -= 1;
        self.defers.pop();
        // What is deferred may defer in its turn, and each level is written out twice at least.
        let deferred: &[Stmt] = if self.is_full() { &[] } else { deferred };
        if self.is_live {
            self.emit(Op::LeaveTry, 0, 0, 0);
            self.statements(deferred);
        }
        self.jump(Op::Jump, end, 0, 0, 0);
        self.bind(caught);
        self.emit(Op::StoreLocal, error, 1, 0);
        self.statements(deferred);
        self.emit(Op::LoadLocal, error, 0, 1);
        self.emit(Op::Raise, 0, 1, 0);
        self.bind(end);
    }

    /// Writes out what is deferred inside of the outermost `keep` `defer`s, the last one first. Gives what was open
    /// before, for the code after the jump.
    fn run_deferred(&mut self, keep: usize) -> (u32, Vec<Deferred>) {
        let open = (self.tries, self.defers.clone());
        // Each way out repeats it all; a function that is too long by then is refused whatever follows.
        while self.defers.len() > keep && !self.is_full() {
            let Some(last) = self.defers.pop() else { break };
            for _ in last.tries..self.tries {
                self.emit(Op::LeaveTry, 0, 0, 0);
            }
            self.tries = last.tries;
            let loops = std::mem::take(&mut self.loops);
            self.statements(&last.body);
            self.loops = loops;
        }
        open
    }

    /// Takes the tuple on top apart.
    fn unpack(&mut self, slots: &[Option<u16>]) {
        self.emit(Op::Unpack, slots.len() as u32, 1, slots.len() as u32);
        for slot in slots.iter().rev() {
            match slot {
                Some(slot) => self.emit(Op::StoreLocal, u32::from(*slot), 1, 0),
                None => self.emit(Op::Pop, 0, 1, 0),
            }
        }
    }

    fn choose(&mut self, condition: &Expr, then: &[Stmt], other: &[Stmt]) {
        let (no, end) = (self.label(), self.label());
        self.jump_unless(condition, no);
        self.statements(then);
        if other.is_empty() {
            self.bind(no);
            return;
        }
        self.jump(Op::Jump, end, 0, 0, 0);
        self.bind(no);
        self.statements(other);
        self.bind(end);
    }

    fn repeat(&mut self, condition: &Expr, body: &[Stmt]) {
        let next = self.loop_start();
        let end = self.label();
        self.jump_unless(condition, end);
        self.loops.push(Loop {
            next,
            end,
            next_height: self.height,
            end_height: self.height,
            tries: self.tries,
            defers: self.defers.len(),
        });
        self.statements(body);
        self.loops.pop();
        self.jump(Op::Jump, next, 0, 0, 0);
        self.bind(end);
    }

    fn walk(&mut self, walk: &ForEach) {
        let end_height = self.height;
        self.expr(&walk.over);
        self.emit(Op::IterNew, 0, 1, 1);
        // The program may assign to its index, so the count is kept apart.
        let counter = walk.index.map(|index| (index, self.hidden_local()));
        if let Some((_, counter)) = counter {
            self.emit(Op::Int, 0, 0, 1);
            self.emit(Op::StoreLocal, u32::from(counter), 1, 0);
        }
        let start = self.loop_start();
        let (next, end) = (self.label(), self.label());
        self.jump(Op::IterNext, end, 0, 1, -1);
        match &walk.item {
            Item::One(slot) => self.emit(Op::StoreLocal, u32::from(*slot), 1, 0),
            Item::Parts(slots) => self.unpack(slots),
            Item::Nothing => self.emit(Op::Pop, 0, 1, 0),
        }
        if let Some((index, counter)) = counter {
            self.emit(Op::LoadLocal, u32::from(counter), 0, 1);
            self.emit(Op::StoreLocal, u32::from(index), 1, 0);
        }
        let target = if counter.is_some() { next } else { start };
        self.loops.push(Loop {
            next: target,
            end,
            next_height: self.height,
            end_height,
            tries: self.tries,
            defers: self.defers.len(),
        });
        self.statements(&walk.body);
        self.loops.pop();
        if let Some((_, counter)) = counter {
            self.bind(next);
            self.emit_count(Op::IncLocal, usize::from(counter), 1, 0, 0);
        }
        self.jump(Op::Jump, start, 0, 0, 0);
        self.bind(end);
        self.height = end_height;
    }

    /// Statements that have so much time.
    fn timed(&mut self, span: &Expr, body: &[Stmt]) {
        let (late, end) = (self.label(), self.label());
        self.expr(span);
        self.jump(Op::EnterTimed, late, 1, 0, 0);
        self.tries += 1;
        self.statements(body);
        self.tries -= 1;
        self.emit(Op::LeaveTry, 0, 0, 0);
        self.jump(Op::Jump, end, 0, 0, 0);
        self.bind(late);
        self.emit(Op::Raise, 0, 1, 0);
        self.bind(end);
    }

    fn try_catch(&mut self, body: &[Stmt], error: u16, handler: &[Stmt]) {
        let (caught, end) = (self.label(), self.label());
        self.jump(Op::EnterTry, caught, 0, 0, 1);
        self.tries += 1;
        self.statements(body);
        self.tries -= 1;
        self.emit(Op::LeaveTry, 0, 0, 0);
        self.jump(Op::Jump, end, 0, 0, 0);
        self.bind(caught);
        self.emit(Op::StoreLocal, u32::from(error), 1, 0);
        self.statements(handler);
        self.bind(end);
    }
}

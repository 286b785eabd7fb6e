//! One function's code: words, labels, the height of the stack, and the lines that the words come from.
//!
//! The height is known at every word. After a word that never goes on (`Jump`, `Return`, `Raise`) nothing is written
//! until a label is bound that something jumps to.

use std::rc::Rc;

use nexa_types::limits::LOCALS_MAX;
use nexa_vm::module::Function;
use nexa_vm::op::{Op, word_a, word_ab};

use super::pool::Pool;
use super::{Lines, TooLarge, empty_function};
use crate::hir::{self, At};

/// Operands of 24 bits.
const OPERAND_MAX: u32 = 0x00FF_FFFF;

/// The lines of a function: first instruction, file, line.
pub(super) type DebugLines = Vec<(u32, u32, u32)>;

/// A place in the code that jumps lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Default)]
struct LabelState {
    /// Where it is, once it is bound.
    place: Option<u32>,
    /// The height there, once something jumps to it.
    height: Option<u32>,
    /// Jumps that wait for its place.
    waiting: Vec<usize>,
}

/// A loop around the current statement.
#[derive(Clone, Copy)]
pub(super) struct Loop {
    /// Where `continue` leads.
    pub(super) next: Label,
    /// Where `break` leads.
    pub(super) end: Label,
    /// The heights at both.
    pub(super) next_height: u32,
    pub(super) end_height: u32,
    /// How many `try`s are open around it.
    pub(super) tries: u32,
    /// How many `defer`s are open around it.
    pub(super) defers: usize,
}

/// What runs when the current statement is left.
#[derive(Clone)]
pub(super) struct Deferred {
    pub(super) body: Rc<[hir::Stmt]>,
    /// How many `try`s are open around it.
    pub(super) tries: u32,
}

/// A function on the way.
pub(super) struct Builder<'b, 't> {
    pub(super) pool: &'b mut Pool<'t>,
    files: &'b [Lines],
    code: Vec<u32>,
    labels: Vec<LabelState>,
    lines: DebugLines,
    /// Operands on the stack here.
    pub(super) height: u32,
    height_max: u32,
    /// Whether this place is reached.
    pub(super) is_live: bool,
    pub(super) loops: Vec<Loop>,
    /// Open `defer`s, the last one first to run.
    pub(super) defers: Vec<Deferred>,
    /// Open `try`s.
    pub(super) tries: u32,
    pub(super) locals: u16,
    /// The model that questions go to, see [`hir::Function::model`].
    pub(super) model: String,
    at: At,
    /// The line of the place that was looked up last: several words come from one place.
    known_line: (At, u32),
    fault: Option<TooLarge>,
}

impl<'b, 't> Builder<'b, 't> {
    /// Compiles a function.
    pub(super) fn function(
        pool: &'b mut Pool<'t>,
        files: &'b [Lines],
        function: &hir::Function,
    ) -> Result<(Function, DebugLines), TooLarge> {
        let mut builder = Builder {
            pool,
            files,
            code: Vec::new(),
            labels: Vec::new(),
            lines: Vec::new(),
            height: 0,
            height_max: 0,
            is_live: true,
            loops: Vec::new(),
            defers: Vec::new(),
            tries: 0,
            locals: function.locals.max(u16::from(function.arity)),
            model: function.model.clone(),
            at: function.at,
            known_line: (At::default(), 0),
            fault: None,
        };
        builder.body(&function.body);
        if builder.is_live {
            builder.emit(Op::Unit, 0, 0, 1);
            builder.emit(Op::Return, 0, 1, 0);
        }
        if let Some(fault) = builder.fault {
            return Err(fault);
        }
        let stack = u16::try_from(builder.height_max).map_err(|_| builder.too_large("values on the stack"))?;
        let made = Function { locals: builder.locals, stack, code: builder.code, ..empty_function(function) };
        Ok((made, builder.lines))
    }

    fn too_large(&self, what: &str) -> TooLarge {
        TooLarge { at: self.at, what: format!("too many {what}") }
    }

    fn refuse(&mut self, what: &str) {
        let fault = self.too_large(what);
        self.fault.get_or_insert(fault);
    }

    /// What comes next stands here in the text.
    pub(super) fn at(&mut self, at: At) {
        self.at = at;
    }

    /// Where what was written last stands in the text.
    pub(super) fn here(&self) -> At {
        self.at
    }

    fn note_line(&mut self) {
        if self.known_line.0 != self.at || self.known_line.1 == 0 {
            let Some(file) = self.files.get(self.at.file as usize) else { return };
            self.known_line = (self.at, file.line(self.at.start));
        }
        let line = self.known_line.1;
        if self.lines.last().is_none_or(|(_, known_file, known)| (*known_file, *known) != (self.at.file, line)) {
            self.lines.push((self.code.len() as u32, self.at.file, line));
        }
    }

    fn word(&mut self, word: u32, pops: u32, pushes: u32) {
        if self.is_live {
            self.note_line();
            self.code.push(word);
        }
        self.height = self.height.saturating_sub(pops) + pushes;
        self.height_max = self.height_max.max(self.height);
        if self.code.len() > OPERAND_MAX as usize {
            self.refuse("instructions in one function");
        }
    }

    /// Writes `op a`.
    pub(super) fn emit(&mut self, op: Op, a: u32, pops: u32, pushes: u32) {
        if a > OPERAND_MAX {
            self.refuse("constants");
        }
        self.word(word_a(op, a), pops, pushes);
        if matches!(op, Op::Return | Op::Raise | Op::Restore | Op::Trap) {
            self.is_live = false;
        }
    }

    /// Writes `op a b`, `a` being a count.
    pub(super) fn emit_count(&mut self, op: Op, count: usize, b: u16, pops: u32, pushes: u32) {
        let Ok(count) = u8::try_from(count) else {
            self.refuse("operands of one instruction");
            return;
        };
        self.word(word_ab(op, count, b), pops, pushes);
    }

    /// Whether the function is too long already, so that nothing more needs to be repeated in it.
    pub(super) fn is_full(&self) -> bool {
        self.code.len() > super::limits::FUNCTION_WORDS_MAX
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(LabelState::default());
        Label(self.labels.len() - 1)
    }

    /// Writes a jump. `pops` and `pushes` are those of going on; `there` is what is on the stack at the label, relative
    /// to the height before.
    pub(super) fn jump(&mut self, op: Op, label: Label, pops: u32, pushes: u32, there: i32) {
        if self.is_live {
            let height = self.height.saturating_add_signed(there);
            self.height_max = self.height_max.max(height);
            let state = &mut self.labels[label.0];
            state.height.get_or_insert(height);
            let place = state.place.unwrap_or_default();
            if state.place.is_none() {
                state.waiting.push(self.code.len());
            }
            self.word(word_a(op, place), pops, pushes);
        } else {
            self.word(0, pops, pushes);
        }
        if op == Op::Jump {
            self.is_live = false;
        }
    }

    /// The label is here.
    pub(super) fn bind(&mut self, label: Label) {
        let here = self.code.len() as u32;
        let state = &mut self.labels[label.0];
        state.place = Some(here);
        for waiting in std::mem::take(&mut state.waiting) {
            self.code[waiting] |= here << 8;
        }
        if let Some(height) = state.height {
            self.height = height;
            self.is_live = true;
        }
    }

    /// A label for jumps backwards, with the `LoopTick` that they must lead to.
    pub(super) fn loop_start(&mut self) -> Label {
        let label = self.label();
        if self.is_live {
            self.labels[label.0].height = Some(self.height);
        }
        self.bind(label);
        self.emit(Op::LoopTick, 0, 0, 0);
        label
    }

    /// A local that the program does not name.
    pub(super) fn hidden_local(&mut self) -> u16 {
        if usize::from(self.locals) >= LOCALS_MAX {
            self.refuse("variables in one function");
            return 0;
        }
        self.locals += 1;
        self.locals - 1
    }

    /// Leaves `try`s and drops operands before a jump out of them.
    pub(super) fn unwind_to(&mut self, tries: u32, height: u32) {
        for _ in tries..self.tries {
            self.emit(Op::LeaveTry, 0, 0, 0);
        }
        for _ in height..self.height {
            self.emit(Op::Pop, 0, 1, 0);
        }
    }
}

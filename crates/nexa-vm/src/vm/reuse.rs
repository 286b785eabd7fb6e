//! Values that are changed where they are, when nobody could tell.
//!
//! `xs = xs.push(v)` makes a new list, and the old one is gone a moment later. While the call runs, the old list is held
//! twice: as the operand, and in the local that is about to be overwritten. [`Vm::lend`] gives up the local's hold for
//! the length of one instruction, so that the operand is the only one, and the operation may change it in place. The
//! same goes for `st.items = st.items.push(v)`, where the records on the way are about to be overwritten as well.
//!
//! Values stay immutable for programs: nothing that can still be read is ever changed. A hold is given up only where
//!
//! - the code runs straight from the operation to the `StoreLocal` that overwrites the local, without reading it; and
//! - either that store (or the function's return) is the next thing that happens, and an operation that fails puts everything back; or no handler
//!   of the frame is open, so that a failure ends the frame and nobody reads the local any more.
//!
//! Who else holds a value is part of the state: a snapshot keeps what is shared and what is not, so a restored VM
//! changes in place what the stopped one would have, and charges the same.

use std::sync::Arc;

use super::Vm;
use super::code::Instr;
use crate::op::{Op, Word};
use crate::stdlib;
use crate::value::Value;

/// For an instruction after which no local is overwritten soon.
pub(super) const NO_SLOT: u16 = u16::MAX;
/// For an instruction whose result is returned at once, so that all locals are gone.
const RETURNED: u16 = u16::MAX - 1;
/// How many words after an operation are looked at for the store of its result.
const AHEAD_MAX: usize = 24;
/// How many records and collections around a value may be about to be overwritten.
const AROUND_MAX: usize = 8;

/// For each instruction that may change its operand, the local that is overwritten after it before it is read.
pub(super) fn overwritten(code: &[u32]) -> Vec<u16> {
    let mut slots = vec![NO_SLOT; code.len()];
    let mut at = 0;
    while let Some(word) = Word::read(code, at) {
        let changes = match word.op {
            Op::CallStd => stdlib::CHANGING.contains(&word.b),
            op => matches!(op, Op::Add | Op::Concat | Op::SetField | Op::SetIndex | Op::Call | Op::CallValue),
        };
        if changes {
            // With `Wide` the machine stands at the second word.
            slots[at + word.len - 1] = overwritten_next(code, at + word.len);
        }
        at += word.len;
    }
    slots
}

fn overwritten_next(code: &[u32], mut at: usize) -> u16 {
    if Word::read(code, at).is_some_and(|word| word.op == Op::Return) {
        return RETURNED;
    }
    let mut is_read = [false; nexa_types::limits::LOCALS_MAX];
    let end = at + AHEAD_MAX;
    while at < end
        && let Some(word) = Word::read(code, at)
    {
        match word.op {
            Op::StoreLocal => {
                return match is_read.get(word.a as usize) {
                    Some(false) => word.a as u16,
                    _ => NO_SLOT,
                };
            }
            Op::LoadLocal => {
                if let Some(is_read) = is_read.get_mut(word.a as usize) {
                    *is_read = true;
                }
            }
            Op::IncLocal | Op::LoopTick | Op::Return | Op::Raise | Op::Trap | Op::TailCall => return NO_SLOT,
            op if op.form() == crate::op::Form::Jump => return NO_SLOT,
            _ => {}
        }
        at += word.len;
    }
    NO_SLOT
}

/// What was given up for an operand, so that it can be put back.
#[derive(Debug)]
#[must_use]
pub(super) struct Loan {
    /// Where the local is.
    local: usize,
    /// Where the operand is.
    operand: usize,
    /// The collections around the operand, the nearest first: where each is, and the place in it that the operand, or
    /// the one before, was taken from.
    around: Vec<(usize, usize)>,
}

impl Vm {
    /// Gives up the holds on an operand of the current instruction that are about to be overwritten by its result.
    pub(super) fn lend(&mut self, operand: usize) -> Option<Loan> {
        let frame = *self.frames.last()?;
        let code = self.program.functions.get(frame.function as usize)?;
        let pc = frame.pc as usize;
        let slot = *code.overwritten.get(pc)?;
        if slot == NO_SLOT {
            return None;
        }
        let base = frame.base as usize;
        if slot == RETURNED {
            let held = self.stack.get(operand)?;
            let local = base
                + self.stack.get(base..base + code.locals as usize)?.iter().position(|local| is_same(local, held))?;
            self.stack[local] = Value::Unit;
            return Some(Loan { local, operand, around: Vec::new() });
        }
        let local = base + usize::from(slot);
        if is_same(self.stack.get(local)?, self.stack.get(operand)?) {
            let is_next = matches!(code.instrs.get(pc + 1), Some(Instr::Store(next)) if *next == u32::from(slot));
            if !is_next && self.handlers.len() > frame.handlers as usize {
                return None;
            }
            self.stack[local] = Value::Unit;
            return Some(Loan { local, operand, around: Vec::new() });
        }
        if !matches!(code.instrs.get(pc + 1), Some(Instr::Other(Op::SetField | Op::SetIndex, _))) {
            return None;
        }
        self.lend_part(local, operand, pc, slot)
    }

    /// Gives up the local that a call's result will overwrite, if it is one of the arguments. The frame ends if the call
    /// fails, so nothing has to be put back.
    pub(super) fn lend_argument(&mut self, pc: usize, argc: usize) -> Option<()> {
        let frame = self.frames.last()?;
        let slot = *self.program.functions.get(frame.function as usize)?.overwritten.get(pc)?;
        if slot >= RETURNED || self.handlers.len() > frame.handlers as usize {
            return None;
        }
        let local = frame.base as usize + usize::from(slot);
        let from = self.stack.len().checked_sub(argc)?;
        let held = self.stack.get(local)?;
        if self.stack.get(from..)?.iter().any(|argument| is_same(held, argument)) {
            self.stack[local] = Value::Unit;
        }
        Some(())
    }

    /// The same for an operand that is a part of what the local holds, when the instructions after this one put it back
    /// there: `SetField` and `SetIndex`, each on the collection that the one before belongs to, and the store.
    #[cold]
    fn lend_part(&mut self, local: usize, operand: usize, pc: usize, slot: u16) -> Option<Loan> {
        let program = Arc::clone(&self.program);
        let code = program.functions.get(self.frames.last()?.function as usize)?;
        let mut around: Vec<(usize, usize)> = Vec::new();
        let (mut part, mut at) = (operand, pc + 1);
        loop {
            let collection = match code.instrs.get(at)? {
                Instr::Store(next) if *next == u32::from(slot) => break,
                Instr::Other(Op::SetField, name) => {
                    let collection = part.checked_sub(1)?;
                    around.push((
                        collection,
                        field_place(&self.stack[collection], program.constants.get(*name as usize)?)?,
                    ));
                    collection
                }
                Instr::Other(Op::SetIndex, _) => {
                    let collection = part.checked_sub(2)?;
                    around.push((collection, index_place(&self.stack[collection], &self.stack[part - 1])?));
                    collection
                }
                _ => return None,
            };
            (part, at) = (collection, at + 1);
            if around.len() > AROUND_MAX {
                return None;
            }
        }
        if !is_same(self.stack.get(local)?, self.stack.get(part)?) {
            return None;
        }
        self.stack[local] = Value::Unit;
        // From the outermost one inwards: a part can be taken out only of what nobody else holds.
        let mut loan = Loan { local, operand, around: Vec::new() };
        for index in (0..around.len()).rev() {
            let (collection, place) = around[index];
            let part = if index == 0 { operand } else { around[index - 1].0 };
            // A collection is below the part on the stack.
            let (below, above) = self.stack.split_at_mut(collection + 1);
            let held = below.last_mut().and_then(|collection| part_mut(collection, place));
            match (held, above.get(part - collection - 1)) {
                (Some(held), Some(part)) if is_same(held, part) => {
                    *held = Value::Unit;
                    loan.around.push((collection, place));
                }
                _ => {
                    self.take_back(loan, around.get(index).map(|(collection, _)| *collection));
                    return None;
                }
            }
        }
        loan.around.reverse();
        Some(loan)
    }

    /// Puts everything back: the operation has changed nothing.
    #[cold]
    pub(super) fn give_back(&mut self, loan: Loan) {
        self.take_back(loan, None);
    }

    fn take_back(&mut self, mut loan: Loan, innermost: Option<usize>) {
        if innermost.is_some() {
            loan.around.reverse();
        }
        let mut part = innermost.unwrap_or(loan.operand);
        for (collection, place) in loan.around {
            let value = self.stack[part].clone();
            if let Some(held) = part_mut(&mut self.stack[collection], place) {
                *held = value;
            }
            part = collection;
        }
        self.stack[loan.local] = self.stack[part].clone();
    }
}

/// Whether both are one value in memory.
pub(super) fn is_same(x: &Value, y: &Value) -> bool {
    match (x, y) {
        (Value::Str(x), Value::Str(y)) => x.is_same(y),
        (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => Arc::ptr_eq(x, y),
        (Value::Record(x), Value::Record(y)) | (Value::Variant(x), Value::Variant(y)) => Arc::ptr_eq(x, y),
        (Value::Dict(x), Value::Dict(y)) => Arc::ptr_eq(x, y),
        _ => false,
    }
}

/// Where `SetField` will put a value.
fn field_place(collection: &Value, name: &Value) -> Option<usize> {
    let Value::Str(name) = name else { return None };
    match collection {
        Value::Record(record) => record.shape.fields.iter().position(|field| **field == **name),
        Value::Dict(dict) => dict.place_of(&crate::value::Key::Str(name.clone())),
        _ => None,
    }
}

/// Where `SetIndex` will put a value.
fn index_place(collection: &Value, index: &Value) -> Option<usize> {
    match (collection, index) {
        (Value::List(values), Value::Int(index)) => usize::try_from(*index).ok().filter(|index| *index < values.len()),
        (Value::Dict(dict), index) => dict.place_of(&super::key_of(index).ok()?),
        _ => None,
    }
}

/// A part of a collection that nobody else holds.
fn part_mut(collection: &mut Value, place: usize) -> Option<&mut Value> {
    match collection {
        Value::List(values) => Arc::get_mut(values)?.get_mut(place),
        Value::Record(record) => Arc::get_mut(record)?.values.get_mut(place),
        Value::Dict(dict) => Arc::get_mut(dict)?.value_mut(place),
        _ => None,
    }
}

//! Instructions as words: packed by the compiler, taken apart by the verifier and the machine.

use nexa_types::limits::BRANCHES_MAX;

use super::{ForkMode, Form, Op};

/// Packs `op:8 a:24`.
pub const fn word_a(op: Op, a: u32) -> u32 {
    op as u32 | (a & 0x00FF_FFFF) << 8
}

/// Packs `op:8 a:8 b:16`.
pub const fn word_ab(op: Op, a: u8, b: u16) -> u32 {
    op as u32 | (a as u32) << 8 | (b as u32) << 16
}

/// One instruction, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The operation.
    pub op: Op,
    /// `a` of a word `op:8 a:24`, with the higher bits of a `Wide` before it; unsigned, at most 48 bits.
    pub a: u64,
    /// `a` of a word `op:8 a:8 b:16`.
    pub count: u8,
    /// `b` of a word `op:8 a:8 b:16`.
    pub b: u16,
    /// How many words it takes: 2 with `Wide`.
    pub len: usize,
}

impl Word {
    /// The instruction that starts at a word; `None` at the end, and for an unknown operation or a `Wide` that widens
    /// nothing.
    pub fn read(code: &[u32], at: usize) -> Option<Self> {
        let word = *code.get(at)?;
        let op = Op::from_byte(word as u8)?;
        if op != Op::Wide {
            return Some(Self {
                op,
                a: u64::from(word >> 8),
                count: (word >> 8) as u8,
                b: (word >> 16) as u16,
                len: 1,
            });
        }
        let next = *code.get(at + 1)?;
        let op = Op::from_byte(next as u8)?;
        if op == Op::Wide || op.form() == Form::None || op.form().has_count() {
            return None;
        }
        Some(Self { op, a: u64::from(word >> 8) << 24 | u64::from(next >> 8), count: 0, b: 0, len: 2 })
    }

    /// The branches of a [`Op::Fork`]: there is no fork of none, so 0 stands for the most, 256.
    pub const fn branches(&self) -> usize {
        if self.count == 0 { BRANCHES_MAX } else { self.count as usize }
    }

    /// The mode of an [`Op::Fork`]; `None` for flags that stand for none.
    pub const fn fork_mode(&self) -> Option<ForkMode> {
        ForkMode::from_flags(self.b)
    }

    /// `a` as a signed number of 24 bits, or 48 with `Wide`.
    pub const fn signed_a(&self) -> i64 {
        let unused = if self.len == 2 { 16 } else { 40 };
        (self.a << unused) as i64 >> unused
    }
}

//! A verified module made ready to run: words become [`Instr`]s that are dispatched without looking at bits again.
//!
//! Instruction `i` stands for word `i`, so jumps, debug lines and snapshots speak of the same numbers. Some sequences
//! that loops are made of run as one step (`fuse`); the words inside such a sequence stay where they are, so a jump
//! into it still works.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_types::ModuleHash;

use super::heap::AddressMap;
use crate::module::{Constant, Kind, LoadError, Module, Schedule};
use crate::op::{Op, Word};
use crate::value::{Shape, Value};
use crate::verify::{self, VerifyError};

/// A module that the verifier accepted, ready to run. Shared by all VMs of it.
#[derive(Debug)]
pub struct Program {
    module: Module,
    hash: ModuleHash,
    pub(super) functions: Vec<Code>,
    /// One value a constant, then those of wide integers.
    pub(super) constants: Vec<Value>,
    pub(super) shapes: Vec<Arc<Shape>>,
    /// The constant that a text is, by the text's address. The texts live as long as the program.
    constant_addresses: AddressMap<u32>,
    /// The first of equal shapes.
    shape_numbers: BTreeMap<Arc<Shape>, u32>,
    /// How far functions of agents are from the usual priority; those that are not are not in here.
    priorities: BTreeMap<u32, i16>,
}

/// One function, ready to run.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) instrs: Vec<Instr>,
    /// How many operands are on the stack before each instruction; [`verify::UNREACHED`] where none ever is.
    pub(super) heights: Vec<u16>,
    /// The local that is overwritten after each instruction, see `reuse`.
    pub(super) overwritten: Vec<u16>,
    pub(super) arity: u32,
    pub(super) locals: u32,
    pub(super) captures: u32,
    pub(super) stack: u32,
    pub(super) is_pure: bool,
    /// The kinds of the arguments; empty if nothing is known of them.
    pub(super) param_kinds: Vec<Kind>,
}

impl Program {
    /// Decodes, hashes and verifies a module.
    ///
    /// # Errors
    /// [`LoadError`] with an E10xx code; no instruction of a refused module ever runs.
    pub fn load(bytes: &[u8]) -> Result<Self, LoadError> {
        let (module, hash) = Module::decode_with_hash(bytes)?;
        refuse_tests(&module)?;
        Ok(Self::prepare(module, hash)?)
    }

    /// Verifies a module that was just built.
    ///
    /// # Errors
    /// [`VerifyError`] with an E10xx code.
    pub fn new(module: Module) -> Result<Self, VerifyError> {
        refuse_tests(&module)?;
        Self::for_tests(module)
    }

    /// Verifies a module that may be a test build, which only a harness that answers its tests can run.
    ///
    /// # Errors
    /// [`VerifyError`] with an E10xx code.
    pub fn for_tests(module: Module) -> Result<Self, VerifyError> {
        let hash = module.hash();
        Self::prepare(module, hash)
    }

    fn prepare(module: Module, hash: ModuleHash) -> Result<Self, VerifyError> {
        let heights = verify::verify(&module)?;
        let mut constants: Vec<Value> = module
            .constants
            .iter()
            .map(|constant| match constant {
                Constant::Str(text) => Value::Str(text.as_str().into()),
                Constant::Int(number) => Value::Int(*number),
                Constant::Float(number) => Value::Float(*number),
                Constant::Duration(millis) => Value::Duration(*millis),
            })
            .collect();
        let shapes: Vec<Arc<Shape>> = module.shapes.iter().map(|shape| Arc::new(shape.clone())).collect();
        let functions = module
            .functions
            .iter()
            .zip(heights)
            .map(|(function, heights)| Code {
                instrs: prepare_code(&function.code, &mut constants),
                heights,
                overwritten: super::reuse::overwritten(&function.code),
                arity: u32::from(function.arity),
                locals: u32::from(function.locals),
                captures: u32::from(function.captures),
                stack: u32::from(function.stack),
                is_pure: function.pure_,
                param_kinds: function.param_kinds.clone(),
            })
            .collect();
        let mut constant_addresses = AddressMap::default();
        for (index, constant) in constants.iter().enumerate() {
            if let Value::Str(text) = constant {
                constant_addresses.insert(text.address(), index as u32);
            }
        }
        let mut shape_numbers = BTreeMap::new();
        for (index, shape) in shapes.iter().enumerate() {
            shape_numbers.entry(Arc::clone(shape)).or_insert(index as u32);
        }
        let usual = i16::from(Schedule::default().priority);
        let priorities = module.agents.iter().map(|agent| (agent.function, i16::from(agent.priority) - usual));
        let priorities = priorities.filter(|(_, from_usual)| *from_usual != 0).collect();
        Ok(Self { module, hash, functions, constants, shapes, constant_addresses, shape_numbers, priorities })
    }

    /// The constant whose text lies at this address.
    pub(super) fn constant_at(&self, address: usize) -> Option<u32> {
        self.constant_addresses.get(&address).copied()
    }

    /// The number of a shape that equals this one.
    pub(super) fn shape_number(&self, shape: &Arc<Shape>) -> Option<u32> {
        self.shape_numbers.get(shape).copied()
    }

    /// Whether any function defers something.
    pub(super) fn has_defers(&self) -> bool {
        let defers = |instr: &Instr| matches!(instr, Instr::Other(Op::EnterDefer, _));
        self.functions.iter().any(|code| code.instrs.iter().any(defers))
    }

    /// The priority of an agent that runs this function for a workload of priority `base`: as much above or below it as
    /// the program says that the agent is above or below the usual one, within 0 to 255.
    pub fn priority(&self, function: u32, base: u8) -> u8 {
        let from_usual = self.priorities.get(&function).copied().unwrap_or(0);
        (i16::from(base) + from_usual).clamp(0, 255) as u8
    }

    /// The module.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// The module's hash.
    pub fn hash(&self) -> ModuleHash {
        self.hash
    }

    /// Where an instruction comes from, as `file:line`; empty without debug lines, and for what was made without a file.
    pub(super) fn place(&self, function: u32, pc: u32) -> String {
        let debug = &self.module.debug;
        let lines = debug.lines.get(function as usize).map_or(&[][..], Vec::as_slice);
        let after = lines.partition_point(|(first, _, _)| *first <= pc);
        let Some((_, file, line)) = after.checked_sub(1).and_then(|index| lines.get(index)) else {
            return String::new();
        };
        match debug.files.get(*file as usize).map_or("?", String::as_str) {
            "" => String::new(),
            file => format!("{file}:{line}"),
        }
    }
}

/// Nobody but a harness answers what a test asks, so nobody else loads a module with tests.
fn refuse_tests(module: &Module) -> Result<(), VerifyError> {
    match module.functions.iter().find(|function| function.test) {
        None => Ok(()),
        Some(test) => {
            let what = "the module is a test build; compile the program without its tests";
            Err(VerifyError { function: test.name.clone(), ..VerifyError::new("E1001", what) })
        }
    }
}

/// An instruction as the machine runs it: 8 bytes, its operand in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Instr {
    Const(u32),
    Int(i32),
    True,
    False,
    NoneValue,
    Pop,
    Dup,
    Load(u32),
    Store(u32),
    Inc(u16, i16),
    AddInt,
    SubInt,
    MulInt,
    LtInt,
    LeInt,
    EqInt,
    AddFloat,
    SubFloat,
    MulFloat,
    LtFloat,
    LeFloat,
    Not,
    Jump(u32),
    JumpIf(u32),
    JumpIfNot(u32),
    LoopTick,
    /// A `Jump` to a `LoopTick`, and that tick.
    LoopJump(u32),
    /// `IncLocal` and the `LoopJump` after it.
    IncLoopJump(u16, i16),
    Return,
    Call(u8, u16),
    IterNext(u32),
    /// Everything that is not worth a place in the hot loop.
    Other(Op, u32),
    OtherAb(Op, u8, u16),
    /// The second word of an instruction with `Wide`; jumps cannot lead here.
    Inside,
    /// `LoadLocal x; LoadLocal y; LtInt; JumpIfNot`, the target being the last word's.
    LoadLoadLtJump(u8, u8),
    LoadLoadLeJump(u8, u8),
    /// `LoadLocal x; Int n; LtInt; JumpIfNot`.
    LoadIntLtJump(u8, i16),
    LoadIntLeJump(u8, i16),
    LoadIntEqJump(u8, i16),
    /// `LtInt; JumpIfNot`.
    LtJump,
    LeJump,
    EqJump,
    /// `LoadLocal x; LoadLocal y; AddInt`.
    LoadLoadAdd(u8, u8),
    LoadLoadSub(u8, u8),
    LoadLoadMul(u8, u8),
    /// `LoadLocal x; Int n; AddInt`, and `SubInt` with the number negated.
    LoadIntAdd(u8, i32),
    LoadIntMul(u8, i32),
    /// `LoadLocal x; AddInt`: the top of the stack and a local.
    LoadAdd(u8),
    LoadSub(u8),
    LoadMul(u8),
    /// `Int n; AddInt`, and `SubInt` with the number negated.
    IntAdd(i32),
    IntMul(i32),
    /// `Int n; DivInt` and `Int n; RemInt`.
    IntDiv(i32),
    IntRem(i32),
    /// `AddInt; StoreLocal x`.
    AddStore(u8),
    SubStore(u8),
}

impl Instr {
    /// Calls, and what may take long for its operands' size. No instruction that puts a changed part back into what it was
    /// taken out of: see `reuse`.
    pub(super) fn is_safepoint(self) -> bool {
        match self {
            Self::Other(op, _) => matches!(
                op,
                Op::CallValue
                    | Op::Snapshot
                    | Op::Restore
                    | Op::MemStore
                    | Op::MemRecall
                    | Op::CheckType
                    | Op::Concat
                    | Op::Add
                    | Op::Eq
                    | Op::Ne
                    | Op::Lt
                    | Op::Le
                    | Op::Gt
                    | Op::Ge
                    | Op::In
                    | Op::Index
                    | Op::Len
            ),
            Self::OtherAb(op, ..) => matches!(op, Op::TailCall | Op::CallStd | Op::Merge),
            _ => false,
        }
    }
}

/// An operation on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Math {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

fn prepare_code(words: &[u32], constants: &mut Vec<Value>) -> Vec<Instr> {
    let mut instrs = vec![Instr::Inside; words.len()];
    let mut at = 0;
    while let Some(word) = Word::read(words, at) {
        // With `Wide`, the step stands at the first of the two words; the machine goes on after the second.
        let instr = plain(&word, constants);
        if word.len == 2 {
            instrs[at] = Instr::Other(Op::Wide, 0);
            instrs[at + 1] = instr;
        } else {
            instrs[at] = instr;
        }
        at += word.len;
    }
    for at in 0..instrs.len() {
        if let Instr::Jump(target) = instrs[at]
            && instrs.get(target as usize) == Some(&Instr::LoopTick)
        {
            instrs[at] = Instr::LoopJump(target);
        }
    }
    let plain = instrs.clone();
    for at in 0..plain.len() {
        if let Some(fused) = fuse(&plain[at..]) {
            instrs[at] = fused;
        }
    }
    instrs
}

fn plain(word: &Word, constants: &mut Vec<Value>) -> Instr {
    // The verifier has seen that every operand but a wide integer fits into 32 bits.
    let a = word.a as u32;
    match word.op {
        Op::Const => Instr::Const(a),
        Op::Int => match i32::try_from(word.signed_a()) {
            Ok(number) => Instr::Int(number),
            Err(_) => {
                constants.push(Value::Int(word.signed_a()));
                Instr::Const(constants.len() as u32 - 1)
            }
        },
        Op::True => Instr::True,
        Op::False => Instr::False,
        Op::NoneValue => Instr::NoneValue,
        Op::Pop => Instr::Pop,
        Op::Dup => Instr::Dup,
        Op::LoadLocal => Instr::Load(a),
        Op::StoreLocal => Instr::Store(a),
        Op::IncLocal => Instr::Inc(u16::from(word.count), word.b as i16),
        Op::AddInt => Instr::AddInt,
        Op::SubInt => Instr::SubInt,
        Op::MulInt => Instr::MulInt,
        Op::LtInt => Instr::LtInt,
        Op::LeInt => Instr::LeInt,
        Op::EqInt => Instr::EqInt,
        Op::AddFloat => Instr::AddFloat,
        Op::SubFloat => Instr::SubFloat,
        Op::MulFloat => Instr::MulFloat,
        Op::LtFloat => Instr::LtFloat,
        Op::LeFloat => Instr::LeFloat,
        Op::Not => Instr::Not,
        Op::Jump => Instr::Jump(a),
        Op::JumpIf => Instr::JumpIf(a),
        Op::JumpIfNot => Instr::JumpIfNot(a),
        Op::LoopTick => Instr::LoopTick,
        Op::Return => Instr::Return,
        Op::Call => Instr::Call(word.count, word.b),
        Op::IterNext => Instr::IterNext(a),
        op if op.form().has_count() => Instr::OtherAb(op, word.count, word.b),
        op => Instr::Other(op, a),
    }
}

/// The one step that does what the first instructions of `code` do, if there is one.
fn fuse(code: &[Instr]) -> Option<Instr> {
    let small = |slot: u32| u8::try_from(slot).ok();
    let short = |number: i32| i16::try_from(number).ok();
    let then = |at: usize| code.get(at).copied();
    let jumps = |at: usize| matches!(then(at), Some(Instr::JumpIfNot(_)));
    Some(match (code[0], then(1)?, then(2)) {
        (Instr::Load(x), Instr::Load(y), Some(Instr::LtInt)) if jumps(3) => Instr::LoadLoadLtJump(small(x)?, small(y)?),
        (Instr::Load(x), Instr::Load(y), Some(Instr::LeInt)) if jumps(3) => Instr::LoadLoadLeJump(small(x)?, small(y)?),
        (Instr::Load(x), Instr::Int(n), Some(Instr::LtInt)) if jumps(3) => Instr::LoadIntLtJump(small(x)?, short(n)?),
        (Instr::Load(x), Instr::Int(n), Some(Instr::LeInt)) if jumps(3) => Instr::LoadIntLeJump(small(x)?, short(n)?),
        (Instr::Load(x), Instr::Int(n), Some(Instr::EqInt)) if jumps(3) => Instr::LoadIntEqJump(small(x)?, short(n)?),
        (Instr::LtInt, Instr::JumpIfNot(_), _) => Instr::LtJump,
        (Instr::LeInt, Instr::JumpIfNot(_), _) => Instr::LeJump,
        (Instr::EqInt, Instr::JumpIfNot(_), _) => Instr::EqJump,
        (Instr::Load(x), Instr::Load(y), Some(Instr::AddInt)) => Instr::LoadLoadAdd(small(x)?, small(y)?),
        (Instr::Load(x), Instr::Load(y), Some(Instr::SubInt)) => Instr::LoadLoadSub(small(x)?, small(y)?),
        (Instr::Load(x), Instr::Load(y), Some(Instr::MulInt)) => Instr::LoadLoadMul(small(x)?, small(y)?),
        (Instr::Load(x), Instr::Int(n), Some(Instr::AddInt)) => Instr::LoadIntAdd(small(x)?, n),
        (Instr::Load(x), Instr::Int(n), Some(Instr::SubInt)) => Instr::LoadIntAdd(small(x)?, n.checked_neg()?),
        (Instr::Load(x), Instr::Int(n), Some(Instr::MulInt)) => Instr::LoadIntMul(small(x)?, n),
        (Instr::Load(x), Instr::AddInt, _) => Instr::LoadAdd(small(x)?),
        (Instr::Load(x), Instr::SubInt, _) => Instr::LoadSub(small(x)?),
        (Instr::Load(x), Instr::MulInt, _) => Instr::LoadMul(small(x)?),
        (Instr::Int(n), Instr::AddInt, _) => Instr::IntAdd(n),
        (Instr::Int(n), Instr::SubInt, _) => Instr::IntAdd(n.checked_neg()?),
        (Instr::Int(n), Instr::MulInt, _) => Instr::IntMul(n),
        (Instr::Int(n), Instr::Other(Op::DivInt, _), _) => Instr::IntDiv(n),
        (Instr::Int(n), Instr::Other(Op::RemInt, _), _) => Instr::IntRem(n),
        (Instr::Inc(x, n), Instr::LoopJump(_), _) => Instr::IncLoopJump(x, n),
        (Instr::AddInt, Instr::Store(x), _) => Instr::AddStore(small(x)?),
        (Instr::SubInt, Instr::Store(x), _) => Instr::SubStore(small(x)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_eight_bytes() {
        assert_eq!(size_of::<Instr>(), 8);
    }
}

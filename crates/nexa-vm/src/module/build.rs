//! A small assembler: functions from instructions with labels, modules from functions.
//!
//! ```
//! use nexa_vm::module::build::{Assembler, ModuleBuilder};
//! use nexa_vm::op::Op;
//!
//! let mut module = ModuleBuilder::new();
//! let mut code = Assembler::new("twice", 1);
//! code.a(Op::LoadLocal, 0).int(2).op(Op::MulInt).op(Op::Return);
//! module.add(code);
//! let program = nexa_vm::Program::new(module.finish()?)?;
//! # Ok::<(), nexa_vm::verify::VerifyError>(())
//! ```

use crate::module::{Constant, Function, Kind, Module};
use crate::op::{Form, Op, word_a, word_ab};
use crate::stdlib;
use crate::value::Shape;
use crate::verify::{self, VerifyError};

/// A place in a function's code, maybe not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// One function while it is written.
#[derive(Debug, Clone)]
pub struct Assembler {
    function: Function,
    /// Where each label is.
    labels: Vec<Option<u32>>,
    /// Instructions whose operand is a label.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A function with so many arguments and no further locals.
    pub fn new(name: &str, arity: u8) -> Self {
        let function = Function { name: name.to_owned(), arity, locals: u16::from(arity), ..Function::default() };
        Self { function, labels: Vec::new(), jumps: Vec::new() }
    }

    /// Takes so many captured values.
    pub fn captures(mut self, captures: u8) -> Self {
        self.function.captures = captures;
        self
    }

    /// Takes arguments of these kinds.
    pub fn kinds(mut self, kinds: &[Kind]) -> Self {
        self.function.param_kinds = kinds.to_vec();
        self
    }

    /// Is marked pure.
    pub fn pure_(mut self) -> Self {
        self.function.pure_ = true;
        self
    }

    /// A new local; its slot.
    pub fn local(&mut self) -> u32 {
        self.function.locals += 1;
        u32::from(self.function.locals) - 1
    }

    /// Where the next instruction will be.
    pub fn here(&self) -> usize {
        self.function.code.len()
    }

    /// An instruction without operand.
    pub fn op(&mut self, op: Op) -> &mut Self {
        self.a(op, 0)
    }

    /// An instruction `op a`, with `Wide` before it if `a` needs more than 24 bits.
    pub fn a(&mut self, op: Op, a: u32) -> &mut Self {
        if a >> 24 != 0 {
            self.function.code.push(word_a(Op::Wide, a >> 24));
        }
        self.function.code.push(word_a(op, a));
        self
    }

    /// An instruction `op count, b`.
    pub fn ab(&mut self, op: Op, count: u8, b: u16) -> &mut Self {
        self.function.code.push(word_ab(op, count, b));
        self
    }

    /// An integer of up to 48 bits; larger ones are constants.
    pub fn int(&mut self, number: i64) -> &mut Self {
        if !(-(1 << 23)..1 << 23).contains(&number) {
            self.function.code.push(word_a(Op::Wide, (number >> 24) as u32));
        }
        self.function.code.push(word_a(Op::Int, number as u32));
        self
    }

    /// A call of the standard function of this name, which must exist.
    ///
    /// # Panics
    /// If it does not.
    pub fn std(&mut self, name: &str, count: u8) -> &mut Self {
        let function = stdlib::lookup(name);
        let function = function.unwrap_or_else(|| panic!("there is no standard function `{name}`"));
        self.ab(Op::CallStd, count, function.number)
    }

    /// A label that will be placed later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub fn place(&mut self, label: Label) -> &mut Self {
        self.labels[label.0] = Some(self.function.code.len() as u32);
        self
    }

    /// A `LoopTick` and a label at it.
    pub fn loop_start(&mut self) -> Label {
        let label = self.label();
        self.place(label).op(Op::LoopTick);
        label
    }

    /// A jump, try or iteration step whose target is a label.
    pub fn jump(&mut self, op: Op, label: Label) -> &mut Self {
        debug_assert_eq!(op.form(), Form::Jump, "{} has no target", op.name());
        self.jumps.push((self.function.code.len(), label));
        self.op(op)
    }

    /// The function, its labels resolved. A label that was not placed leads beyond the code, which no verifier accepts.
    pub fn finish(mut self) -> Function {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].unwrap_or(0x00FF_FFFF);
            self.function.code[at] |= target << 8;
        }
        self.function
    }
}

/// A module while it is put together: constants and shapes are shared, stack heights are computed.
#[derive(Debug, Clone, Default)]
pub struct ModuleBuilder {
    /// What there is so far. Types, agents, requests, entries and debug lines are put in directly.
    pub module: Module,
}

impl ModuleBuilder {
    /// An empty module.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of a constant; equal ones share one.
    pub fn constant(&mut self, constant: Constant) -> u32 {
        let same = |other: &Constant| match (other, &constant) {
            // Floats of equal worth may differ in their bits.
            (Constant::Float(a), Constant::Float(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        };
        let known = self.module.constants.iter().position(same);
        known.unwrap_or_else(|| {
            self.module.constants.push(constant);
            self.module.constants.len() - 1
        }) as u32
    }

    /// The index of a text.
    pub fn text(&mut self, text: &str) -> u32 {
        self.constant(Constant::Str(text.to_owned()))
    }

    /// The index of a shape; equal ones share one.
    pub fn shape(&mut self, shape: Shape) -> u32 {
        let known = self.module.shapes.iter().position(|other| *other == shape);
        known.unwrap_or_else(|| {
            self.module.shapes.push(shape);
            self.module.shapes.len() - 1
        }) as u32
    }

    /// The shape of a plain record.
    pub fn record(&mut self, fields: &[&str]) -> u32 {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        self.shape(Shape { fields, ..Shape::default() })
    }

    /// A place for a function that is written later, so that others can call it.
    pub fn declare(&mut self, name: &str, arity: u8) -> u16 {
        self.module.functions.push(Assembler::new(name, arity).finish());
        self.module.functions.len() as u16 - 1
    }

    /// Puts a function in its declared place.
    pub fn define(&mut self, index: u16, code: Assembler) {
        self.module.functions[usize::from(index)] = code.finish();
    }

    /// Adds a function.
    pub fn add(&mut self, code: Assembler) -> u16 {
        self.module.functions.push(code.finish());
        self.module.functions.len() as u16 - 1
    }

    /// The module, with each function's stack height filled in.
    ///
    /// # Errors
    /// [`VerifyError`] for code whose height cannot be computed.
    pub fn finish(mut self) -> Result<Module, VerifyError> {
        for index in 0..self.module.functions.len() {
            self.module.functions[index].stack = verify::stack_need(&self.module, index)?;
        }
        Ok(self.module)
    }
}

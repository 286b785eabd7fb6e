//! What the functions of a module share: constants, types, shapes; each once, numbered in the order they are met.

use std::collections::{BTreeMap, HashMap};

use nexa_vm::module::{Constant, Field, RecordType, Type};
use nexa_vm::value::Shape;

use super::questions::Kind;
use crate::hir;
use crate::types::{NamedKind, Ty, TypeTable};

/// The shared parts of a module that is being made.
pub(super) struct Pool<'t> {
    table: &'t TypeTable,
    pub(super) constants: Vec<Constant>,
    pub(super) types: Vec<Type>,
    pub(super) shapes: Vec<Shape>,
    /// The function around the first tool; those of the others follow.
    pub(super) tools_at: u32,
    /// By function, the agents that flows with caps of their own run as.
    pub(super) apart: BTreeMap<u32, u32>,
    /// For each agent, the one that it is a clone of.
    pub(super) clones: Vec<Option<u32>>,
    // Looked up only, never walked through, so their order does not matter.
    text_numbers: HashMap<String, u32>,
    number_numbers: HashMap<NumberKey, u32>,
    type_numbers: HashMap<Ty, u32>,
    shape_numbers: HashMap<hir::Shape, u32>,
    /// The kinds of questions that the program asks, in the order they are met.
    pub(super) questions: Vec<Kind>,
    /// The number of the function of the first of them.
    questions_from: u32,
}

#[derive(PartialEq, Eq, Hash)]
enum NumberKey {
    Int(i64),
    /// By its bits: `0.0` and `-0.0` are two constants.
    Float(u64),
    Duration(i64),
}

impl<'t> Pool<'t> {
    /// `declared` is how many functions the program has before those that its questions need.
    pub(super) fn new(table: &'t TypeTable, declared: usize) -> Self {
        Pool {
            table,
            constants: Vec::new(),
            types: Vec::new(),
            shapes: Vec::new(),
            tools_at: 0,
            apart: BTreeMap::new(),
            clones: Vec::new(),
            text_numbers: HashMap::new(),
            number_numbers: HashMap::new(),
            type_numbers: HashMap::new(),
            shape_numbers: HashMap::new(),
            questions: Vec::new(),
            questions_from: declared as u32,
        }
    }

    /// The number of the function that asks a kind of question.
    pub(super) fn question(&mut self, kind: Kind) -> u32 {
        let known = self.questions.iter().position(|known| *known == kind);
        let place = known.unwrap_or_else(|| {
            self.questions.push(kind);
            self.questions.len() - 1
        });
        self.questions_from + place as u32
    }

    /// A type as people read it.
    pub(super) fn show(&self, ty: &Ty) -> String {
        self.table.show(ty)
    }

    fn number(&mut self, key: NumberKey, constant: Constant) -> u32 {
        let next = self.constants.len() as u32;
        let number = *self.number_numbers.entry(key).or_insert(next);
        if number == next {
            self.constants.push(constant);
        }
        number
    }

    pub(super) fn str(&mut self, text: &str) -> u32 {
        if let Some(number) = self.text_numbers.get(text) {
            return *number;
        }
        let number = self.constants.len() as u32;
        self.text_numbers.insert(text.to_owned(), number);
        self.constants.push(Constant::Str(text.to_owned()));
        number
    }

    pub(super) fn int(&mut self, int: i64) -> u32 {
        self.number(NumberKey::Int(int), Constant::Int(int))
    }

    pub(super) fn float(&mut self, float: f64) -> u32 {
        self.number(NumberKey::Float(float.to_bits()), Constant::Float(float))
    }

    pub(super) fn duration(&mut self, millis: i64) -> u32 {
        self.number(NumberKey::Duration(millis), Constant::Duration(millis))
    }

    pub(super) fn shape(&mut self, shape: &hir::Shape) -> u32 {
        if let Some(number) = self.shape_numbers.get(shape) {
            return *number;
        }
        let number = self.shapes.len() as u32;
        self.shape_numbers.insert(shape.clone(), number);
        self.shapes.push(machine_shape(shape));
        number
    }

    /// The number of a type. What has no run-time form is `any`.
    pub(super) fn ty(&mut self, ty: &Ty) -> u32 {
        if let Some(number) = self.type_numbers.get(ty) {
            return *number;
        }
        // The place is taken before the parts are looked at, so that a protocol may contain itself.
        let number = self.types.len() as u32;
        self.types.push(Type::Any);
        self.type_numbers.insert(ty.clone(), number);
        let made = match ty {
            // The checker lets nothing else become one of these, so there is nothing to be checked later.
            Ty::Secret | Ty::Snapshot | Ty::Handle(_) => Type::Any,
            // A stream is read once and to its end, so it is the text that its chunks make.
            Ty::Stream(_) => Type::Str,
            Ty::Broken | Ty::Never | Ty::Any | Ty::Function(..) | Ty::Stage(..) => Type::Any,
            Ty::Unit => Type::Unit,
            Ty::Str => Type::Str,
            Ty::Int => Type::Int,
            Ty::Float => Type::Float,
            Ty::Bool => Type::Bool,
            Ty::Duration => Type::Duration,
            Ty::List(item) => Type::List(self.ty(item)),
            Ty::Dict(key, value) => Type::Dict(self.ty(key), self.ty(value)),
            Ty::Tuple(items) => Type::Tuple(items.iter().map(|item| self.ty(item)).collect()),
            Ty::Option(inner) => Type::Option(self.ty(inner)),
            Ty::Result(value, error) => Type::Result(self.ty(value), self.ty(error)),
            Ty::Record(fields) => Type::Record(self.record("", false, fields)),
            Ty::Union(alternatives) => Type::Union(alternatives.iter().map(|ty| self.ty(ty)).collect()),
            Ty::Named(id) => {
                let named = self.table.named(*id).clone();
                match &named.kind {
                    NamedKind::Protocol(fields) => Type::Record(self.record(&named.name, false, fields)),
                    NamedKind::Struct(fields) => Type::Record(self.record(&self.table.run_name(*id), true, fields)),
                    NamedKind::Enum(variants) => {
                        let variants = variants.iter().map(|(tag, fields)| self.record(tag, false, fields)).collect();
                        Type::Enum { name: self.table.run_name(*id).to_string(), variants }
                    }
                    NamedKind::Semantic(semantic) => Type::Semantic {
                        base: self.ty(&semantic.base),
                        condition: semantic.condition.to_string(),
                        pattern: semantic.pattern.as_ref().map(ToString::to_string),
                    },
                }
            }
        };
        self.types[number as usize] = made;
        number
    }

    fn record(&mut self, name: &str, nominal: bool, fields: &[crate::types::Field]) -> RecordType {
        let field = |field: &crate::types::Field| Field {
            name: field.name.to_string(),
            ty: self.ty(&field.ty),
            doc: field.doc.to_string(),
        };
        RecordType { name: name.to_owned(), nominal, fields: fields.iter().map(field).collect() }
    }
}

/// A shape as the machine has it.
pub(super) fn machine_shape(shape: &hir::Shape) -> Shape {
    Shape {
        type_name: shape.type_name.to_string(),
        tag: shape.tag.to_string(),
        fields: shape.fields.iter().map(|field| field.to_string()).collect(),
    }
}

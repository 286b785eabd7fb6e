//! Values: immutable trees without identity, shared by reference count and copied on change.

use std::sync::Arc;

mod dict;
mod text;

pub use dict::Dict;
pub(crate) use dict::SEARCHED_MAX;
pub(crate) use text::GROWING_MIN;
pub use text::Text;

/// A value of the language, or of the machine itself (iterators). 24 bytes; everything large is behind a shared pointer.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Value {
    /// `()`
    #[default]
    Unit,
    /// `none`
    None,
    /// `true`, `false`
    Bool(bool),
    /// 64 bits, signed.
    Int(i64),
    /// IEEE 754 binary64; never another NaN than the canonical one.
    Float(f64),
    /// Whole milliseconds.
    Duration(i64),
    /// Text.
    Str(Text),
    /// `[a, b]`
    List(Arc<Vec<Value>>),
    /// `(a, b)`
    Tuple(Arc<Vec<Value>>),
    /// `{ x: 1 }`, by shape.
    Record(Arc<Record>),
    /// `{ "k": v }` in insertion order.
    Dict(Arc<Dict>),
    /// A variant of an enum with its fields.
    Variant(Arc<Record>),
    /// `ok(v)`
    Ok(Arc<Value>),
    /// `err(e)`, the error being a record.
    Err(Arc<Value>),
    /// A declared agent, by its index in the module.
    Agent(u32),
    /// A secret, by its name; its value is never in a machine. It has no text.
    Secret(Text),
    /// A state that this machine saved, by its number. It means nothing to any other machine.
    Saved(u64),
    /// A function with captured values.
    Closure(Arc<Closure>),
    /// A callable with some arguments in place, or several of them in a row.
    Stage(Arc<Stage>),
    /// An iteration that is under way; never leaves the stack.
    Iterator(Arc<Iterator>),
}

/// A record or an enum variant: a shape and one value a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Names.
    pub shape: Arc<Shape>,
    /// Values, in the shape's order.
    pub values: Vec<Value>,
}

/// The names of a record's fields. Two records with equal names in equal order have equal shapes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// The nominal type or enum it belongs to, empty for a plain record.
    pub type_name: String,
    /// The variant's tag, empty for a record.
    pub tag: String,
    /// The fields, in order.
    pub fields: Vec<String>,
}

/// A key of a dict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Text.
    Str(Text),
    /// Integer.
    Int(i64),
    /// Bool.
    Bool(bool),
}

/// A function with captured values.
#[derive(Debug, Clone, PartialEq)]
pub struct Closure {
    /// The function's index in the module.
    pub function: u32,
    /// What it captured.
    pub captures: Vec<Value>,
}

/// A callable that waits for one more argument, or for nothing but to be called.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// A closure or agent with arguments in place; the open one, if there is one, goes to position `open`.
    Partial {
        /// The closure or agent.
        callee: Value,
        /// The other arguments, in order.
        args: Vec<Value>,
        /// Where the piped value goes; [`Stage::NOTHING_OPEN`] when all arguments are in place.
        open: u16,
    },
    /// Stages one after the other.
    Chain(Vec<Value>),
}

impl Stage {
    /// Stands for the position of the open argument where there is none.
    pub const NOTHING_OPEN: u16 = u16::MAX;

    /// Whether a stage with so many arguments in place can have its open one there.
    pub(crate) fn may_open(open: u16, placed: usize) -> bool {
        open == Self::NOTHING_OPEN || usize::from(open) <= placed
    }
}

/// An iteration: what is iterated over, and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Iterator {
    /// The value as it was at entry.
    pub over: Value,
    /// How many elements were taken.
    pub taken: u64,
}

/// Makes room for `more` elements: for a quarter of what is there if it must grow, so that a list that grows by one
/// element again and again is copied few times and has little room to spare.
pub(crate) fn reserve_a_quarter<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more.max(list.len() / 4).max(4));
    }
}

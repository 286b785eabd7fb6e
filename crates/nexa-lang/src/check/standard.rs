//! The standard library as the checker sees it.
//!
//! The pure functions are the machine's own table, [`nexa_vm::stdlib::FUNCTIONS`]; the effects, which are instructions
//! of their own, are listed here, one line each.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::LazyLock;

use nexa_vm::stdlib::{FUNCTIONS as MACHINE, StdFn, Ty as MachineTy};

use crate::types::{Ty, TypeTable};

/// Name, parameters with defaults, result.
const EFFECTS: &str = "
random(low: int, high: int) -> int
sleep(span: duration) -> unit
print(value: any) -> unit
emit(value: any, channel: str = main) -> unit
fail(message: str, code: str = failed) -> never
approve(question: str, data: any = none, timeout: duration? = none) -> Approval
receive(timeout: duration? = none) -> any
timer(span: duration) -> timer
handle.cancel(handle: any) -> unit
reflect(question: str, on: any) -> str
time.now() -> int
secret(name: str) -> secret
snapshot() -> snapshot
restore(snapshot: snapshot) -> never
memory.store(key: str, value: any, scope: str = agent) -> unit
memory.load(key: str, scope: str = agent) -> any?
memory.recall(query: str, k: int = 5, scope: str = agent) -> list[Hit]
ok(value: T) -> Result[T]
err(error: Error) -> Result[never]
";

/// Modules of the language. The methods' own modules are none.
const MODULES: &[&str] = &["text", "json", "math", "time", "hash", "regex", "memory"];
/// Modules of the language that this release does not have.
const LATER_MODULES: &[&str] = &["std"];

/// A type in a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A type without variables, by name.
    Plain(&'static str),
    /// `T`, `U`, `K`, `V`, `E` stand for any type, `N` for int or float.
    Variable(char),
    List(Box<Shape>),
    Dict(Box<Shape>, Box<Shape>),
    Tuple(Vec<Shape>),
    Option(Box<Shape>),
    Result(Box<Shape>, Box<Shape>),
}

/// The default of a parameter of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    /// The machine's function is called without it.
    LeftOut,
    None,
    Int(i64),
    Text(&'static str),
}

/// A parameter of the table.
#[derive(Clone, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) ty: Shape,
    pub(super) default: Option<Default>,
}

/// A standard function.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// `text.upper`, or `range` for one of the prelude.
    pub(super) name: &'static str,
    pub(super) params: Vec<Param>,
    pub(super) result: Shape,
}

static FUNCTIONS: LazyLock<BTreeMap<&'static str, Function>> = LazyLock::new(|| {
    let effects = EFFECTS.lines().filter(|line| !line.is_empty()).filter_map(read_line);
    MACHINE.iter().map(of_machine).chain(effects).map(|function| (function.name, function)).collect()
});

/// What types the variables of a signature stand for in one call.
#[derive(Default)]
pub(super) struct Bindings(BTreeMap<char, Ty>);

/// A function of the prelude, or `module.name`.
pub(super) fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

/// The names of the prelude.
pub(super) fn prelude() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().copied().filter(|name| !name.contains('.'))
}

/// The functions of a module, without its name.
pub(super) fn functions_of(module: &str) -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().filter_map(move |name| name.strip_prefix(module)?.strip_prefix('.'))
}

/// Whether there is a standard module of this name.
pub(super) fn is_module(name: &str) -> bool {
    MODULES.contains(&name)
}

/// The names of the standard modules.
pub(super) fn modules() -> impl Iterator<Item = &'static str> {
    MODULES.iter().copied()
}

/// Whether the language has this module, and this release has not.
pub(super) fn is_later(name: &str) -> bool {
    LATER_MODULES.contains(&name)
}

/// Whether a function of the list of effects has one: `ok`, `err` and `fail` are there because they are instructions,
/// and `reflect` is refused as the question that it is.
pub(super) fn is_effect(name: &str) -> bool {
    matches!(name, "random" | "sleep" | "print" | "emit" | "approve" | "time.now" | "secret" | "snapshot" | "restore")
        || matches!(name, "receive" | "timer" | "handle.cancel")
        || name.starts_with("memory.")
}

/// The modules whose functions are methods of a type.
fn method_modules(ty: &Ty) -> &'static [&'static str] {
    match ty {
        Ty::Str => &["text"],
        Ty::List(_) => &["list"],
        Ty::Dict(..) => &["dict"],
        Ty::Option(_) => &["option"],
        Ty::Result(..) => &["result"],
        Ty::Handle(_) => &["handle"],
        _ => &[],
    }
}

/// The method of this name that a value of a type has.
pub(super) fn method(ty: &Ty, name: &str) -> Option<&'static Function> {
    method_modules(ty).iter().find_map(|module| function(&format!("{module}.{name}")))
}

/// The names of the methods of a type.
pub(super) fn method_names(ty: &Ty) -> impl Iterator<Item = &'static str> {
    method_modules(ty).iter().flat_map(|module| functions_of(module))
}

impl Bindings {
    /// Learns what variables stand for from an argument's type. What does not agree is found when it is converted.
    pub(super) fn learn(&mut self, shape: &Shape, ty: &Ty, types: &TypeTable) {
        // A variable may be a semantic type; where a list or a number is wanted, its base counts.
        let ty = if matches!(shape, Shape::Variable(variable) if *variable != 'N') { ty } else { types.base(ty) };
        match (shape, ty) {
            (Shape::Variable(variable), ty) => match self.0.get(variable) {
                None | Some(Ty::Never) => {
                    self.0.insert(*variable, ty.clone());
                }
                Some(known) if *variable == 'N' => {
                    let joined = types.join(known, ty);
                    self.0.insert(*variable, joined);
                }
                Some(_) => {}
            },
            (Shape::List(shape), Ty::List(ty)) => self.learn(shape, ty, types),
            (Shape::Result(value, error), Ty::Result(value_ty, error_ty)) => {
                self.learn(value, value_ty, types);
                self.learn(error, error_ty, types);
            }
            (Shape::Option(shape), ty) => self.learn(shape, ty.without_option(), types),
            (Shape::Dict(key, value), Ty::Dict(key_ty, value_ty)) => {
                self.learn(key, key_ty, types);
                self.learn(value, value_ty, types);
            }
            _ => {}
        }
    }

    /// The type that a shape stands for; what is not known is `any`.
    pub(super) fn apply(&self, shape: &Shape) -> Ty {
        match shape {
            Shape::Plain(name) => plain(name),
            Shape::Variable('N') => match self.0.get(&'N') {
                Some(ty) if ty.is_number() || *ty == Ty::Broken => ty.clone(),
                Some(Ty::Any) => Ty::Any,
                _ => Ty::Float,
            },
            Shape::Variable(variable) => self.0.get(variable).cloned().unwrap_or(Ty::Any),
            Shape::List(item) => Ty::list(self.apply(item)),
            Shape::Dict(key, value) => Ty::Dict(Rc::new(self.apply(key)), Rc::new(self.apply(value))),
            Shape::Tuple(items) => Ty::Tuple(items.iter().map(|item| self.apply(item)).collect()),
            Shape::Option(inner) => Ty::option(self.apply(inner)),
            Shape::Result(value, error) => Ty::Result(Rc::new(self.apply(value)), Rc::new(self.apply(error))),
        }
    }

    /// What is wanted of an argument before it is looked at, as far as that is known.
    pub(super) fn hint(&self, shape: &Shape) -> Option<Ty> {
        let is_known = match shape {
            Shape::Plain(name) => *name != "any",
            Shape::Variable(variable) => *variable != 'N' && self.0.contains_key(variable),
            _ => false,
        };
        is_known.then(|| self.apply(shape))
    }
}

fn plain(name: &str) -> Ty {
    match name {
        "str" => Ty::Str,
        "int" => Ty::Int,
        "float" => Ty::Float,
        "bool" => Ty::Bool,
        "unit" => Ty::Unit,
        "never" => Ty::Never,
        "duration" => Ty::Duration,
        "secret" => Ty::Secret,
        "snapshot" => Ty::Snapshot,
        "Hit" => Ty::Named(TypeTable::HIT),
        "Error" => Ty::Named(TypeTable::ERROR),
        "Approval" => Ty::Named(TypeTable::APPROVAL),
        "timer" => Ty::Handle(Rc::new(Ty::Unit)),
        _ => Ty::Any,
    }
}

/// A function of the machine's table.
fn of_machine(function: &'static StdFn) -> Function {
    let required = usize::from(function.arity.0);
    let param = |(place, (name, ty)): (usize, &'static (&'static str, MachineTy))| Param {
        name,
        ty: shape_of(ty),
        default: (place >= required).then_some(Default::LeftOut),
    };
    Function {
        name: function.name,
        params: function.sig.params.iter().enumerate().map(param).collect(),
        result: shape_of(&function.sig.result),
    }
}

fn shape_of(ty: &MachineTy) -> Shape {
    let boxed = |ty: &MachineTy| Box::new(shape_of(ty));
    match ty {
        MachineTy::Any => Shape::Plain("any"),
        MachineTy::Str => Shape::Plain("str"),
        MachineTy::Int => Shape::Plain("int"),
        MachineTy::Float => Shape::Plain("float"),
        MachineTy::Bool => Shape::Plain("bool"),
        MachineTy::Error => Shape::Plain("Error"),
        MachineTy::List(item) => Shape::List(boxed(item)),
        MachineTy::Dict(key, value) => Shape::Dict(boxed(key), boxed(value)),
        MachineTy::Option(inner) => Shape::Option(boxed(inner)),
        MachineTy::Result(value, error) => Shape::Result(boxed(value), boxed(error)),
        MachineTy::Pair(first, second) => Shape::Tuple(vec![shape_of(first), shape_of(second)]),
        MachineTy::N => Shape::Variable('N'),
        MachineTy::T => Shape::Variable('T'),
        MachineTy::U => Shape::Variable('U'),
        MachineTy::K => Shape::Variable('K'),
        MachineTy::V => Shape::Variable('V'),
        MachineTy::E => Shape::Variable('E'),
    }
}

/// Reads one line of the list of effects.
fn read_line(line: &'static str) -> Option<Function> {
    let (name, rest) = line.split_once('(')?;
    let (params, result) = rest.rsplit_once(") -> ")?;
    let params = split(params).into_iter().filter_map(|param| {
        let (name, rest) = param.split_once(": ")?;
        let (ty, default) = rest.split_once(" = ").map_or((rest, None), |(ty, default)| (ty, Some(default)));
        let default = default.map(|text| match text {
            "none" => Default::None,
            text => text.parse().map_or(Default::Text(text), Default::Int),
        });
        Some(Param { name, ty: read_shape(ty), default })
    });
    Some(Function { name, params: params.collect(), result: read_shape(result) })
}

fn read_shape(text: &'static str) -> Shape {
    if let Some(inner) = text.strip_suffix('?') {
        return Shape::Option(Box::new(read_shape(inner)));
    }
    if let Some((head, inner)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        let args: Vec<Shape> = split(inner).into_iter().map(read_shape).collect();
        return match (head, args.as_slice()) {
            ("list", [item]) => Shape::List(Box::new(item.clone())),
            ("Result", [value]) => Shape::Result(Box::new(value.clone()), Box::new(Shape::Plain("Error"))),
            _ => Shape::Plain("any"),
        };
    }
    match text {
        "T" => Shape::Variable('T'),
        _ => Shape::Plain(text),
    }
}

/// Splits at commas outside of brackets.
fn split(text: &'static str) -> Vec<&'static str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (place, letter) in text.char_indices() {
        match letter {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..place].trim());
                start = place + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_the_table_is_known_with_its_types() {
        assert_eq!(FUNCTIONS.len(), MACHINE.len() + EFFECTS.lines().filter(|line| !line.is_empty()).count());
        let zip = function("list.zip").expect("it is in the table");
        let mut bindings = Bindings::default();
        bindings.learn(&zip.params[0].ty, &Ty::list(Ty::Int), &TypeTable::default());
        bindings.learn(&zip.params[1].ty, &Ty::list(Ty::Str), &TypeTable::default());
        assert_eq!(TypeTable::default().show(&bindings.apply(&zip.result)), "list[(int, str)]");
    }
}

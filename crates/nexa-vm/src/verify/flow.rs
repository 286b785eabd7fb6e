//! Code, function by function: an abstract run that knows heights and kinds instead of values.

use super::{UNREACHED, VerifyError};
use crate::module::{self, Function, Module};
use crate::op::{Op, RESERVED, Word};

/// Slots that may be copied or compared in one module. Far beyond what a compiler needs; it bounds a hostile module.
pub(super) const WORK_MAX: u64 = 1 << 28;
/// Slots that may be remembered at once for jumps of one function.
const PENDING_MAX: usize = 32 << 20;

/// What is known of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Any,
    Int,
    Float,
    Bool,
    List,
    /// Known to be none of the above.
    Other,
    /// The machine's own; only `IterNext`, `Pop` and `Swap` may touch it.
    Iterator,
}

impl Kind {
    /// What is known of an argument: the machine looks at it before the function starts.
    pub(super) fn of_param(function: &Function, place: usize) -> Self {
        match function.param_kinds.get(place) {
            None | Some(module::Kind::Any) => Self::Any,
            Some(module::Kind::Int) => Self::Int,
            Some(module::Kind::Float) => Self::Float,
            Some(module::Kind::Bool) => Self::Bool,
        }
    }

    fn join(self, other: Self) -> Self {
        if self == other { self } else { Self::Any }
    }
}

/// What is known before an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) stack: Vec<Kind>,
    pub(super) locals: Vec<Option<Kind>>,
    pub(super) tries: Vec<u32>,
}

impl Point {
    fn size(&self) -> usize {
        self.stack.len() + self.locals.len() + 4 * self.tries.len() + 16
    }
}

/// The most operands that a function has at once. For compilers and [`crate::module::build`], to fill in
/// [`Function::stack`].
///
/// # Errors
/// As [`super::verify`], but for the declared height, for code that is not valid.
pub fn stack_need(module: &Module, function: usize) -> Result<u16, VerifyError> {
    let mut work = WORK_MAX;
    let heights = run(module, function, &mut work, u16::MAX - 1)?.1;
    Ok(heights)
}

pub(super) fn check(module: &Module, index: usize, work: &mut u64) -> Result<Vec<u16>, VerifyError> {
    let declared = module.functions[index].stack;
    run(module, index, work, declared).map(|(heights, _)| heights)
}

fn run(module: &Module, index: usize, work: &mut u64, most: u16) -> Result<(Vec<u16>, u16), VerifyError> {
    let Some(function) = module.functions.get(index) else {
        return Err(VerifyError::new("E1004", format!("there is no function {index}")));
    };
    let (starts, written) = survey(function)?;
    let mut pass = Pass {
        module,
        function,
        most,
        highest: 0,
        at: 0,
        starts,
        heights: vec![UNREACHED; function.code.len()],
        pending: std::collections::BTreeMap::new(),
        pending_size: 0,
        ticks: std::collections::BTreeMap::new(),
        written,
        work,
    };
    match pass.function() {
        Ok(()) => Ok((pass.heights, pass.highest)),
        Err(mut error) => {
            error.function.clone_from(&function.name);
            error.at = Some(pass.at);
            Err(error)
        }
    }
}

/// Where instructions start, and for each local the last instruction that writes it: a loop that starts before may find
/// another kind in it. Every word must belong to an instruction.
fn survey(function: &Function) -> Result<(Vec<bool>, Vec<usize>), VerifyError> {
    let mut starts = vec![false; function.code.len()];
    let mut written = vec![0; usize::from(function.locals)];
    let mut at = 0;
    while at < function.code.len() {
        let Some(word) = Word::read(&function.code, at) else {
            let reserved = RESERVED.iter().find(|(number, _)| *number == function.code[at] as u8);
            let what = match reserved {
                Some((_, name)) => format!("`{name}`, which this release does not have"),
                None => "an unknown operation, or a `Wide` that widens nothing".to_owned(),
            };
            return Err(VerifyError { code: "E1004", what, function: function.name.clone(), at: Some(at) });
        };
        starts[at] = true;
        let slot = match word.op {
            Op::StoreLocal => word.a as usize,
            Op::IncLocal => usize::from(word.count),
            _ => usize::MAX,
        };
        if let Some(last) = written.get_mut(slot) {
            *last = at;
        }
        at += word.len;
    }
    Ok((starts, written))
}

pub(super) fn stack_error(what: impl Into<String>) -> VerifyError {
    VerifyError::new("E1003", what)
}

pub(super) fn range_error(what: impl Into<String>) -> VerifyError {
    VerifyError::new("E1004", what)
}

pub(super) struct Pass<'m, 'w> {
    pub(super) module: &'m Module,
    pub(super) function: &'m Function,
    pub(super) most: u16,
    pub(super) highest: u16,
    pub(super) at: usize,
    pub(super) starts: Vec<bool>,
    heights: Vec<u16>,
    /// What forward jumps bring to instructions that the pass has not reached.
    pending: std::collections::BTreeMap<usize, Point>,
    pending_size: usize,
    /// What was known at each `LoopTick`.
    ticks: std::collections::BTreeMap<usize, Point>,
    pub(super) written: Vec<usize>,
    work: &'w mut u64,
}

impl Pass<'_, '_> {
    fn function(&mut self) -> Result<(), VerifyError> {
        let arity = usize::from(self.function.arity);
        let locals = usize::from(self.function.locals);
        let mut point = Some(Point {
            stack: Vec::new(),
            locals: (0..locals).map(|slot| (slot < arity).then(|| Kind::of_param(self.function, slot))).collect(),
            tries: Vec::new(),
        });
        if self.function.code.is_empty() {
            return Err(VerifyError::new("E1002", "no instruction"));
        }
        while self.at < self.function.code.len() {
            let at = self.at;
            let Some(word) = Word::read(&self.function.code, at) else {
                return Err(range_error("an unknown operation"));
            };
            if let Some(jumped) = self.pending.remove(&at) {
                self.pending_size -= jumped.size();
                point = Some(match point {
                    None => jumped,
                    Some(fallen) => self.join(fallen, jumped)?,
                });
            }
            self.operands(&word)?;
            if let Some(known) = point.as_mut() {
                if word.op == Op::LoopTick {
                    self.tick(known)?;
                }
                let height = known.stack.len() as u16;
                for place in &mut self.heights[at..at + word.len] {
                    *place = height;
                }
            }
            point = match point {
                Some(point) => self.step(&word, point)?,
                None => None,
            };
            self.at += word.len;
        }
        if point.is_some() {
            self.at = self.at.saturating_sub(1);
            return Err(VerifyError::new("E1002", "a path runs past the last instruction"));
        }
        Ok(())
    }

    /// How many operands there are when a try that was reached has been entered.
    pub(super) fn height_in(&self, at: u32) -> usize {
        let before = self.heights.get(at as usize).map_or(0, |height| usize::from(*height));
        // A timed one has taken how long it may be.
        let is_timed = Word::read(&self.function.code, at as usize).is_some_and(|word| word.op == Op::EnterTimed);
        before.saturating_sub(usize::from(is_timed))
    }

    fn spend(&mut self, slots: usize) -> Result<(), VerifyError> {
        match self.work.checked_sub(slots as u64) {
            Some(left) => {
                *self.work = left;
                Ok(())
            }
            None => Err(VerifyError::new("E1006", "the module's jumps are too many to be checked")),
        }
    }

    fn join(&mut self, mut one: Point, other: Point) -> Result<Point, VerifyError> {
        self.spend(one.size())?;
        if one.stack.len() != other.stack.len() {
            let (a, b) = (one.stack.len(), other.stack.len());
            return Err(stack_error(format!("two paths meet with {a} and {b} operands")));
        }
        if one.tries != other.tries {
            return Err(stack_error("two paths meet inside different tries"));
        }
        let is_iterator = |kind: &Kind| *kind == Kind::Iterator;
        if one.stack.iter().map(is_iterator).ne(other.stack.iter().map(is_iterator)) {
            return Err(stack_error("two paths meet with an iterator and another value"));
        }
        for (known, more) in one.stack.iter_mut().zip(&other.stack) {
            *known = known.join(*more);
        }
        for (known, more) in one.locals.iter_mut().zip(&other.locals) {
            *known = known.zip(*more).map(|(known, more)| known.join(more));
        }
        Ok(one)
    }

    /// At a `LoopTick` nothing is known of what the loop may change; what comes back must fit what is kept here.
    fn tick(&mut self, point: &mut Point) -> Result<(), VerifyError> {
        self.spend(point.size())?;
        for kind in &mut point.stack {
            if *kind != Kind::Iterator {
                *kind = Kind::Any;
            }
        }
        for (local, last) in point.locals.iter_mut().zip(&self.written) {
            if *last > self.at && local.is_some() {
                *local = Some(Kind::Any);
            }
        }
        self.pending_size += point.size();
        if self.pending_size > PENDING_MAX {
            return Err(VerifyError::new("E1006", "the function has too many loops to be checked"));
        }
        self.ticks.insert(self.at, point.clone());
        Ok(())
    }

    pub(super) fn jump(&mut self, target: u64, point: Point) -> Result<(), VerifyError> {
        let target = usize::try_from(target).unwrap_or(usize::MAX);
        if !self.starts.get(target).copied().unwrap_or(false) {
            return Err(VerifyError::new("E1002", format!("a jump to {target}, where no instruction starts")));
        }
        self.spend(point.size())?;
        if target <= self.at {
            let is_tick = Word::read(&self.function.code, target).is_some_and(|word| word.op == Op::LoopTick);
            if !is_tick {
                return Err(VerifyError::new("E1005", format!("a backward jump to {target}, which is no LoopTick")));
            }
            let Some(tick) = self.ticks.get(&target) else {
                return Err(stack_error(format!("a backward jump to {target}, which no path has reached before")));
            };
            if tick.stack.len() != point.stack.len() || tick.tries != point.tries {
                return Err(stack_error(format!("a loop comes back to {target} with another stack")));
            }
            let is_iterator = |kind: &Kind| *kind == Kind::Iterator;
            let iterators_differ = tick.stack.iter().map(is_iterator).ne(point.stack.iter().map(is_iterator));
            let is_unset = tick.locals.iter().zip(&point.locals).any(|(then, now)| then.is_some() && now.is_none());
            if iterators_differ || is_unset {
                return Err(stack_error(format!("a loop comes back to {target} with another stack")));
            }
            return Ok(());
        }
        let joined = match self.pending.remove(&target) {
            None => point,
            Some(known) => {
                self.pending_size -= known.size();
                self.join(known, point)?
            }
        };
        self.pending_size += joined.size();
        if self.pending_size > PENDING_MAX {
            return Err(VerifyError::new("E1006", "the function has too many jumps to be checked"));
        }
        self.pending.insert(target, joined);
        Ok(())
    }
}

//! Variables: which name means which local of which function, and what a closure captures.

use std::rc::Rc;

use nexa_types::limits::LOCALS_MAX;

use super::Checker;
use crate::ast::Name;
use crate::diagnostic::Code;
use crate::hir::{Expr, ExprKind};
use crate::source::{FileId, Span};
use crate::types::Ty;

/// What a closure can capture: its captures are counted in a byte.
const CAPTURES_MAX: usize = 255;

/// What kind of function a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// A flow, or the texts of an agent.
    Flow,
    /// A `fn`, which has no effects.
    Fn,
    /// A lambda.
    Lambda,
    /// A branch of a fork.
    Branch,
}

/// A function that is being checked.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) name: String,
    pub(super) kind: FrameKind,
    /// The written result type and where it is written.
    pub(super) result: Option<(Ty, Span)>,
    /// What the `return`s so far give, if no type is written, and where the first stands.
    pub(super) returned: Option<(Ty, Span)>,
    /// How many loops the current statement stands in.
    pub(super) loops: u32,
    /// The local of the error that the current statement handles: the cause of what fails there.
    pub(super) caught: Option<u16>,
    /// How many `defer`s the current statement is deferred by.
    pub(super) deferring: u32,
    /// How many functions were made inside, for their names.
    pub(super) inner: u32,
    pub(super) locals: u16,
    /// Locals that are free again and may be used within one statement.
    pub(super) scratch: Vec<u16>,
    variables: Vec<Variable>,
    captures: Vec<Capture>,
    /// Whether it was said that there are too many locals.
    crowded: bool,
}

#[derive(Clone, Debug)]
struct Variable {
    name: Rc<str>,
    slot: u16,
    ty: Ty,
    file: FileId,
    span: Span,
    used: bool,
    /// Whether W0212 is wanted: parameters belong to the signature and may stay unused.
    is_bound_here: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Local(u16),
    Capture(u8),
}

/// What a frame captures from the one around it.
#[derive(Clone, Debug)]
struct Capture {
    outer: Place,
    ty: Ty,
}

/// A variable as an assignment sees it.
pub(super) struct Assignable {
    pub(super) slot: u16,
    pub(super) ty: Ty,
    pub(super) span: Span,
    /// Whether it belongs to the running function.
    pub(super) is_own: bool,
    /// The kind of the running function.
    pub(super) kind: FrameKind,
}

impl Frame {
    pub(super) fn new(name: String, kind: FrameKind, result: Option<(Ty, Span)>) -> Self {
        Frame {
            name,
            kind,
            result,
            returned: None,
            loops: 0,
            caught: None,
            deferring: 0,
            inner: 0,
            locals: 0,
            scratch: Vec::new(),
            variables: Vec::new(),
            captures: Vec::new(),
            crowded: false,
        }
    }

    /// The types of what it captures.
    pub(super) fn capture_types(&self) -> Vec<Ty> {
        self.captures.iter().map(|capture| capture.ty.clone()).collect()
    }

    /// What to push before the closure is made, read in the frame around it.
    pub(super) fn captured(&self, at: crate::hir::At) -> Vec<Expr> {
        let read = |capture: &Capture| Expr::new(capture.outer.read(), capture.ty.clone(), at);
        self.captures.iter().map(read).collect()
    }
}

impl Place {
    fn read(self) -> ExprKind {
        match self {
            Place::Local(slot) => ExprKind::Local(slot),
            Place::Capture(number) => ExprKind::Capture(number),
        }
    }
}

impl Checker<'_> {
    /// The function being checked.
    pub(super) fn frame(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            // Only constants are checked outside of functions.
            self.frames.push(Frame::new(String::new(), FrameKind::Flow, None));
        }
        self.frames.last_mut().expect("a frame was pushed if there was none")
    }

    /// A local without a name.
    pub(super) fn temporary(&mut self, span: Span) -> u16 {
        let frame = self.frame();
        if usize::from(frame.locals) < LOCALS_MAX {
            frame.locals += 1;
            return frame.locals - 1;
        }
        if !std::mem::replace(&mut frame.crowded, true) {
            let message = format!("a function has more than {LOCALS_MAX} variables and intermediate values");
            let crowded = self.finding(Code::E1006, span, message).help("move a part of it into a flow of its own");
            self.report(crowded);
        }
        0
    }

    /// Declares a variable in the current block.
    pub(super) fn bind(&mut self, name: &Name, ty: Ty) -> u16 {
        let slot = self.temporary(name.span());
        self.bind_to(name, ty, slot, true);
        slot
    }

    /// Gives a local that is already set a name that the program does not write, such as `it`.
    pub(super) fn bind_word(&mut self, name: &str, span: Span, ty: Ty, slot: u16) {
        let file = self.file;
        let variable = Variable { name: name.into(), slot, ty, file, span, used: true, is_bound_here: false };
        self.frame().variables.push(variable);
    }

    /// Gives a parameter's slot its name.
    pub(super) fn bind_param(&mut self, name: &Rc<str>, span: Span, ty: Ty) {
        let slot = self.temporary(span);
        let file = self.file;
        let variable = Variable { name: Rc::clone(name), slot, ty, file, span, used: true, is_bound_here: false };
        self.frame().variables.push(variable);
    }

    fn bind_to(&mut self, name: &Name, ty: Ty, slot: u16, is_bound_here: bool) {
        let (file, span) = (self.file, name.span());
        let variable = Variable { name: name.text().into(), slot, ty, file, span, used: false, is_bound_here };
        self.frame().variables.push(variable);
    }

    /// Remembers the variables at the start of a block.
    pub(super) fn open_block(&mut self) -> usize {
        self.frame().variables.len()
    }

    /// Whether a name was bound since a block was opened.
    pub(super) fn is_bound_since(&mut self, opened: usize, name: &str) -> bool {
        self.frame().variables.iter().skip(opened).any(|variable| &*variable.name == name)
    }

    /// E0207 for a name that one pattern, or the patterns of one head, bind twice; `opened` was before the first.
    pub(super) fn report_bound_twice(&mut self, opened: usize) {
        let bound = self.frame().variables.get(opened..).unwrap_or_default().to_vec();
        for (place, second) in bound.iter().enumerate().filter(|(_, variable)| &*variable.name != "_") {
            if let Some(first) = bound[..place].iter().find(|first| first.name == second.name) {
                let twice = self
                    .finding(Code::E0207, second.span, format!("`{}` is bound twice here", second.name))
                    .label(first.span, "it is bound here first")
                    .help("give one of them another name, or write `_` for what is not needed");
                self.report(twice);
            }
        }
    }

    /// Forgets the variables of a block and says which were never used.
    pub(super) fn close_block(&mut self, opened: usize) {
        let forgotten = self.frame().variables.split_off(opened);
        for variable in forgotten {
            if variable.used || !variable.is_bound_here || variable.name.starts_with('_') || variable.ty == Ty::Broken {
                continue;
            }
            let unused = self.finding(Code::W0212, variable.span, format!("`{}` is not used", variable.name));
            let near = self.near_cases.get(&(variable.file, variable.span));
            let unused = match near {
                Some(case) => unused
                    .note("a name that is no case of the enum takes every value")
                    .help(format!("did you mean `{case}`?")),
                None => unused.help(format!("remove it, or call it `_{}`", variable.name)),
            };
            self.report(unused);
        }
    }

    /// The names that can be seen.
    pub(super) fn visible(&self) -> Vec<String> {
        self.frames.iter().flat_map(|frame| &frame.variables).map(|variable| variable.name.to_string()).collect()
    }

    /// Whether a name is a variable.
    pub(super) fn is_variable(&self, name: &str) -> bool {
        self.frames.iter().flat_map(|frame| &frame.variables).any(|variable| &*variable.name == name)
    }

    /// Reads a variable; closures on the way capture it.
    pub(super) fn variable(&mut self, name: &str, span: Span) -> Option<Expr> {
        let at = self.at_span(span);
        let own = |frame: &Frame| frame.variables.iter().rposition(|variable| &*variable.name == name);
        let (home, index) = (0..self.frames.len()).rev().find_map(|place| Some((place, own(&self.frames[place])?)))?;
        self.frames[home].variables[index].used = true;
        let Variable { slot, ty, .. } = self.frames[home].variables[index].clone();
        let mut place = Place::Local(slot);
        for frame in &mut self.frames[home + 1..] {
            let known = frame.captures.iter().position(|capture| capture.outer == place);
            let number = known.unwrap_or_else(|| {
                frame.captures.push(Capture { outer: place, ty: ty.clone() });
                frame.captures.len() - 1
            });
            if number >= CAPTURES_MAX {
                let message = format!("a function captures more than {CAPTURES_MAX} variables");
                let crowded = self.finding(Code::E1006, span, message).help("put them into one record first");
                return Some(self.refuse(crowded));
            }
            place = Place::Capture(number as u8);
        }
        Some(Expr::new(place.read(), ty, at))
    }

    /// A variable to assign to.
    pub(super) fn assignable(&mut self, name: &str) -> Option<Assignable> {
        let kind = self.frame().kind;
        let top = self.frames.len() - 1;
        for (place, frame) in self.frames.iter_mut().enumerate().rev() {
            if let Some(variable) = frame.variables.iter_mut().rev().find(|variable| &*variable.name == name) {
                let is_own = place == top;
                variable.used |= !is_own;
                let (slot, ty, span) = (variable.slot, variable.ty.clone(), variable.span);
                return Some(Assignable { slot, ty, span, is_own, kind });
            }
        }
        None
    }
}

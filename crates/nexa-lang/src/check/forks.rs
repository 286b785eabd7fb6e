//! Forks and merges: branches as children of the call, and one stage that gets all their results.

use std::rc::Rc;

use super::Checker;
use super::calls::Piped;
use super::literals::block_of;
use super::modules::Item;
use super::scope::{Frame, FrameKind};
use crate::ast::{self, AstNode, ForkBranch, ForkList, MergeClause, Name};
use crate::diagnostic::Code;
use crate::hir::{At, Expr, ExprKind, Fork, Forked, Stmt, StmtKind};
use crate::source::Span;
use crate::types::{Field, Fit, Ty};

/// What one fork may have; below two there is nothing to fork.
const BRANCHES_MIN: usize = 2;
const BRANCHES_MAX: usize = nexa_types::limits::BRANCHES_MAX;
/// How deep the arguments of a call nest that is made ready before its child starts.
const PLAIN_LEVELS: u32 = 16;
/// Stands for the piped value while a branch is looked at; no function has so many variables.
const PIPED: u16 = u16::MAX;

/// A branch as written.
pub(super) struct Branch {
    name: Option<Name>,
    pub(super) value: ast::Expr,
}

impl Checker<'_> {
    /// `fork [e1, e2]`, and `merge …` after it.
    pub(super) fn fork(&mut self, node: &ast::ForkExpr) -> Expr {
        let Some(list) = node.branches() else { return self.broken(node.span()) };
        let merge = node.merge();
        let merge = merge.as_ref();
        let branches = branches_of(list.branches());
        let at = self.at(node);
        if !self.check_branches(&branches, list.span()) {
            return self.broken(node.span());
        }
        self.fork_made(&branches, None, merge, at)
    }

    /// `x |>> [A, B]`, and `merge …` after it.
    pub(super) fn fork_with_input(&mut self, list: &ForkList, piped: Piped, merge: Option<&MergeClause>) -> Expr {
        let branches = branches_of(list.branches());
        let at = self.at(list);
        if !self.check_branches(&branches, list.span()) {
            return self.broken(list.span());
        }
        self.fork_made(&branches, Some(piped), merge, at)
    }

    /// `x >> ([A, B] &>> M)`: the list of stages at the head of a chain.
    pub(super) fn fork_list_with_input(&mut self, list: &ast::ListExpr, piped: Piped) -> Expr {
        let branches: Vec<Branch> = list.items().map(|value| Branch { name: None, value }).collect();
        let at = self.at(list);
        if !self.check_branches(&branches, list.span()) {
            return self.broken(list.span());
        }
        self.fork_made(&branches, Some(piped), None, at)
    }

    /// E0505 and E0511.
    pub(super) fn check_branches(&mut self, branches: &[Branch], span: Span) -> bool {
        if !(BRANCHES_MIN..=BRANCHES_MAX).contains(&branches.len()) {
            let message =
                format!("a fork has from {BRANCHES_MIN} to {BRANCHES_MAX} branches, and this has {}", branches.len());
            let mut wrong = self.finding(Code::E0505, span, message);
            if branches.len() == 1 {
                wrong = wrong.help("call the stage itself: `x >> A`");
            }
            self.report(wrong);
            for branch in branches {
                // Looked at for the names in it only; a stage without its input would be an error of its own.
                if let ast::Expr::NameRef(_) = &branch.value {
                    self.static_item(&branch.value);
                }
            }
            return false;
        }
        let named: Vec<&Name> = branches.iter().filter_map(|branch| branch.name.as_ref()).collect();
        if !named.is_empty() && named.len() != branches.len() {
            let unnamed =
                branches.iter().find(|branch| branch.name.is_none()).map_or(span, |branch| branch.value.span());
            let mixed = self
                .finding(Code::E0511, unnamed, "this branch has no name, and others have one")
                .label(named[0].span(), "this one has a name")
                .help("name all branches, or none");
            self.report(mixed);
            return false;
        }
        for (place, name) in named.iter().enumerate() {
            if let Some(first) = named[..place].iter().find(|first| first.text() == name.text()) {
                let twice = self
                    .finding(Code::E0511, name.span(), format!("two branches are called `{}`", name.text()))
                    .label(first.span(), "the first one is here");
                self.report(twice);
                return false;
            }
        }
        true
    }

    fn fork_made(&mut self, branches: &[Branch], piped: Option<Piped>, merge: Option<&MergeClause>, at: At) -> Expr {
        if piped.as_ref().is_some_and(|piped| piped.value.ty.is_silent()) {
            return Expr::new(ExprKind::Const(crate::hir::Const::Unit), Ty::Broken, at);
        }
        if let Some(clause) = merge.filter(|clause| clause.strategy().is_some_and(|name| name.text() == "consensus")) {
            return self.consensus(clause, branches, piped, at);
        }
        let values = self.branch_values(branches, piped.as_ref());
        let (made, types): (Vec<Expr>, Vec<Ty>) = values.into_iter().unzip();
        let fork = Fork { input: piped.map(|piped| piped.value), branches: made, ..Fork::default() };
        let Some(merge) = merge else { return forked(branches, fork, &types, at) };
        // What is merged has no use for names.
        let spans = branches.iter().map(|branch| branch.value.span());
        let given: Vec<(Span, Ty)> = spans.zip(types).collect();
        self.merge_fork(merge, fork, &given, at)
    }

    /// Each branch as a callable, with the type of what it gives. Forks nest in forks: little else is on the stack.
    pub(super) fn branch_values(&mut self, branches: &[Branch], piped: Option<&Piped>) -> Vec<(Expr, Ty)> {
        let mut values = Vec::with_capacity(branches.len());
        for branch in branches {
            values.push(match piped {
                Some(piped) => self.stage_branch(branch, piped),
                None => self.own_branch(branch),
            });
        }
        values
    }

    /// A branch that gets the input: a stage, as a value that takes one argument.
    fn stage_branch(&mut self, branch: &Branch, piped: &Piped) -> (Expr, Ty) {
        let at = self.at(&branch.value);
        if let Some(made) = self.plain_branch(branch, piped, at) {
            return made;
        }
        if let Some(made) = self.ready_branch(branch, Some(piped), at) {
            return made;
        }
        let frame = self.branch_frame(branch);
        self.frames.push(frame);
        let slot = self.temporary(branch.value.span());
        let input = piped.value.ty.clone();
        let value = self.stage(&branch.value, Piped { value: Expr::local(slot, input.clone(), at), span: piped.span });
        let ty = value.ty.clone();
        let body = vec![Stmt { kind: StmtKind::Return(value), at }];
        let function = Ty::Function([input.clone()].into(), Rc::new(ty.clone()));
        (self.close_function(vec![input], body, function, at), ty)
    }

    /// An agent or flow by its name: it is the child itself.
    fn plain_branch(&mut self, branch: &Branch, piped: &Piped, at: At) -> Option<(Expr, Ty)> {
        let (item, name) = self.static_item(&branch.value)?;
        self.note_use(item, name.span());
        let signature = match item {
            Item::Agent(number) => Rc::clone(&self.agents[number].signature),
            Item::Flow(number) => Rc::clone(&self.flows[number].signature),
            _ => return None,
        };
        let (first, rest) = signature.params.split_first()?;
        if self.types.fit(&piped.value.ty, &first.ty) != Fit::Same {
            return None;
        }
        let mut defaults: Vec<Expr> = rest.iter().map(|param| param.default.clone()).collect::<Option<_>>()?;
        let (callee, ty) = match item {
            Item::Agent(number) => {
                let number = match self.reason(name.span()) {
                    Some(reason) => {
                        defaults.push(reason);
                        self.told(number)
                    }
                    None => number,
                };
                let ty = signature.result.as_ref().map_or(Ty::Str, |(ty, _)| ty.clone());
                (Expr::new(ExprKind::Agent(number as u32), self.agent_stage(number), at), ty)
            }
            Item::Flow(number) => {
                let ty = self.flow_result(number, name.span());
                (self.item_value(item, &name), ty)
            }
            _ => return None,
        };
        if defaults.is_empty() {
            return Some((callee, ty));
        }
        let stage = Ty::Stage(Rc::new(first.ty.clone()), Rc::new(ty.clone()));
        Some((Expr::new(ExprKind::Partial(Box::new(callee), defaults, Some(0)), stage, at), ty))
    }

    /// A branch of its own: an expression that is evaluated in a child.
    fn own_branch(&mut self, branch: &Branch) -> (Expr, Ty) {
        let at = self.at(&branch.value);
        if let Some(made) = self.ready_branch(branch, None, at) {
            return made;
        }
        let frame = self.branch_frame(branch);
        self.frames.push(frame);
        let value = self.expr(&branch.value, None);
        let ty = value.ty.clone();
        let body = vec![Stmt { kind: StmtKind::Return(value), at }];
        let function = Ty::Function([].into(), Rc::new(ty.clone()));
        (self.close_function(Vec::new(), body, function, at), ty)
    }

    /// A call of an agent or a flow whose arguments, but for the piped one, are there already: the callee is the child
    /// itself, and not a child of a branch. What could fail or has an effect stays inside its branch.
    fn ready_branch(&mut self, branch: &Branch, piped: Option<&Piped>, at: At) -> Option<(Expr, Ty)> {
        let ast::Expr::CallExpr(call) = &branch.value else { return None };
        let callee = match call.callee()? {
            ast::Expr::FieldExpr(field) if field.field().is_some_and(|name| name.text() == "run") => {
                field.receiver()?
            }
            other => other,
        };
        let is_known = matches!(self.static_item(&callee), Some((Item::Agent(_) | Item::Flow(_), _)));
        let is_plain = |arg: &ast::Arg| match arg.value() {
            Some(ast::Expr::PlaceholderExpr(_)) => piped.is_some(),
            value => value.is_some_and(|value| names_values(&value, PLAIN_LEVELS)),
        };
        if !is_known || !call.args().iter().all(is_plain) {
            return None;
        }
        let locals = self.frame().locals;
        let made = match piped {
            Some(piped) => {
                let value = Expr::local(PIPED, piped.value.ty.clone(), at);
                self.stage(&branch.value, Piped { value, span: piped.span })
            }
            None => self.expr(&branch.value, None),
        };
        // What is kept below has no variables of its own.
        self.frame().locals = locals;
        let ty = made.ty.clone();
        let (callee, mut args) = match made.kind {
            _ if ty == Ty::Broken => return Some((made, ty)),
            ExprKind::Run(agent, args) => (Expr::new(ExprKind::Agent(agent), Ty::Any, at), args),
            ExprKind::Call(flow, args) => (Expr::new(ExprKind::Closure(flow, Vec::new()), Ty::Any, at), args),
            _ => return None,
        };
        let open = args.iter().position(|arg| matches!(arg.kind, ExprKind::Local(PIPED)));
        let input = open.map(|open| args.remove(open).ty);
        if input.is_some() != piped.is_some() || !args.iter().all(|arg| self.cannot_fail(arg)) {
            return None;
        }
        let function = Ty::Function(input.into_iter().collect(), Rc::new(ty.clone()));
        let open = open.map(|open| open as u16);
        Some((Expr::new(ExprKind::Partial(Box::new(callee), args, open), function, at), ty))
    }

    /// Whether evaluating it cannot raise and has no effect, but for the room it takes.
    fn cannot_fail(&self, value: &Expr) -> bool {
        match &value.kind {
            ExprKind::Local(slot) => *slot != PIPED,
            ExprKind::Field(record, _) => self.types.fields(&record.ty).is_some() && self.cannot_fail(record),
            ExprKind::Concat(parts) | ExprKind::List(parts) => parts.iter().all(|part| self.cannot_fail(part)),
            ExprKind::Widen(inner) => self.cannot_fail(inner),
            _ => value.is_inert(),
        }
    }

    fn branch_frame(&mut self, branch: &Branch) -> Frame {
        let label = branch_label(branch).unwrap_or_else(|| "branch".to_owned());
        self.inner_frame(&label, FrameKind::Branch)
    }

    /// `r &>> M`.
    pub(super) fn merge_into(&mut self, left: &ast::Expr, piped: Piped, stage: &ast::Expr, at_op: Span) -> Expr {
        let at = self.at_span(at_op);
        let mut statements = Vec::new();
        if piped.value.ty.is_silent() {
            return self.broken(at_op);
        }
        let (list, item) = match self.as_list(piped.value.clone(), &mut statements, at) {
            Some(list) => list,
            None => {
                let message = format!("`{}` is neither a fork nor a list", self.show(&piped.value.ty));
                let wrong = self.finding(Code::E0508, left.span(), message);
                return self.refuse(wrong.help("fork first: `x |>> [A, B] &>> M`"));
            }
        };
        let wanted = self.merged_input(stage);
        let takes_results = matches!(&wanted, Some(Ty::List(inner)) if matches!(**inner, Ty::Result(..)));
        let takes_list = matches!(&wanted, Some(Ty::List(_)));
        let merged = match &item {
            _ if takes_results => list,
            Ty::Result(value, _) if takes_list => {
                Expr::new(ExprKind::MergeAll(Box::new(list)), Ty::list((**value).clone()), at)
            }
            Ty::Result(..) => self.sections(left, list, at),
            _ if wanted == Some(Ty::Str) => self.sections(left, list, at),
            // A list of values that cannot have failed goes as it is.
            _ => list,
        };
        let value = self.stage(stage, Piped { value: merged, span: piped.span });
        block_of(statements, value)
    }

    /// A text with a headed section for each branch.
    fn sections(&self, left: &ast::Expr, list: Expr, at: At) -> Expr {
        let names = self.section_names(left).into_iter().map(|name| Expr::text(&name, at)).collect();
        let names = Expr::new(ExprKind::List(names), Ty::list(Ty::Str), at);
        Expr::new(ExprKind::MergeSections(Box::new(names), Box::new(list)), Ty::Str, at)
    }

    /// The results of a fork as a list; those of a named one are taken out of their record.
    pub(super) fn as_list(&mut self, value: Expr, statements: &mut Vec<Stmt>, at: At) -> Option<(Expr, Ty)> {
        if let Ty::List(item) = value.ty.clone() {
            return Some((value, (*item).clone()));
        }
        let Ty::Record(fields) = value.ty.clone() else { return None };
        if fields.is_empty() || fields.iter().any(|field| !matches!(field.ty, Ty::Result(..))) {
            return None;
        }
        let record = self.set_aside(value, statements, at);
        let item = fields.iter().fold(Ty::Never, |joined, field| match self.types.join(&joined, &field.ty) {
            Ty::Union(_) => Ty::result(Ty::Any),
            joined => joined,
        });
        let part = |field: &Field| {
            Expr::new(ExprKind::Field(Box::new(record.clone()), Rc::clone(&field.name)), field.ty.clone(), at)
        };
        let parts = fields.iter().map(part).collect();
        Some((Expr::new(ExprKind::List(parts), Ty::list(item.clone()), at), item))
    }

    /// What the parameter that gets the piped value takes, if that can be seen.
    pub(super) fn merged_input(&mut self, stage: &ast::Expr) -> Option<Ty> {
        let (callee, place) = match stage {
            ast::Expr::CallExpr(call) => {
                let args = call.args();
                let is_placeholder = |arg: &ast::Arg| matches!(arg.value(), Some(ast::Expr::PlaceholderExpr(_)));
                let place = args.iter().position(is_placeholder);
                if let Some(name) = place.and_then(|place| args[place].name()) {
                    let signature = self.signature_of(&call.callee()?)?;
                    return signature
                        .params
                        .iter()
                        .find(|param| *param.name == name.text())
                        .map(|param| param.ty.clone());
                }
                (call.callee()?, place.unwrap_or(0))
            }
            ast::Expr::ParenExpr(paren) => return self.merged_input(&paren.inner()?),
            ast::Expr::LambdaExpr(lambda) => {
                let written = lambda.params()?.params().next()?.ty()?;
                return Some(self.ty(&written));
            }
            other => (other.clone(), 0),
        };
        if let Some(signature) = self.signature_of(&callee) {
            return signature.params.get(place).map(|param| param.ty.clone());
        }
        let ast::Expr::NameRef(name) = &callee else { return None };
        let name = name.name()?;
        match self.variable(&name.text(), name.span())?.ty {
            Ty::Function(params, _) => params.get(place).cloned(),
            Ty::Stage(input, _) => Some((*input).clone()),
            _ => None,
        }
    }

    fn signature_of(&mut self, callee: &ast::Expr) -> Option<Rc<super::declarations::Signature>> {
        let callee = match callee {
            ast::Expr::FieldExpr(field) if field.field().is_some_and(|name| name.text() == "run") => {
                field.receiver()?
            }
            other => other.clone(),
        };
        match self.static_item(&callee)?.0 {
            Item::Agent(number) => Some(Rc::clone(&self.agents[number].signature)),
            Item::Tool(number) => Some(Rc::clone(&self.tools[number].signature)),
            Item::Flow(number) => Some(Rc::clone(&self.flows[number].signature)),
            _ => None,
        }
    }

    /// The headings of the sections, if the branches are written right there: their names, or their callees'.
    pub(super) fn section_names(&self, left: &ast::Expr) -> Vec<String> {
        let branches: Vec<Branch> = match left {
            ast::Expr::PipeExpr(pipe) => match pipe.target() {
                Some(ast::PipeTarget::Branches(list)) if pipe.op().is_some_and(|(op, _)| op == ast::PipeOp::Fork) => {
                    branches_of(list.branches())
                }
                _ => Vec::new(),
            },
            ast::Expr::ForkExpr(fork) => fork.branches().map(|list| branches_of(list.branches())).unwrap_or_default(),
            ast::Expr::ListExpr(list) => list.items().map(|value| Branch { name: None, value }).collect(),
            ast::Expr::ParenExpr(paren) => match paren.inner() {
                Some(inner) => return self.section_names(&inner),
                None => Vec::new(),
            },
            _ => Vec::new(),
        };
        names_of(&branches)
    }

    /// The branches of a fork without `merge` that is written out, and the expression of its input.
    pub(super) fn written_fork(&self, node: &ast::Expr) -> Option<(Vec<Branch>, Option<ast::Expr>, Span)> {
        match node {
            ast::Expr::ParenExpr(paren) => self.written_fork(&paren.inner()?),
            ast::Expr::ForkExpr(fork) if fork.merge().is_none() => {
                let list = fork.branches()?;
                Some((branches_of(list.branches()), None, list.span()))
            }
            ast::Expr::PipeExpr(pipe) if pipe.merge().is_none() => match (pipe.op()?.0, pipe.target()?) {
                (ast::PipeOp::Fork, ast::PipeTarget::Branches(list)) => {
                    Some((branches_of(list.branches()), Some(pipe.left()?), list.span()))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The branches that a list of stages at the head of a chain means.
    pub(super) fn listed_fork(&self, list: &ast::ListExpr) -> Vec<Branch> {
        list.items().map(|value| Branch { name: None, value }).collect()
    }
}

/// What branches are called, each by a name of its own.
pub(super) fn names_of(branches: &[Branch]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (place, branch) in branches.iter().enumerate() {
        let label = branch_label(branch).unwrap_or_else(|| (place + 1).to_string());
        let repeats = (2..).map(|nth| format!("{label}_{nth}"));
        let free = std::iter::once(label.clone()).chain(repeats).find(|name| !names.contains(name));
        names.extend(free);
    }
    names
}

pub(super) fn branches_of(nodes: impl Iterator<Item = ForkBranch>) -> Vec<Branch> {
    nodes.filter_map(|branch| Some(Branch { name: branch.name(), value: branch.value()? })).collect()
}

/// Whether an expression only names values and writes some down, without much nesting.
fn names_values(node: &ast::Expr, levels: u32) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return false };
    match node {
        ast::Expr::NameRef(_) | ast::Expr::LiteralExpr(_) => true,
        ast::Expr::StringExpr(text) => text.parts().iter().all(|part| match part {
            ast::StringPart::Text(_) => true,
            ast::StringPart::Interpolation(inner) => inner.expr().is_some_and(|inner| names_values(&inner, levels)),
        }),
        ast::Expr::FieldExpr(field) => field.receiver().is_some_and(|receiver| names_values(&receiver, levels)),
        ast::Expr::ListExpr(list) => list.items().all(|item| names_values(&item, levels)),
        _ => false,
    }
}

/// A fork whose results stay as they are: a record of them if the branches have names, and otherwise a list.
fn forked(branches: &[Branch], fork: Fork, types: &[Ty], at: At) -> Expr {
    let names: Option<Vec<Rc<str>>> =
        branches.iter().map(|branch| branch.name.as_ref().map(|name| name.text().into())).collect();
    let ty = match &names {
        Some(names) => {
            let field = |(name, ty): (&Rc<str>, &Ty)| Field {
                name: Rc::clone(name),
                ty: Ty::result(ty.clone()),
                doc: "".into(),
            };
            Ty::Record(names.iter().zip(types).map(field).collect())
        }
        None if types.contains(&Ty::Broken) => Ty::Broken,
        None if types.windows(2).all(|pair| pair[0] == pair[1]) => Ty::list(Ty::result(types[0].clone())),
        None => Ty::list(Ty::result(Ty::Any)),
    };
    let gives = names.map_or(Forked::List, Forked::Record);
    Expr::new(ExprKind::Fork(Box::new(Fork { gives, ..fork })), ty, at)
}

/// What people call a branch: its name, or that of what it calls.
fn branch_label(branch: &Branch) -> Option<String> {
    if let Some(name) = &branch.name {
        return Some(name.text());
    }
    let mut callee = branch.value.clone();
    loop {
        callee = match &callee {
            ast::Expr::CallExpr(call) => call.callee()?,
            ast::Expr::FieldExpr(field) if field.field().is_some_and(|name| name.text() == "run") => {
                field.receiver()?
            }
            ast::Expr::FieldExpr(field) => return field.field().map(|name| name.text()),
            ast::Expr::NameRef(name) => return name.name().map(|name| name.text()),
            ast::Expr::ParenExpr(paren) => paren.inner()?,
            _ => return None,
        };
    }
}

//! Pipelines: `>>` and `|>` run a stage on a value, `?>` chooses one, and a chain without input is a value itself.

use std::rc::Rc;

use nexa_vm::op::Asking;

use super::Checker;
use super::calls::Piped;
use super::literals::block_of;
use super::modules::Item;
use super::places::Place;
use super::questions::Run;
use super::scope::FrameKind;
use crate::ast::{self, AstNode, PipeOp, PipeTarget};
use crate::diagnostic::{Code, Diagnostic};
use crate::hir::{Expr, ExprKind, Stmt, StmtKind};
use crate::source::Span;
use crate::types::Ty;

impl Checker<'_> {
    pub(super) fn pipe(&mut self, node: &ast::PipeExpr) -> Expr {
        if let Some(first) = self.first_stage(&ast::Expr::PipeExpr(node.clone())) {
            return self.chain(node, &first);
        }
        let Some(left) = node.left() else { return self.broken(node.span()) };
        if let Some((PipeOp::Consensus, at_op)) = node.op()
            && let (Some(PipeTarget::Stage(judge)), Some((branches, input, span))) =
                (node.target(), self.written_fork(&left))
        {
            let piped = input.map(|input| Piped { value: self.expr(&input, None), span: input.span() });
            return self.rerun_until_agreed(&branches, piped, &judge, span, at_op);
        }
        let value = self.expr(&left, None);
        self.operator(node, Piped { value, span: left.span() })
    }

    /// One pipeline operator applied to a value.
    fn operator(&mut self, node: &ast::PipeExpr, piped: Piped) -> Expr {
        let (Some((op, at_op)), Some(target)) = (node.op(), node.target()) else { return self.broken(node.span()) };
        match (op, target) {
            (PipeOp::Run | PipeOp::Call, PipeTarget::Stage(stage)) => self.stage(&stage, piped),
            (PipeOp::Fork, PipeTarget::Branches(branches)) => {
                self.is_effect_in_fn(at_op, "a fork");
                self.fork_with_input(&branches, piped, node.merge().as_ref())
            }
            (PipeOp::Detach, PipeTarget::Branches(branches)) => {
                self.is_effect_in_fn(at_op, "a fork");
                self.detached(node, &branches, piped, at_op)
            }
            (PipeOp::Fork, PipeTarget::Stage(stage)) => self.not_in_brackets("|>>", &stage),
            (PipeOp::Merge, PipeTarget::Stage(stage)) => match node.left() {
                Some(left) => self.merge_into(&left, piped, &stage, at_op),
                None => self.broken(node.span()),
            },
            (PipeOp::Detach | PipeOp::Consensus, PipeTarget::Stage(stage)) if piped.value.ty == Ty::Bool => {
                self.expr(&stage, None);
                self.joined_bools(op, at_op)
            }
            (PipeOp::Detach, PipeTarget::Stage(_)) if piped.value.ty.is_silent() => self.broken(node.span()),
            (PipeOp::Detach, PipeTarget::Stage(stage)) => self.not_in_brackets("||", &stage),
            (PipeOp::Consensus, PipeTarget::Stage(judge)) => match node.left() {
                Some(left) => self.agree_on_results(&left, piped, &judge, at_op),
                None => self.broken(node.span()),
            },
            (_, PipeTarget::Branches(branches)) => {
                let wrong = self.finding(Code::E0503, branches.span(), "this operator takes one stage");
                self.refuse(wrong.help("`|>>` forks into several"))
            }
        }
    }

    fn not_in_brackets(&mut self, sign: &str, stage: &ast::Expr) -> Expr {
        let wrong = self.finding(Code::E0503, stage.span(), format!("`{sign}` takes stages in brackets"));
        self.refuse(wrong.help(format!("write `x {sign} [A, B]`")))
    }

    /// `||` and `&&` are no operators on bools.
    fn joined_bools(&mut self, op: PipeOp, at_op: Span) -> Expr {
        let (sign, word) = if op == PipeOp::Detach { ("||", "or") } else { ("&&", "and") };
        let wrong =
            self.finding(Code::E0510, at_op, format!("`{sign}` is a pipeline operator; bools are joined by `{word}`"));
        let edit = crate::diagnostic::Edit::replace(at_op, word);
        self.refuse(wrong.help(format!("write `{word}`")).fix(format!("replace by `{word}`"), vec![edit]))
    }

    /// Runs a stage on a value.
    pub(super) fn stage(&mut self, node: &ast::Expr, piped: Piped) -> Expr {
        self.depth += super::LEVEL;
        let made = if self.depth > super::DEPTH_MAX {
            let deep = self.finding(Code::E0210, node.span(), "the stages nest too deep");
            self.refuse(deep.help("give parts of the chain names with `let`"))
        } else {
            self.stage_here(node, piped)
        };
        self.depth -= super::LEVEL;
        made
    }

    fn stage_here(&mut self, node: &ast::Expr, piped: Piped) -> Expr {
        match node {
            ast::Expr::NameRef(_) | ast::Expr::FieldExpr(_) => self.call_with(node, &[], Some(piped), node.span()),
            ast::Expr::CallExpr(call) => match call.callee() {
                Some(callee) => self.call_with(&callee, &call.args(), Some(piped), call.span()),
                None => self.broken(node.span()),
            },
            ast::Expr::PlaceholderExpr(_) => piped.value,
            ast::Expr::ParenExpr(paren) => match paren.inner() {
                Some(inner) => self.parenthesised_stage(&inner, piped),
                None => self.broken(node.span()),
            },
            _ => {
                let value = self.expr(node, None);
                if value.ty.is_silent() {
                    return self.broken(node.span());
                }
                let wrong = self.no_stage(node, &value.ty);
                self.refuse(wrong)
            }
        }
    }

    fn no_stage(&mut self, node: &ast::Expr, ty: &Ty) -> Diagnostic {
        let wrong = self.finding(Code::E0503, node.span(), format!("`{}` is not a stage", self.show(ty)));
        wrong.help("a stage is the name of an agent, a flow or a function, a call of one, or a chain in parentheses")
    }

    /// In parentheses: a lambda, a chain, or an expression whose value is a stage.
    fn parenthesised_stage(&mut self, inner: &ast::Expr, piped: Piped) -> Expr {
        if self.first_stage(inner).is_some() {
            return self.run_chain(inner, piped);
        }
        let at = self.at(inner);
        let want = Ty::Function([piped.value.ty.clone()].into(), Rc::new(Ty::Any));
        // The piped value was computed first.
        let mut statements = Vec::new();
        let value = if piped.value.is_inert() { piped.value } else { self.set_aside(piped.value, &mut statements, at) };
        let made = self.expr(inner, Some(&want));
        let (input, output) = match made.ty.clone() {
            Ty::Function(params, result) if params.len() == 1 => (params[0].clone(), (*result).clone()),
            Ty::Stage(input, output) => ((*input).clone(), (*output).clone()),
            ty if ty.is_silent() => return self.broken(inner.span()),
            ty => {
                let wrong = self.no_stage(inner, &ty);
                return self.refuse(wrong);
            }
        };
        let value = self.coerce(value, &input, piped.span, Place::Piped("the stage", None));
        block_of(statements, Expr::new(ExprKind::CallValue(Box::new(made), vec![value]), output, at))
    }

    /// The leftmost operand of a chain that has no input: a declared stage, or a list of them.
    pub(super) fn first_stage(&mut self, node: &ast::Expr) -> Option<ast::Expr> {
        let mut first = node.clone();
        let mut is_chain = false;
        loop {
            first = match &first {
                ast::Expr::PipeExpr(pipe) => {
                    is_chain = true;
                    pipe.left()?
                }
                ast::Expr::ParenExpr(paren) if is_chain => paren.inner()?,
                _ => break,
            };
        }
        let is_stage = match &first {
            ast::Expr::ListExpr(list) => {
                let items: Vec<ast::Expr> = list.items().collect();
                !items.is_empty() && items.iter().all(|item| self.names_a_stage(item))
            }
            other => is_chain && self.names_a_stage(other),
        };
        is_stage.then_some(first)
    }

    fn names_a_stage(&mut self, node: &ast::Expr) -> bool {
        matches!(node, ast::Expr::NameRef(_) | ast::Expr::FieldExpr(_))
            && matches!(self.static_item_quietly(node), Some(Item::Agent(_) | Item::Tool(_) | Item::Flow(_)))
    }

    /// As `static_item`, for a look that must not report anything.
    fn static_item_quietly(&mut self, node: &ast::Expr) -> Option<Item> {
        match node {
            ast::Expr::NameRef(_) => self.static_item(node).map(|(item, _)| item),
            ast::Expr::FieldExpr(field) => {
                let module = self.static_item(&field.receiver()?)?.0;
                let Item::Module(place) = module else { return None };
                self.scopes[place].get(&field.field()?.text()).map(|known| known.item)
            }
            _ => None,
        }
    }

    /// Runs a chain without input of its own on a value.
    fn run_chain(&mut self, node: &ast::Expr, piped: Piped) -> Expr {
        match node {
            ast::Expr::PipeExpr(pipe) => {
                let Some(left) = pipe.left() else { return self.broken(node.span()) };
                if let Some((PipeOp::Consensus, at_op)) = pipe.op()
                    && let Some(PipeTarget::Stage(judge)) = pipe.target()
                {
                    if let ast::Expr::ListExpr(list) = &left {
                        let branches = self.listed_fork(list);
                        return self.rerun_until_agreed(&branches, Some(piped), &judge, list.span(), at_op);
                    }
                    if let Some((branches, Some(input), span)) = self.written_fork(&left) {
                        let value = self.run_chain(&input, piped);
                        let piped = Piped { value, span: input.span() };
                        return self.rerun_until_agreed(&branches, Some(piped), &judge, span, at_op);
                    }
                }
                let value = self.run_chain(&left, piped);
                self.operator(pipe, Piped { value, span: left.span() })
            }
            ast::Expr::ParenExpr(paren) => match paren.inner() {
                Some(inner) => self.run_chain(&inner, piped),
                None => self.broken(node.span()),
            },
            ast::Expr::ListExpr(list) => self.fork_list_with_input(list, piped),
            _ => self.stage(node, piped),
        }
    }

    /// A chain as a value: a function of its input.
    fn chain(&mut self, node: &ast::PipeExpr, first: &ast::Expr) -> Expr {
        let at = self.at(node);
        let input = self.input_of(first);
        let frame = self.inner_frame("chain", FrameKind::Lambda);
        self.frames.push(frame);
        let slot = self.temporary(first.span());
        let piped = Piped { value: Expr::local(slot, input.clone(), at), span: first.span() };
        let value = self.run_chain(&ast::Expr::PipeExpr(node.clone()), piped);
        let ty = Ty::Stage(Rc::new(input.clone()), Rc::new(value.ty.clone()));
        let body = vec![Stmt { kind: StmtKind::Return(value), at }];
        self.close_function(vec![input], body, ty, at)
    }

    /// What the first stage of a chain takes.
    fn input_of(&mut self, first: &ast::Expr) -> Ty {
        match first {
            ast::Expr::ListExpr(list) => {
                let inputs: Vec<Ty> = list.items().map(|item| self.input_of(&item)).collect();
                // All branches get the same value, so it has to be the narrowest of what they take.
                inputs.into_iter().reduce(|a, b| if a == Ty::Any { b } else { a }).unwrap_or(Ty::Any)
            }
            _ => {
                let signature = match self.static_item_quietly(first) {
                    Some(Item::Agent(number)) => Rc::clone(&self.agents[number].signature),
                    Some(Item::Tool(number)) => Rc::clone(&self.tools[number].signature),
                    Some(Item::Flow(number)) => Rc::clone(&self.flows[number].signature),
                    _ => return Ty::Any,
                };
                signature.params.first().map_or(Ty::Any, |param| param.ty.clone())
            }
        }
    }

    /// `x ?> c => S : F`, and the table of such choices.
    pub(super) fn branch(&mut self, node: &ast::BranchExpr) -> Expr {
        let Some(subject) = node.subject() else { return self.broken(node.span()) };
        let at = self.at(node);
        let span = subject.span();
        let value = self.expr(&subject, None);
        let mut statements = Vec::new();
        let ty = value.ty.clone();
        let value =
            if matches!(value.kind, ExprKind::Local(_)) { value } else { self.set_aside(value, &mut statements, at) };
        let ExprKind::Local(slot) = value.kind else { return self.broken(node.span()) };
        let piped = Piped { value, span };
        let mut arms: Vec<(Option<ast::Expr>, ast::Expr)> = Vec::new();
        match node.table() {
            Some(table) => {
                for arm in table {
                    let (Some(condition), Some(ast::Body::Expr(stage))) = (arm.condition(), arm.body()) else {
                        continue;
                    };
                    let is_rest = matches!(condition, ast::Expr::PlaceholderExpr(_));
                    arms.push(((!is_rest).then_some(condition), stage));
                }
                if arms.iter().all(|(condition, _)| condition.is_some()) && !node.is_broken() {
                    let lacks = self.finding(Code::E0509, node.span(), "this table says nothing for every other value");
                    return self.refuse(lacks.help("add `_ => stage`; `_ => _` gives the value back"));
                }
            }
            None => {
                let (Some(then), Some(other)) = (node.then_stage(), node.else_stage()) else {
                    return self.broken(node.span());
                };
                arms.push((node.condition(), then));
                arms.push((None, other));
            }
        }
        let mut made: Vec<(Option<Expr>, Expr, Span)> = Vec::new();
        let mut joined = Ty::Never;
        let mut run: Option<(Run, usize)> = None;
        for place in 0..arms.len() {
            let (condition, stage) = arms[place].clone();
            let words = |(condition, _): &(Option<ast::Expr>, ast::Expr)| match condition {
                Some(ast::Expr::StringExpr(words)) => Some(words.clone()),
                _ => None,
            };
            if words(&arms[place]).is_none() {
                run = None;
            } else if run.is_none() {
                let labels: Vec<_> = arms[place..].iter().map_while(words).collect();
                let labels = labels.iter().map(|words| self.words(words)).collect();
                let subject = self.as_subject(piped.value.clone(), span);
                run = Some((self.run_of(Asking::Question, labels, &subject, span), place));
            }
            let condition = match condition {
                Some(words @ ast::Expr::StringExpr(_)) => {
                    run.as_ref().map(|(run, first)| self.run_test(run, place - first, words.span()))
                }
                Some(condition) => {
                    let opened = self.open_block();
                    self.bind_word("it", span, ty.clone(), slot);
                    let condition = self.condition(Some(condition), span);
                    self.close_block(opened);
                    Some(condition)
                }
                None => None,
            };
            let value = self.stage(&stage, piped.clone());
            joined = self.types.join(&joined, &value.ty);
            made.push((condition, value, stage.span()));
        }
        let mut choice = Expr::new(ExprKind::Unreachable, Ty::Never, at);
        for (condition, value, span) in made.into_iter().rev() {
            let value = self.coerce(value, &joined, span, Place::Arm);
            choice = match condition {
                Some(condition) => {
                    Expr::new(ExprKind::If(Box::new(condition), Box::new(value), Box::new(choice)), joined.clone(), at)
                }
                None => value,
            };
        }
        block_of(statements, choice)
    }
}

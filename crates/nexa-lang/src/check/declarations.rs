//! Signatures of flows and agents, and the bodies of flows.

use std::collections::BTreeSet;
use std::rc::Rc;

use nexa_types::Budget;
use nexa_vm::module::Schedule;

use super::Checker;
use super::grants::Holder;
use super::modules::Item;
use super::places::Place;
use super::scope::{Frame, FrameKind};
use crate::ast::{
    self, AgentDecl, AstNode, Decl, FlowDecl, FnDecl, Name, Param as ParamNode, Signature as SignatureNode,
};
use crate::diagnostic::{Code, Severity};
use crate::hir::{self, At, Expr, Granted, Stmt, StmtKind};
use crate::source::{FileId, Span};
use crate::types::Ty;

/// Arguments are counted in a byte.
const PARAMS_MAX: usize = 64;
/// Flows whose result type is found by checking them, each while checking the one before.
const INFERENCE_DEPTH_MAX: usize = 32;

/// A parameter.
#[derive(Clone, Debug)]
pub(super) struct Param {
    pub(super) name: Rc<str>,
    pub(super) ty: Ty,
    pub(super) span: Span,
    /// A constant.
    pub(super) default: Option<Expr>,
}

/// What a call needs to know.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) name: Rc<str>,
    pub(super) file: FileId,
    pub(super) span: Span,
    pub(super) params: Vec<Param>,
    /// The written result type and where it is written.
    pub(super) result: Option<(Ty, Span)>,
}

/// How far a flow is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    Running,
    Done(Ty),
}

/// How a flow is written.
#[derive(Clone, Debug)]
pub(super) enum Written {
    Flow(FlowDecl),
    Fn(FnDecl),
}

/// A declared flow, or a `fn`: a flow that has no effects and is not started from outside.
#[derive(Debug)]
pub(super) struct FlowInfo {
    pub(super) decl: Written,
    pub(super) signature: Rc<Signature>,
    /// Caps of its own, and where they are written.
    pub(super) budget: Option<(Budget, Span)>,
    /// What a scheduler should expect.
    pub(super) schedule: Schedule,
    /// The tools that it may call.
    granted: Vec<u32>,
    pub(super) progress: Progress,
}

impl FlowInfo {
    /// Whether each call of it is an agent of its own.
    pub(super) fn runs_apart(&self) -> bool {
        self.budget.is_some() || self.schedule != Schedule::default()
    }
}

/// A declared agent.
#[derive(Debug)]
pub(super) struct AgentInfo {
    pub(super) decl: AgentDecl,
    pub(super) signature: Rc<Signature>,
    pub(super) checked: hir::Agent,
}

impl Checker<'_> {
    pub(super) fn declare_flow(&mut self, decl: &Decl) -> Option<usize> {
        let (decl, signature) = match decl {
            Decl::FlowDecl(flow) => (Written::Flow(flow.clone()), self.unnamed_signature(flow)?),
            Decl::FnDecl(function) => (Written::Fn(function.clone()), self.unnamed_signature(function)?),
            _ => return None,
        };
        let signature = Rc::new(signature);
        self.functions.push(hir::Function { name: signature.name.to_string(), ..hir::Function::default() });
        let flow = FlowInfo {
            decl,
            signature,
            budget: None,
            schedule: Schedule::default(),
            granted: Vec::new(),
            progress: Progress::Waiting,
        };
        self.flows.push(flow);
        Some(self.flows.len() - 1)
    }

    pub(super) fn declare_agent(&mut self, decl: &AgentDecl) -> Option<usize> {
        let signature = Rc::new(self.unnamed_signature(decl)?);
        let checked = super::agents::empty(&signature.name, self.at(decl));
        self.agents.push(AgentInfo { decl: decl.clone(), signature, checked });
        Some(self.agents.len() - 1)
    }

    /// A signature of which only the name is known.
    pub(super) fn unnamed_signature(&self, decl: &impl SignatureNode) -> Option<Signature> {
        let name = decl.name()?;
        Some(Signature {
            name: name.text().into(),
            file: self.file,
            span: name.span(),
            params: Vec::new(),
            result: None,
        })
    }

    /// Parameters, results, clauses and properties of every tool, flow and agent.
    pub(super) fn check_signatures(&mut self) {
        for number in 0..self.tools.len() {
            let first = Rc::clone(&self.tools[number].signature);
            let Some(decl) = self.tools[number].decl.clone() else { continue };
            self.file = first.file;
            self.refuse_grants(&decl, "a tool");
            self.check_clauses(&decl);
            self.tools[number].signature = Rc::new(self.signature(&decl, &first));
        }
        for number in 0..self.tools.len() {
            self.check_tool(number);
        }
        for number in 0..self.agents.len() {
            let (decl, first) = (self.agents[number].decl.clone(), Rc::clone(&self.agents[number].signature));
            self.file = first.file;
            self.check_clauses(&decl);
            let signature = Rc::new(self.signature(&decl, &first));
            self.agents[number].signature = signature;
        }
        for number in 0..self.flows.len() {
            let (decl, first) = (self.flows[number].decl.clone(), Rc::clone(&self.flows[number].signature));
            self.file = first.file;
            let signature = match &decl {
                Written::Flow(flow) => {
                    self.check_clauses(flow);
                    self.signature(flow, &first)
                }
                Written::Fn(function) => {
                    self.refuse_grants(function, "a `fn`");
                    self.check_clauses(function);
                    self.signature(function, &first)
                }
            };
            self.flows[number].signature = Rc::new(signature);
            if let Written::Flow(flow) = decl {
                self.check_flow_clauses(number, &flow);
            }
        }
        // Grants name anything that is declared, so they come last.
        for number in 0..self.flows.len() {
            if let Written::Flow(flow) = self.flows[number].decl.clone() {
                self.file = self.flows[number].signature.file;
                let granted = self.grants(&flow.grants(), Holder::Flow);
                self.flows[number].granted = granted.into_iter().filter_map(Granted::tool).collect();
            }
        }
        for number in 0..self.agents.len() {
            self.check_agent(number);
        }
        for number in 0..self.tools.len() {
            self.check_tool_promises(number);
        }
        self.check_fallbacks();
        self.check_judges();
    }

    /// `uses` where nothing could be granted.
    fn refuse_grants(&mut self, decl: &impl SignatureNode, what: &str) {
        for grant in decl.grants() {
            let lost = self.finding(Code::E0201, grant.span(), format!("{what} has no `uses`"));
            self.report(lost.help("it calls no tools; agents and flows say with `uses` which ones they do"));
        }
    }

    fn check_flow_clauses(&mut self, number: usize, decl: &FlowDecl) {
        if let Some(schedule) = decl.schedule() {
            self.flows[number].schedule = self.schedule(&ast::Expr::RecordExpr(schedule));
        }
        if let Some(budget) = decl.budget() {
            let caps = self.budget(&ast::Expr::RecordExpr(budget.clone()));
            self.flows[number].budget = Some((caps, budget.span()));
        }
    }

    fn signature(&mut self, decl: &impl SignatureNode, first: &Signature) -> Signature {
        let params = match decl.param_list() {
            Some(_) => self.params(&decl.params(), &first.name),
            // An agent without a list takes one input of any kind. A flow without one was refused by the parser.
            None => vec![Param { name: "input".into(), ty: Ty::Any, span: first.span, default: None }],
        };
        let result = decl.result().map(|written| (self.ty(&written), written.span()));
        Signature { params, result, ..first.clone() }
    }

    fn params(&mut self, nodes: &[ParamNode], callee: &str) -> Vec<Param> {
        let mut params: Vec<Param> = Vec::new();
        // One more than may be is looked at, to know that there are too many.
        for node in nodes.iter().take(PARAMS_MAX + 1) {
            let Some(name) = node.name() else { continue };
            let text: Rc<str> = name.text().into();
            if let Some(first) = params.iter().find(|param| param.name == text) {
                let twice = self
                    .finding(Code::E0207, name.span(), format!("`{callee}` has two parameters called `{text}`"))
                    .label(first.span, "it is defined here first");
                self.report(twice);
                continue;
            }
            let ty = match node.ty() {
                Some(written) => self.ty(&written),
                None => {
                    let mut any = self
                        .finding(Code::W0318, name.span(), format!("`{text}` takes any value"))
                        .help(format!("write its type: `{text}: str`"));
                    if self.is_strict {
                        any.severity = Severity::Error;
                    }
                    self.report(any);
                    Ty::Any
                }
            };
            let default = node.default().map(|default| self.constant(&default, &ty, Place::Default(&text)));
            if let (None, Some(before)) = (&default, params.iter().rfind(|param| param.default.is_some())) {
                let message = format!("`{text}` has no default, but `{}` before it has one", before.name);
                let order = self.finding(Code::E0304, name.span(), message).help("put parameters with defaults last");
                self.report(order);
            }
            params.push(Param { name: text, ty, span: name.span(), default });
        }
        if params.len() > PARAMS_MAX {
            let span = params[PARAMS_MAX].span;
            let crowded = self.finding(Code::E1006, span, format!("`{callee}` has more than {PARAMS_MAX} parameters"));
            self.report(crowded.help("put some of them into one record"));
            params.truncate(PARAMS_MAX);
        }
        params
    }

    /// Checks the body of every flow that nobody asked about before.
    pub(super) fn check_flows(&mut self) {
        for number in 0..self.flows.len() {
            if self.flows[number].progress == Progress::Waiting {
                self.check_flow(number);
            }
        }
    }

    fn check_flow(&mut self, number: usize) {
        self.flows[number].progress = Progress::Running;
        let signature = Rc::clone(&self.flows[number].signature);
        let decl = self.flows[number].decl.clone();
        let around = (std::mem::take(&mut self.frames), self.file, std::mem::take(&mut self.depth), self.has_budget);
        let contract = self.in_contract.take();
        let is_granted = match &decl {
            Written::Flow(flow) => flow.grants().iter().any(is_tenant_memory),
            Written::Fn(_) => false,
        };
        let was_granted = std::mem::replace(&mut self.may_use_tenant_memory, is_granted);
        self.running += 1;
        self.has_budget = self.flows[number].budget.is_some();
        let granted = std::mem::replace(&mut self.granted, self.flows[number].granted.clone());
        self.file = signature.file;
        let kind = if self.is_fn(number) { FrameKind::Fn } else { FrameKind::Flow };
        self.frames.push(Frame::new(signature.name.to_string(), kind, signature.result.clone()));
        for param in &signature.params {
            self.bind_param(&param.name, param.span, param.ty.clone());
        }
        let (body, result) = self.flow_body(&decl, &signature);
        let locals = self.frame().locals;
        let function = hir::Function {
            name: signature.name.to_string(),
            arity: signature.params.len() as u8,
            params: signature.params.iter().map(|param| param.ty.clone()).collect(),
            locals,
            captures: Vec::new(),
            body,
            is_pure: kind == FrameKind::Fn,
            schedule: self.flows[number].schedule,
            is_test: false,
            grants: self.granted_tools(),
            model: String::new(),
            at: At { file: signature.file.0, start: signature.span.start },
        };
        let (requires, ensures, implemented) = match &decl {
            Written::Flow(flow) => (flow.requires(), flow.ensures(), flow.implemented()),
            Written::Fn(function) => (function.requires(), function.ensures(), function.implemented()),
        };
        self.functions[number] = if requires.is_empty() && ensures.is_empty() {
            function
        } else {
            let contracts = self.contracts(&requires, &ensures, &signature, &result, kind);
            self.guarded(contracts, function, &result)
        };
        let span = signature.result.as_ref().map_or(signature.span, |(_, span)| *span);
        self.check_implemented(&implemented, &result, span);
        (self.frames, self.file, self.depth, self.has_budget) = around;
        self.in_contract = contract;
        self.may_use_tenant_memory = was_granted;
        self.granted = granted;
        self.running -= 1;
        self.flows[number].progress = Progress::Done(result);
    }

    /// The statements of a flow and what it gives.
    fn flow_body(&mut self, decl: &Written, signature: &Signature) -> (Vec<Stmt>, Ty) {
        let block = match decl {
            Written::Flow(flow) => flow.body(),
            Written::Fn(function) => match (function.body(), function.expression()) {
                (None, Some(expression)) => return self.fn_expression(&expression, signature),
                (block, _) => block,
            },
        };
        let Some(block) = block else { return (Vec::new(), Ty::Broken) };
        let (statements, ends) = self.block(&block);
        let end = block.close().map_or(block.span(), |close| close.text_range().into());
        let result = self.result_of_body(&signature.name, signature.span, end, ends);
        (statements, result)
    }

    /// `fn f(…) => e`
    fn fn_expression(&mut self, expression: &ast::Expr, signature: &Signature) -> (Vec<Stmt>, Ty) {
        let at = self.at(expression);
        let (value, ty) = match &signature.result {
            Some((ty, written)) => (self.expect(expression, ty, Place::Return(Some(*written))), ty.clone()),
            None => {
                let value = self.expr(expression, None);
                let ty = value.ty.clone();
                (value, ty)
            }
        };
        (vec![Stmt { kind: StmtKind::Return(value), at }], ty)
    }

    /// Whether a flow is a `fn`.
    pub(super) fn is_fn(&self, number: usize) -> bool {
        matches!(self.flows[number].decl, Written::Fn(_))
    }

    /// E0320 where a `fn` would do more than compute; the answer says whether it would.
    pub(super) fn is_effect_in_fn(&mut self, span: Span, what: &str) -> bool {
        if self.is_effect_in_contract(span, what) {
            return true;
        }
        let Some(name) = self.frames.first().filter(|frame| frame.kind == FrameKind::Fn).map(|frame| &frame.name)
        else {
            return false;
        };
        let message = format!("`{name}` is a `fn`, which only computes, and {what} reaches outside");
        let effect = self.finding(Code::E0320, span, message);
        self.report(effect.help(format!("declare `{name}` as a flow, or pass it the value that it needs")));
        true
    }

    /// The result type of the function whose body was just checked; `ends` says that its end is never reached.
    pub(super) fn result_of_body(&mut self, name: &str, named: Span, end: Span, ends: bool) -> Ty {
        let frame = self.frame();
        let (result, written) = match (frame.result.clone(), frame.returned.clone()) {
            (Some((ty, span)), _) => (ty, Some(span)),
            (None, Some((ty, span))) => (ty, Some(span)),
            (None, None) => (Ty::Unit, None),
        };
        if !ends && !matches!(result, Ty::Unit | Ty::Any) && !result.is_silent() {
            let message = format!("`{name}` can end without returning `{}`", self.show(&result));
            let mut missing =
                self.finding(Code::E0322, end, message).primary_label("this end is reached without a value");
            missing = missing.label(written.unwrap_or(named), "a value is promised here");
            self.report(missing.help("add `return …` at the end, or in the branch that lacks it"));
        }
        result
    }

    /// What a call of a flow gives.
    pub(super) fn flow_result(&mut self, number: usize, span: Span) -> Ty {
        if let Some((ty, _)) = &self.flows[number].signature.result {
            return ty.clone();
        }
        if let Progress::Done(ty) = &self.flows[number].progress {
            return ty.clone();
        }
        match self.flows[number].progress.clone() {
            Progress::Waiting if self.running < INFERENCE_DEPTH_MAX => {
                self.check_flow(number);
                self.flow_result(number, span)
            }
            progress => {
                let Signature { name, file, span: declared, .. } = &*Rc::clone(&self.flows[number].signature);
                let why = match progress {
                    Progress::Running => "it calls itself",
                    _ => "too many flows stand between it and one with a written result type",
                };
                let message = format!("the result type of `{name}` must be written, because {why}");
                let missing = self
                    .finding(Code::E0313, span, message)
                    .label_in(*file, *declared, "its result type is missing here")
                    .help(format!("write `{name}(…) -> str` with the type that it returns"));
                self.report(missing);
                Ty::Broken
            }
        }
    }

    /// The flows that are never called plainly: their caps, their share of the cluster and their end are their own.
    pub(super) fn apart(&self) -> Vec<hir::Entry> {
        let mut apart = Vec::new();
        for (number, flow) in self.flows.iter().enumerate() {
            if let (Progress::Done(ty), true) = (&flow.progress, flow.runs_apart()) {
                let budget = flow.budget.map(|(budget, _)| budget).unwrap_or_default();
                apart.push(entry_of(&flow.signature, hir::Target::Flow(number as u32), ty.clone(), budget));
            }
        }
        apart
    }

    /// What may be started from outside: the flows and agents of the entry file under their names, then those that
    /// other files declare under names that are still free.
    pub(super) fn entries(&mut self, entry: FileId) -> Vec<hir::Entry> {
        let mut entries: Vec<hir::Entry> = Vec::new();
        let mut taken: BTreeSet<Rc<str>> = BTreeSet::new();
        let mut order: Vec<FileId> = self.files.iter().map(|file| file.id).collect();
        order.sort_by_key(|file| (*file != entry, *file));
        for file in order {
            let scope = &self.scopes[self.place_of(file)];
            // Of two declarations of one name only the first was entered, and the second was reported.
            let mut is_free = |signature: &Signature, item: Item| {
                signature.file == file
                    && scope.get(&signature.name).is_some_and(|known| known.item == item)
                    && taken.insert(Rc::clone(&signature.name))
            };
            for (number, flow) in self.flows.iter().enumerate() {
                if !self.is_fn(number) && is_free(&flow.signature, Item::Flow(number)) {
                    let result = match &flow.progress {
                        Progress::Done(ty) => ty.clone(),
                        _ => Ty::Any,
                    };
                    let budget = flow.budget.map(|(budget, _)| budget).unwrap_or_default();
                    entries.push(entry_of(&flow.signature, hir::Target::Flow(number as u32), result, budget));
                }
            }
            for (number, agent) in self.agents.iter().enumerate() {
                if is_free(&agent.signature, Item::Agent(number)) {
                    let target = hir::Target::Agent(number as u32);
                    entries.push(entry_of(
                        &agent.signature,
                        target,
                        agent.checked.result.clone(),
                        agent.checked.budget,
                    ));
                }
            }
        }
        entries
    }
}

/// Whether `memory.tenant` in a `uses` grants the memory of a tenant, or was meant to: what is misspelt in it is reported where it stands.
fn is_tenant_memory(grant: &ast::Grant) -> bool {
    let words: Vec<String> = grant.path().iter().map(Name::text).collect();
    words.len() == 2 && (words[0] == "memory" || words[1] == "tenant") && grant.args().is_empty()
}

fn entry_of(signature: &Signature, target: hir::Target, result: Ty, budget: Budget) -> hir::Entry {
    let params = signature.params.iter().map(|param| (param.name.to_string(), param.ty.clone(), param.default.clone()));
    hir::Entry { name: signature.name.to_string(), target, params: params.collect(), result, budget }
}

//! Grants: what the `uses` of an agent or a flow allows, and the calls that need it.
//!
//! Lambdas and branches have the grants of the flow that they stand in; a flow that is called has its own.

use std::rc::Rc;

use super::Checker;
use super::calls::{Piped, slots_of};
use super::declarations::Written;
use super::literals::block_of;
use super::modules::Item;
use super::std_tools;
use super::tools::PLACES_ALLOWED_MAX;
use crate::ast::{self, AstNode, Grant, Name, Signature as _};
use crate::diagnostic::Code;
use crate::hir::{Const, Expr, ExprKind, Granted, Offered, ToolParam};
use crate::source::Span;
use crate::types::Ty;

/// The parts of `std`, also those that this release does not have.
const STD_PARTS: &[&str] = &["fs", "http", "shell"];

/// Tools that one agent or flow may be granted.
const GRANTED_MAX: usize = 64;

/// What endpoints take as the name of a tool, in characters.
const WIRE_NAME_MAX: usize = 64;

/// A name as every endpoint takes it.
pub(super) fn wire_name(name: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' };
    name.chars().map(plain).take(WIRE_NAME_MAX).collect()
}

/// Who has a `uses` clause.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Agent,
    Flow,
}

impl Checker<'_> {
    /// What a `uses` clause grants.
    pub(super) fn grants(&mut self, grants: &[Grant], holder: Holder) -> Vec<Granted> {
        let mut granted: Vec<Granted> = Vec::new();
        // Several grants of files are one with the paths of all: where it stands, and the first of them.
        let mut fs: Option<(usize, Span, Vec<String>)> = None;
        for grant in grants {
            let path = grant.path();
            let words: Vec<String> = path.iter().map(Name::text).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let args = grant.args();
            let more = match words.as_slice() {
                ["std", "fs"] if !self.is_item("std") => {
                    let place = granted.len();
                    if let Some(paths) = self.fs_grant(grant, &args) {
                        let known = fs.get_or_insert_with(|| (place, grant.span(), Vec::new()));
                        for path in paths {
                            if !known.2.contains(&path) {
                                known.2.push(path);
                            }
                        }
                    }
                    Vec::new()
                }
                // Looked at where the memory is used.
                ["memory", "tenant"] if !self.is_item("memory") && args.is_empty() => Vec::new(),
                ["std", part] if !STD_PARTS.contains(part) && !self.is_item("std") => {
                    let unknown = self.finding(Code::E0208, grant.span(), format!("there is no `std.{part}`"));
                    let unknown = self.suggest(unknown, part, STD_PARTS.iter().copied());
                    self.report(unknown);
                    Vec::new()
                }
                ["memory", part] if *part != "tenant" && !self.is_item("memory") => {
                    let message = format!("a memory is not granted as `memory.{part}`");
                    let unknown = self.finding(Code::E0208, grant.span(), message);
                    let unknown = self.suggest(unknown, &format!("memory.{part}"), ["memory.tenant"]);
                    self.report(unknown.note("the memories of an agent and of a workload need no grant"));
                    Vec::new()
                }
                ["std", ..] | ["memory", "tenant"] if !self.is_item(words[0]) => {
                    self.report_not_available(grant.span(), &format!("`uses {}`", words.join(".")));
                    Vec::new()
                }
                _ => {
                    if let Some(limits) = args.first() {
                        let lost =
                            self.finding(Code::E0403, limits.span(), "only `std.fs` and its like take limits here");
                        self.report(lost.help("write them in the declaration: `limits: { … }`"));
                    }
                    self.item_grant(&path, holder, grant.span()).into_iter().collect()
                }
            };
            for one in more {
                if !granted.contains(&one) {
                    granted.push(one);
                }
            }
        }
        if let Some((place, span, mut paths)) = fs {
            if paths.len() > PLACES_ALLOWED_MAX {
                let message = format!("more than {PLACES_ALLOWED_MAX} paths are granted");
                let many = self.finding(Code::E1006, span, message);
                self.report(many.help("grant the folder that they lie in"));
                paths.truncate(PLACES_ALLOWED_MAX);
            }
            let tools = self.std_fs(&paths, self.file, span).into_iter().map(Granted::Tool);
            granted.splice(place..place, tools);
        }
        if granted.len() > GRANTED_MAX {
            let span = grants.last().map_or(Span::new(0, 0), AstNode::span);
            let many = self.finding(Code::E1006, span, format!("more than {GRANTED_MAX} tools are granted"));
            self.report(many.help("split the work between several agents"));
            granted.truncate(GRANTED_MAX);
        }
        granted
    }

    /// Whether a name is declared or imported, and so means itself.
    fn is_item(&self, name: &str) -> bool {
        self.scopes[self.place_of(self.file)].get(name).is_some()
    }

    /// The paths of `std.fs(paths: ["notes/"])`.
    fn fs_grant(&mut self, grant: &Grant, args: &[ast::Arg]) -> Option<Vec<String>> {
        let mut paths = None;
        for arg in args {
            match (arg.name(), arg.value()) {
                (Some(name), Some(value)) if name.text() == "paths" => paths = Some(self.granted_paths(&value)),
                _ => {
                    let unknown = self.finding(Code::E0401, arg.span(), "`std.fs` has the limit `paths` and no other");
                    let name = arg.name().map(|name| name.text()).unwrap_or_default();
                    let unknown = self.suggest(unknown, &name, ["paths"]);
                    self.report(unknown.help("write `std.fs(paths: [\"notes/\"])`"));
                    return None;
                }
            }
        }
        let paths = paths.filter(|paths| !paths.is_empty());
        if paths.is_none() {
            let lacks = self.finding(Code::E0403, grant.span(), "`std.fs` without paths reaches nothing");
            self.report(lacks.help("say which folders: `std.fs(paths: [\"notes/\"])`"));
        }
        paths
    }

    fn item_grant(&mut self, path: &[Name], holder: Holder, span: Span) -> Option<Granted> {
        let item = match path {
            [name] => match self.item(&name.text()) {
                Some(known) => known.item,
                None => {
                    self.unknown_name(name);
                    return None;
                }
            },
            [file, name] => match self.item(&file.text()).map(|known| known.item) {
                Some(Item::Module(place)) => self.item_of_module(place, name),
                _ => {
                    self.unknown_name(file);
                    return None;
                }
            },
            _ => return None,
        };
        let what = match item {
            Item::Tool(number) => return Some(Granted::Tool(number as u32)),
            Item::Flow(number) if holder == Holder::Agent && !self.is_fn(number) => {
                return self.flow_grant(number, span);
            }
            Item::Flow(_) if holder == Holder::Flow => {
                let needless = self.finding(Code::E0403, span, "a flow calls other flows without a grant");
                let help = "leave it out, or name it in the `uses` of the agent whose model shall call it";
                self.report(needless.help(help));
                return None;
            }
            Item::Reported => return None,
            Item::Flow(_) => "a `fn`",
            Item::Agent(_) => "an agent",
            Item::Type(_) => "a type",
            Item::Module(_) => "a file",
        };
        let wrong = self.finding(Code::E0403, span, format!("`uses` lists tools and flows, and this is {what}"));
        self.report(wrong.help("a flow that runs it can be listed"));
        None
    }

    /// A flow that is offered to a model: its arguments come as JSON.
    fn flow_grant(&mut self, number: usize, span: Span) -> Option<Granted> {
        let signature = Rc::clone(&self.flows[number].signature);
        for param in &signature.params {
            if let Some(culprit) = self.types.not_for_models(&param.ty, true) {
                let message =
                    format!("`{}` takes `{}`, which a model cannot give", signature.name, self.show(&param.ty));
                let cannot = self
                    .finding(Code::E0416, span, message)
                    .label_in(signature.file, param.span, "this parameter")
                    .note(format!("`{}` has no JSON form", self.show(&culprit)));
                self.report(cannot);
                return None;
            }
        }
        self.offered_flows.push((self.file, span, number));
        Some(Granted::Flow(number as u32))
    }

    /// What the model of an agent is offered.
    pub(super) fn offers(&mut self, grants: &[Grant]) -> Vec<Offered> {
        let granted = self.grants(grants, Holder::Agent);
        let mut offers: Vec<Offered> = Vec::new();
        for one in granted {
            let (name, doc, params) = match one {
                Granted::Tool(number) => {
                    let tool = &self.tools[number as usize].checked;
                    (tool.name.clone(), tool.doc.clone(), tool.params.clone())
                }
                Granted::Flow(number) => self.flow_offer(number as usize),
            };
            let mut name = wire_name(&name);
            let mut number = 2;
            while offers.iter().any(|other| other.name == name) {
                let end = format!("_{number}");
                name.truncate(WIRE_NAME_MAX - end.len());
                name.push_str(&end);
                number += 1;
            }
            offers.push(Offered { granted: one, name, doc, params });
        }
        offers
    }

    fn flow_offer(&self, number: usize) -> (String, String, Vec<ToolParam>) {
        let flow = &self.flows[number];
        let (doc, nodes) = match &flow.decl {
            Written::Flow(decl) => (decl.docs().unwrap_or_default(), decl.params()),
            Written::Fn(decl) => (decl.docs().unwrap_or_default(), decl.params()),
        };
        let doc_of = |name: &str| {
            let node = nodes.iter().find(|node| node.name().is_some_and(|known| known.text() == name));
            node.and_then(ast::Param::docs).unwrap_or_default()
        };
        let params = flow.signature.params.iter().map(|param| ToolParam {
            name: param.name.to_string(),
            doc: doc_of(&param.name),
            ty: param.ty.clone(),
            default: param.default.clone(),
        });
        (flow.signature.name.to_string(), doc, params.collect())
    }

    /// The tools that the function being checked may call.
    pub(super) fn granted_tools(&self) -> Vec<u32> {
        self.granted.clone()
    }

    /// E0801 where a tool is used and was not granted; the answer says whether it was.
    fn is_granted(&mut self, number: usize, span: Span) -> bool {
        if self.granted.contains(&(number as u32)) {
            return true;
        }
        let Some(flow) = self.frames.first().map(|frame| frame.name.clone()) else { return true };
        if flow.is_empty() {
            return true;
        }
        let tool = Rc::clone(&self.tools[number].signature);
        let message = format!("`{flow}` uses the tool `{}`, which is not granted to it", tool.name);
        let lacks = self
            .finding(Code::E0801, span, message)
            .label_in(tool.file, tool.span, "the tool is declared here")
            .help(format!("write `flow {flow}(…) uses {}`", tool.name));
        self.report(lacks);
        false
    }

    pub(super) fn call_tool(
        &mut self,
        number: usize,
        name_span: Span,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        let signature = Rc::clone(&self.tools[number].signature);
        self.is_effect_in_fn(name_span, "a tool");
        let is_granted = self.is_granted(number, name_span);
        let result = self.tool_result(number);
        let slots = slots_of(&signature);
        let at = self.at_span(name_span);
        match self.arguments(&signature.name, &slots, args, piped, span) {
            Some((statements, values)) if is_granted => {
                if !self.tools[number].checked.limits.paths.is_empty() && self.tools[number].decl.is_none() {
                    self.check_path(number, &values, span);
                }
                block_of(statements, Expr::new(ExprKind::Tool(number as u32, values), result, at))
            }
            _ => Expr::new(ExprKind::Const(Const::Unit), Ty::Broken, at),
        }
    }

    /// What a call of a tool gives.
    pub(super) fn tool_result(&self, number: usize) -> Ty {
        self.tools[number].signature.result.as_ref().map_or(Ty::Any, |(ty, _)| ty.clone())
    }

    /// A tool as a value: a function of its parameters.
    pub(super) fn tool_value(&mut self, number: usize, span: Span) -> Expr {
        let at = self.at_span(span);
        self.is_effect_in_fn(span, "a tool");
        if !self.is_granted(number, span) {
            return self.broken(span);
        }
        let params = self.tools[number].signature.params.iter().map(|param| param.ty.clone()).collect();
        let ty = Ty::Function(params, Rc::new(self.tool_result(number)));
        Expr::new(ExprKind::ToolValue(number as u32), ty, at)
    }

    /// The tool that `std.fs.read` and its like stand for here, if an expression is such a name. `Some(None)` if it was
    /// reported.
    pub(super) fn std_tool(&mut self, node: &ast::FieldExpr) -> Option<Option<usize>> {
        let (ast::Expr::FieldExpr(part), name) = (node.receiver()?, node.field()?) else { return None };
        let (ast::Expr::NameRef(root), part) = (part.receiver()?, part.field()?) else { return None };
        let root = root.name()?;
        if root.text() != "std" || self.is_variable("std") || self.is_item("std") || self.in_agent_text {
            return None;
        }
        let full = format!("std.{}.{}", part.text(), name.text());
        if part.text() == "shell" {
            let shell = self.finding(Code::E0904, node.span(), "`std.shell` runs code outside the sandbox");
            self.report(shell.help("declare a wasm or mcp tool"));
            return Some(None);
        }
        if std_tools::LATER.contains(&full.as_str()) {
            self.report_not_available(node.span(), &format!("`{full}`"));
            return Some(None);
        }
        let is_named = |number: &u32| self.tools.get(*number as usize).is_some_and(|tool| tool.checked.name == full);
        if let Some(number) = self.granted.iter().find(|number| is_named(number)) {
            return Some(Some(*number as usize));
        }
        if std_tools::is_known(&full) {
            let flow = self.frames.first().map_or(String::new(), |frame| frame.name.clone());
            let lacks =
                self.finding(Code::E0801, node.span(), format!("`{flow}` uses `{full}`, which is not granted to it"));
            self.report(lacks.help(format!("write `flow {flow}(…) uses std.fs(paths: [\"notes/\"])`")));
        } else {
            let unknown = self.finding(Code::E0208, node.span(), format!("there is no `{full}`"));
            let unknown = self.suggest(unknown, &full, std_tools::names());
            self.report(unknown.note("`std.fs` has `read`, `list` and `write`"));
        }
        Some(None)
    }
}

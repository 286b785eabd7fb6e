//! Tools: what a declaration says, and what its properties mean together.
//!
//! Where a tool comes from is looked up by the node that loads the module, not here; that it says where is checked here.

use std::collections::BTreeMap;
use std::rc::Rc;

use nexa_event::effect::{Risk, ToolEffect, ToolLimits, ToolSource};
use nexa_types::Millis;

use super::Checker;
use super::constants::Setting;
use super::declarations::{Param, Signature};
use super::modules::Item;
use super::scope::FrameKind;
use crate::ast::{self, AstNode, Signature as _, ToolDecl};
use crate::diagnostic::{Code, nearest};
use crate::hir::{self, At, OnUnknown};
use crate::source::Span;
use crate::types::{Fit, Ty};

/// Properties that work.
const PROPERTIES: &[&str] = &[
    "source",
    "description",
    "risk",
    "effect",
    "approval",
    "timeout",
    "limits",
    "idempotent",
    "on_unknown",
    "probe",
    "key",
    "retry",
];
/// Properties of the language that this release does not have.
const LATER: &[&str] = &["schedule"];
/// How `source` is written, for helps.
const SOURCES: &str =
    "write `mcp(\"server\", name: \"tool\")`, `wasm(\"file.wasm\", export: \"run\")` or `builtin(\"time.now\")`";

const TIMEOUT_MS: u64 = 60_000;
const TIMEOUT_ALLOWED_MAX_MS: u64 = 24 * 3_600_000;
const MEMORY_ALLOWED_MAX: i64 = 4 << 30;
const FILE_SIZE_ALLOWED_MAX: i64 = 1 << 40;
pub(super) const PLACES_ALLOWED_MAX: usize = 64;

/// A declared tool.
#[derive(Debug)]
pub(super) struct ToolInfo {
    /// Nothing for a tool of the standard library.
    pub(super) decl: Option<ToolDecl>,
    pub(super) signature: Rc<Signature>,
    pub(super) checked: hir::Tool,
}

/// When a person is asked before a tool is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Approval {
    Never,
    OnWrite,
    Always,
}

/// Properties of which the meaning depends on others, and where they are written.
#[derive(Default)]
struct Written {
    source: bool,
    risk: Option<Span>,
    approval: Option<(Approval, Span)>,
    idempotent: Option<bool>,
    on_unknown: Option<(String, Span)>,
    probe: Option<(ast::Expr, Span)>,
    retry: Option<Span>,
}

/// A tool of which only the name is known.
pub(super) fn empty(name: &str, at: At) -> hir::Tool {
    hir::Tool {
        name: name.to_owned(),
        doc: String::new(),
        source: ToolSource::Builtin { name: String::new() },
        params: Vec::new(),
        result: Ty::Any,
        risk: Risk::Medium,
        effect: ToolEffect::Write,
        asks: true,
        idempotent: false,
        on_unknown: OnUnknown::Fail,
        key: None,
        backoff: Vec::new(),
        limits: ToolLimits::default(),
        timeout: TIMEOUT_MS,
        requires: Vec::new(),
        ensures: Vec::new(),
        contract_locals: 0,
        at,
    }
}

impl Checker<'_> {
    pub(super) fn declare_tool(&mut self, decl: &ToolDecl) -> Option<usize> {
        let signature = Rc::new(self.unnamed_signature(decl)?);
        let checked = empty(&signature.name, self.at(decl));
        self.tools.push(ToolInfo { decl: Some(decl.clone()), signature, checked });
        Some(self.tools.len() - 1)
    }

    pub(super) fn check_tool(&mut self, number: usize) {
        let Some(decl) = self.tools[number].decl.clone() else { return };
        let signature = Rc::clone(&self.tools[number].signature);
        self.file = signature.file;
        let mut tool = empty(&signature.name, self.at_span(signature.span));
        tool.doc = decl.docs().unwrap_or_default();
        tool.result = signature.result.as_ref().map_or(Ty::Any, |(ty, _)| ty.clone());
        let docs: BTreeMap<String, String> =
            decl.params().iter().filter_map(|param| Some((param.name()?.text(), param.docs()?))).collect();
        let param = |param: &Param| hir::ToolParam {
            name: param.name.to_string(),
            doc: docs.get(&*param.name).cloned().unwrap_or_default(),
            ty: param.ty.clone(),
            default: param.default.clone(),
        };
        tool.params = signature.params.iter().map(param).collect();
        self.check_tool_types(&signature);
        let mut given: BTreeMap<String, Span> = BTreeMap::new();
        let mut written = Written::default();
        for property in decl.properties() {
            let (Some(name), Some(value)) = (property.name(), property.value()) else { continue };
            let text = name.text();
            if let Some(first) = given.get(&text) {
                let twice = self
                    .finding(Code::E0402, name.span(), format!("`{text}` is given twice"))
                    .label(*first, "it is given here first");
                self.report(twice);
                continue;
            }
            given.insert(text.clone(), name.span());
            self.tool_property(&mut tool, &mut written, &text, name.span(), &value);
        }
        // A name that is nearly `source` was reported already.
        let is_misspelt = |name: &String| nearest(name, PROPERTIES.iter().copied()) == Some("source");
        if !written.source && !given.keys().any(is_misspelt) {
            let message = format!("the tool `{}` does not say who provides it", signature.name);
            let missing = self.finding(Code::E0408, signature.span, message);
            self.report(missing.help(format!("add a `source`: {SOURCES}")));
        }
        self.settle_approval(&mut tool, &written, &signature);
        self.settle_unknown(&mut tool, &written, &signature);
        self.tools[number].checked = tool;
    }

    /// What a tool promises, once it is known what can be called in it.
    pub(super) fn check_tool_promises(&mut self, number: usize) {
        let Some(decl) = self.tools[number].decl.clone() else { return };
        let signature = Rc::clone(&self.tools[number].signature);
        self.file = signature.file;
        let result = self.tools[number].checked.result.clone();
        let span = signature.result.as_ref().map_or(signature.span, |(_, span)| *span);
        self.check_implemented(&decl.implemented(), &result, span);
        let contracts = self.contracts(&decl.requires(), &decl.ensures(), &signature, &result, FrameKind::Flow);
        let tool = &mut self.tools[number].checked;
        (tool.requires, tool.ensures) = (contracts.requires, contracts.ensures);
        tool.contract_locals = contracts.locals;
    }

    /// Arguments and results travel as JSON.
    fn check_tool_types(&mut self, signature: &Signature) {
        let params = signature.params.iter().map(|param| (param.ty.clone(), param.span, true));
        let result = signature.result.clone().map(|(ty, span)| (ty, span, false));
        for (ty, span, is_taken) in params.chain(result).collect::<Vec<_>>() {
            if let Some(culprit) = self.types.not_for_models(&ty, is_taken) {
                let verb = if is_taken { "takes" } else { "gives" };
                let message = format!("the tool `{}` {verb} `{}`, which cannot travel", signature.name, self.show(&ty));
                let cannot = self
                    .finding(Code::E0416, span, message)
                    .note(format!("`{}` has no JSON form", self.show(&culprit)))
                    .help("use texts, numbers, bools, lists, dicts with `str` keys, and protocols of these");
                self.report(cannot);
            }
        }
    }

    fn tool_property(
        &mut self,
        tool: &mut hir::Tool,
        written: &mut Written,
        name: &str,
        span: Span,
        value: &ast::Expr,
    ) {
        match name {
            "source" => {
                written.source = true;
                if let Some(source) = self.source(value) {
                    tool.source = source;
                }
            }
            "description" => tool.doc = self.text_setting(value, name).unwrap_or_default(),
            "risk" => {
                written.risk = Some(value.span());
                let known = Risk::ALL.map(|risk| (risk.as_str(), risk));
                tool.risk = self.word(value, name, &known).unwrap_or(tool.risk);
            }
            "effect" => {
                let known = ToolEffect::ALL.map(|effect| (effect.as_str(), effect));
                tool.effect = self.word(value, name, &known).unwrap_or(tool.effect);
            }
            "approval" => {
                let known = [("never", Approval::Never), ("on_write", Approval::OnWrite), ("always", Approval::Always)];
                written.approval = self.word(value, name, &known).map(|approval| (approval, value.span()));
            }
            "timeout" => {
                let timeout = self.duration_setting(value, name, 1..=TIMEOUT_ALLOWED_MAX_MS);
                tool.timeout = timeout.unwrap_or(tool.timeout);
            }
            "limits" => tool.limits = self.tool_limits(value),
            "idempotent" => written.idempotent = self.bool_setting(value, name),
            "on_unknown" => {
                written.on_unknown = self.text_setting(value, name).map(|word| (word, value.span()));
            }
            "probe" => written.probe = Some((value.clone(), span)),
            "key" => tool.key = self.key(tool, value),
            "retry" => {
                written.retry = Some(span);
                tool.backoff = self.retry(value);
            }
            _ if LATER.contains(&name) => self.report_not_available(span, &format!("the property `{name}` of a tool")),
            _ => {
                let unknown = self.finding(Code::E0401, span, format!("a tool has no property `{name}`"));
                let unknown = self.suggest(unknown, name, PROPERTIES.iter().chain(LATER).copied());
                self.report(unknown.note(format!("a tool has {}", super::listed(PROPERTIES.iter().copied()))));
            }
        }
    }

    /// One of some known words.
    fn word<T: Copy>(&mut self, value: &ast::Expr, name: &str, known: &[(&'static str, T)]) -> Option<T> {
        let text = self.text_setting(value, name)?;
        if let Some((_, meant)) = known.iter().find(|(word, _)| *word == text) {
            return Some(*meant);
        }
        let words = super::listed(known.iter().map(|(word, _)| *word));
        let wrong = self.finding(Code::E0409, value.span(), format!("`{name}` is \"{text}\", and may be {words}"));
        let wrong = self.suggest(wrong, &text, known.iter().map(|(word, _)| *word));
        self.report(wrong);
        None
    }

    /// `mcp("server", name: "tool")`, `wasm("file.wasm", export: "run")`, `builtin("time.now")`.
    fn source(&mut self, value: &ast::Expr) -> Option<ToolSource> {
        let (kind, args) = match value {
            ast::Expr::CallExpr(call) => match call.callee() {
                Some(ast::Expr::NameRef(name)) => (name.name().map(|name| name.text()), call.args()),
                _ => (None, Vec::new()),
            },
            _ => (None, Vec::new()),
        };
        let second = match kind.as_deref() {
            Some("mcp") => Some("name"),
            Some("wasm") => Some("export"),
            Some("builtin") => None,
            _ => {
                let wrong = self.finding(Code::E0404, value.span(), "`source` says who provides the tool");
                let wrong = self.suggest(wrong, kind.as_deref().unwrap_or_default(), ["mcp", "wasm", "builtin"]);
                self.report(wrong.help(SOURCES));
                return None;
            }
        };
        let (mut first, mut named, mut others) = (None, None, 0);
        for arg in &args {
            let Some(value) = arg.value() else { continue };
            match arg.name().map(|name| name.text()) {
                None if first.is_none() => first = Some(self.text_setting(&value, "source")?),
                Some(name) if Some(name.as_str()) == second => named = Some(self.text_setting(&value, "source")?),
                _ => others += 1,
            }
        }
        let kind = kind.unwrap_or_default();
        let is_empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        if others > 0 || is_empty(&first) || (second.is_some() && is_empty(&named)) {
            let form = match second {
                Some(second) => format!("{kind}(\"…\", {second}: \"…\")"),
                None => format!("{kind}(\"…\")"),
            };
            let wrong = self.finding(Code::E0404, value.span(), format!("a source of this kind is `{form}`"));
            self.report(wrong);
            return None;
        }
        let first = first.unwrap_or_default();
        Some(match (kind.as_str(), named) {
            ("mcp", Some(name)) => ToolSource::Mcp { server: first, name },
            ("wasm", Some(export)) => ToolSource::Wasm { module: first, export },
            _ => ToolSource::Builtin { name: first },
        })
    }

    fn tool_limits(&mut self, value: &ast::Expr) -> ToolLimits {
        let mut limits = ToolLimits::default();
        let known = ["memory", "cpu", "hosts", "paths", "file_size"];
        for Setting { name, value, .. } in self.settings(value, "limits", &known) {
            match name.as_str() {
                "memory" => {
                    let bytes = self.int_setting(&value, "memory", 1..=MEMORY_ALLOWED_MAX);
                    limits.memory = bytes.map(i64::unsigned_abs);
                }
                "file_size" => {
                    let bytes = self.int_setting(&value, "file_size", 1..=FILE_SIZE_ALLOWED_MAX);
                    limits.file_size = bytes.map(i64::unsigned_abs);
                }
                "cpu" => limits.cpu = self.duration_setting(&value, "cpu", 1..=TIMEOUT_ALLOWED_MAX_MS).map(Millis),
                "hosts" => limits.hosts = self.hosts(&value),
                _ => limits.paths = self.granted_paths(&value),
            }
        }
        limits
    }

    /// Names of hosts, some with a port.
    fn hosts(&mut self, value: &ast::Expr) -> Vec<String> {
        let hosts = self.texts(value, "hosts", PLACES_ALLOWED_MAX);
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | ':' | '*');
        if let Some(host) = hosts.iter().find(|host| host.is_empty() || !host.chars().all(is_letter)) {
            let odd = self.finding(Code::E0804, value.span(), format!("`{host}` is no name of a host"));
            self.report(odd.help("write the name alone, without `https://` and without a path: \"docs.example\""));
        }
        hosts
    }

    /// Folders and files below the folder that a node gives its tools.
    pub(super) fn granted_paths(&mut self, value: &ast::Expr) -> Vec<String> {
        let paths = self.texts(value, "paths", PLACES_ALLOWED_MAX);
        if let Some(path) = paths.iter().find(|path| !super::std_tools::is_inside(path)) {
            let beyond = self
                .finding(Code::E0804, value.span(), format!("`{path}` does not lie below the folder of the tools"))
                .help("write a relative path without `..`, such as \"notes/\"");
            self.report(beyond);
        }
        paths
    }

    /// The parameter that is the business key.
    fn key(&mut self, tool: &hir::Tool, value: &ast::Expr) -> Option<u32> {
        let name = match value {
            ast::Expr::NameRef(name) => name.name()?.text(),
            _ => self.text_setting(value, "key")?,
        };
        let place = tool.params.iter().position(|param| param.name == name);
        if place.is_none() {
            let unknown =
                self.finding(Code::E0403, value.span(), format!("`key` names a parameter, and `{name}` is none"));
            let unknown = self.suggest(unknown, &name, tool.params.iter().map(|param| param.name.as_str()));
            self.report(unknown);
        }
        place.map(|place| place as u32)
    }

    /// Whether a person is asked.
    fn settle_approval(&mut self, tool: &mut hir::Tool, written: &Written, signature: &Signature) {
        let by_risk = match tool.risk {
            Risk::Low => Approval::Never,
            Risk::Medium => Approval::OnWrite,
            Risk::High | Risk::Critical => Approval::Always,
        };
        let approval = written.approval.map_or(by_risk, |(approval, _)| approval);
        let asks = match approval {
            Approval::Never => false,
            Approval::OnWrite => tool.effect == ToolEffect::Write,
            Approval::Always => true,
        };
        let is_evaded = match tool.risk {
            Risk::Low | Risk::Medium => false,
            Risk::High => !asks,
            // It asks whatever is written, and that it never does must not be.
            Risk::Critical => approval == Approval::Never,
        };
        if let (true, Some((_, span))) = (is_evaded, written.approval) {
            let message = format!("`{}` has {} risk and never asks for approval", signature.name, tool.risk.as_str());
            let mut never = self.finding(Code::E0806, span, message);
            if let Some(risk) = written.risk {
                never = never.label(risk, "its risk is written here");
            }
            if approval == Approval::OnWrite {
                never = never.note(format!("its effect is \"{}\", so `on_write` never asks", tool.effect.as_str()));
            }
            self.report(never.help("leave `approval` out: a tool of this risk asks each time"));
        }
        tool.asks = asks || tool.risk == Risk::Critical;
    }

    /// What becomes of a call whose outcome nobody knows. Calling again is right only if twice is as good as once.
    fn settle_unknown(&mut self, tool: &mut hir::Tool, written: &Written, signature: &Signature) {
        let may_repeat = written.idempotent == Some(true);
        let word = written.on_unknown.as_ref().map(|(word, _)| word.as_str());
        tool.idempotent = may_repeat && matches!(word, None | Some("retry"));
        let name = &signature.name;
        if let (Some(span), false) = (written.retry, may_repeat) {
            let message = format!("`{name}` is tried again, and twice may not be as good as once");
            let unsafe_retry = self.finding(Code::E0403, span, message);
            self.report(unsafe_retry.help("add `idempotent: true` if it is, or leave `retry` out"));
        }
        let idle = "`probe` means something with `on_unknown: \"probe\"` only";
        let Some((word, span)) = &written.on_unknown else {
            if let Some((_, span)) = &written.probe {
                let idle = self.finding(Code::E0403, *span, idle);
                self.report(idle.help("add `on_unknown: \"probe\"`"));
            }
            return;
        };
        match (word.as_str(), &written.probe) {
            ("fail", None) => {}
            ("ask", None) => tool.on_unknown = OnUnknown::Ask,
            ("retry", None) if may_repeat => {}
            ("retry", None) => {
                let message = format!("`{name}` is called again, and twice may not be as good as once");
                let unsafe_retry = self.finding(Code::E0403, *span, message);
                self.report(unsafe_retry.help("add `idempotent: true` if it is, or write \"ask\" or \"probe\""));
            }
            ("probe", Some((probe, _))) => {
                if let Some(found) = self.probe(tool, signature, probe) {
                    tool.on_unknown = found;
                }
            }
            ("probe", None) => {
                let lacks = self.finding(Code::E0403, *span, "`on_unknown: \"probe\"` needs a `probe`");
                self.report(lacks.help("add `probe: TOOL`, a tool that finds out"));
            }
            ("fail" | "ask" | "retry", Some((_, probe))) => {
                let idle = self.finding(Code::E0403, *probe, idle);
                self.report(idle.label(*span, "this is written here"));
            }
            (other, _) => {
                let message = format!("`on_unknown` is \"{other}\", and may be `ask`, `probe`, `retry` and `fail`");
                let wrong = self.finding(Code::E0409, *span, message);
                let wrong = self.suggest(wrong, other, ["ask", "probe", "retry", "fail"]);
                self.report(wrong);
            }
        }
    }

    /// The tool that finds out what became of a call: its parameters are some of the call's, and it gives what the call
    /// gave, or `none` if the call did not happen.
    fn probe(&mut self, tool: &hir::Tool, signature: &Signature, value: &ast::Expr) -> Option<OnUnknown> {
        let found = self.static_item(value).map(|(item, _)| item);
        if found.is_none() && self.unknown_item(value).is_some() {
            return None;
        }
        let Some(Item::Tool(number)) = found else {
            let wrong = self.finding(Code::E0403, value.span(), "`probe` names a tool");
            self.report(wrong.help("declare a tool that looks whether the call has happened"));
            return None;
        };
        let other = Rc::clone(&self.tools[number].signature);
        let mut args = Vec::new();
        for param in &other.params {
            let place = tool.params.iter().position(|own| own.name == *param.name);
            match place.filter(|place| self.types.fit(&tool.params[*place].ty, &param.ty) == Fit::Same) {
                Some(place) => args.push(place as u16),
                None => {
                    let (probe, wanted, ty) = (&other.name, &param.name, self.show(&param.ty));
                    let message = format!("`{probe}` takes `{wanted}: {ty}`, which `{}` does not", signature.name);
                    let wrong = self
                        .finding(Code::E0403, value.span(), message)
                        .help("a probe takes some of the parameters of the tool it is for, by their names");
                    self.report(wrong);
                    return None;
                }
            }
        }
        let result = other.result.as_ref().map_or(Ty::Any, |(ty, _)| ty.clone());
        let wanted = Ty::option(tool.result.clone());
        let is_itself = other.span == signature.span && other.file == signature.file;
        if is_itself || result != wanted {
            let message = format!("a probe for `{}` gives `{}`", signature.name, self.show(&wanted));
            let wrong = self
                .finding(Code::E0403, value.span(), message)
                .help("`none` says that the call did not happen, any other value is its result");
            self.report(wrong);
            return None;
        }
        Some(OnUnknown::Probe(number as u32, args))
    }
}

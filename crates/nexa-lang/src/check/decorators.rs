//! Decorators: `@id`, `@deprecated` and `@allow`.
//!
//! `@id("name")` is the identity of the declaration's node in the graph of the program, so it changes nothing of what a
//! program does; here it is only checked that each is said once. `@deprecated("why")` is told wherever the declaration
//! is used outside of itself. `@allow(W0604)` keeps findings of that code in the declaration quiet; errors cannot be.

use std::collections::BTreeMap;

use nexa_vm::module::outline::Pinned;

use super::Checker;
use super::modules::Item;
use crate::ast::{AstNode, Decl, Decorator, Expr};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::source::{FileId, Span};

/// The decorators of the language.
const KNOWN: &[&str] = &["id", "deprecated", "allow"];

/// What decorators say of the declarations of a program.
#[derive(Default)]
pub(super) struct Decorated {
    /// What should not be used any more, why, and where it is declared.
    deprecated: Vec<(Item, String, FileId, Span)>,
    /// Where findings of a code are kept quiet.
    allowed: Vec<(FileId, Span, Code)>,
    /// Where each identity of a file is given first.
    ids: BTreeMap<(FileId, String), Span>,
    /// What they identify.
    pins: BTreeMap<Pinned, String>,
}

impl Decorated {
    /// The names that nodes were given, in ascending order.
    pub(super) fn pins(&self) -> Vec<(Pinned, String)> {
        self.pins.iter().map(|(pinned, id)| (*pinned, id.clone())).collect()
    }
}

impl Checker<'_> {
    /// Reads the decorators of a declaration.
    pub(super) fn decorate(&mut self, decl: &Decl, item: Option<Item>) {
        let mut given: BTreeMap<String, Span> = BTreeMap::new();
        for decorator in decl.decorators() {
            let Some(name) = decorator.name() else { continue };
            let text = name.text();
            // What is allowed may be said in several lists.
            if text != "allow"
                && let Some(first) = given.insert(text.clone(), name.span())
            {
                let twice = self
                    .finding(Code::E0402, name.span(), format!("`@{text}` is given twice"))
                    .label(first, "it is given here first");
                self.report(twice);
                continue;
            }
            match text.as_str() {
                "id" => self.pin_id(&decorator, item),
                "deprecated" => {
                    let why = self.decorator_text(&decorator, "deprecated", "what to use instead");
                    if let (Some(why), Some(item)) = (why, item) {
                        self.decorated.deprecated.push((item, why, self.file, decl.span()));
                    }
                }
                "allow" => self.allow(&decorator, decl.span()),
                _ => {
                    let unknown = self.finding(Code::E0401, name.span(), format!("there is no decorator `@{text}`"));
                    let unknown = self.suggest(unknown, &text, KNOWN.iter().copied());
                    self.report(unknown.note("there are `@id`, `@deprecated` and `@allow`"));
                }
            }
        }
    }

    fn pin_id(&mut self, decorator: &Decorator, item: Option<Item>) {
        let Some(id) = self.decorator_text(decorator, "id", "name") else { return };
        let span = decorator.span();
        if id.is_empty() || id.contains(char::is_whitespace) || id.contains(['/', '#', '.']) {
            self.out_of_range(span, "id", &format!("\"{id}\""), "a name without blanks, `/`, `#` and `.`");
            return;
        }
        if let Some(first) = self.decorated.ids.get(&(self.file, id.clone())) {
            let twice = self
                .finding(Code::E0207, span, format!("the id `{id}` is given twice"))
                .label(*first, "it is given here first");
            self.report(twice);
            return;
        }
        let pinned = match item {
            Some(Item::Agent(agent)) => Some(Pinned::Agent(agent as u32)),
            Some(Item::Tool(tool)) => Some(Pinned::Tool(tool as u32)),
            Some(Item::Flow(flow)) => Some(Pinned::Flow(flow as u32)),
            _ => None,
        };
        if let Some(pinned) = pinned {
            self.decorated.pins.insert(pinned, id.clone());
        }
        self.decorated.ids.insert((self.file, id), span);
    }

    /// The text that a decorator takes.
    fn decorator_text(&mut self, decorator: &Decorator, name: &str, example: &str) -> Option<String> {
        if let [argument] = decorator.args().as_slice()
            && argument.name().is_none()
            && let Some(Expr::StringExpr(text)) = argument.value()
            && let Some(text) = text.plain()
        {
            return Some(text);
        }
        let wrong = self.finding(Code::E0304, decorator.span(), format!("`@{name}` takes one text"));
        self.report(wrong.help(format!("write `@{name}(\"{example}\")`")));
        None
    }

    fn allow(&mut self, decorator: &Decorator, within: Span) {
        let args = decorator.args();
        if args.is_empty() {
            let empty = self.finding(Code::E0304, decorator.span(), "`@allow` says which findings are meant");
            self.report(empty.help("write their codes: `@allow(W0604)`"));
        }
        for argument in args {
            let code = match argument.value() {
                Some(Expr::NameRef(name)) => name.name().map(|name| name.text()),
                _ => None,
            };
            let known = code.as_deref().and_then(Code::named);
            match (code, known) {
                (_, Some(code)) if code.severity() != Severity::Error => {
                    self.decorated.allowed.push((self.file, within, code));
                }
                (_, Some(code)) => {
                    let message = format!("{code} is an error, and errors cannot be allowed");
                    let wrong = self.finding(Code::E0403, argument.span(), message);
                    self.report(wrong);
                }
                (code, None) => {
                    let code = code.unwrap_or_default();
                    let unknown = self.finding(Code::E0208, argument.span(), format!("there is no code `{code}`"));
                    let unknown = self.suggest(unknown, &code, Code::ALL.iter().map(|code| code.name()));
                    self.report(unknown.help("write the code of a warning: `@allow(W0604)`"));
                }
            }
        }
    }

    /// W0213 where something deprecated is used outside of its own declaration.
    pub(super) fn note_use(&mut self, item: Item, span: Span) {
        let found = self.decorated.deprecated.iter().find(|(known, ..)| *known == item);
        let Some((_, why, file, declared)) = found else { return };
        let is_own = *file == self.file && declared.start <= span.start && span.end <= declared.end;
        let is_told =
            |finding: &Diagnostic| finding.code == Code::W0213 && finding.file == self.file && finding.span == span;
        if is_own || self.diagnostics.iter().any(is_told) {
            return;
        }
        let message =
            if why.is_empty() { "this is deprecated".to_owned() } else { format!("this is deprecated: {why}") };
        let old = self.finding(Code::W0213, span, message);
        self.report(old);
    }

    /// Drops the findings that a declaration allows.
    pub(super) fn drop_allowed(&mut self) {
        let allowed = std::mem::take(&mut self.decorated.allowed);
        let is_allowed = |finding: &Diagnostic| {
            allowed.iter().any(|(file, within, code)| {
                let is_inside = within.start <= finding.span.start && finding.span.end <= within.end;
                *code == finding.code && *file == finding.file && is_inside
            })
        };
        self.diagnostics.retain(|finding| !is_allowed(finding));
    }
}

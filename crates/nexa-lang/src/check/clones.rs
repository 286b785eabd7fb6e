//! `A.clone(…)`, `A.stream(…)` and `fallback: B`: agents that are made of declared ones, or stand in for them.
//!
//! What a clone changes are constants, so a clone is one more agent of the program, made when it is compiled; the agent
//! that it was made of stays as it is. A stream is the run of a clone whose model sends its answer piece by piece to
//! whoever watches. What the program itself sees of it is the recorded answer, cut at fixed borders: a chunk is a word
//! with the blanks after it (blanks at the very start are a chunk of their own). The borders depend on the text alone,
//! so a replay walks through the same chunks, however the pieces came in.

use std::rc::Rc;

use super::Checker;
use super::calls::Piped;
use super::declarations::{AgentInfo, Signature};
use super::modules::Item;
use crate::ast::{self, AstNode, Name};
use crate::diagnostic::Code;
use crate::hir::{Expr, ExprKind};
use crate::source::{FileId, Span};
use crate::types::{Fit, Ty};

/// The longest name of a clone.
const NAME_BYTES_MAX: usize = 64;
/// A chunk of a stream.
const CHUNK: &str = r"\S+\s*|\s+";

/// A `fallback` as it is written.
#[derive(Debug)]
pub(super) struct Fallback {
    /// Whose it is; not known while its properties are read.
    agent: Option<usize>,
    to: usize,
    file: FileId,
    span: Span,
}

impl Checker<'_> {
    /// The agent that a clone at this place is.
    pub(super) fn clone_agent(&mut self, number: usize, owner: &Name, args: &[ast::Arg], span: Span) -> usize {
        if let Some(known) = self.clones.get(&(self.file, span)) {
            return *known;
        }
        let base = Rc::clone(&self.agents[number].signature);
        let (mut agent, mut name) = (self.agents[number].checked.clone(), base.name.to_string());
        agent.at = self.at_span(span);
        let mut given: Vec<(String, Span)> = Vec::new();
        for arg in args {
            let Some(value) = arg.value() else { continue };
            let Some(property) = arg.name() else {
                let message = format!("`{}.clone` takes properties by name", owner.text());
                let nameless = self.finding(Code::E0304, value.span(), message);
                self.report(nameless.help("write `temperature: 0.0`, and so on"));
                continue;
            };
            let text = property.text();
            if let Some((_, first)) = given.iter().find(|(known, _)| *known == text) {
                let twice = self.finding(Code::E0402, property.span(), format!("`{text}` is given twice"));
                let twice = twice.label(*first, "it is given here first");
                self.report(twice);
                continue;
            }
            given.push((text.clone(), property.span()));
            if text == "name" {
                if let Some(wanted) = self.text_setting(&value, "name") {
                    if wanted.is_empty() || wanted.len() > NAME_BYTES_MAX {
                        self.out_of_range(value.span(), "name", &format!("{wanted:?}"), "a text of 1 to 64 bytes");
                    } else {
                        name = wanted;
                    }
                }
            } else {
                self.property(&mut agent, &base, &text, property.span(), &value);
            }
        }
        agent.name.clone_from(&name);
        let made = self.derived(number, Signature { name: name.into(), ..(*base).clone() }, agent);
        self.agents[made].checked.clone_of = Some(number as u32);
        self.clones.insert((self.file, span), made);
        self.own_fallback(made);
        self.check_fallbacks();
        made
    }

    /// Runs an agent whose model sends its answer in pieces.
    pub(super) fn stream(
        &mut self,
        number: usize,
        owner: &Name,
        args: &[ast::Arg],
        piped: Option<Piped>,
        span: Span,
    ) -> Expr {
        let signature = Rc::clone(&self.agents[number].signature);
        if let Some((result, _)) = signature.result.clone().filter(|(ty, _)| *ty != Ty::Str && !ty.is_silent()) {
            let message = format!("`{}` gives `{}`, and only text can be streamed", signature.name, self.show(&result));
            let wrong = self.finding(Code::E0301, owner.span(), message);
            self.look_at(args);
            return self.refuse(wrong.help(format!("run it: `{}.run(…)`", owner.text())));
        }
        let streaming = match self.streams.get(&number) {
            Some(known) => *known,
            None => {
                let agent = crate::hir::Agent { stream: true, ..self.agents[number].checked.clone() };
                let made = if self.agents[number].checked.stream {
                    number
                } else {
                    self.derived(number, (*signature).clone(), agent)
                };
                self.streams.insert(number, made);
                made
            }
        };
        let mut made = self.run_agent(streaming, owner, args, piped, span);
        if !made.ty.is_silent() {
            made.ty = Ty::Stream(Rc::new(Ty::Str));
        }
        made
    }

    /// The chunks of a stream, as a list.
    pub(super) fn chunks(&mut self, stream: Expr) -> Expr {
        let at = stream.at;
        let number = nexa_vm::stdlib::lookup("regex.all").map_or(u16::MAX, |function| function.number);
        let text = Expr { ty: Ty::Str, ..stream };
        Expr::new(ExprKind::Std(number, vec![Expr::text(CHUNK, at), text]), Ty::list(Ty::Str), at)
    }

    pub(super) fn derived(&mut self, number: usize, signature: Signature, mut checked: crate::hir::Agent) -> usize {
        checked.clone_of = None;
        let decl = self.agents[number].decl.clone();
        self.agents.push(AgentInfo { decl, signature: Rc::new(signature), checked });
        let made = self.agents.len() - 1;
        self.add_run(made);
        made
    }

    /// `fallback: B`: which agent it means. What it must be like is looked at when all agents are known.
    pub(super) fn fallback(&mut self, value: &ast::Expr) -> Option<u32> {
        let named = match value {
            ast::Expr::NameRef(_) | ast::Expr::FieldExpr(_) => self.static_item(value),
            _ => None,
        };
        if named.is_none() && self.unknown_item(value).is_some() {
            return None;
        }
        let Some((Item::Agent(to), _)) = named else {
            let wrong = self.finding(Code::E0410, value.span(), "`fallback` takes the name of an agent");
            self.report(wrong.help("declare one with the same parameters, and name it here"));
            return None;
        };
        self.fallbacks.push(Fallback { agent: None, to, file: self.file, span: value.span() });
        Some(to as u32)
    }

    /// Says whose fallback was just read.
    pub(super) fn own_fallback(&mut self, number: usize) {
        if let Some(fallback) = self.fallbacks.last_mut() {
            fallback.agent.get_or_insert(number);
        }
    }

    /// E0410: an agent that stands in for another takes and gives the same, and no way leads back.
    pub(super) fn check_fallbacks(&mut self) {
        let here = self.file;
        // A circle is one mistake, however many agents it goes through.
        let mut told: Vec<usize> = Vec::new();
        for Fallback { agent, to, file, span } in std::mem::take(&mut self.fallbacks) {
            let Some(agent) = agent else { continue };
            self.file = file;
            let (from, stand_in) = (Rc::clone(&self.agents[agent].signature), Rc::clone(&self.agents[to].signature));
            let mut seen = vec![agent];
            let mut next = Some(to as u32);
            while let Some(number) = next {
                if seen.contains(&(number as usize)) {
                    let back = &self.agents[number as usize].signature.name;
                    let message = format!("the fallbacks of `{}` lead back to `{back}`", from.name);
                    let cycle = self.finding(Code::E0410, span, message);
                    if !seen.iter().any(|agent| told.contains(agent)) {
                        self.report(cycle.help("the last agent of the row has no fallback"));
                    }
                    told.append(&mut seen);
                    break;
                }
                seen.push(number as usize);
                next = self.agents[number as usize].checked.fallback;
            }
            let has_same_params = from.params.len() == stand_in.params.len()
                && from.params.iter().zip(&stand_in.params).all(|(a, b)| self.types.fit(&a.ty, &b.ty) == Fit::Same);
            let (given, wanted) = (self.agents[to].checked.result.clone(), self.agents[agent].checked.result.clone());
            let is_alike = has_same_params && self.types.fit(&given, &wanted) == Fit::Same;
            if !is_alike {
                let what = if has_same_params { "gives another result than" } else { "takes other parameters than" };
                let message = format!("`{}` {what} `{}`, so it cannot stand in for it", stand_in.name, from.name);
                let other = self.finding(Code::E0410, span, message);
                let other = other.label_in(stand_in.file, stand_in.span, "it is declared here");
                self.report(other);
            }
        }
        self.file = here;
    }
}

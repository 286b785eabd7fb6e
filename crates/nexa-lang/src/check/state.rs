//! What a program keeps: saved states, memory, secrets.
//!
//! A secret is a handle that nothing turns into text. What would put one into a prompt is E0802, what would put one
//! where people or later runs see it is E0803. A secret that is hidden in a value of type `any` passes here and is
//! found by the machine, which ends the run with `secret_leak`.

use nexa_types::limits::SECRET_NAME_BYTES_MAX;
use nexa_vm::op::MemoryScope;

use super::Checker;
use crate::diagnostic::Code;
use crate::hir::{Const, Expr, ExprKind, MemoryUse};
use crate::source::Span;
use crate::types::Ty;

/// Where the arguments of a standard function go, if they leave the program.
pub(super) fn leaves_to(function: &str) -> Option<&'static str> {
    Some(match function {
        "emit" => "what is emitted",
        "print" => "the log",
        "approve" => "a question to a person",
        "memory.store" => "the memory",
        "fail" => "an error, which is recorded",
        _ => return None,
    })
}

impl Checker<'_> {
    /// A function of the standard library that works on what the program keeps; the values stand in the order of its
    /// parameters.
    pub(super) fn state_call(&mut self, name: &str, values: &mut Vec<Expr>, ty: &Ty, span: Span) -> Option<Expr> {
        if !matches!(name, "snapshot" | "restore" | "secret") && !name.starts_with("memory.") {
            return None;
        }
        let at = self.at_span(span);
        let mut values = values.drain(..);
        let mut take = || values.next().unwrap_or_else(|| Expr::constant(Const::None, at));
        let made = |kind| Some(Expr::new(kind, ty.clone(), at));
        match name {
            "snapshot" => made(ExprKind::Snapshot),
            "restore" => made(ExprKind::Restore(Box::new(take()))),
            "secret" => Some(self.secret(&take(), span)),
            "memory.store" => {
                let (key, value, scope) = (take(), take(), take());
                match self.memory_scope(&scope, span) {
                    Some(scope) => made(ExprKind::Memory(MemoryUse::Store, scope, vec![key, value])),
                    None => Some(self.broken(span)),
                }
            }
            "memory.load" => {
                let (key, scope) = (take(), take());
                match self.memory_scope(&scope, span) {
                    Some(scope) => made(ExprKind::Memory(MemoryUse::Load, scope, vec![key])),
                    None => Some(self.broken(span)),
                }
            }
            "memory.recall" => {
                let (query, count, scope) = (take(), take(), take());
                match self.memory_scope(&scope, span) {
                    Some(scope) => made(ExprKind::Memory(MemoryUse::Recall, scope, vec![query, count])),
                    None => Some(self.broken(span)),
                }
            }
            _ => None,
        }
    }

    /// `secret("NAME")`: the name is written out, so that who reads the program sees which secrets it uses.
    fn secret(&mut self, name: &Expr, span: Span) -> Expr {
        let ExprKind::Const(Const::Str(text)) = &name.kind else {
            let computed = self.finding(Code::E0404, span, "the name of a secret must be a constant");
            return self.refuse(computed.help("write it out: `secret(\"API_KEY\")`"));
        };
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
        if text.is_empty() || text.len() > SECRET_NAME_BYTES_MAX || !text.chars().all(is_letter) {
            let odd = self.finding(Code::E0403, span, format!("`{text}` is no name of a secret"));
            return self.refuse(odd.help("a name has letters, digits, `_`, `-` and `.`"));
        }
        Expr::new(ExprKind::Secret(text.clone()), Ty::Secret, self.at_span(span))
    }

    /// The scope of a memory, which is written out.
    fn memory_scope(&mut self, scope: &Expr, span: Span) -> Option<MemoryScope> {
        let wrong = match &scope.kind {
            ExprKind::Const(Const::Str(text)) => match &**text {
                "agent" => return Some(MemoryScope::Agent),
                "workload" => return Some(MemoryScope::Workload),
                "tenant" => {
                    if !self.may_use_tenant_memory {
                        let lacks = self.finding(Code::E0807, span, "the tenant's memory is used without a grant");
                        self.report(lacks.help("write `uses memory.tenant` after the parameters of the flow"));
                    }
                    return Some(MemoryScope::Tenant);
                }
                text => self.finding(Code::E0412, span, format!("a memory has no scope `{text}`")),
            },
            _ => self.finding(Code::E0412, span, "the scope of a memory must be a constant"),
        };
        let wrong = match &scope.kind {
            ExprKind::Const(Const::Str(text)) => self.suggest(wrong, text, ["agent", "workload", "tenant"]),
            _ => wrong,
        };
        self.report(wrong.help("it is \"agent\", \"workload\" or \"tenant\""));
        None
    }

    /// E0803 if a value that is about to leave is or holds a secret.
    pub(super) fn leaks(&mut self, value: &Expr, span: Span, into: &str) -> bool {
        if !self.types.holds_secret(&value.ty) {
            return false;
        }
        let leak = self.finding(Code::E0803, span, format!("a secret flows into {into}"));
        self.report(leak.help("a secret can be handed to a tool, and to nothing else"));
        true
    }

    /// E0802 if a value that becomes part of a prompt is or holds a secret.
    pub(super) fn is_prompted(&mut self, value: &Expr, span: Span, agent: &str) -> bool {
        if !self.types.holds_secret(&value.ty) {
            return false;
        }
        let leak = self.finding(Code::E0802, span, format!("a secret flows into the prompt of `{agent}`"));
        self.report(leak.help("hand it to a tool that the agent may call; a model must not see it"));
        true
    }
}

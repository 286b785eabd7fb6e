//! Flows of which a call is an agent of its own: those that have a budget or a schedule, and those that are offered to a
//! model. What they take and give leaves one machine for another.

use std::rc::Rc;

use super::Checker;
use super::declarations::Progress;
use crate::diagnostic::{Code, Diagnostic};
use crate::types::Ty;

impl Checker<'_> {
    /// Checks what such flows take and give, once it is known of all of them.
    pub(super) fn check_apart(&mut self) {
        for (file, span, number) in std::mem::take(&mut self.offered_flows) {
            let flow = &self.flows[number];
            let Progress::Done(result) = &flow.progress else { continue };
            let Some(culprit) = self.types.not_for_models(result, false) else { continue };
            let signature = Rc::clone(&flow.signature);
            let message =
                format!("`{}` gives `{}`, which cannot be told to a model", signature.name, self.show(result));
            let cannot = Diagnostic::new(Code::E0416, file, span, message)
                .label_in(signature.file, signature.span, "the flow is declared here")
                .note(format!("`{}` has no JSON form", self.show(&culprit)))
                .help("offer a flow that gives texts, numbers, bools, lists, dicts with `str` keys, and protocols of these");
            self.report(cannot);
        }
        for number in 0..self.flows.len() {
            if self.flows[number].runs_apart() {
                self.check_bound(number);
            }
        }
    }

    /// E0906 for a handle or a snapshot that such a flow takes or gives.
    fn check_bound(&mut self, number: usize) {
        let flow = &self.flows[number];
        let (signature, budget) = (Rc::clone(&flow.signature), flow.budget);
        let params = signature.params.iter().map(|param| (param.ty.clone(), param.span, "takes"));
        let result = match &flow.progress {
            Progress::Done(ty) => {
                let span = signature.result.as_ref().map_or(signature.span, |(_, span)| *span);
                Some((ty.clone(), span, "gives"))
            }
            _ => None,
        };
        for (ty, span, verb) in params.chain(result) {
            let is_bound = |ty: &Ty| matches!(ty, Ty::Handle(_) | Ty::Snapshot);
            let Some(culprit) = self.types.first_within(&ty, is_bound) else { continue };
            let (name, culprit) = (&signature.name, self.show(&culprit));
            let message = format!("`{name}` runs as an agent of its own and {verb} a `{culprit}`, which is dead there");
            let mut dead = Diagnostic::new(Code::E0906, signature.file, span, message)
                .note("handles and snapshots are of use to the agent that made them, and to no other")
                .help("await or restore where it was made and hand on the value, or leave the clause out");
            if let Some((_, budget)) = budget {
                dead = dead.label(budget, "a call with a budget of its own is an agent of its own");
            }
            self.report(dead);
        }
    }
}

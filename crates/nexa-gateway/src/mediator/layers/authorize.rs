//! Whether they may. A principal with read access may ask and may not change; only operators may ask about nodes, and tell
//! them what to do.
//!
//! Whose data somebody sees is not decided here: every handler looks only into the caller's own tenant, and what belongs
//! to another one is not found.

use nexa_proto::refusal::Refusal;
use nexa_types::Reason;

use super::{Layer, around, go_on, tokens::Access};
use crate::mediator::{Message, order};

pub(in crate::mediator) fn authorize() -> Layer {
    around(
        order::AUTHORIZE,
        "authorize",
        |_| true,
        |call, next| async move {
            match (&call.identity, &call.message) {
                (None, _) => Err(Refusal::new(Reason::Unauthenticated, "who is asking is not known")),
                (Some(identity), message) if message.is_for_operators() && identity.access != Access::Operator => {
                    let message = format!("`{}` may not `{}`", identity.principal, message.name());
                    Err(Refusal::new(Reason::PermissionDenied, message)
                        .hint("this is for operators: use a token whose access is `operator`"))
                }
                (Some(identity), Message::Command(_)) if identity.access == Access::Read => {
                    let message = format!("`{}` may not `{}`", identity.principal, call.message.name());
                    Err(Refusal::new(Reason::PermissionDenied, message)
                        .hint("use a token with full access; this one may only read"))
                }
                (Some(_), _) => go_on(next, call).await,
            }
        },
    )
}

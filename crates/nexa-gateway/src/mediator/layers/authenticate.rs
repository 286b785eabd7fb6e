//! Who asks.
//!
//! Without configured tokens everybody is the local principal of the local tenant; the doors then listen on loopback or
//! a Unix socket only. With tokens, everybody shows one, and no answer tells whether a token was missing, unknown or ill
//! formed.

use std::sync::Arc;

use nexa_proto::refusal::Refusal;
use nexa_types::Reason;

use super::{Layer, around, go_on, tokens::Tokens};
use crate::mediator::{Credentials, Identity, order};

pub(in crate::mediator) fn authenticate(tokens: Option<Arc<Tokens>>) -> Layer {
    around(
        order::AUTHENTICATE,
        "authenticate",
        |_| true,
        move |mut call, next| {
            let identity = identify(tokens.as_deref(), &call.credentials);
            async move {
                call.identity = Some(identity?);
                go_on(next, call).await
            }
        },
    )
}

/// Who shows these.
pub(crate) fn identify(tokens: Option<&Tokens>, credentials: &Credentials) -> Result<Identity, Refusal> {
    let Some(tokens) = tokens else { return Ok(Identity::local()) };
    let known = match credentials {
        Credentials::Bearer(token) => tokens.find(token),
        Credentials::None => None,
    };
    known.ok_or_else(|| {
        Refusal::new(Reason::Unauthenticated, "who is asking is not known")
            .hint("send a valid token as `authorization: Bearer TOKEN`")
    })
}

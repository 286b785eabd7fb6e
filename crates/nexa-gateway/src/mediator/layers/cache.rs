//! Replies that never change, kept for a while: for now what a program offers, which its hash fixes.
//!
//! Bound: `cached_replies_max`; the least used goes. The key has the tenant and the principal, so that nobody sees what
//! was cached for somebody else.

use moka::sync::Cache;
use nexa_types::ModuleHash;

use super::{Layer, around, go_on};
use crate::mediator::{Call, Identity, Limits, Message, ProgramInfo, Query, Reply, order};

pub(in crate::mediator) fn cache(limits: &Limits) -> Layer {
    let kept: Cache<(Identity, ModuleHash), ProgramInfo> =
        Cache::builder().max_capacity(limits.cached_replies_max).time_to_live(limits.cached_for).build();
    around(order::CACHE, "cache", is_immutable, move |call, next| {
        let kept = kept.clone();
        async move {
            let Some(key) = key(&call) else { return go_on(next, call).await };
            if let Some(program) = kept.get(&key) {
                return Ok(Reply::Program(program));
            }
            let reply = go_on(next, call).await?;
            if let Reply::Program(program) = &reply {
                kept.insert(key, program.clone());
            }
            Ok(reply)
        }
    })
}

fn is_immutable(message: &Message) -> bool {
    matches!(message, Message::Query(Query::GetProgram(_)))
}

fn key(call: &Call) -> Option<(Identity, ModuleHash)> {
    match &call.message {
        Message::Query(Query::GetProgram(get)) => Some((call.identity.clone()?, get.module)),
        _ => None,
    }
}

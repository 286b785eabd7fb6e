//! Not for ever: a call ends with DEADLINE_EXCEEDED when its time is over. Watches end with their workload instead.
//!
//! A command goes on behind a timeout; asking again under its request id tells how it ended.

use std::time::Duration;

use nexa_proto::refusal::Refusal;
use nexa_types::Reason;

use super::{Layer, around, go_on};
use crate::mediator::{Limits, Message, order};

pub(in crate::mediator) fn timeout(limits: &Limits) -> Layer {
    let most = limits.call_time_max;
    around(
        order::TIMEOUT,
        "timeout",
        |message: &Message| !message.is_watch(),
        move |call, next| {
            let time = call.patience.map_or(most, |patience| patience.min(most));
            async move {
                let name = call.message.name();
                tokio::time::timeout(time, go_on(next, call)).await.unwrap_or_else(|_| Err(too_late(name, time)))
            }
        },
    )
}

fn too_late(name: &str, time: Duration) -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, format!("`{name}` took longer than {time:?}"))
        .hint("ask again with the same request id: it is done at most once")
}

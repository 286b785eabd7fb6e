//! What was asked and how it went: one line a call, with fields. Contents are never logged.

use std::sync::Arc;
use std::time::Instant;

use metrics::histogram;
use nexa_ports::clock::Clock;
use nexa_proto::refusal::code;
use nexa_types::Reason;
use tonic::Code;
use tracing::Instrument;

use super::{Layer, around, go_on};
use crate::mediator::order;

pub(in crate::mediator) fn log(clock: Arc<dyn Clock>) -> Layer {
    around(
        order::LOG,
        "log",
        |_| true,
        move |call, next| {
            let clock = clock.clone();
            let name = call.message.name();
            let (request, identity) = (call.message.request(), call.identity.as_ref());
            // Fields are written out only where somebody listens.
            let span = tracing::debug_span!(
                "call",
                name,
                tenant = shown(identity.map(|identity| &identity.tenant)),
                principal = shown(identity.map(|identity| &identity.principal)),
                request = shown(request)
            );
            async move {
                let (started, began) = (clock.now(), Instant::now());
                let reply = go_on(next, call).await;
                let ms = clock.now().since(started).0;
                let code = reply.as_ref().map_or_else(|refusal| grpc(code(refusal.reason)), |_| "OK");
                histogram!("nexa_rpc_seconds", "rpc" => name, "code" => code).record(began.elapsed().as_secs_f64());
                match &reply {
                    Ok(_) => tracing::debug!(ms, "answered"),
                    Err(refusal) => {
                        let reason = refusal.reason.as_str();
                        match refusal.reason {
                            Reason::Internal | Reason::DataCorrupt | Reason::DiskFull => {
                                let request = shown(request);
                                tracing::error!(ms, reason, %refusal, name, request, "refused");
                            }
                            Reason::StoreUnavailable => {
                                let request = shown(request);
                                tracing::warn!(ms, reason, %refusal, name, request, "refused");
                            }
                            _ => tracing::debug!(ms, reason, %refusal, "refused"),
                        }
                    }
                }
                reply
            }
            .instrument(span)
        },
    )
}

/// Nothing for what is not known.
fn shown(value: Option<impl std::fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// The name of a code of gRPC, as its specification writes it.
fn grpc(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
